//! Waits until the healthcheck passes.

use std::time::Duration;

use ovenbird_contract::{build::ReasonCode, event::What, step::Phase};
use ovenbird_recipe::Healthcheck;
use tokio::time::Instant;

use super::{
    driver::{Driver, Halt, entry, seconds},
    follow::Kept,
    health::{Health, Verdict},
    span,
    start::put_output,
    state::{Context, Event, shown},
    step::{Ran, in_context},
};
use crate::publish::Note;

impl Driver {
    /// Every attempt and its output is in the log. A START process that has ended makes it fail at once.
    pub(super) async fn health(
        &mut self,
        check: Healthcheck,
        context: Context,
    ) -> Result<Event, Halt> {
        let begun = Instant::now();
        let cmd = shown(&check.command);
        self.announce(0, Phase::Health, &cmd).await?;
        self.log.system(0, &format!("healthcheck: {cmd}")).await?;
        let (event, exit, kept) = self.attempts(check, &context, begun).await?;
        if let Some(code) = exit {
            span::exited(code);
        }
        let mut entry = entry(0, Phase::Health, cmd, event == Event::Healthy, begun.elapsed());
        entry.exit = exit;
        put_output(&mut entry, &kept);
        self.events.publish(What::StepFinished(entry)).await?;
        if event == Event::Healthy {
            self.log.note(Note::Healthy).await?;
        }
        Ok(event)
    }

    /// How it ended, with exit code and output of the last attempt.
    async fn attempts(
        &mut self,
        check: Healthcheck,
        context: &Context,
        begun: Instant,
    ) -> Result<(Event, Option<i32>, Kept), Halt> {
        let command = in_context(&check.command, context);
        let mut health = Health::new(check);
        loop {
            if let Some(died) = self.first_ended().await? {
                return Ok((died, None, Kept::default()));
            }
            let began = begun.elapsed();
            let (nth, limit) = health.begin(began);
            let exec_id = format!("{}.health.{}.{nth}", self.claim.build_id, self.claim.attempt);
            let ended = self.ended_tokens();
            let ran = tokio::select! {
                ran = self.run_command(0, exec_id, command.clone(), limit) => ran?,
                () = Self::any_ended(&ended) => continue,
            };
            let (end, kept) = match ran {
                Ran::Ended(end, kept) => (end, kept),
                Ran::Failed(event, kept) => return Ok((event, None, kept)),
            };
            let took = seconds(end.elapsed);
            if end.exit_code == 0 && !end.timed_out && end.error.is_none() {
                if let Some(died) = self.first_ended().await? {
                    return Ok((died, None, kept));
                }
                let total = seconds(begun.elapsed());
                let line = format!("healthcheck passed at attempt {nth}, after {total}");
                self.log.system(0, &line).await?;
                return Ok((Event::Healthy, Some(0), kept));
            }
            let how = match (&end.error, end.timed_out) {
                (Some(error), _) if matches!(end.exit_code, 0 | 126 | 127) => {
                    format!("could not be started: {error}")
                }
                (_, true) => format!("ran longer than {} and was killed", seconds(limit)),
                (Some(error), false) => format!("exit code {}, {error}", end.exit_code),
                (None, false) => format!("exit code {}", end.exit_code),
            };
            self.log.system(0, &format!("healthcheck attempt {nth}: {how} ({took})")).await?;
            let pause = match health.failed(began, begun.elapsed()) {
                Verdict::Again(pause) => pause,
                verdict => {
                    let event = unhealthy(verdict, &health, &how, begun.elapsed(), &kept);
                    return Ok((event, Some(end.exit_code), kept));
                }
            };
            let stop = self.stop.clone();
            tokio::select! {
                slept = stop.guard(tokio::time::sleep(pause)) => slept?,
                () = Self::any_ended(&ended) => {}
            }
        }
    }
}

fn unhealthy(
    verdict: Verdict,
    health: &Health,
    how: &str,
    elapsed: Duration,
    kept: &Kept,
) -> Event {
    let attempts = health.attempts();
    let why = match verdict {
        Verdict::TooLate => format!("within its time ({})", seconds(elapsed)),
        Verdict::TooMany | Verdict::Again(_) => format!("in {attempts} attempts"),
    };
    Event::Failed {
        code: ReasonCode::HealthFailed,
        message: format!("the healthcheck did not pass {why}; the last attempt: {how}"),
        tail: Some(kept.tail.text()).filter(|tail| !tail.is_empty()),
    }
}
