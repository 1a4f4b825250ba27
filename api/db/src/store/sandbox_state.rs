//! What moves a sandbox's row: an intent before the host is asked, and the host's word after it.
//!
//! An intent raises the row's revision and says until when its call may last; the host's word names the revision that
//! it belongs to, and changes nothing when somebody has written since. A repeated intent raises nothing: both callers
//! wait for the same word. So of two callers at the same sandbox the later
//! one is right, and whoever dies in between leaves a row that the sweep compares with the host.

use std::time::Duration;

use ovenbird_contract::{
    id::{HostId, SandboxId, TemplateId},
    sandbox::{Event, Reason, Status},
};
use sea_orm::{ConnectionTrait, DatabaseTransaction, EntityTrait, TransactionTrait};

use super::{
    Error, Store,
    claim::{host_lock, used},
    corrupt,
    host::millis,
    json,
    sandbox::status,
    sql,
    template_tag::tag_move,
};
use crate::entity::{sandbox, template};

/// What somebody is about to ask a host for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intent {
    /// Pause it.
    Pause,
    /// Let it go on, with this idle limit if one is named.
    Resume {
        /// In seconds; 0 means never.
        timeout_sec: Option<u32>,
    },
    /// Make it a template.
    Save {
        /// Its id, and its name on the host.
        template: TemplateId,
        /// The catalogue's name.
        name: String,
        /// The tag.
        tag: String,
    },
    /// Remove it; with a reason, because nobody can use it.
    Destroy {
        /// Why, when nobody wished it.
        reason: Option<Reason>,
    },
}

impl Intent {
    fn event(&self) -> Event {
        match self {
            Self::Pause => Event::Pause,
            Self::Resume { .. } => Event::Resume,
            Self::Save { .. } => Event::Save,
            Self::Destroy { .. } => Event::Destroy,
        }
    }
}

/// What came of an intent.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// The row as it is now: ask the host.
    Row(Box<sandbox::Model>),
    /// The row's state does not allow it; nothing changed.
    Refused(Box<sandbox::Model>),
    /// The host is full; nothing changed.
    NoRoom,
    /// There is no such sandbox.
    NotFound,
}

/// What a host said.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// In one word.
    pub event: Event,
    /// The sandbox's address, where it was told.
    pub host_ip: Option<String>,
    /// Why it failed.
    pub reason: Option<Reason>,
}

impl Word {
    /// Nothing but the word.
    pub fn of(event: Event) -> Self {
        Self { event, host_ip: None, reason: None }
    }

    /// The end of a sandbox that nobody wished.
    pub fn fails(reason: Reason) -> Self {
        Self { event: Event::Fails, host_ip: None, reason: Some(reason) }
    }

    /// What it means for `row` that nothing of it is left on its host.
    pub fn removed(row: &sandbox::Model) -> Self {
        Self::of(if row.reason.is_some() { Event::Fails } else { Event::Gone })
    }
}

impl Store {
    /// Writes an intent. The host is asked next, and has answered after `busy` at the latest. With a `revision`, only
    /// if nobody has written since.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have been written or not: the sweep looks.
    pub async fn sandbox_begin(
        &self,
        id: SandboxId,
        intent: &Intent,
        revision: Option<i64>,
        busy: Duration,
    ) -> Result<Begun, Error> {
        let tx = self.db.begin().await?;
        let Some(row) = lock(&tx, id).await? else { return Ok(Begun::NotFound) };
        let now = status(&row)?;
        let is_newest = revision.is_none_or(|revision| revision == row.revision);
        let Some(next) = now.apply(intent.event()).ok().filter(|_| is_newest) else {
            return Ok(Begun::Refused(Box::new(row)));
        };
        if !now.takes_room() && next.takes_room() && next != Status::Destroying {
            host_lock(&tx, row.host_id).await?;
            if !has_room(&tx, &row).await? {
                return Ok(Begun::NoRoom);
            }
        }
        let row = write_intent(&tx, &row, next, intent, busy).await?;
        tx.commit().await?;
        Ok(Begun::Row(Box::new(row)))
    }

    /// Writes a host's word about the sandbox as it was in `row`. Nothing comes back when somebody has written since.
    ///
    /// # Errors
    /// [`Error::Database`]; the word may have been written or not: the sweep looks.
    pub async fn sandbox_told(
        &self,
        row: &sandbox::Model,
        word: &Word,
    ) -> Result<Option<sandbox::Model>, Error> {
        let Ok(next) = status(row)?.apply(word.event) else { return Ok(None) };
        let reason = word.reason.as_ref().map(json).transpose()?;
        Ok(sandbox::Entity::find()
            .from_raw_sql(sql(
                "UPDATE sandboxes SET status = $3, revision = revision + 1, status_since = now(), busy_until = NULL,
                   host_ip = COALESCE($4, host_ip), reason = COALESCE(reason, $5),
                   snapshot_id = NULL, snapshot_name = NULL, snapshot_tag = NULL,
                   destroyed_at = CASE WHEN $3 IN ('destroyed', 'failed') THEN now() END
                 WHERE id = $1 AND revision = $2
                 RETURNING *",
                [
                    row.id.into(),
                    row.revision.into(),
                    next.as_str().into(),
                    word.host_ip.clone().into(),
                    reason.into(),
                ],
            ))
            .one(&self.db)
            .await?)
    }

    /// Publishes the template that a sandbox has become, of so many bytes, and ends the sandbox. Nothing comes back,
    /// and nothing is published, when somebody has written since.
    ///
    /// # Errors
    /// [`Error::Database`]; it may have been done or not: the sweep looks.
    pub async fn sandbox_saved(
        &self,
        row: &sandbox::Model,
        size_bytes: u64,
    ) -> Result<Option<sandbox::Model>, Error> {
        let tx = self.db.begin().await?;
        let Ok(next) = status(row)?.apply(Event::Gone) else { return Ok(None) };
        let ended = sandbox::Entity::find()
            .from_raw_sql(sql(
                "UPDATE sandboxes SET status = $3, revision = revision + 1, status_since = now(), busy_until = NULL,
                   destroyed_at = now()
                 WHERE id = $1 AND revision = $2 AND status = 'saving' RETURNING *",
                [row.id.into(), row.revision.into(), next.as_str().into()],
            ))
            .one(&tx)
            .await?;
        let Some(ended) = ended else { return Ok(None) };
        publish(&tx, &ended, size_bytes).await?;
        tx.commit().await?;
        Ok(Some(ended))
    }

    /// The sandboxes of a host that are not over, that nobody works on, and of which nothing was written since the
    /// host was asked, `asked_ago`: whatever it said of them is still true.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_list_settled(
        &self,
        host: HostId,
        asked_ago: Duration,
    ) -> Result<Vec<sandbox::Model>, Error> {
        Ok(sandbox::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM sandboxes
                 WHERE host_id = $1 AND destroyed_at IS NULL
                   AND (busy_until IS NULL OR busy_until < now())
                   AND status_since < now() - $2 * interval '1 millisecond'
                 ORDER BY id",
                [host.uuid().into(), millis(asked_ago).into()],
            ))
            .all(&self.db)
            .await?)
    }

    /// Those of `ids` that are on `host` and not over, whatever is being done with them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_list_known(
        &self,
        host: HostId,
        ids: &[SandboxId],
    ) -> Result<Vec<SandboxId>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
        let rows = sandbox::Entity::find()
            .from_raw_sql(sql(
                "SELECT * FROM sandboxes WHERE host_id = $1 AND destroyed_at IS NULL
                   AND id IN (SELECT value::uuid FROM jsonb_array_elements_text($2))",
                [host.uuid().into(), json(&ids)?.into()],
            ))
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().map(|row| SandboxId::from_uuid(row.id)).collect())
    }

    /// Notes when sandboxes were used last, in Unix seconds, by their host's clock.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn sandbox_used(&self, used: &[(SandboxId, i64)]) -> Result<(), Error> {
        if used.is_empty() {
            return Ok(());
        }
        let used: Vec<_> = used
            .iter()
            .map(|(id, unix)| serde_json::json!({"id": id.uuid(), "unix": unix}))
            .collect();
        self.db
            .execute_raw(sql(
                "UPDATE sandboxes s SET last_active_at = to_timestamp(u.unix)
                 FROM jsonb_to_recordset($1) AS u(id uuid, unix float8)
                 WHERE s.id = u.id AND s.destroyed_at IS NULL AND s.last_active_at < to_timestamp(u.unix)",
                [json(&used)?.into()],
            ))
            .await?;
        Ok(())
    }
}

async fn lock(tx: &DatabaseTransaction, id: SandboxId) -> Result<Option<sandbox::Model>, Error> {
    Ok(sandbox::Entity::find()
        .from_raw_sql(sql("SELECT * FROM sandboxes WHERE id = $1 FOR UPDATE", [id.uuid().into()]))
        .one(tx)
        .await?)
}

/// Whether the (locked) host of a sandbox that takes no room has some for it.
async fn has_room(tx: &DatabaseTransaction, row: &sandbox::Model) -> Result<bool, Error> {
    let taken = used("$1");
    let text = format!(
        "SELECT 1 FROM hosts h CROSS JOIN LATERAL {taken} used
         WHERE h.id = $2
           AND (h.capacity->>'vcpus')::bigint - used.vcpus >= $3
           AND (h.capacity->>'memory_mb')::bigint - used.memory_mb >= $4"
    );
    let values = [row.id.into(), row.host_id.into(), row.vcpus.into(), row.memory_mb.into()];
    Ok(tx.query_one_raw(sql(&text, values)).await?.is_some())
}

async fn write_intent(
    tx: &DatabaseTransaction,
    row: &sandbox::Model,
    next: Status,
    intent: &Intent,
    busy: Duration,
) -> Result<sandbox::Model, Error> {
    let (mut timeout_sec, mut reason, mut snapshot) = (None, None, (None, None, None));
    match intent {
        Intent::Pause => {}
        Intent::Resume { timeout_sec: asked } => {
            timeout_sec = asked.map(|seconds| i32::try_from(seconds).unwrap_or(i32::MAX));
        }
        Intent::Save { template, name, tag } => {
            snapshot = (Some(template.uuid()), Some(name.clone()), Some(tag.clone()));
        }
        Intent::Destroy { reason: why } => reason = why.as_ref().map(json).transpose()?,
    }
    let written = sandbox::Entity::find()
        .from_raw_sql(sql(
            "UPDATE sandboxes SET status = $2, status_since = now(),
               revision = revision + CASE WHEN status = $2 THEN 0 ELSE 1 END,
               busy_until = now() + $3 * interval '1 millisecond',
               timeout_sec = COALESCE($4, timeout_sec), reason = COALESCE(reason, $5),
               snapshot_id = $6, snapshot_name = $7, snapshot_tag = $8
             WHERE id = $1 RETURNING *",
            [
                row.id.into(),
                next.as_str().into(),
                millis(busy).into(),
                timeout_sec.into(),
                reason.into(),
                snapshot.0.into(),
                snapshot.1.into(),
                snapshot.2.into(),
            ],
        ))
        .one(tx)
        .await?;
    Ok(written.ok_or_else(|| sea_orm::DbErr::RecordNotFound("the sandbox just locked".into()))?)
}

/// Template, tag and placement of a sandbox that has become one. Environment and user are those of what it started
/// from.
async fn publish(
    tx: &DatabaseTransaction,
    row: &sandbox::Model,
    size_bytes: u64,
) -> Result<(), Error> {
    let missing = |column| corrupt("sandboxes", column)("a sandbox that was saved without it");
    let id = row.snapshot_id.ok_or_else(|| missing("snapshot_id"))?;
    let name = row.snapshot_name.clone().ok_or_else(|| missing("snapshot_name"))?;
    let tag = row.snapshot_tag.clone().ok_or_else(|| missing("snapshot_tag"))?;
    let base = template::Entity::find_by_id(row.template_id).one(tx).await?;
    let base = base.ok_or_else(|| missing("template_id"))?;
    let bytes = i64::try_from(size_bytes).unwrap_or(i64::MAX);
    let provenance = serde_json::json!({
        "origin": "sandbox",
        "sandbox_id": SandboxId::from_uuid(row.id).to_string(),
        "host_id": HostId::from_uuid(row.host_id).to_string(),
        "requested_by": row.requested_by,
    });
    tx.execute_raw(sql(
        "INSERT INTO templates (id, name, tag, type, host_name, vcpus, memory_mb, size_bytes, base_template_id,
           default_user, default_env, provenance)
         VALUES ($1, $2, $3, 'snapshot', $4, $5, $6, $7, $8, $9, $10, $11)",
        [
            id.into(),
            name.clone().into(),
            tag.clone().into(),
            TemplateId::from_uuid(id).to_string().into(),
            row.vcpus.into(),
            row.memory_mb.into(),
            bytes.into(),
            base.id.into(),
            base.default_user.into(),
            base.default_env.into(),
            json(&provenance)?.into(),
        ],
    ))
    .await?;
    tag_move(tx, &name, &tag, id, &row.requested_by).await?;
    tx.execute_raw(sql(
        "INSERT INTO template_placements (template_id, host_id, state, bytes) VALUES ($1, $2, 'present', $3)
         ON CONFLICT (template_id, host_id) DO UPDATE SET state = 'present', bytes = EXCLUDED.bytes, seen_at = now()",
        [id.into(), row.host_id.into(), bytes.into()],
    ))
    .await?;
    Ok(())
}
