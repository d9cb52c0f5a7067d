//! Claims and the pools that serve them.

use std::collections::BTreeSet;

use agent_sandbox_sdk::v1beta1::{
    ClaimLifecycle, ClaimShutdownPolicy, EnvVar, EnvVarsInjectionPolicy, PodTemplate, Sandbox, SandboxClaim,
    SandboxClaimSpec, SandboxTemplate, SandboxTemplateRef, SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef,
    SandboxWarmPoolSpec,
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;

use crate::World;

const POOL: &str = "pool";

/// A template, and a pool of so many of its sandboxes, all Ready.
async fn pool(world: &World, replicas: i32) -> Result<()> {
    world.step(format!("a template, and a pool of {replicas}"));
    let main = Container {
        name: "main".into(),
        image: Some(world.image().into()),
        command: Some(["sh", "-c", "sleep infinity"].map(Into::into).into()),
        ..Default::default()
    };
    let pod = PodSpec { containers: vec![main], termination_grace_period_seconds: Some(1), ..Default::default() };
    let template = SandboxTemplateSpec {
        pod_template: PodTemplate::of(pod),
        env_vars_injection_policy: Some(EnvVarsInjectionPolicy::Allowed),
        ..Default::default()
    };
    let params = PostParams::default();
    world.api::<SandboxTemplate>().create(&params, &SandboxTemplate::new("tpl", template)).await?;
    let spec = SandboxWarmPoolSpec {
        replicas: Some(replicas),
        sandbox_template_ref: SandboxTemplateRef { name: "tpl".into() },
        ..Default::default()
    };
    world.api::<SandboxWarmPool>().create(&params, &SandboxWarmPool::new(POOL, spec)).await?;
    is_full(world, replicas).await
}

async fn is_full(world: &World, replicas: i32) -> Result<()> {
    let full = move |pool: Option<&SandboxWarmPool>| {
        let ready = pool.and_then(|pool| pool.status.as_ref()).and_then(|status| status.ready_replicas);
        ready.unwrap_or_default() == replicas
    };
    world.eventually::<SandboxWarmPool>(POOL, "full of Ready members", full).await?;
    Ok(())
}

fn spec() -> SandboxClaimSpec {
    SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: POOL.into() }, ..Default::default() }
}

/// Status and reason of a claim's condition Ready.
fn ready(claim: &SandboxClaim) -> (&str, &str) {
    let conditions = claim.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.into_iter().find(|condition| condition.type_ == "Ready");
    ready.map_or(("", ""), |ready| (&ready.status, &ready.reason))
}

fn sandbox_of(claim: &SandboxClaim) -> Option<String> {
    claim.status.as_ref()?.sandbox.as_ref()?.name.clone()
}

/// Makes a claim and waits until it is Ready; the claim and its sandbox.
async fn claim(world: &World, name: &str, spec: SandboxClaimSpec) -> Result<(SandboxClaim, Sandbox)> {
    world.api::<SandboxClaim>().create(&PostParams::default(), &SandboxClaim::new(name, spec)).await?;
    let is_ready = |claim: Option<&SandboxClaim>| claim.is_some_and(|claim| ready(claim).0 == "True");
    let claim = world.eventually::<SandboxClaim>(name, "Ready", is_ready).await?.context("a Ready claim")?;
    let sandbox = world.sandboxes().get(&sandbox_of(&claim).context("a Ready claim names its sandbox")?).await?;
    let owner = sandbox.owner_references().iter().find(|owner| owner.controller == Some(true));
    ensure!(owner.map(|owner| &owner.uid) == claim.uid().as_ref(), "the sandbox is the claim's: {owner:?}");
    Ok((claim, sandbox))
}

/// A member is taken, used, and never given back; the pool makes another.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_claim_takes_a_member_of_its_pool_and_the_pool_makes_another(world: &World) -> Result<()> {
    pool(world, 2).await?;
    world.step("a claim takes a member");
    let sandboxes = world.api::<Sandbox>();
    let names = async || -> Result<BTreeSet<String>> {
        let all = sandboxes.list(&ListParams::default()).await?;
        Ok(all.items.iter().map(ResourceExt::name_any).collect())
    };
    let before = names().await?;
    let (claim, sandbox) = claim(world, "mine", spec()).await?;
    ensure!(before.contains(&sandbox.name_any()), "{} was a member: {before:?}", sandbox.name_any());
    let output = world.sandboxes().exec(&sandbox.name_any(), ["echo", "hello"]).await?;
    ensure!(output.stdout_text() == "hello\n", "{output:?}");
    let is_ready = |one: &Sandbox| one.condition("Ready").is_some_and(|ready| ready.status == "True");
    let three = |all: &[Sandbox]| all.len() == 3 && all.iter().all(is_ready);
    world.eventually_all("three, the pool's new one included, and Ready", three).await?;
    is_full(world, 2).await?;

    world.step("the claim goes, and what it had goes with it");
    let pod = world.api::<Pod>().get(sandbox.pod_name().context("a pod")?).await?;
    world.api::<SandboxClaim>().delete("mine", &DeleteParams::default()).await?;
    world.eventually_gone(&claim).await?;
    world.eventually_gone(&sandbox).await?;
    world.eventually_gone(&pod).await?;
    ensure!(names().await?.len() == 2, "what was taken does not come back");
    Ok(())
}

/// What no member has is made for the claim; what is lost is made anew.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_claim_with_an_environment_gets_a_sandbox_of_its_own_and_another_when_it_is_lost(
    world: &World,
) -> Result<()> {
    pool(world, 1).await?;
    world.step("a claim with an environment");
    let env = EnvVar { name: "WHO".into(), value: "me".into(), ..Default::default() };
    let (_, first) = claim(world, "mine", SandboxClaimSpec { env: Some(vec![env]), ..spec() }).await?;
    ensure!(first.name_any() == "mine", "it has the claim's name");
    let output = world.sandboxes().exec("mine", ["sh", "-c", "echo $WHO"]).await?;
    ensure!(output.stdout_text() == "me\n", "{output:?}");

    world.step("its sandbox is lost");
    world.sandboxes().delete("mine").await?;
    world.eventually_gone(&first).await?;
    let uid = first.uid();
    let is_another = move |sandbox: Option<&Sandbox>| sandbox.is_some_and(|sandbox| sandbox.uid() != uid);
    world.eventually::<Sandbox>("mine", "made anew", is_another).await?;
    let second = world.sandboxes().wait_ready("mine", world.deadline()).await?;
    ensure!(second.uid() != first.uid(), "it is another");
    is_full(world, 1).await
}

/// Ten claims at once, on a pool that is smaller: each has a sandbox of its own.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn ten_claims_at_once_get_ten_sandboxes(world: &World) -> Result<()> {
    pool(world, 4).await?;
    world.step("ten claims at once");
    let names: Vec<String> = (0..10).map(|number| format!("claim-{number}")).collect();
    let claimed = futures::future::try_join_all(names.iter().map(|name| claim(world, name, spec()))).await?;
    let sandboxes: BTreeSet<String> = claimed.iter().map(|(_, sandbox)| sandbox.name_any()).collect();
    ensure!(sandboxes.len() == 10, "some share a sandbox: {sandboxes:?}");
    world.step("the pool is full again");
    is_full(world, 4).await
}

/// A claim that is kept after its end says so and has no sandbox; one that is to be deleted is gone.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn claims_end_as_they_say(world: &World) -> Result<()> {
    pool(world, 0).await?;
    let ends = |policy| {
        let lifecycle = ClaimLifecycle { shutdown_policy: Some(policy), ..Default::default() };
        SandboxClaimSpec { lifecycle: Some(lifecycle), ..spec() }
    };
    let (_, kept) = claim(world, "kept", ends(ClaimShutdownPolicy::Retain)).await?;
    let (gone, its) = claim(world, "gone", ends(ClaimShutdownPolicy::DeleteForeground)).await?;
    world.step("both come to their end");
    let end = Patch::Merge(json!({"spec": {"lifecycle": {"shutdownTime": Time(world.soon())}}}));
    for name in ["kept", "gone"] {
        world.api::<SandboxClaim>().patch(name, &PatchParams::default(), &end).await?;
    }
    let is_expired = |claim: Option<&SandboxClaim>| {
        claim.is_some_and(|claim| ready(claim) == ("False", "ClaimExpired") && sandbox_of(claim).is_none())
    };
    world.eventually::<SandboxClaim>("kept", "expired", is_expired).await?;
    world.eventually_gone(&kept).await?;
    world.eventually_gone(&gone).await?;
    ensure!(world.api::<Sandbox>().get_opt(&its.name_any()).await?.is_none(), "its sandbox went before it");
    Ok(())
}
