//! A site that keeps to no rule: it has its keys, makes real handshakes, and puts into its tunnel whatever it likes.

use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail};
use blake2::digest::{Digest, FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac};
use crypto::aead::{OpenJob, SealJob, TAG, single};
use crypto::constants::INITIATION_INTERVAL;
use crypto::message::{self, DATA_HEADER, Kind};
use crypto::{Action, Activity, Context, Identity, Peer, PublicKey, Session, SystemTimeParts, Tai64n, Time};
use etherparse::PacketBuilder;

use crate::client::Site;
use crate::wait::PATIENCE;

/// A site in the hands of an attacker, in the place of its client.
pub struct Rogue {
    identity: Identity,
    hub_key: PublicKey,
    socket: UdpSocket,
    peer: Peer,
    session: Option<Arc<Session>>,
    /// The last receiver index of its own.
    index: u32,
    /// A clock that goes as fast as it is needed.
    now: Time,
    /// When the last response came.
    connected: Option<Instant>,
}

impl Rogue {
    /// Takes the place of a site's client, which does not run. It has no preshared key.
    pub fn new(site: &Site) -> Result<Self> {
        let private: PublicKey = fs::read_to_string(&site.key.private)?.trim().parse()?; // 32 bytes of base64, as well
        let identity = Identity::new(private.0);
        let hub_key: PublicKey = site.hub_public().parse()?;
        let endpoint = site.endpoint();
        let socket = site.namespace().inside(|| UdpSocket::bind(endpoint))??;
        socket.connect(site.hub_endpoint())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let peer = Peer::new(0, hub_key, None, None, None);
        Ok(Self { identity, hub_key, socket, peer, session: None, index: 0, now: Time(1), connected: None })
    }

    /// Goes on from another port.
    pub fn move_to(&mut self, site: &Site, port: u16) -> Result<SocketAddr> {
        let endpoint = SocketAddr::new(site.endpoint().ip(), port);
        self.socket = site.namespace().inside(|| UdpSocket::bind(endpoint))??;
        self.socket.connect(site.hub_endpoint())?;
        self.socket.set_read_timeout(Some(PATIENCE))?;
        Ok(endpoint)
    }

    /// Waits for an initiation of the hub's, and says whether a site would take it that has taken one with this time stamp.
    pub fn would_take(&mut self, last: Tai64n) -> Result<bool> {
        let initiation = self.next(Kind::Initiation)?;
        let opened = crypto::open_initiation(&self.identity, &initiation)?;
        self.peer = Peer::new(0, self.hub_key, None, None, Some(last));
        let mut actions = Vec::new();
        let taken = self
            .ask(SystemTime::now().into(), |peer, identity, cx| peer.on_initiation(identity, opened, cx, &mut actions));
        match taken {
            Ok(()) => Ok(true),
            Err(crypto::HandshakeError::Replayed) => Ok(false),
            Err(error) => bail!("{error}"),
        }
    }

    /// An initiation with the time stamp of this moment. The response to it alone can be taken from now on.
    pub fn initiation(&mut self, at: SystemTime) -> Result<Vec<u8>> {
        // One that forgets what it has said before, so that it may say older things.
        self.peer = Peer::new(0, self.hub_key, None, None, None);
        self.renewed(at)
    }

    /// The same, by a peer that remembers: with the cookie that it was given, if it was.
    pub fn renewed(&mut self, at: SystemTime) -> Result<Vec<u8>> {
        self.now = self.now + Duration::from_secs(10);
        let mut actions = Vec::new();
        // While one is under way, the next is its repetition.
        self.ask(at.into(), |peer, identity, cx| {
            peer.renew(identity, cx, &mut actions);
            peer.poll(identity, &Activity::default(), cx, &mut actions)
        });
        let sent =
            actions.into_iter().find_map(|action| if let Action::Send(m) = action { Some(m.to_vec()) } else { None });
        sent.context("an initiation")
    }

    fn ask<T>(&mut self, unix: SystemTimeParts, act: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>) -> T) -> T {
        let index = &mut self.index;
        let mut indices = || {
            *index += 1;
            Some(*index)
        };
        let mut random = |bytes: &mut [u8]| {
            rustix::rand::getrandom(bytes, rustix::rand::GetRandomFlags::empty()).expect("getrandom(2)");
        };
        let mut cx = Context { now: self.now, unix, random: &mut random, indices: &mut indices };
        act(&mut self.peer, &self.identity, &mut cx)
    }

    /// Sends a datagram to the hub.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        self.socket.send(datagram)?;
        Ok(())
    }

    fn next(&self, wanted: Kind) -> Result<Vec<u8>> {
        let mut bytes = vec![0; 2048];
        loop {
            let len = self.socket.recv(&mut bytes).with_context(|| format!("no {wanted:?} came"))?;
            if message::kind(&bytes[..len]) == Some(wanted) {
                bytes.truncate(len);
                return Ok(bytes);
            }
        }
    }

    /// A handshake with the time stamp of now, and a keepalive that confirms it.
    pub fn connect(&mut self) -> Result<()> {
        // The hub takes no second initiation so soon after the last, nor one with the same time stamp, which is coarse:
        // only the clock can be waited for.
        if let Some(last) = self.connected {
            std::thread::sleep((last + 2 * INITIATION_INTERVAL).saturating_duration_since(Instant::now()));
        }
        let initiation = self.initiation(SystemTime::now())?;
        self.send(&initiation)?;
        self.finish()
    }

    /// Takes the response to the last initiation, and confirms the session.
    pub fn finish(&mut self) -> Result<()> {
        let response = self.next(Kind::Response)?;
        self.connected = Some(Instant::now());
        let mut actions = Vec::new();
        self.ask(SystemTime::now().into(), |peer, identity, cx| {
            peer.on_response(identity, &response, cx, &mut actions)
        })?;
        let session = actions.into_iter().find_map(|action| match action {
            Action::Established { session, .. } => Some(session),
            _ => None,
        });
        self.session = Some(session.context("a session")?);
        self.send(&self.seal(&[])?)
    }

    /// Takes a cookie for the next initiation.
    pub fn take_cookie(&mut self) -> Result<()> {
        let reply = self.next(Kind::Cookie)?;
        Ok(self.ask(SystemTime::now().into(), |peer, _, cx| peer.on_cookie(&reply, cx))?)
    }

    /// Its session with the hub.
    pub fn session(&self) -> Result<&Session> {
        self.session.as_deref().context("a session")
    }

    /// A data message with this packet, or whatever it is, inside.
    pub fn seal(&self, inner: &[u8]) -> Result<Vec<u8>> {
        let session = self.session()?;
        let counter = session.reserve(1).next().context("a counter")?;
        let mut message = message::data_header(session.remote_index(), counter).to_vec();
        message.extend_from_slice(inner);
        message.resize(DATA_HEADER + message::padded_len(inner.len(), 1420) + TAG, 0);
        let data = &mut message[DATA_HEADER..];
        single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad: &[], data }]);
        Ok(message)
    }

    /// Waits for the next data message, whatever is in it.
    pub fn await_data(&self) -> Result<()> {
        self.next(Kind::Data).map(drop)
    }

    /// The packets that the hub has sealed for it since the last time; keepalives are none.
    pub fn received(&self) -> Result<Vec<Vec<u8>>> {
        let session = self.session()?;
        let mut packets = Vec::new();
        let mut bytes = vec![0; 2048];
        self.socket.set_nonblocking(true)?;
        while let Ok(len) = self.socket.recv(&mut bytes) {
            let Some((_, counter)) = message::parse_data(&bytes[..len]) else { continue };
            let data = &mut bytes[DATA_HEADER..len];
            let mut job = [OpenJob { key: session.open_key(), counter, aad: &[], data, verified: false }];
            single().open_batch(&mut job);
            if job[0].verified && len > DATA_HEADER + TAG {
                packets.push(bytes[DATA_HEADER..len - TAG].to_vec());
            }
        }
        self.socket.set_nonblocking(false)?;
        Ok(packets)
    }

    /// The next packet that the hub has sealed for it, if one comes in this time.
    pub fn take(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let session = self.session()?;
        self.socket.set_read_timeout(Some(patience))?;
        let mut bytes = vec![0; 2048];
        let Ok(len) = self.socket.recv(&mut bytes) else { return Ok(None) };
        let Some((_, counter)) = message::parse_data(&bytes[..len]) else { return Ok(None) };
        let data = &mut bytes[DATA_HEADER..len];
        let mut job = [OpenJob { key: session.open_key(), counter, aad: &[], data, verified: false }];
        single().open_batch(&mut job);
        let whole = job[0].verified && len > DATA_HEADER + TAG;
        Ok(whole.then(|| bytes[DATA_HEADER..len - TAG].to_vec()))
    }

    /// Puts the MAC1 on a handshake message that anyone can who knows the hub's public key.
    pub fn stamp(&self, message: &mut [u8]) {
        let end = message.len() - 32;
        let (body, macs) = message.split_at_mut(end);
        let key = Blake2s256::new().chain_update(b"mac1----").chain_update(self.hub_key.0).finalize();
        let mut mac = Blake2sMac::<U16>::new_from_slice(&key).expect("a key of 32 bytes");
        Update::update(&mut mac, body);
        macs[..16].copy_from_slice(&mac.finalize_fixed());
    }
}

/// A UDP datagram in an IP packet, with these ends.
pub fn udp(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => bail!("a packet has one family"),
    };
    let mut packet = Vec::new();
    builder.udp(from.port(), to.port()).write(&mut packet, payload)?;
    Ok(packet)
}
