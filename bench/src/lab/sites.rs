//! Sites in the hands of the lab: keys, real handshakes with a hub, and what is sealed for it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use crypto::aead::{self, SealJob, TAG};
use crypto::message::{self, DATA_HEADER, Kind};
use crypto::{Action, Context, Identity, Peer, PublicKey, Session, SystemTimeParts, Time};
use ekiden_testbed::{Dice, ManyAddresses, Namespace};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::programs::SLOT_BITS;

/// The UDP port of every site.
pub(super) const SITE_PORT: u16 = 51821;
/// A session older than this gets a successor before a trial: none may come to its end (180 s) in one.
const SESSION_OLD: Duration = Duration::from_secs(80);
/// A hub that gets no answer begins a handshake after 15 s.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Handshakes at a time: a hub that has 32 messages before it is under load, and asks for cookies.
const AT_ONCE: usize = 16;
/// Handshakes begun in a second: a hub takes 2,000 of strangers.
const PACE: u32 = 1500;
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// A number of sites with one hub, all at one end of the lab.
pub(super) struct Sites {
    socket: ManyAddresses,
    hub: SocketAddrV4,
    key: PublicKey,
    first: Ipv4Addr,
    all: Vec<Site>,
    dice: Dice,
    handshakes: u32,
    kept_alive: Instant,
}

struct Site {
    identity: Identity,
    session: Option<(Arc<Session>, Instant)>,
    /// Those that it had since [`Sites::freshen`].
    former: Vec<Arc<Session>>,
}

impl Sites {
    /// So many sites with addresses from `first` on, which must be local in that namespace. They have no sessions yet.
    pub(super) fn new(
        namespace: &Namespace,
        first: Ipv4Addr,
        count: usize,
        hub: SocketAddrV4,
        key: PublicKey,
    ) -> Result<Self> {
        let socket = namespace.inside(|| ManyAddresses::bind(SITE_PORT))??;
        let mut dice = Dice::seeded(u64::from(u32::from(first)) << 20 | u64::from(std::process::id()));
        let mut private = || std::array::from_fn(|_| dice.number() as u8);
        let all = (0..count)
            .map(|_| Site { identity: Identity::new(private()), session: None, former: Vec::new() })
            .collect();
        Ok(Self { socket, hub, key, first, all, dice, handshakes: 0, kept_alive: Instant::now() })
    }

    /// The public key of each.
    pub(super) fn keys(&self) -> impl Iterator<Item = PublicKey> {
        self.all.iter().map(|site| *site.identity.public())
    }

    /// The outer address of one.
    pub(super) fn address(&self, number: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) + number as u32)
    }

    /// Where the hub is for them.
    pub(super) fn hub(&self) -> SocketAddrV4 {
        self.hub
    }

    /// The session of one.
    pub(super) fn session(&self, number: usize) -> Option<&Arc<Session>> {
        self.all.get(number)?.session.as_ref().map(|(session, _)| session)
    }

    /// The session that one has, or had in this trial, by its receiver index.
    pub(super) fn by_index(&self, number: usize, index: u32) -> Option<&Arc<Session>> {
        let former = self.all.get(number)?.former.iter();
        former.chain(self.session(number)).find(|session| session.local_index() == index)
    }

    /// Handshakes that were completed.
    pub(super) fn handshakes(&self) -> u32 {
        self.handshakes
    }

    /// Gives a new session to all whose session is old, or who have none; all have spoken to the hub afterwards.
    pub(super) fn freshen(&mut self) -> Result<()> {
        let old = |site: &Site| site.session.as_ref().is_none_or(|(_, since)| since.elapsed() > SESSION_OLD);
        let numbers: Vec<usize> = (0..self.all.len()).filter(|number| old(&self.all[*number])).collect();
        self.connect(&numbers)?;
        self.all.iter_mut().for_each(|site| site.former.clear());
        self.keep_alive();
        Ok(())
    }

    /// To be called while packets pass: hears what is said to the sites.
    pub(super) fn listen(&mut self) -> Result<()> {
        let mut bytes = [0; 2048];
        while self.socket.receive(&mut bytes)?.is_some() {}
        Ok(())
    }

    /// To be called while packets come for the sites: says now and then that they are there. Sites that send must not: their
    /// keepalive would have a later counter than all that is sealed already, which would then be too old for the hub.
    pub(super) fn tick(&mut self) {
        if self.kept_alive.elapsed() > KEEPALIVE {
            self.keep_alive();
        }
    }

    fn keep_alive(&mut self) {
        self.kept_alive = Instant::now();
        for number in 0..self.all.len() {
            if let Some((session, _)) = &self.all[number].session {
                let message = keepalive(session);
                self.socket.send(self.address(number), self.hub, &message);
            }
        }
    }

    /// New sessions for these.
    pub(super) fn connect(&mut self, numbers: &[usize]) -> Result<()> {
        let begin = Instant::now();
        let patience = Duration::from_secs(20) + Duration::from_millis(5) * numbers.len() as u32;
        let mut waiting = numbers.iter().copied();
        let mut under_way: BTreeMap<usize, (Peer, Instant)> = BTreeMap::new();
        let mut begun = 0;
        loop {
            // 1. Those that got no answer begin anew, by a new state: a peer of its own accord would wait for 5 s.
            let late = under_way.iter().filter(|(_, (_, since))| since.elapsed() > ANSWER_WITHIN);
            for number in late.map(|(number, _)| *number).collect::<Vec<_>>() {
                under_way.insert(number, (self.begin(number), Instant::now()));
            }

            // 2. More begin, as many as the hub takes.
            while under_way.len() < AT_ONCE && begin.elapsed() * PACE >= Duration::from_secs(1) * begun {
                let Some(number) = waiting.next() else { break };
                under_way.insert(number, (self.begin(number), Instant::now()));
                begun += 1;
            }
            if under_way.is_empty() && waiting.len() == 0 {
                return Ok(());
            }
            if begin.elapsed() > patience {
                bail!("{} of {} sites got no session", under_way.len() + waiting.len(), numbers.len());
            }

            // 3. What the hub says.
            let mut bytes = [0; 2048];
            while let Some((length, to)) = self.socket.receive(&mut bytes)? {
                let Some(number) = u32::from(to).checked_sub(u32::from(self.first)) else { continue };
                let number = number as usize;
                if message::kind(&bytes[..length]) == Some(Kind::Response)
                    && let Some((peer, _)) = under_way.get_mut(&number)
                    && let Some(session) = self.answered(number, peer, &bytes[..length])
                {
                    self.socket.send(self.address(number), self.hub, &keepalive(&session));
                    let site = &mut self.all[number];
                    site.former.extend(site.session.replace((session, Instant::now())).map(|(former, _)| former));
                    self.handshakes += 1;
                    under_way.remove(&number);
                }
            }
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN)];
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }))?;
        }
    }

    fn begin(&mut self, number: usize) -> Peer {
        let mut peer = Peer::new(number as u32, self.key, None, None, None);
        for action in self.act(number, |identity, cx, out| {
            peer.renew(identity, cx, out);
        }) {
            if let Action::Send(message) = action {
                self.socket.send(self.address(number), self.hub, &message);
            }
        }
        peer
    }

    fn answered(&mut self, number: usize, peer: &mut Peer, datagram: &[u8]) -> Option<Arc<Session>> {
        let actions = self.act(number, |identity, cx, out| {
            let _ = peer.on_response(identity, datagram, cx, out);
        });
        actions.into_iter().find_map(|action| match action {
            Action::Established { session, .. } => Some(session),
            _ => None,
        })
    }

    fn act(&mut self, number: usize, act: impl FnOnce(&Identity, &mut Context<'_>, &mut Vec<Action>)) -> Vec<Action> {
        let mut actions = Vec::new();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The low bits say whose it is, so that the sink can tell tunnels apart; the others differ from session to session.
        let high = (self.dice.number() as u32) << SLOT_BITS;
        let mut indices = || Some(high | number as u32);
        let dice = &mut self.dice;
        let mut random = |bytes: &mut [u8]| bytes.fill_with(|| (dice.number() >> 32) as u8);
        let mut cx = Context {
            now: Time(unix.as_nanos() as u64),
            unix: SystemTimeParts { secs: unix.as_secs(), nanos: unix.subsec_nanos() },
            random: &mut random,
            indices: &mut indices,
        };
        act(&self.all[number].identity, &mut cx, &mut actions);
        actions
    }
}

fn keepalive(session: &Session) -> Vec<u8> {
    let mut bytes = vec![0; DATA_HEADER + TAG];
    if let Some(counter) = session.reserve(1).next() {
        bytes[..DATA_HEADER].copy_from_slice(&message::data_header(session.remote_index(), counter));
        let job = SealJob { key: session.seal_key(), counter, aad: &[], data: &mut bytes[DATA_HEADER..] };
        aead::single().seal_batch(&mut [job]);
    }
    bytes
}
