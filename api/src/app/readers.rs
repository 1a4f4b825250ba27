//! Customers who hear builds over NATS: what a key opens, and which keys have ended.

use chrono::{DateTime, Utc};
use ovenbird_contract::id::{BuildId, KeyId};

use super::{App, Error};

/// What a key opens on NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reader {
    /// The key.
    pub key: KeyId,
    /// When it ends by itself.
    pub expires_at: Option<DateTime<Utc>>,
    /// The builds that it reads; `None` for all.
    pub builds: Option<Vec<BuildId>>,
}

impl App {
    /// What the key `text` opens; nothing when it is unknown, revoked or expired. Of a key that reads its own
    /// builds only, at most `builds_max` are named.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn reader(&self, text: &str, builds_max: u64) -> Result<Option<Reader>, Error> {
        let Some(caller) = self.key_authenticate(text).await? else { return Ok(None) };
        let terms = self.store.key_terms(&[caller.key]).await?;
        let Some(term) = terms.first().filter(|term| !term.ended) else { return Ok(None) };
        let builds = match caller.sees() {
            None => None,
            Some(requester) => Some(self.store.build_ids_live(&requester, builds_max).await?),
        };
        Ok(Some(Reader { key: caller.key, expires_at: term.expires_at, builds }))
    }

    /// Those of `keys` that have ended, or that nobody knows.
    ///
    /// # Errors
    /// When Postgres does not answer.
    pub async fn keys_ended(&self, keys: &[KeyId]) -> Result<Vec<KeyId>, Error> {
        let terms = self.store.key_terms(keys).await?;
        let lasts = |key: &KeyId| terms.iter().any(|term| term.id == *key && !term.ended);
        Ok(keys.iter().filter(|key| !lasts(key)).copied().collect())
    }
}
