//! Floods: frames by the hundred thousand, from a thread of their own.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use blake2::digest::{Digest, FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac};
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, sendto, setsockopt, socket};

use crate::lab::{Namespace, run};
use crate::rogue::Rogue;
use crate::wait::until_true;

/// What the kernel may hold of a flood before it reaches the other end of the wire: a wire of a lab has room for 256 frames,
/// and what overflows there would be the lab's loss.
const UNSENT: usize = 64 << 10;

/// What makes one frame of a flood out of the one before.
pub type Change = Box<dyn FnMut(&mut [u8]) -> Result<()> + Send>;

/// Anybody on the internet, one after the other.
pub fn from_anybody() -> Change {
    // A first octet that is nobody's: neither the lab's nor loopback, multicast or the like.
    from(|[a, b, c, d]| [20 + a % 60, b, c, d].into())
}

/// The neighbours of this address, in its /24, and the address itself among them.
pub fn from_around(address: Ipv4Addr) -> Change {
    let [x, y, z, _] = address.octets();
    from(move |[.., d]| [x, y, z, d].into())
}

fn from(source: impl Fn([u8; 4]) -> Ipv4Addr + Send + 'static) -> Change {
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    Box::new(move |frame| {
        let [.., a, b, c, d] = next(&mut random).to_be_bytes();
        set_source(frame, source([a, b, c, d]), next(&mut random) as u16 | 1024);
        Ok(())
    })
}

/// Data messages of a site in the hands of an attacker, one after the other, with these packets inside, all of one length.
pub fn of_tunnel(rogue: Arc<Rogue>, mut packet: impl FnMut() -> Result<Vec<u8>> + Send + 'static) -> Change {
    Box::new(move |frame| {
        let message = rogue.seal(&packet()?)?;
        let from = frame.len() - message.len();
        frame[from..].copy_from_slice(&message);
        frame[40..42].fill(0); // the UDP checksum, which was of another message
        Ok(())
    })
}

/// A flood under way. It ends when dropped.
#[derive(Debug)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    /// Sends this frame through an interface, changed each time, at so many a second, or as fast as it goes. It has begun when
    /// this returns.
    pub fn start(
        near: &Namespace,
        interface: &str,
        like: &[u8],
        mut change: Change,
        rate: Option<u64>,
        max: Option<u64>,
    ) -> Result<Self> {
        let (wire, link) = near.inside(|| -> Result<_> {
            // Without a protocol it hears nothing.
            let wire = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
            setsockopt(&wire, SndBuf, &UNSENT)?;
            let mut addresses = nix::ifaddrs::getifaddrs()?.filter(|entry| entry.interface_name == interface);
            let link = addresses.find_map(|entry| entry.address.and_then(|address| address.as_link_addr().copied()));
            Ok((wire, link.context("the interface has a link address")?))
        })??;
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, ended, mut frame) = (sent.clone(), stop.clone(), like.to_vec());
        let thread = std::thread::spawn(move || -> Result<()> {
            let begin = Instant::now();
            let mut count = 0u64;
            while !ended.load(Ordering::Relaxed) && max.is_none_or(|max| count < max) {
                if let Some(rate) = rate
                    && count >= begin.elapsed().as_micros() as u64 * rate / 1_000_000
                {
                    // A little behind, and then some at once: the mean is what was asked for.
                    std::thread::sleep(Duration::from_micros(200));
                    continue;
                }
                change(&mut frame)?;
                match sendto(wire.as_raw_fd(), &frame, &link, MsgFlags::empty()) {
                    // The wire had no room: the kernel counts that at the interface, and so does `lost_before`.
                    Ok(_) | Err(nix::Error::ENOBUFS) => {}
                    Err(error) => return Err(error).context("the flood"),
                }
                count += 1;
                counter.store(count, Ordering::Relaxed);
            }
            Ok(())
        });
        let flood = Self { sent, stop, thread: Some(thread) };
        until_true("the flood has begun", || Ok(flood.sent() > 0 || flood.has_ended()))?;
        Ok(flood)
    }

    /// Frames sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether it has come to its end by itself.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it. Returns how many frames were sent.
    pub fn stop(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| anyhow::anyhow!("the flood panicked"))??;
        }
        Ok(self.sent())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// xorshift64: no secret depends on it.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Another source, and the IPv4 checksum that goes with it.
fn set_source(frame: &mut [u8], address: Ipv4Addr, port: u16) {
    frame[26..30].copy_from_slice(&address.octets());
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[24..26].fill(0);
    let sum: u32 = frame[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !((sum + (sum >> 16)) as u16);
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    // Without a UDP checksum: it would need the source as well.
    frame[40..42].fill(0);
}

/// An initiation that only its MAC1 tells from one of a client: nothing in it decrypts. MAC1 needs nothing but the hub's
/// public key. Without it, that is garbage, too.
pub fn initiation(hub_public: Option<&str>) -> Result<Vec<u8>> {
    let mut message = vec![0x5a; 148];
    message[..4].copy_from_slice(&[1, 0, 0, 0]);
    if let Some(public) = hub_public {
        use base64::Engine as _;
        let public = base64::engine::general_purpose::STANDARD.decode(public)?;
        let mut state = Blake2s256::new();
        Digest::update(&mut state, b"mac1----");
        Digest::update(&mut state, &public);
        let key: [u8; 32] = state.finalize().into();
        let mut mac = Blake2sMac::<U16>::new_from_slice(&key).context("a key of 32 bytes")?;
        Update::update(&mut mac, &message[..116]);
        let mac: [u8; 16] = mac.finalize_fixed().into();
        message[116..132].copy_from_slice(&mac);
    }
    message[132..].fill(0);
    Ok(message)
}

/// Lets a wire's near end keep what its far end has no room for, so that a flood there is not the lab's loss.
pub fn widen(near: &Namespace, interface: &str) -> Result<()> {
    near.run("tc", &["qdisc", "replace", "dev", interface, "root", "pfifo", "limit", "1000"]).map(drop)
}

/// Frames that an interface was given to send, and lost: in a lab, for want of room at the other end of the wire.
pub fn lost_before(near: &Namespace, interface: &str) -> Result<u64> {
    let mut command = near.command("ip");
    let text = run(command.args(["-s", "-j", "link", "show", interface]))?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["tx"]["dropped"].as_u64().context("frames dropped")
}
