//! Files of any size, as they come and go.
//!
//! A transfer has no deadline of its own: it lasts as long as either side makes progress, and the agent ends one that
//! stands still. Keepalive ends it when the host is gone.

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use ovenbird_hostagent::v1::{self, write_file_stream_request::Content};
use tokio::{io::AsyncRead, sync::oneshot};
use tokio_util::io::ReaderStream;
use tonic::Streaming;

use crate::error::Error;

/// What is read of a source at once.
const CHUNK: usize = 256 * 1024;

/// The content of a file. Not reading holds the guest back.
#[derive(Debug)]
pub struct FileChunks {
    stream: Streaming<v1::ReadFileStreamResponse>,
}

impl FileChunks {
    pub(crate) fn new(stream: Streaming<v1::ReadFileStreamResponse>) -> Self {
        Self { stream }
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

/// The messages that write a file from a source, and why the source ended early, if it did: the last message is then
/// a second meta, with which the agent forgets the file.
pub(crate) fn messages(
    meta: v1::WriteFileStreamMeta,
    source: impl AsyncRead + Send + Unpin + 'static,
) -> (
    impl Stream<Item = v1::WriteFileStreamRequest> + Send + 'static,
    oneshot::Receiver<std::io::Error>,
) {
    let message = |content| v1::WriteFileStreamRequest { content: Some(content) };
    let (failed, failure) = oneshot::channel();
    let again = Content::Meta(meta.clone());
    let source = Some((ReaderStream::with_capacity(source, CHUNK), failed, again));
    let chunks = stream::unfold(source, move |state| async move {
        let (mut source, failed, again) = state?;
        match source.next().await? {
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

    #[tokio::test]
    async fn source_that_ends_ends_the_messages() {
        let meta = v1::WriteFileStreamMeta::default();
        let (messages, failure) = messages(meta, &b"all of it"[..]);
        assert_eq!(messages.count().await, 2);
        assert!(failure.await.is_err());
    }
}
