//! Kinds that make pods from a template: deployments, replica sets, stateful sets, daemon sets, jobs and such.
//!
//! Upstream: `pkg/apis/{apps,batch}/v1/defaults.go`, `pkg/apis/{apps,batch}/validation`.

use serde_json::{Map, Value, json};

use super::{
    core::keep_other_half,
    meta,
    pod::{default_template, validate_template},
    util::{
        Errors, GoMember, at, child, complain, default_to, drop_empty, each_mut, get, go_struct, has, immutable,
        indexed, int, items, make_map, map_mut, not_negative, one_of, same, strings, text,
    },
};
use crate::base::{FieldError, Object, names, selector::LabelSelector, status::FieldErrorKind};

pub(super) fn spec(object: &mut Object) -> &mut Map<String, Value> {
    make_map(object.as_map_mut(), "spec")
}

pub(super) fn fill(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

/// Makes the status what Go writes of an empty one.
pub(super) fn empty_status(object: &mut Object, status: &Value) {
    let here = make_map(object.as_map_mut(), "status");
    for (key, value) in status.as_object().into_iter().flatten() {
        here.entry(key.clone()).or_insert(value.clone());
    }
}

pub(super) fn no_status() -> Value {
    json!({})
}

fn replica_status() -> Value {
    json!({"replicas": 0})
}

fn stateful_status() -> Value {
    json!({"replicas": 0, "availableReplicas": 0})
}

fn daemon_status() -> Value {
    json!({"currentNumberScheduled": 0, "numberMisscheduled": 0, "desiredNumberScheduled": 0, "numberReady": 0})
}

pub(super) fn default_deployment(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    fill(spec, "progressDeadlineSeconds", 600);
    drop_zero(spec, "minReadySeconds");
    drop_false(spec, "paused");
    let strategy = make_map(spec, "strategy");
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = make_map(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", "25%");
        fill(rolling, "maxSurge", "25%");
    } else {
        drop_empty(strategy, &["rollingUpdate"]);
    }
    default_template(spec, "template");
    empty_status(object, &no_status());
}

fn drop_zero(map: &mut Map<String, Value>, key: &str) {
    if map.get(key).and_then(Value::as_i64) == Some(0) {
        map.remove(key);
    }
}

fn drop_false(map: &mut Map<String, Value>, key: &str) {
    if map.get(key) == Some(&Value::Bool(false)) {
        map.remove(key);
    }
}

pub(super) fn default_replica_set(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "replicas", 1);
    drop_zero(spec, "minReadySeconds");
    default_template(spec, "template");
    empty_status(object, &replica_status());
}

pub(super) fn default_replication_controller(object: &mut Object) {
    let labels = object.at(&["spec", "template", "metadata", "labels"]).cloned().unwrap_or_default();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        if object.labels().is_empty() {
            object.metadata_mut().insert("labels".into(), labels.clone());
        }
        let spec = spec(object);
        if spec.get("selector").and_then(Value::as_object).is_none_or(Map::is_empty) {
            spec.insert("selector".into(), labels);
        }
    }
    default_replica_set(object);
}

pub(super) fn default_stateful_set(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "replicas", 1);
    fill(spec, "revisionHistoryLimit", 10);
    default_to(spec, "podManagementPolicy", "OrderedReady");
    default_to(spec, "serviceName", ""); // Go always writes it
    drop_zero(spec, "minReadySeconds");
    let strategy = make_map(spec, "updateStrategy");
    if text(&Value::Object(strategy.clone()), "type").is_empty() {
        strategy.insert("type".into(), "RollingUpdate".into());
        make_map(strategy, "rollingUpdate");
    }
    let rolls = strategy["type"] == "RollingUpdate";
    if let Some(rolling) = map_mut(strategy, "rollingUpdate") {
        rolling.remove("maxUnavailable"); // of a feature that is off
        if rolls {
            fill(rolling, "partition", 0);
        }
    }
    let retention = make_map(spec, "persistentVolumeClaimRetentionPolicy");
    default_to(retention, "whenDeleted", "Retain");
    default_to(retention, "whenScaled", "Retain");
    each_mut(spec, "volumeClaimTemplates", |claim| {
        claim.insert("kind".into(), "PersistentVolumeClaim".into());
        claim.insert("apiVersion".into(), "v1".into());
        make_map(claim, "metadata");
        super::storage::default_claim_spec(make_map(claim, "spec"));
        default_to(make_map(claim, "status"), "phase", "Pending");
    });
    default_template(spec, "template");
    empty_status(object, &stateful_status());
}

pub(super) fn default_daemon_set(object: &mut Object) {
    let spec = spec(object);
    fill(spec, "revisionHistoryLimit", 10);
    drop_zero(spec, "minReadySeconds");
    let strategy = make_map(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = make_map(strategy, "rollingUpdate");
        fill(rolling, "maxUnavailable", 1);
        fill(rolling, "maxSurge", 0);
    }
    default_template(spec, "template");
    empty_status(object, &daemon_status());
    // It stands there from the moment that upstream has read the object, and so belongs to who wrote that.
    if object.annotation(TEMPLATE_GENERATION).is_none() {
        object.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], "0");
    }
}

pub(super) fn default_pod_template(object: &mut Object) {
    default_template(object.as_map_mut(), "template");
}

pub(super) fn create_plain(object: &mut Object) {
    object.set("status", no_status());
}

pub(super) fn create_replicas(object: &mut Object) {
    object.set("status", replica_status());
}

pub(super) fn create_stateful(object: &mut Object) {
    object.set("status", stateful_status());
}

pub(super) fn create_daemons(object: &mut Object) {
    object.set("status", daemon_status());
    object.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], "1");
}

/// Counts the templates of a daemon set.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

pub(super) fn update_daemons(new: &mut Object, old: &Object, subresource: &str) {
    update(new, old, subresource);
    if subresource == "status" {
        return;
    }
    let before: i64 = old.annotation(TEMPLATE_GENERATION).and_then(|text| text.parse().ok()).unwrap_or_default();
    let template = |object: &Object| object.at(&["spec", "template"]).cloned().unwrap_or_default();
    let next = before + i64::from(!same(&template(new), &template(old)));
    new.set_at(&["metadata", "annotations", TEMPLATE_GENERATION], next.to_string());
}

pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    keep_other_half(new, old, subresource);
}

/// What a kind of workload asks of its selector and template; `why` is what is said of a selector that is none.
fn template(errors: &mut Errors, spec: &Value, what: &str, why: &str) {
    let (selector, template) = (get(spec, "selector"), get(spec, "template"));
    let mut wrong = Vec::new();
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        meta::label_selector(&mut wrong, selector, "spec.selector");
    }
    let parsed = LabelSelector::from_value(Some(selector)).ok().filter(|_| wrong.is_empty());
    errors.extend(wrong);
    if !selector.is_null() && meta::is_empty_selector(selector) {
        let why = format!("empty selector is invalid for {what}");
        errors.push(FieldError::invalid("spec.selector", selector, &why));
    }
    let Some(parsed) = parsed else {
        errors.push(FieldError::invalid("spec.selector", selector, why));
        return;
    };
    selects(errors, selector, &parsed, template);
    validate_template(errors, template, "spec.template");
}

/// A selector must take the pods of the template; one that is not there takes none.
pub(super) fn selects(errors: &mut Errors, selector: &Value, parsed: &LabelSelector, template: &Value) {
    let labels = strings(get(template, "metadata"), "labels");
    if selector.is_null() || !parsed.matches(&labels) {
        let why = "`selector` does not match template `labels`";
        let value = at(template, &["metadata", "labels"]);
        errors.push(FieldError::invalid("spec.template.metadata.labels", value, why));
    }
}

/// Pods of these kinds are started again, and have no deadline.
fn lasting(errors: &mut Errors, spec: &Value, what: &str) {
    let restart = text(at(spec, &["template", "spec"]), "restartPolicy");
    if restart != "Always" {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(field, &restart.into(), &["Always"]));
    }
    no_deadline(errors, spec, what);
}

/// Whether the selector of a workload can be read, so that its template is looked at.
fn selector_is_right(spec: &Value) -> bool {
    let mut wrong = Vec::new();
    meta::label_selector(&mut wrong, get(spec, "selector"), "");
    wrong.is_empty()
}

fn no_deadline(errors: &mut Errors, spec: &Value, what: &str) {
    if has(at(spec, &["template", "spec"]), "activeDeadlineSeconds") {
        let why = format!("activeDeadlineSeconds in {what} is not Supported");
        errors.push(FieldError::forbidden("spec.template.spec.activeDeadlineSeconds", &why));
    }
}

/// A number or a share: not negative, and as a share at most 100 %. Gives whether it is 0.
pub(super) fn share(errors: &mut Errors, value: &Value, path: &str, key: &str, capped: bool) -> bool {
    let (amount, field) = (get(value, key), child(path, key));
    match amount {
        Value::String(text) => {
            complain(errors, &field, text, names::percent(text));
            let number: i64 = text.trim_end_matches('%').parse().unwrap_or_default();
            if capped && number > 100 {
                errors.push(FieldError::invalid(&field, amount, "must not be greater than 100%"));
            }
            number == 0
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            not_negative(errors, value, path, key);
            amount.as_i64().unwrap_or_default() == 0
        }
    }
}

pub(super) fn validate_deployment(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    not_negative(&mut errors, spec, "spec", "replicas");
    template(&mut errors, spec, "deployment", "invalid label selector");
    if selector_is_right(spec) {
        lasting(&mut errors, spec, "ReplicaSet");
    }
    let strategy = get(spec, "strategy");
    match text(strategy, "type") {
        "Recreate" => {
            if has(strategy, "rollingUpdate") {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden("spec.strategy.rollingUpdate", why));
            }
        }
        "RollingUpdate" => {
            let (rolling, path) = (get(strategy, "rollingUpdate"), "spec.strategy.rollingUpdate");
            let unavailable = share(&mut errors, rolling, path, "maxUnavailable", false);
            if share(&mut errors, rolling, path, "maxSurge", false) && unavailable {
                let why = "may not be 0 when `maxSurge` is 0";
                let field = child(path, "maxUnavailable");
                errors.push(FieldError::invalid(&field, get(rolling, "maxUnavailable"), why));
            }
            capped(&mut errors, rolling, path, "maxUnavailable");
        }
        _ => {
            const MEMBERS: [GoMember; 2] = [
                GoMember("Type", "type", "\"\"", &[]),
                GoMember(
                    "RollingUpdate",
                    "rollingUpdate",
                    "null",
                    &[
                        GoMember("MaxUnavailable", "maxUnavailable", "0", &[]),
                        GoMember("MaxSurge", "maxSurge", "0", &[]),
                    ],
                ),
            ];
            unsupported(
                &mut errors,
                "spec.strategy",
                &go_struct(strategy, &MEMBERS),
                "\"Recreate\", \"RollingUpdate\"",
            );
        }
    }
    for key in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        not_negative(&mut errors, spec, "spec", key);
    }
    if let Some(deadline) = int(spec, "progressDeadlineSeconds")
        && deadline <= int(spec, "minReadySeconds").unwrap_or_default()
    {
        let why = "must be greater than minReadySeconds";
        errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &deadline.into(), why));
    }
    errors
}

/// A share is at most 100 %.
fn capped(errors: &mut Errors, value: &Value, path: &str, key: &str) {
    let amount = get(value, key);
    let number = amount.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    if number.is_some_and(|number| number > 100) {
        errors.push(FieldError::invalid(&child(path, key), amount, "must not be greater than 100%"));
    }
}

/// `Unsupported value` of a struct.
fn unsupported(errors: &mut Errors, field: &str, shown: &str, known: &str) {
    let body = format!("Unsupported value: {shown}: supported values: {known}");
    errors.push(FieldError { kind: FieldErrorKind::NotSupported, field: field.into(), body });
}

pub(super) fn validate_pod_template(object: &Object) -> Errors {
    let mut errors = Vec::new();
    validate_template(&mut errors, get(&object.to_value(), "template"), "template");
    errors
}

/// The selector of a workload stays what it is.
fn fixed_selector(errors: &mut Errors, new: &Object, old: &Object) {
    let selector = |object: &Object| object.at(&["spec", "selector"]).cloned().unwrap_or_default();
    immutable(errors, &selector(new), &selector(old), "spec.selector");
}

pub(super) fn validate_deployment_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return counts(new);
    }
    let mut errors = validate_deployment(new);
    fixed_selector(&mut errors, new, old);
    errors
}

/// Counts in a status are not negative.
fn counts(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    for key in ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"] {
        not_negative(&mut errors, get(&value, "status"), "status", key);
    }
    errors
}

pub(super) fn validate_replica_set(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    not_negative(&mut errors, spec, "spec", "replicas");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    template(&mut errors, spec, "deployment", "invalid label selector");
    if selector_is_right(spec) {
        lasting(&mut errors, spec, "ReplicaSet");
    }
    errors
}

pub(super) fn validate_replica_set_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return counts(new);
    }
    let mut errors = validate_replica_set(new);
    fixed_selector(&mut errors, new, old);
    errors
}

pub(super) fn validate_replication_controller(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    let selector = strings(spec, "selector");
    if selector.is_empty() {
        errors.push(FieldError::required("spec.selector", ""));
    }
    not_negative(&mut errors, spec, "spec", "replicas");
    let template = get(spec, "template");
    if template.is_null() {
        errors.push(FieldError::required("spec.template", ""));
        return errors;
    }
    if !LabelSelector::from_labels(&selector).matches(&strings(get(template, "metadata"), "labels")) {
        let why = "`selector` does not match template `labels`";
        let value = at(template, &["metadata", "labels"]);
        errors.push(FieldError::invalid("spec.template.metadata.labels", value, why));
    }
    validate_template(&mut errors, template, "spec.template");
    errors
}

pub(super) fn validate_stateful_set(object: &Object) -> Errors {
    const ROLLING: [GoMember; 2] =
        [GoMember("Partition", "partition", "0", &[]), GoMember("MaxUnavailable", "maxUnavailable", "null", &[])];
    const STRATEGY: [GoMember; 2] =
        [GoMember("Type", "type", "\"\"", &[]), GoMember("RollingUpdate", "rollingUpdate", "null", &ROLLING)];
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    let policy = text(spec, "podManagementPolicy");
    if !["OrderedReady", "Parallel"].contains(&policy) {
        let why = "must be 'OrderedReady' or 'Parallel'";
        errors.push(FieldError::invalid("spec.podManagementPolicy", &policy.into(), why));
    }
    let strategy = get(spec, "updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {
            if has(strategy, "rollingUpdate") {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                let shown = go_struct(get(strategy, "rollingUpdate"), &ROLLING);
                errors.push(FieldError::invalid_shown("spec.updateStrategy.rollingUpdate", &shown, why));
            }
        }
        "RollingUpdate" => {
            let path = "spec.updateStrategy.rollingUpdate";
            not_negative(&mut errors, get(strategy, "rollingUpdate"), path, "partition");
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid_shown("spec.updateStrategy", &go_struct(strategy, &STRATEGY), why));
        }
    }
    let retention = get(spec, "persistentVolumeClaimRetentionPolicy");
    for key in ["whenDeleted", "whenScaled"] {
        let path = "spec.persistentVolumeClaimRetentionPolicy";
        one_of(&mut errors, retention, path, key, &["Retain", "Delete"], true);
    }
    for (path, claim) in indexed(spec, "spec", "volumeClaimTemplates") {
        errors.extend(super::storage::validate_claim_spec(get(claim, "spec"), &child(&path, "spec")));
    }
    not_negative(&mut errors, spec, "spec", "replicas");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    not_negative(&mut errors, get(spec, "ordinals"), "spec.ordinals", "start");
    let service = text(spec, "serviceName");
    if !service.is_empty() {
        complain(&mut errors, "spec.serviceName", service, names::dns1123_label(service));
    }
    let with_volumes = with_claimed_volumes(spec);
    template(&mut errors, &with_volumes, "statefulset", "");
    if selector_is_right(spec) {
        // upstream judges the template's metadata once more
        let metadata = at(spec, &["template", "metadata"]);
        meta::labels(&mut errors, metadata, "spec.template");
        meta::annotations(&mut errors, metadata, "spec.template");
    }
    lasting(&mut errors, spec, "StatefulSet");
    errors
}

/// A stateful set's spec with the volumes that its claim templates stand for, and without what its controller writes.
fn with_claimed_volumes(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let claims: Vec<String> = items(&spec, "volumeClaimTemplates")
        .iter()
        .map(|claim| text(get(claim, "metadata"), "name").to_owned())
        .collect();
    let pod = spec.get_mut("template").and_then(|template| template.get_mut("spec")).and_then(Value::as_object_mut);
    let Some(pod) = pod else { return spec };
    pod.remove("subdomain");
    pod.remove("hostname");
    if !claims.is_empty() {
        let own = pod.get("volumes").and_then(Value::as_array).cloned().unwrap_or_default();
        let own = own.into_iter().filter(|volume| !claims.iter().any(|name| name == text(volume, "name")));
        let volume = |name: &String| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
        let volumes: Vec<Value> = claims.iter().map(volume).chain(own).collect();
        pod.insert("volumes".into(), volumes.into());
    }
    spec
}

pub(super) fn validate_stateful_set_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return counts(new);
    }
    let mut errors = validate_stateful_set(new);
    let rest = |object: &Object| {
        let mut spec = object.get("spec").cloned().unwrap_or_default();
        if let Some(spec) = spec.as_object_mut() {
            for key in [
                "replicas",
                "ordinals",
                "template",
                "updateStrategy",
                "revisionHistoryLimit",
                "persistentVolumeClaimRetentionPolicy",
                "minReadySeconds",
            ] {
                spec.remove(key);
            }
        }
        spec
    };
    if !same(&rest(new), &rest(old)) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                   'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                   'minReadySeconds' are forbidden";
        errors.push(FieldError::forbidden("spec", why));
    }
    errors
}

pub(super) fn validate_daemon_set(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    let selector = get(spec, "selector");
    meta::label_selector(&mut errors, selector, "spec.selector");
    if let Ok(parsed) = LabelSelector::from_value(Some(selector))
        && errors.is_empty()
    {
        selects(&mut errors, selector, &parsed, get(spec, "template"));
    }
    if !selector.is_null() && meta::is_empty_selector(selector) {
        errors.push(FieldError::invalid("spec.selector", selector, "empty selector is invalid for daemonset"));
    }
    validate_template(&mut errors, get(spec, "template"), "spec.template");
    lasting(&mut errors, spec, "DaemonSet");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    let strategy = get(spec, "updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (rolling, path) = (get(strategy, "rollingUpdate"), "spec.updateStrategy.rollingUpdate");
            let unavailable = share(&mut errors, rolling, path, "maxUnavailable", false);
            let surge = share(&mut errors, rolling, path, "maxSurge", false);
            capped(&mut errors, rolling, path, "maxUnavailable");
            capped(&mut errors, rolling, path, "maxSurge");
            if unavailable && surge {
                let why = "cannot be 0 when maxSurge is 0";
                errors.push(FieldError::required(&child(path, "maxUnavailable"), why));
            } else if !unavailable && !surge {
                let why = "may not be set when maxUnavailable is non-zero";
                errors.push(FieldError::invalid(&child(path, "maxSurge"), get(rolling, "maxSurge"), why));
            }
        }
        _ => {
            const MEMBERS: [GoMember; 2] = [
                GoMember("Type", "type", "\"\"", &[]),
                GoMember(
                    "RollingUpdate",
                    "rollingUpdate",
                    "null",
                    &[
                        GoMember("MaxUnavailable", "maxUnavailable", "0", &[]),
                        GoMember("MaxSurge", "maxSurge", "0", &[]),
                    ],
                ),
            ];
            let (field, known) = ("spec.updateStrategy", "\"RollingUpdate\", \"OnDelete\"");
            unsupported(&mut errors, field, &go_struct(strategy, &MEMBERS), known);
        }
    }
    not_negative(&mut errors, spec, "spec", "revisionHistoryLimit");
    errors
}

pub(super) fn validate_daemon_set_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return Vec::new();
    }
    let mut errors = validate_daemon_set(new);
    fixed_selector(&mut errors, new, old);
    errors
}
