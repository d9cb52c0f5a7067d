//! `SandboxClaim`: somebody who wants a sandbox, from a pool or made anew.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PodMetadata, VolumeClaimTemplate};
use crate::{open_enum::open_enum, schema};

/// Which sandbox is wanted, and for how long.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{SandboxClaim, SandboxClaimSpec, SandboxWarmPoolRef};
///
/// let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "python".into() }, ..Default::default() };
/// assert_eq!(SandboxClaim::new("mine", spec).spec.warm_pool_ref.name, "python");
/// ```
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxClaim",
    doc = "A wish for a sandbox, served from a pool.",
    plural = "sandboxclaims",
    singular = "sandboxclaim",
    shortname = "sandboxclaim",
    namespaced,
    status = "SandboxClaimStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Sandbox", "type": "string", "jsonPath": ".status.sandbox.name"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "Which sandbox is wanted.")]
pub struct SandboxClaimSpec {
    /// The pool to take a sandbox from, of the same namespace. If it has none, one is made from the pool's template.
    pub warm_pool_ref: SandboxWarmPoolRef,

    /// How long the claim lives. Unset means until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<ClaimLifecycle>,

    /// Labels and annotations for the pod, beside the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_pod_metadata: Option<PodMetadata>,

    /// Environment variables for the pod. A claim with some is never served from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub env: Option<Vec<EnvVar>>,

    /// Volume claims for the sandbox. A claim with some is never served from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,
}

/// A pool of the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxWarmPoolRef {
    /// Its name.
    pub name: String,
}

/// How long a claim lives.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::ClaimLifecycle;
///
/// let lifecycle = ClaimLifecycle { ttl_seconds_after_finished: Some(60), ..Default::default() };
/// assert_eq!(serde_json::to_string(&lifecycle)?, r#"{"ttlSecondsAfterFinished":60}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimLifecycle {
    /// When the claim expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_time: Option<Time>,

    /// How many seconds after its pod has ended the claim expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// What expiry leaves behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain"))]
    pub shutdown_policy: Option<ClaimShutdownPolicy>,
}

open_enum! {
    /// What the expiry of a claim leaves behind.
    ClaimShutdownPolicy {
        /// The claim is deleted, and its sandbox with it.
        Delete,
        /// As `Delete`, but the claim stays until its sandbox is gone.
        DeleteForeground,
        /// The sandbox goes; the claim stays and says so. What a lifecycle without the field means.
        Retain,
    }
}

/// An environment variable for a container.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::EnvVar;
///
/// let variable = EnvVar { container_name: None, name: "MODE".into(), value: "test".into() };
/// assert_eq!(serde_json::to_string(&variable)?, r#"{"name":"MODE","value":"test"}"#);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// The container. Unset means the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,

    /// The variable's name.
    pub name: String,

    /// The variable's value.
    pub value: String,
}

/// What the controller saw last. Each part can be absent.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{ClaimedSandbox, SandboxClaimStatus};
///
/// let status: SandboxClaimStatus = serde_json::from_str(r#"{"sandbox": {"name": "python-x7k2p"}}"#)?;
/// let sandbox: ClaimedSandbox = status.sandbox.expect("it is served");
/// assert_eq!(sandbox.name.as_deref(), Some("python-x7k2p"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the controller saw last.")]
pub struct SandboxClaimStatus {
    /// Ready, and Finished once the pod has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// The sandbox that serves the claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<ClaimedSandbox>,
}

/// The sandbox that serves a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClaimedSandbox {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Its pod's addresses.
    #[serde(default, rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,
}

impl SandboxClaim {
    /// The name of the sandbox that serves the claim, once there is one.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::{SandboxClaim, SandboxClaimSpec};
    ///
    /// assert_eq!(SandboxClaim::new("mine", SandboxClaimSpec::default()).sandbox_name(), None);
    /// ```
    pub fn sandbox_name(&self) -> Option<&str> {
        self.status.as_ref()?.sandbox.as_ref()?.name.as_deref().filter(|name| !name.is_empty())
    }
}

schema::publish!(SandboxClaim, SandboxClaimSpec, SandboxClaimStatus, "A wish for a sandbox, served from a pool.");
