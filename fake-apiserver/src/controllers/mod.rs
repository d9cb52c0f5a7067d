//! The cluster's own housekeeping, as far as kube-controller-manager does it for everybody: garbage collection,
//! namespaces, roles that gather others, the default service account, the root certificate, volumes and volume claims in
//! use, resource quotas; and, where pods run, the controllers that make them.
//!
//! Each controller is a pure decision and an actor that carries it out; none knows another.

pub mod cluster_role;
pub mod garbage;
pub mod namespace;
pub mod quota;
pub mod service_account;
pub mod volume;
pub mod volume_claim;
mod workloads;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::actor::Server;

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
    tasks.spawn(service_account::run_root_ca(server.clone(), root_ca.into(), token.clone()));
}

/// Starts all but the root certificate's on the tracker; they end with the token.
pub fn start(server: &Server, settings: &Settings, tasks: &TaskTracker, token: &CancellationToken) {
    tasks.spawn(service_account::run_default_account(server.clone(), token.clone()));
    tasks.spawn(namespace::run(server.clone(), settings.namespace_grace, token.clone()));
    tasks.spawn(volume_claim::run(server.clone(), token.clone()));
    tasks.spawn(volume::run(server.clone(), token.clone()));
    tasks.spawn(quota::run(server.clone(), token.clone()));
    tasks.spawn(cluster_role::run(server.clone(), token.clone()));
    tasks.spawn(garbage::run(server.clone(), token.clone()));
    if settings.workloads {
        workloads::start(server, tasks, token);
    }
}

#[cfg(test)]
mod tests;
