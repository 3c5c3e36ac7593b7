//! The form of the messages: what comes is read attribute by attribute, what goes is put together.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NetlinkBuffer, NlasIterator};

use super::{Answer, Dump, Fact, Hop, Link, Neighbour, Request, Route};

// linux/rtnetlink.h and linux/if_addr.h: not in `libc`.
const RTA_IP_PROTO: u16 = 27;
const RTA_SPORT: u16 = 28;
const RTAX_MTU: u16 = 2;
const IFA_FLAGS: u16 = 8;
const RTM_NEWNEXTHOP: u16 = 104;
const RTM_DELNEXTHOP: u16 = 105;
const ATTRIBUTE_KIND: u16 = 0x3fff; // without the "nested" and "network byte order" bits

const FAMILY_4: u8 = libc::AF_INET as u8;
const FAMILY_6: u8 = libc::AF_INET6 as u8;

// ---- reading ----

/// The messages of a datagram; a malformed rest ends them.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = NetlinkBuffer<&[u8]>> {
    std::iter::from_fn(move || {
        let message = NetlinkBuffer::new_checked(bytes).ok()?;
        let length = usize::try_from(message.length()).ok()?.next_multiple_of(4);
        bytes = bytes.get(length..).unwrap_or_default();
        Some(message)
    })
}

pub(super) fn answer(message: &NetlinkBuffer<&[u8]>) -> Answer {
    let payload = message.payload();
    match message.message_type() {
        libc::RTM_NEWROUTE => route(payload).map_or(Answer::Failed(libc::EPROTO), Answer::Route),
        kind if i32::from(kind) == libc::NLMSG_ERROR => match code(payload) {
            0 => Answer::Done,
            code => Answer::Failed(code.saturating_neg()),
        },
        kind if i32::from(kind) == libc::NLMSG_DONE => match code(payload) {
            0.. => Answer::Done,
            code => Answer::Failed(code.saturating_neg()),
        },
        kind => Answer::Fact(fact(kind, payload)),
    }
}

fn code(payload: &[u8]) -> i32 {
    payload.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
}

/// What an event or a line of a dump says. None: nothing that concerns us.
pub(super) fn fact(kind: u16, payload: &[u8]) -> Option<Fact> {
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link(kind, payload),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address(kind, payload),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neighbour(kind, payload),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => destinations(payload),
        libc::RTM_NEWRULE | libc::RTM_DELRULE | RTM_NEWNEXTHOP | RTM_DELNEXTHOP => Some(Fact::Policy),
        _ => None,
    }
}

/// struct ifinfomsg: family, pad, type (u16), index, flags, change mask.
fn link(kind: u16, payload: &[u8]) -> Option<Fact> {
    let (head, attributes) = payload.split_first_chunk::<16>()?;
    // A bridge tells of its ports in messages of the same kind, and "gone" there means "left the bridge".
    if i32::from(head[0]) != libc::AF_UNSPEC {
        return None;
    }
    let ethernet = u16::from_ne_bytes([head[2], head[3]]) == libc::ARPHRD_ETHER;
    let ifindex = word(&head[4..])?;
    if kind == libc::RTM_DELLINK {
        return Some(Fact::LinkGone { ifindex });
    }
    let on = (libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP).cast_unsigned();
    let up = word(&head[8..])? & on == on;
    let (mut name, mut mac, mut mtu) = (None, None, None);
    attributes_of(attributes, |kind, value| match kind {
        libc::IFLA_IFNAME => name = value.strip_suffix(&[0]).and_then(|v| String::from_utf8(v.to_vec()).ok()),
        libc::IFLA_ADDRESS if ethernet => mac = value.try_into().ok(),
        libc::IFLA_MTU => mtu = word(value),
        _ => {}
    });
    Some(Fact::Link(Link { ifindex, name: name?, mac, mtu: mtu?, up }))
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index.
fn address(kind: u16, payload: &[u8]) -> Option<Fact> {
    let (head, attributes) = payload.split_first_chunk::<8>()?;
    let ifindex = word(&head[4..])?;
    let (mut flags, mut local, mut other) = (u32::from(head[2]), None, None);
    attributes_of(attributes, |kind, value| match kind {
        libc::IFA_LOCAL => local = ip(head[0], value),
        libc::IFA_ADDRESS => other = ip(head[0], value), // the peer's, where there is a local one too
        IFA_FLAGS => flags = word(value).unwrap_or(flags),
        _ => {}
    });
    // One that proved to be a duplicate stays tentative.
    let unsure = flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0;
    let usable = kind == libc::RTM_NEWADDR && !unsure;
    Some(Fact::Address { ifindex, address: local.or(other)?, usable })
}

/// struct ndmsg: family, pad (3), index, state (u16), flags, type.
fn neighbour(kind: u16, payload: &[u8]) -> Option<Fact> {
    let (head, attributes) = payload.split_first_chunk::<12>()?;
    let state = u16::from_ne_bytes([head[8], head[9]]);
    let (mut address, mut mac) = (None, None);
    attributes_of(attributes, |kind, value| match kind {
        libc::NDA_DST => address = ip(head[0], value), // none for a bridge's table of MAC addresses
        libc::NDA_LLADDR => mac = value.try_into().ok(),
        _ => {}
    });
    let vouched = libc::NUD_REACHABLE
        | libc::NUD_STALE
        | libc::NUD_DELAY
        | libc::NUD_PROBE
        | libc::NUD_PERMANENT
        | libc::NUD_NOARP;
    let mac = mac.filter(|_| state & vouched != 0);
    let hop = Hop { ifindex: word(&head[4..])?, address: address? };
    let proxy = head[10] & libc::NTF_PROXY != 0;
    (!proxy)
        .then_some(Fact::Neighbour { hop, neighbour: (kind == libc::RTM_NEWNEIGH).then_some(Neighbour { state, mac }) })
}

/// struct rtmsg: family, lengths of destination and source prefix, tos, table, protocol, scope, type, flags (u32).
fn destinations(payload: &[u8]) -> Option<Fact> {
    let (head, attributes) = payload.split_first_chunk::<12>()?;
    if word(&head[8..])? & libc::RTM_F_CLONED != 0 {
        return None;
    }
    let mut first = match head[0] {
        FAMILY_4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        FAMILY_6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    attributes_of(attributes, |kind, value| {
        if kind == libc::RTA_DST {
            first = ip(head[0], value).unwrap_or(first);
        }
    });
    let last = last(first, head[1]);
    Some(Fact::Routes { first, last })
}

/// The last address of a prefix whose host bits are zero.
fn last(first: IpAddr, length: u8) -> IpAddr {
    let length = u32::from(length);
    match first {
        IpAddr::V4(a) => (a | Ipv4Addr::from_bits(u32::MAX.checked_shr(length).unwrap_or(0))).into(),
        IpAddr::V6(a) => (a | Ipv6Addr::from_bits(u128::MAX.checked_shr(length).unwrap_or(0))).into(),
    }
}

fn route(payload: &[u8]) -> Option<Route> {
    let (head, attributes) = payload.split_first_chunk::<12>()?;
    let family = head[0];
    let mut route = Route { unicast: head[7] == libc::RTN_UNICAST, ifindex: 0, gateway: None, source: None, mtu: None };
    attributes_of(attributes, |kind, value| match kind {
        libc::RTA_OIF => route.ifindex = word(value).unwrap_or(0),
        libc::RTA_GATEWAY => route.gateway = ip(family, value),
        // An IPv4 route through an IPv6 neighbour (RFC 5549): family, then address.
        libc::RTA_VIA => {
            route.gateway = value.split_first_chunk().and_then(|(f, a)| ip(u16::from_ne_bytes(*f).try_into().ok()?, a));
        }
        libc::RTA_PREFSRC => route.source = ip(family, value),
        libc::RTA_METRICS => attributes_of(value, |kind, value| {
            if kind == RTAX_MTU {
                route.mtu = word(value).filter(|mtu| *mtu > 0);
            }
        }),
        _ => {}
    });
    Some(route)
}

fn attributes_of(bytes: &[u8], mut on: impl FnMut(u16, &[u8])) {
    for attribute in NlasIterator::new(bytes).map_while(Result::ok) {
        on(attribute.kind() & ATTRIBUTE_KIND, attribute.value());
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn ip(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        FAMILY_4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        FAMILY_6 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

// ---- writing ----

pub(super) fn encode(out: &mut Vec<u8>, sequence: u32, request: &Request, port: u16) {
    match *request {
        Request::Route { key, source } => {
            let bits = if key.remote.is_ipv4() { 32 } else { 128 };
            let source_bits = if source.is_some() { bits } else { 0 };
            let head = [family(key.remote), bits, source_bits, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            message(out, libc::RTM_GETROUTE, libc::NLM_F_REQUEST, sequence, &head, |out| {
                address_attribute(out, libc::RTA_DST, key.remote);
                if let Some(source) = source {
                    address_attribute(out, libc::RTA_SRC, source);
                }
                attribute(out, RTA_IP_PROTO, &[libc::IPPROTO_UDP as u8]);
                attribute(out, RTA_SPORT, &port.to_be_bytes());
            });
        }
        Request::Probe(hop) => {
            let [a, b, c, d] = hop.ifindex.to_ne_bytes();
            let head = [family(hop.address), 0, 0, 0, a, b, c, d, 0, 0, libc::NTF_USE, 0];
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
            message(out, libc::RTM_NEWNEIGH, flags, sequence, &head, |out| {
                address_attribute(out, libc::NDA_DST, hop.address);
            });
        }
        Request::Dump(dump) => {
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            let (kind, head) = match dump {
                Dump::Links => (libc::RTM_GETLINK, 16),
                Dump::Addresses => (libc::RTM_GETADDR, 8),
                Dump::Neighbours => (libc::RTM_GETNEIGH, 12),
            };
            message(out, kind, flags, sequence, &[0; 16][..head], |_| {});
        }
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_4 } else { FAMILY_6 }
}

/// struct nlmsghdr (length, kind, flags, sequence number, port), the kind's own head, attributes.
fn message(out: &mut Vec<u8>, kind: u16, flags: i32, sequence: u32, head: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend(kind.to_ne_bytes());
    out.extend((flags as u16).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend([0; 4]);
    out.extend(head);
    fill(out);
    let length = (out.len() - start) as u32; // a request is shorter than 100 bytes
    out[start..start + 4].copy_from_slice(&length.to_ne_bytes());
}

fn address_attribute(out: &mut Vec<u8>, kind: u16, address: IpAddr) {
    match address {
        IpAddr::V4(a) => attribute(out, kind, &a.octets()),
        IpAddr::V6(a) => attribute(out, kind, &a.octets()),
    }
}

/// Length, kind, value, padding to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend((value.len() as u16 + 4).to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}
