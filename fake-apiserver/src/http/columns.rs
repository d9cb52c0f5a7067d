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

const CONTAINERS: Text = Words("Names of each container in the template.");
const IMAGES: Text = Words("Images referenced by each container in the template.");
const READY_PODS: Text = Words("Number of the pod with ready state");

/// The first row that fits counts.
const TEXTS: &[(&str, &str, Text)] = &[
    ("*", "Name", Field(&["metadata", "name"])),
    ("*", "Age", Field(&["metadata", "creationTimestamp"])),
    ("*", "Containers", CONTAINERS),
    ("*", "Images", IMAGES),
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
    ("PodDisruptionBudget", "Min Available", Words("The minimum number of pods that must be available.")),
    ("PodDisruptionBudget", "Max Unavailable", Words("The maximum number of pods that may be unavailable.")),
    (
        "PodDisruptionBudget",
        "Allowed Disruptions",
        Words("Calculated number of pods that may be disrupted at this time."),
    ),
    ("ReplicationController", "Desired", Field(&["spec", "replicas"])),
    ("ReplicationController", "Current", Field(&["status", "replicas"])),
    ("ReplicationController", "Ready", Field(&["status", "readyReplicas"])),
    ("ReplicationController", "Selector", Field(&["spec", "selector"])),
    ("ReplicaSet", "Desired", Field(&["spec", "replicas"])),
    ("ReplicaSet", "Current", Field(&["status", "replicas"])),
    ("ReplicaSet", "Ready", Field(&["status", "readyReplicas"])),
    ("ReplicaSet", "Selector", Field(&["spec", "selector"])),
    ("DaemonSet", "Desired", Field(&["status", "desiredNumberScheduled"])),
    ("DaemonSet", "Current", Field(&["status", "currentNumberScheduled"])),
    ("DaemonSet", "Ready", Field(&["status", "numberReady"])),
    ("DaemonSet", "Up-to-date", Field(&["status", "updatedNumberScheduled"])),
    ("DaemonSet", "Available", Field(&["status", "numberAvailable"])),
    ("DaemonSet", "Node Selector", Field(&["spec", "template", "spec", "nodeSelector"])),
    ("DaemonSet", "Selector", Field(&["spec", "selector"])),
    ("Deployment", "Ready", READY_PODS),
    ("Deployment", "Up-to-date", Field(&["status", "updatedReplicas"])),
    ("Deployment", "Available", Field(&["status", "availableReplicas"])),
    ("Deployment", "Selector", Field(&["spec", "selector"])),
    ("StatefulSet", "Ready", READY_PODS),
    ("Job", "Status", Words("Status of the job.")),
    ("Job", "Completions", Field(&["spec", "completions"])),
    ("Job", "Duration", Words("Time required to complete the job.")),
    ("Job", "Selector", Field(&["spec", "selector"])),
    ("CronJob", "Schedule", Field(&["spec", "schedule"])),
    ("CronJob", "Timezone", Field(&["spec", "timeZone"])),
    ("CronJob", "Suspend", Field(&["spec", "suspend"])),
    ("CronJob", "Active", Field(&["status", "active"])),
    ("CronJob", "Last Schedule", Field(&["status", "lastScheduleTime"])),
    ("CronJob", "Selector", Field(&["spec", "jobTemplate", "spec", "selector"])),
    ("Service", "Type", Field(&["spec", "type"])),
    ("Service", "Cluster-IP", Field(&["spec", "clusterIP"])),
    ("Service", "External-IP", Field(&["spec", "externalIPs"])),
    ("Service", "Port(s)", Field(&["spec", "ports"])),
    ("Service", "Selector", Field(&["spec", "selector"])),
    (
        "Ingress",
        "Class",
        Words("The name of the IngressClass resource that should be used for additional configuration"),
    ),
    ("Ingress", "Hosts", Words("Hosts that incoming requests are matched against before the ingress rule")),
    ("Ingress", "Address", Words("Address is a list containing ingress points for the load-balancer")),
    ("Ingress", "Ports", Words("Ports of TLS configurations that open")),
    ("IngressClass", "Controller", Words("Controller that is responsible for handling this class")),
    ("IngressClass", "Parameters", Words("A reference to a resource with additional parameters")),
    ("Endpoints", "Endpoints", Field(&["subsets"])),
    ("Node", "Status", Words("The status of the node")),
    ("Node", "Roles", Words("The roles of the node")),
    ("Node", "Version", Field(&["status", "nodeInfo", "kubeletVersion"])),
    ("Node", "Internal-IP", Field(&["status", "addresses"])),
    ("Node", "External-IP", Field(&["status", "addresses"])),
    ("Node", "OS-Image", Field(&["status", "nodeInfo", "osImage"])),
    ("Node", "Kernel-Version", Field(&["status", "nodeInfo", "kernelVersion"])),
    ("Node", "Container-Runtime", Field(&["status", "nodeInfo", "containerRuntimeVersion"])),
    ("Event", "Last Seen", Field(&["lastTimestamp"])),
    ("Event", "Type", Field(&["type"])),
    ("Event", "Reason", Field(&["reason"])),
    ("Event", "Object", Field(&["involvedObject"])),
    ("Event", "Subobject", Field(&["involvedObject", "fieldPath"])),
    ("Event", "Source", Field(&["source"])),
    ("Event", "Message", Field(&["message"])),
    ("Event", "First Seen", Field(&["firstTimestamp"])),
    ("Event", "Count", Field(&["count"])),
    ("Namespace", "Status", Words("The status of the namespace")),
    ("Secret", "Type", Field(&["type"])),
    ("Secret", "Data", Field(&["data"])),
    ("ConfigMap", "Data", Field(&["data"])),
    ("PersistentVolume", "Capacity", Field(&["spec", "capacity"])),
    ("PersistentVolume", "Access Modes", Field(&["spec", "accessModes"])),
    ("PersistentVolume", "Reclaim Policy", Field(&["spec", "persistentVolumeReclaimPolicy"])),
    ("PersistentVolume", "Status", Field(&["status", "phase"])),
    ("PersistentVolume", "Claim", Field(&["spec", "claimRef"])),
    ("PersistentVolume", "StorageClass", Words("StorageClass of the pv")),
    ("PersistentVolume", "VolumeAttributesClass", Words("VolumeAttributesClass of the pv")),
    ("PersistentVolume", "Reason", Field(&["status", "reason"])),
    ("PersistentVolume", "VolumeMode", Field(&["spec", "volumeMode"])),
    ("PersistentVolumeClaim", "Status", Field(&["status", "phase"])),
    ("PersistentVolumeClaim", "Volume", Field(&["spec", "volumeName"])),
    ("PersistentVolumeClaim", "Capacity", Field(&["status", "capacity"])),
    ("PersistentVolumeClaim", "Access Modes", Field(&["status", "accessModes"])),
    ("PersistentVolumeClaim", "StorageClass", Words("StorageClass of the pvc")),
    ("PersistentVolumeClaim", "VolumeAttributesClass", Words("VolumeAttributesClass of the pvc")),
    ("PersistentVolumeClaim", "VolumeMode", Field(&["spec", "volumeMode"])),
    ("NetworkPolicy", "Pod-Selector", Field(&["spec", "podSelector"])),
    ("Lease", "Holder", Field(&["spec", "holderIdentity"])),
    ("StorageClass", "Provisioner", Field(&["provisioner"])),
    ("StorageClass", "ReclaimPolicy", Field(&["reclaimPolicy"])),
    ("StorageClass", "VolumeBindingMode", Field(&["volumeBindingMode"])),
    ("StorageClass", "AllowVolumeExpansion", Field(&["allowVolumeExpansion"])),
    ("PriorityClass", "Value", Field(&["value"])),
    ("PriorityClass", "Global-Default", Field(&["globalDefault"])),
    ("PriorityClass", "PreemptionPolicy", Field(&["preemptionPolicy"])),
    ("RuntimeClass", "Handler", Field(&["handler"])),
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
