//! Does one `COPY`: what its sources name in the context goes, as one stream for each source, into the guest.
//!
//! ```text
//!  context's file ─ thread: walk, select, pack ─ four chunks ─► agent ─► guest: entry by entry
//! ```
//!
//! The step is done again from its beginning by whoever finds it unfinished: every file is whole or not at all, and
//! copying once more gives the same. Nothing of it may be left of a runner that was given up: the host ends its stream.

use std::{
    io::{self, Write},
    sync::Arc,
};

use bytes::Bytes;
use futures::stream;
use ovenbird_agent_client::{Error as AgentError, Unpack, Unpacked};
use ovenbird_context::{Error as ArchiveError, NoSelection, Packed, Selection, Stop, pack};
use ovenbird_contract::build::ReasonCode;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant, sleep},
};
use tokio_util::io::StreamReader;

use super::{
    driver::{Driver, Halt, failed_call, seconds},
    state::{Copying, Event},
};
use crate::context::{Context, Error as ContextError, StopWhenDropped};

const CHUNK: usize = 128 * 1024;
/// Chunks that wait for the host.
const QUEUE: usize = 4;
/// The object store may be away for this long.
const STORE_AWAY_MAX: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(1);
/// These words are in what a host says that passes as many files on as it can, and in nothing that stays.
const BUSY: &str = "try again later";

/// Why there is nothing to copy with, or the copy failed.
type Failed = Event;

impl Driver {
    /// The event of the step.
    pub(super) async fn copy(&mut self, step: u32, copying: &Copying) -> Result<Event, Halt> {
        let context = match self.fetched(step).await? {
            Ok(context) => context,
            Err(failed) => return Ok(failed),
        };
        let matches = match self.matches(&context, &copying.sources).await? {
            Ok(matches) => matches,
            Err(failed) => return Ok(failed),
        };
        if matches > 1 && !copying.destination.ends_with('/') {
            let message = format!(
                "{matches} things are to be copied, which need a directory to go into: end the \
                 destination with a slash"
            );
            return Ok(failed(message));
        }
        let begun = Instant::now();
        let mut total = Packed::default();
        // One after the other: each is as large as all paths that it takes.
        for source in &copying.sources {
            let selection = match self.selection(&context, source).await? {
                Ok(selection) => selection,
                Err(failed) => return Ok(failed),
            };
            match self.unpack(&context, selection, copying).await? {
                Ok(packed) => {
                    total.files += packed.files;
                    total.directories += packed.directories;
                    total.links += packed.links;
                    total.bytes += packed.bytes;
                }
                Err(failed) => return Ok(failed),
            }
        }
        let Packed { files, directories, links, bytes } = total;
        let line = format!(
            "copied {files} files, {directories} directories and {links} links, {bytes} bytes, in {}",
            seconds(begun.elapsed())
        );
        self.log.system(step, &line).await?;
        Ok(Event::StepPassed)
    }

    /// The context, which is fetched once for all steps.
    async fn fetched(&mut self, step: u32) -> Result<Result<Arc<Context>, Failed>, Halt> {
        if let Some(context) = &self.context {
            return Ok(Ok(Arc::clone(context)));
        }
        let Some(digest) = self.claim.context.clone() else {
            return Ok(Err(failed("the build has no context to copy from".into())));
        };
        let begun = Instant::now();
        loop {
            let error = match self.stop.guard(self.contexts.fetch(&digest)).await? {
                Ok(context) => {
                    let context = Arc::new(context);
                    self.context = Some(Arc::clone(&context));
                    return Ok(Ok(context));
                }
                Err(error) => error,
            };
            let chain = ovenbird_kit::telemetry::chain(&error);
            if matches!(error, ContextError::Away(_)) && begun.elapsed() < STORE_AWAY_MAX {
                tracing::warn!(build.id = %self.claim.build_id, error = chain, "asking again for a context");
                self.log.system(step, "the context cannot be fetched yet; trying again").await?;
                self.stop.guard(sleep(AGAIN)).await?;
                continue;
            }
            let code = match error {
                ContextError::Gone(_) | ContextError::Refused(_) => ReasonCode::StepFailed,
                ContextError::Away(_) | ContextError::Disk(_) => ReasonCode::Internal,
            };
            return Ok(Err(Event::Failed { code, message: chain, tail: None }));
        }
    }

    /// How many things all sources name, before anything is copied.
    async fn matches(
        &self,
        context: &Arc<Context>,
        sources: &[String],
    ) -> Result<Result<usize, Failed>, Halt> {
        let (context, sources) = (Arc::clone(context), sources.to_vec());
        self.looked_up(move |stop| {
            let mut going = sources.iter().take_while(|_| !stop.is_stopped());
            going.try_fold(0, |sum, source| Ok(sum + context.contents.matches(source)?))
        })
        .await
    }

    async fn selection(
        &self,
        context: &Arc<Context>,
        source: &str,
    ) -> Result<Result<Selection, Failed>, Halt> {
        let (context, source) = (Arc::clone(context), source.to_owned());
        self.looked_up(move |_| context.contents.select(&source)).await
    }

    /// What a look at all paths of a context gives. They are many, and a pattern may be slow.
    async fn looked_up<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Stop) -> Result<T, NoSelection> + Send + 'static,
    ) -> Result<Result<T, Failed>, Halt> {
        let stop = StopWhenDropped::default();
        let looking = stop.0.clone();
        let looked = tokio::task::spawn_blocking(move || look(&looking));
        Ok(match self.stop.guard(looked).await? {
            Ok(found) => found.map_err(|error| failed(format!("nothing is copied: {error}"))),
            Err(error) => Err(Event::Failed {
                code: ReasonCode::Internal,
                message: format!("the context cannot be looked through: {error}"),
                tail: None,
            }),
        })
    }

    /// Copies what one source names. A host that is away is waited for, as always.
    async fn unpack(
        &mut self,
        context: &Arc<Context>,
        selection: Selection,
        copying: &Copying,
    ) -> Result<Result<Packed, Failed>, Halt> {
        let sandbox_id = self.sandbox.clone().unwrap_or_default();
        let selection = Arc::new(selection);
        let mut away_since = None;
        loop {
            let owner = copying.owner.clone();
            let unpack = Unpack {
                user: owner.as_ref().map(|owner| owner.user.clone()).unwrap_or_default(),
                group: owner.and_then(|owner| owner.group).unwrap_or_default(),
                as_file: selection.is_one,
            };
            let stop = StopWhenDropped::default();
            let (packing, source) = packing(Arc::clone(context), Arc::clone(&selection), &stop.0);
            let path = &copying.destination;
            let unpacked = self.agent.unpack_stream(&sandbox_id, path, unpack, source);
            let unpacked = self.stop.guard(unpacked).await?;
            // Whatever it still reads: nobody takes it.
            drop(stop);
            let packed = packing.await;
            let error = match (unpacked, packed) {
                (Ok(Unpacked { .. }), Ok(Ok(packed))) => return Ok(Ok(packed)),
                (Err(AgentError::Source(_)), Ok(Err(ArchiveError::Refused(refused)))) => {
                    return Ok(Err(failed(format!("the context is not accepted: {refused}"))));
                }
                (Ok(_) | Err(AgentError::Source(_)), packed) => {
                    let why = match packed {
                        Ok(Err(error)) => ovenbird_kit::telemetry::chain(&error),
                        Ok(Ok(_)) => "its file broke off".to_owned(),
                        Err(error) => error.to_string(),
                    };
                    let message = format!("the context cannot be read: {why}");
                    return Ok(Err(Event::Failed {
                        code: ReasonCode::Internal,
                        message,
                        tail: None,
                    }));
                }
                (Err(error), _) => error,
            };
            let may_pass = match &error {
                AgentError::NoRoom { message } => message.contains(BUSY),
                AgentError::Unreachable { .. }
                | AgentError::Unavailable { .. }
                | AgentError::DeadlineExceeded { .. } => true,
                _ => false,
            };
            let since = *away_since.get_or_insert_with(Instant::now);
            if may_pass && since.elapsed() < self.away_max {
                tracing::info!(sandbox.id = sandbox_id, %error, "copying once more");
                self.stop.guard(sleep(AGAIN)).await?;
                continue;
            }
            return self.refused(&sandbox_id, &error).await.map(Err);
        }
    }

    /// What a host's refusal means: of the step, or of the sandbox that is not there any more.
    async fn refused(&self, sandbox_id: &str, error: &AgentError) -> Result<Failed, Halt> {
        let message = match error {
            AgentError::FailedPrecondition { message }
            | AgentError::InvalidArgument { message }
            | AgentError::NoRoom { message } => message,
            error => return failed_call(error, ReasonCode::Internal),
        };
        let listed = self.stop.guard(self.agent.list_sandboxes()).await?;
        let runs = listed.as_ref().is_ok_and(|sandboxes| {
            let mut of_build = sandboxes.iter().filter(|one| one.sandbox_id == sandbox_id);
            of_build.any(|one| one.status == "running")
        });
        if matches!(error, AgentError::FailedPrecondition { .. }) && listed.is_ok() && !runs {
            return Ok(Event::Failed {
                code: ReasonCode::SandboxEnded,
                message: format!("the microVM ended under the build's files: {message}"),
                tail: None,
            });
        }
        Ok(failed(format!("the files cannot be copied: {message}")))
    }
}

fn failed(message: String) -> Failed {
    Event::Failed { code: ReasonCode::StepFailed, message, tail: None }
}

/// What goes from the thread that packs to the call that sends.
enum Piece {
    Chunk(Bytes),
    /// All of it went before.
    Last,
}

/// Packs in a thread of its own; what comes of it, and its bytes. Only a whole archive ends without an error.
fn packing(
    context: Arc<Context>,
    selection: Arc<Selection>,
    stop: &Stop,
) -> (
    tokio::task::JoinHandle<Result<Packed, ArchiveError>>,
    impl tokio::io::AsyncRead + Send + Unpin + 'static,
) {
    let (sender, pieces) = mpsc::channel(QUEUE);
    let stop = stop.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let mut chunks = Chunks { sender, filled: Vec::with_capacity(CHUNK) };
        let packed = pack(&context.file, &selection, &stop, &mut chunks)?;
        chunks.sender.blocking_send(Piece::Last).map_err(|_| ArchiveError::Write(gone()))?;
        Ok(packed)
    });
    let chunks = stream::unfold(Some(pieces), |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Chunk(chunk)) => Some((Ok(chunk), Some(pieces))),
            Some(Piece::Last) => None,
            None => Some((Err(io::Error::other("the archive broke off")), None)),
        }
    });
    (packing, StreamReader::new(Box::pin(chunks)))
}

/// Hands bytes over in chunks.
struct Chunks {
    sender: mpsc::Sender<Piece>,
    filled: Vec<u8>,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(CHUNK - self.filled.len());
        self.filled.extend_from_slice(&bytes[..length]);
        if self.filled.len() == CHUNK {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.filled.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.filled, Vec::with_capacity(CHUNK));
        self.sender.blocking_send(Piece::Chunk(chunk.into())).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "nobody takes it")
}
