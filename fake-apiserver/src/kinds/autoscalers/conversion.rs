//! Between v1 and v2. The annotations of v1 are JSON in the order of Go's fields; that of `behavior` has Go's names.

use serde_json::{Map, Value, json};

use super::{V1, cpu_metric};
use crate::base::{
    Object,
    value::{get, has, int, items, text},
};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

/// What v1 keeps in annotations, and v2 has members for.
const OWN: [&str; 6] = [
    METRICS,
    CURRENT_METRICS,
    CONDITIONS,
    BEHAVIOR,
    "autoscaling.alpha.kubernetes.io/scale-down-tolerance",
    "autoscaling.alpha.kubernetes.io/scale-up-tolerance",
];

/// An autoscaler of one version as one of the other.
pub fn convert_autoscaler(object: &mut Object, version: &str) {
    if object.api_version() != version {
        match version {
            V1 => to_v1(object),
            _ => to_v2(object),
        }
        object.set("apiVersion", version);
    }
}

fn member(object: &Object, path: &[&str]) -> Value {
    object.at(path).cloned().unwrap_or_default()
}

fn drop_own_annotations(object: &mut Object) {
    for key in OWN {
        object.remove_at(&["metadata", "annotations", key]);
    }
    if object.at(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        object.remove_at(&["metadata", "annotations"]);
    }
}

fn is_cpu(metric: &Value) -> bool {
    text(metric, "type") == "Resource" && text(get(metric, "resource"), "name") == "cpu"
}

fn to_v1(object: &mut Object) {
    drop_own_annotations(object);
    let mut notes: Vec<(&str, String)> = Vec::new();
    let list = |texts: Vec<String>| format!("[{}]", texts.join(","));
    let metrics = member(object, &["spec", "metrics"]);
    let metrics = metrics.as_array().map(Vec::as_slice).unwrap_or_default();
    let percent = |metric: &&Value| is_cpu(metric) && has(get(get(metric, "resource"), "target"), "averageUtilization");
    let others: Vec<String> = metrics.iter().filter(|metric| !percent(metric)).map(metric_text).collect();
    if !others.is_empty() {
        notes.push((METRICS, list(others)));
    }
    let cpu = metrics.iter().find(percent).map(|metric| get(get(metric, "resource"), "target"));
    let cpu = cpu.map(|target| get(target, "averageUtilization").clone());
    let current = member(object, &["status", "currentMetrics"]);
    let current = current.as_array().map(Vec::as_slice).unwrap_or_default();
    if !current.is_empty() {
        notes.push((CURRENT_METRICS, list(current.iter().map(status_text).collect())));
    }
    let utilization = |metric: &Value| int(get(get(metric, "resource"), "current"), "averageUtilization");
    let is = current.iter().filter(|metric| is_cpu(metric)).filter_map(utilization).next_back();
    let behavior = member(object, &["spec", "behavior"]);
    if behavior.is_object() {
        notes.push((BEHAVIOR, behavior_text(&behavior)));
    }
    let conditions = member(object, &["status", "conditions"]);
    if let Some(conditions) = conditions.as_array().filter(|conditions| !conditions.is_empty()) {
        let condition = |condition: &Value| {
            let keys = ["type", "status", "lastTransitionTime", "reason", "message"];
            braces(keys.map(|key| (key, some(get(condition, key)))))
        };
        notes.push((CONDITIONS, list(conditions.iter().map(condition).collect())));
    }
    for (key, note) in notes {
        object.set_at(&["metadata", "annotations", key], note);
    }
    object.remove_at(&["spec", "metrics"]);
    object.remove_at(&["spec", "behavior"]);
    if let Some(cpu) = cpu {
        object.set_at(&["spec", "targetCPUUtilizationPercentage"], cpu);
    }
    if object.get("status").is_some_and(Value::is_object) {
        object.remove_at(&["status", "currentMetrics"]);
        object.remove_at(&["status", "conditions"]);
        if let Some(is) = is {
            object.set_at(&["status", "currentCPUUtilizationPercentage"], is);
        }
        for key in ["currentReplicas", "desiredReplicas"] {
            if object.at(&["status", key]).is_none() {
                object.set_at(&["status", key], 0);
            }
        }
    }
}

fn to_v2(object: &mut Object) {
    let note = |key: &str| -> Option<Value> { serde_json::from_str(object.annotation(key)?).ok() };
    let listed = |key: &str| note(key).filter(Value::is_array);
    let cpu = object.at(&["spec", "targetCPUUtilizationPercentage"]).and_then(Value::as_i64);
    let mut metrics: Vec<Value> =
        listed(METRICS).iter().flat_map(|metrics| metrics.as_array().into_iter().flatten()).map(metric_of_v1).collect();
    metrics.extend(cpu.map(cpu_metric));
    if metrics.is_empty() {
        metrics.push(cpu_metric(super::DEFAULT_CPU));
    }
    let behavior = note(BEHAVIOR)
        .map(|behavior| from_go(&behavior))
        .filter(|behavior| ["scaleUp", "scaleDown"].iter().any(|key| has(behavior, key)));
    let is = object.at(&["status", "currentCPUUtilizationPercentage"]).and_then(Value::as_i64);
    let current = match listed(CURRENT_METRICS) {
        Some(current) => Some(current.as_array().into_iter().flatten().map(status_of_v1).collect::<Vec<_>>()),
        None => is.map(|is| {
            vec![json!({"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": is}}})]
        }),
    };
    let conditions = listed(CONDITIONS);
    drop_own_annotations(object);
    object.remove_at(&["spec", "targetCPUUtilizationPercentage"]);
    object.set_at(&["spec", "metrics"], Value::Array(metrics));
    if let Some(behavior) = behavior {
        object.set_at(&["spec", "behavior"], behavior);
    }
    if object.get("status").is_some_and(Value::is_object) {
        object.remove_at(&["status", "currentCPUUtilizationPercentage"]);
        object.set_at(&["status", "currentMetrics"], current.map_or(Value::Null, Value::Array));
        if let Some(conditions) = conditions {
            object.set_at(&["status", "conditions"], conditions);
        }
        if object.at(&["status", "currentReplicas"]).and_then(Value::as_i64) == Some(0) {
            object.remove_at(&["status", "currentReplicas"]);
        }
    }
}

/// JSON as Go writes it.
fn go_json(value: &Value) -> String {
    value.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// A member that is there and not empty.
fn some(value: &Value) -> Option<String> {
    (!value.is_null() && *value != "").then(|| go_json(value))
}

/// A map with those of its members that are there.
fn braces<const N: usize>(members: [(&str, Option<String>); N]) -> String {
    let shown = members.into_iter().filter_map(|(key, value)| Some(format!("\"{key}\":{}", value?)));
    format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
}

fn selector_text(selector: &Value) -> Option<String> {
    selector.is_object().then(|| {
        let expression = |item: &Value| braces(["key", "operator", "values"].map(|key| (key, some(get(item, key)))));
        let expressions: Vec<_> = items(selector, "matchExpressions").iter().map(expression).collect();
        let expressions = (!expressions.is_empty()).then(|| format!("[{}]", expressions.join(",")));
        braces([("matchLabels", some(get(selector, "matchLabels"))), ("matchExpressions", expressions)])
    })
}

fn reference_text(reference: &Value) -> String {
    let kept = |key| Some(go_json(&text(reference, key).into()));
    braces([("kind", kept("kind")), ("name", kept("name")), ("apiVersion", some(get(reference, "apiVersion")))])
}

/// A quantity that Go always writes.
fn amount(value: &Value) -> Option<String> {
    Some(some(value).unwrap_or_else(|| "\"0\"".to_owned()))
}

fn quoted(value: &Value, key: &str) -> Option<String> {
    Some(go_json(&text(value, key).into()))
}

/// A metric of v2 as v1 writes it.
fn metric_text(metric: &Value) -> String {
    let source = |key: &str, show: fn(&Value) -> String| Some(get(metric, key)).filter(|it| it.is_object()).map(show);
    braces([
        ("type", quoted(metric, "type")),
        (
            "object",
            source("object", |it| {
                let (target, metric) = (get(it, "target"), get(it, "metric"));
                braces([
                    ("target", Some(reference_text(get(it, "describedObject")))),
                    ("metricName", quoted(metric, "name")),
                    ("targetValue", amount(get(target, "value"))),
                    ("selector", selector_text(get(metric, "selector"))),
                    ("averageValue", some(get(target, "averageValue"))),
                ])
            }),
        ),
        (
            "pods",
            source("pods", |it| {
                let (target, metric) = (get(it, "target"), get(it, "metric"));
                braces([
                    ("metricName", quoted(metric, "name")),
                    ("targetAverageValue", amount(get(target, "averageValue"))),
                    ("selector", selector_text(get(metric, "selector"))),
                ])
            }),
        ),
        (
            "resource",
            source("resource", |it| {
                let target = get(it, "target");
                braces([
                    ("name", quoted(it, "name")),
                    ("targetAverageUtilization", some(get(target, "averageUtilization"))),
                    ("targetAverageValue", some(get(target, "averageValue"))),
                ])
            }),
        ),
        (
            "containerResource",
            source("containerResource", |it| {
                let target = get(it, "target");
                braces([
                    ("name", quoted(it, "name")),
                    ("targetAverageUtilization", some(get(target, "averageUtilization"))),
                    ("targetAverageValue", some(get(target, "averageValue"))),
                    ("container", quoted(it, "container")),
                ])
            }),
        ),
        (
            "external",
            source("external", |it| {
                let (target, metric) = (get(it, "target"), get(it, "metric"));
                braces([
                    ("metricName", quoted(metric, "name")),
                    ("metricSelector", selector_text(get(metric, "selector"))),
                    ("targetValue", some(get(target, "value"))),
                    ("targetAverageValue", some(get(target, "averageValue"))),
                ])
            }),
        ),
    ])
}

/// A metric's state of v2 as v1 writes it.
fn status_text(metric: &Value) -> String {
    let source = |key: &str, show: fn(&Value) -> String| Some(get(metric, key)).filter(|it| it.is_object()).map(show);
    let resource = |it: &Value| {
        let current = get(it, "current");
        braces([
            ("name", quoted(it, "name")),
            ("currentAverageUtilization", some(get(current, "averageUtilization"))),
            ("currentAverageValue", amount(get(current, "averageValue"))),
            ("container", some(get(it, "container"))),
        ])
    };
    braces([
        ("type", quoted(metric, "type")),
        (
            "object",
            source("object", |it| {
                let (current, metric) = (get(it, "current"), get(it, "metric"));
                braces([
                    ("target", Some(reference_text(get(it, "describedObject")))),
                    ("metricName", quoted(metric, "name")),
                    ("currentValue", amount(get(current, "value"))),
                    ("selector", selector_text(get(metric, "selector"))),
                    ("averageValue", some(get(current, "averageValue"))),
                ])
            }),
        ),
        (
            "pods",
            source("pods", |it| {
                let (current, metric) = (get(it, "current"), get(it, "metric"));
                braces([
                    ("metricName", quoted(metric, "name")),
                    ("currentAverageValue", amount(get(current, "averageValue"))),
                    ("selector", selector_text(get(metric, "selector"))),
                ])
            }),
        ),
        ("resource", source("resource", resource)),
        ("containerResource", source("containerResource", resource)),
        (
            "external",
            source("external", |it| {
                let (current, metric) = (get(it, "current"), get(it, "metric"));
                braces([
                    ("metricName", quoted(metric, "name")),
                    ("metricSelector", selector_text(get(metric, "selector"))),
                    ("currentValue", amount(get(current, "value"))),
                    ("currentAverageValue", some(get(current, "averageValue"))),
                ])
            }),
        ),
    ])
}

/// A map of those members that are there.
fn made<const N: usize>(members: [(&str, &Value); N]) -> Value {
    let there = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(there.map(|(key, value)| (key.to_owned(), value.clone())).collect())
}

/// The source of a metric that v1 writes: its key, the part named `target` or `current` in v2, and the rest.
fn of_v1(metric: &Value, target: impl Fn(&str, &Value) -> Value, part: &str) -> Value {
    let mut out = Map::new();
    out.insert("type".into(), text(metric, "type").into());
    for key in ["object", "pods", "resource", "containerResource", "external"] {
        let it = get(metric, key);
        if !it.is_object() {
            continue;
        }
        let selector = if key == "external" { get(it, "metricSelector") } else { get(it, "selector") };
        let named = made([("name", &text(it, "metricName").into()), ("selector", selector)]);
        let goal = target(key, it);
        let source = match key {
            "object" => made([("describedObject", get(it, "target")), ("metric", &named), (part, &goal)]),
            "pods" | "external" => made([("metric", &named), (part, &goal)]),
            "resource" => made([("name", get(it, "name")), (part, &goal)]),
            _ => made([("name", get(it, "name")), ("container", get(it, "container")), (part, &goal)]),
        };
        out.insert(key.into(), source);
    }
    Value::Object(out)
}

fn metric_of_v1(metric: &Value) -> Value {
    let target = |key: &str, it: &Value| {
        let (value, average) = (get(it, "targetValue"), get(it, "targetAverageValue"));
        let utilization = get(it, "targetAverageUtilization");
        let zero = json!("0");
        match key {
            "object" if get(it, "averageValue").is_null() => {
                made([("type", &"Value".into()), ("value", if value.is_null() { &zero } else { value })])
            }
            "object" => {
                let value = if *value == zero { &Value::Null } else { value };
                made([("type", &"AverageValue".into()), ("value", value), ("averageValue", get(it, "averageValue"))])
            }
            "pods" => {
                let average = if average.is_null() { &zero } else { average };
                made([("type", &"AverageValue".into()), ("averageValue", average)])
            }
            "external" => {
                let kind = if value.is_null() { "AverageValue" } else { "Value" };
                made([("type", &kind.into()), ("value", value), ("averageValue", average)])
            }
            _ => {
                let kind = if utilization.is_null() { "AverageValue" } else { "Utilization" };
                made([("type", &kind.into()), ("averageValue", average), ("averageUtilization", utilization)])
            }
        }
    };
    of_v1(metric, target, "target")
}

fn status_of_v1(metric: &Value) -> Value {
    let current = |key: &str, it: &Value| {
        let (value, average) = (get(it, "currentValue"), get(it, "currentAverageValue"));
        match key {
            "object" => made([("value", value), ("averageValue", get(it, "averageValue"))]),
            "pods" => made([("averageValue", average)]),
            "external" => made([("value", value), ("averageValue", average)]),
            _ => made([("averageValue", average), ("averageUtilization", get(it, "currentAverageUtilization"))]),
        }
    };
    of_v1(metric, current, "current")
}

fn behavior_text(behavior: &Value) -> String {
    let or_null = |text: Option<String>| Some(text.unwrap_or_else(|| "null".into()));
    let policy = |policy: &Value| {
        let number = |key| Some(int(policy, key).unwrap_or_default().to_string());
        braces([
            ("Type", quoted(policy, "type")),
            ("Value", number("value")),
            ("PeriodSeconds", number("periodSeconds")),
        ])
    };
    let rules = |key: &str| {
        let rules = get(behavior, key);
        rules.is_object().then(|| {
            let policies: Vec<_> = items(rules, "policies").iter().map(policy).collect();
            let policies = has(rules, "policies").then(|| format!("[{}]", policies.join(",")));
            braces([
                ("StabilizationWindowSeconds", or_null(some(get(rules, "stabilizationWindowSeconds")))),
                ("SelectPolicy", or_null(some(get(rules, "selectPolicy")))),
                ("Policies", or_null(policies)),
                ("Tolerance", or_null(some(get(rules, "tolerance")))),
            ])
        })
    };
    braces([("ScaleUp", or_null(rules("scaleUp"))), ("ScaleDown", or_null(rules("scaleDown")))])
}

/// A value with the names of Go's fields as one with names of JSON.
fn from_go(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let member = |(key, value): (&String, &Value)| {
                let mut letters = key.chars();
                let first = letters.next().map(|letter| letter.to_ascii_lowercase());
                (first.into_iter().chain(letters).collect::<String>(), from_go(value))
            };
            Value::Object(map.iter().filter(|(_, value)| !value.is_null()).map(member).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(from_go).collect()),
        other => other.clone(),
    }
}
