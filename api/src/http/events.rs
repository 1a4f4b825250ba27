//! `/v1/admin/events/stream`: builds as they change, as server-sent events.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::Stream;
use poem::{Body, IntoResponse, Response};
use poem_openapi::{
    ApiResponse, OpenApi,
    payload::Payload,
    registry::{MetaSchema, MetaSchemaRef, Registry},
    types::{ToJSON as _, Type as _},
};

use super::{
    Tag,
    auth::{Allowed, Reads},
    builds::Build,
    error::Failure,
};
use crate::app::{App, events::Changes};

const HEARTBEAT: &[u8] = b": still here\n\n";

/// The resource.
#[derive(Debug, Clone)]
pub struct EventRoutes {
    app: Arc<App>,
    heartbeat: Duration,
}

impl EventRoutes {
    /// The resource over the use cases; a silent stream sends a comment after each `heartbeat`.
    pub fn new(app: Arc<App>, heartbeat: Duration) -> Self {
        Self { app, heartbeat }
    }
}

/// The answer to whoever watches.
#[derive(Debug, ApiResponse)]
pub enum Watched {
    /// An event of type `build` holds a build that changed, as lists tell it. A quiet stream sends a comment now and
    /// then. There is no history: read the list when the stream is there, and now and then.
    #[oai(status = 200)]
    Events(Events),
}

#[OpenApi(prefix_path = "/v1/admin/events", tag = "Tag::Builds")]
impl EventRoutes {
    /// Watch builds
    ///
    /// Server-sent events: each build that changed, a moment after it did. A key of scope `build` sees its own.
    #[oai(path = "/stream", method = "get", operation_id = "build_events")]
    async fn stream(&self, caller: Allowed<Reads>) -> Result<Watched, Failure> {
        let changes = self.app.build_watch(caller.into_caller()).await?;
        Ok(Watched::Events(Events { changes, heartbeat: self.heartbeat }))
    }
}

/// A stream of events.
#[derive(Debug)]
pub struct Events {
    changes: Changes,
    heartbeat: Duration,
}

impl Events {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        // The first bytes say that somebody listens: what happens from now on is told.
        let start = futures::stream::iter([Ok(Bytes::from_static(HEARTBEAT))]);
        let events = futures::stream::unfold(self, |mut events| async move {
            let bytes = events.write().await?;
            Some((Ok(bytes), events))
        });
        futures::StreamExt::chain(start, events)
    }

    async fn write(&mut self) -> Option<Bytes> {
        loop {
            let Ok(build) = tokio::time::timeout(self.heartbeat, self.changes.next()).await else {
                return Some(Bytes::from_static(HEARTBEAT));
            };
            match Build::brief(build?) {
                Ok(build) => {
                    let json = build.to_json_string();
                    return Some(format!("event: build\ndata: {json}\n\n").into());
                }
                Err(error) => {
                    tracing::error!(error = %error, "a build's row cannot be told");
                }
            }
        }
    }
}

impl Payload for Events {
    const CONTENT_TYPE: &'static str = "text/event-stream";

    fn schema_ref() -> MetaSchemaRef {
        MetaSchemaRef::Inline(Box::new(MetaSchema {
            description: Some("Server-sent events. `data` of each is a Build."),
            ..MetaSchema::new("string")
        }))
    }

    fn register(registry: &mut Registry) {
        Build::register(registry);
    }
}

impl IntoResponse for Events {
    fn into_response(self) -> Response {
        Response::builder()
            .content_type(Self::CONTENT_TYPE)
            .header("cache-control", "no-store")
            // nginx collects small writes otherwise.
            .header("x-accel-buffering", "no")
            .body(Body::from_bytes_stream(self.into_stream()))
    }
}
