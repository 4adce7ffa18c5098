//! IMAGE as the user types it, and the names of imported images. Pure.
//!
//! The rule, in order:
//! 1. `-` is standard input.
//! 2. What starts with `/`, `./` or `../`, or is `.` or `..`, is a path and nothing else.
//! 3. Anything else is the name or id of an imported image, if there is one, else a path, if it exists.
//!
//! So `rootfs.tar` works as typed, and a file that happens to be called `debian` never takes the place of an
//! imported `debian`, as no command runs from the current directory in a shell: `./debian` names the file.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An IMAGE argument, not looked up yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRef {
    /// `-`: any archive on standard input.
    Stdin,
    /// A path and nothing else.
    Path(PathBuf),
    /// A name or id, or else a path.
    NameOrPath(OsString),
}

impl ImageRef {
    /// Reads the argument.
    pub fn parse(argument: &OsStr) -> Self {
        let bytes = argument.as_bytes();
        let is_path = [&b"/"[..], b"./", b"../"].iter().any(|prefix| bytes.starts_with(prefix));
        match bytes {
            b"-" => Self::Stdin,
            b"." | b".." => Self::Path(argument.into()),
            _ if is_path => Self::Path(argument.into()),
            _ => Self::NameOrPath(argument.to_owned()),
        }
    }
}

/// Why something is no image name.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "{0:?} is no image name: lower-case letters and digits, parted by `.`, `_`, `-` or `/`, then `:TAG` if wanted"
)]
pub struct NameError(pub String);

/// The name of an imported image with its tag: `debian:latest`, `registry.example:5000/team/app:1.2`.
///
/// Of docker's own registry, as docker shows it: `docker.io/library/debian` is `debian`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Longest name in bytes, tag excluded: as in the distribution specification.
    const REPOSITORY_BYTES_MAX: usize = 255;
    const TAG_BYTES_MAX: usize = 128;
    /// Longest name in bytes, tag included.
    pub const BYTES_MAX: usize = Self::REPOSITORY_BYTES_MAX + 1 + Self::TAG_BYTES_MAX;

    /// Reads a name; without a tag it gets `latest`.
    ///
    /// # Errors
    /// [`NameError`] for what docker would not accept as a reference either.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let error = || NameError(text.chars().take(300).collect());
        // A colon before the last slash belongs to a registry's port.
        let after_slash = text.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match text[after_slash..].find(':') {
            Some(colon) => (&text[..after_slash + colon], &text[after_slash + colon + 1..]),
            None => (text, "latest"),
        };
        let mut parts = repository.split('/');
        if has_domain(repository) && !parts.next().is_some_and(is_domain) {
            return Err(error());
        }
        if repository.len() > Self::REPOSITORY_BYTES_MAX || !parts.all(is_path_component) || !is_tag(tag) {
            return Err(error());
        }
        Ok(Self(format!("{}:{tag}", familiar(repository))))
    }

    /// The name with its tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A file name for this name: `/` becomes `%2F`. Nothing else in a name needs it, and `%` is in none.
    pub fn file_name(&self) -> String {
        format!("{}.json", self.0.replace('/', "%2F"))
    }

    /// The name that a file is called by, however the name is spelled there.
    pub fn of_file(file_name: &str) -> Option<Self> {
        Self::parse(&file_name.strip_suffix(".json")?.replace("%2F", "/")).ok()
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a repository starts with a registry.
fn has_domain(repository: &str) -> bool {
    repository.split_once('/').is_some_and(|(first, _)| {
        first == "localhost" || first.contains(['.', ':']) || first.contains(|c: char| c.is_ascii_uppercase())
    })
}

/// A repository without what docker fills in: its registry, and `library/` before a single word there.
fn familiar(repository: &str) -> &str {
    let registries = ["docker.io/", "index.docker.io/"];
    let path = registries.iter().find_map(|registry| repository.strip_prefix(registry)).unwrap_or(repository);
    match path.strip_prefix("library/") {
        Some(word) if !word.contains('/') => word,
        // Without its registry it would be taken for a name in another one.
        _ if has_domain(path) => repository,
        _ => path,
    }
}

fn is_domain(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(label) && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
}

/// Runs of lower-case letters and digits, parted by `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(|&b| alphanumeric(b)) && bytes.last().is_some_and(|&b| alphanumeric(b));
    ends && bytes.split(|&b| alphanumeric(b)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&b| b == b'-')
    })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= Name::TAG_BYTES_MAX
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// The shortest id prefix that is looked up.
const ID_PREFIX_MIN: usize = 4;

/// The hexadecimal digits of an id or of the start of one (`sha256:` may precede), else `None`.
pub fn id_prefix(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let hex = digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    (hex && (ID_PREFIX_MIN..=64).contains(&digits.len())).then_some(digits)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn arguments() {
        let parse = |text: &str| ImageRef::parse(OsStr::new(text));
        assert_eq!(parse("-"), ImageRef::Stdin);
        for path in ["/x", "./x", "../x", ".", "..", "./-"] {
            assert_eq!(parse(path), ImageRef::Path(path.into()));
        }
        for either in ["debian", "debian:12", "dir/rootfs.tar", ".hidden", "--x"] {
            assert_eq!(parse(either), ImageRef::NameOrPath(either.into()));
        }
    }

    #[test]
    fn names() {
        let parse = |text: &str| Name::parse(text).map(|name| name.0);
        assert_eq!(parse("debian").as_deref(), Ok("debian:latest"));
        assert_eq!(parse("debian:12-slim").as_deref(), Ok("debian:12-slim"));
        assert_eq!(parse("localhost:5000/a/b_c:V1").as_deref(), Ok("localhost:5000/a/b_c:V1"));
        for debian in ["docker.io/library/debian", "index.docker.io/library/debian", "library/debian"] {
            assert_eq!(parse(debian).as_deref(), Ok("debian:latest"), "{debian}");
        }
        assert_eq!(parse("docker.io/team/app:1").as_deref(), Ok("team/app:1"));
        for other in ["ghcr.io/library/debian:1", "library/team/app:1", "docker.io/localhost/app:1"] {
            assert_eq!(parse(other).as_deref(), Ok(other));
        }
        assert_eq!(parse("a--b/c__d.e").as_deref(), Ok("a--b/c__d.e:latest"));
        for bad in [
            "",
            ":",
            "a:",
            "a:-x",
            "A",
            "a/",
            "/a",
            "a//b",
            "a/B",
            ".a",
            "a.",
            "a..b",
            "a___b",
            "a b",
            "a\n",
            "../a",
            "a:b:c",
            "a@sha256:0",
            "x.y:port/a",
            "a%2Fb",
            "-",
            "é",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ids() {
        assert_eq!(id_prefix("sha256:abcd"), Some("abcd"));
        assert_eq!(id_prefix("0123abcd"), Some("0123abcd"));
        for no in ["abc", "xyzw", "ABCD", "sha256:", "sha512:abcd"] {
            assert_eq!(id_prefix(no), None, "{no}");
        }
        assert_eq!(id_prefix(&"a".repeat(65)), None);
    }

    proptest! {
        #[test]
        fn a_name_is_stable_and_its_file_name_is_one_plain_component(
            text in "((index[.])?docker[.]io/)?(library/)?[a-z0-9A-Z._/:-]{1,30}"
        ) {
            if let Ok(name) = Name::parse(&text) {
                prop_assert_eq!(&Name::parse(name.as_str()).unwrap(), &name);
                let file = name.file_name();
                prop_assert!(!file.contains('/') && !file.starts_with('.'));
                prop_assert_eq!(file.replace("%2F", "/"), format!("{name}.json"));
                prop_assert_eq!(Name::of_file(&file), Some(name));
            }
        }
    }
}
