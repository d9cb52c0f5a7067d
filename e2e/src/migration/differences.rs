//! What two pods have not in common, named by paths that people can read.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::plan::shown;

/// Values that a report shows no more of.
const LONGEST: usize = 120;

/// What is meant by a difference that the move always makes, by the begin of its path.
const MEANINGS: [(&str, &str); 6] = [
    ("spec.restartPolicy", "its containers are started again; before, an end was the end"),
    ("spec.automountServiceAccountToken", "no token of the cluster is put in"),
    ("spec.volumes[kube-api-access]", "no token of the cluster is put in"),
    ("spec.containers[sandbox].volumeMounts[/var/run/secrets/kubernetes.io/serviceaccount]", "nor mounted"),
    ("metadata.labels.agentpane.io/managed", "Phase 2 marks what it manages"),
    ("spec.nodeName", "a node is chosen anew"),
];

/// Something that would not be as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where.
    pub path: String,
    /// How it is; empty if it is not.
    pub before: String,
    /// How it would be; empty if it would not.
    pub after: String,
    /// What that means, if it is no surprise.
    pub meaning: String,
}

impl Difference {
    pub(super) fn new(path: &str, before: impl Into<String>, after: impl Into<String>, meaning: &str) -> Self {
        Self { path: path.into(), before: before.into(), after: after.into(), meaning: meaning.into() }
    }
}

/// What is different in the labels and the specification of two pods, as the server fills them. The values of variables are
/// not shown: they may be secret.
pub(super) fn differences(before: &Pod, after: &Pod) -> Vec<Difference> {
    let mut found = Vec::new();
    let value = |pod: &Pod| {
        let labels = serde_json::to_value(&pod.metadata.labels).unwrap_or_default();
        let spec = serde_json::to_value(&pod.spec).unwrap_or_default();
        serde_json::json!({"metadata": {"labels": labels}, "spec": spec})
    };
    compare("", &value(before), &value(after), &mut found);
    found.retain(|one| one.path != "spec.nodeName"); // a node is chosen anew for every pod
    for one in &mut found {
        let meaning = MEANINGS.iter().find(|(path, _)| one.path.starts_with(path));
        one.meaning = meaning.map(|(_, meaning)| (*meaning).to_owned()).unwrap_or_default();
        if one.path.contains(".env") {
            for text in [&mut one.before, &mut one.after] {
                if !text.is_empty() {
                    *text = "(not shown)".into();
                }
            }
        }
    }
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<Difference>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Value::Object(before), Value::Object(after)) => {
            let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for name in names {
                let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                compare(&at, before.get(name).unwrap_or(&Value::Null), after.get(name).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(before), Value::Array(after)) => match (named(before), named(after)) {
            (Some(before), Some(after)) => {
                let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
                for name in names {
                    let get =
                        |list: &BTreeMap<String, &Value>| list.get(name).map_or(Value::Null, |value| (*value).clone());
                    compare(&format!("{path}[{name}]"), &get(&before), &get(&after), found);
                }
            }
            _ => found.push(one(path, &Value::Array(before.clone()), &Value::Array(after.clone()))),
        },
        (before, after) => found.push(one(path, before, after)),
    }
}

fn one(path: &str, before: &Value, after: &Value) -> Difference {
    // Of what is on one side alone nothing is shown: it may hold variables.
    let text = |value: &Value, other: &Value| match value {
        Value::Object(_) | Value::Array(_) if other.is_null() => "there".to_owned(),
        value => short(value),
    };
    Difference::new(path, text(before, after), text(after, before), "")
}

fn short(value: &Value) -> String {
    let text = shown(value);
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// The items of a list by what they are called, if all of them are called something.
fn named(items: &[Value]) -> Option<BTreeMap<String, &Value>> {
    items
        .iter()
        .map(|item| {
            let name = ["mountPath", "name"].iter().find_map(|key| item[*key].as_str())?;
            // The volume of a token has a name that is drawn.
            let name = if name.starts_with("kube-api-access-") { "kube-api-access" } else { name };
            Some((name.to_owned(), item))
        })
        .collect()
}
