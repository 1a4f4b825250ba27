//! Which errors an operation answers. Most follow from its shape: whether it needs a key, has a body, names
//! something in its path, takes an `Idempotency-Key`. What an operation answers besides stands in [`OWN`].

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    code::Code,
    operations::{IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_PATTERN, Operation},
};

/// The schema of every error, and where an answer names it.
const ERROR: &str = "#/components/schemas/Error";
const SCHEMA: &str = "/content/application~1json/schema/$ref";
/// What a sandbox's state, or its host, may not allow.
const STATE: &[Code] = &[
    Code::TemplateDeleted,
    Code::SandboxPaused,
    Code::SandboxBusy,
    Code::SandboxOver,
    Code::NoCapacity,
    Code::HostUnavailable,
];
/// What is in a sandbox may not allow it either.
const INSIDE: &[Code] = &[
    Code::NotFound,
    Code::SandboxPaused,
    Code::SandboxBusy,
    Code::SandboxOver,
    Code::SandboxRefused,
    Code::SandboxFull,
    Code::RangeOutside,
    Code::TooManyStreams,
    Code::HostUnavailable,
];
/// Codes of single operations.
const OWN: &[(&str, &[Code])] = &[
    ("build_cancel", &[Code::BuildOver]),
    // It has no body of its own, but submits one.
    ("build_retry", &[Code::BuildNotEnded, Code::TemplateDeleted, Code::Invalid]),
    ("build_create", &[Code::TemplateDeleted]),
    ("context_upload", &[Code::TooManyUploads, Code::ContextsFull]),
    ("build_events", &[Code::TooManyStreams]),
    ("build_logs_stream", &[Code::TooManyStreams]),
    ("key_revoke", &[Code::LastAdminKey]),
    ("template_delete", &[Code::TemplateInUse, Code::TemplateOfHost]),
    ("template_tag_set", &[Code::TemplateDeleted]),
    ("host_create", &[Code::RegistrationOff]),
    ("host_token", &[Code::RegistrationOff]),
    ("host_register", &[Code::RegistrationOff, Code::RegistrationRefused, Code::HostTaken]),
    ("host_renew", &[Code::RegistrationOff, Code::RenewalRefused]),
    ("host_delete", &[Code::HostNotDrained, Code::HostInUse]),
    ("sandbox_create", STATE),
    ("sandbox_delete", STATE),
    ("sandbox_pause", STATE),
    ("sandbox_resume", STATE),
    ("sandbox_snapshot", STATE),
    ("sandbox_ping", STATE),
    ("sandbox_exec", INSIDE),
    ("sandbox_exec_stream", INSIDE),
    ("sandbox_file_read", INSIDE),
    ("sandbox_file_write", INSIDE),
    ("sandbox_file_remove", INSIDE),
    ("sandbox_directory_list", INSIDE),
    ("sandbox_directory_make", INSIDE),
];
/// Codes that single operations do not answer, whatever their shape.
const NOT: &[(&str, &[Code])] = &[
    // It tells what is wrong in its answer.
    ("build_validate", &[Code::Invalid]),
    // It makes what is not there.
    ("context_upload", &[Code::NotFound]),
];

/// Describes every error of an operation, and the header by which it can be sent again.
pub(super) fn describe(method: &str, path: &str, operation: &mut Map<String, Value>) {
    let shape = Operation::of(method, operation);
    if shape.is_free() {
        return;
    }
    if shape.takes_idempotency_key {
        let parameters = operation.entry("parameters").or_insert_with(|| json!([]));
        if let Some(parameters) = parameters.as_array_mut() {
            parameters.push(idempotency_key());
        }
    }
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(&shape, path) {
        by_status.entry(code.status().as_u16()).or_default().push(code);
    }
    let responses = operation.entry("responses").or_insert_with(|| json!({}));
    let Some(responses) = responses.as_object_mut() else { return };
    for (status, codes) in by_status {
        // An operation may describe an error in a shape of its own.
        let own = responses.get(&status.to_string()).is_some_and(|own| !is_error(own));
        if !own {
            responses.insert(status.to_string(), response(status, &codes));
        }
    }
}

/// In the order of the golden list.
fn codes(shape: &Operation, path: &str) -> impl Iterator<Item = Code> {
    let of = |table: &[(&str, &'static [Code])]| {
        let found = table.iter().find(|(id, _)| *id == shape.id);
        found.map_or(&[][..], |(_, codes)| *codes)
    };
    let (own, not) = (of(OWN), of(NOT));
    let (has_body, names) = (shape.has_body, path.contains('{'));
    let (needs_key, takes_key) = (shape.needs_key, shape.takes_idempotency_key);
    let follows = move |code: &Code| match code {
        Code::Unauthorized | Code::Forbidden => needs_key,
        Code::InvalidParameter | Code::RateLimited | Code::Internal | Code::Unavailable => true,
        Code::MalformedRequest
        | Code::RequestTimeout
        | Code::BodyTooLarge
        | Code::UnsupportedMediaType
        | Code::Invalid => has_body,
        Code::NotFound => names,
        Code::IdempotencyConflict | Code::IdempotencyHeld | Code::AnswerNotKept => takes_key,
        _ => false,
    };
    let all = Code::ALL.iter().copied();
    all.filter(move |code| own.contains(code) || (follows(code) && !not.contains(code)))
}

fn is_error(response: &Value) -> bool {
    response.pointer(SCHEMA).and_then(Value::as_str) == Some(ERROR)
}

fn response(status: u16, codes: &[Code]) -> Value {
    let told: Vec<_> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.meaning())).collect();
    let mut response = json!({
        "description": told.join("\n\n"),
        "content": {"application/json": {"schema": {"$ref": ERROR}}},
    });
    let seconds = |description: &str| json!({"description": description, "schema": {"type": "integer", "minimum": 0}});
    if matches!(status, 429 | 503) || codes.contains(&Code::IdempotencyHeld) {
        response["headers"]["Retry-After"] = seconds("Seconds to wait.");
    }
    if status == 401 {
        let scheme = json!({"description": "`Bearer`.", "schema": {"type": "string"}});
        response["headers"]["WWW-Authenticate"] = scheme;
    }
    response
}

fn idempotency_key() -> Value {
    json!({
        "name": IDEMPOTENCY_KEY,
        "in": "header",
        "required": false,
        "description": "Any text of your own, at most 255 printable characters; a UUID is usual. The same request \
            with the same text is carried out once, and answered for 24 hours as it was the first time, with \
            `Idempotency-Replayed: true`. A request that was refused (4xx) may be mended and sent again.",
        "schema": {"type": "string", "pattern": IDEMPOTENCY_KEY_PATTERN},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::operations::{ONCE, READS};

    #[test]
    fn every_operation_that_is_named_here_exists() {
        let document = include_str!("../../../openapi/openapi.json");
        let tables = OWN.iter().chain(NOT).map(|(id, _)| *id);
        for id in tables.chain(READS).chain(ONCE) {
            assert!(document.contains(&format!("\"operationId\": \"{id}\"")), "{id}");
        }
    }
}
