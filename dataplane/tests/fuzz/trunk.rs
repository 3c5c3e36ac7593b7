//! Messages of another hub, and packets for it, under any input.

use super::hubs::{World, nets, packets, tenant};
use super::mutate::{alter, seconds};
use super::{Plan, Reached, few, must_have_reached};
use bolero::generator::produce;
use crypto::aead::Cipher;
use ekiden_dataplane::rehearsal::joined::tagged;
use std::panic::AssertUnwindSafe;
use wire::geneve::{self, Payload};
use wire::{Inner, Malformed, Outer};

/// What the other hub sends, which holds the keys; and what this one sends it.
#[test]
fn any_message_of_another_hub() {
    let mut world = AssertUnwindSafe(World::pair(3, Cipher::Aes256Gcm));
    world.0.change(0, 1, |trunk| {
        trunk.carried.remove(&tenant(1));
        trunk.denied.insert(tenant(1));
        trunk.payload_max = Some(1400);
    });
    let mut borrowed = AssertUnwindSafe(&mut world);
    bolero::check!().with_test_time(seconds()).with_generator(produce::<(Vec<Plan>, u8)>()).for_each({
        move |(plans, whim)| {
            let AssertUnwindSafe(world) = &mut borrowed;
            let world = &mut world.0;
            let frames: Vec<_> = plans.iter().map(|plan| by_trunk(world, plan)).collect();
            // Now and then a lane has no session, or is down.
            let lane = world.lane(0, 1, usize::from(*whim) % 3);
            let sending = world.hubs[0].journey.sites.at(lane).sending.clone();
            match whim >> 5 {
                0 => world.hubs[0].journey.sites.at_mut(lane).sending = None,
                1 => world.change(0, 1, |trunk| trunk.live.retain(|live| *live != lane)),
                _ => world.change(0, 1, |trunk| trunk.live = trunk.lanes.clone()),
            }
            let moved = world.hubs[0].leave();
            let mut out = world.left(0, moved);
            out.extend(world.pass(0, &frames));
            for frame in out.iter().filter(|frame| Outer::parse(frame) != Err(Malformed::Fragment)) {
                match world.hubs[1].open_by(frame) {
                    Some((_, plain)) => {
                        let tag = geneve::View::parse(&plain).expect("a tag");
                        assert_eq!(tag.tenant(), tenant(0), "only he sends");
                        let inner = tag.payload();
                        let len = Inner::parse(inner).expect("a packet").len;
                        assert!(inner[len..].iter().all(|byte| *byte == 0), "padding that is not zero");
                    }
                    None => assert!(world.hubs[0].open(frame).is_some(), "a frame left that nobody can open"),
                }
            }
            world.parcels(0);
            world.hubs[0].events();
            world.hubs[0].journey.sites.at_mut(lane).sending = sending;
        }
    });
    let turns = &world.0.hubs[0].journey.rows.turns;
    let drops = world.0.hubs[0].drops();
    let mut reached: Reached = drops.iter().map(|(reason, packets)| (reason.name().to_owned(), *packets)).collect();
    for (name, counter) in
        [("generated", &turns.generated), ("to_control", &turns.to_control), ("keepalives", &turns.keepalives)]
    {
        reached.extend((counter.read() > 0).then(|| (name.to_owned(), counter.read())));
    }
    must_have_reached(
        &reached,
        &[
            "outer_malformed",
            "outer_not_wireguard",
            "session_unknown",
            "auth_failed",
            "inner_malformed",
            "trunk_tag_malformed",
            "trunk_tenant_unknown",
            "trunk_tenant_denied",
            "trunk_source",
            "split_horizon",
            "no_route",
            "ttl_expired",
            "too_large",
            "staged_overflow",
            "generated",
            "to_control",
            "keepalives",
        ],
    );
}

fn by_trunk(world: &World, (kind, lane, hops, len, inside, outside): &Plan) -> Vec<u8> {
    let (none, by) = (&[] as &[Vec<u8>], world.lane(1, 0, usize::from(*lane) % 3));
    let [here, there] = [nets(0), nets(1)];
    let bytes = || inside.iter().flat_map(|(a, b, c, d)| [*a, *b as u8, *c, *d as u8]).take(1500).collect::<Vec<_>>();
    let hops = if kind % 16 == 1 { hops % 3 } else { 2 + hops % 62 };
    let len = 48 + usize::from(*len) % 1390;
    let of = |from, to| packets(from, to, hops, len)[usize::from(*lane) % 2].clone();
    let mut packet = match kind % 16 {
        14 => of(here[1], here[0]),  // a source that is here
        2 => of(there[0], there[1]), // to where it came from
        3 => of(there[0], 77),
        4..8 => of(here[0], there[0]),
        _ => of(there[0], here[0]),
    };
    few(inside).for_each(|change| alter(&mut packet, *change, none));
    packet.truncate(1500);
    let payload = Payload::of(&packet).unwrap_or(Payload::Control);
    let tag = |whose, payload, inner: &[u8]| world.hubs[1].seal_by(by, &tagged(whose, payload, inner));
    let mut frame = match kind % 16 {
        4..8 => world.seal(0, 0, &packet),
        8 => world.hubs[1].frame_by(by, &bytes()),
        9 => world.hubs[1].seal_by(by, &bytes()),
        10 => world.hubs[1].seal_by(by, &[]),
        11 => tag(tenant(0), Payload::Control, &bytes()),
        12 => tag(tenant(1), payload, &packet),
        13 => {
            let mut plain = tagged(tenant(0), payload, &packet);
            few(outside).for_each(|(what, at, len, value)| alter(&mut plain, (*what, at % 9, *len, *value), none));
            plain.truncate(1600);
            return world.hubs[1].seal_by(by, &plain);
        }
        _ => tag(tenant(0), payload, &packet),
    };
    if lane % 4 == 0 {
        few(outside).for_each(|change| alter(&mut frame, *change, none));
    }
    frame.truncate(1792);
    frame
}
