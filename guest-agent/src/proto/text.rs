//! Text that one side shows to a person on the other.
//!
//! A guest's words end up on the user's terminal, so the type itself holds that they are short and carry no
//! control characters: whoever has a [`Text`] may print it.

use std::fmt;
use std::ops::Deref;

use crate::wire::{FieldError, Reader, Writer};

/// Longest text, in bytes.
pub const MAX_TEXT: usize = 4096;

/// One line of at most [`MAX_TEXT`] bytes that is safe to print on a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(String);

impl Text {
    /// Takes over `text`: line breaks and tabs become spaces, other control and direction-changing
    /// characters U+FFFD, and what is too long is cut between two characters.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut line = String::with_capacity(text.len().min(MAX_TEXT));
        for c in text.chars().map(printable) {
            if line.len().saturating_add(c.len_utf8()) > MAX_TEXT {
                break;
            }
            line.push(c);
        }
        Self(line)
    }

    pub(crate) fn read(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, FieldError> {
        reader.str(field, MAX_TEXT).map(Self::new)
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        // The type keeps the limit, so the count always fits.
        writer.u32(u32::try_from(self.0.len()).unwrap_or(0));
        writer.raw(self.0.as_bytes());
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The character itself if a terminal shows it and does nothing else.
const fn printable(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' => ' ',
        // C0, DEL and C1; then the Unicode line separators and bidirectional controls.
        '\0'..='\u{1f}'
        | '\u{7f}'..='\u{9f}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escape_sequences_lose_their_effect() {
        assert_eq!(&*Text::new("a\x1b[2Jb\nc\u{202e}d"), "a\u{fffd}[2Jb c\u{fffd}d");
    }

    proptest! {
        #[test]
        fn is_short_printable_and_stable(input in "(?s).{0,3000}") {
            let text = Text::new(&input);
            prop_assert!(text.len() <= MAX_TEXT);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(Text::new(&text), text);
        }
    }
}
