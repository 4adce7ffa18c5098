//! Frames: how messages are cut out of a byte stream.
//!
//! A frame is a little-endian `u32` length of what follows (1 to [`MAX_FRAME`]), one byte that says which
//! message it is, and the message's fields. Pure: the owner of the port feeds the [`Decoder`] whatever it
//! read, in any cut.

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;

use crate::wire::FieldError;

/// Largest length of a frame, in bytes: the type and the fields, without the length itself.
pub const MAX_FRAME: usize = 64 * 1024;

/// Bytes of the length in front of a frame.
const PREFIX: usize = 4;

/// One direction's messages.
pub trait Message: Sized {
    /// Reads the fields of a message of type `kind`; `None` if this version knows no such type.
    ///
    /// # Errors
    /// The first field that is not as the format wants it.
    fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError>;

    /// Appends the message as one frame to `out`.
    fn encode(&self, out: &mut Vec<u8>);
}

/// Appends a frame: its length, its type and what `fields` appends.
pub(crate) fn encode_frame(out: &mut Vec<u8>, kind: u8, fields: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; PREFIX]);
    out.push(kind);
    fields(out);
    if let Some((prefix, body)) = out.get_mut(start..).and_then(|frame| frame.split_first_chunk_mut()) {
        debug_assert!(body.len() <= MAX_FRAME, "the messages' own types keep the limit");
        *prefix = u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes();
    }
}

/// Why the decoder has no message to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// A length outside 1 to [`MAX_FRAME`]. Where the next frame starts is unknown: the decoder is dead and
    /// repeats this error.
    Length(u32),
    /// A frame whose fields are wrong. It was skipped; decoding may go on.
    Malformed {
        /// The frame's type.
        kind: u8,
        /// The first wrong field.
        source: FieldError,
    },
}

impl DecodeError {
    /// Whether nothing can be decoded any more.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Length(_))
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(length) => write!(f, "frame of {length} bytes, not of 1 to {MAX_FRAME}"),
            Self::Malformed { kind, .. } => write!(f, "malformed message of type {kind}"),
        }
    }
}

impl Error for DecodeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Length(_) => None,
            Self::Malformed { source, .. } => Some(source),
        }
    }
}

/// Turns bytes, cut anywhere, into messages.
///
/// Holds at most one frame, and only what of it really came.
#[derive(Debug)]
pub struct Decoder<M> {
    partial: Vec<u8>,
    broken: Option<u32>,
    unknown: u64,
    message: PhantomData<fn() -> M>,
}

impl<M> Default for Decoder<M> {
    fn default() -> Self {
        Self { partial: Vec::new(), broken: None, unknown: 0, message: PhantomData }
    }
}

impl<M: Message> Decoder<M> {
    /// A decoder at the start of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off `input` up to the end of the next message and returns that message; `None` once
    /// `input` is empty and more is needed. Call it again with the same `input` until then.
    ///
    /// Messages of unknown type are skipped and counted.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] skips one message, [`DecodeError::Length`] ends the stream.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<M>, DecodeError> {
        loop {
            if let Some(length) = self.broken {
                return Err(DecodeError::Length(length));
            }
            let Some(prefix) = self.partial.first_chunk().copied() else {
                if self.fill(PREFIX, input) {
                    continue;
                }
                return Ok(None);
            };
            let length = u32::from_le_bytes(prefix);
            let body = match usize::try_from(length) {
                Ok(body @ 1..=MAX_FRAME) => body,
                _ => {
                    self.broken = Some(length);
                    self.partial = Vec::new();
                    continue;
                }
            };
            if !self.fill(PREFIX.saturating_add(body), input) {
                return Ok(None);
            }
            let decoded = match self.partial.get(PREFIX..).and_then(<[u8]>::split_first) {
                Some((&kind, fields)) => {
                    M::decode(kind, fields).map_err(|source| DecodeError::Malformed { kind, source })
                }
                None => Ok(None),
            };
            self.partial.clear();
            match decoded {
                Ok(None) => self.unknown = self.unknown.saturating_add(1),
                known => return known,
            }
        }
    }

    /// How many messages of unknown type were skipped.
    #[must_use]
    pub const fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Whether the stream ended inside a frame, if it ended here.
    #[must_use]
    pub const fn is_mid_frame(&self) -> bool {
        !self.partial.is_empty()
    }

    /// Moves bytes from `input` until `partial` holds `want`; says whether it does.
    fn fill(&mut self, want: usize, input: &mut &[u8]) -> bool {
        let missing = want.saturating_sub(self.partial.len());
        let (head, rest) = input.split_at_checked(missing).unwrap_or((input, &[]));
        self.partial.extend_from_slice(head);
        *input = rest;
        head.len() == missing
    }
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
mod tests {
    use super::*;
    use crate::wire::{Fault, bad};
    use proptest::prelude::*;

    /// Type 1 carries bytes, type 2 is always malformed, others are unknown.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Bytes(Vec<u8>);

    impl Message for Bytes {
        fn decode(kind: u8, fields: &[u8]) -> Result<Option<Self>, FieldError> {
            match kind {
                1 => Ok(Some(Self(fields.to_vec()))),
                2 => Err(bad("bytes", Fault::Invalid)),
                _ => Ok(None),
            }
        }

        fn encode(&self, out: &mut Vec<u8>) {
            encode_frame(out, 1, |out| out.extend_from_slice(&self.0));
        }
    }

    fn frame(kind: u8, fields: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_frame(&mut out, kind, |out| out.extend_from_slice(fields));
        out
    }

    proptest! {
        /// Against a naive model: the list of frames that was put in, whatever the cuts.
        #[test]
        fn any_cut_yields_the_same(
            frames in prop::collection::vec((0u8..4, prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            cuts in prop::collection::vec(1usize..200, 1..50),
        ) {
            let mut stream = Vec::new();
            let mut expected = Vec::new();
            let mut unknown = 0;
            for (kind, fields) in &frames {
                stream.extend_from_slice(&frame(*kind, fields));
                match *kind {
                    1 => expected.push(Ok(Bytes(fields.clone()))),
                    2 => expected.push(Err(DecodeError::Malformed { kind: 2, source: bad("bytes", Fault::Invalid) })),
                    _ => unknown += 1,
                }
            }
            let mut decoder = Decoder::new();
            let mut seen: Vec<Result<Bytes, DecodeError>> = Vec::new();
            let mut rest = stream.as_slice();
            let mut cut = cuts.iter().cycle();
            while !rest.is_empty() {
                let (mut head, tail) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
                rest = tail;
                while let Some(result) = decoder.next(&mut head).transpose() {
                    seen.push(result);
                }
                prop_assert!(head.is_empty());
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(decoder.unknown(), unknown);
            prop_assert!(!decoder.is_mid_frame());
        }

        #[test]
        fn holds_no_more_than_came(input in prop::collection::vec(any::<u8>(), 0..600)) {
            let mut decoder = Decoder::<Bytes>::new();
            let mut rest = input.as_slice();
            while let Ok(Some(_)) | Err(DecodeError::Malformed { .. }) = decoder.next(&mut rest) {}
            prop_assert!(decoder.partial.capacity() <= 2 * input.len().max(PREFIX));
        }
    }

    #[test]
    fn the_longest_frame_passes_and_the_next_does_not() {
        let mut decoder = Decoder::<Bytes>::new();
        let longest = frame(1, &vec![7; MAX_FRAME - 1]);
        assert_eq!(decoder.next(&mut longest.as_slice()), Ok(Some(Bytes(vec![7; MAX_FRAME - 1]))));

        let over = (MAX_FRAME as u32 + 1).to_le_bytes();
        assert_eq!(decoder.next(&mut over.as_slice()), Err(DecodeError::Length(MAX_FRAME as u32 + 1)));
    }

    #[test]
    fn a_bad_length_is_final() {
        for length in [0, u32::MAX] {
            let mut decoder = Decoder::<Bytes>::new();
            assert_eq!(decoder.next(&mut length.to_le_bytes().as_slice()), Err(DecodeError::Length(length)));
            assert_eq!(decoder.next(&mut frame(1, &[]).as_slice()), Err(DecodeError::Length(length)));
        }
    }
}
