//! Contexts: archives out of the object store, on disk for as long as a build copies from them, and checked.
//!
//! ```text
//!  CONTEXTS ── chunks ──► file without a name ── digest as asked for? ── archive in order? ──► Context
//! ```
//!
//! A context is never held in memory, and nothing of it is left when this process ends, however it ends. The api has
//! checked it when it was uploaded; what comes out of the store is checked again, since nothing says that it is the same.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use async_nats::jetstream::{
    self,
    context::ObjectStoreErrorKind,
    object_store::{GetErrorKind, Object},
};
use ovenbird_context::{Contents, Error as ArchiveError, Refused, Stop};
use ovenbird_contract::nats::Names;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

/// The store may be silent for this long.
const SILENCE_MAX: Duration = Duration::from_secs(20);
const CHUNK: usize = 256 * 1024;

/// Why there is no context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not in the store.
    #[error("the context {0} is not there any more: upload it again, and retry the build")]
    Gone(String),
    /// The store does not answer, or what it sends is not what was asked for; trying again may help.
    #[error("the context cannot be fetched from the object store")]
    Away(#[source] async_nats::Error),
    /// There is no room for it here, or the disk fails.
    #[error("the runner cannot keep the context on its disk")]
    Disk(#[source] io::Error),
    /// It is no archive that is taken.
    #[error("the context is not accepted: {0}")]
    Refused(Refused),
}

/// A context that is here.
#[derive(Debug)]
pub struct Context {
    /// The archive.
    pub file: File,
    /// What is in it.
    pub contents: Contents,
}

/// Where contexts come from. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Contexts {
    jetstream: jetstream::Context,
    bucket: String,
    dir: Arc<PathBuf>,
}

impl Contexts {
    /// Contexts out of the installation's store, by way of `dir`.
    pub fn new(jetstream: jetstream::Context, names: &Names, dir: Option<PathBuf>) -> Self {
        let dir = Arc::new(dir.unwrap_or_else(std::env::temp_dir));
        Self { jetstream, bucket: names.contexts_bucket(), dir }
    }

    /// Fetches a context and checks all of it. Dropping it ends what it does soon.
    ///
    /// # Errors
    /// [`Error`]; of these only [`Error::Away`] may pass.
    pub async fn fetch(&self, digest: &str) -> Result<Context, Error> {
        let object = self.object(digest).await?;
        let file = tempfile::tempfile_in(&*self.dir).map_err(Error::Disk)?;
        let file = copy(object, file, digest).await?.into_std().await;
        let stop = StopWhenDropped::default();
        let reading = stop.0.clone();
        let checked = tokio::task::spawn_blocking(move || {
            Contents::of(&file, &reading).map(|contents| Context { file, contents })
        });
        match checked.await {
            Ok(Ok(context)) => Ok(context),
            Ok(Err(ArchiveError::Refused(refused))) => Err(Error::Refused(refused)),
            Ok(Err(ArchiveError::Read(error) | ArchiveError::Write(error))) => {
                Err(Error::Disk(error))
            }
            Err(error) => Err(Error::Disk(io::Error::other(error))),
        }
    }

    async fn object(&self, digest: &str) -> Result<Object, Error> {
        let gone = || Error::Gone(digest.to_owned());
        let store = self.jetstream.get_object_store(&self.bucket);
        let store = timeout(SILENCE_MAX, store).await.map_err(|late| Error::Away(late.into()))?;
        let store = store.map_err(|error| match error.kind() {
            // The bridge makes it again in a moment, and empty.
            ObjectStoreErrorKind::GetStore if is_missing(&error) => gone(),
            _ => Error::Away(error.into()),
        })?;
        let object = timeout(SILENCE_MAX, store.get(digest)).await;
        let object = object.map_err(|late| Error::Away(late.into()))?;
        object.map_err(|error| match error.kind() {
            GetErrorKind::NotFound => gone(),
            _ => Error::Away(error.into()),
        })
    }
}

/// Whether JetStream says that there is no such stream, rather than nothing.
fn is_missing(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.to_string().contains("stream not found"))
}

/// All of an object, when it is what its name says.
async fn copy(mut object: Object, file: File, digest: &str) -> Result<tokio::fs::File, Error> {
    let mut file = tokio::fs::File::from_std(file);
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let read = timeout(SILENCE_MAX, object.read(&mut buffer)).await;
        let read = read.map_err(|late| Error::Away(late.into()))?;
        match read.map_err(|error| Error::Away(error.into()))? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                file.write_all(&buffer[..read]).await.map_err(Error::Disk)?;
            }
        }
    }
    file.flush().await.map_err(Error::Disk)?;
    if hex::encode(hash.finalize()) != digest {
        return Err(Error::Away("what came is not what was asked for".into()));
    }
    Ok(file)
}

/// Ends a thread that reads an archive when nobody waits for it any more.
#[derive(Debug, Default)]
pub(crate) struct StopWhenDropped(pub(crate) Stop);

impl Drop for StopWhenDropped {
    fn drop(&mut self) {
        self.0.stop();
    }
}
