//! Who is at the other end of a Unix socket.

#![expect(unsafe_code, reason = "a system call about a process")]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The process that connected `socket`, and its user (`SO_PEERCRED`, unix(7)).
pub(super) fn peer(socket: &UnixStream) -> Option<libc::ucred> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut size = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: `peer` is valid for writes of `size` bytes, and both outlive the call.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut size,
        )
    };
    (status == 0).then_some(peer)
}
