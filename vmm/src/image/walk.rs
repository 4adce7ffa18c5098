//! Reads an archive as the unpacker would, with no file system in reach: for fuzz targets and checks.
#![forbid(unsafe_code)]

use super::compression::{Compression, MAGIC_BYTES};
use super::entry::{Entry, plan_entry};
use super::limits::{Budget, Limits};
use super::tar_reader::{Members, Streamed};
use super::unpack::UnpackError;

/// Plans every member of an archive, compressed or not, and reads all data.
///
/// Returns what would have been done up to the end or the first refusal.
pub fn walk(archive: &[u8], limits: &Limits) -> (Vec<Entry>, Result<(), UnpackError>) {
    let compression = Compression::detect(&archive[..archive.len().min(MAGIC_BYTES)]);
    let budget = Budget::new(limits);
    let mut members = Members::new(Streamed(compression.decode(archive, &budget)));
    let mut entries = Vec::new();
    let mut step = || -> Result<bool, UnpackError> {
        let Some(member) = members.next_member()? else { return Ok(false) };
        budget.charge(&member)?;
        entries.push(plan_entry(&member)?.entry);
        let mut chunk = [0; 4096];
        while members.read_data(&mut chunk)? > 0 {}
        Ok(true)
    };
    let result = loop {
        match step() {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    (entries, result)
}

#[cfg(test)]
mod tests {
    use super::super::entry::LayerPath;
    use super::super::tests::fixture::{Tar, gzip};
    use super::*;

    #[test]
    fn a_walk_tells_what_would_be_done_until_it_is_refused() {
        let tar =
            Tar::new().directory("d", 0o755).file("d/.wh.x", "").file("f", "data").file("../g", "").end();
        for bytes in [tar.clone(), gzip(&tar)] {
            let (entries, result) = walk(&bytes, &Limits::default());
            assert_eq!(entries.len(), 3);
            assert_eq!(entries[1], Entry::Whiteout(LayerPath::clean(b"d/x").unwrap()));
            assert!(matches!(result, Err(UnpackError::Entry(_))));
        }
    }
}
