//! `bench-reclaim DIRECTORY`: the table of an experiment, and a plot of each arm beside it. `ci/bench reclaim` makes the
//! directory: `ARM/load` is what `bench-load` said, `ARM/recording` what `ballast run --record` wrote.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use tests::experiment::figures::{Run, table};
use tests::experiment::{kept, lifts, plot};

fn main() -> Result<(), Box<dyn Error>> {
    let directory: PathBuf = std::env::args_os().nth(1).ok_or("usage: bench-reclaim DIRECTORY")?.into();
    let mut runs = Vec::new();
    for entry in fs::read_dir(&directory)? {
        let arm = entry?.path();
        if arm.join("load").exists() {
            runs.push(read(&arm)?);
        }
    }
    // What all are compared with comes first.
    runs.sort_by_key(|run| (run.arm != "off", run.arm.clone()));
    println!("{}", table(&runs));
    let sets: Vec<_> = runs.iter().map(|run| (run.arm.as_str(), run.kept.as_slice())).collect();
    if sets.iter().any(|(_, kept)| !kept.is_empty()) {
        println!("\n{}", kept::table(&sets));
    }
    for run in runs.iter().filter(|run| !run.lifts.is_empty()) {
        println!("\n{}: {}", run.arm, lifts::summary(&run.lifts, &run.recorded));
    }
    let workload = directory.file_name().unwrap_or_default().to_string_lossy();
    for run in &runs {
        let file = directory.join(format!("{}.svg", run.arm));
        plot::over_time(&file, &format!("{workload}, {}", run.arm), run)?;
    }
    Ok(())
}

fn read(directory: &Path) -> Result<Run, Box<dyn Error>> {
    let arm = directory.file_name().unwrap_or_default().to_string_lossy();
    let text = |name: &str| fs::read_to_string(directory.join(name));
    Ok(Run::parse(&arm, &text("load")?, &text("recording")?)?)
}
