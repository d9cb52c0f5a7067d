//! [`KubernetesSandbox`]: one sandbox, seen through its Sandbox object.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::{Value, json};

use super::{
    Inner, exec,
    failures::{of_kube, of_sdk, of_wait},
    record::{quantity, record},
};
use crate::{
    Code, Error, ExecOptions, ExecOutput, ExecStream, Sandbox, SandboxMetrics, SandboxStatus, StopReason, TmuxSession,
    audit::audit,
    labels,
    streams::Carried,
    tmux,
    tracker::{Activity, Record},
};

/// How long a pod may take to stop: its grace period, and what a busy node needs beside it.
const STOPPED: Duration = Duration::from_secs(60);

/// How often a change is tried again that somebody else was faster with.
const ATTEMPTS: u32 = 5;

pub(super) struct KubernetesSandbox {
    inner: Arc<Inner>,
    id: String,
    project_id: String,
    name: String,
    activity: Arc<Activity>,
}

impl KubernetesSandbox {
    pub(super) fn new(inner: Arc<Inner>, record: &Record) -> Arc<Self> {
        let info = &record.info;
        let activity = inner.tracker.activity(&info.id);
        let (id, project_id, name) = (info.id.clone(), info.project_id.clone(), info.container_id.clone());
        Arc::new(Self { inner, id, project_id, name, activity })
    }

    async fn start(&self, options: ExecOptions) -> Result<Carried, Error> {
        let _busy = self.activity.busy();
        // The object's name may be another sandbox's by now; and a pod that is on its way out takes commands still.
        let status = self.status();
        if status != SandboxStatus::Running && self.inner.tracker.is_connected() {
            let message = format!("no command was run: sandbox {} does not run, it is {status:?}", self.name);
            let error = Error::new(Code::PodNotRunning, message);
            return Err(error.with("podName", self.name.as_str()).with("currentPhase", format!("{status:?}")));
        }
        let Inner { client, tasks, stop, .. } = &*self.inner;
        audit!(info, "security.exec_command", sandbox_id = self.id, resource_name = self.name, command = options.cmd);
        let process = exec::start(client, &self.name, options, tasks).await?;
        Ok(crate::streams::carry(process, &self.activity, tasks, stop))
    }

    async fn pod_metrics(&self, pod: &str) -> Option<Value> {
        let namespace = self.inner.client.namespace();
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods/{pod}");
        let request = http::Request::get(path).body(Vec::new()).ok()?;
        // A cluster without a metrics server answers 404, and one with it has nothing on a new pod.
        self.inner.client.kube().request::<Value>(request).await.ok()
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
impl Sandbox for KubernetesSandbox {
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
        self.inner.tracker.record(&self.id).map_or(SandboxStatus::Stopped, |record| record.info.status)
    }

    async fn exec(&self, options: ExecOptions) -> Result<ExecOutput, Error> {
        let (cmd, timeout) = (options.cmd.clone(), options.timeout);
        let carried = self.start(options).await?;
        carried.output(&cmd, timeout, [Code::ExecFailed, Code::ExecTimeout]).await
    }

    async fn exec_stream(&self, options: ExecOptions) -> Result<ExecStream, Error> {
        let timeout = options.timeout;
        let stream = self.start(options).await?.stream();
        crate::streams::limit(&stream, timeout, &self.inner.tasks);
        Ok(stream)
    }

    async fn stop(&self, reason: StopReason) -> Result<(), Error> {
        self.touch();
        suspend(&self.inner, &self.name, &self.id, reason).await?;
        // Done when the pod is gone: its volume is free then, and it can be made again.
        let id = self.id.as_str();
        let ended = self.inner.tracker.until(|state| match state.record(id).map(|record| record.info.status) {
            None | Some(SandboxStatus::Stopped | SandboxStatus::Idle | SandboxStatus::Error) => Some(()),
            Some(SandboxStatus::Creating | SandboxStatus::Running | SandboxStatus::Stopping) => None,
        });
        if tokio::time::timeout(STOPPED, ended).await.is_err() {
            let last = self.inner.client.wait_suspended(&self.name, Duration::from_millis(1)).await;
            if let Err(error) = last {
                let error = of_wait(error, &self.name, STOPPED);
                let message = format!("sandbox {} was told to stop and has not: {}", self.name, error.message());
                return Err(Error::new(Code::PodDeletionFailed, message).with("podName", self.name.as_str()));
            }
        }
        audit!(info, "pod.stopped", sandbox_id = self.id, resource_name = self.name, reason = ?reason);
        Ok(())
    }

    async fn metrics(&self) -> Result<SandboxMetrics, Error> {
        self.touch();
        let Some(record) = self.inner.tracker.record(&self.id) else {
            let message = format!("sandbox {} is not there any more", self.name);
            return Err(Error::new(Code::PodNotFound, message).with("podName", self.name.as_str()));
        };
        let sandbox = self.inner.client.get(&self.name).await.map_err(|error| of_sdk(error, Code::PodNotFound))?;
        let pod = sandbox.pod_name().unwrap_or(&self.name).to_owned();
        let pods = Api::<Pod>::namespaced(self.inner.client.kube(), self.inner.client.namespace());
        let what = format!("pod {pod} was not read");
        let found = pods.get_opt(&pod).await.map_err(|error| of_kube(error, &what, Code::PodNotFound))?;
        let started = found.as_ref().and_then(started_at);
        let uptime =
            started.map_or(0, |started| self.inner.options.clock.now().as_millisecond() - started.as_millisecond());
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

    fn touch(&self) {
        self.activity.touch();
    }

    fn last_activity(&self) -> Timestamp {
        self.activity.last()
    }

    async fn create_tmux_session(&self, name: &str, task_id: Option<&str>) -> Result<TmuxSession, Error> {
        tmux::create(self, name, task_id).await
    }

    async fn list_tmux_sessions(&self) -> Result<Vec<TmuxSession>, Error> {
        tmux::list(self).await
    }

    async fn kill_tmux_session(&self, name: &str) -> Result<(), Error> {
        tmux::kill(self, name).await
    }

    async fn send_keys_to_tmux(&self, name: &str, keys: &str) -> Result<(), Error> {
        tmux::send_keys(self, name, keys).await
    }

    async fn capture_tmux_pane(&self, name: &str, lines: u32) -> Result<String, Error> {
        tmux::capture(self, name, lines).await
    }
}
