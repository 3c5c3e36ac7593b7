use super::*;
use proptest::prelude::*;

mod vectors;

fn payload(plain: &[u8]) -> &[u8] {
    let view = geneve::View::parse(plain).unwrap();
    assert_eq!((view.kind(), view.tenant().as_u32()), (geneve::Payload::Control, 0));
    view.payload()
}

fn position(n: u64) -> Position {
    Position { epoch: 0x1111_1111_1111_1100 + n, round: 0x2222_2200 + n as u32, number: 0x3333_3333_3333_3300 + n }
}

fn progress() -> Progress {
    Progress { said: position(1), heard: position(2) }
}

fn probe(size: u16) -> Probe {
    Probe { size, number: 0x0102_0304_0506_0708, clock: 0x1112_1314_1516_1718, progress: progress() }
}

fn prefix(text: &str) -> Prefix {
    let (address, len) = text.split_once('/').unwrap();
    Prefix::new(address.parse().unwrap(), len.parse().unwrap()).unwrap()
}

fn entry(tenant: u32, text: &str, alive: Option<Alive>) -> Entry {
    Entry { tenant: TenantId::new(tenant.into()).unwrap(), prefix: prefix(text), alive }
}

fn owner() -> Owner {
    Owner { key: std::array::from_fn(|at| at as u8 + 1), stamp: std::array::from_fn(|at| at as u8 + 0x40) }
}

const PLACE: Place = Place { epoch: 9, round: 8, from: 7, to: 12, head: 13 };

fn state(entries: &[Entry], longest: usize) -> Vec<u8> {
    let mut writer = Writer::new(longest);
    assert!(entries.iter().all(|entry| writer.push(entry)));
    writer.finish(&PLACE)
}

fn said(message: Message<'_>) -> Vec<Entry> {
    match message {
        Message::State(state) => state.entries().collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_field_stands_where_the_document_puts_it() {
    let plain = probe(1440).plain();
    assert_eq!(plain.len(), 1440);
    assert_eq!(plain[..16], [0, 0x80, 0x88, 0xb5, 0, 0, 0, 0, 1, 0, 64, 0, 0xa0, 0x05, 0, 0]);
    assert_eq!(plain[16..24], 0x0102_0304_0506_0708u64.to_le_bytes());
    assert_eq!(plain[24..32], 0x1112_1314_1516_1718u64.to_le_bytes());
    let told = [
        [1, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11],
        [1, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33],
        [2, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11],
        [2, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33],
        [1, 0x22, 0x22, 0x22, 2, 0x22, 0x22, 0x22],
    ]
    .concat();
    assert_eq!(plain[32..72], told);
    assert!(plain[72..].iter().all(|byte| *byte == 0), "padding");
    let reply = probe(0).reply(1440, progress());
    assert_eq!((reply.len(), &reply[8..16]), (Probe::LEN, &[2, 0, 64, 0, 0xa0, 0x05, 0, 0][..]));
    assert_eq!((&reply[16..72], &reply[72..]), (&plain[16..72], &[0; 8][..]));
    assert_eq!(probe(0).plain().len(), Probe::LEN);
    let plain = progress().plain();
    assert_eq!(plain[8..16], [3, 0, 48, 0, 0, 0, 0, 0]);
    assert_eq!((&plain[16..56], &plain[56..]), (&told[..], &[0; 8][..]));

    let entries = [
        entry(0x0a_0b0c, "10.9.3.0/24", Some(Alive { hops: 2, owner: None })),
        entry(0x0a_0b0c, "10.9.4.192/26", None),
        entry(7, "fd00:8::/29", Some(Alive { hops: 0, owner: Some(owner()) })),
        entry(7, "0.0.0.0/0", Some(Alive { hops: 7, owner: None })),
    ];
    let plain = state(&entries, 1440);
    let owner = [&owner().key[..], &owner().stamp].concat();
    let said = [
        &[8, 24, 2, 0x0c, 0x0b, 0x0a, 10, 9, 3][..],
        &[2, 26, 0, 10, 9, 4, 192],
        &[1 + 4 + 8, 29, 0, 7, 0, 0, 0xfd, 0, 0, 8],
        &owner,
        &[0, 0, 7],
    ]
    .concat();
    assert_eq!(plain[8..16], [4, 0, 44 + said.len() as u8, 0, 8, 0, 0, 0]);
    assert_eq!(plain[16..48], [9u64, 7, 12, 13].map(u64::to_le_bytes).concat());
    assert_eq!(plain[48..52], [4, 0, 0, 0]);
    let (written, padding) = plain[52..].split_at(said.len());
    assert_eq!((written, padding, plain.len() % 16), (&said[..], &vec![0; padding.len()][..], 0));
}

#[test]
fn what_was_written_is_read_whatever_is_behind_it() {
    let entries = [entry(1, "10.0.0.0/8", None), entry(2, "::/0", Some(Alive::default()))];
    let plains = [probe(0).plain(), probe(0).reply(80, progress()), progress().plain(), state(&entries, 1440)];
    for plain in plains {
        let message = Message::parse(payload(&plain)).unwrap();
        match message {
            Message::Probe(got) => assert_eq!(got, probe(0)),
            Message::Reply(got) => assert_eq!(got, probe(80)),
            Message::Progress(got) => assert_eq!(got, progress()),
            Message::State(got) => {
                assert_eq!((got.place, got.entries().collect::<Vec<_>>()), (PLACE, entries.to_vec()))
            }
        }
        // Padding, and what a later version has to say.
        for later in 0..3 {
            let mut longer = plain.clone();
            longer[10] += later;
            longer.resize(plain.len() + 16, 0xff);
            match (Message::parse(payload(&longer)).unwrap(), message) {
                (Message::State(got), Message::State(state)) => {
                    assert_eq!((got.place, got.entries().collect::<Vec<_>>()), (state.place, entries.to_vec()));
                }
                (got, message) => assert_eq!(got, message),
            }
        }
        let whole = 8 + usize::from(u16::from_le_bytes([plain[10], plain[11]]));
        assert!(plain.len() % 16 == 0 && plain.len() - whole < 16, "{}", plain.len());
        for len in 0..whole {
            assert!(
                geneve::View::parse(&plain[..len]).and_then(|view| Message::parse(view.payload())).is_err(),
                "{len}"
            );
        }
    }
}

#[test]
fn what_is_not_known_or_can_not_be_is_refused() {
    let owned = Some(Alive { hops: 3, owner: Some(owner()) });
    let good = state(&[entry(1, "10.9.1.128/25", owned), entry(1, "10.9.2.0/24", None)], 1440);
    let refused = |at: usize, bits: u8| {
        let mut wrong = good.clone();
        wrong[at] ^= bits;
        Message::parse(payload(&wrong)).err()
    };
    let second = 52 + 3 + 3 + 4 + 44;
    assert_eq!(good[second..second + 3], [2, 24, 0]);
    for (at, bits, error) in [
        (8, 4 ^ 5, Malformed::Protocol),               // type
        (8, 4, Malformed::Protocol),                   // type 0
        (9, 1, Malformed::Reserved),                   //
        (11, 1, Malformed::TotalLength),               // length beyond what there is
        (10, good[10] ^ 43, Malformed::TotalLength),   // shorter than its header
        (50, 1, Malformed::Reserved),                  // behind the count
        (48, 1, Malformed::TotalLength),               // three entries
        (16, 9, Malformed::Value),                     // epoch 0
        (24, 8, Malformed::Value),                     // from 15, to 12
        (40, 8, Malformed::Value),                     // to 12, head 5
        (52, 0x80, Malformed::Reserved),               // a flag
        (52, 0x10, Malformed::Reserved),               // a flag
        (52, 8, Malformed::Value),                     // no tenant
        (52, 2, Malformed::Value),                     // gone, with an owner
        (53, 25 ^ 24, Malformed::Value),               // not so short, or the rest is shifted
        (54, 3 ^ 8, Malformed::Value),                 // eight hops
        (second, 4, Malformed::TotalLength),           // an owner that is not there
        (second + 1, 24 ^ 33, Malformed::TotalLength), // five bytes, of which there are three
        (second + 2, 1, Malformed::Value),             // gone, at a hop
    ] {
        let got = refused(at, bits);
        assert!(got == Some(error) || (at == 53 && got.is_some()), "{at}: {got:?}, not {error:?}");
    }
    assert_eq!(Message::parse(&[]), Err(Malformed::Short));
    let mut beyond = state(&[entry(1, "10.9.1.128/25", None)], 1440);
    assert_eq!(beyond[52..62], [10, 25, 0, 1, 0, 0, 10, 9, 1, 128]);
    beyond[61] |= 1;
    assert_eq!(Message::parse(payload(&beyond)), Err(Malformed::Value), "a bit beyond the prefix");
    let mut long = state(&[entry(1, "10.9.1.129/32", None)], 1440);
    (long[53], long[10]) = (33, long[10] + 1);
    assert_eq!(Message::parse(payload(&long)), Err(Malformed::Value), "IPv4 of 33 bits");
    for kind in [0, 5, 6, 0xff] {
        let mut unknown = probe(0).plain();
        unknown[8] = kind;
        assert_eq!(Message::parse(payload(&unknown)), Err(Malformed::Protocol));
    }
    for (plain, at) in [(probe(0).plain(), 14), (progress().plain(), 12), (progress().plain(), 9)] {
        let mut wrong = plain;
        wrong[at] = 1;
        assert_eq!(Message::parse(payload(&wrong)), Err(Malformed::Reserved));
    }
}

#[test]
fn a_prefix_has_no_bit_beyond_its_length() {
    for (address, len, good) in [
        ("0.0.0.0", 0, true),
        ("10.0.0.1", 32, true),
        ("10.0.0.1", 31, false),
        ("10.0.0.0", 33, false),
        ("128.0.0.0", 0, false),
        ("::", 0, true),
        ("::1", 128, true),
        ("::1", 127, false),
        ("::", 129, false),
        ("8000::", 0, false),
    ] {
        assert_eq!(Prefix::new(address.parse().unwrap(), len).is_some(), good, "{address}/{len}");
    }
}

#[test]
fn a_message_is_as_long_as_may_be_and_no_longer() {
    let long = |n: u32| entry(n, "fd00::1/128", Some(Alive { hops: 0, owner: Some(owner()) }));
    for longest in [0, LONGEST_MIN, LONGEST_MIN + ENTRY_MAX - 1, LONGEST_MIN + ENTRY_MAX, 1448, 9000, 100_000] {
        let mut writer = Writer::new(longest);
        let count = (0..).take_while(|n| writer.push(&long(*n))).count();
        let plain = writer.finish(&PLACE);
        let most = longest.clamp(LONGEST_MIN, 65_535);
        assert!(plain.len() <= most && plain.len() + ENTRY_MAX > most, "{longest}: {}", plain.len());
        assert_eq!(said(Message::parse(payload(&plain)).unwrap()).len(), count);
    }
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let owners = (any::<[u8; 32]>(), any::<[u8; 12]>()).prop_map(|(key, stamp)| Owner { key, stamp });
    let alive = (0..=HOPS_MAX, proptest::option::of(owners)).prop_map(|(hops, owner)| Alive { hops, owner });
    let prefixes = (any::<bool>(), any::<u128>(), 0u8..=128).prop_map(|(v6, bits, len)| {
        let len = if v6 { len } else { len % 33 };
        let bits = bits & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        let v4 = Ipv4Addr::from_bits((bits >> 96) as u32);
        Prefix::new(if v6 { Ipv6Addr::from_bits(bits).into() } else { v4.into() }, len).unwrap()
    });
    let tenants = prop_oneof![0u32..3, 0..=TenantId::MAX].prop_map(|id| TenantId::new(id.into()).unwrap());
    let entry = (tenants, prefixes, proptest::option::of(alive));
    let entry = entry.prop_map(|(tenant, prefix, alive)| Entry { tenant, prefix, alive });
    proptest::collection::vec(entry, 0..40)
}

proptest! {
    #[test]
    fn any_state_comes_back(entries in entries(), longest in 100usize..2000) {
        let mut writer = Writer::new(longest);
        let fit = entries.iter().take_while(|entry| writer.push(entry)).count();
        let plain = writer.finish(&PLACE);
        prop_assert!(plain.len() <= longest.max(LONGEST_MIN));
        prop_assert_eq!(said(Message::parse(payload(&plain)).unwrap()), &entries[..fit]);
    }

    #[test]
    fn any_bytes_are_safe_and_what_is_read_is_what_would_be_written(
        entries in entries(), flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        noise in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u8..6,
    ) {
        let mut plain = match kind {
            0 => probe(200).plain(),
            1 => probe(0).reply(100, progress()),
            2 => progress().plain(),
            _ => state(&entries, 65_535),
        };
        plain.drain(..geneve::HEADER);
        for (at, with) in flips {
            let at = at % plain.len();
            plain[at] ^= with;
        }
        if kind == 5 {
            plain.truncate(STATE_LEN);
            plain.extend(noise);
            let [low, high] = (plain.len() as u16).to_le_bytes();
            plain[2..4].copy_from_slice(&[low, high]);
        }
        match Message::parse(&plain) {
            Ok(Message::State(state)) => {
                let read: Vec<_> = state.entries().collect();
                prop_assert_eq!(read.len(), usize::from(state.count));
                let mut writer = Writer::new(65_535);
                prop_assert!(read.iter().all(|entry| writer.push(entry)));
                let again = writer.finish(&state.place);
                prop_assert_eq!(said(Message::parse(payload(&again)).unwrap()), read);
            }
            Ok(Message::Probe(probe)) => {
                // But for the length, which may be more than is known.
                prop_assert_eq!(&probe.plain()[8 + COMMON..][..PROBE_LEN - COMMON], &plain[COMMON..PROBE_LEN]);
            },
            Ok(Message::Reply(_) | Message::Progress(_)) | Err(_) => {}
        }
    }
}
