//! Autoscalers and disruption budgets, which speak of workloads.
//!
//! Upstream: `pkg/apis/{autoscaling,policy}` and their strategies.

use serde_json::{Value, json};

use super::{
    meta,
    util::{
        Errors, complain, default_to, get, has, indexed, int, make_map, map_mut, not_negative, one_of, required, text,
    },
    workloads::{empty_status, fill, share, spec},
};
use crate::base::{FieldError, Object, names};

pub(super) fn default_autoscaler(object: &mut Object) {
    let new = object.api_version() != "autoscaling/v1";
    let spec = spec(object);
    fill(spec, "minReplicas", 1);
    let none = spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty);
    if new && none {
        let target = json!({"type": "Utilization", "averageUtilization": 80});
        let metric = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        spec.insert("metrics".into(), json!([metric]));
    } else if !new {
        fill(spec, "targetCPUUtilizationPercentage", 80);
    }
    if let Some(behavior) = map_mut(spec, "behavior") {
        let rules = [("scaleUp", 0, 4), ("scaleDown", 300, 0)];
        for (key, window, pods) in rules {
            let rules = make_map(behavior, key);
            if key == "scaleUp" {
                fill(rules, "stabilizationWindowSeconds", window);
            }
            default_to(rules, "selectPolicy", "Max");
            if rules.get("policies").and_then(Value::as_array).is_none_or(Vec::is_empty) {
                let mut policies = Vec::new();
                if pods > 0 {
                    policies.push(json!({"type": "Pods", "value": pods, "periodSeconds": 15}));
                }
                policies.push(json!({"type": "Percent", "value": 100, "periodSeconds": 15}));
                rules.insert("policies".into(), policies.into());
            }
        }
    }
    let status = if new {
        json!({"currentMetrics": null, "desiredReplicas": 0})
    } else {
        json!({"currentReplicas": 0, "desiredReplicas": 0})
    };
    empty_status(object, &status);
}

pub(super) fn create_autoscaler(object: &mut Object) {
    object.remove("status");
    default_autoscaler(object);
}

pub(super) fn validate_autoscaler(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
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
    for key in ["kind", "name"] {
        let target = get(spec, "scaleTargetRef");
        if required(&mut errors, target, "spec.scaleTargetRef", key) {
            let name = text(target, key);
            complain(&mut errors, &format!("spec.scaleTargetRef.{key}"), name, names::path_segment(name, false));
        }
    }
    for (path, metric) in indexed(spec, "spec", "metrics") {
        let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
        one_of(&mut errors, metric, &path, "type", &known, true);
    }
    errors
}

pub(super) fn validate_autoscaler_update(new: &Object, _: &Object, subresource: &str) -> Errors {
    if subresource == "status" { Vec::new() } else { validate_autoscaler(new) }
}

pub(super) fn default_budget(object: &mut Object) {
    empty_status(object, &budget_status());
}

fn budget_status() -> Value {
    json!({"disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0, "expectedPods": 0})
}

pub(super) fn create_budget(object: &mut Object) {
    object.set("status", budget_status());
}

pub(super) fn validate_budget(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
        let why = "minAvailable and maxUnavailable cannot be both set";
        // upstream shows its internal type
        let shown = format!(
            r#"{{"MinAvailable":{},"Selector":{},"MaxUnavailable":{},"UnhealthyPodEvictionPolicy":{}}}"#,
            get(spec, "minAvailable"),
            get(spec, "selector"),
            get(spec, "maxUnavailable"),
            get(spec, "unhealthyPodEvictionPolicy")
        );
        errors.push(FieldError::invalid_shown("spec", &shown, why));
    }
    for key in ["minAvailable", "maxUnavailable"].into_iter().filter(|key| has(spec, key)) {
        share(&mut errors, spec, "spec", key, true);
    }
    meta::label_selector(&mut errors, get(spec, "selector"), "spec.selector");
    let known = ["AlwaysAllow", "IfHealthyBudget"];
    one_of(&mut errors, spec, "spec", "unhealthyPodEvictionPolicy", &known, false);
    errors
}

pub(super) fn validate_budget_update(new: &Object, _: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        let (mut errors, value) = (Vec::new(), new.to_value());
        for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
            not_negative(&mut errors, get(&value, "status"), "status", key);
        }
        meta::conditions(&mut errors, get(&value, "status"), "status");
        return errors;
    }
    validate_budget(new)
}
