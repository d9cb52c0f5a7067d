//! What the crate does as a whole.

use std::sync::LazyLock;

use agent_sandbox_sdk::crds;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

mod answers;
mod builders;
mod client;
mod crd_parity;
mod docs;
mod doors;
mod examples;
mod exec;
mod faults;
mod health;
mod informer;
mod ports;
mod validation;
mod versions;

/// The definitions of the SDK, made from its types once for all tests: that takes longer than most of them.
fn our_definitions() -> Vec<CustomResourceDefinition> {
    static DEFINITIONS: LazyLock<Vec<CustomResourceDefinition>> = LazyLock::new(crds::all);
    DEFINITIONS.clone()
}
