//! A view that keeps itself up to date, also through interruptions.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use agent_sandbox_sdk::{
    AgentSandboxClient, Error, crds,
    informer::Change,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec},
};
use anyhow::{Context, Result};
use fake_apiserver::cluster::Cluster;
use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{Api, Client, ResourceExt, api::PostParams, client::Body, runtime::watcher::Config};
use serde_json::json;

const SOON: Duration = Duration::from_secs(600);

fn sandbox(name: &str) -> Sandbox {
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    let pod = PodSpec { containers: vec![main], ..Default::default() };
    Sandbox::new(name, SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() })
}

fn told(change: &Change<Sandbox>) -> String {
    match change {
        Change::Added(new) => format!("added {}", new.name_any()),
        Change::Changed { new, .. } => format!("changed {} {}", new.name_any(), new.operating_mode()),
        Change::Deleted(old) => format!("deleted {}", old.name_any()),
        Change::Synced => "synced".into(),
        Change::Interrupted(_) => "interrupted".into(),
        other => format!("{other:?}"),
    }
}

/// P2-21: the predecessor's watch ended with its connection and did not know of 410. Here every second watch is answered
/// with 410, and what happens meanwhile is told all the same: once.
#[tokio::test(start_paused = true)]
async fn a_lost_watch_loses_no_change_and_repeats_none() -> Result<()> {
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    Api::<CustomResourceDefinition>::all(cluster.client()).create(&PostParams::default(), &crds::sandbox()).await?;
    let (direct, watches) = (cluster.client(), Arc::new(AtomicUsize::new(0)));
    let (behind, counted) = (direct.clone(), watches.clone());
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let client = behind.clone();
        let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let expired = watch && counted.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        async move {
            if expired {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired",
                    "message": "too old resource version", "code": 410});
                let event = json!({"type": "ERROR", "object": status}).to_string() + "\n";
                return Ok(http::Response::new(Body::from(event.into_bytes())));
            }
            client.send(request).await
        }
    });
    let sandboxes = AgentSandboxClient::new(cluster.client());
    let through = AgentSandboxClient::new(Client::new(service, "default")).sandboxes();
    for name in ["a", "b", "c"] {
        sandboxes.create(&sandbox(name)).await?;
    }
    // The server ends each watch after five seconds; the next is told that it comes too late.
    let mut informer = through.informer(Config::default().timeout(5));
    let view = informer.view();
    assert!(!view.is_synced());
    let mut seen = Vec::new();
    let mut step = 0;
    while step < 3 {
        let change = tokio::time::timeout(SOON, informer.next()).await?.context("it does not end")?;
        if let Change::Synced = change {
            step += 1;
            if step == 1 {
                // Not seen by the first watch: it ends unread.
                tokio::time::sleep(Duration::from_secs(6)).await;
                sandboxes.delete("b").await?;
                sandboxes.suspend("c").await?;
                sandboxes.create(&sandbox("d")).await?;
            }
        }
        seen.push(told(&change));
    }
    seen.retain(|told| told != "interrupted" && told != "synced");
    seen[3..].sort();
    assert_eq!(seen, ["added a", "added b", "added c", "added d", "changed c Suspended", "deleted b"]);
    let names: Vec<_> = view.list().iter().map(|sandbox| sandbox.name_any()).collect();
    assert!(names == ["a", "c", "d"] && view.is_synced() && view.get("b").is_none());
    assert!(watches.load(Ordering::Relaxed) >= 3);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn handlers_hear_of_ready_and_of_deleted_once_each() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (ready, deleted) = (heard.clone(), heard.clone());
    let informer = client
        .sandboxes()
        .informer(Config::default())
        .on_ready(move |sandbox| ready.lock().unwrap().push(format!("{} is ready", sandbox.name_any())))
        .on_deleted(move |sandbox| deleted.lock().unwrap().push(format!("{} is gone", sandbox.name_any())));
    let running = tokio::spawn(informer.run());
    client.create(&sandbox("a")).await?;
    client.wait_ready("a", SOON).await?;
    client.suspend("a").await?;
    client.wait_suspended("a", SOON).await?;
    client.resume("a").await?;
    client.wait_ready("a", SOON).await?;
    client.delete("a").await?;
    client.wait_gone("a", SOON).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.abort();
    assert_eq!(*heard.lock().unwrap(), ["a is ready", "a is ready", "a is gone"]);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_informer_of_what_is_not_served_says_so_and_ends() -> Result<()> {
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    let mut informer = AgentSandboxClient::new(cluster.client()).claims().informer(Config::default());
    let first = informer.next().await;
    assert!(matches!(first, Some(Change::Interrupted(Error::NotServed { .. }))), "{first:?}");
    assert!(informer.next().await.is_none());
    cluster.shutdown().await;
    Ok(())
}
