//! What two processes of Ovenbird must agree on: ids, states of builds and sandboxes, jobs, desk messages, events, log
//! records, NATS subjects and streams, Redis keys.
//!
//! Pure data: no I/O, no runtime, nothing else of ours. Shapes may gain fields, never lose them: every
//! reader ignores fields it does not know. Host calls stand in `proto/hostagent`, REST shapes in
//! `openapi/openapi.json`.

pub mod build;
pub mod desk;
pub mod event;
pub mod id;
pub mod job;
pub mod limits;
pub mod log;
pub mod nats;
pub mod nats_access;
pub mod redis;
pub mod sandbox;
pub mod standing;
pub mod step;
