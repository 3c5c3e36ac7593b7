use super::*;
use crate::config::Rate;
use proptest::prelude::*;
use std::sync::Barrier;

const SECOND: u64 = 1_000_000_000;

fn bucket(bits_per_s: u64, burst: u64) -> Bucket {
    Bucket::new(Rate { bits_per_s, burst })
}

/// A machine that has been up for as long.
fn moment(ns: u64) -> Time {
    Time(400 * 24 * 3600 * SECOND + ns)
}

#[test]
fn a_burst_at_once_and_then_the_rate() {
    let bucket = bucket(8_000_000, 10_000);
    assert_eq!((0..100).filter(|_| bucket.take(moment(0), 1000)).count(), 10);
    // A thousand bytes a millisecond, no more than the burst after a pause.
    assert!(!bucket.take(moment(999_000), 1000));
    assert!(bucket.take(moment(1_000_000), 1000));
    assert!(!bucket.take(moment(1_000_000), 1000));
    assert_eq!((0..100).filter(|_| bucket.take(moment(60 * SECOND), 1000)).count(), 10);
}

#[test]
fn what_is_given_back_can_be_taken_again() {
    let limit = |bucket: &Arc<Bucket>, reason| Limit { bucket: bucket.clone(), reason };
    let (wide, narrow) = (Arc::new(bucket(8_000_000, 10_000)), Arc::new(bucket(8_000_000, 2000)));
    let both = [limit(&wide, DropReason::RateSiteUp), limit(&narrow, DropReason::RateTenantUp)];
    let all = |bytes| take_all(both.iter(), moment(0), bytes);
    assert_eq!(all(1000), Ok(()));
    assert_eq!(all(5000), Err(DropReason::RateTenantUp));
    assert_eq!(all(1000), Ok(()));
    assert_eq!(all(1), Err(DropReason::RateTenantUp));
    // Of the wide one only what passed is gone.
    assert!(wide.take(moment(0), 8000));
    assert!(!wide.take(moment(0), 1));
    assert_eq!(all(1), Err(DropReason::RateSiteUp));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the rate, the sizes of packets, the load and the length of batches: in ten seconds it is the rate within 1 %.
    #[test]
    fn in_ten_seconds_it_is_the_rate(
        rate in prop_oneof![1_000_000u64..10_000_000, 10_000_000u64..1_000_000_000, 1_000_000_000u64..=400_000_000_000],
        sizes in prop_oneof![Just(vec![1420u64]), Just(vec![64]), Just(vec![40, 1420, 576]), proptest::collection::vec(28u64..9000, 1..8)],
        load in 1.05f64..8.0, batch in 1usize..=64,
    ) {
        let bucket = Bucket::new(Rate::with_usual_burst(rate));
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len() as f64;
        // At the highest rates the ten seconds are shortened to what a test has time for, at the same measure.
        let seconds = (400_000.0 * mean * 8.0 / (rate as f64 * load)).min(10.0);
        let between = mean * 8.0 * 1e9 / (rate as f64 * load);
        // No worker is away for as long as a burst lasts.
        let batch = batch.min((2e7 / between) as usize).max(1);
        // The first burst is used up.
        while bucket.take(moment(0), 28) {}
        let mut passed = 0;
        for n in 0..(seconds * 1e9 / between) as usize {
            // A batch has one time.
            let (at, size) = (moment(((n / batch * batch) as f64 * between) as u64), sizes[n % sizes.len()]);
            passed += if bucket.take(at, size) { size } else { 0 };
        }
        let (passed, expected) = (passed as f64 * 8.0, rate as f64 * seconds);
        // The largest packet and the last batch are the grain.
        let grain = (9000.0 + mean * batch as f64) * 8.0;
        prop_assert!((passed - expected).abs() <= expected * 0.01 + grain, "{passed} of {expected} in {seconds} s");
    }
}

/// All begin at one moment, and it does not pass: together they can have the burst and not a byte more.
#[test]
fn workers_share_one_bucket() {
    const WORKERS: usize = 4;
    for _ in 0..50 {
        let (bucket, start) = (bucket(1_000_000_000, 1_000_000), Barrier::new(WORKERS));
        let taken: u64 = std::thread::scope(|scope| {
            let worker = || {
                start.wait();
                (0..20_000).map(|n| 1 + n % 100).filter(|bytes| bucket.take(moment(0), *bytes)).sum::<u64>()
            };
            let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(worker)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(taken, 1_000_000, "the whole burst and no more");
    }
}
