//! What is answered: every family of series, in the order in which it stands on the page.

mod families;
mod trunks;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use stats::{Lane, Rule, Site, SiteKind, Snapshot, Tenant};

use super::process::Own;
use super::text::Label;

/// From moments of the hub's clock (ns since boot) to seconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Times {
    offset_ns: i128,
}

impl Times {
    /// The difference of the two clocks, as it was read now. The old one is kept while the new one is the same but for how
    /// long it took to read them: a moment that does not move must not seem to.
    pub(super) fn set(&mut self, offset_ns: i128) {
        if (self.offset_ns - offset_ns).abs() > super::CLOCK_STEP_NS {
            self.offset_ns = offset_ns;
        }
    }

    /// Nothing for 0, which is never.
    fn seconds(self, ns: u64) -> Option<f64> {
        (ns > 0).then(|| (i128::from(ns) + self.offset_ns) as f64 / 1e9)
    }
}

/// A tenant that is shown.
#[derive(Debug)]
struct ShownTenant {
    label: Label,
    tenant: Tenant,
    rules: Vec<(Label, Rule)>,
}

/// A site that is shown.
#[derive(Debug)]
struct ShownSite {
    tenant: Label,
    label: Label,
    site: Site,
}

/// A lane of a trunk: those of one trunk stand together.
#[derive(Debug)]
struct ShownLane {
    trunk: Label,
    label: Label,
    site: Site,
    lane: Lane,
}

/// One answer.
#[derive(Debug)]
pub(super) struct Page {
    /// Its tenants and sites have been taken out.
    snapshot: Option<Snapshot>,
    tenants: Vec<ShownTenant>,
    sites: Vec<ShownSite>,
    lanes: Vec<ShownLane>,
    /// Series that `--max-series` left out.
    pub(super) series_dropped: usize,
    times: Times,
    own: Option<Own>,
}

impl Page {
    /// Tenants in the order of their slots, then sites in the order of theirs, each whole or not at all, until there are
    /// `max_series`. What is shown stays the same from one scrape to the next, as long as the hub's configuration does.
    pub(super) fn new(mut snapshot: Option<Snapshot>, with_sites: bool, max_series: usize, times: Times) -> Self {
        let (tenants, sites) = match &mut snapshot {
            Some(snapshot) => (std::mem::take(&mut snapshot.tenants), std::mem::take(&mut snapshot.sites)),
            None => Default::default(),
        };
        let mut rules: HashMap<usize, Vec<(Label, Rule)>> = HashMap::new();
        for rule in snapshot.iter_mut().flat_map(|snapshot| std::mem::take(&mut snapshot.rules)) {
            rules.entry(rule.tenant).or_default().push((Label::new(&rule.name), rule));
        }
        let (lanes, sites): (Vec<_>, Vec<_>) = sites.into_iter().partition(|site| site.kind == SiteKind::Lane);
        let mut page = Self {
            snapshot,
            tenants: Vec::new(),
            sites: Vec::new(),
            lanes: shown_lanes(lanes),
            series_dropped: 0,
            times,
            own: Own::read(),
        };
        let mut room = max_series;
        let mut labels = HashSet::new();
        let mut by_slot = HashMap::new();
        for tenant in tenants {
            let rules = rules.remove(&tenant.slot).unwrap_or_default();
            let series = families::TENANT_SERIES + 2 * tenant.drops.len() + 2 * rules.len();
            // Of two tenants with one code, which no configuration has, the second is called by its id.
            let label = Some(Label::new(&tenant.service_code))
                .filter(|label| !tenant.service_code.is_empty() && !labels.contains(label))
                .unwrap_or_else(|| Label::new(&tenant.id.as_u32().to_string()));
            if series <= room && labels.insert(label.clone()) {
                room -= series;
                by_slot.insert(tenant.slot, label.clone());
                page.tenants.push(ShownTenant { label, tenant, rules });
            } else {
                page.series_dropped += series;
            }
        }
        let mut names = HashSet::new();
        for site in sites.into_iter().filter(|_| with_sites) {
            let series = families::site_series(&site);
            let label = Label::new(&site.name);
            match by_slot.get(&site.tenant) {
                Some(tenant) if series <= room && names.insert((site.tenant, label.clone())) => {
                    room -= series;
                    page.sites.push(ShownSite { tenant: tenant.clone(), label, site });
                }
                _ => page.series_dropped += series,
            }
        }
        page
    }
}

/// Lanes by trunk and number, each once, as only a damaged segment would not have them.
fn shown_lanes(lanes: Vec<Site>) -> Vec<ShownLane> {
    let mut shown: BTreeMap<(String, u64), ShownLane> = BTreeMap::new();
    for site in lanes {
        let Some((trunk, number)) = site.name.rsplit_once('/') else { continue };
        let (Ok(number), Some(lane)) = (number.parse(), site.lane) else { continue };
        let (key, trunk) = ((trunk.to_owned(), number), Label::new(trunk));
        shown.entry(key).or_insert(ShownLane { trunk, label: Label::new(&number.to_string()), site, lane });
    }
    shown.into_values().collect()
}

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut sheet = families::Sheet(encoder);
        self.hub(&mut sheet)?;
        self.trunks(&mut sheet)?;
        self.tenants(&mut sheet)?;
        self.sites(&mut sheet)?;
        self.exporter(&mut sheet)
    }
}
