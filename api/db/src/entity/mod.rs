//! The tables, one file each: passive rows in the database's own types. The store turns them into ids,
//! states and shapes of the contract.

pub mod api_key;
pub mod audit_log;
pub mod build_log_chunk;
pub mod context;
pub mod host;
pub mod idempotency_key;
pub mod sandbox;
pub mod sandbox_metric_point;
pub mod session;
pub mod template;
pub mod template_build;
pub mod template_placement;
pub mod template_tag;
