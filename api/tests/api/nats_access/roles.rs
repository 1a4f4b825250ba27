//! What each of our own processes must not do on NATS. What it must do, the tests of the whole platform show,
//! but for what makes a difference only after an outage.

use async_nats::jetstream::consumer::{AckPolicy, pull};
use futures::StreamExt as _;
use ovenbird_contract::{desk::HEAR, nats::DESK_QUEUE, nats_access::Role};
use ovenbird_testkit::wait_for;

use super::party::Party;
use crate::world::{SOON, World};

/// A role, what it must not publish, and what it must not hear.
const FORBIDDEN: [(Role, &[&str], &[&str]); 5] = [
    (
        Role::Runner,
        &[
            "ovenbird.builds.default",
            "ovenbird.control.build.x",
            "$JS.API.STREAM.MSG.GET.BUILDS",
            "$JS.API.STREAM.DELETE.LOGS",
            "$JS.API.STREAM.PURGE.LOGS",
            "$JS.API.CONSUMER.CREATE.BUILDS.runners",
            "$JS.API.CONSUMER.DELETE.BUILDS.runners",
            "$JS.API.CONSUMER.MSG.NEXT.LOGS.ledger",
            "$JS.ACK.LOGS.ledger.1",
            "$O.CONTEXTS.C.x",
            "_INBOX_bridge.x",
            "$SYS.REQ.USER.AUTH",
        ],
        &["ovenbird.desk.*", "ovenbird.logs.*", "ovenbird.builds.*", "_INBOX_bridge.>", "$SYS.>"],
    ),
    (
        Role::Bridge,
        &[
            "ovenbird.control.build.x",
            "ovenbird.desk.claim",
            "$JS.API.STREAM.DELETE.BUILDS",
            "$JS.API.CONSUMER.MSG.NEXT.BUILDS.runners",
            "$JS.API.CONSUMER.DELETE.BUILDS.runners",
            "$JS.ACK.BUILDS.runners.1",
            "$O.CONTEXTS.C.x",
            "_INBOX_runner.x",
        ],
        // The first two only in their queues: each message is one bridge's.
        &["ovenbird.desk.*", "ovenbird.control.build.*", "ovenbird.logs.*", "_INBOX_runner.>"],
    ),
    (
        Role::Api,
        &[
            "ovenbird.builds.default",
            "ovenbird.logs.x",
            "ovenbird.desk.claim",
            "$JS.API.STREAM.DELETE.LOGS",
            "$JS.API.CONSUMER.CREATE.LOGS",
            "$JS.API.CONSUMER.CREATE.LOGS.ledger",
            "$JS.API.CONSUMER.CREATE.LOGS.ledger.ovenbird.logs.x",
            "$JS.API.CONSUMER.DURABLE.CREATE.LOGS.ledger",
            "$JS.API.CONSUMER.DELETE.LOGS.ledger",
            "$JS.API.CONSUMER.MSG.NEXT.LOGS.ledger",
            "$JS.API.CONSUMER.MSG.NEXT.BUILDS.runners",
            "_INBOX_runner.x",
        ],
        &["ovenbird.desk.*", "ovenbird.builds.*", "_INBOX_runner.>", "$SYS.>"],
    ),
    (
        Role::Callout,
        &["ovenbird.logs.x", "anything", "$SYS.REQ.SERVER.PING.CONNZ", "$SYS.REQ.USER.AUTH"],
        // Only in its queue: a key is seen by one that answers.
        &[">", "ovenbird.logs.*", "$SYS.REQ.USER.AUTH", "_INBOX_runner.>"],
    ),
    (
        Role::Revoker,
        &["ovenbird.logs.x", "$SYS.REQ.SERVER.PING.VARZ", "$SYS.REQ.ACCOUNT.APP.CONNZ"],
        &[">", "$SYS.>", "$SYS.ACCOUNT.APP.CONNECT", "$SYS.REQ.USER.AUTH", "ovenbird.logs.*"],
    ),
];

#[tokio::test]
async fn each_process_is_refused_what_is_anothers() {
    let world = World::guarded(|_| {}).await;
    for (role, publish, subscribe) in FORBIDDEN {
        let mut party = Party::role(&world, role).await;
        for subject in publish {
            party.must_not_publish(subject, None, "{}").await;
        }
        for subject in subscribe {
            party.must_not_subscribe(subject).await;
        }
    }
}

#[tokio::test]
async fn readers_of_logs_cannot_be_made_over_the_ledgers_name() {
    let world = World::guarded(|_| {}).await;
    let logs = world.jetstream.get_stream("LOGS").await.unwrap();
    let durable_name = Some("ledger".to_owned());
    let config =
        pull::Config { durable_name, ack_policy: AckPolicy::Explicit, ..Default::default() };
    let mut ledger = logs.create_consumer(config).await.unwrap();
    let api = Party::role(&world, Role::Api).await;
    for name in ["name", "durable_name"] {
        let payload = format!(
            r#"{{"stream_name":"LOGS","config":{{"{name}":"ledger","filter_subject":"ovenbird.logs.x","ack_policy":"explicit"}}}}"#
        );
        let subject = "$JS.API.CONSUMER.CREATE.LOGS.another.ovenbird.logs.x";
        let answer = api.client.request(subject, payload.into()).await.unwrap();
        let answer = String::from_utf8_lossy(&answer.payload).into_owned();
        let harmless = ["\"error\"", "\"name\":\"another\""];
        assert!(harmless.iter().any(|word| answer.contains(word)), "{answer}");
    }
    assert_eq!(ledger.info().await.unwrap().config.filter_subject, "");
}

#[tokio::test]
async fn bridge_may_ask_anothers_desk_whether_it_hears() {
    let world = World::guarded(|_| {}).await;
    let desk = Party::role(&world, Role::Bridge).await;
    let bridge = Party::role(&world, Role::Bridge).await;
    let subject = world.names.desk(HEAR);
    let mut asked = desk.client.queue_subscribe(subject.clone(), DESK_QUEUE.into()).await.unwrap();
    let answers = async {
        while let Some(request) = asked.next().await {
            desk.client.publish(request.reply.unwrap(), "heard".into()).await.unwrap();
        }
    };
    let heard = wait_for("an answer", SOON, || async {
        bridge.client.request(subject.clone(), "".into()).await.ok()
    });
    tokio::select! {
        heard = heard => assert_eq!(&heard.unwrap().payload[..], b"heard"),
        () = answers => panic!("the desk's connection ended"),
    }
}
