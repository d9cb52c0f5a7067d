//! Our CustomResourceDefinitions as values: the source of `manifests/crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceValidation, ServiceReference,
    WebhookClientConfig, WebhookConversion,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{schema, v1alpha1, v1beta1};

/// The names of all definitions, in that order. Making the definitions themselves takes a while.
pub(crate) const NAMES: [&str; 4] = [
    "sandboxes.agents.x-k8s.io",
    "sandboxtemplates.extensions.agents.x-k8s.io",
    "sandboxwarmpools.extensions.agents.x-k8s.io",
    "sandboxclaims.extensions.agents.x-k8s.io",
];

/// All definitions, in the order in which to apply them.
///
/// # Examples
/// ```
/// let names: Vec<_> = agent_sandbox_sdk::crds::all().into_iter().filter_map(|crd| crd.metadata.name).collect();
/// assert_eq!(names.len(), 4);
/// assert_eq!(names[0], "sandboxes.agents.x-k8s.io");
/// ```
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![sandbox(), sandbox_template(), sandbox_warm_pool(), sandbox_claim()]
}

/// The definition of `Sandbox`: v1beta1, which is stored, and v1alpha1, which is deprecated.
///
/// Its versions are the same as `Sandbox::crd()`'s, but that int-or-string fields spell out both types and take no null,
/// as Kubernetes' own tools write it. The controller's webhook converts between them.
///
/// # Examples
/// ```
/// let crd = agent_sandbox_sdk::crds::sandbox();
/// assert_eq!(crd.spec.versions[0].name, "v1beta1");
/// ```
pub fn sandbox() -> CustomResourceDefinition {
    exact(v1beta1::Sandbox::crd(), v1alpha1::Sandbox::crd())
}

/// The definition of `SandboxTemplate`, as [`sandbox`].
///
/// # Examples
/// ```
/// assert_eq!(agent_sandbox_sdk::crds::sandbox_template().spec.names.plural, "sandboxtemplates");
/// ```
pub fn sandbox_template() -> CustomResourceDefinition {
    exact(v1beta1::SandboxTemplate::crd(), v1alpha1::SandboxTemplate::crd())
}

/// The definition of `SandboxWarmPool`, as [`sandbox`].
///
/// # Examples
/// ```
/// assert_eq!(agent_sandbox_sdk::crds::sandbox_warm_pool().spec.names.plural, "sandboxwarmpools");
/// ```
pub fn sandbox_warm_pool() -> CustomResourceDefinition {
    exact(v1beta1::SandboxWarmPool::crd(), v1alpha1::SandboxWarmPool::crd())
}

/// The definition of `SandboxClaim`, as [`sandbox`].
///
/// # Examples
/// ```
/// assert_eq!(agent_sandbox_sdk::crds::sandbox_claim().spec.names.plural, "sandboxclaims");
/// ```
pub fn sandbox_claim() -> CustomResourceDefinition {
    exact(v1beta1::SandboxClaim::crd(), v1alpha1::SandboxClaim::crd())
}

fn exact(mut crd: CustomResourceDefinition, older: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.spec.versions.extend(older.spec.versions);
    crd.spec.conversion = Some(webhook());
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        let mut full: Value = serde_json::to_value(&version.schema).expect("a schema is JSON");
        schema::exact(&mut full["openAPIV3Schema"]);
        version.schema =
            serde_json::from_value::<Option<CustomResourceValidation>>(full).expect("what was a schema still is one");
    }
    crd
}

/// Upstream's controller converts.
fn webhook() -> CustomResourceConversion {
    let service = ServiceReference {
        name: "agent-sandbox-webhook-service".into(),
        namespace: "agent-sandbox-system".into(),
        path: Some("/convert".into()),
        port: None,
    };
    CustomResourceConversion {
        strategy: "Webhook".into(),
        webhook: Some(WebhookConversion {
            client_config: Some(WebhookClientConfig { service: Some(service), ..Default::default() }),
            conversion_review_versions: vec!["v1".into(), "v1beta1".into()],
        }),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_names_are_those_of_the_definitions() {
        let names: Vec<_> = super::all().into_iter().filter_map(|crd| crd.metadata.name).collect();
        assert_eq!(names, super::NAMES);
    }
}
