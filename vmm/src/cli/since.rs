//! `--since`: a time, or how long ago.

#![forbid(unsafe_code)]

use balloon::wall_clock;
use std::time::SystemTime;

/// Reads `10m`, `1h30m` or `2026-01-02T03:04:05Z`.
///
/// # Errors
/// It is none of these; the message says what is.
pub fn since(text: &str) -> Result<SystemTime, String> {
    let ago = || wall_clock::now().checked_sub(humantime::parse_duration(text).ok()?);
    let refusal = || format!("'{text}' is no time: write 10m, 1h30m or 2026-01-02T03:04:05Z");
    humantime::parse_rfc3339_weak(text).ok().or_else(ago).ok_or_else(refusal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_ago_or_absolute() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(since("2026-01-02T03:04:05Z"), Ok(at));
        let ago = wall_clock::now().duration_since(since("1h30m").unwrap()).unwrap().as_secs();
        assert!((5390..5410).contains(&ago), "{ago}");
        assert!(since("yesterday").unwrap_err().contains("10m"));
    }
}
