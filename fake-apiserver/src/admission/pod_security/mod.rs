//! `PodSecurity`: the labels `pod-security.kubernetes.io/*` of a namespace say which pods it takes, and of which it warns.
//!
//! Upstream: `k8s.io/pod-security-admission`; nothing is exempt, as by default.

mod checks;

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Attributes, Operation, View};
use crate::base::{
    FieldError, Object, Status,
    value::{get, items, text},
};

/// The newest minor version for which a check changed; policies of later versions are as of this one.
const NEWEST_CHECKS: u64 = 35;

/// How many pods of a namespace are looked at when its policy changes.
const PODS_LOOKED_AT: usize = 3000;

/// How strict a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// A level as of a minor version of Kubernetes, `None` for the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    minor: Option<u64>,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.minor {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// What a namespace enforces and warns of. What it audits shows nowhere, as there is no audit log; its labels are
/// checked all the same.
#[derive(Debug)]
struct Policies {
    enforce: Policy,
    audit: Policy,
    warn: Policy,
}

/// A violation: a word for it, and what exactly violates.
struct Violation {
    reason: String,
    detail: String,
}

fn level(text: &str) -> Result<Level, &'static str> {
    match text {
        "privileged" => Ok(Level::Privileged),
        "baseline" => Ok(Level::Baseline),
        "restricted" => Ok(Level::Restricted),
        _ => Err("must be one of privileged, baseline, restricted"),
    }
}

fn minor(text: &str) -> Result<Option<u64>, &'static str> {
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").filter(|digits| *digits == "0" || !digits.starts_with('0'));
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let minor = digits.and_then(|digits| digits.parse::<u64>().ok()).filter(|minor| i64::try_from(*minor).is_ok());
    minor.map(Some).ok_or("must be \"latest\" or \"v1.x\"")
}

/// The policies that labels ask for, and what is wrong with the labels (upstream's `PolicyToEvaluate`).
fn policies(labels: &BTreeMap<String, String>) -> (Policies, Vec<FieldError>) {
    let open = Policy { level: Level::Privileged, minor: None };
    let (mut errors, mut given) = (Vec::new(), BTreeMap::new());
    let mut read = |mode: &'static str, fallback: Level| {
        let mut policy = open;
        let name = format!("pod-security.kubernetes.io/{mode}");
        let mut wrong = |name: &str, value: &str, why: &str| {
            errors.push(FieldError::invalid(&format!("metadata.labels[{name}]"), &value.into(), why));
        };
        if let Some(value) = labels.get(&name) {
            let parsed = level(value);
            given.insert(mode, parsed.is_ok());
            policy.level = parsed.unwrap_or_else(|why| {
                wrong(&name, value, why);
                fallback
            });
        }
        let name = format!("{name}-version");
        if let Some(value) = labels.get(&name) {
            policy.minor = minor(value).unwrap_or_else(|why| {
                wrong(&name, value, why);
                None
            });
        }
        policy
    };
    // what cannot be read is enforced strictly, and neither audited nor warned of
    let enforce = read("enforce", Level::Restricted);
    let audit = read("audit", Level::Privileged);
    let mut warn = read("warn", Level::Privileged);
    if !given.contains_key("warn") && given.get("enforce") == Some(&true) && enforce.level > warn.level {
        warn.level = enforce.level;
        if !labels.contains_key("pod-security.kubernetes.io/warn-version") {
            warn.minor = enforce.minor;
        }
    }
    (Policies { enforce, audit, warn }, errors)
}

fn violations(policy: Policy, metadata: &Value, spec: &Value) -> Vec<Violation> {
    let minor = policy.minor.unwrap_or(NEWEST_CHECKS).min(NEWEST_CHECKS);
    checks::of(policy.level, minor).into_iter().filter_map(|check| check(metadata, spec)).collect()
}

/// The violations with their details; `None` where there are none.
fn told(policy: Policy, metadata: &Value, spec: &Value) -> Option<String> {
    let violations = violations(policy, metadata, spec);
    let texts = violations.iter().map(|Violation { reason, detail }| match detail.as_str() {
        "" => reason.clone(),
        detail => format!("{reason} ({detail})"),
    });
    let text = texts.collect::<Vec<_>>().join(", ");
    Some(text).filter(|_| !violations.is_empty())
}

/// Judges a write; warnings go to `warn`.
///
/// # Errors
/// 403 for a pod that the namespace does not take, 422 for a namespace with wrong labels.
pub(super) fn validate(
    attributes: &Attributes<'_>,
    object: &Object,
    view: View<'_>,
    warn: &mut Vec<String>,
) -> Result<(), Status> {
    let Attributes { group, resource, subresource, .. } = *attributes;
    match (group, resource) {
        ("", "namespaces") if subresource.is_empty() => namespace(attributes, object, view, warn),
        ("", "pods") if ["", "ephemeralcontainers", "resize"].contains(&subresource) => {
            let significant = attributes.old.is_none_or(|old| changed(&object.to_value(), &old.to_value()));
            if significant { pod(attributes, object, view, warn) } else { Ok(()) }
        }
        ("", "replicationcontrollers" | "podtemplates")
        | ("apps", "replicasets" | "deployments" | "statefulsets" | "daemonsets")
        | ("batch", "jobs" | "cronjobs")
            if subresource.is_empty() =>
        {
            template(attributes, object, view, warn);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn namespace(
    attributes: &Attributes<'_>,
    object: &Object,
    view: View<'_>,
    warn: &mut Vec<String>,
) -> Result<(), Status> {
    let (new, errors) = policies(&object.labels());
    let invalid = || Status::invalid("", "Namespace", object.name(), &errors);
    let (Operation::Update, Some(old)) = (attributes.operation, attributes.old) else {
        return if errors.is_empty() { Ok(()) } else { Err(invalid()) };
    };
    let (before, before_errors) = policies(&old.labels());
    let texts = |errors: &[FieldError]| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    if !errors.is_empty() && texts(&errors) != texts(&before_errors) {
        return Err(invalid());
    }
    let (new, before) = (new.enforce, before.enforce);
    let relaxed = new.minor == before.minor && new.level <= before.level;
    if new != before && new.level != Level::Privileged && !relaxed {
        warn.extend(of_existing(object.name(), new, view));
    }
    Ok(())
}

/// What is said of the pods of a namespace that its new policy would not let in.
fn of_existing(namespace: &str, policy: Policy, view: View<'_>) -> Vec<String> {
    let (mut first, mut more, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for pod in view.list("pods", namespace) {
        // of a controller's pods one is looked at first
        match pod.controller() {
            Some(owner) if seen.contains(&owner.uid) => more.push(pod),
            Some(owner) => {
                seen.push(owner.uid);
                first.push(pod);
            }
            None => first.push(pod),
        }
    }
    first.extend(more);
    let mut found: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.iter().take(PODS_LOOKED_AT) {
        let value = pod.to_value();
        let violations = violations(policy, get(&value, "metadata"), get(&value, "spec"));
        if violations.is_empty() {
            continue;
        }
        let text = violations.into_iter().map(|violation| violation.reason).collect::<Vec<_>>().join(", ");
        let (name, count) = found.entry(text).or_insert_with(|| (pod.name().to_owned(), 0));
        if pod.name() < name.as_str() {
            pod.name().clone_into(name);
        }
        *count += 1;
    }
    let mut warnings = Vec::new();
    if first.len() > PODS_LOOKED_AT {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_LOOKED_AT} of {} existing pods",
            first.len()
        ));
    }
    if !found.is_empty() {
        warnings.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{policy}\""
        ));
    }
    let mut texts: Vec<_> = found
        .into_iter()
        .map(|(text, (pod, count))| match count {
            1 => format!("{pod}: {text}"),
            2 => format!("{pod} (and 1 other pod): {text}"),
            _ => format!("{pod} (and {} other pods): {text}", count - 1),
        })
        .collect();
    texts.sort();
    warnings.extend(texts);
    warnings
}

fn pod(attributes: &Attributes<'_>, object: &Object, view: View<'_>, warn: &mut Vec<String>) -> Result<(), Status> {
    let Some(policies) = policies_of(attributes.namespace, view) else { return Ok(()) };
    let value = object.to_value();
    let (metadata, spec) = (get(&value, "metadata"), get(&value, "spec"));
    if let Some(text) = told(policies.enforce, metadata, spec) {
        let why = format!("violates PodSecurity \"{}\": {text}", policies.enforce);
        return Err(Status::forbidden("", "pods", attributes.name, &why));
    }
    if let Some(text) = told(policies.warn, metadata, spec) {
        warn.push(format!("would violate PodSecurity \"{}\": {text}", policies.warn));
    }
    Ok(())
}

/// Of what makes pods is warned only: the pods are judged when they come.
fn template(attributes: &Attributes<'_>, object: &Object, view: View<'_>, warn: &mut Vec<String>) {
    let Some(policies) = policies_of(attributes.namespace, view) else { return };
    let value = object.to_value();
    let spec = get(&value, "spec");
    let template = match attributes.resource {
        "podtemplates" => get(&value, "template"),
        "cronjobs" => get(get(get(spec, "jobTemplate"), "spec"), "template"),
        _ => get(spec, "template"),
    };
    if template.is_null() {
        return;
    }
    if let Some(text) = told(policies.warn, get(template, "metadata"), get(template, "spec")) {
        warn.push(format!("would violate PodSecurity \"{}\": {text}", policies.warn));
    }
}

/// The policies of a namespace, `None` where it takes everything in silence.
fn policies_of(namespace: &str, view: View<'_>) -> Option<Policies> {
    let (policies, errors) = policies(&view.get("namespaces", "", namespace)?.labels());
    let all = [policies.enforce, policies.audit, policies.warn];
    let open = errors.is_empty() && all.iter().all(|policy| policy.level == Level::Privileged);
    Some(policies).filter(|_| !open)
}

/// Whether an update of a pod touches what policies look at: images, and which containers there are.
fn changed(new: &Value, old: &Value) -> bool {
    let (new, old) = (get(new, "spec"), get(old, "spec"));
    let regular = ["containers", "initContainers"].iter().any(|list| {
        let (new, old) = (items(new, list), items(old, list));
        new.len() != old.len() || new.iter().zip(old).any(|(new, old)| text(new, "image") != text(old, "image"))
    });
    regular
        || items(new, "ephemeralContainers").iter().any(|container| {
            let before =
                items(old, "ephemeralContainers").iter().find(|old| text(old, "name") == text(container, "name"));
            before.is_none_or(|before| text(before, "image") != text(container, "image"))
        })
}

#[cfg(test)]
mod tests;
