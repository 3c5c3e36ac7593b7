//! A thousand tenants with the same prefixes, and sites that try everything: each packet's fate is foretold by a plain
//! model of what a hub should do, which shares no code with it, and no packet ends anywhere else.

mod attack;
mod model;

use attack::{Attack, Villains};
use crypto::aead::{OpenJob, TAG};
use ekiden_dataplane::mailbox::Event;
use ekiden_dataplane::packet::{BATCH, Batch, Packet, Verdict};
use ekiden_dataplane::rehearsal::Rehearsal;
use model::{Fate, Model};
use std::collections::HashSet;
use std::net::SocketAddr;
use wire::{DROP_REASONS, DropReason, PortIndex, SiteSlot, TenantSlot};

const TENANTS: usize = 1000;
/// Packets of one half; both halves run at the same time where there are two cores.
const HALF: u64 = 5_000_000;

#[test]
fn ten_million_packets_of_a_thousand_tenants_the_first_half() {
    rehearse(1, HALF);
}

#[test]
fn ten_million_packets_of_a_thousand_tenants_the_second_half() {
    rehearse(2, HALF);
}

/// What has to be counted in the end, as the model has it.
struct Books {
    received: u64,
    generated: u64,
    sent: u64,
    to_control: u64,
    keepalives: u64,
    /// By tenant; the last is the hub's, for what has no tenant.
    drops: Vec<[u64; DropReason::LIMIT]>,
    /// How often each attack was tried.
    tried: Vec<u64>,
}

fn rehearse(seed: u64, packets: u64) {
    let mut model = Model::new(TENANTS);
    let prefixes: Vec<Vec<Vec<&str>>> = model.prefixes();
    let mut hub = Rehearsal::new(&prefixes, 2 * BATCH as u32);
    for site in model.blocked_sites() {
        hub.journey.sites.at_mut(SiteSlot(site as u32)).way.out = Err(model::BLOCKED);
    }
    let mut villains = Villains::new(seed);
    let mut books = Books {
        received: 0,
        generated: 0,
        sent: 0,
        to_control: 0,
        keepalives: 0,
        drops: vec![[0; DropReason::LIMIT]; TENANTS + 1],
        tried: vec![0; Attack::ALL.len()],
    };
    // The next counter that each site must see of the hub: none is left out, none used twice.
    let mut counters = vec![0; hub.far.len()];
    while books.received < packets {
        // A millisecond a batch: buckets of ICMP empty and fill, and no session grows too old.
        hub.now.0 += 1_000_000;
        let tried: Vec<Attack> = (0..BATCH).map(|_| villains.choose()).collect();
        let played: Vec<_> = tried.iter().map(|attack| villains.play(*attack, &mut model, &hub)).collect();
        let fates: Vec<Fate> = played.iter().map(|(shot, _)| model.judge(shot, hub.now.0)).collect();
        model.settle();
        let mut batch = Batch::new();
        for (_, bytes) in &played {
            let mut frame = hub.journey.pool.pop().expect("a free chunk");
            frame.copy_from(bytes);
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        let now = hub.now;
        hub.journey.relay(&mut batch, now);
        for (((packet, fate), attack), (shot, _)) in batch.iter().zip(&fates).zip(&tried).zip(&played) {
            let verdict = (packet.verdict, packet.tenant.map(|tenant| tenant.index()));
            let expected = (verdict_of(fate), fate.tenant);
            assert_eq!(verdict, expected, "seed {seed}, packet {}, {attack:?}: {shot:x?}", books.received);
            books.tried[*attack as usize] += 1;
            books.enter(fate);
        }
        hub.journey.dispatch(&mut batch);
        let left = hub.leave();
        let delivered = fates.iter().filter_map(|fate| fate.delivered.as_ref());
        assert_eq!(left.len(), delivered.clone().count());
        for (frame, (site, packet)) in left.iter().zip(delivered) {
            arrived(&hub, frame, *site, packet, &mut counters[*site]);
        }
        let authentic = played.iter().zip(&fates).filter(|(_, fate)| fate.authentic);
        let seen: HashSet<(usize, SocketAddr)> = authentic.map(|((shot, _), _)| (shot.site, shot.from)).collect();
        for event in hub.events() {
            let Event::Moved { site, ends, .. } = event else { panic!("{event:?}") };
            let remote = ends.remote();
            assert!(seen.contains(&(site.index(), remote)), "{site:?} moved to {remote}, where it is not");
        }
        while let Some(parcel) = hub.control.parcel() {
            hub.control.recycle(parcel);
        }
    }
    books.agree(&hub);
}

/// What the model foretells, as the journey says it before anything leaves.
fn verdict_of(fate: &Fate) -> Verdict {
    match (fate.drops.last(), &fate.delivered) {
        (_, Some(_)) => Verdict::Transmit(PortIndex(0)),
        (Some(reason), None) => Verdict::Drop(*reason),
        (None, None) if fate.keepalive => Verdict::Keepalive,
        (None, None) => Verdict::Control,
    }
}

/// A frame that left the hub is for this site alone: its address, its index, its key, the next counter; and in it is this
/// packet, with nothing behind it but zeros.
fn arrived(hub: &Rehearsal, frame: &[u8], site: usize, packet: &model::Expected, counter: &mut u64) {
    let far = &hub.far[site];
    let SocketAddr::V4(remote) = far.remote else { panic!("an IPv4 underlay") };
    assert_eq!(&frame[30..34], remote.ip().octets(), "another site's address");
    assert_eq!(&frame[36..38], remote.port().to_be_bytes());
    assert_eq!(&frame[42..46], [4, 0, 0, 0]);
    assert_eq!(&frame[46..50], far.session.local_index().to_le_bytes(), "another site's index");
    assert_eq!(&frame[50..58], counter.to_le_bytes(), "a counter left out or used twice");
    let mut data = frame[58..].to_vec();
    let key = far.session.open_key();
    let mut job = [OpenJob { key, counter: *counter, aad: &[], data: &mut data, verified: false }];
    crypto::aead::single().open_batch(&mut job);
    assert!(job[0].verified, "another site's key");
    *counter += 1;
    packet.compare(&data[..data.len() - TAG]);
}

impl Books {
    fn enter(&mut self, fate: &Fate) {
        self.received += 1;
        self.generated += u64::from(fate.generated);
        self.sent += u64::from(fate.delivered.is_some());
        self.keepalives += u64::from(fate.keepalive);
        self.to_control += u64::from(fate.delivered.is_none() && fate.drops.is_empty() && !fate.keepalive);
        for reason in &fate.drops {
            self.drops[fate.tenant.unwrap_or(TENANTS)][*reason as usize] += 1;
        }
    }

    fn agree(&self, hub: &Rehearsal) {
        let rows = &hub.journey.rows;
        for reason in DROP_REASONS {
            assert_eq!(rows.hub.read(*reason).0, self.drops[TENANTS][*reason as usize], "{reason:?} of nobody");
            for tenant in 0..TENANTS {
                let counted = rows.tenant(TenantSlot(tenant as u32)).read(*reason).0;
                assert_eq!(counted, self.drops[tenant][*reason as usize], "{reason:?} of tenant {tenant}");
            }
        }
        let turns = (rows.turns.generated.read(), rows.turns.to_control.read(), rows.turns.keepalives.read());
        assert_eq!(turns, (self.generated, self.to_control, self.keepalives));
        let dropped: u64 = self.drops.iter().flatten().sum();
        let ended = self.sent + dropped + self.to_control + self.keepalives;
        assert_eq!(self.received + self.generated, ended, "the books");
        let (found, all) = hub.census();
        assert_eq!(found, all, "a chunk is lost");
        // The trial was one: each attack was tried, most packets of honest senders arrived, and each reason was met.
        assert!(self.tried.iter().all(|times| *times > self.received / 1000), "{:?}", self.tried);
        assert!(self.sent > self.received / 3, "{} of {} arrived", self.sent, self.received);
        let met = |reason: &DropReason| self.drops.iter().any(|row| row[*reason as usize] > 0);
        let missing: Vec<_> = model::REASONS.iter().filter(|reason| !met(reason)).collect();
        assert!(missing.is_empty(), "never met: {missing:?}");
    }
}
