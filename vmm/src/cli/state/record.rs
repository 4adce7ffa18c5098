//! What is written down of a microVM: what it is, and how it ended. Pure: documents and their text.

#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Of both documents. Any change that an older Ballast would misread raises it.
const VERSION: u32 = 1;

/// Bytes of the file that says how a microVM ended: written blank at the start and filled in place at the end, which
/// takes no room on the disk. One page, so that a reader finds all of it or nothing.
pub const EXIT_BYTES: usize = 4096;

/// SIGTERM asks a workload to end, unless its image says otherwise.
pub const STOP_SIGNAL: u8 = 15;

/// The exit code of a microVM that was killed with the process that looked after it.
pub const KILLED: u8 = 128 + 9;

/// Longest explanation that is kept, in bytes: escaped as JSON at the worst it still fits [`EXIT_BYTES`].
const MESSAGE_BYTES: usize = 600;

/// What a microVM is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the format.
    pub version: u32,
    /// Twelve hexadecimal digits, like no other microVM's.
    pub id: String,
    /// The image, as the user named it.
    pub image: String,
    /// The words after the image.
    pub command: Vec<String>,
    /// When it was begun, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// It runs in the background, and is kept when it has ended.
    pub detached: bool,
    /// It is removed all the same when it has ended.
    pub remove: bool,
    /// The directory of its log.
    pub log: Option<PathBuf>,
    /// Number of the signal that asks its workload to end.
    pub stop_signal: u8,
}

/// How a microVM ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Of the format.
    pub version: u32,
    /// The exit code that a shell shows.
    pub code: u8,
    /// When, in milliseconds since 1970; nothing if nobody saw it.
    pub ended_at_ms: Option<u64>,
    /// What there is to say of it.
    pub message: Option<String>,
}

/// A document of another version, or none at all.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is of another version of Ballast, or damaged")]
pub struct Unreadable;

impl Record {
    /// A record of this version.
    #[must_use]
    pub fn new(id: String, image: String, command: Vec<String>, created_at_ms: u64) -> Self {
        Self {
            version: VERSION,
            id,
            image,
            command,
            created_at_ms,
            detached: false,
            remove: true,
            log: None,
            stop_signal: STOP_SIGNAL,
        }
    }

    /// Whether it stays when it has ended.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.detached && !self.remove
    }

    /// Reads what serialising wrote.
    ///
    /// # Errors
    /// It is no record, or of another version.
    pub fn parse(text: &[u8]) -> Result<Self, Unreadable> {
        serde_json::from_slice(text).ok().filter(|record: &Self| record.version == VERSION).ok_or(Unreadable)
    }
}

impl Exit {
    /// An end of this version. A long message is cut.
    #[must_use]
    pub fn new(code: u8, ended_at_ms: Option<u64>, message: &str) -> Self {
        let end = message.char_indices().map(|(at, c)| at + c.len_utf8());
        let end = end.take_while(|end| *end <= MESSAGE_BYTES).last().unwrap_or(0);
        let message = message.get(..end).filter(|message| !message.is_empty()).map(str::to_owned);
        Self { version: VERSION, code, ended_at_ms, message }
    }

    /// That of a microVM whose process was killed before it could say how it ended.
    #[must_use]
    pub fn killed() -> Self {
        Self::new(KILLED, None, "it was killed with the process that looked after it")
    }

    /// The text of its file: [`EXIT_BYTES`] of it, blank behind the document.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.resize(EXIT_BYTES, b' ');
        text
    }

    /// Reads its file; nothing if that is blank.
    ///
    /// # Errors
    /// It says something else.
    pub fn parse(text: &[u8]) -> Result<Option<Self>, Unreadable> {
        if text.trim_ascii().is_empty() {
            return Ok(None);
        }
        let exit = serde_json::from_slice(text).ok().filter(|exit: &Self| exit.version == VERSION);
        exit.map(Some).ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_end_fits_its_file_whatever_is_said_of_it(code: u8, at: Option<u64>, message in "(?s).{0,1500}") {
            let exit = Exit::new(code, at, &message);
            prop_assert_eq!(exit.text().len(), EXIT_BYTES);
            prop_assert!(message.starts_with(exit.message.as_deref().unwrap_or_default()));
            prop_assert_eq!(Exit::parse(&exit.text()), Ok(Some(exit)));
        }

        #[test]
        fn any_text_is_survived(text: Vec<u8>) {
            let _ = Record::parse(&text);
            let _ = Exit::parse(&text);
        }
    }

    #[test]
    fn the_worst_message_fits() {
        let exit = Exit::new(125, Some(u64::MAX), &"\u{1}".repeat(5000));
        assert_eq!(Exit::parse(&exit.text()), Ok(Some(exit)));
    }

    #[test]
    fn what_another_version_wrote_is_not_guessed_at() {
        let record = Record::new("0123456789ab".into(), "bb".into(), vec!["sh".into()], 7);
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(Record::parse(text.as_bytes()), Ok(record));
        assert_eq!(Record::parse(text.replace("\"version\":1", "\"version\":2").as_bytes()), Err(Unreadable));
        assert_eq!(Exit::parse(b"    "), Ok(None));
        assert_eq!(
            Exit::parse(br#"{"version":9,"code":1,"ended_at_ms":null,"message":null}"#),
            Err(Unreadable)
        );
    }
}
