//! What a test may rely on: each service starts, keeps its data over a restart and a kill where it says so,
//! stands beside another of its kind, and is gone with its handle.

use std::{path::Path, time::Duration};

use async_nats::jetstream::{self, stream};
use ovenbird_testkit::{
    Authority, Folder, Nats, Port, Postgres, Process, Redis, postgres, process::Program,
    redis as private, wait_for, wait_until,
};
use redis::AsyncCommands as _;

const SOON: Duration = Duration::from_secs(10);

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

async fn gone(pid: u32) {
    wait_until("the process to end", SOON, || async { !runs(pid) }).await;
}

#[tokio::test]
async fn postgres_keeps_its_data_over_a_restart_and_a_kill_and_ends_with_its_handle() {
    let folder = Folder::new("pg").unwrap();
    let mut one = Postgres::start(&folder.join("one"), postgres::Options::default()).await.unwrap();
    let two = Postgres::start(&folder.join("two"), postgres::Options::default()).await.unwrap();
    assert_ne!(one.url(), two.url());

    let url = one.database("first").await.unwrap();
    assert!(url.starts_with("postgres://postgres:") && url.ends_with("/first"), "{url}");
    one.sql("first", "CREATE TABLE t (n int); INSERT INTO t VALUES (1), (2)").await.unwrap();
    one.restart().await.unwrap();
    assert_eq!(one.sql("first", "SELECT sum(n) FROM t").await.unwrap(), "3");
    one.kill9();
    one.restart().await.unwrap();
    assert_eq!(one.url_of("first"), url);
    assert_eq!(one.sql("first", "SELECT sum(n) FROM t").await.unwrap(), "3");
    let error = two.sql("first", "SELECT 1").await.unwrap_err();
    assert!(error.to_string().contains("does not exist"), "{error}");

    let pid = one.process().pid();
    drop(one);
    gone(pid).await;
}

#[tokio::test]
async fn copy_of_a_template_database_has_its_tables_and_its_own_rows() {
    let folder = Folder::new("pg").unwrap();
    let server = Postgres::start(&folder.join("pg"), postgres::Options::default()).await.unwrap();
    server.database("template").await.unwrap();
    server.sql("template", "CREATE TABLE t (n int)").await.unwrap();
    for name in ["a", "b"] {
        server.database_from("template", name).await.unwrap();
    }
    server.sql("a", "INSERT INTO t VALUES (7)").await.unwrap();
    assert_eq!(server.sql("a", "SELECT count(*) FROM t").await.unwrap(), "1");
    assert_eq!(server.sql("b", "SELECT count(*) FROM t").await.unwrap(), "0");
    assert!(server.database_from("template", "a").await.is_err(), "the name is taken");
}

async fn connect(client: &redis::Client) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
    let config = redis::AsyncConnectionConfig::new()
        .set_connection_timeout(Some(SOON))
        .set_response_timeout(Some(SOON));
    client.get_multiplexed_async_connection_with_config(&config).await
}

#[tokio::test]
async fn redis_keeps_appended_data_over_a_kill_and_loses_the_rest() {
    let folder = Folder::new("redis").unwrap();
    for (append_only, kept) in [(true, Some(5)), (false, None)] {
        let dir = folder.join(format!("{append_only}"));
        let options = private::Options { append_only };
        let mut server = Redis::start(&dir, options).await.unwrap();
        let other = Redis::start(&folder.join("other"), options).await.unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = connect(&client).await.unwrap();
        let () = connection.set("n", 5).await.unwrap();
        server.kill9();
        server.restart().await.unwrap();
        let mut connection = connect(&client).await.unwrap();
        assert_eq!(connection.get::<_, Option<i32>>("n").await.unwrap(), kept);

        let client = redis::Client::open(other.url()).unwrap();
        let mut connection = connect(&client).await.unwrap();
        assert_eq!(connection.get::<_, Option<i32>>("n").await.unwrap(), None);
        let pid = server.process().pid();
        drop(server);
        gone(pid).await;
    }
}

#[tokio::test]
async fn nats_keeps_a_stream_over_a_kill_and_ends_with_its_handle() {
    let folder = Folder::new("nats").unwrap();
    let mut server = Nats::start(&folder.join("one")).await.unwrap();
    let other = Nats::start(&folder.join("two")).await.unwrap();
    assert_ne!(server.url(), other.url());

    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config =
        stream::Config { name: "S".into(), subjects: vec!["s.*".into()], ..Default::default() };
    jetstream.create_stream(config).await.unwrap();
    jetstream.publish("s.a", "kept".into()).await.unwrap().await.unwrap();
    server.kill9();
    server.restart().await.unwrap();
    let message = wait_for("the stream to be back", SOON, || async {
        let jetstream = jetstream::new(async_nats::connect(server.url()).await.ok()?);
        jetstream.get_stream("S").await.ok()?.get_raw_message(1).await.ok()
    });
    assert_eq!(message.await.unwrap().payload, "kept");
    let elsewhere = jetstream::new(async_nats::connect(other.url()).await.unwrap());
    assert!(elsewhere.get_stream("S").await.is_err());

    let pid = server.process().pid();
    drop(server);
    gone(pid).await;
}

#[tokio::test]
async fn a_program_that_ends_at_its_start_is_reported_with_its_log() {
    let folder = Folder::new("process").unwrap();
    let program =
        Program::new("talker", "/bin/sh", folder.join("log")).args(["-c", "echo because; exit 3"]);
    let mut process = Process::start(program).unwrap();
    let error = process.ready(SOON, || std::future::ready(false)).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.ends_with("because"), "{error}");
}

#[tokio::test]
async fn a_child_ends_when_the_process_that_started_it_is_killed() {
    // This test program itself is the parent that gets killed: it starts over with only the test below.
    let folder = Folder::new("process").unwrap();
    let program = Program::new("parent", std::env::current_exe().unwrap(), folder.join("log"))
        .args(["--ignored", "--exact", "parent_that_waits_to_be_killed"])
        .env("OVENBIRD_TEST_FOLDER", folder.path());
    let mut parent = Process::start(program).unwrap();
    let child = wait_for("the grandchild", SOON, || async {
        std::fs::read_to_string(folder.join("pid")).ok()?.trim().parse::<u32>().ok()
    });
    let child = child.await.unwrap();
    assert!(runs(child));
    parent.kill();
    gone(child).await;
}

#[tokio::test]
#[ignore = "the part of a_child_ends_when_the_process_that_started_it_is_killed that is killed"]
async fn parent_that_waits_to_be_killed() {
    let Some(folder) = std::env::var_os("OVENBIRD_TEST_FOLDER") else { return };
    let script = "echo $$ >pid.new; mv pid.new pid; exec sleep 1000";
    let mut program =
        Program::new("child", "/bin/sh", Path::new(&folder).join("child.log")).args(["-c", script]);
    program.dir = Some(folder.into());
    let mut child = Process::start(program).unwrap();
    child.wait(Duration::from_secs(60)).await;
}

#[test]
fn reserved_ports_differ() {
    let ports: Vec<Port> = (0..50).map(|_| Port::reserve().unwrap()).collect();
    let numbers: std::collections::HashSet<u16> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
}

#[test]
fn folder_goes_with_its_handle() {
    let folder = Folder::new("folder").unwrap();
    let path = folder.path().to_owned();
    std::fs::create_dir_all(folder.join("a/b")).unwrap();
    drop(folder);
    assert!(!path.exists());
}

#[test]
fn private_keys_are_readable_by_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new("certificates").unwrap();
    let authority = Authority::new().unwrap();
    let server = authority.server(&["agent-1.ovenbird", "127.0.0.1"]).unwrap();
    let files = authority.write(&server, folder.path(), "agent-1").unwrap();
    assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    for file in [&files.ca, &files.cert] {
        assert!(std::fs::read_to_string(file).unwrap().starts_with("-----BEGIN CERTIFICATE-----"));
    }
}
