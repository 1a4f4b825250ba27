//! Keys: made, listed, revoked.

use chrono::{DateTime, TimeDelta, Utc};
use ovenbird_api::app::keys::{self, Scope};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::world::{Events, World};

const KEYS: &str = "/v1/admin/keys";

async fn made(world: &World, body: &Value) -> Value {
    let response = world.post(KEYS, body).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let key: Value = response.json().await.unwrap();
    assert_eq!(location, format!("{KEYS}/{}", key["id"].as_str().unwrap()));
    key
}

async fn status_with(world: &World, url: &str, key: &str) -> StatusCode {
    let request = world.client.get(format!("{url}/v1/admin/builds")).bearer_auth(key);
    request.send().await.unwrap().status()
}

async fn count(world: &World) -> String {
    world.postgres.sql("ovenbird", "SELECT count(*) FROM api_keys").await.unwrap()
}

#[tokio::test]
async fn key_is_told_once_and_listed_without_its_text() {
    let world = World::start().await;
    let expires_at = Utc::now() + TimeDelta::hours(1);
    let key =
        made(&world, &json!({"name": " ci ", "scope": "build", "expires_at": expires_at})).await;
    let text = key["key"].as_str().unwrap();
    assert!(text.starts_with("ovb_") && text.len() == 47);
    assert_eq!(status_with(&world, &world.url, text).await, 200);

    let id = key["id"].as_str().unwrap();
    let one = world.get_json(&format!("{KEYS}/{id}")).await;
    for (field, expected) in [
        ("id", json!(id)),
        ("name", json!("ci")),
        ("scope", json!("build")),
        ("status", json!("active")),
    ] {
        assert_eq!(one[field], expected, "{field}");
    }
    assert!(one["last_used_at"].is_string() && one.get("revoked_at").is_none());
    let told: DateTime<Utc> = one["expires_at"].as_str().unwrap().parse().unwrap();
    assert!((told - expires_at).abs() < TimeDelta::milliseconds(1));

    made(&world, &json!({"name": "later", "scope": "read"})).await;
    let (mut seen, mut path) = (Vec::new(), format!("{KEYS}?limit=1"));
    loop {
        let page = world.get_json(&path).await;
        assert!(!page.to_string().contains(&text[4..]) && !page.to_string().contains("hash"));
        seen.push(page["items"][0]["name"].clone());
        let Some(cursor) = page.get("next_cursor") else { break };
        path = format!("{KEYS}?limit=1&cursor={}", cursor.as_str().unwrap());
    }
    assert_eq!(seen, ["later", "ci", "test"]);
}

#[tokio::test]
async fn key_that_is_made_on_the_command_line_is_in_the_audit_log() {
    let world = World::start().await;
    let text = keys::bootstrap(&world.store, "first", Scope::Admin, None).await.unwrap();
    assert_eq!(status_with(&world, &world.url, text.expose()).await, 200);
    let page = world.get_json("/v1/admin/audit?actor=command-line").await;
    let id = world.get_json(&format!("{KEYS}?limit=1")).await["items"][0]["id"].clone();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    let (entry, target) = (&page["items"][0], format!("{KEYS}/{}", id.as_str().unwrap()));
    assert_eq!((&entry["action"], &entry["target"]), (&json!("key_create"), &json!(target)));
    assert_eq!(entry["outcome"], "granted");
}

#[tokio::test]
async fn revoked_key_is_refused_at_once_by_every_replica() {
    let world = World::start().await;
    let replica = world.replica().await;
    let key = made(&world, &json!({"name": "leaked", "scope": "read"})).await;
    let (path, text) = (format!("{KEYS}/{}", key["id"].as_str().unwrap()), &key["key"]);
    let text = text.as_str().unwrap();
    for url in [&world.url, &replica.url] {
        assert_eq!(status_with(&world, url, text).await, 200);
    }
    let revoke = || async {
        let response = world.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.json::<Value>().await.unwrap()
    };
    let revoked = revoke().await;
    for url in [&replica.url, &world.url] {
        assert_eq!(status_with(&world, url, text).await, 401);
    }
    assert_eq!(revoked["status"], "revoked");
    assert_eq!(revoke().await["revoked_at"], revoked["revoked_at"], "the first time stays");
    assert_eq!(world.get_json(&path).await["status"], "revoked");
    replica.stop().await;
}

#[tokio::test]
async fn stream_of_a_key_that_is_revoked_ends_with_the_reason() {
    let world = World::with_host().await;
    let build = world.submit_id("a").await;
    let key = made(&world, &json!({"name": "reader", "scope": "read"})).await;
    let url = format!("{}/v1/admin/builds/{build}/logs/stream", world.url);
    let stream = world.client.get(url).bearer_auth(key["key"].as_str().unwrap());
    let mut events = Events::of(stream.send().await.unwrap());
    world.writer(build).lines(1).await;
    assert_eq!(events.seq().await, 1);
    let path = format!("{KEYS}/{}", key["id"].as_str().unwrap());
    assert_eq!(world.request(Method::DELETE, &path).send().await.unwrap().status(), 200);
    let last = events.next().await.expect("the reason is told");
    assert_eq!(last.kind.as_deref(), Some("error"));
    assert_eq!(last.data["error"]["code"], "unauthorized");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn last_key_that_administers_is_not_revoked_even_by_two_at_once() {
    let world = World::start().await;
    let soon = json!(Utc::now() + TimeDelta::hours(1));
    world.key(Scope::Admin, Some(Utc::now() - TimeDelta::seconds(1))).await;
    let items = world.get_json(KEYS).await["items"].clone();
    let first = items.as_array().unwrap().iter().find(|key| key["name"] == "test").unwrap();
    let first = format!("{KEYS}/{}", first["id"].as_str().unwrap());
    let response = world.request(Method::DELETE, &first).send().await.unwrap();
    assert_eq!(response.status(), 409, "the expired one is none");
    assert_eq!(response.json::<Value>().await.unwrap()["error"]["code"], "last_admin_key");

    let body = json!({"name": "second", "scope": "admin", "expires_at": soon});
    let second = made(&world, &body).await;
    let second = format!("{KEYS}/{}", second["id"].as_str().unwrap());
    let revoke = |path: String| world.request(Method::DELETE, &path).send();
    let (one, other) = tokio::join!(revoke(first), revoke(second));
    // Whoever comes second has no key any more, or the last one.
    let statuses = [one.unwrap().status().as_u16(), other.unwrap().status().as_u16()];
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    let usable = "SELECT count(*) FROM api_keys WHERE revoked_at IS NULL AND scope = 'admin'
                  AND (expires_at IS NULL OR expires_at > now())";
    assert_eq!(world.postgres.sql("ovenbird", usable).await.unwrap(), "1");
}

#[tokio::test]
async fn bad_wish_for_a_key_gets_everything_that_is_wrong_and_stores_nothing() {
    let world = World::start().await;
    let cases: [(Value, &[(&str, &str)]); 13] = [
        (json!({}), &[("name", "missing"), ("scope", "missing")]),
        (json!([]), &[("body", "wrong_type")]),
        (json!({"name": true, "scope": "read"}), &[("name", "wrong_type")]),
        (json!({"name": "", "scope": "read"}), &[("name", "wrong_length")]),
        (json!({"name": "  ", "scope": "read"}), &[("name", "wrong_form")]),
        (json!({"name": "a\u{0}", "scope": "read"}), &[("name", "wrong_form")]),
        (json!({"name": "é".repeat(129), "scope": "read"}), &[("name", "wrong_length")]),
        (json!({"name": "a", "scope": "root"}), &[("scope", "unknown_value")]),
        (json!({"name": "a", "scope": ["read"]}), &[("scope", "wrong_type")]),
        (
            json!({"name": "a", "scope": "read", "expires_at": "soon"}),
            &[("expires_at", "wrong_form")],
        ),
        (json!({"name": "a", "scope": "read", "expires_at": 1}), &[("expires_at", "wrong_type")]),
        (
            json!({"name": "a", "scope": "read", "expires_at": "2020-01-01T00:00:00Z"}),
            &[("expires_at", "out_of_range")],
        ),
        (
            json!({"name": "a", "scope": "read", "hash": "x", "id": "y"}),
            &[("hash", "unknown_field"), ("id", "unknown_field")],
        ),
    ];
    for (body, expected) in cases {
        let response = world.post(KEYS, &body).await;
        assert_eq!(response.status(), 422, "{body}");
        let answer: Value = response.json().await.unwrap();
        let details = answer["error"]["details"].as_array().unwrap();
        let found: Vec<_> = details
            .iter()
            .map(|it| (it["field"].as_str().unwrap(), it["code"].as_str().unwrap()))
            .collect();
        assert_eq!(found, expected, "{body}");
    }
    for path in ["bld_01h455vb4pex5vsknk084sn02q", "key_x", "key_81h455vb4pex5vsknk084sn02q"] {
        for method in [Method::GET, Method::DELETE] {
            let response = world.request(method, &format!("{KEYS}/{path}")).send().await.unwrap();
            assert_eq!(response.status(), 400, "{path}");
        }
    }
    let queries = ["?cursor=AAAA", "?cursor=%ff", "?limit=0", "?limit=true", "?colour=red"];
    for path in queries.iter().chain(&["/%00"]) {
        let response = world.get(&format!("{KEYS}{path}")).await;
        assert_eq!(response.status(), 400, "{path}");
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], "invalid_parameter", "{path}");
    }
    let request = world.request(Method::POST, KEYS).header("content-type", "application/json");
    let broken = request.body(b"{\"name\":\"\xff\",\"scope\":\"read\"}".to_vec()).send().await;
    assert_eq!(broken.unwrap().status(), 400);
    let unknown = format!("{KEYS}/key_01h455vb4pex5vsknk084sn02q");
    assert_eq!(world.request(Method::DELETE, &unknown).send().await.unwrap().status(), 404);
    assert_eq!(count(&world).await, "1");
}
