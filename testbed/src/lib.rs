//! Labs of network namespaces on this machine, and in them a hub, the routers and stock WireGuard sites around it: for
//! the end-to-end tests and the demo.
//!
//! ```text
//!                 hub                     inet (routes, nothing else)             a site: a stock client
//!        +---------------------+      +-------------------------------+      +----------------------------+
//!        | d0  192.0.2.1       |------| h0 .254           s1 198.18.1.1|------| w0 198.18.1.2   k… 10.9.1.1 |
//!        | d1  203.0.113.1     |------| h1 .254           s2 198.18.2.1|------| …                          |
//!        +---------------------+      +-------------------------------+      +----------------------------+
//! ```
//!
//! Further hubs, each in a namespace of its own, are at the same router (backbone.rs).
//!
//! Everything runs as processes: the `ekiden` binary, `wg`, the clients, `ping`, `iperf3`. Nothing that a lab makes
//! outlives it: not on success, failure, panic or Ctrl-C, and what a lab that was killed leaves behind is removed by the
//! next one.

pub mod attack;
pub mod backbone;
pub mod client;
pub mod crowd;
pub mod dice;
pub mod fairness;
pub mod flood;
pub mod hub;
pub mod impair;
pub mod lab;
pub mod lan;
mod leftovers;
pub mod load;
pub mod many;
pub mod probe;
pub mod process;
pub mod rogue;
pub mod rogue_hub;
pub mod tap;
pub mod terminal;
pub mod wait;
pub mod world;

pub use backbone::Backbone;
pub use client::{Client, First, Outside, Plan, Site};
pub use crowd::Crowd;
pub use dice::Dice;
pub use hub::{Hub, Status};
pub use lab::{Lab, Namespace};
pub use lan::{Lan, Server};
pub use load::Load;
pub use many::ManyAddresses;
pub use probe::{Iperf, Transfer, iperf_both_ways};
pub use process::Process;
pub use rogue::Rogue;
pub use rogue_hub::RogueHub;
pub use tap::{Capture, Seen, Tap};
pub use wait::until;
pub use world::World;
