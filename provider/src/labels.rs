//! What a sandbox is known by, on the machine below: labels and annotations that outlive the application.

use std::time::Duration;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::{Code, Error, SandboxConfig};

/// The sandbox's id.
pub(crate) const SANDBOX_ID: &str = "agentpane.io/sandbox-id";
/// The project's id; as a label, in the form that labels allow.
pub(crate) const PROJECT_ID: &str = "agentpane.io/project-id";
/// Made and deleted by this crate.
pub(crate) const MANAGED: &str = "agentpane.io/managed";
/// Runs a sandbox; what network policies select.
pub(crate) const SANDBOX: &str = "agentpane.io/sandbox";
/// Minutes without activity after which it is shut down.
pub(crate) const IDLE_MINUTES: &str = "agentpane.io/idle-timeout-minutes";
/// When something was last done with it.
pub(crate) const LAST_ACTIVITY: &str = "agentpane.io/last-activity";
/// When it was made, or made again.
pub(crate) const MADE_AT: &str = "agentpane.io/made-at";
/// Why it was stopped.
pub(crate) const STOP_REASON: &str = "agentpane.io/stop-reason";

/// Where the workspace is, in every sandbox.
pub(crate) const WORKSPACE: &str = "/workspace";
/// Does nothing until it is stopped: commands are run beside it.
pub(crate) const KEEP_ALIVE: [&str; 3] = ["tail", "-f", "/dev/null"];
/// Whom everything in a sandbox runs as.
pub(crate) const USER: i64 = 1000;
/// How long it may take to stop.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// A hash in hexadecimal digits, 4 bits each.
fn hash(text: &str, digits: usize) -> String {
    let bytes = digest(&SHA256, text.as_bytes());
    let mut hex: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

/// A project's id as the value of a label: itself where that is allowed, else a hash.
pub(crate) fn label_value(project_id: &str) -> String {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = project_id.len() <= 63
        && project_id.chars().all(inner)
        && project_id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && project_id.ends_with(|c: char| c.is_ascii_alphanumeric());
    if valid { project_id.to_owned() } else { format!("sha256-{}", hash(project_id, 40)) }
}

/// The name of the project's sandbox: always the same, so that two that are made at once meet; and none that a pod of the
/// predecessor has, whose names begin with `agentpane-`.
pub(crate) fn name_of(project_id: &str) -> String {
    let mut slug = String::new();
    for c in project_id.chars().map(|c| c.to_ascii_lowercase()) {
        match c {
            'a'..='z' | '0'..='9' => slug.push(c),
            _ if slug.ends_with('-') || slug.is_empty() => {}
            _ => slug.push('-'),
        }
        if slug.len() == 24 {
            break;
        }
    }
    let slug = slug.trim_end_matches('-');
    let hash = hash(project_id, 10);
    if slug.is_empty() { format!("sandbox-{hash}") } else { format!("sandbox-{slug}-{hash}") }
}

pub(crate) fn new_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// Refuses what no machine could do.
pub(crate) fn check(config: &SandboxConfig) -> Result<(), Error> {
    let bad = |message: &str| {
        let message = format!("no sandbox was made: {message}");
        Err(Error::new(Code::ResourceLimitExceeded, message).with("projectId", config.project_id.as_str()))
    };
    if config.project_id.is_empty() || config.project_id.len() > 1024 {
        return bad("a project's id has 1 to 1024 bytes");
    }
    if config.memory_mb == 0 {
        return bad("it needs memory: memoryMb must be positive");
    }
    if !(config.cpu_cores > 0.0 && config.cpu_cores <= 1024.0) {
        return bad("it needs a processor: cpuCores must be positive, and at most 1024");
    }
    if let Some(mount) = config.volume_mounts.iter().find(|mount| !mount.container_path.starts_with('/')) {
        let message = format!("no sandbox was made: {:?} is no absolute path to mount at", mount.container_path);
        return Err(Error::new(Code::VolumeMountFailed, message).with("containerPath", mount.container_path.as_str()));
    }
    Ok(())
}

pub(crate) fn idle_timeout(minutes: Option<&String>) -> Duration {
    Duration::from_secs(60 * minutes.and_then(|minutes| minutes.parse::<u64>().ok()).unwrap_or(0).min(1 << 32))
}

pub(crate) fn timestamp(text: Option<&String>) -> Option<Timestamp> {
    text?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("proj-1", "proj-1")]
    #[case("Räume", "sha256-4c82b44fcd9b3e0f9dff2b2fdb7ff1ac2cbcd9c4")]
    fn a_label_holds_the_project_or_its_hash(#[case] project: &str, #[case] wanted: &str) {
        let value = label_value(project);
        assert_eq!(value.split('-').next(), wanted.split('-').next(), "{value}");
        assert!(value == project || value.len() == wanted.len());
    }

    proptest! {
        /// P2-27: the predecessor's names for sandboxes could be those of its earlier pods.
        #[test]
        fn every_project_has_a_name_and_a_label_that_a_cluster_takes(project in ".{1,200}") {
            let (name, label) = (name_of(&project), label_value(&project));
            prop_assert!(name.len() <= 43 && name.starts_with("sandbox-"), "{name}");
            prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            prop_assert!(!name.ends_with('-') && !label.is_empty() && label.len() <= 63, "{label}");
        }
    }

    #[test]
    fn projects_that_look_alike_have_names_of_their_own() {
        assert_ne!(name_of("a/b"), name_of("a-b"));
        assert_ne!(name_of("x".repeat(40).as_str()), name_of("x".repeat(41).as_str()));
    }
}
