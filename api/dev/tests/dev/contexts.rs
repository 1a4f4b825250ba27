//! `COPY` on the real platform: a large context with odd names, into a microVM, over the death of a runner.

use std::time::Duration;

use ovenbird_dev::platform::Options;
use rand::{RngCore as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{
    handover::{Watched, runner_of},
    platform::Stage,
};

const FILES: usize = 2000;
const BYTES: usize = 50 << 20;

/// An archive, and what `sha256sum` says of its files in the order of their names.
struct Made {
    archive: Vec<u8>,
    sums: String,
    executables: usize,
}

fn made() -> Made {
    let mut random = StdRng::seed_from_u64(7);
    let mut builder = tar::Builder::new(Vec::with_capacity(BYTES + (4 << 20)));
    let mut sums = Vec::new();
    let mut executables = 0;
    let mut add = |name: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_uid(501);
        header.set_gid(20);
        builder.append_data(&mut header, name, content).unwrap();
    };
    for n in 0..FILES {
        let name = match n % 3 {
            0 => format!("plain/{n}.bin"),
            1 => format!("with a blank/{n} – Übergrößen ☂.bin"),
            _ => format!("deep/{}/日本 {n}", n % 50),
        };
        let mut content = vec![0; BYTES / FILES];
        random.fill_bytes(&mut content);
        let mode = if n % 10 == 0 { 0o750 } else { 0o640 };
        executables += usize::from(n % 10 == 0);
        add(&name, mode, &content);
        sums.push((name, hex::encode(Sha256::digest(&content))));
    }
    add("left/out.log", 0o644, b"not wanted");
    add(".ovenbirdignore", 0o644, b"*.log\n.ovenbirdignore\n");
    sums.sort();
    let sums: Vec<_> = sums.iter().map(|(name, sum)| format!("{sum}  ./{name}\n")).collect();
    Made { archive: builder.into_inner().unwrap(), sums: sums.concat(), executables }
}

#[tokio::test]
async fn fault_8_large_context_lands_whole_with_owner_and_mode_though_its_runner_is_killed_in_the_middle()
 {
    let made = tokio::task::spawn_blocking(made);
    let options = Options { lease: Some(Duration::from_secs(8)), ..Options::default() };
    let mut stage = Stage::set_with(options).await;
    let Made { archive, sums, executables } = made.await.unwrap();
    let digest = hex::encode(Sha256::digest(&archive));
    let url = format!("{}/v1/admin/contexts/{digest}", stage.platform.record().api);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let upload =
        client.put(url).bearer_auth(&stage.key).header("content-type", "application/octet-stream");
    let begun = std::time::Instant::now();
    let stored = upload.body(archive).send().await.unwrap();
    assert_eq!(stored.status(), 201, "{}", stored.text().await.unwrap());
    println!("{} MiB uploaded and checked in {:?}", BYTES >> 20, begun.elapsed());

    // The sums are told as one, for a log is no place for 2,000 lines.
    let check = "cd /srv/app && find . -type f ! -name theirs -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";
    let request = json!({
        "name": "copies", "memory_mb": 256, "context": digest,
        "recipe": [
            "USER app", "USER root", "RUN mkdir -p /srv/app && touch /srv/app/theirs", "WORKDIR /srv",
            "COPY --chown=app . app", format!("RUN {check}"),
            "RUN cd /srv/app && find . -type f -perm 750 | wc -l && find . ! -user app ! -group app | LC_ALL=C sort",
            "RUN stat -c '%U:%G %a %Y' '/srv/app/with a blank/1 – Übergrößen ☂.bin' && find /srv -name '*.log'",
        ],
    });
    let unknown = json!({
        "name": "copies-not", "memory_mb": 256, "context": digest,
        "recipe": ["COPY --chown=nosuchuser plain/0.bin /x"],
    });
    let mut build = Watched::submit(&stage, &request).await;
    build.until(&stage, "step 5/8: COPY").await;
    let runner = runner_of(&stage, &build.id).await;
    stage.platform.member(&runner).unwrap().process().kill();
    build.until(&stage, "Attempt 2 goes on in step 5").await;
    build.until(&stage, "copied 2000 files").await;
    println!("{}", build.records.last().unwrap()["text"]);
    let mut refused = Watched::submit(&stage, &unknown).await;
    let ended = build.end(&stage).await;
    assert_eq!(
        (&ended["status"], &ended["attempt"]),
        (&json!("succeeded"), &json!(2)),
        "{ended:#}"
    );
    let sum = format!("{}  -", hex::encode(Sha256::digest(sums)));
    let whose = ["200", ".", "./theirs", "app:app 640 1700000000"];
    assert_eq!(executables, 200);
    let said = build.texts("stdout");
    assert_eq!(said[0], sum, "every file has its name and its content");
    assert_eq!(
        said[1..],
        whose,
        "only what was copied is app's, and what is left out is not there"
    );

    let ended = refused.end(&stage).await;
    assert_eq!((&ended["status"], &ended["reason"]["step"]), (&json!("failed"), &json!(1)));
    let message = ended["reason"]["message"].as_str().unwrap();
    assert!(message.contains("no user \"nosuchuser\" in /etc/passwd"), "{message}");
    stage.strike().await;
}
