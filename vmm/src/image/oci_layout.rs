//! OCI image layouts: `index.json`, nested indices, manifests. Pure over [`Blobs`].
//!
//! Every document but the first is held against the digest that names it. Source: OCI image specification 1.1,
//! "Image Layout", "Image Index", "Image Manifest".
#![forbid(unsafe_code)]

use std::collections::BTreeMap;

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
/// Full names by containerd and docker; only tags by most others.
const NAME_ANNOTATIONS: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// A manifest that could be meant.
#[derive(Clone)]
struct Candidate {
    manifest: Descriptor,
    /// As the index says; unknown is left to the configuration.
    platform: Option<String>,
    /// What the index calls it, as spelled there.
    names: Vec<String>,
}

/// Reads the image called `wanted`, or the only one for this machine.
///
/// # Errors
/// [`ContainerError`].
pub fn read(blobs: &Blobs, wanted: Option<&Name>) -> Result<Contents, ContainerError> {
    let index = parse_index(INDEX, &blobs.document(INDEX)?)?;
    let mut candidates = Vec::new();
    collect(blobs, &index, &[], 0, &mut candidates)?;
    let (candidate, chosen) = choose(candidates, wanted)?;
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

fn collect(
    blobs: &Blobs,
    index: &ImageIndex,
    names: &[String],
    depth: usize,
    candidates: &mut Vec<Candidate>,
) -> Result<(), ContainerError> {
    if depth > DEPTH_MAX {
        return Err(ContainerError::Depth);
    }
    for descriptor in index.manifests() {
        let mut names = names.to_vec();
        for key in NAME_ANNOTATIONS {
            names.extend(descriptor.annotations().as_ref().and_then(|notes| notes.get(key)).cloned());
        }
        let kind = descriptor.media_type().to_string();
        if kind.contains("image.index") || kind.contains("manifest.list") {
            let digest = digest(descriptor)?;
            let name = blob_name(digest);
            let nested = parse_index(&name, &blobs.verified(&name, digest, Some(descriptor.size()))?)?;
            collect(blobs, &nested, &names, depth + 1, candidates)?;
        } else if kind.contains("manifest") {
            let platform = descriptor.platform().as_ref();
            let platform = platform.map(|p| config::platform(p.os(), p.architecture()));
            candidates.push(Candidate { manifest: descriptor.clone(), platform, names });
        }
    }
    Ok(())
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
    let names = list(&|candidate| candidate.names.clone());
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
