//! AVX2: 8 blocks of ChaCha20, and 4 messages of Poly1305 in limbs of 26 bits.
#![allow(unsafe_code, reason = "vectors come from memory and go there by pointers; two loops are assembly")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::array::from_fn;

use super::chacha::{self, Block};
use super::poly::{self, Lanes};

/// Blocks at a time.
pub(super) const BLOCKS: usize = 8;
/// Messages at a time.
pub(super) const MACS: usize = 4;

/// Adds each block of key stream to its text.
#[target_feature(enable = "avx2")]
pub(super) fn blocks(blocks: &mut [Block<'_>; BLOCKS]) {
    let start = state(blocks);
    let mut x = start;
    rounds(&mut x);
    for (x, start) in x.iter_mut().zip(&start) {
        *x = _mm256_add_epi32(*x, *start);
    }
    let [first, second] = [0, 8].map(|n| transpose8(from_fn(|l| x[n + l])));
    for (block, (first, second)) in blocks.iter_mut().zip(first.into_iter().zip(second)) {
        add(block.text, first, second);
    }
}

/// The first state of each block, a word of all of them in each vector.
#[target_feature(enable = "avx2")]
#[inline]
fn state(blocks: &[Block<'_>; BLOCKS]) -> [__m256i; 16] {
    let keys = transpose8(from_fn(|l| {
        // SAFETY: a key is 32 bytes.
        unsafe { _mm256_loadu_si256(blocks[l].key.as_ptr().cast()) }
    }));
    let inputs = transpose4(from_fn(|l| {
        let input = |l: usize| {
            // SAFETY: an input is 16 bytes.
            unsafe { _mm_loadu_si128((&raw const blocks[l].input).cast()) }
        };
        _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(input(l)), input(l + 4))
    }));
    from_fn(|n| match n {
        0..4 => _mm256_set1_epi32(chacha::CONSTANTS[n]),
        4..12 => keys[n - 4],
        _ => inputs[n - 12],
    })
}

/// Four quarter rounds of RFC 8439, 2.1, in each lane: `a`, `b`, `c` and `d` are registers, of which 11 lives in memory, so that there
/// is one in which to shift.
macro_rules! quarters {
    ($($a:literal $b:literal $c:tt $d:literal),+) => {
        concat!(
            $(add_xor!($a, $b, $d),)+
            $("vpshufb ymm", $d, ", ymm", $d, ", [{turns}]\n",)+
            $(sum!($c, $d),)+
            $("vpxor ymm", $b, ", ymm", $b, ", ymm", $c, "\n",)+
            $(turn!($b, 12, 20),)+
            $(add_xor!($a, $b, $d),)+
            $("vpshufb ymm", $d, ", ymm", $d, ", [{turns} + 32]\n",)+
            $(sum!($c, $d),)+
            $("vpxor ymm", $b, ", ymm", $b, ", ymm", $c, "\n",)+
            $(turn!($b, 7, 25),)+
        )
    };
}

macro_rules! add_xor {
    ($a:literal, $b:literal, $d:literal) => {
        concat!("vpaddd ymm", $a, ", ymm", $a, ", ymm", $b, "\n", "vpxor ymm", $d, ", ymm", $d, ", ymm", $a, "\n")
    };
}

macro_rules! sum {
    (11, $d:literal) => {
        concat!("vpaddd ymm11, ymm", $d, ", [{x} + 352]\n", "vmovdqu [{x} + 352], ymm11\n")
    };
    ($c:literal, $d:literal) => {
        concat!("vpaddd ymm", $c, ", ymm", $c, ", ymm", $d, "\n")
    };
}

macro_rules! turn {
    ($b:literal, $left:literal, $right:literal) => {
        concat!(
            "vpslld ymm11, ymm",
            $b,
            ", ",
            $left,
            "\n",
            "vpsrld ymm",
            $b,
            ", ymm",
            $b,
            ", ",
            $right,
            "\n",
            "vpor ymm",
            $b,
            ", ymm",
            $b,
            ", ymm11\n"
        )
    };
}

/// Bytes of each word turned by two, and by one: rotations by 16 and by 8 bits.
#[repr(align(32))]
struct Turns([[u8; 32]; 2]);

const fn turns(by: u8) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut n = 0;
    while n < 32 {
        bytes[n as usize] = (n & 12) | ((n + 4 - by) & 3);
        n += 1;
    }
    bytes
}

static TURNS: Turns = Turns([turns(2), turns(1)]);

/// The twenty rounds.
///
/// In assembly, since compilers find no way to turn 16 vectors in 16 registers but to spill many.
#[target_feature(enable = "avx2")]
#[inline]
fn rounds(x: &mut [__m256i; 16]) {
    // SAFETY: reads and writes the 512 bytes of `x`, reads the 64 of `TURNS`, at multiples of 32 as `vpshufb` in memory needs none;
    // every register it writes is named.
    unsafe {
        asm!(
            "vmovdqu ymm0, [{x}]", "vmovdqu ymm1, [{x} + 32]", "vmovdqu ymm2, [{x} + 64]", "vmovdqu ymm3, [{x} + 96]",
            "vmovdqu ymm4, [{x} + 128]", "vmovdqu ymm5, [{x} + 160]", "vmovdqu ymm6, [{x} + 192]", "vmovdqu ymm7, [{x} + 224]",
            "vmovdqu ymm8, [{x} + 256]", "vmovdqu ymm9, [{x} + 288]", "vmovdqu ymm10, [{x} + 320]",
            "vmovdqu ymm12, [{x} + 384]", "vmovdqu ymm13, [{x} + 416]", "vmovdqu ymm14, [{x} + 448]", "vmovdqu ymm15, [{x} + 480]",
            "2:",
            // Register 11 first, as its sum comes first from memory.
            quarters!(3 7 11 15, 0 4 8 12, 1 5 9 13, 2 6 10 14),
            quarters!(1 6 11 12, 0 5 10 15, 2 7 8 13, 3 4 9 14),
            "dec {n:e}",
            "jnz 2b",
            "vmovdqu [{x}], ymm0", "vmovdqu [{x} + 32], ymm1", "vmovdqu [{x} + 64], ymm2", "vmovdqu [{x} + 96], ymm3",
            "vmovdqu [{x} + 128], ymm4", "vmovdqu [{x} + 160], ymm5", "vmovdqu [{x} + 192], ymm6", "vmovdqu [{x} + 224], ymm7",
            "vmovdqu [{x} + 256], ymm8", "vmovdqu [{x} + 288], ymm9", "vmovdqu [{x} + 320], ymm10",
            "vmovdqu [{x} + 384], ymm12", "vmovdqu [{x} + 416], ymm13", "vmovdqu [{x} + 448], ymm14", "vmovdqu [{x} + 480], ymm15",
            x = in(reg) x.as_mut_ptr(),
            turns = in(reg) TURNS.0.as_ptr(),
            n = inout(reg) 10 => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _, out("ymm6") _, out("ymm7") _,
            out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
            out("ymm15") _,
            options(nostack),
        );
    }
}

/// Transposes 4 by 4 words in each half.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose4([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (ab_low, ab_high) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    [
        _mm256_unpacklo_epi64(ab_low, cd_low),
        _mm256_unpackhi_epi64(ab_low, cd_low),
        _mm256_unpacklo_epi64(ab_high, cd_high),
        _mm256_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// Transposes 8 by 8 words.
#[target_feature(enable = "avx2")]
#[inline]
fn transpose8([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> [__m256i; 8] {
    let (first, second) = (transpose4([a, b, c, d]), transpose4([e, f, g, h]));
    from_fn(|n| match n {
        0..4 => _mm256_permute2x128_si256::<0x20>(first[n], second[n]),
        _ => _mm256_permute2x128_si256::<0x31>(first[n - 4], second[n - 4]),
    })
}

/// Adds a block of key stream to a text that may be shorter.
#[target_feature(enable = "avx2")]
#[inline]
fn add(text: &mut [u8], first: __m256i, second: __m256i) {
    if let Some((text, rest)) = text.split_first_chunk_mut::<32>() {
        add_half(text, first);
        if let Some(text) = rest.first_chunk_mut::<32>() {
            add_half(text, second);
        } else if !rest.is_empty() {
            add_part(rest, second);
        }
    } else {
        add_part(text, first);
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_half(text: &mut [u8; 32], stream: __m256i) {
    let at = text.as_mut_ptr().cast();
    // SAFETY: the text is 32 bytes.
    unsafe { _mm256_storeu_si256(at, _mm256_xor_si256(_mm256_loadu_si256(at), stream)) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn add_part(text: &mut [u8], stream: __m256i) {
    let mut whole = [0; 32];
    let len = text.len();
    whole[..len].copy_from_slice(text);
    add_half(&mut whole, stream);
    text.copy_from_slice(&whole[..len]);
}

const LIMB: i64 = (1 << 26) - 1;

/// Numbers below 2^130 or so, in limbs of 26 bits.
type Limbs = [__m256i; 5];

/// The tags of four messages.
#[target_feature(enable = "avx2")]
pub(super) fn tags(lanes: &mut Lanes<'_, MACS>) -> [[u8; 16]; MACS] {
    let key = lanes.macs.each_ref().map(|mac| mac.key.as_ptr());
    // SAFETY: a key is 32 bytes: two blocks, here and where its second half is read.
    let (low, high) = unsafe { load(key, 0) };
    let r = limbs(
        _mm256_and_si256(low, _mm256_set1_epi64x(0x0fff_fffc_0fff_ffff)),
        _mm256_and_si256(high, _mm256_set1_epi64x(0x0fff_fffc_0fff_fffc)),
    );
    // 2^130 is 5.
    let r: Factors = from_fn(|n| match n {
        0..5 => r[n],
        _ => _mm256_add_epi64(r[n - 5], _mm256_slli_epi64::<2>(r[n - 5])),
    });
    let mut h = [_mm256_setzero_si256(); 5];
    while let Some(run) = lanes.run() {
        if let Some(keep) = &run.keep {
            let keep = words(keep);
            h = h.map(|h| _mm256_and_si256(h, keep));
        }
        let at = run.lanes.map(|lane| {
            assert!(lane.len() >= run.blocks * poly::BLOCK);
            lane.as_ptr()
        });
        for n in 0..run.blocks {
            // SAFETY: block `n` of `run.blocks`, which every lane holds.
            let (low, high) = unsafe { load(at, n * poly::BLOCK) };
            h = multiply(plus_block(h, low, high), &r);
        }
    }
    let begun = words(&lanes.begun());
    h = h.map(|h| _mm256_and_si256(h, begun));
    let (aad, text) =
        (lanes.macs.each_ref().map(|mac| mac.aad.len() as u64), lanes.macs.each_ref().map(|mac| mac.text.len() as u64));
    h = multiply(plus_block(h, words(&aad), words(&text)), &r);
    // SAFETY: as above.
    let s = unsafe { load(key, poly::BLOCK) };
    finish(h, s)
}

/// The 16 bytes at `offset` of each lane, as words of 64 bits.
///
/// The lanes come out in the order 0, 2, 1, 3: of no matter as long as all that is loaded has the same.
///
/// # Safety
/// Each pointer is that of `offset + 16` readable bytes.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load(lanes: [*const u8; MACS], offset: usize) -> (__m256i, __m256i) {
    let block = |l: usize| {
        // SAFETY: the caller's.
        unsafe { _mm_loadu_si128(lanes[l].add(offset).cast()) }
    };
    let first = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(block(0)), block(1));
    let second = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(block(2)), block(3));
    (_mm256_unpacklo_epi64(first, second), _mm256_unpackhi_epi64(first, second))
}

/// A word for each lane, in the order of [`load`].
#[target_feature(enable = "avx2")]
#[inline]
fn words(words: &[u64; MACS]) -> __m256i {
    // SAFETY: four words of 64 bits.
    let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
    _mm256_permute4x64_epi64::<0b11_01_10_00>(words)
}

/// `h` plus a block with its one above.
#[target_feature(enable = "avx2")]
#[inline]
fn plus_block(h: Limbs, low: __m256i, high: __m256i) -> Limbs {
    let m = limbs(low, high);
    let top = _mm256_or_si256(m[4], _mm256_set1_epi64x(1 << 24));
    [
        _mm256_add_epi64(h[0], m[0]),
        _mm256_add_epi64(h[1], m[1]),
        _mm256_add_epi64(h[2], m[2]),
        _mm256_add_epi64(h[3], m[3]),
        _mm256_add_epi64(h[4], top),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn limbs(low: __m256i, high: __m256i) -> Limbs {
    let mask = _mm256_set1_epi64x(LIMB);
    let middle = _mm256_or_si256(_mm256_srli_epi64::<52>(low), _mm256_slli_epi64::<12>(high));
    [
        _mm256_and_si256(low, mask),
        _mm256_and_si256(_mm256_srli_epi64::<26>(low), mask),
        _mm256_and_si256(middle, mask),
        _mm256_and_si256(_mm256_srli_epi64::<14>(high), mask),
        _mm256_srli_epi64::<40>(high),
    ]
}

/// The limbs of r, and five times the limbs of r.
type Factors = [__m256i; 10];

/// The products of the low halves of the words, with one of the factors, which stay in memory.
///
/// An instruction, since from the intrinsic the compiler sometimes makes a product of whole words: three multiplications instead of one.
#[target_feature(enable = "avx2")]
#[inline]
fn product<const FACTOR: usize>(a: __m256i, r: &Factors) -> __m256i {
    const { assert!(FACTOR < 10) }
    let product;
    // SAFETY: reads the 32 bytes of a factor that there is, and nothing else happens.
    unsafe {
        asm!(
            "vpmuludq {}, {}, [{} + {}]", lateout(ymm_reg) product, in(ymm_reg) a, in(reg) r.as_ptr(), const FACTOR * 32,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    product
}

/// `h` times `r`, partly carried.
///
/// Limbs of `h` are below 2^28 on entry, and below 2^26 + 2^10 on return, so that they are below that bound again when a block was added: a
/// product is below 2^28 times 5 times 2^26, and the sum of five below 2^59.
#[target_feature(enable = "avx2")]
#[inline]
fn multiply(h: Limbs, r: &Factors) -> Limbs {
    let mask = _mm256_set1_epi64x(LIMB);
    let sum = |a, b, c, d, e| {
        let sum = _mm256_add_epi64(_mm256_add_epi64(a, b), _mm256_add_epi64(c, d));
        _mm256_add_epi64(sum, e)
    };
    let [a, b, c, d, e] = h;
    let d0 = sum(product::<0>(a, r), product::<9>(b, r), product::<8>(c, r), product::<7>(d, r), product::<6>(e, r));
    let d1 = sum(product::<1>(a, r), product::<0>(b, r), product::<9>(c, r), product::<8>(d, r), product::<7>(e, r));
    let d2 = sum(product::<2>(a, r), product::<1>(b, r), product::<0>(c, r), product::<9>(d, r), product::<8>(e, r));
    let d3 = sum(product::<3>(a, r), product::<2>(b, r), product::<1>(c, r), product::<0>(d, r), product::<9>(e, r));
    let d4 = sum(product::<4>(a, r), product::<3>(b, r), product::<2>(c, r), product::<1>(d, r), product::<0>(e, r));
    // Two chains at once: 0 to 1 to 2 to 3 to 4, and 3 to 4 to 0 to 1.
    let carry = |from, to| (_mm256_and_si256(from, mask), _mm256_add_epi64(to, _mm256_srli_epi64::<26>(from)));
    let (d0, d1) = carry(d0, d1);
    let (d3, d4) = carry(d3, d4);
    let (d1, d2) = carry(d1, d2);
    let over = _mm256_srli_epi64::<26>(d4);
    let d4 = _mm256_and_si256(d4, mask);
    let d0 = _mm256_add_epi64(d0, _mm256_add_epi64(over, _mm256_slli_epi64::<2>(over)));
    let (d2, d3) = carry(d2, d3);
    let (d0, d1) = carry(d0, d1);
    let (d3, d4) = carry(d3, d4);
    [d0, d1, d2, d3, d4]
}

/// Brings `h` below 2^130 - 5, and adds `s` modulo 2^128.
#[target_feature(enable = "avx2")]
#[inline]
fn finish(mut h: Limbs, s: (__m256i, __m256i)) -> [[u8; 16]; MACS] {
    let mask = _mm256_set1_epi64x(LIMB);
    // Twice around, and once more from the first limb: which took 5 at most the second time, and only from limbs that were full and
    // are empty now.
    for n in [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0] {
        let over = _mm256_srli_epi64::<26>(h[n]);
        h[n] = _mm256_and_si256(h[n], mask);
        let over = if n == 4 { _mm256_add_epi64(over, _mm256_slli_epi64::<2>(over)) } else { over };
        h[(n + 1) % 5] = _mm256_add_epi64(h[(n + 1) % 5], over);
    }
    // h + 5 reaches 2^130 just if h reaches p; then what is left of it is h - p.
    let mut g = h;
    let mut over = _mm256_set1_epi64x(5);
    for g in &mut g {
        *g = _mm256_add_epi64(*g, over);
        over = _mm256_srli_epi64::<26>(*g);
        *g = _mm256_and_si256(*g, mask);
    }
    let reached = _mm256_sub_epi64(_mm256_setzero_si256(), over);
    let h: Limbs = from_fn(|n| _mm256_blendv_epi8(h[n], g[n], reached));
    let word = |a, b, c| _mm256_or_si256(_mm256_or_si256(a, b), c);
    let low = word(h[0], _mm256_slli_epi64::<26>(h[1]), _mm256_slli_epi64::<52>(h[2]));
    let high = word(_mm256_srli_epi64::<12>(h[2]), _mm256_slli_epi64::<14>(h[3]), _mm256_slli_epi64::<40>(h[4]));
    let sign = _mm256_set1_epi64x(i64::MIN);
    let tag_low = _mm256_add_epi64(low, s.0);
    // All ones, which is -1, where the sum is less than what it came from.
    let carried = _mm256_cmpgt_epi64(_mm256_xor_si256(low, sign), _mm256_xor_si256(tag_low, sign));
    let tag_high = _mm256_sub_epi64(_mm256_add_epi64(high, s.1), carried);
    let mut tags = [[0; 16]; MACS];
    let at = tags.as_mut_ptr().cast::<__m256i>();
    // SAFETY: four tags of 16 bytes are two vectors of 32, and these stores need no alignment.
    unsafe {
        _mm256_storeu_si256(at, _mm256_unpacklo_epi64(tag_low, tag_high));
        _mm256_storeu_si256(at.add(1), _mm256_unpackhi_epi64(tag_low, tag_high));
    }
    tags
}
