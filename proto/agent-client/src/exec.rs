//! The output of a command as it comes: of a detached one, and of one that ends with its call.
//!
//! The stream has no deadline: a command may be silent for its whole time. Keepalive ends it when the
//! host is gone; the caller then attaches again at its offset.

use std::time::Duration;

use futures::StreamExt as _;
use ovenbird_hostagent::v1::{
    self, attach_exec_response::Event, exec_stream_data::Output, exec_stream_response as call,
};
use tonic::Streaming;

use crate::{
    error::Error,
    types::{CallEvent, ExecEnd, ExecEvent, OutputStream},
};

/// Follows a command. Not reading holds the command back; nothing is dropped.
#[derive(Debug)]
pub struct ExecEvents {
    stream: Streaming<v1::AttachExecResponse>,
}

impl ExecEvents {
    pub(crate) fn new(stream: Streaming<v1::AttachExecResponse>) -> Self {
        Self { stream }
    }

    /// The next event. `None` after the end was read, or when the agent closed the stream without one:
    /// attach again then. May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// As every call.
    pub async fn next(&mut self) -> Option<Result<ExecEvent, Error>> {
        loop {
            let message = match self.stream.next().await? {
                Ok(message) => message,
                Err(status) => return Some(Err(Error::from_status(status))),
            };
            if let Some(event) = message.event.and_then(event_of) {
                return Some(Ok(event));
            }
        }
    }
}

/// Follows a command that is killed when this is dropped. Not reading holds the command back; nothing is dropped.
#[derive(Debug)]
pub struct CallEvents {
    stream: Streaming<v1::ExecStreamResponse>,
}

impl CallEvents {
    pub(crate) fn new(stream: Streaming<v1::ExecStreamResponse>) -> Self {
        Self { stream }
    }

    /// The next event; `None` after the end was read.
    ///
    /// # Errors
    /// [`Error::DeadlineExceeded`] when its time was over: it was killed with its children.
    /// [`Error::FailedPrecondition`] when the sandbox was paused, which ends the command. As every call.
    pub async fn next(&mut self) -> Option<Result<CallEvent, Error>> {
        loop {
            let message = match self.stream.next().await? {
                Ok(message) => message,
                Err(status) => return Some(Err(Error::from_status(status))),
            };
            let event = match message.event {
                Some(call::Event::Start(start)) => CallEvent::Started { pid: start.pid },
                Some(call::Event::Data(data)) => match data.output {
                    Some(Output::Stdout(data)) => {
                        CallEvent::Output { stream: OutputStream::Stdout, data }
                    }
                    Some(Output::Stderr(data)) => {
                        CallEvent::Output { stream: OutputStream::Stderr, data }
                    }
                    None => continue,
                },
                Some(call::Event::End(end)) => CallEvent::End {
                    exit_code: end.exit_code,
                    error: Some(end.error).filter(|error| !error.is_empty()),
                },
                None => continue,
            };
            return Some(Ok(event));
        }
    }
}

/// An event of a kind that this version does not know is skipped.
fn event_of(event: Event) -> Option<ExecEvent> {
    match event {
        Event::Output(output) => {
            let stream = match output.stream() {
                v1::ExecOutputStream::Stdout => OutputStream::Stdout,
                v1::ExecOutputStream::Stderr => OutputStream::Stderr,
                v1::ExecOutputStream::Unspecified => return None,
            };
            Some(ExecEvent::Output { offset: output.offset, stream, data: output.data })
        }
        Event::End(end) => Some(ExecEvent::End(ExecEnd {
            exit_code: end.exit_code,
            timed_out: end.timed_out,
            error: Some(end.error).filter(|error| !error.is_empty()),
            end_offset: end.end_offset,
            elapsed: Duration::from_millis(end.elapsed_ms),
        })),
    }
}
