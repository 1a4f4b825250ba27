//! The OpenAPI document and its page.

use serde_json::Value;

use crate::world::World;

#[tokio::test]
async fn document_is_the_checked_in_one_and_says_what_generators_need() {
    let world = World::start().await;
    let served = world.get("/openapi.json").await.text().await.unwrap();
    let checked_in = include_str!("../../../openapi/openapi.json");
    assert!(
        served == checked_in,
        "openapi/openapi.json is not what the code says: write it with `cargo dev openapi`"
    );
    let document: Value = serde_json::from_str(&served).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(!path.contains(':') && !path.ends_with('/'), "{path}");
        for operation in item.as_object().unwrap().values() {
            assert!(operation["operationId"].is_string(), "{path}");
            assert!(operation["summary"].is_string(), "{path}");
            let responses = operation["responses"].as_object().unwrap();
            for (status, response) in
                responses.iter().filter(|(status, _)| status.starts_with(['4', '5']))
            {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                let known = schema == "#/components/schemas/Error" || path == "/readyz";
                assert!(known, "{path} {status}");
                let described = response["description"].as_str().unwrap();
                assert!(described.contains('`') || path == "/readyz", "{path} {status}");
            }
        }
    }
    let mut references = Vec::new();
    texts(&document, "$ref", &mut references);
    for reference in references {
        let found = document.pointer(reference.trim_start_matches('#'));
        assert!(found.is_some(), "{reference} leads nowhere");
    }
    assert_eq!(document["components"]["schemas"]["BuildCreate"]["additionalProperties"], false);
    // Every pattern is one that the server itself can use.
    let mut patterns = Vec::new();
    texts(&document, "pattern", &mut patterns);
    assert!(patterns.len() > 5);
    for pattern in patterns {
        regex::Regex::new(&pattern).unwrap();
    }
}

/// Every text under this name, wherever it stands.
fn texts(value: &Value, name: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(name).and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| texts(value, name, found));
        }
        Value::Array(items) => items.iter().for_each(|value| texts(value, name, found)),
        _ => {}
    }
}

#[tokio::test]
async fn docs_page_holds_the_document_and_loads_nothing_from_elsewhere() {
    let world = World::start().await;
    let page = world.client.get(format!("{}/docs", world.url)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    let page = page.text().await.unwrap();
    assert!(page.contains("\"operationId\": \"build_create\""));
    assert!(page.contains("\"withDefaultFonts\":false"));
    let head = page.split("id=\"api-reference\"").next().unwrap();
    assert!(!head.contains("src=") && !head.contains("<link"));
}

#[tokio::test]
async fn no_answer_is_taken_for_another_type_and_the_page_is_in_no_frame() {
    let world = World::start().await;
    for path in ["/healthz", "/openapi.json", "/docs", "/nothing", "/v1/admin/builds", "/v1/%ff"] {
        let response = world.get(path).await;
        let nosniff = response.headers().get("x-content-type-options");
        assert_eq!(nosniff.map(|value| value.as_bytes()), Some(&b"nosniff"[..]), "{path}");
    }
    let page = world.get("/docs").await;
    assert_eq!(page.headers()["content-security-policy"], "frame-ancestors 'none'");
    assert_eq!(page.headers()["x-frame-options"], "DENY");
}
