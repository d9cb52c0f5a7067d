//! Waiting for an object by a watch, and what kept it if the wait was in vain.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Event, Pod, PodStatus};
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::{WatchStreamExt, wait::Condition, watcher::watch_object},
};
use serde_json::Value;

use crate::{
    conditions::{self, reasons},
    conversion::Version,
    error::{CallError, Error, LastSeen, WaitError},
    objects::{Kind, Objects},
    v1beta1::{OperatingMode, Sandbox, SandboxClaim, SandboxWarmPool},
};

/// How long a wait that has failed looks for the reason.
const DIAGNOSIS: Duration = Duration::from_secs(5);

/// How many events a reason quotes, the last ones.
const EVENTS: usize = 5;

/// How many events are looked through for them.
const EVENTS_READ: u32 = 500;

/// What a change means to someone who waits.
pub(crate) enum Verdict {
    Done,
    Later,
    Gone,
    Ended(String, String),
}

/// Reasons for a sandbox not being Ready that no waiting changes.
const SANDBOX_ENDS: [&str; 4] =
    [reasons::SANDBOX_SUSPENDED, reasons::SANDBOX_EXPIRED, reasons::POD_SUCCEEDED, reasons::POD_FAILED];

/// Reasons for a claim not being Ready that somebody has to do something about.
const CLAIM_ENDS: [&str; 7] = [
    reasons::TEMPLATE_NOT_FOUND,
    reasons::WARM_POOL_NOT_FOUND,
    reasons::INVALID_METADATA,
    reasons::ENV_VARS_INJECTION_REJECTED,
    reasons::VOLUME_CLAIM_TEMPLATES_ERROR,
    reasons::CLAIM_EXPIRED,
    reasons::SANDBOX_EXPIRED,
];

impl<K: Kind> Objects<K> {
    /// Waits, by a watch, until there is no object of that name.
    ///
    /// # Errors
    /// [`WaitError::TimedOut`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// client.claims().delete("mine").await?;
    /// client.claims().wait_gone("mine", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_gone(&self, name: &str, timeout: Duration) -> Result<(), WaitError> {
        let gone = |object: Option<&K>| object.map_or(Verdict::Done, |_| Verdict::Later);
        self.wait(name, "gone", timeout, gone).await.map(|_| ())
    }

    /// Waits, by a watch, until `wanted` holds for the object, and returns it; `what` is what errors call that.
    ///
    /// # Errors
    /// [`WaitError::Gone`] and [`WaitError::TimedOut`].
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::SandboxWarmPool;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::WaitError> {
    /// let seen = |pool: &SandboxWarmPool| pool.status.is_some();
    /// client.warm_pools().wait_until("python", "noticed", seen, std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_until(
        &self,
        name: &str,
        what: &'static str,
        wanted: impl Fn(&K) -> bool,
        timeout: Duration,
    ) -> Result<K, WaitError> {
        let judge = |object: Option<&K>| match object {
            None => Verdict::Gone,
            Some(object) if wanted(object) => Verdict::Done,
            Some(_) => Verdict::Later,
        };
        self.wait_for(name, what, timeout, judge).await
    }

    async fn wait_for(
        &self,
        name: &str,
        wanted: &'static str,
        timeout: Duration,
        judge: impl Fn(Option<&K>) -> Verdict,
    ) -> Result<K, WaitError> {
        let waited = self.wait(name, wanted, timeout, judge).await?;
        waited.ok_or_else(|| WaitError::Gone { object: self.name_of(name) })
    }

    /// Watches one object until `judge` has an answer.
    pub(crate) async fn wait(
        &self,
        name: &str,
        wanted: &'static str,
        timeout: Duration,
        judge: impl Fn(Option<&K>) -> Verdict,
    ) -> Result<Option<K>, WaitError> {
        let (mut last, mut interrupted) = (None, None);
        let outcome = tokio::time::timeout(timeout, self.judge(name, judge, &mut last, &mut interrupted)).await;
        let object = self.name_of(name);
        match outcome {
            Ok(Ok(Judged::Done(found))) => Ok(found),
            Ok(Ok(Judged::Gone)) => Err(WaitError::Gone { object }),
            Ok(Ok(Judged::Ended(reason, message))) => {
                let last = Box::new(self.last_seen(last.as_ref()).await);
                Err(WaitError::Ended { object, reason, message, last })
            }
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let last = Box::new(self.last_seen(last.as_ref()).await);
                Err(WaitError::TimedOut { object, wanted, after: timeout, last, source: interrupted })
            }
        }
    }

    async fn judge(
        &self,
        name: &str,
        judge: impl Fn(Option<&K>) -> Verdict,
        last: &mut Option<K>,
        interrupted: &mut Option<CallError>,
    ) -> Result<Judged<K>, WaitError> {
        let refused = |source: Error| WaitError::NotWatched { object: self.name_of(name), source: Box::new(source) };
        let api = self.opened_for(refused, interrupted).await?;
        let mut changes = pin!(watch_object(api, name).default_backoff());
        while let Some(change) = changes.next().await {
            match change.map_err(CallError::from) {
                Ok(object) => {
                    let object = object.map(|object| self.incoming(object)).transpose().map_err(refused)?;
                    let verdict = judge(object.as_ref());
                    match verdict {
                        Verdict::Done => return Ok(Judged::Done(object)),
                        Verdict::Gone => return Ok(Judged::Gone),
                        Verdict::Ended(reason, message) => {
                            *last = object;
                            return Ok(Judged::Ended(reason, message));
                        }
                        Verdict::Later => *last = object,
                    }
                }
                Err(error) if error.is_watch_retryable() => *interrupted = Some(error),
                Err(source) => return Err(WaitError::WatchRefused { object: self.name_of(name), source }),
            }
        }
        unreachable!("a watch does not end by itself")
    }

    /// The API to watch, as soon as the cluster can be asked for it.
    async fn opened_for(
        &self,
        refused: impl Fn(Error) -> WaitError,
        interrupted: &mut Option<CallError>,
    ) -> Result<Api<DynamicObject>, WaitError> {
        let mut opened = pin!(self.opened());
        while let Some(api) = opened.next().await {
            match api {
                Ok(api) => return Ok(api),
                Err(Error::WatchFailed { source, .. }) if source.is_retryable() => *interrupted = Some(source),
                Err(error) => return Err(refused(error)),
            }
        }
        unreachable!("it ends only with an API or an error that is told")
    }

    /// What an object and its pod say about themselves. What cannot be asked for is left out.
    async fn last_seen(&self, object: Option<&K>) -> LastSeen {
        let Some(object) = object else { return LastSeen::default() };
        let ready = object.conditions().iter().find(|condition| condition.type_ == conditions::READY);
        let ready = ready.map(|ready| (ready.reason.clone(), ready.message.clone()));
        let mut seen = LastSeen { ready, ..LastSeen::default() };
        // Without an answer in time the wait says what it knows.
        let _ = tokio::time::timeout(DIAGNOSIS, self.ask_the_pod(object, &mut seen)).await;
        seen
    }

    async fn ask_the_pod(&self, object: &K, seen: &mut LastSeen) {
        let json = serde_json::to_value(object).unwrap_or_default();
        let own = object.meta().name.clone().unwrap_or_default();
        let mut about = vec![own.clone()];
        let sandbox = match json["kind"].as_str() {
            Some("Sandbox") => Some(json),
            Some("SandboxClaim") => match json["status"]["sandbox"]["name"].as_str() {
                Some(name) => {
                    about.push(name.to_owned());
                    let sandboxes = Objects::<Sandbox>::new(self.connection.clone(), &self.namespace);
                    Box::pin(sandboxes.get(name)).await.ok().and_then(|found| serde_json::to_value(found).ok())
                }
                None => None,
            },
            _ => None,
        };
        let sandbox: Option<Sandbox> = sandbox.and_then(|sandbox: Value| serde_json::from_value(sandbox).ok());
        if let Some(name) = sandbox.as_ref().and_then(Sandbox::pod_name) {
            let pods = Api::<Pod>::namespaced(self.connection.client.clone(), &self.namespace);
            if let Ok(Some(Pod { status: Some(status), .. })) = pods.get_opt(name).await {
                seen.pod = what_keeps(&status);
            }
            about.push(name.to_owned());
        }
        let events = Api::<Event>::namespaced(self.connection.client.clone(), &self.namespace);
        if let Ok(list) = events.list(&ListParams::default().fields("type=Warning").limit(EVENTS_READ)).await {
            seen.events = warnings(list.items, &about);
        }
    }
}

enum Judged<K> {
    Done(Option<K>),
    Gone,
    Ended(String, String),
}

impl Objects<Sandbox> {
    /// Waits, by a watch, until the sandbox is Ready as it is now (see [`conditions`]), and returns it.
    ///
    /// # Errors
    /// [`WaitError::Ended`] at once if it has come to a state that it does not leave by itself: its pod has ended, it
    /// has expired, it is suspended. [`WaitError::Gone`] if it does not exist. [`WaitError::TimedOut`] after `timeout`.
    /// Both tell what the controller, the pod and its events said last. A broken connection is no error while there is
    /// time left.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::WaitError;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::WaitError> {
    /// match client.sandboxes().wait_ready("hello", std::time::Duration::from_secs(60)).await {
    ///     Err(WaitError::TimedOut { last, .. }) => println!("so far: {last}"),
    ///     ready => println!("{:?}", ready?.status),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_ready(&self, name: &str, timeout: Duration) -> Result<Sandbox, WaitError> {
        let is_ready = conditions::is_ready();
        let judge = |sandbox: Option<&Sandbox>| match sandbox {
            None => Verdict::Gone,
            Some(sandbox) if is_ready.matches_object(Some(sandbox)) => Verdict::Done,
            // Controllers before v0.5.0 call a suspended sandbox Ready.
            Some(sandbox) if *sandbox.operating_mode() == OperatingMode::Suspended => {
                let ready = conditions::current(sandbox, conditions::READY);
                let ready = ready.filter(|ready| ready.reason == reasons::SANDBOX_SUSPENDED || ready.status == "True");
                match ready {
                    Some(ready) if ready.status != "True" => {
                        Verdict::Ended(ready.reason.clone(), ready.message.clone())
                    }
                    Some(_) => Verdict::Ended(reasons::SANDBOX_SUSPENDED.into(), "it is suspended".into()),
                    None => Verdict::Later,
                }
            }
            Some(sandbox) => ends(conditions::current(sandbox, conditions::READY), &SANDBOX_ENDS),
        };
        self.wait_for(name, "Ready", timeout, judge).await
    }

    /// Waits, by a watch, until the sandbox is suspended and its pod is gone, and returns it. Where the controller does
    /// not say so itself, before v0.5.0, the pod is watched.
    ///
    /// # Errors
    /// [`WaitError::Gone`] and [`WaitError::TimedOut`], as with [`wait_ready`](Self::wait_ready).
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// client.suspend("hello").await?;
    /// client.sandboxes().wait_suspended("hello", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_suspended(&self, name: &str, timeout: Duration) -> Result<Sandbox, WaitError> {
        let refused = |source: Error| WaitError::NotWatched { object: self.name_of(name), source: Box::new(source) };
        let is_suspended = conditions::is_suspended();
        let started = tokio::time::Instant::now();
        let mut interrupted = None;
        // The cluster is asked for its version, until it answers.
        let opened = tokio::time::timeout(timeout, self.opened_for(refused, &mut interrupted)).await;
        if let Ok(opened) = opened {
            opened?;
        } else {
            let (object, last) = (self.name_of(name), Box::default());
            return Err(WaitError::TimedOut { object, wanted: "Suspended", after: timeout, last, source: interrupted });
        }
        let timeout = timeout.saturating_sub(started.elapsed());
        if self.version().await.map_err(refused)? == Version::V1beta1 {
            let wanted = |sandbox: &Sandbox| is_suspended.matches_object(Some(sandbox));
            return self.wait_until(name, "Suspended", wanted, timeout).await;
        }
        let started = tokio::time::Instant::now();
        let asked = |sandbox: &Sandbox| *sandbox.operating_mode() == OperatingMode::Suspended;
        let sandbox = self.wait_until(name, "Suspended", asked, timeout).await?;
        let left = timeout.saturating_sub(started.elapsed());
        let pods = Api::<Pod>::namespaced(self.connection.client.clone(), &self.namespace);
        let pod = sandbox.pod_name().unwrap_or(name);
        let gone = async {
            let mut changes = pin!(watch_object(pods, pod).default_backoff());
            let mut interrupted = None;
            while let Some(change) = changes.next().await {
                match change.map_err(CallError::from) {
                    Ok(None) => return Ok(()),
                    Ok(Some(_)) => {}
                    Err(error) if error.is_watch_retryable() => interrupted = Some(error),
                    Err(error) => return Err(error),
                }
            }
            interrupted.map_or(Ok(()), Err)
        };
        match tokio::time::timeout(left, gone).await {
            Ok(Ok(())) => Ok(sandbox),
            Ok(Err(source)) => Err(WaitError::WatchRefused { object: self.name_of(name), source }),
            Err(_) => {
                let last = Box::new(self.last_seen(Some(&sandbox)).await);
                let object = self.name_of(name);
                Err(WaitError::TimedOut { object, wanted: "Suspended", after: timeout, last, source: None })
            }
        }
    }
}

impl Objects<SandboxClaim> {
    /// Waits, by a watch, until the claim is served by a Ready sandbox, and returns that claim: its
    /// `status.sandbox.name` is set.
    ///
    /// # Errors
    /// [`WaitError::Ended`] at once for what somebody has to repair: no such pool or template, a wish that the template
    /// does not allow, an expired claim. Else as [`Objects::<Sandbox>::wait_ready`].
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::v1beta1::{SandboxClaim, SandboxClaimSpec, SandboxWarmPoolRef};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "python".into() }, ..Default::default() };
    /// client.claims().create(&SandboxClaim::new("mine", spec)).await?;
    /// let claim = client.claims().wait_ready("mine", std::time::Duration::from_secs(60)).await?;
    /// let output = client.exec(claim.sandbox_name().unwrap_or_default(), ["python", "-V"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_ready(&self, name: &str, timeout: Duration) -> Result<SandboxClaim, WaitError> {
        let judge = |claim: Option<&SandboxClaim>| {
            let Some(claim) = claim else { return Verdict::Gone };
            // A claim's condition bears the generation of its sandbox: it cannot be compared with the claim's own.
            let ready = claim.conditions().iter().find(|condition| condition.type_ == conditions::READY);
            match ready {
                Some(ready) if ready.status == "True" && claim.sandbox_name().is_some() => Verdict::Done,
                ready => ends(ready, &CLAIM_ENDS),
            }
        };
        self.wait_for(name, "Ready", timeout, judge).await
    }
}

impl Objects<SandboxWarmPool> {
    /// Asks for another number of sandboxes in the pool. Returns before they are there: see
    /// [`wait_filled`](Self::wait_filled).
    ///
    /// # Errors
    /// [`Error::PatchFailed`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), Box<dyn std::error::Error>> {
    /// client.warm_pools().scale("python", 5).await?;
    /// client.warm_pools().wait_filled("python", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scale(&self, name: &str, replicas: i32) -> Result<SandboxWarmPool, Error> {
        self.patch(name, &serde_json::json!({"spec": {"replicas": replicas}})).await
    }

    /// Waits, by a watch, until the pool holds as many Ready sandboxes as it should and no others.
    ///
    /// # Errors
    /// [`WaitError::Gone`] and [`WaitError::TimedOut`].
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) -> Result<(), agent_sandbox_sdk::WaitError> {
    /// client.warm_pools().wait_filled("python", std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_filled(&self, name: &str, timeout: Duration) -> Result<SandboxWarmPool, WaitError> {
        let filled = |pool: &SandboxWarmPool| {
            let status = pool.status.clone().unwrap_or_default();
            let wanted = pool.spec.replicas.unwrap_or(1);
            // Controllers before v0.5.6 do not tell which generation they have looked at.
            let seen = status.observed_generation.is_none_or(|seen| Some(seen) >= pool.metadata.generation);
            seen && status.ready_replicas.unwrap_or(0) == wanted && status.replicas.unwrap_or(0) == wanted
        };
        self.wait_until(name, "filled", filled, timeout).await
    }
}

type Said = k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

fn ends(ready: Option<&Said>, ends: &[&str]) -> Verdict {
    match ready {
        Some(ready) if ready.status != "True" && ends.contains(&ready.reason.as_str()) => {
            Verdict::Ended(ready.reason.clone(), ready.message.clone())
        }
        _ => Verdict::Later,
    }
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

/// The last warnings about objects of these names, oldest first.
fn warnings(events: Vec<Event>, about: &[String]) -> Vec<String> {
    let when = |event: &Event| {
        let last = event.last_timestamp.as_ref().map(|time| time.0);
        last.or(event.event_time.as_ref().map(|time| time.0)).or(event
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| t.0))
    };
    let mut found: Vec<_> = events
        .into_iter()
        .filter(|event| event.involved_object.name.as_ref().is_some_and(|name| about.contains(name)))
        .collect();
    found.sort_by_key(when);
    let skipped = found.len().saturating_sub(EVENTS);
    let text = |event: &Event| {
        let times = event.count.filter(|count| *count > 1).map(|count| format!(" ({count} times)"));
        let (reason, message) = (event.reason.as_deref().unwrap_or_default(), event.message.as_deref());
        format!("{reason}: {}{}", message.unwrap_or_default(), times.unwrap_or_default())
    };
    let mut said: Vec<String> = Vec::new();
    for text in found[skipped..].iter().map(text) {
        if !said.contains(&text) {
            said.push(text);
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[test]
    fn the_last_warnings_about_the_pod_are_quoted_once_and_no_others() {
        let event = |name: &str, at: u32, reason: &str, count: i32| -> Event {
            let event = json!({"metadata": {"name": format!("e{at}")}, "involvedObject": {"name": name},
                "type": "Warning", "reason": reason, "message": "m", "count": count,
                "lastTimestamp": format!("2026-01-02T03:04:{at:02}Z")});
            serde_json::from_value(event).unwrap()
        };
        let mut events = vec![event("a", 9, "FailedMount", 3), event("b", 1, "Other", 1), event("a", 2, "First", 1)];
        assert_eq!(warnings(events.clone(), &["a".into()]), ["First: m", "FailedMount: m (3 times)"]);
        events.extend((10..15).map(|at| event("a", at, "Same", 1)));
        assert_eq!(warnings(events, &["a".into()]), ["Same: m"]);
    }
}
