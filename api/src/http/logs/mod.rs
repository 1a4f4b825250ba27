//! `/v1/admin/builds/{id}/logs`: a build's log in pages, and live.

mod sse;
mod types;

use std::sync::Arc;

use poem_openapi::{
    ApiResponse, Object, OpenApi,
    param::{Header, Path, Query},
    payload::Json,
};

pub use sse::Events;
pub use types::{LogRecord, LogStream, Logged};

use super::{
    Tag,
    auth::{Allowed, Reads},
    error::Failure,
    parameters,
};
use crate::{
    app::{
        App,
        logs::{Filter, PAGE_DEFAULT},
    },
    config,
};

/// The resource.
#[derive(Debug, Clone)]
pub struct LogRoutes {
    app: Arc<App>,
    limits: config::Logs,
}

impl LogRoutes {
    /// The resource over the use cases.
    pub fn new(app: Arc<App>, limits: config::Logs) -> Self {
        Self { app, limits }
    }
}

/// Records of a log.
#[derive(Debug, Object)]
pub struct LogPage {
    /// In order of `seq`.
    pub records: Vec<Logged>,
    /// Pass it as `from_seq` to go on. When the last record has `end`, nothing follows.
    #[oai(validator(minimum(value = "1")))]
    pub next_seq: u64,
}

/// The answer to whoever follows.
#[derive(Debug, ApiResponse)]
pub enum Followed {
    /// One event per record: `id` is its `seq`, `data` the record. A silent log sends a comment now and
    /// then. The stream ends after the record that has `end`. An event of type `error` holds an error
    /// instead, after which the stream ends: come back with the last `id`.
    #[oai(status = 200)]
    Events(Events),
    /// The log ended before the place that was asked for. A browser's `EventSource` does not come back
    /// after this.
    #[oai(status = 204)]
    Over,
}

#[OpenApi(prefix_path = "/v1/admin/builds", tag = "Tag::Builds")]
impl LogRoutes {
    /// Read a build's log
    ///
    /// A page from `from_seq` on, as far as the log is written and can be read now. A page may hold fewer records than asked
    /// for, or none where a filter hides many: go on at `next_seq`.
    #[oai(path = "/:id/logs", method = "get", operation_id = "build_logs")]
    async fn page(
        &self,
        caller: Allowed<Reads>,
        /// The build.
        #[oai(validator(pattern = "^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// The first record.
        #[oai(
            validator(minimum(value = "1"), maximum(value = "9000000000000000")),
            default = "from_start"
        )]
        from_seq: Query<u64>,
        /// Records of a page.
        #[oai(validator(minimum(value = "1"), maximum(value = "10000")), default = "page_default")]
        limit: Query<u32>,
        /// Only of this step, as you numbered it; 0 for what is outside of the recipe.
        #[oai(validator(minimum(value = "0")))]
        step: Query<Option<u32>>,
        /// Only from there.
        stream: Query<Option<LogStream>>,
    ) -> Result<Json<LogPage>, Failure> {
        let filter = Filter { step: step.0, stream: stream.0.map(Into::into) };
        let page =
            self.app.log_page(&caller, parameters::id(&id.0)?, from_seq.0, limit.0, filter).await?;
        let records = page.records.into_iter().map(Logged).collect();
        Ok(Json(LogPage { records, next_seq: page.next_seq }))
    }

    /// Follow a build's log
    ///
    /// Server-sent events: what is written already, then every line as it is written, without gap or
    /// duplicate, up to the end. To go on after a broken connection, send the last `id` as
    /// `Last-Event-ID`, as a browser's `EventSource` does by itself; it wins over `from_seq`.
    #[oai(path = "/:id/logs/stream", method = "get", operation_id = "build_logs_stream")]
    async fn stream(
        &self,
        caller: Allowed<Reads>,
        /// The build.
        #[oai(validator(pattern = "^bld_[0-7][0-9a-hjkmnp-tv-z]{25}$"))]
        id: Path<String>,
        /// The first record.
        #[oai(
            validator(minimum(value = "1"), maximum(value = "9000000000000000")),
            default = "from_start"
        )]
        from_seq: Query<u64>,
        /// The record after which to go on.
        #[oai(
            name = "Last-Event-ID",
            validator(minimum(value = "0"), maximum(value = "8999999999999999"))
        )]
        last_event_id: Header<Option<u64>>,
    ) -> Result<Followed, Failure> {
        let next = last_event_id.0.map_or(from_seq.0, |last| last + 1);
        let follower = self.app.log_follow(&caller, parameters::id(&id.0)?, next).await?;
        Ok(match follower {
            Some(follower) => Followed::Events(Events::new(follower, self.limits.heartbeat)),
            None => Followed::Over,
        })
    }
}

fn from_start() -> u64 {
    1
}

fn page_default() -> u32 {
    PAGE_DEFAULT
}
