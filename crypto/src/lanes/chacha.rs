//! The flat list: blocks of ChaCha20, of whichever messages, go into the lanes in the order in which they come.

use super::cpu::Cpu;

/// The bytes of a block: RFC 8439, 2.3.
pub(super) const BLOCK: usize = 64;

/// The first row of the state: "expand 32-byte k".
pub(super) const CONSTANTS: [i32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The most lanes that any CPU has.
pub(super) const MAX_LANES: usize = 16;

/// One block of one message.
pub(super) struct Block<'a> {
    pub(super) key: &'a [u8; 32],
    /// The last row of the state: block counter and nonce, in little-endian.
    pub(super) input: u128,
    /// What the block is added to, at most [`BLOCK`] bytes.
    pub(super) text: &'a mut [u8],
}

impl Block<'_> {
    /// A lane without work.
    const fn idle() -> Self {
        Self { key: &[0; 32], input: 0, text: &mut [] }
    }
}

/// Takes blocks one by one and computes them as many at a time as the CPU has lanes.
pub(super) struct Flow<'a> {
    cpu: Cpu,
    waiting: [Block<'a>; MAX_LANES],
    count: usize,
}

impl<'a> Flow<'a> {
    #[inline(always)] // or it is made elsewhere and copied
    pub(super) fn new(cpu: Cpu) -> Self {
        Self { cpu, waiting: [const { Block::idle() }; MAX_LANES], count: 0 }
    }

    /// One block under a nonce, added to the text.
    #[inline]
    pub(super) fn block(&mut self, key: &'a [u8; 32], nonce: [u8; 12], block: usize, text: &'a mut [u8]) {
        self.push(Block { key, input: input(nonce, block), text });
    }

    /// The blocks from one on, added to the whole of a text.
    #[inline]
    pub(super) fn text(&mut self, key: &'a [u8; 32], nonce: [u8; 12], from: usize, text: &'a mut [u8]) {
        for (text, input) in text.chunks_mut(BLOCK).zip(input(nonce, from)..) {
            self.push(Block { key, input, text });
        }
    }

    /// The lanes that would have nothing to do if this were all.
    pub(super) fn idle(&self) -> usize {
        if self.count == 0 { 0 } else { self.cpu.block_lanes() - self.count }
    }

    #[inline]
    fn push(&mut self, block: Block<'a>) {
        self.waiting[self.count] = block;
        self.count += 1;
        if self.count == self.cpu.block_lanes() {
            self.cpu.blocks(&mut self.waiting);
            self.count = 0;
        }
    }

    /// What is left, in lanes of which some idle.
    pub(super) fn finish(&mut self) {
        if self.count > 0 {
            self.waiting[self.count..].fill_with(Block::idle);
            self.cpu.blocks(&mut self.waiting);
            self.count = 0;
        }
    }
}

/// The last row of the state. A text is far shorter than the 256 GiB after which the counter would reach the nonce.
fn input(nonce: [u8; 12], block: usize) -> u128 {
    let mut row = [0; 16];
    row[4..].copy_from_slice(&nonce);
    u128::from_le_bytes(row) | block as u128
}
