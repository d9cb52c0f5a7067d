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

use std::{num::NonZeroUsize, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    conversion::convert,
    install::{InstallError, definitions, install},
    keys::name_hash,
    metrics::{ClaimCreation, Family, Histogram, Latency, Metrics, Samples, metrics_text},
    pool::Settings as PoolSettings,
};
use crate::actor::{self, Api, Server};

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
    /// How many objects each controller looks at at a time.
    pub workers: Workers,
}

/// How many objects each controller looks at at a time, by default as many as upstream's: one that waits for the API holds
/// up no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workers {
    /// `--sandbox-concurrent-workers`; 100 by default.
    pub sandboxes: NonZeroUsize,
    /// `--sandbox-claim-concurrent-workers`; 50 by default.
    pub claims: NonZeroUsize,
    /// `--sandbox-warm-pool-concurrent-workers`; 1 by default.
    pub warm_pools: NonZeroUsize,
    /// `--sandbox-template-concurrent-workers`; 1 by default.
    pub templates: NonZeroUsize,
}

impl Default for Workers {
    fn default() -> Self {
        let one = NonZeroUsize::MIN;
        Self { sandboxes: one.saturating_add(99), claims: one.saturating_add(49), warm_pools: one, templates: one }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            cluster_domain: "cluster.local".into(),
            sandbox_write_behind_window: Duration::ZERO,
            disable_claim_events: false,
            disable_claim_observability_annotations: false,
            warm_pools: PoolSettings::default(),
            workers: Workers::default(),
            allowed_label_domains: vec!["sandbox.users.io".into()],
        }
    }
}

/// Starts the controllers on the tracker; they end with the token. The definitions must be installed. What they count goes
/// into the metrics.
pub fn start(server: &Server, settings: &Settings, metrics: &Metrics, tasks: &TaskTracker, token: &CancellationToken) {
    let user = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";
    let api = Api::new(server.clone(), user, "agent-sandbox-controller");
    let (rules, token) = (api.rules(), || token.clone());
    let with = || (api.clone(), settings.clone());
    let ((api_, settings_), metrics) = (with(), metrics.clone());
    tasks.spawn(actor::supervised(rules.cloned(), "sandboxclaim-controller", token(), move |token| {
        claim::run(api_.clone(), settings_.clone(), metrics.clone(), token)
    }));
    let (api_, settings_) = with();
    tasks.spawn(actor::supervised(rules.cloned(), "sandbox-controller", token(), move |token| {
        lifecycle::run(api_.clone(), settings_.clone(), token)
    }));
    let (api_, settings_) = with();
    tasks.spawn(actor::supervised(rules.cloned(), "sandboxwarmpool-controller", token(), move |token| {
        pool::run(api_.clone(), settings_.clone(), token)
    }));
    let (api_, settings_) = with();
    tasks.spawn(actor::supervised(rules.cloned(), "sandboxtemplate-controller", token(), move |token| {
        template::run(api_.clone(), settings_.workers.templates, token)
    }));
}

#[cfg(test)]
mod tests;
