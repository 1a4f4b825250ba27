//! Where diagnostics are collected: bounded, and given back in the order of the source.

use crate::{
    diagnostic::{Code, Diagnostic, Level, Part},
    limits::DIAGNOSTICS_MAX,
};

/// A place in a part of the submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) line: u32,
    pub(crate) column: u32,
    pub(crate) field: Option<String>,
}

impl At {
    pub(crate) fn new(line: u32, column: u32) -> Self {
        Self { line, column, field: None }
    }

    /// The place of a field of the object that stands here.
    pub(crate) fn field(&self, field: impl Into<String>) -> Self {
        Self { field: Some(field.into()), ..*self }
    }
}

/// The diagnostics so far.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) part: Part,
    found: Vec<Diagnostic>,
    /// The first one that found no room.
    overflow: Option<(Part, At)>,
}

impl Sink {
    pub(crate) fn new() -> Self {
        Self { part: Part::Recipe, found: Vec::new(), overflow: None }
    }

    pub(crate) fn error(
        &mut self,
        code: Code,
        at: &At,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        if self.found.len() + 1 >= DIAGNOSTICS_MAX {
            self.overflow.get_or_insert_with(|| (self.part, at.clone()));
            return;
        }
        self.found.push(diagnostic(self.part, code, at, message.into(), hint.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Everything, sorted by place.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let Self { mut found, overflow, .. } = self;
        found.sort_by_key(|diagnostic| (diagnostic.part, diagnostic.line, diagnostic.column));
        if let Some((part, at)) = overflow {
            let message = format!("there are more errors than the {} above", found.len());
            let hint = "correct these first and submit again";
            found.push(diagnostic(part, Code::TooManyErrors, &at, message, hint.to_owned()));
        }
        found
    }
}

fn diagnostic(part: Part, code: Code, at: &At, message: String, hint: String) -> Diagnostic {
    let At { line, column, field } = at.clone();
    Diagnostic { level: Level::Error, code, part, line, column, field, message, hint }
}

/// A piece of the user's text for a message: in backquotes, control characters escaped, at most 60
/// characters.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let mut shown = String::from("`");
    for (index, c) in text.chars().enumerate() {
        if index == SHOWN_MAX {
            shown.push('…');
            break;
        }
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    shown.push('`');
    shown
}

/// The word of `known` that was probably meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    if word.chars().count() > 32 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 <= candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
