//! Webhooks of admission: stories with a small HTTPS server that answers reviews.

use fake_apiserver::cluster::Cluster;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::hook_server::{HookServer, base64};

/// A webhook of admission; it keeps what it was asked.
struct Hooks {
    server: HookServer,
}

impl Hooks {
    /// Answers each review with what `answer` makes of its request: the `response` without its UID.
    async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let review = move |review: &Value| {
            let mut response = answer(&review["request"]);
            response["uid"] = review["request"]["uid"].clone();
            let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
            (200, review.to_string())
        };
        Self { server: HookServer::start(review).await }
    }

    fn client_config(&self) -> Value {
        self.server.client_config()
    }

    fn seen(&self) -> Vec<Value> {
        self.server.seen().into_iter().map(|mut review| review["request"].take()).collect()
    }
}

fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch", "patch": base64(operations.to_string())})
}

async fn cluster() -> (Cluster, Client) {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let client = cluster.client();
    (cluster, client)
}

/// Configures webhooks on config maps of the namespace `default`.
async fn configure(client: &Client, kind: &str, name: &str, hooks: &[(&str, &Value, Value)]) {
    let hooks: Vec<Value> = hooks
        .iter()
        .map(|(name, client, more)| {
            let mut hook = json!({
                "name": name, "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["*"], "resources": ["configmaps"]}],
            });
            hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            hook
        })
        .collect();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let object = json!({"metadata": {"name": name}, "webhooks": hooks});
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn map(name: &str, data: Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": data})).unwrap()
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::default_namespaced(client.clone())
}

fn refusal<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.message),
        other => panic!("no refusal: {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_webhook_sees_each_write_and_refuses_what_it_does_not_like() {
    let (_cluster, client) = cluster().await;
    let hooks = Hooks::start(|request| {
        let object = if request["operation"] == "DELETE" { &request["oldObject"] } else { &request["object"] };
        if object["data"]["size"] == "large" {
            json!({"allowed": false, "status": {"message": "too large", "code": 409, "reason": "Conflict"}})
        } else {
            json!({"allowed": true})
        }
    })
    .await;
    let config = hooks.client_config();
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("size.example.com", &config, json!({}))]).await;
    let maps = maps(&client);
    let error = refusal(maps.create(&PostParams::default(), &map("a", json!({"size": "large"}))).await);
    assert_eq!(error, (409, "admission webhook \"size.example.com\" denied the request: too large".into()));
    maps.create(&PostParams::default(), &map("a", json!({"size": "small"}))).await.unwrap();
    let large = Patch::Merge(json!({"data": {"size": "large"}}));
    refusal(maps.patch("a", &PatchParams::default(), &large).await);
    maps.delete("a", &DeleteParams::default()).await.unwrap();

    let seen = hooks.seen();
    let operations: Vec<_> = seen.iter().map(|request| request["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["CREATE", "CREATE", "UPDATE", "DELETE"]);
    let create = &seen[1];
    assert_eq!(create["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(create["resource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!(
        (&create["name"], &create["namespace"], &create["dryRun"]),
        (&json!("a"), &json!("default"), &json!(false))
    );
    assert_eq!(create["userInfo"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(create["options"]["kind"], "CreateOptions");
    assert_eq!(create["oldObject"], Value::Null);
    assert_eq!(create["object"]["data"]["size"], "small");
    assert_eq!(seen[2]["oldObject"]["data"]["size"], "small");
    assert_eq!(seen[3]["object"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn webhooks_change_an_object_one_after_the_other_and_may_be_asked_again() {
    let (_cluster, client) = cluster().await;
    let counter = |key: &'static str| {
        move |request: &Value| {
            let count = request["object"]["data"][key].as_str().map_or(0, |text| text.parse::<u32>().unwrap()) + 1;
            patch(&json!([{"op": "add", "path": format!("/data/{key}"), "value": count.to_string()}]))
        }
    };
    let (first, second) = (Hooks::start(counter("a")).await, Hooks::start(counter("b")).await);
    let (a, b) = (first.client_config(), second.client_config());
    // the configuration of the second is the first by name
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    configure(&client, "MutatingWebhookConfiguration", "m-2", &[("b.example.com", &b, json!({}))]).await;
    configure(&client, "MutatingWebhookConfiguration", "m-1", &[("a.example.com", &a, again)]).await;
    let made = maps(&client).create(&PostParams::default(), &map("m", json!({"x": "y"}))).await.unwrap();
    let data = serde_json::to_value(made.data.unwrap()).unwrap();
    assert_eq!(data, json!({"x": "y", "a": "2", "b": "1"}), "b changed what a had seen, and so a was asked again");
    assert_eq!(second.seen()[0]["object"]["data"]["a"], "1");
    assert_eq!((first.seen().len(), second.seen().len()), (2, 1));
}

#[rstest]
#[case::equal_rules(json!({}), true)]
#[case::other_labels(json!({"objectSelector": {"matchLabels": {"no": "such"}}}), false)]
#[case::other_namespace(json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}), false)]
#[case::condition_holds(json!({"matchConditions": [{"name": "c", "expression": "request.userInfo.username != ''"}]}), true)]
#[case::condition_fails(json!({"matchConditions": [{"name": "c", "expression": "'z' in object.data"}]}), false)]
#[case::cluster_scope(json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"],
    "resources": ["*"], "scope": "Cluster"}]}), false)]
#[case::all_of_everything(json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
    "resources": ["*/*"]}]}), true)]
#[tokio::test(start_paused = true)]
async fn a_webhook_is_asked_where_it_matches(#[case] more: Value, #[case] asked: bool) {
    let (_cluster, client) = cluster().await;
    let hooks = Hooks::start(|_| json!({"allowed": true})).await;
    let config = hooks.client_config();
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("v.example.com", &config, more)]).await;
    maps(&client).create(&PostParams::default(), &map("m", json!({"a": "b"}))).await.unwrap();
    assert_eq!(hooks.seen().len(), usize::from(asked));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_cannot_be_reached_stops_writes_unless_it_may_fail() {
    let (_cluster, client) = cluster().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap(); // closed at once
    let config = json!({"url": format!("https://{nobody}/x")});
    let open = json!({"failurePolicy": "Ignore"});
    configure(&client, "ValidatingWebhookConfiguration", "open", &[("open.example.com", &config, open)]).await;
    maps(&client).create(&PostParams::default(), &map("a", json!({}))).await.unwrap();
    configure(&client, "ValidatingWebhookConfiguration", "shut", &[("shut.example.com", &config, json!({}))]).await;
    let error = refusal(maps(&client).create(&PostParams::default(), &map("b", json!({}))).await);
    let message = format!(
        "Internal error occurred: failed calling webhook \"shut.example.com\": failed to call webhook: Post \
         \"https://{nobody}/x?timeout=10s\": dial tcp {nobody}: connect: connection refused"
    );
    assert_eq!(error, (500, message));
}

#[tokio::test(start_paused = true)]
async fn a_webhook_behind_a_service_that_is_not_there_cannot_be_reached() {
    let (_cluster, client) = cluster().await;
    let config = json!({"service": {"namespace": "default", "name": "hooks"}});
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("v.example.com", &config, json!({}))]).await;
    let (_, message) = refusal(maps(&client).create(&PostParams::default(), &map("b", json!({}))).await);
    let end = "Post \"https://hooks.default.svc:443/?timeout=10s\": service \"hooks\" not found";
    assert!(message.ends_with(end), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_webhook_is_trusted_by_its_bundle_alone() {
    let (_cluster, client) = cluster().await;
    let (hooks, others) = (Hooks::start(|_| json!({"allowed": true})).await, Hooks::start(|_| json!({})).await);
    let config = json!({"url": hooks.server.url, "caBundle": others.server.ca});
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("v.example.com", &config, json!({}))]).await;
    let (code, message) = refusal(maps(&client).create(&PostParams::default(), &map("b", json!({}))).await);
    let end = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    assert!(code == 500 && message.ends_with(end), "{message}");
    assert!(hooks.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_webhook_that_hangs_holds_up_only_what_it_is_asked_about() {
    let (_cluster, client) = cluster().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap(); // takes connections and says nothing
    let config = json!({"url": format!("https://{}/x", silent.local_addr().unwrap())});
    let short = json!({"timeoutSeconds": 1});
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("v.example.com", &config, short)]).await;
    let (held, parameters) = (maps(&client), PostParams::default());
    let held_map = map("held", json!({}));
    let held = held.create(&parameters, &held_map);
    let elsewhere: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let free_map = map("free", json!({}));
    let free = elsewhere.create(&parameters, &free_map);
    let mut held = std::pin::pin!(held);
    tokio::select! {
        biased;
        result = &mut held => panic!("the hanging webhook answered: {result:?}"),
        free = free => { free.unwrap(); }
    }
    let (_, message) = refusal(held.await);
    assert!(message.ends_with("/x?timeout=1s\": context deadline exceeded"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_is_told_as_such_and_a_wrong_answer_is_a_failure() {
    let (_cluster, client) = cluster().await;
    let hooks =
        Hooks::start(|request| if request["dryRun"] == true { json!({"allowed": true}) } else { patch(&json!([])) })
            .await;
    let config = hooks.client_config();
    configure(&client, "ValidatingWebhookConfiguration", "v", &[("v.example.com", &config, json!({}))]).await;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps(&client).create(&dry, &map("m", json!({}))).await.unwrap();
    let (code, message) = refusal(maps(&client).create(&PostParams::default(), &map("m", json!({}))).await);
    let end = "received invalid webhook response: validating webhook may not return response.patch";
    assert!(code == 500 && message.ends_with(end), "{message}");
}
