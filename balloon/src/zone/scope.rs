//! Within what the pages of an image layer are shared, and how the name of its file says so.
//!
//! A scope has files of its own, so that two scopes share no page of the page cache. Where they are tells whose they
//! are, so that an arbiter believes the host's list of mappings and no microVM:
//!
//! ```text
//! layers/<key>.erofs                          the store's own: all of the host
//! scopes/<state directory>/<scope>/<key>.erofs
//! ```

use super::Error;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Where the files of scopes are, below the data directory.
pub const SCOPES: &str = "scopes";
/// What image files are called after their keys.
pub const LAYER_SUFFIX: &str = ".erofs";

/// Digits of a layer's key, a SHA-256.
const KEY_DIGITS: usize = 64;
/// As many as users are shown.
const LABEL_DIGITS: usize = 12;
/// Longest name of a file (`NAME_MAX`).
const LONGEST_FILE_NAME: usize = 255;

/// How far pages are shared, the narrowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// With nobody.
    Vm,
    /// Among the microVMs of a group.
    Group,
    /// Among all microVMs of this user.
    Host,
}

/// Those who share a copy of an image layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// All microVMs of this user.
    Host,
    /// Those of the group at this path.
    Group(String),
    /// The microVM of this name.
    Vm(String),
}

impl Scope {
    /// The name of its directory below [`SCOPES`] and the state directory's name; nothing for the host, whose files are
    /// the store's own, and for a path of groups that no file name can hold.
    #[must_use]
    pub fn directory(&self) -> Option<String> {
        let name = match self {
            Self::Host => return None,
            Self::Group(path) => format!("group:{}", path.replace('/', ":")),
            Self::Vm(name) => format!("vm:{name}"),
        };
        (name.len() <= LONGEST_FILE_NAME).then_some(name)
    }

    fn parse(directory: &str) -> Option<Self> {
        match directory.split_once(':')? {
            ("group", path) if !path.is_empty() => Some(Self::Group(path.replace(':', "/"))),
            ("vm", name) if !name.is_empty() => Some(Self::Vm(name.into())),
            _ => None,
        }
    }
}

/// The state directory at this absolute path as the name of a directory: no two have the same.
#[must_use]
pub fn state_name(path: &str) -> String {
    let mut name = String::new();
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'/' => name.push(':'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            // To write into a string cannot fail.
            _ => drop(write!(name, "%{byte:02x}")),
        }
    }
    name
}

/// An image layer's file, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The first digits of its key.
    pub label: String,
    /// Who shares it. Another state directory's scopes say nothing here: theirs are the host's.
    pub scope: Scope,
}

impl LayerFile {
    /// What the file at `path` is to the arbiter of the state directory that is [called](state_name) `state`; nothing
    /// if it is no layer.
    #[must_use]
    pub fn parse(path: &str, state: &str) -> Option<Self> {
        let mut parts = path.rsplit('/');
        let key = parts.next()?.strip_suffix(LAYER_SUFFIX)?;
        if key.len() != KEY_DIGITS || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let label = key.get(..LABEL_DIGITS)?.to_owned();
        let (directory, of, scopes) = (parts.next(), parts.next(), parts.next());
        let is_ours = of == Some(state) && scopes == Some(SCOPES);
        let scope = directory.filter(|_| is_ours).and_then(Scope::parse).unwrap_or(Scope::Host);
        Some(Self { label, scope })
    }
}

/// How far each group shares, as configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing(BTreeMap<String, Share>);

impl Sharing {
    /// As `shares` says of groups by their paths; the empty path is the pool.
    #[must_use]
    pub fn new(shares: BTreeMap<String, Share>) -> Self {
        Self(shares)
    }

    /// Within what a microVM in `group` shares the layers of its image. The lowest group on the path that is configured
    /// bounds it: its own microVMs are the widest scope if it says so. Where none says anything, that is the group at the
    /// top. A wish may narrow it, and widen only what nobody has configured. Who is in no group shares with the host.
    ///
    /// # Errors
    /// The wish is wider than what is configured.
    pub fn scope(&self, group: &str, vm: &str, wish: Option<Share>) -> Result<Scope, Error> {
        let ends = group.match_indices('/').map(|(end, _)| end).chain([group.len()]);
        let path: Vec<&str> =
            ends.filter_map(|end| group.get(..end)).filter(|path| !path.is_empty()).collect();
        let configured = path.iter().rev().chain([&""]).find_map(|path| Some((*path, *self.0.get(*path)?)));
        if let (Some((path, bound)), Some(wish)) = (configured, wish)
            && wish > bound
        {
            return Err(Error::Share { vm: vm.into(), group: path.into(), bound });
        }
        let top = path.first().copied().unwrap_or_default();
        let within = configured.filter(|(path, bound)| *bound == Share::Group && !path.is_empty());
        let within = within.map_or(top, |(path, _)| path);
        Ok(match wish.or(configured.map(|(_, bound)| bound)).unwrap_or(Share::Group) {
            Share::Group if !within.is_empty() => Scope::Group(within.into()),
            Share::Host | Share::Group => Scope::Host,
            Share::Vm => Scope::Vm(vm.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn group(path: &str) -> Scope {
        Scope::Group(path.into())
    }

    #[test]
    fn the_group_at_the_top_is_the_scope_where_nobody_says_otherwise() {
        let nothing = Sharing::default();
        assert_eq!(nothing.scope("ci/linux/x", "a", None), Ok(group("ci")));
        assert_eq!(nothing.scope("", "a", None), Ok(Scope::Host));
        assert_eq!(nothing.scope("ci/linux", "a", Some(Share::Vm)), Ok(Scope::Vm("a".into())));
        assert_eq!(nothing.scope("ci/linux", "a", Some(Share::Group)), Ok(group("ci")));
        assert_eq!(nothing.scope("ci/linux", "a", Some(Share::Host)), Ok(Scope::Host));
    }

    #[test]
    fn the_lowest_configured_group_bounds_what_can_be_wished() {
        let shares =
            [("", Share::Host), ("ci", Share::Vm), ("ci/linux", Share::Group), ("ci/open", Share::Host)];
        let sharing = Sharing::new(shares.map(|(path, share)| (path.to_owned(), share)).into());
        let vm = Scope::Vm("a".into());
        for (path, scopes) in [
            ("", [Some(Scope::Host), Some(Scope::Host), Some(Scope::Host)]),
            ("web", [Some(Scope::Host), Some(group("web")), Some(Scope::Host)]),
            ("ci", [Some(vm.clone()), None, None]),
            ("ci/linux/x", [Some(group("ci/linux")), Some(group("ci/linux")), None]),
            ("ci/linux", [Some(group("ci/linux")), Some(group("ci/linux")), None]),
            ("ci/linuxes", [Some(vm.clone()), None, None]),
            ("ci/open", [Some(Scope::Host), Some(group("ci")), Some(Scope::Host)]),
        ] {
            let wishes = [None, Some(Share::Group), Some(Share::Host)];
            assert_eq!(wishes.map(|wish| sharing.scope(path, "a", wish).ok()), scopes, "{path}");
            assert_eq!(sharing.scope(path, "a", Some(Share::Vm)), Ok(vm.clone()));
        }
        let refusal = sharing.scope("ci/linux", "a", Some(Share::Host)).unwrap_err().to_string();
        assert!(refusal.contains("'ci/linux'") && refusal.contains("group"), "{refusal}");
    }

    #[test]
    fn a_file_says_whose_it_is() {
        let state = state_name("/run/ballast");
        assert_eq!(state, "run:ballast");
        let file = |path: &str| LayerFile::parse(path, &state);
        let layer = |scope| Some(LayerFile { label: "0123456789ab".into(), scope });
        assert_eq!(file(&format!("/d/layers/{KEY}.erofs")), layer(Scope::Host));
        assert_eq!(
            file(&format!("/d/scopes/run:ballast/group:ci:linux/{KEY}.erofs")),
            layer(group("ci/linux"))
        );
        assert_eq!(
            file(&format!("/d/scopes/run:ballast/vm:a.b/{KEY}.erofs")),
            layer(Scope::Vm("a.b".into()))
        );
        for other in ["scopes/run:other/group:ci", "scope/run:ballast/group:ci", "scopes/run:ballast/x:ci"] {
            assert_eq!(file(&format!("/d/{other}/{KEY}.erofs")), layer(Scope::Host));
        }
        for none in ["", "/", ".erofs", "/d/0123.erofs", &format!("/d/{KEY}"), &format!("/d/{KEY}0.erofs")] {
            assert_eq!(file(none), None, "{none}");
        }
        assert_eq!(group(&"a/".repeat(200)).directory(), None);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(path in "[a-z0-9]([a-z.0-9_-]{0,5}(/[A-Z0-9])?){0,3}", state in "(/[ -~é]{1,9}){1,3}") {
            let name = state_name(&state);
            prop_assert!(!name.contains('/') && !name.starts_with('.'));
            for scope in [Scope::Group(path.clone()), Scope::Vm(path.replace('/', "x"))] {
                let file = format!("/x/{SCOPES}/{name}/{}/{KEY}{LAYER_SUFFIX}", scope.directory().unwrap());
                prop_assert_eq!(LayerFile::parse(&file, &name).unwrap().scope, scope);
            }
        }

        #[test]
        fn no_two_state_directories_have_one_name(one in "/[a/:%.é]{0,6}", two in "/[a/:%.é]{0,6}") {
            let tidy = |path: &str| path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
            let (one, two) = (format!("/{}", tidy(&one)), format!("/{}", tidy(&two)));
            prop_assert_eq!(one == two, state_name(&one) == state_name(&two));
        }

        #[test]
        fn any_path_is_survived(path in "\\PC*") {
            let _ = LayerFile::parse(&path, "x");
        }
    }
}
