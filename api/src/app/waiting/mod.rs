//! The queue as people see it: who waits, at which place, for what, and until when. Nothing here moves a build.

mod forecast;

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use ovenbird_contract::nats::{DEFAULT_LANE, HIGH_LANE};
use ovenbird_db::store::{
    build_admin::After,
    queue::{Counts, Waiting},
};
use uuid::Uuid;

use self::forecast::forecast;
use super::{
    App, Error,
    keys::Caller,
    page::{self, Page},
};

/// Builds that a forecast looks at: as many that run, and as many that wait. Behind them nothing is foretold.
const AHEAD_MAX: u32 = 1_000;
/// Builds of a name whose durations a forecast is made from.
const LAST_BUILDS: u32 = 5;

/// Why a build waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its base template is deleted: it will never start.
    BaseDeleted,
    /// No host that takes builds and has the labels that it asks for holds its base template.
    NoHost,
    /// Its key has as many builds running as it may.
    KeyLimit,
    /// The hosts that hold it are full.
    NoRoom,
    /// Its job is not in the work queue yet.
    NotRelayed,
    /// Every slot of the runners is taken, or will be by those before it.
    NoRunner,
    /// Nothing holds it up: a runner is about to take it.
    Next,
    /// NATS does not say whether a runner is free.
    Unknown,
}

/// A build that waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Waits {
    /// The build and its place.
    pub build: Waiting,
    /// Why.
    pub why: Why,
    /// When it will probably have ended; absent when nobody can know.
    pub eta: Option<DateTime<Utc>>,
}

/// The queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// How many wait and how many run.
    pub counts: Counts,
    /// Slots of runners that wait for a build, where NATS says so.
    pub free: Option<usize>,
    /// Those that wait, as far as the caller sees them.
    pub page: Page<Waits>,
}

impl App {
    /// The queue, and a page of the builds in it that `caller` sees, the one that waits longest first.
    ///
    /// # Errors
    /// A cursor that is none; Postgres.
    pub async fn queue_get(
        &self,
        caller: &Caller,
        cursor: Option<&str>,
        limit: u32,
    ) -> Result<Queue, Error> {
        let after = cursor.map(page::decode).transpose()?;
        let only = caller.sees();
        let rows = self.store.queue_page(only.as_deref(), after, u64::from(limit) + 1).await?;
        let page = Page::of(rows, limit, |row| After { created_at: row.queued_at, id: row.id });
        let counts = self.store.queue_counts().await?;
        let (free, free_high) =
            tokio::join!(self.slots.free(DEFAULT_LANE), self.slots.free(HIGH_LANE));
        let ends = match free {
            Some(free) if !page.items.is_empty() => self.queue_ends(free).await?,
            _ => HashMap::new(),
        };
        let items = page.items.into_iter().map(|build| {
            let free = if build.job_lane == HIGH_LANE { free_high } else { free };
            Waits { why: why(&build, free), eta: ends.get(&build.id).copied(), build }
        });
        Ok(Queue { counts, free, page: Page { items: items.collect(), next: page.next } })
    }

    /// When the builds that wait for a slot will probably have ended.
    async fn queue_ends(&self, free: usize) -> Result<HashMap<Uuid, DateTime<Utc>>, Error> {
        let ahead = self.store.queue_ahead(AHEAD_MAX).await?;
        let mut names: Vec<&str> = ahead.iter().map(|build| build.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let took = self.store.build_durations(&names, LAST_BUILDS).await?;
        Ok(forecast(&ahead, &took, free, Utc::now()))
    }
}

/// What the claim would refuse comes first: another runner would not help then.
fn why(build: &Waiting, free: Option<usize>) -> Why {
    let place = usize::try_from(build.position).unwrap_or(usize::MAX);
    match free {
        _ if !build.has_base => Why::BaseDeleted,
        _ if build.hosts == 0 => Why::NoHost,
        _ if build.held => Why::KeyLimit,
        _ if !build.fits => Why::NoRoom,
        _ if !build.relayed => Why::NotRelayed,
        None => Why::Unknown,
        Some(free) if place > free => Why::NoRunner,
        Some(_) => Why::Next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_waits_for_what_would_hold_it_up_first() {
        let build = Waiting {
            id: Uuid::nil(),
            name: "web".into(),
            tag: "latest".into(),
            lane: DEFAULT_LANE.into(),
            job_lane: DEFAULT_LANE.into(),
            position: 2,
            queued_at: DateTime::UNIX_EPOCH,
            relayed: true,
            held: false,
            has_base: true,
            hosts: 1,
            fits: true,
        };
        let told = |change: fn(&mut Waiting), free| {
            let mut build = build.clone();
            change(&mut build);
            why(&build, free)
        };
        assert_eq!(told(|_| {}, Some(2)), Why::Next);
        assert_eq!(told(|_| {}, Some(1)), Why::NoRunner);
        assert_eq!(told(|_| {}, None), Why::Unknown);
        assert_eq!(told(|it| it.relayed = false, Some(0)), Why::NotRelayed);
        assert_eq!(told(|it| it.fits = false, Some(0)), Why::NoRoom);
        assert_eq!(told(|it| (it.fits, it.held) = (false, true), Some(9)), Why::KeyLimit);
        assert_eq!(told(|it| (it.held, it.hosts) = (true, 0), Some(9)), Why::NoHost);
        assert_eq!(told(|it| (it.hosts, it.has_base) = (0, false), None), Why::BaseDeleted);
    }
}
