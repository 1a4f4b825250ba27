//! Whether a runner that is silent could have been heard.
//!
//! A renewal goes over NATS to a desk and into Postgres. When one of these is away for longer than a lease, every lease
//! ends at once although every runner lives. So bridges ask a desk, any bridge's, as runners do, and the desk notes here
//! that it heard. All times are of Postgres' clock, as those of leases.

use std::time::Duration;

use sea_orm::ConnectionTrait;

use super::{Error, Store, host::millis, sql};

/// Whether who was silent for a whole lease of `$1` milliseconds could have been heard in all of it. A break of up to
/// half a lease leaves a runner, which renews every third of it, the time to be heard.
pub(super) const HEARD: &str = "EXISTS (SELECT 1 FROM hearing
    WHERE now() - last <= $1 * interval '0.5 milliseconds' AND now() - since > $1 * interval '1 millisecond')";

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
                   since = CASE WHEN now() - heard.last > $1 * interval '0.5 milliseconds' THEN now() ELSE heard.since END,
                   last = GREATEST(heard.last, now())",
                [millis(lease).into()],
            ))
            .await?;
        Ok(())
    }
}
