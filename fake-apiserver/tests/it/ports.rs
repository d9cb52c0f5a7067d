//! What listens in pods, as clients reach it: forwarded ports, and the proxies of pods and services.

use std::time::Duration;

use fake_apiserver::cluster::Cluster;
use http::{Method, Request};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::{
    Api, Client,
    api::PostParams,
    runtime::wait::{await_condition, conditions::is_pod_running},
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SOON: Duration = Duration::from_secs(60);

/// Answers with the first line of the request; redirects; becomes another protocol; says nothing.
fn script() -> String {
    let answer =
        |head: &str, then: &str| json!(["sh", "-c", format!("read line; printf '{head}\\r\\n\\r\\n'; {then}")]);
    json!({ "ports": {
        "80": answer("HTTP/1.1 200 OK\\r\\nAccess-Control-Allow-Origin: *\\r\\nCache-Control: max-age=5", "echo \"$line\""),
        "81": answer("HTTP/1.1 302 Found\\r\\nContent-Length: 0\\r\\nLocation: /login", "true"),
        "82": answer("HTTP/1.1 101 Switching Protocols\\r\\nConnection: Upgrade\\r\\nUpgrade: shout", "cat"),
        "83": ["true"],
    } })
    .to_string()
}

async fn ready() -> (Cluster, Client) {
    let cluster = Cluster::builder().sandbox_controllers(false).start().await.unwrap();
    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = json!({
        "metadata": {
            "name": "p", "labels": { "app": "web" }, "annotations": { "fake-apiserver.dev/script": script() },
        },
        "spec": { "containers": [{ "name": "main", "image": "x", "ports": [{ "containerPort": 80 }] }] },
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    await_condition(pods, "p", is_pod_running()).await.unwrap();
    (cluster, client)
}

async fn get(client: &Client, path: &str) -> String {
    let request = Request::get(path).body(Vec::new()).unwrap();
    client.request_text(request).await.unwrap()
}

async fn refusal(client: &Client, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Vec::new()).unwrap();
    match client.request_text(request).await.unwrap_err() {
        kube::Error::Api(status) => (status.code, status.message),
        other => panic!("{other}"),
    }
}

const PODS: &str = "/api/v1/namespaces/default/pods";
const SERVICES: &str = "/api/v1/namespaces/default/services";

#[tokio::test(start_paused = true)]
async fn a_request_is_passed_on_to_a_pod_and_its_answer_back() {
    let (cluster, client) = ready().await;
    assert_eq!(get(&client, &format!("{PODS}/p/proxy/a/b?c=d%20e")).await, "GET /a/b?c=d%20e HTTP/1.1\r\n");
    assert_eq!(get(&client, &format!("{PODS}/p:80/proxy/")).await, "GET / HTTP/1.1\r\n");
    assert_eq!(get(&client, &format!("{PODS}/http:p:80/proxy/a//../b/")).await, "GET /b/ HTTP/1.1\r\n");
    let request = Request::builder().method(Method::OPTIONS).uri(format!("{PODS}/p/proxy/x")).body(Vec::new()).unwrap();
    assert_eq!(client.request_text(request).await.unwrap(), "OPTIONS /x HTTP/1.1\r\n");

    let body = kube::client::Body::from(Vec::new());
    let answer = client.send(Request::get(format!("{PODS}/p/proxy/x")).body(body).unwrap()).await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    let caching: Vec<_> = answer.headers().get_all("cache-control").into_iter().collect();
    assert_eq!(caching, ["no-cache, private", "max-age=5"]);
    for (path, location) in [("p:81/proxy/x", "/p:81/proxy/login"), ("p/proxy", "/p/proxy/")] {
        let body = kube::client::Body::from(Vec::new());
        let answer = client.send(Request::get(format!("{PODS}/{path}")).body(body).unwrap()).await.unwrap();
        assert!(answer.status().is_redirection(), "{}", answer.status());
        assert_eq!(answer.headers()["location"].to_str().unwrap(), format!("{PODS}{location}"));
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_reached_is_told_in_upstreams_words() {
    let (cluster, client) = ready().await;
    let ip = Api::<Pod>::default_namespaced(client.clone()).get("p").await.unwrap().status.unwrap().pod_ip.unwrap();
    let refused =
        |port: &str| format!("error trying to reach service: dial tcp {ip}:{port}: connect: connection refused");
    assert_eq!(refusal(&client, &format!("{PODS}/p:99/proxy/")).await, (503, refused("99")));
    let unknown = "error trying to reach service: dial tcp: lookup tcp/web: unknown port".to_owned();
    assert_eq!(refusal(&client, &format!("{PODS}/p:web/proxy/")).await, (503, unknown));
    let silent = (503, "error trying to reach service: EOF".to_owned());
    assert_eq!(refusal(&client, &format!("{PODS}/p:83/proxy/")).await, silent);
    let invalid = (400, "invalid pod request \"ftp:p:80\"".to_owned());
    assert_eq!(refusal(&client, &format!("{PODS}/ftp:p:80/proxy/")).await, invalid);
    assert_eq!(refusal(&client, &format!("{PODS}/nobody/proxy/")).await, (404, "pods \"nobody\" not found".to_owned()));
    assert_eq!(refusal(&client, &format!("{PODS}/https:p:80/proxy/")).await.0, 501);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_leads_to_one_of_its_pods() {
    let (cluster, client) = ready().await;
    let services: Api<Service> = Api::default_namespaced(client.clone());
    for (name, app) in [("web", "web"), ("empty", "nobody")] {
        let ports = json!([
            { "name": "http", "port": 8080, "targetPort": 80 }, { "name": "silent", "port": 8099, "targetPort": 99 },
        ]);
        let service: Value =
            json!({ "metadata": { "name": name }, "spec": { "selector": { "app": app }, "ports": ports } });
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    }
    let endpoints: Api<Endpoints> = Api::default_namespaced(client.clone());
    let served = |endpoints: Option<&Endpoints>| endpoints.is_some_and(|endpoints| endpoints.subsets.is_some());
    cluster.clock().timeout(SOON, await_condition(endpoints.clone(), "web", served)).await.unwrap().unwrap();
    let there = |endpoints: Option<&Endpoints>| endpoints.is_some();
    cluster.clock().timeout(SOON, await_condition(endpoints, "empty", there)).await.unwrap().unwrap();

    assert_eq!(get(&client, &format!("{SERVICES}/web:8080/proxy/x")).await, "GET /x HTTP/1.1\r\n");
    assert_eq!(get(&client, &format!("{SERVICES}/http:web:http/proxy/x")).await, "GET /x HTTP/1.1\r\n");
    for (path, message) in [
        ("web:1", "no service port 1 found for service \"web\""),
        ("web:other", "no endpoints available for service \"web:other\""),
        ("web", "no endpoints available for service \"web\""),
        ("empty:http", "no endpoints available for service \"empty\""),
    ] {
        assert_eq!(refusal(&client, &format!("{SERVICES}/{path}/proxy/")).await, (503, message.to_owned()));
    }
    let (code, message) = refusal(&client, &format!("{SERVICES}/web:silent/proxy/")).await;
    assert!(code == 503 && message.ends_with(":99: connect: connection refused"), "{code} {message}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_to_a_pod_may_become_another_one() {
    let (cluster, _) = ready().await;
    let mut pipe = cluster.connect();
    let request =
        format!("GET {PODS}/p:82/proxy/ HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: shout\r\n\r\n");
    pipe.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    let mut read_until = async |pipe: &mut tokio::io::DuplexStream, end: &str| {
        while !text.ends_with(end.as_bytes()) {
            text.push(pipe.read_u8().await.unwrap());
        }
        String::from_utf8(std::mem::take(&mut text)).unwrap()
    };
    let head = read_until(&mut pipe, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101 ") && head.contains("upgrade: shout\r\n"), "{head}");
    let _ = read_until(&mut pipe, "\r\n\r\n").await; // the rest of the request, which comes back too
    pipe.write_all(b"hello\n").await.unwrap();
    assert_eq!(read_until(&mut pipe, "hello\n").await, "hello\n");
    drop(pipe);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn kube_rs_forwards_a_port() {
    let (cluster, client) = ready().await;
    let pods: Api<Pod> = Api::default_namespaced(client);
    let mut forwarder = pods.portforward("p", &[80]).await.unwrap();
    let mut stream = forwarder.take_stream(80).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("GET / HTTP/1.1\r\n"), "{answer}");
    drop(stream);
    let mut forwarder = pods.portforward("p", &[99]).await.unwrap();
    let error = forwarder.take_error(99).unwrap().await.unwrap();
    assert!(error.contains("dial tcp4 127.0.0.1:99: connect: connection refused"), "{error}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_websocket_needs_the_right_to_create() {
    let (cluster, client) = ready().await;
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "reader" },
        "rules": [{ "apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "reader" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader" },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "eve" }],
    });
    for (plural, object) in [("roles", role), ("rolebindings", binding)] {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/default/{plural}");
        let request =
            Request::post(path).header("content-type", "application/json").body(object.to_string().into_bytes());
        client.request_text(request.unwrap()).await.unwrap();
    }
    let eve = cluster.client_as("eve", &[]);
    let message = "pods \"p\" is forbidden: ".to_owned();
    assert_eq!(refusal(&eve, &format!("{PODS}/p/exec?command=ls&stdout=true")).await, (403, message));
    cluster.shutdown().await;
}
