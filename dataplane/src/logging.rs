//! Log lines on standard error: RFC 3339 with the local offset, filtered by `--log` or the environment.

use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime};

use chrono::{DateTime, Local, SecondsFormat};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time::ChronoLocal;

/// The environment variable that holds a filter, such as `info,ekiden_dataplane::control=debug`.
pub const VARIABLE: &str = "EKIDEN_LOG";

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter can't be understood.
    #[error("log filter {filter:?} ({from}): {why}; write a level such as `info`, or `warn,ekiden=debug`")]
    Filter {
        /// The filter.
        filter: String,
        /// Where it came from.
        from: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Something in this process logs already.
    #[error("logging is set up already")]
    Twice,
}

/// Sets up logging for the whole process: by `filter` if there is one, else by [`VARIABLE`], else from level info.
pub fn init(filter: Option<&str>) -> Result<(), LogError> {
    let filter = filter_of(filter, std::env::var(VARIABLE).ok().as_deref())?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(timer())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .try_init()
        .map_err(|_| LogError::Twice)
}

/// The offset is looked up for every line, in the zone's own table: it follows the change to summer time, and does not
/// need the C library's `localtime`, which is not safe beside threads.
fn timer() -> ChronoLocal {
    ChronoLocal::new("%Y-%m-%dT%H:%M:%S%.6f%:z".into())
}

fn filter_of(argument: Option<&str>, variable: Option<&str>) -> Result<EnvFilter, LogError> {
    let (filter, from) = match (argument, variable.filter(|text| !text.trim().is_empty())) {
        (Some(filter), _) => (filter, "--log"),
        (None, Some(filter)) => (filter, VARIABLE),
        (None, None) => ("info", "default"),
    };
    // Without a default of its own the filter would let only errors through where it names nothing but modules.
    EnvFilter::builder()
        .with_default_directive(tracing::level_filters::LevelFilter::INFO.into())
        .parse(filter)
        .map_err(|error| LogError::Filter { filter: filter.into(), from, why: error.to_string() })
}

/// A moment as the logs and status write it: RFC 3339, whole seconds, with the local offset.
pub fn rfc3339(moment: SystemTime) -> String {
    DateTime::<Local>::from(moment).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// Lets one log line through in each period, for lines that the network can cause: without it a stranger fills the disk.
#[derive(Debug)]
pub struct Every {
    period: Duration,
    last: Option<Instant>,
    silent: u64,
}

impl Every {
    /// Nothing has been said yet.
    pub const fn new(period: Duration) -> Self {
        Self { period, last: None, silent: 0 }
    }

    /// Whether to write the line now: if so, how many were left unwritten since the last one, which belongs into it.
    pub fn ready(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now.saturating_duration_since(last) < self.period) {
            self.silent = self.silent.saturating_add(1);
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.silent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().map_err(|_| std::io::ErrorKind::Other)?.write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_begins_with_a_moment_in_rfc_3339_and_the_local_offset_also_in_another_thread() {
        let lines = Lines::default();
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(filter_of(None, None).unwrap())
            .with_timer(timer())
            .with_ansi(false)
            .with_writer(move || sink.clone())
            .finish();
        let before = chrono::Local::now();
        std::thread::spawn(move || {
            tracing::subscriber::with_default(subscriber, || {
                tracing::info!("seen");
                tracing::debug!("not seen");
            });
        })
        .join()
        .unwrap();
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let stamp = text.split_whitespace().next().unwrap();
        let written = DateTime::parse_from_rfc3339(stamp).unwrap();
        assert_eq!(written.offset().local_minus_utc(), before.offset().local_minus_utc(), "{stamp}");
        assert!((written.with_timezone(&Local) - before).num_seconds().abs() < 60, "{stamp}");
        assert!(stamp.len() == "2026-01-02T03:04:05.678901+09:00".len(), "{stamp}");
        assert!(text.contains("seen") && !text.contains("not seen"), "{text}");
    }

    #[test]
    fn the_offset_is_that_of_the_zone() {
        // In a process of its own: the zone is read from the environment, which other tests share.
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", concat!(module_path!(), "::in_tokyo").split_once("::").unwrap().1, "--nocapture"])
            .env("TZ", "JST-9")
            .env("EKIDEN_TEST_IN_TOKYO", "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout);
        assert!(text.contains("moment 1970-01-01T09:00:00+09:00"), "{text}");
    }

    #[test]
    fn in_tokyo() {
        if std::env::var_os("EKIDEN_TEST_IN_TOKYO").is_some() {
            let text = format!("moment {}\n", rfc3339(SystemTime::UNIX_EPOCH));
            std::io::stdout().write_all(text.as_bytes()).unwrap();
        }
    }

    #[test]
    fn the_argument_goes_before_the_environment_and_nonsense_is_named() {
        assert_eq!(filter_of(Some("warn"), Some("trace")).unwrap().to_string(), "warn");
        assert_eq!(filter_of(None, Some("debug")).unwrap().to_string(), "debug");
        assert_eq!(filter_of(None, Some(" ")).unwrap().to_string(), "info");
        let error = filter_of(None, Some("ekiden=loud")).unwrap_err().to_string();
        assert!(error.contains("\"ekiden=loud\" (EKIDEN_LOG)"), "{error}");
    }

    #[test]
    fn one_line_a_period_and_the_rest_is_counted() {
        let start = Instant::now();
        let mut every = Every::new(Duration::from_secs(10));
        assert_eq!(every.ready(start), Some(0));
        for s in 1..10 {
            assert_eq!(every.ready(start + Duration::from_secs(s)), None);
        }
        assert_eq!(every.ready(start + Duration::from_secs(10)), Some(9));
        assert_eq!(every.ready(start + Duration::from_secs(30)), Some(0));
        // A clock read out of order is no reason to speak, nor to panic.
        assert_eq!(every.ready(start), None);
    }
}
