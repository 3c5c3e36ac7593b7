use super::*;
use proptest::prelude::*;

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

/// A way, and the site at its end.
struct Lab {
    search: Search,
    /// What passes; 0: nothing.
    passes: u16,
    now: u64,
    sent: usize,
    /// The size that packets were held to, and since when.
    held: Vec<(u64, u16)>,
}

impl Lab {
    fn new(most: u16, passes: u16) -> Self {
        Self::with_overhead(most, passes, 80)
    }

    fn with_overhead(most: u16, passes: u16, overhead: u16) -> Self {
        let mut search = Search::new(most, overhead);
        search.session(at(0));
        let held = vec![(0, search.fits())];
        Self { search, passes, now: 0, sent: 0, held }
    }

    /// Lets so many milliseconds pass; answers take 30.
    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        let mut answers: Vec<(u64, u16)> = Vec::new();
        while self.now <= end {
            for size in self.search.poll(at(self.now)) {
                self.sent += 1;
                assert!(size <= self.search.most());
                if size <= self.passes {
                    answers.push((self.now + 30, size));
                }
            }
            for (_, size) in answers.extract_if(.., |(due, _)| *due <= self.now) {
                self.search.heard(size, at(self.now));
            }
            if self.held.last().unwrap().1 != self.search.fits() {
                self.held.push((self.now, self.search.fits()));
            }
            self.now += 10;
        }
    }
}

#[test]
fn where_all_passes_one_round_trip_and_two_probes_are_enough() {
    let mut lab = Lab::new(1500, 1500);
    assert_eq!((lab.search.fits(), lab.search.state()), (1280, "searching"));
    lab.run(100);
    assert_eq!((lab.search.fits(), lab.search.state()), (1500, "found"));
    assert_eq!((lab.sent, lab.held), (2, vec![(0, 1280), (30, 1500)]));
}

/// The largest size that passes whose inner packet is not padded.
fn even(size: u16, overhead: u16) -> u16 {
    overhead + (size - overhead) / 16 * 16
}

#[test]
fn a_common_size_is_found_in_a_second_and_nothing_larger_was_ever_in_use() {
    for overhead in [60, 80] {
        for (passes, known_by) in [(1492, 1100), (1454, 1100), (1400, 1100), (1280, 100)] {
            let mut lab = Lab::with_overhead(1500, passes, overhead);
            lab.run(1100);
            assert_eq!(lab.search.fits(), even(passes, overhead));
            lab.run(60_000);
            assert_eq!((lab.search.state(), lab.search.fits()), ("found", even(passes, overhead)), "{:?}", lab.held);
            assert!(lab.held.iter().all(|(_, held)| *held <= passes), "{:?}", lab.held);
            assert!(lab.held.last().unwrap().0 <= known_by, "{:?}", lab.held);
            assert!(lab.sent < 60, "{}", lab.sent);
        }
    }
}

#[test]
fn a_session_asks_for_what_was_found_and_ten_minutes_for_everything() {
    let mut lab = Lab::new(1500, 1454);
    lab.run(60_000);
    let sent = lab.sent;
    lab.search.session(at(lab.now));
    lab.run(5_000);
    assert_eq!(lab.sent, sent + 1);
    // The line is better now. Sessions do not ask for that, time does.
    lab.passes = 1500;
    lab.search.session(at(lab.now));
    lab.run(5_000);
    assert_eq!((lab.sent, lab.search.fits()), (sent + 2, 1440));
    lab.run(600_000);
    assert_eq!(lab.search.fits(), 1500);
}

#[test]
fn a_way_that_grew_narrow_is_noticed_and_the_base_holds_meanwhile() {
    let mut lab = Lab::new(1500, 1500);
    lab.run(1_000);
    lab.passes = 1400;
    lab.search.session(at(lab.now));
    lab.run(2_900);
    assert_eq!(lab.search.fits(), 1500, "two may be lost by chance");
    lab.run(200);
    assert_eq!((lab.search.fits(), lab.search.state()), (1280, "searching"));
    lab.run(2_000);
    assert_eq!(lab.search.fits(), 1392);
    // The same without any session: within ten minutes.
    lab.passes = 1300;
    lab.run(630_000);
    assert_eq!(lab.search.fits(), 1296, "{:?}", lab.held);
}

#[test]
fn a_site_that_answers_nothing_is_not_worse_off_but_one_that_has_answered_is_held_to_the_base() {
    let mut lab = Lab::new(1500, 0);
    lab.run(2_900);
    assert_eq!((lab.search.fits(), lab.search.state()), (1280, "searching"));
    lab.run(300);
    assert_eq!((lab.search.fits(), lab.search.state(), lab.sent), (1500, "unanswered", 6));
    // It is asked again with the next session, and not held to the base for that; and else less and less often.
    lab.search.session(at(lab.now));
    lab.run(2_000);
    assert_eq!(lab.search.fits(), 1500);
    lab.run(3_600_000);
    assert!((50..120).contains(&lab.sent) && lab.search.fits() == 1500, "{}", lab.sent);
    // Now it answers, and the way is narrow.
    lab.passes = 1454;
    lab.search.session(at(lab.now));
    lab.run(2_000);
    assert_eq!(lab.search.fits(), 1440);
    lab.run(20_000);
    lab.passes = 0;
    lab.search.session(at(lab.now));
    lab.run(7_000);
    assert_eq!((lab.search.fits(), lab.search.state()), (1280, "unanswered"));
    // It was away for a moment, and is soon asked again.
    lab.passes = 1500;
    lab.run(10_000);
    assert_eq!((lab.search.fits(), lab.search.state()), (1500, "found"));
}

#[test]
fn nothing_is_asked_without_a_session_and_what_was_found_holds() {
    let mut lab = Lab::new(1500, 1454);
    lab.run(500);
    lab.search.pause();
    let sent = lab.sent;
    lab.run(3_000_000);
    assert_eq!((lab.sent, lab.search.fits()), (sent, 1280));
    lab.search.session(at(lab.now));
    lab.run(20_000);
    assert_eq!(lab.search.fits(), 1440);
    let sent = lab.sent;
    lab.search.pause();
    lab.run(3_000_000);
    assert_eq!((lab.sent, lab.search.fits(), lab.search.state()), (sent, 1440, "found"));
    // What was due meanwhile is asked when the way is there again.
    lab.search.wake(at(lab.now));
    lab.run(1_000);
    assert!(lab.sent > sent);
}

#[test]
fn what_the_kernel_learns_counts_at_once() {
    let mut lab = Lab::new(1500, 1500);
    lab.run(1_000);
    lab.search.set_most(1400);
    assert_eq!(lab.search.fits(), 1400);
    lab.run(1_000);
    assert_eq!((lab.search.fits(), lab.search.state()), (1400, "found"));
    lab.search.set_most(1000);
    lab.run(1_000);
    assert_eq!(lab.search.fits(), 1000, "less than the base");
    lab.search.set_most(1500);
    lab.run(1_000);
    assert_eq!(lab.search.fits(), 1500);
}

proptest! {
    /// Whatever passes, it is found within a minute, and nothing larger is in use before; where a quarter of the probes is lost, at
    /// worst less is used.
    #[test]
    fn it_is_found(most in 1000u16..4000, passes in 576u16..4000, overhead in prop_oneof![Just(60u16), Just(80)], seed: u64) {
        let mut lab = Lab::with_overhead(most, passes, overhead);
        let truth = if passes >= most { most } else { even(passes, overhead) };
        let base = even(BASE.min(most), overhead);
        lab.run(60_000);
        if passes >= base {
            prop_assert_eq!((lab.search.state(), lab.search.fits()), ("found", truth), "{:?}", lab.held);
            prop_assert!(lab.held.iter().all(|(_, held)| *held <= truth));
        } else {
            prop_assert_eq!(lab.held.last().unwrap().1, most);
        }
        // With loss.
        let mut dice = seed | 1;
        let mut search = Search::new(most, overhead);
        search.session(at(0));
        for step in 0..120u64 {
            for size in search.poll(at(step * 1000)) {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                if size <= passes && dice % 4 != 0 {
                    search.heard(size, at(step * 1000 + 20));
                    prop_assert!(search.fits() <= truth);
                }
            }
        }
    }
}
