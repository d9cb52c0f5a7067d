//! [`Machine`]: what Kubernetes and Docker each do in their own way, and the contract as it is the same for both on top of it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    CleanupFilter, Code, Error, ExecOptions, ExecOutput, ExecStream, Sandbox, SandboxConfig, SandboxEvent, SandboxInfo,
    SandboxMetrics, SandboxStatus, StopReason,
    audit::audit,
    labels,
    streams::{self, Carried},
    tracker::{Activity, Making, Record, Tracker},
};

/// What sandboxes are made on.
#[async_trait]
pub(crate) trait Machine: Send + Sync + Sized + 'static {
    /// The code of a command that could not be run, and of one that took too long.
    const EXEC: [Code; 2];
    /// The code of a mistake of ours.
    const BUG: Code;

    fn tracker(&self) -> &Arc<Tracker>;

    /// What runs in the background.
    fn tasks(&self) -> &TaskTracker;

    /// Is cancelled when what runs in the background is to end.
    fn stopped(&self) -> &CancellationToken;

    /// The refusal to make a sandbox for a project that has one.
    fn exists(project_id: &str, why: &str) -> Error;

    /// Makes the tracker's view whole.
    async fn refresh(&self) -> Result<(), Error>;

    /// Puts a sandbox on the machine and waits until it runs, unless `cancel` says that nobody waits for it any more. What
    /// does not come to run is taken back.
    async fn make(&self, config: &SandboxConfig, id: &str, cancel: &CancellationToken) -> Result<Record, Error>;

    /// Deletes a sandbox with all that belongs to it. Whether it was there.
    async fn remove(&self, id: &str, name: &str) -> Result<bool, Error>;

    /// Starts a command.
    async fn start(&self, handle: &Handle<Self>, options: ExecOptions) -> Result<Carried, Error>;

    async fn stop(&self, handle: &Handle<Self>, reason: StopReason) -> Result<(), Error>;

    async fn metrics(&self, handle: &Handle<Self>) -> Result<SandboxMetrics, Error>;

    /// Does work in the background until the provider is shut down.
    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stopped().clone();
        self.tasks().spawn(async move { stop.run_until_cancelled(work).await });
    }
}

/// Makes the project's sandbox; to the end or back, also if the future is dropped.
pub(crate) async fn create<M: Machine>(machine: &Arc<M>, config: &SandboxConfig) -> Result<Arc<dyn Sandbox>, Error> {
    labels::check(config)?;
    let id = labels::new_id();
    let Some(making) = machine.tracker().begin(&config.project_id, &id) else {
        return Err(M::exists(&config.project_id, "one is being made"));
    };
    let cancel = CancellationToken::new();
    let work = machine.tasks().spawn(make(machine.clone(), config.clone(), id, making, cancel.clone()));
    let _guard = cancel.drop_guard();
    work.await.unwrap_or_else(|error| Err(Error::new(M::BUG, "the creation of a sandbox broke off").because(error)))
}

async fn make<M: Machine>(
    machine: Arc<M>,
    config: SandboxConfig,
    id: String,
    making: Making,
    cancel: CancellationToken,
) -> Result<Arc<dyn Sandbox>, Error> {
    let (started, tracker) = (tokio::time::Instant::now(), machine.tracker());
    tracker.tell(SandboxEvent::Creating { sandbox_id: id.clone(), project_id: config.project_id.clone() });
    match machine.make(&config, &id, &cancel).await {
        Ok(record) => {
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let (resource_name, image) = (&record.info.container_id, &config.image);
            audit!(info, "pod.created", sandbox_id = id, resource_name, image, duration_ms);
            tracker.observe(record.clone());
            making.ready();
            audit!(info, "pod.started", sandbox_id = id, resource_name);
            Ok(Handle::of(machine.clone(), &record))
        }
        Err(error) => {
            crate::audit::failed(&id, &config.project_id, &error);
            making.failed(&error);
            Err(error)
        }
    }
}

/// The project's sandbox, if it has one.
pub(crate) async fn of_project<M: Machine>(
    machine: &Arc<M>,
    project_id: &str,
) -> Result<Option<Arc<dyn Sandbox>>, Error> {
    machine.refresh().await?;
    Ok(machine.tracker().of_project(project_id).map(|record| Handle::of(machine.clone(), &record)))
}

/// The sandbox of that id, if it is there.
pub(crate) async fn by_id<M: Machine>(machine: &Arc<M>, id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
    machine.refresh().await?;
    Ok(machine.tracker().record(id).map(|record| Handle::of(machine.clone(), &record)))
}

/// All sandboxes, by id.
pub(crate) async fn list<M: Machine>(machine: &M) -> Result<Vec<SandboxInfo>, Error> {
    machine.refresh().await?;
    Ok(machine.tracker().list().into_iter().map(|record| record.info).collect())
}

/// Deletes what the filter selects, as much of it as can be, and says how many there were.
pub(crate) async fn cleanup<M: Machine>(machine: &M, filter: &CleanupFilter) -> Result<usize, Error> {
    let (mut removed, mut failed) = (0, None);
    for info in list(machine).await?.iter().filter(|info| filter.selects(info)) {
        match machine.remove(&info.id, &info.container_id).await {
            Ok(was_there) => removed += usize::from(was_there),
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(removed), Err)
}

/// A sandbox on a machine.
pub(crate) struct Handle<M> {
    machine: Arc<M>,
    id: String,
    project_id: String,
    name: String,
    activity: Arc<Activity>,
}

impl<M: Machine> Handle<M> {
    fn of(machine: Arc<M>, record: &Record) -> Arc<dyn Sandbox> {
        let info = &record.info;
        let activity = machine.tracker().activity(&info.id);
        let (id, project_id, name) = (info.id.clone(), info.project_id.clone(), info.container_id.clone());
        Arc::new(Self { machine, id, project_id, name, activity })
    }

    /// What the machine calls it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The status that keeps commands from being run in it, as far as that is known. The name may be another sandbox's by now,
    /// and one that is on its way out takes commands still.
    pub(crate) fn obstacle(&self) -> Option<SandboxStatus> {
        Some(self.status()).filter(|status| *status != SandboxStatus::Running && self.machine.tracker().is_connected())
    }

    /// Starts a command, which counts as activity for as long as it runs.
    async fn start(&self, options: ExecOptions) -> Result<Carried, Error> {
        let _busy = self.activity.busy();
        self.machine.start(self, options).await
    }

    /// Carries the output of a command that was started.
    pub(crate) fn carry(&self, process: impl streams::Process) -> Carried {
        streams::carry(process, &self.activity, self.machine.tasks(), self.machine.stopped())
    }
}

#[async_trait]
impl<M: Machine> Sandbox for Handle<M> {
    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn container_id(&self) -> String {
        self.name.clone()
    }

    fn status(&self) -> SandboxStatus {
        self.machine.tracker().record(&self.id).map_or(SandboxStatus::Stopped, |record| record.info.status)
    }

    async fn exec(&self, options: ExecOptions) -> Result<ExecOutput, Error> {
        let (cmd, timeout) = (options.cmd.clone(), options.timeout);
        self.start(options).await?.output(&cmd, timeout, M::EXEC).await
    }

    async fn exec_stream(&self, options: ExecOptions) -> Result<ExecStream, Error> {
        let timeout = options.timeout;
        let stream = self.start(options).await?.stream();
        streams::limit(&stream, timeout, self.machine.tasks());
        Ok(stream)
    }

    async fn stop(&self, reason: StopReason) -> Result<(), Error> {
        self.touch();
        self.machine.stop(self, reason).await
    }

    async fn metrics(&self) -> Result<SandboxMetrics, Error> {
        self.touch();
        self.machine.metrics(self).await
    }

    fn touch(&self) {
        self.activity.touch();
    }

    fn last_activity(&self) -> Timestamp {
        self.activity.last()
    }
}
