//! `LimitRanger`: what a namespace's LimitRanges fill into pods, and what they refuse.
//!
//! Upstream: `plugin/pkg/admission/limitranger/admission.go`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Attributes, Operation, View};
use crate::{
    base::{
        Object, Status, Stored,
        quantity::Quantity,
        value::{as_quantity, get, items, members, text},
    },
    kinds::resources,
};

type Amounts = BTreeMap<String, Quantity>;

/// Beyond this amounts are compared in whole numbers and not in thousandths (`resource.MaxMilliValue`).
const MAX_MILLI: i64 = i64::MAX / 1000;

/// The annotation that tells of what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The limit ranges that a write meets.
fn ranges(attributes: &Attributes<'_>, view: View<'_>) -> Vec<Arc<Stored>> {
    let create = attributes.operation == Operation::Create;
    let concerned = match (attributes.group, attributes.resource, attributes.subresource) {
        ("", "pods", "") => create,
        ("", "pods", "resize") => !create,
        ("", "persistentvolumeclaims", "") => true,
        _ => false,
    };
    if !concerned || attributes.old.is_some_and(Object::is_deleting) {
        return Vec::new();
    }
    view.list("limitranges", attributes.namespace)
}

fn limits(range: &Stored) -> impl Iterator<Item = &Value> {
    range.at(&["spec", "limits"]).and_then(Value::as_array).into_iter().flatten()
}

/// Fills in requests and limits that containers do not give.
pub(super) fn fill(attributes: &Attributes<'_>, pod: &mut Object, view: View<'_>) {
    if attributes.resource != "pods" {
        return;
    }
    for range in ranges(attributes, view) {
        let defaults = |key: &str| -> Map<String, Value> {
            let of_containers = limits(&range).filter(|limit| text(limit, "type") == "Container");
            of_containers.flat_map(|limit| members(limit, key)).map(|(k, v)| (k.clone(), v.clone())).collect()
        };
        let (requests, limits) = (defaults("defaultRequest"), defaults("default"));
        let mut told = Vec::new();
        for (list, noun) in [("containers", "container"), ("initContainers", "init container")] {
            let Some(containers) = pod.as_map_mut().get_mut("spec").and_then(|spec| spec.get_mut(list)) else {
                continue;
            };
            for container in containers.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                let name = container.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
                for (key, word, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                    let set = merge(container, key, defaults);
                    if !set.is_empty() {
                        told.push(format!("{} {word} for {noun} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !told.is_empty() {
            let text = format!("LimitRanger plugin set: {}", told.join("; "));
            pod.set_at(&["metadata", "annotations", ANNOTATION], text);
        }
    }
}

/// Adds the amounts that a container's `requests` or `limits` lack; their names.
fn merge(container: &mut Map<String, Value>, key: &str, defaults: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, amount) in defaults {
        let resources = container.entry("resources").or_insert_with(|| Map::new().into());
        let Some(resources) = resources.as_object_mut() else { return set };
        let amounts = resources.entry(key).or_insert_with(|| Map::new().into());
        let Some(amounts) = amounts.as_object_mut() else { return set };
        if !amounts.contains_key(name) {
            amounts.insert(name.clone(), amount.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

/// Refuses what is out of range.
///
/// # Errors
/// 403 that tells of each bound that one limit range finds broken.
pub(super) fn check(attributes: &Attributes<'_>, object: &Object, view: View<'_>) -> Result<(), Status> {
    let ranges = ranges(attributes, view);
    if ranges.is_empty() {
        return Ok(());
    }
    let value = object.to_value();
    let spec = get(&value, "spec");
    for range in ranges {
        let mut broken = Vec::new();
        for limit in limits(&range) {
            match (attributes.resource, text(limit, "type")) {
                ("pods", "Container") => {
                    for container in ["containers", "initContainers"].iter().flat_map(|list| items(spec, list)) {
                        let of = |key: &str| amounts(get(get(container, "resources"), key));
                        in_range(&mut broken, limit, &of("requests"), &of("limits"));
                    }
                }
                ("pods", "Pod") => {
                    let sum = |kind: &str| resources::sum(spec, kind, false);
                    in_range(&mut broken, limit, &sum("requests"), &sum("limits"));
                }
                ("persistentvolumeclaims", "PersistentVolumeClaim") => {
                    let requests = amounts(get(get(spec, "resources"), "requests"));
                    for (name, bound) in amounts(get(limit, "min")) {
                        broken.extend(minimum(limit, &name, &bound, &requests, &Amounts::new()));
                    }
                    for (name, bound) in amounts(get(limit, "max")) {
                        broken.extend(requested_maximum(limit, &name, &bound, &requests));
                    }
                }
                _ => {}
            }
        }
        if let Some(why) = aggregate(broken) {
            let name = attributes.shown_name(object);
            return Err(Status::forbidden("", attributes.resource, name, &why));
        }
    }
    Ok(())
}

/// Go's text of several errors: each once, in brackets where there are more than one.
fn aggregate(texts: Vec<String>) -> Option<String> {
    let mut each: Vec<String> = Vec::new();
    for text in texts {
        if !each.contains(&text) {
            each.push(text);
        }
    }
    match each.len() {
        0 => None,
        1 => each.pop(),
        _ => Some(format!("[{}]", each.join(", "))),
    }
}

fn amounts(list: &Value) -> Amounts {
    let pairs = list.as_object().into_iter().flatten();
    pairs.filter_map(|(name, amount)| Some((name.clone(), as_quantity(amount)?))).collect()
}

fn in_range(broken: &mut Vec<String>, limit: &Value, requests: &Amounts, limits: &Amounts) {
    for (name, bound) in amounts(get(limit, "min")) {
        broken.extend(minimum(limit, &name, &bound, requests, limits));
    }
    for (name, bound) in amounts(get(limit, "max")) {
        broken.extend(maximum(limit, &name, &bound, requests, limits));
    }
    for (name, bound) in amounts(get(limit, "maxLimitRequestRatio")) {
        broken.extend(ratio(limit, &name, &bound, requests, limits));
    }
}

/// A request, a limit and a bound as numbers that can be compared; what is not given is 0.
fn comparable(request: Option<&Quantity>, limit: Option<&Quantity>, bound: &Quantity) -> (i64, i64, i64) {
    let whole = |amount: Option<&Quantity>| amount.map_or(0, Quantity::value);
    let milli = |amount: Option<&Quantity>| amount.map_or(0, Quantity::milli);
    let all = [request, limit, Some(bound)];
    if all.iter().all(|amount| whole(*amount) <= MAX_MILLI) {
        (milli(request), milli(limit), bound.milli())
    } else {
        (whole(request), whole(limit), bound.value())
    }
}

fn minimum(limit: &Value, name: &str, bound: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let (request, top) = (requests.get(name), limits.get(name));
    let (asked, capped, least) = comparable(request, top, bound);
    let what = format!("minimum {name} usage per {} is {bound}", text(limit, "type"));
    match (request, top) {
        (None, _) => Some(format!("{what}.  No request is specified")),
        (Some(request), _) if asked < least => Some(format!("{what}, but request is {request}")),
        (_, Some(top)) if capped < least => Some(format!("{what}, but limit is {top}")),
        _ => None,
    }
}

fn maximum(limit: &Value, name: &str, bound: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let (request, top) = (requests.get(name), limits.get(name));
    let (asked, capped, most) = comparable(request, top, bound);
    let what = format!("maximum {name} usage per {} is {bound}", text(limit, "type"));
    match (request, top) {
        (_, None) => Some(format!("{what}.  No limit is specified")),
        (_, Some(top)) if capped > most => Some(format!("{what}, but limit is {top}")),
        (Some(request), _) if asked > most => Some(format!("{what}, but request is {request}")),
        _ => None,
    }
}

fn requested_maximum(limit: &Value, name: &str, bound: &Quantity, requests: &Amounts) -> Option<String> {
    let request = requests.get(name);
    let (asked, _, most) = comparable(request, None, bound);
    let what = format!("maximum {name} usage per {} is {bound}", text(limit, "type"));
    match request {
        None => Some(format!("{what}.  No request is specified")),
        Some(request) => (asked > most).then(|| format!("{what}, but request is {request}")),
    }
}

#[expect(clippy::cast_precision_loss, reason = "upstream computes the ratio in floating point, too")]
fn ratio(limit: &Value, name: &str, bound: &Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let (asked, capped, _) = comparable(requests.get(name), limits.get(name), bound);
    let what = format!("{name} max limit to request ratio per {} is {bound}", text(limit, "type"));
    if asked == 0 {
        return Some(format!("{what}, but no request is specified or request is 0"));
    }
    if capped == 0 {
        return Some(format!("{what}, but no limit is specified or limit is 0"));
    }
    let found = capped as f64 / asked as f64;
    let over =
        if bound.value() <= MAX_MILLI { found * 1000.0 > bound.milli() as f64 } else { found > bound.value() as f64 };
    over.then(|| format!("{what}, but provided ratio is {found:.6}"))
}

#[cfg(test)]
mod tests;
