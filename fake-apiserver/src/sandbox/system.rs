//! What an installation of the controllers leaves in a cluster beside the definitions: a namespace with a Deployment that
//! looks rolled out. Installers and version probes look for it; the controllers themselves run in this process.
//!
//! Upstream: `k8s/controller.yaml`, `k8s/extensions.controller.yaml`.

use serde_json::{Value, json};

use crate::{
    actor::Api,
    base::{Gvr, Object, Status},
};

/// Namespace of the controllers.
pub(super) const NAMESPACE: &str = "agent-sandbox-system";
/// Service that the definitions name as their conversion webhook.
pub(super) const WEBHOOK: &str = "agent-sandbox-webhook-service";
/// What all else is called.
const NAME: &str = "agent-sandbox-controller";
/// The image that upstream publishes of what is emulated.
pub(super) const IMAGE: &str = "registry.k8s.io/agent-sandbox/agent-sandbox-controller:v0.5.6";

/// Creates the objects; those that exist already are left as they are.
pub(super) async fn install(api: &Api) -> Result<(), (String, Status)> {
    let now = api.clock().now_text();
    for (gvr, object) in objects() {
        let name = object.name().to_owned();
        match api.create(&gvr, object).await {
            Err(status) if !status.is_already_exists() => return Err((name, status)),
            Err(_) => {}
            Ok(made) if gvr.resource == "deployments" => {
                let mut made = made.object().clone();
                made.set("status", rolled_out(made.generation(), &now));
                match api.update(&gvr, made, "status").await {
                    // Where pods run, the deployment's own controller may be quicker, and keeps the true status.
                    Err(status) if !status.is_conflict() => return Err((name, status)),
                    Ok(_) | Err(_) => {}
                }
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

fn objects() -> Vec<(Gvr, Object)> {
    let object = |api_version: &str, kind: &str, name: &str, members: Value| {
        let mut object = Object::new(api_version, kind, NAMESPACE, name);
        object.set_at(&["metadata", "labels"], json!({"app": NAME}));
        for (key, value) in members.as_object().into_iter().flatten() {
            object.set(key, value.clone());
        }
        object
    };
    let service = |name: &str, port: Value| {
        object("v1", "Service", name, json!({"spec": {"selector": {"app": NAME}, "ports": [port]}}))
    };
    let mut webhook = service(WEBHOOK, json!({"name": "webhook", "port": 443, "protocol": "TCP", "targetPort": 9443}));
    webhook.metadata_mut().remove("labels");
    let metrics = json!({"name": "metrics", "port": 8080, "protocol": "TCP", "targetPort": "metrics"});
    let container = json!({
        "name": NAME, "image": IMAGE, "args": ["--leader-elect=true", "--extensions"],
        "ports": [
            {"name": "metrics", "containerPort": 8080, "protocol": "TCP"},
            {"name": "healthz", "containerPort": 8081, "protocol": "TCP"},
            {"name": "webhook", "containerPort": 9443, "protocol": "TCP"},
        ],
    });
    let deployment = json!({"spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"app": NAME}},
        "template": {
            "metadata": {"labels": {"app": NAME}},
            "spec": {"serviceAccountName": NAME, "containers": [container]},
        },
    }});
    vec![
        (Gvr::new("", "v1", "namespaces"), Object::new("v1", "Namespace", "", NAMESPACE)),
        (Gvr::new("", "v1", "serviceaccounts"), object("v1", "ServiceAccount", NAME, json!({}))),
        (Gvr::new("", "v1", "services"), service(NAME, metrics)),
        (Gvr::new("", "v1", "services"), webhook),
        (Gvr::new("apps", "v1", "deployments"), object("apps/v1", "Deployment", NAME, deployment)),
    ]
}

fn rolled_out(generation: i64, now: &str) -> Value {
    let condition = |kind: &str, reason: &str, message: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": message,
            "lastUpdateTime": now, "lastTransitionTime": now,
        })
    };
    json!({
        "observedGeneration": generation,
        "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [
            condition("Available", "MinimumReplicasAvailable", "Deployment has minimum availability."),
            condition("Progressing", "NewReplicaSetAvailable", "ReplicaSet has successfully progressed."),
        ],
    })
}
