//! The kernel's real events, in namespaces with veth pairs.

mod fuzz;
pub(crate) mod lab;

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use wire::PortIndex;

use self::lab::*;
use super::{Change, Dump, Reach, Underlay};

fn local(port: u16, added: &[&str], removed: &[&str]) -> Change {
    let list = |list: &[&str]| list.iter().map(|a| ip(a)).collect();
    Change::Local { port: PortIndex(port), added: list(added), removed: list(removed) }
}

fn is_link(change: &Change, port: u16, is_up: bool) -> bool {
    matches!(change, Change::Link { port: p, up, .. } if *p == PortIndex(port) && *up == is_up)
}

/// How many routes have been asked for.
fn asked(underlay: &Underlay) -> u64 {
    underlay.requests.routes_asked
}

#[test]
fn it_starts_with_the_ports_and_their_addresses() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(2);
        let seen = until(&mut underlay, |c| *c == Change::Gone { port: PortIndex(1) }).await;
        let ifindex = nix::net::if_::if_nametoindex("d0").unwrap();
        let (port, mac) = (PortIndex(0), mac(0, 1));
        assert!(seen.contains(&Change::Link { port, ifindex, mac, mtu: 1500, up: true, recreated: false }), "{seen:?}");
        assert!(seen.contains(&local(0, &["10.0.0.1", "fd00:0::1"], &[])), "{seen:?}");
        assert_eq!(seen.len(), 3, "{seen:?}");
    });
}

#[test]
fn remotes_on_the_link_and_behind_a_gateway_v4_and_v6() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add default via 10.0.0.2; ip -6 route add default via fd00:0::2");
        let mut underlay = underlay(1);
        let six = via_with(0, |hop| hop.local = ip("fd00:0::1"));
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        watch_until(&mut underlay, "192.0.2.7", via(0)).await;
        watch_until(&mut underlay, "fd00:0::2", six).await;
        watch_until(&mut underlay, "2001:db8::7", six).await;
        assert_eq!(underlay.reach(ip("2001:db8::7"), None), Some(six));
        assert_eq!(underlay.reach(ip("192.0.2.8"), None), None, "not watched");
    });
}

#[test]
fn an_ipv4_route_through_an_ipv6_neighbour() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add 192.0.2.0/24 via inet6 fd00:0::2");
        watch_until(&mut underlay(1), "192.0.2.7", via_with(0, |hop| hop.next_hop = ip("fd00:0::2"))).await;
    });
}

#[test]
fn no_route() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1); // exists, but is none of the hub's
        lab.hub(
            "ip route add 192.0.2.0/24 via 10.0.1.2; ip route add blackhole 198.51.100.0/25
             ip route add unreachable 198.51.100.128/25; ip -6 route add blackhole 2001:db8::/32",
        );
        let mut underlay = underlay(1);
        for remote in [
            "192.0.2.7",       // through a port that is not configured
            "203.0.113.1",     // nowhere
            "198.51.100.1",    // blackhole
            "198.51.100.200",  // unreachable
            "2001:db8::1",     // blackhole
            "2001:db9::1",     // nowhere
            "10.0.0.1",        // ourselves
            "127.0.0.1",       // ourselves
            "::1",             // ourselves
            "224.0.0.1",       // a group
            "ff02::1",         // a group
            "10.0.0.255",      // broadcast
            "255.255.255.255", // broadcast
        ] {
            underlay.watch(ip(remote), None);
            assert_eq!(until_reach(&mut underlay, remote, Reach::NoRoute).await, [Reach::NoRoute], "{remote}");
        }
    });
}

#[test]
fn a_gratuitous_arp_of_the_gateway_moves_every_remote_without_a_route_query() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add default via 10.0.0.2");
        lab.peer("echo 1 > /proc/sys/net/ipv4/conf/p0/arp_notify");
        let mut underlay = underlay(1);
        let remotes: Vec<String> = (1..=50).map(|n| format!("192.0.2.{n}")).collect();
        for remote in &remotes {
            watch_until(&mut underlay, remote, via(0)).await;
        }
        during(&mut underlay, Duration::from_millis(300)).await;
        let before = asked(&underlay);
        lab.peer("ip link set p0 address 02:00:00:00:00:99");
        let moved = via_with(0, |hop| hop.destination_mac = mac(0, 0x99));
        let mut moves = 0;
        while moves < remotes.len() {
            let seen = until(&mut underlay, |c| matches!(c, Change::Reach { reach, .. } if *reach == moved)).await;
            moves += 1;
            assert_eq!(seen.len(), 1, "nothing else is told: {seen:?}");
        }
        // The minute's round asks for one of the fifty in a second.
        assert!(asked(&underlay) - before < 20, "{}", asked(&underlay) - before);
    });
}

#[test]
fn a_silent_change_of_the_mac_is_found_by_the_kernels_probe() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        lab.peer("ip link set p0 address 02:00:00:00:00:99");
        let moved = via_with(0, |hop| hop.destination_mac = mac(0, 0x99));
        let way = until_reach(&mut underlay, "10.0.0.2", moved).await;
        assert_eq!(way, [moved], "the old address was used until the new one was known");
        // The same for IPv6.
        let six = via_with(0, |hop| {
            (hop.local, hop.next_hop, hop.destination_mac) = (ip("fd00:0::1"), ip("fd00:0::2"), mac(0, 0x99))
        });
        watch_until(&mut underlay, "fd00:0::2", six).await;
        lab.peer("ip link set p0 address 02:00:00:00:00:98");
        let moved = via_with(0, |hop| {
            (hop.local, hop.next_hop, hop.destination_mac) = (ip("fd00:0::1"), ip("fd00:0::2"), mac(0, 0x98))
        });
        assert_eq!(until_reach(&mut underlay, "fd00:0::2", moved).await, [moved]);
    });
}

#[test]
fn a_silent_neighbour_becomes_unresolved_and_comes_back() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        lab.peer("ip addr del 10.0.0.2/24 dev p0");
        until_reach(&mut underlay, "10.0.0.2", Reach::Unresolved).await;
        lab.peer("ip addr add 10.0.0.2/24 dev p0");
        until_reach(&mut underlay, "10.0.0.2", via(0)).await;
        // One that was never there, and appears.
        watch_until(&mut underlay, "10.0.0.3", Reach::Unresolved).await;
        lab.peer("ip addr add 10.0.0.3/24 dev p0");
        until_reach(&mut underlay, "10.0.0.3", via_with(0, |hop| hop.next_hop = ip("10.0.0.3"))).await;
    });
}

#[test]
fn a_flush_of_the_neighbours_is_bridged() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        lab.hub("ip neigh flush dev d0");
        assert_eq!(during(&mut underlay, Duration::from_secs(1)).await, []);
        assert_eq!(underlay.reach(ip("10.0.0.2"), None), Some(via(0)));
    });
}

#[test]
fn a_neighbour_set_by_hand_is_taken_and_left_alone() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip neigh add 10.0.0.9 lladdr 02:00:00:00:00:77 dev d0 nud permanent");
        let mut underlay = underlay(1);
        let by_hand = via_with(0, |hop| (hop.next_hop, hop.destination_mac) = (ip("10.0.0.9"), mac(0, 0x77)));
        watch_until(&mut underlay, "10.0.0.9", by_hand).await;
        assert_eq!(during(&mut underlay, Duration::from_secs(3)).await, []);
        lab.hub("ip neigh show 10.0.0.9 dev d0 | grep -q PERMANENT");
        lab.hub("ip neigh replace 10.0.0.9 lladdr 02:00:00:00:00:78 dev d0 nud permanent");
        let by_hand = via_with(0, |hop| (hop.next_hop, hop.destination_mac) = (ip("10.0.0.9"), mac(0, 0x78)));
        until_reach(&mut underlay, "10.0.0.9", by_hand).await;
    });
}

#[test]
fn routes_move_from_port_to_port() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1);
        let mut underlay = underlay(2);
        watch_until(&mut underlay, "192.0.2.7", Reach::NoRoute).await;
        lab.hub("ip route add 192.0.2.0/24 via 10.0.0.2");
        until_reach(&mut underlay, "192.0.2.7", via(0)).await;
        lab.hub("ip route replace 192.0.2.0/24 via 10.0.1.2");
        until_reach(&mut underlay, "192.0.2.7", via(1)).await;
        lab.hub("ip route add 192.0.2.7/32 via 10.0.0.2");
        until_reach(&mut underlay, "192.0.2.7", via(0)).await;
        lab.hub("ip route del 192.0.2.7/32");
        until_reach(&mut underlay, "192.0.2.7", via(1)).await;
        // A rule, and a table of its own.
        lab.hub("ip route add default via 10.0.0.2 table 100; ip rule add to 192.0.2.0/24 ipproto udp sport 51820 table 100");
        until_reach(&mut underlay, "192.0.2.7", via(0)).await;
        lab.hub("ip rule del to 192.0.2.0/24 ipproto udp sport 51820 table 100");
        until_reach(&mut underlay, "192.0.2.7", via(1)).await;
        // A next hop object that changes under its route.
        lab.hub("echo 0 > /proc/sys/net/ipv4/nexthop_compat_mode"); // it tells of the routes too
        lab.hub("ip nexthop add id 7 via 10.0.1.2 dev d1; ip route replace 192.0.2.0/24 nhid 7 mtu 1400");
        until_reach(&mut underlay, "192.0.2.7", via_with(1, |hop| hop.mtu = 1400)).await;
        lab.hub("ip nexthop replace id 7 via 10.0.0.2 dev d0");
        until_reach(&mut underlay, "192.0.2.7", via_with(0, |hop| hop.mtu = 1400)).await;
    });
}

#[test]
fn only_remotes_within_the_changed_prefix_are_asked_for() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add default via 10.0.0.2");
        let mut underlay = underlay(1);
        for n in 1..=200 {
            underlay.watch(ip(&format!("192.0.2.{n}")), None);
        }
        watch_until(&mut underlay, "192.0.2.250", via(0)).await;
        during(&mut underlay, Duration::from_millis(500)).await;
        let before = asked(&underlay);
        lab.hub("ip route add 192.0.2.248/29 via 10.0.0.2 mtu 1400");
        until_reach(&mut underlay, "192.0.2.250", via_with(0, |hop| hop.mtu = 1400)).await;
        assert!(asked(&underlay) - before < 20, "{}", asked(&underlay) - before);
    });
}

#[test]
fn an_interface_goes_down_and_up() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add default via 10.0.0.2");
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "192.0.2.7", via(0)).await;
        // The cable: the route stays.
        lab.peer("ip link set p0 down");
        let seen = until(&mut underlay, |c| matches!(c, Change::Reach { reach: Reach::PortDown, .. })).await;
        assert!(seen.iter().any(|c| is_link(c, 0, false)), "{seen:?}");
        lab.peer("ip link set p0 up");
        until_reach(&mut underlay, "192.0.2.7", via(0)).await;
        // The switch: the route goes.
        lab.hub("ip link set d0 down");
        until_reach(&mut underlay, "192.0.2.7", Reach::PortDown).await;
        lab.hub("ip link set d0 up");
        until(&mut underlay, |c| is_link(c, 0, true)).await;
        until_reach(&mut underlay, "192.0.2.7", Reach::NoRoute).await;
        lab.hub("ip route add default via 10.0.0.2");
        until_reach(&mut underlay, "192.0.2.7", via(0)).await;
    });
}

#[test]
fn another_port_takes_over_from_one_that_is_switched_off() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1);
        lab.hub("echo 1 > /proc/sys/net/ipv6/conf/d0/disable_ipv6"); // its addresses would leave, and tell as much
        lab.hub("ip route add default via 10.0.0.2 metric 10; ip route add default via 10.0.1.2 metric 20");
        let mut underlay = underlay(2);
        watch_until(&mut underlay, "192.0.2.7", via(0)).await;
        lab.hub("ip link set d0 down"); // for IPv4 the kernel does not tell that its routes have gone
        until_reach(&mut underlay, "192.0.2.7", via(1)).await;
    });
}

#[test]
fn an_interface_is_deleted_and_made_again() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        lab.hub("ip link del d0");
        let seen = until(&mut underlay, |c| *c == Change::Gone { port: PortIndex(0) }).await;
        let removed = |c: &Change| matches!(c, Change::Local { removed, .. } if removed.contains(&ip("10.0.0.1")));
        assert!(seen.iter().any(removed), "{seen:?}");
        assert_eq!(underlay.reach(ip("10.0.0.2"), None), Some(Reach::PortDown));
        lab.link(0);
        let seen = until(&mut underlay, |c| matches!(c, Change::Reach { reach, .. } if *reach == via(0))).await;
        assert!(seen.iter().any(|c| matches!(c, Change::Link { recreated: true, .. })), "{seen:?}");
        let added = |c: &Change| matches!(c, Change::Local { added, .. } if added.contains(&ip("10.0.0.1")));
        assert!(seen.iter().any(added), "{seen:?}");
        assert!(!seen.contains(&Change::Gone { port: PortIndex(0) }), "{seen:?}");
    });
}

#[test]
fn another_interface_takes_the_name() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        lab.hub("ip link set d0 down; ip link set d0 name old; ip link set d1 down; ip link set d1 name d0; ip link set d0 up");
        let other = |c: &Change| matches!(c, Change::Link { recreated: true, mac: m, .. } if *m == mac(1, 1));
        until(&mut underlay, other).await;
        let way = via_with(1, |hop| hop.port = PortIndex(0));
        watch_until(&mut underlay, "10.0.1.2", way).await;
    });
}

#[test]
fn addresses_come_and_go_and_the_source_follows() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        let (remote, second) = (ip("10.0.0.2"), Some(ip("10.0.0.5")));
        let way =
            |local: &str| Change::Reach { remote, local: second, reach: via_with(0, |hop| hop.local = ip(local)) };
        underlay.watch(remote, second);
        until(&mut underlay, |c| *c == way("10.0.0.1")).await; // 10.0.0.5 is not ours
        lab.hub("ip addr add 10.0.0.5/24 dev d0");
        let seen = until(&mut underlay, |c| *c == way("10.0.0.5")).await;
        assert!(seen.contains(&local(0, &["10.0.0.5"], &[])), "{seen:?}");
        lab.hub("ip addr del 10.0.0.5/24 dev d0");
        let seen = until(&mut underlay, |c| *c == way("10.0.0.1")).await;
        assert!(seen.contains(&local(0, &[], &["10.0.0.5"])), "{seen:?}");
        // IPv6: only once duplicate address detection, of 2 s here, has ended; link-local ones never.
        lab.hub(
            "echo 1 > /proc/sys/net/ipv6/conf/d0/dad_transmits
             echo 2000 > /proc/sys/net/ipv6/neigh/d0/retrans_time_ms
             ip addr add fd00:0::5/64 dev d0; ip -6 addr show dev d0 tentative | grep -q fd00::5/
             ip addr add fe80::5/64 dev d0 nodad",
        );
        let seen = until(&mut underlay, |c| *c == local(0, &["fd00:0::5"], &[])).await;
        assert_eq!(seen.len(), 1, "{seen:?}");
        lab.hub("if ip -6 addr show dev d0 tentative | grep -q fd00::5/; then exit 1; fi");
        // One that is a duplicate is never ours.
        lab.hub(
            "ip addr add fd00:0::2/64 dev d0
             until ip -6 addr show dev d0 dadfailed | grep -q fd00::2/; do sleep 0.1; done",
        );
        assert_eq!(during(&mut underlay, Duration::from_millis(300)).await, []);
    });
}

#[test]
fn mtu_and_mac_of_the_port_follow() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.hub("ip route add 192.0.2.0/24 via 10.0.0.2 mtu 1300");
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        watch_until(&mut underlay, "192.0.2.7", via_with(0, |hop| hop.mtu = 1300)).await;
        lab.hub("ip link set d0 mtu 1420");
        until_reach(&mut underlay, "10.0.0.2", via_with(0, |hop| hop.mtu = 1420)).await;
        lab.hub("ip link set d0 mtu 1280");
        until_reach(&mut underlay, "192.0.2.7", via_with(0, |hop| hop.mtu = 1280)).await;
        lab.hub("ip link set d0 address 02:00:00:00:00:44");
        until_reach(&mut underlay, "10.0.0.2", via_with(0, |hop| (hop.mtu, hop.source_mac) = (1280, mac(0, 0x44))))
            .await;
    });
}

#[test]
fn an_overrun_is_made_good() {
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1);
        lab.hub("ip route add default via 10.0.0.2");
        let mut underlay = underlay(2);
        watch_until(&mut underlay, "192.0.2.7", via(0)).await;
        underlay.events.shrink();
        // Nobody listens meanwhile; what matters is lost.
        lab.hub("for n in $(seq 100 200); do echo addr add 10.0.0.$n/24 dev d0; done | ip -batch -");
        lab.hub("ip route replace default via 10.0.1.2; ip link set d1 mtu 1400; ip addr add 10.0.1.9/24 dev d1");
        let seen = until(
            &mut underlay,
            |c| matches!(c, Change::Reach { reach, .. } if *reach == via_with(1, |hop| hop.mtu = 1400)),
        )
        .await;
        assert!(underlay.resyncs > 0, "nothing was lost: the test shows nothing");
        assert!(seen.contains(&local(1, &["10.0.1.9"], &[])), "{seen:?}");
    });
}

#[test]
fn each_watch_is_answered_and_wants_its_unwatch() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        watch_until(&mut underlay, "10.0.0.2", via(0)).await;
        underlay.watch(ip("10.0.0.2"), None);
        assert_eq!(until_reach(&mut underlay, "10.0.0.2", via(0)).await, [via(0)], "told again");
        underlay.unwatch(ip("10.0.0.2"), None);
        assert_eq!(underlay.reach(ip("10.0.0.2"), None), Some(via(0)));
        underlay.unwatch(ip("10.0.0.2"), None);
        assert_eq!(underlay.reach(ip("10.0.0.2"), None), None);
        underlay.unwatch(ip("10.0.0.2"), None); // once too often: nothing
        lab.hub("ip link set d0 mtu 1400");
        let seen = during(&mut underlay, Duration::from_millis(500)).await;
        assert!(seen.iter().all(|c| is_link(c, 0, true)) && seen.len() == 1, "{seen:?}");
        assert!(underlay.table.is_empty());
    });
}

#[test]
fn ten_thousand_remotes() {
    const REMOTES: u32 = 10_000;
    lab(async |lab: Lab| {
        lab.link(0);
        lab.link(1);
        lab.hub("ip route add default via 10.0.0.2");
        lab.peer("echo 1 > /proc/sys/net/ipv4/conf/p1/arp_notify");
        let mut underlay = underlay(2);
        let all = async |underlay: &mut Underlay, wanted: Reach, what: &str| {
            let (started, asked_before) = (Instant::now(), asked(underlay));
            for _ in 0..REMOTES {
                until(underlay, |c| matches!(c, Change::Reach { reach, .. } if *reach == wanted)).await;
            }
            let asked = asked(underlay) - asked_before;
            eprintln!("{REMOTES} remotes, {what}: {:?}, {asked} route queries", started.elapsed());
            asked
        };
        for n in 0..REMOTES {
            underlay.watch(IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + n)), None);
        }
        let n = all(&mut underlay, via(0), "first").await;
        assert_eq!(n, u64::from(REMOTES));
        lab.hub("ip route replace default via 10.0.1.2");
        let n = all(&mut underlay, via(1), "default route moved").await;
        assert!(n < u64::from(REMOTES) * 11 / 10, "{n}");
        lab.peer("ip link set p1 address 02:00:00:00:01:99");
        let moved = via_with(1, |hop| hop.destination_mac = mac(1, 0x99));
        let n = all(&mut underlay, moved, "MAC address of the gateway changed").await;
        assert!(n < u64::from(REMOTES) / 10, "{n}");
    });
}

/// The kernel answers with what was, and meanwhile it changes: the dump must not undo what an event has told since.
#[test]
fn what_happens_during_a_dump_is_not_undone_by_it() {
    lab(async |lab: Lab| {
        lab.link(0);
        let mut underlay = underlay(1);
        until(&mut underlay, |change| is_link(change, 0, true)).await;
        for up in [false, true] {
            // The links have been told, the rest has not.
            underlay.table.resync = true;
            let begun = Instant::now();
            while underlay.dump != Some(Dump::Addresses) {
                underlay.turn(Instant::now());
                assert!(begun.elapsed() < Duration::from_secs(10), "no dump");
                tokio::task::yield_now().await;
            }
            lab.hub(if up { "ip link set d0 up" } else { "ip link set d0 down" });
            until(&mut underlay, |change| is_link(change, 0, up)).await;
            while underlay.dump.is_some() || underlay.table.resync {
                let more = during(&mut underlay, Duration::from_millis(20)).await;
                assert!(!more.iter().any(|change| is_link(change, 0, !up)), "{more:?}");
            }
        }
    });
}
