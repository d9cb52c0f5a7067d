//! A task from the board to the review, as a person lives it: over HTTP, with the provider's program and an agent in a sandbox.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::application::Application;
use crate::World;

/// The agents' key, which must be seen nowhere.
const KEY: &str = "sk-ant-a-key-that-nobody-may-see-0123456789";

/// What the agent does: it thinks, tries to tell its key, and proposes what it does once it may.
const SCRIPT: &str = "@say thinking\n@print $CLAUDE_OAUTH_TOKEN\n@complain $CLAUDE_OAUTH_TOKEN\n@write early.txt too early\n\
                      @plan\n@write hello.txt hello from the agent\n@turn";

/// A repository, where the image has git: agents get a worktree of it.
const REPOSITORY: &str = "cd /workspace; command -v git >/dev/null || exit 0; git init -q -b main . && \
                          git -c user.name=t -c user.email=t@t commit -qm first --allow-empty";

/// Moved to In Progress over HTTP, a task gets an agent in a sandbox. Its plan arrives over SSE, outlives the server, and is
/// carried out when it is approved; what the agent wrote is in `/workspace`, the task waits for approval, and
/// `kubectl get sandboxes` shows where. Whoever has no credentials sees nothing of it, and nobody sees keys or tokens.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_task_is_planned_approved_and_carried_out_in_a_sandbox(world: &World) -> Result<()> {
    let agents = world.agents().context("the target says how agents run there")?;
    let folder = tempfile::tempdir().context("no folder for the application")?;
    world.step("the application starts");
    let mut application = Application::start(agents, folder.path()).await?;
    ensure!(application.status_without_token("/api/tasks").await? == 401, "credentials are asked for");
    let settings = json!({"settings": {
        "sandbox.kubernetes": {"namespace": world.namespace()},
        "sandbox.defaults": {"image": world.image(), "memoryMb": 512, "cpuCores": 0.5},
    }});
    application.put("/api/settings", settings).await?;
    application.has_provider(world.deadline()).await?;
    application.put("/api/api-keys/anthropic", json!({"value": KEY})).await?;
    let project = text(&application.post("/api/projects", json!({"name": "Shop"})).await?["id"])?;

    world.step("a sandbox with a runner and a repository");
    let sandbox = text(&application.post("/api/sandboxes", json!({"projectId": project})).await?["containerId"])?;
    let runner = std::fs::read(&agents.runner).with_context(|| format!("no {}", agents.runner.display()))?;
    world.sandboxes().exec(&sandbox, ["mkdir", "/workspace/.tools"]).await?;
    world.sandboxes().write_file(&sandbox, Application::RUNNER, runner).await?;
    world.sandboxes().exec(&sandbox, ["chmod", "+x", Application::RUNNER]).await?;
    world.sandboxes().exec(&sandbox, ["sh", "-c", REPOSITORY]).await?;

    world.step("a task is moved to In Progress");
    let task = json!({"projectId": project, "title": "Say hello", "description": SCRIPT});
    let task = text(&application.post("/api/tasks", task).await?["id"])?;
    let moved = application.patch(&format!("/api/tasks/{task}/move"), json!({"column": "in_progress"})).await?;
    ensure!(moved.get("agentError").is_none(), "{moved}");
    let session = text(&moved["task"]["sessionId"])?;

    world.step("its plan arrives over SSE");
    let mut events = application.events(&session, 1).await?;
    let plan = events.until("container-agent:plan_ready", world.deadline()).await?;
    ensure!(text(&plan["data"]["plan"])?.contains("@write hello.txt"), "{plan}");
    let last = plan["offset"].as_u64().context("an offset")?;
    let waits = application.get(&format!("/api/tasks/{task}")).await?;
    ensure!(waits["column"] == "waiting_approval" && waits["lastAgentStatus"] == "planning", "{waits}");
    let mut told = events.text();

    world.step("the server is killed and comes back");
    application.kill_and_start_again(agents).await?;
    application.has_provider(world.deadline()).await?;
    let waits = application.get(&format!("/api/tasks/{task}")).await?;
    ensure!(waits["column"] == "waiting_approval", "the plan waits on: {waits}");

    world.step("it is approved and carried out");
    let approved = application.post(&format!("/api/tasks/{task}/approve-plan"), json!({})).await?;
    ensure!(approved["approved"] == true, "{approved}");
    let mut events = application.events(&session, last + 1).await?;
    let changed = events.until("container-agent:file_changed", world.deadline()).await?;
    let file = text(&changed["data"]["path"])?;
    ensure!(file.starts_with("/workspace/") && file.ends_with("/hello.txt"), "{file}");
    let complete = events.until("container-agent:complete", world.deadline()).await?;
    ensure!(complete["data"]["status"] == "completed", "{complete}");
    ensure!(events.offsets() == (last + 1..).take(events.offsets().len()).collect::<Vec<_>>(), "no event is lost");
    told.push_str(&events.text());

    world.step("the task waits for approval, and the file is there");
    let done = application.get(&format!("/api/tasks/{task}")).await?;
    ensure!(done["column"] == "waiting_approval" && done["lastAgentStatus"] == "completed", "{done}");
    let content = world.sandboxes().read_file(&sandbox, &file, 1000).await?;
    ensure!(content == b"hello from the agent", "{:?}", String::from_utf8_lossy(&content));

    world.step("kubectl get sandboxes shows it");
    let shown = world.kubectl(agents, &["get", "sandboxes", "--no-headers"])?;
    match &shown {
        Some(shown) => {
            let line = shown.lines().find(|line| line.split_whitespace().next() == Some(&sandbox));
            ensure!(line.is_some_and(|line| line.contains("True")), "kubectl shows\n{shown}");
        }
        None => world.step("not shown: kubectl is not on this machine"),
    }

    world.step("nobody has seen the key or the token");
    let export = application.post(&format!("/api/sessions/{session}/export"), json!({})).await?.to_string();
    let token = application.token().to_owned();
    let (answers, log) = application.end().await?;
    ensure!(log.contains("/approve-plan") && log.contains("exec"), "the log tells of requests and of addresses");
    let seen = [
        ("the log, with all addresses that were asked", log),
        ("an answer", answers),
        ("an event", told),
        ("the export", export),
        ("the cluster", world.dump().await),
        ("kubectl", shown.unwrap_or_default()),
    ];
    for (what, text) in &seen {
        for (name, secret) in [("key", KEY), ("token", &token)] {
            ensure!(!text.contains(secret), "the {name} stands in {what}: {}", around(text, secret));
        }
    }
    Ok(())
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).with_context(|| format!("{value} is no text"))
}

/// What stands before a secret that should not be there.
fn around(text: &str, secret: &str) -> String {
    let before: Vec<char> = text.split(secret).next().unwrap_or_default().chars().collect();
    before[before.len().saturating_sub(300)..].iter().collect()
}
