//! Which kind has which rules.

use super::{
    BUILTIN, Rules, admission, autoscalers, budgets, certificates, core, data, events, jobs, namespaces, others, pod,
    print, quotas, roles, service, storage, unsupported_label, warnings, workloads,
};
use crate::base::{Object, names};

/// A field selector's value that is a text at a path.
macro_rules! at {
    ($($key:literal),+) => {
        |object: &Object| object.str_at(&[$($key),+]).to_owned()
    };
}

/// Group, kind, rules.
pub(super) static TABLE: &[(&str, &str, Rules)] = &[
    (
        "",
        "Pod",
        Rules {
            default: pod::default_pod,
            prepare_create: pod::create,
            prepare_update: pod::update,
            validate: pod::validate,
            validate_update: pod::validate_update,
            warnings: pod::warnings::of_pod,
            selectable: &[
                ("spec.nodeName", at!("spec", "nodeName")),
                ("spec.restartPolicy", at!("spec", "restartPolicy")),
                ("spec.schedulerName", at!("spec", "schedulerName")),
                ("spec.serviceAccountName", at!("spec", "serviceAccountName")),
                ("spec.hostNetwork", |pod| truth(pod, &["spec", "hostNetwork"])),
                ("status.phase", at!("status", "phase")),
                ("status.podIP", |pod| {
                    let first = pod.at(&["status", "podIPs"]).and_then(|ips| ips.get(0)?.get("ip")?.as_str());
                    first.map_or_else(|| pod.str_at(&["status", "podIP"]).to_owned(), str::to_owned)
                }),
                ("status.nominatedNodeName", at!("status", "nominatedNodeName")),
            ],
            unknown_label: unsupported_label,
            generation: true,
            cells: print::pods::pod,
            ..BUILTIN
        },
    ),
    (
        "",
        "Namespace",
        Rules {
            revalidates: true,
            name: names::name_is_label,
            default: namespaces::default_namespace,
            prepare_create: namespaces::create_namespace,
            prepare_update: namespaces::update_namespace,
            validate: namespaces::validate_namespace,
            validate_update: namespaces::validate_namespace_update,
            selectable: &[("status.phase", at!("status", "phase")), ("name", at!("metadata", "name"))],
            unknown_label: unsupported_label,
            cells: print::cluster::namespace,
            ..BUILTIN
        },
    ),
    (
        "",
        "ConfigMap",
        Rules {
            default: data::default_config_map,
            validate: data::validate_config_map,
            validate_update: data::validate_config_map_update,
            revalidates: true,
            cells: print::cluster::config_map,
            ..BUILTIN
        },
    ),
    (
        "",
        "Secret",
        Rules {
            warnings: warnings::secret,
            default: data::default_secret,
            validate: data::validate_secret,
            validate_update: data::validate_secret_update,
            revalidates: true,
            selectable: &[("type", at!("type"))],
            unknown_label: unsupported_label,
            cells: print::cluster::secret,
            ..BUILTIN
        },
    ),
    (
        "",
        "Service",
        Rules {
            warnings: warnings::service,
            name: names::name_is_label,
            default: service::default,
            prepare_create: service::create,
            prepare_update: service::update,
            validate: service::validate,
            validate_update: service::validate_update,
            selectable: &[("spec.clusterIP", at!("spec", "clusterIP")), ("spec.type", at!("spec", "type"))],
            unknown_label: unsupported_label,
            cells: print::network::service,
            ..BUILTIN
        },
    ),
    (
        "",
        "ServiceAccount",
        Rules {
            prepare_create: core::prepare_service_account,
            warnings: warnings::service_account,
            revalidates: true,
            ..BUILTIN
        },
    ),
    (
        "",
        "PersistentVolumeClaim",
        Rules {
            revalidates: true,
            warnings: warnings::claim,
            default: storage::default_claim,
            prepare_create: storage::create_claim,
            prepare_update: core::keep_other_half,
            validate: storage::validate_claim,
            validate_update: storage::validate_claim_update,
            cells: print::storage::claim,
            ..BUILTIN
        },
    ),
    (
        "",
        "PersistentVolume",
        Rules {
            judges_change: false,
            revalidates: true,
            rejudges_metadata: 1,
            warnings: warnings::volume,
            default: storage::default_volume,
            prepare_create: storage::create_volume,
            prepare_update: core::keep_other_half,
            validate: storage::validate_volume,
            validate_update: storage::validate_volume_update,
            cells: print::storage::volume,
            ..BUILTIN
        },
    ),
    (
        "",
        "Node",
        Rules {
            revalidates: true,
            warnings: warnings::node,
            default: core::default_node,
            prepare_update: core::keep_other_half,
            validate: core::validate_node,
            selectable: &[("spec.unschedulable", |node| truth(node, &["spec", "unschedulable"]))],
            unknown_label: unsupported_label,
            cells: print::cluster::node,
            ..BUILTIN
        },
    ),
    (
        "",
        "Event",
        Rules {
            name: names::path_segment,
            judges_change: false,
            standard_finalizers: false,
            default: events::default_core_event,
            validate: events::validate_event,
            selectable: EVENT_FIELDS,
            unknown_label: unsupported_label,
            cells: print::cluster::event,
            ..BUILTIN
        },
    ),
    (
        "events.k8s.io",
        "Event",
        Rules {
            default: events::default_new_event,
            validate: events::validate_new_event,
            selectable: NEW_EVENT_FIELDS,
            unknown_label: unsupported_label,
            cells: print::cluster::event,
            ..BUILTIN
        },
    ),
    (
        "",
        "LimitRange",
        Rules {
            judges_change: false,
            default: quotas::default_limit_range,
            validate: quotas::validate_limit_range,
            revalidates: true,
            cells: print::name_and_creation,
            ..BUILTIN
        },
    ),
    (
        "",
        "ResourceQuota",
        Rules {
            warnings: warnings::resource_quota,
            default: quotas::default_resource_quota,
            prepare_create: core::reset_status,
            prepare_update: core::keep_other_half,
            validate: quotas::validate_resource_quota,
            validate_update: quotas::validate_resource_quota_update,
            cells: print::cluster::resource_quota,
            ..BUILTIN
        },
    ),
    (
        "",
        "Endpoints",
        Rules {
            warnings: warnings::endpoints,
            default: core::default_endpoints,
            validate: core::validate_endpoints,
            validate_update: core::validate_endpoints_update,
            revalidates: true,
            cells: print::network::endpoints,
            ..BUILTIN
        },
    ),
    (
        "apps",
        "Deployment",
        Rules {
            warnings: warnings::workload,
            default: workloads::default_deployment,
            prepare_create: workloads::create_plain,
            prepare_update: workloads::update,
            validate: workloads::validate_deployment,
            validate_update: workloads::validate_deployment_update,
            generation: true,
            // They are copied to its replica sets (upstream: pkg/registry/apps/deployment/strategy.go).
            annotations_count: true,
            cells: print::workloads::deployment,
            ..BUILTIN
        },
    ),
    (
        "apps",
        "ReplicaSet",
        Rules {
            warnings: warnings::workload,
            default: workloads::default_replica_set,
            prepare_create: workloads::create_replicas,
            prepare_update: workloads::update,
            validate: workloads::validate_replica_set,
            validate_update: workloads::validate_replica_set_update,
            generation: true,
            cells: print::workloads::replica_set,
            ..BUILTIN
        },
    ),
    (
        "apps",
        "StatefulSet",
        Rules {
            name: names::name_is_label,
            warnings: warnings::stateful_set,
            default: workloads::default_stateful_set,
            prepare_create: workloads::create_stateful,
            prepare_update: workloads::update,
            validate: workloads::validate_stateful_set,
            validate_update: workloads::validate_stateful_set_update,
            generation: true,
            cells: print::workloads::stateful_set,
            ..BUILTIN
        },
    ),
    (
        "apps",
        "DaemonSet",
        Rules {
            warnings: warnings::daemon_set,
            default: workloads::default_daemon_set,
            prepare_create: workloads::create_daemons,
            prepare_update: workloads::update_daemons,
            validate: workloads::validate_daemon_set,
            validate_update: workloads::validate_daemon_set_update,
            generation: true,
            cells: print::workloads::daemon_set,
            ..BUILTIN
        },
    ),
    ("apps", "ControllerRevision", Rules { cells: print::workloads::controller_revision, ..BUILTIN }),
    (
        "",
        "ReplicationController",
        Rules {
            warnings: warnings::workload,
            default: workloads::default_replication_controller,
            prepare_create: workloads::create_replicas,
            prepare_update: workloads::update,
            validate: workloads::validate_replication_controller,
            validate_update: |new, _, subresource| {
                if subresource == "status" { Vec::new() } else { workloads::validate_replication_controller(new) }
            },
            selectable: &[("status.replicas", |rc| {
                rc.at(&["status", "replicas"]).map_or_else(|| "0".into(), ToString::to_string)
            })],
            unknown_label: unsupported_label,
            generation: true,
            cells: print::workloads::replica_set,
            ..BUILTIN
        },
    ),
    (
        "",
        "PodTemplate",
        Rules {
            warnings: warnings::pod_template,
            default: workloads::default_pod_template,
            validate: workloads::validate_pod_template,
            validate_update: |new, _, _| workloads::validate_pod_template(new),
            generation: true,
            cells: print::pods::pod_template,
            ..BUILTIN
        },
    ),
    (
        "batch",
        "Job",
        Rules {
            revalidates: true,
            warnings: warnings::job,
            default: jobs::default_job,
            prepare_create: jobs::create_job,
            prepare_update: workloads::update,
            validate: jobs::validate_job,
            validate_update: jobs::validate_job_update,
            selectable: &[("status.successful", |job| {
                job.at(&["status", "succeeded"]).map_or_else(|| "0".into(), ToString::to_string)
            })],
            unknown_label: |label| format!("field label {label:?} not supported for Job"),
            generation: true,
            cells: print::workloads::job,
            ..BUILTIN
        },
    ),
    (
        "batch",
        "CronJob",
        Rules {
            warnings: warnings::cron_job,
            default: jobs::default_cron_job,
            prepare_create: workloads::create_plain,
            prepare_update: workloads::update,
            validate: jobs::validate_cron_job,
            validate_update: jobs::validate_cron_job_update,
            generation: true,
            cells: print::workloads::cron_job,
            ..BUILTIN
        },
    ),
    (
        "autoscaling",
        "HorizontalPodAutoscaler",
        Rules {
            default: autoscalers::default_autoscaler,
            prepare_create: autoscalers::create_autoscaler,
            prepare_update: workloads::update,
            validate: autoscalers::validate_autoscaler,
            validate_update: autoscalers::validate_autoscaler_update,
            cells: print::workloads::autoscaler,
            ..BUILTIN
        },
    ),
    (
        "policy",
        "PodDisruptionBudget",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: budgets::default_budget,
            prepare_create: budgets::create_budget,
            prepare_update: workloads::update,
            validate: budgets::validate_budget,
            validate_update: budgets::validate_budget_update,
            generation: true,
            cells: print::workloads::disruption_budget,
            ..BUILTIN
        },
    ),
    (
        "networking.k8s.io",
        "NetworkPolicy",
        Rules {
            warnings: warnings::network_policy,
            default: others::default_network_policy,
            validate: others::validate_network_policy,
            validate_update: others::validate_network_policy_update,
            generation: true,
            cells: print::network::network_policy,
            ..BUILTIN
        },
    ),
    (
        "networking.k8s.io",
        "Ingress",
        Rules {
            rejudges_metadata: 1,
            warnings: warnings::ingress,
            default: others::default_ingress,
            prepare_create: others::create_ingress,
            prepare_update: others::update,
            validate: others::validate_ingress,
            validate_update: others::validate_ingress_update,
            generation: true,
            cells: print::network::ingress,
            ..BUILTIN
        },
    ),
    (
        "networking.k8s.io",
        "IngressClass",
        Rules {
            revalidates: true,
            default: others::default_ingress_class,
            validate: others::validate_ingress_class,
            validate_update: others::validate_ingress_class_update,
            generation: true,
            cells: print::network::ingress_class,
            ..BUILTIN
        },
    ),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        Rules {
            judges_change: false,
            rejudges_metadata: 1,
            warnings: warnings::endpoint_slice,
            default: others::default_endpoint_slice,
            validate: others::validate_endpoint_slice,
            validate_update: others::validate_endpoint_slice_update,
            generation: true,
            cells: print::network::endpoint_slice,
            ..BUILTIN
        },
    ),
    (
        "storage.k8s.io",
        "StorageClass",
        Rules {
            revalidates: true,
            warnings: warnings::storage_class,
            default: others::default_storage_class,
            validate: others::validate_storage_class,
            validate_update: others::validate_storage_class_update,
            cells: print::storage::storage_class,
            ..BUILTIN
        },
    ),
    (
        "storage.k8s.io",
        "CSIDriver",
        Rules {
            unconditional: false,
            default: others::default_csi_driver,
            prepare_update: others::update_csi_driver,
            ..BUILTIN
        },
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "FlowSchema",
        Rules {
            default: others::default_flow_schema,
            prepare_create: others::create_policy,
            prepare_update: others::update,
            generation: true,
            ..BUILTIN
        },
    ),
    (
        "flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration",
        Rules {
            default: others::default_priority_level,
            prepare_create: others::create_policy,
            prepare_update: others::update,
            generation: true,
            ..BUILTIN
        },
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        Rules {
            default: others::default_priority_class,
            validate: others::validate_priority_class,
            validate_update: others::validate_priority_class_update,
            generation: true,
            cells: print::cluster::priority_class,
            ..BUILTIN
        },
    ),
    (
        "node.k8s.io",
        "RuntimeClass",
        Rules {
            revalidates: true,
            standard_finalizers: false,
            unconditional: false,
            warnings: warnings::runtime_class,
            default: others::default_runtime_class,
            validate: others::validate_runtime_class,
            validate_update: others::validate_runtime_class_update,
            cells: print::cluster::runtime_class,
            ..BUILTIN
        },
    ),
    (
        "coordination.k8s.io",
        "Lease",
        Rules {
            standard_finalizers: false,
            unconditional: false,
            default: others::default_lease,
            validate: others::validate_lease,
            validate_update: others::validate_lease_update,
            cells: print::cluster::lease,
            ..BUILTIN
        },
    ),
    (
        "rbac.authorization.k8s.io",
        "Role",
        Rules {
            rejudges_metadata: 1,
            name: names::path_segment,
            default: roles::default_role,
            validate: roles::validate_role,
            validate_update: roles::validate_role_update,
            cells: print::name_and_creation,
            ..BUILTIN
        },
    ),
    (
        "rbac.authorization.k8s.io",
        "ClusterRole",
        Rules {
            rejudges_metadata: 1,
            name: names::path_segment,
            default: roles::default_role,
            validate: roles::validate_cluster_role,
            validate_update: roles::validate_cluster_role_update,
            cells: print::name_and_creation,
            ..BUILTIN
        },
    ),
    (
        "rbac.authorization.k8s.io",
        "RoleBinding",
        Rules {
            rejudges_metadata: 1,
            name: names::path_segment,
            default: roles::default_binding,
            validate: roles::validate_role_binding,
            validate_update: roles::validate_role_binding_update,
            cells: print::cluster::role_binding,
            ..BUILTIN
        },
    ),
    (
        "rbac.authorization.k8s.io",
        "ClusterRoleBinding",
        Rules {
            rejudges_metadata: 1,
            name: names::path_segment,
            default: roles::default_binding,
            validate: roles::validate_cluster_role_binding,
            validate_update: roles::validate_cluster_role_binding_update,
            cells: print::cluster::role_binding,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: others::default_validating_webhooks,
            validate: admission::validate_webhooks,
            warnings: admission::warnings,
            revalidates: true,
            generation: true,
            cells: print::cluster::webhooks,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: others::default_mutating_webhooks,
            validate: admission::validate_webhooks,
            warnings: admission::warnings,
            revalidates: true,
            generation: true,
            cells: print::cluster::webhooks,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: others::default_policy,
            validate: admission::validate_policy,
            warnings: admission::warnings,
            revalidates: true,
            prepare_create: others::create_policy,
            prepare_update: others::update,
            generation: true,
            cells: print::cluster::admission_policy,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: others::default_policy_binding,
            validate: admission::validate_policy_binding,
            warnings: admission::warnings,
            revalidates: true,
            generation: true,
            cells: print::cluster::admission_binding,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicy",
        Rules {
            default: others::default_mutating_policy,
            validate: admission::validate_mutating_policy,
            warnings: admission::warnings,
            revalidates: true,
            generation: true,
            cells: print::cluster::admission_policy,
            ..BUILTIN
        },
    ),
    (
        "admissionregistration.k8s.io",
        "MutatingAdmissionPolicyBinding",
        Rules {
            judges_change: false,
            standard_finalizers: false,
            unconditional: false,
            default: others::default_policy_binding,
            validate: admission::validate_mutating_binding,
            warnings: admission::warnings,
            revalidates: true,
            generation: true,
            cells: print::cluster::admission_binding,
            ..BUILTIN
        },
    ),
    (
        "certificates.k8s.io",
        "CertificateSigningRequest",
        Rules {
            name: names::path_segment,
            prepare_create: certificates::create,
            prepare_update: certificates::update,
            stamp: certificates::stamp,
            validate: certificates::validate,
            validate_update: certificates::validate_update,
            selectable: &[("spec.signerName", certificates::signer_name)],
            unknown_label: unsupported_label,
            cells: print::cluster::certificate_request,
            ..BUILTIN
        },
    ),
    ("apiextensions.k8s.io", "CustomResourceDefinition", super::definition::RULES),
];

/// `true` or `false`, the latter also where the field is absent.
fn truth(object: &Object, path: &[&str]) -> String {
    (object.at(path).and_then(serde_json::Value::as_bool) == Some(true)).to_string()
}

const EVENT_FIELDS: &[super::Selectable] = &[
    ("involvedObject.kind", at!("involvedObject", "kind")),
    ("involvedObject.namespace", at!("involvedObject", "namespace")),
    ("involvedObject.name", at!("involvedObject", "name")),
    ("involvedObject.uid", at!("involvedObject", "uid")),
    ("involvedObject.apiVersion", at!("involvedObject", "apiVersion")),
    ("involvedObject.resourceVersion", at!("involvedObject", "resourceVersion")),
    ("involvedObject.fieldPath", at!("involvedObject", "fieldPath")),
    ("reason", at!("reason")),
    ("reportingComponent", at!("reportingComponent")),
    ("source", |event| {
        let source = event.str_at(&["source", "component"]);
        if source.is_empty() { event.str_at(&["reportingComponent"]) } else { source }.to_owned()
    }),
    ("type", at!("type")),
];

const NEW_EVENT_FIELDS: &[super::Selectable] = &[
    ("regarding.kind", at!("regarding", "kind")),
    ("regarding.namespace", at!("regarding", "namespace")),
    ("regarding.name", at!("regarding", "name")),
    ("regarding.uid", at!("regarding", "uid")),
    ("regarding.apiVersion", at!("regarding", "apiVersion")),
    ("regarding.resourceVersion", at!("regarding", "resourceVersion")),
    ("regarding.fieldPath", at!("regarding", "fieldPath")),
    ("reason", at!("reason")),
    ("reportingController", at!("reportingController")),
    ("type", at!("type")),
];
