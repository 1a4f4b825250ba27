//! The recipe language: parser, validator, planner, step digests.
//!
//! [`parse`] turns a submitted recipe and healthcheck into a [`Plan`], or into every [`Diagnostic`] at once.
//! Pure: no I/O, no runtime, nothing else of ours; the same submission gives the same answer everywhere.
//!
//! ```text
//! Source ── lines ──► logical lines, objects ── text | object ──► Statement ── check ──► Action
//!                                                                                           │
//! healthcheck string ── health ──────────────► Healthcheck ──────────────► Plan ◄── print ──┘
//! ```
//!
//! # The text form
//!
//! One step a line. Blank lines and lines that begin with `#` are left out, also between a line and its
//! continuation (a blank line there is an error). A `\` at the end of a line joins it with the next one.
//!
//! | step | meaning |
//! |---|---|
//! | `RUN [--timeout=5m] [--retries=2] [--secret=NAME]… <sh command>` | waits for exit 0 |
//! | `START <sh command>` | a process that must still run when the healthcheck passes |
//! | `ENV KEY=VALUE …` | variables for later steps and the template |
//! | `WORKDIR <path>` | relative to the current one |
//! | `USER [--sudo] <name>` | created if missing |
//! | `COPY [--chown=user[:group]] <source>… <destination>` | from the build's context |
//!
//! Words of `ENV`, `WORKDIR`, `USER` and `COPY` may be quoted by `"…"`, `'…'` and `\`, and hold `$VAR`,
//! `${VAR}` and `$$` (a dollar sign), which are expanded when the step runs; within `'…'` a `$` is itself.
//! Commands are passed to the shell as they are.
//!
//! # The object form
//!
//! `{"type":"RUN","args":["make"],"timeout":"5m"}`, as an entry of the list or as a whole line of text. Flags
//! are fields: `timeout`, `retries`, `secret` (a string or a list), `sudo` (true or false), `chown`. The
//! `args` of `RUN` and `START` are joined by a blank; a command may hold line ends here.
//!
//! ```
//! use ovenbird_recipe::{Available, Source, parse};
//!
//! let plan = parse(&Source::from("ENV PORT=80\nRUN echo $PORT"), None, Available::ALL)?;
//! assert_eq!(plan.lines(), ["ENV PORT=80", "RUN echo $PORT"]);
//!
//! let errors = parse(&Source::from("RUN\nrun x"), None, Available::ALL).unwrap_err();
//! assert_eq!(errors[1].to_string(), "recipe:2:1: there is no step `run` [unknown_step]: did you mean RUN?");
//! # Ok::<(), Vec<ovenbird_recipe::Diagnostic>>(())
//! ```

mod check;
mod diagnostic;
mod digest;
mod duration;
mod expand;
mod flags;
mod health;
pub mod limits;
mod lines;
mod names;
mod object;
mod parse;
mod plan;
mod print;
mod sink;
mod source;
mod statement;
mod text;
mod words;

pub use diagnostic::{Code, Diagnostic, Level, Part};
pub use expand::{ExpandError, env_apply, expand, path_join};
pub use names::{context_path_is_valid, user_name_is_valid};
pub use parse::parse;
pub use plan::{Action, Healthcheck, Owner, Plan, Step, VERSION, Variable};
pub use source::{Entry, Source};

/// What the installation can do; a step that needs more is refused with a diagnostic at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Build contexts, and so `COPY`.
    pub copy: bool,
    /// Build secrets, and so `RUN --secret`.
    pub secrets: bool,
}

impl Available {
    /// The whole language.
    pub const ALL: Self = Self { copy: true, secrets: true };
}
