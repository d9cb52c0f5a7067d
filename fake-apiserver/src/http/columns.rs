//! Help texts of the columns of built-in kinds: upstream takes most of them from the fields they show.
//!
//! Upstream: `pkg/printers/internalversion/printers.go`.

use crate::{base::names::api_version, registry::Resource, schema::Schema};

/// Where a column's text comes from.
#[derive(Clone, Copy, Debug)]
enum Text {
    /// The description of a field of an object of this kind.
    Field(&'static [&'static str]),
    /// These words.
    Words(&'static str),
}

use Text::{Field, Words};

/// The text of a built-in kind's column; `""` where upstream has none.
pub(super) fn description(resource: &Resource, column: &str) -> String {
    let text = TEXTS
        .iter()
        .find(|(kind, name, _)| (*kind == resource.kind || *kind == "*") && *name == column)
        .map(|(_, _, text)| *text);
    match text {
        None => String::new(),
        Some(Words(words)) => words.into(),
        Some(Field(path)) => field(resource, path).unwrap_or_default(),
    }
}

fn field(resource: &Resource, path: &[&str]) -> Option<String> {
    let definition = Schema::definition_of(&api_version(&resource.gvr.group, &resource.gvr.version), &resource.kind)?;
    let mut node = Schema::builtin(definition).root.clone();
    for name in path {
        let next = match *name {
            "[]" => node.items.clone(),
            name => node.properties.get(name).cloned(),
        };
        node = next?;
    }
    Some(node.description.clone())
}

/// The first row that fits counts. A kind of its own in several groups has the texts of the core.
const TEXTS: &[(&str, &str, Text)] = &[
    ("ComponentStatus", "Status", Words("Status of the component conditions")),
    ("ComponentStatus", "Message", Words("Message of the component conditions")),
    ("ComponentStatus", "Error", Words("Error of the component conditions")),
    ("ConfigMap", "Data", Field(&["data"])),
    ("Endpoints", "Endpoints", Field(&["subsets"])),
    ("Event", "Last Seen", Words("The time at which the most recent occurrence of this event was recorded.")),
    ("Event", "Type", Words("Type of this event (Normal, Warning), new types could be added in the future")),
    (
        "Event",
        "Reason",
        Words(
            "This should be a short, machine understandable string that gives the reason for the transition into the object's current status.",
        ),
    ),
    ("Event", "Object", Words("The object that this event is about.")),
    (
        "Event",
        "Subobject",
        Words(
            "If referring to a piece of an object instead of an entire object, this string should contain a valid JSON/Go field access statement, such as desiredState.manifest.containers[2]. For example, if the object reference is to a container within a pod, this would take on a value like: \"spec.containers{name}\" (where \"name\" refers to the name of the container that triggered the event) or if no container name is specified \"spec.containers[2]\" (container with index 2 in this pod). This syntax is chosen only to have some well-defined way of referencing a part of an object.",
        ),
    ),
    ("Event", "Source", Words("The component reporting this event. Should be a short machine understandable string.")),
    ("Event", "Message", Words("A human-readable description of the status of this operation.")),
    (
        "Event",
        "First Seen",
        Words("The time at which the event was first recorded. (Time of server receipt is in TypeMeta.)"),
    ),
    ("Event", "Count", Words("The number of times this event has occurred.")),
    ("LimitRange", "Created At", Field(&["metadata", "creationTimestamp"])),
    ("Namespace", "Status", Words("The status of the namespace")),
    ("Node", "Status", Words("The status of the node")),
    ("Node", "Roles", Words("The roles of the node")),
    ("Node", "Version", Field(&["status", "nodeInfo", "kubeletVersion"])),
    ("Node", "Internal-IP", Field(&["status", "addresses"])),
    ("Node", "External-IP", Field(&["status", "addresses"])),
    ("Node", "OS-Image", Field(&["status", "nodeInfo", "osImage"])),
    ("Node", "Kernel-Version", Field(&["status", "nodeInfo", "kernelVersion"])),
    ("Node", "Container-Runtime", Field(&["status", "nodeInfo", "containerRuntimeVersion"])),
    ("PersistentVolumeClaim", "Status", Words("phase represents the current phase of PersistentVolumeClaim.")),
    ("PersistentVolumeClaim", "Volume", Field(&["spec", "volumeName"])),
    ("PersistentVolumeClaim", "Capacity", Field(&["status", "capacity"])),
    ("PersistentVolumeClaim", "Access Modes", Field(&["status", "accessModes"])),
    ("PersistentVolumeClaim", "StorageClass", Words("StorageClass of the pvc")),
    ("PersistentVolumeClaim", "VolumeAttributesClass", Words("VolumeAttributesClass of the pvc")),
    (
        "PersistentVolumeClaim",
        "VolumeMode",
        Words(
            "volumeMode defines what type of volume is required by the claim. Value of Filesystem is implied when not included in claim spec.",
        ),
    ),
    ("PersistentVolume", "Capacity", Field(&["spec", "capacity"])),
    ("PersistentVolume", "Access Modes", Field(&["spec", "accessModes"])),
    (
        "PersistentVolume",
        "Reclaim Policy",
        Words(
            "persistentVolumeReclaimPolicy defines what happens to a persistent volume when released from its claim. Valid options are Retain (default for manually created PersistentVolumes), Delete (default for dynamically provisioned PersistentVolumes), and Recycle (deprecated). Recycle must be supported by the volume plugin underlying this PersistentVolume. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#reclaiming",
        ),
    ),
    (
        "PersistentVolume",
        "Status",
        Words(
            "phase indicates if a volume is available, bound to a claim, or released by a claim. More info: https://kubernetes.io/docs/concepts/storage/persistent-volumes#phase",
        ),
    ),
    ("PersistentVolume", "Claim", Field(&["spec", "claimRef"])),
    ("PersistentVolume", "StorageClass", Words("StorageClass of the pv")),
    ("PersistentVolume", "VolumeAttributesClass", Words("VolumeAttributesClass of the pv")),
    ("PersistentVolume", "Reason", Field(&["status", "reason"])),
    (
        "PersistentVolume",
        "VolumeMode",
        Words(
            "volumeMode defines if a volume is intended to be used with a formatted filesystem or to remain in raw block state. Value of Filesystem is implied when not included in spec.",
        ),
    ),
    ("Pod", "Ready", Words("The aggregate readiness state of this pod for accepting traffic.")),
    ("Pod", "Status", Words("The aggregate status of the containers in this pod.")),
    (
        "Pod",
        "Restarts",
        Words(
            "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
        ),
    ),
    ("Pod", "IP", Field(&["status", "podIP"])),
    ("Pod", "Node", Field(&["spec", "nodeName"])),
    ("Pod", "Nominated Node", Field(&["status", "nominatedNodeName"])),
    ("Pod", "Readiness Gates", Field(&["spec", "readinessGates"])),
    ("PodTemplate", "Pod Labels", Words("The labels for the pod template.")),
    ("ReplicationController", "Desired", Field(&["spec", "replicas"])),
    ("ReplicationController", "Current", Field(&["status", "replicas"])),
    ("ReplicationController", "Ready", Field(&["status", "readyReplicas"])),
    ("ReplicationController", "Selector", Field(&["spec", "selector"])),
    (
        "ResourceQuota",
        "Request",
        Words("Request represents a minimum amount of cpu/memory that a container may consume."),
    ),
    (
        "ResourceQuota",
        "Limit",
        Words(
            "Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node.",
        ),
    ),
    ("Secret", "Type", Field(&["type"])),
    ("Secret", "Data", Field(&["data"])),
    (
        "Service",
        "Type",
        Words(
            "type determines how the Service is exposed. Defaults to ClusterIP. Valid options are ExternalName, ClusterIP, NodePort, and LoadBalancer. \"ClusterIP\" allocates a cluster-internal IP address for load-balancing to endpoints. Endpoints are determined by the selector or if that is not specified, by manual construction of an Endpoints object or EndpointSlice objects. If clusterIP is \"None\", no virtual IP is allocated and the endpoints are published as a set of endpoints rather than a virtual IP. \"NodePort\" builds on ClusterIP and allocates a port on every node which routes to the same endpoints as the clusterIP. \"LoadBalancer\" builds on NodePort and creates an external load-balancer (if supported in the current cloud) which routes to the same endpoints as the clusterIP. \"ExternalName\" aliases this service to the specified externalName. Several other fields do not apply to ExternalName services. More info: https://kubernetes.io/docs/concepts/services-networking/service/#publishing-services-service-types",
        ),
    ),
    ("Service", "Cluster-IP", Field(&["spec", "clusterIP"])),
    ("Service", "External-IP", Field(&["spec", "externalIPs"])),
    ("Service", "Port(s)", Field(&["spec", "ports"])),
    ("Service", "Selector", Field(&["spec", "selector"])),
    ("APIService", "Service", Words("The reference to the service that hosts this API endpoint.")),
    ("APIService", "Available", Words("Whether this service is available.")),
    ("ControllerRevision", "Controller", Words("Controller of the object")),
    ("ControllerRevision", "Revision", Field(&["revision"])),
    ("DaemonSet", "Desired", Field(&["status", "desiredNumberScheduled"])),
    ("DaemonSet", "Current", Field(&["status", "currentNumberScheduled"])),
    ("DaemonSet", "Ready", Field(&["status", "numberReady"])),
    ("DaemonSet", "Up-to-date", Field(&["status", "updatedNumberScheduled"])),
    ("DaemonSet", "Available", Field(&["status", "numberAvailable"])),
    ("DaemonSet", "Node Selector", Field(&["spec", "template", "spec", "nodeSelector"])),
    ("DaemonSet", "Selector", Field(&["spec", "selector"])),
    ("Deployment", "Ready", Words("Number of the pod with ready state")),
    ("Deployment", "Up-to-date", Field(&["status", "updatedReplicas"])),
    ("Deployment", "Available", Field(&["status", "availableReplicas"])),
    ("Deployment", "Selector", Field(&["spec", "selector"])),
    ("ReplicaSet", "Desired", Field(&["spec", "replicas"])),
    ("ReplicaSet", "Current", Field(&["status", "replicas"])),
    ("ReplicaSet", "Ready", Field(&["status", "readyReplicas"])),
    ("ReplicaSet", "Selector", Field(&["spec", "selector"])),
    ("StatefulSet", "Ready", Words("Number of the pod with ready state")),
    (
        "HorizontalPodAutoscaler",
        "Reference",
        Words(
            "scaleTargetRef points to the target resource to scale, and is used to the pods for which metrics should be collected, as well as to actually change the replica count.",
        ),
    ),
    (
        "HorizontalPodAutoscaler",
        "Targets",
        Words(
            "metrics contains the specifications for which to use to calculate the desired replica count (the maximum replica count across all metrics will be used).  The desired replica count is calculated multiplying the ratio between the target value and the current value by the current number of pods.  Ergo, metrics used must decrease as the pod count is increased, and vice-versa.  See the individual metric source types for more information about how each type of metric must respond. If not set, the default metric will be set to 80% average CPU utilization.",
        ),
    ),
    (
        "HorizontalPodAutoscaler",
        "MinPods",
        Words(
            "minReplicas is the lower limit for the number of replicas to which the autoscaler can scale down.  It defaults to 1 pod.  minReplicas is allowed to be 0 if the alpha feature gate HPAScaleToZero is enabled and at least one Object or External metric is configured.  Scaling is active as long as at least one metric value is available.",
        ),
    ),
    (
        "HorizontalPodAutoscaler",
        "MaxPods",
        Words(
            "maxReplicas is the upper limit for the number of replicas to which the autoscaler can scale up. It cannot be less that minReplicas.",
        ),
    ),
    (
        "HorizontalPodAutoscaler",
        "Replicas",
        Words(
            "currentReplicas is current number of replicas of pods managed by this autoscaler, as last seen by the autoscaler.",
        ),
    ),
    ("CronJob", "Schedule", Field(&["spec", "schedule"])),
    ("CronJob", "Timezone", Field(&["spec", "timeZone"])),
    ("CronJob", "Suspend", Field(&["spec", "suspend"])),
    ("CronJob", "Active", Field(&["status", "active"])),
    ("CronJob", "Last Schedule", Field(&["status", "lastScheduleTime"])),
    ("CronJob", "Selector", Field(&["spec", "jobTemplate", "spec", "selector"])),
    ("Job", "Status", Words("Status of the job.")),
    ("Job", "Completions", Field(&["status", "succeeded"])),
    ("Job", "Duration", Words("Time required to complete the job.")),
    ("Job", "Selector", Field(&["spec", "selector"])),
    (
        "CertificateSigningRequest",
        "SignerName",
        Words(
            "Requested signer for the request. It is a qualified name in the form: `scope-hostname.io/name`. If empty, it will be defaulted:\n 1. If it's a kubelet client certificate, it is assigned\n    \"kubernetes.io/kube-apiserver-client-kubelet\".\n 2. If it's a kubelet serving certificate, it is assigned\n    \"kubernetes.io/kubelet-serving\".\n 3. Otherwise, it is assigned \"kubernetes.io/legacy-unknown\".\nDistribution of trust for signers happens out of band. You can select on this field using `spec.signerName`.",
        ),
    ),
    ("CertificateSigningRequest", "Requestor", Words("Base64-encoded PKCS#10 CSR data")),
    ("CertificateSigningRequest", "RequestedDuration", Field(&["spec", "expirationSeconds"])),
    ("CertificateSigningRequest", "Condition", Words("Conditions applied to the request, such as approval or denial.")),
    ("IngressClass", "Controller", Words("Controller that is responsible for handling this class")),
    ("IngressClass", "Parameters", Words("A reference to a resource with additional parameters")),
    (
        "Ingress",
        "Class",
        Words("The name of the IngressClass resource that should be used for additional configuration"),
    ),
    ("Ingress", "Hosts", Words("Hosts that incoming requests are matched against before the ingress rule")),
    ("Ingress", "Address", Words("Address is a list containing ingress points for the load-balancer")),
    ("Ingress", "Ports", Words("Ports of TLS configurations that open")),
    ("IPAddress", "ParentRef", Field(&["spec", "parentRef"])),
    ("NetworkPolicy", "Pod-Selector", Field(&["spec", "podSelector"])),
    ("ServiceCIDR", "CIDRs", Field(&["spec", "cidrs"])),
    ("PodDisruptionBudget", "Min Available", Words("The minimum number of pods that must be available.")),
    ("PodDisruptionBudget", "Max Unavailable", Words("The maximum number of pods that may be unavailable.")),
    (
        "PodDisruptionBudget",
        "Allowed Disruptions",
        Words("Calculated number of pods that may be disrupted at this time."),
    ),
    (
        "ClusterRoleBinding",
        "Role",
        Words(
            "RoleRef can only reference a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        ),
    ),
    ("ClusterRoleBinding", "Users", Words("Users in the clusterRoleBinding")),
    ("ClusterRoleBinding", "Groups", Words("Groups in the clusterRoleBinding")),
    ("ClusterRoleBinding", "ServiceAccounts", Words("ServiceAccounts in the clusterRoleBinding")),
    ("ClusterRole", "Created At", Field(&["metadata", "creationTimestamp"])),
    (
        "RoleBinding",
        "Role",
        Words(
            "RoleRef can reference a Role in the current namespace or a ClusterRole in the global namespace. If the RoleRef cannot be resolved, the Authorizer must return an error.",
        ),
    ),
    ("RoleBinding", "Users", Words("Users in the roleBinding")),
    ("RoleBinding", "Groups", Words("Groups in the roleBinding")),
    ("RoleBinding", "ServiceAccounts", Words("ServiceAccounts in the roleBinding")),
    ("Role", "Created At", Field(&["metadata", "creationTimestamp"])),
    ("CSIDriver", "AttachRequired", Field(&["spec", "attachRequired"])),
    ("CSIDriver", "PodInfoOnMount", Field(&["spec", "podInfoOnMount"])),
    ("CSIDriver", "StorageCapacity", Field(&["spec", "storageCapacity"])),
    ("CSIDriver", "TokenRequests", Field(&["spec", "tokenRequests"])),
    ("CSIDriver", "RequiresRepublish", Field(&["spec", "requiresRepublish"])),
    ("CSIDriver", "Modes", Field(&["spec", "volumeLifecycleModes"])),
    ("CSINode", "Drivers", Words("Drivers indicates the number of CSI drivers registered on the node")),
    ("CSIStorageCapacity", "Created At", Field(&["metadata", "creationTimestamp"])),
    ("StorageClass", "Provisioner", Field(&["provisioner"])),
    (
        "StorageClass",
        "ReclaimPolicy",
        Words(
            "reclaimPolicy controls the reclaimPolicy for dynamically provisioned PersistentVolumes of this storage class. Defaults to Delete.",
        ),
    ),
    (
        "StorageClass",
        "VolumeBindingMode",
        Words(
            "volumeBindingMode indicates how PersistentVolumeClaims should be provisioned and bound.  When unset, VolumeBindingImmediate is used. This field is only honored by servers that enable the VolumeScheduling feature.",
        ),
    ),
    ("StorageClass", "AllowVolumeExpansion", Field(&["allowVolumeExpansion"])),
    ("VolumeAttachment", "Attacher", Field(&["spec", "attacher"])),
    ("VolumeAttachment", "PV", Field(&["spec", "source", "persistentVolumeName"])),
    ("VolumeAttachment", "Node", Field(&["spec", "nodeName"])),
    ("VolumeAttachment", "Attached", Field(&["status", "attached"])),
    ("VolumeAttributesClass", "DriverName", Field(&["driverName"])),
    (
        "MutatingAdmissionPolicy",
        "Mutations",
        Words("Mutation indicates the number of mutations rules defined in this configuration"),
    ),
    (
        "MutatingAdmissionPolicy",
        "ParamKind",
        Words("ParamKind specifies the kind of resources used to parameterize this policy"),
    ),
    (
        "MutatingAdmissionPolicyBinding",
        "PolicyName",
        Words("PolicyName indicates the policy definition which the policy binding binded to"),
    ),
    (
        "MutatingAdmissionPolicyBinding",
        "ParamRef",
        Words("ParamRef indicates the param resource which sets the configuration param"),
    ),
    (
        "MutatingWebhookConfiguration",
        "Webhooks",
        Words("Webhooks indicates the number of webhooks registered in this configuration"),
    ),
    (
        "ValidatingAdmissionPolicy",
        "Validations",
        Words("Validations indicates the number of validation rules defined in this configuration"),
    ),
    (
        "ValidatingAdmissionPolicy",
        "ParamKind",
        Words("ParamKind specifies the kind of resources used to parameterize this policy"),
    ),
    (
        "ValidatingAdmissionPolicyBinding",
        "PolicyName",
        Words("PolicyName indicates the policy definition which the policy binding binded to"),
    ),
    (
        "ValidatingAdmissionPolicyBinding",
        "ParamRef",
        Words("ParamRef indicates the param resource which sets the configuration param"),
    ),
    (
        "ValidatingWebhookConfiguration",
        "Webhooks",
        Words("Webhooks indicates the number of webhooks registered in this configuration"),
    ),
    ("CustomResourceDefinition", "Created At", Field(&["metadata", "creationTimestamp"])),
    ("PriorityClass", "Value", Field(&["value"])),
    ("PriorityClass", "Global-Default", Field(&["globalDefault"])),
    (
        "PriorityClass",
        "PreemptionPolicy",
        Words(
            "preemptionPolicy is the Policy for preempting pods with lower priority. One of Never, PreemptLowerPriority. Defaults to PreemptLowerPriority if unset.",
        ),
    ),
    ("Lease", "Holder", Field(&["spec", "holderIdentity"])),
    (
        "EndpointSlice",
        "AddressType",
        Words(
            "addressType specifies the type of address carried by this EndpointSlice. All addresses in this slice must be the same type. This field is immutable after creation. The following address types are currently supported: * IPv4: Represents an IPv4 Address. * IPv6: Represents an IPv6 Address. * FQDN: Represents a Fully Qualified Domain Name. (Deprecated) The EndpointSlice controller only generates, and kube-proxy only processes, slices of addressType \"IPv4\" and \"IPv6\". No semantics are defined for the \"FQDN\" type.",
        ),
    ),
    ("EndpointSlice", "Ports", Field(&["ports"])),
    ("EndpointSlice", "Endpoints", Field(&["endpoints"])),
    ("ResourceClaim", "State", Words("A summary of the current state (allocated, pending, reserved, etc.).")),
    ("ResourceSlice", "Node", Field(&["spec", "nodeName"])),
    ("ResourceSlice", "Driver", Field(&["spec", "driver"])),
    ("ResourceSlice", "Pool", Field(&["spec", "pool", "name"])),
    ("FlowSchema", "PriorityLevel", Field(&["spec", "priorityLevelConfiguration", "name"])),
    ("FlowSchema", "MatchingPrecedence", Field(&["spec", "matchingPrecedence"])),
    ("FlowSchema", "DistinguisherMethod", Field(&["spec", "distinguisherMethod"])),
    ("FlowSchema", "MissingPL", Words("references a broken or non-existent PriorityLevelConfiguration")),
    ("PriorityLevelConfiguration", "Type", Field(&["spec", "type"])),
    ("PriorityLevelConfiguration", "NominalConcurrencyShares", Field(&["spec", "limited", "nominalConcurrencyShares"])),
    ("PriorityLevelConfiguration", "Queues", Field(&["spec", "limited", "limitResponse", "queuing", "queues"])),
    ("PriorityLevelConfiguration", "HandSize", Field(&["spec", "limited", "limitResponse", "queuing", "handSize"])),
    (
        "PriorityLevelConfiguration",
        "QueueLengthLimit",
        Field(&["spec", "limited", "limitResponse", "queuing", "queueLengthLimit"]),
    ),
    ("*", "Name", Field(&["metadata", "name"])),
    ("*", "Age", Field(&["metadata", "creationTimestamp"])),
    ("*", "Containers", Words("Names of each container in the template.")),
    ("*", "Images", Words("Images referenced by each container in the template.")),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Clock, ids::Ids, registry::Registry};

    #[tokio::test]
    async fn every_text_belongs_to_a_column_and_is_not_empty() {
        let registry = Registry::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Ids::seeded(0));
        let catalog = registry.catalog();
        for (kind, column, _) in TEXTS {
            let mut found = catalog.all().filter(|resource| {
                (resource.kind == *kind || *kind == "*")
                    && resource.gvr.group != "events.k8s.io"
                    && resource.columns.iter().any(|it| it.name == *column)
            });
            let resource = found.next().unwrap_or_else(|| panic!("{kind} has no column {column}"));
            assert_ne!(description(resource, column), "", "{kind} {column}");
        }
    }
}
