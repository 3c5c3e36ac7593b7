//! What must be unique, or apart, over the whole configuration: noted as it is read, so that each problem names both
//! places.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::net::IpAddr;

use ipnet::IpNet;
use wire::TenantId;

use super::errors::{Origin, Problems, nearest};
use super::keys::PublicKey;
use super::reader::{Located, Table};
use super::{Name, PortName};

/// What has been seen so far on the whole hub.
#[derive(Default)]
pub(super) struct Ledger {
    /// The hub's own key, and where it is configured.
    pub(super) hub_key: Option<(PublicKey, Origin)>,
    ports: Seen<String>,
    tenants: Seen<TenantId>,
    service_codes: Seen<String>,
    /// Each service code with its tenant's id, as far as that could be read.
    codes_of_ids: Vec<(Located<Name>, Option<TenantId>)>,
    public_keys: Seen<PublicKey>,
    trunks: Seen<String>,
    /// Tenants that trunks say they carry, and the trunk as messages call it.
    carried: Vec<(Located<TenantId>, String)>,
}

/// Things that may be there once, and where the first was.
struct Seen<K>(HashMap<K, First>);

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

struct First {
    at: Origin,
    owner: String,
}

impl<K: Hash + Eq> Seen<K> {
    /// Notes `key`; who had it before, if anyone.
    fn note(&mut self, key: K, at: &Origin, owner: impl FnOnce() -> String) -> Option<&First> {
        match self.0.entry(key) {
            Entry::Occupied(first) => Some(first.into_mut()),
            Entry::Vacant(free) => {
                free.insert(First { at: at.clone(), owner: owner() });
                None
            }
        }
    }
}

impl Ledger {
    pub(super) fn port(&mut self, name: &Located<PortName>, problems: &Problems) {
        if let Some(first) = self.ports.note(name.value.to_string(), &name.at, String::new) {
            problems
                .add(&name.at, format!("port {:?} is already configured at {}; once is right", name.value, first.at));
        }
    }

    pub(super) fn tenant_id(&mut self, id: &Located<TenantId>, problems: &Problems) {
        if let Some(first) = self.tenants.note(id.value, &id.at, String::new) {
            problems.add(
                &id.at,
                format!(
                    "tenant id {} is already used at {}; each tenant needs its own, and stands whole in one place",
                    id.value, first.at
                ),
            );
        }
    }

    pub(super) fn service_code(
        &mut self,
        code: &Located<Name>,
        id: Option<TenantId>,
        owner: &str,
        problems: &Problems,
    ) {
        if let Some(first) = self.service_codes.note(code.value.to_string(), &code.at, || owner.to_owned()) {
            problems.add(
                &code.at,
                format!(
                    "service_code {:?} of {owner} is already that of {} at {}; each tenant needs its own",
                    code.value, first.owner, first.at
                ),
            );
        }
        self.codes_of_ids.push((Located { value: code.value.clone(), at: code.at.clone() }, id));
    }

    pub(super) fn trunk(&mut self, name: &Located<Name>, problems: &Problems) {
        if let Some(first) = self.trunks.note(name.value.to_string(), &name.at, String::new) {
            let message =
                format!("trunk {:?} is already configured at {}; names of trunks differ", name.value, first.at);
            problems.add(&name.at, message);
        }
    }

    /// Whether a trunk of this name is configured, be it ever so wrong.
    pub(super) fn has_trunk(&self, name: &str) -> bool {
        self.trunks.0.contains_key(name)
    }

    pub(super) fn carried(&mut self, tenant: Located<TenantId>, trunk: &str) {
        self.carried.push((tenant, trunk.to_owned()));
    }

    /// The key of a site.
    pub(super) fn public_key(&mut self, key: &Located<PublicKey>, owner: &str, problems: &Problems) {
        let rules = ["the public key of the site's adapter is right", "each site needs a key pair of its own"];
        self.key(key, owner, rules, problems);
    }

    /// The key of another hub.
    pub(super) fn trunk_key(&mut self, key: &Located<PublicKey>, owner: &str, problems: &Problems) {
        let rules =
            ["the public key of the other hub is right", "each hub needs a key pair of its own, and is one trunk"];
        self.key(key, owner, rules, problems);
    }

    fn key(&mut self, key: &Located<PublicKey>, owner: &str, rules: [&str; 2], problems: &Problems) {
        let found = || format!("public_key {:?} of {owner} is", key.value.to_string());
        let [others, own] = rules;
        if let Some((hub_key, hub_at)) = &self.hub_key
            && *hub_key == key.value
        {
            problems.add(&key.at, format!("{} the hub's own ({hub_at}); {others}", found()));
        } else if let Some(first) = self.public_keys.note(key.value, &key.at, || owner.to_owned()) {
            let message = format!("{} already that of {} at {}; {own}", found(), first.owner, first.at);
            problems.add(&key.at, message);
        }
    }

    /// What can be said only when all tenants are known: those that trunks carry are some of them.
    pub(super) fn carried_tenants_are_known(&self, problems: &Problems) {
        for (id, trunk) in self.carried.iter().filter(|(id, _)| !self.tenants.0.contains_key(&id.value)) {
            let known: Vec<String> = self.tenants.0.keys().map(TenantId::to_string).collect();
            let near = nearest(&id.value.to_string(), known.iter().map(String::as_str));
            let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
            let message = format!(
                "tenant {} of {trunk}: no [[tenant]] has this id{hint}; to carry all that there are, tenants = \"all\" is right",
                id.value
            );
            problems.add(&id.at, message);
        }
    }

    /// What can be said only when all tenants are known: on the command line a tenant is named by either.
    pub(super) fn no_code_reads_as_an_id(&self, problems: &Problems) {
        for (code, own) in &self.codes_of_ids {
            let read = code.value.parse().ok().and_then(|id| TenantId::new(id).ok());
            let id = read.filter(|id| Some(*id) != *own && id.to_string() == *code.value);
            if let Some(other) = id.and_then(|id| self.tenants.0.get(&id)) {
                problems.add(
                    &code.at,
                    format!(
                        "service_code {:?} is the id of another tenant ({}); one that can't be confused is right",
                        code.value, other.at
                    ),
                );
            }
        }
    }
}

/// What one tenant has given to its sites and to the hub.
#[derive(Default)]
pub(super) struct TenantLedger {
    sites: Seen<String>,
    claims: Vec<Claim>,
}

/// A network that belongs to a site, or an address that belongs to the hub.
struct Claim {
    net: IpNet,
    at: Origin,
    /// The site's turn in the tenant; `None` is the hub.
    site: Option<usize>,
    /// The site as messages call it.
    owner: String,
}

impl TenantLedger {
    pub(super) fn site_name(&mut self, name: &Located<Name>, tenant: &str, problems: &Problems) {
        if let Some(first) = self.sites.note(name.value.to_string(), &name.at, String::new) {
            problems.add(
                &name.at,
                format!(
                    "site {:?} of {tenant} is already configured at {}; names within a tenant differ",
                    name.value, first.at
                ),
            );
        }
    }

    /// Whether a site or an access end has this name, be it ever so wrong.
    pub(super) fn has_end(&self, name: &str) -> bool {
        self.sites.0.contains_key(name)
    }

    /// Sites and access ends are told apart by their names alone.
    pub(super) fn end_name(&mut self, name: &str, at: &Origin, tenant: &str, problems: &Problems) {
        if let Some(first) = self.sites.note(name.to_owned(), at, String::new) {
            let message = format!(
                "access end {name:?} of {tenant}: another end or site has this name at {}; each needs its own",
                first.at
            );
            problems.add(at, message);
        }
    }

    pub(super) fn prefixes(&mut self, prefixes: &[Located<IpNet>], site: usize, table: &Table<'_>) {
        self.claims.extend(prefixes.iter().map(|prefix| Claim {
            net: prefix.value,
            at: prefix.at.clone(),
            site: Some(site),
            owner: table.owner().to_owned(),
        }));
    }

    /// To be called after all prefixes, so that a conflict is reported at the hub's address.
    pub(super) fn hub_addresses(&mut self, addresses: &[Located<IpAddr>], table: &Table<'_>) {
        self.claims.extend(addresses.iter().map(|address| Claim {
            net: address.value.into(),
            at: address.at.clone(),
            site: None,
            owner: table.owner().to_owned(),
        }));
    }

    /// Names each claim that overlaps an earlier one.
    pub(super) fn no_claims_overlap(&self, problems: &Problems) {
        for (earlier, later) in self.overlaps() {
            problems.add(&later.at, overlap_message(earlier, later));
        }
    }

    /// Each claim that overlaps earlier ones, after the first of those.
    ///
    /// Two networks are either apart or one is inside the other. In the order of their first addresses, wider ones
    /// first, a network follows all that it is inside of; those are kept on a stack while they may hold more.
    fn overlaps(&self) -> Vec<(&Claim, &Claim)> {
        /// A network that later ones in the order may be inside of. Claims are numbered as they were read.
        struct Open {
            claim: usize,
            /// The earliest of the claims around it.
            around: Option<usize>,
            /// The earliest of the claims inside it.
            inside: Option<usize>,
        }
        let earliest = |claims: [Option<usize>; 2]| claims.into_iter().flatten().min();

        let mut order: Vec<usize> = (0..self.claims.len()).collect();
        order.sort_by_key(|claim| {
            let net = self.claims[*claim].net;
            (net.addr(), net.prefix_len(), *claim)
        });
        let mut stack: Vec<Open> = Vec::new();
        let mut found = Vec::new();
        for next in order.into_iter().map(Some).chain([None]) {
            let encloses =
                |open: &Open| next.is_some_and(|next| self.claims[open.claim].net.contains(&self.claims[next].net));
            while let Some(done) = stack.pop_if(|open| !encloses(open)) {
                if let Some(first) = earliest([done.around, done.inside]).filter(|first| *first < done.claim) {
                    found.push((&self.claims[first], &self.claims[done.claim]));
                }
                if let Some(outer) = stack.last_mut() {
                    outer.inside = earliest([outer.inside, earliest([done.inside, Some(done.claim)])]);
                }
            }
            if let Some(claim) = next {
                let around = stack.last().and_then(|outer| earliest([outer.around, Some(outer.claim)]));
                stack.push(Open { claim, around, inside: None });
            }
        }
        found
    }
}

fn overlap_message(earlier: &Claim, later: &Claim) -> String {
    let Claim { net, owner, .. } = later;
    let place = &earlier.at;
    match (earlier.site, later.site) {
        (None, _) => format!("hub address {} of {owner} is already listed at {place}; once is right", net.addr()),
        (Some(_), None) => format!(
            "hub address {} of {owner} is inside prefix {} of {} at {place}; one outside all sites' prefixes is right",
            net.addr(),
            earlier.net,
            earlier.owner
        ),
        (Some(first), Some(second)) if first == second => format!(
            "prefix {net} of {owner} overlaps {} of the same site at {place}; the wider one alone is right",
            earlier.net
        ),
        (Some(_), Some(_)) => format!(
            "prefix {net} of {owner} overlaps {} of {} at {place}; inside a tenant each address leads to one site",
            earlier.net, earlier.owner
        ),
    }
}
