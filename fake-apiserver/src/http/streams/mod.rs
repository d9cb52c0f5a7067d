//! Streams into pods: exec, attach and logs. Upgrades the connection, and carries bytes between the client's channels and the
//! kubelet's process; each waits for the other when it is slow.
//!
//! Upstream: `pkg/registry/core/pod/rest` and `strategy.go` (what is refused before the kubelet is asked), and
//! `k8s.io/apiserver/pkg/util/proxy` (WebSocket to the kubelet).

mod channels;
mod options;
mod session;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    channels::Protocol,
    options::Pairs,
    session::{Kind, Session},
};
use crate::{
    base::{Gvr, Object, Status, Stored, limits},
    kubelet::{self, Kubelet, LogReader, Signal},
    registry::{Registry, Target},
};

/// Subresources of a pod that lead here.
pub const STREAMS: [&str; 4] = ["attach", "exec", "log", "portforward"];

/// What streams need of the server.
#[derive(Clone, Debug)]
pub struct Streams {
    /// Where the pods are.
    pub registry: Registry,
    /// What runs them; `None` for a server without a kubelet.
    pub kubelet: Option<Kubelet>,
    /// Ends all streams.
    pub stop: CancellationToken,
    /// Owns the tasks of upgraded connections.
    pub tasks: TaskTracker,
}

/// An answer; a stream's goes on for as long as it lasts.
pub type Response = hyper::Response<UnsyncBoxBody<Bytes, std::convert::Infallible>>;

/// Answers a request for one of [`STREAMS`] of a pod. The query comes decoded, in order.
///
/// # Errors
/// What upstream refuses before it asks the kubelet, what the kubelet refuses, and 501 for what is not faked. A command that
/// fails after the upgrade is told on its channel instead.
pub async fn handle<B>(
    streams: &Streams,
    request: hyper::Request<B>,
    target: &Target,
    query: &Pairs,
) -> Result<Response, Status>
where
    B: Send + 'static,
{
    let log_options = match target.subresource.as_str() {
        "log" => Some(options::log(query, &target.name)?),
        _ => None,
    };
    let pods = streams.registry.target(&Gvr::new("", "v1", "pods"), &target.namespace, &target.name, "")?;
    let pod = streams.registry.get(&pods, "").await?;
    if let Some(mut options) = log_options {
        options.container = kubelet::container_name(&pod, &options.container)?;
        let Some(kubelet) = assigned(streams, &pod, "containerLogs").await? else { return Ok(no_content()) };
        let reader = kubelet.logs(&pod, &options)?;
        return Ok(log_response(reader, streams.stop.clone()));
    }
    let mut remote = options::remote(query);
    let port_forward = target.subresource == "portforward";
    if !port_forward {
        remote.container = kubelet::container_name(&pod, &remote.container)?;
    }
    let path = if port_forward { "portForward" } else { target.subresource.as_str() };
    let Some(kubelet) = assigned(streams, &pod, path).await? else {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name())));
    };
    if port_forward {
        return Err(Status::not_implemented("port-forward"));
    }
    let upgrade = Upgrade::check(request.headers(), &target.subresource)?;
    let wanted = remote.wanted;
    if !(wanted.stdin || wanted.stdout || wanted.stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    let response = upgrade.response();
    let upgrading = hyper::upgrade::on(request);
    let (kubelet, stop) = (kubelet.clone(), streams.stop.clone());
    let clock = streams.registry.clock().clone();
    let kind = if target.subresource == "exec" { Kind::Exec(remote.command.clone()) } else { Kind::Attach };
    let session = async move {
        let upgraded = match upgrading.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%error, "the client left before the upgrade"),
        };
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits::BODY_BYTES))
            .max_frame_size(Some(limits::BODY_BYTES))
            .write_buffer_size(0)
            .max_write_buffer_size(limits::STREAM_BYTES * 4);
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        // Only now, so that nothing runs for a client that never came.
        let process = match &kind {
            Kind::Exec(command) => {
                kubelet.exec(pod.namespace(), pod.name(), &remote.container, command.clone(), wanted)
            }
            Kind::Attach => kubelet.attach(pod.namespace(), pod.name(), &remote.container, wanted),
        };
        let control = process.as_ref().ok().map(|process| process.control.clone());
        let exec = matches!(kind, Kind::Exec(_));
        let session = Session { protocol: upgrade.protocol, clock, kind };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = session.run(socket, process) => {}
        }
        // Whatever ended the session: a command whose client is gone is gone too.
        if let (true, Some(control)) = (exec, control) {
            control.signal(Signal::Kill);
        }
    };
    streams.tasks.spawn(session);
    Ok(response)
}

/// The kubelet that runs a pod; `None` for a pod without a node.
async fn assigned<'a>(streams: &'a Streams, pod: &Object, path: &str) -> Result<Option<&'a Kubelet>, Status> {
    let node = pod.str_at(&["spec", "nodeName"]);
    if node.is_empty() {
        return Ok(None);
    }
    if let Some(kubelet) = streams.kubelet.as_ref().filter(|kubelet| kubelet.has_node(node)) {
        return Ok(Some(kubelet));
    }
    let target = streams.registry.target(&Gvr::new("", "v1", "nodes"), "", node, "")?;
    let found: Arc<Stored> = streams.registry.get(&target, "").await?;
    let addresses = found.at(&["status", "addresses"]).and_then(Value::as_array);
    let address = addresses.into_iter().flatten().find_map(|address| {
        (address.get("type")?.as_str()? == "InternalIP").then(|| address.get("address")?.as_str())?
    });
    let Some(address) = address else {
        return Err(Status::unexpected("no preferred addresses found; known addresses: []"));
    };
    let url = format!("https://{address}:10250/{path}/{}/{}", pod.namespace(), pod.name());
    Err(Status::unexpected(format!("Get {url:?}: dial tcp {address}:10250: connect: connection refused")))
}

fn empty() -> UnsyncBoxBody<Bytes, std::convert::Infallible> {
    http_body_util::Empty::new().boxed_unsync()
}

fn no_content() -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn log_response(reader: LogReader, stop: CancellationToken) -> Response {
    let pieces = stream::unfold((reader, stop), |(mut reader, stop)| async move {
        let piece = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            piece = reader.next() => piece,
        };
        piece.map(|piece| (Ok(Frame::data(piece)), (reader, stop)))
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// A WebSocket handshake that was asked for.
struct Upgrade {
    protocol: Protocol,
    accept: String,
}

impl Upgrade {
    /// Checks what a client asks for.
    fn check(headers: &HeaderMap, what: &str) -> Result<Self, Status> {
        let tokens = |name| -> Vec<String> {
            let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).map(|token| token.trim().to_owned()).collect()
        };
        let asked = tokens(CONNECTION).iter().any(|token| token.eq_ignore_ascii_case("upgrade"));
        let upgrade = tokens(UPGRADE);
        if !asked || upgrade.is_empty() {
            return Err(Status::bad_request("Upgrade request required"));
        }
        if upgrade.iter().any(|token| token.to_ascii_lowercase().starts_with("spdy/")) {
            return Err(Status::not_implemented(SPDY));
        }
        if !upgrade.iter().any(|token| token.eq_ignore_ascii_case("websocket")) {
            return Err(Status::bad_request(format!(
                "unable to upgrade: missing upgrade headers in request: {upgrade:?}"
            )));
        }
        let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
        if key.is_empty() || headers.get(SEC_WEBSOCKET_VERSION).map(HeaderValue::as_bytes) != Some(b"13") {
            return Err(Status::bad_request("not a WebSocket handshake of version 13"));
        }
        let offered = tokens(SEC_WEBSOCKET_PROTOCOL);
        let Some(protocol) = Protocol::choose(&offered) else {
            return Err(Status::bad_request(format!(
                "{what} needs the subprotocol v5.channel.k8s.io or v4.channel.k8s.io; the client offers [{}]",
                offered.join(" ")
            )));
        };
        Ok(Self { protocol, accept: derive_accept_key(key) })
    }

    fn response(&self) -> Response {
        let mut response = Response::new(empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(self.protocol.name()));
        let accept = HeaderValue::from_str(&self.accept).expect("base64 is a header value");
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        response
    }
}

/// What a client of SPDY is told.
const SPDY: &str = "streams over SPDY/3.1 (use a client that speaks WebSocket: kubectl 1.31 or newer)";

#[cfg(test)]
mod tests;
