//! How many microVMs one host holds; [`tests::density`] has how. `ci/bench density` calls it.

use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tests::density::ramp::{Plan, climb};
use tests::density::{load, plot, table};
use tests::experiment::tmo;

const USAGE: &str = "usage: bench-density ramp ARM MOST STEP-SECONDS RESULT     on a host of its own
       bench-density load KIND NUMBER DIRECTORY [TMO-GAIN] in a guest
       bench-density table DIRECTORY                       of results, ARM.jsonl, with density.svg beside them";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["ramp", arm, most, seconds, result] => {
            let step = Duration::from_secs(seconds.parse()?);
            climb(Plan { arm: arm.parse()?, most: most.parse()?, step }, &mut File::create(result)?)
        }
        ["load", kind, number, directory, gain @ ..] => {
            if let [gain] = gain {
                let gain = gain.parse()?;
                std::thread::spawn(move || tmo::play(gain));
            }
            Ok(load::run(kind.parse()?, number.parse()?, Path::new(directory))?)
        }
        ["table", directory] => {
            let directory = PathBuf::from(directory);
            let ramps = table::read(&directory)?;
            println!("{}", table::table(&ramps));
            Ok(fs::write(directory.join("density.svg"), plot::plot(&ramps)?)?)
        }
        _ => Err(USAGE.into()),
    }
}
