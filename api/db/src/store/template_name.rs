//! Whose a template's name is. Tags move to whatever is built last, so a name that everybody could build would let
//! everybody decide what others start from.
//!
//! A name is its hosts', where a template of it came with one; else it belongs to those who have asked for its
//! templates, or are about to make the first one; else it is free. Keys of the same name count as one, so that a
//! key can be replaced by another: only a key of scope `admin` makes keys. Moving a tag changes nothing of it.

use ovenbird_contract::id::KeyId;
use sea_orm::{ConnectionTrait as _, FromQueryResult};

use super::{Error, Store, json, sql};

/// Requesters of one name that are looked at; others of it are not among them, and ask an admin.
const REQUESTERS_MAX: i64 = 1_000;

/// Why a name is not a key's to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// A template of it came with a host.
    ByHost,
    /// Templates of it are other keys'.
    ByOthers,
}

#[derive(Debug, FromQueryResult)]
struct User {
    is_host: bool,
    requested_by: String,
}

impl Store {
    /// Whether somebody else than `key` has `name`.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn template_name_taken(
        &self,
        name: &str,
        key: KeyId,
    ) -> Result<Option<Taken>, Error> {
        let users = User::find_by_statement(sql(
            "SELECT provenance->>'origin' IS NOT DISTINCT FROM 'host' AS is_host,
                    COALESCE(provenance->>'requested_by', '') AS requested_by
             FROM templates WHERE name = $1 AND deleted_at IS NULL
             UNION
             SELECT false, requested_by FROM template_builds
             WHERE name = $1 AND status IN ('queued', 'running', 'cancelling')
             UNION
             SELECT false, requested_by FROM sandboxes WHERE snapshot_name = $1 AND status = 'saving'
             LIMIT $2",
            [name.into(), REQUESTERS_MAX.into()],
        ))
        .all(&self.db)
        .await?;
        if users.iter().any(|user| user.is_host) {
            return Ok(Some(Taken::ByHost));
        }
        let others: Vec<_> = users.iter().filter_map(|it| it.requested_by.parse().ok()).collect();
        if users.is_empty() || others.contains(&key) || self.key_has_twin(key, &others).await? {
            return Ok(None);
        }
        Ok(Some(Taken::ByOthers))
    }

    /// Whether one of `others` has the same name as `key`.
    async fn key_has_twin(&self, key: KeyId, others: &[KeyId]) -> Result<bool, Error> {
        let others: Vec<_> = others.iter().map(|other| other.uuid()).collect();
        let found = self
            .db
            .query_one_raw(sql(
                "SELECT 1 FROM api_keys mine JOIN api_keys theirs ON theirs.name = mine.name
                 WHERE mine.id = $1
                   AND theirs.id IN (SELECT value::uuid FROM jsonb_array_elements_text($2))
                 LIMIT 1",
                [key.uuid().into(), json(&others)?.into()],
            ))
            .await?;
        Ok(found.is_some())
    }
}
