//! `openapi/asyncapi.yaml` against the messages that are really sent: each fits its schema, and says nothing that the
//! schema does not.

use chrono::DateTime;
use jsonschema::Validator;
use ovenbird_contract::{
    build::Status,
    event::{Event, What},
    id::{BuildId, HostId},
    log::{Batch, LineRecord, Record, Resume, Stream},
    nats::Names,
    standing::Standing,
    step::{Amount, Phase, StepLog},
};
use ovenbird_dev::openapi;
use serde_json::{Value, json};

const BUILD: &str = "bld_01h455vb4pex5vsknk084sn02q";
/// Where the document of REST stands in the one that is checked with.
const REST: &str = "#/rest";

/// The document with that of REST in it, and no object in either that may hold what it does not name.
fn document() -> Value {
    let read = |name: &str| std::fs::read_to_string(openapi::folder().join(name)).unwrap();
    let mut document: Value = serde_saphyr::from_str(&read("asyncapi.yaml")).unwrap();
    let mut rest: Value = serde_json::from_str(&read("openapi.json")).unwrap();
    refer(&mut rest, "#/", &format!("{REST}/"));
    refer(&mut document, "./openapi.json#/", &format!("{REST}/"));
    document["rest"] = rest;
    close(&mut document);
    document
}

fn refer(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref")
                && let Some(place) = reference.strip_prefix(from)
            {
                *reference = format!("{to}{place}");
            }
            fields.values_mut().for_each(|value| refer(value, from, to));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| refer(value, from, to)),
        _ => {}
    }
}

fn close(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // What has no description only narrows what stands beside it.
            let is_whole = fields.get("properties").is_some_and(Value::is_object)
                && fields.get("description").is_some_and(Value::is_string);
            if is_whole {
                fields.entry("additionalProperties").or_insert(false.into());
            }
            fields.values_mut().for_each(close);
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

fn schema(document: &Value, name: &str) -> Validator {
    let mut whole = document.clone();
    whole["$ref"] = format!("#/components/schemas/{name}").into();
    jsonschema::draft7::options().should_validate_formats(true).build(&whole).unwrap()
}

fn assert_fits(schema: &Validator, message: &Value) {
    let problems: Vec<String> = schema.iter_errors(message).map(|it| it.to_string()).collect();
    assert!(problems.is_empty(), "{problems:?} in {message}");
}

fn lines() -> Vec<Record> {
    let line = |seq, stream, cont, data: Option<&str>| {
        let (text, data) = ("gr\u{fffd}n".to_owned(), data.map(str::to_owned));
        let ts = DateTime::UNIX_EPOCH;
        Record::Line(LineRecord { seq, ts, attempt: 1, step: 0, stream, text, cont, data })
    };
    vec![
        line(1, Stream::Stdout, false, None),
        line(2, Stream::Stderr, true, None),
        line(3, Stream::System, false, Some("Z3L/bg==")),
    ]
}

#[test]
fn every_message_of_a_log_fits_the_document() {
    let document = document();
    let schema = schema(&document, "Batch");
    assert_fits(&schema, &golden("log", "records_have_the_documented_json"));
    for status in [Status::Succeeded, Status::Failed, Status::Cancelled] {
        assert_fits(&schema, &json(&Batch::of(vec![Record::end(7, status)])));
    }
    let resume = Resume {
        exec_id: "a".into(),
        stdout: 1,
        stderr: 2,
        stdout_open: true,
        stderr_open: false,
        step: 1,
        background: true,
        logged: Amount { bytes: 3, lines: 1 },
        cut: Amount { bytes: 5, lines: 2 },
    };
    let host_id: HostId = "hst_01h455vb4pex5vsknk084sn02q".parse().unwrap();
    let standing = Standing {
        host_id,
        sandbox_id: "a".into(),
        ready: true,
        steps_done: 1,
        step_try: 0,
        healthy: false,
        failed: None,
        outputs: vec![resume.clone()],
        log_bytes: 3,
    };
    let batch = Batch { records: lines(), resume: Some(resume), standing: Some(standing) };
    assert_fits(&schema, &json(&batch));
    for wrong in [
        json!({ "records": [] }),
        json!({ "records": [{ "text": "a line without its place" }] }),
        json!({ "records": [{ "seq": 1, "what_nobody_knows": true }] }),
        json!({ "records": [{ "seq": 1, "end": { "status": "lost", "last_seq": 1 } }] }),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn every_event_fits_the_document() {
    let document = document();
    let schema = schema(&document, "Event");
    assert_fits(&schema, &golden("event", "event_has_the_documented_json"));
    let id: BuildId = BUILD.parse().unwrap();
    let event = |what| json(&Event::new(id, 2, 4, DateTime::UNIX_EPOCH, what));
    for status in [
        Status::Queued,
        Status::Running,
        Status::Cancelling,
        Status::Succeeded,
        Status::Failed,
        Status::Cancelled,
    ] {
        assert_fits(&schema, &event(What::State { status }));
    }
    assert_fits(&schema, &event(What::Sandbox { sandbox_id: "a".into() }));
    for phase in [Phase::Boot, Phase::Pre, Phase::Step, Phase::Post, Phase::Health, Phase::Publish]
    {
        assert_fits(&schema, &event(What::StepStarted { step: 1, phase, cmd: "RUN a".into() }));
        let step = StepLog {
            step: 1,
            phase,
            cmd: "RUN a".into(),
            stdout: "a".into(),
            stderr: String::new(),
            exit: Some(-1),
            ok: false,
            elapsed_ms: 3,
            cached: false,
            truncated: Some(Amount { bytes: 3, lines: 1 }),
            log_truncated: Some(Amount { bytes: 3, lines: 1 }),
        };
        assert_fits(&schema, &event(What::StepFinished(step)));
    }
    let mut wrong = event(What::Sandbox { sandbox_id: "a".into() });
    wrong["type"] = "build.state".into();
    assert!(!schema.is_valid(&wrong), "{wrong}");
    wrong["type"] = "build.gone".into();
    assert!(!schema.is_valid(&wrong), "{wrong}");
}

#[test]
fn subjects_are_those_of_the_document() {
    let document = document();
    let id: BuildId = BUILD.parse().unwrap();
    let names = Names::default();
    let address = |channel: &str| {
        let address = document["channels"][channel]["address"].as_str().unwrap();
        address.replace("{build_id}", BUILD)
    };
    assert_eq!(address("logs"), names.logs(&id));
    assert_eq!(address("events"), names.events(&id));
}

/// What the contract's own tests hold the JSON against.
fn golden(module: &str, test: &str) -> Value {
    let name = format!("ovenbird_contract__{module}__tests__{test}.snap");
    let path = ovenbird_dev::tree::root().join("proto/contract/src/snapshots").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let (_, body) = text.trim_start_matches("---").split_once("\n---\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn json(message: &impl serde::Serialize) -> Value {
    serde_json::to_value(message).unwrap()
}
