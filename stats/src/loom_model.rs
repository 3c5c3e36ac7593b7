//! The writer and a reader of each protocol, in every order that the memory model allows.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p ekiden-stats --lib` runs them, on the very code that ships. The same source is then
//! compiled against atomics that order nothing, or a reader reads in the wrong order, and there the models must fail: so they would
//! notice.

use ::loom::{model, thread};
use std::sync::Arc;

use crate::sequence;

mod mutant;

/// The models, for whichever `sequence` is in scope.
macro_rules! models {
    ($sequence:ident) => {
        use $sequence::{Counter, Found, Place, Sequence, WORDS};

        /// A worker counts what came and then what left; a reader looks at what left and then at what came.
        pub(super) fn books(outputs_first: bool) {
            let rows = Arc::new([Counter::new(0), Counter::new(0)]);
            let worker = thread::spawn({
                let rows = rows.clone();
                move || {
                    for _ in 0..2 {
                        rows[0].add(1);
                        rows[1].add(1);
                    }
                }
            });
            let reader = thread::spawn({
                let rows = rows.clone();
                move || {
                    let first = rows[usize::from(outputs_first)].read();
                    let second = rows[usize::from(!outputs_first)].read();
                    let (left, came) = if outputs_first { (first, second) } else { (second, first) };
                    assert!(left <= came, "more left than came");
                }
            });
            reader.join().unwrap();
            worker.join().unwrap();
            assert_eq!((rows[0].read(), rows[1].read()), (2, 2));
        }

        /// The directory changes while it is read.
        pub(super) fn directory() {
            let words = Arc::new([Counter::new(0), Counter::new(1), Counter::new(1)]);
            let control = thread::spawn({
                let words = words.clone();
                move || {
                    for to in 2..4 {
                        Sequence::of(&words[0]).change(|| {
                            words[1].set(to);
                            words[2].set(to);
                        });
                    }
                }
            });
            let reader = thread::spawn(move || {
                let sequence = Sequence::of(&words[0]);
                if let Some(begun) = sequence.begin() {
                    let found = (words[1].read(), words[2].read());
                    if sequence.unchanged(begun) {
                        assert_eq!(found.0, found.1, "half of a directory");
                        assert_eq!(found.0, begun / 2 + 1, "another directory than its number says");
                    }
                }
            });
            reader.join().unwrap();
            control.join().unwrap();
        }

        /// A ring of one place: a record is written over another while that is read.
        pub(super) fn ring() {
            let ring = Arc::new((Counter::new(0), Place::new()));
            let publisher = thread::spawn({
                let ring = ring.clone();
                move || {
                    for number in 0..2 {
                        ring.1.write(number, [number + 7; WORDS]);
                        ring.0.set(number + 1);
                    }
                }
            });
            let reader = thread::spawn(move || {
                let next = ring.0.read();
                if let Some(number) = next.checked_sub(1) {
                    match ring.1.read(number) {
                        Found::Record(words) => assert_eq!(words, [number + 7; WORDS], "a torn record"),
                        Found::Overwritten => assert_eq!(number, 0, "the last record is there once it was told"),
                    }
                }
            });
            reader.join().unwrap();
            publisher.join().unwrap();
        }
    };
}

mod shipped {
    use super::*;
    models!(sequence);
}

mod broken {
    use super::mutant::sequence;
    use super::*;
    models!(sequence);
}

#[test]
fn no_more_leaves_than_came() {
    model(|| shipped::books(true));
}

#[test]
fn a_directory_is_whole() {
    model(shipped::directory);
}

#[test]
fn a_record_is_whole_or_gone() {
    model(shipped::ring);
}

#[test]
#[should_panic(expected = "more left than came")]
fn inputs_before_outputs_would_look_negative() {
    model(|| shipped::books(false));
}

#[test]
#[should_panic(expected = "more left than came")]
fn without_order_the_books_would_look_negative() {
    model(|| broken::books(true));
}

#[test]
#[should_panic(expected = "directory")]
fn without_order_a_directory_would_be_half() {
    model(broken::directory);
}

#[test]
#[should_panic(expected = "record")]
fn without_order_a_record_would_be_torn() {
    model(broken::ring);
}
