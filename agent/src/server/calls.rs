//! What holds for every call, around the service itself: requests that are cut, the longest time, the largest message,
//! and the count.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use ovenbird_hostagent::v1::host_agent_service_server::HostAgentServiceServer;
use ovenbird_kit::telemetry::trace;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service as TowerService;
use tracing::{Instrument as _, Span, field::Empty};

use super::{file_streams, service::Service};
use crate::metrics::exposed::{Metrics, code_name};

/// Past which a call is answered for, whatever it waits for. Streams of answers may last longer.
const CALL_MAX: Duration = Duration::from_secs(15 * 60);
/// The calls whose answer comes after a stream, and which last as long as something comes.
const UPLOADS: [&str; 2] = [
    "/hostagent.v1.HostAgentService/WriteFileStream",
    "/hostagent.v1.HostAgentService/UnpackStream",
];
/// The one call that says how long it may last.
const EXEC: &str = "/hostagent.v1.HostAgentService/Exec";

/// A request that was cut is an error to who reads it. tonic takes a cancelled one for one that is over, and half a
/// file must not pass for a whole one.
fn whole(request: Request<Body>) -> Request<Body> {
    let cut = |status: Status| match status.code() {
        Code::Cancelled => Status::aborted("the caller broke off"),
        _ => status,
    };
    request.map(|body| Body::new(body.map_err(cut)))
}

/// Calls as the server sees them.
#[derive(Debug, Clone)]
pub(super) struct Calls<S> {
    inner: S,
    counted: Metrics,
}

impl<S> Calls<S> {
    pub(super) fn new(inner: S, counted: Metrics) -> Self {
        Self { inner, counted }
    }
}

/// The span of a call, in its caller's trace.
fn span(request: &Request<Body>, method: &str) -> Span {
    let span = tracing::info_span!(
        "call",
        otel.name = method,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.method = method,
        rpc.code = Empty,
        // See `Service::pass` and `exec`.
        build.id = Empty,
        attempt = Empty,
        exit = Empty,
        trace.id = Empty,
    );
    let given = request.headers().get(trace::TRACEPARENT);
    if let Some(given) = given.and_then(|value| value.to_str().ok()) {
        trace::join(&span, given);
    }
    span
}

/// A call that is to be counted when it ends; dropped before that, it was cancelled.
struct Counting {
    counted: Metrics,
    method: String,
    code: Code,
    span: Span,
}

impl Counting {
    fn new(counted: Metrics, request: &Request<Body>) -> Self {
        let path = request.uri().path().trim_start_matches('/');
        let service = HostAgentServiceServer::<Service>::NAME;
        let method = path.strip_prefix(service).and_then(|rest| rest.strip_prefix('/'));
        let method = method.unwrap_or(path).to_owned();
        let span = span(request, &method);
        Self { counted, method, code: Code::Cancelled, span }
    }

    /// The answer, counted when it is over.
    fn until_the_end_of(mut self, answer: Response<Body>) -> Response<Body> {
        if let Some(status) = Status::from_header_map(answer.headers()) {
            self.code = status.code();
            return answer;
        }
        answer.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // All of it, so that it is counted when the body is dropped.
                let counting = &mut self;
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    counting.code = status.code();
                }
                frame
            }))
        })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        self.span.record("rpc.code", code_name(self.code));
        // What the caller did wrong, or broke off, is no error of this host; so says the specification.
        if matches!(
            self.code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            self.span.record("otel.status_code", "ERROR");
        }
        let method = match self.code {
            // Whatever somebody thought of: there is no end to it.
            Code::Unimplemented => "unknown".to_owned(),
            _ => std::mem::take(&mut self.method),
        };
        self.counted.call_ended(method, self.code);
    }
}

impl<S> TowerService<Request<Body>> for Calls<S>
where
    S: TowerService<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let has_own_bound = path == EXEC || UPLOADS.contains(&path);
        let counting = Counting::new(self.counted.clone(), &request);
        let span = counting.span.clone();
        let answer = span.in_scope(|| self.inner.call(whole(request)));
        let answered = async move {
            let answer = match has_own_bound {
                true => answer.await?,
                false => timeout(CALL_MAX, answer).await.unwrap_or_else(|_| Ok(late()))?,
            };
            Ok(counting.until_the_end_of(answer))
        };
        Box::pin(answered.instrument(span))
    }
}

fn late() -> Response<Body> {
    let minutes = CALL_MAX.as_secs() / 60;
    Status::deadline_exceeded(format!("there was no answer after {minutes} minutes")).into_http()
}

/// The service, with a smaller bound for messages of which a call has many.
#[derive(Debug, Clone)]
pub(super) struct Bounded {
    service: HostAgentServiceServer<Service>,
    uploads: HostAgentServiceServer<Service>,
}

impl Bounded {
    pub(super) fn new(service: Service, message_max: usize) -> Self {
        let service = HostAgentServiceServer::new(service);
        let uploads = service.clone().max_decoding_message_size(file_streams::MESSAGE_MAX);
        let service =
            service.max_decoding_message_size(message_max).max_encoding_message_size(message_max);
        Self { service, uploads }
    }
}

impl TowerService<Request<Body>> for Bounded {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match request.uri().path() {
            path if UPLOADS.contains(&path) => self.uploads.call(request),
            _ => self.service.call(request),
        }
    }
}

impl NamedService for Bounded {
    const NAME: &'static str = HostAgentServiceServer::<Service>::NAME;
}
