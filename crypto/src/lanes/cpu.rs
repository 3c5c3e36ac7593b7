//! The CPUs for which there are lanes.
#![allow(unsafe_code, reason = "functions for one kind of CPU are called where it is known to be of that kind")]

use super::chacha::{Block, MAX_LANES};
use super::poly::{self, Mac};
use super::{avx2, avx512};

/// A kind of CPU, and the proof that this one is of it: a value comes from [`Cpu::all`] alone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Cpu(Kind);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Avx2,
    Avx512,
}

impl Cpu {
    /// What this CPU can do, the best last.
    pub(super) fn all() -> impl DoubleEndedIterator<Item = Self> {
        let avx2 = is_x86_feature_detected!("avx2");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512ifma");
        [avx2.then_some(Self(Kind::Avx2)), avx512.then_some(Self(Kind::Avx512))].into_iter().flatten()
    }

    pub(super) fn name(self) -> &'static str {
        match self.0 {
            Kind::Avx2 => "lanes (AVX2)",
            Kind::Avx512 => "lanes (AVX-512)",
        }
    }

    /// How many blocks of ChaCha20 it computes at a time.
    #[inline]
    pub(super) fn block_lanes(self) -> usize {
        match self.0 {
            Kind::Avx2 => avx2::BLOCKS,
            Kind::Avx512 => avx512::BLOCKS,
        }
    }

    /// How many messages' Poly1305 it computes at a time.
    #[inline]
    pub(super) fn mac_lanes(self) -> usize {
        match self.0 {
            Kind::Avx2 => avx2::MACS,
            Kind::Avx512 => avx512::MACS,
        }
    }

    /// Computes the first [`block_lanes`](Self::block_lanes) blocks.
    #[inline]
    pub(super) fn blocks(self, blocks: &mut [Block<'_>; MAX_LANES]) {
        match self.0 {
            Kind::Avx2 => {
                let blocks = blocks.first_chunk_mut().expect("8 of 16");
                // SAFETY: `all` found AVX2.
                unsafe { avx2::blocks(blocks) }
            }
            // SAFETY: `all` found the four extensions that it names.
            Kind::Avx512 => unsafe { avx512::blocks(blocks) },
        }
    }

    /// The tags of the messages of these numbers, at most [`mac_lanes`](Self::mac_lanes), the longest first.
    #[inline]
    pub(super) fn tags<'a>(self, order: &[u8], mac: impl Fn(usize) -> Mac<'a>, tags: &mut [[u8; 16]]) {
        match self.0 {
            // SAFETY: `all` found AVX2.
            Kind::Avx2 => poly::tags(order, mac, |lanes| unsafe { avx2::tags(lanes) }, tags),
            // SAFETY: `all` found the four extensions that it names.
            Kind::Avx512 => poly::tags(order, mac, |lanes| unsafe { avx512::tags(lanes) }, tags),
        }
    }
}
