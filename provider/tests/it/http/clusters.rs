//! Questions about clusters.

use std::{fs, net::SocketAddr};

use serde_json::json;

use super::World;

#[tokio::test(start_paused = true)]
async fn the_embedded_cluster_answers_without_a_kubeconfig() {
    let world = World::on_cluster().await;
    let status = world.good("GET", "/api/sandbox/k8s/status", None).await;
    assert_eq!((&status["healthy"], &status["namespace"]), (&json!(true), &json!("agentpane-sandboxes")));
    assert_eq!((&status["context"], &status["pods"]), (&json!("embedded"), &json!(0)));
    assert!(status["serverVersion"].as_str().unwrap().starts_with("v1."), "{status}");

    let controller = world.good("GET", "/api/sandbox/k8s/controller", None).await;
    let wanted = json!({
        "installed": true, "version": controller["version"], "crdRegistered": true, "crdGroup": "agents.x-k8s.io",
        "crdApiVersion": "v1beta1", "clusterVersion": status["serverVersion"], "ready": true,
    });
    assert_eq!(controller, wanted);

    let namespaces = world.good("GET", "/api/sandbox/k8s/namespaces?limit=2", None).await;
    let namespaces = namespaces["namespaces"].as_array().unwrap();
    assert_eq!(namespaces.len(), 2);
    assert_eq!((&namespaces[0]["name"], &namespaces[0]["status"]), (&json!("agent-sandbox-system"), &json!("Active")));
    assert!(namespaces[0]["createdAt"].as_str().unwrap().starts_with("2026-"), "{namespaces:?}");
    let contexts = world.good("GET", "/api/sandbox/k8s/contexts", None).await;
    assert_eq!(contexts, json!({"contexts": [], "current": null}), "no kubeconfig was written");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_path_of_a_kubeconfig_is_checked_on_every_route() {
    let world = World::new().await;
    for (path, wanted) in [
        ("/etc/passwd", "400 INVALID_KUBECONFIG_PATH"),
        ("~/../../etc/passwd", "400 INVALID_KUBECONFIG_PATH"),
        ("%2e%2e/config", "400 INVALID_KUBECONFIG_PATH"),
        ("/etc/kubernetes-mine/config", "400 INVALID_KUBECONFIG_PATH"),
        ("/etc/kubernetes/none.conf", "404 K8S_KUBECONFIG_NOT_FOUND"),
    ] {
        for route in ["status", "controller", "contexts", "namespaces"] {
            let asked = format!("/api/sandbox/k8s/{route}?kubeconfigPath={path}");
            assert_eq!(world.bad("GET", &asked, None).await, wanted, "{route} {path}");
        }
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_question_is_refused() {
    let world = World::new().await;
    for query in ["skipTLSVerify=perhaps".to_owned(), format!("context={}", "a".repeat(257))] {
        let code = world.bad("GET", &format!("/api/sandbox/k8s/status?{query}"), None).await;
        assert_eq!(code, "400 VALIDATION_ERROR", "{query}");
    }
    let code = world.bad("GET", "/api/sandbox/k8s/namespaces?limit=501", None).await;
    assert_eq!(code, "400 VALIDATION_ERROR");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubeconfig_is_read_for_its_contexts_and_asked_with_its_certificate_checked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let cluster = fake_apiserver::Cluster::builder().system_time().start().await.unwrap();
    let door = cluster.serve_https(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&door.render()).unwrap();
    let mut other = config["contexts"][0].clone();
    other["name"] = "other".into();
    other["context"]["cluster"] = "untrusted".into();
    other["context"].as_object_mut().unwrap().remove("namespace");
    config["contexts"].as_array_mut().unwrap().push(other);
    let mut untrusted = config["clusters"][0].clone();
    untrusted["name"] = "untrusted".into();
    untrusted["cluster"].as_object_mut().unwrap().remove("certificate-authority-data");
    config["clusters"].as_array_mut().unwrap().push(untrusted);
    fs::write(&file, config.to_string()).unwrap();

    // What the operator names is not held to where a client's paths may lie.
    let options = agent_sandbox_sdk::kubeconfig::ConnectOptions { kubeconfig: Some(file), ..Default::default() };
    let world = World::with(None, |setup| {
        setup.clusters.base = agent_sandbox_provider::selection::Target::Cluster(options);
    })
    .await;
    let contexts = world.good("GET", "/api/sandbox/k8s/contexts", None).await;
    let wanted = json!({"current": "fake-apiserver", "contexts": [
        {"name": "fake-apiserver", "cluster": "fake-apiserver", "user": "fake-apiserver", "namespace": "default"},
        {"name": "other", "cluster": "untrusted", "user": "fake-apiserver"},
    ]});
    assert_eq!(contexts, wanted);
    let status = world.good("GET", "/api/sandbox/k8s/status", None).await;
    assert_eq!(status["server"].as_str(), Some(door.server.as_str()));
    assert_eq!(world.bad("GET", "/api/sandbox/k8s/status?context=other", None).await, "500 K8S_CONNECTION_ERROR");
    let trusting = world.good("GET", "/api/sandbox/k8s/status?context=other&skipTLSVerify=true", None).await;
    assert_eq!(trusting["cluster"], "untrusted");
    assert_eq!(world.bad("GET", "/api/sandbox/k8s/status?context=none", None).await, "404 K8S_CONTEXT_NOT_FOUND");
    cluster.shutdown().await;
    world.end().await;
}
