//! [`DockerProvider`]: sandboxes on a Docker Engine, each a container that shows the project at `/workspace`.
//!
//! All that has to outlive the application stands in the containers' labels. The engine's events keep the view fresh.

mod container;
mod create;
mod exec;
mod failures;
mod instance;
mod options;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker,
    query_parameters::{CreateImageOptions, EventsOptions},
};
use futures::StreamExt;
use tokio::sync::broadcast;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::failures::{is_absent_image, of, status};
pub use self::options::DockerOptions;
use crate::{
    CleanupFilter, Code, Error, HealthCheck, HealthRow, Sandbox, SandboxConfig, SandboxEvent, SandboxInfo,
    SandboxProvider, SandboxStatus, StopReason,
    audit::audit,
    labels,
    machine::{self, Machine},
    tracker::{Record, Tracker},
};

/// How long the engine's events are missed before they are asked for again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a shutdown waits for what is under way.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Sandboxes on a Docker Engine. Dropping it ends what it does in the background; sandboxes stay.
///
/// # Examples
/// ```no_run
/// use agent_sandbox_provider::{DockerOptions, DockerProvider, ExecOptions, SandboxConfig, SandboxProvider};
///
/// # async fn example() -> Result<(), agent_sandbox_provider::Error> {
/// let provider = DockerProvider::connect(DockerOptions::default()).await?;
/// let sandbox = provider.create(&SandboxConfig::new("demo", "/home/me/demo")).await?;
/// println!("{}", sandbox.exec(ExecOptions::new("ls", ["/workspace"])).await?.stdout);
/// # Ok(())
/// # }
/// ```
pub struct DockerProvider(Arc<Inner>);

struct Inner {
    docker: Docker,
    options: DockerOptions,
    tracker: Arc<Tracker>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// What was told to stop: a container does not know why it stands still.
    told: Told,
    /// Lists are numbered, so that an older one does not undo a younger.
    lists: AtomicU64,
}

/// Why sandboxes were told to stop, and whether they have, by id.
#[derive(Default)]
struct Told(Mutex<BTreeMap<String, (StopReason, bool)>>);

impl Told {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (StopReason, bool)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, id: &str, reason: StopReason) {
        self.lock().insert(id.into(), (reason, false));
    }

    fn done(&self, id: &str) {
        if let Some(told) = self.lock().get_mut(id) {
            told.1 = true;
        }
    }

    fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    fn get(&self, id: &str) -> Option<(StopReason, bool)> {
        self.lock().get(id).copied()
    }
}

impl std::fmt::Debug for DockerProvider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DockerProvider").field("options", &self.0.options).finish_non_exhaustive()
    }
}

impl Drop for DockerProvider {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

impl DockerProvider {
    /// Sandboxes on the engine that the options, or the environment, name.
    ///
    /// # Errors
    /// [`Code::DockerNotRunning`] if it does not answer, [`Code::ProviderNotAvailable`] if what answers is no engine.
    pub async fn connect(options: DockerOptions) -> Result<Self, Error> {
        let connected = match &options.host {
            Some(host) => Docker::connect_with_host(host),
            None => Docker::connect_with_defaults(),
        };
        let failed = |error| of(error, "no connection to Docker", Code::ProviderNotAvailable);
        let docker = connected.map_err(failed)?.with_timeout(options.timeout);
        let docker = docker.negotiate_version().await.map_err(failed)?;
        let tracker = Tracker::new(options.clock.clone());
        let inner = Arc::new(Inner {
            docker,
            options,
            tracker,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            told: Told::default(),
            lists: AtomicU64::new(1),
        });
        inner.refresh().await?;
        inner.spawn(inner.clone().follow());
        inner.spawn(inner.clone().stop_idle());
        Ok(Self(inner))
    }
}

fn filters(pairs: [(&str, &str); 1]) -> HashMap<String, Vec<String>> {
    pairs.map(|(key, value)| (key.to_owned(), vec![value.to_owned()])).into()
}

impl Inner {
    /// Looks again whenever the engine tells of something.
    async fn follow(self: Arc<Self>) {
        loop {
            let since = jiff::Timestamp::now().as_second().saturating_sub(2).to_string();
            let options = EventsOptions {
                since: Some(since),
                filters: Some(filters([("label", labels::SANDBOX_ID)])),
                ..Default::default()
            };
            let mut events = Box::pin(self.docker.events(Some(options)));
            while let Some(Ok(_)) = events.next().await {
                if let Err(error) = self.refresh().await {
                    tracing::debug!(%error, "the containers are not known just now");
                }
            }
            self.tracker.set_connected(false);
            tokio::time::sleep(RETRY).await;
            // Whatever happened meanwhile is seen now.
            self.refresh().await.ok();
        }
    }

    /// Stops what nobody has used for too long.
    async fn stop_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(self.options.idle_interval).await;
            for Record { info, idle_timeout, .. } in self.tracker.list() {
                let activity = self.tracker.activity(&info.id);
                // A command that runs is activity.
                activity.take_fresh();
                let idle = self.options.clock.now().duration_since(activity.last());
                let is_idle = Duration::try_from(idle).is_ok_and(|idle| idle >= idle_timeout);
                if info.status != SandboxStatus::Running || idle_timeout.is_zero() || !is_idle {
                    continue;
                }
                match instance::stop(&self, &info.id, &info.container_id, StopReason::IdleTimeout).await {
                    Ok(()) => audit!(info, "pod.stopped", sandbox_id = info.id, reason = "idle_timeout"),
                    Err(error) => tracing::warn!(sandbox = info.id, %error, "an idle sandbox was not stopped"),
                }
            }
        }
    }

    async fn has_image(&self, image: &str) -> Result<bool, Error> {
        if image.trim().is_empty() {
            return Ok(false);
        }
        match self.docker.inspect_image(image).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(status(&error), Some(400 | 404)) => Ok(false),
            Err(error) => Err(of(error, &format!("image {image} was not looked for"), Code::SandboxImagePullFailed)),
        }
    }

    async fn pull(&self, image: &str) -> Result<(), Error> {
        if image.trim().is_empty() {
            return Err(Error::new(Code::SandboxImageNotFound, "an image without a name").with("image", image));
        }
        let last = image.rsplit('/').next().unwrap_or_default();
        // Without a tag the engine would pull all there are.
        let tag = if last.contains([':', '@']) { None } else { Some("latest".to_owned()) };
        let options = CreateImageOptions { from_image: Some(image.into()), tag, ..Default::default() };
        let mut progress = Box::pin(self.docker.create_image(Some(options), None, None));
        while let Some(step) = progress.next().await {
            if let Err(error) = step {
                let is_absent = is_absent_image(&error);
                let code = if is_absent { Code::SandboxImageNotFound } else { Code::SandboxImagePullFailed };
                return Err(of(error, &format!("image {image} was not pulled"), code).with("image", image));
            }
        }
        Ok(())
    }

    /// Whether the engine has gVisor.
    async fn has_runsc(&self) -> Result<bool, Error> {
        let info = self.docker.info().await;
        let info = info.map_err(|error| of(error, "the engine was not asked", Code::ProviderNotAvailable))?;
        Ok(info.runtimes.is_some_and(|runtimes| runtimes.contains_key("runsc")))
    }

    async fn health(&self) -> HealthCheck {
        let row = |name: &str, ok, found, advice: Option<&str>| HealthRow {
            name: name.into(),
            ok,
            found,
            advice: advice.map(str::to_owned),
        };
        let version = match self.docker.version().await {
            Ok(version) => version,
            Err(error) => {
                let error = of(error, "no answer", Code::ProviderNotAvailable);
                let advice = "start the Docker Engine, and check DOCKER_HOST";
                let rows = vec![row("engine", false, error.message().to_owned(), Some(advice))];
                return HealthCheck { healthy: false, message: Some(error.message().to_owned()), rows };
            }
        };
        let [engine, api] = [version.version, version.api_version].map(Option::unwrap_or_default);
        let mut rows = vec![row("engine", true, format!("Docker Engine {engine}, API {api}"), None)];
        if self.options.gvisor {
            let (found, advice) = match self.has_runsc().await {
                Ok(true) => ("gVisor (runsc)".to_owned(), None),
                Ok(false) => {
                    let advice = "install gVisor and add runsc to the engine's runtimes for stronger isolation";
                    ("containers share the machine's kernel".to_owned(), Some(advice))
                }
                Err(error) => (error.message().to_owned(), None),
            };
            rows.push(row("runtime", true, found, advice));
        }
        HealthCheck { healthy: true, message: None, rows }
    }
}

#[async_trait]
impl SandboxProvider for DockerProvider {
    fn name(&self) -> &'static str {
        "docker"
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
        self.0.pull(image).await
    }

    async fn is_image_available(&self, image: &str) -> Result<bool, Error> {
        self.0.has_image(image).await
    }

    async fn health_check(&self) -> HealthCheck {
        self.0.health().await
    }

    async fn cleanup(&self, filter: &CleanupFilter) -> Result<usize, Error> {
        let removed = machine::cleanup(&*self.0, filter).await;
        self.0.refresh().await?;
        removed
    }

    fn events(&self) -> broadcast::Receiver<SandboxEvent> {
        self.0.tracker.events()
    }

    async fn shutdown(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("the provider did not come to rest within {SHUTDOWN:?}");
        }
    }
}
