//! A slot from one holder to the next, by the very parts that do it: the plan gives it, a worker empties it, the sweep says when it is
//! anybody's again, and a reader looks on all the while.

use super::*;
use crate::config::{Desired, Dscp, Idle, load};
use crate::ports::Ports;
use crate::rates::Contracts;
use crate::rehearsal::{Rehearsal, ipv4};
use crate::seats::Seats;
use crate::sites::Seat;
use stats::{Reader, Segment, Series, Snapshot, Spec};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use wire::{TenantId, TenantSlot};

const A: [u8; 4] = [10, 9, 1, 1];
const B: [u8; 4] = [10, 9, 2, 1];

/// A hub of one tenant with these sites.
fn configuration(directory: &Path, sites: &[(&str, u8)]) -> Desired {
    let key = directory.join("hub.key");
    fs::write(&key, format!("{}A=\n", "B".repeat(42))).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let mut text = "[hub]\nname = \"lab\"\nprivate_key_file = \"hub.key\"\nlisten_port = 51820\n[[port]]\nname = \"d0\"\nrole = \"wan\"\n\
        [[tenant]]\nid = 1000\n"
        .to_owned();
    for (name, net) in sites {
        text += &format!(
            "[[tenant.site]]\nname = \"{name}\"\npublic_key = \"{}{}A=\"\n",
            "S".repeat(41),
            (b'A' + net) as char
        );
        text += &format!("prefixes = [\"10.9.{net}.0/24\"]\n");
    }
    let path = directory.join("hub.toml");
    fs::write(&path, &text).unwrap();
    load(&path).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn obey(hub: &mut Rehearsal) {
    hub.journey.obey(hub.now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
}

#[test]
fn a_slot_that_was_given_up_is_another_sites_after_its_rest_and_nothing_of_the_former_one_is_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second, third] =
        [&[("a", 1), ("b", 2)][..], &[("a", 1)], &[("a", 1), ("c", 3)]].map(|s| configuration(directory.path(), s));
    let seats = Seats::first(&first);
    let contracts = Contracts::default().next(&first);

    // A worker that counts in a segment, and a reader that has it open from first to last.
    let shape = Shape { tenants: 1, sites: 2, ports: 1, rules: 0 };
    let path = directory.path().join("stats");
    let room = Shape { tenants: 1000, sites: 1000, ports: 1, rules: 0 };
    let (name, build) = ("lab".to_owned(), String::new());
    let spec = Spec { hub: name, build, config_hash: 1, shape, room, workers: 1, memory: 64 << 20, group: None };
    let mut segment = Segment::create(&path, spec).unwrap().segment;
    let (tenant, id) = (TenantSlot(0), TenantId::new(1000).unwrap());
    segment.configure(|d| {
        d.tenant(tenant, id, "T", "").unwrap();
        ["a", "b"].iter().zip(0..).for_each(|(name, slot)| d.site(SiteSlot(slot), tenant, name).unwrap());
    });
    segment.publish().unwrap();
    let mut reader = Reader::open(&path).unwrap();
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]]], 256);
    hub.journey.rows = Arc::new(segment.rows(0));
    let mut second_passed = |segment: &mut Segment, second: u64| {
        segment.tick(stats::Now { ns: second * 1_000_000_000, wall_ns: second * 1_000_000_000 }, 0, 1);
        reader.snapshot().unwrap()
    };
    let site = |snapshot: &Snapshot, name: &str| snapshot.sites.iter().find(|site| site.name == name).cloned();

    // "b" gets two packets and sends one that is dropped; one more waits for a session with it.
    hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100)), hub.seal(0, &ipv4(A, B, 9, 100))]);
    hub.pass(&[hub.seal(1, &ipv4(B, [10, 8, 0, 1], 9, 100))]);
    let session = hub.journey.sites.at_mut(SiteSlot(1)).sending.take().expect("it has a session");
    hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100))]);
    let before = site(&second_passed(&mut segment, 1), "b").expect("it is there");
    assert_eq!((before.traffic.tx_packets, before.traffic.rx_packets, before.staged), (2, 1, 1));

    // It goes. Whoever comes at once gets a slot that nobody had.
    let mut vacant = Vacant::default();
    let gone = plan((&first, &seats, &contracts), second, 1000, &mut vacant).unwrap();
    assert_eq!(gone.vacant.sites, [SiteSlot(1)]);
    let told = Arc::new(gone.vacant.clone());
    hub.control.send(Order::Withdraw { site: SiteSlot(1), index: session.local_index() });
    (0..told.parts()).for_each(|part| hub.control.send(Order::Vacate(told.clone(), part)));
    segment.configure(|d| d.clear_site(SiteSlot(1))).unwrap();
    let mut reload = Reload::new(hub.journey.tables.clone(), Vec::new());
    let start = hub.now;
    reload.left.push((start, told));
    let after = |seconds: u64| Time(start.0 + seconds * 1_000_000_000);
    let at_once = || configuration(directory.path(), &[("a", 1), ("c", 3)]);
    let early =
        plan((&gone.desired, &gone.seats, &gone.contracts), at_once(), 1000, &mut reload.vacant.clone()).unwrap();
    assert_eq!(early.added[0].slot, SiteSlot(2));

    // Not before a minute has passed, and not before the worker has done what it was told.
    reload.sweep(after(59));
    assert!(reload.vacant.is_empty());
    reload.sweep(after(120));
    assert!(reload.vacant.is_empty(), "the worker has not heard of it");
    obey(&mut hub);
    let rest = std::mem::take(&mut reload.left);
    reload.left = rest.into_iter().map(|(_, told)| (after(120), told)).collect();
    reload.sweep(after(179));
    assert!(reload.vacant.is_empty());
    reload.sweep(after(180));
    assert_eq!((&reload.vacant.sites[..], reload.left.len()), (&[SiteSlot(1)][..], 0));
    let between = second_passed(&mut segment, 2);
    assert_eq!((between.sites.len(), between.tenants[0].traffic.tx_packets), (1, 2), "the tenant's sums stay");

    // The next one has it.
    let come = plan((&gone.desired, &gone.seats, &gone.contracts), third, 1000, &mut reload.vacant).unwrap();
    assert_eq!((come.added[0].slot, reload.vacant.is_empty()), (SiteSlot(1), true));
    hub.control.send(Order::Seat(SiteSlot(1), Seat { tenant, limits: None, dscp: Dscp::Zero }));
    segment.grow(Shape { sites: 500, ..shape }).unwrap();
    segment.configure(|d| d.site(SiteSlot(1), tenant, "c")).unwrap();
    obey(&mut hub);
    let snapshot = second_passed(&mut segment, 3);
    let next = site(&snapshot, "c").expect("it is there");
    assert_eq!((next.slot, next.generation), (before.slot, before.generation + 2));
    assert_eq!((next.traffic, next.staged, next.tx_over_rate), Default::default());
    assert_eq!((next.data_received_at, next.data_sent_at), (0, 0));

    // What comes in now is its own, and every packet is accounted for: 3 relayed, 1 without a route, 1 that waited in vain.
    hub.journey.sites.at_mut(SiteSlot(1)).way = crate::rehearsal::way_to(([198, 18, 0, 1], 51821).into());
    hub.journey.sites.at_mut(SiteSlot(1)).sending = Some(session);
    assert_eq!(hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100))]).len(), 1);
    let snapshot = second_passed(&mut segment, 4);
    let next = site(&snapshot, "c").expect("it is there");
    assert_eq!((next.traffic.tx_packets, next.traffic.rx_packets), (1, 0));
    assert_eq!((snapshot.tenants[0].traffic.tx_packets, snapshot.tenants[0].traffic.rx_packets), (3, 5));
    assert_eq!(hub.drops(), [(DropReason::NoRoute, 1), (DropReason::SiteDown, 1)]);
    assert_eq!(hub.census(), (256, 256));
    let history = Reader::open(&path).unwrap().history(Series::Site(1), 0).unwrap().records;
    assert_eq!(
        history.iter().map(|record| record.tx_packets).collect::<Vec<_>>(),
        [1],
        "nor is its history the former one's"
    );
}
