//! Prepares a guest kernel as `ballast run` does and prints where its two files are, for booting them with
//! another VMM: `prepare-kernel AGENT CACHE_DIR [KERNEL [MODULES]]`.

use std::error::Error;
use std::path::PathBuf;
use vmm::kernel::{self, Search};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(agent), Some(cache_dir)) = (arguments.next(), arguments.next()) else {
        return Err("usage: prepare-kernel AGENT CACHE_DIR [KERNEL [MODULES]]".into());
    };
    let source = kernel::find(&Search::on_this_host(arguments.next(), arguments.next(), &cache_dir))?;
    let kernel = kernel::prepare(&source, &agent, &cache_dir)?;
    println!("release {}", kernel.release);
    println!("kernel {}", kernel.elf.display());
    println!("initramfs {}", kernel.initramfs.display());
    println!("disks {}", kernel.disks);
    for notice in kernel.notices {
        println!("notice {notice}");
    }
    Ok(())
}
