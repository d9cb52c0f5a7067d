//! Streams through a real upgrade, over a pipe in memory.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use rstest::rstest;
use serde_json::json;
use tokio::io::DuplexStream;
use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest, protocol::frame::coding::CloseCode};

use super::*;
use crate::{clock::Clock, ids::Ids, kubelet::Settings, registry::Caller};

async fn server(kubelet: bool) -> Streams {
    let registry = Registry::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Ids::seeded(1));
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let kubelet =
        kubelet.then(|| Kubelet::start(&registry.clone().into(), Settings::default(), stop.clone(), tasks.clone()));
    let streams = Streams { registry, kubelet, stop, tasks };
    for object in
        [Object::new("v1", "Namespace", "", "default"), Object::new("v1", "ServiceAccount", "default", "default")]
    {
        create(&streams, object).await;
    }
    streams
}

async fn create(streams: &Streams, object: Object) {
    let plural = format!("{}s", object.kind().to_lowercase());
    let target = streams.registry.target(&Gvr::new("", "v1", &plural), object.namespace(), "", "").unwrap();
    streams.registry.create(&target, &Caller::default(), object.into()).await.unwrap();
}

async fn pod(streams: &Streams, spec: Value) {
    let mut pod = Object::new("v1", "Pod", "default", "p");
    pod.set("spec", spec);
    create(streams, pod).await;
}

async fn running(streams: &Streams) {
    let target = streams.registry.target(&Gvr::new("", "v1", "pods"), "default", "p", "").unwrap();
    for _ in 0..100 {
        let pod = streams.registry.get(&target, "").await.unwrap();
        if pod.str_at(&["status", "phase"]) == "Running" {
            return;
        }
        streams.registry.clock().sleep(Duration::from_millis(100)).await;
    }
    panic!("the pod does not run");
}

fn one() -> Value {
    json!({ "containers": [{ "name": "main", "image": "nginx" }] })
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.replace('+', " "))).collect()
}

/// A connection to the server; its requests are for one subresource of the pod.
fn connect(streams: &Streams, subresource: &'static str) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let streams = streams.clone();
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let streams = streams.clone();
        async move {
            let target = streams.registry.target(&Gvr::new("", "v1", "pods"), "default", "p", subresource).unwrap();
            let query = pairs(request.uri().query().unwrap_or_default());
            let response = handle(&streams, request, &target, &query).await.unwrap_or_else(|status| {
                let mut response = Response::new(empty());
                *response.status_mut() = StatusCode::from_u16(status.code).unwrap();
                response.headers_mut().insert("x-message", HeaderValue::from_str(&status.message).unwrap());
                response
            });
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .auto_date_header(false)
            .serve_connection(TokioIo::new(theirs), service)
            .with_upgrades(),
    );
    ours
}

type Socket = WebSocketStream<DuplexStream>;

async fn open(streams: &Streams, subresource: &'static str, query: &str, protocol: &str) -> Result<Socket, String> {
    let mut request = format!("ws://server/?{query}").into_client_request().unwrap();
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(protocol).unwrap());
    match tokio_tungstenite::client_async(request, connect(streams, subresource)).await {
        Ok((socket, response)) => {
            assert_eq!(response.headers()[SEC_WEBSOCKET_PROTOCOL], protocol.split(", ").next().unwrap());
            Ok(socket)
        }
        Err(Error::Http(response)) => {
            let message = response.headers()["x-message"].to_str().unwrap();
            Err(format!("{} {message}", response.status().as_u16()))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Everything up to the close: standard output, standard error, the Status, and the code of the close.
async fn drain(socket: &mut Socket) -> (String, String, Value, CloseCode) {
    let (mut out, mut err, mut status) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        match socket.next().await.expect("a close frame comes first").unwrap() {
            Message::Binary(data) => match data[0] {
                1 => out.extend_from_slice(&data[1..]),
                2 => err.extend_from_slice(&data[1..]),
                3 => status = serde_json::from_slice(&data[1..]).unwrap(),
                other => panic!("channel {other}"),
            },
            Message::Close(frame) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(out), text(err), status, frame.unwrap().code);
            }
            _ => {}
        }
    }
}

#[rstest]
#[case("v5.channel.k8s.io")]
#[case("v4.channel.k8s.io")]
#[tokio::test(start_paused = true)]
async fn a_command_prints_on_its_channels_and_its_exit_code_comes_last(#[case] protocol: &str) {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=sh&command=-c&command=echo+out;ls+/none;exit+3&stdout=true&stderr=true";
    let mut socket = open(&streams, "exec", query, protocol).await.unwrap();
    let (out, err, status, code) = drain(&mut socket).await;
    assert_eq!((out.as_str(), err.as_str()), ("out\n", "ls: cannot access '/none': No such file or directory\n"));
    assert_eq!(status["details"]["causes"][0]["message"], "3");
    assert_eq!(status["status"], "Failure");
    assert_eq!(code, CloseCode::Normal);
}

#[tokio::test(start_paused = true)]
async fn input_reaches_the_command_and_its_end_too() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=cat&stdin=true&stdout=true&stderr=true";
    let mut socket = open(&streams, "exec", query, "v5.channel.k8s.io, v4.channel.k8s.io").await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\x00hello "))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\x00world"))).await.unwrap();
    socket.send(Message::Binary(Bytes::from_static(b"\xff\x00"))).await.unwrap();
    let (out, err, status, code) = drain(&mut socket).await;
    assert_eq!((out.as_str(), err.as_str(), code), ("hello world", "", CloseCode::Normal));
    assert_eq!(status, json!({ "metadata": {}, "status": "Success" }));
}

#[tokio::test(start_paused = true)]
async fn more_output_than_any_buffer_comes_whole() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=seq&command=200000&stdout=true";
    let mut socket = open(&streams, "exec", query, "v5.channel.k8s.io").await.unwrap();
    let (out, _, status, _) = drain(&mut socket).await;
    assert_eq!((out.lines().count(), out.lines().last()), (200_000, Some("200000")));
    assert_eq!(status["status"], "Success");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_takes_its_command_along() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let before = streams.tasks.len();
    let query = "command=sleep&command=1000000&stdin=true&stdout=true";
    let socket = open(&streams, "exec", query, "v5.channel.k8s.io").await.unwrap();
    streams.registry.clock().sleep(Duration::from_secs(1)).await;
    assert!(streams.tasks.len() > before);
    drop(socket);
    streams.registry.clock().sleep(Duration::from_secs(1)).await;
    assert_eq!(streams.tasks.len(), before, "the command and its session are gone");
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_run_is_told_on_the_error_channel() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    let target = streams.registry.target(&Gvr::new("", "v1", "pods"), "default", "p", "").unwrap();
    while streams.registry.get(&target, "").await.unwrap().str_at(&["spec", "nodeName"]).is_empty() {
        streams.registry.clock().sleep(Duration::from_millis(10)).await;
    }
    let mut socket = open(&streams, "exec", "command=ls&stdout=true", "v5.channel.k8s.io").await.unwrap();
    let (_, _, status, _) = drain(&mut socket).await;
    assert_eq!(
        status["message"],
        "Internal error occurred: unable to upgrade connection: container not found (\"main\")"
    );
}

#[rstest]
#[case::no_streams(
    "exec",
    "command=ls",
    "v5.channel.k8s.io",
    "400 you must specify at least 1 of stdin, stdout, stderr"
)]
#[case::old_protocol(
    "exec",
    "command=ls&stdout=true",
    "channel.k8s.io",
    "400 exec needs the subprotocol v5.channel.k8s.io or v4.channel.k8s.io; the client offers [channel.k8s.io]"
)]
#[case::no_container(
    "attach",
    "container=x&stdout=true",
    "v5.channel.k8s.io",
    "400 container x is not valid for pod p"
)]
#[case::port_forward(
    "portforward",
    "ports=80",
    "v4.channel.k8s.io",
    "501 fake-apiserver does not implement port-forward"
)]
#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_the_upgrade(
    #[case] subresource: &'static str,
    #[case] query: &str,
    #[case] protocol: &str,
    #[case] refusal: &str,
) {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    assert_eq!(open(&streams, subresource, query, protocol).await.map(drop), Err(refusal.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_a_node_has_no_streams_and_an_empty_log() {
    let streams = server(false).await;
    pod(&streams, json!({ "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "x" }] })).await;
    let refusal = open(&streams, "exec", "container=a&command=ls", "v5.channel.k8s.io").await.map(drop);
    assert_eq!(refusal, Err("400 pod p does not have a host assigned".to_owned()));
    let refusal = open(&streams, "log", "", "v5.channel.k8s.io").await.map(drop);
    assert_eq!(refusal, Err("400 a container name must be specified for pod p, choose one of: [a b]".to_owned()));
}

#[rstest]
#[case("SPDY/3.1", 501)]
#[case("h2c", 400)]
fn other_upgrades_are_refused(#[case] protocol: &'static str, #[case] code: u16) {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    assert_eq!(Upgrade::check(&headers, "exec").err().unwrap().code, code);
    headers.remove(CONNECTION);
    let status = Upgrade::check(&headers, "exec").err().unwrap();
    assert_eq!((status.code, status.message.as_str()), (400, "Upgrade request required"));
}
