use super::*;
use proptest::prelude::*;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn spec(id: u32, candidates: &[(u16, u32)]) -> PathSpec {
    PathSpec {
        id,
        tenant: TenantId::new(1).unwrap(),
        prefix: "10.9.3.0/24".parse().unwrap(),
        candidates: candidates.iter().map(|(priority, slot)| (*priority, SiteSlot(*slot))).collect(),
    }
}

fn switches(paths: &mut Paths) -> Vec<(u32, u32, u32)> {
    paths.switches().into_iter().map(|switch| (switch.id, switch.from.0, switch.to.0)).collect()
}

/// One path by the ends 10, 20 and 30, and all of them up.
fn three() -> Paths {
    let mut paths = Paths::new(vec![spec(7, &[(100, 20), (50, 10), (100, 30)])], at(0));
    for slot in [10, 20, 30] {
        paths.set_up(SiteSlot(slot), true, at(0));
    }
    assert_eq!((switches(&mut paths), paths.active(7)), (vec![], Some(SiteSlot(10))));
    paths
}

#[test]
fn the_live_end_with_the_smallest_priority_is_used_and_of_equals_the_first() {
    let mut paths = three();
    paths.set_up(SiteSlot(10), false, at(1));
    assert_eq!(switches(&mut paths), [(7, 10, 20)]);
    paths.set_reaches(7, SiteSlot(20), false, at(2));
    assert_eq!(switches(&mut paths), [(7, 20, 30)]);
    assert!(paths.alive(7, SiteSlot(30)) && !paths.alive(7, SiteSlot(20)) && !paths.alive(8, SiteSlot(30)));
    // None is live: the most preferred.
    paths.set_up(SiteSlot(30), false, at(3));
    assert_eq!(switches(&mut paths), [(7, 30, 10)]);
    // Whichever comes first then is used at once.
    paths.set_up(SiteSlot(30), true, at(4));
    assert_eq!((switches(&mut paths), paths.active(7)), (vec![(7, 10, 30)], Some(SiteSlot(30))));
    // What it does not know is nothing to it.
    paths.set_up(SiteSlot(99), true, at(5));
    paths.set_reaches(9, SiteSlot(10), true, at(5));
    paths.set_reaches(7, SiteSlot(99), true, at(5));
    assert_eq!((switches(&mut paths), paths.active(9)), (vec![], None));
}

#[test]
fn an_end_that_is_up_for_the_first_time_is_used_at_once() {
    let mut paths = Paths::new(vec![spec(7, &[(50, 10), (100, 20)])], at(0));
    paths.set_up(SiteSlot(20), true, at(1));
    paths.set_up(SiteSlot(10), true, at(2));
    assert_eq!(switches(&mut paths), [(7, 10, 20), (7, 20, 10)]);
    assert_eq!(paths.next(), Time::NEVER);
}

#[test]
fn it_goes_back_after_a_while_and_after_a_longer_one_each_time() {
    let mut paths = three();
    let mut now = 0;
    for secs in [1, 2, 4, 8, 16, 32, 60, 60] {
        paths.set_up(SiteSlot(10), false, at(now));
        assert_eq!(switches(&mut paths), [(7, 10, 20)]);
        now += 5;
        paths.set_up(SiteSlot(10), true, at(now));
        let due = at(now + secs * 1000);
        assert_eq!(paths.next(), due);
        paths.poll(at(now + secs * 1000 - 1));
        assert!(switches(&mut paths).is_empty());
        paths.poll(due);
        assert_eq!((switches(&mut paths), paths.next()), (vec![(7, 20, 10)], Time::NEVER));
        now += secs * 1000 + 1;
    }
    // Up for two minutes, and it begins anew.
    now += 121_000;
    paths.set_up(SiteSlot(10), false, at(now));
    paths.set_up(SiteSlot(10), true, at(now + 1));
    assert_eq!(paths.next(), at(now + 1001));
}

#[test]
fn a_dead_end_is_left_for_one_that_is_not_held_if_there_is_one() {
    let mut paths = three();
    paths.set_up(SiteSlot(10), false, at(0));
    paths.set_up(SiteSlot(10), true, at(10));
    switches(&mut paths);
    paths.set_up(SiteSlot(20), false, at(20));
    assert_eq!(switches(&mut paths), [(7, 20, 30)], "10 is alive, but held");
    paths.set_up(SiteSlot(30), false, at(30));
    assert_eq!(switches(&mut paths), [(7, 30, 10)], "held, but alive");
    // One that dies before its time is not gone back to.
    paths.set_up(SiteSlot(30), true, at(40));
    paths.set_up(SiteSlot(10), false, at(50));
    paths.set_up(SiteSlot(20), true, at(60));
    paths.set_up(SiteSlot(20), false, at(70));
    paths.poll(at(10_000));
    assert_eq!((switches(&mut paths), paths.next()), (vec![(7, 10, 30)], Time::NEVER));
}

#[test]
fn a_trunk_that_dies_moves_all_its_paths_and_no_others() {
    let specs = (0..100_000).map(|id| spec(id, &[(100, id % 2), (200, 2), (300, 3)])).collect();
    let mut paths = Paths::new(specs, at(0));
    (0..4).for_each(|slot| paths.set_up(SiteSlot(slot), true, at(0)));
    assert_eq!((paths.of(SiteSlot(1)).count(), paths.of(SiteSlot(2)).count()), (50_000, 100_000));
    paths.set_up(SiteSlot(1), false, at(10));
    let moved = switches(&mut paths);
    assert!(moved.len() == 50_000 && moved.iter().all(|(id, from, to)| id % 2 == 1 && (*from, *to) == (1, 2)));
    paths.set_reaches(5, SiteSlot(2), false, at(20));
    assert_eq!(switches(&mut paths), [(5, 2, 3)]);
    paths.set_up(SiteSlot(1), true, at(30));
    paths.poll(at(1029));
    assert!(switches(&mut paths).is_empty());
    paths.poll(at(1030));
    assert_eq!((switches(&mut paths).len(), paths.next()), (50_000, Time::NEVER));
}

fn of(id: u32, prefix: &str, slots: &[u32]) -> PathSpec {
    let candidates = slots.iter().map(|slot| (100, SiteSlot(*slot))).collect();
    PathSpec { id, tenant: TenantId::new(1).unwrap(), prefix: prefix.parse().unwrap(), candidates }
}

#[test]
fn another_configuration_leaves_what_is_in_both_as_it_is() {
    let before =
        vec![of(0, "10.1.0.0/16", &[10, 20]), of(1, "10.2.0.0/16", &[10, 20]), of(2, "10.3.0.0/16", &[20, 30])];
    let mut paths = Paths::new(before, at(0));
    (10..=30).step_by(10).for_each(|slot| paths.set_up(SiteSlot(slot), true, at(0)));
    paths.set_up(SiteSlot(10), false, at(10));
    paths.set_up(SiteSlot(10), true, at(100));
    assert_eq!(switches(&mut paths), [(0, 10, 20), (1, 10, 20)]);
    // Others come before them; one has lost the end that it used; one is new.
    let after = vec![
        of(0, "10.0.0.0/16", &[10, 20]),
        of(1, "10.1.0.0/16", &[30, 10, 20]),
        of(2, "10.2.0.0/16", &[10, 30]),
        of(3, "10.3.0.0/16", &[20, 30]),
    ];
    let mut paths = paths.renewed(after, at(200));
    assert_eq!(switches(&mut paths), [(1, 30, 20)]);
    let active = |paths: &Paths| [0, 1, 2, 3].map(|id| paths.active(id).unwrap().0);
    assert_eq!(active(&paths), [10, 20, 10, 20]);
    // What is said of all ends then changes only what is new.
    (10..=30).step_by(10).for_each(|slot| paths.set_up(SiteSlot(slot), true, at(200)));
    assert_eq!(switches(&mut paths), [(1, 20, 30)], "30 is new there, and preferred");
    paths.set_up(SiteSlot(30), false, at(300));
    assert_eq!(switches(&mut paths), [(1, 30, 20)], "10 is held there still");
    paths.poll(at(1100));
    assert_eq!((switches(&mut paths), active(&paths)), (vec![(1, 20, 10)], [10, 10, 10, 20]));
}

#[test]
fn the_paths_that_a_prefix_touches_are_found() {
    let specs = vec![
        of(0, "10.0.0.0/8", &[1]),
        of(1, "10.9.0.0/16", &[1, 2]),
        of(2, "10.9.3.0/24", &[2]),
        of(3, "11.0.0.0/8", &[1, 2]),
    ];
    let paths = Paths::new(specs, at(0));
    let (tenant, prefix) = (TenantId::new(1).unwrap(), "10.9.0.0/20".parse().unwrap());
    let touched = |slot| paths.overlapping(SiteSlot(slot), tenant, prefix).map(|(id, _)| id).collect::<Vec<_>>();
    assert_eq!((touched(1), touched(2), touched(3)), (vec![0, 1], vec![1, 2], vec![]));
    assert_eq!(paths.ends(tenant, prefix).map(|slot| slot.0).collect::<Vec<_>>(), [1, 1, 2, 2]);
    assert_eq!(paths.overlapping(SiteSlot(1), TenantId::new(2).unwrap(), prefix).count(), 0);
}

/// One path, judged anew at each moment by the rules as they are written.
struct Naive {
    /// Slot, up, reaches, when it was alive first of the present time, and how often it was not, lately.
    ends: Vec<(u32, bool, bool, u64, u32)>,
    active: usize,
}

impl Naive {
    fn judge(&mut self, now: u64) {
        let span = |flaps: u32| if flaps == 0 { 0 } else { (1000 << (flaps - 1).min(10)).min(60_000) };
        let alive = |end: &(u32, bool, bool, u64, u32)| end.1 && end.2;
        let good = |end: &(u32, bool, bool, u64, u32)| alive(end) && now >= end.3 + span(end.4);
        let at = self.ends[self.active];
        let better = self.ends[..self.active].iter().position(good);
        self.active = match (alive(&at), better) {
            (_, Some(better)) => better,
            (true, None) => self.active,
            (false, None) => self.ends.iter().position(good).or_else(|| self.ends.iter().position(alive)).unwrap_or(0),
        };
    }

    fn set(&mut self, slot: u32, now: u64, change: impl Fn(&mut (u32, bool, bool, u64, u32))) {
        let Some(end) = self.ends.iter_mut().find(|end| end.0 == slot) else { return };
        let before = end.1 && end.2;
        change(end);
        if (end.1 && end.2) != before {
            if before {
                end.4 = if now - end.3 >= 120_000 { 1 } else { end.4 + 1 };
            }
            end.3 = now;
        }
        self.judge(now);
    }
}

proptest! {
    #[test]
    fn as_a_model_that_judges_all_anew(
        specs in proptest::collection::vec(proptest::sample::subsequence((0u32..5).collect::<Vec<_>>(), 1..=5).prop_shuffle(), 1..5),
        priorities in proptest::collection::vec(0u16..3, 25),
        story in proptest::collection::vec((0u32..6, 0u32..5, any::<bool>(), 0u64..4, prop_oneof![4 => 0u64..1500, 1 => 0u64..200_000]), 0..80),
    ) {
        let specs: Vec<_> = specs.iter().enumerate().map(|(id, slots)| {
            let candidates: Vec<_> = slots.iter().enumerate().map(|(n, slot)| (priorities[id * 5 + n], *slot)).collect();
            spec(id as u32 * 3, &candidates)
        }).collect();
        let mut models: Vec<_> = specs.iter().map(|spec| {
            let mut order = spec.candidates.clone();
            order.sort_by_key(|(priority, _)| *priority);
            Naive { ends: order.iter().map(|(_, slot)| (slot.0, false, true, 0, 0)).collect(), active: 0 }
        }).collect();
        let mut used: Vec<_> = models.iter().map(|model| model.ends[0].0).collect();
        let mut paths = Paths::new(specs, at(0));
        let mut now = 0;
        for (what, slot, flag, path, wait) in story {
            // Time passes, and whatever is due is done when it is.
            let end = now + wait;
            while paths.next() <= at(end) {
                now = (paths.next().0 - at(0).0) / 1_000_000;
                paths.poll(at(now));
                models.iter_mut().for_each(|model| model.judge(now));
            }
            now = end;
            models.iter_mut().for_each(|model| model.judge(now));
            paths.poll(at(now));
            if what < 4 {
                paths.set_up(SiteSlot(slot), flag, at(now));
                models.iter_mut().for_each(|model| model.set(slot, now, |end| end.1 = flag));
            } else if let Some(model) = models.get_mut(path as usize) {
                paths.set_reaches(path as u32 * 3, SiteSlot(slot), flag, at(now));
                model.set(slot, now, |end| end.2 = flag);
            }
            for switch in paths.switches() {
                let used = &mut used[switch.id as usize / 3];
                prop_assert_eq!(*used, switch.from.0);
                *used = switch.to.0;
            }
            for (id, model) in models.iter().enumerate() {
                let expected = model.ends[model.active].0;
                prop_assert_eq!((used[id], paths.active(id as u32 * 3)), (expected, Some(SiteSlot(expected))));
                for end in &model.ends {
                    prop_assert_eq!(paths.alive(id as u32 * 3, SiteSlot(end.0)), end.1 && end.2);
                }
            }
        }
    }
}

#[test]
fn the_hold_of_the_model_is_that_of_the_code() {
    let mut hold = HoldDown::default();
    (0..20).for_each(|_| hold.down(Duration::ZERO));
    assert_eq!(hold.span(), Duration::from_secs(60));
}

/// Down once, and good for a second but for the last moments, when it does not answer: nothing goes back there until it does.
#[test]
fn what_is_in_doubt_is_not_gone_back_to() {
    let mut paths = three();
    paths.set_up(SiteSlot(10), false, at(0));
    paths.set_up(SiteSlot(10), true, at(1000));
    assert_eq!((switches(&mut paths), paths.next()), (vec![(7, 10, 20)], at(2000)));
    paths.doubt(SiteSlot(10), true);
    // It was good for long enough by then, and is looked at until it is known.
    let mut now = at(2000);
    for _ in 0..5 {
        paths.poll(now);
        assert_eq!((switches(&mut paths), paths.next()), (vec![], now + AGAIN));
        now = paths.next();
    }
    paths.doubt(SiteSlot(10), false);
    paths.poll(now);
    assert_eq!((switches(&mut paths), paths.next()), (vec![(7, 20, 10)], Time::NEVER));
    // The one that is used is not left for a doubt; and of two that are alive the one without is.
    paths.doubt(SiteSlot(10), true);
    paths.doubt(SiteSlot(20), true);
    paths.set_up(SiteSlot(30), true, at(9000));
    assert_eq!(switches(&mut paths), []);
    paths.set_up(SiteSlot(10), false, at(9000));
    assert_eq!(switches(&mut paths), [(7, 10, 30)]);
    // It stays so with another configuration.
    let mut after = paths.renewed(vec![spec(8, &[(50, 10), (100, 20), (100, 30)])], at(9001));
    assert_eq!(after.active(8), Some(SiteSlot(30)));
    after.doubt(SiteSlot(20), false);
    after.poll(after.next());
    assert_eq!(after.active(8), Some(SiteSlot(20)));
}
