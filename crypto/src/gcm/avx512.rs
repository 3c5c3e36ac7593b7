//! AVX-512 with VAES and VPCLMULQDQ.
//!
//! What GHASH multiplies are polynomials over GF(2) whose first coefficient is a block's first bit. Read from the last byte to the first,
//! a block is a number whose bit 127 - *i* is coefficient *i*: so all blocks are turned as they are loaded, and a carry-less product of
//! two such numbers has coefficient *k* at bit 254 - *k*. Powers of H are kept divided by x, which puts it at 255 - *k*, where a number of
//! 256 bits has it.
#![allow(
    unsafe_code,
    reason = "vectors come from memory and go there by pointers; and functions are for one kind of CPU"
)]

use std::arch::x86_64::*;

use super::Vaes;

/// The bytes of a block: FIPS 197, and SP 800-38D, 6.3.
const BLOCK: usize = 16;
/// Those of a vector: four blocks.
const VECTOR: usize = 64;
/// The round keys of AES-256: FIPS 197, 5.2.
const ROUNDS: usize = 15;
/// Vectors of text that are encrypted together: as many as an AES round has cycles of latency.
const GROUP: usize = 4;
/// The powers of H that an end needs: of a vector, of three more, and of the block of lengths. With four more a key would be larger than
/// that of a library.
const POWERS: usize = 4 * 4 + 1;

/// An expanded key.
#[repr(C, align(16))]
pub(crate) struct Schedule {
    /// H^17 / x to H^1 / x, each turned. A vector of four that begins at one of the last goes on into what follows.
    powers: [[u8; BLOCK]; POWERS],
    rounds: [[u8; BLOCK]; ROUNDS],
}

impl Schedule {
    /// What follows from a key, on a CPU that has the instructions.
    pub(crate) fn new(_: Vaes, key: &[u8; 32]) -> Self {
        // SAFETY: `Vaes::found`, from which alone a value comes, has found all that the function names.
        unsafe { expand(key) }
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn rounds(&self) -> [[u8; BLOCK]; ROUNDS] {
        self.rounds
    }

    /// Encrypts, or decrypts, a text in its place: its tag, as a number of which the first byte is the lowest.
    pub(super) fn apply<const SEAL: bool>(&self, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> u128 {
        // SAFETY: a `Schedule` is made by `new` alone, of a value that comes from `Vaes::found`, which has found all that is named there.
        unsafe { apply::<SEAL>(self, nonce, aad, text) }
    }

    /// Four powers of H from this one downwards, one a lane; what would be lower than the first is no power and has a lane of zeros to
    /// meet.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn powers_from(&self, power: usize) -> __m512i {
        const { assert!(ROUNDS >= 4) };
        let at = (POWERS - power.min(POWERS)) * BLOCK;
        // SAFETY: `at` is at most the end of `powers`, behind which `rounds` has more than the four blocks that are read; both are fields
        // of this one object without a gap, to all of which the pointer belongs.
        unsafe { _mm512_loadu_si512((&raw const *self).byte_add(at).cast()) }
    }

    /// One power of H in all lanes.
    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn power<const POWER: usize>(&self) -> __m512i {
        broadcast(&self.powers[const { POWERS - POWER }])
    }
}

/// A block in all lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn broadcast(block: &[u8; BLOCK]) -> __m512i {
    _mm512_broadcast_i32x4(load(block))
}

#[target_feature(enable = "sse2")]
#[inline]
fn load(block: &[u8; BLOCK]) -> __m128i {
    // SAFETY: a block is 16 bytes.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[target_feature(enable = "sse2")]
#[inline]
fn store(block: &mut [u8; BLOCK], value: __m128i) {
    // SAFETY: a block is 16 bytes.
    unsafe { _mm_storeu_si128(block.as_mut_ptr().cast(), value) }
}

/// The last byte first, for all blocks.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turn(blocks: __m512i) -> __m512i {
    let order = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    _mm512_shuffle_epi8(blocks, _mm512_broadcast_i32x4(order))
}

#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn turn_one(block: __m128i) -> __m128i {
    _mm512_castsi512_si128(turn(_mm512_zextsi128_si512(block)))
}

/// The sum of three.
#[target_feature(enable = "avx512f")]
#[inline]
fn sum(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0x96>(a, b, c)
}

/// Sums of products of 256 bits, a lane each: `low + middle * 2^64 + high * 2^128`, not yet reduced.
#[derive(Clone, Copy)]
struct Products {
    low: __m512i,
    middle: __m512i,
    high: __m512i,
}

impl Products {
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    fn of(a: __m512i, b: __m512i) -> Self {
        let middle = _mm512_xor_si512(_mm512_clmulepi64_epi128::<0x01>(a, b), _mm512_clmulepi64_epi128::<0x10>(a, b));
        Self { low: _mm512_clmulepi64_epi128::<0x00>(a, b), middle, high: _mm512_clmulepi64_epi128::<0x11>(a, b) }
    }

    /// The same and another product.
    #[target_feature(enable = "avx512f,vpclmulqdq")]
    #[inline]
    fn and(self, a: __m512i, b: __m512i) -> Self {
        Self {
            low: _mm512_xor_si512(self.low, _mm512_clmulepi64_epi128::<0x00>(a, b)),
            middle: sum(self.middle, _mm512_clmulepi64_epi128::<0x01>(a, b), _mm512_clmulepi64_epi128::<0x10>(a, b)),
            high: _mm512_xor_si512(self.high, _mm512_clmulepi64_epi128::<0x11>(a, b)),
        }
    }

    /// Each lane modulo x^128 + x^7 + x^2 + x + 1.
    #[target_feature(enable = "avx512f,avx512bw,vpclmulqdq")]
    #[inline]
    fn reduced(self) -> __m512i {
        let low = _mm512_xor_si512(self.low, _mm512_bslli_epi128::<8>(self.middle));
        let high = _mm512_xor_si512(self.high, _mm512_bsrli_epi128::<8>(self.middle));
        let once = fold_low(low);
        // The second folding, and the sum with what is above.
        let products = _mm512_clmulepi64_epi128::<0x00>(once, _mm512_set1_epi64(FOLD));
        sum(high, _mm512_shuffle_epi32::<0x4e>(once), products)
    }

    /// The sum of all lanes.
    #[target_feature(enable = "avx512f,avx512vl")]
    #[inline]
    fn across(self) -> [__m128i; 3] {
        [self.low, self.middle, self.high].map(|lanes| {
            let half = _mm256_xor_si256(_mm512_castsi512_si256(lanes), _mm512_extracti64x4_epi64::<1>(lanes));
            _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256::<1>(half))
        })
    }
}

/// What x^64 is worth 64 bits above: x^128 = x^7 + x^2 + x + 1, of which the 1 is the exchange of halves, and the rest divided by x.
const FOLD: i64 = 0xc2u64.cast_signed() << 56;

/// Adds the lower half of each number, whose coefficients are the highest, where it is worth the same 128 bits above: the lower half of
/// the result is what is left to fold.
#[target_feature(enable = "avx512f,vpclmulqdq")]
#[inline]
fn fold_low(numbers: __m512i) -> __m512i {
    let products = _mm512_clmulepi64_epi128::<0x00>(numbers, _mm512_set1_epi64(FOLD));
    _mm512_xor_si512(_mm512_shuffle_epi32::<0x4e>(numbers), products)
}

/// One number modulo the polynomial.
#[target_feature(enable = "avx512f,pclmulqdq")]
#[inline]
fn reduce([low, middle, high]: [__m128i; 3]) -> __m128i {
    let fold = _mm_set1_epi64x(FOLD);
    let low = _mm_xor_si128(low, _mm_bslli_si128::<8>(middle));
    let high = _mm_xor_si128(high, _mm_bsrli_si128::<8>(middle));
    let once = _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(low), _mm_clmulepi64_si128::<0x00>(low, fold));
    let twice = _mm_xor_si128(_mm_shuffle_epi32::<0x4e>(once), _mm_clmulepi64_si128::<0x00>(once, fold));
    _mm_xor_si128(high, twice)
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,aes,vaes,pclmulqdq,vpclmulqdq")]
fn expand(key: &[u8; 32]) -> Schedule {
    let mut schedule = Schedule { powers: [[0; BLOCK]; POWERS], rounds: [[0; BLOCK]; ROUNDS] };
    let (halves, _) = key.as_chunks();
    // FIPS 197, 5.2: each round key follows from the two before it.
    let (mut even, mut odd) = (load(&halves[0]), load(&halves[1]));
    let next = |before: __m128i, word: __m128i| {
        let sum = _mm_xor_si128(before, _mm_bslli_si128::<4>(before));
        _mm_xor_si128(_mm_xor_si128(sum, _mm_bslli_si128::<8>(sum)), word)
    };
    macro_rules! two_rounds {
        ($n:literal, $constant:literal) => {
            store(&mut schedule.rounds[$n], even);
            store(&mut schedule.rounds[$n + 1], odd);
            even = next(even, _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<$constant>(odd)));
            odd = next(odd, _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(even)));
        };
    }
    two_rounds!(0, 0x01);
    two_rounds!(2, 0x02);
    two_rounds!(4, 0x04);
    two_rounds!(6, 0x08);
    two_rounds!(8, 0x10);
    two_rounds!(10, 0x20);
    two_rounds!(12, 0x40);
    let _ = odd;
    store(&mut schedule.rounds[14], even);

    // H is the block of zeros, encrypted: SP 800-38D, 7.1.
    let mut h = load(&schedule.rounds[0]);
    for round in &schedule.rounds[1..14] {
        h = _mm_aesenc_si128(h, load(round));
    }
    let h = turn_one(_mm_aesenclast_si128(h, load(&schedule.rounds[14])));
    // Divided by x: one bit up, and where that loses the coefficient of 1, what 1 / x is: x^127 + x^6 + x + 1.
    let lost = _mm_shuffle_epi32::<0xff>(_mm_srai_epi32::<31>(h));
    let carried = _mm_bslli_si128::<8>(_mm_srli_epi64::<63>(h));
    let doubled = _mm_or_si128(_mm_slli_epi64::<1>(h), carried);
    let h = _mm_xor_si128(doubled, _mm_and_si128(lost, _mm_set_epi64x(FOLD, 1)));
    let mut power = h;
    for place in schedule.powers.iter_mut().rev() {
        store(place, power);
        let [a, b] = [_mm512_zextsi128_si512(power), _mm512_zextsi128_si512(h)];
        power = reduce(Products::of(a, b).across());
    }
    schedule
}

/// Lanes so many bytes of which are to be read or written, of one at the least.
fn mask(bytes: usize) -> u64 {
    u64::MAX >> (VECTOR - bytes)
}

/// At most four blocks, and at least a byte, turned, the last block in the last lane.
#[target_feature(enable = "avx512f,avx512bw")]
#[inline]
fn right_aligned(aad: &[u8]) -> __m512i {
    let lanes = aad.len().div_ceil(BLOCK);
    // SAFETY: no more bytes are read than the mask has bits, as many as `aad` has bytes: from 1 to 64.
    let blocks = unsafe { _mm512_maskz_loadu_epi8(mask(aad.len()), aad.as_ptr().cast()) };
    _mm512_maskz_expand_epi64((0xff << (8 - 2 * lanes)) as u8, turn(blocks))
}

/// More than that: its last block, with what came before it reduced, is in the last lane.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,vpclmulqdq")]
#[inline(never)]
fn absorb_long(key: &Schedule, aad: &[u8]) -> __m512i {
    // The first vector has what the others, which are full but for the last one's last block, leave.
    let (first, rest) = aad.split_at((aad.len().div_ceil(BLOCK) - 1) % 4 * BLOCK + BLOCK);
    let mut sum = right_aligned(first);
    for vector in rest.chunks(VECTOR) {
        let so_far = Products::of(sum, key.power::<4>()).reduced();
        sum = _mm512_xor_si512(so_far, right_aligned(vector));
    }
    sum
}

/// All of a message: the text, in its place, and the tag.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,aes,vaes,pclmulqdq,vpclmulqdq")]
fn apply<const SEAL: bool>(key: &Schedule, nonce: [u8; 12], aad: &[u8], text: &mut [u8]) -> u128 {
    // 1. AAD: before the round keys are in registers, which a call would spill.
    let mut before = if aad.is_empty() {
        _mm512_setzero_si512() // and not by a mask: no byte has to be readable where this points to
    } else if aad.len() <= VECTOR {
        right_aligned(aad)
    } else {
        absorb_long(key, aad)
    };
    let rounds = [
        broadcast(&key.rounds[0]),
        broadcast(&key.rounds[1]),
        broadcast(&key.rounds[2]),
        broadcast(&key.rounds[3]),
        broadcast(&key.rounds[4]),
        broadcast(&key.rounds[5]),
        broadcast(&key.rounds[6]),
        broadcast(&key.rounds[7]),
        broadcast(&key.rounds[8]),
        broadcast(&key.rounds[9]),
        broadcast(&key.rounds[10]),
        broadcast(&key.rounds[11]),
        broadcast(&key.rounds[12]),
        broadcast(&key.rounds[13]),
        broadcast(&key.rounds[14]),
    ];
    // SP 800-38D, 7.1: the first block is the nonce and the number 1, and hides the tag; those of the text count on from it.
    let mut first = [0; BLOCK];
    first[..12].copy_from_slice(&nonce);
    first[15] = 1;
    let first = load(&first);
    let hiding = encrypt_one(&rounds, first);
    let turned = turn(_mm512_broadcast_i32x4(first));
    let mut stream = Stream {
        rounds,
        next: _mm512_add_epi32(turned, _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1)),
    };
    let bits = |bytes: usize| (bytes as u64 * 8).cast_signed();
    let lengths = _mm_set_epi64x(bits(aad.len()), bits(text.len()));

    // 2. Groups of four vectors, as long as more than three remain. A group is hashed beside the encryption of the next one. The vector
    // before is added lane by lane to what follows, so that only the end is added across lanes.
    let [h16, h12, h8, h4] = [key.power::<16>(), key.power::<12>(), key.power::<8>(), key.power::<4>()];
    let hash = |before, sealed: [__m512i; GROUP]| {
        let sums = Products::of(before, h16).and(sealed[0], h12).and(sealed[1], h8).and(sealed[2], h4);
        _mm512_xor_si512(sums.reduced(), sealed[3])
    };
    let (mut rest, mut group) = (text, None);
    while rest.len() > (GROUP - 1) * VECTOR {
        let (now, after) = rest.split_at_mut(rest.len().min(GROUP * VECTOR));
        let sealed = stream.apply::<GROUP, SEAL>(now);
        if let Some((sealed, _)) = group {
            before = hash(before, sealed);
        }
        group = Some((sealed, now.len().div_ceil(BLOCK)));
        rest = after;
    }
    // 3. The end, each block by the power that its distance from it says.
    let far = |before, blocks| Products::of(before, key.powers_from(blocks + 5));
    let near = |sums: Products, sealed, blocks| sums.and(sealed, key.powers_from(blocks + 1));
    let sums = match (group, rest.len().div_ceil(BLOCK)) {
        (None, 0) => far(before, 0),
        (Some((sealed, blocks)), 0) => {
            let before = _mm512_xor_si512(Products::of(before, h4).reduced(), sealed[0]);
            let sums = near(near(far(before, blocks - 4), sealed[1], blocks - 4), sealed[2], blocks - 8);
            near(sums, sealed[3], blocks - 12)
        }
        (group, blocks) => {
            if let Some((sealed, _)) = group {
                before = hash(before, sealed);
            }
            let sums = far(before, blocks);
            match blocks {
                ..=4 => {
                    let sealed = stream.apply::<1, SEAL>(rest);
                    near(sums, sealed[0], blocks)
                }
                5..=8 => {
                    let sealed = stream.apply::<2, SEAL>(rest);
                    near(near(sums, sealed[0], blocks), sealed[1], blocks - 4)
                }
                _ => {
                    let sealed = stream.apply::<3, SEAL>(rest);
                    near(near(near(sums, sealed[0], blocks), sealed[1], blocks - 4), sealed[2], blocks - 8)
                }
            }
        }
    };
    // 4. And the block of lengths, by the first power.
    let h = load(&key.powers[POWERS - 1]);
    let [low, middle, high] = sums.across();
    let low = _mm_xor_si128(low, _mm_clmulepi64_si128::<0x00>(lengths, h));
    let middle = _mm_xor_si128(
        middle,
        _mm_xor_si128(_mm_clmulepi64_si128::<0x01>(lengths, h), _mm_clmulepi64_si128::<0x10>(lengths, h)),
    );
    let high = _mm_xor_si128(high, _mm_clmulepi64_si128::<0x11>(lengths, h));
    let tag = _mm_xor_si128(turn_one(reduce([low, middle, high])), hiding);
    (_mm_extract_epi64::<1>(tag).cast_unsigned() as u128) << 64 | _mm_cvtsi128_si64(tag).cast_unsigned() as u128
}

#[target_feature(enable = "avx512f,aes")]
#[inline]
fn encrypt_one(rounds: &[__m512i; ROUNDS], block: __m128i) -> __m128i {
    let round = |n: usize| _mm512_castsi512_si128(rounds[n]);
    let block = _mm_xor_si128(block, round(0));
    let block = _mm_aesenc_si128(_mm_aesenc_si128(_mm_aesenc_si128(block, round(1)), round(2)), round(3));
    let block = _mm_aesenc_si128(_mm_aesenc_si128(_mm_aesenc_si128(block, round(4)), round(5)), round(6));
    let block = _mm_aesenc_si128(_mm_aesenc_si128(_mm_aesenc_si128(block, round(7)), round(8)), round(9));
    let block = _mm_aesenc_si128(_mm_aesenc_si128(_mm_aesenc_si128(block, round(10)), round(11)), round(12));
    _mm_aesenclast_si128(_mm_aesenc_si128(block, round(13)), round(14))
}

/// The key stream of a message.
struct Stream {
    rounds: [__m512i; ROUNDS],
    /// The next four blocks to encrypt, turned, so that what counts are the lowest 32 bits of each: modulo 2^32, as inc32 of SP 800-38D,
    /// 6.2, which no message is long enough for.
    next: __m512i,
}

/// One round of the first so many of four vectors. A macro of literal indices, since an array indexed in a loop would live in memory.
macro_rules! round {
    ($n:ident, $x:ident, $instruction:ident, $keys:expr) => {
        $x[0] = $instruction($x[0], $keys[0]);
        if $n > 1 {
            $x[1] = $instruction($x[1], $keys[1]);
        }
        if $n > 2 {
            $x[2] = $instruction($x[2], $keys[2]);
        }
        if $n > 3 {
            $x[3] = $instruction($x[3], $keys[3]);
        }
    };
}

impl Stream {
    /// Adds the key stream to a text that begins in each of so many vectors, in its place: the ciphertext, turned, with zeros after it.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,vaes")]
    #[inline]
    fn apply<const N: usize, const SEAL: bool>(&mut self, text: &mut [u8]) -> [__m512i; 4] {
        const { assert!(0 < N && N <= 4) };
        assert!(text.len() > (N - 1) * VECTOR && text.len() <= N * VECTOR);
        let last = mask(text.len() - (N - 1) * VECTOR);
        let at = text.as_mut_ptr();
        let [zero, four] = [_mm512_setzero_si512(), _mm512_set_epi32(0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 4)];
        let mut x = [zero; 4];
        let mut counters = self.next;
        for x in &mut x[..N] {
            *x = counters;
            counters = _mm512_add_epi32(counters, four);
        }
        self.next = counters;
        let k = &self.rounds;
        let turned = |counters, key| _mm512_xor_si512(turn(counters), key);
        round!(N, x, turned, [k[0]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[1]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[2]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[3]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[4]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[5]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[6]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[7]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[8]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[9]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[10]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[11]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[12]; 4]);
        round!(N, x, _mm512_aesenc_epi128, [k[13]; 4]);
        let mut given = [zero; 4];
        for (n, given) in given[..N - 1].iter_mut().enumerate() {
            // SAFETY: the text goes beyond vector N - 1, and this is one before it.
            *given = unsafe { _mm512_loadu_si512(at.add(n * VECTOR).cast()) };
        }
        // SAFETY: of the last vector, which begins in the text, no more bytes are read than the mask has bits: those to the text's end.
        given[N - 1] = unsafe { _mm512_maskz_loadu_epi8(last, at.add((N - 1) * VECTOR).cast()) };
        // The last round adds its key, and so the text with it.
        let sums = given.map(|given| _mm512_xor_si512(given, k[14]));
        round!(N, x, _mm512_aesenclast_epi128, sums);
        for (n, x) in x[..N - 1].iter().enumerate() {
            // SAFETY: as it was read, of a slice that may be written.
            unsafe { _mm512_storeu_si512(at.add(n * VECTOR).cast(), *x) };
        }
        // SAFETY: as it was read, of a slice that may be written.
        unsafe { _mm512_mask_storeu_epi8(at.add((N - 1) * VECTOR).cast(), last, x[N - 1]) };
        let mut sealed = if SEAL { x } else { given };
        sealed[N - 1] = _mm512_maskz_mov_epi8(last, sealed[N - 1]);
        sealed.map(|sealed| turn(sealed))
    }
}
