//! A sandbox as its Sandbox object shows it: how commands are run in it, and how it is stopped.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, create, exec,
    failures::{of_kube, of_sdk, of_wait},
    record::{quantity, record},
};
use crate::{
    Code, Error, ExecOptions, Sandbox, SandboxConfig, SandboxMetrics, SandboxStatus, StopReason,
    audit::audit,
    labels,
    machine::{Handle, Machine},
    streams::Carried,
    tracker::{Record, Tracker},
};

/// How long a question waits for the watch before it goes to the cluster itself.
const SYNCED: Duration = Duration::from_secs(2);

/// How long a pod may take to stop: its grace period, and what a busy node needs beside it.
const STOPPED: Duration = Duration::from_secs(60);

/// How often a change is tried again that somebody else was faster with.
const ATTEMPTS: u32 = 5;

impl Inner {
    async fn pod_metrics(&self, pod: &str) -> Option<Value> {
        let namespace = self.client.namespace();
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{pod}");
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        // A cluster without a metrics server answers 404, and one with it has nothing on a new pod.
        self.client.kube().request::<Value>(request).await.ok()
    }
}

/// Since when the pod's container runs.
fn started_at(pod: &Pod) -> Option<Timestamp> {
    let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0)
}

/// Suspends the sandbox unless its name is another's by now. What it has become.
pub(super) async fn suspend(inner: &Inner, name: &str, id: &str, reason: StopReason) -> Result<(), Error> {
    let sandboxes = inner.client.sandboxes();
    let mut attempt = 1;
    loop {
        let sandbox = match sandboxes.get(name).await {
            Ok(sandbox) => sandbox,
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(of_sdk(error, Code::PodDeletionFailed)),
        };
        if record(&sandbox).is_none_or(|record| record.info.id != id) {
            return Ok(());
        }
        let patch = json!({
            "metadata": {
                "resourceVersion": sandbox.metadata.resource_version,
                "annotations": {labels::STOP_REASON: reason},
            },
            "spec": {"operatingMode": "Suspended"},
        });
        match sandboxes.patch(name, &patch).await {
            Ok(sandbox) => {
                if let Some(record) = record(&sandbox) {
                    inner.tracker.observe(record);
                }
                return Ok(());
            }
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(of_sdk(error, Code::PodDeletionFailed)),
        }
    }
}

#[async_trait]
impl Machine for Inner {
    const EXEC: [Code; 2] = [Code::ExecFailed, Code::ExecTimeout];
    const BUG: Code = Code::K8sInternal;

    fn tracker(&self) -> &Arc<Tracker> {
        &self.tracker
    }

    fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    fn stopped(&self) -> &CancellationToken {
        &self.stop
    }

    fn exists(project_id: &str, why: &str) -> Error {
        create::exists(project_id, why)
    }

    /// Waits until the view is whole; if that does not come to be, the cluster is asked.
    async fn refresh(&self) -> Result<(), Error> {
        let connected = self.tracker.until(|state| state.is_connected().then_some(()));
        if tokio::time::timeout(SYNCED, connected).await.is_ok() {
            return Ok(());
        }
        let found = self.client.list(&ListParams::default().labels(labels::SANDBOX_ID)).await;
        let found = found.map_err(|error| of_sdk(error, Code::ApiError))?;
        for sandbox in &found {
            self.observe(sandbox);
        }
        Ok(())
    }

    async fn make(&self, config: &SandboxConfig, id: &str, cancel: &CancellationToken) -> Result<Record, Error> {
        self.make_sandbox(config, id, cancel).await
    }

    async fn remove(&self, id: &str, name: &str) -> Result<bool, Error> {
        self.remove_sandbox(id, name).await
    }

    async fn start(&self, sandbox: &Handle<Self>, options: ExecOptions) -> Result<Carried, Error> {
        let name = sandbox.name();
        if let Some(status) = sandbox.obstacle() {
            let message = format!("no command was run: sandbox {name} does not run, it is {status:?}");
            let error = Error::new(Code::PodNotRunning, message);
            return Err(error.with("podName", name).with("currentPhase", format!("{status:?}")));
        }
        audit!(info, "security.exec_command", sandbox_id = sandbox.id(), resource_name = name, command = options.cmd);
        Ok(sandbox.carry(exec::start(&self.client, name, options, &self.tasks).await?))
    }

    async fn stop(&self, sandbox: &Handle<Self>, reason: StopReason) -> Result<(), Error> {
        let (id, name) = (sandbox.id(), sandbox.name());
        suspend(self, name, id, reason).await?;
        // Done when the pod is gone: its volume is free then, and it can be made again.
        let ended = self.tracker.until(|state| match state.record(id).map(|record| record.info.status) {
            None | Some(SandboxStatus::Stopped | SandboxStatus::Idle | SandboxStatus::Error) => Some(()),
            Some(SandboxStatus::Creating | SandboxStatus::Running | SandboxStatus::Stopping) => None,
        });
        if tokio::time::timeout(STOPPED, ended).await.is_err() {
            let last = self.client.wait_suspended(name, Duration::from_millis(1)).await;
            if let Err(error) = last {
                let error = of_wait(error, name, STOPPED);
                let message = format!("sandbox {name} was told to stop and has not: {}", error.message());
                return Err(Error::new(Code::PodDeletionFailed, message).with("podName", name));
            }
        }
        audit!(info, "pod.stopped", sandbox_id = id, resource_name = name, reason = ?reason);
        Ok(())
    }

    async fn metrics(&self, sandbox: &Handle<Self>) -> Result<SandboxMetrics, Error> {
        let name = sandbox.name();
        let Some(record) = self.tracker.record(sandbox.id()) else {
            let message = format!("sandbox {name} is not there any more");
            return Err(Error::new(Code::PodNotFound, message).with("podName", name));
        };
        let object = self.client.get(name).await.map_err(|error| of_sdk(error, Code::PodNotFound))?;
        let pod = object.pod_name().unwrap_or(name).to_owned();
        let pods = Api::<Pod>::namespaced(self.client.kube(), self.client.namespace());
        let what = format!("pod {pod} was not read");
        let found = pods.get_opt(&pod).await.map_err(|error| of_kube(error, &what, Code::PodNotFound))?;
        let started = found.as_ref().and_then(started_at);
        let uptime = started.map_or(0, |started| self.options.clock.now().as_millisecond() - started.as_millisecond());
        let usage = self.pod_metrics(&pod).await;
        let used = |what: &str| {
            let usage = usage.as_ref()?.get("containers")?.get(0)?.get("usage")?;
            quantity(usage.get(what)?.as_str()?)
        };
        Ok(SandboxMetrics {
            cpu_usage_percent: used("cpu").map(|cores| cores * 100.0),
            memory_usage_mb: used("memory").map(|bytes| bytes / f64::from(1 << 20)),
            memory_limit_mb: Some(f64::from(record.info.memory_mb)),
            uptime: u64::try_from(uptime).unwrap_or(0),
            ..SandboxMetrics::default()
        })
    }
}
