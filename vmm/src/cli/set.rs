//! `ballast set NAME`: changes a running microVM.

use super::client;
use super::dirs::Dirs;
use super::output::Output;
use balloon::control::api::{CeilingRequest, MemoryDocument};
use balloon::size::{ParseSizeError, Size};
use clap::Args;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::str::FromStr;

/// Change a running microVM
#[derive(Args, Debug)]
pub struct SetArgs {
    /// Name of the microVM
    name: String,
    /// Memory that the guest may have from now on: 512m, 1g, 1GiB; auto leaves it to Ballast again
    #[arg(long, value_name = "SIZE|auto")]
    memory_ceiling: Ceiling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ceiling {
    Size(Size),
    Auto,
}

impl FromStr for Ceiling {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.trim().eq_ignore_ascii_case("auto") { Ok(Self::Auto) } else { text.parse().map(Self::Size) }
    }
}

/// Runs the verb and prints the microVM's name, as docker does.
///
/// # Errors
/// There is no such microVM, or it refuses.
pub fn run(args: &SetArgs) -> Result<ExitCode, Box<dyn Error>> {
    let vm = client::find(&Dirs::find()?.state, &args.name)?;
    let request = match args.memory_ceiling {
        Ceiling::Size(size) => CeilingRequest { bytes: Some(size.bytes()), auto: None },
        Ceiling::Auto => CeilingRequest { bytes: None, auto: Some(true) },
    };
    let _: MemoryDocument = client::put(&vm, "/v1/memory/ceiling", &request)?;
    writeln!(Output::lock(), "{}", vm.name)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_sizes_or_auto() {
        assert_eq!("Auto".parse(), Ok(Ceiling::Auto));
        assert_eq!("256m".parse(), Ok(Ceiling::Size(Size::from_bytes(256 << 20))));
        assert!("automatic".parse::<Ceiling>().is_err());
    }
}
