//! How the lists and maps inside a pod spec and a volume claim spec merge, as facts.
//!
//! Kubernetes' OpenAPI document carries these as `x-kubernetes-list-type` and its kin; the schemas of k8s-openapi drop
//! them. Without them server-side apply would treat `containers` as one value, and two containers of one name would be
//! accepted. The five sources
//! that embed a name (`ConfigMapEnvSource` and so on) inherit the atomic map of `LocalObjectReference`, which OpenAPI
//! does not show. Sorted by definition and field; an empty field means the definition itself.

use Merge::{Atomic, AtomicMap, Map, Set};

/// How a list or map is merged by server-side apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Merge {
    /// A list that is replaced as a whole.
    Atomic,
    /// A list of scalars without duplicates.
    Set,
    /// A list of objects that these keys tell apart.
    Map(&'static [&'static str]),
    /// An object that is replaced as a whole.
    AtomicMap,
}

/// Definition, field, how it merges.
pub(super) const MERGES: &[(&str, &str, Merge)] = &[
    ("core.v1.Capabilities", "add", Atomic),
    ("core.v1.Capabilities", "drop", Atomic),
    ("core.v1.CephFSVolumeSource", "monitors", Atomic),
    ("core.v1.ConfigMapEnvSource", "", AtomicMap),
    ("core.v1.ConfigMapKeySelector", "", AtomicMap),
    ("core.v1.ConfigMapProjection", "", AtomicMap),
    ("core.v1.ConfigMapProjection", "items", Atomic),
    ("core.v1.ConfigMapVolumeSource", "", AtomicMap),
    ("core.v1.ConfigMapVolumeSource", "items", Atomic),
    ("core.v1.Container", "args", Atomic),
    ("core.v1.Container", "command", Atomic),
    ("core.v1.Container", "env", Map(&["name"])),
    ("core.v1.Container", "envFrom", Atomic),
    ("core.v1.Container", "ports", Map(&["containerPort", "protocol"])),
    ("core.v1.Container", "resizePolicy", Atomic),
    ("core.v1.Container", "restartPolicyRules", Atomic),
    ("core.v1.Container", "volumeDevices", Map(&["devicePath"])),
    ("core.v1.Container", "volumeMounts", Map(&["mountPath"])),
    ("core.v1.ContainerRestartRuleOnExitCodes", "values", Set),
    ("core.v1.DownwardAPIProjection", "items", Atomic),
    ("core.v1.DownwardAPIVolumeSource", "items", Atomic),
    ("core.v1.EphemeralContainer", "args", Atomic),
    ("core.v1.EphemeralContainer", "command", Atomic),
    ("core.v1.EphemeralContainer", "env", Map(&["name"])),
    ("core.v1.EphemeralContainer", "envFrom", Atomic),
    ("core.v1.EphemeralContainer", "ports", Map(&["containerPort", "protocol"])),
    ("core.v1.EphemeralContainer", "resizePolicy", Atomic),
    ("core.v1.EphemeralContainer", "restartPolicyRules", Atomic),
    ("core.v1.EphemeralContainer", "volumeDevices", Map(&["devicePath"])),
    ("core.v1.EphemeralContainer", "volumeMounts", Map(&["mountPath"])),
    ("core.v1.ExecAction", "command", Atomic),
    ("core.v1.FCVolumeSource", "targetWWNs", Atomic),
    ("core.v1.FCVolumeSource", "wwids", Atomic),
    ("core.v1.FileKeySelector", "", AtomicMap),
    ("core.v1.HTTPGetAction", "httpHeaders", Atomic),
    ("core.v1.HostAlias", "hostnames", Atomic),
    ("core.v1.ISCSIVolumeSource", "portals", Atomic),
    ("core.v1.LocalObjectReference", "", AtomicMap),
    ("core.v1.NodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution", Atomic),
    ("core.v1.NodeSelector", "", AtomicMap),
    ("core.v1.NodeSelector", "nodeSelectorTerms", Atomic),
    ("core.v1.NodeSelectorRequirement", "values", Atomic),
    ("core.v1.NodeSelectorTerm", "", AtomicMap),
    ("core.v1.NodeSelectorTerm", "matchExpressions", Atomic),
    ("core.v1.NodeSelectorTerm", "matchFields", Atomic),
    ("core.v1.ObjectFieldSelector", "", AtomicMap),
    ("core.v1.PersistentVolumeClaimSpec", "accessModes", Atomic),
    ("core.v1.PodAffinity", "preferredDuringSchedulingIgnoredDuringExecution", Atomic),
    ("core.v1.PodAffinity", "requiredDuringSchedulingIgnoredDuringExecution", Atomic),
    ("core.v1.PodAffinityTerm", "matchLabelKeys", Atomic),
    ("core.v1.PodAffinityTerm", "mismatchLabelKeys", Atomic),
    ("core.v1.PodAffinityTerm", "namespaces", Atomic),
    ("core.v1.PodAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution", Atomic),
    ("core.v1.PodAntiAffinity", "requiredDuringSchedulingIgnoredDuringExecution", Atomic),
    ("core.v1.PodDNSConfig", "nameservers", Atomic),
    ("core.v1.PodDNSConfig", "options", Atomic),
    ("core.v1.PodDNSConfig", "searches", Atomic),
    ("core.v1.PodSecurityContext", "supplementalGroups", Atomic),
    ("core.v1.PodSecurityContext", "sysctls", Atomic),
    ("core.v1.PodSpec", "containers", Map(&["name"])),
    ("core.v1.PodSpec", "ephemeralContainers", Map(&["name"])),
    ("core.v1.PodSpec", "hostAliases", Map(&["ip"])),
    ("core.v1.PodSpec", "imagePullSecrets", Map(&["name"])),
    ("core.v1.PodSpec", "initContainers", Map(&["name"])),
    ("core.v1.PodSpec", "nodeSelector", AtomicMap),
    ("core.v1.PodSpec", "readinessGates", Atomic),
    ("core.v1.PodSpec", "resourceClaims", Map(&["name"])),
    ("core.v1.PodSpec", "schedulingGates", Map(&["name"])),
    ("core.v1.PodSpec", "tolerations", Atomic),
    ("core.v1.PodSpec", "topologySpreadConstraints", Map(&["topologyKey", "whenUnsatisfiable"])),
    ("core.v1.PodSpec", "volumes", Map(&["name"])),
    ("core.v1.ProjectedVolumeSource", "sources", Atomic),
    ("core.v1.RBDVolumeSource", "monitors", Atomic),
    ("core.v1.ResourceFieldSelector", "", AtomicMap),
    ("core.v1.ResourceRequirements", "claims", Map(&["name"])),
    ("core.v1.SecretEnvSource", "", AtomicMap),
    ("core.v1.SecretKeySelector", "", AtomicMap),
    ("core.v1.SecretProjection", "", AtomicMap),
    ("core.v1.SecretProjection", "items", Atomic),
    ("core.v1.SecretVolumeSource", "items", Atomic),
    ("core.v1.TopologySpreadConstraint", "matchLabelKeys", Atomic),
    ("core.v1.TypedLocalObjectReference", "", AtomicMap),
    ("meta.v1.LabelSelector", "", AtomicMap),
    ("meta.v1.LabelSelector", "matchExpressions", Atomic),
    ("meta.v1.LabelSelectorRequirement", "values", Atomic),
    ("meta.v1.ObjectMeta", "finalizers", Set),
    ("meta.v1.ObjectMeta", "managedFields", Atomic),
    ("meta.v1.ObjectMeta", "ownerReferences", Map(&["uid"])),
];
