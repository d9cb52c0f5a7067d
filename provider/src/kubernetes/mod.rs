//! [`AgentSandboxProvider`]: sandboxes on Kubernetes, each a Sandbox object of Agent Sandbox.
//!
//! All that has to outlive the application stands on the cluster, in labels and annotations. One watch on the objects keeps
//! the provider's view fresh; nothing is asked in a loop.

mod create;
mod exec;
mod failures;
mod health;
mod images;
mod instance;
mod manifest;
mod options;
mod prepare;
mod record;

use std::{sync::Arc, time::Duration};

use agent_sandbox_sdk::{
    AgentSandboxClient, informer::Change, kubeconfig::Environment, v1beta1::Sandbox as SandboxObject,
};
use async_trait::async_trait;
use kube::{Client, ResourceExt, runtime::watcher};
use serde_json::json;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::options::{KubernetesOptions, NetworkAccess, WarmPool, Workspace};
use self::record::record;
use crate::{
    CleanupFilter, Error, HealthCheck, Sandbox, SandboxConfig, SandboxEvent, SandboxInfo, SandboxProvider,
    SandboxStatus, labels,
    machine::{self, Machine},
    tracker::{Record, Tracker},
};

/// How long the watch rests after the cluster did not know of sandboxes.
const RETRY: Duration = Duration::from_secs(10);

/// How long a shutdown waits for what is under way.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Sandboxes on Kubernetes. Dropping it ends its watch; sandboxes stay.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_provider::{AgentSandboxProvider, ExecOptions, KubernetesOptions, SandboxConfig, SandboxProvider};
///
/// # async fn example() -> Result<(), agent_sandbox_provider::Error> {
/// let provider = AgentSandboxProvider::connect(KubernetesOptions::default()).await?;
/// let sandbox = provider.create(&SandboxConfig::new("demo", "/home/me/demo")).await?;
/// println!("{}", sandbox.exec(ExecOptions::new("uname", ["-a"])).await?.stdout);
/// # Ok(())
/// # }
/// ```
pub struct AgentSandboxProvider(Arc<Inner>);

struct Inner {
    client: AgentSandboxClient,
    options: KubernetesOptions,
    tracker: Arc<Tracker>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Whether what all sandboxes share is there.
    prepared: tokio::sync::Mutex<bool>,
}

impl std::fmt::Debug for AgentSandboxProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AgentSandboxProvider").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Drop for AgentSandboxProvider {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

impl AgentSandboxProvider {
    /// Sandboxes on the cluster that the options, or the environment, name. Nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Code::KubeconfigNotFound`](crate::Code::KubeconfigNotFound),
    /// [`Code::KubeconfigInvalid`](crate::Code::KubeconfigInvalid),
    /// [`Code::ContextNotFound`](crate::Code::ContextNotFound), and as [`new`](Self::new).
    pub async fn connect(options: KubernetesOptions) -> Result<Self, Error> {
        let access = options.connect.find(&Environment::of_process()).map_err(failures::of_kubeconfig)?;
        let client = access.connect().await.map_err(failures::of_kubeconfig)?;
        Self::new(client, options)
    }

    /// Sandboxes on the cluster of that client. Must be called in a tokio runtime: the watch starts now.
    ///
    /// # Errors
    /// [`Code::NetworkPolicyCreationFailed`](crate::Code::NetworkPolicyCreationFailed) if a host that is to be open is a
    /// name.
    pub fn new(client: Client, options: KubernetesOptions) -> Result<Self, Error> {
        if let Some(network) = &options.network {
            network.blocks()?;
        }
        let client = AgentSandboxClient::new(client).in_namespace(&options.namespace);
        let tracker = Tracker::new(options.clock.clone());
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let inner = Arc::new(Inner { client, options, tracker, tasks, stop, prepared: tokio::sync::Mutex::new(false) });
        inner.spawn(inner.clone().follow());
        inner.spawn(inner.clone().put_off_shutdowns());
        if inner.options.warm_pool.is_some() {
            inner.spawn(inner.clone().warm_up());
        }
        Ok(Self(inner))
    }
}

impl Inner {
    /// Keeps the view fresh, for as long as the provider lives.
    async fn follow(self: Arc<Self>) {
        // An informer tells of what has gone since it began; a new one does not know what there was before it.
        let mut is_blind = false;
        loop {
            let mut informer = self.client.sandboxes().informer(watcher::Config::default().labels(labels::SANDBOX_ID));
            let view = informer.view();
            while let Some(change) = informer.next().await {
                match change {
                    Change::Synced => {
                        let listed = view.list();
                        if std::mem::take(&mut is_blind) {
                            let records = listed.iter().filter_map(|object| record(object)).collect();
                            self.tracker.observe_all(records, u64::MAX);
                        } else {
                            listed.iter().for_each(|object| self.observe(object));
                        }
                        self.tracker.set_connected(true);
                    }
                    // Before the first list is whole, nothing is told.
                    Change::Added(new) if view.is_synced() => self.observe(&new),
                    Change::Changed { old, new } => {
                        let id = |object: &SandboxObject| object.labels().get(labels::SANDBOX_ID).cloned();
                        if let Some(before) = id(&old).filter(|before| Some(before) != id(&new).as_ref()) {
                            self.tracker.gone(&before);
                        }
                        self.observe(&new);
                    }
                    Change::Deleted(old) => {
                        if let Some(id) = old.labels().get(labels::SANDBOX_ID) {
                            self.tracker.gone(id);
                        }
                    }
                    Change::Interrupted(error) => {
                        tracing::debug!(%error, "the watch on sandboxes was interrupted");
                        self.tracker.set_connected(false);
                    }
                    _ => {}
                }
            }
            self.tracker.set_connected(false);
            is_blind = true;
            tokio::time::sleep(RETRY).await;
        }
    }

    fn observe(&self, object: &SandboxObject) {
        if let Some(record) = record(object) {
            self.tracker.observe(record);
        }
    }

    /// Writes activity down from time to time, which puts off the shutdown of those that are used.
    async fn put_off_shutdowns(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.activity_interval).await;
            self.note_activity().await;
        }
    }

    async fn note_activity(&self) {
        for Record { info, idle_timeout, .. } in self.tracker.list() {
            let activity = self.tracker.activity(&info.id);
            if info.status != SandboxStatus::Running || !activity.take_fresh() {
                continue;
            }
            let last = activity.last();
            let patch = json!({
                "metadata": {"annotations": {labels::LAST_ACTIVITY: last.to_string()}},
                "spec": {"shutdownTime": manifest::shutdown_time(idle_timeout, last)},
            });
            if let Err(error) = self.client.sandboxes().patch(&info.container_id, &patch).await
                && !error.is_not_found()
            {
                tracing::warn!(sandbox = info.container_id, %error, "its activity is not written down");
                // To be tried again.
                activity.touch();
            }
        }
    }

    /// Makes the pool before the first sandbox is asked for.
    async fn warm_up(self: Arc<Self>) {
        let mut pause = Duration::from_secs(1);
        while let Err(error) = self.prepare().await {
            tracing::warn!(%error, "the warm pool is not there yet");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(60));
        }
    }
}

#[async_trait]
impl SandboxProvider for AgentSandboxProvider {
    fn name(&self) -> &'static str {
        "kubernetes"
    }

    async fn create(&self, config: &SandboxConfig) -> Result<Arc<dyn Sandbox>, Error> {
        machine::create(&self.0, config).await
    }

    async fn get(&self, project_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
        machine::of_project(&self.0, project_id).await
    }

    async fn get_by_id(&self, sandbox_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
        machine::by_id(&self.0, sandbox_id).await
    }

    async fn list(&self) -> Result<Vec<SandboxInfo>, Error> {
        machine::list(&*self.0).await
    }

    async fn pull_image(&self, image: &str) -> Result<(), Error> {
        if self.is_image_available(image).await.unwrap_or(false) { Ok(()) } else { self.0.pull(image).await }
    }

    async fn is_image_available(&self, image: &str) -> Result<bool, Error> {
        self.0.has_image(image).await
    }

    async fn health_check(&self) -> HealthCheck {
        self.0.health().await
    }

    async fn cleanup(&self, filter: &CleanupFilter) -> Result<usize, Error> {
        machine::cleanup(&*self.0, filter).await
    }

    fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        self.0.tracker.events()
    }

    async fn shutdown(&self) {
        let inner = &self.0;
        let end = async {
            inner.note_activity().await;
            inner.stop.cancel();
            inner.tasks.close();
            inner.tasks.wait().await;
        };
        if tokio::time::timeout(SHUTDOWN, end).await.is_err() {
            tracing::warn!("the provider did not come to rest within {SHUTDOWN:?}");
        }
        inner.stop.cancel();
    }
}
