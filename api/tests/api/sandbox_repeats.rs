//! Requests about sandboxes that are sent again after nobody knows what came of them.

use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{sandboxes, world::World};

const SANDBOXES: &str = "/v1/sandboxes";
/// What an api leaves that died before it answered.
const DIED: &str =
    "UPDATE idempotency_keys SET answered_at = NULL, answer = NULL, held_until = now()";

async fn send(world: &World, path: &str, key: &str, body: &Value) -> Response {
    let request = world.request(Method::POST, path).header("Idempotency-Key", key);
    request.json(body).send().await.unwrap()
}

async fn answer(response: Response) -> (u16, Value) {
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn sql(world: &World, text: &str) -> String {
    world.postgres.sql("ovenbird", text).await.unwrap()
}

#[tokio::test]
async fn create_whose_server_died_is_answered_with_the_sandbox_that_it_made() {
    let (world, host) = World::with_agent(|_| {}).await;
    let body = json!({"template": "minimal"});
    let first = answer(send(&world, SANDBOXES, "k", &body).await).await;
    assert_eq!(first.0, 201);
    sql(&world, DIED).await;
    assert_eq!(answer(send(&world, SANDBOXES, "k", &body).await).await, first);
    assert_eq!(host.sandboxes().await.len(), 1);
    assert_eq!(sql(&world, "SELECT count(*) FROM sandboxes").await, "1");

    // It may even be over by now.
    let path = sandboxes::path(&first.1, "");
    assert_eq!(world.request(Method::DELETE, &path).send().await.unwrap().status(), 200);
    sql(&world, DIED).await;
    let over = answer(send(&world, SANDBOXES, "k", &body).await).await;
    assert_eq!((over.0, &over.1["id"]), (201, &first.1["id"]));
    assert!(host.sandboxes().await.is_empty());
}

#[tokio::test]
async fn create_that_failed_is_tried_anew_when_it_is_sent_again() {
    let (world, mut host) = World::with_agent(|_| {}).await;
    host.goes().await;
    let body = json!({"template": "minimal"});
    for tried in ["1", "2"] {
        let refused = answer(send(&world, SANDBOXES, "k", &body).await).await;
        assert_eq!((refused.0, &refused.1["error"]["code"]), (503, &json!("host_unavailable")));
        let rows = "SELECT count(*) FROM sandboxes WHERE reason->>'code' = 'create_failed'";
        assert_eq!(sql(&world, rows).await, tried, "each try is one of its own");
    }
    assert_eq!(sql(&world, "SELECT count(*) FROM idempotency_keys").await, "0");
}

#[tokio::test]
async fn snapshot_whose_server_died_is_answered_with_the_template_that_it_made() {
    let (world, _host) = World::with_agent(|_| {}).await;
    let made = sandboxes::create(&world, json!({"template": "minimal"})).await;
    let path = sandboxes::path(&made, "/snapshot");
    let body = json!({"name": "saved"});
    let first = answer(send(&world, &path, "k", &body).await).await;
    assert_eq!((first.0, &first.1["status"]), (200, &json!("destroyed")));
    sql(&world, DIED).await;
    assert_eq!(answer(send(&world, &path, "k", &body).await).await, first);
    let other = answer(send(&world, &path, "other", &body).await).await;
    assert_eq!((other.0, &other.1["error"]["code"]), (409, &json!("sandbox_over")));
    assert_eq!(sql(&world, "SELECT count(*) FROM templates WHERE name = 'saved'").await, "1");
}
