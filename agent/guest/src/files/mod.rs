//! Files in and out: a write is whole or not at all, a read is of a regular file. Directories stand in [`directory`],
//! archives in [`unpack`].

pub(crate) mod directory;
mod draft;
pub(crate) mod unpack;

use std::{
    fs::Permissions,
    io::SeekFrom,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
};

use bytes::{Bytes, BytesMut};
use draft::Draft;
use futures::{Stream, StreamExt, stream};
use ovenbird_guest_protocol::{
    WRITE_CHUNK_MAX,
    v1::{
        FileInfo, ReadFileRequest, ReadFileResponse, WriteFileRequest, read_file_response,
        write_file_request,
    },
};
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
};
use tonic::Status;

use crate::error::Error;

const PATH_MAX: usize = 4095;
const READ_CHUNK: usize = 64 * 1024;
const MODE: u32 = 0o7777;

/// Refuses what is no absolute path.
pub(crate) fn check_path(field: &'static str, path: &str) -> Result<(), Error> {
    match path {
        "" => Err(Error::argument(field, "is empty")),
        _ if !path.starts_with('/') => Err(Error::argument(field, "is not an absolute path")),
        _ if path.contains('\0') => Err(Error::argument(field, "must not contain NUL")),
        _ if path.len() > PATH_MAX => Err(Error::argument(field, "is longer than 4095 bytes")),
        _ => Ok(()),
    }
}

/// Writes one file from its messages; its size.
pub(crate) async fn write(
    mut messages: impl Stream<Item = Result<WriteFileRequest, Status>> + Unpin,
) -> Result<u64, Error> {
    let first = messages.next().await.transpose().map_err(Error::Upload)?;
    let Some(WriteFileRequest { content: Some(write_file_request::Content::Meta(meta)) }) = first
    else {
        return Err(Error::argument("meta", "is not in the first message"));
    };
    let failed = || Error::file(&meta.path);
    let (draft, file) = Draft::begin(&meta)?;
    let mut file = File::from_std(file);
    file.set_max_buf_size(WRITE_CHUNK_MAX);
    let mut size = 0;
    while let Some(message) = messages.next().await {
        let Some(write_file_request::Content::Chunk(chunk)) =
            message.map_err(Error::Upload)?.content
        else {
            return Err(Error::argument("content", "is not a chunk"));
        };
        if chunk.len() > WRITE_CHUNK_MAX {
            return Err(Error::argument("chunk", "is longer than 1 MiB"));
        }
        file.write_all(&chunk).await.map_err(failed())?;
        size += chunk.len() as u64;
    }
    file.flush().await.map_err(failed())?;
    // The owner first: a change of owner takes the set-user-id bits away.
    fchown(&file, Some(draft.owner.uid), Some(draft.owner.gid)).map_err(failed())?;
    file.set_permissions(Permissions::from_mode(draft.mode)).await.map_err(failed())?;
    if meta.sync {
        file.sync_all().await.map_err(failed())?;
    }
    let folder = draft.folder.clone();
    draft.publish().map_err(failed())?;
    if meta.sync {
        let folder = File::open(&folder).await.map_err(failed())?;
        folder.sync_all().await.map_err(failed())?;
    }
    Ok(size)
}

/// Opens a file and gives its messages.
pub(crate) async fn read(
    request: ReadFileRequest,
) -> Result<impl Stream<Item = Result<ReadFileResponse, Status>> + Send, Error> {
    let path = request.path;
    check_path("path", &path)?;
    // Without blocking, or a FIFO would hold the call until somebody writes to it.
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path)
        .await
        .map_err(Error::file(&path))?;
    let meta = file.metadata().await.map_err(Error::file(&path))?;
    if meta.is_dir() {
        return Err(Error::Folder { path });
    }
    if !meta.is_file() {
        return Err(Error::NotRegular { path });
    }
    let (size, max) = (meta.len(), request.max_bytes);
    if max > 0 && size > max {
        return Err(Error::TooLong { path, size, max });
    }
    let from_offset = request.from_offset;
    if from_offset > 0 {
        file.seek(SeekFrom::Start(from_offset)).await.map_err(Error::file(&path))?;
    }
    let info = FileInfo { size, mode: meta.mode() & MODE, from_offset };
    let info = read_file_response::Content::Info(info);
    let chunks = Chunks { file, path, read: 0, max, over: false };
    Ok(stream::once(async { Ok(info) })
        .chain(chunks.stream())
        .map(|content| Ok(ReadFileResponse { content: Some(content.map_err(Status::from)?) })))
}

/// The rest of a file that is being read.
struct Chunks {
    file: File,
    path: String,
    read: u64,
    max: u64,
    over: bool,
}

impl Chunks {
    fn stream(mut self) -> impl Stream<Item = Result<read_file_response::Content, Error>> + Send {
        self.file.set_max_buf_size(READ_CHUNK);
        stream::unfold(self, |mut chunks| async move {
            if chunks.over {
                return None;
            }
            let chunk = chunks.next().await.transpose()?;
            chunks.over = chunk.is_err();
            Some((chunk.map(read_file_response::Content::Chunk), chunks))
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let mut chunk = BytesMut::with_capacity(READ_CHUNK);
        let read = self.file.read_buf(&mut chunk).await.map_err(Error::file(&self.path))?;
        self.read += read as u64;
        // Files of the kernel say 0 and have more; others grow while they are read.
        if self.max > 0 && self.read > self.max {
            return Err(Error::TooLong { path: self.path.clone(), size: self.read, max: self.max });
        }
        Ok((read > 0).then(|| chunk.freeze()))
    }
}
