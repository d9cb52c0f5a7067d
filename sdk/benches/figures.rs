//! What the SDK costs, each measured once: `cargo bench -p agent-sandbox-sdk --bench figures -- [FIGURE] [NUMBER]`.
//!
//! `create`: so many sandboxes from the call to Ready, one after the other, by the SDK and by bare kube-rs calls. `wait`:
//! how long after a condition is written a wait for it comes back. `exec`: so many MiB of a command's output. `informer`:
//! what a view of so many sandboxes takes of memory, in a process that holds nothing else.

use std::{
    env, fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use agent_sandbox_sdk::{
    AgentSandboxClient, ExecOptions, Output, conditions, informer::Change, kubeconfig::ConnectOptions, v1beta1::Sandbox,
};
use fake_apiserver::Cluster;
use futures::{StreamExt, stream};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    runtime::{wait::await_condition, watcher::Config},
};
use serde_json::json;

const LATER: Duration = Duration::from_secs(120);

fn main() {
    let mut words = env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (what, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if what.as_deref() == Some("view") {
        return runtime.block_on(view(words.next().expect("a kubeconfig").into()));
    }
    let wanted = |name: &str| what.as_deref().is_none_or(|what| what == name);
    if wanted("create") {
        runtime.block_on(create(number.unwrap_or(200)));
    }
    if wanted("wait") {
        runtime.block_on(wait(number.unwrap_or(500)));
    }
    if wanted("exec") {
        runtime.block_on(exec(number.unwrap_or(256)));
    }
    if wanted("informer") {
        runtime.block_on(informer(number.unwrap_or(10_000)));
    }
}

/// A sandbox as somebody would have it.
fn sandbox(name: &str) -> Sandbox {
    let builder = Sandbox::builder(name, "python:3.13").command(["sleep", "infinity"]).env("MODE", "test");
    let builder = builder.resource("cpu", "100m", "1").resource("memory", "256Mi", "1Gi");
    builder.volume("work", "/workspace", "10Gi").label("team", "red").build().expect("the server takes it")
}

/// The middle one, and one of a hundred.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    format!("{:.2?} (99 of 100 within {:.2?})", at(50), at(99))
}

async fn create(number: usize) {
    let cluster = Cluster::builder().system_time().start().await.expect("a cluster starts");
    let client = AgentSandboxClient::new(cluster.client());
    let bare = Api::<Sandbox>::default_namespaced(cluster.client());
    let (mut by_sdk, mut by_hand) = (Vec::new(), Vec::new());
    for at in 0..number {
        // In turns, so that both meet the same cluster.
        let (name, begun) = (format!("s{at}"), Instant::now());
        client.create(&sandbox(&name)).await.expect("it is made");
        client.wait_ready(&name, LATER).await.expect("it is Ready");
        by_sdk.push(begun.elapsed());
        client.delete(&name).await.expect("it is deleted");

        let (name, begun) = (format!("b{at}"), Instant::now());
        bare.create(&PostParams::default(), &sandbox(&name)).await.expect("it is made");
        await_condition(bare.clone(), &name, conditions::is_ready()).await.expect("it is Ready");
        by_hand.push(begun.elapsed());
        bare.delete(&name, &DeleteParams::default()).await.expect("it is deleted");
    }
    println!("create to Ready, {number} times: the SDK {}, kube-rs alone {}", spread(by_sdk), spread(by_hand));
    cluster.shutdown().await;
}

async fn wait(number: usize) {
    let cluster = Cluster::builder().system_time().kubelet(false).sandbox_controllers(true).start().await;
    let cluster = cluster.expect("a cluster starts");
    let client = AgentSandboxClient::new(cluster.client());
    let api = Api::<Sandbox>::default_namespaced(cluster.client());
    client.create(&sandbox("a")).await.expect("it is made");
    let mut times = Vec::new();
    for at in 0..number {
        let seen = move |sandbox: &Sandbox| {
            sandbox.metadata.labels.as_ref().is_some_and(|l| l.get("at") == Some(&at.to_string()))
        };
        let first = json!({"metadata": {"labels": {"at": "none"}}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(first)).await.expect("it is changed");
        let sandboxes = client.sandboxes();
        let waiting = tokio::spawn(async move {
            sandboxes.wait_until("a", "seen", seen, LATER).await.expect("it comes");
            Instant::now()
        });
        tokio::time::sleep(Duration::from_millis(5)).await; // the watch begins
        let patch = Patch::Merge(json!({"metadata": {"labels": {"at": at.to_string()}}}));
        let begun = Instant::now();
        api.patch("a", &PatchParams::default(), &patch).await.expect("it is changed");
        // The write's own answer is under way beside the event: what counts is from its sending.
        times.push(waiting.await.expect("the wait ends well").saturating_duration_since(begun));
    }
    println!("a wait comes back after the change is sent, {number} times: {}", spread(times));
    cluster.shutdown().await;
}

async fn exec(mib: usize) {
    let cluster = match Cluster::builder().system_time().real_processes(true).start().await {
        Ok(cluster) => cluster,
        Err(missing) => return println!("exec: skipped: {missing}"),
    };
    let files = fs_folder("exec");
    let kubeconfig = serve(&cluster, &files).await;
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), ..Default::default() };
    let client = AgentSandboxClient::connect(&options).await.expect("a client");
    client
        .create(&Sandbox::builder("a", "busybox:1.36").command(["sleep", "infinity"]).build().expect("it is taken"))
        .await
        .expect("it is made");
    client.wait_ready("a", LATER).await.expect("it is Ready");
    let bytes = mib << 20;
    let begun = Instant::now();
    let command = ["head".to_owned(), "-c".into(), bytes.to_string(), "/dev/zero".into()];
    let mut running = client.start("a", command, ExecOptions::default()).await.expect("it starts");
    let mut count = 0;
    while let Some(Output::Stdout(piece)) = running.next().await.expect("its output") {
        count += piece.len();
    }
    let took = begun.elapsed().as_secs_f64();
    assert_eq!(count, bytes, "nothing is lost");
    println!("streamed output of a command over TLS: {:.0} MB/s ({mib} MiB)", bytes as f64 / 1e6 / took);
    cluster.shutdown().await;
    let _ = fs::remove_dir_all(files);
}

async fn informer(number: usize) {
    let cluster = Cluster::builder().system_time().kubelet(false).start().await.expect("a cluster starts");
    let client = AgentSandboxClient::new(cluster.client());
    stream::iter(0..number)
        .for_each_concurrent(64, |at| {
            let client = client.clone();
            async move {
                client.create(&sandbox(&format!("s{at}"))).await.expect("it is made");
            }
        })
        .await;
    let said = |sandbox: &Sandbox| sandbox.status.as_ref().is_some_and(|status| !status.conditions.is_empty());
    client.sandboxes().wait_until(&format!("s{}", number - 1), "noticed", said, LATER).await.expect("it is noticed");
    let files = fs_folder("informer");
    let kubeconfig = serve(&cluster, &files).await;
    let own = env::current_exe().expect("this program");
    let viewing = tokio::task::spawn_blocking(move || {
        Command::new(own).arg("view").arg("0").arg(kubeconfig).status().expect("it runs")
    });
    assert!(viewing.await.expect("it ends").success());
    cluster.shutdown().await;
    let _ = fs::remove_dir_all(files);
}

/// The other process of [`informer`].
async fn view(kubeconfig: PathBuf) {
    let options = ConnectOptions { kubeconfig: Some(kubeconfig), ..Default::default() };
    let client = AgentSandboxClient::connect(&options).await.expect("a client");
    client.sandboxes().version().await.expect("connected");
    let before = resident();
    let mut informer = client.sandboxes().informer(Config::default());
    let view = informer.view();
    let begun = Instant::now();
    while !matches!(informer.next().await, Some(Change::Synced)) {}
    let (took, number) = (begun.elapsed(), view.list().len());
    let taken = resident().saturating_sub(before);
    println!(
        "a view of {number} sandboxes: synced in {took:.2?}, {} MiB of memory, {:.1} KiB each",
        taken >> 20,
        taken as f64 / 1024.0 / number.max(1) as f64
    );
}

async fn serve(cluster: &Cluster, folder: &std::path::Path) -> PathBuf {
    let access = cluster.serve_https(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let path = folder.join("config");
    fs::write(&path, access.render()).expect("a file");
    path
}

fn fs_folder(name: &str) -> PathBuf {
    let folder = env::temp_dir().join(format!("agent-sandbox-sdk-{name}-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}
