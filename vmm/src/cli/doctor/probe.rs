//! Looks at the host and notes what is there. Wiring: leaves nothing behind, and a probe that fails is a fact
//! too.

use super::super::dirs::Dirs;
use super::super::mounts::{self, Mount};
use super::super::{host_cgroup, install};
use super::facts::{Directory, Facts, Kvm, MkfsErofs, User};
use super::{chain, procfs};
use crate::kernel::{self, Search, image};
use crate::machine::vm::NEEDED;
use rustix::fs::{Access, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Collects everything.
pub(super) fn probe(dirs: &Dirs, kernel: Option<PathBuf>, modules: Option<PathBuf>) -> Facts {
    let kernel = kernel::find(&Search::on_this_host(kernel, modules, &dirs.data))
        .and_then(|source| kernel::verify(&source).map(|()| source));
    let survey = kernel.as_ref().ok().map(kernel::survey);
    let mounts = mounts::mounts(&text("/proc/self/mountinfo"));
    Facts {
        kvm: kvm(),
        in_hypervisor: procfs::cpu_flags(&text("/proc/cpuinfo")).contains(&"hypervisor"),
        kernel,
        survey,
        vmm: install::vmm().map_err(|error| chain(&error)).and_then(executable),
        agent: install::agent().map_err(|error| chain(&error)).and_then(agent),
        mkfs_erofs: mkfs_erofs(),
        memory: procfs::memory(&text("/proc/meminfo")),
        swaps: procfs::swaps(&text("/proc/swaps")),
        cgroup: host_cgroup::find().map(|place| place.home),
        pressure: fs::read("/proc/pressure/memory").is_ok(),
        user: user(),
        data: directory(&dirs.data, &mounts),
        state: directory(&dirs.state, &mounts),
    }
}

fn kvm() -> Kvm {
    let kvm = match kvm_ioctls::Kvm::new() {
        Ok(kvm) => kvm,
        Err(_) if !Path::new("/dev/kvm").exists() => return Kvm::Missing,
        Err(error) => return Kvm::Closed(io::Error::from_raw_os_error(error.errno()).kind()),
    };
    let version = kvm.get_api_version();
    if u32::try_from(version) != Ok(kvm_bindings::KVM_API_VERSION) {
        return Kvm::Version(version);
    }
    let lacking: Vec<_> = NEEDED.into_iter().filter(|cap| !kvm.check_extension(*cap)).collect();
    if !lacking.is_empty() {
        return Kvm::Lacking(lacking.iter().map(|cap| format!("{cap:?}")).collect());
    }
    if let Err(error) = kvm.create_vm() {
        return Kvm::Refusing(io::Error::from_raw_os_error(error.errno()).to_string());
    }
    Kvm::Working { backend: backend() }
}

fn backend() -> Option<String> {
    let modules = fs::read_dir("/sys/module").into_iter().flatten().flatten();
    let names: Vec<_> = modules.filter_map(|module| module.file_name().into_string().ok()).collect();
    procfs::kvm_backend(&names, procfs::cpu_flags(&text("/proc/cpuinfo")))
}

fn executable(path: PathBuf) -> Result<PathBuf, String> {
    match rustix::fs::access(&path, Access::EXEC_OK) {
        Ok(()) => Ok(path),
        Err(error) => Err(format!("{} cannot be executed: {error}", path.display())),
    }
}

fn agent(path: PathBuf) -> Result<PathBuf, String> {
    let unfit =
        |error: &(dyn Error + 'static)| format!("{} cannot be used: {}", path.display(), chain(error));
    let program = fs::read(&path).map_err(|error| unfit(&error))?;
    image::check_program(&program).map_err(|error| unfit(&error))?;
    Ok(path)
}

/// Versions up to 1.5 know no option for it and print it before their usage.
fn mkfs_erofs() -> MkfsErofs {
    match Command::new("mkfs.erofs").arg("-V").stdin(Stdio::null()).output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            MkfsErofs::Found(String::from_utf8_lossy(&said).into_owned())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => MkfsErofs::Missing,
        Err(error) => MkfsErofs::Failing(error.to_string()),
    }
}

fn user() -> User {
    let uid = rustix::process::geteuid();
    let passwd = text("/etc/passwd");
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid.as_raw())).then(|| name.to_owned())
    });
    let name = name.unwrap_or_else(|| uid.as_raw().to_string());
    let ids = |file: &str| procfs::subordinate_ids(&text(file), &name, uid.as_raw());
    let subordinate_ids = (ids("/etc/subuid"), ids("/etc/subgid"));
    let map_programs = ["newuidmap", "newgidmap"].iter().all(|program| in_path(program));
    User { root: uid.is_root(), namespaces: namespaces(), subordinate_ids, map_programs, name }
}

/// The switches by which distributions forbid user namespaces to users.
fn namespaces() -> Result<(), String> {
    let switches = [
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    match switches.iter().find(|(file, forbidding)| text(file).trim() == *forbidding) {
        Some((file, forbidding)) => Err(format!("{file} is {forbidding}")),
        None => Ok(()),
    }
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| rustix::fs::access(dir.join(program), Access::EXEC_OK).is_ok())
}

fn directory(path: &Path, mounts: &[Mount]) -> Directory {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = absolute.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    let existing = existing.canonicalize().unwrap_or_else(|_| existing.to_owned());
    let free = rustix::fs::statvfs(&existing).ok();
    Directory {
        writable: (absolute.is_dir() || !absolute.exists())
            && tempfile::Builder::new().prefix(".ballast-doctor-").tempdir_in(&existing).is_ok(),
        file_system: mounts::mount_of(mounts, &existing).map(|mount| mount.file_system.clone()),
        free_bytes: free.map(|free| free.f_bavail.saturating_mul(free.f_frsize)),
        direct: direct(&existing),
        user_xattrs: user_xattrs(&existing),
        path: path.to_owned(),
        existing,
    }
}

/// Tries a file without a name, which leaves nothing behind.
fn direct(dir: &Path) -> Option<bool> {
    let open =
        |flags| rustix::fs::open(dir, OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC | flags, Mode::RUSR);
    open(OFlags::empty()).ok()?;
    Some(open(OFlags::DIRECT).is_ok())
}

/// Tries what staging a layer does.
fn user_xattrs(dir: &Path) -> Option<bool> {
    let file = tempfile::tempfile_in(dir).ok()?;
    match rustix::fs::fsetxattr(&file, "user.ballast.doctor", b"y", XattrFlags::empty()) {
        Ok(()) => Some(true),
        Err(Errno::OPNOTSUPP) => Some(false),
        Err(_) => None,
    }
}

/// A file's text, or none where it cannot be read.
fn text(path: impl AsRef<Path>) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
