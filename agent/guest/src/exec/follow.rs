//! One follower of a command's output: hands out what is kept from its offset on, waits for more, and
//! ends with the command's end.

use std::sync::Arc;

use futures::{Stream, stream};
use ovenbird_guest_protocol::v1::{
    AttachExecResponse, ExecEnd, ExecOutput, ExecOutputStream, attach_exec_response::Event,
};
use tokio::sync::watch;
use tonic::Status;

use super::{
    Exec,
    output::{Piece, Source},
    run::End,
};
use crate::error::Error;

struct Follower {
    exec: Arc<Exec>,
    changed: watch::Receiver<()>,
    offset: u64,
    auto_ack: bool,
    over: bool,
}

enum Next {
    Piece(Piece),
    End(End),
    Nothing,
}

/// Follows from `offset`, which must be one that is kept.
pub(super) fn follow(
    exec: Arc<Exec>,
    offset: u64,
    auto_ack: bool,
) -> Result<impl Stream<Item = Result<AttachExecResponse, Status>> + Send + use<>, Error> {
    let changed = exec.subscribe();
    let follower = Follower { exec, changed, offset, auto_ack, over: false };
    follower.look()?;
    Ok(stream::unfold(follower, |mut follower| async move {
        if follower.over {
            return None;
        }
        let event = follower.next().await;
        follower.over = !matches!(&event, Ok(Event::Output(_)));
        let response = event.map(|event| AttachExecResponse { event: Some(event) });
        Some((response.map_err(Status::from), follower))
    }))
}

impl Follower {
    /// What there is at the offset, without waiting.
    fn look(&self) -> Result<Next, Error> {
        let state = self.exec.state();
        Ok(match (state.output.piece(self.offset)?, &state.end) {
            (Some(piece), _) => Next::Piece(piece),
            (None, Some(end)) => Next::End(end.clone()),
            (None, None) => Next::Nothing,
        })
    }

    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            self.changed.mark_unchanged();
            match self.look()? {
                Next::Piece(piece) => {
                    self.offset += piece.data.len() as u64;
                    if self.auto_ack {
                        self.exec.ack(self.offset)?;
                    }
                    return Ok(Event::Output(output(piece)));
                }
                Next::End(end) => return Ok(Event::End(self.end(end))),
                Next::Nothing => {}
            }
            // The sender lives in the exec that this follower holds, so it cannot be gone.
            let _ = self.changed.changed().await;
        }
    }

    fn end(&self, end: End) -> ExecEnd {
        ExecEnd {
            exit_code: end.code,
            timed_out: end.timed_out,
            error: end.error,
            end_offset: self.offset,
            elapsed_ms: u64::try_from(end.elapsed.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

fn output(piece: Piece) -> ExecOutput {
    let stream = match piece.source {
        Source::Stdout => ExecOutputStream::Stdout,
        Source::Stderr => ExecOutputStream::Stderr,
    };
    ExecOutput { offset: piece.offset, stream: stream.into(), data: piece.data }
}
