//! The test program of the Rust SDK.

use std::time::Duration;

use futures::TryStreamExt as _;
use ovenbird_sdk::{
    Error, Log, build_end, connect, live,
    rest::{
        Client,
        types::{
            BuildCreate, BuildStatus, Exec, ExecScript, LogRecord, RecipeEntry, SandboxCreate,
            SandboxStatus,
        },
    },
};

use super::Places;

const LINES: usize = 3000;
const NOTHING: &str = "bld_01h455vb4pex5vsknk084sn02q";

pub(super) async fn end_to_end(places: &Places) {
    let client = connect(&places.url, &places.key).unwrap();
    recipe_becomes_a_template_while_its_log_is_followed(&client, places).await;
    log_that_has_lost_records_is_followed_to_its_end(&client, places).await;
    sandbox_runs_a_command_and_keeps_a_file(&client).await;
    refusals_are_typed(&client).await;
}

async fn recipe_becomes_a_template_while_its_log_is_followed(client: &Client, places: &Places) {
    let body = wish(
        "sdk-rust",
        &[
            &format!("RUN i=1; while [ $i -le {LINES} ]; do echo line $i; i=$((i+1)); done"),
            "RUN sleep 2; echo baked > /etc/sdk",
        ],
    );
    let build = client.build_create().body(body).send().await.unwrap().into_inner();

    let cut = connect(&places.cut_url, &places.key).unwrap();
    let (broken, told) =
        tokio::join!(read(&cut, &build.id, 0), over_nats(client, places, &build.id, 0));
    for records in [&broken, &told] {
        let seqs: Vec<u64> = records.iter().map(|record| record.seq.get()).collect();
        assert_eq!(seqs, (1..=records.len() as u64).collect::<Vec<_>>(), "a gap or a duplicate");
        let lines = records.iter().filter(|record| {
            record.step == Some(1) && record.stream.is_some_and(|it| it.to_string() == "stdout")
        });
        let lines: Vec<&str> = lines.filter_map(|record| record.text.as_deref()).collect();
        let expected: Vec<String> = (1..=LINES).map(|line| format!("line {line}")).collect();
        assert!(lines == expected, "{} lines instead of {LINES}", lines.len());
        let end = records.last().and_then(|record| record.end.as_ref()).map(|end| end.status);
        assert_eq!(end, Some(BuildStatus::Succeeded));
    }
    let texts = |records: &[LogRecord]| -> Vec<String> {
        records.iter().map(|record| serde_json::to_string(record).unwrap()).collect()
    };
    assert!(texts(&broken) == texts(&told), "SSE and NATS told different records");
    let late = told.len() - 5;
    assert_eq!(texts(&read(client, &build.id, late as u64).await), texts(&told[late..]));
    assert!(read(client, &build.id, told.len() as u64).await.is_empty());
    assert!(over_nats(client, places, &build.id, told.len() as u64).await.is_empty());

    let build = build_end(client, &build.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(build.status, BuildStatus::Succeeded, "{:?}", build.reason);
    let templates = client.template_list().name("sdk-rust").send().await.unwrap();
    let ids: Vec<_> = templates.items.iter().map(|template| Some(template.id.clone())).collect();
    assert_eq!(ids, [build.template_id]);
}

async fn over_nats(client: &Client, places: &Places, build: &str, after: u64) -> Vec<LogRecord> {
    let nats = live::connect(&places.nats, &places.key).await.unwrap();
    let mut log = live::Live::follow(client, &nats, build, after).await.unwrap();
    let mut records = Vec::new();
    while let Some(record) = log.next().await.unwrap() {
        records.push(record);
    }
    records
}

async fn log_that_has_lost_records_is_followed_to_its_end(client: &Client, places: &Places) {
    let seqs = |records: Vec<LogRecord>| records.iter().map(|it| it.seq.get()).collect::<Vec<_>>();
    let told = over_nats(client, places, &places.lost, 0).await;
    assert!(told.last().is_some_and(|record| record.end.is_some()));
    let told = seqs(told);
    assert_eq!(told, seqs(read(client, &places.lost, 0).await));
    assert!(told.last().is_some_and(|last| *last > told.len() as u64), "nothing is lost");
}

async fn sandbox_runs_a_command_and_keeps_a_file(client: &Client) {
    let body = SandboxCreate::builder().template("sdk-rust");
    let sandbox = client.sandbox_create().body(body).send().await.unwrap().into_inner();
    let body = Exec::builder().script("cat /etc/sdk".parse::<ExecScript>().unwrap());
    let done = client.sandbox_exec().id(sandbox.id.as_str()).body(body).send().await.unwrap();
    assert_eq!((done.exit_code, done.stdout.as_str()), (Some(0), "baked\n"));
    let content: Vec<u8> = (0..131_072u32).map(|at| at as u8).collect();
    let write = client.sandbox_file_write().id(sandbox.id.as_str()).path("/srv/data");
    write.body(content.clone()).send().await.unwrap();
    let read =
        client.sandbox_file_read().id(sandbox.id.as_str()).path("/srv/data").send().await.unwrap();
    let read: Vec<_> = read.into_inner_stream().try_collect().await.unwrap();
    assert!(read.concat() == content);
    let gone = client.sandbox_delete().id(sandbox.id.as_str()).send().await.unwrap();
    assert_eq!(gone.status, SandboxStatus::Destroyed);
}

async fn refusals_are_typed(client: &Client) {
    let refused = client.build_create().body(wish("a", &["RUM true"])).send().await.unwrap_err();
    let ovenbird_sdk::rest::Error::ErrorResponse(answer) = refused else { panic!("{refused}") };
    assert_eq!(answer.error.code.as_str(), "invalid");
    let mut log = Log::follow(client, NOTHING, 0);
    let missing = log.next().await.unwrap_err();
    assert!(missing.to_string().contains("404 not_found"), "{missing}");
    let missing = build_end(client, NOTHING, Duration::from_secs(5)).await;
    assert!(matches!(missing, Err(Error::Refused(_))), "{missing:?}");
}

fn wish(name: &str, recipe: &[&str]) -> BuildCreate {
    let recipe: Vec<_> =
        recipe.iter().map(|step| RecipeEntry::String((*step).to_owned())).collect();
    BuildCreate::builder().name(name).memory_mb(256).recipe(recipe).try_into().unwrap()
}

async fn read(client: &Client, id: &str, after: u64) -> Vec<LogRecord> {
    let mut log = Log::follow(client, id, after);
    let mut records = Vec::new();
    while let Some(record) = log.next().await.unwrap() {
        records.push(record);
    }
    records
}
