//! `/v1/sandboxes/{id}/exec`: commands, waited for or followed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use poem::Request;
use poem_openapi::{ApiResponse, Object, OpenApi, param::Path, payload::Json};

pub use super::sse::{Events, ExecEvent};
use crate::{
    app::{
        App, Problem,
        sandboxes::{Done, Ran, Run, TIMEOUT_MAX_SEC, TIMEOUT_STREAM_MAX_SEC},
    },
    http::{
        Tag,
        auth::{Allowed, Builds},
        body::Submitted,
        code::Code,
        error::Failure,
        parameters, request,
    },
};

/// The resource.
#[derive(Debug, Clone)]
pub struct ExecRoutes {
    app: Arc<App>,
    heartbeat: Duration,
}

impl ExecRoutes {
    /// The resource over the use cases; a silent stream sends a comment after each `heartbeat`.
    pub fn new(app: Arc<App>, heartbeat: Duration) -> Self {
        Self { app, heartbeat }
    }
}

/// A command: either a script or a program with its arguments. Unknown fields are refused.
#[derive(Debug, Object)]
pub struct Exec {
    /// Text for `/bin/sh -c`.
    #[oai(validator(max_length = 131072))]
    pub script: Option<String>,
    /// A program, searched in `PATH`, and its arguments.
    #[oai(validator(min_items = 1, max_items = 1024))]
    pub command: Option<Vec<String>>,
    /// Environment, over the template's.
    pub env: Option<BTreeMap<String, String>>,
    /// An absolute path that exists; `/` when absent.
    #[oai(validator(max_length = 4095))]
    pub workdir: Option<String>,
    /// A user of the sandbox; the template's, or root, when absent.
    #[oai(validator(pattern = "^[A-Za-z_][A-Za-z0-9_.-]{0,31}$"))]
    pub user: Option<String>,
    /// It is killed with its children after so many seconds. At most 100 for a command that is waited for, and 3600 for
    /// one that is followed.
    #[oai(validator(minimum(value = "1"), maximum(value = "3600")), default = "timeout_default")]
    pub timeout_sec: u32,
}

fn timeout_default() -> u32 {
    30
}

/// How a command ended.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ExecResult {
    /// Its exit code; 128 and the signal's number when a signal ended it. Absent when its time was over.
    pub exit_code: Option<i32>,
    /// It was killed with its children because its time was over.
    pub timed_out: bool,
    /// Why it could not be started, or which limit of the sandbox it ran into.
    pub error: Option<String>,
    /// The beginning of its standard output, 1 MiB by default. What is not UTF-8 is replaced.
    pub stdout: String,
    /// The beginning of its standard error, likewise.
    pub stderr: String,
    /// The raw bytes of `stdout` in base64, where they are not UTF-8.
    pub stdout_data: Option<String>,
    /// The raw bytes of `stderr` in base64, where they are not UTF-8.
    pub stderr_data: Option<String>,
    /// What the two leave out: follow the command to see all of it.
    pub truncated: Option<ExecTruncated>,
    /// From the request to its end, in milliseconds.
    #[oai(validator(minimum(value = "0")))]
    pub elapsed_ms: u64,
}

/// Output that was left out.
#[derive(Debug, Object)]
pub struct ExecTruncated {
    /// Bytes of standard output.
    #[oai(validator(minimum(value = "0")))]
    pub stdout_bytes: u64,
    /// Bytes of standard error.
    #[oai(validator(minimum(value = "0")))]
    pub stderr_bytes: u64,
}

impl From<Done> for ExecResult {
    fn from(done: Done) -> Self {
        let is_truncated = done.stdout_omitted > 0 || done.stderr_omitted > 0;
        Self {
            exit_code: done.exit_code,
            timed_out: done.timed_out,
            error: done.error,
            stdout: done.stdout.text,
            stderr: done.stderr.text,
            stdout_data: done.stdout.data,
            stderr_data: done.stderr.data,
            truncated: is_truncated.then_some(ExecTruncated {
                stdout_bytes: done.stdout_omitted,
                stderr_bytes: done.stderr_omitted,
            }),
            elapsed_ms: u64::try_from(done.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The answer to whoever follows a command.
#[derive(Debug, ApiResponse)]
pub enum Followed {
    /// Events of these types, each with an ExecEvent as its data: `start`, then `stdout` and `stderr` as it writes, then
    /// `end`, after which the stream ends. A silent command sends a comment now and then. An event of type `error` holds
    /// an error instead, after which the stream ends and the command is killed: its sandbox was paused or destroyed, its
    /// host does not answer, or you read too slowly.
    #[oai(status = 200)]
    Events(Events),
}

#[OpenApi(prefix_path = "/v1/sandboxes", tag = "Tag::Sandboxes")]
impl ExecRoutes {
    /// Run a command and wait for its end
    ///
    /// A command that ends badly is a result and no error. It is killed when you hang up, when its time is over, and
    /// when the sandbox is paused or deleted.
    #[oai(path = "/:id/exec", method = "post", operation_id = "sandbox_exec")]
    async fn exec(
        &self,
        request: &Request,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Submitted<Exec>,
    ) -> Result<Json<ExecResult>, Failure> {
        let ran = ran(body, TIMEOUT_MAX_SEC)?;
        let done = self.app.sandbox_exec(&caller, parameters::id(&id.0)?, ran);
        match request::hung_up(request).run_until_cancelled(done).await {
            Some(done) => Ok(Json(done?.into())),
            // Nobody hears it; the command is killed with what would have read it.
            None => Err(Failure::with_message(Code::Unavailable, "the client has hung up")),
        }
    }

    /// Run a command and follow its output
    ///
    /// Server-sent events. A client that reads slowly holds the command back, and is cut off after a while.
    #[oai(path = "/:id/exec/stream", method = "post", operation_id = "sandbox_exec_stream")]
    async fn stream(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Submitted<Exec>,
    ) -> Result<Followed, Failure> {
        let ran = ran(body, TIMEOUT_STREAM_MAX_SEC)?;
        let output = self.app.sandbox_exec_stream(&caller, parameters::id(&id.0)?, ran).await?;
        Ok(Followed::Events(Events::new(output, self.heartbeat)))
    }
}

fn ran(body: Submitted<Exec>, timeout_max: u32) -> Result<Ran, Failure> {
    let Exec { script, command, env, workdir, user, timeout_sec } = body.accepted()?;
    let refused = |field: &str, code: &'static str, message: String| {
        Err(Failure::with_problems(Code::Invalid, vec![Problem::new(field, code, message)]))
    };
    if timeout_sec > timeout_max {
        let message = format!("must be at most {timeout_max}: follow a longer command instead");
        return refused("timeout_sec", "out_of_range", message);
    }
    let run = match (script, command) {
        (Some(script), None) => Run::Script(script),
        (None, Some(command)) => Run::Command(command),
        (None, None) => return refused("script", "missing", "give script or command".into()),
        (Some(_), Some(_)) => {
            return refused("command", "contradiction", "give either script or command".into());
        }
    };
    Ok(Ran { run, env: env.unwrap_or_default(), workdir, user, timeout_sec })
}
