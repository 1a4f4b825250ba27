//! Requests that are sent again.

use std::time::Duration;

use ovenbird_api::app::keys::Scope;
use ovenbird_testkit::wait_until;
use reqwest::{Method, Response};
use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{SOON, World};

const BUILDS: &str = "/v1/admin/builds";
const KEYS: &str = "/v1/admin/keys";

async fn send(world: &World, path: &str, key: &str, body: &Value) -> Response {
    let request = world.request(Method::POST, path).header("Idempotency-Key", key);
    request.json(body).send().await.unwrap()
}

async fn answer(response: Response) -> (u16, bool, Value) {
    let replayed = response.headers().contains_key("idempotency-replayed");
    (response.status().as_u16(), replayed, response.json().await.unwrap())
}

async fn sql(world: &World, text: &str) -> String {
    world.postgres.sql("ovenbird", text).await.unwrap()
}

fn build(name: &str) -> Value {
    json!({"name": name, "recipe": ["RUN true"]})
}

#[tokio::test]
async fn first_answer_is_told_again_to_the_letter_and_is_not_readable_in_the_table() {
    let world = World::with_host().await;
    let first = send(&world, BUILDS, "one", &build("a")).await;
    let location = first.headers()["location"].clone();
    let (status, replayed, first) = answer(first).await;
    assert_eq!((status, replayed), (201, false));
    // What became of the build meanwhile does not change the answer.
    let path = location.to_str().unwrap();
    assert_eq!(world.post(&format!("{path}/cancel"), &json!({})).await.status(), 200);
    let again = send(&world, BUILDS, "one", &build("a")).await;
    assert_eq!(again.headers()["location"], location);
    assert_eq!(again.headers()["content-type"], "application/json");
    assert_eq!(answer(again).await, (201, true, first));
    assert_eq!(world.builds().await, "1");

    let body = json!({"name": "ci", "scope": "read"});
    let (_, _, key) = answer(send(&world, KEYS, "one", &body).await).await;
    assert_eq!(answer(send(&world, KEYS, "one", &body).await).await, (201, true, key.clone()));
    assert_eq!(sql(&world, "SELECT count(*) FROM api_keys").await, "2");
    let text = key["key"].as_str().unwrap();
    let table = "SELECT string_agg(encode(answer, 'escape'), ' ') FROM idempotency_keys";
    assert!(!sql(&world, table).await.contains(&text[4..]));
    let noted = "SELECT count(*) FROM audit_log WHERE details->>'replayed' = 'true'";
    assert_eq!(sql(&world, noted).await, "2");
}

#[tokio::test]
async fn same_key_with_another_body_or_path_is_refused_and_does_nothing() {
    let world = World::with_host().await;
    let (first, second) = (world.submit_id("a").await, world.submit_id("b").await);
    assert_eq!(send(&world, BUILDS, "k", &build("c")).await.status(), 201);
    let conflict = |found: (u16, bool, Value)| {
        assert_eq!((found.0, &found.2["error"]["code"]), (409, &json!("idempotency_conflict")));
    };
    conflict(answer(send(&world, BUILDS, "k", &build("d")).await).await);
    assert_eq!(world.builds().await, "3");

    let cancel = |id| format!("{BUILDS}/{id}/cancel");
    assert_eq!(
        send(&world, &cancel(first), "k", &json!({})).await.status(),
        200,
        "another operation"
    );
    conflict(answer(send(&world, &cancel(second), "k", &json!({})).await).await);
    let second = world.get_json(&format!("{BUILDS}/{second}")).await;
    assert_eq!(second["status"], "queued");

    let other = world.key(Scope::Admin, None).await;
    let theirs = world.client.post(format!("{}{BUILDS}", world.url)).bearer_auth(other);
    let theirs = theirs.header("Idempotency-Key", "k").json(&build("d")).send().await.unwrap();
    assert_eq!(theirs.status(), 201, "another caller's key is another key");
}

#[tokio::test]
async fn refused_request_may_be_mended_and_sent_again() {
    let world = World::with_host().await;
    assert_eq!(send(&world, BUILDS, "k", &build("Not A Name")).await.status(), 422);
    let (status, replayed, _) = answer(send(&world, BUILDS, "k", &build("a")).await).await;
    assert_eq!((status, replayed), (201, false));
    let long = "k".repeat(256);
    for wrong in ["", "a b", long.as_str(), "é"] {
        let request =
            world.request(Method::POST, BUILDS).header("Idempotency-Key", wrong.as_bytes());
        let response = request.json(&build("b")).send().await.unwrap();
        assert_eq!(response.status(), 400, "{wrong:?}");
    }
    let large = json!({"name": "a".repeat(2_000_000)});
    assert_eq!(send(&world, BUILDS, "large", &large).await.status(), 413);
    assert_eq!(world.builds().await, "1");
    assert_eq!(sql(&world, "SELECT count(*) FROM idempotency_keys").await, "1");
}

#[tokio::test]
async fn of_two_at_once_one_acts_and_the_other_waits_for_its_answer() {
    let world = World::with_host().await;
    let replica = world.replica().await;
    // The use of the key is noted by now, and not again while its table is locked.
    assert_eq!(world.get(BUILDS).await.status(), 200);
    let tx = world.store.connection().begin().await.unwrap();
    tx.execute_unprepared("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE").await.unwrap();
    let body = json!({"name": "ci", "scope": "read"});
    let request = |url: &str| {
        let request = world.client.post(format!("{url}{KEYS}")).bearer_auth(&world.admin);
        request.header("Idempotency-Key", "k").json(&body).send()
    };
    let release = async {
        let open = "SELECT count(*) FROM audit_log WHERE status IS NULL";
        wait_until("both to have begun", SOON, || async { sql(&world, open).await == "2" }).await;
        tx.commit().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(request(&world.url), request(&replica.url), release);
    let (one, other) = (answer(one.unwrap()).await, answer(other.unwrap()).await);
    assert_eq!((one.0, other.0), (201, 201));
    assert!(one.1 != other.1, "one was told again");
    assert_eq!(one.2, other.2);
    assert_eq!(sql(&world, "SELECT count(*) FROM api_keys").await, "2");
    replica.stop().await;
}

#[tokio::test]
async fn request_that_is_still_carried_out_is_told_so_after_a_bounded_wait() {
    let world = World::with_host().await;
    assert_eq!(send(&world, BUILDS, "k", &build("a")).await.status(), 201);
    // Another replica holds it.
    sql(
        &world,
        "UPDATE idempotency_keys SET answered_at = NULL, answer = NULL, held_until = now() + interval '1 hour'",
    )
    .await;
    let started = Instant::now();
    let response = send(&world, BUILDS, "k", &build("a")).await;
    assert!(started.elapsed() < Duration::from_secs(30));
    assert!(response.headers().contains_key("retry-after"));
    let (status, _, body) = answer(response).await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("idempotency_held")));
    assert_eq!(world.builds().await, "1");
}

#[tokio::test]
async fn request_whose_server_died_makes_the_same_thing_again() {
    let world = World::with_host().await;
    let died = "UPDATE idempotency_keys SET answered_at = NULL, answer = NULL, held_until = now()";
    let (_, _, first) = answer(send(&world, BUILDS, "k", &build("a")).await).await;
    sql(&world, died).await;
    // What the name of the base points to may have changed, too: the build is there.
    sql(&world, "UPDATE templates SET deleted_at = now()").await;
    let (status, replayed, again) = answer(send(&world, BUILDS, "k", &build("a")).await).await;
    assert_eq!((status, replayed, &again["id"]), (201, false, &first["id"]));
    assert_eq!(world.builds().await, "1");
    assert!(answer(send(&world, BUILDS, "k", &build("a")).await).await.1, "from now on it is kept");

    // Nobody has the text of the key that was made, so it gets another one.
    let body = json!({"name": "ci", "scope": "read"});
    let (_, _, first) = answer(send(&world, KEYS, "k", &body).await).await;
    sql(&world, died).await;
    let (_, _, again) = answer(send(&world, KEYS, "k", &body).await).await;
    assert_eq!(again["id"], first["id"]);
    assert_eq!(sql(&world, "SELECT count(*) FROM api_keys").await, "2");
    for (key, status) in [(&first, 401), (&again, 200)] {
        let request = world.client.get(format!("{}{BUILDS}", world.url));
        let response = request.bearer_auth(key["key"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn answer_is_forgotten_after_its_time() {
    let world = World::with_host().await;
    let (_, _, first) = answer(send(&world, BUILDS, "k", &build("a")).await).await;
    let hours = "SELECT round(extract(epoch FROM expires_at - now()) / 3600) FROM idempotency_keys";
    assert_eq!(sql(&world, hours).await, "24");
    sql(&world, "UPDATE idempotency_keys SET expires_at = now()").await;
    let (status, replayed, second) = answer(send(&world, BUILDS, "k", &build("b")).await).await;
    assert_eq!((status, replayed), (201, false));
    assert_ne!(first["id"], second["id"]);
    assert_eq!(world.builds().await, "2");
}

#[tokio::test]
async fn so_much_is_kept_for_a_key_and_what_is_over_it_is_still_not_done_twice() {
    let world = World::with(|config| {
        config.rate.kept_kib_burst = 6.try_into().unwrap();
        config.rate.repeats_burst = 8.try_into().unwrap();
        config.rate.repeats_per_second = 1.try_into().unwrap();
    })
    .await;
    world.host(4, 8192).await;
    let sizes = "SELECT COALESCE(sum(length(answer)), 0) FROM idempotency_keys";
    let mut kept = Vec::new();
    for n in 0..4 {
        let body =
            json!({"name": format!("a{n}"), "recipe": [format!("RUN {}", "x".repeat(3500))]});
        let first = send(&world, BUILDS, &n.to_string(), &body).await;
        assert_eq!(first.status(), 201);
        let (status, replayed, again) =
            answer(send(&world, BUILDS, &n.to_string(), &body).await).await;
        match status {
            201 => assert!(replayed, "{again}"),
            _ => assert_eq!((status, &again["error"]["code"]), (409, &json!("answer_not_kept"))),
        }
        kept.push(status);
    }
    assert!(kept[0] == 201 && kept.contains(&409), "{kept:?}");
    let bytes: usize = sql(&world, sizes).await.parse().unwrap();
    assert!(bytes > 3500 && bytes < 4 * 3500, "{bytes}");
    assert_eq!(world.builds().await, "4");

    let mut refused = None;
    for n in 0..30 {
        let response = send(&world, BUILDS, &format!("more-{n}"), &build("b")).await;
        if response.status() == 429 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("somewhere it is enough");
    assert!(refused.headers().contains_key("retry-after"));
    let (_, _, refused) = answer(refused).await;
    assert_eq!(refused["error"]["code"], "rate_limited");
    assert_eq!(world.post(BUILDS, &build("c")).await.status(), 201, "without it nothing is kept");
}
