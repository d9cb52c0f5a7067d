//! Projects, their sandboxes, and tasks.

use std::{
    io,
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use agent_sandbox_provider::records::{Project, Task};
use axum::http::StatusCode;
use serde_json::{Value, json};

use tracing::{
    Dispatch, Level,
    subscriber::{DefaultGuard, NoSubscriber},
};

use super::{TOKEN, World, request};

/// The longest that an agent in these tests takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_sandbox_is_made_when_asked_for_seen_restarted_stopped_and_cleaned_up() {
    let world = World::on_cluster().await;
    let project = world.project("p").await;
    let status = format!("/api/sandbox/status/{project}");
    let before = world.good("GET", &status, None).await;
    let wanted = json!({
        "mode": "per-project", "containerStatus": "stopped", "containerId": null, "sandboxId": null,
        "provider": "kubernetes", "dockerAvailable": true,
    });
    assert_eq!(before, wanted);
    assert_eq!(world.good("GET", "/api/sandboxes", None).await["totalCount"], 0, "looking makes nothing");

    let (code, made) =
        world.call("POST", "/api/sandboxes", Some(json!({"projectId": project, "memoryMb": 1024}))).await;
    assert_eq!(code, StatusCode::CREATED, "{made}");
    let made = made["data"].clone();
    assert_eq!((&made["projectId"], &made["status"]), (&json!(project), &json!("running")));
    let now = world.good("GET", &status, None).await;
    assert_eq!((&now["containerStatus"], &now["containerId"]), (&json!("running"), &made["containerId"]));
    let list = world.good("GET", "/api/sandboxes", None).await;
    assert_eq!((&list["totalCount"], &list["items"][0]["memoryMb"]), (&json!(1), &json!(1024)));
    let one = format!("/api/sandboxes/{}", made["id"].as_str().unwrap());
    assert_eq!(world.good("GET", &one, None).await["id"], made["id"]);
    let again = Some(json!({"projectId": project}));
    assert_eq!(world.bad("POST", "/api/sandboxes", again).await, "409 K8S_POD_ALREADY_EXISTS");

    let restarted = world.good("POST", &format!("{status}/restart"), None).await;
    assert!(restarted["message"].is_string());
    let now = world.good("GET", &status, None).await;
    assert_eq!(now["containerStatus"], "running", "also on Kubernetes: {now}");
    let one = format!("/api/sandboxes/{}", now["sandboxId"].as_str().unwrap());
    assert_eq!(world.good("POST", &format!("{one}/stop"), None).await, json!({"stopped": true}));
    assert_eq!(world.good("GET", &status, None).await["containerStatus"], "stopped");
    let removed = world.good("POST", "/api/sandboxes/cleanup", Some(json!({}))).await;
    assert!(removed["removed"].as_u64().unwrap() >= 1, "{removed}");
    assert_eq!(world.good("GET", "/api/sandboxes", None).await["totalCount"], 0);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_or_does_not_fit_is_refused() {
    let world = World::new().await;
    let project = world.project("p").await;
    let sandbox = |body: Value| ("POST", "/api/sandboxes".to_owned(), Some(body));
    for ((method, path, body), wanted) in [
        (sandbox(json!({})), "400 MISSING_PARAMS"),
        (sandbox(json!({"projectId": "a b"})), "400 VALIDATION_ERROR"),
        (sandbox(json!({"projectId": "a.b"})), "400 VALIDATION_ERROR"),
        (sandbox(json!({"projectId": "none"})), "404 SANDBOX_PROJECT_NOT_FOUND"),
        (sandbox(json!({"projectId": project, "memoryMb": 1})), "400 VALIDATION_ERROR"),
        (("GET", "/api/sandboxes/none".into(), None), "404 SANDBOX_CONTAINER_NOT_FOUND"),
        (("POST", "/api/sandboxes/none/stop".into(), None), "404 SANDBOX_CONTAINER_NOT_FOUND"),
        (("POST", "/api/sandboxes/cleanup".into(), Some(json!({"status": "busy"}))), "400 VALIDATION_ERROR"),
        (("POST", "/api/sandbox/status/none/restart".into(), None), "404 SANDBOX_PROJECT_NOT_FOUND"),
        (("GET", "/api/projects/none".into(), None), "404 SANDBOX_PROJECT_NOT_FOUND"),
        (("POST", "/api/projects".into(), Some(json!({}))), "400 MISSING_PARAMS"),
        (("POST", "/api/projects".into(), Some(json!({"name": "p", "path": "here"}))), "400 VALIDATION_ERROR"),
        (("POST", "/api/projects".into(), Some(json!({"name": "p", "sandboxConfigId": "x"}))), "400 VALIDATION_ERROR"),
        (("POST", "/api/tasks".into(), Some(json!({"projectId": project}))), "400 MISSING_PARAMS"),
        (("POST", "/api/tasks".into(), Some(json!({"projectId": "x", "title": "t"}))), "404 SANDBOX_PROJECT_NOT_FOUND"),
        (("GET", "/api/tasks?column=somewhere".into(), None), "400 VALIDATION_ERROR"),
        (("GET", "/api/tasks?projectId=a.b".into(), None), "400 VALIDATION_ERROR"),
        (("GET", "/api/tasks/none".into(), None), "404 SANDBOX_TASK_NOT_FOUND"),
        (("PATCH", "/api/tasks/none/move".into(), Some(json!({"column": "queued"}))), "404 SANDBOX_TASK_NOT_FOUND"),
        (("PATCH", "/api/tasks/none/move".into(), Some(json!({"column": "done"}))), "400 VALIDATION_ERROR"),
        (("PATCH", "/api/tasks/none/move".into(), Some(json!({}))), "400 MISSING_PARAMS"),
        (("POST", "/api/tasks/none/approve-plan".into(), None), "404 SANDBOX_TASK_NOT_FOUND"),
        (("POST", "/api/tasks/none/reject-plan".into(), None), "404 SANDBOX_TASK_NOT_FOUND"),
        (("POST", "/api/tasks/none/stop-agent".into(), None), "404 SANDBOX_TASK_NOT_FOUND"),
    ] {
        assert_eq!(world.bad(method, &path, body.clone()).await, wanted, "{method} {path} {body:?}");
    }
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_provider_there_is_nothing_to_restart_and_that_is_said() {
    let world = World::new().await;
    let project = world.project("p").await;
    let nowhere = json!({"settings": {"sandbox.kubernetes": {"kubeConfigPath": "/etc/kubernetes/none.conf"}}});
    world.good("PUT", "/api/settings", Some(nowhere)).await;
    world.application.selection.settled().await;
    let restart = format!("/api/sandbox/status/{project}/restart");
    assert_eq!(world.bad("POST", &restart, None).await, "503 DOCKER_UNAVAILABLE");
    let status = world.good("GET", &format!("/api/sandbox/status/{project}"), None).await;
    assert_eq!((&status["containerStatus"], &status["dockerAvailable"]), (&json!("unavailable"), &json!(false)));
    world.end().await;
}

impl World {
    async fn task(&self, project: &str, title: &str) -> String {
        let made = self.good("POST", "/api/tasks", Some(json!({"projectId": project, "title": title}))).await;
        made["id"].as_str().unwrap().to_owned()
    }

    async fn column(&self, project: &str, column: &str) -> Vec<String> {
        let list = self.good("GET", &format!("/api/tasks?projectId={project}&column={column}"), None).await;
        let items = list["items"].as_array().unwrap();
        let positions: Vec<_> = items.iter().map(|item| item["position"].as_u64().unwrap()).collect();
        assert_eq!(positions, (0..items.len() as u64).collect::<Vec<_>>(), "without holes: {list}");
        items.iter().map(|item| item["title"].as_str().unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn tasks_move_between_columns_and_keep_their_order() {
    let world = World::new().await;
    let project = world.project("p").await;
    let (a, b, c) = (world.task(&project, "a").await, world.task(&project, "b").await, world.task(&project, "c").await);
    world.task(&world.project("q").await, "another").await;
    assert_eq!(world.column(&project, "backlog").await, ["a", "b", "c"]);
    let moved = async |id: &str, body: Value| world.good("PATCH", &format!("/api/tasks/{id}/move"), Some(body)).await;
    moved(&a, json!({"column": "queued"})).await;
    let answer = moved(&c, json!({"column": "queued", "position": 0})).await;
    assert_eq!((&answer["task"]["column"], &answer["task"]["position"]), (&json!("queued"), &json!(0)));
    assert_eq!(world.column(&project, "queued").await, ["c", "a"]);
    assert_eq!(world.column(&project, "backlog").await, ["b"]);
    moved(&c, json!({"column": "queued", "position": 99})).await;
    assert_eq!(world.column(&project, "queued").await, ["a", "c"]);
    moved(&a, json!({"column": "queued"})).await;
    assert_eq!(world.column(&project, "queued").await, ["a", "c"], "to where it is changes nothing");
    moved(&b, json!({"column": "verified"})).await;
    assert_eq!(world.column(&project, "verified").await, ["b"], "from any to any");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_start_does_not_undo_the_move() {
    let world = World::new().await;
    let project = world.project("p").await;
    let key = json!({"value": "sk-ant-a-secret-of-this-test"});
    world.good("PUT", "/api/api-keys/anthropic", Some(key)).await;
    let nowhere = json!({"settings": {"sandbox.kubernetes": {"kubeConfigPath": "/etc/kubernetes/none.conf"}}});
    world.good("PUT", "/api/settings", Some(nowhere)).await;
    world.application.selection.settled().await;
    let start = async |title: &str, body: Value| {
        let task = world.task(&project, title).await;
        world.good("PATCH", &format!("/api/tasks/{task}/move"), Some(body)).await
    };
    let answer = start("a", json!({"column": "in_progress"})).await;
    assert_eq!(answer["agentError"]["code"], "SANDBOX_PROVIDER_NOT_AVAILABLE", "{answer}");
    assert_eq!(answer["task"]["column"], "in_progress");
    let answer = start("b", json!({"column": "in_progress", "startAgent": false})).await;
    assert!(answer.get("agentError").is_none(), "{answer}");
    let off = json!({"settings": {"sandbox.defaults": {"enabled": false}}});
    world.good("PUT", "/api/settings", Some(off)).await;
    let answer = start("c", json!({"column": "in_progress"})).await;
    assert!(answer.get("agentError").is_none(), "switched off: {answer}");
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_task_without_a_plan_or_an_agent_says_so() {
    let world = World::new().await;
    let project = world.project("p").await;
    let task = world.task(&project, "t").await;
    let path = |what: &str| format!("/api/tasks/{task}/{what}");
    assert_eq!(world.bad("POST", &path("approve-plan"), None).await, "404 SANDBOX_PLAN_NOT_FOUND");
    assert_eq!(
        world.bad("POST", &path("reject-plan"), Some(json!({"reason": "no"}))).await,
        "404 SANDBOX_PLAN_NOT_FOUND"
    );
    let long = Some(json!({"reason": "a".repeat(1001)}));
    assert_eq!(world.bad("POST", &path("reject-plan"), long).await, "400 VALIDATION_ERROR");
    assert_eq!(
        world.good("POST", &path("stop-agent"), None).await,
        json!({"stopped": true}),
        "it is as stopped as can be"
    );
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn there_are_so_many_projects_and_tasks_and_no_more() {
    let world = World::new().await;
    let number = |at: usize| format!("n{at}");
    world
        .store
        .write(|tx| {
            (0..1000).try_for_each(|at| tx.put(&Project::new(number(at), "p", "")))?;
            (0..10_000).try_for_each(|at| tx.put(&Task::new(number(at), "n0", "t")))
        })
        .unwrap();
    assert_eq!(
        world.bad("POST", "/api/projects", Some(json!({"name": "p"}))).await,
        "400 SANDBOX_RESOURCE_LIMIT_EXCEEDED"
    );
    let task = Some(json!({"projectId": "n0", "title": "t"}));
    assert_eq!(world.bad("POST", "/api/tasks", task).await, "400 SANDBOX_RESOURCE_LIMIT_EXCEEDED");
    world.end().await;
}

/// What a script of the scripted runner does: it says something, proposes a plan, and writes a file when that is approved.
const SCRIPT: &str = "@say thinking\n@write hello.txt hello from the agent\n@plan\nWrite a file that says hello.";

#[tokio::test]
async fn a_task_is_planned_approved_and_done_and_its_stream_tells_all_of_it() {
    let (log, _logged) = log_of_this_thread();
    let world = World::new().await;
    let project = world.project("p").await;
    world.folders.add(&project).init_repository();
    let key = "sk-ant-a-secret-of-this-story";
    world.good("PUT", "/api/api-keys/anthropic", Some(json!({"value": key}))).await;
    let task = json!({"projectId": project, "title": "Say hello", "description": SCRIPT, "priority": "high"});
    let task = world.good("POST", "/api/tasks", Some(task)).await;
    let path = format!("/api/tasks/{}", task["id"].as_str().unwrap());

    let moved = world.good("PATCH", &format!("{path}/move"), Some(json!({"column": "in_progress"}))).await;
    assert!(moved.get("agentError").is_none(), "{moved}");
    let session = moved["task"]["sessionId"].as_str().expect("a session to follow").to_owned();
    let again = world.good("PATCH", &format!("{path}/move"), Some(json!({"column": "in_progress"}))).await;
    assert!(again.get("agentError").is_none(), "to where it is, is no second start: {again}");

    let mut events = world.open(request("GET", &format!("/api/sessions/{session}/stream"), None)).await;
    events.hello().await;
    let mut kinds = Vec::new();
    let mut until = async |last: &str| {
        let reading = async {
            loop {
                let (offset, kind) = events.event().await;
                kinds.push(kind.clone());
                assert_eq!(offset, kinds.len() as u64, "one sequence without holes");
                if kind == last {
                    break;
                }
            }
        };
        tokio::time::timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("no {last}: {kinds:?}"));
    };
    until("container-agent:plan_ready").await;
    let waits = world.good("GET", &path, None).await;
    assert_eq!((&waits["column"], &waits["lastAgentStatus"]), (&json!("waiting_approval"), &json!("planning")));
    assert_eq!(world.good("POST", &format!("{path}/approve-plan"), None).await, json!({"approved": true}));
    until("container-agent:complete").await;
    assert!(kinds.contains(&"container-agent:file_changed".to_owned()), "{kinds:?}");

    let done = async {
        loop {
            let task = world.good("GET", &path, None).await;
            if task["lastAgentStatus"] == "completed" {
                break task;
            }
            tokio::task::yield_now().await;
        }
    };
    let done = tokio::time::timeout(PATIENCE, done).await.expect("the task is done");
    assert_eq!((&done["column"], &done["agentId"]), (&json!("waiting_approval"), &Value::Null));
    assert_eq!(world.bad("POST", &format!("{path}/approve-plan"), None).await, "404 SANDBOX_PLAN_NOT_FOUND");
    let summary = world.good("GET", &format!("/api/sessions/{session}/summary"), None).await;
    assert_eq!(summary["result"], "completed");
    assert!(summary["filesChanged"][0].as_str().unwrap().ends_with("/hello.txt"), "{summary}");
    let export = world.good("POST", &format!("/api/sessions/{session}/export"), None).await;

    // P2-13: a project without a sandbox gets one with its first agent.
    let other = world.project("q").await;
    let task = json!({"projectId": other, "title": "Think", "description": "@plan\nThink."});
    let task = world.good("POST", "/api/tasks", Some(task)).await;
    let path = format!("/api/tasks/{}/move", task["id"].as_str().unwrap());
    let moved = world.good("PATCH", &path, Some(json!({"column": "in_progress"}))).await;
    assert!(moved.get("agentError").is_none(), "{moved}");
    let status = world.good("GET", &format!("/api/sandbox/status/{other}"), None).await;
    assert_eq!(status["containerStatus"], "running");
    world.end().await;

    let log = log.text();
    assert!(log.contains("/api/tasks/{id}/approve-plan"), "the log is there: {log}");
    for secret in [key, TOKEN] {
        assert!(!export.to_string().contains(secret), "no event tells a secret");
        assert!(!log.contains(secret), "no line of the log tells a secret");
    }
}

/// What is logged on this thread, however little it matters, until the guard goes.
fn log_of_this_thread() -> (Log, DefaultGuard) {
    // Where there is one logger in all, a place that is first reached on a thread without it is never asked about again.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::new()));
    LazyLock::force(&ANOTHER);
    let log = Log::default();
    let lines = log.clone();
    let logger = tracing_subscriber::fmt().with_max_level(Level::TRACE).with_writer(move || lines.clone()).finish();
    (log, tracing::subscriber::set_default(logger))
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
