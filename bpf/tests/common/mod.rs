//! Frames for the tests, built by hand so that each byte can be wrong on purpose.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bpf::{Limits, Options, Rings};

pub(crate) const PORT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const LISTEN: u16 = 51820;
/// The ports of a hub whose trunks have as many lanes as there can be.
pub(crate) const LANES: std::ops::Range<u16> = LISTEN..LISTEN + 16;
pub(crate) const SOURCE_PORT: u16 = 40_000;
pub(crate) const HUB4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const HUB6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
pub(crate) const SITE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const SITE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9);

/// Options with pins of their own, so that tests can run side by side.
pub(crate) fn options(name: &str, limits: Limits) -> Options {
    Options {
        pin_root: format!("/sys/fs/bpf/ekiden-test-{}-{name}", std::process::id()).into(),
        listen_ports: LANES.collect(),
        session_bits: 8,
        // So many entries that a ring without a worker is not taken for one that runs full.
        rings: Rings { ports: 8, queues: 2, entries: u32::MAX },
        sites: 256,
        // None: a frame that is run again and again stays what it is.
        stamp_bits: 63,
        limits,
        ..Options::new("test", LISTEN)
    }
}

/// A message of WireGuard or of a trunk: type, then the receiver index where this type has it, then filler.
pub(crate) fn message(kind: u8, receiver: u32, len: usize) -> Vec<u8> {
    let mut message = vec![0xa5; len];
    message[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let at = if kind & 0xf == 2 { 8 } else { 4 };
    message[at..at + 4].copy_from_slice(&receiver.to_le_bytes());
    message
}

/// A UDP datagram in a frame from site to hub; the public fields are what tests change before `build`.
#[derive(Clone)]
pub(crate) struct Udp {
    pub(crate) destination_mac: [u8; 6],
    pub(crate) from: IpAddr,
    pub(crate) to: IpAddr,
    pub(crate) from_port: u16,
    pub(crate) port: u16,
    pub(crate) payload: Vec<u8>,
    /// IPv4 options, in bytes: a multiple of four up to 40.
    pub(crate) options: usize,
    /// Added to the true IP total length (IPv6: payload length).
    pub(crate) ip_length: i16,
    /// Added to the true UDP length.
    pub(crate) udp_length: i16,
    /// Bytes after the end of the packet, as Ethernet pads.
    pub(crate) trailer: usize,
    /// In units of eight bytes, and whether more follow. IPv6 gets a fragment header if this is set.
    pub(crate) fragment: Option<(u16, bool)>,
    pub(crate) protocol: u8,
}

impl Udp {
    pub(crate) fn v4(payload: Vec<u8>) -> Self {
        Self {
            destination_mac: PORT_MAC,
            from: SITE4.into(),
            to: HUB4.into(),
            from_port: SOURCE_PORT,
            port: LISTEN,
            payload,
            options: 0,
            ip_length: 0,
            udp_length: 0,
            trailer: 0,
            fragment: None,
            protocol: 17,
        }
    }

    pub(crate) fn v6(payload: Vec<u8>) -> Self {
        Self { from: SITE6.into(), to: HUB6.into(), ..Self::v4(payload) }
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let udp_length = (8 + self.payload.len()) as i16;
        let mut udp = Vec::new();
        udp.extend(self.from_port.to_be_bytes());
        udp.extend(self.port.to_be_bytes());
        udp.extend((udp_length + self.udp_length).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(&self.payload);

        let mut frame = Vec::new();
        frame.extend(self.destination_mac);
        frame.extend(PEER_MAC);
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = 20 + self.options;
                frame.extend([0x08, 0x00, 0x40 | (header / 4) as u8, 0]);
                frame.extend((header as i16 + udp_length + self.ip_length).to_be_bytes());
                frame.extend([0x12, 0x34]);
                let (offset, more) = self.fragment.unwrap_or_default();
                frame.extend((offset | u16::from(more) << 13).to_be_bytes());
                frame.extend([64, self.protocol, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(std::iter::repeat_n(1, self.options)); // no-operations
                let sum: u32 = frame[14..].chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
                let sum = (sum & 0xffff) + (sum >> 16);
                let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
                frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let extension = if self.fragment.is_some() { 8 } else { 0 };
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend((extension + udp_length + self.ip_length).to_be_bytes());
                frame.extend([if self.fragment.is_some() { 44 } else { self.protocol }, 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                if let Some((offset, more)) = self.fragment {
                    frame.extend([self.protocol, 0]);
                    frame.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    frame.extend([1, 2, 3, 4]);
                }
            }
            _ => panic!("a packet has one family"),
        }
        frame.extend(udp);
        frame.extend(std::iter::repeat_n(0, self.trailer));
        frame
    }
}
