//! What is neither an object nor a watch: bodies in protobuf, health, metrics, OpenAPI v2.

use serde_json::json;

use crate::raw::Door;

const PROTOBUF: &str = "Content-Type: application/vnd.kubernetes.protobuf\r\n\
                        Accept: application/vnd.kubernetes.protobuf,application/json\r\n";
const NAMESPACE: &[u8] = include_bytes!("../../../fixtures/protobuf/namespace.pb");
const OPTIONS: &[u8] = include_bytes!("../../../fixtures/protobuf/delete-options.pb");

#[tokio::test]
async fn a_client_that_sends_protobuf_is_understood_and_answered_in_json() {
    let door = Door::open().await;
    let created = door.request("POST", "/api/v1/namespaces", PROTOBUF, NAMESPACE).await;
    assert_eq!(created.code, 201, "{created:?}");
    assert_eq!(created.json()["metadata"]["name"], "tour");
    assert_eq!(created.json()["status"]["phase"], "Active");
    let again = door.request("POST", "/api/v1/namespaces", PROTOBUF, NAMESPACE).await;
    assert_eq!((again.code, again.message().as_str()), (409, "namespaces \"tour\" already exists"));
    let refused = door.request("DELETE", "/api/v1/namespaces/tour", PROTOBUF, OPTIONS).await;
    assert_eq!(refused.code, 409, "the options' precondition is another UID: {refused:?}");
    let misplaced = door.request("POST", "/api/v1/namespaces/tour/configmaps", PROTOBUF, NAMESPACE).await;
    assert_eq!(
        misplaced.message(),
        "Namespace in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Namespace) to (core.ConfigMap): unknown \
         conversion"
    );
}

#[tokio::test]
async fn a_custom_kind_is_never_protobuf() {
    let door = Door::open().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }}}],
        },
    });
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let json = "Content-Type: application/json\r\n";
    assert_eq!(door.request("POST", path, json, definition.to_string().as_bytes()).await.code, 201);
    let refused = door.request("POST", "/apis/example.com/v1/widgets", PROTOBUF, NAMESPACE).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            400,
            "Namespace in version \"v1\" cannot be handled as a Widget: Object 'Kind' is missing in 'object has no kind field '"
        )
    );
}

#[tokio::test]
async fn what_was_asked_and_what_is_stored_shows_in_the_metrics() {
    let door = Door::open().await;
    door.request("POST", "/api/v1/namespaces", PROTOBUF, NAMESPACE).await;
    door.request("GET", "/api/v1/namespaces/nobody", "", b"").await;
    let metrics = door.request("GET", "/metrics", "", b"").await;
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let text = String::from_utf8(metrics.body).unwrap();
    let pairs = r#"component="apiserver",dry_run="",group="",resource="namespaces",scope="resource",subresource="""#;
    for line in [
        format!("apiserver_request_total{{code=\"201\",{pairs},verb=\"POST\",version=\"v1\"}} 1"),
        format!("apiserver_request_total{{code=\"404\",{pairs},verb=\"GET\",version=\"v1\"}} 1"),
        "apiserver_resource_objects{group=\"\",resource=\"namespaces\"} 5".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn health_is_told_to_any_method_and_only_at_its_own_paths() {
    let door = Door::open().await;
    for (method, path, code) in [("GET", "/readyz", 200), ("POST", "/livez", 200), ("GET", "/readyz/", 404)] {
        assert_eq!(door.request(method, path, "", b"").await.code, code, "{method} {path}");
    }
}

#[tokio::test]
async fn the_schemas_are_one_document_of_openapi_v2_too() {
    let door = Door::open().await;
    let answer = door.request("GET", "/openapi/v2", "", b"").await;
    let document = answer.json();
    assert_eq!(document["swagger"], "2.0");
    let pod = &document["definitions"]["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["properties"]["spec"]["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    assert_eq!(
        pod["description"],
        "Pod is a collection of containers that can run on a host. This resource is created by clients and scheduled onto \
         hosts."
    );
    assert_eq!(pod["required"], json!(null));
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"].is_object());
    let protobuf = "Accept: application/com.github.proto-openapi.spec.v2@v1.0+protobuf\r\n";
    assert_eq!(door.request("GET", "/openapi/v2", protobuf, b"").await.code, 406);
}
