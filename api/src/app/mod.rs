//! The use cases, without HTTP. Each module is one resource; they take and give plain types and know
//! Postgres, Redis and NATS, but no request.

pub mod builds;
pub mod control;
pub mod error;
pub mod health;
pub mod hosts;
pub mod keys;
pub mod logs;
pub mod page;
mod problem;
pub mod queue;
pub mod slots;
pub mod templates;
pub mod waiting;

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
    slots: slots::Slots,
    bounds: Bounds,
}

impl App {
    /// The use cases over these services. `bounds` hold while no host is known.
    pub fn new(
        store: Store,
        queue: queue::Queue,
        logs: logs::Reader,
        control: control::Control,
        slots: slots::Slots,
        bounds: Bounds,
    ) -> Self {
        Self { store, queue, logs: Arc::new(logs), control, slots, bounds }
    }

    /// Log reading.
    pub fn logs(&self) -> &Arc<logs::Reader> {
        &self.logs
    }
}
