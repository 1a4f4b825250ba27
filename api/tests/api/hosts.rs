//! Hosts over REST.

use reqwest::{Method, Response};
use serde_json::Value;

use crate::{templates::template, world::World};

async fn send(world: &World, method: Method, path: &str) -> Response {
    world.request(method, &format!("/v1/admin/hosts{path}")).send().await.unwrap()
}

async fn refused(response: Response, status: u16) -> Value {
    assert_eq!(response.status().as_u16(), status);
    response.json::<Value>().await.unwrap()["error"].take()
}

#[tokio::test]
async fn host_is_drained_emptied_deleted_and_stays_away_until_it_is_wanted_back() {
    let world = World::with_host().await;
    let list = world.get_json("/v1/admin/hosts").await;
    let host = &list["items"][0];
    assert_eq!((&host["status"], &host["capacity"]["vcpus"]), (&"online".into(), &4.into()));
    assert_eq!((host.get("drain"), &host["templates"]), (None, &1.into()));
    let id = format!("/{}", host["id"].as_str().unwrap());
    assert_eq!(&world.get_json(&format!("/v1/admin/hosts{id}")).await, host);

    let error = refused(send(&world, Method::DELETE, &id).await, 409).await;
    assert_eq!(error["code"], "host_not_drained");
    let made = template(&world, "web").await;
    for _ in 0..2 {
        let drained = send(&world, Method::POST, &format!("{id}/drain")).await;
        let drained: Value = drained.json().await.unwrap();
        assert_eq!(drained["status"], "draining");
        assert!(drained["drain"]["by"].as_str().unwrap().starts_with("key_"));
    }
    let error = refused(send(&world, Method::DELETE, &id).await, 409).await;
    assert_eq!(
        (&error["code"], &error["details"][0]["code"]),
        (&"host_in_use".into(), &"only_copy".into())
    );
    assert!(error["details"][0]["message"].as_str().unwrap().contains(&made));
    let gone = world.request(Method::DELETE, "/v1/admin/templates/web").send().await.unwrap();
    assert_eq!(gone.status(), 204);
    // What the bridges' poll notes does not undo the drain.
    world.host(4, 8192).await;
    assert_eq!(world.get_json(&format!("/v1/admin/hosts{id}")).await["status"], "draining");
    assert_eq!(send(&world, Method::DELETE, &id).await.status(), 204);
    assert_eq!(send(&world, Method::DELETE, &id).await.status(), 404);
    world.host(4, 8192).await;
    assert_eq!(world.get_json("/v1/admin/hosts").await["items"], Value::Array(Vec::new()));
    assert_eq!(send(&world, Method::POST, &format!("{id}/drain")).await.status(), 404);

    let back: Value =
        send(&world, Method::POST, &format!("{id}/undrain")).await.json().await.unwrap();
    assert_eq!((&back["status"], back.get("drain")), (&"pending".into(), None));
    world.host(4, 8192).await;
    assert_eq!(world.get_json(&format!("/v1/admin/hosts{id}")).await["status"], "online");
}

#[tokio::test]
async fn hosts_are_listed_in_pages_newest_first() {
    let world = World::start().await;
    for vcpus in 1..=5 {
        world.host(vcpus, 1024).await;
    }
    let mut seen = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = world.get_json(&format!("/v1/admin/hosts{query}")).await;
        let items = page["items"].as_array().unwrap();
        seen.extend(items.iter().map(|host| host["capacity"]["vcpus"].as_u64().unwrap()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn bad_input_for_hosts_is_refused() {
    let world = World::with_host().await;
    for (method, path, status, code) in [
        (Method::GET, "/bld_01h455vb4pex5vsknk084sn02q", 400, "invalid_parameter"),
        (Method::GET, "/1", 400, "invalid_parameter"),
        (Method::GET, "/hst_01h455vb4pex5vsknk084sn02q", 404, "not_found"),
        (Method::POST, "/hst_01h455vb4pex5vsknk084sn02q/drain", 404, "not_found"),
        (Method::POST, "/hst_01h455vb4pex5vsknk084sn02q/undrain", 404, "not_found"),
        (Method::DELETE, "/hst_01h455vb4pex5vsknk084sn02q", 404, "not_found"),
        (Method::DELETE, "/hst_zzzzzzzzzzzzzzzzzzzzzzzzzz", 400, "invalid_parameter"),
        (Method::GET, "?limit=-1", 400, "invalid_parameter"),
        (Method::GET, "?limit=201", 400, "invalid_parameter"),
        (Method::GET, "?cursor=AAAA", 400, "invalid_parameter"),
        (Method::DELETE, "", 405, "method_not_allowed"),
    ] {
        let error = refused(send(&world, method, path).await, status).await;
        assert_eq!(error["code"], code, "{path}");
    }
    assert_eq!(world.get_json("/v1/admin/hosts").await["items"][0]["status"], "online");
}
