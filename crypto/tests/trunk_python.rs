//! Trunks against a second implementation, `testbed/scripts/trunk_wire.py`, written from `docs/WIRE.md` with other libraries: it computes the
//! vectors anew, and talks with peers of ours, each of the two as initiator and as responder.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use crypto::aead::{Cipher, OpenJob, SealJob, TAG, single};
use crypto::cookie::{Checker, Verdict};
use crypto::message::{Kind, padded_len};
use crypto::{
    Action, Context, HandshakeError, Identity, Peer, Profile, Protocol, Session, SystemTimeParts, Time,
    open_trunk_initiation, suite,
};
use wire::geneve::{Fields, HEADER, Payload, View};
use wire::{Inner, TenantId};

const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
const PSK: [u8; 32] = [0x55; 32];
const LANE: u8 = 3;
const SOURCE: &str = "192.0.2.7:51823";
const LONGEST: usize = 1420;

fn python() -> Command {
    let home = || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cache/ekiden/tools");
    let tools = std::env::var_os("EKIDEN_TOOLS").map_or_else(home, PathBuf::from);
    let python = tools.join("python/bin/python");
    assert!(python.exists(), "{} is not there: scripts/tools.sh makes it", python.display());
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../testbed/scripts/trunk_wire.py"));
    command
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()).collect()
}

/// A hub in Python: ended with the test, however that ends.
struct Theirs {
    process: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Theirs {
    fn new(private: u8, remote: &Identity, cipher: Cipher, lane: u8) -> Self {
        let mut process = python().arg("speak").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (to, from) = (process.stdin.take(), BufReader::new(process.stdout.take().unwrap()));
        let mut theirs = Self { process, to, from };
        let (private, remote) = (hex(&[private; 32]), hex(&remote.public().0));
        theirs.ask(&format!("be {private} {remote} {} {} {lane}", hex(&PSK), suite(cipher))).unwrap();
        theirs
    }

    /// What it answers; or why it refuses.
    fn ask(&mut self, command: &str) -> Result<String, String> {
        writeln!(self.to.as_mut().unwrap(), "{command}").unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        match line.trim_end().split_once(' ') {
            Some(("ok", answer)) => Ok(answer.to_owned()),
            Some(("refused", why)) => Err(why.to_owned()),
            _ if line.trim_end() == "ok" => Ok(String::new()),
            _ => panic!("{command}: {line:?}"),
        }
    }

    fn seal(&mut self, counter: u64, tenant: u32, payload: &str, inner: &[u8]) -> Vec<u8> {
        bytes(&self.ask(&format!("seal {counter} {tenant} {payload} {}", hex(inner))).unwrap())
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        self.to = None; // the end of its input is its end
        let _ = self.process.wait();
    }
}

/// A hub of ours, with the one peer.
struct Ours {
    identity: Identity,
    checker: Checker,
    peer: Peer,
    now: Time,
    session: Option<Arc<Session>>,
    wire: Vec<Vec<u8>>,
    next: u32,
}

impl Ours {
    fn new(private: u8, remote: &Identity, cipher: Cipher, lane: u8) -> Self {
        let identity = Identity::new([private; 32]);
        Self {
            checker: Checker::of(Protocol::Trunk, &identity),
            identity,
            peer: Peer::new(0, *remote.public(), Some(PSK), None, None).speaking(Profile::Trunk { cipher, lane }),
            now: Time(1_000_000_000_000),
            session: None,
            wire: Vec::new(),
            next: 0x0102_0304,
        }
    }

    fn call<T>(&mut self, call: impl FnOnce(&mut Peer, &Identity, &mut Context<'_>, &mut Vec<Action>) -> T) -> T {
        let (mut out, next) = (Vec::new(), &mut self.next);
        let mut indices = || {
            *next += 1;
            Some(*next)
        };
        let mut cx = Context {
            now: self.now,
            unix: SystemTimeParts::from(std::time::SystemTime::now()),
            random: &mut random,
            indices: &mut indices,
        };
        let result = call(&mut self.peer, &self.identity, &mut cx, &mut out);
        for action in out {
            match action {
                Action::Send(message) => self.wire.push(message.to_vec()),
                Action::Established { session, .. } => self.session = Some(session),
                Action::Keepalive => {
                    let keepalive = self.seal(None);
                    self.wire.push(keepalive);
                }
                Action::Reserved { .. } | Action::Use { .. } | Action::Retire { .. } | Action::GiveUp => {}
            }
        }
        result
    }

    fn want(&mut self) -> String {
        self.call(|peer, identity, cx, out| peer.want_session(identity, cx, out));
        self.sent()
    }

    fn sent(&mut self) -> String {
        assert_eq!(self.wire.len(), 1);
        hex(&self.wire.remove(0))
    }

    fn receive(&mut self, message: &str) -> Result<(), HandshakeError> {
        let (datagram, source) = (bytes(message), SOURCE.parse::<SocketAddr>().unwrap());
        match Protocol::Trunk.kind(&datagram).unwrap() {
            Kind::Initiation => {
                self.checker.check(&datagram, source, false, self.now, &mut random)?;
                let opened = open_trunk_initiation(&self.identity, &datagram)?;
                self.call(|peer, identity, cx, out| peer.on_initiation(identity, opened, cx, out))
            }
            Kind::Response => {
                self.checker.check(&datagram, source, false, self.now, &mut random)?;
                self.call(|peer, identity, cx, out| peer.on_response(identity, &datagram, cx, out))
            }
            Kind::Cookie => self.call(|peer, _, cx, _| peer.on_cookie(&datagram, cx)),
            Kind::Data => panic!("data is opened"),
        }
    }

    fn seal(&self, tagged: Option<(Fields, &[u8])>) -> Vec<u8> {
        let session = self.session.as_ref().unwrap();
        let counter = session.reserve(1).next().unwrap();
        let mut plain = Vec::new();
        if let Some((fields, inner)) = tagged {
            let mut header = [0; HEADER];
            fields.emit(&mut header);
            plain = [&header, inner].concat();
            plain.resize(padded_len(plain.len(), LONGEST), 0);
        }
        let mut data = [&plain[..], &[0; TAG]].concat();
        let header = session.data_header(counter);
        let aad = session.protocol().aad(&header);
        single().seal_batch(&mut [SealJob { key: session.seal_key(), counter, aad, data: &mut data }]);
        [&header[..], &data].concat()
    }

    /// The plaintext, if it verifies.
    fn open(&self, datagram: &[u8]) -> Option<Vec<u8>> {
        let session = self.session.as_ref().unwrap();
        let (index, counter) = Protocol::Trunk.parse_data(datagram)?;
        let (header, data) = datagram.split_first_chunk()?;
        let (aad, mut data) = (session.protocol().aad(header), data.to_vec());
        let mut jobs = [OpenJob { key: session.open_key(), counter, aad, data: &mut data, verified: false }];
        single().open_batch(&mut jobs);
        let right = jobs[0].verified && index == session.local_index() && session.look(counter).is_ok();
        data.truncate(data.len() - TAG);
        right.then_some(data)
    }
}

/// Different bytes each time; how good they are is not what is tested here.
fn random(bytes: &mut [u8]) {
    use std::hash::{BuildHasher, RandomState};
    bytes.chunks_mut(8).for_each(|chunk| {
        chunk.copy_from_slice(&RandomState::new().hash_one(0).to_le_bytes()[..chunk.len()]);
    });
}

/// IPv4 and IPv6 packets that are right, of several lengths.
fn packets() -> Vec<(Payload, &'static str, Vec<u8>)> {
    let mut packets = Vec::new();
    for len in [20u16, 21, 40, 41, 576, 1390] {
        let mut packet = vec![0xa5; usize::from(len)];
        packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 1, 1, 10, 9, 2, 1]);
        packet[2..4].copy_from_slice(&len.to_be_bytes());
        let sum: u32 = packet[..20].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let checksum = !((sum & 0xffff) as u16 + (sum >> 16) as u16);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packets.push((Payload::Ipv4, "ipv4", packet));
        let mut packet = vec![0x5a; 40 + usize::from(len) - 20];
        packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 59, 64]);
        packet[4..6].copy_from_slice(&(len - 20).to_be_bytes());
        packets.push((Payload::Ipv6, "ipv6", packet));
    }
    packets
}

/// Everything that hubs say under a session, both ways: what one side makes, the other reads.
fn data_both_ways(ours: &mut Ours, theirs: &mut Theirs) {
    for (n, (payload, name, inner)) in packets().into_iter().enumerate() {
        let tenant = [0, 1, 1001, 0x0a_0b0c, TenantId::MAX][n % 5];
        let fields = Fields { tenant: TenantId::new(tenant.into()).unwrap(), payload };
        let datagram = ours.seal(Some((fields, &inner)));
        assert_eq!(theirs.ask(&format!("open {}", hex(&datagram))), Ok(format!("{tenant} {name} {}", hex(&inner))));

        let datagram = theirs.seal(100 + n as u64, tenant, name, &inner);
        let plain = ours.open(&datagram).unwrap();
        assert!(plain.len().is_multiple_of(16) || plain.len() == LONGEST);
        let view = View::parse(&plain).unwrap();
        assert_eq!((view.tenant(), view.kind()), (fields.tenant, payload));
        let len = Inner::parse(view.payload()).unwrap().len;
        assert_eq!(view.payload()[..len], inner);
        assert!(view.payload()[len..].iter().all(|byte| *byte == 0), "padding");

        // No bit of either can be changed.
        if n < 2 {
            for bit in 0..datagram.len() * 8 {
                let mut wrong = datagram.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(ours.open(&wrong), None, "bit {bit}");
            }
            let datagram = ours.seal(Some((fields, &inner)));
            for bit in 0..datagram.len() * 8 {
                let mut wrong = datagram.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(theirs.ask(&format!("open {}", hex(&wrong))).is_err(), "bit {bit}");
            }
        }
    }
    let control = Fields { tenant: TenantId::new(0).unwrap(), payload: Payload::Control };
    let datagram = ours.seal(Some((control, b"hub to hub, 16 B")));
    let said = theirs.ask(&format!("open {}", hex(&datagram))).unwrap();
    assert!(said.starts_with(&format!("0 control {}", hex(b"hub to hub, 16 B"))));
    let datagram = theirs.seal(200, 7, "control", b"and back");
    let plain = ours.open(&datagram).unwrap();
    let view = View::parse(&plain).unwrap();
    assert_eq!((view.tenant().as_u32(), view.kind(), view.payload()), (7, Payload::Control, &b"and back"[..]));
    let keepalive = bytes(&theirs.ask("seal 201 - - -").unwrap());
    assert_eq!((keepalive.len(), ours.open(&keepalive)), (32, Some(Vec::new())));

    // Beyond the limit neither makes anything, nor takes it.
    if ours.peer.profile().cipher() == Cipher::Aes256Gcm {
        let last = theirs.seal((1 << 29) - 1, 7, "control", b"the last");
        assert!(ours.open(&last).is_some());
        assert_eq!(theirs.ask(&format!("seal {} - - -", 1 << 29)), Err("limit".to_owned()));
    }
}

fn identities() -> (Identity, Identity) {
    (Identity::new([1; 32]), Identity::new([2; 32]))
}

#[test]
fn a_second_implementation_computes_the_same_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/trunk.json");
    let said = python().args(["vectors", path]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}{err}");
    assert!(out.starts_with("ok ") && out.ends_with("of 2 vectors\n"), "{out}");
}

#[test]
fn a_second_implementation_reads_and_writes_what_hubs_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../wire/tests/vectors/hub.json");
    let said = python().args(["hub", path]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(said.status.success(), "{out}{err}");
    assert_eq!(out, "ok 6 messages, 19 refused\n");
}

#[test]
fn we_begin_and_they_answer() {
    for cipher in CIPHERS {
        let (a, b) = identities();
        let (mut ours, mut theirs) = (Ours::new(1, &b, cipher, LANE), Theirs::new(2, &a, cipher, LANE));
        let initiation = ours.want();
        let response = theirs.ask(&format!("initiation {initiation} 77")).unwrap();
        ours.receive(&response).unwrap();
        let keepalive = ours.sent();
        assert_eq!(theirs.ask(&format!("open {keepalive}")), Ok("keepalive".to_owned()));
        data_both_ways(&mut ours, &mut theirs);
        assert_eq!(theirs.ask(&format!("initiation {initiation} 78")), Err("replayed".to_owned()));
    }
}

#[test]
fn they_begin_and_we_answer() {
    for cipher in CIPHERS {
        let (a, b) = identities();
        let (mut ours, mut theirs) = (Ours::new(1, &b, cipher, LANE), Theirs::new(2, &a, cipher, LANE));
        let initiation = theirs.ask("initiate 77").unwrap();
        ours.receive(&initiation).unwrap();
        let response = ours.sent();
        assert_eq!(theirs.ask(&format!("response {response}")), Ok(String::new()));
        data_both_ways(&mut ours, &mut theirs);
        assert_eq!(ours.receive(&initiation), Err(HandshakeError::Replayed));
    }
}

#[test]
fn another_suite_another_lane_and_a_changed_head_are_refused_by_both() {
    for (mine, other) in [(CIPHERS[0], CIPHERS[1]), (CIPHERS[1], CIPHERS[0])] {
        let (a, b) = identities();
        let (mut ours, mut theirs) = (Ours::new(1, &b, mine, LANE), Theirs::new(2, &a, other, LANE));
        let initiation = ours.want();
        let why = format!("suite {}: {} is configured", suite(mine), suite(other));
        assert_eq!(theirs.ask(&format!("initiation {initiation} 77")), Err(why));
        let initiation = theirs.ask("initiate 78").unwrap();
        assert_eq!(ours.receive(&initiation), Err(HandshakeError::Suite { offered: suite(other) }));
        assert!(ours.wire.is_empty() && ours.session.is_none());

        let mut elsewhere = Theirs::new(2, &a, mine, LANE + 1);
        let initiation = elsewhere.ask("initiate 79").unwrap();
        assert_eq!(ours.receive(&initiation), Err(HandshakeError::Auth));
        let mut ours = Ours::new(1, &b, mine, LANE);
        let refused = elsewhere.ask(&format!("initiation {} 80", ours.want()));
        assert_eq!(refused, Err("auth: not the peer of this lane".to_owned()));
    }
}

#[test]
fn cookies_are_understood_both_ways() {
    let (a, b) = identities();
    let cipher = Cipher::Aes256Gcm;
    let (mut ours, mut theirs) = (Ours::new(1, &b, cipher, LANE), Theirs::new(2, &a, cipher, LANE));
    // Theirs to us.
    let initiation = ours.want();
    assert_eq!(theirs.ask(&format!("admit {initiation} {SOURCE}")), Ok("no".to_owned()));
    let reply = theirs.ask(&format!("cookie_for {initiation} {SOURCE}")).unwrap();
    ours.receive(&reply).unwrap();
    ours.now = ours.now + std::time::Duration::from_secs(6);
    ours.call(|peer, identity, cx, out| peer.poll(identity, &Default::default(), cx, out));
    let again = ours.sent();
    assert_eq!(theirs.ask(&format!("admit {again} {SOURCE}")), Ok("yes".to_owned()));
    assert_eq!(theirs.ask(&format!("admit {again} 192.0.2.8:51823")), Ok("no".to_owned()));

    // Ours to them.
    let source = SOURCE.parse().unwrap();
    let initiation = bytes(&theirs.ask("initiate 77").unwrap());
    let Ok(Verdict::Answer(reply)) = ours.checker.check(&initiation, source, true, ours.now, &mut random) else {
        panic!("without a cookie nobody passes");
    };
    assert_eq!(theirs.ask(&format!("cookie {}", hex(&reply))), Ok(String::new()));
    let again = bytes(&theirs.ask("initiate 78").unwrap());
    assert!(matches!(ours.checker.check(&again, source, true, ours.now, &mut random), Ok(Verdict::Pass)));
}
