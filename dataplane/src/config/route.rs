//! Ways to the prefixes of a tenant, beside those that its sites and access ends say of themselves.

use std::collections::HashMap;
use std::fmt;

use ipnet::IpNet;
use wire::TenantId;

use super::errors::{Origin, Problems, nearest};
use super::ledger::{Ledger, TenantLedger};
use super::reader::{Shape, Table, optional, required};
use super::{Access, Name, Site, Trunk, values};

/// The priority of a route that says nothing of it, and of the prefixes of sites and access ends.
pub const PRIORITY: u16 = 100;

pub(super) static ROUTE: Shape = Shape {
    title: "[[tenant.route]]",
    noun: Some(("route", "prefix")),
    keys: &[
        required("prefix", r#"prefix = "10.9.3.0/24""#),
        required("via", r#"via = { trunk = "osaka" }"#),
        optional("priority", "priority = 200"),
    ],
};

static VIA: Shape = Shape {
    title: "via of [[tenant.route]]",
    noun: None,
    keys: &[
        optional("trunk", r#"trunk = "osaka""#),
        optional("site", r#"site = "b""#),
        optional("access", r#"access = "eth1.100""#),
    ],
};

/// A way to a prefix of a tenant.
///
/// Of several ways to the same prefix, the live one with the smallest priority is used. Of different prefixes that hold an address,
/// the longest counts, as everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix: a network without host bits.
    pub prefix: IpNet,
    /// What leads there.
    pub via: Via,
    /// Which of several ways is preferred: the smallest, as with the kernel's metric.
    pub priority: u16,
    /// Where it is configured.
    pub origin: Origin,
}

/// What leads to a prefix: an end of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Via {
    /// The trunk of this name, which carries this tenant.
    Trunk(Name),
    /// The tenant's site of this name.
    Site(Name),
    /// The tenant's access end of this name, as [`Access::name`] has it.
    Access(String),
}

/// As the operator writes it.
impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Trunk(name) => write!(f, "{{ trunk = {name:?} }}"),
            Self::Site(name) => write!(f, "{{ site = {name:?} }}"),
            Self::Access(name) => write!(f, "{{ access = {name:?} }}"),
        }
    }
}

/// What routes of a tenant may lead to.
pub(super) struct Ends<'a> {
    /// The tenant, if its id could be read.
    pub(super) tenant: Option<TenantId>,
    pub(super) sites: &'a [Site],
    pub(super) access: &'a [Access],
    pub(super) trunks: &'a [Trunk],
}

/// Reads the routes of a tenant.
pub(super) fn read(
    table: &Table<'_>,
    ends: &Ends<'_>,
    (hub, own): (&Ledger, &TenantLedger),
    problems: &Problems,
) -> Vec<Route> {
    let mut seen: HashMap<(IpNet, Via), Origin> = HashMap::new();
    let mut routes = Vec::new();
    for one in table.tables("route", &ROUTE) {
        let prefix = one.string("prefix", values::prefix);
        let priority = one.integer("priority", values::priority).map_or(PRIORITY, |priority| priority.value);
        let via = one.table("via", &VIA).and_then(|table| read_via(&table, &one, problems));
        let (Some(prefix), Some(via)) = (prefix, via) else { continue };
        let route = Route { prefix: prefix.value, via, priority, origin: one.at().clone() };
        let known = (|| {
            route.leads_somewhere(ends, (hub, own))?;
            route.says_something(ends)
        })();
        let first = seen.insert((route.prefix, route.via.clone()), route.origin.clone());
        let twice = first.map(|at| format!("the same as at {at}; a way to a prefix has one priority"));
        if let Some(wrong) = known.err().or(twice) {
            let message = format!("{} of {} via {}: {wrong}", one.owner(), table.owner(), route.via);
            problems.add(&one.at_key("via"), message);
        }
        routes.push(route);
    }
    routes
}

fn read_via(table: &Table<'_>, route: &Table<'_>, problems: &Problems) -> Option<Via> {
    let named = ["trunk", "site", "access"].into_iter().filter(|key| table.has(key)).count();
    if named != 1 {
        let what = if named == 0 { "nothing" } else { "more than one end" };
        let message = format!(
            "via of {} names {what}; one of {{ trunk = \"osaka\" }}, {{ site = \"b\" }} and {{ access = \"eth1.100\" }} is \
             right, and several routes may have one prefix",
            route.owner()
        );
        problems.add(table.at(), message);
        return None;
    }
    let trunk = table.string("trunk", Name::new).map(|name| Via::Trunk(name.value));
    let site = || table.string("site", Name::new).map(|name| Via::Site(name.value));
    let access = || table.string("access", |name| Ok(name.to_owned())).map(|name| Via::Access(name.value));
    trunk.or_else(site).or_else(access)
}

impl Route {
    /// Its end is there. What was named, but could not be read, has a problem of its own.
    fn leads_somewhere(&self, ends: &Ends<'_>, (hub, own): (&Ledger, &TenantLedger)) -> Result<(), String> {
        let site = |name: &str| ends.sites.iter().any(|site| &*site.name == name);
        let access = |name: &str| ends.access.iter().any(|end| end.name() == name);
        match &self.via {
            Via::Trunk(name) => match ends.trunks.iter().find(|trunk| trunk.name == *name) {
                Some(trunk) => match ends.tenant.filter(|tenant| !trunk.carries(*tenant)) {
                    None => Ok(()),
                    Some(tenant) => Err(format!(
                        "this trunk does not carry tenant {tenant}; add {tenant} to its tenants at {}",
                        trunk.origin
                    )),
                },
                None if hub.has_trunk(name) => Ok(()),
                None => {
                    let known = ends.trunks.iter().map(|trunk| &*trunk.name);
                    Err(unknown("trunk", name, known, "add a [[trunk]] to the main file"))
                }
            },
            Via::Site(name) if site(name) => Ok(()),
            Via::Site(name) if access(name) => {
                Err(format!("that is no site; via = {} is right", Via::Access(name.to_string())))
            }
            Via::Access(name) if access(name) => Ok(()),
            Via::Access(name) if site(name) => Err(format!("that is a site; via = {{ site = {name:?} }} is right")),
            Via::Site(name) if own.has_end(name) => Ok(()),
            Via::Access(name) if own.has_end(name) => Ok(()),
            Via::Site(name) => {
                let known = ends.sites.iter().map(|site| &*site.name);
                Err(unknown("site of this tenant", name, known, "add a [[tenant.site]]"))
            }
            Via::Access(name) => {
                let known: Vec<String> = ends.access.iter().map(Access::name).collect();
                let known = known.iter().map(String::as_str);
                Err(unknown("access end of this tenant", name, known, "\"PORT\" or \"PORT.VLAN\" is right"))
            }
        }
    }

    /// It is not what its end says itself; and an access end knows the host that its packets go to.
    fn says_something(&self, ends: &Ends<'_>) -> Result<(), String> {
        let said = |what: &str| Err(format!("{what} says that already; another priority is right, or no such route"));
        match &self.via {
            Via::Site(name) => {
                let own = ends.sites.iter().any(|site| site.name == *name && site.prefixes.contains(&self.prefix));
                if own && self.priority == PRIORITY { said("the list of prefixes of this site") } else { Ok(()) }
            }
            Via::Access(name) => {
                let Some(end) = ends.access.iter().find(|end| end.name() == *name) else { return Ok(()) };
                if !end.prefixes().any(|prefix| prefix == self.prefix) {
                    return Err(format!(
                        "to which of its hosts is not said; add [[tenant.access.route]] with prefix = \"{}\" and via to it",
                        self.prefix
                    ));
                }
                if self.priority == PRIORITY { said("this access end itself") } else { Ok(()) }
            }
            Via::Trunk(_) => Ok(()),
        }
    }
}

fn unknown<'a>(kind: &str, name: &str, known: impl Iterator<Item = &'a str>, remedy: &str) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no such {kind}; did you mean {near:?}?"),
        None => format!("there is no such {kind}; {remedy}"),
    }
}
