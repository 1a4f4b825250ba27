//! Private Postgres, Redis and NATS, certificates and folders: for tests, and for `cargo dev up`.
//!
//! Every service is the real program, on a free loopback port, in a folder of its own. It ends with its
//! handle, and with the process that started it even when that is killed. Nothing here knows a schema, a
//! subject or a key of ours, and nothing here is meant for production.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use ovenbird_testkit::{Folder, Nats, Postgres, Redis, postgres};
//!
//! let folder = Folder::new("example")?; // declared first, so dropped last
//! let postgres = Postgres::start(&folder.path().join("postgres"), postgres::Options::default()).await?;
//! let database = postgres.database("example").await?; // postgres://…/example
//! let nats = Nats::start(&folder.path().join("nats")).await?;
//! # drop((database, nats)); Ok(()) }
//! ```

pub mod certificates;
mod cluster;
mod folder;
pub mod nats;
pub mod pods;
mod port;
pub mod postgres;
pub mod process;
pub mod prometheus;
pub mod redis;
pub mod schemathesis;
mod stalls;
mod wait;

pub use certificates::Authority;
pub use cluster::Cluster;
pub use folder::Folder;
pub use nats::Nats;
pub use port::{Port, Reserved};
pub use postgres::Postgres;
pub use process::Process;
pub use redis::Redis;
pub use stalls::Stalls;
pub use wait::{wait_for, wait_until};
