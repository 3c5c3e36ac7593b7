//! Other hubs, and what of a tenant is behind them.

use std::net::SocketAddr;
use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

use crypto::aead::Cipher;
use ipnet::IpNet;
use wire::TenantId;

use super::errors::Origin;
use super::{Name, PresharedKey, PublicKey};

/// Lanes that a trunk may have.
pub const LANES_MAX: usize = 16;

/// The priority of a route that says nothing of it, and of the prefixes of sites and access ends.
pub const PRIORITY: u16 = 100;

/// Another hub, and what goes between it and this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trunk {
    /// Its name.
    pub name: Name,
    /// The other hub's key.
    pub public_key: PublicKey,
    /// The key that both hubs share besides their pairs.
    pub preshared_key: Option<PresharedKey>,
    /// Where the other hub is, by its listen port: lane *i* is *i* ports further. None: it calls.
    pub endpoint: Option<SocketAddr>,
    /// What packets are sealed with: the same at both ends.
    pub cipher: Cipher,
    /// Whose packets it may carry.
    pub carries: Carries,
    /// Sessions beside each other, at most [`LANES_MAX`]: the same at both ends.
    pub lanes: NonZeroU8,
    /// What comes by it may leave by another trunk.
    pub transit: bool,
    /// How often each lane is probed; three that are missed take it down.
    pub probe_interval: Duration,
    /// Whether outer IPv4 packets carry a real UDP checksum.
    pub udp_checksum: bool,
    /// The largest inner packet that it is sent; none: what its path takes.
    pub mtu: Option<NonZeroU16>,
    /// Where it is configured.
    pub origin: Origin,
}

/// Whose packets a trunk may carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Those of all tenants of this hub.
    All,
    /// Those of these tenants, each once.
    Some(Vec<TenantId>),
}

impl Trunk {
    /// Whether it may carry packets of a tenant.
    pub fn carries(&self, tenant: TenantId) -> bool {
        match &self.carries {
            Carries::All => true,
            Carries::Some(tenants) => tenants.contains(&tenant),
        }
    }
}

/// A way to a prefix of a tenant.
///
/// Of several ways to the same prefix, the live one with the smallest priority is used. Of different prefixes that hold an address,
/// the longest counts, as everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix: a network without host bits.
    pub prefix: IpNet,
    /// What leads there.
    pub via: Via,
    /// Which of several ways is preferred: the smallest, as with the kernel's metric.
    pub priority: u16,
    /// Where it is configured.
    pub origin: Origin,
}

/// What leads to a prefix: an end of the tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The trunk of this name, which carries this tenant.
    Trunk(Name),
    /// The tenant's site of this name.
    Site(Name),
    /// The tenant's access end of this name, as [`super::Access::name`] has it.
    Access(String),
}
