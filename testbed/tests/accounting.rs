//! Exact accounting: so many frames with so many bytes down each path, and what the segment, its history, the exporter and the
//! status say of them is what was sent and what the far side counted.

#[allow(dead_code, reason = "only a part of it is needed here")]
mod scrape;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use ekiden_testbed::hub::{NAME, Settings};
use ekiden_testbed::lab::Lab;
use ekiden_testbed::rogue::udp;
use ekiden_testbed::wait::{PATIENCE, until, until_true};
use ekiden_testbed::world::HUB_V4;
use ekiden_testbed::{First, Hub, Outside, Plan, Rogue, Seen, Site, Status, Tap, World, attack, lab};
use scrape::{exporter, scrape};
use stats::{Reader, Series, Snapshot};

/// Ethernet, IPv4 and UDP headers before a message.
const OUTER: u64 = 14 + 20 + 8;

/// Packets and bytes by reason.
type Drops = BTreeMap<String, (u64, u64)>;

/// What was sent, and so must be found.
#[derive(Default)]
struct Expected {
    drops: Drops,
    /// Of these, what could be told to the tenant: packets.
    of_tenant: BTreeMap<String, u64>,
    /// Accepted from the attacker's site.
    accepted: (u64, u64),
    /// ICMP answers, by type and code.
    answers: BTreeMap<(u8, u8), u64>,
    /// Packets from `b`.
    echoes: u64,
}

impl Expected {
    fn drop(&mut self, reason: &str, datagrams: &[Vec<u8>]) {
        let bytes: u64 = datagrams.iter().map(|datagram| OUTER + datagram.len() as u64).sum();
        let row = self.drops.entry(reason.to_owned()).or_default();
        *row = (row.0 + datagrams.len() as u64, row.1 + bytes);
        // Of handshakes, and of what XDP drops, nobody knows whose they were.
        if !reason.starts_with("xdp") && !reason.starts_with("handshake") {
            *self.of_tenant.entry(reason.to_owned()).or_default() += datagrams.len() as u64;
        }
    }
}

/// A site in the hands of a program that knows what it sends, and what became of it.
struct Sender {
    rogue: Rogue,
    expected: Expected,
    received: Vec<Vec<u8>>,
}

impl Sender {
    fn send(&self, datagrams: &[Vec<u8>]) -> Result<()> {
        datagrams.iter().try_for_each(|datagram| self.rogue.send(datagram))
    }

    /// These packets, all dropped for this reason.
    fn packets(&mut self, reason: &str, accepted: bool, packet: &[u8], count: usize) -> Result<()> {
        let sealed = (0..count).map(|_| self.rogue.seal(packet)).collect::<Result<Vec<_>>>()?;
        if accepted {
            self.accepted(packet, count);
        }
        self.messages(reason, &sealed)
    }

    fn messages(&mut self, reason: &str, datagrams: &[Vec<u8>]) -> Result<()> {
        self.expected.drop(reason, datagrams);
        self.send(datagrams)
    }

    fn accepted(&mut self, packet: &[u8], count: usize) {
        let sum = &mut self.expected.accepted;
        *sum = (sum.0 + count as u64, sum.1 + (count * packet.len()) as u64);
    }

    /// What came back so far, each packet as long as its header says.
    fn receive(&mut self) -> Result<()> {
        for mut packet in self.rogue.received()? {
            packet.truncate(usize::from(u16::from_be_bytes([packet[2], packet[3]])));
            self.received.push(packet);
        }
        Ok(())
    }

    /// ICMP of the hub's, by type and code.
    fn answers(&self) -> BTreeMap<(u8, u8), u64> {
        let mut answers = BTreeMap::new();
        for packet in self.received.iter().filter(|packet| packet[12..16] == [192, 0, 0, 8]) {
            *answers.entry((packet[20], packet[21])).or_default() += 1;
        }
        answers
    }
}

/// Packets of the site `x` to nowhere, to `b`, which is real, and to `c`, which nobody ever heard of.
fn one_of_each(sender: &mut Sender, b: &Site, echo: &UdpSocket) -> Result<()> {
    let at = |address: [u8; 4]| SocketAddr::new(Ipv4Addr::from(address).into(), 9);
    let x = at([10, 9, 1, 1]);
    let packet = |to: [u8; 4], len: usize| udp(x, at(to), &vec![0x5a; len - 28]);
    sender.packets("source_not_allowed", false, &udp(at([10, 9, 77, 1]), at([10, 9, 2, 1]), &[1; 33])?, 5)?;
    sender.packets("martian", false, &packet([224, 0, 0, 1], 60)?, 3)?;
    sender.packets("inner_malformed", false, &[0; 41], 4)?;
    sender.packets("no_route", true, &packet([10, 9, 99, 1], 528)?, 7)?;
    sender.packets("site_no_endpoint", true, &packet([10, 9, 3, 1], 77)?, 2)?;
    let mut last_hop = packet([10, 9, 2, 1], 100)?;
    last_hop[8] = 1;
    let sum = u16::from_be_bytes([last_hop[10], last_hop[11]]);
    // The checksum of a header whose TTL is 63 less (RFC 1624).
    let sum = !(u32::from(!sum) + u32::from(!(64u16 << 8)) + (1 << 8));
    last_hop[10..12].copy_from_slice(&folded(sum).to_be_bytes());
    sender.packets("ttl_expired", true, &last_hop, 6)?;
    *sender.expected.answers.entry((11, 0)).or_default() += 6;
    // The way to `b` is over IPv6 and takes 1,420.
    sender.packets("too_large", true, &packet([10, 9, 2, 1], 1424)?, 5)?;
    *sender.expected.answers.entry((3, 4)).or_default() += 5;

    let sealed = |sender: &Sender| sender.rogue.seal(&packet([10, 9, 2, 1], 64)?);
    let mut forged = (0..8).map(|_| sealed(sender)).collect::<Result<Vec<_>>>()?;
    forged.iter_mut().for_each(|message| *message.last_mut().expect("it has a tag") ^= 1);
    sender.messages("auth_failed", &forged)?;
    let keepalive = sender.rogue.seal(&[])?;
    sender.send(std::slice::from_ref(&keepalive))?;
    sender.messages("counter_replayed", &vec![keepalive; 9])?;
    let mut unknown = sealed(sender)?;
    unknown[7] ^= 0x5a;
    sender.messages("xdp_session_unknown", &vec![unknown; 11])?;
    sender.messages("xdp_not_wireguard", &vec![b"GET / HTTP/1.1\r\nHost: hub.example.net\r\n\r\n".to_vec(); 12])?;

    // And what arrives is answered: by half of it.
    let mut bytes = [0; 2048];
    for len in [300, 1200] {
        let packet = udp(x, SocketAddr::new(b.v4().into(), 9), &vec![7; len - 28])?;
        for _ in 0..10 {
            sender.rogue.send(&sender.rogue.seal(&packet)?)?;
            let (len, from) = echo.recv_from(&mut bytes).context("nothing arrived")?;
            echo.send_to(&bytes[..len / 2], from)?;
        }
        sender.accepted(&packet, 10);
    }
    sender.expected.echoes += 20;
    Ok(())
}

fn folded(sum: u32) -> u16 {
    let sum = !sum;
    let sum = (sum & 0xffff) + (sum >> 16);
    !((sum & 0xffff) + (sum >> 16)) as u16
}

/// Handshake messages that are refused, each for its own reason, and one that is not.
fn handshakes(hub: &Hub, sender: &mut Sender, begun: Instant) -> Result<()> {
    let mut garbage = vec![0x11; 148];
    garbage[..4].copy_from_slice(&[1, 0, 0, 0]);
    sender.messages("handshake_mac1", &vec![garbage.clone(); 2])?;
    sender.rogue.stamp(&mut garbage);
    sender.messages("handshake_auth", &vec![garbage; 3])?;
    // A site may begin once in 20 ms, and by a later stamp of a clock that steps by 17: it has begun once already.
    until_true("it may begin again", || Ok(begun.elapsed() > Duration::from_millis(100)))?;
    let initiation = sender.rogue.initiation(SystemTime::now())?;
    sender.rogue.send(&initiation)?;
    sender.rogue.finish()?;
    let before = hub.status()?;
    sender.messages("handshake_replayed", &[initiation])?;
    hub.must_have_dropped(&before, &[("handshake_replayed", 1)])
}

fn of_snapshot(snapshot: &Snapshot) -> Drops {
    snapshot.drops.iter().map(|drop| (drop.name.clone(), (drop.packets, drop.bytes))).collect()
}

fn of_status(status: &Status) -> Result<Drops> {
    let rows = status.0["drops"].as_array().context("drops")?.iter();
    rows.map(|row| {
        let number = |name: &str| row[name].as_u64().with_context(|| format!("{name} of {row}"));
        Ok((row["reason"].as_str().context("a reason")?.to_owned(), (number("packets")?, number("bytes")?)))
    })
    .collect()
}

fn of_scrape(scraped: &BTreeMap<String, f64>) -> Drops {
    let value = |name: &str, reason: &str| scraped[&format!(r#"ekiden_{name}_total{{reason="{reason}"}}"#)] as u64;
    let reasons =
        scraped.keys().filter_map(|name| name.strip_prefix(r#"ekiden_drops_total{reason=""#)?.split('"').next());
    reasons.map(|reason| (reason.to_owned(), (value("drops", reason), value("drop_bytes", reason)))).collect()
}

/// What was counted since; reasons for which nothing was are left out.
fn since(before: &Drops, after: Drops) -> Drops {
    let more = after.into_iter().map(|(reason, (packets, bytes))| {
        let was = before.get(&reason).copied().unwrap_or_default();
        (reason, (packets - was.0, bytes - was.1))
    });
    more.filter(|(_, moved)| *moved != (0, 0)).collect()
}

fn site<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a stats::Site> {
    snapshot.sites.iter().find(|site| site.name == name).with_context(|| format!("no site {name}"))
}

/// Packets and bytes of a site since `before`, received and sent, as every place has them.
fn moved(before: &Snapshot, after: &Snapshot, name: &str) -> Result<[(u64, u64); 2]> {
    let (before, after) = (site(before, name)?.traffic, site(after, name)?.traffic);
    Ok([
        (after.rx_packets - before.rx_packets, after.rx_bytes - before.rx_bytes),
        (after.tx_packets - before.tx_packets, after.tx_bytes - before.tx_bytes),
    ])
}

fn exact(lab: &mut Lab, workers: usize) -> Result<()> {
    let mut world = World::with_queues(lab, workers as u32)?;
    let plan = |name: &str, net| Plan { keepalive: 0, ..Plan::new(1001, name, net) };
    let mut sites = [
        Site::new(lab, &mut world, plan("x", 1))?,
        Site::new(lab, &mut world, Plan { outside: Outside::V6, ..plan("b", 2) })?,
        Site::new(lab, &mut world, plan("c", 3))?,
        // The hub calls it, and nobody is there.
        Site::new(lab, &mut world, Plan { first: First::Both, ..plan("d", 4) })?,
    ];
    let calls = Tap::open(sites[3].namespace(), "w0")?;
    let settings = Settings { cores: Some((0..workers).collect()), ..Settings::default() };
    let mut hub = Hub::new(lab, &world, &settings, &sites.iter().collect::<Vec<_>>())?;
    hub.start()?;
    sites[1].start()?;
    hub.await_sessions(&[&sites[1]])?;
    let _exporter = exporter(lab, &world.hub, &["--hub", NAME])?;
    let (x, b) = (&sites[0], &sites[1]);
    let mut sender = Sender { rogue: Rogue::new(x)?, expected: Expected::default(), received: Vec::new() };
    sender.rogue.connect()?;
    let begun = Instant::now();
    until_true("the attacker's session is confirmed", || Ok(hub.status()?.site(x)?["session"] == "live"))?;

    let status_before = hub.balance()?;
    let mut reader = Reader::open(&lab.directory().join("run/lab/stats"))?;
    let before = reader.snapshot()?;
    let scraped_before = of_scrape(&scrape(&world.hub)?);
    ensure!(scraped_before == of_snapshot(&before), "{scraped_before:?}, but {:?}", before.drops);
    let tap = Tap::open(b.namespace(), &b.interface)?;
    let address = (b.v4(), 9);
    let echo = b.namespace().inside(|| UdpSocket::bind(address))??;
    echo.set_read_timeout(Some(PATIENCE))?;

    handshakes(&hub, &mut sender, begun)?;
    // From several ports, until each worker has its part: which one has a port, its flow's hash decides.
    let mut rounds = 0;
    let idle = |after: &Snapshot| {
        let pairs = before.workers.iter().zip(&after.workers);
        pairs
            .filter(|(before, after)| after.frames - before.frames < 50)
            .map(|(worker, _)| worker.slot)
            .collect::<Vec<_>>()
    };
    for port in 40_001..40_025 {
        if rounds >= 4 && idle(&reader.snapshot()?).is_empty() {
            break;
        }
        rounds += 1;
        let here = sender.rogue.move_to(x, port)?.to_string();
        sender.rogue.send(&sender.rogue.seal(&[])?)?;
        until_true("the hub answers there", || Ok(hub.status()?.site(x)?["endpoint"] == here))?;
        one_of_each(&mut sender, b, &echo)?;
        until_true("all answers came", || {
            sender.receive()?;
            let from_b = sender.received.len() as u64 - sender.answers().values().sum::<u64>();
            Ok(sender.answers() == sender.expected.answers && from_b == sender.expected.echoes)
        })
        .with_context(|| {
            let (got, dropped) = (sender.answers(), hub.status().map(|status| status.drops()));
            format!("{got:?} instead of {:?}, {dropped:?}", sender.expected.answers)
        })?;
    }
    hub.balance()?;
    let expected = &sender.expected;

    // Nothing but what was to be dropped was dropped, for its reason, to the byte; in each place.
    let status = hub.status()?;
    let after = reader.snapshot()?;
    ensure!(
        since(&of_snapshot(&before), of_snapshot(&after)) == expected.drops,
        "{:?}\n{:?}",
        since(&of_snapshot(&before), of_snapshot(&after)),
        expected.drops
    );
    let told = since(&of_status(&status_before)?, of_status(&status)?);
    ensure!(told == expected.drops, "the status: {told:?}\n{:?}", expected.drops);
    let scraped = scrape(&world.hub)?;
    let told = since(&scraped_before, of_scrape(&scraped));
    ensure!(told == expected.drops, "the exporter: {told:?}\n{:?}", expected.drops);
    for drop in after.drops.iter().filter(|drop| expected.drops.contains_key(&drop.name)) {
        until(&format!("the history of {}", drop.name), || {
            let last = reader.history(Series::Drop(drop.number), 0)?.records.last().copied();
            Ok(last.filter(|last| (last.rx_packets, last.rx_bytes) == (drop.packets, drop.bytes)))
        })?;
    }
    for (reason, packets) in &expected.of_tenant {
        let of = format!(r#"ekiden_tenant_drops_total{{tenant="WAN00001001",reason="{reason}"}}"#);
        let told = (status.0["tenants"][0]["drops"][reason].as_u64(), scraped.get(&of).map(|told| *told as u64));
        ensure!(told == (Some(*packets), Some(*packets)), "{reason} of the tenant: {told:?}, expected {packets}");
    }
    let of_tenant: u64 = after.tenants[0].drops.iter().map(|(_, packets, _)| packets).sum();
    ensure!(of_tenant == expected.of_tenant.values().sum::<u64>(), "{:?}", after.tenants[0].drops);

    // What each site sent and got.
    let bytes = |packets: &[Vec<u8>]| packets.iter().map(|packet| packet.len() as u64).sum::<u64>();
    let got = (sender.received.len() as u64, bytes(&sender.received));
    ensure!(moved(&before, &after, "x")? == [expected.accepted, got], "{:?}, {got:?}", expected.accepted);
    // Its kernel also calls for routers, by IPv6, which the client has no peer for.
    let packets = tap.drain()?.into_iter().filter(|seen| seen.bytes[0] >> 4 == 4);
    let (out, came): (Vec<Seen>, Vec<Seen>) = packets.partition(|seen| seen.outgoing);
    let volume = |all: &[Seen]| (all.len() as u64, all.iter().map(|seen| seen.bytes.len() as u64).sum::<u64>());
    let seen = [volume(&out), volume(&came)];
    ensure!(moved(&before, &after, "b")? == seen, "{:?} instead of {seen:?}", moved(&before, &after, "b")?);
    ensure!(volume(&came) == (20 * rounds, 10 * (300 + 1200) * rounds), "{:?}", volume(&came));
    for found in [x, b] {
        let traffic = site(&after, &found.plan.name)?.traffic;
        for (metric, field, value) in [
            ("receive_packets", "rx_packets", traffic.rx_packets),
            ("receive_bytes", "rx_bytes", traffic.rx_bytes),
            ("transmit_packets", "tx_packets", traffic.tx_packets),
            ("transmit_bytes", "tx_bytes", traffic.tx_bytes),
        ] {
            let name = format!(r#"ekiden_site_{metric}_total{{tenant="WAN00001001",site="{}"}}"#, found.plan.name);
            ensure!(scraped.get(&name) == Some(&(value as f64)), "{name}: {:?}, but {value}", scraped.get(&name));
            ensure!(status.of_site(found, field)? == value, "{field}: {status:?}, but {value}");
        }
    }

    // Handshakes by what became of them: two of the attacker's and one of `b`'s were completed, all begun by the sites; and the hub's own
    // calls are those that were heard where they went.
    let hub_now = || Ok::<_, anyhow::Error>(Reader::open(&lab.directory().join("run/lab/stats"))?.snapshot()?.hub);
    ensure!(site(&after, "x")?.handshakes == 2, "{:?}", site(&after, "x")?);
    let (answered, completed) = (after.hub.handshakes_answered, after.hub.handshakes_completed);
    ensure!(answered == completed && completed == 2 + site(&after, "b")?.handshakes, "{:?}", after.hub);
    let mut heard = 0;
    until("as many calls were heard as were made", || {
        heard += calls.count(|seen| {
            let message = attack::message(&seen.bytes);
            message.is_some_and(|m| m.source.ip() == IpAddr::from(HUB_V4) && m.kind == attack::Kind::Initiation as u8)
        })? as u64;
        let (hub, scraped) = (hub_now()?, scrape(&world.hub)?);
        let told = [
            ("ekiden_handshakes_begun_total", hub.handshakes_begun),
            ("ekiden_handshakes_answered_total", hub.handshakes_answered),
            (r#"ekiden_handshakes_total{result="completed"}"#, hub.handshakes_completed),
            (r#"ekiden_handshakes_total{result="given_up"}"#, hub.handshakes_given_up),
            ("ekiden_handshake_cookies_sent_total", hub.cookies_sent),
        ];
        let same = told.iter().all(|(name, value)| scraped.get(*name) == Some(&(*value as f64)));
        Ok((same && heard == hub.handshakes_begun && heard > 0).then_some(()))
    })?;

    ensure!(idle(&after).is_empty(), "workers with nothing to count: {:?}", idle(&after));
    Ok(())
}

#[test]
fn one_worker_counts_every_path_exactly() -> Result<()> {
    lab::test(|lab| exact(lab, 1))
}

#[test]
fn two_workers_count_every_path_exactly() -> Result<()> {
    lab::test(|lab| exact(lab, 2))
}
