//! [`Target`]: where scenarios run. The only place that knows.

mod control_plane;
mod ended;
mod k3s;
mod outside;

use std::{
    collections::BTreeSet,
    env,
    ffi::OsString,
    fmt, fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment};
use anyhow::{Context, Result, anyhow, bail};
use fake_apiserver::cluster::Cluster;
use jiff::Timestamp;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};

use self::{control_plane::ControlPlane, k3s::K3s, outside::Processes};
use crate::{
    Feature, World,
    runner::Stop,
    scenarios::Skip,
    world::{Agents, Steps, Surroundings},
};

/// An image with a shell; a real cluster pulls it, or the one that `K8S_E2E_IMAGE` names.
const IMAGE: &str = "busybox:1.36";

/// How long a namespace may take to be deleted when a scenario was broken off.
const TIDY: Duration = Duration::from_secs(10);

/// The kinds of targets, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// A fake in memory for each scenario, in virtual time.
    Memory,
    /// A fake behind HTTPS on loopback, in real time.
    Https,
    /// The same with containers that are real processes; needs bubblewrap.
    Processes,
    /// A fake with nothing in it, and its kubelet and controllers in another process.
    Outside,
    /// A real kube-apiserver and etcd from the folder in `KUBEBUILDER_ASSETS`, with our kubelet and controllers as clients.
    KubeApiserver,
    /// The cluster of the environment's kubeconfig, which must have the controller; `K8S_E2E_CONTEXT` names a context,
    /// `K8S_E2E_IMAGE` an image, `K8S_E2E_FEATURES` what it has beside exec and processes, `K8S_E2E_RUNNER` an agent runner
    /// that the image can run.
    Kubeconfig,
    /// k3s in a container; needs Docker.
    K3s,
    /// What `minikube-up` has set up: a kubeconfig's context by the profile's name, with gVisor.
    Minikube,
}

impl TargetKind {
    /// All, in order.
    pub const ALL: [Self; 8] = [
        Self::Memory,
        Self::Https,
        Self::Processes,
        Self::Outside,
        Self::KubeApiserver,
        Self::Kubeconfig,
        Self::K3s,
        Self::Minikube,
    ];
}

impl fmt::Display for TargetKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Https => "https",
            Self::Processes => "processes",
            Self::Outside => "outside",
            Self::KubeApiserver => "kube-apiserver",
            Self::Kubeconfig => "kubeconfig",
            Self::K3s => "k3s",
            Self::Minikube => "minikube",
        })
    }
}

impl FromStr for TargetKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        found.ok_or_else(|| {
            let all: Vec<String> = Self::ALL.iter().map(Self::to_string).collect();
            format!("{text:?} is no target; there are {}", all.join(", "))
        })
    }
}

/// A cluster, or what makes one for each scenario.
pub struct Target {
    name: String,
    features: BTreeSet<Feature>,
    surroundings: Surroundings,
    jobs: usize,
    stop: Stop,
    place: Place,
}

/// Where it is.
enum Place {
    /// Made for each scenario.
    Memory,
    /// Reached by network.
    Reached(Box<Reached>),
}

struct Reached {
    config: Config,
    /// What ends with the target; fields drop in order.
    _held: Held,
    /// What runs in this process for the target.
    _runtime: Option<Runtime>,
}

/// What a target has started.
#[expect(dead_code, reason = "held so that it ends with the target")]
enum Held {
    Nothing,
    Fake(Cluster),
    Processes(Processes),
    ControlPlane(ControlPlane),
    K3s(K3s),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.name) // the configuration holds credentials
    }
}

/// What a target may be told.
#[derive(Clone, Debug, Default)]
pub struct TargetOptions {
    /// The program that runs `fake-apiserver`'s command line, with the arguments that come first. Default: this program.
    pub fake: Option<(PathBuf, Vec<OsString>)>,
    /// The program that runs the provider's command line, with the arguments that come first. Default: this program.
    pub provider: Option<(PathBuf, Vec<OsString>)>,
    /// A program that containers of the target can run as an agent runner. Default: for processes `e2e-agent-runner` beside
    /// this program, for a real cluster `K8S_E2E_RUNNER`.
    pub runner: Option<PathBuf>,
    /// The folder with `etcd` and `kube-apiserver`. Default: `KUBEBUILDER_ASSETS`.
    pub assets: Option<PathBuf>,
    /// The kubeconfig's context. Default: the current one; for minikube, the profile `agent-sandbox`.
    pub context: Option<String>,
    /// What breaks the scenarios off.
    pub stop: Stop,
}

impl Target {
    /// A fake in memory, in virtual time, for each scenario.
    pub fn memory() -> Self {
        let features = [Feature::Exec, Feature::Conversion, Feature::Installation, Feature::VirtualTime];
        Self::new("memory", &features, 2, Place::Memory)
    }

    /// Opens a target.
    ///
    /// # Errors
    /// If it cannot be had: what is missing, and what to do.
    pub fn open(kind: TargetKind, options: &TargetOptions) -> Result<Self> {
        let mut target = match kind {
            TargetKind::Memory => Self::memory(),
            TargetKind::Https => Self::fake("https", false, options)?,
            TargetKind::Processes => Self::fake("processes", true, options)?,
            TargetKind::Outside => Self::outside(options)?,
            TargetKind::KubeApiserver => Self::kube_apiserver(options)?,
            TargetKind::Kubeconfig => {
                let context = options.context.clone().or_else(|| env::var("K8S_E2E_CONTEXT").ok());
                Self::kubeconfig("kubeconfig", context, features_of_environment()?, options)?
            }
            TargetKind::K3s => Self::k3s(&options.stop)?,
            TargetKind::Minikube => {
                let profile = options.context.clone().unwrap_or_else(|| crate::setup::PROFILE.into());
                let mut features = features_of_environment()?;
                features.extend([Feature::Gvisor, Feature::Installation]);
                Self::kubeconfig("minikube", Some(profile), features, options)?
            }
        };
        target.stop = options.stop.clone();
        Ok(target)
    }

    /// The environment's cluster if `K8S_E2E` is `true`.
    ///
    /// # Errors
    /// If it is asked for and cannot be reached.
    pub fn of_environment() -> Result<Option<Self>> {
        match env::var("K8S_E2E").as_deref() {
            Ok("true") => Self::open(TargetKind::Kubeconfig, &TargetOptions::default()).map(Some),
            _ => Ok(None),
        }
    }

    fn new(name: &str, features: &[Feature], jobs: usize, place: Place) -> Self {
        let image = env::var("K8S_E2E_IMAGE").unwrap_or_else(|_| IMAGE.into());
        let surroundings = Surroundings { image, agents: None };
        let features = features.iter().copied().collect();
        Self { name: name.into(), features, surroundings, jobs, stop: Stop::never(), place }
    }

    fn reached(config: Config, held: Held, runtime: Option<Runtime>) -> Place {
        Place::Reached(Box::new(Reached { config, _held: held, _runtime: runtime }))
    }

    fn fake(name: &str, processes: bool, options: &TargetOptions) -> Result<Self> {
        let runtime = workers()?;
        let (cluster, kubeconfig) = runtime.block_on(async {
            let builder = Cluster::builder().seed(1).system_time().real_processes(processes);
            let cluster = builder.start().await.map_err(|status| anyhow!("the fake does not start: {status}"))?;
            let door = cluster.serve_https((Ipv4Addr::LOCALHOST, 0).into()).await.context("no HTTPS door")?;
            anyhow::Ok((cluster, door.render()))
        })?;
        let config = loopback(&kubeconfig)?;
        let mut features = vec![Feature::Exec, Feature::Conversion, Feature::Installation];
        features.extend(processes.then_some(Feature::Processes));
        let mut target = Self::new(name, &features, 6, Self::reached(config, Held::Fake(cluster), Some(runtime)));
        if processes {
            target.jobs = 4; // real processes want real processors
            let beside = || Some(env::current_exe().ok()?.with_file_name("e2e-agent-runner"));
            if let Some(runner) = options.runner.clone().or_else(beside).filter(|runner| runner.is_file()) {
                let folder = tempfile::Builder::new().prefix("e2e-").tempdir().context("no folder for a kubeconfig")?;
                let file = folder.path().join("kubeconfig");
                fs::write(&file, kubeconfig).context("no kubeconfig")?;
                target.bring_agents(runner, vec!["--kubeconfig".into(), file.into()], Some(folder), options)?;
            }
        }
        Ok(target)
    }

    /// Says how agents come in, with the arguments by which programs find the cluster.
    fn bring_agents(
        &mut self,
        runner: PathBuf,
        cluster: Vec<OsString>,
        folder: Option<TempDir>,
        options: &TargetOptions,
    ) -> Result<()> {
        let program = match &options.provider {
            Some(provider) => provider.clone(),
            None => (env::current_exe().context("this program's path")?, vec!["agent-sandbox-provider".into()]),
        };
        self.surroundings.agents = Some(Arc::new(Agents { program, runner, cluster, folder }));
        self.features.insert(Feature::Agents);
        Ok(())
    }

    fn outside(options: &TargetOptions) -> Result<Self> {
        let fake = match &options.fake {
            Some(fake) => fake.clone(),
            None => (env::current_exe().context("this program's path")?, vec!["fake-apiserver".into()]),
        };
        let (processes, kubeconfig) = Processes::start(&fake.0, &fake.1)?;
        let place = Self::reached(loopback(&kubeconfig)?, Held::Processes(processes), None);
        Ok(Self::new("outside", &[Feature::Exec, Feature::Conversion], 6, place))
    }

    fn kube_apiserver(options: &TargetOptions) -> Result<Self> {
        let assets = options.assets.clone().or_else(|| env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from));
        let Some(assets) = assets else {
            bail!(
                "no real kube-apiserver: KUBEBUILDER_ASSETS is not set; it names a folder with etcd and kube-apiserver, \
                 such as `setup-envtest use -p path` prints"
            );
        };
        let runtime = workers()?;
        let started = runtime.block_on(unless_stopped(&options.stop, ControlPlane::start(&assets)));
        let (control_plane, kubeconfig) = started?;
        let place = Self::reached(loopback(&kubeconfig)?, Held::ControlPlane(control_plane), Some(runtime));
        Ok(Self::new("kube-apiserver", &[Feature::Exec, Feature::Conversion], 8, place))
    }

    fn k3s(stop: &Stop) -> Result<Self> {
        let runtime = workers()?;
        let (k3s, kubeconfig) = runtime.block_on(unless_stopped(stop, K3s::start(stop)))?;
        let place = Self::reached(loopback(&kubeconfig)?, Held::K3s(k3s), Some(runtime));
        let features = [Feature::Exec, Feature::Processes, Feature::NetworkPolicy];
        Ok(Self::new("k3s", &features, 4, place))
    }

    fn kubeconfig(
        name: &str,
        context: Option<String>,
        features: BTreeSet<Feature>,
        options: &TargetOptions,
    ) -> Result<Self> {
        let runtime = workers()?;
        let config = runtime.block_on(async {
            let connect = ConnectOptions { context: context.clone(), ..Default::default() };
            let found = connect.find(&Environment::of_process()).context("no usable kubeconfig")?;
            let config = found.config().await.context("no usable kubeconfig")?;
            let client = Client::try_from(config.clone()).context("no client for the kubeconfig")?;
            client.apiserver_version().await.with_context(|| format!("{} does not answer", config.cluster_url))?;
            anyhow::Ok(config)
        })?;
        let mut target = Self::new(name, &[], 4, Self::reached(config, Held::Nothing, None));
        target.features = features;
        target.features.extend([Feature::Exec, Feature::Processes]);
        let runner = options.runner.clone().or_else(|| env::var_os("K8S_E2E_RUNNER").map(PathBuf::from));
        // Two programs agree on a cluster by the context's name.
        if let (Some(runner), Some(context)) = (runner, context) {
            target.bring_agents(runner, vec!["--context".into(), context.into()], None, options)?;
        }
        Ok(target)
    }

    /// What breaks its scenarios off.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it has a feature.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    /// How many scenarios it stands at a time.
    pub fn jobs(&self) -> usize {
        self.jobs
    }

    /// The same with as many scenarios at a time as are given.
    #[must_use]
    pub fn with_jobs(self, jobs: usize) -> Self {
        Self { jobs: jobs.max(1), ..self }
    }

    /// Runs a story in a namespace of its own and cleans up after it, whatever came of it. Blocks; not for async code.
    /// The answer is the story's, with what was in the namespace if it failed, and the steps that it said.
    pub fn run(
        &self,
        steps: Steps,
        story: impl AsyncFnOnce(&World) -> Result<()>,
    ) -> (Result<()>, Vec<(Duration, String)>) {
        let mut said = Vec::new();
        let result = self.run_saying(steps, story, &mut said);
        (result, said)
    }

    fn run_saying(
        &self,
        steps: Steps,
        story: impl AsyncFnOnce(&World) -> Result<()>,
        said: &mut Vec<(Duration, String)>,
    ) -> Result<()> {
        let mut builder = runtime::Builder::new_current_thread();
        builder.enable_all();
        match &self.place {
            Place::Memory => builder.start_paused(true).build()?.block_on(async {
                let cluster = Cluster::builder().seed(1).start().await;
                let cluster = cluster.map_err(|status| anyhow!("the fake does not start: {status}"))?;
                let clock = cluster.clock().clone();
                let world = World::new(cluster.client(), self.surroundings.clone(), move || clock.now(), steps).await?;
                let mut outcome = self.tell(&world, story).await;
                if let Err(error) = &outcome
                    && error.downcast_ref::<Skip>().is_none()
                {
                    outcome = Err(anyhow!("{error:#}\nin the whole cluster\n{}", cluster.dump().await));
                }
                *said = world.steps().said();
                drop(world);
                cluster.shutdown().await;
                outcome
            }),
            Place::Reached(reached) => builder.build()?.block_on(async {
                let client = Client::try_from(reached.config.clone()).context("no client for the target")?;
                let world = World::new(client, self.surroundings.clone(), Timestamp::now, steps).await?;
                let outcome = self.tell(&world, story).await;
                *said = world.steps().said();
                let tidied = tokio::time::timeout(TIDY, world.tear_down()).await;
                outcome.and(tidied.unwrap_or_else(|_| Err(anyhow!("the namespace {} stays", world.namespace()))))
            }),
        }
    }

    async fn tell(&self, world: &World, story: impl AsyncFnOnce(&World) -> Result<()>) -> Result<()> {
        let outcome = tokio::select! {
            biased;
            () = self.stop.stopped() => Err(anyhow!("broken off")),
            outcome = story(world) => outcome,
        };
        match outcome {
            Err(error) if error.downcast_ref::<Skip>().is_none() => {
                let there = tokio::time::timeout(TIDY, world.dump()).await.unwrap_or_else(|_| "no answer".into());
                Err(anyhow!("{error:#}\nthere was then\n{there}"))
            }
            outcome => outcome,
        }
    }
}

/// Waits for a target to start, but no longer than it is wanted.
async fn unless_stopped<T>(stop: &Stop, starting: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        biased;
        () = stop.stopped() => Err(anyhow!("broken off while the target started")),
        started = starting => started,
    }
}

/// A runtime for what runs beside the scenarios.
fn workers() -> Result<Runtime> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.context("no threads for the target")
}

/// The configuration of a server on loopback.
fn loopback(kubeconfig: &str) -> Result<Config> {
    let kubeconfig = Kubeconfig::from_yaml(kubeconfig).context("the target's kubeconfig is no YAML")?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let options = KubeConfigOptions::default();
    let config = runtime.block_on(Config::from_custom_kubeconfig(kubeconfig, &options));
    let mut config = config.context("the target's kubeconfig")?;
    // A proxy in the environment would be taken up, and has no business on loopback.
    config.proxy_url = None;
    Ok(config)
}

/// What `K8S_E2E_FEATURES` says that the environment's cluster has; comma-separated.
fn features_of_environment() -> Result<BTreeSet<Feature>> {
    let text = env::var("K8S_E2E_FEATURES").unwrap_or_default();
    let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|why| anyhow!("K8S_E2E_FEATURES: {why}"))).collect()
}

/// The program of that name in a folder.
///
/// # Errors
/// If there is none; the text says what to do.
fn program(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    bail!(
        "no real kube-apiserver: {} (KUBEBUILDER_ASSETS) has no {name}; `setup-envtest use -p path` prints a folder that has \
         etcd and kube-apiserver",
        folder.display()
    )
}
