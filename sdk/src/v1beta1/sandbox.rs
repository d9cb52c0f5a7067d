//! `Sandbox`: one pod with a stable name, and what goes with it.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaimSpec, PodSpec},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{open_enum::open_enum, schema};

/// What a sandbox should be: a pod, its volumes, and how long it lives.
///
/// Kept apart from [`Sandbox`], the object with metadata and status, as kube-rs has it.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{PodTemplate, Sandbox, SandboxSpec};
/// use k8s_openapi::api::core::v1::{Container, PodSpec};
///
/// let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
/// let pod = PodSpec { containers: vec![main], ..Default::default() };
/// let sandbox = Sandbox::new("hello", SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() });
/// assert_eq!(serde_json::to_value(&sandbox)?["spec"]["podTemplate"]["spec"]["containers"][0]["name"], "main");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "agents.x-k8s.io",
    version = "v1beta1",
    kind = "Sandbox",
    doc = "A pod with a stable name, its volumes and, if wanted, a Service, that can be suspended, resumed and made to expire.",
    plural = "sandboxes",
    singular = "sandbox",
    shortname = "sandbox",
    namespaced,
    status = "SandboxStatus",
    derive = "Default",
    derive = "PartialEq",
    schema = "manual",
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(
    description = "What the sandbox should be.",
    extend("x-kubernetes-validations" = [{
        "rule": "has(self.volumeClaimTemplates) == has(oldSelf.volumeClaimTemplates) && (!has(self.volumeClaimTemplates) || self.volumeClaimTemplates == oldSelf.volumeClaimTemplates)",
        "message": "volumeClaimTemplates is immutable",
    }])
)]
pub struct SandboxSpec {
    /// The pod that runs in the sandbox. A change of its spec waits for the next pod; one of its metadata reaches the
    /// running pod.
    pub pod_template: PodTemplate,

    /// Volume claims that live as long as the sandbox: through suspension and expiry, until it is deleted. Cannot be
    /// changed, added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub volume_claim_templates: Option<Vec<VolumeClaimTemplate>>,

    /// Whether a headless Service of the sandbox's name points at its pod. Unset leaves an existing one alone; false
    /// removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,

    /// When the sandbox expires. Unset means never. Moving it into the future revives an expired sandbox that was
    /// retained.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shutdown_time: Option<Time>,

    /// What expiry leaves behind: the sandbox and its volumes (Retain), or nothing (Delete).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Retain"))]
    pub shutdown_policy: Option<ShutdownPolicy>,

    /// Whether the pod should run. A suspended sandbox keeps its volumes and its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "Running"))]
    pub operating_mode: Option<OperatingMode>,
}

/// The pod of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodTemplate {
    /// Labels and annotations for the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<PodMetadata>,

    /// The pod's spec, as in any pod.
    pub spec: PodSpec,
}

impl PodTemplate {
    /// A template of this pod, without labels or annotations.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::PodTemplate;
    /// use k8s_openapi::api::core::v1::PodSpec;
    ///
    /// assert!(PodTemplate::of(PodSpec::default()).metadata.is_none());
    /// ```
    pub fn of(spec: PodSpec) -> Self {
        Self { metadata: None, spec }
    }
}

/// What a template may say about a pod's metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PodMetadata {
    /// Labels. Keys under `agents.x-k8s.io/` are the controller's and ignored here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations. Keys under `agents.x-k8s.io/` are the controller's and ignored here.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A volume claim that each sandbox gets for itself.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::v1beta1::{VolumeClaimMetadata, VolumeClaimTemplate};
///
/// let metadata = VolumeClaimMetadata { name: Some("work".into()), ..Default::default() };
/// let claim = VolumeClaimTemplate { metadata: Some(metadata), ..Default::default() };
/// assert_eq!(serde_json::to_value(&claim)?["metadata"]["name"], "work");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimTemplate {
    /// The claim's name, labels and annotations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<VolumeClaimMetadata>,

    /// The claim's spec, as in any volume claim.
    pub spec: PersistentVolumeClaimSpec,
}

/// What a template may say about a volume claim's metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimMetadata {
    /// The volume's name in the pod. The claim is called NAME-SANDBOX.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,

    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,

    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

open_enum! {
    /// Whether a sandbox's pod should run.
    OperatingMode {
        /// The pod runs. What an object without the field means.
        Running,
        /// The pod is stopped; volumes and Service stay.
        Suspended,
    }
}

open_enum! {
    /// What expiry leaves behind.
    ShutdownPolicy {
        /// The sandbox is deleted, and all that it owns with it.
        Delete,
        /// Pod and Service go; the sandbox and its volumes stay. What an object without the field means.
        Retain,
    }
}

/// What the controller saw last. Each part can be absent.
///
/// # Examples
/// ```
/// let status: agent_sandbox_sdk::v1beta1::SandboxStatus = serde_json::from_str(r#"{"podIPs": ["10.0.0.7"]}"#)?;
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

    /// The node that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,
}

impl Sandbox {
    /// Whether its pod should run; an absent field means that it should.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::v1beta1::{OperatingMode, Sandbox, SandboxSpec};
    ///
    /// assert_eq!(*Sandbox::new("a", SandboxSpec::default()).operating_mode(), OperatingMode::Running);
    /// ```
    pub fn operating_mode(&self) -> &OperatingMode {
        self.spec.operating_mode.as_ref().unwrap_or(&OperatingMode::Running)
    }

    /// The name of its pod: what the controller noted in the pod-name annotation, else the sandbox's own name.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{keys, v1beta1::{Sandbox, SandboxSpec}};
    ///
    /// let mut sandbox = Sandbox::new("a", SandboxSpec::default());
    /// assert_eq!(sandbox.pod_name(), Some("a"));
    /// sandbox.metadata.annotations.get_or_insert_default().insert(keys::POD_NAME.into(), "pool-x7k2p".into());
    /// assert_eq!(sandbox.pod_name(), Some("pool-x7k2p"));
    /// ```
    pub fn pod_name(&self) -> Option<&str> {
        let noted = self.metadata.annotations.as_ref().and_then(|annotations| annotations.get(crate::keys::POD_NAME));
        noted.filter(|name| !name.is_empty()).or(self.metadata.name.as_ref()).map(String::as_str)
    }

    /// The condition of this type (see [`conditions`](crate::conditions)), if the controller has set it.
    ///
    /// # Examples
    /// ```
    /// use agent_sandbox_sdk::{conditions, v1beta1::{Sandbox, SandboxSpec}};
    ///
    /// assert!(Sandbox::new("a", SandboxSpec::default()).condition(conditions::READY).is_none());
    /// ```
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

schema::publish!(
    Sandbox,
    SandboxSpec,
    SandboxStatus,
    "A pod with a stable name, its volumes and, if wanted, a Service."
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_unknown_operating_mode_survives_a_round_trip() {
        let spec = json!({"podTemplate": {"spec": {"containers": []}}, "operatingMode": "Hibernated"});
        let read: SandboxSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(read.operating_mode, Some(OperatingMode::Other("Hibernated".into())));
        assert_eq!(serde_json::to_value(read).unwrap(), spec);
    }

    /// The API tells absent from empty: to drop an empty list would be to remove it, which the API refuses.
    #[test]
    fn an_empty_list_of_volume_claims_stays_an_empty_list() {
        let spec = json!({"podTemplate": {"spec": {"containers": []}, "metadata": {}}, "volumeClaimTemplates": []});
        let read: SandboxSpec = serde_json::from_value(spec.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), spec);
    }

    #[test]
    fn every_part_of_the_status_keeps_its_name() {
        let status = json!({
            "conditions": [{"type": "Ready", "status": "True", "reason": "DependenciesReady", "message": "Pod is Ready",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            "nodeName": "n1",
            "podIPs": ["10.0.0.7", "fd00::7"],
            "selector": "agents.x-k8s.io/sandbox-name-hash=374de8f5",
            "service": "a",
            "serviceFQDN": "a.demo.svc.cluster.local",
        });
        let read: SandboxStatus = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), status);
        assert_eq!(serde_json::from_value::<SandboxStatus>(json!({})).unwrap(), SandboxStatus::default());
    }
}
