//! The Dockerfile and the Compose file. No engine runs here, so they are read, linted and held against the schema.

use std::{collections::BTreeMap, process::Command};

use serde_json::{Value, json};

use super::{checkers, deploy, errors, read};

/// Stages: name, what it is from, and its user, if it names one.
fn stages() -> Vec<(String, String, Option<String>)> {
    let mut stages: Vec<(String, String, Option<String>)> = Vec::new();
    for line in read("Dockerfile").lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["FROM", base, "AS", name] => {
                stages.push(((*name).to_owned(), (*base).to_owned(), None));
            }
            ["USER", user] => stages.last_mut().unwrap().2 = Some((*user).to_owned()),
            _ => {}
        }
    }
    stages
}

/// Its registry's name and a tag that says which version it is.
fn is_pinned(image: &str) -> bool {
    image.split_once(':').is_some_and(|(_, tag)| {
        let version = tag.split('-').next().unwrap_or_default();
        version.contains('.') && version.starts_with(|it: char| it.is_ascii_digit())
    })
}

#[test]
fn hadolint_has_nothing_to_say() {
    let mut hadolint = Command::new(checkers().hadolint());
    let output = hadolint.arg("--no-color").arg(deploy("Dockerfile")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn images_are_made_in_stages_of_pinned_bases_and_run_as_nobody() {
    let stages = stages();
    let names: Vec<&str> = stages.iter().map(|(name, ..)| name.as_str()).collect();
    for (name, base, user) in &stages {
        assert!(names.contains(&base.as_str()) || is_pinned(base), "{name}: {base}");
        match name.as_str() {
            "api" | "bridge" | "runner" => assert_eq!(user.as_deref(), Some("10001:10001")),
            "agent" => assert_eq!(*user, None, "it needs root"),
            _ => {}
        }
    }
    for image in ["api", "bridge", "runner", "agent"] {
        let (_, base, _) = stages.iter().find(|(name, ..)| name == image).unwrap();
        assert_eq!(base, "base", "no compiler and no source in {image}");
    }
}

#[test]
fn compose_file_is_what_its_schema_says() {
    let schema: Value =
        serde_json::from_str(&std::fs::read_to_string(checkers().compose()).unwrap()).unwrap();
    let mut compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    assert_eq!(errors(&schema, &compose), Vec::<String>::new());
    compose["services"]["api"]["restrat"] = json!("always");
    assert!(!errors(&schema, &compose).is_empty());
}

#[test]
fn compose_keeps_runners_from_the_databases_and_pins_images() {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let services: BTreeMap<String, Value> =
        serde_json::from_value(compose["services"].clone()).unwrap();
    let stages = stages();
    for (name, service) in &services {
        if let Some(image) = service["image"].as_str() {
            assert!(is_pinned(image), "{name}: {image}");
        } else {
            let target = service["build"]["target"].as_str().unwrap();
            assert!(stages.iter().any(|(stage, ..)| stage == target), "{name}: {target}");
            assert_eq!(service["privileged"] == true, name == "agent");
        }
    }
    for apart in ["runner", "agent"] {
        assert_eq!(services[apart]["networks"], json!(["agents"]), "{apart}");
    }
    for database in ["postgres", "redis"] {
        assert_eq!(services[database]["networks"], json!(["data"]), "{database}");
    }
}
