//! Certificate signing requests: who asks for which certificate, whether that was approved, and what was signed.
//!
//! Upstream: `pkg/registry/certificates/certificates/strategy.go`, `pkg/apis/certificates/validation/validation.go` and
//! `pkg/apis/core/validation/validation.go` (`ValidateSignerName`).

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::{
    core::{keep_other_half, restore},
    util::{Errors, get, int, items, text, texts},
};
use crate::base::{FieldError, Object, names, status::go_quote};

mod request;

/// Conditions that decide about a request, and are written through `approval` alone.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// Conditions that are true or not there.
const TRUE_ONLY: [&str; 3] = ["Approved", "Denied", "Failed"];

const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// The organizations that a request names its subject by.
///
/// # Errors
/// Upstream's words for what is no request.
pub fn organizations(object: &Object) -> Result<Vec<String>, String> {
    Ok(request::parse(&pem(object, &["spec", "request"]))?.organizations)
}

fn pem(object: &Object, path: &[&str]) -> Vec<u8> {
    BASE64.decode(object.str_at(path)).unwrap_or_default()
}

pub(super) fn create(object: &mut Object) {
    for key in ["username", "uid", "groups", "extra"] {
        object.remove_at(&["spec", key]); // the registry says who it is
    }
    object.set("status", json!({}));
}

fn conditions(object: &Object) -> Vec<Value> {
    object.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn set_conditions(object: &mut Object, conditions: Vec<Value>) {
    if conditions.is_empty() {
        object.remove_at(&["status", "conditions"]);
    } else {
        object.set_at(&["status", "conditions"], Value::Array(conditions));
    }
}

fn of_type<'a>(conditions: &'a [Value], kind: &str) -> Vec<&'a Value> {
    conditions.iter().filter(|condition| text(condition, "type") == kind).collect()
}

pub(super) fn update(new: &mut Object, old: &Object, subresource: &str) {
    let (mut own, before) = (conditions(new), conditions(old));
    match subresource {
        "status" => {
            keep_other_half(new, old, "status");
            for kind in DECISIONS {
                let kept: Vec<Value> = of_type(&before, kind).into_iter().cloned().collect();
                let places = own.iter_mut().filter(|condition| text(condition, "type") == kind);
                let places: Vec<&mut Value> = places.collect();
                if places.len() == kept.len() {
                    places.into_iter().zip(kept).for_each(|(place, kept)| *place = kept);
                }
            }
            set_conditions(new, own);
        }
        "approval" => {
            restore(new, old, "spec");
            restore(new, old, "status");
            set_conditions(new, own);
        }
        _ => {
            restore(new, old, "spec");
            restore(new, old, "status");
        }
    }
}

/// Upstream's `populateConditionTimestamps`.
pub(super) fn stamp(new: &mut Object, old: &Object, now: &str) {
    let (mut own, before) = (conditions(new), conditions(old));
    if own.is_empty() {
        return;
    }
    for condition in &mut own {
        let same = |old: &&Value| ["type", "status"].iter().all(|key| text(old, key) == text(condition, key));
        let since = before.iter().find(same).map(|old| text(old, "lastTransitionTime").to_owned());
        let since = since.filter(|since| !since.is_empty());
        for (key, time) in [("lastUpdateTime", now), ("lastTransitionTime", since.as_deref().unwrap_or(now))] {
            if text(condition, key).is_empty() {
                condition[key] = time.into();
            }
        }
    }
    set_conditions(new, own);
}

pub(super) fn validate(object: &Object) -> Errors {
    validate_both(object, None)
}

/// As on create; what an old request has wrong it may keep.
fn validate_both(object: &Object, old: Option<&Object>) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let spec = get(&value, "spec");
    if let Err(why) = request::check(&pem(object, &["spec", "request"])) {
        errors.push(FieldError::invalid("spec.request", get(spec, "request"), &why));
    }
    let usages = texts(spec, "usages");
    if usages.is_empty() {
        errors.push(FieldError::required("spec.usages", ""));
    }
    let before = old.and_then(|old| old.get("spec")).cloned().unwrap_or_default();
    let before = texts(&before, "usages");
    let doubled = |usages: &[&str]| (1..usages.len()).any(|index| usages[..index].contains(&usages[index]));
    if before.iter().all(|usage| USAGES.contains(usage)) {
        for (index, usage) in usages.iter().enumerate().filter(|(_, usage)| !USAGES.contains(usage)) {
            errors.push(FieldError::not_supported(&format!("spec.usages[{index}]"), &(*usage).into(), &USAGES));
        }
    }
    if !doubled(&before) {
        for (index, usage) in usages.iter().enumerate().filter(|(index, usage)| usages[..*index].contains(usage)) {
            errors.push(FieldError::duplicate(&format!("spec.usages[{index}]"), &(*usage).into()));
        }
    }
    let signer = text(spec, "signerName");
    if signer == LEGACY_SIGNER && old.is_none_or(|old| old.str_at(&["spec", "signerName"]) != LEGACY_SIGNER) {
        let why = "the legacy signerName is not allowed via this API version";
        errors.push(FieldError::invalid("spec.signerName", &signer.into(), why));
    } else {
        validate_signer(&mut errors, signer);
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|seconds| *seconds < 600) {
        let why = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &seconds.into(), why));
    }
    validate_conditions(&mut errors, get(&value, "status"), old);
    let certificate = object.str_at(&["status", "certificate"]);
    if old.is_none_or(|old| old.str_at(&["status", "certificate"]) != certificate)
        && let Err(why) = request::check_certificate(&pem(object, &["status", "certificate"]))
    {
        errors.push(FieldError::invalid("status.certificate", &"<certificate data>".into(), &why));
    }
    errors
}

fn validate_signer(errors: &mut Errors, signer: &str) {
    const FIELD: &str = "spec.signerName";
    if signer.is_empty() {
        return errors.push(FieldError::required(FIELD, ""));
    }
    let Some((domain, path)) = signer.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return errors.push(FieldError::invalid(FIELD, &signer.into(), why));
    };
    validate_labels(errors, domain, names::dns1123_label);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(FIELD, &domain.into(), why));
    }
    validate_labels(errors, path, names::dns1123_subdomain);
}

/// Tells what is wrong with the first of the labels between dots that is wrong.
fn validate_labels(errors: &mut Errors, part: &str, check: fn(&str) -> Vec<String>) {
    for label in part.split('.') {
        let wrong = check(label);
        for why in &wrong {
            let why = format!("validating label {}: {why}", go_quote(label));
            errors.push(FieldError::invalid("spec.signerName", &part.into(), &why));
        }
        if !wrong.is_empty() {
            return;
        }
    }
}

fn validate_conditions(errors: &mut Errors, status: &Value, old: Option<&Object>) {
    const FIELD: &str = "status.conditions";
    let before = old.map(conditions).unwrap_or_default();
    let both_before = DECISIONS.iter().all(|kind| !of_type(&before, kind).is_empty());
    let mut seen: Vec<&str> = Vec::new();
    for (index, condition) in items(status, "conditions").iter().enumerate() {
        let (kind, state) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            errors.push(FieldError::required(&format!("{FIELD}[{index}].type"), ""));
        }
        let field = format!("{FIELD}[{index}].status");
        let allowed: &[&str] = if TRUE_ONLY.contains(&kind) { &["True"] } else { &["False", "True", "Unknown"] };
        if state.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else if !allowed.contains(&state) {
            errors.push(FieldError::not_supported(&field, &state.into(), allowed));
        }
        let decided = |seen: &[&str]| DECISIONS.iter().any(|other| *other != kind && seen.contains(other));
        if DECISIONS.contains(&kind) && decided(&seen) && !both_before {
            let why = "Approved and Denied conditions are mutually exclusive";
            errors.push(FieldError::invalid(FIELD, &kind.into(), why));
        }
        if seen.contains(&kind) {
            errors.push(FieldError::duplicate(&format!("{FIELD}[{index}].type"), &kind.into()));
        }
        seen.push(kind);
    }
}

pub(super) fn validate_update(new: &Object, old: &Object, subresource: &str) -> Errors {
    const FIELD: &str = "status.conditions";
    let mut errors = validate_both(new, Some(old));
    let (own, before) = (conditions(new), conditions(old));
    for kind in TRUE_ONLY {
        if of_type(&own, kind).len() < of_type(&before, kind).len() {
            let why = format!("updates may not remove a condition of type {}", go_quote(kind));
            errors.push(FieldError::forbidden(FIELD, &why));
        }
    }
    if subresource != "approval" {
        for kind in DECISIONS {
            let (own, before) = (of_type(&own, kind), of_type(&before, kind));
            if own.len() > before.len() {
                let why = format!("updates may not add a condition of type {}", go_quote(kind));
                errors.push(FieldError::forbidden(FIELD, &why));
            } else if own.len() == before.len() && own != before {
                let why = format!("updates may not modify a condition of type {}", go_quote(kind));
                errors.push(FieldError::forbidden(FIELD, &why));
            }
        }
    }
    let certificate = |object: &Object| object.str_at(&["status", "certificate"]).to_owned();
    if certificate(new) != certificate(old) {
        if subresource != "status" {
            errors.push(FieldError::forbidden("status.certificate", "updates may not set certificate content"));
        } else if !certificate(old).is_empty() {
            let why = "updates may not modify existing certificate content";
            errors.push(FieldError::forbidden("status.certificate", why));
        }
    }
    errors
}

pub(super) fn signer_name(object: &Object) -> String {
    object.str_at(&["spec", "signerName"]).to_owned()
}
