//! Projects.

use axum::extract::State;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, Params, bad, is_id},
    limits::{MAX_ID_BYTES, MAX_PAGE, PAGE},
    profiles::{Profile, page},
};
use crate::{
    Code, Error,
    records::Project,
    settings::{CPU_CORES, IMAGE_BYTES, MEMORY_MB, PATH_BYTES},
    shape::{Field, Kind, Rule, optional, required},
};

/// Projects at most: each start reads them all.
const MAX_PROJECTS: usize = 1000;

pub(super) const NEW: &[Field] = &[
    required("name", Kind::Text(200, Rule::Line), "for people"),
    optional(
        "path",
        Kind::Text(PATH_BYTES, Rule::Line),
        "where it lies on this machine; Docker shows it in the sandbox",
    ),
    optional("sandboxConfigId", Kind::Text(MAX_ID_BYTES, Rule::Word), "a profile, before what is said here"),
    optional("enabled", Kind::Flag, "whether its agents work in a sandbox; default is the settings'"),
    optional("image", Kind::Text(IMAGE_BYTES, Rule::Word), "image of its sandbox"),
    optional("memoryMb", Kind::Whole(MEMORY_MB.0, MEMORY_MB.1), "memory limit in MiB"),
    optional("cpuCores", Kind::Number(CPU_CORES.0, CPU_CORES.1), "CPU limit in cores"),
    optional("idleTimeoutMinutes", Kind::Whole(0, 1440), "minutes without activity, 0 for no limit"),
    optional("model", Kind::Text(200, Rule::Word), "the model of its agents"),
    optional("maxTurns", Kind::Whole(1, 10_000), "how many turns its agents may take; default 50"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct New {
    name: String,
    path: Option<String>,
    sandbox_config_id: Option<String>,
    enabled: Option<bool>,
    image: Option<String>,
    memory_mb: Option<u32>,
    cpu_cores: Option<f64>,
    idle_timeout_minutes: Option<u32>,
    model: Option<String>,
    max_turns: Option<u32>,
}

/// `GET /api/projects`.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answered {
    let limit = params.number("limit", PAGE, 1, MAX_PAGE)?;
    let offset = params.number("offset", 0, 0, u64::from(u32::MAX))?;
    let mut all = app.store.read(|tx| tx.list::<Project>())?;
    all.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Answer::ok(page(&all, offset, limit))
}

/// `POST /api/projects`.
pub(super) async fn create(State(app): State<App>, body: Body) -> Answered {
    let wanted: New = body.read(NEW)?;
    let path = wanted.path.unwrap_or_default();
    if !path.is_empty() && !path.starts_with('/') {
        return Err(bad("path", "must be absolute"));
    }
    let mut project = Project::new(Uuid::now_v7().to_string(), wanted.name, path);
    let made = app.store.write(|tx| {
        if tx.list::<Project>()?.len() >= MAX_PROJECTS {
            let message = format!("there are {MAX_PROJECTS} projects already, which is the most");
            return Err(Error::new(Code::ResourceLimitExceeded, message));
        }
        if let Some(id) = &wanted.sandbox_config_id {
            let profile = if is_id(id) { tx.get::<Profile>(id)? } else { None };
            profile.ok_or_else(|| bad("sandboxConfigId", "is no profile's id"))?.shape(&mut project);
        }
        let sandbox = &mut project.sandbox;
        sandbox.enabled = wanted.enabled;
        sandbox.image = wanted.image.clone().or(sandbox.image.take());
        sandbox.memory_mb = wanted.memory_mb.or(sandbox.memory_mb);
        sandbox.cpu_cores = wanted.cpu_cores.or(sandbox.cpu_cores);
        sandbox.idle_timeout_minutes = wanted.idle_timeout_minutes.or(sandbox.idle_timeout_minutes);
        project.model.clone_from(&wanted.model);
        project.max_turns = wanted.max_turns;
        tx.put(&project)?;
        Ok(project)
    })?;
    Answer::created(made)
}

/// `GET /api/projects/{id}`.
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Answered {
    let found = app.store.read(|tx| tx.get::<Project>(&id))?;
    let not_found =
        || Error::new(Code::ProjectNotFound, format!("there is no project {id}")).with("projectId", id.clone());
    Answer::ok(found.ok_or_else(not_found)?)
}
