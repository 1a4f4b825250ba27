//! A whole bridge, as the process runs it.

use std::time::{Duration, Instant};

use ovenbird_bridge::{Bridge, Config};
use ovenbird_contract::{
    desk::{Finished, RefusalCode, RenewRequest, Renewed, Reply},
    id::RunnerId,
    log::Record,
};
use ovenbird_testkit::wait_until;

use crate::rig::{Rig, SOON, Servers, finish, ok};

fn config(rig: &Rig, extra: &str) -> Config {
    let folder = ovenbird_testkit::Folder::new("bridge-config").unwrap();
    let file = folder.join("bridge.toml");
    let text = format!(
        "database_url = '{}'\nredis_url = '{}'\nnats_url = '{}'\nprefix = '{}'\nmetrics_listen = ''\n{extra}",
        rig.database_url, rig.redis_url, rig.nats_url, rig.prefix,
    );
    std::fs::write(&file, text).unwrap();
    Config::load(Some(&file)).unwrap()
}

pub(crate) async fn start_bridge(rig: &mut Rig, settings: &str) {
    let bridge = Bridge::new(config(rig, settings)).await.unwrap();
    let stop = rig.stop_token();
    rig.spawn(async { bridge.run(stop).await.unwrap() });
}

#[tokio::test]
async fn build_goes_its_whole_way() {
    let mut rig = Rig::new().await;
    start_bridge(&mut rig, "finish_wait = '8s'\n").await;
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    rig.queue.push(&[build]).await.unwrap();
    let job = rig.job().await;
    let claim = ok(rig.claim(job.build_id, job.attempt, runner).await);
    let mut at = claim.log;
    for _ in 0..10 {
        at = rig.log(build, at, 10).await.unwrap();
    }
    let events = crate::ledger::step_finished(&rig, build, 1, 1).await;
    let renew = RenewRequest { build_id: build, attempt: 1, runner_id: runner };
    assert_eq!(ok(rig.ask::<_, Renewed>("renew", &renew).await).lease_ms, 30_000);
    ok(rig.ask::<_, Finished>("finish", &finish(&claim, runner, at, events)).await);
    let row = rig.row(build).await;
    assert_eq!((row.status.as_str(), &row.logs[0]["ok"]), ("succeeded", &true.into()));
    wait_until("the log is stored", SOON, || async { rig.stored(build).await.len() == 101 }).await;
    let records = rig.stored(build).await;
    assert_eq!(records.iter().map(Record::seq).collect::<Vec<_>>(), (1..=101).collect::<Vec<_>>());
    assert!(records[100].is_end());
    let begun = Instant::now();
    rig.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bridge_finds_by_itself_what_is_gone() {
    let mut rig = Rig::new().await;
    let quick = "sweep_interval = '100ms'\npush_after = '100ms'\njob_settled = '100ms'\n\
                 streams_interval = '100ms'\n";
    for _ in 0..2 {
        start_bridge(&mut rig, quick).await;
    }
    // Its id was never pushed.
    let build = rig.build("web").await;
    wait_until("the job is noted", SOON, || async {
        rig.row(build).await.job_published_at.is_some()
    })
    .await;
    // Its job goes with the stream.
    rig.js.delete_stream(rig.names.builds_stream().name).await.unwrap();
    let job = rig.job().await;
    assert_eq!(job.build_id, build);
    // Its runner dies.
    ok(rig.claim(build, 1, RunnerId::new()).await);
    rig.lease_runs_out(build).await;
    // The first job may have been published once more before its claim.
    wait_until("the job of the next attempt", SOON, || async {
        let job = rig.job().await;
        assert_eq!(job.build_id, build);
        job.attempt == 2
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn killed_postgres_loses_nothing() {
    let mut servers = Servers::durable().await;
    let mut rig = Rig::on(&servers).await;
    start_bridge(&mut rig, "lease = '120s'\n").await;
    let (build, runner) = (rig.build("web").await, RunnerId::new());
    rig.queue.push(&[build]).await.unwrap();
    let job = rig.job().await;
    let claim = ok(rig.claim(build, job.attempt, runner).await);
    servers.postgres.kill9();
    let at = rig.log(build, claim.log, 10).await.unwrap();
    let events = crate::ledger::step_finished(&rig, build, 1, 1).await;
    let renew = RenewRequest { build_id: build, attempt: 1, runner_id: runner };
    let away: Reply<Renewed> = rig.ask_once("renew", &renew).await;
    let Reply::Refused(refusal) = away else { panic!("renewed without Postgres") };
    assert_eq!(refusal.code, RefusalCode::Unavailable);
    assert!(refusal.retry_after_ms.is_some());
    servers.postgres.restart().await.unwrap();
    ok(rig.ask::<_, Renewed>("renew", &renew).await);
    ok(rig.ask::<_, Finished>("finish", &finish(&claim, runner, at, events)).await);
    wait_until("the log is stored", SOON, || async { rig.stored(build).await.len() == 11 }).await;
    wait_until("the step is stored", SOON, || async {
        rig.row(build).await.logs[0]["cmd"] == "RUN 1"
    })
    .await;
    rig.stop().await;
}

#[tokio::test]
async fn hosts_without_tls_are_refused() {
    let rig = Rig::new().await;
    let config = config(&rig, "[[hosts]]\naddress = 'h:1'\nserver_name = 'h'\n");
    let Err(error) = Bridge::new(config).await else { panic!("hosts without [tls] are refused") };
    assert!(error.to_string().contains("[tls]"));
}
