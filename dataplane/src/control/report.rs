//! The report that status shows: what control knows, and what workers and XDP counted, as every reader of the segment finds it.

use super::Control;
use crate::clock;
use crate::config::{self, Carries, Role};
use crate::logging::rfc3339;
use crate::status;
use crate::underlay::Reach;
use ahash::AHashMap;
use crypto::Time;
use crypto::aead::{Backend, Cipher, Library};
use stats::{Snapshot, Traffic};
use std::path::PathBuf;
use std::time::SystemTime;
use wire::{DropReason, SiteSlot};

/// What does not change while the hub runs.
pub struct Facts {
    /// When the hub started.
    pub started: SystemTime,
    /// The same, by the clock of sessions.
    pub started_at: Time,
    /// Where its configuration is.
    pub config: PathBuf,
    /// The AEAD backend.
    pub backend: &'static dyn Backend,
    /// The core of each worker.
    pub cores: Vec<usize>,
    /// Chunks that each worker owns.
    pub chunks: Vec<u32>,
    /// Ends that there is room for, until the hub starts anew.
    pub room: usize,
    /// Where workers that share a queue leave chunks for each other.
    pub depot: Option<std::sync::Arc<crate::depot::Depot>>,
    /// What was wrong at the start, and did not stop it.
    pub warnings: Vec<String>,
}

impl Control {
    /// The whole report.
    pub(super) fn status(&self) -> status::Status {
        self.copy_xdp();
        let counted = self.segment.snapshot();
        // XDP once more: what workers took from rings meanwhile must not look as if it came from nowhere.
        let xdp = self.copy_xdp();
        let mut ports: Vec<_> = self.ports.iter().map(|port| self.port(port, &counted)).collect();
        for (port, counters) in ports.iter_mut().zip(&self.ports) {
            if let Some(counters) = xdp.iter().find(|c| c.port == counters.index.0) {
                port.xdp_seen = Some(counters.seen.packets);
                port.xdp_passed = Some(counters.passed.packets);
                port.xdp_redirected = Some(counters.redirected.packets);
                port.xdp_dropped = Some(counters.dropped().map(|(_, count)| count.packets).sum());
            }
        }
        let drop = |drop: &stats::Drop| {
            let reason = DropReason::from_number(drop.number).filter(|_| drop.packets > 0)?;
            Some(status::Drop::new(reason, drop.packets, Some(drop.bytes)))
        };
        status::Status {
            hub: self.hub(&counted),
            ports,
            workers: counted.workers.iter().map(|worker| self.worker(worker)).collect(),
            books: self.books(&counted),
            trunks: (0..self.desired.trunks.len()).map(|place| self.trunk(place, &counted)).collect(),
            tenants: (0..self.desired.tenants.len()).map(|place| self.tenant(place, &counted)).collect(),
            drops: counted.drops.iter().filter_map(drop).collect(),
            warnings: self.facts.warnings.clone(),
        }
    }

    fn hub(&self, counted: &Snapshot) -> status::Hub {
        let staged: u64 = counted.workers.iter().map(|worker| worker.staged).sum();
        status::Hub {
            name: self.desired.hub.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: rfc3339(self.facts.started),
            uptime_s: clock::now().since(self.facts.started_at).as_secs(),
            public_key: self.desired.hub.public_key.to_string(),
            listen_port: self.desired.hub.listen_port.get(),
            config_path: self.facts.config.display().to_string(),
            configuration: self.configuration(),
            ciphers: ciphers(self.facts.backend),
            kernel: Some(rustix::system::uname().release().to_string_lossy().into_owned()),
            sessions: Some(self.sessions.len() as u32),
            session_capacity: Some(self.slots.capacity() as u32),
            staged: Some(staged as u32),
        }
    }

    /// The workers' books. See [`status::Books`] for the order.
    fn books(&self, counted: &Snapshot) -> status::Books {
        let workers = |field: fn(&stats::Worker) -> u64| -> u64 { counted.workers.iter().map(field).sum() };
        let ports = |field: fn(&stats::Port) -> u64| -> u64 { counted.ports.iter().map(field).sum() };
        let (to_control, keepalives) = (workers(|w| w.to_control), workers(|w| w.keepalives));
        let completed = ports(|port| port.completed_frames);
        let census = self.ports.first().map(|port| port.census()).unwrap_or_default();
        let (long, free_long) = self.ports.first().map(|port| port.long_frames()).unwrap_or_default();
        status::Books {
            received: ports(|port| port.rx_frames),
            generated: workers(|w| w.generated),
            reassembled: workers(|w| w.reassembled),
            completed,
            to_control,
            keepalives,
            // The outputs are these three, and what workers dropped.
            dropped: counted.books.outputs.saturating_sub(completed + to_control + keepalives),
            staged: workers(|w| w.staged),
            sending: census.transmit.into(),
            receiving: census.receive.into(),
            free: workers(|w| w.chunks_free)
                + self.facts.depot.as_ref().map_or(0, |depot| depot.len() as u64)
                + u64::from(free_long),
            chunks: self.facts.chunks.iter().chain([&long]).map(|n| u64::from(*n)).sum(),
        }
    }

    fn port(&self, port: &crate::start::Port, counted: &Snapshot) -> status::Port {
        let found = counted.ports.iter().find(|found| found.slot == port.index.index()).cloned().unwrap_or_default();
        status::Port {
            name: port.name.clone(),
            role: match self.desired.ports[port.index.index()].role {
                Role::Wan => "wan".into(),
                Role::Access => "access".into(),
            },
            ifindex: port.ifindex,
            driver: Some(port.driver.clone()),
            xdp: Some(match port.mode {
                bpf::Mode::Native => status::XdpMode::Native,
                bpf::Mode::Generic => status::XdpMode::Generic,
            }),
            copy: Some(if port.bound.zero_copy { status::CopyMode::ZeroCopy } else { status::CopyMode::Copy }),
            queues: Some(port.queues),
            sockets: Some(port.sockets),
            headroom: Some(crate::xsk::HEADROOM as u32),
            chunk_size: Some(port.chunk_size()),
            multi_buffer: Some(port.multi_buffer),
            need_wakeup: Some(port.bound.need_wakeup),
            mtu: Some(port.mtu),
            mac: port.mac.map(mac_text),
            up: port.up,
            addresses: port.addresses.clone(),
            xdp_seen: None,
            xdp_passed: None,
            xdp_redirected: None,
            xdp_dropped: None,
            ring_lost: Some(found.ring_lost),
            rx_frames: found.rx_frames,
            rx_bytes: found.rx_bytes,
            tx_frames: found.tx_frames,
            tx_bytes: found.tx_bytes,
            warnings: port.warnings.clone(),
        }
    }

    fn worker(&self, found: &stats::Worker) -> status::Worker {
        let w = found.slot;
        let queues = self.ports.iter().flat_map(|port| {
            let its = move |q: &u32| port.sockets > 1 || *q as usize % self.workers.len() == w;
            (0..port.queues).filter(its).map(|q| format!("{}:{q}", port.name))
        });
        status::Worker {
            id: w as u32,
            core: self.facts.cores.get(w).map(|core| *core as u32),
            queues: queues.collect(),
            chunks_total: self.facts.chunks[w],
            chunks_free: Some(found.chunks_free as u32),
            batches: found.batches,
            frames: found.frames,
            busy_share: Some(self.busy[w].1),
            generated: found.generated,
            reassembled: found.reassembled,
            to_control: found.to_control,
            keepalives: found.keepalives,
            staged: found.staged,
        }
    }

    fn tenant(&self, place: usize, counted: &Snapshot) -> status::Tenant {
        let (tenant, slot) = (&self.desired.tenants[place], self.seats.tenant(place));
        let found = counted.tenants.iter().find(|found| found.slot == slot.index());
        let drops = found.into_iter().flat_map(|found| &found.drops);
        let drops = drops
            .filter_map(|(number, packets, _)| Some((DropReason::from_number(*number)?.name().to_owned(), *packets)));
        let sites = self.seats.sites_of(place).iter().map(|slot| self.site(*slot, counted));
        status::Tenant {
            id: tenant.id.as_u32(),
            service_code: tenant.service_code.as_ref().map(|code| code.to_string()),
            label: Some(tenant.label.to_string()).filter(|label| !label.is_empty()),
            sites: sites.chain(self.carried(place, counted)).collect(),
            access: self.ends.iter().filter(|end| end.tenant == slot).map(|end| self.access(end, counted)).collect(),
            paths: self.paths(place),
            drops: drops.collect(),
            filter: found.into_iter().flat_map(|found| counted.rules_of(found)).map(rule).collect(),
        }
    }

    /// What trunks carry of a tenant.
    fn carried(&self, place: usize, counted: &Snapshot) -> impl Iterator<Item = status::Site> {
        let ends = self.seats.carried(place).iter().zip(&self.desired.trunks).enumerate();
        ends.filter_map(|(n, (slot, trunk))| {
            let slot = (*slot)?;
            let found = counted.sites.binary_search_by_key(&slot.index(), |found| found.slot);
            let found = found.ok().map(|at| &counted.sites[at]);
            Some(status::Site::carried(&trunk.name, self.trunks.is_up(n), found))
        })
    }

    fn trunk(&self, place: usize, counted: &Snapshot) -> status::Trunk {
        let configured = &self.desired.trunks[place];
        let trunk = status::Trunk::counted(&configured.name, counted, clock::now().0);
        let endpoint = |slot: &SiteSlot| self.sites[slot.index()].endpoint.map(|endpoint| endpoint.remote);
        let endpoints = self.seats.lanes(place).iter().map(endpoint);
        let lanes = trunk.lanes.into_iter().zip(endpoints);
        status::Trunk {
            public_key: configured.public_key.to_string(),
            up: self.trunks.is_up(place),
            cipher: config::cipher_name(configured.cipher).into(),
            tenants: match &configured.carries {
                Carries::All => status::Carries::All,
                Carries::Some(tenants) => status::Carries::Some(tenants.iter().map(|id| id.as_u32()).collect()),
            },
            transit: configured.transit,
            endpoint: configured.endpoint.or_else(|| endpoint(self.seats.lanes(place).first()?)),
            lanes: lanes.map(|(lane, endpoint)| status::Lane { endpoint, ..lane }).collect(),
            announced: self.trunks.announced(place),
            ..trunk
        }
    }

    /// The prefixes of a tenant that several ends lead to.
    fn paths(&self, place: usize) -> Vec<status::Paths> {
        let (tenant, slot) = (&self.desired.tenants[place], self.seats.tenant(place));
        let sites =
            self.seats.sites_of(place).iter().copied().zip(tenant.sites.iter().map(|site| site.name.to_string()));
        let access = self.ends.iter().filter(|end| end.tenant == slot).map(|end| (end.slot, end.name.clone()));
        let trunks = self.seats.carried(place).iter().zip(&self.desired.trunks);
        let trunks = trunks.filter_map(|(slot, trunk)| Some(((*slot)?, trunk.end_name())));
        let names: AHashMap<SiteSlot, String> = sites.chain(access).chain(trunks).collect();
        let name = |slot: &SiteSlot| names.get(slot).cloned().unwrap_or_default();
        let paths = (0..).zip(self.reload.paths()).filter(|(_, path)| path.tenant == slot);
        let paths = paths.filter_map(|(id, path)| {
            let active = self.trunks.paths.active(id)?;
            let alive = |slot| self.trunks.paths.alive(id, slot);
            let candidate = |(priority, slot): &(u16, SiteSlot)| status::Candidate {
                via: name(slot),
                priority: *priority,
                alive: alive(*slot),
            };
            Some(status::Paths {
                prefix: path.prefix.to_string(),
                via: name(&active),
                alive: alive(active),
                candidates: path.candidates.iter().map(candidate).collect(),
            })
        });
        paths.collect()
    }

    fn access(&self, end: &super::access::End, counted: &Snapshot) -> status::Access {
        let found = counted.sites.binary_search_by_key(&end.slot.index(), |found| found.slot);
        let (traffic, staged) =
            found.map_or((Traffic::default(), 0), |at| (counted.sites[at].traffic, counted.sites[at].staged));
        let known = self.ends.neighbours.known().filter(|known| known.key.0 == end.slot);
        let mut neighbours: Vec<_> = known
            .map(|known| status::Neighbour {
                address: known.key.1,
                mac: known.mac.map(mac_text),
                state: known.state.into(),
            })
            .collect();
        neighbours.sort_by_key(|neighbour| neighbour.address);
        status::Access {
            name: end.name.clone(),
            up: end.link.state.is_ok(),
            addresses: end.link.addresses.iter().map(ToString::to_string).collect(),
            mtu: end.link.state.ok().map(|(_, mtu)| mtu.into()),
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            staged: staged as u32,
            shed_packets: self.steering.shed(end.slot.0),
            neighbours,
        }
    }

    fn site(&self, slot: SiteSlot, counted: &Snapshot) -> status::Site {
        let now = clock::now();
        let site = &self.sites[slot.index()];
        let found = counted.sites.binary_search_by_key(&slot.index(), |found| found.slot).map(|at| &counted.sites[at]);
        let (traffic, staged) = found.map_or((Traffic::default(), 0), |found| (found.traffic, found.staged));
        let reach = site.endpoint.and_then(|e| self.reach.get(&(e.remote.ip(), e.local))).and_then(|(reach, _)| *reach);
        status::Site {
            name: site.name.to_string(),
            public_key: site.peer.remote().to_string(),
            endpoint: site.endpoint.map(|e| e.remote),
            local: site.way.ends.map(|ends| ends.local()),
            last_handshake_s_ago: site.peer.last_handshake().map(|at| now.since(at).as_secs()),
            session: self.session_state(slot, now).into(),
            rx_packets: traffic.rx_packets,
            rx_bytes: traffic.rx_bytes,
            tx_packets: traffic.tx_packets,
            tx_bytes: traffic.tx_bytes,
            staged: staged as u32,
            shed_packets: self.shed(slot),
            rx_over_rate: found.map_or(0, |found| found.rx_over_rate),
            tx_over_rate: found.map_or(0, |found| found.tx_over_rate),
            path: site.endpoint.map(|_| self.path(reach, site)),
        }
    }

    fn path(&self, reach: Option<Reach>, site: &super::sites::Site) -> status::Path {
        let way = &site.way;
        let mut path = status::Path::default();
        if let Some(Reach::Via(hop)) = reach {
            path.port = Some(self.ports[hop.port.index()].name.clone());
            path.next_hop = Some(hop.next_hop);
            path.next_hop_mac = Some(mac_text(hop.destination_mac));
            path.mtu = Some(hop.mtu.into());
        }
        path.inner_mtu = way.out.as_ref().ok().map(|path| path.payload_max.into());
        path.probe = site.probing.as_ref().map(|probing| probing.search.state().into());
        path.watch = site.watch.as_ref().map(|watch| watch.state().into());
        path.unreachable = way.out.as_ref().err().map(|reason| reason.name().into());
        path
    }
}

fn rule(rule: &stats::Rule) -> status::Rule {
    let action = if rule.deny { "deny" } else { "allow" };
    status::Rule { name: rule.name.clone(), action: action.into(), packets: rule.packets, bytes: rule.bytes }
}

pub(super) fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// Who computes which cipher.
fn ciphers(backend: &dyn Backend) -> Vec<status::Cipher> {
    let alone = |cipher| Library::of(cipher).name().to_owned();
    let thresholds = backend.thresholds();
    let by = if thresholds.is_some() { backend.name().into() } else { alone(Cipher::ChaCha20Poly1305) };
    vec![
        status::Cipher { name: "ChaCha20-Poly1305".into(), by, thresholds },
        status::Cipher { name: "AES-256-GCM".into(), by: alone(Cipher::Aes256Gcm), thresholds: None },
    ]
}
