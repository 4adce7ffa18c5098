//! `-v NAME:/PATH[:ro]` and `--disk FILE[:ro]` as the user types them.
//!
//! Pure: whether the volume or file exists is found out elsewhere.

#![forbid(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Most characters of a volume's name.
pub const MAX_NAME: usize = 64;

/// The name of a volume: a letter or digit, then letters, digits, `_`, `.` and `-`, as docker's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VolumeName(String);

impl VolumeName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for VolumeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was typed is no volume, no place for one, or no disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// A host path where a volume's name belongs.
    #[error(
        "-v {0}: directories of the host are not shared with a microVM; name a volume, as in \
         -v data:/data, or attach a disk image with --disk FILE"
    )]
    HostPath(String),
    /// A path in the guest and nothing else.
    #[error("-v {0}: a volume needs a name, as in -v data:{0}")]
    Nameless(String),
    /// A name and nothing else.
    #[error("-v {0}: say where the volume is to be mounted, as in -v {0}:/data")]
    Placeless(String),
    /// Characters or a length that a name may not have.
    #[error(
        "'{0}' is no name for a volume: use up to {MAX_NAME} letters, digits, '_', '.' and '-', \
         beginning with a letter or digit"
    )]
    Name(String),
    /// The path in the guest is relative, the root itself, or goes upwards.
    #[error(
        "-v {argument}: '{path}' is no place for a volume; give an absolute path in the guest below /, \
         without '..'"
    )]
    Place {
        /// What was typed.
        argument: String,
        /// The path in it.
        path: String,
    },
    /// The guest has something of its own there.
    #[error("-v {argument}: the guest has its own {path}; mount the volume elsewhere, such as at /data")]
    Reserved {
        /// What was typed.
        argument: String,
        /// What is there.
        path: &'static str,
    },
    /// Two volumes at one place.
    #[error("-v {0}: another volume is mounted at this place already; give each its own")]
    Twice(String),
    /// Something other than `ro` and `rw` after the path.
    #[error("-v {argument}: unknown option '{option}'; there are ro (read only) and rw")]
    Option {
        /// What was typed.
        argument: String,
        /// The option in it.
        option: String,
    },
    /// No file is named.
    #[error("--disk '{0}': name a raw disk image or a block device, as in --disk FILE or --disk FILE:ro")]
    NoFile(String),
}

impl FromStr for VolumeName {
    type Err = ArgumentError;

    /// # Errors
    /// [`ArgumentError::Name`].
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
        let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if first && rest && text.len() <= MAX_NAME {
            Ok(Self(text.into()))
        } else {
            Err(ArgumentError::Name(text.into()))
        }
    }
}

/// A volume and its place in the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeArgument {
    /// Which volume.
    pub name: VolumeName,
    /// Where it is mounted: an absolute path below the root.
    pub place: CString,
    /// The guest may not change it.
    pub read_only: bool,
}

impl VolumeArgument {
    /// Reads `NAME:/PATH[:ro]`. What follows a colon in the last part of the path is taken for an option.
    ///
    /// # Errors
    /// The argument names no volume, or no place for it.
    pub fn parse(argument: &OsStr) -> Result<Self, ArgumentError> {
        let whole = argument.to_string_lossy();
        let bytes = argument.as_bytes();
        let Some(colon) = bytes.iter().position(|&byte| byte == b':') else {
            return Err(match bytes.first() {
                Some(b'/') => ArgumentError::Nameless(whole.into()),
                _ if looks_like_path(bytes) => ArgumentError::HostPath(whole.into()),
                _ => ArgumentError::Placeless(VolumeName::from_str(&whole)?.0),
            });
        };
        let (name, rest) = (&bytes[..colon], &bytes[colon + 1..]);
        if looks_like_path(name) {
            return Err(ArgumentError::HostPath(whole.into()));
        }
        let name = VolumeName::from_str(&String::from_utf8_lossy(name))?;
        let (path, read_only) = split_mode(rest);
        let text = String::from_utf8_lossy(path);
        // A path with another option after it is more likely than one that ends in ":something".
        if let Some((_, option)) = text.rsplit_once(':').filter(|(_, option)| !option.contains('/')) {
            return Err(ArgumentError::Option { argument: whole.into(), option: option.into() });
        }
        if let Some(path) = reserved(path) {
            return Err(ArgumentError::Reserved { argument: whole.into(), path });
        }
        let place = CString::new(path).ok().filter(|_| is_place(path));
        let refused = || ArgumentError::Place { argument: whole.clone().into(), path: text.into() };
        Ok(Self { name, place: place.ok_or_else(refused)?, read_only })
    }

    /// Reads all of a command line's.
    ///
    /// # Errors
    /// That of the first that is wrong, or has the place of one before it.
    pub fn parse_all(arguments: &[OsString]) -> Result<Vec<Self>, ArgumentError> {
        let mut all: Vec<Self> = Vec::new();
        for argument in arguments {
            let volume = Self::parse(argument)?;
            let is_there = |other: &Self| parts(other.place.as_bytes()).eq(parts(volume.place.as_bytes()));
            if all.iter().any(is_there) {
                return Err(ArgumentError::Twice(argument.to_string_lossy().into()));
            }
            all.push(volume);
        }
        Ok(all)
    }
}

/// A raw disk image or block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskArgument {
    /// The file on the host.
    pub path: PathBuf,
    /// The guest may not change it.
    pub read_only: bool,
}

impl DiskArgument {
    /// Reads `FILE[:ro]`. A file whose name ends in `:ro` is reached by adding `:rw`.
    ///
    /// # Errors
    /// No file is named.
    pub fn parse(argument: &OsStr) -> Result<Self, ArgumentError> {
        let (path, read_only) = split_mode(argument.as_bytes());
        if path.is_empty() {
            return Err(ArgumentError::NoFile(argument.to_string_lossy().into()));
        }
        Ok(Self { path: Path::new(OsStr::from_bytes(path)).into(), read_only })
    }
}

/// Splits a last `:ro` or `:rw` off.
fn split_mode(bytes: &[u8]) -> (&[u8], bool) {
    if let Some(path) = bytes.strip_suffix(b":ro") {
        (path, true)
    } else {
        (bytes.strip_suffix(b":rw").unwrap_or(bytes), false)
    }
}

fn looks_like_path(bytes: &[u8]) -> bool {
    bytes.contains(&b'/') || bytes.starts_with(b".") || bytes.starts_with(b"~")
}

/// The kernel's file systems: nothing can be made in the first two, and the guest's devices are the third.
fn reserved(path: &[u8]) -> Option<&'static str> {
    let mut parts = parts(path);
    match (parts.next(), parts.next()) {
        (Some(b"proc"), _) => Some("/proc"),
        (Some(b"sys"), _) => Some("/sys"),
        (Some(b"dev"), None) => Some("/dev"),
        _ => None,
    }
}

/// The names in a path.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && part != b".")
}

fn is_place(path: &[u8]) -> bool {
    let mut parts = parts(path).peekable();
    path.starts_with(b"/") && parts.peek().is_some() && parts.all(|part| part != b"..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn volume(text: &str) -> Result<VolumeArgument, ArgumentError> {
        VolumeArgument::parse(OsStr::new(text))
    }

    #[test]
    fn volumes() {
        for (text, name, place, read_only) in [
            ("data:/data", "data", c"/data", false),
            ("data:/data:ro", "data", c"/data", true),
            ("data:/data:rw", "data", c"/data", false),
            ("0.a_b-C:/var/lib/x y", "0.a_b-C", c"/var/lib/x y", false),
            ("d:/a:b/c:ro", "d", c"/a:b/c", true),
            ("d://a/./b/", "d", c"//a/./b/", false),
        ] {
            let wanted = VolumeArgument { name: VolumeName(name.into()), place: place.into(), read_only };
            assert_eq!(volume(text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_remedy() {
        for (text, remedy) in [
            ("/home/me:/data", "--disk"),
            ("./here:/data", "--disk"),
            ("..:/data", "--disk"),
            ("~/x:/data", "--disk"),
            ("./here", "--disk"),
            ("/data", "-v data:/data"),
            ("data", "-v data:/data"),
            (":/data", "no name"),
            ("a b:/data", "no name"),
            ("-v:/data", "no name"),
            ("data:relative", "absolute path"),
            ("data:", "absolute path"),
            ("data:/", "below /"),
            ("data://.", "below /"),
            ("data:/a/../b", "without '..'"),
            ("data:/a:z", "unknown option 'z'"),
            ("data:/a:ro,z", "unknown option 'ro,z'"),
            ("data:/a:ro:ro", "unknown option 'ro'"),
            ("data:/a\0b", "no place"),
            ("data:/proc", "its own /proc"),
            ("data:/proc/x:ro", "its own /proc"),
            ("data:/./sys/", "its own /sys"),
            ("data:/dev", "its own /dev"),
        ] {
            let message = volume(text).unwrap_err().to_string();
            assert!(message.contains(remedy), "{text}: {message}");
        }
        assert!(volume(&format!("{}:/d", "n".repeat(MAX_NAME))).is_ok());
        assert!(volume(&format!("{}:/d", "n".repeat(MAX_NAME + 1))).is_err());
    }

    #[test]
    fn each_volume_has_a_place_of_its_own() {
        let all =
            |texts: &[&str]| VolumeArgument::parse_all(&texts.iter().map(OsString::from).collect::<Vec<_>>());
        assert_eq!(all(&["a:/x", "b:/x/y", "c:/dev/shm"]).unwrap().len(), 3);
        for twice in ["b:/x", "b://x/./:ro"] {
            assert_eq!(all(&["a:/x", twice]), Err(ArgumentError::Twice(twice.into())));
        }
    }

    #[test]
    fn disks() {
        for (text, path, read_only) in [
            ("disk.img", "disk.img", false),
            ("/dev/sdb:ro", "/dev/sdb", true),
            ("a:b", "a:b", false),
            ("odd:ro:rw", "odd:ro", false),
        ] {
            let wanted = DiskArgument { path: path.into(), read_only };
            assert_eq!(DiskArgument::parse(OsStr::new(text)), Ok(wanted), "{text}");
        }
        assert!(DiskArgument::parse(OsStr::new("")).is_err());
        assert!(DiskArgument::parse(OsStr::new(":ro")).is_err());
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_a_name_below_a_directory_and_an_absolute_path(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(&b"a.:/ro"[..])], 0..20),
        ) {
            let _ = DiskArgument::parse(OsStr::from_bytes(&bytes));
            if let Ok(volume) = VolumeArgument::parse(OsStr::from_bytes(&bytes)) {
                prop_assert!(!volume.name.as_str().contains('/') && !volume.name.as_str().starts_with('.'));
                prop_assert!(volume.place.as_bytes().starts_with(b"/"));
            }
        }
    }
}
