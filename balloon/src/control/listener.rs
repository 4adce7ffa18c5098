//! Where a server's clients come from: a Unix socket, which knows who they are, or TCP, which does not. Wiring.

#![forbid(unsafe_code)]

use super::peer::peer;
use super::server::CLIENTS;
use std::fs::Permissions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const ROOT: u32 = 0;

/// Clients that wait to be accepted: as many as get a place as soon as silent ones make room. The others wait in connect(2).
/// Else who connects and asks nothing, as a program that loses its connections does, would keep others out for as long as
/// all of them take to be evicted.
const WAITING: i32 = CLIENTS as i32;

/// A socket that clients connect to.
pub trait Listener: AsRawFd {
    /// A client's end.
    type Socket: Read + Write + AsRawFd;

    /// From now on [`Self::welcome`] waits for nobody.
    ///
    /// # Errors
    /// The host refuses.
    fn prepare(&self) -> io::Result<()>;

    /// The next client, whose reads and writes wait for nobody either.
    ///
    /// # Errors
    /// There is none, or the host refuses.
    fn welcome(&self) -> io::Result<Self::Socket>;

    /// Who that is; nothing of one who may not ask a program of the user `own`.
    fn admit(socket: &Self::Socket, own: u32) -> Option<Peer>;
}

/// A socket at `path` on which is listened, for this program's user and root alone. What was there is replaced.
///
/// Clients see as their peer the process that calls this (`SO_PEERCRED` is of the last `listen(2)`, unix(7)), also where
/// another one accepts them.
///
/// # Errors
/// The host refuses.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    rustix::net::listen(&listener, WAITING)?;
    // The directory keeps others out; the socket does it again, whatever the umask.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// What is at a path now, if there is something: a device and an inode.
#[must_use]
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Who has connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its process, where that is known.
    pub process: Option<u32>,
}

/// The program's own user and root may ask.
impl Listener for UnixListener {
    type Socket = UnixStream;

    fn prepare(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    fn welcome(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.accept()?;
        socket.set_nonblocking(true).map(|()| socket)
    }

    fn admit(socket: &UnixStream, own: u32) -> Option<Peer> {
        let peer = peer(socket).filter(|peer| peer.uid == own || peer.uid == ROOT)?;
        Some(Peer { process: u32::try_from(peer.pid).ok().filter(|pid| *pid > 0) })
    }
}

/// Whoever reaches the address may ask: what is served there is for all to read.
impl Listener for TcpListener {
    type Socket = TcpStream;

    fn prepare(&self) -> io::Result<()> {
        self.set_nonblocking(true)?;
        Ok(rustix::net::listen(self, WAITING)?)
    }

    fn welcome(&self) -> io::Result<TcpStream> {
        let (socket, _) = self.accept()?;
        socket.set_nonblocking(true).map(|()| socket)
    }

    fn admit(_: &TcpStream, _: u32) -> Option<Peer> {
        Some(Peer::default())
    }
}
