//! Streams through a real upgrade, over a pipe in memory.

mod spdy_client;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{
    HeaderMap,
    header::{CONNECTION, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
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
#[case::no_ports("portforward", "", "v4.channel.k8s.io", "400 query parameter \"port\" is required")]
#[case::ports_of_another_protocol(
    "portforward",
    "ports=80",
    "v5.channel.k8s.io",
    "400 portforward needs the subprotocol SPDY/3.1+portforward.k8s.io or v4.channel.k8s.io; the client offers \
     [v5.channel.k8s.io]"
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

#[test]
fn other_upgrades_are_refused() {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("h2c"));
    assert_eq!(Asked::read(&headers).unwrap_err().code, 400);
    headers.remove(CONNECTION);
    let status = Asked::read(&headers).unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (400, "Upgrade request required"));
}

/// A pod that answers on three ports: it echoes, says something and closes, and never says anything.
async fn listening() -> Streams {
    let streams = server(true).await;
    let script = r#"{"ports": {"7": "cat", "80": ["sh", "-c", "read line; echo $line back"], "9": "sleep infinity"}}"#;
    let mut pod = Object::new("v1", "Pod", "default", "p");
    pod.set_at(&["metadata", "annotations"], json!({ kubelet::ANNOTATION: script }));
    pod.set("spec", one());
    create(&streams, pod).await;
    running(&streams).await;
    streams
}

/// How often the kubelet's names for things differ: every pod has a UID.
fn without_uid(streams: &Streams, text: &str) -> String {
    let target = streams.registry.target(&Gvr::new("", "v1", "pods"), "default", "p", "").unwrap();
    let pod = futures::executor::block_on(streams.registry.get(&target, "")).unwrap();
    text.replace(pod.uid(), "UID")
}

const NO_PORT: &str = "error forwarding port 81 to pod p, uid UID: failed to execute portforward in network namespace \
    \"/var/run/netns/cni-UID\": failed to connect to localhost:81 inside namespace \"/var/run/netns/cni-UID\", IPv4: dial tcp4 \
    127.0.0.1:81: connect: connection refused IPv6 dial tcp6 [::1]:81: connect: connection refused";

async fn binary(socket: &mut Socket) -> Option<Vec<u8>> {
    loop {
        match socket.next().await?.unwrap() {
            Message::Binary(data) => return Some(data.into()),
            Message::Close(_) => return None,
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_port_is_reached_over_the_channels_of_a_websocket() {
    let streams = listening().await;
    let mut socket = open(&streams, "portforward", "ports=80&ports=7", "v4.channel.k8s.io").await.unwrap();
    for (channel, port) in [(0, 80), (1, 80), (2, 7), (3, 7)] {
        assert_eq!(binary(&mut socket).await.unwrap(), [channel, port, 0]);
    }
    socket.send(Message::Binary(Bytes::from_static(b"\x02echo"))).await.unwrap();
    assert_eq!(binary(&mut socket).await.unwrap(), b"\x02echo");
    socket.send(Message::Binary(Bytes::from_static(b"\x00hello\n"))).await.unwrap();
    assert_eq!(binary(&mut socket).await.unwrap(), b"\x00hello back\n");
    assert_eq!(binary(&mut socket).await, None, "one port has ended, and with it the connection");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_nobody_listens_on_is_told_on_its_error_channel() {
    let streams = listening().await;
    let mut socket = open(&streams, "portforward", "ports=81", "v4.channel.k8s.io").await.unwrap();
    binary(&mut socket).await.unwrap();
    binary(&mut socket).await.unwrap();
    let message = binary(&mut socket).await.unwrap();
    assert_eq!(message[0], 1);
    assert_eq!(without_uid(&streams, std::str::from_utf8(&message[1..]).unwrap()), NO_PORT);
    assert_eq!(binary(&mut socket).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_a_client_that_does_not_read_and_nothing_is_lost() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let query = "command=seq&command=300000&stdout=true";
    let mut socket = open(&streams, "exec", query, "v5.channel.k8s.io").await.unwrap();
    let busy = streams.tasks.len();
    streams.registry.clock().sleep(Duration::from_secs(3600)).await;
    assert_eq!(streams.tasks.len(), busy, "2 MB do not fit into what is buffered: it goes on waiting");
    let (out, _, status, _) = drain(&mut socket).await;
    assert_eq!((out.len(), out.lines().last(), &status["status"]), (1_988_895, Some("300000"), &json!("Success")));
}

#[tokio::test(start_paused = true)]
async fn two_hundred_streams_at_once_are_each_whole_and_leave_nothing() {
    let streams = server(true).await;
    pod(&streams, one()).await;
    running(&streams).await;
    let before = streams.tasks.len();
    let one = async |at: usize| {
        let query = "command=cat&stdin=true&stdout=true";
        let mut socket = open(&streams, "exec", query, "v5.channel.k8s.io").await.unwrap();
        let mut text = vec![0];
        text.extend(format!("{at} ").repeat(10_000).into_bytes());
        socket.send(Message::Binary(text.clone().into())).await.unwrap();
        socket.send(Message::Binary(Bytes::from_static(b"\xff\x00"))).await.unwrap();
        let (out, _, status, _) = drain(&mut socket).await;
        assert!(out.as_bytes() == &text[1..] && status["status"] == "Success", "{at}: {} bytes", out.len());
    };
    futures::future::join_all((0..200).map(one)).await;
    streams.registry.clock().sleep(Duration::from_secs(10)).await;
    assert_eq!(streams.tasks.len(), before);
}
