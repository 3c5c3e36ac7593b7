use super::*;

/// All but `left` counters are used.
fn nearly_used_up(left: u64) -> Nonces {
    Nonces::between(REJECT_AFTER_MESSAGES - left, REJECT_AFTER_MESSAGES)
}

mod threads {
    use std::sync::Barrier;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    /// Has one thread for each list of counts reserve them, all at once, and returns the ranges in order.
    fn reserve_all(nonces: &Nonces, counts: &[Vec<u32>]) -> Vec<(u64, u64)> {
        let start = Barrier::new(counts.len());
        let reserve = |counts: &[u32]| {
            start.wait();
            let ranges = counts.iter().map(|count| nonces.reserve(*count)).filter(|range| !range.is_empty());
            ranges.map(|range| (range.start, range.end)).collect::<Vec<_>>()
        };
        let mut ranges = thread::scope(|scope| {
            let threads = counts.iter().map(|counts| scope.spawn(|| reserve(counts))).collect::<Vec<_>>();
            threads.into_iter().flat_map(|thread| thread.join().expect("no thread panics")).collect::<Vec<_>>()
        });
        ranges.sort_unstable();
        ranges
    }

    /// What up to four threads ask for.
    fn demands() -> impl Strategy<Value = Vec<Vec<u32>>> {
        prop::collection::vec(prop::collection::vec(1u32..=64, 0..200), 1..5)
    }

    /// Long enough for the threads to meet in the middle of a reservation, time and again.
    #[test]
    fn no_counter_is_handed_out_twice_or_lost() {
        let demands = (1..=4).map(|thread| (0..100_000).map(|n| 1 + n * thread % 64).collect()).collect::<Vec<_>>();
        let nonces = Nonces::up_to(REJECT_AFTER_MESSAGES);
        let mut next = 0;
        for (first, end) in reserve_all(&nonces, &demands) {
            assert_eq!(first, next, "the next range begins where the last ended");
            next = end;
        }
        assert_eq!(next, demands.iter().flatten().map(|count| u64::from(*count)).sum::<u64>());
        assert_eq!(nonces.reserved(), next);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn at_the_limit_it_stops_for_good(left in 0u64..5_000, demands in demands()) {
            let nonces = nearly_used_up(left);
            let begin = REJECT_AFTER_MESSAGES - left;
            let mut next = begin;
            for (first, end) in reserve_all(&nonces, &demands) {
                prop_assert_eq!(first, next, "the next range begins where the last ended");
                next = end;
            }
            let wanted = demands.iter().flatten().map(|count| u64::from(*count)).sum::<u64>();
            prop_assert_eq!(next, begin + wanted.min(left));
        }
    }

    #[test]
    fn the_last_counter_is_the_one_below_the_limit() {
        let nonces = nearly_used_up(65);
        assert_eq!(nonces.reserve(64), REJECT_AFTER_MESSAGES - 65..REJECT_AFTER_MESSAGES - 1);
        assert_eq!(nonces.reserve(64), REJECT_AFTER_MESSAGES - 1..REJECT_AFTER_MESSAGES, "what is left of a range");
        assert!(nonces.reserve(1).is_empty());
        assert_eq!(nonces.reserved(), REJECT_AFTER_MESSAGES);
    }

    #[test]
    fn a_lower_limit_holds_likewise() {
        let nonces = Nonces::between((1 << 29) - 65, 1 << 29);
        assert_eq!(nonces.reserve(64), (1 << 29) - 65..(1 << 29) - 1);
        assert_eq!(nonces.reserve(64), (1 << 29) - 1..1 << 29);
        assert!(nonces.reserve(1).is_empty());
        assert_eq!(nonces.reserved(), 1 << 29);
    }

    #[test]
    #[should_panic(expected = "a limit of")]
    fn a_limit_that_could_be_passed_is_a_mistake() {
        Nonces::up_to(REJECT_AFTER_MESSAGES + 1);
    }

    #[test]
    fn used_up_nonces_may_be_asked_for_ever() {
        let nonces = nearly_used_up(0);
        for _ in 0..100_000 {
            assert!(nonces.reserve(64).is_empty());
        }
        assert!(nonces.next.load(Relaxed) < REJECT_AFTER_MESSAGES + RESERVE_MAX, "and asking doesn't move the counter");
    }

    #[test]
    #[should_panic(expected = "65 counters at once")]
    fn more_than_a_batch_is_a_mistake() {
        Nonces::up_to(REJECT_AFTER_MESSAGES).reserve(65);
    }
}
