//! The program itself: what it tells Prometheus, and whom of its services it trusts.

use std::path::Path;

use ovenbird_bridge::metrics::NAMES;
use ovenbird_testkit::{
    Authority, Folder, Nats, Postgres, Process, Redis, nats, postgres,
    process::Program,
    prometheus::{address, get, names, undescribed, value},
    redis, wait_for,
};

use crate::rig::SOON;

/// The program, with services of which most are not there.
fn start(folder: &Folder, name: &str, settings: &str) -> Process {
    let nowhere = "127.0.0.1:9";
    let mut text = "metrics_listen = '127.0.0.1:0'\n".to_owned();
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
    let program = env!("CARGO_BIN_EXE_ovenbird-bridge");
    let log = folder.join(format!("{name}.log"));
    let program = Program::new(name, program, log).args(["serve", "--config"]).arg(config);
    Process::start(program).unwrap()
}

fn log(process: &Process) -> String {
    std::fs::read_to_string(&process.program().log).unwrap()
}

/// With the right authority `reached` comes true; with another one never, and the log says why.
async fn trusts<F: AsyncFn(&Process) -> bool>(
    folder: &Folder,
    authority: &Authority,
    (service, key): (&str, &str),
    settings: &str,
    reached: F,
) {
    let other = Authority::new().unwrap();
    let (right, wrong) = (folder.join("right.pem"), folder.join("wrong.pem"));
    std::fs::write(&right, authority.certificate()).unwrap();
    std::fs::write(&wrong, other.certificate()).unwrap();
    let settings = |ca: &Path| format!("{settings}{key}_ca = '{}'\n", ca.display());

    let distrusting = start(folder, "distrusting", &settings(&wrong));
    let line = wait_for("a word of the certificate", SOON, || async {
        let log = log(&distrusting);
        Some(log.lines().find(|line| line.contains("invalid peer certificate"))?.to_owned())
    });
    let line = line.await.unwrap();
    println!("{line}");
    assert!(line.contains(service), "whose certificate? {line}");
    assert!(!reached(&distrusting).await, "{service} was believed");
    drop(distrusting);
    let trusting = start(folder, "trusting", &settings(&right));
    wait_for(&format!("{service} over TLS"), SOON, || async {
        reached(&trusting).await.then_some(())
    })
    .await
    .unwrap();
    assert!(!log(&trusting).contains("invalid peer certificate"));
}

#[tokio::test]
async fn bridge_believes_postgres_by_the_configured_authority_and_no_other_private_one() {
    let (folder, authority) = (Folder::new("bridge").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let options = postgres::Options::default();
    let postgres = Postgres::start_tls(&folder.join("pg"), options, &leaf).await.unwrap();
    let settings = format!("database_url = '{}'\n", postgres.url());
    let connected = async |process: &Process| {
        let metrics = address(&process.program().log).await.unwrap();
        let text = get(&metrics, "/metrics").await.unwrap();
        let state = |state: &str| {
            let series = format!("ovenbird_bridge_database_connections{{state=\"{state}\"}}");
            value(&text, &series).unwrap()
        };
        state("idle") >= 1.0
    };
    trusts(&folder, &authority, ("Postgres", "database"), &settings, connected).await;
}

#[tokio::test]
async fn bridge_believes_redis_by_the_configured_authority_alone() {
    let (folder, authority) = (Folder::new("bridge").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let files = authority.write(&leaf, &folder.join("tls"), "redis").unwrap();
    let options = redis::Options::default();
    let redis = Redis::start_tls(&folder.join("redis"), options, &files).await.unwrap();
    // The relay begins when its stream is there.
    let nats = Nats::start(&folder.join("nats")).await.unwrap();
    let settings = format!("redis_url = '{}'\nnats_url = '{}'\n", redis.url(), nats.url());
    let client = ::redis::Client::build_with_tls(
        redis.url(),
        ::redis::TlsCertificates {
            client_tls: None,
            root_cert: Some(authority.certificate().as_bytes().to_vec()),
        },
    );
    let client = client.unwrap();
    let patient = ::redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SOON))
        .set_response_timeout(Some(SOON));
    let alive = async |_: &Process| {
        let connection = client.get_multiplexed_async_connection_with_config(&patient).await;
        let mut connection = connection.unwrap();
        let keys: Vec<String> =
            ::redis::cmd("KEYS").arg("ovenbird:*").query_async(&mut connection).await.unwrap();
        !keys.is_empty()
    };
    trusts(&folder, &authority, ("Redis", "redis"), &settings, alive).await;
}

#[tokio::test]
async fn bridge_believes_nats_by_the_configured_authority_alone() {
    let (folder, authority) = (Folder::new("bridge").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let files = authority.write(&leaf, &folder.join("tls"), "nats").unwrap();
    let ca = files.ca.clone();
    let options = nats::Options { tls: Some(files), ..nats::Options::default() };
    let nats = Nats::start_with(&folder.join("nats"), options).await.unwrap();
    let settings = format!("nats_url = '{}'\n", nats.url());
    let client = async_nats::ConnectOptions::new().add_root_certificates(ca).require_tls(true);
    let client = client.connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let made = async |_: &Process| jetstream.get_stream("EVENTS").await.is_ok();
    trusts(&folder, &authority, ("NATS", "nats"), &settings, made).await;
}

#[tokio::test]
async fn prometheus_sees_the_names_of_the_golden_list_before_anything_happens() {
    let folder = Folder::new("bridge").unwrap();
    let bridge = start(&folder, "bridge", "");
    let metrics = address(&bridge.program().log).await.unwrap();
    assert_eq!(get(&metrics, "/healthz").await.unwrap(), "ok\n");
    let text = get(&metrics, "/metrics").await.unwrap();
    assert_eq!(names(&text), NAMES, "api/bridge/src/metrics/names.txt and the metrics differ");
    assert_eq!(undescribed(&text), Vec::<&str>::new());
    for series in [
        r#"ovenbird_bridge_desk_requests_total{verb="claim",outcome="no_capacity"}"#,
        r#"ovenbird_bridge_swept_total{rule="leases"}"#,
    ] {
        assert_eq!(value(&text, series), Some(0.0), "{series}\n{text}");
    }
    // Neither Postgres nor NATS is there, so nobody knows.
    for series in [
        r#"ovenbird_bridge_queue_depth{lane="default"}"#,
        "ovenbird_bridge_builds_running",
        "ovenbird_bridge_slots_free",
        r#"ovenbird_bridge_ledger_pending{feed="logs"}"#,
    ] {
        assert!(value(&text, series).is_some_and(f64::is_nan), "{series}\n{text}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_are_named() {
    let folder = Folder::new("bridge").unwrap();
    for (setting, named) in [
        ("nats_replicas = 7\n", "nats_replicas is 7"),
        ("nats_ca = '/no/such.pem'\n", "`nats_ca`"),
        ("redis_ca = '/dev/null'\n", "`redis_ca`"),
    ] {
        let mut refused = start(&folder, "refused", setting);
        assert_eq!(refused.wait(SOON).await.and_then(|status| status.code()), Some(1));
        assert!(log(&refused).contains(named), "{}", log(&refused));
    }
}
