//! What holds for every call, around the service itself: requests that are cut, the longest time, the largest message.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use ovenbird_hostagent::v1::host_agent_service_server::HostAgentServiceServer;
use tokio::time::timeout;
use tonic::{Code, Status, body::Body, server::NamedService};
use tower::Service as TowerService;

use super::{file_streams, service::Service};

/// Past which a call is answered for, whatever it waits for. Streams of answers may last longer.
const CALL_MAX: Duration = Duration::from_secs(15 * 60);
/// The one call whose answer comes after a stream, and which lasts as long as something comes.
const UPLOAD: &str = "/hostagent.v1.HostAgentService/WriteFileStream";

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
}

impl<S> Calls<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
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
        let is_upload = request.uri().path() == UPLOAD;
        let answer = self.inner.call(whole(request));
        Box::pin(async move {
            if is_upload {
                return answer.await;
            }
            timeout(CALL_MAX, answer).await.unwrap_or_else(|_| {
                let minutes = CALL_MAX.as_secs() / 60;
                let late = format!("there was no answer after {minutes} minutes");
                Ok(Status::deadline_exceeded(late).into_http())
            })
        })
    }
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
            UPLOAD => self.uploads.call(request),
            _ => self.service.call(request),
        }
    }
}

impl NamedService for Bounded {
    const NAME: &'static str = HostAgentServiceServer::<Service>::NAME;
}
