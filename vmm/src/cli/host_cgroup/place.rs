//! Where the cgroups of microVMs can be: the rules of cgroup v2 (the kernel's `admin-guide/cgroup-v2.rst`). Pure: the
//! hierarchy is what a function says of its directories.

#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Below a directory that is not ours alone, ours has this name.
const NAME: &str = "ballast";

/// Names the directory for the cgroups of microVMs, or says that there shall be none.
pub const VARIABLE: &str = "BALLAST_CGROUP";
const OFF: &str = "off";

/// What there is to know of one cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The memory controller is among its controllers.
    pub controller: bool,
    /// Its children get that controller.
    pub divided: bool,
    /// It has processes of its own. One that is divided can have none, except the host's top ("no internal processes").
    pub processes: bool,
    /// It is the host's top.
    pub top: bool,
    /// This user may make children in it, give them controllers, and move processes below it.
    pub writable: bool,
}

/// Why microVMs get no limit on the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// The user says so.
    #[error("${VARIABLE} is {OFF}")]
    Off,
    /// There is no cgroup v2.
    #[error("no cgroup v2 hierarchy is mounted")]
    NoHierarchy,
    /// Version 1 has the controller, or nobody.
    #[error("{} has no memory controller", .0.display())]
    NoController(PathBuf),
    /// What the user named is somewhere else.
    #[error("{} is no absolute path in the cgroup v2 hierarchy at {}", named.display(), mount.display())]
    Elsewhere {
        /// What was named.
        named: PathBuf,
        /// Where the hierarchy is mounted.
        mount: PathBuf,
    },
    /// Somebody else's.
    #[error("this user may not make cgroups in {}", .0.display())]
    Foreign(PathBuf),
    /// Processes in the way.
    #[error("{} has processes of its own, and so its children can have no limits", .0.display())]
    Processes(PathBuf),
}

impl Obstacle {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Off => format!("unset ${VARIABLE}"),
            Self::NoHierarchy => "boot the host with systemd.unified_cgroup_hierarchy=1".into(),
            Self::NoController(_) => {
                "boot the host with systemd.unified_cgroup_hierarchy=1 cgroup_no_v1=all and without \
                 cgroup_disable=memory"
                    .into()
            }
            Self::Elsewhere { mount, .. } => {
                format!("set ${VARIABLE} to a directory below {}", mount.display())
            }
            Self::Foreign(_) => format!(
                "run in a delegated cgroup: systemd-run --user --scope -p Delegate=yes ballast run ..., or set \
                 ${VARIABLE} to one of yours"
            ),
            Self::Processes(_) => format!(
                "keep them in a cgroup below it (systemd: DelegateSubgroup=), or set ${VARIABLE} to another"
            ),
        }
    }
}

/// The directory in which each microVM gets its cgroup, and where the hierarchy begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where cgroup v2 is mounted.
    pub mount: PathBuf,
    /// The directory, which may not be there yet.
    pub home: PathBuf,
}

impl Place {
    /// Its directories from the hierarchy's first down to [`Self::home`].
    pub fn chain(&self) -> impl Iterator<Item = PathBuf> {
        let below = self.home.strip_prefix(&self.mount).unwrap_or(Path::new("")).components();
        let mut dir = self.mount.clone();
        let below = below.map(move |name| {
            dir.push(name);
            dir.clone()
        });
        std::iter::once(self.mount.clone()).chain(below)
    }
}

/// Chooses: what `named` says, the value of [`VARIABLE`]; else for `root` `ballast` in the hierarchy's first cgroup;
/// else `ballast` in the nearest of the cgroups that this process is in, `own` and those above it.
///
/// # Errors
/// None can be had; the obstacle is that of the first choice.
pub fn choose(
    named: Option<&OsStr>,
    root: bool,
    mount: Option<&Path>,
    own: &Path,
    look: impl Fn(&Path) -> Option<Seen>,
) -> Result<Place, Obstacle> {
    if named.is_some_and(|named| named == OFF) {
        return Err(Obstacle::Off);
    }
    let mount = mount.ok_or(Obstacle::NoHierarchy)?;
    // Outside of the hierarchy that is seen here, as in a container that was entered from outside.
    let own = if is_plain(own) && own.starts_with(mount) { own } else { mount };
    let place = |home: PathBuf| Place { mount: mount.into(), home };
    if let Some(named) = named.map(Path::new) {
        if !is_plain(named) || !named.starts_with(mount) {
            return Err(Obstacle::Elsewhere { named: named.into(), mount: mount.into() });
        }
        // Trailing and doubled slashes are no part of a name.
        let place = place(named.components().collect());
        return check(&place, own, &look).map(|()| place);
    }
    let above = own.ancestors().take_while(|dir| dir.starts_with(mount));
    let mut first = None;
    for parent in root.then_some(mount).into_iter().chain(above) {
        let place = place(parent.join(NAME));
        match check(&place, own, &look) {
            Ok(()) => return Ok(place),
            Err(obstacle) => first = first.or(Some(obstacle)),
        }
    }
    Err(first.unwrap_or(Obstacle::NoHierarchy))
}

/// Whether a microVM can be moved from `own` into a limited cgroup in `place`, once what lacks there has been made.
fn check(place: &Place, own: &Path, look: impl Fn(&Path) -> Option<Seen>) -> Result<(), Obstacle> {
    // Who moves a process must be allowed to do so in the cgroup that holds both ends of its way.
    let common = own.ancestors().find(|dir| place.home.starts_with(dir)).unwrap_or(own);
    if !look(common).is_some_and(|seen| seen.writable) {
        return Err(Obstacle::Foreign(common.into()));
    }
    let mut parent = None;
    for dir in place.chain() {
        let Some(seen) = look(&dir) else { break };
        if parent.is_none() && !seen.controller {
            return Err(Obstacle::NoController(dir));
        }
        if !seen.divided && seen.processes && !seen.top {
            return Err(Obstacle::Processes(dir));
        }
        if !seen.divided && !seen.writable {
            return Err(Obstacle::Foreign(dir));
        }
        parent = Some((dir, seen));
    }
    match parent {
        Some((dir, seen)) if !seen.writable => Err(Obstacle::Foreign(dir)),
        Some(_) => Ok(()),
        None => Err(Obstacle::NoHierarchy),
    }
}

fn is_plain(path: &Path) -> bool {
    path.is_absolute() && !path.components().any(|part| part == Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    const CG: &str = "/sys/fs/cgroup";

    /// Directories by their path below [`CG`], with flags: controller, divided, processes, top, writable.
    fn tree(dirs: &[(&str, &str)]) -> HashMap<PathBuf, Seen> {
        let seen = |flags: &str| Seen {
            controller: flags.contains('c'),
            divided: flags.contains('d'),
            processes: flags.contains('p'),
            top: flags.contains('t'),
            writable: flags.contains('w'),
        };
        dirs.iter().map(|(path, flags)| (Path::new(CG).join(path), seen(flags))).collect()
    }

    fn chosen(named: Option<&str>, root: bool, own: &str, dirs: &[(&str, &str)]) -> Result<String, Obstacle> {
        let tree = tree(dirs);
        let place = choose(
            named.map(OsStr::new),
            root,
            Some(Path::new(CG)),
            &Path::new(CG).join(own),
            |dir: &Path| tree.get(dir).copied(),
        )?;
        assert_eq!(place.mount, Path::new(CG));
        Ok(place.home.strip_prefix(CG).unwrap().to_str().unwrap().to_owned())
    }

    fn at(path: &str) -> PathBuf {
        Path::new(CG).join(path).components().collect()
    }

    #[test]
    fn root_takes_the_top_of_the_host() {
        let plain = [("", "cptw"), ("user.slice", "w"), ("user.slice/session", "pw")];
        assert_eq!(chosen(None, true, "user.slice/session", &plain).unwrap(), "ballast");
        let again = [("", "cdptw"), ("ballast", "cw"), ("s", "pw")];
        assert_eq!(chosen(None, true, "s", &again).unwrap(), "ballast");
        let inside = [("", "cdptw"), ("ballast", "cpw")];
        assert_eq!(chosen(None, true, "", &inside), Err(Obstacle::Processes(at("ballast"))));
        let hybrid = [("", "ptw")];
        assert_eq!(chosen(None, true, "", &hybrid), Err(Obstacle::NoController(at(""))));
    }

    #[test]
    fn a_container_has_the_top_only_if_nobody_is_in_it() {
        assert_eq!(chosen(None, true, "", &[("", "cpw")]), Err(Obstacle::Processes(at(""))));
        assert_eq!(chosen(None, true, "init", &[("", "cdw"), ("init", "cpw")]).unwrap(), "ballast");
        assert_eq!(chosen(None, true, "../../x", &[("", "cdw")]).unwrap(), "ballast");
    }

    #[test]
    fn a_user_takes_the_nearest_cgroup_that_is_delegated() {
        let desktop = [
            ("", "cdpt"),
            ("u", "cd"),
            ("u/user@1", "cdw"),
            ("u/user@1/app", "cdw"),
            ("u/user@1/app/scope", "cpw"),
        ];
        assert_eq!(chosen(None, false, "u/user@1/app/scope", &desktop).unwrap(), "u/user@1/app/ballast");
        let ssh = [("", "cdpt"), ("u", "cd"), ("u/session", "cp")];
        assert_eq!(chosen(None, false, "u/session", &ssh), Err(Obstacle::Foreign(at("u/session"))));
        let service = [("", "cdpt"), ("s", "cd"), ("s/own", "cpw")];
        assert_eq!(chosen(None, false, "s/own", &service), Err(Obstacle::Processes(at("s/own"))));
        let subgroup = [("", "cdpt"), ("s", "cd"), ("s/own", "cw"), ("s/own/main", "cpw")];
        assert_eq!(
            chosen(None, false, "s/own/main", &subgroup).unwrap(),
            "s/own/main/ballast".replace("main/", "")
        );
    }

    #[test]
    fn a_named_directory_is_taken_as_it_is_or_not_at_all() {
        let dirs = [("", "cdptw"), ("a", "cw"), ("own", "cpw")];
        assert_eq!(chosen(Some("/sys/fs/cgroup//a/b/c/"), true, "own", &dirs).unwrap(), "a/b/c");
        for named in ["/tmp/a", "a", "/sys/fs/cgroup/../x", "/sys/fs/cgroups"] {
            assert!(
                matches!(chosen(Some(named), true, "own", &dirs), Err(Obstacle::Elsewhere { .. })),
                "{named}"
            );
        }
        assert_eq!(chosen(Some("off"), true, "own", &dirs), Err(Obstacle::Off));
        // Writable itself, but processes of this user's session cannot be moved there.
        let apart = [("", "cdpt"), ("mine", "cw"), ("own", "cpw")];
        assert_eq!(chosen(Some("/sys/fs/cgroup/mine"), false, "own", &apart), Err(Obstacle::Foreign(at(""))));
    }

    #[test]
    fn every_obstacle_says_what_to_do() {
        let path = || PathBuf::from("/x");
        for obstacle in [
            Obstacle::Off,
            Obstacle::NoHierarchy,
            Obstacle::NoController(path()),
            Obstacle::Elsewhere { named: path(), mount: path() },
            Obstacle::Foreign(path()),
            Obstacle::Processes(path()),
        ] {
            assert!(!obstacle.to_string().is_empty() && !obstacle.remedy().is_empty());
        }
        assert_eq!(choose(None, true, None, Path::new("/"), |_| None).unwrap_err(), Obstacle::NoHierarchy);
    }

    #[test]
    fn the_chain_leads_from_the_mount_to_the_home() {
        let place = Place { mount: CG.into(), home: at("a/b") };
        assert_eq!(place.chain().collect::<Vec<_>>(), [at(""), at("a"), at("a/b")]);
        let place = Place { mount: CG.into(), home: at("") };
        assert_eq!(place.chain().collect::<Vec<_>>(), [at("")]);
    }
}
