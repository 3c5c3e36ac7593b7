//! What systemd is told: that the hub is ready, how it does, that it lives, that it stops. Without systemd, nothing.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::logging::Every;

/// The line to systemd, if systemd has started us.
#[derive(Debug)]
pub struct Notify {
    watchdog: Option<Duration>,
    trouble: Every,
}

impl Notify {
    /// Reads what systemd wants from the environment (`NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`).
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled(), trouble: Every::new(Duration::from_secs(60)) }
    }

    /// How often to call [`Notify::alive`]: half of what systemd allows. `None`: it does not watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The hub carries packets; `status` is a line for `systemctl status`.
    pub fn ready(&mut self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(&line(status))]);
    }

    /// A new line for `systemctl status`.
    pub fn status(&mut self, status: &str) {
        self.send(&[NotifyState::Status(&line(status))]);
    }

    /// The hub lives. To be called by control, and only if its workers made a turn since the last time: then a stuck
    /// worker, too, has the hub restarted.
    pub fn alive(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// The hub has begun to stop.
    pub fn stopping(&mut self) {
        self.send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    fn send(&mut self, states: &[NotifyState<'_>]) {
        // It succeeds, having done nothing, where there is no NOTIFY_SOCKET.
        if let Err(error) = sd_notify::notify(states)
            && self.trouble.ready(std::time::Instant::now()).is_some()
        {
            tracing::warn!(%error, "could not tell systemd how the hub does");
        }
    }
}

/// One message holds several assignments, a line each: a status must not begin another.
fn line(status: &str) -> String {
    status.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    const CHILD: &str = "EKIDEN_TEST_NOTIFY_CHILD";

    /// The environment is read for every message, and belongs to the whole process: so the messages come from a child.
    #[test]
    fn systemd_is_told_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let name = concat!(module_path!(), "::child").split_once("::").unwrap().1;
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "20000000")
            .env(CHILD, "told")
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        let next = || {
            let mut bytes = [0; 512];
            let length = systemd.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert_eq!(next(), "READY=1\nSTATUS=2 ports READY=0\n");
        assert_eq!(next(), "WATCHDOG=1\n");
        assert_eq!(next(), "STATUS=4 sites\n");
        assert_eq!(next(), "STOPPING=1\nSTATUS=stopping\n");
    }

    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let mut notify = Notify::from_environment();
        assert_eq!(notify.watchdog_period(), Some(Duration::from_secs(10)));
        notify.ready("2 ports\nREADY=0");
        notify.alive();
        notify.status("4 sites");
        notify.stopping();
    }

    #[test]
    fn without_systemd_nothing_happens() {
        let mut notify = Notify { watchdog: None, trouble: Every::new(Duration::ZERO) };
        assert_eq!(notify.watchdog_period(), None);
        notify.ready("ready");
    }
}
