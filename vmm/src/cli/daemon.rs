//! What the command line asks of `ballastd`, if it runs.

use super::format::printable;
use balloon::control::client::{self, Error as Asked};
use balloon::control::fleet::{GroupRequest, HostDocument, SOCKET, StartRequest, TreeDocument};
use balloon::zone::Limits;
use serde::Serialize;
use std::path::Path;

/// The daemon was not asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, and what is wanted needs one.
    #[error("{0} needs an arbiter among microVMs: start ballastd first")]
    Missing(&'static str),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It is there and silent, or talks nonsense.
    #[error("ballastd does not answer as it should: is it stopped, or of another version of Ballast?")]
    NoAnswer(#[source] Asked),
}

/// A running daemon's socket.
#[derive(Clone, Copy, Debug)]
pub struct Daemon<'a> {
    state: &'a Path,
}

impl<'a> Daemon<'a> {
    /// The daemon of the state directory `state`, if there is one.
    #[must_use]
    pub fn of(state: &'a Path) -> Self {
        Self { state }
    }

    /// Has a microVM admitted that is about to start; `need` names what only a daemon can give it, if anything.
    /// Returns whether there is a daemon.
    ///
    /// # Errors
    /// It is not admitted, or there is a need and no daemon.
    pub fn admit(self, request: &StartRequest, need: Option<&'static str>) -> Result<bool, Error> {
        admitted(self.send("POST", "/v1/vms", request), need)
    }

    /// The zone tree, which `need` needs.
    ///
    /// # Errors
    /// There is no daemon, or it does not answer.
    pub fn tree(self, need: &'static str) -> Result<TreeDocument, Error> {
        client::get(&self.state.join(SOCKET), "/v1/tree").map_err(|error| explain(error, need))
    }

    /// Moves a microVM into another group.
    ///
    /// # Errors
    /// There is no daemon, or it refuses.
    pub fn move_vm(self, name: &str, group: &str) -> Result<HostDocument, Error> {
        let request = GroupRequest { group: group.into() };
        self.send("PUT", &format!("/v1/vms/{name}/group"), &request)
            .map_err(|error| explain(error, "--group"))
    }

    /// Has a change of a microVM's limits admitted, all or none; `need` names what only a daemon can give it, if
    /// anything.
    ///
    /// # Errors
    /// They are not admitted, or there is a need and no daemon.
    pub fn change(self, name: &str, limits: Limits, need: Option<&'static str>) -> Result<(), Error> {
        admitted(self.send("PUT", &format!("/v1/vms/{name}/limits"), &limits), need).map(drop)
    }

    fn send<T: serde::de::DeserializeOwned>(
        self,
        method: &str,
        path: &str,
        document: &impl Serialize,
    ) -> Result<T, Asked> {
        client::send(&self.state.join(SOCKET), method, path, document, client::LIMIT)
    }
}

/// Whether there is a daemon, which then has admitted what it was asked.
fn admitted(result: Result<HostDocument, Asked>, need: Option<&'static str>) -> Result<bool, Error> {
    match (result, need) {
        (Ok(_), _) => Ok(true),
        (Err(Asked::Absent | Asked::Ended), None) => Ok(false),
        (Err(error), need) => Err(explain(error, need.unwrap_or_default())),
    }
}

fn explain(error: Asked, need: &'static str) -> Error {
    match error {
        Asked::Absent | Asked::Ended => Error::Missing(need),
        Asked::Refused(refusal) => Error::Refused(printable(&refusal.message)),
        error => Error::NoAnswer(error),
    }
}
