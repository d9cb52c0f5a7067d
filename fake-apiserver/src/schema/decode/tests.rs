use rstest::rstest;
use serde_json::{Value, json};

use crate::schema::Schema;

fn decode(definition: &str, body: Value) -> Result<(Value, Vec<String>), String> {
    let decoded = Schema::builtin(definition).decode(body)?;
    Ok((decoded.value, decoded.unknown))
}

const CONFIG_MAP: &str = "io.k8s.api.core.v1.ConfigMap";
const POD: &str = "io.k8s.api.core.v1.Pod";

#[rstest]
#[case(CONFIG_MAP, json!({"data": {"a": 1}}),
    "json: cannot unmarshal number into Go struct field ConfigMap.data of type string")]
#[case(CONFIG_MAP, json!({"metadata": {"labels": ["x"]}}),
    "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string")]
#[case(CONFIG_MAP, json!([]), "json: cannot unmarshal array into Go value of type v1.ConfigMap")]
#[case(CONFIG_MAP, json!({"binaryData": {"a": "%"}}), "illegal base64 data at input byte 0")]
#[case(CONFIG_MAP, json!({"binaryData": {"a": "YWJjZA"}}), "illegal base64 data at input byte 4")]
#[case(CONFIG_MAP, json!({"binaryData": {"a": "YQ="}}), "illegal base64 data at input byte 3")]
#[case(CONFIG_MAP, json!({"binaryData": {"a": "YQ==x"}}), "illegal base64 data at input byte 4")]
#[case(CONFIG_MAP, json!({"metadata": {"deletionTimestamp": "2024-13-01T00:00:00Z"}}),
    r#"parsing time "2024-13-01T00:00:00Z": month out of range"#)]
#[case(CONFIG_MAP, json!({"metadata": {"deletionTimestamp": "x"}}),
    r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#)]
#[case(CONFIG_MAP, json!({"metadata": {"deletionTimestamp": 5}}),
    "json: cannot unmarshal number into Go value of type string")]
#[case(POD, json!({"spec": {"containers": [{"image": 1}]}}),
    "json: cannot unmarshal number into Go struct field Container.spec.containers.image of type string")]
#[case(POD, json!({"spec": {"containers": {}}}),
    "json: cannot unmarshal object into Go struct field PodSpec.spec.containers of type []v1.Container")]
#[case(POD, json!({"spec": {"containers": [{"ports": [{"containerPort": 99999999999_i64}]}]}}),
    "json: cannot unmarshal number 99999999999 into Go struct field ContainerPort.spec.containers.ports.containerPort \
     of type int32")]
#[case(POD, json!({"spec": {"containers": [{"resources": {"limits": {"cpu": "lots"}}}]}}),
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
#[case(POD, json!({"spec": {"containers": [{"livenessProbe": {"httpGet": {"port": true}}}]}}),
    "json: cannot unmarshal bool into Go value of type int32")]
fn what_go_cannot_read_is_told_in_its_words(#[case] definition: &str, #[case] body: Value, #[case] text: &str) {
    assert_eq!(decode(definition, body), Err(text.to_owned()));
}

#[test]
fn unknown_members_go_and_are_told_with_their_paths() {
    let body = json!({"bogus": 1, "metadata": {"name": "p", "Name": "q"}, "spec": {"containers": [{"name": "c", "imagee": "x"}]}});
    let (value, unknown) = decode(POD, body).expect("it decodes");
    assert_eq!(unknown, ["bogus", "metadata.Name", "spec.containers[0].imagee"]);
    assert_eq!(value["spec"]["containers"], json!([{"name": "c", "resources": {}}]));
}

#[test]
fn empty_values_vanish_unless_their_type_is_a_pointer() {
    let body = json!({
        "metadata": {"labels": {}, "generateName": "", "creationTimestamp": null},
        "spec": {
            "hostNetwork": false, "automountServiceAccountToken": false, "nodeName": "", "tolerations": [],
            "terminationGracePeriodSeconds": 0, "securityContext": {},
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/", "type": ""}}],
            "containers": [],
        },
    });
    let (value, _) = decode(POD, body).expect("it decodes");
    assert_eq!(value["metadata"], json!({}));
    let spec = json!({
        "automountServiceAccountToken": false, "terminationGracePeriodSeconds": 0, "securityContext": {}, "containers": [],
        "volumes": [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/", "type": ""}}],
    });
    assert_eq!(value["spec"], spec);
    assert_eq!(value["status"], json!({}));
}

#[test]
fn structs_by_value_show_even_when_absent() {
    let (value, _) = decode("io.k8s.api.core.v1.Service", json!({})).expect("it decodes");
    assert_eq!(value, json!({"metadata": {}, "spec": {}, "status": {"loadBalancer": {}}}));
    let (value, _) = decode("io.k8s.api.apps.v1.ReplicaSet", json!({})).expect("it decodes");
    assert_eq!(value["status"], json!({"replicas": 0}));
    let body = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let (value, _) = decode(POD, body).expect("it decodes");
    let condition = json!({"type": "Ready", "status": "True", "lastProbeTime": null, "lastTransitionTime": null});
    assert_eq!(value["status"]["conditions"][0], condition);
}

#[test]
fn quantities_and_times_are_printed_anew() {
    let body = json!({
        "metadata": {"deletionTimestamp": "2024-02-29T12:00:00.5+02:00"},
        "spec": {"containers": [{"name": "c", "resources": {"limits": {"a": 0.5, "b": "1.5Gi", "c": "1024Mi"}}}]},
    });
    let (value, _) = decode(POD, body).expect("it decodes");
    assert_eq!(value["metadata"]["deletionTimestamp"], "2024-02-29T10:00:00Z");
    let limits = &value["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!((&limits["a"], &limits["b"]), (&json!("500m"), &json!("1536Mi")));
}

#[test]
fn null_in_a_map_is_the_zero_value() {
    let (value, _) = decode(CONFIG_MAP, json!({"data": {"a": null}})).expect("it decodes");
    assert_eq!(value["data"], json!({"a": ""}));
}

#[test]
fn managed_fields_and_schemas_hold_anything() {
    let fields = json!({"f:spec": {"f:x": {}}});
    let body = json!({"metadata": {"managedFields": [{"manager": "m", "fieldsV1": fields}]}});
    let (value, unknown) = decode(CONFIG_MAP, body).expect("it decodes");
    assert_eq!(value["metadata"]["managedFields"][0]["fieldsV1"], fields);
    assert!(unknown.is_empty());
    let schema =
        json!({"type": "object", "properties": {"a": {"type": "string", "default": "x", "x-kubernetes-odd": 1}}});
    let body = json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}});
    let (value, _) = decode("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition", body)
        .expect("it decodes");
    assert_eq!(value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["a"]["default"], "x");
}
