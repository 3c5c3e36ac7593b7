//! A site that knows the keys of its own sessions, and eyes for the hub's memory.

use std::fs::{self, File};
use std::net::UdpSocket;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use blake2::digest::consts::U16;
use blake2::digest::{Digest, FixedOutput, KeyInit, Update};
use blake2::{Blake2s256, Blake2sMac};
use crypto::aead::{Cipher, SealJob, TAG};
use crypto::message::{DATA_HEADER, data_header};
use crypto::{PublicKey, Role, Session, Time};
use ekiden_testbed::wait::PATIENCE;
use ekiden_testbed::{Site, World};

/// The two keys of a session: the site's for sending, and the hub's.
pub(crate) type Keys = [[u8; 32]; 2];

/// A site's client, of which nothing is hidden: a handshake by an implementation of the Noise framework, in the frames
/// of WireGuard.
pub(crate) struct Client {
    socket: UdpSocket,
    private: [u8; 32],
    hub: [u8; 32],
    index: u32,
}

impl Client {
    /// In the place of the site's own.
    pub(crate) fn of(site: &Site, world: &World) -> Result<Self> {
        let endpoint = site.endpoint();
        let socket = site.namespace().inside(|| UdpSocket::bind(endpoint))??;
        socket.connect(site.hub_endpoint())?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let private = fs::read_to_string(&site.key.private)?;
        // Both are 32 bytes in base64, and a key is whatever 32 bytes are.
        let bytes = |text: &str| text.trim().parse::<PublicKey>().map(|key| key.0).context("a key");
        Ok(Self { socket, private: bytes(&private)?, hub: bytes(&world.key.public)?, index: 0 })
    }

    /// A handshake, and a first packet under the new session, so that the hub uses it.
    pub(crate) fn session(&mut self) -> Result<Keys> {
        // 1. The initiation. Its time stamp is TAI64N.
        self.index += 1;
        let pattern = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s".parse()?;
        let mut noise = snow::Builder::new(pattern)
            .local_private_key(&self.private)?
            .remote_public_key(&self.hub)?
            .psk(2, &[0; 32])?
            .prologue(b"WireGuard v1 zx2c4 Jason@zx2c4.com")?
            .build_initiator()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let mut stamp = [0; 12];
        stamp[..8].copy_from_slice(&((1 << 62) + 10 + now.as_secs()).to_be_bytes());
        stamp[8..].copy_from_slice(&now.subsec_nanos().to_be_bytes());
        let mut initiation = [0; 148];
        initiation[0] = 1;
        initiation[4..8].copy_from_slice(&self.index.to_le_bytes());
        let length = noise.write_message(&stamp, &mut initiation[8..116])?;
        ensure!(length == 108);
        let label = Blake2s256::new().chain_update(b"mac1----").chain_update(self.hub).finalize();
        let mut mac = Blake2sMac::<U16>::new_from_slice(&label)?;
        Update::update(&mut mac, &initiation[..116]);
        initiation[116..132].copy_from_slice(&mac.finalize_fixed());
        self.socket.send(&initiation)?;

        // 2. The response.
        let mut response = [0; 256];
        loop {
            let length = self.socket.recv(&mut response).context("the hub's response")?;
            if length == 92 && response[..4] == [2, 0, 0, 0] && response[8..12] == self.index.to_le_bytes() {
                break;
            }
        }
        noise.read_message(&response[12..60], &mut [])?;
        let (send, receive) = noise.dangerously_get_raw_split();

        // 3. A keepalive: an empty packet, sealed.
        let theirs = u32::from_le_bytes([response[4], response[5], response[6], response[7]]);
        let cipher = Cipher::ChaCha20Poly1305;
        let session = Session::new(0, self.index, theirs, Role::Initiator, &send, &receive, cipher, Time(0));
        let mut keepalive = data_header(theirs, 0).to_vec();
        keepalive.resize(DATA_HEADER + TAG, 0);
        let data = &mut keepalive[DATA_HEADER..];
        crypto::aead::single().seal_batch(&mut [SealJob { key: session.seal_key(), counter: 0, aad: &[], data }]);
        self.socket.send(&keepalive)?;
        Ok([send, receive])
    }
}

/// How often half of a key, either half, occurs in a process's writable memory, for each of the keys.
pub(crate) fn sightings<const N: usize>(pid: u32, keys: &[Keys; N]) -> Result<[usize; N]> {
    const PIECE: u64 = 1 << 20;
    const HALF: u64 = 16;
    let heads: Vec<(usize, [u8; 16])> = keys
        .iter()
        .enumerate()
        .flat_map(|(which, keys)| {
            keys.iter().flat_map(move |key| key.as_chunks::<16>().0.iter().map(move |half| (which, *half)))
        })
        .collect();
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut seen = [0; N];
    let mut buffer = vec![0; PIECE as usize];
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let mut fields = line.split_ascii_whitespace();
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else { continue };
        let Some((start, end)) = range.split_once('-').filter(|_| rights.starts_with("rw")) else { continue };
        let (mut at, end) = (u64::from_str_radix(start, 16)?, u64::from_str_radix(end, 16)?);
        while at < end {
            let piece = &mut buffer[..PIECE.min(end - at) as usize];
            // What was given back since the list was read, holds nothing.
            if memory.read_exact_at(piece, at).is_err() {
                break;
            }
            for (at, byte) in piece.iter().enumerate() {
                for (which, half) in &heads {
                    seen[*which] += usize::from(*byte == half[0] && piece[at..].starts_with(half));
                }
            }
            at += if end - at <= PIECE { end - at } else { PIECE - HALF };
        }
    }
    Ok(seen)
}
