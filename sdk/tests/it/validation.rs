//! What `validate` says is what the server says.

use agent_sandbox_sdk::validation::validate_json;
use anyhow::{Context, Result};
use fake_apiserver::cluster::Cluster;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, PostParams},
};
use serde_json::{Value, json};

fn object(kind: &str, version: &str, spec: Value) -> Value {
    let group = if kind == "Sandbox" { "agents.x-k8s.io" } else { "extensions.agents.x-k8s.io" };
    json!({"apiVersion": format!("{group}/{version}"), "kind": kind, "metadata": {"name": "a"}, "spec": spec})
}

/// Bad objects of every kind; what is wrong with each is for the server to say.
fn bad() -> Vec<Value> {
    let main = json!({"name": "main", "image": "x"});
    let pods = json!({"spec": {"containers": [main]}});
    let mut all = vec![
        object("Sandbox", "v1beta1", json!({})),
        object("Sandbox", "v1beta1", json!({"podTemplate": {"spec": {}}})),
        object("Sandbox", "v1beta1", json!({"podTemplate": {"spec": {"containers": [{"image": "x"}]}}})),
        object("Sandbox", "v1beta1", json!({"podTemplate": {"spec": {"containers": [main, main]}}})),
        object(
            "Sandbox",
            "v1beta1",
            json!({"podTemplate": pods, "operatingMode": "Asleep", "shutdownPolicy": "Never"}),
        ),
        object(
            "Sandbox",
            "v1beta1",
            json!({"podTemplate": {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 1}, {"containerPort": 1, "protocol": "TCP"}]}]}}}),
        ),
        object("Sandbox", "v1alpha1", json!({"podTemplate": pods, "replicas": 2})),
        object("Sandbox", "v1alpha1", json!({"podTemplate": pods, "replicas": -1})),
        object("SandboxTemplate", "v1beta1", json!({"podTemplate": pods, "networkPolicyManagement": "Off"})),
        object("SandboxTemplate", "v1beta1", json!({"podTemplate": pods, "envVarsInjectionPolicy": ""})),
        object("SandboxClaim", "v1beta1", json!({})),
        object("SandboxClaim", "v1beta1", json!({"warmPoolRef": {}})),
        object("SandboxClaim", "v1beta1", json!({"warmPoolRef": {"name": "p"}, "env": [{"name": "A"}]})),
        object(
            "SandboxClaim",
            "v1beta1",
            json!({"warmPoolRef": {"name": "p"}, "lifecycle": {"ttlSecondsAfterFinished": -5}}),
        ),
        object("SandboxWarmPool", "v1beta1", json!({"replicas": -1})),
        object("SandboxWarmPool", "v1alpha1", json!({"sandboxTemplateRef": {"name": "t"}})),
        object(
            "SandboxWarmPool",
            "v1beta1",
            json!({"sandboxTemplateRef": {"name": "t"}, "updateStrategy": {"type": "Slow"}}),
        ),
    ];
    for amount in ["much", "1.2.3", "", "1Kii", "1e", "1 Gi", "--1", ".", "1E+", "1ki"] {
        let limited = json!({"name": "main", "image": "x", "resources": {"limits": {"cpu": amount}}});
        all.push(object("Sandbox", "v1beta1", json!({"podTemplate": {"spec": {"containers": [limited]}}})));
    }
    let mut named = object("Sandbox", "v1beta1", json!({"podTemplate": pods}));
    named["metadata"]["name"] = "My_Box".into();
    all.push(named);
    all
}

#[tokio::test(start_paused = true)]
async fn every_violation_is_in_the_servers_own_words() -> Result<()> {
    let cluster = Cluster::builder().seed(1).kubelet(false).start().await?;
    for object in bad() {
        let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
        let (group, version) =
            text("apiVersion").split_once('/').map(|(g, v)| (g.to_owned(), v.to_owned())).context("a group")?;
        let kind = text("kind");
        let plural = if kind == "Sandbox" { "sandboxes".into() } else { format!("{}s", kind.to_lowercase()) };
        let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(&group, &version, &kind), &plural);
        let api = Api::<DynamicObject>::default_namespaced_with(cluster.client(), &resource);
        let body: DynamicObject = serde_json::from_value(object.clone())?;
        let answer = match api.create(&PostParams::default(), &body).await {
            Ok(taken) => anyhow::bail!("{} was taken: {object}", taken.name_any()),
            Err(kube::Error::Api(status)) => status,
            Err(error) => return Err(error.into()),
        };
        let causes = answer.details.as_ref().map(|details| details.causes.clone()).unwrap_or_default();
        let mut theirs: Vec<_> =
            causes.iter().map(|c| (c.field.clone(), c.reason.clone(), c.message.clone())).collect();
        let mut ours: Vec<_> = validate_json(&object)
            .into_iter()
            .map(|violation| (violation.field, violation.reason.to_owned(), violation.message))
            .collect();
        theirs.sort();
        // Rules are not evaluated on an object that does not fit its schema; the server says so once more.
        theirs.retain(|(_, _, message)| !message.contains("some validation rules were not checked"));
        ours.sort();
        assert_eq!(ours, theirs, "{object}");
    }
    cluster.shutdown().await;
    Ok(())
}
