//! `bench-load WORKLOAD DIRECTORY MINUTES [TMO-GAIN]`: what runs in the guest of a reclaim experiment. Says on standard output
//! how it does. With a gain it also plays TMO's rule on its own control group.

use std::path::Path;
use tests::experiment::{load, tmo};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (workload, directory, minutes, gain) = match arguments.as_slice() {
        [workload, directory, minutes] => (workload, directory, minutes, None),
        [workload, directory, minutes, gain] => (workload, directory, minutes, Some(gain.parse()?)),
        _ => return Err("usage: bench-load WORKLOAD DIRECTORY MINUTES [TMO-GAIN]".into()),
    };
    if let Some(gain) = gain {
        std::thread::spawn(move || tmo::play(gain));
    }
    load::run(workload, Path::new(directory), minutes.parse()?)?;
    Ok(())
}
