//! Recordings line by line, as `replay` and `report` read them. Wiring.

use balloon::policy::trace::{self, LINE_BYTES};
use std::io::{self, BufRead, Read};

/// Hands each whole line of `reader`, without its end, to `take`, until that has enough. A last line without an end was
/// cut off and is left out: whether there is one.
///
/// # Errors
/// It cannot be read.
pub fn each_line(
    mut reader: impl BufRead,
    mut take: impl FnMut(&[u8]) -> Result<(), trace::Error>,
) -> io::Result<Result<bool, trace::Error>> {
    let mut line = Vec::new();
    let mut is_cut_off = false;
    loop {
        line.clear();
        // Of a longer line only so much is taken, which is refused.
        let bound = LINE_BYTES as u64 + 2;
        if (&mut reader).take(bound).read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(is_cut_off));
        }
        is_cut_off = line.pop_if(|last| *last == b'\n').is_none() && line.len() <= LINE_BYTES;
        if !is_cut_off && let Err(error) = take(&line) {
            return Ok(Err(error));
        }
    }
}
