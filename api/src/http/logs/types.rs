//! Log records as REST tells them: the contract's, in one object for both kinds.

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use ovenbird_contract::log::{Record, Stream};
use poem_openapi::{
    Enum, Object,
    registry::{MetaSchemaRef, Registry},
    types::{ParseError, ParseFromJSON, ParseResult, ToJSON, Type},
};
use serde_json::Value;

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

/// A record on its way out: the contract's JSON, so that REST, SSE and NATS say the same to the letter,
/// under the schema of [`LogRecord`].
#[derive(Debug, Clone, PartialEq)]
pub struct Logged(pub Record);

impl Type for Logged {
    const IS_REQUIRED: bool = true;
    type RawValueType = Self;
    type RawElementValueType = Self;

    fn name() -> Cow<'static, str> {
        LogRecord::name()
    }

    fn schema_ref() -> MetaSchemaRef {
        LogRecord::schema_ref()
    }

    fn register(registry: &mut Registry) {
        LogRecord::register(registry);
    }

    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }

    fn raw_element_iter<'a>(&'a self) -> Box<dyn Iterator<Item = &'a Self> + 'a> {
        Box::new(std::iter::once(self))
    }
}

impl ToJSON for Logged {
    fn to_json(&self) -> Option<Value> {
        serde_json::to_value(&self.0).ok()
    }
}

impl ParseFromJSON for Logged {
    fn parse_from_json(value: Option<Value>) -> ParseResult<Self> {
        serde_json::from_value(value.unwrap_or_default()).map(Self).map_err(ParseError::custom)
    }
}

#[cfg(test)]
mod tests {
    use ovenbird_contract::{build::Status, log::LineRecord};
    use poem_openapi::{registry::Registry, types::Type as _};

    use super::*;
    use crate::http::schema;

    #[test]
    fn records_fit_their_published_schema() {
        let mut registry = Registry::new();
        Logged::register(&mut registry);
        let line = Record::Line(LineRecord {
            seq: 1,
            ts: Utc::now(),
            attempt: 1,
            step: 0,
            stream: Stream::System,
            text: "a".into(),
            cont: true,
            data: Some("YQ==".into()),
        });
        for record in [line, Record::end(2, Status::Cancelled)] {
            let json = Logged(record).to_json().unwrap();
            assert_eq!(schema::check(&registry, &Logged::schema_ref(), &json), [], "{json}");
        }
    }
}
