//! Kinds that make pods from a template: deployments, replica sets, stateful sets, daemon sets, jobs and such.
//!
//! Upstream: `pkg/apis/{apps,batch}/v1/defaults.go`, `pkg/apis/{apps,batch}/validation`.

use serde_json::{Map, Value, json};

use super::{
    core::keep_other_half,
    meta,
    pod::{default_template, validate_template},
    util::{
        Errors, at, child, complain, default_to, drop_empty, each_mut, flag, get, has, immutable, indexed, int,
        make_map, map_mut, not_negative, one_of, required, same, strings, text,
    },
};
use crate::base::{FieldError, Object, names, selector::LabelSelector};

fn spec(object: &mut Object) -> &mut Map<String, Value> {
    make_map(object.as_map_mut(), "spec")
}

fn fill(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

/// Makes the status what Go writes of an empty one.
fn empty_status(object: &mut Object, status: &Value) {
    let here = make_map(object.as_map_mut(), "status");
    for (key, value) in status.as_object().into_iter().flatten() {
        here.entry(key.clone()).or_insert(value.clone());
    }
}

fn no_status() -> Value {
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
    drop_zero(spec, "minReadySeconds");
    let strategy = make_map(spec, "updateStrategy");
    default_to(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        fill(make_map(strategy, "rollingUpdate"), "partition", 0);
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
}

pub(super) fn default_job(object: &mut Object) {
    if object.labels().is_empty()
        && let Some(labels) = object.at(&["spec", "template", "metadata", "labels"]).cloned()
        && labels.as_object().is_some_and(|labels| !labels.is_empty())
    {
        object.metadata_mut().insert("labels".into(), labels);
    }
    let spec = spec(object);
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        fill(spec, "completions", 1);
    }
    fill(spec, "parallelism", 1);
    let limit = if spec.contains_key("backoffLimitPerIndex") { i32::MAX } else { 6 };
    fill(spec, "backoffLimit", limit);
    default_to(spec, "completionMode", "NonIndexed");
    fill(spec, "suspend", false);
    fill(spec, "manualSelector", false);
    let policy = if spec.contains_key("podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    default_to(spec, "podReplacementPolicy", policy);
    default_template(spec, "template");
    empty_status(object, &no_status());
}

pub(super) fn default_cron_job(object: &mut Object) {
    let spec = spec(object);
    default_to(spec, "concurrencyPolicy", "Allow");
    fill(spec, "suspend", false);
    fill(spec, "successfulJobsHistoryLimit", 3);
    fill(spec, "failedJobsHistoryLimit", 1);
    let job = make_map(spec, "jobTemplate");
    make_map(job, "metadata");
    default_template(make_map(job, "spec"), "template");
    empty_status(object, &no_status());
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
}

/// A job selects its pods by its own UID, unless told otherwise (`generateSelector`); the UID must be set by now.
pub(super) fn create_job(object: &mut Object) {
    object.set("status", no_status());
    let (name, uid) = (object.name().to_owned(), object.uid().to_owned());
    let manual = object.at(&["spec", "manualSelector"]).and_then(Value::as_bool) == Some(true);
    if manual || uid.is_empty() {
        return;
    }
    let spec = spec(object);
    let labels = make_map(make_map(make_map(spec, "template"), "metadata"), "labels");
    for (key, value) in [
        ("controller-uid", &uid),
        ("batch.kubernetes.io/controller-uid", &uid),
        ("job-name", &name),
        ("batch.kubernetes.io/job-name", &name),
    ] {
        labels.insert(key.into(), value.clone().into());
    }
    let selector = make_map(make_map(spec, "selector"), "matchLabels");
    selector.insert("batch.kubernetes.io/controller-uid".into(), uid.into());
}

pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    keep_other_half(new, old, subresource);
}

/// What a kind of workload asks of its selector and template.
fn template(errors: &mut Errors, spec: &Value, what: &str, policy: bool) {
    let (selector, template) = (get(spec, "selector"), get(spec, "template"));
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        meta::label_selector(errors, selector, "spec.selector");
        if meta::is_empty_selector(selector) {
            let why = format!("empty selector is invalid for {what}");
            errors.push(FieldError::invalid("spec.selector", selector, &why));
        }
    }
    let labels = strings(get(template, "metadata"), "labels");
    if let Ok(parsed) = LabelSelector::from_value(Some(selector))
        && !selector.is_null()
        && !parsed.is_empty()
        && !parsed.matches(&labels)
    {
        let why = "`selector` does not match template `labels`";
        let value = at(template, &["metadata", "labels"]);
        errors.push(FieldError::invalid("spec.template.metadata.labels", value, why));
    }
    validate_template(errors, template, "spec.template");
    let restart = text(get(template, "spec"), "restartPolicy");
    if policy && restart != "Always" {
        let field = "spec.template.spec.restartPolicy";
        errors.push(FieldError::not_supported(field, &restart.into(), &["Always"]));
    }
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
    template(&mut errors, spec, "deployment", true);
    no_deadline(&mut errors, spec, "ReplicaSet");
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
            let unavailable = share(&mut errors, rolling, path, "maxUnavailable", true);
            if share(&mut errors, rolling, path, "maxSurge", false) && unavailable {
                let why = "may not be 0 when `maxSurge` is 0";
                let field = child(path, "maxUnavailable");
                errors.push(FieldError::invalid(&field, get(rolling, "maxUnavailable"), why));
            }
        }
        _ => one_of(&mut errors, strategy, "spec.strategy", "type", &["Recreate", "RollingUpdate"], true),
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
    template(&mut errors, spec, "deployment", true);
    no_deadline(&mut errors, spec, "ReplicaSet");
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
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    one_of(&mut errors, spec, "spec", "podManagementPolicy", &["OrderedReady", "Parallel"], true);
    let strategy = get(spec, "updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {
            if has(strategy, "rollingUpdate") {
                let why = "only allowed for updateStrategy 'RollingUpdate'";
                let field = "spec.updateStrategy.rollingUpdate";
                errors.push(FieldError::invalid(field, get(strategy, "rollingUpdate"), why));
            }
        }
        "RollingUpdate" => {
            let path = "spec.updateStrategy.rollingUpdate";
            not_negative(&mut errors, get(strategy, "rollingUpdate"), path, "partition");
        }
        _ => {
            let why = "must be 'RollingUpdate' or 'OnDelete'";
            errors.push(FieldError::invalid("spec.updateStrategy", strategy, why));
        }
    }
    not_negative(&mut errors, spec, "spec", "replicas");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    template(&mut errors, spec, "statefulset", true);
    no_deadline(&mut errors, spec, "StatefulSet");
    errors
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
    template(&mut errors, spec, "daemonset", true);
    no_deadline(&mut errors, spec, "DaemonSet");
    not_negative(&mut errors, spec, "spec", "minReadySeconds");
    let strategy = get(spec, "updateStrategy");
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => {
            let (rolling, path) = (get(strategy, "rollingUpdate"), "spec.updateStrategy.rollingUpdate");
            let unavailable = share(&mut errors, rolling, path, "maxUnavailable", true);
            let surge = share(&mut errors, rolling, path, "maxSurge", true);
            let field = child(path, "maxUnavailable");
            if unavailable && surge {
                let why = "cannot be 0 when maxSurge is 0";
                errors.push(FieldError::invalid(&field, get(rolling, "maxUnavailable"), why));
            } else if !unavailable && !surge {
                let why = "may not be set when maxSurge is non-zero";
                errors.push(FieldError::invalid(&child(path, "maxSurge"), get(rolling, "maxSurge"), why));
            }
        }
        _ => one_of(&mut errors, strategy, "spec.updateStrategy", "type", &["RollingUpdate", "OnDelete"], true),
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

pub(super) fn validate_job(object: &Object) -> Errors {
    let value = object.to_value();
    let mut errors = Vec::new();
    if !flag(get(&value, "spec"), "manualSelector") && object.name().len() > 63 {
        // the name becomes a label of the pods
        let name = object.name();
        complain(&mut errors, "metadata.name", name, names::label_value(name));
    }
    errors.extend(validate_job_spec(get(&value, "spec"), "spec"));
    errors
}

fn validate_job_spec(spec: &Value, path: &str) -> Errors {
    let mut errors = Vec::new();
    for key in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        not_negative(&mut errors, spec, path, key);
    }
    one_of(&mut errors, spec, path, "completionMode", &["Indexed", "NonIndexed"], false);
    if text(spec, "completionMode") == "Indexed" && !has(spec, "completions") {
        let why = "when completion mode is Indexed";
        errors.push(FieldError::required(&child(path, "completions"), why));
    }
    one_of(&mut errors, spec, path, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], false);
    meta::label_selector(&mut errors, get(spec, "selector"), &child(path, "selector"));
    let template_path = child(path, "template");
    validate_template(&mut errors, get(spec, "template"), &template_path);
    let restart = text(at(spec, &["template", "spec"]), "restartPolicy");
    if !["OnFailure", "Never"].contains(&restart) {
        let field = format!("{template_path}.spec.restartPolicy");
        errors.push(FieldError::not_supported(&field, &restart.into(), &["OnFailure", "Never"]));
    } else if has(spec, "podFailurePolicy") && restart != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        let field = format!("{template_path}.spec.restartPolicy");
        errors.push(FieldError::invalid(&field, &restart.into(), why));
    }
    errors
}

pub(super) fn validate_job_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    if subresource == "status" {
        return Vec::new();
    }
    let mut errors = validate_job(new);
    let (new, old) = (new.to_value(), old.to_value());
    let suspended = flag(get(&old, "spec"), "suspend") && !has(get(&old, "status"), "startTime");
    for key in ["completions", "selector", "template", "completionMode", "podFailurePolicy", "backoffLimitPerIndex"] {
        let (mut now, before) = (get(get(&new, "spec"), key).clone(), get(get(&old, "spec"), key));
        if key == "completions" && text(get(&new, "spec"), "completionMode") == "Indexed" {
            // an indexed job may be resized together with its parallelism
            if int(get(&new, "spec"), key) == int(get(&new, "spec"), "parallelism") {
                continue;
            }
        }
        if key == "template"
            && suspended
            && let Some(spec) = now.as_object_mut().and_then(|template| map_mut(template, "spec"))
        {
            // a job that has not started may be sent elsewhere
            for key in ["nodeSelector", "affinity", "tolerations", "schedulingGates"] {
                match at(before, &["spec", key]) {
                    Value::Null => {
                        spec.remove(key);
                    }
                    value => {
                        spec.insert(key.into(), value.clone());
                    }
                }
            }
        }
        immutable(&mut errors, &now, before, &child("spec", key));
    }
    errors
}

pub(super) fn validate_cron_job(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    if object.name().len() > 52 {
        let why = "must be no more than 52 characters";
        errors.push(FieldError::invalid("metadata.name", &object.name().into(), why));
    }
    let spec = get(&value, "spec");
    if required(&mut errors, spec, "spec", "schedule") {
        let schedule = text(spec, "schedule");
        let fields = schedule.split_whitespace().count();
        if schedule.contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid("spec.schedule", &schedule.into(), why));
        } else if !schedule.starts_with('@') && fields != 5 {
            let shown = crate::base::status::go_quote(schedule).replace('"', "");
            let list = schedule.split_whitespace().collect::<Vec<_>>().join(" ");
            let why = format!("expected exactly 5 fields, found {fields}: [{list}]");
            errors.push(FieldError::invalid("spec.schedule", &shown.into(), &why));
        }
    }
    not_negative(&mut errors, spec, "spec", "startingDeadlineSeconds");
    one_of(&mut errors, spec, "spec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"], true);
    not_negative(&mut errors, spec, "spec", "successfulJobsHistoryLimit");
    not_negative(&mut errors, spec, "spec", "failedJobsHistoryLimit");
    errors.extend(validate_job_spec(at(spec, &["jobTemplate", "spec"]), "spec.jobTemplate.spec"));
    errors
}

pub(super) fn validate_cron_job_update(new: &Object, _: &Object, subresource: &str) -> Errors {
    if subresource == "status" { Vec::new() } else { validate_cron_job(new) }
}

// Autoscalers and disruption budgets, which speak of workloads.

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
    if max < 1 {
        errors.push(FieldError::invalid("spec.maxReplicas", &max.into(), "must be greater than 0"));
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
        errors.push(FieldError::invalid("spec", spec, why));
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
