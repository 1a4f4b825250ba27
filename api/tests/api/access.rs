//! Who may call what.

use std::{collections::BTreeSet, num::NonZeroU32};

use chrono::{TimeDelta, Utc};
use ovenbird_api::app::keys::Scope;
use reqwest::{Method, header::AUTHORIZATION};
use serde_json::{Value, json};

use crate::world::World;

const ADMIN: &[Scope] = &[Scope::Admin];
const BUILDS: &[Scope] = &[Scope::Admin, Scope::Build];

/// What a key of each scope gets from each operation that needs one: its own answer, or 403.
const OPERATIONS: &[(&str, &[Scope])] = &[
    ("audit_list", ADMIN),
    ("build_cancel", BUILDS),
    ("build_create", BUILDS),
    ("build_get", &Scope::ALL),
    ("build_list", &Scope::ALL),
    ("build_logs", &Scope::ALL),
    ("build_logs_stream", &Scope::ALL),
    ("build_retry", BUILDS),
    ("build_validate", &Scope::ALL),
    ("context_get", &Scope::ALL),
    ("context_upload", BUILDS),
    ("key_create", ADMIN),
    ("key_get", ADMIN),
    ("key_list", ADMIN),
    ("key_revoke", ADMIN),
    ("sandbox_create", BUILDS),
    ("sandbox_list", &Scope::ALL),
    ("sandbox_get", &Scope::ALL),
    ("sandbox_delete", BUILDS),
    ("sandbox_pause", BUILDS),
    ("sandbox_resume", BUILDS),
    ("sandbox_snapshot", BUILDS),
    ("sandbox_ping", BUILDS),
    ("sandbox_metrics", &Scope::ALL),
    ("sandbox_exec", BUILDS),
    ("sandbox_exec_stream", BUILDS),
    ("sandbox_file_read", BUILDS),
    ("sandbox_file_write", BUILDS),
    ("sandbox_file_remove", BUILDS),
    ("sandbox_directory_list", BUILDS),
    ("sandbox_directory_make", BUILDS),
    ("template_list", &Scope::ALL),
    ("template_get", &Scope::ALL),
    ("template_delete", ADMIN),
    ("template_tag_list", &Scope::ALL),
    ("template_tag_set", ADMIN),
    ("template_tag_remove", ADMIN),
    ("host_create", ADMIN),
    ("host_token", ADMIN),
    ("host_labels_set", ADMIN),
    ("host_list", &[Scope::Admin, Scope::Read]),
    ("host_get", &[Scope::Admin, Scope::Read]),
    ("host_drain", ADMIN),
    ("host_undrain", ADMIN),
    ("host_delete", ADMIN),
    ("queue_get", &Scope::ALL),
    ("build_events", &Scope::ALL),
    ("session_open", &Scope::ALL),
    // Only a cookie has a session.
    ("session_get", &[]),
    ("session_close", &Scope::ALL),
];
const PUBLIC: &[&str] = &["healthz", "readyz"];
/// Who calls these shows a token or a key of its own in the body.
const OF_HOSTS: &[&str] = &["host_register", "host_renew"];
/// What stands for a parameter below each collection. Nothing of this name exists.
const PARAMETERS: &[(&str, &str)] = &[
    ("builds", "bld_01h455vb4pex5vsknk084sn02q"),
    ("contexts", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("hosts", "hst_01h455vb4pex5vsknk084sn02q"),
    ("keys", "key_01h455vb4pex5vsknk084sn02q"),
    ("sandboxes", "sbx_01h455vb4pex5vsknk084sn02q"),
];
/// What stands for any other parameter.
const PARAMETER: &str = "nothing";

/// An operation of the specification.
struct Operation {
    id: String,
    method: Method,
    path: String,
    needs_key: bool,
    statuses: BTreeSet<String>,
}

fn filled(path: &str) -> String {
    let mut before = "";
    let mut parts = Vec::new();
    for part in path.split('/') {
        let known = PARAMETERS.iter().find(|(collection, _)| *collection == before);
        let value = known.map_or(PARAMETER, |(_, value)| *value);
        parts.push(if part.starts_with('{') { value } else { part });
        before = part;
    }
    parts.join("/")
}

async fn operations(world: &World) -> Vec<Operation> {
    let document = world.get_json("/openapi.json").await;
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            found.push(Operation {
                id: operation["operationId"].as_str().unwrap().into(),
                method: method.to_uppercase().parse().unwrap(),
                path: filled(path),
                needs_key: !operation["security"].as_array().unwrap().is_empty(),
                statuses: operation["responses"].as_object().unwrap().keys().cloned().collect(),
            });
        }
    }
    found
}

#[tokio::test]
async fn every_operation_answers_whoever_may_call_it_and_nobody_else() {
    // Each operation is asked without a valid key often.
    let world = World::with(|config| config.rate.address_burst = NonZeroU32::MAX).await;
    let operations = operations(&world).await;
    let listed = OPERATIONS.iter().map(|(id, _)| *id);
    let known: BTreeSet<_> = listed.chain(PUBLIC.to_vec()).chain(OF_HOSTS.to_vec()).collect();
    let found: BTreeSet<_> = operations.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(found, known, "the table is not complete");

    let past = Utc::now() - TimeDelta::seconds(1);
    let expired = world.key(Scope::Admin, Some(past)).await;
    let revoked = world.key(Scope::Admin, None).await;
    world
        .postgres
        .sql("ovenbird", "UPDATE api_keys SET revoked_at = now() WHERE created_at = (SELECT max(created_at) FROM api_keys)")
        .await
        .unwrap();
    let unknown = format!("ovb_{}", "A".repeat(43));
    let refused = [
        ("nothing", None),
        ("an empty key", Some("Bearer ".to_owned())),
        ("another scheme", Some(format!("Basic {}", world.admin))),
        ("a key without scheme", Some(world.admin.clone())),
        ("an unknown key", Some(format!("Bearer {unknown}"))),
        ("a key with more", Some(format!("Bearer {}x", world.admin))),
        ("an expired key", Some(format!("Bearer {expired}"))),
        ("a revoked key", Some(format!("Bearer {revoked}"))),
    ];
    for Operation { id, method, path, needs_key, statuses } in operations {
        let request = || world.client.request(method.clone(), format!("{}{path}", world.url));
        if OF_HOSTS.contains(&id.as_str()) {
            // No API key opens them, and none is needed to be refused.
            for request in [request(), request().bearer_auth(&world.admin)] {
                let status = request.json(&json!({"csr": "none"})).send().await.unwrap().status();
                assert!(!needs_key && [409, 422].contains(&status.as_u16()), "{id}: {status}");
            }
            continue;
        }
        if !needs_key {
            assert!(PUBLIC.contains(&id.as_str()), "{id} must not be public");
            assert_eq!(request().send().await.unwrap().status(), 200, "{id}");
            continue;
        }
        for (what, header) in &refused {
            let mut request = request();
            if let Some(header) = header {
                request = request.header(AUTHORIZATION, header);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), 401, "{id} with {what}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["code"], "unauthorized", "{id} with {what}");
        }
        let (_, allowed) = OPERATIONS.iter().find(|(known, _)| *known == id).unwrap();
        for scope in Scope::ALL {
            let key = world.key(scope, None).await;
            let response = request().header("x-api-key", &key).send().await.unwrap();
            let status = response.status().as_str().to_owned();
            assert!(statuses.contains(&status), "{id} answers {status}, and does not say so");
            let is_refused = response.status() == 403;
            assert_eq!(is_refused, !allowed.contains(&scope), "{id} with scope {scope:?}");
            assert_ne!(response.status(), 401, "{id} with scope {scope:?}");
            assert!(!response.status().is_server_error(), "{id} with scope {scope:?}");
        }
    }
}

#[tokio::test]
async fn key_of_scope_build_sees_its_own_builds_only() {
    let world = World::with_host().await;
    let theirs = world.submit("theirs").await;
    let key = world.key(Scope::Build, None).await;
    let own = |method, path: &str| {
        world.client.request(method, format!("{}{path}", world.url)).bearer_auth(&key)
    };
    let body = json!({"name": "mine", "recipe": ["RUN true"]});
    let mine = own(Method::POST, "/v1/admin/builds").json(&body).send().await.unwrap();
    assert_eq!(mine.status(), 201);
    let mine: Value = mine.json().await.unwrap();

    let list = own(Method::GET, "/v1/admin/builds").send().await.unwrap();
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["id"], mine["id"]);
    for path in ["", "/logs", "/logs/stream"] {
        let path = format!("/v1/admin/builds/{}{path}", theirs["id"].as_str().unwrap());
        assert_eq!(own(Method::GET, &path).send().await.unwrap().status(), 404, "{path}");
    }
    for path in ["cancel", "retry"] {
        let path = format!("/v1/admin/builds/{}/{path}", theirs["id"].as_str().unwrap());
        assert_eq!(own(Method::POST, &path).send().await.unwrap().status(), 404, "{path}");
    }

    let reader = world.key(Scope::Read, None).await;
    let all = world.client.get(format!("{}/v1/admin/builds", world.url)).bearer_auth(reader);
    let all: Value = all.send().await.unwrap().json().await.unwrap();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn two_headers_must_hold_the_same_key_and_use_is_noted() {
    let world = World::start().await;
    let other = world.key(Scope::Admin, None).await;
    let with = |key: &str| world.request(Method::GET, "/v1/admin/builds").header("X-API-Key", key);
    assert_eq!(with(&other).send().await.unwrap().status(), 401);
    let unscoped =
        world.client.head(format!("{}/v1/admin/builds", world.url)).send().await.unwrap();
    assert_eq!(unscoped.status(), 401, "HEAD is guarded as GET is");
    assert_eq!(with(&world.admin).send().await.unwrap().status(), 200);
    let used = "SELECT count(*) FROM api_keys WHERE last_used_at IS NOT NULL";
    assert_eq!(world.postgres.sql("ovenbird", used).await.unwrap(), "1");
    let kept = format!("SELECT count(*) FROM api_keys WHERE hash::text LIKE '%{}%'", &other[4..]);
    assert_eq!(world.postgres.sql("ovenbird", &kept).await.unwrap(), "0", "no key is stored");
}
