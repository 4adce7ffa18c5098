//! What an import says: which error a failure is in the user's words, and what it left out. The other half of
//! [`Import`].
#![forbid(unsafe_code)]

use std::io;

use super::error::{Error, is_full};
use super::id_map;
use super::import::Import;
use super::stack;
use super::unpack::{Summary, UnpackError};

impl Import<'_> {
    pub(super) fn write_error(&self, source: io::Error, bytes: u64) -> Error {
        Error::write(self.store.root(), source, Some(bytes).filter(|&bytes| bytes > 0))
    }

    pub(super) fn stack_error(&self, source: stack::StackError) -> Error {
        Error::Stack { what: self.what.to_owned(), source }
    }

    pub(super) fn unpack_error(&self, source: UnpackError, bytes: u64) -> Error {
        let what = self.what.to_owned();
        match source {
            // Once to unpack it, once for the image.
            UnpackError::Write { source, .. } if is_full(&source) => {
                self.write_error(source, bytes.saturating_mul(2))
            }
            UnpackError::Owner { path, uid, gid } => {
                Error::Owner { what, path, uid, gid, remedy: id_map::remedy(uid.max(gid)) }
            }
            source => Error::Archive { what, source },
        }
    }

    pub(super) fn report_omissions(&self, summaries: &[&Summary]) {
        let sum = |field: fn(&Summary) -> u64| summaries.iter().map(|summary| field(summary)).sum::<u64>();
        let nodes = sum(|summary| summary.devices);
        if nodes > 0 {
            self.progress
                .notice(format!("{nodes} device nodes of the image are left out: the guest makes its own"));
        }
        let xattrs = sum(|summary| summary.xattrs);
        if xattrs > 0 {
            self.progress.notice(format!(
                "{xattrs} extended attributes of the image that guests cannot use are left out"
            ));
        }
    }
}
