//! Contexts: what is known of the archives in the object store, and which of them nobody needs any more.

use std::time::Duration;

use sea_orm::{DatabaseTransaction, EntityTrait as _, FromQueryResult as _, TransactionTrait as _};

use super::{Error, Store, sql};
use crate::entity::context::{Entity, Model};

/// A context that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewContext {
    /// sha256 of the archive, in hex.
    pub digest: String,
    /// Size of the archive.
    pub size_bytes: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Size of its files when they are unpacked.
    pub unpacked_bytes: u64,
    /// Who uploads it.
    pub uploaded_by: String,
}

/// A context that nobody needs. Its row is locked until this is dropped, so that whoever uploads it again waits.
#[derive(Debug)]
pub struct Unneeded {
    /// sha256 of the archive, in hex.
    pub digest: String,
    tx: DatabaseTransaction,
}

impl Unneeded {
    /// Removes the row; the object is gone.
    ///
    /// # Errors
    /// [`Error::Database`]; the row is there still, or not.
    pub async fn remove(self) -> Result<(), Error> {
        Ok(self.tx.commit().await?)
    }
}

impl Store {
    /// Notes a context, before its object is stored. One that is known counts as used now; who uploaded it first stays.
    /// Waits for a removal that is under way. Nothing comes back, and nothing is noted, for a new one with which all that
    /// its uploader uploaded first would be more than `bytes_max`; of uploads at the same moment each looks for itself.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn context_note(
        &self,
        new: &NewContext,
        bytes_max: u64,
    ) -> Result<Option<Model>, Error> {
        let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let row = Model::find_by_statement(sql(
            "INSERT INTO contexts (digest, size_bytes, entries, unpacked_bytes, uploaded_by)
             SELECT $1::text, $2::bigint, $3::bigint, $4::bigint, $5::text
             WHERE EXISTS (SELECT 1 FROM contexts WHERE digest = $1)
                OR (SELECT coalesce(sum(size_bytes), 0) FROM contexts WHERE uploaded_by = $5) + $2 <= $6::bigint
             ON CONFLICT (digest) DO UPDATE SET used_at = now()
             RETURNING *",
            [
                new.digest.as_str().into(),
                signed(new.size_bytes).into(),
                signed(new.entries).into(),
                signed(new.unpacked_bytes).into(),
                new.uploaded_by.as_str().into(),
                signed(bytes_max).into(),
            ],
        ));
        Ok(row.one(&self.db).await?)
    }

    /// Notes that a context was asked for, and so is about to be used. Waits for a removal that is under way; nothing
    /// comes back when it is gone then.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn context_touch(&self, digest: &str) -> Result<Option<Model>, Error> {
        let row = Model::find_by_statement(sql(
            "UPDATE contexts SET used_at = now() WHERE digest = $1 RETURNING *",
            [digest.into()],
        ));
        Ok(row.one(&self.db).await?)
    }

    /// What is known of a context.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn context_get(&self, digest: &str) -> Result<Option<Model>, Error> {
        Ok(Entity::find_by_id(digest).one(&self.db).await?)
    }

    /// A context that was not used for `kept` and that no build needs which is not over. No other caller gets the same
    /// one at the same time. Nothing is removed until [`Unneeded::remove`].
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn context_take_unneeded(&self, kept: Duration) -> Result<Option<Unneeded>, Error> {
        let tx = self.db.begin().await?;
        let row = Model::find_by_statement(sql(
            "DELETE FROM contexts WHERE digest = (
                 SELECT digest FROM contexts c
                 WHERE used_at < now() - make_interval(secs => $1) AND NOT EXISTS (
                     SELECT 1 FROM template_builds b
                     WHERE b.context_digest = c.digest
                       AND b.status IN ('queued', 'running', 'cancelling'))
                 ORDER BY used_at LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING *",
            [kept.as_secs_f64().into()],
        ));
        Ok(row.one(&tx).await?.map(|row| Unneeded { digest: row.digest, tx }))
    }
}
