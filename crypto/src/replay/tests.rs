use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use proptest::prelude::*;

use super::*;

const WIDTH: u64 = REPLAY_WIDTH;

/// One message after the other, as a batch of one: what RFC 6479 and the kernel do.
fn step(window: &Window, counter: u64) -> Result<(), Reject> {
    let looked = window.look(counter);
    let accepted = window.accept(counter);
    assert_eq!(looked, accepted, "a look at {counter} must foretell what accept says when nobody interferes");
    if accepted.is_ok() {
        window.raise(counter);
    }
    accepted
}

/// Runs counters through a fresh window, each with whether it must be accepted.
fn expect(cases: impl IntoIterator<Item = (u64, bool)>) {
    let window = Window::new();
    for (n, (counter, good)) in cases.into_iter().enumerate() {
        assert_eq!(step(&window, counter).is_ok(), good, "case {n}: counter {counter}, highest {}", window.highest());
    }
}

// The properties that the self-test of the Linux kernel's window checks, at the same distances.

#[test]
fn reordered_near_the_start() {
    expect([(0, true), (1, true), (1, false), (9, true), (8, true), (7, true), (7, false)]);
}

#[test]
fn exactly_the_width_is_remembered() {
    let first_out = WIDTH + 1;
    expect([
        (0, true),
        (1, true),
        (9, true),
        (first_out, true),
        (first_out - 1, true),
        (first_out - 1, false),
        (first_out - 2, true),
        (2, true), // 8127 below the highest
        (2, false),
        (first_out + 16, true),
        (3, false), // 8142 below
        (first_out + 16, false),
        (first_out * 4, true),
        (first_out * 4 - WIDTH, true), // the oldest there is
        (10, false),
        (first_out * 4 - WIDTH - 1, false), // the first beyond
        (first_out * 4 - WIDTH - 2, false),
        (first_out * 4 - WIDTH + 1, true),
        (0, false),
        (u64::MAX, false),
        (u64::MAX - (1 << 13), false),
        (first_out * 4 + 1, true),
        (first_out * 4 - WIDTH + 2, true),
    ]);
}

#[test]
fn upwards_then_back_to_the_start() {
    expect((1..=WIDTH).map(|c| (c, true)).chain([(0, true), (0, false)]));
    expect((2..=WIDTH + 1).map(|c| (c, true)).chain([(1, true), (0, false)]));
}

#[test]
fn downwards_from_the_edge() {
    expect((0..=WIDTH).rev().map(|c| (c, true)));
    expect((1..=WIDTH + 1).rev().map(|c| (c, true)).chain([(0, false)]));
    expect((1..=WIDTH).rev().map(|c| (c, true)).chain([(WIDTH + 1, true), (0, false)]));
    expect((1..=WIDTH).rev().map(|c| (c, true)).chain([(0, true), (WIDTH + 1, true)]));
}

#[test]
fn each_refusal_names_its_cause() {
    let window = Window::new();
    assert_eq!(step(&window, 20_000), Ok(()));
    assert_eq!(step(&window, 20_000), Err(Reject::Replayed));
    assert_eq!(step(&window, 20_000 - WIDTH - 1), Err(Reject::TooOld));
    assert_eq!(step(&window, LIMIT), Err(Reject::Limit));
    assert_eq!(step(&window, LIMIT - 1), Ok(()));
    assert_eq!(step(&window, LIMIT - 1), Err(Reject::Replayed));
    assert_eq!(step(&window, u64::MAX), Err(Reject::Limit));
}

#[test]
fn forgeries_leave_no_trace() {
    let window = Window::new();
    for counter in [0, 5, WIDTH * 3, LIMIT - 1] {
        assert_eq!(window.look(counter), Ok(()), "a look must not move anything");
    }
    assert_eq!(window.highest(), 0);
    assert_eq!(window.accept(0), Ok(()));
}

#[test]
fn a_counter_that_falls_out_between_look_and_accept_is_refused() {
    let window = Window::new();
    assert_eq!(window.look(100), Ok(()));
    window.raise(100 + WIDTH + 1);
    assert_eq!(window.accept(100), Err(Reject::TooOld));
}

#[test]
fn a_newer_lap_refuses_before_highest_is_raised() {
    let window = Window::new();
    assert_eq!(window.accept(3), Ok(()));
    assert_eq!(window.accept(3 + 8192), Ok(()));
    assert_eq!(window.highest(), 0);
    assert_eq!(window.accept(4), Err(Reject::TooOld), "the word has forgotten the lap of 4");
    assert_eq!(window.accept(4 + 8192), Ok(()));
}

#[test]
fn raising_never_lowers() {
    let window = Window::new();
    window.raise(10_000);
    window.raise(9_000);
    assert_eq!(window.highest(), 10_000);
}

/// The plain definition: a set of what was accepted, and the width.
#[derive(Default)]
struct Model {
    accepted: HashSet<u64>,
    highest: u64,
}

impl Model {
    fn step(&mut self, counter: u64) -> Result<(), Reject> {
        if counter >= 1 << 45 {
            return Err(Reject::Limit);
        }
        if counter + WIDTH < self.highest {
            return Err(Reject::TooOld);
        }
        if !self.accepted.insert(counter) {
            return Err(Reject::Replayed);
        }
        self.highest = self.highest.max(counter);
        Ok(())
    }
}

/// Where the next counter lies, seen from the highest so far.
#[derive(Debug, Clone)]
enum Move {
    Near(i64),
    Edge(i64),
    Far(u64),
    Repeat(prop::sample::Index),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        6 => (-70i64..70).prop_map(Move::Near),
        3 => (-9_000i64..9_000).prop_map(Move::Near),
        3 => (-70i64..70).prop_map(Move::Edge),
        1 => (0u64..1 << 20).prop_map(Move::Far),
        3 => any::<prop::sample::Index>().prop_map(Move::Repeat),
    ];
    prop::collection::vec(one, 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn same_as_the_plain_definition(
        start in prop_oneof![0u64..3, 8_100u64..8_300, 0u64..LIMIT, LIMIT - 70_000..LIMIT],
        moves in moves(),
    ) {
        let (window, mut model, mut sent) = (Window::new(), Model::default(), Vec::new());
        for (n, a_move) in moves.iter().enumerate() {
            let highest = model.highest;
            let counter = match a_move {
                _ if n == 0 => start,
                Move::Near(by) => highest.saturating_add_signed(*by),
                Move::Edge(by) => highest.saturating_sub(WIDTH).saturating_add_signed(*by),
                Move::Far(by) => highest + by,
                Move::Repeat(which) => *which.get(&sent),
            };
            sent.push(counter);
            prop_assert_eq!(step(&window, counter), model.step(counter), "message {} with counter {}", n, counter);
            prop_assert_eq!(window.highest(), model.highest);
        }
    }

    /// Batches judge by the `highest` that they found, yet accept nothing twice and end where single steps end.
    #[test]
    fn batches_accept_each_counter_once(
        start in prop_oneof![Just(0), 0u64..LIMIT - (1 << 20)],
        batches in prop::collection::vec(prop::collection::vec(0u64..20_000, 1..64), 1..20),
    ) {
        let (window, mut accepted) = (Window::new(), HashSet::new());
        for batch in &batches {
            let live = batch.iter().map(|offset| start + offset).filter(|c| window.look(*c).is_ok()).collect::<Vec<_>>();
            let good = live.into_iter().filter(|c| window.accept(*c).is_ok()).collect::<Vec<_>>();
            for counter in &good {
                prop_assert!(accepted.insert(*counter), "{} accepted twice", counter);
            }
            if let Some(highest) = good.into_iter().max() {
                window.raise(highest);
            }
            prop_assert_eq!(Some(&window.highest()), accepted.iter().max().or(Some(&0)));
        }
    }
}

/// Four threads get the same messages, in the order sent and with a raise for each batch.
#[test]
fn threads_accept_each_counter_exactly_once() {
    const THREADS: usize = 4;
    const COUNTERS: usize = 100_000;
    let window = Window::new();
    let accepted = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect::<Vec<_>>();
    let batches = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                // All work on the same 4000 counters at a time, less than the width: none may be refused as too old.
                for chunk in (0..COUNTERS).collect::<Vec<_>>().chunks(4_000) {
                    batches.wait();
                    for batch in chunk.chunks(64) {
                        let won = batch.iter().filter(|c| window.accept(**c as u64).is_ok()).inspect(|c| {
                            accepted[**c].fetch_add(1, Ordering::Relaxed);
                        });
                        if let Some(highest) = won.max() {
                            window.raise(*highest as u64);
                        }
                    }
                }
            });
        }
    });
    for (counter, times) in accepted.iter().enumerate() {
        assert_eq!(times.load(Ordering::Relaxed), 1, "counter {counter}");
    }
    assert_eq!(window.highest(), COUNTERS as u64 - 1);
}
