//! What goes wrong between an IMAGE argument and its layers, in the user's words.
#![forbid(unsafe_code)]

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::container::ContainerError;
use super::digest::Digest;
use super::entry::LayerPath;
use super::erofs::BuildError;
use super::reference::{Name, NameError};
use super::stack::StackError;
use super::unpack::UnpackError;
use super::user_namespace::NamespaceError;

/// Why there is no image. Messages say what to do where the user can do something; causes are in the chain.
#[derive(Debug, Error)]
pub enum Error {
    /// Neither imported nor there.
    #[error(
        "there is no imported image and no file called {0:?}: import one (`ballast image import FILE --name NAME`), \
         or fetch an archive first, as in `skopeo copy docker://debian docker-archive:debian.tar`"
    )]
    NotFound(String),
    /// No such path.
    #[error("cannot open {path:?}")]
    Open {
        /// As the user wrote it.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A file of another kind.
    #[error("{what:?} is no image: {found}")]
    NotAnImage {
        /// As the user wrote it.
        what: String,
        /// What it is.
        found: &'static str,
    },
    /// Reading failed.
    #[error("cannot read {what:?}")]
    Read {
        /// As the user wrote it.
        what: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// An archive that cannot be unpacked.
    #[error("{what:?} cannot be used")]
    Archive {
        /// As the user wrote it.
        what: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// An owner that only root or a wider user namespace may give.
    #[error("{path} in {what:?} belongs to {uid}:{gid}, and owners are never changed: {remedy}")]
    Owner {
        /// As the user wrote it.
        what: String,
        /// The entry.
        path: LayerPath,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What to do.
        remedy: String,
    },
    /// A container archive that cannot be used.
    #[error("{what:?} cannot be used")]
    Container {
        /// As the user wrote it.
        what: String,
        /// Why.
        #[source]
        source: ContainerError,
    },
    /// A layer that is not what the image's configuration says.
    #[error("a layer of {what:?} is damaged: its content should be {expected} and is {found}")]
    Layer {
        /// As the user wrote it.
        what: String,
        /// By the configuration.
        expected: Digest,
        /// Of what was unpacked.
        found: Digest,
    },
    /// Layers that cannot be put together.
    #[error("the layers of {what:?} cannot be merged")]
    Stack {
        /// As the user wrote it.
        what: String,
        /// Why.
        #[source]
        source: StackError,
    },
    /// No EROFS image.
    #[error("cannot build the file system image of {what:?}")]
    Build {
        /// As the user wrote it.
        what: String,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// A file or directory that did not keep still.
    #[error("{0:?} changed while it was read: try again when nothing writes to it")]
    Changed(String),
    /// An image that did not stay until it was opened.
    #[error("the image of {0:?} was removed while it was imported: try again when nothing removes images")]
    Removed(String),
    /// A directory that cannot be read as it is.
    #[error("{path:?} cannot be imported: {reason}")]
    Directory {
        /// The offending path.
        path: PathBuf,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// The data directory.
    #[error("cannot write to {path:?}")]
    Write {
        /// Where.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The disk is full.
    #[error("the disk that holds {path:?} is full{}: free some, or set BALLAST_DATA to a directory elsewhere",
        needed_bytes.map_or_else(String::new, |bytes| format!(" (about {} MiB were needed)", bytes.div_ceil(1 << 20))))]
    DiskFull {
        /// Where.
        path: PathBuf,
        /// An estimate.
        needed_bytes: Option<u64>,
        /// The system's word.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of the store that is not what it should be.
    #[error("{path:?} is damaged: remove it and import the image again")]
    Record {
        /// Where.
        path: PathBuf,
        /// How.
        #[source]
        source: serde_json::Error,
    },
    /// An image whose layer is gone.
    #[error("the image lacks {0:?}: import it again")]
    LayerMissing(PathBuf),
    /// Something that is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A name or id that is not there.
    #[error("there is no imported image {0:?}: `ballast image ls` lists them")]
    NoSuchImage(String),
    /// The start of several ids.
    #[error("{0:?} is the start of several images' ids: give more of it")]
    AmbiguousId(String),
    /// An image that has more names than can be meant.
    #[error("image {id} has several names ({}): remove those", join(names))]
    SeveralNames {
        /// The image.
        id: Digest,
        /// Its names.
        names: Vec<Name>,
    },
    /// The user namespace of an import by another user than root.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
}

impl Error {
    /// [`Error::Write`], or [`Error::DiskFull`] where that is the cause.
    pub fn write(path: &Path, source: io::Error, needed_bytes: Option<u64>) -> Self {
        match is_full(&source) {
            true => Self::DiskFull { path: path.to_owned(), needed_bytes, source: source.into() },
            false => Self::Write { path: path.to_owned(), source },
        }
    }
}

/// Whether this is for want of space.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn join(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}
