//! Builds as they change, watched. Whoever watches is answered for ever, so that no fuzzer can look at it: its statuses
//! and what it tells are held against the document here.

use ovenbird_api::app::keys::Scope;
use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{Events, SOON, World};

const WATCH: &str = "/v1/admin/events/stream";

#[tokio::test]
async fn change_of_a_build_is_told_to_whoever_sees_it_as_the_document_says() {
    let world = World::with_host().await;
    let builder = world.key(Scope::Build, None).await;
    let watch = async |key: &str| {
        let request = world.client.get(format!("{}{WATCH}", world.url)).bearer_auth(key);
        let mut events = Events::of(request.send().await.unwrap());
        // From now on it is told.
        events.heartbeat().await;
        events
    };
    let (mut all, mut own) = (watch(&world.admin).await, watch(&builder).await);
    let theirs = world.submit("theirs").await;
    let mine = world.submit_as(&builder, "mine").await;
    let nats = async_nats::connect(world.nats.url()).await.unwrap();
    for build in [&theirs, &mine] {
        let id = build["id"].as_str().unwrap().parse().unwrap();
        nats.publish(world.names.events(&id), "{}".into()).await.unwrap();
    }
    nats.flush().await.unwrap();

    let next = async |events: &mut Events| {
        let event = tokio::time::timeout(SOON, events.next()).await.expect("a change").unwrap();
        assert_eq!(event.kind.as_deref(), Some("build"));
        fits(&world, &event.data).await;
        event.data
    };
    assert_eq!(next(&mut own).await["id"], mine["id"], "not what others do");
    let mut told = [next(&mut all).await, next(&mut all).await];
    told.sort_by_key(|build| build["name"].to_string());
    let path = format!("/v1/admin/builds/{}", mine["id"].as_str().unwrap());
    let build = world.get_json(&path).await;
    assert_eq!((&told[0]["id"], &told[1]["id"]), (&mine["id"], &theirs["id"]));
    assert_eq!((&told[0]["recipe"], &told[0]["status"]), (&build["recipe"], &build["status"]));
    assert!(told.iter().all(|build| build.get("logs").is_none()), "as lists tell it");
}

#[tokio::test]
async fn whoever_may_not_watch_gets_an_answer_of_the_document() {
    let world = World::with(|config| config.logs.streams_max = 0).await;
    let document = world.get_json("/openapi.json").await;
    let answers = &document["paths"][WATCH]["get"]["responses"];
    let path = |query: &str| format!("{}{WATCH}{query}", world.url);
    let admin = &world.admin;
    for (request, status, code) in [
        (world.client.get(path("")), 401, "unauthorized"),
        (world.client.get(path("")).bearer_auth("ovb_wrong"), 401, "unauthorized"),
        (world.client.get(path("")).bearer_auth(admin), 429, "too_many_streams"),
        (world.client.get(path("?since=1")).bearer_auth(admin), 400, "invalid_parameter"),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{code}");
        let described = &answers[status.to_string()];
        assert!(described["description"].as_str().unwrap().contains(code), "{described}");
        for header in described["headers"].as_object().into_iter().flatten() {
            assert!(response.headers().contains_key(header.0.to_lowercase()), "{header:?}");
        }
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["error"]["code"], code);
    }
    let response = world.request(Method::POST, WATCH).json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(answers["200"]["content"].as_object().unwrap().len(), 1);
    assert!(answers["200"]["content"]["text/event-stream"].is_object());
}

/// Whether `build` is a Build of the document.
async fn fits(world: &World, build: &Value) {
    let mut schema = world.get_json("/openapi.json").await;
    schema["$ref"] = "#/components/schemas/Build".into();
    // OpenAPI 3.0 has the schemas of that draft.
    let schema = jsonschema::draft4::options().should_validate_formats(true).build(&schema);
    let problems: Vec<_> =
        schema.unwrap().iter_errors(build).map(|problem| problem.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?} in {build}");
}
