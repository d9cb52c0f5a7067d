//! What the whole stack does in a process, each measured once:
//! `cargo bench -p fake-apiserver --bench figures -- [pods|claims|exec] [NUMBER]`.
//!
//! `pods`: so many pods from their creation until all are Ready, and what each takes of memory. `claims`: so many claims
//! against a pool of as many. `exec`: so many commands, one after the other and eight at a time.

use std::{collections::BTreeMap, fs, time::Duration};

use fake_apiserver::Cluster;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, AttachParams, DynamicObject, GroupVersionKind, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::Instant};

/// Requests under way at a time.
const CONCURRENT: usize = 64;

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let (what, number) = (words.next(), words.next().and_then(|number| number.parse().ok()));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let wanted = |name: &str| what.as_deref().is_none_or(|what| what == name);
    if wanted("pods") {
        runtime.block_on(pods(number.unwrap_or(10_000)));
    }
    if wanted("claims") {
        runtime.block_on(claims(number.unwrap_or(1000)));
    }
    if wanted("exec") {
        runtime.block_on(exec(number.unwrap_or(1000)));
    }
}

async fn cluster() -> Cluster {
    Cluster::builder().system_time().start().await.expect("a cluster starts")
}

fn pod(name: &str) -> Pod {
    let containers = json!([{"name": "main", "image": "busybox:1.36", "command": ["sleep", "1d"]}]);
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"containers": containers}})).expect("a pod")
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

fn is_ready(object: &Value) -> bool {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn dynamic(client: &Client, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::default_namespaced_with(client.clone(), &resource)
}

/// Watches a kind until so many of its objects are ready; when each was.
async fn until_ready(api: Api<DynamicObject>, number: usize) -> BTreeMap<String, Instant> {
    let mut ready = BTreeMap::new();
    let mut version = "0".to_owned();
    while ready.len() < number {
        let mut events = api.watch(&WatchParams::default(), &version).await.expect("a watch starts").boxed();
        while let Ok(Some(event)) = events.try_next().await {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    version = object.resource_version().unwrap_or_default();
                    if is_ready(&object.data) {
                        ready.entry(object.name_any()).or_insert_with(Instant::now);
                    }
                }
                WatchEvent::Error(_) => version = "0".into(),
                WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => {}
            }
            if ready.len() >= number {
                break;
            }
        }
    }
    ready
}

async fn pods(number: usize) {
    let cluster = cluster().await;
    let client = cluster.client();
    let before = resident();
    let begun = Instant::now();
    let ready = tokio::spawn(until_ready(dynamic(&client, "", "v1", "Pod"), number));
    let api: Api<Pod> = Api::default_namespaced(client);
    stream::iter(0..number)
        .for_each_concurrent(CONCURRENT, |at| {
            let api = api.clone();
            async move {
                api.create(&PostParams::default(), &pod(&format!("p{at}"))).await.expect("a pod is made");
            }
        })
        .await;
    let created = begun.elapsed();
    ready.await.expect("the watch ends well");
    let took = begun.elapsed();
    let each = resident().saturating_sub(before) / number.max(1) as u64;
    println!("{number} pods: created in {created:.2?}, all Ready in {took:.2?}; {} KiB of memory each", each / 1024);
    cluster.shutdown().await;
}

const GROUP: &str = "extensions.agents.x-k8s.io";

async fn make(client: &Client, kind: &str, name: &str, spec: Value) {
    let object = json!({
        "apiVersion": format!("{GROUP}/v1beta1"), "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let made = dynamic(client, GROUP, "v1beta1", kind).create(&PostParams::default(), &object).await;
    made.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
}

async fn claims(number: usize) {
    let cluster = cluster().await;
    let client = cluster.client();
    let containers = json!([{"name": "main", "image": "busybox:1.36", "command": ["sleep", "1d"]}]);
    make(&client, "SandboxTemplate", "tpl", json!({"podTemplate": {"spec": {"containers": containers}}})).await;
    let begun = Instant::now();
    let pool = json!({"replicas": number, "sandboxTemplateRef": {"name": "tpl"}});
    make(&client, "SandboxWarmPool", "pool", pool).await;
    until_ready(dynamic(&client, "agents.x-k8s.io", "v1beta1", "Sandbox"), number).await;
    println!("a pool of {number}: full in {:.2?}", begun.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await; // the pool comes to rest

    let begun = Instant::now();
    let ready = tokio::spawn(until_ready(dynamic(&client, GROUP, "v1beta1", "SandboxClaim"), number));
    let starts: BTreeMap<String, Instant> = stream::iter(0..number)
        .map(|at| {
            let client = client.clone();
            async move {
                let (name, start) = (format!("c{at}"), Instant::now());
                make(&client, "SandboxClaim", &name, json!({"warmPoolRef": {"name": "pool"}})).await;
                (name, start)
            }
        })
        .buffer_unordered(CONCURRENT)
        .collect()
        .await;
    let created = begun.elapsed();
    let ready = ready.await.expect("the watch ends well");
    let took = begun.elapsed();
    let mut waits: Vec<Duration> = ready.iter().map(|(name, time)| time.duration_since(starts[name])).collect();
    waits.sort_unstable();
    let at = |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)];
    println!(
        "{number} claims: created in {created:.2?}, all Ready in {took:.2?}: {:.0} claims/s, p50 {:.1?}, p99 {:.1?}",
        number as f64 / took.as_secs_f64(),
        at(50),
        at(99)
    );
    cluster.shutdown().await;
}

async fn exec(number: usize) {
    let cluster = cluster().await;
    let client = cluster.client();
    let api: Api<Pod> = Api::default_namespaced(client.clone());
    api.create(&PostParams::default(), &pod("p")).await.expect("a pod is made");
    until_ready(dynamic(&client, "", "v1", "Pod"), 1).await;
    let call = || async {
        let mut process = api.exec("p", ["echo", "hello"], &AttachParams::default()).await.expect("a command starts");
        let mut text = String::new();
        process.stdout().expect("its output").read_to_string(&mut text).await.expect("its output is read");
        process.join().await.expect("it ends");
        assert_eq!(text, "hello\n");
    };
    for together in [1, 8] {
        let begun = Instant::now();
        stream::iter(0..number).for_each_concurrent(together, |_| call()).await;
        let took = begun.elapsed();
        println!(
            "{number} execs, {together} at a time: {:.0} a second, {:.2} ms each",
            number as f64 / took.as_secs_f64(),
            took.as_secs_f64() * 1000.0 * together as f64 / number as f64
        );
    }
    cluster.shutdown().await;
}
