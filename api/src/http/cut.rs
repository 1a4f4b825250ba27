//! Ends event streams whose key, or session, does not hold any more. A request is over in a moment, and its key was looked at; a
//! stream may go on for hours, and a key that is revoked meanwhile must not read on.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, future::Either};
use ovenbird_contract::id::KeyId;
use ovenbird_kit::Secret;
use poem::{Body, Response};
use poem_openapi::types::ToJSON as _;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use super::{code::Code, error::Failure};
use crate::app::App;

const EVENTS: &str = "text/event-stream";
/// How long a stream goes on with a key that does not hold; one look into Postgres each.
const EVERY: Duration = Duration::from_secs(2);

/// The same answer; where it is a stream of events, for as long as `key` holds, and the session that stood for it.
pub(super) fn when_over(
    app: &Arc<App>,
    key: KeyId,
    session: Option<Secret<String>>,
    mut response: Response,
) -> Response {
    if !response.content_type().is_some_and(|kind| kind.starts_with(EVENTS)) {
        return response;
    }
    let mut looks = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = response.take_body().into_bytes_stream().boxed();
    let reader = Reader { app: Arc::clone(app), key, session };
    let open = Some(Open { events, looks, reader });
    response.set_body(Body::from_bytes_stream(futures::stream::unfold(open, step)));
    response
}

struct Open<S> {
    events: S,
    looks: Interval,
    reader: Reader,
}

struct Reader {
    app: Arc<App>,
    key: KeyId,
    session: Option<Secret<String>>,
}

impl Reader {
    async fn holds(&self) -> bool {
        match &self.session {
            Some(text) => self.app.session_holds(text.expose()).await,
            None => self.app.key_holds(self.key).await,
        }
    }
}

/// The next piece. `None` for the state after the last one.
async fn step<S>(open: Option<Open<S>>) -> Option<(io::Result<Bytes>, Option<Open<S>>)>
where
    S: Stream<Item = io::Result<Bytes>> + Unpin,
{
    let mut open = open?;
    loop {
        let next = {
            let look = std::pin::pin!(open.looks.tick());
            match futures::future::select(open.events.next(), look).await {
                Either::Left((piece, _)) => Some(piece),
                Either::Right(_) => None,
            }
        };
        match next {
            Some(piece) => return piece.map(|piece| (piece, Some(open))),
            None if open.reader.holds().await => {}
            None => {
                let failure = Failure::new(Code::Unauthorized).body().to_json_string();
                let event = format!("event: error\ndata: {failure}\n\n");
                return Some((Ok(event.into()), None));
            }
        }
    }
}
