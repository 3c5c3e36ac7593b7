//! The rings in every order that the memory model allows: `ring.rs` as it ships, on words and slots of `loom`, which
//! notices a slot that is read before it was written, or written before it was given back.
//!
//! The same source on words whose stores do not release, or whose loads do not acquire, must fail: so it would be noticed.
#![allow(unsafe_code, reason = "slots, as in `shared`")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the models need a part of the rings, and need it three times over"
)]

use loom::model;

/// Words of loom, with each order replaced by another, and slots of loom.
macro_rules! words {
    ($store:expr, $load:expr) => {
        pub(super) use loom::sync::atomic::Ordering;

        pub(super) struct AtomicU32(loom::sync::atomic::AtomicU32);

        impl AtomicU32 {
            pub(super) fn new(value: u32) -> Self {
                Self(loom::sync::atomic::AtomicU32::new(value))
            }

            pub(super) fn load(&self, order: Ordering) -> u32 {
                self.0.load($load(order))
            }

            pub(super) fn store(&self, value: u32, order: Ordering) {
                self.0.store(value, $store(order))
            }
        }

        pub(super) struct Slot<T>(loom::cell::UnsafeCell<T>);

        impl<T: Copy> Slot<T> {
            pub(super) fn new(entry: T) -> Self {
                Self(loom::cell::UnsafeCell::new(entry))
            }

            pub(super) unsafe fn write(&self, entry: T) {
                // SAFETY: the pointer is that of a living cell; whether someone else uses it now is what loom checks.
                self.0.with_mut(|slot| unsafe { slot.write(entry) })
            }

            pub(super) unsafe fn read(&self) -> T {
                // SAFETY: as for `write`.
                self.0.with(|slot| unsafe { slot.read() })
            }
        }
    };
}

/// The model, for whichever `ring` is in scope.
macro_rules! models {
    () => {
        mod sys {
            pub(super) use crate::xsk::sys::Mapping;
        }

        /// Three entries through a ring of two: each slot is filled, taken, given back, and one filled again.
        pub(super) fn three_entries_through_two_slots() {
            use loom::thread;
            let (mut producer, mut consumer) = ring::plain::ring::<u64>(2, u32::MAX);
            let writer = thread::spawn(move || {
                for entry in 1..=3 {
                    while producer.push(entry).is_err() {
                        thread::yield_now();
                    }
                    producer.publish();
                }
            });
            for expected in 1..=3 {
                let entry = loop {
                    match consumer.pop() {
                        Some(entry) => break entry,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(entry, expected, "in order, none lost and none twice");
                consumer.release();
            }
            writer.join().unwrap();
        }
    };
}

mod shipped;
mod without_acquire;
mod without_release;

#[test]
fn no_slot_is_touched_out_of_turn() {
    model(shipped::three_entries_through_two_slots);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_store_that_does_not_release_would_be_noticed() {
    model(without_release::three_entries_through_two_slots);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_load_that_does_not_acquire_would_be_noticed() {
    model(without_acquire::three_entries_through_two_slots);
}
