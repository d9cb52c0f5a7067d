//! `controllers`: the sandbox controllers and the kubelet as clients of another API server.

use std::{
    path::PathBuf,
    process::{ExitCode, id},
};

use clap::Args;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Signals;
use crate::{
    actor::{Api, Candidate, Remote, Server},
    clock::Clock,
    controllers,
    ids::Ids,
    kubelet::{self, Kubelet},
    sandbox,
};

/// The lock that upstream's controller takes (`cmd/agent-sandbox-controller/manageroptions.go`): the two exclude each
/// other.
const LEASE: &str = "a3317529.agent-sandbox.x-k8s.io";

#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// The kubeconfig of the API server.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: PathBuf,
    /// A context of the kubeconfig; its current one by default.
    #[arg(long)]
    context: Option<String>,
    /// No node and no kubelet.
    #[arg(long)]
    no_kubelet: bool,
    /// No Agent Sandbox controllers.
    #[arg(long)]
    no_sandbox_controllers: bool,
    #[command(flatten)]
    sandbox: super::SandboxFlags,
    /// Also what kube-controller-manager does for everybody (garbage collection, namespaces, default service accounts,
    /// volume claims in use; with the kubelet also deployments, jobs and the like), for API servers that run without it,
    /// as envtest's do.
    #[arg(long)]
    cluster_controllers: bool,
    /// Start at once, whoever else runs.
    #[arg(long)]
    no_leader_elect: bool,
    /// Namespace of the lease by which one of several leads.
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    leader_election_namespace: String,
}

/// Runs until a signal comes, or the lease is lost.
pub(super) async fn run(options: Options) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let (client, url) = connect(&options).await?;
    let ids = Ids::seeded(u64::from(id())); // nobody replays what runs against another server
    let remote = Remote::connect(client, Clock::system(), ids.clone()).await;
    let remote = remote.map_err(|error| format!("cannot discover what {url} serves: {error}"))?;
    let server = Server::from(remote.clone());
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());

    let api = Api::new(server.clone(), "", "fake-apiserver");
    let identity = format!("fake-apiserver_{}", ids.uid());
    let candidate = Candidate::new(api, &options.leader_election_namespace, LEASE, &identity);
    if !options.no_leader_elect {
        let lease = format!("{}/{LEASE}", options.leader_election_namespace);
        println!("waiting for the lease {lease} at {url}");
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            _ = candidate.acquire(&stop) => {}
        }
    }
    if !options.no_sandbox_controllers {
        sandbox::install(&server, sandbox::definitions()).await.map_err(|error| describe(&error))?;
        remote.discover().await.map_err(|error| format!("cannot discover what {url} serves: {error}"))?;
        sandbox::start(&server, &options.sandbox.clone().settings(), &tasks, &stop);
    }
    if options.cluster_controllers {
        let settings = controllers::Settings { workloads: !options.no_kubelet, ..controllers::Settings::default() };
        controllers::start(&server, &settings, &tasks, &stop);
    }
    tasks.spawn(remote.keep_discovering(stop.clone()));
    let machine = kubelet::Settings { startup: crate::cluster::STARTUP, ..kubelet::Settings::default() };
    let _kubelet = (!options.no_kubelet).then(|| Kubelet::start(&server, machine, stop.clone(), tasks.clone()));
    println!("ready {url}");

    let held = CancellationToken::new();
    let lost = async {
        match options.no_leader_elect {
            true => std::future::pending().await,
            false => candidate.hold(&held).await,
        }
    };
    tokio::pin!(lost);
    let result = tokio::select! {
        biased;
        _ = signals.next() => Ok(ExitCode::SUCCESS),
        result = &mut lost => result.map(|()| ExitCode::SUCCESS).map_err(|error| format!("no longer the leader: {error}")),
    };
    // First everything that writes stops, then the next may lead.
    stop.cancel();
    tasks.close();
    if server.clock().timeout(crate::cluster::SHUTDOWN, tasks.wait()).await.is_none() {
        tracing::warn!(tasks = tasks.len(), "tasks did not end in time");
    }
    held.cancel();
    if result.is_ok() && !options.no_leader_elect {
        lost.await.map_err(|error| error.to_string())?;
    }
    result
}

async fn connect(options: &Options) -> Result<(Client, String), String> {
    let path = options.kubeconfig.display();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig);
    let kubeconfig = kubeconfig.map_err(|error| format!("cannot read the kubeconfig {path}: {}", describe(&error)))?;
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &choice).await;
    let config = config.map_err(|error| format!("cannot use the kubeconfig {path}: {}", describe(&error)))?;
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|error| format!("cannot talk to {url}: {}", describe(&error)))?;
    Ok((client, url))
}

/// An error with its causes.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}
