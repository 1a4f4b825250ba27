//! Jobs from the work queue: one pull per free slot, nothing fetched ahead.
//!
//! The stream and its durable consumer are the bridge's to make, and to make again; until they are there
//! this waits. A pull lasts for a few seconds only and is always waited for, so that a job which arrives at
//! the last moment is given back at once instead of after its ack wait.

use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{Consumer, pull},
};
use futures::StreamExt as _;
use ovenbird_contract::{
    job::{self, Job},
    nats::{ConsumerSpec, DEFAULT_LANE, JOB_PROGRESS_EVERY, Names},
};
use tokio::time::{Duration, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

/// How long a pull waits at the server. The process cannot end sooner than this while it is idle.
const PULL: Duration = Duration::from_secs(2);
const PULL_GRACE: Duration = Duration::from_secs(2);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_LONGEST: Duration = Duration::from_secs(3);
/// A job that this runner cannot read may be for a newer one.
const UNREADABLE_AGAIN: Duration = Duration::from_secs(30);

/// A job that no host has room for comes again later each time, at the latest after this. The server hands out jobs that
/// come again before new ones, so without it enough of them would keep every other job from being seen; and a host that has
/// room again waits so long for one that waits alone.
const NO_ROOM_LONGEST: Duration = Duration::from_secs(30);

/// What becomes of a job's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is done with.
    Ack,
    /// Somebody is to try again, after this long.
    Again(Duration),
    /// No host has room: somebody is to try again, after this long the first time, and later each time.
    NoRoom(Duration),
}

/// A job that this runner holds.
#[derive(Debug)]
pub struct Taken {
    /// The job.
    pub job: Job,
    message: Message,
}

impl Taken {
    /// Does `work` while telling the server that the job is in progress, then settles the message.
    pub async fn settle(self, work: impl Future<Output = Verdict>) -> Verdict {
        let mut ticks =
            tokio::time::interval_at(Instant::now() + JOB_PROGRESS_EVERY, JOB_PROGRESS_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut work = std::pin::pin!(work);
        let verdict = loop {
            tokio::select! {
                verdict = &mut work => break verdict,
                _ = ticks.tick() => self.ack(AckKind::Progress).await,
            }
        };
        match verdict {
            Verdict::Ack => self.ack(AckKind::Ack).await,
            Verdict::Again(delay) => self.ack(AckKind::Nak(Some(delay))).await,
            Verdict::NoRoom(delay) => {
                let delay = no_room_delay(delay, self.deliveries());
                self.ack(AckKind::Nak(Some(delay))).await;
            }
        }
        verdict
    }

    /// How often the server has handed it out, this time included.
    fn deliveries(&self) -> i64 {
        self.message.info().map_or(1, |info| info.delivered)
    }

    /// An ack that is lost costs a redelivery, which the desk refuses.
    async fn ack(&self, kind: AckKind) {
        if let Err(error) = self.message.ack_with(kind).await {
            tracing::warn!(build.id = %self.job.build_id, %error, "job not acknowledged");
        }
    }
}

fn no_room_delay(first: Duration, deliveries: i64) -> Duration {
    let doublings = u32::try_from(deliveries.clamp(1, 11) - 1).unwrap_or(0);
    (first * 2u32.pow(doublings)).min(NO_ROOM_LONGEST.max(first))
}

/// The lane's queue, seen from one slot.
#[derive(Debug)]
pub struct Queue {
    jetstream: Context,
    spec: ConsumerSpec,
    consumer: Option<Consumer<pull::Config>>,
    /// Processes start in any order: the bridge makes the consumer in a moment.
    never_found: bool,
}

impl Queue {
    /// Lanes other than the default one have a durable of their own, named after them.
    pub fn new(jetstream: Context, names: &Names, lane: &str) -> Self {
        let mut spec = names.runners_consumer();
        if lane != DEFAULT_LANE {
            spec.durable = format!("{}-{lane}", spec.durable);
        }
        Self { jetstream, spec, consumer: None, never_found: true }
    }

    /// The next job; nothing once `stop` is cancelled.
    pub async fn next(&mut self, stop: &CancellationToken) -> Option<Taken> {
        let mut delay = RETRY_FIRST;
        loop {
            if stop.is_cancelled() {
                return None;
            }
            match self.pull().await {
                Ok(Some(message)) if stop.is_cancelled() => {
                    give_back(&message, AckKind::Nak(None)).await;
                    return None;
                }
                Ok(Some(message)) => {
                    if let Some(taken) = read(message).await {
                        return Some(taken);
                    }
                    delay = RETRY_FIRST;
                }
                Ok(None) => delay = RETRY_FIRST,
                Err(error) if self.never_found && delay < RETRY_LONGEST => {
                    tracing::info!(consumer = self.spec.durable, %error, "waiting for the queue");
                    self.pause(&mut delay, stop).await;
                }
                Err(error) => {
                    self.consumer = None;
                    tracing::warn!(consumer = self.spec.durable, %error, "cannot fetch jobs, trying again");
                    self.pause(&mut delay, stop).await;
                }
            }
        }
    }

    async fn pause(&self, delay: &mut Duration, stop: &CancellationToken) {
        tokio::select! {
            () = tokio::time::sleep(*delay) => {}
            () = stop.cancelled() => {}
        }
        *delay = (*delay * 2).min(RETRY_LONGEST);
    }

    async fn pull(&mut self) -> Result<Option<Message>, async_nats::Error> {
        if self.consumer.is_none() {
            let found = self
                .jetstream
                .get_consumer_from_stream(&self.spec.durable, &self.spec.stream)
                .await?;
            self.consumer = Some(found);
            self.never_found = false;
        }
        let Some(consumer) = &self.consumer else { return Ok(None) };
        let mut batch = consumer.batch().max_messages(1).expires(PULL).messages().await?;
        match tokio::time::timeout(PULL + PULL_GRACE, batch.next()).await {
            Ok(Some(message)) => message.map(Some),
            Ok(None) => Ok(None),
            // Neither a job nor the server's word that there is none: the consumer may be gone.
            Err(_) => Err("the server does not answer a pull".into()),
        }
    }
}

async fn read(message: Message) -> Option<Taken> {
    match serde_json::from_slice::<Job>(&message.payload) {
        Ok(job) if job.v == job::VERSION => Some(Taken { job, message }),
        Ok(job) => {
            tracing::warn!(build.id = %job.build_id, version = job.v, "job of another version given back");
            give_back(&message, AckKind::Nak(Some(UNREADABLE_AGAIN))).await;
            None
        }
        Err(error) => {
            tracing::error!(%error, "job that cannot be read is thrown away");
            give_back(&message, AckKind::Term).await;
            None
        }
    }
}

async fn give_back(message: &Message, kind: AckKind) {
    if let Err(error) = message.ack_with(kind).await {
        tracing::warn!(%error, "job not given back, its ack wait does it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_without_a_host_comes_again_later_each_time_but_not_ever_later() {
        let first = Duration::from_secs(2);
        let delays = [1, 2, 3, 4, 5, 6, i64::MAX].map(|nth| no_room_delay(first, nth).as_secs());
        assert_eq!(delays, [2, 4, 8, 16, 30, 30, 30]);
        let asked = Duration::from_secs(300);
        assert_eq!(no_room_delay(asked, 9), asked, "the desk knows better");
    }
}
