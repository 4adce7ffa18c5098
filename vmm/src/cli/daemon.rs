//! What the command line asks of `ballastd`, if it runs.

use super::format::printable;
use balloon::control::client::{self, Error as Asked};
use balloon::control::events::{self, EventsDocument};
use balloon::control::fleet::{
    ChargingDocument, GroupLimitsRequest, GroupRequest, HostDocument, SOCKET, StartDocument, StartRequest,
    TreeDocument,
};
use balloon::zone::{Limits, Scope};
use serde::Serialize;
use std::io::ErrorKind;
use std::path::Path;

/// The daemon was not asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none, and what is wanted needs one.
    #[error("{0} needs ballastd, which divides memory among microVMs: start ballastd first")]
    Missing(&'static str),
    /// It says no.
    #[error("{0}")]
    Refused(String),
    /// It is another user's.
    #[error("cannot ask ballastd, which is another user's: only that user and root may")]
    Denied,
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
    /// Returns within what it shares its image, if there is a daemon to say so.
    ///
    /// # Errors
    /// It is not admitted, or there is a need and no daemon.
    pub fn admit(self, request: &StartRequest, need: Option<&'static str>) -> Result<Option<Scope>, Error> {
        let start: Option<StartDocument> = admitted(self.send("POST", "/v1/vms", request), need)?;
        Ok(start.map(|start| start.scope))
    }

    /// What the host has and what is promised of it; nothing where there is no daemon, or none that answers.
    #[must_use]
    pub fn host(self) -> Option<HostDocument> {
        match client::get(&self.state.join(SOCKET), "/v1/host") {
            Ok(host) => Some(host),
            Err(error) => {
                log::info!("ballastd was asked in vain: {error}");
                None
            }
        }
    }

    /// The zone tree, which `need` needs.
    ///
    /// # Errors
    /// There is no daemon, or it does not answer.
    pub fn tree(self, need: &'static str) -> Result<TreeDocument, Error> {
        client::get_list(&self.state.join(SOCKET), "/v1/tree").map_err(|error| explain(error, need))
    }

    /// Who pays for what is shared, which `need` needs.
    ///
    /// # Errors
    /// There is no daemon, or it does not answer.
    pub fn charging(self, need: &'static str) -> Result<ChargingDocument, Error> {
        client::get_list(&self.state.join(SOCKET), "/v1/charging").map_err(|error| explain(error, need))
    }

    /// What has happened after the event of that number, which `need` needs: what is kept of it, as far as it fits an answer.
    /// Where nothing has, the daemon waits a little for the next event.
    ///
    /// # Errors
    /// There is no daemon, or it does not answer.
    pub fn events(self, after: Option<u64>, need: &'static str) -> Result<EventsDocument, Error> {
        let path = after.map_or_else(|| events::PATH.into(), |number| format!("{}/{number}", events::PATH));
        let limit = client::LIMIT.saturating_add(events::WAIT);
        client::get_within(&self.state.join(SOCKET), &path, limit).map_err(|error| explain(error, need))
    }

    /// Changes limits of a group, all or none.
    ///
    /// # Errors
    /// There is no daemon, or it refuses.
    pub fn change_group(self, request: &GroupLimitsRequest) -> Result<HostDocument, Error> {
        self.send("PUT", "/v1/groups", request).map_err(|error| explain(error, "--group"))
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
        let answer = self.send("PUT", &format!("/v1/vms/{name}/limits"), &limits);
        admitted::<HostDocument>(answer, need).map(|_| ())
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

/// The answer of a daemon that has admitted what it was asked; nothing where there is none.
fn admitted<T>(result: Result<T, Asked>, need: Option<&'static str>) -> Result<Option<T>, Error> {
    match (result, need) {
        (Ok(answer), _) => Ok(Some(answer)),
        (Err(Asked::Absent | Asked::Ended), None) => Ok(None),
        (Err(error), need) => Err(explain(error, need.unwrap_or_default())),
    }
}

fn explain(error: Asked, need: &'static str) -> Error {
    match error {
        Asked::Absent | Asked::Ended => Error::Missing(need),
        Asked::Refused(refusal) => Error::Refused(printable(&refusal.message)),
        Asked::Host(source) if source.kind() == ErrorKind::PermissionDenied => Error::Denied,
        error => Error::NoAnswer(error),
    }
}
