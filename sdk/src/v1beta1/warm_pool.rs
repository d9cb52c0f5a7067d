//! `SandboxWarmPool`: sandboxes that are ready before anybody asks for one.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{open_enum::open_enum, schema};

/// How many sandboxes of which template to keep ready.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{SandboxTemplateRef, SandboxWarmPool, SandboxWarmPoolSpec};
///
/// let sandbox_template_ref = SandboxTemplateRef { name: "python".into() };
/// let spec = SandboxWarmPoolSpec { sandbox_template_ref, replicas: Some(3), ..Default::default() };
/// assert_eq!(SandboxWarmPool::new("python", spec).spec.replicas, Some(3));
/// ```
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxWarmPool",
    doc = "Sandboxes of one template that wait to be claimed.",
    plural = "sandboxwarmpools",
    singular = "sandboxwarmpool",
    shortname = "swp",
    namespaced,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1, "minimum" = 0))]
    pub replicas: Option<i32>,

    /// The template that they are made from, of the same namespace.
    pub sandbox_template_ref: SandboxTemplateRef,

    /// What happens to the pool's sandboxes when the template changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// A template of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxTemplateRef {
    /// Its name.
    pub name: String,
}

/// What happens to a pool's sandboxes when the template changes.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{UpdateStrategy, UpdateStrategyType};
///
/// let strategy = UpdateStrategy { type_: Some(UpdateStrategyType::Recreate) };
/// assert_eq!(serde_json::to_value(strategy)?["type"], "Recreate");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpdateStrategy {
    /// The strategy.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "OnReplenish"))]
    pub type_: Option<UpdateStrategyType>,
}

open_enum! {
    /// What happens to a pool's sandboxes when the template changes.
    UpdateStrategyType {
        /// They are replaced at once.
        Recreate,
        /// They stay; new ones are made from the new template. What an object without the field means.
        OnReplenish,
    }
}

/// What the controller saw last. Each part can be absent, and a number that is zero always is.
///
/// # Examples
/// ```
/// let status: agent_sandbox_sdk::v1beta1::SandboxWarmPoolStatus = serde_json::from_str(r#"{"readyReplicas": 2}"#)?;
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

    /// The generation that the controller looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub observed_generation: Option<i64>,
}

schema::publish!(
    SandboxWarmPool,
    SandboxWarmPoolSpec,
    SandboxWarmPoolStatus,
    "Sandboxes of one template that wait to be claimed."
);
