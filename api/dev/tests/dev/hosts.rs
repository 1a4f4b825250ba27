//! Several hosts: builds go where there is room, where their base is, and where somebody is left to run them.

use std::time::Duration;

use futures::future::join_all;
use ovenbird_dev::{host::Host, platform::Options};
use ovenbird_testkit::wait_for;
use serde_json::{Value, json};

use crate::platform::Stage;

/// A build, this machine's load considered.
const LONG: Duration = Duration::from_secs(240);
/// Ends when the test lets it.
const WAITS: &str = "RUN while [ ! -e /run/go ]; do sleep 0.2; done";

/// A host and the agent on it.
struct Machine {
    id: String,
    /// `agent-1`.
    name: String,
    agent: Host,
}

impl Machine {
    /// The hosts of a stage, once all of them are online.
    async fn all(stage: &mut Stage) -> Vec<Self> {
        let agents = stage.platform.record().agents;
        let api = &stage.api;
        let hosts = wait_for("all hosts to be online", LONG, || async {
            let hosts = api.hosts().await.ok()?;
            let online = hosts.iter().filter(|host| host["status"] == "online");
            (online.count() == agents.len()).then_some(hosts)
        });
        let hosts = hosts.await.unwrap();
        join_all(agents.iter().map(async |agent| {
            let host = hosts.iter().find(|host| host["address"] == agent.address).unwrap();
            assert!(host["registered_at"].is_string(), "{host:#}");
            let text = |name: &str| host[name].as_str().unwrap().to_owned();
            let agent = Host::connect(agent).await.unwrap();
            Self { id: text("id"), name: text("name"), agent }
        }))
        .await
    }

    /// Lets the build go on that waits in the only sandbox of this host.
    async fn release(&self) {
        let sandboxes = wait_for("a sandbox in which a build waits", LONG, || async {
            let sandboxes = self.agent.sandboxes().await.ok()?;
            (sandboxes.len() == 1).then_some(sandboxes)
        });
        let sandbox = sandboxes.await.unwrap().remove(0).sandbox_id;
        let touched = async || {
            let touched = self.agent.exec(&sandbox, "touch /run/go").await.ok()?;
            (touched.exit_code == 0).then_some(())
        };
        wait_for("its guest to be ready", LONG, touched).await.unwrap();
    }
}

async fn submit(stage: &Stage, name: &str, more: &Value) -> String {
    let mut build = json!({ "name": name, "memory_mb": 256, "recipe": [WAITS] });
    build.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let build = stage.api.build_create(&build).await.unwrap();
    build["id"].as_str().unwrap().to_owned()
}

/// The host on which an attempt of a build runs.
async fn host_of(stage: &Stage, build: &str, attempt: u32) -> String {
    wait_for("a build to run", LONG, || async {
        let build = stage.api.build_get(build).await.ok()?;
        let runs = build["status"] == "running" && build["attempt"] == attempt;
        let runs = runs && build["sandbox_id"].is_string();
        Some(build["host_id"].as_str()?.to_owned()).filter(|_| runs)
    })
    .await
    .unwrap()
}

async fn succeeded(stage: &Stage, build: &str) -> Value {
    let ended = wait_for("a build to end", LONG, || async {
        let build = stage.api.build_get(build).await.ok()?;
        build["completed_at"].is_string().then_some(build)
    });
    let ended = ended.await.unwrap();
    assert_eq!(ended["status"], "succeeded", "{ended:#}");
    ended
}

#[tokio::test]
async fn builds_go_to_both_hosts_follow_their_base_and_outlive_a_host() {
    let options = Options {
        agents: 2,
        apart: true,
        host_away: Some(Duration::from_secs(3)),
        ..Options::default()
    };
    let mut stage = Stage::set_with(options).await;
    let machines = Machine::all(&mut stage).await;
    let machine = |id: &str| machines.iter().find(|machine| machine.id == id).unwrap();

    // Two builds go to both.
    let builds = [submit(&stage, "one", &json!({})).await, submit(&stage, "two", &json!({})).await];
    let hosts = [host_of(&stage, &builds[0], 1).await, host_of(&stage, &builds[1], 1).await];
    assert_ne!(hosts[0], hosts[1], "each has a host");
    for machine in &machines {
        machine.release().await;
    }
    for build in &builds {
        succeeded(&stage, build).await;
    }

    // Whatever starts from a template that one host holds goes there; what asks for labels, where they are.
    let (holder, other) = (machine(&hosts[0]), machine(&hosts[1]));
    stage.api.host_labels_set(&other.id, &json!({ "disk": "fast" })).await.unwrap();
    let drawn = submit(&stage, "three", &json!({ "base_template": "one" })).await;
    assert_eq!(host_of(&stage, &drawn, 1).await, holder.id, "its base is there");
    let labelled = submit(&stage, "four", &json!({ "labels": { "disk": "fast" } })).await;
    assert_eq!(host_of(&stage, &labelled, 1).await, other.id, "its labels are there");

    // The builds of a host that is lost end elsewhere.
    let part = stage.platform.member(&other.name).unwrap();
    part.process().kill();
    stage.api.host_labels_set(&holder.id, &json!({ "disk": "fast" })).await.unwrap();
    holder.release().await;
    succeeded(&stage, &drawn).await;
    assert_eq!(host_of(&stage, &labelled, 2).await, holder.id, "it goes on where somebody is");
    holder.release().await;
    let ended = succeeded(&stage, &labelled).await;
    assert_eq!((&ended["attempt"], &ended["host_id"]), (&json!(2), &json!(holder.id)));

    // What the dead agent left is for it to clear away.
    let address = stage.platform.record().agents;
    let address =
        address.iter().zip(&machines).find(|(_, it)| it.id == other.id).unwrap().0.clone();
    let back = async {
        loop {
            stage.platform.look_after().await;
            match Host::connect(&address).await {
                Ok(host) => return host,
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    };
    let back = tokio::time::timeout(LONG, back).await.expect("the agent is back");
    for left in back.sandboxes().await.unwrap() {
        // The sweep does it, too.
        let _ = back.destroy(&left.sandbox_id).await;
    }
    stage.strike().await;
}
