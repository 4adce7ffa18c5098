//! How users say what the reclaim law may use. Pure.

use balloon::policy;

/// `--reclaim`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// As fits the guest.
    #[default]
    Auto,
    /// The guest's own kernel evicts.
    Trim,
    /// The balloon takes.
    Balloon,
    /// Nothing but limits.
    Off,
}

impl From<Mode> for policy::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Auto => Self::Auto,
            Mode::Trim => Self::Trim,
            Mode::Balloon => Self::Balloon,
            Mode::Off => Self::Off,
        }
    }
}
