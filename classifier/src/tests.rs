use super::*;
use proptest::prelude::*;
use std::{collections::BTreeMap, net::Ipv4Addr, net::Ipv6Addr};

fn site(slot: u32) -> Target {
    Target::Site(SiteSlot(slot))
}

fn tables(routes: &[(u32, &str, u32)]) -> Tables {
    let mut builder = Tables::builder();
    for (tenant, prefix, slot) in routes {
        builder.add(TenantSlot(*tenant), prefix.parse().unwrap(), site(*slot));
    }
    builder.build()
}

#[test]
fn tenants_with_the_same_prefixes_stay_apart() {
    let tables = tables(&[
        (0, "10.9.1.0/24", 1),
        (0, "10.9.2.0/24", 2),
        (0, "fd00:9:1::/64", 1),
        (2, "10.9.1.0/24", 11),
        (2, "10.9.2.0/24", 12),
        (2, "fd00:9:1::/64", 11),
    ]);
    let inside: IpAddr = "10.9.2.255".parse().unwrap();
    assert_eq!(tables.route(TenantSlot(0), inside), Some(site(2)));
    assert_eq!(tables.route(TenantSlot(2), inside), Some(site(12)));
    assert_eq!(tables.route(TenantSlot(1), inside), None, "a tenant without routes");
    assert_eq!(tables.route(TenantSlot(3), inside), None, "a slot beyond the tables");
    assert_eq!(tables.route(TenantSlot(u32::MAX), inside), None);
    assert_eq!(tables.route(TenantSlot(0), "10.9.3.0".parse().unwrap()), None);
    assert_eq!(tables.route(TenantSlot(0), "10.9.0.255".parse().unwrap()), None);
    assert_eq!(tables.route(TenantSlot(2), "fd00:9:1::ffff".parse().unwrap()), Some(site(11)));
    assert_eq!(tables.route(TenantSlot(2), "fd00:9:1:1::".parse().unwrap()), None);

    assert!(tables.source_allowed(TenantSlot(0), SiteSlot(2), inside));
    assert!(!tables.source_allowed(TenantSlot(0), SiteSlot(1), inside), "another site's address");
    assert!(!tables.source_allowed(TenantSlot(0), SiteSlot(12), inside), "another tenant's site");
    assert!(!tables.source_allowed(TenantSlot(0), SiteSlot(2), "192.0.2.1".parse().unwrap()));
    assert_eq!(Tables::default().route(TenantSlot(0), inside), None);
}

#[test]
fn the_ends_of_the_address_space() {
    let all = tables(&[(0, "0.0.0.0/0", 1), (0, "255.255.255.255/32", 2), (0, "::/0", 3), (0, "ffff::/16", 4)]);
    let route = |address: &str| all.route(TenantSlot(0), address.parse().unwrap());
    assert_eq!(route("0.0.0.0"), Some(site(1)));
    assert_eq!(route("255.255.255.254"), Some(site(1)));
    assert_eq!(route("255.255.255.255"), Some(site(2)));
    assert_eq!(route("::"), Some(site(3)));
    assert_eq!(route("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), Some(site(4)));
}

#[test]
fn a_large_table_answers_as_its_parts_would() {
    // Dense in one place, sparse elsewhere, and at both ends of the space: parts of many ranges, and many parts of none.
    let (mut v4, mut v6) = (Tables::builder(), Tables::builder());
    let mut expected = BTreeMap::new();
    for n in 0u32..3000 {
        let dense = IpNet::new(Ipv4Addr::from_bits(0x0a00_0000 + n * 512).into(), 24).unwrap();
        let sparse = IpNet::new(Ipv4Addr::from_bits(n * 0x0015_0000).into(), 24).unwrap();
        let long = IpNet::new(Ipv6Addr::from_bits(0xfd00 << 112 | (n as u128) << 60).into(), 62).unwrap();
        let wide = IpNet::new(Ipv6Addr::from_bits((n as u128) << 116).into(), 64).unwrap();
        for (slot, prefix) in [(n, dense), (n + 10_000, sparse), (n + 20_000, long), (n + 30_000, wide)] {
            if prefix.addr().is_ipv4() { &mut v4 } else { &mut v6 }.add(TenantSlot(0), prefix, site(slot));
            expected.insert(prefix.trunc(), slot);
        }
    }
    let (v4, v6) = (v4.build(), v6.build());
    for prefix in expected.keys() {
        let (tables, ends) = match prefix {
            IpNet::V4(net) => (&v4, [net.network().to_bits() as u128, net.broadcast().to_bits() as u128]),
            IpNet::V6(net) => (&v6, [net.network().to_bits(), net.broadcast().to_bits()]),
        };
        for bits in [ends[0].wrapping_sub(1), ends[0], ends[1], ends[1].wrapping_add(1)] {
            let address = match prefix {
                IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
                IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
            };
            let of = |len| IpNet::new(address, len).unwrap().trunc();
            let longest = if address.is_ipv4() { [24, 24] } else { [64, 62] };
            let wanted = longest.iter().find_map(|len| expected.get(&of(*len))).map(|slot| site(*slot));
            assert_eq!(tables.route(TenantSlot(0), address), wanted, "{address}");
        }
    }
    assert_eq!(v4.route(TenantSlot(0), "255.255.255.255".parse().unwrap()), None);
}

#[test]
fn of_two_equal_prefixes_the_later_counts_and_host_bits_do_not() {
    let twice = tables(&[(0, "10.0.0.0/8", 1), (0, "10.1.2.3/16", 2), (0, "10.1.0.0/16", 3)]);
    assert_eq!(twice.route(TenantSlot(0), "10.1.0.1".parse().unwrap()), Some(site(3)));
    assert_eq!(twice.route(TenantSlot(0), "10.2.0.1".parse().unwrap()), Some(site(1)));
}

#[test]
fn a_path_leads_to_its_active_end_and_packets_may_come_from_all() {
    let mut builder = Tables::builder();
    let (tenant, ends) = (TenantSlot(1), [1, 2, 3].map(SiteSlot));
    let path = builder.path(&ends, ends[0]);
    let other = builder.path(&ends[..2], ends[1]);
    builder.add(tenant, "10.9.0.0/16".parse().unwrap(), site(9));
    for shared in ["10.9.3.0/24", "fd00:9:3::/48"] {
        builder.add_path(tenant, shared.parse().unwrap(), path);
    }
    builder.add_path(tenant, "10.9.4.0/24".parse().unwrap(), other);
    builder.add(tenant, "10.9.3.7/32".parse().unwrap(), site(9));
    let tables = builder.build();
    let address = |text: &str| text.parse::<IpAddr>().unwrap();
    let of = |slot| {
        [tables.route(tenant, address("10.9.3.1")), tables.route(tenant, address("fd00:9:3::1"))]
            == [Some(site(slot)); 2]
    };
    assert!(of(1));
    assert!(tables.switch(path, SiteSlot(3)));
    assert!(of(3), "all prefixes of the path");
    assert_eq!(tables.active(path), Some(SiteSlot(3)));
    assert_eq!(tables.route(tenant, address("10.9.4.1")), Some(site(2)), "another path");
    assert!(!tables.switch(path, SiteSlot(9)), "an end that the path has not");
    assert!(!tables.switch(PathId(2), SiteSlot(1)), "a path that is not there");
    assert_eq!(tables.active(PathId(2)), None);
    assert!(of(3));

    for slot in 0..10 {
        let allowed = |source| tables.source_allowed(tenant, SiteSlot(slot), address(source));
        assert_eq!(allowed("10.9.3.1"), (1..=3).contains(&slot), "{slot}: the active end and the others");
        assert_eq!(allowed("10.9.4.1"), (1..=2).contains(&slot), "{slot}");
        assert_eq!(allowed("10.9.3.7"), slot == 9, "{slot}: a longer prefix, which has no path");
        assert_eq!(allowed("10.9.5.1"), slot == 9, "{slot}: a shorter prefix");
        assert!(!tables.source_allowed(TenantSlot(0), SiteSlot(slot), address("10.9.3.1")), "another tenant");
    }
    assert_eq!(tables.route(TenantSlot(0), address("10.9.3.1")), None);

    let mut builder = Tables::builder();
    let alone = builder.path(&[], SiteSlot(5));
    assert!(builder.build().switch(alone, SiteSlot(5)), "the active end is one of a path's");
}

/// The definition: of all prefixes that hold the address, the longest.
fn naive(routes: &BTreeMap<(u32, IpNet), u32>, tenant: u32, address: IpAddr) -> Option<Target> {
    let held = routes.iter().filter(|((of, prefix), _)| *of == tenant && prefix.contains(&address));
    held.max_by_key(|((_, prefix), _)| prefix.prefix_len()).map(|(_, slot)| site(*slot))
}

/// Prefixes crowded into few addresses, so that they nest, touch and repeat; some lie at the ends of the space.
fn crowded() -> impl Strategy<Value = IpNet> {
    let v4 =
        (prop_oneof![Just(0u32), Just(0x0a09_0000), Just(0xffff_ff00)], 0u32..256, prop_oneof![24u8..=32, 0u8..=32])
            .prop_map(|(base, low, len)| IpNet::new(Ipv4Addr::from_bits(base | low).into(), len).unwrap().trunc());
    let v6 = (
        prop_oneof![Just(0u128), Just(0xfd00_0009 << 96), Just(u128::MAX << 72)],
        0u128..8,
        0u128..8,
        prop_oneof![61u8..=64, 125u8..=128, 0u8..=128],
    )
        .prop_map(|(base, high, low, len)| {
            IpNet::new(Ipv6Addr::from_bits(base | high << 64 | low).into(), len).unwrap().trunc()
        });
    prop_oneof![v4, v6]
}

proptest! {
    #[test]
    fn agrees_with_the_definition(list in proptest::collection::vec((0u32..3, crowded(), 0u32..4), 0..40), probes: [u128; 8]) {
        let mut builder = Tables::builder();
        let mut model = BTreeMap::new();
        for (tenant, prefix, slot) in &list {
            builder.add(TenantSlot(*tenant), *prefix, site(*slot));
            model.insert((*tenant, *prefix), *slot);
        }
        let tables = builder.build();
        // Every edge of every prefix, one address before and after it, and some addresses anywhere.
        let mut addresses: Vec<IpAddr> = Vec::new();
        for (_, prefix, _) in &list {
            for edge in [prefix.network(), prefix.broadcast()] {
                for step in [u128::MAX, 0, 1] {
                    addresses.push(match edge {
                        IpAddr::V4(edge) => Ipv4Addr::from_bits(edge.to_bits().wrapping_add(step as u32)).into(),
                        IpAddr::V6(edge) => Ipv6Addr::from_bits(edge.to_bits().wrapping_add(step)).into(),
                    });
                }
            }
        }
        addresses.extend(probes.map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))));
        addresses.extend(probes.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits as u32))));
        for tenant in 0..4 {
            for address in &addresses {
                let expected = naive(&model, tenant, *address);
                prop_assert_eq!(tables.route(TenantSlot(tenant), *address), expected, "tenant {} to {}", tenant, address);
                for slot in 0..4 {
                    let allowed = tables.source_allowed(TenantSlot(tenant), SiteSlot(slot), *address);
                    prop_assert_eq!(allowed, expected == Some(site(slot)));
                }
            }
        }
    }
}

/// A prefix's candidates in a model, and which of them is active.
type Candidates = (Vec<u32>, u32);

proptest! {
    #[test]
    fn paths_agree_with_the_definition_however_they_are_switched(
        list in proptest::collection::vec((0u32..2, crowded(), proptest::collection::btree_set(0u32..5, 1..4)), 1..24),
        switches in proptest::collection::vec((0usize..24, 0u32..6), 0..40),
    ) {
        let mut model: BTreeMap<(u32, IpNet), Candidates> = BTreeMap::new();
        for (tenant, prefix, ends) in &list {
            let ends: Vec<u32> = ends.iter().rev().copied().collect();
            model.insert((*tenant, *prefix), (ends.clone(), ends[0]));
        }
        let mut builder = Tables::builder();
        let mut numbers = BTreeMap::new();
        for ((tenant, prefix), (ends, active)) in &model {
            if let [end] = ends[..] {
                builder.add(TenantSlot(*tenant), *prefix, site(end));
                continue;
            }
            let slots: Vec<SiteSlot> = ends.iter().copied().map(SiteSlot).collect();
            let path = builder.path(&slots, SiteSlot(*active));
            builder.add_path(TenantSlot(*tenant), *prefix, path);
            numbers.insert((*tenant, *prefix), path);
        }
        let tables = builder.build();
        // First as built, then after each switch.
        for switch in std::iter::once(None).chain(switches.into_iter().map(Some)) {
            if let Some((which, end)) = switch
                && let Some((key, path)) = numbers.iter().nth(which % numbers.len().max(1))
                && let Some((ends, active)) = model.get_mut(key)
            {
                prop_assert_eq!(tables.switch(*path, SiteSlot(end)), ends.contains(&end));
                if ends.contains(&end) {
                    *active = end;
                }
            }
            for tenant in 0..2 {
                for edge in list.iter().flat_map(|(_, prefix, _)| [prefix.network(), prefix.broadcast()]) {
                    let held = model.iter().filter(|((of, prefix), _)| *of == tenant && prefix.contains(&edge));
                    let longest = held.max_by_key(|((_, prefix), _)| prefix.prefix_len()).map(|(_, candidates)| candidates);
                    let expected = longest.map(|(_, active)| site(*active));
                    prop_assert_eq!(tables.route(TenantSlot(tenant), edge), expected, "tenant {} to {}", tenant, edge);
                    for slot in 0..6 {
                        let allowed = tables.source_allowed(TenantSlot(tenant), SiteSlot(slot), edge);
                        prop_assert_eq!(allowed, longest.is_some_and(|(ends, _)| ends.contains(&slot)));
                    }
                }
            }
        }
    }
}
