//! [`Driver`]: takes one run from state to state, to its end.
//!
//! ```text
//! Preparing ─ sandbox and worktree ─▶ Launching ─ runner started ─▶ Running ─ its last word, or its end ─▶ Finishing ─▶ Ended
//!     └──────────── stopped, or cannot ────────────┴───────────────────────────────────────────────────▶─┘
//! ```
//!
//! What a state does in the sandbox can be done again; then one transaction records the next state, with all that follows from
//! it for task, agent, session and stream. Nothing else changes a run that is driven, but for the wish to stop it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep},
};

use super::{
    credentials::{self, Redactor},
    protocol::with_ids,
    remote::{Discarded, Place, Remote},
    service::Inner,
    streams::blocking,
};
use crate::{
    Code, Error, Sandbox, SandboxStatus,
    records::{
        Agent, AgentStatus, Channel, Column, LastAgentStatus, Outcome, Phase, PlanOptions, Project, Run, RunState,
        Session, SessionStatus, StreamEvent, Task, Worktree,
    },
    store::Writer,
};

/// The first pause before something is tried again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause before something is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long what sandboxes are made by may be out of reach when an agent is to be started.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// Who owns a run.
pub(super) struct Driver {
    pub(super) inner: Arc<Inner>,
    /// The run as it was last recorded.
    run: watch::Sender<Arc<Run>>,
    /// Rung when someone wants it to stop.
    poke: Arc<Notify>,
}

/// Why a step was not done.
#[derive(Debug)]
pub(super) enum Setback {
    /// The sandbox, or what it runs on, cannot be reached just now, or the store cannot be written: to be tried again.
    Away(Error),
    /// The sandbox is not there any more, and nothing that ran in it.
    Gone(Error),
    /// It cannot be done.
    Failed(Error),
    /// Someone wants the run to stop.
    Stopped,
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        match error.code() {
            Code::StoreFailed
            | Code::ClusterUnreachable
            | Code::ExecConnectionFailed
            | Code::ExecFailed
            | Code::ExecTimeout
            | Code::SandboxExecFailed
            | Code::SandboxExecTimeout
            | Code::ApiError
            | Code::DockerNotRunning
            | Code::ProviderNotAvailable
            | Code::ContainerNotRunning
            | Code::PodNotRunning
            | Code::PodNotFound
            | Code::ContainerNotFound
            | Code::Busy => Self::Away(error),
            _ => Self::Failed(error),
        }
    }
}

pub(super) type Step<T = ()> = Result<T, Setback>;

impl Driver {
    pub(super) fn new(inner: Arc<Inner>, run: watch::Sender<Arc<Run>>, poke: Arc<Notify>) -> Self {
        Self { inner, run, poke }
    }

    /// Goes on until the run is over. Dropping the future is as if the application were killed.
    pub(super) async fn drive(self) {
        let mut away_since: Option<Instant> = None;
        let mut pause = FIRST_PAUSE;
        loop {
            let run = self.run();
            let step = match &run.state {
                RunState::Preparing => self.prepare(&run).await,
                RunState::Launching => self.launch(&run).await,
                RunState::Running => self.follow(&mut away_since).await,
                RunState::Finishing { outcome } => self.finish(&run, outcome, away_since).await,
                RunState::Ended { .. } => return,
            };
            let step = match step {
                Ok(()) => {
                    away_since = None;
                    continue;
                }
                Err(Setback::Away(error)) => {
                    if away_since.is_none() {
                        pause = FIRST_PAUSE;
                    }
                    let since = *away_since.get_or_insert_with(Instant::now);
                    let lost = since.elapsed() >= self.patience(&run, error.code());
                    if lost && error.code() != Code::StoreFailed && run.state.outcome().is_none() {
                        Setback::Failed(error)
                    } else {
                        tracing::info!(run = run.id, task = run.task_id, code = error.code().as_str(), %error, "tried again");
                        sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                        continue;
                    }
                }
                Err(setback) => setback,
            };
            let outcome = match step {
                Setback::Stopped => self.cancelled(),
                Setback::Away(error) | Setback::Gone(error) | Setback::Failed(error) => {
                    tracing::warn!(run = run.id, task = run.task_id, code = error.code().as_str(), %error, "the agent failed");
                    Outcome::Failed { error: error.message().into(), code: Some(error.code().as_str().into()) }
                }
            };
            // A store that cannot be written is tried again: nothing is done without it.
            while let Err(error) = self.settle(outcome.clone()).await {
                if error.code() != Code::StoreFailed {
                    tracing::error!(run = run.id, %error, "a run is not driven any more");
                    return;
                }
                tracing::error!(run = run.id, %error, "the end of a run is not recorded yet");
                sleep(LONGEST_PAUSE).await;
            }
        }
    }

    /// How long something is tried again.
    fn patience(&self, run: &Run, code: Code) -> Duration {
        let patience = self.inner.config().out_of_reach;
        match (&run.state, code) {
            // Nothing is lost yet, and somebody waits for the start.
            (
                RunState::Preparing,
                Code::ClusterUnreachable | Code::ApiError | Code::DockerNotRunning | Code::ProviderNotAvailable,
            ) => patience.min(START_PATIENCE),
            _ => patience,
        }
    }

    /// The run as it was last recorded.
    pub(super) fn run(&self) -> Arc<Run> {
        self.run.borrow().clone()
    }

    /// Changes the run and what belongs to it, if it is still as `seen`; then tells everyone.
    pub(super) async fn record(
        &self,
        seen: &Run,
        change: impl FnOnce(&Writer, &mut Run) -> Result<Vec<StreamEvent>, Error> + Send + 'static,
    ) -> Result<(), Error> {
        let inner = self.inner.clone();
        let (id, name, read_bytes) = (seen.id.clone(), std::mem::discriminant(&seen.state), seen.read_bytes);
        let run = blocking(move || {
            inner.store.write(|tx| {
                let Some(mut run) = tx.get::<Run>(&id)? else {
                    return Err(Error::new(Code::SandboxInternal, format!("run {id} is not recorded any more")));
                };
                // Another change got in between: one whose future was dropped. Go on from there.
                if std::mem::discriminant(&run.state) != name || run.read_bytes != read_bytes {
                    return Ok(run);
                }
                for event in change(tx, &mut run)? {
                    inner.streams.append(tx, &run.session_id, &event)?;
                }
                // What is over needs no record: the stream tells of it.
                if run.state.is_ended() {
                    tx.delete::<Run>(&id).map(|_| ())?
                } else {
                    tx.put(&run)?
                }
                Ok(run)
            })
        })
        .await?;
        self.inner.wake(Some(&run.session_id));
        self.run.send_replace(Arc::new(run));
        Ok(())
    }

    /// Adds an event to the stream.
    async fn publish(&self, event: StreamEvent) -> Result<(), Error> {
        self.inner.streams.publish(&self.run().session_id, event).await.map(|_| ())
    }

    /// Records how the run ends.
    pub(super) async fn settle(&self, outcome: Outcome) -> Result<(), Error> {
        let run = self.run();
        self.record(&run, move |_, run| {
            run.state = RunState::Finishing { outcome };
            Ok(Vec::new())
        })
        .await
    }

    /// Ready when someone wants the run to stop, or its time is up.
    pub(super) async fn wanted_to_stop(&self) {
        loop {
            let left = self.time_left();
            if left.is_zero() || self.stop_recorded() {
                return;
            }
            tokio::select! {
                () = self.poke.notified() => {}
                () = sleep(left) => {}
            }
        }
    }

    /// Whether someone has asked; the wish is in the store before the bell is rung.
    pub(super) fn stop_recorded(&self) -> bool {
        let run: Result<Option<Run>, Error> = self.inner.store.read(|tx| tx.get(&self.run().id));
        run.is_ok_and(|run| run.is_some_and(|run| run.stop_requested_at.is_some()))
    }

    fn time_left(&self) -> Duration {
        let limit = self.inner.config().max_runtime;
        let Some(launched_at) = self.run().launched_at else { return limit };
        let used = Timestamp::now().duration_since(launched_at);
        limit.saturating_sub(used.try_into().unwrap_or_default())
    }

    /// How a run ends that was stopped.
    pub(super) fn cancelled(&self) -> Outcome {
        let overtime = !self.stop_recorded() && self.time_left().is_zero();
        let reason = overtime.then(|| {
            let limit = self.inner.config().max_runtime.as_secs();
            format!("the agent has worked for {limit} seconds, which is as long as it may")
        });
        Outcome::Cancelled { reason }
    }

    /// The work, unless someone wants the run to stop.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Step<T>>) -> Step<T> {
        tokio::select! {
            biased;
            () = self.wanted_to_stop() => Err(Setback::Stopped),
            done = work => done,
        }
    }

    /// Finds or makes the sandbox and the place to work in it.
    async fn prepare(&self, run: &Run) -> Step {
        let sandbox = self.unless_stopped(self.sandbox_for(run)).await?;
        let remote = self.remote(sandbox.clone());
        let (place, message) = self.unless_stopped(self.place(run, &remote)).await?;
        let (sandbox_id, executing) = (sandbox.id().to_owned(), status_event(run, "executing", "The agent is started"));
        self.record(run, move |tx, run| {
            let mut events: Vec<_> = message.map(|message| system_message(run, &message)).into_iter().collect();
            if let Some(worktree) = place {
                let mut task: Task = or_gone(tx, &run.task_id)?;
                task.worktree_id = Some(worktree.id.clone());
                task.branch = Some(worktree.branch.clone());
                task.updated_at = Timestamp::now();
                tx.put(&task)?;
                tx.put(&worktree)?;
                let data =
                    json!({ "worktreeId": worktree.id, "branch": worktree.branch, "containerPath": worktree.path });
                events.push(event(run, "worktree", data));
                run.cwd = Some(worktree.path);
            }
            events.push(executing);
            run.sandbox_id = Some(sandbox_id);
            run.state = RunState::Launching;
            Ok(events)
        })
        .await?;
        Ok(())
    }

    /// The sandbox of the run's project, running; made if there is none.
    async fn sandbox_for(&self, run: &Run) -> Step<Arc<dyn Sandbox>> {
        let (provider, config) = (self.inner.provider()?, self.inner.config());
        let project: Option<Project> = self.inner.store.read(|tx| tx.get(&run.project_id))?;
        let Some(project) = project else {
            let message = format!("project {} does not exist any more", run.project_id);
            return Err(Setback::Failed(Error::new(Code::ProjectNotFound, message)));
        };
        let name = config.sandbox_project(&project.id);
        let found = provider.get(name).await?;
        if let Some(sandbox) = &found {
            let (id, status) = (sandbox.id(), sandbox.status());
            if status == SandboxStatus::Running {
                self.publish(status_event(run, "creating_sandbox", &format!("Sandbox {id} is used"))).await?;
                return Ok(sandbox.clone());
            }
            if !status.can_be_remade() {
                let message = format!("sandbox {id} of project {name} is not ready");
                return Err(Setback::Away(Error::new(Code::ContainerNotRunning, message)));
            }
        }
        if !config.create_sandbox {
            let (code, message) = match found {
                Some(sandbox) => {
                    let message = format!("sandbox {} of project {name} does not run: start it", sandbox.id());
                    (Code::ContainerNotRunning, message)
                }
                None => (Code::ContainerNotFound, format!("project {name} has no sandbox: make one")),
            };
            return Err(Setback::Failed(Error::new(code, message).with("projectId", name)));
        }
        self.publish(status_event(run, "creating_sandbox", "A sandbox is made")).await?;
        match provider.create(&config.sandbox_of(&project)).await {
            Ok(sandbox) => Ok(sandbox),
            // Someone else makes it.
            Err(error) if matches!(error.code(), Code::PodAlreadyExists | Code::ContainerAlreadyExists) => {
                Err(Setback::Away(error))
            }
            Err(error) => Err(Setback::Failed(error)),
        }
    }

    /// The worktree that the agent is to work in, if there can be one, and what to tell about it.
    async fn place(&self, run: &Run, remote: &Remote) -> Step<(Option<Worktree>, Option<String>)> {
        let id = worktree_id(&run.task_id);
        self.inner.until_discarded(&id).await;
        let (task, known) =
            self.inner.store.read(|tx| Ok((tx.get::<Task>(&run.task_id)?, tx.get::<Worktree>(&id)?)))?;
        let Some(task) = task else { return Err(Setback::Failed(task_gone(&run.task_id))) };
        if run.planned_by.is_some() {
            // Where the plan was made, there it is carried out.
            let message = match known.filter(|_| task.worktree_id.is_some()) {
                Some(worktree) if remote.has_worktree(&worktree.path).await? => return Ok((Some(worktree), None)),
                Some(worktree) => format!(
                    "The worktree {} of the plan is not in the sandbox any more. The agent works in the workspace itself",
                    worktree.path
                ),
                None => return Ok((None, None)),
            };
            return Ok((None, Some(message)));
        }
        let branch = branch(&task);
        match remote.worktree(&branch).await? {
            Place::Worktree { base, path } => {
                let worktree = Worktree {
                    id,
                    project_id: run.project_id.clone(),
                    task_id: task.id,
                    sandbox_id: remote.sandbox.id().into(),
                    branch,
                    path,
                    base,
                    created_at: known.map_or_else(Timestamp::now, |known| known.created_at),
                };
                Ok((Some(worktree), None))
            }
            Place::Workspace(reason) => {
                Ok((None, Some(format!("The agent works in the workspace itself, without a worktree: {reason}"))))
            }
        }
    }

    /// Starts the runner, if it has not been.
    async fn launch(&self, run: &Run) -> Step {
        if self.stop_recorded() {
            return Err(Setback::Stopped);
        }
        let remote = self.reach(run).await?;
        let inner = self.inner.clone();
        // A write, so that it can use what the start has used; it changes nothing.
        let secret = blocking(move || inner.store.write(credentials::find)).await?;
        if let Err(error) = remote.launch(run, &self.inner.config().runner, &secret).await {
            // What the shell complains may quote what it was given.
            let text = Redactor::new(secret).text(error.message().to_owned());
            return Err(Error::new(error.code(), text).into());
        }
        let running = status_event(run, "running", "The agent works");
        self.record(run, move |tx, run| {
            let now = Timestamp::now();
            let mut agent: Option<Agent> = tx.get(&run.agent_id)?;
            if let Some(agent) = &mut agent {
                agent.status = match run.phase {
                    Phase::Plan => AgentStatus::Planning,
                    Phase::Execute => AgentStatus::Running,
                };
                agent.updated_at = now;
                tx.put(agent)?;
            }
            run.launched_at = Some(now);
            run.state = RunState::Running;
            Ok(vec![running])
        })
        .await?;
        Ok(())
    }

    /// The run's sandbox, if commands can be run in it now; or the one that was made in its place, on its workspace.
    pub(super) async fn reach(&self, run: &Run) -> Step<Remote> {
        let id = run.sandbox_id.as_deref().unwrap_or_default();
        let provider = self.inner.provider()?;
        let mut sandbox = provider.get_by_id(id).await?;
        if sandbox.as_ref().is_none_or(|sandbox| sandbox.status().can_be_remade()) {
            let remade = provider.get(self.inner.config().sandbox_project(&run.project_id)).await?;
            sandbox = remade.or(sandbox);
        }
        let Some(sandbox) = sandbox else {
            let message = format!("sandbox {id} does not exist any more, and with it went what the agent did in it");
            return Err(Setback::Gone(Error::new(Code::ContainerNotFound, message)));
        };
        match sandbox.status() {
            SandboxStatus::Running => Ok(self.remote(sandbox)),
            SandboxStatus::Creating | SandboxStatus::Stopping | SandboxStatus::Error => {
                let message = format!("sandbox {id} is not ready: its pod or container may be being replaced");
                Err(Setback::Away(Error::new(Code::ContainerNotRunning, message)))
            }
            SandboxStatus::Stopped | SandboxStatus::Idle => {
                let message = format!("sandbox {id} was stopped while the agent worked in it");
                Err(Setback::Gone(Error::new(Code::ContainerNotRunning, message)))
            }
        }
    }

    fn remote(&self, sandbox: Arc<dyn Sandbox>) -> Remote {
        Remote { sandbox, timeout: self.inner.config().command_timeout }
    }

    /// Puts away what the run leaves, then records its end.
    async fn finish(&self, run: &Run, outcome: &Outcome, away_since: Option<Instant>) -> Step {
        let mut left = Left::default();
        if run.sandbox_id.is_some() {
            let given_up = away_since.is_some_and(|since| since.elapsed() >= self.inner.config().out_of_reach);
            let put_away = match self.reach(run).await {
                Ok(remote) => self.put_away(run, outcome, &remote).await,
                Err(setback) => Err(setback),
            };
            left = match put_away {
                Ok(left) => left,
                Err(Setback::Away(error)) if !given_up || error.code() == Code::StoreFailed => {
                    return Err(Setback::Away(error));
                }
                Err(Setback::Gone(_) | Setback::Stopped) => Left::default(),
                Err(Setback::Away(error) | Setback::Failed(error)) => {
                    let message = format!("What the agent left in the sandbox stays as it is: {error}");
                    Left { message: Some(message), ..Left::default() }
                }
            };
        }
        let ended = outcome.clone();
        self.record(run, move |tx, run| end(tx, run, ended, left)).await?;
        Ok(())
    }

    /// Ends what still works, and commits or removes the worktree.
    async fn put_away(&self, run: &Run, outcome: &Outcome, remote: &Remote) -> Step<Left> {
        let mut left = Left::default();
        let grace = match outcome {
            // It has said that it is done: it may end by itself.
            Outcome::Completed { .. } | Outcome::TurnLimit { .. } | Outcome::PlanReady { .. } => {
                self.inner.config().grace
            }
            Outcome::Cancelled { .. } | Outcome::Failed { .. } => Duration::from_secs(1),
        };
        remote.clear(run, grace).await?;
        let (task, worktree) = self.inner.store.read(|tx| {
            let task: Option<Task> = tx.get(&run.task_id)?;
            let id = task.as_ref().and_then(|task| task.worktree_id.clone());
            Ok((task, super::service::lookup::<Worktree>(tx, id.as_deref())?))
        })?;
        let (Some(worktree), Some(task)) = (worktree, task) else { return Ok(left) };
        match outcome {
            Outcome::Completed { .. } | Outcome::TurnLimit { .. } => {
                if let Err(error) = remote.commit(&worktree.path, &task.title).await {
                    match Setback::from(error) {
                        Setback::Failed(error) => {
                            left.message = Some(format!("{error}. Its files are as it left them in {}", worktree.path));
                        }
                        setback => return Err(setback),
                    }
                }
            }
            // A plan that was approved keeps its worktree for the next try.
            Outcome::Failed { .. } | Outcome::Cancelled { .. }
                if run.launched_at.is_none() && run.planned_by.is_some() => {}
            Outcome::Cancelled { .. } | Outcome::Failed { .. } => {
                match remote.discard(&worktree.path, &worktree.branch, &worktree.base).await? {
                    Discarded::Removed | Discarded::Gone => left.worktree_removed = Some(worktree.id),
                    Discarded::Kept => left.message = Some(kept(&worktree)),
                }
            }
            Outcome::PlanReady { .. } => {}
        }
        Ok(left)
    }
}

/// What was left in the sandbox.
#[derive(Default)]
struct Left {
    /// The worktree that went.
    worktree_removed: Option<String>,
    /// What to tell.
    message: Option<String>,
}

/// Records the end of a run: what becomes of task, agent and session, and what the stream says.
fn end(tx: &Writer, run: &mut Run, outcome: Outcome, left: Left) -> Result<Vec<StreamEvent>, Error> {
    let now = Timestamp::now();
    let mut events: Vec<_> = left.message.map(|message| system_message(run, &message)).into_iter().collect();
    // A plan that could not even be begun is no failed one: it waits on.
    let plan_waits_on = run.planned_by.is_some() && run.launched_at.is_none();
    let status = match &outcome {
        Outcome::Completed { .. } => LastAgentStatus::Completed,
        Outcome::TurnLimit { .. } => LastAgentStatus::TurnLimit,
        Outcome::PlanReady { .. } => LastAgentStatus::Planning,
        Outcome::Cancelled { .. } | Outcome::Failed { .. } if plan_waits_on => LastAgentStatus::Planning,
        Outcome::Cancelled { .. } => LastAgentStatus::Cancelled,
        Outcome::Failed { .. } => LastAgentStatus::Error,
    };
    let mut task: Option<Task> = tx.get(&run.task_id)?;
    if let Some(task) = task.as_mut().filter(|task| task.run_id.as_ref() == Some(&run.id)) {
        task.run_id = None;
        task.last_agent_status = Some(status);
        task.updated_at = now;
        if matches!(status, LastAgentStatus::Completed | LastAgentStatus::TurnLimit | LastAgentStatus::Planning) {
            task.column = Column::WaitingApproval;
        }
        if status == LastAgentStatus::Completed {
            task.completed_at = Some(now);
        }
        if status != LastAgentStatus::Planning {
            (task.agent_id, task.session_id) = (None, None);
        }
        if let Outcome::PlanReady { plan, sdk_session_id, allowed_prompts } = &outcome {
            task.plan = Some(plan.clone());
            task.plan_options = Some(PlanOptions {
                sdk_session_id: sdk_session_id.clone(),
                allowed_prompts: allowed_prompts.clone(),
                run_id: Some(run.id.clone()),
            });
        }
        if let Some(id) = &left.worktree_removed {
            (task.worktree_id, task.branch) = (None, None);
            tx.delete::<Worktree>(id)?;
        }
        tx.put(task)?;
    } else {
        let data = json!({ "error": task_gone(&run.task_id).message(), "attemptedStatus": status });
        events.push(event(run, "task-update-failed", data));
    }
    if let Some(mut agent) = tx.get::<Agent>(&run.agent_id)? {
        agent.status = match status {
            LastAgentStatus::Planning => AgentStatus::Paused,
            LastAgentStatus::Error => AgentStatus::Error,
            LastAgentStatus::Completed | LastAgentStatus::TurnLimit | LastAgentStatus::Cancelled => {
                AgentStatus::Completed
            }
        };
        if status != LastAgentStatus::Planning {
            (agent.current_task_id, agent.current_session_id) = (None, None);
        }
        agent.current_turn = run.turn_count;
        agent.updated_at = now;
        tx.put(&agent)?;
    }
    if let Some(mut session) = tx.get::<Session>(&run.session_id)? {
        session.status = match status {
            LastAgentStatus::Planning => SessionStatus::Paused,
            LastAgentStatus::Error => SessionStatus::Error,
            LastAgentStatus::Completed | LastAgentStatus::TurnLimit | LastAgentStatus::Cancelled => {
                SessionStatus::Closed
            }
        };
        session.closed_at = (status != LastAgentStatus::Planning).then_some(now);
        session.updated_at = now;
        tx.put(&session)?;
    }
    events.push(last_event(run, &outcome));
    run.ended_at = Some(now);
    run.state = RunState::Ended { outcome };
    Ok(events)
}

fn last_event(run: &Run, outcome: &Outcome) -> StreamEvent {
    let turns = run.turn_count;
    match outcome {
        Outcome::Completed { result } => {
            event(run, "complete", json!({ "status": "completed", "turnCount": turns, "result": result }))
        }
        Outcome::TurnLimit { result } => {
            event(run, "complete", json!({ "status": "turn_limit", "turnCount": turns, "result": result }))
        }
        Outcome::Cancelled { reason } => event(run, "cancelled", json!({ "turnCount": turns, "reason": reason })),
        Outcome::PlanReady { plan, sdk_session_id, allowed_prompts } => {
            let data = json!({
                "plan": plan,
                "turnCount": turns,
                "sdkSessionId": sdk_session_id.as_deref().unwrap_or_default(),
                "allowedPrompts": allowed_prompts,
            });
            event(run, "plan_ready", data)
        }
        Outcome::Failed { error, code } => {
            event(run, "error", json!({ "error": error, "code": code, "turnCount": turns }))
        }
    }
}

/// An event about the run's agent, with the run's ids.
pub(super) fn event(run: &Run, name: &str, data: Value) -> StreamEvent {
    let mut event = StreamEvent::now(Channel::ContainerAgent, format!("container-agent:{name}"), data);
    event.data = with_ids(event.data, run);
    event
}

/// How far the start of the run's agent is.
pub(super) fn status_event(run: &Run, stage: &str, message: &str) -> StreamEvent {
    event(run, "status", json!({ "stage": stage, "message": message }))
}

/// Something that people should know about the run.
pub(super) fn system_message(run: &Run, text: &str) -> StreamEvent {
    event(run, "message", json!({ "role": "system", "content": text }))
}

/// What the caller of a start is told whose agent never worked.
pub(super) fn start_error(run: &Run) -> Error {
    let (code, message) = match run.state.outcome() {
        Some(Outcome::Failed { error, code }) => {
            let code = Code::ALL.iter().copied().find(|known| Some(known.as_str()) == code.as_deref());
            (code.unwrap_or(Code::AgentStartFailed), error.clone())
        }
        _ => (Code::AgentStartFailed, format!("the agent of task {} was stopped before it worked", run.task_id)),
    };
    Error::new(code, message).with("taskId", run.task_id.as_str())
}

/// Removes the worktree of a plan that was turned down, unless something would be lost; tries once.
pub(super) async fn discard_worktree(inner: &Inner, worktree_id: &str, session: Option<String>) {
    let worktree: Result<Option<Worktree>, Error> = inner.store.read(|tx| tx.get(worktree_id));
    let Ok(Some(worktree)) = worktree else { return };
    let discarded = async {
        let Some(sandbox) = inner.provider()?.get_by_id(&worktree.sandbox_id).await? else {
            return Ok(Discarded::Gone);
        };
        let remote = Remote { sandbox, timeout: inner.config().command_timeout };
        remote.discard(&worktree.path, &worktree.branch, &worktree.base).await
    };
    let message = match discarded.await {
        Ok(Discarded::Removed | Discarded::Gone) => {
            let (store, id) = (inner.store.clone(), worktree.id.clone());
            if let Err(error) = blocking(move || store.write(|tx| tx.delete::<Worktree>(&id))).await {
                tracing::warn!(worktree = worktree.id, %error, "a worktree that is gone is still recorded");
            }
            return;
        }
        Ok(Discarded::Kept) => kept(&worktree),
        Err(error) => format!("{} Its folder could not be looked at: {error}", kept(&worktree)),
    };
    if let Some(session) = session {
        let data = json!({
            "taskId": worktree.task_id, "sessionId": session, "projectId": worktree.project_id,
            "role": "system", "content": message,
        });
        let event = StreamEvent::now(Channel::ContainerAgent, "container-agent:message", data);
        if let Err(error) = inner.streams.publish(&session, event).await {
            tracing::warn!(worktree = worktree.id, %error, "nobody was told that a worktree was kept");
        }
    }
}

fn kept(worktree: &Worktree) -> String {
    format!(
        "The worktree {} with branch {} is kept: it holds work that is nowhere else.",
        worktree.path, worktree.branch
    )
}

fn task_gone(task_id: &str) -> Error {
    Error::new(Code::TaskNotFound, format!("task {task_id} does not exist any more")).with("taskId", task_id)
}

fn or_gone(tx: &Writer, task_id: &str) -> Result<Task, Error> {
    tx.get(task_id)?.ok_or_else(|| task_gone(task_id))
}

/// A task has one worktree at most.
fn worktree_id(task_id: &str) -> String {
    format!("worktree-{task_id}")
}

/// The branch of a task's worktree: its title, as far as a branch may be called so, and the end of its id.
fn branch(task: &Task) -> String {
    let mut slug = String::new();
    for letter in task.title.chars().map(|letter| letter.to_ascii_lowercase()) {
        match letter {
            'a'..='z' | '0'..='9' => slug.push(letter),
            _ if !slug.is_empty() && !slug.ends_with('-') => slug.push('-'),
            _ => {}
        }
        if slug.len() == 40 {
            break;
        }
    }
    let slug = slug.trim_matches('-');
    let id: Vec<char> = task.id.chars().filter(char::is_ascii_alphanumeric).collect();
    // Ids that begin with the time differ at their end.
    let id: String = id[id.len().saturating_sub(6)..].iter().collect();
    format!("{}-{id}", if slug.is_empty() { "task" } else { slug })
}
