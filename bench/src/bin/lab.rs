//! The load lab: how fast a hub is, measured. `lab --help` says what it can measure.
#![allow(clippy::print_stdout, reason = "a program whose purpose is to print")]

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use crypto::aead::Cipher;
use dataplane::config::cipher_name;
use ekiden_bench::lab::{self, Effort, Kind, Load, Options, Plot, Size, targets, trunk};

/// Measures hubs in a lab on this machine: a generator, the hub under test, and a sink, each in a network namespace of its own,
/// joined by veth.
///
/// The generator makes real handshakes, seals its frames ahead of time and sends them from XDP at a steady pace, on core 0; the hub
/// has core 1; the sink counts in XDP and drops. Everything runs as root, goes away at the end and at Ctrl-C, and wants a
/// machine on which nothing else runs: figures of one run compare with each other, and with nothing else.
///
/// Ekiden is the binary beside this one, built if need be, or $EKIDEN_BIN. The others are what `make tools` installs.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// One load, or as fast as the generator goes: what arrives, what is lost, how long it takes.
    Trial {
        #[command(flatten)]
        hub: HubArguments,
        /// Packets a second; without it, as fast as it goes, for 300,000 frames.
        #[arg(long)]
        rate: Option<f64>,
        /// How long.
        #[arg(long, default_value_t = 1.0)]
        seconds: f64,
        /// How many latencies to take, about.
        #[arg(long, default_value_t = 0)]
        samples: u64,
        /// Handshakes of both sites while packets pass.
        #[arg(long, default_value_t = 0)]
        rekeys: u32,
        /// How often.
        #[arg(long, default_value_t = 1)]
        times: u32,
    },
    /// Latency at 10, 50 and 90 % of what each hub carries with a loss of at most 0.5 %, which is looked for first.
    Latency {
        /// The hubs.
        #[arg(long, value_enum, value_delimiter = ',', default_value = "ekiden,gotatun,wireguard-go,kernel")]
        dut: Vec<Kind>,
        /// Bytes of the inner packets: 64 to 1420, or imix.
        #[arg(long, default_value = "512")]
        size: Size,
        /// How long at each load.
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// How often; the medians are shown.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// A share of what the hub carries, for a while. Fails if a packet is lost.
    Soak {
        /// The hub.
        #[arg(long, value_enum, default_value = "ekiden")]
        dut: Kind,
        /// Bytes of the inner packets.
        #[arg(long, default_value = "512")]
        size: Size,
        /// How long.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// The share.
        #[arg(long, default_value_t = 0.5)]
        share: f64,
    },
    /// The hub's time for a packet, against the sum of AF_XDP forwarding, opening, sealing and 200 cycles, in pairs.
    Sum {
        /// Bytes of the inner packets.
        #[arg(long, value_delimiter = ',', default_value = "64,512,1420")]
        sizes: Vec<Size>,
        /// How many pairs.
        #[arg(long, default_value_t = 5)]
        pairs: usize,
        /// The sink's work leaves the hub's core.
        #[arg(long)]
        defer: bool,
    },
    /// The rate with many sites that all have sessions and traffic, against that with two.
    Sites {
        /// Numbers of sites; the first is compared with.
        #[arg(long, value_delimiter = ',', default_value = "2,100,1000,10000")]
        counts: Vec<usize>,
        /// Bytes of the inner packets.
        #[arg(long, default_value = "512")]
        size: Size,
        /// How often, in turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// The rate with many routes in the tenant's table, against that with few.
    Routes {
        /// Numbers of routes; the first is compared with.
        #[arg(long, value_delimiter = ',', default_value = "10,1000,100000")]
        counts: Vec<u32>,
        /// Bytes of the inner packets.
        #[arg(long, default_value = "512")]
        size: Size,
        /// How often, in turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// What a trunk costs, by its cipher, against the relay between two sites of one hub.
    ///
    /// One hub between a site and a trunk, either way; the lab itself is the hub at the trunk's other end. And two hubs with a trunk
    /// between them, both on the hub's core, so that a packet's time is that of both.
    Trunk {
        /// Bytes of the inner packets.
        #[arg(long, value_delimiter = ',', default_value = "64,512,1420")]
        sizes: Vec<Size>,
        /// What the trunk seals with.
        #[arg(long, value_delimiter = ',', value_parser = cipher, default_value = "chacha20-poly1305,aes-256-gcm")]
        ciphers: Vec<Cipher>,
        /// How often, in turn.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Rekeys, and reloads of routes and sites, under load: what is lost, and for how long traffic was held up by that.
    Changes {
        /// The load, as a share of what the hub carries.
        #[arg(long, default_value_t = 0.5)]
        share: f64,
        /// Bytes of the inner packets.
        #[arg(long, default_value = "512")]
        size: Size,
        /// How often, each in turn with as long a trial without any.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
    },
    /// Memory of the hub with sessions against without.
    Memory {
        /// Sites.
        #[arg(long, default_value_t = 10_000)]
        sites: usize,
    },
    /// All hubs at all sizes, and a page about it with a table, CSV and plots.
    Compare {
        /// Where the page goes.
        #[arg(long, default_value = "docs/bench")]
        out: PathBuf,
        /// Rounds of floods.
        #[arg(long, default_value_t = 3)]
        rounds: usize,
        /// Sizes for which NDR and PDR are searched; latency is taken at 512.
        #[arg(long, value_delimiter = ',', default_value = "64,512,1420")]
        search: Vec<Size>,
        /// The sink's work leaves the hub's core, for all hubs.
        #[arg(long)]
        defer: bool,
        /// A look at everything in two minutes, for whoever changes this program.
        #[arg(long)]
        quick: bool,
    },
    /// AF_XDP forwarding: started by the others.
    #[command(hide = true)]
    Forward { from: String, to: String, mac: String },
}

#[derive(Args)]
struct HubArguments {
    /// The hub.
    #[arg(long, value_enum, default_value = "ekiden")]
    dut: Kind,
    /// Bytes of the inner packets: 64 to 1420, or imix.
    #[arg(long, default_value = "512")]
    size: Size,
    /// Pairs of sites: one sends, and the other receives.
    #[arg(long, default_value_t = 1)]
    pairs: usize,
    /// Prefixes behind each receiver.
    #[arg(long, default_value_t = 1)]
    routes: u32,
    /// The hub may have both cores.
    #[arg(long)]
    free: bool,
    /// The sink's work leaves the hub's core.
    #[arg(long)]
    defer: bool,
}

fn cipher(name: &str) -> Result<Cipher, String> {
    let all = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
    let names = all.map(cipher_name).join(" or ");
    all.into_iter().find(|cipher| cipher_name(*cipher) == name).ok_or(names)
}

fn main() -> Result<()> {
    let out = &mut io::stdout();
    match Arguments::parse().command {
        Command::Trial { hub, rate, seconds, samples, rekeys, times } => {
            let HubArguments { dut, size, pairs, routes, free, defer } = hub;
            let options = Options { pairs, routes, free, defer, ..Options::default() };
            let load = rate.map_or(Load::Flood, Load::Rate);
            let plot = Plot { load, time: Duration::try_from_secs_f64(seconds)?, samples, rekeys };
            targets::trial(out, dut, &size, &options, &plot, times)
        }
        Command::Latency { dut, size, seconds, rounds } => {
            targets::latencies(out, &dut, &size, Duration::try_from_secs_f64(seconds)?, rounds)
        }
        Command::Soak { dut, size, seconds, share } => {
            targets::soak(out, dut, &size, Duration::from_secs(seconds), share)
        }
        Command::Sum { sizes, pairs, defer } => targets::sum(out, &sizes, pairs, defer),
        Command::Sites { counts, size, rounds } => targets::sites(out, &size, &counts, rounds),
        Command::Routes { counts, size, rounds } => targets::routes(out, &size, &counts, rounds),
        Command::Trunk { sizes, ciphers, rounds } => trunk::trunk(out, &sizes, &ciphers, rounds),
        Command::Changes { share, size, rounds } => targets::changes(out, &size, share, rounds),
        Command::Memory { sites } => targets::memory(out, sites),
        Command::Compare { out, rounds, search, defer, quick } => {
            let mut effort = Effort { rounds, defer, searched: search, ..Effort::default() };
            if quick {
                (effort.rounds, effort.floods, effort.latency) = (1, 1, Duration::from_secs(1));
                effort.searched = vec![Size::of(512)];
            }
            lab::compare(&out, &effort)?;
            println!("{}", out.join("compare.md").display());
            Ok(())
        }
        Command::Forward { from, to, mac } => {
            let bytes: Option<Vec<u8>> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
            let mac = bytes.and_then(|bytes| bytes.try_into().ok()).context("a MAC address has six bytes")?;
            lab::forward(&from, &to, mac, || println!("ready"))
        }
    }
}
