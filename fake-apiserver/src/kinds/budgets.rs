//! Disruption budgets.
//!
//! Upstream: `pkg/apis/policy` and its strategy.

use serde_json::{Value, json};

use super::{
    meta,
    util::{Errors, get, has, not_negative, one_of},
    workloads::{empty_status, share},
};
use crate::base::{FieldError, Object};

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
