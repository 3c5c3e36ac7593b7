//! What every room of Ekiden agrees on: who a packet belongs to, why it was dropped, and how its headers read.
//!
//! No I/O, no state, no `unsafe`: a header view is checked once, when it is made, and can't be wrong afterwards.
//!
//! The protocols have one shape: `HEADER` (the fixed header's length), `View` (checked by `parse`, read by accessors)
//! and `Fields` (what `emit` writes). On them stand what the journey uses: [`Outer`] and [`Template`] for the tunnel's
//! headers on the way in and out, [`Inner`] for the packet inside, [`icmp`] for what the hub answers itself.
#![forbid(unsafe_code)]

pub mod arp;
pub mod checksum;
mod drop;
pub mod echo;
pub mod ecn;
pub mod ethernet;
mod flow;
pub mod fragment;
pub mod geneve;
pub mod hub;
pub mod icmp;
mod id;
mod inner;
pub mod ipv4;
pub mod ipv6;
mod malformed;
pub mod ndisc;
mod outer;
pub mod tcp;
mod template;
pub mod transport;
pub mod udp;
pub mod vlan;

pub use drop::{DROP_REASONS, DropReason};
pub use ecn::Ecn;
pub use flow::{Flow, Upper, has_ports, spread};
pub use id::{OutOfRange, PortIndex, SiteSlot, TenantId, TenantSlot};
pub use inner::{Inner, decrement_ttl, is_martian};
pub use malformed::Malformed;
pub use outer::{Endpoints, Outer};
pub use template::{FamilyMismatch, HANDSHAKE_TOS, Path, Template, forbid_cuts};
pub use vlan::Vlan;
