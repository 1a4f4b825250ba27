//! What a build does next, given its plan and what happened so far. Pure.
//!
//! ```text
//!        ┌─ not ready, boots left
//!        ▼      │
//!       boot ───┴─ready─► step 1 ─► … ─► step n ─┬─ healthcheck ──► health ─passed─► publish snapshot ─► over
//!                          ▲  │                  └─ none ─────────────────────────► publish image    ─► over
//!                          └──┘ failed, tries left
//! ```
//!
//! A failure without anything left leads to `over` from everywhere. What is outside of a build (cancel,
//! lease, the runner's end) is not here: it interrupts the doing, and nothing comes next. Another runner begins
//! where it was interrupted ([`State::resumed`]): what the steps before left behind (environment, directory, user)
//! follows from the plan alone.

use std::{collections::BTreeMap, time::Duration};

use ovenbird_context::names_directory;
use ovenbird_contract::{
    build::{Reason, ReasonCode},
    desk::{Base, Published, TemplateKind},
    limits::COMMAND_SHOWN_MAX,
};
use ovenbird_recipe::{
    Action, Healthcheck, Owner, Plan, Step, context_path_is_valid, env_apply, expand, path_join,
    user_name_is_valid,
};

/// Pause before the second try of a step, or of a boot: what broke may be back then. Doubles with each further one.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// What the guest gives to every command, for templates that refer to it (`ENV PATH=/opt/bin:$PATH`).
const GUEST_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where and as whom the next command runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context {
    /// On top of the guest's own environment.
    pub env: BTreeMap<String, String>,
    /// Absolute; absent means `/`.
    pub workdir: Option<String>,
    /// Absent means root.
    pub user: Option<String>,
}

impl Context {
    /// What `$VAR` means in a template: the build's environment over the guest's.
    fn variables(&self) -> BTreeMap<String, String> {
        let user = self.user.as_deref().unwrap_or("root");
        let home = if user == "root" { "/root".into() } else { format!("/home/{user}") };
        let mut variables = BTreeMap::from([
            ("PATH".to_owned(), GUEST_PATH.to_owned()),
            ("HOME".to_owned(), home),
            ("USER".to_owned(), user.to_owned()),
        ]);
        variables.extend(self.env.clone());
        variables
    }
}

/// One try of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// The number the user knows.
    pub number: u32,
    /// The step as the user wrote it.
    pub cmd: String,
    /// 1 for the first try.
    pub nth: u32,
    /// To wait before it.
    pub pause: Duration,
    /// Where and as whom.
    pub context: Context,
    /// What to do.
    pub task: Task,
}

/// What a step needs done in the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Run a shell command to exit 0.
    Run {
        /// For `sh -c`.
        script: String,
        /// Time of this try.
        timeout: Duration,
    },
    /// Start a shell command and leave it running.
    Start {
        /// For `sh -c`.
        script: String,
    },
    /// Make a directory if it is missing.
    Directory {
        /// Absolute.
        path: String,
    },
    /// Make a user if it is missing.
    User {
        /// A valid name.
        name: String,
        /// May become root.
        sudo: bool,
    },
    /// Copy from the context.
    Copy(Copying),
    /// Nothing in the guest: the new environment.
    Environment(BTreeMap<String, String>),
    /// It cannot be done at all.
    Impossible {
        /// Why, as a word.
        code: ReasonCode,
        /// Why, for people.
        message: String,
    },
}

/// A `COPY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copying {
    /// Paths or patterns within the context, in order.
    pub sources: Vec<String>,
    /// Absolute. Ends with a slash when it can only be a directory.
    pub destination: String,
    /// Whose it shall be; absent means root.
    pub owner: Option<Owner>,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Make a sandbox.
    Boot {
        /// 1 for the first.
        nth: u32,
        /// To wait before it.
        pause: Duration,
    },
    /// Do a step.
    Step(Box<Work>),
    /// Wait until the healthcheck passes.
    Health(Healthcheck, Context),
    /// Write the template.
    Publish(TemplateKind),
    /// Nothing.
    Over(Box<Result<Published, Reason>>),
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The sandbox answers.
    Ready,
    /// The guest did not become ready; the end of its console.
    NotReady(String),
    /// The step did what was asked.
    StepPassed,
    /// The healthcheck passed and everything that was started still runs.
    Healthy,
    /// The template is on the host, with this size in bytes.
    Written(u64),
    /// What was to be done failed.
    Failed {
        /// Why, as a word.
        code: ReasonCode,
        /// Why, for people.
        message: String,
        /// The end of the output.
        tail: Option<String>,
    },
}

/// The event does not fit; nothing changed. A fault of the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a build that is {at} cannot take {event:?}")]
pub struct Unexpected {
    at: String,
    event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum At {
    Boot { nth: u32 },
    Step { index: usize, nth: u32 },
    Health,
    Publish,
    Over(Result<Published, Reason>),
}

/// How far another runner came after the sandbox was ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// All steps up to this number are done.
    pub steps_done: u32,
    /// Which try of the next one it is, from 1.
    pub step_try: u32,
    /// The healthcheck has passed.
    pub healthy: bool,
    /// It has failed, and nothing comes next.
    pub failed: Option<Reason>,
}

/// A build between two events.
#[derive(Debug, Clone)]
pub struct State {
    plan: Plan,
    base: Base,
    boots_max: u32,
    context: Context,
    at: At,
}

impl State {
    /// The beginning: nothing is made yet.
    pub fn new(plan: Plan, base: &Base, boots_max: u32) -> Self {
        let context = Context {
            env: base.default_env.clone(),
            workdir: None,
            user: base.default_user.clone(),
        };
        let at = At::Boot { nth: 1 };
        Self { plan, base: base.clone(), boots_max: boots_max.max(1), context, at }
    }

    /// Where a build stands whose sandbox is ready, as another runner left it. More steps than there are, or a
    /// healthcheck where there is none, mean that only the template is missing.
    pub fn resumed(plan: Plan, base: &Base, boots_max: u32, reached: Reached) -> Self {
        let mut state = Self::new(plan, base, boots_max);
        let done = usize::try_from(reached.steps_done).unwrap_or(usize::MAX);
        let done = done.min(state.plan.steps.len());
        for index in 0..done {
            state.passed(index, 1);
        }
        state.at = match (reached.failed, state.before_step(done)) {
            (Some(reason), _) => At::Over(Err(reason)),
            (None, At::Step { index, .. }) => At::Step { index, nth: reached.step_try.max(1) },
            (None, At::Health) if reached.healthy => At::Publish,
            (None, at) => at,
        };
        state
    }

    /// START steps that are done: their number, and what was started.
    pub fn started(&self) -> Vec<Work> {
        let index = match &self.at {
            At::Boot { .. } => 0,
            At::Step { index, .. } => *index,
            At::Health | At::Publish | At::Over(_) => self.plan.steps.len(),
        };
        let mut before = Self::resumed(
            self.plan.clone(),
            &self.base,
            self.boots_max,
            Reached { steps_done: 0, step_try: 1, healthy: false, failed: None },
        );
        let mut started = Vec::new();
        for at in 0..index {
            let work = before.work(at, 1);
            if matches!(work.task, Task::Start { .. }) {
                started.push(work);
            }
            before.passed(at, 1);
        }
        started
    }

    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.plan.steps.len()
    }

    /// What to do.
    pub fn next(&self) -> Next {
        match &self.at {
            At::Boot { nth } => Next::Boot { nth: *nth, pause: retry_pause(*nth) },
            At::Step { index, nth } => Next::Step(Box::new(self.work(*index, *nth))),
            At::Health => match &self.plan.healthcheck {
                Some(check) => Next::Health(check.clone(), self.context.clone()),
                None => Next::Publish(self.kind()),
            },
            At::Publish => Next::Publish(self.kind()),
            At::Over(end) => Next::Over(Box::new(end.clone())),
        }
    }

    /// Takes what happened.
    ///
    /// # Errors
    /// [`Unexpected`] when it is no answer to [`State::next`].
    pub fn apply(&mut self, event: Event) -> Result<(), Unexpected> {
        let at = match (&self.at, event) {
            (At::Over(_), event) => return Err(self.unexpected(event)),
            (At::Boot { .. }, Event::Ready) => self.before_step(0),
            (At::Boot { nth }, Event::NotReady(_)) if *nth < self.boots_max => {
                At::Boot { nth: nth + 1 }
            }
            (At::Boot { nth }, Event::NotReady(console)) => At::Over(Err(Reason {
                code: ReasonCode::GuestNotReady,
                message: format!("no microVM became ready, {nth} were tried"),
                step: None,
                tail: Some(console).filter(|tail| !tail.is_empty()),
            })),
            (At::Step { index, nth }, Event::StepPassed) => {
                let (index, nth) = (*index, *nth);
                self.passed(index, nth);
                self.before_step(index + 1)
            }
            (At::Step { index, nth }, Event::Failed { code, .. })
                if may_retry(&self.plan.steps[*index], *nth, code) =>
            {
                At::Step { index: *index, nth: nth + 1 }
            }
            (At::Health, Event::Healthy) => At::Publish,
            (At::Publish, Event::Written(size_bytes)) => At::Over(Ok(Published {
                kind: self.kind(),
                size_bytes,
                default_env: self.context.env.clone(),
                default_user: self.context.user.clone(),
            })),
            (at, Event::Failed { code, message, tail }) => {
                let step = match at {
                    At::Step { index, .. } => Some(self.plan.steps[*index].number),
                    _ => None,
                };
                At::Over(Err(Reason { code, message, step, tail }))
            }
            (_, event) => return Err(self.unexpected(event)),
        };
        self.at = at;
        Ok(())
    }

    fn kind(&self) -> TemplateKind {
        match self.plan.healthcheck {
            Some(_) => TemplateKind::Snapshot,
            None => TemplateKind::Image,
        }
    }

    fn before_step(&self, index: usize) -> At {
        if index < self.plan.steps.len() {
            At::Step { index, nth: 1 }
        } else if self.plan.healthcheck.is_some() {
            At::Health
        } else {
            At::Publish
        }
    }

    fn work(&self, index: usize, nth: u32) -> Work {
        let step = &self.plan.steps[index];
        Work {
            number: step.number,
            cmd: shown(&step.cmd),
            nth,
            pause: retry_pause(nth),
            context: self.context.clone(),
            task: self.task(step),
        }
    }

    fn task(&self, step: &Step) -> Task {
        let impossible =
            |message: String| Task::Impossible { code: ReasonCode::StepFailed, message };
        match &step.action {
            Action::Run { secrets, .. } if !secrets.is_empty() => unsupported("RUN --secret"),
            Action::Run { command, timeout_ms, .. } => {
                Task::Run { script: command.clone(), timeout: Duration::from_millis(*timeout_ms) }
            }
            Action::Start { command } => Task::Start { script: command.clone() },
            Action::Env { variables } => {
                let mut merged = self.context.variables();
                if let Err(error) = env_apply(variables, &mut merged) {
                    return impossible(error.to_string());
                }
                let mut env = self.context.env.clone();
                for variable in variables {
                    if let Some(value) = merged.get(&variable.key) {
                        env.insert(variable.key.clone(), value.clone());
                    }
                }
                Task::Environment(env)
            }
            Action::Workdir { path } => match expand(path, &self.context.variables()) {
                Ok(path) if path.is_empty() => impossible("the path is empty".into()),
                Ok(path) => {
                    let current = self.context.workdir.as_deref().unwrap_or("/");
                    Task::Directory { path: path_join(current, &path) }
                }
                Err(error) => impossible(error.to_string()),
            },
            Action::User { name, sudo } => match expand(name, &self.context.variables()) {
                Ok(name) if user_name_is_valid(&name) => Task::User { name, sudo: *sudo },
                Ok(name) => impossible(format!("`{name}` is no user name: use [a-z_][a-z0-9_-]*")),
                Err(error) => impossible(error.to_string()),
            },
            Action::Copy { sources, destination, owner } => {
                match self.copying(sources, destination) {
                    Ok((sources, destination)) => {
                        Task::Copy(Copying { sources, destination, owner: owner.clone() })
                    }
                    Err(message) => impossible(message),
                }
            }
        }
    }

    /// Sources and destination of a `COPY`, or why there are none.
    fn copying(
        &self,
        sources: &[String],
        destination: &str,
    ) -> Result<(Vec<String>, String), String> {
        let variables = self.context.variables();
        let expanded = |text: &str| expand(text, &variables).map_err(|error| error.to_string());
        let source = |text: &String| match expanded(text)? {
            path if context_path_is_valid(&path) => Ok(path),
            path => Err(format!(
                "the source {path:?} is outside of the context: sources are relative to its root"
            )),
        };
        let sources = sources.iter().map(source).collect::<Result<_, _>>()?;
        let destination = expanded(destination)?;
        if destination.is_empty() {
            return Err("the destination is empty".into());
        }
        let current = self.context.workdir.as_deref().unwrap_or("/");
        let mut path = path_join(current, &destination);
        if names_directory(&destination) && !path.ends_with('/') {
            path.push('/');
        }
        Ok((sources, path))
    }

    /// What a step that passed changes for the ones after it.
    fn passed(&mut self, index: usize, nth: u32) {
        match self.work(index, nth).task {
            Task::Environment(env) => self.context.env = env,
            Task::Directory { path } => self.context.workdir = Some(path),
            Task::User { name, .. } => self.context.user = Some(name),
            Task::Run { .. } | Task::Start { .. } | Task::Copy(_) | Task::Impossible { .. } => {}
        }
    }

    fn unexpected(&self, event: Event) -> Unexpected {
        Unexpected { at: format!("{:?}", self.at), event }
    }
}

fn unsupported(what: &str) -> Task {
    Task::Impossible {
        code: ReasonCode::Unsupported,
        message: format!("{what} is not available in this installation yet"),
    }
}

/// Only what the user's command did is tried again here; a host that broke is not.
fn may_retry(step: &Step, nth: u32, code: ReasonCode) -> bool {
    let retries = match &step.action {
        Action::Run { retries, .. } => *retries,
        _ => 0,
    };
    nth <= retries && matches!(code, ReasonCode::StepFailed | ReasonCode::StepTimeout)
}

fn retry_pause(nth: u32) -> Duration {
    match nth.checked_sub(2) {
        None => Duration::ZERO,
        Some(doubled) => (RETRY_PAUSE * 2u32.pow(doubled.min(10))).min(RETRY_PAUSE_MAX),
    }
}

/// A command as events, log and reasons name it.
pub(super) fn shown(cmd: &str) -> String {
    if cmd.len() <= COMMAND_SHOWN_MAX {
        return cmd.to_owned();
    }
    format!("{} …", &cmd[..cmd.floor_char_boundary(COMMAND_SHOWN_MAX)])
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
