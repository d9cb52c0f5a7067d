//! The kubelet's and the scheduler's road to the API: a client like any other, with the names that the real ones have.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    base::{Gvr, Object, Status, Stored},
    clock::Clock,
    ids::Ids,
    registry::{Body, Caller, DeleteOptions, ListOptions, Patch, Registry, User, WatchEvent, Watcher},
};

/// A client with one identity; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Api {
    registry: Registry,
    user: User,
    manager: &'static str,
}

/// A resource of the core group.
pub(super) fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

impl Api {
    pub(super) fn new(registry: &Registry, name: &str, groups: &[&str], manager: &'static str) -> Self {
        let groups = groups.iter().chain(&["system:authenticated"]).map(|group| (*group).to_owned()).collect();
        Self { registry: registry.clone(), user: User { name: name.into(), uid: String::new(), groups }, manager }
    }

    pub(super) fn clock(&self) -> &Clock {
        self.registry.clock()
    }

    pub(super) fn ids(&self) -> &Ids {
        self.registry.ids()
    }

    fn caller(&self) -> Caller {
        Caller { user: self.user.clone(), manager: self.manager.into(), ..Caller::default() }
    }

    /// An object, or `None` where there is none.
    pub(super) async fn find(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Arc<Stored>>, Status> {
        let target = self.registry.target(gvr, namespace, name, "")?;
        match self.registry.get(&target, "").await {
            Ok(object) => Ok(Some(object)),
            Err(status) if status.is_not_found() => Ok(None),
            Err(status) => Err(status),
        }
    }

    pub(super) async fn create(&self, gvr: &Gvr, object: Object) -> Result<Arc<Stored>, Status> {
        let target = self.registry.target(gvr, object.namespace(), "", "")?;
        self.registry.create(&target, &self.caller(), object.into()).await
    }

    /// Writes with a strategic merge patch, to an object or its subresource.
    pub(super) async fn patch(
        &self,
        gvr: &Gvr,
        (namespace, name, subresource): (&str, &str, &str),
        patch: Value,
    ) -> Result<Arc<Stored>, Status> {
        let target = self.registry.target(gvr, namespace, name, subresource)?;
        Ok(self.registry.patch(&target, &self.caller(), Patch::Strategic(patch)).await?.0)
    }

    /// Binds a pod to a node.
    pub(super) async fn bind(&self, pod: &Object, node: &str) -> Result<(), Status> {
        let target = self.registry.target(&core("pods"), pod.namespace(), pod.name(), "binding")?;
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "namespace": pod.namespace(), "name": pod.name(), "uid": pod.uid() },
            "target": { "kind": "Node", "name": node },
        });
        self.registry.create(&target, &self.caller(), Body { value: binding, duplicates: Vec::new() }).await.map(drop)
    }

    /// Deletes an object at once, if it still is the one meant.
    pub(super) async fn delete(&self, gvr: &Gvr, object: &Object) -> Result<(), Status> {
        let target = self.registry.target(gvr, object.namespace(), object.name(), "")?;
        let options =
            DeleteOptions { grace_period_seconds: Some(0), uid: Some(object.uid().into()), ..DeleteOptions::default() };
        match self.registry.delete(&target, &self.caller(), &options).await {
            Ok(_) => Ok(()),
            Err(status) if status.is_not_found() => Ok(()),
            Err(status) => Err(status),
        }
    }

    /// Follows a whole resource.
    pub(super) fn follow(&self, gvr: Gvr) -> Follow {
        Follow { api: self.clone(), gvr, watcher: None, failures: 0 }
    }

    async fn list_and_watch(&self, gvr: &Gvr) -> Result<(Vec<Arc<Stored>>, Watcher), Status> {
        let target = self.registry.target(gvr, "", "", "")?;
        let list = self.registry.list(&target, &ListOptions::default()).await?;
        let options = ListOptions { resource_version: list.revision.to_string(), ..ListOptions::default() };
        let watcher = self.registry.watch(&target, &options).await?;
        Ok((list.items, watcher))
    }
}

/// What happened to a resource.
#[derive(Debug)]
pub(super) enum Change {
    /// These are all there are; what was known before and is not among them is gone.
    All(Vec<Arc<Stored>>),
    /// An object appeared or changed.
    Set(Arc<Stored>),
    /// An object is gone.
    Gone(Arc<Stored>),
}

/// A list and then its changes, for ever.
pub(super) struct Follow {
    api: Api,
    gvr: Gvr,
    watcher: Option<Watcher>,
    failures: u32,
}

impl Follow {
    /// The next changes. Cancel-safe.
    pub(super) async fn next(&mut self) -> Vec<Change> {
        loop {
            let Some(watcher) = &mut self.watcher else {
                match self.api.list_and_watch(&self.gvr).await {
                    Ok((items, watcher)) => {
                        self.watcher = Some(watcher);
                        self.failures = 0;
                        return vec![Change::All(items)];
                    }
                    Err(error) => {
                        tracing::warn!(resource = %self.gvr, %error, "cannot list and watch; trying again");
                        self.failures += 1;
                        self.api.clock().sleep(retry_delay(self.failures)).await;
                        continue;
                    }
                }
            };
            let events = watcher.next().await;
            let mut changes = Vec::new();
            match events {
                None => self.watcher = None,
                Some(events) => {
                    for event in events {
                        match event {
                            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                                changes.push(Change::Set(object));
                            }
                            WatchEvent::Deleted(object) => changes.push(Change::Gone(object)),
                            WatchEvent::Bookmark(..) => {}
                            WatchEvent::Error(error) => {
                                tracing::debug!(resource = %self.gvr, %error, "watch ended; listing again");
                                self.watcher = None;
                                break;
                            }
                        }
                    }
                }
            }
            if !changes.is_empty() {
                return changes;
            }
        }
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn retry_delay(failures: u32) -> std::time::Duration {
    std::time::Duration::from_millis(100 << failures.min(7))
}

/// A time for `metadata` and `status`, or null.
pub(super) fn micro(time: Timestamp) -> Value {
    crate::clock::micro_time_text(time).into()
}
