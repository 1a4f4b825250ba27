//! Log records: one sequence per build, the same over NATS, REST and SSE.
//!
//! `seq` starts at 1 and has no holes over the whole build, attempts included. The last record is the
//! terminal one. Two writers can never interleave: each publish names the stream sequence of the one
//! before on its subject ([`crate::nats::EXPECTED_LAST_SUBJECT_SEQUENCE`]) and is refused otherwise.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    build::Status,
    limits::{LOG_BUILD_BYTES, LOG_STEP_BYTES},
    standing::Standing,
    step::Amount,
};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The command's standard output.
    Stdout,
    /// The command's standard error.
    Stderr,
    /// Ovenbird itself.
    System,
}

/// One line of a build's log, or the record that ends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Record {
    /// The terminal record.
    End(EndRecord),
    /// A line.
    Line(LineRecord),
}

/// One line without its newline, or a part of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineRecord {
    /// Position in the build's log, from 1.
    pub seq: u64,
    /// When the runner read it.
    pub ts: DateTime<Utc>,
    /// The attempt that wrote it.
    pub attempt: u32,
    /// The user's step number; 0 outside of the recipe.
    pub step: u32,
    /// Where it came from.
    pub stream: Stream,
    /// The text; invalid UTF-8 is replaced.
    pub text: String,
    /// More of the same line follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cont: bool,
    /// The raw bytes in base64, only when they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// The record that ends a build's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndRecord {
    /// Position in the build's log.
    pub seq: u64,
    /// How the build ended.
    pub end: End,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// A terminal status.
    pub status: Status,
    /// The terminal record's own `seq`.
    pub last_seq: u64,
}

impl Record {
    /// Position in the build's log.
    pub fn seq(&self) -> u64 {
        match self {
            Self::End(record) => record.seq,
            Self::Line(record) => record.seq,
        }
    }

    /// Whether nothing follows.
    pub fn is_end(&self) -> bool {
        matches!(self, Self::End(_))
    }

    /// The terminal record at `seq`.
    pub fn end(seq: u64, status: Status) -> Self {
        Self::End(EndRecord { seq, end: End { status, last_seq: seq } })
    }
}

/// Text and, when the bytes are not UTF-8, their base64, as a [`LineRecord`] keeps them.
pub fn decode(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(BASE64.encode(bytes))),
    }
}

/// How much of a build's output goes into its log. What is over that is cut, and counted: each command keeps a
/// head of at least [`LOG_HEAD_BYTES_MIN`](crate::limits::LOG_HEAD_BYTES_MIN) and a tail of
/// [`LOG_TAIL_BYTES`](crate::limits::LOG_TAIL_BYTES) whatever these say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogCaps {
    /// The head of one step, all its tries together, in bytes.
    pub step_bytes: u64,
    /// All of the build, since it last began from the first step, in bytes.
    pub build_bytes: u64,
}

impl Default for LogCaps {
    fn default() -> Self {
        Self { step_bytes: LOG_STEP_BYTES, build_bytes: LOG_BUILD_BYTES }
    }
}

/// Where in a detached command's output the next runner goes on after this batch.
///
/// Offsets count the bytes of both streams together, as `AttachExec` does. They differ while one stream
/// has an unfinished line: go on from the smaller one and skip what lies below a stream's own mark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// Whose output it is.
    pub exec_id: String,
    /// Everything of stdout below this offset is in the log, or cut.
    pub stdout: u64,
    /// Everything of stderr below this offset is in the log, or cut.
    pub stderr: u64,
    /// The last line of stdout in the log is only the first part of one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stdout_open: bool,
    /// The same of stderr.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stderr_open: bool,
    /// The step that it belongs to.
    #[serde(default)]
    pub step: u32,
    /// It runs beside the steps after it (START).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// How much of its output is in the log.
    #[serde(default, skip_serializing_if = "Amount::is_none")]
    pub logged: Amount,
    /// How much of it the caps have kept out.
    #[serde(default, skip_serializing_if = "Amount::is_none")]
    pub cut: Amount,
}

/// One message on a log subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Consecutive records, at least one.
    pub records: Vec<Record>,
    /// Set while a detached command's output is being logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<Resume>,
    /// Where the build stands after this batch; absent while nothing is there to go on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<Standing>,
}

impl Batch {
    /// Records and nothing to go on from.
    pub fn of(records: Vec<Record>) -> Self {
        Self { records, resume: None, standing: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_have_the_documented_json() {
        let line = Record::Line(LineRecord {
            seq: 17,
            ts: DateTime::UNIX_EPOCH,
            attempt: 1,
            step: 3,
            stream: Stream::Stdout,
            text: "hello".into(),
            cont: false,
            data: None,
        });
        let batch = Batch::of(vec![line, Record::end(18, Status::Succeeded)]);
        insta::assert_json_snapshot!(batch);
        let text = serde_json::to_string(&batch).expect("serializes");
        assert_eq!(serde_json::from_str::<Batch>(&text).expect("parses"), batch);
    }

    #[test]
    fn raw_bytes_are_kept_only_when_not_utf8() {
        assert_eq!(decode("grün".as_bytes()), ("grün".to_owned(), None));
        assert_eq!(decode(b"a\xff"), ("a\u{fffd}".to_owned(), Some("Yf8=".to_owned())));
    }
}
