//! `COPY`: what reaches the host, what fails with which words, and that another runner does it again.

use std::time::Duration;

use ovenbird_contract::{
    build::ReasonCode,
    desk::{Outcome, TemplateKind},
};
use ovenbird_testkit::wait_until;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::{
    agent::Agent,
    attempt::Running,
    desk::{failure, plan, push_attempt, push_job},
    nats::Server,
};

const SOON: Duration = Duration::from_secs(30);

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Puts an archive where the api puts it.
async fn store(server: &Server, bytes: &[u8]) -> String {
    let digest = hex::encode(Sha256::digest(bytes));
    let bucket = server.jetstream.get_object_store(server.names.contexts_bucket()).await.unwrap();
    bucket.put(digest.as_str(), &mut &bytes[..]).await.unwrap();
    digest
}

fn succeeded(outcome: &Outcome) -> TemplateKind {
    match outcome {
        Outcome::Succeeded(published) => published.kind,
        other => panic!("{other:?}"),
    }
}

/// Step and message of a copy that fails by its recipe's fault.
async fn fails(recipe: &str, context: Option<&[u8]>, refusal: Option<Status>) -> (u32, String) {
    let agent = Agent::default();
    agent.seen.lock().unwrap().unpack_refusals.extend(refusal);
    let running = Running::start(&agent, plan(recipe, None), 1).await;
    if let Some(context) = context {
        running.desk.give_context(&store(&running.server, context).await);
    }
    push_job(&running.server).await;
    let (code, step, message, _) = failure(&running.desk.finished().await.outcome);
    assert_eq!(code, ReasonCode::StepFailed, "{message}");
    assert!(agent.left().is_empty());
    running.stop().await;
    (step.unwrap(), message)
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_reach_the_host_with_their_owner_and_their_destination() {
    let agent = Agent::default();
    let recipe =
        "WORKDIR /srv\nCOPY --chown=web:www \"a b\" src/*.c app/\nCOPY README doc.md\nRUN print 1";
    let running = Running::start(&agent, plan(recipe, None), 1).await;
    let large = vec![7; 1 << 20];
    let context = archive(&[
        ("a b/ünï ☂", b"unicode"),
        ("src/main.c", b"main"),
        ("src/util.c", &large),
        ("src/skip.o", b"object"),
        ("README", b"readme"),
    ]);
    let digest = store(&running.server, &context).await;
    running.desk.give_context(&digest);
    let build = push_job(&running.server).await;
    succeeded(&running.desk.finished().await.outcome);
    let unpacked = agent.seen.lock().unwrap().unpacked.clone();
    let places: Vec<_> = unpacked
        .iter()
        .map(|(path, unpack, files)| {
            let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
            (path.as_str(), unpack.user.as_str(), unpack.group.as_str(), unpack.as_file, names)
        })
        .collect();
    assert_eq!(
        places,
        [
            ("/srv/app/", "web", "www", false, vec!["ünï ☂"]),
            ("/srv/app/", "web", "www", false, vec!["main.c", "util.c"]),
            ("/srv/doc.md", "", "", true, vec!["README"]),
        ]
    );
    assert!(unpacked[1].2[1].1 == large, "the content is whole");
    let texts = running.server.texts(&build).await;
    let told = format!("copied 3 files, 0 directories and 0 links, {} bytes", large.len() + 11);
    assert!(texts.iter().any(|text| text.starts_with(&told)), "{texts:#?}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_that_cannot_be_done_fails_with_what_to_do() {
    let context = archive(&[("a", b"a"), ("b", b"b"), (".ovenbirdignore", b"b\n")]);
    let said = fails("RUN print 1\nCOPY nothing /x", Some(&context), None).await;
    assert_eq!(said, (2, "nothing is copied: \"nothing\" matches nothing in the context".into()));
    let (_, said) = fails("COPY b /x", Some(&context), None).await;
    assert!(said.contains("left out by its .ovenbirdignore"), "{said}");
    let (_, said) = fails("COPY a .ovenbirdignore /x", Some(&context), None).await;
    assert!(said.contains("end the destination with a slash"), "{said}");
    let (_, said) = fails("COPY a /x", None, None).await;
    assert!(said.contains("no context"), "{said}");
    let refusal = Status::failed_precondition("no user \"web\" in /etc/passwd");
    let (_, said) = fails("COPY --chown=web a /x", Some(&context), Some(refusal)).await;
    assert_eq!(said, "the files cannot be copied: no user \"web\" in /etc/passwd");
    let full = Status::resource_exhausted("no room for /x/a: make some on its file system");
    let (_, said) = fails("COPY a /x", Some(&context), Some(full)).await;
    assert!(said.contains("no room for /x/a"), "{said}");
    // It came past the api.
    let mut header = tar::Header::new_gnu();
    header.set_path("pipe").unwrap();
    header.set_entry_type(tar::EntryType::Fifo);
    header.set_size(0);
    header.set_mode(0o600);
    header.set_cksum();
    let (_, said) = fails("COPY pipe /x", Some(header.as_bytes()), None).await;
    assert!(said.contains("\"pipe\" is a FIFO"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn context_that_is_not_in_the_store_any_more_ends_the_build_and_says_so() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("COPY a /x", None), 1).await;
    running.desk.give_context(&"0".repeat(64));
    push_job(&running.server).await;
    let (code, step, message, _) = failure(&running.desk.finished().await.outcome);
    assert_eq!((code, step), (ReasonCode::StepFailed, Some(1)));
    assert!(message.contains("upload it again, and retry the build"), "{message}");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn host_that_is_busy_or_away_for_a_moment_is_asked_again() {
    let agent = Agent::default();
    let running = Running::start(&agent, plan("COPY a /x", None), 1).await;
    let refusals = [
        Status::unavailable("a moment"),
        Status::resource_exhausted("63 are open: try again later"),
    ];
    agent.seen.lock().unwrap().unpack_refusals.extend(refusals);
    running.desk.give_context(&store(&running.server, &archive(&[("a", b"a")])).await);
    push_job(&running.server).await;
    succeeded(&running.desk.finished().await.outcome);
    assert_eq!(agent.seen.lock().unwrap().unpacked.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copy_in_whose_middle_a_runner_ends_is_done_again_by_the_next_one() {
    let agent = Agent::default();
    agent.unpacks_wait.send_replace(true);
    let mut running = Running::start(&agent, plan("RUN print 1\nCOPY . /srv/", None), 1).await;
    let context = archive(&[("a", &[1; 3 << 20]), ("b", b"b")]);
    running.desk.give_context(&store(&running.server, &context).await);
    let build = push_job(&running.server).await;
    let unpackings = |count| {
        let agent = agent.clone();
        move || {
            let agent = agent.clone();
            async move { agent.seen.lock().unwrap().unpackings == count }
        }
    };
    wait_until("the copy is under way", SOON, unpackings(1)).await;
    running.replace().await;
    let standing = running.desk.hand_over(&running.server, &build).await;
    assert_eq!((standing.ready, standing.steps_done), (true, 1));
    push_attempt(&running.server, build, 2).await;
    wait_until("it is done again", SOON, unpackings(2)).await;
    agent.unpacks_wait.send_replace(false);
    let finish = running.desk.finished().await;
    assert_eq!((succeeded(&finish.outcome), finish.attempt), (TemplateKind::Image, 2));
    {
        let seen = agent.seen.lock().unwrap();
        assert_eq!(seen.unpacked.len(), 1, "what broke off was not taken for an archive");
        assert_eq!(seen.unpacked[0].2.len(), 2);
        let done = (seen.created.len(), seen.started.len());
        assert_eq!(done, (1, 1), "the same sandbox, and no step again");
    }
    running.stop().await;
}
