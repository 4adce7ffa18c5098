//! The clock on the wall: what people set, and what steps.
//!
//! It stamps what people read, and decides nothing: leases, deadlines and cadences go by monotonic clocks. `clippy.toml`
//! forbids it everywhere else.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Its time.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place that all others ask")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// Its time since 1970; nothing on a clock that was set to before.
#[must_use]
pub fn since_1970() -> Duration {
    now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// As [`since_1970`], in milliseconds.
#[must_use]
pub fn ms_since_1970() -> u64 {
    u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX)
}
