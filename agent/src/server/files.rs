//! WriteFile and ReadFile: whole files in one message, cut into chunks for the guest.

use std::time::Duration;

use ovenbird_guest_protocol::{
    WRITE_CHUNK_MAX,
    v1::{
        ReadFileRequest, WriteFileMeta, WriteFileRequest, read_file_response,
        write_file_request::Content,
    },
};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::status;
use crate::sandbox::InUse;

/// For one file.
const PATIENCE: Duration = Duration::from_secs(120);

fn late(_: tokio::time::error::Elapsed) -> Status {
    Status::unavailable("the guest does not answer")
}

/// Writes a file whole or not at all; missing parent folders are made.
pub(super) async fn write(mut guest: InUse, path: String, content: Vec<u8>) -> Result<(), Status> {
    let meta =
        WriteFileMeta { path, mode: 0, user: String::new(), make_parents: true, sync: false };
    let content = bytes::Bytes::from(content);
    let chunks = (0..content.len()).step_by(WRITE_CHUNK_MAX).map(move |start| {
        let end = content.len().min(start + WRITE_CHUNK_MAX);
        Content::Chunk(content.slice(start..end))
    });
    let messages = std::iter::once(Content::Meta(meta))
        .chain(chunks)
        .map(|content| WriteFileRequest { content: Some(content) });
    let written = timeout(PATIENCE, guest.write_file(tokio_stream::iter(messages))).await;
    written.map_err(late)?.map_err(|status| status::of_guest(&status))?;
    Ok(())
}

/// Reads a file of at most `bytes_max`.
pub(super) async fn read(guest: InUse, path: String, bytes_max: usize) -> Result<Vec<u8>, Status> {
    timeout(PATIENCE, read_all(guest, path, bytes_max)).await.map_err(late)?
}

async fn read_all(mut guest: InUse, path: String, bytes_max: usize) -> Result<Vec<u8>, Status> {
    let too_large =
        || Status::resource_exhausted(format!("the file is larger than {bytes_max} bytes"));
    let failed = |status: Status| match status.code() {
        Code::OutOfRange => too_large(),
        _ => status::of_guest(&status),
    };
    let request = ReadFileRequest { path, max_bytes: bytes_max as u64 };
    let mut chunks = guest.read_file(request).await.map_err(failed)?.into_inner();
    let mut content = Vec::new();
    while let Some(message) = chunks.message().await.map_err(failed)? {
        if let Some(read_file_response::Content::Chunk(chunk)) = message.content {
            content.extend(chunk);
        }
        // The file can grow while it is read, and the guest can lie.
        if content.len() > bytes_max {
            return Err(too_large());
        }
    }
    Ok(content)
}
