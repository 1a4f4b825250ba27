//! The stable words of an error answer, each with its status and its meaning.
//!
//! The list is closed and kept in a golden file: clients match on these words. What was wrong with which
//! field stands in the answer's `details`, under codes of its own.

use poem::http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $status:ident, $meaning:literal;)+) => {
        /// What went wrong, as a client sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $meaning] $name,)+
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The word in JSON.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)+ }
            }

            /// The status it is answered with.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// A sentence about it.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    MalformedRequest = "malformed_request", BAD_REQUEST,
        "The request is no valid HTTP, or its body is no valid UTF-8 or JSON.";
    InvalidParameter = "invalid_parameter", BAD_REQUEST,
        "A parameter in the path, the query or a header has the wrong form.";
    Unauthorized = "unauthorized", UNAUTHORIZED,
        "No API key was sent, or it is unknown, revoked or expired.";
    Forbidden = "forbidden", FORBIDDEN,
        "The API key does not have the scope that the operation needs.";
    NotFound = "not_found", NOT_FOUND,
        "There is nothing here, or nothing that the API key may see.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED,
        "The path exists, but not with this method.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT,
        "The body did not arrive in time.";
    IdempotencyConflict = "idempotency_conflict", CONFLICT,
        "The Idempotency-Key was used before with another body.";
    BuildOver = "build_over", CONFLICT,
        "The build has ended; there is nothing to cancel.";
    BuildNotEnded = "build_not_ended", CONFLICT,
        "Only a build that failed or was cancelled can be retried.";
    TemplateInUse = "template_in_use", CONFLICT,
        "A build that is not over or a sandbox needs the template; `details` lists what.";
    TemplateOfHost = "template_of_host", CONFLICT,
        "The template came with a host, which would offer it again; remove it there.";
    TemplateDeleted = "template_deleted", CONFLICT,
        "The template was deleted at this moment; nothing was started from it.";
    HostNotDrained = "host_not_drained", CONFLICT,
        "The host takes builds and sandboxes; drain it first.";
    HostInUse = "host_in_use", CONFLICT,
        "The host is not empty; `details` lists what is on it.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE,
        "The body is over the limit.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE,
        "The body is not sent as application/json.";
    Invalid = "invalid", UNPROCESSABLE_ENTITY,
        "The body is well-formed, but something in it is not accepted; `details` lists all of it.";
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS,
        "This server follows as many logs as it may; try again later or read pages.";
    Internal = "internal", INTERNAL_SERVER_ERROR,
        "A fault of Ovenbird; the request id in the answer's header finds it in the log.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE,
        "A service that Ovenbird needs did not answer in time; try again.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_golden_list() {
        let list: Vec<_> = Code::ALL
            .iter()
            .map(|code| format!("{} {} {}", code.status().as_u16(), code.as_str(), code.meaning()))
            .collect();
        insta::assert_snapshot!(list.join("\n"));
    }
}
