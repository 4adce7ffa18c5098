//! Where a server's clients come from: a Unix socket, which knows who they are, or TCP, which does not. Wiring.

#![forbid(unsafe_code)]

use super::peer::peer;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};

const ROOT: u32 = 0;

/// A socket that clients connect to.
pub trait Listener: AsRawFd {
    /// A client's end.
    type Socket: Read + Write + AsRawFd;

    /// From now on [`Self::welcome`] waits for nobody, and so many clients wait for it.
    ///
    /// # Errors
    /// The host refuses.
    fn prepare(&self, waiting: i32) -> io::Result<()>;

    /// The next client, whose reads and writes wait for nobody either.
    ///
    /// # Errors
    /// There is none, or the host refuses.
    fn welcome(&self) -> io::Result<Self::Socket>;

    /// Who that is; nothing of one who may not ask a program of the user `own`.
    fn admit(socket: &Self::Socket, own: u32) -> Option<Peer>;
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

    fn prepare(&self, waiting: i32) -> io::Result<()> {
        self.set_nonblocking(true)?;
        Ok(rustix::net::listen(self, waiting)?)
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

    fn prepare(&self, waiting: i32) -> io::Result<()> {
        self.set_nonblocking(true)?;
        Ok(rustix::net::listen(self, waiting)?)
    }

    fn welcome(&self) -> io::Result<TcpStream> {
        let (socket, _) = self.accept()?;
        socket.set_nonblocking(true).map(|()| socket)
    }

    fn admit(_: &TcpStream, _: u32) -> Option<Peer> {
        Some(Peer::default())
    }
}
