//! Who is at the other end of a Unix socket. Asked here and not by rustix, whose answer cannot say what the host says of a
//! process of another PID namespace: that it has number 0.

#![expect(unsafe_code, reason = "a system call about a process")]

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

/// The process at the other end of `socket`, and its user (`SO_PEERCRED`, unix(7)): who connected or, for who did that, who
/// called listen(2) last.
pub(crate) fn peer(socket: &UnixStream) -> Option<libc::ucred> {
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
