//! `ekiden top`: a live view of a hub, for a terminal.

mod app;
mod rows;
mod screen;
#[cfg(test)]
mod tests;

use super::place::SegmentArgs;
use super::series;
use anyhow::{Context, Result, bail};
use app::{App, Go};
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::execute;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use stats::{Now, Reader};
use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// What `ekiden top` was asked.
#[derive(Debug, clap::Args)]
pub struct TopArgs {
    #[command(flatten)]
    segment: SegmentArgs,
    /// How often to look, as in 500ms, 1s or 1m
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::graph::parse_duration)]
    interval: Duration,
}

/// More often is for no human eye, and not for the processor.
const SHORTEST: Duration = Duration::from_millis(100);

/// What can happen while the next look is waited for.
enum Happening {
    Input(Event),
    /// The terminal is gone.
    NoInput,
    Signal(i32),
}

/// `ekiden top`: until `q`, or a signal.
pub fn command(args: &TopArgs) -> Result<()> {
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        bail!("`top` needs a terminal; `ekiden status` prints a report once");
    }
    let mut reader = Reader::open(&args.segment.find()?)?;
    let interval = args.interval.max(SHORTEST);
    let (sender, happenings) = mpsc::channel();
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM]).context("could not wait for signals")?;
    let mut terminal = ratatui::try_init().context("could not set the terminal up")?;
    // From here on a panic gives the terminal back too.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        restore();
        hook(panic);
    }));
    let on_signal = sender.clone();
    thread::spawn(move || {
        for signal in signals.forever() {
            let _ = on_signal.send(Happening::Signal(signal));
        }
    });
    thread::spawn(move || input(&sender));

    let mut app = App::new(is_utf8());
    let ended = loop {
        app.look(&mut reader, Now::read(), &chrono::Local::now().format("%H:%M:%S").to_string());
        match until_next_look(&mut terminal, &mut app, &reader, &happenings, Instant::now() + interval) {
            Ok(None) => {}
            Ok(Some(end)) => break Ok(end),
            Err(error) => break Err(error),
        }
    };
    restore();
    if let End::Signal(signal) = ended? {
        // As if it had not been caught: who started us is told the truth.
        signal_hook::low_level::emulate_default_handler(signal)?;
    }
    Ok(())
}

/// Gives the terminal back. `ratatui` itself leaves it without a cursor where nothing is dropped: after a signal, and where a
/// panic aborts.
fn restore() {
    ratatui::restore();
    let _ = execute!(std::io::stdout(), Show);
}

/// Why it ended.
enum End {
    Key,
    Signal(i32),
}

/// Shows what there is, and again after each key.
fn until_next_look(
    terminal: &mut ratatui::DefaultTerminal,
    app: &mut App,
    reader: &Reader,
    happenings: &mpsc::Receiver<Happening>,
    next: Instant,
) -> Result<Option<End>> {
    loop {
        app.read_chart(reader);
        terminal.draw(|frame| screen::draw(frame, app)).context("could not write to the terminal")?;
        let mut happening = match happenings.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(happening) => happening,
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            Err(RecvTimeoutError::Disconnected) => return Ok(Some(End::Key)),
        };
        // However many keys there are, they cost one screen.
        loop {
            match happening {
                Happening::Signal(signal) => return Ok(Some(End::Signal(signal))),
                Happening::NoInput => return Ok(Some(End::Key)),
                Happening::Input(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if app.key(key) == Go::Quit {
                        return Ok(Some(End::Key));
                    }
                }
                Happening::Input(_) => {}
            }
            match happenings.try_recv() {
                Ok(more) => happening = more,
                Err(_) => break,
            }
        }
        if Instant::now() >= next {
            return Ok(None);
        }
    }
}

fn input(sender: &Sender<Happening>) {
    while let Ok(event) = event::read() {
        if sender.send(Happening::Input(event)).is_err() {
            return;
        }
    }
    let _ = sender.send(Happening::NoInput);
}

/// Whether the terminal was said to understand more than ASCII.
fn is_utf8() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    let locale = locale.to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}
