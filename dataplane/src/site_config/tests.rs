//! The files that are made, as `wg-quick` and `wg` read them, and what is refused.

use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::*;

const HUB_PUBLIC: &str = "HPV5q6RaELodHvBtkfyiqp7QoRUFFWUxVUBdCxjLmmc=";
const HUB: &str = r#"
[hub]
name = "lab"
private_key_file = "hub.key"
listen_port = 51820
[[port]]
name = "d0"
role = "wan"

[[tenant]]
id = 1001
service_code = "WAN00001001"

[[tenant.site]]
name = "osaka"
public_key = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
prefixes = ["10.9.1.0/24", "fd00:9:1::/64"]
address = ["10.9.1.1/24", "fd00:9:1::1/64"]
preshared_key_file = "osaka.psk"
endpoint = "192.0.2.7:51821"
keepalive_s = 10

[[tenant.site]]
name = "kobe"
public_key = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="
prefixes = ["10.9.2.0/24", "fd00:9:2::/64"]

[[tenant]]
id = 1002
hub_addresses = ["10.9.0.1", "fd00:9::1"]
[[tenant.site]]
name = "new"
"#;
/// What makes the last site of [`HUB`] whole.
const LAST_KEY: &str = "public_key = \"AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=\"\n";
const PRESHARED: &str = "VVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVVU=";

struct Hub(TempDir);

impl Hub {
    fn new(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in [("hub.key", "d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3c="), ("osaka.psk", PRESHARED)] {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(directory.path().join("hub.toml"), config).unwrap();
        Self(directory)
    }

    fn make(&self, tenant: &str, site: &str, with: impl FnOnce(&mut SiteConfigArgs)) -> Result<SiteConfig, Error> {
        let mut request = SiteConfigArgs {
            config: self.0.path().join("hub.toml"),
            tenant: tenant.to_owned(),
            site: site.to_owned(),
            endpoint: "198.51.100.1:51820".parse().unwrap(),
            path_mtu: ETHERNET_MTU,
            new_key: false,
            qr: false,
        };
        with(&mut request);
        site_config(&request)
    }

    fn refusal(&self, tenant: &str, site: &str, with: impl FnOnce(&mut SiteConfigArgs)) -> String {
        match self.make(tenant, site, with) {
            Ok(_) => panic!("{tenant} {site} was not refused"),
            Err(error) => error.to_string().replace(&format!("{}/", self.0.path().display()), ""),
        }
    }
}

fn whole() -> String {
    format!("{HUB}{LAST_KEY}")
}

/// What `wg-quick strip` leaves of the file, once `wg` has read that as well.
fn read_by_wg(text: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let (file, stripped) = (directory.path().join("site.conf"), directory.path().join("stripped.conf"));
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    let strip = Command::new("wg-quick").arg("strip").arg(&file).output().expect("wg-quick is installed");
    assert!(strip.status.success(), "{}", String::from_utf8_lossy(&strip.stderr));
    fs::write(&stripped, &strip.stdout).unwrap();
    // `wg` reads all of the file before it looks for the interface, which doesn't exist.
    let set = Command::new("wg").args(["setconf", "ekiden-none"]).arg(&stripped).output().expect("wg is installed");
    let said = String::from_utf8_lossy(&set.stderr);
    assert!(said.starts_with("Unable to modify interface"), "{said}{text}");
    String::from_utf8(strip.stdout).unwrap()
}

#[test]
fn a_site_whose_key_is_its_own_gets_everything_but_secrets() {
    let made = Hub::new(&whole()).make("1001", "osaka", |_| {}).unwrap();
    let expected = format!(
        "# Site osaka of tenant 1001 (WAN00001001), at hub lab
[Interface]
# The private key is the site's own and is not known here: it belongs to the public key
# AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
# PrivateKey =
Address = 10.9.1.1/24, fd00:9:1::1/64
# The hub expects the site here and may speak first
ListenPort = 51821
# 1500 of the path, less 80 that WireGuard over IPv6 needs
MTU = 1420

[Peer]
PublicKey = {HUB_PUBLIC}
# PresharedKey = the content of the preshared_key_file that the hub has for this site
Endpoint = 198.51.100.1:51820
# The other sites of this tenant, and the hub, whose error messages must get through
AllowedIPs = 10.9.2.0/24, fd00:9:2::/64, 192.0.0.8/32
PersistentKeepalive = 10
"
    );
    assert_eq!(*made.text, expected);
    assert_eq!(made.notes, [""; 0]);
    assert!(made.qr.is_none());
    let stripped = read_by_wg(&made.text);
    assert!(
        !stripped.contains("Address") && !stripped.contains("MTU") && stripped.contains("AllowedIPs"),
        "{stripped}"
    );
}

#[test]
fn a_site_without_address_or_keepalive_is_told_what_is_right() {
    let made = Hub::new(&whole()).make("WAN00001001", "kobe", |request| request.path_mtu = 1454).unwrap();
    let has = |line: &str| assert!(made.text.lines().any(|has| has == line), "{line}\n{}", *made.text);
    has("# Address: none is configured for this site; any inside 10.9.2.0/24, fd00:9:2::/64 is right");
    has("MTU = 1374");
    has("PersistentKeepalive = 25");
    has("AllowedIPs = 10.9.1.0/24, fd00:9:1::/64, 192.0.0.8/32");
    read_by_wg(&made.text);
}

/// What the hub does not send to a site because its path is narrow, the site's own packets must not be either.
#[test]
fn a_site_sends_the_hub_what_routes_lead_to_and_keeps_what_is_behind_itself() {
    let routes = r#"
route = [
    { prefix = "10.9.3.0/24", via = { trunk = "tokyo" } },
    { prefix = "10.9.3.0/24", via = { site = "kobe" } },
    { prefix = "10.9.1.0/24", via = { trunk = "tokyo" }, priority = 200 },
    { prefix = "10.9.2.128/25", via = { site = "osaka" } },
]
[[tenant.site]]
"#;
    let trunk = "\n[[trunk]]\nname = \"tokyo\"\npublic_key = \"TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTA=\"\n\
                 cipher = \"aes-256-gcm\"\ntenants = \"all\"\n";
    let hub = Hub::new(&(whole().replacen("\n[[tenant.site]]\n", routes, 1) + trunk));
    let of = |site| {
        let text = hub.make("1001", site, |_| {}).unwrap().text;
        assert!(text.contains("# What this tenant has elsewhere, and the hub"), "{}", *text);
        read_by_wg(&text);
        text.lines().find_map(|line| line.strip_prefix("AllowedIPs = ")).unwrap().to_owned()
    };
    assert_eq!(of("osaka"), "10.9.2.0/24, fd00:9:2::/64, 10.9.3.0/24, 192.0.0.8/32");
    assert_eq!(of("kobe"), "10.9.1.0/24, fd00:9:1::/64, 10.9.2.128/25, 192.0.0.8/32");
}

#[test]
fn a_site_with_an_mtu_gets_it_unless_the_path_is_narrower() {
    let hub = Hub::new(&whole().replace("keepalive_s = 10", "keepalive_s = 10\nmtu = 1300"));
    let mtu_of = |site: &str, path_mtu: u16| {
        let made = hub.make("1001", site, |request| request.path_mtu = path_mtu).unwrap();
        made.text.lines().find_map(|line| line.strip_prefix("MTU = ")).unwrap().to_owned()
    };
    assert_eq!(mtu_of("osaka", ETHERNET_MTU), "1300");
    assert_eq!(mtu_of("osaka", 1380), "1300");
    assert_eq!(mtu_of("osaka", 1379), "1299");
    assert_eq!(mtu_of("kobe", ETHERNET_MTU), "1420", "another site's");
}

#[test]
fn a_new_key_is_in_the_file_and_its_public_half_in_the_notes() {
    let hub = Hub::new(HUB); // one site has no key yet
    let made = hub.make("1001", "osaka", |request| request.new_key = true).unwrap();
    let value = |name: &str| made.text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
    assert_eq!(value("PresharedKey = "), PRESHARED);

    let mut wg = Command::new("wg").arg("pubkey").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    wg.stdin.take().unwrap().write_all(value("PrivateKey = ").as_bytes()).unwrap();
    let public = String::from_utf8(wg.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(made.notes.last().unwrap(), &format!("public_key = \"{}\"", public.trim()));
    assert!(made.notes[1].contains("/hub.toml:14 "), "{:?}", made.notes);
    read_by_wg(&made.text);

    let again = hub.make("1001", "osaka", |request| request.new_key = true).unwrap();
    assert_ne!(made.text, again.text, "each key is new");
    let own = hub.make("1002", "new", |request| request.new_key = true).unwrap();
    assert!(own.text.contains("AllowedIPs = 10.9.0.1/32, fd00:9::1/128\n"), "{}", *own.text);
    read_by_wg(&own.text);
}

#[test]
fn the_qr_code_reads_as_the_file_without_comments() {
    let made = Hub::new(HUB).make("1001", "kobe", |request| (request.new_key, request.qr) = (true, true)).unwrap();
    let drawn = made.qr.unwrap();
    // Each character is two pixels, one above the other; black is the colour of the ink.
    let rows: Vec<Vec<char>> = drawn
        .lines()
        .map(|line| {
            line.strip_prefix("\x1b[38;5;16;48;5;231m").unwrap().strip_suffix("\x1b[0m").unwrap().chars().collect()
        })
        .collect();
    const ZOOM: usize = 4; // the reader wants more than a pixel a module
    let black = |x: usize, y: usize| match rows[y / 2][x] {
        '█' => true,
        '▀' => y.is_multiple_of(2),
        '▄' => y % 2 == 1,
        _ => false,
    };
    let (width, height) = (rows[0].len() * ZOOM, rows.len() * 2 * ZOOM);
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(
            width,
            height,
            |x, y| if black(x / ZOOM, y / ZOOM) { 0 } else { 255 },
        );
    let grids = image.detect_grids();
    let (_, content) = grids.first().expect("a code is found").decode().unwrap();
    let bare: String =
        made.text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
    assert_eq!(content, bare);
    read_by_wg(&content);
}

#[test]
fn what_is_not_there_is_refused_with_what_is() {
    let hub = Hub::new(&whole());
    assert_eq!(
        hub.refusal("WAN0001001", "osaka", |_| {}),
        "no tenant id or service code is \"WAN0001001\"; did you mean \"WAN00001001\"?"
    );
    assert_eq!(
        hub.refusal("7", "osaka", |_| {}),
        "no tenant id or service code is \"7\"; there are 1001, 1002, WAN00001001"
    );
    assert_eq!(hub.refusal("1001", "Osaka", |_| {}), "no site of tenant 1001 is \"Osaka\"; did you mean \"osaka\"?");
    assert_eq!(hub.refusal("1001", "tokyo", |_| {}), "no site of tenant 1001 is \"tokyo\"; there are osaka, kobe");
    assert_eq!(
        hub.refusal("1001", "osaka", |request| request.qr = true),
        "a QR code needs the site's private key, which only the site has; with --new-key it gets one in it"
    );
    assert_eq!(
        hub.refusal("1001", "osaka", |request| request.path_mtu = 1359),
        "path MTU 1359: with 80 bytes for WireGuard, less than 1280 would be left; at least 1360 is right"
    );
    assert_eq!(
        Hub::new(HUB).refusal("1001", "osaka", |_| {}),
        "hub.toml:31: site \"new\" has no public_key; add it as wg pubkey prints it, or let `ekiden site-config --new-key` make one"
    );
}

#[test]
fn a_port_that_the_hub_does_not_listen_on_is_noted() {
    let elsewhere = |request: &mut SiteConfigArgs| request.endpoint = "198.51.100.1:443".parse().unwrap();
    let made = Hub::new(&whole()).make("1001", "kobe", elsewhere).unwrap();
    assert_eq!(
        made.notes,
        ["The hub listens on port 51820, not 443: right only if something in front of it maps the one to the other."]
    );
}

#[test]
fn the_command_line_asks_and_the_file_stays_apart_from_what_is_said_besides() {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SiteConfigArgs,
    }
    let hub = Hub::new(HUB);
    let config = hub.0.path().join("hub.toml");
    let words = ["x", config.to_str().unwrap(), "WAN00001001", "osaka", "--endpoint", "[2001:db8::1]:51820"];
    let asked = words.into_iter().chain(["--new-key", "--qr", "--path-mtu", "1454"]);
    let Line { args } = clap::Parser::try_parse_from(asked).unwrap();
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    command(&args, &mut out, &mut aside).unwrap();
    let (out, aside) = (String::from_utf8(out).unwrap(), String::from_utf8(aside).unwrap());
    assert!(out.contains("\nEndpoint = [2001:db8::1]:51820\n") && out.contains("\nMTU = 1374\n"), "{out}");
    assert!(aside.contains('█') && aside.contains("\npublic_key = \""), "{aside}");
    read_by_wg(&out);
    let wrong: Result<Line, _> =
        clap::Parser::try_parse_from(words.map(|word| if word.starts_with('[') { "hub" } else { word }));
    assert!(wrong.err().unwrap().to_string().contains("no port"), "clap shows why an endpoint is wrong");
}

#[test]
fn an_endpoint_is_a_host_and_a_port() {
    for right in ["hub.example.net:51820", "192.0.2.1:1", "[2001:db8::1]:65535", "hub:51820"] {
        assert_eq!(right.parse::<HubEndpoint>().unwrap().to_string(), right);
    }
    for (wrong, why) in [
        ("hub.example.net", "no port"),
        ("2001:db8::1", "IPv6 needs brackets and a port"),
        ("2001:db8::1:51820", "IPv6 needs brackets and a port"),
        ("hub:0", "a port is 1 to 65535"),
        ("hub:65536", "a port is 1 to 65535"),
        (":51820", "neither a host name nor an address"),
        ("a b:51820", "neither a host name nor an address"),
        ("a\nPostUp=x:51820", "neither a host name nor an address"),
        ("[192.0.2.1]:51820", "neither a host name nor an address"),
    ] {
        let error = wrong.parse::<HubEndpoint>().unwrap_err().to_string();
        assert!(error.contains(&format!(": {why}; ")), "{wrong}: {error}");
    }
}
