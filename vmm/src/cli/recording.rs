//! Recordings line by line, as `replay` and `report` read them. Wiring.

use std::io::{self, BufRead, Read};

/// Hands each whole line of `reader`, without its end, to `take`, until that has enough. A line has at most `line_bytes`. A
/// last line without an end was cut off and is left out: whether there is one.
///
/// # Errors
/// It cannot be read.
pub fn each_line<E>(
    mut reader: impl BufRead,
    line_bytes: usize,
    mut take: impl FnMut(&[u8]) -> Result<(), E>,
) -> io::Result<Result<bool, E>> {
    let mut line = Vec::new();
    let mut is_cut_off = false;
    loop {
        line.clear();
        // Of a longer line only so much is taken, which is refused.
        let bound = line_bytes as u64 + 2;
        if (&mut reader).take(bound).read_until(b'\n', &mut line)? == 0 {
            return Ok(Ok(is_cut_off));
        }
        is_cut_off = line.pop_if(|last| *last == b'\n').is_none() && line.len() <= line_bytes;
        if !is_cut_off && let Err(error) = take(&line) {
            return Ok(Err(error));
        }
    }
}
