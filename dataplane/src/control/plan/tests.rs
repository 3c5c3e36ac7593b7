//! A hub that has gone from configuration to configuration does what one does that has started with the last of them.

use super::*;
use crate::config::load;
use ahash::AHashMap;
use classifier::Target;
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

const HEAD: &str = "[hub]\nname = \"lab\"\nprivate_key_file = \"hub.key\"\nlisten_port = 51820\n[[port]]\nname = \"d0\"\nrole = \"wan\"\n";
const TENANTS: u32 = 3;
const SITES: u8 = 4;
const NETS: u8 = 6;
/// One that carries every tenant, and the beginning of one that carries some.
const TRUNKS: &str = "[[trunk]]\nname = \"osaka\"\npublic_key = \"TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTA=\"\ncipher = \"aes-256-gcm\"\n\
    tenants = \"all\"\nlanes = 2\n[[trunk]]\nname = \"kobe\"\npublic_key = \"TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTE=\"\n\
    cipher = \"chacha20-poly1305\"\nlanes = 1\n";

/// A directory with a key file, to write configurations into.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let key = place.0.path().join("hub.key");
        fs::write(&key, format!("{}=\n", "B".repeat(43 - 1) + "A")).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        place
    }

    fn load(&self, text: &str) -> Desired {
        let path = self.0.path().join("hub.toml");
        fs::write(&path, text).unwrap();
        load(&path).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
    }
}

/// What may differ between two configurations.
#[derive(Clone, Debug)]
struct Wanted {
    tenants: Vec<Option<WantedTenant>>,
    backwards: bool,
    /// A bit for each tenant that the second trunk carries.
    carried: u8,
}

#[derive(Clone, Debug)]
struct WantedTenant {
    rate: u8,
    dscp: u8,
    filter: u8,
    own: bool,
    /// For each net the site that has it.
    nets: Vec<u8>,
    sites: Vec<Option<(u8, u8, u8)>>,
    /// A net or the upper half of it, a site or a trunk behind the last site, a priority.
    routes: Vec<(u8, bool, u8, u8)>,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let site = proptest::option::weighted(0.7, (0..2u8, 0..3u8, 0..4u8));
    let tenant = (
        0..3u8,
        0..2u8,
        0..4u8,
        any::<bool>(),
        proptest::collection::vec(0..SITES + 1, usize::from(NETS)),
        proptest::collection::vec(site, usize::from(SITES)),
        proptest::collection::vec((0..NETS, any::<bool>(), 0..SITES + 2, 0..3u8), 0..5),
    );
    let tenant = tenant.prop_map(|(rate, dscp, filter, own, nets, sites, routes)| WantedTenant {
        rate,
        dscp,
        filter,
        own,
        nets,
        sites,
        routes,
    });
    let tenants = proptest::collection::vec(proptest::option::weighted(0.8, tenant), TENANTS as usize);
    (tenants, any::<bool>(), 0..8u8).prop_map(|(tenants, backwards, carried)| Wanted { tenants, backwards, carried })
}

impl Wanted {
    fn text(&self) -> String {
        let mut text = format!("{HEAD}{TRUNKS}");
        let carried = |n: usize| self.carried & 1 << n != 0;
        let some = (0..self.tenants.len()).filter(|n| carried(*n) && self.tenants[*n].is_some());
        let some: Vec<usize> = some.map(|n| n + 1).collect();
        let all = some.is_empty();
        let _ = if all { writeln!(text, "tenants = \"all\"") } else { writeln!(text, "tenants = {some:?}") };
        let mut tenants: Vec<_> = self.tenants.iter().enumerate().filter_map(|(n, t)| Some((n, t.as_ref()?))).collect();
        if self.backwards {
            tenants.reverse();
        }
        for (n, tenant) in tenants {
            let _ = writeln!(text, "[[tenant]]\nid = {}\nlabel = \"{}\"", n + 1, tenant.rate);
            if tenant.rate > 0 {
                let _ = writeln!(text, "rate = \"{} Mbit/s\"", tenant.rate);
            }
            if tenant.dscp > 0 {
                let _ = writeln!(text, "dscp = \"copy\"");
            }
            if tenant.own {
                let _ = writeln!(text, "hub_addresses = [\"10.99.0.1\"]");
            }
            for rule in 0..tenant.filter {
                let _ = writeln!(text, "[[tenant.filter]]\naction = \"deny\"\nto = [\"10.9.{rule}.0/25\"]");
            }
            for (s, site) in tenant.sites.iter().enumerate() {
                let Some((key, rate, other)) = site else { continue };
                let key = format!("{:A<43}=", format!("{n}{s}{key}"));
                let nets = tenant.nets.iter().enumerate().filter(|(_, of)| usize::from(**of) == s);
                let nets: Vec<_> = nets.map(|(net, _)| format!("10.9.{net}.0/24")).collect();
                let _ = writeln!(text, "[[tenant.site]]\nname = \"s{s}\"\npublic_key = \"{key}\"\nprefixes = {nets:?}");
                if *rate > 0 {
                    let _ = writeln!(text, "rate = \"{rate} Mbit/s\"");
                }
                match other {
                    0 => {}
                    1 => text.push_str("mtu = 1400\n"),
                    2 => text.push_str("endpoint = \"192.0.2.7:51820\"\n"),
                    _ => text.push_str("keepalive_s = 25\n"),
                }
            }
            let mut seen = HashSet::new();
            for (net, half, end, priority) in &tenant.routes {
                let via = match end.checked_sub(SITES) {
                    None if tenant.sites[usize::from(*end)].is_none() => continue,
                    None => format!("site = \"s{end}\""),
                    Some(0) => "trunk = \"osaka\"".to_owned(),
                    Some(_) if !all && !carried(n) => continue,
                    Some(_) => "trunk = \"kobe\"".to_owned(),
                };
                let prefix = if *half { format!("10.9.{net}.128/25") } else { format!("10.9.{net}.0/24") };
                if seen.insert((prefix.clone(), *end)) {
                    let priority = 50 + 100 * priority;
                    let _ = writeln!(
                        text,
                        "[[tenant.route]]\nprefix = \"{prefix}\"\nvia = {{ {via} }}\npriority = {priority}"
                    );
                }
            }
        }
        text
    }
}

/// All that is told to control and the workers, by slot.
struct Hub {
    desired: Arc<Desired>,
    seats: Arc<Seats>,
    contracts: Arc<Contracts>,
    tables: Arc<Tables>,
    paths: Vec<PathSpec>,
    tenants: AHashMap<TenantSlot, Vec<IpAddr>>,
    ends: AHashMap<SiteSlot, Seat>,
    sites: AHashMap<SiteSlot, config::Site>,
    vacant: Vacant,
}

impl Hub {
    fn start(desired: Desired) -> Self {
        let seats = Seats::first(&desired);
        let contracts = Contracts::default().next(&desired);
        let (tables, paths) = seats.tables(&desired);
        Self {
            tables: Arc::new(tables),
            paths,
            tenants: seats.tenants(&desired).map(|(slot, tenant)| (slot, own_addresses(tenant))).collect(),
            ends: contracts.seats(&seats, &desired).collect(),
            sites: seats.sites(&desired).map(|(slot, .., site)| (slot, site.clone())).collect(),
            vacant: Vacant::default(),
            desired: Arc::new(desired),
            seats: Arc::new(seats),
            contracts: Arc::new(contracts),
        }
    }

    fn plan(&mut self, new: Desired) -> Result<Plan, String> {
        plan((&self.desired, &self.seats, &self.contracts), new, 64, &mut self.vacant)
    }

    fn apply(&mut self, plan: &Plan) {
        for slot in &plan.vacant.sites {
            self.sites.remove(slot).expect("it was there");
        }
        for slot in plan.vacant.ends() {
            self.ends.remove(&slot).expect("it was there");
        }
        plan.vacant.tenants.iter().for_each(|slot| _ = self.tenants.remove(slot).expect("it was there"));
        self.tenants.extend(plan.tenants.iter().cloned());
        self.ends.extend(plan.ends.iter().cloned());
        for added in &plan.added {
            assert!(self.sites.insert(added.slot, added.site.clone()).is_none(), "two in slot {:?}", added.slot);
        }
        for changed in &plan.changed {
            assert!(self.sites.insert(changed.slot, changed.site.clone()).is_some(), "nobody in {:?}", changed.slot);
        }
        if let Some((tables, paths)) = &plan.tables {
            (self.tables, self.paths) = (tables.clone(), paths.clone());
        }
        self.desired = plan.desired.clone();
        self.seats = plan.seats.clone();
        self.contracts = plan.contracts.clone();
        self.vacant.extend(&plan.vacant);
    }

    /// Everything about everybody, by name and without slots.
    fn told(&self) -> Vec<String> {
        let mut all = Vec::new();
        let of_sites = self.seats.sites(&self.desired);
        let of_sites = of_sites.map(|(slot, _, of, site)| (slot, format!("{}/{}", of.id, &*site.name)));
        let of_trunks = self.seats.all_carried(&self.desired);
        let of_trunks = of_trunks.map(|(slot, _, _, of, trunk)| (slot, format!("{}/{}", of.id, trunk.end_name())));
        let name: AHashMap<SiteSlot, String> = of_sites.chain(of_trunks).collect();
        for path in &self.paths {
            let ends: Vec<_> = path.candidates.iter().map(|(priority, end)| (priority, &name[end])).collect();
            all.push(format!("{}: path to {} by {ends:?}", self.id(path.tenant), path.prefix));
        }
        for (slot, tenant) in self.seats.tenants(&self.desired) {
            all.push(format!("{}: {:?}, own {:?}", tenant.id, tenant.label, self.tenants[&slot]));
            for net in 0..NETS {
                for last in [1, 129] {
                    let address = IpAddr::from([10, 9, net, last]);
                    let to = self.tables.route(slot, address).map(|Target::Site(site)| &name[&site]);
                    let packet = udp_to([10, 9, net, last]);
                    let rule = self.tables.filter(slot, &packet).map(|verdict| match verdict {
                        classifier::Verdict::Rule(row, action) => (row - self.first_rule(slot), action),
                        classifier::Verdict::Unreadable => panic!("it can be read"),
                    });
                    let mut from: Vec<_> =
                        name.iter().filter(|(end, _)| self.tables.source_allowed(slot, **end, address)).collect();
                    from.sort_by_key(|(_, name)| *name);
                    let from: Vec<_> = from.into_iter().map(|(_, name)| name).collect();
                    all.push(format!("{}: {address} to {to:?} by {rule:?}, from {from:?}", tenant.id));
                }
            }
        }
        for (slot, tenant, of, site) in self.seats.sites(&self.desired) {
            let seat = &self.ends[&slot];
            assert_eq!(seat.tenant, tenant);
            all.push(format!("{}/{:?}: {:?} {:?}", of.id, site.name, seat.limits, seat.dscp));
            // All that control goes by.
            assert_eq!(self.sites[&slot], *site);
        }
        for (slot, tenant, _, of, trunk) in self.seats.all_carried(&self.desired) {
            let seat = &self.ends[&slot];
            assert_eq!(seat.tenant, tenant);
            all.push(format!("{}/{:?}: {:?} {:?}", of.id, trunk.end_name(), seat.limits, seat.dscp));
        }
        assert_eq!(self.ends.len(), name.len());
        all.sort();
        all
    }

    fn id(&self, tenant: TenantSlot) -> TenantId {
        self.seats.tenants(&self.desired).find(|(slot, _)| *slot == tenant).expect("it is there").1.id
    }

    fn first_rule(&self, tenant: TenantSlot) -> u32 {
        self.seats.filters(&self.desired).find(|(slot, ..)| *slot == tenant).expect("it has a filter").1
    }

    /// Nobody shares a slot, and a vacant one is nobody's.
    fn slots_are_apart(&self) {
        let sites = self.seats.sites(&self.desired).map(|(slot, ..)| slot);
        let lanes = self.seats.all_lanes(&self.desired).map(|(slot, ..)| slot);
        let carried = self.seats.all_carried(&self.desired).map(|(slot, ..)| slot);
        let ends: Vec<u32> = sites.chain(lanes).chain(carried).map(|slot| slot.0).collect();
        let tenants: Vec<u32> = self.seats.tenants(&self.desired).map(|(slot, _)| slot.0).collect();
        let rules =
            self.seats.filters(&self.desired).flat_map(|(_, first, filter)| first..=first + filter.rules.len() as u32);
        let given = self.seats.given();
        let vacant = &self.vacant;
        for (taken, vacant, given) in [
            (ends, vacant.ends().map(|slot| slot.0).collect(), given.ends),
            (tenants, vacant.tenants.iter().map(|slot| slot.0).collect(), given.tenants),
            (rules.collect(), vacant.rules.iter().cloned().flatten().collect::<Vec<_>>(), given.rules),
        ] {
            let mut all: Vec<u32> = taken.into_iter().chain(vacant).collect();
            all.sort_unstable();
            assert_eq!(all, (0..given).collect::<Vec<_>>(), "each slot that was given is somebody's, or vacant, once");
        }
    }
}

/// An IPv4 packet of UDP.
fn udp_to(to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 28];
    (packet[0], packet[3], packet[8], packet[9]) = (0x45, 28, 64, 17);
    packet[12..16].copy_from_slice(&[10, 9, 0, 1]);
    packet[16..20].copy_from_slice(&to);
    packet[25] = 8;
    packet
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_hub_that_was_reloaded_is_one_that_started_so(all in proptest::collection::vec(wanted(), 2..5)) {
        let place = Place::new();
        let mut hub = Hub::start(place.load(&all[0].text()));
        for next in &all[1..] {
            let before: AHashMap<_, _> = hub.seats.sites(&hub.desired).map(|(slot, _, of, site)| ((of.id, site.name.clone()), slot)).collect();
            let carried_before: AHashMap<_, _> = hub.seats.all_carried(&hub.desired).map(|(slot, _, n, of, _)| ((of.id, n), slot)).collect();
            let lanes = |seats: &Seats| [seats.lanes(0).to_vec(), seats.lanes(1).to_vec()];
            let lanes_before = lanes(&hub.seats);
            let plan = hub.plan(place.load(&next.text())).unwrap();
            hub.apply(&plan);
            hub.slots_are_apart();
            prop_assert_eq!(lanes(&hub.seats), lanes_before);
            let fresh = Hub::start(place.load(&next.text()));
            prop_assert_eq!(hub.told(), fresh.told());
            for (slot, _, of, site) in hub.seats.sites(&hub.desired) {
                let was = before.get(&(of.id, site.name.clone()));
                prop_assert!(was.is_none_or(|was| *was == slot), "{:?} has another slot", site.name);
            }
            for (slot, _, n, of, trunk) in hub.seats.all_carried(&hub.desired) {
                let was = carried_before.get(&(of.id, n));
                prop_assert!(was.is_none_or(|was| *was == slot), "{} of {} has another slot", trunk.end_name(), of.id);
            }
        }
    }

    #[test]
    fn whoever_has_not_changed_is_not_in_the_plan(first in wanted(), next in wanted()) {
        let place = Place::new();
        let (old, new) = (place.load(&first.text()), place.load(&next.text()));
        let mut hub = Hub::start(place.load(&first.text()));
        let plan = hub.plan(place.load(&next.text())).unwrap();
        let named = |slot: SiteSlot| {
            plan.ends.iter().any(|(of, _)| *of == slot) || plan.changed.iter().any(|changed| changed.slot == slot)
        };
        for (slot, _, of, site) in plan.seats.sites(&new) {
            let tenant = old.tenants.iter().find(|tenant| tenant.id == of.id);
            let same_tenant = tenant.filter(|tenant| (tenant.rates, tenant.dscp) == (of.rates, of.dscp));
            let was = same_tenant.and_then(|tenant| tenant.sites.iter().find(|was| was.name == site.name));
            if was == Some(site) {
                prop_assert!(!named(slot), "{:?}", site);
            }
            let key = tenant.and_then(|tenant| tenant.sites.iter().find(|was| was.name == site.name)).map(|was| was.public_key);
            for changed in plan.changed.iter().filter(|changed| changed.slot == slot) {
                prop_assert_eq!(changed.keys, key != Some(site.public_key));
            }
        }
        if first.text() == next.text() {
            prop_assert!(plan.tables.is_none() && plan.orders().count() == 0);
        }
    }
}

#[test]
fn the_same_again_is_nothing_to_do() {
    let place = Place::new();
    let text = format!(
        "{HEAD}[[tenant]]\nid = 1\nrate = \"1 Mbit/s\"\n[[tenant.site]]\nname = \"a\"\npublic_key = \"{:A<43}=\"\nprefixes = [\"10.9.1.0/24\"]\n",
        "1"
    );
    let mut hub = Hub::start(place.load(&text));
    let plan = hub.plan(place.load(&format!("# another text\n{text}"))).unwrap();
    assert_eq!((plan.orders().count(), plan.added.len(), plan.changed.len()), (0, 0, 0));
    assert!(plan.vacant.is_empty());
    assert_eq!(plan.summary.to_string(), "nothing changed");
    let ends = |plan: &Plan| plan.ends.len();
    // A filter is in the tables, though no route is another.
    let filter = "id = 1\nfilter_default = \"deny\"\n[[tenant.filter]]\naction = \"allow\"\n";
    let plan = hub
        .plan(place.load(&text.replace("id = 1\nrate = \"1 Mbit/s\"\n", &format!("rate = \"1 Mbit/s\"\n{filter}"))))
        .unwrap();
    assert_eq!((plan.tables.is_some(), plan.summary.to_string().as_str()), (true, "1 filter changed"));
    // A tenant's rate is all its sites'.
    let plan = hub.plan(place.load(&text.replace("1 Mbit/s", "2 Mbit/s"))).unwrap();
    assert_eq!((ends(&plan), plan.summary.to_string().as_str()), (1, "1 tenant changed"));
}

#[test]
fn routes_are_counted_and_trunks_carry_whom_they_are_told_to() {
    let place = Place::new();
    let route = |prefix: &str, trunk: &str, priority: u16| {
        format!("[[tenant.route]]\nprefix = \"{prefix}\"\nvia = {{ trunk = \"{trunk}\" }}\npriority = {priority}\n")
    };
    let of = |tenants: &str, routes: &[String]| {
        place.load(&format!(
            "{HEAD}{TRUNKS}tenants = {tenants}\n[[tenant]]\nid = 1\n{}[[tenant]]\nid = 2\n",
            routes.concat()
        ))
    };
    let (first, second) = (route("10.9.1.0/24", "osaka", 100), route("10.9.1.0/24", "kobe", 100));
    let mut hub = Hub::start(of("[1]", &[first.clone(), second.clone()]));
    let lanes = hub.seats.given().ends;
    let said = |hub: &mut Hub, new: Desired| {
        let plan = hub.plan(new).unwrap();
        hub.apply(&plan);
        hub.slots_are_apart();
        plan
    };
    // Of two that are as good, the first: their order alone is another.
    let [osaka, kobe] = [0, 1].map(|n| hub.seats.carried(0)[n].unwrap());
    assert_eq!(hub.paths[0].candidates, [(100, osaka), (100, kobe)]);
    let plan = said(&mut hub, of("[1]", &[second.clone(), first.clone()]));
    assert_eq!(plan.summary.to_string(), "1 tenant changed");
    assert_eq!(hub.paths[0].candidates, [(100, kobe), (100, osaka)]);
    assert_eq!(hub.tables.active(hub.paths[0].id), Some(kobe));
    // Another priority is another route.
    let preferred = route("10.9.1.0/24", "osaka", 7);
    let plan = said(&mut hub, of("[1]", &[second, preferred.clone()]));
    assert_eq!(plan.summary.to_string(), "1 route added, 1 route removed");
    assert_eq!(hub.paths[0].candidates, [(7, osaka), (100, kobe)]);
    // One that is alone is no path; what the trunk carries of another tenant has a place of its own, and the slot that is given up
    // is given again.
    let plan = said(&mut hub, of("[2]", std::slice::from_ref(&preferred)));
    assert_eq!((plan.summary.to_string().as_str(), hub.paths.len()), ("1 route removed, 1 trunk changed", 0));
    assert_eq!((plan.vacant.carried.as_slice(), plan.vacant.sites.len()), (&[kobe][..], 0));
    assert_eq!((hub.seats.carried(0)[1], hub.seats.carried(1)[1]), (None, Some(SiteSlot(lanes))));
    let plan = said(&mut hub, of("[2, 1]", &[preferred]));
    assert_eq!(plan.summary.to_string(), "1 trunk changed");
    assert_eq!((plan.orders().count(), hub.seats.carried(0)[1]), (1, Some(kobe)));
}

#[test]
fn what_takes_a_restart_is_refused_by_name() {
    let place = Place::new();
    let own = "[[tenant]]\nid = 1\n";
    let access = "[[tenant.access]]\nport = \"d0\"\nvlan = 100\naddresses = [\"10.9.2.254/24\"]\n";
    let text = format!("{HEAD}{own}");
    let cases = [
        (text.replace("\"lab\"", "\"other\""), "name of [hub] is another one"),
        (text.replace("51820", "51821"), "listen_port of [hub] is another one"),
        (text.replace("51820", "51820\ncrypto = { chacha20_poly1305 = \"ring\" }"), "crypto of [hub] is another one"),
        (format!("{text}[workers]\ncores = [1]\n"), "cores of [workers] is another one"),
        (format!("{text}[workers]\nidle = \"spin\"\n"), "idle of [workers] is another one"),
        (format!("{text}[stats]\nmemory_mib = 64\n"), "memory_mib of [stats] is another one"),
        (text.replace("\"wan\"", "\"wan\"\ncopy = true"), "hub.toml:5: port \"d0\" is configured otherwise"),
        (text.replace("\"d0\"", "\"d1\""), "hub.toml:5: port \"d1\" is new"),
        (format!("{text}{access}"), "hub.toml:10: the access ends of tenant 1 are others"),
        (format!("{text}{TRUNKS}tenants = [1]"), "hub.toml:10: trunk \"osaka\" is new"),
    ];
    for (new, expected) in cases {
        let mut hub = Hub::start(place.load(&text));
        let said = hub.plan(place.load(&new)).unwrap_err();
        assert!(said.contains(expected) && said.contains("restart it"), "{said:?}, not {expected:?}");
    }
    let (osaka, kobe) = TRUNKS.split_at(TRUNKS.rfind("[[trunk]]").unwrap());
    let (osaka, kobe) = (osaka.to_owned(), format!("{kobe}tenants = [1]\n"));
    let both = format!("{text}{osaka}{kobe}");
    let cases = [
        (both.replace("lanes = 2", "lanes = 3"), "hub.toml:10: trunk \"osaka\" is configured otherwise"),
        (both.replace("lanes = 2", "transit = true\nlanes = 2"), "trunk \"osaka\" is configured otherwise"),
        (both.replace("TE=", "TI="), "trunk \"kobe\" is configured otherwise"),
        (both.replace("\"kobe\"", "\"kyoto\""), "trunk \"kyoto\" is new"),
        (both.replace("\"kobe\"", "\"kyoto\""), "trunk \"kobe\" is gone"),
        (format!("{text}{kobe}{osaka}"), "trunk \"kobe\" stands in another place among the trunks"),
    ];
    for (new, expected) in cases {
        let mut hub = Hub::start(place.load(&both));
        let said = hub.plan(place.load(&new)).unwrap_err();
        assert!(said.contains(expected) && said.contains("restart it"), "{said:?}, not {expected:?}");
    }
    let mut hub = Hub::start(place.load(&format!("{text}{access}")));
    let said = hub.plan(place.load(HEAD)).unwrap_err();
    assert!(said.contains("tenant 1 is gone and had access ends"), "{said}");
}

#[test]
fn more_than_there_is_room_for_is_refused_and_gone_ones_make_room() {
    let place = Place::new();
    let of = |sites: std::ops::Range<u32>| {
        let mut text = format!("{HEAD}[[tenant]]\nid = 1\n");
        for site in sites {
            let _ = writeln!(
                text,
                "[[tenant.site]]\nname = \"{site}\"\npublic_key = \"{:A<43}=\"\nprefixes = []",
                format!("{site:04}")
            );
        }
        place.load(&text)
    };
    let mut hub = Hub::start(of(0..60));
    assert!(hub.plan(of(0..65)).unwrap_err().contains("room for 64 sites"), "65");
    assert!(hub.vacant.is_empty());
    let plan = hub.plan(of(10..64)).unwrap();
    hub.apply(&plan);
    assert_eq!(hub.vacant.sites.len(), 10);
    let plan = hub.plan(of(10..74)).unwrap();
    hub.apply(&plan);
    hub.slots_are_apart();
    assert!(hub.vacant.is_empty());
    assert!(hub.plan(of(10..75)).is_err());
}
