//! Who may speak with whom, and what a runner may do at the API server, as ARCHITECTURE.md says.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::objects;

const POSTGRES: u64 = 5432;
const REDIS: u64 = 6379;
const NATS: u64 = 4222;
const AGENTS: u64 = 7443;

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
    assert_eq!(reach("api"), BTreeSet::from([NATS, POSTGRES, REDIS, AGENTS]));
    assert_eq!(reach("bridge"), BTreeSet::from([NATS, POSTGRES, REDIS, AGENTS]));
    assert_eq!(reach("runner"), BTreeSet::from([443, NATS, 6443, AGENTS]));
    // A pod that nobody has thought of.
    assert_eq!(reach("stranger"), BTreeSet::new());
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
