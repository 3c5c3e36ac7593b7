//! Plain AF_XDP forwarding on one core: frames of one port leave by another, with other MAC addresses. No hub can be faster
//! here.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, ensure};
use dataplane::packet::BATCH;
use dataplane::xsk::{Device, Frame, Kick, Options, Socket, Umem};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::programs::{Programs, Sizes};

const CHUNKS: u32 = 8192;

/// Forwards queue 0 of one port of this namespace to queue 0 of another, until a signal comes. Calls `ready` when it begins.
///
/// # Errors
/// What the kernel refused.
pub fn forward(from: &str, to: &str, mac: [u8; 6], ready: impl FnOnce()) -> Result<()> {
    let end = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, end.clone())?;
    }

    // 1. Two sockets that share their memory, as a hub's do.
    let umem = Umem::new(CHUNKS, 2048)?;
    let [from, to] = [Device::find(from)?, Device::find(to)?];
    let options = Options { zero_copy: Some(false), ..Options::default() };
    let mut input = Socket::open(umem, from.ifindex, 0, &options, None)?;
    let mut output = Socket::open(umem, to.ifindex, 0, &options, Some(&input))?;
    let mut pool: Vec<Frame> = umem.frames(0..CHUNKS);
    input.refill(&mut pool);
    let mut programs = Programs::load(&Sizes { port: 0, cells: 1, tunnels: 1 })?;
    programs.steer(from.ifindex, &input)?;
    programs.pass(to.ifindex)?;
    ready();

    // 2. Turns.
    let mut batch: Vec<Frame> = Vec::with_capacity(BATCH);
    let mut kick = Kick::Done;
    while !end.load(Ordering::Relaxed) {
        output.reclaim(&mut pool);
        input.refill(&mut pool);
        let room = BATCH - batch.len();
        let received = input.receive(&mut batch, room);
        for frame in &mut batch[BATCH - room..] {
            let bytes = frame.bytes_mut();
            ensure!(bytes.len() >= 12, "the kernel gave a frame without addresses");
            bytes.copy_within(..6, 6);
            bytes[..6].copy_from_slice(&mac);
        }
        if received > 0 || !batch.is_empty() || kick == Kick::Again {
            output.transmit(&mut batch);
            kick = output.kick().context("the port")?;
        }
    }
    Ok(())
}
