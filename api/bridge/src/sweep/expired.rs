//! What is kept for a time only: answers to requests that may be sent again, and the audit log.

use super::{Error, LIMIT, Service};

impl Service {
    /// Forgets answers whose time is over. The api takes an answer that is still there for gone by then.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn answers(&self) -> Result<usize, Error> {
        Ok(self.store.idempotency_forget(LIMIT).await?)
    }

    /// Removes audit entries that are older than `audit_kept`.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn audit(&self) -> Result<usize, Error> {
        Ok(self.store.audit_forget(self.times.audit_kept, LIMIT).await?)
    }
}
