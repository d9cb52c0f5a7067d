//! The simulated cluster in this process: for a first look, for tests, and for machines that have no other.

use std::{
    fs, io,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    pin::pin,
    time::Duration,
};

use fake_apiserver::Cluster;
use futures::TryStreamExt;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{
    Api, Client,
    runtime::{
        WatchStreamExt,
        wait::{Condition, await_condition, conditions::is_pod_running},
        watcher,
    },
};
use serde_json::Value;

use crate::selection::DEFAULT_NAMESPACE;

/// Where upstream's manifests put the controllers, and what they call them.
const SYSTEM: &str = "agent-sandbox-system";
const CONTROLLER: &str = "agent-sandbox-controller";

/// How long the controllers may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// A simulated cluster with a door for kubectl.
#[derive(Debug)]
pub(crate) struct Embedded {
    cluster: Cluster,
    kubeconfig: PathBuf,
}

impl Embedded {
    /// Starts it, and writes a kubeconfig into the folder.
    pub(crate) async fn start(folder: &Path, real_processes: bool) -> Result<Self, String> {
        let builder = Cluster::builder().system_time().real_processes(real_processes);
        let cluster =
            builder.start().await.map_err(|status| format!("the embedded cluster does not start: {status}"))?;
        match tokio::time::timeout(PATIENCE, controllers_run(cluster.client())).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(format!("the embedded cluster does not start: {error}")),
            Err(_) => return Err(format!("the embedded cluster's controllers did not start within {PATIENCE:?}")),
        }
        let door = cluster.serve_https(SocketAddr::from(([127, 0, 0, 1], 0))).await;
        let door = door.map_err(|error| format!("the embedded cluster cannot listen: {error}"))?;
        let kubeconfig = folder.join("kubeconfig");
        write(&kubeconfig, &in_namespace(&door.render(), DEFAULT_NAMESPACE))
            .map_err(|error| format!("cannot write the kubeconfig {}: {error}", kubeconfig.display()))?;
        Ok(Self { cluster, kubeconfig })
    }

    pub(crate) fn client(&self) -> Client {
        self.cluster.client()
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Ends it; the kubeconfig goes with it.
    pub(crate) async fn shutdown(self) {
        self.cluster.shutdown().await;
        let _ = fs::remove_file(&self.kubeconfig); // nobody can use it any more
    }
}

/// Waits until the controllers' pod is ready and their Deployment says so: the first look at the cluster is not to find it
/// half started. The Deployment alone is said to be rolled out before its pods are there.
async fn controllers_run(client: Client) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let ours = watcher::Config::default().labels("app=agent-sandbox-controller");
    let mut pods = pin!(watcher(Api::<Pod>::namespaced(client.clone(), SYSTEM), ours).applied_objects());
    while let Some(pod) = pods.try_next().await? {
        if is_pod_running().matches_object(Some(&pod)) {
            break;
        }
    }
    let deployments = Api::<Deployment>::namespaced(client, SYSTEM);
    await_condition(deployments, CONTROLLER, has_ready_pods).await?;
    Ok(())
}

fn has_ready_pods(deployment: Option<&Deployment>) -> bool {
    let status = deployment.and_then(|deployment| deployment.status.as_ref());
    status.and_then(|status| status.ready_replicas).is_some_and(|ready| ready > 0)
}

/// The kubeconfig with another namespace, so that `kubectl get sandboxes` shows them.
fn in_namespace(text: &str, namespace: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    value["contexts"][0]["context"]["namespace"] = namespace.into();
    value.to_string()
}

/// Writes a file for its owner alone, beside the path first, so that nobody reads half of it.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}
