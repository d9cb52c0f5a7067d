//! [`Api`]: the one narrow road from actors to the API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    base::{Gvr, Object, Status, Stored, names::split_api_version},
    clock::{Clock, micro_time_text, time_text},
    ids::Ids,
    registry::{
        Body, Caller, DeleteOptions, Deleted, FieldValidation, ListOptions, Patch, Registry, Resource, Target, User,
        Watcher,
    },
};

/// The API as one actor sees it: who it is, and under which field manager it writes. Clones are the same actor.
#[derive(Clone, Debug)]
pub struct Api {
    registry: Registry,
    user: User,
    manager: Arc<str>,
    events: Arc<AtomicI64>,
}

/// A resource that is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Served {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// Kind.
    pub kind: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs served.
    pub verbs: Vec<String>,
}

impl Served {
    fn of(resource: &Resource) -> Self {
        Self {
            gvr: resource.gvr.clone(),
            kind: resource.kind.clone(),
            namespaced: resource.namespaced,
            verbs: resource.verbs.clone(),
        }
    }

    /// Whether all these verbs are served.
    pub fn serves(&self, verbs: &[&str]) -> bool {
        verbs.iter().all(|verb| self.verbs.iter().any(|served| served == verb))
    }
}

/// How to delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeletePolicy {
    /// `propagationPolicy`; `None` for the resource's default.
    pub propagation: Option<&'static str>,
    /// Only the object with this UID.
    pub uid: Option<String>,
    /// Only the object at this version.
    pub resource_version: Option<String>,
    /// Grace period; `None` for the object's own.
    pub grace: Option<Duration>,
}

/// Which of the two event APIs an event is written to, as upstream's recorders differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind<'a> {
    /// `v1`, by a component.
    Core {
        /// Name of the component.
        component: &'a str,
    },
    /// `events.k8s.io/v1`, by a controller with an action.
    Events {
        /// `reportingController`.
        controller: &'a str,
        /// `action`.
        action: &'a str,
    },
}

impl Api {
    /// The road of a user. Service accounts and system users get the groups that authentication would give them.
    pub fn new(registry: Registry, user: &str, manager: &str) -> Self {
        let mut groups = Vec::new();
        if let Some(account) = user.strip_prefix("system:serviceaccount:") {
            let namespace = account.split(':').next().unwrap_or_default();
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        } else if user.starts_with("system:node:") {
            groups.push("system:nodes".to_owned());
        }
        groups.push("system:authenticated".to_owned());
        let user = User { name: user.into(), uid: String::new(), groups };
        Self { registry, user, manager: manager.into(), events: Arc::default() }
    }

    /// The same user, writing under another field manager.
    #[must_use]
    pub fn with_manager(&self, manager: &str) -> Self {
        Self { manager: manager.into(), ..self.clone() }
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        self.registry.clock()
    }

    /// Where names and chance come from.
    pub fn ids(&self) -> &Ids {
        self.registry.ids()
    }

    /// Counts changes of what is served: [`Api::resources`] gives the same at the same generation.
    pub fn generation(&self) -> u64 {
        self.registry.catalog().generation()
    }

    /// The resources that are stored, once each, in the version they are stored in.
    pub fn resources(&self) -> Vec<Served> {
        self.registry.stored_resources().iter().map(|resource| Served::of(resource)).collect()
    }

    /// The resource that serves a kind, if any does.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Served> {
        let (group, version) = split_api_version(api_version);
        self.registry.catalog().find_kind(group, version, kind).map(|resource| Served::of(resource))
    }

    fn target(&self, gvr: &Gvr, namespace: &str, name: &str, subresource: &str) -> Result<Target, Status> {
        self.registry.target(gvr, namespace, name, subresource)
    }

    fn caller(&self) -> Caller {
        Caller {
            user: self.user.clone(),
            manager: self.manager.to_string(),
            validation: FieldValidation::Ignore,
            ..Caller::default()
        }
    }

    /// One object; `None` if it does not exist.
    ///
    /// # Errors
    /// What the API answers, but 404.
    pub async fn get(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Arc<Stored>>, Status> {
        let target = self.target(gvr, namespace, name, "")?;
        match self.registry.get(&target, "").await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The objects of a namespace (or, with `""`, of all) that a label selector takes, and the revision of the list.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn list(&self, gvr: &Gvr, namespace: &str, selector: &str) -> Result<(Vec<Arc<Stored>>, u64), Status> {
        let target = self.target(gvr, namespace, "", "")?;
        let options = ListOptions { label_selector: selector.into(), ..ListOptions::default() };
        let list = self.registry.list(&target, &options).await?;
        Ok((list.items, list.revision))
    }

    /// The changes after a revision.
    ///
    /// # Errors
    /// What the API answers, 410 if the revision is too old.
    pub async fn watch(&self, gvr: &Gvr, namespace: &str, selector: &str, after: u64) -> Result<Watcher, Status> {
        let target = self.target(gvr, namespace, "", "")?;
        let options = ListOptions {
            label_selector: selector.into(),
            resource_version: after.to_string(),
            ..ListOptions::default()
        };
        self.registry.watch(&target, &options).await
    }

    /// Creates an object in the namespace that stands in it.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn create(&self, gvr: &Gvr, object: Object) -> Result<Arc<Stored>, Status> {
        let target = self.target(gvr, object.namespace(), "", "")?;
        self.registry.create(&target, &self.caller(), object.into()).await
    }

    /// Posts to a subresource (`binding`, `eviction`) of the object that the body names.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn create_sub(&self, gvr: &Gvr, subresource: &str, body: Object) -> Result<Arc<Stored>, Status> {
        let target = self.target(gvr, body.namespace(), body.name(), subresource)?;
        self.registry.create(&target, &self.caller(), body.into()).await
    }

    /// Replaces an object, or writes it through a subresource.
    ///
    /// # Errors
    /// What the API answers, 409 if the object's version is not the newest.
    pub async fn update(&self, gvr: &Gvr, object: Object, subresource: &str) -> Result<Arc<Stored>, Status> {
        let target = self.target(gvr, object.namespace(), object.name(), subresource)?;
        Ok(self.registry.update(&target, &self.caller(), Body::from(object)).await?.0)
    }

    /// Merge-patches an object, or through a subresource.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn patch(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        subresource: &str,
        patch: Value,
    ) -> Result<Arc<Stored>, Status> {
        let target = self.target(gvr, namespace, name, subresource)?;
        Ok(self.registry.patch(&target, &self.caller(), Patch::Merge(patch)).await?.0)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// What the API answers, 404 if there is no such object, 409 if a precondition does not hold.
    pub async fn delete(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        policy: &DeletePolicy,
    ) -> Result<Deleted, Status> {
        let target = self.target(gvr, namespace, name, "")?;
        self.registry.delete(&target, &self.caller(), &delete_options(policy)).await
    }

    /// Deletes all objects of a resource in a namespace.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn delete_all(&self, gvr: &Gvr, namespace: &str, policy: &DeletePolicy) -> Result<(), Status> {
        let target = self.target(gvr, namespace, "", "")?;
        let options = delete_options(policy);
        self.registry.delete_collection(&target, &self.caller(), &ListOptions::default(), &options).await?;
        Ok(())
    }

    /// Writes an event about an object. Events are best effort: what the API refuses is dropped, as upstream's recorders
    /// do.
    pub async fn event(&self, kind: EventKind<'_>, regarding: &Object, warning: bool, reason: &str, note: &str) {
        let now = self.clock().now();
        // Upstream names events by their nanosecond; the count keeps those of one frozen moment apart.
        let moment = now.as_nanosecond() + i128::from(self.events.fetch_add(1, Ordering::Relaxed));
        let namespace = if regarding.namespace().is_empty() { "default" } else { regarding.namespace() };
        let name = format!("{}.{moment:x}", regarding.name());
        let reference = json!({
            "apiVersion": regarding.api_version(), "kind": regarding.kind(), "name": regarding.name(),
            "uid": regarding.uid(), "resourceVersion": regarding.resource_version(),
        });
        let reference = with_namespace(reference, regarding.namespace());
        let kind_text = if warning { "Warning" } else { "Normal" };
        let (gvr, body) = match kind {
            EventKind::Core { component } => (
                Gvr::new("", "v1", "events"),
                json!({
                    "apiVersion": "v1", "kind": "Event", "metadata": {"name": name, "namespace": namespace},
                    "involvedObject": reference, "reason": reason, "message": note, "type": kind_text,
                    "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
                    "firstTimestamp": time_text(now), "lastTimestamp": time_text(now), "count": 1,
                }),
            ),
            EventKind::Events { controller, action } => (
                Gvr::new("events.k8s.io", "v1", "events"),
                json!({
                    "apiVersion": "events.k8s.io/v1", "kind": "Event",
                    "metadata": {"name": name, "namespace": namespace},
                    "regarding": reference, "reason": reason, "note": note, "type": kind_text, "action": action,
                    "reportingController": controller, "reportingInstance": format!("{controller}-0"),
                    "eventTime": micro_time_text(now),
                }),
            ),
        };
        let event = Object::from_value(body).expect("made as a map");
        if let Err(error) = self.create(&gvr, event).await {
            tracing::debug!(%error, reason, "event dropped");
        }
    }
}

fn with_namespace(mut reference: Value, namespace: &str) -> Value {
    if !namespace.is_empty() {
        reference["namespace"] = namespace.into();
    }
    reference
}

fn delete_options(policy: &DeletePolicy) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: policy.grace.map(|grace| i64::try_from(grace.as_secs()).unwrap_or(i64::MAX)),
        uid: policy.uid.clone(),
        resource_version: policy.resource_version.clone(),
        propagation: policy.propagation.map(str::to_owned),
        orphan_dependents: None,
    }
}

#[cfg(test)]
impl Api {
    /// Cuts all history away.
    pub(super) fn compact_for_test(&self) {
        self.registry.compact();
    }
}
