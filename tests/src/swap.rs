//! Swap of the host's, for tests of what a host does with it.

use std::fs;
use std::path::Path;
use std::process::Command;

const CONTROL: &str = "/sys/class/zram-control";

/// Compressed memory to swap to; gone again when dropped. Takes root, as in a box.
pub struct Swap {
    number: String,
    device: String,
}

impl Swap {
    /// So many bytes of it, beside what there is.
    #[must_use]
    pub fn on(bytes: u64) -> Self {
        run("modprobe", &["zram", "num_devices=0"]);
        let number = fs::read_to_string(Path::new(CONTROL).join("hot_add")).unwrap().trim().to_owned();
        let name = format!("zram{number}");
        fs::write(Path::new("/sys/block").join(&name).join("disksize"), bytes.to_string()).unwrap();
        let device = format!("/dev/{name}");
        run("mkswap", &[&device]);
        run("swapon", &[&device]);
        Self { number, device }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // A test may be failing already.
        let _ = Command::new("swapoff").arg(&self.device).status();
        let _ = fs::write(Path::new(CONTROL).join("hot_remove"), &self.number);
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {arguments:?}: {}: {said}", ended.status);
}
