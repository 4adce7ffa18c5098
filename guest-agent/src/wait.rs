//! Waiting for what the kernel brings up by itself, such as device nodes.

#![forbid(unsafe_code)]

use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How long the kernel may take to find a device. Generous: only a machine that lacks the device waits for
/// it, and a loaded host can make a boot slow.
const DEADLINE: Duration = Duration::from_secs(30);

/// Asks `look` until it has an answer.
///
/// Sleeps in between, shortly at first: most devices are there at once.
pub fn for_device<T>(
    what: impl Fn() -> String,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if start.elapsed() > DEADLINE {
            return Err(Error::new(format!("{} did not appear within {} s", what(), DEADLINE.as_secs())));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}
