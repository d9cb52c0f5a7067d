//! `SandboxClaim` that names a template, and a pool by policy.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    schema,
    v1beta1::{ClaimLifecycle, EnvVar, PodMetadata, SandboxClaimStatus, SandboxTemplateRef},
};

/// Which sandbox is wanted, and for how long.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.agents.x-k8s.io",
    version = "v1alpha1",
    kind = "SandboxClaim",
    doc = "A wish for a sandbox of a template.",
    plural = "sandboxclaims",
    singular = "sandboxclaim",
    shortname = "sandboxclaim",
    namespaced,
    storage = false,
    deprecated = "extensions.agents.x-k8s.io/v1alpha1 SandboxClaim is deprecated; use extensions.agents.x-k8s.io/v1beta1 SandboxClaim instead",
    status = "SandboxClaimStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual"
)]
#[serde(rename_all = "camelCase")]
#[schemars(description = "Which sandbox is wanted.")]
pub struct SandboxClaimSpec {
    /// The template of the sandbox, of the same namespace.
    pub sandbox_template_ref: SandboxTemplateRef,

    /// `none` for a new sandbox, `default` for one of any pool of the template, else the name of a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "default"))]
    pub warmpool: Option<String>,

    /// How long the claim lives. Unset means until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<ClaimLifecycle>,

    /// Labels and annotations for the pod, beside the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_pod_metadata: Option<PodMetadata>,

    /// Environment variables for the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub env: Option<Vec<EnvVar>>,
}

schema::publish!(SandboxClaim, SandboxClaimSpec, SandboxClaimStatus, "A wish for a sandbox of a template.");
