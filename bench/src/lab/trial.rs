//! What a trial is to be, and what it showed.

use std::time::Duration;

use hdrhistogram::Histogram;

/// How much is offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// Packets a second.
    Rate(f64),
    /// As fast as the generator goes.
    Flood,
}

/// What a trial is to be.
#[derive(Clone, Copy, Debug)]
pub struct Plot {
    /// How much.
    pub load: Load,
    /// How long; a flood of more than was made ahead of time is shorter.
    pub time: Duration,
    /// How many latencies are wanted, about.
    pub samples: u64,
    /// Handshakes of each end, spread over the trial.
    pub rekeys: u32,
}

impl Plot {
    /// A steady load, and nothing else.
    pub fn rate(rate: f64, time: Duration) -> Self {
        Self { load: Load::Rate(rate), time, samples: 0, rekeys: 0 }
    }
}

/// What a trial showed.
#[derive(Clone)]
pub struct Outcome {
    /// Frames that the generator sent.
    pub sent: u64,
    /// Packets that came to the sink.
    pub received: u64,
    /// Packets that came after a later one of their tunnel.
    pub late: u64,
    /// Tunnels that lost something, and what the worst of them lost.
    pub losers: (usize, u64),
    /// Packets a second that were offered.
    pub offered: f64,
    /// Packets a second that came, while they were offered and after that had taken hold.
    pub carried: f64,
    /// Looks at which a frame was due and was not made yet: above 0, the load was less than was asked for.
    pub starved: u64,
    /// From the generator to the sink, ns.
    pub latency: Histogram<u64>,
    /// Handshakes completed in it.
    pub handshakes: u32,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, received, late, losers, offered, carried, starved, latency, handshakes } = self;
        write!(
            f,
            "{sent} sent at {offered:.0} a second, {received} received at {carried:.0}, {late} late, tunnels that lost {losers:?}, "
        )?;
        write!(f, "starved {starved}, {} latencies, {handshakes} handshakes", latency.len())
    }
}

impl Outcome {
    /// The share of packets that were lost.
    pub fn loss(&self) -> f64 {
        self.lost() as f64 / self.sent.max(1) as f64
    }

    /// The packets that were lost.
    pub fn lost(&self) -> u64 {
        self.sent.saturating_sub(self.received)
    }

    /// A quantile of latency, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64 / 1e3
    }
}
