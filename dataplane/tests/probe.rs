//! Replies to pings of the hub's own, on the journey: control hears of those that it waits for, and of no others.

use classifier::filter::{Action, Filter};
use ekiden_dataplane::config::Idle;
use ekiden_dataplane::mailbox::{Event, Order};
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{Rehearsal, routes};
use std::net::IpAddr;
use std::sync::Arc;
use wire::echo::{self, Mark};
use wire::{DropReason, SiteSlot, TenantSlot};

const SITES: [&str; 2] = ["fd00:9:1::1", "10.9.1.1"];
/// The hub's addresses in every rehearsal; IPv4 has the dummy.
const HUB: [&str; 2] = ["fd00:9::1", "192.0.0.8"];

fn tenants() -> Vec<Vec<Vec<&'static str>>> {
    vec![vec![vec!["10.9.1.0/24", "fd00:9:1::/64"], vec!["10.9.2.0/24", "fd00:9:2::/64"]]]
}

fn mark(sequence: u16) -> Mark {
    Mark { id: 7, sequence, token: [0x5e; echo::TOKEN] }
}

/// The reply of the host `from` to a ping of 1,000 bytes.
fn reply(from: &str, to: &str, sequence: u16) -> Vec<u8> {
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let mut packet = echo::request(address(to), address(from), &mark(sequence), 1000).unwrap();
    assert!(echo::answer(&mut packet));
    packet
}

fn expect(hub: &mut Rehearsal, replies: u8) {
    hub.control.send(Order::Expect(SiteSlot(0), replies));
    let now = hub.now;
    hub.journey.obey(now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
}

/// Lets a packet of the first site arrive, and returns what control is told.
fn hears(hub: &mut Rehearsal, packet: &[u8]) -> Vec<Event> {
    let frame = hub.seal(0, packet);
    assert_eq!(hub.pass(&[frame]), Vec::<Vec<u8>>::new());
    let (pool, all) = hub.census();
    assert_eq!(pool, all, "a chunk is lost");
    hub.events()
}

fn known(sequence: u16) -> Vec<Event> {
    vec![Event::Reply { site: SiteSlot(0), mark: mark(sequence) }]
}

#[test]
fn as_many_replies_are_told_as_control_waits_for() {
    for (site, address) in SITES.into_iter().zip(HUB) {
        let mut hub = Rehearsal::new(&tenants(), 256);
        assert_eq!(hears(&mut hub, &reply(site, address, 1)), []);
        assert_eq!(hub.drops(), [(DropReason::NoRoute, 1)], "nobody has asked");
        expect(&mut hub, 2);
        assert_eq!(hears(&mut hub, &reply(site, address, 2)), known(2));
        assert_eq!(hears(&mut hub, &reply(site, address, 3)), known(3));
        assert_eq!(hub.journey.rows.turns.to_control.read(), 2);
        assert_eq!(hears(&mut hub, &reply(site, address, 4)), []);
        assert_eq!(hub.drops(), [(DropReason::NoRoute, 2)], "two were asked for");
    }
}

#[test]
fn nothing_else_is_taken_for_one() {
    let mut hub = Rehearsal::new(&tenants(), 256);
    expect(&mut hub, 100);
    let whole = reply(SITES[0], HUB[0], 1);
    let mut damaged = whole.clone();
    damaged[500] ^= 1;
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let request = echo::request(address(SITES[0]), address(HUB[0]), &mark(1), 100).unwrap();
    let elsewhere = reply(SITES[0], "fd00:9::2", 1);
    for packet in [damaged, request, elsewhere] {
        assert_eq!(hears(&mut hub, &packet), []);
    }
    assert_eq!(hub.drops(), [(DropReason::NoRoute, 3)]);
    // Another site's count is its own.
    let of_other = hub.seal(1, &reply("fd00:9:2::1", HUB[0], 1));
    assert_eq!(hub.dropped_for(of_other), DropReason::NoRoute);
    assert_eq!(hub.events(), []);
}

#[test]
fn a_reply_in_fragments_is_told_once() {
    let mut hub = Rehearsal::new(&tenants(), 256);
    expect(&mut hub, 4);
    let whole = reply(SITES[1], HUB[1], 9);
    let cuts = wire::fragment::Cuts::new(
        &{
            let mut packet = whole.clone();
            packet[6] = 0;
            packet
        },
        600,
    );
    let cuts = cuts.unwrap();
    let mut later = vec![0; cuts.len(1)];
    cuts.write(&whole, 1, &mut later);
    let mut first = whole;
    first.truncate(cuts.len(0));
    cuts.shorten(&mut first);
    assert_eq!(hears(&mut hub, &first), known(9));
    assert_eq!(hears(&mut hub, &later), []);
    assert_eq!((hub.drops(), hub.journey.rows.turns.to_control.read()), (vec![], 2));
}

#[test]
fn a_tenants_filter_does_not_hold_what_is_the_hubs() {
    let mut hub = Rehearsal::new(&tenants(), 256);
    let mut tables = routes(&tenants());
    tables.filter(TenantSlot(0), Filter::new(&[], Action::Deny), 3);
    hub.journey.tables = Arc::new(tables.build());
    expect(&mut hub, 1);
    assert_eq!(hears(&mut hub, &reply(SITES[0], HUB[0], 1)), known(1));
    assert_eq!((hub.drops(), hub.journey.rows.rule(3).packets.read()), (vec![], 0));
    assert_eq!(hears(&mut hub, &reply(SITES[0], HUB[0], 2)), []);
    assert_eq!((hub.drops(), hub.journey.rows.rule(3).packets.read()), (vec![(DropReason::FilterDenied, 1)], 1));
}
