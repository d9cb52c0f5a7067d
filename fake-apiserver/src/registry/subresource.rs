//! Subresources with a life of their own: binding, eviction, scale; reviews.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};

use super::{
    Body, Caller, DeleteOptions, Patch, Registry, Resource, Target, catalog::SchemaSource, decode, hooks::Question,
    identity,
};
use crate::{
    admission::Operation,
    base::{FieldError, Gvr, Object, Status, Stored, status::go_quote},
    fields,
    schema::Schema,
};

/// How often a write is tried again when another one came first.
const RETRIES: usize = 10;

fn success(code: u16) -> Arc<Stored> {
    let value = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code});
    Arc::new(Stored::new(Object::from_value(value).expect("made as a map")))
}

impl Registry {
    pub(super) async fn post_subresource(
        &self,
        target: &Target,
        caller: &Caller,
        body: Body,
    ) -> Result<Arc<Stored>, Status> {
        match (&*target.resource.bucket, target.subresource.as_str()) {
            ("pods", "binding") => {
                self.ask_about_post(target, caller, &body.value).await?;
                self.bind(target, caller, &body.value)
            }
            ("pods", "eviction") => self.evict(target, caller, &body.value).await,
            ("serviceaccounts", "token") => self.request_token(target, caller, body),
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Asks policies and webhooks about what is posted to a subresource.
    async fn ask_about_post(&self, target: &Target, caller: &Caller, body: &Value) -> Result<(), Status> {
        let object = Object::from_value(body.clone()).unwrap_or_default();
        let question = Question { target, caller, operation: Operation::Create, name: &target.name, old: None };
        self.guard(question, Some(&object)).await
    }

    /// Puts a pod on a node, as the scheduler asks (`pkg/registry/core/pod/storage`, `assignPod`).
    fn bind(&self, target: &Target, caller: &Caller, binding: &Value) -> Result<Arc<Stored>, Status> {
        let node = binding["target"]["name"].as_str().unwrap_or_default();
        let kind = binding["target"]["kind"].as_str().unwrap_or_default();
        let mut errors = Vec::new();
        if !kind.is_empty() && kind != "Node" {
            errors.push(FieldError::not_supported("target.kind", &kind.into(), &["Node", "<empty>"]));
        }
        if node.is_empty() {
            errors.push(FieldError::required("target.name", ""));
        }
        if !errors.is_empty() {
            return Err(Status::invalid("", "Binding", &target.name, &errors));
        }
        for _ in 0..RETRIES {
            let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
            let conflict = |why: &str| Status::conflict("", "pods/binding", &target.name, why);
            let pod = live.value.object();
            if pod.is_deleting() {
                return Err(conflict(&format!("pod {} is being deleted, cannot be assigned to a host", pod.name())));
            }
            let current = pod.str_at(&["spec", "nodeName"]);
            if !current.is_empty() {
                let why = format!("pod {} is already assigned to node \"{current}\"", pod.name());
                return Err(conflict(&why));
            }
            if pod.at(&["spec", "schedulingGates"]).and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
                return Err(conflict(&format!("pod {} has non-empty .spec.schedulingGates", pod.name())));
            }
            let mut new = pod.clone();
            new.set_at(&["spec", "nodeName"], node);
            for map in ["annotations", "labels"] {
                for (key, value) in binding["metadata"][map].as_object().into_iter().flatten() {
                    new.set_at(&["metadata", map, key], value.clone());
                }
            }
            for (key, value) in self.with_view(|view| crate::admission::topology_of(node, view)) {
                new.set_at(&["metadata", "labels", &key], value);
            }
            let scheduled = json!({
                "type": "PodScheduled", "status": "True", "lastProbeTime": null,
                "lastTransitionTime": self.clock().now_text(),
            });
            let conditions = new.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
            let mut conditions: Vec<Value> =
                conditions.into_iter().filter(|condition| condition["type"] != "PodScheduled").collect();
            conditions.push(scheduled);
            new.set_at(&["status", "conditions"], conditions);
            if caller.dry_run || self.put(target, Some(live.revision), new).is_ok() {
                return Ok(success(201));
            }
        }
        Err(identity::modified(target))
    }

    async fn evict(&self, target: &Target, caller: &Caller, eviction: &Value) -> Result<Arc<Stored>, Status> {
        let given = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !given.is_empty() && given != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
        self.ask_about_post(target, caller, eviction).await?;
        let options = &eviction["deleteOptions"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let options = DeleteOptions {
            grace_period_seconds: options["gracePeriodSeconds"].as_i64(),
            uid: text(&options["preconditions"]["uid"]),
            resource_version: text(&options["preconditions"]["resourceVersion"]),
            propagation: text(&options["propagationPolicy"]),
            orphan_dependents: options["orphanDependents"].as_bool(),
        };
        let pod = Target { subresource: String::new(), ..target.clone() };
        self.delete_admitted(&pod, caller, &options, None).await?;
        Ok(success(201))
    }

    /// The scale of an object.
    pub(super) async fn get_scale(&self, target: &Target) -> Result<Arc<Stored>, Status> {
        let resource = &target.resource;
        let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
        let shown = self.view(resource, &live.value).await?;
        check_scale(resource, &shown)?;
        if let Some(paths) = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref())
            && shown.at(&path(&paths.spec_replicas)).is_none()
        {
            let path = go_quote(&paths.spec_replicas);
            return Err(Status::internal(format!("the spec replicas field {path} does not exist")));
        }
        Ok(Arc::new(Stored::new(scale_of(resource, &shown))))
    }

    pub(super) async fn update_scale(
        &self,
        target: &Target,
        caller: &Caller,
        body: Body,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let given = decode::decode(&SCALE, &self.catalog(), caller, body);
        let mut given = match given {
            // The codec of custom kinds fails to say what is wrong.
            Err(_) if target.resource.custom.is_some() => {
                let message = "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"";
                return Err(Status::bad_request(message));
            }
            given => given?,
        };
        identity::take_namespace(target, &mut given)?;
        identity::check_name(target, &given)?;
        self.write_scale(target, caller, |old, writer| {
            identity::check_preconditions(target, old, &given)?;
            let mut new = given.clone();
            fields::track(Some(old), &mut new, SCALE.schema(), writer);
            Ok(new)
        })
        .await
    }

    pub(super) async fn patch_scale(
        &self,
        target: &Target,
        caller: &Caller,
        patch: Patch,
    ) -> Result<(Arc<Stored>, bool), Status> {
        self.write_scale(target, caller, |old, writer| {
            let mut new = match &patch {
                Patch::Apply { body, force } => {
                    let applied = decode::applied(caller, body.clone())?;
                    let is_owned = old.at(&["metadata", "managedFields"]).is_some();
                    let is_scale = applied.api_version() == SCALE.api_version() && applied.kind() == SCALE.kind;
                    if target.resource.custom.is_some() && is_scale && !is_owned {
                        // Upstream cannot make a manager of what nobody owns yet: it converts a scale as if it were custom.
                        return Err(Status::unexpected(
                            "failed to create manager for existing fields: failed to convert live object (/; \
                             autoscaling/v1, Kind=Scale) to proper version: request to convert CR to an invalid \
                             group/version: autoscaling/v1",
                        ));
                    }
                    fields::apply(Some(old), &applied, SCALE.schema(), writer, *force)?
                }
                Patch::Json(_) | Patch::Merge(_) | Patch::Strategic(_) => {
                    self.patch_object(&SCALE, caller, old, &patch)?
                }
            };
            identity::take_namespace(target, &mut new)?;
            identity::check_name(target, &new)?;
            if !matches!(patch, Patch::Apply { .. }) {
                fields::track(Some(old), &mut new, SCALE.schema(), writer);
            }
            Ok(new)
        })
        .await
    }

    /// Writes the replicas of an object through its scale; `change` makes the new scale of the old one.
    async fn write_scale(
        &self,
        target: &Target,
        caller: &Caller,
        change: impl Fn(&Object, &fields::Writer<'_>) -> Result<Object, Status> + Send + Sync,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let resource = &target.resource;
        let custom = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
        let replicas_path = spec_path(resource);
        for _ in 0..RETRIES {
            let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
            let shown = self.view(resource, &live.value).await?;
            check_scale(resource, &shown)?;
            let mut old = scale_of(resource, &shown);
            if custom.is_some() && shown.at(&replicas_path).is_none() {
                old.set_at(&["spec", "replicas"], NO_REPLICAS);
            }
            let owners = fields::scale_owners(&shown, &replicas_path);
            if owners.as_array().is_some_and(|owners| !owners.is_empty()) {
                old.metadata_mut().insert("managedFields".into(), owners);
            }
            let writer = self.writer(target, caller, SCALE.api_version());
            let scale = change(&old, &fields::Writer { reset: &[], versions: None, ..writer.borrowed() })?;
            let replicas = scale.at(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
            match custom {
                Some(paths) if replicas == NO_REPLICAS => {
                    let path = go_quote(&paths.spec_replicas);
                    return Err(Status::bad_request(format!("the spec replicas field {path} cannot be empty")));
                }
                Some(_) => {}
                None => {
                    if replicas < 0 {
                        let why = "must be greater than or equal to 0";
                        let error = FieldError::invalid("spec.replicas", &replicas.into(), why);
                        return Err(Status::invalid("autoscaling", "Scale", &target.name, &[error]));
                    }
                    let (asked, actual) = (scale.uid(), shown.uid());
                    if !asked.is_empty() && asked != actual {
                        let why =
                            format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {actual}");
                        let name = format!("{}/scale", resource.gvr.resource);
                        return Err(Status::conflict(&resource.gvr.group, &name, &target.name, &why));
                    }
                }
            }
            let mut new = shown.object().clone();
            new.set_at(&replicas_path, replicas);
            if custom.is_none() || !scale.resource_version().is_empty() {
                let version = scale.resource_version().to_owned();
                new.metadata_mut().insert("resourceVersion".into(), version.into());
            }
            let owners = fields::owners_after_scale(&shown, &scale, &replicas_path, &resource.api_version());
            match owners.as_array().is_some_and(|owners| owners.is_empty()) {
                true => new.metadata_mut().remove("managedFields"),
                false => new.metadata_mut().insert("managedFields".into(), owners),
            };
            if let Some(stored) = self.replace(target, caller, &live, new).await? {
                return Ok((Arc::new(Stored::new(scale_of(resource, &stored))), false));
            }
        }
        Err(identity::modified(target))
    }
}

/// What an absent number of replicas is in a scale that is being written: the smallest 32 bits hold.
const NO_REPLICAS: i64 = i32::MIN as i64;

/// What is sent to and answered by every scale.
static SCALE: LazyLock<Resource> = LazyLock::new(|| Resource {
    gvr: Gvr::new("autoscaling", "v1", "scales"),
    kind: "Scale".into(),
    list_kind: String::new(),
    singular: String::new(),
    short_names: Vec::new(),
    categories: Vec::new(),
    namespaced: true,
    verbs: Vec::new(),
    subresources: BTreeMap::new(),
    columns: Vec::new(),
    bucket: "scales".into(),
    custom: None,
    schema: SchemaSource::Ready(Schema::builtin("io.k8s.api.autoscaling.v1.Scale")),
});

/// A value as Go's `%v` prints it.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: BTreeMap<_, _> = map.iter().collect();
            let members = members.into_iter().map(|(key, value)| format!("{key}:{}", go_text(value)));
            format!("map[{}]", members.collect::<Vec<_>>().join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// What stands at a scale's path, or Go's words for why it is of no use.
fn nested<'a>(object: &'a Object, json_path: &str, wanted: &str) -> Result<Option<&'a Value>, String> {
    let steps = path(json_path);
    let Some((first, rest)) = steps.split_first() else { return Ok(None) };
    let fail = |length: usize, value: &Value, wanted: &str| {
        let is = match value {
            Value::String(_) => "string",
            Value::Number(number) if number.is_i64() => "int64",
            Value::Number(_) => "float64",
            Value::Bool(_) => "bool",
            Value::Array(_) => "[]interface {}",
            Value::Object(_) => "map[string]interface {}",
            Value::Null => "<nil>",
        };
        let shown = go_text(value);
        let at = steps[..length].join(".");
        if is == wanted {
            Ok(())
        } else {
            Err(format!(".{at} accessor error: {shown} is of the type {is}, expected {wanted}"))
        }
    };
    let Some(mut value) = object.get(first) else { return Ok(None) };
    for step in rest {
        if value.is_null() {
            return Ok(None);
        }
        let Some(map) = value.as_object() else {
            return fail(steps.len(), value, "map[string]interface{}").map(|()| None);
        };
        match map.get(*step) {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    fail(steps.len(), value, wanted).map(|()| Some(value))
}

/// A custom object whose scale cannot be read has none.
fn check_scale(resource: &Resource, object: &Object) -> Result<(), Status> {
    let Some(scale) = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) else { return Ok(()) };
    let parts = [(&scale.spec_replicas, "int64"), (&scale.status_replicas, "int64"), (&scale.selector, "string")];
    for (path, wanted) in parts {
        nested(object, path, wanted).map_err(Status::unexpected)?;
    }
    Ok(())
}

/// What a custom object's scale asks of it. Upstream: `ValidateScaleSpec` and `ValidateScaleStatus` in
/// `apiextensions-apiserver/pkg/registry/customresource/validator.go`.
pub(super) fn scale_errors(resource: &Resource, object: &Object, subresource: &str) -> Vec<FieldError> {
    let Some(scale) = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) else { return Vec::new() };
    let mut errors = Vec::new();
    let spec = (subresource != "status").then_some(&scale.spec_replicas);
    for path in spec.into_iter().chain([&scale.status_replicas]) {
        let (value, why) = match nested(object, path, "int64") {
            Err(why) => (0, why),
            Ok(value) => match value.and_then(Value::as_i64).unwrap_or(0) {
                value if value < 0 => (value, "should be a non-negative integer".into()),
                value if value > i64::from(i32::MAX) => {
                    (value, format!("should be less than or equal to {}", i32::MAX))
                }
                _ => continue,
            },
        };
        errors.push(FieldError::invalid(path, &value.into(), &why));
    }
    if let Err(why) = nested(object, &scale.selector, "string") {
        errors.push(FieldError::invalid(&scale.selector, &"".into(), &why));
    }
    errors
}

fn spec_path(resource: &Resource) -> Vec<&str> {
    match resource.custom.as_ref().and_then(|custom| custom.scale.as_ref()) {
        Some(scale) => path(&scale.spec_replicas),
        None => vec!["spec", "replicas"],
    }
}

fn path(json_path: &str) -> Vec<&str> {
    json_path.split('.').filter(|part| !part.is_empty()).collect()
}

/// The `autoscaling/v1` Scale of an object.
pub(super) fn scale_of(resource: &Resource, object: &Object) -> Object {
    let mut scale = Object::new("autoscaling/v1", "Scale", object.namespace(), object.name());
    for key in ["uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.at(&["metadata", key]) {
            scale.metadata_mut().insert(key.into(), value.clone());
        }
    }
    let number = |path: &[&str]| object.at(path).and_then(Value::as_i64).unwrap_or(0);
    let replicas = number(&spec_path(resource));
    scale.set("spec", if replicas == 0 { json!({}) } else { json!({"replicas": replicas}) });
    let custom = resource.custom.as_ref().and_then(|custom| custom.scale.as_ref());
    let (current, selector) = match custom {
        Some(paths) => (number(&path(&paths.status_replicas)), object.str_at(&path(&paths.selector)).to_owned()),
        None => (number(&["status", "replicas"]), selector_text(object)),
    };
    let mut status = json!({"replicas": current});
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    scale.set("status", status);
    scale
}

/// A workload's label selector as text, by key, as upstream prints it.
fn selector_text(object: &Object) -> String {
    let selector = ["spec", "selector"];
    let labels = match object.kind() {
        "ReplicationController" => object.at(&selector), // the oldest of the kinds selects by labels alone
        _ => object.at(&[&selector[..], &["matchLabels"]].concat()),
    };
    let labels = labels.and_then(Value::as_object);
    let mut parts: Vec<(String, String)> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), format!("{key}={}", value.as_str().unwrap_or_default())))
        .collect();
    let expressions = object.at(&[&selector[..], &["matchExpressions"]].concat()).and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().map(Vec::as_slice).unwrap_or_default();
        let mut values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let text = match expression["operator"].as_str().unwrap_or_default() {
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            _ => format!("{key} in ({})", values.join(",")),
        };
        parts.push((key.to_owned(), text));
    }
    parts.sort_by(|a, b| a.0.cmp(&b.0));
    parts.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join(",")
}
