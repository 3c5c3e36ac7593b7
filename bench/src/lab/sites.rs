//! Sites in the hands of the lab: keys, real handshakes with a hub, and what is sealed for it. Or another hub: the lanes of its trunk
//! are to a hub what sites are, but for their protocol and their UDP ports.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use crypto::aead::{self, Cipher, OpenJob, SealJob, TAG};
use crypto::message::{DATA_HEADER, Kind};
use crypto::{Action, Context, Identity, Peer, Profile, Protocol, PublicKey, Session, SystemTimeParts, Time};
use ekiden_testbed::{Dice, ManyAddresses, Namespace};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wire::geneve::{self, Payload};
use wire::hub::{Message, Position, Progress};

use super::hubs::HUB_PORT;
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

/// A number of sites with one hub, all at one end of the lab; or the lanes of a trunk to it.
pub(super) struct Sites {
    /// One for all sites, or one for each lane.
    sockets: Vec<ManyAddresses>,
    /// Of lanes: what they seal with.
    cipher: Option<Cipher>,
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
        let sockets = vec![namespace.inside(|| ManyAddresses::bind(SITE_PORT))??];
        let mut dice = dice(first);
        let all = (0..count).map(|_| Site::new(private(&mut dice))).collect();
        let (cipher, kept_alive) = (None, Instant::now());
        Ok(Self { sockets, cipher, hub, key, first, all, dice, handshakes: 0, kept_alive })
    }

    /// So many lanes of a hub at this address, which must be local in that namespace. They have no sessions yet.
    pub(super) fn lanes(
        namespace: &Namespace,
        first: Ipv4Addr,
        count: u8,
        cipher: Cipher,
        hub: SocketAddrV4,
        key: PublicKey,
    ) -> Result<Self> {
        let ports = (0..count).map(|lane| HUB_PORT + u16::from(lane));
        let sockets = ports.map(|port| namespace.inside(|| ManyAddresses::bind(port))?).collect::<Result<_>>()?;
        let mut dice = dice(first);
        let private = private(&mut dice);
        let all = (0..count).map(|_| Site::new(private)).collect();
        let (cipher, kept_alive) = (Some(cipher), Instant::now());
        Ok(Self { sockets, cipher, hub, key, first, all, dice, handshakes: 0, kept_alive })
    }

    /// What lanes seal with; none: they are sites.
    pub(super) fn cipher(&self) -> Option<Cipher> {
        self.cipher
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// The public key of each.
    pub(super) fn keys(&self) -> impl Iterator<Item = PublicKey> {
        self.all.iter().map(|site| *site.identity.public())
    }

    /// The outer addresses of one, and of the hub for it.
    pub(super) fn ends(&self, number: usize) -> [SocketAddrV4; 2] {
        match self.cipher {
            None => {
                let address = Ipv4Addr::from(u32::from(self.first) + number as u32);
                [SocketAddrV4::new(address, SITE_PORT), self.hub]
            }
            Some(_) => [self.first, *self.hub.ip()].map(|address| SocketAddrV4::new(address, HUB_PORT + number as u16)),
        }
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

    /// To be called while packets pass: hears what is said to the sites, and answers nothing.
    pub(super) fn listen(&mut self) -> Result<()> {
        while self.receive(&mut [0; 2048])?.is_some() {}
        Ok(())
    }

    /// The same, and lanes answer probes, as a hub does. For who sends it is as with [`Self::tick`].
    pub(super) fn answer(&mut self) -> Result<()> {
        let mut bytes = [0; 2048];
        while let Some((length, number)) = self.receive(&mut bytes)? {
            self.hear(number, &mut bytes[..length]);
        }
        Ok(())
    }

    fn hear(&self, number: usize, datagram: &mut [u8]) {
        let message = self.reply(number, datagram).and_then(|reply| sealed(self.session(number)?, &reply));
        message.iter().for_each(|message| self.send(number, message));
    }

    /// What is to be said to a probe, if it is one. The hub need not go on to tell what is alive: as if all of that had been heard.
    fn reply(&self, number: usize, datagram: &mut [u8]) -> Option<Vec<u8>> {
        self.cipher?;
        let (index, _) = Protocol::Trunk.parse_data(datagram)?;
        let plain = opened(self.by_index(number, index)?, datagram)?;
        let tag = geneve::View::parse(plain).ok().filter(|tag| tag.kind() == Payload::Control)?;
        let Message::Probe(probe) = Message::parse(tag.payload()).ok()? else { return None };
        Some(probe.reply(plain.len(), Progress { said: Position::default(), heard: probe.progress.said }))
    }

    /// The next datagram: its length, and whom it is for.
    fn receive(&self, bytes: &mut [u8]) -> Result<Option<(usize, usize)>> {
        for (lane, socket) in self.sockets.iter().enumerate() {
            while let Some((length, to)) = socket.receive(bytes)? {
                let number = match self.cipher {
                    None => u32::from(to).checked_sub(u32::from(self.first)).map(|number| number as usize),
                    Some(_) => Some(lane),
                };
                if let Some(number) = number.filter(|number| *number < self.all.len()) {
                    return Ok(Some((length, number)));
                }
            }
        }
        Ok(None)
    }

    fn send(&self, number: usize, message: &[u8]) {
        let socket = &self.sockets[if self.cipher.is_some() { number } else { 0 }];
        let [from, to] = self.ends(number);
        socket.send(*from.ip(), to, message);
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
            let message = self.session(number).and_then(|session| sealed(session, &[]));
            message.iter().for_each(|message| self.send(number, message));
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
                let what = if self.cipher.is_some() { "lanes" } else { "sites" };
                bail!("{} of {} {what} got no session", under_way.len() + waiting.len(), numbers.len());
            }

            // 3. What the hub says.
            let mut bytes = [0; 2048];
            while let Some((length, number)) = self.receive(&mut bytes)? {
                if self.protocol().kind(&bytes[..length]) != Some(Kind::Response) {
                    self.hear(number, &mut bytes[..length]);
                } else if let Some((peer, _)) = under_way.get_mut(&number)
                    && let Some(session) = self.answered(number, peer, &bytes[..length])
                {
                    // The hub may send nothing before it has received something.
                    sealed(&session, &[]).iter().for_each(|message| self.send(number, message));
                    let site = &mut self.all[number];
                    site.former.extend(site.session.replace((session, Instant::now())).map(|(former, _)| former));
                    self.handshakes += 1;
                    under_way.remove(&number);
                }
            }
            let mut fds: Vec<_> = self.sockets.iter().map(|socket| PollFd::new(socket, PollFlags::IN)).collect();
            poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 1_000_000 }))?;
        }
    }

    fn protocol(&self) -> Protocol {
        if self.cipher.is_some() { Protocol::Trunk } else { Protocol::WireGuard }
    }

    fn begin(&mut self, number: usize) -> Peer {
        let profile = match self.cipher {
            None => Profile::WireGuard,
            Some(cipher) => Profile::Trunk { cipher, lane: number as u8 },
        };
        let mut peer = Peer::new(number as u32, self.key, None, None, None).speaking(profile);
        for action in self.act(number, |identity, cx, out| {
            peer.renew(identity, cx, out);
        }) {
            if let Action::Send(message) = action {
                self.send(number, &message);
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

impl Site {
    fn new(private: [u8; 32]) -> Self {
        Self { identity: Identity::new(private), session: None, former: Vec::new() }
    }
}

fn dice(first: Ipv4Addr) -> Dice {
    Dice::seeded(u64::from(u32::from(first)) << 20 | u64::from(std::process::id()))
}

fn private(dice: &mut Dice) -> [u8; 32] {
    std::array::from_fn(|_| dice.number() as u8)
}

/// A message with this plaintext; a keepalive, if there is none.
fn sealed(session: &Session, plain: &[u8]) -> Option<Vec<u8>> {
    let counter = session.reserve(1).next()?;
    let header = session.data_header(counter);
    let mut data = [plain, &[0; TAG]].concat();
    let aad = session.protocol().aad(&header);
    aead::single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data: &mut data }]);
    Some([&header[..], &data].concat())
}

/// What is in a data message for this session.
pub(super) fn opened<'a>(session: &Session, message: &'a mut [u8]) -> Option<&'a [u8]> {
    let (_, counter) = session.protocol().parse_data(message)?;
    let (header, data) = message.split_first_chunk_mut::<DATA_HEADER>()?;
    let mut job =
        [OpenJob { key: session.open_key(), counter, aad: session.protocol().aad(header), data, verified: false }];
    aead::single().open_batch(&mut job);
    if !job[0].verified {
        return None;
    }
    let plain = message.len() - TAG;
    message.get(DATA_HEADER..plain)
}
