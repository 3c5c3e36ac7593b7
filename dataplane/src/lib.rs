//! The hub: AF_XDP, workers and the journey of a frame, sessions, control.
//!
//! Begin with [`worker`]: it is the page on which a frame's way through the hub can be read from top to bottom.

pub mod access;
pub mod announce;
pub mod api;
pub mod caps;
pub mod clock;
pub mod config;
pub mod control;
pub mod depot;
pub mod fit;
mod foresee;
pub mod hold;
pub mod lane_mtu;
pub mod liveness;
pub mod logging;
pub mod mailbox;
pub mod memory;
pub mod monitor;
#[cfg(test)]
#[path = "../tests/mutate/mod.rs"]
mod mutate;
pub mod neighbours;
pub mod notify;
pub mod numa;
pub mod orders;
pub mod packet;
pub mod path_mtu;
pub mod paths;
mod policy;
pub mod ports;
pub mod prefixes;
mod probe;
pub mod rates;
pub mod reassembly;
pub mod rehearsal;
pub mod reserve;
pub mod seats;
pub mod seccomp;
pub mod site_config;
pub mod sites;
pub mod staging;
pub mod start;
pub mod state;
pub mod status;
pub mod team;
pub mod tenants;
pub mod trunk;
pub mod underlay;
pub mod worker;
pub mod xsk;
