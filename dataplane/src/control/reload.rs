//! Another configuration for a hub that runs.
//!
//! 1. It is read, checked whole and compared with the one in force by a thread of its own ([`super::plan`]); nothing has changed yet.
//! 2. Where the statistics need more rows, the segment grows, in its place: workers have nothing to do for it.
//! 3. Who is gone goes: first from XDP, then from the workers. Who is new, or has other rates, is told to the workers; then the
//!    routes, as a whole.
//! 4. The directory of the statistics says so, and control follows: peers for new sites, new handshakes where keys are others.
//!
//! Whoever is not named in the difference is not touched by any of it.

use super::plan::{Changed, Plan, plan};
use super::sites::Site;
use super::{Control, Endpoint};
use crate::clock::{self, Time};
use crate::logging::rfc3339;
use crate::mailbox::{ControlEnd, Order};
use crate::seats::{self, Given, PathSpec, Vacant};
use crate::sites::Way;
use crate::status;
use classifier::Tables;
use crypto::peer::Peer;
use stats::{Rows, Shape};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use wire::{DropReason, SiteSlot};

/// After so long no packet that a worker has in hand, or handed to another, is from before a slot was given up.
const REST: Duration = Duration::from_secs(60);
/// How often it is asked whether workers have done what they were told.
const LOOK: Duration = Duration::from_micros(200);
/// How many such looks readers of the statistics may wait for.
const LOOKS: u32 = 500;

/// Who waits for the end of a reload.
type Reply = Option<oneshot::Sender<status::Reload>>;

/// What control knows of reloads.
pub(super) struct Reload {
    read: mpsc::Sender<Read>,
    pub(super) news: mpsc::Receiver<Read>,
    /// The configuration is being read for these.
    under_way: Option<Vec<Reply>>,
    /// Who asked since: the file may have changed after it was read.
    asked: Vec<Reply>,
    /// Slots that may be given again.
    vacant: Vacant,
    /// Slots that were given up, and when.
    left: Vec<(Time, Arc<Vacant>)>,
    /// The routes as the workers have them, and those that some may still have: control frees them.
    tables: Arc<Tables>,
    /// The paths in them.
    paths: Vec<PathSpec>,
    tables_before: Vec<Arc<Tables>>,
    /// When the configuration in force was applied.
    applied: SystemTime,
    last: Option<status::Reload>,
}

/// A configuration that was read.
pub(super) struct Read {
    plan: Result<Plan, String>,
    /// Slots that may be given again: before, and what is left if the plan is carried out.
    vacant: [Vacant; 2],
}

impl Reload {
    pub(super) fn new(tables: Arc<Tables>, paths: Vec<PathSpec>) -> Self {
        let (read, news) = mpsc::channel(1);
        Self {
            read,
            news,
            under_way: None,
            asked: Vec::new(),
            vacant: Vacant::default(),
            left: Vec::new(),
            tables,
            paths,
            tables_before: Vec::new(),
            applied: SystemTime::now(),
            last: None,
        }
    }

    /// The prefixes that several ends lead to.
    pub(super) fn paths(&self) -> &[PathSpec] {
        &self.paths
    }

    /// The path in this place of [`Reload::paths`] leads to that end, in every worker at once.
    pub(super) fn switch(&self, place: u32, end: SiteSlot) {
        if let Some(path) = self.paths.get(place as usize) {
            self.tables.switch(path.id, end);
        }
    }

    /// Frees what no worker has any more.
    pub(super) fn sweep(&mut self, now: Time) {
        self.tables_before.retain_mut(|tables| Arc::get_mut(tables).is_none());
        let vacant = &mut self.vacant;
        self.left.retain_mut(|(since, left)| {
            let done = now.since(*since) >= REST && Arc::get_mut(left).is_some();
            if done {
                vacant.extend(left);
            }
            !done
        });
    }
}

impl Control {
    /// The configuration is to be read again, by order of the API or of a signal.
    pub(super) fn reload_wanted(&mut self, reply: Reply) {
        self.reload.asked.push(reply);
        if self.reload.under_way.is_none() {
            self.read_again();
        }
    }

    fn read_again(&mut self) {
        self.reload.under_way = Some(std::mem::take(&mut self.reload.asked));
        let vacant = std::mem::take(&mut self.reload.vacant);
        let (desired, seats, contracts) = (self.desired.clone(), self.seats.clone(), self.contracts.clone());
        let (path, room, news) = (self.facts.config.clone(), self.facts.room, self.reload.read.clone());
        let work = move || {
            let mut left = vacant.clone();
            let plan = crate::config::load(&path)
                .map_err(|errors| errors.to_string())
                .and_then(|new| plan((&desired, &seats, &contracts), new, room, &mut left));
            // Control waits for it, unless the hub ends.
            let _ = news.blocking_send(Read { plan, vacant: [vacant, left] });
        };
        if let Err(error) = std::thread::Builder::new().name("ekiden-reload".into()).spawn(work) {
            self.answer(Err(format!("could not start a thread to read the configuration: {error}")));
        }
    }

    /// The configuration was read: it is applied, if it can be.
    pub(super) async fn apply(&mut self, read: Read) {
        let [before, after] = read.vacant;
        let result = match read.plan {
            Ok(plan) => self.carry(plan).await,
            Err(why) => Err(why),
        };
        self.reload.vacant.extend(if result.is_ok() { &after } else { &before });
        self.answer(result);
        if !self.reload.asked.is_empty() {
            self.read_again();
        }
    }

    /// All who asked hear how it ended, and the log.
    fn answer(&mut self, result: Result<String, String>) {
        let at = SystemTime::now();
        let config = self.facts.config.display();
        match &result {
            Ok(summary) => {
                tracing::info!("{config} is in force: {summary}");
                self.notify.status(&format!("reloaded: {summary}"));
                self.reload.applied = at;
            }
            Err(why) => {
                why.lines().for_each(|line| tracing::error!("{line}"));
                tracing::error!("{config} was not applied, and nothing has changed");
                self.notify.status("the last reload was refused; the configuration before it is in force");
            }
        }
        let applied = result.is_ok();
        let report = status::Reload { at: rfc3339(at), applied, text: result.unwrap_or_else(|why| why) };
        for reply in self.reload.under_way.take().into_iter().flatten().flatten() {
            // Who has gone away needs no answer.
            let _ = reply.send(report.clone());
        }
        self.reload.last = Some(report);
    }

    /// What status says of the configuration.
    pub(super) fn configuration(&self) -> status::Configuration {
        status::Configuration {
            hash: format!("{:016x}", self.desired.digest.0),
            applied: rfc3339(self.reload.applied),
            last_reload: self.reload.last.clone(),
        }
    }

    async fn carry(&mut self, mut plan: Plan) -> Result<String, String> {
        self.make_room(plan.seats.given())?;
        plan.vacant.sites.iter().for_each(|slot| self.remove_site(*slot));
        // A key may go from one site to another: all are taken before any is given.
        let rekeyed: Vec<&Changed> = plan.changed.iter().filter(|changed| changed.keys).collect();
        rekeyed.iter().for_each(|changed| self.forget_keys(changed));
        if let Some((tables, paths)) = &plan.tables {
            // Here, where nobody else switches paths meanwhile.
            seats::take_over((&self.reload.tables, &self.reload.paths), (tables, paths));
        }
        for (mail, _) in &mut self.workers {
            plan.orders().for_each(|order| mail.send(order));
        }
        (self.desired, self.seats) = (plan.desired.clone(), plan.seats.clone());
        self.contracts = plan.contracts.clone();
        self.tell_trunks();
        if let Some((tables, paths)) = plan.tables.take() {
            self.order_all(|| Order::Tables(tables.clone()));
            self.reload.paths = paths;
            let before = std::mem::replace(&mut self.reload.tables, tables);
            self.reload.tables_before.push(before);
        }
        self.rewrite_directory(&plan);
        for added in plan.added {
            let mut site =
                Site::new(added.slot, added.tenant, &added.site, added.probe, &self.state, self.workers.len());
            site.shed_before = self.steering.shed(added.slot.0);
            self.by_key.insert(added.site.public_key, added.slot);
            let located = site.endpoint.is_some();
            self.sites.put(added.slot, site);
            self.write_site(added.slot);
            if located {
                self.watch(added.slot);
                self.startup.push_back(added.slot);
            }
        }
        for changed in plan.changed {
            self.change_site(&changed);
        }
        self.lay_paths();
        Ok(plan.summary.to_string())
    }

    /// More rows of the statistics, if those that are used do not do.
    fn make_room(&mut self, given: Given) -> Result<(), String> {
        let Given { tenants, ends, rules } = given;
        let ports = self.ports.len();
        let shape = Shape { tenants: tenants as usize, sites: ends as usize, ports, rules: rules as usize };
        let grown = self.segment.grow(shape);
        if let Some(warning) = grown.map_err(|error| format!("no room for the statistics of what is new: {error}"))? {
            tracing::warn!("{warning}");
            self.facts.warnings.push(warning);
        }
        Ok(())
    }

    /// A site is gone: nothing comes in under its sessions from here on, and nothing that is of it stays.
    fn remove_site(&mut self, slot: SiteSlot) {
        let site = &mut self.sites[slot.index()];
        // Should it come back, an initiation from before is no more welcome than it would have been.
        site.remember(&mut self.state);
        if let Some(stamp) = site.peer.last_stamp() {
            self.state.note_stamp(stamp.0);
        }
        let remote = *site.peer.remote();
        let peer = std::mem::replace(&mut site.peer, Peer::new(slot.0, remote, None, None, None));
        let endpoint = site.endpoint;
        self.by_key.remove(&remote);
        self.erase(slot, peer);
        if let Some(endpoint) = endpoint {
            self.unwatch(slot, endpoint);
        }
        self.timers.set(slot, Time::NEVER);
        self.probes.set(slot, Time::NEVER);
        self.startup.retain(|waiting| *waiting != slot);
        self.sites.take(slot);
        // What another worker has routed to it before it heard of this is not to wait for a session that never comes.
        let closed = Way { ends: None, out: Err(DropReason::SiteDown) };
        self.order_all(|| Order::Way(slot, closed.clone()));
    }

    fn erase(&mut self, slot: SiteSlot, peer: Peer) {
        let mut actions = Vec::new();
        peer.erase(&mut actions);
        self.carry_out(slot, actions);
    }

    /// The sessions under a site's old keys end, and a peer with its new ones takes the place of the old one.
    fn forget_keys(&mut self, changed: &Changed) {
        let site = &mut self.sites[changed.slot.index()];
        let before = site.rekey(changed.slot, &changed.site);
        self.by_key.remove(before.remote());
        self.erase(changed.slot, before);
    }

    fn change_site(&mut self, changed: &Changed) {
        let Changed { slot, site: configured, keys, endpoint, way, probe } = changed;
        let slot = *slot;
        if *way {
            self.sites[slot.index()].configure(configured, *probe);
            self.set_way(slot);
            self.timers.set(slot, clock::now());
            if self.sites[slot.index()].sending.is_some() {
                self.probe_with_session(slot);
            }
        }
        if let Some(remote) = configured.endpoint.filter(|_| *endpoint) {
            self.move_to(slot, Endpoint { remote, local: None });
        }
        if *keys {
            self.by_key.insert(configured.public_key, slot);
        }
        if (*keys || *endpoint) && self.sites[slot.index()].endpoint.is_some() {
            self.with_peer(slot, |peer, identity, cx, out| peer.renew(identity, cx, out));
        }
    }

    /// The statistics name who is there now. Readers wait meanwhile: what is gone and its numbers go at once.
    fn rewrite_directory(&mut self, plan: &Plan) {
        let (workers, ports) = (&mut self.workers, &self.ports);
        let mut vacant = Arc::new(plan.vacant.clone());
        if !vacant.is_empty() {
            // What they were told before that may take them longer, and readers need not wait for it.
            let mut caught_up = Arc::new(Vacant::default());
            workers.iter_mut().for_each(|(mail, _)| mail.send(Order::Vacate(caught_up.clone(), 0)));
            await_workers(workers, &mut caught_up);
        }
        let written = self.segment.configure(|directory| {
            if !vacant.is_empty() {
                for (mail, _) in workers.iter_mut() {
                    (0..vacant.parts()).for_each(|part| mail.send(Order::Vacate(vacant.clone(), part)));
                }
                await_workers(workers, &mut vacant);
            }
            vacant.ends().try_for_each(|slot| directory.clear_site(slot))?;
            vacant.tenants.iter().try_for_each(|slot| directory.clear_tenant(*slot))?;
            vacant.rows_of_rules().try_for_each(|row| directory.clear_rule(row))?;
            super::enter(directory, &plan.desired, &plan.seats, ports)?;
            directory.config_hash(plan.desired.digest.0);
            Ok::<_, stats::Full>(())
        });
        if let Err(error) = written {
            tracing::error!("{error}"); // `make_room` has made it
        }
        vacant.ends().for_each(|slot| self.forget_site(slot));
        if !vacant.is_empty() {
            self.reload.left.push((clock::now(), vacant));
        }
    }
}

/// Waits until all workers have dropped what was sent to them, which takes them a turn; but not for ever.
fn await_workers(workers: &mut [(ControlEnd, Arc<Rows>)], sent: &mut Arc<Vacant>) {
    for _ in 0..LOOKS {
        workers.iter_mut().for_each(|(mail, _)| _ = mail.flush());
        if Arc::get_mut(sent).is_some() {
            return;
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests;
