//! Cancels without a runner, and what of them is proved.

use std::time::Duration;

use futures::{StreamExt as _, future::join_all};
use ovenbird_bridge::sweep;
use ovenbird_contract::{
    build::Status,
    event::{Event, What},
    id::{BuildId, RunnerId, TemplateId},
    log::Record,
};
use ovenbird_db::store::{cancel::Wish, claim, lease::Holder};
use ovenbird_testkit::wait_until;

use crate::{
    agent::{Host, report},
    rig::{LEASE, Rig, SOON},
};

/// A build that runs on `host`.
async fn running(rig: &Rig, host: &Host, name: &str) -> Holder {
    let (build, runner) = (rig.build(name).await, RunnerId::new());
    let request = claim::Request { build, attempt: 1, runner, lease: LEASE };
    let claimed = rig.store.build_claim(&request).await.unwrap().unwrap();
    assert_eq!(claimed.host.id, host.id.uuid());
    Holder { build, attempt: 1, runner }
}

async fn ask(rig: &Rig, build: BuildId) {
    let wish = Wish { build, by: "key_x".into(), why: Some("a newer commit".into()) };
    rig.store.build_cancel(&wish).await.unwrap();
}

/// A build on `host` that is being cancelled and whose runner is dead.
async fn left(rig: &Rig, host: &Host, name: &str) -> BuildId {
    let build = running(rig, host, name).await.build;
    ask(rig, build).await;
    rig.lease_runs_out(build).await;
    build
}

fn sweep_of(rig: &Rig, host: &Host) -> sweep::Service {
    sweep::Service { agents: Some(host.agents.clone()), ..rig.sweep() }
}

async fn planned(rig: &Rig, build: BuildId) -> TemplateId {
    TemplateId::from_uuid(rig.row(build).await.planned_template_id.unwrap())
}

fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match record {
        Record::Line(line) => line.text.clone(),
        Record::End(record) => format!("end {}", record.end.status),
    };
    records.iter().map(text).collect()
}

#[tokio::test]
async fn cancel_of_a_build_without_a_runner_destroys_removes_and_tells() {
    let rig = Rig::with_streams().await;
    let host = Host::start(&rig.store).await;
    let build = left(&rig, &host, "web").await;
    // Nobody has heard of the second one: its event was lost with the runner.
    for _ in 0..2 {
        host.sandbox(build, 1);
    }
    host.template(planned(&rig, build).await);
    let other = host.sandbox(BuildId::new(), 1);
    let sweeps = [sweep_of(&rig, &host), sweep_of(&rig, &host), sweep_of(&rig, &host)];
    let ended: usize = join_all(sweeps.iter().map(|sweep| sweep.cancels()))
        .await
        .into_iter()
        .map(Result::unwrap)
        .sum();
    assert_eq!(ended, 1, "by one bridge");
    assert_eq!(host.sandboxes(), [other.to_string()]);
    assert!(host.templates().is_empty());
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.reason), ("cancelled", None));
    assert!(row.sandbox_destroyed_at >= row.cancel_requested_at);
    assert_eq!(
        texts(&rig.streamed(build).await),
        ["cancelled by key_x: a newer commit", "end cancelled"]
    );
    // A runner that was cut off makes nothing any more.
    assert!(host.late_create(build, 1).is_err());
    assert_eq!(sweeps[0].cancels().await.unwrap(), 0);
}

#[tokio::test]
async fn cancel_is_the_runners_as_long_as_its_lease_holds() {
    let rig = Rig::with_streams().await;
    let host = Host::start(&rig.store).await;
    let build = running(&rig, &host, "web").await.build;
    let sandbox = host.sandbox(build, 1);
    ask(&rig, build).await;
    let sweep = sweep_of(&rig, &host);
    assert_eq!((sweep.cancels().await.unwrap(), sweep.sandboxes().await.unwrap()), (0, 0));
    assert_eq!(host.sandboxes(), [sandbox.to_string()]);
    assert_eq!(rig.row(build).await.status, "cancelling");
}

#[tokio::test]
async fn cancel_whose_host_is_away_says_so_and_ends_when_it_answers() {
    let rig = Rig::with_streams().await;
    let mut host = Host::start(&rig.store).await;
    let build = left(&rig, &host, "web").await;
    let other = left(&rig, &host, "other").await;
    host.sandbox(build, 1);
    host.goes().await;
    let sweep = sweep_of(&rig, &host);
    for _ in 0..2 {
        assert_eq!(sweep.cancels().await.unwrap(), 0);
    }
    assert_eq!(rig.row(other).await.reason, rig.row(build).await.reason);
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.sandbox_destroyed_at), ("cancelling", None));
    let reason = row.reason.unwrap();
    assert_eq!(reason["code"], "host_lost");
    let message = reason["message"].as_str().unwrap();
    assert!(message.contains(&host.id.to_string()) && message.contains("answer"), "{message}");
    host.comes_back().await;
    wait_until("the cancel to end", SOON, || async { sweep.cancels().await.unwrap() == 2 }).await;
    assert!(host.sandboxes().is_empty());
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.reason), ("cancelled", None));
    assert!(row.sandbox_destroyed_at.is_some());
}

#[tokio::test]
async fn host_that_refuses_says_why_and_is_asked_again() {
    let rig = Rig::with_streams().await;
    let host = Host::start(&rig.store).await;
    let build = left(&rig, &host, "web").await;
    host.sandbox(build, 1);
    host.destroys(false);
    let sweep = sweep_of(&rig, &host);
    assert_eq!(sweep.cancels().await.unwrap(), 0);
    let reason = rig.row(build).await.reason.unwrap();
    assert!(reason["message"].as_str().unwrap().contains("the sandbox is saving"), "{reason}");
    host.destroys(true);
    assert_eq!(sweep.cancels().await.unwrap(), 1);
}

#[tokio::test]
async fn cancel_without_the_hosts_word_claims_nothing_until_it_comes() {
    let rig = Rig::with_streams().await;
    let mut host = Host::start(&rig.store).await;
    let build = left(&rig, &host, "web").await;
    host.sandbox(build, 1);
    host.goes().await;
    let mut sweep = sweep_of(&rig, &host);
    sweep.times.cancel_patience = Duration::ZERO;
    assert_eq!(sweep.cancels().await.unwrap(), 1);
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), row.sandbox_destroyed_at), ("cancelled", None));
    assert_eq!(row.reason.unwrap()["code"], "host_lost");
    let said = texts(&rig.streamed(build).await).join("\n");
    assert!(said.contains("cancelled by key_x") && said.contains("has not said"), "{said}");

    rig.store.host_unreachable(&host.address).await.unwrap();
    assert_eq!(sweep.proofs().await.unwrap(), 0);
    host.comes_back().await;
    rig.store.host_report(&report(&host.address), Duration::ZERO).await.unwrap();
    wait_until("the proof", SOON, || async { sweep.proofs().await.is_ok_and(|done| done == 1) })
        .await;
    assert!(host.sandboxes().is_empty());
    let row = rig.row(build).await;
    assert!(row.sandbox_destroyed_at.is_some() && row.reason.is_none());
    assert_eq!(sweep.proofs().await.unwrap(), 0);
}

#[tokio::test]
async fn build_that_was_queued_again_is_cancelled_at_once_and_its_old_sandbox_goes() {
    let rig = Rig::with_streams().await;
    let host = Host::start(&rig.store).await;
    let holder = running(&rig, &host, "web").await;
    host.sandbox(holder.build, 1);
    rig.lease_runs_out(holder.build).await;
    let sweep = sweep_of(&rig, &host);
    assert_eq!(sweep.leases().await.unwrap(), 1);
    assert_eq!(sweep.sandboxes().await.unwrap(), 0, "the next attempt may go on in it");
    ask(&rig, holder.build).await;
    let row = rig.row(holder.build).await;
    assert_eq!((row.status.as_str(), row.sandbox_destroyed_at), ("cancelled", None));
    assert_eq!(sweep.proofs().await.unwrap(), 1);
    assert!(host.sandboxes().is_empty());
    assert!(rig.row(holder.build).await.sandbox_destroyed_at.is_some());
}

#[tokio::test]
async fn message_of_the_api_wakes_the_rules() {
    let mut rig = Rig::with_streams().await;
    let host = Host::start(&rig.store).await;
    let events = rig.names.events_stream().name;
    let never = Duration::from_secs(3600);
    let mut sweep = sweep_of(&rig, &host);
    sweep.times.leases_interval = never;
    sweep.times.interval = never;
    sweep.times.orphans_interval = never;
    let stop = rig.stop_token();
    rig.spawn(sweep.run(stop));
    rig.start_ledger();
    let queued = rig.build("one").await;
    let running = left(&rig, &host, "two").await;
    host.sandbox(running, 1);
    ask(&rig, queued).await;
    // The sweep may not have subscribed yet.
    wait_until("both builds to be over, in their logs too", SOON, || async {
        for build in [queued, running] {
            rig.client.publish(rig.names.control(&build), "".into()).await.unwrap();
        }
        let rows = [rig.row(queued).await, rig.row(running).await];
        rows.iter().all(|row| row.status == "cancelled" && row.log_end_written)
    })
    .await;
    assert!(host.sandboxes().is_empty());
    for build in [queued, running] {
        wait_until("its end to be told", SOON, || async {
            states(&rig, &events, build).await.last() == Some(&Status::Cancelled)
        })
        .await;
        let said = texts(&rig.streamed(build).await);
        assert_eq!(said, ["cancelled by key_x: a newer commit", "end cancelled"]);
    }
    rig.stop().await;
}

async fn states(rig: &Rig, stream: &str, build: BuildId) -> Vec<Status> {
    let stream = rig.js.get_stream(stream).await.unwrap();
    let config = async_nats::jetstream::consumer::pull::OrderedConfig {
        filter_subject: rig.names.events(&build),
        ..Default::default()
    };
    let mut consumer = stream.create_consumer(config).await.unwrap();
    let pending = usize::try_from(consumer.info().await.unwrap().num_pending).unwrap();
    let messages = consumer.messages().await.unwrap().take(pending);
    let told = messages.filter_map(|message| async {
        let event: Event = serde_json::from_slice(&message.unwrap().payload).unwrap();
        match event.what {
            What::State { status } => Some(status),
            _ => None,
        }
    });
    told.collect().await
}
