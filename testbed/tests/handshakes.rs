//! Handshake messages that are not what they should be: old, copied, damaged, made up. None moves a site or gets an
//! answer; what is authentic and newer does.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use crypto::Tai64n;
use ekiden_testbed::attack::{Attacker, Kind, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::{First, Hub, Plan, Rogue, Seen, Site, World, lab};

/// Where the attacker claims to be.
const ELSEWHERE: &str = "198.51.100.7:4444";
/// Handshake messages that make a hub compute: more than it does while they come, so that it is under load. As many cookies
/// as they draw fit the ring of 256 at the far end of a veth.
const BURST: u64 = 150;

struct Scene {
    world: World,
    hub: Hub,
    attacker: Attacker,
    rogue: Rogue,
    sites: Vec<Site>,
    elsewhere: SocketAddr,
}

impl Scene {
    /// A hub, a site whose messages the attacker can have made to order, and a real one.
    fn new(lab: &mut lab::Lab) -> Result<Self> {
        let mut world = World::new(lab)?;
        let quiet = |name: &str, net| Plan { keepalive: 0, ..Plan::new(1001, name, net) };
        let mut sites = vec![Site::new(lab, &mut world, quiet("x", 1))?, Site::new(lab, &mut world, quiet("b", 2))?];
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        hub.start()?;
        sites[1].start()?;
        let rogue = Rogue::new(&sites[0])?;
        let attacker = Attacker::new(&world)?;
        Ok(Self { world, hub, attacker, rogue, sites, elsewhere: ELSEWHERE.parse()? })
    }

    fn endpoint(&self) -> Result<String> {
        let status = self.hub.status()?;
        Ok(status.site(&self.sites[0])?["endpoint"].as_str().unwrap_or_default().to_owned())
    }

    /// Sends these from elsewhere, and sees that they are dropped for this reason, and the site is where it was.
    fn refused(&self, datagrams: &[Vec<u8>], reason: &str) -> Result<()> {
        let endpoint = self.endpoint()?;
        let before = self.hub.status()?;
        for datagram in datagrams {
            self.attacker.repeat(&self.attacker.frame(self.elsewhere, datagram)?, 1)?;
        }
        self.hub.must_have_dropped(&before, &[(reason, datagrams.len() as u64)])?;
        ensure!(self.endpoint()? == endpoint, "{reason}: the site moved to {}", self.endpoint()?);
        Ok(())
    }

    /// What the hub has sent to where the attacker claims to be.
    fn answers(&self) -> Result<usize> {
        let to = |seen: &Seen| message(&seen.bytes).is_some_and(|m| !seen.outgoing && m.destination == self.elsewhere);
        self.attacker.wire.count(to)
    }

    /// An initiation of nonsense with the MAC1 that anybody can make.
    fn garbage(&self, fill: u8) -> Vec<u8> {
        let mut garbage = vec![fill; 148];
        garbage[..4].copy_from_slice(&[1, 0, 0, 0]);
        self.rogue.stamp(&mut garbage);
        garbage
    }

    /// Keeps the hub's control busy, and then sends this message, from here.
    fn under_load(&self, from: SocketAddr, datagram: &[u8]) -> Result<()> {
        let garbage = self.attacker.frame(self.elsewhere, &self.garbage(0x33))?;
        self.attacker.repeat(&garbage, BURST as usize)?;
        self.attacker.wire.send(&self.attacker.frame(from, datagram)?)
    }

    /// That since `before` as many handshake messages were refused, whether or not they got a cookie, and nothing else.
    fn refused_under_load(&self, before: &ekiden_testbed::Status, count: u64) -> Result<()> {
        let mut drops = Default::default();
        let sum = |drops: &std::collections::BTreeMap<String, u64>| {
            ["handshake_auth", "handshake_cookie_sent"].iter().filter_map(|reason| drops.get(*reason)).sum::<u64>()
        };
        let counted = until_true("the drops are counted", || {
            drops = self.hub.status()?.drops_since(before);
            Ok(sum(&drops) >= count)
        });
        let exact = sum(&drops) == count && drops.values().sum::<u64>() == count;
        ensure!(counted.is_ok() && exact && drops.contains_key("handshake_cookie_sent"), "{drops:?}, expected {count}");
        Ok(())
    }
}

/// The middle of an hour ago, by which all that is made in a test is newer.
fn past(seconds: u64) -> SystemTime {
    SystemTime::now() - Duration::from_secs(7200) + Duration::from_secs(seconds)
}

fn flipped(message: &[u8], at: usize) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at] ^= 1;
    message
}

#[test]
fn nothing_moves_a_site_but_what_is_authentic_and_newer() -> Result<()> {
    lab::test(|lab| {
        let mut scene = Scene::new(lab)?;
        let stamp = past(1000);
        let first = scene.rogue.initiation(stamp)?;
        scene.rogue.send(&first)?;
        scene.rogue.finish()?;
        scene.hub.await_sessions(&[&scene.sites[0], &scene.sites[1]])?;
        ensure!(scene.endpoint()? == scene.sites[0].endpoint().to_string());
        let live = scene.rogue.session()?.remote_index();

        // Authentic, and not newer: copied; made an hour before; made by the same tick of the clock.
        scene.refused(&vec![first.clone(); 5], "handshake_replayed")?;
        let older = [past(10), past(0), SystemTime::UNIX_EPOCH, stamp];
        let older = older.into_iter().map(|at| scene.rogue.initiation(at)).collect::<Result<Vec<_>>>()?;
        scene.refused(&older, "handshake_replayed")?;

        // Newer, and not as it was made.
        let newer = scene.rogue.initiation(past(2000))?;
        let damaged: Vec<_> = [4, 8, 39, 40, 87, 88, 115, 116, 131].map(|at| flipped(&newer, at)).into();
        scene.refused(&damaged, "handshake_mac1")?;
        let stamped = |at: usize| {
            let mut message = flipped(&newer, at);
            scene.rogue.stamp(&mut message);
            message
        };
        let mut nonsense: Vec<_> = [8, 39, 40, 87, 88, 115].map(stamped).into();
        nonsense.extend([0x00, 0x33, 0xff].map(|fill| scene.garbage(fill)));
        scene.refused(&nonsense, "handshake_auth")?;

        // Newer and whole, by a key that no site has.
        let stranger = Site::new(lab, &mut scene.world, Plan::new(1001, "stranger", 9))?;
        let unknown = Rogue::new(&stranger)?.initiation(SystemTime::now())?;
        scene.refused(&[unknown], "handshake_peer_unknown")?;

        // Indices that are guessed, and one that is right with nothing to show for it.
        let to = |kind: u8, index: u32, at: usize, len: usize| {
            let mut message = vec![0x33; len];
            message[..4].copy_from_slice(&[kind, 0, 0, 0]);
            message[at..at + 4].copy_from_slice(&index.to_le_bytes());
            message
        };
        let near = (0..100u32).map(|n| live ^ (1 << (8 + n % 24)) ^ n << 1).filter(|index| *index != live);
        let far = (1..100u32).map(|n| n.wrapping_mul(0x9e37_79b1)).filter(|index| *index != live);
        let guesses: Vec<u32> = near.chain(far).collect();
        scene.refused(&guesses.iter().map(|i| to(4, *i, 4, 96)).collect::<Vec<_>>(), "xdp_session_unknown")?;
        scene.refused(&guesses.iter().map(|i| to(2, *i, 8, 92)).collect::<Vec<_>>(), "xdp_session_unknown")?;
        scene.refused(&guesses.iter().map(|i| to(3, *i, 4, 64)).collect::<Vec<_>>(), "xdp_session_unknown")?;
        scene.refused(&[to(4, live, 4, 96)], "counter_limit")?;
        let mut data = to(4, live, 4, 96);
        data[8..16].copy_from_slice(&77u64.to_le_bytes());
        scene.refused(&[data], "auth_failed")?;
        scene.refused(&[to(2, live, 8, 92)], "xdp_session_unknown")?;
        scene.refused(&[to(3, live, 4, 64)], "handshake_auth")?;
        ensure!(scene.answers()? == 0, "the hub answered");

        // What is authentic and newer moves it, wherever it comes from; and so do its own data.
        scene.attacker.wire.send(&scene.attacker.frame(scene.elsewhere, &newer)?)?;
        until_true("the site moves", || Ok(scene.endpoint()? == ELSEWHERE))?;
        scene.rogue.send(&scene.rogue.seal(&[])?)?;
        until_true("the site is back", || Ok(scene.endpoint()? == scene.sites[0].endpoint().to_string()))?;
        scene.hub.balance()?;
        Ok(())
    })
}

#[test]
fn under_load_an_old_cookie_is_worth_nothing_and_a_new_one_opens_the_door() -> Result<()> {
    lab::test(|lab| {
        let mut scene = Scene::new(lab)?;
        scene.rogue.connect()?;
        scene.hub.await_sessions(&[&scene.sites[0], &scene.sites[1]])?;
        let own = scene.sites[0].endpoint();
        for life in 1..=2 {
            // In the second life of the hub, the first message has the cookie of the first.
            let before = scene.hub.status()?;
            let message = scene.rogue.renewed(SystemTime::now() + Duration::from_secs(10 * life))?;
            ensure!((message[132..] == [0; 16]) == (life == 1), "life {life}: MAC2 is {:x?}", &message[132..]);
            scene.under_load(own, &message)?;
            scene.refused_under_load(&before, BURST + 1)?;
            scene.rogue.take_cookie().with_context(|| format!("life {life}"))?;

            // The cookie is for this address and port alone, and for who has the site's key.
            let before = scene.hub.status()?;
            let message = scene.rogue.renewed(SystemTime::now() + Duration::from_secs(10 * life + 1))?;
            scene.under_load(scene.elsewhere, &message)?;
            scene.refused_under_load(&before, BURST + 1)?;
            ensure!(scene.endpoint()? == own.to_string());
            let before = scene.hub.status()?;
            scene.under_load(own, &message)?;
            scene.rogue.finish().with_context(|| format!("life {life}: the door stays shut"))?;
            scene.refused_under_load(&before, BURST)?;
            if life == 1 {
                scene.hub.balance()?;
                scene.hub.restart()?;
                scene.hub.await_sessions(&[&scene.sites[1]])?;
            }
        }
        scene.hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_response_that_nobody_asked_for_is_none() -> Result<()> {
    lab::test(|lab| {
        let mut world = World::new(lab)?;
        // The hub calls it from its start on, and nobody answers.
        let called = Plan { first: First::Hub, keepalive: 0, ..Plan::new(1001, "called", 1) };
        let mut sites = [Site::new(lab, &mut world, called)?, Site::new(lab, &mut world, Plan::new(1001, "b", 2))?];
        let mut hub = Hub::new(lab, &world, &Settings::default(), &sites.iter().collect::<Vec<_>>())?;
        let attacker = Attacker::new(&world)?;
        let rogue = Rogue::new(&sites[1])?;
        hub.start()?;
        let initiation = |seen: &Seen| {
            !seen.outgoing && message(&seen.bytes).is_some_and(|message| message.kind == Kind::Initiation as u8)
        };
        let called = attacker.wire.wait_for("call of the hub", initiation)?.bytes;
        let place = message(&called).context("it was recognised")?.place;
        let index = u32::from_le_bytes(called[place.start + 4..place.start + 8].try_into()?);
        let response = |index: u32, stamped: bool| -> Result<Vec<u8>> {
            let mut response = vec![0x33; 92];
            response[..4].copy_from_slice(&[2, 0, 0, 0]);
            response[8..12].copy_from_slice(&index.to_le_bytes());
            if stamped {
                rogue.stamp(&mut response);
            }
            attacker.frame(ELSEWHERE.parse()?, &response)
        };
        let before = hub.status()?;
        for (index, stamped) in [(index, false), (index, true), (index ^ 0x100, true), (index.swap_bytes() | 1, true)] {
            attacker.wire.send(&response(index, stamped)?)?;
        }
        let expected = [("handshake_mac1", 1), ("handshake_auth", 1), ("xdp_session_unknown", 2)];
        hub.must_have_dropped(&before, &expected)?;
        let status = hub.status()?;
        ensure!(status.site(&sites[0])?["endpoint"] == sites[0].endpoint().to_string());
        ensure!(status.site(&sites[0])?["session"] == "handshake");

        // The true answer to the next call counts.
        drop(rogue);
        sites.iter_mut().try_for_each(Site::start)?;
        hub.await_sessions(&sites.iter().collect::<Vec<_>>())?;
        must_ping_both_ways(&sites[0], &sites[1])?;
        hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_killed_hub_takes_no_copied_initiation_for_a_move() -> Result<()> {
    lab::test(|lab| {
        let mut scene = Scene::new(lab)?;
        let at = |n: u64| SystemTime::now() + Duration::from_secs(n);
        scene.rogue.connect()?;
        scene.hub.await_sessions(&[&scene.sites[0]])?;
        scene.hub.restart()?; // so that its endpoint and time stamp are saved
        let copied = scene.rogue.initiation(at(10))?;
        scene.rogue.send(&copied)?;
        scene.rogue.finish()?;
        scene.hub.kill()?; // so that the newer one is not
        scene.hub.start()?;
        let own = scene.sites[0].endpoint();
        ensure!(scene.endpoint()? == own.to_string(), "{}", scene.endpoint()?);

        // Whether it is refused, or answered because nothing is known of it: it moves nobody.
        scene.answers()?;
        scene.attacker.wire.send(&scene.attacker.frame(scene.elsewhere, &copied)?)?;
        until_true("the copy is dealt with", || {
            Ok(scene.answers()? > 0 || scene.hub.status()?.drops().contains_key("handshake_replayed"))
        })?;
        ensure!(scene.endpoint()? == own.to_string(), "a copied initiation moved the site to {}", scene.endpoint()?);

        // The site itself moves by its handshake and the data that follows; from then on by its handshake alone.
        let moved = scene.rogue.move_to(&scene.sites[0], 40404)?;
        let newer = scene.rogue.initiation(at(20))?;
        scene.rogue.send(&newer)?;
        scene.rogue.finish()?;
        until_true("the site moves", || Ok(scene.endpoint()? == moved.to_string()))?;
        scene.refused(&[copied], "handshake_replayed")?;
        let newest = scene.rogue.initiation(at(30))?;
        scene.attacker.wire.send(&scene.attacker.frame(scene.elsewhere, &newest)?)?;
        until_true("the site moves again", || Ok(scene.endpoint()? == ELSEWHERE))?;
        scene.hub.balance()?;
        Ok(())
    })
}

#[test]
fn a_site_still_listens_to_a_hub_whose_clock_was_set_back() -> Result<()> {
    lab::test(|lab| {
        let mut scene = Scene::new(lab)?;
        scene.rogue.connect()?;
        scene.hub.await_sessions(&[&scene.sites[0]])?;
        scene.hub.stop()?;
        // What a hub has left behind whose clock was an hour ahead of the one that starts now.
        let path = lab.directory().join("state/lab/peers");
        let saved = std::fs::read_to_string(&path)?;
        let (head, rest) = saved.split_once('\n').context("a line")?;
        let mut head: serde_json::Value = serde_json::from_str(head)?;
        let sent = Tai64n::at((SystemTime::now() + Duration::from_secs(3600)).into());
        head["stamped"] = sent.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
        std::fs::write(&path, format!("{head}\n{rest}"))?;
        scene.hub.start()?;
        ensure!(scene.rogue.would_take(sent)?, "a site that has heard the former hub does not hear this one");
        Ok(())
    })
}
