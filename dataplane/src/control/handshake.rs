//! Handshake messages and fragments, as the workers passed them on.

use super::sites::fill_random;
use super::{Control, Endpoint};
use crate::clock;
use crate::mailbox::{Order, Parcel, Source};
use crate::reassembly::Outcome;
use crypto::HandshakeError;
use crypto::cookie::Verdict;
use crypto::message::{self, Kind, Outgoing};
use crypto::peer::Action;
use std::time::Duration;
use wire::{DropReason, HANDSHAKE_TOS, Malformed, Outer, PortIndex, SiteSlot, Template};

/// Parcels read from one worker before everything else has its turn: some 10 ms of handshakes.
pub(super) const PER_TURN: usize = 64;
/// So many parcels waiting mean load: from then on strangers need a cookie.
const LOADED: usize = 32;
/// How long the hub counts as loaded afterwards, as in the kernel.
const LOADED_FOR: Duration = Duration::from_secs(1);
/// The same, when XDP dropped initiations of strangers: it is asked once a second.
const FLOODED_FOR: Duration = Duration::from_millis(2500);

impl Control {
    /// A parcel of a worker: a handshake message, or a fragment.
    pub(super) fn receive(&mut self, worker: usize, parcel: &Parcel) {
        let frame = parcel.frame();
        let port = match parcel.from {
            Source::Port(port) => port,
            Source::Lane(_) => return self.figures.drops.count(DropReason::TrunkControl, frame.len()),
        };
        if let Some(heard) = self.hear_access(port, frame) {
            if let Err(reason) = heard {
                self.figures.drops.count(reason, frame.len());
            }
            return;
        }
        match Outer::parse(frame) {
            Ok(outer) => {
                let datagram = &frame[outer.payload.clone()];
                if let Err(reason) = self.handshake(worker, (port, frame), &outer, datagram) {
                    self.figures.drops.count(reason, frame.len());
                }
            }
            Err(Malformed::Fragment) => match self.reassembly.push(frame, clock::now().0) {
                Outcome::Complete(whole) if self.is_data(&whole) => {
                    self.workers[worker].0.send(Order::Reassembled(port, whole));
                }
                // What XDP limits by its kind must not come in by another door.
                Outcome::Complete(whole) => self.figures.drops.count(DropReason::FragmentUseless, whole.len()),
                Outcome::Stored => {}
                Outcome::Dropped(reason) => self.figures.drops.count(reason, frame.len()),
            },
            Err(_) => self.figures.drops.count(DropReason::OuterMalformed, frame.len()),
        }
    }

    /// Whether a whole frame is a data message to the hub's port.
    fn is_data(&self, frame: &[u8]) -> bool {
        Outer::parse(frame).is_ok_and(|outer| {
            outer.destination().port() == self.desired.hub.listen_port.get()
                && message::kind(&frame[outer.payload]) == Some(Kind::Data)
        })
    }

    /// Strangers' initiations exceed their rate, so XDP said: of those that it lets through, most are not worth a computation,
    /// whether or not this machine could keep up with it.
    pub(super) fn flooded(&mut self) {
        self.loaded_until = self.loaded_until.max(clock::now() + FLOODED_FOR);
    }

    fn handshake(
        &mut self,
        worker: usize,
        frame: (PortIndex, &[u8]),
        outer: &Outer,
        datagram: &[u8],
    ) -> Result<(), DropReason> {
        let now = clock::now();
        let kind = message::kind(datagram).ok_or(DropReason::OuterNotWireguard)?;
        if self.workers[worker].0.parcels_waiting() >= LOADED {
            self.loaded_until = self.loaded_until.max(now + LOADED_FOR);
        }

        // 1. Under load, who can't receive what is sent to its address gets no computation. A cookie reply has no MACs.
        //    The sender of a response has shown it already: it names the index that our initiation told it. And a hub that
        //    starts is under load by the responses that it asked for; a cookie would make each site wait 5 s.
        if matches!(kind, Kind::Initiation | Kind::Response) {
            let loaded = now < self.loaded_until && kind == Kind::Initiation;
            match self.checker.check(datagram, outer.source(), loaded, now, &mut fill_random).map_err(refused)? {
                Verdict::Pass => {}
                Verdict::Answer(cookie) => {
                    self.figures.hub.cookies_sent.add(1);
                    self.mirror(frame, outer, &cookie);
                    return Err(DropReason::HandshakeCookieSent);
                }
            }
        }

        // 2. Whose message it is: an initiation says so itself, the others by the index that they answer.
        let endpoint = Endpoint { remote: outer.source(), local: Some(outer.destination().ip()) };
        match kind {
            Kind::Initiation => {
                let opened = crypto::open_initiation(&self.identity, datagram).map_err(refused)?;
                let slot = *self.by_key.get(opened.remote()).ok_or(DropReason::HandshakePeerUnknown)?;
                let (result, actions) =
                    self.ask(slot, |peer, identity, cx, out| peer.on_initiation(identity, opened, cx, out));
                let site = &self.sites[slot.index()];
                let elsewhere = site.endpoint.is_some_and(|known| known.remote != endpoint.remote);
                if result.is_ok() && elsewhere && !site.proven {
                    self.answer_there(frame, outer, slot, actions);
                    return Ok(());
                }
                self.heard_handshake(slot, endpoint, result, actions)
            }
            Kind::Response => {
                let slot = self.answered(datagram)?;
                let (result, actions) =
                    self.ask(slot, |peer, identity, cx, out| peer.on_response(identity, datagram, cx, out));
                self.heard_handshake(slot, endpoint, result, actions)
            }
            Kind::Cookie => {
                let slot = self.answered(datagram)?;
                self.with_peer(slot, |peer, _, cx, _| peer.on_cookie(datagram, cx)).map_err(refused)
            }
            Kind::Data => Err(DropReason::OuterNotWireguard),
        }
    }

    /// The site that a response or cookie reply answers, by the index that we gave.
    fn answered(&self, datagram: &[u8]) -> Result<SiteSlot, DropReason> {
        let index = message::receiver(datagram).ok_or(DropReason::OuterNotWireguard)?;
        self.slots.owner(index).ok_or(DropReason::HandshakeUnsolicited)
    }

    /// An authentic handshake message says where its site is; what the site is to be sent now goes there.
    fn heard_handshake(
        &mut self,
        slot: SiteSlot,
        endpoint: Endpoint,
        result: Result<(), HandshakeError>,
        actions: Vec<Action>,
    ) -> Result<(), DropReason> {
        if result.is_ok() {
            self.move_to(slot, endpoint);
            self.know(slot);
        }
        self.carry_out(slot, actions);
        result.map_err(refused)
    }

    /// An initiation that is authentic, from elsewhere than its site was, and may be a copy of one that the hub took before it
    /// was killed: it is answered where it came from, and the site moves once data comes from there, which nobody can copy.
    fn answer_there(&mut self, frame: (PortIndex, &[u8]), outer: &Outer, slot: SiteSlot, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(response) => self.mirror(frame, outer, &response),
                other => self.carry_out(slot, vec![other]),
            }
        }
    }

    /// Sends a message back the way one came: who sent it is not known for sure, and is not worth a look at the routes.
    fn mirror(&mut self, (port, frame): (PortIndex, &[u8]), outer: &Outer, message: &Outgoing) {
        let Ok(ethernet) = wire::ethernet::View::parse(frame) else { return };
        let template = Template::new(&wire::Path {
            source_mac: ethernet.destination(),
            destination_mac: ethernet.source(),
            source: outer.destination(),
            destination: outer.source(),
            udp_checksum: false,
        });
        let Ok(template) = template else { return };
        let mut reply = vec![0; template.header_len()];
        reply.extend_from_slice(message);
        if template.write(&mut reply, HANDSHAKE_TOS, 0).is_ok() {
            self.emit(outer.source().port() as usize, port, reply);
        }
    }
}

fn refused(error: HandshakeError) -> DropReason {
    match error {
        HandshakeError::Malformed => DropReason::OuterNotWireguard,
        HandshakeError::Mac1 => DropReason::HandshakeMac1,
        // Sites have one suite: this is a trunk's.
        HandshakeError::Auth | HandshakeError::Suite { .. } => DropReason::HandshakeAuth,
        HandshakeError::Replayed => DropReason::HandshakeReplayed,
        HandshakeError::Rate => DropReason::HandshakeRate,
        HandshakeError::Unsolicited => DropReason::HandshakeUnsolicited,
        HandshakeError::NoIndex => DropReason::HandshakeNoSession,
    }
}
