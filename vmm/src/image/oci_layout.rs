//! OCI image layouts: `index.json`, nested indices, manifests. Pure over [`Blobs`].
//!
//! Every document but the first is held against the digest that names it. Source: OCI image specification 1.1,
//! "Image Layout", "Image Index", "Image Manifest".
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use super::blobs::{Blobs, blob_name};
use super::config::{self, PLATFORM};
use super::container::{ContainerError, Contents, contents};
use super::digest::Digest;
use super::reference::Name;

/// The document that makes a directory or tar an OCI layout.
pub const LAYOUT: &[u8] = b"oci-layout";
/// The document that lists its images.
pub const INDEX: &[u8] = b"index.json";

/// Index in index in index.
const DEPTH_MAX: usize = 4;
/// More images, with all their names, than any archive has.
const ENTRIES_MAX: usize = 10_000;
/// Of all indices together, in bytes.
const INDEX_BYTES_MAX: usize = 32 << 20;
/// Full names by containerd and docker; only tags by most others.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A manifest that could be meant.
#[derive(Clone)]
struct Candidate {
    manifest: Descriptor,
    /// As the index says; unknown is left to the configuration.
    platform: Option<String>,
    /// What the index calls it, as spelled there.
    names: BTreeSet<String>,
}

/// Reads the image called `wanted`, or the only one for this machine.
///
/// # Errors
/// [`ContainerError`].
pub fn read(blobs: &Blobs, wanted: Option<&Name>) -> Result<Contents, ContainerError> {
    let (candidate, chosen) = choose(Search::run(blobs)?, wanted)?;
    let digest = digest(&candidate.manifest)?;
    let name = blob_name(digest);
    let manifest = blobs.verified(&name, digest, Some(candidate.manifest.size()))?;
    let manifest =
        ImageManifest::from_reader(manifest.as_slice()).map_err(|error| malformed(&name, error))?;
    let config_digest = self::digest(manifest.config())?;
    let config = blobs.verified(&blob_name(config_digest), config_digest, Some(manifest.config().size()))?;
    let mut layers = Vec::new();
    for layer in manifest.layers() {
        let digest = self::digest(layer)?;
        let found = blobs.open(&blob_name(digest))?.length();
        if found != layer.size() {
            let what = format!("layer {digest}");
            return Err(ContainerError::Size { what, expected: layer.size(), found });
        }
        layers.push((blob_name(digest), Some(digest), found));
    }
    let mut contents = contents(&config, layers)?;
    // A bare tag names no image.
    let full = candidate.names.iter().filter(|name| name.contains([':', '/']));
    contents.names = full.filter_map(|name| Name::parse(name).ok()).collect();
    contents.names.sort();
    contents.names.dedup();
    contents.chosen = chosen;
    Ok(contents)
}

fn parse_index(name: &[u8], bytes: &[u8]) -> Result<ImageIndex, ContainerError> {
    ImageIndex::from_reader(bytes).map_err(|error| malformed(name, error))
}

fn malformed(name: &[u8], error: oci_spec::OciSpecError) -> ContainerError {
    ContainerError::Malformed { name: String::from_utf8_lossy(name).into_owned(), source: error.into() }
}

fn digest(descriptor: &Descriptor) -> Result<Digest, ContainerError> {
    let text = descriptor.digest().to_string();
    text.parse().map_err(|_| ContainerError::Algorithm(text))
}

/// The manifests that an index leads to, and the indices to be read next.
#[derive(Default)]
struct Search {
    candidates: Vec<Candidate>,
    /// What an index is called, by its digest: it is read once, however many entries lead to it.
    ahead: BTreeMap<Digest, (Descriptor, BTreeSet<String>)>,
    /// Entries so far, each counted once for each of its names.
    entries: usize,
    /// Length of the indices so far.
    bytes: usize,
}

impl Search {
    /// Reads `INDEX` and what it leads to, level by level.
    fn run(blobs: &Blobs) -> Result<Vec<Candidate>, ContainerError> {
        let mut search = Self::default();
        search.read(INDEX, &blobs.document(INDEX)?, &BTreeSet::new())?;
        for _ in 0..DEPTH_MAX {
            for (digest, (descriptor, names)) in std::mem::take(&mut search.ahead) {
                let name = blob_name(digest);
                let index = blobs.verified(&name, digest, Some(descriptor.size()))?;
                search.read(&name, &index, &names)?;
            }
        }
        if search.ahead.is_empty() { Ok(search.candidates) } else { Err(ContainerError::Depth) }
    }

    fn read(&mut self, name: &[u8], index: &[u8], above: &BTreeSet<String>) -> Result<(), ContainerError> {
        self.bytes = self.bytes.saturating_add(index.len());
        if self.bytes > INDEX_BYTES_MAX {
            return Err(ContainerError::Breadth);
        }
        for descriptor in parse_index(name, index)?.manifests() {
            let kind = descriptor.media_type().to_string();
            let is_index = kind.contains("image.index") || kind.contains("manifest.list");
            if !is_index && !kind.contains("manifest") {
                continue;
            }
            let notes = descriptor.annotations().as_ref();
            let own = NAME_ANNOTATIONS.iter().filter_map(|&key| notes?.get(key));
            let own = own.filter(|name| name.len() <= Name::BYTES_MAX);
            let names: BTreeSet<String> = above.iter().chain(own).cloned().collect();
            self.entries = self.entries.saturating_add(names.len().max(1));
            if self.entries > ENTRIES_MAX {
                return Err(ContainerError::Breadth);
            }
            if is_index {
                let digest = digest(descriptor)?;
                let (_, known) = self.ahead.entry(digest).or_insert((descriptor.clone(), names.clone()));
                known.extend(names);
            } else {
                let platform = descriptor.platform().as_ref();
                let platform = platform.map(|p| config::platform(p.os(), p.architecture()));
                self.candidates.push(Candidate { manifest: descriptor.clone(), platform, names });
            }
        }
        Ok(())
    }
}

fn choose(
    mut candidates: Vec<Candidate>,
    wanted: Option<&Name>,
) -> Result<(Candidate, bool), ContainerError> {
    // Attestations stand beside images under a platform that is none.
    candidates.retain(|candidate| candidate.platform.as_deref() != Some("unknown/unknown"));
    if candidates.is_empty() {
        return Err(ContainerError::Empty);
    }
    let list = |field: &dyn Fn(&Candidate) -> Vec<String>| {
        let mut all: Vec<String> = candidates.iter().flat_map(field).collect();
        all.sort();
        all.dedup();
        all.join(", ")
    };
    let platforms = list(&|candidate| candidate.platform.iter().cloned().collect());
    let names = list(&|candidate| candidate.names.iter().cloned().collect());
    candidates.retain(|candidate| candidate.platform.as_deref().is_none_or(|platform| platform == PLATFORM));
    // An image stands there once for each of its names.
    let mut images: BTreeMap<String, Candidate> = BTreeMap::new();
    for mut candidate in candidates {
        let names = std::mem::take(&mut candidate.names);
        let digest = candidate.manifest.digest().to_string();
        images.entry(digest).or_insert(candidate).names.extend(names);
    }
    let chosen = images.len() > 1;
    if chosen {
        let Some(wanted) = wanted else { return Err(ContainerError::Ambiguous { names }) };
        let is_wanted = |name: &String| Name::parse(name).is_ok_and(|name| name == *wanted);
        images.retain(|_, image| image.names.iter().any(is_wanted));
        match images.len() {
            0 => return Err(ContainerError::NoSuchImage { wanted: wanted.clone(), names }),
            1 => {}
            _ => return Err(ContainerError::Ambiguous { names }),
        }
    }
    let (_, image) = images.pop_first().ok_or(ContainerError::Platform { found: platforms })?;
    Ok((image, chosen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(content: &str, platform: Option<&str>, names: &[&str]) -> Candidate {
        let digest = oci_spec::image::Digest::try_from(Digest::of(content.as_bytes()).to_string()).unwrap();
        Candidate {
            manifest: Descriptor::new(oci_spec::image::MediaType::ImageManifest, 1, digest),
            platform: platform.map(str::to_owned),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }

    fn choice(candidates: Vec<Candidate>, wanted: Option<&str>) -> Result<String, ContainerError> {
        let wanted = wanted.map(|name| Name::parse(name).unwrap());
        choose(candidates, wanted.as_ref()).map(|(candidate, _)| candidate.manifest.digest().to_string())
    }

    #[test]
    fn platform_decides_first() {
        let all = || {
            vec![
                candidate("arm", Some("linux/arm64"), &[]),
                candidate("x86", Some(PLATFORM), &[]),
                candidate("note", Some("unknown/unknown"), &[]),
            ]
        };
        assert_eq!(choice(all(), None).unwrap(), Digest::of(b"x86").to_string());
        let mut others = all();
        others.remove(1);
        assert!(
            matches!(choice(others, None), Err(ContainerError::Platform { found }) if found == "linux/arm64")
        );
        assert!(matches!(choice(all().split_off(2), None), Err(ContainerError::Empty)));
    }

    /// An OCI layout of these indices, the last of which is the first to be read.
    fn search(indices: &[serde_json::Value]) -> Result<Vec<Candidate>, ContainerError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        for index in indices {
            let bytes = index.to_string();
            std::fs::write(dir.path().join("index.json"), &bytes).unwrap();
            let blob = format!("blobs/sha256/{}", Digest::of(bytes.as_bytes()).hex());
            std::fs::write(dir.path().join(blob), &bytes).unwrap();
        }
        Search::run(&Blobs::Directory(std::fs::File::open(dir.path()).unwrap().into()))
    }

    fn index(entries: Vec<serde_json::Value>) -> serde_json::Value {
        serde_json::json!({"schemaVersion": 2, "manifests": entries})
    }

    fn entry(kind: &str, content: &str, name: &str) -> serde_json::Value {
        serde_json::json!({
            "mediaType": format!("application/vnd.oci.image.{kind}.v1+json"),
            "digest": Digest::of(content.as_bytes()).to_string(), "size": content.len(),
            "annotations": {"org.opencontainers.image.ref.name": name}
        })
    }

    #[test]
    fn an_index_is_read_once_whatever_leads_to_it() {
        let images = index(vec![entry("manifest", "one", "a"), entry("manifest", "two", "b")]);
        let twice = ["c", "d"].map(|name| entry("index", &images.to_string(), name));
        let found = search(&[images, index(twice.to_vec())]).unwrap();
        let names: Vec<String> =
            found.iter().map(|image| image.names.iter().cloned().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(names, ["a c d", "b c d"]);
        // A hundred million ways.
        let mut indices = vec![index(vec![entry("manifest", "one", "a")])];
        for _ in 0..DEPTH_MAX {
            let below = indices.last().unwrap().to_string();
            indices.push(index(vec![entry("index", &below, "a"); 100]));
        }
        assert_eq!(search(&indices).unwrap().len(), 1);
        let below = indices.last().unwrap().to_string();
        indices.push(index(vec![entry("index", &below, "a")]));
        assert!(matches!(search(&indices), Err(ContainerError::Depth)));
    }

    #[test]
    fn entries_and_their_names_are_bounded() {
        let many = |count| index(vec![entry("manifest", "one", "a"); count]);
        assert_eq!(search(&[many(ENTRIES_MAX)]).unwrap().len(), ENTRIES_MAX);
        assert!(matches!(search(&[many(ENTRIES_MAX + 1)]), Err(ContainerError::Breadth)));
        let images = many(100);
        let named = (0..100).map(|n| entry("index", &images.to_string(), &n.to_string())).collect();
        assert!(matches!(search(&[images, index(named)]), Err(ContainerError::Breadth)));
        let long = index(vec![entry("manifest", "one", &"a".repeat(Name::BYTES_MAX + 1))]);
        assert!(search(&[long]).unwrap()[0].names.is_empty(), "it can be no name");
    }

    #[test]
    fn then_the_name() {
        let all = || vec![candidate("1", None, &["app:1"]), candidate("2", Some(PLATFORM), &["app:2"])];
        assert!(
            matches!(choice(all(), None), Err(ContainerError::Ambiguous { names }) if names == "app:1, app:2")
        );
        assert_eq!(choice(all(), Some("app:2")).unwrap(), Digest::of(b"2").to_string());
        assert!(matches!(choice(all(), Some("app:3")), Err(ContainerError::NoSuchImage { .. })));
        let twice = vec![candidate("1", None, &["a"]), candidate("1", None, &["b"])];
        let (image, chosen) = choose(twice.clone(), None).unwrap();
        assert_eq!(image.manifest.digest().to_string(), Digest::of(b"1").to_string());
        assert!(!chosen, "one image under two names");
        for name in ["a", "b"] {
            assert!(image.names.iter().any(|given| given == name), "{:?}", image.names);
        }
        let three = [twice, vec![candidate("2", None, &["c"])]].concat();
        assert_eq!(choice(three.clone(), Some("a")).unwrap(), Digest::of(b"1").to_string());
        assert_eq!(choice(three, Some("docker.io/library/b")).unwrap(), Digest::of(b"1").to_string());
    }
}
