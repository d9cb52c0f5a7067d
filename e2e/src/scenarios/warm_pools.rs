//! The life of a warm pool: filled, scaled, changed, drained.

use agent_sandbox_sdk::v1beta1::{
    PodTemplate, Sandbox, SandboxTemplate, SandboxTemplateRef, SandboxTemplateSpec, SandboxWarmPool,
    SandboxWarmPoolSpec, UpdateStrategy, UpdateStrategyType,
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::World;

const TEMPLATE: &str = "shell";
const POOL: &str = "warm";

fn pod_spec(world: &World, greeting: &str) -> PodSpec {
    let main = Container {
        name: "main".into(),
        image: Some(world.image().into()),
        command: Some(["sh", "-c", &format!("echo {greeting}; sleep infinity")].map(Into::into).into()),
        ..Default::default()
    };
    // A shell as first process ignores SIGTERM; nobody wants to wait 30 s for that.
    PodSpec { containers: vec![main], termination_grace_period_seconds: Some(1), ..Default::default() }
}

/// A template, and a pool of it that is to be so large.
async fn create(world: &World, replicas: i32, strategy: UpdateStrategyType) -> Result<()> {
    let pod_template = PodTemplate::of(pod_spec(world, "first"));
    let spec = SandboxTemplateSpec { pod_template, ..Default::default() };
    world.api().create(&PostParams::default(), &SandboxTemplate::new(TEMPLATE, spec)).await?;
    let spec = SandboxWarmPoolSpec {
        replicas: Some(replicas),
        sandbox_template_ref: SandboxTemplateRef { name: TEMPLATE.into() },
        update_strategy: Some(UpdateStrategy { type_: Some(strategy) }),
    };
    world.api().create(&PostParams::default(), &SandboxWarmPool::new(POOL, spec)).await?;
    Ok(())
}

/// Waits until the pool has so many members, all ready, and its status is about what it is asked for now.
async fn full(world: &World, replicas: i32) -> Result<()> {
    world.step(format!("the pool is to have {replicas}"));
    let is_full = move |pool: Option<&SandboxWarmPool>| {
        pool.is_some_and(|pool| {
            let status = pool.status.clone().unwrap_or_default();
            status.observed_generation == pool.metadata.generation
                && status.replicas.unwrap_or_default() == replicas
                && status.ready_replicas.unwrap_or_default() == replicas
        })
    };
    world.eventually(POOL, "full and ready", is_full).await?;
    Ok(())
}

/// The Sandboxes that the pool's selector finds, by name.
async fn members(world: &World) -> Result<Vec<Sandbox>> {
    let pool = world.api::<SandboxWarmPool>().get(POOL).await?;
    let selector = pool.status.and_then(|status| status.selector).context("a selector in the status")?;
    Ok(world.api().list(&ListParams::default().labels(&selector)).await?.items)
}

fn names(members: &[Sandbox]) -> Vec<String> {
    members.iter().map(ResourceExt::name_any).collect()
}

async fn scale(world: &World, replicas: i32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let scaled = world.api::<SandboxWarmPool>().patch_scale(POOL, &PatchParams::default(), &patch).await?;
    ensure!(scaled.spec.is_some_and(|spec| spec.replicas == Some(replicas)), "scale answers what was asked for");
    Ok(())
}

/// Filled, scaled up and down, a member lost, emptied, deleted: and each time there are as many as are wanted.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_pool_keeps_as_many_ready_as_it_is_told(world: &World) -> Result<()> {
    create(world, 2, UpdateStrategyType::OnReplenish).await?;
    full(world, 2).await?;
    let first = members(world).await?;
    ensure!(first.len() == 2, "{:?}", names(&first));
    ensure!(first.iter().all(|member| member.name_any().starts_with("warm-")), "{:?}", names(&first));

    scale(world, 4).await?;
    full(world, 4).await?;
    scale(world, 2).await?;
    full(world, 2).await?;

    let lost = members(world).await?.pop().context("a member")?;
    world.api::<Sandbox>().delete(&lost.name_any(), &DeleteParams::default()).await?;
    world.eventually_gone(&lost).await?;
    full(world, 2).await?;
    let after = members(world).await?;
    ensure!(!names(&after).contains(&lost.name_any()), "a new member has a new name: {:?}", names(&after));

    let pool = world.api::<SandboxWarmPool>().get(POOL).await?;
    world.api::<SandboxWarmPool>().delete(POOL, &DeleteParams::default()).await?;
    world.eventually_gone(&pool).await?;
    for member in &after {
        world.eventually_gone(member).await?; // what the pool had goes with it
    }
    Ok(())
}

/// Under `Recreate` a new template is for all members, under `OnReplenish` for new ones.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_changed_template_reaches_a_pool_as_its_strategy_says(world: &World) -> Result<()> {
    create(world, 2, UpdateStrategyType::OnReplenish).await?;
    full(world, 2).await?;
    let before = members(world).await?;
    let spec = json!({"spec": {"podTemplate": {"spec": pod_spec(world, "second")}}});
    world.api::<SandboxTemplate>().patch(TEMPLATE, &PatchParams::default(), &Patch::Merge(spec)).await?;
    scale(world, 3).await?;
    full(world, 3).await?;
    let after = members(world).await?;
    ensure!(before.iter().all(|old| names(&after).contains(&old.name_any())), "old members stay: {:?}", names(&after));

    let strategy = json!({"spec": {"updateStrategy": {"type": "Recreate"}}});
    world.api::<SandboxWarmPool>().patch(POOL, &PatchParams::default(), &Patch::Merge(strategy)).await?;
    for old in &before {
        world.eventually_gone(old).await?;
    }
    full(world, 3).await?;
    for member in members(world).await? {
        let command = member.spec.pod_template.spec.containers[0].command.clone().unwrap_or_default();
        ensure!(command.iter().any(|word| word.contains("second")), "{}: {command:?}", member.name_any());
    }
    Ok(())
}
