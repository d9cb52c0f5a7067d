//! The programs that a set-up needs: there, and new enough.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use semver::Version;
use serde_json::Value;

use super::command::Tool;
use crate::runner::Stop;

/// How long a program may take to say its version.
const WORD: Duration = Duration::from_secs(30);

/// minikube's addon gvisor works with containerd 2 from here on.
const MINIKUBE: Version = Version::new(1, 33, 0);

/// `--validate=strict` and server-side apply are both stable from here on.
const KUBECTL: Version = Version::new(1, 27, 0);

/// Finds minikube and kubectl, and with the driver `docker` also that.
///
/// # Errors
/// If one is missing, too old or does not answer; the text says what to do. All that is wrong is said at once.
pub(super) fn check(driver: Option<&str>, stop: &Stop) -> Result<(Tool, Tool)> {
    let minikube = tool("minikube", "https://minikube.sigs.k8s.io/docs/start", stop)
        .and_then(|tool| new_enough(tool, &["version", "--output", "json"], "/minikubeVersion", &MINIKUBE));
    let kubectl = tool("kubectl", "https://kubernetes.io/docs/tasks/tools", stop).and_then(|tool| {
        new_enough(tool, &["version", "--client", "--output", "json"], "/clientVersion/gitVersion", &KUBECTL)
    });
    let docker = match driver {
        Some("docker") => tool("docker", "https://docs.docker.com/engine/install", stop).and_then(|docker| {
            let answer = docker.run(&["info", "--format", "{{.ServerVersion}}"], WORD);
            answer.context("the driver docker needs a running Docker; start it, or choose another --driver").map(drop)
        }),
        _ => Ok(()),
    };
    match (minikube, kubectl, docker) {
        (Ok(minikube), Ok(kubectl), Ok(())) => Ok((minikube, kubectl)),
        (minikube, kubectl, docker) => {
            let wrong = [minikube.err(), kubectl.err(), docker.err()];
            let wrong: Vec<String> = wrong.into_iter().flatten().map(|error| format!("- {error:#}")).collect();
            bail!("a program is missing or too old:\n{}", wrong.join("\n"))
        }
    }
}

fn tool(name: &str, source: &str, stop: &Stop) -> Result<Tool> {
    let found = Tool::find(name).with_context(|| format!("install {name}: {source}"))?;
    Ok(found.stopping(stop))
}

fn new_enough(tool: Tool, words: &[&str], pointer: &str, least: &Version) -> Result<Tool> {
    let answer = tool.run(words, WORD)?;
    let answer: Value =
        serde_json::from_str(&answer).with_context(|| format!("{} does not answer in JSON", tool.name()))?;
    let text = answer.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let version = Version::parse(text.trim_start_matches('v'));
    let version = version.with_context(|| format!("{} says that its version is {text:?}", tool.name()))?;
    if version < *least {
        bail!("{} is {version}, and it takes {least} or newer; update it", tool.name());
    }
    Ok(tool)
}
