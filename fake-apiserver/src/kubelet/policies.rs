//! Who may talk to whom, as NetworkPolicies say it. It is told and not enforced.
//!
//! Upstream: the documentation of `NetworkPolicySpec` in `k8s.io/api/networking/v1/types.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::{Object, selector::LabelSelector};

/// Pods that one line names; the others are counted.
const NAMED: usize = 10;

/// For each pod that a policy selects and each direction that it restricts, a line: who may reach it, or what it may reach.
/// A pod that no policy selects talks to everybody that may talk to it, and has no line.
pub fn report(policies: &[Object], pods: &[Object], namespaces: &[Object]) -> Vec<String> {
    let live: Vec<&Object> =
        pods.iter().filter(|pod| !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")).collect();
    let mut lines = Vec::new();
    for pod in &live {
        for (direction, rules, peers, word) in
            [("Ingress", "ingress", "from", "is reached by"), ("Egress", "egress", "to", "reaches")]
        {
            let chosen: Vec<&Object> =
                policies.iter().filter(|policy| selects(policy, pod) && restricts(policy, direction)).collect();
            if chosen.is_empty() {
                continue;
            }
            let mut allowed = BTreeSet::new();
            for policy in chosen {
                for rule in list(policy.at(&["spec", rules])) {
                    let ports = ports(rule.get("ports"));
                    let who = match rule.get(peers).and_then(Value::as_array).filter(|peers| !peers.is_empty()) {
                        None => vec!["everybody".to_owned()],
                        Some(peers) => {
                            peers.iter().map(|one| peer(one, policy.namespace(), &live, namespaces)).collect()
                        }
                    };
                    allowed.extend(who.into_iter().map(|who| format!("{who}{ports}")));
                }
            }
            let allowed: Vec<String> = allowed.into_iter().collect();
            let allowed = if allowed.is_empty() { "nobody".to_owned() } else { allowed.join("; ") };
            lines.push(format!("{}/{} {word} {allowed}", pod.namespace(), pod.name()));
        }
    }
    lines
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn matches(selector: Option<&Value>, object: &Object) -> bool {
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches_object(object))
}

fn selects(policy: &Object, pod: &Object) -> bool {
    policy.namespace() == pod.namespace() && matches(policy.at(&["spec", "podSelector"]), pod)
}

fn restricts(policy: &Object, direction: &str) -> bool {
    match policy.at(&["spec", "policyTypes"]).and_then(Value::as_array).filter(|types| !types.is_empty()) {
        Some(types) => types.iter().any(|one| one == direction),
        None => direction == "Ingress" || !list(policy.at(&["spec", "egress"])).is_empty(),
    }
}

fn ports(value: Option<&Value>) -> String {
    let one = |port: &Value| {
        let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match (port.get("port").map(text), port.get("endPort").map(text)) {
            (Some(first), Some(last)) => format!("{first}-{last}/{protocol}"),
            (Some(port), None) => format!("{port}/{protocol}"),
            (None, _) => format!("any/{protocol}"),
        }
    };
    match list(value) {
        [] => String::new(),
        ports => format!(" on {}", ports.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

fn peer(peer: &Value, own: &str, pods: &[&Object], namespaces: &[Object]) -> String {
    if let Some(block) = peer.get("ipBlock") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let except: Vec<String> = list(block.get("except")).iter().map(text).collect();
        let cidr = block.get("cidr").map(text).unwrap_or_default();
        return if except.is_empty() { cidr } else { format!("{cidr} except {}", except.join(", ")) };
    }
    let within = |name: &str| match peer.get("namespaceSelector") {
        None => name == own,
        selector => namespaces.iter().any(|namespace| namespace.name() == name && matches(selector, namespace)),
    };
    let chosen = |pod: &&&Object| {
        within(pod.namespace()) && peer.get("podSelector").is_none_or(|selector| matches(Some(selector), pod))
    };
    let names: Vec<String> =
        pods.iter().filter(chosen).map(|pod| format!("{}/{}", pod.namespace(), pod.name())).collect();
    match names.len() {
        0 => "no pod that there is".into(),
        1..=NAMED => names.join(", "),
        count => format!("{} and {} others", names[..NAMED].join(", "), count - NAMED),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stored(namespace: &str, name: &str, value: Value) -> Object {
        let mut object = Object::from_value(value).unwrap();
        object.set_at(&["metadata", "namespace"], json!(namespace));
        object.set_at(&["metadata", "name"], json!(name));
        object
    }

    fn policy(spec: Value) -> Object {
        stored("a", "policy", json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": spec }))
    }

    fn pod(namespace: &str, name: &str) -> Object {
        let metadata = json!({ "labels": { "app": name } });
        stored(namespace, name, json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata }))
    }

    fn told(policies: &[Value]) -> Vec<String> {
        let namespace = |name: &str| {
            let metadata = json!({ "labels": { "team": name } });
            stored("", name, json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))
        };
        let policies: Vec<_> = policies.iter().cloned().map(policy).collect();
        report(&policies, &[pod("a", "web"), pod("a", "client"), pod("b", "client")], &[namespace("a"), namespace("b")])
    }

    #[test]
    fn a_pod_that_no_policy_selects_is_not_told_of() {
        assert_eq!(told(&[]), [""; 0]);
        assert_eq!(told(&[json!({ "podSelector": { "matchLabels": { "app": "other" } } })]), [""; 0]);
    }

    #[test]
    fn a_policy_without_rules_lets_nobody_in() {
        let web = json!({ "matchLabels": { "app": "web" } });
        assert_eq!(told(&[json!({ "podSelector": web })]), ["a/web is reached by nobody"]);
        let both = json!({ "podSelector": web, "policyTypes": ["Ingress", "Egress"], "egress": [{}] });
        assert_eq!(told(&[both]), ["a/web is reached by nobody", "a/web reaches everybody"]);
    }

    #[test]
    fn what_several_policies_allow_is_added_up() {
        let web = json!({ "matchLabels": { "app": "web" } });
        let client = json!({ "matchLabels": { "app": "client" } });
        let near = json!({ "podSelector": web, "ingress": [{
            "from": [{ "podSelector": client }], "ports": [{ "port": 80 }, { "port": 90, "endPort": 99, "protocol": "UDP" }],
        }] });
        let far = json!({ "podSelector": web, "ingress": [{ "from": [
            { "podSelector": client, "namespaceSelector": { "matchLabels": { "team": "b" } } },
            { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"] } },
        ] }] });
        assert_eq!(
            told(&[near, far]),
            ["a/web is reached by 10.0.0.0/8 except 10.1.0.0/16; a/client on 80/TCP, 90-99/UDP; b/client"]
        );
    }
}
