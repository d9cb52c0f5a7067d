//! Runs a command in a sandbox and shows what it writes while it runs; Ctrl-C ends it there, not only here:
//! `cargo run --example exec -- SANDBOX tail -f /var/log/x`.

use agent_sandbox_sdk::{AgentSandboxClient, ExecOptions, Output, Signal, Utf8Decoder};
use anyhow::{Context, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let sandbox = words.next().context("which sandbox?")?;
    let command: Vec<String> = words.collect();

    let client = AgentSandboxClient::try_default().await?;
    let mut running = client.start(&sandbox, command, ExecOptions::default()).await?;
    let (mut out, mut err) = (Utf8Decoder::default(), Utf8Decoder::default());
    loop {
        tokio::select! {
            written = running.next() => match written? {
                Some(Output::Stdout(bytes)) => print!("{}", out.push(&bytes)),
                Some(Output::Stderr(bytes)) => eprint!("{}", err.push(&bytes)),
                None => break,
            },
            _ = tokio::signal::ctrl_c() => drop(running.kill(Signal::Term).await?),
        }
    }
    std::process::exit(running.wait().await?.exit_code);
}
