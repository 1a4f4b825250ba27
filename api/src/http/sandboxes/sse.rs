//! A command's output as server-sent events.
//!
//! What waits together leaves in one write; a silent command sends a comment, so that no proxy takes the connection for
//! dead. Whether the client reads is not known here: the queue fills, and the output ends.

use std::{fmt::Write as _, io, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    Object,
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ToJSON as _, Type as _},
};

use crate::{
    app::sandboxes::{Item, Output, Text},
    http::{code::Code, error::Failure},
};

const HEARTBEAT: &[u8] = b": still here\n\n";
/// A write is at least one event and at most about this many bytes.
const WRITE_BYTES: usize = 64 * 1024;

/// The data of an event. Which fields there are depends on the event's type.
#[derive(Debug, Default, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct ExecEvent {
    /// `start`: the command's process id in the sandbox.
    #[oai(validator(minimum(value = "0")))]
    pub pid: Option<u32>,
    /// `stdout`, `stderr`: what it wrote. What is not UTF-8 is replaced.
    pub text: Option<String>,
    /// `stdout`, `stderr`: the raw bytes in base64, where they are not UTF-8.
    pub data: Option<String>,
    /// `end`: its exit code, 128 and the signal's number when a signal ended it. Absent when its time was over.
    pub exit_code: Option<i32>,
    /// `end`: it was killed with its children because its time was over.
    pub timed_out: Option<bool>,
    /// `end`: why it could not be started, or which limit of the sandbox it ran into.
    pub error: Option<String>,
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    output: Output,
    heartbeat: Duration,
}

impl Events {
    /// Events of `output`, with a comment after each `heartbeat` of silence.
    pub fn new(output: Output, heartbeat: Duration) -> Self {
        Self { output, heartbeat }
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        stream::unfold(self, |mut events| async move {
            let bytes = events.write().await?;
            Some((bytes, events))
        })
        .map(Ok)
    }

    async fn write(&mut self) -> Option<Bytes> {
        let first = match tokio::time::timeout(self.heartbeat, self.output.next()).await {
            Ok(item) => item?,
            Err(_) => return Some(Bytes::from_static(HEARTBEAT)),
        };
        let mut text = String::new();
        write_item(&mut text, first);
        while text.len() < WRITE_BYTES {
            match self.output.next().now_or_never() {
                Some(Some(item)) => write_item(&mut text, item),
                // The end is told again by the next call.
                Some(None) | None => break,
            }
        }
        Some(text.into())
    }
}

fn write_item(text: &mut String, item: Item) {
    let output = |Text { text, data }| ExecEvent { text: Some(text), data, ..Default::default() };
    let failed = |message: &str| Failure::with_message(Code::Unavailable, message);
    match item {
        Item::Started(pid) => {
            event(text, "start", ExecEvent { pid: Some(pid), ..Default::default() });
        }
        Item::Stdout(piece) => event(text, "stdout", output(piece)),
        Item::Stderr(piece) => event(text, "stderr", output(piece)),
        Item::Ended { exit_code, timed_out, error } => {
            let timed_out = Some(timed_out);
            event(text, "end", ExecEvent { exit_code, timed_out, error, ..Default::default() });
        }
        Item::Failed(error) => write_failure(text, &error.into()),
        Item::CutOff => write_failure(text, &failed("you read too slowly; the command is killed")),
        Item::Stopping => write_failure(text, &failed("this server stops; the command is killed")),
    }
}

/// JSON has no line ends, so one `data` line holds it. Writing into a String cannot fail.
fn event(text: &mut String, kind: &str, event: ExecEvent) {
    _ = write!(text, "event: {kind}\ndata: {}\n\n", event.to_json_string());
}

fn write_failure(text: &mut String, failure: &Failure) {
    _ = write!(text, "event: error\ndata: {}\n\n", failure.body().to_json_string());
}

impl Payload for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("Server-sent events. `data` of each is an ExecEvent."),
            ..MetaSchema::new("string")
        }))
    }

    fn register(registry: &mut Registry) {
        ExecEvent::register(registry);
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
