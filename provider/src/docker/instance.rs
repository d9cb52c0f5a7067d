//! [`DockerSandbox`]: one sandbox, seen through its container.

use std::sync::Arc;

use async_trait::async_trait;
use bollard::{
    errors::Error as DockerError,
    models::{ContainerCpuStats, ContainerStatsResponse},
    query_parameters::{InspectContainerOptions, StatsOptions, StopContainerOptions},
};
use futures::StreamExt;
use jiff::Timestamp;

use super::{
    Inner, exec,
    failures::{of, status},
};
use crate::{
    Code, Error, ExecOptions, ExecOutput, ExecStream, Sandbox, SandboxMetrics, SandboxStatus, StopReason, TmuxSession,
    audit::audit,
    labels::STOP_GRACE,
    streams::Carried,
    tmux,
    tracker::{Activity, Record},
};

pub(super) struct DockerSandbox {
    inner: Arc<Inner>,
    id: String,
    project_id: String,
    container: String,
    activity: Arc<Activity>,
}

impl DockerSandbox {
    pub(super) fn new(inner: Arc<Inner>, record: &Record) -> Arc<Self> {
        let info = &record.info;
        let activity = inner.tracker.activity(&info.id);
        let (id, project_id, container) = (info.id.clone(), info.project_id.clone(), info.container_id.clone());
        Arc::new(Self { inner, id, project_id, container, activity })
    }

    async fn start(&self, options: ExecOptions) -> Result<Carried, Error> {
        let _busy = self.activity.busy();
        let status = self.status();
        if status != SandboxStatus::Running && self.inner.tracker.is_connected() {
            let message = format!("no command was run: container {} does not run, it is {status:?}", self.container);
            return Err(Error::new(Code::ContainerNotRunning, message).with("containerId", self.container.as_str()));
        }
        let Inner { docker, tasks, stop, .. } = &*self.inner;
        if options.as_root {
            audit!(warn, "security.exec_as_root_attempted", sandbox_id = self.id, command = options.cmd);
        }
        audit!(
            info,
            "security.exec_command",
            sandbox_id = self.id,
            resource_name = self.container,
            command = options.cmd
        );
        let process = exec::start(docker, &self.container, options, tasks).await?;
        Ok(crate::streams::carry(process, &self.activity, tasks, stop))
    }

    async fn stats(&self) -> Result<ContainerStatsResponse, DockerError> {
        let options = StatsOptions { stream: false, one_shot: false };
        let mut answers = Box::pin(self.inner.docker.stats(&self.container, Some(options)));
        answers.next().await.unwrap_or_else(|| Ok(ContainerStatsResponse::default()))
    }
}

/// Stops a container. One that is stopped, or gone, is fine.
pub(super) async fn stop(inner: &Inner, id: &str, container: &str, reason: StopReason) -> Result<(), Error> {
    inner.told.insert(id, reason);
    inner.refresh().await.ok();
    let options = StopContainerOptions { t: i32::try_from(STOP_GRACE.as_secs()).ok(), signal: None };
    match inner.docker.stop_container(container, Some(options)).await {
        Ok(()) => {}
        Err(error) if matches!(status(&error), Some(304 | 404)) => {}
        Err(error) => {
            inner.told.remove(id);
            inner.refresh().await.ok();
            let error = of(error, &format!("container {container} was not stopped"), Code::ContainerStopFailed);
            return Err(error.with("containerId", container));
        }
    }
    inner.told.done(id);
    inner.refresh().await
}

#[async_trait]
impl Sandbox for DockerSandbox {
    fn id(&self) -> &str {
        &self.id
    }

    fn project_id(&self) -> &str {
        &self.project_id
    }

    fn container_id(&self) -> String {
        self.container.clone()
    }

    fn status(&self) -> SandboxStatus {
        self.inner.tracker.record(&self.id).map_or(SandboxStatus::Stopped, |record| record.info.status)
    }

    async fn exec(&self, options: ExecOptions) -> Result<ExecOutput, Error> {
        let (cmd, timeout) = (options.cmd.clone(), options.timeout);
        let carried = self.start(options).await?;
        carried.output(&cmd, timeout, [Code::SandboxExecFailed, Code::SandboxExecTimeout]).await
    }

    async fn exec_stream(&self, options: ExecOptions) -> Result<ExecStream, Error> {
        let timeout = options.timeout;
        let stream = self.start(options).await?.stream();
        crate::streams::limit(&stream, timeout, &self.inner.tasks);
        Ok(stream)
    }

    async fn stop(&self, reason: StopReason) -> Result<(), Error> {
        self.touch();
        if matches!(self.status(), SandboxStatus::Stopped | SandboxStatus::Idle) {
            return Ok(());
        }
        stop(&self.inner, &self.id, &self.container, reason).await?;
        audit!(info, "pod.stopped", sandbox_id = self.id, resource_name = self.container, reason = ?reason);
        Ok(())
    }

    async fn metrics(&self) -> Result<SandboxMetrics, Error> {
        self.touch();
        let what = format!("what container {} uses is not known", self.container);
        let failed = |error| of(error, &what, Code::ContainerNotFound);
        let inspect = self.inner.docker.inspect_container(&self.container, None::<InspectContainerOptions>);
        let found = inspect.await.map_err(failed)?;
        let state = found.state.unwrap_or_default();
        let started = state.started_at.and_then(|text| text.parse::<Timestamp>().ok());
        let started = started.filter(|_| state.running == Some(true));
        let uptime = started.map_or(0, |started| Timestamp::now().as_millisecond() - started.as_millisecond());
        let stats = self.stats().await.map_err(failed)?;
        let mb = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let networks = stats.networks.as_ref();
        let sum = |of: fn(&bollard::models::ContainerNetworkStats) -> Option<u64>| {
            networks.map(|networks| networks.values().filter_map(of).sum())
        };
        let memory = stats.memory_stats.as_ref();
        let limit = found.host_config.and_then(|host| host.memory).and_then(|bytes| u64::try_from(bytes).ok());
        Ok(SandboxMetrics {
            cpu_usage_percent: cpu_percent(stats.precpu_stats.as_ref(), stats.cpu_stats.as_ref()),
            memory_usage_mb: memory.and_then(|memory| memory.usage).map(mb),
            memory_limit_mb: limit.filter(|bytes| *bytes > 0).map(mb),
            disk_usage_mb: None,
            network_rx_bytes: sum(|network| network.rx_bytes),
            network_tx_bytes: sum(|network| network.tx_bytes),
            uptime: u64::try_from(uptime).unwrap_or(0),
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

/// Of one core, between two samples; a first sample alone tells nothing.
fn cpu_percent(before: Option<&ContainerCpuStats>, now: Option<&ContainerCpuStats>) -> Option<f64> {
    let total = |stats: &ContainerCpuStats| stats.cpu_usage.as_ref().and_then(|usage| usage.total_usage);
    let (before, now) = (before?, now?);
    let used = total(now)?.checked_sub(total(before)?)? as f64;
    let passed = now.system_cpu_usage?.checked_sub(before.system_cpu_usage?)? as f64;
    // The system's time is that of all its cores.
    (passed > 0.0).then(|| used / passed * f64::from(now.online_cpus.unwrap_or(1)) * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_usage_is_that_of_one_core_between_two_samples() {
        let sample = |total: u64, system: Option<u64>| ContainerCpuStats {
            cpu_usage: Some(bollard::models::ContainerCpuUsage { total_usage: Some(total), ..Default::default() }),
            system_cpu_usage: system,
            online_cpus: Some(4),
            ..Default::default()
        };
        let (before, now) = (sample(100, Some(1000)), sample(200, Some(1800)));
        assert_eq!(cpu_percent(Some(&before), Some(&now)), Some(50.0));
        assert_eq!(cpu_percent(Some(&sample(0, None)), Some(&now)), None);
        assert_eq!(cpu_percent(None, Some(&now)), None);
        assert_eq!(cpu_percent(Some(&now), Some(&before)), None, "a restarted container counts anew");
    }
}
