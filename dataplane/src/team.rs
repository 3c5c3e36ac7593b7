//! A deep backlog of one worker, shared with those that have nothing to do: so that one fat tunnel is not bound to one core.
//!
//! A worker that finds more in a ring than it can take at once gives whole batches away, to helpers that are idle, and goes on
//! with the next itself. A helper carries a batch through all stages by tables of its own (sessions are shared: their counters
//! and replay windows are anybody's), and gives it back with a verdict on every packet. The owner dispatches the batches in the
//! order in which it took them from the ring, so that no flow changes its order, whoever was faster.
//!
//! Between each two workers there are two rings with one producer and one consumer each: nobody locks, and nobody waits. An
//! owner whose oldest batch is still away receives on until [`LINE`] batches are under way; a helper that has work of its own is
//! not asked.

use crate::mailbox::Bell;
use crate::packet::Batch;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Batches of one worker that are under way, with helpers or behind those. 512 packets: a client whose replay window is 1,024
/// wide accepts all of them in any order.
pub const LINE: usize = 8;
/// Batches that one helper has at a time: one in hand, and the next.
const AT_ONCE: usize = 2;

/// What a worker has to do with the others.
#[derive(Debug)]
pub struct Team {
    helpers: Vec<Helper>,
    duties: Vec<Duty>,
    /// Batches under way, the oldest first.
    line: VecDeque<Under>,
    /// Empty batches: they circulate.
    spare: Vec<Box<Batch>>,
    /// Whether this worker would help.
    idle: Arc<AtomicBool>,
}

/// Where a batch is.
#[derive(Debug)]
enum Under {
    /// Here, and through: it waits for those before it.
    Done(Box<Batch>),
    /// With this helper, which returns batches in the order in which it got them.
    With(usize),
}

/// Another worker, as it may be asked for help.
#[derive(Debug)]
struct Helper {
    jobs: rtrb::Producer<Box<Batch>>,
    done: rtrb::Consumer<Box<Batch>>,
    away: usize,
    idle: Arc<AtomicBool>,
    bell: Arc<Bell>,
}

/// Another worker, as it may ask for help.
#[derive(Debug)]
struct Duty {
    jobs: rtrb::Consumer<Box<Batch>>,
    done: rtrb::Producer<Box<Batch>>,
}

impl Team {
    /// For each worker of a hub, with its bell, what it has to do with all the others.
    pub fn of(bells: &[Arc<Bell>]) -> Vec<Self> {
        let team = |_| Self {
            helpers: Vec::with_capacity(bells.len()),
            duties: Vec::with_capacity(bells.len()),
            line: VecDeque::with_capacity(LINE),
            spare: (0..=LINE).map(|_| Box::default()).collect(),
            idle: Arc::new(AtomicBool::new(false)),
        };
        let mut teams: Vec<Self> = bells.iter().map(team).collect();
        for owner in 0..bells.len() {
            for helper in (0..bells.len()).filter(|helper| *helper != owner) {
                let (jobs, jobs_there) = rtrb::RingBuffer::new(AT_ONCE);
                let (done_there, done) = rtrb::RingBuffer::new(AT_ONCE);
                let idle = teams[helper].idle.clone();
                teams[owner].helpers.push(Helper { jobs, done, away: 0, idle, bell: bells[helper].clone() });
                teams[helper].duties.push(Duty { jobs: jobs_there, done: done_there });
            }
        }
        teams
    }

    // ---- as an owner ----

    /// An empty batch, unless as many are under way as may be.
    #[inline]
    pub fn batch(&mut self) -> Option<Box<Batch>> {
        if self.line.len() < LINE { self.spare.pop() } else { None }
    }

    /// A batch that is no longer needed, empty.
    #[inline]
    pub fn recycle(&mut self, batch: Box<Batch>) {
        debug_assert!(batch.is_empty(), "packets would be lost");
        self.spare.push(batch);
    }

    /// Gives a batch to a helper that is idle, or back if there is none.
    #[inline]
    pub fn hand_out(&mut self, batch: Box<Batch>) -> Result<(), Box<Batch>> {
        let free = |helper: &Helper| helper.away < AT_ONCE && helper.idle.load(Ordering::Relaxed);
        let Some(at) = self.helpers.iter().position(free) else { return Err(batch) };
        let helper = &mut self.helpers[at];
        helper.jobs.push(batch).map_err(|rtrb::PushError::Full(batch)| batch)?;
        helper.away += 1;
        helper.bell.ring();
        self.line.push_back(Under::With(at));
        Ok(())
    }

    /// A batch that went through the stages here takes its place behind those that are away.
    #[inline]
    pub fn keep(&mut self, batch: Box<Batch>) {
        self.line.push_back(Under::Done(batch));
    }

    /// The oldest batch under way, if it is through; and whether a helper had it.
    #[inline]
    pub fn retire(&mut self) -> Option<(Box<Batch>, bool)> {
        match self.line.pop_front()? {
            Under::Done(batch) => Some((batch, false)),
            Under::With(at) => {
                let helper = &mut self.helpers[at];
                let Ok(batch) = helper.done.pop() else {
                    self.line.push_front(Under::With(at));
                    return None;
                };
                helper.away -= 1;
                Some((batch, true))
            }
        }
    }

    /// Whether batches are under way.
    #[inline]
    pub fn is_under_way(&self) -> bool {
        !self.line.is_empty()
    }

    // ---- as a helper ----

    /// Says whether this worker would help.
    #[inline]
    pub fn offer(&self, idle: bool) {
        if self.idle.load(Ordering::Relaxed) != idle {
            self.idle.store(idle, Ordering::Relaxed);
        }
    }

    /// Takes a batch of each worker that has asked through `relay`. How many packets there were.
    #[inline]
    pub fn help(&mut self, mut relay: impl FnMut(&mut Batch)) -> usize {
        let mut packets = 0;
        for duty in &mut self.duties {
            let Ok(mut batch) = duty.jobs.pop() else { continue };
            packets += batch.len();
            relay(&mut batch);
            let returned = duty.done.push(batch);
            debug_assert!(returned.is_ok(), "there is a place for each batch that is away");
        }
        packets
    }

    /// Whether a batch waits to be helped with.
    pub fn is_asked(&self) -> bool {
        self.duties.iter().any(|duty| !duty.jobs.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{BATCH, Packet, Verdict};
    use crate::xsk::{Frame, Umem};
    use wire::PortIndex;

    fn teams(count: usize) -> Vec<Team> {
        Team::of(&(0..count).map(|_| Bell::new().unwrap()).collect::<Vec<_>>())
    }

    /// Fills a batch with packets that are numbered.
    fn number(batch: &mut Batch, pool: &mut Vec<Frame>, next: &mut u64) {
        for _ in 0..BATCH {
            let mut packet = Packet::arrived(pool.pop().unwrap(), PortIndex(0));
            packet.counter = *next;
            *next += 1;
            batch.push(packet);
        }
    }

    #[test]
    fn nobody_is_asked_who_is_busy_and_none_has_more_than_two() {
        let mut teams = teams(3);
        let (owner, others) = teams.split_at_mut(1);
        let owner = &mut owner[0];
        let batch = owner.batch().unwrap();
        let batch = owner.hand_out(batch).unwrap_err();
        others[1].offer(true);
        owner.hand_out(batch).unwrap();
        for _ in 1..AT_ONCE {
            let batch = owner.batch().unwrap();
            owner.hand_out(batch).unwrap();
        }
        let batch = owner.batch().unwrap();
        let batch = owner.hand_out(batch).unwrap_err();
        owner.keep(batch);
        assert!(others[1].is_asked() && !others[0].is_asked());
        assert!(owner.retire().is_none(), "the third is through, and waits for the first");
        others[1].help(|_| ());
        assert!(owner.retire().unwrap().1);
        assert!(owner.retire().is_none(), "a turn, a batch");
        others[1].help(|_| ());
        assert!(owner.retire().unwrap().1);
        assert!(!owner.retire().unwrap().1);
        assert!(!owner.is_under_way());
    }

    #[test]
    fn no_more_than_a_line_is_under_way() {
        let mut teams = teams(1);
        for _ in 0..LINE {
            let batch = teams[0].batch().unwrap();
            teams[0].keep(batch);
        }
        assert!(teams[0].batch().is_none());
        let (batch, _) = teams[0].retire().unwrap();
        teams[0].recycle(batch);
        assert!(teams[0].batch().is_some());
    }

    #[test]
    fn what_helpers_did_comes_back_whole_and_in_order() {
        const PACKETS: u64 = 200_000;
        let mut teams = teams(3);
        let stop = AtomicBool::new(false);
        let mut owner = teams.remove(0);
        let umem = Umem::private(((LINE + 2) * BATCH) as u32, 2048);
        let mut pool = umem.frames(0..umem.chunks());
        std::thread::scope(|scope| {
            for (n, mut helper) in teams.into_iter().enumerate() {
                let stop = &stop;
                scope.spawn(move || {
                    helper.offer(true);
                    let mut turns = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        turns += 1;
                        // One is slower than the other, and both are busy for a while.
                        helper.offer(turns % 1000 < 900);
                        let helped = helper.help(|batch| {
                            batch.iter_mut().for_each(|packet| packet.verdict = Verdict::Keepalive);
                            (0..n * 2000).for_each(|_| std::hint::spin_loop());
                        });
                        if helped == 0 {
                            std::thread::yield_now();
                        }
                    }
                });
            }
            let (mut next, mut seen, mut helped) = (0, 0, 0);
            while seen < PACKETS {
                if next < PACKETS
                    && let Some(mut batch) = owner.batch()
                {
                    number(&mut batch, &mut pool, &mut next);
                    if let Err(batch) = owner.hand_out(batch) {
                        owner.keep(batch);
                    }
                }
                while let Some((mut batch, by_helper)) = owner.retire() {
                    for packet in batch.drain(..) {
                        assert_eq!(packet.counter, seen);
                        assert_eq!(packet.verdict == Verdict::Keepalive, by_helper);
                        seen += 1;
                        helped += u64::from(by_helper);
                        pool.push(packet.frame);
                    }
                    owner.recycle(batch);
                }
                std::thread::yield_now();
            }
            stop.store(true, Ordering::Relaxed);
            assert!(helped > 0 && helped < PACKETS, "{helped} of {PACKETS}");
        });
        assert_eq!(pool.len() as u32, umem.chunks());
    }
}
