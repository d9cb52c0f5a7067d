//! What a health check finds, and what it advises.

use std::convert::Infallible;

use agent_sandbox_sdk::{
    AgentSandboxClient,
    health::{Topic, Verdict},
};
use anyhow::Result;
use fake_apiserver::cluster::Cluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::our_definitions;

fn verdicts(health: &agent_sandbox_sdk::health::Health, topic: Topic) -> Vec<Verdict> {
    health.about(topic).map(|row| row.verdict).collect()
}

async fn workload(cluster: &Cluster, kind: &str, name: &str, labels: Value, image: &str) -> Result<()> {
    let selector = json!({"matchLabels": {"a": "b"}});
    let pods = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let object = json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "labels": labels},
        "spec": {"serviceName": name, "selector": selector, "template": pods, "replicas": 1}});
    let mut object: DynamicObject = serde_json::from_value(object)?;
    if kind == "Deployment" {
        object.data["spec"].as_object_mut().expect("a spec").remove("serviceName");
    }
    let gvk = kube::api::GroupVersionKind::gvk("apps", "v1", kind);
    let api = Api::<DynamicObject>::default_namespaced_with(cluster.client(), &kube::api::ApiResource::from_gvk(&gvk));
    api.create(&PostParams::default(), &object).await?;
    let status = Patch::Merge(json!({"status": {"replicas": 1, "readyReplicas": 1}}));
    api.patch_status(name, &PatchParams::default(), &status).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_empty_cluster_is_told_what_it_lacks_and_a_full_one_is_healthy() -> Result<()> {
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let health = client.in_namespace("nowhere").health().await;
    assert!(!health.is_healthy());
    assert_eq!(verdicts(&health, Topic::Cluster), [Verdict::Good]);
    assert_eq!(verdicts(&health, Topic::Kinds), [Verdict::Bad; 4]);
    assert_eq!(verdicts(&health, Topic::Controller), [Verdict::Bad]);
    assert_eq!(verdicts(&health, Topic::Namespace), [Verdict::Bad]);
    for row in health.rows.iter().filter(|row| row.verdict == Verdict::Bad) {
        assert!(!row.advice.is_empty(), "{row}");
    }

    let definitions = Api::<CustomResourceDefinition>::all(cluster.client());
    for crd in our_definitions() {
        definitions.create(&PostParams::default(), &crd).await?;
    }
    workload(
        &cluster,
        "Deployment",
        "agent-sandbox-controller",
        json!({}),
        "registry.k8s.io/agent-sandbox/agent-sandbox-controller:v0.5.6",
    )
    .await?;
    let health = client.health().await;
    assert!(health.is_healthy(), "{health}");
    let controller = health.about(Topic::Controller).next().expect("a row");
    assert!(controller.found.contains("agent-sandbox-controller:v0.5.6"), "{controller}");
    assert!(health.about(Topic::Kinds).all(|row| row.found.ends_with("v1beta1")), "{health}");
    cluster.shutdown().await;
    Ok(())
}

/// P2-18: the predecessor knew one label, which upstream does not use.
#[tokio::test(start_paused = true)]
async fn the_controller_is_found_however_it_was_installed() -> Result<()> {
    let chart = json!({"app.kubernetes.io/name": "agent-sandbox", "app.kubernetes.io/instance": "prod"});
    for (kind, name, labels, image) in [
        ("StatefulSet", "agent-sandbox-controller", json!({}), "ko.local/x:1"),
        ("Deployment", "renamed", json!({"app": "agent-sandbox-controller"}), "ko.local/x:1"),
        ("Deployment", "prod-agent-sandbox", chart, "mirror:5000/a/agent-sandbox-controller@sha256:0"),
        ("Deployment", "operator", json!({}), "quay.io/b/agent-sandbox-controller:v0.5.0"),
    ] {
        let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
        workload(&cluster, "Deployment", "other", json!({"app.kubernetes.io/name": "agent-sandbox-ui"}), "ui:1")
            .await?;
        workload(&cluster, kind, name, labels, image).await?;
        let health = AgentSandboxClient::new(cluster.client()).health().await;
        let row = health.about(Topic::Controller).next().expect("a row");
        assert!(row.verdict == Verdict::Good && row.found.contains(&format!("{kind} default/{name}")), "{row}");
        cluster.shutdown().await;
    }
    Ok(())
}

/// A server that answers as a test wants.
fn answering(answer: impl Fn(&str) -> (u16, Value) + Clone + Send + 'static) -> AgentSandboxClient {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (code, body) = answer(request.uri().path());
        async move {
            let body = kube::client::Body::from(body.to_string().into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(code).body(body).expect("an answer"))
        }
    });
    AgentSandboxClient::new(kube::Client::new(service, "default"))
}

#[tokio::test(start_paused = true)]
async fn a_caller_without_rights_gets_unknown_rows_and_the_list_of_what_is_missing() -> Result<()> {
    let client = answering(|path| {
        let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {},
            "status": {"allowed": false}});
        match path {
            "/version" => (
                200,
                json!({"major": "1", "minor": "36", "gitVersion": "v1.36.3", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            ),
            path if path.ends_with("selfsubjectaccessreviews") => (201, review),
            _ => (
                403,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "forbidden: no", "reason": "Forbidden", "code": 403}),
            ),
        }
    });
    let health = client.health().await;
    for topic in [Topic::Kinds, Topic::Definitions, Topic::Controller, Topic::Namespace, Topic::RuntimeClasses] {
        assert!(verdicts(&health, topic).iter().all(|verdict| *verdict == Verdict::Unknown), "{health}");
    }
    let permissions = health.about(Topic::Permissions).next().expect("a row");
    assert_eq!(permissions.verdict, Verdict::Bad);
    assert!(
        permissions.found.contains("create pods/exec") && permissions.found.contains("create sandboxes"),
        "{permissions}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_review_access_is_an_unknown_and_one_that_is_down_is_one_row() -> Result<()> {
    let not_there =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not implemented", "code": 501});
    let down = answering(move |_| (501, not_there.clone())).health().await;
    assert_eq!(down.rows.len(), 1);
    assert!(!down.is_healthy() && down.rows[0].found.contains("not implemented"), "{down}");
    Ok(())
}
