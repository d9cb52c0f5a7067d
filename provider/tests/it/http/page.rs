//! The settings page.

use axum::http::{StatusCode, header};

use super::{World, request, text};

/// What tests of a browser look for.
const IDS: &[&str] = &[
    "sandbox-settings",
    "default-settings-section",
    "provider-section",
    "profiles-section",
    "default-sandbox-enabled-toggle",
    "default-provider-docker",
    "default-provider-devcontainer",
    "default-provider-kubernetes",
    "default-memory-select",
    "default-cpu-select",
    "default-timeout-select",
    "default-namespace-input",
    "container-mode-shared",
    "container-mode-per-project",
    "save-default-settings",
    "provider-docker",
    "provider-kubernetes",
    "save-provider-settings",
    "k8s-config-section",
    "refresh-k8s-status",
    "k8s-config-path-input",
    "k8s-skip-tls-toggle",
    "k8s-context-select",
    "k8s-namespace-input",
    "k8s-runtime-class-select",
    "k8s-warm-pool-toggle",
    "k8s-warm-pool-size-slider",
    "k8s-init-error-banner",
    "k8s-fallback-to-docker-toggle",
    "create-sandbox-config",
    "sandbox-config-name-input",
    "sandbox-type-docker",
    "sandbox-type-devcontainer",
    "sandbox-type-kubernetes",
    "sandbox-config-image-input",
    "form-kube-config-path-input",
    "form-kube-context-input",
    "form-kube-namespace-input",
    "sandbox-config-memory-slider",
    "sandbox-config-cpu-slider",
    "sandbox-config-processes-slider",
    "sandbox-config-timeout-slider",
    "sandbox-config-default-toggle",
    "save-sandbox-config",
];

#[tokio::test(start_paused = true)]
async fn the_page_has_every_control_once_and_brings_all_that_it_needs() {
    let world = World::new().await;
    let answer = world.send(request("GET", "/settings/sandbox", None)).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let page = text(answer).await;
    for id in IDS {
        assert_eq!(page.matches(&format!("data-testid=\"{id}\"")).count(), 1, "{id}");
    }
    for quoted in page.split(['"', '\'']).filter(|part| part.starts_with("/assets/")) {
        let asset = world.send(request("GET", quoted, None)).await;
        assert_eq!(asset.status(), StatusCode::OK, "{quoted}");
        assert!(!text(asset).await.is_empty(), "{quoted}");
    }
    world.end().await;
}

/// P2-22: the predecessor's page switched the check of certificates off for whoever saved it.
#[tokio::test(start_paused = true)]
async fn the_page_checks_certificates_unless_told_not_to_and_saves_what_it_says_it_saves() {
    let world = World::new().await;
    let page = text(world.send(request("GET", "/settings/sandbox", None)).await).await;
    let toggle = page.split('<').find(|tag| tag.contains("k8s-skip-tls-toggle")).unwrap();
    assert!(!toggle.contains("checked"), "{toggle}");
    let script = text(world.send(request("GET", "/assets/settings.js", None)).await).await;
    assert!(script.contains("skipTLSVerify ?? false"), "off by default");
    let save = script.split("async function saveProvider()").nth(1).unwrap().split("\n}\n").next().unwrap();
    assert!(save.contains(r#"api("PUT", "/api/settings""#), "Save Provider writes the settings");
    // Every element that the script takes by its id is on the page.
    for id in script.split("$(\"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_pages_files_is_served() {
    let world = World::new().await;
    for path in ["/assets/login.html", "/assets/..%2fCargo.toml", "/assets/none.js", "/assets/%2e%2e%2fsrc%2flib.rs"] {
        assert_eq!(world.bad("GET", path, None).await, "404 NOT_FOUND", "{path}");
    }
    let home = world.send(request("GET", "/", None)).await;
    assert_eq!(home.headers()[header::LOCATION], "/settings/sandbox");
    world.end().await;
}
