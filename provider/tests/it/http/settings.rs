//! Settings and profiles over HTTP.

use agent_sandbox_provider::{agent::AgentConfig, records::Project};
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{World, request};

#[tokio::test(start_paused = true)]
async fn settings_are_written_together_and_read_back() {
    let world = World::new().await;
    assert_eq!(world.good("GET", "/api/settings", None).await, json!({"settings": {}}));
    let values = json!({"sandbox.defaults": {"memoryMb": 2048, "cpuCores": 1}, "default_model": "claude-opus-4-6"});
    let (status, answer) = world.call("PUT", "/api/settings", Some(json!({"settings": values}))).await;
    assert_eq!((status, answer), (StatusCode::OK, json!({"ok": true})));
    assert_eq!(world.good("GET", "/api/settings", None).await["settings"], values);
    let some = world.good("GET", "/api/settings?keys=default_model,sandbox.mode", None).await;
    assert_eq!(some["settings"], json!({"default_model": "claude-opus-4-6"}));
    let agents: std::sync::Arc<AgentConfig> = world.application.agents.config();
    assert_eq!(agents.sandbox.memory_mb, 2048, "the next agent's sandbox has it");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_body_says_where_it_is_bad_and_nothing_is_written() {
    let world = World::new().await;
    for (body, wanted, path) in [
        (r#"{"settings":"#, "400 INVALID_JSON", ""),
        ("[]", "400 VALIDATION_ERROR", ""),
        ("", "400 VALIDATION_ERROR", "settings"),
        (r#"{"settings": 1}"#, "400 VALIDATION_ERROR", "settings"),
        (r#"{"settings": {}, "more": 1}"#, "400 VALIDATION_ERROR", "more"),
        (r#"{"settings": {"x": 1}}"#, "400 VALIDATION_ERROR", "x"),
        (
            r#"{"settings": {"default_model": "m", "sandbox.defaults": {"memoryMb": "4 GB"}}}"#,
            "400 VALIDATION_ERROR",
            "sandbox.defaults.memoryMb",
        ),
        (
            r#"{"settings": {"sandbox.kubernetes": {"kubeConfigPath": "/etc/passwd"}}}"#,
            "400 INVALID_KUBECONFIG_PATH",
            "",
        ),
        (r#"{"settings": {"sandbox.kubernetes": {"kubeConfigPath": "~/../x"}}}"#, "400 INVALID_KUBECONFIG_PATH", ""),
    ] {
        let mut asked = request("PUT", "/api/settings", None);
        *asked.body_mut() = axum::body::Body::from(body.to_owned());
        let (status, answer) = world.read(asked).await;
        let error = &answer["error"];
        assert_eq!(format!("{} {}", status.as_u16(), error["code"].as_str().unwrap()), wanted, "{answer}");
        if !path.is_empty() {
            assert_eq!(error["details"]["fields"][0]["path"], path, "{answer}");
        }
        assert_eq!(world.good("GET", "/api/settings", None).await, json!({"settings": {}}), "{body}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn other_settings_bring_another_provider_and_an_error_is_told_until_it_is_gone() {
    let world = World::new().await;
    let before = world.good("GET", "/api/sandbox/provider", None).await;
    assert_eq!((&before["state"], &before["provider"]), (&json!("ready"), &json!("local")));
    assert_eq!(before["health"]["healthy"], true);

    let nowhere = json!({"settings": {"sandbox.kubernetes": {"kubeConfigPath": "/etc/kubernetes/none.conf"}}});
    world.good("PUT", "/api/settings", Some(nowhere)).await;
    world.application.selection.settled().await;
    let now = world.good("GET", "/api/sandbox/provider", None).await;
    assert_eq!((&now["state"], &now["error"]["code"]), (&json!("unavailable"), &json!("K8S_KUBECONFIG_NOT_FOUND")));
    let settings = world.good("GET", "/api/settings?keys=sandbox.kubernetes.lastError", None).await;
    assert_eq!(settings["settings"]["sandbox.kubernetes.lastError"]["code"], "K8S_KUBECONFIG_NOT_FOUND");
    assert_eq!(world.bad("GET", "/api/sandboxes", None).await, "503 SANDBOX_PROVIDER_NOT_AVAILABLE");
    let health = world.good("GET", "/api/health", None).await;
    assert_eq!(health["checks"]["sandbox"], json!({"status": "error", "error": "K8S_KUBECONFIG_NOT_FOUND"}));
    assert_eq!(health["status"], "ok");

    world.good("PUT", "/api/settings", Some(json!({"settings": {"sandbox.kubernetes": null}}))).await;
    world.application.selection.settled().await;
    assert_eq!(world.good("GET", "/api/sandboxes", None).await["totalCount"], 0);
    assert_eq!(world.good("GET", "/api/settings", None).await, json!({"settings": {}}), "the error is gone");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_made_changed_made_the_default_used_and_deleted() {
    let world = World::new().await;
    let (status, answer) = world.call("POST", "/api/sandbox-configs", Some(json!({"name": "Small"}))).await;
    assert_eq!(status, StatusCode::CREATED);
    let small = &answer["data"];
    let of = |key: &str| small[key].clone();
    assert_eq!((of("baseImage"), of("memoryMb"), of("cpuCores")), (json!("node:22-slim"), json!(4096), json!(2.0)));
    assert_eq!((of("maxProcesses"), of("timeoutMinutes"), of("type")), (json!(256), json!(60), json!("docker")));
    let everything = json!({
        "name": "Large", "description": "for much", "type": "kubernetes", "isDefault": true, "baseImage": "a:1",
        "memoryMb": 8192, "cpuCores": 4, "maxProcesses": 512, "timeoutMinutes": 90, "kubeConfigPath": "~/.kube/config",
        "kubeContext": "c", "kubeNamespace": "ns", "networkPolicyEnabled": false, "allowedEgressHosts": ["10.0.0.1"],
    });
    let large = world.good("POST", "/api/sandbox-configs", Some(everything.clone())).await;
    for (key, value) in everything.as_object().unwrap() {
        let same = large[key] == *value || large[key].as_f64().is_some_and(|number| Some(number) == value.as_f64());
        assert!(same, "{key} is kept: {} is not {value}", large[key]);
    }
    let (small, large) = (format!("/api/sandbox-configs/{}", of("id").as_str().unwrap()), large["id"].clone());
    let large_path = format!("/api/sandbox-configs/{}", large.as_str().unwrap());
    world.good("PATCH", &small, Some(json!({"isDefault": true, "memoryMb": 1024}))).await;
    let list = world.good("GET", "/api/sandbox-configs", None).await;
    let defaults: Vec<_> = list["items"].as_array().unwrap().iter().map(|item| item["isDefault"].clone()).collect();
    assert_eq!(defaults, [json!(false), json!(true)], "there is one default: {list}");
    let second = world.good("GET", "/api/sandbox-configs?limit=1&offset=1", None).await;
    assert_eq!((second["items"].as_array().unwrap().len(), &second["totalCount"]), (1, &json!(2)));

    let project = json!({"name": "p", "sandboxConfigId": large});
    let project = world.good("POST", "/api/projects", Some(project)).await;
    assert_eq!(project["sandbox"]["memoryMb"], 8192);
    world.good("PATCH", &large_path, Some(json!({"memoryMb": 2048}))).await;
    let id = project["id"].as_str().unwrap();
    let stored: Project = world.store.read(|tx| tx.get(id)).unwrap().unwrap();
    assert_eq!(stored.sandbox.memory_mb, Some(2048), "who uses a profile gets what it is now");
    assert_eq!(world.bad("DELETE", &large_path, None).await, "409 IN_USE");
    assert_eq!(world.good("DELETE", &small, None).await, Value::Null);
    assert_eq!(world.bad("GET", &small, None).await, "404 NOT_FOUND");
    assert_eq!(world.bad("PATCH", &small, Some(json!({}))).await, "404 NOT_FOUND");
    assert_eq!(world.bad("DELETE", &small, None).await, "404 NOT_FOUND");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_profile_out_of_bounds_is_refused_with_the_code_of_what_is() {
    let world = World::new().await;
    world.good("POST", "/api/sandbox-configs", Some(json!({"name": "taken"}))).await;
    for (body, wanted) in [
        (json!({}), "400 MISSING_PARAMS"),
        (json!({"name": ""}), "400 MISSING_PARAMS"),
        (json!({"name": "TAKEN"}), "409 SANDBOX_CONFIG_ALREADY_EXISTS"),
        (json!({"name": "a", "memoryMb": 511}), "400 INVALID_MEMORY"),
        (json!({"name": "a", "memoryMb": 32769}), "400 INVALID_MEMORY"),
        (json!({"name": "a", "memoryMb": 1024.5}), "400 INVALID_MEMORY"),
        (json!({"name": "a", "cpuCores": 0.4}), "400 INVALID_CPU"),
        (json!({"name": "a", "cpuCores": 17}), "400 INVALID_CPU"),
        (json!({"name": "a", "maxProcesses": 31}), "400 INVALID_PROCESSES"),
        (json!({"name": "a", "maxProcesses": 4097}), "400 INVALID_PROCESSES"),
        (json!({"name": "a", "timeoutMinutes": 0}), "400 INVALID_TIMEOUT"),
        (json!({"name": "a", "timeoutMinutes": 1441}), "400 INVALID_TIMEOUT"),
        (json!({"name": "a", "memoryMb": "much"}), "400 VALIDATION_ERROR"),
        (json!({"name": "a", "kubeNamespace": "A"}), "400 VALIDATION_ERROR"),
        (json!({"name": "a", "type": "vm"}), "400 VALIDATION_ERROR"),
        (json!({"name": "a", "colour": "blue"}), "400 VALIDATION_ERROR"),
    ] {
        assert_eq!(world.bad("POST", "/api/sandbox-configs", Some(body.clone())).await, wanted, "{body}");
    }
    for (query, wanted) in [("limit=0", "400"), ("limit=1001", "400"), ("offset=-1", "400"), ("limit=x", "400")] {
        let code = world.bad("GET", &format!("/api/sandbox-configs?{query}"), None).await;
        assert_eq!(code, format!("{wanted} VALIDATION_ERROR"), "{query}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_key_goes_in_and_never_comes_out() {
    let world = World::new().await;
    let key = json!({"value": "sk-ant-a-secret-of-this-test"});
    world.good("PUT", "/api/api-keys/anthropic", Some(key)).await;
    let list = world.good("GET", "/api/api-keys", None).await;
    assert_eq!(list["items"][0]["service"], "anthropic");
    assert!(!list.to_string().contains("secret-of-this"));
    assert_eq!(world.bad("PUT", "/api/api-keys/other", Some(json!({"value": "x"}))).await, "400 VALIDATION_ERROR");
    assert_eq!(world.bad("PUT", "/api/api-keys/anthropic", Some(json!({}))).await, "400 MISSING_PARAMS");
    let refused = world.call("PUT", "/api/api-keys/anthropic", Some(json!({"value": "sk ant secret"}))).await.1;
    assert!(!refused.to_string().contains("sk ant secret"), "{refused}");
    world.good("DELETE", "/api/api-keys/anthropic", None).await;
    assert_eq!(world.bad("DELETE", "/api/api-keys/anthropic", None).await, "404 NOT_FOUND");
    world.end().await;
}
