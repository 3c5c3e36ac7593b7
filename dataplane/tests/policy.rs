//! A tenant's filter and contracted rates, on the journey: what they let through, what they count, and that the books balance.

use classifier::filter::{Action, Filter, Rule};
use ekiden_dataplane::config::Rate;
use ekiden_dataplane::packet::{BATCH, Batch, Packet};
use ekiden_dataplane::rates::{Limit, Limits};
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, ipv6, routes};
use std::sync::Arc;
use wire::{DropReason, PortIndex, SiteSlot, TenantSlot};

/// Two tenants with the same addresses, each with two sites.
fn tenants() -> Vec<Vec<Vec<&'static str>>> {
    let sites = || vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]];
    vec![sites(), sites()]
}

fn hub() -> Rehearsal {
    Rehearsal::new(&tenants(), 2048)
}

/// Gives the first tenant a filter, whose first rule is in row 3.
fn filtered(rules: &[Rule], default: Action) -> Rehearsal {
    let mut hub = hub();
    let mut tables = routes(&tenants());
    tables.filter(TenantSlot(0), Filter::new(rules, default), 3);
    hub.journey.tables = Arc::new(tables.build());
    hub
}

/// UDP from site a to site b of either tenant, to this port.
fn to_port(port: u16, len: usize) -> Vec<u8> {
    let mut packet = ipv4([10, 9, 1, 1], [10, 9, 2, 1], 9, len);
    packet[22..24].copy_from_slice(&port.to_be_bytes());
    packet
}

fn rule_counts(hub: &Rehearsal, rows: std::ops::Range<u32>) -> Vec<(u64, u64)> {
    rows.map(|row| (hub.journey.rows.rule(row).packets.read(), hub.journey.rows.rule(row).bytes.read())).collect()
}

#[test]
fn a_filter_holds_its_tenant_and_nobody_else() {
    let dns = Rule { protocol: Some(17), ports: vec![53..=53], ..Rule::any(Action::Deny) };
    let rest = Rule { from: vec!["fd00:9:1::/64".parse().unwrap()], ..Rule::any(Action::Allow) };
    let mut hub = filtered(&[dns, rest], Action::Allow);
    let packets = [to_port(53, 100), to_port(54, 200), ipv6("fd00:9:1::1", "fd00:9:2::1", 9, 300)];
    let of_first: Vec<_> = packets.iter().map(|packet| hub.seal(0, packet)).collect();
    let of_second: Vec<_> = packets.iter().map(|packet| hub.seal(2, packet)).collect();
    assert_eq!(hub.pass(&of_first).len(), 2);
    assert_eq!(hub.drops(), [(DropReason::FilterDenied, 1)]);
    assert_eq!(rule_counts(&hub, 3..6), [(1, 100), (1, 300), (1, 200)], "each rule, and the default");
    assert_eq!(hub.pass(&of_second).len(), 3, "the other tenant has no filter");
    assert_eq!(rule_counts(&hub, 0..8).iter().map(|(packets, _)| packets).sum::<u64>(), 3);
    // It is counted as received, and where it belongs.
    assert_eq!(hub.journey.rows.tenant(TenantSlot(0)).read(DropReason::FilterDenied).0, 1);
    assert_eq!(hub.journey.rows.site(SiteSlot(0)).rx_packets.read(), 3);
    assert_eq!(hub.census().0, hub.census().1);
}

#[test]
fn what_hides_its_ports_is_dropped_where_a_rule_might_ask_and_fragments_pass() {
    let dns = Rule { protocol: Some(17), ports: vec![53..=53], ..Rule::any(Action::Deny) };
    let fragment = |offset: u16, more: bool, protocol: u8| {
        let mut packet = to_port(80, 60);
        packet[6..8].copy_from_slice(&((u16::from(more) << 13) | (offset / 8)).to_be_bytes());
        packet[9] = protocol;
        packet[10..12].fill(0);
        let sum = wire::checksum::Sum::ZERO.bytes(&packet[..20]).finish();
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet
    };
    // First, a later one, and one that would lie over a TCP header's flags; and TCP whose header is cut.
    let mut cut = to_port(80, 36);
    cut[9] = 6;
    cut[10..12].fill(0);
    let sum = wire::checksum::Sum::ZERO.bytes(&cut[..20]).finish();
    cut[10..12].copy_from_slice(&sum.to_be_bytes());
    let packets = [fragment(0, true, 17), fragment(40, false, 17), fragment(8, false, 6), cut];

    let mut open = hub();
    let sealed: Vec<_> = packets.iter().map(|packet| open.seal(0, packet)).collect();
    assert_eq!(open.pass(&sealed).len(), 4, "without a filter it is the hosts' matter");

    let mut hub = filtered(&[dns], Action::Allow);
    let sealed: Vec<_> = packets.iter().map(|packet| hub.seal(0, packet)).collect();
    assert_eq!(hub.pass(&sealed).len(), 2);
    assert_eq!(hub.drops(), [(DropReason::FilterUnreadable, 2)]);
}

/// 8 Mbit/s: a thousand bytes a millisecond, and ten thousand at once.
const SLOW: Rate = Rate { bits_per_s: 8_000_000, burst: 10_000 };

fn limits(up: &[DropReason], down: &[DropReason]) -> Option<Limits> {
    let of = |reasons: &[DropReason]| reasons.iter().map(|reason| Limit::new(SLOW, *reason)).collect();
    Some(Limits { up: of(up), down: of(down) })
}

/// Sends 64 packets of 1,000 bytes from site a to site b; how many arrive.
fn burst(hub: &mut Rehearsal) -> usize {
    let sealed: Vec<_> = (0..64).map(|_| hub.seal(0, &to_port(80, 1000))).collect();
    hub.pass(&sealed).len()
}

#[test]
fn each_rate_has_its_reason_and_each_site_its_count() {
    use DropReason::{RateSiteDown, RateSiteUp, RateTenantDown, RateTenantUp};
    for reason in [RateSiteUp, RateTenantUp, RateSiteDown, RateTenantDown] {
        let up = matches!(reason, RateSiteUp | RateTenantUp);
        let mut hub = hub();
        let (sender, receiver) = if up { (limits(&[reason], &[]), None) } else { (None, limits(&[], &[reason])) };
        hub.journey.sites.limit([sender, receiver, None, None]);
        assert_eq!(burst(&mut hub), 10, "{reason:?}");
        hub.now.0 += 5_000_000;
        assert_eq!(burst(&mut hub), 5, "{reason:?}");
        assert_eq!(hub.drops(), [(reason, 113)]);
        let rows = &hub.journey.rows;
        let (from, to) = (rows.site(SiteSlot(0)), rows.site(SiteSlot(1)));
        let counts = (from.rx_over_rate.read(), to.tx_over_rate.read());
        assert_eq!(counts, if up { (113, 0) } else { (0, 113) }, "{reason:?}");
        assert_eq!((from.rx_packets.read(), to.tx_packets.read()), (128, 15));
        // The other way, and another tenant's packets, are held by nothing.
        let back: Vec<_> = (0..64).map(|_| hub.seal(1, &ipv4([10, 9, 2, 1], [10, 9, 1, 1], 9, 1000))).collect();
        assert_eq!(hub.pass(&back).len(), 64);
        let other: Vec<_> = (0..64).map(|_| hub.seal(2, &to_port(80, 1000))).collect();
        assert_eq!(hub.pass(&other).len(), 64);
        assert_eq!(hub.census().0, hub.census().1);
    }
}

#[test]
fn what_one_rate_refuses_takes_nothing_from_another() {
    let mut hub = hub();
    hub.journey.sites.limit([limits(&[DropReason::RateSiteUp], &[]), limits(&[], &[DropReason::RateSiteDown])]);
    // Both have room for ten: the same ten.
    assert_eq!(burst(&mut hub), 10);
    hub.now.0 += 3_000_000;
    assert_eq!(burst(&mut hub), 3);
}

/// Workers have tables of their own, and share the buckets.
#[test]
fn two_workers_pass_what_one_would() {
    let mut hub = hub();
    let shared = limits(&[DropReason::RateSiteUp], &[]);
    hub.journey.sites.limit([shared.clone(), None]);
    let (mut second, _control) = hub.another();
    second.sites.limit([shared, None]);
    let mut passed = 0;
    for _ in 0..4 {
        let mut batch = Batch::new();
        for _ in 0..BATCH {
            let mut frame = hub.journey.pool.pop().unwrap();
            frame.copy_from(&hub.seal(0, &to_port(80, 1000)));
            batch.push(Packet::arrived(frame, PortIndex(0)));
        }
        second.relay(&mut batch, hub.now);
        passed +=
            batch.iter().filter(|packet| !matches!(packet.verdict, ekiden_dataplane::packet::Verdict::Drop(_))).count();
        second.dispatch(&mut batch);
        passed += burst(&mut hub);
    }
    assert_eq!(passed, 10);
}
