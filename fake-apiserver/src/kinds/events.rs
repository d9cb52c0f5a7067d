//! Events of both groups.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use serde_json::Value;

use super::util::{Errors, complain, get, make_map, required, text};
use crate::base::{FieldError, Object, names};

/// Members that the two groups' events name differently: of the core group, and of `events.k8s.io`.
const RENAMED: &[(&str, &str)] = &[
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An event of one group as one of the other; both are stored side by side, as they were written.
///
/// Upstream: `pkg/apis/events/v1/conversion.go`.
pub fn convert_event(object: &mut Object, version: &str) {
    let core = version == "v1";
    for (old, new) in RENAMED {
        let (from, to) = if core { (new, old) } else { (old, new) };
        if let Some(value) = object.remove(from) {
            object.set(to, value);
        }
    }
    object.set("apiVersion", version);
    if core {
        default_core_event(object);
    } else {
        default_new_event(object);
        for key in ["reportingController", "reportingInstance"] {
            if object.str_at(&[key]).is_empty() {
                object.remove(key);
            }
        }
    }
}

pub(super) fn validate_event(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let target = get(&value, "involvedObject");
    let (key, namespace) = ("involvedObject.namespace", text(target, "namespace"));
    let here = object.namespace();
    // events about cluster-scoped objects stand in `default`
    let fits = if namespace.is_empty() { ["", "default", "kube-system"].contains(&here) } else { namespace == here };
    if !fits && target.is_object() {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid(key, &namespace.into(), why));
    }
    errors
}

/// Events always write the structs `source` and `involvedObject`, and the times.
pub(super) fn default_core_event(object: &mut Object) {
    make_map(object.as_map_mut(), "source");
    make_map(object.as_map_mut(), "involvedObject");
    let map = object.as_map_mut();
    for key in ["firstTimestamp", "lastTimestamp", "eventTime"] {
        map.entry(key).or_insert(Value::Null);
    }
    for key in ["reportingComponent", "reportingInstance"] {
        map.entry(key).or_insert_with(|| "".into());
    }
}

/// Events of `events.k8s.io` write their times and deprecated structs.
pub(super) fn default_new_event(object: &mut Object) {
    make_map(object.as_map_mut(), "deprecatedSource");
    make_map(object.as_map_mut(), "regarding");
    let map = object.as_map_mut();
    for key in ["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"] {
        map.entry(key).or_insert(Value::Null);
    }
}

pub(super) fn validate_new_event(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let target = text(get(&value, "regarding"), "namespace");
    let here = object.namespace();
    if target.is_empty() && here != "default" && here != "kube-system" || !target.is_empty() && target != here {
        errors.push(FieldError::invalid("involvedObject.namespace", &target.into(), "does not match event.namespace"));
    }
    required(&mut errors, &value, "", "eventTime");
    let controller = text(&value, "reportingController");
    if required(&mut errors, &value, "", "reportingController") {
        complain(&mut errors, "reportingController", controller, names::qualified_name(controller));
    }
    for (key, max, needed) in
        [("reportingInstance", 128, true), ("action", 128, true), ("reason", 128, true), ("note", 1024, false)]
    {
        let value = text(&value, key);
        let field = if key == "note" { "message" } else { key };
        if needed && value.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if value.len() > max {
            let why = format!("can have at most {max} characters");
            errors.push(FieldError::invalid(field, &value.into(), &why));
        }
    }
    let kind = text(&value, "type");
    if !["", "Normal", "Warning"].contains(&kind) {
        errors.push(FieldError::invalid("type", &"".into(), &format!("has invalid value: {kind}")));
    }
    errors
}
