//! Subresources with a life of their own: binding, eviction, scale; reviews; and what the server hands out (cluster IPs).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Body, Caller, DeleteOptions, Patch, Registry, Resource, Target, read::view, write};
use crate::{
    base::{FieldError, Object, Status, Stored, patch},
    fields,
};

/// How often a write is tried again when another one came first.
const RETRIES: usize = 10;

/// How many addresses the service range 10.96.0.0/12 has to hand out, and the first one.
const SERVICE_IPS: u64 = (1 << 20) - 18;
const FIRST_SERVICE_IP: u32 = 0x0a60_0010;

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
            ("pods", "binding") => self.bind(target, caller, &body.value),
            ("pods", "eviction") => self.evict(target, caller, &body.value).await,
            ("serviceaccounts", "token") => Err(Status::not_implemented("service account tokens (TokenRequest)")),
            _ => Err(Status::method_not_allowed()),
        }
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
            for (key, value) in binding["metadata"]["annotations"].as_object().into_iter().flatten() {
                new.set_at(&["metadata", "annotations", key], value.clone());
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
        Err(write::modified(target))
    }

    async fn evict(&self, target: &Target, caller: &Caller, eviction: &Value) -> Result<Arc<Stored>, Status> {
        let given = eviction["metadata"]["name"].as_str().unwrap_or_default();
        if !given.is_empty() && given != target.name {
            return Err(Status::bad_request("name in URL does not match name in Eviction object"));
        }
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
        self.delete(&pod, caller, &options).await?;
        Ok(success(201))
    }

    /// The scale of an object.
    pub(super) fn get_scale(&self, target: &Target) -> Result<Arc<Stored>, Status> {
        let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
        Ok(Arc::new(Stored::new(scale_of(&target.resource, &view(&target.resource, &live.value)))))
    }

    pub(super) async fn update_scale(
        &self,
        target: &Target,
        caller: &Caller,
        body: Body,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let scale = Object::from_value(body.value).unwrap_or_default();
        self.write_scale(target, caller, |_| Ok(scale.clone()))
    }

    pub(super) async fn patch_scale(
        &self,
        target: &Target,
        caller: &Caller,
        patch: Patch,
    ) -> Result<(Arc<Stored>, bool), Status> {
        self.write_scale(target, caller, |current| {
            let mut value = current.to_value();
            match &patch {
                Patch::Json(operations) => value = patch::json(&value, operations)?,
                Patch::Merge(changes) | Patch::Strategic(changes) => patch::merge(&mut value, changes)?,
                Patch::Apply { .. } => {
                    return Err(Status::not_implemented("server-side apply of the scale subresource"));
                }
            }
            Ok(Object::from_value(value).unwrap_or_default())
        })
    }

    fn write_scale(
        &self,
        target: &Target,
        caller: &Caller,
        change: impl Fn(&Object) -> Result<Object, Status>,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let resource = &target.resource;
        for _ in 0..RETRIES {
            let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
            let shown = view(resource, &live.value);
            let scale = change(&scale_of(resource, &shown))?;
            let replicas = scale.at(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(0);
            if replicas < 0 {
                let error =
                    FieldError::invalid("spec.replicas", &replicas.into(), "must be greater than or equal to 0");
                return Err(Status::invalid("autoscaling", "Scale", &target.name, &[error]));
            }
            if let Some(asked) = Some(scale.resource_version()).filter(|text| !text.is_empty())
                && asked != shown.resource_version()
            {
                return Err(write::modified(target));
            }
            let mut new = shown.object().clone();
            new.set_at(&spec_path(resource), replicas);
            let writer = self.writer(target, caller, resource.api_version());
            fields::track(Some(&shown), &mut new, resource.schema(), &writer.borrowed());
            if let Some(stored) = self.replace(target, caller, &live, new)? {
                return Ok((Arc::new(Stored::new(scale_of(resource, &stored))), false));
            }
        }
        Err(write::modified(target))
    }

    /// What the server hands out to a new object.
    pub(super) fn allocate(&self, resource: &Resource, object: &mut Object) -> Result<(), Status> {
        if &*resource.bucket != "services" || object.str_at(&["spec", "type"]) == "ExternalName" {
            return Ok(());
        }
        let given = object.str_at(&["spec", "clusterIP"]).to_owned();
        let ip = if given.is_empty() { self.free_service_ip() } else { given };
        object.set_at(&["spec", "clusterIPs"], json!([ip]));
        object.set_at(&["spec", "clusterIP"], ip);
        for (key, value) in [("ipFamilies", json!(["IPv4"])), ("ipFamilyPolicy", json!("SingleStack"))] {
            if object.at(&["spec", key]).is_none() {
                object.set_at(&["spec", key], value);
            }
        }
        Ok(())
    }

    fn free_service_ip(&self) -> String {
        let taken: std::collections::BTreeSet<String> = self
            .0
            .store
            .list("services", None)
            .1
            .iter()
            .map(|service| service.value.str_at(&["spec", "clusterIP"]).to_owned())
            .collect();
        loop {
            let offset = u32::try_from(self.ids().below(SERVICE_IPS)).expect("the range is smaller than 2^32");
            let [a, b, c, d] = (FIRST_SERVICE_IP + offset).to_be_bytes();
            let ip = format!("{a}.{b}.{c}.{d}");
            if !taken.contains(&ip) {
                return ip;
            }
        }
    }

    /// Kinds that are asked, not stored: who am I, may I.
    pub(super) fn review(&self, target: &Target, caller: &Caller, body: Body) -> Result<Arc<Stored>, Status> {
        let resource = &target.resource;
        let mut object = Object::from_value(body.value).unwrap_or_default();
        object.set("apiVersion", resource.api_version());
        object.set("kind", resource.kind.as_str());
        let now = self.clock().now_text();
        object.metadata_mut().insert("creationTimestamp".into(), now.into());
        match resource.kind.as_str() {
            "SelfSubjectReview" => {
                let mut user = json!({"username": caller.user.name, "groups": caller.user.groups});
                if !caller.user.uid.is_empty() {
                    user["uid"] = caller.user.uid.as_str().into();
                }
                object.set("status", json!({"userInfo": user}));
            }
            "SelfSubjectAccessReview" if caller.user.groups.iter().any(|group| group == "system:masters") => {
                object.metadata_mut().remove("creationTimestamp");
                object.set("status", json!({"allowed": true}));
            }
            _ => return Err(Status::not_implemented("evaluation of RBAC rules")),
        }
        Ok(Arc::new(Stored::new(object)))
    }
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
fn scale_of(resource: &Resource, object: &Object) -> Object {
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

/// A workload's label selector as text, sorted as upstream prints it.
fn selector_text(object: &Object) -> String {
    let labels = object.at(&["spec", "selector", "matchLabels"]).and_then(Value::as_object);
    let pairs =
        labels.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    pairs.collect::<Vec<_>>().join(",")
}
