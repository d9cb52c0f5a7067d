//! Figures of sandboxes and agents: from the wish for a sandbox to its first answer, cold and from a pool, on a simulated
//! cluster in real time; events per second from a runner through the bridge to a client of server-sent events; and memory with
//! many agents at work, whose runners work in folders of this machine.
//! `cargo bench -p agent-sandbox-provider --bench agents [-- AGENTS]`

#[path = "../tests/it/local.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod local;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use agent_sandbox_provider::{
    AgentSandboxProvider, Application, Auth, CleanupFilter, Clock, Clusters, ExecOptions, KubernetesOptions,
    SandboxConfig, SandboxProvider, SandboxStatus, Setup, WarmPool,
    agent::{AgentConfig, AgentService, StartAgent},
    records::{ApiKey, Phase, Project, Task},
    selection::Target,
    store::Store,
};
use fake_apiserver::Cluster;
use futures::StreamExt;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// How many sandboxes are made of each kind.
const SANDBOXES: usize = 15;

/// How many events one agent prints.
const EVENTS: usize = 50_000;

/// How many characters each has.
const BYTES: usize = 100;

const TOKEN: &str = "the-token-of-these-figures-0123456789";
const IMAGE: &str = "busybox:1.36";

#[tokio::main]
async fn main() {
    let agents = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(500);
    sandboxes().await;
    let folder = tempfile::tempdir().expect("a folder");
    for (name, store) in [
        ("in memory", Store::in_memory().expect("a store")),
        ("in a file", Store::open(folder.path().join("events.redb")).expect("a store")),
    ] {
        events(name, store).await;
    }
    memory(Store::open(folder.path().join("agents.redb")).expect("a store"), agents).await;
}

/// From the call to the first answer of a command.
async fn sandboxes() {
    let cluster = Cluster::builder().system_time().start().await.expect("a cluster");
    let clock = cluster.clock().clone();
    let options = KubernetesOptions { clock: Clock::of(move || clock.now()), ..KubernetesOptions::default() };
    let config = |n: usize| SandboxConfig { image: IMAGE.into(), ..SandboxConfig::new(format!("p{n}"), "/nowhere") };
    for warm in [false, true] {
        let pool = WarmPool { size: 3, image: IMAGE.into(), memory_mb: 4096, cpu_cores: 2.0 };
        let options = KubernetesOptions { warm_pool: warm.then_some(pool), ..options.clone() };
        let provider = AgentSandboxProvider::new(cluster.client(), options).expect("good options");
        while !provider.health_check().await.healthy {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut took = Vec::new();
        for n in 0..SANDBOXES {
            // The pool has filled up again.
            tokio::time::sleep(Duration::from_secs(if warm { 3 } else { 0 })).await;
            let begun = Instant::now();
            let sandbox = provider.create(&config(n)).await.expect("a sandbox");
            sandbox.exec(ExecOptions::new("true", [""; 0])).await.expect("it answers");
            took.push(begun.elapsed());
            let running = CleanupFilter { status: vec![SandboxStatus::Running], ..CleanupFilter::default() };
            provider.cleanup(&running).await.expect("deleted");
        }
        took.sort();
        let (median, worst) = (took[SANDBOXES / 2], took[SANDBOXES - 1]);
        let kind = if warm { "from a pool" } else { "cold" };
        println!("a sandbox {kind}, from the wish to its first answer: median {median:.0?}, worst {worst:.0?}");
        provider.shutdown().await;
    }
    cluster.shutdown().await;
}

fn config() -> AgentConfig {
    AgentConfig { runner: vec![env!("CARGO_BIN_EXE_agent-runner").into()], ..AgentConfig::default() }
}

/// Sandboxes are folders.
fn prepared(store: &Store) -> Arc<local::LocalProvider> {
    let provider = local::LocalProvider::new();
    provider.add("p");
    let key = ApiKey { id: "anthropic".into(), value: "not-a-real-key".into(), updated_at: Timestamp::now() };
    store
        .write(|tx| {
            tx.put(&key)?;
            tx.put(&Project::new("p", "Project", "/nowhere"))
        })
        .expect("stored");
    provider
}

async fn start(store: &Store, service: &AgentService, id: &str, script: &str) -> String {
    let mut task = Task::new(id, "p", "Task");
    task.description = script.into();
    store.write(|tx| tx.put(&task)).expect("stored");
    let start = StartAgent { phase: Phase::Execute, ..StartAgent::plan(id) };
    service.start_agent(start).await.expect("started").session_id
}

/// From the runner's output to what a client reads from its socket.
async fn events(name: &str, store: Store) {
    let provider = prepared(&store);
    let setup = Setup {
        store: store.clone(),
        auth: Auth::with_token(&store, &SecretString::from(TOKEN)).expect("a token"),
        clusters: Clusters { base: Target::Embedded, embedded: None },
        connect: Box::new(move |_| {
            let provider: Arc<dyn SandboxProvider> = provider.clone();
            Box::pin(async { Ok(provider) })
        }),
        agents: config(),
        rate: 0,
    };
    let application = Application::start(setup).expect("an application");
    application.selection.ready().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let serving = tokio::spawn(axum::serve(listener, application.router.clone()).into_future());

    let session = start(&store, &application.agents, "flood", &format!("@flood {EVENTS} {BYTES}")).await;
    let (begun, mut tokens) = (Instant::now(), 0);
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "GET /api/sessions/{session}/stream HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut lines = BufReader::new(stream).lines();
    while let Some(line) = lines.next_line().await.expect("a line") {
        tokens += usize::from(line.contains("\"container-agent:token\""));
        if line.contains("\"container-agent:complete\"") {
            break;
        }
    }
    assert_eq!(tokens, EVENTS);
    let rate = EVENTS as f64 / begun.elapsed().as_secs_f64();
    println!("events of one agent to a client over SSE, store {name}: {rate:.0} per second");
    application.shutdown(Duration::from_secs(10)).await;
    serving.abort();
}

async fn memory(store: Store, agents: usize) {
    let service = AgentService::new(store.clone(), config());
    service.set_provider(Some(prepared(&store)));
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
