use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// Two trunks, two tenants: the first with three sites, an access end and routes, the second with a site.
const HUB: &str = r#"
[hub]
name = "lab"
private_key_file = "hub.key"
listen_port = 51820
[[port]]
name = "d0"
role = "wan"
[[trunk]]
name = "osaka"
public_key = "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTA="
cipher = "aes-256-gcm"
tenants = [2]
lanes = 3
[[trunk]]
name = "kobe"
public_key = "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTE="
cipher = "aes-256-gcm"
tenants = "all"
lanes = 1
[[tenant]]
id = 1
[[tenant.site]]
name = "a"
public_key = "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTI="
prefixes = ["10.9.1.0/24", "fd00:9:1::/64"]
[[tenant.site]]
name = "b"
public_key = "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTM="
prefixes = ["10.9.2.0/24"]
[[tenant.access]]
port = "d0"
vlan = 7
addresses = ["10.9.7.254/24"]
ROUTES
[[tenant]]
id = 2
[[tenant.site]]
name = "a"
public_key = "TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTQ="
prefixes = ["10.9.1.0/24"]
"#;

fn load(routes: &[(&str, &str, &str)]) -> Desired {
    let place = tempfile::tempdir().unwrap();
    let key = place.path().join("hub.key");
    fs::write(&key, format!("{}A=\n", "B".repeat(42))).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let route = |(prefix, via, priority): &(&str, &str, &str)| {
        format!("[[tenant.route]]\nprefix = \"{prefix}\"\nvia = {{ {via} }}\n{priority}\n")
    };
    let path = place.path().join("hub.toml");
    fs::write(&path, HUB.replace("ROUTES", &routes.iter().map(route).collect::<String>())).unwrap();
    config::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn slots_are_given_to_sites_access_ends_lanes_and_what_trunks_carry() {
    let desired = load(&[]);
    let seats = Seats::first(&desired);
    let slots = |first: u32, last: u32| (first..=last).map(SiteSlot).collect::<Vec<_>>();
    assert_eq!((seats.sites_of(0), seats.sites_of(1)), (&slots(0, 1)[..], &slots(2, 2)[..]));
    assert_eq!(seats.ends(&desired).map(|(slot, ..)| slot).collect::<Vec<_>>(), slots(3, 3));
    assert_eq!((seats.lanes(0), seats.lanes(1)), (&slots(4, 6)[..], &slots(7, 7)[..]));
    assert_eq!(seats.carried(0), [None, Some(SiteSlot(8))]);
    assert_eq!(seats.carried(1), [Some(SiteSlot(9)), Some(SiteSlot(10))]);
    assert_eq!(seats.given(), Given { tenants: 2, ends: 11, rules: 0 });
    let lanes: Vec<_> =
        seats.all_lanes(&desired).map(|(slot, n, lane, trunk)| (slot.0, n, trunk.lane_name(lane))).collect();
    let named = |slot: u32, n: usize, name: &str| (slot, n, name.to_owned());
    assert_eq!(lanes, [named(4, 0, "osaka/0"), named(5, 0, "osaka/1"), named(6, 0, "osaka/2"), named(7, 1, "kobe/0")]);
    let carried = seats.all_carried(&desired);
    let carried: Vec<_> =
        carried.map(|(slot, of, n, tenant, trunk)| (slot.0, of.0, n, tenant.id.as_u32(), trunk.end_name())).collect();
    let named = |slot: u32, of: u32, n: usize, name: &str| (slot, of, n, of + 1, name.to_owned());
    assert_eq!(carried, [named(8, 0, 1, "trunk:kobe"), named(9, 1, 0, "trunk:osaka"), named(10, 1, 1, "trunk:kobe")]);
}

#[test]
fn of_several_ends_the_smallest_priority_leads_and_of_two_alike_the_first() {
    let (kobe, a, b, end) = ("trunk = \"kobe\"", "site = \"a\"", "site = \"b\"", "access = \"d0.7\"");
    let desired = load(&[
        ("10.9.1.0/24", kobe, ""),               // as good as what the site says, and behind it
        ("10.9.1.0/24", b, "priority = 7"),      // better than both
        ("10.9.2.0/24", b, "priority = 65535"),  // worse than what the site says, which it replaces
        ("10.9.2.0/24", kobe, "priority = 200"), // better than that
        ("10.9.2.128/25", a, ""),                // alone
        ("10.9.7.0/24", kobe, "priority = 0"),
        ("10.9.7.0/24", end, "priority = 1"),
    ]);
    let seats = Seats::first(&desired);
    let (tables, paths) = seats.tables(&desired);
    let (a, b, end, kobe) = (SiteSlot(0), SiteSlot(1), SiteSlot(3), SiteSlot(8));
    let listed: Vec<_> =
        paths.iter().map(|path| (path.tenant.0, path.prefix.to_string(), path.candidates.clone())).collect();
    assert_eq!(
        listed,
        [
            (0, "10.9.1.0/24".into(), vec![(7, b), (100, a), (100, kobe)]),
            (0, "10.9.2.0/24".into(), vec![(200, kobe), (65535, b)]),
            (0, "10.9.7.0/24".into(), vec![(0, kobe), (1, end)]),
        ]
    );
    let to = |tenant, address: &str| tables.route(TenantSlot(tenant), address.parse().unwrap());
    let site = |slot| Some(Target::Site(slot));
    assert_eq!([to(0, "10.9.1.1"), to(0, "10.9.2.1"), to(0, "10.9.7.1")], [site(b), site(kobe), site(kobe)]);
    assert_eq!([to(0, "10.9.2.200"), to(0, "fd00:9:1::1"), to(1, "10.9.1.1")], [site(a), site(a), site(SiteSlot(2))]);
    assert!(paths.iter().all(|path| tables.active(path.id) == Some(path.candidates[0].1)));
    assert!(tables.source_allowed(TenantSlot(0), a, "10.9.1.1".parse().unwrap()));
    assert!(!tables.source_allowed(TenantSlot(0), b, "10.9.2.200".parse().unwrap()));
}

#[test]
fn new_tables_go_on_with_the_ends_that_were_used() {
    let (kobe, b) = ("trunk = \"kobe\"", "site = \"b\"");
    let old = load(&[("10.9.1.0/24", kobe, ""), ("10.9.2.0/24", kobe, ""), ("10.9.7.0/24", kobe, "")]);
    let new = load(&[
        ("10.9.0.0/16", kobe, ""),
        ("10.9.1.0/24", kobe, ""),
        ("10.9.1.0/24", b, ""),
        ("10.9.2.0/24", kobe, ""),
    ]);
    let seats = Seats::first(&old);
    let (before, paths_before) = seats.tables(&old);
    let (after, paths) = seats.tables(&new);
    let (a, b, kobe) = (SiteSlot(0), SiteSlot(1), SiteSlot(8));
    let of = |paths: &[PathSpec], prefix: &str| paths.iter().find(|path| path.prefix.to_string() == prefix).unwrap().id;
    before.switch(of(&paths_before, "10.9.1.0/24"), kobe);
    before.switch(of(&paths_before, "10.9.7.0/24"), kobe);
    take_over((&before, &paths_before), (&after, &paths));
    let to = |address: &str| after.route(TenantSlot(0), address.parse().unwrap());
    assert_eq!([to("10.9.1.1"), to("10.9.2.1")], [Some(Target::Site(kobe)), Some(Target::Site(b))]);
    // An end that a path has no more is not used any more.
    let (last, paths_last) = seats.tables(&load(&[("10.9.1.0/24", "site = \"b\"", "")]));
    take_over((&after, &paths), (&last, &paths_last));
    assert_eq!(last.route(TenantSlot(0), "10.9.1.1".parse().unwrap()), Some(Target::Site(a)));
}
