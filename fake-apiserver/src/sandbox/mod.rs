//! The Agent Sandbox controllers, as kubernetes-sigs/agent-sandbox runs them (v0.5.6 and a little later).
//!
//! Each kind has pure decisions (what is there in, what to do out) and an actor that carries them out through
//! [`crate::actor::Api`]. [`install`] puts the kinds' definitions into the cluster; [`start`] starts the actors.

mod blueprint;
mod claim;
mod conditions;
mod conversion;
mod install;
mod keys;
mod lifecycle;
mod metadata;
mod metrics;
mod ownership;
mod pool;
mod system;
mod template;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    install::{InstallError, definitions, install},
    keys::name_hash,
    metrics::{ClaimCreation, Family, Histogram, Latency, Metrics, Samples},
    pool::Settings as PoolSettings,
};
use crate::actor::{Api, Server};

/// What the controllers want to be told; upstream's flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `--cluster-domain`: what service names end in.
    pub cluster_domain: String,
    /// `--disable-claim-events`: claims are served without telling of it in events.
    pub disable_claim_events: bool,
    /// `--disable-claim-observability-annotations`: claims do not say when they were first seen.
    pub disable_claim_observability_annotations: bool,
    /// `allowed-label-domains` of the ConfigMap `agent-sandbox-config`: the domains, and those below them, whose labels
    /// claims may add to their pods.
    pub allowed_label_domains: Vec<String>,
    /// `--sandbox-write-behind-window`: how long a change of a running pod's metadata waits for others, one second at
    /// most; zero for not at all, which is the default.
    pub sandbox_write_behind_window: Duration,
    /// What the warm pool controller wants to be told.
    pub warm_pools: PoolSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            sandbox_write_behind_window: Duration::ZERO,
            disable_claim_events: false,
            disable_claim_observability_annotations: false,
            warm_pools: PoolSettings::default(),
            allowed_label_domains: vec!["sandbox.users.io".into()],
        }
    }
}

/// Starts the controllers on the tracker; they end with the token. The definitions must be installed.
pub fn start(server: &Server, settings: &Settings, tasks: &TaskTracker, token: &CancellationToken) {
    let user = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";
    start_as(Api::new(server.clone(), user, "agent-sandbox-controller"), settings, tasks, token);
}

fn start_as(api: Api, settings: &Settings, tasks: &TaskTracker, token: &CancellationToken) {
    tasks.spawn(claim::run(api.clone(), settings.clone(), token.clone()));
    tasks.spawn(lifecycle::run(api.clone(), settings.clone(), token.clone()));
    tasks.spawn(pool::run(api.clone(), settings.warm_pools.clone(), token.clone()));
    tasks.spawn(template::run(api, token.clone()));
}

#[cfg(test)]
mod tests;
