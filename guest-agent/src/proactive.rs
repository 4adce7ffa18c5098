//! The kernel's proactive compaction, which sleeps while the guest idles.
//!
//! `kcompactd` wakes twice a second to see how scattered free memory is (`HPAGE_FRAG_CHECK_INTERVAL_MSEC` in
//! mm/compaction.c), of an idle guest's wakes the most. A guest that idles scatters little, and the law has what is free
//! joined when that is of use. With a proactiveness of zero the kernel does not look (from Linux 5.16 on).

#![forbid(unsafe_code)]

use std::fs;
use std::path::PathBuf;

const PROACTIVENESS: &str = "/proc/sys/vm/compaction_proactiveness";
const ASLEEP: &str = "0";
/// A host that wants samples so seldom takes the guest for idle.
const IDLE_PACE_MS: u32 = 5000;

/// Puts it to sleep and wakes it.
#[derive(Debug)]
pub struct Proactive {
    path: PathBuf,
    /// While it sleeps: its proactiveness otherwise.
    usual: Option<String>,
}

impl Default for Proactive {
    fn default() -> Self {
        Self { path: PROACTIVENESS.into(), usual: None }
    }
}

impl Proactive {
    /// The host wants a sample every `sample_ms`. A kernel without proactive compaction has nothing to put to sleep.
    pub fn follow(&mut self, sample_ms: u32) {
        let is_idle = sample_ms >= IDLE_PACE_MS;
        if is_idle == self.usual.is_some() {
            return;
        }
        let Ok(now) = fs::read_to_string(&self.path) else { return };
        let is_asleep = now.trim() == ASLEEP;
        if is_idle {
            if !is_asleep && fs::write(&self.path, ASLEEP).is_ok() {
                self.usual = Some(now);
            }
        } else if !is_asleep {
            // The workload has set it meanwhile.
            self.usual = None;
        } else if self.usual.as_ref().is_some_and(|usual| fs::write(&self.path, usual.trim()).is_ok()) {
            self.usual = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUSY: u32 = 1000;
    const IDLE: u32 = 10_000;

    fn of(value: &str) -> (Proactive, impl Fn() -> String) {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("proactiveness-{}-{number}", std::process::id()));
        fs::write(&path, value).unwrap();
        let of_path = path.clone();
        (Proactive { path, usual: None }, move || fs::read_to_string(&of_path).unwrap().trim().to_owned())
    }

    #[test]
    fn it_sleeps_while_the_guest_idles_and_is_as_before_then() {
        let (mut proactive, value) = of("20\n");
        for _ in 0..2 {
            for (pace_ms, expected) in [(BUSY, "20"), (IDLE, "0"), (60_000, "0"), (BUSY, "20"), (250, "20")] {
                proactive.follow(pace_ms);
                assert_eq!(value(), expected, "{pace_ms} ms");
            }
        }
        fs::remove_file(proactive.path).unwrap();
    }

    #[test]
    fn what_somebody_else_sets_otherwise_stays() {
        let (mut proactive, value) = of("0\n");
        proactive.follow(IDLE);
        proactive.follow(BUSY);
        assert_eq!(value(), "0", "it was off, and still is");
        fs::write(&proactive.path, "20\n").unwrap();
        proactive.follow(IDLE);
        fs::write(&proactive.path, "30\n").unwrap();
        proactive.follow(BUSY);
        assert_eq!(value(), "30");
        proactive.follow(IDLE);
        proactive.follow(BUSY);
        assert_eq!(value(), "30");
        fs::remove_file(proactive.path).unwrap();
    }

    #[test]
    fn a_kernel_without_it_is_left_alone() {
        let mut proactive = Proactive { path: "/proc/self/no-such-file".into(), usual: None };
        proactive.follow(IDLE);
        proactive.follow(BUSY);
        assert_eq!(proactive.usual, None);
    }
}
