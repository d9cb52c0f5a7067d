//! What admission is configured by: policies, their bindings, and webhooks.
//!
//! Upstream: `pkg/apis/admissionregistration/validation/validation.go`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    meta,
    util::{
        Errors, at, child, complain, complain_number, get, has, indexed, int, items, one_of, required, text, texts,
    },
};
use crate::{
    base::{FieldError, Object, names},
    schema::{Scope, Wanted},
};

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const STATIC_SUFFIX: &str = ".static.k8s.io";

/// Upstream's `WarningsForStaticSuffix`.
pub(super) fn warnings(object: &Object, _: Option<&Object>) -> Vec<String> {
    let reserved = object.name().ends_with(STATIC_SUFFIX);
    let text = format!(
        "metadata.name: names ending with \"{STATIC_SUFFIX}\" are reserved for static manifest-based configurations and \
         cannot be managed via the API"
    );
    reserved.then_some(text).into_iter().collect()
}

fn invalid(errors: &mut Errors, field: &str, value: &Value, detail: &str) {
    errors.push(FieldError::invalid(field, value, detail));
}

/// `*` may not stand beside others.
fn lone_wildcard(errors: &mut Errors, rule: &Value, path: &str, key: &str, others: &str) {
    let list = texts(rule, key);
    if list.is_empty() {
        errors.push(FieldError::required(&child(path, key), ""));
    }
    if list.len() > 1 && list.contains(&"*") {
        let detail = format!("if '*' is present, must not specify other {others}");
        invalid(errors, &child(path, key), get(rule, key), &detail);
    }
}

fn resources(errors: &mut Errors, rule: &Value, path: &str) {
    let (field, list) = (child(path, "resources"), texts(rule, "resources"));
    if list.is_empty() {
        errors.push(FieldError::required(&field, ""));
    }
    let (mut whole, mut everywhere) = (BTreeSet::new(), BTreeSet::new());
    let (mut single, mut plain) = (false, false);
    for (index, resource) in list.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if resource.is_empty() {
            errors.push(FieldError::required(&at, ""));
            continue;
        }
        single |= *resource == "*";
        let Some((name, sub)) = resource.split_once('/') else {
            plain = *resource != "*";
            continue;
        };
        if whole.contains(name) {
            let detail = format!("if '{name}/*' is present, must not specify {resource}");
            invalid(errors, &at, &(*resource).into(), &detail);
        }
        if everywhere.contains(sub) {
            let detail = format!("if '*/{sub}' is present, must not specify {resource}");
            invalid(errors, &at, &(*resource).into(), &detail);
        }
        if sub == "*" {
            whole.insert(name);
        }
        if name == "*" {
            everywhere.insert(sub);
        }
    }
    let shown = get(rule, "resources");
    if list.len() > 1 && list.contains(&"*/*") {
        invalid(errors, &field, shown, "if '*/*' is present, must not specify other resources");
    }
    if single && plain {
        let detail = "if '*' is present, must not specify other resources without subresources";
        invalid(errors, &field, shown, detail);
    }
}

fn rule(errors: &mut Errors, rule: &Value, path: &str) {
    lone_wildcard(errors, rule, path, "operations", "operations");
    for (index, operation) in texts(rule, "operations").into_iter().enumerate() {
        if !OPERATIONS.contains(&operation) {
            let field = format!("{path}.operations[{index}]");
            errors.push(FieldError::not_supported(&field, &operation.into(), &OPERATIONS));
        }
    }
    lone_wildcard(errors, rule, path, "apiGroups", "API groups");
    lone_wildcard(errors, rule, path, "apiVersions", "API versions");
    for (index, version) in texts(rule, "apiVersions").into_iter().enumerate() {
        if version.is_empty() {
            errors.push(FieldError::required(&format!("{path}.apiVersions[{index}]"), ""));
        }
    }
    resources(errors, rule, path);
    one_of(errors, rule, path, "scope", &SCOPES, false);
}

fn match_conditions(errors: &mut Errors, parent: &Value, path: &str, params: bool) {
    let count = items(parent, "matchConditions").len();
    if count > 64 {
        errors.push(FieldError::too_many(&child(path, "matchConditions"), count, 64));
    }
    let (scope, mut seen) = (Scope::new(params), BTreeSet::new());
    for (path, condition) in indexed(parent, path, "matchConditions") {
        let (name, expression) = (text(condition, "name"), text(condition, "expression").trim());
        if expression.is_empty() {
            errors.push(FieldError::required(&child(&path, "expression"), ""));
        } else if let Err(detail) = scope.check(expression, Wanted::Bool) {
            invalid(errors, &child(&path, "expression"), &expression.into(), &detail);
        }
        if required(errors, condition, &path, "name") {
            complain(errors, &child(&path, "name"), name, names::qualified_name(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(&child(&path, "name"), &name.into()));
            }
        }
    }
}

fn match_resources(errors: &mut Errors, parent: &Value, path: &str) {
    if !parent.is_object() {
        return;
    }
    one_of(errors, parent, path, "matchPolicy", &MATCH_POLICIES, true);
    for key in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(errors, get(parent, key), &child(path, key));
    }
    for key in ["resourceRules", "excludeResourceRules"] {
        for (path, named) in indexed(parent, path, key) {
            let mut seen = BTreeSet::new();
            for (index, name) in texts(named, "resourceNames").into_iter().enumerate() {
                let field = format!("{path}.resourceNames[{index}]");
                complain(errors, &field, name, names::path_segment(name, false));
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(&field, &name.into()));
                }
            }
            rule(errors, named, &path);
        }
    }
}

fn param_kind(errors: &mut Errors, kind: &Value, path: &str) {
    let (api_version, name) = (text(kind, "apiVersion"), text(kind, "kind"));
    let field = child(path, "apiVersion");
    if required(errors, kind, path, "apiVersion") {
        if api_version.matches('/').count() > 1 {
            let detail = format!("unexpected GroupVersion string: {api_version}");
            invalid(errors, &field, &api_version.into(), &detail);
        } else {
            let (group, version) = names::split_api_version(api_version);
            let wrong = names::dns1123_subdomain(group);
            if !group.is_empty() && !wrong.is_empty() {
                invalid(errors, &field, &group.into(), &wrong.join(","));
            }
            let wrong = names::dns1035_label(version);
            if version.is_empty() {
                invalid(errors, &field, &api_version.into(), "version must be specified");
            } else if !wrong.is_empty() {
                invalid(errors, &field, &version.into(), &wrong.join(","));
            }
        }
    }
    if required(errors, kind, path, "kind") {
        let wrong = names::dns1035_label(&name.to_lowercase());
        if !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            invalid(errors, &child(path, "kind"), &name.into(), &detail);
        }
    }
}

/// Whether a variable may have this name: words of CEL are taken.
fn is_identifier(name: &str) -> bool {
    const RESERVED: [&str; 21] = [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ];
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first == '_' || first.is_ascii_alphabetic())
        && letters.all(|letter| letter == '_' || letter.is_ascii_alphanumeric())
        && !RESERVED.contains(&name)
}

/// An expression that must be there.
fn expression(errors: &mut Errors, parent: &Value, path: &str, key: &str, scope: &Scope, wanted: Wanted) {
    let (source, field) = (text(parent, key), child(path, key));
    if source.trim().is_empty() {
        errors.push(FieldError::required(&field, &format!("{key} is not specified")));
    } else if let Err(detail) = scope.check(source, wanted) {
        invalid(errors, &field, &source.into(), &detail);
    }
}

fn variables(errors: &mut Errors, spec: &Value, scope: &mut Scope) {
    for (path, variable) in indexed(spec, "spec", "variables") {
        let (name, source) = (text(variable, "name"), text(variable, "expression"));
        if name.trim().is_empty() {
            errors.push(FieldError::required(&child(&path, "name"), "name is not specified"));
        } else if !is_identifier(name) {
            invalid(errors, &child(&path, "name"), &name.into(), "must be a valid CEL identifier");
        }
        if source.trim().is_empty() {
            errors.push(FieldError::required(&child(&path, "expression"), "expression is not specified"));
        } else if let Err(detail) = scope.declare(name, source) {
            invalid(errors, &child(&path, "expression"), &source.into(), &detail);
        }
    }
}

fn validation(errors: &mut Errors, validation: &Value, path: &str, scope: &Scope) {
    const REASONS: [&str; 3] = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
    expression(errors, validation, path, "expression", scope, Wanted::Bool);
    let computed = text(validation, "messageExpression");
    if !computed.is_empty() {
        let field = child(path, "messageExpression");
        if computed.trim().is_empty() {
            invalid(errors, &field, &computed.into(), "must be non-empty if specified");
        } else if let Err(detail) = scope.check(computed, Wanted::Message) {
            invalid(errors, &field, &computed.into(), &detail);
        }
    }
    let message = text(validation, "message");
    if !message.is_empty() && message.trim().is_empty() {
        invalid(errors, &child(path, "message"), &message.into(), "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        invalid(errors, &child(path, "message"), &message.into(), "must not contain line breaks");
    }
    if let Some(reason) = get(validation, "reason").as_str().filter(|reason| !REASONS.contains(reason)) {
        errors.push(FieldError::not_supported(&child(path, "reason"), &reason.into(), &REASONS));
    }
}

fn audit_annotations(errors: &mut Errors, policy: &Object, spec: &Value, scope: &Scope) {
    const FIELD: &str = "spec.auditAnnotations";
    const LONGEST: usize = 5 * 1024;
    let count = items(spec, "auditAnnotations").len();
    if count > 20 {
        invalid(errors, FIELD, get(spec, "auditAnnotations"), "must not have more than 20 auditAnnotations");
    }
    let mut seen = BTreeSet::new();
    for (path, annotation) in indexed(spec, "spec", "auditAnnotations") {
        let (key, source) = (text(annotation, "key"), text(annotation, "valueExpression").trim());
        if policy.name().is_empty() {
            invalid(errors, &child(&path, "key"), &key.into(), "requires metadata.name be non-empty");
        } else {
            let full = format!("{}/{key}", policy.name());
            complain(errors, &child(&path, "key"), &full, names::qualified_name(&full));
        }
        let field = child(&path, "valueExpression");
        if source.is_empty() {
            errors.push(FieldError::required(&field, "valueExpression is not specified"));
        } else if source.len() > LONGEST {
            errors.push(FieldError::required(&field, &format!("must not exceed {LONGEST} bytes in length")));
        } else if let Err(detail) = scope.check(source, Wanted::TextOrNull) {
            invalid(errors, &field, get(annotation, "valueExpression"), &detail);
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(&child(&path, "key"), &key.into()));
        }
    }
}

/// What both kinds of policies have; what their own expressions may name.
fn policy_head(errors: &mut Errors, spec: &Value, mutating: bool) -> Scope {
    one_of(errors, spec, "spec", "failurePolicy", &FAILURE_POLICIES, true);
    let params = has(spec, "paramKind");
    if params {
        param_kind(errors, get(spec, "paramKind"), "spec.paramKind");
    }
    let constraints = get(spec, "matchConstraints");
    if constraints.is_null() {
        errors.push(FieldError::required("spec.matchConstraints", ""));
    } else {
        match_resources(errors, constraints, "spec.matchConstraints");
        if items(constraints, "resourceRules").is_empty() {
            errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
        }
        if mutating {
            no_deletions(errors, constraints, "spec.matchConstraints");
        }
    }
    match_conditions(errors, spec, "spec", params);
    let mut scope = Scope::new(params);
    variables(errors, spec, &mut scope);
    scope
}

/// What is deleted cannot be changed.
fn no_deletions(errors: &mut Errors, resources: &Value, path: &str) {
    const CHANGEABLE: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
    for rule in items(resources, "resourceRules") {
        for operation in texts(rule, "operations").into_iter().filter(|operation| !CHANGEABLE.contains(operation)) {
            let field = format!("{path}.resourceRules.operations");
            errors.push(FieldError::not_supported(&field, &operation.into(), &CHANGEABLE));
        }
    }
}

fn mutation(errors: &mut Errors, mutation: &Value, path: &str, scope: &Scope) {
    const OWN: [(&str, &str, Wanted); 2] =
        [("ApplyConfiguration", "applyConfiguration", Wanted::Object), ("JSONPatch", "jsonPatch", Wanted::Patches)];
    if !required(errors, mutation, path, "patchType") {
        return;
    }
    let kind = text(mutation, "patchType");
    if !OWN.iter().any(|(own, ..)| *own == kind) {
        let field = child(path, "patchType");
        return errors.push(FieldError::not_supported(&field, &kind.into(), &OWN.map(|(own, ..)| own)));
    }
    for (own, key, wanted) in OWN.into_iter().filter(|(own, ..)| *own == kind) {
        let field = child(path, key);
        if !has(mutation, key) {
            errors.push(FieldError::required(&field, &format!("must be specified when patchType is {own}")));
            continue;
        }
        let (source, field) = (text(get(mutation, key), "expression").trim(), child(&field, "expression"));
        if source.is_empty() {
            errors.push(FieldError::required(&field, ""));
        } else if let Err(detail) = scope.check(source, wanted) {
            invalid(errors, &field, &source.into(), &detail);
        }
    }
    for (_, key, _) in OWN.into_iter().filter(|(own, key, _)| *own != kind && has(mutation, key)) {
        let detail = format!("must not be specified when patchType is {kind}");
        invalid(errors, &child(path, key), &format!("{{{key}}}").into(), &detail);
    }
}

pub(super) fn validate_mutating_policy(policy: &Object) -> Errors {
    let mut errors = Vec::new();
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    let scope = policy_head(&mut errors, spec, true);
    if items(spec, "mutations").is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (path, item) in indexed(spec, "spec", "mutations") {
        mutation(&mut errors, item, &path, &scope);
    }
    one_of(&mut errors, spec, "spec", "reinvocationPolicy", &["IfNeeded", "Never"], true);
    errors
}

pub(super) fn validate_mutating_binding(binding: &Object) -> Errors {
    let mut errors = Vec::new();
    let spec = binding.get("spec").unwrap_or(&Value::Null);
    binding_head(&mut errors, spec);
    no_deletions(&mut errors, get(spec, "matchResources"), "spec.matchResources");
    errors
}

fn binding_head(errors: &mut Errors, spec: &Value) {
    if required(errors, spec, "spec", "policyName") {
        let name = text(spec, "policyName");
        complain(errors, "spec.policyName", name, names::name_is_subdomain(name, false));
    }
    if has(spec, "paramRef") {
        param_ref(errors, get(spec, "paramRef"), "spec.paramRef");
    }
    match_resources(errors, get(spec, "matchResources"), "spec.matchResources");
}

pub(super) fn validate_policy(policy: &Object) -> Errors {
    let mut errors = Vec::new();
    let spec = policy.get("spec").unwrap_or(&Value::Null);
    let scope = policy_head(&mut errors, spec, false);
    if items(spec, "validations").is_empty() && items(spec, "auditAnnotations").is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(FieldError::required("spec.validations", detail));
        errors.push(FieldError::required("spec.auditAnnotations", detail));
        return errors;
    }
    for (path, item) in indexed(spec, "spec", "validations") {
        validation(&mut errors, item, &path, &scope);
    }
    audit_annotations(&mut errors, policy, spec, &scope);
    errors
}

fn param_ref(errors: &mut Errors, reference: &Value, path: &str) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let (name, selector) = (text(reference, "name"), get(reference, "selector"));
    if !name.is_empty() {
        complain(errors, &child(path, "name"), name, names::path_segment(name, false));
        if !selector.is_null() {
            errors.push(FieldError::forbidden(&child(path, "name"), EXCLUSIVE));
        }
    }
    if !selector.is_null() {
        meta::label_selector(errors, selector, &child(path, "selector"));
        if !name.is_empty() {
            errors.push(FieldError::forbidden(&child(path, "selector"), EXCLUSIVE));
        }
    }
    if name.is_empty() && selector.is_null() {
        errors.push(FieldError::required(path, "one of name or selector must be specified"));
    }
    one_of(errors, reference, path, "parameterNotFoundAction", &["Deny", "Allow"], true);
}

pub(super) fn validate_policy_binding(binding: &Object) -> Errors {
    const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
    let mut errors = Vec::new();
    let spec = binding.get("spec").unwrap_or(&Value::Null);
    binding_head(&mut errors, spec);
    let (field, actions) = ("spec.validationActions", texts(spec, "validationActions"));
    let mut seen = BTreeSet::new();
    for (index, action) in actions.iter().copied().enumerate() {
        let field = format!("{field}[{index}]");
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(&field, &action.into(), &ACTIONS));
        }
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(&field, &action.into()));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the API \
                      response and headers serves no purpose)";
        invalid(&mut errors, field, get(spec, "validationActions"), detail);
    }
    if seen.is_empty() {
        errors.push(FieldError::required(field, "at least one validation action is required"));
    }
    errors
}

/// Upstream's `ValidateWebhookURL`.
fn url(errors: &mut Errors, text: &str, field: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if scheme != "https" {
        invalid(errors, field, &scheme.into(), &format!("'https' is the only allowed URL scheme{FORM}"));
    }
    if host.is_empty() {
        invalid(errors, field, &host.into(), &format!("host must be specified{FORM}"));
    }
    if !user.is_empty() {
        invalid(errors, field, &user.into(), "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        invalid(errors, field, &fragment.into(), "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        invalid(errors, field, &query.into(), "query parameters are not permitted in the URL");
    }
}

/// Upstream's `ValidateWebhookService`. Webhooks of admission hand it name and namespace the wrong way round, so that
/// each is missed under the other's name.
fn service(errors: &mut Errors, service: &Value, path: &str) {
    for (missing, told) in [("namespace", "name"), ("name", "namespace")] {
        if text(service, missing).is_empty() {
            errors.push(FieldError::required(&child(path, told), ""));
        }
    }
    let port = int(service, "port").unwrap_or(443);
    let wrong = names::port_number(port);
    if !wrong.is_empty() {
        complain_number(errors, &child(path, "port"), port, vec![format!("port is not valid: {}", wrong.join(", "))]);
    }
    let (url_path, field) = (text(service, "path"), child(path, "path"));
    if url_path.is_empty() || url_path == "/" {
        return;
    }
    if url_path == "//" {
        return invalid(errors, &field, &url_path.into(), "segment[0] may not be empty");
    }
    if !url_path.starts_with('/') {
        invalid(errors, &field, &url_path.into(), "must start with a '/'");
    }
    let checked: String = url_path.chars().skip(1).collect();
    for (index, step) in checked.strip_suffix('/').unwrap_or(&checked).split('/').enumerate() {
        if step.is_empty() {
            invalid(errors, &field, &url_path.into(), &format!("segment[{index}] may not be empty"));
            continue;
        }
        for why in names::dns1123_subdomain(step) {
            invalid(errors, &field, &url_path.into(), &format!("segment[{index}]: {why}"));
        }
    }
}

fn review_versions(errors: &mut Errors, hook: &Value, path: &str) {
    let (field, versions) = (child(path, "admissionReviewVersions"), texts(hook, "admissionReviewVersions"));
    if versions.is_empty() {
        let detail = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::required(&field, &detail));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().copied().enumerate() {
        let field = format!("{field}[{index}]");
        if !seen.insert(version) {
            invalid(errors, &field, &version.into(), "duplicate version");
            continue;
        }
        complain(errors, &field, version, names::dns1035_label(version));
    }
    if !versions.iter().any(|version| REVIEW_VERSIONS.contains(version)) {
        let detail = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        invalid(errors, &field, get(hook, "admissionReviewVersions"), &detail);
    }
}

fn webhook(errors: &mut Errors, hook: &Value, path: &str) {
    const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
    let name = text(hook, "name");
    if required(errors, hook, path, "name") {
        let wrong = names::dns1123_subdomain(name);
        if !wrong.is_empty() {
            invalid(errors, &child(path, "name"), &name.into(), &wrong.join(","));
        } else if name.split('.').count() < 3 {
            let detail = "should be a domain with at least three segments separated by dots";
            invalid(errors, &child(path, "name"), &name.into(), detail);
        }
    }
    for (path, item) in indexed(hook, path, "rules") {
        rule(errors, item, &path);
    }
    one_of(errors, hook, path, "failurePolicy", &FAILURE_POLICIES, false);
    one_of(errors, hook, path, "matchPolicy", &MATCH_POLICIES, false);
    match text(hook, "sideEffects") {
        "" => {
            let detail = format!("must specify one of {}", SIDE_EFFECTS.join(", "));
            errors.push(FieldError::required(&child(path, "sideEffects"), &detail));
        }
        class if !SIDE_EFFECTS.contains(&class) => {
            errors.push(FieldError::not_supported(&child(path, "sideEffects"), &class.into(), &SIDE_EFFECTS));
        }
        _ => {}
    }
    if let Some(seconds) = int(hook, "timeoutSeconds").filter(|seconds| !(1..=30).contains(seconds)) {
        let detail = "the timeout value must be between 1 and 30 seconds";
        invalid(errors, &child(path, "timeoutSeconds"), &seconds.into(), detail);
    }
    for key in ["namespaceSelector", "objectSelector"] {
        meta::label_selector(errors, get(hook, key), &child(path, key));
    }
    one_of(errors, hook, path, "reinvocationPolicy", &["IfNeeded", "Never"], false);
    let (client, field) = (get(hook, "clientConfig"), child(path, "clientConfig"));
    match (get(client, "url").as_str(), get(client, "service")) {
        (None, Value::Object(_)) => service(errors, get(client, "service"), &child(&field, "service")),
        (Some(text), Value::Null) => url(errors, text, &child(&field, "url")),
        _ => errors.push(FieldError::required(&field, "exactly one of url or service is required")),
    }
    match_conditions(errors, hook, path, false);
}

pub(super) fn validate_webhooks(configuration: &Object) -> Errors {
    let (mut errors, mut seen) = (Vec::new(), BTreeSet::new());
    for (path, hook) in indexed(at(configuration.as_value(), &[]), "", "webhooks") {
        webhook(&mut errors, hook, &path);
        review_versions(&mut errors, hook, &path);
        let name = text(hook, "name");
        if !name.is_empty() && !seen.insert(name) {
            errors.push(FieldError::duplicate(&child(&path, "name"), &name.into()));
        }
    }
    errors
}
