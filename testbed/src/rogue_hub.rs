//! A hub that keeps to no rule: it has its key, makes real handshakes, and puts into its trunk whatever it likes. What it says and
//! understands is a second implementation's, `scripts/trunk_wire.py`, written from `docs/WIRE.md`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use crypto::PublicKey;

use crate::client::tools;
use crate::lab::Lab;
use crate::process::Process;
use crate::wait::PATIENCE;
use crate::world::{HUB_PORT, Host, KeyPair, World};

/// Numbers of the suites in `docs/WIRE.md`.
pub const CHACHA20: u8 = 1;
/// The other one.
pub const AES: u8 = 2;
/// The first bytes of the messages.
const RESPONSE: u8 = 0x12;
const DATA: u8 = 0x14;

/// What came by the trunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The tag's tenant.
    pub tenant: u32,
    /// `ipv4`, `ipv6` or `control`.
    pub kind: String,
    /// What was tagged.
    pub inner: Vec<u8>,
}

/// A hub in the hands of an attacker: one lane of it.
#[derive(Debug)]
pub struct RogueHub {
    /// Its key pair.
    pub key: KeyPair,
    /// Where it is.
    pub host: Host,
    port: u16,
    socket: UdpSocket,
    python: Python,
    /// Counters of the session, and indices, that it has used.
    counter: u64,
    index: u32,
}

impl RogueHub {
    /// A host with a key; it will use the UDP port of this lane.
    pub fn new(lab: &mut Lab, world: &mut World, name: &str, lane: u8) -> Result<Self> {
        let host = world.host(lab, name)?;
        let key = KeyPair::new(lab.directory(), name)?;
        let port = HUB_PORT + u16::from(lane);
        let address = host.address(false, 2);
        let socket = host.namespace.inside(|| UdpSocket::bind((address, port)))??;
        Ok(Self { key, python: Python::start(lab, name)?, host, port, socket, counter: 0, index: 0 })
    }

    /// Where it is outside.
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.host.address(false, 2), self.port)
    }

    /// From now on it talks to this hub, as a lane, by a suite.
    pub fn be(&mut self, world: &World, suite: u8, lane: u8) -> Result<()> {
        let private: PublicKey = std::fs::read_to_string(&self.key.private)?.trim().parse()?; // 32 bytes of base64, as well
        let remote: PublicKey = world.key.public.parse()?;
        let words = format!("be {} {} {} {suite} {lane}", hex(&private.0), hex(&remote.0), "00".repeat(32));
        self.socket.connect(SocketAddr::new(world.endpoint(false, 0).ip(), self.port))?;
        self.python.ask(&words).map(drop)
    }

    /// An initiation of this moment. The response to it alone can be taken from now on.
    pub fn initiation(&mut self) -> Result<Vec<u8>> {
        self.index += 1;
        bytes(&self.python.ask(&format!("initiate {}", self.index))?)
    }

    /// A handshake, and a keepalive that confirms it.
    pub fn connect(&mut self) -> Result<()> {
        let initiation = self.initiation()?;
        self.send(&initiation)?;
        let response = self.next(PATIENCE, RESPONSE)?.context("no response came")?;
        self.python.ask(&format!("response {}", hex(&response)))?;
        self.counter = 0;
        let keepalive = self.sealed(&[])?;
        self.send(&keepalive)
    }

    /// Sends a datagram to the hub.
    pub fn send(&self, datagram: &[u8]) -> Result<()> {
        self.socket.send(datagram)?;
        Ok(())
    }

    /// A data message with this packet under a tag that is right.
    pub fn tagged(&mut self, tenant: u32, kind: &str, inner: &[u8]) -> Result<Vec<u8>> {
        self.counter += 1;
        bytes(&self.python.ask(&format!("seal {} {tenant} {kind} {}", self.counter, hex(inner)))?)
    }

    /// A data message with this in it, whatever it is.
    pub fn sealed(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        self.counter += 1;
        bytes(&self.python.ask(&format!("wrap {} {}", self.counter, hex(plain)))?)
    }

    /// The next packet of a tenant that the hub has sealed for it, if one comes in this time; what hubs say to each other is left out.
    pub fn take(&mut self, patience: Duration) -> Result<Option<Carried>> {
        let end = Instant::now() + patience;
        while let Some(message) = self.next(end.saturating_duration_since(Instant::now()), DATA)? {
            let told = self.python.ask(&format!("open {}", hex(&message)))?;
            let [tenant, kind, inner] = told.split(' ').collect::<Vec<_>>()[..] else { continue }; // a keepalive
            if kind != "control" {
                return Ok(Some(Carried { tenant: tenant.parse()?, kind: kind.into(), inner: bytes(inner)? }));
            }
        }
        Ok(None)
    }

    /// The next message with this first byte.
    fn next(&self, patience: Duration, kind: u8) -> Result<Option<Vec<u8>>> {
        let end = Instant::now() + patience;
        let mut bytes = vec![0; 1 << 16];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = self.socket.recv(&mut bytes) else { continue };
            if bytes[..length].first() == Some(&kind) {
                bytes.truncate(length);
                return Ok(Some(bytes));
            }
        }
    }
}

/// The program, a command a line.
#[derive(Debug)]
struct Python {
    _process: Process,
    to: UnixStream,
    from: BufReader<UnixStream>,
}

impl Python {
    fn start(lab: &Lab, name: &str) -> Result<Self> {
        let python = tools().join("python/bin/python");
        ensure!(python.exists(), "{} is missing: `make tools` builds it", python.display());
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let log = lab.directory().join(format!("{name}.log"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(python);
        command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/trunk_wire.py"), "speak"]);
        command.stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?))).stdout(Stdio::from(OwnedFd::from(theirs)));
        command.stderr(std::fs::File::create(&log)?);
        Ok(Self { _process: Process::adopt(command, log)?, from: BufReader::new(ours.try_clone()?), to: ours })
    }

    /// What it answers; an error if it refuses.
    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.to, "{command}")?;
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            _ => bail!("{command}: {line:?}"),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    ensure!(hex.len().is_multiple_of(2), "half a byte: {hex}");
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&hex[at..at + 2], 16)?)).collect()
}
