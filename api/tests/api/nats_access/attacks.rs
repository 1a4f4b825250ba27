//! A hostile customer: what it tries, and that nothing comes of it.

use async_nats::jetstream::{
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{self, RetentionPolicy},
};
use ovenbird_api::app::keys::Scope;
use ovenbird_contract::id::BuildId;

use super::party::Party;
use crate::world::World;

const JOB: &str = r#"{"v":1,"build_id":"bld_01h455vb4pex5vsknk084sn02q","attempt":1,"trace":""}"#;
const STOLEN: &str = "_INBOX.stolen";
const REWRITTEN: &str =
    r#"{"stream_name":"BUILDS","config":{"durable_name":"runners","ack_policy":"none"}}"#;

/// The work queue, as the bridge makes it, with one job.
async fn work_queue(world: &World) -> PullConsumer {
    let spec = world.names.builds_stream();
    let config = stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        retention: RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let stream = world.jetstream.create_stream(config).await.unwrap();
    let durable_name = Some(world.names.runners_consumer().durable);
    let config =
        pull::Config { durable_name, ack_policy: AckPolicy::Explicit, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    world.jetstream.publish("ovenbird.builds.default", JOB.into()).await.unwrap().await.unwrap();
    consumer
}

#[tokio::test]
async fn hostile_customer_gets_nowhere_whatever_it_publishes() {
    let world = World::guarded(|_| {}).await;
    let mut consumer = work_queue(&world).await;
    let build = BuildId::new();
    world.writer(build).lines(1).await;
    let key = world.key(Scope::Admin, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    let own = |subject: &str| subject.replace("BUILD", &build.to_string());
    let last_line = format!(r#"{{"last_by_subj":"{}"}}"#, world.names.logs(&build));
    // Subject, reply subject, payload.
    let tricks: [(&str, Option<&str>, &str); 15] = [
        // A line, a job, an end of another's build.
        ("ovenbird.logs.BUILD", None, r#"{"records":[]}"#),
        ("ovenbird.builds.default", None, JOB),
        ("ovenbird.events.build.BUILD", None, "{}"),
        ("ovenbird.control.build.BUILD", None, ""),
        ("ovenbird.desk.claim", Some(STOLEN), JOB),
        // What the server answers becomes a job.
        ("$JS.API.STREAM.MSG.GET.LOGS", Some("ovenbird.builds.default"), &last_line),
        ("$JS.API.DIRECT.GET.LOGS", Some("ovenbird.builds.default"), &last_line),
        // A job of the runners, and their queue itself.
        ("$JS.API.CONSUMER.MSG.NEXT.BUILDS.runners", Some(STOLEN), "1"),
        ("$JS.API.CONSUMER.CREATE.BUILDS.runners", Some(STOLEN), REWRITTEN),
        ("$JS.API.CONSUMER.DURABLE.CREATE.BUILDS.runners", Some(STOLEN), REWRITTEN),
        ("$JS.API.CONSUMER.DELETE.BUILDS.runners", Some(STOLEN), ""),
        ("$JS.API.STREAM.PURGE.BUILDS", Some(STOLEN), ""),
        // The server, and what others wait for.
        ("$SYS.REQ.SERVER.PING.CONNZ", Some(STOLEN), "{}"),
        ("$SYS.REQ.USER.AUTH", Some(STOLEN), "{}"),
        ("_INBOX_runner.x", None, "{}"),
    ];
    for (subject, reply, payload) in tricks {
        customer.must_not_publish(&own(subject), reply, payload).await;
    }
    let mut builds = world.jetstream.get_stream("BUILDS").await.unwrap();
    assert_eq!(builds.info().await.unwrap().state.last_sequence, 1, "only the job that was there");
    let info = consumer.info().await.unwrap();
    assert_eq!((info.num_pending, info.num_ack_pending), (1, 0), "and nobody took it");
    assert_eq!(info.config.ack_policy, AckPolicy::Explicit);
    let mut logs = world.jetstream.get_stream("LOGS").await.unwrap();
    assert_eq!(logs.info().await.unwrap().state.last_sequence, 1);
}

#[tokio::test]
async fn customer_hears_nothing_but_logs_and_events() {
    let world = World::guarded(|_| {}).await;
    let key = world.key(Scope::Admin, None).await;
    let mut customer = Party::customer(&world, &key).await.unwrap();
    // Not `ovenbird.logs.>`: the server takes its `>` for a token that `*` allows. The account imports `logs.*`, so
    // that nothing more is heard by it.
    for subject in [
        ">",
        "*.*",
        "ovenbird.>",
        "ovenbird.*.*",
        "ovenbird.builds.*",
        "ovenbird.desk.*",
        "ovenbird.control.build.*",
        "_INBOX.>",
        "_INBOX_api.>",
        "_INBOX_runner.>",
        "$JS.>",
        "$JS.API.>",
        "$JS.ACK.>",
        "$O.CONTEXTS.>",
        "$SYS.>",
        "$SYS.REQ.USER.AUTH",
        "$SYS.ACCOUNT.READERS.CONNECT",
        "$SRV.>",
    ] {
        customer.must_not_subscribe(subject).await;
    }
}
