//! The wire contract that clients elsewhere are compiled from, typed from its description and not from our proto: a
//! number, type or name that drifts breaks them without any compiler's word.
//!
//! Ours may have more: calls, messages, and fields from 100 up. Everything else has to be as it is written here.

#![allow(clippy::unwrap_used)] // in helpers of tests, as in tests

use std::collections::BTreeMap;

use ovenbird_hostagent::FILE_DESCRIPTOR_SET;
use prost_reflect::{
    Cardinality, DescriptorPool, FieldDescriptor, Kind, MessageDescriptor, ServiceDescriptor,
};

/// Fields with a number from here on are Ovenbird's own.
const OWN_FIELDS: u32 = 100;
const PACKAGE: &str = "hostagent.v1";
const SERVICE: &str = "hostagent.v1.HostAgentService";

/// `Call: request -> response`, where a stream is one of messages.
const CALLS: &str = "
CreateSandbox: CreateSandboxRequest -> CreateSandboxResponse
DestroySandbox: DestroySandboxRequest -> DestroySandboxResponse
PauseSandbox: PauseSandboxRequest -> PauseSandboxResponse
ResumeSandbox: ResumeSandboxRequest -> ResumeSandboxResponse
Exec: ExecRequest -> ExecResponse
ListSandboxes: ListSandboxesRequest -> ListSandboxesResponse
WriteFile: WriteFileRequest -> WriteFileResponse
ReadFile: ReadFileRequest -> ReadFileResponse
CreateSnapshot: CreateSnapshotRequest -> CreateSnapshotResponse
DeleteSnapshot: DeleteSnapshotRequest -> DeleteSnapshotResponse
ExecStream: ExecStreamRequest -> stream ExecStreamResponse
WriteFileStream: stream WriteFileStreamRequest -> WriteFileStreamResponse
ReadFileStream: ReadFileStreamRequest -> stream ReadFileStreamResponse
PingSandbox: PingSandboxRequest -> PingSandboxResponse
Terminate: TerminateRequest -> TerminateResponse
GetSandboxMetrics: GetSandboxMetricsRequest -> GetSandboxMetricsResponse
FlushSandboxMetrics: FlushSandboxMetricsRequest -> FlushSandboxMetricsResponse
FlattenRootfs: FlattenRootfsRequest -> FlattenRootfsResponse
";

/// `Message: field=number type, …`; `oneof:field` is a member of a oneof.
const MESSAGES: &str = "
CreateSandboxRequest: template=1 string, vcpus=2 int32, memory_mb=3 int32, timeout_sec=4 int32, sandbox_id=5 string
CreateSandboxResponse: sandbox_id=1 string, status=2 string, host_ip=3 string
DestroySandboxRequest: sandbox_id=1 string
DestroySandboxResponse:
PauseSandboxRequest: sandbox_id=1 string
PauseSandboxResponse:
ResumeSandboxRequest: sandbox_id=1 string, timeout_sec=2 int32
ResumeSandboxResponse: sandbox_id=1 string, status=2 string, host_ip=3 string
ExecRequest: sandbox_id=1 string, cmd=2 string, args=3 repeated string, timeout_sec=4 int32
ExecResponse: stdout=1 bytes, stderr=2 bytes, exit_code=3 int32
ListSandboxesRequest:
ListSandboxesResponse: sandboxes=1 repeated SandboxInfo, auto_paused_sandbox_ids=2 repeated string
SandboxInfo: sandbox_id=1 string, status=2 string, template=3 string, vcpus=4 int32, memory_mb=5 int32, \
host_ip=6 string, created_at_unix=7 int64, last_active_at_unix=8 int64, timeout_sec=9 int32
WriteFileRequest: sandbox_id=1 string, path=2 string, content=3 bytes
WriteFileResponse:
ReadFileRequest: sandbox_id=1 string, path=2 string
ReadFileResponse: content=1 bytes
CreateSnapshotRequest: sandbox_id=1 string, name=2 string
CreateSnapshotResponse: name=1 string, size_bytes=2 int64
DeleteSnapshotRequest: name=1 string
DeleteSnapshotResponse:
ExecStreamRequest: sandbox_id=1 string, cmd=2 string, args=3 repeated string, timeout_sec=4 int32
ExecStreamResponse: event:start=1 ExecStreamStart, event:data=2 ExecStreamData, event:end=3 ExecStreamEnd
ExecStreamStart: pid=1 uint32
ExecStreamData: output:stdout=1 bytes, output:stderr=2 bytes
ExecStreamEnd: exit_code=1 int32, error=2 string
WriteFileStreamRequest: content:meta=1 WriteFileStreamMeta, content:chunk=2 bytes
WriteFileStreamMeta: sandbox_id=1 string, path=2 string
WriteFileStreamResponse:
ReadFileStreamRequest: sandbox_id=1 string, path=2 string
ReadFileStreamResponse: chunk=1 bytes
PingSandboxRequest: sandbox_id=1 string
PingSandboxResponse:
TerminateRequest:
TerminateResponse:
GetSandboxMetricsRequest: sandbox_id=1 string, range=2 string
GetSandboxMetricsResponse: points=1 repeated MetricPoint
MetricPoint: timestamp_unix=1 int64, cpu_pct=2 double, mem_bytes=3 int64, disk_bytes=4 int64
FlushSandboxMetricsRequest: sandbox_id=1 string
FlushSandboxMetricsResponse: points_10m=1 repeated MetricPoint, points_2h=2 repeated MetricPoint, \
points_24h=3 repeated MetricPoint
FlattenRootfsRequest: sandbox_id=1 string, name=2 string
FlattenRootfsResponse: size_bytes=1 int64
";

/// The lines of a table, by what stands before the colon.
fn table(text: &str) -> BTreeMap<&str, &str> {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| line.split_once(':').map(|(name, rest)| (name, rest.trim())).unwrap())
        .collect()
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn service() -> ServiceDescriptor {
    pool().get_service_by_name(SERVICE).expect("the service has the contract's name")
}

fn field(field: &FieldDescriptor) -> String {
    let kind = match field.kind() {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(of) => of.name().to_owned(),
        plain => format!("{plain:?}").to_lowercase(),
    };
    let repeated = if field.cardinality() == Cardinality::Repeated { "repeated " } else { "" };
    let oneof = field.containing_oneof().map(|of| format!("{}:", of.name())).unwrap_or_default();
    format!("{oneof}{}={} {repeated}{kind}", field.name(), field.number())
}

/// A message as the table has it.
fn message(message: &MessageDescriptor) -> String {
    let fields = message.fields().filter(|field| field.number() < OWN_FIELDS);
    fields.map(|of| field(&of)).collect::<Vec<_>>().join(", ")
}

#[test]
fn every_call_of_the_contract_has_its_name_messages_and_streams() {
    let service = service();
    let expected = table(CALLS);
    assert_eq!(expected.len(), 18);
    for (name, messages) in expected {
        let method = service.methods().find(|method| method.name() == name);
        let method = method.unwrap_or_else(|| panic!("there is no call {name}"));
        let stream = |is_stream| if is_stream { "stream " } else { "" };
        let ours = format!(
            "{}{} -> {}{}",
            stream(method.is_client_streaming()),
            method.input().name(),
            stream(method.is_server_streaming()),
            method.output().name()
        );
        assert_eq!(ours, messages, "{name}");
    }
}

#[test]
fn every_message_of_the_contract_has_its_fields_numbers_and_types() {
    let pool = pool();
    for (name, fields) in table(MESSAGES) {
        let ours = pool.get_message_by_name(&format!("{PACKAGE}.{name}"));
        let ours = ours.unwrap_or_else(|| panic!("there is no message {name}"));
        assert_eq!(message(&ours), fields, "{name}");
    }
}

#[test]
fn calls_of_the_contract_use_no_message_that_the_table_lacks() {
    let calls = table(CALLS);
    let messages = table(MESSAGES);
    let mut used = Vec::new();
    for method in service().methods().filter(|method| calls.contains_key(method.name())) {
        used.extend([method.input(), method.output()]);
    }
    while let Some(message) = used.pop() {
        assert!(messages.contains_key(message.name()), "{} is in no table", message.name());
        for field in message.fields().filter(|field| field.number() < OWN_FIELDS) {
            if let Kind::Message(inner) = field.kind() {
                used.push(inner);
            }
        }
    }
}
