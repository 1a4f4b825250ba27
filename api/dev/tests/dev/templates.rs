//! A recipe becomes a template, and a sandbox starts from it.

use ovenbird_dev::{build::follow, host::Started};
use serde_json::json;

use crate::platform::Stage;

const MEMORY_MB: i32 = 256;

#[tokio::test]
async fn recipes_become_templates_and_a_fork_answers_in_a_fifth_of_a_cold_boot() {
    let stage = Stage::set().await;
    let image = json!({
        "name": "an-image", "memory_mb": MEMORY_MB,
        "recipe": ["ENV COLOUR=green", "WORKDIR /srv", "USER baker", "RUN id -un > /var/tmp/who; echo $COLOUR"],
    });
    let snapshot = json!({
        "name": "a-snapshot", "memory_mb": MEMORY_MB,
        "recipe": ["RUN mkdir -p /srv/www && echo baked > /srv/www/index.html",
                   "START echo serving; exec busybox httpd -f -p 8080 -h /srv/www"],
        "healthcheck": "--interval=200ms busybox wget -q -O - http://127.0.0.1:8080/",
    });
    let (image, snapshot) =
        tokio::join!(follow(&stage.api, &image, |_| {}), follow(&stage.api, &snapshot, |_| {}));
    let (image, snapshot) = (image.unwrap(), snapshot.unwrap());
    for (build, lines) in [(&image, &["green"]), (&snapshot, &["serving"])] {
        assert_eq!(build.status(), "succeeded", "{}", build.reason());
        let texts: Vec<_> = build.records.iter().filter_map(|r| r["text"].as_str()).collect();
        assert!(lines.iter().all(|line| texts.contains(line)), "{texts:?}");
    }
    let templates = stage.api.templates().await.unwrap();
    let kind = |name: &str| {
        let template = templates.iter().find(|template| template["name"] == name);
        template.map(|template| template["type"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(kind("an-image").as_deref(), Some("image"));
    assert_eq!(kind("a-snapshot").as_deref(), Some("snapshot"));

    // In turns, and the middle one of each: other tests use the machine at the same time.
    let (mut boots, mut forks) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        boots.push(stage.host.start(image.template().unwrap(), MEMORY_MB).await.unwrap());
        forks.push(stage.host.start(snapshot.template().unwrap(), 0).await.unwrap());
    }
    let times = |sandboxes: &[Started]| {
        let mut times: Vec<_> = sandboxes.iter().map(|sandbox| sandbox.first_exec).collect();
        times.sort();
        times
    };
    let (boot_times, fork_times) = (times(&boots), times(&forks));
    println!("request to first command: cold boots {boot_times:?}, forks {fork_times:?}");
    let said = stage.host.exec(&boots[0].id, "cat /var/tmp/who").await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "baker\n");
    let (first, fork) = (&forks[0], &forks[2]);
    for fork in [first, fork] {
        let said = stage.host.exec(&fork.id, "busybox wget -q -O - http://127.0.0.1:8080/").await;
        assert_eq!(String::from_utf8_lossy(&said.unwrap().stdout), "baked\n");
    }
    let page = format!("http://{}:8080/", fork.host_ip);
    let page = reqwest::get(page).await.unwrap().text().await.unwrap();
    assert_eq!(page, "baked\n", "the host reaches a sandbox's port");
    let random = "head -c 16 /dev/urandom | od -An -tx1";
    let (one, two) =
        tokio::join!(stage.host.exec(&first.id, random), stage.host.exec(&fork.id, random));
    assert_ne!(one.unwrap().stdout, two.unwrap().stdout, "two forks drew the same random bytes");
    for sandbox in boots.iter().chain(&forks) {
        stage.host.destroy(&sandbox.id).await.unwrap();
    }
    stage.strike().await;
    assert!(fork_times[1] * 5 < boot_times[1], "a fork must take less than a fifth of a boot");
}
