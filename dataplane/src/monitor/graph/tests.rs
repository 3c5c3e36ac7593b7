use super::super::fixture::{Hub, S};
use super::data::{Content, Data, Figures, Wanted, read};
use super::*;
use chrono::FixedOffset;
use stats::Now;
use wire::DropReason;

/// A hub that ran for ten minutes: tenant 1001 sent 1,000 bytes each second but for two silent minutes.
fn hub() -> Hub {
    let mut hub = Hub::new();
    for second in 0..600 {
        if !(240..360).contains(&second) {
            hub.relay(0, 10, 100);
        }
        if second % 20 == 7 {
            hub.drop(0, DropReason::NoRoute, 40);
            hub.drop(1, DropReason::TtlExpired, 10);
        }
        hub.pass();
    }
    hub
}

fn of(hub: &Hub, wanted: Wanted<'_>, last_s: u64, step_s: Option<u64>, now: Now) -> Result<Data> {
    read(&mut hub.reader(), wanted, Duration::from_secs(last_s), step_s.map(Duration::from_secs), now)
}

const TENANT: Wanted<'_> = Wanted::Traffic { tenant: "WAN00001001", site: None };

fn traffic(data: &Data) -> Vec<Option<u64>> {
    data.intervals().iter().map(|interval| interval.moved.map(|moved| moved[1])).collect()
}

fn japan() -> FixedOffset {
    FixedOffset::east_opt(9 * 3600).unwrap()
}

#[test]
fn a_window_has_whole_steps_and_every_byte() {
    let hub = hub();
    let data = of(&hub, TENANT, 300, Some(60), hub.now()).unwrap();
    assert_eq!((data.window.start / S % 60, data.step_ns, data.window.end - data.window.start), (0, 60 * S, 300 * S));
    // The hub started at a quarter to noon less 100 s; its last whole minute is the ninth.
    assert_eq!(traffic(&data).iter().map(|moved| moved.unwrap() / 1000 * 1000).max(), Some(60_000));
    assert!(data.notes.is_empty(), "{:?}", data.notes);
    let whole = of(&hub, TENANT, 598, Some(1), hub.now()).unwrap();
    let sum: u64 = traffic(&whole).iter().map(|moved| moved.unwrap()).sum();
    assert_eq!((sum, traffic(&whole).iter().filter(|moved| **moved == Some(0)).count()), (478_000, 120));
}

#[test]
fn what_is_not_known_is_a_gap_and_said() {
    let hub = hub();
    let data = of(&hub, TENANT, 3600, None, hub.now()).unwrap();
    let known = traffic(&data).iter().filter(|moved| moved.is_some()).count();
    assert_eq!((data.step_ns / S, data.intervals().len(), known), (10, 360, 59));
    assert!(data.notes[0].contains("the hub started") && data.notes[1].contains("301 of 360"), "{:?}", data.notes);
    // Five minutes after its last word.
    let later = Now { ns: hub.now().ns + 300 * S, wall_ns: hub.now().wall_ns + 300 * S };
    let data = of(&hub, TENANT, 600, Some(10), later).unwrap();
    assert_eq!(traffic(&data).iter().rev().take_while(|moved| moved.is_none()).count(), 31);
    assert!(data.notes[0].contains("The hub is gone") && data.notes[0].contains("300 s ago"), "{:?}", data.notes);
}

#[test]
fn the_95th_percentile_is_the_highest_rate_after_a_twentieth_was_struck_off() {
    let figures = |all: &[u64]| Figures::of(all.iter().copied(), 8.0, 2 * S).unwrap();
    let hundred: Vec<u64> = (1..=100).rev().collect();
    let expected = Figures { average: 50.5 * 4.0, p95: 95.0 * 4.0, max: 400.0, sum: 5050 };
    assert_eq!(figures(&hundred), expected);
    // Silence counts: one busy interval of twenty is struck off, two are not.
    let mut twenty = [0; 20];
    twenty[3] = 100;
    assert_eq!(figures(&twenty).p95, 0.0);
    twenty[9] = 50;
    assert_eq!(figures(&twenty).p95, 200.0);
    assert_eq!(figures(&[7]).p95, 28.0);
    assert_eq!(Figures::of(std::iter::empty(), 8.0, S), None);
}

#[test]
fn numbers_for_a_spreadsheet() {
    let hub = hub();
    let data = of(&hub, TENANT, 30, Some(10), hub.now()).unwrap();
    let expected = "time,seconds,in_packets,in_bytes,out_packets,out_bytes\n\
                    2023-11-14T20:52:40+09:00,10,100,10000,100,10000\n\
                    2023-11-14T20:52:50+09:00,10,100,10000,100,10000\n\
                    2023-11-14T20:53:00+09:00,10,100,10000,100,10000\n";
    assert_eq!(csv::write(&data, &japan()), expected);
    let data = of(&hub, Wanted::Drops, 120, Some(60), hub.now()).unwrap();
    let text = csv::write(&data, &japan());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "time,seconds,no_route_packets,no_route_bytes,ttl_expired_packets,ttl_expired_bytes");
    assert!(lines[1].ends_with("+09:00,60,120,12000,30,3000"), "{text}");
    let later = Now { ns: hub.now().ns + 60 * S, wall_ns: hub.now().wall_ns + 60 * S };
    let data = of(&hub, TENANT, 10, Some(10), later).unwrap();
    assert!(csv::write(&data, &japan()).ends_with(",10,,,,\n"));
}

#[test]
fn a_site_has_its_own_and_near_names_are_offered() {
    let hub = hub();
    let site = |site| of(&hub, Wanted::Traffic { tenant: "1001", site: Some(site) }, 60, Some(10), hub.now());
    let data = site("a").unwrap();
    assert_eq!((data.intervals()[0].moved, data.subtitle.as_str()), (Some([100, 10_000, 0, 0]), "site a"));
    assert_eq!(site("大阪").unwrap().intervals()[0].moved, Some([0, 0, 100, 10_000]));
    assert_eq!(site("nagoya").unwrap_err().to_string(), "tenant WAN00001001 has no site \"nagoya\"; it has a, 大阪");
    let tenant =
        |tenant| of(&hub, Wanted::Traffic { tenant, site: None }, 60, None, hub.now()).unwrap_err().to_string();
    let said = "hub tokyo-1 has no tenant with the id or service code \"WAN0001001\"; did you mean \"WAN00001001\"?";
    assert_eq!(tenant("WAN0001001"), said);
    assert_eq!(tenant("zzz"), "hub tokyo-1 has no tenant with the id or service code \"zzz\"");
    let short = of(&hub, Wanted::Drops, 60, Some(1), hub.now()).unwrap_err().to_string();
    assert!(short.contains("10 s"), "{short}");
}

#[test]
fn a_lane_has_its_own_in_whole_frames() {
    let mut hub = hub();
    hub.trunk();
    for _ in 0..60 {
        hub.carry(1, 5, 500);
        hub.pass();
    }
    let lane = |lane| of(&hub, Wanted::Lane(lane), 50, Some(10), hub.now());
    let data = lane("osaka/1").unwrap();
    assert_eq!((&*data.title, &*data.subtitle), ("lane osaka/1", "whole frames"));
    assert_eq!(data.intervals()[1].moved, Some([50, 5000, 0, 5000]));
    assert_eq!(lane("osaka/0").unwrap().intervals()[1].moved, Some([0; 4]));
    let said = "hub tokyo-1 has no lane \"osaka/7\"; did you mean \"osaka/0\"?";
    assert_eq!(lane("osaka/7").unwrap_err().to_string(), said);
}

#[test]
fn reasons_beyond_the_colours_are_drawn_together() {
    let mut hub = Hub::new();
    for (n, reason) in wire::DROP_REASONS.iter().take(9).enumerate() {
        hub.drop(0, *reason, 100 - n as u64);
    }
    (0..30).for_each(|_| hub.pass());
    let data = of(&hub, Wanted::Drops, 10, None, hub.now()).unwrap();
    let Content::Drops(reasons) = &data.content else { panic!("{data:?}") };
    assert_eq!(reasons.len(), 1, "nothing was dropped in the last ten seconds");
    let data = of(&hub, Wanted::Drops, 30, None, Now { ns: hub.now().ns, wall_ns: hub.now().wall_ns }).unwrap();
    let Content::Drops(reasons) = &data.content else { panic!("{data:?}") };
    let rows = data::grouped(reasons);
    if reasons.len() > 6 {
        assert_eq!((rows.len(), rows[5].0.as_str()), (6, "4 others"));
    }
}

#[test]
fn pictures_hold_what_they_are_of_and_nothing_that_others_wrote() {
    let hub = hub();
    let hostile = Wanted::Traffic { tenant: "WAN00001002", site: None };
    for (wanted, words) in [
        (
            TENANT,
            vec!["WAN00001001", "株式会社 駅伝", "95th percentile", "8.00 kbit/s", "kbit/s", "20:50", "no records"],
        ),
        (Wanted::Drops, vec!["no_route", "ttl_expired", "packets/s", "averages over 10 s"]),
        (hostile, vec!["WAN00001002", "evil\\u{1b}[2J\\u{202e}", "&lt;b&gt;"]),
    ] {
        let data = of(&hub, wanted, 900, Some(10), hub.now()).unwrap();
        let svg = picture::svg(&data, &japan()).unwrap();
        assert!(svg.starts_with("<svg width=\"960\" height="), "{}", &svg[..100]);
        assert!(!svg.contains("<b>") && !svg.contains('\u{1b}') && !svg.contains("NaN"));
        for word in words {
            assert!(svg.contains(word), "no {word:?} in {svg}");
        }
        let (png, _) = picture::png(&data, &japan()).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(info.width, 1920);
        // Paper, the colour of the first curve or area, and ink.
        let has = |test: fn(&[u8]) -> bool| pixels.chunks(3).any(test);
        assert!(pixels[..3] == [255; 3] && has(|p| p[0] < 90 && p[1] > 90 && p[2] > 150) && has(|p| p == [34, 34, 34]));
    }
}

#[test]
fn durations() {
    let parsed: Vec<_> =
        ["90s", "15m", "1h", "2d", "250ms"].map(|text| parse_duration(text).unwrap().as_millis()).into();
    assert_eq!(parsed, [90_000, 900_000, 3_600_000, 172_800_000, 250]);
    for wrong in ["", "5", "s", "-1s", "1.5h", "1y", "0s", "99999999999999999999s", "366d", "1 h", "１h"] {
        assert!(parse_duration(wrong).is_err(), "{wrong}");
    }
}
