//! `docker save` archives: `manifest.json` and the files it names. Pure over [`Blobs`].
//!
//! Both layouts are read: the old one (`<id>/layer.tar`, links between layers included) and the one of docker 25
//! and newer (`blobs/sha256/`), layers compressed or not. Source: the docker image specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format".
#![forbid(unsafe_code)]

use serde::Deserialize;

use super::blobs::Blobs;
use super::container::{ContainerError, Contents, contents};
use super::digest::Digest;
use super::reference::Name;

/// The document that makes a tar a docker archive.
pub const MANIFEST: &[u8] = b"manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// Reads the image called `wanted`, or the only one.
///
/// # Errors
/// [`ContainerError`].
pub fn read(blobs: &Blobs, wanted: Option<&Name>) -> Result<Contents, ContainerError> {
    let manifest = blobs.document(MANIFEST)?;
    let items: Vec<Item> = serde_json::from_slice(&manifest)
        .map_err(|error| ContainerError::Malformed { name: "manifest.json".into(), source: error.into() })?;
    let (item, chosen) = choose(&items, wanted)?;
    let config_name = item.config.as_bytes();
    let config = match digest_in(&item.config) {
        Some(digest) => blobs.verified(config_name, digest, None)?,
        None => blobs.document(config_name)?,
    };
    let mut layers = Vec::new();
    for name in item.layers.iter().flatten() {
        let bytes = blobs.open(name.as_bytes())?.length();
        // In the old layout the name is no digest of the layer's, but of its place in a stack.
        let digest = name.starts_with("blobs/sha256/").then(|| digest_in(name)).flatten();
        layers.push((name.clone().into_bytes(), digest, bytes));
    }
    let mut contents = contents(&config, layers)?;
    contents.names = names(item);
    contents.chosen = chosen;
    Ok(contents)
}

fn names(item: &Item) -> Vec<Name> {
    item.repo_tags.iter().flatten().filter_map(|tag| Name::parse(tag).ok()).collect()
}

fn choose<'a>(items: &'a [Item], wanted: Option<&Name>) -> Result<(&'a Item, bool), ContainerError> {
    match items {
        [] => return Err(ContainerError::Empty),
        [only] => return Ok((only, false)),
        _ => {}
    }
    let all = items.iter().flat_map(names).map(|name| name.to_string()).collect::<Vec<_>>().join(", ");
    let Some(wanted) = wanted else { return Err(ContainerError::Ambiguous { names: all }) };
    let found = items.iter().find(|item| names(item).contains(wanted));
    found
        .map(|item| (item, true))
        .ok_or_else(|| ContainerError::NoSuchImage { wanted: wanted.clone(), names: all })
}

/// The digest that a file's name is: `<hex>.json`, `blobs/sha256/<hex>`.
fn digest_in(name: &str) -> Option<Digest> {
    let base = name.rsplit('/').next()?;
    format!("sha256:{}", base.strip_suffix(".json").unwrap_or(base)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_digests() {
        let hex = Digest::of(b"x").hex();
        assert_eq!(digest_in(&format!("{hex}.json")), Some(Digest::of(b"x")));
        assert_eq!(digest_in(&format!("blobs/sha256/{hex}")), Some(Digest::of(b"x")));
        assert_eq!(digest_in("config.json"), None);
    }

    #[test]
    fn of_several_images_one_must_be_chosen() {
        let items: Vec<Item> = serde_json::from_str(
            r#"[{"Config":"a","RepoTags":["one:1","one:latest"],"Layers":[]},{"Config":"b","RepoTags":["two"],"Layers":null},
            {"Config":"c","RepoTags":null}]"#,
        )
        .unwrap();
        let name = |text| Name::parse(text).unwrap();
        assert!(
            matches!(choose(&items, None), Err(ContainerError::Ambiguous { names }) if names.contains("two:latest"))
        );
        assert_eq!(choose(&items, Some(&name("one"))).unwrap().0.config, "a");
        assert_eq!(choose(&items, Some(&name("two:latest"))).unwrap().0.config, "b");
        assert!(matches!(choose(&items, Some(&name("three"))), Err(ContainerError::NoSuchImage { .. })));
        assert_eq!(
            choose(&items[2..], Some(&name("three"))).unwrap().0.config,
            "c",
            "an only image needs no name"
        );
        assert!(matches!(choose(&[], None), Err(ContainerError::Empty)));
    }
}
