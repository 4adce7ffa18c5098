//! What a microVM's control socket offers: [`balloon::control`] serves it.
//!
//! ```text
//! request -> service -> routes -> Memory -> routes -> response
//!                          |
//!                        orders -> Agent -> the guest's agent            answered later, by a ticket
//! ```
//!
//! `vmm/openapi.yaml` describes it, and a test compares that with these types.

pub mod agent;
pub mod arbiter;
pub mod ballooned;
#[cfg(test)]
mod ballooned_tests;
pub mod exec;
pub mod host_nodes;
pub mod limits;
#[cfg(test)]
mod link_tests;
pub mod memory;
#[cfg(test)]
mod openapi_tests;
pub mod orders;
#[cfg(test)]
mod orders_bench;
#[cfg(test)]
mod orders_tests;
pub mod paging;
pub mod routes;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod server_tests;
pub mod service;
pub mod shared;
#[cfg(test)]
mod tests;
pub mod ticks;
pub mod trim;
pub mod zone_max;
