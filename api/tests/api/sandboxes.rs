//! Sandboxes from their create to their delete, and who may do what with them.

use futures::future::join_all;
use ovenbird_api::app::{
    keys::Scope,
    sandboxes::{Draft, Origin},
};
use ovenbird_contract::id::SandboxId;
use ovenbird_testkit::wait_until;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::{
    sandbox_host::Host,
    world::{SOON, World},
};

const SANDBOXES: &str = "/v1/sandboxes";

pub(crate) async fn create(world: &World, body: Value) -> Value {
    let response = world.post(SANDBOXES, &body).await;
    let status = response.status();
    let answer: Value = response.json().await.unwrap();
    assert_eq!(status, 201, "{answer}");
    answer
}

pub(crate) fn path(sandbox: &Value, below: &str) -> String {
    format!("{SANDBOXES}/{}{below}", sandbox["id"].as_str().unwrap())
}

/// The answer's status and its error's code, or its sandbox's status.
pub(crate) async fn told(response: Response) -> (u16, String) {
    let status = response.status();
    let body: Value = match status {
        StatusCode::NO_CONTENT => Value::Null,
        _ => response.json().await.unwrap(),
    };
    let word = if status.is_success() { &body["status"] } else { &body["error"]["code"] };
    (status.as_u16(), word.as_str().unwrap_or_default().to_owned())
}

fn is(status: u16, word: &str) -> (u16, String) {
    (status, word.to_owned())
}

async fn act(world: &World, sandbox: &Value, what: &str) -> (u16, String) {
    told(world.post(&path(sandbox, what), &json!({})).await).await
}

async fn run(world: &World, sandbox: &Value) -> (u16, String) {
    told(world.post(&path(sandbox, "/exec"), &json!({"script": "true"})).await).await
}

async fn delete(world: &World, sandbox: &Value) -> (u16, String) {
    told(world.request(Method::DELETE, &path(sandbox, "")).send().await.unwrap()).await
}

#[tokio::test]
async fn sandbox_is_used_paused_resumed_and_becomes_a_template_that_others_start_from() {
    let (world, host) = World::with_agent(|_| {}).await;
    let response = world.post(SANDBOXES, &json!({"template": "minimal", "timeout_sec": 600})).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let made: Value = response.json().await.unwrap();
    assert_eq!(location, path(&made, ""));
    assert_eq!((&made["status"], &made["template"]), (&json!("running"), &json!("minimal")));
    assert_eq!((&made["vcpus"], &made["memory_mb"]), (&json!(1), &json!(512)));
    assert!(made["host_ip"].is_string() && made["timeout_sec"] == 600);
    let on_host = host.sandboxes().await;
    assert_eq!(on_host.len(), 1);
    assert_eq!(on_host[0].build_id.as_deref(), made["id"].as_str(), "its mark is its own id");
    assert_eq!(world.get_json(&location).await, made);
    let list = world.get_json(&format!("{SANDBOXES}?status=running")).await;
    assert_eq!(list["items"], json!([made]));

    let done = world.post(&path(&made, "/exec"), &json!({"command": ["true"]})).await;
    let done: Value = done.json().await.unwrap();
    assert_eq!((&done["exit_code"], &done["timed_out"]), (&json!(0), &json!(false)));
    assert_eq!(act(&world, &made, "/ping").await, is(204, ""));
    let metrics = world.get_json(&path(&made, "/metrics?range=2h")).await;
    assert!(metrics["points"].is_array());

    for _ in 0..2 {
        assert_eq!(act(&world, &made, "/pause").await, is(200, "paused"), "repeating it is fine");
    }
    for refused in ["/ping", "/exec", "/exec/stream"] {
        let response = world.post(&path(&made, refused), &json!({"script": "true"})).await;
        assert_eq!(told(response).await, is(409, "sandbox_paused"), "{refused}");
    }
    let save = json!({"name": "saved", "tag": "v1"});
    let refused = world.post(&path(&made, "/snapshot"), &save).await;
    assert_eq!(told(refused).await, is(409, "sandbox_paused"));
    let resumed = world.post(&path(&made, "/resume"), &json!({"timeout_sec": 0})).await;
    let resumed: Value = resumed.json().await.unwrap();
    assert_eq!((&resumed["status"], &resumed["timeout_sec"]), (&json!("running"), &json!(0)));
    assert_eq!(act(&world, &made, "/resume").await, is(200, "running"), "of one that runs, too");
    assert_eq!(run(&world, &made).await.0, 200);

    let saved = world.post(&path(&made, "/snapshot"), &save).await;
    assert_eq!(saved.status(), 200);
    let saved: Value = saved.json().await.unwrap();
    assert_eq!(saved["status"], "destroyed", "{saved}");
    let template = &saved["snapshot"]["template_id"];
    assert_eq!(run(&world, &made).await, is(409, "sandbox_over"));
    let listed = world.get_json("/v1/admin/templates?name=saved").await;
    assert_eq!(
        (&listed["items"][0]["id"], &listed["items"][0]["type"]),
        (template, &json!("snapshot"))
    );
    let by_name = create(&world, json!({"template": "saved:v1"})).await;
    let by_id = create(&world, json!({"template": template})).await;
    assert_eq!(by_name["template_id"], by_id["template_id"]);
    let fixed = world.post(SANDBOXES, &json!({"template": template, "memory_mb": 1024})).await;
    assert_eq!(told(fixed).await, is(422, "invalid"));

    // Two at once, and once more.
    let (one, other) = tokio::join!(delete(&world, &by_name), delete(&world, &by_name));
    assert_eq!((one, other), (is(200, "destroyed"), is(200, "destroyed")));
    assert_eq!(delete(&world, &by_name).await, is(200, "destroyed"));
    assert_eq!(delete(&world, &by_id).await, is(200, "destroyed"));
    assert_eq!(delete(&world, &made).await, is(200, "destroyed"));
    assert!(host.sandboxes().await.is_empty());
    assert_eq!(world.get_json(&format!("{SANDBOXES}?status=running")).await, json!({"items": []}));
}

#[tokio::test]
async fn host_is_never_overbooked_and_a_paused_sandbox_gives_its_room_to_others() {
    let (world, host) = World::with_agent(|_| {}).await;
    let body = json!({"template": "minimal", "memory_mb": 1024});
    let creates = join_all((0..7).map(|_| world.post(SANDBOXES, &body))).await;
    let mut made = Vec::new();
    for response in creates {
        match response.status().as_u16() {
            201 => made.push(response.json::<Value>().await.unwrap()),
            _ => {
                assert_eq!(response.headers()["retry-after"], "2");
                assert_eq!(told(response).await, is(503, "no_capacity"));
            }
        }
    }
    assert_eq!((made.len(), host.sandboxes().await.len()), (4, 4));
    assert_eq!(act(&world, &made[0], "/pause").await, is(200, "paused"));
    create(&world, body.clone()).await;
    assert_eq!(act(&world, &made[0], "/resume").await, is(503, "no_capacity"));
    assert_eq!(world.get_json(&path(&made[0], "")).await["status"], "paused");
    // A sandbox takes the same room as a build does.
    let rows = "SELECT count(*) FROM sandboxes WHERE status <> 'paused' AND destroyed_at IS NULL";
    assert_eq!(world.postgres.sql("ovenbird", rows).await.unwrap(), "4");
    assert_eq!(delete(&world, &made[1]).await, is(200, "destroyed"));
    assert_eq!(act(&world, &made[0], "/resume").await, is(200, "running"));
    let too_large = json!({"template": "minimal", "memory_mb": 4096});
    assert_eq!(told(world.post(SANDBOXES, &too_large).await).await, is(503, "no_capacity"));
}

#[tokio::test]
async fn host_that_does_not_answer_is_said_and_a_delete_is_done_when_it_is_back() {
    let (world, mut host) = World::with_agent(|_| {}).await;
    let made = create(&world, json!({"template": "minimal"})).await;
    host.goes().await;
    for what in ["/ping", "/pause"] {
        assert_eq!(act(&world, &made, what).await, is(503, "host_unavailable"), "{what}");
    }
    let response = world.get(&path(&made, "/metrics")).await;
    assert_eq!(told(response).await, is(503, "host_unavailable"));
    // Nobody knows what became of it, so the host will be told to remove it.
    let refused = world.post(SANDBOXES, &json!({"template": "minimal"})).await;
    assert_eq!(told(refused).await, is(503, "host_unavailable"));
    let list = world.get_json(&format!("{SANDBOXES}?limit=1")).await;
    assert_eq!(list["items"][0]["status"], "destroying", "{list}");
    assert_eq!(list["items"][0]["reason"]["code"], "create_failed");
    assert_eq!(delete(&world, &made).await, is(200, "destroying"));
    assert_eq!(delete(&world, &made).await, is(200, "destroying"), "repeating it is fine");
    assert_eq!(run(&world, &made).await, is(409, "sandbox_over"));

    assert!(world.store.host_unreachable(host.address()).await.unwrap());
    let refused = world.post(SANDBOXES, &json!({"template": "minimal"})).await;
    assert_eq!(told(refused).await, is(503, "no_capacity"), "it is on no host that answers");
}

#[tokio::test]
async fn key_of_scope_build_has_its_own_sandboxes_and_a_reader_only_looks() {
    let (world, _host) = World::with_agent(|_| {}).await;
    let theirs = create(&world, json!({"template": "minimal"})).await;
    let (builder, reader) =
        (world.key(Scope::Build, None).await, world.key(Scope::Read, None).await);
    let call = |key: &str, method: Method, path: &str| {
        world.client.request(method, format!("{}{path}", world.url)).bearer_auth(key)
    };
    let mine = call(&builder, Method::POST, SANDBOXES).json(&json!({"template": "minimal"}));
    let mine: Value = mine.send().await.unwrap().json().await.unwrap();
    let list = call(&builder, Method::GET, SANDBOXES).send().await.unwrap();
    assert_eq!(list.json::<Value>().await.unwrap()["items"], json!([mine]));
    let script = json!({"script": "true"});
    for (method, below) in [
        (Method::GET, ""),
        (Method::DELETE, ""),
        (Method::GET, "/metrics"),
        (Method::GET, "/files?path=/etc/hostname"),
        (Method::POST, "/pause"),
        (Method::POST, "/exec"),
    ] {
        let request = call(&builder, method.clone(), &path(&theirs, below));
        let response = request.json(&script).send().await.unwrap();
        assert_eq!(told(response).await, is(404, "not_found"), "{method} {below}");
    }
    let request = call(&builder, Method::POST, &path(&mine, "/exec"));
    assert_eq!(request.json(&script).send().await.unwrap().status(), 200);

    let list = call(&reader, Method::GET, SANDBOXES).send().await.unwrap();
    assert_eq!(list.json::<Value>().await.unwrap()["items"].as_array().unwrap().len(), 2);
    for (method, below, status) in [
        (Method::GET, "", 200),
        (Method::GET, "/metrics", 200),
        (Method::GET, "/files?path=/etc/hostname", 403),
        (Method::POST, "/exec", 403),
        (Method::DELETE, "", 403),
    ] {
        let request = call(&reader, method.clone(), &path(&theirs, below));
        let response = request.json(&script).send().await.unwrap();
        assert_eq!(response.status(), status, "{method} {below}");
    }
    assert_eq!(delete(&world, &mine).await, is(200, "destroyed"), "an admin may");
}

#[tokio::test]
async fn sandbox_whose_caller_hangs_up_is_made_all_the_same() {
    let (world, host) = World::with_agent(|_| {}).await;
    let rows =
        || async { world.postgres.sql("ovenbird", "SELECT status FROM sandboxes").await.unwrap() };
    let app = world.app().await;
    let caller = app.key_authenticate(&world.admin).await.unwrap().unwrap();
    let origin = Origin { caller, id: SandboxId::new(), again: false };
    let draft = Draft {
        template: "minimal".into(),
        vcpus: None,
        memory_mb: None,
        disk_mb: None,
        timeout_sec: 0,
    };
    tokio::select! {
        // Dropped as soon as there is a row.
        () = wait_until("a row", SOON, || async { !rows().await.is_empty() }) => {}
        _ = app.sandbox_create(draft, origin) => {}
    }
    wait_until("the sandbox to run", SOON, || async { rows().await == "running" }).await;
    assert_eq!(host.sandboxes().await.len(), 1);
}

#[tokio::test]
async fn without_access_to_hosts_sandboxes_are_listed_and_nothing_else() {
    let world = World::with_host().await;
    assert_eq!(world.get_json(SANDBOXES).await, json!({"items": []}));
    let refused = world.post(SANDBOXES, &json!({"template": "minimal"})).await;
    assert_eq!(told(refused).await, is(503, "unavailable"));
    let rows = world.postgres.sql("ovenbird", "SELECT count(*) FROM sandboxes").await.unwrap();
    assert_eq!(rows, "0", "nothing is stored");
}

#[tokio::test]
async fn bad_requests_about_sandboxes_are_refused_and_nothing_is_stored() {
    let (world, host) = World::with_agent(|_| {}).await;
    let rows = || world.postgres.sql("ovenbird", "SELECT count(*) FROM sandboxes");
    let bodies: [(Value, &str, &str); 14] = [
        (json!({}), "template", "missing"),
        (json!({"template": true}), "template", "wrong_type"),
        (json!({"template": "none"}), "template", "unknown_template"),
        (json!({"template": "minimal:v9"}), "template", "unknown_template"),
        (json!({"template": "a:b:c"}), "template", "wrong_form"),
        (json!({"template": "tpl_01h455vb4pex5vsknk084sn02q"}), "template", "unknown_template"),
        (json!({"template": "bld_01h455vb4pex5vsknk084sn02q"}), "template", "unknown_template"),
        (json!({"template": "minimal", "vcpus": 0}), "vcpus", "out_of_range"),
        (json!({"template": "minimal", "vcpus": -1}), "vcpus", "out_of_range"),
        (json!({"template": "minimal", "memory_mb": 1}), "memory_mb", "out_of_range"),
        (json!({"template": "minimal", "disk_mb": 1}), "disk_mb", "out_of_range"),
        (json!({"template": "minimal", "timeout_sec": -5}), "timeout_sec", "out_of_range"),
        (json!({"template": "minimal", "timeout_sec": "1"}), "timeout_sec", "wrong_type"),
        (json!({"template": "minimal", "colour": "red"}), "colour", "unknown_field"),
    ];
    for (body, field, code) in bodies {
        let response = world.post(SANDBOXES, &body).await;
        assert_eq!(response.status(), 422, "{body}");
        let answer: Value = response.json().await.unwrap();
        let detail = &answer["error"]["details"][0];
        assert_eq!((&detail["field"], &detail["code"]), (&json!(field), &json!(code)), "{answer}");
    }
    assert_eq!(rows().await.unwrap(), "0");

    let made = create(&world, json!({"template": "minimal"})).await;
    let below = |text: &str| path(&made, text);
    let other = |id: &str| format!("{SANDBOXES}/{id}");
    let gets = [
        (other("bld_01h455vb4pex5vsknk084sn02q"), 400, "invalid_parameter"),
        (other("sbx_01h455vb4pex5vsknk084sn02q"), 404, "not_found"),
        (other("x"), 400, "invalid_parameter"),
        (format!("{SANDBOXES}?limit=0"), 400, "invalid_parameter"),
        (format!("{SANDBOXES}?status=gone"), 400, "invalid_parameter"),
        (format!("{SANDBOXES}?cursor=AAAA"), 400, "invalid_parameter"),
        (format!("{SANDBOXES}?template_id=x"), 400, "invalid_parameter"),
        (below("/metrics?range=1h"), 400, "invalid_parameter"),
        (below("/files"), 400, "invalid_parameter"),
        (below("/files?path="), 400, "invalid_parameter"),
        (below("/files?path=etc"), 400, "invalid_parameter"),
        (below("/files?path=/a/../b"), 400, "invalid_parameter"),
        (below("/files?path=/a%00"), 400, "invalid_parameter"),
        (below(&format!("/files?path=/{}", "a".repeat(4095))), 400, "invalid_parameter"),
        (below("/directories?path=/..&limit=5"), 400, "invalid_parameter"),
        (below("/directories?path=/&limit=-1"), 400, "invalid_parameter"),
        (below("/directories?path=/&cursor=!"), 400, "invalid_parameter"),
    ];
    for (path, status, code) in gets {
        assert_eq!(told(world.get(&path).await).await, is(status, code), "{path}");
    }
    for range in ["lines=1-2", "bytes=", "bytes=0-1,4-5", "bytes=a-"] {
        let request = world.request(Method::GET, &below("/files?path=/etc/hostname"));
        let response = request.header("range", range).send().await.unwrap();
        assert_eq!(told(response).await, is(400, "invalid_parameter"), "{range}");
    }
    let long = "x".repeat(131_073);
    let posts = [
        ("/exec", json!({})),
        ("/exec", json!({"script": ""})),
        ("/exec", json!({"script": "a", "command": ["b"]})),
        ("/exec", json!({"script": "a\u{0}"})),
        ("/exec", json!({"script": long})),
        ("/exec", json!({"command": []})),
        ("/exec", json!({"command": "ls"})),
        ("/exec", json!({"script": "a", "timeout_sec": -1})),
        ("/exec", json!({"script": "a", "timeout_sec": 101})),
        ("/exec/stream", json!({"script": "a", "timeout_sec": 3601})),
        ("/exec", json!({"script": "a", "env": {"1": "a"}})),
        ("/exec", json!({"script": "a", "env": {"A": 1}})),
        ("/exec", json!({"script": "a", "workdir": "srv"})),
        ("/exec", json!({"script": "a", "user": "a b"})),
        ("/resume", json!({"timeout_sec": -1})),
        ("/snapshot", json!({"tag": "v1"})),
        ("/snapshot", json!({"name": "A"})),
        ("/snapshot", json!({"name": "a", "tag": "-"})),
        ("/directories", json!({"path": "relative"})),
        ("/directories", json!({"path": "/a/../../b"})),
        ("/directories", json!({"path": "/a\u{0}"})),
    ];
    for (what, body) in posts {
        let response = world.post(&below(what), &body).await;
        let shown: String = body.to_string().chars().take(100).collect();
        assert_eq!(told(response).await, is(422, "invalid"), "{what} {shown}");
    }
    let root = world.request(Method::DELETE, &below("/files?path=//&recursive=true"));
    assert_eq!(told(root.send().await.unwrap()).await, is(400, "invalid_parameter"));
    // These sandboxes have no files: what their guest does not know is no fault of the server.
    let files = world.get(&below("/files?path=/etc/hostname")).await;
    assert_eq!(told(files).await, is(409, "sandbox_refused"));
    let upload = world.request(Method::PUT, &below("/files?path=/a")).body("text");
    let upload = upload.header("content-type", "text/plain").send().await.unwrap();
    assert_eq!(told(upload).await, is(409, "sandbox_refused"), "whatever a file is called");
    assert_eq!((rows().await.unwrap().as_str(), host.sandboxes().await.len()), ("1", 1));
    stays_usable(&world, &host, &made).await;
}

/// Nothing of all that was refused has left a trace in it.
async fn stays_usable(world: &World, host: &Host, made: &Value) {
    assert_eq!(world.get_json(&path(made, "")).await["status"], "running");
    assert_eq!(run(world, made).await.0, 200);
    assert_eq!(delete(world, made).await, is(200, "destroyed"));
    assert!(host.sandboxes().await.is_empty());
}
