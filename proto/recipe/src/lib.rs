//! The recipe language: parser, validator, planner, step digests.
//!
//! [`parse`] turns a submitted recipe and healthcheck into a [`Plan`], or into every [`Diagnostic`] at once.
//! Pure: no I/O, no runtime, nothing else of ours; the same submission gives the same answer everywhere.

mod diagnostic;
mod digest;
mod expand;
pub mod limits;
mod plan;
mod source;

pub use diagnostic::{Code, Diagnostic, Level, Part};
pub use expand::{ExpandError, env_apply, expand, path_join};
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

/// Reads a recipe and its healthcheck.
///
/// # Errors
/// Everything that is wrong, in the order of the source: the recipe first, then the healthcheck.
pub fn parse(
    source: &Source,
    healthcheck: Option<&str>,
    available: Available,
) -> Result<Plan, Vec<Diagnostic>> {
    let _ = (source, healthcheck, available);
    Err(Vec::new())
}

/// Whether `name` is one that `USER` takes: `[a-z_][a-z0-9_-]{0,31}`.
pub fn user_name_is_valid(name: &str) -> bool {
    name.len() <= limits::USER_NAME_MAX
        && name.starts_with(|c: char| c == '_' || c.is_ascii_lowercase())
        && name.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'))
}

impl Plan {
    /// The recipe as canonical lines of the text form, one a step; [`parse`] reads the same plan from them.
    pub fn lines(&self) -> Vec<String> {
        self.steps.iter().map(|step| step.cmd.clone()).collect()
    }
}
