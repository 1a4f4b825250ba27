//! The stable words of an error answer, each with its status and its meaning.
//!
//! The list is closed and kept in a golden file: clients match on these words. What was wrong with which
//! field stands in the answer's `details`, under codes of its own: [`DETAILS`], and those of the recipe language
//! and of archives.

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
    RegistrationRefused = "registration_refused", FORBIDDEN,
        "The registration token is unknown, used or over; an admin makes another one for the host.";
    RenewalRefused = "renewal_refused", FORBIDDEN,
        "No host has registered with this key, it was deleted, or its certificate has ended; register again with a new token.";
    NotFound = "not_found", NOT_FOUND,
        "There is nothing here, or nothing that the API key may see.";
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED,
        "The path exists, but not with this method.";
    RequestTimeout = "request_timeout", REQUEST_TIMEOUT,
        "The body did not arrive in time.";
    IdempotencyConflict = "idempotency_conflict", CONFLICT,
        "The Idempotency-Key was used before with another path or body.";
    IdempotencyHeld = "idempotency_held", CONFLICT,
        "The request with this Idempotency-Key is still being carried out; ask again for its answer.";
    AnswerNotKept = "answer_not_kept", CONFLICT,
        "The request with this Idempotency-Key was carried out, but its answer was not kept: it was a stream, too large, or too much was kept for the API key.";
    BuildOver = "build_over", CONFLICT,
        "The build has ended; there is nothing to cancel.";
    BuildNotEnded = "build_not_ended", CONFLICT,
        "Only a build that failed or was cancelled can be retried.";
    SandboxPaused = "sandbox_paused", CONFLICT,
        "The sandbox is paused; resume it first.";
    SandboxBusy = "sandbox_busy", CONFLICT,
        "Something else is being done with the sandbox; try again when it has ended.";
    SandboxOver = "sandbox_over", CONFLICT,
        "The sandbox has ended or is being deleted; start another one.";
    SandboxRefused = "sandbox_refused", CONFLICT,
        "The sandbox does not do it, as things are in it: a directory where a file is needed, a user that is not there.";
    SandboxFull = "sandbox_full", CONFLICT,
        "The sandbox's disk is full, or its host passes as many files on as it can.";
    ContextsFull = "contexts_full", CONFLICT,
        "The key has uploaded as many bytes of contexts as it may, or all keys together have; those that nobody uses are removed after a while.";
    LastAdminKey = "last_admin_key", CONFLICT,
        "Without this key nobody could administer Ovenbird; make another one of scope admin first.";
    TemplateInUse = "template_in_use", CONFLICT,
        "A build that is not over or a sandbox needs the template; `details` lists what.";
    TemplateOfHost = "template_of_host", CONFLICT,
        "The template came with a host, which would offer it again; remove it there.";
    TemplateDeleted = "template_deleted", CONFLICT,
        "The template was deleted at this moment; nothing was started from it.";
    HostNotDrained = "host_not_drained", CONFLICT,
        "The host takes builds and sandboxes; drain it first.";
    RegistrationOff = "registration_off", CONFLICT,
        "Hosts cannot register here: `registration.authority` is missing in the api's configuration.";
    HostTaken = "host_taken", CONFLICT,
        "Another host has registered with the same address or key; delete it first.";
    HostInUse = "host_in_use", CONFLICT,
        "The host is not empty; `details` lists what is on it.";
    BodyTooLarge = "body_too_large", PAYLOAD_TOO_LARGE,
        "The body is over the limit.";
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE,
        "The body is not sent as application/json.";
    RangeOutside = "range_outside", RANGE_NOT_SATISFIABLE,
        "No byte of the range is in the file.";
    Invalid = "invalid", UNPROCESSABLE_ENTITY,
        "The body is well-formed, but something in it is not accepted; `details` lists all of it.";
    RateLimited = "rate_limited", TOO_MANY_REQUESTS,
        "The API key, or the address without a valid one, asks too often; wait for the seconds in Retry-After.";
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS,
        "This server follows as many logs or commands as it may, or as the key may; try again later.";
    TooManyUploads = "too_many_uploads", TOO_MANY_REQUESTS,
        "This server takes as many uploads of contexts as it may, or as the key may; try again later.";
    Internal = "internal", INTERNAL_SERVER_ERROR,
        "A fault of Ovenbird; the request id in the answer's header finds it in the log.";
    NoCapacity = "no_capacity", SERVICE_UNAVAILABLE,
        "No host that answers holds the template and has room for the sandbox; try again later.";
    HostUnavailable = "host_unavailable", SERVICE_UNAVAILABLE,
        "The sandbox's host does not answer, or cannot do it now; try again.";
    Unavailable = "unavailable", SERVICE_UNAVAILABLE,
        "A service that Ovenbird needs did not answer in time; try again.";
}

/// The codes of `details`, besides those of recipes and healthchecks.
pub const DETAILS: &[(&str, &str)] = &[
    ("missing", "The field is required."),
    ("wrong_type", "The value has another JSON type than the field."),
    ("wrong_form", "The text does not have the form of the field."),
    ("wrong_length", "The text or the list is too short or too long."),
    ("unknown_value", "The text is none of those that the field takes."),
    ("unknown_field", "The field is not known here."),
    ("out_of_range", "The number or the time is too small or too large."),
    ("invalid_value", "The parameter is not known here, or has the wrong form."),
    ("bad_cursor", "The cursor is none of this list, or was changed."),
    ("unknown_template", "There is no template of this name and tag."),
    (
        "name_taken",
        "The name is that of a host's templates, or another key's; only a key of scope admin may use it.",
    ),
    ("unknown_lane", "There is no such lane."),
    ("missing_context", "The recipe copies from a context, and the build names none."),
    (
        "context_not_found",
        "There is no such context: it was never uploaded, or is removed because nobody used it.",
    ),
    ("wrong_digest", "The body has another sha256 than the path says."),
    ("contradiction", "Two fields exclude each other."),
    ("fixed", "A snapshot decides it; it cannot be changed."),
    ("bad_text", "The text holds a character that cannot be passed on."),
    ("bad_env", "Not a name of a variable, or not a value for one."),
    ("build_needs_it", "A build that is not over starts from the template."),
    ("sandbox_needs_it", "A sandbox was started from the template."),
    ("build_there", "A build that is not over is on the host."),
    ("sandbox_there", "A sandbox is on the host."),
    ("only_copy", "No other host holds the template."),
];

/// Whether a word is a known code of `details`.
pub fn is_detail(word: &str) -> bool {
    let recipe = ovenbird_recipe::Code::ALL.iter().map(|code| code.as_str());
    let context = ovenbird_context::Code::ALL.iter().map(|code| code.as_str());
    let known = DETAILS.iter().map(|(known, _)| *known);
    known.chain(recipe).chain(context).any(|known| known == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_the_golden_list() {
        let errors = Code::ALL
            .iter()
            .map(|code| format!("{} {} {}", code.status().as_u16(), code.as_str(), code.meaning()));
        let details = DETAILS.iter().map(|(word, meaning)| format!("detail {word} {meaning}"));
        let recipe = ovenbird_recipe::Code::ALL
            .iter()
            .map(|code| format!("recipe {} {}", code.as_str(), code.meaning()));
        let context = ovenbird_context::Code::ALL
            .iter()
            .map(|code| format!("context {} {}", code.as_str(), code.meaning()));
        let list: Vec<_> = errors.chain(details).chain(recipe).chain(context).collect();
        insta::assert_snapshot!(list.join("\n"));
        assert!(is_detail("missing") && is_detail("unknown_step") && !is_detail("other"));
    }
}
