//! The container that a sandbox is, and what it says of itself.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, ContainerSummary, ContainerSummaryStateEnum as State, HostConfig, Mount, MountType,
};
use jiff::Timestamp;

use super::options::DockerOptions;
use crate::{
    Code, SandboxConfig, SandboxInfo, SandboxStatus, StopReason, VolumeMount,
    labels::{self, KEEP_ALIVE, STOP_GRACE, WORKSPACE},
    tracker::Record,
};

/// Limits that the list of containers does not tell.
const MEMORY_MB: &str = "agentpane.io/memory-mb";
const CPU_CORES: &str = "agentpane.io/cpu-cores";

/// How many processes a sandbox may have: more than any build needs, fewer than hurt the machine.
const PIDS: i64 = 4096;

/// After so long a container that was made and never started is one that somebody left.
const LEFT: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

pub(super) fn body(config: &SandboxConfig, options: &DockerOptions, id: &str, runsc: bool) -> ContainerCreateBody {
    let bind = |source: String, target: &str, read_only: bool| Mount {
        source: Some(source),
        target: Some(target.into()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let mut mounts = vec![bind(config.project_path.display().to_string(), WORKSPACE, false)];
    for VolumeMount { host_path, container_path, readonly } in &config.volume_mounts {
        mounts.push(bind(host_path.display().to_string(), container_path, *readonly));
    }
    let labels: HashMap<String, String> = [
        (labels::SANDBOX_ID, id.to_owned()),
        (labels::PROJECT_ID, config.project_id.clone()),
        (labels::MANAGED, "true".into()),
        (labels::SANDBOX, "true".into()),
        (labels::IDLE_MINUTES, config.idle_timeout_minutes.to_string()),
        (labels::MADE_AT, options.clock.now().to_string()),
        (MEMORY_MB, config.memory_mb.to_string()),
        (CPU_CORES, config.cpu_cores.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect();
    let host = HostConfig {
        memory: Some(i64::from(config.memory_mb) << 20),
        nano_cpus: Some((config.cpu_cores * 1e9).round() as i64),
        pids_limit: Some(PIDS),
        cap_drop: Some(vec!["ALL".into()]),
        security_opt: Some(vec!["no-new-privileges:true".into()]),
        mounts: Some(mounts),
        // Something has to collect the processes that commands leave, and to hear the signal to stop.
        init: Some(true),
        runtime: runsc.then(|| "runsc".into()),
        ..HostConfig::default()
    };
    ContainerCreateBody {
        image: Some(config.image.clone()),
        // The image's own program would be started before it, or in its place.
        entrypoint: Some(KEEP_ALIVE.map(str::to_owned).into()),
        cmd: Some(Vec::new()),
        user: Some(options.user.clone()),
        working_dir: Some(WORKSPACE.into()),
        env: Some(config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        labels: Some(labels),
        stop_timeout: i64::try_from(STOP_GRACE.as_secs()).ok(),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    }
}

/// The sandbox that the container is; `None` if it is somebody else's. `told` is why it was told to stop, if it was, and
/// whether it has.
pub(super) fn record(
    container: &ContainerSummary,
    told: Option<(StopReason, bool)>,
    now: Timestamp,
    revision: u64,
) -> Option<Record> {
    let noted = container.labels.as_ref()?;
    let id = noted.get(labels::SANDBOX_ID)?.clone();
    let created = container.created.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(now);
    let created_at = labels::timestamp(noted.get(labels::MADE_AT)).unwrap_or(created);
    let reason = told.map_or(StopReason::Manual, |(reason, _)| reason);
    let (status, trouble) = match container.state.unwrap_or(State::EMPTY) {
        State::RUNNING | State::RESTARTING if matches!(told, Some((_, false))) => (SandboxStatus::Stopping, None),
        State::RUNNING => (SandboxStatus::Running, None),
        State::CREATED if now.duration_since(created_at) > LEFT => {
            let message = "its container was made and never started".to_owned();
            (SandboxStatus::Error, Some((Code::ContainerStartFailed, message)))
        }
        State::CREATED | State::RESTARTING => (SandboxStatus::Creating, None),
        State::EXITED | State::PAUSED if reason == StopReason::IdleTimeout => (SandboxStatus::Idle, None),
        State::EXITED => (SandboxStatus::Stopped, None),
        State::PAUSED => (SandboxStatus::Idle, None),
        State::REMOVING | State::STOPPING => (SandboxStatus::Stopping, None),
        State::DEAD | State::EMPTY => {
            let said = container.status.clone().unwrap_or_default();
            (SandboxStatus::Error, Some((Code::ContainerNotRunning, format!("its container is dead: {said}"))))
        }
    };
    let number = |key: &str| noted.get(key).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    let info = SandboxInfo {
        id,
        project_id: noted.get(labels::PROJECT_ID)?.clone(),
        container_id: container.id.clone()?,
        status,
        image: container.image.clone().unwrap_or_default(),
        created_at,
        // Nobody writes activity down: after a restart of the application a sandbox counts as just used.
        last_activity_at: now,
        memory_mb: number(MEMORY_MB) as u32,
        cpu_cores: number(CPU_CORES),
    };
    Some(Record {
        info,
        idle_timeout: labels::idle_timeout(noted.get(labels::IDLE_MINUTES)),
        reason,
        trouble,
        revision,
    })
}
