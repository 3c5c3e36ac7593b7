//! A terminal with a person before it: a program in a pseudo-terminal, its screen, and keys.

use crate::hub::binary;
use crate::process::Process;
use crate::wait::until;
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

/// The size of a plain terminal.
const LINES: NonZero<u16> = NonZero::new(24).unwrap();
const COLUMNS: NonZero<u16> = NonZero::new(80).unwrap();

/// A terminal of 80 columns and 24 lines.
pub struct Terminal {
    /// The program in it.
    pub process: Process,
    keyboard: File,
    /// The program's side, kept open so that its settings can be looked at when the program is gone.
    line: File,
    screen: Arc<Mutex<vt100::Parser>>,
    settings: Termios,
}

impl Terminal {
    /// Starts `ekiden` with these arguments in a new terminal.
    pub fn ekiden(directory: &Path, arguments: &[&str]) -> Result<Self> {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&keyboard)?;
        unlockpt(&keyboard)?;
        let name = ptsname(&keyboard, Vec::new())?;
        let line = File::from(open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?);
        tcsetwinsize(&keyboard, Winsize { ws_row: LINES.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 })?;
        let settings = tcgetattr(&line)?;
        // The terminal is the program's controlling one, so that it is told of a new size. Both replace themselves.
        let mut command = Command::new("setsid");
        command.args(["--ctty", "setpriv", "--pdeathsig", "KILL", "--"]).arg(binary()?).args(arguments);
        command.envs([("TERM", "xterm-256color"), ("LC_ALL", "C.UTF-8")]);
        command.stdin(line.try_clone()?).stdout(line.try_clone()?).stderr(line.try_clone()?);
        let process = Process::adopt(command, directory.join("terminal.log"))?;
        let keyboard = File::from(keyboard);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(LINES, COLUMNS, 0)));
        let (seen, mut from) = (Arc::downgrade(&screen), keyboard.try_clone()?);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Ends with an error when the last program that has the terminal is gone.
            while let Ok(n) = from.read(&mut bytes)
                && n > 0
                && let Some(screen) = seen.upgrade()
            {
                screen.lock().unwrap_or_else(PoisonError::into_inner).process(&bytes[..n]);
            }
        });
        Ok(Self { process, keyboard, line, screen, settings })
    }

    /// Looks at the screen.
    pub fn look<R>(&self, at: impl FnOnce(&vt100::Screen) -> R) -> R {
        at(self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen())
    }

    /// The lines of the screen.
    pub fn lines(&self) -> Vec<String> {
        self.look(|screen| screen.rows(0, screen.size().1.get()).collect())
    }

    /// Waits until the screen says something.
    pub fn until<T>(&self, what: &str, mut says: impl FnMut(&[String]) -> Option<T>) -> Result<T> {
        let said = until(what, || Ok(says(&self.lines())));
        said.with_context(|| format!("the screen:\n{}", self.lines().join("\n")))
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        Ok(self.keyboard.write_all(keys.as_bytes())?)
    }

    /// Makes it larger or smaller.
    pub fn resize(&self, lines: u16, columns: u16) -> Result<()> {
        let size = NonZero::new(lines).zip(NonZero::new(columns)).context("a screen of nothing")?;
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).screen_mut().set_size(size.0, size.1);
        Ok(tcsetwinsize(&self.keyboard, Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
    }

    /// An error unless the terminal is as it was before the program.
    pub fn must_be_restored(&self) -> Result<()> {
        let now = tcgetattr(&self.line)?;
        let modes = |of: &Termios| (of.input_modes, of.output_modes, of.control_modes, of.local_modes);
        ensure!(modes(&now) == modes(&self.settings), "settings: {now:?}, were {:?}", self.settings);
        // What was written last may still be on its way to us.
        until("the screen of before, with a cursor", || {
            Ok(self.look(|screen| (!screen.alternate_screen() && !screen.hide_cursor()).then_some(())))
        })
    }
}
