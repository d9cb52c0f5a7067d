//! Names that the controllers share: resources, labels, annotations, and the hash in their values.

use crate::base::Gvr;

/// Group of the Sandbox kind.
pub(super) const GROUP: &str = "agents.x-k8s.io";
/// Group of claims, pools and templates.
pub(super) const EXTENSIONS_GROUP: &str = "extensions.agents.x-k8s.io";
/// `apiVersion` of claims, pools and templates.
#[cfg(test)]
pub(super) const EXTENSIONS_API_VERSION: &str = "extensions.agents.x-k8s.io/v1beta1";
/// `apiVersion` of a Sandbox.
pub(super) const API_VERSION: &str = "agents.x-k8s.io/v1beta1";

/// Label: the hash of the Sandbox's name, on its pod, service and claims.
pub(super) const NAME_HASH: &str = "agents.x-k8s.io/sandbox-name-hash";
/// Label of operators on what a Sandbox may adopt.
pub(super) const ADOPTABLE: &str = "agents.x-k8s.io/adoptable";
/// Label: which client made a Sandbox.
pub(super) const CREATED_BY: &str = "agents.x-k8s.io/created-by";
/// Label: the hash of the pool that a Sandbox is a member of.
pub(super) const WARM_POOL: &str = "agents.x-k8s.io/warm-pool-sandbox";
/// Label: the UID of the claim that a Sandbox serves.
pub(super) const CLAIM_UID: &str = "agents.x-k8s.io/claim-uid";
/// Label: whether a Sandbox was made for its claim (`cold`) or taken from a pool (`warm`).
pub(super) const LAUNCH_TYPE: &str = "agents.x-k8s.io/launch-type";
/// Label: the hash of the blueprint that a pool's member was made from.
pub(super) const TEMPLATE_HASH: &str = "agents.x-k8s.io/sandbox-template-hash";
/// Label: the hash of the pod template that a pool's member was made from.
pub(super) const POD_TEMPLATE_HASH: &str = "agents.x-k8s.io/sandbox-pod-template-hash";
/// Label: the hash of the template that a Sandbox was made from.
pub(super) const TEMPLATE_REF_HASH: &str = "agents.x-k8s.io/sandbox-template-ref-hash";
/// Annotation: the name of a Sandbox's pod.
pub(super) const POD_NAME: &str = "agents.x-k8s.io/pod-name";
/// Annotation of a pod: the labels that came from the template.
pub(super) const PROPAGATED_LABELS: &str = "agents.x-k8s.io/propagated-labels";
/// Annotation of a pod: the annotations that came from the template.
pub(super) const PROPAGATED_ANNOTATIONS: &str = "agents.x-k8s.io/propagated-annotations";
/// Annotation: the name of the template that a Sandbox was made from.
pub(super) const TEMPLATE_REF: &str = "agents.x-k8s.io/sandbox-template-ref";
/// Annotation of a claim: the pool's member that it takes. A label in claims of older releases.
pub(super) const ASSIGNED: &str = "agents.x-k8s.io/sandbox-name";
/// Annotation of a claim: when the controller first saw it.
pub(super) const FIRST_OBSERVED: &str = "agents.x-k8s.io/controller-first-observed-at";
/// Annotation of a claim: when a webhook first saw it.
pub(super) const WEBHOOK_OBSERVED: &str = "agents.x-k8s.io/webhook-first-observed-at";
/// Annotation of a claim: when the client says that it asked.
pub(super) const REQUESTED: &str = "agents.x-k8s.io/client-first-requested-at";
/// Annotation of a claim: when it was first ready.
pub(super) const FIRST_READY: &str = "agents.x-k8s.io/claim-first-ready-at";
/// Annotation of a pod: whether a cluster autoscaler may evict it.
pub(super) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Annotation of a template in v1alpha1: the volume claim policy, which only v1beta1 has a field for.
pub(super) const NEWER_POLICY: &str = "api.agents.x-k8s.io/v1beta1-volume-claim-templates-policy";
/// Annotation with tracing headers; never copied to a pod.
pub(super) const TRACE_CONTEXT: &str = "opentelemetry.io/trace-context";

pub(super) fn sandboxes() -> Gvr {
    Gvr::new(GROUP, "v1beta1", "sandboxes")
}

pub(super) fn claims() -> Gvr {
    Gvr::new(EXTENSIONS_GROUP, "v1beta1", "sandboxclaims")
}

pub(super) fn warm_pools() -> Gvr {
    Gvr::new(EXTENSIONS_GROUP, "v1beta1", "sandboxwarmpools")
}

pub(super) fn templates() -> Gvr {
    Gvr::new(EXTENSIONS_GROUP, "v1beta1", "sandboxtemplates")
}

pub(super) fn network_policies() -> Gvr {
    Gvr::new("networking.k8s.io", "v1", "networkpolicies")
}

pub(super) fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

pub(super) fn services() -> Gvr {
    Gvr::new("", "v1", "services")
}

pub(super) fn volume_claims() -> Gvr {
    Gvr::new("", "v1", "persistentvolumeclaims")
}

/// Annotation of what was written in v1alpha1: the whole object as it was.
pub(super) fn older_state(kind: &str) -> String {
    format!("api.agents.x-k8s.io/v1alpha1-{}-state", kind.to_lowercase())
}

/// The hash that stands in labels for a name: FNV-1a of 32 bits, as eight hexadecimal digits.
pub fn name_hash(name: &str) -> String {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    format!("{:08x}", name.bytes().fold(0x811c_9dc5, step))
}

/// Whether a key of a pod template is the controllers' own and never reaches a pod.
pub(super) fn is_reserved(key: &str) -> bool {
    [GROUP, EXTENSIONS_GROUP].iter().any(|group| key.strip_prefix(group).is_some_and(|rest| rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", "811c9dc5")]
    #[case("a", "e40c292c")]
    #[case("foobar", "bf9cf968")]
    #[case("my-sandbox", "374de8f5")]
    #[case("test-warmpool", "abdcc27b")]
    #[case("sb", "3551ffa0")]
    fn names_hash_as_fnv_1a(#[case] name: &str, #[case] hash: &str) {
        assert_eq!(name_hash(name), hash);
    }

    #[rstest]
    #[case("agents.x-k8s.io/mine", true)]
    #[case("extensions.agents.x-k8s.io/mine", true)]
    #[case("foo.agents.x-k8s.io/mine", false)]
    #[case("agents.x-k8s.io", false)]
    #[case("app", false)]
    fn the_controllers_prefixes_are_reserved(#[case] key: &str, #[case] reserved: bool) {
        assert_eq!(is_reserved(key), reserved);
    }
}
