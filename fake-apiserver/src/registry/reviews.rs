//! Kinds that are asked, not stored: who am I, who is that, may I, may they.
//!
//! Upstream: `pkg/registry/authorization`, `pkg/registry/authentication` and the validation of both groups under
//! `pkg/apis`.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value, json};

use super::{Body, Caller, Registry, Target, decode, identity};
use crate::{
    access::{Attributes, Place, What},
    admission::Operation,
    base::{
        FieldError, Object, Status, Stored, User, names,
        selector::{FieldSelector, LabelSelector},
    },
    fields,
};

type Errors = Vec<FieldError>;

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn texts(value: &Value, key: &str) -> Vec<String> {
    list(value, key).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// A member that is there and not null.
fn member<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.get(key).filter(|value| !value.is_null())
}

impl Registry {
    pub(super) async fn review(&self, target: &Target, caller: &Caller, body: Body) -> Result<Arc<Stored>, Status> {
        let resource = &target.resource;
        let mut object = decode::decode(resource, &self.catalog(), caller, body)?;
        identity::take_namespace(target, &mut object)?;
        for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "uid"] {
            object.metadata_mut().remove(key);
        }
        let writer = self.writer(target, caller, object.api_version().to_owned());
        fields::track(None, &mut object, resource.schema(), &writer.borrowed());
        self.admit(target, Operation::Create, None, &mut object)?;
        let spec = object.get("spec").cloned().unwrap_or_else(|| json!({}));
        let kind = resource.kind.as_str();
        match kind {
            "SelfSubjectReview" => {
                object = fresh(resource.api_version(), kind);
                object.metadata_mut().insert("creationTimestamp".into(), self.clock().now_text().into());
                object.set("status", json!({"userInfo": user_info(&caller.user)}));
            }
            "TokenReview" => {
                let status = self.review_token(&spec)?;
                object.set("status", status);
            }
            "SelfSubjectRulesReview" => {
                let namespace = text(&spec, "namespace");
                if namespace.is_empty() {
                    return Err(Status::bad_request("no namespace on request"));
                }
                object = fresh(resource.api_version(), kind);
                object.set("spec", json!({}));
                object.set("status", self.rules_status(&caller.user, namespace));
            }
            "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
                let errors = check_access_review(kind, &object, &spec);
                if !errors.is_empty() {
                    return Err(Status::invalid(&resource.gvr.group, "", "", &errors)); // upstream does not name the kind
                }
                let user = match kind {
                    "SelfSubjectAccessReview" => caller.user.clone(),
                    _ => subject(&spec),
                };
                object.set("status", self.access_status(&user, &spec));
            }
            _ => return Err(Status::method_not_allowed()),
        }
        Ok(Arc::new(Stored::new(object)))
    }

    /// `status` of an access review.
    fn access_status(&self, user: &User, spec: &Value) -> Value {
        let mut ignored = Vec::new();
        let (verb, what) = if let Some(attributes) = member(spec, "resourceAttributes") {
            ignored = ignored_selectors(attributes);
            let place = Place {
                group: text(attributes, "group"),
                resource: text(attributes, "resource"),
                subresource: text(attributes, "subresource"),
                namespace: text(attributes, "namespace"),
                name: text(attributes, "name"),
            };
            (text(attributes, "verb"), What::Resource(place))
        } else {
            let attributes = &spec["nonResourceAttributes"];
            (text(attributes, "verb"), What::Path(text(attributes, "path")))
        };
        let (allowed, reason) = match self.authorize(&Attributes { user, verb, what }) {
            Ok(grant) => (true, grant.to_string()),
            Err(reason) => (false, reason),
        };
        let mut status = json!({"allowed": allowed});
        if !reason.is_empty() {
            status["reason"] = reason.into();
        }
        if !ignored.is_empty() {
            status["evaluationError"] = ignored.join("; ").into();
        }
        status
    }

    fn rules_status(&self, user: &User, namespace: &str) -> Value {
        let (rules, problem) = self.rules_for(user, namespace);
        let (mut of_resources, mut of_paths) = (Vec::new(), Vec::new());
        for rule in &rules {
            if !rule.resources.is_empty() {
                let mut shown = json!({"verbs": rule.verbs, "apiGroups": rule.api_groups, "resources": rule.resources});
                if !rule.resource_names.is_empty() {
                    shown["resourceNames"] = json!(rule.resource_names);
                }
                of_resources.push(shown);
            }
            if !rule.non_resource_urls.is_empty() {
                of_paths.push(json!({"verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls}));
            }
        }
        let mut status = json!({"resourceRules": of_resources, "nonResourceRules": of_paths, "incomplete": false});
        if let Some(problem) = problem {
            status["evaluationError"] = problem.into();
        }
        status
    }

    /// `status` of a token review.
    fn review_token(&self, spec: &Value) -> Result<Value, Status> {
        let token = text(spec, "token");
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        // Upstream puts the token behind `Bearer ` and looks no further than the first space.
        let token = token.split(' ').next().unwrap_or_default();
        let audiences = texts(spec, "audiences");
        let known = self.authenticate(token, (!audiences.is_empty()).then_some(audiences.as_slice()));
        Ok(match known {
            Ok(known) => {
                json!({"authenticated": true, "user": user_info(&known.user), "audiences": known.audiences})
            }
            Err(error) => json!({"user": {}, "error": error}),
        })
    }
}

/// An answer that keeps nothing of the question.
fn fresh(api_version: String, kind: &str) -> Object {
    let mut object = Object::default();
    object.set("apiVersion", api_version);
    object.set("kind", kind);
    object.set("metadata", json!({}));
    object
}

/// A user as `UserInfo`.
pub(super) fn user_info(user: &User) -> Value {
    let User { name, uid, groups, extra } = user;
    let mut info = Map::new();
    if !name.is_empty() {
        info.insert("username".into(), name.as_str().into());
    }
    if !uid.is_empty() {
        info.insert("uid".into(), uid.as_str().into());
    }
    if !groups.is_empty() {
        info.insert("groups".into(), json!(groups));
    }
    if !extra.is_empty() {
        info.insert("extra".into(), json!(extra));
    }
    info.into()
}

/// The user that a `SubjectAccessReview` asks about.
fn subject(spec: &Value) -> User {
    let extra: BTreeMap<String, Vec<String>> = spec
        .get("extra")
        .and_then(Value::as_object)
        .map_or_else(BTreeMap::new, |map| map.keys().map(|key| (key.clone(), texts(&spec["extra"], key))).collect());
    User { name: text(spec, "user").into(), uid: text(spec, "uid").into(), groups: texts(spec, "groups"), extra }
}

/// Upstream's `pkg/apis/authorization/validation`.
fn check_access_review(kind: &str, object: &Object, spec: &Value) -> Errors {
    let mut errors = Errors::new();
    let of_resource = member(spec, "resourceAttributes");
    let of_path = member(spec, "nonResourceAttributes");
    match (of_resource, of_path) {
        (Some(_), Some(path)) => errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            &path_attributes(path),
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(FieldError::invalid(
            "spec.resourceAttributes",
            &Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    if kind != "SelfSubjectAccessReview" && text(spec, "user").is_empty() && list(spec, "groups").is_empty() {
        let why = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &"".into(), why));
    }
    if let Some(attributes) = of_resource {
        for (key, labels) in [("fieldSelector", false), ("labelSelector", true)] {
            if let Some(selector) = member(attributes, key) {
                check_selector(&mut errors, selector, &format!("spec.resourceAttributes.{key}"), labels);
            }
        }
    }
    let local = kind == "LocalSubjectAccessReview";
    let mut metadata = object.metadata().cloned().unwrap_or_default();
    metadata.retain(|key, value| !(key == "managedFields" || value.is_null() || local && key == "namespace"));
    if !metadata.is_empty() {
        let why = if local { "must be empty except for namespace" } else { "must be empty" };
        let whole = Value::Object(object.metadata().cloned().unwrap_or_default());
        errors.push(FieldError::invalid("metadata", &whole, why));
    }
    if local {
        if let Some(namespace) = of_resource.map(|attributes| text(attributes, "namespace"))
            && namespace != object.namespace()
        {
            let field = "spec.resourceAttributes.namespace";
            errors.push(FieldError::invalid(field, &namespace.into(), "must match metadata.namespace"));
        }
        if let Some(path) = of_path {
            let why = "disallowed on this kind of request";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", &path_attributes(path), why));
        }
    }
    errors
}

/// As upstream's message shows it: by the names of its Go fields.
fn path_attributes(value: &Value) -> Value {
    json!({"Path": text(value, "path"), "Verb": text(value, "verb")})
}

fn check_selector(errors: &mut Errors, selector: &Value, path: &str, labels: bool) {
    let (raw, requirements) = (text(selector, "rawSelector"), list(selector, "requirements"));
    if !raw.is_empty() && !requirements.is_empty() {
        let why = "may not specified at the same time as requirements";
        errors.push(FieldError::invalid(&format!("{path}.rawSelector"), &raw.into(), why));
    }
    if raw.is_empty() && requirements.is_empty() {
        let why = format!("when {path} is specified, requirements or rawSelector is required");
        errors.push(FieldError::required(&format!("{path}.requirements"), &why));
    }
    for (index, requirement) in requirements.iter().enumerate() {
        let path = format!("{path}.requirements[{index}]");
        let (key, values) = (text(requirement, "key"), list(requirement, "values"));
        if !labels && key.is_empty() {
            errors.push(FieldError::required(&format!("{path}.key"), "must be specified"));
        }
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(&format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(&format!("{path}.values"), why));
            }
            _ => {} // an operator that is not known yet makes no review invalid
        }
        if labels {
            for why in names::qualified_name(key) {
                errors.push(FieldError::invalid(&format!("{path}.key"), &key.into(), &why));
            }
            for (index, value) in values.iter().enumerate() {
                for why in names::label_value(value.as_str().unwrap_or_default()) {
                    errors.push(FieldError::invalid(&format!("{path}.values[{index}]"), value, &why));
                }
            }
        }
    }
}

/// What an evaluation leaves out, because it cannot be read. Roles do not look at selectors at all, but the review says
/// what it understood.
fn ignored_selectors(attributes: &Value) -> Vec<String> {
    let mut ignored = Vec::new();
    for (key, labels) in [("fieldSelector", false), ("labelSelector", true)] {
        let Some(selector) = member(attributes, key) else { continue };
        let (raw, requirements) = (text(selector, "rawSelector"), list(selector, "requirements"));
        let (read, failed) = if requirements.is_empty() {
            let good = match labels {
                true => LabelSelector::parse(raw).is_ok(),
                false => FieldSelector::parse(raw).is_ok(),
            };
            (0, usize::from(!good))
        } else {
            let good = requirements.iter().filter(|requirement| is_understood(requirement, labels)).count();
            (good, requirements.len() - good)
        };
        if failed > 0 {
            let partially = if read > 0 { "partially " } else { "" };
            ignored.push(format!("spec.resourceAttributes.{key} {partially}ignored due to parse error"));
        }
    }
    ignored
}

/// Whether a requirement is one that authorization can look at.
fn is_understood(requirement: &Value, labels: bool) -> bool {
    let (operator, values) = (text(requirement, "operator"), list(requirement, "values"));
    match operator {
        "In" | "NotIn" if labels => true,
        "In" | "NotIn" => values.len() == 1,
        "Exists" | "DoesNotExist" => labels,
        _ => false,
    }
}
