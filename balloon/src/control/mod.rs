//! Control sockets: HTTP/1.1 and JSON on a Unix stream socket, for people with curl, for `ballast` and between
//! `ballastd` and the microVMs.
//!
//! ```text
//! bytes -> connection -> http -> Service -> http -> connection -> bytes             server: sockets, time
//! ```
//!
//! Only [`server`] and [`listener`] touch descriptors, and [`server`] clocks. It runs in an event loop among others that must not wait for
//! it, so that everything is bounded: clients, bytes held for one, work in one pass. A client is trusted no more than
//! a guest is. What a microVM's socket offers is in [`api`]; the VMM serves it.

pub mod api;
pub mod client;
pub mod connection;
pub mod events;
pub mod fleet;
pub mod host_trace;
pub mod http;
pub mod link;
pub mod listener;
#[cfg(test)]
pub mod openapi_check;
pub mod orders;
pub(crate) mod peer;
pub mod reclaim;
pub mod server;
pub mod service;
