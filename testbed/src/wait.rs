//! Waiting for what can't be subscribed to.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Longer than anything takes on a machine that is busy with other things: the limit of waiting for what must come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until there is an answer. `what` is what an operator reads if there is none in time.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > PATIENCE {
            bail!("waited {} s in vain: {what}", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// As [`until`], for a condition.
pub fn until_true(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    until(what, || Ok(ask()?.then_some(())))
}
