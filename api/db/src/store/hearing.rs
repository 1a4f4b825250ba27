//! Whether a runner that is silent could have been heard.
//!
//! A renewal goes over NATS to a desk and into Postgres. When one of these is away for longer than a lease, every lease
//! ends at once although every runner lives. So bridges ask a desk, any bridge's, as runners do, and the desk notes here
//! that it heard. All times are of Postgres' clock, as those of leases.

use std::time::Duration;

use sea_orm::{ConnectionTrait, DatabaseTransaction, prelude::DateTimeUtc};

use super::{Error, Store, host::millis, sql};

/// What desks have noted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hearing {
    /// The end of the last break.
    since: DateTimeUtc,
    last: DateTimeUtc,
}

impl Hearing {
    /// Nothing as long as no desk has noted anything: bridges that may not ask, or do not yet.
    pub(super) async fn read(tx: &DatabaseTransaction) -> Result<Option<Self>, Error> {
        let row = tx.query_one_raw(sql("SELECT since, last FROM hearing", [])).await?;
        let read = |row: sea_orm::QueryResult| {
            Ok(Self { since: row.try_get("", "since")?, last: row.try_get("", "last")? })
        };
        row.map(read).transpose()
    }

    /// Whether the holder of a lease that ended at `end` could have been heard in all its time. A break of up to half
    /// of it leaves a runner, which renews its lease every third of it, the time to be heard.
    pub(super) fn covers(&self, end: DateTimeUtc, lease: Duration) -> bool {
        self.since <= end - lease && self.last >= end - lease / 2
    }
}

impl Store {
    /// A desk heard somebody, now. `lease` tells a break from a pause.
    ///
    /// # Errors
    /// [`Error::Database`]; it may be noted or not.
    pub async fn hearing_note(&self, lease: Duration) -> Result<(), Error> {
        self.db
            .execute_raw(sql(
                "INSERT INTO hearing AS heard (since, last) VALUES (now(), now())
                 ON CONFLICT (id) DO UPDATE SET
                   since = CASE WHEN now() - heard.last > $1 * interval '0.5 milliseconds' OR now() < heard.since
                     THEN now() ELSE heard.since END,
                   last = now()",
                [millis(lease).into()],
            ))
            .await?;
        Ok(())
    }
}
