//! One span and one log line per request, a request id in every answer, and the caller's trace context.

use std::{net::IpAddr, sync::Arc, time::Instant};

use ovenbird_kit::telemetry::trace;
use poem::{
    Endpoint, IntoResponse as _, Middleware, Request, Response,
    http::{HeaderValue, header},
};
use rand::RngCore as _;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, field::Empty};
use uuid::Uuid;

use super::{operations::Operations, shape};
use crate::metrics::Metrics;

const REQUEST_ID: &str = "x-request-id";
const FORWARDED_FOR: &str = "x-forwarded-for";
/// What requests are called that are none of an operation of the document: the page, the documentation, the unknown.
const OTHER: &str = "other";
/// Longest request id that is taken over from the client.
const REQUEST_ID_MAX: usize = 64;

/// W3C trace context of a request.
#[derive(Debug, Clone)]
struct Trace(String);

/// The `traceparent` under which the request's work goes on elsewhere.
pub fn trace(request: &Request) -> String {
    request.data::<Trace>().map(|trace| trace.0.clone()).unwrap_or_default()
}

/// The id of a request.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The id under which a request stands in logs and in its answer.
pub fn id(request: &Request) -> String {
    request.data::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

/// Tells a change that its client went away. It goes on all the same, unless nobody but that client wants its end.
#[derive(Debug, Clone)]
pub(super) struct HungUp(pub(super) CancellationToken);

/// Cancelled when the client of a change goes away.
pub fn hung_up(request: &Request) -> CancellationToken {
    request.data::<HungUp>().map(|hung_up| hung_up.0.clone()).unwrap_or_default()
}

/// The id of what a request makes.
#[derive(Debug, Clone, Copy)]
pub struct Resource {
    /// The id; the same when the same request comes again with its `Idempotency-Key`.
    pub id: Uuid,
    /// The same request may have made it before.
    pub again: bool,
}

/// The id of what a request makes; a new one when the request cannot come again.
pub fn resource(request: &Request) -> Resource {
    let given = request.data::<Resource>().copied();
    given.unwrap_or_else(|| Resource { id: Uuid::now_v7(), again: false })
}

/// Where a request comes from: what the outermost of our `proxies` wrote into `X-Forwarded-For`, whose other
/// entries are anybody's word.
pub fn address(request: &Request, proxies: usize) -> Option<IpAddr> {
    let own = request.remote_addr().0.as_socket_addr().map(|address| address.ip());
    let Some(place) = proxies.checked_sub(1) else { return own };
    let values = request.headers().get_all(FORWARDED_FOR).into_iter();
    let told: Vec<&str> =
        values.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(',')).collect();
    let told = told.iter().rev().nth(place).and_then(|text| text.trim().parse().ok());
    told.or(own)
}

/// The outermost layer.
#[derive(Debug, Clone)]
pub(super) struct Observe {
    operations: Arc<Operations>,
    metrics: Metrics,
}

impl Observe {
    /// Names requests after `operations` and counts them in `metrics`.
    pub(super) fn new(operations: Arc<Operations>, metrics: Metrics) -> Self {
        Self { operations, metrics }
    }
}

impl<E: Endpoint> Middleware<E> for Observe {
    type Output = Observed<E>;

    fn transform(&self, inner: E) -> Observed<E> {
        Observed { inner, observe: self.clone() }
    }
}

/// An endpoint whose requests are observed and whose errors have the one shape.
#[derive(Debug)]
pub(super) struct Observed<E> {
    inner: E,
    observe: Observe,
}

impl<E: Endpoint> Endpoint for Observed<E> {
    type Output = Response;

    async fn call(&self, mut request: Request) -> poem::Result<Response> {
        let started = Instant::now();
        let id = request_id(&request);
        let operation = self.observe.operations.find(&request).map(Arc::clone);
        let operation = operation.as_ref().map_or(OTHER, |operation| operation.id.as_str());
        let span = tracing::info_span!(
            "request",
            otel.name = operation,
            otel.kind = "server",
            otel.status_code = Empty,
            request.id = id,
            trace.id = Empty,
            http.method = %request.method(),
            // Never the query: it is the client's, and long.
            http.path = request.uri().path(),
            http.status = Empty,
            key.id = Empty,
            build.id = Empty,
        );
        let trace = traceparent(&span, &request);
        request.extensions_mut().insert(Trace(trace));
        request.extensions_mut().insert(RequestId(id.clone()));
        let answer = async {
            let mut response = match self.inner.call(request).await {
                Ok(response) => response.into_response(),
                Err(error) => shape::error(error).await,
            };
            let elapsed = started.elapsed();
            let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
            let status = response.status().as_u16();
            self.observe.metrics.request_answered(operation, status, elapsed);
            let span = Span::current();
            span.record("http.status", status);
            if response.status().is_server_error() {
                span.record("otel.status_code", "ERROR");
            }
            tracing::info!(http.status = status, elapsed_ms, "request answered");
            if let Ok(value) = HeaderValue::from_str(&id) {
                response.headers_mut().insert(REQUEST_ID, value);
            }
            // Files of sandboxes come from the dashboard's own origin: what they are is what is said of them.
            let nosniff = HeaderValue::from_static("nosniff");
            response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
            response
        };
        Ok(answer.instrument(span).await)
    }
}

/// The client's own id when it is harmless in a log line, else a new one.
fn request_id(request: &Request) -> String {
    let harmless = |text: &&str| {
        (1..=REQUEST_ID_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    given.filter(harmless).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The trace context of the request's span, in the client's trace when that is valid. Where no spans are exported, the
/// client's own, or that of a trace that nobody has seen yet.
fn traceparent(span: &Span, request: &Request) -> String {
    let given = request.headers().get(trace::TRACEPARENT).and_then(|value| value.to_str().ok());
    let given = given.filter(|given| trace::is_valid(given));
    if let Some(given) = given {
        trace::join(span, given);
    }
    if let Some(own) = trace::begin(span) {
        return own;
    }
    let passed_on = given.map_or_else(new_trace, str::to_owned);
    trace::join(span, &passed_on);
    passed_on
}

fn new_trace() -> String {
    let mut span = [0; 8];
    rand::rng().fill_bytes(&mut span);
    format!("00-{}-{}-01", Uuid::new_v4().simple(), hex::encode(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_context_is_taken_over_only_when_it_is_valid() {
        let valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let request = |value: &str| Request::builder().header(trace::TRACEPARENT, value).finish();
        assert_eq!(traceparent(&Span::none(), &request(valid)), valid);
        for broken in ["", "00-0-0-01", &valid.replace('4', "Z"), &valid.replace("00-", "01-")] {
            let made = traceparent(&Span::none(), &request(broken));
            assert!(trace::is_valid(&made) && made != broken, "{made}");
        }
    }

    #[test]
    fn address_is_what_the_outermost_proxy_of_ours_saw() {
        let request = |value: &str| Request::builder().header(FORWARDED_FOR, value).finish();
        let told = |value: &str, proxies| {
            address(&request(value), proxies).map(|address| address.to_string())
        };
        assert_eq!(told("192.0.2.1", 0), None, "a word that counts nothing");
        assert_eq!(told("10.9.9.9, 192.0.2.1", 1).as_deref(), Some("192.0.2.1"));
        assert_eq!(told("10.9.9.9, 192.0.2.1,10.0.0.1", 2).as_deref(), Some("192.0.2.1"));
        assert_eq!(told("not an address", 1), None);
    }

    #[test]
    fn request_id_of_the_client_is_taken_over_only_when_it_is_harmless() {
        let request = |value: &str| Request::builder().header(REQUEST_ID, value).finish();
        assert_eq!(request_id(&request("abc-1.2_3")), "abc-1.2_3");
        for harmful in ["", "a b", "a\u{7f}", &"a".repeat(65)] {
            assert_eq!(request_id(&request(harmful)).len(), 36);
        }
    }
}
