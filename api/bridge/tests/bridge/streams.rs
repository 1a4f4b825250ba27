//! Streams and consumers that vanish are made again.

use std::time::Duration;

use async_nats::jetstream::{consumer::pull, stream};
use ovenbird_bridge::streams::{Handle, Service, ensure};
use ovenbird_contract::nats::LANES;
use ovenbird_testkit::wait_until;

use crate::rig::{ROOM, Rig, SOON};

#[tokio::test]
async fn stream_or_consumer_that_vanished_is_made_again_by_several_bridges() {
    let mut rig = Rig::new().await;
    let handle = Handle::default();
    for interval in [Duration::from_millis(50), Duration::from_millis(70)] {
        let service =
            Service::new(rig.js.clone(), rig.names.clone(), ROOM, interval, handle.clone());
        let stop = rig.stop_token();
        rig.spawn(service.run(stop));
    }
    assert!(handle.made(&rig.stop_token()).await);
    let streams = [rig.names.builds_stream(), rig.names.logs_stream(), rig.names.events_stream()];
    let [logs, events] = rig.names.ledger_consumers();
    let [default, high] = rig.names.runners_consumers();
    let consumers = [default, high, logs, events];
    for stream in &streams {
        rig.js.delete_stream(&stream.name).await.unwrap();
        wait_until("everything to be there again", SOON, || whole(&rig)).await;
    }
    for consumer in &consumers {
        let stream = rig.js.get_stream(&consumer.stream).await.unwrap();
        stream.delete_consumer(&consumer.durable).await.unwrap();
        wait_until("everything to be there again", SOON, || whole(&rig)).await;
    }
    rig.stop().await;
}

/// All streams and consumers are there, with their settings.
async fn whole(rig: &Rig) -> bool {
    let [logs, events] = rig.names.ledger_consumers();
    let [default, high] = rig.names.runners_consumers();
    for spec in [default, high, logs, events] {
        let consumer = rig
            .js
            .get_consumer_from_stream::<pull::Config, _, _>(&spec.durable, &spec.stream)
            .await;
        if !consumer.is_ok_and(|consumer| consumer.cached_info().config.ack_wait == spec.ack_wait) {
            return false;
        }
    }
    true
}

#[tokio::test]
async fn queue_of_a_version_without_lanes_makes_room_for_them() {
    let rig = Rig::new().await;
    let spec = rig.names.builds_stream();
    let config = stream::Config {
        name: spec.name,
        subjects: spec.subjects,
        retention: stream::RetentionPolicy::WorkQueue,
        duplicate_window: spec.duplicate_window,
        ..Default::default()
    };
    let stream = rig.js.create_stream(config).await.unwrap();
    let durable_name = Some(rig.names.runners_consumer().durable);
    stream.create_consumer(pull::Config { durable_name, ..Default::default() }).await.unwrap();
    for lane in LANES {
        rig.js.publish(rig.names.builds(lane), "a job".into()).await.unwrap().await.unwrap();
    }
    for _ in 0..2 {
        ensure(&rig.js, &rig.names, ROOM).await.unwrap();
    }
    for spec in rig.names.runners_consumers() {
        let mut consumer = stream.get_consumer::<pull::Config>(&spec.durable).await.unwrap();
        assert_eq!(consumer.info().await.unwrap().num_pending, 1, "{spec:?}");
    }
    rig.stop().await;
}
