//! `/v1/sandboxes/{id}/files` and `…/directories`: what is in a running sandbox. Content is never held whole.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, stream};
use ovenbird_agent_client::{DirectoryEntry, FileChunks, FileKind};
use poem::Body;
use poem_openapi::{
    ApiResponse, Enum, Object, OpenApi,
    param::{Header, Path, Query},
    payload::{Binary, Json},
};

use crate::{
    app::{
        App,
        sandboxes::{Content, Range},
    },
    http::{
        Tag,
        auth::{Allowed, Builds},
        body::{self, Submitted},
        error::Failure,
        parameters,
    },
};

/// What is in a sandbox must not be shown as a page of ours.
const ATTACHMENT: &str = "attachment";

/// The resource.
#[derive(Debug, Clone)]
pub struct FileRoutes {
    app: Arc<App>,
}

impl FileRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// A file's content.
#[derive(Debug, ApiResponse)]
pub enum FileContent {
    /// All of it.
    #[oai(status = 200)]
    Whole(
        Binary<Body>,
        /// Parts can be asked for.
        #[oai(header = "Accept-Ranges")]
        String,
        /// A browser stores it, whatever is in it.
        #[oai(header = "Content-Disposition")]
        String,
    ),
    /// The part that was asked for.
    #[oai(status = 206)]
    Part(
        Binary<Body>,
        /// Which bytes of how many.
        #[oai(header = "Content-Range")]
        String,
        /// How many these are.
        #[oai(header = "Content-Length")]
        u64,
        /// A browser stores it, whatever is in it.
        #[oai(header = "Content-Disposition")]
        String,
    ),
}

/// The answer to a change.
#[derive(Debug, ApiResponse)]
pub enum Changed {
    /// It is done.
    #[oai(status = 204)]
    Done,
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, FIFO or socket.
    Other,
}

/// What is in a directory.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Entry {
    /// Its name there. What is not UTF-8 is replaced.
    pub name: String,
    /// What it is.
    pub kind: EntryKind,
    /// Its size, in bytes.
    #[oai(validator(minimum(value = "0")))]
    pub size_bytes: u64,
    /// Its permission bits, in octal.
    pub mode: String,
    /// When it was last changed.
    pub modified_at: Option<DateTime<Utc>>,
}

/// A page of a directory.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct DirectoryList {
    /// By name.
    pub items: Vec<Entry>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

/// A directory to be.
#[derive(Debug, Object)]
pub struct DirectoryCreate {
    /// An absolute path without `..`.
    #[oai(validator(min_length = 1, max_length = 4095))]
    pub path: String,
}

/// A directory that is there.
#[derive(Debug, Object)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// It was not there before.
    pub made: bool,
}

#[OpenApi(prefix_path = "/v1/sandboxes", tag = "Tag::Sandboxes")]
impl FileRoutes {
    /// Download a file
    ///
    /// Streams a regular file of any size. With `Range: bytes=…` (one range) only a part of it. A download that breaks
    /// off ends its connection early: it is never mistaken for a whole one.
    #[oai(path = "/:id/files", method = "get", operation_id = "sandbox_file_read")]
    async fn read(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// An absolute path without `..`.
        #[oai(validator(min_length = 1, max_length = 4095))]
        path: Query<String>,
        /// The part that is wanted: `bytes=0-99`, `bytes=100-` or `bytes=-100`.
        #[oai(
            name = "Range",
            validator(pattern = "^bytes=([0-9]{1,18}-([0-9]{1,18})?|-[0-9]{1,18})$")
        )]
        range: Header<Option<String>>,
    ) -> Result<FileContent, Failure> {
        let range = range.0.as_deref().map(read_range).transpose()?;
        let id = parameters::id(&id.0)?;
        let Content { chunks, size, part } =
            self.app.sandbox_file_read(&caller, id, &path.0, range).await?;
        let content = Binary(content(chunks));
        Ok(match part {
            None => FileContent::Whole(content, "bytes".into(), ATTACHMENT.into()),
            Some((first, length)) => {
                let last = first.saturating_add(length.get()).saturating_sub(1);
                let range = format!("bytes {first}-{last}/{size}");
                FileContent::Part(content, range, length.get(), ATTACHMENT.into())
            }
        })
    }

    /// Upload a file
    ///
    /// Streams a file of any size: the request's body is its content. It is whole or not at all; an upload that breaks
    /// off leaves what was there. Directories above it that are missing are made. What it replaces keeps mode and
    /// owner; a new file is root's, 0644.
    #[oai(path = "/:id/files", method = "put", operation_id = "sandbox_file_write")]
    async fn write(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// An absolute path without `..`.
        #[oai(validator(min_length = 1, max_length = 4095))]
        path: Query<String>,
        content: Binary<Body>,
    ) -> Result<Changed, Failure> {
        let id = parameters::id(&id.0)?;
        // Asked first, while the rest of the body can still be read and dropped.
        if let Err(error) = self.app.sandbox_file_writable(&caller, id, &path.0).await {
            body::drain(content.0.into_bytes_stream()).await;
            return Err(error.into());
        }
        let source = Box::pin(content.0.into_async_read());
        self.app.sandbox_file_write(&caller, id, &path.0, source).await?;
        Ok(Changed::Done)
    }

    /// Remove a file or directory
    ///
    /// A symbolic link itself, not what it points to.
    #[oai(path = "/:id/files", method = "delete", operation_id = "sandbox_file_remove")]
    async fn remove(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// An absolute path without `..`.
        #[oai(validator(min_length = 1, max_length = 4095))]
        path: Query<String>,
        /// A directory with everything in it.
        #[oai(default)]
        recursive: Query<bool>,
    ) -> Result<Changed, Failure> {
        let id = parameters::id(&id.0)?;
        self.app.sandbox_file_remove(&caller, id, &path.0, recursive.0).await?;
        Ok(Changed::Done)
    }

    /// List a directory
    ///
    /// By name, a page at a time.
    #[oai(path = "/:id/directories", method = "get", operation_id = "sandbox_directory_list")]
    async fn list(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// An absolute path without `..`.
        #[oai(validator(min_length = 1, max_length = 4095))]
        path: Query<String>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 344))]
        cursor: Query<Option<String>>,
        /// Entries of a page.
        #[oai(
            validator(minimum(value = "1"), maximum(value = "1000")),
            default = "entries_default"
        )]
        limit: Query<u32>,
    ) -> Result<Json<DirectoryList>, Failure> {
        let id = parameters::id(&id.0)?;
        let cursor = cursor.0.as_deref();
        let page = self.app.sandbox_directory_list(&caller, id, &path.0, cursor, limit.0).await?;
        let items = page.entries.into_iter().map(Into::into).collect();
        Ok(Json(DirectoryList { items, next_cursor: page.next }))
    }

    /// Make a directory
    ///
    /// And those above it that are missing; root's, 0755. One that is there already is fine.
    #[oai(path = "/:id/directories", method = "post", operation_id = "sandbox_directory_make")]
    async fn make(
        &self,
        caller: Allowed<Builds>,
        /// The sandbox.
        #[oai(validator(pattern = "^sbx_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        body: Submitted<DirectoryCreate>,
    ) -> Result<Json<Directory>, Failure> {
        let DirectoryCreate { path } = body.accepted()?;
        let id = parameters::id(&id.0)?;
        let made = self.app.sandbox_directory_make(&caller, id, &path).await?;
        Ok(Json(Directory { path, made }))
    }
}

fn entries_default() -> u32 {
    200
}

impl From<DirectoryEntry> for Entry {
    fn from(entry: DirectoryEntry) -> Self {
        Self {
            name: String::from_utf8_lossy(&entry.name).into_owned(),
            kind: match entry.kind {
                FileKind::File => EntryKind::File,
                FileKind::Directory => EntryKind::Directory,
                FileKind::Link => EntryKind::Link,
                FileKind::Other => EntryKind::Other,
            },
            size_bytes: entry.size,
            mode: format!("{:04o}", entry.mode),
            modified_at: DateTime::from_timestamp(entry.modified_unix, 0),
        }
    }
}

/// The pieces as they come. An error breaks the connection off.
fn content(chunks: FileChunks) -> Body {
    let pieces = stream::unfold(Some(chunks), |chunks| async move {
        let mut chunks = chunks?;
        let piece = chunks.next().await?;
        let rest = piece.is_ok().then_some(chunks);
        Some((piece, rest))
    });
    Body::from_bytes_stream(pieces.map(|piece| piece.map_err(std::io::Error::other)))
}

/// Of the form that the parameter's pattern allows.
fn read_range(text: &str) -> Result<Range, Failure> {
    let refused = || parameters::invalid("Range", "is no range of bytes");
    let (first, last) =
        text.strip_prefix("bytes=").and_then(|it| it.split_once('-')).ok_or_else(refused)?;
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text.parse::<u64>().map(Some).map_err(|_| refused()),
    };
    match (number(first)?, number(last)?) {
        (Some(first), last) => Ok(Range::From(first, last)),
        (None, Some(count)) => Ok(Range::Last(count)),
        (None, None) => Err(refused()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_anything_else_refused() {
        assert_eq!(read_range("bytes=0-99").unwrap(), Range::From(0, Some(99)));
        assert_eq!(read_range("bytes=7-").unwrap(), Range::From(7, None));
        assert_eq!(read_range("bytes=-5").unwrap(), Range::Last(5));
        for bad in ["", "bytes=", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=1"] {
            assert!(read_range(bad).is_err(), "{bad}");
        }
    }
}
