//! Which nodes a pod may be on by what it and they say: node names, selectors, affinity, taints.
//!
//! Upstream: `k8s.io/component-helpers/scheduling/corev1/`.

use serde_json::Value;

use super::Object;

/// Whether the pod's `nodeSelector` and required node affinity take the node.
pub fn selects(pod: &Object, node: &Object) -> bool {
    let selector = pod.at(&["spec", "nodeSelector"]).and_then(Value::as_object);
    let selected = selector.into_iter().flatten().all(|(key, value)| node.label(key) == value.as_str());
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    selected && pod.at(&required).is_none_or(|required| matches(required, node))
}

/// Whether one of a node selector's terms takes the node.
pub fn matches(selector: &Value, node: &Object) -> bool {
    let terms = selector.get("nodeSelectorTerms").and_then(Value::as_array).into_iter().flatten();
    terms.into_iter().any(|term| {
        let list = |field: &str| term.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let (labels, fields) = (list("matchExpressions"), list("matchFields"));
        let field = |key: &str| (key == "metadata.name").then(|| node.name());
        // A term that asks for nothing takes nothing.
        !(labels.is_empty() && fields.is_empty())
            && labels.iter().all(|requirement| met(requirement, |key| node.label(key)))
            && fields.iter().all(|requirement| met(requirement, field))
    })
}

fn met<'a>(requirement: &Value, value: impl Fn(&str) -> Option<&'a str>) -> bool {
    let text = |field: &str| requirement.get(field).and_then(Value::as_str).unwrap_or_default();
    let values = requirement.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let found = value(text("key"));
    let listed = found.is_some_and(|found| values.iter().any(|value| value.as_str() == Some(found)));
    let bound = || values.first()?.as_str()?.parse::<i64>().ok();
    let number = || found?.parse::<i64>().ok();
    match text("operator") {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => number().zip(bound()).is_some_and(|(number, bound)| number > bound),
        "Lt" => number().zip(bound()).is_some_and(|(number, bound)| number < bound),
        _ => false,
    }
}

/// The first of a node's taints with one of these effects that the pod does not tolerate.
pub fn untolerated<'a>(pod: &Object, node: &'a Object, effects: &[&str]) -> Option<&'a Value> {
    let taints = node.at(&["spec", "taints"]).and_then(Value::as_array);
    taints.into_iter().flatten().find(|taint| {
        let effect = taint.get("effect").and_then(Value::as_str).unwrap_or_default();
        effects.contains(&effect) && !tolerates(pod, taint)
    })
}

/// Whether one of a pod's tolerations is for a taint.
pub fn tolerates(pod: &Object, taint: &Value) -> bool {
    let of = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let tolerations = pod.at(&["spec", "tolerations"]).and_then(Value::as_array);
    tolerations.into_iter().flatten().any(|toleration| {
        let exists = of(toleration, "operator") == "Exists";
        let (key, effect) = (of(toleration, "key"), of(toleration, "effect"));
        (effect.is_empty() || effect == of(taint, "effect"))
            && (key == of(taint, "key") || key.is_empty() && exists)
            && (exists || of(toleration, "value") == of(taint, "value"))
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::listed(json!({"key": "disk", "operator": "In", "values": ["ssd", "hdd"]}), true)]
    #[case::excluded(json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]}), false)]
    #[case::absent_is_not_in(json!({"key": "zone", "operator": "NotIn", "values": ["a"]}), true)]
    #[case::there(json!({"key": "zone", "operator": "Exists"}), false)]
    #[case::not_there(json!({"key": "zone", "operator": "DoesNotExist"}), true)]
    #[case::more(json!({"key": "cores", "operator": "Gt", "values": ["7"]}), true)]
    #[case::less(json!({"key": "cores", "operator": "Lt", "values": ["8"]}), false)]
    #[case::no_number(json!({"key": "disk", "operator": "Gt", "values": ["1"]}), false)]
    fn a_requirement_of_node_affinity(#[case] requirement: Value, #[case] taken: bool) {
        let mut node = Object::new("v1", "Node", "", "n");
        node.set_at(&["metadata", "labels"], json!({"disk": "ssd", "cores": "8"}));
        let selector = json!({"nodeSelectorTerms": [{}, {"matchExpressions": [requirement]}]});
        assert_eq!(matches(&selector, &node), taken);
        let by_name = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]});
        assert!(matches(&by_name, &node));
    }
}
