//! The Agent Sandbox controllers, as kubernetes-sigs/agent-sandbox runs them (v0.5.6 and a little later).
//!
//! Each kind has pure decisions (what is there in, what to do out) and an actor that carries them out through
//! [`crate::actor::Api`]. [`install`] puts the kinds' definitions into the cluster; [`start`] starts the actors.

mod conditions;
mod install;
mod keys;
mod lifecycle;
mod metadata;
mod ownership;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    install::{InstallError, definition, install},
    keys::name_hash,
};
use crate::actor::{Api, Server};

/// What the controllers want to be told; upstream's flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `--cluster-domain`: what service names end in.
    pub cluster_domain: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { cluster_domain: "cluster.local".into() }
    }
}

/// Starts the controllers on the tracker; they end with the token. The definitions must be installed.
pub fn start(server: &Server, settings: &Settings, tasks: &TaskTracker, token: &CancellationToken) {
    let user = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";
    let api = Api::new(server.clone(), user, "agent-sandbox-controller");
    tasks.spawn(lifecycle::run(api, settings.clone(), token.clone()));
}

#[cfg(test)]
mod tests;
