//! What the schemas of built-in kinds do not say of their Go types: which members are structs by value, which scalars are
//! pointers, which named types stand behind texts. Facts from the types in k8s.io/api.

use serde_json::{Map, Value};

use super::{Node, Type};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Members that are structs by value, though their schema does not require them: `omitempty` does not drop those.
/// A definition is named by its last segments; `*` is any definition.
const BY_VALUE: &[(&str, &[&str])] = &[
    ("*", &["metadata"]),
    ("v1.Pod", &["spec", "status"]),
    ("v1.PodTemplate", &["template"]),
    ("v1.PodTemplateSpec", &["spec"]),
    ("v1.Node", &["spec", "status"]),
    ("v1.NodeStatus", &["daemonEndpoints", "nodeInfo"]),
    ("v1.NodeDaemonEndpoints", &["kubeletEndpoint"]),
    ("v1.Namespace", &["spec", "status"]),
    ("v1.Service", &["spec", "status"]),
    ("v1.ServiceStatus", &["loadBalancer"]),
    ("v1.PersistentVolume", &["spec", "status"]),
    ("v1.PersistentVolumeClaim", &["spec", "status"]),
    ("v1.PersistentVolumeClaimSpec", &["resources"]),
    ("v1.ReplicationController", &["spec", "status"]),
    ("v1.ResourceQuota", &["spec", "status"]),
    ("v1.LimitRange", &["spec"]),
    ("v1.Container", &["resources"]),
    ("v1.EphemeralContainer", &["resources"]),
    ("v1.ContainerStatus", &["state", "lastState"]),
    ("v1.ContainerStateRunning", &["startedAt"]),
    ("v1.ContainerStateTerminated", &["startedAt", "finishedAt"]),
    ("v1.PodCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("v1.NodeCondition", &["lastHeartbeatTime", "lastTransitionTime"]),
    ("v1.NamespaceCondition", &["lastTransitionTime"]),
    ("v1.PersistentVolumeClaimCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("v1.ReplicationControllerCondition", &["lastTransitionTime"]),
    ("v1.ResourceFieldSelector", &["divisor"]),
    (
        "core.v1.Event",
        &["source", "firstTimestamp", "lastTimestamp", "eventTime", "reportingComponent", "reportingInstance"],
    ),
    ("events.v1.Event", &["regarding", "deprecatedSource", "deprecatedFirstTimestamp", "deprecatedLastTimestamp"]),
    ("v1.Deployment", &["spec", "status"]),
    ("v1.DeploymentSpec", &["strategy"]),
    ("v1.DeploymentCondition", &["lastUpdateTime", "lastTransitionTime"]),
    ("v1.ReplicaSet", &["spec", "status"]),
    ("v1.ReplicaSetSpec", &["template"]),
    ("v1.ReplicaSetCondition", &["lastTransitionTime"]),
    ("v1.StatefulSet", &["spec", "status"]),
    ("v1.StatefulSetSpec", &["updateStrategy", "template"]),
    ("v1.StatefulSetStatus", &["availableReplicas"]),
    ("v1.StatefulSetCondition", &["lastTransitionTime"]),
    ("v1.DaemonSet", &["spec", "status"]),
    ("v1.DaemonSetSpec", &["updateStrategy"]),
    ("v1.DaemonSetCondition", &["lastTransitionTime"]),
    ("v1.Job", &["spec", "status"]),
    ("v1.JobCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("v1.CronJob", &["spec", "status"]),
    ("v1.JobTemplateSpec", &["spec"]),
    ("v1.HorizontalPodAutoscaler", &["spec", "status"]),
    ("v1.HorizontalPodAutoscalerCondition", &["lastTransitionTime"]),
    ("v2.HorizontalPodAutoscaler", &["spec", "status"]),
    ("v2.HorizontalPodAutoscalerStatus", &["currentMetrics"]),
    ("v2.HorizontalPodAutoscalerCondition", &["lastTransitionTime"]),
    ("v1.Scale", &["spec", "status"]),
    ("v1.CertificateSigningRequest", &["status"]),
    ("v1.CertificateSigningRequestCondition", &["lastUpdateTime", "lastTransitionTime"]),
    ("v1.Lease", &["spec"]),
    ("v1.Endpoint", &["conditions"]),
    ("v1.EndpointSlice", &["ports"]),
    ("v1.FlowSchema", &["spec", "status"]),
    ("v1.PriorityLevelConfiguration", &["spec", "status"]),
    ("v1.LimitedPriorityLevelConfiguration", &["limitResponse"]),
    ("v1.Ingress", &["spec", "status"]),
    ("v1.IngressStatus", &["loadBalancer"]),
    ("v1.IngressServiceBackend", &["port"]),
    ("v1.IngressClass", &["spec"]),
    ("v1.IPAddress", &["spec"]),
    ("v1.NetworkPolicy", &["spec"]),
    ("v1.NetworkPolicySpec", &["podSelector"]),
    ("v1.ServiceCIDR", &["spec", "status"]),
    ("v1.PodDisruptionBudget", &["spec", "status"]),
    ("v1.ClusterRole", &["rules"]),
    ("v1.Role", &["rules"]),
    ("v1.ResourceClaim", &["status"]),
    ("v1.ResourceClaimSpec", &["devices"]),
    ("v1.VolumeAttachment", &["status"]),
    ("v1.ValidatingAdmissionPolicy", &["spec", "status"]),
    ("v1.ValidatingAdmissionPolicyBinding", &["spec"]),
    ("v1.MutatingAdmissionPolicy", &["spec"]),
    ("v1.MutatingAdmissionPolicyBinding", &["spec"]),
    ("v1.CustomResourceDefinition", &["status"]),
    ("v1.CustomResourceDefinitionStatus", &["acceptedNames", "conditions", "storedVersions"]),
    ("v1.CustomResourceDefinitionCondition", &["lastTransitionTime"]),
    ("v1.APIService", &["spec", "status"]),
    ("v1.APIServiceCondition", &["lastTransitionTime"]),
    ("v1.TokenReview", &["status"]),
    ("v1.TokenReviewStatus", &["user"]),
    ("v1.TokenRequest", &["status"]),
    ("v1.SelfSubjectReview", &["status"]),
    ("v1.SelfSubjectReviewStatus", &["userInfo"]),
    ("v1.SubjectAccessReview", &["status"]),
    ("v1.LocalSubjectAccessReview", &["status"]),
    ("v1.SelfSubjectAccessReview", &["status"]),
    ("v1.SelfSubjectRulesReview", &["status"]),
];

/// Required members that are pointers: absent, they stay absent until validation asks for them.
const REQUIRED_POINTERS: &[&str] = &["selector", "parentRef"];

/// Texts that are pointers, so that `""` is a value. All other texts vanish when empty.
const POINTER_TEXTS: &[&str] = &[
    "labelSelectorPath",
    "apiGroup",
    "appProtocol",
    "cachingMode",
    "completionMode",
    "deprecationWarning",
    "failurePolicy",
    "fsGroupChangePolicy",
    "gmsaCredentialSpec",
    "gmsaCredentialSpecName",
    "holderIdentity",
    "ingressClassName",
    "ipFamilyPolicy",
    "ipMode",
    "internalTrafficPolicy",
    "loadBalancerClass",
    "localhostProfile",
    "managedBy",
    "matchPolicy",
    "mountPropagation",
    "nodeAffinityPolicy",
    "nodeTaintsPolicy",
    "pathType",
    "podReplacementPolicy",
    "preemptionPolicy",
    "preferredHolder",
    "procMount",
    "reclaimPolicy",
    "recursiveReadOnly",
    "reinvocationPolicy",
    "runAsUserName",
    "runtimeClassName",
    "seLinuxChangePolicy",
    "sideEffects",
    "stopSignal",
    "storageClassName",
    "strategy",
    "supplementalGroupsPolicy",
    "timeZone",
    "trafficDistribution",
    "unhealthyPodEvictionPolicy",
    "volumeAttributesClassName",
    "volumeBindingMode",
    "volumeMode",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "messageExpression",
    "parameterNotFoundAction",
    "nominatedNodeName",
];

/// Texts that are pointers in one definition only.
const POINTER_TEXTS_OF: &[(&str, &[&str])] = &[
    ("v1.HostPathVolumeSource", &["type"]),
    ("v1.AzureDiskVolumeSource", &["fsType", "kind"]),
    ("v1.CSIVolumeSource", &["fsType"]),
    ("v1.Container", &["restartPolicy"]),
    ("v1.EphemeralContainer", &["restartPolicy"]),
    ("v1.GRPCAction", &["service"]),
    ("v1.PortStatus", &["error"]),
    ("v1.PodDNSConfigOption", &["value"]),
    ("discovery.v1.EndpointPort", &["name", "port", "protocol"]),
    ("v1.Endpoint", &["hostname", "nodeName", "zone"]),
    ("v1.EndpointAddress", &["nodeName"]),
    ("v1.NetworkPolicyPort", &["protocol"]),
    ("v1.ServiceReference", &["path"]),
    ("v1.WebhookClientConfig", &["url"]),
    ("v1.Rule", &["scope"]),
    ("v1.TypedObjectReference", &["namespace"]),
];
/// What is no pointer there though its name is in [`POINTER_TEXTS`].
const PLAIN_TEXTS_OF: &[(&str, &[&str])] = &[
    ("v1.PersistentVolumeSpec", &["storageClassName"]),
    ("v1.PodStatus", &["nominatedNodeName"]),
    ("v1.RoleRef", &["apiGroup"]),
    ("v1.Subject", &["apiGroup"]),
    ("v1.CustomResourceConversion", &["strategy"]),
    ("v1.ValidationRule", &["messageExpression"]),
    ("v1.Validation", &["messageExpression"]),
    ("v1.ScaleIOVolumeSource", &["storageMode"]),
];

/// Whole numbers that are no pointers, so that 0 vanishes. All others are pointers.
const PLAIN_NUMBERS: &[&str] = &[
    "availableReplicas",
    "containerPort",
    "count",
    "currentReplicas",
    "observedGeneration",
    "generation",
    "failureThreshold",
    "fullyLabeledReplicas",
    "healthCheckNodePort",
    "hostPort",
    "initialDelaySeconds",
    "maxSkew",
    "minReadySeconds",
    "nodePort",
    "numberAvailable",
    "numberUnavailable",
    "periodSeconds",
    "readyReplicas",
    "signal",
    "successThreshold",
    "timeoutSeconds",
    "unavailableReplicas",
    "updatedNumberScheduled",
    "updatedReplicas",
    "code",
    "retryAfterSeconds",
    "deprecatedCount",
    "succeeded",
    "failed",
    "active",
    "availableNodes",
];
/// Whole numbers that are pointers there though their name is in [`PLAIN_NUMBERS`].
const POINTER_NUMBERS_OF: &[(&str, &[&str])] = &[
    ("v1.ClientIPConfig", &["timeoutSeconds"]),
    ("v1.ValidatingWebhook", &["timeoutSeconds"]),
    ("v1.MutatingWebhook", &["timeoutSeconds"]),
    ("v1.HorizontalPodAutoscalerStatus", &["observedGeneration"]),
    ("v2.HorizontalPodAutoscalerStatus", &["observedGeneration"]),
];

/// Whole numbers that are no pointers in these definitions only.
const PLAIN_NUMBERS_OF: &[(&str, &[&str])] = &[("v1.DeploymentStatus", &["replicas"]), ("v1.ScaleSpec", &["replicas"])];

/// Flags that are no pointers, so that `false` vanishes. All others are pointers.
const PLAIN_FLAGS: &[&str] = &[
    "authenticated",
    "denied",
    "deprecated",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "globalDefault",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "incomplete",
    "insecureSkipTLSVerify",
    "nullable",
    "paused",
    "preserveUnknownFields",
    "publishNotReadyAddresses",
    "readOnly",
    "stdin",
    "stdinOnce",
    "tty",
    "unschedulable",
    "uniqueItems",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "attachError",
    "allNodes",
];
/// Flags that are pointers there though their name is in [`PLAIN_FLAGS`].
const POINTER_FLAGS_OF: &[(&str, &[&str])] =
    &[("v1.CSIVolumeSource", &["readOnly"]), ("v1.AzureDiskVolumeSource", &["readOnly"])];

/// Texts and maps with a Go type of their own.
const NAMED: &[(&str, &str)] = &[
    ("accessModes", "[]v1.PersistentVolumeAccessMode"),
    ("capacity", "v1.ResourceList"),
    ("allocatable", "v1.ResourceList"),
    ("dnsPolicy", "v1.DNSPolicy"),
    ("externalTrafficPolicy", "v1.ServiceExternalTrafficPolicy"),
    ("hard", "v1.ResourceList"),
    ("imagePullPolicy", "v1.PullPolicy"),
    ("internalTrafficPolicy", "v1.ServiceInternalTrafficPolicy"),
    ("ipFamilies", "[]v1.IPFamily"),
    ("ipFamilyPolicy", "v1.IPFamilyPolicy"),
    ("limits", "v1.ResourceList"),
    ("mountPropagation", "v1.MountPropagationMode"),
    ("overhead", "v1.ResourceList"),
    ("policyTypes", "[]v1.PolicyType"),
    ("preemptionPolicy", "v1.PreemptionPolicy"),
    ("procMount", "v1.ProcMountType"),
    ("protocol", "v1.Protocol"),
    ("requests", "v1.ResourceList"),
    ("restartPolicy", "v1.RestartPolicy"),
    ("sessionAffinity", "v1.ServiceAffinity"),
    ("terminationMessagePolicy", "v1.TerminationMessagePolicy"),
    ("uid", "types.UID"),
    ("volumeMode", "v1.PersistentVolumeMode"),
    ("whenUnsatisfiable", "v1.UnsatisfiableConstraintAction"),
];

fn of<'a>(table: &[(&str, &'a [&'a str])], definition: &str, member: &str) -> bool {
    table.iter().any(|(name, members)| {
        let fits = *name == "*" || definition.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        fits && members.contains(&member)
    })
}

/// Whether the type decodes itself, and what it prints when it is zero.
pub(super) fn is_quantity(node: &Node) -> bool {
    node.definition == QUANTITY
}

/// Whether the value is a point in time.
pub(super) fn is_time(node: &Node) -> bool {
    node.format == "date-time"
}

/// Fills in which members always show and which may be empty.
pub(super) fn complete(definition: &str, node: &mut Node) {
    let last = definition.rsplit('.').next().unwrap_or_default();
    match last {
        // these hold any JSON
        "FieldsV1"
        | "RawExtension"
        | "JSON"
        | "JSONSchemaPropsOrBool"
        | "JSONSchemaPropsOrArray"
        | "JSONSchemaPropsOrStringArray" => {
            node.kind = None;
            node.preserve_unknown = true;
            return;
        }
        _ => {}
    }
    for (name, child) in &node.properties {
        let required = node.required.contains(name);
        let by_value =
            of(BY_VALUE, definition, name) && definition != "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        if (required && !REQUIRED_POINTERS.contains(&name.as_str())) || by_value {
            node.always.push((name.clone(), zero(child)));
        }
        let pointer = match child.kind {
            Some(Type::String) if child.format.is_empty() => {
                (POINTER_TEXTS.contains(&name.as_str()) && !of(PLAIN_TEXTS_OF, definition, name))
                    || of(POINTER_TEXTS_OF, definition, name)
            }
            Some(Type::Integer) => {
                let plain = PLAIN_NUMBERS.contains(&name.as_str()) || of(PLAIN_NUMBERS_OF, definition, name);
                !plain || of(POINTER_NUMBERS_OF, definition, name)
            }

            Some(Type::Boolean) => !PLAIN_FLAGS.contains(&name.as_str()) || of(POINTER_FLAGS_OF, definition, name),
            Some(Type::Object | Type::Array | Type::Number | Type::String) | None => false,
        };
        if required || by_value || pointer {
            node.keep_empty.push(name.clone());
        }
    }
}

/// The zero value of a type as Go prints it.
pub(super) fn zero(node: &Node) -> Value {
    if is_quantity(node) {
        return "0".into();
    }
    if node.int_or_string {
        return 0.into();
    }
    match node.kind {
        Some(Type::String) if is_time(node) || node.format == "byte" => Value::Null,
        Some(Type::String) => "".into(),
        Some(Type::Integer | Type::Number) => 0.into(),
        Some(Type::Boolean) => false.into(),
        Some(Type::Object) if is_struct(node) => Value::Object(node.always.iter().cloned().collect::<Map<_, _>>()),
        Some(Type::Object | Type::Array) | None => Value::Null,
    }
}

/// Whether this is a struct, not a map.
pub(super) fn is_struct(node: &Node) -> bool {
    node.kind == Some(Type::Object) && node.additional.is_none() && !node.preserve_unknown
}

/// The Go type's name; `member` is the name of the member that holds the value, `""` for items.
pub(super) fn name(node: &Node, member: &str) -> String {
    if let Some((_, name)) = NAMED.iter().find(|(named, _)| *named == member) {
        return (*name).to_owned();
    }
    if !node.definition.is_empty() {
        let mut segments = node.definition.rsplit('.');
        let (last, package) = (segments.next().unwrap_or_default(), segments.next().unwrap_or_default());
        return format!("{package}.{last}");
    }
    match node.kind {
        Some(Type::String) if node.format == "byte" => "[]uint8".into(),
        Some(Type::String) => "string".into(),
        Some(Type::Integer) if node.format == "int32" => "int32".into(),
        Some(Type::Integer) => "int64".into(),
        Some(Type::Number) => "float64".into(),
        Some(Type::Boolean) => "bool".into(),
        Some(Type::Array) => {
            format!("[]{}", node.items.as_ref().map_or_else(String::new, |items| self::name(items, "")))
        }
        Some(Type::Object) => {
            format!("map[string]{}", node.additional.as_ref().map_or_else(String::new, |items| self::name(items, "")))
        }
        None => "interface {}".into(),
    }
}
