//! Our CustomResourceDefinitions as values: the source of `manifests/crds/`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceValidation,
};
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{schema, v1beta1::Sandbox};

/// All definitions, in the order in which to apply them.
///
/// # Examples
/// ```
/// let names: Vec<_> = agent_sandbox_sdk::crds::all().into_iter().filter_map(|crd| crd.metadata.name).collect();
/// assert_eq!(names, ["sandboxes.agents.x-k8s.io"]);
/// ```
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![sandbox()]
}

/// The definition of `Sandbox`, with the one version that this crate serves.
///
/// The same as `Sandbox::crd()`, but that int-or-string fields spell out both types and take no null, as Kubernetes' own
/// tools write it.
///
/// # Examples
/// ```
/// let crd = agent_sandbox_sdk::crds::sandbox();
/// assert_eq!(crd.spec.versions[0].name, "v1beta1");
/// ```
pub fn sandbox() -> CustomResourceDefinition {
    exact(Sandbox::crd())
}

fn exact(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.spec.conversion = Some(CustomResourceConversion { strategy: "None".into(), webhook: None });
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    for version in &mut crd.spec.versions {
        let mut full: Value = serde_json::to_value(&version.schema).expect("a schema is JSON");
        schema::exact(&mut full["openAPIV3Schema"]);
        version.schema =
            serde_json::from_value::<Option<CustomResourceValidation>>(full).expect("what was a schema still is one");
    }
    crd
}
