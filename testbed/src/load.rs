//! Traffic that never ends: numbered datagrams from one site to another, through the tunnel, as fast as it is told.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::client::Site;
use crate::wait::{until, until_true};

/// Begins every payload. It is inside a tunnel or nowhere: whoever sees it outside has found a leak.
pub const MARK: &[u8] = b"ekiden inner packet, never seen outside a tunnel";
/// Datagrams that leave together at most: fewer of a slow stream, which is to tell how long something took.
const BURST: u32 = 8;
const PORT: u16 = 9009;
/// What waits for a reader that comes late.
const ROOM: usize = 8 << 20;

/// A stream of datagrams. It ends when it is dropped.
#[derive(Debug)]
pub struct Load {
    sent: Arc<AtomicU64>,
    received: Arc<AtomicU64>,
    late: Arc<AtomicU64>,
    held: Arc<AtomicBool>,
    ended: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Begins: so many datagrams a second with so many bytes of payload, from one site's inner address to the other's.
    pub fn start(from: &Site, to: &Site, rate: u32, bytes: usize) -> Result<Self> {
        Self::with_port(from, to, PORT, rate, bytes)
    }

    /// The same, to and from a port: several may flow between two sites.
    pub fn with_port(from: &Site, to: &Site, port: u16, rate: u32, bytes: usize) -> Result<Self> {
        let (source, sink) = ((from.v4(), if port == PORT { 0 } else { port }), (to.v4(), port));
        let out = from.namespace().inside(|| UdpSocket::bind(source))?.with_context(|| from.label())?;
        let into = to.namespace().inside(|| UdpSocket::bind(sink))?.with_context(|| to.label())?;
        into.set_read_timeout(Some(Duration::from_millis(50)))?;
        setsockopt(&into, RcvBufForce, &ROOM)?;
        let (sent, received, late) =
            (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (held, ended) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let mut load = Self {
            sent: sent.clone(),
            received: received.clone(),
            late: late.clone(),
            held: held.clone(),
            ended: ended.clone(),
            threads: Vec::new(),
        };
        let end = ended.clone();
        load.threads.push(std::thread::spawn(move || {
            let mut payload = MARK.to_vec();
            payload.resize(bytes.max(MARK.len() + 8), 0);
            let together = (rate / 100).clamp(1, BURST);
            let pause = Duration::from_secs(1) * together / rate;
            while !end.load(Ordering::Relaxed) {
                let burst = if held.load(Ordering::Relaxed) { 0 } else { together };
                for _ in 0..burst {
                    let number = sent.load(Ordering::Relaxed);
                    payload[MARK.len()..MARK.len() + 8].copy_from_slice(&number.to_be_bytes());
                    // Refused at times, as when the way is gone: it is load, and whoever counts, counts what arrives.
                    if out.send_to(&payload, sink).is_ok() {
                        sent.store(number + 1, Ordering::Relaxed);
                    }
                }
                std::thread::sleep(pause);
            }
        }));
        load.threads.push(std::thread::spawn(move || {
            let (mut payload, mut last) = ([0; 2048], None);
            while !ended.load(Ordering::Relaxed) {
                if into.recv(&mut payload).is_ok_and(|length| payload[..length].starts_with(MARK)) {
                    received.fetch_add(1, Ordering::Relaxed);
                    let number = payload[MARK.len()..].first_chunk().copied().map(u64::from_be_bytes);
                    late.fetch_add(u64::from(number <= last), Ordering::Relaxed);
                    last = last.max(number);
                }
            }
        }));
        Ok(load)
    }

    /// Holds it back, or lets it go on.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    /// Holds all of these back and waits until nothing is under way any more: how many of each were lost so far.
    pub fn lost(loads: &[Self]) -> Result<Vec<u64>> {
        loads.iter().for_each(|load| load.hold(true));
        let counts = || -> Vec<_> { loads.iter().map(|load| (load.received(), load.sent())).collect() };
        let (mut last, mut since) = (counts(), Instant::now());
        until("what is under way arrives", || {
            let now = counts();
            if now != last {
                (last, since) = (now, Instant::now());
            }
            let all = last.iter().all(|(received, sent)| received == sent);
            let quiet = Duration::from_millis(if all { 100 } else { 1000 });
            Ok((since.elapsed() > quiet)
                .then(|| last.iter().map(|(received, sent)| sent.saturating_sub(*received)).collect()))
        })
    }

    /// Lets all of these go on, and waits until so many more of each have arrived.
    pub fn must_flow(loads: &[Self], count: u64) -> Result<()> {
        let before: Vec<u64> = loads.iter().map(Self::received).collect();
        loads.iter().for_each(|load| load.hold(false));
        let all = || loads.iter().zip(&before).all(|(load, before)| load.received() >= before + count);
        let arrived = until_true("packets arrive", || Ok(all()));
        arrived
            .with_context(|| format!("{before:?}, and now {:?}", loads.iter().map(Self::received).collect::<Vec<_>>()))
    }

    /// Datagrams that have left.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Datagrams that have arrived after a later one, or for a second time.
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }

    /// Datagrams that have arrived.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
