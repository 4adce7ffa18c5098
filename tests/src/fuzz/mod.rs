//! What is fuzzed: one file a target, each feeding bytes from outside to one entry point and checking what must
//! hold whatever they are.
//!
//! libFuzzer calls these functions from the programs in `tests/fuzz/targets`; what it found worth keeping is in
//! `tests/fuzz/corpus` and runs here as an ordinary test.

#![allow(missing_docs, reason = "each target is one function of the same shape, described by its file")]

pub mod agent_frames;
pub mod balloon_queues;
pub mod balloon_registers;
pub mod block;
pub mod bytes;
pub mod command_frames;
pub mod console;
pub mod driver;
pub mod fenced;
pub mod http;
pub mod image_config;
pub mod policy;
pub mod size;
pub mod smaps;
pub mod spec;
pub mod statistics;
pub mod tar;
pub mod transport;

/// A function to be fuzzed.
pub type Target = fn(&[u8]);

/// All targets, by the names of their corpora.
pub const TARGETS: &[(&str, Target)] = &[
    ("agent_frames", agent_frames::run),
    ("balloon_queues", balloon_queues::run),
    ("balloon_registers", balloon_registers::run),
    ("block", block::run),
    ("command_frames", command_frames::run),
    ("console", console::run),
    ("http", http::run),
    ("image_config", image_config::run),
    ("policy", policy::run),
    ("size", size::run),
    ("smaps", smaps::run),
    ("spec", spec::run),
    ("statistics", statistics::run),
    ("tar", tar::run),
    ("transport", transport::run),
];

#[cfg(test)]
mod tests {
    use super::TARGETS;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_corpus_replays() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for (name, run) in TARGETS {
            let inputs = fs::read_dir(corpora.join(name))
                .unwrap()
                .map(|entry| fs::read(entry.unwrap().path()).unwrap());
            let count = inputs.map(|input| run(&input)).count();
            assert!(count > 0, "{name} has no corpus");
        }
    }

    #[test]
    fn every_corpus_and_every_program_has_its_target() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let names = |directory: &str| {
            let entries = fs::read_dir(fuzz.join(directory)).unwrap();
            let stem = |path: std::path::PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut names: Vec<_> = entries.map(|entry| stem(entry.unwrap().path())).collect();
            names.sort();
            names
        };
        let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!(names("corpus"), targets);
        assert_eq!(names("targets"), targets);
    }
}
