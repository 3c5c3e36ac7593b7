use super::*;
use ahash::AHashSet;
use ipnet::IpNet;
use proptest::prelude::*;
use std::collections::BTreeMap;
use wire::TenantId;
use wire::geneve::View;
use wire::hub::{Entry, LONGEST_MIN, Message, Owner, Place, Position, Writer};

const INTERVAL: Duration = Duration::from_millis(300);
const LONG: usize = 1400;

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn tenant(id: u32) -> TenantId {
    TenantId::new(id.into()).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn alive(hops: u8) -> Option<Alive> {
    Some(Alive { hops, owner: None })
}

fn a_site(key: u8, stamp: u8) -> Option<Alive> {
    Some(Alive { hops: 0, owner: Some(Owner { key: [key; 32], stamp: [stamp; 12] }) })
}

fn message(plain: &[u8]) -> Message<'_> {
    Message::parse(View::parse(plain).unwrap().payload()).unwrap()
}

/// What a hub says, as it might be: the entries are of tenant 1.
fn said(epoch: u64, round: u32, numbers: (u64, u64, u64), entries: &[(&str, Option<Alive>)]) -> Vec<u8> {
    let mut writer = Writer::new(LONG);
    for (prefix, alive) in entries {
        assert!(writer.push(&Entry { tenant: tenant(1), prefix: to_wire(net(prefix)).unwrap(), alive: *alive }));
    }
    let (from, to, head) = numbers;
    writer.finish(&Place { epoch, round, from, to, head })
}

fn hear(heard: &mut Heard, plain: &[u8]) {
    let Message::State(state) = message(plain) else { panic!("no state") };
    heard.on_state(&state, at(0));
    while heard.next() == Time(0) {
        heard.poll(at(0));
    }
}

fn known(heard: &Heard) -> Vec<String> {
    heard.iter().map(|(_, prefix, _)| prefix.to_string()).collect()
}

/// Numbers that look drawn, and are the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A hub at one end, and what its owner believes of the other by changes alone.
struct End {
    talk: Announcements,
    truth: BTreeMap<(TenantId, IpNet), Alive>,
    believed: BTreeMap<(TenantId, IpNet), Alive>,
    probe: u64,
}

impl End {
    fn new(epoch: u64, now: u64) -> Self {
        let talk = Announcements::new(epoch, INTERVAL, at(now));
        Self { talk, truth: BTreeMap::new(), believed: BTreeMap::new(), probe: now }
    }

    fn set(&mut self, tenant: TenantId, prefix: IpNet, alive: Option<Alive>) {
        match alive {
            Some(alive) => self.truth.insert((tenant, prefix), alive),
            None => self.truth.remove(&(tenant, prefix)),
        };
        self.talk.said.update([(tenant, prefix, alive)]);
    }

    fn take(&mut self, plain: &[u8], now: u64) {
        match message(plain) {
            Message::State(state) => self.talk.on_state(&state, at(now)),
            Message::Progress(progress) => self.talk.on_progress(&progress, at(now)),
            other => panic!("{other:?}"),
        }
        self.note();
    }

    fn note(&mut self) {
        for (tenant, prefix) in self.talk.heard.changes().prefixes {
            match self.talk.heard.get(tenant, prefix) {
                Some(alive) => self.believed.insert((tenant, prefix), alive),
                None => self.believed.remove(&(tenant, prefix)),
            };
        }
    }
}

/// Two hubs, and a way between them that does what it likes.
struct Lab {
    ends: [End; 2],
    /// When it arrives, at which end, what.
    way: Vec<(u64, usize, Vec<u8>)>,
    now: u64,
    dice: Dice,
    /// Per cent lost, doubled, and the longest that a message is on its way, in milliseconds.
    lost: u64,
    doubled: u64,
    slow: u64,
    longest: usize,
    sent: usize,
    epochs: u64,
}

impl Lab {
    fn new(longest: usize) -> Self {
        let ends = [End::new(1, 0), End::new(2, 0)];
        Self {
            ends,
            way: Vec::new(),
            now: 0,
            dice: Dice(7),
            lost: 0,
            doubled: 0,
            slow: 20,
            longest,
            sent: 0,
            epochs: 2,
        }
    }

    fn restart(&mut self, end: usize) {
        self.epochs += 1;
        self.ends[end] = End::new(self.epochs, self.now);
    }

    fn send(&mut self, to: usize, plain: Vec<u8>) {
        self.sent += 1;
        let copies = u64::from(self.dice.roll(100) >= self.lost) + u64::from(self.dice.roll(100) < self.doubled);
        for _ in 0..copies {
            self.way.push((self.now + 1 + self.dice.roll(self.slow), to, plain.clone()));
        }
    }

    /// One moment; and how far the next one is.
    fn step(&mut self) -> u64 {
        let (due, rest) = std::mem::take(&mut self.way).into_iter().partition(|(due, ..)| *due <= self.now);
        self.way = rest;
        let due: Vec<_> = due;
        for (_, to, plain) in due {
            self.ends[to].take(&plain, self.now);
        }
        for from in 0..2 {
            let end = &mut self.ends[from];
            let mut messages = end.talk.poll(self.longest, at(self.now));
            end.note();
            assert!(messages.len() <= 2 * BURST, "{}", messages.len());
            assert!(end.talk.said.next() > at(self.now), "it would be polled for ever");
            assert!(messages.iter().all(|message| message.len() <= self.longest.max(LONGEST_MIN)));
            if self.now >= end.probe {
                end.probe = self.now + INTERVAL.as_millis() as u64;
                messages.push(end.talk.progress().plain());
            }
            for message in messages {
                self.send(1 - from, message);
            }
        }
        let timers = self.ends.iter().flat_map(|end| [end.talk.next(), at(end.probe)]);
        let next = timers.chain(self.way.iter().map(|(due, ..)| at(*due))).min().unwrap();
        (next.since(at(self.now)).as_nanos() as u64).div_ceil(1_000_000).max(1)
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += self.step().min(end - self.now);
        }
    }

    /// Runs until both agree; how long that took.
    fn agree(&mut self, within: u64) -> u64 {
        let begun = self.now;
        while !self.agreed() {
            assert!(
                self.now < begun + within,
                "no agreement: {:?}",
                self.ends.each_ref().map(|end| end.talk.progress())
            );
            self.now += self.step();
        }
        self.now - begun
    }

    fn agreed(&self) -> bool {
        let one = |hears: &End, says: &End| {
            hears.talk.heard.is_current()
                && says.talk.said.all_heard()
                && hears.talk.heard.position() == says.talk.said.position()
                && hears
                    .talk
                    .heard
                    .iter()
                    .map(|(tenant, prefix, alive)| ((tenant, prefix), alive))
                    .eq(says.truth.clone())
                && hears.believed == says.truth
        };
        let [a, b] = &self.ends;
        one(a, b) && one(b, a)
    }
}

/// Many prefixes: of tenants that alternate, so that each entry names its own.
fn many(count: u32) -> impl Iterator<Item = (TenantId, IpNet, Option<Alive>)> {
    (0..count).map(|n| {
        let prefix = IpNet::new(std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(), 24).unwrap();
        (tenant(1 + n % 7), prefix, alive(0))
    })
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    Change(usize, u32, u8, Option<u8>),
    Restart(usize),
    Time(u64),
    Way { lost: u64, doubled: u64, slow: u64 },
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let change = (0usize..2, 0u32..3, 0u8..30, proptest::option::weighted(0.6, 0u8..12))
        .prop_map(|(end, tenant, prefix, alive)| Happens::Change(end, tenant, prefix, alive));
    let way = (0u64..70, 0u64..40, 1u64..900).prop_map(|(lost, doubled, slow)| Happens::Way { lost, doubled, slow });
    let one = prop_oneof![
        30 => change,
        1 => (0usize..2).prop_map(Happens::Restart),
        10 => (0u64..800).prop_map(Happens::Time),
        1 => (20_000u64..70_000).prop_map(Happens::Time),
        2 => way,
    ];
    proptest::collection::vec(one, 1..120)
}

/// One of thirty prefixes, some of which lie in others.
fn prefix(n: u8) -> IpNet {
    match n {
        0..10 => net(&format!("10.{n}.0.0/16")),
        10..20 => net(&format!("10.{}.128.0/{}", n - 10, n + 8)),
        _ => net(&format!("fd00:{n:x}::/32")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn both_ends_agree_whatever_the_way_does_and_whoever_starts_anew(story in happens(), longest in 0usize..400, seed: u64) {
        let mut lab = Lab::new(longest);
        lab.dice = Dice(seed);
        for one in story {
            match one {
                Happens::Change(end, id, n, what) => {
                    let owned = a_site(n, 1);
                    let what = what.map(|what| if what < 8 { Alive { hops: what, owner: None } } else { Alive { hops: what - 8, ..owned.unwrap() } });
                    lab.ends[end].set(tenant(id), prefix(n), what);
                }
                Happens::Restart(end) => lab.restart(end),
                Happens::Time(ms) => lab.run(ms),
                Happens::Way { lost, doubled, slow } => (lab.lost, lab.doubled, lab.slow) = (lost, doubled, slow),
            }
        }
        (lab.lost, lab.doubled, lab.slow) = (0, 0, 20);
        // What was slow until now arrives within a second; after another, a round may begin.
        lab.agree(6_000);
        lab.run(35_000);
        lab.agree(1_000);
    }
}

#[test]
fn a_change_is_known_after_one_way() {
    let mut lab = Lab::new(LONG);
    lab.agree(1_000);
    lab.slow = 1;
    lab.ends[0].set(tenant(1), net("10.9.3.0/24"), a_site(3, 4));
    lab.run(1);
    lab.run(1);
    assert_eq!(lab.ends[1].talk.heard.owner(tenant(1), net("10.9.3.0/24")), a_site(3, 4).unwrap().owner);
    lab.ends[0].set(tenant(1), net("10.9.3.0/24"), None);
    lab.run(20);
    assert!(lab.ends[1].talk.heard.is_empty() && lab.agreed());
}

#[test]
fn a_hundred_thousand_prefixes_are_said_in_bursts_and_news_goes_ahead_of_them() {
    let mut lab = Lab::new(LONG);
    lab.agree(1_000);
    let changes: Vec<_> = many(100_000).collect();
    lab.ends[0].truth.extend(changes.iter().map(|(tenant, prefix, alive)| ((*tenant, *prefix), alive.unwrap())));
    lab.ends[0].talk.said.update(changes);
    let before = lab.sent;
    let took = lab.agree(10_000);
    // Nine bytes each; some more for what each end says of what it has heard.
    let least = 100_000 * 9 / LONG;
    assert!((least..least * 3 / 2).contains(&(lab.sent - before)), "{} messages, not {least}", lab.sent - before);
    assert!(took < 2_000, "{took} ms");
    // With the next round on its way, and its first messages lost, something happens.
    while lab.ends[0].talk.said.position().round == 1 {
        lab.lost = 100;
        lab.now += lab.step();
    }
    lab.run(200);
    assert!(!lab.ends[0].talk.said.all_heard());
    (lab.lost, lab.slow) = (0, 1);
    lab.ends[0].set(tenant(1), net("10.0.0.0/24"), None);
    lab.ends[0].set(tenant(9), net("10.0.0.0/24"), alive(0));
    lab.run(12);
    let heard = &lab.ends[1].talk.heard;
    assert_eq!((heard.get(tenant(1), net("10.0.0.0/24")), heard.get(tenant(9), net("10.0.0.0/24"))), (None, alive(0)));
    assert!(!heard.is_current() && heard.len() == 100_000);
    lab.agree(3_000);
    // A restart, on a way that loses some.
    lab.restart(1);
    (lab.lost, lab.slow) = (10, 20);
    assert_eq!(lab.ends[1].talk.heard.len(), 0);
    let took = lab.agree(60_000);
    // Some forty gaps. Each is filled when the one before it is, and not an interval later.
    assert!(took < 8_000, "{took} ms");
}

#[test]
fn who_does_not_answer_is_not_flooded() {
    let mut lab = Lab::new(LONG);
    lab.lost = 100;
    lab.ends[0].talk.said.update(many(100_000));
    lab.run(200);
    let first = lab.sent;
    assert!((WINDOW..WINDOW + 10).contains(&first), "{first}");
    // Eight at most every 300 ms; its own probes, and those of the other, which has one message to say.
    lab.run(60_000);
    assert!(lab.sent - first <= 200 * (8 + 1 + 1 + 1) + 20, "{}", lab.sent - first);
}

#[test]
fn a_route_is_alive_until_all_is_known_and_then_if_something_of_it_is() {
    let mut heard = Heard::default();
    let alive_of = |heard: &Heard| {
        ["10.9.0.0/16", "10.9.3.0/24", "10.9.3.128/25", "10.8.0.0/16"]
            .map(|prefix| heard.is_alive(tenant(1), net(prefix)))
    };
    assert_eq!(alive_of(&heard), [true; 4]);
    hear(&mut heard, &said(7, 1, (0, 2, 3), &[("10.9.3.0/24", alive(0))]));
    assert_eq!(alive_of(&heard), [true; 4], "there is more to come");
    assert!(!heard.changes().all);
    hear(&mut heard, &said(7, 1, (2, 3, 3), &[]));
    assert_eq!(alive_of(&heard), [true, true, true, false]);
    assert!(heard.changes().all && !heard.changes().all);
    assert!(!heard.is_alive(tenant(2), net("10.9.3.0/24")) && !heard.is_alive(tenant(1), net("::/0")));
    hear(&mut heard, &said(7, 1, (3, 4, 4), &[("10.9.3.0/24", None)]));
    assert_eq!(alive_of(&heard), [false; 4]);
    assert_eq!(heard.changes(), Changes { all: false, prefixes: vec![(tenant(1), net("10.9.3.0/24"))] });
}

#[test]
fn a_hub_with_nothing_behind_it_says_so() {
    let mut lab = Lab::new(LONG);
    assert!(lab.ends[0].talk.heard.is_alive(tenant(1), net("10.9.3.0/24")));
    lab.agree(500);
    assert!(!lab.ends[0].talk.heard.is_alive(tenant(1), net("10.9.3.0/24")));
}

#[test]
fn what_a_round_does_not_say_is_gone_when_it_is_whole_and_not_before() {
    let mut heard = Heard::default();
    hear(
        &mut heard,
        &said(7, 1, (0, 4, 4), &[("10.1.0.0/16", alive(0)), ("10.2.0.0/16", alive(0)), ("10.3.0.0/16", alive(0))]),
    );
    heard.changes();
    // The third has changed since this round began: a message that was made then, because the first was lost, knows of that; one that was
    // made before does not.
    hear(&mut heard, &said(7, 2, (0, 2, 5), &[("10.1.0.0/16", alive(0))]));
    assert_eq!(known(&heard).len(), 3);
    hear(&mut heard, &said(7, 2, (2, 4, 4), &[]));
    assert_eq!((known(&heard).len(), heard.is_current()), (3, false), "there is a newer number than 4");
    hear(&mut heard, &said(7, 2, (4, 5, 5), &[("10.3.0.0/16", alive(1))]));
    assert_eq!(known(&heard), ["10.1.0.0/16", "10.3.0.0/16"]);
    let changed = [net("10.3.0.0/16"), net("10.2.0.0/16")].map(|prefix| (tenant(1), prefix));
    assert_eq!(heard.changes().prefixes, changed);
    // A round that is over, and a hub's life that is over, have nothing to say any more.
    hear(&mut heard, &said(7, 1, (4, 9, 9), &[("10.4.0.0/16", alive(0))]));
    hear(&mut heard, &said(8, 1, (0, 2, 2), &[("10.5.0.0/16", alive(0))]));
    hear(&mut heard, &said(7, 3, (0, 2, 2), &[("10.6.0.0/16", alive(0))]));
    assert_eq!(
        (known(&heard), heard.position()),
        (vec!["10.5.0.0/16".to_owned()], Position { epoch: 8, round: 1, number: 2 })
    );
}

#[test]
fn what_is_beyond_a_gap_counts_and_older_news_does_not_undo_newer() {
    let mut heard = Heard::default();
    let late = said(7, 1, (0, 3, 3), &[("10.1.0.0/16", alive(0)), ("10.2.0.0/16", alive(3))]);
    hear(&mut heard, &said(7, 1, (4, 6, 6), &[("10.2.0.0/16", alive(5)), ("10.1.0.0/16", None)]));
    assert_eq!(
        (heard.get(tenant(1), net("10.2.0.0/16")), heard.position().number, heard.is_known()),
        (alive(5), 0, false)
    );
    hear(&mut heard, &late);
    assert_eq!((heard.get(tenant(1), net("10.2.0.0/16")), heard.position().number), (alive(5), 3));
    // With the gap filled, what waited is taken in its turn.
    hear(&mut heard, &said(7, 1, (3, 4, 6), &[]));
    assert_eq!((known(&heard), heard.position().number), (vec!["10.2.0.0/16".to_owned()], 6));
    hear(&mut heard, &late);
    assert_eq!((known(&heard), heard.is_current()), (vec!["10.2.0.0/16".to_owned()], true));
}

#[test]
fn what_stays_alive_is_never_taken_for_dead() {
    for seed in 0..4 {
        let mut lab = Lab::new(LONGEST_MIN + 20);
        lab.dice = Dice(seed);
        (0..30).for_each(|n| lab.ends[0].set(tenant(1), prefix(n), alive(0)));
        lab.agree(3_000);
        (lab.lost, lab.doubled, lab.slow) = (25, 10, 200);
        let mut was = (1, 0);
        while lab.now < 70_000 {
            // Each change takes a prefix out of its place in the round.
            let (n, hops) = (lab.dice.roll(30) as u8, lab.dice.roll(7) as u8);
            lab.ends[0].set(tenant(1), prefix(n), alive(hops));
            let wait = 20 + lab.dice.roll(150);
            for _ in 0..wait {
                lab.run(1);
                assert_eq!(lab.ends[1].talk.heard.len(), 30, "seed {seed}, at {} ms", lab.now);
            }
            let position = lab.ends[1].talk.heard.position();
            was = (was.0.max(position.round), was.1 + u64::from(lab.ends[1].talk.heard.is_current()));
        }
        assert!(was.0 >= 3 && was.1 > 10, "rounds come to their ends: {was:?}");
    }
}

#[test]
fn what_has_come_too_far_is_not_said() {
    let mut said = Said::new(1, INTERVAL, at(0));
    said.update([(tenant(1), net("10.1.0.0/16"), alive(7)), (tenant(1), net("10.2.0.0/16"), alive(8))]);
    assert_eq!((said.len(), said.get(tenant(1), net("10.1.0.0/16"))), (1, alive(7)));
    said.update([(tenant(1), net("10.1.0.0/16"), alive(8))]);
    assert!(said.is_empty());
}

#[test]
fn a_trunk_carries_whom_it_may_and_asks_for_those_that_it_may_later() {
    let mut lab = Lab::new(LONG);
    lab.ends[1].talk.heard.allow(Some(AHashSet::from([tenant(1)])));
    lab.ends[0].set(tenant(1), net("10.1.0.0/16"), alive(0));
    lab.ends[0].talk.said.update([(tenant(2), net("10.2.0.0/16"), alive(0))]);
    lab.run(2_000);
    assert_eq!((known(&lab.ends[1].talk.heard).len(), lab.ends[1].talk.heard.left_out()), (1, (0, 1)));
    lab.ends[1].talk.heard.allow(Some(AHashSet::from([tenant(1), tenant(2)])));
    lab.run(2_000);
    assert_eq!(known(&lab.ends[1].talk.heard), ["10.1.0.0/16", "10.2.0.0/16"]);
    lab.ends[1].talk.heard.allow(Some(AHashSet::from([tenant(2)])));
    assert_eq!(known(&lab.ends[1].talk.heard), ["10.2.0.0/16"]);
    assert_eq!(lab.ends[1].talk.heard.changes().prefixes.last(), Some(&(tenant(1), net("10.1.0.0/16"))));
    // Also before anything of the first round was acknowledged.
    let mut lab = Lab::new(LONG);
    lab.ends[1].talk.heard.allow(Some(AHashSet::new()));
    lab.ends[0].set(tenant(1), net("10.1.0.0/16"), alive(0));
    lab.slow = 1;
    lab.run(2);
    assert!(lab.ends[1].talk.heard.is_current() && !lab.ends[0].talk.said.all_heard());
    lab.ends[1].talk.heard.allow(None);
    lab.way.clear();
    lab.agree(12_000);
}

#[test]
fn what_the_other_says_has_bounds() {
    let mut heard = Heard::default();
    let changes: Vec<_> = many(65_536).collect();
    let mut number = 0;
    for round in 1..=3u8 {
        for (chunk, octet) in
            changes.chunks(100).zip(0u64..).flat_map(|chunk| (0..4u8).map(move |octet| (chunk, octet)))
        {
            let mut writer = Writer::new(LONG);
            for (id, prefix, alive) in chunk.0 {
                let std::net::IpAddr::V4(v4) = prefix.addr() else { panic!() };
                let v4 = std::net::Ipv4Addr::from_bits(v4.to_bits() ^ u32::from(octet | round << 4) << 24);
                let prefix = to_wire(IpNet::new(v4.into(), 24).unwrap()).unwrap();
                assert!(writer.push(&Entry { tenant: *id, prefix, alive: *alive }));
            }
            number += 1;
            // Never whole, so that nothing is sorted out.
            let plain =
                writer.finish(&Place { epoch: 7, round: round.into(), from: number - 1, to: number, head: u64::MAX });
            let Message::State(state) = message(&plain) else { panic!() };
            heard.on_state(&state, at(0));
        }
        assert_eq!(heard.len(), 200_000 * usize::from(round).min(2));
    }
    assert_eq!(heard.left_out().0, 3 * 4 * 65_536 - 400_000);
    assert!(heard.changes().prefixes.len() <= 400_000);
}

#[test]
fn prefixes_that_come_and_go_while_nobody_listens_are_forgotten() {
    let mut lab = Lab::new(LONG);
    lab.ends[0].set(tenant(1), net("192.168.0.0/16"), alive(0));
    lab.agree(1_000);
    for _ in 0..2 {
        lab.ends[0].talk.said.update(many(100_000));
        lab.ends[0].talk.said.update(many(100_000).map(|(tenant, prefix, _)| (tenant, prefix, None)));
    }
    // As many that the other knows, and never hears of again but by a round that has them not.
    lab.ends[0].talk.said.update([(tenant(8), net("10.1.0.0/16"), alive(0))]);
    lab.ends[0].talk.said.update([(tenant(8), net("10.1.0.0/16"), None)]);
    assert!(lab.ends[0].talk.said.position().number > 400_000);
    lab.run(1_500);
    assert_eq!(lab.ends[0].talk.said.position().round, 2);
    lab.agree(100);
    assert!(lab.sent < 100, "{}", lab.sent);
}

#[test]
fn the_hub_to_which_a_site_came_last_has_it() {
    let claim = |hub, hops, stamp| ([hub; 32], Alive { hops, owner: Some(Owner { key: [9; 32], stamp: [stamp; 12] }) });
    assert_eq!((owner([]), owner([([1; 32], Alive::default())])), (None, None));
    for (claims, has) in [
        ([claim(1, 0, 4), claim(2, 0, 5), claim(3, 0, 4)], 2),
        ([claim(1, 0, 5), claim(2, 0, 4), claim(3, 0, 4)], 1),
        ([claim(3, 0, 5), claim(2, 0, 5), claim(1, 0, 4)], 2),
        // What is passed on of a hub's own claim does not take the site from it; what is newer does, however far it has come.
        ([claim(3, 0, 5), claim(2, 1, 5), claim(1, 2, 5)], 3),
        ([claim(3, 0, 5), claim(2, 1, 5), claim(1, 7, 6)], 1),
        ([claim(3, 1, 5), claim(2, 1, 5), ([1; 32], Alive::default())], 2),
    ] {
        let mut claims = claims;
        for _ in 0..3 {
            claims.rotate_left(1);
            assert_eq!(owner(claims), Some([has; 32]), "{claims:?}");
        }
    }
}

fn hostile() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let number = || prop_oneof![0u64..12, any::<u64>()];
    let place = (1u64..7, 0u32..4, number(), number(), number()).prop_map(|(epoch, round, a, b, c)| {
        let mut numbers = [a, b, c];
        numbers.sort_unstable();
        Place { epoch, round, from: numbers[0], to: numbers[1], head: numbers[2] }
    });
    let entry = (0u32..3, 0u8..30, proptest::option::of(0u8..8));
    let state = (place, proptest::collection::vec(entry, 0..9)).prop_map(|(place, entries)| {
        let mut writer = Writer::new(LONG);
        for (id, n, hops) in entries {
            let alive = hops.map(|hops| Alive { hops, owner: None });
            writer.push(&Entry { tenant: tenant(id), prefix: to_wire(prefix(n)).unwrap(), alive });
        }
        writer.finish(&place)
    });
    let position = || (0u64..4, 0u32..4, number()).prop_map(|(epoch, round, number)| Position { epoch, round, number });
    let progress = (position(), position()).prop_map(|(said, heard)| Progress { said, heard }.plain());
    let noise = proptest::collection::vec(any::<u8>(), 0..90).prop_map(|noise| {
        let mut plain = said(1, 1, (0, 0, 0), &[]);
        plain.truncate(12);
        plain.extend(noise);
        let [low, high] = (plain.len() as u16 - 8).to_le_bytes();
        plain[10..12].copy_from_slice(&[low, high]);
        plain
    });
    proptest::collection::vec(prop_oneof![3 => state, 1 => progress, 1 => noise], 0..60)
}

proptest! {
    #[test]
    fn whatever_the_other_says_is_safe_and_what_it_counts_is_right(plains in hostile(), own in proptest::collection::vec((0u8..30, any::<bool>()), 0..40)) {
        let mut end = End::new(3, 0);
        let mut own = own.into_iter();
        for (now, plain) in plains.iter().enumerate() {
            let now = now as u64 * 400;
            if let Some((n, there)) = own.next() {
                end.set(tenant(1), prefix(n), there.then_some(Alive::default()));
            }
            match Message::parse(View::parse(plain).unwrap().payload()) {
                Ok(Message::State(state)) => end.talk.on_state(&state, at(now)),
                Ok(Message::Progress(progress)) => end.talk.on_progress(&progress, at(now)),
                _ => {}
            }
            let messages = end.talk.poll(LONG, at(now));
            prop_assert!(messages.len() <= 2 * BURST);
            end.note();
            prop_assert!(end.talk.heard.iter().map(|(tenant, prefix, alive)| ((tenant, prefix), alive)).eq(end.believed.clone()));
            prop_assert_eq!(end.talk.said.len(), end.truth.len());
            let by_iterating = |id, of: IpNet| end.talk.heard.iter().any(|(tenant, prefix, _)| tenant == id && (prefix.contains(&of) || of.contains(&prefix)));
            for n in 0..30 {
                let told = end.talk.heard.is_alive(tenant(1), prefix(n));
                prop_assert_eq!(told, !end.talk.heard.is_known() || by_iterating(tenant(1), prefix(n)));
            }
        }
    }
}
