//! Files of any size, as they come and go.
//!
//! A transfer has no deadline of its own: it lasts as long as either side makes progress, and the agent ends one that
//! stands still. Keepalive ends it when the host is gone.

use std::{num::NonZeroU64, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use ovenbird_hostagent::v1::{self, write_file_stream_request::Content};
use tokio::{io::AsyncRead, sync::oneshot, time::timeout};
use tokio_util::io::ReaderStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    agent::{Agent, Client},
    error::Error,
};

/// What is read of a source at once.
const CHUNK: usize = 256 * 1024;
/// A message without content says that an archive's source still works: it reads much and sends little of it. An agent
/// ends a stream on which nothing comes for a minute.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// The content of a file. Not reading holds the guest back.
#[derive(Debug)]
pub struct FileChunks {
    stream: Streaming<v1::ReadFileStreamResponse>,
    size: u64,
}

impl FileChunks {
    async fn begin(mut stream: Streaming<v1::ReadFileStreamResponse>) -> Result<Self, Error> {
        let first = stream.message().await.map_err(Error::from_status)?;
        match first.and_then(|first| first.size) {
            Some(size) => Ok(Self { stream, size }),
            None => Err(Error::Unimplemented { message: "it does not tell a file's size".into() }),
        }
    }

    /// The size of the whole file when it was opened. Files of the guest's kernel say 0 and have more.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The next piece; `None` after the last one. May be dropped while it waits without losing anything.
    ///
    /// # Errors
    /// As every call. What was read before is then not the whole file.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let message = self.stream.next().await?;
        Some(message.map(|message| message.chunk).map_err(Error::from_status))
    }
}

/// Whose what is unpacked shall be, and as what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unpack {
    /// A name or a number; empty: root.
    pub user: String,
    /// A name or a number; empty: the user's primary group.
    pub group: String,
    /// The archive is one file, which gets the path as its name, unless that is a directory or ends with a slash.
    pub as_file: bool,
}

/// What was unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpacked {
    /// Files, directories and links.
    pub entries: u64,
    /// Of all files.
    pub bytes: u64,
}

impl Agent {
    /// Writes a file of any size from a source. Not repeated: a source is read once. Without a deadline; it ends when
    /// either side makes no progress. A source that fails, or a call that is dropped, leaves what was there.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails; else as [`Agent::write_file`].
    pub async fn write_file_stream(
        &self,
        sandbox_id: &str,
        path: &str,
        source: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let meta = v1::WriteFileStreamMeta {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            fence: self.fence.clone(),
            unpack: None,
        };
        let (messages, failure) = messages(meta, source);
        let mut request = Request::new(messages);
        self.trace(&mut request);
        let written = self.client.clone().write_file_stream(request).await;
        answer_of(failure, written).map(drop)
    }

    /// Unpacks a tar archive of files, directories and symbolic links from a source, file by file: what was unpacked
    /// before it broke off stays, and unpacking it once more replaces it. Not repeated; without a deadline, as
    /// [`Agent::write_file_stream`], but the source may take its time.
    ///
    /// # Errors
    /// [`Error::Source`] when the source fails; [`Error::FailedPrecondition`] for an owner that the sandbox does not
    /// know, and where a file and a directory are in each other's way.
    pub async fn unpack_stream(
        &self,
        sandbox_id: &str,
        path: &str,
        unpack: Unpack,
        source: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Unpacked, Error> {
        let Unpack { user, group, as_file } = unpack;
        let meta = v1::WriteFileStreamMeta {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            fence: self.fence.clone(),
            unpack: Some(v1::Unpack { user, group, as_file }),
        };
        let (messages, failure) = messages(meta, source);
        let mut request = Request::new(messages);
        self.trace(&mut request);
        let unpacked = self.client.clone().unpack_stream(request).await;
        let v1::UnpackStreamResponse { entries, bytes } = answer_of(failure, unpacked)?;
        Ok(Unpacked { entries, bytes })
    }

    /// Reads a part of a file of any size: `length` bytes from `from_offset` on, or all that there are; behind the
    /// end there are none. Repeated, up to its first answer, when the host cannot be reached.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a path that does not exist.
    pub async fn read_file_stream(
        &self,
        sandbox_id: &str,
        path: &str,
        from_offset: u64,
        length: Option<NonZeroU64>,
    ) -> Result<FileChunks, Error> {
        let message = v1::ReadFileStreamRequest {
            sandbox_id: sandbox_id.to_owned(),
            path: path.to_owned(),
            from_offset,
            length: length.map_or(0, NonZeroU64::get),
            with_size: true,
        };
        let deadline = self.config.deadlines.file;
        let open = |mut client: Client, mut request: Request<v1::ReadFileStreamRequest>| {
            // The deadline is for the first answer only: the stream lasts as long as the file.
            request.metadata_mut().remove("grpc-timeout");
            async move { client.read_file_stream(request).await }
        };
        FileChunks::begin(self.repeated(deadline, message, open).await?).await
    }
}

/// What an upload came to: a source that failed explains everything else.
fn answer_of<T>(
    mut failure: oneshot::Receiver<std::io::Error>,
    answer: Result<Response<T>, Status>,
) -> Result<T, Error> {
    match (failure.try_recv(), answer) {
        (Ok(source), _) => Err(Error::Source(source)),
        (Err(_), Ok(answer)) => Ok(answer.into_inner()),
        (Err(_), Err(status)) => Err(Error::from_status(status)),
    }
}

/// The messages that write a file from a source, and why the source ended early, if it did: the last message is then
/// a second meta, with which the agent forgets the file.
fn messages(
    meta: v1::WriteFileStreamMeta,
    source: impl AsyncRead + Send + Unpin + 'static,
) -> (
    impl Stream<Item = v1::WriteFileStreamRequest> + Send + 'static,
    oneshot::Receiver<std::io::Error>,
) {
    let message = |content| v1::WriteFileStreamRequest { content: Some(content) };
    let (failed, failure) = oneshot::channel();
    let again = Content::Meta(meta.clone());
    let silence_max = if meta.unpack.is_some() { SIGN_OF_LIFE } else { Duration::MAX };
    let source = Some((ReaderStream::with_capacity(source, CHUNK), failed, again));
    let chunks = stream::unfold(source, move |state| async move {
        let (mut source, failed, again) = state?;
        let Ok(next) = timeout(silence_max, source.next()).await else {
            return Some((message(Content::Chunk(Bytes::new())), Some((source, failed, again))));
        };
        match next? {
            Ok(chunk) => Some((message(Content::Chunk(chunk)), Some((source, failed, again)))),
            Err(error) => {
                let _ = failed.send(error);
                Some((message(again), None))
            }
        }
    });
    (stream::once(async move { message(Content::Meta(meta)) }).chain(chunks), failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn source_that_fails_ends_in_a_message_that_no_agent_accepts() {
        let broken = tokio_util::io::StreamReader::new(stream::iter([
            Ok(Bytes::from_static(b"half")),
            Err(std::io::Error::other("the disk is gone")),
        ]));
        let meta = v1::WriteFileStreamMeta { path: "/x".into(), ..Default::default() };
        let (messages, failure) = messages(meta.clone(), broken);
        let contents: Vec<_> = messages.map(|message| message.content.unwrap()).collect().await;
        let expected = [
            Content::Meta(meta.clone()),
            Content::Chunk(Bytes::from_static(b"half")),
            Content::Meta(meta),
        ];
        assert_eq!(contents, expected);
        assert_eq!(failure.await.unwrap().to_string(), "the disk is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn archive_that_is_slow_shows_that_it_lives_and_a_file_does_not() {
        for (unpack, silent) in [(Some(v1::Unpack::default()), 6), (None, 0)] {
            let slow = stream::once(async {
                tokio::time::sleep(SIGN_OF_LIFE * 6 + SIGN_OF_LIFE / 2).await;
                std::io::Result::Ok(Bytes::from_static(b"late"))
            });
            let slow = tokio_util::io::StreamReader::new(Box::pin(slow));
            let meta = v1::WriteFileStreamMeta { unpack, ..Default::default() };
            let (messages, _failure) = messages(meta, slow);
            let chunks = messages.skip(1).map(|message| message.content.unwrap());
            let mut expected = vec![Content::Chunk(Bytes::new()); silent];
            expected.push(Content::Chunk(Bytes::from_static(b"late")));
            assert_eq!(chunks.collect::<Vec<_>>().await, expected);
        }
    }

    #[tokio::test]
    async fn source_that_ends_ends_the_messages() {
        let meta = v1::WriteFileStreamMeta::default();
        let (messages, failure) = messages(meta, &b"all of it"[..]);
        assert_eq!(messages.count().await, 2);
        assert!(failure.await.is_err());
    }
}
