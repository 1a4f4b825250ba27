//! `/v1/admin/queue`.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use ovenbird_contract::id::BuildId;
use ovenbird_db::store::queue::Counts;
use poem_openapi::{Enum, Object, OpenApi, param::Query, payload::Json};

use super::{
    Tag,
    auth::{Allowed, Reads},
    error::Failure,
};
use crate::app::{
    self, App,
    waiting::{Waits, Why},
};

/// The resource.
#[derive(Debug, Clone)]
pub struct QueueRoutes {
    app: Arc<App>,
}

impl QueueRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>) -> Self {
        Self { app }
    }
}

/// Why a build waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[oai(rename_all = "snake_case")]
pub enum WaitReason {
    /// Its base template was deleted; it will never start.
    BaseDeleted,
    /// No host that takes builds and has the labels that it asks for holds its base template.
    NoHost,
    /// The hosts that hold its base template are full.
    NoRoom,
    /// Its job is not in the work queue yet: soon, or, for one that is `held`, with its turn.
    NotRelayed,
    /// Every runner is busy, or will be with those before it.
    NoRunner,
    /// Nothing holds it up; a runner is about to take it.
    Next,
    /// It is not known whether a runner is free.
    Unknown,
}

impl From<Why> for WaitReason {
    fn from(why: Why) -> Self {
        match why {
            Why::BaseDeleted => Self::BaseDeleted,
            Why::NoHost => Self::NoHost,
            Why::NoRoom => Self::NoRoom,
            // A word of its own would be new to clients of the first released version.
            Why::NotRelayed | Why::KeyLimit => Self::NotRelayed,
            Why::NoRunner => Self::NoRunner,
            Why::Next => Self::Next,
            Why::Unknown => Self::Unknown,
        }
    }
}

/// A build that waits.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct WaitingBuild {
    /// The build.
    pub build_id: String,
    /// Name of the template to be.
    pub name: String,
    /// Tag of the template to be.
    pub tag: String,
    /// The lane whose runners may take it.
    pub lane: String,
    /// Its place in the lane, from 1; everybody's builds count, but those that wait for the limit of their key.
    #[oai(validator(minimum(value = "1")))]
    pub position: u64,
    /// A stable word for why it waits.
    pub reason: WaitReason,
    /// It waits because its key has as many builds running as it may; those of other keys pass it.
    pub held: bool,
    /// The same, and what to do, for people.
    pub message: String,
    /// When it was put into the queue.
    pub queued_at: DateTime<Utc>,
    /// When it will probably have ended, from how long the last builds of its name, and of those before it,
    /// took. Absent when that cannot be told.
    pub eta: Option<DateTime<Utc>>,
}

/// The queue.
#[derive(Debug, Object)]
#[oai(skip_serializing_if_is_none)]
pub struct Queue {
    /// Builds that wait, everybody's.
    #[oai(validator(minimum(value = "0")))]
    pub depth: u64,
    /// Those of them that wait because their key has as many builds running as it may.
    #[oai(validator(minimum(value = "0")))]
    pub held: u64,
    /// Builds that hold a slot of a runner, everybody's.
    #[oai(validator(minimum(value = "0")))]
    pub running: u64,
    /// Slots of runners that wait for a build of the default lane; absent while NATS does not say.
    #[oai(validator(minimum(value = "0")))]
    pub free_slots: Option<u64>,
    /// Slots with which no build would wait for a runner: `depth` without `held`, and `running`. An autoscaler divides
    /// it by the slots of one runner; work in flight counts, so no busy runner is scaled away.
    #[oai(validator(minimum(value = "0")))]
    pub slots_wanted: u64,
    /// The builds that wait, the one that waits longest first. A key of scope `build` sees its own.
    pub items: Vec<WaitingBuild>,
    /// Pass it as `cursor` for the next page; absent on the last one.
    pub next_cursor: Option<String>,
}

#[OpenApi(prefix_path = "/v1/admin/queue", tag = "Tag::Queue")]
impl QueueRoutes {
    /// Look at the queue
    ///
    /// How many builds wait and run, how many runners are free, and for each waiting build its place, why it
    /// waits and when it will probably have ended. The only list that begins with the oldest.
    #[oai(path = "/", method = "get", operation_id = "queue_get")]
    async fn get(
        &self,
        caller: Allowed<Reads>,
        /// `next_cursor` of the page before.
        #[oai(validator(max_length = 64))]
        cursor: Query<Option<String>>,
        /// Builds of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "200")), default = "limit_default")]
        limit: Query<u32>,
    ) -> Result<Json<Queue>, Failure> {
        let queue = self.app.queue_get(&caller, cursor.0.as_deref(), limit.0).await?;
        let Counts { queued, held, running } = queue.counts;
        let (depth, held, running) =
            (queued.unsigned_abs(), held.unsigned_abs(), running.unsigned_abs());
        Ok(Json(Queue {
            depth,
            held,
            running,
            free_slots: queue.free.map(|free| free as u64),
            slots_wanted: depth.saturating_sub(held) + running,
            items: queue.page.items.into_iter().map(told).collect(),
            next_cursor: queue.page.next,
        }))
    }
}

fn limit_default() -> u32 {
    app::page::LIMIT_DEFAULT
}

fn told(waits: Waits) -> WaitingBuild {
    let Waits { build, why, eta } = waits;
    WaitingBuild {
        build_id: BuildId::from_uuid(build.id).to_string(),
        name: build.name,
        tag: build.tag,
        lane: build.lane,
        position: build.position.unsigned_abs().max(1),
        reason: why.into(),
        held: why == Why::KeyLimit,
        message: message(why).to_owned(),
        queued_at: build.queued_at,
        eta,
    }
}

fn message(why: Why) -> &'static str {
    match why {
        Why::BaseDeleted => {
            "Its base template was deleted: cancel it, and submit it with another base."
        }
        Why::NoHost => {
            "No host that takes builds, and has the labels that it asks for, holds its base template: look whether \
             hosts are away or drained, and at their labels."
        }
        Why::KeyLimit => {
            "Its key has as many builds running as it may: it starts when one of them ends."
        }
        Why::NoRoom => {
            "The hosts that hold its base template are full: it starts when one has room."
        }
        Why::NotRelayed => {
            "Its job is not in the work queue yet: if that lasts, no bridge is running."
        }
        Why::NoRunner => {
            "Every runner is busy, or will be with the builds before it: start more runners."
        }
        Why::Next => "Nothing holds it up: a runner is about to take it.",
        Why::Unknown => "NATS does not say whether a runner is free.",
    }
}
