//! One story through each door.

use std::time::Duration;

use fake_apiserver::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::json;

use crate::raw::{Door, TOKEN};

fn map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"a": value}})).unwrap()
}

/// What a client does with an object in its life, and what it sees meanwhile.
async fn life_of_a_map(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let list = maps.list(&ListParams::default()).await.unwrap();
    let version = list.metadata.resource_version.unwrap();
    let mut watch = maps.watch(&WatchParams::default().fields("metadata.name=one"), &version).await.unwrap().boxed();

    let made = maps.create(&PostParams::default(), &map("one", "1")).await.unwrap();
    let error = maps.create(&PostParams::default(), &map("one", "1")).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409 && status.is_already_exists()), "{error}");
    let patched = maps.patch("one", &PatchParams::default(), &Patch::Merge(json!({"data": {"a": "2"}}))).await.unwrap();
    assert_eq!(patched.data.unwrap()["a"], "2");
    let mut stale = made.clone();
    stale.data = Some([("a".to_owned(), "3".to_owned())].into());
    let error = maps.replace("one", &PostParams::default(), &stale).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 409 && status.is_conflict()), "{error}");
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("one").await.unwrap().is_none());

    let mut seen = Vec::new();
    while seen.len() < 3 {
        match watch.try_next().await.unwrap().expect("the watch goes on") {
            WatchEvent::Added(map) => seen.push(("added", map.data.unwrap()["a"].clone())),
            WatchEvent::Modified(map) => seen.push(("modified", map.data.unwrap()["a"].clone())),
            WatchEvent::Deleted(map) => seen.push(("deleted", map.data.unwrap()["a"].clone())),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(seen, [("added", "1".into()), ("modified", "2".into()), ("deleted", "2".into())]);
}

#[tokio::test(start_paused = true)]
async fn a_client_over_memory_lives_through_an_object() {
    let cluster = Cluster::builder().start().await.unwrap();
    life_of_a_map(cluster.client()).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_client_over_https_lives_through_the_same() {
    let door = Door::open().await;
    life_of_a_map(Door::client_of(&door.kubeconfig).await).await;
    door.cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_when_its_time_is_over() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let before = cluster.clock().now();
    let params = WatchParams::default().timeout(240).fields("metadata.name=absent");
    let events: Vec<_> = maps.watch(&params, "0").await.unwrap().try_collect().await.unwrap();
    assert!(events.iter().all(|event| matches!(event, WatchEvent::Bookmark(_))), "{events:?}");
    let passed = cluster.clock().now().as_second() - before.as_second();
    assert_eq!(passed, 240);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_a_watch() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let mut watch = maps.watch(&WatchParams::default().fields("metadata.name=absent"), "0").await.unwrap().boxed();
    let clock = cluster.clock().clone();
    let shutdown = tokio::spawn(cluster.shutdown());
    let end = clock.timeout(Duration::from_secs(10), async { while watch.next().await.is_some() {} }).await;
    assert!(end.is_some(), "the watch is still open");
    shutdown.await.unwrap();
}

#[tokio::test]
async fn whoever_is_unknown_sees_health_and_version_and_nothing_else() {
    let door = Door::open().await;
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        assert_eq!(door.anonymous("GET", path, "", b"").await.code, 200, "{path}");
    }
    let answer = door.anonymous("GET", "/api", "", b"").await;
    assert_eq!(answer.code, 403);
    assert_eq!(answer.message(), "forbidden: User \"system:anonymous\" cannot get path \"/api\"");
    let made = door.anonymous("POST", "/api/v1/namespaces", "", br#"{"metadata":{"name":"x"}}"#).await;
    assert_eq!(made.code, 403);
    let answer = door.anonymous("GET", "/api", "Authorization: Bearer wrong\r\n", b"").await;
    assert_eq!((answer.code, answer.message().as_str()), (401, "Unauthorized"));
}

#[tokio::test]
async fn one_port_speaks_http_2_as_well() {
    let door = Door::open().await;
    let tls = door.tls(&[b"h2"]).await;
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    let driver = tokio::spawn(connection);
    let request = |path: &str| {
        let uri = format!("https://localhost{path}");
        let request = hyper::Request::get(uri).header("authorization", format!("Bearer {TOKEN}"));
        request.body(Empty::<bytes::Bytes>::new()).unwrap()
    };
    let (one, two) =
        (sender.send_request(request("/api/v1/namespaces")), sender.clone().send_request(request("/apis")));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (200, 200));
    let list: serde_json::Value = serde_json::from_slice(&one.into_body().collect().await.unwrap().to_bytes()).unwrap();
    assert_eq!(list["kind"], "NamespaceList");
    drop(sender);
    door.cluster.shutdown().await;
    let _ = driver.await.unwrap(); // closed by either side
}

#[tokio::test]
async fn a_large_list_is_compressed_for_who_asks() {
    let door = Door::open().await;
    let data = "x".repeat(200_000);
    let body =
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"big"}},"data":{{"d":"{data}"}}}}"#);
    let path = "/api/v1/namespaces/default/configmaps";
    let json = "Content-Type: application/json\r\n";
    assert_eq!(door.request("POST", path, json, body.as_bytes()).await.code, 201);
    let plain = door.request("GET", path, "", b"").await;
    assert!(plain.body.len() > 200_000 && !plain.head.contains("gzip"));
    let packed = door.request("GET", path, "Accept-Encoding: gzip\r\n", b"").await;
    assert!(packed.head.to_lowercase().contains("content-encoding: gzip"), "{}", packed.head);
    assert!(packed.body.len() < 20_000);
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_cluster() {
    let run = || async {
        let cluster = Cluster::builder().seed(7).start().await.unwrap();
        life_of_a_map(cluster.client()).await;
        cluster.clock().sleep(Duration::from_secs(60)).await;
        let maps: Api<ConfigMap> = Api::all(cluster.client());
        let list = maps.list(&ListParams::default()).await.unwrap();
        let text = (cluster.dump().await, serde_json::to_string(&list).unwrap());
        cluster.shutdown().await;
        text
    };
    assert_eq!(run().await, run().await);
}
