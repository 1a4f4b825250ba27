//! Whether clients of a released version of the API still work with the present one. Pure: two OpenAPI documents in, a
//! list of what breaks out.
//!
//! What a client sends must still be accepted: no new required input, nothing narrowed. What it reads must still be what it
//! was made for: nothing gone, nothing that was certain and is not any more, nothing wider than it was. So one rule serves
//! both ways: of two schemas one must take everything that the other allows; which of them is the released one depends on
//! the direction. Descriptions, examples and defaults are not looked at.

mod document;
mod operation;
mod schema;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt};

use serde_json::Value;

use self::document::Document;

/// One thing that breaks clients.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Break {
    /// Where: `POST /v1/builds, request, recipe[]`.
    pub place: String,
    /// What happened to it.
    pub what: String,
}

impl fmt::Display for Break {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.place, self.what)
    }
}

/// What of `released` breaks with `now`, each thing once, in the order of places.
pub fn breaks(released: &Value, now: &Value) -> Vec<Break> {
    let mut comparison = Comparison {
        released: Document::new(released),
        now: Document::new(now),
        seen: BTreeSet::new(),
        found: BTreeSet::new(),
    };
    comparison.paths();
    comparison.found.into_iter().collect()
}

/// Who made the value that a schema describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    /// The client: the present version must take whatever the released one took.
    Input,
    /// The server: the present version may say only what the released one might have said.
    Output,
}

struct Comparison<'a> {
    released: Document<'a>,
    now: Document<'a>,
    /// Named schemas that were compared, or are being compared; schemas may hold themselves.
    seen: BTreeSet<(Direction, String, String)>,
    found: BTreeSet<Break>,
}

impl Comparison<'_> {
    fn report(&mut self, place: &str, what: impl Into<String>) {
        self.found.insert(Break { place: place.to_owned(), what: what.into() });
    }
}
