//! From facts to findings: what is well, what is not, and what to do. Pure.

use super::chain;
use super::facts::{Directory, Facts, Kvm, Memory, MkfsErofs, Swap, User};
use crate::cli::host_cgroup::Obstacle;
use crate::kernel::{self, KernelSource, Origin, Survey, version};
use balloon::size::Size;
use serde::Serialize;
use std::io::ErrorKind;
use std::path::PathBuf;

/// How a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// `ballast run` works; something is worse than it could be.
    Warn,
    /// `ballast run` does not work.
    Fail,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub check: &'static str,
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do, where the finding does not say it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Whether nothing stands against `ballast run`.
    pub(super) fn all_ready(findings: &[Self]) -> bool {
        findings.iter().all(|finding| finding.status != Status::Fail)
    }
}

fn ok(check: &'static str, found: impl Into<String>) -> Finding {
    Finding { check, status: Status::Ok, found: found.into(), remedy: None }
}

fn warn(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
}

fn fail(check: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { check, status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
}

/// A failure whose message says what to do.
fn told(check: &'static str, error: &kernel::Error) -> Finding {
    Finding { check, status: Status::Fail, found: chain(error), remedy: None }
}

/// The least guest memory with which a stock kernel boots, and room for the VMM beside it.
const LEAST_MEMORY_BYTES: u64 = 128 << 20;

/// Below this a handful of guests is all there can be.
const SMALL_MEMORY_BYTES: u64 = 1 << 30;

/// Room for one image and its import.
const LEAST_FREE_BYTES: u64 = 1 << 30;

/// Older mkfs.erofs have not been tried.
const OLDEST_MKFS_EROFS: &str = "1.5";

/// Judges everything, in the order in which it should be put right.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![kvm(&facts.kvm), nesting(facts)];
    findings.push(kernel(&facts.kernel));
    findings.extend(facts.survey.as_ref().zip(facts.kernel.as_ref().ok()).map(|(s, k)| modules(s, k)));
    findings.push(program("ballast-vmm", &facts.vmm));
    findings.push(program("agent", &facts.agent));
    findings.push(mkfs_erofs(&facts.mkfs_erofs));
    findings.push(directory("data", "BALLAST_DATA", &facts.data, true));
    findings.push(directory("state", "BALLAST_STATE", &facts.state, false));
    findings.push(memory(facts.memory.as_ref()));
    findings.push(swap(&facts.swaps));
    findings.push(cgroup(&facts.cgroup));
    findings.push(pressure(facts.pressure));
    findings.push(user(&facts.user));
    findings
}

fn kvm(kvm: &Kvm) -> Finding {
    const CHECK: &str = "kvm";
    match kvm {
        Kvm::Missing => fail(
            CHECK,
            "there is no /dev/kvm",
            "load kvm_intel or kvm_amd (modprobe), enable virtualization in the firmware, or, in a virtual \
             machine, let its host allow nested virtualization",
        ),
        Kvm::Closed(ErrorKind::PermissionDenied) => fail(
            CHECK,
            "/dev/kvm may not be opened by this user",
            "join the group kvm (sudo usermod -aG kvm $USER) and log in again",
        ),
        Kvm::Closed(ErrorKind::NotFound) => {
            fail(CHECK, "/dev/kvm has no driver behind it", "load kvm_intel or kvm_amd (modprobe)")
        }
        Kvm::Closed(kind) => {
            fail(CHECK, format!("/dev/kvm cannot be opened: {kind}"), "see `dmesg` for what KVM says")
        }
        Kvm::Version(version) => fail(
            CHECK,
            format!("KVM's interface has version {version}, not 12"),
            "use a host with a Linux kernel",
        ),
        Kvm::Lacking(names) => fail(
            CHECK,
            format!("KVM lacks {}", names.join(", ")),
            "use a newer host kernel; where the host is a virtual machine, another hypervisor below it",
        ),
        Kvm::Refusing(error) => fail(
            CHECK,
            format!("KVM creates no virtual machine: {error}"),
            "see `dmesg`; another hypervisor (VirtualBox, VMware) may hold the CPU's virtualization",
        ),
        Kvm::Working { backend } => {
            let backend = backend.as_deref().unwrap_or("built into the kernel");
            ok(CHECK, format!("/dev/kvm creates machines and can do all that is needed ({backend})"))
        }
    }
}

/// What is known about the layers below. Whether a guest gets through its boot only a boot can tell.
fn nesting(facts: &Facts) -> Finding {
    const CHECK: &str = "hardware";
    const REMEDY: &str = "use a host whose KVM is kvm_intel or kvm_amd";
    match &facts.kvm {
        // Its guests run as programs do, and their kernels have to be built for that (CONFIG_PVM_GUEST).
        Kvm::Working { backend: Some(backend) } if backend == "kvm_pvm" => {
            return fail(CHECK, "kvm_pvm runs only kernels that are built for it, no stock ones", REMEDY);
        }
        Kvm::Working { backend: Some(backend) } if !matches!(backend.as_str(), "kvm_intel" | "kvm_amd") => {
            return warn(
                CHECK,
                format!("{backend} is not known here: stock kernels may not boot on it"),
                REMEDY,
            );
        }
        _ => {}
    }
    if facts.in_hypervisor {
        return warn(
            CHECK,
            "this host is itself a virtual machine: guests are nested, and slower",
            "expect longer starts; use a physical host where speed matters",
        );
    }
    ok(CHECK, "no hypervisor below this host")
}

fn kernel(kernel: &Result<KernelSource, kernel::Error>) -> Finding {
    const CHECK: &str = "kernel";
    match kernel {
        Ok(source) => {
            let why = match source.origin {
                Origin::Option => "named with --kernel",
                Origin::Environment => "named with $BALLAST_KERNEL",
                Origin::DataDirectory => "the newest in the data directory",
                Origin::Host => "this host's own",
            };
            ok(CHECK, format!("{}: {}, {why}", source.release, source.image.display()))
        }
        Err(kernel::Error::NoKernel(passed_over)) => fail(
            CHECK,
            passed_over
                .iter()
                .fold("none found".to_owned(), |list, reason| list + "\npassed over: " + reason),
            "install one (Debian: apt install linux-image-cloud-amd64) or name one with --kernel FILE",
        ),
        Err(error) => told(CHECK, error),
    }
}

fn modules(survey: &Result<Survey, kernel::Error>, kernel: &KernelSource) -> Finding {
    const CHECK: &str = "modules";
    let dir = kernel.modules.display();
    match survey {
        Ok(survey) if survey.notices.is_empty() => {
            ok(CHECK, format!("{dir}: complete, {} for a guest to load", survey.modules))
        }
        Ok(survey) => {
            warn(CHECK, survey.notices.join("; "), "use a kernel that has them (--kernel, --modules)")
        }
        Err(error) => told(CHECK, error),
    }
}

fn program(check: &'static str, path: &Result<PathBuf, String>) -> Finding {
    match path {
        Ok(path) => ok(check, path.display().to_string()),
        Err(error) => fail(check, error.clone(), "install Ballast whole, or set $BALLAST_LIBEXEC"),
    }
}

fn mkfs_erofs(mkfs: &MkfsErofs) -> Finding {
    const CHECK: &str = "mkfs.erofs";
    const INSTALL: &str = "install erofs-utils (Debian: apt install erofs-utils)";
    match mkfs {
        MkfsErofs::Missing => fail(CHECK, "not in $PATH: images cannot be imported", INSTALL),
        MkfsErofs::Failing(error) => fail(CHECK, format!("cannot be run: {error}"), INSTALL),
        MkfsErofs::Found(text) => match super::procfs::version(text) {
            Some(found) if version::compare(found, OLDEST_MKFS_EROFS).is_ge() => {
                ok(CHECK, format!("version {found}"))
            }
            Some(found) => warn(
                CHECK,
                format!("version {found} is older than {OLDEST_MKFS_EROFS}"),
                "install a newer erofs-utils if an import fails",
            ),
            None => warn(CHECK, "it does not say its version", INSTALL),
        },
    }
}

fn directory(check: &'static str, variable: &str, directory: &Directory, holds_volumes: bool) -> Finding {
    let path = directory.path.display();
    if !directory.writable {
        return fail(
            check,
            format!("{path} may not be written (nothing can be made in {})", directory.existing.display()),
            format!("set ${variable} to a directory of your own"),
        );
    }
    let kind = directory.file_system.as_deref().unwrap_or("an unknown file system");
    let free =
        directory.free_bytes.map(|bytes| format!(", {} free", Size::from_bytes(bytes))).unwrap_or_default();
    let found = format!("{path} on {kind}{free}");
    if !holds_volumes {
        return ok(check, found);
    }
    if directory.free_bytes.is_some_and(|bytes| bytes < LEAST_FREE_BYTES) {
        return warn(check, found, format!("free some space, or set ${variable} to a larger file system"));
    }
    if directory.user_xattrs == Some(false) {
        return warn(
            check,
            format!(
                "{found}, without extended attributes (user.*): layers that replace directories cannot be imported"
            ),
            format!("set ${variable} to a directory on ext4, xfs or btrfs"),
        );
    }
    match directory.direct {
        Some(false) => warn(
            check,
            format!("{found}, without O_DIRECT: this host's page cache keeps a copy of volumes"),
            format!("set ${variable} to a directory on ext4, xfs or btrfs"),
        ),
        Some(true) => ok(check, format!("{found}, with O_DIRECT")),
        None => ok(check, found),
    }
}

fn memory(memory: Option<&Memory>) -> Finding {
    const CHECK: &str = "memory";
    let Some(memory) = memory else {
        return warn(CHECK, "/proc/meminfo cannot be read", "mount /proc");
    };
    let size = |bytes| Size::from_bytes(bytes);
    let found = format!("{} available of {}", size(memory.available_bytes), size(memory.total_bytes));
    match memory.available_bytes {
        ..LEAST_MEMORY_BYTES => fail(
            CHECK,
            found,
            format!(
                "a guest and its VMM take at least {}: end something, or add memory",
                size(LEAST_MEMORY_BYTES)
            ),
        ),
        LEAST_MEMORY_BYTES..SMALL_MEMORY_BYTES => {
            warn(CHECK, found, "give guests little (-m 128m), or add memory")
        }
        _ => ok(CHECK, found),
    }
}

fn swap(swaps: &[Swap]) -> Finding {
    const CHECK: &str = "swap";
    if swaps.is_empty() {
        return warn(
            CHECK,
            "none: what guests leave idle stays in memory unless they give it back themselves",
            "add zram (Debian: apt install zram-tools) or a swap file",
        );
    }
    let list = |swap: &Swap| {
        let (used, size) = (Size::from_bytes(swap.used_bytes), Size::from_bytes(swap.size_bytes));
        format!("{} {used} of {size} used", swap.name)
    };
    ok(CHECK, swaps.iter().map(list).collect::<Vec<_>>().join(", "))
}

fn cgroup(home: &Result<PathBuf, Obstacle>) -> Finding {
    const CHECK: &str = "cgroup";
    match home {
        Ok(home) => {
            ok(CHECK, format!("the host limits and accounts for each microVM, in {}", home.display()))
        }
        Err(obstacle) => {
            warn(CHECK, format!("microVMs have no limit on the host: {obstacle}"), obstacle.remedy())
        }
    }
}

fn pressure(on: bool) -> Finding {
    const CHECK: &str = "pressure";
    if on {
        return ok(CHECK, "pressure stall information is on");
    }
    warn(
        CHECK,
        "no pressure stall information: this host's shortage is noticed late",
        "boot the host with psi=1 (the kernel needs CONFIG_PSI)",
    )
}

fn user(user: &User) -> Finding {
    const CHECK: &str = "user";
    const LOSS: &str = "images cannot keep the owners of their files";
    let name = &user.name;
    if user.root {
        return ok(CHECK, format!("{name}: images keep the owners of their files"));
    }
    if let Err(reason) = &user.namespaces {
        return warn(
            CHECK,
            format!("{name} may not make user namespaces ({reason}): {LOSS}"),
            "import images as root",
        );
    }
    let (uids, gids) = user.subordinate_ids;
    if uids.min(gids) < 65536 {
        return warn(
            CHECK,
            format!("{name} has {uids} subordinate user and {gids} group ids, not 65536: {LOSS}"),
            format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
        );
    }
    if !user.map_programs {
        return warn(
            CHECK,
            format!("newuidmap and newgidmap are not installed: {LOSS}"),
            "install them (Debian: apt install uidmap)",
        );
    }
    ok(
        CHECK,
        format!("{name}, with {} subordinate ids: images keep the owners of their files", uids.min(gids)),
    )
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
