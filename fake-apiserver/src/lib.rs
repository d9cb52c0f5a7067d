//! A Kubernetes API server in a process, which real clients cannot tell from kube-apiserver 1.36: with a simulated kubelet
//! and the Agent Sandbox controllers, in virtual time, repeatable from a seed.
//!
//! ```
//! use fake_apiserver::Cluster;
//! use k8s_openapi::api::core::v1::ConfigMap;
//! use kube::api::{Api, PostParams};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::builder().seed(7).start().await?;
//! let client: kube::Client = cluster.client();
//!
//! let config_maps: Api<ConfigMap> = Api::default_namespaced(client);
//! let wanted: ConfigMap = serde_json::from_value(serde_json::json!({
//!     "metadata": {"name": "settings"}, "data": {"colour": "blue"},
//! }))?;
//! let made = config_maps.create(&PostParams::default(), &wanted).await?;
//! assert!(made.metadata.uid.is_some());
//!
//! let Err(kube::Error::Api(status)) = config_maps.create(&PostParams::default(), &wanted).await else {
//!     panic!("there are two of them now");
//! };
//! assert_eq!(status.message, r#"configmaps "settings" already exists"#);
//! cluster.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Two doors, one server
//!
//! | door | for | time |
//! |---|---|---|
//! | [`Cluster::client`], [`Cluster::connect`] | tests in this process: HTTP over memory, no port and no certificate | the tokio runtime's; on a paused one nobody waits |
//! | [`Cluster::serve_https`], and the program `fake-apiserver` ([`cli`]) | kubectl, client-go, Python and whatever else is another process: TLS on a real port, with a [`kubeconfig`] | real |
//!
//! A paused clock and a real socket do not go together: the runtime takes waiting for the socket for idleness, and jumps.
//!
//! # What is there
//!
//! - The API: built-in kinds and custom resources, all verbs, watches, server-side apply, patches, tables, discovery and
//!   OpenAPI, down to the texts of the errors. The [`registry`] is the way in without HTTP.
//! - Pods that run: a node, a scheduler and a [`kubelet`] whose containers are scripts with a small shell in them, for
//!   `exec`, `attach` and `logs`.
//! - The [`controllers`] that everybody counts on: namespaces, garbage collection, service accounts, volume claims.
//! - Agent Sandbox: its kinds, and the controllers in [`sandbox`].
//! - Time and names that a test holds in its hand: the [`clock`] moves when told to, and all chance comes from
//!   [`ids`](ids::Ids), so that one seed gives one run.
//! - Faults that a test calls up: each is a [`Rule`], in force while its guard lives. Rules and the clock are there for other
//!   processes too, by the paths that `FAULTS.md` shows.
//!
//! # What is not
//!
//! [`base::gaps::GAPS`] is the whole list. What is on it answers 501 or does what the row says; nothing is answered with an
//! empty 200.

pub mod access;
pub mod actor;
pub mod admission;
pub mod base;
pub mod cli;
pub mod clock;
pub mod cluster;
pub mod controllers;
pub mod discovery;
pub mod fields;
pub mod http;
pub mod ids;
pub mod kinds;
pub mod kubeconfig;
pub mod kubelet;
pub mod registry;
pub mod rule;
pub mod sandbox;
pub mod schema;
pub mod store;
mod webhook;

pub use cluster::Cluster;
pub use rule::Rule;
