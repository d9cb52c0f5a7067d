//! [`World`]: what a scenario sees of a cluster.

use std::{
    ffi::OsString,
    fmt::Debug,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent_sandbox_provider::Clock;
use agent_sandbox_sdk::AgentSandboxClient;
use anyhow::{Context, Result, anyhow, ensure};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, WatchParams},
    runtime::wait::{Condition, await_condition, conditions::is_deleted},
};
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::dump::dump;

/// How long a wait may take. On virtual time it costs nothing; a real cluster may have to pull an image.
const DEADLINE: Duration = Duration::from_secs(120);

/// How far ahead an end is set; a cluster keeps times to the second.
const SOON: SignedDuration = SignedDuration::from_secs(2);

/// What marks the namespaces of scenarios, for who sweeps up after a run that was killed.
pub const LABEL: (&str, &str) = ("e2e.agents.x-k8s.io/scenario", "true");

/// How agents come into a target's containers.
#[derive(Debug)]
pub struct Agents {
    /// What runs the provider's command line, with the arguments that come first.
    pub program: (PathBuf, Vec<OsString>),
    /// The agent runner, as a program that containers of the target can run.
    pub runner: PathBuf,
    /// The arguments that tell programs which cluster is meant, the provider's and kubectl alike.
    pub cluster: Vec<OsString>,
    /// Where a kubeconfig was written for them.
    pub folder: Option<TempDir>,
}

/// What a target tells its scenarios.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// An image with a shell.
    pub image: String,
    /// How agents come in, if they can.
    pub agents: Option<Arc<Agents>>,
}

/// A namespace of a cluster, and the cluster's time.
pub struct World {
    client: Client,
    namespace: String,
    surroundings: Surroundings,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    steps: Steps,
}

/// What a scenario has said it does, and when.
pub struct Steps {
    begun: Instant,
    said: Mutex<Vec<(Duration, String)>>,
    tell: Box<dyn Fn(&str) + Send>,
}

impl Steps {
    /// Nothing yet; each step is told on.
    pub fn new(tell: impl Fn(&str) + Send + 'static) -> Self {
        Self { begun: Instant::now(), said: Mutex::default(), tell: Box::new(tell) }
    }

    fn say(&self, step: &str) {
        (self.tell)(step);
        self.said.lock().expect("no panic under this lock").push((self.begun.elapsed(), step.to_owned()));
    }

    /// The steps with the time since the begin.
    pub fn said(&self) -> Vec<(Duration, String)> {
        self.said.lock().expect("no panic under this lock").clone()
    }
}

impl World {
    /// Makes a namespace that nobody else uses.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn new(
        client: Client,
        surroundings: Surroundings,
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        steps: Steps,
    ) -> Result<Self> {
        Self::made(client, surroundings, Arc::new(now), steps).await
    }

    /// Another namespace of the same cluster, whose steps nobody is told. Who makes it tears it down.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn another(&self) -> Result<Self> {
        Self::made(self.client(), self.surroundings.clone(), self.now.clone(), Steps::new(|_| {})).await
    }

    async fn made(
        client: Client,
        surroundings: Surroundings,
        now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
        steps: Steps,
    ) -> Result<Self> {
        let labels = [(LABEL.0.to_owned(), LABEL.1.to_owned())].into();
        let metadata = ObjectMeta { generate_name: Some("e2e-".into()), labels: Some(labels), ..Default::default() };
        let namespace = Namespace { metadata, ..Default::default() };
        let made = Api::all(client.clone()).create(&PostParams::default(), &namespace).await;
        let namespace = made.context("no namespace for the scenario")?.name_any();
        Ok(Self { client, namespace, surroundings, now, steps })
    }

    /// Says what comes next: for who watches, and for the report if it goes wrong.
    pub fn step(&self, step: impl AsRef<str>) {
        self.steps.say(step.as_ref());
    }

    /// The steps so far.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// Removes the namespace, and with it all that the scenario left. Does not wait.
    ///
    /// # Errors
    /// If the cluster refuses.
    pub async fn tear_down(&self) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.context("the namespace stays")?;
        Ok(())
    }

    /// The cluster.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An image with a shell.
    pub fn image(&self) -> &str {
        &self.surroundings.image
    }

    /// A time that is not yet here, and that a scenario can wait for.
    pub fn soon(&self) -> Timestamp {
        self.now() + SOON
    }

    /// The cluster's time.
    pub fn now(&self) -> Timestamp {
        (self.now)()
    }

    /// The cluster's time, for providers.
    pub fn clock(&self) -> Clock {
        let now = self.now.clone();
        Clock::of(move || now())
    }

    /// How agents come in, if they can.
    pub fn agents(&self) -> Option<&Agents> {
        self.surroundings.agents.as_deref()
    }

    /// What kubectl prints in the namespace; nothing where there is no kubectl.
    ///
    /// # Errors
    /// If it fails, with what it says.
    pub fn kubectl(&self, agents: &Agents, words: &[&str]) -> Result<Option<String>> {
        let Ok(kubectl) = which::which("kubectl") else { return Ok(None) };
        let mut command = std::process::Command::new(kubectl);
        let output = command.args(words).args(["--namespace", &self.namespace]).args(&agents.cluster).output()?;
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "kubectl {}: {}", words.join(" "), said(&output.stderr));
        Ok(Some(said(&output.stdout)))
    }

    /// The SDK's client for the namespace.
    pub fn sandboxes(&self) -> AgentSandboxClient {
        AgentSandboxClient::new(self.client()).in_namespace(&self.namespace)
    }

    /// kube-rs' client for a kind in the namespace.
    pub fn api<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        Api::namespaced(self.client(), &self.namespace)
    }

    /// How long a wait may take.
    pub fn deadline(&self) -> Duration {
        DEADLINE
    }

    /// Waits until an object is as `condition` wants it, and returns it.
    ///
    /// # Errors
    /// If it is not after [`deadline`](Self::deadline); the text says what was waited for, and what there was instead.
    pub async fn eventually<K>(&self, name: &str, what: &str, condition: impl Condition<K>) -> Result<Option<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let waiting = await_condition(self.api::<K>(), name, condition);
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(outcome) => outcome.with_context(|| format!("waiting for {} {name}: {what}", K::kind(&()))),
            Err(_) => {
                let kind = K::kind(&());
                let last = self.api::<K>().get_opt(name).await;
                Err(anyhow!("{kind} {name}: not {what} after {DEADLINE:?}; it is {last:#?}"))
            }
        }
    }

    /// Waits until the objects of a kind are as `condition` wants them, and returns them.
    ///
    /// # Errors
    /// If they are not after [`deadline`](Self::deadline).
    pub async fn eventually_all<K>(&self, what: &str, condition: impl Fn(&[K]) -> bool) -> Result<Vec<K>>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        let api = self.api::<K>();
        let waiting = async {
            loop {
                let list = api.list(&ListParams::default()).await?;
                if condition(&list.items) {
                    return Ok(list.items);
                }
                let since = list.metadata.resource_version.unwrap_or_default();
                let mut changes = api.watch(&WatchParams::default(), &since).await?.boxed();
                changes.try_next().await?;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, waiting).await;
        ended.unwrap_or_else(|_| Err(anyhow!("{}: not {what} after {DEADLINE:?}", K::plural(&()))))
    }

    /// Waits until this very object is gone; one made anew under its name counts as that.
    ///
    /// # Errors
    /// As [`eventually`](Self::eventually).
    pub async fn eventually_gone<K>(&self, object: &K) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + 'static,
    {
        let uid = object.uid().context("a stored object has a uid")?;
        self.eventually::<K>(&object.name_any(), "gone", is_deleted(&uid)).await?;
        Ok(())
    }

    /// What is in the namespace, as text.
    pub async fn dump(&self) -> String {
        dump(&self.client, &self.namespace).await
    }
}
