//! Following a log over NATS: what was before comes from REST, and both are joined by `seq`.
//!
//! ```text
//!  subscribe ─► pages of REST until one is empty ─► messages of NATS ─► the record that has `end`
//!                         ▲                               │
//!                         └── a `seq` is missing, or ─────┘
//!                             nothing came for a while
//! ```
//!
//! NATS tells a subscriber only what comes after its subscription, and keeps nothing for one that was away. What REST
//! leaves out is lost, and the log goes on after it.

use std::{collections::VecDeque, time::Duration};

use futures::StreamExt as _;
use serde::Deserialize;

use crate::{
    Error,
    error::{Passing, judge},
    rest::{self, Client, types::LogRecord},
};

/// A subscription may take effect after the first page was read, and the last message be lost: so silence is not trusted.
const SILENCE_MAX: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(200);
/// Failed or fruitless reads in a row.
const TRIES_MAX: u32 = 20;

/// A connection to NATS with an API key.
///
/// # Errors
/// [`Error::Nats`] when it is refused.
pub async fn connect(url: &str, key: &str) -> Result<async_nats::Client, Error> {
    async_nats::ConnectOptions::with_token(key.to_owned())
        .connect(url)
        .await
        .map_err(|error| Error::Nats(error.to_string()))
}

/// A build's log as it is written, each record once and in order. A record whose `seq` is not the next one comes after
/// records that are lost; where the last line is, the end has its `seq`.
#[derive(Debug)]
pub struct Live<'c> {
    client: &'c Client,
    build: String,
    messages: async_nats::Subscriber,
    waiting: VecDeque<LogRecord>,
    /// Those that wait come from REST.
    is_stored: bool,
    began: u64,
    last: u64,
    /// REST may have records that NATS did not tell.
    is_behind: bool,
    tries: u32,
    ended: bool,
}

#[derive(Deserialize)]
struct Batch {
    records: Vec<LogRecord>,
}

impl<'c> Live<'c> {
    /// The log of `build` after the record `after`; 0 is from the start.
    ///
    /// # Errors
    /// [`Error::Nats`] when the connection is closed.
    pub async fn follow(
        client: &'c Client,
        nats: &async_nats::Client,
        build: &str,
        after: u64,
    ) -> Result<Self, Error> {
        let subject = format!("ovenbird.logs.{build}");
        let messages =
            nats.subscribe(subject).await.map_err(|error| Error::Nats(error.to_string()))?;
        nats.flush().await.map_err(|error| Error::Nats(error.to_string()))?;
        Ok(Self {
            client,
            build: build.to_owned(),
            messages,
            waiting: VecDeque::new(),
            is_stored: false,
            began: after,
            last: after,
            is_behind: true,
            tries: 0,
            ended: false,
        })
    }

    /// The next record, as soon as it is written; none after the one that has `end`, and none at all where the log has
    /// ended at the place asked for. May be dropped and called again.
    ///
    /// # Errors
    /// [`Error::Refused`] when the key may not read this log; [`Error::Nats`] when the connection was closed;
    /// [`Error::Unreachable`] when REST does not answer.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        while !self.ended {
            if let Some(record) = self.waiting.pop_front() {
                let seq = record.seq.get();
                // What is stored has a hole only where records are lost.
                if seq == self.last + 1 || (self.is_stored && seq > self.last) {
                    self.last = seq;
                    self.ended = record.end.is_some();
                    self.tries = 0;
                    return Ok(Some(record));
                }
                if seq > self.last {
                    // What is dropped here REST tells again.
                    self.waiting.clear();
                    self.is_behind = true;
                    self.count(Passing(format!("record {} is missing", self.last + 1)))?;
                } else if self.is_stored && record.end.is_some() {
                    // The log has ended here: who came from here has its end, others a line in its place, which is
                    // lost.
                    self.ended = true;
                    if self.last > self.began {
                        return Ok(Some(record));
                    }
                }
            } else if self.is_behind {
                self.read_page().await?;
            } else {
                match tokio::time::timeout(SILENCE_MAX, self.messages.next()).await {
                    Ok(Some(message)) => {
                        let batch: Batch =
                            serde_json::from_slice(&message.payload).map_err(Error::Record)?;
                        self.is_stored = false;
                        self.waiting.extend(batch.records);
                    }
                    Ok(None) => return Err(Error::Nats("the subscription was closed".to_owned())),
                    Err(_) => self.is_behind = true,
                }
            }
        }
        Ok(None)
    }

    /// Takes what REST has after the last record, and the one of its number if it ends the log.
    async fn read_page(&mut self) -> Result<(), Error> {
        match self.page().await {
            Ok(records) => {
                self.is_behind = !records.is_empty();
                self.is_stored = self.is_behind;
                self.waiting.extend(records);
                // The missing record is on its way to where REST reads.
                if !self.is_behind && self.tries > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Err(error) => {
                self.count(judge(error)?)?;
                tokio::time::sleep(PAUSE).await;
            }
        }
        Ok(())
    }

    async fn page(&self) -> Result<Vec<LogRecord>, rest::Error<rest::types::Error>> {
        let page = || self.client.build_logs().id(self.build.as_str());
        let mut records = page().from_seq(self.last.max(1)).send().await?.into_inner().records;
        if records.is_empty() && self.last > 0 {
            // It may have ended before this number.
            records = page().from_seq(self.last + 1).send().await?.into_inner().records;
        }
        records.retain(|record| record.seq.get() > self.last || record.end.is_some());
        Ok(records)
    }

    fn count(&mut self, passing: Passing) -> Result<(), Error> {
        self.tries += 1;
        if self.tries == TRIES_MAX {
            return Err(Error::Unreachable { tries: self.tries, last: passing.0 });
        }
        Ok(())
    }
}
