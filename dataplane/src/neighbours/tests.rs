use super::*;

const TENANT: TenantSlot = TenantSlot(3);
const HOST: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THIEF: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn key(last: u8) -> Key {
    (SiteSlot(7), IpAddr::from([10, 9, 2, last]))
}

fn claim(last: u8, mac: [u8; 6], answers: bool) -> Claim {
    Claim { key: key(last), mac, answers }
}

/// A table, and what it wants done at each step.
#[derive(Default)]
struct Lab(Neighbours);

impl Lab {
    fn want(&mut self, last: u8, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        self.0.want(TENANT, key(last), now, &mut out);
        out
    }

    fn heard(&mut self, claim: Claim, now: Time) -> (Result<(), DropReason>, Vec<Action>) {
        let mut out = Vec::new();
        let result = self.0.heard(claim, now, &mut out);
        (result, out)
    }

    fn poll(&mut self, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        self.0.poll(now, &mut out);
        out
    }

    fn state(&self, last: u8) -> Option<(&'static str, Option<[u8; 6]>)> {
        self.0.known().find(|known| known.key == key(last)).map(|known| (known.state, known.mac))
    }

    /// A neighbour that has answered at that time.
    fn known(now: Time) -> Self {
        let mut lab = Self::default();
        assert_eq!(lab.want(1, now), [Action::Ask(key(1), None)]);
        assert_eq!(lab.heard(claim(1, HOST, true), now), (Ok(()), vec![Action::Tell(key(1), HOST, now + REACHABLE)]));
        lab
    }
}

#[test]
fn who_does_not_answer_three_times_is_not_there() {
    let mut lab = Lab::default();
    assert_eq!(lab.want(1, at(0)), [Action::Ask(key(1), None)]);
    assert_eq!(lab.want(1, at(500)), [], "it has been asked");
    assert_eq!(lab.poll(at(999)), []);
    assert_eq!(lab.poll(at(1000)), [Action::Ask(key(1), None)]);
    assert_eq!(lab.poll(at(2000)), [Action::Ask(key(1), None)]);
    assert_eq!(lab.poll(at(3000)), [Action::Forget(key(1), DropReason::NeighbourUnresolved)]);
    assert_eq!((lab.state(1), lab.0.next()), (None, None));
    assert_eq!(lab.want(1, at(3001)), [Action::Ask(key(1), None)], "and may be asked for anew");
}

#[test]
fn an_answer_holds_for_half_a_minute_and_is_renewed_while_it_is_used() {
    let mut lab = Lab::known(at(0));
    assert_eq!(lab.want(1, at(29_000)), [Action::Tell(key(1), HOST, at(30_000))]);
    assert_eq!(lab.poll(at(30_000)), []);
    assert_eq!(lab.state(1), Some(("stale", Some(HOST))));
    assert_eq!(lab.want(1, at(40_000)), [Action::Ask(key(1), Some(HOST))], "it alone is asked at first");
    assert_eq!(lab.heard(claim(1, HOST, false), at(40_001)), (Ok(()), vec![]), "a question of its own is no answer");
    assert_eq!(lab.heard(claim(1, HOST, true), at(40_002)), (Ok(()), vec![Action::Tell(key(1), HOST, at(70_002))]));

    assert_eq!(lab.want(1, at(80_000)), [Action::Ask(key(1), Some(HOST))]);
    assert_eq!(lab.poll(at(81_000)), [Action::Ask(key(1), None)]);
    assert_eq!(lab.poll(at(82_000)), [Action::Ask(key(1), None)]);
    assert_eq!(lab.poll(at(83_000)), [Action::Forget(key(1), DropReason::NeighbourUnresolved)], "it has gone");
}

#[test]
fn who_is_not_used_is_forgotten_in_the_end() {
    let mut lab = Lab::known(at(0));
    assert_eq!(lab.poll(at(30_000)), []);
    assert_eq!(lab.poll(at(629_999)), []);
    assert_eq!(lab.poll(at(630_000)), [Action::Forget(key(1), DropReason::NeighbourUnresolved)]);
    assert_eq!((lab.state(1), lab.0.next()), (None, None));
}

#[test]
fn nobody_is_learned_who_was_not_asked_for() {
    let mut lab = Lab::default();
    for last in 0..=255 {
        assert_eq!(lab.heard(claim(last, THIEF, true), at(0)), (Err(DropReason::NeighbourIgnored), vec![]));
    }
    assert_eq!(lab.0.known().count(), 0);
}

#[test]
fn a_claim_against_a_neighbour_that_answers_changes_nothing() {
    let mut lab = Lab::known(at(0));
    for answers in [false, true] {
        let now = if answers { at(10_000) } else { at(1_000) };
        assert_eq!(
            lab.heard(claim(1, THIEF, answers), now),
            (Err(DropReason::NeighbourConflict), vec![Action::Ask(key(1), Some(HOST))])
        );
        assert_eq!(lab.heard(claim(1, THIEF, true), now), (Err(DropReason::NeighbourConflict), vec![]));
        assert_eq!(lab.heard(claim(1, HOST, true), now).0, Ok(()));
        assert_eq!(lab.state(1), Some(("reachable", Some(HOST))));
        // A thousand more cost no question.
        for _ in 0..1000 {
            assert_eq!(lab.heard(claim(1, THIEF, true), now), (Err(DropReason::NeighbourConflict), vec![]));
        }
    }
}

#[test]
fn a_claim_against_a_neighbour_that_is_gone_is_believed_after_a_second() {
    let mut lab = Lab::known(at(0));
    assert_eq!(lab.heard(claim(1, THIEF, false), at(1_000)).0, Err(DropReason::NeighbourConflict));
    assert_eq!(lab.poll(at(2_000)), [Action::Ask(key(1), None)], "now all are asked");
    assert_eq!(lab.heard(claim(1, THIEF, true), at(2_001)), (Ok(()), vec![Action::Tell(key(1), THIEF, at(32_001))]));
}

#[test]
fn a_configured_neighbour_is_never_asked_and_never_replaced() {
    let mut lab = Lab::default();
    let mut out = Vec::new();
    lab.0.fix(TENANT, key(1), HOST, &mut out);
    assert_eq!(out, [Action::Tell(key(1), HOST, Time::NEVER)]);
    assert_eq!(lab.want(1, at(0)), [Action::Tell(key(1), HOST, Time::NEVER)]);
    assert_eq!(lab.heard(claim(1, THIEF, true), at(0)), (Err(DropReason::NeighbourConflict), vec![]));
    assert_eq!(lab.heard(claim(1, HOST, true), at(0)), (Ok(()), vec![]));
    assert_eq!((lab.poll(at(10_000_000)), lab.state(1)), (vec![], Some(("static", Some(HOST)))));
}

#[test]
fn the_table_of_a_tenant_is_bounded_and_that_of_another_is_its_own() {
    let mut table = Neighbours::default();
    let host = |n: u32| (SiteSlot(7), IpAddr::from(n.to_be_bytes()));
    let mut out = Vec::new();
    for n in 0..PER_TENANT as u32 + 10 {
        table.want(TENANT, host(n), at(0), &mut out);
    }
    let refused = out.iter().filter(|action| matches!(action, Action::Forget(_, DropReason::NeighbourLimit))).count();
    assert_eq!((table.known().count(), refused), (PER_TENANT, 10));
    out.clear();
    table.want(TenantSlot(4), (SiteSlot(8), host(1).1), at(0), &mut out);
    assert_eq!(out, [Action::Ask((SiteSlot(8), host(1).1), None)]);

    // One of them answers and falls silent: its place goes to the next.
    out.clear();
    table.heard(Claim { key: host(5), mac: HOST, answers: true }, at(0), &mut out).unwrap();
    out.clear();
    table.want(TENANT, host(99_999), at(1), &mut out);
    assert_eq!(out, [Action::Forget(host(99_999), DropReason::NeighbourLimit)], "it has just answered");
    table.poll(at(900), &mut out);
    // The others are still being asked for when it is stale: at 3 s they would all be gone.
    let mut quick = Neighbours::default();
    out.clear();
    quick.want(TENANT, host(0), at(0), &mut out);
    quick.heard(Claim { key: host(0), mac: HOST, answers: true }, at(0), &mut out).unwrap();
    quick.poll(at(30_000), &mut out);
    (1..PER_TENANT as u32).for_each(|n| quick.want(TENANT, host(n), at(30_001), &mut out));
    out.clear();
    quick.want(TENANT, host(99_999), at(30_002), &mut out);
    let forgotten = Action::Forget(host(0), DropReason::NeighbourUnresolved);
    assert_eq!(out, [forgotten, Action::Ask(host(99_999), None)]);
    assert_eq!(quick.known().count(), PER_TENANT);
}

#[test]
fn whatever_is_heard_the_table_stays_bounded_and_its_timers_end() {
    // A simple generator: the same turns each time.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut dice = |sides: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % sides
    };
    let (mut lab, mut now) = (Lab::default(), at(0));
    for _ in 0..200_000 {
        now = now + Duration::from_millis(dice(200));
        let (last, mac) = (dice(40) as u8, if dice(4) == 0 { THIEF } else { HOST });
        match dice(3) {
            0 => drop(lab.want(last, now)),
            1 => drop(lab.heard(claim(last, mac, dice(2) == 0), now)),
            _ => drop(lab.poll(now)),
        }
        assert!(
            lab.0.per_tenant.get(&TENANT).copied().unwrap_or(0) == lab.0.known().count() && lab.0.known().count() <= 40
        );
        assert!(lab.0.timers.len() < 2_000, "{}", lab.0.timers.len());
    }
    while let Some(next) = lab.0.next() {
        assert!(next <= now + UNUSED + REACHABLE + REACHABLE, "{next:?}");
        lab.poll(next);
    }
    assert_eq!((lab.0.known().count(), lab.0.next()), (0, None), "left alone, all are forgotten");
}
