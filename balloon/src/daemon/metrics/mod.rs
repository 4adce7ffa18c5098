//! The daemon's metrics, in OpenMetrics and in Prometheus' own text format.
//!
//! ```text
//! Fleet --snapshot--> Snapshot --exposition--> text --endpoint--> GET /metrics, on the daemon's socket and on TCP
//! ```
//!
//! Names follow <https://prometheus.io/docs/practices/naming/>: base units, `_total` for what only grows, `_ratio` for what
//! is 1 when it is even. There is one series for what lives, and none for what has ended, so that names that come and go
//! cost nothing here. [`snapshot`] and [`exposition`] are pure.

pub mod endpoint;
pub mod exposition;
mod families;
mod metric;
pub mod snapshot;
#[cfg(test)]
mod tests;
