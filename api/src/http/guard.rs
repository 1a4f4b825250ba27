//! The layer before every operation that needs a key or changes something: who calls, how often, what is noted of it,
//! and whether it was answered before. It goes by the published document, so that an operation cannot be without it.
//!
//! ```text
//! key ──► tokens ──► audit ──► X-CSRF-Token ──► Idempotency-Key ──► parameters ──► handler
//! 503     429, 401   503       403              409, or the first   400
//!                                               answer
//! ```
//!
//! Hosts' agents have no API key: what they call is limited by address, and says itself whom it takes.
//!
//! A key is looked up also when it has no tokens left, and only who has no valid one is limited by address: others
//! behind the same address would otherwise pay for them. The look-up is one read of an index, and [`strangers`] keeps
//! their number low.
//!
//! [`strangers`]: crate::app::strangers

use std::{net::IpAddr, sync::Arc};

use poem::{
    Endpoint, IntoResponse as _, Middleware, Request, Response,
    http::{HeaderValue, StatusCode, header},
};
use serde_json::{Map, Value, json};
use tracing::Instrument as _;

use super::{
    auth::{self, Known},
    code::Code,
    cut,
    error::Failure,
    operations::{Operation, Operations},
    parameters,
    repeat::{self, Replayed},
    request, session, shape,
};
use crate::{
    app::{
        App,
        audit::Deed,
        keys::Caller,
        rate::{Bucket, Standing},
        strangers::TooMany,
    },
    config,
    listener::Open,
};

/// The layer.
#[derive(Debug, Clone)]
pub(super) struct Guard {
    app: Arc<App>,
    open: Open,
    operations: Arc<Operations>,
    limits: Arc<config::Http>,
}

impl Guard {
    /// A guard of `operations`.
    pub(super) fn new(
        app: Arc<App>,
        open: Open,
        operations: Arc<Operations>,
        limits: Arc<config::Http>,
    ) -> Self {
        Self { app, open, operations, limits }
    }
}

impl<E: Endpoint<Output = Response> + 'static> Middleware<E> for Guard {
    type Output = Guarded<E>;

    fn transform(&self, inner: E) -> Guarded<E> {
        Guarded { inner: Arc::new(inner), guard: self.clone() }
    }
}

/// A guarded endpoint.
#[derive(Debug)]
pub(super) struct Guarded<E> {
    inner: Arc<E>,
    guard: Guard,
}

impl<E: Endpoint<Output = Response> + 'static> Endpoint for Guarded<E> {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        match self.guard.operations.find(&request) {
            Some(operation) if operation.needs_key => {
                Ok(self.guarded(Arc::clone(operation), request).await)
            }
            Some(operation) if !operation.is_free() => {
                Ok(self.without_key(Arc::clone(operation), request).await)
            }
            // Health checks, the documentation, and what does not exist.
            _ => self.inner.call(request).await,
        }
    }
}

impl<E: Endpoint<Output = Response> + 'static> Guarded<E> {
    async fn guarded(&self, operation: Arc<Operation>, request: Request) -> Response {
        let Guard { app, limits, .. } = &self.guard;
        let address = request::address(&request, limits.proxies);
        // Nearly always right, so the tokens are taken while the key is looked up.
        let guess = auth::lately(app, &request);
        let take = async |key| app.rate_take(Bucket::Key(key)).await;
        let (known, guessed) =
            tokio::join!(auth::known(app, &request, address), async { take(guess?).await });
        let (known, is_looked_up) = match known {
            Ok(Ok(known)) => (known, true),
            Ok(Err(TooMany)) => (None, false),
            Err(error) => return Failure::from(error).into_response(),
        };
        let standing = match (&known, address) {
            (Some(known), _) if guess == Some(known.caller.key) => guessed,
            (Some(known), _) => take(known.caller.key).await,
            (None, Some(address)) => app.rate_take(Bucket::Address(address)).await,
            (None, None) => None,
        };
        let mut response = match (standing, known) {
            (Some(Standing { granted: false, .. }), _) => {
                Failure::new(Code::RateLimited).into_response()
            }
            _ if !is_looked_up => Failure::new(Code::RateLimited).into_response(),
            (_, Some(Known { caller, session })) => {
                let key = caller.key;
                let text = session.as_ref().map(|session| session.text.clone());
                // Who only reads needs no token: no other site can see the answer.
                let forged = session.is_some_and(|session| !session.with_token);
                let response = self.admitted(operation, caller, forged, address, request).await;
                cut::when_over(app, key, text, response)
            }
            (_, None) => {
                let response = Failure::new(Code::Unauthorized).into_response();
                if operation.changes {
                    let status = response.status().as_u16();
                    app.audit_refusal(&deed(&operation, &request, address), status).await;
                }
                response
            }
        };
        if let Some(standing) = standing {
            tell(&mut response, standing);
        }
        response
    }

    /// What needs no key and changes something all the same says by itself who may: it is limited by address, and a
    /// sample of those that it refuses is noted. What it grants it notes itself, with the change.
    async fn without_key(&self, operation: Arc<Operation>, mut request: Request) -> Response {
        let Guard { app, limits, .. } = &self.guard;
        let address = request::address(&request, limits.proxies);
        let standing = match address {
            Some(address) => app.rate_take(Bucket::Address(address)).await,
            None => None,
        };
        let mut response = if standing.is_some_and(|standing| !standing.granted) {
            Failure::new(Code::RateLimited).into_response()
        } else {
            let deed = deed(&operation, &request, address);
            request.set_data(deed.clone());
            let (inner, app) = (Arc::clone(&self.inner), Arc::clone(app));
            let change = async move {
                let response = act(&*inner, &operation, request).await;
                if response.status().is_client_error() {
                    app.audit_refusal(&deed, response.status().as_u16()).await;
                }
                response
            };
            self.change(change).await
        };
        if let Some(standing) = standing {
            tell(&mut response, standing);
        }
        response
    }

    async fn admitted(
        &self,
        operation: Arc<Operation>,
        caller: Caller,
        forged: bool,
        address: Option<IpAddr>,
        mut request: Request,
    ) -> Response {
        request.set_data(caller.clone());
        if !operation.changes {
            return act(&*self.inner, &operation, request).await;
        }
        let deed = deed(&operation, &request, address);
        if let Some(client) = request.remote_addr().0.as_socket_addr() {
            let hung_up = self.guard.open.hung_up(client);
            request.set_data(request::HungUp(hung_up));
        }
        let (inner, app) = (Arc::clone(&self.inner), Arc::clone(&self.guard.app));
        let limits = Arc::clone(&self.guard.limits);
        let change = async move {
            let entry = match app.audit_begin(&caller, &deed).await {
                Ok(entry) => entry,
                Err(error) => return Failure::from(error).into_response(),
            };
            let response = if forged {
                session::token_is_missing().into_response()
            } else {
                let act = |request| act(&*inner, &operation, request);
                repeat::once(&app, &limits, &operation, &caller, request, act).await
            };
            let status = response.status();
            let is_one_too_many =
                did_nothing(&operation, status) && app.audit_too_many(&caller, entry).await;
            if !is_one_too_many {
                app.audit_end(entry, status.as_u16(), &details(&response)).await;
            }
            response
        };
        self.change(change).await
    }

    /// In a task of its own: a client that goes away must not leave half a change, nor one without an end in the audit
    /// log.
    async fn change(&self, change: impl Future<Output = Response> + Send + 'static) -> Response {
        let change = self.guard.app.changes().spawn(change.in_current_span());
        change.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a change broke off");
            Failure::new(Code::Internal).into_response()
        })
    }
}

/// Calls the handler; its errors have the one shape.
async fn act<E>(inner: &E, operation: &Operation, request: Request) -> Response
where
    E: Endpoint<Output = Response>,
{
    if let Some(name) = operation.unknown_query(&request) {
        let known = operation.queries().join(", ");
        let message = if known.is_empty() {
            "is not known here: there are none".to_owned()
        } else {
            format!("is not known here; known are {known}")
        };
        return parameters::invalid(&name, &message).into_response();
    }
    match inner.call(request).await {
        Ok(response) => response,
        Err(error) => shape::error(error).await,
    }
}

/// Whether a refusal is one of something that was not even begun. In a sandbox it may have been, before it was seen that
/// the sandbox was gone, or paused.
fn did_nothing(operation: &Operation, status: StatusCode) -> bool {
    let may_be_late = operation.id.starts_with("sandbox_");
    match status {
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => !may_be_late,
        status => status.is_client_error(),
    }
}

fn deed(operation: &Operation, request: &Request, address: Option<IpAddr>) -> Deed {
    Deed {
        action: operation.id.clone(),
        target: request.uri().path().to_owned(),
        request_id: request::id(request),
        address,
    }
}

/// What an audit entry says of an answer.
fn details(response: &Response) -> Value {
    let mut details = Map::new();
    if let Some(code) = response.data::<Code>() {
        details.insert("code".into(), json!(code.as_str()));
    }
    if let Some(location) = response.header(header::LOCATION) {
        details.insert("location".into(), json!(location));
    }
    if response.data::<Replayed>().is_some() {
        details.insert("replayed".into(), json!(true));
    }
    Value::Object(details)
}

/// The headers of the IETF's draft 03 on rate limits, which clients know.
fn tell(response: &mut Response, standing: Standing) {
    let headers = response.headers_mut();
    let reset = standing.reset.as_millis().div_ceil(1000);
    headers.insert("ratelimit-limit", standing.limit.into());
    headers.insert("ratelimit-remaining", standing.remaining.into());
    headers.insert("ratelimit-reset", whole(reset));
    if !standing.granted {
        headers
            .insert(header::RETRY_AFTER, whole(standing.retry.as_millis().div_ceil(1000).max(1)));
    }
}

fn whole(seconds: u128) -> HeaderValue {
    u64::try_from(seconds).unwrap_or(u64::MAX).into()
}
