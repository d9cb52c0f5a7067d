//! Conversion webhooks over the network: stories with a kind whose `spec.host` of `v1` is `hostname` and `port` in `v2`.
//!
//! The messages are a kube-apiserver 1.36.3's, asked with a webhook that answers as these do.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use fake_apiserver::cluster::{Cluster, ClusterBuilder};
use futures::{StreamExt, TryStreamExt};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    core::{ApiResource, GroupVersionKind},
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::hook_server::HookServer;

const GROUP: &str = "g.example.com";

fn convert(object: &Value, to: &str) -> Value {
    let mut object = object.clone();
    object["apiVersion"] = to.into();
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return object };
    if to.ends_with("v2") {
        if let Some(host) = spec.remove("host") {
            let (name, port) = host.as_str().unwrap().split_once(':').unwrap();
            spec.extend([("hostname".into(), name.into()), ("port".into(), port.into())]);
        }
    } else if let Some(name) = spec.remove("hostname") {
        let port = spec.remove("port").unwrap_or_else(|| "0".into());
        spec.insert("host".into(), format!("{}:{}", name.as_str().unwrap(), port.as_str().unwrap()).into());
    }
    object
}

/// The answer of a webhook that does its work.
fn good(review: &Value) -> Value {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().unwrap();
    let objects: Vec<_> = request["objects"].as_array().unwrap().iter().map(|object| convert(object, to)).collect();
    json!({
        "apiVersion": review["apiVersion"], "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects},
    })
}

/// A cluster that serves the kind with this webhook.
async fn cluster(client_config: Value, reviews: &[&str]) -> (Cluster, Client) {
    cluster_of(Cluster::builder(), client_config, reviews).await
}

async fn cluster_of(builder: ClusterBuilder, client_config: Value, reviews: &[&str]) -> (Cluster, Client) {
    let cluster = builder.kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let client = cluster.client();
    let version = |name: &str, members: Value, storage: bool| {
        let spec = json!({"type": "object", "properties": members});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
    };
    let text = json!({"type": "string"});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("hosts.{GROUP}")},
        "spec": {
            "group": GROUP, "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
            "versions": [
                version("v1", json!({"host": text, "note": text}), true),
                version("v2", json!({"hostname": text, "port": text, "note": text}), false),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {"clientConfig": client_config, "conversionReviewVersions": reviews},
            },
        },
    });
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"));
    let definitions: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    definitions.create(&PostParams::default(), &serde_json::from_value(definition).unwrap()).await.unwrap();
    (cluster, client)
}

fn hosts(client: &Client, version: &str) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk(GROUP, version, "Host");
    Api::default_namespaced_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "hosts"))
}

fn host(version: &str, name: &str, spec: Value) -> DynamicObject {
    let object = json!({
        "apiVersion": format!("{GROUP}/{version}"), "kind": "Host", "metadata": {"name": name}, "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

async fn make(client: &Client, version: &str, name: &str, spec: Value) -> DynamicObject {
    hosts(client, version).create(&PostParams::default(), &host(version, name, spec)).await.unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn each_version_of_an_object_shows_what_is_written_in_the_other() {
    let hook = HookServer::start(|review| (200, good(review).to_string())).await;
    let (_cluster, client) = cluster(hook.client_config(), &["v7", "v1"]).await;
    let (v1, v2) = (hosts(&client, "v1"), hosts(&client, "v2"));
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    assert!(hook.seen().is_empty(), "what is stored as it is needs no conversion");
    let made = make(&client, "v2", "b", json!({"hostname": "two", "port": "2"})).await;
    assert_eq!(made.data["spec"], json!({"hostname": "two", "port": "2"}));
    let asked = &hook.seen()[0];
    assert_eq!(asked["apiVersion"], "apiextensions.k8s.io/v1");
    assert_eq!(asked["request"]["desiredAPIVersion"], "g.example.com/v1");
    let sent = &asked["request"]["objects"][0];
    assert_eq!((&sent["apiVersion"], &sent["spec"]["port"]), (&json!("g.example.com/v2"), &json!("2")));
    assert_eq!(sent["metadata"].get("resourceVersion"), None);
    assert!(sent["metadata"]["managedFields"][0]["fieldsV1"].is_object());

    assert_eq!(v1.get("b").await.unwrap().data["spec"], json!({"host": "two:2"}));
    assert_eq!(v2.get("a").await.unwrap().data["spec"], json!({"hostname": "one", "port": "1"}));
    let patch = Patch::Merge(json!({"spec": {"port": "3"}}));
    let patched = v2.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(patched.data["spec"], json!({"hostname": "one", "port": "3"}));
    assert_eq!(v1.get("a").await.unwrap().data["spec"], json!({"host": "one:3"}));
    let before = v1.get("a").await.unwrap().metadata.resource_version;
    v2.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert_eq!(v1.get("a").await.unwrap().metadata.resource_version, before, "the same again is no write");

    let reviews = hook.seen().len();
    let list = v2.list(&ListParams::default()).await.unwrap();
    assert_eq!(list.items.len(), 2);
    assert_eq!(hook.seen().len(), reviews + 1, "a list is asked about at once");
    assert_eq!(hook.seen()[reviews]["request"]["objects"].as_array().unwrap().len(), 2);
    v2.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(v1.get_opt("a").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_watch_in_another_version_waits_until_the_webhook_can_convert() {
    let fails = Arc::new(Mutex::new(false));
    let failing = fails.clone();
    let answer = move |review: &Value| {
        if *failing.lock().unwrap() { (500, "no".into()) } else { (200, good(review).to_string()) }
    };
    let hook = HookServer::start(answer).await;
    let (cluster, client) = cluster(hook.client_config(), &["v1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    let watch = hosts(&client, "v2").watch(&WatchParams::default(), "0").await.unwrap();
    let shown = watch.try_filter_map(|event| async {
        Ok(match event {
            WatchEvent::Added(object) => Some(format!("added {}", object.data["spec"])),
            WatchEvent::Modified(object) => Some(format!("modified {}", object.data["spec"])),
            WatchEvent::Deleted(object) => Some(format!("deleted {}", object.data["spec"])),
            WatchEvent::Bookmark(_) => None,
            WatchEvent::Error(error) => panic!("{error:?}"),
        })
    });
    let mut shown = std::pin::pin!(shown);
    assert_eq!(shown.next().await.unwrap().unwrap(), r#"added {"hostname":"one","port":"1"}"#);
    *fails.lock().unwrap() = true;
    make(&client, "v1", "b", json!({"host": "two:2"})).await;
    let silence = cluster.clock().timeout(Duration::from_secs(10), shown.next()).await;
    assert!(silence.is_none(), "{silence:?}");
    let (code, message) = refusal(hosts(&client, "v2").list(&ListParams::default()).await);
    assert_eq!(code, 500);
    assert!(message.starts_with("conversion webhook for g.example.com/v1, Kind=Host failed: "), "{message}");
    *fails.lock().unwrap() = false;
    assert_eq!(shown.next().await.unwrap().unwrap(), r#"added {"hostname":"two","port":"2"}"#);
    hosts(&client, "v1").delete("a", &DeleteParams::default()).await.unwrap();
    assert_eq!(shown.next().await.unwrap().unwrap(), r#"deleted {"hostname":"one","port":"1"}"#);
}

#[tokio::test(start_paused = true)]
async fn owners_are_known_in_the_version_that_they_wrote_in() {
    let hook = HookServer::start(|review| (200, good(review).to_string())).await;
    let (_cluster, client) = cluster(hook.client_config(), &["v1"]).await;
    let apply = |version: &'static str, manager: &'static str, spec: Value, force: bool| {
        let api = hosts(&client, version);
        let mut params = PatchParams::apply(manager);
        params.force = force;
        async move { api.patch("a", &params, &Patch::Apply(&host(version, "a", spec))).await }
    };
    apply("v1", "one", json!({"host": "one:1"}), false).await.unwrap();
    let (code, message) = refusal(apply("v2", "two", json!({"hostname": "two"}), false).await);
    let conflict = r#"Apply failed with 1 conflict: conflict with "one": .spec.host"#;
    assert_eq!((code, message.as_str()), (409, conflict));
    let taken = apply("v2", "two", json!({"hostname": "two"}), true).await.unwrap();
    assert_eq!(taken.data["spec"], json!({"hostname": "two", "port": "1"}));
    let managers: Vec<_> =
        taken.metadata.managed_fields.unwrap().into_iter().filter_map(|entry| entry.manager).collect();
    assert_eq!(managers, ["two"]);
}

type Break = fn(&mut Value);

const FAILED: &str = "conversion webhook for g.example.com/v1, Kind=Host failed: ";
const RETURNED: &str = "conversion webhook for g.example.com/v1, Kind=Host returned ";

#[rstest]
#[case::other_name(|a: &mut Value| a["response"]["convertedObjects"][0]["metadata"]["name"] = "other".into(),
    RETURNED, "invalid object: must have the same name: a != other")]
#[case::no_metadata(|a: &mut Value| { a["response"]["convertedObjects"][0].as_object_mut().unwrap().remove("metadata"); },
    RETURNED, "invalid object: must have the same name: a != ")]
#[case::label_of_another_type(|a: &mut Value| a["response"]["convertedObjects"][0]["metadata"]["labels"] = json!({"a": 5}),
    RETURNED, "invalid metadata: metadata.labels[a] must be a string, but is int64 in converted object")]
#[case::label_of_another_form(|a: &mut Value| a["response"]["convertedObjects"][0]["metadata"]["labels"] = json!({"a b": "x"}),
    RETURNED, "invalid metadata: metadata.labels: Invalid value: \"a b\": name part must consist of alphanumeric characters, \
    '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
    regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')")]
#[case::other_version(|a: &mut Value| a["response"]["convertedObjects"][0]["apiVersion"] = "g.example.com/v9".into(),
    RETURNED, "invalid object at index 0: invalid groupVersion (expected g.example.com/v2, received g.example.com/v9)")]
#[case::other_kind(|a: &mut Value| a["response"]["convertedObjects"][0]["kind"] = "Nope".into(),
    RETURNED, "invalid object at index 0: invalid kind (expected Host, received Nope)")]
#[case::too_few(|a: &mut Value| a["response"]["convertedObjects"] = json!([]), RETURNED, "0 objects, expected 1")]
#[case::no_object(|a: &mut Value| a["response"]["convertedObjects"] = json!([5]),
    "", "json: cannot unmarshal number into Go value of type map[string]interface {}")]
#[case::refusal(|a: &mut Value| a["response"]["result"] = json!({"status": "Failure", "message": "no way"}), FAILED, "no way")]
#[case::refusal_without_a_word(|a: &mut Value| a["response"]["result"] = json!({"status": "Failure"}),
    FAILED, "response.result.status was 'Failure', not 'Success'")]
#[case::no_result(|a: &mut Value| a["response"]["result"] = json!({}), FAILED, "response.result.status was '', not 'Success'")]
#[case::no_response(|a: &mut Value| { a.as_object_mut().unwrap().remove("response"); }, FAILED, "no response provided")]
#[case::other_review(|a: &mut Value| a["apiVersion"] = "apiextensions.k8s.io/v1beta1".into(),
    FAILED, "converting (v1beta1.ConversionReview) to (v1.ConversionReview): unknown conversion")]
#[case::unknown_review(|a: &mut Value| a["kind"] = "Foo".into(), FAILED, "no kind \"Foo\" is registered for version \
    \"apiextensions.k8s.io/v1\" in scheme \"pkg/runtime/scheme.go:111\"")]
#[case::no_review(|a: &mut Value| *a = json!({}),
    FAILED, "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind=")]
#[case::a_text(|a: &mut Value| *a = "hello".into(), FAILED, "couldn't get version/kind; json parse error: json: cannot unmarshal string \
    into Go value of type struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
    \"json:\\\"kind,omitempty\\\"\" }")]
#[tokio::test(start_paused = true)]
async fn a_wrong_answer_is_refused_with_what_is_wrong(#[case] wrong: Break, #[case] start: &str, #[case] end: &str) {
    let hook = HookServer::start(move |review| {
        let mut answer = good(review);
        wrong(&mut answer);
        (200, answer.to_string())
    })
    .await;
    let (_cluster, client) = cluster(hook.client_config(), &["v1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    assert_eq!(refusal(hosts(&client, "v2").get("a").await), (500, format!("{start}{end}")));
    hosts(&client, "v1").get("a").await.unwrap();
}

#[rstest]
#[case(200, "", "0-length response with status code: 200 and content type: application/json")]
#[case(500, "boom", "an error on the server (\"unknown\") has prevented the request from succeeding")]
#[case(404, "", "the server could not find the requested resource")]
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_review_fails(#[case] code: u16, #[case] body: &'static str, #[case] why: &str) {
    let hook = HookServer::start(move |_| (code, body.into())).await;
    let (_cluster, client) = cluster(hook.client_config(), &["v1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    assert_eq!(refusal(hosts(&client, "v2").get("a").await), (500, format!("{FAILED}{why}")));
}

#[tokio::test(start_paused = true)]
async fn with_nobody_to_convert_only_the_stored_version_can_be_used() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(); // closed at once
    let (_cluster, client) = cluster(json!({"url": format!("https://{nobody}/c")}), &["v1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    let v2 = hosts(&client, "v2");
    let refused = |version: &str| {
        format!(
            "conversion webhook for g.example.com/{version}, Kind=Host failed: Post \"https://{nobody}/c?timeout=30s\": dial \
             tcp {nobody}: connect: connection refused"
        )
    };
    let new = host("v2", "b", json!({"hostname": "two"}));
    assert_eq!(refusal(v2.create(&PostParams::default(), &new).await), (500, refused("v2")));
    assert_eq!(refusal(v2.get("a").await), (500, refused("v1")));
    let patch = Patch::Merge(json!({"spec": {"port": "3"}}));
    assert_eq!(refusal(v2.patch("a", &PatchParams::default(), &patch).await), (500, refused("v1")));
    assert_eq!(refusal(v2.delete("a", &DeleteParams::default()).await), (500, refused("v1")));
    let never = format!("storage is (re)initializing: failed to list g.example.com/v2, Kind=Host: {}", refused("v1"));
    assert_eq!(refusal(v2.list(&ListParams::default()).await), (429, never.clone()));
    assert_eq!(refusal(v2.list(&ListParams::default().limit(1)).await), (500, refused("v1")));
    let Err(kube::Error::Api(status)) = v2.watch(&WatchParams::default(), "0").await.map(|_| ()) else {
        panic!("the watch began");
    };
    assert_eq!((status.code, status.message), (429, never));
    let changed = Patch::Merge(json!({"spec": {"note": "here"}}));
    hosts(&client, "v1").patch("a", &PatchParams::default(), &changed).await.unwrap();
    hosts(&client, "v1").delete("a", &DeleteParams::default()).await.unwrap();
}

// The clock of a paused runtime stands still while a webhook is asked; one that is held can be moved.
#[tokio::test]
async fn a_webhook_has_thirty_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections and says nothing
    let url = format!("https://{}/c", silent.local_addr().unwrap());
    let (cluster, client) = cluster_of(Cluster::builder().virtual_time(), json!({"url": url}), &["v1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    let v2 = hosts(&client, "v2");
    let get = tokio::spawn(async move { v2.get("a").await });
    let _asked = silent.accept().await.unwrap();
    cluster.clock().advance(Duration::from_secs(31)).await;
    let late = format!("{FAILED}Post \"{url}?timeout=30s\": context deadline exceeded");
    assert_eq!(refusal(get.await.unwrap()), (500, late));
}

#[tokio::test(start_paused = true)]
async fn a_service_leads_to_its_webhook_by_its_external_name() {
    let hook = HookServer::start(|review| (200, good(review).to_string())).await;
    let port = hook.port();
    let config = json!({
        "service": {"namespace": "default", "name": "hooks", "path": "/convert", "port": port}, "caBundle": hook.ca,
    });
    let (_cluster, client) = cluster(config, &["v1beta1"]).await;
    make(&client, "v1", "a", json!({"host": "one:1"})).await;
    let v2 = hosts(&client, "v2");
    let (_, message) = refusal(v2.get("a").await);
    let post = format!("{FAILED}Post \"https://hooks.default.svc:{port}/convert?timeout=30s\": ");
    assert_eq!(message, format!("{post}service \"hooks\" not found"));

    let services: Api<k8s_openapi::api::core::v1::Service> = Api::default_namespaced(client.clone());
    let service = |spec: Value| serde_json::from_value(json!({"metadata": {"name": "hooks"}, "spec": spec})).unwrap();
    services.create(&PostParams::default(), &service(json!({"ports": [{"port": port}]}))).await.unwrap();
    let (_, message) = refusal(v2.get("a").await);
    assert!(message.starts_with(&post) && message.ends_with(": connect: connection refused"), "{message}");
    services.delete("hooks", &DeleteParams::default()).await.unwrap();
    let outside = service(json!({"type": "ExternalName", "externalName": "localhost"}));
    services.create(&PostParams::default(), &outside).await.unwrap();
    assert_eq!(v2.get("a").await.unwrap().data["spec"], json!({"hostname": "one", "port": "1"}));
    assert_eq!(hook.seen()[0]["apiVersion"], "apiextensions.k8s.io/v1beta1");
}
