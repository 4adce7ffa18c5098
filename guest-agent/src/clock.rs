//! The guest's monotonic clock.

#![forbid(unsafe_code)]

use rustix::time::{ClockId, clock_gettime};

/// Microseconds since the guest's kernel started its clock.
pub fn monotonic_us() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000).saturating_add(nanos / 1000)
}
