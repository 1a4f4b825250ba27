//! What `.deploy` says, held against the schemas of those who read it, and against what our processes know. No cluster
//! and no container engine is needed.

mod images;
mod keys;
mod kubernetes;
mod machine;
mod policies;
mod secrets;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ovenbird_dev::{
    cache::Cache,
    setup::deploy::{Checkers, KUBERNETES},
    tree,
};
use serde_json::{Value, json};

/// A file or folder of `.deploy`.
fn deploy(path: &str) -> PathBuf {
    tree::root().join(".deploy").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(deploy(path)).unwrap()
}

fn checkers() -> Checkers {
    Checkers::locate(&Cache::open().unwrap()).unwrap()
}

/// Every object of the example overlay.
fn objects() -> Vec<Value> {
    built(&deploy("k8s/overlays/example"))
}

/// What kustomize puts together.
fn built(overlay: &Path) -> Vec<Value> {
    let mut kubectl = Command::new(checkers().kubectl());
    let output = kubectl.arg("kustomize").arg(overlay).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_saphyr::from_multiple(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// Kind, namespace and name, for messages.
fn named(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let metadata = &object["metadata"];
    format!(
        "{} {}/{}",
        text(&object["kind"]),
        text(&metadata["namespace"]),
        text(&metadata["name"])
    )
}

/// Those with pods of ours: Deployments and DaemonSets.
fn workloads(objects: &[Value]) -> Vec<&Value> {
    let made: Vec<&Value> =
        objects.iter().filter(|object| object["spec"]["template"]["spec"].is_object()).collect();
    assert_eq!(made.len(), 4, "api, bridge, runner, agent");
    made
}

fn containers(workload: &Value) -> impl Iterator<Item = &Value> {
    let pod = &workload["spec"]["template"]["spec"];
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|kind| pod[kind].as_array().into_iter().flatten())
}

/// What a schema says against a document.
fn errors(schema: &Value, document: &Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema).unwrap();
    let told =
        |error: jsonschema::ValidationError<'_>| format!("{}: {error}", error.instance_path());
    validator.iter_errors(document).map(told).collect()
}

/// The schemas of Kubernetes' kinds, by version.
fn definitions() -> Vec<Value> {
    let read = |version| {
        let text = std::fs::read_to_string(checkers().kubernetes(version)).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["$defs"].take()
    };
    KUBERNETES.map(read).to_vec()
}

/// The schema of an object's kind, strict about fields that the kind does not have.
fn schema_of(object: &Value, definitions: &Value) -> Value {
    let version = object["apiVersion"].as_str().unwrap();
    if version == "keda.sh/v1alpha1" {
        let mut schema: Value = serde_json::from_str(include_str!("keda.json")).unwrap();
        schema["$defs"] = definitions.clone();
        return schema;
    }
    let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
    let wanted = json!({ "group": group, "version": version, "kind": object["kind"] });
    let is_it = |(_, definition): &(&String, &Value)| {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.contains(&wanted))
    };
    let (name, _) = definitions.as_object().unwrap().iter().find(is_it).unwrap_or_else(|| {
        panic!("Kubernetes has no {wanted}");
    });
    json!({ "$ref": format!("#/$defs/{name}"), "$defs": definitions })
}
