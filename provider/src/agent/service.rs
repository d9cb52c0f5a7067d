//! [`AgentService`]: what callers ask for. What follows from it is the driver's.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use super::{
    AgentConfig, Streams, credentials,
    driver::{self, Driver},
    streams::blocking,
};
use crate::{
    Code, Error, SandboxProvider,
    records::{
        Agent, AgentStatus, Channel, Column, LastAgentStatus, Phase, Project, Run, RunState, Session, SessionStatus,
        Setting, StreamEvent, Task, Worktree,
    },
    store::{Reader, Store, Writer},
};

/// How long a prompt, or a plan that is carried out, may be, in bytes: runners get it as a variable, and Linux allows 128 KiB.
const MAX_PROMPT_BYTES: usize = 120 << 10;

/// Runs agents in sandboxes. Clones are the same service; with the last one it stops driving, as if the application had
/// ended: the agents go on, and [`recover`](Self::recover) finds them.
#[derive(Clone)]
pub struct AgentService(Arc<Owner>);

/// Ends the drivers with the last handle; they hold the inner part only.
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.token.cancel();
    }
}

pub(super) struct Inner {
    pub(super) store: Store,
    pub(super) streams: Streams,
    provider: RwLock<Option<Arc<dyn SandboxProvider>>>,
    config: RwLock<Arc<AgentConfig>>,
    /// Who drives which run, by the run's id.
    drivers: Mutex<BTreeMap<String, Handle>>,
    /// Worktrees that are being removed, by id; the token is cancelled when that has ended.
    discards: Mutex<BTreeMap<String, CancellationToken>>,
    tasks: TaskTracker,
    token: CancellationToken,
}

/// How callers reach a driver.
#[derive(Clone)]
struct Handle {
    /// The run as the driver last recorded it.
    run: watch::Receiver<Arc<Run>>,
    /// Makes it look whether it is to stop.
    poke: Arc<Notify>,
}

/// What an agent is started for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StartAgent {
    /// The task.
    pub task_id: String,
    /// The session; default is the task's, or a new one.
    pub session_id: Option<String>,
    /// What it is told; default is made from the task.
    pub prompt: Option<String>,
    /// Its model; default is the project's.
    pub model: Option<String>,
    /// How many turns it may take; default is the project's.
    pub max_turns: Option<u32>,
    /// To plan, or to do the work at once.
    pub phase: Phase,
}

impl StartAgent {
    /// A plan for the task, with the defaults.
    pub fn plan(task_id: impl Into<String>) -> Self {
        Self { task_id: task_id.into(), ..Self::default() }
    }
}

/// A plan that waits for an answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingPlan {
    /// The task.
    pub task_id: String,
    /// The project.
    pub project_id: String,
    /// The session whose stream tells of it.
    pub session_id: Option<String>,
    /// What the agent proposes to do.
    pub plan: String,
    /// What it asks to be allowed.
    pub allowed_prompts: Vec<Value>,
}

/// What a restart found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovered {
    /// The runs that are driven again, by id.
    pub runs: Vec<String>,
    /// The tasks that named a run that is over or unknown, and were freed.
    pub freed_tasks: Vec<String>,
    /// The tasks whose start had been asked for and was not recorded; it is now.
    pub started_tasks: Vec<String>,
}

impl fmt::Debug for AgentService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentService").finish_non_exhaustive()
    }
}

impl AgentService {
    /// A service on that store, without a provider yet. Call [`recover`](Self::recover) once there is one.
    pub fn new(store: Store, config: AgentConfig) -> Self {
        let inner = Inner {
            streams: Streams::new(store.clone()),
            store,
            provider: RwLock::default(),
            config: RwLock::new(Arc::new(config)),
            drivers: Mutex::default(),
            discards: Mutex::default(),
            tasks: TaskTracker::new(),
            token: CancellationToken::new(),
        };
        Self(Arc::new(Owner(Arc::new(inner))))
    }

    /// Where sandboxes come from, from now on.
    pub fn set_provider(&self, provider: Option<Arc<dyn SandboxProvider>>) {
        *self.inner().provider.write().unwrap_or_else(PoisonError::into_inner) = provider;
    }

    /// Where sandboxes come from.
    pub fn provider(&self) -> Option<Arc<dyn SandboxProvider>> {
        self.inner().provider().ok()
    }

    /// How agents are run, from the next one on.
    pub fn configure(&self, config: AgentConfig) {
        *self.inner().config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// How agents are run.
    pub fn config(&self) -> Arc<AgentConfig> {
        self.inner().config()
    }

    /// The streams that tell of agents, by session.
    pub fn streams(&self) -> &Streams {
        &self.inner().streams
    }

    /// Starts an agent for a task, which moves to In Progress, and waits until it works.
    ///
    /// The start is recorded before anything is done, and is carried out also if the future is dropped or the application
    /// ends. A sandbox may have to be made first: whoever cannot wait puts a time limit on the future and reads the stream.
    ///
    /// # Errors
    /// [`Code::TaskNotFound`], [`Code::ProjectNotFound`], [`Code::AgentAlreadyRunning`], [`Code::ProviderNotAvailable`],
    /// [`Code::ApiKeyNotConfigured`] and [`Code::ResourceLimitExceeded`] before anything is recorded; else what kept the agent from working, which the task and
    /// the stream say, too.
    pub async fn start_agent(&self, start: StartAgent) -> Result<Run, Error> {
        let task_id = start.task_id.clone();
        let handle = self.begin(move |inner, tx| {
            let task = task_of(tx, &start.task_id)?;
            inner.record_start(tx, task, start, None)
        });
        match handle.await {
            Ok(handle) => launched(handle).await,
            Err(error) => {
                self.inner().forget_request(task_id).await;
                Err(error)
            }
        }
    }

    /// Lets the agent carry out the plan of a task, and waits until it works. The rest is as for
    /// [`start_agent`](Self::start_agent). A plan whose agent could not be started waits on.
    ///
    /// # Errors
    /// [`Code::PlanNotFound`] if none waits; else as [`start_agent`](Self::start_agent).
    pub async fn approve_plan(&self, task_id: &str) -> Result<Run, Error> {
        let task_id = task_id.to_owned();
        let handle = self.begin(move |inner, tx| {
            let task = task_of(tx, &task_id)?;
            let Some(plan) = task.plan.clone().filter(|_| task.has_pending_plan()) else {
                return Err(no_plan(&task_id));
            };
            let options = task.plan_options.clone().unwrap_or_default();
            let start = StartAgent {
                task_id,
                session_id: task.session_id.clone(),
                prompt: Some(plan),
                phase: Phase::Execute,
                ..StartAgent::default()
            };
            inner.record_start(tx, task, start, Some(options))
        });
        launched(handle.await?).await
    }

    /// Turns the plan of a task down: the task goes back to the backlog. Its worktree goes, unless something would be lost
    /// with it.
    ///
    /// # Errors
    /// [`Code::TaskNotFound`], [`Code::PlanNotFound`], [`Code::StoreFailed`].
    pub async fn reject_plan(&self, task_id: &str, reason: Option<&str>) -> Result<(), Error> {
        let (inner, task_id, reason) = (self.inner().clone(), task_id.to_owned(), reason.map(str::to_owned));
        let tasks = inner.tasks.clone();
        let work = async move {
            let this = inner.clone();
            let (session, worktree) =
                blocking(move || this.store.write(|tx| this.record_rejection(tx, &task_id, reason))).await?;
            inner.wake(session.as_deref());
            if let Some(worktree) = worktree {
                inner.discard(worktree, session);
            }
            Ok(())
        };
        tasks.spawn(work).await.unwrap_or_else(|error| Err(bug(error)))
    }

    /// Stops the agent of a task and waits until it has ended. It gets a moment to end by itself.
    ///
    /// # Errors
    /// [`Code::AgentNotRunning`] if there is none; [`Code::AgentStopFailed`] if it could not be seen to end soon: it is being
    /// stopped all the same.
    pub async fn stop_agent(&self, task_id: &str) -> Result<(), Error> {
        let (inner, id) = (self.inner().clone(), task_id.to_owned());
        let this = inner.clone();
        let run = blocking(move || this.store.write(|tx| record_stop(tx, &id))).await?;
        let Some(handle) = inner.handle(&run.id) else {
            let message = format!("the agent of task {task_id} is stopped as soon as its sandbox can be reached");
            return Err(Error::new(Code::AgentStopFailed, message).with("taskId", task_id));
        };
        handle.poke.notify_one();
        let config = inner.config();
        let limit = config.grace * 3 + config.command_timeout;
        let mut run = handle.run;
        // An error means that the driver is gone with its work done or with the service.
        match tokio::time::timeout(limit, run.wait_for(|run| run.state.is_ended())).await {
            Ok(_) => Ok(()),
            Err(_) => {
                let message = format!(
                    "the agent of task {task_id} has not ended after {} seconds; it is being stopped, see its stream",
                    limit.as_secs()
                );
                Err(Error::new(Code::AgentStopFailed, message).with("taskId", task_id))
            }
        }
    }

    /// The plan of a task that waits for an answer.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn pending_plan(&self, task_id: &str) -> Result<Option<PendingPlan>, Error> {
        let task: Option<Task> = self.inner().store.read(|tx| tx.get(task_id))?;
        Ok(task.filter(Task::has_pending_plan).map(|task| PendingPlan {
            plan: task.plan.unwrap_or_default(),
            allowed_prompts: task.plan_options.unwrap_or_default().allowed_prompts,
            task_id: task.id,
            project_id: task.project_id,
            session_id: task.session_id,
        }))
    }

    /// Whether an agent works on the task, is being started or is being put away.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub fn is_running(&self, task_id: &str) -> Result<bool, Error> {
        let task: Option<Task> = self.inner().store.read(|tx| tx.get(task_id))?;
        Ok(task.is_some_and(|task| task.run_id.is_some()))
    }

    /// The runs that are not over, oldest first.
    pub fn running_agents(&self) -> Vec<Run> {
        let mut runs: Vec<Run> =
            self.inner().drivers().values().map(|handle| Run::clone(&handle.run.borrow())).collect();
        runs.retain(|run| !run.state.is_ended());
        runs.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        runs
    }

    /// Goes on with every run that is not over, from where it was left; frees tasks whose run is. Called once, after
    /// [`set_provider`](Self::set_provider); again does no harm.
    ///
    /// Nothing else is touched: plans that wait go on waiting, worktrees stay linked.
    ///
    /// # Errors
    /// [`Code::StoreFailed`].
    pub async fn recover(&self) -> Result<Recovered, Error> {
        let inner = self.inner().clone();
        let this = inner.clone();
        let found = blocking(move || this.store.write(look_around)).await?;
        let mut recovered = Recovered { runs: Vec::new(), freed_tasks: found.freed, started_tasks: Vec::new() };
        for worktree in found.worktrees {
            inner.discard(worktree, None);
        }
        for run in found.runs {
            recovered.runs.push(run.id.clone());
            inner.drive(run);
        }
        for task in found.requested {
            let started = self.begin({
                let id = task.clone();
                move |inner, tx| inner.record_start(tx, task_of(tx, &id)?, StartAgent::plan(id), None)
            });
            match started.await {
                Ok(_) => recovered.started_tasks.push(task),
                Err(error) => {
                    tracing::warn!(task, %error, "the agent that was asked for before the restart could not be started");
                    inner.forget_request(task).await;
                }
            }
        }
        Ok(recovered)
    }

    /// Stops driving, and waits until that is so. The agents go on; the next [`recover`](Self::recover) finds them.
    pub async fn shutdown(&self) {
        let inner = self.inner();
        inner.token.cancel();
        inner.tasks.close();
        inner.tasks.wait().await;
    }

    fn inner(&self) -> &Arc<Inner> {
        &self.0.0
    }

    /// Checks what can be checked without waiting, records a run and has it driven; to the end, even if nobody waits.
    async fn begin(
        &self,
        record: impl FnOnce(&Inner, &Writer) -> Result<Run, Error> + Send + 'static,
    ) -> Result<Handle, Error> {
        let inner = self.inner().clone();
        let tasks = inner.tasks.clone();
        let work = async move {
            let this = inner.clone();
            let run = blocking(move || this.store.write(|tx| record(&this, tx))).await?;
            inner.wake(Some(&run.session_id));
            Ok(inner.drive(run))
        };
        tasks.spawn(work).await.unwrap_or_else(|error| Err(bug(error)))
    }
}

/// Waits until the agent works, or has been kept from it.
async fn launched(mut handle: Handle) -> Result<Run, Error> {
    let settled = handle.run.wait_for(|run| run.launched_at.is_some() || run.state.is_ended()).await;
    let run = match settled {
        Ok(run) => Run::clone(&run),
        Err(_) => {
            return Err(Error::new(
                Code::Busy,
                "the application is being shut down; the agent is started after its restart",
            ));
        }
    };
    if run.launched_at.is_some() { Ok(run) } else { Err(driver::start_error(&run)) }
}

impl Inner {
    pub(super) fn provider(&self) -> Result<Arc<dyn SandboxProvider>, Error> {
        let provider = self.provider.read().unwrap_or_else(PoisonError::into_inner).clone();
        provider.ok_or_else(|| {
            Error::new(
                Code::ProviderNotAvailable,
                "agents need sandboxes, and no provider of sandboxes is set up: see the settings",
            )
        })
    }

    pub(super) fn config(&self) -> Arc<AgentConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn wake(&self, stream: Option<&str>) {
        if let Some(stream) = stream {
            self.streams.wake(stream);
        }
    }

    fn drivers(&self) -> MutexGuard<'_, BTreeMap<String, Handle>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, run_id: &str) -> Option<Handle> {
        self.drivers().get(run_id).cloned()
    }

    /// Has the run driven, once.
    fn drive(self: &Arc<Self>, run: Run) -> Handle {
        let mut drivers = self.drivers();
        if let Some(handle) = drivers.get(&run.id) {
            return handle.clone();
        }
        let id = run.id.clone();
        let (sender, receiver) = watch::channel(Arc::new(run));
        let handle = Handle { run: receiver, poke: Arc::default() };
        drivers.insert(id.clone(), handle.clone());
        drop(drivers);
        let (inner, driver) = (self.clone(), Driver::new(self.clone(), sender, handle.poke.clone()));
        self.tasks.spawn(async move {
            let _leave = Leave { inner: inner.clone(), id };
            inner.token.run_until_cancelled(driver.drive()).await;
        });
        handle
    }

    /// A start that was refused is not made up for by a restart.
    async fn forget_request(&self, task_id: String) {
        let store = self.store.clone();
        let forgotten = blocking(move || {
            store.write(|tx| match tx.get::<Task>(&task_id)? {
                Some(mut task) if task.start_requested_at.is_some() => {
                    task.start_requested_at = None;
                    tx.put(&task)
                }
                _ => Ok(()),
            })
        });
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "a start that was refused is tried again by a restart");
        }
    }

    /// Has a worktree removed, unless something would be lost with it; who reads the stream is told. Who wants its place
    /// waits with [`until_discarded`](Self::until_discarded).
    fn discard(self: &Arc<Self>, worktree_id: String, stream: Option<String>) {
        let (inner, done) = (self.clone(), CancellationToken::new());
        self.discards().insert(worktree_id.clone(), done.clone());
        self.tasks.spawn(async move {
            let _done = done.drop_guard();
            inner.token.run_until_cancelled(driver::discard_worktree(&inner, &worktree_id, stream)).await;
            inner.discards().remove(&worktree_id);
        });
    }

    /// Waits until a worktree that is being removed is gone, or kept.
    pub(super) async fn until_discarded(&self, worktree_id: &str) {
        let done = self.discards().get(worktree_id).cloned();
        if let Some(done) = done {
            done.cancelled().await;
        }
    }

    fn discards(&self) -> MutexGuard<'_, BTreeMap<String, CancellationToken>> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that an agent is to be started: run, task, agent, session and the stream's first events, all at once.
    fn record_start(
        &self,
        tx: &Writer,
        mut task: Task,
        start: StartAgent,
        plan: Option<crate::records::PlanOptions>,
    ) -> Result<Run, Error> {
        if task.run_id.is_some() {
            let message = format!("an agent works on task {} already: stop it first, or wait for it", task.id);
            return Err(Error::new(Code::AgentAlreadyRunning, message).with("taskId", task.id));
        }
        let Some(project) = tx.get::<Project>(&task.project_id)? else {
            let message = format!("task {} belongs to project {}, which does not exist", task.id, task.project_id);
            return Err(Error::new(Code::ProjectNotFound, message).with("projectId", task.project_id));
        };
        let prompt = start.prompt.unwrap_or_else(|| prompt(&task));
        if prompt.len() > MAX_PROMPT_BYTES {
            let message = format!(
                "what the agent of task {} is told has {} bytes, and may have {MAX_PROMPT_BYTES}: make it shorter",
                task.id,
                prompt.len()
            );
            return Err(Error::new(Code::ResourceLimitExceeded, message).with("taskId", task.id));
        }
        self.provider()?;
        credentials::find(tx)?;
        let (config, now) = (self.config(), Timestamp::now());
        let session_id = match (start.session_id, task.session_id.take()) {
            (Some(wanted), _) => wanted,
            // What readers have to go through, and what is kept of one session, has an end.
            (None, Some(known)) if tx.last_offset(&known)? < config.max_session_events => known,
            (None, _) => Uuid::now_v7().to_string(),
        };
        let agent_id = format!("agent-{}", task.id);
        let default_model = || -> Result<Option<String>, Error> {
            let setting = tx.get::<Setting>("default_model")?;
            Ok(setting.and_then(|setting| setting.value.as_str().map(str::to_owned)).filter(|model| !model.is_empty()))
        };
        let model = match start.model.or_else(|| project.model.clone()) {
            Some(model) => model,
            None => default_model()?.unwrap_or_else(|| config.default_model.clone()),
        };
        let plan = plan.unwrap_or_default();
        let run = Run {
            id: Uuid::now_v7().to_string(),
            project_id: project.id.clone(),
            task_id: task.id.clone(),
            session_id: session_id.clone(),
            agent_id: agent_id.clone(),
            phase: start.phase,
            state: RunState::Preparing,
            prompt,
            model,
            max_turns: start.max_turns.or(project.max_turns).unwrap_or(config.default_max_turns),
            sdk_session_id: plan.sdk_session_id,
            planned_by: plan.run_id,
            sandbox_id: None,
            cwd: None,
            read_bytes: 0,
            turn_count: 0,
            stop_requested_at: None,
            created_at: now,
            launched_at: None,
            ended_at: None,
        };
        let known: Option<Agent> = tx.get(&agent_id)?;
        tx.put(&Agent {
            created_at: known.map_or(now, |agent| agent.created_at),
            id: agent_id.clone(),
            project_id: project.id.clone(),
            name: task.title.clone(),
            kind: "task".into(),
            status: AgentStatus::Starting,
            current_task_id: Some(task.id.clone()),
            current_session_id: Some(session_id.clone()),
            current_turn: 0,
            updated_at: now,
        })?;
        let known: Option<Session> = tx.get(&session_id)?;
        tx.put(&Session {
            created_at: known.as_ref().map_or(now, |session| session.created_at),
            title: known.and_then(|session| session.title).or_else(|| Some(task.title.clone())),
            url: format!("/projects/{}/sessions/{session_id}", project.id),
            id: session_id.clone(),
            project_id: project.id,
            task_id: Some(task.id.clone()),
            agent_id: Some(agent_id.clone()),
            status: SessionStatus::Active,
            updated_at: now,
            closed_at: None,
        })?;
        task.column = Column::InProgress;
        task.agent_id = Some(agent_id);
        task.session_id = Some(session_id);
        task.run_id = Some(run.id.clone());
        task.started_at = task.started_at.or(Some(now));
        task.start_requested_at = None;
        task.updated_at = now;
        if start.phase == Phase::Plan {
            // A new plan takes the place of the old one.
            (task.plan, task.plan_options) = (None, None);
        }
        task.last_agent_status = None;
        tx.put(&task)?;
        tx.put(&run)?;
        let status = driver::status_event(&run, "initializing", "The agent is being started");
        self.streams.append(tx, &run.session_id, &status)?;
        Ok(run)
    }

    /// Records that a plan was turned down. Answers the stream to wake and the worktree to put away.
    fn record_rejection(
        &self,
        tx: &Writer,
        task_id: &str,
        reason: Option<String>,
    ) -> Result<(Option<String>, Option<String>), Error> {
        let mut task = task_of(tx, task_id)?;
        if !task.has_pending_plan() || task.run_id.is_some() {
            return Err(no_plan(task_id));
        }
        let now = Timestamp::now();
        let session = task.session_id.clone();
        if let Some(mut agent) = task.agent_id.as_deref().map(|id| tx.get::<Agent>(id)).transpose()?.flatten() {
            agent.status = AgentStatus::Idle;
            (agent.current_task_id, agent.current_session_id) = (None, None);
            agent.updated_at = now;
            tx.put(&agent)?;
        }
        if let Some(mut row) = session.as_deref().map(|id| tx.get::<Session>(id)).transpose()?.flatten() {
            (row.status, row.closed_at, row.updated_at) = (SessionStatus::Closed, Some(now), now);
            tx.put(&row)?;
        }
        if let Some(session) = &session {
            let data =
                json!({ "taskId": task.id, "sessionId": session, "projectId": task.project_id, "reason": reason });
            self.streams.append(tx, session, &StreamEvent::now(Channel::Plan, "plan:rejected", data))?;
        }
        task.column = Column::Backlog;
        (task.plan, task.plan_options, task.last_agent_status) = (None, None, None);
        (task.agent_id, task.branch) = (None, None);
        let worktree = task.worktree_id.take();
        task.rejection_reason = reason;
        task.updated_at = now;
        tx.put(&task)?;
        Ok((session, worktree))
    }
}

/// Forgets the driver when it is done, however.
struct Leave {
    inner: Arc<Inner>,
    id: String,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.inner.drivers().remove(&self.id);
    }
}

/// What an agent is told about its task.
pub(super) fn prompt(task: &Task) -> String {
    let mut text = format!("# {}\n", task.title);
    if !task.description.is_empty() {
        text.push_str(&format!("\n{}\n", task.description));
    }
    if !task.labels.is_empty() {
        text.push_str(&format!("\nLabels: {}\n", task.labels.join(", ")));
    }
    let priority = match task.priority {
        crate::records::Priority::Low => "low",
        crate::records::Priority::Medium => "medium",
        crate::records::Priority::High => "high",
    };
    text.push_str(&format!("\nPriority: {priority}\n\nThe project is in the current folder.\n"));
    text
}

fn task_of(tx: &Writer, task_id: &str) -> Result<Task, Error> {
    tx.get(task_id)?
        .ok_or_else(|| Error::new(Code::TaskNotFound, format!("there is no task {task_id}")).with("taskId", task_id))
}

fn no_plan(task_id: &str) -> Error {
    Error::new(Code::PlanNotFound, format!("no plan of task {task_id} waits for an answer")).with("taskId", task_id)
}

fn bug(error: tokio::task::JoinError) -> Error {
    Error::new(Code::SandboxInternal, "a bug: what was asked for broke off").because(error)
}

/// Records that the task's agent is to stop.
fn record_stop(tx: &Writer, task_id: &str) -> Result<Run, Error> {
    let none =
        || Error::new(Code::AgentNotRunning, format!("no agent works on task {task_id}")).with("taskId", task_id);
    let task = task_of(tx, task_id)?;
    let mut run: Run = task.run_id.as_deref().map(|id| tx.get(id)).transpose()?.flatten().ok_or_else(none)?;
    if run.stop_requested_at.is_none() {
        run.stop_requested_at = Some(Timestamp::now());
        tx.put(&run)?;
    }
    Ok(run)
}

/// What a restart has to see to.
struct Found {
    /// Runs that are not over.
    runs: Vec<Run>,
    /// Tasks that were freed from a run that is.
    freed: Vec<String>,
    /// Tasks whose start was asked for and is not recorded.
    requested: Vec<String>,
    /// Worktrees that no task has any more.
    worktrees: Vec<String>,
}

fn look_around(tx: &Writer) -> Result<Found, Error> {
    let mut runs: Vec<Run> = tx.list()?;
    runs.retain(|run| !run.state.is_ended());
    let (mut freed, mut requested, mut worktrees) = (Vec::new(), Vec::new(), tx.list::<Worktree>()?);
    for mut task in tx.list::<Task>()? {
        let unused = task.worktree_id.is_none() && task.run_id.is_none();
        worktrees.retain(|worktree| worktree.task_id != task.id || unused);
        let Some(run_id) = &task.run_id else {
            if task.start_requested_at.is_some() {
                requested.push(task.id);
            }
            continue;
        };
        if runs.iter().any(|run| run.id == *run_id) {
            continue;
        }
        // No change of ours leaves this; a store that was edited by hand may have it.
        task.run_id = None;
        task.last_agent_status = task.last_agent_status.or(Some(LastAgentStatus::Error));
        task.updated_at = Timestamp::now();
        tx.put(&task)?;
        freed.push(task.id);
    }
    Ok(Found { runs, freed, requested, worktrees: worktrees.into_iter().map(|worktree| worktree.id).collect() })
}

/// Reads a record by an id that may be missing.
pub(super) fn lookup<R: crate::store::Record>(tx: &Reader, id: Option<&str>) -> Result<Option<R>, Error> {
    id.map_or(Ok(None), |id| tx.get(id))
}
