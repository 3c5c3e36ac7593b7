use super::*;
use wire::hub::Probe;

const OVERHEAD: u16 = 80;

fn at(ms: u64) -> Time {
    Time(1_000_000_000_000 + ms * 1_000_000)
}

fn remote(last: u8) -> IpAddr {
    [198, 18, 1, last].into()
}

/// Runs a search where outer packets of up to `passes` bytes come through, and says what was asked for.
fn run(lane: &mut LaneMtu, passes: u16, from: u64, ms: u64) -> Vec<u16> {
    let mut asked = Vec::new();
    for now in (from..from + ms).step_by(10) {
        for (number, size) in lane.poll(at(now)) {
            let plain = Probe { size, number, ..Probe::default() }.plain();
            assert_eq!(plain.len(), usize::from(size), "as long as the size in question");
            asked.push(size + OVERHEAD);
            if size + OVERHEAD <= passes {
                assert!(lane.on_reply(number, plain.len() as u16, at(now)));
                assert!(!lane.on_reply(number, plain.len() as u16, at(now)), "once");
            }
        }
    }
    asked
}

#[test]
fn what_fits_a_lane_is_found_by_padded_probes() {
    for (most, passes, fits) in [(1500, 1500, 1500), (1500, 1454, 1440), (9000, 1500, 1488)] {
        let mut lane = LaneMtu::default();
        lane.way(remote(2), most, OVERHEAD, at(0));
        lane.session(at(0));
        assert_eq!((lane.fits(), lane.payload_max()), (1280, 1280 - 80 - 8));
        let asked = run(&mut lane, passes, 0, 60_000);
        assert!(asked.contains(&1280) && asked.contains(&most), "{asked:?}");
        assert_eq!((lane.fits(), lane.plain_max(), lane.payload_max()), (fits, fits - 80, fits - 88), "{asked:?}");
        assert_eq!(lane.state(), "found");
    }
}

#[test]
fn a_reply_counts_for_the_size_in_which_the_very_probe_came() {
    let mut lane = LaneMtu::default();
    lane.way(remote(2), 1500, OVERHEAD, at(0));
    let probes = lane.poll(at(0));
    let [(small, 1200), (large, 1420)] = probes[..] else { panic!("{probes:?}") };
    assert!(small >= NUMBERS && large >= NUMBERS);
    assert!(!lane.on_reply(large, 1200, at(1)) && !lane.on_reply(small, 1420, at(1)) && !lane.on_reply(7, 1420, at(1)));
    assert_eq!(lane.fits(), 1280);
    // On another way, what was asked on this one says nothing.
    lane.way(remote(3), 1500, OVERHEAD, at(2));
    assert!(!lane.on_reply(large, 1420, at(3)));
    assert_eq!(lane.fits(), 1280);
    lane.way(remote(3), 1492, OVERHEAD, at(4));
    assert_eq!(run(&mut lane, 1500, 4, 100).last(), Some(&1492));
    assert_eq!(lane.fits(), 1492);
    // Nothing is remembered for ever, and without a session nothing is asked.
    lane.pause();
    assert!(run(&mut lane, 0, 1_000, 1_000).is_empty());
    lane.session(at(3_000));
    run(&mut lane, 0, 3_000, 4_000_000);
    assert!(lane.asked.len() <= REMEMBERED);
}
