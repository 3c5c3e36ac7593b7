//! Any datagram from netlink: what a kernel really said, changed. A message that makes no sense is passed over; none makes
//! the table panic, grow without end, or tell of a port that the hub has not.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use bolero::generator::produce;

use super::super::Key;
use super::super::netlink::fuzz::{Read, read};
use super::super::table::Table;
use super::*;
use crate::mutate::{Recipe, corpus, mutate, seconds};

fn key() -> Key {
    Key { remote: ip("192.0.2.7"), local: None }
}

#[test]
fn any_message_of_the_kernel() {
    let datagrams = corpus("tests/corpus/netlink");
    let mut reached = BTreeMap::<String, u64>::new();
    {
        let start = Instant::now();
        let hear = move |datagram: &[u8], table: &mut Table, at: &mut u64, reached: &mut BTreeMap<String, u64>| {
            *at += 1;
            let now = start + Duration::from_millis(*at);
            for read in read(datagram) {
                let name = format!("{read:?}");
                let name: String = name.chars().take_while(|c| c.is_alphabetic() || *c == '(').collect();
                *reached.entry(name).or_default() += 1;
                match read {
                    Read::Fact(fact) => table.apply(fact, now),
                    Read::Answer(route) => table.answer(key(), None, route, now),
                }
            }
            while let Some(change) = table.next_change() {
                *reached.entry("change".into()).or_default() += 1;
                assert!(!matches!(change, Change::Link { port, .. } if port != PortIndex(0)), "{change:?}");
            }
        };
        let table = || {
            let mut table = Table::new([(PortIndex(0), "d0".to_owned())], start);
            table.watch(key());
            table
        };
        let mut world = AssertUnwindSafe((table(), 0u64, &mut reached, datagrams));
        for which in 0..world.3.len() as u16 {
            let AssertUnwindSafe((table, at, reached, datagrams)) = &mut world;
            hear(&mutate(&(which, Vec::new()), datagrams, 1 << 16), table, at, reached);
        }
        bolero::check!().with_test_time(seconds()).with_generator(produce::<Vec<Recipe>>()).for_each(move |recipes| {
            let AssertUnwindSafe((known, at, reached, datagrams)) = &mut world;
            *known = table();
            for recipe in recipes {
                hear(&mutate(recipe, datagrams, 1 << 16), known, at, reached);
            }
        });
    }
    eprintln!("{reached:?}");
    for place in [
        "Fact(Link",
        "Fact(LinkGone",
        "Fact(Address",
        "Fact(Neighbour",
        "Fact(Routes",
        "Fact(Policy",
        "Answer(Ok(Route",
        "Answer(Err(",
        "change",
    ] {
        assert!(reached.keys().any(|name| name.starts_with(place)), "{place} was never reached: {reached:?}");
    }
}
