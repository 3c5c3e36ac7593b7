//! What a worker makes of another configuration, in the middle of its work.

use std::sync::Arc;

use classifier::Tables;
use crypto::aead::Cipher;
use crypto::{Role, Session};
use ekiden_dataplane::config::{Dscp, Idle};
use ekiden_dataplane::mailbox::Order;
use ekiden_dataplane::orders::AT_ONCE;
use ekiden_dataplane::ports::Ports;
use ekiden_dataplane::rehearsal::{Rehearsal, ipv4, routes};
use ekiden_dataplane::seats::Vacant;
use ekiden_dataplane::sites::Seat;
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
    assert_eq!(told.parts(), 1);
    hub.control.send(Order::Vacate(told.clone(), 0));
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
fn tables_change_between_two_batches_and_control_frees_the_old_ones() {
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
}

/// Everything that a worker is told when sites come and go takes it as many turns as it needs, however much is told at once: the
/// longest is as long as it is for a few.
#[test]
fn no_turn_obeys_more_than_a_few_orders_and_packets_pass_between_them() {
    const SITES: u32 = 400;
    let spare: Vec<_> = (0..SITES).map(|_| vec![]).collect();
    let mut hub = Rehearsal::new(&[vec![vec!["10.9.1.0/24"], vec!["10.9.2.0/24"]], spare], 256);
    let (tenant, slots) = (TenantSlot(1), || (2..2 + SITES).map(SiteSlot));
    let indices: Vec<u32> = slots().map(|slot| index(&hub, slot)).collect();
    for slot in slots() {
        hub.journey.rows.site(slot).rx_packets.add(1);
    }
    for slot in slots() {
        hub.control.send(Order::Seat(slot, Seat { tenant, limits: None, dscp: Dscp::Zero }));
    }
    for (slot, index) in slots().zip(&indices) {
        hub.control.send(Order::Withdraw { site: slot, index: *index });
    }
    let mut told = Arc::new(Vacant {
        tenants: vec![],
        sites: slots().collect(),
        carried: vec![],
        rules: std::iter::once(0..9).collect(),
    });
    assert_eq!(told.parts(), SITES as usize / Vacant::PART);
    (0..told.parts()).for_each(|part| hub.control.send(Order::Vacate(told.clone(), part)));
    let orders = 2 * SITES as usize + told.parts();

    // How many have been obeyed is seen by what is left of it.
    let left = |hub: &Rehearsal| {
        let sessions = indices.iter().filter(|index| hub.journey.sessions.find(**index).is_some()).count();
        let rows = slots().filter(|slot| hub.journey.rows.site(*slot).rx_packets.read() > 0).count();
        (sessions, rows)
    };
    let (mut turns, mut before) = (0, left(&hub));
    while Arc::get_mut(&mut told).is_none() {
        obey(&mut hub);
        turns += 1;
        let now = left(&hub);
        assert!(before.0 - now.0 <= AT_ONCE, "{} sessions in a turn", before.0 - now.0);
        assert!(before.1 - now.1 <= AT_ONCE * Vacant::PART, "{} rows in a turn", before.1 - now.1);
        before = now;
        assert_eq!(hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100))]).len(), 1, "packets pass meanwhile");
    }
    assert_eq!((before, turns), ((0, 0), orders.div_ceil(AT_ONCE)));
    assert_eq!(hub.journey.rows.site(SiteSlot(0)).rx_packets.read(), turns as u64);
    assert_eq!((hub.drops(), hub.census()), (vec![], (256, 256)));
}

/// A session that is waited for in the middle of a batch is found without reading all that comes behind it.
#[test]
fn no_more_is_read_in_the_middle_of_a_batch_than_up_to_the_session_that_is_looked_for() {
    let mut hub = hub();
    let session = hub.journey.sites.at(SiteSlot(0)).sending.clone().expect("it has a session");
    hub.journey.sessions.withdraw(session.local_index());
    hub.control.send(Order::GiveUp(SiteSlot(1)));
    hub.control.send(Order::Publish(session));
    (0..1000).for_each(|_| hub.control.send(Order::GiveUp(SiteSlot(1))));
    assert_eq!(hub.pass(&[hub.seal(0, &ipv4(A, B, 9, 100))]).len(), 1);
    assert_eq!(hub.journey.postponed.len(), 1);
}
