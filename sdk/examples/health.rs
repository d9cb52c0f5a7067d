//! Says whether Agent Sandbox can be used, and what to do if not: `cargo run --example health -- [CONTEXT]`.

use agent_sandbox_sdk::{AgentSandboxClient, kubeconfig::ConnectOptions};
use anyhow::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let options = ConnectOptions { context: std::env::args().nth(1), ..Default::default() };
    let health = AgentSandboxClient::connect(&options).await?.health().await;
    print!("{health}");
    std::process::exit(i32::from(!health.is_healthy()));
}
