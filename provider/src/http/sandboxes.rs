//! Sandboxes: made, listed, stopped and cleaned up when someone asks.

use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, bad, is_id},
    limits::MAX_ID_BYTES,
};
use crate::{
    CleanupFilter, Code, Error, Sandbox, SandboxConfig, SandboxStatus, StopReason,
    records::Project,
    settings::{CPU_CORES, IMAGE_BYTES, MEMORY_MB, SHARED_PROJECT},
    shape::{Field, Kind, Rule, optional, required},
};

pub(super) const NEW: &[Field] = &[
    required("projectId", Kind::Text(MAX_ID_BYTES, Rule::Word), "the project that it is for"),
    optional("image", Kind::Text(IMAGE_BYTES, Rule::Word), "default is the project's"),
    optional("memoryMb", Kind::Whole(MEMORY_MB.0, MEMORY_MB.1), "default is the project's"),
    optional("cpuCores", Kind::Number(CPU_CORES.0, CPU_CORES.1), "default is the project's"),
    optional("idleTimeoutMinutes", Kind::Whole(0, 1440), "0 for no limit; default is the project's"),
];

const STATUSES: &[&str] = &["stopped", "creating", "running", "idle", "stopping", "error"];

pub(super) const CLEANUP: &[Field] = &[
    optional("olderThanMinutes", Kind::Whole(0, 5_256_000), "only those without activity for so long"),
    optional("status", Kind::OneOf(STATUSES), "only those in this status; default stopped"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct New {
    project_id: String,
    image: Option<String>,
    memory_mb: Option<u32>,
    cpu_cores: Option<f64>,
    idle_timeout_minutes: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cleanup {
    older_than_minutes: Option<i64>,
    status: Option<SandboxStatus>,
}

/// What the sandbox that a project uses is to be.
pub(super) fn config_of(app: &App, project_id: &str) -> Result<SandboxConfig, Error> {
    let config = app.agents.config();
    let shared = config.sandbox_project(project_id) == SHARED_PROJECT;
    match app.store.read(|tx| tx.get::<Project>(project_id))? {
        Some(project) => Ok(config.sandbox_of(&project)),
        // The pseudo project of a sandbox that all share is nobody's record.
        None if shared && project_id == SHARED_PROJECT => {
            Ok(config.sandbox_of(&Project::new(SHARED_PROJECT, SHARED_PROJECT, "/")))
        }
        None => Err(Error::new(Code::ProjectNotFound, format!("there is no project {project_id}"))),
    }
}

/// `GET /api/sandboxes`.
pub(super) async fn list(State(app): State<App>) -> Answered {
    let items = app.selection.current()?.list().await?;
    let total = items.len();
    Answer::ok(json!({"items": items, "totalCount": total}))
}

/// `POST /api/sandboxes`. Answers when commands can be run in it.
pub(super) async fn create(State(app): State<App>, body: Body) -> Answered {
    let New { project_id, image, memory_mb, cpu_cores, idle_timeout_minutes } = body.read(NEW)?;
    if !is_id(&project_id) {
        return Err(bad("projectId", "is no id"));
    }
    let mut config = config_of(&app, &project_id)?;
    config.image = image.unwrap_or(config.image);
    config.memory_mb = memory_mb.unwrap_or(config.memory_mb);
    config.cpu_cores = cpu_cores.unwrap_or(config.cpu_cores);
    config.idle_timeout_minutes = idle_timeout_minutes.unwrap_or(config.idle_timeout_minutes);
    let sandbox = app.selection.current()?.create(&config).await?;
    Answer::created(described(&*sandbox))
}

/// `GET /api/sandboxes/{id}`.
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Answered {
    let sandbox = app.selection.current()?.get_by_id(&id).await?.ok_or_else(|| not_found(&id))?;
    let mut out = described(&*sandbox);
    if sandbox.status() == SandboxStatus::Running {
        // Not to know what it uses is no reason to hide that it is there.
        out["metrics"] = json!(sandbox.metrics().await.ok());
    }
    Answer::ok(out)
}

/// `POST /api/sandboxes/{id}/stop`.
pub(super) async fn stop(State(app): State<App>, Id(id): Id) -> Answered {
    let sandbox = app.selection.current()?.get_by_id(&id).await?.ok_or_else(|| not_found(&id))?;
    sandbox.stop(StopReason::Manual).await?;
    Answer::ok(json!({"stopped": true}))
}

/// `POST /api/sandboxes/cleanup`.
pub(super) async fn cleanup(State(app): State<App>, body: Body) -> Answered {
    let Cleanup { older_than_minutes, status } = body.read(CLEANUP)?;
    let mut filter = CleanupFilter::default();
    filter.older_than = older_than_minutes.map(|minutes| Timestamp::now() - SignedDuration::from_mins(minutes));
    filter.status = status.map_or(filter.status, |status| vec![status]);
    let removed = app.selection.current()?.cleanup(&filter).await?;
    Answer::ok(json!({"removed": removed}))
}

fn described(sandbox: &dyn Sandbox) -> Value {
    json!({
        "id": sandbox.id(),
        "projectId": sandbox.project_id(),
        "containerId": sandbox.container_id(),
        "status": sandbox.status(),
        "lastActivityAt": sandbox.last_activity(),
    })
}

fn not_found(id: &str) -> Error {
    Error::new(Code::ContainerNotFound, format!("there is no sandbox {id}")).with("sandboxId", id)
}
