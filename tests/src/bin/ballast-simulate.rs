//! `ballast-simulate`: what `ballast simulate` executes. Reads the command line, runs, prints tables and writes plots.

use clap::{Parser, ValueEnum};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use tests::simulate::compare::{self, Contender, Order, Point, Scale};
use tests::simulate::experiment::Experiment;
use tests::simulate::mixes::{FINAL_SEEDS, Mix, TUNING_SEEDS};
use tests::simulate::series::Series;
use tests::simulate::{plot, table};
use vmm::cli::output::Output;

/// Compare reclaim policies on simulated fleets of microVMs
///
/// Each fleet is a mix of guests with reuse, streams, bursts and idle phases, on a model of the guest's kernel, its agent
/// and the balloon; Ballast's law is the code that the VMM runs. Every law is swept over its own parameter. The same
/// options give the same output. What is modelled and what is not: docs/simulation.md.
#[derive(Parser, Debug)]
#[command(name = "ballast simulate", version, after_help = EXAMPLES)]
struct Arguments {
    /// Fleets to run; all if none is named
    #[arg(long = "mix", value_enum, value_name = "MIX")]
    mixes: Vec<MixName>,
    /// Laws to compare with no law at all; all if none is named
    #[arg(long = "law", value_enum, value_name = "LAW")]
    laws: Vec<LawName>,
    /// Guests in each fleet
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    guests: u32,
    /// Length of each run in simulated minutes; the second half is measured
    #[arg(long, value_name = "N", default_value_t = 120, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    minutes: u32,
    /// Seeds, each of which is one run; those that laws are tuned on if none is given
    #[arg(long = "seed", value_name = "N", conflicts_with = "published")]
    seeds: Vec<u64>,
    /// The seeds of the published tables, which no law was tuned on
    #[arg(long)]
    published: bool,
    /// Compare ways to divide a host with so many percent of what the guests would hold, instead of laws
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..=200), conflicts_with_all = ["laws", "plots"])]
    host: Option<u32>,
    /// One guest as `ci/bench reclaim` has it, for as long, under no law, Ballast's and TMO's: what the model says beside a kernel
    #[arg(long = "experiment", value_enum, value_name = "NAME", conflicts_with_all = ["mixes", "laws", "guests", "host", "plots"])]
    experiments: Vec<ExperimentName>,
    /// Directory for SVG plots: saving against stall for each mix, and guest 6 over time under Ballast's law
    #[arg(long, value_name = "DIR")]
    plots: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  ballast simulate --mix streams --law ballast --law tmo     two laws on guests that stream
  ballast simulate --mix calm --host 70                      who gets what of a host that is short
  ballast simulate --mix streams --plots /tmp/plots          with plots
  ballast simulate --experiment kv --minutes 16 --seed 1     a guest of `ci/bench reclaim kv`
  ballast simulate --mix churn --law ballast --guests 10000 --minutes 60 --seed 1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MixName(Mix);

impl ValueEnum for MixName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [MixName; 7] = [
            MixName(Mix::ALL[0]),
            MixName(Mix::ALL[1]),
            MixName(Mix::ALL[2]),
            MixName(Mix::ALL[3]),
            MixName(Mix::ALL[4]),
            MixName(Mix::ALL[5]),
            MixName(Mix::ALL[6]),
        ];
        &NAMES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExperimentName(Experiment);

impl ValueEnum for ExperimentName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [ExperimentName; 2] =
            [ExperimentName(Experiment::ALL[0]), ExperimentName(Experiment::ALL[1])];
        &NAMES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LawName(Contender);

impl ValueEnum for LawName {
    fn value_variants<'a>() -> &'a [Self] {
        const NAMES: [LawName; 8] = [
            LawName(Contender::ALL[0]),
            LawName(Contender::ALL[1]),
            LawName(Contender::ALL[2]),
            LawName(Contender::ALL[3]),
            LawName(Contender::ALL[4]),
            LawName(Contender::ALL[5]),
            LawName(Contender::ALL[6]),
            LawName(Contender::ALL[7]),
        ];
        &NAMES
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let parameter = format!("swept over {}", self.0.parameter());
        Some(clap::builder::PossibleValue::new(self.0.name()).help(parameter))
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            balloon::logging::print_chain("ballast simulate", &*error);
            ExitCode::from(125)
        }
    }
}

/// The second half of a fleet's time is measured; of an experiment's all is but its first minute.
fn experiment(arguments: &Arguments, seeds: &[u64]) -> Result<(), Box<dyn Error>> {
    const LAWS: [Contender; 3] = [Contender::Nothing, Contender::Ours, Contender::Tmo];
    let minutes = u64::from(arguments.minutes);
    let mut out = Output::lock();
    for ExperimentName(experiment) in &arguments.experiments {
        for seed in seeds {
            writeln!(out, "\n{}, {minutes} minutes, seed {seed}: {}", experiment.name(), experiment.about())?;
            let runs = LAWS.map(|law| (law, experiment.run(law, minutes, *seed)));
            writeln!(out, "{}", table::outcomes(&runs))?;
        }
    }
    Ok(())
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let seeds: &[u64] = match (arguments.published, arguments.seeds.is_empty()) {
        (true, _) => &FINAL_SEEDS,
        (false, true) => &TUNING_SEEDS,
        (false, false) => &arguments.seeds,
    };
    if !arguments.experiments.is_empty() {
        return experiment(arguments, seeds);
    }
    let scale =
        Scale { guests: arguments.guests as usize, seconds: u64::from(arguments.minutes) * 60, seeds };
    let mixes: Vec<Mix> = match arguments.mixes.as_slice() {
        [] => Mix::ALL.to_vec(),
        named => named.iter().map(|name| name.0).collect(),
    };
    if let Some(dir) = &arguments.plots {
        std::fs::create_dir_all(dir).map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
    }
    let mut out = Output::lock();
    writeln!(
        out,
        "{} guests, {} minutes of which the second half is measured, mean of {} seeds",
        arguments.guests,
        arguments.minutes,
        seeds.len()
    )?;
    if let Some(percent) = arguments.host {
        for mix in mixes {
            writeln!(out, "\n{}: {}; a host with {percent} % of what they hold", mix.name(), mix.about())?;
            let rows = compare::arbitrate(mix, f64::from(percent) / 100.0, scale);
            writeln!(out, "{}", table::arbitration(&rows))?;
        }
        return Ok(());
    }
    let laws: Vec<Contender> = match arguments.laws.as_slice() {
        [] => Contender::ALL.to_vec(),
        named => named.iter().map(|name| name.0).collect(),
    };
    let mut all: Vec<(Mix, Vec<Point>)> = Vec::new();
    for mix in mixes {
        writeln!(out, "\n{}: {}", mix.name(), mix.about())?;
        let points = compare::sweep(mix, &laws, scale);
        writeln!(out, "{}", table::points(&points))?;
        if let Some(dir) = &arguments.plots {
            plot::frontiers(&dir.join(format!("{}.svg", mix.name())), mix.about(), &points)?;
            let mut series = Series::new(6.min(scale.guests - 1));
            let law = Contender::Ours;
            let plan = mix.plan(seeds[0], scale.guests.min(20), scale.seconds);
            let _ = law.run(law.usual(), plan, seeds[0], Order::Nobody, Some(&mut series));
            plot::over_time(&dir.join(format!("{}-guest.svg", mix.name())), mix.about(), &series)?;
        }
        all.push((mix, points));
    }
    if laws.contains(&Contender::Ours) && laws.contains(&Contender::Tmo) {
        writeln!(out, "\nwhat ballast saves at the stall that tmo costs")?;
        writeln!(out, "{}", table::at_equal_stall(&all))?;
    }
    Ok(())
}
