//! The same stories through every door: in memory and in virtual time, over HTTPS with a kubeconfig, and on a real cluster
//! if `SDK_KUBECONFIG` names a kubeconfig for one that has Agent Sandbox with its extensions (its current context; a
//! namespace of its own is made there and deleted).

use std::time::Duration;

use agent_sandbox_sdk::{
    AgentSandboxClient, ExecOptions, WaitError,
    informer::Change,
    kubeconfig::ConnectOptions,
    v1beta1::{OperatingMode, Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool},
};
use anyhow::{Context, Result, ensure};
use fake_apiserver::Cluster;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::watcher::Config,
};

const LATER: Duration = Duration::from_secs(300);
const IDLE: [&str; 3] = ["sh", "-c", "echo begun; while :; do sleep 1; done"];

/// One sandbox from its creation to its end.
async fn a_life(client: &AgentSandboxClient) -> Result<()> {
    let created = client.create(&Sandbox::builder("life", "busybox:1.36").command(IDLE).build()?).await?;
    ensure!(*created.operating_mode() == OperatingMode::Running);
    ensure!(client.create(&created_again(&created)).await.is_err_and(|error| error.is_already_exists()));
    let ready = client.wait_ready("life", LATER).await?;
    ensure!(client.list(&ListParams::default()).await?.iter().any(|sandbox| sandbox.uid() == ready.uid()));

    let mut options = ExecOptions { cwd: Some("/tmp".into()), stdin: Some("in\n".into()), ..Default::default() };
    options.env.insert("TOKEN".into(), "it's\nsecret".into());
    let output =
        client.exec_with("life", ["sh", "-c", "pwd; echo \"$TOKEN\"; cat; echo bad >&2; exit 3"], options).await?;
    ensure!(output.stdout_text() == "/tmp\nit's\nsecret\nin\n" && output.stderr_text() == "bad\n", "{output:?}");
    ensure!(output.exit_code == 3);
    client.write_file("life", "/tmp/file", b"kept\n".to_vec()).await?;
    ensure!(client.read_file("life", "/tmp/file", 100).await? == b"kept\n");
    ensure!(client.logs("life", &LogParams::default()).await?.starts_with("begun\n"));

    client.suspend("life").await?;
    client.wait_suspended("life", LATER).await?;
    let waited = client.wait_ready("life", LATER).await;
    ensure!(matches!(waited, Err(WaitError::Ended { .. })), "{waited:?}");
    client.resume("life").await?;
    client.wait_ready("life", LATER).await?;
    client.set_shutdown_time("life", Some("2100-01-01T00:00:00Z".parse()?)).await?;
    let later = client.extend_shutdown_time("life", Duration::from_secs(3600)).await?.spec.shutdown_time;
    ensure!(later.is_some_and(|time| time.0.to_string() == "2100-01-01T01:00:00Z"));
    client.delete("life").await?;
    client.wait_gone("life", LATER).await?;
    ensure!(client.get("life").await.is_err_and(|error| error.is_not_found()));
    Ok(())
}

fn created_again(created: &Sandbox) -> Sandbox {
    Sandbox::new(&created.name_any(), created.spec.clone())
}

/// A claim that is served from a pool, which is scaled; an informer hears of it all.
async fn a_claim(client: &AgentSandboxClient) -> Result<()> {
    let mut informer = client.claims().informer(Config::default());
    let view = informer.view();
    while !matches!(informer.next().await.context("it goes on")?, Change::Synced) {}
    client.templates().apply(&SandboxTemplate::builder("tpl", "busybox:1.36").command(IDLE).build()?, false).await?;
    client.warm_pools().apply(&SandboxWarmPool::builder("pool", "tpl").replicas(1).build()?, false).await?;
    client.warm_pools().wait_filled("pool", LATER).await?;
    client.claims().create(&SandboxClaim::builder("mine", "pool").build()?).await?;
    let served = client.claims().wait_ready("mine", LATER).await?;
    let sandbox = served.sandbox_name().context("a served claim names its sandbox")?;
    ensure!(client.exec(sandbox, ["echo", "hello"]).await?.stdout_text() == "hello\n");
    client.warm_pools().scale("pool", 2).await?;
    client.warm_pools().wait_filled("pool", LATER).await?;
    let told = async {
        while view.get("mine").is_none_or(|claim| claim.sandbox_name() != Some(sandbox)) {
            informer.next().await.context("it goes on")?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(LATER, told).await??;
    client.claims().delete("mine").await?;
    client.claims().wait_gone("mine", LATER).await?;
    client.wait_gone(sandbox, LATER).await?;
    Ok(())
}

/// What cannot come is told at once, and what was not done says so.
async fn mistakes(client: &AgentSandboxClient) -> Result<()> {
    ensure!(!client.sandboxes().exists("nobody").await?);
    ensure!(client.suspend("nobody").await.is_err_and(|error| error.is_not_found() && !error.is_retryable()));
    ensure!(matches!(client.wait_ready("nobody", LATER).await, Err(WaitError::Gone { .. })));
    ensure!(client.exec("nobody", ["true"]).await.is_err());
    client.claims().create(&SandboxClaim::builder("lost", "none").build()?).await?;
    let waited = client.claims().wait_ready("lost", LATER).await;
    ensure!(matches!(&waited, Err(WaitError::Ended { reason, .. }) if reason == "WarmPoolNotFound"), "{waited:?}");
    client.claims().delete("lost").await?;
    Ok(())
}

async fn stories(client: &AgentSandboxClient) -> Result<()> {
    a_life(client).await.context("a life")?;
    a_claim(client).await.context("a claim")?;
    mistakes(client).await.context("mistakes")
}

#[tokio::test(start_paused = true)]
async fn the_stories_are_true_in_memory() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    stories(&AgentSandboxClient::new(cluster.client())).await?;
    cluster.shutdown().await;
    Ok(())
}

/// In real time: the pods of the stories end at once when they are told to.
#[tokio::test]
async fn the_stories_are_true_over_https() -> Result<()> {
    let cluster = Cluster::builder().seed(1).system_time().start().await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config"), cluster.serve_https("127.0.0.1:0".parse()?).await?.render())?;
    let options = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..Default::default() };
    stories(&AgentSandboxClient::connect(&options).await?).await?;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn the_stories_are_true_on_a_real_cluster() -> Result<()> {
    let Some(kubeconfig) = std::env::var_os("SDK_KUBECONFIG") else {
        eprintln!("skipped: SDK_KUBECONFIG names no kubeconfig of a cluster");
        return Ok(());
    };
    let options = ConnectOptions { kubeconfig: Some(kubeconfig.into()), ..Default::default() };
    let client = AgentSandboxClient::connect(&options).await?;
    let namespaces = Api::<Namespace>::all(client.kube());
    let mut namespace = Namespace::default();
    namespace.metadata.generate_name = Some("sdk-stories-".into());
    let name = namespaces.create(&PostParams::default(), &namespace).await?.name_any();
    let outcome = stories(&client.in_namespace(&name)).await;
    namespaces.delete(&name, &DeleteParams::default()).await?;
    outcome
}
