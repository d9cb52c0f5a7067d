//! Roles and their bindings.
//!
//! Upstream: `pkg/apis/rbac/v1/defaults.go` and `pkg/apis/rbac/validation`.

use serde_json::Value;

use super::{
    meta,
    util::{
        Errors, GoMember, child, complain, default_to, each_mut, get, go_struct, indexed, items, make_map, required,
        text,
    },
};
use crate::base::{FieldError, Object, names};

const RBAC: &str = "rbac.authorization.k8s.io";

pub(super) fn default_role(object: &mut Object) {
    // the list is written even where there is none
    if object.get("rules").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        object.set("rules", Value::Null);
    }
}

pub(super) fn default_binding(object: &mut Object) {
    let role = make_map(object.as_map_mut(), "roleRef");
    default_to(role, "apiGroup", RBAC);
    each_mut(object.as_map_mut(), "subjects", |subject| {
        if matches!(subject.get("kind").and_then(Value::as_str), Some("User" | "Group")) {
            default_to(subject, "apiGroup", RBAC);
        }
    });
}

fn rules(object: &Object, cluster: bool) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    for (path, rule) in indexed(&value, "", "rules") {
        let count = |key: &str| items(rule, key).len();
        if count("verbs") == 0 {
            errors.push(FieldError::required(&child(&path, "verbs"), "verbs must contain at least one value"));
        }
        if count("nonResourceURLs") > 0 {
            let urls = get(rule, "nonResourceURLs");
            if !cluster {
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(&child(&path, "nonResourceURLs"), urls, why));
            }
            if count("apiGroups") + count("resources") + count("resourceNames") > 0 {
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(&child(&path, "nonResourceURLs"), urls, why));
            }
            continue;
        }
        if count("apiGroups") == 0 {
            let why = "resource rules must supply at least one api group";
            errors.push(FieldError::required(&child(&path, "apiGroups"), why));
        }
        if count("resources") == 0 {
            let why = "resource rules must supply at least one resource";
            errors.push(FieldError::required(&child(&path, "resources"), why));
        }
    }
    errors
}

pub(super) fn validate_role(object: &Object) -> Errors {
    rules(object, false)
}

pub(super) fn validate_role_update(new: &Object, _: &Object, _: &str) -> Errors {
    rules(new, false)
}

pub(super) fn validate_cluster_role(object: &Object) -> Errors {
    let (mut errors, value) = (rules(object, true), object.to_value());
    let rule = get(&value, "aggregationRule");
    let field = "aggregationRule.clusterRoleSelectors";
    if rule.is_object() && items(rule, "clusterRoleSelectors").is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        errors.push(FieldError::required(field, why));
    }
    for (path, selector) in indexed(rule, "aggregationRule", "clusterRoleSelectors") {
        meta::label_selector(&mut errors, selector, &path);
    }
    errors
}

pub(super) fn validate_cluster_role_update(new: &Object, _: &Object, _: &str) -> Errors {
    validate_cluster_role(new)
}

fn binding(object: &Object, cluster: bool) -> Errors {
    let (mut errors, value) = (Vec::new(), object.to_value());
    let role = get(&value, "roleRef");
    if text(role, "apiGroup") != RBAC {
        errors.push(FieldError::not_supported("roleRef.apiGroup", &text(role, "apiGroup").into(), &[RBAC]));
    }
    let known: &[&str] = if cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    if !known.contains(&text(role, "kind")) {
        errors.push(FieldError::not_supported("roleRef.kind", &text(role, "kind").into(), known));
    }
    let name = text(role, "name");
    if required(&mut errors, role, "roleRef", "name") {
        complain(&mut errors, "roleRef.name", name, names::path_segment(name, false));
    }
    for (path, subject) in indexed(&value, "", "subjects") {
        let (kind, group, name) = (text(subject, "kind"), text(subject, "apiGroup"), text(subject, "name"));
        required(&mut errors, subject, &path, "name");
        match kind {
            "ServiceAccount" => {
                if !name.is_empty() {
                    complain(&mut errors, &child(&path, "name"), name, names::dns1123_subdomain(name));
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(&child(&path, "apiGroup"), &group.into(), &[""]));
                }
                if cluster {
                    required(&mut errors, subject, &path, "namespace");
                }
            }
            "User" | "Group" => {
                if group != RBAC {
                    errors.push(FieldError::not_supported(&child(&path, "apiGroup"), &group.into(), &[RBAC]));
                }
            }
            other => {
                let known = ["ServiceAccount", "User", "Group"];
                errors.push(FieldError::not_supported(&child(&path, "kind"), &other.into(), &known));
            }
        }
    }
    errors
}

fn binding_update(new: &Object, old: &Object, cluster: bool) -> Errors {
    let mut errors = binding(new, cluster);
    let role = |object: &Object| object.get("roleRef").cloned().unwrap_or_default();
    if role(new) != role(old) {
        const MEMBERS: [GoMember; 3] = [
            GoMember("APIGroup", "apiGroup", "\"\"", &[]),
            GoMember("Kind", "kind", "\"\"", &[]),
            GoMember("Name", "name", "\"\"", &[]),
        ];
        let shown = go_struct(&role(new), &MEMBERS);
        errors.push(FieldError::invalid_shown("roleRef", &shown, "cannot change roleRef"));
    }
    errors
}

pub(super) fn validate_role_binding(object: &Object) -> Errors {
    binding(object, false)
}

pub(super) fn validate_role_binding_update(new: &Object, old: &Object, _: &str) -> Errors {
    binding_update(new, old, false)
}

pub(super) fn validate_cluster_role_binding(object: &Object) -> Errors {
    binding(object, true)
}

pub(super) fn validate_cluster_role_binding_update(new: &Object, old: &Object, _: &str) -> Errors {
    binding_update(new, old, true)
}
