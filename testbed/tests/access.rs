//! Tenants' servers behind access ports: real hosts on a switch, with their offloads on, against real WireGuard sites.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::{Settings, Status};
use ekiden_testbed::lan::{Lan, Server};
use ekiden_testbed::probe::{echo, transfer};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{Client, Hub, Lab, Namespace, Plan, Seen, Site, Tap, World, lab, until};
use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;
const SERVER: [&str; 2] = ["10.9.2.1/24", "fd00:9:2::1/64"];
const GATEWAYS: [&str; 2] = ["10.9.2.254", "fd00:9:2::fe"];

/// An end of a tenant, with the gateway's usual addresses; `place` is port and VLAN.
fn end(tenant: u32, place: &str) -> (u32, String) {
    (tenant, format!("{place}\naddresses = [\"10.9.2.254/24\", \"fd00:9:2::fe/64\"]"))
}

fn must_ping(from: &Namespace, to: &str, hub: &Hub) -> Result<()> {
    let pings = echo(from, to.parse()?, 3, &[])?;
    ensure!(pings.all(), "{} pings {to}: {}\n{}", from.name(), pings.text, hub.status_text()?);
    Ok(())
}

/// Server and site ping each other, and both the gateway, by both versions of IP.
fn must_reach_each_other(server: &Server, site: &Site, hub: &Hub) -> Result<()> {
    for to in GATEWAYS.map(str::to_owned).into_iter().chain(site.inner().map(|inner| inner.to_string())) {
        must_ping(&server.namespace, &to, hub)?;
    }
    for to in ["10.9.2.1", "fd00:9:2::1"].into_iter().chain(GATEWAYS) {
        must_ping(site.namespace(), to, hub)?;
    }
    Ok(())
}

#[test]
fn a_server_without_a_tag_and_a_remote_site_reach_each_other() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "a", 1))?];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let server = lan.server(lab, &[], &SERVER, &GATEWAYS)?;
        let (access_ports, access) = (vec!["a0"], vec![end(1001, "port = \"a0\"")]);
        let settings = Settings { access_ports, access, ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        must_reach_each_other(&server, &sites[0], &hub)?;
        let status = hub.balance()?;
        let end = &status.0["tenants"][0]["access"][0];
        ensure!(end["name"] == "a0" && end["up"] == true && end["neighbours"][0]["state"] == "reachable", "{end}");
        // Each ping there and back; the gateway's own answers are packets to the server, too.
        ensure!(end["rx_packets"].as_u64() >= Some(18) && end["tx_packets"].as_u64() >= Some(18), "{end}");
        Ok(())
    })
}

/// Two tenants, each with a site and a server, all with the same addresses, in the same VLAN of two ports.
#[test]
fn the_same_vlan_and_addresses_on_two_ports_are_two_tenants() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = Vec::new();
        let mut servers = Vec::new();
        let mut lans = Vec::new();
        for (tenant, port) in [(1001, "a0"), (2002, "a1")] {
            sites.push(Site::new(lab, &mut world, Plan::new(tenant, "a", 1))?);
            let mut lan = Lan::new(lab, &format!("lan-{port}"), &world.hub, port)?;
            servers.push(lan.server(lab, &[(CUSTOMER, 100)], &SERVER, &GATEWAYS)?);
            lans.push(lan);
        }
        let access = vec![end(1001, "port = \"a0\"\nvlan = 100"), end(2002, "port = \"a1\"\nvlan = 100")];
        let settings = Settings { access_ports: vec!["a0", "a1"], access, ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let kernel = Tap::open(&world.hub, "a0")?;
        // Tags beside the frames, and in them.
        for in_band in [false, true] {
            if in_band {
                lans[0].tag_in_band()?;
            }
            for (server, site) in servers.iter().zip(&sites) {
                must_reach_each_other(server, site, &hub)?;
            }
            nothing_crosses(&servers, &sites)?;
            let ends = [(&servers[0].namespace, sites[0].namespace(), sites[0].inner())];
            let back = [(sites[0].namespace(), &servers[0].namespace, ["10.9.2.1".parse()?, "fd00:9:2::1".parse()?])];
            for (from, to, addresses) in ends.into_iter().chain(back) {
                for address in addresses {
                    let (mbits, _) = transfer(lab.directory(), (from, to), address, (false, 2))?;
                    ensure!(mbits > 1.0, "TCP to {address}: {mbits} Mbit/s");
                }
                let (mbits, lost) = transfer(lab.directory(), (from, to), addresses[0], (true, 1))?;
                ensure!(mbits > 10.0 && lost < 0.2, "UDP to {}: {mbits} Mbit/s, {lost} lost", addresses[0]);
            }
        }
        ensure!(kernel.count(|seen| !seen.outgoing)? == 0, "the hub's kernel got frames of a tenant");
        hub.balance()?;
        Ok(())
    })
}

/// Marked pings of each server arrive at its own site and at no other.
fn nothing_crosses(servers: &[Server], sites: &[Site]) -> Result<()> {
    let at_sites = sites.iter().map(|site| Tap::open(site.namespace(), &site.interface)).collect::<Result<Vec<_>>>()?;
    let at_servers = servers.iter().map(Server::tap).collect::<Result<Vec<_>>>()?;
    for (n, (server, site)) in servers.iter().zip(sites).enumerate() {
        for (from, to, taps) in [
            (&server.namespace, site.v4().to_string(), &at_sites),
            (site.namespace(), "10.9.2.1".to_owned(), &at_servers),
        ] {
            let mark = [0xec, 0x1d, 0xe4, n as u8, 0x7e, 0x57, 0xed, 0x01];
            let pattern: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
            ensure!(echo(from, to.parse()?, 3, &["-p", &pattern])?.all());
            let arrived = |seen: &Seen| !seen.outgoing && seen.contains(&mark);
            let counts = taps.iter().map(|tap| tap.count(arrived)).collect::<Result<Vec<_>>>()?;
            ensure!(counts.iter().enumerate().all(|(at, count)| (*count > 0) == (at == n)), "{n}: {counts:?}");
            at_sites.iter().chain(&at_servers).try_for_each(|tap| tap.drain().map(drop))?;
        }
    }
    Ok(())
}

#[test]
fn two_tags_lead_to_a_tenant_and_a_host_behind_a_host_is_reached() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan::new(2002, "a", 1))?,
        ];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let servers = [
            lan.server(lab, &[(SERVICE, 10), (CUSTOMER, 100)], &SERVER, &GATEWAYS)?,
            lan.server(lab, &[(CUSTOMER, 10), (CUSTOMER, 100)], &SERVER, &GATEWAYS)?,
        ];
        let route = "\n[[tenant.access.route]]\nprefix = \"10.9.128.0/17\"\nvia = \"10.9.2.1\"";
        let (tenant, lines) = end(1001, "port = \"a0\"\nvlan = [10, 100]");
        let access =
            vec![(tenant, lines + route), end(2002, "port = \"a0\"\nvlan = [10, 100]\nouter_tag = \"802.1q\"")];
        let settings = Settings { access_ports: vec!["a0"], access, ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        for in_band in [false, true] {
            if in_band {
                lan.tag_in_band()?;
            }
            for (server, site) in servers.iter().zip(&sites) {
                must_reach_each_other(server, site, &hub)?;
            }
            nothing_crosses(&servers, &sites)?;
        }
        servers[0].namespace.ip("addr add 10.9.128.1/32 dev lo")?;
        must_ping(sites[0].namespace(), "10.9.128.1", &hub)?;
        let (mbits, _) =
            transfer(lab.directory(), (&servers[0].namespace, sites[0].namespace()), sites[0].v4().into(), (false, 2))?;
        ensure!(mbits > 1.0, "{mbits}");
        hub.balance()?;
        Ok(())
    })
}

/// A host that never answers ARP is reached because its MAC address is configured, and nobody else can claim to be it.
#[test]
fn a_configured_neighbour_is_not_asked_and_not_replaced() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "a", 1))?];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let server = lan.server(lab, &[(CUSTOMER, 100)], &SERVER, &GATEWAYS)?;
        let attacker = lan.server(lab, &[], &[], &[])?;
        let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
        let (of_server, of_hub) = (mac(server.namespace.mac("eth0")?), mac(world.hub.mac("a0")?));
        server.namespace.ip("link set eth0 arp off")?;
        for gateway in GATEWAYS {
            server.namespace.ip(&format!("neigh replace {gateway} lladdr {of_hub} dev eth0 nud permanent"))?;
        }
        let (tenant, mut lines) = end(1001, "port = \"a0\"\nvlan = 100");
        for address in ["10.9.2.1", "fd00:9:2::1"] {
            lines += &format!("\n[[tenant.access.neighbour]]\naddress = \"{address}\"\nmac = \"{of_server}\"");
        }
        let settings = Settings { access_ports: vec!["a0"], access: vec![(tenant, lines)], ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        let before = hub.status()?;
        for address in ["10.9.2.1", "fd00:9:2::1"] {
            must_ping(sites[0].namespace(), address, &hub)?;
            ensure!(neighbour(&before, address)?["state"] == "static", "{before:?}");
        }
        let wire = attacker.tap()?;
        let mut claim = [world.hub.mac("a0")?, THIEF].concat();
        claim.extend([0x81, 0, 0, 100, 0x08, 0x06]);
        claim.extend(arp(true, "10.9.2.1", "10.9.2.254"));
        wire.send(&claim)?;
        hub.must_have_dropped_at_least(&before, "neighbour_conflict", 1)?;
        must_ping(sites[0].namespace(), "10.9.2.1", &hub)?;
        ensure!(neighbour(&hub.status()?, "10.9.2.1")?["mac"] == *of_server);
        hub.balance()?;
        Ok(())
    })
}

/// What a tenant was sold is one bucket for its sites and for its servers.
#[test]
fn hosts_of_a_vlan_and_sites_share_their_tenants_rate() -> Result<()> {
    const BURST: u64 = 20_000;
    const BYTES_PER_S: f64 = 8_000.0;
    const EACH: u64 = 100;
    const LEN: u64 = 1_028;
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "a", 1))?];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let server = lan.server(lab, &[(CUSTOMER, 100)], &SERVER, &GATEWAYS)?;
        let settings = Settings {
            access_ports: vec!["a0"],
            access: vec![end(1001, "port = \"a0\"\nvlan = 100")],
            contracts: vec![(1001, "rate = { up = \"64 kbit/s\" }\nburst = { up = \"20 kB\" }")],
            ..Settings::default()
        };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        must_ping(sites[0].namespace(), "10.9.2.1", &hub)?;
        let before = hub.balance()?;
        let passed = |status: &Status, field: &str| -> Result<u64> {
            let tenant = &status.0["tenants"][0];
            let of = |end: &serde_json::Value| end[field].as_u64().context("a number");
            Ok(of(&tenant["sites"][0])? + of(&tenant["access"][0])?)
        };
        // Somebody listens, so that no host has anything to say of it.
        let listen = |at: &Namespace| at.inside(|| std::net::UdpSocket::bind("0.0.0.0:9"));
        let _sinks = [listen(&server.namespace)??, listen(sites[0].namespace())??];
        let start = std::time::Instant::now();
        for (from, to) in [(&server.namespace, IpAddr::V4(sites[0].v4())), (sites[0].namespace(), "10.9.2.1".parse()?)]
        {
            from.inside(|| -> Result<()> {
                let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
                (0..EACH).try_for_each(|_| Ok(socket.send_to(&[0; LEN as usize - 28], (to, 9)).map(drop)?))
            })??;
        }
        let mut last = None;
        until("all is passed or dropped", || {
            let status = hub.status()?;
            let dropped = status.drops_since(&before).get("rate_tenant_up").copied().unwrap_or(0);
            let gone = passed(&status, "tx_packets")? - passed(&before, "tx_packets")? + dropped;
            last = Some((status, dropped));
            Ok((gone >= 2 * EACH).then_some(()))
        })?;
        let took = start.elapsed();
        let (status, dropped) = last.context("it was asked")?;
        let bytes = passed(&status, "tx_bytes")? - passed(&before, "tx_bytes")?;
        // Whoever comes first has the burst: the other has what comes back meanwhile.
        let most = BURST as f64 + took.as_secs_f64() * BYTES_PER_S;
        ensure!(
            bytes as f64 <= most && bytes >= BURST - 2 * LEN,
            "{bytes} of {most} passed in {took:?}, {dropped} dropped"
        );
        Ok(())
    })
}

#[test]
fn what_leaves_the_hub_has_whole_checksums() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        // This client writes each packet as it was opened.
        let mut sites =
            vec![Site::new(lab, &mut world, Plan { client: Client::Boringtun, ..Plan::new(1001, "a", 1) })?];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let server = lan.server(lab, &[(CUSTOMER, 100)], &SERVER, &GATEWAYS)?;
        let (access_ports, access) = (vec!["a0"], vec![end(1001, "port = \"a0\"\nvlan = 100")]);
        let hub = Hub::with_sites(lab, &world, &Settings { access_ports, access, ..Settings::default() }, &mut sites)?;
        let site = &sites[0];
        must_reach_each_other(&server, site, &hub)?;
        let (at_switch, at_site) = (Tap::open(&lan.switch, "p0")?, Tap::open(site.namespace(), &site.interface)?);
        let at_server = server.tap()?;
        for address in site.inner() {
            let (mbits, _) = transfer(lab.directory(), (&server.namespace, site.namespace()), address, (false, 1))?;
            ensure!(mbits > 1.0, "{mbits}");
            transfer(lab.directory(), (&server.namespace, site.namespace()), address, (true, 1))?;
        }
        // The proof that there was something to finish: the switch saw unfinished ones on their way to the hub.
        let of_transport = |seen: &Seen, at: usize| Some((seen.outgoing, is_right(seen.bytes.get(at..)?)?));
        let unfinished = at_switch.count(|seen| of_transport(seen, 14) == Some((true, false)))?;
        ensure!(unfinished > 100, "only {unfinished} unfinished packets came to the hub");
        let arrived: Vec<bool> =
            at_site.drain()?.iter().filter(|seen| !seen.outgoing).filter_map(|seen| is_right(&seen.bytes)).collect();
        ensure!(arrived.len() > 100 && arrived.iter().all(|right| *right), "{} arrived", arrived.len());
        let back = at_server.drain()?;
        let back: Vec<_> = back
            .iter()
            .filter(|seen| !seen.outgoing)
            .filter_map(|seen| Some((is_right(seen.bytes.get(14..)?)?, &seen.bytes)))
            .collect();
        let wrong: Vec<_> = back.iter().filter(|(right, _)| !right).map(|(_, bytes)| bytes).collect();
        ensure!(
            back.len() > 20 && wrong.is_empty(),
            "{} came back, {} of them wrong: {:02x?}",
            back.len(),
            wrong.len(),
            wrong.first()
        );
        hub.balance()?;
        Ok(())
    })
}

/// Whether the checksum of a TCP or UDP packet is right; `None` if it is none.
///
/// Of TCP's, 0 and 0xffff are the same number (RFC 1071, ones' complement): Linux writes the latter for both. UDP has the latter
/// alone (RFC 768: 0 is no checksum).
fn is_right(packet: &[u8]) -> Option<bool> {
    let same = |a: u16, b: u16| a % 0xffff == b % 0xffff;
    let sliced = SlicedPacket::from_ip(packet).ok()?;
    let (net, transport) = (sliced.net?, sliced.transport?);
    let ends = match &net {
        etherparse::NetSlice::Ipv4(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        etherparse::NetSlice::Ipv6(ip) => (IpAddr::from(ip.header().source()), IpAddr::from(ip.header().destination())),
        etherparse::NetSlice::Arp(_) => return None,
    };
    match (transport, ends) {
        (TransportSlice::Tcp(tcp), (IpAddr::V4(a), IpAddr::V4(b))) => {
            Some(same(tcp.calc_checksum_ipv4(a.octets(), b.octets()).ok()?, tcp.checksum()))
        }
        (TransportSlice::Tcp(tcp), (IpAddr::V6(a), IpAddr::V6(b))) => {
            Some(same(tcp.calc_checksum_ipv6(a.octets(), b.octets()).ok()?, tcp.checksum()))
        }
        (TransportSlice::Udp(udp), (IpAddr::V4(a), IpAddr::V4(b))) => {
            Some(udp.to_header().calc_checksum_ipv4_raw(a.octets(), b.octets(), udp.payload()).ok()? == udp.checksum())
        }
        (TransportSlice::Udp(udp), (IpAddr::V6(a), IpAddr::V6(b))) => {
            Some(udp.to_header().calc_checksum_ipv6_raw(a.octets(), b.octets(), udp.payload()).ok()? == udp.checksum())
        }
        _ => None,
    }
}

/// A lab with two tenants on one port, each with a site and a server, and somebody on the switch who sends what he likes.
struct Siege {
    world: World,
    sites: Vec<Site>,
    lan: Lan,
    servers: Vec<Server>,
    attacker: Server,
    wire: Tap,
    hub: Hub,
    gateway: [u8; 6],
}

const THIEF: [u8; 6] = [2, 0, 0, 0, 0x66, 0x66];
const MARK: [u8; 8] = *b"SMUGGLED";

impl Siege {
    fn new(lab: &mut Lab) -> Result<Self> {
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan::new(2002, "a", 1))?,
        ];
        let mut lan = Lan::new(lab, "lan", &world.hub, "a0")?;
        let servers = [100, 200]
            .map(|id| lan.server(lab, &[(CUSTOMER, id)], &SERVER, &GATEWAYS))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        let attacker = lan.server(lab, &[], &[], &[])?;
        // The kernel of the attacker's host says nothing of its own.
        attacker.namespace.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
        let access = vec![end(1001, "port = \"a0\"\nvlan = 100"), end(2002, "port = \"a0\"\nvlan = 200")];
        let settings = Settings { access_ports: vec!["a0"], access, ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        for (server, site) in servers.iter().zip(&sites) {
            must_reach_each_other(server, site, &hub)?;
        }
        let wire = attacker.tap()?;
        let gateway = world.hub.mac("a0")?;
        Ok(Self { world, sites, lan, servers, attacker, wire, hub, gateway })
    }

    /// A frame of the attacker's with these tags, to the gateway.
    fn frame(&self, tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
        self.frame_to(self.gateway, tags, kind, payload)
    }

    fn frame_to(&self, to: [u8; 6], tags: &[u16], kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = [to, THIEF].concat();
        for id in tags {
            frame.extend(CUSTOMER.to_be_bytes());
            frame.extend(id.to_be_bytes());
        }
        frame.extend(kind.to_be_bytes());
        frame.extend(payload);
        frame.resize(frame.len().max(60), 0);
        frame
    }

    /// Sends a frame some times; each is counted once under its reason, and under no other but what hosts say unasked.
    fn must_be_dropped(&self, what: &str, frame: &[u8], reason: &str) -> Result<()> {
        const TIMES: u64 = 4;
        let before = self.hub.status()?;
        (0..TIMES).try_for_each(|_| self.wire.send(frame))?;
        let mut last = Default::default();
        until(&format!("{what}: {reason}"), || {
            last = self.hub.status()?.drops_since(&before);
            Ok((last.get(reason) >= Some(&TIMES)).then_some(()))
        })
        .with_context(|| format!("{last:?}"))?;
        let unasked = ["xdp_not_gateway", "neighbour_ignored"];
        last.retain(|name, _| name == reason || !unasked.contains(&name.as_str()));
        ensure!(last.keys().all(|name| name == reason), "{what}: {last:?}");
        ensure!(last[reason] == TIMES || unasked.contains(&reason), "{what}: {last:?}");
        Ok(())
    }
}

/// A marked UDP packet.
fn udp(from: &str, to: &str) -> Vec<u8> {
    let mut packet = Vec::new();
    let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
    let builder = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("one family"),
    };
    builder.udp(9, 9).write(&mut packet, &MARK).unwrap();
    packet
}

fn arp(reply: bool, sender: &str, target: &str) -> Vec<u8> {
    let operation = if reply { wire::arp::Operation::Reply } else { wire::arp::Operation::Request };
    let address = |text: &str| text.parse::<Ipv4Addr>().unwrap();
    let (sender, target) = (address(sender), address(target));
    wire::arp::Arp { operation, sender_mac: THIEF, sender, target_mac: [0; 6], target }.bytes().to_vec()
}

fn advertisement(target: &str, solicited: bool, to: &str) -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let kind = wire::ndisc::Kind::Advertisement { router: true, solicited, overrides: true };
    let (source, destination, target) = (address(target), address(to), address(target));
    wire::ndisc::Neighbour { kind, source, destination, target, mac: Some(THIEF) }.bytes().to_vec()
}

#[test]
fn an_attacker_on_a_vlan_gets_nothing_across_and_each_attempt_has_its_reason() -> Result<()> {
    lab::test(|lab| {
        let siege = Siege::new(lab)?;
        let everywhere: Vec<Tap> = siege
            .sites
            .iter()
            .map(|site| Tap::open(site.namespace(), &site.interface))
            .chain(siege.servers.iter().map(Server::tap))
            .chain([Tap::open(&siege.world.hub, "a0")])
            .collect::<Result<_>>()?;
        const V4: u16 = 0x0800;
        const V6: u16 = 0x86dd;
        const ARP: u16 = 0x0806;
        let honest = udp("10.9.2.9", "10.9.1.1");
        let mut far = advertisement("fd00:9:2::9", true, "fd00:9:2::fe");
        far[7] = 64;
        let group = [0x33, 0x33, 0, 0, 0, 1];
        let rows: Vec<(&str, Vec<u8>, &str)> = vec![
            ("hopping by a second tag", siege.frame(&[100, 200], V4, &honest), "xdp_vlan_unknown"),
            ("hopping the other way", siege.frame(&[200, 100], V4, &honest), "xdp_vlan_unknown"),
            ("a VLAN of nobody", siege.frame(&[300], V4, &honest), "xdp_vlan_unknown"),
            ("no tag", siege.frame(&[], V4, &honest), "xdp_vlan_unknown"),
            ("a priority alone", siege.frame(&[0xe000], V4, &honest), "xdp_vlan_unknown"),
            ("the gateway's address", siege.frame(&[100], V4, &udp("10.9.2.254", "10.9.1.1")), "gateway_source"),
            ("the gateway's, IPv6", siege.frame(&[100], V6, &udp("fd00:9:2::fe", "fd00:9:1::1")), "gateway_source"),
            ("a site's address", siege.frame(&[100], V4, &udp("10.9.1.1", "10.9.1.1")), "source_not_allowed"),
            ("nobody's address", siege.frame(&[100], V6, &udp("fd00:9:77::1", "fd00:9:1::1")), "source_not_allowed"),
            ("not for the gateway", siege.frame_to([0xff; 6], &[100], V4, &honest), "xdp_not_gateway"),
            ("no packet", siege.frame(&[100], 0x8864, &honest), "xdp_not_ip"),
            ("a service of the gateway's", siege.frame(&[100], V4, &udp("10.9.2.9", "10.9.2.254")), "gateway_not_ping"),
            (
                "it is the gateway",
                siege.frame_to([0xff; 6], &[100], ARP, &arp(false, "10.9.2.254", "10.9.2.254")),
                "gateway_claimed",
            ),
            (
                "it is the gateway, told to the gateway",
                siege.frame(&[100], ARP, &arp(true, "10.9.2.254", "10.9.2.254")),
                "gateway_claimed",
            ),
            (
                "it is the gateway, IPv6",
                siege.frame_to(group, &[100], V6, &advertisement("fd00:9:2::fe", false, "ff02::1")),
                "gateway_claimed",
            ),
            (
                "from another network",
                siege.frame(&[100], ARP, &arp(false, "10.9.1.1", "10.9.2.254")),
                "neighbour_foreign",
            ),
            (
                "from another network, IPv6",
                siege.frame_to(group, &[100], V6, &advertisement("fd00:9:1::1", false, "ff02::1")),
                "neighbour_foreign",
            ),
            ("through a router", siege.frame(&[100], V6, &far), "neighbour_malformed"),
            ("half an ARP", siege.frame(&[100], ARP, &[0, 1, 8, 0, 6, 4, 0, 9]), "neighbour_malformed"),
            ("it is the server", siege.frame(&[100], ARP, &arp(true, "10.9.2.1", "10.9.2.254")), "neighbour_conflict"),
            (
                "it is the server, IPv6",
                siege.frame(&[100], V6, &advertisement("fd00:9:2::1", true, "fd00:9:2::fe")),
                "neighbour_conflict",
            ),
        ];
        for (what, frame, reason) in &rows {
            siege.must_be_dropped(what, frame, reason)?;
        }
        for (n, tap) in everywhere.iter().enumerate() {
            // A switch gives a broadcast to every station, also without the hub: at servers, what the hub sent counts.
            let is_servers = (2..4).contains(&n);
            let of_hub = |seen: &Seen| !is_servers || seen.bytes[6..12] == siege.gateway;
            let smuggled = tap.count(|seen| !seen.outgoing && seen.contains(&MARK) && of_hub(seen))?;
            ensure!(smuggled == 0, "{smuggled} marked packets arrived at {n}");
        }
        // The server is still the server, and nobody else was disturbed.
        let stolen = Tap::open(&siege.attacker.namespace, "eth0")?;
        for (server, site) in siege.servers.iter().zip(&siege.sites) {
            must_reach_each_other(server, site, &siege.hub)?;
        }
        let to_thief =
            stolen.count(|seen| !seen.outgoing && seen.bytes[..6] == THIEF && seen.bytes[12..14] != [8, 6])?;
        ensure!(to_thief == 0, "{to_thief} packets went to the thief");
        siege.hub.balance()?;
        Ok(())
    })
}

#[test]
fn the_gateway_defends_its_address_and_tells_a_host_that_wants_it() -> Result<()> {
    lab::test(|lab| {
        let siege = Siege::new(lab)?;
        let at_server = siege.servers[0].tap()?;
        let of_gateway = |seen: &Seen| is_announcement(seen, siege.gateway);
        // One of them may be the second of the hub's start.
        let claim = siege.frame_to([0xff; 6], &[100], 0x0806, &arp(false, "10.9.2.254", "10.9.2.254"));
        let mut heard = 0;
        until_true("the gateway says whose the address is, again and again", || {
            siege.wire.send(&claim)?;
            heard += at_server.count(of_gateway)?;
            Ok(heard >= 3)
        })?;
        // A host that looks whether the address is free (RFC 5227).
        let probe = siege.frame_to([0xff; 6], &[100], 0x0806, &arp(false, "0.0.0.0", "10.9.2.254"));
        siege.wire.send(&probe)?;
        // Told to it alone, in a frame that is not too short: its tag is taken off.
        siege.wire.wait_for("answer to the probe", |seen| {
            let arp = seen.bytes.get(14..).and_then(|message| wire::arp::Arp::parse(message).ok());
            let answers = arp.is_some_and(|arp| arp.operation == wire::arp::Operation::Reply);
            of_gateway(seen) && answers && seen.bytes[..6] == THIEF && seen.bytes.len() >= 56
        })?;
        // And one of IPv6, as a kernel does it (RFC 4862, 5.4).
        let server = &siege.servers[0].namespace;
        server.sysctl("net.ipv6.conf.eth0.accept_dad", "1")?;
        server.ip("addr add fd00:9:2::fe/128 dev eth0")?;
        until("the kernel finds that the gateway has the address", || {
            let text = server.run("ip", &["-6", "addr", "show", "dev", "eth0"])?;
            Ok(text.contains("dadfailed").then_some(()))
        })?;
        siege.hub.balance()?;
        Ok(())
    })
}

#[test]
fn the_gateway_is_announced_twice() -> Result<()> {
    lab::test(|lab| {
        let mut siege = Siege::new(lab)?;
        siege.hub.stop()?;
        let at_server = siege.servers[0].tap()?;
        siege.hub.start()?;
        for which in ["first announcement", "second announcement"] {
            at_server.wait_for(which, |seen| is_announcement(seen, siege.gateway))?;
        }
        Ok(())
    })
}

/// ARP of the gateway of the first tenant, as it comes to a station.
fn is_announcement(seen: &Seen, gateway: [u8; 6]) -> bool {
    let arp = seen.bytes.get(14..).and_then(|message| wire::arp::Arp::parse(message).ok());
    !seen.outgoing && arp.is_some_and(|arp| arp.sender == Ipv4Addr::new(10, 9, 2, 254) && arp.sender_mac == gateway)
}

#[test]
fn a_flood_of_neighbour_discovery_is_its_vlans_alone() -> Result<()> {
    lab::test(|lab| {
        let siege = Siege::new(lab)?;
        let before = siege.hub.status()?;
        let ask = siege.frame_to([0xff; 6], &[100], 0x0806, &arp(false, "10.9.2.9", "10.9.2.254"));
        (0..3000).try_for_each(|_| siege.wire.send(&ask))?;
        // The other tenant's server has forgotten its gateway and finds it at once.
        siege.servers[1].namespace.ip("neigh flush all")?;
        must_reach_each_other(&siege.servers[1], &siege.sites[1], &siege.hub)?;
        until("the flood is refused", || {
            Ok((siege.hub.status()?.drops_since(&before).get("xdp_neighbour_rate") > Some(&1000)).then_some(()))
        })?;
        let dropped = siege.hub.status()?.drops_since(&before);
        ensure!(!dropped.contains_key("control_busy"), "{dropped:?}");
        siege.hub.balance()?;
        Ok(())
    })
}

#[test]
fn hosts_come_move_and_go() -> Result<()> {
    lab::test(|lab| {
        let siege = Siege::new(lab)?;
        let (server, site) = (&siege.servers[0], &siege.sites[0]);
        // Nobody there: three questions, then an end.
        let before = siege.hub.status()?;
        let pings = echo(site.namespace(), "10.9.2.77".parse()?, 1, &["-W", "1"])?;
        ensure!(pings.received == 0);
        siege.hub.must_have_dropped_at_least(&before, "neighbour_unresolved", 1)?;

        // Another network card in the same host: it says so itself, and the hub asks the old one first.
        server.namespace.ip("link set eth0 address 02:00:00:00:77:77")?;
        server.namespace.run("ip", &["neigh", "flush", "all"])?;
        until("the server is reached again", || {
            let pings = echo(site.namespace(), "10.9.2.1".parse()?, 1, &["-W", "1"])?;
            Ok(pings.all().then_some(()))
        })?;
        must_reach_each_other(server, site, &siege.hub)?;
        let status = siege.hub.status()?;
        ensure!(neighbour(&status, "10.9.2.1")?["mac"] == "02:00:00:00:77:77", "{status:?}");
        siege.hub.balance()?;
        Ok(())
    })
}

fn neighbour(status: &Status, address: &str) -> Result<serde_json::Value> {
    let all = status.0["tenants"][0]["access"][0]["neighbours"].as_array().context("neighbours")?;
    all.iter().find(|neighbour| neighbour["address"] == address).cloned().with_context(|| format!("{all:?}"))
}

#[test]
fn a_port_made_anew_serves_its_vlans_again() -> Result<()> {
    lab::test(|lab| {
        let siege = Siege::new(lab)?;
        siege.world.hub.ip("link del a0")?;
        lab.wire((&siege.world.hub, "a0"), (&siege.lan.switch, "p0"), 1)?;
        siege.lan.switch.ip("link set p0 mtu 1504 master br0")?;
        for (server, site) in siege.servers.iter().zip(&siege.sites) {
            until("the server is reached again", || {
                let pings = echo(site.namespace(), "10.9.2.1".parse()?, 1, &["-W", "1"])?;
                Ok(pings.all().then_some(()))
            })?;
            must_reach_each_other(server, site, &siege.hub)?;
        }
        siege.hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_wan_and_a_vlan_share_a_port() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        let mut sites = vec![Site::new(lab, &mut world, Plan::new(1001, "a", 1))?];
        let access = vec![end(1001, "port = \"d0\"\nvlan = 100")];
        let hub = Hub::with_sites(lab, &world, &Settings { access, ..Settings::default() }, &mut sites)?;
        must_ping(sites[0].namespace(), "10.9.2.254", &hub)?;
        // A host on that VLAN, at the other end of the wire: it asks for its gateway, and the kernel takes the answer's tag off.
        let wire = Tap::open(&world.inet, "h0")?;
        let mut frame = [0xff; 6].to_vec();
        frame.extend(THIEF);
        frame.extend([0x81, 0, 0, 100, 8, 6]);
        frame.extend(arp(false, "10.9.2.1", "10.9.2.254"));
        wire.send(&frame)?;
        wire.wait_for("answer of the gateway", |seen| {
            let arp = seen.bytes.get(14..).and_then(|message| wire::arp::Arp::parse(message).ok());
            !seen.outgoing
                && arp.is_some_and(|arp| arp.target_mac == THIEF && arp.sender == Ipv4Addr::new(10, 9, 2, 254))
        })?;
        let before = hub.status()?;
        frame[15] = 101;
        (0..3).try_for_each(|_| wire.send(&frame))?;
        hub.must_have_dropped_at_least(&before, "xdp_vlan_unknown", 3)?;
        must_ping(sites[0].namespace(), "10.9.2.254", &hub)?;
        hub.balance()?;
        Ok(())
    })
}
