//! What the application remembers about projects and the work in them: the records of the [`store`](crate::store).

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{VolumeMount, store::Record};

macro_rules! record {
    ($($kind:ident in $table:literal by $id:ident;)+) => {$(
        impl Record for $kind {
            const TABLE: &'static str = $table;

            fn id(&self) -> &str {
                &self.$id
            }
        }
    )+};
}

record! {
    Project in "projects" by id;
    Task in "tasks" by id;
    Session in "sessions" by id;
    Agent in "agents" by id;
    Worktree in "worktrees" by id;
    Run in "runs" by id;
    Setting in "settings" by key;
    ApiKey in "api_keys" by id;
}

/// A body of work, with at most one sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Project {
    /// Its id.
    pub id: String,
    /// For people.
    pub name: String,
    /// Where it lies on the application's machine; Docker shows it in the sandbox.
    pub path: String,
    /// How its sandbox differs from the defaults.
    #[serde(default)]
    pub sandbox: ProjectSandbox,
    /// The profile that says so, if one does.
    #[serde(default)]
    pub sandbox_config_id: Option<String>,
    /// The model of its agents; default is the setting `default_model`.
    pub model: Option<String>,
    /// How many turns its agents may take; default 50.
    pub max_turns: Option<u32>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Project {
    /// A project with the defaults.
    pub fn new(id: impl Into<String>, name: impl Into<String>, path: impl Into<String>) -> Self {
        let now = Timestamp::now();
        Self {
            id: id.into(),
            name: name.into(),
            path: path.into(),
            sandbox: ProjectSandbox::default(),
            sandbox_config_id: None,
            model: None,
            max_turns: None,
            created_at: now,
            updated_at: now,
        }
    }
}

/// How a project's sandbox differs from the defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ProjectSandbox {
    /// Whether agents work in a sandbox; default is the setting `sandbox.defaults`.
    pub enabled: Option<bool>,
    /// The image.
    pub image: Option<String>,
    /// Memory limit in MiB.
    pub memory_mb: Option<u32>,
    /// CPU limit in cores.
    pub cpu_cores: Option<f64>,
    /// Minutes without activity after which it is shut down; 0 for never.
    pub idle_timeout_minutes: Option<u32>,
    /// Folders beside the workspace.
    pub volume_mounts: Vec<VolumeMount>,
}

/// A card on a project's board.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// In one line.
    pub title: String,
    /// What is to be done.
    #[serde(default)]
    pub description: String,
    /// Free words.
    #[serde(default)]
    pub labels: Vec<String>,
    /// How much it matters.
    #[serde(default)]
    pub priority: Priority,
    /// Where it is on the board.
    pub column: Column,
    /// Its place in the column, from 0.
    #[serde(default)]
    pub position: u32,
    /// The agent that works on it, or whose plan waits.
    pub agent_id: Option<String>,
    /// The session whose stream tells of the work.
    pub session_id: Option<String>,
    /// The run that is not over, if there is one: nobody else may start or finish anything for the task.
    pub run_id: Option<String>,
    /// How the last agent left it.
    pub last_agent_status: Option<LastAgentStatus>,
    /// What the agent proposes to do.
    pub plan: Option<String>,
    /// What is needed to go on from the plan.
    pub plan_options: Option<PlanOptions>,
    /// The worktree with its files.
    pub worktree_id: Option<String>,
    /// That worktree's branch.
    pub branch: Option<String>,
    /// Why its plan, or its result, was last turned down.
    pub rejection_reason: Option<String>,
    /// How often its result was turned down.
    #[serde(default)]
    pub rejection_count: u32,
    /// Since when it is to be started, until the start is recorded: a restart makes up for it.
    #[serde(default)]
    pub start_requested_at: Option<Timestamp>,
    /// When it was first started.
    pub started_at: Option<Timestamp>,
    /// When an agent last completed it.
    pub completed_at: Option<Timestamp>,
    /// When a person accepted the result.
    pub approved_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Task {
    /// A task in the backlog.
    pub fn new(id: impl Into<String>, project_id: impl Into<String>, title: impl Into<String>) -> Self {
        let now = Timestamp::now();
        Self {
            id: id.into(),
            project_id: project_id.into(),
            title: title.into(),
            description: String::new(),
            labels: Vec::new(),
            priority: Priority::default(),
            column: Column::Backlog,
            position: 0,
            agent_id: None,
            session_id: None,
            run_id: None,
            last_agent_status: None,
            plan: None,
            plan_options: None,
            worktree_id: None,
            branch: None,
            rejection_reason: None,
            rejection_count: 0,
            start_requested_at: None,
            started_at: None,
            completed_at: None,
            approved_at: None,
            created_at: now,
            updated_at: now,
        }
    }

    /// Whether its plan waits for an answer.
    pub fn has_pending_plan(&self) -> bool {
        self.plan.is_some() && self.last_agent_status == Some(LastAgentStatus::Planning)
    }
}

/// A column of the board. A task may go from any to any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Column {
    /// For later.
    Backlog,
    /// Next.
    Queued,
    /// Worked on.
    InProgress,
    /// A person is to look at the plan or the result.
    WaitingApproval,
    /// Accepted.
    Verified,
}

impl Column {
    /// All columns, from left to right.
    pub const ALL: [Self; 5] = [Self::Backlog, Self::Queued, Self::InProgress, Self::WaitingApproval, Self::Verified];
}

/// How much a task matters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Whenever.
    Low,
    /// As the others.
    #[default]
    Medium,
    /// First.
    High,
}

/// How an agent left a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastAgentStatus {
    /// It said that it is done.
    Completed,
    /// It was stopped.
    Cancelled,
    /// It failed.
    Error,
    /// It took as many turns as it may.
    TurnLimit,
    /// Its plan waits for an answer.
    Planning,
}

/// What is needed to go on from a plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PlanOptions {
    /// The conversation that made the plan, if the runner can take it up again.
    pub sdk_session_id: Option<String>,
    /// What the plan asks to be allowed, as the runner says it.
    pub allowed_prompts: Vec<Value>,
    /// The run that made the plan.
    pub run_id: Option<String>,
}

/// A conversation with an agent; its stream of events has its id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Session {
    /// Its id, which is also the stream's.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// The task that it is about.
    pub task_id: Option<String>,
    /// The agent that last worked in it.
    pub agent_id: Option<String>,
    /// Whether something happens in it.
    pub status: SessionStatus,
    /// In one line.
    pub title: Option<String>,
    /// Where the application shows it.
    pub url: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When the work in it ended.
    pub closed_at: Option<Timestamp>,
}

/// Whether something happens in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// An agent works.
    Active,
    /// A plan waits for an answer.
    Paused,
    /// The work has ended.
    Closed,
    /// The work has failed.
    Error,
}

/// Who works on a task. There is one for each task, `agent-<task>`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// For people.
    pub name: String,
    /// `task`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it does.
    pub status: AgentStatus,
    /// The task that it works on now.
    pub current_task_id: Option<String>,
    /// The session that it works in now.
    pub current_session_id: Option<String>,
    /// How many turns it has taken in its current or last run.
    #[serde(default)]
    pub current_turn: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// What an agent does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentStatus {
    /// Nothing.
    Idle,
    /// It is being started.
    Starting,
    /// It makes a plan.
    Planning,
    /// It works.
    Running,
    /// Its plan waits for an answer.
    Paused,
    /// It failed.
    Error,
    /// It is done, or was stopped.
    Completed,
}

/// A branch of the project's repository, checked out in the sandbox for one task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Worktree {
    /// Its id.
    pub id: String,
    /// The project that it belongs to.
    pub project_id: String,
    /// The task that it is for.
    pub task_id: String,
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// Its branch.
    pub branch: String,
    /// Where it is in the sandbox.
    pub path: String,
    /// The commit that it was made from.
    pub base: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What an agent is started for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// To make a plan, which then waits for an answer.
    #[default]
    Plan,
    /// To do the work.
    Execute,
}

impl Phase {
    /// As the runner knows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Execute => "execute",
        }
    }
}

/// One start of an agent, until it has ended and what it left is put away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The project that it is in.
    pub project_id: String,
    /// The task that it is for.
    pub task_id: String,
    /// The session whose stream tells of it.
    pub session_id: String,
    /// The agent.
    pub agent_id: String,
    /// What the agent is started for.
    pub phase: Phase,
    /// How far it is.
    pub state: RunState,
    /// What the agent is told.
    pub prompt: String,
    /// The agent's model.
    pub model: String,
    /// How many turns it may take.
    pub max_turns: u32,
    /// The conversation to take up again.
    pub sdk_session_id: Option<String>,
    /// The run that began that conversation.
    pub planned_by: Option<String>,
    /// The sandbox, once there is one.
    pub sandbox_id: Option<String>,
    /// The worktree's folder that the agent works in; without one it works in the workspace.
    pub cwd: Option<String>,
    /// How many bytes of what the agent has printed are in the stream.
    pub read_bytes: u64,
    /// How many turns it has taken.
    pub turn_count: u32,
    /// When someone asked for it to be stopped.
    pub stop_requested_at: Option<Timestamp>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the agent was first seen to work.
    pub launched_at: Option<Timestamp>,
    /// When all was put away.
    pub ended_at: Option<Timestamp>,
}

/// How far a run is. Each step can be done again, so that a restarted application goes on from the one that is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "camelCase")]
pub enum RunState {
    /// Recorded; its sandbox and its worktree are being made ready.
    Preparing,
    /// Its sandbox and worktree are ready; the agent may or may not have been started there. It never starts twice.
    Launching,
    /// The agent works, or has; what it prints is read from where it was left.
    Running,
    /// How it ends is settled; what it left is being committed or put away.
    Finishing {
        /// How it ends.
        outcome: Outcome,
    },
    /// Over.
    Ended {
        /// How it ended.
        outcome: Outcome,
    },
}

impl RunState {
    /// How it ended or is about to.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Preparing | Self::Launching | Self::Running => None,
            Self::Finishing { outcome } | Self::Ended { outcome } => Some(outcome),
        }
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        matches!(self, Self::Ended { .. })
    }
}

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// The agent says that it is done.
    Completed {
        /// What it says about it.
        result: Option<String>,
    },
    /// It took as many turns as it may.
    TurnLimit {
        /// What it says about it.
        result: Option<String>,
    },
    /// It was stopped.
    Cancelled {
        /// Why, if it was not simply asked to.
        reason: Option<String>,
    },
    /// Its plan is ready.
    PlanReady {
        /// The plan.
        plan: String,
        /// The conversation that made the plan.
        sdk_session_id: Option<String>,
        /// What the plan asks to be allowed.
        allowed_prompts: Vec<Value>,
    },
    /// It failed.
    Failed {
        /// For people.
        error: String,
        /// What a client may match on.
        code: Option<String>,
    },
}

/// An event of a stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamEvent {
    /// What happened, such as `container-agent:plan_ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    pub channel: Channel,
    /// In milliseconds since 1970.
    #[serde(rename = "timestamp")]
    pub timestamp_ms: i64,
    /// The rest.
    pub data: Map<String, Value>,
}

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Channel {
    /// An agent.
    ContainerAgent,
    /// A sandbox.
    Sandbox,
    /// A plan.
    Plan,
    /// The making of tasks.
    TaskCreation,
}

/// A setting: a JSON value under its key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// Its key, such as `sandbox.defaults`.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A secret that opens a service: `anthropic` is what agents use. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiKey {
    /// The service.
    pub id: String,
    /// The secret.
    pub value: String,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, value: _, updated_at } = self;
        f.debug_struct("ApiKey").field("id", id).field("updated_at", updated_at).finish_non_exhaustive()
    }
}
