//! What is done with a sandbox: the intent goes into its row, the host is asked, and its word is written.

use std::time::Duration;

use ovenbird_agent_client::{Agent, Error as AgentError, NewSandbox};
use ovenbird_contract::{
    id::SandboxId,
    sandbox::{Event, Reason, ReasonCode, Settlement, Status},
};
use ovenbird_db::{
    Store,
    entity::sandbox::Model as Row,
    store::{
        sandbox::{MetricPoint, status},
        sandbox_state::{Begun, Intent, Word},
    },
};
use ovenbird_kit::telemetry;
use tracing::Instrument as _;

use super::{
    Naming,
    host::{look, of_agent},
    metrics::kept,
};
use crate::app::{App, Error};

/// A caller who waits for longer gets the row as it is: connections do not stay silent for ever.
const WAIT: Duration = Duration::from_secs(60);
/// How long the host's answers may take, their deadlines and some seconds for Postgres.
pub(super) const BUSY_CREATE: Duration = Duration::from_secs(200);
const BUSY_PAUSE: Duration = Duration::from_secs(200);
const BUSY_SAVE: Duration = Duration::from_secs(16 * 60);
const BUSY_DESTROY: Duration = Duration::from_secs(90);

/// The attempt that makes a sandbox, and the one that destroys it: a creation that comes late is refused.
const CREATE_ATTEMPT: u32 = 1;
const DESTROY_ATTEMPT: u32 = 2;

/// One sandbox on its host.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub(super) store: Store,
    pub(super) agent: Agent,
    pub(super) id: SandboxId,
}

impl App {
    /// Runs `work` to its end, and waits for it as long as a caller does.
    pub(super) async fn sandbox_work(
        &self,
        id: SandboxId,
        work: impl Future<Output = Result<Row, Error>> + Send + 'static,
    ) -> Result<Row, Error> {
        let task = self.sandboxes.tasks.spawn(work.in_current_span());
        match tokio::time::timeout(WAIT, task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(Error::internal("a change of a sandbox", panic)),
            Err(_) => {
                let found = self.store.sandbox_get(id).await?;
                found
                    .map(|found| found.sandbox)
                    .ok_or_else(|| Error::NotFound(format!("sandbox {id}")))
            }
        }
    }
}

impl Work {
    /// Makes the sandbox of a new row.
    pub(super) async fn create(self, row: Row, new: NewSandbox) -> Result<Row, Error> {
        let agent = self.agent.clone().fenced(self.id.to_string(), CREATE_ATTEMPT);
        match agent.create_sandbox(&new).await {
            Ok(made) => {
                tracing::info!(sandbox.id = %self.id, "sandbox runs");
                let word = Word { host_ip: Some(made.host_ip), ..Word::of(Event::Runs) };
                match self.store.sandbox_told(&row, &word).await? {
                    Some(row) => Ok(row),
                    // Somebody destroyed it while it was being made.
                    None => {
                        Err(Error::SandboxState(self.row().await.and_then(|it| Ok(status(&it)?))?))
                    }
                }
            }
            Err(error) => {
                tracing::info!(sandbox.id = %self.id, error = telemetry::chain(&error), "not made");
                self.not_made(&row, &error).await?;
                Err(refusal(error))
            }
        }
    }

    /// The host has undone what it began, or nobody knows: then it is told to.
    async fn not_made(&self, row: &Row, error: &AgentError) -> Result<(), Error> {
        let reason = Reason { message: error.message(), ..ReasonCode::CreateFailed.reason() };
        if is_certain(error) {
            self.store.sandbox_told(row, &Word::fails(reason)).await?;
            return Ok(());
        }
        let intent = Intent::Destroy { reason: Some(reason) };
        let begun =
            self.store.sandbox_begin(self.id, &intent, Some(row.revision), BUSY_DESTROY).await?;
        if let Begun::Row(row) = begun {
            // What does not succeed here is the sweep's.
            let _ = self.clone().destroy(*row).await;
        }
        Ok(())
    }

    pub(super) async fn pause(self) -> Result<Row, Error> {
        let row = match self.begin(Intent::Pause, BUSY_PAUSE).await? {
            Begun::Row(row) => *row,
            // Somebody was faster.
            Begun::Refused(row) if status(&row)? == Status::Paused => return Ok(*row),
            other => return Err(self.not_begun(other)),
        };
        match self.agent.pause_sandbox(&self.id.to_string()).await {
            Ok(()) => self.told(&row, Word::of(Event::Sleeps)).await,
            Err(error) => self.not_done(&row, error).await,
        }
    }

    pub(super) async fn resume(self, timeout_sec: Option<u32>) -> Result<Row, Error> {
        let row = match self.begin(Intent::Resume { timeout_sec }, BUSY_PAUSE).await? {
            Begun::Row(row) => *row,
            other => return Err(self.not_begun(other)),
        };
        let timeout_sec = row.timeout_sec.unsigned_abs();
        match self.agent.resume_sandbox(&self.id.to_string(), timeout_sec).await {
            Ok(made) => {
                let word = Word { host_ip: Some(made.host_ip), ..Word::of(Event::Runs) };
                self.told(&row, word).await
            }
            Err(error) => self.not_done(&row, error).await,
        }
    }

    /// Makes a template of it.
    pub(super) async fn save(self, naming: Naming) -> Result<Row, Error> {
        let Naming { name, tag, template, .. } = naming;
        let intent = Intent::Save { template, name, tag };
        let row = match self.begin(intent, BUSY_SAVE).await? {
            Begun::Row(row) => *row,
            other => return Err(self.not_begun(other)),
        };
        let host_name = template.to_string();
        self.keep_metrics().await;
        match self.agent.create_snapshot(&self.id.to_string(), &host_name).await {
            Ok(size_bytes) => match self.store.sandbox_saved(&row, size_bytes).await? {
                Some(row) => {
                    tracing::info!(sandbox.id = %self.id, template.id = host_name, "sandbox is a template");
                    Ok(row)
                }
                None => self.row().await,
            },
            Err(error) => self.not_done(&row, error).await,
        }
    }

    /// Removes it because somebody wishes so.
    pub(super) async fn delete(self) -> Result<Row, Error> {
        match self.begin(Intent::Destroy { reason: None }, BUSY_DESTROY).await? {
            Begun::Row(row) => self.destroy(*row).await,
            // It is over.
            Begun::Refused(row) => Ok(*row),
            other => Err(self.not_begun(other)),
        }
    }

    async fn begin(&self, intent: Intent, busy: Duration) -> Result<Begun, Error> {
        Ok(self.store.sandbox_begin(self.id, &intent, None, busy).await?)
    }

    /// Why nothing was begun.
    fn not_begun(&self, begun: Begun) -> Error {
        match begun {
            Begun::Refused(row) | Begun::Row(row) => match status(&row) {
                Ok(status) => Error::SandboxState(status),
                Err(error) => error.into(),
            },
            Begun::NoRoom => Error::NoCapacity("its host has no room for it now".into()),
            Begun::NotFound => Error::NotFound(format!("sandbox {}", self.id)),
        }
    }

    /// Removes it. A host that does not do it now is asked again by the sweep, so that this is no error.
    async fn destroy(self, row: Row) -> Result<Row, Error> {
        self.keep_metrics().await;
        let agent = self.agent.clone().fenced(self.id.to_string(), DESTROY_ATTEMPT);
        match agent.destroy_sandbox(&self.id.to_string()).await {
            Ok(()) => {
                tracing::info!(sandbox.id = %self.id, "sandbox is destroyed");
                self.told(&row, Word::removed(&row)).await
            }
            Err(error) => {
                tracing::info!(
                    sandbox.id = %self.id, error = telemetry::chain(&error),
                    "not destroyed yet; the sweep tries again"
                );
                self.row().await
            }
        }
    }

    /// The host's word, unless somebody has written since: then what stands there.
    async fn told(&self, row: &Row, word: Word) -> Result<Row, Error> {
        match self.store.sandbox_told(row, &word).await? {
            Some(row) => Ok(row),
            None => self.row().await,
        }
    }

    /// What a call that failed has left is what the host says now; where it says nothing, the sweep asks again.
    async fn not_done(&self, row: &Row, error: AgentError) -> Result<Row, Error> {
        match look(&self.agent, &self.id.to_string()).await {
            Ok(seen) => match status(row)?.settle(seen) {
                Settlement::Apply(event) => {
                    self.store.sandbox_told(row, &Word::of(event)).await?;
                }
                Settlement::GiveUp(_) => return Err(Error::SandboxState(Status::Failed)),
                Settlement::Keep | Settlement::Remove | Settlement::LookForTemplate => {}
            },
            Err(again) => {
                tracing::info!(sandbox.id = %self.id, error = telemetry::chain(&again), "not looked at");
            }
        }
        Err(match error {
            AgentError::NoRoom { message } => Error::NoCapacity(message),
            AgentError::NotFound { .. } => Error::SandboxState(Status::Failed),
            error => of_agent(error),
        })
    }

    async fn row(&self) -> Result<Row, Error> {
        let found = self.store.sandbox_get(self.id).await?;
        found.map(|it| it.sandbox).ok_or_else(|| Error::NotFound(format!("sandbox {}", self.id)))
    }

    /// They end with the sandbox. One that has none, or a host that is away, holds up nothing.
    async fn keep_metrics(&self) {
        let Ok(points) = self.agent.flush_sandbox_metrics(&self.id.to_string()).await else {
            return;
        };
        let points: Vec<(&str, MetricPoint)> = points
            .into_iter()
            .filter_map(|(range, point)| Some((range.as_str(), kept(point)?)))
            .collect();
        if let Err(error) = self.store.sandbox_metrics_store(self.id, &points).await {
            tracing::warn!(sandbox.id = %self.id, error = telemetry::chain(&error), "metrics are lost");
        }
    }
}

/// Whether the host has said that nothing was made, or was not asked at all.
fn is_certain(error: &AgentError) -> bool {
    match error {
        AgentError::BadTarget { .. }
        | AgentError::NotFound { .. }
        | AgentError::AlreadyExists { .. }
        | AgentError::StaleFence { .. }
        | AgentError::FailedPrecondition { .. }
        | AgentError::SandboxLost { .. }
        | AgentError::NoRoom { .. }
        | AgentError::InvalidArgument { .. }
        | AgentError::Unavailable { .. }
        | AgentError::Forbidden { .. }
        | AgentError::Unimplemented { .. }
        | AgentError::Source(_) => true,
        AgentError::Unreachable { .. }
        | AgentError::DeadlineExceeded { .. }
        | AgentError::Internal { .. } => false,
    }
}

/// What a creation that failed is answered.
fn refusal(error: AgentError) -> Error {
    match error {
        AgentError::NoRoom { message } => Error::NoCapacity(message),
        AgentError::NotFound { .. } => {
            Error::NoCapacity("the host has lost the template; try again".into())
        }
        error => of_agent(error),
    }
}
