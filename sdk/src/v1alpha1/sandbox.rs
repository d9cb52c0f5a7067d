//! `Sandbox` with replicas in place of an operating mode.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema,
    v1beta1::{PodTemplate, ShutdownPolicy, VolumeClaimTemplate},
};

/// What a sandbox should be: a pod, its volumes, and how long it lives.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agents.x-k8s.io",
    version = "v1alpha1",
    kind = "Sandbox",
    doc = "A pod with a stable name, its volumes and, if wanted, a Service.",
    plural = "sandboxes",
    singular = "sandbox",
    shortname = "sandbox",
    namespaced,
    storage = false,
    deprecated = "agents.x-k8s.io/v1alpha1 Sandbox is deprecated; use agents.x-k8s.io/v1beta1 Sandbox instead",
    status = "SandboxStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    )
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the sandbox should be.")]
pub struct SandboxSpec {
    /// The pod that runs in the sandbox.
    pub pod_template: PodTemplate,

    /// Volume claims that live as long as the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,

    /// Whether a headless Service of the sandbox's name points at its pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,

    /// When the sandbox expires. Unset means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_time: Option<Time>,

    /// What expiry leaves behind: the sandbox and its volumes (Retain), or nothing (Delete).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain"))]
    pub shutdown_policy: Option<ShutdownPolicy>,

    /// Whether the pod should run: 1, or 0 for a suspended sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = 1, "minimum" = 0, "maximum" = 1))]
    pub replicas: Option<i32>,
}

/// What the controller saw last. Each part can be absent.
///
/// # Examples
/// ```
/// let status: agent_sandbox_sdk::v1alpha1::SandboxStatus = serde_json::from_str(r#"{"podIPs": ["10.0.0.7"]}"#)?;
/// assert_eq!(status.pod_ips, ["10.0.0.7"]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What the controller saw last.")]
pub struct SandboxStatus {
    /// Ready, Suspended, PodScheduled and Finished, as far as they apply.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,

    /// The name of the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,

    /// The Service's name in the cluster's DNS.
    #[serde(default, rename = "serviceFQDN", skip_serializing_if = "Option::is_none")]
    pub service_fqdn: Option<String>,

    /// A label selector that finds the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// The pod's addresses.
    #[serde(default, rename = "podIPs", skip_serializing_if = "Vec::is_empty")]
    pub pod_ips: Vec<String>,

    /// Whether there should be a pod. A guess of the conversion, not a count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0))]
    pub replicas: Option<i32>,
}

schema::publish!(
    Sandbox,
    SandboxSpec,
    SandboxStatus,
    "A pod with a stable name, its volumes and, if wanted, a Service."
);
