//! Resource lists: names, amounts, and what a pod asks for in all.
//!
//! Upstream: `pkg/apis/core/validation/validation.go`, `k8s.io/component-helpers/resource`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::util::{Errors, NEGATIVE, as_quantity, child, complain, get, indexed, items, members, text};
use crate::base::{FieldError, names, quantity::Quantity};

/// Resources that a container can ask for by a name without a `/`.
const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Names that only quotas know.
const QUOTA_RESOURCES: [&str; 18] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
];

/// Whether a quota may name this resource.
pub(in super::super) fn is_standard_quota(name: &str) -> bool {
    QUOTA_RESOURCES.contains(&name)
        || name == "services.loadbalancers"
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// Whether a name without a `/` is of a resource that the system knows.
pub(in super::super) fn is_standard(name: &str) -> bool {
    is_standard_quota(name) || name == "storage"
}

/// Whether a quota counts this resource in whole numbers.
pub(in super::super) fn is_integer_quota(name: &str) -> bool {
    const WHOLE: [&str; 9] = [
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "persistentvolumeclaims",
        "configmaps",
        "services.nodeports",
        "services.loadbalancers",
    ];
    WHOLE.contains(&name) || is_extended(name)
}

/// Whether a name is Kubernetes' own.
pub fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether a name is of a device or such: qualified, and not Kubernetes' own.
pub fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Whether a container may get more of this than it asks for.
pub(in super::super) fn is_overcommittable(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// An amount may not be negative, and of whole things it must be whole.
pub(in super::super) fn validate_amount(errors: &mut Errors, name: &str, amount: &Quantity, field: &str) {
    let shown: Value = amount.to_string().into();
    if amount.is_negative() {
        errors.push(FieldError::invalid(field, &shown, NEGATIVE));
    }
    if is_integer_quota(name) && amount.is_fractional() {
        errors.push(FieldError::invalid(field, &shown, "must be an integer"));
    }
}

/// Huge pages come in whole pages (`validateResourceHugepages…`, `ValidateHugePagesValue`).
fn whole_pages(errors: &mut Errors, name: &str, amount: &Quantity, field: &str) {
    let page = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
    let Some(page) = page.filter(|page| page.value() > 0) else { return };
    if amount.value() % page.value() != 0 {
        let why = format!("{amount} is not positive integer multiple of {name}");
        errors.push(FieldError::invalid(field, &amount.to_string().into(), &why));
    }
}

/// Judges the name of a resource of any kind.
pub(in super::super) fn validate_any_name(errors: &mut Errors, name: &str, field: &str) {
    let complaints = names::qualified_name(name);
    let valid = complaints.is_empty();
    complain(errors, field, name, complaints);
    if valid && !name.contains('/') && !is_standard(name) {
        let why = "must be a standard resource type or fully qualified";
        errors.push(FieldError::invalid(field, &name.into(), why));
    }
}

/// Judges the name of a resource that containers ask for.
pub(in super::super) fn validate_name(errors: &mut Errors, name: &str, field: &str) {
    validate_any_name(errors, name, field);
    if !name.contains('/') {
        if !CONTAINER_RESOURCES.contains(&name) && !name.starts_with("hugepages-") {
            let why = "must be a standard resource for containers";
            errors.push(FieldError::invalid(field, &name.into(), why));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(FieldError::invalid(field, &name.into(), "doesn't follow extended resource name standard"));
    }
}

/// Judges the `resources` of a container, or a pod's overhead given as limits.
pub(in super::super) fn validate(errors: &mut Errors, resources: &Value, path: &str, claims: &[&str]) {
    let (limits, requests) = (child(path, "limits"), child(path, "requests"));
    let mut main = false; // hugepages need cpu or memory beside them
    let mut huge = false;
    for (name, amount) in members(resources, "limits") {
        let field = format!("{limits}[{name}]");
        validate_name(errors, name, &field);
        if let Some(amount) = as_quantity(amount) {
            validate_amount(errors, name, &amount, &field);
            whole_pages(errors, name, &amount, &field);
        }
        main |= matches!(name.as_str(), "cpu" | "memory");
        huge |= name.starts_with("hugepages-");
    }
    for (name, amount) in members(resources, "requests") {
        let field = format!("{requests}[{name}]");
        validate_name(errors, name, &field);
        main |= matches!(name.as_str(), "cpu" | "memory");
        huge |= name.starts_with("hugepages-");
        let Some(amount) = as_quantity(amount) else { continue };
        validate_amount(errors, name, &amount, &field);
        whole_pages(errors, name, &amount, &field);
        let limit = as_quantity(get(get(resources, "limits"), name));
        match limit {
            Some(limit) => {
                if amount != limit && !is_overcommittable(name) {
                    let why = format!("must be equal to {name} limit of {limit}");
                    errors.push(FieldError::invalid(&requests, &amount.to_string().into(), &why));
                } else if amount > limit {
                    let why = format!("must be less than or equal to {name} limit of {limit}");
                    errors.push(FieldError::invalid(&requests, &amount.to_string().into(), &why));
                }
            }
            None if !is_overcommittable(name) => {
                let why = "Limit must be set for non overcommitable resources";
                errors.push(FieldError::required(&limits, why));
            }
            None => {}
        }
    }
    if huge && !main {
        errors.push(FieldError::forbidden(path, "HugePages require cpu or memory"));
    }
    let mut seen = Vec::new();
    for (path, claim) in indexed(resources, path, "claims") {
        let (name, request) = (text(claim, "name"), text(claim, "request"));
        if name.is_empty() {
            errors.push(FieldError::required(&path, ""));
            continue;
        }
        let overlaps = |(known, part): &(&str, &str)| {
            *known == name && (part.is_empty() || request.is_empty() || *part == request)
        };
        if let Some((_, part)) = seen.iter().find(|known| overlaps(known)) {
            let whole = part.is_empty() || request.is_empty();
            let shown = if whole { name.to_owned() } else { format!("{name}/{request}") };
            errors.push(FieldError::duplicate(&path, &shown.into()));
        }
        seen.push((name, request));
        if !claims.contains(&name) {
            let mut known = claims.to_vec();
            known.sort_unstable();
            let list = if known.is_empty() { " which is empty".to_owned() } else { format!(": {}", known.join(", ")) };
            let mut error = FieldError::not_found(&path, &name.into());
            error.body.push_str(&format!(": must be one of the names in pod.spec.resourceClaims{list}"));
            errors.push(error);
        }
    }
}

/// Judges the `resources` of a pod as a whole, against those of its containers.
pub(super) fn validate_whole(errors: &mut Errors, spec: &Value, claims: &[&str], path: &str) {
    let resources = get(spec, "resources");
    if text(get(spec, "os"), "name") == "windows" {
        errors.push(FieldError::forbidden(path, "may not be set for a windows pod"));
        return;
    }
    if !get(resources, "claims").is_null() {
        let why = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(&child(path, "claims"), why));
    }
    let supported = |name: &str| ["cpu", "memory"].contains(&name) || name.starts_with("hugepages-");
    let mut plain = resources.clone();
    for kind in ["limits", "requests"] {
        for (name, _) in members(resources, kind).filter(|(name, _)| !supported(name)) {
            let field = format!("{path}.{kind}[{name}]");
            let known = ["cpu", "hugepages-", "memory"];
            errors.push(FieldError::not_supported(&field, &name.as_str().into(), &known));
            if let Some(amounts) = plain.get_mut(kind).and_then(Value::as_object_mut) {
                amounts.remove(name);
            }
        }
    }
    validate(errors, &plain, path, claims);
    let of_containers = {
        let mut spec = spec.clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("resources");
        }
        spec
    };
    let mut at_least = |kind: &str, noun: &str, which: &dyn Fn(&str) -> bool| {
        for (name, sum) in self::sum(&of_containers, kind, false).iter().filter(|(name, _)| which(name)) {
            let whole = as_quantity(get(get(resources, kind), name));
            if let Some(whole) = whole.filter(|whole| sum > whole) {
                let why = format!("must be greater than or equal to aggregate container {noun} of {sum}");
                let field = format!("{path}.{kind}[{name}]");
                errors.push(FieldError::invalid(&field, &whole.to_string().into(), &why));
            }
        }
    };
    at_least("requests", "requests", &|_| true);
    at_least("limits", "limits", &|name| name.starts_with("hugepages-"));
    for (path, container) in indexed(spec, path, "containers") {
        for (name, amount) in members(get(container, "resources"), "limits") {
            let whole = as_quantity(get(get(resources, "limits"), name));
            if let (Some(amount), Some(whole)) = (as_quantity(amount), whole)
                && amount > whole
            {
                let why = format!("must be less than or equal to pod limits of {whole}");
                let field = format!("{path}[{name}].limits");
                errors.push(FieldError::invalid(&field, &amount.to_string().into(), &why));
            }
        }
    }
}

/// What a pod's spec asks for in all (`requests` or `limits`): its containers' sum, or what an init container needs
/// beside the sidecars before it, whichever is more; with its overhead if wanted.
pub fn sum(spec: &Value, kind: &str, overhead: bool) -> BTreeMap<String, Quantity> {
    let of = |container: &Value| -> BTreeMap<String, Quantity> {
        let amounts = members(get(container, "resources"), kind);
        amounts.filter_map(|(name, amount)| Some((name.clone(), as_quantity(amount)?))).collect()
    };
    let mut total = BTreeMap::new();
    for container in items(spec, "containers") {
        add(&mut total, of(container));
    }
    let (mut sidecars, mut peak) = (BTreeMap::new(), BTreeMap::new());
    for container in items(spec, "initContainers") {
        let mut now = of(container);
        if text(container, "restartPolicy") == "Always" {
            add(&mut total, now.clone());
            add(&mut sidecars, now);
            now = sidecars.clone();
        } else {
            add(&mut now, sidecars.clone());
        }
        largest(&mut peak, now);
    }
    largest(&mut total, peak);
    let whole = members(get(spec, "resources"), kind);
    for (name, amount) in whole.filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")) {
        if let Some(amount) = as_quantity(amount) {
            total.insert(name.clone(), amount);
        }
    }
    if overhead {
        let extra = members(spec, "overhead").filter_map(|(name, amount)| Some((name.clone(), as_quantity(amount)?)));
        let extra: BTreeMap<_, _> = extra.filter(|(name, _)| kind == "requests" || total.contains_key(name)).collect();
        add(&mut total, extra);
    }
    total
}

fn add(total: &mut BTreeMap<String, Quantity>, amounts: BTreeMap<String, Quantity>) {
    for (name, amount) in amounts {
        let sum = total.get(&name).map_or_else(|| amount.clone(), |sum| sum.plus(&amount));
        total.insert(name, sum);
    }
}

fn largest(total: &mut BTreeMap<String, Quantity>, amounts: BTreeMap<String, Quantity>) {
    for (name, amount) in amounts {
        if total.get(&name).is_none_or(|sum| *sum < amount) {
            total.insert(name, amount);
        }
    }
}
