//! While the API server misbehaves (lost connections, cut and expired watches, 410s, conflicts, delays, errors with and
//! without effect) waits and informers never miss the end state.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_sandbox_sdk::{
    AgentSandboxClient,
    v1beta1::{
        PodTemplate, SandboxClaim, SandboxClaimSpec, SandboxTemplate, SandboxTemplateSpec, SandboxWarmPool,
        SandboxWarmPoolRef, SandboxWarmPoolSpec,
    },
};
use anyhow::{Context, Result, ensure};
use fake_apiserver::{Cluster, Rule, rule::Guard};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use kube::{ResourceExt, api::ListParams, runtime::watcher::Config};

/// Storms, one after the other in one cluster; `FAULT_SEEDS` says how many others, `FAULT_SEED` names one.
const SEEDS: u64 = 8;

/// Who walks through the storm.
const WANDERER: &str = "wanderer";
/// Who the controllers are.
const CONTROLLERS: &str = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";

const SOON: Duration = Duration::from_secs(3600);

fn pod_template() -> PodTemplate {
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    PodTemplate::of(PodSpec { containers: vec![main], ..Default::default() })
}

async fn with_a_pool(cluster: &Cluster) -> Result<AgentSandboxClient> {
    let calm = AgentSandboxClient::new(cluster.client());
    let spec = SandboxTemplateSpec { pod_template: pod_template(), ..Default::default() };
    calm.templates().create(&SandboxTemplate::new("tpl", spec)).await?;
    let spec = SandboxWarmPoolSpec {
        replicas: Some(2),
        sandbox_template_ref: agent_sandbox_sdk::v1beta1::SandboxTemplateRef { name: "tpl".into() },
        ..Default::default()
    };
    calm.warm_pools().create(&SandboxWarmPool::new("pool", spec)).await?;
    calm.warm_pools().wait_filled("pool", SOON).await?;
    Ok(calm)
}

/// A storm for the client, and a lighter one for the controllers.
fn break_loose(cluster: &Cluster, seed: u64) -> Vec<Guard> {
    let ours = Rule::storm(seed).into_iter().map(|rule| rule.user(WANDERER));
    let theirs = Rule::storm(seed + 1000).into_iter().map(|rule| rule.user(CONTROLLERS).skip(1).times(20));
    ours.chain(theirs).map(|rule| cluster.rules().install(rule)).collect()
}

/// A claim is made, served, suspended with its sandbox, and deleted: what the stormy client waits for comes, and what its
/// informer shows is in the end what there is.
async fn one_life(cluster: &Cluster, calm: &AgentSandboxClient, seed: u64) -> Result<u64> {
    let stormy = AgentSandboxClient::new(cluster.client_as(WANDERER, &["system:masters"]));
    let (ready, deleted) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (hear_ready, hear_deleted) = (ready.clone(), deleted.clone());
    let informer = stormy
        .claims()
        .informer(Config::default().timeout(60))
        .on_ready(move |claim| hear_ready.lock().unwrap().push(claim.name_any()))
        .on_deleted(move |claim| hear_deleted.lock().unwrap().push(claim.name_any()));
    let view = informer.view();
    let guards = break_loose(cluster, seed);
    let informing = tokio::spawn(informer.run());

    let name = format!("c{seed}");
    let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "pool".into() }, ..Default::default() };
    calm.claims().create(&SandboxClaim::new(&name, spec)).await?;
    let served = stormy.claims().wait_ready(&name, SOON).await.context("the claim is served")?;
    let sandbox = served.sandbox_name().context("a served claim names its sandbox")?.to_owned();
    let told = async || ready.lock().unwrap().contains(&name);
    cluster.wait_for("the informer tells of the claim", SOON, told).await?;

    calm.suspend(&sandbox).await?;
    stormy.wait_suspended(&sandbox, SOON).await.context("the sandbox is suspended")?;
    calm.resume(&sandbox).await?;
    stormy.wait_ready(&sandbox, SOON).await.context("the sandbox is ready again")?;

    calm.claims().delete(&name).await?;
    stormy.claims().wait_gone(&name, SOON).await.context("the claim is gone")?;
    stormy.wait_gone(&sandbox, SOON).await.context("the sandbox is gone")?;
    let left: BTreeSet<String> =
        calm.claims().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
    let shows = async || view.list().iter().map(|claim| claim.name_any()).collect::<BTreeSet<_>>() == left;
    cluster.wait_for("the informer shows what there is", SOON, shows).await?;
    ensure!(*deleted.lock().unwrap() == [name], "the deletion was told as {deleted:?}");
    informing.abort();
    Ok(guards.iter().map(Guard::hits).sum())
}

#[tokio::test(start_paused = true)]
async fn waits_and_informers_never_miss_the_end_state_in_a_storm() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let calm = with_a_pool(&cluster).await?;
    let number = std::env::var("FAULT_SEEDS").map_or(Ok(SEEDS), |number| number.parse())?;
    let seeds = match std::env::var("FAULT_SEED") {
        Ok(seed) => vec![seed.parse()?],
        Err(_) => (0..number).collect::<Vec<u64>>(),
    };
    let (mut hits, lives) = (0, seeds.len() as u64);
    for seed in seeds {
        hits += one_life(&cluster, &calm, seed).await.with_context(|| {
            let storm: Vec<_> = Rule::storm(seed).iter().map(ToString::to_string).collect();
            format!("in storm {seed}; again with FAULT_SEED={seed}; its rules:\n{}", storm.join("\n"))
        })?;
    }
    ensure!(hits > lives, "only {hits} faults: that was no storm");
    cluster.shutdown().await;
    Ok(())
}

/// Every fault by itself, each time until it has struck.
#[tokio::test(start_paused = true)]
async fn a_wait_outlives_each_fault_by_itself() -> Result<()> {
    use fake_apiserver::rule::Failure;

    let cluster = Cluster::builder().seed(2).start().await?;
    let calm = with_a_pool(&cluster).await?;
    let faults = [
        Rule::cut_watch(0).times(3),
        Rule::expire_watch(0).times(3),
        Rule::fail(Failure::of(410)).verbs(["watch"]).times(2),
        Rule::fail(Failure::of(429).retry_after(1)).times(2),
        Rule::fail(Failure::of(500)).times(2),
        Rule::fail(Failure::of(503)).times(2),
        Rule::fail(Failure::of(504)).times(2),
        Rule::drop_connection(false).times(2),
        Rule::delay(Duration::from_secs(20)).times(2),
        Rule::compact().times(2),
    ];
    for (at, fault) in faults.into_iter().enumerate() {
        let what = fault.to_string();
        let stormy = AgentSandboxClient::new(cluster.client_as(WANDERER, &["system:masters"]));
        let guard = cluster.rules().install(fault.user(WANDERER));
        // The claim is served only when the wait has begun.
        let paused = cluster.rules().install(Rule::pause("sandboxclaim-controller"));
        let name = format!("f{at}");
        let waiting = {
            let (claims, name) = (stormy.claims(), name.clone());
            let spec =
                SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "pool".into() }, ..Default::default() };
            calm.claims().create(&SandboxClaim::new(&name, spec)).await?;
            tokio::spawn(async move { claims.wait_ready(&name, SOON).await })
        };
        cluster.clock().sleep(Duration::from_secs(60)).await;
        drop(paused);
        waiting.await?.with_context(|| what.clone())?;
        ensure!(guard.hits() > 0, "{what} never struck");
        drop(guard);
        calm.claims().delete(&name).await?;
        calm.claims().wait_gone(&name, SOON).await?;
        calm.warm_pools().wait_filled("pool", SOON).await?;
    }
    cluster.shutdown().await;
    Ok(())
}
