//! Sandboxes as an application has them: through the contract of the provider, on the cluster of the target.

use std::{sync::Arc, time::Duration};

use agent_sandbox_provider::{
    AgentSandboxProvider, CleanupFilter, Code, ExecOptions, KubernetesOptions, Sandbox, SandboxConfig, SandboxProvider,
    SandboxStatus, StopReason,
};
use agent_sandbox_sdk::v1beta1::Sandbox as SandboxObject;
use anyhow::{Context, Result, ensure};
use kube::api::ListParams;

use crate::World;

const PROJECT: &str = "shop";

/// An application's provider; another one is as after a restart.
fn application(world: &World) -> Result<AgentSandboxProvider> {
    let options = KubernetesOptions {
        namespace: world.namespace().into(),
        ready_timeout: world.deadline(),
        activity_interval: Duration::from_secs(10),
        clock: world.clock(),
        ..KubernetesOptions::default()
    };
    Ok(AgentSandboxProvider::new(world.client(), options)?)
}

fn config(world: &World) -> SandboxConfig {
    SandboxConfig {
        image: world.image().into(),
        // Little enough for several on one laptop.
        memory_mb: 256,
        cpu_cores: 0.5,
        ..SandboxConfig::new(PROJECT, "/srv/shop")
    }
}

async fn sh(sandbox: &dyn Sandbox, script: &str) -> Result<String> {
    let options = ExecOptions { cwd: Some("/workspace".into()), ..ExecOptions::new("sh", ["-c", script]) };
    let output = sandbox.exec(options).await?;
    ensure!(output.exit_code == 0, "{script}: {output:?}");
    Ok(output.stdout)
}

async fn becomes(world: &World, sandbox: &dyn Sandbox, status: SandboxStatus) -> Result<()> {
    let waiting = async {
        while sandbox.status() != status {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(world.deadline(), waiting).await;
    waited.with_context(|| format!("the sandbox is {:?}, not {status:?}", sandbox.status()))
}

/// Made, used, listed, refused a second time, stopped, made again on its workspace, deleted: and nothing is left.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_projects_sandbox_is_made_used_listed_stopped_made_again_and_destroyed(
    world: &World,
) -> Result<()> {
    let provider = application(world)?;
    world.step("made");
    let first = provider.create(&config(world)).await?;
    ensure!((first.project_id(), first.status()) == (PROJECT, SandboxStatus::Running), "{:?}", first.status());
    world.step("used");
    ensure!(sh(&*first, "echo kept > file; cat file").await? == "kept", "the workspace takes files");
    world.step("listed, and found by project and by id");
    let list = provider.list().await?;
    ensure!(list.len() == 1 && list[0].id == first.id() && list[0].memory_mb == 256, "{list:?}");
    let found = provider.get(PROJECT).await?.context("by its project")?;
    ensure!(found.id() == first.id(), "{}", found.id());
    ensure!(provider.get_by_id(first.id()).await?.is_some() && provider.get_by_id("none").await?.is_none(), "by id");
    world.step("refused a second time");
    let refused = provider.create(&config(world)).await.err().context("a project has one sandbox")?;
    ensure!((refused.code(), refused.status()) == (Code::PodAlreadyExists, 409), "{refused}");
    world.step("stopped");
    first.stop(StopReason::Manual).await?;
    becomes(world, &*first, SandboxStatus::Stopped).await?;
    ensure!(first.exec(ExecOptions::new("true", [""; 0])).await.is_err(), "nothing runs in it");
    world.step("made again");
    let second = provider.create(&config(world)).await?;
    ensure!(second.id() != first.id(), "another sandbox");
    ensure!(sh(&*second, "cat file").await? == "kept", "on the same workspace");
    world.step("destroyed");
    let running = CleanupFilter { status: vec![SandboxStatus::Running], ..CleanupFilter::default() };
    ensure!(provider.cleanup(&running).await? == 1, "one is deleted");
    ensure!(provider.list().await?.is_empty() && provider.get(PROJECT).await?.is_none(), "it is gone");
    let left = world.api::<SandboxObject>().list(&ListParams::default()).await?;
    ensure!(left.items.is_empty(), "the cluster has none: {left:?}");
    provider.shutdown().await;
    Ok(())
}

/// An application that comes back finds its sandbox on the cluster, with its files.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_restarted_application_finds_its_sandboxes_again(world: &World) -> Result<()> {
    let before = application(world)?;
    let made = before.create(&config(world)).await?;
    sh(&*made, "echo kept > file").await?;
    world.step("the application ends");
    before.shutdown().await;
    drop(before);
    world.step("another begins");
    let after = application(world)?;
    let list = after.list().await?;
    ensure!(list.len() == 1 && list[0].id == made.id() && list[0].status == SandboxStatus::Running, "{list:?}");
    let found: Arc<dyn Sandbox> = after.get(PROJECT).await?.context("by its project")?;
    ensure!(found.container_id() == made.container_id(), "{}", found.container_id());
    ensure!(sh(&*found, "cat file").await? == "kept", "it works on");
    let refused = after.create(&config(world)).await.err().context("it is there already")?;
    ensure!(refused.code() == Code::PodAlreadyExists, "{refused}");
    found.stop(StopReason::Manual).await?;
    ensure!(after.cleanup(&CleanupFilter::default()).await? == 1, "who finds it may delete it");
    after.shutdown().await;
    Ok(())
}

/// Shut down when nobody has used it for its minutes, and not while a command runs; its files stay.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_that_nobody_uses_is_shut_down_and_keeps_its_files(world: &World) -> Result<()> {
    let provider = application(world)?;
    let config = SandboxConfig { idle_timeout_minutes: 1, ..config(world) };
    let sandbox = provider.create(&config).await?;
    sh(&*sandbox, "echo kept > file").await?;
    world.step("a command runs for longer than a minute");
    sh(&*sandbox, "sleep 90").await?;
    ensure!(sandbox.status() == SandboxStatus::Running, "it is used: {:?}", sandbox.status());
    world.step("nobody uses it");
    becomes(world, &*sandbox, SandboxStatus::Idle).await?;
    let idle = world.now().duration_since(sandbox.last_activity()).as_secs();
    ensure!((59..=90).contains(&idle), "after {idle} s");
    world.step("somebody comes back");
    let again = provider.create(&config).await?;
    ensure!(sh(&*again, "cat file").await? == "kept", "the workspace is as it was");
    provider.shutdown().await;
    Ok(())
}
