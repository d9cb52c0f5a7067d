//! The contract that every provider keeps, and the types that cross it.

use std::{collections::BTreeMap, fmt, path::PathBuf, pin::Pin, sync::Arc, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncRead, sync::broadcast};

use crate::{Code, Error, tmux};

/// Makes sandboxes and finds them again. One per kind of machine: Kubernetes, Docker.
///
/// A project has one sandbox at most. What a provider answers comes from the machine below (a watch keeps it fresh), so that
/// a restarted application finds what an earlier one made.
#[async_trait]
pub trait SandboxProvider: Send + Sync + 'static {
    /// `kubernetes` or `docker`.
    fn name(&self) -> &'static str;

    /// Makes the project's sandbox and waits until commands can be run in it.
    ///
    /// One that is stopped, idle or failed (see [`SandboxStatus::can_be_remade`]) is made anew: under a new id, on the
    /// workspace that it has left. Nothing is left behind when it fails or is dropped: what was made is deleted again, but
    /// never a workspace that was there before.
    ///
    /// # Errors
    /// [`Code::PodAlreadyExists`] or [`Code::ContainerAlreadyExists`] if the project has one that is being made, runs or is
    /// on its way out, also when two calls race, of two applications even; otherwise why it could not be made.
    async fn create(&self, config: &SandboxConfig) -> Result<Arc<dyn Sandbox>, Error>;

    /// The project's sandbox, whatever its status; none is not an error.
    ///
    /// # Errors
    /// If the machine below could not be asked.
    async fn get(&self, project_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error>;

    /// The sandbox of that id; none is not an error.
    ///
    /// # Errors
    /// If the machine below could not be asked.
    async fn get_by_id(&self, sandbox_id: &str) -> Result<Option<Arc<dyn Sandbox>>, Error>;

    /// All sandboxes, by id.
    ///
    /// # Errors
    /// If the machine below could not be asked.
    async fn list(&self) -> Result<Vec<SandboxInfo>, Error>;

    /// Makes sure that the image is at hand, as far as the machine below lets one.
    ///
    /// # Errors
    /// If it is not and cannot be made so.
    async fn pull_image(&self, image: &str) -> Result<(), Error>;

    /// Whether sandboxes can be made of the image without a pull.
    ///
    /// # Errors
    /// If the machine below could not be asked.
    async fn is_image_available(&self, image: &str) -> Result<bool, Error>;

    /// What is well and what is not, and what to do about it. Never fails: not to reach the machine is an answer.
    async fn health_check(&self) -> HealthCheck;

    /// Deletes the sandboxes that the filter selects, with what belongs to them, and says how many.
    ///
    /// # Errors
    /// If some could not be deleted; the others are.
    async fn cleanup(&self, filter: &CleanupFilter) -> Result<usize, Error>;

    /// What happens to sandboxes from now on. A listener that falls behind is told so and misses the oldest.
    fn events(&self) -> broadcast::Receiver<SandboxEvent>;

    /// Ends what the provider runs in the background. Sandboxes stay.
    async fn shutdown(&self);
}

/// One sandbox. Every operation counts as activity. tmux is reached by commands, the same in every sandbox.
#[async_trait]
pub trait Sandbox: Send + Sync + 'static {
    /// Its id, unique among all sandboxes.
    fn id(&self) -> &str;

    /// The project that it is for.
    fn project_id(&self) -> &str;

    /// What the machine below calls it: the Sandbox object's name, or the container's id.
    fn container_id(&self) -> String;

    /// What it does now, as the machine below last said.
    fn status(&self) -> SandboxStatus;

    /// Runs a command to its end. An exit status other than 0 is a result, not an error.
    ///
    /// # Errors
    /// If it could not be run, took longer than the options allow, or printed more than is kept.
    async fn exec(&self, options: ExecOptions) -> Result<ExecOutput, Error>;

    /// Starts a command whose output is read as it comes.
    ///
    /// # Errors
    /// If it could not be started; an [`ExecStream`] is a command that runs.
    async fn exec_stream(&self, options: ExecOptions) -> Result<ExecStream, Error>;

    /// Stops it. What is in its workspace stays until it is cleaned up.
    ///
    /// # Errors
    /// If it could not be stopped. Not there any more is not an error.
    async fn stop(&self, reason: StopReason) -> Result<(), Error>;

    /// What it uses.
    ///
    /// # Errors
    /// If it could not be found out.
    async fn metrics(&self) -> Result<SandboxMetrics, Error>;

    /// Counts as activity, so that it is not stopped for idleness.
    fn touch(&self);

    /// When something was last done with it.
    fn last_activity(&self) -> Timestamp;

    /// Makes a tmux session.
    ///
    /// # Errors
    /// [`Code::SandboxTmuxSessionExists`] if it is there, [`Code::SandboxTmuxCreationFailed`] if tmux says no.
    async fn create_tmux_session(&self, name: &str, task_id: Option<&str>) -> Result<TmuxSession, Error> {
        tmux::create(self, name, task_id).await
    }

    /// The tmux sessions; a tmux server that does not run has none.
    ///
    /// # Errors
    /// If tmux could not be asked.
    async fn list_tmux_sessions(&self) -> Result<Vec<TmuxSession>, Error> {
        tmux::list(self).await
    }

    /// Ends a tmux session; one that is not there is fine.
    ///
    /// # Errors
    /// If tmux could not be asked.
    async fn kill_tmux_session(&self, name: &str) -> Result<(), Error> {
        tmux::kill(self, name).await
    }

    /// Types keys, and Enter, into a tmux session.
    ///
    /// # Errors
    /// [`Code::SandboxTmuxSessionNotFound`] if there is none of the name.
    async fn send_keys_to_tmux(&self, name: &str, keys: &str) -> Result<(), Error> {
        tmux::send_keys(self, name, keys).await
    }

    /// What a tmux session shows, with `lines` of what has scrolled away.
    ///
    /// # Errors
    /// [`Code::SandboxTmuxSessionNotFound`] if there is none of the name.
    async fn capture_tmux_pane(&self, name: &str, lines: u32) -> Result<String, Error> {
        tmux::capture(self, name, lines).await
    }
}

/// What a sandbox is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxConfig {
    /// The project that it is for.
    pub project_id: String,
    /// Where the project lies on the application's machine; Docker shows it at `/workspace`.
    pub project_path: PathBuf,
    /// The image, with tag or digest.
    pub image: String,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// CPU limit in cores.
    pub cpu_cores: f64,
    /// Minutes without activity after which it is shut down; 0 for never.
    pub idle_timeout_minutes: u32,
    /// Folders beside the workspace.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
    /// Environment of everything that runs in it. Not for secrets: they would stand in the pod's specification.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
}

impl SandboxConfig {
    /// The image that is used when none is named.
    pub const DEFAULT_IMAGE: &'static str = "srlynch1/agent-sandbox:latest";

    /// A sandbox for the project with the defaults: 4096 MiB, 2 cores, 30 minutes.
    pub fn new(project_id: impl Into<String>, project_path: impl Into<PathBuf>) -> Self {
        Self {
            project_id: project_id.into(),
            project_path: project_path.into(),
            image: Self::DEFAULT_IMAGE.into(),
            memory_mb: 4096,
            cpu_cores: 2.0,
            idle_timeout_minutes: 30,
            volume_mounts: Vec::new(),
            env: BTreeMap::new(),
        }
    }
}

/// A folder of the machine below, shown in a sandbox. On Kubernetes it is an empty folder of the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// Where it lies on the machine below.
    pub host_path: PathBuf,
    /// Where it is seen in the sandbox; absolute.
    pub container_path: String,
    /// Whether the sandbox may only read it.
    #[serde(default)]
    pub readonly: bool,
}

/// What a sandbox does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxStatus {
    /// It does not run, and can be made again.
    Stopped,
    /// It is not ready yet.
    Creating,
    /// Commands can be run in it.
    Running,
    /// It was suspended for want of activity, and can be made again.
    Idle,
    /// It is on its way out.
    Stopping,
    /// It failed, and can be made again.
    Error,
}

impl SandboxStatus {
    /// Whether [`SandboxProvider::create`] makes it anew instead of refusing.
    pub fn can_be_remade(self) -> bool {
        match self {
            Self::Stopped | Self::Idle | Self::Error => true,
            Self::Creating | Self::Running | Self::Stopping => false,
        }
    }
}

/// A sandbox in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxInfo {
    /// Its id.
    pub id: String,
    /// The project that it is for.
    pub project_id: String,
    /// What the machine below calls it.
    pub container_id: String,
    /// What it does now.
    pub status: SandboxStatus,
    /// Its image.
    pub image: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When something was last done with it.
    pub last_activity_at: Timestamp,
    /// Memory limit in MiB.
    pub memory_mb: u32,
    /// CPU limit in cores.
    pub cpu_cores: f64,
}

/// What a sandbox uses. What the machine below does not tell is `None`, never a made-up zero.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxMetrics {
    /// Of one core.
    pub cpu_usage_percent: Option<f64>,
    /// In MiB.
    pub memory_usage_mb: Option<f64>,
    /// In MiB.
    pub memory_limit_mb: Option<f64>,
    /// In MiB.
    pub disk_usage_mb: Option<f64>,
    /// Since it runs.
    pub network_rx_bytes: Option<u64>,
    /// Since it runs.
    pub network_tx_bytes: Option<u64>,
    /// Milliseconds since it runs.
    pub uptime: u64,
}

/// A command and how to run it.
#[derive(Clone, Default)]
pub struct ExecOptions {
    /// The program.
    pub cmd: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment beside the sandbox's own. It stands in no URL and no command line, so that it may hold secrets.
    pub env: BTreeMap<String, String>,
    /// Where it runs; default is the sandbox's working directory.
    pub cwd: Option<String>,
    /// What it reads; then its input ends.
    pub stdin: Option<Vec<u8>>,
    /// As root, where the machine below can do so; refused where it cannot.
    pub as_root: bool,
    /// Ends the command when it takes longer; default is no limit.
    pub timeout: Option<Duration>,
}

impl ExecOptions {
    /// Runs `cmd` with `args`.
    pub fn new<I: IntoIterator<Item: Into<String>>>(cmd: impl Into<String>, args: I) -> Self {
        Self { cmd: cmd.into(), args: args.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl fmt::Debug for ExecOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values of the environment and the input may be secrets.
        let Self { cmd, args, env, cwd, stdin, as_root, timeout } = self;
        f.debug_struct("ExecOptions")
            .field("cmd", cmd)
            .field("args", args)
            .field("env", &env.keys())
            .field("cwd", cwd)
            .field("stdin_bytes", &stdin.as_ref().map(Vec::len))
            .field("as_root", as_root)
            .field("timeout", timeout)
            .finish()
    }
}

/// What a command left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecOutput {
    /// Its exit status; 128 and the signal's number if one ended it.
    pub exit_code: i32,
    /// Without white space at its ends.
    pub stdout: String,
    /// Without white space at its ends.
    pub stderr: String,
}

/// A command that runs.
///
/// Both outputs end when the command ends, also when it is killed or its connection is lost.
pub struct ExecStream {
    /// What it prints.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// What it complains.
    pub stderr: Pin<Box<dyn AsyncRead + Send>>,
    /// How to wait for it and to end it.
    pub handle: Arc<dyn ExecHandle>,
}

impl fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecStream").finish_non_exhaustive()
    }
}

/// Waits for a command and ends it.
#[async_trait]
pub trait ExecHandle: Send + Sync + 'static {
    /// How it ended, also when asked late or more than once. It may be awaited before the outputs are read.
    ///
    /// # Errors
    /// [`Code::ExecConnectionFailed`] if the connection was lost first.
    async fn wait(&self) -> Result<ExecEnd, Error>;

    /// Ends the command, and with it what it started; already ended is fine.
    ///
    /// # Errors
    /// If it could not be told. The outputs end all the same.
    async fn kill(&self) -> Result<(), Error>;
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecEnd {
    /// Its exit status; 128 and the signal's number if one ended it, as far as the machine below tells.
    pub exit_code: i32,
}

/// A tmux session in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TmuxSession {
    /// Its name.
    pub name: String,
    /// The sandbox that it is in.
    pub sandbox_id: String,
    /// The task that it is for.
    pub task_id: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// How many windows it has.
    pub window_count: u32,
    /// Whether someone looks at it.
    pub attached: bool,
}

/// Whether sandboxes can be had, and if not, why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Whether a sandbox can be made now.
    pub healthy: bool,
    /// In one sentence.
    pub message: Option<String>,
    /// What was looked at, in order.
    pub rows: Vec<HealthRow>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthRow {
    /// What: `cluster`, `crds`, `controller`, `engine` and so on.
    pub name: String,
    /// Whether it is as it must be.
    pub ok: bool,
    /// What was found.
    pub found: String,
    /// What to do about it, if something is to be done.
    pub advice: Option<String>,
}

/// Which sandboxes to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanupFilter {
    /// Those without activity since then; default is any.
    pub older_than: Option<Timestamp>,
    /// Those in one of these; default is stopped ones.
    pub status: Vec<SandboxStatus>,
}

impl Default for CleanupFilter {
    fn default() -> Self {
        Self { older_than: None, status: vec![SandboxStatus::Stopped] }
    }
}

impl CleanupFilter {
    /// Whether the sandbox is one of those.
    pub(crate) fn selects(&self, info: &SandboxInfo) -> bool {
        self.status.contains(&info.status) && self.older_than.is_none_or(|since| info.last_activity_at < since)
    }
}

/// Why a sandbox is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Someone asked.
    Manual,
    /// Nobody did anything with it for too long.
    IdleTimeout,
    /// It failed.
    Error,
}

/// Something that happened to a sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum SandboxEvent {
    /// It is about to be made.
    #[serde(rename = "sandbox:creating")]
    Creating {
        /// Its id.
        sandbox_id: String,
        /// The project that it is for.
        project_id: String,
    },
    /// The machine below has it.
    #[serde(rename = "sandbox:created")]
    Created {
        /// Its id.
        sandbox_id: String,
        /// The project that it is for.
        project_id: String,
        /// What the machine below calls it.
        container_id: String,
    },
    /// It is on its way to be ready.
    #[serde(rename = "sandbox:starting")]
    Starting {
        /// Its id.
        sandbox_id: String,
    },
    /// Commands can be run in it.
    #[serde(rename = "sandbox:started")]
    Started {
        /// Its id.
        sandbox_id: String,
    },
    /// It was suspended for want of activity.
    #[serde(rename = "sandbox:idle")]
    Idle {
        /// Its id.
        sandbox_id: String,
        /// When something was last done with it.
        idle_since: Timestamp,
    },
    /// It is on its way out.
    #[serde(rename = "sandbox:stopping")]
    Stopping {
        /// Its id.
        sandbox_id: String,
        /// Why.
        reason: StopReason,
    },
    /// It does not run any more, whoever ended it.
    #[serde(rename = "sandbox:stopped")]
    Stopped {
        /// Its id.
        sandbox_id: String,
    },
    /// It could not be made, or failed.
    #[serde(rename = "sandbox:error")]
    Error {
        /// Its id.
        sandbox_id: String,
        /// What a client may match on.
        code: String,
        /// For people.
        message: String,
    },
}

impl SandboxEvent {
    /// The event of an error.
    pub fn error(sandbox_id: &str, error: &Error) -> Self {
        let code: Code = error.code();
        Self::Error { sandbox_id: sandbox_id.into(), code: code.as_str().into(), message: error.message().into() }
    }
}
