//! The manifests: what the schemas say, how pods are confined, and that objects which name each other are there.

use std::collections::{BTreeMap, BTreeSet};

use ovenbird_contract::{nats::Names, nats_access::Account};
use ovenbird_dev::tree;
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
fn probes_restart_nobody_who_only_waits_and_nobody_with_sandboxes() {
    for workload in workloads(&objects()) {
        let name = named(workload);
        for container in workload["spec"]["template"]["spec"]["containers"].as_array().unwrap() {
            assert!(container["readinessProbe"].is_object(), "{name}");
            if workload["metadata"]["name"] == "agent" {
                // A node that is slow for a while would lose all its sandboxes.
                for probe in ["livenessProbe", "startupProbe"] {
                    assert_eq!(container.get(probe), None, "{name} has a {probe}");
                }
                continue;
            }
            // What says no while a service is away may take a pod out of service, and restart none.
            for probe in ["livenessProbe", "startupProbe"] {
                let path = &container[probe]["httpGet"]["path"];
                assert!(*path == "/healthz" || container.get(probe).is_none(), "{name}: {path}");
            }
            assert!(container["livenessProbe"].is_object(), "{name}");
        }
    }
}

#[test]
fn pods_may_take_the_time_that_their_process_takes_to_end() {
    let setting = |file: &str, key: &str| {
        let text = std::fs::read_to_string(tree::root().join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
        let seconds = line.unwrap().trim_end_matches('"').trim_end_matches('s');
        seconds.parse::<u64>().unwrap()
    };
    // The last spans are given two seconds.
    let api = 3 * setting("api/default.toml", "shutdown_timeout") + 2;
    let runner = setting("runner/src/default.toml", "exit_within") + 2;
    let objects = objects();
    let pod = |name: &str| {
        let workloads = workloads(&objects);
        let found = workloads.into_iter().find(|workload| workload["metadata"]["name"] == name);
        found.unwrap()["spec"]["template"]["spec"].clone()
    };
    let grace = |pod: &Value| pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let withdrawn = &pod("api")["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"];
    let withdrawn = withdrawn.as_u64().expect("time in which proxies hear that the pod is going");
    assert!(grace(&pod("api")) > withdrawn + api && grace(&pod("runner")) > runner);

    let compose: Value = serde_saphyr::from_str(&super::read("compose.yaml")).unwrap();
    let unit = |name: &str| super::read(&format!("systemd/ovenbird-{name}.service"));
    for (name, unit, needed) in [("api", unit("api"), api), ("runner", unit("runner@"), runner)] {
        let period = compose["services"][name]["stop_grace_period"].as_str().unwrap();
        let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        for (of, seconds) in [("compose.yaml", period), ("its unit", stop)] {
            let seconds: u64 = seconds.trim_end_matches('s').parse().unwrap();
            assert!(seconds > needed, "{name} in {of}: {seconds} s of {needed}");
        }
    }
}

#[test]
fn microvms_of_a_node_get_no_name_servers_of_the_cluster() {
    let objects = objects();
    let agent = objects.iter().find(|object| object["kind"] == "DaemonSet").unwrap();
    // "host" in the agent's `egress_dns` is its own resolv.conf.
    assert_eq!(agent["spec"]["template"]["spec"]["dnsPolicy"], "Default");
}

#[test]
fn prometheus_reaches_the_metrics_of_every_process() {
    for workload in workloads(&objects()) {
        let container = &workload["spec"]["template"]["spec"]["containers"][0];
        let variables = container["env"].as_array().unwrap();
        let at = |end: &str| {
            variables.iter().position(|it| it["name"].as_str().unwrap().ends_with(end)).unwrap()
        };
        let listens = at("__METRICS_LISTEN");
        let host = variables[listens]["value"].as_str().unwrap().strip_suffix(":9464").unwrap();
        if let Some(variable) = host.strip_prefix("$(").and_then(|it| it.strip_suffix(')')) {
            // Kubernetes puts in what stands before it in the list only.
            let place = at(variable);
            assert!(place < listens, "{}", named(workload));
            assert_eq!(variables[place]["valueFrom"]["fieldRef"]["fieldPath"], "status.hostIP");
        } else {
            assert_eq!(host, "0.0.0.0", "{}", named(workload));
        }
    }
}

#[test]
fn services_that_speak_tls_are_believed_by_an_authority_that_every_process_is_given() {
    let objects = objects();
    let map = objects.iter().find(|it| it["data"].get("nats-url").is_some()).unwrap();
    let url = map["data"]["nats-url"].as_str().unwrap();
    assert!(url.starts_with("tls://") && url.contains(".svc:"), "of no public authority: {url}");
    let mut files = BTreeMap::new();
    for workload in workloads(&objects) {
        let maps = |volume: &&Value| volume["configMap"]["name"] == "ovenbird-authorities";
        let volumes = workload["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(maps);
        for container in containers(workload) {
            let mounts = container["volumeMounts"].as_array().unwrap();
            for variable in container["env"].as_array().unwrap() {
                let name = variable["name"].as_str().unwrap();
                // Not the `…__TLS__CA` of the calls to agents.
                let start = name.strip_suffix("_CA").filter(|start| !start.ends_with('_'));
                let Some(start) = start else { continue };
                let path = variable["value"].as_str().unwrap();
                let (folder, file) = path.rsplit_once('/').unwrap();
                let is_it = |mount: &&Value| mount["mountPath"] == folder;
                let mount = mounts.iter().find(is_it).unwrap_or_else(|| panic!("{name}: {folder}"));
                assert_eq!(mount["name"], volume.unwrap()["name"], "{name}");
                let service = start.rsplit_once("__").unwrap().1.to_lowercase();
                assert_eq!(files.entry(service).or_insert(file.to_owned()), file, "{name}");
            }
            let given = |key: &str| {
                let ends = |it: &Value| it["name"].as_str().unwrap().ends_with(key);
                container["env"].as_array().unwrap().iter().any(ends)
            };
            for service in ["DATABASE", "REDIS", "NATS"] {
                let (url, authority) = (format!("__{service}_URL"), format!("__{service}_CA"));
                let name = (named(workload), &container["name"], service);
                assert_eq!(given(&url), given(&authority), "{name:?}");
            }
        }
    }
    let listed = super::read("k8s/overlays/example/kustomization.yaml");
    let line = listed.lines().find(|line| line.contains("/ovenbird-authorities ")).unwrap();
    assert!(files.len() == 3 && files.values().all(|file| line.contains(file)), "{files:?}");
    // More than one server stands behind the one name.
    let bridge = objects.iter().find(|it| it["data"].get("bridge.toml").is_some()).unwrap();
    let config = bridge["data"]["bridge.toml"].as_str().unwrap();
    let scaled = objects.iter().find(|object| object["kind"] == "ScaledObject").unwrap();
    let endpoint =
        &scaled["spec"]["triggers"][0]["metadata"]["natsServerMonitoringEndpoint"].as_str();
    assert!(endpoint.unwrap().contains("headless") && config.contains("nats_replicas = 3"));
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
        // A DaemonSet's pods are not evicted, and its number is not known to a budget.
        let wanted = usize::from(workload["kind"] == "Deployment");
        assert_eq!(guarding.count(), wanted, "{}", named(workload));
        let labels = &workload["spec"]["template"]["metadata"]["labels"];
        assert_eq!(&workload["spec"]["selector"]["matchLabels"], labels, "{}", named(workload));
    }
    assert_eq!(budgets.len(), 3);
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
                let is_listed = map["name"].as_str().is_some_and(|name| {
                    wanted.lines().any(|line| line.starts_with("#   ") && line.contains(name))
                });
                let optional = map["optional"] == true && is_listed;
                assert!(optional || has("ConfigMap", namespace, &map["name"]), "{map}");
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
