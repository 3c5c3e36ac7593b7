//! Every refusal with its message, and what is accepted.

mod fuzz;
mod large;
mod trunks;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::aead::{Library, Wish};
use tempfile::TempDir;

use super::*;
use classifier::filter::{Action, Flags, Rule};

/// The example of the documentation, every optional key set; `@N` stands for the public key of site N.
const WHOLE: &str = r#"
include = ["tenants.d/*.toml"]

[hub]
name = "lab"
private_key_file = "hub.key"
listen_port = 51820
crypto = { chacha20_poly1305 = "ring", aes_256_gcm = "aws-lc" }

[workers]
cores = [1]
spread = "sockets"
idle = "spin"
busy_poll_us = 20

[[port]]
name = "d0"
role = "wan"
mode = "native"
copy = true

[[port]]
name = "d1"
role = "wan"

[[tenant]]
id = 1001
service_code = "WAN00001001"
label = "Acme KK / 大阪"
hub_addresses = ["10.9.0.1", "fd00:9::1"]
rate = { up = "100 Mbit/s", down = "2.5 Gbit/s" }
burst = { up = "64 kB" }
dscp = "copy"
filter_default = "deny"

[[tenant.filter]]
action = "deny"
name = "who opens"
from = ["10.9.1.0/24", "fd00:9:1::/64"]
to = ["10.9.2.0/24", "fd00:9:2::/64"]
protocol = "tcp"
source_ports = "1024-65535"
ports = "22, 80, 8000-8100"
flags = "syn, !ack"

[[tenant.filter]]
action = "allow"

[[tenant.site]]
name = "a"
public_key = "@1"
prefixes = ["10.9.1.0/24", "fd00:9:1::/64"]
address = ["10.9.1.1/24"]
preshared_key_file = "a.psk"
endpoint = "192.0.2.7:51820"
keepalive_s = 25
udp_checksum = true
rate = "10 Mbit/s"
mtu = 1380

[[tenant.site]]
name = "b"
public_key = "@2"
prefixes = ["10.9.2.0/24", "fd00:9:2::/64"]
endpoint = "[2001:db8::7]:51820"
"#;

/// The least that is accepted, seven lines.
const HEAD: &str = r#"[hub]
name = "lab"
private_key_file = "hub.key"
listen_port = 51820
[[port]]
name = "d0"
role = "wan"
"#;

/// A directory with a key file, to write configurations into.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.write_secret("hub.key", 0x77);
        place.write_secret("a.psk", 0x55);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        fs::write(self.path(name), with_keys(text)).unwrap();
    }

    fn write_secret(&self, name: &str, byte: u8) {
        self.write(name, &format!("{}\n", STANDARD.encode([byte; 32])));
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self, text: &str) -> Result<Desired, Errors> {
        self.write("hub.toml", text);
        load(&self.path("hub.toml"))
    }

    /// What is wrong with `text`, the directory left out of the messages.
    fn messages(&self, text: &str) -> Vec<String> {
        match self.load(text) {
            Ok(_) => Vec::new(),
            Err(errors) => self.plain(&errors),
        }
    }

    fn plain(&self, errors: &Errors) -> Vec<String> {
        let directory = format!("{}/", self.0.path().display());
        errors.to_string().replace(&directory, "").lines().map(str::to_owned).collect()
    }
}

fn with_keys(text: &str) -> String {
    let mut text = text.replace("@hub", &PrivateKey::new([0x77; 32]).public().to_string());
    for n in 1..=9 {
        text = text.replace(&format!("@{n}"), &STANDARD.encode([n; 32]));
    }
    text
}

/// A tenant of two sites, the second with these keys, which below the head begin at line 15.
fn in_site(keys: &str) -> String {
    let tenant =
        "[[tenant]]\nid = 1\n[[tenant.site]]\nname = \"a\"\npublic_key = \"@1\"\nprefixes = [\"10.9.1.0/24\"]\n";
    format!("{tenant}[[tenant.site]]\n{keys}")
}

#[test]
fn the_way_to_a_site_is_measured_where_both_ends_have_an_address() {
    let place = Place::new();
    let text = |hub: &str, tenant: &str, site: &str| {
        let head = HEAD.replace("listen_port = 51820\n", &format!("listen_port = 51820\n{hub}\n"));
        let site = in_site(&format!(
            "name = \"b\"\npublic_key = \"@2\"\nprefixes = [\"10.9.2.0/24\", \"fd00::/64\"]\n{site}\n"
        ));
        head + &site.replace("id = 1\n", &format!("id = 1\n{tenant}\n"))
    };
    let ends = |hub: &str, tenant: &str, site: &str| {
        let desired = place.load(&text(hub, tenant, site)).unwrap();
        let tenant = &desired.tenants[0];
        assert_eq!(desired.probe_ends(tenant, &tenant.sites[0]), None, "a site without an address");
        desired.probe_ends(tenant, &tenant.sites[1]).map(|(a, b)| (a.to_string(), b.to_string()))
    };
    let (on, both) = ("probe_mtu = true", "hub_addresses = [\"fd00:9::1\", \"10.9.0.1\"]");
    let address = "address = [\"fd00::7/64\", \"10.9.2.1/24\"]";
    let v4 = Some(("10.9.0.1".to_owned(), "10.9.2.1".to_owned()));
    let v6 = Some(("fd00:9::1".to_owned(), "fd00::7".to_owned()));
    assert_eq!(ends("", both, address), None, "not by itself");
    assert_eq!(ends("", both, &format!("{address}\n{on}")), v4);
    assert_eq!(ends(on, both, address), v4, "all sites that can");
    assert_eq!(ends(on, both, &format!("{address}\nprobe_mtu = false")), None);
    assert_eq!(ends(on, "hub_addresses = [\"fd00:9::1\"]", address), v6);
    assert_eq!(ends(on, "", address), None);
    let wrong = "probe_mtu of site \"b\" needs an address of the site and one of the hub, of one IP version; add address = \
                 [\"10.9.1.1/24\"] to the site and hub_addresses = [\"10.9.0.1\"] to its tenant, as they are";
    for (tenant, site) in
        [("", address), (both, ""), ("hub_addresses = [\"fd00:9::1\"]", "address = [\"10.9.2.1/24\"]")]
    {
        let messages = place.messages(&text("", tenant, &format!("{site}\n{on}")));
        assert!(messages.len() == 1 && messages[0].ends_with(wrong), "{messages:#?}");
    }
}

#[test]
fn the_whole_example_is_read() {
    let place = Place::new();
    place.write("tenants.d/2.toml", "[[tenant]]\nid = 1002\n[[tenant.site]]\nname = \"a\"\npublic_key = \"@3\"\n");
    place.write("tenants.d/1.toml", "[[tenant]]\nid = 1003\n");
    place.write("tenants.d/.1.toml", "not read");
    place.write("tenants.d/README", "not read");
    let desired = place.load(WHOLE).unwrap();

    assert_eq!(&*desired.hub.name, "lab");
    assert_eq!(desired.hub.private_key, PrivateKey::new([0x77; 32]));
    assert_eq!(desired.hub.public_key, desired.hub.private_key.public());
    assert_eq!(desired.hub.listen_port.get(), 51820);
    let wish = Wish { chacha20_poly1305: Some(Library::Ring), aes_256_gcm: Some(Library::AwsLc) };
    assert_eq!(desired.hub.crypto, wish);
    assert_eq!(desired.workers.cores, Some(vec![1]));
    assert_eq!((desired.workers.spread, desired.workers.idle), (Spread::Sockets, Idle::Spin));
    assert_eq!(desired.workers.busy_poll_us, 20);
    let ports: Vec<_> = desired.ports.iter().map(|port| (&*port.name, port.role, port.mode, port.copy)).collect();
    assert_eq!(ports, [("d0", Role::Wan, Some(Mode::Native), Some(true)), ("d1", Role::Wan, None, None)]);

    let ids: Vec<_> = desired.tenants.iter().map(|tenant| tenant.id.as_u32()).collect();
    assert_eq!(ids, [1001, 1003, 1002], "the main file's, then those of included files by name");
    let tenant = &desired.tenants[0];
    assert_eq!(tenant.service_code.as_deref(), Some("WAN00001001"));
    assert_eq!(&*tenant.label, "Acme KK / 大阪");
    assert_eq!(tenant.hub_addresses, ["10.9.0.1".parse::<IpAddr>().unwrap(), "fd00:9::1".parse().unwrap()]);
    let [a, b] = &tenant.sites[..] else { panic!("two sites") };
    assert_eq!((&*a.name, a.public_key, a.udp_checksum), ("a", PublicKey([1; 32]), true));
    assert_eq!(a.prefixes, ["10.9.1.0/24".parse::<IpNet>().unwrap(), "fd00:9:1::/64".parse().unwrap()]);
    assert_eq!(a.address, ["10.9.1.1/24".parse::<IpNet>().unwrap()]);
    assert_eq!(a.preshared_key, Some(PresharedKey::new([0x55; 32])));
    assert_eq!(a.endpoint, Some("192.0.2.7:51820".parse().unwrap()));
    assert_eq!(a.keepalive_s.map(NonZeroU16::get), Some(25));
    assert_eq!(b.endpoint, Some("[2001:db8::7]:51820".parse().unwrap()));
    assert_eq!((b.preshared_key.as_ref(), b.keepalive_s, b.udp_checksum), (None, None, false));
    let lines = (a.origin.line(), b.origin.line(), desired.tenants[1].origin.line());
    assert_eq!(lines, (49, 61, 1));

    let rate = |bits_per_s, burst| Some(Rate { bits_per_s, burst });
    assert_eq!(tenant.rates, Rates { up: rate(100_000_000, 64_000), down: rate(2_500_000_000, 15_625_000) });
    assert_eq!(a.rates, Rates { up: rate(10_000_000, 62_500), down: rate(10_000_000, 62_500) });
    assert_eq!((b.rates, b.mtu), (Rates::default(), None));
    assert_eq!(
        (a.mtu.map(NonZeroU16::get), tenant.dscp, desired.tenants[1].dscp),
        (Some(1380), Dscp::Copy, Dscp::Zero)
    );
    let filter = tenant.filter.as_ref().unwrap();
    assert_eq!(filter.default, Action::Deny);
    let [(name, opens), (second, all)] = &filter.rules[..] else { panic!("two rules") };
    assert_eq!((&**name, &**second, all), ("who opens", "2", &Rule::any(Action::Allow)));
    assert_eq!((opens.action, opens.protocol, opens.from.len(), opens.to.len()), (Action::Deny, Some(6), 2, 2));
    assert_eq!((&opens.source_ports, &opens.ports), (&vec![1024..=65535], &vec![22..=22, 80..=80, 8000..=8100]));
    assert_eq!(opens.flags, Flags { set: 0x02, clear: 0x10 });
    assert_eq!(desired.tenants[1].filter, None);
    assert!(desired.tenants[1].origin.file().ends_with("tenants.d/1.toml"));
}

#[test]
fn equality_is_of_what_is_wanted_and_not_of_its_place() {
    let place = Place::new();
    let first = place.load(WHOLE).unwrap();
    assert_eq!(first, place.load(&format!("# a comment\n\n{WHOLE}")).unwrap());
    for (old, new) in [
        ("51820\n", "51821\n"),
        ("cores = [1]", "cores = [0]"),
        ("mode = \"native\"", "mode = \"generic\""),
        ("@1", "@5"),
        ("Acme", "Bcme"),
        ("keepalive_s = 25", "keepalive_s = 26"),
        ("2.5 Gbit/s", "2.6 Gbit/s"),
        ("10 Mbit/s", "11 Mbit/s"),
        ("mtu = 1380", "mtu = 1381"),
        ("\"copy\"", "8"),
        ("8000-8100", "8000-8101"),
        ("filter_default = \"deny\"", "filter_default = \"allow\""),
        ("fd00:9:2::/64", "fd00:9:2::/63"),
    ] {
        let changed = WHOLE.replacen(old, new, 1);
        assert_ne!(changed, WHOLE, "{old} is in the example");
        assert_ne!(first, place.load(&changed).unwrap(), "{old} to {new}");
    }
    place.write_secret("a.psk", 0x56);
    assert_ne!(first, place.load(WHOLE).unwrap(), "another preshared key");
}

#[test]
fn what_is_normal_is_accepted() {
    let place = Place::new();
    let tenants = [
        ("no tenant yet", ""),
        (
            "the same prefixes and names in two tenants",
            r#"
            [[tenant]]
            id = 0
            [[tenant.site]]
            name = "a"
            public_key = "@1"
            prefixes = ["10.9.1.0/24"]
            [[tenant]]
            id = 0xFFFFFF
            [[tenant.site]]
            name = "a"
            public_key = "@2"
            prefixes = ["10.9.1.0/24"]"#,
        ),
        (
            "no prefixes, prefixes side by side, and a default route alone in its family",
            r#"
            [[tenant]]
            id = 1
            [[tenant.site]]
            name = "none"
            public_key = "@1"
            [[tenant.site]]
            name = "empty"
            public_key = "@2"
            prefixes = []
            [[tenant.site]]
            name = "side by side"
            public_key = "@3"
            prefixes = ["10.0.1.0/24", "10.0.0.0/24", "10.0.2.0/23", "255.255.255.255/32", "0.0.0.0/8"]
            [[tenant.site]]
            name = "default"
            public_key = "@4"
            prefixes = ["::/0"]"#,
        ),
        ("a service code that is its own tenant's id", "[[tenant]]\nid = 7\nservice_code = \"7\"\n"),
        ("tables written inline", r#"tenant = [{ id = 1, site = [{ name = "a", public_key = "@1" }] }]"#),
    ];
    for (what, text) in tenants {
        let whole = if text.starts_with("tenant") { format!("{text}\n{HEAD}") } else { format!("{HEAD}{text}") };
        assert_eq!(place.messages(&whole), [""; 0], "{what}");
    }
}

#[test]
fn no_secret_is_printed_by_debug() {
    let place = Place::new();
    let shown = format!("{:?}", place.load(WHOLE).unwrap());
    assert!(shown.contains("PrivateKey(secret)") && shown.contains("PresharedKey(secret)"), "{shown}");
    assert!(!shown.contains(&STANDARD.encode([0x77; 32])) && !shown.contains("119, 119"), "{shown}");
    assert!(!shown.contains(&STANDARD.encode([0x55; 32])) && !shown.contains("85, 85"), "{shown}");
}

/// The rows of a table of refusals: what stands in the configuration, and every message that it brings.
fn rows(table: &str) -> impl Iterator<Item = (String, Vec<String>)> {
    table.split("\n\n").skip(1).map(|row| {
        let (messages, text): (Vec<&str>, Vec<&str>) = row.lines().partition(|line| line.starts_with("> "));
        assert!(!text.is_empty() && !messages.is_empty(), "{row}");
        let messages = messages.iter().map(|line| line.replacen("> ", "hub.toml:", 1)).collect();
        (text.join("\n"), messages)
    })
}

#[test]
fn tenants_are_refused_by_name() {
    let place = Place::new();
    for (text, expected) in rows(include_str!("tests/refused/tenants.txt")) {
        assert_eq!(place.messages(&format!("{HEAD}{text}\n")), expected, "{text}");
    }
}

#[test]
fn sites_are_refused_by_name() {
    let place = Place::new();
    for (text, expected) in rows(include_str!("tests/refused/sites.txt")) {
        assert_eq!(place.messages(&format!("{HEAD}{}\n", in_site(&text))), expected, "{text}");
    }
}

#[test]
fn values_of_a_site_are_refused_by_name() {
    let place = Place::new();
    for (text, expected) in rows(include_str!("tests/refused/values.txt")) {
        let site = in_site(&format!("name = \"b\"\npublic_key = \"@2\"\n{text}"));
        assert_eq!(place.messages(&format!("{HEAD}{site}\n")), expected, "{text}");
    }
}

/// A port for tenants' servers, and an end of tenant 1 there, as far as line 13.
const ACCESS: &str = "[[port]]\nname = \"a0\"\nrole = \"access\"\n[[tenant]]\nid = 1\n[[tenant.access]]\n";

#[test]
fn access_ends_are_refused_by_name() {
    let place = Place::new();
    for (text, expected) in rows(include_str!("tests/refused/access.txt")) {
        assert_eq!(place.messages(&format!("{HEAD}{ACCESS}{text}\n")), expected, "{text}");
    }
    let generic = HEAD.replace("role = \"wan\"", "role = \"wan\"\nmode = \"generic\"");
    let end = "[[tenant]]\nid = 1\n[[tenant.access]]\nport = \"d0\"\nvlan = 7\naddresses = [\"10.9.2.1/24\"]\n";
    let [message] = &place.messages(&format!("{generic}{end}"))[..] else { panic!("one message") };
    assert!(message.contains("generic mode") && message.contains("native is right"), "{message}");
}

#[test]
fn access_ends_of_all_kinds_are_read() {
    let place = Place::new();
    let text = format!(
        r#"{HEAD}{ACCESS}
            port = "a0"
            addresses = ["10.9.2.254/24", "fd00:9:2::fe/64"]
            neighbour = [{{ address = "10.9.2.9", mac = "02:00:00:00:00:AF" }}]
            route = [{{ prefix = "10.9.128.0/17", via = "10.9.2.1" }}]
            [[tenant.access]]
            port = "a0"
            vlan = 100
            addresses = ["10.9.3.0/31"]
            [[tenant]]
            id = 2
            [[tenant.access]]
            port = "a0"
            vlan = [10, 100]
            addresses = ["10.9.2.254/24"]
            [[tenant.access]]
            port = "d0"
            vlan = [10, 100]
            outer_tag = "802.1q"
            addresses = ["fd00:9:2::fe/64"]
            "#
    );
    let desired = place.load(&text).unwrap();
    assert_eq!(desired.ports[1].role, Role::Access);
    let [first, second] = &desired.tenants[..] else { panic!("two tenants") };
    let names = |tenant: &Tenant| tenant.access.iter().map(Access::name).collect::<Vec<_>>();
    assert_eq!(
        (names(first), names(second)),
        (vec!["a0".into(), "a0.100".into()], vec!["a0.10.100".into(), "d0.10.100".into()])
    );
    let untagged = &first.access[0];
    assert_eq!(untagged.vlan, wire::Vlan::UNTAGGED);
    assert_eq!(untagged.neighbours, [("10.9.2.9".parse().unwrap(), [2, 0, 0, 0, 0, 0xaf])]);
    assert_eq!(untagged.routes, [("10.9.128.0/17".parse().unwrap(), "10.9.2.1".parse().unwrap())]);
    let prefixes: Vec<String> = untagged.prefixes().map(|net| net.to_string()).collect();
    assert_eq!(prefixes, ["10.9.2.0/24", "fd00:9:2::/64", "10.9.128.0/17"]);
    assert_eq!(first.access[1].vlan, wire::Vlan::tagged(100).unwrap());
    assert_eq!(second.access[0].vlan, wire::Vlan::double(wire::vlan::SERVICE, 10, 100).unwrap());
    assert_eq!(second.access[1].vlan, wire::Vlan::double(wire::vlan::CUSTOMER, 10, 100).unwrap());
}

#[test]
fn the_hub_its_workers_and_ports_are_refused_by_name() {
    let place = Place::new();
    place.write_secret("open.key", 1);
    place.mode("open.key", 0o640);
    for (name, text) in [("short.key", "abc\n"), ("long.key", &"a".repeat(200))] {
        place.write(name, text);
        place.mode(name, 0o600);
    }
    for (edit, expected) in rows(include_str!("tests/refused/hub.txt")) {
        let lines = |sign| {
            edit.lines().filter_map(|line| line.strip_prefix(sign)).map(|line| format!("{line}\n")).collect::<String>()
        };
        let (old, new) = (lines('-'), lines('+'));
        assert!(HEAD.contains(&old), "{edit}");
        assert_eq!(place.messages(&HEAD.replacen(&old, &new, 1)), expected, "{edit}");
    }
}

#[test]
fn every_problem_is_said_at_once_in_the_order_of_files_and_lines() {
    let place = Place::new();
    place.write("tenants.d/b.toml", "[[tenant]]\nid = 1\n[hub]\nname = \"lab\"\n");
    place.write("tenants.d/a.toml", "[[tenant]]\nid = 2\n[[tenant.site]]\nname = \"x\"\npublic_key = 'abc\n");
    let text =
        format!("include = [\"tenants.d/*.toml\", \"tenants.d/b.toml\", \"hub.toml\"]\n{}", HEAD.replace("51820", "0"));
    let messages = place.messages(&format!("{text}[[tenant]]\nid = 1\n"));
    assert_eq!(
        messages,
        [
            "hub.toml:5: listen_port 0 of [hub]: a UDP port is 1 to 65535",
            "tenants.d/a.toml:5: not valid TOML at column 18: invalid literal string, expected `'`",
            "tenants.d/b.toml:2: tenant id 1 is already used at hub.toml:10; each tenant needs its own, and stands whole in one place",
            "tenants.d/b.toml:3: unknown key \"hub\" in an included file, which holds whole tenants; it belongs to the main file",
        ]
    );
}

#[test]
fn a_key_file_is_found_beside_the_file_that_names_it() {
    let place = Place::new();
    fs::create_dir(place.path("tenants.d")).unwrap();
    place.write_secret("tenants.d/own.psk", 9);
    let site = in_site("name = \"b\"\npublic_key = \"@2\"\npreshared_key_file = \"own.psk\"\n");
    place.write("tenants.d/1.toml", &site);
    let desired = place.load(&format!("include = [\"tenants.d/?.toml\"]\n{HEAD}")).unwrap();
    assert_eq!(desired.tenants[0].sites[1].preshared_key, Some(PresharedKey::new([9; 32])));
}

#[test]
fn a_directory_may_be_called_like_a_pattern() {
    let place = Place::new();
    place.write("[x]*/hub.toml", &format!("include = [\"t/*.toml\"]\n{}", HEAD.replace("hub.key", "../hub.key")));
    place.write("[x]*/t/1.toml", "[[tenant]]\nid = 1\n");
    assert_eq!(load(&place.path("[x]*/hub.toml")).unwrap().tenants.len(), 1);
}

#[test]
fn a_file_that_cant_be_read_says_why() {
    let place = Place::new();
    let missing = load(&place.path("none.toml")).unwrap_err();
    assert_eq!(place.plain(&missing), ["none.toml: there is no such file"]);
    let directory = load(place.0.path()).unwrap_err().to_string();
    assert!(directory.ends_with(": a directory; a file is right"), "{directory}");
    fs::write(place.path("latin1.toml"), b"# fine\nname = \"\xe9\"\n").unwrap();
    let bytes = load(&place.path("latin1.toml")).unwrap_err();
    assert_eq!(place.plain(&bytes), ["latin1.toml:2: a byte that is not UTF-8, as TOML must be"]);
}

#[test]
fn an_empty_list_of_ports_is_refused() {
    let head = HEAD.split_once("[[port]]").unwrap().0;
    let messages = Place::new().messages(&format!("port = []\n{head}"));
    assert_eq!(messages, ["hub.toml:1: the list of ports is empty; a hub needs at least one"]);
}

#[test]
fn an_unclosed_bracket_does_not_flood() {
    let place = Place::new();
    let messages = place.messages(&format!("include = [\n{HEAD}{HEAD}{HEAD}"));
    assert_eq!(messages.len(), 9, "{messages:#?}");
    assert!(messages[8].contains("more lines are not valid TOML"), "{messages:#?}");
}

#[test]
fn a_draft_may_lack_public_keys_and_nothing_else() {
    let place = Place::new();
    let text = format!("{HEAD}{}", in_site("name = \"b\"\n"));
    assert_eq!(place.messages(&text).len(), 1);
    let draft = load_draft(&place.path("hub.toml")).unwrap();
    assert_eq!(draft.tenants[0].sites.len(), 2);
    place.write("hub.toml", &text.replace("name = \"b\"", "name = \"a\""));
    assert_eq!(load_draft(&place.path("hub.toml")).unwrap_err().problems().len(), 1);
}

#[test]
fn the_machine_is_compared_with_ports_and_cores() {
    let place = Place::new();
    let desired = place.load(&WHOLE.replace("cores = [1]", "cores = [1, 9]")).unwrap();
    let interface = |name: &str, is_bond: bool, member_of: Option<&str>| Interface {
        name: name.to_owned(),
        is_bond,
        member_of: member_of.map(str::to_owned),
    };
    let with = |interfaces: Vec<Interface>, cores: Vec<usize>| match validate_machine(
        &desired,
        &Machine { interfaces, cores },
    ) {
        Ok(()) => Vec::new(),
        Err(errors) => place.plain(&errors),
    };
    let plain = || vec![interface("lo", false, None), interface("d0", false, None), interface("d1", false, None)];
    assert_eq!(with(plain(), (0..=9).collect()), [""; 0]);
    assert_eq!(
        with(
            vec![interface("lo", false, None), interface("d0", true, None), interface("e1", false, Some("d0"))],
            vec![0, 1, 2, 5]
        ),
        [
            "hub.toml:11: core 9 of [workers] is not one that this process may use; those are 0-2, 5",
            "hub.toml:16: port \"d0\" is a bond, which AF_XDP can't drive; unbond it and make each member (e1) a port",
            "hub.toml:22: port \"d1\": this machine has no such network interface; did you mean \"d0\"?",
        ]
    );
    assert_eq!(
        with(vec![interface("d0", false, Some("bond0")), interface("lo", false, None)], vec![1, 9]),
        [
            "hub.toml:16: port \"d0\" is a member of the bond \"bond0\", which would lose its frames; take it out of the bond",
            "hub.toml:22: port \"d1\": this machine has no such network interface; did you mean \"d0\"?",
        ]
    );
}
