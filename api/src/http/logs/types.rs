//! Log records as REST tells them: the contract's, in one object for both kinds.

use chrono::{DateTime, Utc};
use ovenbird_contract::log::{Record, Stream};
use poem_openapi::{Enum, Object};

use crate::http::builds::BuildStatus;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum LogStream {
    /// The command's standard output.
    Stdout,
    /// The command's standard error.
    Stderr,
    /// Ovenbird itself.
    System,
}

impl From<Stream> for LogStream {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Stdout => Self::Stdout,
            Stream::Stderr => Self::Stderr,
            Stream::System => Self::System,
        }
    }
}

impl From<LogStream> for Stream {
    fn from(stream: LogStream) -> Self {
        match stream {
            LogStream::Stdout => Self::Stdout,
            LogStream::Stderr => Self::Stderr,
            LogStream::System => Self::System,
        }
    }
}

/// One line of a build's log, or, with `end`, the record that ends it. The same over REST, SSE and NATS.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct LogRecord {
    /// Position in the build's log: from 1, without holes, over all attempts.
    #[oai(validator(minimum(value = "1")))]
    pub seq: u64,
    /// When the line was read.
    pub ts: Option<DateTime<Utc>>,
    /// The attempt that wrote it.
    #[oai(validator(minimum(value = "0")))]
    pub attempt: Option<u32>,
    /// The step, as you numbered it; 0 outside of the recipe.
    #[oai(validator(minimum(value = "0")))]
    pub step: Option<u32>,
    /// Where it came from.
    pub stream: Option<LogStream>,
    /// The line without its end. What is not UTF-8 is replaced.
    pub text: Option<String>,
    /// More of the same line follows in the next record of this step and stream.
    pub cont: Option<bool>,
    /// The raw bytes in base64, where they are not UTF-8.
    pub data: Option<String>,
    /// Only in the last record: how the build ended.
    pub end: Option<LogEnd>,
}

/// How a build ended.
#[derive(Debug, Object)]
pub struct LogEnd {
    /// Succeeded, failed or cancelled.
    pub status: BuildStatus,
    /// `seq` of this record.
    #[oai(validator(minimum(value = "1")))]
    pub last_seq: u64,
}

impl From<Record> for LogRecord {
    fn from(record: Record) -> Self {
        match record {
            Record::Line(line) => Self {
                seq: line.seq,
                ts: Some(line.ts),
                attempt: Some(line.attempt),
                step: Some(line.step),
                stream: Some(line.stream.into()),
                text: Some(line.text),
                cont: line.cont.then_some(true),
                data: line.data,
                end: None,
            },
            Record::End(last) => Self {
                seq: last.seq,
                ts: None,
                attempt: None,
                step: None,
                stream: None,
                text: None,
                cont: None,
                data: None,
                end: Some(LogEnd { status: last.end.status.into(), last_seq: last.end.last_seq }),
            },
        }
    }
}
