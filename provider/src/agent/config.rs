//! [`AgentConfig`].

use std::time::Duration;

use crate::{SandboxConfig, records::Project};

/// How agents are run.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// The runner, as a command in the sandbox. Default: `node /opt/agent-runner/dist/index.js`.
    pub runner: Vec<String>,
    /// The model when neither the start, the project nor the setting `default_model` names one.
    pub default_model: String,
    /// How many turns an agent may take when neither the start nor the project says. Default: 50.
    pub default_max_turns: u32,
    /// After how long an agent is stopped. The time that a plan waits does not count. Default: 2 hours.
    pub max_runtime: Duration,
    /// How long an agent that was asked to stop, or said that it is done, may take before it is killed. Default: 5 seconds.
    pub grace: Duration,
    /// How long a sandbox may be out of reach, or away to be replaced, before its agent counts as lost. Default: 10 minutes.
    pub out_of_reach: Duration,
    /// How long one command of ours in the sandbox may take. Default: 2 minutes.
    pub command_timeout: Duration,
    /// After how many events of its session a task's next plan begins a session of its own. Default: 100 000.
    pub max_session_events: u64,
    /// Whether a sandbox is made for a project that has none. Default: yes.
    pub create_sandbox: bool,
    /// Whether all projects share the sandbox of the project `default`. Default: no.
    pub shared_sandbox: bool,
    /// What sandboxes are made of unless their project says otherwise; its project and path do not count.
    pub sandbox: SandboxConfig,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            runner: vec!["node".into(), "/opt/agent-runner/dist/index.js".into()],
            default_model: "claude-opus-4-6".into(),
            default_max_turns: 50,
            max_runtime: Duration::from_secs(2 * 60 * 60),
            grace: Duration::from_secs(5),
            out_of_reach: Duration::from_secs(10 * 60),
            command_timeout: Duration::from_secs(2 * 60),
            max_session_events: 100_000,
            create_sandbox: true,
            shared_sandbox: false,
            sandbox: SandboxConfig::new("default", "/"),
        }
    }
}

impl AgentConfig {
    /// The project whose sandbox this project's agents work in.
    pub fn sandbox_project<'a>(&self, project_id: &'a str) -> &'a str {
        if self.shared_sandbox { "default" } else { project_id }
    }

    /// What the project's sandbox is to be.
    pub fn sandbox_of(&self, project: &Project) -> SandboxConfig {
        let own = &project.sandbox;
        let mut sandbox = self.sandbox.clone();
        sandbox.project_id = self.sandbox_project(&project.id).into();
        sandbox.project_path = project.path.clone().into();
        if self.shared_sandbox {
            return sandbox;
        }
        sandbox.image = own.image.clone().unwrap_or(sandbox.image);
        sandbox.memory_mb = own.memory_mb.unwrap_or(sandbox.memory_mb);
        sandbox.cpu_cores = own.cpu_cores.unwrap_or(sandbox.cpu_cores);
        sandbox.idle_timeout_minutes = own.idle_timeout_minutes.unwrap_or(sandbox.idle_timeout_minutes);
        sandbox.volume_mounts.extend(own.volume_mounts.iter().cloned());
        sandbox
    }
}
