//! One log sequence, whoever reads it.

use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use futures::StreamExt;
use ovenbird_contract::nats::Names;
use ovenbird_dev::{api::Api, build::follow};
use serde_json::{Value, json};

use crate::platform::Stage;

const LINES: usize = 20_000;

#[tokio::test]
async fn twenty_thousand_lines_are_the_same_over_rest_sse_and_a_plain_subscription() {
    let stage = Stage::set().await;
    let (said, mut refusals) = tokio::sync::mpsc::unbounded_channel();
    let client = ConnectOptions::with_token(stage.key.clone())
        .event_callback(move |event| {
            let said = said.clone();
            async move { drop(said.send(event)) }
        })
        .connect(&stage.nats)
        .await
        .unwrap();
    let mut messages = client.subscribe(Names::default().logs_all()).await.unwrap();
    // The server has the subscription once it has refused what came after it: a customer publishes nothing.
    client.publish("nobody.may", "".into()).await.unwrap();
    while !matches!(refusals.recv().await.unwrap(), Event::ServerError(_)) {}
    let subscribed = tokio::spawn(async move {
        let mut records = Vec::new();
        while let Some(message) = messages.next().await {
            let batch: Value = serde_json::from_slice(&message.payload).unwrap();
            records.extend(batch["records"].as_array().unwrap().iter().cloned());
            if records.last().is_some_and(|record| record.get("end").is_some()) {
                break;
            }
        }
        records
    });

    let request = json!({
        "name": "chatty", "memory_mb": 256,
        "recipe": [format!("RUN i=1; while [ $i -le {LINES} ]; do echo \"line $i\"; i=$((i+1)); done"),
                   "RUN echo to the other >&2"],
    });
    let live = follow(&stage.api, &request, |_| {}).await.unwrap();
    assert_eq!(live.status(), "succeeded", "{}", live.reason());
    let subscribed =
        tokio::time::timeout(Duration::from_secs(30), subscribed).await.unwrap().unwrap();
    let id = live.build["id"].as_str().unwrap();
    let rest = history(&stage.api, id).await;
    let again: Vec<Value> = {
        let stream = stage.api.logs_stream(id, 0).await.unwrap();
        stream.map(Result::unwrap).collect().await
    };
    let late: Vec<Value> = {
        let stream = stage.api.logs_stream(id, 15_000).await.unwrap();
        stream.map(Result::unwrap).collect().await
    };

    let seqs: Vec<u64> =
        live.records.iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=live.records.len() as u64).collect::<Vec<_>>(), "a gap or a duplicate");
    let lines: Vec<&str> = live
        .records
        .iter()
        .filter(|record| record["step"] == 1 && record["stream"] == "stdout")
        .map(|record| record["text"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
    assert!(lines == expected, "{} lines instead of {LINES}", lines.len());
    assert!(live.records.iter().any(|r| r["stream"] == "stderr" && r["text"] == "to the other"));
    assert_same("NATS", &subscribed, &live.records);
    assert_same("REST", &rest, &live.records);
    assert_same("SSE afterwards", &again, &live.records);
    assert_same("SSE after 15000", &late, &live.records[15_000..]);
    println!(
        "{} records, the same over SSE live and afterwards, REST, NATS; {:?}",
        seqs.len(),
        live.total
    );
    stage.strike().await;
}

fn assert_same(reader: &str, read: &[Value], live: &[Value]) {
    let differ = read.iter().zip(live).find(|(read, live)| read != live);
    assert_eq!(differ, None, "{reader} (left) and live SSE (right) differ");
    assert_eq!(read.len(), live.len(), "{reader}");
}

async fn history(api: &Api, id: &str) -> Vec<Value> {
    let mut records = Vec::new();
    let mut from = 1;
    loop {
        let page = api.logs(id, from, 1000).await.unwrap();
        let items = page["records"].as_array().unwrap();
        if items.is_empty() {
            return records;
        }
        records.extend(items.iter().cloned());
        from = page["next_seq"].as_u64().unwrap();
    }
}

#[tokio::test]
async fn a_line_is_seen_over_sse_while_its_step_still_runs() {
    let stage = Stage::set().await;
    // The step goes on only after somebody has read its first line and answered it.
    let request = json!({
        "name": "waits", "memory_mb": 256,
        "recipe": ["RUN echo early; while [ ! -e /run/seen ]; do sleep 0.05; done; echo late"],
    });
    let build = stage.api.build_create(&request).await.unwrap();
    let id = build["id"].as_str().unwrap();
    let mut texts = Vec::new();
    let mut stream = std::pin::pin!(stage.api.logs_stream(id, 0).await.unwrap());
    let reading = async {
        while let Some(record) = stream.next().await {
            let record = record.unwrap();
            let Some(text) = record["text"].as_str().filter(|_| record["step"] == 1) else {
                continue;
            };
            texts.push(text.to_owned());
            if text == "early" {
                let running = stage.api.build_get(id).await.unwrap();
                assert_eq!(running["status"], "running");
                let sandbox = running["sandbox_id"].as_str().unwrap();
                stage.host.exec(sandbox, "touch /run/seen").await.unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(120), reading).await.unwrap();
    let at = |wanted: &str| texts.iter().position(|text| text == wanted);
    assert!(at("early").is_some() && at("early") < at("late"), "{texts:?}");
    stage.strike().await;
}
