//! Templates and their tags over REST.

use ovenbird_contract::{
    desk::{Outcome, Published, TemplateKind},
    id::RunnerId,
};
use ovenbird_db::store::{claim, finish, lease::Holder};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use crate::world::{SOON, World};

/// Builds a template of this name; its id.
pub(crate) async fn template(world: &World, name: &str) -> String {
    let build = world.submit_id(name).await;
    let request = claim::Request { build, attempt: 1, runner: RunnerId::new(), lease: SOON };
    world.store.build_claim(&request).await.unwrap().unwrap();
    let outcome = Outcome::Succeeded(Published {
        kind: TemplateKind::Image,
        size_bytes: 7,
        default_env: [("A".to_owned(), "b".to_owned())].into(),
        default_user: Some("app".into()),
    });
    let holder = Holder { build, attempt: 1, runner: request.runner };
    let finish = finish::Request { holder, outcome };
    world.store.build_finish(&finish).await.unwrap().unwrap();
    let build = world.get_json(&format!("/v1/admin/builds/{build}")).await;
    build["template_id"].as_str().unwrap().to_owned()
}

async fn delete(world: &World, path: &str) -> Response {
    world.request(Method::DELETE, &format!("/v1/admin/templates/{path}")).send().await.unwrap()
}

async fn set(world: &World, path: &str, body: &Value) -> Response {
    let path = format!("/v1/admin/templates/{path}");
    world.request(Method::PUT, &path).json(body).send().await.unwrap()
}

#[tokio::test]
async fn template_is_found_by_name_tag_and_id_and_says_where_it_is() {
    let world = World::with_host().await;
    let (old, new) = (template(&world, "web").await, template(&world, "web").await);
    for (reference, expected) in
        [("web", &new), ("web:latest", &new), (old.as_str(), &old), (new.as_str(), &new)]
    {
        let found = world.get_json(&format!("/v1/admin/templates/{reference}")).await;
        assert_eq!(&found["id"], expected, "{reference}");
        assert_eq!(found["placements"][0]["state"], "present");
        assert!(found["placements"][0]["host_id"].as_str().unwrap().starts_with("hst_"));
    }
    let old = world.get_json(&format!("/v1/admin/templates/{old}")).await;
    assert_eq!(old["tags"], json!([]));
    for reference in ["web:v1", "none", "tpl_01h455vb4pex5vsknk084sn02q"] {
        let path = format!("/v1/admin/templates/{reference}");
        assert_eq!(world.get(&path).await.status(), 404, "{reference}");
    }
}

#[tokio::test]
async fn tag_is_moved_back_and_its_history_tells_all() {
    let world = World::with_host().await;
    let (old, new) = (template(&world, "web").await, template(&world, "web").await);
    let before = json!({"name": "next", "base_template": "web", "recipe": ["RUN true"]});
    for _ in 0..2 {
        let moved = set(&world, "web/tags/latest", &json!({"template_id": old})).await;
        assert_eq!(moved.status(), 200);
        let moved: Value = moved.json().await.unwrap();
        assert_eq!((&moved["template_id"], moved.get("superseded_at")), (&json!(old), None));
    }
    let stable = set(&world, "web/tags/stable", &json!({"template_id": new})).await;
    assert_eq!(stable.status(), 200);
    assert_eq!(world.get_json("/v1/admin/templates/web").await["id"], old);

    let mut entries = Vec::new();
    let mut path = "/v1/admin/templates/web/tags?tag=latest&limit=1".to_owned();
    loop {
        let page = world.get_json(&path).await;
        entries.extend(page["items"].as_array().unwrap().clone());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("/v1/admin/templates/web/tags?tag=latest&limit=1&cursor={cursor}");
    }
    let pointed: Vec<_> =
        entries.iter().map(|entry| entry["template_id"].as_str().unwrap()).collect();
    assert_eq!(pointed, [&old, &new, &old]);
    assert_eq!(entries[1]["superseded_at"], entries[0]["set_at"]);
    assert!(entries[0]["set_by"].as_str().unwrap().starts_with("key_"));
    let now = world.get_json("/v1/admin/templates/web/tags?current=true").await;
    assert_eq!(now["items"].as_array().unwrap().len(), 2);

    // A build takes the tag as it points when it is submitted.
    let build: Value = world.post("/v1/admin/builds", &before).await.json().await.unwrap();
    let base = "SELECT count(*) FROM template_builds b JOIN template_tags g ON g.template_id = b.base_template_id
         WHERE b.name = 'next' AND g.name = 'web' AND g.tag = 'latest' AND g.superseded_at IS NULL";
    assert_eq!(world.postgres.sql("ovenbird", base).await.unwrap(), "1", "{build}");

    assert_eq!(delete(&world, "web/tags/latest").await.status(), 204);
    assert_eq!(delete(&world, "web/tags/latest").await.status(), 404);
    assert_eq!(world.get("/v1/admin/templates/web").await.status(), 404);
    assert_eq!(world.get_json("/v1/admin/templates/web:stable").await["id"], new);
}

#[tokio::test]
async fn template_is_deleted_by_id_by_tag_or_with_its_whole_name() {
    let world = World::with_host().await;
    let (one, two) = (template(&world, "web").await, template(&world, "web").await);
    let (three, other) = (template(&world, "web").await, template(&world, "other").await);
    assert_eq!(delete(&world, &one).await.status(), 204);
    assert_eq!(delete(&world, &one).await.status(), 404);
    assert_eq!(delete(&world, "web:latest").await.status(), 204);
    assert_eq!(world.get(&format!("/v1/admin/templates/{three}")).await.status(), 404);
    assert_eq!(world.get(&format!("/v1/admin/templates/{two}")).await.status(), 200);
    assert_eq!(delete(&world, "web").await.status(), 204);
    let list = world.get_json("/v1/admin/templates").await;
    let left: Vec<_> =
        list["items"].as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
    assert_eq!(left, ["other", "minimal"]);

    let base = json!({"name": "next", "base_template": "other", "recipe": ["RUN true"]});
    let build: Value = world.post("/v1/admin/builds", &base).await.json().await.unwrap();
    let refused = delete(&world, "other").await;
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["code"], "template_in_use");
    let details = &refused["error"]["details"][0];
    assert_eq!(details["code"], "build_needs_it");
    assert!(details["message"].as_str().unwrap().contains(build["id"].as_str().unwrap()));
    let path = format!("/v1/admin/builds/{}/cancel", build["id"].as_str().unwrap());
    assert_eq!(world.post(&path, &json!({})).await.status(), 200);
    assert_eq!(delete(&world, &other).await.status(), 204);
    // The catalogue does not know it any more, also not the base of what was cancelled.
    let path = format!("/v1/admin/builds/{}/retry", build["id"].as_str().unwrap());
    assert_eq!(world.post(&path, &json!({})).await.status(), 422);

    let refused = delete(&world, "minimal").await;
    assert_eq!(refused.status(), 409);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "template_of_host");
}

#[tokio::test]
async fn bad_input_for_templates_is_refused_and_changes_nothing() {
    let world = World::with_host().await;
    let (web, other) = (template(&world, "web").await, template(&world, "other").await);
    let tags = "SELECT count(*) FROM template_tags";
    let before = world.postgres.sql("ovenbird", tags).await.unwrap();
    for (body, field, code) in [
        (json!({}), "template_id", "missing"),
        (json!({"template_id": true}), "template_id", "wrong_type"),
        (json!({"template_id": null}), "template_id", "missing"),
        (json!({"template_id": "web"}), "template_id", "wrong_form"),
        (json!({"template_id": other}), "template_id", "unknown_template"),
        (
            json!({"template_id": "tpl_01h455vb4pex5vsknk084sn02q"}),
            "template_id",
            "unknown_template",
        ),
        (json!({"template_id": other.replace("tpl_", "bld_")}), "template_id", "wrong_form"),
        (json!({"template_id": web, "colour": "red"}), "colour", "unknown_field"),
        (json!([]), "body", "wrong_type"),
    ] {
        let response = set(&world, "web/tags/v1", &body).await;
        assert_eq!(response.status(), 422, "{body}");
        let answer: Value = response.json().await.unwrap();
        let detail = &answer["error"]["details"][0];
        assert_eq!(
            (&detail["field"], &detail["code"]),
            (&json!(field), &json!(code)),
            "{body}: {answer}"
        );
    }
    let templates = "/v1/admin/templates";
    for (method, path, status) in [
        (Method::PUT, format!("{templates}/none/tags/v1"), 404),
        (Method::PUT, format!("{templates}/web/tags/-v1"), 400),
        (Method::PUT, format!("{templates}/Web/tags/v1"), 400),
        (Method::PUT, format!("{templates}/web/tags/{}", "v".repeat(129)), 400),
        (Method::GET, format!("{templates}/Web"), 400),
        (Method::GET, format!("{templates}/web:"), 400),
        (Method::GET, format!("{templates}/web:a:b"), 400),
        (Method::GET, format!("{templates}/w%00"), 400),
        (Method::GET, format!("{templates}/%ff"), 404),
        (Method::GET, format!("{templates}/web/tags?limit=-1"), 400),
        (Method::GET, format!("{templates}/web/tags?limit=0"), 400),
        (Method::GET, format!("{templates}/web/tags?cursor=AAAA"), 400),
        (Method::GET, format!("{templates}/web/tags?current=perhaps"), 400),
        (Method::GET, format!("{templates}/none/tags"), 404),
        (Method::DELETE, format!("{templates}/none"), 404),
        (Method::DELETE, format!("{templates}/web/tags/none"), 404),
        (Method::DELETE, templates.to_owned(), 405),
    ] {
        let request = world.request(method.clone(), &path).json(&json!({"template_id": web}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert!(response.json::<Value>().await.unwrap()["error"]["code"].is_string(), "{path}");
    }
    assert_eq!(world.postgres.sql("ovenbird", tags).await.unwrap(), before);
    assert_eq!(world.get_json("/v1/admin/templates").await["items"].as_array().unwrap().len(), 3);

    // Nothing may be built that a reference would take for an id.
    let body = json!({"name": "tpl_01h455vb4pex5vsknk084sn02q", "recipe": ["RUN true"]});
    let answer: Value = world.post("/v1/admin/builds", &body).await.json().await.unwrap();
    assert_eq!(answer["error"]["details"][0]["code"], "wrong_form", "{answer}");
}
