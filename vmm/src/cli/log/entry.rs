//! What a log consists of. Pure.
//!
//! The format is docker's `json-file`: `{"log":"text\n","stream":"stdout","time":"2026-01-02T03:04:05.678901234Z"}`. As
//! there, bytes that are no UTF-8 become U+FFFD, and a line longer than [`LINE_BYTES`] is several entries of which only
//! the last ends with a line feed.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Longest piece of a line in one entry.
pub const LINE_BYTES: usize = 16 << 10;

/// Where an entry came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// The workload's standard output, or its terminal's.
    Stdout,
    /// Its standard error.
    Stderr,
    /// Ballast itself.
    Ballast,
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// The text, with its line feed.
    pub log: Cow<'a, str>,
    /// Where it came from.
    pub stream: Stream,
    /// When, as of RFC 3339 in UTC.
    pub time: Cow<'a, str>,
}

impl Entry<'_> {
    /// Appends the entry as a line.
    pub fn write(&self, out: &mut Vec<u8>) {
        // Nothing in it can fail to become JSON, nor a Vec to take it.
        let _ = serde_json::to_writer(&mut *out, self);
        out.push(b'\n');
    }
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The line that has no end yet.
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes, and gives each line that they complete to `emit`.
    pub fn take(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            while self.partial.len() > LINE_BYTES {
                let rest = self.partial.split_off(boundary(&self.partial));
                emit(&self.partial);
                self.partial = rest;
            }
            if self.partial.last() == Some(&b'\n') {
                emit(&self.partial);
                self.partial.clear();
            }
        }
    }

    /// Gives what is left at the end of the stream to `emit`.
    pub fn end(&mut self, emit: impl FnOnce(&[u8])) {
        if !self.partial.is_empty() {
            emit(&std::mem::take(&mut self.partial));
        }
    }
}

/// Where to cut a line that is too long: at most after [`LINE_BYTES`], and before a character that would be cut.
fn boundary(line: &[u8]) -> usize {
    let continues = |at: &usize| line.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    let lowest = LINE_BYTES.saturating_sub(3);
    (lowest..=LINE_BYTES).rev().find(|at| !continues(at)).unwrap_or(LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against a naive model: the whole stream, cut at line feeds.
        #[test]
        fn any_cut_of_a_stream_gives_the_same_lines(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..40), 0..30),
        ) {
            let mut lines = Lines::default();
            let mut seen: Vec<Vec<u8>> = Vec::new();
            for piece in &pieces {
                lines.take(piece, |line| seen.push(line.to_vec()));
            }
            lines.end(|line| seen.push(line.to_vec()));
            let whole = pieces.concat();
            let expected: Vec<_> = whole.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn long_lines_lose_nothing_and_no_character_is_cut(length in 0usize..3 * LINE_BYTES, letter in "[a-zä€𝄞]") {
            let text = letter.repeat(length);
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            lines.take(text.as_bytes(), |line| seen.push(line.to_vec()));
            lines.end(|line| seen.push(line.to_vec()));
            prop_assert_eq!(seen.concat(), text.as_bytes());
            for line in seen {
                prop_assert!(line.len() <= LINE_BYTES && std::str::from_utf8(&line).is_ok());
            }
        }
    }

    #[test]
    fn an_entry_is_dockers() {
        let mut out = Vec::new();
        let time = "2026-01-02T03:04:05.678901234Z";
        Entry { log: "a\u{1b}\n".into(), stream: Stream::Stdout, time: time.into() }.write(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, format!("{{\"log\":\"a\\u001b\\n\",\"stream\":\"stdout\",\"time\":\"{time}\"}}\n"));
    }
}
