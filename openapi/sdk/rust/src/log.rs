//! Following a log over server-sent events, through broken connections.

use std::{pin::Pin, time::Duration};

use eventsource_stream::{Event, Eventsource as _};
use futures::{Stream, StreamExt as _};

use crate::{
    Error,
    error::{Passing, judge},
    rest::{Client, types::LogRecord},
};

/// Tries in a row without a record.
const TRIES_MAX: u32 = 10;
/// Between two tries, at first and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

type Events = Pin<Box<dyn Stream<Item = Result<Event, Passing>> + Send>>;

/// A build's log as it is written, each record once and in order.
pub struct Log<'c> {
    client: &'c Client,
    build: String,
    last: u64,
    ended: bool,
    events: Option<Events>,
    tries: u32,
}

impl std::fmt::Debug for Log<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Log").field("build", &self.build).field("last", &self.last).finish()
    }
}

impl<'c> Log<'c> {
    /// The log of `build` after the record `after`; 0 is from the start.
    pub fn follow(client: &'c Client, build: &str, after: u64) -> Self {
        Self { client, build: build.to_owned(), last: after, ended: false, events: None, tries: 0 }
    }

    /// The next record, as soon as it is written; none after the one that has `end`. May be dropped and called again.
    ///
    /// # Errors
    /// [`Error::Refused`] when the key may not read this log; [`Error::Unreachable`] after ten tries in a row without
    /// a record.
    pub async fn next(&mut self) -> Result<Option<LogRecord>, Error> {
        while !self.ended {
            let Some(events) = &mut self.events else {
                match self.open().await? {
                    Opened::Events(events) => self.events = Some(events),
                    Opened::Over => self.ended = true,
                    Opened::Not(passing) => self.pause(passing).await?,
                }
                continue;
            };
            let event = match events.next().await {
                // One that is called `error` says why the server ends the stream.
                Some(Ok(event)) if event.event == "error" => Err(Passing(event.data)),
                // One without data only says when to come back.
                Some(Ok(event)) if event.data.is_empty() => continue,
                Some(Ok(event)) => Ok(event),
                Some(Err(passing)) => Err(passing),
                None => Err(Passing("the stream ended before the log".to_owned())),
            };
            match event {
                Ok(event) => {
                    let record: LogRecord =
                        serde_json::from_str(&event.data).map_err(Error::Record)?;
                    self.last = record.seq.get();
                    self.ended = record.end.is_some();
                    self.tries = 0;
                    return Ok(Some(record));
                }
                Err(passing) => {
                    self.events = None;
                    self.pause(passing).await?;
                }
            }
        }
        Ok(None)
    }

    async fn open(&self) -> Result<Opened, Error> {
        let request =
            self.client.build_logs_stream().id(self.build.as_str()).last_event_id(self.last);
        Ok(match request.send().await {
            Ok(answer) => {
                let bytes = answer.into_inner_stream();
                let events = bytes.eventsource();
                Opened::Events(Box::pin(
                    events.map(|event| event.map_err(|error| Passing(error.to_string()))),
                ))
            }
            Err(error) if error.status().is_some_and(|it| it.as_u16() == 204) => Opened::Over,
            Err(error) => Opened::Not(judge(error)?),
        })
    }

    async fn pause(&mut self, passing: Passing) -> Result<(), Error> {
        self.tries += 1;
        if self.tries == TRIES_MAX {
            return Err(Error::Unreachable { tries: self.tries, last: passing.0 });
        }
        let pause = (PAUSES.0 * 2u32.pow(self.tries - 1)).min(PAUSES.1);
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

enum Opened {
    Events(Events),
    Over,
    Not(Passing),
}
