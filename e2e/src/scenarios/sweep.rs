//! Cleaning up by a label.

use agent_sandbox_sdk::v1beta1::Sandbox;
use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};

use super::lifecycle::small;
use crate::World;

const LABEL: &str = "sweep.example.com/test";

/// What carries the label goes with all that it owns, the rest stays.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sweep_by_label_takes_what_carries_it_and_nothing_else(world: &World) -> Result<()> {
    for (name, labelled) in [("one", true), ("two", true), ("three", true), ("other", false)] {
        let mut sandbox = small(world, name);
        if labelled {
            sandbox.labels_mut().insert(LABEL.into(), "true".into());
        }
        world.sandboxes().create(&sandbox).await?;
    }
    world.step("four sandboxes are made");
    for name in ["one", "two", "three", "other"] {
        world.sandboxes().wait_ready(name, world.deadline()).await?;
    }
    world.step("three of them are swept up");
    let carrying = ListParams::default().labels(&format!("{LABEL}=true"));
    let swept = world.sandboxes().list(&carrying).await?;
    ensure!(swept.len() == 3, "{} carry the label", swept.len());
    world.api::<Sandbox>().delete_collection(&DeleteParams::background(), &carrying).await?;
    for sandbox in &swept {
        world.eventually_gone(sandbox).await?;
    }
    world.eventually_all::<Pod>("the other sandbox's alone", |pods| pods.len() == 1).await?;
    let left: Vec<String> =
        world.sandboxes().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    ensure!(left == ["other"], "{left:?}");
    Ok(())
}
