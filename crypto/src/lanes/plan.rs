//! Which messages of a batch go into the lanes, and which to a library, one at a time.

use std::array::from_fn;

use super::chacha;
use super::cpu::Cpu;
use super::poly;

/// The messages that are taken together.
pub(super) const BATCH: usize = 64;

/// What the lengths of a message cost.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Bytes of text.
    pub(super) text: usize,
    /// Blocks of Poly1305.
    pub(super) mac_blocks: usize,
}

impl Shape {
    pub(super) fn new(aad: usize, text: usize) -> Self {
        Self { text, mac_blocks: poly::blocks(aad, text) }
    }
}

/// A time, in sixteenths of a nanosecond.
pub(super) type Ticks = u32;

/// What this machine takes, measured when the backend is chosen, to seal or to open.
#[derive(Debug, Clone)]
pub(super) struct Costs {
    /// Of one message alone, by its number of blocks of ChaCha20.
    single: [Ticks; SINGLE],
    lanes: LaneCosts,
    /// Where even a full batch is faster one by one: messages of more bytes.
    longest: usize,
    /// By the blocks of a message, the fewest like it that are worth it; more than a batch where no number is.
    fewest: [u8; SINGLE],
    /// The fewest of anything.
    pub(super) smallest: usize,
}

/// What the lanes take for a batch: so much, and for each message, for each set of blocks of ChaCha20, for each step of Poly1305.
#[derive(Debug, Clone, Copy)]
struct LaneCosts {
    batch: Ticks,
    message: Ticks,
    blocks: Ticks,
    step: Ticks,
}

/// One message alone is measured up to 2 KiB, and a longer message believed to cost as much more as the last kilobyte did.
pub(super) const SINGLE: usize = 33;

/// A text of more bytes is a library's whatever anything costs, so that sums stay in their range; no packet is longer.
const MAX_TEXT: usize = 1 << 16;

/// What a prediction may be wrong by: lanes must promise a gain of one part in so many.
const MARGIN: u32 = 12;

/// Smaller batches are not even looked at: no lanes gained there, and a plan takes 5 % of what a library does.
const SMALLEST: usize = 4;

/// So few messages that a plan made in vain would be felt.
const FEW: usize = 16;

/// Messages of one length among which none is tried alone.
const MANY: usize = BATCH / 2;

/// The longest messages that are tried alone while the rest goes into the lanes: one such may keep all other lanes waiting.
const TRIED: usize = 8;

impl Costs {
    /// All that can goes into the lanes.
    pub(super) const NONE: Self = Self {
        single: [1; SINGLE],
        lanes: LaneCosts { batch: 0, message: 0, blocks: 0, step: 0 },
        longest: MAX_TEXT,
        fewest: [0; SINGLE],
        smallest: 0,
    };

    /// From what `time` measures: messages taken together (in lanes or one by one), and bytes of each, to ticks for all.
    pub(super) fn measure(cpu: Cpu, mut time: impl FnMut(bool, usize, usize) -> Ticks) -> Self {
        let mut single = [Ticks::MAX; SINGLE];
        // Blocks that fill one set of lanes, together with that of the key.
        let full = (cpu.block_lanes() - 1) * chacha::BLOCK;
        // Each of the four costs of lanes is what differs between two of these.
        let sorts = [(1, 64), (1, full), (32, 64), (32, 576)];
        let mut lanes = [Ticks::MAX; 4];
        for _ in 0..SAMPLES {
            for (n, ticks) in single.iter_mut().enumerate() {
                *ticks = (*ticks).min(time(false, 2, n * chacha::BLOCK) / 2);
            }
            for ((count, text), ticks) in sorts.into_iter().zip(&mut lanes) {
                *ticks = (*ticks).min(time(true, count, text));
            }
        }
        let [one, one_full, short, long] = sorts.map(|(count, text)| Shape::new(0, text).load(cpu, count));
        let per = |ticks: Ticks, less: Ticks, units: usize| ticks.saturating_sub(less) / units as Ticks;
        let step = per(lanes[1], lanes[0], one_full.1 - one.1);
        let steps = |load: (usize, usize)| step * load.1 as Ticks;
        let blocks = per(lanes[3], lanes[2] + steps(long) - steps(short), long.0 - short.0);
        let rest = |n: usize, load: (usize, usize)| lanes[n].saturating_sub(steps(load) + blocks * load.0 as Ticks);
        let message = per(rest(2, short), rest(0, one), 31);
        let batch = rest(0, one).saturating_sub(message);
        let lanes = LaneCosts { batch, message, blocks, step };
        let mut costs = Self { single, lanes, ..Self::NONE };
        let pays = |text: &usize| costs.fewest_of(cpu, *text).is_some();
        costs.longest = (0..=MAX_TEXT / chacha::BLOCK).rev().map(|n| n * chacha::BLOCK).find(pays).unwrap_or(0);
        costs.fewest =
            from_fn(|n| costs.fewest_of(cpu, n * chacha::BLOCK).map_or(u8::MAX, |fewest| fewest.max(SMALLEST) as u8));
        costs.smallest = costs.fewest.into_iter().min().map_or(0, usize::from);
        costs
    }

    fn single(&self, text: usize) -> Ticks {
        let n = text.div_ceil(chacha::BLOCK);
        match self.single.get(n) {
            Some(ticks) => *ticks,
            None => {
                let last = self.single[SINGLE - 1];
                last + (last - self.single[SINGLE - 17].min(last)) / 16 * (n - SINGLE + 1) as Ticks
            }
        }
    }

    fn lanes(&self, messages: usize, sets: usize, steps: usize) -> Ticks {
        let LaneCosts { batch, message, blocks, step } = self.lanes;
        let ticks = batch + message * messages as Ticks + blocks * sets as Ticks + step * steps as Ticks;
        ticks + ticks / MARGIN
    }

    /// The fewest messages of that many bytes that are worth it, if any number is.
    fn fewest_of(&self, cpu: Cpu, text: usize) -> Option<usize> {
        (SMALLEST..=BATCH).find(|count| {
            let (sets, steps) = Shape::new(0, text).load(cpu, *count);
            self.lanes(*count, sets, steps) < self.single(text) * *count as Ticks
        })
    }

    /// Whether lanes can be worth it for anything.
    pub(super) fn pay(&self) -> bool {
        self.fewest.iter().any(|fewest| usize::from(*fewest) <= BATCH)
    }

    /// Whether a plan can be worth to be made, for so many messages.
    #[inline]
    pub(super) fn may_pay(&self, count: usize, mut texts: impl Iterator<Item = usize> + Clone) -> bool {
        let blocks = |text: usize| text.div_ceil(chacha::BLOCK).min(SINGLE - 1);
        let fewest = |text: usize| usize::from(self.fewest[blocks(text)]);
        if count >= FEW {
            return texts.any(|text| fewest(text) <= count);
        }
        // Of a few, those that lanes are for may be too few, with the rest; and where lengths differ, the lanes are not full.
        let (mut with, mut least, mut longest, mut shortest) = (0, usize::MAX, 0, usize::MAX);
        for text in texts {
            (longest, shortest) = (longest.max(blocks(text)), shortest.min(blocks(text)));
            if fewest(text) <= count {
                (with, least) = (with + 1, least.min(fewest(text)));
            }
        }
        if longest == shortest { least <= with } else { least != usize::MAX && least * 3 <= with * 2 }
    }

    /// As the operator reads it.
    pub(super) fn thresholds(&self, cpu: Cpu) -> String {
        let fewest = |text: usize| match self.fewest_of(cpu, text) {
            Some(count) => format!("{count} x {text} B"),
            None => format!("no {text} B"),
        };
        EXAMPLES.map(fewest).join(", ")
    }
}

impl Shape {
    /// Its blocks of ChaCha20.
    fn blocks(self) -> usize {
        1 + self.text.div_ceil(chacha::BLOCK)
    }

    /// The sets of blocks, and the steps of Poly1305, of so many like it.
    fn load(self, cpu: Cpu, count: usize) -> (usize, usize) {
        let sets = (count * self.blocks()).div_ceil(cpu.block_lanes());
        (sets, count.div_ceil(cpu.mac_lanes()) * self.mac_blocks)
    }
}

/// Lengths by which thresholds are shown.
pub(super) const EXAMPLES: [usize; 5] = [64, 128, 256, 512, 1424];

/// How often everything is measured, and the fastest taken: what else the machine does only ever makes slower.
const SAMPLES: usize = 80;

/// Which messages of a batch go into the lanes.
pub(super) struct Plan {
    /// Bit n: message n.
    chosen: u64,
    /// Their numbers, the longest message first.
    order: [u8; BATCH],
    /// Of these the first, before which those are that have not been chosen after all.
    first: usize,
    count: usize,
}

impl Plan {
    /// A plan for at most [`BATCH`] messages; `None` for one that can't go into the lanes.
    pub(super) fn new(cpu: Cpu, costs: &Costs, shapes: impl Iterator<Item = Option<Shape>>) -> Self {
        let mut plan = Self { chosen: 0, order: [0; BATCH], first: 0, count: 0 };
        let mut by_length = [0u32; BATCH];
        let mut texts = [0u32; BATCH];
        let (mut blocks, mut mac_blocks, mut singly) = (0, 0, 0);
        for (n, shape) in shapes.enumerate() {
            let Some(shape) = shape.filter(|shape| shape.text <= costs.longest && shape.mac_blocks < 1 << 24) else {
                continue;
            };
            // As they come, messages of one length are in order.
            by_length[plan.count] = (shape.mac_blocks as u32) << 6 | (LAST - n) as u32;
            texts[n] = shape.text as u32;
            blocks += shape.blocks();
            mac_blocks += shape.mac_blocks;
            singly += costs.single(shape.text);
            plan.count += 1;
            plan.chosen |= 1 << n;
        }
        // If not even lanes that are all full would pay, there is nothing to sort.
        let (sets, steps) = (blocks.div_ceil(cpu.block_lanes()), mac_blocks.div_ceil(cpu.mac_lanes()));
        if costs.lanes(plan.count, sets, steps) >= singly {
            (plan.chosen, plan.count) = (0, 0);
            return plan;
        }
        let by_length = &mut by_length[..plan.count];
        if !by_length.is_sorted_by(|a, b| a >= b) {
            by_length.sort_unstable_by(|a, b| b.cmp(a));
        }
        for (order, n) in plan.order.iter_mut().zip(&*by_length) {
            *order = number(*n) as u8;
        }
        plan.first = best_split(cpu, costs, by_length, &texts, blocks, singly);
        for n in &plan.order[..plan.first] {
            plan.chosen &= !(1 << *n);
        }
        plan
    }

    /// Whether message `n` goes into the lanes.
    pub(super) fn has(&self, n: usize) -> bool {
        self.chosen >> n & 1 == 1
    }

    /// The numbers of those that go, the longest message first.
    pub(super) fn order(&self) -> &[u8] {
        &self.order[self.first..self.count]
    }
}

/// The number of the last message of a full batch: six bits.
const LAST: usize = BATCH - 1;

/// The number in an element of a list by length.
fn number(element: u32) -> usize {
    LAST - (element as usize & LAST)
}

/// How many of these, from the longest on, are better left to a library: their blocks of Poly1305 and numbers, and by number their bytes;
/// and of all of them the blocks of ChaCha20, and what a library would take.
fn best_split(
    cpu: Cpu,
    costs: &Costs,
    by_length: &[u32],
    texts: &[u32; BATCH],
    mut blocks: usize,
    all_singly: Ticks,
) -> usize {
    let count = by_length.len();
    let (mut best, mut best_ticks, mut singly) = (count, all_singly, 0);
    for first in 0..count.min(TRIED) {
        let steps = by_length[first..].iter().step_by(cpu.mac_lanes()).map(|n| (*n >> 6) as usize).sum();
        let ticks = singly + costs.lanes(count - first, blocks.div_ceil(cpu.block_lanes()), steps);
        if ticks < best_ticks {
            (best, best_ticks) = (first, ticks);
        }
        // Of equals none keeps the others waiting; and lanes that stay empty count for little among so many.
        if count - first >= MANY && by_length[first] >> 6 == by_length[count - 1] >> 6 {
            break;
        }
        let longest = Shape::new(0, texts[number(by_length[first])] as usize);
        singly += costs.single(longest.text);
        blocks -= longest.blocks();
    }
    best
}
