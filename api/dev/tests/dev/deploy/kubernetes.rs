//! The manifests: what the schemas say, how pods are confined, and that objects which name each other are there.

use std::collections::{BTreeMap, BTreeSet};

use ovenbird_contract::{nats::Names, nats_access::Account};
use serde_json::{Value, json};

use super::{containers, definitions, errors, named, objects, schema_of, workloads};

#[test]
fn every_object_is_what_the_schemas_of_kubernetes_and_keda_say() {
    let mut kinds: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for object in objects() {
        kinds
            .entry(format!("{} {}", object["apiVersion"], object["kind"]))
            .or_default()
            .push(object);
    }
    for definitions in definitions() {
        for objects in kinds.values() {
            // Making a validator takes a second, so there is one for each kind.
            let schema = schema_of(&objects[0], &definitions);
            let validator = jsonschema::validator_for(&schema).unwrap();
            for object in objects {
                let said: Vec<String> =
                    validator.iter_errors(object).map(|error| error.to_string()).collect();
                assert!(said.is_empty(), "{}: {said:#?}", named(object));
            }
        }
    }
}

#[test]
fn what_the_schemas_do_not_have_is_found() {
    let objects = objects();
    let definitions = &definitions()[0];
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).unwrap().clone();
    let wrong: [(&str, &str, Value); 6] = [
        ("Deployment", "/spec/replica", json!(2)),
        ("Deployment", "/spec/template/spec/containers/0/readinessProbe/httpGet/port", json!([1])),
        ("NetworkPolicy", "/spec/egres", json!([])),
        ("ScaledObject", "/spec/maxReplicas", json!(6)),
        ("ScaledObject", "/spec/triggers/0/metadata/lagThreshold", json!(2)),
        (
            "ScaledObject",
            "/spec/advanced/horizontalPodAutoscalerConfig/behavior/scaleDwn",
            json!({}),
        ),
    ];
    for (kind, path, value) in wrong {
        let mut object = of(kind);
        let (parent, key) = path.rsplit_once('/').unwrap();
        object.pointer_mut(parent).unwrap()[key] = value;
        assert!(!errors(&schema_of(&object, definitions), &object).is_empty(), "{kind} {path}");
    }
}

#[test]
fn only_the_agent_is_more_than_a_process_without_rights() {
    for workload in workloads(&objects()) {
        let pod = &workload["spec"]["template"]["spec"];
        let name = named(workload);
        let is_agent = workload["metadata"]["name"] == "agent";
        for container in containers(workload) {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
            assert_eq!(context["privileged"] == true, is_agent, "{name}");
            assert!(container["resources"]["requests"]["memory"].is_string(), "{name}");
            assert!(container["resources"]["requests"]["cpu"].is_string(), "{name}");
            if !is_agent {
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }), "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
            }
        }
        for container in pod["containers"].as_array().unwrap() {
            for probe in ["livenessProbe", "readinessProbe"] {
                assert!(container[probe].is_object(), "{name} has no {probe}");
            }
        }
        if !is_agent {
            let context = &pod["securityContext"];
            assert_eq!(context["runAsNonRoot"], true, "{name}");
            assert!(context["runAsUser"].as_u64().unwrap() > 0, "{name}");
            assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for shared in ["hostNetwork", "hostPID", "hostIPC"] {
                assert_eq!(pod.get(shared), None, "{name}");
            }
            let paths = pod["volumes"].as_array().unwrap().iter();
            assert!(paths.clone().all(|volume| volume.get("hostPath").is_none()), "{name}");
        }
        // Nobody who does not call the API server has a token for it.
        let token = workload["metadata"]["name"] == "runner";
        assert_eq!(pod["automountServiceAccountToken"], token, "{name}");
    }
}

#[test]
fn secrets_are_named_and_not_told() {
    let objects = objects();
    assert!(objects.iter().all(|object| object["kind"] != "Secret"));
    for workload in workloads(&objects) {
        for container in containers(workload) {
            for variable in container["env"].as_array().unwrap() {
                let (name, value) = (variable["name"].as_str().unwrap(), &variable["value"]);
                let is_secret = ["DATABASE_URL", "REDIS_URL", "PASSWORD", "TOKEN"];
                if is_secret.iter().any(|end| name.ends_with(end)) {
                    assert!(variable["valueFrom"]["secretKeyRef"].is_object(), "{name}");
                }
                assert!(!value.as_str().unwrap_or_default().contains('@'), "{name}");
            }
        }
    }
}

#[test]
fn each_workload_is_kept_from_being_taken_down_as_a_whole() {
    let objects = objects();
    let budgets: Vec<&Value> =
        objects.iter().filter(|object| object["kind"] == "PodDisruptionBudget").collect();
    for workload in workloads(&objects) {
        let guarding = budgets.iter().filter(|budget| {
            budget["metadata"]["namespace"] == workload["metadata"]["namespace"]
                && budget["spec"]["selector"] == workload["spec"]["selector"]
        });
        assert_eq!(guarding.count(), 1, "{}", named(workload));
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{}", named(workload));
    }
    assert_eq!(budgets.len(), 4);
}

#[test]
fn what_objects_name_is_there_or_listed_as_to_be_made() {
    let objects = objects();
    let wanted = super::read("k8s/overlays/example/kustomization.yaml");
    let has = |kind: &str, namespace: &Value, name: &Value| {
        objects.iter().any(|object| {
            object["kind"] == kind
                && object["metadata"]["name"] == *name
                && object["metadata"]["namespace"] == *namespace
        })
    };
    let mut secrets = BTreeSet::new();
    for workload in workloads(&objects) {
        let (pod, namespace) =
            (&workload["spec"]["template"]["spec"], &workload["metadata"]["namespace"]);
        assert!(
            has("ServiceAccount", namespace, &pod["serviceAccountName"]),
            "{}",
            named(workload)
        );
        for volume in pod["volumes"].as_array().unwrap() {
            if let Some(map) = volume.get("configMap") {
                assert!(has("ConfigMap", namespace, &map["name"]), "{map}");
            }
            secrets.extend(volume["secret"]["secretName"].as_str().map(str::to_owned));
        }
        for variable in containers(workload).flat_map(|it| it["env"].as_array().unwrap()) {
            let from = &variable["valueFrom"];
            if let Some(map) = from.get("configMapKeyRef") {
                assert!(has("ConfigMap", namespace, &map["name"]), "{map}");
            }
            secrets.extend(from["secretKeyRef"]["name"].as_str().map(str::to_owned));
        }
    }
    let listed: String = wanted.lines().filter(|line| line.starts_with("#   ")).collect();
    for secret in &secrets {
        let stem = secret.rsplit_once('-').unwrap().0;
        assert!(listed.contains(secret) || listed.contains(&format!("{stem}-{{")), "{secret}");
    }
    assert_eq!(secrets.len(), 9, "{secrets:?}");
}

#[test]
fn autoscaler_counts_the_jobs_of_every_lane_in_slots_of_a_runner() {
    let objects = objects();
    let scaled = objects.iter().find(|object| object["kind"] == "ScaledObject").unwrap();
    let spec = &scaled["spec"];
    let runner = workloads(&objects)
        .into_iter()
        .find(|workload| workload["metadata"]["name"] == spec["scaleTargetRef"]["name"])
        .unwrap();
    assert_eq!(runner["spec"].get("replicas"), None, "it would be set back with each apply");
    let variables = containers(runner).next().unwrap()["env"].as_array().unwrap();
    let slots = variables.iter().find(|it| it["name"] == "OVENBIRD_RUNNER__SLOTS").unwrap();

    let consumers = Names::default().runners_consumers();
    let triggers = spec["triggers"].as_array().unwrap();
    assert_eq!(triggers.len(), consumers.len());
    for (trigger, consumer) in triggers.iter().zip(&consumers) {
        let metadata = &trigger["metadata"];
        assert_eq!(metadata["account"], Account::App.as_str());
        assert_eq!(metadata["stream"], *consumer.stream);
        assert_eq!(metadata["consumer"], *consumer.durable);
        assert_eq!(metadata["lagThreshold"], slots["value"]);
    }
    let modifiers = &spec["advanced"]["scalingModifiers"];
    let names: Vec<&str> = triggers.iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(modifiers["formula"], names.join(" + "));
    assert_eq!(modifiers["target"], slots["value"]);
}
