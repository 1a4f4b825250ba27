//! Contexts that nobody needs any more: out of the object store first, then out of Postgres.
//!
//! The row is locked meanwhile. So whoever uploads such a context waits, and stores it again; and a bridge that dies in
//! between leaves the row, with which the next one begins again. Chunks that no object claims are of an api that died
//! while it stored one, or of two that stored the same one at once.

use std::{collections::BTreeSet, time::Duration};

use async_nats::jetstream::{
    object_store::{InfoErrorKind, ObjectInfo, ObjectStore},
    stream::Stream,
};
use chrono::Utc;
use futures::TryStreamExt as _;

use super::{Error, LIMIT, Service};

/// A row is locked for as long as the store takes.
const STORE_MAX: Duration = Duration::from_secs(5);
/// All that is looked at for chunks without an object.
const LOOK_MAX: Duration = Duration::from_secs(60);

impl Service {
    /// Removes contexts that were not used for `contexts_kept` and that no build needs.
    ///
    /// # Errors
    /// [`Error::Store`], [`Error::Contexts`]; what was removed before stays so.
    pub async fn contexts(&self) -> Result<usize, Error> {
        let mut removed = 0;
        while removed < LIMIT as usize {
            let kept = self.times.contexts_kept;
            let Some(unneeded) = self.store.context_take_unneeded(kept).await? else { break };
            let digest = unneeded.digest.clone();
            let purged = tokio::time::timeout(STORE_MAX, self.context_purge(&digest)).await;
            purged.map_err(|late| Error::Contexts(late.into()))?.map_err(Error::Contexts)?;
            unneeded.remove().await?;
            tracing::info!(context = digest, "a context that nobody needs is removed");
            removed += 1;
        }
        Ok(removed)
    }

    /// What says that the object is there goes before the object.
    async fn context_purge(&self, digest: &str) -> Result<(), async_nats::Error> {
        let store: ObjectStore = self.js.get_object_store(self.names.contexts_bucket()).await?;
        let nuid = match store.info(digest).await {
            Ok(info) => info.nuid,
            // Never stored, or gone with its stream.
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let stream: Stream<()> =
            self.js.get_stream_no_info(self.names.contexts_stream().name).await?;
        stream.purge().filter(self.names.context_meta(digest)).await?;
        stream.purge().filter(self.names.context_chunks(&nuid)).await?;
        Ok(())
    }

    /// Removes chunks that no object claims, once nothing was added to them for `orphan_grace`.
    ///
    /// # Errors
    /// [`Error::Contexts`].
    pub async fn context_leftovers(&self) -> Result<usize, Error> {
        let removed = tokio::time::timeout(LOOK_MAX, self.leftovers()).await;
        removed.map_err(|late| Error::Contexts(late.into()))?.map_err(Error::Contexts)
    }

    async fn leftovers(&self) -> Result<usize, async_nats::Error> {
        let stream = self.js.get_stream(self.names.contexts_stream().name).await?;
        let (said, chunks_of) = (self.names.context_meta(""), self.names.context_chunks(""));
        let mut subjects =
            stream.info_with_subjects(format!("$O.{}.>", self.names.contexts_bucket())).await?;
        let (mut metas, mut chunks) = (Vec::new(), BTreeSet::new());
        while let Some((subject, _)) = subjects.try_next().await? {
            if subject.starts_with(&said) {
                metas.push(subject);
            } else if subject.starts_with(&chunks_of) {
                chunks.insert(subject);
            }
        }
        // As many as there are objects: all are claimed, or a newer look finds out.
        if chunks.len() <= metas.len() {
            return Ok(0);
        }
        for meta in metas {
            let message = stream.direct_get_last_for_subject(meta).await?;
            let info: ObjectInfo = serde_json::from_slice(&message.payload)?;
            chunks.remove(&self.names.context_chunks(&info.nuid));
        }
        let mut removed = 0;
        for left in chunks {
            let last = stream.direct_get_last_for_subject(left.as_str()).await?;
            let age = Utc::now().timestamp() - last.time.unix_timestamp();
            if age < i64::try_from(self.times.orphan_grace.as_secs()).unwrap_or(i64::MAX) {
                continue;
            }
            stream.purge().filter(&left).await?;
            tracing::info!(subject = left, "chunks that no context claims are removed");
            removed += 1;
        }
        Ok(removed)
    }
}
