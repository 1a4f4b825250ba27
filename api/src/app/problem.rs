//! One thing that is wrong with what was submitted. A refusal carries all of them.

use std::borrow::Cow;

/// A finding about one place of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, as a path: `name`, `recipe[2].timeout`.
    pub field: String,
    /// A stable word.
    pub code: Cow<'static, str>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Line within the field, from 1.
    pub line: Option<u32>,
    /// Column within the line, in characters from 1.
    pub column: Option<u32>,
}

impl Problem {
    /// The field of a problem with the whole submission.
    pub const WHOLE: &str = "body";

    /// A problem with a whole field.
    pub fn new(
        field: impl Into<String>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            code: code.into(),
            message: message.into(),
            hint: None,
            line: None,
            column: None,
        }
    }

    /// A build's context is not there.
    pub fn context_not_found() -> Self {
        let message = "is not there: it was never uploaded, or is removed because nobody used it";
        Self::new("context", "context_not_found", message)
            .hint("upload the archive (again) with PUT /v1/admin/contexts/{sha256}")
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
