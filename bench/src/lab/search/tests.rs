use super::*;
use std::convert::Infallible;

const NDR: Goal =
    Goal { loss: 0.0, width: 0.01, trial: Duration::from_secs(1), sum: Duration::from_secs(1), exceed: 0.5, phases: 2 };
const PDR: Goal = Goal { loss: 0.005, ..NDR };

/// A hub that carries so much and loses the rest.
fn hub(capacity: f64) -> impl Fn(f64) -> f64 {
    move |load| (1.0 - capacity / load).max(0.0)
}

/// Searches a hub whose n-th trial at a load loses what `loss(load, n)` says; also returns the trials.
fn run(goals: &[Goal], mut loss: impl FnMut(f64, usize) -> f64) -> (Vec<Found>, Vec<Trial>) {
    let mut trials = Vec::new();
    let found = search((1e3, 2e6), goals, |load, time| {
        let share = loss(load, trials.len());
        trials.push(Trial { load, time, loss: share });
        Ok::<_, Infallible>(share)
    });
    (found.unwrap_or_else(|never| match never {}), trials)
}

#[test]
fn both_rates_are_found_within_their_width() {
    for capacity in [2_500.0, 61_234.0, 437_000.0, 1_900_000.0] {
        let (found, trials) = run(&[NDR, PDR], |load, _| hub(capacity)(load));
        for (found, goal) in found.iter().zip([NDR, PDR]) {
            let truth = capacity / (1.0 - goal.loss);
            let (lower, upper) = (found.lower.unwrap(), found.upper.unwrap());
            assert!(lower <= truth && truth < upper, "{capacity}: {found:?}");
            assert!((upper - lower) / upper <= goal.width + 1e-6, "{capacity}: {found:?}");
        }
        assert!(trials.len() < 45, "{capacity}: {} trials", trials.len());
    }
}

#[test]
fn what_carries_everything_passes_at_the_most() {
    let (found, trials) = run(&[NDR, PDR], |_, _| 0.0);
    assert!(found.iter().all(|found| *found == Found { lower: Some(2e6), upper: None }), "{found:?}");
    assert!(trials.len() <= 4, "{trials:?}");
}

#[test]
fn what_carries_nothing_has_no_rate() {
    let (found, trials) = run(&[NDR, PDR], |_, _| 1.0);
    assert!(found.iter().all(|found| found.lower.is_none() && found.load() == 0.0), "{found:?}");
    assert!(trials.last().unwrap().load <= 1e3 && trials.len() < 40, "{trials:?}");
}

#[test]
fn a_load_passes_only_by_trials_that_are_long_enough() {
    let (found, trials) = run(&[NDR], |load, _| hub(437_000.0)(load));
    let lower = found[0].lower.unwrap();
    let long = trials.iter().any(|trial| trial.load == lower && trial.time >= NDR.trial);
    assert!(long, "{lower} never carried a trial of {:?}", NDR.trial);
    assert!(trials[0].time == NDR.trial / 16, "the first trial is a short one: {:?}", trials[0]);
}

#[test]
fn a_hub_that_loses_only_in_long_trials_is_found_out() {
    let mut lengths = Vec::new();
    let found = search((1e3, 2e6), &[NDR], |load, time| {
        lengths.push(time);
        // A pause each half second costs above 200,000 what queues hide in a shorter trial.
        let queue = if time >= NDR.trial { 200_000.0 } else { 400_000.0 };
        Ok::<_, Infallible>(hub(queue)(load))
    })
    .unwrap_or_else(|never| match never {});
    let lower = found[0].lower.unwrap();
    assert!((190_000.0..=200_000.0).contains(&lower), "{found:?}");
}

#[test]
fn one_pause_among_several_trials_is_forgiven_and_many_are_not() {
    // Three seconds of trials at a load, of which one may fail.
    let goal = Goal { sum: Duration::from_secs(3), exceed: 0.4, phases: 0, ..NDR };
    let pausing = |every: usize| {
        let mut at = std::collections::BTreeMap::<u64, usize>::new();
        run(&[goal], move |load, _| {
            let count = at.entry(load.to_bits()).or_default();
            *count += 1;
            let pause = if count.is_multiple_of(every) { 0.001 } else { 0.0 };
            hub(437_000.0)(load).max(pause)
        })
        .0[0]
    };
    let forgiven = pausing(3).lower.unwrap();
    assert!((430_000.0..=437_000.0).contains(&forgiven), "{forgiven}");
    assert_eq!(pausing(1).lower, None);
}

#[test]
fn every_trial_is_within_the_range() {
    for capacity in [10.0, 500_000.0, 1e9] {
        let (_, trials) = run(&[NDR, PDR], |load, _| hub(capacity)(load));
        assert!(trials.iter().all(|trial| (1e3..=2e6).contains(&trial.load)), "{trials:?}");
    }
}

#[test]
fn the_first_error_ends_the_search() {
    let mut count = 0;
    let result = search((1e3, 2e6), &[NDR], |_, _| {
        count += 1;
        if count == 3 { Err("the hub has ended") } else { Ok(0.5) }
    });
    assert_eq!((result, count), (Err("the hub has ended"), 3));
}

#[test]
fn verdicts_need_time_and_allow_for_pauses() {
    let goal = Goal { sum: Duration::from_secs(3), exceed: 0.4, ..NDR };
    let verdict = |trials: &[(f64, bool)]| {
        let trials: Vec<Trial> = trials
            .iter()
            .map(|(seconds, good)| Trial {
                load: 1e5,
                time: Duration::from_secs_f64(*seconds),
                loss: if *good { 0.0 } else { 0.01 },
            })
            .collect();
        judge(&goal, 1e5, &trials)
    };
    assert_eq!(verdict(&[(1.0, true)]), Verdict::Unknown, "not for long enough");
    assert_eq!(verdict(&[(1.0, true), (1.0, true)]), Verdict::Passes, "even if the third second were bad");
    assert_eq!(verdict(&[(1.0, false)]), Verdict::Unknown, "it may be the one that is allowed");
    assert_eq!(verdict(&[(1.0, false), (1.0, true), (1.0, true)]), Verdict::Passes);
    assert_eq!(verdict(&[(1.0, false), (1.0, false)]), Verdict::Fails, "two seconds of three");
    assert_eq!(verdict(&[(0.5, true); 10]), Verdict::Unknown, "short trials prove nothing good");
    assert_eq!(verdict(&[(0.5, false); 3]), Verdict::Fails, "but that it fails");
    assert_eq!(
        verdict(&[(0.5, false), (0.5, true), (0.5, false), (0.5, true)]),
        Verdict::Unknown,
        "unless good ones make up for it"
    );
}

#[test]
fn what_is_beyond_the_known_is_tried_within_the_range() {
    let tried: Vec<Trial> = (0..30).map(|_| Trial { load: 1.2e3, time: Duration::from_secs(1), loss: 0.5 }).collect();
    let down = next(&NDR, &Found { lower: None, upper: Some(1.2e3) }, &tried, 1e3, 2e6).unwrap();
    assert!((1e3..1.2e3).contains(&down), "{down}");
    let up = next(&NDR, &Found { lower: Some(1.5e6), upper: None }, &[], 1e3, 2e6).unwrap();
    assert!(up > 1.5e6 && up <= 2e6, "{up}");
    assert_eq!(next(&NDR, &Found { lower: Some(2e6), upper: None }, &[], 1e3, 2e6), None);
}
