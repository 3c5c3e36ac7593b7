//! The threads of the replay window and of the nonces in every order that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ekiden-crypto --lib loom` runs them, on the very code that ships. The same source is then compiled
//! against an atomic whose compare-and-swap, and whose addition, are a load and a store, and there the models must fail: so they would
//! notice.

use ::loom::{model, thread};
use std::sync::Arc;

use crate::constants::REJECT_AFTER_MESSAGES;
use crate::{nonces, replay};

mod mutant;

/// The models, for whichever `replay` is in scope.
macro_rules! models {
    ($window:ty) => {
        /// The same message reaches two threads.
        pub(super) fn one_counter_two_threads() {
            let window = Arc::new(<$window>::new());
            let other = thread::spawn({
                let window = window.clone();
                move || window.look(7).is_ok() && window.accept(7).is_ok()
            });
            let here = window.look(7).is_ok() && window.accept(7).is_ok();
            assert!(here ^ other.join().unwrap(), "counter 7 must be accepted exactly once");
        }

        /// Two counters of one word: neither may erase the other's bit.
        pub(super) fn two_counters_of_a_word() {
            let window = Arc::new(<$window>::new());
            let other = thread::spawn({
                let window = window.clone();
                move || window.accept(3).is_ok()
            });
            assert!(window.accept(4).is_ok() && other.join().unwrap(), "both are new");
            assert!(window.accept(3).is_err() && window.accept(4).is_err(), "neither may be accepted again");
        }

        /// A newer lap takes the word over while an old counter of it is accepted, by two threads, one raising `highest`.
        pub(super) fn a_lap_passes() {
            let window = Arc::new(<$window>::new());
            let old = thread::spawn({
                let window = window.clone();
                move || window.accept(5).is_ok()
            });
            let new = thread::spawn({
                let window = window.clone();
                move || {
                    assert!(window.accept(8192 + 6).is_ok(), "the newest is always accepted");
                    window.raise(8192 + 6);
                }
            });
            let here = window.accept(5).is_ok();
            let there = old.join().unwrap();
            new.join().unwrap();
            assert!(!(here && there), "counter 5 must not be accepted twice");
            assert_eq!(window.highest(), 8192 + 6);
            assert!(window.accept(5).is_err() && window.accept(8192 + 6).is_err(), "both are history");
        }
    };
}

/// The models of the nonces, likewise.
macro_rules! nonce_models {
    ($nonces:ty) => {
        /// Three ranges, two of them of another thread.
        pub(super) fn ranges_of_two_threads() {
            let nonces = Arc::new(<$nonces>::up_to(REJECT_AFTER_MESSAGES));
            let other = thread::spawn({
                let nonces = nonces.clone();
                move || [nonces.reserve(2), nonces.reserve(2)]
            });
            let here = nonces.reserve(3);
            let there = other.join().unwrap();
            assert!(there.iter().all(|there| here.end <= there.start || there.end <= here.start), "two ranges meet");
            assert_eq!(here.end - here.start + there.iter().map(|there| there.end - there.start).sum::<u64>(), 7);
            assert_eq!(nonces.reserved(), 7);
        }

        /// Two threads want 64 of the last 65.
        pub(super) fn the_last_counters() {
            let nonces = Arc::new(<$nonces>::between(REJECT_AFTER_MESSAGES - 65, REJECT_AFTER_MESSAGES));
            let other = thread::spawn({
                let nonces = nonces.clone();
                move || nonces.reserve(64)
            });
            let mut ranges = [nonces.reserve(64), other.join().unwrap()];
            ranges.sort_by_key(|range| range.start);
            let [first, last] = ranges.map(|range| (range.start, range.end));
            let (begin, end) = (REJECT_AFTER_MESSAGES - 65, REJECT_AFTER_MESSAGES);
            assert_eq!((first, last), ((begin, end - 1), (end - 1, end)), "65 counters must go to two, each once");
            assert!(nonces.reserve(1).is_empty());
        }
    };
}

mod shipped {
    use super::*;
    models!(replay::Window);
    nonce_models!(nonces::Nonces);
}

mod broken {
    use super::*;
    models!(mutant::replay::Window);
    nonce_models!(mutant::nonces::Nonces);
}

#[test]
fn a_counter_is_accepted_by_one_of_two_threads() {
    model(shipped::one_counter_two_threads);
}

#[test]
fn neighbours_do_not_erase_each_other() {
    model(shipped::two_counters_of_a_word);
}

#[test]
fn a_newer_lap_makes_nothing_acceptable_again() {
    model(shipped::a_lap_passes);
}

#[test]
#[should_panic(expected = "counter 7 must be accepted exactly once")]
fn load_and_store_would_accept_a_counter_twice() {
    model(broken::one_counter_two_threads);
}

#[test]
#[should_panic(expected = "neither may be accepted again")]
fn load_and_store_would_erase_a_neighbour() {
    model(broken::two_counters_of_a_word);
}

#[test]
#[should_panic(expected = "counter 5 must not be accepted twice")]
fn load_and_store_would_revive_a_lap() {
    model(broken::a_lap_passes);
}

#[test]
fn two_threads_share_no_counter() {
    model(shipped::ranges_of_two_threads);
}

#[test]
fn a_race_for_the_last_counters_has_one_winner() {
    model(shipped::the_last_counters);
}

#[test]
#[should_panic(expected = "two ranges meet")]
fn load_and_store_would_hand_a_range_out_twice() {
    model(broken::ranges_of_two_threads);
}

#[test]
#[should_panic(expected = "65 counters must go to two, each once")]
fn load_and_store_would_give_the_last_counters_to_both() {
    model(broken::the_last_counters);
}
