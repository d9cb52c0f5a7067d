use jiff::SignedDuration;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;
use crate::base::{Status, selector::FieldSelector};

fn object(value: Value) -> Object {
    Object::from_value(value).expect("a map")
}

/// An object as it stands after the defaults and resets of a create.
fn created(group: &str, value: Value) -> Object {
    let mut object = object(value);
    let rules = rules(group, object.kind());
    (rules.default)(&mut object);
    (rules.prepare_create)(&mut object);
    object
}

/// What a create of this object complains of, without the head of the message.
fn complaint(group: &str, value: Value) -> String {
    let object = created(group, value);
    let rules = rules(group, object.kind());
    let errors = validate_create(rules, &object, !object.namespace().is_empty());
    told(group, &object, &errors)
}

fn told(group: &str, object: &Object, errors: &[FieldError]) -> String {
    if errors.is_empty() {
        return String::new();
    }
    let message = Status::invalid(group, object.kind(), object.name(), errors).message;
    message.split_once(" is invalid: ").expect("the head of a 422").1.to_owned()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": spec})
}

/// A pod whose one container has these members beside name and image.
fn pod_of(container: Value) -> Value {
    let mut whole = json!({"name": "c", "image": "x"});
    for (key, value) in container.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    pod(json!({"containers": [whole]}))
}

#[test]
fn a_pod_shows_what_it_will_run_with() {
    let pod = created(
        "",
        pod(json!({
            "containers": [{
                "name": "c", "image": "repo/img:1", "ports": [{"containerPort": 80}],
                "livenessProbe": {"httpGet": {"port": 80}},
                "resources": {"limits": {"cpu": "1", "memory": "1536Mi"}},
            }],
            "volumes": [{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}],
        })),
    );
    let value = pod.to_value();
    let container = &value["spec"]["containers"][0];
    assert_eq!(container["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["ports"], json!([{"containerPort": 80, "protocol": "TCP"}]));
    assert_eq!(container["resources"]["requests"], json!({"cpu": "1", "memory": "1536Mi"}));
    let probe = json!({
        "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(container["livenessProbe"], probe);
    let volumes =
        json!([{"name": "v", "emptyDir": {}}, {"name": "s", "secret": {"secretName": "x", "defaultMode": 420}}]);
    assert_eq!(value["spec"]["volumes"], volumes);
    assert_eq!(value["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(value["status"], json!({"phase": "Pending", "qosClass": "Guaranteed"}));
}

#[rstest]
#[case("x", "Always")]
#[case("x:latest", "Always")]
#[case("host:5000/x", "Always")]
#[case("host:5000/x:1", "IfNotPresent")]
#[case("x@sha256:0", "IfNotPresent")]
fn an_image_without_a_fixed_tag_is_always_pulled(#[case] image: &str, #[case] policy: &str) {
    let pod = created("", pod_of(json!({"image": image})));
    assert_eq!(pod.to_value()["spec"]["containers"][0]["imagePullPolicy"], policy);
}

#[test]
fn defaults_are_stable() {
    for (group, value) in samples() {
        let once = created(group, value);
        let mut twice = once.clone();
        (rules(group, once.kind()).default)(&mut twice);
        assert_eq!(once, twice, "{}", once.kind());
    }
}

fn samples() -> Vec<(&'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
    let workload = |version: &str, kind: &str| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": "w", "namespace": "ns"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
        })
    };
    let mut job = workload("batch/v1", "Job");
    job["spec"] = json!({"template": template});
    job["spec"]["template"]["spec"]["restartPolicy"] = "Never".into();
    job["metadata"]["uid"] = "u".into();
    let cron = json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "w", "namespace": "ns"},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job["spec"]}},
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "w", "namespace": "ns"},
        "spec": {"clusterIP": "None", "ports": [{"port": 80}]},
    });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "w", "namespace": "ns"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "w", "namespace": "ns"},
        "spec": {"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]},
    });
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "w", "namespace": "ns"}, "stringData": {"a": "b"},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "w"}});
    vec![
        ("", pod(json!({"containers": [{"name": "c", "image": "x", "resources": {"limits": {"cpu": "100n"}}}]}))),
        ("", service),
        ("", claim),
        ("", secret),
        ("", namespace),
        ("apps", workload("apps/v1", "Deployment")),
        ("apps", workload("apps/v1", "ReplicaSet")),
        ("apps", workload("apps/v1", "StatefulSet")),
        ("apps", workload("apps/v1", "DaemonSet")),
        ("batch", job),
        ("batch", cron),
        ("networking.k8s.io", policy),
    ]
}

#[test]
fn plain_objects_of_all_kinds_are_welcome_and_print() {
    for (group, value) in samples() {
        assert_eq!(complaint(group, value.clone()), "", "{value}");
        let object = created(group, value);
        let cells = (rules(group, object.kind()).cells)(&object, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[0], object.name(), "{}", object.kind());
    }
}

#[rstest]
#[case(json!({"image": " x"}), r#"spec.containers[0].image: Invalid value: " x": must not have leading or trailing whitespace"#)]
#[case(json!({"envFrom": [{}]}), "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`")]
#[case(json!({"livenessProbe": {"httpGet": {"port": 0}}}), "spec.containers[0].livenessProbe.httpGet.port: Invalid value: 0: must be between 1 and 65535, inclusive")]
#[case(json!({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}), "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)")]
#[case(json!({"ports": [{"containerPort": 80, "name": "a-name-that-is-too-long"}]}), "spec.containers[0].ports[0].name: Invalid value: \"a-name-that-is-too-long\": must be no more than 15 characters")]
#[case(json!({"volumeMounts": [{"name": "none", "mountPath": "/x"}]}), "spec.containers[0].volumeMounts[0].name: Not found: \"none\"")]
#[case(json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}), "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1")]
#[case(json!({"resources": {"requests": {"example.com/gpu": "1"}}}), "spec.containers[0].resources.limits: Required value: Limit must be set for non overcommitable resources")]
#[case(json!({"securityContext": {"seccompProfile": {"type": "Localhost"}}}), "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost")]
#[case(json!({"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.image"}}}]}), "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.image\": error converting fieldPath: field label not supported: spec.image")]
fn a_bad_container_gets_upstreams_words(#[case] container: Value, #[case] message: &str) {
    assert_eq!(complaint("", pod_of(container)), message);
}

/// Recorded: how often upstream tells of an owner, a uid and a finalizer among the causes.
#[rstest]
#[case("", "Service", [3, 2, 1])]
#[case("apps", "Deployment", [3, 2, 1])]
#[case("batch", "Job", [4, 2, 2])]
#[case("batch", "CronJob", [3, 2, 1])]
#[case("policy", "PodDisruptionBudget", [2, 1, 0])]
#[case("networking.k8s.io", "Ingress", [4, 2, 2])]
#[case("networking.k8s.io", "IngressClass", [4, 2, 2])]
#[case("", "PersistentVolumeClaim", [4, 2, 2])]
#[case("", "PersistentVolume", [4, 1, 2])]
#[case("storage.k8s.io", "StorageClass", [4, 2, 2])]
#[case("", "ConfigMap", [4, 2, 2])]
#[case("", "LimitRange", [3, 1, 1])]
#[case("", "ResourceQuota", [3, 2, 1])]
#[case("node.k8s.io", "RuntimeClass", [4, 2, 0])]
#[case("scheduling.k8s.io", "PriorityClass", [3, 2, 1])]
#[case("", "Node", [4, 2, 2])]
#[case("", "Namespace", [4, 2, 2])]
#[case("coordination.k8s.io", "Lease", [3, 2, 0])]
#[case("", "Event", [2, 1, 0])]
#[case("events.k8s.io", "Event", [3, 2, 1])]
#[case("", "Endpoints", [4, 2, 2])]
#[case("discovery.k8s.io", "EndpointSlice", [3, 1, 1])]
#[case("rbac.authorization.k8s.io", "Role", [4, 2, 2])]
#[case("rbac.authorization.k8s.io", "ClusterRoleBinding", [4, 2, 2])]
#[case("admissionregistration.k8s.io", "ValidatingWebhookConfiguration", [3, 1, 0])]
#[case("admissionregistration.k8s.io", "ValidatingAdmissionPolicy", [3, 1, 0])]
#[case("storage.k8s.io", "CSIDriver", [3, 2, 1])]
fn an_update_tells_of_metadata_as_often_as_upstream(
    #[case] group: &str,
    #[case] kind: &str,
    #[case] times: [usize; 3],
) {
    let of = |uid: &str| {
        let owner = json!({"apiVersion": "v1", "name": "o", "uid": "o"});
        let metadata = json!({"name": "x", "namespace": "ns", "uid": uid, "resourceVersion": "1",
            "ownerReferences": [owner], "finalizers": ["bare"]});
        object(json!({"apiVersion": "v1", "kind": kind, "metadata": metadata}))
    };
    let errors = validate_update(rules(group, kind), &of("new"), &of("old"), true, "");
    let fields = ["metadata.ownerReferences.kind", "metadata.uid", "metadata.finalizers[0]"];
    let told = fields.map(|field| errors.iter().filter(|error| error.field == field).count());
    assert_eq!(told, times);
}

#[rstest]
#[case(json!({"scaleIO": {"gateway": "g"}}), "[spec.volumes[0].scaleIO.system: Required value, spec.volumes[0].scaleIO.volumeName: Required value]")]
#[case(json!({"flocker": {}}), "spec.volumes[0].flocker: Required value: one of datasetName and datasetUUID is required")]
#[case(json!({"flocker": {"datasetName": "a/b"}}), "spec.volumes[0].flocker.datasetName: Invalid value: \"a/b\": must not contain '/'")]
#[case(json!({"quobyte": {"registry": "r", "volume": "v"}}), "spec.volumes[0].quobyte.registry: Invalid value: \"r\": must be a host:port pair or multiple pairs separated by commas")]
#[case(json!({"portworxVolume": {}}), "spec.volumes[0].portworxVolume.volumeID: Required value")]
#[case(json!({"photonPersistentDisk": {}}), "spec.volumes[0].photonPersistentDisk.pdID: Required value")]
#[case(json!({"storageos": {}}), "spec.volumes[0].storageos.volumeName: Required value")]
#[case(json!({"flexVolume": {"driver": "d", "options": {"kubernetes.io/x": "y"}}}), "spec.volumes[0].flexVolume.options[kubernetes.io/x]: Invalid value: \"kubernetes.io/x\": kubernetes.io and k8s.io namespaces are reserved")]
#[case(json!({"iscsi": {"targetPortal": "1.1.1.1", "iqn": "x", "lun": 0}}), "spec.volumes[0].iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa")]
#[case(json!({"iscsi": {"targetPortal": "1.1.1.1", "iqn": "iqn.2015-02.example.com:test", "lun": 1, "chapAuthDiscovery": true}}), "spec.volumes[0].iscsi.secretRef: Required value")]
#[case(json!({"projected": {"sources": [{"serviceAccountToken": {"path": "../t"}}]}}), "spec.volumes[0].projected.path: Invalid value: \"../t\": must not contain '..'")]
#[case(json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}}}}), "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set")]
fn a_bad_volume_gets_upstreams_words(#[case] volume: Value, #[case] message: &str) {
    let mut named = json!({"name": "v"});
    for (key, value) in volume.as_object().into_iter().flatten() {
        named[key] = value.clone();
    }
    let containers = json!([{"name": "c", "image": "x"}]);
    let spec = json!({"containers": containers, "volumes": [named], "serviceAccountName": "default"});
    assert_eq!(complaint("", pod(spec)), message);
}

#[rstest]
#[case(json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["a"]}]}), "spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set")]
#[case(json!({"securityContext": {"seLinuxChangePolicy": "MountOption"}}), "spec.securityContext.seLinuxChangePolicy: Unsupported value: \"MountOption\": supported values: \"Recursive\"")]
#[case(json!({"securityContext": {"windowsOptions": {"runAsUserName": "a\\b\\c"}}}), "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash")]
#[case(json!({"initContainers": [{"name": "i", "image": "x", "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}]}), "")]
fn a_bad_pod_gets_upstreams_words(#[case] members: Value, #[case] message: &str) {
    let mut spec = json!({"containers": [{"name": "c", "image": "x"}]});
    for (key, value) in members.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    assert_eq!(complaint("", pod(spec)), message);
}

fn autoscaler(spec: Value) -> Value {
    let mut whole =
        json!({"maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}});
    for (key, value) in spec.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x", "namespace": "ns"}, "spec": whole})
}

#[rstest]
#[case(json!({"behavior": {"scaleDown": {"policies": [{}]}}}), "[spec.behavior.scaleDown.policies[0].type: Unsupported value: \"\": supported values: \"Percent\", \"Pods\", spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero, spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 0: must be greater than zero]")]
#[case(json!({"behavior": {"scaleUp": {"selectPolicy": "Odd"}}}), "spec.behavior.scaleUp.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"")]
#[case(json!({"minReplicas": 0}), "[spec.minReplicas: Invalid value: 0: must be greater than or equal to 1, spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas]")]
#[case(json!({"scaleTargetRef": {}}), "[spec.scaleTargetRef.kind: Required value, spec.scaleTargetRef.name: Required value, spec.scaleTargetRef.apiVersion: Invalid value: \"\": apiVersion must specify API group]")]
#[case(json!({"metrics": [{"type": "Odd"}]}), "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\"")]
#[case(json!({"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}), "")]
fn a_bad_autoscaler_gets_upstreams_words(#[case] spec: Value, #[case] message: &str) {
    assert_eq!(complaint("autoscaling", autoscaler(spec)), message);
}

#[rstest]
#[case("networking.k8s.io", json!({"kind": "IngressClass", "spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "scope": "Namespace"}}}), "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'")]
#[case("networking.k8s.io", json!({"kind": "IngressClass", "spec": {"controller": "a.b/c", "parameters": {"kind": "K", "name": "n", "namespace": "x"}}}), "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'")]
#[case("rbac.authorization.k8s.io", json!({"kind": "ClusterRole", "aggregationRule": {}}), "aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required if aggregationRule is non-nil")]
fn a_bad_cluster_object_gets_upstreams_words(#[case] group: &str, #[case] mut value: Value, #[case] message: &str) {
    value["metadata"] = json!({"name": "x"});
    assert_eq!(complaint(group, value), message);
}

#[test]
fn an_update_of_a_pod_may_change_its_image_and_little_else() {
    let rules = rules("", "Pod");
    let mut old = created("", pod_of(json!({})));
    old.metadata_mut().insert("resourceVersion".into(), "1".into());
    let change = |path: &str, value: Value| {
        let mut value_of = old.to_value();
        *value_of.pointer_mut(path).expect("a path of the pod") = value;
        let mut new = object(value_of);
        (rules.prepare_update)(&mut new, &old, "");
        told("", &new, &validate_update(rules, &new, &old, true, ""))
    };
    assert_eq!(change("/spec/containers/0/image", "y".into()), "");
    assert_eq!(change("/status/phase", "Running".into()), "", "the status is not written through this door");
    let refusal = change("/spec/terminationGracePeriodSeconds", 5.into());
    let start = "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,\
                 `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to \
                 existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                 previously negative)\n@@";
    assert!(refusal.starts_with(start), "{refusal}");
}

#[test]
fn no_finalizer_joins_an_object_that_is_going() {
    let rules = rules("", "ConfigMap");
    let config = |finalizers: Value| {
        object(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {
            "name": "c", "namespace": "ns", "resourceVersion": "1", "finalizers": finalizers,
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }}))
    };
    let old = config(json!(["example.com/a"]));
    let errors = validate_update(rules, &config(json!(["example.com/a", "example.com/b"])), &old, true, "");
    assert_eq!(errors.len(), 2, "told by the rules of all objects and by those of the kind");
    let text = "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                new finalizers []string{\"example.com/b\"}";
    assert!(errors.iter().all(|error| error.to_string() == text), "{errors:?}");
    assert!(validate_update(rules, &config(json!([])), &old, true, "").is_empty());
}

#[test]
fn a_locked_config_map_stays_as_it_is() {
    let rules = rules("", "ConfigMap");
    let config = |value: &str| {
        object(json!({"apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": {"a": value},
            "metadata": {"name": "c", "namespace": "ns", "resourceVersion": "1"}}))
    };
    let (old, new) = (config("1"), config("2"));
    let message = told("", &new, &validate_update(rules, &new, &old, true, ""));
    assert_eq!(message, "data: Forbidden: field is immutable when `immutable` is set");
}

#[test]
fn a_service_keeps_its_address_and_may_not_change_it() {
    let rules = rules("", "Service");
    let service = |ip: Option<&str>| {
        let mut service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "namespace": "ns", "resourceVersion": "1"}, "spec": {"ports": [{"port": 80}]},
        });
        if let Some(ip) = ip {
            service["spec"]["clusterIP"] = ip.into();
        }
        service
    };
    let old = created("", service(Some("10.96.0.9")));
    let update = |ip| {
        let mut new = object(service(ip));
        (rules.default)(&mut new);
        (rules.prepare_update)(&mut new, &old, "");
        new
    };
    let kept = update(None);
    assert_eq!(kept.get("spec"), old.get("spec"));
    let moved = update(Some("10.96.0.10"));
    let message = told("", &moved, &validate_update(rules, &moved, &old, true, ""));
    assert_eq!(message, "spec.clusterIPs[0]: Invalid value: [\"10.96.0.10\"]: may not change once set");
}

#[test]
fn a_job_selects_its_pods_by_its_own_uid() {
    let (group, job) = samples().into_iter().find(|(_, value)| value["kind"] == "Job").expect("a job");
    let job = created(group, job).to_value();
    assert_eq!(job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"], "u");
    assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "w");
}

#[rstest]
#[case(
    "",
    "ConfigMap",
    "data.n=b",
    r#""data.n" is not a known field selector: only "metadata.name", "metadata.namespace""#
)]
#[case("", "Pod", "spec.image=x", "field label not supported: spec.image")]
#[case("batch", "Job", "spec.x=1", r#"field label "spec.x" not supported for Job"#)]
#[case(
    "example.com",
    "Widget",
    "spec.x=1",
    r#""spec.x" is not a known field selector: only "metadata.name", "metadata.namespace""#
)]
fn a_field_that_cannot_be_selected_is_told(
    #[case] group: &str,
    #[case] kind: &str,
    #[case] selector: &str,
    #[case] message: &str,
) {
    let selector = FieldSelector::parse(selector).expect("a selector");
    assert_eq!(check_fields(rules(group, kind), &selector, &[]).unwrap_err(), message);
}

#[test]
fn pods_are_selected_by_where_and_how_they_run() {
    let rules = rules("", "Pod");
    let pod = created("", pod_of(json!({})));
    for (selector, matches) in [
        ("status.phase=Pending,spec.nodeName=", true),
        ("spec.restartPolicy!=Always", false),
        ("metadata.namespace=ns,metadata.name=p", true),
        ("spec.hostNetwork=false", true),
    ] {
        let selector = FieldSelector::parse(selector).expect("a selector");
        check_fields(rules, &selector, &[]).expect("known fields");
        assert_eq!(selector.matches(|label| field_value(rules, &pod, label)), matches, "{selector:?}");
    }
}

#[rstest]
#[case(-5, "<invalid>")]
#[case(0, "0s")]
#[case(119, "119s")]
#[case(120, "2m")]
#[case(130, "2m10s")]
#[case(600, "10m")]
#[case(10_800, "3h")]
#[case(11_160, "3h6m")]
#[case(90_000, "25h")]
#[case(180_000, "2d2h")]
#[case(864_000, "10d")]
#[case(63_072_000 + 86_400, "2y1d")]
fn ages_read_as_kubectl_shows_them(#[case] seconds: i64, #[case] shown: &str) {
    let now = Timestamp::from_second(1_000_000_000).expect("a time");
    assert_eq!(age(now - SignedDuration::from_secs(seconds), now), shown);
}

proptest! {
    /// Whatever the shape of what comes, no rule breaks on it.
    #[test]
    fn no_shape_breaks_the_rules(spec in shape(), status in shape(), kind in 0..table::TABLE.len()) {
        let (_, kind, rules) = &table::TABLE[kind];
        let mut object = Object::new("v1", kind, "ns", "n");
        object.set("spec", spec);
        object.set("status", status);
        (rules.default)(&mut object);
        let old = object.clone();
        (rules.prepare_create)(&mut object);
        validate_create(rules, &object, true);
        (rules.prepare_update)(&mut object, &old, "");
        validate_update(rules, &object, &old, true, "");
        for subresource in ["status", "ephemeralcontainers", "resize"] {
            validate_update(rules, &object, &old, true, subresource);
        }
        (rules.warnings)(&object, None);
        (rules.cells)(&object, Timestamp::UNIX_EPOCH);
    }
}

fn shape() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zé/%.=-]{0,6}".prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "containers",
        "initContainers",
        "name",
        "image",
        "resources",
        "limits",
        "requests",
        "cpu",
        "template",
        "spec",
        "metadata",
        "labels",
        "volumes",
        "ports",
        "port",
        "strategy",
        "type",
        "rollingUpdate",
        "maxSurge",
        "selector",
        "matchLabels",
        "behavior",
        "scaleUp",
        "policies",
        "ipFamilies",
        "ipFamilyPolicy",
        "clusterIP",
        "updateStrategy",
        "ephemeral",
        "volumeClaimTemplate",
        "metrics",
        "conditions",
        "containerStatuses",
        "schedule",
        "ingress",
    ]);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(keys.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}
