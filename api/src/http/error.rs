//! The one shape of every error answer, and how the inner errors become it.
//!
//! Nothing inside is told outside: a 5xx carries the general sentence of its code, and its cause goes to
//! the log, once, here.

use ovenbird_contract::sandbox;
use ovenbird_kit::telemetry;
use poem::{IntoResponse, Response, http::header};
use poem_openapi::{
    ApiResponse, Object,
    payload::{Json, Payload},
    registry::{MetaMediaType, MetaResponse, MetaResponses, Registry},
    types::{ToJSON, Type},
};

use super::code::Code;
use crate::app::{self, error::Resource};

/// Every error answer.
#[derive(Debug, Clone, Object)]
pub struct Error {
    /// What went wrong.
    pub error: ErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, Object)]
pub struct ErrorBody {
    /// A stable word to match on.
    #[oai(validator(pattern = "^[a-z_]+$"))]
    pub code: String,
    /// A sentence for people; it may change.
    pub message: String,
    /// Everything that is wrong with the request, where it is the request's fault; otherwise empty.
    pub details: Vec<Problem>,
}

/// One thing that is wrong with the request.
#[derive(Debug, Clone, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Problem {
    /// Where: a field of the body as a path (`name`, `recipe[2].timeout`) or a parameter's name.
    pub field: String,
    /// A stable word.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line, from 1, in a recipe or a healthcheck. In a list of steps each element counts its own lines.
    #[oai(validator(minimum(value = "1")))]
    pub line: Option<u32>,
    /// The column in that line, in characters from 1.
    #[oai(validator(minimum(value = "1")))]
    pub column: Option<u32>,
}

impl From<app::Problem> for Problem {
    fn from(problem: app::Problem) -> Self {
        let code = &problem.code;
        debug_assert!(super::code::is_detail(code), "`{code}` is not in the golden list");
        Self {
            field: problem.field,
            code: problem.code.into_owned(),
            message: problem.message,
            hint: problem.hint,
            line: problem.line,
            column: problem.column,
        }
    }
}

/// An error answer on its way out.
#[derive(Debug)]
pub struct Failure {
    code: Code,
    message: String,
    details: Vec<Problem>,
    made_nothing: bool,
}

/// Marks an answer after which nothing of the request is left, and nothing will come of it, though its status alone
/// does not say so.
#[derive(Debug, Clone, Copy)]
pub(super) struct MadeNothing;

impl Failure {
    /// A failure with the general sentence of its code.
    pub fn new(code: Code) -> Self {
        Self::with_message(code, code.meaning())
    }

    /// A failure with a sentence of its own.
    pub fn with_message(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new(), made_nothing: false }
    }

    /// A failure that lists what is wrong.
    pub fn with_problems(code: Code, problems: Vec<app::Problem>) -> Self {
        let message = match problems.as_slice() {
            [only] => format!("{}: {}", only.field, only.message),
            more => format!("{} things are wrong; see details", more.len()),
        };
        let details = problems.into_iter().map(Into::into).collect();
        Self { code, message, details, made_nothing: false }
    }

    /// The same failure, of a request that may be carried out anew under its `Idempotency-Key`.
    #[must_use]
    pub fn having_made_nothing(self) -> Self {
        Self { made_nothing: true, ..self }
    }

    /// The body, as it is sent.
    pub fn body(&self) -> Error {
        Error {
            error: ErrorBody {
                code: self.code.as_str().to_owned(),
                message: self.message.clone(),
                details: self.details.clone(),
            },
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::builder()
            .status(self.code.status())
            .content_type("application/json")
            .body(self.body().to_json_string());
        // For the audit log.
        response.set_data(self.code);
        if self.made_nothing {
            response.set_data(MadeNothing);
        }
        match self.code {
            Code::Unauthorized => {
                response.with_header(header::WWW_AUTHENTICATE, "Bearer").into_response()
            }
            Code::Unavailable
            | Code::TooManyStreams
            | Code::RateLimited
            | Code::TooManyUploads
            | Code::IdempotencyHeld
            | Code::NoCapacity
            | Code::HostUnavailable
            | Code::SandboxBusy => response.with_header(header::RETRY_AFTER, "2").into_response(),
            _ => response,
        }
    }
}

impl From<Failure> for poem::Error {
    fn from(failure: Failure) -> Self {
        let (code, made_nothing) = (failure.code, failure.made_nothing);
        let mut error = Self::from_response(failure.into_response());
        // Data of the response is lost on this way.
        error.set_data(code);
        if made_nothing {
            error.set_data(MadeNothing);
        }
        error
    }
}

/// Which errors an operation answers follows from its shape; `answers` describes them in the document. One stands
/// here, or the schema would be left out as unused.
impl ApiResponse for Failure {
    fn meta() -> MetaResponses {
        let any = MetaResponse {
            description: Code::Internal.meaning(),
            status: Some(Code::Internal.status().as_u16()),
            status_range: None,
            content: vec![MetaMediaType {
                content_type: <Json<Error> as Payload>::CONTENT_TYPE,
                schema: Error::schema_ref(),
            }],
            headers: Vec::new(),
        };
        MetaResponses { responses: vec![any] }
    }

    fn register(registry: &mut Registry) {
        Error::register(registry);
    }
}

impl From<app::Error> for Failure {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Invalid(problems) => Self::with_problems(Code::Invalid, problems),
            app::Error::Parameter(problem) => {
                Self::with_problems(Code::InvalidParameter, vec![problem])
            }
            app::Error::NotFound(what) => {
                Self::with_message(Code::NotFound, format!("{what} does not exist"))
            }
            app::Error::IdempotencyConflict => Self::new(Code::IdempotencyConflict),
            app::Error::IdempotencyHeld => Self::new(Code::IdempotencyHeld),
            app::Error::TooManyRepeats => Self::with_message(
                Code::RateLimited,
                "the API key sends too many requests with an Idempotency-Key; wait for the seconds in Retry-After",
            ),
            app::Error::AnswerNotKept => Self::new(Code::AnswerNotKept),
            app::Error::LastAdminKey => Self::new(Code::LastAdminKey),
            app::Error::BuildOver(status) => {
                Self::with_message(Code::BuildOver, format!("the build has {status} already"))
            }
            app::Error::BuildNotEnded(status) => Self::with_message(
                Code::BuildNotEnded,
                format!(
                    "the build is {status}; only one that failed or was cancelled can be retried"
                ),
            ),
            app::Error::SandboxState(status) => of_state(status),
            app::Error::SandboxRefused(message) => {
                Self::with_message(Code::SandboxRefused, message)
            }
            app::Error::SandboxFull(message) => Self::with_message(Code::SandboxFull, message),
            app::Error::NoCapacity(message) => Self::with_message(Code::NoCapacity, message),
            app::Error::RangeOutside { size } => {
                let message = format!("the file has {size} bytes; none of them is in the range");
                Self::with_message(Code::RangeOutside, message)
            }
            app::Error::UploadBroken(_) => {
                Self::with_message(Code::MalformedRequest, "the body ended before its time")
            }
            app::Error::UploadTooLarge { max } => {
                Self::with_message(Code::BodyTooLarge, format!("the body is over {max} bytes"))
            }
            app::Error::UploadTooSlow => Self::new(Code::RequestTimeout),
            app::Error::TooManyUploads => Self::new(Code::TooManyUploads),
            app::Error::ContextsFull(message) => Self::with_message(Code::ContextsFull, message),
            app::Error::HostUnavailable { .. } => {
                tracing::warn!(error = telemetry::chain(&error), "a host did not do it");
                Self::new(Code::HostUnavailable)
            }
            app::Error::InUse { what, by } => {
                let code = match what {
                    Resource::Template => Code::TemplateInUse,
                    Resource::Host => Code::HostInUse,
                };
                Self::with_problems(code, by)
            }
            app::Error::TemplateOfHost(name) => Self::with_message(
                Code::TemplateOfHost,
                format!("{name} came with a host, which would offer it again; remove it there"),
            ),
            app::Error::TemplateDeleted => Self::new(Code::TemplateDeleted),
            app::Error::RegistrationOff => Self::new(Code::RegistrationOff),
            app::Error::RegistrationRefused => Self::new(Code::RegistrationRefused),
            app::Error::RenewalRefused => Self::new(Code::RenewalRefused),
            app::Error::HostTaken(what) => Self::with_message(
                Code::HostTaken,
                format!("another host has registered with this {what}; delete that host first"),
            ),
            app::Error::HostNotDrained(status) => Self::with_message(
                Code::HostNotDrained,
                format!("the host is {status}; drain it first"),
            ),
            app::Error::TooManyStreams => Self::new(Code::TooManyStreams),
            app::Error::Unavailable { .. } => {
                tracing::warn!(error = telemetry::chain(&error), "a service did not answer");
                Self::new(Code::Unavailable)
            }
            app::Error::Internal { .. } => {
                tracing::error!(error = telemetry::chain(&error), "request failed");
                Self::new(Code::Internal)
            }
        }
    }
}

/// What a sandbox in this state refuses.
fn of_state(status: sandbox::Status) -> Failure {
    use sandbox::Status;
    match status {
        Status::Paused => Failure::new(Code::SandboxPaused),
        Status::Destroying | Status::Destroyed | Status::Failed => Failure::new(Code::SandboxOver),
        Status::Creating
        | Status::Running
        | Status::Pausing
        | Status::Resuming
        | Status::Saving => {
            Failure::with_message(Code::SandboxBusy, format!("the sandbox is {status}; try again"))
        }
    }
}
