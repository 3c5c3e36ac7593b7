//! What the generator sends: Ethernet frames, made ahead of time, plain or sealed by the sites at its end.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::{Context, Result};
use crypto::Session;
use crypto::aead::{self, Backend, SealJob, TAG};
use crypto::message::DATA_HEADER;
use wire::TenantId;
use wire::geneve::{self, Payload};

use super::programs::{CELL, CELL_HEADER, PLAIN_PORT};
use super::sites::Sites;

const ETHERNET: usize = 14;
const IPV4_UDP: usize = 28;
const OUTER: usize = ETHERNET + IPV4_UDP;
/// Frames that are made together.
pub(super) const BATCH: usize = 64;
/// Where in a packet of [`inner`] its number stands.
const NUMBER: std::ops::Range<usize> = IPV4_UDP..IPV4_UDP + 8;
/// The TOS of inner packets: ECT(0) of RFC 3168.
const ECT: u8 = 2;
/// The UDP port that the first flow of inner packets comes from.
const FLOW_PORT: u16 = 9;

/// The sizes of packets that hubs are compared by: lengths of inner IP packets.
pub const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 1420];

/// A mix of lengths, as a cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// As tables call it.
    pub name: String,
    /// In this order, again and again.
    pub lengths: Vec<usize>,
}

impl Size {
    /// All packets of one length.
    pub fn of(length: usize) -> Self {
        Self { name: length.to_string(), lengths: vec![length] }
    }

    /// 28 small packets to 16 middling and 4 large ones, the large ones of 1518 bytes cut to what a tunnel takes.
    pub fn imix() -> Self {
        let twelve = [64, 64, 570, 64, 64, 570, 1420, 64, 570, 64, 64, 570];
        Self { name: "IMIX".into(), lengths: twelve.to_vec() }
    }

    /// The mean length.
    pub fn mean(&self) -> f64 {
        self.lengths.iter().sum::<usize>() as f64 / self.lengths.len() as f64
    }
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::imix());
        }
        match text.parse() {
            Ok(length) if (64..=1420).contains(&length) => Ok(Self::of(length)),
            _ => Err("a length from 64 to 1420, or imix".into()),
        }
    }
}

/// Where inner packets come from and go to: pair `n` of sites, and the prefixes behind the receiver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Prefixes of each receiver.
    pub(super) routes: u32,
    /// Flows, packet by packet in turn.
    pub(super) flows: u16,
}

impl Plan {
    /// The first pair's tenant; each of the next ones has some more.
    pub(super) const TENANT: u32 = 1000;

    /// A packet of the first pair, which has only one prefix, as far as it tells the flow.
    pub(super) fn packet(self, flow: u16) -> Vec<u8> {
        let mut packet = Vec::new();
        inner(&mut packet, Self::source(0), self.destination(0, 0), flow.into(), self, 64);
        packet
    }

    /// The network of a sender.
    pub(super) fn source(pair: usize) -> Ipv4Addr {
        Ipv4Addr::from(0x0a00_0000 + ((pair as u32) << 8))
    }

    /// The `route`th network of a receiver: of 16 addresses, and as many that are nobody's after it, or neighbours would be one route.
    pub(super) fn destination(self, pair: usize, route: u32) -> Ipv4Addr {
        Ipv4Addr::from(0x0a80_0000 + (pair as u32 * self.routes.max(8) + route) * 32)
    }
}

/// Makes frames.
pub(super) struct Maker {
    ethernet: [u8; ETHERNET],
    pub(super) size: Size,
    plan: Plan,
    pairs: usize,
    backend: &'static dyn Backend,
    frames: Vec<Vec<u8>>,
}

impl Maker {
    pub(super) fn new(from: [u8; 6], to: [u8; 6], size: Size, plan: Plan, pairs: usize) -> Self {
        let mut ethernet = [0; ETHERNET];
        ethernet[..6].copy_from_slice(&to);
        ethernet[6..12].copy_from_slice(&from);
        ethernet[12] = 8;
        let frames = vec![Vec::new(); BATCH];
        Self { ethernet, size, plan, pairs, backend: aead::choose(&aead::Wish::default()), frames }
    }

    /// Writes cells with the frames of these numbers, at most [`BATCH`] of them, sealed by these sites, or, tagged, by these lanes.
    pub(super) fn sealed(&mut self, first: u64, count: usize, sites: &Sites, cells: &mut Vec<u8>) -> Result<()> {
        // 1. The inner packets, each behind room for its headers.
        let mut counters: [Option<(&Arc<Session>, u64)>; BATCH] = [None; BATCH];
        let tag = sites.cipher().and_then(|_| TenantId::new(Plan::TENANT.into()).ok());
        let tag_len = if tag.is_some() { geneve::HEADER } else { 0 };
        for (n, frame) in self.frames[..count].iter_mut().enumerate() {
            let number = first + n as u64;
            let pair = (number % self.pairs as u64) as usize;
            let length = self.size.lengths[(number / self.pairs as u64) as usize % self.size.lengths.len()];
            let sender = (number % sites.count() as u64) as usize;
            let session = sites.session(sender).context("a session")?;
            let counter = session.reserve(1).next().context("a session with counters left")?;
            counters[n] = Some((session, counter));
            let payload = DATA_HEADER + (tag_len + length).next_multiple_of(16) + TAG;
            frame.clear();
            frame.extend_from_slice(&self.ethernet);
            let [from, to] = sites.ends(sender);
            ipv4_udp(frame, from, to, payload);
            frame.extend_from_slice(&session.data_header(counter));
            if let Some(tenant) = tag {
                let mut header = [0; geneve::HEADER];
                geneve::Fields { tenant, payload: Payload::Ipv4 }.emit(&mut header);
                frame.extend_from_slice(&header);
            }
            // Destinations in no order, so that a table of routes is met everywhere.
            let route = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % self.plan.routes;
            let to = self.plan.destination(pair, route);
            inner(frame, Plan::source(pair), to, number, self.plan, length);
            frame.resize(OUTER + payload, 0);
        }

        // 2. Sealed together.
        let mut jobs = arrayvec::ArrayVec::<SealJob<'_>, BATCH>::new();
        for (frame, counter) in self.frames[..count].iter_mut().zip(&counters) {
            let Some((session, counter)) = counter else { continue };
            let Some((header, data)) = frame[OUTER..].split_first_chunk_mut::<DATA_HEADER>() else { continue };
            let aad = session.protocol().aad(header);
            jobs.push(SealJob { key: session.seal_key(), counter: *counter, aad, data });
        }
        self.backend.seal_batch(&mut jobs);
        drop(jobs);
        self.write(count, cells);
        Ok(())
    }

    /// The same with frames that are not sealed: one flow for each pair.
    pub(super) fn plain(&mut self, first: u64, count: usize, from: Ipv4Addr, to: Ipv4Addr, cells: &mut Vec<u8>) {
        for (n, frame) in self.frames[..count].iter_mut().enumerate() {
            let number = first + n as u64;
            let length = self.size.lengths[number as usize % self.size.lengths.len()];
            frame.clear();
            frame.extend_from_slice(&self.ethernet);
            inner(frame, from, to, number, self.plan, length);
        }
        self.write(count, cells);
    }

    fn write(&self, count: usize, cells: &mut Vec<u8>) {
        cells.resize(count * CELL, 0);
        for (frame, cell) in self.frames[..count].iter().zip(cells.chunks_exact_mut(CELL)) {
            cell[..4].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
            cell[CELL_HEADER..CELL_HEADER + frame.len()].copy_from_slice(frame);
        }
    }
}

/// The number of an inner packet.
pub(super) fn number(packet: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(packet.get(NUMBER)?.try_into().ok()?))
}

/// An IPv4 packet of this length that carries its number, by which it is of one of the flows. Its ECN is that of a capable sender, which a
/// hub shows outside too, and has not on what it says itself: so the sink knows one from the other.
fn inner(frame: &mut Vec<u8>, from: Ipv4Addr, to: Ipv4Addr, number: u64, plan: Plan, length: usize) {
    let begin = frame.len();
    let port = FLOW_PORT + (number % u64::from(plan.flows)) as u16;
    ipv4_udp_by(frame, ECT, SocketAddrV4::new(from, port), SocketAddrV4::new(to, PLAIN_PORT), length - IPV4_UDP);
    frame.extend_from_slice(&number.to_le_bytes());
    frame.resize(begin + length, 0x5a);
}

/// Headers of a datagram with so many bytes of payload, without a UDP checksum.
fn ipv4_udp(frame: &mut Vec<u8>, from: SocketAddrV4, to: SocketAddrV4, payload: usize) {
    ipv4_udp_by(frame, 0, from, to, payload);
}

fn ipv4_udp_by(frame: &mut Vec<u8>, tos: u8, from: SocketAddrV4, to: SocketAddrV4, payload: usize) {
    let begin = frame.len();
    frame.extend_from_slice(&[0x45, tos]);
    frame.extend_from_slice(&((IPV4_UDP + payload) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame.extend_from_slice(&from.ip().octets());
    frame.extend_from_slice(&to.ip().octets());
    let words = frame[begin..].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    frame[begin + 10..begin + 12].copy_from_slice(&sum.to_be_bytes());
    frame.extend_from_slice(&from.port().to_be_bytes());
    frame.extend_from_slice(&to.port().to_be_bytes());
    frame.extend_from_slice(&((8 + payload) as u16).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
}
