//! Figures of agents, with runners in folders of this machine: events per second from runner to subscriber, and memory with
//! many agents at work. `cargo bench -p agent-sandbox-provider --bench agents [-- AGENTS]`

#[path = "../tests/it/local.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod local;

use std::time::{Duration, Instant};

use agent_sandbox_provider::{
    agent::{AgentConfig, AgentService, StartAgent},
    records::{ApiKey, Phase, Project, Task},
    store::Store,
};
use futures::StreamExt;
use jiff::Timestamp;

/// How many events one agent prints for the first figure.
const EVENTS: usize = 50_000;

/// How many characters each has.
const BYTES: usize = 100;

#[tokio::main]
async fn main() {
    let agents = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(500);
    let folder = tempfile::tempdir().expect("a folder");
    for (name, store) in [
        ("in memory", Store::in_memory().expect("a store")),
        ("in a file", Store::open(folder.path().join("events.redb")).expect("a store")),
    ] {
        events(name, store).await;
    }
    memory(Store::open(folder.path().join("agents.redb")).expect("a store"), agents).await;
}

fn service(store: &Store) -> (AgentService, std::sync::Arc<local::LocalProvider>) {
    let config = AgentConfig { runner: vec![env!("CARGO_BIN_EXE_agent-runner").into()], ..AgentConfig::default() };
    let provider = local::LocalProvider::new();
    provider.add("p");
    let key = ApiKey { id: "anthropic".into(), value: "not-a-real-key".into(), updated_at: Timestamp::now() };
    store
        .write(|tx| {
            tx.put(&key)?;
            tx.put(&Project::new("p", "Project", "/nowhere"))
        })
        .expect("stored");
    let service = AgentService::new(store.clone(), config);
    service.set_provider(Some(provider.clone()));
    (service, provider)
}

async fn start(store: &Store, service: &AgentService, id: &str, script: &str) -> String {
    let mut task = Task::new(id, "p", "Task");
    task.description = script.into();
    store.write(|tx| tx.put(&task)).expect("stored");
    let start = StartAgent { phase: Phase::Execute, ..StartAgent::plan(id) };
    service.start_agent(start).await.expect("started").session_id
}

async fn events(name: &str, store: Store) {
    let (service, _provider) = service(&store);
    let session = start(&store, &service, "flood", &format!("@flood {EVENTS} {BYTES}")).await;
    let (begun, mut tokens) = (Instant::now(), 0);
    let mut events = Box::pin(service.streams().subscribe(&session, 0));
    while let Some(event) = events.next().await {
        let (_, event) = event.expect("an event");
        match event.kind.as_str() {
            "container-agent:token" => tokens += 1,
            "container-agent:complete" => break,
            _ => {}
        }
    }
    assert_eq!(tokens, EVENTS);
    let rate = EVENTS as f64 / begun.elapsed().as_secs_f64();
    println!("events of one agent to a subscriber, store {name}: {rate:.0} per second");
}

async fn memory(store: Store, agents: usize) {
    let (service, _provider) = service(&store);
    let before = resident_kib();
    let begun = Instant::now();
    let starts = (0..agents).map(|n| {
        let (store, service) = (&store, &service);
        async move { start(store, service, &format!("task-{n}"), "@turn\n@sleep 600").await }
    });
    let sessions: Vec<String> = futures::stream::iter(starts).buffer_unordered(8).collect().await;
    let starting = begun.elapsed();
    for session in &sessions {
        let mut events = Box::pin(service.streams().subscribe(session, 0));
        while let Some(event) = events.next().await {
            if event.expect("an event").1.kind == "container-agent:turn" {
                break;
            }
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let used = resident_kib().saturating_sub(before);
    println!(
        "{} agents at work: {} MiB more memory, {} KiB each; started in {starting:.1?}",
        service.running_agents().len(),
        used / 1024,
        used / agents as u64
    );
    service.shutdown().await;
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse().unwrap_or_default()
}
