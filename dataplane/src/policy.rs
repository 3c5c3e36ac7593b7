//! The stages that ask what a tenant wants and what it has been sold: its filter, and the rates of its contract.
//!
//! Both cost a hub without filters, or without rates, one branch a batch.

use crate::packet::Batch;
use crate::rates::take_all;
use crate::worker::Journey;
use classifier::Verdict;
use classifier::filter::Action;
use crypto::Time;
use wire::DropReason;

impl Journey {
    /// What the tenant's own rules say of each packet.
    pub(crate) fn filter(&mut self, batch: &mut Batch) {
        if !self.tables.has_filters() {
            return;
        }
        for packet in batch.iter_mut().filter(|p| p.goes_on()) {
            let Some(tenant) = packet.tenant else { unreachable!("a checked packet has a tenant") };
            match self.tables.filter(tenant, packet.frame.bytes()) {
                None => {}
                Some(Verdict::Unreadable) => packet.drop(DropReason::FilterUnreadable),
                // It is no packet of the tenant's.
                Some(Verdict::Rule(_, Action::Deny)) if self.take_reply(packet) => {}
                Some(Verdict::Rule(row, action)) => {
                    let rule = self.rows.rule(row);
                    rule.bytes.add(packet.inner_len.into());
                    rule.packets.add(1);
                    if action == Action::Deny {
                        packet.drop(DropReason::FilterDenied);
                    }
                }
            }
        }
    }

    /// Whether the contracts have room for each packet: the sender's and the receiver's own rates, and those of their tenant.
    pub(crate) fn police(&mut self, batch: &mut Batch, now: Time) {
        if !self.sites.are_limited() {
            return;
        }
        for run in batch.chunk_by_mut(|a, b| (a.from, a.to) == (b.from, b.to)) {
            let (from, to) = (self.sites.at(run[0].from), self.sites.at(run[0].to));
            if from.limits.is_none() && to.limits.is_none() {
                continue;
            }
            let up = from.limits.iter().flat_map(|limits| &limits.up);
            let down = to.limits.iter().flat_map(|limits| &limits.down);
            let all = up.chain(down);
            let bytes = run.iter().filter(|p| p.goes_on()).map(|packet| u64::from(packet.inner_len)).sum();
            // If there is room for all of the run there is for each, and one look is enough.
            if bytes == 0 || take_all(all.clone(), now, bytes).is_ok() {
                continue;
            }
            for packet in run.iter_mut().filter(|p| p.goes_on()) {
                if let Err(reason) = take_all(all.clone(), now, packet.inner_len.into()) {
                    packet.drop(reason);
                    match reason {
                        DropReason::RateSiteUp | DropReason::RateTenantUp => {
                            self.rows.site(packet.from).rx_over_rate.add(1);
                        }
                        _ => self.rows.site(packet.to).tx_over_rate.add(1),
                    }
                }
            }
        }
    }
}
