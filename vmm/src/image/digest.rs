//! SHA-256 digests as image formats spell them, and readers that hash what passes through. Pure over [`Read`].
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read};
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// A SHA-256 digest.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

/// Why a text is no digest that can be checked here.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0:?} is no SHA-256 digest (`sha256:` and 64 hexadecimal digits)")]
pub struct DigestError(String);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// 64 lower-case hexadecimal digits.
    pub fn hex(&self) -> String {
        use fmt::Write as _;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The first 16 bytes as a UUID of version 8 (RFC 9562: the bits are the maker's choice).
    pub fn uuid(&self) -> [u8; 16] {
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&self.0[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let error = || DigestError(text.chars().take(200).collect());
        let hex = text.strip_prefix("sha256:").ok_or_else(error)?.as_bytes();
        let nibble = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        if hex.len() != 64 {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.chunks_exact(2)) {
            *byte =
                nibble(pair[0]).zip(nibble(pair[1])).map(|(high, low)| high << 4 | low).ok_or_else(error)?;
        }
        Ok(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// What has passed through a [`Tallied`] reader; shared with whoever waits for the end.
#[derive(Clone, Debug)]
pub struct Tally(Rc<RefCell<Sha256>>);

impl Tally {
    /// Nothing has passed.
    pub fn hashing() -> Self {
        Self(Rc::new(RefCell::new(Sha256::new())))
    }

    /// Digest of the bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(self.0.borrow().clone().finalize().into())
    }

    /// A reader whose bytes are tallied here.
    pub fn reader<R: Read>(&self, inner: R) -> Tallied<R> {
        Tallied { inner, tally: self.clone() }
    }
}

/// A reader with a [`Tally`].
#[derive(Debug)]
pub struct Tallied<R> {
    inner: R,
    tally: Tally,
}

impl<R: Read> Read for Tallied<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.tally.0.borrow_mut().update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip() {
        let digest = Digest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for bad in ["", "sha256:", "sha512:00", &text[..70], &text.to_uppercase(), &text.replace('e', "g")] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn uuid_has_its_version_and_variant() {
        let uuid = Digest([0xff; 32]).uuid();
        assert_eq!((uuid[6], uuid[8]), (0x8f, 0xbf));
        assert_eq!(Digest([0; 32]).uuid()[6..9], [0x80, 0, 0x80]);
    }

    #[test]
    fn tally_sees_every_byte_once() {
        let tally = Tally::hashing();
        let mut out = Vec::new();
        tally.reader(&b"hello"[..]).read_to_end(&mut out).unwrap();
        assert_eq!(tally.digest(), Digest::of(b"hello"));
    }
}
