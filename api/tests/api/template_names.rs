//! Whose a template is: where it comes from, and who may use its name.

use ovenbird_api::app::keys::{self, Scope};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::{sandboxes, templates::template, world::World};

const BUILDS: &str = "/v1/admin/builds";

async fn send(world: &World, method: Method, path: &str) -> (u16, Value) {
    let response = world.request(method, path).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn template_that_was_a_sandbox_holds_its_host_and_is_deleted_like_a_built_one() {
    let (world, host) = World::with_agent(|_| {}).await;
    let made = sandboxes::create(&world, json!({"template": "minimal"})).await;
    let snapshot = sandboxes::path(&made, "/snapshot");
    let like_an_id = json!({"name": "tpl_01h455vb4pex5vsknk084sn02q"});
    let refused: Value = world.post(&snapshot, &like_an_id).await.json().await.unwrap();
    let detail = &refused["error"]["details"][0];
    assert_eq!((&detail["field"], &detail["code"]), (&json!("name"), &json!("wrong_form")));
    let saved = world.post(&snapshot, &json!({"name": "hello", "tag": "warm"})).await;
    assert_eq!(saved.status(), 200);

    let template = world.get_json("/v1/admin/templates/hello:warm").await;
    assert_eq!((&template["origin"], &template["build_id"]), (&json!("sandbox"), &Value::Null));
    let of_host = world.get_json("/v1/admin/templates/minimal").await;
    assert_eq!(of_host["origin"], "host");

    let there = template["placements"][0]["host_id"].as_str().unwrap();
    let path = format!("/v1/admin/hosts/{there}");
    let drain = world.post(&format!("{path}/drain"), &json!({})).await;
    assert_eq!(drain.status(), 200);
    let (status, refused) = send(&world, Method::DELETE, &path).await;
    assert_eq!((status, &refused["error"]["code"]), (409, &json!("host_in_use")), "{refused}");
    assert_eq!(refused["error"]["details"][0]["code"], "only_copy");

    // The name alone as well, though a template of it was no build.
    let (status, answer) = send(&world, Method::DELETE, "/v1/admin/templates/hello").await;
    assert_eq!((status, answer), (204, Value::Null));
    assert_eq!(world.get("/v1/admin/templates/hello:warm").await.status(), 404);
    assert_eq!(send(&world, Method::DELETE, &path).await.0, 204);
    drop(host);
}

#[tokio::test]
async fn name_of_a_host_or_of_another_key_is_taken_for_a_key_of_scope_build() {
    let (world, _host) = World::with_agent(|_| {}).await;
    let key = async |name: &str| {
        let made = keys::create(&world.store, name, Scope::Build, None).await.unwrap();
        made.expose().clone()
    };
    let (mine, successor, other) = (key("ci").await, key("ci").await, key("other").await);
    let ask = async |key: &str, path: &str, body: Value| -> Response {
        let request = world.client.post(format!("{}{path}", world.url)).bearer_auth(key);
        request.json(&body).send().await.unwrap()
    };
    let submit = async |key: &str, name: &str| -> (u16, Value) {
        let body = json!({"name": name, "recipe": ["RUN true"]});
        let response = ask(key, BUILDS, body).await;
        (response.status().as_u16(), response.json().await.unwrap())
    };
    let is_taken = |(status, answer): (u16, Value)| {
        let detail = &answer["error"]["details"][0];
        assert_eq!((status, &detail["field"]), (422, &json!("name")), "{answer}");
        assert_eq!(detail["code"], "name_taken", "{answer}");
        assert!(detail["hint"].is_string(), "{answer}");
    };

    is_taken(submit(&other, "minimal").await);
    // Before there is a template it is whoever asked first.
    let first = submit(&mine, "web").await;
    assert_eq!(first.0, 201);
    is_taken(submit(&other, "web").await);
    let path = format!("{BUILDS}/{}/cancel", first.1["id"].as_str().unwrap());
    assert_eq!(ask(&mine, &path, json!({})).await.status(), 200);
    assert_eq!(submit(&other, "web").await.0, 201, "nothing came of it");
    is_taken(submit(&mine, "web").await);
    let path = format!("{BUILDS}/{}/retry", first.1["id"].as_str().unwrap());
    let retried = ask(&mine, &path, json!({})).await;
    is_taken((retried.status().as_u16(), retried.json().await.unwrap()));

    template(&world, "admins").await;
    is_taken(submit(&other, "admins").await);
    let checked = ask(&other, &format!("{BUILDS}/validate"), json!({"name": "admins"})).await;
    let checked: Value = checked.json().await.unwrap();
    let codes: Vec<_> =
        checked["problems"].as_array().unwrap().iter().map(|it| &it["code"]).collect();
    assert!(codes.contains(&&json!("name_taken")), "{checked}");
    let made = ask(&other, "/v1/sandboxes", json!({"template": "minimal"})).await;
    let made: Value = made.json().await.unwrap();
    let path = sandboxes::path(&made, "/snapshot");
    for name in ["admins", "minimal"] {
        let refused = ask(&other, &path, json!({"name": name, "tag": "v1"})).await;
        is_taken((refused.status().as_u16(), refused.json().await.unwrap()));
    }
    assert_eq!(world.get_json(&sandboxes::path(&made, "")).await["status"], "running");

    let saved = ask(&mine, "/v1/sandboxes", json!({"template": "minimal"})).await;
    let saved: Value = saved.json().await.unwrap();
    let saved = ask(&mine, &sandboxes::path(&saved, "/snapshot"), json!({"name": "mine"})).await;
    assert_eq!(saved.status(), 200);
    // A key of the same name follows it, and an admin who builds or moves tags takes nothing away.
    assert_eq!(submit(&successor, "mine").await.0, 201);
    template(&world, "mine").await;
    assert_eq!(submit(&mine, "mine").await.0, 201);
    is_taken(submit(&other, "mine").await);
    assert_eq!(submit(&world.admin, "minimal").await.0, 201, "an admin may");
}
