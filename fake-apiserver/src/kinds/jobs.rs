//! Jobs and cron jobs.
//!
//! Upstream: `pkg/apis/batch/v1/defaults.go`, `pkg/apis/batch/validation`, `pkg/registry/batch`.

use serde_json::{Value, json};

use super::{
    meta,
    pod::{default_template, validate_template},
    util::{
        Errors, GoMember, at, child, complain, default_to, each_mut, flag, get, go_struct, has, immutable, indexed,
        int, items, make_map, map_mut, not_negative, one_of, required, same, text,
    },
    workloads::{empty_status, fill, no_status, selects, spec},
};
use crate::base::{FieldError, Object, names, selector::LabelSelector, status::FieldErrorKind};

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
    if let Some(policy) = map_mut(spec, "podFailurePolicy") {
        each_mut(policy, "rules", |rule| {
            each_mut(rule, "onPodConditions", |condition| default_to(condition, "status", "True"));
        });
    }
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
    let labels = labels.clone();
    let selector = make_map(make_map(spec, "selector"), "matchLabels");
    selector.insert("batch.kubernetes.io/controller-uid".into(), uid.into());
    // labels that were taken from the template are the template's very own, and so are what is added to them
    let taken = object.labels().iter().all(|(key, value)| labels.get(key) == Some(&Value::from(value.as_str())));
    if taken {
        object.metadata_mut().insert("labels".into(), labels.into());
    }
}

pub(super) fn validate_job(object: &Object) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    let selector = get(spec, "selector");
    if !flag(spec, "manualSelector") {
        let own = json!({"matchLabels": {"batch.kubernetes.io/controller-uid": object.uid()}});
        if !selector.is_null() && !same(selector, &own) {
            let why = "`selector` not auto-generated";
            errors.push(FieldError::invalid("spec.selector", selector, why));
        }
    }
    errors.extend(validate_job_spec(spec, "spec"));
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        meta::label_selector(&mut errors, selector, "spec.selector");
    }
    if let Ok(parsed) = LabelSelector::from_value(Some(selector)) {
        selects(&mut errors, selector, &parsed, get(spec, "template"));
    }
    let completions = int(spec, "completions").filter(|_| text(spec, "completionMode") == "Indexed");
    if let Some(completions) = completions.filter(|completions| *completions > 0) {
        let longest = format!("{}-{}", object.name(), completions - 1);
        if !names::dns1123_label(&longest).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {longest}");
            errors.push(FieldError::invalid("metadata.name", &object.name().into(), &why));
        }
    }
    errors
}

fn validate_job_spec(spec: &Value, path: &str) -> Errors {
    let mut errors = Vec::new();
    let numbers = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    for key in numbers {
        not_negative(&mut errors, spec, path, key);
    }
    if let Some(manager) = get(spec, "managedBy").as_str() {
        let field = child(path, "managedBy");
        let host = manager.split_once('/').filter(|(_, rest)| !rest.is_empty());
        match host {
            Some((host, _)) => complain(&mut errors, &field, host, names::dns1123_subdomain(host)),
            None => {
                let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
                errors.push(FieldError::invalid(&field, &manager.into(), why));
            }
        }
        if manager.len() > 63 {
            errors.push(FieldError::too_long(&field, 63));
        }
    }
    one_of(&mut errors, spec, path, "completionMode", &["NonIndexed", "Indexed"], false);
    let indexed_mode = text(spec, "completionMode") == "Indexed";
    let completions = int(spec, "completions");
    if indexed_mode {
        if completions.is_none() {
            let why = "when completion mode is Indexed";
            errors.push(FieldError::required(&child(path, "completions"), why));
        }
        let most = int(spec, "maxFailedIndexes");
        if let (Some(most), Some(all)) = (most, completions)
            && most > all
        {
            let why = "must be less than or equal to completions";
            errors.push(FieldError::invalid(&child(path, "maxFailedIndexes"), &most.into(), why));
        }
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if key == "maxFailedIndexes" && has(spec, key) && !has(spec, "backoffLimitPerIndex") {
                let why = "when maxFailedIndexes is specified";
                errors.push(FieldError::required(&child(path, "backoffLimitPerIndex"), why));
            }
            if let Some(number) = int(spec, key) {
                let why = "requires indexed completion mode";
                errors.push(FieldError::invalid(&child(path, key), &number.into(), why));
            }
        }
    }
    failure_policy(&mut errors, spec, &child(path, "podFailurePolicy"));
    success_policy(&mut errors, spec, &child(path, "successPolicy"), indexed_mode);
    let (replacement, field) = (text(spec, "podReplacementPolicy"), child(path, "podReplacementPolicy"));
    if has(spec, "podFailurePolicy") && !replacement.is_empty() && replacement != "Failed" {
        errors.push(FieldError::not_supported(&field, &replacement.into(), &["Failed"]));
    } else {
        one_of(&mut errors, spec, path, "podReplacementPolicy", &["Failed", "TerminatingOrFailed"], false);
    }
    let template_path = child(path, "template");
    validate_template(&mut errors, get(spec, "template"), &template_path);
    let restart = text(at(spec, &["template", "spec"]), "restartPolicy");
    let field = format!("{template_path}.spec.restartPolicy");
    if ["", "Always"].contains(&restart) {
        errors.push(FieldError::required(&field, "valid values: \"OnFailure\", \"Never\""));
    } else if !["OnFailure", "Never"].contains(&restart) {
        errors.push(FieldError::not_supported(&field, &restart.into(), &["OnFailure", "Never"]));
    } else if has(spec, "podFailurePolicy") && restart != "Never" {
        let why = "only \"Never\" is supported when podFailurePolicy is specified";
        errors.push(FieldError::invalid(&field, &restart.into(), why));
    }
    errors
}

fn failure_policy(errors: &mut Errors, spec: &Value, path: &str) {
    let pod = at(spec, &["template", "spec"]);
    let containers: Vec<_> = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| items(pod, list))
        .map(|container| text(container, "name"))
        .collect();
    let rules = items(get(spec, "podFailurePolicy"), "rules").len();
    if rules > 20 {
        errors.push(FieldError::too_many(&child(path, "rules"), rules, 20));
    }
    let omitted = |field: &str, why: &str| FieldError {
        kind: FieldErrorKind::Invalid,
        field: field.into(),
        body: format!("Invalid value: {why}"),
    };
    for (path, rule) in indexed(get(spec, "podFailurePolicy"), path, "rules") {
        let (action, field) = (text(rule, "action"), child(&path, "action"));
        let known = ["Count", "FailIndex", "FailJob", "Ignore"];
        if action.is_empty() {
            let why = "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]";
            errors.push(FieldError::required(&field, why));
        } else if action == "FailIndex" && !has(spec, "backoffLimitPerIndex") {
            let why = "requires the backoffLimitPerIndex to be set";
            errors.push(FieldError::invalid(&field, &action.into(), why));
        } else if !known.contains(&action) {
            errors.push(FieldError::not_supported(&field, &action.into(), &known));
        }
        let (codes, conditions) = (get(rule, "onExitCodes"), items(rule, "onPodConditions"));
        if !codes.is_null() {
            exit_codes(errors, codes, &child(&path, "onExitCodes"), &containers);
        }
        for (path, condition) in indexed(rule, &path, "onPodConditions") {
            let kind = text(condition, "type");
            complain(errors, &child(&path, "type"), kind, names::qualified_name(kind));
            one_of(errors, condition, &path, "status", &["False", "True", "Unknown"], true);
        }
        match (codes.is_null(), conditions.is_empty()) {
            (false, false) => {
                errors.push(omitted(&path, "specifying both OnExitCodes and OnPodConditions is not supported"));
            }
            (true, true) => {
                errors.push(omitted(&path, "specifying one of OnExitCodes and OnPodConditions is required"))
            }
            _ => {}
        }
    }
}

fn exit_codes(errors: &mut Errors, codes: &Value, path: &str, containers: &[&str]) {
    let operator = text(codes, "operator");
    if operator.is_empty() {
        errors.push(FieldError::required(&child(path, "operator"), "valid values: [\"In\" \"NotIn\"]"));
    } else {
        one_of(errors, codes, path, "operator", &["In", "NotIn"], false);
    }
    if let Some(name) = get(codes, "containerName").as_str().filter(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(&child(path, "containerName"), &name.into(), why));
    }
    let (values, field) = (items(codes, "values"), child(path, "values"));
    if values.is_empty() {
        let none = json!([]);
        let shown = if has(codes, "values") { get(codes, "values") } else { &none };
        errors.push(FieldError::invalid(&field, shown, "at least one value is required"));
    } else if values.len() > 255 {
        errors.push(FieldError::too_many(&field, values.len(), 255));
    }
    for (i, value) in values.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if operator == "In" && value.as_i64() == Some(0) {
            errors.push(FieldError::invalid(&field, value, "must not be 0 for the In operator"));
        }
        if values[..i].contains(value) {
            errors.push(FieldError::duplicate(&field, value));
        }
    }
    if !values.is_sorted_by_key(Value::as_i64) {
        errors.push(FieldError::invalid(&field, get(codes, "values"), "must be ordered"));
    }
}

fn success_policy(errors: &mut Errors, spec: &Value, path: &str, indexed_mode: bool) {
    let policy = get(spec, "successPolicy");
    if policy.is_null() {
        return;
    }
    if !indexed_mode {
        const RULE: [GoMember; 2] = [
            GoMember("SucceededIndexes", "succeededIndexes", "null", &[]),
            GoMember("SucceededCount", "succeededCount", "null", &[]),
        ];
        let rules: Vec<_> = items(policy, "rules").iter().map(|rule| go_struct(rule, &RULE)).collect();
        let shown = format!("{{\"Rules\":[{}]}}", rules.join(","));
        errors.push(FieldError::invalid_shown(path, &shown, "requires indexed completion mode"));
        return;
    }
    if items(policy, "rules").is_empty() {
        let why = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(&child(path, "rules"), why));
    }
    let all = int(spec, "completions").unwrap_or_default();
    for (path, rule) in indexed(policy, path, "rules") {
        let count = int(rule, "succeededCount");
        if count.is_none() && !has(rule, "succeededIndexes") {
            let why = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&path, why));
        }
        not_negative(errors, rule, &path, "succeededCount");
        if let Some(count) = count.filter(|count| *count > all) {
            let why = format!("must be less than or equal to {all} (the number of specified completions)");
            errors.push(FieldError::invalid(&child(&path, "succeededCount"), &count.into(), &why));
        }
    }
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
        if let Err(why) = super::cron::check(schedule) {
            errors.push(FieldError::invalid("spec.schedule", &schedule.into(), &why));
        }
        if schedule.contains("TZ") {
            let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid("spec.schedule", &schedule.into(), why));
        }
    }
    not_negative(&mut errors, spec, "spec", "startingDeadlineSeconds");
    if let Some(zone) = get(spec, "timeZone").as_str() {
        let mut wrong = |why: &str| errors.push(FieldError::invalid("spec.timeZone", &zone.into(), why));
        if zone.is_empty() {
            wrong("timeZone must be nil or non-empty string");
        } else if zone.eq_ignore_ascii_case("Local") {
            wrong("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones");
        } else if let Err(why) = super::cron::check_zone(zone) {
            wrong(&why);
        }
    }
    one_of(&mut errors, spec, "spec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"], true);
    not_negative(&mut errors, spec, "spec", "successfulJobsHistoryLimit");
    not_negative(&mut errors, spec, "spec", "failedJobsHistoryLimit");
    let job = at(spec, &["jobTemplate", "spec"]);
    errors.extend(validate_job_spec(job, "spec.jobTemplate.spec"));
    if flag(job, "manualSelector") {
        let field = "spec.jobTemplate.spec.manualSelector";
        errors.push(FieldError::not_supported(field, &true.into(), &["nil", "false"]));
    }
    errors
}

pub(super) fn validate_cron_job_update(new: &Object, _: &Object, subresource: &str) -> Errors {
    if subresource == "status" { Vec::new() } else { validate_cron_job(new) }
}
