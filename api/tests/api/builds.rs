//! Builds, submitted and read.

use ovenbird_api::app::keys::Scope;
use ovenbird_testkit::wait_until;
use redis::AsyncCommands as _;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{SOON, World};

async fn queued(world: &World) -> Vec<String> {
    let client = redis::Client::open(world.redis.url()).unwrap();
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SOON))
        .set_response_timeout(Some(SOON));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connection.unwrap();
    connection.lrange("ovenbird:ovenbird:builds:queued", 0, -1).await.unwrap()
}

#[tokio::test]
async fn build_is_stored_whole_queued_and_told() {
    let world = World::with_host().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let recipe = json!(["ENV PORT=80", {"type": "RUN", "args": ["make"], "timeout": "5m"}]);
    let body = json!({
        "name": "web-1.0_a", "tag": "v1", "base_template": "minimal:latest", "recipe": recipe,
        "healthcheck": "--retries=3 curl -f localhost", "vcpus": 2, "memory_mb": 1024,
        "disk_mb": 2048, "lane": "default", "skip_hooks": true, "context": null,
    });
    let request = world.request(Method::POST, "/v1/admin/builds").header("traceparent", trace);
    let response = request.json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert!(!response.headers()["x-request-id"].is_empty());
    let build: Value = response.json().await.unwrap();
    let id = build["id"].as_str().unwrap();
    assert_eq!(location, format!("/v1/admin/builds/{id}"));
    for (field, expected) in [
        ("name", json!("web-1.0_a")),
        ("tag", json!("v1")),
        ("base_template", json!("minimal:latest")),
        ("recipe", recipe),
        ("healthcheck", json!("--retries=3 curl -f localhost")),
        ("vcpus", json!(2)),
        ("memory_mb", json!(1024)),
        ("disk_mb", json!(2048)),
        ("lane", json!("default")),
        ("status", json!("queued")),
        ("attempt", json!(0)),
        ("current_step", json!(0)),
        ("total_steps", json!(2)),
        ("logs", json!([])),
    ] {
        assert_eq!(build[field], expected, "{field}");
    }
    assert!(build["requested_by"].as_str().unwrap().starts_with("key_"));
    assert!(build.get("reason").is_none() && build.get("host_id").is_none(), "absent, not null");
    assert_eq!(world.get_json(&location).await, build);
    assert_eq!(queued(&world).await, [id]);

    let row = "SELECT plan->'steps'->1->>'kind', trace, skip_hooks, base_template_id IS NOT NULL,
                      length(plan_digest) FROM template_builds";
    assert_eq!(world.postgres.sql("ovenbird", row).await.unwrap(), format!("run|{trace}|t|t|64"));
}

#[tokio::test]
async fn list_is_paged_newest_first_without_logs_and_filtered() {
    let world = World::with_host().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        let build = world.submit(if n % 2 == 0 { "even" } else { "odd" }).await;
        ids.insert(0, build["id"].as_str().unwrap().to_owned());
    }
    let mut seen = Vec::new();
    let mut path = "/v1/admin/builds?limit=3".to_owned();
    loop {
        let page = world.get_json(&path).await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 3);
        for item in items {
            assert!(item.get("logs").is_none());
            seen.push(item["id"].as_str().unwrap().to_owned());
        }
        let Some(cursor) = page.get("next_cursor") else { break };
        // A build that comes in between shifts no page.
        world.submit("late").await;
        path = format!("/v1/admin/builds?limit=3&cursor={}", cursor.as_str().unwrap());
    }
    assert_eq!(seen, ids);

    let count = |page: Value| page["items"].as_array().unwrap().len();
    assert_eq!(count(world.get_json("/v1/admin/builds?name=even").await), 4);
    assert_eq!(count(world.get_json("/v1/admin/builds?status=queued&name=odd").await), 3);
    assert_eq!(count(world.get_json("/v1/admin/builds?status=running").await), 0);

    let first = &world.get_json(&format!("/v1/admin/builds/{}", ids[2])).await["created_at"];
    let first = first.as_str().unwrap().replace('+', "%2B");
    let since = format!("/v1/admin/builds?since={first}");
    assert_eq!(count(world.get_json(&format!("{since}&name=even")).await), 2, "of the last three");
    let never = "/v1/admin/builds?since=9999-01-01T00:00:00Z";
    assert_eq!(count(world.get_json(never).await), 0);
    let ever = world.get_json("/v1/admin/builds?since=0001-01-01T00:00:00Z&limit=200").await;
    assert_eq!(count(ever), 7 + 2);
}

#[tokio::test]
async fn same_idempotency_key_answers_the_same_build_and_refuses_another_body() {
    let world = World::with_host().await;
    let send = |key: &str, name: &str| {
        let body = json!({"name": name, "recipe": [{"type": "RUN", "args": ["a"], "retries": 1}]});
        world.request(Method::POST, "/v1/admin/builds").header("Idempotency-Key", key).json(&body)
    };
    let sends = (0..8).map(|_| async { send("once", "a").send().await.unwrap() });
    let mut ids = Vec::new();
    for response in futures::future::join_all(sends).await {
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 201, "{answer}");
        ids.push(answer["id"].clone());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    assert_eq!(queued(&world).await.len(), 1);

    let other = send("once", "b").send().await.unwrap();
    assert_eq!(other.status(), 409);
    let other: Value = other.json().await.unwrap();
    assert_eq!(other["error"]["code"], "idempotency_conflict");
    assert_eq!(send("twice", "a").send().await.unwrap().status(), 201);

    // Another requester's key is another key.
    let key = world.key(Scope::Build, None).await;
    let url = format!("{}/v1/admin/builds", world.url);
    let body = json!({"name": "c", "recipe": ["RUN c"]});
    let theirs = world.client.post(url).bearer_auth(key).header("Idempotency-Key", "once");
    assert_eq!(theirs.json(&body).send().await.unwrap().status(), 201);
    assert_eq!(world.builds().await, "3");
}

#[tokio::test]
async fn services_that_are_away_are_told_and_only_postgres_is_needed_to_submit() {
    let mut world = World::with_host().await;
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), 200);
    assert_eq!(ready.json::<Value>().await.unwrap()["ready"], true);

    world.redis.kill9();
    world.nats.kill9();
    world.submit("without-redis").await;
    assert_eq!(world.builds().await, "1");
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), 200, "it is no reason to take the api out of service");
    let expected = json!([
        {"service": "postgres", "ok": true},
        {"service": "nats", "ok": false},
        {"service": "redis", "ok": false},
    ]);
    assert_eq!(ready.json::<Value>().await.unwrap()["checks"], expected);
    assert_eq!(world.get("/healthz").await.status(), 200);

    world.redis.restart().await.unwrap();
    world.nats.restart().await.unwrap();
    wait_until("the services to be there again", SOON, || async {
        let told = world.get_json("/readyz").await;
        told["checks"].as_array().unwrap().iter().all(|check| check["ok"] == true)
    })
    .await;
    let id = world.submit("with-redis").await["id"].as_str().unwrap().to_owned();
    assert_eq!(queued(&world).await, [id]);

    world.postgres.kill9();
    let ready = world.get("/readyz").await;
    assert_eq!(ready.status(), 503, "nothing can be served");
    assert_eq!(ready.json::<Value>().await.unwrap()["ready"], false);
    let body = json!({"name": "a", "recipe": ["RUN true"]});
    let response = world.post("/v1/admin/builds", &body).await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "unavailable");
    world.postgres.restart().await.unwrap();
    wait_until("Postgres to be used again", SOON, || async {
        world.post("/v1/admin/builds", &body).await.status() == 201
    })
    .await;
}

#[tokio::test]
async fn templates_are_listed_with_their_tags() {
    let world = World::with_host().await;
    let page = world.get_json("/v1/admin/templates").await;
    let items = page["items"].as_array().unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0]["name"], "minimal");
    assert_eq!(items[0]["type"], "image");
    assert_eq!(items[0]["tags"], json!(["latest"]));
    assert!(items[0]["id"].as_str().unwrap().starts_with("tpl_"));
    let none = world.get_json("/v1/admin/templates?name=other&limit=1").await;
    assert_eq!(none, json!({"items": []}));
}
