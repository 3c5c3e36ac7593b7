//! Poly1305 of several messages in lockstep, a lane each.
//!
//! All end together, with their block of lengths; so the shorter ones begin late. What a lane computes before its message begins is
//! garbage, and is cleared when it does. Between two moments at which some lane begins or goes over to another piece of memory lies a
//! [`Run`], in which every lane just walks on: that alone is the loop of the CPU.

/// The bytes of a block: RFC 8439, 2.5.
pub(super) const BLOCK: usize = 16;

/// What goes into a tag: RFC 8439, 2.8.
#[derive(Clone, Copy)]
pub(super) struct Mac<'a> {
    pub(super) key: &'a [u8; 32],
    pub(super) aad: &'a [u8],
    pub(super) text: &'a [u8],
}

impl Mac<'_> {
    /// The blocks that go into it.
    pub(super) fn blocks(&self) -> usize {
        blocks(self.aad.len(), self.text.len())
    }
}

/// The blocks that go into the tag of so many bytes.
pub(super) fn blocks(aad: usize, text: usize) -> usize {
    aad.div_ceil(BLOCK) + text.div_ceil(BLOCK) + 1
}

/// The tags of the messages of these numbers, at most `L`, the longest first, by the loop of a CPU.
#[inline]
pub(super) fn tags<'a, const L: usize>(
    order: &[u8],
    mac: impl Fn(usize) -> Mac<'a>,
    compute: impl FnOnce(&mut Lanes<'_, L>) -> [[u8; 16]; L],
    tags: &mut [[u8; 16]],
) {
    let mut last = [[[0; BLOCK]; 2]; L];
    let longest = mac(order[0].into());
    let mut macs = [longest; L];
    for ((n, slot), [aad, text]) in order.iter().zip(&mut macs).zip(&mut last) {
        *slot = mac((*n).into());
        pad(slot.aad, aad);
        pad(slot.text, text);
    }
    let blocks = longest.blocks() - 1;
    let mut lanes = Lanes { macs: &macs, last: &last, now: [&[]; L], piece: [0; L], wait: [0; L], done: 0, blocks };
    for (n, mac) in macs.iter().enumerate() {
        lanes.wait[n] = blocks + 1 - mac.blocks();
        if mac.aad.is_empty() {
            (lanes.now[n], lanes.piece[n]) = (mac.text.as_chunks::<BLOCK>().0.as_flattened(), 3);
        }
        lanes.advance(n);
    }
    tags.copy_from_slice(&compute(&mut lanes)[..tags.len()]);
}

/// What is left over after whole blocks, and zeros.
#[inline]
fn pad(bytes: &[u8], block: &mut [u8; BLOCK]) {
    let rest = bytes.as_chunks::<BLOCK>().1;
    if !rest.is_empty() {
        block[..rest.len()].copy_from_slice(rest);
    }
}

/// Several messages, of which a loop reads a run at a time, and at last the block of lengths.
pub(super) struct Lanes<'a, const L: usize> {
    pub(super) macs: &'a [Mac<'a>; L],
    /// What is left over of AAD and text, padded.
    last: &'a [[[u8; BLOCK]; 2]; L],
    /// What each lane reads next, and which [piece](Self::piece) of its message that is.
    now: [&'a [u8]; L],
    piece: [u8; L],
    /// The blocks before it begins.
    wait: [usize; L],
    done: usize,
    /// All but that of lengths.
    blocks: usize,
}

/// Blocks through which each of `L` lanes has them contiguous in memory.
pub(super) struct Run<'a, const L: usize> {
    /// What each lane reads: at least `blocks` blocks.
    pub(super) lanes: [&'a [u8]; L],
    pub(super) blocks: usize,
    /// Where a message begins now, and others began before: all ones for these, zero for a lane that begins now or later.
    pub(super) keep: Option<[u64; L]>,
}

impl<'a, const L: usize> Lanes<'a, L> {
    /// All ones for a lane that has begun, zero for one whose message is nothing but its block of lengths.
    #[inline]
    pub(super) fn begun(&self) -> [u64; L] {
        self.wait.map(|wait| if wait < self.blocks { u64::MAX } else { 0 })
    }

    /// The next run, of at least one block, or `None` when only the lengths are left.
    #[inline(never)]
    pub(super) fn run(&mut self) -> Option<Run<'a, L>> {
        let left = self.blocks - self.done;
        let mut run = Run { lanes: self.now, blocks: left, keep: None };
        if self.done > 0 && self.wait.contains(&self.done) {
            run.keep = Some(self.wait.map(|wait| if wait < self.done { u64::MAX } else { 0 }));
        }
        for n in 0..L {
            let wait = self.wait[n];
            run.blocks = run.blocks.min(if wait > self.done { wait - self.done } else { self.now[n].len() / BLOCK });
            if wait > self.done {
                // It reads what the longest message does, which never waits: garbage, of which there is enough.
                run.lanes[n] = self.now[0];
            }
        }
        if left == 0 {
            return None;
        }
        if run.blocks < left {
            for n in 0..L {
                if self.wait[n] <= self.done {
                    self.now[n] = &self.now[n][run.blocks * BLOCK..];
                    self.advance(n);
                }
            }
        }
        self.done += run.blocks;
        Some(run)
    }

    /// To the next piece that isn't empty, if there is one.
    #[inline]
    fn advance(&mut self, n: usize) {
        while self.now[n].is_empty() && self.piece[n] < PIECES {
            self.piece[n] += 1;
            self.now[n] = self.piece(n);
        }
    }

    fn piece(&self, n: usize) -> &'a [u8] {
        let (mac, [aad, text]) = (self.macs[n], &self.last[n]);
        let last = |bytes: &[u8], padded: &'a [u8]| if bytes.len().is_multiple_of(BLOCK) { &[] } else { padded };
        match self.piece[n] {
            1 => mac.aad.as_chunks::<BLOCK>().0.as_flattened(),
            2 => last(mac.aad, aad),
            3 => mac.text.as_chunks::<BLOCK>().0.as_flattened(),
            _ => last(mac.text, text),
        }
    }
}

/// The pieces in which the blocks of a message lie: whole ones of AAD, its last, whole ones of text, its last.
const PIECES: u8 = 4;
