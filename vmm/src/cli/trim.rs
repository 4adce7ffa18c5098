//! `ballast trim NAME|--all`: has guests give back what they can do without, and says what came back and why no more.

use super::client;
use super::dirs::Dirs;
use super::format::{Format, write_list};
use super::output::Output;
use super::state::Known;
use balloon::control::orders::{TrimDocument, TrimEnd, TrimRequest};
use balloon::size::Size;
use clap::Args;
use serde::Serialize;
use std::error::Error;
use std::process::ExitCode;

/// Take back memory that running microVMs do not need
#[derive(Args, Debug)]
#[command(after_help = "\
BEFORE and AFTER are what the host holds of a guest's memory, CAME BACK is what it got of that.")]
pub struct TrimArgs {
    /// Name of the microVM
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    name: Option<String>,
    /// All running microVMs
    #[arg(long)]
    all: bool,
    /// Only this zone of its memory
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    /// Stop when the host holds no more of it than this: 512m, 1g, 1GiB
    #[arg(long, value_name = "SIZE")]
    to: Option<Size>,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Serialize)]
struct Trimmed {
    vm: String,
    #[serde(flatten)]
    trim: TrimDocument,
}

/// Runs the verb.
///
/// # Errors
/// There is no such microVM, it refuses, or nobody takes the list. Of `--all`, one that refuses is told of and the
/// others are listed.
pub fn run(args: &TrimArgs) -> Result<ExitCode, Box<dyn Error>> {
    let state = Dirs::find()?.state;
    let request = TrimRequest { zone: args.zone.clone(), bytes: None, to_bytes: args.to.map(Size::bytes) };
    let mut code = ExitCode::SUCCESS;
    let trimmed = match &args.name {
        Some(name) => {
            let vm = client::find(&state, name)?;
            vec![Trimmed { trim: client::order(&vm, "/v1/trim", &request)?, vm: vm.name }]
        }
        None => {
            let running = client::running(&state)?;
            let answers = client::ask_all(&running, |vm: &Known| client::order(vm, "/v1/trim", &request));
            let mut trimmed = Vec::new();
            for (vm, answer) in answers {
                match answer {
                    Ok(trim) => trimmed.push(Trimmed { vm: vm.name.clone(), trim }),
                    // It has nothing to give yet, or has given all.
                    Err(client::Error::Starting(_) | client::Error::Ending(_)) => {}
                    Err(error) => {
                        code = ExitCode::from(super::FAILED);
                        balloon::logging::print_chain(&format!("ballast: {}", vm.name), &error);
                    }
                }
            }
            trimmed
        }
    };
    let headings = ["VM", "ZONE", "BEFORE", "AFTER", "CAME BACK", "WHY NOT MORE"];
    write_list(args.format, headings, &trimmed, row, &mut Output::lock())?;
    Ok(code)
}

fn row(Trimmed { vm, trim }: &Trimmed) -> [String; 6] {
    let size = |bytes| Size::from_bytes(bytes).to_string();
    let known = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), size);
    [
        vm.clone(),
        trim.zone.as_deref().map_or_else(|| "-".into(), super::format::printable),
        known(trim.before_bytes),
        known(trim.after_bytes),
        known(came_back(trim)),
        why_not_more(vm, trim),
    ]
}

fn came_back(trim: &TrimDocument) -> Option<u64> {
    Some(trim.before_bytes?.saturating_sub(trim.after_bytes?))
}

fn why_not_more(vm: &str, trim: &TrimDocument) -> String {
    let size = Size::from_bytes;
    let guest = match trim.ended {
        TrimEnd::Reached => "the guest evicted all that was asked for".into(),
        TrimEnd::NothingLeft => format!(
            "the guest's kernel finds no more: {} of page cache and {} of other memory are in use",
            size(trim.file_bytes),
            size(trim.anonymous_bytes)
        ),
        TrimEnd::NoSwap => {
            format!(
                "{} of its own memory goes only as it becomes unused: `ballast set {vm} --working-set-age` says when",
                size(trim.anonymous_bytes)
            )
        }
        TrimEnd::Ineffective => {
            "the guest's kernel says that it reclaims and does not: use another kernel".into()
        }
        TrimEnd::OutOfTime => "the guest's kernel takes too long: try again".into(),
    };
    // What the guest has freed and the host has not got: pages whose neighbours are in use.
    match came_back(trim) {
        _ if !trim.settled => format!("{guest}; memory is still coming back"),
        Some(back) if back < trim.reclaimed_bytes / 2 => {
            let kept = size(trim.reclaimed_bytes.saturating_sub(back));
            format!(
                "{guest}; of {} that it freed {kept} lie between used pages and come back when those go",
                size(trim.reclaimed_bytes)
            )
        }
        _ => guest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trim() -> TrimDocument {
        TrimDocument {
            zone: None,
            before_bytes: Some(300 << 20),
            after_bytes: Some(100 << 20),
            settled: true,
            reclaimed_bytes: 190 << 20,
            file_bytes: 1 << 20,
            anonymous_bytes: 40 << 20,
            ended: TrimEnd::NoSwap,
        }
    }

    #[test]
    fn a_trim_is_a_line() {
        let trimmed = Trimmed { vm: "web".into(), trim: trim() };
        let expected = "web|-|300 MiB|100 MiB|200 MiB|40 MiB of its own memory goes only as it becomes unused: `ballast set web \
             --working-set-age` says when";
        assert_eq!(row(&trimmed).join("|"), expected);
        let unknown = TrimDocument { before_bytes: None, zone: Some("a\x1b".into()), ..trim() };
        let line = row(&Trimmed { vm: "web".into(), trim: unknown }).join("|");
        assert!(line.starts_with("web|a\u{fffd}|-|100 MiB|-|"), "{line}");
    }

    #[test]
    fn what_the_host_did_not_get_is_explained() {
        let scattered = TrimDocument { after_bytes: Some(290 << 20), ..trim() };
        let why = why_not_more("web", &scattered);
        assert!(
            why.ends_with(
                "; of 190 MiB that it freed 180 MiB lie between used pages and come back when those go"
            ),
            "{why}"
        );
        let moving = TrimDocument { settled: false, ..trim() };
        assert!(why_not_more("web", &moving).ends_with("; memory is still coming back"));
    }
}
