//! A sandbox as its container shows it: how commands are run in it, and how it is stopped.

use std::sync::{Arc, atomic::Ordering};

use async_trait::async_trait;
use bollard::{
    errors::Error as DockerError,
    models::{ContainerCpuStats, ContainerStatsResponse, ContainerSummary},
    query_parameters::{
        InspectContainerOptions, ListContainersOptions, RemoveContainerOptions, StatsOptions, StopContainerOptions,
    },
};
use futures::StreamExt;
use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, container, create, exec,
    failures::{of, status},
    filters,
};
use crate::{
    Code, Error, ExecOptions, Sandbox, SandboxConfig, SandboxMetrics, SandboxStatus, StopReason,
    audit::audit,
    labels::{self, STOP_GRACE},
    machine::{Handle, Machine},
    streams::Carried,
    tracker::{Record, Tracker},
};

impl Inner {
    async fn stats(&self, container: &str) -> Result<ContainerStatsResponse, DockerError> {
        let options = StatsOptions { stream: false, one_shot: false };
        let mut answers = Box::pin(self.docker.stats(container, Some(options)));
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
impl Machine for Inner {
    const EXEC: [Code; 2] = [Code::SandboxExecFailed, Code::SandboxExecTimeout];
    const BUG: Code = Code::SandboxInternal;

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

    async fn refresh(&self) -> Result<(), Error> {
        let revision = self.lists.fetch_add(1, Ordering::Relaxed);
        let of_ours = filters([("label", labels::SANDBOX_ID)]);
        let options = ListContainersOptions { all: true, filters: Some(of_ours), ..Default::default() };
        match self.docker.list_containers(Some(options)).await {
            Ok(found) => {
                let now = self.options.clock.now();
                let read = |found: &ContainerSummary| {
                    let told = found.labels.as_ref().and_then(|noted| self.told.get(noted.get(labels::SANDBOX_ID)?));
                    container::record(found, told, now, revision)
                };
                self.tracker.observe_all(found.iter().filter_map(read).collect(), revision);
                self.tracker.set_connected(true);
                Ok(())
            }
            Err(error) => {
                self.tracker.set_connected(false);
                Err(of(error, "the containers were not listed", Code::ProviderNotAvailable))
            }
        }
    }

    async fn make(&self, config: &SandboxConfig, id: &str, cancel: &CancellationToken) -> Result<Record, Error> {
        self.make_container(config, id, cancel).await
    }

    async fn remove(&self, id: &str, container: &str) -> Result<bool, Error> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.docker.remove_container(container, Some(options)).await {
            Ok(()) => {}
            // Gone, or somebody else is at it.
            Err(error) if matches!(status(&error), Some(404 | 409)) => return Ok(false),
            Err(error) => {
                let what = format!("container {container} was not removed");
                return Err(of(error, &what, Code::ContainerStopFailed).with("containerId", container));
            }
        }
        audit!(info, "pod.deleted", sandbox_id = id, resource_name = container);
        self.told.remove(id);
        Ok(true)
    }

    async fn start(&self, sandbox: &Handle<Self>, options: ExecOptions) -> Result<Carried, Error> {
        let (id, container) = (sandbox.id(), sandbox.name());
        if let Some(status) = sandbox.obstacle() {
            let message = format!("no command was run: container {container} does not run, it is {status:?}");
            return Err(Error::new(Code::ContainerNotRunning, message).with("containerId", container));
        }
        if options.as_root {
            audit!(warn, "security.exec_as_root_attempted", sandbox_id = id, command = options.cmd);
        }
        audit!(info, "security.exec_command", sandbox_id = id, resource_name = container, command = options.cmd);
        Ok(sandbox.carry(exec::start(&self.docker, container, options, &self.tasks).await?))
    }

    async fn stop(&self, sandbox: &Handle<Self>, reason: StopReason) -> Result<(), Error> {
        if matches!(sandbox.status(), SandboxStatus::Stopped | SandboxStatus::Idle) {
            return Ok(());
        }
        stop(self, sandbox.id(), sandbox.name(), reason).await?;
        audit!(info, "pod.stopped", sandbox_id = sandbox.id(), resource_name = sandbox.name(), reason = ?reason);
        Ok(())
    }

    async fn metrics(&self, sandbox: &Handle<Self>) -> Result<SandboxMetrics, Error> {
        let container = sandbox.name();
        let what = format!("what container {container} uses is not known");
        let failed = |error| of(error, &what, Code::ContainerNotFound);
        let inspect = self.docker.inspect_container(container, None::<InspectContainerOptions>);
        let found = inspect.await.map_err(failed)?;
        let state = found.state.unwrap_or_default();
        let started = state.started_at.and_then(|text| text.parse::<Timestamp>().ok());
        let started = started.filter(|_| state.running == Some(true));
        let uptime = started.map_or(0, |started| Timestamp::now().as_millisecond() - started.as_millisecond());
        let stats = self.stats(container).await.map_err(failed)?;
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
