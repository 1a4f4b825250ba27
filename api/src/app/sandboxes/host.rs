//! What an agent's error means to whoever asked for something: one exhaustive match, and a second question where the
//! agent's code alone does not tell a sandbox that is gone from a file that is.

use ovenbird_agent_client::{Agent, Error as AgentError};
use ovenbird_contract::sandbox::{Seen, Status};

use super::InUse;
use crate::app::{Error, Problem};

/// An error that says nothing about the sandbox itself.
pub(super) fn of_agent(error: AgentError) -> Error {
    match error {
        AgentError::Unreachable { .. }
        | AgentError::DeadlineExceeded { .. }
        | AgentError::Unavailable { .. } => Error::HostUnavailable { source: error.into() },
        AgentError::NotFound { message } => Error::NotFound(message),
        AgentError::FailedPrecondition { message } | AgentError::AlreadyExists { message } => {
            Error::SandboxRefused(message)
        }
        AgentError::SandboxLost { .. } => Error::SandboxState(Status::Failed),
        // A newer call of ours: the sandbox is being destroyed.
        AgentError::StaleFence { .. } => Error::SandboxState(Status::Destroying),
        AgentError::NoRoom { message } => Error::SandboxFull(message),
        AgentError::InvalidArgument { message } => {
            Error::Invalid(vec![Problem::new(Problem::WHOLE, "invalid_value", message)])
        }
        AgentError::BadTarget { .. }
        | AgentError::Forbidden { .. }
        | AgentError::Unimplemented { .. }
        | AgentError::Source(_)
        | AgentError::Internal { .. } => Error::internal("a call of a host agent", error),
    }
}

/// What a host says of a sandbox.
pub(super) async fn look(agent: &Agent, id: &str) -> Result<Seen, AgentError> {
    let listed = agent.list_sandboxes().await?;
    let found = listed.iter().find(|info| info.sandbox_id == id);
    Ok(found.map_or(Seen::Absent, |info| Seen::of(&info.status)))
}

impl InUse {
    /// What an error about this sandbox, or about `what` in it, means.
    pub(super) async fn explain(&self, error: AgentError, what: &str) -> Error {
        let is_about_either =
            matches!(error, AgentError::NotFound { .. } | AgentError::FailedPrecondition { .. });
        if !is_about_either {
            return of_agent(error);
        }
        match look(&self.agent, &self.id).await {
            Ok(Seen::Runs) => match error {
                AgentError::NotFound { .. } => Error::NotFound(what.to_owned()),
                error => of_agent(error),
            },
            // The row says so soon.
            Ok(Seen::Sleeps) => Error::SandboxState(Status::Paused),
            Ok(Seen::Passes) => Error::SandboxState(Status::Pausing),
            Ok(Seen::Stopped | Seen::Absent) => Error::SandboxState(Status::Failed),
            Err(error) => of_agent(error),
        }
    }
}
