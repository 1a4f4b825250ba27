//! Hosts join by a token and stay by their key: over REST, and with a real agent.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use ovenbird_api::config::Authority as Files;
use ovenbird_testkit::{Authority, Folder, wait_until};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use x509_parser::pem::parse_x509_pem;

use crate::{
    sandbox_host::Host,
    world::{SOON, World},
};

/// Requests of one address.
const PLENTY: u32 = 10_000;
/// Of the certificate of a real agent: a third of it is what a busy machine has for the renewal.
const LIFETIME: Duration = Duration::from_secs(12);

/// A world with an authority for hosts, where an address may ask as often as that.
async fn world(signer: (PathBuf, PathBuf), lifetime: Duration, burst: u32) -> World {
    World::with(|config| {
        config.rate.address_burst = NonZeroU32::new(burst).unwrap();
        config.rate.address_per_second = NonZeroU32::MIN;
        config.registration.authority = Some(Files { cert: signer.0, key: signer.1 });
        config.registration.certificate_lifetime = lifetime;
    })
    .await
}

/// A world for requests alone.
async fn alone(burst: u32) -> (World, Folder) {
    let folder = Folder::new("registration").unwrap();
    let signer = Authority::new().unwrap().write_signer(folder.path()).unwrap();
    (world(signer, Duration::from_secs(3600), burst).await, folder)
}

fn csr(key: &KeyPair) -> String {
    let asked = CertificateParams::new(["another.host.ovenbird".to_owned()]).unwrap();
    asked.serialize_request(key).unwrap().pem().unwrap()
}

impl World {
    async fn announce(&self, body: &Value) -> Value {
        let response = self.post("/v1/admin/hosts", body).await;
        assert_eq!(response.status(), 201);
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(location, format!("/v1/admin/hosts/{}", answer["host"]["id"].as_str().unwrap()));
        answer
    }

    /// As an agent does it: without an API key.
    async fn call(&self, call: &str, body: &Value) -> Response {
        let url = format!("{}/v1/hosts/{call}", self.url);
        self.client.post(url).json(body).send().await.unwrap()
    }

    async fn register(&self, token: &Value, key: &KeyPair, address: &str) -> Response {
        self.call("register", &json!({"token": token, "csr": csr(key), "address": address})).await
    }
}

async fn code(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap().to_owned())
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn token_gives_a_certificate_of_its_own_host_once() {
    let (world, _folder) = alone(PLENTY).await;
    let announced = world.announce(&json!({"name": " seven ", "labels": {"zone": "b"}})).await;
    let (host, token) = (&announced["host"], &announced["token"]);
    assert_eq!((&host["status"], &host["name"]), (&json!("pending"), &json!("seven")));
    assert_eq!((&host["address"], &host["labels"]), (&json!(""), &json!({"zone": "b"})));
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());

    let unknown = json!(format!("ovr_{}", "A".repeat(43)));
    let answered = world.register(&unknown, &key, "10.0.0.7:7443").await;
    assert_eq!(code(answered).await, refused(403, "registration_refused"));
    let answered = world.register(token, &key, "10.0.0.7:7443").await;
    assert_eq!(answered.status(), 200);
    let certified: Value = answered.json().await.unwrap();
    assert_eq!(
        (&certified["host_id"], &certified["server_name"]),
        (&host["id"], &host["server_name"])
    );
    let (_, pem) = parse_x509_pem(certified["certificate"].as_str().unwrap().as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap().value;
    let names: Vec<_> = names.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("DNSName({})", host["server_name"].as_str().unwrap())]);
    let (_, ca) = parse_x509_pem(certified["ca"].as_str().unwrap().as_bytes()).unwrap();
    let ca = ca.parse_x509().unwrap();
    assert!(certificate.verify_signature(Some(ca.public_key())).is_ok());

    // Whoever comes with it again is refused, the first one too; that one renews.
    for key in [&key, &other] {
        let again = world.register(token, key, "10.0.0.7:7443").await;
        assert_eq!(code(again).await, refused(403, "registration_refused"));
    }
    let renewed = world.call("renew", &json!({"csr": csr(&key)})).await;
    assert_eq!(renewed.status(), 200);
    assert_eq!(renewed.json::<Value>().await.unwrap()["host_id"], host["id"]);
    let renewed = world.call("renew", &json!({"csr": csr(&other)})).await;
    assert_eq!(code(renewed).await, refused(403, "renewal_refused"));

    // Tokens are in no row and in no log of changes; who did what is.
    let id = host["id"].as_str().unwrap();
    let audit = world.get_json(&format!("/v1/admin/audit?actor={id}")).await;
    let actions: Vec<_> =
        audit["items"].as_array().unwrap().iter().map(|entry| &entry["action"]).collect();
    assert_eq!(actions, ["host_renew", "host_register"]);
    let anonymous = world.get_json("/v1/admin/audit?actor=anonymous&action=host_register").await;
    assert_eq!(anonymous["items"].as_array().unwrap().len(), 3);
    assert_eq!(anonymous["items"][0]["status"], 403);
    let text = token.as_str().unwrap();
    let dump = format!(
        "SELECT (SELECT count(*) FROM audit_log a WHERE a::text LIKE '%{text}%')
        + (SELECT count(*) FROM host_tokens t WHERE t::text LIKE '%{text}%')"
    );
    assert_eq!(world.postgres.sql("ovenbird", &dump).await.unwrap(), "0");

    // Once it is deleted, its key is worth nothing.
    let path = format!("/v1/admin/hosts/{id}");
    assert_eq!(world.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    let renewed = world.call("renew", &json!({"csr": csr(&key)})).await;
    assert_eq!(code(renewed).await, refused(403, "renewal_refused"));
}

#[tokio::test]
async fn token_is_over_after_its_time_and_by_another_one() {
    let (world, _folder) = alone(PLENTY).await;
    let announced = world.announce(&json!({})).await;
    let id = announced["host"]["id"].as_str().unwrap();
    let key = KeyPair::generate().unwrap();
    let another = world.post(&format!("/v1/admin/hosts/{id}/token"), &json!(null)).await;
    let another: Value = another.json().await.unwrap();
    let old = world.register(&announced["token"], &key, "h:1").await;
    assert_eq!(code(old).await, refused(403, "registration_refused"));
    let over = "UPDATE host_tokens SET expires_at = now()";
    world.postgres.sql("ovenbird", over).await.unwrap();
    let old = world.register(&another["token"], &key, "h:1").await;
    assert_eq!(code(old).await, refused(403, "registration_refused"));
    let third = world.post(&format!("/v1/admin/hosts/{id}/token"), &json!(null)).await;
    let third: Value = third.json().await.unwrap();
    assert_eq!(world.register(&third["token"], &key, "h:1").await.status(), 200);
    // The address of one host is no other's.
    let next = world.announce(&json!({})).await;
    let other = KeyPair::generate().unwrap();
    let taken = world.register(&next["token"], &other, "h:1").await;
    assert_eq!(code(taken).await, refused(409, "host_taken"));
    let taken = world.register(&next["token"], &key, "h:2").await;
    assert_eq!(code(taken).await, refused(409, "host_taken"));
    assert_eq!(world.register(&next["token"], &other, "h:2").await.status(), 200);
}

#[tokio::test]
async fn bad_input_is_refused_and_an_installation_without_authority_says_so() {
    let (world, _folder) = alone(PLENTY).await;
    let announced = world.announce(&json!({})).await;
    let (token, csr) = (&announced["token"], csr(&KeyPair::generate().unwrap()));
    for (body, field) in [
        (json!({"token": "ovr_short", "csr": csr, "address": "h:1"}), "token"),
        (json!({"token": token, "csr": "none", "address": "h:1"}), "csr"),
        (json!({"token": token, "csr": csr, "address": "h"}), "address"),
        (json!({"token": token, "csr": csr, "address": "http://h:1"}), "address"),
        (json!({"token": token, "csr": csr, "address": "h:1", "name": "x"}), "name"),
    ] {
        let answer = world.call("register", &body).await;
        assert_eq!(answer.status(), 422, "{field}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["details"][0]["field"], field, "{answer}");
    }
    for (body, field) in [
        (json!({"labels": {"Zone": "b"}}), "labels"),
        (json!({"labels": {"zone": 1}}), "labels.zone"),
        (json!({"name": ""}), "name"),
        (json!({"label": {}}), "label"),
    ] {
        let answer = world.post("/v1/admin/hosts", &body).await;
        assert_eq!(answer.status(), 422, "{field}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"]["details"][0]["field"], field, "{answer}");
    }
    assert_eq!(world.get_json("/v1/admin/hosts").await["items"].as_array().unwrap().len(), 1);

    let without = World::start().await;
    let answer = without.post("/v1/admin/hosts", &json!({})).await;
    assert_eq!(code(answer).await, refused(409, "registration_off"));
    let answer = without.call("renew", &json!({"csr": csr})).await;
    assert_eq!(code(answer).await, refused(409, "registration_off"));
}

#[tokio::test]
async fn whoever_guesses_tokens_is_slowed_down_by_address() {
    let (world, _folder) = alone(3).await;
    let key = KeyPair::generate().unwrap();
    let token = json!(format!("ovr_{}", "A".repeat(43)));
    let tries = (0..30).map(|_| world.register(&token, &key, "h:1"));
    let mut statuses = Vec::new();
    for answer in futures::future::join_all(tries).await {
        assert_eq!(answer.headers()["ratelimit-limit"], "3");
        statuses.push(answer.status().as_u16());
    }
    assert!(statuses.contains(&403) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [403, 429].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn labels_of_a_host_are_set_and_told_and_a_build_asks_for_them() {
    let world = World::with_host().await;
    let list = world.get_json("/v1/admin/hosts").await;
    let id = list["items"][0]["id"].as_str().unwrap();
    let put = async |body: &Value| {
        let request = world.request(Method::PUT, &format!("/v1/admin/hosts/{id}/labels"));
        request.json(body).send().await.unwrap()
    };
    assert_eq!(put(&json!({"labels": {"a b": "c"}})).await.status(), 422);
    let set: Value = put(&json!({"labels": {"disk": "fast"}})).await.json().await.unwrap();
    assert_eq!(set["labels"], json!({"disk": "fast"}));
    let build = |labels: Value| json!({"name": "web", "recipe": ["RUN true"], "labels": labels});
    let refused = world.post("/v1/admin/builds", &build(json!({"": "b"}))).await;
    assert_eq!(refused.status(), 422);
    let made = world.post("/v1/admin/builds", &build(json!({"zone": "b"}))).await;
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["labels"], json!({"zone": "b"}));
    let queue = world.get_json("/v1/admin/queue").await;
    assert_eq!(queue["items"][0]["reason"], "no_host", "{queue}");
    let cancelled = format!("/v1/admin/builds/{}/cancel", made["id"].as_str().unwrap());
    world.post(&cancelled, &json!({})).await;
    let again = world.post(&cancelled.replace("cancel", "retry"), &json!(null)).await;
    assert_eq!(again.json::<Value>().await.unwrap()["labels"], json!({"zone": "b"}));
}

/// Where the token is, beside the agent's configuration.
fn section(folder: &Folder, api: &str, token: &Value) -> String {
    let file = folder.join("token");
    std::fs::write(&file, format!("{}\n", token.as_str().unwrap())).unwrap();
    format!("[registration]\napi = '{api}'\ntoken_file = '{}'\n", file.display())
}

async fn expiry(world: &World, id: &str) -> DateTime<Utc> {
    let host = world.get_json(&format!("/v1/admin/hosts/{id}")).await;
    host["certificate_expires_at"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn agent_registers_itself_renews_in_time_and_keeps_its_sandboxes_and_needs_no_token_again() {
    let folder = Folder::new("registration").unwrap();
    let authority = Authority::new().unwrap();
    let signer = authority.write_signer(folder.path()).unwrap();
    let mut world = world(signer, LIFETIME, PLENTY).await;
    let announced = world.announce(&json!({"name": "seven"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (id, name) = (text(&announced["host"]["id"]), text(&announced["host"]["server_name"]));
    let api = world.url.clone();
    let mut host =
        Host::start_by(authority, |folder, _| section(folder, &api, &announced["token"])).await;

    // It shows the certificate of its host and of no other, and only our clients may call it.
    let sandbox = host.agent_named(&name);
    assert!(sandbox.get_host().await.is_ok());
    assert!(host.agent_named("another.host.ovenbird").get_host().await.is_err());
    let row = world.get_json(&format!("/v1/admin/hosts/{id}")).await;
    assert_eq!(row["address"], host.address());
    assert!(row["registered_at"].is_string(), "{row}");

    // Renewed before the end; a new client sees the new certificate, the old connection goes on.
    let first = expiry(&world, &id).await;
    wait_until("a renewal", SOON, || async { expiry(&world, &id).await > first }).await;
    assert!(Utc::now() < first, "it came in time");
    wait_until("the first certificate to be over", SOON, || async { Utc::now() > first }).await;
    wait_until("the next certificate to be shown", SOON, || async {
        host.agent_named(&name).get_host().await.is_ok()
    })
    .await;
    assert!(sandbox.get_host().await.is_ok());

    // The next agent needs neither token nor api, as long as the certificate lasts.
    host.goes().await;
    let kept = host.folder.join("data/identity.json");
    std::fs::remove_file(host.folder.join("token")).unwrap();
    let before = std::fs::read(&kept).unwrap();
    host.comes().await;
    assert!(host.agent_named(&name).get_host().await.is_ok());
    let key = |text: &[u8]| serde_json::from_slice::<Value>(text).unwrap()["key"].clone();
    assert_eq!(key(&std::fs::read(&kept).unwrap()), key(&before));
    host.goes().await;
    world.stop().await;
}

#[tokio::test]
async fn agent_whose_answer_was_lost_goes_on_with_its_key_and_a_deleted_one_does_not_start() {
    let (world, _folder) = alone(PLENTY).await;
    let announced = world.announce(&json!({})).await;
    let api = world.url.clone();
    let host = Host::prepare(|folder, _| section(folder, &api, &announced["token"]));
    // What is there when the answer to the first request was lost: the key, and a token that is used.
    let key = KeyPair::generate().unwrap();
    let identity =
        json!({"api": api, "api_ca": null, "key": key.serialize_pem(), "certificate": null});
    std::fs::write(host.folder.join("data/identity.json"), identity.to_string()).unwrap();
    let answered = world.register(&announced["token"], &key, host.address()).await;
    assert_eq!(answered.status(), 200);
    let mut host = host;
    host.comes().await;
    let name = announced["host"]["server_name"].as_str().unwrap();
    // This world's authority is another one than the client's of the host's own, so it is looked at by its file.
    let kept = std::fs::read(host.folder.join("data/identity.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    assert_eq!(kept["certificate"]["host_id"], announced["host"]["id"]);
    assert!(
        kept["certificate"]["certificate"].as_str().unwrap().contains("CERTIFICATE")
            && !name.is_empty()
    );
    host.goes().await;

    // Deleted, and its certificate lost: nothing lets it back in.
    let path = format!("/v1/admin/hosts/{}", announced["host"]["id"].as_str().unwrap());
    assert_eq!(world.request(Method::DELETE, &path).send().await.unwrap().status(), 204);
    std::fs::write(host.folder.join("data/identity.json"), identity.to_string()).unwrap();
    let error = host.try_start().await.unwrap_err();
    let said = ovenbird_kit::telemetry::chain(&error);
    assert!(said.contains("registration_refused"), "{said}");
    assert!(!said.contains("ovr_"), "{said}");
}
