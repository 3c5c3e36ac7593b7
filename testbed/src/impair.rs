//! A bad path: a wire that loses, doubles, delays and reorders what passes, as a seed says. Not every kernel has netem.
//!
//! ```text
//!   a host's w0, or a hub's d0 ---- p0 ||this|| p1 ---- the router's s1, or h0
//! ```

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFlags, Timespec, poll};

use crate::attack::{Kind, message};
use crate::dice::Dice;
use crate::lab::{Lab, Namespace};
use crate::tap::Tap;
use crate::world::{HUB_PORT, Host, World};

/// How bad a path is, in both directions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Of a thousand frames so many are lost.
    pub lost: u64,
    /// Of a thousand data messages so many come twice.
    pub doubled: u64,
    /// Of a thousand frames so many are late by `late`.
    pub reordered: u64,
    /// How late.
    pub late: Duration,
    /// What every frame takes.
    pub delay: Duration,
    /// Of what comes from or goes to this UDP port alone, as a lane of a trunk does; none: of all.
    pub port: Option<u16>,
}

/// What it did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Done {
    /// Frames lost.
    pub lost: u64,
    /// Data messages to the hub that came twice.
    pub doubled_to_hub: u64,
    /// Frames that later ones overtook.
    pub reordered: u64,
    /// Data messages that passed to the hub.
    pub to_hub: u64,
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    done: Done,
    dice: Dice,
    /// The next data message to the hub is to wait until so many others have passed.
    hold: Option<u64>,
    /// It waits, and for so many more.
    held: Option<(u64, Vec<u8>)>,
}

/// A path in trouble. Its wires go with the lab.
#[derive(Debug)]
pub struct Impairment {
    state: Arc<Mutex<State>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Impairment {
    /// Cuts the wire between a host and the router, and puts itself in between. To be done before anything runs there.
    pub fn cut(lab: &mut Lab, world: &World, host: &Host) -> Result<Self> {
        Self::between(lab, world, (&host.namespace, "w0"), &host.uplink)
    }

    /// The same between a hub and the router.
    pub fn before_hub(lab: &mut Lab, world: &World) -> Result<Self> {
        Self::between(lab, world, (&world.hub, "d0"), &world.uplink)
    }

    fn between(lab: &mut Lab, world: &World, end: (&Namespace, &str), uplink: &str) -> Result<Self> {
        let path = lab.namespace(&format!("path-{uplink}"))?;
        let ends = [(end.0, end.1, "p0"), (&world.inet, uplink, "p1")];
        let before: Vec<_> = ends.iter().map(|(end, interface, _)| settings(end, interface)).collect::<Result<_>>()?;
        // With one end goes the other.
        end.0.ip(&format!("link del {}", end.1))?;
        for ((end, interface, near), settings) in ends.into_iter().zip(before) {
            lab.wire((end, interface), (&path, near), 1)?;
            settings.iter().try_for_each(|words| end.ip(words))?;
        }
        let (near_host, near_router) = (Tap::open(&path, "p0")?, Tap::open(&path, "p1")?);
        let trouble = Trouble::default();
        let state = State { trouble, done: Done::default(), dice: Dice::new(), hold: None, held: None };
        let (state, ended) = (Arc::new(Mutex::new(state)), Arc::<AtomicBool>::default());
        let (theirs, end) = (state.clone(), ended.clone());
        let thread = std::thread::spawn(move || forward(&[near_host, near_router], &theirs, &end));
        Ok(Self { state, ended, thread: Some(thread) })
    }

    fn look<R>(&self, at: impl FnOnce(&mut State) -> R) -> R {
        at(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on it is as bad as this.
    pub fn set(&self, trouble: Trouble) {
        self.look(|state| state.trouble = trouble);
    }

    /// What it has done.
    pub fn done(&self) -> Done {
        self.look(|state| state.done)
    }

    /// Holds the next data message to the hub back until so many others have passed, and lets it go then.
    pub fn hold_one(&self, until: u64) {
        self.look(|state| state.hold = Some(until));
    }

    /// Whether nothing is held back.
    pub fn holds_nothing(&self) -> bool {
        self.look(|state| state.hold.is_none() && state.held.is_none())
    }
}

impl Drop for Impairment {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the impairment: {error:#}");
        }
    }
}

/// The words for `ip` that give an interface its addresses and default routes again.
fn settings(end: &Namespace, interface: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for line in end.run("ip", &["-o", "addr", "show", "dev", interface, "scope", "global"])?.lines() {
        let address = line.split_whitespace().nth(3).context("an address")?;
        let nodad = if address.contains(':') { " nodad" } else { "" };
        all.push(format!("addr add {address} dev {interface}{nodad}"));
    }
    for family in ["-4", "-6"] {
        for line in end.run("ip", &[family, "route", "show", "default", "dev", interface])?.lines() {
            let via = line.split_whitespace().nth(2).context("a gateway")?;
            all.push(format!("{family} route add default via {via} dev {interface}"));
        }
    }
    Ok(all)
}

/// When a frame goes on, a number that keeps equals in their order, by which tap, and the frame.
type Due = Reverse<(Instant, u64, usize, Vec<u8>)>;

fn forward(taps: &[Tap; 2], state: &Mutex<State>, ended: &AtomicBool) -> Result<()> {
    let mut waiting = BinaryHeap::<Due>::new();
    let mut number = 0;
    while !ended.load(Ordering::Relaxed) {
        // 1. What has come.
        for (from, tap) in taps.iter().enumerate() {
            for seen in tap.drain()?.into_iter().filter(|seen| !seen.outgoing) {
                let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
                for (after, frame) in state.judge(seen.bytes) {
                    number += 1;
                    waiting.push(Reverse((Instant::now() + after, number, 1 - from, frame)));
                }
            }
        }
        // 2. What goes on now.
        while let Some(Reverse((due, ..))) = waiting.peek() {
            if *due > Instant::now() {
                break;
            }
            let Some(Reverse((_, _, to, frame))) = waiting.pop() else { break };
            taps[to].send(&frame)?;
        }
        // 3. Until the next of either.
        let next = waiting
            .peek()
            .map_or(Duration::from_millis(20), |Reverse((due, ..))| due.saturating_duration_since(Instant::now()));
        let mut fds = taps.each_ref().map(|tap| tap.poll_fd(PollFlags::IN));
        poll(&mut fds, Some(&Timespec::try_from(next.min(Duration::from_millis(20)))?))?;
    }
    Ok(())
}

impl State {
    /// What becomes of a frame: each copy of it with the time that it takes.
    fn judge(&mut self, mut frame: Vec<u8>) -> Vec<(Duration, Vec<u8>)> {
        let Some(message) = message(&frame) else { return vec![(Duration::ZERO, frame)] };
        // A checksum that the sender's kernel left to its network card: over IPv4, zero is none. IPv6 can't do without, so
        // over IPv6 the hosts must compute it.
        if message.source.is_ipv4() {
            frame[message.place.start - 2..message.place.start].fill(0);
        }
        let meant = |port| [message.source.port(), message.destination.port()].contains(&port);
        let trouble = if self.trouble.port.is_none_or(meant) { self.trouble } else { Trouble::default() };
        let Trouble { lost, doubled, reordered, late, delay, port: _ } = trouble;
        let data = message.kind == Kind::Data as u8;
        let data_to_hub = data && message.destination.port() == HUB_PORT;
        let mut out = Vec::new();
        if data_to_hub {
            if let Some(until) = self.hold.take() {
                self.held = Some((until, frame));
                return out;
            }
            self.done.to_hub += 1;
            self.held = self.held.take().map(|(left, held)| (left - 1, held));
        }
        if self.dice.per_mille(lost) {
            self.done.lost += 1;
        } else {
            if data && self.dice.per_mille(doubled) {
                self.done.doubled_to_hub += u64::from(data_to_hub);
                out.push((delay + self.dice_late(reordered, late), frame.clone()));
            }
            out.push((delay + self.dice_late(reordered, late), frame));
        }
        if let Some((_, held)) = self.held.take_if(|(left, _)| *left == 0) {
            out.push((delay, held));
        }
        out
    }

    fn dice_late(&mut self, reordered: u64, late: Duration) -> Duration {
        let is_late = self.dice.per_mille(reordered);
        self.done.reordered += u64::from(is_late);
        if is_late { late } else { Duration::ZERO }
    }
}
