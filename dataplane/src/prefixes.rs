//! Prefixes of tenants in order, so that those that overlap another are found without looking at all.

use ipnet::IpNet;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use wire::TenantId;

/// A tenant's prefix, ordered by tenant, IP version, first address and length: what lies in a prefix follows it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Key {
    tenant: TenantId,
    v6: bool,
    /// Of IPv4, the upper 32.
    bits: u128,
    len: u8,
}

impl Key {
    pub(crate) fn new(tenant: TenantId, prefix: IpNet) -> Self {
        let (v6, bits) = match prefix.network() {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits()) << 96),
            IpAddr::V6(v6) => (true, v6.to_bits()),
        };
        Self { tenant, v6, bits, len: prefix.prefix_len() }
    }

    pub(crate) fn tenant(&self) -> TenantId {
        self.tenant
    }

    pub(crate) fn prefix(&self) -> IpNet {
        let address = match self.v6 {
            false => IpAddr::V4(((self.bits >> 96) as u32).into()),
            true => IpAddr::V6(self.bits.into()),
        };
        // A key is made of a prefix alone.
        IpNet::new(address, self.len).unwrap_or(IpNet::from(address))
    }

    /// The bits beyond a length, all set.
    fn beyond(len: u8) -> u128 {
        u128::MAX.checked_shr(len.into()).unwrap_or(0)
    }

    /// The prefix of this length around it.
    fn around(self, len: u8) -> Self {
        Self { bits: self.bits & !Self::beyond(len), len, ..self }
    }

    /// The last of all that lie in it.
    fn last(self) -> Self {
        Self { bits: self.bits | Self::beyond(self.len), len: u8::MAX, ..self }
    }
}

/// Something for each of some prefixes.
#[derive(Clone, Debug)]
pub struct Prefixes<T> {
    map: BTreeMap<Key, T>,
    /// How many there are of each length, of IPv4 and IPv6.
    lengths: [[u32; 129]; 2],
}

impl<T> Default for Prefixes<T> {
    fn default() -> Self {
        Self { map: BTreeMap::new(), lengths: [[0; 129]; 2] }
    }
}

impl<T> Prefixes<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// What there is for this very prefix.
    pub fn get(&self, tenant: TenantId, prefix: IpNet) -> Option<&T> {
        self.map.get(&Key::new(tenant, prefix))
    }

    /// The same, to change it.
    pub fn get_mut(&mut self, tenant: TenantId, prefix: IpNet) -> Option<&mut T> {
        self.map.get_mut(&Key::new(tenant, prefix))
    }

    /// What there is for this very prefix; `new` if there was nothing.
    pub fn or_insert_with(&mut self, tenant: TenantId, prefix: IpNet, new: impl FnOnce() -> T) -> &mut T {
        let key = Key::new(tenant, prefix);
        let count = &mut self.lengths[usize::from(key.v6)][usize::from(key.len)];
        self.map.entry(key).or_insert_with(|| {
            *count += 1;
            new()
        })
    }

    /// Puts something in place of what there was.
    pub fn insert(&mut self, tenant: TenantId, prefix: IpNet, value: T) -> Option<T> {
        let key = Key::new(tenant, prefix);
        let before = self.map.insert(key, value);
        self.lengths[usize::from(key.v6)][usize::from(key.len)] += u32::from(before.is_none());
        before
    }

    /// Takes away what there was.
    pub fn remove(&mut self, tenant: TenantId, prefix: IpNet) -> Option<T> {
        self.remove_key(&Key::new(tenant, prefix))
    }

    pub(crate) fn remove_key(&mut self, key: &Key) -> Option<T> {
        let before = self.map.remove(key)?;
        self.lengths[usize::from(key.v6)][usize::from(key.len)] -= 1;
        Some(before)
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = (TenantId, IpNet, &T)> {
        self.map.iter().map(|(key, value)| (key.tenant, key.prefix(), value))
    }

    /// Those behind a key, or all, in order.
    pub(crate) fn after(&self, key: Option<Key>) -> impl Iterator<Item = (&Key, &T)> {
        self.map.range((key.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded))
    }

    /// All of a tenant's that are equal to a prefix, or around it, or inside: the shortest first of those around it, then the others in
    /// order.
    pub fn overlapping(&self, tenant: TenantId, prefix: IpNet) -> impl Iterator<Item = (IpNet, &T)> {
        let key = Key::new(tenant, prefix);
        let lengths = &self.lengths[usize::from(key.v6)];
        let around = (0..key.len).filter(|len| lengths[usize::from(*len)] > 0).map(move |len| key.around(len));
        let around = around.filter_map(|key| self.map.get_key_value(&key));
        around.chain(self.map.range(key..=key.last())).map(|(key, value)| (key.prefix(), value))
    }

    /// Whether there is any of these.
    pub fn overlaps(&self, tenant: TenantId, prefix: IpNet) -> bool {
        self.overlapping(tenant, prefix).next().is_some()
    }
}

#[cfg(test)]
mod tests;
