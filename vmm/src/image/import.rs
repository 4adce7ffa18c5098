//! From an open archive to an image record and its layer files: the order of work.
//!
//! For each run of layers that becomes one file: unpack and verify, merge, adopt what the archive leaves out,
//! build, publish. Nothing is published before every digest has been checked. Called by [`super::store`], for
//! users other than root inside a user namespace ([`super::user_namespace`]).
#![forbid(unsafe_code)]

use balloon::wall_clock;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::blobs::{Blobs, Extent};
use super::compression::Compression;
use super::config::ImageConfig;
use super::container::{ContainerError, Contents, LayerBlob};
use super::digest::{Digest, Tally};
use super::erofs::Build;
use super::error::{Error, is_full};
use super::layer::{self, Unpacked, chained_key, empty_tar};
use super::limits::Budget;
use super::progress::{Event, Progress, Stage};
use super::records::ImageRecord;
use super::reference::Name;
use super::source::{NO_FILES, Source, Spool};
use super::stack::{self, Implicit};
use super::store::Store;
use super::tree::Tree;
use super::unpack::{Summary, UnpackError};
use super::workspace::{KeyLock, Workspace};
use super::{docker_archive, merge, oci_layout, records};

/// The latest time that an image gets: ext4's own limit, in the year 2446. Archives may claim any.
const NEWEST_MAX: i64 = (1 << 34) - 1 - (1 << 31);

/// Metadata in an image for each file, roughly, in bytes: an inode and a name.
const ENTRY_BYTES: u64 = 128;

/// An imported image and what its archive said about names.
#[derive(Debug)]
pub struct Imported {
    /// Written to the store.
    pub record: ImageRecord,
    /// What the archive calls it.
    pub names: Vec<Name>,
    /// Whether the wanted name decided which of several images it is.
    pub chosen: bool,
}

/// One import.
pub struct Import<'a> {
    /// Where to.
    pub store: &'a Store,
    /// What the user calls the source.
    pub what: &'a str,
    /// Who is told.
    pub progress: &'a dyn Progress,
    /// What all its layers together may come to.
    budget: Budget<'a>,
}

/// A layer unpacked, with what is known of it.
struct Staged {
    root: PathBuf,
    summary: Summary,
}

impl<'a> Import<'a> {
    /// An import of what the user calls `what`.
    pub fn new(store: &'a Store, what: &'a str, progress: &'a dyn Progress) -> Self {
        Self { store, what, progress, budget: Budget::new(store.limits()) }
    }

    /// Imports an open archive or OCI layout; `None` if it is the directory of a root file system.
    ///
    /// # Errors
    /// [`Error`]; the store is then as before, but for layers that were complete.
    pub fn run(&self, file: File, wanted: Option<&Name>) -> Result<Option<Imported>, Error> {
        let tmp = self.store.tmp();
        let spool = Spool { directory: &tmp, budget: &self.budget, progress: self.progress };
        let container = |source| Error::Container { what: self.what.to_owned(), source };
        let (contents, blobs) = match Source::detect(file, self.what, spool)? {
            Source::RootfsDirectory => return Ok(None),
            Source::RootfsTar { file, compression } => return self.rootfs_tar(file, compression).map(Some),
            Source::DockerArchive(blobs) => (docker_archive::read(&blobs, wanted).map_err(container)?, blobs),
            Source::OciLayout(blobs) => (oci_layout::read(&blobs, wanted).map_err(container)?, blobs),
        };
        let record = match self.store.cached(contents.id)? {
            Some(record) => record,
            None => {
                let layers = self.layers(&contents, &blobs)?;
                self.record(contents.id, contents.parsed.config, layers)?
            }
        };
        Ok(Some(Imported { record, names: contents.names, chosen: contents.chosen }))
    }

    /// Writes the record of an image whose layers are published.
    ///
    /// # Errors
    /// [`Error`] if it cannot be written.
    pub fn record(&self, id: Digest, config: ImageConfig, layers: Vec<Digest>) -> Result<ImageRecord, Error> {
        let created = wall_clock::since_1970().as_secs();
        let record = ImageRecord { id, created, source: self.what.to_owned(), config, layers };
        records::write(&self.store.image_path(id), &self.store.tmp(), &record)?;
        Ok(record)
    }

    fn rootfs_tar(&self, file: Arc<File>, compression: Compression) -> Result<Imported, Error> {
        let read = |source| Error::Read { what: self.what.to_owned(), source };
        let workspace = self.workspace()?;
        let extent = Extent::whole(file).map_err(read)?;
        let bytes = extent.length();
        let root = workspace.make_root("layer").map_err(|source| self.write_error(source, bytes))?;
        let Unpacked { summary, diff_id, .. } = self.unpack(extent, compression, &root, (1, 1))?;
        if summary.entries == 0 {
            return Err(Error::NotAnImage { what: self.what.to_owned(), found: NO_FILES });
        }
        self.report_omissions(&[&summary]);
        let key = if summary.implicit.is_empty() { diff_id } else { chained_key(&[], &[diff_id]) };
        if !self.store.has_layer(key) {
            self.build(&workspace, &Staged { root, summary }, key)?;
        }
        // Nothing but the content says what the image is: its id is that of the configuration it might have.
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [diff_id]}
        });
        let record =
            self.record(Digest::of(config.to_string().as_bytes()), ImageConfig::default(), vec![key])?;
        Ok(Imported { record, names: Vec::new(), chosen: false })
    }

    fn layers(&self, contents: &Contents, blobs: &Blobs) -> Result<Vec<Digest>, Error> {
        let layers: Vec<&LayerBlob> =
            contents.layers.iter().filter(|layer| layer.diff_id != empty_tar()).collect();
        let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id).collect();
        let layers: Vec<&LayerBlob> =
            merge::without_duplicates(&diff_ids).into_iter().map(|at| layers[at]).collect();
        let sizes: Vec<u64> = layers.iter().map(|layer| layer.bytes).collect();
        let mut keys = Vec::new();
        let mut chain = Vec::new();
        let mut summaries = Vec::new();
        for group in merge::plan_groups(&sizes, self.store.max_layers()) {
            let position = (group.start + 1, layers.len());
            let group = &layers[group];
            let group_ids: Vec<Digest> = group.iter().map(|layer| layer.diff_id).collect();
            keys.push(self.group(blobs, group, &chain, &keys, position, &mut summaries)?);
            chain.extend(group_ids);
        }
        self.report_omissions(&summaries.iter().collect::<Vec<_>>());
        self.drop_hidden(&mut keys)?;
        if keys.is_empty() {
            // A guest needs a root, and be it an empty one.
            let key = empty_tar();
            if !self.store.has_layer(key) {
                let workspace = self.workspace()?;
                let root = workspace.make_root("layer").map_err(|source| self.write_error(source, 0))?;
                self.build(&workspace, &Staged { root, summary: Summary::default() }, key)?;
            }
            keys.push(key);
        }
        Ok(keys)
    }

    /// Takes off the layers below the highest one that hides them all.
    fn drop_hidden(&self, keys: &mut Vec<Digest>) -> Result<(), Error> {
        for at in (1..keys.len()).rev() {
            let hides = stack::hides_all_below(&self.store.open_layer(keys[at])?);
            if hides.map_err(|source| self.stack_error(source))? {
                keys.drain(..at);
                break;
            }
        }
        Ok(())
    }

    /// Makes one file of neighbouring layers, if the store has it not: returns its key.
    fn group(
        &self,
        blobs: &Blobs,
        group: &[&LayerBlob],
        chain: &[Digest],
        below: &[Digest],
        (first, all): (usize, usize),
        summaries: &mut Vec<Summary>,
    ) -> Result<Digest, Error> {
        let diff_ids: Vec<Digest> = group.iter().map(|layer| layer.diff_id).collect();
        let own = if let [only] = diff_ids[..] { Some(only) } else { None };
        let chained = chained_key(chain, &diff_ids);
        let stored = || own.into_iter().chain([chained]).find(|&key| self.store.has_layer(key));
        if let Some(key) = stored() {
            return Ok(key);
        }
        let lock = own.unwrap_or(chained).hex();
        let wait = || self.progress.notice("waiting for another import of the same layer".to_owned());
        let _lock =
            KeyLock::take(&self.store.locks(), &lock, wait).map_err(|source| self.write_error(source, 0))?;
        if let Some(key) = stored() {
            return Ok(key);
        }
        let workspace = self.workspace()?;
        let mut staged: Option<Staged> = None;
        for (at, layer) in group.iter().enumerate() {
            let name = format!("layer{at}");
            let root = workspace.make_root(&name).map_err(|source| self.write_error(source, layer.bytes))?;
            let summary = self.unpack_blob(blobs, layer, &root, (first + at, all))?;
            staged = Some(match staged {
                None => Staged { root, summary },
                Some(lower) => {
                    let both = self.merge(lower, Staged { root, summary }, layer.bytes)?;
                    workspace.remove(&name).map_err(|source| self.write_error(source, 0))?;
                    both
                }
            });
        }
        let Some(mut staged) = staged else { return Ok(empty_tar()) };
        if group.len() > 1 {
            let tree = self.tree(&staged.root)?;
            stack::drop_idle_whiteouts(&tree, chain.is_empty()).map_err(|source| self.stack_error(source))?;
        }
        let key = own.filter(|_| staged.summary.implicit.is_empty()).unwrap_or(chained);
        if !staged.summary.implicit.is_empty() {
            let below = below.iter().map(|&key| self.store.open_layer(key)).collect::<Result<Vec<_>, _>>()?;
            let tree = self.tree(&staged.root)?;
            let newest = stack::adopt_attributes(&tree, &staged.summary.implicit, &below);
            staged.summary.newest =
                staged.summary.newest.max(newest.map_err(|source| self.stack_error(source))?);
        }
        self.build(&workspace, &staged, key)?;
        summaries.push(staged.summary);
        Ok(key)
    }

    fn merge(&self, mut lower: Staged, upper: Staged, bytes: u64) -> Result<Staged, Error> {
        let (low, high) = (self.tree(&lower.root)?, self.tree(&upper.root)?);
        let above: Implicit = upper.summary.implicit;
        stack::merge(&low, &high, &mut lower.summary.implicit, above).map_err(|source| match source {
            stack::StackError::Write { source, .. } if is_full(&source) => self.write_error(source, bytes),
            source => self.stack_error(source),
        })?;
        let summary = &mut lower.summary;
        summary.devices += upper.summary.devices;
        summary.xattrs += upper.summary.xattrs;
        summary.bytes += upper.summary.bytes;
        summary.entries += upper.summary.entries;
        summary.newest = summary.newest.max(upper.summary.newest);
        // Merging marks directories itself.
        summary.opaque = true;
        Ok(lower)
    }

    /// Unpacks a layer of a container archive and checks its digests.
    fn unpack_blob(
        &self,
        blobs: &Blobs,
        layer: &LayerBlob,
        root: &Path,
        position: (usize, usize),
    ) -> Result<Summary, Error> {
        let container = |source| Error::Container { what: self.what.to_owned(), source };
        let extent = blobs.open(&layer.name).map_err(container)?;
        let compression = layer::compression(extent.clone());
        let compression = compression.map_err(|source| Error::Read { what: self.what.to_owned(), source })?;
        let Unpacked { summary, diff_id, stored } = match self.unpack(extent, compression, root, position) {
            Ok(unpacked) => unpacked,
            Err(error @ Error::Archive { source: UnpackError::Tar(_), .. }) => {
                // Damage shows as nonsense first: name the cause.
                self.check_blob(blobs, layer, compression)?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        if let Some(expected) = layer.digest
            && expected != stored
        {
            let what = String::from_utf8_lossy(&layer.name).into_owned();
            return Err(container(ContainerError::Digest { what, expected, found: stored }));
        }
        if diff_id != layer.diff_id {
            return Err(Error::Layer { what: self.what.to_owned(), expected: layer.diff_id, found: diff_id });
        }
        Ok(summary)
    }

    /// Holds the bytes of a blob against whichever digest names them.
    fn check_blob(&self, blobs: &Blobs, layer: &LayerBlob, compression: Compression) -> Result<(), Error> {
        let plain = (compression == Compression::None).then_some(layer.diff_id);
        let Some(expected) = layer.digest.or(plain) else { return Ok(()) };
        let tally = Tally::hashing();
        let blob = blobs
            .open(&layer.name)
            .map_err(|source| Error::Container { what: self.what.to_owned(), source })?;
        let copied = io::copy(&mut tally.reader(blob), &mut io::sink());
        copied.map_err(|source| Error::Read { what: self.what.to_owned(), source })?;
        let found = tally.digest();
        if found == expected {
            return Ok(());
        }
        let what = String::from_utf8_lossy(&layer.name).into_owned();
        let source = ContainerError::Digest { what, expected, found };
        Err(Error::Container { what: self.what.to_owned(), source })
    }

    fn unpack(
        &self,
        extent: Extent,
        compression: Compression,
        root: &Path,
        (layer, layers): (usize, usize),
    ) -> Result<Unpacked, Error> {
        let bytes = extent.length();
        let stage = Stage::Unpack { layer, layers };
        self.progress.report(Event::Begin { stage, total_bytes: Some(bytes) });
        let unpacked = layer::unpack(extent, compression, root, &self.budget, self.progress);
        self.progress.report(Event::End);
        unpacked.map_err(|source| self.unpack_error(source, bytes))
    }

    /// Builds the image of a staged layer and publishes it.
    fn build(&self, workspace: &Workspace, staged: &Staged, key: Digest) -> Result<(), Error> {
        let summary = &staged.summary;
        let build = Build {
            directory: &staged.root,
            image: &workspace.path().join("image.erofs"),
            uuid: key.uuid(),
            newest: summary.newest.min(NEWEST_MAX),
            opaque: summary.opaque,
            expected_bytes: summary.bytes.saturating_add(summary.entries.saturating_mul(ENTRY_BYTES)),
        };
        self.publish_if(&build, key, || Ok(()))
    }

    /// Runs a build and, if `check` then agrees, moves the image to its place in the store; one that is there
    /// already stays.
    ///
    /// # Errors
    /// [`Error`].
    pub fn publish_if(
        &self,
        build: &Build<'_>,
        key: Digest,
        check: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        build.run(self.progress).map_err(|source| match source.is_disk_full() {
            true => Error::DiskFull {
                path: self.store.root().to_owned(),
                needed_bytes: Some(build.expected_bytes),
                source: source.into(),
            },
            false => Error::Build { what: self.what.to_owned(), source },
        })?;
        check()?;
        let path = self.store.layer_path(key);
        // A link does not replace: a running guest's image keeps being the one that new guests share.
        match fs::hard_link(build.image, &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(self.write_error(error, 0)),
            _ => records::sync_directory(&path).map_err(|source| self.write_error(source, 0)),
        }
    }

    /// A private directory on the store's file system.
    ///
    /// # Errors
    /// [`Error`].
    pub fn workspace(&self) -> Result<Workspace, Error> {
        Workspace::create(&self.store.tmp()).map_err(|source| self.write_error(source, 0))
    }

    fn tree(&self, root: &Path) -> Result<Tree, Error> {
        Tree::open(root).map_err(|source| self.write_error(source, 0))
    }
}
