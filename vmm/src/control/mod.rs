//! The control socket: HTTP/1.1 and JSON on a Unix stream socket, for people with curl, for `ballast` and for
//! whatever manages many microVMs.
//!
//! ```text
//! bytes -> connection -> http -> routes -> Memory -> routes -> http -> connection -> bytes      server: sockets, time
//! ```
//!
//! Only [`server`] touches descriptors and clocks. It runs in the VMM's event loop, among devices that must not
//! wait for it, so that everything is bounded: clients, bytes held for one, work in one pass. A client is
//! trusted no more than the guest is. What the socket offers is described by `vmm/openapi.yaml`, which a test
//! compares with these types.

pub mod api;
pub mod ballooned;
#[cfg(test)]
mod ballooned_tests;
pub mod connection;
pub mod http;
pub mod memory;
#[cfg(test)]
mod openapi_tests;
pub mod routes;
pub mod server;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod tests;
