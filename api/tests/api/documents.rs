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
            }
        }
    }
    assert_eq!(document["components"]["schemas"]["BuildCreate"]["additionalProperties"], false);
    // Every pattern is one that the server itself can use.
    let mut patterns = Vec::new();
    collect(&document, &mut patterns);
    assert!(patterns.len() > 5);
    for pattern in patterns {
        regex::Regex::new(&pattern).unwrap();
    }
}

fn collect(value: &Value, patterns: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(pattern) = fields.get("pattern").and_then(Value::as_str) {
                patterns.push(pattern.to_owned());
            }
            fields.values().for_each(|value| collect(value, patterns));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, patterns)),
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
