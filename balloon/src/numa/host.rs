//! The system calls that place memory, behind a trait so that tests can be a host with several nodes.

#![expect(unsafe_code, reason = "here the kernel is called")]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::PAGE_BYTES;
use crate::backing::HostRange;
use std::io;
use std::ptr;

/// Where memory of this process comes from and lies.
pub trait Nodes {
    /// Has what `range` takes from now on come from `node` while that has some, or from wherever the host likes. What it
    /// holds stays where it is.
    ///
    /// # Errors
    /// The host's answer: there is no such node, or no nodes at all. Nothing changed.
    fn prefer(&mut self, range: HostRange, node: Option<u32>) -> io::Result<()>;

    /// Moves what `range` holds to `node`, as far as that can be done; says whether that was all of it.
    ///
    /// # Errors
    /// The host's answer. A part may have moved.
    fn move_to(&mut self, range: HostRange, node: u32) -> io::Result<bool>;

    /// Pages that `range` holds on `node`, and on others. Not among them is what the host watches for its automatic
    /// NUMA balancing (`pmd_protnone()`: follow_page() does not see it), until it is touched or moved.
    ///
    /// # Errors
    /// The host's answer.
    fn count(&mut self, range: HostRange, node: u32) -> io::Result<(u64, u64)>;
}

/// The Linux that this process runs on.
#[derive(Debug, Default)]
pub struct Host {
    pages: Vec<*const libc::c_void>,
    statuses: Vec<libc::c_int>,
}

/// Nodes that a mask has room for: `MAX_NUMNODES` of the largest distribution kernels.
const NODES: usize = 1024;
const WORD_BITS: usize = u64::BITS as usize;
/// Of include/uapi/linux/mempolicy.h: what does not move is an error (`EIO`).
const MPOL_MF_STRICT: libc::c_int = 1;
/// Of get_mempolicy(2): the policy at an address.
const MPOL_F_ADDR: libc::c_int = 1 << 1;
/// Pages that this process alone maps are moved.
const MPOL_MF_MOVE: libc::c_int = 1 << 1;

impl Nodes for Host {
    fn prefer(&mut self, range: HostRange, node: Option<u32>) -> io::Result<()> {
        bind(range, node, 0)
    }

    fn move_to(&mut self, range: HostRange, node: u32) -> io::Result<bool> {
        match bind(range, Some(node), MPOL_MF_MOVE | MPOL_MF_STRICT) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn count(&mut self, range: HostRange, node: u32) -> io::Result<(u64, u64)> {
        let page = PAGE_BYTES as usize;
        let end = range.address().saturating_add(range.bytes());
        self.pages.clear();
        self.pages.extend((range.address()..end).step_by(page).map(|address| address as *const libc::c_void));
        self.statuses.clear();
        self.statuses.resize(self.pages.len(), 0);
        let (pages, statuses) = (self.pages.as_ptr(), self.statuses.as_mut_ptr());
        // SAFETY: both vectors have as many entries as the call is told and outlive it. Without nodes it moves nothing and
        // touches no page.
        let result = unsafe {
            libc::syscall(
                libc::SYS_move_pages,
                0,
                self.pages.len(),
                pages,
                ptr::null::<libc::c_int>(),
                statuses,
                0,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // Negative numbers are no pages, the shared page of zeroes among them.
        let lies = |status: &&libc::c_int| **status >= 0;
        let there = |status: &&libc::c_int| u32::try_from(**status).is_ok_and(|status| status == node);
        let all = self.statuses.iter().filter(lies).count() as u64;
        let there = self.statuses.iter().filter(there).count() as u64;
        Ok((there, all.saturating_sub(there)))
    }
}

/// Which nodes a range is taken from, to give what takes its place the same.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    mode: libc::c_int,
    mask: [u64; NODES / WORD_BITS],
}

impl Policy {
    /// That of the mapping at the begin of `range`; the process's own where the host does not say.
    pub(crate) fn of(range: HostRange) -> Self {
        let mut policy = Self { mode: libc::MPOL_DEFAULT, mask: [0; NODES / WORD_BITS] };
        let (mode, mask) = (&raw mut policy.mode, policy.mask.as_mut_ptr());
        // SAFETY: the kernel writes a number and at most as many bits as the mask has, and touches no memory at the address.
        let result = unsafe {
            libc::syscall(libc::SYS_get_mempolicy, mode, mask, NODES, range.address(), MPOL_F_ADDR)
        };
        if result != 0 {
            policy.mode = libc::MPOL_DEFAULT;
        }
        policy
    }

    /// Has what `range` takes from now on come from there. A host that refuses takes it from where it likes.
    pub(crate) fn apply(&self, range: HostRange) {
        if self.mode != libc::MPOL_DEFAULT {
            let _ = mbind(range, self.mode, self.mask.as_ptr(), NODES.saturating_add(1), 0);
        }
    }
}

/// mbind(2). `MPOL_PREFERRED`: a zone that must not leave its node would be killed when the node is full.
fn bind(range: HostRange, node: Option<u32>, flags: libc::c_int) -> io::Result<()> {
    let mut mask = [0u64; NODES / WORD_BITS];
    let (mode, mask, bits) = match node {
        None => (libc::MPOL_DEFAULT, ptr::null(), 0),
        Some(node) => {
            let node = node as usize;
            let word = mask.get_mut(node / WORD_BITS).ok_or(io::ErrorKind::InvalidInput)?;
            *word |= 1 << (node % WORD_BITS);
            // The kernel takes one bit less than it is told.
            (libc::MPOL_PREFERRED, mask.as_ptr(), NODES.saturating_add(1))
        }
    };
    mbind(range, mode, mask, bits, flags)
}

/// `mask` has room for `bits` less one, or is null and there are none.
fn mbind(
    range: HostRange,
    mode: libc::c_int,
    mask: *const u64,
    bits: usize,
    flags: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the mask outlives the call; neither policy nor place of a page is content.
    let result =
        unsafe { libc::syscall(libc::SYS_mbind, range.address(), range.bytes(), mode, mask, bits, flags) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    /// On any host with nodes, which is any with a kernel of a distribution: it has node 0.
    #[test]
    fn this_host_says_where_pages_lie_and_keeps_what_they_hold() {
        let scratch = Scratch::anonymous(crate::BLOCK_BYTES);
        scratch.without_huge_pages();
        scratch.fill(3, 5, 7);
        assert_eq!(scratch.byte(100), 0, "the page of zeroes is none");
        let range = scratch.mapping().whole().unwrap();
        let mut host = Host::default();
        let no_nodes = |error: &io::Error| error.raw_os_error() == Some(libc::ENOSYS);
        match host.prefer(range, Some(0)) {
            Err(error) if no_nodes(&error) => return,
            result => result.unwrap(),
        }
        assert!(host.move_to(range, 0).unwrap());
        let (there, elsewhere) = host.count(range, 0).unwrap();
        assert_eq!(there + elsewhere, 5);
        assert!((3..8).all(|page| scratch.byte(page) == 7));
        host.prefer(range, None).unwrap();
        for absent in [NODES as u32 - 1, NODES as u32, u32::MAX] {
            assert!(host.prefer(range, Some(absent)).is_err(), "there is no node {absent}");
        }
        assert!(scratch.canaries_live());
    }
}
