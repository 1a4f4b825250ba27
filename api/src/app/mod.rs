//! The use cases, without HTTP. Each module is one resource; they take and give plain types and know
//! Postgres, Redis, NATS and host agents, but no request.

pub mod audit;
pub mod builds;
pub mod contexts;
pub mod control;
pub mod error;
pub mod events;
pub mod health;
pub mod hosts;
pub mod idempotency;
pub mod keys;
pub mod logs;
pub mod page;
pub mod places;
mod problem;
pub mod queue;
pub mod rate;
pub mod readers;
pub mod registration;
pub mod sandboxes;
pub mod seal;
pub mod sessions;
pub mod slots;
pub mod strangers;
pub mod templates;
pub mod waiting;

use std::sync::Arc;

use ovenbird_db::Store;
use tokio_util::task::TaskTracker;

pub use error::Error;
pub use problem::Problem;

use crate::{config::Bounds, metrics::Metrics, nats_access::Revoker};

/// Everything a use case needs.
#[derive(Debug)]
pub struct App {
    store: Store,
    queue: queue::Queue,
    logs: Arc<logs::Reader>,
    control: control::Control,
    revoker: Revoker,
    sandboxes: sandboxes::Sandboxes,
    limiter: rate::Limiter,
    slots: slots::Slots,
    registrar: registration::Registrar,
    contexts: contexts::Contexts,
    bounds: Bounds,
    changes: TaskTracker,
    strangers: strangers::Strangers,
    metrics: Metrics,
}

impl App {
    /// The use cases over these services. `bounds` hold while no host is known.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a service of its own, named once, where all are made"
    )]
    pub fn new(
        store: Store,
        queue: queue::Queue,
        logs: logs::Reader,
        control: control::Control,
        revoker: Revoker,
        sandboxes: sandboxes::Sandboxes,
        limiter: rate::Limiter,
        slots: slots::Slots,
        registrar: registration::Registrar,
        contexts: contexts::Contexts,
        bounds: Bounds,
    ) -> Self {
        Self {
            store,
            queue,
            logs: Arc::new(logs),
            control,
            revoker,
            sandboxes,
            limiter,
            slots,
            registrar,
            contexts,
            bounds,
            changes: TaskTracker::new(),
            strangers: strangers::Strangers::default(),
            metrics: Metrics::default(),
        }
    }

    /// Log reading.
    pub fn logs(&self) -> &Arc<logs::Reader> {
        &self.logs
    }

    /// Callers of whom nothing is known.
    pub fn strangers(&self) -> &strangers::Strangers {
        &self.strangers
    }

    /// What counts what happens.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Connections to Postgres that are used, and that are idle.
    pub fn database_connections(&self) -> (u32, u32) {
        self.store.connections()
    }

    /// The changes that are being made. One that has begun is made, also when its client goes away.
    pub fn changes(&self) -> &TaskTracker {
        &self.changes
    }
}
