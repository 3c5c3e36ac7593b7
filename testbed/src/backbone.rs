//! Several hubs at one router, joined by trunks, each with sites and servers of its own; and what can happen to the ways between them.
//!
//! ```text
//!     sites        sites        sites         A trunk between each two hubs, over the router. Behind hub n (1, 2, 3) a tenant has
//!       \            |            /           the networks 10.9.n.0/24 and fd00:9:n::/64 of a site, and 10.9.(10+n).0/24 and
//!       hub ------ hub2 ------ hub3           fd00:9:(10+n)::/64 of a server in the VLAN of the tenant, behind the access port a0.
//!        |           |           |
//!     servers     servers     servers
//! ```

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};

use crate::client::{Plan, Site};
use crate::hub::{Hub, Settings};
use crate::lab::{Lab, Namespace};
use crate::lan::{Lan, Server};
use crate::probe::echo;
use crate::wait::until_true;
use crate::world::World;

/// Hubs, and what is behind them.
#[derive(Debug)]
pub struct Backbone {
    /// The network around each hub.
    pub worlds: Vec<World>,
    /// What is configured of each, before it starts.
    pub settings: Vec<Settings>,
    /// The sites of each.
    pub sites: Vec<Vec<Site>>,
    /// The servers of each, and whose they are.
    pub servers: Vec<Vec<(u32, Server)>>,
    /// The hubs, once they have been started.
    pub hubs: Vec<Hub>,
    lans: Vec<Lan>,
}

/// A host of a tenant: a site, or a server.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub namespace: &'a Namespace,
    /// Where what is sent to it in the clear arrives.
    pub interface: &'a str,
    /// Whose it is.
    pub tenant: u32,
    /// The hub that it is behind, from 0.
    pub hub: usize,
    /// Its addresses.
    pub addresses: [IpAddr; 2],
}

/// What a trunk is called at the one of its hubs that is not this one.
pub fn trunk_to(hub: usize) -> String {
    format!("hub{}", hub + 1)
}

/// The lines of a trunk to another hub.
pub fn trunk(world: &World, hub: usize, cipher: &str, v6: bool, more: &str) -> String {
    format!(
        "name = \"{}\"\npublic_key = \"{}\"\nendpoint = \"{}\"\ncipher = \"{cipher}\"\n{more}",
        trunk_to(hub),
        world.key.public,
        world.endpoint(v6, 0)
    )
}

/// The lines of a route.
pub fn route(prefix: &str, via: &str, priority: u32) -> String {
    format!("prefix = \"{prefix}\"\nvia = {via}\npriority = {priority}")
}

/// The networks of a number.
pub fn networks(net: u8) -> [String; 2] {
    [format!("10.9.{net}.0/24"), format!("fd00:9:{net:x}::/64")]
}

impl Backbone {
    /// So many hubs, with nothing behind them and nothing between them.
    pub fn new(lab: &mut Lab, hubs: usize) -> Result<Self> {
        Self::with_queues(lab, hubs, 1)
    }

    /// The same, with so many queues at the first hub's ports.
    pub fn with_queues(lab: &mut Lab, hubs: usize, queues: u32) -> Result<Self> {
        let mut worlds = vec![World::with_queues(lab, queues)?];
        for number in 2..=u8::try_from(hubs)? {
            let next = worlds[0].beside(lab, number)?;
            worlds.push(next);
        }
        // One worker each: together they have no more cores than one of them alone would.
        let settings = (0..hubs).map(|hub| Settings { cores: Some(vec![hub % 2]), ..Settings::default() }).collect();
        let sites = (0..hubs).map(|_| Vec::new()).collect();
        let servers = (0..hubs).map(|_| Vec::new()).collect();
        Ok(Self { worlds, settings, sites, servers, hubs: Vec::new(), lans: Vec::new() })
    }

    /// One more site behind a hub.
    pub fn site(&mut self, lab: &mut Lab, hub: usize, plan: Plan) -> Result<()> {
        let site = Site::new(lab, &mut self.worlds[hub], plan)?;
        self.sites[hub].push(site);
        Ok(())
    }

    /// A site of each of these tenants behind each hub, called by the hub's number.
    pub fn sites_everywhere(&mut self, lab: &mut Lab, tenants: &[u32]) -> Result<()> {
        for (hub, net) in (0..self.worlds.len()).zip(1..) {
            tenants.iter().try_for_each(|tenant| self.site(lab, hub, Plan::new(*tenant, &format!("s{net}"), net)))?;
        }
        Ok(())
    }

    /// A server of each of these tenants behind each hub, in the VLANs 100, 101 and so on.
    pub fn servers_everywhere(&mut self, lab: &mut Lab, tenants: &[u32]) -> Result<()> {
        for (hub, net) in (0..self.worlds.len()).zip(11..) {
            let mut lan = Lan::new(lab, &format!("lan{}", hub + 1), &self.worlds[hub].hub, "a0")?;
            self.settings[hub].access_ports.push("a0");
            for (tenant, vlan) in tenants.iter().zip(100..) {
                let addresses = [format!("10.9.{net}.1/24"), format!("fd00:9:{net:x}::1/64")];
                let gateways = [format!("10.9.{net}.254"), format!("fd00:9:{net:x}::fe")];
                let words = |of: &[String; 2]| of.clone().map(|text| text.leak() as &str);
                self.settings[hub].access.push((
                    *tenant,
                    format!(
                        "port = \"a0\"\nvlan = {vlan}\naddresses = [\"{}/24\", \"{}/64\"]",
                        gateways[0], gateways[1]
                    ),
                ));
                let server = lan.server(lab, &[(0x8100, vlan)], &words(&addresses), &words(&gateways))?;
                self.servers[hub].push((*tenant, server));
            }
            self.lans.push(lan);
        }
        Ok(())
    }

    /// The networks that a tenant has behind a hub.
    pub fn networks(&self, tenant: u32, hub: usize) -> Vec<String> {
        let of_sites = self.sites[hub].iter().filter(|site| site.plan.tenant == tenant).map(|site| site.plan.net);
        let of_server = self.servers[hub].iter().filter(|(of, _)| *of == tenant).map(|_| 11 + hub as u8);
        of_sites.chain(of_server).flat_map(networks).collect()
    }

    /// A trunk between two hubs, the same at both ends.
    pub fn join(&mut self, a: usize, b: usize, cipher: &str, v6: bool, more: &str) {
        for (here, there) in [(a, b), (b, a)] {
            let lines = trunk(&self.worlds[there], there, cipher, v6, more);
            self.settings[here].trunks.push(lines);
        }
    }

    /// What a tenant has behind hub `there` is reached from hub `here` by the trunk to hub `next`.
    pub fn lead(&mut self, tenant: u32, here: usize, there: usize, next: usize, priority: u32) {
        let via = format!("{{ trunk = \"{}\" }}", trunk_to(next));
        for prefix in self.networks(tenant, there) {
            self.settings[here].routes.push((tenant, route(&prefix, &via, priority)));
        }
    }

    /// A trunk between each two hubs, and routes by them. The ciphers and the versions of IP take turns.
    pub fn mesh(&mut self, tenants: &[u32], more: &str) {
        let count = self.worlds.len();
        for (here, there) in (0..count).flat_map(|here| (here + 1..count).map(move |there| (here, there))) {
            let other = (here + there) % 2 == 0;
            self.join(here, there, if other { "chacha20-poly1305" } else { "aes-256-gcm" }, other, more);
            for tenant in tenants {
                self.lead(*tenant, here, there, there, 100);
                self.lead(*tenant, there, here, here, 100);
            }
        }
    }

    /// Starts hubs and sites, and waits until each site has a session and all trunks are up.
    pub fn start(&mut self, lab: &Lab) -> Result<()> {
        for hub in 0..self.worlds.len() {
            self.start_hub(lab, hub)?;
        }
        self.await_trunks()
    }

    /// Starts the next hub and its sites.
    pub fn start_hub(&mut self, lab: &Lab, hub: usize) -> Result<()> {
        ensure!(self.hubs.len() == hub, "hubs start in their order");
        self.hubs.push(Hub::with_sites(lab, &self.worlds[hub], &self.settings[hub], &mut self.sites[hub])?);
        Ok(())
    }

    /// Waits until all lanes of all trunks of all hubs are up.
    pub fn await_trunks(&self) -> Result<()> {
        self.hubs.iter().try_for_each(|hub| await_lanes(hub, |_| true))
    }

    /// The site of a tenant behind a hub: the first, if there are several.
    pub fn the_site(&self, tenant: u32, hub: usize) -> Result<&Site> {
        self.sites[hub].iter().find(|site| site.plan.tenant == tenant).context("the tenant's site")
    }

    /// All hosts.
    pub fn ends(&self) -> Vec<End<'_>> {
        let mut all = Vec::new();
        for (hub, (sites, servers)) in self.sites.iter().zip(&self.servers).enumerate() {
            all.extend(sites.iter().map(|site| End {
                namespace: site.namespace(),
                interface: &site.interface,
                tenant: site.plan.tenant,
                hub,
                addresses: site.inner(),
            }));
            let net = 11 + hub as u8;
            all.extend(servers.iter().map(|(tenant, server)| End {
                namespace: &server.namespace,
                interface: "eth0",
                tenant: *tenant,
                hub,
                addresses: [[10, 9, net, 1].into(), [0xfd00, 9, net.into(), 0, 0, 0, 0, 1].into()],
            }));
        }
        all
    }

    /// The books of all hubs close.
    pub fn balance(&self) -> Result<()> {
        self.hubs.iter().try_for_each(|hub| hub.balance().map(drop))
    }

    /// What each hub says that it sent another for a tenant, that one says has come from it: packets and bytes.
    pub fn must_agree(&self) -> Result<()> {
        let statuses = self.hubs.iter().map(Hub::status).collect::<Result<Vec<_>>>()?;
        for (here, there) in (0..statuses.len()).flat_map(|a| (0..statuses.len()).map(move |b| (a, b))) {
            for tenant in statuses[here].0["tenants"].as_array().context("tenants")? {
                let id = tenant["id"].as_u64().context("a tenant's id")?;
                for what in ["packets", "bytes"] {
                    let sent = statuses[here].carried(id, &trunk_to(there), &format!("tx_{what}"));
                    let came = statuses[there].carried(id, &trunk_to(here), &format!("rx_{what}"));
                    ensure!(
                        sent == came,
                        "tenant {id}, {} to {}: {sent:?} {what} sent, {came:?} came",
                        here + 1,
                        there + 1
                    );
                }
            }
        }
        Ok(())
    }

    /// Datagrams so far for which sockets behind these hubs had no room, since clients came too late for them on a busy machine: no hub
    /// has lost them.
    pub fn without_room(&self) -> Result<u64> {
        let sites = self.sites.iter().flatten().map(Site::namespace);
        sites.map(udp_without_room).sum()
    }

    /// Cuts what two hubs send each other, all of it or by one port alone; nobody is told.
    pub fn cut(&self, a: usize, b: usize, port: Option<u16>) -> Result<()> {
        self.rules(&[(a, b), (b, a)], port, "add")
    }

    /// Cuts what one hub sends another, and not what it gets from there.
    pub fn cut_one_way(&self, from: usize, to: usize, port: Option<u16>) -> Result<()> {
        self.rules(&[(from, to)], port, "add")
    }

    /// Undoes that.
    pub fn heal_one_way(&self, from: usize, to: usize, port: Option<u16>) -> Result<()> {
        self.rules(&[(from, to)], port, "del")
    }

    /// Undoes a cut.
    pub fn heal(&self, a: usize, b: usize, port: Option<u16>) -> Result<()> {
        self.rules(&[(a, b), (b, a)], port, "del")
    }

    fn rules(&self, ways: &[(usize, usize)], port: Option<u16>, what: &str) -> Result<()> {
        let inet = &self.worlds[0].inet;
        for (from, to) in ways {
            for v6 in [false, true] {
                let [from, to] = [*from, *to].map(|hub| self.worlds[hub].endpoint(v6, 0).ip());
                let port = port.map_or_else(String::new, |port| format!(" ipproto udp dport {port}"));
                let family = if v6 { "-6" } else { "-4" };
                inet.ip(&format!("{family} rule {what} pref 100 from {from} to {to}{port} blackhole"))?;
            }
        }
        Ok(())
    }
}

fn udp_without_room(namespace: &Namespace) -> Result<u64> {
    let mut sum = 0;
    for (file, prefix) in [("snmp", "Udp: "), ("snmp6", "Udp6RcvbufErrors")] {
        let text = namespace.run("cat", &[&format!("/proc/net/{file}")])?;
        let mut lines = text.lines().filter(|line| line.starts_with(prefix));
        let line = lines.next().context("the kernel's counts")?;
        // Of IPv4 a line of names, then one of values.
        let value = match lines.next() {
            Some(values) => {
                line.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RcvbufErrors").map(|(_, value)| value)
            }
            None => line.split_whitespace().nth(1),
        };
        sum += value.context("RcvbufErrors")?.parse::<u64>()?;
    }
    Ok(sum)
}

/// Waits until these lanes of a hub are up.
pub fn await_lanes(hub: &Hub, which: impl Fn(&str) -> bool) -> Result<()> {
    let mut last = Vec::new();
    let up = until_true("lanes are up", || {
        last = hub.status()?.lanes()?;
        let mut wanted = last.iter().filter(|(name, _)| which(name)).peekable();
        Ok(wanted.peek().is_some() && wanted.all(|(_, up)| *up))
    });
    up.with_context(|| format!("{last:?}"))
}

/// A host pings another, by IPv4 and IPv6, and every request is answered.
pub fn must_reach(from: &End<'_>, to: &End<'_>) -> Result<()> {
    for address in to.addresses {
        let pings = echo(from.namespace, address, 2, &[])?;
        ensure!(pings.all(), "{} pings {address}: {}", from.namespace.name(), pings.text);
    }
    Ok(())
}
