//! A recipe as it was submitted: one text, or a list of lines and objects.
//!
//! Reads anything that is a JSON string or list and judges nothing: what is wrong inside becomes a
//! diagnostic of [`crate::parse`], so that one answer holds every error.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A submitted recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Source {
    /// The text form in one piece, as from a text area or a file.
    Text(String),
    /// Lines of the text form and objects, mixed as one likes.
    List(Vec<Entry>),
}

/// One element of a submitted list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Entry {
    /// A line of the text form; one with line ends inside counts as that many lines.
    Line(String),
    /// A step: `{"type":"RUN","args":["make"],"timeout":"5m"}`. Counts as one line.
    Object(Map<String, Value>),
    /// Neither; [`crate::parse`] refuses it. Counts as one line.
    Other(Value),
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Source {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<String>> for Source {
    fn from(lines: Vec<String>) -> Self {
        Self::List(lines.into_iter().map(Entry::Line).collect())
    }
}

impl From<Vec<Value>> for Source {
    fn from(entries: Vec<Value>) -> Self {
        Self::List(entries.into_iter().map(Entry::from).collect())
    }
}

impl From<Value> for Entry {
    fn from(value: Value) -> Self {
        match value {
            Value::String(line) => Self::Line(line),
            Value::Object(object) => Self::Object(object),
            other => Self::Other(other),
        }
    }
}
