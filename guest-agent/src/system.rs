//! What the workload finds around its image: the kernel's file systems, device links, names, loopback.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{Mode, mkdirat, symlinkat};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::error::{Doing, Error};
use crate::mount::{FileSystem, attach};
use crate::root::Root;

/// Mounts the kernel's file systems in the root. The machine is the workload's own, so they are writable.
pub fn mount_kernel_file_systems(root: &Root) -> Result<(), Error> {
    let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let no_devices = quiet | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = |kind, path: &str, options: &[(&str, &str)], attributes| {
        let mounted = FileSystem { kind, options, attributes, ..FileSystem::default() }
            .make()
            .map_err(io::Error::from)
            .and_then(|mount| attach(mount, root.open_directory(path.as_bytes())?));
        mounted.doing(|| format!("mounting {kind} on {path} in the root"))
    };
    mount("proc", "/proc", &[], no_devices)?;
    mount("sysfs", "/sys", &[], no_devices)?;
    mount("devtmpfs", "/dev", &[("mode", "0755")], MountAttrFlags::MOUNT_ATTR_NOSUID)?;
    // 5 is the group tty in every distribution.
    let terminals = [("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")];
    mount("devpts", "/dev/pts", &terminals, quiet)?;
    mount("tmpfs", "/dev/shm", &[("mode", "1777")], no_devices)?;
    // Not in every kernel.
    let _ = mount("mqueue", "/dev/mqueue", &[], no_devices);
    link_devices(root)
}

fn link_devices(root: &Root) -> Result<(), Error> {
    let dev = root.open_directory(b"/dev").doing(|| "opening /dev in the root")?;
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("core", "/proc/kcore"),
    ] {
        match symlinkat(target, &dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).doing(|| format!("making /dev/{name} in the root")),
        }
    }
    Ok(())
}

/// Names the machine, in the kernel and in the image's /etc. Returns sentences for the user.
pub fn set_hostname(root: &Root, hostname: &str) -> Result<Vec<Error>, Error> {
    rustix::system::sethostname(hostname.as_bytes()).doing(|| "setting the host name")?;
    // An image may have no /etc at all.
    match mkdirat(root.as_fd(), "etc", Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno).doing(|| "making /etc in the root"),
    }
    let hosts =
        format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n");
    let files = [("/etc/hostname", format!("{hostname}\n")), ("/etc/hosts", hosts)];
    let written = files.iter().map(|(path, content)| {
        root.write(path.as_bytes(), content.as_bytes()).doing(|| format!("writing {path} in the root"))
    });
    Ok(written.filter_map(Result::err).collect())
}

/// Brings the loopback interface up.
pub fn bring_up_loopback() -> Result<(), Error> {
    let up = || -> io::Result<()> {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        // SAFETY: all zeroes are a valid ifreq: integers and unions of integers.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(*b"lo") {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        // SAFETY: SIOCSIFFLAGS reads an ifreq, which outlives the call.
        match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    up().doing(|| "bringing up the loopback interface")
}
