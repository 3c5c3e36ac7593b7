//! Both sides of rings in ordinary memory.

use super::ring::plain;
use proptest::prelude::*;
use std::collections::VecDeque;

#[test]
fn full_empty_and_across_the_wrap() {
    for start in [0, u32::MAX - 5, u32::MAX] {
        let (mut producer, mut consumer) = plain::ring::<u64>(4, start);
        let mut next = 0;
        for _ in 0..5 {
            assert_eq!(producer.room(), 4);
            for i in 0..4 {
                assert_eq!(producer.push(next + i), Ok(()));
            }
            assert_eq!(producer.push(99), Err(99));
            assert_eq!(consumer.pop(), None, "nothing is seen before it is published");
            producer.publish();
            assert_eq!(producer.outstanding(), 4);
            for i in 0..4 {
                assert_eq!(consumer.pop(), Some(next + i));
            }
            assert_eq!(consumer.pop(), None);
            assert_eq!(producer.room(), 0, "nothing is free before it is released");
            consumer.release();
            assert_eq!(consumer.outstanding(), 0);
            next += 4;
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Push(u8),
    Publish,
    Pop(u8),
    Release,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(0u8..12).prop_map(Op::Push), Just(Op::Publish), (0u8..12).prop_map(Op::Pop), Just(Op::Release)]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    #[cfg_attr(miri, ignore = "too slow")]
    fn behaves_as_a_queue(
        start in prop_oneof![any::<u32>(), u32::MAX - 40..=u32::MAX],
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let (mut producer, mut consumer) = plain::ring::<u64>(8, start);
        // Pushed but unseen; seen but not popped; popped but not released.
        let (mut hidden, mut visible, mut taken) = (VecDeque::new(), VecDeque::new(), 0);
        let mut next = 0u64;
        for op in ops {
            match op {
                Op::Push(n) => for _ in 0..n {
                    let fits = hidden.len() + visible.len() + taken < 8;
                    prop_assert_eq!(producer.push(next).is_ok(), fits);
                    if fits {
                        hidden.push_back(next);
                        next += 1;
                    }
                },
                Op::Publish => { producer.publish(); visible.append(&mut hidden); }
                Op::Pop(n) => for _ in 0..n {
                    let want = visible.pop_front();
                    taken += usize::from(want.is_some());
                    prop_assert_eq!(consumer.pop(), want);
                },
                Op::Release => { consumer.release(); taken = 0; }
            }
            prop_assert_eq!(producer.outstanding() as usize, visible.len() + taken);
        }
    }
}

#[test]
fn two_threads_lose_and_double_nothing() {
    // Two words an entry that must agree: a torn or early read would show. Under Miri also a race would.
    let count: u64 = if cfg!(miri) { 300 } else { 2_000_000 };
    let (mut producer, mut consumer) = plain::ring::<[u64; 2]>(64, u32::MAX - 100);
    let writer = std::thread::spawn(move || {
        let mut i = 0;
        while i < count {
            let mut batch = 0;
            while i < count && batch < 17 && producer.push([i, !i]).is_ok() {
                i += 1;
                batch += 1;
            }
            producer.publish();
            if batch == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < count {
        let mut batch = 0;
        while batch < 23
            && let Some(entry) = consumer.pop()
        {
            assert_eq!(entry, [expected, !expected]);
            expected += 1;
            batch += 1;
        }
        consumer.release();
        if batch == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(consumer.pop(), None);
    writer.join().unwrap();
}
