//! What can go wrong in a call, sorted by what callers do about it.

use std::error::Error as _;

use tonic::{Code, Status};

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host's address or name is no valid one, or its TLS settings are unusable.
    #[error("`{address}` cannot be called")]
    BadTarget {
        /// The address as given.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// No connection, or it broke during the call: whether the call took effect is unknown.
    #[error("the host agent cannot be reached")]
    Unreachable {
        /// What the transport said.
        message: String,
        /// Why.
        #[source]
        source: Box<Status>,
    },
    /// The call took longer than its deadline, or the command longer than its time.
    #[error("no answer within the deadline: {message}")]
    DeadlineExceeded {
        /// Which deadline.
        message: String,
    },
    /// Unknown sandbox, template, command or file.
    #[error("not found: {message}")]
    NotFound {
        /// What.
        message: String,
    },
    /// The name is taken.
    #[error("already exists: {message}")]
    AlreadyExists {
        /// What.
        message: String,
    },
    /// A higher attempt of the same build has called this host: the caller was replaced.
    #[error("the fence is stale: {message}")]
    StaleFence {
        /// The agent's words.
        message: String,
    },
    /// The sandbox is in no state for that, paused for example.
    #[error("refused in this state: {message}")]
    FailedPrecondition {
        /// The agent's words.
        message: String,
    },
    /// The sandbox stopped by its host's fault, not by what ran in it.
    #[error("the sandbox is lost: {message}")]
    SandboxLost {
        /// The agent's words.
        message: String,
    },
    /// The host has no room.
    #[error("the host has no room: {message}")]
    NoRoom {
        /// What is short.
        message: String,
    },
    /// The agent refuses an argument; repeating changes nothing.
    #[error("invalid argument: {message}")]
    InvalidArgument {
        /// Which one.
        message: String,
    },
    /// The agent itself says that it cannot now; for CreateSandbox: the guest did not become ready, and the
    /// message ends with the tail of its console.
    #[error("unavailable: {message}")]
    Unavailable {
        /// The agent's words.
        message: String,
    },
    /// The agent refuses the certificate.
    #[error("the host agent refuses this caller: {message}")]
    Forbidden {
        /// The agent's words.
        message: String,
    },
    /// The agent is too old for the call.
    #[error("the host agent does not know this call: {message}")]
    Unimplemented {
        /// The agent's words.
        message: String,
    },
    /// What was to be written could not be read on this side; nothing was written.
    #[error("the source of the file failed")]
    Source(#[source] std::io::Error),
    /// A fault inside of the agent.
    #[error("the host agent failed ({code}): {message}")]
    Internal {
        /// The gRPC code's name.
        code: &'static str,
        /// The agent's words.
        message: String,
    },
}

/// These words are in the agent's FAILED_PRECONDITION when a fence is stale, and in no other.
const STALE_FENCE: &str = "has called since";
/// All that an agent says in its UNAVAILABLE when it is ending; whatever else is unavailable says more.
const CLOSING: &str = "this host agent is shutting down";
/// One of these is in the agent's FAILED_PRECONDITION when a sandbox did not outlive its agent, and in no other.
const SANDBOX_LOST: [&str; 4] = [
    "the host agent ended while",
    "while no agent ran",
    "cannot be taken over",
    "saved state is gone",
];

impl Error {
    /// The text that came with the error, for people.
    pub fn message(&self) -> String {
        match self {
            Self::BadTarget { address, source } => format!("{address}: {source}"),
            Self::Source(error) => error.to_string(),
            Self::Unreachable { message, .. }
            | Self::DeadlineExceeded { message }
            | Self::NotFound { message }
            | Self::AlreadyExists { message }
            | Self::StaleFence { message }
            | Self::FailedPrecondition { message }
            | Self::SandboxLost { message }
            | Self::NoRoom { message }
            | Self::InvalidArgument { message }
            | Self::Unavailable { message }
            | Self::Forbidden { message }
            | Self::Unimplemented { message }
            | Self::Internal { message, .. } => message.clone(),
        }
    }

    /// Whether the host could not be reached, so that a repeatable call may be repeated.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether the agent is ending and has therefore not begun what was asked: the next one may be there in a moment.
    pub fn is_closing(&self) -> bool {
        matches!(self, Self::Unavailable { message } if message == CLOSING)
    }

    pub(crate) fn from_status(status: Status) -> Self {
        // A status with a source was made on this side: the transport failed, the agent did not answer.
        if status.source().is_some() {
            return Self::Unreachable { message: root_cause(&status), source: Box::new(status) };
        }
        let message = status.message().to_owned();
        let internal = |code| Self::Internal { code, message: status.message().to_owned() };
        match status.code() {
            Code::NotFound => Self::NotFound { message },
            Code::AlreadyExists => Self::AlreadyExists { message },
            Code::FailedPrecondition if message.contains(STALE_FENCE) => {
                Self::StaleFence { message }
            }
            Code::FailedPrecondition
                if SANDBOX_LOST.iter().any(|words| message.contains(words)) =>
            {
                Self::SandboxLost { message }
            }
            Code::FailedPrecondition => Self::FailedPrecondition { message },
            Code::ResourceExhausted => Self::NoRoom { message },
            Code::InvalidArgument | Code::OutOfRange => Self::InvalidArgument { message },
            Code::DeadlineExceeded => Self::DeadlineExceeded { message },
            Code::Unavailable => Self::Unavailable { message },
            Code::PermissionDenied | Code::Unauthenticated => Self::Forbidden { message },
            Code::Unimplemented => Self::Unimplemented { message },
            Code::Ok => internal("ok"),
            Code::Cancelled => internal("cancelled"),
            Code::Unknown => internal("unknown"),
            Code::Aborted => internal("aborted"),
            Code::Internal => internal("internal"),
            Code::DataLoss => internal("data loss"),
        }
    }
}

/// The innermost cause says what happened ("connection refused"); the outer ones only that something did.
fn root_cause(status: &Status) -> String {
    let mut cause = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answer_of_the_agent_is_told_apart_from_a_broken_connection() {
        let answered = Error::from_status(Status::unavailable("guest not ready"));
        assert!(matches!(answered, Error::Unavailable { .. }));
        assert!(!answered.is_closing());
        let mut broken = Status::unavailable("transport error");
        broken.set_source(std::sync::Arc::new(std::io::Error::other("connection reset")));
        let broken = Error::from_status(broken);
        assert!(broken.is_unreachable());
        assert_eq!(broken.message(), "connection reset");
    }

    #[test]
    fn agent_that_is_ending_is_told_apart_from_a_guest_that_says_so() {
        assert!(Error::from_status(Status::unavailable(CLOSING)).is_closing());
        let console =
            format!("the guest was not ready in time; the end of its console:\n{CLOSING}");
        assert!(!Error::from_status(Status::unavailable(console)).is_closing());
    }

    #[test]
    fn stale_fence_and_lost_sandbox_are_told_apart_from_other_wrong_states() {
        let stale = Error::from_status(Status::failed_precondition(
            "attempt 1 of build b is over: attempt 2 has called since",
        ));
        assert!(matches!(stale, Error::StaleFence { .. }));
        let lost = Error::from_status(Status::failed_precondition(
            "sandbox s is stopped, not running: its QEMU ended while no agent ran",
        ));
        assert!(matches!(lost, Error::SandboxLost { .. }));
        let paused = Error::from_status(Status::failed_precondition("sandbox is paused"));
        assert!(matches!(paused, Error::FailedPrecondition { .. }));
    }
}
