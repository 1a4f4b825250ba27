//! WriteFile and ReadFile: whole files in one message.

use std::time::Duration;

use futures::stream;
use ovenbird_guest_protocol::v1::{ReadFileRequest, read_file_response};
use prometheus_client::metrics::counter::Counter;
use tokio::time::timeout;
use tonic::{Code, Status};

use super::{
    file_streams::{Target, upload},
    status,
};
use crate::sandbox::InUse;

/// For one file.
const PATIENCE: Duration = Duration::from_secs(120);

fn late(_: tokio::time::error::Elapsed) -> Status {
    Status::unavailable("the guest does not answer")
}

/// Writes a file whole or not at all; missing parent folders are made.
pub(super) async fn write(
    guest: InUse,
    path: String,
    content: Vec<u8>,
    bytes: &Counter,
) -> Result<(), Status> {
    let content = stream::iter([Ok(content.into())]);
    let written = upload(&guest, Target::File(path), content, PATIENCE, bytes);
    timeout(PATIENCE, written).await.map_err(late)?.map(drop)
}

/// Reads a file of at most `bytes_max`.
pub(super) async fn read(guest: InUse, path: String, bytes_max: usize) -> Result<Vec<u8>, Status> {
    let leave = guest.has_to_leave();
    tokio::select! {
        biased;
        () = leave => Err(status::of(&guest.left())),
        read = timeout(PATIENCE, read_all(guest.clone(), path, bytes_max)) => read.map_err(late)?,
    }
}

async fn read_all(mut guest: InUse, path: String, bytes_max: usize) -> Result<Vec<u8>, Status> {
    let too_large = || {
        let message = format!("the file is larger than {bytes_max} bytes: use ReadFileStream");
        Status::resource_exhausted(message)
    };
    let failed = |status: Status| match status.code() {
        Code::OutOfRange => too_large(),
        _ => status::of_guest(&status),
    };
    let request = ReadFileRequest { path, max_bytes: bytes_max as u64, ..Default::default() };
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
