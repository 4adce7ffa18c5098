//! `/proc/PID/smaps`.

use balloon::resident::parse_smaps;

pub fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert!(parse_smaps(&text).len() <= text.lines().count());
}
