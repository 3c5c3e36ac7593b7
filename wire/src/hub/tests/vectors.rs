//! The vectors of `docs/WIRE.md`: made anew by the code, and compared with the file that others test theirs by.

use super::*;
use std::fs;
use std::path::Path;

/// Written if this is set; else compared.
const WRITE: &str = "EKIDEN_WRITE_VECTORS";

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\"{digits}\"")
}

fn object(fields: &[(&str, String)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

fn array(indent: usize, elements: &[String]) -> String {
    let pad = " ".repeat(indent);
    format!("[\n{pad}  {}\n{pad}]", elements.join(&format!(",\n{pad}  ")))
}

fn positions(progress: &Progress) -> [(&'static str, String); 2] {
    [("said", progress.said), ("heard", progress.heard)].map(|(name, position)| {
        let Position { epoch, round, number } = position;
        (name, object(&[("epoch", epoch.to_string()), ("round", round.to_string()), ("number", number.to_string())]))
    })
}

fn of_probe(kind: &str, probe: &Probe, plain: &[u8]) -> String {
    let [said, heard] = positions(&probe.progress);
    object(&[
        ("type", format!("\"{kind}\"")),
        ("size", probe.size.to_string()),
        ("number", probe.number.to_string()),
        ("clock", probe.clock.to_string()),
        said,
        heard,
        ("plain", hex(plain)),
    ])
}

fn of_state(place: &Place, entries: &[Entry]) -> String {
    let mut writer = Writer::new(1440);
    assert!(entries.iter().all(|entry| writer.push(entry)));
    let told: Vec<_> = entries.iter().map(of_entry).collect();
    object(&[
        ("type", "\"state\"".to_owned()),
        ("epoch", place.epoch.to_string()),
        ("round", place.round.to_string()),
        ("from", place.from.to_string()),
        ("to", place.to.to_string()),
        ("head", place.head.to_string()),
        ("entries", if told.is_empty() { "[]".to_owned() } else { array(6, &told) }),
        ("plain", hex(&writer.finish(place))),
    ])
}

fn of_entry(entry: &Entry) -> String {
    let prefix = format!("\"{}/{}\"", entry.prefix.address(), entry.prefix.len());
    let mut fields = vec![("tenant", entry.tenant.to_string()), ("prefix", prefix)];
    match &entry.alive {
        None => fields.push(("gone", "true".to_owned())),
        Some(alive) => {
            fields.push(("hops", alive.hops.to_string()));
            if let Some(owner) = &alive.owner {
                fields.extend([("owner_key", hex(&owner.key)), ("owner_stamp", hex(&owner.stamp))]);
            }
        }
    }
    object(&fields)
}

/// Everything that a message may hold, once at least.
fn messages() -> Vec<String> {
    let small = Probe { size: 0, number: 1, clock: 5_000_000_000, progress: Progress::default() };
    let large = probe(1424);
    let state = [
        entry(1001, "10.9.3.0/24", Some(Alive { hops: 0, owner: Some(owner()) })),
        entry(1001, "10.9.4.192/26", Some(Alive { hops: 2, owner: None })),
        entry(1001, "10.8.0.0/13", None),
        entry(1002, "0.0.0.0/0", Some(Alive { hops: 7, owner: None })),
        entry(1002, "192.0.2.1/32", Some(Alive::default())),
        entry(0, "fd00:9:3::/48", Some(Alive { hops: 1, owner: Some(owner()) })),
        entry(0, "::/0", None),
        entry(TenantId::MAX, "2001:db8::1/128", Some(Alive::default())),
        entry(TenantId::MAX, "fd00:8::/29", Some(Alive::default())),
    ];
    let [said, heard] = positions(&progress());
    let kind = ("type", "\"progress\"".to_owned());
    vec![
        of_probe("probe", &small, &small.plain()),
        of_probe("probe", &large, &large.plain()),
        of_probe("reply", &probe(1424), &probe(0).reply(1424, progress())),
        object(&[kind, said, heard, ("plain", hex(&progress().plain()))]),
        of_state(&Place { epoch: 0x1122_3344_5566_7788, round: 1, from: 0, to: 1, head: 1 }, &[]),
        of_state(&Place { epoch: u64::MAX, round: 0x0102_0304, from: 40, to: 52, head: 70_000_000_000 }, &state),
    ]
}

/// What follows a tag, and is refused.
fn refused() -> Vec<String> {
    let good = &state(&[entry(1, "10.9.1.128/25", Some(Alive { hops: 3, owner: Some(owner()) }))], 1440)[8..];
    let good = good[..usize::from(u16::from_le_bytes([good[2], good[3]]))].to_vec();
    let changed = |why, changes: &[(usize, u8)]| {
        let mut wrong = good.clone();
        changes.iter().for_each(|(at, to)| wrong[*at] = *to);
        (why, wrong)
    };
    let cut = |why, len: usize| (why, good[..len].to_vec());
    let mut no_tenant = [&good[..44], &[0, 24, 0, 10, 9, 3]].concat();
    no_tenant[2] = no_tenant.len() as u8;
    assert_eq!(Message::parse(&no_tenant), Err(Malformed::Value));
    let all = [
        cut("nothing", 0),
        cut("shorter than type and length", 3),
        cut("shorter than it says", good.len() - 1),
        changed("type 0", &[(0, 0)]),
        changed("type 5", &[(0, 5)]),
        changed("what is reserved", &[(1, 1)]),
        changed("shorter than its fixed part", &[(2, 43)]),
        changed("epoch 0", &[(8, 0)]),
        changed("from beyond to", &[(16, 13)]),
        changed("to beyond head", &[(24, 14)]),
        changed("more entries than there are", &[(40, 2)]),
        changed("what is reserved behind the count", &[(43, 1)]),
        changed("an unknown flag", &[(44, 0x1c)]),
        ("no tenant", no_tenant),
        changed("gone, with an owner", &[(44, 14), (46, 0)]),
        changed("gone, with hops", &[(44, 10)]),
        changed("a bit beyond the prefix", &[(53, 129)]),
        changed("a prefix of 33 bits", &[(45, 33)]),
        changed("eight hops", &[(46, 8)]),
    ];
    let told = all.map(|(why, payload)| {
        assert!(Message::parse(&payload).is_err(), "{why}");
        object(&[("why", format!("\"{why}\"")), ("payload", hex(&payload))])
    });
    assert!(Message::parse(&good).is_ok());
    told.to_vec()
}

#[test]
fn the_vectors_are_what_the_code_does() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/hub.json");
    let about = "\"Test vectors of docs/WIRE.md, 8: messages as plaintexts with their tags; and what follows a tag and is refused.\"";
    let fields = [("about", about.to_owned()), ("messages", array(2, &messages())), ("refused", array(2, &refused()))];
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("  \"{name}\": {value}")).collect();
    let made = format!("{{\n{}\n}}\n", fields.join(",\n"));
    if std::env::var_os(WRITE).is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let differ = made.lines().zip(kept.lines()).find(|(made, kept)| made != kept);
    assert!(made == kept, "{} differs ({WRITE}=1 writes it): {differ:#?}", path.display());
}
