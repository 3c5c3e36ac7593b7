//! The program's object, as the build compiled it, and its load for one port.
#![allow(unsafe_code, reason = "the generated skeleton")]

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::sync::Mutex;

use libbpf_rs::skel::{OpenSkel, SkelBuilder};
use libbpf_rs::{PrintLevel, set_print};

use crate::maps::Maps;
use crate::{Error, Options, Program, Rate};

#[allow(
    missing_docs,
    unreachable_pub,
    single_use_lifetimes,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::undocumented_unsafe_blocks,
    reason = "generated; its documentation is steer.bpf.c"
)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/steer.skel.rs"));
}

pub(crate) use skeleton::{OpenSteerMaps, SteerMaps, types};

/// Loads the program for a port, with maps of its own, or with those of another port's load; bound to an interface, if it is to be
/// told of tags beside a frame. Such a one can be attached nowhere else, and not be run by test-run.
///
/// The descriptors returned are all that is kept of the skeleton: the kernel holds the maps by the program.
pub(crate) fn load(
    options: &Options,
    port: u16,
    shared: Option<&Maps>,
    bound_to: Option<u32>,
) -> Result<(Program, Maps), Error> {
    let _quiet = Capture::start();
    let refused = |source| Error::Load { source, log: Capture::take() };

    let mut object = MaybeUninit::uninit();
    let mut open = skeleton::SteerSkelBuilder::default().open(&mut object).map_err(refused)?;
    let limits = &options.limits;
    let constants = open.maps.rodata_data.as_deref_mut().expect("the program has constants");
    constants.port_index = port.into();
    constants.session_mask = slots(options) - 1;
    (constants.known_interval_ns, constants.known_burst_ns) = nanoseconds(limits.known_source);
    (constants.stranger_interval_ns, constants.stranger_burst_ns) = nanoseconds(limits.strangers);
    (constants.fragment_interval_ns, constants.fragment_burst_ns) = nanoseconds(limits.fragments);
    (constants.neighbour_interval_ns, constants.neighbour_burst_ns) = nanoseconds(limits.neighbours);
    let roles = options.roles(port);
    (constants.has_wan, constants.has_access) = (roles.wan, roles.access);
    constants.has_frags = options.frags(port);
    constants.port_queues = options.rings.queues;
    constants.queue_sockets = options.sockets_max();
    constants.own_sockets = options.sockets(port);
    constants.ring_entries = options.rings.entries;
    constants.ring_shares += options.sites; // to those that the program has besides
    constants.stamp_mask = (1 << options.stamp_bits.min(63)) - 1;
    let (rings, shares) =
        (u32::from(options.rings.ports) * options.rings.queues * options.sockets_max(), constants.ring_shares);
    match shared {
        Some(maps) => maps.reuse(&mut open.maps).map_err(refused)?,
        None => {
            open.maps.xsks.set_max_entries(rings).map_err(refused)?;
            open.maps.rings.set_max_entries(rings).map_err(refused)?;
            open.maps.shares.set_max_entries(rings.saturating_mul(shares)).map_err(refused)?;
            open.maps.sessions.set_max_entries(slots(options)).map_err(refused)?;
            open.maps.access_ends.set_max_entries(options.access_ends.max(1)).map_err(refused)?;
            open.maps.known_sources.set_max_entries(limits.known_sources.max(1)).map_err(refused)?;
        }
    }
    open.progs.steer.set_autoload(bound_to.is_none());
    open.progs.steer_tagged.set_autoload(bound_to.is_some());
    let frags = if options.frags(port) { libbpf_sys::BPF_F_XDP_HAS_FRAGS } else { 0 };
    open.progs.steer.set_flags(frags);
    if let Some(ifindex) = bound_to {
        open.progs.steer_tagged.set_ifindex(ifindex);
        open.progs.steer_tagged.set_flags(frags | libbpf_sys::BPF_F_XDP_DEV_BOUND_ONLY);
    }
    let loaded = open.load().map_err(refused)?;
    let program = if bound_to.is_some() { loaded.progs.steer_tagged.as_fd() } else { loaded.progs.steer.as_fd() };
    let program = program.try_clone_to_owned().map_err(Error::Descriptor)?;
    Ok((Program(program), Maps::of(&loaded.maps).map_err(refused)?))
}

fn slots(options: &Options) -> u32 {
    1 << options.session_bits
}

/// A rate as the program takes it: the time of one token, and the time in which an empty bucket fills.
fn nanoseconds(rate: Rate) -> (u64, u64) {
    match 1_000_000_000u64.checked_div(rate.per_second.into()) {
        Some(interval) => (interval, interval * u64::from(rate.burst)),
        None => (1, 0),
    }
}

/// Collects what libbpf prints while it is alive, instead of writing it to stderr. libbpf has one printer in a process,
/// so what another thread makes it print at the same time is collected here too.
struct Capture(Option<(PrintLevel, libbpf_rs::PrintCallback)>);

static CAPTURED: Mutex<String> = Mutex::new(String::new());

/// What is kept: the last lines, where the verifier says what it refused.
const CAPTURED_LINES: usize = 8;

impl Capture {
    fn start() -> Self {
        Self::take();
        Self(set_print(Some((PrintLevel::Warn, |_, line| {
            let mut captured = CAPTURED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            captured.push_str(&line);
        }))))
    }

    fn take() -> String {
        let text = std::mem::take(&mut *CAPTURED.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(CAPTURED_LINES)..].join("\n")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        set_print(self.0.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_an_interval_and_the_time_of_a_burst() {
        assert_eq!(nanoseconds(Rate { per_second: 2_000, burst: 4_000 }), (500_000, 2_000_000_000));
        assert_eq!(
            nanoseconds(Rate { per_second: 0, burst: 5 }),
            (1, 0),
            "closed: one interval never fits a burst of 0"
        );
        let (_, longest) = nanoseconds(Rate { per_second: 1, burst: u32::MAX });
        assert!(longest < u64::MAX / 4, "far from overflow, added to a clock");
    }
}
