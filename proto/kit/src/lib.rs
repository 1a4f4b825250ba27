//! What every process of Ovenbird does alike: read its configuration, write telemetry, stop in order.
//!
//! No business of any one process stands here, and no connection to any service.

pub mod config;
pub mod metrics;
pub mod secret;
pub mod shutdown;
pub mod telemetry;
pub mod tls;

pub use secret::Secret;
