//! The program itself: what it tells Prometheus, and whom of its services it trusts.

use std::path::Path;

use ovenbird_api::metrics::NAMES;
use ovenbird_testkit::{
    Authority, Folder, Nats, Port, Postgres, Process, Redis, nats, postgres,
    process::Program,
    prometheus::{address, get, names, undescribed, value},
    redis, wait_for,
};
use serde_json::Value;

use crate::world::SOON;

/// The program, with services of which most are not there.
struct Api {
    process: Process,
    port: Port,
}

impl Api {
    fn start(folder: &Folder, name: &str, settings: &str) -> Self {
        let port = Port::reserve().unwrap();
        let nowhere = "127.0.0.1:9";
        let mut text = format!("listen = '127.0.0.1:{port}'\nmetrics_listen = '127.0.0.1:0'\n");
        for (key, url) in [
            ("database_url", format!("postgres://{nowhere}/x")),
            ("redis_url", format!("redis://{nowhere}")),
            ("nats_url", format!("nats://{nowhere}")),
        ] {
            if !settings.contains(key) {
                text += &format!("{key} = '{url}'\n");
            }
        }
        let config = folder.join(format!("{name}.toml"));
        std::fs::write(&config, text + settings).unwrap();
        let program = env!("CARGO_BIN_EXE_ovenbird-api");
        let program = Program::new(name, program, folder.join(format!("{name}.log")))
            .args(["serve", "--config"])
            .arg(config);
        Self { process: Process::start(program).unwrap(), port }
    }

    fn log(&self) -> &Path {
        &self.process.program().log
    }

    /// Whether a service answers the api, once the api itself answers.
    async fn reaches(&self, service: &str) -> bool {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        let ready = wait_for("the api", SOON, || async {
            reqwest::get(&url).await.ok()?.json::<Value>().await.ok()
        });
        let ready = ready.await.unwrap();
        let checks = ready["checks"].as_array().unwrap().iter();
        checks.filter(|check| check["service"] == service).all(|check| check["ok"] == true)
    }
}

/// With the right authority the service is reached; with another one never, and the log says why.
async fn trusts(folder: &Folder, authority: &Authority, service: &str, key: &str, url: &str) {
    let other = Authority::new().unwrap();
    let (right, wrong) = (folder.join("right.pem"), folder.join("wrong.pem"));
    std::fs::write(&right, authority.certificate()).unwrap();
    std::fs::write(&wrong, other.certificate()).unwrap();
    let settings = |ca: &Path| format!("{key}_url = '{url}'\n{key}_ca = '{}'\n", ca.display());

    let api = Api::start(folder, "trusting", &settings(&right));
    wait_for(&format!("{service} over TLS"), SOON, || async {
        api.reaches(service).await.then_some(())
    })
    .await
    .unwrap();
    let api = Api::start(folder, "distrusting", &settings(&wrong));
    let log = wait_for("a word of the certificate", SOON, || async {
        assert!(!api.reaches(service).await, "{service} was believed");
        let log = std::fs::read_to_string(api.log()).ok()?;
        log.contains("invalid peer certificate").then_some(log)
    })
    .await
    .unwrap();
    let line = log.lines().find(|line| line.contains("invalid peer certificate")).unwrap();
    println!("{line}");
    assert!(line.to_lowercase().contains(service), "whose certificate? {line}");
    let password = url.split_once("postgres:").and_then(|(_, rest)| rest.split_once('@'));
    assert!(password.is_none_or(|(password, _)| !log.contains(password)), "{log}");
    assert!(!api.reaches(service).await);

    let missing = folder.join("missing.pem");
    let mut refused = Api::start(folder, "refused", &settings(&missing));
    assert_eq!(refused.process.wait(SOON).await.and_then(|status| status.code()), Some(1));
    let log = std::fs::read_to_string(refused.log()).unwrap();
    assert!(log.contains(&format!("`{key}_ca`")) && log.contains("missing.pem"), "{log}");
}

#[tokio::test]
async fn api_believes_postgres_by_the_configured_authority_and_no_other_private_one() {
    let (folder, authority) = (Folder::new("api").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let options = postgres::Options::default();
    let postgres = Postgres::start_tls(&folder.join("pg"), options, &leaf).await.unwrap();
    trusts(&folder, &authority, "postgres", "database", &postgres.url()).await;
}

#[tokio::test]
async fn api_believes_redis_by_the_configured_authority_alone() {
    let (folder, authority) = (Folder::new("api").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let files = authority.write(&leaf, &folder.join("tls"), "redis").unwrap();
    let options = redis::Options::default();
    let redis = Redis::start_tls(&folder.join("redis"), options, &files).await.unwrap();
    trusts(&folder, &authority, "redis", "redis", &redis.url()).await;
}

#[tokio::test]
async fn api_believes_nats_by_the_configured_authority_alone() {
    let (folder, authority) = (Folder::new("api").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let files = authority.write(&leaf, &folder.join("tls"), "nats").unwrap();
    let options = nats::Options { tls: Some(files), ..nats::Options::default() };
    let nats = Nats::start_with(&folder.join("nats"), options).await.unwrap();
    trusts(&folder, &authority, "nats", "nats", &nats.url()).await;
}

#[tokio::test]
async fn prometheus_sees_the_names_of_the_golden_list_and_what_has_happened() {
    let folder = Folder::new("api").unwrap();
    let api = Api::start(&folder, "api", "");
    let metrics = address(api.log()).await.unwrap();
    let url = format!("http://127.0.0.1:{}", api.port);
    for path in ["/healthz", "/healthz", "/v1/admin/builds/whatever", "/no/such/path"] {
        reqwest::get(format!("{url}{path}")).await.unwrap();
    }
    assert_eq!(get(&metrics, "/healthz").await.unwrap(), "ok\n");
    let text = get(&metrics, "/metrics").await.unwrap();
    assert_eq!(names(&text), NAMES, "api/src/metrics/names.txt and the metrics differ");
    assert_eq!(undescribed(&text), Vec::<&str>::new());
    for (series, expected) in [
        (r#"ovenbird_api_requests_total{operation="healthz",status="200"}"#, 2.0),
        (r#"ovenbird_api_request_duration_seconds_count{operation="healthz"}"#, 2.0),
        (r#"ovenbird_api_requests_total{operation="other",status="404"}"#, 1.0),
        (r#"ovenbird_api_streams{kind="logs"}"#, 0.0),
        (r#"ovenbird_api_database_connections{state="used"}"#, 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
    assert!(!text.contains("whatever") && !text.contains("/no/such/path"), "{text}");
}
