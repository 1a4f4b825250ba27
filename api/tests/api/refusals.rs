//! What bad input gets: the documented error, never a 5xx, and nothing is stored.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::World;

/// `(field, code)` of every detail, in order.
fn details(body: &Value) -> Vec<(String, String)> {
    let details = body["error"]["details"].as_array().expect("details is a list");
    let text = |detail: &Value, name: &str| detail[name].as_str().unwrap().to_owned();
    details.iter().map(|detail| (text(detail, "field"), text(detail, "code"))).collect()
}

#[tokio::test]
async fn bad_submission_is_answered_with_everything_that_is_wrong() {
    let world = World::with_host().await;
    let good = json!({"name": "a", "recipe": ["RUN true"]});
    let with = |changes: Value| {
        let mut body = good.clone();
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let long = "a".repeat(64);
    let cases: Vec<(Value, &[(&str, &str)])> = vec![
        (json!({}), &[("name", "missing"), ("recipe", "missing")]),
        (json!([]), &[("body", "wrong_type")]),
        (with(json!({"name": true})), &[("name", "wrong_type")]),
        (with(json!({"name": ""})), &[("name", "wrong_form")]),
        (with(json!({"name": "Web"})), &[("name", "wrong_form")]),
        (with(json!({"name": "a b"})), &[("name", "wrong_form")]),
        (with(json!({"name": "a\n"})), &[("name", "wrong_form")]),
        (with(json!({"name": "a\u{0}"})), &[("name", "wrong_form")]),
        (with(json!({"name": ".a"})), &[("name", "wrong_form")]),
        (with(json!({"name": long})), &[("name", "wrong_form")]),
        (with(json!({"tag": "-x"})), &[("tag", "wrong_form")]),
        (with(json!({"tag": 1})), &[("tag", "wrong_type")]),
        (with(json!({"lane": "a.b"})), &[("lane", "wrong_form")]),
        (with(json!({"lane": "big"})), &[("lane", "unknown_lane")]),
        (with(json!({"base_template": "none"})), &[("base_template", "unknown_template")]),
        (with(json!({"base_template": "minimal:v9"})), &[("base_template", "unknown_template")]),
        (with(json!({"base_template": "a:b:c"})), &[("base_template", "wrong_form")]),
        (with(json!({"vcpus": 0})), &[("vcpus", "out_of_range")]),
        (with(json!({"vcpus": 5})), &[("vcpus", "out_of_range")]),
        (with(json!({"vcpus": -1})), &[("vcpus", "out_of_range")]),
        (with(json!({"vcpus": 1.5})), &[("vcpus", "wrong_type")]),
        (with(json!({"vcpus": "2"})), &[("vcpus", "wrong_type")]),
        (with(json!({"memory_mb": 64})), &[("memory_mb", "out_of_range")]),
        (with(json!({"memory_mb": 8193})), &[("memory_mb", "out_of_range")]),
        (with(json!({"memory_mb": 1e300})), &[("memory_mb", "wrong_type")]),
        (with(json!({"disk_mb": 1})), &[("disk_mb", "out_of_range")]),
        (with(json!({"skip_hooks": "no"})), &[("skip_hooks", "wrong_type")]),
        (with(json!({"context": "0".repeat(64)})), &[("context", "context_not_found")]),
        (with(json!({"colour": "red"})), &[("colour", "unknown_field")]),
        (with(json!({"recipe": "RUN true"})), &[("recipe", "wrong_type")]),
        (with(json!({"recipe": []})), &[("recipe", "wrong_length")]),
        (with(json!({"recipe": ["# none"]})), &[("recipe", "empty_recipe")]),
        (with(json!({"recipe": [1]})), &[("recipe", "bad_object")]),
        (with(json!({"recipe": ["COPY a /b"]})), &[("context", "missing_context")]),
        (with(json!({"healthcheck": 1})), &[("healthcheck", "wrong_type")]),
        (with(json!({"healthcheck": ""})), &[("healthcheck", "missing_argument")]),
        (with(json!({"recipe": vec!["RUN true"; 1201]})), &[("recipe", "too_many_steps")]),
    ];
    for (body, expected) in cases {
        let response = world.post("/v1/admin/builds", &body).await;
        let shown: String = body.to_string().chars().take(200).collect();
        assert_eq!(response.status(), 422, "{shown}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "invalid", "{shown}");
        let expected: Vec<_> =
            expected.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        assert_eq!(details(&answer), expected, "{shown}: {answer}");
    }
    assert_eq!(world.builds().await, "0");
}

#[tokio::test]
async fn all_mistakes_of_one_submission_come_at_once_with_their_places() {
    let world = World::with_host().await;
    let body = json!({
        "name": "Bad", "vcpus": 99, "base_template": "none", "colour": "red",
        "recipe": ["RUN true", "NONE x", "ENV 1=2\nRUN", {"type": "RUN", "args": ["a"], "timeout": "x"}],
        "healthcheck": "--retries=x true",
    });
    let response = world.post("/v1/admin/builds", &body).await;
    assert_eq!(response.status(), 422);
    let answer: Value = response.json().await.unwrap();
    let found = details(&answer);
    for expected in [
        ("colour", "unknown_field"),
        ("name", "wrong_form"),
        ("recipe", "unknown_step"),
        ("recipe", "bad_env_key"),
        ("recipe", "missing_argument"),
        ("recipe.timeout", "bad_duration"),
        ("healthcheck", "bad_number"),
        ("base_template", "unknown_template"),
        ("vcpus", "out_of_range"),
    ] {
        let expected = (expected.0.to_owned(), expected.1.to_owned());
        assert!(found.contains(&expected), "{expected:?} is not in {found:?}");
    }
    assert_eq!(found.len(), 9, "{found:?}");
    let details = answer["error"]["details"].as_array().unwrap();
    let unknown = details.iter().find(|detail| detail["code"] == "unknown_step").unwrap();
    assert_eq!((&unknown["line"], &unknown["column"]), (&json!(2), &json!(1)));
    assert!(unknown["hint"].is_string() && unknown["message"].is_string());
    assert_eq!(world.builds().await, "0");

    let checked = world.post("/v1/admin/builds/validate", &body).await;
    assert_eq!(checked.status(), 200);
    let checked: Value = checked.json().await.unwrap();
    assert_eq!((&checked["valid"], &checked["problems"]), (&json!(false), &json!(details)));
    let fine = json!({"name": "a", "recipe": ["# why", "RUN true"]});
    let checked: Value = world.post("/v1/admin/builds/validate", &fine).await.json().await.unwrap();
    let steps = json!([{"step": 1, "cmd": "RUN true"}]);
    assert_eq!(checked, json!({"valid": true, "problems": [], "steps": steps}));
    assert_eq!(world.builds().await, "0");
}

#[tokio::test]
async fn bounds_are_the_configured_ones_until_a_host_is_known() {
    let world = World::start().await;
    let body = json!({"name": "a", "recipe": ["RUN true"], "vcpus": 8, "memory_mb": 20000});
    let answer: Value = world.post("/v1/admin/builds", &body).await.json().await.unwrap();
    let expected = [("base_template", "unknown_template"), ("memory_mb", "out_of_range")];
    let expected = expected.map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(details(&answer), expected);

    world.host(16, 1024).await;
    world.host(2, 32_768).await;
    assert_eq!(world.post("/v1/admin/builds", &body).await.status(), 422, "no host has both");
    let body = json!({"name": "a", "recipe": ["RUN true"], "vcpus": 2, "memory_mb": 20000});
    assert_eq!(world.post("/v1/admin/builds", &body).await.status(), 201);
}

#[tokio::test]
async fn every_error_has_the_one_shape_and_its_status() {
    let world = World::start().await;
    let builds = "/v1/admin/builds";
    let build = "/v1/admin/builds/bld_01h455vb4pex5vsknk084sn02q";
    let template = "/v1/admin/builds/tpl_01h455vb4pex5vsknk084sn02q";
    let logs = |query: &str| format!("{build}/logs?{query}");
    let cases = [
        (Method::GET, "/nothing".to_owned(), 404, "not_found"),
        (Method::GET, "/v1/nothing".to_owned(), 404, "not_found"),
        (Method::GET, "/".to_owned(), 404, "not_found"),
        (Method::DELETE, builds.to_owned(), 405, "method_not_allowed"),
        (Method::POST, "/healthz".to_owned(), 405, "method_not_allowed"),
        (Method::GET, build.to_owned(), 404, "not_found"),
        (Method::GET, format!("{build}/logs"), 404, "not_found"),
        (Method::GET, format!("{build}/logs/stream"), 404, "not_found"),
        (Method::GET, template.to_owned(), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}/x"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?limit=0"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?limit=-1"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?limit=201"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?limit=many"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?cursor=AAAA"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?cursor={}", "A".repeat(500)), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?status=done"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?since=yesterday"), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?since="), 400, "invalid_parameter"),
        (Method::GET, format!("{builds}?name=%00"), 400, "invalid_parameter"),
        (Method::GET, logs("from_seq=0"), 400, "invalid_parameter"),
        (Method::GET, logs("from_seq=-5"), 400, "invalid_parameter"),
        (Method::GET, logs("from_seq=99999999999999999999"), 400, "invalid_parameter"),
        (Method::GET, logs("limit=10001"), 400, "invalid_parameter"),
        (Method::GET, logs("stream=stdin"), 400, "invalid_parameter"),
        (Method::GET, logs("step=-1"), 400, "invalid_parameter"),
    ];
    for (method, path, status, code) in cases {
        let response = world.request(method, &path).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        assert!(response.headers().contains_key("x-request-id"), "{path}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], code, "{path}: {body}");
        assert!(body["error"]["message"].is_string() && body["error"]["details"].is_array());
    }
    let allowed = world.request(Method::DELETE, builds).send().await.unwrap();
    assert_eq!(allowed.headers()["allow"], "GET, POST");
    let stream = world.request(Method::GET, &format!("{build}/logs/stream"));
    let response = stream.header("Last-Event-ID", "x").send().await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn bodies_that_are_no_json_or_too_large_are_refused() {
    let world = World::with(|config| config.http.body_max_bytes = 10_000).await;
    let send = |kind: Option<&str>, body: Vec<u8>| {
        let mut request = world.request(Method::POST, "/v1/admin/builds");
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        request.body(body)
    };
    let json = Some("application/json");
    let large = format!("{{\"name\":\"{}\"}}", "a".repeat(2_000_000)).into_bytes();
    let deep = [b"[".repeat(5000), b"]".repeat(5000)].concat();
    let cases = [
        (json, b"".to_vec(), 400, "malformed_request"),
        (json, b"{".to_vec(), 400, "malformed_request"),
        (json, b"{\"name\":\"\xff\"}".to_vec(), 400, "malformed_request"),
        (json, b"{} {}".to_vec(), 400, "malformed_request"),
        (json, deep, 400, "malformed_request"),
        (json, large.clone(), 413, "body_too_large"),
        (None, b"{}".to_vec(), 415, "unsupported_media_type"),
        (Some("text/plain"), b"{}".to_vec(), 415, "unsupported_media_type"),
        (Some("application/json; charset=utf-8"), b"{}".to_vec(), 422, "invalid"),
    ];
    for (kind, body, status, code) in cases {
        let response = send(kind, body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{code}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    // Without a length, too.
    let pieces = large.chunks(1000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces.collect::<Vec<_>>()));
    let request = world.request(Method::POST, "/v1/admin/builds").body(body);
    let response = request.header("content-type", "application/json").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(world.builds().await, "0");
}

#[tokio::test]
async fn body_that_does_not_arrive_in_time_is_given_up() {
    let timeout = std::time::Duration::from_millis(200);
    let world = World::with(|config| config.http.body_timeout = timeout).await;
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = world.request(Method::POST, "/v1/admin/builds");
    let request = request.header("content-type", "application/json");
    let response = request.body(reqwest::Body::wrap_stream(never)).send().await.unwrap();
    assert_eq!(response.status(), 408);
}
