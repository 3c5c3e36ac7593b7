//! What a worker makes of another configuration, in the middle of its work.

use std::sync::Arc;

use classifier::Tables;
use crypto::aead::Cipher;
use crypto::{Role, Session};
use ekiden_dataplane::config::{Dscp, Idle};
use ekiden_dataplane::mailbox::Order;
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, routes};
use ekiden_dataplane::seats::Vacant;
use ekiden_dataplane::sites::Seat;
use stats::{Rows, Shape};
use wire::{DropReason, SiteSlot, TenantSlot};

const A: [u8; 4] = [10, 9, 1, 1];
const B: [u8; 4] = [10, 9, 2, 1];

/// Two tenants with the same networks, each with two sites.
fn hub() -> Rehearsal {
    let sites = || vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]];
    Rehearsal::new(&[sites(), sites()], 256)
}

fn obey(hub: &mut Rehearsal) {
    hub.journey.obey(hub.now, &mut Ports::new(Vec::new(), 1, Idle::Adaptive));
}

fn index(hub: &Rehearsal, slot: SiteSlot) -> u32 {
    hub.journey.sites.at(slot).sending.as_ref().expect("it has a session").local_index()
}

#[test]
fn who_it_is_comes_with_a_session_that_is_learnt_in_the_middle_of_a_batch() {
    let mut hub = hub();
    let (new, tenant) = (SiteSlot(2), TenantSlot(1));
    let session = hub.journey.sites.at(new).sending.clone().expect("it has a session");
    hub.journey.sessions.withdraw(session.local_index());
    // As a slot is in which nobody has been.
    hub.journey.sites.at_mut(new).tenant = TenantSlot(0);
    hub.control.send(Order::GiveUp(SiteSlot(0)));
    hub.control.send(Order::Seat(new, Seat { tenant, limits: None, dscp: Dscp::Zero }));
    hub.control.send(Order::Publish(session));
    let left = hub.pass(&[hub.seal(2, &ipv4(A, B, 9, 100))]);
    let (to, _) = hub.open(&left[0]).expect("a message of the hub's");
    assert_eq!((to, hub.drops()), (3, vec![]), "to the other site of its own tenant");
}

#[test]
fn a_session_that_packets_are_under_stays_until_the_end_of_their_batch() {
    let mut hub = hub();
    let old = index(&hub, SiteSlot(0));
    let new = old ^ 0x8000_0000;
    let keys = [[1; 32], [2; 32]];
    let session = Session::new(0, new, 7, Role::Initiator, &keys[0], &keys[1], Cipher::ChaCha20Poly1305, hub.now);
    hub.control.send(Order::Withdraw { site: SiteSlot(0), index: old });
    hub.control.send(Order::Publish(Arc::new(session)));
    // The second names an index that is not known yet.
    let first = hub.seal(0, &ipv4(A, B, 9, 100));
    let mut second = first.clone();
    let place = second.windows(4).position(|four| four == old.to_le_bytes()).expect("its index");
    second[place..place + 4].copy_from_slice(&new.to_le_bytes());
    assert_eq!(hub.pass(&[first, second]).len(), 1);
    assert_eq!(hub.drops(), [(DropReason::SessionUnknown, 1)]);
    obey(&mut hub);
    assert!(hub.journey.sessions.find(old).is_none() && hub.journey.sessions.find(new).is_some());
}

#[test]
fn whoever_comes_into_a_slot_finds_nothing_of_who_was_there() {
    let mut hub = hub();
    let (site, tenant) = (SiteSlot(1), TenantSlot(0));
    hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100)), hub.seal(0, &ipv4(A, [10, 8, 0, 1], 9, 100))]);
    // One waits on the shelf.
    hub.journey.sites.at_mut(site).sending = None;
    hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100))]);
    assert_eq!((hub.journey.shelf.len(), hub.drops()), (1, vec![(DropReason::NoRoute, 1)]));
    hub.journey.rows.rule(3).packets.add(5);

    let mut told =
        Arc::new(Vacant { tenants: vec![tenant], sites: vec![site], carried: vec![], rules: vec![2..3, 3..4] });
    hub.control.send(Order::Vacate(told.clone()));
    assert!(Arc::get_mut(&mut told).is_none(), "it is not done yet");
    obey(&mut hub);
    assert!(Arc::get_mut(&mut told).is_some(), "it is done");
    let rows = &hub.journey.rows;
    let row = rows.site(site);
    let left = [
        &row.tx_packets,
        &row.tx_bytes,
        &row.staged,
        &row.any_sent_at,
        &rows.volume(tenant).rx_packets,
        &rows.rule(3).packets,
    ];
    assert_eq!(left.map(stats::Counter::read), [0; 6]);
    // What was dropped is not forgotten, but it is nobody's.
    assert_eq!(rows.tenant(tenant).read(DropReason::NoRoute), (0, 0));
    assert_eq!(hub.drops(), [(DropReason::NoRoute, 1), (DropReason::SiteDown, 1)]);
    assert_eq!((hub.journey.shelf.len(), hub.census()), (0, (256, 256)));
    // What another worker routed there before it heard of this does not wait for whoever comes.
    assert_eq!(hub.dropped_for(hub.seal(0, &ipv4(A, B, 9, 100))), DropReason::SiteNoEndpoint);
}

#[test]
fn tables_and_rows_change_between_two_batches_and_control_frees_the_old_ones() {
    let mut hub = hub();
    let packet = |hub: &Rehearsal| hub.seal(0, &ipv4(A, B, 9, 100));
    let moved = |hub: &mut Rehearsal, to: Arc<Tables>| {
        let mut before = hub.journey.tables.clone();
        hub.control.send(Order::Tables(to));
        obey(hub);
        assert!(Arc::get_mut(&mut before).is_some(), "the worker has let go of them");
    };
    let swapped = vec![vec!["10.9.1.0/24"], vec![]];
    moved(&mut hub, Arc::new(routes(&[swapped]).build()));
    assert_eq!(hub.dropped_for(packet(&hub)), DropReason::NoRoute);
    let back = vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]];
    moved(&mut hub, Arc::new(routes(&[back]).build()));
    assert_eq!(hub.pass(&[packet(&hub)]).len(), 1);

    let mut before = hub.journey.rows.clone();
    let larger = Rows::new(Shape { tenants: 40, sites: 900, ports: 1, rules: 64 });
    larger.touch();
    hub.control.send(Order::Rows(Arc::new(larger)));
    assert!(Arc::get_mut(&mut before).is_none());
    obey(&mut hub);
    assert!(Arc::get_mut(&mut before).is_some(), "the worker has let go of them");
    assert_eq!(hub.pass(&[packet(&hub)]).len(), 1);
    let rows = &hub.journey.rows;
    assert_eq!(
        (rows.site(SiteSlot(0)).rx_packets.read(), rows.tenant(TenantSlot(0)).read(DropReason::NoRoute).0),
        (3, 1)
    );
    assert_eq!(rows.site(SiteSlot(899)).rx_packets.read(), 0);
    assert_eq!(before.site(SiteSlot(0)).rx_packets.read(), 2, "who has the old ones sees them stand still");
}
