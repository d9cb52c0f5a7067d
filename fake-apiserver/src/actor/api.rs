//! [`Api`]: the one narrow road from actors to the API.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use serde_json::{Value, json};

use super::remote::{Remote, RemoteWatch};
use crate::{
    base::{
        Gvr, Object, Status, Stored, User,
        names::split_api_version,
        user::{AUTHENTICATED, account_groups, as_account},
    },
    clock::{Clock, micro_time_text, time_text},
    ids::Ids,
    registry::{
        Body, Caller, DeleteOptions, FieldValidation, ListOptions, Patch, Registry, Resource, WatchEvent, Watcher,
    },
    rule::{Call, Rules},
};

/// Namespace, name and subresource.
type Place<'a> = (&'a str, &'a str, &'a str);

/// The API server that actors talk to. Clones are the same one.
#[derive(Clone, Debug)]
pub enum Server {
    /// The one in this process.
    Here(Registry),
    /// One somewhere else; who the actors are is decided by its client's credentials.
    There(Remote),
}

impl From<Registry> for Server {
    fn from(registry: Registry) -> Self {
        Self::Here(registry)
    }
}

impl From<Remote> for Server {
    fn from(remote: Remote) -> Self {
        Self::There(remote)
    }
}

impl Server {
    /// The clock that this server's actors live by.
    pub fn clock(&self) -> &Clock {
        match self {
            Self::Here(registry) => registry.clock(),
            Self::There(remote) => remote.clock(),
        }
    }

    /// The rules by which things go wrong at this server; none are known of one somewhere else.
    pub fn rules(&self) -> Option<&Rules> {
        match self {
            Self::Here(registry) => Some(registry.rules()),
            Self::There(_) => None,
        }
    }
}

/// A running watch.
pub enum Changes {
    /// Of the registry.
    Here(Box<Watcher>),
    /// Of another server.
    There(RemoteWatch),
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Here(watcher) => watcher.fmt(f),
            Self::There(_) => f.write_str("There"),
        }
    }
}

impl Changes {
    /// The next events, at least one; `None` when the watch has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<Vec<WatchEvent>> {
        match self {
            Self::Here(watcher) => watcher.next().await,
            Self::There(events) => events.next().await,
        }
    }
}

/// The API as one actor sees it: who it is, and under which field manager it writes. Clones are the same actor.
#[derive(Clone, Debug)]
pub struct Api {
    server: Server,
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
    pub fn new(server: impl Into<Server>, user: &str, manager: &str) -> Self {
        let mut groups = Vec::new();
        if let Some((namespace, _)) = as_account(user) {
            groups = account_groups(namespace);
        } else if user.starts_with("system:node:") {
            groups.push("system:nodes".to_owned());
        }
        groups.push(AUTHENTICATED.to_owned());
        Self { server: server.into(), user: User::new(user, groups), manager: manager.into(), events: Arc::default() }
    }

    /// The same user, writing under another field manager.
    #[must_use]
    pub fn with_manager(&self, manager: &str) -> Self {
        Self { manager: manager.into(), ..self.clone() }
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        self.server.clock()
    }

    /// Where names and chance come from.
    pub fn ids(&self) -> &Ids {
        match &self.server {
            Server::Here(registry) => registry.ids(),
            Server::There(remote) => remote.ids(),
        }
    }

    /// Counts changes of what is served: [`Api::resources`] gives the same at the same generation.
    pub fn generation(&self) -> u64 {
        match &self.server {
            Server::Here(registry) => registry.catalog().generation(),
            Server::There(remote) => remote.generation(),
        }
    }

    /// The resources that are stored, once each, in the version they are stored in.
    pub fn resources(&self) -> Vec<Served> {
        match &self.server {
            Server::Here(registry) => registry.stored_resources().iter().map(|resource| Served::of(resource)).collect(),
            Server::There(remote) => remote.resources(),
        }
    }

    /// The resource that serves a kind, if any does.
    pub fn find_kind(&self, api_version: &str, kind: &str) -> Option<Served> {
        match &self.server {
            Server::Here(registry) => {
                let (group, version) = split_api_version(api_version);
                registry.catalog().find_kind(group, version, kind).map(|resource| Served::of(resource))
            }
            Server::There(remote) => remote.find_kind(api_version, kind),
        }
    }

    /// The rules by which things go wrong at this server; none are known of one somewhere else.
    pub fn rules(&self) -> Option<&Rules> {
        self.server.rules()
    }

    /// A request as rules see it.
    fn call<'a>(&'a self, verb: &'a str, gvr: &'a Gvr, (namespace, name, subresource): Place<'a>) -> Call<'a> {
        let Gvr { group, resource, .. } = gvr;
        Call { verb, group, resource, subresource, namespace, name, user: &self.user.name }
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
        let found = match &self.server {
            Server::Here(registry) => {
                let get = async { registry.get(&registry.target(gvr, namespace, name, "")?, "").await };
                registry.under_rules(&self.call("get", gvr, (namespace, name, "")), get).await.map_err(Status::from)
            }
            Server::There(remote) => remote.get(gvr, namespace, name).await,
        };
        match found {
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
        self.list_named(gvr, namespace, "", selector).await
    }

    /// As [`Api::list`], of one name (`""` for all).
    pub(super) async fn list_named(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        selector: &str,
    ) -> Result<(Vec<Arc<Stored>>, u64), Status> {
        match &self.server {
            Server::Here(registry) => {
                let options = ListOptions { label_selector: selector.into(), ..ListOptions::default() };
                let list = async { registry.list(&registry.target(gvr, namespace, name, "")?, &options).await };
                let list = registry.under_rules(&self.call("list", gvr, (namespace, name, "")), list).await?;
                Ok((list.items, list.revision))
            }
            Server::There(remote) => remote.list(gvr, namespace, name, selector).await,
        }
    }

    /// The changes after a revision.
    ///
    /// # Errors
    /// What the API answers, 410 if the revision is too old.
    pub async fn watch(&self, gvr: &Gvr, namespace: &str, selector: &str, after: u64) -> Result<Changes, Status> {
        self.watch_named(gvr, namespace, "", selector, after).await
    }

    /// As [`Api::watch`], of one name (`""` for all).
    pub(super) async fn watch_named(
        &self,
        gvr: &Gvr,
        namespace: &str,
        name: &str,
        selector: &str,
        after: u64,
    ) -> Result<Changes, Status> {
        match &self.server {
            Server::Here(registry) => {
                let options = ListOptions {
                    label_selector: selector.into(),
                    resource_version: after.to_string(),
                    ..ListOptions::default()
                };
                let call = self.call("watch", gvr, (namespace, name, ""));
                let watch = async { registry.watch(&registry.target(gvr, namespace, name, "")?, &options).await };
                let watcher = registry.under_rules(&call, watch).await?;
                Ok(Changes::Here(Box::new(watcher.subject_to(registry.rules().watched(&call)))))
            }
            Server::There(remote) => remote.watch(gvr, namespace, name, selector, after).await.map(Changes::There),
        }
    }

    /// Creates an object in the namespace that stands in it.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn create(&self, gvr: &Gvr, object: Object) -> Result<Arc<Stored>, Status> {
        match &self.server {
            Server::Here(registry) => {
                let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
                let create = async {
                    registry.create(&registry.target(gvr, &namespace, "", "")?, &self.caller(), object.into()).await
                };
                Ok(registry.under_rules(&self.call("create", gvr, (&namespace, &name, "")), create).await?)
            }
            Server::There(remote) => remote.create(gvr, object, "", &self.manager).await,
        }
    }

    /// Posts to a subresource (`binding`, `eviction`) of the object that the body names.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn create_sub(&self, gvr: &Gvr, subresource: &str, body: Object) -> Result<Arc<Stored>, Status> {
        match &self.server {
            Server::Here(registry) => {
                let (namespace, name) = (body.namespace().to_owned(), body.name().to_owned());
                let place = (&*namespace, &*name, subresource);
                let create = async {
                    let target = registry.target(gvr, &namespace, &name, subresource)?;
                    registry.create(&target, &self.caller(), body.into()).await
                };
                Ok(registry.under_rules(&self.call("create", gvr, place), create).await?)
            }
            Server::There(remote) => remote.create(gvr, body, subresource, &self.manager).await,
        }
    }

    /// Replaces an object, or writes it through a subresource.
    ///
    /// # Errors
    /// What the API answers, 409 if the object's version is not the newest.
    pub async fn update(&self, gvr: &Gvr, object: Object, subresource: &str) -> Result<Arc<Stored>, Status> {
        match &self.server {
            Server::Here(registry) => {
                let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
                let place = (&*namespace, &*name, subresource);
                let update = async {
                    let target = registry.target(gvr, &namespace, &name, subresource)?;
                    registry.update(&target, &self.caller(), Body::from(object)).await
                };
                Ok(registry.under_rules(&self.call("update", gvr, place), update).await?.0)
            }
            Server::There(remote) => remote.update(gvr, object, subresource, &self.manager).await,
        }
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
        self.send_patch(gvr, (namespace, name, subresource), Patch::Merge(patch)).await
    }

    /// Patches an object of a built-in kind with a strategic merge patch, or through a subresource.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn strategic_patch(&self, gvr: &Gvr, place: Place<'_>, patch: Value) -> Result<Arc<Stored>, Status> {
        self.send_patch(gvr, place, Patch::Strategic(patch)).await
    }

    async fn send_patch(&self, gvr: &Gvr, place: Place<'_>, patch: Patch) -> Result<Arc<Stored>, Status> {
        match &self.server {
            Server::Here(registry) => {
                let (namespace, name, subresource) = place;
                let change = async {
                    let target = registry.target(gvr, namespace, name, subresource)?;
                    registry.patch(&target, &self.caller(), patch).await
                };
                Ok(registry.under_rules(&self.call("patch", gvr, place), change).await?.0)
            }
            Server::There(remote) => remote.patch(gvr, place, patch, &self.manager).await,
        }
    }

    /// Applies a configuration, taking its fields from whoever owns them.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn apply(&self, gvr: &Gvr, object: Object) -> Result<Arc<Stored>, Status> {
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        self.send_patch(gvr, (&namespace, &name, ""), Patch::Apply { body: Body::from(object), force: true }).await
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// What the API answers, 404 if there is no such object, 409 if a precondition does not hold.
    pub async fn delete(&self, gvr: &Gvr, namespace: &str, name: &str, policy: &DeletePolicy) -> Result<(), Status> {
        match &self.server {
            Server::Here(registry) => {
                let delete = async {
                    let target = registry.target(gvr, namespace, name, "")?;
                    registry.delete(&target, &self.caller(), &delete_options(policy)).await
                };
                let call = self.call("delete", gvr, (namespace, name, ""));
                Ok(registry.under_rules(&call, delete).await.map(drop)?)
            }
            Server::There(remote) => remote.delete(gvr, namespace, name, policy).await,
        }
    }

    /// Deletes all objects of a resource in a namespace.
    ///
    /// # Errors
    /// What the API answers.
    pub async fn delete_all(&self, gvr: &Gvr, namespace: &str, policy: &DeletePolicy) -> Result<(), Status> {
        match &self.server {
            Server::Here(registry) => {
                let delete = async {
                    let target = registry.target(gvr, namespace, "", "")?;
                    let (caller, options) = (self.caller(), delete_options(policy));
                    registry.delete_collection(&target, &caller, &ListOptions::default(), &options).await
                };
                let call = self.call("deletecollection", gvr, (namespace, "", ""));
                Ok(registry.under_rules(&call, delete).await.map(drop)?)
            }
            Server::There(remote) => remote.delete_all(gvr, namespace, policy).await,
        }
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
        match &self.server {
            Server::Here(registry) => registry.compact(),
            Server::There(_) => unreachable!("tests compact their own registry"),
        }
    }
}
