//! What the user types after `ballast run`.

use super::reclaim_argument::Mode;
use balloon::size::Size;
use balloon::working_set::{StallBudget, WorkingSetAge};
use balloon::zone::Share;
use clap::Args;
use clap::builder::{StringValueParser, TypedValueParser};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Run a command in a new microVM
#[derive(Args, Debug)]
#[command(
    override_usage = "ballast run [OPTIONS] IMAGE [COMMAND [ARGUMENT ...]]",
    after_help = "\
Examples:
  ballast run --rm ./rootfs echo hello             a root file system directory
  ballast run -it debian.tar bash                  a tar of one, with a terminal
  docker save app | ballast run - ./app            a docker archive from a pipe
  ballast run -d --name web -m 256m app            in the background; then ps, logs, exec, stop
  ballast run -m 1g --cpus 2 -v data:/data app     an imported image and a volume

Exit status: that of the command; 125 if Ballast fails, 126 if the command cannot be executed, 127 if it is
not found, 128+n if signal n killed it."
)]
pub struct RunArgs {
    /// Keep standard input open for the command
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Remove the microVM and its log when it ends (always so in the foreground)
    #[arg(long)]
    pub rm: bool,

    /// Run in the background, and print the microVM's ID once the command has started
    #[arg(short, long)]
    pub detach: bool,

    /// With -d: the most that its log takes of the disk, at least 1m; old lines make room for new ones
    #[arg(long, value_name = "SIZE", default_value = "16m", value_parser = log_size)]
    pub log_size: Size,

    /// This is the process in the background.
    #[arg(long, hide = true)]
    pub supervised: bool,

    /// Name of the microVM, and its host name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// Memory of the guest, its kernel's part included: 512m, 1g, 1GiB; --memory-max is the same
    #[arg(short, long, value_name = "SIZE", default_value = "512m", alias = "memory-max")]
    pub memory: Size,

    /// Group whose limits hold for the microVM, such as ci/linux; needs ballastd
    #[arg(long, value_name = "PATH", value_parser = group())]
    pub group: Option<String>,

    /// Share the host's copy of the image with all microVMs of this user, those of the group, or with none; by default as
    /// ballastd says, else with all
    #[arg(long, value_name = "host|group|vm", value_parser = share)]
    pub share: Option<Share>,

    /// Host memory that is never taken from the microVM; needs ballastd
    #[arg(long, value_name = "SIZE")]
    pub memory_min: Option<Size>,

    /// Host memory that is taken only when nothing else is left; needs ballastd
    #[arg(long, value_name = "SIZE")]
    pub memory_low: Option<Size>,

    /// Host memory to which the microVM is taken back when it has more
    #[arg(long, value_name = "SIZE")]
    pub memory_high: Option<Size>,

    /// How memory that the guest does not need goes back to the host: auto, trim (in the guest only), balloon (from
    /// outside only), or off
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub reclaim: Mode,

    /// Keep what the guest uses at least that often: 300s, 5m, 1h; by default as its group says in ballastd's
    /// configuration, else 300s
    #[arg(long, value_name = "TIME")]
    pub working_set_age: Option<WorkingSetAge>,

    /// Share of time that the guest may lose waiting for memory that was taken from it; by default as its group says, else
    /// 0.1%
    #[arg(long, value_name = "PERCENT")]
    pub stall_budget: Option<StallBudget>,

    /// Write down what the reclaim law is told and what it decides, for `ballast report` and `ballast replay`
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,

    /// Add a zone of memory to the guest, a NUMA node of its own: a multiple of 128m, and then -m is one, too; without a
    /// size, say of the first one, called ram, what it is made of
    #[arg(long, value_name = "name=NAME,size=SIZE[,node=N][,hugepages=off]")]
    pub zone: Vec<String>,

    /// Run the command in this zone instead of the first one, called ram
    #[arg(long, value_name = "ZONE")]
    pub in_zone: Option<String>,

    /// Number of CPUs of the guest
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = cpus)]
    pub cpus: u8,

    /// Set an environment variable; without a value, the one of this environment
    #[arg(short, long, value_name = "K[=V]")]
    pub env: Vec<OsString>,

    /// Working directory of the command
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<OsString>,

    /// User and group of the command: names or numbers of the image
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Replace the image's entrypoint; empty removes it
    #[arg(long, value_name = "COMMAND")]
    pub entrypoint: Option<OsString>,

    /// Mount a volume, made on first use and kept until `ballast volume rm`
    #[arg(short, long, value_name = "NAME:/PATH[:ro]")]
    pub volume: Vec<OsString>,

    /// Give the guest a raw disk image or block device as a disk
    #[arg(long, value_name = "FILE[:ro]")]
    pub disk: Vec<OsString>,

    /// Limit a resource of the command, such as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<String>,

    /// Most processes and threads that the command may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub pids_limit: Option<u32>,

    /// Guest kernel: a bzImage or an uncompressed ELF image
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,

    /// The guest kernel's modules: its /lib/modules/RELEASE
    #[arg(long, value_name = "DIR")]
    pub modules: Option<PathBuf>,

    /// Add a parameter to the guest kernel's command line
    #[arg(long, value_name = "PARAMETER", allow_hyphen_values = true, value_parser = crate::kernel::parameter)]
    pub kernel_arg: Vec<String>,
    /// Give the guest the files of tracefs, for perf and bpftrace: some 9 MiB with Linux 6.1
    #[arg(long)]
    pub tracing: bool,

    /// Show the guest kernel's messages from the first line on (slow)
    #[arg(long)]
    pub boot_log: bool,

    /// Print where the start's time went
    #[arg(long)]
    pub timings: bool,

    /// Directory, tar (plain, gzip, zstd, xz), docker archive, OCI layout, imported name, or - for standard input; all that
    /// follows is the command and its arguments, instead of the image's
    // One argument, as only what follows the first word of the last one is never taken for an option.
    #[arg(value_names = ["IMAGE", "COMMAND"], required = true, num_args = 1.., trailing_var_arg = true)]
    words: Vec<OsString>,
}

impl RunArgs {
    /// The image.
    #[must_use]
    pub fn image(&self) -> &OsStr {
        self.words.first().map(OsString::as_os_str).unwrap_or_default()
    }

    /// Command and arguments instead of the image's, if there are any.
    #[must_use]
    pub fn command(&self) -> &[OsString] {
        self.words.get(1..).unwrap_or_default()
    }
}

/// Most CPUs that a microVM may have.
const MOST_CPUS: u8 = 64;

/// Two halves of it take several of the longest entries each.
const LEAST_LOG: u64 = 1 << 20;

fn log_size(text: &str) -> Result<Size, String> {
    let size: Size = text.parse().map_err(|error: balloon::size::ParseSizeError| error.to_string())?;
    if size.bytes() < LEAST_LOG { Err("a log takes at least 1m".into()) } else { Ok(size) }
}

/// As `ballast events` shows a group's path, too: `ci/`.
fn group() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().map(|path| path.trim_matches('/').to_owned())
}

fn share(text: &str) -> Result<Share, String> {
    match text {
        "host" => Ok(Share::Host),
        "group" => Ok(Share::Group),
        "vm" => Ok(Share::Vm),
        _ => Err("use host, group or vm".into()),
    }
}

fn cpus(text: &str) -> Result<u8, String> {
    let number = text.parse().ok().filter(|number| (1..=MOST_CPUS).contains(number));
    number.ok_or_else(|| format!("use a whole number from 1 to {MOST_CPUS}"))
}
