//! What people measure with: `ping` and `iperf3`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::client::Site;
use crate::lab::Namespace;
use crate::process::Process;
use crate::wait::until_true;

/// What `ping` saw.
#[derive(Debug, Clone)]
pub struct Pings {
    /// Requests that were sent.
    pub sent: u32,
    /// Replies that came.
    pub received: u32,
    /// The mean of the round trips in milliseconds, if there was any.
    pub mean_ms: Option<f64>,
    /// All that it printed.
    pub text: String,
}

impl Pings {
    /// Every request was answered.
    pub fn all(&self) -> bool {
        self.sent > 0 && self.sent == self.received
    }
}

/// Sends so many requests, one after the other, and gives each reply five seconds: only a packet that is lost counts as
/// lost. A single run of `ping` gives the last one no more time than the others took, which a busy machine may exceed.
pub fn echo(namespace: &Namespace, to: IpAddr, count: u32, words: &[&str]) -> Result<Pings> {
    let mut all = Pings { sent: 0, received: 0, mean_ms: None, text: String::new() };
    let mut times = Vec::new();
    for _ in 0..count {
        let one = ping(namespace, to, &[&["-c", "1", "-W", "5"], words].concat())?;
        all.sent += one.sent;
        all.received += one.received;
        all.text += &one.text;
        times.extend(one.mean_ms);
    }
    all.mean_ms = (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64);
    Ok(all)
}

/// Runs `ping` with these words besides the address.
pub fn ping(namespace: &Namespace, to: IpAddr, words: &[&str]) -> Result<Pings> {
    let mut command = namespace.command("ping");
    command.arg("-n").args(words).arg(to.to_string()).env("LC_ALL", "C");
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    pings(text).with_context(|| format!("{command:?}: {errors}"))
}

/// What `ping` printed.
fn pings(text: String) -> Result<Pings> {
    let summary = text.lines().find(|line| line.contains(" packets transmitted, "));
    let Some(summary) = summary else { bail!("no summary: {text}") };
    let number = |field: &str| summary.split(", ").find(|part| part.contains(field))?.split(' ').next()?.parse().ok();
    let mean_ms = text.lines().find_map(|line| line.strip_prefix("rtt ")?.split('/').nth(4)?.parse().ok());
    let (sent, received) = (number("transmitted"), number("received"));
    Ok(Pings { sent: sent.context("sent")?, received: received.context("received")?, mean_ms, text })
}

/// A steady flow of pings under way.
#[derive(Debug)]
pub struct Flow(Process);

impl Flow {
    /// 500 a second from one site to another, for so many seconds.
    pub fn start(from: &Site, to: &Site, seconds: u64) -> Result<Self> {
        let (name, count) = (format!("flow-{}-{}", from.plan.name, to.plan.name), (seconds * 500).to_string());
        let _ = std::fs::remove_file(from.directory().join(format!("{name}.log")));
        let to = to.v4().to_string();
        let words = ["ping", "-n", "-q", "-i", "0.002", "-c", &count, "-W", "5", &to];
        Ok(Self(Process::start(from.directory(), from.namespace(), &name, &words, &[("LC_ALL", "C")])?))
    }

    /// Ends it now. The last request may still be under way: it is not counted.
    pub fn stop(mut self) -> Result<Pings> {
        self.0.stop(Signal::INT)?;
        let mut pings = pings(self.0.log())?;
        pings.sent -= u32::from(pings.received < pings.sent);
        Ok(pings)
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Pings> {
        self.0.end(Duration::from_secs(120))?;
        pings(self.0.log())
    }
}

/// A site pings another: three times, and every request must be answered.
pub fn must_ping(from: &Site, to: IpAddr) -> Result<()> {
    let pings = echo(from.namespace(), to, 3, &[])?;
    anyhow::ensure!(pings.all(), "{} pings {to}: {}", from.label(), pings.text);
    Ok(())
}

/// Both sites ping each other, IPv4 and IPv6.
pub fn must_ping_both_ways(a: &Site, b: &Site) -> Result<()> {
    for (from, to) in [(a, b), (b, a)] {
        to.inner().into_iter().try_for_each(|address| must_ping(from, address))?;
    }
    Ok(())
}

/// A TCP transfer under way.
#[derive(Debug)]
pub struct Iperf {
    server: Process,
    client: Process,
    seconds: u64,
    what: String,
}

/// What a TCP transfer came to.
#[derive(Debug, Clone)]
pub struct Transfer {
    /// Megabits a second, as the receiver counted them.
    pub mbits: f64,
    /// Segments sent again.
    pub retransmits: u64,
    /// Bytes in each second, as the client saw them.
    pub seconds: Vec<u64>,
}

/// TCP from one site to another for so many seconds.
pub fn iperf(from: &Site, to: &Site, seconds: u64) -> Result<Transfer> {
    Iperf::start(from, to, to.v4().into(), seconds)?.finish()
}

/// TCP there and back, one after the other.
pub fn iperf_both_ways(a: &Site, b: &Site, seconds: u64) -> Result<[Transfer; 2]> {
    Ok([iperf(a, b, seconds)?, iperf(b, a, seconds)?])
}

/// TCP, or UDP at 20 Mbit/s, from one namespace to an address of another for so many seconds: the bits that arrived, in Mbit/s,
/// and the share of datagrams that did not. Logs are in `directory`.
pub fn transfer(
    directory: &std::path::Path,
    (from, to): (&Namespace, &Namespace),
    address: IpAddr,
    (udp, seconds): (bool, u64),
) -> Result<(f64, f64)> {
    let log = |role: &str| format!("iperf-{}-{role}", from.name());
    for role in ["server", "client"] {
        let _ = std::fs::remove_file(directory.join(format!("{}.log", log(role))));
    }
    let (address, time) = (address.to_string(), seconds.to_string());
    let words = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", &address];
    let mut server = Process::start(directory, to, &log("server"), &words, &[])?;
    until_true("an iperf3 server", || {
        server.must_be_alive()?;
        Ok(server.log().contains("Server listening"))
    })?;
    let mut words = vec!["iperf3", "--client", &address, "--time", &time, "--json"];
    if udp {
        words.extend(["--udp", "--bitrate", "20M", "--length", "1200"]);
    }
    let mut client = Process::start(directory, from, &log("client"), &words, &[])?;
    let status = client.end(Duration::from_secs(seconds + 30))?;
    let text = client.log();
    anyhow::ensure!(status.success(), "{status}: {text}");
    let _ = server.stop(Signal::TERM);
    let report: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let sum = if udp { &report["end"]["sum"] } else { &report["end"]["sum_received"] };
    let mbits = sum["bits_per_second"].as_f64().context("throughput")? / 1e6;
    Ok((mbits, sum["lost_percent"].as_f64().unwrap_or(0.0) / 100.0))
}

impl Iperf {
    /// Begins; `address` is the receiver's.
    pub fn start(from: &Site, to: &Site, address: IpAddr, seconds: u64) -> Result<Self> {
        Self::with_bitrate(from, to, address, (seconds, "0"))
    }

    /// The same with no more bits a second than this: it leaves room for others.
    pub fn with_bitrate(from: &Site, to: &Site, address: IpAddr, (seconds, rate): (u64, &str)) -> Result<Self> {
        let directory = to.directory();
        let what = format!("iperf3 {} to {}", from.label(), to.label());
        let name = |role: &str| format!("iperf-{}-{}-{role}", from.plan.tenant, from.plan.name);
        let _ = std::fs::remove_file(directory.join(format!("{}.log", name("server"))));
        let _ = std::fs::remove_file(directory.join(format!("{}.log", name("client"))));
        let (address, time) = (address.to_string(), seconds.to_string());
        let words = ["iperf3", "--server", "--one-off", "--forceflush", "--bind", &address];
        let server = Process::start(directory, to.namespace(), &name("server"), &words, &[])?;
        until_true(&format!("{what}: server"), || {
            server.must_be_alive()?;
            Ok(server.log().contains("Server listening"))
        })?;
        let words = ["iperf3", "--client", &address, "--time", &time, "--json", "--bitrate", rate];
        let client = Process::start(directory, from.namespace(), &name("client"), &words, &[])?;
        Ok(Self { server, client, seconds, what })
    }

    /// Whether it has not come to its end.
    pub fn is_under_way(&self) -> Result<bool> {
        self.client.is_alive()
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Transfer> {
        let status = self.client.end(Duration::from_secs(self.seconds + 30)).with_context(|| self.what.clone())?;
        let text = self.client.log();
        let report: Value = serde_json::from_str(&text).with_context(|| format!("{}: {text}", self.what))?;
        if let Some(error) = report["error"].as_str() {
            bail!("{}: {error}", self.what);
        }
        anyhow::ensure!(status.success(), "{}: {status}: {text}", self.what);
        let _ = self.server.stop(Signal::TERM);
        let end = &report["end"];
        let intervals = report["intervals"].as_array().context("intervals")?;
        Ok(Transfer {
            mbits: end["sum_received"]["bits_per_second"].as_f64().context("throughput")? / 1e6,
            retransmits: end["sum_sent"]["retransmits"].as_u64().unwrap_or(0),
            seconds: intervals.iter().filter_map(|interval| interval["sum"]["bytes"].as_u64()).collect(),
        })
    }
}
