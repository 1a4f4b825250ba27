//! Requests that may be sent again: who carries one out, and what it was answered.
//!
//! ```text
//!            claim                 answer
//!   (none) ────────► held ─────────────────► answered ──► (forgotten)
//!      ▲             │  ▲
//!      │ drop        │  │ claim, once the hold is over or was let go:
//!      └─────────────┘  └─ the same request again, for the same resource
//! ```
//!
//! Only the holder moves a row, so one who was taken for dead and comes back changes nothing.

use std::time::Duration;

use ovenbird_contract::id::KeyId;
use sea_orm::{
    ColumnTrait, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, Statement, Value,
};
use uuid::Uuid;

use super::{Error, Store, host::millis, sql};
use crate::entity::idempotency_key;

/// Which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Who sent it.
    pub api_key: KeyId,
    /// What it asks for.
    pub operation: String,
    /// The client's word for it.
    pub key: String,
}

/// The wish to carry a request out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Which.
    pub slot: Slot,
    /// Keyed hash of its path and body.
    pub fingerprint: [u8; 32],
    /// The id of what it makes, unless the row has one already.
    pub resource: Uuid,
    /// Who wishes.
    pub holder: Uuid,
    /// How long the others leave it alone.
    pub hold: Duration,
    /// How long its answer is kept.
    pub kept: Duration,
}

/// What [`Store::idempotency_claim`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the caller's to carry out.
    Yours {
        /// The id of what it makes.
        resource: Uuid,
    },
    /// Another request has the same slot.
    Conflict,
    /// Somebody carries it out.
    Held,
    /// It was carried out. Without an answer where that was not kept.
    Answered(Option<Vec<u8>>),
}

#[derive(Debug, FromQueryResult)]
struct Taken {
    resource_id: Uuid,
}

impl Store {
    /// Takes a request to carry it out, unless somebody else did.
    ///
    /// # Errors
    /// [`Error::Database`]; then nobody has it, or a holder that never acts, until its hold is over.
    pub async fn idempotency_claim(&self, claim: &Claim) -> Result<Claimed, Error> {
        let taken = Taken::find_by_statement(sql(
            "INSERT INTO idempotency_keys AS it
                 (api_key_id, operation, idempotency_key, fingerprint, resource_id, holder,
                  held_until, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6,
                     now() + $7 * interval '1 millisecond', now() + $8 * interval '1 millisecond')
             ON CONFLICT (api_key_id, operation, idempotency_key) DO UPDATE SET
                 fingerprint = excluded.fingerprint,
                 resource_id = CASE WHEN it.expires_at <= now()
                                    THEN excluded.resource_id ELSE it.resource_id END,
                 holder = excluded.holder,
                 held_until = excluded.held_until,
                 answered_at = NULL,
                 answer = NULL,
                 expires_at = excluded.expires_at
             WHERE it.expires_at <= now()
                OR (it.answered_at IS NULL AND it.held_until <= now()
                    AND it.fingerprint = excluded.fingerprint)
             RETURNING resource_id",
            [
                claim.slot.api_key.uuid().into(),
                claim.slot.operation.clone().into(),
                claim.slot.key.clone().into(),
                claim.fingerprint.to_vec().into(),
                claim.resource.into(),
                claim.holder.into(),
                millis(claim.hold).into(),
                millis(claim.kept).into(),
            ],
        ))
        .one(&self.db)
        .await?;
        if let Some(Taken { resource_id }) = taken {
            return Ok(Claimed::Yours { resource: resource_id });
        }
        use idempotency_key::Column;
        let row = idempotency_key::Entity::find()
            .filter(Column::ApiKeyId.eq(claim.slot.api_key.uuid()))
            .filter(Column::Operation.eq(&claim.slot.operation))
            .filter(Column::IdempotencyKey.eq(&claim.slot.key))
            .one(&self.db)
            .await?;
        Ok(match row {
            // Dropped in between: as good as held, for whoever asks again takes it.
            None => Claimed::Held,
            Some(row) if row.fingerprint != claim.fingerprint => Claimed::Conflict,
            Some(row) if row.answered_at.is_some() => Claimed::Answered(row.answer),
            Some(_) => Claimed::Held,
        })
    }

    /// Holds it for longer. False when it is not the holder's any more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn idempotency_renew(&self, claim: &Claim) -> Result<bool, Error> {
        let statement = held(
            "UPDATE idempotency_keys SET held_until = now() + $5 * interval '1 millisecond'",
            claim,
            [millis(claim.hold).into()],
        );
        Ok(self.db.execute_raw(statement).await?.rows_affected() == 1)
    }

    /// Keeps the answer, or that there was one. False when it is not the holder's any more.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn idempotency_answer(
        &self,
        claim: &Claim,
        answer: Option<Vec<u8>>,
    ) -> Result<bool, Error> {
        let statement = held(
            "UPDATE idempotency_keys
             SET answered_at = now(), answer = $5, expires_at = now() + $6 * interval '1 millisecond'",
            claim,
            [answer.into(), millis(claim.kept).into()],
        );
        Ok(self.db.execute_raw(statement).await?.rows_affected() == 1)
    }

    /// Lets whoever asks next carry it out again, for the same resource: nobody knows what was done.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn idempotency_let_go(&self, claim: &Claim) -> Result<(), Error> {
        let statement = held("UPDATE idempotency_keys SET held_until = now()", claim, []);
        self.db.execute_raw(statement).await?;
        Ok(())
    }

    /// Forgets a request that did nothing.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn idempotency_drop(&self, claim: &Claim) -> Result<(), Error> {
        self.db.execute_raw(held("DELETE FROM idempotency_keys", claim, [])).await?;
        Ok(())
    }

    /// Removes up to `limit` rows whose time is over; says how many.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn idempotency_forget(&self, limit: u32) -> Result<usize, Error> {
        let removed = self
            .db
            .execute_raw(sql(
                "DELETE FROM idempotency_keys
                 WHERE expires_at <= now()
                   AND (api_key_id, operation, idempotency_key) IN (
                       SELECT api_key_id, operation, idempotency_key FROM idempotency_keys
                       WHERE expires_at <= now() ORDER BY expires_at LIMIT $1
                   )",
                [i64::from(limit).into()],
            ))
            .await?;
        Ok(usize::try_from(removed.rows_affected()).unwrap_or(usize::MAX))
    }
}

/// A statement on the row, as long as the claim holds it. `more` are `$5` and following.
fn held(text: &str, claim: &Claim, more: impl IntoIterator<Item = Value>) -> Statement {
    let own: [Value; 4] = [
        claim.slot.api_key.uuid().into(),
        claim.slot.operation.clone().into(),
        claim.slot.key.clone().into(),
        claim.holder.into(),
    ];
    let whose = "WHERE api_key_id = $1 AND operation = $2 AND idempotency_key = $3
                   AND holder = $4 AND answered_at IS NULL";
    sql(&format!("{text} {whose}"), own.into_iter().chain(more))
}
