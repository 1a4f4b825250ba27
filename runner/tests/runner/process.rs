//! The program itself: what it tells Prometheus, and which NATS it trusts.

use std::{path::Path, time::Duration};

use ovenbird_runner::metrics::NAMES;
use ovenbird_testkit::{
    Authority, Folder, Nats, Process, nats,
    process::Program,
    prometheus::{address, get, names, undescribed, value},
    wait_for,
};

const SOON: Duration = Duration::from_secs(30);

fn start(folder: &Folder, authority: &Authority, name: &str, settings: &str) -> Process {
    let leaf = authority.client("runner.test").unwrap();
    let files = authority.write(&leaf, &folder.join("tls"), "runner").unwrap();
    let text = format!(
        "metrics_listen = '127.0.0.1:0'\n{settings}[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
        files.ca, files.cert, files.key
    );
    let config = folder.join(format!("{name}.toml"));
    std::fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_ovenbird-runner");
    let log = folder.join(format!("{name}.log"));
    Process::start(Program::new(name, program, log).args(["serve", "--config"]).arg(config))
        .unwrap()
}

fn log(process: &Process) -> String {
    std::fs::read_to_string(&process.program().log).unwrap()
}

#[tokio::test]
async fn runner_believes_nats_by_the_configured_authority_alone() {
    let (folder, authority) = (Folder::new("runner").unwrap(), Authority::new().unwrap());
    let leaf = authority.server(&["127.0.0.1"]).unwrap();
    let files = authority.write(&leaf, &folder.join("nats-tls"), "nats").unwrap();
    let right = files.ca.clone();
    let options = nats::Options { tls: Some(files), ..nats::Options::default() };
    let nats = Nats::start_with(&folder.join("nats"), options).await.unwrap();
    let wrong = folder.join("wrong.pem");
    std::fs::write(&wrong, Authority::new().unwrap().certificate()).unwrap();
    let settings =
        |ca: &Path| format!("nats_url = '{}'\nnats_ca = '{}'\n", nats.url(), ca.display());

    let trusting = start(&folder, &authority, "trusting", &settings(&right));
    let distrusting = start(&folder, &authority, "distrusting", &settings(&wrong));
    wait_for("NATS over TLS", SOON, || async {
        log(&trusting).contains("event=connected").then_some(())
    })
    .await
    .unwrap();
    let line = wait_for("a word of the certificate", SOON, || async {
        let log = log(&distrusting);
        Some(log.lines().find(|line| line.contains("invalid peer certificate"))?.to_owned())
    });
    let line = line.await.unwrap();
    println!("{line}");
    assert!(line.contains("WARN") && line.contains("NATS"), "{line}");
    assert!(!log(&distrusting).contains("event=connected"));
    let mut refused = start(&folder, &authority, "refused", &settings(Path::new("/no/such.pem")));
    assert_eq!(refused.wait(SOON).await.and_then(|status| status.code()), Some(1));
    assert!(log(&refused).contains("`nats_ca`"), "{}", log(&refused));
}

#[tokio::test]
async fn prometheus_sees_the_names_of_the_golden_list_before_anything_happens() {
    let (folder, authority) = (Folder::new("runner").unwrap(), Authority::new().unwrap());
    let settings = "slots = 3\nnats_url = 'nats://127.0.0.1:9'\n";
    let runner = start(&folder, &authority, "runner", settings);
    let metrics = address(&runner.program().log).await.unwrap();
    assert_eq!(get(&metrics, "/healthz").await.unwrap(), "ok\n");
    let text = get(&metrics, "/metrics").await.unwrap();
    assert_eq!(names(&text), NAMES, "runner/src/metrics/names.txt and the metrics differ");
    assert_eq!(undescribed(&text), Vec::<&str>::new());
    for (series, expected) in [
        ("ovenbird_runner_slots", 3.0),
        (r#"ovenbird_runner_claims_total{outcome="claimed"}"#, 0.0),
        (r#"ovenbird_runner_step_duration_seconds_count{phase="boot",outcome="passed"}"#, 0.0),
    ] {
        assert_eq!(value(&text, series), Some(expected), "{series}\n{text}");
    }
}
