//! Sandboxes that somebody starts from a template: made, found, used and removed.
//!
//! ```text
//!  intent in the row ──► the host is asked ──► its word in the row
//!        └── whoever dies or hears nothing in between: the bridges' sweep compares row and host
//! ```
//!
//! What changes a sandbox runs in a task of its own, to its end, whether its caller still waits or not; a caller who
//! waits for longer than a minute gets the row as it is then.

mod create;
mod exec;
mod files;
mod host;
mod lifecycle;
mod metrics;
mod path;
mod snapshot;
mod stream;
mod text;
mod work;

use std::time::Duration;

use ovenbird_agent_client::{Agent, Agents, Target};
use ovenbird_contract::{
    id::{SandboxId, TemplateId},
    sandbox::Status,
};
use ovenbird_db::{
    entity::{host::Model as Host, sandbox::Model as Row},
    store::{
        build_admin::After,
        sandbox::{SandboxDetail, SandboxFilter, status},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use create::{Draft, Origin};
pub use exec::{Done, Ran, Run, TIMEOUT_MAX_SEC, TIMEOUT_STREAM_MAX_SEC};
pub use files::{Content, Listing, Range};
pub use snapshot::Naming;
pub use stream::{Item, Output};
pub use text::Text;

use super::{
    App, Error,
    keys::Caller,
    page::{self, Page},
    places::Places,
};
use crate::config;

/// What sandboxes need besides Postgres.
#[derive(Debug)]
pub struct Sandboxes {
    agents: Option<Agents>,
    limits: config::Sandboxes,
    slow_client_timeout: Duration,
    streams: Places,
    /// What changes sandboxes, to its end.
    tasks: TaskTracker,
    stopping: CancellationToken,
}

impl Sandboxes {
    /// Over `agents`, if hosts can be called at all. Streams end as soon as `stopping` is cancelled.
    pub fn new(
        agents: Option<Agents>,
        limits: config::Sandboxes,
        slow_client_timeout: Duration,
        stopping: CancellationToken,
    ) -> Self {
        let streams = Places::new(limits.streams_max, limits.streams_of_one_key_max);
        Self { agents, limits, slow_client_timeout, streams, tasks: TaskTracker::new(), stopping }
    }

    /// Waits until what was begun has ended, for at most `patience`; the sweep looks after the rest.
    pub async fn close(&self, patience: Duration) {
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            let tasks = self.tasks.len();
            tracing::warn!(tasks, "hosts have not answered yet; the sweep looks what came of it");
        }
    }

    /// Commands that are followed now.
    pub fn streams_open(&self) -> usize {
        self.streams.taken()
    }

    fn agents(&self) -> Result<&Agents, Error> {
        self.agents.as_ref().ok_or_else(|| {
            Error::unavailable("host access", "agents.tls is not configured in this api")
        })
    }

    fn agent(&self, host: &Host) -> Result<Agent, Error> {
        agent_of(self.agents()?, host)
    }
}

fn agent_of(agents: &Agents, host: &Host) -> Result<Agent, Error> {
    let target = Target { address: host.address.clone(), server_name: host.server_name.clone() };
    agents.at(&target).map_err(self::host::of_agent)
}

impl App {
    /// What sandboxes need besides Postgres.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.sandboxes
    }

    /// A page of sandboxes that `caller` sees, newest first, with the names of their templates.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn sandbox_list(
        &self,
        caller: &Caller,
        status: Option<Status>,
        template: Option<TemplateId>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<(Row, String)>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let filter = SandboxFilter { status, template, requested_by: caller.sees() };
        let rows = self.store.sandbox_list(&filter, after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |(row, _)| After { created_at: row.created_at, id: row.id }))
    }

    /// A sandbox that `caller` sees.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for a sandbox that the caller may not see.
    pub async fn sandbox_get(
        &self,
        caller: &Caller,
        id: SandboxId,
    ) -> Result<SandboxDetail, Error> {
        self.store
            .sandbox_get(id)
            .await?
            .filter(|found| caller.sees_those_of(&found.sandbox.requested_by))
            .ok_or_else(|| Error::NotFound(format!("sandbox {id}")))
    }

    /// A sandbox that runs, as far as its row knows, and the agent of its host.
    async fn sandbox_in_use(&self, caller: &Caller, id: SandboxId) -> Result<InUse, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        match status(&detail.sandbox)? {
            Status::Running => {}
            other => return Err(Error::SandboxState(other)),
        }
        let agent = self.sandboxes.agent(&detail.host)?;
        Ok(InUse { id: id.to_string(), agent, detail })
    }
}

/// A sandbox that can be asked for something.
struct InUse {
    id: String,
    agent: Agent,
    detail: SandboxDetail,
}
