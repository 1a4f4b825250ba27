//! Browsers that sign in with a key.

use std::{num::NonZeroU32, time::Duration};

use ovenbird_api::app::keys::Scope;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::world::{SOON, World};

/// What a browser holds after it signed in.
struct Browser {
    cookie: String,
    token: String,
}

impl Browser {
    async fn sign_in(world: &World, key: &str) -> Self {
        let answer = sign_in(world, key).await;
        assert_eq!(answer.status(), StatusCode::CREATED);
        let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        let cookie = set.split(';').next().unwrap().to_owned();
        let session: Value = answer.json().await.unwrap();
        Self { cookie, token: session["csrf_token"].as_str().unwrap().to_owned() }
    }

    fn request(&self, world: &World, method: Method, path: &str) -> RequestBuilder {
        world.client.request(method, format!("{}{path}", world.url)).header("cookie", &self.cookie)
    }
}

async fn sign_in(world: &World, key: &str) -> Response {
    world.client.post(format!("{}/v1/session", world.url)).bearer_auth(key).send().await.unwrap()
}

async fn status(request: RequestBuilder) -> StatusCode {
    request.send().await.unwrap().status()
}

#[tokio::test]
async fn a_cookie_reads_alone_and_changes_only_with_its_token() {
    let world = World::with_host().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let other = Browser::sign_in(&world, &world.admin).await;
    assert_ne!(browser.token, other.token);
    assert_eq!(status(browser.request(&world, Method::GET, "/v1/admin/builds")).await, 200);

    let body = json!({"name": "web", "recipe": ["RUN true"]});
    let submit = |token: Option<&str>| {
        let request = browser.request(&world, Method::POST, "/v1/admin/builds").json(&body);
        status(match token {
            Some(token) => request.header("x-csrf-token", token),
            None => request,
        })
    };
    for refused in [None, Some(""), Some("x"), Some(other.token.as_str())] {
        assert_eq!(submit(refused).await, 403, "{refused:?}");
    }
    assert_eq!(world.get_json("/v1/admin/builds").await["items"], json!([]));
    assert_eq!(submit(Some(&browser.token)).await, 201);
}

#[tokio::test]
async fn the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_is_stored_nowhere() {
    let world = World::start().await;
    let answer = sign_in(&world, &world.admin).await;
    let set = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let (pair, attributes) = set.split_once(';').unwrap();
    assert_eq!(attributes, " Path=/v1; Max-Age=43200; HttpOnly; SameSite=Strict; Secure");
    let (_, text) = pair.split_once('=').unwrap();
    let stored = format!("SELECT count(*) FROM sessions WHERE sessions::text LIKE '%{text}%'");
    assert_eq!(world.postgres.sql("ovenbird", &stored).await.unwrap(), "0");
    assert_eq!(world.postgres.sql("ovenbird", "SELECT count(*) FROM sessions").await.unwrap(), "1");

    let plain = World::with(|config| config.http.session.secure = false).await;
    let answer = sign_in(&plain, &plain.admin).await;
    assert!(!answer.headers()["set-cookie"].to_str().unwrap().contains("Secure"));
}

#[tokio::test]
async fn a_session_is_its_keys_shadow() {
    let world = World::start().await;
    let key = world.key(Scope::Read, None).await;
    let browser = Browser::sign_in(&world, &key).await;
    let session: Value = browser
        .request(&world, Method::GET, "/v1/session")
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!((&session["scope"], &session["key_name"]), (&json!("read"), &json!("another")));
    assert_eq!(session["csrf_token"], browser.token.as_str());

    // What the key may not do the session may not.
    let submit = browser
        .request(&world, Method::POST, "/v1/admin/builds")
        .header("x-csrf-token", &browser.token)
        .json(&json!({"name": "web", "recipe": ["RUN true"]}));
    assert_eq!(status(submit).await, 403);

    world
        .postgres
        .sql("ovenbird", "UPDATE api_keys SET revoked_at = now() WHERE scope = 'read'")
        .await
        .unwrap();
    assert_eq!(status(browser.request(&world, Method::GET, "/v1/session")).await, 401);
    assert_eq!(sign_in(&world, &key).await.status(), 401);
}

#[tokio::test]
async fn a_session_ends_when_it_is_closed_or_its_time_is_over() {
    let world =
        World::with(|config| config.http.session.lifetime = Duration::from_secs(3600)).await;
    let (one, other) = (
        Browser::sign_in(&world, &world.admin).await,
        Browser::sign_in(&world, &world.admin).await,
    );
    let look = |browser: &Browser| status(browser.request(&world, Method::GET, "/v1/admin/builds"));

    let close = || one.request(&world, Method::DELETE, "/v1/session");
    assert_eq!(status(close()).await, 403, "another site could sign the browser out");
    assert_eq!(look(&one).await, 200);
    let closed = close().header("x-csrf-token", &one.token).send().await.unwrap();
    assert_eq!(closed.status(), 204);
    assert!(closed.headers()["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!((look(&one).await, look(&other).await), (StatusCode::UNAUTHORIZED, StatusCode::OK));

    world
        .postgres
        .sql("ovenbird", "UPDATE sessions SET expires_at = now() - interval '1 second'")
        .await
        .unwrap();
    assert_eq!(look(&other).await, 401);
    // Those that are over go with the next one that is opened.
    Browser::sign_in(&world, &world.admin).await;
    let left = world.postgres.sql("ovenbird", "SELECT count(*) FROM sessions").await.unwrap();
    assert_eq!(left, "1");
}

#[tokio::test]
async fn a_session_goes_on_at_every_replica_and_after_a_restart() {
    let mut world = World::start().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let replica = world.replica().await;
    world.stop().await;
    let list = world
        .client
        .get(format!("{}/v1/admin/builds", replica.url))
        .header("cookie", &browser.cookie);
    assert_eq!(status(list).await, 200);
    let close = world
        .client
        .delete(format!("{}/v1/session", replica.url))
        .header("cookie", &browser.cookie)
        .header("x-csrf-token", &browser.token);
    assert_eq!(status(close).await, 204);
    replica.stop().await;
}

#[tokio::test]
async fn a_key_that_is_sent_is_never_helped_by_a_cookie() {
    let world = World::start().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let list = || browser.request(&world, Method::GET, "/v1/admin/builds");
    assert_eq!(status(list().header("x-api-key", "ovb_none")).await, 401);
    assert_eq!(status(list().bearer_auth("ovb_none")).await, 401);
    // Nor does a session prolong itself.
    let again = browser.request(&world, Method::POST, "/v1/session");
    assert_eq!(status(again.header("x-csrf-token", &browser.token)).await, 401);
    for forged in ["", "x", &"A".repeat(43), &"A".repeat(5000)] {
        let forged = world
            .client
            .get(format!("{}/v1/admin/builds", world.url))
            .header("cookie", format!("ovenbird_session={forged}"));
        assert_eq!(status(forged).await, 401);
    }
}

#[tokio::test]
async fn a_change_by_cookie_is_noted_as_its_keys_the_forged_one_too() {
    let world = World::with_host().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let submit = || {
        let body = json!({"name": "web", "recipe": ["RUN true"]});
        browser.request(&world, Method::POST, "/v1/admin/builds").json(&body)
    };
    assert_eq!(status(submit()).await, 403);
    assert_eq!(status(submit().header("x-csrf-token", &browser.token)).await, 201);
    let noted = world.get_json("/v1/admin/audit").await;
    let noted: Vec<_> = noted["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (it["action"].as_str().unwrap(), it["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(noted, [("build_create", 201), ("build_create", 403), ("session_open", 201)]);
    let text = world.get("/v1/admin/audit").await.text().await.unwrap();
    let (_, cookie) = browser.cookie.split_once('=').unwrap();
    assert!(!text.contains(cookie) && !text.contains(&browser.token));
    let actors = "SELECT count(DISTINCT actor) FROM audit_log WHERE actor LIKE 'key_%'";
    assert_eq!(world.postgres.sql("ovenbird", actors).await.unwrap(), "1");
}

#[tokio::test]
async fn a_change_by_cookie_can_be_sent_again_but_signing_in_cannot() {
    let world = World::with_host().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let submit = || async {
        let request = browser
            .request(&world, Method::POST, "/v1/admin/builds")
            .header("x-csrf-token", &browser.token)
            .header("Idempotency-Key", "one")
            .json(&json!({"name": "web", "recipe": ["RUN true"]}));
        let answer = request.send().await.unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        (answer.status(), replayed, answer.json::<Value>().await.unwrap())
    };
    let (first, again) = (submit().await, submit().await);
    assert_eq!((first.0, first.1), (StatusCode::CREATED, false));
    assert_eq!((again.0, again.1, again.2), (StatusCode::CREATED, true, first.2));

    let sign_in = world.client.post(format!("{}/v1/session", world.url)).bearer_auth(&world.admin);
    assert_eq!(status(sign_in.header("Idempotency-Key", "two")).await, 400);
    let opened = world.postgres.sql("ovenbird", "SELECT count(*) FROM sessions").await.unwrap();
    assert_eq!(opened, "1");
}

#[tokio::test]
async fn guesses_at_keys_are_limited_by_address_when_signing_in_too() {
    let world = World::with(|config| {
        config.rate.address_burst = NonZeroU32::MIN;
        config.rate.address_per_second = NonZeroU32::MIN;
    })
    .await;
    let unknown = format!("ovb_{}", "A".repeat(43));
    // At once: what is a second apart has a token each.
    let guesses = (0..12).map(|_| sign_in(&world, &unknown));
    let answers: Vec<_> =
        futures::future::join_all(guesses).await.iter().map(Response::status).collect();
    assert!(answers.contains(&StatusCode::TOO_MANY_REQUESTS), "{answers:?}");
    assert_eq!(sign_in(&world, &world.admin).await.status(), 201, "a valid key is not in the way");
}

#[tokio::test]
async fn a_stream_that_a_session_reads_ends_with_the_session() {
    let world = World::start().await;
    let browser = Browser::sign_in(&world, &world.admin).await;
    let stream = browser.request(&world, Method::GET, "/v1/admin/events/stream");
    let stream = stream.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let close = browser.request(&world, Method::DELETE, "/v1/session");
    assert_eq!(status(close.header("x-csrf-token", &browser.token)).await, 204);
    let told = tokio::time::timeout(SOON, stream.text()).await.expect("the stream ends").unwrap();
    assert!(told.contains("event: error") && told.contains("unauthorized"), "{told}");
}

#[tokio::test]
async fn request_that_is_sent_again_after_signing_in_again_is_still_the_same() {
    let world = World::with_host().await;
    let first = Browser::sign_in(&world, &world.admin).await;
    let send = async |browser: &Browser, name: &str| {
        let request = browser.request(&world, Method::POST, "/v1/admin/builds");
        let request = request.header("x-csrf-token", &browser.token);
        let body = json!({"name": name, "recipe": ["RUN true"]});
        let answer = request.header("idempotency-key", "k").json(&body).send().await.unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        (answer.status(), replayed, answer.json::<Value>().await.unwrap())
    };
    let made = send(&first, "web").await;
    assert_eq!((made.0, made.1), (StatusCode::CREATED, false));
    let second = Browser::sign_in(&world, &world.admin).await;
    assert_eq!(send(&second, "web").await, (StatusCode::CREATED, true, made.2.clone()));
    assert_eq!(send(&second, "other").await.0, StatusCode::CONFLICT);

    // With the key itself as well.
    let request = world.request(Method::POST, "/v1/admin/builds").header("idempotency-key", "k");
    let answer = request.json(&json!({"name": "web", "recipe": ["RUN true"]})).send().await;
    assert_eq!(answer.unwrap().json::<Value>().await.unwrap(), made.2);

    // One that was opened by an older version goes on by itself.
    let old = Browser::sign_in(&world, &world.admin).await;
    world.postgres.sql("ovenbird", "UPDATE sessions SET repeats = NULL").await.unwrap();
    assert_eq!(send(&old, "web").await.0, StatusCode::CONFLICT);
    assert_eq!(world.builds().await, "1");
}
