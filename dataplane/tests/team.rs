//! One session's packets carried by two threads: all arrive, in their order, each once, and the books of both balance.

use std::sync::atomic::{AtomicBool, Ordering};

use crypto::Time;
use ekiden_dataplane::mailbox::Bell;
use ekiden_dataplane::packet::{BATCH, Packet};
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4};
use ekiden_dataplane::sites::Sites;
use ekiden_dataplane::team::Team;
use ekiden_dataplane::worker::Journey;
use wire::{PortIndex, SiteSlot};

const A: [u8; 4] = [10, 9, 1, 1];
const B: [u8; 4] = [10, 9, 2, 1];

fn hub() -> Rehearsal {
    Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 1024)
}

/// The number of a packet, in its payload.
fn numbered(number: u32) -> Vec<u8> {
    let mut packet = ipv4(A, B, 64, 100);
    packet[40..44].copy_from_slice(&number.to_be_bytes());
    packet
}

/// Takes frames through the stages as a worker does whose ring is never empty, and returns what left.
fn carry(hub: &mut Rehearsal, team: &mut Team, frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let now = hub.now;
    let mut left = Vec::new();
    let mut batches = frames.chunks(BATCH);
    let mut more = true;
    while more || team.is_under_way() {
        if let Some(mut batch) = team.batch() {
            match batches.next() {
                Some(frames) => {
                    for bytes in frames {
                        let mut frame = hub.journey.pool.pop().expect("a chunk");
                        frame.copy_from(bytes);
                        batch.push(Packet::arrived(frame, PortIndex(0)));
                    }
                    if let Err(mut batch) = team.hand_out(batch) {
                        hub.journey.relay(&mut batch, now);
                        team.keep(batch);
                    }
                }
                None => {
                    team.recycle(batch);
                    more = false;
                }
            }
        }
        hub.journey.retire(team, now);
        left.append(&mut hub.leave());
        std::thread::yield_now();
    }
    left
}

/// With a second thread that helps while `idle` says so for its turn.
fn with_helper<T>(
    mut helper: Journey,
    now: Time,
    idle: impl Fn(u32) -> bool + Sync,
    body: impl FnOnce(&mut Team) -> T,
) -> (T, Journey, u64) {
    let bells = [(); 2].map(|()| Bell::new().unwrap());
    let [mut owner, mut other] = <[Team; 2]>::try_from(Team::of(&bells)).unwrap();
    other.offer(idle(0));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (mut turns, mut helped) = (0, 0);
            while !stop.load(Ordering::Relaxed) {
                turns += 1;
                other.offer(idle(turns));
                helped += other.help(|batch| helper.relay(batch, now)) as u64;
                std::thread::yield_now();
            }
            (helper, helped)
        });
        let result = body(&mut owner);
        stop.store(true, Ordering::Relaxed);
        let (helper, helped) = thread.join().unwrap();
        (result, helper, helped)
    })
}

#[test]
fn one_session_on_two_threads_keeps_its_order() {
    const PACKETS: u32 = 20_000;
    let mut hub = hub();
    let (helper, _control) = hub.another();
    let frames: Vec<_> = (0..PACKETS).map(|number| hub.seal(0, &numbered(number))).collect();
    let now = hub.now;
    let (left, helper, helped) = with_helper(helper, now, |turn| turn % 64 < 60, |team| carry(&mut hub, team, &frames));

    let numbers: Vec<u32> = left
        .iter()
        .map(|frame| {
            let (site, packet) = hub.open(frame).expect("sealed for the site");
            assert_eq!(site, 1);
            u32::from_be_bytes(packet[40..44].try_into().unwrap())
        })
        .collect();
    assert_eq!(numbers, (0..PACKETS).collect::<Vec<_>>(), "each once, in its order");
    assert!(helped > 0 && helped < u64::from(PACKETS), "{helped} were helped with");
    let (own, other) = (hub.journey.rows.site(SiteSlot(0)), helper.rows.site(SiteSlot(0)));
    assert_eq!(own.rx_packets.read() + other.rx_packets.read(), u64::from(PACKETS));
    assert_eq!(other.rx_packets.read(), helped, "each counts what it did");
    assert_eq!(hub.drops(), vec![]);
    let (pool, all) = hub.census();
    assert_eq!(pool, all);

    // The same frames once more: not one is taken twice, whoever has it.
    let (helper, _control) = hub.another();
    let (again, ..) =
        with_helper(helper, now, |_| true, |team| carry(&mut hub, team, &frames[PACKETS as usize - 4096..]));
    assert_eq!(again.len(), 0);
}

#[test]
fn what_a_helper_has_no_session_for_is_sent_if_the_owner_has_one_and_waits_if_not() {
    for owner_knows in [true, false] {
        let mut hub = hub();
        let (mut helper, _control) = hub.another();
        helper.sites.at_mut(SiteSlot(1)).sending = None;
        if !owner_knows {
            hub.journey.sites.at_mut(SiteSlot(1)).sending = None;
        }
        let frames: Vec<_> = (0..64).map(|number| hub.seal(0, &numbered(number))).collect();
        let now = hub.now;
        let (left, _, helped) = with_helper(helper, now, |_| true, |team| carry(&mut hub, team, &frames));
        assert_eq!(helped, 64);
        let staged = |sites: &Sites| sites.at(SiteSlot(1)).staged;
        if owner_knows {
            assert_eq!((left.len(), staged(&hub.journey.sites)), (64, 0));
            assert!(left.iter().all(|frame| hub.open(frame).is_some_and(|(site, _)| site == 1)));
        } else {
            assert_eq!((left.len(), staged(&hub.journey.sites)), (0, 64));
        }
        let (pool, all) = hub.census();
        assert_eq!(pool, all);
    }
}
