//! Contexts: archives that `COPY` takes from, on their way into the object store.
//!
//! ```text
//!  upload ── chunks ──► file without a name: size, time ── digest? ── archive in order? ──► row ──► object
//! ```
//!
//! An archive is held on disk, never in memory, until all of it is there and in order: only then anything is stored. The
//! row comes first, so that no object is without one; a row alone is no context. The sweep removes what nobody uses.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    object_store::{InfoErrorKind, ObjectMetadata, ObjectStore},
};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures::{Stream, StreamExt as _};
use ovenbird_context::{Contents, Error as ArchiveError, Stop};
use ovenbird_contract::nats::Names;
use ovenbird_db::{entity::context, store::context::NewContext};
use ovenbird_kit::telemetry;
use sha2::{Digest as _, Sha256};
use tokio::{
    fs::File,
    io::{AsyncSeekExt as _, AsyncWriteExt as _},
    time::timeout,
};

use super::{App, Error, Problem, keys::Caller, places::Places};
use crate::config;

/// What the object store may take to say what it has.
const ASK_MAX: Duration = Duration::from_secs(5);
/// What it may take for one archive: a slow disk writes 512 MiB in less.
const STORE_MAX: Duration = Duration::from_secs(5 * 60);
/// The sweep may remove a context at the very moment in which it is uploaded.
const STORE_TRIES: u32 = 3;
/// What was asked for counts as used, but is not written down more often than this.
const USED_EVERY: TimeDelta = TimeDelta::hours(1);
/// NATS' words for a stream that has all the bytes it may have.
const FULL: &str = "maximum bytes exceeded";

/// The object store, and how much is uploaded at once. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contexts {
    jetstream: jetstream::Context,
    bucket: String,
    limits: config::Contexts,
    places: Arc<Places>,
}

impl Contexts {
    /// Contexts over `jetstream`.
    pub fn new(jetstream: jetstream::Context, names: &Names, limits: config::Contexts) -> Self {
        let places = Places::new(limits.uploads_max, limits.uploads_of_one_key_max);
        Self { jetstream, bucket: names.contexts_bucket(), limits, places: Arc::new(places) }
    }

    async fn store(&self) -> Result<ObjectStore, Error> {
        let store = timeout(ASK_MAX, self.jetstream.get_object_store(&self.bucket)).await;
        store.map_err(away)?.map_err(away)
    }

    /// Whether the object is there.
    async fn holds(&self, digest: &str) -> Result<bool, Error> {
        match timeout(ASK_MAX, self.store().await?.info(digest)).await.map_err(away)? {
            Ok(info) => Ok(!info.deleted),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(false),
            Err(error) => Err(away(error)),
        }
    }

    async fn put(&self, digest: &str, archive: &mut File) -> Result<(), Error> {
        archive.rewind().await.map_err(disk)?;
        let store = self.store().await?;
        let meta = ObjectMetadata { name: digest.to_owned(), ..ObjectMetadata::default() };
        let put = timeout(STORE_MAX, store.put(meta, archive)).await;
        put.map_err(away)?.map(drop).map_err(|error| {
            // What of it was stored, the sweep removes; its row counts as its uploader's as long as others.
            match telemetry::chain(&error).contains(FULL) {
                true => Error::ContextsFull(
                    "the store of contexts is full: try again when old ones are removed, or ask an admin for more \
                     (`contexts_bytes` of the bridges)"
                        .into(),
                ),
                false => away(error),
            }
        })
    }
}

fn away(error: impl Into<async_nats::Error>) -> Error {
    Error::unavailable("NATS", error)
}

fn disk(error: io::Error) -> Error {
    Error::unavailable("the disk for uploads", error)
}

/// A context that is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    /// What is known of it.
    pub context: context::Model,
    /// It was not there before.
    pub is_new: bool,
}

impl App {
    /// Stores an archive whose sha256 is `digest`, whole or not at all. One that is there is not stored again, but read
    /// and checked all the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another digest, and for an archive that is not accepted; [`Error::UploadTooLarge`];
    /// [`Error::UploadTooSlow`], [`Error::UploadBroken`], [`Error::TooManyUploads`], [`Error::ContextsFull`]; Postgres and
    /// NATS.
    pub async fn context_upload(
        &self,
        caller: &Caller,
        digest: &str,
        body: impl Stream<Item = io::Result<Bytes>> + Send,
    ) -> Result<Uploaded, Error> {
        let contexts = &self.contexts;
        let _place = contexts.places.take(caller.key).ok_or(Error::TooManyUploads)?;
        let read = async {
            let archive = receive(&contexts.limits, digest, body).await?;
            let contents = check(&archive).await?;
            Ok::<_, Error>((archive, contents))
        };
        let read = timeout(contexts.limits.upload_timeout, read).await;
        let (mut archive, contents) = read.map_err(|_| Error::UploadTooSlow)??;
        let size_bytes = archive.metadata().await.map_err(disk)?.len();
        let new = NewContext {
            digest: digest.to_owned(),
            size_bytes,
            entries: contents.entries,
            unpacked_bytes: contents.bytes,
            uploaded_by: caller.name(),
        };
        for nth in 1..=STORE_TRIES {
            // From here on the sweep leaves it alone, unless it was removing it already.
            let context = self.context_note(&new).await?;
            if contexts.holds(digest).await? {
                return Ok(Uploaded { context, is_new: nth > 1 });
            }
            contexts.put(digest, &mut archive).await?;
            tracing::info!(context = digest, size_bytes, "a context is stored");
        }
        let context = self.context_note(&new).await?;
        Ok(Uploaded { context, is_new: true })
    }

    async fn context_note(&self, new: &NewContext) -> Result<context::Model, Error> {
        let max = self.contexts.limits.bytes_of_one_key_max;
        self.store.context_note(new, max).await?.ok_or_else(|| {
            Error::ContextsFull(format!(
                "with this archive the key would have uploaded more than {max} bytes that are there still: use what is \
                 there, or wait until it is removed because nobody uses it"
            ))
        })
    }

    /// A context that is there. Who asks is about to use it: it counts as used.
    ///
    /// # Errors
    /// [`Error::NotFound`]; Postgres and NATS.
    pub async fn context_get(&self, digest: &str) -> Result<context::Model, Error> {
        let gone = || Error::NotFound(format!("the context {digest}"));
        let context = self.store.context_get(digest).await?.ok_or_else(gone)?;
        if !self.contexts.holds(digest).await? {
            return Err(gone());
        }
        if Utc::now() - context.used_at < USED_EVERY {
            return Ok(context);
        }
        // The sweep may have been faster.
        self.store.context_touch(digest).await?.ok_or_else(gone)
    }

    /// Whether a build may name a context. When the object store does not answer, Postgres' word is enough: a build must
    /// not need NATS to be stored.
    pub(super) async fn context_is_there(&self, digest: &str) -> Result<bool, Error> {
        match self.context_get(digest).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound(_)) => Ok(false),
            Err(Error::Unavailable { service: "NATS", .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// The whole body, as a file that is nowhere once it is closed.
async fn receive(
    limits: &config::Contexts,
    digest: &str,
    body: impl Stream<Item = io::Result<Bytes>> + Send,
) -> Result<File, Error> {
    let dir = limits.dir.clone().unwrap_or_else(std::env::temp_dir);
    let mut file = File::from_std(tempfile::tempfile_in::<PathBuf>(dir).map_err(disk)?);
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    let mut body = std::pin::pin!(body);
    loop {
        let chunk = timeout(limits.idle_timeout, body.next()).await;
        let Some(chunk) = chunk.map_err(|_| Error::UploadTooSlow)? else { break };
        let chunk = chunk.map_err(Error::UploadBroken)?;
        size = size.saturating_add(chunk.len() as u64);
        if size > limits.bytes_max {
            return Err(Error::UploadTooLarge { max: limits.bytes_max });
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(disk)?;
    }
    file.flush().await.map_err(disk)?;
    let found = hex::encode(hash.finalize());
    if found != digest {
        let message = format!("is not the body's, which is {found}");
        let problem = Problem::new("sha256", "wrong_digest", message);
        let hint = "send the file as it is (curl: -T or --data-binary), and name its own sha256";
        return Err(Error::Invalid(vec![problem.hint(hint)]));
    }
    Ok(file)
}

/// Reads all of an archive, in a thread that ends soon when nobody waits for it: so it does when the upload's time is over.
async fn check(archive: &File) -> Result<Contents, Error> {
    struct Dropped(Stop);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    let dropped = Dropped(Stop::default());
    let stop = dropped.0.clone();
    let file = archive.try_clone().await.map_err(disk)?.into_std().await;
    let checked = tokio::task::spawn_blocking(move || Contents::of(&file, &stop)).await;
    match checked.map_err(|error| Error::internal("checking an archive", error))? {
        Ok(contents) => Ok(contents),
        Err(ArchiveError::Refused(refused)) => {
            let problem = Problem::new(Problem::WHOLE, refused.code.as_str(), refused.to_string());
            Err(Error::Invalid(vec![problem]))
        }
        Err(ArchiveError::Read(error) | ArchiveError::Write(error)) => Err(disk(error)),
    }
}
