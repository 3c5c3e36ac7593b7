use super::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};
use wire::tcp;

fn flow(from: &str, to: &str, protocol: u8, upper: Option<(u16, u16, u8)>) -> Flow {
    let upper =
        upper.map(|(source_port, destination_port, tcp_flags)| Upper { source_port, destination_port, tcp_flags });
    Flow { source: from.parse().unwrap(), destination: to.parse().unwrap(), protocol, upper }
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|net| net.parse().unwrap()).collect()
}

/// The definition, rule by rule.
fn naive(rules: &[Rule], default: Action, flow: &Flow) -> Decision {
    let within = |nets: &[IpNet], address: IpAddr| nets.is_empty() || nets.iter().any(|net| net.contains(&address));
    let one_of =
        |ranges: &[RangeInclusive<u16>], port: u16| ranges.is_empty() || ranges.iter().any(|r| r.contains(&port));
    let matches = |rule: &Rule| {
        let outside = within(&rule.from, flow.source)
            && within(&rule.to, flow.destination)
            && rule.protocol.is_none_or(|protocol| protocol == flow.protocol);
        let asks_ports = !rule.ports.is_empty() || !rule.source_ports.is_empty();
        let asks_flags = rule.flags.set | rule.flags.clear != 0;
        // What its protocol has not, no packet of it has.
        let possible = (!asks_ports || has_ports(flow.protocol)) && (!asks_flags || flow.protocol == tcp::PROTOCOL);
        let inside = match &flow.upper {
            Some(upper) => {
                one_of(&rule.source_ports, upper.source_port)
                    && one_of(&rule.ports, upper.destination_port)
                    && upper.tcp_flags & rule.flags.set == rule.flags.set
                    && upper.tcp_flags & rule.flags.clear == 0
            }
            None => rule.action == Action::Allow || !(asks_ports || asks_flags),
        };
        outside && possible && inside
    };
    match rules.iter().position(matches) {
        Some(rule) => Decision { action: rules[rule].action, rule },
        None => Decision { action: default, rule: rules.len() },
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules = [
        Rule { ports: vec![22..=22], protocol: Some(6), from: nets(&["10.9.1.7/32"]), ..Rule::any(Action::Allow) },
        Rule { ports: vec![0..=1023], protocol: Some(6), to: nets(&["10.9.2.0/24"]), ..Rule::any(Action::Deny) },
        Rule { from: nets(&["fd00:9:1::/64"]), ..Rule::any(Action::Deny) },
    ];
    let filter = Filter::new(&rules, Action::Allow);
    let decide = |flow: Flow| {
        let Decision { action, rule } = filter.decide(&flow);
        (action, rule)
    };
    assert_eq!(decide(flow("10.9.1.7", "10.9.2.1", 6, Some((4000, 22, 2)))), (Action::Allow, 0));
    assert_eq!(decide(flow("10.9.1.8", "10.9.2.1", 6, Some((4000, 22, 2)))), (Action::Deny, 1));
    assert_eq!(decide(flow("10.9.1.8", "10.9.2.1", 6, Some((4000, 1024, 2)))), (Action::Allow, 3));
    assert_eq!(decide(flow("10.9.1.8", "10.9.3.1", 6, Some((4000, 22, 2)))), (Action::Allow, 3));
    assert_eq!(decide(flow("10.9.1.8", "10.9.2.1", 17, Some((4000, 22, 0)))), (Action::Allow, 3), "UDP");
    assert_eq!(decide(flow("fd00:9:1::1", "fd00:9:2::1", 58, Some((0, 0, 0)))), (Action::Deny, 2));
    assert_eq!(decide(flow("fd00:9:2::1", "fd00:9:1::1", 58, Some((0, 0, 0)))), (Action::Allow, 3));
}

#[test]
fn flags_tell_who_opens_a_connection() {
    let opens = Flags { set: tcp::SYN, clear: 0x10 };
    let rules = [Rule { flags: opens, protocol: Some(6), to: nets(&["10.9.1.0/24"]), ..Rule::any(Action::Deny) }];
    let filter = Filter::new(&rules, Action::Allow);
    let action = |flags| filter.decide(&flow("10.9.2.1", "10.9.1.1", 6, Some((80, 4000, flags)))).action;
    assert_eq!(action(0x02), Action::Deny, "SYN");
    assert_eq!(action(0x12), Action::Allow, "SYN and ACK");
    assert_eq!(action(0x10), Action::Allow, "ACK");
}

#[test]
fn a_later_fragment_passes_where_some_packet_could() {
    let dns = Rule { protocol: Some(17), ports: vec![53..=53], to: nets(&["10.9.2.0/24"]), ..Rule::any(Action::Allow) };
    let only_dns = Filter::new(std::slice::from_ref(&dns), Action::Deny);
    assert_eq!(only_dns.decide(&flow("10.9.1.1", "10.9.2.1", 17, None)), Decision { action: Action::Allow, rule: 0 });
    assert_eq!(only_dns.decide(&flow("10.9.1.1", "10.9.3.1", 17, None)).action, Action::Deny);
    assert_eq!(only_dns.decide(&flow("10.9.1.1", "10.9.2.1", 6, None)).action, Action::Deny);

    let no_dns = Filter::new(&[Rule { action: Action::Deny, ..dns }], Action::Allow);
    assert_eq!(no_dns.decide(&flow("10.9.1.1", "10.9.2.1", 17, Some((4000, 53, 0)))).action, Action::Deny);
    assert_eq!(no_dns.decide(&flow("10.9.1.1", "10.9.2.1", 17, None)), Decision { action: Action::Allow, rule: 1 });

    // A rule that asks for no port stops all fragments.
    let nothing = Filter::new(&[Rule { protocol: Some(17), ..Rule::any(Action::Deny) }], Action::Allow);
    assert_eq!(nothing.decide(&flow("10.9.1.1", "10.9.2.1", 17, None)).action, Action::Deny);
}

#[test]
fn without_rules_the_default_decides() {
    for action in [Action::Allow, Action::Deny] {
        let filter = Filter::new(&[], action);
        assert_eq!(filter.decide(&flow("10.9.1.1", "10.9.2.1", 6, Some((1, 2, 3)))), Decision { action, rule: 0 });
    }
}

/// Few addresses, so that rules meet packets and each other.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0u32..4, prop_oneof![Just(0u32), Just(255), 0u32..8])
            .prop_map(|(net, host)| IpAddr::V4(Ipv4Addr::from_bits(0x0a09_0000 | net << 8 | host))),
        (0u128..4, 0u128..4).prop_map(|(net, host)| IpAddr::V6(Ipv6Addr::from_bits(0xfd00 << 112 | net << 64 | host))),
        prop_oneof![Just(u32::MAX), Just(0)].prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))),
        prop_oneof![Just(u128::MAX), Just(0)].prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))),
    ]
}

fn net() -> impl Strategy<Value = IpNet> {
    (address(), prop_oneof![Just(255u8), 0..8u8, 8..32u8]).prop_map(|(address, less)| {
        let most = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, if less == 255 { most } else { most.saturating_sub(less) }).unwrap().trunc()
    })
}

fn protocol() -> impl Strategy<Value = u8> {
    prop_oneof![Just(6u8), Just(17), Just(1), Just(132), any::<u8>()]
}

fn port() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), Just(u16::MAX), 20u16..30]
}

fn ranges() -> impl Strategy<Value = Vec<RangeInclusive<u16>>> {
    let range = (port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b));
    prop_oneof![2 => Just(Vec::new()), 1 => vec(range, 1..3)]
}

fn rule() -> impl Strategy<Value = Rule> {
    let flags = prop_oneof![2 => Just((0u8, 0u8)), 1 => (0u8..4, 0u8..4)];
    let nets = || prop_oneof![1 => Just(Vec::new()), 2 => vec(net(), 1..3)];
    (any::<bool>(), nets(), nets(), option::of(protocol()), ranges(), ranges(), flags).prop_map(
        |(allow, from, to, protocol, source_ports, ports, (set, clear))| Rule {
            action: if allow { Action::Allow } else { Action::Deny },
            from,
            to,
            protocol,
            source_ports,
            ports,
            flags: Flags { set, clear },
        },
    )
}

fn packet() -> impl Strategy<Value = Flow> {
    (address(), address(), protocol(), option::weighted(0.8, (port(), port(), 0u8..4)))
        .prop_filter("of one kind", |(from, to, ..)| from.is_ipv4() == to.is_ipv4())
        .prop_map(|(source, destination, protocol, upper)| {
            let upper = upper.map(|(source_port, destination_port, flags)| Upper {
                source_port: if has_ports(protocol) { source_port } else { 0 },
                destination_port: if has_ports(protocol) { destination_port } else { 0 },
                tcp_flags: if protocol == tcp::PROTOCOL { flags } else { 0 },
            });
            Flow { source, destination, protocol, upper }
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_definition(rules in prop_oneof![vec(rule(), 0..6), vec(rule(), 60..70), vec(rule(), 120..200)], allow: bool, flows in vec(packet(), 1..60)) {
        let default = if allow { Action::Allow } else { Action::Deny };
        let filter = Filter::new(&rules, default);
        for flow in &flows {
            prop_assert_eq!(filter.decide(flow), naive(&rules, default, flow), "{:?}", flow);
        }
    }
}

#[test]
fn four_thousand_rules_and_no_more() {
    let one = |n: usize| Rule { to: nets(&[&format!("10.{}.{}.0/24", n / 256, n % 256)]), ..Rule::any(Action::Deny) };
    let rules: Vec<Rule> = (0..RULES_MAX + 3).map(one).collect();
    let filter = Filter::new(&rules, Action::Allow);
    assert_eq!(filter.rules(), RULES_MAX);
    let last = format!("10.{}.{}.9", (RULES_MAX - 1) / 256, (RULES_MAX - 1) % 256);
    let decision = filter.decide(&flow("10.99.1.1", &last, 6, Some((1, 2, 0))));
    assert_eq!(decision, Decision { action: Action::Deny, rule: RULES_MAX - 1 });
}
