//! Events of both groups.
//!
//! Upstream: `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`, `pkg/registry/core/*/strategy.go`.

use serde_json::Value;

use super::util::{Errors, complain, get, int_or_zero, make_map, required, text};
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

/// Members of one group's events that the rules speak of.
struct Named {
    target: &'static str,
    controller: &'static str,
    note: &'static str,
}

const CORE: Named = Named { target: "involvedObject", controller: "reportingComponent", note: "message" };
const NEW: Named = Named { target: "regarding", controller: "reportingController", note: "note" };

pub(super) fn validate_event(object: &Object) -> Errors {
    legacy(&object.to_value(), object.namespace(), &CORE)
}

/// Upstream's `legacyValidateEvent`: what events of both groups must be. Those without `eventTime` are of the old kind.
fn legacy(value: &Value, here: &str, named: &Named) -> Errors {
    let mut errors = Vec::new();
    let target = text(get(value, named.target), "namespace");
    let old = text(value, "eventTime").is_empty();
    // events about cluster-scoped objects stand in `default`
    let fits = match (target, old) {
        ("", true) => here == "default",
        ("", false) => ["default", "kube-system"].contains(&here),
        (target, true) => target == here,
        (_, false) => true,
    };
    if !fits {
        let why = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", &target.into(), why));
    }
    if old {
        return errors;
    }
    let controller = text(value, named.controller);
    required(&mut errors, value, "", named.controller);
    complain(&mut errors, named.controller, controller, names::qualified_name(controller));
    for (key, field, most) in [
        ("reportingInstance", "reportingInstance", 128),
        ("action", "action", 128),
        ("reason", "reason", 128),
        (named.note, "message", 1024),
    ] {
        let value = text(value, key);
        if value.is_empty() && field != "message" {
            errors.push(FieldError::required(field, ""));
        }
        if value.len() > most {
            let why = format!("can have at most {most} characters");
            errors.push(FieldError::invalid(field, &"".into(), &why));
        }
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

/// Upstream's `ValidateEventCreate` for `events.k8s.io`.
pub(super) fn validate_new_event(object: &Object) -> Errors {
    let value = object.to_value();
    let mut errors = legacy(&value, object.namespace(), &NEW);
    let series = get(&value, "series");
    if series.is_object() {
        if int_or_zero(series, "count") < 2 {
            errors.push(FieldError::invalid("series.count", &"".into(), "should be at least 2"));
        }
        required(&mut errors, series, "series", "lastObservedTime");
    }
    required(&mut errors, &value, "", "eventTime");
    let kind = text(&value, "type");
    if !["Normal", "Warning"].contains(&kind) {
        errors.push(FieldError::invalid("type", &"".into(), &format!("has invalid value: {kind}")));
    }
    for (key, field) in [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")] {
        if !text(&value, key).is_empty() {
            errors.push(FieldError::invalid(field, &"".into(), "needs to be unset"));
        }
    }
    if int_or_zero(&value, "deprecatedCount") != 0 {
        errors.push(FieldError::invalid("count", &"".into(), "needs to be unset"));
    }
    let source = get(&value, "deprecatedSource");
    if ["component", "host"].iter().any(|key| !text(source, key).is_empty()) {
        errors.push(FieldError::invalid("source", &"".into(), "needs to be unset"));
    }
    errors
}
