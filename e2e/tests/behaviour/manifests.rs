//! `manifests/`, applied as strictly as a server can be asked to, with the project's definitions and with upstream's.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use e2e::setup::MANIFESTS;
use fake_apiserver::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, ValidationDirective},
    discovery,
};
use serde_json::Value;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

fn documents(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_saphyr::from_multiple(&text).with_context(|| path.display().to_string())
}

/// Server-side apply with `fieldValidation=Strict`, as `kubectl apply --server-side --validate=strict` sends it.
async fn apply(client: &Client, object: Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object)?;
    let types = object.types.clone().context("an object says what it is")?;
    let (resource, capabilities) = discovery::pinned_kind(client, &GroupVersionKind::try_from(&types)?).await?;
    let namespaced = capabilities.scope == discovery::Scope::Namespaced;
    let api: Api<DynamicObject> = match object.namespace().filter(|_| namespaced) {
        Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let mut strict = PatchParams::apply("e2e").force();
    strict.field_validation = Some(ValidationDirective::Strict);
    let what = format!("{} {}", types.kind, object.name_any());
    api.patch(&object.name_any(), &strict, &Patch::Apply(&object)).await.context(what)?;
    Ok(())
}

/// Applies the definitions if there are any, then all manifests twice, and waits for the pool's pods.
async fn manifests_hold(definitions: &[PathBuf]) -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    let client = cluster.client();
    for path in definitions {
        for definition in documents(path)? {
            apply(&client, definition).await.with_context(|| path.display().to_string())?;
        }
    }
    for _ in 0..2 {
        for file in MANIFESTS {
            for document in documents(&workspace().join("manifests").join(file))? {
                apply(&client, document).await.with_context(|| file.to_owned())?;
            }
        }
    }
    let sandboxes = agent_sandbox_sdk::AgentSandboxClient::new(client.clone()).in_namespace("sandboxes");
    sandboxes.wait_ready("workspace", std::time::Duration::from_secs(60)).await?;
    let pods = Api::<Pod>::namespaced(client, "sandboxes");
    let waiting = async {
        while pods.list(&ListParams::default()).await?.items.len() < 3 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await; // virtual time
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(std::time::Duration::from_secs(60), waiting).await.context("the pool's pods")??;
    let listed: Vec<String> = fs::read_dir(workspace().join("manifests"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    ensure!(listed.iter().all(|name| MANIFESTS.contains(&name.as_str())), "a manifest is in no list: {listed:?}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn manifests_hold_with_our_definitions() -> Result<()> {
    manifests_hold(&[]).await
}

#[tokio::test(start_paused = true)]
async fn manifests_hold_with_upstreams_definitions() -> Result<()> {
    let folder = workspace().ancestors().skip(1).map(|dir| dir.join("shared/upstream/crds")).find(|dir| dir.is_dir());
    let Some(folder) = folder else {
        eprintln!("not run: no folder shared/upstream/crds beside or above the workspace");
        return Ok(());
    };
    let mut definitions: Vec<PathBuf> =
        fs::read_dir(&folder)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    // Those of an old release lie beside them, under its name.
    let is_current = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".yaml") && !name.starts_with('v')
    };
    definitions.retain(is_current);
    definitions.sort();
    ensure!(definitions.len() >= 4, "{definitions:?}");
    manifests_hold(&definitions).await
}

/// Who has the role of `rbac.yaml` and nothing else drives a sandbox from its beginning to its end, and may do no more.
#[tokio::test(start_paused = true)]
async fn the_role_is_enough_for_a_caller_and_no_more() -> Result<()> {
    let cluster = Cluster::builder().start().await?;
    for file in ["namespace.yaml", "rbac.yaml"] {
        for document in documents(&workspace().join("manifests").join(file))? {
            apply(&cluster.client(), document).await?;
        }
    }
    let caller = cluster.client_as("system:serviceaccount:sandboxes:sandbox-user", &[]);
    let sandboxes = agent_sandbox_sdk::AgentSandboxClient::new(caller.clone()).in_namespace("sandboxes");
    let sandbox = documents(&workspace().join("manifests/sandbox.yaml"))?.remove(0);
    sandboxes.create(&serde_json::from_value(sandbox)?).await?;
    let long = std::time::Duration::from_secs(60);
    sandboxes.wait_ready("workspace", long).await?;
    ensure!(sandboxes.exec("workspace", ["echo", "hi"]).await?.stdout_text() == "hi\n", "exec");
    ensure!(!sandboxes.logs("workspace", &Default::default()).await?.is_empty(), "logs");
    sandboxes.suspend("workspace").await?;
    sandboxes.wait_suspended("workspace", long).await?;
    sandboxes.resume("workspace").await?;
    sandboxes.wait_ready("workspace", long).await?;
    sandboxes.delete("workspace").await?;
    sandboxes.wait_gone("workspace", long).await?;

    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(caller.clone(), "sandboxes");
    ensure!(secrets.list(&ListParams::default()).await.is_err(), "secrets are nobody's business");
    let elsewhere = agent_sandbox_sdk::AgentSandboxClient::new(caller).in_namespace("default");
    ensure!(elsewhere.list(&ListParams::default()).await.is_err(), "other namespaces are closed");
    cluster.shutdown().await;
    Ok(())
}
