//! The operations, as the published document has them, found by method and path before any handler is: what the
//! layers around the handlers go by. So a new operation is guarded, limited, noted and repeatable by itself.

use std::{collections::HashMap, sync::Arc};

use matchit::Router;
use poem::{Request, http::Method};
use serde_json::{Map, Value};

/// The header of requests that may be sent again.
pub(super) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
/// What the header may hold.
pub(super) const IDEMPOTENCY_KEY_PATTERN: &str = "^[\\x21-\\x7e]{1,255}$";
/// POSTs that change nothing, and need a body only for its size.
pub(super) const READS: [&str; 1] = ["build_validate"];
/// POSTs whose answer is for once: its cookie must not be kept.
pub(super) const ONCE: [&str; 1] = ["session_open"];
const JSON: &str = "application/json";

/// What is known of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Operation {
    /// Its id.
    pub(super) id: String,
    /// Whether only keys may call it.
    pub(super) needs_key: bool,
    /// Whether it changes or does anything.
    pub(super) changes: bool,
    /// Whether it takes an `Idempotency-Key`.
    pub(super) takes_idempotency_key: bool,
    /// Whether it has a body.
    pub(super) has_body: bool,
    /// Parameters that it takes in the query.
    queries: Vec<String>,
}

impl Operation {
    /// An operation of the document.
    pub(super) fn of(method: &str, operation: &Map<String, Value>) -> Self {
        let text = |name| operation.get(name).and_then(Value::as_str).unwrap_or_default();
        let list = |name| operation.get(name).and_then(Value::as_array).into_iter().flatten();
        let id = text("operationId").to_owned();
        let is_post = method.eq_ignore_ascii_case("post");
        let changes = !method.eq_ignore_ascii_case("get") && !READS.contains(&id.as_str());
        let body = operation.get("requestBody").and_then(|body| body.get("content"));
        let is_json =
            |content: &Map<String, Value>| content.keys().all(|kind| kind.starts_with(JSON));
        let streams = body.and_then(Value::as_object).is_some_and(|content| !is_json(content));
        let needs_key = list("security").next().is_some();
        let queries = list("parameters")
            .filter(|it| it["in"] == "query")
            .filter_map(|it| Some(it["name"].as_str()?.to_owned()));
        Self {
            needs_key,
            // What is streamed cannot be held against what was streamed before.
            takes_idempotency_key: needs_key
                && is_post
                && changes
                && !streams
                && !ONCE.contains(&id.as_str()),
            has_body: body.is_some(),
            queries: queries.collect(),
            changes,
            id,
        }
    }

    /// Whether anybody may call it as often as they like: it needs no key and changes nothing.
    pub(super) fn is_free(&self) -> bool {
        !self.needs_key && !self.changes
    }

    /// A parameter in the query that the operation does not know. A mistyped one would otherwise be ignored in
    /// silence.
    pub(super) fn unknown_query(&self, request: &Request) -> Option<String> {
        let names = request.uri().query()?.split('&').filter(|part| !part.is_empty());
        let mut names = names.map(|part| part.split_once('=').map_or(part, |(name, _)| name));
        let unknown = names.find(|name| !self.queries.iter().any(|known| known == name))?;
        Some(unknown.chars().take(100).collect())
    }

    /// The parameters that it knows in the query.
    pub(super) fn queries(&self) -> &[String] {
        &self.queries
    }
}

/// Every operation of a document.
#[derive(Debug, Default)]
pub(super) struct Operations {
    paths: Router<HashMap<Method, Arc<Operation>>>,
}

impl Operations {
    /// The operations of `document`. A path that cannot be told from another one is left out, and whoever calls it
    /// is refused.
    pub(super) fn of(document: &Value) -> Self {
        let mut paths = Router::new();
        for (path, item) in document["paths"].as_object().into_iter().flatten() {
            let mut methods = HashMap::new();
            for (method, operation) in item.as_object().into_iter().flatten() {
                let known = method.to_uppercase().parse::<Method>().ok();
                if let (Some(known), Some(operation)) = (known, operation.as_object()) {
                    methods.insert(known, Arc::new(Operation::of(method, operation)));
                }
            }
            if let Err(error) = paths.insert(alike(path), methods) {
                tracing::error!(path, %error, "an operation cannot be found by its path");
            }
        }
        Self { paths }
    }

    /// The operation of a request.
    pub(super) fn find(&self, request: &Request) -> Option<&Arc<Operation>> {
        // The router answers HEAD as GET.
        let method = if request.method() == Method::HEAD { &Method::GET } else { request.method() };
        self.paths.at(request.uri().path()).ok()?.value.get(method)
    }
}

/// The same name for each parameter at the same place: two names there are two paths to the router.
fn alike(path: &str) -> String {
    let part = |(place, part): (usize, &str)| {
        if part.starts_with('{') { format!("{{p{place}}}") } else { part.to_owned() }
    };
    path.split('/').enumerate().map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn operations_are_found_by_method_and_path() {
        let document = json!({"paths": {
            "/a": {"get": {"operationId": "list", "parameters": [{"in": "query", "name": "limit"}]}},
            "/a/validate": {"post": {"operationId": "build_validate", "security": [{"bearer": []}]}},
            "/a/{id}": {"delete": {"operationId": "delete", "security": [{"bearer": []}]}},
            "/register": {"post": {"operationId": "register"}},
            "/a/{name}/tags": {"post": {"operationId": "tag", "security": [{"bearer": []}], "requestBody": {"content": {"application/json": {}}}}},
            "/session": {"post": {"operationId": "session_open", "security": [{"bearer": []}]}},
            "/b/{id}": {"post": {"operationId": "upload", "requestBody": {"content": {"application/octet-stream": {}}}}},
        }});
        let operations = Operations::of(&document);
        let request =
            |method: Method, uri: &str| Request::builder().method(method).uri_str(uri).finish();
        let find =
            |method, uri| operations.find(&request(method, uri)).map(|it| it.as_ref().clone());

        let list = find(Method::HEAD, "/a?limit=1").unwrap();
        assert!(!list.needs_key && !list.changes && !list.takes_idempotency_key);
        assert_eq!(list.unknown_query(&request(Method::GET, "/a?limit=1&")), None);
        assert_eq!(list.unknown_query(&request(Method::GET, "/a?limt=1")).as_deref(), Some("limt"));
        let validate = find(Method::POST, "/a/validate").unwrap();
        assert!(validate.needs_key && !validate.changes && !validate.takes_idempotency_key);
        let delete = find(Method::DELETE, "/a/x").unwrap();
        assert!(delete.changes && !delete.takes_idempotency_key);
        let tag = find(Method::POST, "/a/x/tags").unwrap();
        assert!(tag.takes_idempotency_key && tag.has_body);
        assert!(!find(Method::POST, "/b/x").unwrap().takes_idempotency_key);
        let register = find(Method::POST, "/register").unwrap();
        assert!(!register.is_free() && !register.takes_idempotency_key && list.is_free());
        let open = find(Method::POST, "/session").unwrap();
        assert!(open.needs_key && open.changes && !open.takes_idempotency_key);
        assert_eq!(find(Method::PUT, "/a"), None);
        assert_eq!(find(Method::GET, "/a/"), None);
    }
}
