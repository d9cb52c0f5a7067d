//! [`AgentSandboxClient`]: what one does with sandboxes, over any [`kube::Client`].

use std::{fmt::Debug, pin::pin, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams},
    runtime::{
        WatchStreamExt,
        wait::Condition,
        watcher::{self, watch_object, watcher},
    },
};
use serde_json::{Value, json};

use crate::{
    conditions::{self, reasons},
    error::{Error, LastSeen, SandboxName, WaitError, is_watch_retryable},
    v1beta1::Sandbox,
};

/// What managed fields call us.
const FIELD_MANAGER: &str = "agent-sandbox-sdk";

/// How many sandboxes one page of a list holds; kubectl's number.
const PAGE: u32 = 500;

/// How long a wait that has failed looks for the reason.
const DIAGNOSIS: Duration = Duration::from_secs(5);

/// A pod annotation that kubectl reads too: which container is meant when none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

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
    client: Client,
    namespace: String,
}

impl Debug for AgentSandboxClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { client: _, namespace } = self;
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
        Self { client, namespace }
    }

    /// As [`new`](Self::new), with the client that the environment gives: a kubeconfig, or the pod that this runs in.
    ///
    /// # Errors
    /// [`Error::ConnectFailed`] if there is neither, or it cannot be used. Nothing is sent yet.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example() -> Result<(), agent_sandbox_sdk::Error> {
    /// let sandboxes = agent_sandbox_sdk::AgentSandboxClient::try_default().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn try_default() -> Result<Self, Error> {
        Client::try_default().await.map(Self::new).map_err(Error::ConnectFailed)
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
        Self { client: self.client.clone(), namespace: namespace.into() }
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
        Api::namespaced(self.client.clone(), &self.namespace)
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
        let params = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        self.api().create(&params, sandbox).await.map_err(|source| {
            let metadata = &sandbox.metadata;
            let name = metadata.name.as_ref().or(metadata.generate_name.as_ref()).cloned().unwrap_or_default();
            Error::CreateFailed { sandbox: self.name_of(&name), source }
        })
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
        self.api().get(name).await.map_err(|source| Error::GetFailed { sandbox: self.name_of(name), source })
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
        let api = self.api();
        let mut params = ListParams { limit: params.limit.or(Some(PAGE)), ..params.clone() };
        let mut all = Vec::new();
        loop {
            let page = api
                .list(&params)
                .await
                .map_err(|source| Error::ListFailed { namespace: self.namespace.clone(), source })?;
            all.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                return Ok(all);
            }
        }
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
        let namespace = self.namespace.clone();
        watcher(self.api(), config)
            .default_backoff()
            .map_err(move |source| Error::WatchFailed { namespace: namespace.clone(), source })
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
        match self.api().delete(name, &DeleteParams::default()).await {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::DeleteFailed { sandbox: self.name_of(name), source }),
        }
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
        self.patch_spec(name, json!({"operatingMode": "Suspended"})).await
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
        self.patch_spec(name, json!({"operatingMode": "Running"})).await
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
        self.patch_spec(name, json!({"shutdownTime": time.map(Time)})).await
    }

    /// Waits, by a watch, until the sandbox is Ready as it is now (see [`conditions`]), and returns it.
    ///
    /// # Errors
    /// [`WaitError::Ended`] at once if it has come to a state that it does not leave by itself: its pod has ended, it
    /// has expired, it is suspended. [`WaitError::Gone`] if it does not exist. [`WaitError::TimedOut`] after `timeout`,
    /// with what the controller and the pod said last. A broken connection is no error while there is time left.
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
        let is_ready = conditions::is_ready();
        self.wait(name, "Ready", timeout, |sandbox| match sandbox {
            None => Verdict::Gone,
            Some(sandbox) if is_ready.matches_object(Some(sandbox)) => Verdict::Done,
            Some(sandbox) => match conditions::current(sandbox, conditions::READY) {
                Some(ready) if ENDS.contains(&ready.reason.as_str()) => {
                    Verdict::Ended(ready.reason.clone(), ready.message.clone())
                }
                _ => Verdict::Later,
            },
        })
        .await?
        .ok_or_else(|| WaitError::Gone { sandbox: self.name_of(name) })
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
        let is_suspended = conditions::is_suspended();
        self.wait(name, "Suspended", timeout, |sandbox| match sandbox {
            None => Verdict::Gone,
            Some(sandbox) if is_suspended.matches_object(Some(sandbox)) => Verdict::Done,
            Some(_) => Verdict::Later,
        })
        .await?
        .ok_or_else(|| WaitError::Gone { sandbox: self.name_of(name) })
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
        let gone = |sandbox: Option<&Sandbox>| sandbox.map_or(Verdict::Done, |_| Verdict::Later);
        self.wait(name, "gone", timeout, gone).await.map(|_| ())
    }

    /// Reads the log of a container. Without one in `params` it is the pod's default: the one named by the annotation
    /// `kubectl.kubernetes.io/default-container` in the pod template, else the first.
    ///
    /// # Errors
    /// [`Error::GetFailed`] if the sandbox, and so its pod's name, is not known; else [`Error::LogsFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// use kube::api::LogParams;
    ///
    /// # async fn example(sandboxes: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::Error> {
    /// let last = LogParams { tail_lines: Some(10), ..Default::default() };
    /// println!("{}", sandboxes.logs("hello", &last).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn logs(&self, name: &str, params: &LogParams) -> Result<String, Error> {
        let sandbox = self.get(name).await?;
        let pod = sandbox.pod_name().unwrap_or(name).to_owned();
        let container = params.container.clone().or_else(|| default_container(&sandbox));
        let params = LogParams { container, ..params.clone() };
        let logs = self.pods().logs(&pod, &params).await;
        logs.map_err(|source| Error::LogsFailed { sandbox: self.name_of(name), pod, source })
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn name_of(&self, name: &str) -> SandboxName {
        SandboxName::new(&self.namespace, name)
    }

    async fn patch_spec(&self, name: &str, spec: Value) -> Result<Sandbox, Error> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..Default::default() };
        let patch = Patch::Merge(json!({"spec": spec}));
        let patched = self.api().patch(name, &params, &patch).await;
        patched.map_err(|source| Error::PatchFailed { sandbox: self.name_of(name), source })
    }

    /// Watches one sandbox until `judge` has an answer.
    async fn wait(
        &self,
        name: &str,
        wanted: &'static str,
        timeout: Duration,
        judge: impl Fn(Option<&Sandbox>) -> Verdict,
    ) -> Result<Option<Sandbox>, WaitError> {
        let mut last = None;
        let mut interrupted = None;
        let watching = async {
            let mut changes = pin!(watch_object(self.api(), name).default_backoff());
            while let Some(change) = changes.next().await {
                match change {
                    Ok(sandbox) => {
                        match judge(sandbox.as_ref()) {
                            Verdict::Done => return Ok(sandbox),
                            Verdict::Gone => return Err(WaitError::Gone { sandbox: self.name_of(name) }),
                            Verdict::Ended(reason, message) => {
                                return Err(WaitError::Ended { sandbox: self.name_of(name), reason, message });
                            }
                            Verdict::Later => {}
                        }
                        last = sandbox;
                    }
                    Err(error) if is_watch_retryable(&error) => interrupted = Some(error),
                    Err(source) => return Err(WaitError::WatchRefused { sandbox: self.name_of(name), source }),
                }
            }
            unreachable!("a watch does not end by itself")
        };
        if let Ok(outcome) = tokio::time::timeout(timeout, watching).await {
            return outcome;
        }
        let last = Box::new(self.last_seen(last.as_ref()).await);
        Err(WaitError::TimedOut { sandbox: self.name_of(name), wanted, after: timeout, last, source: interrupted })
    }

    /// What a sandbox and its pod say about themselves. Asks for the pod; without an answer it does without.
    async fn last_seen(&self, sandbox: Option<&Sandbox>) -> LastSeen {
        let Some(sandbox) = sandbox else { return LastSeen::default() };
        let ready = sandbox.condition(conditions::READY).map(|ready| (ready.reason.clone(), ready.message.clone()));
        let pod = match sandbox.pod_name() {
            Some(name) => tokio::time::timeout(DIAGNOSIS, self.pods().get_opt(name)).await,
            None => Ok(Ok(None)),
        };
        let status = pod.ok().and_then(Result::ok).flatten().and_then(|pod| pod.status);
        LastSeen { ready, pod: status.as_ref().map(what_keeps).unwrap_or_default() }
    }
}

/// Reasons for not being Ready that no waiting changes.
const ENDS: [&str; 4] =
    [reasons::SANDBOX_SUSPENDED, reasons::SANDBOX_EXPIRED, reasons::POD_SUCCEEDED, reasons::POD_FAILED];

/// What a change means to someone who waits.
enum Verdict {
    Done,
    Later,
    Gone,
    Ended(String, String),
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

/// What keeps a pod from being ready, in the words of kubelet and scheduler.
fn what_keeps(status: &PodStatus) -> Vec<String> {
    let text = |reason: Option<&String>, message: Option<&String>| {
        let parts: Vec<&str> = [reason, message].into_iter().flatten().map(String::as_str).collect();
        parts.join(": ")
    };
    let unscheduled = status.conditions.iter().flatten().filter(|c| c.type_ == "PodScheduled" && c.status == "False");
    let mut entries: Vec<_> = unscheduled.map(|c| text(c.reason.as_ref(), c.message.as_ref())).collect();
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in containers {
        let Some(state) = &container.state else { continue };
        if let Some(waiting) = &state.waiting {
            entries.push(format!("{}: {}", container.name, text(waiting.reason.as_ref(), waiting.message.as_ref())));
        } else if let Some(ended) = state.terminated.as_ref().filter(|ended| ended.exit_code != 0) {
            entries.push(format!("{}: ended with exit code {}", container.name, ended.exit_code));
        }
    }
    entries
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

    #[test]
    fn a_pod_that_hangs_says_where() {
        let status = json!({
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/3 nodes are available"}],
            "initContainerStatuses": [{"name": "fetch", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                "state": {"terminated": {"exitCode": 7}}}],
            "containerStatuses": [{"name": "main", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}],
        });
        let status: PodStatus = serde_json::from_value(status).unwrap();
        let wanted = [
            "Unschedulable: 0/3 nodes are available",
            "fetch: ended with exit code 7",
            "main: ImagePullBackOff: Back-off pulling image",
        ];
        assert_eq!(what_keeps(&status), wanted);
    }
}
