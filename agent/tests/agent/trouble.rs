//! What goes wrong: bad arguments, no room, guests that never come up, an agent that is killed.

use ovenbird_hostagent::v1::{self as host, host_agent_service_client::HostAgentServiceClient};
use ovenbird_testkit::wait_for;
use tonic::Code;

use crate::support::*;

#[tokio::test]
async fn guest_without_a_program_is_unavailable_with_its_console_and_leaves_nothing() {
    let folder = ovenbird_testkit::Folder::new("initrd").unwrap();
    let initrd = folder.join("initrd");
    std::fs::write(&initrd, [0; 4096]).unwrap();
    let host = Host::start_with(Options { initrd: Some(initrd), ..Options::default() }).await;
    let error = host.client.clone().create_sandbox(sandbox("minimal", "a")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("it turned itself off"), "{error}");
    assert!(error.message().contains("Kernel panic - not syncing"), "{error}");
    assert_eq!(host.status("a").await, None);
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn guest_that_is_not_ready_in_time_is_unavailable_and_leaves_nothing() {
    let host =
        Host::start_with(Options { ready_timeout: Some("50ms"), ..Options::default() }).await;
    let error = host.client.clone().create_sandbox(sandbox("minimal", "a")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    assert!(error.message().contains("was not ready in time"), "{error}");
    assert_eq!(host.status("a").await, None);
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn bad_arguments_are_named_and_change_nothing() {
    let host = Host::start().await;
    let mut client = host.client.clone();
    let base = || sandbox("minimal", "a");
    let wrong = [
        (host::CreateSandboxRequest { template: String::new(), ..base() }, Code::InvalidArgument),
        (
            host::CreateSandboxRequest { template: "../minimal".into(), ..base() },
            Code::InvalidArgument,
        ),
        (host::CreateSandboxRequest { template: "unknown".into(), ..base() }, Code::NotFound),
        (host::CreateSandboxRequest { sandbox_id: "a/b".into(), ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { vcpus: -1, ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { vcpus: 9, ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { memory_mb: 16, ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { memory_mb: 1 << 20, ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { disk_mb: -5, ..base() }, Code::InvalidArgument),
        (host::CreateSandboxRequest { timeout_sec: -1, ..base() }, Code::InvalidArgument),
    ];
    for (request, code) in wrong {
        let error = client.create_sandbox(request.clone()).await.unwrap_err();
        assert_eq!(error.code(), code, "{request:?}: {error}");
        assert!(!error.message().is_empty());
    }
    assert_eq!(host.exec("nobody", "true").await.unwrap_err().code(), Code::NotFound);
    let ping = host::PingSandboxRequest { sandbox_id: "nobody".into() };
    assert_eq!(client.ping_sandbox(ping).await.unwrap_err().code(), Code::NotFound);
    let pause = host::PauseSandboxRequest { sandbox_id: "nobody".into() };
    assert_eq!(client.pause_sandbox(pause).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn client_without_a_certificate_is_refused() {
    let host = Host::start().await;
    let channel = host.stranger().connect_lazy();
    let call = HostAgentServiceClient::new(channel).get_host(host::GetHostRequest {}).await;
    assert!(call.is_err());
    host.stop().await;
}

#[tokio::test]
async fn health_and_reflection_answer() {
    use tonic_health::pb::{
        HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
    };
    use tonic_reflection::pb::v1::{
        ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
        server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
    };
    let host = Host::start().await;
    let request = HealthCheckRequest { service: "hostagent.v1.HostAgentService".into() };
    let health = HealthClient::new(host.channel()).check(request).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(host.channel())
        .server_reflection_info(tokio_stream::iter([list]))
        .await
        .unwrap()
        .into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let MessageResponse::ListServicesResponse(services) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"hostagent.v1.HostAgentService"), "{names:?}");
    host.stop().await;
}

#[tokio::test]
async fn host_that_is_full_refuses_and_takes_again_after_a_destroy() {
    let options = Options { capacity: "memory_mb = 300".into(), ..Options::default() };
    let host = Host::start_with(options).await;
    host.create("minimal", "a").await;
    let error = host.client.clone().create_sandbox(sandbox("minimal", "b")).await.unwrap_err();
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert!(error.message().contains("memory"), "{error}");
    host.destroy("a").await;
    host.create("minimal", "b").await;
    host.stop().await;
}

#[tokio::test]
async fn id_is_taken_once_and_a_destroy_stops_a_creation() {
    let host = Host::start().await;
    let (mut first, mut second) = (host.client.clone(), host.client.clone());
    let (one, two) = tokio::join!(
        first.create_sandbox(sandbox("minimal", "a")),
        second.create_sandbox(sandbox("minimal", "a")),
    );
    let refused = one.err().or(two.err()).expect("one of them is refused");
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(host.shell("a", "echo fine").await, "fine");

    let mut client = host.client.clone();
    let creating =
        tokio::spawn(async move { client.create_sandbox(sandbox("minimal", "b")).await });
    host.wait_for_status("b", "creating").await;
    host.destroy("b").await;
    assert_eq!(creating.await.unwrap().unwrap_err().code(), Code::Aborted);
    assert_eq!(host.status("b").await, None);
    host.destroy("a").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn caller_that_hangs_up_leaves_a_whole_sandbox() {
    let host = Host::start().await;
    let mut client = host.client.clone();
    let call = tokio::spawn(async move { client.create_sandbox(sandbox("minimal", "a")).await });
    wait_for("the creation to begin", PATIENCE, || host.status("a")).await.unwrap();
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    host.wait_for_status("a", "running").await;
    assert_eq!(host.shell("a", "echo whole").await, "whole");
    host.stop().await;
}

#[tokio::test]
async fn stale_attempt_is_refused_and_the_newer_one_goes_on() {
    let host = Host::start().await;
    let mut client = host.client.clone();
    let fence = |attempt| Some(host::Fence { build_id: "bld_1".into(), attempt });
    let request = host::CreateSandboxRequest { fence: fence(2), ..sandbox("minimal", "a") };
    client.create_sandbox(request).await.unwrap();
    let write = |attempt| host::WriteFileRequest {
        sandbox_id: "a".into(),
        path: "/root/by".into(),
        content: attempt_text(attempt),
        fence: fence(attempt),
    };
    let stale = client.write_file(write(1)).await.unwrap_err();
    assert_eq!(stale.code(), Code::FailedPrecondition, "{stale}");
    client.write_file(write(2)).await.unwrap();
    assert_eq!(host.shell("a", "cat /root/by").await, "2");
    let destroy =
        |attempt| host::DestroySandboxRequest { sandbox_id: "a".into(), fence: fence(attempt) };
    assert_eq!(
        client.destroy_sandbox(destroy(1)).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    // The template that a lower attempt would remove may be the higher one's.
    let delete = host::DeleteSnapshotRequest { name: "minimal".into(), fence: fence(1) };
    assert_eq!(client.delete_snapshot(delete).await.unwrap_err().code(), Code::FailedPrecondition);
    let listed =
        client.list_sandboxes(host::ListSandboxesRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.sandboxes[0].build_id, "bld_1");
    client.destroy_sandbox(destroy(3)).await.unwrap();
    host.stop().await;
}

fn attempt_text(attempt: u32) -> Vec<u8> {
    attempt.to_string().into_bytes()
}

#[tokio::test]
async fn guest_that_turns_itself_off_is_stopped_and_can_be_destroyed() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    let _ = host.exec("a", "echo o > /proc/sysrq-trigger").await;
    host.wait_for_status("a", "stopped").await;
    let error = host.exec("a", "true").await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    assert!(error.message().contains("turned itself off"), "{error}");
    host.destroy("a").await;
    assert_eq!(host.left(), Vec::<String>::new());
    host.stop().await;
}

#[tokio::test]
async fn terminate_destroys_all_and_ends_the_agent() {
    let host = Host::start().await;
    host.create("minimal", "a").await;
    host.client.clone().terminate(host::TerminateRequest {}).await.unwrap();
    host.ended().await;
}
