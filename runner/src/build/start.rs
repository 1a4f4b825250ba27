//! Processes of START steps: they run beside everything that follows, and their output is in the log.

use std::time::Duration;

use ovenbird_agent_client::ExecEnd;
use ovenbird_contract::{
    build::ReasonCode,
    event::What,
    step::{Phase, StepLog},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, field::Empty};

use super::{
    driver::{Driver, Halt, entry},
    follow::{Error, Follow, Kept},
    state::Event,
    step::lost,
};

/// The last lines of a process that is stopped must find their way into the log within this time.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A process of a START step.
#[derive(Debug)]
pub(super) struct Started {
    number: u32,
    cmd: String,
    begun: Instant,
    /// Cancelled by its task when the process has ended by itself.
    ended: CancellationToken,
    stop: CancellationToken,
    task: JoinHandle<(Kept, Option<Result<ExecEnd, Error>>)>,
}

impl Started {
    pub(super) fn follow(number: u32, cmd: String, mut follow: Follow) -> Self {
        let (ended, stop) = (CancellationToken::new(), CancellationToken::new());
        let (tell, stopped) = (ended.clone(), stop.clone());
        // Of the step that started it, or of the attempt that found it running; it goes on after the step.
        let span = tracing::info_span!("process", step = number, exit = Empty);
        let noted = span.clone();
        let following = async move {
            let end = tokio::select! {
                end = follow.until_end() => Some(end),
                () = stopped.cancelled() => None,
            };
            if let Some(Ok(end)) = &end {
                noted.record("exit", end.exit_code);
            }
            match &end {
                Some(_) => tell.cancel(),
                // An error here means that the log is over, which whoever writes next finds out.
                None => drop(follow.finish(None).await),
            }
            (std::mem::take(&mut follow.kept), end)
        };
        let task = tokio::spawn(following.instrument(span));
        Self { number, cmd, begun: Instant::now(), ended, stop, task }
    }
}

impl Driver {
    /// Waits until one of the started processes has ended by itself.
    pub(super) async fn any_ended(ended: &[CancellationToken]) {
        if ended.is_empty() {
            return std::future::pending().await;
        }
        let waits = ended.iter().map(|ended| Box::pin(ended.cancelled()));
        futures::future::select_all(waits).await;
    }

    /// What [`Driver::any_ended`] waits for.
    pub(super) fn ended_tokens(&self) -> Vec<CancellationToken> {
        self.started.iter().map(|started| started.ended.clone()).collect()
    }

    /// The first process that has ended, as a failure.
    pub(super) async fn first_ended(&mut self) -> Result<Option<Event>, Halt> {
        let Some(at) = self.started.iter().position(|started| started.ended.is_cancelled()) else {
            return Ok(None);
        };
        let started = self.started.remove(at);
        let number = started.number;
        let (kept, end) = self.stop_one(started, true).await?;
        let (code, how) = match end {
            Some(Ok(ExecEnd { error: Some(error), exit_code: 0 | 126 | 127, .. })) => {
                (ReasonCode::StartDied, format!("could not be started: {error}"))
            }
            Some(Ok(end)) => {
                // Which limit of the guest it ran into.
                let why = end.error.map_or_else(String::new, |error| format!(": {error}"));
                let code = end.exit_code;
                let how = format!("ended with exit code {code} before the healthcheck passed{why}");
                (ReasonCode::StartDied, how)
            }
            Some(Err(error)) => {
                return lost(&error, ReasonCode::HostLost).map(Some);
            }
            None => return Ok(None),
        };
        let message = format!("the process of step {number} (START) {how}");
        let tail = Some(kept.tail.text()).filter(|tail| !tail.is_empty());
        Ok(Some(Event::Failed { code, message, tail }))
    }

    /// Stops following all of them. With `heard` their output so far is put beside their steps.
    pub(super) async fn stop_started(&mut self, heard: bool) -> Result<(), Halt> {
        for started in std::mem::take(&mut self.started) {
            self.stop_one(started, heard).await?;
        }
        Ok(())
    }

    /// Lets all of them be, for another runner to follow. Unfinished lines are left to it, too.
    pub(super) async fn leave_started(&mut self) {
        for started in std::mem::take(&mut self.started) {
            started.task.abort();
            if let Err(error) = started.task.await
                && !error.is_cancelled()
            {
                tracing::error!(%error, "following a START process broke");
            }
        }
    }

    async fn stop_one(
        &mut self,
        mut started: Started,
        heard: bool,
    ) -> Result<(Kept, Option<Result<ExecEnd, Error>>), Halt> {
        started.stop.cancel();
        let (kept, end) = match timeout(STOP_MAX, &mut started.task).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                tracing::error!(%error, "following a START process broke");
                (Kept::default(), None)
            }
            Err(_) => {
                started.task.abort();
                (Kept::default(), None)
            }
        };
        if !heard {
            return Ok((kept, end));
        }
        let exit = end.as_ref().and_then(|end| end.as_ref().ok()).map(|end| end.exit_code);
        let cmd = started.cmd;
        let mut entry =
            entry(started.number, Phase::Step, cmd, end.is_none(), started.begun.elapsed());
        entry.exit = exit;
        put_output(&mut entry, &kept);
        self.events.publish(What::StepFinished(entry)).await?;
        Ok((kept, end))
    }
}

pub(super) fn put_output(entry: &mut StepLog, kept: &Kept) {
    entry.stdout = kept.stdout.text();
    entry.stderr = kept.stderr.text();
    let left_out = kept.stdout.truncated() + kept.stderr.truncated() + kept.missing;
    entry.truncated = Some(left_out).filter(|left_out| !left_out.is_none());
    entry.log_truncated = Some(kept.cut).filter(|cut| !cut.is_none());
}
