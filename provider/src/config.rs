//! [`Config`]: the command line, which is all that is told from outside before the settings are read.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use agent_sandbox_sdk::kubeconfig::ConnectOptions;
use clap::Parser;

use crate::{agent::AgentConfig, http::DEFAULT_RATE, selection::Target};

/// Sandboxes on Kubernetes or Docker, coding agents in them, and the HTTP API in front.
///
/// Without flags it brings its own simulated cluster; --kubeconfig, --context, --discover or the settings name a real one.
#[derive(Clone, Debug, Parser)]
#[command(name = "agent-sandbox-provider", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3001", value_name = "ADDRESS:PORT")]
    pub bind: SocketAddr,

    /// Listen on an address that other machines reach. The API is plain HTTP: put a proxy with TLS before it.
    #[arg(long)]
    pub allow_remote: bool,

    /// Folder for the store, the token and the embedded cluster's kubeconfig; made if it is not there
    /// [default: agent-sandbox-provider in $XDG_DATA_HOME or ~/.local/share].
    #[arg(long, value_name = "FOLDER", env = "AGENT_SANDBOX_DATA_DIR")]
    pub data_dir: Option<PathBuf>,

    /// File with the bearer token of the API, 20 letters at least; made with a token if it is not there
    /// [default: token in the data folder].
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The kubeconfig of the cluster in which sandboxes are made, unless the settings name one.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// A context of the kubeconfig [default: its current one].
    #[arg(long)]
    pub context: Option<String>,

    /// Use the cluster that kubectl would, or the pod's own, rather than the embedded one.
    #[arg(long)]
    pub discover: bool,

    /// Containers of the embedded cluster are real, isolated processes of this machine. It needs bubblewrap.
    #[arg(long)]
    pub real_processes: bool,

    /// The agent runner: a command in the sandbox, its words with spaces between
    /// [default: node /opt/agent-runner/dist/index.js].
    #[arg(long, value_name = "COMMAND", env = "AGENT_SANDBOX_RUNNER")]
    pub agent_runner: Option<String>,

    /// Requests of one address to the API per minute; 0 for any number.
    #[arg(long, default_value_t = DEFAULT_RATE, value_name = "NUMBER")]
    pub rate_limit: u32,

    /// Seconds that a shutdown waits for what is under way.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub shutdown_seconds: u64,
}

impl Config {
    /// The folder for everything that is kept.
    ///
    /// # Errors
    /// If none is given and there is no home folder.
    pub fn data_dir(&self) -> Result<PathBuf, String> {
        let usual = || {
            let data = std::env::var_os("XDG_DATA_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
            let data = data.or_else(|| std::env::home_dir().map(|home| home.join(".local/share")))?;
            Some(data.join("agent-sandbox-provider"))
        };
        let found = self.data_dir.clone().or_else(usual);
        found.ok_or_else(|| "there is no home folder: say --data-dir FOLDER".to_owned())
    }

    /// The cluster that is used unless the settings name one.
    pub fn target(&self) -> Target {
        let Self { kubeconfig, context, discover, .. } = self;
        match (kubeconfig, context, discover) {
            (None, None, false) => Target::Embedded,
            (kubeconfig, context, _) => Target::Cluster(ConnectOptions {
                kubeconfig: kubeconfig.clone(),
                context: context.clone(),
                ..ConnectOptions::default()
            }),
        }
    }

    /// How agents are run, where the settings say nothing about it.
    pub fn agents(&self) -> AgentConfig {
        let mut agents = AgentConfig::default();
        if let Some(runner) = &self.agent_runner {
            agents.runner = runner.split_whitespace().map(str::to_owned).collect();
        }
        agents
    }

    /// Whether the address may be listened on.
    ///
    /// # Errors
    /// If other machines reach it and nobody said that they may.
    pub fn check_bind(&self) -> Result<(), String> {
        if self.bind.ip().is_loopback() || self.allow_remote {
            return Ok(());
        }
        Err(format!(
            "{} is reached by other machines, and the API is plain HTTP: say --allow-remote if that is meant, \
             or listen on 127.0.0.1",
            self.bind
        ))
    }

    /// How long a shutdown waits.
    pub fn shutdown(&self) -> Duration {
        Duration::from_secs(self.shutdown_seconds)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config(flags: &[&str]) -> Config {
        Config::parse_from(["agent-sandbox-provider"].iter().chain(flags))
    }

    #[rstest]
    #[case(&[], true)]
    #[case(&["--bind", "[::1]:0"], true)]
    #[case(&["--bind", "0.0.0.0:80"], false)]
    #[case(&["--bind", "[::]:80"], false)]
    #[case(&["--bind", "10.0.0.1:80"], false)]
    #[case(&["--bind", "0.0.0.0:80", "--allow-remote"], true)]
    fn only_loopback_is_listened_on_unless_told_otherwise(#[case] flags: &[&str], #[case] allowed: bool) {
        assert_eq!(config(flags).check_bind().is_ok(), allowed);
    }

    #[test]
    fn a_flag_about_a_cluster_leaves_the_embedded_one() {
        assert_eq!(config(&[]).target(), Target::Embedded);
        assert_eq!(config(&["--discover"]).target(), Target::Cluster(ConnectOptions::default()));
        let Target::Cluster(options) = config(&["--kubeconfig", "/k", "--context", "c"]).target() else {
            panic!("a cluster was named")
        };
        assert_eq!((options.kubeconfig, options.context.as_deref()), (Some("/k".into()), Some("c")));
    }
}
