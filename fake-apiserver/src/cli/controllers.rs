//! `controllers`: the sandbox controllers and the kubelet as clients of another API server.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{ExitCode, id},
    time::Duration,
};

use bytes::Bytes;
use clap::Args;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Signals;
use crate::{
    actor::Api,
    cluster::outside::{LEASE, Outside, Settings, describe},
    sandbox,
};

/// How long a scrape of the measurements may take.
const SCRAPE: Duration = Duration::from_secs(10);

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
    /// Certificates (PEM) of those who may ask the kubelet about pods, as `--kubelet-client-certificate` of an API server
    /// names one; by default nobody is asked for one, and the kubelet's door is on loopback.
    #[arg(long, value_name = "FILE")]
    kubelet_client_ca: Option<PathBuf>,
    /// Containers are real, isolated processes of this machine.
    #[arg(long)]
    real_processes: bool,
    /// Start at once, whoever else runs.
    #[arg(long)]
    no_leader_elect: bool,
    /// Where the controllers' measurements are served, as plain HTTP at `/metrics`; nowhere by default.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    metrics_bind_address: Option<SocketAddr>,
    /// Namespace of the lease by which one of several leads.
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    leader_election_namespace: String,
}

/// An address as Go writes it, `:8080` for all of the machine's.
fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole.parse().map_err(|error| format!("{error}"))
}

/// Serves the controllers' measurements until the token ends.
async fn serve_metrics(listener: TcpListener, metrics: sandbox::Metrics, api: Api, stop: CancellationToken) {
    let answer = async |request: hyper::Request<hyper::body::Incoming>| {
        let (code, text) = match request.uri().path() {
            "/metrics" => match metrics.families(&api).await {
                Ok(families) => (200, sandbox::metrics_text(&families)),
                Err(error) => (500, format!("the sandboxes cannot be counted: {error}\n")),
            },
            _ => (404, "404 page not found\n".to_owned()),
        };
        let response = hyper::Response::builder().status(code).header("Content-Type", "text/plain; version=0.0.4");
        response.body(Full::new(Bytes::from(text)))
    };
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        // One scrape at a time is all that anybody needs.
        let connection =
            http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service_fn(&answer));
        let _ = api.clock().timeout(SCRAPE, connection).await;
    }
}

/// Runs until a signal comes, or the lease is lost.
pub(super) async fn run(options: Options) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let config = config(&options).await?;
    let outside = Outside::connect(config, u64::from(id())).await?; // nobody replays what runs against another server
    let url = outside.url();
    let clients = options.kubelet_client_ca.as_ref().map(|path| {
        let read = std::fs::read_to_string(path);
        read.map_err(|error| format!("cannot read the certificates {}: {error}", path.display()))
    });
    let settings = Settings {
        kubelet: !options.no_kubelet,
        sandbox_controllers: !options.no_sandbox_controllers,
        sandbox: options.sandbox.clone().settings(),
        cluster_controllers: options.cluster_controllers,
        kubelet_client_ca: clients.transpose()?,
        real_processes: options.real_processes,
    };
    let candidate = outside.candidate(&options.leader_election_namespace, &outside.identity());
    if !options.no_leader_elect {
        let lease = format!("{}/{LEASE}", options.leader_election_namespace);
        println!("waiting for the lease {lease} at {url}");
        tokio::select! {
            biased;
            _ = signals.next() => return Ok(ExitCode::SUCCESS),
            _ = candidate.acquire(outside.stop()) => {}
        }
    }
    outside.start(&settings).await?;
    println!("ready {url}");

    if let Some(address) = options.metrics_bind_address {
        let listener = TcpListener::bind(address).await;
        let listener = listener.map_err(|error| format!("cannot serve metrics at {address}: {error}"))?;
        let (api, metrics) = (outside.controllers_api(), outside.metrics().clone());
        outside.tasks().spawn(serve_metrics(listener, metrics, api, outside.stop().clone()));
    }

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
    outside.shutdown().await;
    held.cancel();
    if result.is_ok() && !options.no_leader_elect {
        lost.await.map_err(|error| error.to_string())?;
    }
    result
}

async fn config(options: &Options) -> Result<Config, String> {
    let path = options.kubeconfig.display();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig);
    let kubeconfig = kubeconfig.map_err(|error| format!("cannot read the kubeconfig {path}: {}", describe(&error)))?;
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &choice).await;
    config.map_err(|error| format!("cannot use the kubeconfig {path}: {}", describe(&error)))
}
