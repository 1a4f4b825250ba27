//! Files and directories of a running sandbox. Content is passed on piece by piece and held nowhere.

use std::num::NonZeroU64;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ovenbird_agent_client::{DirectoryEntry, Error as AgentError, FileChunks};
use ovenbird_contract::id::SandboxId;
use tokio::io::AsyncRead;

use super::{InUse, path};
use crate::app::{App, Error, Problem, keys::Caller};

/// A part of a file, as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// From this byte on, up to and with that one; to the end when absent.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

impl Range {
    /// First byte and length within a file of `size` bytes; nothing when no byte of it is there.
    pub fn within(self, size: u64) -> Option<(u64, NonZeroU64)> {
        let (first, end) = match self {
            Self::From(first, last) => {
                (first, last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
            Self::Last(count) => (size.saturating_sub(count), size),
        };
        Some((first, NonZeroU64::new(end.checked_sub(first)?)?))
    }
}

/// A file's content on its way.
#[derive(Debug)]
pub struct Content {
    /// The content.
    pub chunks: FileChunks,
    /// The whole file's size when it was opened.
    pub size: u64,
    /// First byte and length, when a part was asked for.
    pub part: Option<(u64, NonZeroU64)>,
}

/// A page of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The entries, by name.
    pub entries: Vec<DirectoryEntry>,
    /// Where the next page begins; absent on the last one.
    pub next: Option<String>,
}

impl App {
    /// Opens a file, or a part of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::SandboxRefused`] for what is no regular file, [`Error::RangeOutside`];
    /// [`Error::SandboxState`] when the sandbox does not run; [`Error::HostUnavailable`].
    pub async fn sandbox_file_read(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
        range: Option<Range>,
    ) -> Result<Content, Error> {
        let sandbox = self.at(caller, id, path).await?;
        let open = async |first, length| match sandbox
            .agent
            .read_file_stream(&sandbox.id, path, first, length)
            .await
        {
            Ok(chunks) => Ok(chunks),
            Err(error) => Err(sandbox.explain_path(error, path).await),
        };
        let whole = open(0, None).await?;
        let size = whole.size();
        let Some(range) = range else { return Ok(Content { chunks: whole, size, part: None }) };
        let (first, length) = range.within(size).ok_or(Error::RangeOutside { size })?;
        drop(whole);
        let chunks = open(first, Some(length)).await?;
        // It may have been replaced meanwhile.
        let size = chunks.size();
        if first.checked_add(length.get()).is_none_or(|end| end > size) {
            return Err(Error::RangeOutside { size });
        }
        Ok(Content { chunks, size, part: Some((first, length)) })
    }

    /// Whether a file could be written now, as far as can be told without trying.
    ///
    /// # Errors
    /// As for writing.
    pub async fn sandbox_file_writable(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
    ) -> Result<(), Error> {
        self.at(caller, id, path).await.map(drop)
    }

    /// Writes a file whole or not at all, and makes the directories above it that are missing.
    ///
    /// # Errors
    /// As for reading; [`Error::SandboxFull`]; [`Error::UploadBroken`] when the source fails.
    pub async fn sandbox_file_write(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
        source: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let sandbox = self.at(caller, id, path).await?;
        match sandbox.agent.write_file_stream(&sandbox.id, path, source).await {
            Ok(()) => Ok(()),
            Err(AgentError::Source(error)) => Err(Error::UploadBroken(error)),
            // The client sent nothing for too long, which the agent noticed.
            Err(AgentError::DeadlineExceeded { message }) => {
                Err(Error::UploadBroken(std::io::Error::other(message)))
            }
            Err(error) => Err(sandbox.explain_path(error, path).await),
        }
    }

    /// Removes a file, a link or a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::SandboxRefused`] for a directory that is not empty, unless `recursive`.
    pub async fn sandbox_file_remove(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
        recursive: bool,
    ) -> Result<(), Error> {
        if path.bytes().all(|byte| byte == b'/') {
            let problem = Problem::new("path", "bad_path", "is the root, which cannot be removed");
            return Err(Error::Parameter(problem));
        }
        let sandbox = self.at(caller, id, path).await?;
        match sandbox.agent.remove_path(&sandbox.id, path, recursive).await {
            Ok(()) => Ok(()),
            Err(error) => Err(sandbox.explain_path(error, path).await),
        }
    }

    /// A page of a directory.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::SandboxRefused`] for what is no directory; a cursor that is none.
    pub async fn sandbox_directory_list(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Listing, Error> {
        let after = cursor.map(place).transpose()?.unwrap_or_default();
        let sandbox = self.at(caller, id, path).await?;
        match sandbox.agent.list_directory(&sandbox.id, path, after, limit).await {
            Ok(page) => {
                let last = page.entries.last().filter(|_| page.more);
                let next = last.map(|entry| URL_SAFE_NO_PAD.encode(&entry.name));
                Ok(Listing { entries: page.entries, next })
            }
            Err(error) => Err(sandbox.explain_path(error, path).await),
        }
    }

    /// Makes a directory, and those above it that are missing; answers whether it was not there before.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::SandboxRefused`] where a file is in the way; [`Error::SandboxFull`].
    pub async fn sandbox_directory_make(
        &self,
        caller: &Caller,
        id: SandboxId,
        path: &str,
    ) -> Result<bool, Error> {
        path::check("path", path).map_err(|problem| Error::Invalid(vec![problem]))?;
        let sandbox = self.sandbox_in_use(caller, id).await?;
        match sandbox.agent.make_directory(&sandbox.id, path, true).await {
            Ok(made) => Ok(made),
            Err(error) => Err(sandbox.explain(error, path).await),
        }
    }

    /// A running sandbox, and a path in it that stands in the query.
    async fn at(&self, caller: &Caller, id: SandboxId, path: &str) -> Result<InUse, Error> {
        path::check("path", path).map_err(Error::Parameter)?;
        self.sandbox_in_use(caller, id).await
    }
}

impl InUse {
    /// As [`InUse::explain`], for a path in the query.
    async fn explain_path(&self, error: AgentError, path: &str) -> Error {
        match error {
            AgentError::InvalidArgument { message } => {
                Error::Parameter(Problem::new("path", "bad_path", message))
            }
            error => self.explain(error, path).await,
        }
    }
}

/// The name that a cursor holds.
fn place(cursor: &str) -> Result<Vec<u8>, Error> {
    URL_SAFE_NO_PAD.decode(cursor).ok().filter(|name| name.len() <= 255).ok_or_else(|| {
        let problem = Problem::new("cursor", "bad_cursor", "is no cursor of this list");
        Error::Parameter(problem.hint("take next_cursor of the page before, unchanged"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_is_cut_to_the_file_and_refused_outside_of_it() {
        let length = |length| NonZeroU64::new(length).unwrap();
        let cases = [
            (Range::From(0, None), Some((0, length(10)))),
            (Range::From(3, Some(3)), Some((3, length(1)))),
            (Range::From(9, Some(99)), Some((9, length(1)))),
            (Range::From(0, Some(u64::MAX)), Some((0, length(10)))),
            (Range::From(10, None), None),
            (Range::From(11, Some(12)), None),
            (Range::From(5, Some(4)), None),
            (Range::Last(4), Some((6, length(4)))),
            (Range::Last(99), Some((0, length(10)))),
            (Range::Last(0), None),
        ];
        for (range, expected) in cases {
            assert_eq!(range.within(10), expected, "{range:?}");
        }
        assert_eq!(Range::From(0, None).within(0), None);
        assert_eq!(Range::Last(5).within(0), None);
    }

    #[test]
    fn damaged_cursor_is_refused() {
        assert_eq!(place("YWI").unwrap(), b"ab");
        for damaged in ["YWI=", "\u{e4}", "Y", &"A".repeat(400)] {
            assert!(place(damaged).is_err(), "{damaged}");
        }
    }
}
