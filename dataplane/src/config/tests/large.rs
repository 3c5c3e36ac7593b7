//! A configuration as large as one hub is promised to carry, and what no configuration may do: make us panic.

use std::fmt::Write as _;
use std::time::Instant;

use proptest::prelude::*;

use super::{HEAD, Place, STANDARD, WHOLE, with_keys};
use base64::Engine as _;

/// `tenants` tenants of `sites` sites each, all tenants with the same prefixes.
fn large(tenants: u32, sites: u32) -> String {
    let mut text = HEAD.to_owned();
    for tenant in 0..tenants {
        let _ = writeln!(
            text,
            "\n[[tenant]]\nid = {tenant}\nservice_code = \"WAN{tenant:08}\"\nlabel = \"Tenant {tenant}\""
        );
        for site in 0..sites {
            let mut key = [0xa5; 32];
            key[..4].copy_from_slice(&(tenant * sites + site).to_le_bytes());
            let (key, high, low) = (STANDARD.encode(key), site >> 8, site & 0xff);
            let _ = writeln!(
                text,
                "\n[[tenant.site]]\nname = \"site-{site}\"\npublic_key = \"{key}\"\n\
                 prefixes = [\"10.{high}.{low}.0/24\", \"172.16.{high}.{low}/32\", \"fd00:9:{site:x}::/64\"]"
            );
        }
    }
    text
}

/// Prints how long the largest promised configuration takes to load; what is asserted is that all of it is there.
#[test]
fn a_thousand_tenants_of_ten_sites_and_one_of_ten_thousand() {
    let place = Place::new();
    for (tenants, sites) in [(1000, 10), (1, 10_000)] {
        place.write("hub.toml", &large(tenants, sites));
        let begin = Instant::now();
        let desired = super::load(&place.path("hub.toml")).unwrap();
        eprintln!("{tenants} tenants x {sites} sites: loaded in {:?}", begin.elapsed());
        assert_eq!(desired.tenants.len(), tenants as usize);
        assert!(desired.tenants.iter().all(|tenant| tenant.sites.len() == sites as usize));
    }
}

/// What overlaps is compared with the definition, each pair against each.
#[test]
fn overlaps_are_found_as_by_comparing_each_pair() {
    let place = Place::new();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..Default::default()
    });
    let prefixes = proptest::collection::vec((0u32..64, 26u8..=32), 1..12);
    runner
        .run(&prefixes, |prefixes| {
            let nets: Vec<ipnet::Ipv4Net> = prefixes
                .iter()
                .map(|(host, length)| ipnet::Ipv4Net::new((0x0a00_0000 | host).into(), *length).unwrap().trunc())
                .collect();
            let expected = (0..nets.len())
                .filter(|later| {
                    nets[..*later].iter().any(|net| net.contains(&nets[*later]) || nets[*later].contains(net))
                })
                .count();
            let list: Vec<String> = nets.iter().map(|net| format!("\"{net}\"")).collect();
            let site = format!(
                "[[tenant]]\nid = 1\n[[tenant.site]]\nname = \"a\"\npublic_key = \"@1\"\nprefixes = [{}]",
                list.join(", ")
            );
            prop_assert_eq!(place.messages(&format!("{HEAD}{site}")).len(), expected, "{:?}", nets);
            Ok(())
        })
        .unwrap();
}

/// Loading ends in a configuration or in errors, each with a file and one line of text.
fn ends_well(place: &Place, bytes: &[u8]) {
    std::fs::write(place.path("hub.toml"), bytes).unwrap();
    if let Err(errors) = super::load(&place.path("hub.toml")) {
        assert!(!errors.problems().is_empty());
        for problem in errors.problems() {
            assert!(!problem.message.is_empty() && !problem.message.contains('\n'), "{problem:?}");
        }
    }
}

#[test]
fn no_bytes_and_no_mutation_of_a_configuration_make_it_panic() {
    let place = Place::new();
    let cases = ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() };
    let mut runner = proptest::test_runner::TestRunner::new(cases.clone());
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    runner
        .run(&bytes, |bytes| {
            ends_well(&place, &bytes);
            Ok(())
        })
        .unwrap();

    let whole = with_keys(WHOLE).into_bytes();
    let edit = (0..whole.len(), 0..20usize, "[\\[\\]{}=\"'.,#\\n a-z0-9/:-]{0,6}");
    let mut runner = proptest::test_runner::TestRunner::new(cases);
    runner
        .run(&proptest::collection::vec(edit, 1..4), |edits| {
            let mut text = whole.clone();
            for (at, removed, inserted) in edits {
                let at = at.min(text.len());
                text.splice(at..(at + removed).min(text.len()), inserted.into_bytes());
            }
            ends_well(&place, &text);
            Ok(())
        })
        .unwrap();
}
