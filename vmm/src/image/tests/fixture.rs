//! Builders of archives and readers of what came of them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use serde_json::{Value, json};
use tar::{EntryType, Header};

use crate::image::digest::Digest;
use crate::image::erofs_image::{ErofsImage, Inode, xattr_index};
use crate::image::error::Error;
use crate::image::progress::{Event, Progress};
use crate::image::store::{Image, Origin, Store};

/// Whether files of any owner can be made; says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: importing in this process needs root");
    }
    root
}

/// A tar under construction; names are written as given, however bad.
#[derive(Clone, Default)]
pub struct Tar(pub Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(name: &[u8], kind: EntryType, size: u64) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header
    }

    pub fn raw(mut self, mut header: Header, data: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, name: &str, data: &str) -> Self {
        self.raw(Self::header(name.as_bytes(), EntryType::Regular, data.len() as u64), data.as_bytes())
    }

    pub fn directory(self, name: &str, mode: u32) -> Self {
        let mut header = Self::header(name.as_bytes(), EntryType::Directory, 0);
        header.set_mode(mode);
        self.raw(header, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Self {
        self.link(name, target, EntryType::Symlink)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Self {
        self.link(name, target, EntryType::Link)
    }

    fn link(self, name: &str, target: &str, kind: EntryType) -> Self {
        let mut header = Self::header(name.as_bytes(), kind, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().copied()).unwrap();
        let bytes = builder.into_inner().unwrap();
        self.0.extend_from_slice(&bytes[..bytes.len() - 1024]);
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(1)).unwrap();
    writer.write_all(bytes).unwrap();
    writer.finish().unwrap()
}

/// A configuration for these uncompressed layers.
pub fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    json!({
        "architecture": "amd64", "os": "linux",
        "config": {"Cmd": ["/bin/app"], "Env": ["A=b"], "WorkingDir": "/srv", "User": "1000"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}
    })
    .to_string()
    .into_bytes()
}

fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Tar::new();
    for (name, data) in files {
        tar = tar.raw(Tar::header(name.as_bytes(), EntryType::Regular, data.len() as u64), data);
    }
    tar.end()
}

/// A `docker save` archive in the old layout: `<id>.json`, `<n>/layer.tar`.
pub fn docker_archive(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let config = config(layers);
    let config_name = format!("{}.json", Digest::of(&config).hex());
    let place = |at: usize| Digest::of(&[at as u8]).hex();
    let mut files = vec![(config_name.clone(), config)];
    let mut names = Vec::new();
    for (at, layer) in layers.iter().enumerate() {
        names.push(format!("{}/layer.tar", place(at)));
        files.push((names[at].clone(), layer.clone()));
    }
    let manifest = json!([{"Config": config_name, "RepoTags": tags, "Layers": names}]);
    files.push(("manifest.json".into(), manifest.to_string().into_bytes()));
    archive(&files)
}

/// The files of an OCI layout with one image: `blobs` are the layers as stored.
pub fn oci_files(layers: &[Vec<u8>], blobs: &[Vec<u8>]) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    let mut put = |bytes: &[u8], kind: &str| -> Value {
        let digest = Digest::of(bytes);
        files.push((format!("blobs/sha256/{}", digest.hex()), bytes.to_vec()));
        json!({"mediaType": kind, "digest": digest.to_string(), "size": bytes.len()})
    };
    let config = put(&config(layers), "application/vnd.oci.image.config.v1+json");
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers: Vec<Value> = blobs.iter().map(|blob| put(blob, kind)).collect();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers});
    let mut manifest = put(manifest.to_string().as_bytes(), kind);
    manifest["platform"] = json!({"os": "linux", "architecture": "amd64"});
    // As buildx writes it: an index in the index, an attestation beside the image.
    let mut note = put(b"{}", kind);
    note["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let kind = "application/vnd.oci.image.index.v1+json";
    let nested = json!({"schemaVersion": 2, "mediaType": kind, "manifests": [note, manifest]});
    let mut nested = put(nested.to_string().as_bytes(), kind);
    nested["annotations"] = json!({"io.containerd.image.name": "docker.io/library/app:1"});
    let index = json!({"schemaVersion": 2, "manifests": [nested]});
    files.push(("index.json".into(), index.to_string().into_bytes()));
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    files
}

/// A `docker save` archive by docker 25 and newer: one set of blobs, an OCI layout's index that names the image once
/// for each tag, and the old manifest beside it.
pub fn docker25_archive(layers: &[Vec<u8>], tags: &[&str]) -> Vec<u8> {
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let describe = |bytes: &[u8], kind: &str| -> Value {
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": Digest::of(bytes).to_string(), "size": bytes.len()})
    };
    let config = config(layers);
    let described: Vec<Value> = layers.iter().map(|layer| describe(layer, "layer.v1.tar")).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe(&config, "config.v1+json"), "layers": described
    });
    let manifest = manifest.to_string().into_bytes();
    let entry = describe(&manifest, "manifest.v1+json");
    let named = |tag: &&str| {
        let mut entry = entry.clone();
        entry["annotations"] = json!({
            "io.containerd.image.name": format!("docker.io/library/{tag}"),
            "org.opencontainers.image.ref.name": tag.rsplit(':').next()
        });
        entry
    };
    let entries = if tags.is_empty() { vec![entry.clone()] } else { tags.iter().map(named).collect() };
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": entries
    });
    let places: Vec<String> = layers.iter().map(|layer| blob(layer)).collect();
    let items = json!([{"Config": blob(&config), "RepoTags": tags, "Layers": places}]);
    let mut files: Vec<(String, Vec<u8>)> = layers.iter().map(|layer| (blob(layer), layer.clone())).collect();
    files.extend([(blob(&config), config), (blob(&manifest), manifest)]);
    files.push(("index.json".into(), index.to_string().into_bytes()));
    files.push(("manifest.json".into(), items.to_string().into_bytes()));
    files.push(("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()));
    archive(&files)
}

pub fn oci_tar(layers: &[Vec<u8>], blobs: &[Vec<u8>]) -> Vec<u8> {
    archive(&oci_files(layers, blobs))
}

pub fn oci_directory(root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Log(pub RefCell<Vec<Event>>);

impl Progress for Log {
    fn report(&self, event: Event) {
        self.0.borrow_mut().push(event);
    }
}

impl Log {
    pub fn notices(&self) -> Vec<String> {
        let events = self.0.borrow();
        let notice =
            |event: &Event| if let Event::Notice { text } = event { Some(text.clone()) } else { None };
        events.iter().filter_map(notice).collect()
    }
}

/// A data directory and a place for sources beside it.
pub struct Bench {
    pub directory: tempfile::TempDir,
    pub store: Store,
    pub log: Log,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_layers(8)
    }

    pub fn with_layers(max_layers: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("data"), max_layers).unwrap();
        Self { directory, store, log: Log::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    pub fn import(&self, path: &Path) -> Result<Image, Error> {
        self.store.import(Origin::Path(path), None, &self.log)
    }

    pub fn import_bytes(&self, bytes: &[u8]) -> Result<Image, Error> {
        self.import(&self.write("source", bytes))
    }

    /// Names in a directory of the store.
    pub fn stored(&self, directory: &str) -> Vec<String> {
        let read = fs::read_dir(self.path("data").join(directory)).unwrap();
        read.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Nothing published, nothing left lying.
    pub fn assert_empty(&self) {
        for directory in ["layers", "images", "names", "memo", "locks", "tmp"] {
            assert_eq!(self.stored(directory), [""; 0], "{directory}");
        }
    }
}

/// An error with its causes, as a user sees it.
pub fn told(error: &dyn std::error::Error) -> String {
    let chain: Vec<String> =
        std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect();
    chain.join(": ")
}

/// An entry of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub inode: Inode,
    pub data: Vec<u8>,
    /// Prefix number, name, value.
    pub xattrs: Vec<(u8, Vec<u8>, Vec<u8>)>,
    /// For hard links: the inode's number.
    pub number: u64,
}

impl Node {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.data).unwrap()
    }

    pub fn is_opaque(&self) -> bool {
        self.xattrs.contains(&(xattr_index::TRUSTED, b"overlay.opaque".to_vec(), b"y".to_vec()))
    }
}

pub type Contents = BTreeMap<PathBuf, Node>;

/// Everything in an image file.
pub fn read(file: &File) -> Contents {
    let image = ErofsImage::open(file).unwrap();
    let mut contents = Contents::new();
    let mut pending = vec![(PathBuf::new(), image.root())];
    while let Some((path, number)) = pending.pop() {
        let inode = image.inode(number).unwrap();
        let xattrs = image.xattrs(&inode).unwrap();
        let xattrs = xattrs.into_iter().map(|xattr| (xattr.index, xattr.name, xattr.value)).collect();
        let mut data = Vec::new();
        match inode.file_type() {
            FileType::Directory => {
                for (name, child) in image.directory(&inode).unwrap() {
                    pending.push((path.join(OsStr::from_bytes(&name)), child));
                }
            }
            FileType::RegularFile | FileType::Symlink => {
                data = image.read_data(&inode, 0, inode.size).unwrap()
            }
            _ => {}
        }
        contents.insert(path, Node { inode, data, xattrs, number });
    }
    contents
}

/// What overlayfs would show of all layers: paths and the data of files.
pub fn view(image: &Image) -> BTreeMap<String, String> {
    let mut shown: BTreeMap<PathBuf, Node> = BTreeMap::new();
    for layer in &image.layers {
        let contents = read(&layer.file);
        for (path, node) in contents {
            let is_directory = node.inode.file_type() == FileType::Directory;
            let was_directory =
                shown.get(&path).is_some_and(|old| old.inode.file_type() == FileType::Directory);
            if !(is_directory && was_directory && !node.is_opaque()) {
                shown.retain(|old, _| !old.starts_with(&path) || old == &path);
            }
            if node.inode.is_whiteout() {
                shown.remove(&path);
            } else {
                shown.insert(path, node);
            }
        }
    }
    shown.remove(Path::new(""));
    shown
        .into_iter()
        .map(|(path, node)| {
            (path.to_string_lossy().into_owned(), String::from_utf8_lossy(&node.data).into_owned())
        })
        .collect()
}
