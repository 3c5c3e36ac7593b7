//! The families, each with its name, its help and its samples.

use std::fmt;

use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use stats::{Drop, Histogram, Hub, Port, Rule, SessionState, Site, Traffic, Worker};

use super::super::text::Label;
use super::Page;

/// A hub that has not said for so long that it lives does not.
const SILENCE_NS: u64 = 10_000_000_000;
/// The upper ends of the buckets of latencies, in nanoseconds. A value counts where it is as far as the hub's own buckets
/// tell, which are 1/128 wide.
const LATENCY_NS: [u64; 20] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// A family with one counter for each of `T`: its name, its help, its value.
type Counts<T> = (&'static str, &'static str, fn(&T) -> u64);
/// The same, of a value that may fall.
type Gauges<T> = (&'static str, &'static str, fn(&T) -> f64);

const TRAFFIC: [Counts<Traffic>; 10] = [
    ("receive_packets", "Packets from sites, authenticated and accepted, without keepalives", |t| t.rx_packets),
    ("receive_bytes", "Inner IP bytes of packets from sites: the volume that is billed", |t| t.rx_bytes),
    ("receive_outer_packets", "Frames authenticated as of sites, keepalives too", |t| t.rx_outer_packets),
    ("receive_outer_bytes", "Bytes of frames authenticated as of sites, Ethernet header included", |t| {
        t.rx_outer_bytes
    }),
    ("receive_keepalives", "Keepalives from sites", |t| t.rx_keepalives),
    ("transmit_packets", "Packets sealed for sites, without keepalives", |t| t.tx_packets),
    ("transmit_bytes", "Inner IP bytes of packets sealed for sites: the volume that is billed", |t| t.tx_bytes),
    ("transmit_outer_packets", "Frames sent to sites, keepalives too", |t| t.tx_outer_packets),
    ("transmit_outer_bytes", "Bytes of frames sent to sites, Ethernet header included", |t| t.tx_outer_bytes),
    ("transmit_keepalives", "Keepalives sent to sites", |t| t.tx_keepalives),
];
/// Series of a tenant without its drops: what it moved, and its info.
pub(super) const TENANT_SERIES: usize = TRAFFIC.len() + 1;

const HUB_GAUGES: [Gauges<Hub>; 4] = [
    ("ekiden_hub_start_time_seconds", "When the hub started: all counters began at zero then", |h| {
        wall(h.started_wall_ns)
    }),
    ("ekiden_hub_last_config_change_timestamp_seconds", "When tenants or sites last changed", |h| {
        wall(h.configured_wall_ns)
    }),
    ("ekiden_hub_sessions", "Sessions with sites now", |h| h.sessions as f64),
    ("ekiden_hub_session_capacity", "Sessions that there is room for", |h| h.session_capacity as f64),
];
const HUB_COUNTS: [Counts<Hub>; 3] = [
    ("ekiden_handshakes_begun", "Handshakes that the hub began", |h| h.handshakes_begun),
    ("ekiden_handshakes_answered", "Initiations of sites that the hub answered", |h| h.handshakes_answered),
    ("ekiden_handshake_cookies_sent", "Cookies sent in place of an answer, under load", |h| h.cookies_sent),
];
/// Packets here, and bytes of their frames.
const DROPS: [Counts<(u64, u64)>; 2] = [
    ("drops", "Packets dropped, by reason; docs/OPERATIONS.md has a line for each", |d| d.0),
    ("drop_bytes", "Bytes of the frames of dropped packets", |d| d.1),
];

const RULES: [Counts<Rule>; 2] = [
    ("ekiden_filter_rule_packets", "Packets that a rule of a tenant's filter decided; `default`: what none did", |r| {
        r.packets
    }),
    ("ekiden_filter_rule_bytes", "Inner IP bytes of packets that a rule of a tenant's filter decided", |r| r.bytes),
];

const PORT_COUNTS: [Counts<Port>; 8] = [
    ("ekiden_port_receive_frames", "Frames taken from receive rings", |p| p.rx_frames),
    ("ekiden_port_receive_bytes", "Bytes of frames taken from receive rings", |p| p.rx_bytes),
    ("ekiden_port_receive_lost_frames", "Frames that the kernel lost between XDP and a receive ring", |p| p.ring_lost),
    ("ekiden_port_transmit_frames", "Frames put into transmit rings", |p| p.tx_frames),
    ("ekiden_port_transmit_bytes", "Bytes of frames put into transmit rings", |p| p.tx_bytes),
    ("ekiden_port_transmit_completed_frames", "Frames that the kernel reported sent", |p| p.completed_frames),
    ("ekiden_port_xdp_seen_frames", "Frames that XDP saw", |p| p.xdp_seen_frames),
    ("ekiden_port_xdp_seen_bytes", "Bytes of frames that XDP saw", |p| p.xdp_seen_bytes),
];
const PORT_GAUGES: [Gauges<Port>; 2] = [
    ("ekiden_port_queues", "Receive queues", |p| p.queues as f64),
    ("ekiden_port_ring_fill_frames", "Frames that wait in receive rings", |p| p.ring_fill as f64),
];
/// What XDP did with frames: passed, redirected, dropped.
type Verdicts = (&'static str, &'static str, fn(&Port) -> [u64; 3]);
const XDP: [Verdicts; 2] = [
    ("ekiden_port_xdp_frames", "Frames by what XDP did with them: left to the kernel, given to a ring, dropped", |p| {
        [p.xdp_passed_frames, p.xdp_redirected_frames, p.xdp_dropped_frames]
    }),
    ("ekiden_port_xdp_bytes", "Bytes of frames by what XDP did with them", |p| {
        [p.xdp_passed_bytes, p.xdp_redirected_bytes, p.xdp_dropped_bytes]
    }),
];

const WORKER_COUNTS: [Counts<Worker>; 8] = [
    ("ekiden_worker_turns", "Turns of the loop", |w| w.turns),
    ("ekiden_worker_batches", "Batches that were not empty", |w| w.batches),
    ("ekiden_worker_frames", "Frames in batches", |w| w.frames),
    ("ekiden_worker_helped_frames", "Frames of other workers' rings that it took through the stages", |w| {
        w.helped_frames
    }),
    ("ekiden_worker_generated_packets", "Packets of the hub's own: ICMP answers, handshakes, keepalives", |w| {
        w.generated
    }),
    ("ekiden_worker_to_control_packets", "Handshake messages and fragments copied to control", |w| w.to_control),
    ("ekiden_worker_keepalives", "Keepalives of sites, which end at the hub", |w| w.keepalives),
    ("ekiden_worker_reassembled_packets", "Datagrams made whole from fragments", |w| w.reassembled),
];
const WORKER_SECONDS: [Counts<Worker>; 2] = [
    ("ekiden_worker_busy_seconds", "Time in turns of the loop that found work", |w| w.busy_ns),
    ("ekiden_worker_asleep_seconds", "Time asleep", |w| w.asleep_ns),
];
const WORKER_GAUGES: [Gauges<Worker>; 5] = [
    ("ekiden_worker_busy_ratio", "The share of the last second in turns that found work", |w| w.busy_ppm as f64 / 1e6),
    ("ekiden_worker_batch_frames", "Frames in a batch, on the average of the last second", |w| {
        w.batch_milliframes as f64 / 1e3
    }),
    ("ekiden_worker_chunks", "Chunks of packet memory (UMEM) that are the worker's", |w| w.chunks as f64),
    ("ekiden_worker_chunks_free", "Chunks of packet memory in the worker's pool", |w| w.chunks_free as f64),
    ("ekiden_worker_staged_packets", "Packets that wait for a session", |w| w.staged as f64),
];
/// Where a worker has a histogram.
type Latencies = (&'static str, &'static str, fn(&Worker) -> &Histogram);
const WORKER_LATENCIES: [Latencies; 2] = [
    ("ekiden_worker_latency_seconds", "From taking a frame from its ring to having sent it", |w| &w.latency),
    ("ekiden_worker_ring_seconds", "From XDP to the worker, of one frame in 64", |w| &w.ring_time),
];

const SITE_COUNTS: [Counts<Site>; 3] = [
    ("ekiden_site_handshakes", "Handshakes completed, whoever began", |s| s.handshakes),
    ("ekiden_site_receive_over_rate_packets", "Packets from the site above a contracted rate, dropped", |s| {
        s.rx_over_rate
    }),
    ("ekiden_site_transmit_over_rate_packets", "Packets for the site above a contracted rate, dropped", |s| {
        s.tx_over_rate
    }),
];
const SITE_GAUGES: [Gauges<Site>; 3] = [
    ("ekiden_site_session_up", "Whether packets can pass: 1 if there is a session", |s| {
        f64::from(matches!(s.session, SessionState::Live | SessionState::Rekey | SessionState::Attached))
    }),
    ("ekiden_site_located", "Whether it is known where the site is", |s| f64::from(s.located)),
    ("ekiden_site_staged_packets", "Packets that wait for a session with the site", |s| s.staged as f64),
];
/// When something last happened; a site to which it never did has no such series.
const SITE_TIMES: [Counts<Site>; 3] = [
    ("ekiden_site_last_handshake_timestamp_seconds", "When the last handshake was completed", |s| s.last_handshake_at),
    ("ekiden_site_last_receive_timestamp_seconds", "When a packet last came, without keepalives", |s| {
        s.data_received_at
    }),
    ("ekiden_site_last_transmit_timestamp_seconds", "When a packet was last sealed, without keepalives", |s| {
        s.data_sent_at
    }),
];

/// Series of a site: what it moved, info, counts, gauges, and those times that there are.
pub(super) fn site_series(site: &Site) -> usize {
    TRAFFIC.len()
        + 1
        + SITE_COUNTS.len()
        + SITE_GAUGES.len()
        + SITE_TIMES.iter().filter(|(.., at)| at(site) > 0).count()
}

fn wall(ns: u64) -> f64 {
    ns as f64 / 1e9
}

impl Page {
    pub(super) fn hub(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        sheet.gauge("ekiden_up", "Whether the statistics can be read", f64::from(self.snapshot.is_some()))?;
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        let hub = &snapshot.hub;
        let alive = !hub.ended && snapshot.age_ns() < SILENCE_NS;
        sheet.gauge("ekiden_hub_running", "Whether the hub has written lately, and not ended", f64::from(alive))?;
        let build = [("hub", &Label::new(&hub.name)), ("version", &Label::new(&hub.build))];
        sheet.infos("ekiden_hub_build", "The hub's name and the version of the program", [build])?;
        let config = Label::new(&format!("{:016x}", hub.config_hash));
        sheet.infos("ekiden_hub_config", "Tells configurations apart", [[("hash", &config)]])?;
        for (name, help, value) in HUB_GAUGES {
            sheet.gauge(name, help, value(hub))?;
        }
        // By this clock now, whatever the wall clock was set to since.
        if let Some(ticked) = self.times.seconds(hub.ticked_ns) {
            sheet.gauge("ekiden_hub_last_tick_timestamp_seconds", "When the hub last wrote", ticked)?;
        }
        if let Some(synchronised) = hub.clock_synchronised {
            let name = "ekiden_hub_clock_synchronised";
            sheet.gauge(name, "Whether the kernel's clock is synchronised", f64::from(synchronised))?;
        }
        for (name, help, value) in HUB_COUNTS {
            sheet.counter(name, help, value(hub))?;
        }
        let results = [("completed", hub.handshakes_completed), ("given_up", hub.handshakes_given_up)];
        let results = results.map(|(result, count)| ([("result", result)], count));
        let help = "Handshakes that ended: in a session, or given up by the hub; refused ones are drops";
        sheet.counters("ekiden_handshakes", help, results)?;
        sheet.counter(
            "ekiden_books_in_packets",
            "What came to workers, or was made by the hub",
            snapshot.books.inputs,
        )?;
        sheet.counter(
            "ekiden_books_out_packets",
            "What left workers: sent, used up, or dropped",
            snapshot.books.outputs,
        )?;

        let reasons: Vec<(Label, &Drop)> = snapshot.drops.iter().map(|drop| (Label::new(&drop.name), drop)).collect();
        for (name, help, value) in DROPS {
            let samples = reasons.iter().map(|(label, drop)| ([("reason", label)], value(&(drop.packets, drop.bytes))));
            sheet.counters(&format!("ekiden_{name}"), help, samples)?;
        }
        self.ports(sheet, &snapshot.ports)?;
        self.workers(sheet, &snapshot.workers)
    }

    fn ports(&self, sheet: &mut Sheet<'_>, ports: &[Port]) -> fmt::Result {
        let ports: Vec<(Label, &Port)> = ports.iter().map(|port| (Label::new(&port.name), port)).collect();
        for (name, help, value) in PORT_COUNTS {
            sheet.counters(name, help, ports.iter().map(|(label, port)| ([("port", label)], value(port))))?;
        }
        let verdicts = ["passed", "redirected", "dropped"].map(Label::new);
        for (name, help, values) in XDP {
            let samples = ports.iter().flat_map(|(label, port)| {
                let labels = verdicts.each_ref().map(|verdict| [("port", label), ("verdict", verdict)]);
                labels.into_iter().zip(values(port))
            });
            sheet.counters(name, help, samples)?;
        }
        for (name, help, value) in PORT_GAUGES {
            sheet.gauges(name, help, ports.iter().map(|(label, port)| ([("port", label)], value(port))))?;
        }
        // A hub of an earlier version does not say, and a zero would be divided by.
        let entries = ports.iter().filter(|(_, port)| port.ring_entries > 0);
        let entries = entries.map(|(label, port)| ([("port", label)], port.ring_entries as f64));
        sheet.gauges("ekiden_port_ring_entries", "Frames that each receive ring has room for", entries)
    }

    fn workers(&self, sheet: &mut Sheet<'_>, workers: &[Worker]) -> fmt::Result {
        let infos = workers.iter().map(|worker| [("worker", worker.slot as u64), ("core", worker.core)]);
        sheet.infos("ekiden_worker", "The core on which a worker runs", infos)?;
        for (name, help, value) in WORKER_COUNTS {
            sheet.counters(name, help, workers.iter().map(|worker| ([("worker", worker.slot)], value(worker))))?;
        }
        for (name, help, value) in WORKER_SECONDS {
            let seconds = |worker: &Worker| value(worker) as f64 / 1e9;
            sheet.counters(name, help, workers.iter().map(|worker| ([("worker", worker.slot)], seconds(worker))))?;
        }
        for (name, help, value) in WORKER_GAUGES {
            sheet.gauges(name, help, workers.iter().map(|worker| ([("worker", worker.slot)], value(worker))))?;
        }
        for (name, help, histogram) in WORKER_LATENCIES {
            let samples = workers.iter().map(|worker| ([("worker", worker.slot)], histogram(worker)));
            sheet.histograms(name, help, samples)?;
        }
        Ok(())
    }

    pub(super) fn tenants(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let infos = self.tenants.iter().map(|shown| {
            let id = Label::new(&shown.tenant.id.as_u32().to_string());
            Named([("tenant", shown.label.clone()), ("id", id), ("label", Label::new(&shown.tenant.label))])
        });
        sheet.infos("ekiden_tenant", "A tenant's id and label", infos)?;
        for (name, help, value) in TRAFFIC {
            let samples = self.tenants.iter().map(|shown| ([("tenant", &shown.label)], value(&shown.tenant.traffic)));
            sheet.counters(&format!("ekiden_tenant_{name}"), help, samples)?;
        }
        let reasons = self.snapshot.iter().flat_map(|snapshot| &snapshot.drops);
        let reasons: std::collections::HashMap<u8, Label> =
            reasons.map(|drop| (drop.number, Label::new(&drop.name))).collect();
        for (name, help, value) in DROPS {
            let samples = self.tenants.iter().flat_map(|shown| {
                shown.tenant.drops.iter().filter_map(|(number, packets, bytes)| {
                    let labels = [("tenant", &shown.label), ("reason", reasons.get(number)?)];
                    Some((labels, value(&(*packets, *bytes))))
                })
            });
            sheet.counters(&format!("ekiden_tenant_{name}"), help, samples)?;
        }
        let actions = ["allow", "deny"].map(Label::new);
        for (name, help, value) in RULES {
            let samples = self.tenants.iter().flat_map(|shown| {
                shown.rules.iter().map(|(label, rule)| {
                    let action = &actions[usize::from(rule.deny)];
                    ([("tenant", &shown.label), ("rule", label), ("action", action)], value(rule))
                })
            });
            sheet.counters(name, help, samples)?;
        }
        Ok(())
    }

    pub(super) fn sites(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let shown =
            || self.sites.iter().map(|shown| ([("tenant", &shown.tenant), ("site", &shown.label)], &shown.site));
        sheet.infos("ekiden_site", "A site of a tenant", shown().map(|(labels, _)| labels))?;
        for (name, help, value) in TRAFFIC {
            let samples = shown().map(|(labels, site)| (labels, value(&site.traffic)));
            sheet.counters(&format!("ekiden_site_{name}"), help, samples)?;
        }
        for (name, help, value) in SITE_COUNTS {
            sheet.counters(name, help, shown().map(|(labels, site)| (labels, value(site))))?;
        }
        for (name, help, value) in SITE_GAUGES {
            sheet.gauges(name, help, shown().map(|(labels, site)| (labels, value(site))))?;
        }
        for (name, help, value) in SITE_TIMES {
            let samples = shown().filter_map(|(labels, site)| Some((labels, self.times.seconds(value(site))?)));
            sheet.gauges(name, help, samples)?;
        }
        Ok(())
    }

    pub(super) fn exporter(&self, sheet: &mut Sheet<'_>) -> fmt::Result {
        let version = Label::new(env!("CARGO_PKG_VERSION"));
        sheet.infos("ekiden_exporter_build", "The version of the exporter", [[("version", &version)]])?;
        let help = "Series of tenants and sites that --max-series left out of this answer";
        sheet.gauge("ekiden_exporter_series_dropped", help, self.series_dropped as f64)?;
        let Some(own) = &self.own else { return Ok(()) };
        sheet.counter("process_cpu_seconds", "User and system time of the exporter", own.cpu_seconds)?;
        let gauges = [
            ("process_threads", "Threads of the exporter", Some(own.threads as f64)),
            ("process_virtual_memory_bytes", "Virtual memory of the exporter", Some(own.virtual_bytes as f64)),
            ("process_resident_memory_bytes", "Resident memory of the exporter", Some(own.resident_bytes as f64)),
            ("process_open_fds", "Open file descriptors of the exporter", Some(own.open_fds as f64)),
            ("process_max_fds", "File descriptors that the exporter may open", own.max_fds.map(|fds| fds as f64)),
            ("process_start_time_seconds", "When the exporter started", Some(own.start_seconds)),
        ];
        let known = gauges.into_iter().filter_map(|(name, help, value)| Some((name, help, value?)));
        known.into_iter().try_for_each(|(name, help, value)| sheet.gauge(name, help, value))
    }
}

/// Labels that own their values.
struct Named<const N: usize>([(&'static str, Label); N]);

impl<const N: usize> EncodeLabelSet for Named<N> {
    fn encode(&self, encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        self.0.each_ref().map(|(name, label)| (*name, label)).encode(encoder)
    }
}

/// Whole numbers are written as such: shorter, and as people read them.
fn write_gauge(mut sample: MetricEncoder<'_>, value: f64) -> fmt::Result {
    if value.fract() == 0.0 && value.abs() < (1_u64 << 53) as f64 {
        return sample.encode_gauge(&(value as i64));
    }
    sample.encode_gauge(&value)
}

/// Writes families one after the other; those without a sample are left out.
pub(super) struct Sheet<'a>(pub(super) DescriptorEncoder<'a>);

/// Units that OpenMetrics knows stand at the end of a name: there the library wants them apart.
fn unit_of(name: &str) -> (&str, Option<Unit>) {
    let units = [("_bytes", Unit::Bytes), ("_seconds", Unit::Seconds)];
    let found = units.into_iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, unit)));
    found.map_or((name, None), |(stem, unit)| (stem, Some(unit)))
}

impl Sheet<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let (stem, unit) = unit_of(name);
        write_gauge(self.0.encode_descriptor(stem, help, unit.as_ref(), MetricType::Gauge)?, value)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> fmt::Result {
        let (stem, unit) = unit_of(name);
        let mut family = self.0.encode_descriptor(stem, help, unit.as_ref(), MetricType::Counter)?;
        family.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, samples, write_gauge)
    }

    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Counter, samples, |mut sample, value| {
            sample.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// `name` without the `_info` that will follow it.
    fn infos<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let samples = samples.into_iter().map(|labels| (NoLabels, labels));
        self.family(name, help, MetricType::Info, samples, |mut sample, labels| sample.encode_info(&labels))
    }

    fn histograms<'h, L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (L, &'h Histogram)>,
    ) -> fmt::Result {
        self.family(name, help, MetricType::Histogram, samples, |mut sample, histogram| {
            // A damaged segment may have sums that overflow: what is written rises all the same.
            let mut so_far = 0;
            let mut rise = |to: u64| {
                let more = to.saturating_sub(so_far);
                so_far += more;
                more
            };
            let mut buckets = LATENCY_NS.map(|ns| (ns as f64 / 1e9, rise(histogram.count_to(ns)))).to_vec();
            buckets.push((f64::MAX, rise(histogram.count())));
            sample.encode_histogram::<NoLabelSet>(histogram.sum_ns as f64 / 1e9, so_far, &buckets, None)
        })
    }

    fn family<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        samples: impl IntoIterator<Item = (L, V)>,
        mut write: impl FnMut(MetricEncoder<'_>, V) -> fmt::Result,
    ) -> fmt::Result {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return Ok(());
        }
        let (stem, unit) = unit_of(name);
        let mut family = self.0.encode_descriptor(stem, help, unit.as_ref(), kind)?;
        for (labels, value) in samples {
            write(family.encode_family(&labels)?, value)?;
        }
        Ok(())
    }
}

/// No labels but those of an info.
struct NoLabels;

impl EncodeLabelSet for NoLabels {
    fn encode(&self, _: &mut prometheus_client::encoding::LabelSetEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}
