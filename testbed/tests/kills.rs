//! The hub is killed, again and again, under load.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ekiden_testbed::attack::{Kind, is_tunnel, message};
use ekiden_testbed::hub::Settings;
use ekiden_testbed::load::MARK;
use ekiden_testbed::probe::must_ping_both_ways;
use ekiden_testbed::wait::until_true;
use ekiden_testbed::world::HUB_PORT;
use ekiden_testbed::{Capture, Dice, Hub, Load, Outside, Plan, Seen, Site, Tap, World, lab};

const KILLS: usize = 50;

/// What must not be seen, and how much was looked at.
#[derive(Debug, Default)]
struct Leaks {
    frames: u64,
    /// Frames of a tunnel that came to the kernel.
    tunnel: u64,
    /// Frames with an inner packet in clear.
    inner: u64,
}

impl Leaks {
    fn note(&mut self, seen: &Seen) {
        self.frames += 1;
        self.tunnel += u64::from(!seen.outgoing && is_tunnel(seen));
        self.inner += u64::from(seen.contains(MARK));
    }
}

/// What the hub has sent, as the wire saw it.
///
/// A key belongs to one session, and a session has one receiver index at its receiver. So if no (receiver, index, counter)
/// comes twice, no (key, nonce) does. Two sessions could have one key only if both ends repeated their ephemeral keys;
/// the hub's are in clear in its handshake messages, and none comes twice either.
#[derive(Debug, Default)]
struct Sealed {
    counters: HashSet<(SocketAddr, u32, u64)>,
    sessions: HashSet<(SocketAddr, u32)>,
    ephemerals: HashSet<[u8; 32]>,
    repeated: Vec<String>,
    inner: u64,
}

impl Sealed {
    fn note(&mut self, seen: &Seen) {
        self.inner += u64::from(seen.contains(MARK));
        let Some(message) = message(&seen.bytes).filter(|m| m.source.port() == HUB_PORT && !seen.outgoing) else {
            return;
        };
        let bytes = &seen.bytes[message.place];
        let word = |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map(u32::from_le_bytes);
        let new = match message.kind {
            kind if kind == Kind::Data as u8 => {
                let (Some(index), Some(low), Some(high)) = (word(4), word(8), word(12)) else { return };
                self.sessions.insert((message.destination, index));
                self.counters.insert((message.destination, index, u64::from(high) << 32 | u64::from(low)))
            }
            kind if kind == Kind::Initiation as u8 => self.ephemeral(bytes, 8),
            kind if kind == Kind::Response as u8 => self.ephemeral(bytes, 12),
            _ => true,
        };
        if !new {
            self.repeated.push(format!("to {}: {:02x?}", message.destination, &bytes[..16]));
        }
    }

    fn ephemeral(&mut self, bytes: &[u8], at: usize) -> bool {
        bytes.get(at..at + 32).and_then(|key| key.try_into().ok()).is_none_or(|key| self.ephemerals.insert(key))
    }
}

#[test]
fn fifty_kills_under_load_leak_nothing_and_repeat_no_nonce() -> Result<()> {
    lab::test(|lab| {
        let mut dice = Dice::new();
        let mut world = World::new(lab)?;
        let mut sites = vec![
            Site::new(lab, &mut world, Plan::new(1001, "a", 1))?,
            Site::new(lab, &mut world, Plan { outside: Outside::V6, ..Plan::new(1001, "b", 2) })?,
            // Another tenant, with the same addresses as the one that talks.
            Site::new(lab, &mut world, Plan::new(2002, "b", 2))?,
        ];
        let mut hub = Hub::with_sites(lab, &world, &Settings::default(), &mut sites)?;
        let (a, b, stranger) = (&sites[0], &sites[1], &sites[2]);
        must_ping_both_ways(a, b)?;
        // An ordinary end writes down where the sites are; without it, they would first have to notice.
        hub.restart()?;

        let kernel = Capture::start(Tap::everywhere(&world.hub)?, Leaks::default(), Leaks::note);
        let other =
            Capture::start(Tap::open(stranger.namespace(), &stranger.interface)?, Leaks::default(), Leaks::note);
        let inside = Capture::start(Tap::open(b.namespace(), &b.interface)?, Leaks::default(), Leaks::note);
        let wire = Capture::start(Tap::open(&world.inet, "h0")?, Sealed::default(), Sealed::note);
        let there = Load::start(a, b, 2000, 200)?;
        let back = Load::start(b, a, 2000, 200)?;
        let (mut early, mut last) = (0, None);
        for kill in 1..=KILLS {
            // Some do not live until they are ready.
            if dice.per_mille(200) {
                hub.kill()?;
                hub.spawn()?;
                std::thread::sleep(Duration::from_millis(dice.within(0..300)));
                early += 1;
            }
            hub.kill()?;
            hub.start()?;
            let before = [there.received(), back.received()];
            until_true(&format!("after kill {kill} the sites are back by themselves"), || {
                Ok(there.received() > before[0] + 20 && back.received() > before[1] + 20)
            })?;
            for (name, leaks) in [("the hub's kernel", &kernel), ("the other tenant", &other)] {
                leaks.look(|leaks| {
                    ensure!(leaks.tunnel == 0 && leaks.inner == 0, "after kill {kill}, in {name}: {leaks:?}");
                    Ok(())
                })?;
            }
            wire.look(|sealed| {
                ensure!(sealed.repeated.is_empty(), "after kill {kill}, used twice: {:?}", sealed.repeated);
                ensure!(sealed.inner == 0, "after kill {kill}, {} inner packets in clear", sealed.inner);
                Ok(())
            })?;
            // At rest, every chunk is found and every packet accounted for.
            [&there, &back].into_iter().for_each(|load| load.hold(true));
            let status = hub.balance().with_context(|| format!("after kill {kill}"))?;
            [&there, &back].into_iter().for_each(|load| load.hold(false));
            let expected =
                ["xdp_session_unknown", "xdp_no_socket", "tx_ring_full", "next_hop_unresolved", "staged_overflow"];
            let drops = status.drops();
            ensure!(drops.keys().all(|reason| expected.contains(&&**reason)), "after kill {kill}: {drops:?}");
            last = Some(status);
            std::thread::sleep(Duration::from_millis(dice.within(0..400)));
        }
        let status = last.context("there were kills")?;
        ensure!(status.site(stranger)?["session"] == "live", "{}", status.site(stranger)?);

        // That each of them would have seen it.
        ensure!(
            inside.look(|seen| seen.inner) > 1000,
            "inner packets pass where they may: {:?}",
            inside.look(|s| s.inner)
        );
        let copied = hub_data(&world)?;
        wire.look(|sealed| {
            eprintln!(
                "{KILLS} kills and {early} more before the hub was ready: {} sealed packets in {} sessions, {} ephemeral keys",
                sealed.counters.len(),
                sealed.sessions.len(),
                sealed.ephemerals.len()
            );
            ensure!(sealed.sessions.len() >= 2 * KILLS, "{} sessions", sealed.sessions.len());
            sealed.note(&copied);
            sealed.note(&copied);
            ensure!(!sealed.repeated.is_empty(), "a repeated packet is not noticed");
            Ok(())
        })?;
        hub.kill()?;
        hub.detach()?;
        until_true("detached, the port is the kernel's, and it is noticed", || {
            Ok(kernel.look(|leaks| leaks.tunnel > 100))
        })?;
        drop((there, back));
        [kernel, other, inside].into_iter().try_for_each(Capture::finish)?;
        wire.finish()
    })
}

/// A sealed packet on its way from the hub to a site.
fn hub_data(world: &World) -> Result<Seen> {
    Tap::open(&world.inet, "h0")?.wait_for("sealed packet from the hub", |seen| {
        !seen.outgoing
            && message(&seen.bytes).is_some_and(|m| m.source.port() == HUB_PORT && m.kind == Kind::Data as u8)
    })
}
