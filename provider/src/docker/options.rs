//! How sandboxes are made on a Docker Engine.

use std::time::Duration;

use crate::Clock;

/// How sandboxes are made on a Docker Engine.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// Where the engine listens: `unix:///path`, `tcp://host:port` or `http://host:port`. Default: `DOCKER_HOST`, else the
    /// machine's own socket.
    pub host: Option<String>,
    /// Whether containers run under gVisor (`runsc`), if the engine has it. Default: yes.
    pub gvisor: bool,
    /// Whom everything in a sandbox runs as: a user id, with a group id if wanted. Default: `1000`.
    pub user: String,
    /// Whether an image that is not there is pulled. Default: yes.
    pub pull: bool,
    /// How long the engine may take to answer. Default: two minutes.
    pub timeout: Duration,
    /// How often it is looked for idle sandboxes. Default: 20 s.
    pub idle_interval: Duration,
    /// The time that idleness is measured by. Default: this machine's.
    pub clock: Clock,
}

impl Default for DockerOptions {
    fn default() -> Self {
        Self {
            host: None,
            gvisor: true,
            user: crate::labels::USER.to_string(),
            pull: true,
            timeout: Duration::from_secs(120),
            idle_interval: Duration::from_secs(20),
            clock: Clock::default(),
        }
    }
}
