//! `ballast-vmm CONFIG_FD`: runs one microVM, described by a JSON document on an open descriptor.
//!
//! Started by `ballast`, never by hand: it opens no path, and every descriptor it uses is named in the document.

use std::fs::File;
use std::io::Read;
use std::os::fd::{FromRawFd, RawFd};
use std::process::ExitCode;

fn main() -> ExitCode {
    balloon::logging::start("ballast-vmm", || {});
    balloon::file_size_limit::ignore_signal();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            balloon::logging::print_chain("ballast-vmm", &*error);
            ExitCode::from(125)
        }
    }
}

fn start() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(fd), None) = (arguments.next(), arguments.next()) else {
        return Err("this program is started by `ballast run`, with the number of an open descriptor".into());
    };
    let fd: RawFd = fd.parse().map_err(|_| format!("'{fd}' is not the number of a descriptor"))?;
    // SAFETY: `ballast` passes this descriptor for this purpose; a wrong number fails in the read below.
    let mut file = unsafe { File::from_raw_fd(fd) };
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|e| format!("cannot read the configuration: {e}"))?;
    let config =
        serde_json::from_str(&text).map_err(|e| format!("cannot understand the configuration: {e}"))?;
    // SAFETY: `ballast` opened every descriptor that the document names, each for one purpose.
    unsafe { vmm::run::run(&config) }?;
    Ok(())
}
