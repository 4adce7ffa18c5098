//! What an image in a container archive consists of, and why an archive cannot be used.
//!
//! [`super::docker_archive`] and [`super::oci_layout`] read [`Contents`] out of [`super::blobs::Blobs`];
//! [`super::import`] then fetches the layers. Everything that a digest names is held against it.
#![forbid(unsafe_code)]

use std::io;

use thiserror::Error;

use super::blobs::MEMBERS_MAX;
use super::config::{self, ConfigError, PLATFORM, Parsed};
use super::digest::Digest;
use super::member::TarError;
use super::reference::Name;

/// Why a container archive cannot be used.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// The tar is no good.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// Too many members.
    #[error("the archive has more than {MEMBERS_MAX} members")]
    Members,
    /// A blob that is named and not there.
    #[error("the archive names {name:?} and does not hold it: it is incomplete")]
    Missing {
        /// The blob.
        name: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A blob that cannot be read.
    #[error("cannot read {name:?} in the archive")]
    Read {
        /// The blob.
        name: String,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// A document beyond any use.
    #[error("{name:?} in the archive has {bytes} bytes, too many for what it should be")]
    TooLarge {
        /// The blob.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// A document of the wrong shape.
    #[error("{name:?} in the archive is malformed")]
    Malformed {
        /// The blob.
        name: String,
        /// Where and how.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A digest that cannot be checked.
    #[error("the archive names a blob by {0:?}: only SHA-256 can be checked")]
    Algorithm(String),
    /// A blob that is not what it should be.
    #[error("{what} is damaged or not what it claims: expected {expected}, found {found}")]
    Digest {
        /// The blob.
        what: String,
        /// By the document that names it.
        expected: Digest,
        /// Of its bytes.
        found: Digest,
    },
    /// A blob of another length.
    #[error("{what} should have {expected} bytes and has {found}")]
    Size {
        /// The blob.
        what: String,
        /// By the document that names it.
        expected: u64,
        /// In the archive.
        found: u64,
    },
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Manifest and configuration disagree.
    #[error("the image's manifest has {manifest} layers, its configuration {config}")]
    Layers {
        /// In the manifest.
        manifest: usize,
        /// In the configuration.
        config: usize,
    },
    /// An image for another machine.
    #[error("the image is for {found}, and guests run {PLATFORM}")]
    Platform {
        /// What there is.
        found: String,
    },
    /// Several images and no choice.
    #[error("the archive holds several images {}", choice(names))]
    Ambiguous {
        /// Their names.
        names: String,
    },
    /// The chosen image is not there.
    #[error("the archive holds no image {wanted}, but several {}", choice(names))]
    NoSuchImage {
        /// The choice.
        wanted: Name,
        /// What there is.
        names: String,
    },
    /// No image at all.
    #[error("the archive holds no image")]
    Empty,
    /// More entries than can be meant.
    #[error("the archive's indices have too many entries: save the one image alone that you want")]
    Breadth,
    /// Indices within indices.
    #[error("the archive's indices are nested too deeply")]
    Depth,
}

/// How to choose among images called so.
fn choice(names: &str) -> String {
    if names.is_empty() {
        return "without names to choose by: save the one alone that you want".into();
    }
    format!("({names}): choose with `ballast image import --name NAME`")
}

/// One layer as an archive holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its name among the blobs.
    pub name: Vec<u8>,
    /// Of the bytes in the archive, compressed or not, if stated.
    pub digest: Option<Digest>,
    /// Bytes in the archive.
    pub bytes: u64,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
}

/// An image as an archive holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Digest of the configuration file: the image's id.
    pub id: Digest,
    /// The configuration.
    pub parsed: Parsed,
    /// Lowest first.
    pub layers: Vec<LayerBlob>,
    /// Names that the archive gives the image.
    pub names: Vec<Name>,
    /// Whether it was chosen among several by a name.
    pub chosen: bool,
}

/// Checks a configuration against its manifest and puts the two together.
///
/// # Errors
/// [`ContainerError`] when they disagree or the image is for another machine.
pub fn contents(
    config: &[u8],
    blobs: Vec<(Vec<u8>, Option<Digest>, u64)>,
) -> Result<Contents, ContainerError> {
    let parsed = config::parse(config)?;
    if parsed.platform != PLATFORM {
        return Err(ContainerError::Platform { found: parsed.platform });
    }
    if blobs.len() != parsed.diff_ids.len() {
        return Err(ContainerError::Layers { manifest: blobs.len(), config: parsed.diff_ids.len() });
    }
    let layers = blobs.into_iter().zip(&parsed.diff_ids);
    let layers =
        layers.map(|((name, digest, bytes), &diff_id)| LayerBlob { name, digest, bytes, diff_id }).collect();
    Ok(Contents { id: Digest::of(config), parsed, layers, names: Vec::new(), chosen: false })
}
