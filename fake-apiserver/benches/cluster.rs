//! What a test pays for its cluster, through the in-memory door: `cargo bench -p fake-apiserver`.

use std::cell::Cell;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use fake_apiserver::cluster::{Cluster, ClusterBuilder};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{ListParams, PostParams, WatchEvent, WatchParams},
};
use tokio::runtime::Runtime;

/// Watchers of the fan-out.
const WATCHERS: u64 = 100;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn started(builder: ClusterBuilder) -> Cluster {
    let cluster = builder.start().await.expect("a cluster starts");
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    namespaces.get("default").await.expect("a cluster has a default namespace");
    cluster
}

/// A cluster without a node, and its ConfigMaps.
async fn with_maps() -> (Cluster, Api<ConfigMap>) {
    let cluster = started(Cluster::builder().kubelet(false)).await;
    let maps = Api::default_namespaced(cluster.client());
    (cluster, maps)
}

fn config_map(name: &str) -> ConfigMap {
    let value = "0123456789abcdef".repeat(4);
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "labels": {"app": "bench"}}, "data": {"key": value},
    }))
    .expect("a ConfigMap")
}

async fn create(maps: &Api<ConfigMap>, name: &str) {
    maps.create(&PostParams::default(), &config_map(name)).await.expect("a new name is free");
}

/// From nothing to the first answer.
fn start(c: &mut Criterion) {
    let start = |builder: fn() -> ClusterBuilder| {
        move || {
            let runtime = runtime();
            let cluster = runtime.block_on(started(builder()));
            (cluster, runtime)
        }
    };
    c.bench_function("start, to the first answer", |b| b.iter_with_large_drop(start(Cluster::builder)));
    let bare = || Cluster::builder().kubelet(false).sandbox_controllers(false);
    c.bench_function("start without node and sandboxes", |b| b.iter_with_large_drop(start(bare)));
}

fn requests(c: &mut Criterion) {
    let runtime = runtime();
    let (cluster, maps) = runtime.block_on(with_maps());
    let next = Cell::new(0);
    let name = || {
        next.set(next.get() + 1);
        format!("map-{}", next.get())
    };
    c.bench_function("create a ConfigMap", |b| b.iter(|| runtime.block_on(create(&maps, &name()))));
    c.bench_function("get a ConfigMap", |b| {
        b.iter(|| runtime.block_on(async { maps.get("map-1").await.expect("it is there") }));
    });
    runtime.block_on(async {
        while next.get() < 1000 {
            create(&maps, &name()).await;
        }
    });
    let page = ListParams::default().limit(1000);
    c.bench_function("list 1,000 ConfigMaps", |b| {
        b.iter(|| runtime.block_on(async { maps.list(&page).await.expect("a list") }).items.len());
    });
    runtime.block_on(cluster.shutdown());
}

/// One create, until every watcher has heard of it.
fn fan_out(c: &mut Criterion) {
    let runtime = runtime();
    let (cluster, maps) = runtime.block_on(with_maps());
    let mut watches = runtime.block_on(async {
        let mut watches = Vec::new();
        for _ in 0..WATCHERS {
            let params = WatchParams::default().labels("app=bench");
            watches.push(maps.watch(&params, "0").await.expect("a watch starts").boxed());
        }
        watches
    });
    let mut group = c.benchmark_group("watch");
    group.throughput(Throughput::Elements(WATCHERS));
    let mut number = 0;
    group.bench_function("an event to 100 watchers", |b| {
        b.iter(|| {
            number += 1;
            runtime.block_on(async {
                create(&maps, &format!("map-{number}")).await;
                for watch in &mut watches {
                    let event = watch.try_next().await.expect("no error");
                    assert!(matches!(event, Some(WatchEvent::Added(_))), "{event:?}");
                }
            });
        });
    });
    group.finish();
    drop(watches);
    runtime.block_on(cluster.shutdown());
}

criterion_group!(benches, start, requests, fan_out);
criterion_main!(benches);
