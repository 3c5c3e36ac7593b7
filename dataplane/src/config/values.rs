//! Single values: from the text of the configuration to types that can't be wrong. An error is the rule that was
//! broken; who found it adds the value and the place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU8, NonZeroU16};
use std::ops::{Deref, RangeInclusive};
use std::time::Duration;

use classifier::filter::{Action, Flags};
use crypto::aead::{Cipher, Library};
use ipnet::IpNet;
use wire::TenantId;

use super::{Dscp, Idle, LANES_MAX, Mode, Role, Spread};

macro_rules! name {
    ($(#[$attribute:meta])* $name:ident, $check:ident) => {
        $(#[$attribute])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// This name, or the rule that it breaks.
            pub fn new(name: &str) -> Result<Self, String> {
                $check(name)?;
                Ok(Self(name.to_owned()))
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

name! {
    /// A hub's name: 1 to 32 of `a-z`, `0-9` and `-`, the first no `-`. It is safe as a component of a path.
    HubName, hub_name_rule
}
name! {
    /// A network interface's name, as the kernel allows it: 1 to 15 bytes, no blank, `/` or `:`.
    PortName, port_name_rule
}
name! {
    /// A site's name or a tenant's service code: 1 to 64 printable characters, no `/`, no blank at either end.
    Name, name_rule
}
name! {
    /// Free text for people: any printable characters, on one line.
    #[derive(Default)]
    Label, printable
}

fn hub_name_rule(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    match name {
        _ if (1..=32).contains(&name.len()) && name.chars().all(allowed) && !name.starts_with('-') => Ok(()),
        _ => Err("it becomes part of paths; 1 to 32 of a-z, 0-9 and - (not first) are right".to_owned()),
    }
}

/// The kernel's own rule (`dev_valid_name` in net/core/dev.c; IFNAMSIZ is 16 with the closing zero).
fn port_name_rule(name: &str) -> Result<(), String> {
    match name {
        "" | "." | ".." => Err("not a name that a network interface can have".to_owned()),
        _ if name.len() > 15 => Err("a network interface's name has at most 15 bytes".to_owned()),
        _ if name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/' || c == ':') => {
            Err("a network interface's name has no blank, no / and no :".to_owned())
        }
        _ => Ok(()),
    }
}

fn name_rule(name: &str) -> Result<(), String> {
    printable(name)?;
    match name {
        "" => Err("empty; 1 to 64 characters are right".to_owned()),
        _ if name.trim() != name => Err("a blank at its beginning or end; leave it out".to_owned()),
        _ if name.contains('/') => Err("a / is not allowed, since the name becomes part of paths".to_owned()),
        _ if name.chars().count() > 64 => Err("at most 64 characters are allowed".to_owned()),
        _ => Ok(()),
    }
}

/// No control characters, and none that break or reorder lines: names are shown in terminals and logs, and stand in
/// the comments of generated files.
fn printable(text: &str) -> Result<(), String> {
    let harmful = |c: &char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
    };
    match text.chars().find(harmful) {
        Some(c) => Err(format!("the character U+{:04X} in it can't be printed; leave it out", u32::from(c))),
        None => Ok(()),
    }
}

pub(super) fn port_number(number: i128) -> Result<NonZeroU16, String> {
    nonzero_u16(number).ok_or_else(|| "a UDP port is 1 to 65535".to_owned())
}

pub(super) fn keepalive(seconds: i128) -> Result<NonZeroU16, String> {
    nonzero_u16(seconds).ok_or_else(|| "1 to 65535 seconds are right; to send none, leave keepalive_s out".to_owned())
}

fn nonzero_u16(number: i128) -> Option<NonZeroU16> {
    u16::try_from(number).ok().and_then(NonZeroU16::new)
}

/// A site's name, which none of what a tenant has beside sites can have.
pub(super) fn site_name(name: &str) -> Result<Name, String> {
    match name.starts_with(super::trunk::END_NAME) {
        true => Err("what trunks carry of a tenant is called so; another beginning is right".to_owned()),
        false => Name::new(name),
    }
}

pub(super) fn cipher(text: &str) -> Result<Cipher, String> {
    [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305].into_iter().find(|cipher| cipher.to_string() == text).ok_or_else(|| {
        "\"aes-256-gcm\" (between CPUs with AES instructions) or \"chacha20-poly1305\" are right, the same at both ends"
            .to_owned()
    })
}

/// Whose packets a trunk carries, if it is not a list.
pub(super) fn all(text: &str) -> Result<(), String> {
    match text {
        "all" => Ok(()),
        _ => Err("\"all\" or a list of tenants' ids, like [1001, 1002], are right".to_owned()),
    }
}

pub(super) fn lanes(number: i128) -> Result<NonZeroU8, String> {
    let lanes = u8::try_from(number).ok().and_then(NonZeroU8::new);
    let lanes = lanes.filter(|lanes| usize::from(lanes.get()) <= LANES_MAX);
    lanes.ok_or_else(|| format!("1 to {LANES_MAX} are right, the same at both ends"))
}

pub(super) fn probe_interval(number: i128) -> Result<Duration, String> {
    match u64::try_from(number) {
        Ok(ms @ 50..=10_000) => Ok(Duration::from_millis(ms)),
        _ => Err("50 to 10000 (ms) are right; three that are missed take a lane down".to_owned()),
    }
}

pub(super) fn priority(number: i128) -> Result<u16, String> {
    u16::try_from(number).map_err(|_| "0 to 65535 are right; the smallest is preferred".to_owned())
}

pub(super) fn tenant_id(number: i128) -> Result<TenantId, String> {
    let id = u64::try_from(number).ok().and_then(|id| TenantId::new(id).ok());
    id.ok_or_else(|| format!("a tenant id has 24 bits, so 0 to {} are right", TenantId::MAX))
}

pub(super) fn core(number: i128) -> Result<usize, String> {
    const MOST: i128 = 8192; // the largest NR_CPUS that Linux can be built for
    match usize::try_from(number) {
        Ok(core) if number < MOST => Ok(core),
        _ => Err(format!("a core is a number from 0 to {}", MOST - 1)),
    }
}

/// MiB of statistics.
pub(super) fn stats_memory(number: i128) -> Result<u32, String> {
    match u32::try_from(number) {
        Ok(mib) if (1..=1 << 20).contains(&mib) => Ok(mib),
        _ => Err("1 to 1048576 (MiB) are right".to_owned()),
    }
}

/// The name of a group; whether there is one is the machine's matter.
pub(super) fn group(name: &str) -> Result<String, String> {
    match name {
        "" => Err("empty; leave it out for the group of the hub's process".to_owned()),
        _ => Ok(name.to_owned()),
    }
}

pub(super) fn role(text: &str) -> Result<Role, String> {
    match text {
        "wan" => Ok(Role::Wan),
        "access" => Ok(Role::Access),
        "trunk" => Err("trunks go through \"wan\" ports, beside the sites' packets".to_owned()),
        _ => Err("\"wan\" (towards sites) or \"access\" (towards tenants' servers) are right".to_owned()),
    }
}

pub(super) fn mode(text: &str) -> Result<Mode, String> {
    match text {
        "native" => Ok(Mode::Native),
        "generic" => Ok(Mode::Generic),
        _ => Err("\"native\" or \"generic\" are right; omitted, the best that the driver has is taken".to_owned()),
    }
}

pub(super) fn spread(text: &str) -> Result<Spread, String> {
    match text {
        "auto" => Ok(Spread::Auto),
        "queues" => Ok(Spread::Queues),
        "sockets" => Ok(Spread::Sockets),
        _ => Err("\"auto\", \"queues\" (the NIC spreads alone) or \"sockets\" (XDP spreads) are right".to_owned()),
    }
}

pub(super) fn busy_poll_us(number: i128) -> Result<u16, String> {
    match number {
        0..=1000 => Ok(number as u16),
        _ => Err("0 (interrupts) to 1000 are right; a NIC is polled for 20 to 100 us".to_owned()),
    }
}

pub(super) fn idle(text: &str) -> Result<Idle, String> {
    match text {
        "spin" => Ok(Idle::Spin),
        "adaptive" => Ok(Idle::Adaptive),
        "interrupt" => Ok(Idle::Interrupt),
        _ => Err("\"spin\", \"adaptive\" or \"interrupt\" are right".to_owned()),
    }
}

pub(super) fn library(text: &str) -> Result<Library, String> {
    let known = Library::ALL.into_iter().find(|library| library.name() == text);
    known.ok_or("\"ring\" or \"aws-lc\" are right; omitted, the fastest that this machine has is taken".to_owned())
}

/// A prefix of a site: its network address and length, no host bits.
pub(super) fn prefix(text: &str) -> Result<IpNet, String> {
    let net = network(text)?;
    if net.trunc() != net {
        return Err(format!(
            "host bits are set; the network is {}, the single address {}",
            net.trunc(),
            IpNet::from(net.addr())
        ));
    }
    Ok(net)
}

/// An interface address of a site: host and length, like 10.9.1.1/24.
pub(super) fn interface_address(text: &str) -> Result<IpNet, String> {
    let net = network(text)?;
    unicast(net.addr())?;
    Ok(net)
}

/// An address of the hub on a VLAN, with the length of the network there.
pub(super) fn gateway_address(text: &str) -> Result<IpNet, String> {
    let net = network(text)?;
    unicast(net.addr())?;
    super::access::gateway(net)
}

/// A host on a VLAN.
pub(super) fn neighbour_address(text: &str) -> Result<IpAddr, String> {
    if text.contains('/') {
        return Err("a host has no prefix length; leave the / and what follows out".to_owned());
    }
    let address = ip(text)?;
    unicast(address)?;
    Ok(address)
}

pub(super) fn vlan_id(number: i128) -> Result<u16, String> {
    let id = u16::try_from(number).ok().filter(|id| (1..=wire::vlan::ID_MAX).contains(id));
    id.ok_or_else(|| format!("a VLAN id is 1 to {}; for frames without a tag, leave vlan out", wire::vlan::ID_MAX))
}

/// The type of the outer of two tags.
pub(super) fn outer_tag(text: &str) -> Result<u16, String> {
    match text {
        "802.1ad" => Ok(wire::vlan::SERVICE),
        "802.1q" => Ok(wire::vlan::CUSTOMER),
        _ => Err("\"802.1ad\" (0x88a8, as if left out) or \"802.1q\" (0x8100) are right".to_owned()),
    }
}

/// The MAC address of one station.
pub(super) fn mac(text: &str) -> Result<[u8; 6], String> {
    const RULE: &str = "six bytes in hexadecimal are right, like 02:00:00:00:00:01";
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok().filter(|_| byte.len() == 2 && !byte.starts_with('+')))
        .collect();
    let mac = bytes.and_then(|bytes| <[u8; 6]>::try_from(bytes).ok()).ok_or(RULE)?;
    match mac {
        _ if mac == [0; 6] => Err("nobody has the address of zeros".to_owned()),
        _ if mac[0] & 1 != 0 => Err("a group's address is no station's".to_owned()),
        _ => Ok(mac),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let Some((address, length)) = text.split_once('/') else {
        return Err(match ip(text) {
            Ok(address) => format!("no prefix length; a single address is {}", IpNet::from(address)),
            Err(rule) => rule,
        });
    };
    let address = ip(address)?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("a prefix length, 0 to {longest}, belongs behind the /"));
    }
    // Too many digits for a u8 are too large for a length as well.
    match length.parse().map(|length: u8| IpNet::new(address, length)) {
        Ok(Ok(net)) => Ok(net),
        _ => Err(format!("a prefix length is at most {longest}")),
    }
}

/// An address of the hub inside a tenant.
pub(super) fn hub_address(text: &str) -> Result<IpAddr, String> {
    if text.contains('/') {
        return Err("the hub's address has no prefix length; leave the / and what follows out".to_owned());
    }
    let address = ip(text)?;
    unicast(address)?;
    Ok(address)
}

/// Where a site is reached before it has been heard of.
pub(super) fn endpoint(text: &str) -> Result<SocketAddr, String> {
    const RULE: &str = "an address and a port are right, like 192.0.2.7:51820 or [2001:db8::7]:51820";

    let Some((host, port)) = text.rsplit_once(':') else { return Err(format!("no port; {RULE}")) };
    if text.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv6Addr>().is_ok() {
        return Err(format!("IPv6 needs brackets and a port: {RULE}"));
    }
    let address = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => match ip(inner)? {
            address @ IpAddr::V6(_) => address,
            IpAddr::V4(_) => return Err(format!("brackets are for IPv6 only; {RULE}")),
        },
        None if host.chars().any(|c| c.is_ascii_alphabetic()) && !host.contains(':') => {
            return Err(format!("a host name; the hub asks no DNS, so {RULE}"));
        }
        None => ip(host).map_err(|_| RULE.to_owned())?,
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or("a UDP port is 1 to 65535")?;
    unicast(address)?;
    if address.is_loopback() {
        return Err("a loopback address can't be reached through a port".to_owned());
    }
    if let IpAddr::V6(address) = address
        && address.is_unicast_link_local()
    {
        return Err(
            "a link-local address is ambiguous among several ports; a global or unique local one is right".to_owned()
        );
    }
    Ok(SocketAddr::new(address, port))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    match text.parse() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(inner) => Err(format!("an IPv4 address written as IPv6; {inner} is right")),
            None => Ok(IpAddr::V6(address)),
        },
        Ok(address) => Ok(address),
        Err(_) => Err(format!("{:?} is neither an IPv4 nor an IPv6 address", super::errors::cut(text))),
    }
}

fn unicast(address: IpAddr) -> Result<(), String> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    match address {
        _ if address.is_unspecified() => Err("the unspecified address is nobody's".to_owned()),
        _ if address.is_multicast() || broadcast => Err("a multicast or broadcast address is nobody's own".to_owned()),
        _ => Ok(()),
    }
}

/// The least burst: room for the largest packet of any port.
pub(super) const BURST_MIN: u64 = 10_000;

/// Bits per second.
pub(super) fn rate(text: &str) -> Result<u64, String> {
    const RULE: &str = "64 kbit/s to 400 Gbit/s are right, written like \"100 Mbit/s\"; leave it out for no limit";
    let units = [("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];
    match quantity(text, &units) {
        Some(rate @ 64_000..=400_000_000_000) => Ok(rate),
        _ => Err(RULE.to_owned()),
    }
}

/// Bytes.
pub(super) fn burst(text: &str) -> Result<u64, String> {
    let units = [("B", 1), ("kB", 1_000), ("MB", 1_000_000), ("KiB", 1 << 10), ("MiB", 1 << 20)];
    match quantity(text, &units) {
        Some(burst @ BURST_MIN..=1_000_000_000) => Ok(burst),
        _ => Err("10 kB (some large packets) to 1000 MB are right, written like \"64 kB\"".to_owned()),
    }
}

/// A number, with a fraction or without, and one of these units.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let (_, unit) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let part = u128::from(*unit) * fraction.parse::<u128>().ok()? / 10u128.pow(fraction.len() as u32);
    u64::try_from(u128::from(whole.parse::<u64>().ok()?) * u128::from(*unit) + part).ok()
}

pub(super) fn dscp(text: &str) -> Result<Dscp, String> {
    match text {
        "zero" => Ok(Dscp::Zero),
        "copy" => Ok(Dscp::Copy),
        _ => Err("\"zero\", \"copy\" or a number from 0 to 63 (without quotes) are right".to_owned()),
    }
}

pub(super) fn dscp_number(number: i128) -> Result<Dscp, String> {
    match u8::try_from(number) {
        Ok(number @ 0..=63) => Ok(Dscp::Fixed(number)),
        _ => Err("a DSCP has six bits, so 0 to 63 are right".to_owned()),
    }
}

/// The largest inner packet for a site.
pub(super) fn mtu(number: i128) -> Result<NonZeroU16, String> {
    match nonzero_u16(number) {
        Some(mtu) if mtu.get() >= 576 => Ok(mtu),
        _ => {
            Err("576 to 65535 are right: the largest IP packet inside the tunnel, as the MTU of its interface"
                .to_owned())
        }
    }
}

pub(super) fn action(text: &str) -> Result<Action, String> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        _ => Err("\"allow\" or \"deny\" are right".to_owned()),
    }
}

/// A rule's name: one that is not a place, nor that of what no rule matches.
pub(super) fn rule_name(text: &str) -> Result<Name, String> {
    let name = Name::new(text)?;
    match text {
        "default" => Err("that is what no rule matches; another name is right".to_owned()),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err("rules without a name are called by a number; one with a letter in it is right".to_owned())
        }
        _ => Ok(name),
    }
}

/// The protocols that have a name here (IANA's numbers).
const PROTOCOLS: [(&str, u8); 10] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
];

pub(super) fn protocol(text: &str) -> Result<u8, String> {
    let named = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
    named.or_else(|| text.parse().ok()).ok_or_else(|| {
        let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        format!("{} or a number from 0 to 255 in quotes are right", names.join(", "))
    })
}

/// Ports and ranges of them: `22, 80, 8000-8100`.
pub(super) fn ports(text: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let one = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let port = |text: &str| text.trim().bytes().all(|byte| byte.is_ascii_digit()).then(|| text.trim().parse().ok());
        match (port(first).flatten(), port(last).flatten()) {
            (Some(first), Some(last)) if first <= last => Ok(first..=last),
            _ => Err("ports from 0 to 65535 and ranges of them are right, like \"22, 80, 8000-8100\"".to_owned()),
        }
    };
    text.split(',').map(one).collect()
}

/// TCP flags that are set, or not: `syn, !ack`.
pub(super) fn tcp_flags(text: &str) -> Result<Flags, String> {
    const NAMES: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    let mut flags = Flags::default();
    for part in text.split(',').map(str::trim) {
        let (name, clear) = part.strip_prefix('!').map_or((part, false), |name| (name, true));
        let Some(bit) = NAMES.iter().position(|known| *known == name) else {
            return Err(format!("{} are right, with ! before those that must not be set", NAMES.join(", ")));
        };
        *(if clear { &mut flags.clear } else { &mut flags.set }) |= 1 << bit;
    }
    match flags.set & flags.clear {
        0 => Ok(flags),
        _ => Err("one flag is to be set and not to be set; no packet is so".to_owned()),
    }
}
