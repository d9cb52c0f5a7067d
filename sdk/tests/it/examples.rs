//! The programs of `examples/`, run as their users run them: with a kubeconfig.

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use agent_sandbox_sdk::{
    AgentSandboxClient,
    v1beta1::{Sandbox, SandboxTemplate, SandboxWarmPool},
};
use anyhow::{Context, Result, ensure};
use fake_apiserver::Cluster;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
};

const SOON: Duration = Duration::from_secs(60);

/// The folder that cargo builds examples into, with the tests of the crate; `--test` alone does not build them.
fn folder() -> Result<Option<PathBuf>> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).context("a test lies below deps")?.join("examples");
    if folder.join("health").exists() {
        return Ok(Some(folder));
    }
    ensure!(std::env::var_os("CI").is_none(), "the examples are not built");
    eprintln!("skipped: the examples are not built; cargo test -p agent-sandbox-sdk builds them");
    Ok(None)
}

fn example(folder: &Path, kubeconfig: &Path, name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(folder.join(name));
    command.args(arguments).env("K8S_KUBECONFIG", kubeconfig).kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn run(mut command: Command) -> Result<String> {
    let Output { status, stdout, stderr } = tokio::time::timeout(SOON, command.output()).await??;
    let stdout = String::from_utf8(stdout)?;
    ensure!(status.success(), "{status}: {stdout}{}", String::from_utf8_lossy(&stderr));
    Ok(stdout)
}

#[tokio::test]
async fn the_examples_do_what_they_say() -> Result<()> {
    let Some(programs) = folder()? else { return Ok(()) };
    let cluster = Cluster::builder().seed(1).system_time().start().await?;
    let files = tempfile::tempdir()?;
    let kubeconfig = files.path().join("config");
    std::fs::write(&kubeconfig, cluster.serve_https("127.0.0.1:0".parse()?).await?.render())?;
    let client = AgentSandboxClient::new(cluster.client());
    let idle = ["sleep", "infinity"];
    let template = SandboxTemplate::builder("python", "python:3.13").command(idle).build()?;
    client.templates().create(&template).await?;
    client.warm_pools().create(&SandboxWarmPool::builder("python", "python").build()?).await?;

    let mut watching =
        example(&programs, &kubeconfig, "watch", &[]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut seen = BufReader::new(watching.stdout.take().context("its output")?).lines();
    client.create(&Sandbox::builder("a", "busybox:1.36").command(idle).build()?).await?;
    client.wait_ready("a", SOON).await?;
    while tokio::time::timeout(SOON, seen.next_line()).await??.context("it goes on")? != "a is ready" {}
    watching.kill().await?;

    let health = run(example(&programs, &kubeconfig, "health", &[])).await?;
    ensure!(health.contains("ok  Cluster: Kubernetes v1.36") && !health.contains("no  "), "{health}");
    let said = run(example(&programs, &kubeconfig, "exec", &["a", "echo", "from inside"])).await?;
    ensure!(said == "from inside\n", "{said}");
    let said = run(example(&programs, &kubeconfig, "claim", &["python", "echo", "claimed"])).await?;
    ensure!(said == "claimed\n", "{said}");
    cluster.shutdown().await;
    Ok(())
}
