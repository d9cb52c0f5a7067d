//! `SandboxWarmPool` whose size must be said.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema,
    v1beta1::{SandboxTemplateRef, UpdateStrategy},
};

/// How many sandboxes of which template to keep ready.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1alpha1",
    kind = "SandboxWarmPool",
    doc = "Sandboxes of one template that wait to be claimed.",
    plural = "sandboxwarmpools",
    singular = "sandboxwarmpool",
    shortname = "swp",
    namespaced,
    storage = false,
    deprecated = "extensions.agents.x-k8s.io/v1alpha1 SandboxWarmPool is deprecated; use extensions.agents.x-k8s.io/v1beta1 SandboxWarmPool instead",
    status = "SandboxWarmPoolStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn = r#"{"name": "Ready", "type": "integer", "jsonPath": ".status.readyReplicas"}"#,
    printcolumn = r#"{"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the pool should hold.")]
pub struct SandboxWarmPoolSpec {
    /// How many sandboxes to keep ready.
    #[schemars(extend("minimum" = 0))]
    pub replicas: i32,

    /// The template that they are made from, of the same namespace.
    pub sandbox_template_ref: SandboxTemplateRef,

    /// What happens to the pool's sandboxes when the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// What the controller saw last. Each part can be absent, and a number that is zero always is.
///
/// # Examples
/// ```
/// let status: agent_sandbox_sdk::v1alpha1::SandboxWarmPoolStatus = serde_json::from_str(r#"{"readyReplicas": 2}"#)?;
/// assert_eq!(status.ready_replicas, Some(2));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the controller saw last.")]
pub struct SandboxWarmPoolStatus {
    /// How many sandboxes the pool holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// How many of them are Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,

    /// A label selector that finds the pool's sandboxes and their pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

schema::publish!(
    SandboxWarmPool,
    SandboxWarmPoolSpec,
    SandboxWarmPoolStatus,
    "Sandboxes of one template that wait to be claimed."
);
