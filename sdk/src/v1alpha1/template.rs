//! `SandboxTemplate` before claims could bring volumes.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema,
    v1beta1::{EnvVarsInjectionPolicy, NetworkPolicyManagement, NetworkRules, PodTemplate, VolumeClaimTemplate},
};

/// A blueprint of sandboxes: a pod, its volumes, its network.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1alpha1",
    kind = "SandboxTemplate",
    doc = "A blueprint of sandboxes, for pools and claims.",
    plural = "sandboxtemplates",
    singular = "sandboxtemplate",
    shortname = "sandboxtemplate",
    namespaced,
    storage = false,
    deprecated = "extensions.agents.x-k8s.io/v1alpha1 SandboxTemplate is deprecated; use extensions.agents.x-k8s.io/v1beta1 SandboxTemplate instead",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual"
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "What each sandbox of the template should be.")]
pub struct SandboxTemplateSpec {
    /// The pod of each sandbox.
    pub pod_template: PodTemplate,

    /// Volume claims that each sandbox gets for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,

    /// Whether each sandbox gets a headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,

    /// Who may talk to the sandboxes, and whom they may talk to. Unset means the controller's default: in from the
    /// sandbox router, out to public addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkRules>,

    /// Whether the controller keeps a NetworkPolicy for the template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Managed"))]
    pub network_policy_management: Option<NetworkPolicyManagement>,

    /// Whether a claim may set environment variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Disallowed"))]
    pub env_vars_injection_policy: Option<EnvVarsInjectionPolicy>,
}

schema::publish!(SandboxTemplate, SandboxTemplateSpec, "A blueprint of sandboxes.");
