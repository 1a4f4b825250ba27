//! `Idempotency-Key`: a request that is sent again is carried out once.

use std::pin::pin;

use poem::{
    Body, IntoResponse as _, Request, Response,
    http::{Method, StatusCode, header},
};

use super::{
    auth, body,
    code::Code,
    error::{Failure, MadeNothing},
    operations::{IDEMPOTENCY_KEY, Operation},
    parameters, request,
};
use crate::{
    app::{
        App,
        idempotency::{ANSWER_MAX, Answer, Ask, Held, RENEW_EVERY, Turn},
        keys::Caller,
    },
    config,
};

const REPLAYED: &str = "idempotency-replayed";
const JSON: &str = "application/json";
const KEY_MAX: usize = 255;

/// Marks an answer that was given before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Replayed;

/// Lets `act` carry the request out, or answers as it was answered before.
pub(super) async fn once<F, A>(
    app: &App,
    limits: &config::Http,
    operation: &Operation,
    caller: &Caller,
    mut request: Request,
    act: A,
) -> Response
where
    A: FnOnce(Request) -> F,
    F: Future<Output = Response>,
{
    let key = match key(operation, &request) {
        Ok(Some(key)) => key,
        Ok(None) => return act(request).await,
        Err(failure) => return failure.into_response(),
    };
    let turn = match begin(app, limits, operation, caller, &key, &mut request).await {
        Ok(turn) => turn,
        Err(failure) => return failure.into_response(),
    };
    let held = match turn {
        Turn::Act(held) => held,
        Turn::Replay(answer) => return replay(answer),
    };
    request.set_data(request::Resource { id: held.resource, again: held.again });
    let mut acting = pin!(act(request));
    let response = loop {
        tokio::select! {
            response = &mut acting => break response,
            () = tokio::time::sleep(RENEW_EVERY) => app.idempotency_renew(&held).await,
        }
    };
    end(app, &held, response).await
}

/// The header, where the operation takes it. PUT and DELETE can be repeated as they are and ignore it.
fn key(operation: &Operation, request: &Request) -> Result<Option<String>, Failure> {
    let Some(value) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    if !operation.takes_idempotency_key {
        if request.method() != Method::POST {
            return Ok(None);
        }
        return Err(parameters::invalid(IDEMPOTENCY_KEY, "is not taken here"));
    }
    let text = value.to_str().ok().filter(|text| {
        (1..=KEY_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    });
    let text = text.ok_or_else(|| {
        parameters::invalid(IDEMPOTENCY_KEY, "must be 1 to 255 printable characters, no blanks")
    })?;
    Ok(Some(text.to_owned()))
}

async fn begin(
    app: &App,
    limits: &config::Http,
    operation: &Operation,
    caller: &Caller,
    key: &str,
    request: &mut Request,
) -> Result<Turn, Failure> {
    let bytes = if operation.has_body {
        let bytes = body::read(request.take_body(), limits).await?;
        request.set_body(bytes.clone());
        bytes
    } else {
        Vec::new()
    };
    let path = request.uri().path_and_query().map_or("", |path| path.as_str());
    let roots = auth::roots(app, request).await?;
    let roots = &roots.ok_or_else(|| Failure::new(Code::Unauthorized))?;
    let ask = Ask { caller: caller.key, roots, operation: &operation.id, key, path, body: &bytes };
    Ok(app.idempotency_begin(&ask).await?)
}

/// Keeps what was answered.
async fn end(app: &App, held: &Held, mut response: Response) -> Response {
    let status = response.status();
    if !status.is_success() {
        let did_nothing = status.is_client_error() && !held.again;
        let forget = did_nothing || response.data::<MadeNothing>().is_some();
        app.idempotency_give_up(held, forget).await;
        return response;
    }
    let is_json = response.content_type().is_some_and(|kind| kind.starts_with(JSON));
    let body = response.take_body();
    if !is_json && !body.is_empty() {
        // A stream: it passes by.
        response.set_body(body);
        app.idempotency_answer(held, None).await;
        return response;
    }
    // Whole already: JSON is made in one piece.
    let Ok(bytes) = body.into_bytes().await else {
        app.idempotency_answer(held, None).await;
        return Failure::new(Code::Internal).into_response();
    };
    let answer = std::str::from_utf8(&bytes).ok().filter(|_| bytes.len() <= ANSWER_MAX);
    let answer = answer.map(|body| Answer {
        status: status.as_u16(),
        location: response.header(header::LOCATION).map(str::to_owned),
        body: body.to_owned(),
    });
    app.idempotency_answer(held, answer.as_ref()).await;
    response.set_body(Body::from_bytes(bytes));
    response
}

fn replay(answer: Answer) -> Response {
    let status = StatusCode::from_u16(answer.status);
    let mut response = Response::builder().header(REPLAYED, "true");
    if let Some(location) = answer.location {
        response = response.header(header::LOCATION, location);
    }
    if !answer.body.is_empty() {
        response = response.content_type(JSON);
    }
    let mut response = response.status(status.unwrap_or_default()).body(answer.body);
    response.set_data(Replayed);
    response
}
