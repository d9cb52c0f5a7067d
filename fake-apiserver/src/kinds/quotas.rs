//! Limit ranges and resource quotas.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{
    pod::resources,
    util::{
        Errors, GoMember, as_quantity, complain, each_mut, get, go_struct, has, indexed, items, make_map, map_mut,
        members, round_amounts, text, texts,
    },
};
use crate::base::{FieldError, Object, names, quantity::Quantity};

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
        let field = format!("{path}.type");
        let complaints = names::qualified_name(kind);
        if complaints.is_empty()
            && !kind.contains('/')
            && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind)
        {
            let why = "must be a standard limit type or fully qualified";
            errors.push(FieldError::invalid(&field, &kind.into(), why));
        }
        complain(&mut errors, &field, kind, complaints);
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&field, &kind.into()));
        }
        seen.push(kind);
        limit_range_item(&mut errors, limit, kind, &path);
    }
    errors
}

fn limit_range_item(errors: &mut Errors, limit: &Value, kind: &str, path: &str) {
    let defaults = ["default", "defaultRequest"];
    for key in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        if kind == "Pod" && defaults.contains(&key) {
            if members(limit, key).next().is_some() {
                let why = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(&format!("{path}.{key}"), why));
            }
            continue;
        }
        if key == "maxLimitRequestRatio" && kind == "PersistentVolumeClaim" {
            let stored = |key: &str| get(get(limit, key), "storage").is_null();
            if stored("min") && stored("max") {
                let why = "either minimum or maximum storage value is required, but neither was provided";
                errors.push(FieldError::required(&format!("{path}.limits"), why));
            }
        }
        for (name, _) in members(limit, key) {
            let field = format!("{path}.{key}[{name}]");
            if ["Pod", "Container"].contains(&kind) {
                resources::validate_name(errors, name, &field);
            } else {
                resources::validate_any_name(errors, name, &field);
            }
        }
    }
    let amounts = |key: &str| -> BTreeMap<String, Quantity> {
        let of_pod = kind == "Pod" && defaults.contains(&key);
        let pairs = members(limit, key).filter(|_| !of_pod);
        pairs.filter_map(|(k, v)| Some((k.clone(), as_quantity(v)?))).collect()
    };
    let [min, max, default, request, ratio] =
        ["min", "max", "default", "defaultRequest", "maxLimitRequestRatio"].map(amounts);
    let names: BTreeSet<_> = [&min, &max, &default, &request, &ratio].into_iter().flat_map(BTreeMap::keys).collect();
    for name in names {
        let [min, max, default, request, ratio] = [&min, &max, &default, &request, &ratio].map(|map| map.get(name));
        // a low and a high amount with what they are called; the amount and the field that are shown
        let mut ordered =
            |low: (&str, Option<&Quantity>), high: (&str, Option<&Quantity>), key: &str, low_shown: bool| {
                if let (Some(least), Some(most)) = (low.1, high.1)
                    && least > most
                {
                    let why = format!("{} value {least} is greater than {} value {most}", low.0, high.0);
                    let shown = if low_shown { least } else { most };
                    errors.push(FieldError::invalid(&format!("{path}.{key}[{name}]"), &shown.to_string().into(), &why));
                }
            };
        ordered(("min", min), ("max", max), "min", true);
        ordered(("min", min), ("default request", request), "defaultRequest", false);
        ordered(("default request", request), ("max", max), "defaultRequest", true);
        ordered(("default request", request), ("default limit", default), "defaultRequest", true);
        ordered(("min", min), ("default", default), "default", true);
        ordered(("default", default), ("max", max), "default", false);
        if let Some(ratio) = ratio {
            limit_ratio(errors, ratio, min, max, &format!("{path}.maxLimitRequestRatio[{name}]"));
        }
        if let (Some(default), Some(request)) = (default, request)
            && !resources::is_overcommittable(name)
            && default != request
        {
            let why = format!("default value {default} must equal to defaultRequest value {request} in {name}");
            let field = format!("{path}.defaultRequest[{name}]");
            errors.push(FieldError::invalid(&field, &request.to_string().into(), &why));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "upstream computes the ratio in floating point, too")]
fn limit_ratio(errors: &mut Errors, ratio: &Quantity, min: Option<&Quantity>, max: Option<&Quantity>, field: &str) {
    let mut wrong = |why: &str| errors.push(FieldError::invalid(field, &ratio.to_string().into(), why));
    if *ratio < Quantity::whole(1) {
        wrong(&format!("ratio {ratio} is less than 1"));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let most = max.milli() as f64 / min.milli() as f64;
        if ratio.milli() as f64 / 1000.0 > most {
            wrong(&format!("ratio {ratio} is greater than max/min = {most:.6}"));
        }
    }
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
    let spec = get(&value, "spec");
    quota_amounts(&mut errors, spec, "spec", "hard");
    let names: Vec<&String> = members(spec, "hard").map(|(name, _)| name).collect();
    let scopes = texts(spec, "scopes");
    for scope in &scopes {
        let shown = get(spec, "scopes");
        if !SCOPES.contains(scope) {
            errors.push(FieldError::invalid("spec.scopes", shown, "unsupported scope"));
        }
        for name in &names {
            if resources::is_standard_quota(name) && !scope_fits(scope, name) {
                let why = "unsupported scope applied to resource";
                errors.push(FieldError::invalid("spec.scopes", shown, why));
            }
        }
    }
    conflicts(&mut errors, &scopes, get(spec, "scopes"), "spec.scopes");
    if has(spec, "scopeSelector") {
        scope_selector(&mut errors, spec, &names);
    }
    errors
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

fn quota_amounts(errors: &mut Errors, of: &Value, path: &str, key: &str) {
    for (name, amount) in members(of, key) {
        let field = format!("{path}.{key}[{name}]");
        quota_resource(errors, name, &field);
        if let Some(amount) = as_quantity(amount) {
            resources::validate_amount(errors, name, &amount, &field);
        }
    }
}

fn quota_resource(errors: &mut Errors, name: &str, field: &str) {
    resources::validate_any_name(errors, name, field);
    if !name.contains('/') && !resources::is_standard_quota(name) {
        errors.push(FieldError::invalid(field, &name.into(), "must be a standard resource for quota"));
    }
}

/// Whether a scope can be asked for a resource (`IsResourceQuotaScopeValidForResource`).
fn scope_fits(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            const COMPUTE: [&str; 10] = [
                "cpu",
                "memory",
                "ephemeral-storage",
                "limits.cpu",
                "limits.memory",
                "limits.ephemeral-storage",
                "requests.cpu",
                "requests.memory",
                "requests.ephemeral-storage",
                "pods",
            ];
            COMPUTE.contains(&name)
        }
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => ["persistentvolumeclaims", "requests.storage"].contains(&name),
        _ => true,
    }
}

fn conflicts(errors: &mut Errors, scopes: &[&str], shown: &Value, field: &str) {
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| scopes.contains(scope)) {
            errors.push(FieldError::invalid(field, shown, "conflicting scopes"));
        }
    }
}

fn scope_selector(errors: &mut Errors, spec: &Value, names: &[&String]) {
    const REQUIREMENT: [GoMember; 3] = [
        GoMember("ScopeName", "scopeName", "\"\"", &[]),
        GoMember("Operator", "operator", "\"\"", &[]),
        GoMember("Values", "values", "null", &[]),
    ];
    let path = "spec.scopeSelector.matchExpressions";
    let expressions = items(get(spec, "scopeSelector"), "matchExpressions");
    for expression in expressions {
        let (scope, operator) = (text(expression, "scopeName"), text(expression, "operator"));
        if !SCOPES.contains(&scope) {
            errors.push(FieldError::invalid(&format!("{path}.scopeName"), &scope.into(), "unsupported scope"));
        }
        for name in names {
            if resources::is_standard_quota(name) && !scope_fits(scope, name) {
                let list: Vec<_> = expressions.iter().map(|other| go_struct(other, &REQUIREMENT)).collect();
                let shown = format!("{{\"MatchExpressions\":[{}]}}", list.join(","));
                errors.push(FieldError::invalid_shown(path, &shown, "unsupported scope applied to resource"));
            }
        }
        let plain = SCOPES.contains(&scope) && !["PriorityClass", "VolumeAttributesClass"].contains(&scope);
        if plain && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, \
                       ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort \
                       or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(FieldError::invalid(&format!("{path}.operator"), &operator.into(), why));
        }
        let values = items(expression, "values");
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(FieldError::required(&format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.push(FieldError::invalid(&format!("{path}.values"), get(expression, "values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => {
                let why = "not a valid selector operator";
                errors.push(FieldError::invalid(&format!("{path}.operator"), &other.into(), why));
            }
        }
    }
    let scopes: Vec<_> = expressions.iter().map(|expression| text(expression, "scopeName")).collect();
    conflicts(errors, &scopes, get(spec, "scopes"), path);
}

pub(super) fn validate_resource_quota_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        let (mut errors, value) = (Vec::new(), new.to_value());
        quota_amounts(&mut errors, get(&value, "status"), "status", "hard");
        quota_amounts(&mut errors, get(&value, "status"), "status", "used");
        return errors;
    }
    let mut errors = validate_resource_quota(new);
    let scopes = |object: &Object| object.at(&["spec", "scopes"]).cloned().unwrap_or(Value::Null);
    let set = |value: &Value| value.as_array().into_iter().flatten().map(ToString::to_string).collect::<BTreeSet<_>>();
    if set(&scopes(new)) != set(&scopes(old)) {
        errors.push(FieldError::invalid("spec.scopes", &scopes(new), "field is immutable"));
    }
    errors
}
