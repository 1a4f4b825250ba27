//! A follower as server-sent events.
//!
//! Records that wait together leave in one write; a silent log sends a comment, so that no proxy takes
//! the connection for dead. Whether the client reads is not known here: the follower's queue fills, and
//! the follower ends.

use std::{fmt::Write as _, io, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, Stream};
use ovenbird_contract::log::Record;
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ToJSON as _, Type as _},
};

use super::LogRecord;
use crate::{
    app::logs::{Follower, Item},
    http::{code::Code, error::Failure},
};

/// A browser comes back after this long, in milliseconds.
const RETRY: &str = "retry: 1000\n\n";
const HEARTBEAT: &[u8] = b": still here\n\n";
/// A write is at least one event and at most about this many bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    follower: Follower,
    heartbeat: Duration,
}

impl Events {
    /// Events of `follower`, with a comment after each `heartbeat` of silence.
    pub fn new(follower: Follower, heartbeat: Duration) -> Self {
        Self { follower, heartbeat }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        let start = futures::stream::iter([Ok(Bytes::from_static(RETRY.as_bytes()))]);
        let events = futures::stream::unfold(self, |mut events| async move {
            let bytes = events.write().await?;
            Some((Ok(bytes), events))
        });
        futures::StreamExt::chain(start, events)
    }

    async fn write(&mut self) -> Option<Bytes> {
        let first = match tokio::time::timeout(self.heartbeat, self.follower.next()).await {
            Ok(item) => item?,
            Err(_) => return Some(Bytes::from_static(HEARTBEAT)),
        };
        let mut text = String::new();
        event(&mut text, first);
        while text.len() < WRITE_BYTES {
            match self.follower.next().now_or_never() {
                Some(Some(item)) => event(&mut text, item),
                // The end is told again by the next call.
                Some(None) | None => break,
            }
        }
        Some(text.into())
    }
}

fn event(text: &mut String, item: Item) {
    let failed = |message: &str| {
        let failure = Failure::with_message(Code::Unavailable, message);
        format!("event: error\ndata: {}\n\n", failure.body().to_json_string())
    };
    match item {
        Item::Record(record) => record_event(text, &record),
        Item::CutOff => {
            text.push_str(&failed("you read too slowly; come back with the last id"));
        }
        Item::Stopping => {
            text.push_str(&failed("this server stops; come back with the last id"));
        }
    }
}

/// JSON has no line ends, so one `data` line holds it.
fn record_event(text: &mut String, record: &Record) {
    match serde_json::to_string(record) {
        // Writing into a String cannot fail.
        Ok(json) => _ = write!(text, "id: {}\ndata: {json}\n\n", record.seq()),
        Err(error) => tracing::error!(error = %error, "a log record has no JSON form"),
    }
}

impl Payload for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("Server-sent events. `data` of each is a LogRecord."),
            ..MetaSchema::new("string")
        }))
    }

    fn register(registry: &mut Registry) {
        LogRecord::register(registry);
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::CONTENT_TYPE)
            .header("cache-control", "no-store")
            // nginx collects small writes otherwise.
            .header("x-accel-buffering", "no")
            .body(Body::from_bytes_stream(self.into_stream()))
    }
}
