//! Swap of the host's, for tests of what a host does with it.

use std::fs;
use std::path::Path;
use std::process::Command;

const CONTROL: &str = "/sys/class/zram-control/hot_add";

/// Compressed memory to swap to; off again when dropped. Takes root, as in a box.
pub struct Swap {
    device: String,
}

impl Swap {
    /// So many bytes of it, beside what there is.
    #[must_use]
    pub fn on(bytes: u64) -> Self {
        run("modprobe", &["zram", "num_devices=0"]);
        let number = fs::read_to_string(CONTROL).unwrap();
        let name = format!("zram{}", number.trim());
        fs::write(Path::new("/sys/block").join(&name).join("disksize"), bytes.to_string()).unwrap();
        let device = format!("/dev/{name}");
        run("mkswap", &[&device]);
        run("swapon", &[&device]);
        Self { device }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        run("swapoff", &[&self.device]);
    }
}

#[track_caller]
fn run(program: &str, arguments: &[&str]) {
    let ended = Command::new(program).args(arguments).output();
    let ended = ended.unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {arguments:?}: {}: {said}", ended.status);
}
