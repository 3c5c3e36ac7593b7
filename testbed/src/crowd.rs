//! Thousands of sites in one thread: each with a key, an address and a state machine of its own, real handshakes over a
//! real UDP socket. As many clients as processes would be too much for a machine.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use crypto::aead::{self, OpenJob, SealJob, TAG};
use crypto::message::{self, DATA_HEADER, Kind};
use crypto::peer::{Action, Activity, Context, Peer};
use crypto::{Identity, PublicKey, Session, SystemTimeParts, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::client::SITE_PORT;
use crate::dice::Dice;
use crate::lab::Lab;
use crate::many::ManyAddresses;
use crate::world::{HUB_PORT, HUB_V4, Host, World};

/// The first address of a crowd; its sites follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
/// Datagrams between looks at anything else.
const BURST: usize = 256;
/// Every site's timers are looked at once a second, in so many parts.
const PARTS: usize = 50;

/// The sites, and the thread that is all of them. It ends when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    members: Arc<Mutex<Members>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    _host: Host,
}

#[derive(Debug)]
struct Members {
    all: Vec<Member>,
    /// Members that have been told to want a session, in their order.
    called: usize,
    /// How many more are told so each second.
    pace: usize,
    /// Members with a session that was made since [`Crowd::forget`].
    back: usize,
    round: u32,
}

struct Member {
    address: Ipv4Addr,
    identity: Identity,
    peer: Peer,
    sessions: Vec<Arc<Session>>,
    sending: Option<u32>,
    activity: Activity,
    /// It has got a session that it can send with.
    got: bool,
    /// The round in which it last did.
    round: u32,
}

impl std::fmt::Debug for Member {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.address)
    }
}

impl Crowd {
    /// So many sites behind the router, silent until they are called.
    pub fn new(lab: &mut Lab, world: &mut World, count: usize) -> Result<Self> {
        let host = world.host(lab, "crowd")?;
        host.namespace.ip("route add local 198.19.0.0/16 dev lo")?;
        world.inet.ip(&format!("route add 198.19.0.0/16 via {}", host.address(false, 2)))?;
        let socket = host.namespace.inside(|| ManyAddresses::bind(SITE_PORT))??;
        let hub: PublicKey = world.key.public.parse()?;
        let mut dice = Dice::new();
        let all = (0..count).map(|number| {
            let mut private = [0; 32];
            fill(&mut dice, &mut private);
            Member {
                address: Ipv4Addr::from(u32::from(FIRST) + number as u32),
                identity: Identity::new(private),
                peer: Peer::new(number as u32, hub, None, Some(Duration::from_secs(25)), None),
                sessions: Vec::new(),
                sending: None,
                activity: Activity::default(),
                got: false,
                round: 0,
            }
        });
        let members = Members { all: all.collect(), called: 0, pace: 0, back: 0, round: 1 };
        let (members, ended) = (Arc::new(Mutex::new(members)), Arc::<AtomicBool>::default());
        let (theirs, end) = (members.clone(), ended.clone());
        let thread = std::thread::spawn(move || live(&socket, &theirs, &end, &mut dice));
        Ok(Self { members, ended, thread: Some(thread), _host: host })
    }

    fn look<R>(&self, at: impl FnOnce(&mut Members) -> R) -> R {
        at(&mut self.members.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The public key of each, in their order.
    pub fn keys(&self) -> Vec<PublicKey> {
        self.look(|members| members.all.iter().map(|member| *member.identity.public()).collect())
    }

    /// All of them want a session now: so many begin in each second.
    pub fn call(&self, pace: usize) {
        self.look(|members| (members.called, members.pace) = (0, pace));
    }

    /// From now on, who has a session must get another one to count as back.
    pub fn forget(&self) {
        self.look(|members| {
            members.round += 1;
            members.back = 0;
        });
    }

    /// How many have got a session since [`Crowd::forget`].
    pub fn back(&self) -> usize {
        self.look(|members| members.back)
    }

    /// An error, if the thread has ended before its time.
    pub fn must_be_alive(&self) -> Result<()> {
        let thread = self.thread.as_ref().context("it has ended")?;
        anyhow::ensure!(!thread.is_finished(), "the crowd's thread has ended");
        Ok(())
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(Ok(Err(error))) = self.thread.take().map(JoinHandle::join) {
            eprintln!("the crowd: {error:#}");
        }
    }
}

fn fill(dice: &mut Dice, bytes: &mut [u8]) {
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&dice.number().to_le_bytes()[..chunk.len()]));
}

fn live(socket: &ManyAddresses, members: &Mutex<Members>, ended: &AtomicBool, dice: &mut Dice) -> Result<()> {
    let start = Instant::now();
    let mut part = 0;
    let mut next_part = start;
    while !ended.load(Ordering::Relaxed) {
        {
            let mut members = members.lock().unwrap_or_else(PoisonError::into_inner);
            let mut world = Outside { socket, dice, now: Time(start.elapsed().as_nanos() as u64 + 1_000_000_000) };
            for _ in 0..BURST {
                if !members.receive(&mut world)? {
                    break;
                }
            }
            if Instant::now() >= next_part {
                next_part += Duration::from_secs(1) / PARTS as u32;
                part = (part + 1) % PARTS;
                members.turn(part, &mut world);
            }
        }
        let mut fds = [PollFd::new(socket, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }))?;
    }
    Ok(())
}

/// What is outside of a member.
struct Outside<'a> {
    socket: &'a ManyAddresses,
    dice: &'a mut Dice,
    now: Time,
}

impl Members {
    /// One datagram; `false` if there is none.
    fn receive(&mut self, world: &mut Outside<'_>) -> Result<bool> {
        let mut bytes = [0; 2048];
        let Some((length, to)) = world.socket.receive(&mut bytes)? else { return Ok(false) };
        let number = u32::from(to).checked_sub(u32::from(FIRST)).map(|number| number as usize);
        if let Some(number) = number.filter(|number| *number < self.all.len()) {
            let member = &mut self.all[number];
            member.datagram(&mut bytes[..length], world);
            if std::mem::take(&mut member.got) && std::mem::replace(&mut member.round, self.round) != self.round {
                self.back += 1;
            }
        }
        Ok(true)
    }

    /// Timers of one part of all, and who is to begin now.
    fn turn(&mut self, part: usize, world: &mut Outside<'_>) {
        for number in (part..self.all.len()).step_by(PARTS) {
            let member = &mut self.all[number];
            let activity = member.activity;
            member.act(world, |peer, identity, cx, out| {
                let _ = peer.poll(identity, &activity, cx, out);
            });
        }
        for _ in 0..self.pace.div_ceil(PARTS) {
            let Some(member) = self.all.get_mut(self.called) else { break };
            member.act(world, |peer, identity, cx, out| {
                let _ = peer.renew(identity, cx, out);
            });
            self.called += 1;
        }
    }
}

impl Member {
    fn datagram(&mut self, bytes: &mut [u8], world: &mut Outside<'_>) {
        match message::kind(bytes) {
            Some(Kind::Initiation) => {
                if let Ok(opened) = crypto::open_initiation(&self.identity, bytes) {
                    self.act(world, |peer, identity, cx, out| {
                        let _ = peer.on_initiation(identity, opened, cx, out);
                    });
                }
            }
            Some(Kind::Response) => {
                self.act(world, |peer, identity, cx, out| {
                    let _ = peer.on_response(identity, bytes, cx, out);
                });
            }
            Some(Kind::Cookie) => self.act(world, |peer, _, cx, _| {
                let _ = peer.on_cookie(bytes, cx);
            }),
            Some(Kind::Data) => self.data(bytes, world),
            None => {}
        }
    }

    fn data(&mut self, bytes: &mut [u8], world: &mut Outside<'_>) {
        let Some((index, counter)) = message::parse_data(bytes) else { return };
        let Some(session) = self.sessions.iter().find(|session| session.local_index() == index).cloned() else {
            return;
        };
        let data = &mut bytes[DATA_HEADER..];
        let mut job = [OpenJob { key: session.open_key(), counter, aad: &[], data, verified: false }];
        aead::single().open_batch(&mut job);
        if job[0].verified && session.window().accept(counter).is_ok() {
            session.window().raise(counter);
            self.activity.any_received = world.now;
            self.act(world, |peer, _, cx, out| peer.on_confirmed(index, cx, out));
        }
    }

    /// Lets the state machine act, and does what it wants.
    fn act(
        &mut self,
        world: &mut Outside<'_>,
        act: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>, &mut Vec<Action>),
    ) {
        let mut actions = Vec::new();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix = SystemTimeParts { secs: unix.as_secs(), nanos: unix.subsec_nanos() };
        let mut index_dice = Dice::seeded(world.dice.number());
        let mut indices = || Some(index_dice.number() as u32);
        let mut random = |bytes: &mut [u8]| fill(world.dice, bytes);
        let mut cx = Context { now: world.now, unix, random: &mut random, indices: &mut indices };
        act(&mut self.peer, &self.identity, &mut cx, &mut actions);
        for action in actions {
            match action {
                Action::Send(message) => self.send(&message, world),
                Action::Established { session, confirmed } => {
                    if confirmed {
                        self.sending = Some(session.local_index());
                        self.got = true;
                    }
                    self.sessions.push(session);
                }
                Action::Use { index } => {
                    self.sending = Some(index);
                    self.got = true;
                }
                Action::Keepalive => self.keepalive(world),
                Action::Retire { index } => self.sessions.retain(|session| session.local_index() != index),
                Action::Reserved { .. } | Action::GiveUp => {}
            }
        }
    }

    fn keepalive(&mut self, world: &mut Outside<'_>) {
        let of = |session: &&Arc<Session>| Some(session.local_index()) == self.sending;
        let Some(session) = self.sessions.iter().find(of) else { return };
        let Some(counter) = session.reserve(1).next() else { return };
        let mut bytes = [0; DATA_HEADER + TAG];
        bytes[..DATA_HEADER].copy_from_slice(&message::data_header(session.remote_index(), counter));
        let job = SealJob { key: session.seal_key(), counter, aad: &[], data: &mut bytes[DATA_HEADER..] };
        aead::single().seal_batch(&mut [job]);
        self.activity.any_sent = world.now;
        self.send(&bytes, world);
    }

    fn send(&self, bytes: &[u8], world: &Outside<'_>) {
        // Lost, the state machine tries again.
        world.socket.send(self.address, SocketAddrV4::new(HUB_V4, HUB_PORT), bytes);
    }
}
