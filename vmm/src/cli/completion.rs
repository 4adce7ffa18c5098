//! `ballast completion SHELL`: a script with which a shell completes what is typed.

use super::output::Output;
use clap::Args;
use clap_complete::Shell;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Print a script with which a shell completes what is typed
#[derive(Args, Debug)]
#[command(after_help = "\
Example:
  ballast completion bash | sudo tee /usr/share/bash-completion/completions/ballast")]
pub struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Runs the verb.
///
/// # Errors
/// Nobody takes the script.
pub fn run(args: &CompletionArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), "ballast", &mut script);
    Output::lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_has_a_script_that_knows_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut super::super::command(), "ballast", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("logs"), "{shell}");
        }
    }
}
