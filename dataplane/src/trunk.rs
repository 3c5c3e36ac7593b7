//! What hubs carry for each other, as a worker knows it.

use crate::config::LANES_MAX;
use ahash::AHashMap;
use arrayvec::ArrayVec;
use wire::{SiteSlot, TenantId};

/// A trunk, as workers need it: replaced as a whole when anything of it changes.
#[derive(Debug, Default)]
pub struct Trunk {
    /// All lanes, in their order: each has a session and a way of its own, like a site's.
    pub lanes: ArrayVec<SiteSlot, LANES_MAX>,
    /// The lanes that packets go by: those that are up, or all if none is.
    pub live: ArrayVec<SiteSlot, LANES_MAX>,
    /// The end that this trunk is to each tenant that it may carry.
    pub carried: AHashMap<TenantId, SiteSlot>,
    /// The tenants that this hub has, but that this trunk may not carry, are told apart from those that it has not.
    pub denied: ahash::AHashSet<TenantId>,
    /// What comes by it may leave by another trunk.
    pub transit: bool,
    /// The longest inner packet that fits every lane that is up, if the way is open.
    pub payload_max: Option<u16>,
}
