//! Trunks, and routes of tenants: what is refused, and what is read.

use super::*;
use crypto::aead::Cipher;
use std::time::Duration;

#[test]
fn trunks_are_refused_by_name() {
    let place = Place::new();
    place.write("tenant.toml", "[[tenant]]\nid = 1001\n[[tenant.site]]\npublic_key = \"@1\"\nname = \"a\"\n");
    let head = format!("include = [\"tenant.toml\"]\n{HEAD}");
    let with_place = |message: String| match message.strip_prefix("hub.toml:tenant.toml") {
        Some(rest) => format!("tenant.toml{rest}"),
        None => message,
    };
    for (text, expected) in rows(include_str!("refused/trunks.txt")) {
        let expected: Vec<String> = expected.iter().map(|message| with_place(with_keys(message))).collect();
        assert_eq!(place.messages(&format!("{head}[[trunk]]\nname = \"osaka\"\n{text}\n")), expected, "{text}");
    }
    let high = HEAD.replace("51820", "65533");
    let trunk = "[[trunk]]\nname = \"osaka\"\npublic_key = \"@3\"\ncipher = \"aes-256-gcm\"\ntenants = \"all\"\n";
    let wrong = "hub.toml:8: 4 lanes of trunk \"osaka\": lane i uses UDP port listen_port 65533 + i, and 65535 is the last; \
                 fewer lanes or a lower port are right";
    assert_eq!(place.messages(&format!("{high}{trunk}")), [wrong]);
    assert_eq!(place.messages(&format!("{high}{trunk}lanes = 3\n")), [""; 0]);
    // Of a file that can't be read nobody knows which tenants are in it.
    place.write("tenant.toml", "[[tenant]\nid = 1001\n");
    let messages = place.messages(&format!("{head}{}", trunk.replace("\"all\"", "[1001]")));
    assert!(messages.len() == 1 && messages[0].starts_with("tenant.toml:1: not valid TOML"), "{messages:#?}");
}

/// Trunks and a tenant, as far as line 38: what routes may lead to.
const ENDS: &str = r#"[[trunk]]
name = "osaka"
public_key = "@3"
cipher = "aes-256-gcm"
tenants = "all"
[[trunk]]
name = "kobe"
public_key = "@4"
cipher = "chacha20-poly1305"
tenants = [2]
[[tenant]]
id = 2
[[tenant]]
id = 1
hub_addresses = ["10.9.3.1"]
[[tenant.site]]
name = "a"
public_key = "@1"
prefixes = ["10.9.1.0/24"]
[[tenant.site]]
name = "b"
public_key = "@2"
prefixes = ["10.9.2.0/24"]
[[tenant.access]]
port = "d0"
vlan = 7
addresses = ["10.9.7.254/24"]




"#;

#[test]
fn routes_are_refused_by_name() {
    let place = Place::new();
    for (text, expected) in rows(include_str!("refused/routes.txt")) {
        assert_eq!(place.messages(&format!("{HEAD}{ENDS}[[tenant.route]]\n{text}\n")), expected, "{text}");
    }
}

#[test]
fn trunks_and_routes_of_all_kinds_are_read() {
    let place = Place::new();
    place.write_secret("osaka.psk", 8);
    let route = |prefix: &str, via: &str, priority: &str| {
        format!("[[tenant.route]]\nprefix = \"{prefix}\"\nvia = {{ {via} }}\n{priority}\n")
    };
    let routes = [
        ("10.9.1.0/24", "trunk = \"osaka\"", "priority = 200"), // what a site has, too
        ("10.9.0.0/16", "trunk = \"osaka\"", ""),               // around what sites have, and an address of the hub
        ("10.9.2.128/25", "site = \"a\"", "priority = 0"),      // inside what another site has
        ("10.9.2.128/25", "site = \"b\"", ""),
        ("10.9.7.0/24", "access = \"d0.7\"", "priority = 101"),
        ("10.9.1.0/24", "site = \"a\"", "priority = 65535"),
        ("::/0", "site = \"b\"", ""),
    ];
    let routes = routes.map(|(prefix, via, priority)| route(prefix, via, priority)).concat();
    let trunk = r#"
        [[trunk]]
        name = "nagoya 名古屋"
        public_key = "@5"
        preshared_key_file = "osaka.psk"
        endpoint = "192.0.2.7:65520"
        cipher = "chacha20-poly1305"
        tenants = [2, 1]
        lanes = 16
        transit = true
        probe_interval_ms = 50
        udp_checksum = true
        mtu = 1380
        "#;
    let text = format!("{HEAD}{ENDS}{routes}{trunk}");
    let desired = place.load(&text).unwrap();
    let [osaka, kobe, nagoya] = &desired.trunks[..] else { panic!("three trunks") };
    assert_eq!((&*osaka.name, osaka.cipher, &osaka.carries), ("osaka", Cipher::Aes256Gcm, &Carries::All));
    assert_eq!((osaka.lanes.get(), osaka.transit, osaka.probe_interval), (4, false, Duration::from_millis(300)));
    assert_eq!((osaka.endpoint, osaka.mtu, osaka.udp_checksum), (None, None, false));
    assert_eq!((osaka.end_name().as_str(), osaka.lane_name(3).as_str()), ("trunk:osaka", "osaka/3"));
    let id = |id| TenantId::new(id).unwrap();
    assert_eq!([1, 2, 3].map(|tenant| kobe.carries(id(tenant))), [false, true, false]);
    assert_eq!([1, 2, 3].map(|tenant| osaka.carries(id(tenant))), [true; 3]);
    assert_eq!((kobe.cipher, kobe.public_key), (Cipher::ChaCha20Poly1305, PublicKey([4; 32])));
    assert_eq!((nagoya.preshared_key.as_ref(), nagoya.lanes.get()), (Some(&PresharedKey::new([8; 32])), 16));
    assert_eq!((nagoya.endpoint, nagoya.transit), (Some("192.0.2.7:65520".parse().unwrap()), true));
    assert_eq!((nagoya.probe_interval.as_millis(), nagoya.mtu.map(NonZeroU16::get)), (50, Some(1380)));
    assert!(nagoya.udp_checksum && nagoya.carries == Carries::Some(vec![id(1), id(2)]));

    let routes =
        desired.tenants[1].routes.iter().map(|route| format!("{} {} {}", route.prefix, route.via, route.priority));
    assert_eq!(
        routes.collect::<Vec<_>>(),
        [
            "10.9.1.0/24 { trunk = \"osaka\" } 200",
            "10.9.0.0/16 { trunk = \"osaka\" } 100",
            "10.9.2.128/25 { site = \"a\" } 0",
            "10.9.2.128/25 { site = \"b\" } 100",
            "10.9.7.0/24 { access = \"d0.7\" } 101",
            "10.9.1.0/24 { site = \"a\" } 65535",
            "::/0 { site = \"b\" } 100",
        ]
    );
    assert_eq!(desired, place.load(&text.replace("[2, 1]", "[1, 2]")).unwrap(), "their order says nothing");
    for (old, new) in [("lanes = 16", "lanes = 15"), ("priority = 0\n", "priority = 1\n"), ("[2, 1]", "[2]")] {
        assert_ne!(desired, place.load(&text.replacen(old, new, 1)).unwrap(), "{old}");
    }
}
