//! Agents in pods of a simulated cluster whose programs are real.

use std::{sync::Arc, time::Duration};

use agent_sandbox_provider::{
    AgentSandboxProvider, ExecOptions, KubernetesOptions, Sandbox, SandboxConfig, SandboxProvider,
    agent::{AgentConfig, AgentService, StartAgent},
    records::{ApiKey, Column, LastAgentStatus, Project, StreamEvent, Task},
    store::Store,
};
use fake_apiserver::cluster::Cluster;
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DeleteParams};

use crate::agents::KEY;

async fn event(service: &AgentService, session: &str, from: u64, kind: &str) -> StreamEvent {
    let mut events = Box::pin(service.streams().subscribe(session, from));
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let (_, event) = events.next().await.expect("it goes on").expect("an event");
            if event.kind.strip_prefix("container-agent:") == Some(kind) {
                return event;
            }
        }
    });
    match found.await {
        Ok(event) => event,
        Err(_) => panic!("no {kind} in {:#?}", service.streams().read(session, 0, 1000)),
    }
}

async fn sh(sandbox: &dyn Sandbox, script: &str, stdin: Option<Vec<u8>>) -> String {
    let mut options = ExecOptions::new("sh", ["-c", script]);
    options.stdin = stdin;
    let output = sandbox.exec(options).await.expect("run");
    assert_eq!(output.exit_code, 0, "{script}: {}", output.stderr);
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_works_in_a_pod_and_outlives_the_application_and_its_pod_is_replaced() {
    if std::process::Command::new("bwrap").arg("--version").output().is_err() {
        eprintln!("skipped: real processes need bubblewrap, which is not on this machine");
        return;
    }
    let cluster = Cluster::builder().system_time().real_processes(true).start().await.expect("a cluster");
    let provider = || {
        let provider = AgentSandboxProvider::new(cluster.client(), KubernetesOptions::default()).expect("good options");
        Arc::new(provider)
    };
    let first = provider();
    let config = SandboxConfig { image: "busybox:1.36".into(), ..SandboxConfig::new("p", "/nowhere") };
    let sandbox = first.create(&config).await.expect("a sandbox");
    // What an image would hold.
    let runner = std::fs::read(env!("CARGO_BIN_EXE_agent-runner")).expect("the runner");
    sh(&*sandbox, "mkdir .tools && cat > .tools/runner && chmod +x .tools/runner", Some(runner)).await;
    sh(&*sandbox, "git init -q -b main . && git -c user.name=t -c user.email=t@t commit -qm first --allow-empty", None)
        .await;

    let store = Store::in_memory().expect("a store");
    let mut task = Task::new("t", "p", "Say hello");
    task.description =
        "@turn\n@print $CLAUDE_OAUTH_TOKEN\n@sleep 0.5\n@plan\n@write hello.txt Hello\n@turn\n@sleep 100".into();
    let key = ApiKey { id: "anthropic".into(), value: KEY.into(), updated_at: Timestamp::now() };
    store
        .write(|tx| {
            tx.put(&Project::new("p", "Project", "/nowhere"))?;
            tx.put(&key)?;
            tx.put(&task)
        })
        .expect("stored");
    let config = AgentConfig {
        runner: vec!["/workspace/.tools/runner".into()],
        grace: Duration::from_secs(1),
        ..AgentConfig::default()
    };
    let service = AgentService::new(store.clone(), config.clone());
    service.set_provider(Some(first.clone()));
    let session = service.start_agent(StartAgent::plan("t")).await.expect("started").session_id;

    // The application is killed while the agent plans; another one goes on.
    drop(service);
    first.shutdown().await;
    drop(first);
    let second = provider();
    let sandbox = second.get("p").await.expect("asked").expect("the sandbox");
    let service = AgentService::new(store.clone(), config);
    service.set_provider(Some(second.clone()));
    service.recover().await.expect("recovered");
    event(&service, &session, 0, "plan_ready").await;
    service.approve_plan("t").await.expect("approved");
    let planned = service.streams().last_offset(&session).expect("read");

    // The pod goes while the agent works; what it wrote does not.
    event(&service, &session, planned, "file_changed").await;
    event(&service, &session, planned, "turn").await;
    let pods: Api<Pod> = Api::namespaced(cluster.client(), "agentpane-sandboxes");
    let pod = pods.list(&Default::default()).await.expect("pods").items.remove(0);
    let name = pod.metadata.name.expect("a name");
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.expect("deleted");
    let error = event(&service, &session, planned, "error").await;
    assert!(error.data["error"].as_str().expect("text").contains("was replaced"), "{error:?}");
    let task: Task = store.read(|tx| tx.get("t")).expect("read").expect("the task");
    assert_eq!((task.run_id, task.last_agent_status), (None, Some(LastAgentStatus::Error)));
    assert_eq!(sh(&*sandbox, "cat .worktrees/say-hello-t/hello.txt", None).await, "Hello");

    // In the new pod the next agent goes on in the same worktree.
    store
        .write(|tx| {
            let mut task: Task = tx.get("t")?.expect("the task");
            task.description = "@run cat hello.txt\n@plan\n@append hello.txt  again".into();
            tx.put(&task)
        })
        .expect("stored");
    let session = service.start_agent(StartAgent::plan("t")).await.expect("started").session_id;
    event(&service, &session, 0, "plan_ready").await;
    service.approve_plan("t").await.expect("approved");
    event(&service, &session, 0, "complete").await;
    let task: Task = store.read(|tx| tx.get("t")).expect("read").expect("the task");
    assert_eq!(task.column, Column::WaitingApproval);
    assert_eq!(sh(&*sandbox, "git show say-hello-t:hello.txt", None).await, "Hello again");
    assert_eq!(sh(&*sandbox, "ls -A .agent; git status --porcelain", None).await, ".gitignore\n?? .tools/");

    // The key is nowhere in the cluster, and no process of an agent is left.
    let left = sh(&*sandbox, "grep -l AGENT_RUN_ID /proc/[0-9]*/environ 2>/dev/null; true", None).await;
    assert_eq!(left, "");
    assert!(!cluster.dump().await.contains(KEY));
    let events = service.streams().read(&session, 0, 1000).expect("events");
    assert!(!format!("{events:?}").contains(KEY));
    service.shutdown().await;
    second.shutdown().await;
    cluster.shutdown().await;
}
