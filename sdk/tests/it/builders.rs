//! What a builder builds, the server takes.

use agent_sandbox_sdk::{
    AgentSandboxClient, Kind, Objects,
    builders::NotBuilt,
    v1beta1::{ClaimShutdownPolicy, Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool, UpdateStrategyType},
};
use anyhow::{Context, Result, ensure};
use fake_apiserver::Cluster;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::PostParams};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};

use crate::our_definitions;

#[derive(Clone, Debug)]
enum Object {
    Sandbox(Result<Sandbox, NotBuilt>),
    Template(Result<SandboxTemplate, NotBuilt>),
    Claim(Result<SandboxClaim, NotBuilt>),
    Pool(Result<SandboxWarmPool, NotBuilt>),
}

/// Names as they should be, and as people write them.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z]([a-z0-9-]{0,20}[a-z0-9])?", 1 => "[A-Za-z_. -]{0,8}"]
}

fn amount() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[1-9][0-9]{0,3}(m|Ki|Mi|Gi|k|M)?", 1 => "[0-9a-zA-Z. +-]{0,5}"]
}

fn objects() -> impl Strategy<Value = Object> {
    let words =
        || (name(), "[a-z:/]{0,12}", prop::collection::vec((name(), ".{0,8}"), 0..3), prop::option::of(amount()));
    let volumes = prop::collection::vec((name(), amount()), 0..3);
    let sandbox = (words(), volumes, any::<bool>()).prop_map(|((name, image, env, memory), volumes, asleep)| {
        let mut builder = Sandbox::builder(name, image).command(["sleep", "1d"]);
        for (name, value) in env {
            builder = builder.env(name, value);
        }
        for (name, size) in volumes {
            builder = builder.volume(&name, &format!("/{name}"), &size);
        }
        if let Some(memory) = memory {
            builder = builder.resource("memory", memory.clone(), memory);
        }
        Object::Sandbox(if asleep { builder.suspended() } else { builder }.build())
    });
    let template = words().prop_map(|(name, image, env, memory)| {
        let mut builder = SandboxTemplate::builder(name, image).network_unmanaged();
        for (name, value) in env {
            builder = builder.env(name, value);
        }
        Object::Template(builder.resource("cpu", "1", memory.unwrap_or_default()).build())
    });
    let policy = prop_oneof![Just("Delete"), Just("Retain"), Just("Forget")];
    let claim = (name(), name(), -2..5_i32, policy).prop_map(|(name, pool, seconds, policy)| {
        let builder = SandboxClaim::builder(name, pool).ttl_after_finished(seconds);
        Object::Claim(builder.on_expiry(ClaimShutdownPolicy::from(policy)).env("A", "b").build())
    });
    let pool = (name(), name(), -2..5_i32, prop_oneof![Just("Recreate"), Just("Sometimes")]).prop_map(
        |(name, template, replicas, strategy)| {
            let builder = SandboxWarmPool::builder(name, template).replicas(replicas);
            Object::Pool(builder.on_change(UpdateStrategyType::from(strategy)).build())
        },
    );
    prop_oneof![3 => sandbox, 1 => template, 1 => claim, 1 => pool]
}

/// Whether it was built.
async fn taken<K: Kind>(objects: Objects<K>, built: Result<K, NotBuilt>) -> Result<bool> {
    match built {
        Ok(object) => {
            let made = objects.create(&object).await.with_context(|| format!("{object:?}"))?;
            objects.delete_this(&made).await?;
            objects
                .wait_gone(made.meta().name.as_deref().unwrap_or_default(), std::time::Duration::from_secs(60))
                .await?;
            Ok(true)
        }
        Err(NotBuilt { violations, .. }) => {
            ensure!(!violations.is_empty(), "what is not built is told why");
            Ok(false)
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_builder_builds_the_server_takes() -> Result<()> {
    const DRAWN: usize = 200;
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client());
    for crd in our_definitions() {
        definitions.create(&PostParams::default(), &crd).await?;
    }
    let client = AgentSandboxClient::new(cluster.client());
    let (mut runner, objects, mut built) = (TestRunner::deterministic(), objects(), 0);
    for _ in 0..DRAWN {
        let object = objects.new_tree(&mut runner).map_err(|why| anyhow::anyhow!("{why}"))?.current();
        built += usize::from(match object {
            Object::Sandbox(object) => taken(client.sandboxes(), object).await?,
            Object::Template(object) => taken(client.templates(), object).await?,
            Object::Claim(object) => taken(client.claims(), object).await?,
            Object::Pool(object) => taken(client.warm_pools(), object).await?,
        });
    }
    assert!(built > DRAWN / 4 && built < DRAWN * 3 / 4, "{built} of {DRAWN} were built: both ways are to be gone");
    cluster.shutdown().await;
    Ok(())
}
