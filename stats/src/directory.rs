//! Who is in which slot: written by control, under the segment's sequence.

use crate::layout::{Kind, PortEntry, RingHead, RuleEntry, SiteEntry, TenantEntry, WorkerEntry, read_text, write_text};
use crate::segment::Segment;
use crate::sequence::Counter;
use crate::snapshot::{CARRIED, SiteKind};
use wire::{PortIndex, SiteSlot, TenantId, TenantSlot};

/// The tenant of what is no tenant's.
const NOBODY: u64 = u64::MAX;

/// There is no such slot yet: the segment must grow first ([`Segment::grow`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the statistics segment has {room} slots of this kind, and slot {slot} was asked for")]
pub struct Full {
    /// The slot.
    pub slot: usize,
    /// Slots that there are.
    pub room: usize,
}

/// The directory while it is changed.
#[derive(Debug)]
pub struct Directory<'a> {
    segment: &'a Segment,
}

impl<'a> Directory<'a> {
    pub(crate) fn of(segment: &'a Segment) -> Self {
        Self { segment }
    }

    /// The configuration that the directory is of.
    pub fn config_hash(&mut self, hash: u64) {
        self.segment.header().config_hash.set(hash);
    }

    /// A tenant. Another id in a slot is another tenant, whose counters the workers have cleared; another code or label is not.
    pub fn tenant(&mut self, slot: TenantSlot, id: TenantId, service_code: &str, label: &str) -> Result<(), Full> {
        let entry = self.entry::<TenantEntry>(Kind::Tenants, slot.index())?;
        let same = entry.id.read() == u64::from(id.as_u32());
        self.occupy(&entry.generation, same, slot.index(), &[Kind::TenantHistory]);
        entry.id.set(id.as_u32().into());
        write_text(&entry.service_code, service_code);
        write_text(&entry.label, label);
        Ok(())
    }

    /// A site. Another tenant or name in a slot is another site, whose counters the workers have cleared.
    pub fn site(&mut self, slot: SiteSlot, tenant: TenantSlot, name: &str) -> Result<(), Full> {
        self.end(slot, tenant.0.into(), SiteKind::Site, name)
    }

    /// An end of a tenant at an access port, by its name: `eth1.100`.
    pub fn access(&mut self, slot: SiteSlot, tenant: TenantSlot, name: &str) -> Result<(), Full> {
        self.end(slot, tenant.0.into(), SiteKind::Access, name)
    }

    /// What a trunk carries of a tenant. Its name in the tenant is `trunk:NAME`.
    pub fn carried(&mut self, slot: SiteSlot, tenant: TenantSlot, trunk: &str) -> Result<(), Full> {
        self.end(slot, tenant.0.into(), SiteKind::Trunk, &format!("{CARRIED}{trunk}"))
    }

    /// A lane of a trunk, which is no tenant's. Its name is `NAME/0`, `NAME/1`...
    pub fn lane(&mut self, slot: SiteSlot, trunk: &str, lane: usize) -> Result<(), Full> {
        self.end(slot, NOBODY, SiteKind::Lane, &format!("{trunk}/{lane}"))
    }

    fn end(&mut self, slot: SiteSlot, tenant: u64, kind: SiteKind, name: &str) -> Result<(), Full> {
        let entry = self.entry::<SiteEntry>(Kind::Sites, slot.index())?;
        let known = (entry.tenant.read(), entry.kind.read());
        let same = known == (tenant, kind as u64) && read_text(&entry.name) == name;
        self.occupy(&entry.generation, same, slot.index(), &[Kind::SiteHistory, Kind::SiteHistoryLong]);
        entry.tenant.set(tenant);
        entry.kind.set(kind as u64);
        write_text(&entry.name, name);
        Ok(())
    }

    /// A port, its receive queues, and the entries of the ring of each.
    pub fn port(&mut self, port: PortIndex, name: &str, queues: u32, ring_entries: u32) -> Result<(), Full> {
        let entry = self.entry::<PortEntry>(Kind::Ports, port.index())?;
        let same = read_text(&entry.name) == name;
        self.occupy(&entry.generation, same, port.index(), &[]);
        entry.queues.set(queues.into());
        entry.ring_entries.set(ring_entries.into());
        write_text(&entry.name, name);
        Ok(())
    }

    /// A worker.
    pub fn worker(&mut self, worker: usize, core: usize, chunks: u32) -> Result<(), Full> {
        let entry = self.entry::<WorkerEntry>(Kind::Workers, worker)?;
        self.occupy(&entry.generation, true, worker, &[]);
        entry.core.set(core as u64);
        entry.chunks.set(chunks.into());
        Ok(())
    }

    /// A rule of a tenant's filter. Another tenant, name or action in a slot is another rule.
    pub fn rule(&mut self, slot: u32, tenant: TenantSlot, name: &str, deny: bool) -> Result<(), Full> {
        let entry = self.entry::<RuleEntry>(Kind::Rules, slot as usize)?;
        let action = 1 + u64::from(deny);
        let same = entry.tenant.read() == u64::from(tenant.0)
            && entry.action.read() == action
            && read_text(&entry.name) == name;
        self.occupy(&entry.generation, same, slot as usize, &[]);
        entry.tenant.set(tenant.0.into());
        entry.action.set(action);
        write_text(&entry.name, name);
        Ok(())
    }

    /// A tenant is gone; its slot may be used again, by another.
    pub fn clear_tenant(&mut self, slot: TenantSlot) -> Result<(), Full> {
        let entry = self.entry::<TenantEntry>(Kind::Tenants, slot.index())?;
        vacate(&entry.generation);
        Ok(())
    }

    /// A site is gone; its slot may be used again, by another.
    pub fn clear_site(&mut self, slot: SiteSlot) -> Result<(), Full> {
        let entry = self.entry::<SiteEntry>(Kind::Sites, slot.index())?;
        vacate(&entry.generation);
        Ok(())
    }

    /// A rule is gone; its slot may be used again, by another.
    pub fn clear_rule(&mut self, slot: u32) -> Result<(), Full> {
        let entry = self.entry::<RuleEntry>(Kind::Rules, slot as usize)?;
        vacate(&entry.generation);
        Ok(())
    }

    fn entry<T: crate::sys::Plain + 'a>(&self, kind: Kind, slot: usize) -> Result<&'a T, Full> {
        let section = self.segment.layout.section(kind);
        let room = self.segment.layout.used(&self.segment.map, kind);
        if slot >= room {
            return Err(Full { slot, room });
        }
        Ok(&self.segment.own_rows(section.at(0, slot), 1)[0])
    }

    /// Gives the slot another generation, unless `same` says that who is in it stays.
    fn occupy(&self, generation: &Counter, same: bool, slot: usize, histories: &[Kind]) {
        let now = generation.read();
        if now % 2 == 1 && same {
            return;
        }
        generation.set(now + 1 + now % 2);
        for kind in histories {
            let ring = self.segment.layout.section(*kind);
            let head: &RingHead = &self.segment.own_rows(ring.at(0, slot), 1)[0];
            head.first.set(head.next.read());
        }
    }
}

/// Makes the generation even: the slot is empty.
fn vacate(generation: &Counter) {
    let now = generation.read();
    generation.set(now + now % 2);
}
