//! A member's data on its way into a file, and what follows the last member. Called by [`super::unpack`] and
//! [`super::layer`].
#![forbid(unsafe_code)]
#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;

use super::entry::LayerPath;
use super::limits::{LimitError, Limits};
use super::member::{Member, TarError};
use super::tar_reader::{Members, Skip};
use super::unpack::{UnpackError, at};

/// How much is copied at once, in bytes.
pub const COPY_BYTES: usize = 256 << 10;

/// Copies a member's data into its file; holes stay holes. `path` is for the message.
///
/// # Errors
/// [`UnpackError`]; the file is then of no use.
pub fn write<R: Skip>(
    mut file: &File,
    member: &Member,
    members: &mut Members<R>,
    buffer: &mut [u8],
    path: &LayerPath,
) -> Result<(), UnpackError> {
    let Some(segments) = &member.segments else {
        loop {
            let read = members.read_data(buffer)?;
            if read == 0 {
                return Ok(());
            }
            file.write_all(buffer.get(..read).unwrap_or_default()).map_err(at(path))?;
        }
    };
    file.set_len(member.size).map_err(at(path))?;
    for segment in segments {
        let (mut offset, mut left) = (segment.offset, segment.length);
        while left > 0 {
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let chunk = buffer.get_mut(..wanted).unwrap_or_default();
            let read = members.read_data(chunk)?;
            if read == 0 {
                return Err(TarError::Truncated.into());
            }
            file.write_all_at(chunk.get(..read).unwrap_or_default(), offset).map_err(at(path))?;
            offset = offset.saturating_add(read as u64);
            left = left.saturating_sub(read as u64);
        }
    }
    Ok(())
}

/// Reads what follows the archive's end mark, so that the whole stream is hashed.
///
/// # Errors
/// [`TarError::Read`], or [`LimitError::Trailer`] where it does not end.
pub fn drain(rest: impl Read, limits: &Limits) -> Result<(), UnpackError> {
    let most = limits.trailer_bytes;
    let read = io::copy(&mut rest.take(most.saturating_add(1)), &mut io::sink()).map_err(TarError::Read)?;
    if read > most { Err(LimitError::Trailer(most).into()) } else { Ok(()) }
}
