//! Two tenants at one hub: one that talks within its contract, and one that floods its own tunnel as fast as the machine lets it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::attack::Attacker;
use crate::flood::{self, Flood};
use crate::hub::Settings;
use crate::rogue::{Rogue, udp};
use crate::{Hub, Plan, Site, World, lab};

/// Bytes of payload of each packet, the flood's too.
const PAYLOAD: usize = 64;
/// How long the last packets may take.
const LAST: Duration = Duration::from_secs(1);

/// A hub, and both tenants with a session for each of their two sites.
pub struct Fair {
    /// The hub.
    pub hub: Hub,
    world: World,
    /// The sites of the tenant that talks, then those of the one that floods.
    pub sites: Vec<Site>,
    speaker: Rogue,
    listener: Rogue,
    villain: Arc<Rogue>,
    /// It has a session and reads nothing.
    _sink: Rogue,
    /// Talks so far: what is late for one is none of the next.
    talks: AtomicU32,
}

/// What a tenant has got for what it sent.
#[derive(Debug, Default)]
pub struct Talk {
    /// Packets sent.
    pub sent: u32,
    /// From the call that sends a packet to the one that returns it at the other end, in their order.
    pub latency: Vec<Duration>,
}

impl Talk {
    /// What so many of a thousand packets took at the most.
    pub fn at(&self, per_mille: usize) -> Duration {
        let mut sorted = self.latency.clone();
        sorted.sort_unstable();
        sorted.get(sorted.len().saturating_sub(1) * per_mille / 1000).copied().unwrap_or_default()
    }
}

impl Fair {
    /// Tenant 1001 talks, and tenant 1002, which has the same addresses, floods.
    pub fn new(lab: &mut lab::Lab, settings: &Settings) -> Result<Self> {
        let mut world = World::new(lab)?;
        let plans = [(1001, "a", 1), (1001, "b", 2), (1002, "a", 1), (1002, "b", 2)];
        let sites = plans.map(|(tenant, name, net)| Site::new(lab, &mut world, Plan::new(tenant, name, net)));
        let sites = sites.into_iter().collect::<Result<Vec<_>>>()?;
        let all: Vec<&Site> = sites.iter().collect();
        let mut hub = Hub::new(lab, &world, settings, &all)?;
        hub.start()?;
        flood::widen(&world.inet, "h0")?;
        let mut rogues = Vec::new();
        for site in &sites {
            let mut rogue = Rogue::new(site)?;
            rogue.connect()?;
            rogues.push(rogue);
        }
        hub.await_sessions(&all)?;
        let [speaker, listener, villain, sink] = <[Rogue; 4]>::try_from(rogues).ok().context("four sites")?;
        Ok(Self {
            hub,
            world,
            sites,
            speaker,
            listener,
            villain: Arc::new(villain),
            _sink: sink,
            talks: AtomicU32::new(0),
        })
    }

    /// The flood begins: from one site of its tenant to the other, as fast as one thread can seal and send. It leaves the processor to
    /// whoever else has work, since on a small machine all ends of the lab share it.
    pub fn flood(&self) -> Result<Flood> {
        let ends: [SocketAddr; 2] = [2, 3].map(|site: usize| (self.sites[site].v4(), 9).into());
        let packet = udp(ends[0], ends[1], &[0; PAYLOAD])?;
        let attacker = Attacker::new(&self.world)?;
        let frame = attacker.frame(self.sites[2].endpoint(), &self.villain.seal(&packet)?)?;
        let mut begun = false;
        let next = flood::of_tunnel(self.villain.clone(), move || {
            if !std::mem::replace(&mut begun, true) {
                rustix::process::nice(19)?;
            }
            Ok(packet.clone())
        });
        Flood::start(&self.world.inet, "h0", &frame, next, None, None)
    }

    /// So many packets, one each `every`, from one site of the other tenant to its other.
    pub fn talk(&self, packets: u32, every: Duration) -> Result<Talk> {
        let (from, to) = ((self.sites[0].v4(), 9).into(), (self.sites[1].v4(), 9).into());
        let (speaker, listener) = (&self.speaker, &self.listener);
        let talk = self.talks.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let left: Vec<_> = (0..packets).map(|_| OnceLock::<Instant>::new()).collect();
        let latency = std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                let mut latency = Vec::new();
                let mut last = Instant::now();
                // Until all have come, or nothing more comes.
                while latency.len() < left.len()
                    && (last.elapsed() < LAST || left.last().is_some_and(|l| l.get().is_none()))
                {
                    let Some(packet) = listener.take(LAST / 10)? else { continue };
                    if packet.get(32..36) != Some(&talk) {
                        continue;
                    }
                    last = Instant::now();
                    let number = packet.get(28..32).and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
                    let sent = number.and_then(|number| left.get(number as usize)).context("a packet of ours")?;
                    latency.push(last - *sent.get().context("sent before it came")?);
                }
                anyhow::Ok(latency)
            });
            let begin = Instant::now();
            for number in 0..packets {
                let mut payload = [0; PAYLOAD];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                payload[4..8].copy_from_slice(&talk);
                let message = speaker.seal(&udp(from, to, &payload)?)?;
                std::thread::sleep((begin + number * every).saturating_duration_since(Instant::now()));
                let _ = left[number as usize].set(Instant::now());
                speaker.send(&message)?;
            }
            listening.join().map_err(|_| anyhow::anyhow!("the listener panicked"))?
        })?;
        Ok(Talk { sent: packets, latency })
    }
}
