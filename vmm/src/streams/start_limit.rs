//! How long a guest may take to start its workload: at first it is called slow, then given up. Pure.

use std::time::Duration;

/// A guest that has not started its workload after so long is slow, and whoever waits is told.
const SLOW: Duration = Duration::from_secs(30);
const HINT: &str = "`ballast doctor` says whether this host's KVM runs guests, `ballast run --boot-log` shows what this one does";

/// The time that a guest has, and what of it is left once it was called slow.
#[derive(Debug)]
pub struct StartLimit {
    whole: Duration,
    rest: Duration,
}

/// What to do about a guest that has not started its workload yet.
#[derive(Debug, PartialEq, Eq)]
pub enum Late {
    /// Say so, and wait for so long.
    Slow(String, Duration),
    /// Give it up, and say so.
    GivenUp(String),
}

impl StartLimit {
    /// A guest is given up after `whole`.
    pub fn new(whole: Duration) -> Self {
        Self { whole, rest: whole.saturating_sub(SLOW) }
    }

    /// When to look first.
    pub fn first(&self) -> Duration {
        self.whole.min(SLOW)
    }

    /// It has not started by then.
    pub fn passed(&mut self) -> Late {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_zero() {
            let seconds = self.whole.as_secs();
            Late::GivenUp(format!("the guest did not start its workload within {seconds} s; {HINT}"))
        } else {
            let seconds = SLOW.as_secs();
            Late::Slow(format!("the guest has not started its workload in {seconds} s; {HINT}"), rest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_called_slow_once_and_then_given_up() {
        let mut limit = StartLimit::new(Duration::from_secs(120));
        assert_eq!(limit.first(), Duration::from_secs(30));
        let Late::Slow(words, rest) = limit.passed() else { panic!("given up after 30 s of 120") };
        assert!(
            words.contains("not started its workload in 30 s") && words.contains("`ballast doctor`"),
            "{words}"
        );
        assert_eq!(rest, Duration::from_secs(90));
        let Late::GivenUp(words) = limit.passed() else { panic!("slow again after 120 s") };
        assert!(words.contains("within 120 s") && words.contains("`ballast run --boot-log`"), "{words}");
    }

    #[test]
    fn a_limit_that_is_short_is_all_there_is() {
        for seconds in [1, 30] {
            let mut limit = StartLimit::new(Duration::from_secs(seconds));
            assert_eq!(limit.first(), Duration::from_secs(seconds));
            assert!(
                matches!(limit.passed(), Late::GivenUp(words) if words.contains(&format!("within {seconds} s")))
            );
        }
    }
}
