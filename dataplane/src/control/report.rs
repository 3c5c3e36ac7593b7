//! The report that status shows: what control knows, and the sums of what workers and XDP counted.

use super::Control;
use crate::clock;
use crate::logging::rfc3339;
use crate::status;
use crate::underlay::Reach;
use crypto::Time;
use crypto::aead::Backend;
use stats::{Rows, Totals};
use std::path::PathBuf;
use std::time::SystemTime;
use wire::{SiteSlot, TenantSlot};

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
    /// Where workers that share a queue leave chunks for each other.
    pub depot: Option<std::sync::Arc<crate::depot::Depot>>,
    /// What was wrong at the start, and did not stop it.
    pub warnings: Vec<String>,
}

impl Control {
    /// The whole report.
    pub(super) fn status(&self) -> status::Status {
        // Rings before XDP, and what went before what came: what moves meanwhile must not look as if it came from nowhere.
        let mut ports: Vec<_> = self.ports.iter().map(|port| self.port(port)).collect();
        let xdp = self.copy_xdp();
        for (port, counters) in ports.iter_mut().zip(&self.ports) {
            if let Some(counters) = xdp.iter().find(|c| c.port == counters.index.0) {
                port.xdp_seen = Some(counters.seen.packets);
                port.xdp_passed = Some(counters.passed.packets);
                port.xdp_redirected = Some(counters.redirected.packets);
                port.xdp_dropped = Some(counters.dropped().map(|(_, count)| count.packets).sum());
            }
        }
        let books = self.books();
        let mut drops = Totals::default();
        drops.add_row(&self.figures.drops);
        drops.add_row(&self.figures.xdp_drops);
        for (_, rows) in &self.workers {
            drops.add_row(&rows.hub);
        }
        let tenants: Vec<_> =
            (0..self.desired.tenants.len()).map(|t| self.tenant(TenantSlot(t as u32), &mut drops)).collect();
        status::Status {
            hub: self.hub(),
            ports,
            workers: (0..self.workers.len()).map(|w| self.worker(w)).collect(),
            books,
            tenants,
            drops: drops
                .nonzero()
                .map(|(reason, packets, bytes)| status::Drop::new(reason, packets, Some(bytes)))
                .collect(),
            warnings: self.facts.warnings.clone(),
        }
    }

    fn hub(&self) -> status::Hub {
        let staged: u64 = self.workers.iter().map(|(_, rows)| rows.turns.staged.read()).sum();
        status::Hub {
            name: self.desired.hub.name.to_string(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            started: rfc3339(self.facts.started),
            uptime_s: clock::now().since(self.facts.started_at).as_secs(),
            public_key: self.desired.hub.public_key.to_string(),
            listen_port: self.desired.hub.listen_port.get(),
            config_path: self.facts.config.display().to_string(),
            crypto_backend: self.facts.backend.name().into(),
            crypto_thresholds: self.facts.backend.thresholds(),
            kernel: Some(rustix::system::uname().release().to_string_lossy().into_owned()),
            sessions: Some(self.sessions.len() as u32),
            session_capacity: Some(self.slots.capacity() as u32),
            staged: Some(staged as u32),
        }
    }

    /// The workers' books. See [`status::Books`] for the order.
    fn books(&self) -> status::Books {
        let turns = |field: fn(&stats::LoopRow) -> &stats::Counter| -> u64 {
            self.workers.iter().map(|(_, rows)| field(&rows.turns).read()).sum()
        };
        let ports = |field: fn(&stats::PortRow) -> &stats::Counter| -> u64 {
            let of = |rows: &Rows| self.ports.iter().map(|port| field(rows.port(port.index)).read()).sum::<u64>();
            self.workers.iter().map(|(_, rows)| of(rows)).sum()
        };
        let mut dropped = Totals::default();
        for (_, rows) in &self.workers {
            dropped.add_row(&rows.hub);
            (0..self.desired.tenants.len()).for_each(|t| dropped.add_row(rows.tenant(TenantSlot(t as u32))));
        }
        let (to_control, keepalives) = (turns(|row| &row.to_control), turns(|row| &row.keepalives));
        let completed = ports(|row| &row.completed_frames);
        let census = self.ports.first().map(|port| port.census()).unwrap_or_default();
        status::Books {
            received: ports(|row| &row.rx_frames),
            generated: turns(|row| &row.generated),
            reassembled: turns(|row| &row.reassembled),
            completed,
            to_control,
            keepalives,
            dropped: dropped.packets(),
            staged: turns(|row| &row.staged),
            sending: census.transmit.into(),
            receiving: census.receive.into(),
            free: turns(|row| &row.chunks_free) + self.facts.depot.as_ref().map_or(0, |depot| depot.len() as u64),
            chunks: self.facts.chunks.iter().map(|n| u64::from(*n)).sum(),
        }
    }

    fn port(&self, port: &crate::start::Port) -> status::Port {
        let sum = |field: fn(&stats::PortRow) -> &stats::Counter| -> u64 {
            self.workers.iter().map(|(_, rows)| field(rows.port(port.index)).read()).sum()
        };
        status::Port {
            name: port.name.clone(),
            role: "wan".into(),
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
            need_wakeup: Some(port.bound.need_wakeup),
            mtu: Some(port.mtu),
            mac: port.mac.map(mac_text),
            up: port.up,
            addresses: port.addresses.clone(),
            xdp_seen: None,
            xdp_passed: None,
            xdp_redirected: None,
            xdp_dropped: None,
            ring_lost: Some(sum(|row| &row.ring_lost)),
            rx_frames: sum(|row| &row.rx_frames),
            rx_bytes: sum(|row| &row.rx_bytes),
            tx_frames: sum(|row| &row.tx_frames),
            tx_bytes: sum(|row| &row.tx_bytes),
            warnings: port.warnings.clone(),
        }
    }

    fn worker(&self, w: usize) -> status::Worker {
        let turns = &self.workers[w].1.turns;
        let queues = self.ports.iter().flat_map(|port| {
            let its = move |q: &u32| port.sockets > 1 || *q as usize % self.workers.len() == w;
            (0..port.queues).filter(its).map(|q| format!("{}:{q}", port.name))
        });
        status::Worker {
            id: w as u32,
            core: self.facts.cores.get(w).map(|core| *core as u32),
            queues: queues.collect(),
            chunks_total: self.facts.chunks[w],
            chunks_free: Some(turns.chunks_free.read() as u32),
            batches: turns.batches.read(),
            frames: turns.frames.read(),
            busy_share: Some(self.busy[w].1),
            generated: turns.generated.read(),
            reassembled: turns.reassembled.read(),
            to_control: turns.to_control.read(),
            keepalives: turns.keepalives.read(),
            staged: turns.staged.read(),
        }
    }

    fn tenant(&self, slot: TenantSlot, all: &mut Totals) -> status::Tenant {
        let tenant = &self.desired.tenants[slot.index()];
        let mut drops = Totals::default();
        for (_, rows) in &self.workers {
            drops.add_row(rows.tenant(slot));
            all.add_row(rows.tenant(slot));
        }
        let first = self.first_site[slot.index()];
        status::Tenant {
            id: tenant.id.as_u32(),
            service_code: tenant.service_code.as_ref().map(|code| code.to_string()),
            label: Some(tenant.label.to_string()).filter(|label| !label.is_empty()),
            sites: (0..tenant.sites.len()).map(|i| self.site(SiteSlot(first + i as u32))).collect(),
            drops: drops.nonzero().map(|(reason, packets, _)| (reason.name().into(), packets)).collect(),
        }
    }

    fn site(&self, slot: SiteSlot) -> status::Site {
        let now = clock::now();
        let site = &self.sites[slot.index()];
        let sum = |field: fn(&stats::SiteRow) -> &stats::Counter| -> u64 {
            self.workers.iter().map(|(_, rows)| field(rows.site(slot)).read()).sum()
        };
        let reach = site.endpoint.and_then(|e| self.reach.get(&(e.remote.ip(), e.local))).and_then(|(reach, _)| *reach);
        status::Site {
            name: self.desired.tenants[site.tenant.index()].sites[site.position].name.to_string(),
            public_key: site.peer.remote().to_string(),
            endpoint: site.endpoint.map(|e| e.remote),
            local: site.way.ends.map(|(_, local)| local),
            last_handshake_s_ago: site.peer.last_handshake().map(|at| now.since(at).as_secs()),
            session: match self.session_state(slot, now) {
                stats::SessionState::Rekey => status::SessionState::Rekey,
                stats::SessionState::Live => status::SessionState::Live,
                stats::SessionState::Handshake => status::SessionState::Handshake,
                stats::SessionState::Expired => status::SessionState::Expired,
                stats::SessionState::None => status::SessionState::None,
            },
            rx_packets: sum(|row| &row.rx_packets),
            rx_bytes: sum(|row| &row.rx_bytes),
            tx_packets: sum(|row| &row.tx_packets),
            tx_bytes: sum(|row| &row.tx_bytes),
            staged: sum(|row| &row.staged) as u32,
            shed_packets: self.steering.shed(slot.0),
            path: site.endpoint.map(|_| self.path(reach, &site.way)),
        }
    }

    fn path(&self, reach: Option<Reach>, way: &crate::sites::Way) -> status::Path {
        let mut path = status::Path::default();
        if let Some(Reach::Via(hop)) = reach {
            path.port = Some(self.ports[hop.port.index()].name.clone());
            path.next_hop = Some(hop.next_hop);
            path.next_hop_mac = Some(mac_text(hop.destination_mac));
            path.mtu = Some(hop.mtu.into());
        }
        path.unreachable = way.out.as_ref().err().map(|reason| reason.name().into());
        path
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}
