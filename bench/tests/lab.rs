//! The load lab and the hub agree to the packet.

use std::time::Duration;

use anyhow::{Result, ensure};
use crypto::aead::Cipher;
use ekiden_bench::lab::{Between, Kind, Load, Options, Plot, Rig, Running, Size};

/// Few enough for any machine that does other things as well.
const RATE: f64 = 2000.0;

/// What a hub of ours says: packets that it received, and that it sent.
fn counted(rig: &mut Rig) -> Result<(u64, u64)> {
    let Running::Ekiden(hub) = &rig.hub else { anyhow::bail!("a hub of ours") };
    let status = hub.balance()?;
    let port = |name: &str, field: &str| {
        let ports = status.0["ports"].as_array().into_iter().flatten();
        ports.filter(|port| port["name"] == name).filter_map(|port| port[field].as_u64()).sum::<u64>()
    };
    // A machine that is busy for a second makes a site begin its handshake again, and the hub refuses what comes too soon.
    let mut lost = status.drops();
    lost.retain(|reason, count| *count > 0 && !reason.starts_with("handshake_"));
    ensure!(lost.is_empty(), "{lost:?}");
    Ok((port("d0", "rx_frames"), port("d1", "tx_frames")))
}

#[test]
fn generator_hub_and_sink_agree_to_the_packet() -> Result<()> {
    let options = Options { pairs: 3, routes: 5, ..Options::default() };
    let mut rig = Rig::new(Kind::Ekiden, &Size::imix(), &options)?;
    for rekeys in [0, 2] {
        let before = counted(&mut rig)?;
        let plot = Plot { load: Load::Rate(RATE), time: Duration::from_millis(501), samples: 100, rekeys };
        let outcome = rig.trial(&plot)?;
        let after = counted(&mut rig)?;
        ensure!((outcome.sent, outcome.received) == (1002, 1002), "{outcome:?}");
        ensure!((outcome.late, outcome.losers, outcome.handshakes) == (0, (0, 0), 2 * rekeys), "{outcome:?}");
        // A third of them: each whose counter is a multiple of three.
        ensure!((325..=345).contains(&outcome.latency.len()), "{} samples", outcome.latency.len());
        // Whose time of departure is another's would have been under way since the machine was started, or for no time.
        let (least, most) = (outcome.latency.min(), outcome.latency.max());
        ensure!(least > 0 && most < 30_000_000_000, "{least} to {most} ns");
        // Beside what the generator sent, the hub has seen keepalives of the three sites at each end, and handshakes.
        let (came, went) = (after.0 - before.0, after.1 - before.1);
        ensure!((1002..1102).contains(&came), "{came} came to the hub");
        ensure!((1002..1102).contains(&went), "{went} left it");
    }
    Ok(())
}

#[test]
fn what_goes_by_a_trunk_comes_and_all_hubs_balance() -> Result<()> {
    let [chacha, aes] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
    for between in [Between::ToTrunk(aes), Between::FromTrunk(chacha), Between::Hubs(aes)] {
        let options = Options { flows: 10, between, ..Options::default() };
        let mut rig = Rig::new(Kind::Ekiden, &Size::imix(), &options)?;
        let plot = Plot { samples: 100, ..Plot::rate(RATE, Duration::from_millis(501)) };
        let outcome = rig.trial(&plot)?;
        let wire = rig.lost_after_the_hub()?;
        let mut drops = Vec::new();
        for hub in [Some(&rig.hub), rig.second.as_ref()].into_iter().flatten() {
            let Running::Ekiden(hub) = hub else { anyhow::bail!("a hub of ours") };
            drops.push(hub.balance()?.drops());
        }
        drops.iter_mut().for_each(|drops| drops.retain(|_, count| *count > 0));
        let lost = format!("dropped {drops:?}, {wire} by the wire to the sink");
        ensure!((outcome.sent, outcome.received) == (1002, 1002), "{between:?}: {outcome:?}; {lost}");
        // Of each lane as many came as flows take it.
        ensure!((outcome.late, outcome.losers) == (0, (0, 0)), "{between:?}: {outcome:?}");
        // Some were opened, with the number inside of the frame that left then.
        let (count, least) = (outcome.latency.len(), outcome.latency.min());
        ensure!(count >= 90 && least > 0, "{between:?}: {count} samples, {least} ns at least");
        for hub in [Some(&rig.hub), rig.second.as_ref()].into_iter().flatten() {
            let Running::Ekiden(hub) = hub else { anyhow::bail!("a hub of ours") };
            let status = hub.balance()?;
            let counted = |what: &str| status.carried(1000, "other", what).unwrap_or(0);
            ensure!(counted("tx_packets") + counted("rx_packets") == 1002, "{between:?}: {status:?}");
        }
    }
    Ok(())
}

#[test]
fn a_hub_that_is_offered_too_much_is_seen_to_lose() -> Result<()> {
    let mut rig = Rig::new(Kind::AfXdp, &Size::of(64), &Options::default())?;
    let outcome = rig.trial(&Plot { load: Load::Flood, time: Duration::from_secs(1), samples: 0, rekeys: 0 })?;
    ensure!(outcome.sent == 300_000 && outcome.received <= outcome.sent, "{outcome:?}");
    // Whoever counts what did not come, tunnel by tunnel, finds the same.
    ensure!(outcome.losers.1 == outcome.lost() && outcome.late == 0, "{outcome:?}");
    Ok(())
}
