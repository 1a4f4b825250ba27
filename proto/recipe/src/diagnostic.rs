//! What is wrong with a submission, where, and what to do about it.
//!
//! The words of [`Code`] are part of the REST interface: one may be added, none changes its meaning.

use serde::{Deserialize, Serialize};

/// One thing that is wrong. Serializes to what REST answers under `error.details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// A stable word.
    pub code: Code,
    /// Which part of the submission `line` and `column` belong to.
    pub part: Part,
    /// From 1. In a list each entry is one line, and one more for each line end inside it (not at its end).
    pub line: u32,
    /// From 1, in characters; one past the end of the line when something is missing there. Everything in
    /// an object is at the object's begin.
    pub column: u32,
    /// The place inside an object, such as `args[1]` or `timeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, part, line, column, message, hint, .. } = self;
        write!(f, "{part}:{line}:{column}: {message} [{code}]: {hint}")
    }
}

/// How bad a diagnostic is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The submission is refused.
    Error,
}

/// A part of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The recipe.
    Recipe,
    /// The healthcheck string.
    Healthcheck,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Recipe => "recipe",
            Self::Healthcheck => "healthcheck",
        })
    }
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+) => {
        /// The stable words of [`Diagnostic::code`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Code {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $variant,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// A sentence about it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }

            /// The word in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }
    };
}

codes! {
    /// The recipe has no step.
    EmptyRecipe = "empty_recipe",
    /// More steps than a recipe may have; those after it were not read.
    TooManySteps = "too_many_steps",
    /// More errors than are listed; those after it are left out.
    TooManyErrors = "too_many_errors",
    /// A line is longer than a line may be.
    LineTooLong = "line_too_long",
    /// A character of code 0, which no command, variable or path can hold.
    NulCharacter = "nul_character",
    /// A line ends in `\` and no line follows that could continue it.
    DanglingContinuation = "dangling_continuation",
    /// A quote is opened and not closed.
    UnterminatedQuote = "unterminated_quote",
    /// A list entry, an object or one of its fields has the wrong shape.
    BadObject = "bad_object",
    /// An object has a field that its step does not know.
    UnknownField = "unknown_field",
    /// No step has this name.
    UnknownStep = "unknown_step",
    /// A step or the healthcheck lacks what it works on.
    MissingArgument = "missing_argument",
    /// A step has more arguments than it takes.
    TooManyArguments = "too_many_arguments",
    /// The step has no such flag.
    UnknownFlag = "unknown_flag",
    /// The flag is given twice.
    DuplicateFlag = "duplicate_flag",
    /// A flag lacks its value, or has one where it takes none.
    BadFlag = "bad_flag",
    /// A flag stands among the arguments.
    MisplacedFlag = "misplaced_flag",
    /// Not a duration.
    BadDuration = "bad_duration",
    /// A duration that is too short or too long.
    DurationOutOfBounds = "duration_out_of_bounds",
    /// Not a whole number.
    BadNumber = "bad_number",
    /// A number that is too small or too large.
    NumberOutOfBounds = "number_out_of_bounds",
    /// Not a name of a variable.
    BadEnvKey = "bad_env_key",
    /// An `ENV` argument without `=`.
    MissingEnvValue = "missing_env_value",
    /// A `$` that is followed by no name.
    BadVariable = "bad_variable",
    /// An empty or overlong path, or a source outside of the context.
    BadPath = "bad_path",
    /// Not a user name.
    BadUserName = "bad_user_name",
    /// Not an owner.
    BadChown = "bad_chown",
    /// Not a name of a secret.
    BadSecretName = "bad_secret_name",
    /// More secrets than a step may have.
    TooManySecrets = "too_many_secrets",
    /// `START` in a build without healthcheck: its process cannot be in the template.
    StartWithoutHealthcheck = "start_without_healthcheck",
    /// This installation cannot do `COPY`.
    CopyNotAvailable = "copy_not_available",
    /// This installation has no build secrets.
    SecretNotAvailable = "secret_not_available",
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
