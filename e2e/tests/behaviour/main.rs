//! What a cluster with Agent Sandbox does, as its users see it.

mod examples;
mod manifests;
mod setup;
mod targets;
