//! Whether an attempt goes on where the one before stood.
//!
//! ```text
//! ledger is up to date ─► claim (host chosen) ─► record in the log
//!    ├─ last message says that the build failed ─────────────► goes on: only the desk is told
//!    ├─ last message names a ready sandbox on this host ─────► goes on
//!    └─ neither ─► row made fresh ───────────────────────────► first step
//! ```
//!
//! The record is what decides: it is written behind the last message that it was decided by, or not at all, so
//! nothing the runner before wrote is missed and nothing it writes afterwards is taken.

use std::time::Duration;

use ovenbird_contract::{
    build::Reason,
    desk::ClaimRequest,
    id::{BuildId, HostId},
    log::{LineRecord, Record, Stream},
    standing::{ResumeFrom, Standing},
};
use ovenbird_db::{
    entity::template_build,
    store::{self, claim::Claimed, finish::Said, lease::Holder},
};
use ovenbird_kit::telemetry::chain;
use tokio::time::{Instant, sleep};

use super::Desk;
use crate::log::{self, Seen};

/// The claim waits this long for the ledger, and as long for the stored log. Both are well ahead of a lease that
/// ran out; behind a drain they are some milliseconds late.
const CATCH_UP: Duration = Duration::from_millis(500);
const CATCH_UP_PAUSE: Duration = Duration::from_millis(10);
/// Records that are looked through for the last output of what runs.
const LINES_BACK: u64 = 500;
/// Stored runs that are read for them at most.
const RUNS_MAX: u64 = 64;
/// Bytes of output that a claim carries at most.
const LINES_BYTES_MAX: usize = 32 * 1024;

/// The attempt, and where it goes on.
pub(super) struct Opened {
    pub(super) claimed: Claimed,
    pub(super) seen: Seen,
    pub(super) resume: Option<ResumeFrom>,
}

/// Why the attempt cannot be opened now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the log")]
    Log(#[from] log::Error),
    #[error("Postgres")]
    Store(#[from] store::Error),
    #[error("the attempt is over already")]
    Over,
}

impl Desk {
    /// Waits, within bounds, until the row holds what the runner before said: once a higher attempt is in the
    /// row, events of the one before count no more.
    pub(super) async fn catch_up(&self, request: &ClaimRequest) {
        let ClaimRequest { build_id: build, attempt, runner_id: runner } = *request;
        let Some(before) = attempt.checked_sub(1).filter(|before| *before > 0) else { return };
        if let Some(stream_seq) = self.states.last(build).await {
            let holder = Holder { build, attempt: before, runner };
            let said = Said { event_stream_seq: stream_seq, log_seq: 0 };
            self.applied(&holder, said, CATCH_UP).await;
        }
    }

    /// Where the log of a build stands that no runner has had. It may be asked before the claim is made: nobody else
    /// writes it.
    pub(super) async fn seen_before_the_first(
        &self,
        request: &ClaimRequest,
    ) -> Option<Result<Seen, log::Error>> {
        if request.attempt > 1 {
            return None;
        }
        Some(self.log.seen(request.build_id, 0).await)
    }

    /// Says in the log that the attempt begins, and how. A first attempt begins where the log stands, as it was
    /// `seen`.
    pub(super) async fn open(
        &self,
        request: &ClaimRequest,
        mut claimed: Claimed,
        seen: Option<Result<Seen, log::Error>>,
    ) -> Result<Opened, Error> {
        let ClaimRequest { build_id: build, attempt, runner_id: runner } = *request;
        let floor = u64::try_from(claimed.build.log_seq).unwrap_or(0);
        if let Some(seen) = seen {
            let mut seen = seen?;
            seen.at.last_seq = seen.at.last_seq.max(floor);
            return Ok(Opened { claimed, seen, resume: None });
        }
        let host = HostId::from_uuid(claimed.host.id);
        let row = &claimed.build;
        let decide = |before| decide(row, attempt, host, before);
        let seen = self.log.begin_again(build, attempt, floor, decide).await?;
        let made_fresh = row.fresh_attempt == row.attempt;
        if let Some(standing) = seen.standing.clone().filter(|_| !made_fresh) {
            let lines = self.last_lines(build, &seen, &standing).await;
            let resume = Some(ResumeFrom { standing, lines });
            return Ok(Opened { claimed, seen, resume });
        }
        let holder = Holder { build, attempt, runner };
        let why = format!(" Attempt {attempt} begins from the first step.");
        claimed.build = self.store.build_begin_afresh(&holder, &why).await?.ok_or(Error::Over)?;
        Ok(Opened { claimed, seen, resume: None })
    }

    /// The last output of the commands that the runner has to follow again. None when it cannot be had.
    async fn last_lines(
        &self,
        build: BuildId,
        seen: &Seen,
        standing: &Standing,
    ) -> Vec<LineRecord> {
        // The last record is the desk's own.
        let last = seen.at.last_seq.saturating_sub(1);
        let until = Instant::now() + CATCH_UP;
        while Instant::now() < until {
            match self.store.build_row(build).await {
                Ok(Some(row)) if u64::try_from(row.log_seq).unwrap_or(0) < last => {}
                _ => break,
            }
            sleep(CATCH_UP_PAUSE).await;
        }
        let from = last.saturating_sub(LINES_BACK).max(1);
        let runs = match self.store.build_log_runs(build, from, RUNS_MAX).await {
            Ok(runs) => runs,
            Err(error) => {
                tracing::info!(build.id = %build, error = chain(&error), "the log's end is not read");
                return Vec::new();
            }
        };
        let followed =
            |line: &LineRecord| standing.outputs.iter().any(|output| output.step == line.step);
        let lines = runs.into_iter().flatten().filter_map(|record| match record {
            Record::Line(line) if line.stream != Stream::System && followed(&line) => Some(line),
            _ => None,
        });
        newest(lines.collect())
    }
}

/// The line with which an attempt begins, and where it goes on, if it does.
fn decide(
    row: &template_build::Model,
    attempt: u32,
    host: HostId,
    before: Option<Standing>,
) -> (String, Option<Standing>) {
    let why = row
        .reason
        .clone()
        .and_then(|reason| serde_json::from_value::<Reason>(reason).ok())
        .map_or_else(String::new, |reason| format!(" {}", reason.message));
    match before {
        Some(standing) if standing.failed.is_some() => {
            (format!("Attempt {attempt} only tells that the build failed.{why}"), Some(standing))
        }
        Some(standing) if standing.ready && standing.host_id == host => {
            let place = place(row, &standing);
            (format!("Attempt {attempt} goes on {place}.{why}"), Some(standing))
        }
        Some(standing) if standing.ready => {
            let text = format!(
                "Attempt {attempt} begins from the first step: its sandbox was on another host.{why}"
            );
            (text, None)
        }
        _ => (format!("Attempt {attempt} begins from the first step.{why}"), None),
    }
}

fn place(row: &template_build::Model, standing: &Standing) -> String {
    if i64::from(standing.steps_done) < i64::from(row.total_steps) {
        format!("in step {}", standing.steps_done + 1)
    } else if row.healthcheck.is_some() && !standing.healthy {
        "with the healthcheck".into()
    } else {
        "with writing the template".into()
    }
}

/// As many of the last lines as a claim may carry, in order.
fn newest(mut lines: Vec<LineRecord>) -> Vec<LineRecord> {
    let mut bytes = 0;
    let fits = lines.iter().rev().take_while(|line| {
        bytes += line.text.len() + 1;
        bytes <= LINES_BYTES_MAX
    });
    let first = lines.len() - fits.count();
    lines.split_off(first)
}
