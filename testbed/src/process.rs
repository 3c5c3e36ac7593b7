//! A program that runs beside the test, and never longer than it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::lab::Namespace;
use crate::leftovers::{self, Thing};

/// A running program, its output in a log of the lab. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    log: PathBuf,
    reaped: bool,
}

impl Process {
    /// Starts `arguments[0]` in a namespace. Its log in `directory` is called `name`, and is continued if it exists.
    pub fn start(
        directory: &Path,
        namespace: &Namespace,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        // Should this process be killed, its children go as well. All of these replace themselves, so the process id is
        // the program's own.
        let mut command = namespace.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).args(arguments).envs(environment.iter().copied());
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Self::adopt(command, log)
    }

    /// Takes on a command whose output goes elsewhere, but for what is in `log`.
    pub(crate) fn adopt(mut command: Command, log: PathBuf) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let pid = Pid::from_child(&child);
        leftovers::note(Thing::Process(pid));
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { child, pid, pidfd, log, reaped: false })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The CPU time that it has used, all threads together.
    pub fn cpu_time(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        // proc(5): fields 14 and 15 in ticks of 10 ms, counted after the name, which may hold anything.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(10 * ticks))
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Where it writes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).with_context(|| format!("{signal:?} to {}", self.pid()))
    }

    /// Whether it still runs.
    pub fn is_alive(&self) -> Result<bool> {
        Ok(!self.reaped && !self.ends_within(Duration::ZERO)?)
    }

    /// An error that shows the end of its log, if it has ended.
    pub fn must_be_alive(&self) -> Result<()> {
        if !self.is_alive()? {
            bail!("it has ended: {}", self.last_words());
        }
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("{}: {}", self.log.display(), lines[lines.len().saturating_sub(8)..].join(" | "))
    }

    fn ends_within(&self, time: Duration) -> Result<bool> {
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        Ok(poll(&mut fds, Some(&Timespec::try_from(time)?))? > 0)
    }

    /// Waits for its end.
    pub fn end(&mut self, patience: Duration) -> Result<ExitStatus> {
        if !self.ends_within(patience)? {
            bail!("still running after {} s: {}", patience.as_secs(), self.last_words());
        }
        self.reap()
    }

    /// Sends a signal that ends it, and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.signal(signal)?;
        self.end(crate::wait::PATIENCE)
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        // Once it is waited for, its number may belong to another process.
        leftovers::forget(&Thing::Process(self.pid));
        self.reaped = true;
        Ok(self.child.wait()?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = self.signal(Signal::KILL);
            let _ = self.reap();
        }
    }
}
