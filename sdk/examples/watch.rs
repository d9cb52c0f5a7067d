//! Tells what happens to the sandboxes of the namespace: `cargo run --example watch`.

use agent_sandbox_sdk::{AgentSandboxClient, informer::Change};
use anyhow::Result;
use kube::{ResourceExt, runtime::watcher::Config};

#[tokio::main]
async fn main() -> Result<()> {
    let client = AgentSandboxClient::try_default().await?;
    let mut informer = client.sandboxes().informer(Config::default());
    while let Some(change) = informer.next().await {
        match &change {
            Change::Added(sandbox) => println!("{} is there", sandbox.name_any()),
            Change::Deleted(sandbox) => println!("{} is gone", sandbox.name_any()),
            Change::Interrupted(error) => eprintln!("{:#}", anyhow::anyhow!("{error}")),
            _ => {}
        }
        if let Some(sandbox) = change.became_ready() {
            println!("{} is ready", sandbox.name_any());
        }
    }
    Ok(())
}
