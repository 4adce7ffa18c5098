//! What a microVM's control socket offers: [`balloon::control`] serves it.
//!
//! ```text
//! request -> service -> routes -> Memory -> routes -> response
//! ```
//!
//! `vmm/openapi.yaml` describes it, and a test compares that with these types.

pub mod ballooned;
#[cfg(test)]
mod ballooned_tests;
pub mod memory;
#[cfg(test)]
mod openapi_tests;
pub mod routes;
#[cfg(test)]
mod server_tests;
pub mod service;
pub mod shared;
#[cfg(test)]
mod tests;
