//! What the health check finds.

use std::time::Duration;

use agent_sandbox_sdk::health::{Topic, Verdict};
use anyhow::{Result, bail, ensure};

use crate::World;

/// The API server answers, the kinds are served and defined, the namespace is there, and the caller may work in it.
///
/// # Errors
/// If one of these is not so.
pub(super) async fn the_cluster_is_fit_for_sandboxes(world: &World) -> Result<()> {
    world.step("the health check looks at everything");
    let health = world.sandboxes().health().await;
    for topic in [Topic::Cluster, Topic::Kinds, Topic::Definitions, Topic::Namespace, Topic::Permissions] {
        ensure!(health.about(topic).next().is_some(), "nothing is said about {topic:?}:\n{health}");
        ensure!(health.about(topic).all(|row| row.verdict == Verdict::Good), "{topic:?} is not good:\n{health}");
    }
    let version = health.about(Topic::Cluster).any(|row| row.found.contains('v'));
    ensure!(version, "the cluster's version is told:\n{health}");
    world.step("a namespace that is not there is told");
    let elsewhere = world.sandboxes().in_namespace("no-such-namespace").health().await;
    ensure!(elsewhere.about(Topic::Namespace).any(|row| row.verdict == Verdict::Bad), "{elsewhere}");
    ensure!(!elsewhere.is_healthy(), "{elsewhere}");
    Ok(())
}

/// The controller's Deployment is found and runs, and nothing is wrong.
///
/// # Errors
/// If something is.
pub(super) async fn the_controller_is_found_and_everything_is_healthy(world: &World) -> Result<()> {
    world.step("the health check looks for the controller");
    let found = async {
        loop {
            let health = world.sandboxes().health().await;
            if health.about(Topic::Controller).any(|row| row.verdict == Verdict::Good) {
                return health;
            }
            tokio::time::sleep(Duration::from_millis(500)).await; // a young cluster's controller starts
        }
    };
    let health = match tokio::time::timeout(world.deadline(), found).await {
        Ok(health) => health,
        Err(_) => bail!("no controller:\n{}", world.sandboxes().health().await),
    };
    ensure!(health.is_healthy(), "{health}");
    Ok(())
}
