//! The kubelet's and the scheduler's road to the API: a client like any other, with the names that the real ones have.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    actor::{self, DeletePolicy, Informer, Server},
    base::{Gvr, Object, Status, Stored},
    clock::Clock,
    ids::Ids,
    rule::Rules,
};

/// A client with one identity; clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Api(actor::Api);

/// A resource of the core group.
pub(super) fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

impl Api {
    pub(super) fn new(server: &Server, user: &str, manager: &str) -> Self {
        Self(actor::Api::new(server.clone(), user, manager))
    }

    pub(super) fn clock(&self) -> &Clock {
        self.0.clock()
    }

    /// The rules by which things go wrong, where they are known.
    pub(super) fn rules(&self) -> Option<&Rules> {
        self.0.rules()
    }

    pub(super) fn ids(&self) -> &Ids {
        self.0.ids()
    }

    /// An object, or `None` where there is none.
    pub(super) async fn find(&self, gvr: &Gvr, namespace: &str, name: &str) -> Result<Option<Arc<Stored>>, Status> {
        self.0.get(gvr, namespace, name).await
    }

    pub(super) async fn create(&self, gvr: &Gvr, object: Object) -> Result<Arc<Stored>, Status> {
        self.0.create(gvr, object).await
    }

    /// Writes with a strategic merge patch, to an object or its subresource.
    pub(super) async fn patch(
        &self,
        gvr: &Gvr,
        place: (&str, &str, &str),
        patch: Value,
    ) -> Result<Arc<Stored>, Status> {
        self.0.strategic_patch(gvr, place, patch).await
    }

    /// Binds a pod to a node.
    pub(super) async fn bind(&self, pod: &Object, node: &str) -> Result<(), Status> {
        let mut binding = Object::new("v1", "Binding", pod.namespace(), pod.name());
        binding.set_at(&["metadata", "uid"], pod.uid());
        binding.set("target", json!({ "kind": "Node", "name": node }));
        self.0.create_sub(&core("pods"), "binding", binding).await.map(drop)
    }

    /// A token of a pod's service account, bound to the pod; `wanted` is the volume's source of it.
    pub(super) async fn token(&self, pod: &Object, wanted: &Value) -> Result<String, Status> {
        let account = pod.str_at(&["spec", "serviceAccountName"]);
        let audiences: Vec<&str> = wanted.get("audience").and_then(Value::as_str).into_iter().collect();
        let reference = json!({ "kind": "Pod", "apiVersion": "v1", "name": pod.name(), "uid": pod.uid() });
        let mut spec = json!({ "audiences": audiences, "boundObjectRef": reference });
        if let Some(seconds) = wanted.get("expirationSeconds") {
            spec["expirationSeconds"] = seconds.clone();
        }
        let mut request = Object::new("authentication.k8s.io/v1", "TokenRequest", pod.namespace(), account);
        request.set("spec", spec);
        let answer = self.0.create_sub(&core("serviceaccounts"), "token", request).await?;
        Ok(answer.str_at(&["status", "token"]).to_owned())
    }

    /// Deletes an object at once, if it still is the one meant.
    pub(super) async fn delete(&self, gvr: &Gvr, object: &Object) -> Result<(), Status> {
        let policy =
            DeletePolicy { grace: Some(Duration::ZERO), uid: Some(object.uid().into()), ..DeletePolicy::default() };
        match self.0.delete(gvr, object.namespace(), object.name(), &policy).await {
            Err(status) if !status.is_not_found() => Err(status),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Follows a whole resource.
    pub(super) fn follow(&self, gvr: Gvr) -> Informer {
        Informer::new(self.0.clone(), gvr, "", "")
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn retry_delay(failures: u32) -> Duration {
    Duration::from_millis(100 << failures.min(7))
}

/// A time for `metadata` and `status`, or null.
pub(super) fn micro(time: Timestamp) -> Value {
    crate::clock::micro_time_text(time).into()
}
