use super::*;
use stats::Record;

const S: u64 = 1_000_000_000;

fn record(number: u64, boot: u64, second: u64, bytes: u64) -> Record {
    Record {
        number,
        boot,
        ns: second * S,
        wall_ns: 0,
        rx_packets: bytes / 10,
        rx_bytes: bytes,
        tx_packets: 0,
        tx_bytes: 2 * bytes,
    }
}

/// A hub whose rings tell all between two seconds.
fn hub(started: u64, told: u64) -> Hub {
    let (wall, ticked) = (1_700_000_000 * S, told + 1);
    Hub {
        started_wall_ns: wall + started * S,
        ticked_wall_ns: wall + ticked * S,
        ticked_ns: ticked * S,
        ..Hub::default()
    }
}

fn received(curve: &Curve, from: u64, step: u64, n: usize) -> Vec<Option<u64>> {
    curve.intervals(from * S, step * S, n).iter().map(|interval| interval.moved.map(|moved| moved[1])).collect()
}

fn curve(records: Vec<Record>, missed: u64, hub: &Hub) -> Curve {
    Curve::of(&History { records, missed, next: 0, period_ns: S }, hub)
}

#[test]
fn silence_is_zero_and_a_record_moved_in_the_period_before_it() {
    let curve = curve(vec![record(0, 1, 102, 100), record(1, 1, 103, 150), record(2, 1, 107, 1000)], 0, &hub(100, 110));
    let seconds = received(&curve, 100, 1, 8);
    assert_eq!(seconds, [0, 100, 50, 0, 0, 0, 850, 0].map(Some));
    assert_eq!(received(&curve, 100, 4, 2), [Some(150), Some(850)]);
    assert_eq!(curve.intervals(100 * S, 4 * S, 1)[0].moved, Some([15, 150, 0, 300]));
}

#[test]
fn before_the_start_and_after_the_last_tick_nothing_is_known() {
    let curve = curve(vec![record(0, 1, 102, 100)], 0, &hub(100, 104));
    assert_eq!(received(&curve, 98, 2, 4), [None, Some(100), Some(0), None]);
    // Half an interval is not one.
    assert_eq!(received(&curve, 99, 2, 1), [None]);
}

#[test]
fn what_was_overwritten_is_a_hole_and_so_is_another_boot() {
    let lapped = curve(vec![record(7, 1, 105, 5000), record(8, 1, 106, 5100)], 7, &hub(100, 110));
    assert_eq!(received(&lapped, 103, 1, 4), [None, None, Some(100), Some(0)]);
    let skipped = curve(vec![record(0, 1, 101, 10), record(3, 1, 104, 40), record(4, 1, 105, 60)], 0, &hub(100, 110));
    assert_eq!(received(&skipped, 100, 1, 6), [Some(10), None, None, None, Some(20), Some(0)]);
    let restarted = curve(vec![record(0, 1, 101, 10), record(1, 2, 104, 7), record(2, 2, 105, 9)], 0, &hub(100, 110));
    assert_eq!(received(&restarted, 100, 1, 6), [Some(10), None, None, None, Some(2), Some(0)]);
}

#[test]
fn intervals_add_up_to_what_moved_however_they_are_cut() {
    let records = (0..50).map(|n| record(n, 1, 101 + n, 10 * n * n + 13)).collect();
    let curve = curve(records, 0, &hub(100, 400));
    for step in [1, 7 * S / 10, 3 * S, 13_370_001] {
        let intervals = curve.intervals(100 * S, step.max(S / 50), (60 * S / step.max(S / 50)) as usize + 1);
        let sum: u64 = intervals.iter().map(|interval| interval.moved.unwrap()[1]).sum();
        assert_eq!(sum, 10 * 49 * 49 + 13);
    }
}

#[test]
fn a_ring_that_no_hub_wrote_does_no_harm() {
    let curve = curve(vec![record(5, 1, 9, 90), record(6, 1, 3, 7), record(7, 1, 12, 3)], 0, &hub(0, 20));
    let sum: u64 = curve.intervals(0, S, 20).iter().filter_map(|i| i.moved).map(|moved| moved[1]).sum();
    assert_eq!(sum, 90);
}
