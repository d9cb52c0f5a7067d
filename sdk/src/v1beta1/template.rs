//! `SandboxTemplate`: what the sandboxes of pools and claims are made from.

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PodTemplate, VolumeClaimTemplate};
use crate::{open_enum::open_enum, schema};

/// A blueprint of sandboxes: a pod, its volumes, its network.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{PodTemplate, SandboxTemplate, SandboxTemplateSpec};
/// use k8s_openapi::api::core::v1::{Container, PodSpec};
///
/// let main = Container { name: "main".into(), image: Some("python:3.13".into()), ..Default::default() };
/// let pod = PodSpec { containers: vec![main], ..Default::default() };
/// let spec = SandboxTemplateSpec { pod_template: PodTemplate::of(pod), ..Default::default() };
/// assert_eq!(SandboxTemplate::new("python", spec).metadata.name.as_deref(), Some("python"));
/// ```
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1beta1",
    kind = "SandboxTemplate",
    doc = "A blueprint of sandboxes, for pools and claims.",
    plural = "sandboxtemplates",
    singular = "sandboxtemplate",
    shortname = "sandboxtemplate",
    namespaced,
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

    /// Whether a claim may bring volume claims of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Disallowed"))]
    pub volume_claim_templates_policy: Option<VolumeClaimTemplatesPolicy>,
}

/// The rules of a template's NetworkPolicy. A direction without rules is closed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NetworkRules {
    /// Who may talk to the sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Vec<NetworkPolicyIngressRule>>,

    /// Whom the sandboxes may talk to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<NetworkPolicyEgressRule>>,
}

open_enum! {
    /// Whether the controller keeps a NetworkPolicy for a template.
    NetworkPolicyManagement {
        /// It makes one and repairs it. What an object without the field means.
        Managed,
        /// It removes the one that it made, if any.
        Unmanaged,
    }
}

open_enum! {
    /// What environment variables a claim may set.
    EnvVarsInjectionPolicy {
        /// Those that the template does not have.
        Allowed,
        /// Also those that replace the template's own.
        Overrides,
        /// None: a claim that tries is refused. What an object without the field means.
        Disallowed,
    }
}

open_enum! {
    /// What volume claims a claim may bring.
    VolumeClaimTemplatesPolicy {
        /// None: a claim that tries is refused. What an object without the field means.
        Disallowed,
        /// Those that the template does not have.
        Allowed,
        /// Also those that replace the template's own.
        Overrides,
    }
}

schema::publish!(SandboxTemplate, SandboxTemplateSpec, "A blueprint of sandboxes.");
