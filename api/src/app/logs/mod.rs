//! Reading a build's log: one sequence of records from three places.
//!
//! ```text
//!   Postgres chunks ────────► stream LOGS ─────────────► core subscription
//!   everything the ledger     from the chunks' stream    from the moment somebody follows
//!   has stored                sequence on
//! ```
//!
//! [`history`] reads the first two, [`follow`] adds the third. They are joined by `seq` alone: a record
//! that was seen is dropped, a record that is missing is fetched from the two durable places. What is in
//! neither is lost, and the log goes on after it with a warning. Nothing here writes.

mod follow;
mod history;
mod tail;

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions, Event, jetstream};
use ovenbird_contract::{
    id::{BuildId, KeyId},
    log::{Record, Stream},
    nats::Names,
    nats_access::Role,
};
use ovenbird_db::{Store, entity::template_build};
use ovenbird_kit::{Secret, telemetry};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use follow::{Follower, Item};

use self::history::History;
use super::{
    App, Error,
    keys::Caller,
    places::{Place, Places},
};
use crate::{config, nats::Server};

/// Records of a page when the client names no number.
pub const PAGE_DEFAULT: u32 = 1_000;
/// Most records of a page.
pub const PAGE_MAX: u32 = 10_000;
/// A page ends at this many bytes of text, so that records of 16 KiB do not make it huge.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Records that one page looks at when a filter hides most of them.
const PAGE_SCANNED: usize = 50_000;
/// A JetStream request is answered in this time, or NATS is away.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// Messages that wait for one reader. What is dropped here is read again from the stream.
const SUBSCRIPTION_MESSAGES: usize = 256;

/// Which records to show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only of this step.
    pub step: Option<u32>,
    /// Only from there.
    pub stream: Option<Stream>,
}

impl Filter {
    /// The terminal record always passes: it says that nothing follows.
    fn passes(self, record: &Record) -> bool {
        match record {
            Record::End(_) => true,
            Record::Line(line) => {
                self.step.is_none_or(|step| line.step == step)
                    && self.stream.is_none_or(|stream| line.stream == stream)
            }
        }
    }
}

/// Records of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// In order.
    pub records: Vec<Record>,
    /// The first record that was not looked at.
    pub next_seq: u64,
}

/// Reads logs. Owns the process's connection to NATS.
#[derive(Debug)]
pub struct Reader {
    store: Store,
    client: Client,
    jetstream: jetstream::Context,
    names: Names,
    limits: config::Logs,
    /// Counts connections to NATS: after a new one something may have been missed.
    connections: watch::Receiver<u64>,
    followers: Places,
    stopping: CancellationToken,
}

impl Reader {
    /// A reader whose NATS need not be there yet: it is connected to as soon as it is. Streams of
    /// followers end when `stopping` is cancelled.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub(crate) async fn connect(
        server: &Server,
        nkey: Option<Secret<String>>,
        names: Names,
        store: Store,
        limits: config::Logs,
        stopping: CancellationToken,
    ) -> Result<Self, async_nats::ConnectError> {
        let (connected, connections) = watch::channel(0);
        let connected = Arc::new(connected);
        let mut options = ConnectOptions::new()
            .name("ovenbird-api")
            .custom_inbox_prefix(Role::Api.inbox_prefix())
            .subscription_capacity(SUBSCRIPTION_MESSAGES)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .event_callback(move |event| {
                let connected = Arc::clone(&connected);
                async move {
                    match event {
                        Event::Connected => connected.send_modify(|count| *count += 1),
                        // A reader that lags reads again from the stream.
                        Event::SlowConsumer(_) => tracing::debug!("a log reader lags"),
                        other => tracing::warn!(event = %other, "NATS connection"),
                    }
                }
            });
        if let Some(seed) = nkey {
            options = options.nkey(seed.expose().clone());
        }
        let client = server.connect(options).await?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_TIMEOUT);
        let followers = Places::new(limits.streams_max, limits.streams_of_one_key_max);
        Ok(Self { store, client, jetstream, names, limits, connections, followers, stopping })
    }

    /// What a watcher of builds with `key` needs: the connection, its subject, a place among the streams that this process
    /// serves, and the end of them.
    pub(super) fn watcher(
        &self,
        key: KeyId,
    ) -> Result<(&Client, String, Place, CancellationToken), Error> {
        let place = self.followers.take(key).ok_or(Error::TooManyStreams)?;
        let subject = self.names.events_stream().subjects.swap_remove(0);
        Ok((&self.client, subject, place, self.stopping.clone()))
    }

    /// Streams of this process that are open now.
    pub fn streams_open(&self) -> usize {
        self.followers.taken()
    }

    /// The process's connection to NATS.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether NATS answers, and with it JetStream.
    pub(super) async fn ping(&self) -> Result<(), async_nats::jetstream::context::AccountError> {
        self.jetstream.query_account().await.map(drop)
    }

    async fn page(
        &self,
        build: &template_build::Model,
        from_seq: u64,
        limit: u32,
        filter: Filter,
    ) -> Result<LogPage, Error> {
        let id = BuildId::from_uuid(build.id);
        let mut history = History::new(self, id, from_seq.max(1));
        let mut page = LogPage { records: Vec::new(), next_seq: from_seq.max(1) };
        let (mut bytes, mut scanned) = (0, 0);
        loop {
            let run = match history.run().await {
                Ok(Some(run)) => run,
                Ok(None) => break,
                // What was read is true. Who goes on is told why there is no more.
                Err(error @ Error::Unavailable { .. }) if scanned > 0 => {
                    tracing::warn!(
                        error = telemetry::chain(&error),
                        "a page ends where its log cannot be read now"
                    );
                    return Ok(page);
                }
                Err(error) => return Err(error),
            };
            for record in run {
                page.next_seq = record.seq() + 1;
                scanned += 1;
                if filter.passes(&record) {
                    bytes += text_len(&record);
                    page.records.push(record);
                }
                let full = page.records.len() >= limit as usize;
                if full || bytes >= PAGE_BYTES || scanned >= PAGE_SCANNED {
                    history.close().await;
                    return Ok(page);
                }
            }
        }
        // Who asks from further on has records that NATS lost, and is to know that there are no more.
        let status = build.status.parse().ok().filter(|_| build.log_end_written);
        if let Some(status) = status
            && page.records.is_empty()
            && from_seq > build.log_seq.unsigned_abs() + 1
        {
            page.records.push(Record::end(from_seq, status));
            page.next_seq = from_seq + 1;
        }
        Ok(page)
    }
}

fn text_len(record: &Record) -> usize {
    match record {
        Record::Line(line) => line.text.len() + line.data.as_ref().map_or(0, String::len),
        Record::End(_) => 0,
    }
}

impl App {
    /// Records of a build that `caller` sees, from `from_seq` on.
    ///
    /// # Errors
    /// [`Error::NotFound`]; Postgres or NATS.
    pub async fn log_page(
        &self,
        caller: &Caller,
        id: BuildId,
        from_seq: u64,
        limit: u32,
        filter: Filter,
    ) -> Result<LogPage, Error> {
        let found = self.build_get(caller, id).await?;
        self.logs.page(&found.build, from_seq, limit, filter).await
    }

    /// Follows the log of a build that `caller` sees, from `from_seq` on; `None` when the log is over
    /// before that.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooManyStreams`]; Postgres. NATS may come later.
    pub async fn log_follow(
        &self,
        caller: &Caller,
        id: BuildId,
        from_seq: u64,
    ) -> Result<Option<Follower>, Error> {
        let build = self.build_get(caller, id).await?.build;
        if build.log_end_written && from_seq > build.log_seq.unsigned_abs() {
            return Ok(None);
        }
        Arc::clone(&self.logs).follow(caller.key, id, from_seq.max(1)).map(Some)
    }
}
