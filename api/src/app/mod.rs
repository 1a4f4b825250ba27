//! The use cases, without HTTP. Each module is one resource; they take and give plain types and know
//! Postgres, Redis and NATS, but no request.

pub mod builds;
pub mod control;
mod error;
pub mod events;
pub mod health;
pub mod keys;
pub mod logs;
pub mod page;
mod problem;
pub mod queue;
pub mod sessions;
pub mod templates;

use std::sync::Arc;

use ovenbird_db::Store;

pub use error::Error;
pub use problem::Problem;

use crate::config::Bounds;

/// Everything a use case needs.
#[derive(Debug)]
pub struct App {
    store: Store,
    queue: queue::Queue,
    logs: Arc<logs::Reader>,
    control: control::Control,
    bounds: Bounds,
}

impl App {
    /// The use cases over these services. `bounds` hold while no host is known.
    pub fn new(
        store: Store,
        queue: queue::Queue,
        logs: logs::Reader,
        control: control::Control,
        bounds: Bounds,
    ) -> Self {
        Self { store, queue, logs: Arc::new(logs), control, bounds }
    }

    /// Log reading.
    pub fn logs(&self) -> &Arc<logs::Reader> {
        &self.logs
    }
}
