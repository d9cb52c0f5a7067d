//! Takes a sandbox from a pool, runs a command in it, and gives it back:
//! `cargo run --example claim -- POOL echo hello`.

use std::time::Duration;

use agent_sandbox_sdk::{
    AgentSandboxClient,
    v1beta1::{SandboxClaim, SandboxClaimSpec, SandboxWarmPoolRef},
};
use anyhow::{Context, Result};
use kube::ResourceExt;

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let pool = words.next().context("which pool?")?;
    let command: Vec<String> = words.collect();

    let client = AgentSandboxClient::try_default().await?;
    let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: pool }, ..Default::default() };
    let mut claim = SandboxClaim::new("", spec);
    claim.metadata.name = None;
    claim.metadata.generate_name = Some("example-".into());
    let claim = client.claims().create(&claim).await?.name_any();

    let done = async {
        let served = client.claims().wait_ready(&claim, Duration::from_secs(180)).await?;
        let sandbox = served.sandbox_name().context("a Ready claim names its sandbox")?.to_owned();
        let output = client.exec(&sandbox, command).await?;
        print!("{}", output.stdout_text());
        eprint!("{}", output.stderr_text());
        anyhow::Ok(output.exit_code)
    }
    .await;
    client.claims().delete(&claim).await?;
    std::process::exit(done?);
}
