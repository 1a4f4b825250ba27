//! What a sandbox used: what its host still knows, and what was kept when the host forgot it.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use ovenbird_agent_client::{Error as AgentError, MetricPoint as Measured, MetricRange};
use ovenbird_contract::id::SandboxId;
use ovenbird_db::store::sandbox::{MetricPoint, status};

use super::host::of_agent;
use crate::app::{App, Error, keys::Caller};

/// How far back a range goes, and how many points it has at most.
fn extent(range: MetricRange) -> (TimeDelta, u32) {
    match range {
        MetricRange::TenMinutes => (TimeDelta::minutes(10), 120),
        MetricRange::TwoHours => (TimeDelta::hours(2), 120),
        MetricRange::Day => (TimeDelta::hours(24), 144),
    }
}

/// A host's point as it is kept; nothing for a time that is none.
pub(super) fn kept(point: Measured) -> Option<MetricPoint> {
    Some(MetricPoint {
        at: DateTime::from_timestamp(point.timestamp_unix, 0)?,
        cpu_pct: point.cpu_pct,
        mem_bytes: point.mem_bytes,
        disk_bytes: point.disk_bytes,
    })
}

impl App {
    /// What a sandbox used, oldest first. Of one that is over: what it used last.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::HostUnavailable`].
    pub async fn sandbox_metrics(
        &self,
        caller: &Caller,
        id: SandboxId,
        range: MetricRange,
    ) -> Result<Vec<MetricPoint>, Error> {
        let detail = self.sandbox_get(caller, id).await?;
        let (back, count) = extent(range);
        let until = detail.sandbox.destroyed_at.unwrap_or_else(Utc::now);
        let since = until - back;
        let mut points = BTreeMap::new();
        for point in self.store.sandbox_metrics(id, range.as_str(), since, u64::from(count)).await?
        {
            points.insert(point.at, point);
        }
        if !status(&detail.sandbox)?.is_terminal() {
            let agent = self.sandboxes.agent(&detail.host)?;
            match agent.sandbox_metrics(&id.to_string(), range).await {
                Ok(measured) => {
                    let measured = measured.into_iter().filter_map(kept);
                    points.extend(measured.map(|point| (point.at, point)));
                }
                // Not there yet, or not any more.
                Err(AgentError::NotFound { .. }) => {}
                Err(error) => return Err(of_agent(error)),
            }
        }
        let skip = points.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(points.into_values().skip(skip).collect())
    }
}
