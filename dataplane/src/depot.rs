//! Where workers that share a queue even out their chunks.
//!
//! One of them lends chunks to the queue and gets back what was sent, for all of them. So chunks wander: with every packet
//! that another one drops they come to rest there, and with every packet of another's own they end up with it. What a
//! worker has beyond its needs it puts here, by the bundle, and takes from here when it runs short. No lock, and in a hub
//! whose workers have queues of their own nobody comes here.

use crate::packet::BATCH;
use crate::xsk::Frame;
use arrayvec::ArrayVec;
use crossbeam::queue::ArrayQueue;

/// Chunks that change hands together.
type Bundle = ArrayVec<Frame, BATCH>;

/// A worker with fewer free chunks than this is short: what a turn may need for frames of the hub's own.
const SHORT: usize = 2 * BATCH;

/// Free chunks that are nobody's.
#[derive(Debug)]
pub struct Depot {
    bundles: ArrayQueue<Bundle>,
    /// Free chunks that a worker keeps.
    keep: usize,
}

impl Depot {
    /// An empty one, with room for all `chunks`; a worker keeps `keep` of its own.
    ///
    /// # Panics
    ///
    /// If a worker that kept no more would be short.
    pub fn new(chunks: u32, keep: usize) -> Self {
        assert!(keep >= SHORT + BATCH, "a worker that keeps {keep} chunks would give and take in turns");
        Self { bundles: ArrayQueue::new(chunks as usize / BATCH + 1), keep }
    }

    /// Takes some of what a worker has too much, or gives what it lacks.
    #[inline]
    pub fn level(&self, pool: &mut Vec<Frame>) {
        if pool.len() >= self.keep + BATCH {
            let bundle = pool.drain(pool.len() - BATCH..).collect();
            if let Err(bundle) = self.bundles.push(bundle) {
                pool.extend(bundle);
            }
        }
        while pool.len() < SHORT
            && let Some(bundle) = self.bundles.pop()
        {
            pool.extend(bundle);
        }
    }

    /// Chunks that are here; while workers come and go, about so many.
    pub fn len(&self) -> usize {
        self.bundles.len() * BATCH
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xsk::Umem;

    #[test]
    fn what_one_has_too_much_another_gets() {
        let umem = Umem::private(1024, 2048);
        let depot = Depot::new(1024, 256);
        let (mut rich, mut poor) = (umem.frames(0..900), umem.frames(900..1024));
        let total = |rich: &Vec<Frame>, poor: &Vec<Frame>| rich.len() + poor.len() + depot.len();
        for _ in 0..100 {
            depot.level(&mut rich);
            depot.level(&mut poor);
            assert_eq!(total(&rich, &poor), 1024);
        }
        assert!((256..256 + BATCH).contains(&rich.len()), "{} are kept", rich.len());
        assert!((SHORT..SHORT + BATCH).contains(&poor.len()), "{} are enough", poor.len());

        // It lends them all to the kernel, and comes for more until there are no more.
        let mut lent = Vec::new();
        while !depot.is_empty() {
            lent.append(&mut poor);
            depot.level(&mut poor);
        }
        assert_eq!(lent.len() + poor.len() + rich.len(), 1024);
        depot.level(&mut rich);
        assert!(
            depot.is_empty() && (256..256 + BATCH).contains(&rich.len()),
            "who has enough for itself gives nothing"
        );
    }

    #[test]
    fn chunks_between_threads_are_neither_lost_nor_doubled() {
        const CHUNKS: u32 = 2048;
        let umem = Umem::private(CHUNKS, 2048);
        let depot = Depot::new(CHUNKS, 256);
        let halves = [umem.frames(0..CHUNKS / 2), umem.frames(CHUNKS / 2..CHUNKS)];
        let mut chunks: Vec<u32> = std::thread::scope(|scope| {
            let threads = halves.map(|mut pool| {
                let depot = &depot;
                scope.spawn(move || {
                    let mut aside = Vec::new();
                    for turn in 0..20_000u32 {
                        // Now it has none, now it has all that it ever got.
                        if turn % 7 < 4 {
                            aside.append(&mut pool)
                        } else {
                            pool.append(&mut aside)
                        }
                        depot.level(&mut pool);
                    }
                    pool.append(&mut aside);
                    pool
                })
            });
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).map(|frame| frame.chunk()).collect()
        });
        while let Some(bundle) = depot.bundles.pop() {
            chunks.extend(bundle.iter().map(Frame::chunk));
        }
        chunks.sort_unstable();
        assert_eq!(chunks, (0..CHUNKS).collect::<Vec<_>>());
    }
}
