//! Tasks, and what agents are to do with them.

use std::time::Duration;

use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, Params, bad, causes, is_id},
    limits::{MAX_ID_BYTES, MAX_PAGE, PAGE},
    profiles::page,
};
use crate::{
    Code, Error,
    agent::StartAgent,
    records::{Column, Priority, Project, Task},
    settings::Settings,
    shape::{Field, Kind, Rule, optional, required},
    store::Writer,
};

/// How long an answer waits for an agent to work. Then it goes on, and the session's stream tells the rest.
const PATIENCE: Duration = Duration::from_secs(5);

/// Tasks at most: a list reads them all.
const MAX_TASKS: usize = 10_000;

const COLUMNS: &[&str] = &["backlog", "queued", "in_progress", "waiting_approval", "verified"];

pub(super) const QUERY: &[(&str, &str)] = &[
    ("projectId", "only those of a project"),
    ("column", "only those in a column"),
    ("limit", "entries at most; default 50"),
    ("offset", "entries to pass over"),
];

pub(super) const NEW: &[Field] = &[
    required("projectId", Kind::Text(MAX_ID_BYTES, Rule::Word), "the project that it belongs to"),
    required("title", Kind::Text(200, Rule::Line), "in one line"),
    optional("description", Kind::Text(100_000, Rule::Free), "what is to be done"),
    optional("labels", Kind::Texts(50, 100), "free words"),
    optional("priority", Kind::OneOf(&["low", "medium", "high"]), "default medium"),
];

pub(super) const MOVE: &[Field] = &[
    required("column", Kind::OneOf(COLUMNS), "where to"),
    optional("position", Kind::Whole(0, 1_000_000), "place in the column, from 0; default is the end"),
    optional("startAgent", Kind::Flag, "whether moving to In Progress starts an agent; default true"),
];

pub(super) const REJECT: &[Field] = &[optional("reason", Kind::Text(1000, Rule::Free), "for the next plan")];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct New {
    project_id: String,
    title: String,
    description: Option<String>,
    labels: Option<Vec<String>>,
    priority: Option<Priority>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Move {
    column: Column,
    position: Option<usize>,
    start_agent: Option<bool>,
}

#[derive(Deserialize)]
struct Reject {
    reason: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Moved {
    task: Task,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent_error: Option<Value>,
}

/// `GET /api/tasks`.
pub(super) async fn list(State(app): State<App>, params: Params) -> Answered {
    let limit = params.number("limit", PAGE, 1, MAX_PAGE)?;
    let offset = params.number("offset", 0, 0, u64::from(u32::MAX))?;
    let project = params.get("projectId");
    if project.is_some_and(|id| !is_id(id)) {
        return Err(bad("projectId", "is no id"));
    }
    let column = params.get("column").map(|word| serde_json::from_value::<Column>(word.into()));
    let column = column.transpose().map_err(|_| bad("column", format!("must be one of {}", COLUMNS.join(", "))))?;
    let mut all = app.store.read(|tx| tx.list::<Task>())?;
    all.retain(|task| {
        project.is_none_or(|id| task.project_id == id) && column.is_none_or(|column| task.column == column)
    });
    all.sort_by(|a, b| (a.column, a.position, &a.id).cmp(&(b.column, b.position, &b.id)));
    Answer::ok(page(&all, offset, limit))
}

/// `POST /api/tasks`.
pub(super) async fn create(State(app): State<App>, body: Body) -> Answered {
    let New { project_id, title, description, labels, priority } = body.read(NEW)?;
    let made = app.store.write(|tx| {
        if !is_id(&project_id) || tx.get::<Project>(&project_id)?.is_none() {
            let message = "there is no project of that id";
            return Err(Error::new(Code::ProjectNotFound, message).with("projectId", project_id.clone()));
        }
        let others = tx.list::<Task>()?;
        if others.len() >= MAX_TASKS {
            let message = format!("there are {MAX_TASKS} tasks already, which is the most");
            return Err(Error::new(Code::ResourceLimitExceeded, message));
        }
        let mut task = Task::new(Uuid::now_v7().to_string(), project_id.clone(), title.clone());
        task.description = description.clone().unwrap_or_default();
        task.labels = labels.clone().unwrap_or_default();
        task.priority = priority.unwrap_or_default();
        let beside = others.iter().filter(|other| other.project_id == task.project_id && other.column == task.column);
        task.position = u32::try_from(beside.count()).unwrap_or(u32::MAX);
        tx.put(&task)?;
        Ok(task)
    })?;
    Answer::created(made)
}

/// `GET /api/tasks/{id}`.
pub(super) async fn get(State(app): State<App>, Id(id): Id) -> Answered {
    Answer::ok(read(&app, &id)?)
}

/// `PATCH /api/tasks/{id}/move`. An agent that could not be started does not undo the move: the answer has `agentError`.
pub(super) async fn move_to(State(app): State<App>, Id(id): Id, body: Body) -> Answered {
    let Move { column, position, start_agent } = body.read(MOVE)?;
    let by_default = app.store.read(Settings::read)?.enabled();
    let starts = app.store.write(|tx| {
        let mut task = tx.get::<Task>(&id)?.ok_or_else(|| not_found(&id))?;
        let project = tx.get::<Project>(&task.project_id)?;
        let enabled = project.and_then(|project| project.sandbox.enabled).unwrap_or(by_default);
        // To the column where it is already is no start: nobody moved it.
        let changed = task.column != column;
        let starts = changed && column == Column::InProgress && start_agent.unwrap_or(true) && enabled;
        if starts {
            // With the move, so that a restart in between makes up for the start.
            task.start_requested_at = Some(Timestamp::now());
        }
        place(tx, task, column, position)?;
        Ok(starts)
    })?;
    let mut agent_error = None;
    if starts {
        let start = app.agents.start_agent(StartAgent::plan(id.as_str()));
        if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, start).await {
            tracing::warn!(task = id, code = %error.code(), cause = %causes(&error), "no agent was started: {error}");
            agent_error = Some(json!({"code": error.code(), "message": error.message(), "status": error.status()}));
        }
    }
    Answer::ok(Moved { task: read(&app, &id)?, agent_error })
}

/// Puts a task into its place, and the others of both columns into theirs.
fn place(tx: &Writer, mut task: Task, column: Column, position: Option<usize>) -> Result<(), Error> {
    let changed = task.column != column;
    let mut others: Vec<Task> = tx.list()?;
    others.retain(|other| other.project_id == task.project_id && other.id != task.id);
    others.sort_by_key(|other| other.position);
    if changed {
        let left = others.iter().filter(|other| other.column == task.column).cloned().collect();
        number(tx, left)?;
        task.column = column;
        task.updated_at = Timestamp::now();
    }
    let mut beside: Vec<Task> = others.into_iter().filter(|other| other.column == column).collect();
    let was = usize::try_from(task.position).unwrap_or(usize::MAX);
    let at = position.unwrap_or(if changed { usize::MAX } else { was }).min(beside.len());
    task.position = u32::MAX; // another, so that it is written
    beside.insert(at, task);
    number(tx, beside)
}

/// Numbers the tasks of a column from 0, and writes those whose number is another.
fn number(tx: &Writer, tasks: Vec<Task>) -> Result<(), Error> {
    for (position, mut task) in (0..).zip(tasks) {
        if task.position != position {
            task.position = position;
            tx.put(&task)?;
        }
    }
    Ok(())
}

/// `POST /api/tasks/{id}/approve-plan`.
pub(super) async fn approve_plan(State(app): State<App>, Id(id): Id) -> Answered {
    read(&app, &id)?;
    if app.agents.pending_plan(&id)?.is_none() {
        // Before anything is said about what an agent would need.
        let message = format!("no plan of task {id} waits for an answer");
        return Err(Error::new(Code::PlanNotFound, message).with("taskId", id));
    }
    if let Ok(started) = tokio::time::timeout(PATIENCE, app.agents.approve_plan(&id)).await {
        started?;
    }
    Answer::ok(json!({"approved": true}))
}

/// `POST /api/tasks/{id}/reject-plan`.
pub(super) async fn reject_plan(State(app): State<App>, Id(id): Id, body: Body) -> Answered {
    let Reject { reason } = body.read(REJECT)?;
    app.agents.reject_plan(&id, reason.as_deref()).await?;
    Answer::ok(json!({"rejected": true}))
}

/// `POST /api/tasks/{id}/stop-agent`. A task without an agent is as stopped as it can be.
pub(super) async fn stop_agent(State(app): State<App>, Id(id): Id) -> Answered {
    read(&app, &id)?;
    match app.agents.stop_agent(&id).await {
        Ok(()) => {}
        Err(error) if error.code() == Code::AgentNotRunning => {}
        Err(error) => {
            let message = format!("the agent of task {id} was not stopped: {error}");
            return Err(Error::new(Code::TaskAgentStopFailed, message).because(error));
        }
    }
    Answer::ok(json!({"stopped": true}))
}

fn read(app: &App, id: &str) -> Result<Task, Error> {
    app.store.read(|tx| tx.get::<Task>(id))?.ok_or_else(|| not_found(id))
}

fn not_found(id: &str) -> Error {
    Error::new(Code::TaskNotFound, format!("there is no task {id}")).with("taskId", id)
}
