//! A layer's archive, up to the plan of what to do for each member: no planned name leaves the root, and no member
//! gives more data than it claims.

use std::io::Write as _;
use vmm::image::entry::{Entry, LayerPath, plan_entry};
use vmm::image::member::{Members, Streamed};

pub fn run(input: &[u8]) {
    let mut members = Members::new(Streamed(input));
    while let Ok(Some(member)) = members.next_member() {
        if let Ok(planned) = plan_entry(&member) {
            check(&planned.entry);
        }
        let mut data = Vec::new();
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = members.read_data(&mut chunk) {
            data.write_all(&chunk[..length]).unwrap();
        }
        assert!(data.len() as u64 <= member.stored, "{} of {} bytes", data.len(), member.stored);
        assert!(members.position() <= input.len() as u64);
        let segments = member.segments.unwrap_or_default();
        let mut end = 0;
        for segment in &segments {
            assert!(segment.offset >= end, "segments overlap");
            end = segment.offset.checked_add(segment.length).expect("a segment beyond all files");
        }
        assert!(end <= member.size, "a segment beyond the end of its file");
    }
}

fn check(entry: &Entry) {
    match entry {
        Entry::HardLink { path, target } => {
            inside(path);
            inside(target);
        }
        Entry::Directory(path, _)
        | Entry::File(path, _)
        | Entry::Symlink(path, ..)
        | Entry::Fifo(path, _)
        | Entry::Whiteout(path)
        | Entry::Opaque(path)
        | Entry::Device(path) => inside(path),
        Entry::Ignored => {}
    }
}

fn inside(path: &LayerPath) {
    assert!(!path.as_bytes().starts_with(b"/") && !path.as_bytes().contains(&0), "{path}");
    assert!(path.components().all(|name| name != ".." && name != "."), "{path}");
}
