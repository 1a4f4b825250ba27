//! How things stand, as numbers for whoever watches the installation.

use std::collections::BTreeMap;

use sea_orm::FromQueryResult;

use super::{Error, Store, sql, turn::RUNS};

/// How many of what there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Builds that wait, by lane; lanes without any are missing.
    pub queued: BTreeMap<String, i64>,
    /// Those of them that wait for the limits of their keys.
    pub held: i64,
    /// How long the first of them has been waiting, in seconds.
    pub oldest_seconds: i64,
    /// Builds that hold a runner's slot.
    pub running: i64,
    /// Hosts that are not deleted, by status.
    pub hosts: BTreeMap<String, i64>,
    /// Users' sandboxes that are not over, by status.
    pub sandboxes: BTreeMap<String, i64>,
}

#[derive(Debug, FromQueryResult)]
struct Line {
    what: String,
    label: String,
    count: i64,
}

impl Store {
    /// How things stand.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn stats(&self) -> Result<Stats, Error> {
        let text = format!(
            "SELECT 'queued' AS what, lane AS label, count(*) AS count
               FROM template_builds WHERE status = 'queued' GROUP BY lane
             UNION ALL SELECT 'held', '', count(*)
               FROM template_builds WHERE status = 'queued' AND held_since IS NOT NULL
             UNION ALL SELECT 'oldest', '', COALESCE(extract(epoch FROM now() - min(queued_at)), 0)::bigint
               FROM template_builds WHERE status = 'queued'
             UNION ALL SELECT 'running', '', count(*)
               FROM template_builds WHERE {RUNS}
             UNION ALL SELECT 'host', status, count(*) FROM hosts WHERE deleted_at IS NULL GROUP BY status
             UNION ALL SELECT 'sandbox', status, count(*)
               FROM sandboxes WHERE destroyed_at IS NULL GROUP BY status"
        );
        let lines = Line::find_by_statement(sql(&text, [])).all(&self.db).await?;
        let mut stats = Stats::default();
        for Line { what, label, count } in lines {
            match what.as_str() {
                "queued" => drop(stats.queued.insert(label, count)),
                "held" => stats.held = count,
                "oldest" => stats.oldest_seconds = count.max(0),
                "running" => stats.running = count,
                "host" => drop(stats.hosts.insert(label, count)),
                _ => drop(stats.sandboxes.insert(label, count)),
            }
        }
        Ok(stats)
    }

    /// Connections to Postgres that are used, and that are idle.
    pub fn connections(&self) -> (u32, u32) {
        let pool = self.db.get_postgres_connection_pool();
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        (pool.size().saturating_sub(idle), idle)
    }
}
