//! ListDirectory, MakeDirectory and RemovePath: passed on to the guest.

use std::time::Duration;

use ovenbird_guest_protocol::v1 as guest;
use ovenbird_hostagent::v1 as host;
use tokio::time::timeout;
use tonic::{Response, Status};

use super::status;
use crate::sandbox::InUse;

/// For one call: a removal may have much to remove.
const PATIENCE: Duration = Duration::from_secs(120);

/// One call of a guest, which ends early when its sandbox is paused.
async fn ask<T>(
    in_use: &InUse,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    tokio::select! {
        biased;
        () = in_use.has_to_leave() => Err(status::of(&in_use.left())),
        answer = timeout(PATIENCE, call) => match answer {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(status::of_guest(&status)),
            Err(_) => Err(Status::unavailable("the guest does not answer")),
        },
    }
}

pub(super) async fn list(
    in_use: InUse,
    request: host::ListDirectoryRequest,
) -> Result<host::ListDirectoryResponse, Status> {
    let host::ListDirectoryRequest { path, after, limit, .. } = request;
    let mut guest = in_use.clone();
    let asked = guest::ListDirectoryRequest { path, after: after.into(), limit };
    let page = ask(&in_use, guest.list_directory(asked)).await?;
    let entries = page.entries.into_iter().map(|entry| host::DirectoryEntry {
        kind: kind(entry.kind()).into(),
        name: entry.name.into(),
        size: entry.size,
        mode: entry.mode,
        modified_unix: entry.modified_unix,
    });
    Ok(host::ListDirectoryResponse { entries: entries.collect(), more: page.more })
}

fn kind(kind: guest::FileKind) -> host::FileKind {
    match kind {
        guest::FileKind::Unspecified => host::FileKind::Unspecified,
        guest::FileKind::File => host::FileKind::File,
        guest::FileKind::Directory => host::FileKind::Directory,
        guest::FileKind::Link => host::FileKind::Link,
        guest::FileKind::Other => host::FileKind::Other,
    }
}

pub(super) async fn make(
    in_use: InUse,
    request: host::MakeDirectoryRequest,
) -> Result<host::MakeDirectoryResponse, Status> {
    let host::MakeDirectoryRequest { path, make_parents, .. } = request;
    let mut guest = in_use.clone();
    let asked = guest::MakeDirectoryRequest { path, make_parents };
    let made = ask(&in_use, guest.make_directory(asked)).await?.made;
    Ok(host::MakeDirectoryResponse { made })
}

pub(super) async fn remove(in_use: InUse, request: host::RemovePathRequest) -> Result<(), Status> {
    let host::RemovePathRequest { path, recursive, .. } = request;
    let mut guest = in_use.clone();
    let asked = guest::RemovePathRequest { path, recursive };
    ask(&in_use, guest.remove_path(asked)).await.map(drop)
}
