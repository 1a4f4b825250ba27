//! WriteFileStream, UnpackStream and ReadFileStream: files and archives of any size, passed on piece by piece.
//!
//! ```text
//!  caller ─ chunks ─► feed ─ one piece ─► guest      guest ─ chunks ─► pump ─ two chunks ─► caller
//!                       └─ broken off: what is no chunk, and the guest forgets the file
//! ```
//!
//! Nothing is held but the pieces that are on their way: who is slow holds the other side back, by HTTP/2's windows
//! on both connections. Each direction waits no longer than the idle time for either side.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use ovenbird_guest_protocol::v1 as guest;
use ovenbird_hostagent::v1::{self as host, write_file_stream_request::Content};
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{error::Elapsed, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

use super::{
    exec::{Answers, ask},
    status,
};
use crate::sandbox::{InUse, Manager};

/// The largest message of an upload, as gRPC has it by default.
pub(super) const MESSAGE_MAX: usize = 4 * 1024 * 1024;
/// What a guest is sent at once: one HTTP/2 window.
const PIECE: usize = 256 * 1024;
/// Chunks of 64 KiB that wait for a slow reader.
const QUEUE: usize = 2;

/// How many streams there may be, and how patient they are.
#[derive(Debug)]
pub(super) struct FileStreams {
    idle: Duration,
    max: usize,
    free: Arc<Semaphore>,
}

impl FileStreams {
    pub(super) fn new(idle: Duration, max: usize) -> Self {
        Self { idle, max, free: Arc::new(Semaphore::new(max)) }
    }

    /// The message that every upload begins with.
    pub(super) async fn meta(
        &self,
        messages: &mut Streaming<host::WriteFileStreamRequest>,
    ) -> Result<host::WriteFileStreamMeta, Status> {
        match next(messages, self.idle).await? {
            Some(host::WriteFileStreamRequest { content: Some(Content::Meta(meta)) }) => Ok(meta),
            _ => Err(Status::invalid_argument("the first message has to be the meta")),
        }
    }

    /// A place for one more.
    pub(super) fn open(&self, guest: InUse) -> Result<FileStream, Status> {
        let place = self.free.clone().try_acquire_owned().map_err(|_| {
            let max = self.max;
            Status::resource_exhausted(format!("{max} file streams are open: try again later"))
        })?;
        Ok(FileStream { guest, idle: self.idle, _place: place })
    }
}

/// One that is open; its sandbox is in use.
#[derive(Debug)]
pub(super) struct FileStream {
    guest: InUse,
    idle: Duration,
    _place: OwnedSemaphorePermit,
}

impl FileStream {
    /// Writes a file, or unpacks an archive, from the chunks that follow the meta. A caller who hangs up is noticed; so
    /// is one who may not go on, which `may_go_on` says before each chunk.
    pub(super) async fn write(
        self,
        manager: &Manager,
        target: Target,
        messages: Streaming<host::WriteFileStreamRequest>,
        may_go_on: impl Fn() -> Result<(), Status> + Send + 'static,
    ) -> Result<Written, Status> {
        let hung_up = CancellationToken::new();
        let _guard = hung_up.clone().drop_guard();
        let (sender, answer) = oneshot::channel();
        let bytes = manager.counted().file_bytes_in();
        // On its own, so that the guest is told the end also when nobody waits for it any more.
        manager.in_background(async move {
            // All of it, with its place among the streams.
            let stream = self;
            let chunks = chunks(messages, stream.idle, hung_up);
            let chunks = chunks.map(move |chunk| may_go_on().and(chunk));
            let uploaded = upload(&stream.guest, target, chunks, stream.idle, &bytes).await;
            let _ = sender.send(uploaded);
        });
        answer.await.unwrap_or_else(|_| Err(failed_inside()))
    }

    /// Reads a file. A caller who hangs up ends the guest's reading.
    pub(super) async fn read(
        mut self,
        manager: &Manager,
        request: host::ReadFileStreamRequest,
    ) -> Result<Answers<host::ReadFileStreamResponse>, Status> {
        let host::ReadFileStreamRequest { path, from_offset, length, with_size, .. } = request;
        let asked = guest::ReadFileRequest { path, from_offset, max_bytes: 0 };
        let mut messages = ask(self.guest.read_file(asked)).await?;
        let info = info(&mut messages, self.idle).await?;
        // An older one, out of a snapshot, knows no offsets.
        if info.from_offset != from_offset {
            let message = "the guest of this sandbox's snapshot cannot begin in a file's middle";
            return Err(Status::failed_precondition(message));
        }
        let part = Part { left: if length == 0 { u64::MAX } else { length } };
        let (sender, chunks) = mpsc::channel(QUEUE);
        let (end, ended) = oneshot::channel();
        let bytes = manager.counted().file_bytes_out();
        // Ends with the file, with the caller's stream, or with the patience for either side.
        manager.in_background(async move {
            // All of it, with its place among the streams.
            let stream = self;
            let pumped = pump(&stream.guest, messages, part, sender, stream.idle, &bytes).await;
            let _ = end.send(pumped);
        });
        let size = host::ReadFileStreamResponse { chunk: Bytes::new(), size: Some(info.size) };
        let first = stream::iter(with_size.then_some(Ok(size)));
        let answers = stream::unfold(Some((chunks, ended)), |state| async move {
            let (mut chunks, ended) = state?;
            if let Some(chunk) = chunks.recv().await {
                let answer = host::ReadFileStreamResponse { chunk, size: None };
                return Some((Ok(answer), Some((chunks, ended))));
            }
            // Only who has put all of it into the queue says that it was all.
            match ended.await.unwrap_or_else(|_| Err(failed_inside())) {
                Ok(()) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Box::pin(first.chain(answers)))
    }
}

fn failed_inside() -> Status {
    Status::internal("the host agent failed inside")
}

/// The caller's next message.
async fn next(
    messages: &mut Streaming<host::WriteFileStreamRequest>,
    idle: Duration,
) -> Result<Option<host::WriteFileStreamRequest>, Status> {
    match timeout(idle, messages.message()).await {
        Ok(Ok(message)) => Ok(message),
        Ok(Err(status)) if status.code() == Code::OutOfRange => {
            let message = format!("a message has more than {MESSAGE_MAX} bytes: send smaller ones");
            Err(Status::invalid_argument(message))
        }
        Ok(Err(status)) => Err(status),
        Err(_) => {
            let seconds = idle.as_secs();
            Err(Status::deadline_exceeded(format!("nothing came for {seconds} s")))
        }
    }
}

/// The chunks of an upload, up to its end or to the first thing that is none.
fn chunks(
    messages: Streaming<host::WriteFileStreamRequest>,
    idle: Duration,
    hung_up: CancellationToken,
) -> impl Stream<Item = Result<Bytes, Status>> + Send {
    stream::unfold(Some(messages), move |messages| {
        let hung_up = hung_up.clone();
        async move {
            let mut messages = messages?;
            let message = tokio::select! {
                biased;
                () = hung_up.cancelled() => Err(Status::cancelled("the caller hung up")),
                message = next(&mut messages, idle) => message,
            };
            let chunk = match message.transpose()?.map(|message| message.content) {
                Ok(Some(Content::Chunk(chunk))) => Ok(chunk),
                Ok(Some(Content::Meta(_))) => {
                    Err(Status::invalid_argument("a second meta: nothing is written"))
                }
                Ok(None) => Err(Status::invalid_argument("a message without a chunk")),
                Err(status) => Err(status),
            };
            let more = chunk.is_ok().then_some(messages);
            Some((chunk, more))
        }
    })
}

/// What a guest is sent of a file.
#[derive(Debug)]
enum Piece {
    Chunk(Bytes),
    /// The file is whole.
    Last,
}

/// Why not everything was sent.
enum Cut {
    /// The content's own end.
    Content(Status),
    /// The guest takes no more; its answer says why.
    Guest,
}

/// What becomes of an upload.
#[derive(Debug)]
pub(super) enum Target {
    /// One file, whole or not at all. It replaces what is there and keeps its mode and owner.
    File(String),
    /// An archive's files.
    Tree(String, host::Unpack),
}

/// What an upload came to.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Target {
    fn meta(self) -> guest::WriteFileMeta {
        match self {
            Self::File(path) => guest::WriteFileMeta {
                path,
                make_parents: true,
                keep_owner: true,
                ..guest::WriteFileMeta::default()
            },
            Self::Tree(path, host::Unpack { user, group, as_file }) => guest::WriteFileMeta {
                path,
                user,
                unpack: Some(guest::UnpackMeta { group, as_file }),
                ..guest::WriteFileMeta::default()
            },
        }
    }
}

/// The guest's side of an upload.
async fn call(
    mut client: InUse,
    meta: guest::WriteFileMeta,
    pieces: mpsc::Receiver<Piece>,
) -> Result<Written, Status> {
    if meta.unpack.is_none() {
        let written = client.write_file(messages(meta, pieces)).await?.into_inner();
        return Ok(Written { entries: 1, bytes: written.size });
    }
    match client.unpack(messages(meta, pieces)).await {
        Ok(unpacked) => {
            let guest::UnpackResponse { entries, bytes } = unpacked.into_inner();
            Ok(Written { entries, bytes })
        }
        Err(status) if status.code() == Code::Unimplemented => {
            let message = "the guest of this sandbox's snapshot is too old to unpack files: build \
                the snapshot's template again";
            Err(Status::failed_precondition(message))
        }
        Err(status) => Err(status),
    }
}

/// Writes what comes into a guest.
pub(super) async fn upload(
    guest: &InUse,
    target: Target,
    content: impl Stream<Item = Result<Bytes, Status>> + Send,
    idle: Duration,
    bytes: &Counter,
) -> Result<Written, Status> {
    let late = |_: Elapsed| Status::unavailable("the guest does not answer");
    let (sender, pieces) = mpsc::channel(1);
    let mut call = pin!(call(guest.clone(), target.meta(), pieces));
    let cut = tokio::select! {
        biased;
        // Refused before it was whole.
        answer = &mut call => match answer {
            Ok(_) => return Err(Status::unavailable("the guest ended the file too early")),
            Err(status) => return Err(status::of_guest(&status)),
        },
        () = guest.has_to_leave() => Err(Cut::Content(status::of(&guest.left()))),
        // With its sender, so that the guest learns the end of it now.
        fed = feed(content, sender, idle, bytes) => fed,
    };
    let answer = timeout(idle, call).await;
    match cut {
        Ok(()) => answer.map_err(late)?.map_err(|status| status::of_guest(&status)),
        Err(Cut::Content(status)) => Err(status),
        Err(Cut::Guest) => match answer.map_err(late)? {
            Ok(_) => Err(Status::unavailable("the guest ended the file too early")),
            Err(status) => Err(status::of_guest(&status)),
        },
    }
}

/// Cuts the content into pieces for a guest.
async fn feed(
    content: impl Stream<Item = Result<Bytes, Status>> + Send,
    pieces: mpsc::Sender<Piece>,
    idle: Duration,
    bytes: &Counter,
) -> Result<(), Cut> {
    let send = async |piece| match timeout(idle, pieces.send(piece)).await {
        Ok(sent) => sent.map_err(|_| Cut::Guest),
        Err(_) => Err(Cut::Content(Status::unavailable("the guest takes no more of the file"))),
    };
    let mut content = pin!(content);
    while let Some(chunk) = content.next().await {
        let mut chunk = chunk.map_err(Cut::Content)?;
        while !chunk.is_empty() {
            let piece = chunk.split_to(chunk.len().min(PIECE));
            let length = piece.len() as u64;
            send(Piece::Chunk(piece)).await?;
            bytes.inc_by(length);
        }
    }
    send(Piece::Last).await
}

/// The messages of a guest's WriteFile and Unpack. The end of a stream is a file's completion, so a sender that goes away
/// before [`Piece::Last`], for whatever reason, must not look like it: a message without content makes the guest
/// forget the file.
fn messages(
    meta: guest::WriteFileMeta,
    pieces: mpsc::Receiver<Piece>,
) -> impl Stream<Item = guest::WriteFileRequest> + Send + 'static {
    use guest::write_file_request::Content;
    let message = |content| guest::WriteFileRequest { content };
    let rest = stream::unfold(Some(pieces), move |pieces| async move {
        let mut pieces = pieces?;
        match pieces.recv().await {
            Some(Piece::Chunk(chunk)) => Some((message(Some(Content::Chunk(chunk))), Some(pieces))),
            Some(Piece::Last) => None,
            None => Some((message(None), None)),
        }
    });
    stream::once(async move { message(Some(Content::Meta(meta))) }).chain(rest)
}

/// What a guest says of a file before its content.
async fn info(
    messages: &mut Streaming<guest::ReadFileResponse>,
    idle: Duration,
) -> Result<guest::FileInfo, Status> {
    let first = timeout(idle, messages.message()).await;
    let first = first.map_err(|_| Status::unavailable("the guest does not answer"))?;
    match first.map_err(|status| status::of_guest(&status))?.and_then(|first| first.content) {
        Some(guest::read_file_response::Content::Info(info)) => Ok(info),
        _ => Err(Status::unavailable("the guest sends a file without saying which")),
    }
}

/// As much of a file as its reader asked for.
#[derive(Debug, Clone, Copy)]
struct Part {
    left: u64,
}

impl Part {
    /// What of the next chunk belongs to it.
    fn take(&mut self, mut chunk: Bytes) -> Bytes {
        chunk.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= chunk.len() as u64;
        chunk
    }
}

/// Passes a file on to a reader, to its end.
async fn pump(
    guest: &InUse,
    mut messages: Streaming<guest::ReadFileResponse>,
    mut part: Part,
    reader: mpsc::Sender<Bytes>,
    idle: Duration,
    bytes: &Counter,
) -> Result<(), Status> {
    let left = || Err(status::of(&guest.left()));
    while part.left > 0 {
        let message = tokio::select! {
            biased;
            () = guest.has_to_leave() => return left(),
            () = reader.closed() => return Ok(()),
            message = timeout(idle, messages.message()) => message,
        };
        let message = message
            .map_err(|_| Status::unavailable("the guest sends no more of the file"))?
            .map_err(|status| status::of_guest(&status))?;
        let chunk = match message.map(|message| message.content) {
            Some(Some(guest::read_file_response::Content::Chunk(chunk))) => part.take(chunk),
            Some(_) => continue,
            None => return Ok(()),
        };
        let length = chunk.len() as u64;
        let sent = tokio::select! {
            biased;
            () = guest.has_to_leave() => return left(),
            () = guest.is_over() => return left(),
            sent = timeout(idle, reader.send(chunk)) => sent,
        };
        match sent {
            Ok(Ok(())) => drop(bytes.inc_by(length)),
            Ok(Err(_)) => return Ok(()),
            Err(_) => {
                let seconds = idle.as_secs();
                return Err(Status::deadline_exceeded(format!("nothing was read for {seconds} s")));
            }
        }
    }
    Ok(())
}
