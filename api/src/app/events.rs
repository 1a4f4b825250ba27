//! Builds as they change, for whoever watches the list.
//!
//! A message on NATS says only that a build moved. What is told is its row, read a moment later, when the ledger has
//! had the time to write it, and once more after a while, in case it had not: so nobody is told what the API does not
//! answer yet. Messages may be lost here; whoever watches reads the list now and then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::Subscriber;
use futures::StreamExt as _;
use ovenbird_contract::id::BuildId;
use ovenbird_db::entity::template_build;
use ovenbird_kit::telemetry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{App, Error, keys::Caller, places::Place};

/// After a message the row is read so late; what comes meanwhile is told by the same reading.
const SOON: Duration = Duration::from_millis(200);
/// After the last message of a build its row is read once more.
const LATER: Duration = Duration::from_millis(1_500);
/// Builds that wait to be read; what is beyond is found by the list.
const DUE_MAX: usize = 512;

/// When a build's row is to be read.
#[derive(Debug, Clone, Copy)]
struct Due {
    soon: Option<Instant>,
    later: Instant,
}

impl Due {
    fn next(self) -> Instant {
        self.soon.unwrap_or(self.later)
    }
}

/// The builds that `caller` sees, each time one changed.
#[derive(Debug)]
pub struct Changes {
    app: Arc<App>,
    caller: Caller,
    subscriber: Subscriber,
    due: BTreeMap<BuildId, Due>,
    stopping: CancellationToken,
    _place: Place,
}

impl Changes {
    /// The next build that changed; `None` when this process stops.
    pub async fn next(&mut self) -> Option<template_build::Model> {
        loop {
            let first = self.due.iter().map(|(id, due)| (due.next(), *id)).min();
            let wake = first.map_or_else(|| Instant::now() + LATER, |(at, _)| at);
            tokio::select! {
                () = self.stopping.cancelled() => return None,
                message = self.subscriber.next() => self.note(&message?.subject),
                () = tokio::time::sleep_until(wake) => {
                    let Some((_, id)) = first else { continue };
                    // Noted as read only afterwards: whoever waits here may give up in between.
                    let build = self.read(id).await;
                    self.settle(id);
                    if build.is_some() {
                        return build;
                    }
                }
            }
        }
    }

    fn note(&mut self, subject: &str) {
        let Some(id) = subject.rsplit('.').next().and_then(|id| id.parse().ok()) else { return };
        let now = Instant::now();
        let is_full = self.due.len() >= DUE_MAX;
        match self.due.get_mut(&id) {
            Some(due) => {
                due.soon.get_or_insert(now + SOON);
                due.later = now + LATER;
            }
            None if is_full => {}
            None => {
                self.due.insert(id, Due { soon: Some(now + SOON), later: now + LATER });
            }
        }
    }

    fn settle(&mut self, id: BuildId) {
        let is_done = self.due.get_mut(&id).is_some_and(|due| due.soon.take().is_none());
        if is_done {
            self.due.remove(&id);
        }
    }

    async fn read(&self, id: BuildId) -> Option<template_build::Model> {
        // `None` for another key's.
        match self.app.store.build_brief(id, self.caller.sees().as_deref()).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error = telemetry::chain(&error), "a change of a build is not told");
                None
            }
        }
    }
}

impl App {
    /// Watches the builds that `caller` sees.
    ///
    /// # Errors
    /// [`Error::TooManyStreams`]; NATS, when it takes no subscription.
    pub async fn build_watch(self: &Arc<Self>, caller: Caller) -> Result<Changes, Error> {
        let (client, subject, place, stopping) = self.logs.watcher(caller.key)?;
        let subscriber = client
            .subscribe(subject)
            .await
            .map_err(|error| Error::internal("listening to events", error))?;
        Ok(Changes {
            app: Arc::clone(self),
            caller,
            subscriber,
            due: BTreeMap::new(),
            stopping,
            _place: place,
        })
    }
}
