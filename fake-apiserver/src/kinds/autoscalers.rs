//! Autoscalers, in both of their versions. What v2 says and v1 has no member for stands in annotations there.
//!
//! Upstream: `pkg/apis/autoscaling` (`v1/conversion.go`, `v2/defaults.go`, `validation/validation.go`) and its strategy.

use serde_json::{Map, Value, json};

use super::{
    pod::resources,
    util::{
        Errors, as_quantity, child, complain, default_to, get, has, indexed, int, items, make_map, map_mut, required,
        text,
    },
    workloads::{empty_status, fill, spec},
};
use crate::base::{FieldError, Object, names};

mod conversion;

pub use self::conversion::convert_autoscaler;

const V1: &str = "autoscaling/v1";
const V2: &str = "autoscaling/v2";

/// Percents of CPU that an autoscaler aims at where it says nothing.
const DEFAULT_CPU: i64 = 80;

pub(super) fn default_autoscaler(object: &mut Object) {
    if object.api_version() != V1 {
        return default_v2(object);
    }
    // Upstream stores v2: what is written as v1 is shown as it comes back from there.
    convert_autoscaler(object, V2);
    default_v2(object);
    convert_autoscaler(object, V1);
}

fn cpu_metric(percent: i64) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

fn default_v2(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "minReplicas", 1);
    if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        spec.insert("metrics".into(), json!([cpu_metric(DEFAULT_CPU)]));
    }
    if let Some(behavior) = map_mut(spec, "behavior") {
        for key in ["scaleUp", "scaleDown"] {
            default_rules(make_map(behavior, key), key == "scaleUp");
        }
    }
    empty_status(object, &json!({"currentMetrics": null, "desiredReplicas": 0}));
}

fn default_rules(rules: &mut Map<String, Value>, up: bool) {
    if up {
        fill(rules, "stabilizationWindowSeconds", 0);
    }
    default_to(rules, "selectPolicy", "Max");
    if rules.get("policies").is_none_or(Value::is_null) {
        let mut policies = vec![json!({"type": "Percent", "value": 100, "periodSeconds": 15})];
        if up {
            policies.insert(0, json!({"type": "Pods", "value": 4, "periodSeconds": 15}));
        }
        rules.insert("policies".into(), policies.into());
    }
}

pub(super) fn create_autoscaler(object: &mut Object) {
    object.remove("status");
    default_autoscaler(object);
}

/// An autoscaler as v2 says it, which is what the rules speak of.
fn as_v2(object: &Object) -> Value {
    let mut object = object.clone();
    if object.api_version() == V1 {
        convert_autoscaler(&mut object, V2);
    }
    object.into_value()
}

/// Which references to other objects may have an `apiVersion` without a group, or none that can be read.
#[derive(Clone, Copy)]
struct Lenience {
    no_group: bool,
    anything: bool,
}

pub(super) fn validate_autoscaler(object: &Object) -> Errors {
    validate_spec(get(&as_v2(object), "spec"), false, false)
}

pub(super) fn validate_autoscaler_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    let new = as_v2(new);
    if subresource == "status" {
        let mut errors = Vec::new();
        for key in ["currentReplicas", "desiredReplicas"] {
            super::util::not_negative(&mut errors, get(&new, "status"), "status", key);
        }
        return errors;
    }
    // what was wrong before may stay so
    let old = as_v2(old);
    let old = get(&old, "spec");
    let target = api_version_error(get(old, "scaleTargetRef"), false).is_some();
    let described = |metric: &Value| get(get(metric, "object"), "describedObject").clone();
    let objects = items(old, "metrics").iter().filter(|metric| has(metric, "object"));
    let object = objects.map(described).any(|reference| api_version_error(&reference, true).is_some());
    validate_spec(get(&new, "spec"), target, object)
}

fn validate_spec(spec: &Value, any_target: bool, any_object: bool) -> Errors {
    let mut errors = Vec::new();
    let (min, max) = (int(spec, "minReplicas"), int(spec, "maxReplicas").unwrap_or_default());
    if let Some(min) = min.filter(|min| *min < 1) {
        let why = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.minReplicas", &min.into(), why));
    }
    if max == 0 {
        errors.push(FieldError::required("spec.maxReplicas", "must be set and greater than 0"));
    } else if max < 0 {
        let why = "must be greater than or equal to 1";
        errors.push(FieldError::invalid("spec.maxReplicas", &max.into(), why));
    }
    if min.is_some_and(|min| max < min) {
        let why = "must be greater than or equal to `minReplicas`";
        errors.push(FieldError::invalid("spec.maxReplicas", &max.into(), why));
    }
    let lenience = Lenience { no_group: false, anything: any_target };
    reference(&mut errors, get(spec, "scaleTargetRef"), "spec.scaleTargetRef", lenience);
    for (path, metric) in indexed(spec, "spec", "metrics") {
        validate_metric(&mut errors, metric, &path, Lenience { no_group: true, anything: any_object });
    }
    let outside = |metric: &Value| ["Object", "External"].contains(&text(metric, "type"));
    if min == Some(0) && !items(spec, "metrics").iter().any(outside) {
        let why = "must specify at least one Object or External metric to support scaling to zero replicas";
        errors.push(FieldError::forbidden("spec.metrics", why));
    }
    for key in ["scaleUp", "scaleDown"] {
        let rules = get(get(spec, "behavior"), key);
        if rules.is_object() {
            validate_rules(&mut errors, rules, &format!("spec.behavior.{key}"));
        }
    }
    errors
}

fn api_version_error(reference: &Value, no_group: bool) -> Option<String> {
    let given = text(reference, "apiVersion");
    if given.matches('/').count() > 1 {
        return Some(format!("unexpected GroupVersion string: {given}"));
    }
    let (group, _) = names::split_api_version(given);
    (group.is_empty() && !no_group).then(|| "apiVersion must specify API group".to_owned())
}

/// Upstream's `ValidateCrossVersionObjectReference`.
fn reference(errors: &mut Errors, reference: &Value, path: &str, lenience: Lenience) {
    for key in ["kind", "name"] {
        if required(errors, reference, path, key) {
            let name = text(reference, key);
            complain(errors, &child(path, key), name, names::path_segment(name, false));
        }
    }
    if let Some(why) = api_version_error(reference, lenience.no_group).filter(|_| !lenience.anything) {
        let given = text(reference, "apiVersion");
        errors.push(FieldError::invalid(&child(path, "apiVersion"), &given.into(), &why));
    }
}

/// The sources of metrics in upstream's order, with the type that each belongs to.
const SOURCES: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

fn validate_metric(errors: &mut Errors, metric: &Value, path: &str, lenience: Lenience) {
    const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
    let kind = text(metric, "type");
    let field = child(path, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(&field, "must specify a metric source type"));
    }
    let known = TYPES.contains(&kind);
    if !known {
        errors.push(FieldError::not_supported(&field, &kind.into(), &TYPES));
    }
    let given: Vec<&str> = SOURCES.iter().map(|(key, _)| *key).filter(|key| get(metric, key).is_object()).collect();
    if let Some(first) = given.first() {
        validate_source(errors, first, get(metric, first), &child(path, first), lenience);
    }
    let own = SOURCES.iter().find(|(_, own)| *own == kind).map(|(key, _)| *key);
    match own {
        Some(own) if !given.contains(&own) => {
            let why = "must populate information for the given metric source";
            errors.push(FieldError::required(&child(path, own), why));
        }
        Some(_) => {}
        None => errors.push(FieldError::not_supported(&field, &kind.into(), &TYPES)),
    }
    if given.len() > 1 {
        let why = "must populate the given metric source only";
        let others = given.iter().filter(|key| Some(**key) != own);
        errors.extend(others.map(|key| FieldError::forbidden(&child(path, key), why)));
    }
}

fn validate_source(errors: &mut Errors, key: &str, source: &Value, path: &str, lenience: Lenience) {
    let target = get(source, "target");
    let at = |member: &str| format!("{path}.target.{member}");
    if key == "object" {
        reference(errors, get(source, "describedObject"), &child(path, "describedObject"), lenience);
    }
    match key {
        "object" | "external" | "pods" => {
            let (metric, field) = (get(source, "metric"), format!("{path}.metric.name"));
            match text(metric, "name") {
                "" => errors.push(FieldError::required(&field, "must specify a metric name")),
                name => complain(errors, &field, name, names::path_segment(name, false)),
            }
        }
        _ => {
            let name = text(source, "name");
            if name.is_empty() {
                errors.push(FieldError::required(&child(path, "name"), "must specify a resource name"));
            } else if key == "containerResource" {
                resources::validate_name(errors, name, &child(path, "name"));
            }
            if key == "containerResource" {
                match text(source, "container") {
                    "" => errors.push(FieldError::required(&child(path, "container"), "must specify a container")),
                    name => complain(errors, &child(path, "container"), name, names::dns1123_label(name)),
                }
            }
        }
    }
    validate_target(errors, target, &child(path, "target"));
    let (value, average) = (has(target, "value"), has(target, "averageValue"));
    let utilization = has(target, "averageUtilization");
    match key {
        "object" if !value && !average => {
            let why = "must set either a target value or averageValue";
            errors.push(FieldError::required(&at("averageValue"), why));
        }
        "external" if !value && !average => {
            let why = "must set either a target value for metric or a per-pod target";
            errors.push(FieldError::required(&at("averageValue"), why));
        }
        "external" if value && average => {
            let why = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(&at("value"), why));
        }
        "pods" if !average => {
            let why = "must specify a positive target averageValue";
            errors.push(FieldError::required(&at("averageValue"), why));
        }
        "resource" | "containerResource" if !utilization && !average => {
            let why = "must set either a target raw value or a target utilization";
            errors.push(FieldError::required(&at("averageUtilization"), why));
        }
        "resource" | "containerResource" if utilization && average => {
            let why = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(&at("averageValue"), why));
        }
        _ => {}
    }
}

fn validate_target(errors: &mut Errors, target: &Value, path: &str) {
    let kind = text(target, "type");
    if kind.is_empty() {
        errors.push(FieldError::required(&child(path, "type"), "must specify a metric target type"));
    }
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let why = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(&child(path, "type"), &kind.into(), why));
    }
    for key in ["value", "averageValue"] {
        let amount = as_quantity(get(target, key));
        if amount.is_some_and(|amount| amount.is_zero() || amount.is_negative()) {
            errors.push(FieldError::invalid(&child(path, key), get(target, key), "must be positive"));
        }
    }
    if let Some(percent) = int(target, "averageUtilization").filter(|percent| *percent < 1) {
        let field = child(path, "averageUtilization");
        errors.push(FieldError::invalid(&field, &percent.into(), "must be greater than 0"));
    }
}

fn validate_rules(errors: &mut Errors, rules: &Value, path: &str) {
    const MOST_SECONDS: i64 = 3600;
    const SELECT: [&str; 3] = ["Disabled", "Max", "Min"];
    let (key, field) = ("stabilizationWindowSeconds", child(path, "stabilizationWindowSeconds"));
    match int(rules, key) {
        Some(seconds) if seconds < 0 => {
            errors.push(FieldError::invalid(&field, &seconds.into(), "must be greater than or equal to zero"));
        }
        Some(seconds) if seconds > MOST_SECONDS => {
            let why = format!("must be less than or equal to {MOST_SECONDS}");
            errors.push(FieldError::invalid(&field, &seconds.into(), &why));
        }
        Some(_) | None => {}
    }
    super::util::one_of(errors, rules, path, "selectPolicy", &SELECT, false);
    if items(rules, "policies").is_empty() {
        errors.push(FieldError::required(&child(path, "policies"), "must specify at least one Policy"));
    }
    for (path, policy) in indexed(rules, path, "policies") {
        validate_policy(errors, policy, &path);
    }
    if as_quantity(get(rules, "tolerance")).is_some_and(|tolerance| tolerance.is_negative()) {
        let field = child(path, "tolerance");
        errors.push(FieldError::invalid(&field, get(rules, "tolerance"), super::util::NEGATIVE));
    }
}

fn validate_policy(errors: &mut Errors, policy: &Value, path: &str) {
    const MOST_SECONDS: i64 = 1800;
    const TYPES: [&str; 2] = ["Percent", "Pods"];
    let kind = text(policy, "type");
    if !TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(&child(path, "type"), &kind.into(), &TYPES));
    }
    for key in ["value", "periodSeconds"] {
        let number = int(policy, key).unwrap_or_default();
        if number <= 0 {
            errors.push(FieldError::invalid(&child(path, key), &number.into(), "must be greater than zero"));
        }
        if key == "periodSeconds" && number > MOST_SECONDS {
            let why = format!("must be less than or equal to {MOST_SECONDS}");
            errors.push(FieldError::invalid(&child(path, key), &number.into(), &why));
        }
    }
}
