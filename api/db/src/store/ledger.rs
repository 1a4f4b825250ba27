//! What the ledger writes: progress of builds and runs of their log.
//!
//! Messages come at least once and, with several bridges, in any order. So nothing here counts or
//! appends: a step's entry replaces itself, the current step only grows, and a log record that is stored
//! is not stored again.

use std::collections::BTreeMap;

use ovenbird_contract::{
    build::Status,
    id::{BuildId, SandboxId},
    log::{LineRecord, Record},
    step::StepLog,
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, EntityTrait,
    FromQueryResult, QueryFilter, QueryResult, QuerySelect, TransactionTrait,
};
use uuid::Uuid;

use super::{Error, Store, json, sql};
use crate::{
    chunk,
    entity::{build_log_chunk, template_build},
};

/// Most records of one run: a reader unpacks a run whole.
const RUN_RECORDS_MAX: usize = 1_000;
/// A run is closed when its texts reach this size, for the same reason.
const RUN_BYTES_MAX: usize = 256 * 1024;

/// What events say about one attempt of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The build.
    pub build: BuildId,
    /// The attempt; a build that has another one by now is left alone.
    pub attempt: u32,
    /// Steps that ended, in order.
    pub steps: Vec<StepLog>,
    /// Highest step that was started.
    pub current_step: u32,
    /// The newest sandbox.
    pub sandbox: Option<SandboxId>,
    /// Highest stream sequence among the events.
    pub stream_seq: u64,
}

/// The records of one message on a log subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogBatch {
    /// The build.
    pub build: BuildId,
    /// Stream sequence of the message.
    pub stream_seq: u64,
    /// Consecutive records.
    pub records: Vec<Record>,
}

#[derive(Debug, FromQueryResult)]
struct Stored {
    build_id: Uuid,
    first_seq: i64,
    last_seq: i64,
}

type ByBuild = BTreeMap<Uuid, BTreeMap<u64, (Record, u64)>>;

impl Store {
    /// Applies progress, at most one entry for each build and attempt. Applying it again changes nothing.
    ///
    /// # Errors
    /// [`Error::Database`]; nothing was written then.
    pub async fn build_progress(&self, progress: &[Progress]) -> Result<(), Error> {
        let rows: Vec<_> = progress
            .iter()
            .map(|one| {
                serde_json::json!({
                    "id": one.build.uuid(),
                    "attempt": one.attempt,
                    "steps": one.steps,
                    "current_step": one.current_step,
                    "sandbox": one.sandbox.as_ref().map(|id| id.uuid()),
                    "seq": one.stream_seq,
                })
            })
            .collect();
        let tx = self.db.begin().await?;
        builds_lock(&tx, progress.iter().map(|one| one.build.uuid())).await?;
        // An entry is known by phase, step and command. Sandbox ids grow with time within an attempt,
        // which one runner makes.
        tx.execute_raw(sql(
            "UPDATE template_builds b SET
               current_step = GREATEST(b.current_step, p.current_step),
               sandbox_id = GREATEST(b.sandbox_id, p.sandbox),
               event_stream_seq = GREATEST(b.event_stream_seq, p.seq),
               logs = CASE WHEN jsonb_array_length(p.steps) = 0 THEN b.logs ELSE (
                 SELECT jsonb_agg(entry ORDER BY
                   array_position(ARRAY['boot', 'pre', 'step', 'post', 'health', 'publish'], entry->>'phase'),
                   (entry->>'step')::int, place)
                 FROM (
                   SELECT DISTINCT ON (entry->>'phase', entry->>'step', entry->>'cmd') entry, place
                   FROM (
                     SELECT value AS entry, ordinality AS place
                     FROM jsonb_array_elements(b.logs) WITH ORDINALITY
                     UNION ALL
                     SELECT value, 1000000 + ordinality FROM jsonb_array_elements(p.steps) WITH ORDINALITY
                   ) both_lists
                   ORDER BY entry->>'phase', entry->>'step', entry->>'cmd', place DESC
                 ) newest
               ) END
             FROM jsonb_to_recordset($1)
               AS p(id uuid, attempt int, steps jsonb, current_step int, sandbox uuid, seq bigint)
             WHERE b.id = p.id AND b.attempt = p.attempt",
            [json(&rows)?.into()],
        ))
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The highest record of the log that is stored, of those of `builds` that exist.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn build_log_seqs(&self, builds: &[BuildId]) -> Result<Vec<(BuildId, u64)>, Error> {
        use template_build::Column;
        let rows: Vec<(Uuid, i64)> = template_build::Entity::find()
            .select_only()
            .columns([Column::Id, Column::LogSeq])
            .filter(Column::Id.is_in(builds.iter().map(|id| id.uuid())))
            .into_tuple()
            .all(&self.db)
            .await?;
        Ok(rows.into_iter().map(|(id, seq)| (BuildId::from_uuid(id), seq.unsigned_abs())).collect())
    }

    /// Stores log records that are not stored yet; answers how the builds ended whose logs end with it. Messages of
    /// unknown builds are left out.
    ///
    /// A log has one end, and nothing after it. When the stream lost an end before it was stored, another one was
    /// written, perhaps while what it is to come after was still being stored.
    ///
    /// # Errors
    /// [`Error::Database`], [`Error::Chunk`]; nothing was written then.
    pub async fn build_log_store(&self, batches: &[LogBatch]) -> Result<Vec<Status>, Error> {
        let mut by_build = ByBuild::new();
        let mut ends = BTreeMap::new();
        for batch in batches {
            let records = by_build.entry(batch.build.uuid()).or_default();
            if batch.records.last().is_some_and(Record::is_end) {
                ends.entry(batch.build.uuid()).or_insert(batch);
                continue;
            }
            for record in &batch.records {
                records.entry(record.seq()).or_insert((record.clone(), batch.stream_seq));
            }
        }
        let tx = self.db.begin().await?;
        let known = builds_lock(&tx, by_build.keys().copied()).await?;
        by_build.retain(|id, _| known.contains_key(id));
        let mut ended = Vec::new();
        for (id, records) in &mut by_build {
            let Locked { log_seq, has_ended } = known[id];
            if has_ended {
                records.retain(|seq, _| *seq < log_seq);
            }
            let Some(message) = ends.remove(id) else { continue };
            let (Some(first), Some(Record::End(end))) =
                (message.records.first(), message.records.last())
            else {
                continue;
            };
            let mut by = 0;
            if !has_ended {
                let last = records.last_key_value().map_or(log_seq, |(seq, _)| log_seq.max(*seq));
                by = (last + 1).saturating_sub(first.seq());
                ended.push(end.end.status);
            } else if end.seq != log_seq {
                continue;
            }
            for record in message.records.iter().map(|record| moved(record, by)) {
                records.insert(record.seq(), (record, message.stream_seq));
            }
        }
        by_build.retain(|_, records| !records.is_empty());
        if by_build.is_empty() {
            tx.rollback().await?;
            return Ok(ended);
        }
        let lasts: Vec<_> = by_build
            .iter()
            .filter_map(|(id, records)| {
                let (last, (record, _)) = records.last_key_value()?;
                Some(serde_json::json!({"id": id, "seq": last, "over": record.is_end()}))
            })
            .collect();
        for stored in stored_runs(&tx, &by_build).await? {
            if let Some(records) = by_build.get_mut(&stored.build_id) {
                let (first, last) =
                    (stored.first_seq.cast_unsigned(), stored.last_seq.cast_unsigned());
                records.retain(|seq, _| !(first..=last).contains(seq));
            }
        }
        let mut chunks = Vec::new();
        for (build, records) in by_build {
            runs_pack(build, records, &mut chunks)?;
        }
        if !chunks.is_empty() {
            build_log_chunk::Entity::insert_many(chunks).exec_without_returning(&tx).await?;
        }
        tx.execute_raw(sql(
            "UPDATE template_builds b SET log_seq = GREATEST(b.log_seq, e.seq),
               log_end_written = b.log_end_written OR e.over
             FROM jsonb_to_recordset($1) AS e(id uuid, seq bigint, over boolean)
             WHERE b.id = e.id AND (b.log_seq < e.seq OR (e.over AND NOT b.log_end_written))",
            [json(&lasts)?.into()],
        ))
        .await?;
        tx.commit().await?;
        Ok(ended)
    }
}

/// A build whose row is locked.
struct Locked {
    /// The highest record that is stored.
    log_seq: u64,
    /// That is the end.
    has_ended: bool,
}

/// Locks the rows of `builds` in the order of their ids, so that two ledgers cannot wait for each
/// other; answers those that exist.
async fn builds_lock(
    tx: &DatabaseTransaction,
    builds: impl Iterator<Item = Uuid>,
) -> Result<BTreeMap<Uuid, Locked>, Error> {
    let ids: Vec<Uuid> = builds.collect();
    let rows = tx
        .query_all_raw(sql(
            "SELECT id, log_seq, log_end_written FROM template_builds
             WHERE id IN (SELECT value::uuid FROM jsonb_array_elements_text($1))
             ORDER BY id FOR NO KEY UPDATE",
            [json(&ids)?.into()],
        ))
        .await?;
    let locked = |row: &QueryResult| -> Result<(Uuid, Locked), sea_orm::DbErr> {
        let log_seq: i64 = row.try_get("", "log_seq")?;
        let has_ended = row.try_get("", "log_end_written")?;
        Ok((row.try_get("", "id")?, Locked { log_seq: log_seq.cast_unsigned(), has_ended }))
    };
    Ok(rows.iter().map(locked).collect::<Result<_, _>>()?)
}

/// The record, so much further on in its log.
fn moved(record: &Record, by: u64) -> Record {
    match record {
        Record::Line(line) => Record::Line(LineRecord { seq: line.seq + by, ..line.clone() }),
        Record::End(end) => Record::end(end.seq + by, end.end.status),
    }
}

/// Runs that may hold some of the records. Runs do not overlap, so the one that begins at or before the
/// first record and those that begin up to the last are all.
async fn stored_runs(tx: &DatabaseTransaction, records: &ByBuild) -> Result<Vec<Stored>, Error> {
    let spans: Vec<_> = records
        .iter()
        .filter_map(|(id, records)| {
            let (first, last) = (records.first_key_value()?.0, records.last_key_value()?.0);
            Some(serde_json::json!({"id": id, "first": first, "last": last}))
        })
        .collect();
    Ok(Stored::find_by_statement(sql(
        "SELECT c.build_id, c.first_seq, c.last_seq
         FROM jsonb_to_recordset($1) AS s(id uuid, first bigint, last bigint)
         JOIN build_log_chunks c ON c.build_id = s.id AND c.first_seq <= s.last
           AND c.first_seq >= COALESCE(
             (SELECT max(b.first_seq) FROM build_log_chunks b
              WHERE b.build_id = s.id AND b.first_seq <= s.first), 0)",
        [json(&spans)?.into()],
    ))
    .all(tx)
    .await?)
}

/// Packs records into runs without holes.
fn runs_pack(
    build: Uuid,
    records: BTreeMap<u64, (Record, u64)>,
    chunks: &mut Vec<build_log_chunk::ActiveModel>,
) -> Result<(), Error> {
    let mut run: Vec<Record> = Vec::new();
    let mut stream_seq = 0;
    let mut bytes = 0;
    for (seq, (record, message)) in records {
        let follows = run.last().is_none_or(|last| last.seq() + 1 == seq);
        let full = run.len() >= RUN_RECORDS_MAX || bytes >= RUN_BYTES_MAX;
        if !follows || full {
            chunks.push(run_pack(build, &std::mem::take(&mut run), stream_seq)?);
            bytes = 0;
        }
        bytes += text_bytes(&record);
        stream_seq = message;
        run.push(record);
    }
    if !run.is_empty() {
        chunks.push(run_pack(build, &run, stream_seq)?);
    }
    Ok(())
}

fn text_bytes(record: &Record) -> usize {
    match record {
        Record::Line(line) => line.text.len() + line.data.as_ref().map_or(0, String::len),
        Record::End(_) => 0,
    }
}

fn run_pack(
    build: Uuid,
    run: &[Record],
    stream_seq: u64,
) -> Result<build_log_chunk::ActiveModel, Error> {
    let seq = |record: Option<&Record>| record.map_or(0, Record::seq).cast_signed();
    Ok(build_log_chunk::ActiveModel {
        build_id: Set(build),
        first_seq: Set(seq(run.first())),
        last_seq: Set(seq(run.last())),
        records: Set(chunk::encode(run)?),
        stream_seq: Set(stream_seq.cast_signed()),
        ..Default::default()
    })
}
