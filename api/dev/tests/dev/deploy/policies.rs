//! Who may speak with whom, and what a runner may do at the API server, as ARCHITECTURE.md says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{built, deploy, objects, read};

const POSTGRES: u64 = 5432;
const REDIS: u64 = 6379;
const NATS: u64 = 4222;
const AGENTS: u64 = 7443;
/// OTLP over gRPC.
const TRACES: u64 = 4317;

/// The ports that a process's pods may reach (`egress`) or be reached at (`ingress`), names of hosts aside.
fn ports(objects: &[Value], component: &str, direction: &str) -> BTreeSet<u64> {
    let policies = objects.iter().filter(|object| object["kind"] == "NetworkPolicy");
    let selected = policies.filter(|policy| selects(&policy["spec"]["podSelector"], component));
    let rules = selected.flat_map(|policy| policy["spec"][direction].as_array().cloned());
    let rules: Vec<Value> = rules.flatten().collect();
    let ports = rules.iter().flat_map(|rule| {
        let whom = rule["to"].as_array().or_else(|| rule["from"].as_array());
        assert!(whom.is_some_and(|whom| !whom.is_empty()), "open to everybody: {rule}");
        rule["ports"].as_array().unwrap()
    });
    let numbers = ports.map(|port| port["port"].as_u64().unwrap());
    numbers.filter(|port| *port != 53).collect()
}

fn selects(selector: &Value, component: &str) -> bool {
    const KEY: &str = "app.kubernetes.io/component";
    let labels = selector["matchLabels"].as_object();
    let by_label = labels.is_none_or(|labels| labels[KEY] == component);
    let expressions = selector["matchExpressions"].as_array().into_iter().flatten();
    by_label
        && expressions.into_iter().all(|it| {
            assert_eq!((&it["key"], &it["operator"]), (&json!(KEY), &json!("In")));
            it["values"].as_array().unwrap().contains(&json!(component))
        })
}

#[test]
fn only_api_and_bridge_reach_postgres_and_redis() {
    let objects = objects();
    let reach = |component| ports(&objects, component, "egress");
    assert_eq!(reach("api"), BTreeSet::from([NATS, TRACES, POSTGRES, REDIS, AGENTS]));
    assert_eq!(reach("bridge"), BTreeSet::from([NATS, TRACES, POSTGRES, REDIS, AGENTS]));
    assert_eq!(reach("runner"), BTreeSet::from([443, NATS, TRACES, 6443, AGENTS]));
    // A pod that nobody has thought of.
    assert_eq!(reach("stranger"), BTreeSet::new());
}

#[test]
fn with_cilium_the_same_ports_of_nodes_and_of_the_api_server_are_open_to_the_same_pods() {
    let objects = objects();
    let text = read("k8s/components/cilium/networkpolicies.yaml");
    let for_cilium: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let by_address = objects.iter().filter(|object| {
        let to = &object["spec"]["egress"][0]["to"][0];
        object["kind"] == "NetworkPolicy" && to.get("ipBlock").is_some()
    });
    let mut compared = 0;
    for policy in by_address {
        let is_it = |other: &&Value| other["metadata"]["name"] == policy["metadata"]["name"];
        let same = for_cilium.iter().find(is_it).unwrap_or_else(|| panic!("none for {policy}"));
        let (one, other) = (&policy["spec"], &same["spec"]);
        assert_eq!(same["kind"], "CiliumNetworkPolicy");
        assert_eq!(same["metadata"]["namespace"], policy["metadata"]["namespace"]);
        assert_eq!(one["podSelector"], other["endpointSelector"]);
        // Ports are texts there.
        let mut ports = one["egress"][0]["ports"].clone();
        for port in ports.as_array_mut().unwrap() {
            port["port"] = json!(port["port"].to_string());
        }
        assert_eq!(ports, other["egress"][0]["toPorts"][0]["ports"]);
        let entities = if policy["metadata"]["name"] == "hosts" {
            json!(["host", "remote-node"])
        } else {
            json!(["kube-apiserver"])
        };
        assert_eq!(other["egress"][0]["toEntities"], entities);
        compared += 1;
    }
    assert_eq!((compared, for_cilium.len()), (2, 2));
    // As an overlay adds it.
    let folder = tempfile::tempdir_in(deploy("k8s/overlays")).unwrap();
    let overlay = "resources: [../example]\ncomponents: [../../components/cilium]\n";
    std::fs::write(folder.path().join("kustomization.yaml"), overlay).unwrap();
    let built = built(folder.path());
    assert_eq!(built.len(), objects.len() + 2);
}

#[test]
fn nobody_calls_a_bridge_or_a_runner_but_for_their_metrics() {
    let objects = objects();
    let reached = |component| ports(&objects, component, "ingress");
    assert_eq!(reached("api"), BTreeSet::from([8080, 9464]));
    assert_eq!(reached("bridge"), BTreeSet::from([9464]));
    assert_eq!(reached("runner"), BTreeSet::from([9464]));
    assert_eq!(reached("stranger"), BTreeSet::new());
    let denies = objects.iter().find(|object| {
        object["kind"] == "NetworkPolicy"
            && object["spec"]["podSelector"] == json!({})
            && object["spec"]["policyTypes"] == json!(["Ingress", "Egress"])
    });
    assert!(denies.is_some(), "what no policy names is open");
}

#[test]
fn runner_may_patch_pods_of_its_namespace_and_is_held_to_its_own() {
    let objects = objects();
    let of = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let role = of("Role").next().unwrap();
    assert_eq!(of("Role").count(), 1);
    assert_eq!(of("ClusterRole").count() + of("ClusterRoleBinding").count(), 0);
    assert_eq!(
        role["rules"],
        json!([{ "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"] }])
    );
    let subject = &of("RoleBinding").next().unwrap()["subjects"];
    assert_eq!(
        *subject,
        json!([{ "kind": "ServiceAccount", "name": "runner", "namespace": "ovenbird" }])
    );
    let policy = of("ValidatingAdmissionPolicy").next().unwrap();
    let binding = of("ValidatingAdmissionPolicyBinding").next().unwrap();
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]));
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    // No agent is in the namespace where that right is.
    let agents = of("DaemonSet").all(|agent| agent["metadata"]["namespace"] == "ovenbird-hosts");
    assert!(agents);
}
