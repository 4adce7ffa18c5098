//! `ballast image import | ls | rm | prune`.

use super::dirs::Dirs;
use super::format::{Format, write_list};
use super::output::{Output, eprint};
use crate::image::LAYERS_MAX;
use crate::image::progress_bars::ProgressBars;
use crate::image::reference::ImageRef;
use crate::image::store::{Listed, Origin, Store};
use balloon::size::Size;
use balloon::wall_clock;
use clap::Subcommand;
use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// A verb on images.
#[derive(Subcommand, Debug)]
pub enum ImageVerb {
    /// Import an image and print its id
    Import {
        /// Its name afterwards; else the one that its archive gives it
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Directory, tar (plain, gzip, zstd, xz), docker archive, OCI layout, or - for standard input
        image: OsString,
    },
    /// List imported images
    Ls {
        /// How to write the list
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove images by name or id
    Rm {
        /// Which
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Remove all images without a name, and layers that no image uses: directories and files that were run are imported anew
    /// when they are run again
    Prune,
}

/// Opens the images of the data directory.
///
/// # Errors
/// It cannot be made or written.
pub fn open_store(dirs: &Dirs) -> Result<Store, crate::image::error::Error> {
    Store::open(&dirs.data, LAYERS_MAX)
}

/// Runs the verb.
///
/// # Errors
/// It could not be carried out; the message says why and what to do.
pub fn run(verb: &ImageVerb) -> Result<ExitCode, Box<dyn Error>> {
    let dirs = Dirs::find()?;
    dirs.make()?;
    let store = open_store(&dirs)?;
    let mut output = Output::lock();
    if !matches!(verb, ImageVerb::Import { .. }) {
        store.sweep();
    }
    match verb {
        ImageVerb::Import { name, image } => {
            let origin = match ImageRef::parse(image) {
                ImageRef::Stdin => Origin::Stdin,
                _ => Origin::Path(Path::new(image)),
            };
            let image = store.import(origin, name.as_deref(), &ProgressBars::on_stderr())?;
            writeln!(output, "{}", image.id)?;
        }
        ImageVerb::Ls { format } => {
            let now = wall_clock::since_1970();
            let headings = ["NAME", "ID", "LAYERS", "SIZE", "IMPORTED"];
            write_list(*format, headings, &store.list()?, |image| row(image, now), &mut output)?;
        }
        ImageVerb::Rm { names } => return remove(&store, names, &mut output),
        ImageVerb::Prune => {
            let pruned = store.prune()?;
            tell_freed(pruned.freed_bytes);
            for image in pruned.images {
                writeln!(output, "{image}")?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Goes on after one that cannot be removed.
fn remove(store: &Store, names: &[String], output: &mut impl Write) -> Result<ExitCode, Box<dyn Error>> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        match store.remove(name) {
            Ok(removed) => {
                tell_freed(removed.freed_bytes);
                writeln!(output, "{}", removed.image.as_deref().unwrap_or(name))?;
            }
            Err(error) => {
                balloon::logging::print_chain("ballast", &error);
                code = ExitCode::from(super::FAILED);
            }
        }
    }
    Ok(code)
}

fn tell_freed(bytes: Option<u64>) {
    if let Some(words) = freed(bytes) {
        eprint(&format!("ballast: {words}\n"));
    }
}

/// What is said of layers that were removed, or could not be.
fn freed(bytes: Option<u64>) -> Option<String> {
    match bytes {
        Some(0) => None,
        Some(bytes) => Some(format!("{} of layers were freed", Size::from_bytes(bytes))),
        None => Some(
            "an import runs: layers that no image uses stay until the next `ballast image prune`".to_owned(),
        ),
    }
}

fn row(image: &Listed, now: Duration) -> [String; 5] {
    let short = image.id.trim_start_matches("sha256:").chars().take(12).collect();
    let age = now.saturating_sub(Duration::from_secs(image.created));
    [
        image.name.clone().unwrap_or_else(|| "<none>".into()),
        short,
        image.layers.to_string(),
        Size::from_bytes(image.size_bytes).to_string(),
        ago(age),
    ]
}

fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (count, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_is_told_and_what_could_not_be() {
        assert_eq!(freed(Some(0)), None);
        assert!(freed(Some(2 << 20)).unwrap().starts_with("2"));
        assert!(freed(None).unwrap().contains("ballast image prune"));
    }

    #[test]
    fn ages_are_told_in_one_unit() {
        for (seconds, text) in [
            (59, "just now"),
            (60, "1 minute ago"),
            (7200, "2 hours ago"),
            (86_400, "1 day ago"),
            (864_000, "10 days ago"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), text);
        }
    }
}
