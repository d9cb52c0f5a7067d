//! Limit ranges and resource quotas.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    pod::resources,
    util::{
        Errors, NEGATIVE, as_quantity, complain, each_mut, get, immutable, indexed, make_map, map_mut, members,
        round_amounts, text, texts,
    },
};
use crate::base::{
    FieldError, Object,
    names::{self, Complaints},
    quantity::Quantity,
};

pub(super) fn default_limit_range(object: &mut Object) {
    let Some(spec) = map_mut(object.as_map_mut(), "spec") else { return };
    each_mut(spec, "limits", |item| {
        for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
            round_amounts(item, key);
        }
        if item.get("type").and_then(Value::as_str) != Some("Container") {
            return;
        }
        // what is not given follows from what is: default from max, the default request from the default, then from min
        let fill = |item: &mut Map<String, Value>, to: &str, from: &str| {
            for (name, amount) in item.get(from).and_then(Value::as_object).cloned().into_iter().flatten() {
                make_map(item, to).entry(name).or_insert(amount);
            }
        };
        fill(item, "default", "max");
        fill(item, "defaultRequest", "default");
        fill(item, "defaultRequest", "min");
    });
}

pub(super) fn validate_limit_range(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let mut seen = Vec::new();
    for (path, limit) in indexed(get(&value, "spec"), "spec", "limits") {
        let kind = text(limit, "type");
        complain(&mut errors, &format!("{path}.type"), kind, names::qualified_name(kind));
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&format!("{path}.type"), &kind.into()));
        }
        seen.push(kind);
        let amounts = |key: &str| -> BTreeMap<String, _> {
            members(limit, key).filter_map(|(k, v)| Some((k.clone(), as_quantity(v)?))).collect()
        };
        let [min, max, default, request] = ["min", "max", "default", "defaultRequest"].map(amounts);
        if kind == "Pod" {
            for key in ["default", "defaultRequest"].iter().filter(|key| members(limit, key).next().is_some()) {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&format!("{path}.{key}"), why));
            }
        }
        if kind == "PersistentVolumeClaim" && !min.contains_key("storage") && !max.contains_key("storage") {
            let why = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(FieldError::required(&format!("{path}.limits"), why));
        }
        let mut compare = |low: (&str, &BTreeMap<String, _>), high: (&str, &BTreeMap<String, _>)| {
            let (low_name, lows): (&str, &BTreeMap<String, Quantity>) = low;
            let (high_name, highs): (&str, &BTreeMap<String, Quantity>) = high;
            for (name, low) in lows {
                if let Some(high) = highs.get(name).filter(|high| low > high) {
                    let field = format!("{path}.{low_name}[{name}]");
                    let shown = |key: &str| match key {
                        "defaultRequest" => "default request".to_owned(),
                        other => other.to_owned(),
                    };
                    let why =
                        format!("{} value {low} is greater than {} value {high}", shown(low_name), shown(high_name));
                    errors.push(FieldError::invalid(&field, &low.to_string().into(), &why));
                }
            }
        };
        compare(("min", &min), ("max", &max));
        compare(("defaultRequest", &request), ("max", &max));
        compare(("defaultRequest", &request), ("default", &default));
        compare(("default", &default), ("max", &max));
    }
    errors
}

pub(super) fn default_resource_quota(object: &mut Object) {
    if let Some(spec) = map_mut(object.as_map_mut(), "spec") {
        round_amounts(spec, "hard");
    }
    let status = make_map(object.as_map_mut(), "status");
    round_amounts(status, "hard");
    round_amounts(status, "used");
}

pub(super) fn validate_resource_quota(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    for (name, amount) in members(get(&value, "spec"), "hard") {
        let field = format!("spec.hard[{name}]");
        complain(&mut errors, &field, name, quota_resource(name));
        if let Some(amount) = as_quantity(amount) {
            if amount.is_negative() {
                let why = NEGATIVE;
                errors.push(FieldError::invalid(&field, &amount.to_string().into(), why));
            }
            if resources::is_integer_quota(name) && !amount.is_whole() {
                errors.push(FieldError::invalid(&field, &amount.to_string().into(), "must be an integer"));
            }
        }
    }
    let scopes =
        ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
    for scope in texts(get(&value, "spec"), "scopes").into_iter().filter(|scope| !scopes.contains(scope)) {
        errors.push(FieldError::invalid("spec.scopes", &scope.into(), "unsupported scope"));
    }
    errors
}

fn quota_resource(name: &str) -> Complaints {
    let complaints = names::qualified_name(name);
    let standard = name.contains('/') || resources::is_standard_quota(name);
    if complaints.is_empty() && !standard {
        return vec!["must be a standard resource for quota".into()];
    }
    complaints
}

pub(super) fn validate_resource_quota_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return Vec::new();
    }
    let mut errors = validate_resource_quota(new);
    let scopes = |object: &Object| object.at(&["spec", "scopes"]).cloned().unwrap_or(Value::Null);
    immutable(&mut errors, &scopes(new), &scopes(old), "spec.scopes");
    errors
}
