use super::*;
use proptest::prelude::*;

fn tenant(id: u32) -> TenantId {
    TenantId::new(id.into()).unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn those_around_come_first_then_those_inside() {
    let mut prefixes = Prefixes::default();
    for text in
        ["0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.3.0/24", "10.9.4.0/24", "10.10.0.0/16", "::/0", "fd00::/8"]
    {
        assert_eq!(prefixes.insert(tenant(1), net(text), text), None);
    }
    prefixes.insert(tenant(2), net("10.9.0.0/16"), "another's");
    let found = |prefix| prefixes.overlapping(tenant(1), net(prefix)).map(|(_, text)| *text).collect::<Vec<_>>();
    assert_eq!(found("10.9.0.0/16"), ["0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.3.0/24", "10.9.4.0/24"]);
    assert_eq!(found("10.9.3.7/32"), ["0.0.0.0/0", "10.0.0.0/8", "10.9.0.0/16", "10.9.3.0/24"]);
    assert_eq!(found("10.9.4.0/22").len(), 4);
    assert_eq!(found("11.0.0.0/8"), ["0.0.0.0/0"]);
    assert_eq!(found("::/0"), ["::/0", "fd00::/8"]);
    assert_eq!(found("0.0.0.0/0").len(), 6);
    assert_eq!(prefixes.overlapping(tenant(3), net("0.0.0.0/0")).count(), 0);
}

fn some() -> impl Strategy<Value = (TenantId, IpNet)> {
    (0u32..2, any::<bool>(), 0u8..4, 0u8..4, 0u8..=32).prop_map(|(id, v6, a, b, len)| {
        let bits = u32::from_be_bytes([a << 6, 0, b << 6, b]);
        let prefix = match v6 {
            false => IpNet::new(std::net::Ipv4Addr::from(bits).into(), len),
            true => IpNet::new(std::net::Ipv6Addr::from(u128::from(bits) << 96 | u128::from(bits)).into(), len * 4),
        };
        (tenant(id), prefix.unwrap().trunc())
    })
}

proptest! {
    #[test]
    fn overlaps_as_looking_at_all_would_say(
        there in proptest::collection::vec((some(), any::<bool>()), 0..60), asked in proptest::collection::vec(some(), 0..30),
    ) {
        let mut prefixes = Prefixes::default();
        let mut all = std::collections::HashMap::new();
        for (n, ((tenant, prefix), stays)) in there.into_iter().enumerate() {
            if stays {
                prop_assert_eq!(prefixes.insert(tenant, prefix, n), all.insert((tenant, prefix), n));
            } else {
                prop_assert_eq!(prefixes.remove(tenant, prefix), all.remove(&(tenant, prefix)));
            }
        }
        prop_assert_eq!(prefixes.len(), all.len());
        for (id, prefix) in asked {
            let of = |(tenant, there): &(TenantId, IpNet)| *tenant == id && (there.contains(&prefix) || prefix.contains(there));
            let mut expected: Vec<_> = all.iter().filter(|(key, _)| of(key)).map(|((_, prefix), n)| (*prefix, *n)).collect();
            let mut found: Vec<_> = prefixes.overlapping(id, prefix).map(|(prefix, n)| (prefix, *n)).collect();
            expected.sort_unstable();
            found.sort_unstable();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(prefixes.overlaps(id, prefix), !expected.is_empty());
            prop_assert_eq!(prefixes.get(id, prefix), all.get(&(id, prefix)));
        }
    }
}
