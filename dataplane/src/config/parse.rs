//! From the files to [`Desired`], top to bottom as the configuration is written.
//!
//! 1. Read the main file; if it is no TOML, stop.
//! 2. The hub, its workers and ports.
//! 3. The tenants of the main file, then those of each included one.
//! 4. What only the whole can show.
//!
//! A problem stops nothing else: what depends on a part that failed is left out, the rest is checked.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crypto::aead::Wish;
use zeroize::Zeroizing;

use super::errors::{Errors, Origin, Problems};
use super::keys::{self, PresharedKey, PrivateKey, PublicKey};
use super::ledger::{Ledger, TenantLedger};
use super::reader::{Located, Shape, Source, Table, optional, required};
use super::{
    Desired, Digest, Hub, HubName, Idle, Label, Name, Port, PortName, Site, Spread, Stats, Tenant, Trunk, Workers,
    access, include, policy, route, trunk, values,
};

static ROOT: Shape = Shape {
    title: "the main file",
    noun: None,
    keys: &[
        optional("include", r#"include = ["tenants.d/*.toml"]"#),
        required("hub", "[hub] with name, private_key_file and listen_port"),
        optional("workers", "[workers] with cores = [1]"),
        optional("stats", "[stats] with memory_mib = 512"),
        required("port", r#"[[port]] with name = "eth0" and role = "wan""#),
        optional("trunk", r#"[[trunk]] with name = "osaka""#),
        optional("tenant", "[[tenant]] with id = 1001"),
    ],
};

static INCLUDED: Shape = Shape {
    title: "an included file, which holds whole tenants",
    noun: None,
    keys: &[optional("tenant", "[[tenant]] with id = 1001")],
};

static HUB: Shape = Shape {
    title: "[hub]",
    noun: None,
    keys: &[
        required("name", r#"name = "tokyo-1""#),
        required("private_key_file", r#"private_key_file = "hub.key""#),
        required("listen_port", "listen_port = 51820"),
        optional("crypto", r#"crypto = { chacha20_poly1305 = "ring" }"#),
        optional("probe_mtu", "probe_mtu = true"),
    ],
};

static CRYPTO: Shape = Shape {
    title: "crypto of [hub]",
    noun: None,
    keys: &[
        optional("chacha20_poly1305", r#"chacha20_poly1305 = "ring""#),
        optional("aes_256_gcm", r#"aes_256_gcm = "aws-lc""#),
    ],
};

static WORKERS: Shape = Shape {
    title: "[workers]",
    noun: None,
    keys: &[
        optional("cores", "cores = [1, 2]"),
        optional("spread", r#"spread = "sockets""#),
        optional("idle", r#"idle = "adaptive""#),
        optional("busy_poll_us", "busy_poll_us = 20"),
    ],
};

static STATS: Shape = Shape {
    title: "[stats]",
    noun: None,
    keys: &[optional("memory_mib", "memory_mib = 512"), optional("group", r#"group = "ekiden""#)],
};

/// MiB of statistics, unless the configuration says otherwise.
const STATS_MEMORY_MIB: u32 = 512;

static PORT: Shape = Shape {
    title: "[[port]]",
    noun: Some(("port", "name")),
    keys: &[
        required("name", r#"name = "eth0""#),
        required("role", r#"role = "wan""#),
        optional("mode", r#"mode = "native""#),
        optional("copy", "copy = true"),
    ],
};

static TENANT: Shape = Shape {
    title: "[[tenant]]",
    noun: Some(("tenant", "id")),
    keys: &[
        required("id", "id = 1001"),
        optional("service_code", r#"service_code = "WAN00001001""#),
        optional("label", r#"label = "Acme KK""#),
        optional("hub_addresses", r#"hub_addresses = ["10.9.0.1"]"#),
        optional("rate", r#"rate = "100 Mbit/s""#),
        optional("burst", r#"burst = "64 kB""#),
        optional("dscp", r#"dscp = "copy""#),
        optional("filter", r#"[[tenant.filter]] with action = "deny""#),
        optional("filter_default", r#"filter_default = "deny""#),
        optional("site", r#"[[tenant.site]] with name = "osaka""#),
        optional("access", r#"[[tenant.access]] with port = "eth1" and addresses = ["10.9.2.254/24"]"#),
        optional("route", r#"[[tenant.route]] with prefix = "10.9.3.0/24" and via = { trunk = "osaka" }"#),
    ],
};

static SITE: Shape = Shape {
    title: "[[tenant.site]]",
    noun: Some(("site", "name")),
    keys: &[
        required("name", r#"name = "osaka""#),
        optional("public_key", "public_key = \"…\", as wg pubkey prints it"), // its absence has a message of its own
        optional("prefixes", r#"prefixes = ["10.9.1.0/24"]"#),
        optional("address", r#"address = ["10.9.1.1/24"]"#),
        optional("preshared_key_file", r#"preshared_key_file = "osaka.psk""#),
        optional("endpoint", r#"endpoint = "192.0.2.7:51820""#),
        optional("keepalive_s", "keepalive_s = 25"),
        optional("udp_checksum", "udp_checksum = true"),
        optional("rate", r#"rate = "100 Mbit/s""#),
        optional("burst", r#"burst = "64 kB""#),
        optional("mtu", "mtu = 1380"),
        optional("probe_mtu", "probe_mtu = true"),
    ],
};

/// Shapes in which a misplaced key is looked for: those of a filter's rule are too general to be a hint.
pub(super) static SHAPES: [&Shape; 13] = [
    &ROOT,
    &HUB,
    &CRYPTO,
    &WORKERS,
    &STATS,
    &PORT,
    &TENANT,
    &SITE,
    &access::ACCESS,
    &access::NEIGHBOUR,
    &access::ROUTE,
    &trunk::TRUNK,
    &route::ROUTE,
];

/// What a site without a `public_key` is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MissingKeys {
    /// A mistake.
    Refused,
    /// One whose key is about to be made.
    Invented,
}

pub(super) fn load(path: &Path, missing_keys: MissingKeys) -> Result<Desired, Errors> {
    let problems = Problems::default();
    let directory = path.parent().unwrap_or(Path::new(""));
    let mut walk = Walk {
        problems: &problems,
        directory,
        missing_keys,
        ledger: Ledger::default(),
        trunks: Vec::new(),
        tenants: Vec::new(),
        digest: 0,
        unread: false,
    };
    let fixed = walk.main_file(path);
    let (trunks, tenants, digest) = (walk.trunks, walk.tenants, Digest(walk.digest));
    problems.done()?;
    // A part is missing only where a problem was noted, and then this isn't reached.
    let (hub, workers, stats, ports) = fixed.expect("each part that could not be read left a problem");
    Ok(Desired { hub, workers, stats, ports, trunks, tenants, digest })
}

/// The walk through the files, and what it has gathered.
struct Walk<'a> {
    problems: &'a Problems,
    /// The main file's, from which patterns start.
    directory: &'a Path,
    missing_keys: MissingKeys,
    ledger: Ledger,
    trunks: Vec<Trunk>,
    tenants: Vec<Tenant>,
    digest: u64,
    /// An included file could not be read, so that its tenants are not known.
    unread: bool,
}

impl<'a> Walk<'a> {
    fn main_file(&mut self, path: &Path) -> Option<(Hub, Workers, Stats, Vec<Port>)> {
        let problems = self.problems;
        let source = read(path, 0, problems)?;
        self.digest = source.digest(self.digest);
        let parsed = source.parse(problems)?;
        let root = Table::root(&ROOT, &source, problems, &parsed);

        let hub = root.table("hub", &HUB).and_then(|table| self.hub(&table));
        let workers = self.workers(&root);
        let stats = Self::stats(&root);
        let ports = self.ports(&root);
        for table in root.tables("trunk", &trunk::TRUNK) {
            let preshared_key = self.key_file(&table, "preshared_key_file", "wg genpsk");
            let preshared_key = preshared_key.map(|key| PresharedKey::new(*key.value));
            self.trunks.extend(trunk::read(&table, preshared_key, &mut self.ledger, problems));
        }
        self.tenants(&root);
        for (turn, file) in (1..).zip(self.included(path, &root)) {
            self.included_file(&file, turn);
        }
        self.ledger.no_code_reads_as_an_id(problems);
        if !self.unread {
            self.ledger.carried_tenants_are_known(problems);
        }
        access::ends_fit_ports(&ports, &self.tenants, problems);
        if let Some(hub) = &hub {
            trunk::lanes_have_ports(hub, &self.trunks, problems);
        }
        Some((hub?, workers, stats, ports))
    }

    fn hub(&mut self, table: &Table<'_>) -> Option<Hub> {
        let name = table.string("name", HubName::new);
        let private_key = self.key_file(table, "private_key_file", "wg genkey");
        let listen_port = table.integer("listen_port", values::port_number);
        let probe_mtu = table.boolean("probe_mtu").unwrap_or(false);
        let ciphers = table.table("crypto", &CRYPTO);
        let library = |cipher| Some(ciphers.as_ref()?.string(cipher, values::library)?.value);
        let crypto = Wish { chacha20_poly1305: library("chacha20_poly1305"), aes_256_gcm: library("aes_256_gcm") };

        let private_key = private_key.map(|key| Located { value: PrivateKey::new(*key.value), at: key.at })?;
        let public_key = private_key.value.public();
        self.ledger.hub_key = Some((public_key, private_key.at));
        let (name, listen_port) = (name?.value, listen_port?.value);
        Some(Hub { name, private_key: private_key.value, public_key, listen_port, crypto, probe_mtu })
    }

    fn workers(&self, root: &Table<'_>) -> Workers {
        let Some(table) = root.table("workers", &WORKERS) else {
            let origin = root.at().clone();
            return Workers { cores: None, origin, spread: Spread::Auto, idle: Idle::Adaptive, busy_poll_us: 0 };
        };
        let cores = table.integers("cores", "core", values::core);
        let mut seen = HashSet::new();
        for repeated in cores.iter().filter(|core| !seen.insert(core.value)) {
            let message = format!("core {} of [workers]: listed twice; a core carries one worker", repeated.value);
            self.problems.add(&repeated.at, message);
        }
        let origin = table.at_key("cores");
        if table.is_empty_list("cores") {
            self.problems.add(&origin, "cores of [workers] is empty; leave it out for one worker a queue".to_owned());
        }
        let cores = table.has("cores").then(|| cores.into_iter().map(|core| core.value).collect());
        let spread = table.string("spread", values::spread).map(|spread| spread.value).unwrap_or_default();
        let idle = table.string("idle", values::idle).map(|idle| idle.value).unwrap_or_default();
        let busy_poll_us = table.integer("busy_poll_us", values::busy_poll_us).map_or(0, |time| time.value);
        Workers { cores, origin, spread, idle, busy_poll_us }
    }

    fn stats(root: &Table<'_>) -> Stats {
        let table = root.table("stats", &STATS);
        let memory = table.as_ref().and_then(|table| table.integer("memory_mib", values::stats_memory));
        let group = table.as_ref().and_then(|table| table.string("group", values::group));
        let memory_mib = memory.map_or(STATS_MEMORY_MIB, |memory| memory.value);
        let origin = table.map_or_else(|| root.at().clone(), |table| table.at_key("group"));
        Stats { memory_mib, group: group.map(|group| group.value), origin }
    }

    fn ports(&mut self, root: &Table<'_>) -> Vec<Port> {
        if root.is_empty_list("port") {
            self.problems.add(&root.at_key("port"), "the list of ports is empty; a hub needs at least one".to_owned());
        }
        root.tables("port", &PORT).iter().filter_map(|table| self.port(table)).collect()
    }

    fn port(&mut self, table: &Table<'_>) -> Option<Port> {
        let name = table.string("name", PortName::new);
        if let Some(name) = &name {
            self.ledger.port(name, self.problems);
        }
        let role = table.string("role", values::role);
        let mode = table.string("mode", values::mode).map(|mode| mode.value);
        let copy = table.boolean("copy");
        Some(Port { name: name?.value, role: role?.value, mode, copy, origin: table.at().clone() })
    }

    /// The files that are included, each once, in the order of the patterns.
    fn included(&self, main: &Path, root: &Table<'_>) -> Vec<PathBuf> {
        let patterns = root.strings("include", "include", |pattern| include::matches(self.directory, pattern));
        let mut seen: HashSet<PathBuf> = main.canonicalize().into_iter().collect();
        let files = patterns.into_iter().flat_map(|pattern| pattern.value);
        // By its canonical path a file is known under all its names; one that has none fails in being read.
        files.filter(|file| file.canonicalize().map_or(true, |real| seen.insert(real))).collect()
    }

    fn included_file(&mut self, path: &Path, turn: u32) {
        let problems = self.problems;
        let Some(source) = read(path, turn, problems) else {
            self.unread = true;
            return;
        };
        self.digest = source.digest(self.digest);
        match source.parse(problems) {
            Some(parsed) => self.tenants(&Table::root(&INCLUDED, &source, problems, &parsed)),
            None => self.unread = true,
        }
    }

    fn tenants(&mut self, root: &Table<'_>) {
        for table in root.tables("tenant", &TENANT) {
            let tenant = self.tenant(&table);
            self.tenants.extend(tenant);
        }
    }

    fn tenant(&mut self, table: &Table<'_>) -> Option<Tenant> {
        let mut ledger = TenantLedger::default();
        let id = table.integer("id", values::tenant_id);
        if let Some(id) = &id {
            self.ledger.tenant_id(id, self.problems);
        }
        let service_code = table.string("service_code", Name::new);
        if let Some(code) = &service_code {
            self.ledger.service_code(code, id.as_ref().map(|id| id.value), table.owner(), self.problems);
        }
        let label = table.string("label", Label::new);
        let hub_addresses = table.strings("hub_addresses", "hub address", values::hub_address);
        let mut sites = Vec::new();
        for (turn, site) in table.tables("site", &SITE).iter().enumerate() {
            let found = self.site(site, turn, table.owner(), &mut ledger);
            if let Some(found) = &found {
                self.can_be_probed(found, &hub_addresses, site);
            }
            sites.extend(found);
        }
        let mut access = Vec::new();
        for (turn, end) in (sites.len() + 1..).zip(table.tables("access", &access::ACCESS)) {
            access.extend(access::read(&end, turn, table.owner(), &mut ledger, self.problems));
        }
        ledger.hub_addresses(&hub_addresses, table);
        ledger.no_claims_overlap(self.problems);
        let tenant = id.as_ref().map(|id| id.value);
        let ends = route::Ends { tenant, sites: &sites, access: &access, trunks: &self.trunks };
        let routes = route::read(table, &ends, (&self.ledger, &ledger), self.problems);
        Some(Tenant {
            id: id?.value,
            service_code: service_code.map(|code| code.value),
            label: label.map(|label| label.value).unwrap_or_default(),
            hub_addresses: hub_addresses.into_iter().map(|address| address.value).collect(),
            sites,
            access,
            routes,
            rates: policy::rates(table, self.problems),
            dscp: policy::dscp(table),
            filter: policy::filter(table, self.problems),
            origin: table.at().clone(),
        })
    }

    fn site(&mut self, table: &Table<'_>, turn: usize, tenant: &str, ledger: &mut TenantLedger) -> Option<Site> {
        let name = table.string("name", values::site_name);
        if let Some(name) = &name {
            ledger.site_name(name, tenant, self.problems);
        }
        let public_key = self.public_key(table);
        if let Some(key) = &public_key {
            self.ledger.public_key(key, &format!("{} of {tenant}", table.owner()), self.problems);
        }
        let before = self.problems.count();
        let prefixes = table.strings("prefixes", "prefix", values::prefix);
        ledger.prefixes(&prefixes, turn, table);
        let address = table.strings("address", "address", values::interface_address);
        if self.problems.count() == before {
            self.addresses_inside(&address, &prefixes, table); // a prefix that failed may be the one they are in
        }
        let preshared_key = self.key_file(table, "preshared_key_file", "wg genpsk");
        let endpoint = table.string("endpoint", values::endpoint);
        let keepalive_s = table.integer("keepalive_s", values::keepalive);
        let udp_checksum = table.boolean("udp_checksum");
        let rates = policy::rates(table, self.problems);
        let mtu = table.integer("mtu", values::mtu);
        let probe_mtu = table.boolean("probe_mtu");
        Some(Site {
            name: name?.value,
            public_key: public_key?.value,
            prefixes: prefixes.into_iter().map(|prefix| prefix.value).collect(),
            address: address.into_iter().map(|address| address.value).collect(),
            preshared_key: preshared_key.map(|key| PresharedKey::new(*key.value)),
            endpoint: endpoint.map(|endpoint| endpoint.value),
            keepalive_s: keepalive_s.map(|seconds| seconds.value),
            udp_checksum: udp_checksum.unwrap_or(false),
            rates,
            mtu: mtu.map(|mtu| mtu.value),
            probe_mtu,
            origin: table.at().clone(),
        })
    }

    fn public_key(&self, table: &Table<'_>) -> Option<Located<PublicKey>> {
        if table.has("public_key") {
            return table.string("public_key", keys::public_key);
        }
        let at = table.at().clone();
        match self.missing_keys {
            MissingKeys::Invented => match PrivateKey::random() {
                Ok(key) => Some(Located { value: key.public(), at }),
                Err(error) => self.note(&at, format!("the kernel gives no random numbers: {error}")),
            },
            MissingKeys::Refused => self.note(
                &at,
                format!(
                    "{} has no public_key; add it as wg pubkey prints it, or let `ekiden site-config --new-key` \
                     make one",
                    table.owner()
                ),
            ),
        }
    }

    /// The hub pings the site's own address, from an address of its own.
    fn can_be_probed(&self, site: &Site, hub_addresses: &[Located<IpAddr>], table: &Table<'_>) {
        let hub_addresses: Vec<_> = hub_addresses.iter().map(|address| address.value).collect();
        if site.probe_mtu == Some(true) && super::ping_ends(&hub_addresses, &site.address).is_none() {
            let message = format!(
                "probe_mtu of {} needs an address of the site and one of the hub, of one IP version; add address = \
                 [\"10.9.1.1/24\"] to the site and hub_addresses = [\"10.9.0.1\"] to its tenant, as they are",
                table.owner()
            );
            self.problems.add(&table.at_key("probe_mtu"), message);
        }
    }

    fn addresses_inside(
        &self,
        addresses: &[Located<ipnet::IpNet>],
        prefixes: &[Located<ipnet::IpNet>],
        table: &Table<'_>,
    ) {
        let mut seen = HashSet::new();
        for Located { value: address, at } in addresses {
            let wrong = if !prefixes.iter().any(|prefix| prefix.value.contains(&address.addr())) {
                format!(
                    "outside the site's prefixes, so the hub would drop what comes from it; add {} to them",
                    address.trunc()
                )
            } else if !seen.insert(address.addr()) {
                "listed twice; once is right".to_owned()
            } else {
                continue;
            };
            self.problems.add(at, format!("address {address} of {}: {wrong}", table.owner()));
        }
    }

    /// The key in the file that a table's key names.
    fn key_file(&self, table: &Table<'_>, key: &'static str, make: &str) -> Option<Located<Zeroizing<[u8; 32]>>> {
        let named = table.string(key, |name| Ok(name.to_owned()))?;
        let owner = table.owner();
        if keys::looks_like_a_key(&named.value) {
            return self.note(
                &named.at,
                format!("{key} of {owner} is a key itself; put it into a file of mode 600, and the file's name here"),
            );
        }
        match keys::read_key_file(&table.directory().join(&named.value), make) {
            Ok(bytes) => Some(Located { value: bytes, at: named.at }),
            Err(wrong) => self.note(&named.at, format!("{key} {:?} of {owner}: {wrong}", named.value)),
        }
    }

    fn note<T>(&self, at: &Origin, message: String) -> Option<T> {
        self.problems.add(at, message);
        None
    }
}

fn read(path: &Path, turn: u32, problems: &Problems) -> Option<Source> {
    let name = path.display().to_string();
    let whole = Origin::new(name.as_str().into(), turn, 0);
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            let why = match error.kind() {
                io::ErrorKind::NotFound => "there is no such file".to_owned(),
                io::ErrorKind::IsADirectory => "a directory; a file is right".to_owned(),
                io::ErrorKind::PermissionDenied => "this process may not read it".to_owned(),
                _ => error.to_string(),
            };
            problems.add(&whole, why);
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(Source::new(path, turn, text)),
        Err(error) => {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.iter().filter(|byte| **byte == b'\n').count() as u32 + 1;
            problems.add(
                &Origin::new(name.as_str().into(), turn, line),
                "a byte that is not UTF-8, as TOML must be".to_owned(),
            );
            None
        }
    }
}
