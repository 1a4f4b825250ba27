//! Gives every error that no handler made (an unknown route, a wrong method, a parameter that does not
//! parse, a panic) the one error shape.

use std::any::Any;

use poem::{
    IntoResponse, Response,
    error::{MethodNotAllowedError, NotFoundError, ParsePathError, ReadBodyError},
    http::StatusCode,
};
use poem_openapi::error::{
    AuthorizationError, ContentTypeError, ParseParamError, ParsePathError as ParseOpenApiPathError,
    ParseRequestPayloadError,
};

use super::{code::Code, error::Failure};
use crate::app::Problem;

/// The answer for an error that reached the outermost layer.
pub(super) async fn error(error: poem::Error) -> Response {
    if error.is_from_response() {
        return error.into_response();
    }
    failure(&error).into_response()
}

fn failure(error: &poem::Error) -> Failure {
    if let Some(param) = error.downcast_ref::<ParseParamError>() {
        return parameter(param.name, &param.reason);
    }
    if let Some(path) = error.downcast_ref::<ParseOpenApiPathError>() {
        return parameter(path.name, &path.reason);
    }
    if error.is::<NotFoundError>() || error.is::<ParsePathError>() {
        return Failure::with_message(
            Code::NotFound,
            "there is nothing at this path; /docs lists what there is",
        );
    }
    if error.is::<MethodNotAllowedError>() {
        return Failure::new(Code::MethodNotAllowed);
    }
    if error.is::<AuthorizationError>() {
        return Failure::new(Code::Unauthorized);
    }
    if let Some(payload) = error.downcast_ref::<ParseRequestPayloadError>() {
        return Failure::with_message(Code::MalformedRequest, payload.reason.clone());
    }
    if error.is::<ContentTypeError>() {
        return Failure::new(Code::UnsupportedMediaType);
    }
    if error.is::<ReadBodyError>() {
        return Failure::new(Code::MalformedRequest);
    }
    by_status(error)
}

/// For errors of the framework that have no type of their own here.
fn by_status(error: &poem::Error) -> Failure {
    let code = match error.status() {
        StatusCode::UNAUTHORIZED => Code::Unauthorized,
        StatusCode::FORBIDDEN => Code::Forbidden,
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Code::MethodNotAllowed,
        StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Code::UnsupportedMediaType,
        status if status.is_client_error() => Code::MalformedRequest,
        _ => {
            tracing::error!(error = %error, "request failed in the framework");
            Code::Internal
        }
    };
    Failure::new(code)
}

fn parameter(name: &str, reason: &str) -> Failure {
    let problem = Problem::new(name, "invalid_value", reason.trim());
    Failure::with_problems(Code::InvalidParameter, vec![problem])
}

/// The answer after a panic in a handler; the panic hook has logged where.
pub(super) fn panicked(_panic: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Failure::new(Code::Internal).into_response()
}
