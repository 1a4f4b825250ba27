//! The audit log: who asked for which change, and what came of it. No bodies, so no secrets.
//!
//! The entry of a caller with a key is written before the request is carried out, and a request that cannot be
//! noted is not carried out: what changes anything needs Postgres all the same, so nothing is lost by it. Its end
//! is written afterwards; an entry without `status` is one whose request may have been carried out, by an api that
//! died over it. Refusals of one key are noted as long as there are not too many of them: an entry is removed where it
//! is certain that nothing was done, or a key of scope `read` could fill the table. Callers without a key change
//! nothing: a sample of their refusals is noted, bounded over all of them, or anybody could fill the table. A host's
//! agent has no key of that kind: what it is granted is noted by the transaction that grants it. Requests over the rate
//! limit are in the process' log only.

use std::net::IpAddr;

use chrono::{DateTime, Datelike as _, Utc};
use ovenbird_contract::id::{HostId, KeyId};
use ovenbird_db::{
    entity::audit_log,
    store::{
        audit::{AuditFilter, NewEntry},
        build_admin::After,
    },
};
use ovenbird_kit::telemetry;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    App, Error, Problem,
    keys::Caller,
    page::{self, Page},
    rate::Bucket,
};

/// How a caller without a valid key is named.
pub const ANONYMOUS: &str = "anonymous";
/// How whoever has a shell on the server is named.
pub const COMMAND_LINE: &str = "command-line";
/// Longest target that is kept, in bytes; the operations' own are far below it.
const TARGET_MAX: usize = 500;

/// A request for a change.
#[derive(Debug, Clone)]
pub struct Deed {
    /// The operation's id.
    pub action: String,
    /// The path.
    pub target: String,
    /// In which request.
    pub request_id: String,
    /// From where.
    pub address: Option<IpAddr>,
}

fn is_actor(text: &str) -> bool {
    [ANONYMOUS, COMMAND_LINE].contains(&text)
        || text.parse::<KeyId>().is_ok()
        || text.parse::<HostId>().is_ok()
}

impl Deed {
    pub(super) fn entry(&self, actor: String, status: Option<u16>) -> NewEntry {
        let end = self.target.floor_char_boundary(TARGET_MAX);
        NewEntry {
            id: Uuid::now_v7(),
            actor,
            action: self.action.clone(),
            target: self.target[..end].to_owned(),
            request_id: Some(self.request_id.clone()),
            status,
            details: match self.address {
                Some(address) => json!({ "address": address }),
                None => json!({}),
            },
        }
    }
}

impl App {
    /// Notes that `caller` asks for something, before it is done.
    ///
    /// # Errors
    /// When Postgres does not take it; then it must not be done.
    pub async fn audit_begin(&self, caller: &Caller, deed: &Deed) -> Result<Uuid, Error> {
        let entry = deed.entry(caller.name(), None);
        self.store.audit_insert(&entry).await?;
        Ok(entry.id)
    }

    /// Takes the entry of a request away that was refused and did nothing, if its key was refused too often. Answers
    /// whether it did. Where nobody knows how often, it stays.
    pub async fn audit_too_many(&self, caller: &Caller, entry: Uuid) -> bool {
        let standing = self.rate_take(Bucket::Refused(caller.key)).await;
        if standing.is_none_or(|standing| standing.granted) {
            return false;
        }
        let removed = self.store.audit_remove(entry).await;
        if let Err(error) = &removed {
            tracing::warn!(audit.id = %entry, error = telemetry::chain(error), "an audit entry stays");
        }
        removed.is_ok()
    }

    /// Notes how it ended. What failed here stays an entry without an end.
    pub async fn audit_end(&self, entry: Uuid, status: u16, details: &Value) {
        if let Err(error) = self.store.audit_end(entry, status, details).await {
            let error = telemetry::chain(&error);
            tracing::warn!(audit.id = %entry, status, error, "an audit entry has no end");
        }
    }

    /// Notes that somebody without a valid key was refused, as long as there are not too many of them.
    pub async fn audit_refusal(&self, deed: &Deed, status: u16) {
        // Without Redis nothing bounds them.
        if !self.rate_take(Bucket::Audit).await.is_some_and(|standing| standing.granted) {
            return;
        }
        let entry = deed.entry(ANONYMOUS.to_owned(), Some(status));
        if let Err(error) = self.store.audit_insert(&entry).await {
            tracing::warn!(error = telemetry::chain(&error), "a refusal is not in the audit log");
        }
    }

    /// A page of the log, newest first.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn audit_list(
        &self,
        actor: Option<String>,
        action: Option<String>,
        since: Option<DateTime<Utc>>,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Page<audit_log::Model>, Error> {
        let after = cursor.map(page::decode).transpose()?;
        if actor.as_deref().is_some_and(|actor| !is_actor(actor)) {
            let message =
                format!("must be the id of a key or a host, {ANONYMOUS} or {COMMAND_LINE}");
            return Err(Error::Parameter(Problem::new("actor", "invalid_value", message)));
        }
        // Postgres has no times before 4713 BC.
        if since.is_some_and(|since| !(0..=9999).contains(&since.year())) {
            let problem = Problem::new("since", "invalid_value", "must be in the years 0 to 9999");
            return Err(Error::Parameter(problem));
        }
        let filter = AuditFilter { actor, action, since };
        let rows = self.store.audit_list(&filter, after, u64::from(limit) + 1).await?;
        Ok(Page::of(rows, limit, |row| After { created_at: row.at, id: row.id }))
    }
}
