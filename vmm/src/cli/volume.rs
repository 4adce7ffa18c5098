//! `ballast volume create | ls | rm`.

#![forbid(unsafe_code)]

use super::dirs::Dirs;
use super::format::{self, Format};
use super::output::Output;
use crate::volume::store::{Error, Volume};
use crate::volume::{VolumeName, Volumes};
use balloon::size::Size;
use clap::Subcommand;
use std::io::{self, Write};
use std::process::ExitCode;

/// A verb on volumes.
#[derive(Subcommand, Debug)]
pub enum VolumeVerb {
    /// Make a volume; `run -v` makes the ones that are missing by itself
    Create {
        /// Most that it can hold; it takes up only what is written
        #[arg(long, value_name = "SIZE", default_value_t = Size::from_bytes(crate::volume::store::DEFAULT_BYTES))]
        size: Size,
        /// Its name
        name: VolumeName,
    },
    /// List volumes
    Ls {
        /// How to write the list
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove volumes with all that is in them
    Rm {
        /// Which
        #[arg(required = true)]
        names: Vec<VolumeName>,
    },
}

/// Runs the verb.
///
/// # Errors
/// It could not be carried out; the message says why and what to do.
pub fn run(verb: &VolumeVerb) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let dirs = Dirs::find()?;
    dirs.make()?;
    let volumes = Volumes::new(&dirs.data);
    let mut output = Output::lock();
    match verb {
        VolumeVerb::Create { size, name } => create(&volumes, name, *size, &mut output)?,
        VolumeVerb::Ls { format } => ls(&volumes, *format, &mut output)?,
        VolumeVerb::Rm { names } => {
            let complain = |error: &Error| balloon::logging::print_chain("ballast", error);
            if !rm(&volumes, names, &mut output, complain)? {
                return Ok(ExitCode::from(super::FAILED));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A verb could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum VerbError {
    /// The volume.
    #[error(transparent)]
    Volume(#[from] Error),
    /// The output.
    #[error(transparent)]
    Write(#[from] io::Error),
}

/// Makes a volume and writes its name.
///
/// # Errors
/// It cannot be made.
pub fn create(
    volumes: &Volumes,
    name: &VolumeName,
    size: Size,
    output: &mut impl Write,
) -> Result<(), VerbError> {
    volumes.create(name, size.bytes())?;
    Ok(writeln!(output, "{name}")?)
}

/// Lists all volumes.
///
/// # Errors
/// They cannot be read.
pub fn ls(volumes: &Volumes, format: Format, output: &mut impl Write) -> Result<(), VerbError> {
    let volumes = volumes.list()?;
    match format {
        Format::Table => write_table(&volumes, output)?,
        Format::Json => {
            let rows: Vec<_> = volumes.iter().map(row).collect();
            serde_json::to_writer(&mut *output, &rows).map_err(io::Error::from)?;
            writeln!(output)?;
        }
    }
    Ok(())
}

/// Removes volumes, writing the name of each. Goes on after one that cannot be removed; what went wrong is
/// handed to `complain`. Returns whether all are gone.
///
/// # Errors
/// The output cannot be written.
pub fn rm(
    volumes: &Volumes,
    names: &[VolumeName],
    output: &mut impl Write,
    mut complain: impl FnMut(&Error),
) -> io::Result<bool> {
    let mut all = true;
    for name in names {
        match volumes.remove(name) {
            Ok(()) => writeln!(output, "{name}")?,
            Err(error) => {
                all = false;
                complain(&error);
            }
        }
    }
    Ok(all)
}

/// One volume as JSON: sizes in bytes.
fn row(volume: &Volume) -> serde_json::Value {
    serde_json::json!({
        "name": volume.name.as_str(),
        "size_bytes": volume.size_bytes,
        "used_bytes": volume.used_bytes,
        "in_use": volume.in_use,
    })
}

fn write_table(volumes: &[Volume], output: &mut impl Write) -> io::Result<()> {
    let row = |volume: &Volume| {
        let size = |bytes| Size::from_bytes(bytes).to_string();
        let in_use = if volume.in_use { "yes" } else { "no" };
        [volume.name.to_string(), size(volume.size_bytes), size(volume.used_bytes), in_use.into()]
    };
    let rows: Vec<_> = volumes.iter().map(row).collect();
    format::write_table(["NAME", "SIZE", "ON DISK", "IN USE"], &rows, output)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(act: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut output = Vec::new();
        act(&mut output);
        String::from_utf8(output).unwrap()
    }

    #[test]
    fn a_table_and_json_say_the_same() {
        let data = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(data.path());
        let name: VolumeName = "database".parse().unwrap();
        let made = told(|out| create(&volumes, &name, Size::from_bytes(32 << 20), out).unwrap());
        assert_eq!(made, "database\n");
        let _open = volumes.open(&name, true).unwrap();
        let table = told(|out| ls(&volumes, Format::Table, out).unwrap());
        assert_eq!(table.lines().count(), 2);
        assert!(table.starts_with("NAME    ") && table.contains("database  32 MiB"), "{table}");
        assert!(table.ends_with("yes\n"));
        let json = told(|out| ls(&volumes, Format::Json, out).unwrap());
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json[0]["name"], "database");
        assert_eq!(json[0]["size_bytes"], 32 << 20);
        assert_eq!(json[0]["in_use"], true);
    }

    #[test]
    fn removal_goes_on_after_a_mistake() {
        let data = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(data.path());
        let names: Vec<VolumeName> = ["missing", "there"].map(|name| name.parse().unwrap()).into();
        volumes.create(&names[1], 16 << 20).unwrap();
        let mut complaints = Vec::new();
        let mut all = true;
        let output = told(|out| {
            all = rm(&volumes, &names, out, |error| complaints.push(error.to_string())).unwrap();
        });
        assert_eq!((all, output.as_str()), (false, "there\n"));
        assert!(complaints[0].contains("no volume 'missing'"));
        assert_eq!(told(|out| ls(&volumes, Format::Json, out).unwrap()), "[]\n");
    }
}
