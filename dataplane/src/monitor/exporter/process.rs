//! What the exporter says of its own process, under the names that every Prometheus client uses.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use procfs::process::{LimitValue, Process};

/// A process, as it is now.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) cpu_seconds: f64,
    pub(super) threads: u64,
    pub(super) virtual_bytes: u64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: Option<u64>,
    pub(super) start_seconds: f64,
}

/// When the process began to count: it asks at its first scrape at the latest.
static START: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());

/// Remembers this moment as the start of the process.
pub(super) fn started() {
    LazyLock::force(&START);
}

impl Own {
    /// Nothing, where /proc is not to be seen.
    pub(super) fn read() -> Option<Self> {
        let process = Process::myself().ok()?;
        let stat = process.stat().ok()?;
        Some(Self {
            cpu_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            threads: stat.num_threads.max(0) as u64,
            virtual_bytes: stat.vsize,
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
            open_fds: process.fd_count().ok()? as u64,
            max_fds: match process.limits().ok()?.max_open_files.soft_limit {
                LimitValue::Value(fds) => Some(fds),
                LimitValue::Unlimited => None,
            },
            start_seconds: *START,
        })
    }
}
