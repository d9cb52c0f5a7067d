//! Objects from before v1beta1 on a cluster that has been upgraded.

use agent_sandbox_sdk::{
    v1alpha1,
    v1beta1::{OperatingMode, Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::World;

const WAITS: [&str; 3] = ["sh", "-c", "sleep infinity"];

fn pod(world: &World) -> Value {
    json!({"spec": {
        "containers": [{"name": "main", "image": world.image(), "command": WAITS}],
        "terminationGracePeriodSeconds": 1,
    }})
}

/// A Sandbox that was written as v1alpha1 is read, suspended and resumed in either version, and rewritten for storage.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn objects_of_v1alpha1_go_on_as_v1beta1(world: &World) -> Result<()> {
    let older = world.api::<v1alpha1::Sandbox>();
    let newer = world.api::<Sandbox>();
    world.step("a Sandbox is written as v1alpha1");
    let sandbox: v1alpha1::Sandbox = serde_json::from_value(json!({
        "apiVersion": "agents.x-k8s.io/v1alpha1", "kind": "Sandbox", "metadata": {"name": "old"},
        "spec": {"podTemplate": pod(world), "replicas": 1},
    }))?;
    let written = older.create(&PostParams::default(), &sandbox).await?;
    let read = newer.get("old").await?;
    ensure!(read.uid() == written.uid(), "it is the same object in both versions");
    ensure!(*read.operating_mode() == OperatingMode::Running, "{:?}", read.spec);
    world.sandboxes().wait_ready("old", world.deadline()).await?;

    world.step("suspended in v1alpha1, read in v1beta1");
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    older.patch("old", &PatchParams::default(), &none).await?;
    let read = newer.get("old").await?;
    ensure!(*read.operating_mode() == OperatingMode::Suspended, "{:?}", read.spec);
    world.sandboxes().wait_suspended("old", world.deadline()).await?;
    ensure!(world.api::<Pod>().get_opt("old").await?.is_none(), "a suspended sandbox has no pod");

    world.step("resumed in v1beta1, read in v1alpha1");
    world.sandboxes().resume("old").await?;
    let read = older.get("old").await?;
    ensure!(read.spec.replicas == Some(1), "{:?}", read.spec);
    world.sandboxes().wait_ready("old", world.deadline()).await?;

    world.step("rewritten for storage");
    let at = Patch::Merge(json!({"metadata": {"annotations": {"agents.x-k8s.io/storage-migrated-at": "now"}}}));
    let rewritten = newer.patch("old", &PatchParams::default(), &at).await?;
    ensure!(rewritten.uid() == written.uid(), "it is still the same object");
    let read = older.get("old").await?;
    ensure!(read.spec.replicas == Some(1), "v1alpha1 is still served: {:?}", read.spec);
    Ok(())
}

/// A claim from before pools were named goes to the shadow pool of its template, as the upgrade makes one.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_claim_of_v1alpha1_is_served_by_a_shadow_pool(world: &World) -> Result<()> {
    let params = PostParams::default();
    world.step("a template and its shadow pool");
    let template: SandboxTemplate = serde_json::from_value(json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxTemplate", "metadata": {"name": "tpl"},
        "spec": {"podTemplate": pod(world)},
    }))?;
    world.api().create(&params, &template).await?;
    let pool: SandboxWarmPool = serde_json::from_value(json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1beta1", "kind": "SandboxWarmPool",
        "metadata": {"name": "shadow-pool-tpl"}, "spec": {"replicas": 0, "sandboxTemplateRef": {"name": "tpl"}},
    }))?;
    world.api().create(&params, &pool).await?;

    world.step("a claim is written as v1alpha1");
    let claim: v1alpha1::SandboxClaim = serde_json::from_value(json!({
        "apiVersion": "extensions.agents.x-k8s.io/v1alpha1", "kind": "SandboxClaim", "metadata": {"name": "old"},
        "spec": {"sandboxTemplateRef": {"name": "tpl"}},
    }))?;
    world.api().create(&params, &claim).await?;
    let read = world.api::<SandboxClaim>().get("old").await?;
    ensure!(read.spec.warm_pool_ref.name == "shadow-pool-tpl", "{:?}", read.spec);
    let is_ready = |claim: Option<&SandboxClaim>| {
        let status = claim.and_then(|claim| claim.status.as_ref());
        status.is_some_and(|status| status.conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True"))
    };
    let ready = world.eventually::<SandboxClaim>("old", "Ready", is_ready).await?.context("a claim")?;
    let name = ready.status.and_then(|status| status.sandbox?.name).context("its sandbox")?;
    world.step("it has a sandbox, which v1alpha1 shows too");
    let sandbox = world.api::<v1alpha1::Sandbox>().get(&name).await?;
    ensure!(sandbox.spec.replicas == Some(1), "{:?}", sandbox.spec);
    Ok(())
}
