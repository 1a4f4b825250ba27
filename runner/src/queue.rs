//! Jobs from the work queue: one for each free slot, nothing fetched ahead.
//!
//! ```text
//!  next ─► ask the lanes in order, without waiting ─► a job
//!              │ none anywhere
//!              ▼
//!          wait at all lanes at once ─► the first job; what another lane still brings is given back at once
//! ```
//!
//! **Order.** A lane is first come, first served. The first lane goes before the others, but only
//! [`HIGH_IN_A_ROW`] times in a row: then a slot asks the others first. So of the jobs that a slot takes, every fourth is
//! of another lane as long as one waits there, and no lane starves.
//!
//! The stream and its durable consumers are the bridge's to make, and to make again; until they are there this waits. A
//! pull lasts for a few seconds only and is always waited for, so that a job which arrives at the last moment is given
//! back at once instead of after its ack wait.

use async_nats::jetstream::{
    AckKind, Context, Message,
    consumer::{Consumer, pull},
};
use futures::{StreamExt as _, future::select_all};
use ovenbird_contract::{
    job::{self, Job},
    nats::{ConsumerSpec, HIGH_IN_A_ROW, JOB_PROGRESS_EVERY, Names},
};
use tokio::time::{Duration, Instant, MissedTickBehavior, sleep_until, timeout, timeout_at};
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

/// The lanes' queues, seen from one slot.
pub struct Queue {
    lanes: Vec<Lane>,
    /// Jobs that came from the first lane one after the other.
    first_in_a_row: u32,
}

impl Queue {
    /// Over `lanes`, the one that goes before the others first.
    pub fn new(jetstream: &Context, names: &Names, lanes: &[String]) -> Self {
        let lane = |lane: &String| Lane::new(jetstream.clone(), names.runners_consumer_of(lane));
        Self { lanes: lanes.iter().map(lane).collect(), first_in_a_row: 0 }
    }

    /// The next job; nothing once `stop` is cancelled.
    pub async fn next(&mut self, stop: &CancellationToken) -> Option<Taken> {
        loop {
            if stop.is_cancelled() {
                self.close().await;
                return None;
            }
            let (at, message) = match self.ready().await {
                Some(found) => found,
                None => match self.wait(stop).await {
                    Some(found) => found,
                    None => continue,
                },
            };
            if stop.is_cancelled() {
                give_back(&message, AckKind::Nak(None)).await;
                continue;
            }
            if let Some(taken) = read(message).await {
                self.first_in_a_row = if at == 0 { self.first_in_a_row + 1 } else { 0 };
                return Some(taken);
            }
        }
    }

    /// Does `work`; what pulls that are still open bring meanwhile goes back at once.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            done = work => done,
            never = self.refuse() => match never {},
        }
    }

    async fn refuse(&mut self) -> std::convert::Infallible {
        self.close().await;
        std::future::pending().await
    }

    /// Waits for the end of pulls that are open, and gives back what they bring.
    async fn close(&mut self) {
        let closing = self.lanes.iter_mut().map(Lane::close);
        futures::future::join_all(closing).await;
    }

    /// A job that waits already, by the order of the lanes. One whose pull is open has none, or tells of it soon.
    async fn ready(&mut self) -> Option<(usize, Message)> {
        let first_waits = self.first_in_a_row >= HIGH_IN_A_ROW;
        let mut order: Vec<usize> = (0..self.lanes.len()).collect();
        order.rotate_left(usize::from(first_waits).min(self.lanes.len().saturating_sub(1)));
        for at in order {
            if let Some(message) = self.lanes[at].ready().await {
                return Some((at, message));
            }
        }
        // Nobody waits: whoever comes next has not been passed over.
        self.first_in_a_row = 0;
        None
    }

    /// The first job that any lane brings, for about as long as a pull lasts.
    async fn wait(&mut self, stop: &CancellationToken) -> Option<(usize, Message)> {
        if !self.lanes.iter().any(Lane::is_usable) {
            let until = self.lanes.iter().map(|lane| lane.again_at).min()?;
            let _ = timeout_at(until, stop.cancelled()).await;
            return None;
        }
        // All before any is waited for: a pull that is being opened must not be broken off.
        for lane in &mut self.lanes {
            lane.open().await;
        }
        let waiting = self.lanes.iter_mut().map(|lane| Box::pin(lane.wait()));
        let (message, at, _) = select_all(waiting).await;
        Some((at, message?))
    }
}

/// One lane's queue.
struct Lane {
    jetstream: Context,
    spec: ConsumerSpec,
    consumer: Option<Consumer<pull::Config>>,
    /// A pull that waits at the server, and when it must have ended.
    open: Option<(pull::Batch, Instant)>,
    /// Processes start in any order: the bridge makes the consumer in a moment.
    never_found: bool,
    delay: Duration,
    /// Not asked before.
    again_at: Instant,
}

impl Lane {
    fn new(jetstream: Context, spec: ConsumerSpec) -> Self {
        Self {
            jetstream,
            spec,
            consumer: None,
            open: None,
            never_found: true,
            delay: RETRY_FIRST,
            again_at: Instant::now(),
        }
    }

    fn is_usable(&self) -> bool {
        Instant::now() >= self.again_at
    }

    /// A job that waits already.
    async fn ready(&mut self) -> Option<Message> {
        if !self.is_usable() || self.open.is_some() {
            return None;
        }
        let asked = self.ask().await;
        self.outcome(asked)
    }

    async fn ask(&mut self) -> Result<Option<Message>, async_nats::Error> {
        let consumer = self.consumer().await?;
        let mut batch = consumer.fetch().max_messages(1).messages().await?;
        answer(timeout(PULL_GRACE, batch.next()).await)
    }

    /// The next job, or nothing after a while; dropped, the pull stays open. A lane that cannot be asked is silent until
    /// it can be again.
    async fn wait(&mut self) -> Option<Message> {
        let Some((batch, until)) = &mut self.open else {
            sleep_until(self.again_at).await;
            return None;
        };
        let brought = timeout_at(*until, batch.next()).await;
        self.open = None;
        self.outcome(answer(brought))
    }

    /// Has a pull wait at the server, if the lane can be asked.
    async fn open(&mut self) {
        if !self.is_usable() || self.open.is_some() {
            return;
        }
        match self.pull().await {
            Ok(batch) => self.open = Some((batch, Instant::now() + PULL + PULL_GRACE)),
            Err(error) => drop(self.outcome(Err(error))),
        }
    }

    async fn pull(&mut self) -> Result<pull::Batch, async_nats::Error> {
        let consumer = self.consumer().await?;
        Ok(consumer.batch().max_messages(1).expires(PULL).messages().await?)
    }

    /// Waits for the end of a pull that is open, and gives back what it brings.
    async fn close(&mut self) {
        let Some((batch, until)) = &mut self.open else { return };
        if let Ok(Some(Ok(message))) = timeout_at(*until, batch.next()).await {
            give_back(&message, AckKind::Nak(None)).await;
        }
        self.open = None;
    }

    async fn consumer(&mut self) -> Result<&Consumer<pull::Config>, async_nats::Error> {
        let consumer = match self.consumer.take() {
            Some(consumer) => consumer,
            None => {
                let ConsumerSpec { durable, stream, .. } = &self.spec;
                self.jetstream.get_consumer_from_stream(durable, stream).await?
            }
        };
        self.never_found = false;
        Ok(self.consumer.insert(consumer))
    }

    /// What was found; a failure is told, and the lane left alone for a while.
    fn outcome(&mut self, asked: Result<Option<Message>, async_nats::Error>) -> Option<Message> {
        match asked {
            Ok(found) => {
                self.delay = RETRY_FIRST;
                return found;
            }
            Err(error) if self.never_found && self.delay < RETRY_LONGEST => {
                tracing::info!(consumer = self.spec.durable, %error, "waiting for the queue");
            }
            Err(error) => {
                self.consumer = None;
                tracing::warn!(consumer = self.spec.durable, %error, "cannot fetch jobs, trying again");
            }
        }
        self.again_at = Instant::now() + self.delay;
        self.delay = (self.delay * 2).min(RETRY_LONGEST);
        None
    }
}

/// Neither a job nor the server's word that there is none: the consumer may be gone.
fn answer<E: Into<async_nats::Error>>(
    brought: Result<Option<Result<Message, E>>, tokio::time::error::Elapsed>,
) -> Result<Option<Message>, async_nats::Error> {
    match brought {
        Ok(Some(message)) => message.map(Some).map_err(Into::into),
        Ok(None) => Ok(None),
        Err(_) => Err("the server does not answer a pull".into()),
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
