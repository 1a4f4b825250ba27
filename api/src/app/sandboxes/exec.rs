//! A command in a sandbox, waited for: its output as far as it is bounded, and its end.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use ovenbird_agent_client::{CallEvent, CallEvents, Command, Error as AgentError, OutputStream};
use ovenbird_contract::id::SandboxId;
use ovenbird_db::store::template::default_env;

use super::{InUse, Text, host::of_agent, path};
use crate::app::{App, Error, Problem, keys::Caller};

/// The longest time of a command that is waited for: a connection must not be silent for longer.
pub const TIMEOUT_MAX_SEC: u32 = 100;
/// The longest time of a command that is followed.
pub const TIMEOUT_STREAM_MAX_SEC: u32 = 3600;
/// Arguments and environment together; the guest's kernel takes no more.
const WORDS_MAX_BYTES: usize = 128 * 1024;

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Text for `/bin/sh`.
    Script(String),
    /// A program and its arguments.
    Command(Vec<String>),
}

/// A command that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What.
    pub run: Run,
    /// Over the template's environment.
    pub env: BTreeMap<String, String>,
    /// Where; `/` when absent.
    pub workdir: Option<String>,
    /// As whom; the template's user when absent.
    pub user: Option<String>,
    /// It is killed after so many seconds.
    pub timeout_sec: u32,
}

/// A command that ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// 128 + signal when a signal ended it; absent when its time was over.
    pub exit_code: Option<i32>,
    /// It was killed with its children because its time was over.
    pub timed_out: bool,
    /// Why it could not be started, or which limit it ran into.
    pub error: Option<String>,
    /// The beginning of its standard output.
    pub stdout: Text,
    /// The beginning of its standard error.
    pub stderr: Text,
    /// Bytes of standard output that were left out.
    pub stdout_omitted: u64,
    /// Bytes of standard error that were left out.
    pub stderr_omitted: u64,
    /// From the request to its end.
    pub elapsed: Duration,
}

/// The beginning of a stream.
#[derive(Debug)]
struct Head {
    bytes: Vec<u8>,
    max: usize,
    omitted: u64,
}

impl Head {
    fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), max, omitted: 0 }
    }

    fn add(&mut self, data: &[u8]) {
        let room = self.max - self.bytes.len();
        let (taken, left) = data.split_at(room.min(data.len()));
        self.bytes.extend_from_slice(taken);
        self.omitted += left.len() as u64;
    }
}

impl App {
    /// Runs a command to its end. It is killed when its caller hangs up.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::SandboxState`] when the sandbox does not run, or stops running meanwhile;
    /// [`Error::HostUnavailable`].
    pub async fn sandbox_exec(
        &self,
        caller: &Caller,
        id: SandboxId,
        ran: Ran,
    ) -> Result<Done, Error> {
        let started = Instant::now();
        let (sandbox, mut events) = self.exec_begin(caller, id, &ran).await?;
        let max = self.sandboxes.limits.exec_output_bytes;
        let (mut stdout, mut stderr) = (Head::new(max), Head::new(max));
        let mut done = Done::default();
        loop {
            match events.next().await {
                Some(Ok(CallEvent::Started { .. })) => {}
                Some(Ok(CallEvent::Output { stream: OutputStream::Stdout, data })) => {
                    stdout.add(&data);
                }
                Some(Ok(CallEvent::Output { stream: OutputStream::Stderr, data })) => {
                    stderr.add(&data);
                }
                Some(Ok(CallEvent::End { exit_code, error })) => {
                    (done.exit_code, done.error) = (Some(exit_code), error);
                    break;
                }
                Some(Err(AgentError::DeadlineExceeded { message })) => {
                    (done.timed_out, done.error) = (true, Some(message));
                    break;
                }
                Some(Err(error)) => return Err(sandbox.explain(error, "the command").await),
                None => return Err(cut_short()),
            }
        }
        (done.stdout_omitted, done.stderr_omitted) = (stdout.omitted, stderr.omitted);
        (done.stdout, done.stderr) = (stdout.bytes.into(), stderr.bytes.into());
        done.elapsed = started.elapsed();
        Ok(done)
    }

    /// Starts a command that ends when its events are dropped.
    pub(super) async fn exec_begin(
        &self,
        caller: &Caller,
        id: SandboxId,
        ran: &Ran,
    ) -> Result<(InUse, CallEvents), Error> {
        check(ran)?;
        let sandbox = self.sandbox_in_use(caller, id).await?;
        let command = command(ran, &sandbox)?;
        let timeout = Duration::from_secs(ran.timeout_sec.into());
        match sandbox.agent.exec_stream(&sandbox.id, &command, timeout).await {
            Ok(events) => Ok((sandbox, events)),
            Err(error) => Err(sandbox.explain(error, "the command").await),
        }
    }
}

/// The host closed the stream without an end.
pub(super) fn cut_short() -> Error {
    of_agent(AgentError::Unavailable { message: "the command's output broke off".into() })
}

fn check(ran: &Ran) -> Result<(), Error> {
    let mut problems = Vec::new();
    let words: Vec<&String> = match &ran.run {
        Run::Script(script) => vec![script],
        Run::Command(words) => words.iter().collect(),
    };
    let field = match &ran.run {
        Run::Script(_) => "script",
        Run::Command(_) => "command",
    };
    if words.first().is_none_or(|first| first.is_empty()) {
        problems.push(Problem::new(field, "missing", "is empty"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        problems.push(Problem::new(field, "bad_text", "must not contain NUL"));
    }
    let is_name = |name: &str| {
        let first = name.bytes().next().is_some_and(|it| it.is_ascii_alphabetic() || it == b'_');
        first && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
    };
    for (name, value) in &ran.env {
        if !is_name(name) || value.contains('\0') {
            let shown: String = name.chars().take(100).collect();
            let message = "must be a name of letters, digits and _, and have a value without NUL";
            problems.push(Problem::new(format!("env.{shown}"), "bad_env", message));
        }
    }
    let env = ran.env.iter().map(|(name, value)| name.len() + value.len());
    if words.iter().map(|word| word.len()).chain(env).sum::<usize>() > WORDS_MAX_BYTES {
        let message = format!("has over {WORDS_MAX_BYTES} bytes, the environment included");
        problems
            .push(Problem::new(field, "wrong_length", message).hint("write it to a file first"));
    }
    if let Some(workdir) = &ran.workdir {
        problems.extend(path::check("workdir", workdir).err());
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
}

/// With what the template says for whoever starts a sandbox from it.
fn command(ran: &Ran, sandbox: &InUse) -> Result<Command, Error> {
    let template = &sandbox.detail.template;
    let mut command = match &ran.run {
        Run::Script(script) => Command::shell(script.clone()),
        Run::Command(words) => {
            let mut words = words.iter().cloned();
            Command {
                cmd: words.next().unwrap_or_default(),
                args: words.collect(),
                ..Command::default()
            }
        }
    };
    command.env = default_env(template)?;
    command.env.extend(ran.env.clone());
    command.user = ran.user.clone().or_else(|| template.default_user.clone());
    command.workdir.clone_from(&ran.workdir);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_of_a_stream_is_kept_and_the_rest_is_counted() {
        let mut head = Head::new(5);
        for data in ["abc", "def", "", "ghi"] {
            head.add(data.as_bytes());
        }
        assert_eq!((head.bytes.as_slice(), head.omitted), (&b"abcde"[..], 4));
    }

    #[test]
    fn everything_that_is_wrong_with_a_command_is_told_at_once() {
        let ran = Ran {
            run: Run::Command(vec![String::new(), "a\0".into()]),
            env: [("1A".into(), String::new()), ("B".into(), "\0".into())].into(),
            workdir: Some("x/..".into()),
            user: None,
            timeout_sec: 1,
        };
        let Err(Error::Invalid(problems)) = check(&ran) else { panic!("it passes") };
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(fields, ["command", "command", "env.1A", "env.B", "workdir"]);
        let long = Ran {
            run: Run::Script("x".repeat(WORDS_MAX_BYTES + 1)),
            env: BTreeMap::new(),
            workdir: None,
            ..ran
        };
        assert!(check(&long).is_err());
    }
}
