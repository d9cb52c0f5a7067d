//! [`AgentSandboxClient`]: what one does with sandboxes, over any [`kube::Client`].

use std::{fmt::Debug, time::Duration};

use futures::{AsyncReadExt, Stream};
use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::{
    Api, Client,
    api::{ListParams, LogParams},
    runtime::watcher,
};
use serde_json::json;

use crate::{
    error::{CallError, Error, LogsError, ObjectName, WaitError, answered},
    kubeconfig::{ConnectOptions, Environment, KubeconfigError},
    objects::{Connection, Objects},
    v1beta1::{Sandbox, SandboxClaim, SandboxTemplate, SandboxWarmPool},
};

/// A pod annotation that kubectl reads too: which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// How much of a log is read at once when nobody says how much.
const LOG_BYTES: i64 = 16 << 20;

/// How much one piece of a log holds at most.
const LOG_PIECE_BYTES: usize = 16 << 10;

/// Sandboxes of one namespace.
///
/// Cheap to clone; clones share the connection. Every future may be dropped: a request that was sent may still have its
/// effect, and nothing else goes on in the background.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
///
/// use agent_sandbox_sdk::{AgentSandboxClient, v1beta1::Sandbox};
///
/// # async fn example(sandbox: Sandbox) -> Result<(), Box<dyn std::error::Error>> {
/// let sandboxes = AgentSandboxClient::try_default().await?.in_namespace("demo");
/// sandboxes.create(&sandbox).await?;
/// sandboxes.wait_ready("hello", Duration::from_secs(60)).await?;
/// let output = sandboxes.exec("hello", ["uname", "-a"]).await?;
/// println!("{}", output.stdout_text());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AgentSandboxClient {
    connection: Connection,
    namespace: String,
}

impl Debug for AgentSandboxClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { connection: _, namespace } = self;
        f.debug_struct("AgentSandboxClient").field("namespace", namespace).finish_non_exhaustive()
    }
}

impl AgentSandboxClient {
    /// Sandboxes of the client's default namespace.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(client: kube::Client) {
    /// let sandboxes = agent_sandbox_sdk::AgentSandboxClient::new(client);
    /// # }
    /// ```
    pub fn new(client: Client) -> Self {
        let namespace = client.default_namespace().to_owned();
        Self { connection: Connection::new(client), namespace }
    }

    /// As [`new`](Self::new), with the client that the environment gives; see [`kubeconfig`](crate::kubeconfig).
    ///
    /// # Errors
    /// [`KubeconfigError`]. Nothing is sent yet.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), agent_sandbox_sdk::kubeconfig::KubeconfigError> {
    /// let sandboxes = agent_sandbox_sdk::AgentSandboxClient::try_default().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_default() -> Result<Self, KubeconfigError> {
        Self::connect(&ConnectOptions::default()).await
    }

    /// As [`try_default`](Self::try_default), with a say in which kubeconfig, context and namespace.
    ///
    /// # Errors
    /// [`KubeconfigError`]. Nothing is sent yet.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{AgentSandboxClient, kubeconfig::ConnectOptions};
    ///
    /// # async fn example() -> Result<(), agent_sandbox_sdk::kubeconfig::KubeconfigError> {
    /// let options = ConnectOptions { context: Some("staging".into()), ..Default::default() };
    /// let client = AgentSandboxClient::connect(&options).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect(options: &ConnectOptions) -> Result<Self, KubeconfigError> {
        let access = options.find(&Environment::of_process())?;
        Ok(Self::new(access.connect().await?).in_namespace(access.cluster().namespace.clone()))
    }

    /// The sandboxes of the namespace.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{Objects, v1beta1::Sandbox};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let sandboxes: Objects<Sandbox> = client.sandboxes();
    /// assert!(!sandboxes.exists("nobody").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sandboxes(&self) -> Objects<Sandbox> {
        Objects::new(self.connection.clone(), &self.namespace)
    }

    /// The claims of the namespace.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::WaitError> {
    /// client.claims().wait_ready("mine", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn claims(&self) -> Objects<SandboxClaim> {
        Objects::new(self.connection.clone(), &self.namespace)
    }

    /// The templates of the namespace.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// println!("{:?}", client.templates().get("python").await?.spec.env_vars_injection_policy);
    /// # Ok(())
    /// # }
    /// ```
    pub fn templates(&self) -> Objects<SandboxTemplate> {
        Objects::new(self.connection.clone(), &self.namespace)
    }

    /// The warm pools of the namespace.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// client.warm_pools().scale("python", 5).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn warm_pools(&self) -> Objects<SandboxWarmPool> {
        Objects::new(self.connection.clone(), &self.namespace)
    }

    /// The kube-rs client behind this one.
    ///
    /// # Examples
    /// ```no_run
    /// use k8s_openapi::api::core::v1::Pod;
    /// use kube::Api;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let pods: Api<Pod> = Api::namespaced(client.kube(), client.namespace());
    /// # }
    /// ```
    pub fn kube(&self) -> Client {
        self.connection.client.clone()
    }

    /// The same, for another namespace.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) {
    /// let demo = sandboxes.in_namespace("demo");
    /// assert_eq!(demo.namespace(), "demo");
    /// # }
    /// ```
    #[must_use]
    pub fn in_namespace(&self, namespace: impl Into<String>) -> Self {
        Self { connection: self.connection.clone(), namespace: namespace.into() }
    }

    /// The namespace that all calls are about.
    ///
    /// # Examples
    /// ```no_run
    /// # fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) {
    /// assert_eq!(sandboxes.namespace(), "default");
    /// # }
    /// ```
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The kube-rs view of the same, for what this client has no method for.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> kube::Result<()> {
    /// let status = sandboxes.api().get_status("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn api(&self) -> Api<Sandbox> {
        Api::namespaced(self.connection.client.clone(), &self.namespace)
    }

    /// Creates a sandbox and returns it as stored, defaults filled in. It is not Ready yet.
    ///
    /// # Errors
    /// [`Error::CreateFailed`]; [`Error::is_already_exists`] tells that the name is taken.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::{PodTemplate, Sandbox, SandboxSpec};
    /// use k8s_openapi::api::core::v1::{Container, PodSpec};
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    /// let pod = PodSpec { containers: vec![main], ..Default::default() };
    /// let spec = SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() };
    /// let sandbox = sandboxes.create(&Sandbox::new("hello", spec)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create(&self, sandbox: &Sandbox) -> Result<Sandbox, Error> {
        self.sandboxes().create(sandbox).await
    }

    /// Reads a sandbox.
    ///
    /// # Errors
    /// [`Error::GetFailed`]; [`Error::is_not_found`] tells that there is none.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let sandbox = sandboxes.get("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, name: &str) -> Result<Sandbox, Error> {
        self.sandboxes().get(name).await
    }

    /// Lists the sandboxes that `params` select, all pages of them; a limit in `params` is the size of a page.
    ///
    /// # Errors
    /// [`Error::ListFailed`], also if the list changed too much while its pages were read (410; try again).
    ///
    /// # Examples
    /// ```no_run
    /// use kube::api::ListParams;
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// for sandbox in sandboxes.list(&ListParams::default().labels("team=red")).await? {
    ///     println!("{:?}", sandbox.metadata.name);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list(&self, params: &ListParams) -> Result<Vec<Sandbox>, Error> {
        self.sandboxes().list(params).await
    }

    /// Watches the sandboxes that `config` selects: first those that exist, then every change.
    ///
    /// The stream does not end. It starts over by itself when the connection breaks or it falls behind, and waits
    /// longer each time that fails; an error item only tells of it.
    ///
    /// # Examples
    /// ```no_run
    /// use futures::TryStreamExt;
    /// use kube::runtime::watcher::{Config, Event};
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let mut events = std::pin::pin!(sandboxes.watch(Config::default()));
    /// while let Some(event) = events.try_next().await? {
    ///     if let Event::Apply(sandbox) = event {
    ///         println!("{:?}", sandbox.metadata.name);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(
        &self,
        config: watcher::Config,
    ) -> impl Stream<Item = Result<watcher::Event<Sandbox>, Error>> + Send + use<> {
        self.sandboxes().watch(config)
    }

    /// Deletes a sandbox; what it owns (pod, Service, volume claims) goes with it, after it. Returns before all is gone:
    /// see [`wait_gone`](Self::wait_gone).
    ///
    /// # Errors
    /// [`Error::DeleteFailed`]; [`Error::is_not_found`] tells that there was none.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// sandboxes.delete("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete(&self, name: &str) -> Result<(), Error> {
        self.sandboxes().delete(name).await
    }

    /// Asks for the pod to be stopped; volumes and Service stay. Returns before it is: see
    /// [`wait_suspended`](Self::wait_suspended). Suspending a suspended sandbox changes nothing.
    ///
    /// # Errors
    /// [`Error::PatchFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// sandboxes.suspend("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn suspend(&self, name: &str) -> Result<Sandbox, Error> {
        self.sandboxes().patch(name, &json!({"spec": {"operatingMode": "Suspended"}})).await
    }

    /// Asks for the pod to run again, on the same volumes. Resuming a running sandbox changes nothing.
    ///
    /// # Errors
    /// [`Error::PatchFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// sandboxes.resume("hello").await?;
    /// sandboxes.wait_ready("hello", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn resume(&self, name: &str) -> Result<Sandbox, Error> {
        self.sandboxes().patch(name, &json!({"spec": {"operatingMode": "Running"}})).await
    }

    /// Sets when the sandbox expires, to the second; `None` means never. A time to come revives an expired sandbox that
    /// was retained.
    ///
    /// # Errors
    /// [`Error::PatchFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// use jiff::{Timestamp, ToSpan};
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// sandboxes.set_shutdown_time("hello", Some(Timestamp::now() + 1.hour())).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_shutdown_time(&self, name: &str, time: Option<Timestamp>) -> Result<Sandbox, Error> {
        self.sandboxes().patch(name, &json!({"spec": {"shutdownTime": time.map(Time)}})).await
    }

    /// Puts off the sandbox's expiry: it gets `more` time beyond the end that it has now, or beyond this moment if that
    /// has passed. One that never expires stays so.
    ///
    /// # Errors
    /// [`Error::UpdateFailed`], [`Error::GetFailed`]; a conflict tells that somebody else changed it meanwhile.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// sandboxes.extend_shutdown_time("hello", std::time::Duration::from_secs(3600)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn extend_shutdown_time(&self, name: &str, more: Duration) -> Result<Sandbox, Error> {
        let mut sandbox = self.get(name).await?;
        let Some(Time(end)) = sandbox.spec.shutdown_time else { return Ok(sandbox) };
        let from = end.max(Timestamp::now());
        let later = from.checked_add(more).unwrap_or(Timestamp::MAX);
        sandbox.spec.shutdown_time = Some(Time(later));
        self.sandboxes().update(&sandbox).await
    }

    /// Waits, by a watch, until the sandbox is Ready as it is now (see [`crate::conditions`]), and returns it.
    ///
    /// # Errors
    /// [`WaitError::Ended`] at once if it has come to a state that it does not leave by itself: its pod has ended, it
    /// has expired, it is suspended. [`WaitError::Gone`] if it does not exist. [`WaitError::TimedOut`] after `timeout`,
    /// with what the controller, the pod and its events said last. A broken connection is no error while there is time left.
    ///
    /// # Examples
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::WaitError> {
    /// let ready = sandboxes.wait_ready("hello", Duration::from_secs(60)).await?;
    /// println!("{:?}", ready.status.unwrap_or_default().pod_ips);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_ready(&self, name: &str, timeout: Duration) -> Result<Sandbox, WaitError> {
        self.sandboxes().wait_ready(name, timeout).await
    }

    /// Waits, by a watch, until the sandbox is suspended and its pod is gone, and returns it.
    ///
    /// # Errors
    /// [`WaitError::Gone`] and [`WaitError::TimedOut`], as with [`wait_ready`](Self::wait_ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// sandboxes.suspend("hello").await?;
    /// sandboxes.wait_suspended("hello", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_suspended(&self, name: &str, timeout: Duration) -> Result<Sandbox, WaitError> {
        self.sandboxes().wait_suspended(name, timeout).await
    }

    /// Waits, by a watch, until there is no sandbox of that name.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// sandboxes.delete("hello").await?;
    /// sandboxes.wait_gone("hello", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Result<(), WaitError> {
        self.sandboxes().wait_gone(name, timeout).await
    }

    /// Reads the log of a container, up to 16 MiB of it unless `params` say another limit. Without a container in
    /// `params` it is the pod's default: the one named by the annotation `kubectl.kubernetes.io/default-container` in the
    /// pod template, else the first. It does not follow: see [`log_stream`](Self::log_stream).
    ///
    /// # Errors
    /// [`LogsError`]: no sandbox, no pod, or no log of that container yet.
    ///
    /// # Examples
    /// ```no_run
    /// use kube::api::LogParams;
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::LogsError> {
    /// let last = LogParams { tail_lines: Some(10), ..Default::default() };
    /// println!("{}", sandboxes.logs("hello", &last).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn logs(&self, name: &str, params: &LogParams) -> Result<String, LogsError> {
        let limit = params.limit_bytes.or(Some(LOG_BYTES));
        let (object, pod, params) =
            self.log_of(name, LogParams { limit_bytes: limit, follow: false, ..params.clone() }).await?;
        answered(self.pods().logs(&pod, &params)).await.map_err(|source| no_log(object, pod, source))
    }

    /// Reads the log of a container as it is written: up to 16 KiB at once, in the order in which it was written. With
    /// `follow` in `params` the stream goes on until the container ends; else until the log does.
    ///
    /// # Errors
    /// As [`logs`](Self::logs); [`LogsError::StreamFailed`] is the last item of a stream that breaks off.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::Utf8Decoder;
    /// use futures::TryStreamExt;
    /// use kube::api::LogParams;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::LogsError> {
    /// let params = LogParams { follow: true, ..Default::default() };
    /// let mut pieces = std::pin::pin!(client.log_stream("hello", &params).await?);
    /// let mut text = Utf8Decoder::default();
    /// while let Some(bytes) = pieces.try_next().await? {
    ///     print!("{}", text.push(&bytes));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn log_stream(
        &self,
        name: &str,
        params: &LogParams,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, LogsError>> + Send + use<>, LogsError> {
        let (object, pod, params) = self.log_of(name, params.clone()).await?;
        // A server may say nothing, not even that it will, before there is something to say.
        let log = match self.pods().log_stream(&pod, &params).await {
            Ok(log) => Box::pin(log),
            Err(error) => return Err(no_log(object, pod, error.into())),
        };
        Ok(futures::stream::unfold(Some((log, object)), |next| async {
            let (mut log, object) = next?;
            let mut piece = vec![0; LOG_PIECE_BYTES];
            match log.read(&mut piece).await {
                Ok(0) => None,
                Ok(count) => {
                    piece.truncate(count);
                    Some((Ok(piece), Some((log, object))))
                }
                Err(source) => Some((Err(LogsError::StreamFailed { object, source }), None)),
            }
        }))
    }

    /// The pod whose log is meant, and the container in it.
    async fn log_of(&self, name: &str, params: LogParams) -> Result<(ObjectName, String, LogParams), LogsError> {
        let object = self.name_of(name);
        let sandbox = match self.get(name).await {
            Ok(sandbox) => sandbox,
            Err(source) => return Err(LogsError::PodLookupFailed { object, source: Box::new(source) }),
        };
        let pod = sandbox.pod_name().unwrap_or(name).to_owned();
        let container = params.container.clone().or_else(|| default_container(&sandbox));
        Ok((object, pod, LogParams { container, ..params }))
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.connection.client.clone(), &self.namespace)
    }

    pub(crate) fn name_of(&self, name: &str) -> ObjectName {
        ObjectName::new("sandbox", self.namespace.as_str(), name)
    }
}

fn no_log(object: ObjectName, pod: String, source: CallError) -> LogsError {
    if source.is_not_found() {
        return LogsError::NoPod { object, pod };
    }
    LogsError::ReadFailed { object, pod, source }
}

/// The container that is meant when none is named.
pub(crate) fn default_container(sandbox: &Sandbox) -> Option<String> {
    let template = &sandbox.spec.pod_template;
    let noted = template.metadata.as_ref().and_then(|metadata| metadata.annotations.get(DEFAULT_CONTAINER));
    let containers = &template.spec.containers;
    noted
        .filter(|noted| containers.iter().any(|container| container.name == **noted))
        .or(containers.first().map(|first| &first.name))
        .cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1beta1::SandboxSpec;

    fn with_containers(names: &[&str], annotation: Option<&str>) -> Sandbox {
        let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
        let metadata = json!({"annotations": annotation.map(|name| json!({DEFAULT_CONTAINER: name}))});
        let metadata = annotation.map(|_| metadata);
        let spec = json!({"podTemplate": {"metadata": metadata, "spec": {"containers": containers}}});
        Sandbox::new("a", serde_json::from_value::<SandboxSpec>(spec).unwrap())
    }

    #[test]
    fn the_default_container_is_the_annotated_one_if_it_exists_else_the_first() {
        let names = ["main", "proxy"];
        assert_eq!(default_container(&with_containers(&names, None)).as_deref(), Some("main"));
        assert_eq!(default_container(&with_containers(&names, Some("proxy"))).as_deref(), Some("proxy"));
        assert_eq!(default_container(&with_containers(&names, Some("typo"))).as_deref(), Some("main"));
        assert_eq!(default_container(&with_containers(&[], None)), None);
    }
}
