//! NATS as in production: a cluster of three servers, each stream on all of them, and one of them dies.
//!
//! The subject is what is around the sandboxes, so these have no machines.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use ovenbird_contract::nats::Names;
use ovenbird_dev::{
    api::Api,
    cache::{Artifacts, Cache},
    platform::{Hypervisor, Options, Platform},
    progress::Ui,
};
use ovenbird_testkit::{wait_for, wait_until};
use serde_json::{Value, json};

const LONG: Duration = Duration::from_secs(120);
const BUILDS: usize = 6;
/// Lines of a build: two steps of which each says so many a second.
const LINES: [usize; 2] = [150, 50];

async fn submit(api: &Api, number: usize) -> String {
    let recipe: Vec<String> =
        LINES.iter().map(|lines| format!("RUN bench-lines {lines} 50")).collect();
    let build = json!({ "name": format!("build-{number}"), "recipe": recipe });
    api.build_create(&build).await.unwrap()["id"].as_str().unwrap().to_owned()
}

/// What can be read of a log now; nothing while the stream elects a leader.
async fn records(api: &Api, id: &str) -> Option<Vec<Value>> {
    let page = api.logs(id, 1, 1000).await.ok()?;
    page["records"].as_array().cloned()
}

/// Which server leads a stream, and how many others have it.
async fn leader(client: &async_nats::Client, stream: &str) -> (String, usize) {
    let jetstream = jetstream::new(client.clone());
    wait_for("a leader", LONG, || async {
        let info = jetstream.get_stream(stream).await.ok()?.cached_info().clone();
        let cluster = info.cluster?;
        Some((cluster.leader?, cluster.replicas.iter().filter(|peer| peer.current).count()))
    })
    .await
    .unwrap()
}

/// Until all three servers have a stream.
async fn replicated(client: &async_nats::Client, stream: &str) {
    wait_until("three servers with the stream", LONG, || async {
        leader(client, stream).await.1 == 2
    })
    .await;
}

#[tokio::test]
async fn nothing_is_lost_when_a_server_of_the_nats_cluster_is_killed_under_builds() {
    let (ui, artifacts) = (Ui::new(), Artifacts::locate(&Cache::open().unwrap()).unwrap());
    let options = Options {
        kind: "cluster",
        runners: 2,
        slots: 2,
        nats_servers: 3,
        hypervisor: Hypervisor::Memory,
        ..Options::default()
    };
    let mut platform = Platform::start(&ui, &artifacts, options).await.unwrap();
    let api = platform.api().unwrap();
    let client = platform.record().nats_client().await.unwrap();
    let names = Names::default();
    for stream in [names.builds_stream(), names.logs_stream(), names.events_stream()] {
        replicated(&client, &stream.name).await;
    }

    let mut builds = Vec::new();
    for number in 0..BUILDS {
        builds.push(submit(&api, number).await);
    }
    // Four run, two wait.
    wait_for("logs that grow", LONG, || async {
        let mut growing = 0;
        for id in &builds {
            growing += usize::from(records(&api, id).await?.len() > 20);
        }
        (growing >= 4).then_some(())
    })
    .await
    .unwrap();
    let (led, _) = leader(&client, &names.logs_stream().name).await;
    let killed = Instant::now();
    platform.nats().server(&led).unwrap().kill9();
    // Somebody who comes now is served, too.
    builds.push(submit(&api, BUILDS).await);

    for id in &builds {
        let build = wait_for("the build's end", LONG, || async {
            let build = api.build_get(id).await.ok()?;
            (build["completed_at"] != Value::Null).then_some(build)
        })
        .await
        .unwrap();
        assert_eq!(build["status"], "succeeded", "{build:#}");
        let records = wait_for("the end of the log", LONG, || async {
            let records = records(&api, id).await?;
            records.last().is_some_and(|record| record.get("end").is_some()).then_some(records)
        })
        .await
        .unwrap();
        let seqs: Vec<u64> = records.iter().map(|it| it["seq"].as_u64().unwrap()).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "{id} has a gap");
        for (step, lines) in (1..).zip(LINES) {
            let of_step = |record: &&Value| record["stream"] == "stdout" && record["step"] == step;
            assert_eq!(records.iter().filter(of_step).count(), lines, "{id}, step {step}");
        }
        println!("attempt {} of {id}", build["attempt"]);
    }
    println!("{led} was killed; all builds were over after {:?}", killed.elapsed());

    platform.nats().restart().await.unwrap();
    replicated(&client, &names.logs_stream().name).await;
    platform.stop(&ui).await.unwrap();
}
