//! Several hubs, and what they carry for each other: within a tenant all of it, across tenants nothing, and of what another hub forges not
//! a packet.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::message;
use ekiden_testbed::backbone::{Backbone, route};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::{echo, must_ping, ping};
use ekiden_testbed::rogue::udp;
use ekiden_testbed::rogue_hub::{AES, CHACHA20, Carried};
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::{wg, write_secret};
use ekiden_testbed::{Capture, Hub, Iperf, Load, Plan, RogueHub, Seen, Site, Status, Tap, World, iperf_both_ways, lab};

const TENANTS: [u32; 2] = [1001, 2002];
const SUITES: [(&str, u8); 2] = [("aes-256-gcm", AES), ("chacha20-poly1305", CHACHA20)];
/// How often each forgery is sent.
const TIMES: u64 = 5;

/// In each ping its own mark: tenant, sender, receiver and version lie between the first two bytes and the last two.
fn mark(tenant: usize, from: usize, to: usize, version: usize) -> [u8; 8] {
    [0xec, 0x1d, tenant as u8, from as u8, to as u8, version as u8, 0x7e, 0x57]
}

fn mark_in(seen: &Seen) -> Option<[u8; 8]> {
    let marked = |window: &[u8]| window[..2] == [0xec, 0x1d] && window[6..] == [0x7e, 0x57];
    seen.bytes.windows(8).find(|window| marked(window)).and_then(|window| window.try_into().ok())
}

/// Three hubs, and behind each a site and a server of either tenant; both tenants have the same addresses everywhere.
#[test]
fn in_three_hubs_all_of_a_tenant_reach_each_other_and_nobody_else() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 3)?;
        backbone.sites_everywhere(lab, &TENANTS)?;
        backbone.servers_everywhere(lab, &TENANTS)?;
        backbone.mesh(&TENANTS, "tenants = [1001, 2002]\nlanes = 2\n");
        backbone.start(lab)?;

        let ends = backbone.ends();
        ensure!(ends.len() == 12, "{}", ends.len());
        let pairs = || (0..ends.len()).flat_map(|from| (0..ends.len()).map(move |to| (from, to)));
        let pairs = || pairs().filter(|(from, to)| from != to && ends[*from].tenant == ends[*to].tenant);
        // Neighbours and sessions are found meanwhile.
        for (from, to) in pairs() {
            for address in ends[to].addresses {
                let pings = echo(ends[from].namespace, address, 1, &[])?;
                ensure!(pings.all(), "{} pings {address}: {}", ends[from].namespace.name(), pings.text);
            }
        }
        let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        let open = |end: &ekiden_testbed::backbone::End<'_>| Tap::open(end.namespace, end.interface);
        let taps = ends.iter().map(open).collect::<Result<Vec<_>>>()?;
        let hubs = backbone.worlds.iter().map(|world| &world.hub);
        let clear = hubs.chain([&backbone.worlds[0].inet]).map(Tap::everywhere).collect::<Result<Vec<_>>>()?;
        let mut expected = BTreeMap::new();
        for (from, to) in pairs() {
            for (version, address) in ends[to].addresses.into_iter().enumerate() {
                let mark = mark(ends[from].tenant as usize % 256, from, to, version);
                let pattern: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
                let pings = echo(ends[from].namespace, address, 1, &["-p", &pattern])?;
                ensure!(pings.all(), "{} pings {address}: {}", ends[from].namespace.name(), pings.text);
                // The request there, and the reply here.
                expected.insert((to, mark), 1);
                expected.insert((from, mark), 1);
            }
        }
        let mut arrived = BTreeMap::new();
        for (at, tap) in taps.iter().enumerate() {
            for mark in tap.drain()?.iter().filter(|seen| !seen.outgoing).filter_map(mark_in) {
                *arrived.entry((at, mark)).or_insert(0) += 1;
            }
        }
        ensure!(expected.len() == 240, "{}", expected.len());
        for (place, count) in &arrived {
            ensure!(expected.get(place) == Some(count), "{place:?} arrived {count} times");
        }
        ensure!(arrived == expected, "{} of {} arrived", arrived.len(), expected.len());
        for (tap, at) in clear.iter().zip(["hub", "hub2", "hub3", "the router"]) {
            ensure!(tap.count(|seen| mark_in(seen).is_some())? == 0, "{at} saw a packet in clear");
        }
        for mut dropped in dropped(&before, &backbone.hubs)? {
            // What servers say to their neighbours.
            dropped.retain(|reason, _| !["xdp_not_gateway", "neighbour_ignored"].contains(&&**reason));
            ensure!(dropped.is_empty(), "{dropped:?}");
        }
        backbone.must_agree()?;
        backbone.balance()
    })
}

/// Two hubs with a site each of tenant 1001, and one trunk.
fn two(lab: &mut lab::Lab, cipher: &str, more: &str) -> Result<Backbone> {
    let mut backbone = Backbone::new(lab, 2)?;
    backbone.sites_everywhere(lab, &[1001])?;
    backbone.join(0, 1, cipher, false, &format!("tenants = \"all\"\n{more}"));
    backbone.lead(1001, 0, 1, 1, 100);
    backbone.lead(1001, 1, 0, 0, 100);
    Ok(backbone)
}

/// By either cipher; once with a key that both share besides, and once where one of the two hubs does not know where the other is.
#[test]
fn tcp_flows_by_either_cipher_at_full_size() -> Result<()> {
    for (cipher, _) in SUITES {
        lab::test(|lab| {
            let mut backbone = two(lab, cipher, "")?;
            if cipher == SUITES[0].0 {
                let path = lab.directory().join("trunk.psk");
                write_secret(&path, &wg("genpsk", "")?)?;
                for settings in &mut backbone.settings {
                    settings.trunks[0].push_str(&format!("preshared_key_file = \"{}\"\n", path.display()));
                }
            } else {
                let lines = &mut backbone.settings[0].trunks[0];
                *lines = lines
                    .lines()
                    .filter(|line| !line.starts_with("endpoint"))
                    .map(|line| format!("{line}\n"))
                    .collect();
            }
            backbone.start(lab)?;
            let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
            for transfer in iperf_both_ways(a, b, 2)? {
                ensure!(transfer.mbits > 1.0, "{cipher}: {transfer:?}");
            }
            for hub in &backbone.hubs {
                let drops = hub.status()?.drops();
                ensure!(drops.keys().all(|reason| reason == "tx_ring_full"), "{cipher}: {drops:?}");
            }
            backbone.balance()
        })?;
    }
    Ok(())
}

/// Whoever has a smaller MTU behind another hub gets what fits, and who sends hears of it: from the tenant's address of hubs, and without one
/// from that of none, by IPv4.
#[test]
fn what_hubs_say_of_packets_comes_back_by_trunks() -> Result<()> {
    for with_address in [false, true] {
        lab::test(|lab| {
            let mut backbone = two(lab, "aes-256-gcm", "")?;
            backbone.sites[1][0].plan.contract = "mtu = 1280\n";
            for settings in backbone.settings.iter_mut().filter(|_| with_address) {
                settings.hub_addresses.push(1001);
            }
            backbone.start(lab)?;
            let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
            for address in b.inner().into_iter().filter(|address| address.is_ipv4() || with_address) {
                must_ping(a, address)?;
                // The first hop is the own hub, the second the other one.
                for ttl in ["1", "2"] {
                    let pings = ping(a.namespace(), address, &["-c", "1", "-W", "2", "-t", ttl])?;
                    ensure!(pings.text.to_lowercase().contains("exceeded"), "TTL {ttl}: {}", pings.text);
                }
                let pings = echo(a.namespace(), address, 1, &["-t", "3"])?;
                ensure!(pings.all(), "{}", pings.text);
                let pings = ping(a.namespace(), address, &["-c", "1", "-W", "2", "-M", "do", "-s", "1350"])?;
                let said = ["mtu = 1280", "mtu=1280"].iter().any(|mtu| pings.text.contains(mtu));
                ensure!(said, "{}", pings.text);
            }
            backbone.balance()
        })?;
    }
    Ok(())
}

/// A hub with two tenants, and a trunk to a rogue that may carry one of them.
struct WithRogue {
    world: World,
    hub: Hub,
    rogue: RogueHub,
    sites: Vec<Site>,
}

impl WithRogue {
    fn new(lab: &mut lab::Lab, (cipher, suite): (&str, u8)) -> Result<Self> {
        let mut world = World::new(lab)?;
        // Tenant 2002 has behind a site of its own what tenant 1001 has behind the trunk.
        let plans = [Plan::new(1001, "a", 1), Plan::new(2002, "a", 1), Plan::new(2002, "b", 7)];
        let mut sites = plans.into_iter().map(|plan| Site::new(lab, &mut world, plan)).collect::<Result<Vec<_>>>()?;
        let mut rogue = RogueHub::new(lab, &mut world, "rogue", 0)?;
        rogue.be(&world, suite, 0)?;
        let lines = format!(
            "name = \"rogue\"\npublic_key = \"{}\"\nendpoint = \"{}\"\ncipher = \"{cipher}\"\ntenants = [1001]\nlanes = 1\n",
            rogue.key.public,
            rogue.endpoint()
        );
        let via = "{ trunk = \"rogue\" }";
        let routes = ["10.9.7.0/24", "fd00:9:7::/64"].map(|prefix| (1001, route(prefix, via, 100)));
        let settings = Settings { trunks: vec![lines], routes: routes.into(), ..Settings::default() };
        let hub = Hub::with_sites(lab, &world, &settings, &mut sites)?;
        Ok(Self { world, hub, rogue, sites })
    }

    /// All of these messages, dropped for this reason.
    fn must_be_dropped(&self, reason: &str, messages: &[Vec<u8>]) -> Result<()> {
        let before = self.hub.status()?;
        messages.iter().try_for_each(|message| self.rogue.send(message))?;
        self.hub.must_have_dropped(&before, &[(reason, messages.len() as u64)])
    }

    /// As often as each forgery is sent.
    fn tagged(&mut self, tenant: u32, kind: &str, inner: &[u8]) -> Result<Vec<Vec<u8>>> {
        (0..TIMES).map(|_| self.rogue.tagged(tenant, kind, inner)).collect()
    }
}

fn at(address: &str) -> Result<SocketAddr> {
    Ok(SocketAddr::new(address.parse()?, 4000))
}

/// A hub with valid keys for a trunk, but not for a tenant: whatever it puts into its trunk, the tenant gets nothing of it.
fn a_rogue_hub(suite: (&str, u8)) -> Result<()> {
    const MARK: &[u8] = b"tasuki of another runner";
    lab::test(|lab| {
        let mut all = WithRogue::new(lab, suite)?;
        all.rogue.connect()?;
        let tap = |site: &Site| Tap::open(site.namespace(), &site.interface);
        let taps = all.sites.iter().map(tap).collect::<Result<Vec<_>>>()?;
        let packets = [("10.9.7.1", "10.9.1.1", "ipv4"), ("fd00:9:7::1", "fd00:9:1::1", "ipv6")];

        // What it may say arrives, in its tenant alone.
        for (from, to, kind) in packets {
            let packet = udp(at(from)?, at(to)?, MARK)?;
            for message in all.tagged(1001, kind, &packet)? {
                all.rogue.send(&message)?;
                taps[0].wait_for("packet by the trunk", |seen| !seen.outgoing && seen.contains(MARK))?;
            }
        }
        let start = all.hub.balance()?;

        for (from, to, kind) in packets {
            let packet = udp(at(from)?, at(to)?, MARK)?;
            let messages = all.tagged(2002, kind, &packet)?;
            all.must_be_dropped("trunk_tenant_denied", &messages)?;
            for nobody in [0, 3003, 0xff_ffff] {
                let messages = all.tagged(nobody, kind, &packet)?;
                all.must_be_dropped("trunk_tenant_unknown", &messages)?;
            }
            // Sources that are not behind this trunk: a site's of the tenant, nobody's, the hub's.
            for wrong in ["10.9.1.1", "10.9.99.1", "192.0.2.1", "fd00:9:1::1", "fd00:9:99::1", "2001:db8::1"] {
                if wrong.parse::<IpAddr>()?.is_ipv6() == (kind == "ipv6") {
                    let messages = all.tagged(1001, kind, &udp(at(wrong)?, at(to)?, MARK)?)?;
                    all.must_be_dropped("trunk_source", &messages)?;
                }
            }
            // No route for it; and by the only route there is, it would go back.
            let nowhere = to.replace(":1::", ":99::").replace("9.1.1", "9.99.1");
            let messages = all.tagged(1001, kind, &udp(at(from)?, at(&nowhere)?, MARK)?)?;
            all.must_be_dropped("no_route", &messages)?;
            let messages = all.tagged(1001, kind, &udp(at(from)?, at(from)?, MARK)?)?;
            all.must_be_dropped("split_horizon", &messages)?;
        }
        let martian = all.tagged(1001, "ipv4", &udp(at("127.0.0.1")?, at("10.9.1.1")?, MARK)?)?;
        all.must_be_dropped("martian", &martian)?;

        // Tags that are none: each bit that must be zero, types that don't fit, and what is cut off.
        let packet = udp(at("10.9.7.1")?, at("10.9.1.1")?, MARK)?;
        let tag = [0, 0, 0x08, 0x00, 0x00, 0x03, 0xe9, 0x00];
        let right = [&tag[..], &packet].concat();
        let mut wrong: Vec<Vec<u8>> = (1..8).map(|length| right[..length].to_vec()).collect();
        let reserved = (0..8).map(|bit| (0, 1 << bit)).chain((0..7).map(|bit| (1, 1 << bit)));
        for (byte, bit) in reserved.chain((0..8).map(|bit| (7, 1 << bit))).chain([(1, 0x80), (2, 0x80), (3, 0x06)]) {
            let mut changed = right.clone();
            changed[byte] ^= bit;
            wrong.push(changed);
        }
        wrong.push([&[0, 0, 0x86, 0xdd], &right[4..]].concat());
        let sealed = wrong.iter().map(|plain| all.rogue.sealed(plain)).collect::<Result<Vec<_>>>()?;
        all.must_be_dropped("trunk_tag_malformed", &sealed)?;

        // What the cipher, the window and the sessions end.
        let before = all.hub.status()?;
        let sealed = all.tagged(1001, "ipv4", &packet)?;
        sealed.iter().try_for_each(|message| all.rogue.send(message))?;
        for _ in &sealed {
            taps[0].wait_for("packet by the trunk", |seen| !seen.outgoing && seen.contains(MARK))?;
        }
        all.hub.must_have_dropped(&before, &[])?;
        all.must_be_dropped("counter_replayed", &sealed)?;
        let fresh = all.tagged(1001, "ipv4", &packet)?;
        let changed = |byte: usize, bit: u8| {
            let mut all = fresh.clone();
            all.iter_mut().for_each(|message| message[byte] ^= bit);
            all
        };
        for byte in [16, 24, 40] {
            all.must_be_dropped("auth_failed", &changed(byte, 1))?;
        }
        all.must_be_dropped("xdp_session_unknown", &changed(4, 0x5a))?;
        // A site's message under the trunk's session.
        all.must_be_dropped("session_unknown", &changed(0, 0x10))?;

        let end = all.hub.balance()?;
        for (site, tap) in all.sites.iter().zip(&taps) {
            let expected = if site.plan.tenant == 1001 { TIMES } else { 0 };
            let got = end.of_site(site, "tx_packets")? - start.of_site(site, "tx_packets")?;
            ensure!(got == expected, "{} got {got} packets", site.label());
            ensure!(tap.count(|seen| !seen.outgoing)? == 0, "something arrived at {}", site.label());
        }

        // And back: what tenant 1001 sends there comes by the trunk, with its tag, and nothing of tenant 2002.
        while all.rogue.take(Duration::from_millis(50))?.is_some() {}
        let pings = ping(all.sites[1].namespace(), "10.9.7.1".parse()?, &["-c", "2", "-W", "5"])?;
        ensure!(pings.all(), "{}", pings.text);
        for (to, kind, tenant) in [("10.9.7.1", "ipv4", 1001), ("fd00:9:7::1", "ipv6", 1001)] {
            ping(all.sites[0].namespace(), to.parse()?, &["-c", "1", "-W", "1"])?;
            let Carried { tenant: by, kind: of, inner } =
                all.rogue.take(Duration::from_secs(5))?.with_context(|| format!("nothing came for {to}"))?;
            ensure!((by, &*of) == (tenant, kind), "{of} of tenant {by}: {inner:02x?}");
        }
        ensure!(all.rogue.take(Duration::from_millis(300))?.is_none(), "more came than was sent");
        all.hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_rogue_hub_gets_nothing_into_a_tenant_by_aes_256_gcm() -> Result<()> {
    a_rogue_hub(SUITES[0])
}

#[test]
fn a_rogue_hub_gets_nothing_into_a_tenant_by_chacha20_poly1305() -> Result<()> {
    a_rogue_hub(SUITES[1])
}

/// A hub that offers what is not configured gets no answer, and is told apart.
#[test]
fn handshakes_that_do_not_fit_have_their_reason() -> Result<()> {
    lab::test(|lab| {
        let mut all = WithRogue::new(lab, SUITES[0])?;
        let tap = Tap::open(&all.world.inet, "h0")?;
        let rogue = all.rogue.endpoint();
        let answers = |seen: &Seen| {
            message(&seen.bytes).is_some_and(|m| [0x12, 0x13].contains(&m.kind) && m.destination == rogue)
        };
        all.rogue.be(&all.world, CHACHA20, 0)?;
        let other_suite = (0..TIMES).map(|_| all.rogue.initiation()).collect::<Result<Vec<_>>>()?;
        all.must_be_dropped("handshake_suite", &other_suite)?;
        // Lane 1 does not exist, and this is not its port.
        all.rogue.be(&all.world, AES, 1)?;
        let other_lane = (0..TIMES).map(|_| all.rogue.initiation()).collect::<Result<Vec<_>>>()?;
        all.must_be_dropped("handshake_lane", &other_lane)?;
        ensure!(tap.count(answers)? == 0, "it was answered");
        let log = all.hub.process()?.log();
        ensure!(
            log.lines().any(|line| line.contains("rogue") && line.contains("aes-256-gcm") && line.contains("chacha20")),
            "no line names both suites"
        );

        // The right one works, and works once.
        all.rogue.be(&all.world, AES, 0)?;
        all.rogue.connect()?;
        tap.wait_for("answer", answers)?;
        // Two in less than 20 ms are one too many.
        std::thread::sleep(Duration::from_millis(30));
        let again = all.rogue.initiation()?;
        all.rogue.send(&again)?;
        tap.wait_for("answer", answers)?;
        all.must_be_dropped("handshake_replayed", &[again])?;
        ensure!(tap.count(answers)? == 0, "a replayed initiation was answered");
        all.hub.balance()?;
        Ok(())
    })
}

/// Two hubs that are configured with different ciphers: nothing gets through, and each says what it knows, as responder and as initiator.
#[test]
fn hubs_with_different_ciphers_say_so() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = Backbone::new(lab, 2)?;
        backbone.sites_everywhere(lab, &[1001])?;
        for (here, (cipher, _)) in (0..).zip(SUITES) {
            let lines = ekiden_testbed::backbone::trunk(&backbone.worlds[1 - here], 1 - here, cipher, false, "");
            backbone.settings[here].trunks.push(format!("{lines}tenants = \"all\"\nlanes = 1\n"));
            backbone.lead(1001, here, 1 - here, 1 - here, 100);
        }
        for hub in [0, 1] {
            backbone.start_hub(lab, hub)?;
        }
        // Longer than an initiator tries: 90 s.
        let end = Instant::now() + Duration::from_secs(150);
        let logs = [0, 1].map(|hub| lab.directory().join(format!("{}.log", backbone.worlds[hub].name)));
        let said = |text: &str| {
            let responder = |line: &str| line.contains("aes-256-gcm") && line.contains("chacha20-poly1305");
            let initiator = |line: &str| ["unreachable", "key", "cipher"].iter().all(|word| line.contains(word));
            (text.lines().any(responder), text.lines().any(initiator))
        };
        for log in &logs {
            loop {
                let found = said(&std::fs::read_to_string(log)?);
                if found == (true, true) {
                    break;
                }
                ensure!(Instant::now() < end, "{}: as responder, as initiator: {found:?}", log.display());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let pings = ping(a.namespace(), b.v4().into(), &["-c", "2", "-W", "1"])?;
        ensure!(pings.received == 0, "{}", pings.text);
        for hub in &backbone.hubs {
            let status = hub.status()?;
            ensure!(status.drops().get("handshake_suite") > Some(&2), "{:?}", status.drops());
            ensure!(status.lanes()?.iter().all(|(_, up)| !up), "{:?}", status.lanes()?);
        }
        Ok(())
    })
}

/// The pieces of a status that loops show in.
fn dropped(before: &[Status], hubs: &[Hub]) -> Result<Vec<BTreeMap<String, u64>>> {
    hubs.iter().zip(before).map(|(hub, before)| Ok(hub.status()?.drops_since(before))).collect()
}

/// Two hubs, each of which believes that a prefix is behind the other.
fn looped(lab: &mut lab::Lab, more: &str) -> Result<Backbone> {
    let mut backbone = two(lab, "aes-256-gcm", more)?;
    for hub in [0, 1] {
        let via = format!("{{ trunk = \"hub{}\" }}", 2 - hub);
        backbone.settings[hub].routes.push((1001, route("10.9.50.0/24", &via, 100)));
    }
    // Else the first hub, to which the packets of its own site come back, would not believe their source.
    backbone.settings[0].routes.push((1001, route("10.9.1.0/24", "{ trunk = \"hub2\" }", 200)));
    backbone.start(lab)?;
    must_ping(backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?.v4().into())?;
    Ok(backbone)
}

#[test]
fn a_loop_is_ended_by_split_horizon() -> Result<()> {
    lab::test(|lab| {
        let backbone = looped(lab, "")?;
        let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        ping(backbone.the_site(1001, 0)?.namespace(), "10.9.50.1".parse()?, &["-c", "5", "-i", "0.05", "-W", "1"])?;
        backbone.hubs[1].must_have_dropped(&before[1], &[("split_horizon", 5)])?;
        backbone.hubs[0].must_have_dropped(&before[0], &[])?;
        backbone.balance()
    })
}

#[test]
fn with_transit_a_loop_is_ended_by_the_last_hop() -> Result<()> {
    lab::test(|lab| {
        let backbone = looped(lab, "transit = true\n")?;
        let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        let a = backbone.the_site(1001, 0)?;
        let words = ["-c", "5", "-i", "0.05", "-W", "1", "-t", "32"];
        let pings = ping(a.namespace(), "10.9.50.1".parse()?, &words)?;
        ensure!(pings.received == 0, "{}", pings.text);
        // The first hub takes the 32nd hop off, the second the 31st and so on: the last one is found at the second.
        backbone.hubs[1].must_have_dropped(&before[1], &[("ttl_expired", 5)])?;
        backbone.balance()?;
        let all = dropped(&before, &backbone.hubs)?;
        ensure!(all[0].is_empty() && all[1].len() == 1, "{all:?}");
        // Each passed the trunk so often and no more; five more are the answers on their way back.
        let carried = |status: &Status| status.carried(1001, "hub2", "tx_packets").context("the trunk's end");
        let sent = carried(&backbone.hubs[0].status()?)? - carried(&before[0])?;
        ensure!(sent == 5 * 16, "{sent} packets went round");
        Ok(())
    })
}

/// Handshakes anew on all lanes, from either end, under load by all of them: not a packet is lost, and none overtakes another of its flow.
#[test]
fn rekeying_all_lanes_under_load_loses_nothing() -> Result<()> {
    const ROUNDS: usize = 5;
    lab::test(|lab| {
        let mut backbone = two(lab, "aes-256-gcm", "lanes = 4\n")?;
        backbone.start(lab)?;
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let mut loads = Vec::new();
        for flow in 0..8 {
            let (from, to) = if flow % 2 == 0 { (a, b) } else { (b, a) };
            loads.push(Load::with_port(from, to, 9100 + flow, 250, 200)?);
        }
        Load::must_flow(&loads, 100)?;
        let excused = backbone.without_room()?;
        let before = backbone.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        let note = |responses: &mut u64, seen: &Seen| {
            *responses += u64::from(message(&seen.bytes).is_some_and(|m| m.kind == 0x12));
        };
        let wire = Capture::start(Tap::open(&backbone.worlds[0].inet, "h0")?, 0, note);
        for round in 0..ROUNDS {
            for (hub, other) in backbone.hubs.iter().zip(["hub2", "hub1"]) {
                for lane in 0..4 {
                    let before = wire.look(|responses| *responses);
                    until_true("a handshake begins", || {
                        Ok(hub.change(&format!("/v1/trunks/{other}/{lane}/handshake"))?.contains(" 202 "))
                    })?;
                    until_true("it is answered", || Ok(wire.look(|responses| *responses) > before))
                        .with_context(|| format!("round {round}, lane {lane}"))?;
                }
            }
            Load::must_flow(&loads, 50)?;
        }
        let lost = Load::lost(&loads)?;
        let excused = backbone.without_room()? - excused;
        ensure!(
            lost.iter().sum::<u64>() <= excused,
            "lost of each flow: {lost:?}, {excused} by sites; {:?}",
            dropped(&before, &backbone.hubs)?
        );
        let late: Vec<u64> = loads.iter().map(Load::late).collect();
        ensure!(late.iter().all(|late| *late == 0), "late of each flow: {late:?}");
        backbone.must_agree()?;
        // All lanes had their part of it.
        for (hub, before) in backbone.hubs.iter().zip(&before) {
            let frames = |status: &Status, lane: usize| status.0["trunks"][0]["lanes"][lane]["rx_packets"].as_u64();
            let after = hub.balance()?;
            for lane in 0..4 {
                let more = frames(&after, lane).zip(frames(before, lane)).map(|(after, before)| after - before);
                ensure!(more > Some(20), "lane {lane}: {more:?}");
            }
        }
        Ok(())
    })
}

/// A trunk that is cut says nothing of it; when it is whole again, packets pass by themselves.
#[test]
fn a_trunk_is_cut_and_heals_under_tcp() -> Result<()> {
    lab::test(|lab| {
        let mut backbone = two(lab, "aes-256-gcm", "lanes = 2\n")?;
        backbone.start(lab)?;
        let (a, b) = (backbone.the_site(1001, 0)?, backbone.the_site(1001, 1)?);
        let transfer = Iperf::with_bitrate(a, b, b.v4().into(), (15, "4M"))?;
        let loads = [Load::start(a, b, 200, 200)?, Load::start(b, a, 200, 200)?];
        Load::must_flow(&loads, 100)?;
        backbone.cut(0, 1, None)?;
        for hub in &backbone.hubs {
            until_true("all lanes are down", || Ok(hub.status()?.lanes()?.iter().all(|(_, up)| !up)))?;
        }
        backbone.heal(0, 1, None)?;
        Load::must_flow(&loads, 200)?;
        backbone.await_trunks()?;
        let transfer = transfer.finish()?;
        ensure!(transfer.seconds.last() > Some(&0), "TCP did not go on: {transfer:?}");
        Load::lost(&loads)?;
        drop(loads);
        backbone.balance()
    })
}
