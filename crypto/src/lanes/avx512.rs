//! AVX-512: 16 blocks of ChaCha20, and 8 messages of Poly1305 in limbs of 44 bits, for which IFMA has the multiplication.
#![allow(unsafe_code, reason = "vectors come from memory and go there by pointers")]

use std::arch::x86_64::*;

use super::chacha::{self, Block};
use super::poly::{self, Lanes};

/// Blocks at a time.
pub(super) const BLOCKS: usize = 16;
/// Messages at a time.
pub(super) const MACS: usize = 8;

/// Four quarter rounds of RFC 8439, 2.1, in each lane, on the words of these numbers.
///
/// A macro, since a function of arrays is not unrolled before it is inlined, and then too late to live in registers.
macro_rules! quarters {
    ($x:ident, $([$a:literal $b:literal $c:literal $d:literal]),+) => {
        $(add_turn!($x, $a, $b, $d, 16);)+
        $(add_turn!($x, $c, $d, $b, 12);)+
        $(add_turn!($x, $a, $b, $d, 8);)+
        $(add_turn!($x, $c, $d, $b, 7);)+
    };
}

/// a += b; d = (d ^ a) <<< by.
macro_rules! add_turn {
    ($x:ident, $a:literal, $b:literal, $d:literal, $by:literal) => {
        $x[$a] = _mm512_add_epi32($x[$a], $x[$b]);
        $x[$d] = _mm512_rol_epi32::<$by>(_mm512_xor_si512($x[$d], $x[$a]));
    };
}

/// Adds each block of key stream to its text.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
pub(super) fn blocks(blocks: &mut [Block<'_>; BLOCKS]) {
    let start = state(blocks);
    let mut x = start;
    for _ in 0..10 {
        quarters!(x, [0 4 8 12], [1 5 9 13], [2 6 10 14], [3 7 11 15]);
        quarters!(x, [0 5 10 15], [1 6 11 12], [2 7 8 13], [3 4 9 14]);
    }
    for n in 0..16 {
        x[n] = _mm512_add_epi32(x[n], start[n]);
    }
    // Four words of each lane: in vector i those of the lanes i, 4 + i, 8 + i and 12 + i.
    let a = transpose4([x[0], x[1], x[2], x[3]]);
    let b = transpose4([x[4], x[5], x[6], x[7]]);
    let c = transpose4([x[8], x[9], x[10], x[11]]);
    let d = transpose4([x[12], x[13], x[14], x[15]]);
    for i in 0..4 {
        let (ab_low, ab_high) = (_mm512_shuffle_i64x2::<0x44>(a[i], b[i]), _mm512_shuffle_i64x2::<0xee>(a[i], b[i]));
        let (cd_low, cd_high) = (_mm512_shuffle_i64x2::<0x44>(c[i], d[i]), _mm512_shuffle_i64x2::<0xee>(c[i], d[i]));
        add(blocks[i].text, _mm512_shuffle_i64x2::<0x88>(ab_low, cd_low));
        add(blocks[4 + i].text, _mm512_shuffle_i64x2::<0xdd>(ab_low, cd_low));
        add(blocks[8 + i].text, _mm512_shuffle_i64x2::<0x88>(ab_high, cd_high));
        add(blocks[12 + i].text, _mm512_shuffle_i64x2::<0xdd>(ab_high, cd_high));
    }
}

/// The first state of each block, a word of all of them in each vector.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn state(blocks: &[Block<'_>; BLOCKS]) -> [__m512i; 16] {
    // Words 0 to 3 of lanes in the even quarters, words 4 to 7 in the odd ones.
    let low = transpose4([keys(blocks, 0), keys(blocks, 1), keys(blocks, 2), keys(blocks, 3)]);
    let high = transpose4([keys(blocks, 8), keys(blocks, 9), keys(blocks, 10), keys(blocks, 11)]);
    let inputs = transpose4([inputs(blocks, 0), inputs(blocks, 1), inputs(blocks, 2), inputs(blocks, 3)]);
    [
        _mm512_set1_epi32(chacha::CONSTANTS[0]),
        _mm512_set1_epi32(chacha::CONSTANTS[1]),
        _mm512_set1_epi32(chacha::CONSTANTS[2]),
        _mm512_set1_epi32(chacha::CONSTANTS[3]),
        _mm512_shuffle_i64x2::<0x88>(low[0], high[0]),
        _mm512_shuffle_i64x2::<0x88>(low[1], high[1]),
        _mm512_shuffle_i64x2::<0x88>(low[2], high[2]),
        _mm512_shuffle_i64x2::<0x88>(low[3], high[3]),
        _mm512_shuffle_i64x2::<0xdd>(low[0], high[0]),
        _mm512_shuffle_i64x2::<0xdd>(low[1], high[1]),
        _mm512_shuffle_i64x2::<0xdd>(low[2], high[2]),
        _mm512_shuffle_i64x2::<0xdd>(low[3], high[3]),
        inputs[0],
        inputs[1],
        inputs[2],
        inputs[3],
    ]
}

/// The keys of lanes `l` and `l + 4`.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn keys(blocks: &[Block<'_>; BLOCKS], l: usize) -> __m512i {
    // SAFETY: a key is 32 bytes.
    let [low, high] = [l, l + 4].map(|l| unsafe { _mm256_loadu_si256(blocks[l].key.as_ptr().cast()) });
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// The inputs of lanes `l`, `l + 4`, `l + 8` and `l + 12`.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn inputs(blocks: &[Block<'_>; BLOCKS], l: usize) -> __m512i {
    // SAFETY: an input is 16 bytes.
    quads([l, l + 4, l + 8, l + 12].map(|l| unsafe { _mm_loadu_si128((&raw const blocks[l].input).cast()) }))
}

/// Transposes 4 by 4 words in each quarter.
#[target_feature(enable = "avx512f")]
#[inline]
fn transpose4([a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn quads([a, b, c, d]: [__m128i; 4]) -> __m512i {
    let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
    let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(c), d);
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
}

/// Adds a block of key stream to a text that may be shorter.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
#[inline]
fn add(text: &mut [u8], stream: __m512i) {
    let at = text.as_mut_ptr();
    match text.len() {
        // SAFETY: the text is 64 bytes.
        chacha::BLOCK => unsafe {
            _mm512_storeu_si512(at.cast(), _mm512_xor_si512(_mm512_loadu_si512(at.cast()), stream));
        },
        // SAFETY: the text is 32 bytes.
        32 => unsafe {
            let stream = _mm512_castsi512_si256(stream);
            _mm256_storeu_si256(at.cast(), _mm256_xor_si256(_mm256_loadu_si256(at.cast()), stream));
        },
        // A masked store of nothing is slow where the address is nothing, too.
        0 => {}
        len => {
            debug_assert!(len < chacha::BLOCK);
            let mask = (1 << len) - 1;
            // SAFETY: the mask has a one for each byte of the text; of the others nothing is read or written.
            unsafe {
                let sum = _mm512_xor_si512(_mm512_maskz_loadu_epi8(mask, at.cast()), stream);
                _mm512_mask_storeu_epi8(at.cast(), mask, sum);
            }
        }
    }
}

const LIMB: i64 = (1 << 44) - 1;
const TOP_LIMB: i64 = (1 << 42) - 1;

/// Numbers below 2^130 or so, in limbs of 44, 44 and 42 bits.
type Limbs = [__m512i; 3];

/// The tags of eight messages.
#[target_feature(enable = "avx512f,avx512vl,avx512ifma")]
pub(super) fn tags(lanes: &mut Lanes<'_, MACS>) -> [[u8; 16]; MACS] {
    let key = lanes.macs.each_ref().map(|mac| mac.key.as_ptr());
    // SAFETY: a key is 32 bytes: two blocks, here and where its second half is read.
    let (low, high) = unsafe { load(key, 0) };
    let r = limbs(
        _mm512_and_si512(low, _mm512_set1_epi64(0x0fff_fffc_0fff_ffff)),
        _mm512_and_si512(high, _mm512_set1_epi64(0x0fff_fffc_0fff_fffc)),
    );
    // 2^132 is 4 times 2^130, which is 5.
    let [_, r1_20, r2_20] = r.map(|r| _mm512_slli_epi64::<2>(_mm512_add_epi64(r, _mm512_slli_epi64::<2>(r))));
    let mut h = [_mm512_setzero_si512(); 3];
    while let Some(run) = lanes.run() {
        if let Some(keep) = &run.keep {
            let keep = words(keep);
            h = h.map(|h| _mm512_and_si512(h, keep));
        }
        let at = run.lanes.map(|lane| {
            assert!(lane.len() >= run.blocks * poly::BLOCK);
            lane.as_ptr()
        });
        for n in 0..run.blocks {
            // SAFETY: block `n` of `run.blocks`, which every lane holds.
            let (low, high) = unsafe { load(at, n * poly::BLOCK) };
            h = multiply(plus_block(h, low, high), r, r1_20, r2_20);
        }
    }
    let begun = words(&lanes.begun());
    h = h.map(|h| _mm512_and_si512(h, begun));
    let (aad, text) =
        (lanes.macs.each_ref().map(|mac| mac.aad.len() as u64), lanes.macs.each_ref().map(|mac| mac.text.len() as u64));
    h = multiply(plus_block(h, words(&aad), words(&text)), r, r1_20, r2_20);
    // SAFETY: as above.
    let s = unsafe { load(key, poly::BLOCK) };
    finish(h, s)
}

/// The 16 bytes at `offset` of each lane, as words of 64 bits.
///
/// The lanes come out in the order 0, 4, 1, 5, 2, 6, 3, 7: of no matter as long as all that is loaded has the same.
///
/// # Safety
/// Each pointer is that of `offset + 16` readable bytes.
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load(lanes: [*const u8; MACS], offset: usize) -> (__m512i, __m512i) {
    let block = |l: usize| {
        // SAFETY: the caller's.
        unsafe { _mm_loadu_si128(lanes[l].add(offset).cast()) }
    };
    let first = quads([block(0), block(1), block(2), block(3)]);
    let second = quads([block(4), block(5), block(6), block(7)]);
    (_mm512_unpacklo_epi64(first, second), _mm512_unpackhi_epi64(first, second))
}

/// A word for each lane, in the order of [`load`].
#[target_feature(enable = "avx512f")]
#[inline]
fn words(words: &[u64; MACS]) -> __m512i {
    // SAFETY: eight words of 64 bits.
    let words = unsafe { _mm512_loadu_si512(words.as_ptr().cast()) };
    _mm512_permutexvar_epi64(_mm512_set_epi64(7, 3, 6, 2, 5, 1, 4, 0), words)
}

/// `h` plus a block with its one above.
#[target_feature(enable = "avx512f")]
#[inline]
fn plus_block(h: Limbs, low: __m512i, high: __m512i) -> Limbs {
    let m = limbs(low, high);
    let top = _mm512_or_si512(m[2], _mm512_set1_epi64(1 << 40));
    [_mm512_add_epi64(h[0], m[0]), _mm512_add_epi64(h[1], m[1]), _mm512_add_epi64(h[2], top)]
}

#[target_feature(enable = "avx512f")]
#[inline]
fn limbs(low: __m512i, high: __m512i) -> Limbs {
    let mask = _mm512_set1_epi64(LIMB);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    [_mm512_and_si512(low, mask), _mm512_and_si512(middle, mask), _mm512_srli_epi64::<24>(high)]
}

/// `h` times `r`, partly carried.
///
/// Limbs of `h` are below 2^51, 2^45 and 2^43 on entry, so that the multiplier of 52 bits takes them; and are below 2^50.1, 2^44 and 2^42
/// on return, so that they are below those bounds again when a block was added: with r below 2^44, 2^44 and 2^36 (it is clamped) the
/// high halves add up to less than 2^43.2, 2^43.1 and 2^37.6, and the low halves to less than 2^54.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn multiply(h: Limbs, r: Limbs, r1_20: __m512i, r2_20: __m512i) -> Limbs {
    let zero = _mm512_setzero_si512();
    let low = |a, b, sum| _mm512_madd52lo_epu64(sum, a, b);
    let high = |a, b, sum| _mm512_madd52hi_epu64(sum, a, b);
    // The first limb comes last, since it is ready last.
    let d0 = low(h[0], r[0], low(h[2], r1_20, low(h[1], r2_20, zero)));
    let d1 = low(h[0], r[1], low(h[2], r2_20, low(h[1], r[0], zero)));
    let d2 = low(h[0], r[2], low(h[2], r[0], low(h[1], r[1], zero)));
    let e0 = high(h[0], r[0], high(h[2], r1_20, high(h[1], r2_20, zero)));
    let e1 = high(h[0], r[1], high(h[2], r2_20, high(h[1], r[0], zero)));
    let e2 = high(h[0], r[2], high(h[2], r[0], high(h[1], r[1], zero)));
    // A high half weighs 2^52: 2^8 of the next limb, or 2^10 of what lies above 2^130.
    let d1 = _mm512_add_epi64(_mm512_add_epi64(d1, _mm512_slli_epi64::<8>(e0)), _mm512_srli_epi64::<44>(d0));
    let d2 = _mm512_add_epi64(_mm512_add_epi64(d2, _mm512_slli_epi64::<8>(e1)), _mm512_srli_epi64::<44>(d1));
    let over = _mm512_add_epi64(_mm512_slli_epi64::<10>(e2), _mm512_srli_epi64::<42>(d2));
    let d0 = _mm512_and_si512(d0, _mm512_set1_epi64(LIMB));
    [
        _mm512_add_epi64(_mm512_add_epi64(d0, over), _mm512_slli_epi64::<2>(over)),
        _mm512_and_si512(d1, _mm512_set1_epi64(LIMB)),
        _mm512_and_si512(d2, _mm512_set1_epi64(TOP_LIMB)),
    ]
}

/// Brings `h` below 2^130 - 5, and adds `s` modulo 2^128.
#[target_feature(enable = "avx512f")]
#[inline]
fn finish(h: Limbs, s: (__m512i, __m512i)) -> [[u8; 16]; MACS] {
    let mask = _mm512_set1_epi64(LIMB);
    let [mut h0, mut h1, mut h2] = h;
    // Once around, and once more from the first limb: which took 5 at most, and only where the carry came through limbs that it emptied.
    h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
    h0 = _mm512_and_si512(h0, mask);
    h2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(h1));
    h1 = _mm512_and_si512(h1, mask);
    let over = _mm512_srli_epi64::<42>(h2);
    h2 = _mm512_and_si512(h2, _mm512_set1_epi64(TOP_LIMB));
    h0 = _mm512_add_epi64(h0, _mm512_add_epi64(over, _mm512_slli_epi64::<2>(over)));
    h1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(h0));
    h0 = _mm512_and_si512(h0, mask);
    // h + 5 reaches 2^130 just if h reaches p; then what is left of it is h - p.
    let g0 = _mm512_add_epi64(h0, _mm512_set1_epi64(5));
    let g1 = _mm512_add_epi64(h1, _mm512_srli_epi64::<44>(g0));
    let g2 = _mm512_add_epi64(h2, _mm512_srli_epi64::<44>(g1));
    let reached = _mm512_sub_epi64(_mm512_setzero_si512(), _mm512_srli_epi64::<42>(g2));
    let select = |h, g| _mm512_or_si512(_mm512_andnot_si512(reached, h), _mm512_and_si512(reached, g));
    let h0 = select(h0, _mm512_and_si512(g0, mask));
    let h1 = select(h1, _mm512_and_si512(g1, mask));
    let h2 = select(h2, g2);
    let low = _mm512_or_si512(h0, _mm512_slli_epi64::<44>(h1));
    let high = _mm512_or_si512(_mm512_srli_epi64::<20>(h1), _mm512_slli_epi64::<24>(h2));
    let tag_low = _mm512_add_epi64(low, s.0);
    let carried = _mm512_cmplt_epu64_mask(tag_low, low);
    let tag_high = _mm512_add_epi64(high, s.1);
    let tag_high = _mm512_mask_add_epi64(tag_high, carried, tag_high, _mm512_set1_epi64(1));
    let mut tags = [[0; 16]; MACS];
    let at = tags.as_mut_ptr().cast::<__m512i>();
    // SAFETY: eight tags of 16 bytes are two vectors of 64, and need no alignment.
    unsafe {
        _mm512_storeu_si512(at, _mm512_unpacklo_epi64(tag_low, tag_high));
        _mm512_storeu_si512(at.add(1), _mm512_unpackhi_epi64(tag_low, tag_high));
    }
    tags
}
