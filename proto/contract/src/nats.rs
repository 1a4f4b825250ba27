//! Subjects, streams and consumers. The one place where their names and settings stand; a process
//! turns [`StreamSpec`] and [`ConsumerSpec`] into its client's types.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE};

use crate::id::BuildId;

/// Header with which a log publish names the stream sequence of the last message on its subject.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// Queue group of the desk.
pub const DESK_QUEUE: &str = "desk";
/// Queue group of the bridges on the control subjects.
pub const CONTROL_QUEUE: &str = "bridge";
/// The durable consumer of the default lane, that all its runners share (KEDA reads its lag by this name). That of
/// another lane has the lane's name behind it: `runners-high`.
pub const RUNNERS_DURABLE: &str = "runners";
/// The bridges' durable consumer on `LOGS` and on `EVENTS`.
pub const LEDGER_DURABLE: &str = "ledger";
/// The lane of a build that names none.
pub const DEFAULT_LANE: &str = "default";
/// The lane of builds that are not to wait behind the others.
pub const HIGH_LANE: &str = "high";
/// Every lane. Within one the first that came is the first that goes.
pub const LANES: [&str; 2] = [DEFAULT_LANE, HIGH_LANE];
/// Jobs of the high lane that a slot of a runner takes one after the other while a job of another lane waits. The next
/// one is of the other lane, so that none starves.
pub const HIGH_IN_A_ROW: u32 = 3;
/// A job goes back to the queue when no ack or in-progress mark came for this long.
pub const JOB_ACK_WAIT: Duration = Duration::from_secs(30);
/// How often a runner marks its job as in progress.
pub const JOB_PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// How long a stream keeps a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Until it is acknowledged.
    WorkQueue,
    /// Until it is removed. What an object store needs comes with it: the last message of a subject can be asked for, and
    /// a newer one can replace all before it.
    Objects,
    /// For this long.
    Age(Duration),
}

/// A JetStream stream, in file storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// Its name.
    pub name: String,
    /// The subjects it captures.
    pub subjects: Vec<String>,
    /// How long messages stay.
    pub retention: Retention,
    /// A repeated `Nats-Msg-Id` is dropped within this time.
    pub duplicate_window: Duration,
    /// Largest message, in bytes.
    pub max_message_bytes: i32,
}

/// A durable pull consumer with explicit acks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// The stream it reads.
    pub stream: String,
    /// The only subject that it reads; `None` for all of the stream.
    pub subject: Option<String>,
    /// Its durable name.
    pub durable: String,
    /// Redelivery after this long without ack.
    pub ack_wait: Duration,
    /// Most messages out at once.
    pub max_ack_pending: i64,
}

/// Names of one installation: subjects start with its prefix, streams with its upper-case form unless
/// the prefix is the default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Default for Names {
    fn default() -> Self {
        Self::new("ovenbird")
    }
}

impl Names {
    /// Names under `prefix` (one subject token: letters, digits, `-`, `_`).
    pub fn new(prefix: impl Into<String>) -> Self {
        Self { prefix: prefix.into() }
    }

    fn stream(&self, name: &str) -> String {
        if self.prefix == "ovenbird" {
            name.to_owned()
        } else {
            format!("{}_{name}", self.prefix.to_uppercase())
        }
    }

    /// Where jobs of a lane are published.
    pub fn builds(&self, lane: &str) -> String {
        format!("{}.builds.{lane}", self.prefix)
    }

    /// A build's log.
    pub fn logs(&self, build: &BuildId) -> String {
        format!("{}.logs.{build}", self.prefix)
    }

    /// The logs of all builds.
    pub fn logs_all(&self) -> String {
        format!("{}.logs.*", self.prefix)
    }

    /// A build's events.
    pub fn events(&self, build: &BuildId) -> String {
        format!("{}.events.build.{build}", self.prefix)
    }

    /// The events of all builds.
    pub fn events_all(&self) -> String {
        format!("{}.events.build.*", self.prefix)
    }

    /// Everything that customers can hear.
    pub fn read_by_customers(&self) -> [String; 2] {
        [self.logs_all(), self.events_all()]
    }

    /// The desk's call `verb`: claim, renew, finish, release, hear.
    pub fn desk(&self, verb: &str) -> String {
        format!("{}.desk.{verb}", self.prefix)
    }

    /// What the runner of a build must hear at once.
    pub fn control(&self, build: &BuildId) -> String {
        format!("{}.control.build.{build}", self.prefix)
    }

    /// The control subjects of all builds.
    pub fn control_all(&self) -> String {
        format!("{}.control.build.*", self.prefix)
    }

    /// The work queue.
    pub fn builds_stream(&self) -> StreamSpec {
        StreamSpec {
            name: self.stream("BUILDS"),
            subjects: vec![format!("{}.builds.*", self.prefix)],
            retention: Retention::WorkQueue,
            duplicate_window: Duration::from_secs(120),
            max_message_bytes: 16 * 1024,
        }
    }

    /// The logs. A message is at most a batch of 16 KiB of text; JSON escapes and base64 may grow it.
    pub fn logs_stream(&self) -> StreamSpec {
        StreamSpec {
            name: self.stream("LOGS"),
            subjects: vec![self.logs_all()],
            retention: Retention::Age(Duration::from_secs(72 * 3600)),
            duplicate_window: Duration::from_secs(120),
            max_message_bytes: 512 * 1024,
        }
    }

    /// The events.
    pub fn events_stream(&self) -> StreamSpec {
        StreamSpec {
            name: self.stream("EVENTS"),
            subjects: vec![self.events_all()],
            retention: Retention::Age(Duration::from_secs(7 * 24 * 3600)),
            duplicate_window: Duration::from_secs(120),
            max_message_bytes: 256 * 1024,
        }
    }

    /// The object store of COPY contexts.
    pub fn contexts_bucket(&self) -> String {
        self.stream("CONTEXTS")
    }

    /// The stream behind the object store, as clients of NATS know one.
    pub fn contexts_stream(&self) -> StreamSpec {
        let bucket = self.contexts_bucket();
        StreamSpec {
            name: format!("OBJ_{bucket}"),
            subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
            retention: Retention::Objects,
            duplicate_window: Duration::from_secs(120),
            max_message_bytes: 1024 * 1024,
        }
    }

    /// Where the object store says what it has of a context: its name in base64, for URLs.
    pub fn context_meta(&self, digest: &str) -> String {
        format!("$O.{}.M.{}", self.contexts_bucket(), URL_SAFE.encode(digest))
    }

    /// Where the object store has the chunks of an object with this nuid.
    pub fn context_chunks(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.contexts_bucket())
    }

    /// The durable that runners pull the jobs of the default lane from.
    pub fn runners_consumer(&self) -> ConsumerSpec {
        self.runners_consumer_of(DEFAULT_LANE)
    }

    /// Those of all lanes, in the order of [`LANES`].
    pub fn runners_consumers(&self) -> [ConsumerSpec; 2] {
        LANES.map(|lane| self.runners_consumer_of(lane))
    }

    /// The durable that runners pull the jobs of a lane from. A work queue takes two consumers only where no message
    /// is for both.
    pub fn runners_consumer_of(&self, lane: &str) -> ConsumerSpec {
        ConsumerSpec {
            stream: self.stream("BUILDS"),
            subject: Some(self.builds(lane)),
            durable: runners_durable(lane),
            ack_wait: JOB_ACK_WAIT,
            max_ack_pending: 10_000,
        }
    }

    /// The durables through which the bridges' ledger reads logs and events.
    pub fn ledger_consumers(&self) -> [ConsumerSpec; 2] {
        ["LOGS", "EVENTS"].map(|stream| ConsumerSpec {
            stream: self.stream(stream),
            subject: None,
            durable: LEDGER_DURABLE.into(),
            ack_wait: Duration::from_secs(30),
            max_ack_pending: 5_000,
        })
    }
}

fn runners_durable(lane: &str) -> String {
    match lane {
        DEFAULT_LANE => RUNNERS_DURABLE.to_owned(),
        other => format!("{RUNNERS_DURABLE}-{other}"),
    }
}
