//! A layer's archive, plain or compressed, up to the plan of what to do for each member: no name leaves the root,
//! and what is read stays within the limits.

use vmm::image::{Entry, LayerPath, Limits, walk};

pub fn run(input: &[u8]) {
    // Small, so that what expands meets them within a run's time.
    let limits = Limits { layer_bytes: 1 << 20, ..Limits::default() };
    for entry in walk(input, &limits).0 {
        match entry {
            Entry::HardLink { path, target } => [path, target].iter().for_each(inside),
            Entry::Directory(path, _)
            | Entry::File(path, _)
            | Entry::Symlink(path, ..)
            | Entry::Fifo(path, _)
            | Entry::Whiteout(path)
            | Entry::Opaque(path)
            | Entry::Device(path) => inside(&path),
            Entry::Ignored => {}
        }
    }
}

fn inside(path: &LayerPath) {
    assert!(!path.as_bytes().starts_with(b"/") && !path.as_bytes().contains(&0), "{path}");
    assert!(path.components().all(|name| name != ".." && name != "."), "{path}");
}
