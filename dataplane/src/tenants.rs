//! A worker's private view of tenants: where the hub's ICMP to each comes from, and how much of it there may be.

use crate::clock::Time;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use wire::TenantSlot;

/// The source of ICMPv4 to a tenant that gave the hub no address: the dummy address of RFC 7600, section 4.8, point 22.
pub const DUMMY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// ICMP answers a second that a worker makes for one tenant (RFC 4443, 2.4(f) asks for a bound).
pub const ICMP_PER_SECOND: u64 = 100;
/// Answers that a quiet tenant may draw at once: a traceroute of 30 hops at 3 probes fits.
pub const ICMP_BURST: u64 = 100;

/// A tenant, as packets of it need it.
#[derive(Debug)]
pub struct Tenant {
    v4: Ipv4Addr,
    v6: Option<Ipv6Addr>,
    /// The earliest time at which the bucket would be full: the whole state of a token bucket.
    full_at: Time,
}

impl Tenant {
    /// A tenant with these addresses of the hub, the first of each family counting.
    pub fn new(hub_addresses: &[IpAddr]) -> Self {
        let v4 = hub_addresses.iter().find_map(|a| if let IpAddr::V4(a) = a { Some(*a) } else { None });
        let v6 = hub_addresses.iter().find_map(|a| if let IpAddr::V6(a) = a { Some(*a) } else { None });
        Self { v4: v4.unwrap_or(DUMMY_V4), v6, full_at: Time(0) }
    }

    /// The address from which a packet of this IP version is answered; none for IPv6 if none is configured.
    pub fn hub_address(&self, version: u8) -> Option<IpAddr> {
        match version {
            4 => Some(self.v4.into()),
            _ => self.v6.map(IpAddr::V6),
        }
    }

    /// Takes the right to one ICMP answer; `false` above the rate.
    pub fn may_answer(&mut self, now: Time) -> bool {
        const TOKEN: u64 = 1_000_000_000 / ICMP_PER_SECOND;
        let full_at = self.full_at.0.max(now.0) + TOKEN;
        let fits = full_at - now.0 <= ICMP_BURST * TOKEN;
        if fits {
            self.full_at = Time(full_at);
        }
        fits
    }
}

/// All tenants by slot.
#[derive(Debug)]
pub struct Tenants(Vec<Tenant>);

impl Tenants {
    /// One tenant a slot.
    pub fn new(tenants: impl IntoIterator<Item = Tenant>) -> Self {
        Self(tenants.into_iter().collect())
    }

    /// The tenant in this slot.
    #[inline]
    pub fn at_mut(&mut self, slot: TenantSlot) -> &mut Tenant {
        &mut self.0[slot.index()]
    }

    /// Tenants of the hub.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the hub has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_bounded_by_burst_and_rate() {
        let mut tenant = Tenant::new(&[]);
        let start = Time(5_000_000_000);
        let at_once = (0..1000).filter(|_| tenant.may_answer(start)).count();
        assert_eq!(at_once as u64, ICMP_BURST);
        let a_second_later = Time(start.0 + 1_000_000_000);
        let more = (0..1000).filter(|_| tenant.may_answer(a_second_later)).count();
        assert_eq!(more as u64, ICMP_PER_SECOND);
    }

    #[test]
    fn without_an_address_only_ipv4_is_answered() {
        let tenant = Tenant::new(&[]);
        assert_eq!(tenant.hub_address(4), Some(DUMMY_V4.into()));
        assert_eq!(tenant.hub_address(6), None);
        let tenant = Tenant::new(&["fd00:9::1".parse().unwrap(), "10.9.0.1".parse().unwrap()]);
        assert_eq!(tenant.hub_address(4), Some("10.9.0.1".parse().unwrap()));
        assert_eq!(tenant.hub_address(6), Some("fd00:9::1".parse().unwrap()));
    }
}
