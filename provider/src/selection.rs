//! Which provider: chosen from the settings at start, again when they change, and again after a while if none could be had.
//!
//! There is no silent fallback. A provider that is not healthy is not used; why is remembered under
//! [`settings::LAST_ERROR`] until one is. Docker takes the place of a cluster only where `fallbackToDocker` says so.

use std::{path::PathBuf, sync::Arc, time::Duration};

use agent_sandbox_sdk::kubeconfig::ConnectOptions;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Code, Error, SandboxConfig, SandboxProvider, WarmPool,
    agent::AgentService,
    http::causes,
    settings::{self, Settings},
    store::Store,
};

/// What the context of the embedded cluster is called in its kubeconfig.
pub const EMBEDDED_CONTEXT: &str = "fake-apiserver";

/// The namespace of sandboxes if nothing else is said.
pub const DEFAULT_NAMESPACE: &str = "agentpane-sandboxes";

/// How many sandboxes a warm pool keeps ready if nothing else is said.
pub const DEFAULT_POOL_SIZE: u32 = 2;

/// How long until a provider that could not be had is tried again: at first, since a cluster may just be starting, and at
/// last. It doubles each time.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a provider may take to be made and to say that it is healthy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The simulated one in this process.
    Embedded,
    /// A real one.
    Cluster(ConnectOptions),
}

/// What the settings come to.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// Sandboxes of Agent Sandbox on Kubernetes.
    Kubernetes {
        /// Which cluster.
        target: Target,
        /// In which namespace.
        namespace: String,
        /// The sandboxes that are kept ready; `None` for no pool.
        warm_pool: Option<WarmPool>,
        /// The class that isolates pods; `None` for the cluster's default.
        runtime_class: Option<String>,
    },
    /// Containers of a Docker Engine.
    Docker,
}

impl Choice {
    /// What the settings say, with `base` as the cluster if they name none.
    pub fn of(settings: &Settings, base: &Target) -> Self {
        if settings.defaults.provider.as_deref().is_some_and(|provider| provider != "kubernetes") {
            return Self::Docker;
        }
        let kubernetes = &settings.kubernetes;
        let namespace = kubernetes.namespace.as_ref().or(settings.defaults.namespace.as_ref());
        let isolated = kubernetes.runtime_class_name.clone().filter(|class| class != "none");
        let pool = || {
            let SandboxConfig { image, memory_mb, cpu_cores, .. } = settings.sandbox();
            WarmPool { size: kubernetes.warm_pool_size.unwrap_or(DEFAULT_POOL_SIZE), image, memory_mb, cpu_cores }
        };
        Self::Kubernetes {
            target: target(kubernetes, base),
            namespace: namespace.cloned().unwrap_or_else(|| DEFAULT_NAMESPACE.into()),
            warm_pool: kubernetes.enable_warm_pool.then(pool),
            runtime_class: isolated,
        }
    }

    /// `kubernetes` or `docker`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Kubernetes { .. } => "kubernetes",
            Self::Docker => "docker",
        }
    }
}

/// The cluster that the settings name, or else `base`.
fn target(kubernetes: &settings::Kubernetes, base: &Target) -> Target {
    let (path, context) = (&kubernetes.kube_config_path, &kubernetes.kube_context);
    let embedded = |context: &String| context == EMBEDDED_CONTEXT && *base == Target::Embedded;
    let named = path.is_some() || context.as_ref().is_some_and(|context| !embedded(context));
    let base = match base {
        Target::Embedded if !named => return Target::Embedded,
        Target::Embedded => ConnectOptions::default(),
        Target::Cluster(options) => options.clone(),
    };
    Target::Cluster(ConnectOptions {
        // The flag's context belongs to the flag's file.
        context: context.clone().or(if path.is_some() { None } else { base.context }),
        kubeconfig: path.as_ref().map(PathBuf::from).or(base.kubeconfig),
        namespace: None,
        skip_tls_verify: kubernetes.skip_tls_verify,
    })
}

/// Makes a provider. What it makes need not be healthy.
pub type Connect = Box<dyn Fn(Choice) -> BoxFuture<'static, Result<Arc<dyn SandboxProvider>, Error>> + Send + Sync>;

/// How the choice stands.
#[derive(Clone)]
pub enum Standing {
    /// Not made yet.
    Choosing,
    /// A provider is there.
    Ready(Arc<dyn SandboxProvider>),
    /// None is.
    Unavailable {
        /// What went wrong.
        code: Code,
        /// For people.
        message: Arc<str>,
    },
}

#[derive(Clone)]
struct Now {
    standing: Standing,
    /// How many of the wishes to choose were granted.
    considered: u64,
}

/// The chosen provider, whichever it is now.
pub struct Selection {
    now: watch::Sender<Now>,
    wishes: watch::Sender<u64>,
}

impl std::fmt::Debug for Selection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selection").finish_non_exhaustive()
    }
}

impl Selection {
    /// Starts to choose, and goes on until `stop`; then the provider is shut down too. Agents get what is chosen.
    pub fn start(
        store: Store,
        agents: AgentService,
        base: Target,
        connect: Connect,
        stop: CancellationToken,
        tasks: &TaskTracker,
    ) -> Arc<Self> {
        let now = Now { standing: Standing::Choosing, considered: 0 };
        let selection = Arc::new(Self { now: watch::channel(now).0, wishes: watch::channel(1).0 });
        let chooser = Chooser { selection: selection.clone(), store, agents, base, connect, chosen: None };
        tasks.spawn(chooser.run(stop));
        selection
    }

    /// The provider.
    ///
    /// # Errors
    /// [`Code::ProviderNotAvailable`], with why.
    pub fn current(&self) -> Result<Arc<dyn SandboxProvider>, Error> {
        let unavailable = |message: String| Error::new(Code::ProviderNotAvailable, message);
        match self.standing() {
            Standing::Ready(provider) => Ok(provider),
            Standing::Choosing => Err(unavailable("the sandbox provider is still being set up: try again".into())),
            Standing::Unavailable { code, message } => {
                Err(unavailable(format!("there is no sandbox provider: {message}")).with("reason", code.as_str()))
            }
        }
    }

    /// How the choice stands.
    pub fn standing(&self) -> Standing {
        self.now.borrow().standing.clone()
    }

    /// Whether a choice is under way.
    pub fn is_choosing(&self) -> bool {
        self.now.borrow().considered < *self.wishes.borrow()
    }

    /// Asks to choose again, since the settings may have changed.
    pub fn reconsider(&self) {
        self.wishes.send_modify(|wishes| *wishes += 1);
    }

    /// Waits until all that was wished for has been considered.
    pub async fn settled(&self) -> Standing {
        let mut now = self.now.subscribe();
        let wishes = *self.wishes.borrow();
        match now.wait_for(|now| now.considered >= wishes).await {
            Ok(now) => now.standing.clone(),
            Err(_) => unreachable!("the sender is in self"),
        }
    }

    /// Waits until there is a provider.
    pub async fn ready(&self) -> Arc<dyn SandboxProvider> {
        let mut now = self.now.subscribe();
        loop {
            if let Standing::Ready(provider) = &now.borrow_and_update().standing {
                return provider.clone();
            }
            if now.changed().await.is_err() {
                unreachable!("the sender is in self");
            }
        }
    }
}

/// What runs in the background.
struct Chooser {
    selection: Arc<Selection>,
    store: Store,
    agents: AgentService,
    base: Target,
    connect: Connect,
    chosen: Option<(Choice, Arc<dyn SandboxProvider>)>,
}

impl Chooser {
    async fn run(mut self, stop: CancellationToken) {
        let mut wishes = self.selection.wishes.subscribe();
        let mut retry = RETRY.0;
        loop {
            let considered = *wishes.borrow_and_update();
            let standing = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                standing = self.consider() => standing,
            };
            self.selection.now.send_replace(Now { standing, considered });
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = wishes.changed() => match changed {
                    Ok(()) => retry = RETRY.0,
                    Err(_) => break,
                },
                () = tokio::time::sleep(retry), if self.chosen.is_none() => retry = (retry * 2).min(RETRY.1),
            }
        }
        if let Some((_, provider)) = self.chosen.take() {
            provider.shutdown().await;
        }
    }

    /// Makes what the settings say, unless it is there.
    async fn consider(&mut self) -> Standing {
        let mut settings = match self.store.read(Settings::read) {
            Ok(settings) => settings,
            Err(error) => return self.unavailable(&error).await,
        };
        let path = settings.resolve_path();
        let choice = Choice::of(&settings, &self.base);
        if let Some((made, provider)) = &self.chosen
            && *made == choice
        {
            return Standing::Ready(provider.clone());
        }
        let made = match path {
            Ok(()) => self.make(choice.clone()).await,
            Err(_) if choice == Choice::Docker => self.make(choice.clone()).await,
            Err(error) => Err(error),
        };
        let error = match made {
            Ok(provider) => return self.ready(choice, provider, None).await,
            Err(error) => error,
        };
        tracing::warn!(provider = choice.name(), code = %error.code(), cause = %causes(&error), "{error}");
        if settings.defaults.fallback_to_docker && choice != Choice::Docker {
            match self.make(Choice::Docker).await {
                Ok(provider) => return self.ready(choice, provider, Some(&error)).await,
                Err(docker) => tracing::warn!(provider = "docker", code = %docker.code(), "{docker}"),
            }
        }
        self.unavailable(&error).await
    }

    async fn make(&self, choice: Choice) -> Result<Arc<dyn SandboxProvider>, Error> {
        let name = choice.name();
        let make = async {
            let provider = (self.connect)(choice).await?;
            let health = provider.health_check().await;
            if health.healthy {
                return Ok(provider);
            }
            provider.shutdown().await;
            let bad = health.rows.iter().find(|row| !row.ok);
            let mut message = match (health.message, bad) {
                (Some(message), _) => message,
                (None, Some(row)) => format!("{}: {}", row.name, row.found),
                (None, None) => format!("{name} is not healthy"),
            };
            if let Some(advice) = bad.and_then(|row| row.advice.as_deref()) {
                message.push_str("; ");
                message.push_str(advice);
            }
            Err(Error::new(Code::ProviderHealthCheckFailed, message))
        };
        tokio::time::timeout(PATIENCE, make).await.unwrap_or_else(|_| {
            let message = format!("{name} did not answer within {} s", PATIENCE.as_secs());
            Err(Error::new(Code::ProviderHealthCheckFailed, message))
        })
    }

    async fn ready(
        &mut self,
        choice: Choice,
        provider: Arc<dyn SandboxProvider>,
        instead_of: Option<&Error>,
    ) -> Standing {
        let before = self.chosen.replace((choice, provider.clone()));
        self.remember(instead_of);
        // Whoever asks from now on gets the new one, and agents of an earlier process are found again.
        self.agents.set_provider(Some(provider.clone()));
        if let Err(error) = self.agents.recover().await {
            tracing::warn!(cause = %causes(&error), "agents were not found again: {error}");
        }
        self.selection.now.send_modify(|now| now.standing = Standing::Ready(provider.clone()));
        if let Some((_, before)) = before {
            before.shutdown().await;
        }
        tracing::info!(provider = provider.name(), "sandboxes can be made");
        Standing::Ready(provider)
    }

    async fn unavailable(&mut self, error: &Error) -> Standing {
        let standing = Standing::Unavailable { code: error.code(), message: error.message().into() };
        self.remember(Some(error));
        self.agents.set_provider(None);
        self.selection.now.send_modify(|now| now.standing = standing.clone());
        if let Some((_, before)) = self.chosen.take() {
            before.shutdown().await;
        }
        standing
    }

    fn remember(&self, error: Option<&Error>) {
        if let Err(failed) = settings::set_last_error(&self.store, error) {
            tracing::warn!(cause = %causes(&failed), "{failed}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    use async_trait::async_trait;
    use serde_json::json;
    use tokio::sync::broadcast;

    use super::*;
    use crate::{CleanupFilter, HealthCheck, HealthRow, Sandbox, SandboxEvent, SandboxInfo};

    /// A provider that is as healthy as the test says, and counts its shutdowns.
    struct Scripted {
        name: &'static str,
        healthy: bool,
        ended: Arc<AtomicUsize>,
    }

    #[async_trait]
    impl SandboxProvider for Scripted {
        fn name(&self) -> &'static str {
            self.name
        }
        async fn create(&self, _: &SandboxConfig) -> Result<Arc<dyn Sandbox>, Error> {
            Err(Error::new(Code::SandboxInternal, "not of this test"))
        }
        async fn get(&self, _: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
            Ok(None)
        }
        async fn get_by_id(&self, _: &str) -> Result<Option<Arc<dyn Sandbox>>, Error> {
            Ok(None)
        }
        async fn list(&self) -> Result<Vec<SandboxInfo>, Error> {
            Ok(Vec::new())
        }
        async fn pull_image(&self, _: &str) -> Result<(), Error> {
            Ok(())
        }
        async fn is_image_available(&self, _: &str) -> Result<bool, Error> {
            Ok(true)
        }
        async fn health_check(&self) -> HealthCheck {
            let row = HealthRow {
                name: "cluster".into(),
                ok: self.healthy,
                found: "nothing answers".into(),
                advice: Some("start it".into()),
            };
            HealthCheck { healthy: self.healthy, message: None, rows: vec![row] }
        }
        async fn cleanup(&self, _: &CleanupFilter) -> Result<usize, Error> {
            Ok(0)
        }
        fn events(&self) -> broadcast::Receiver<SandboxEvent> {
            broadcast::channel(1).1
        }
        async fn shutdown(&self) {
            self.ended.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct World {
        store: Store,
        selection: Arc<Selection>,
        cluster_is_up: Arc<AtomicBool>,
        made: Arc<Mutex<Vec<&'static str>>>,
        ended: Arc<AtomicUsize>,
        stop: CancellationToken,
        tasks: TaskTracker,
    }

    fn world(cluster_is_up: bool, settings: serde_json::Value) -> World {
        let store = Store::in_memory().unwrap();
        settings::write(&store, settings.as_object().unwrap()).unwrap();
        let cluster_is_up = Arc::new(AtomicBool::new(cluster_is_up));
        let (made, ended) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicUsize>::default());
        let (up, names, counter) = (cluster_is_up.clone(), made.clone(), ended.clone());
        let connect: Connect = Box::new(move |choice| {
            let name = choice.name();
            names.lock().unwrap().push(name);
            let healthy = name == "docker" || up.load(Ordering::SeqCst);
            let provider = Arc::new(Scripted { name, healthy, ended: counter.clone() });
            Box::pin(async move { Ok(provider as Arc<dyn SandboxProvider>) })
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let agents = AgentService::new(store.clone(), crate::agent::AgentConfig::default());
        let selection = Selection::start(store.clone(), agents, Target::Embedded, connect, stop.clone(), &tasks);
        World { store, selection, cluster_is_up, made, ended, stop, tasks }
    }

    impl World {
        fn last_error(&self) -> Option<serde_json::Value> {
            settings::stored(&self.store, Some(&[settings::LAST_ERROR])).unwrap().remove(settings::LAST_ERROR)
        }

        async fn save(&self, settings: serde_json::Value) {
            settings::write(&self.store, settings.as_object().unwrap()).unwrap();
            self.selection.reconsider();
            self.selection.settled().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cluster_that_is_down_is_no_reason_for_docker_and_is_tried_again() {
        let world = world(false, json!({}));
        world.selection.settled().await;
        let error = world.selection.current().err().unwrap();
        assert_eq!(error.code(), Code::ProviderNotAvailable);
        assert!(error.message().ends_with("cluster: nothing answers; start it"), "{error}");
        assert_eq!(world.last_error().unwrap()["code"], "SANDBOX_PROVIDER_HEALTH_CHECK_FAILED");
        assert_eq!(*world.made.lock().unwrap(), ["kubernetes"]);
        tokio::time::sleep(Duration::from_secs(70)).await;
        let tries = world.made.lock().unwrap().clone();
        assert!(tries.iter().all(|name| *name == "kubernetes") && (6..9).contains(&tries.len()), "{tries:?}");

        world.cluster_is_up.store(true, Ordering::SeqCst);
        tokio::time::sleep(RETRY.1 + Duration::from_secs(1)).await;
        assert_eq!(world.selection.current().unwrap().name(), "kubernetes");
        assert_eq!(world.last_error(), None, "success forgets it");
    }

    #[tokio::test(start_paused = true)]
    async fn docker_takes_the_place_of_a_cluster_only_where_that_is_asked_for() {
        let world = world(false, json!({"sandbox.defaults": {"fallbackToDocker": true}}));
        world.selection.settled().await;
        assert_eq!(world.selection.current().unwrap().name(), "docker");
        assert!(world.last_error().is_some(), "it is told all the same");
    }

    #[tokio::test(start_paused = true)]
    async fn other_settings_bring_another_provider_and_the_one_before_is_shut_down() {
        let world = world(true, json!({}));
        world.selection.settled().await;
        world.save(json!({"sandbox.defaults": {"provider": "kubernetes", "memoryMb": 1024}})).await;
        assert_eq!(*world.made.lock().unwrap(), ["kubernetes"], "nothing that matters to the provider has changed");
        world.save(json!({"sandbox.defaults": {"provider": "docker"}})).await;
        assert_eq!(world.selection.current().unwrap().name(), "docker");
        assert_eq!(world.ended.load(Ordering::SeqCst), 1);
        world.stop.cancel();
        world.tasks.close();
        world.tasks.wait().await;
        assert_eq!(world.ended.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn settings_point_at_another_cluster_and_its_context_is_not_taken_from_a_flag() {
        let flags = Target::Cluster(ConnectOptions {
            kubeconfig: Some("/flag".into()),
            context: Some("flag".into()),
            ..ConnectOptions::default()
        });
        let of = |path: Option<&str>, context: Option<&str>, base: &Target| {
            let kubernetes = settings::Kubernetes {
                kube_config_path: path.map(str::to_owned),
                kube_context: context.map(str::to_owned),
                ..settings::Kubernetes::default()
            };
            match target(&kubernetes, base) {
                Target::Embedded => "embedded".to_owned(),
                Target::Cluster(options) => {
                    assert!(!options.skip_tls_verify);
                    format!("{:?} {:?}", options.kubeconfig.unwrap_or_default(), options.context.unwrap_or_default())
                }
            }
        };
        assert_eq!(of(None, None, &Target::Embedded), "embedded");
        assert_eq!(of(None, Some(EMBEDDED_CONTEXT), &Target::Embedded), "embedded");
        assert_eq!(of(None, Some("a"), &Target::Embedded), r#""" "a""#);
        assert_eq!(of(None, None, &flags), r#""/flag" "flag""#);
        assert_eq!(of(None, Some("a"), &flags), r#""/flag" "a""#);
        assert_eq!(of(Some("/set"), None, &flags), r#""/set" """#);
    }
}
