//! Every setting that a manifest, a Compose file or a unit gives a process is a documented one.

use std::collections::BTreeSet;

use ovenbird_dev::tree;
use serde_json::Value;

use super::{containers, objects, read, workloads};

/// Dotted names of a process's settings, those included that its documented defaults only show.
fn documented(process: &str) -> BTreeSet<String> {
    let file = match process {
        "api" => "api/default.toml",
        "bridge" => "api/bridge/src/default.toml",
        "runner" => "runner/src/default.toml",
        "agent" => "agent/src/default.toml",
        other => panic!("no process {other}"),
    };
    let text = std::fs::read_to_string(tree::root().join(file)).unwrap();
    let mut section = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_matches(['[', ']']));
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_')
        {
            // What stands above the first section has none; a shown key may stand behind one that is only shown.
            keys.insert(format!("{section}{key}"));
        }
    }
    keys
}

fn check(variable: &str) {
    let Some((process, key)) =
        variable.strip_prefix("OVENBIRD_").and_then(|rest| rest.split_once("__"))
    else {
        return;
    };
    let key = key.to_ascii_lowercase().replace("__", ".");
    let known = documented(&process.to_ascii_lowercase());
    assert!(known.contains(&key), "{variable}: no documented setting {key} of {known:#?}");
}

#[test]
fn variables_of_the_manifests_are_documented_settings() {
    let objects = objects();
    let mut seen = 0;
    for container in workloads(&objects).into_iter().flat_map(containers) {
        for variable in container["env"].as_array().unwrap() {
            check(variable["name"].as_str().unwrap());
            seen += 1;
        }
    }
    assert!(seen > 25, "{seen} variables");
}

#[test]
fn variables_of_the_compose_file_are_documented_settings() {
    let compose: Value = serde_saphyr::from_str(&read("compose.yaml")).unwrap();
    let services = compose["services"].as_object().unwrap().values();
    let variables = services.flat_map(|it| it["environment"].as_object().into_iter().flatten());
    let names: BTreeSet<&str> = variables.map(|(name, _)| name.as_str()).collect();
    assert!(names.len() > 20, "{names:?}");
    names.into_iter().for_each(check);
}
