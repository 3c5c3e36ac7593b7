//! Workers at one bucket in every order that the memory model allows: `bucket.rs` as it ships, on words of `loom`.
//!
//! The same source on words that are looked at and then written must fail: so a bucket that lets two take the same would be noticed.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "the models need a part of the bucket, and need it twice over"
)]

use loom::model;

/// The model, for whichever `words` are in scope.
macro_rules! models {
    () => {
        use crate::config::Rate;
        use bucket::Bucket;
        use loom::sync::Arc;
        use loom::thread;

        const NOW: crate::clock::Time = crate::clock::Time(1_000_000_000);

        /// Two want 600 bytes of a thousand at the same moment: one gets them.
        pub(super) fn two_take() {
            let bucket = Arc::new(Bucket::new(Rate { bits_per_s: 8_000_000, burst: 1000 }));
            let other = bucket.clone();
            let second = thread::spawn(move || other.take(NOW, 600));
            let first = bucket.take(NOW, 600);
            assert!(first != second.join().unwrap(), "one of them");
            assert!(!bucket.take(NOW, 401) && bucket.take(NOW, 400), "and the rest is there");
        }

        /// What one gives back while another takes is lost to nobody.
        pub(super) fn one_gives_back() {
            let bucket = Arc::new(Bucket::new(Rate { bits_per_s: 8_000_000, burst: 1000 }));
            assert!(bucket.take(NOW, 500));
            let other = bucket.clone();
            let second = thread::spawn(move || other.take(NOW, 300));
            bucket.give_back(500);
            assert!(second.join().unwrap(), "there was room for it before and after");
            assert!(!bucket.take(NOW, 701) && bucket.take(NOW, 700));
        }
    };
}

mod shipped;
mod without_exchange;

#[test]
fn two_never_take_the_same_tokens() {
    model(shipped::two_take);
    model(shipped::one_gives_back);
}

#[test]
#[should_panic(expected = "one of them")]
fn a_look_and_a_store_would_be_noticed() {
    model(without_exchange::two_take);
}
