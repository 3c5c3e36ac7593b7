//! Handshake messages and fragments, as the workers passed them on.

use super::sites::fill_random;
use super::{Control, Endpoint};
use crate::clock;
use crate::mailbox::{Order, Parcel, Source};
use crate::reassembly::Outcome;
use crypto::cookie::Verdict;
use crypto::message::{Kind, Outgoing};
use crypto::peer::Action;
use crypto::{HandshakeError, OpenedInitiation, Protocol};
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
            Source::Lane(slot) => {
                if let Err(reason) = self.hear_hub(slot, frame) {
                    self.figures.drops.count(reason, frame.len());
                }
                return;
            }
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

    /// Whether a whole frame is a data message to one of the hub's ports.
    fn is_data(&self, frame: &[u8]) -> bool {
        Outer::parse(frame).is_ok_and(|outer| {
            let datagram = &frame[outer.payload.clone()];
            let kind = Protocol::of(datagram).and_then(|protocol| protocol.kind(datagram));
            self.desired.listen_ports().contains(&outer.destination().port()) && kind == Some(Kind::Data)
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
        let protocol = Protocol::of(datagram).ok_or(DropReason::OuterNotWireguard)?;
        let kind = protocol.kind(datagram).ok_or(DropReason::OuterNotWireguard)?;
        if self.workers[worker].0.parcels_waiting() >= LOADED {
            self.loaded_until = self.loaded_until.max(now + LOADED_FOR);
        }

        // 1. Under load, who can't receive what is sent to its address gets no computation. A cookie reply has no MACs.
        //    The sender of a response has shown it already: it names the index that our initiation told it. And a hub that
        //    starts is under load by the responses that it asked for; a cookie would make each site wait 5 s.
        if matches!(kind, Kind::Initiation | Kind::Response) {
            let loaded = now < self.loaded_until && kind == Kind::Initiation;
            let checker = match protocol {
                Protocol::WireGuard => &mut self.checker,
                Protocol::Trunk => &mut self.trunks.checker,
            };
            match checker.check(datagram, outer.source(), loaded, now, &mut fill_random).map_err(refused)? {
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
                let (slot, opened) = self.initiator(protocol, datagram, outer.destination().port())?;
                let (result, actions) =
                    self.ask(slot, |peer, identity, cx, out| peer.on_initiation(identity, opened, cx, out));
                if let Err(HandshakeError::Suite { offered }) = result {
                    self.say_suite(Some(slot), offered);
                }
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

    /// Who made an initiation that came to this port of the hub.
    fn initiator(
        &mut self,
        protocol: Protocol,
        datagram: &[u8],
        port: u16,
    ) -> Result<(SiteSlot, OpenedInitiation), DropReason> {
        let lane = port.wrapping_sub(self.desired.hub.listen_port.get());
        let slot = match protocol {
            Protocol::WireGuard if lane != 0 => return Err(DropReason::HandshakeLane),
            Protocol::WireGuard => {
                let opened = crypto::open_initiation(&self.identity, datagram).map_err(refused)?;
                (self.by_key.get(opened.remote()).copied(), opened)
            }
            Protocol::Trunk => {
                let opened = crypto::open_trunk_initiation(&self.identity, datagram).map_err(|error| {
                    if let HandshakeError::Suite { offered } = error {
                        self.say_suite(None, offered);
                    }
                    refused(error)
                })?;
                let of_port = opened.profile().lane().filter(|offered| u16::from(*offered) == lane);
                let number = of_port.ok_or(DropReason::HandshakeLane)?;
                (self.trunks.by_key.get(&(*opened.remote(), number)).copied(), opened)
            }
        };
        let (Some(slot), opened) = slot else { return Err(DropReason::HandshakePeerUnknown) };
        Ok((slot, opened))
    }

    /// The peer that a response or cookie reply answers, by the index that we gave.
    fn answered(&self, datagram: &[u8]) -> Result<SiteSlot, DropReason> {
        let protocol = Protocol::of(datagram).ok_or(DropReason::OuterNotWireguard)?;
        let index = protocol.receiver(datagram).ok_or(DropReason::OuterNotWireguard)?;
        // Whose protocol is another has nothing to answer.
        let owner = self.slots.owner(index);
        let owner = owner.filter(|slot| self.sites[slot.index()].peer.profile().protocol() == protocol);
        owner.ok_or(DropReason::HandshakeUnsolicited)
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
        HandshakeError::Auth => DropReason::HandshakeAuth,
        HandshakeError::Suite { .. } => DropReason::HandshakeSuite,
        HandshakeError::Replayed => DropReason::HandshakeReplayed,
        HandshakeError::Rate => DropReason::HandshakeRate,
        HandshakeError::Unsolicited => DropReason::HandshakeUnsolicited,
        HandshakeError::NoIndex => DropReason::HandshakeNoSession,
    }
}
