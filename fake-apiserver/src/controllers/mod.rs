//! The cluster's own housekeeping, as far as kube-controller-manager does it for everybody: garbage collection,
//! namespaces, roles that gather others, the default service account, the root certificate, volumes and volume claims in
//! use, resource quotas; and, where pods run, the controllers that make them, and the one that judges nodes.
//!
//! Each controller is a pure decision and an actor that carries it out; none knows another.

pub mod cluster_role;
pub mod garbage;
pub mod namespace;
pub mod node;
pub mod quota;
pub mod service_account;
pub mod volume;
pub mod volume_claim;
mod workloads;

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::actor::{self, Server};

/// The field manager of everything that kube-controller-manager writes.
const KUBE_CONTROLLER_MANAGER: &str = "kube-controller-manager";

/// What the controllers want to be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a namespace that is being deleted is left alone first; upstream's is 5 seconds, so that every API server
    /// has seen the deletion and nothing new comes in.
    pub namespace_grace: Duration,
    /// Whether deployments, jobs and the like make pods; off by default, for a cluster in which none would run.
    pub workloads: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { namespace_grace: Duration::from_secs(5), workloads: false }
    }
}

/// Publishes the cluster's certificate authority, in PEM, as `kube-root-ca.crt` in every namespace, until the token ends.
pub fn start_root_ca(server: &Server, root_ca: &str, tasks: &TaskTracker, token: &CancellationToken) {
    let root_ca: Arc<str> = root_ca.into();
    actor::start(server, tasks, token, "root-ca-certificate-publisher-controller", move |server, token| {
        service_account::run_root_ca(server, root_ca.clone(), token)
    });
}

/// Starts all but the root certificate's on the tracker; they end with the token.
pub fn start(server: &Server, settings: &Settings, tasks: &TaskTracker, token: &CancellationToken) {
    actor::start(server, tasks, token, "serviceaccount-controller", service_account::run_default_account);
    let grace = settings.namespace_grace;
    let namespaces = move |server, token| namespace::run(server, grace, token);
    actor::start(server, tasks, token, "namespace-controller", namespaces);
    actor::start(server, tasks, token, "persistentvolumeclaim-protection-controller", volume_claim::run);
    actor::start(server, tasks, token, "persistentvolume-protection-controller", volume::run);
    actor::start(server, tasks, token, "resourcequota-controller", quota::run);
    actor::start(server, tasks, token, "clusterrole-aggregation-controller", cluster_role::run);
    actor::start(server, tasks, token, "garbage-collector-controller", garbage::run);
    if settings.workloads {
        actor::start(server, tasks, token, "node-lifecycle-controller", node::run);
        workloads::start(server, tasks, token);
    }
}

#[cfg(test)]
mod tests;
