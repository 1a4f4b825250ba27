//! Why a use case did not do what was asked. Transport-neutral: HTTP has its own words for it.

use ovenbird_contract::{build::Status, sandbox};
use sea_orm::{DbErr, RuntimeErr, SqlxError};

use super::Problem;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// What can be in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// A template.
    Template,
    /// A host.
    Host,
}

impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Template => "template",
            Self::Host => "host",
        })
    }
}

/// A use case's refusal or failure.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was submitted is not accepted; all of it is listed.
    #[error("{} problems in the submission", .0.len())]
    Invalid(Vec<Problem>),
    /// A parameter has the wrong form.
    #[error("parameter {} is not accepted", .0.field)]
    Parameter(Problem),
    /// There is no such thing, or not for this caller.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The idempotency key belongs to another request.
    #[error("idempotency key used before with another body")]
    IdempotencyConflict,
    /// The same request is still being carried out.
    #[error("the request with this idempotency key goes on")]
    IdempotencyHeld,
    /// The key sends more requests with an idempotency key than are noted of one.
    #[error("too many requests with idempotency keys")]
    TooManyRepeats,
    /// The request was carried out before, and its answer could not be kept.
    #[error("the answer to this idempotency key was not kept")]
    AnswerNotKept,
    /// Without this key nobody could administer Ovenbird.
    #[error("the key is the last one of scope admin")]
    LastAdminKey,
    /// The build ended otherwise than by a cancel, so that there is nothing to cancel.
    #[error("the build has {0} already")]
    BuildOver(Status),
    /// The build did neither fail nor was it cancelled, so that there is nothing to retry.
    #[error("the build is {0}")]
    BuildNotEnded(Status),
    /// It is needed, or holds what is needed; some of that is listed.
    #[error("the {what} is in use")]
    InUse {
        /// What it is.
        what: Resource,
        /// What is in the way.
        by: Vec<Problem>,
    },
    /// The template came with a host, under this name, and goes only there.
    #[error("template {0} came with a host")]
    TemplateOfHost(String),
    /// The template was deleted while something was to start from it.
    #[error("the template is deleted")]
    TemplateDeleted,
    /// No authority signs certificates of hosts here.
    #[error("there is no authority for hosts' certificates")]
    RegistrationOff,
    /// The token of a host's agent is unknown, over, or was used.
    #[error("the registration token is not accepted")]
    RegistrationRefused,
    /// No host may renew its certificate with the key.
    #[error("the key's certificate is not renewed")]
    RenewalRefused,
    /// Another host has registered with the same address or key.
    #[error("another host has the {0}")]
    HostTaken(&'static str),
    /// The host takes builds; its state.
    #[error("the host is {0}")]
    HostNotDrained(String),
    /// No more logs can be followed at once.
    #[error("as many logs are followed as may be")]
    TooManyStreams,
    /// The sandbox is in no state for that.
    #[error("the sandbox is {0}")]
    SandboxState(sandbox::Status),
    /// The sandbox does not do it, as things are in it.
    #[error("the sandbox refuses it: {0}")]
    SandboxRefused(String),
    /// The sandbox's disk is full, or its host does too many such things.
    #[error("the sandbox has no room for it: {0}")]
    SandboxFull(String),
    /// No host has room, or none that answers holds the template.
    #[error("there is no room: {0}")]
    NoCapacity(String),
    /// The sandbox's host does not answer, or cannot do it now.
    #[error("the host does not do it")]
    HostUnavailable {
        /// What it said.
        #[source]
        source: Source,
    },
    /// No byte of the range is in the file.
    #[error("the range is outside of a file of {size} bytes")]
    RangeOutside {
        /// The file's size.
        size: u64,
    },
    /// What was to be written did not come to its end; nothing was written.
    #[error("the upload broke off")]
    UploadBroken(#[source] std::io::Error),
    /// More was uploaded than may be.
    #[error("the upload is larger than {max} bytes")]
    UploadTooLarge {
        /// Most bytes.
        max: u64,
    },
    /// Nothing came for too long.
    #[error("the upload stands still")]
    UploadTooSlow,
    /// No more can be uploaded at once.
    #[error("as much is uploaded as may be")]
    TooManyUploads,
    /// There is no room for another context, and why.
    #[error("there is no room for the context: {0}")]
    ContextsFull(String),
    /// A service did not answer, or not in time.
    #[error("{service} is unavailable")]
    Unavailable {
        /// Postgres, NATS or Redis.
        service: &'static str,
        /// What it said.
        #[source]
        source: Source,
    },
    /// A fault of ours.
    #[error("{doing} failed")]
    Internal {
        /// What was being done.
        doing: &'static str,
        /// What happened.
        #[source]
        source: Source,
    },
}

impl Error {
    /// A service that did not answer.
    pub fn unavailable(service: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { service, source: source.into() }
    }

    /// A fault of ours.
    pub fn internal(doing: &'static str, source: impl Into<Source>) -> Self {
        Self::Internal { doing, source: source.into() }
    }
}

impl From<ovenbird_db::Error> for Error {
    fn from(error: ovenbird_db::Error) -> Self {
        match &error {
            ovenbird_db::Error::TemplateDeleted => Self::TemplateDeleted,
            ovenbird_db::Error::ContextGone => Self::Invalid(vec![Problem::context_not_found()]),
            ovenbird_db::Error::Database(cause) if is_away(cause) => {
                Self::unavailable("Postgres", error)
            }
            _ => Self::internal("a database query", error),
        }
    }
}

/// Whether Postgres could not be asked, rather than said no.
fn is_away(error: &DbErr) -> bool {
    match error {
        DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
        DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
            match cause.as_database_error().and_then(|refusal| refusal.code()) {
                // Connection exceptions, no resources, and an operator who stops it; Postgres' appendix A.
                Some(code) => ["08", "53", "57"].iter().any(|class| code.starts_with(class)),
                None => matches!(
                    **cause,
                    SqlxError::Io(_)
                        | SqlxError::Tls(_)
                        | SqlxError::PoolTimedOut
                        | SqlxError::PoolClosed
                ),
            }
        }
        _ => false,
    }
}
