//! Streams into pods: exec, attach, port-forward and logs. Upgrades the connection, and carries bytes between the client's
//! channels and the kubelet's process; each waits for the other when it is slow.
//!
//! `session` speaks WebSocket and `remote` SPDY for exec and attach, `forward` both for port-forward; `spdy` is the protocol.
//!
//! Upstream: `pkg/registry/core/pod/rest` and `strategy.go` (what is refused before the kubelet is asked), and
//! `k8s.io/apiserver/pkg/util/proxy` (WebSocket to the kubelet).

mod channels;
mod forward;
mod node;
mod options;
mod relay;
mod remote;
mod session;
mod spdy;
pub(super) mod upgrade;

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use futures::stream;
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::protocol::{Role, WebSocketConfig},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::node::{NodeDoor, serve as serve_node};
pub(super) use self::session::Leash;
use self::{
    channels::Protocol,
    forward::Forward,
    options::{Pairs, Remote},
    session::{Kind, Session},
    upgrade::Asked,
};
use crate::{
    base::{Gvr, Object, Status, Stored, limits},
    clock::Clock,
    http::Lost,
    kubelet::{self, Kubelet, LogReader, Wanted},
    registry::{Registry, Target},
};

/// Subresources of a pod that lead here.
pub const STREAMS: [&str; 4] = ["attach", "exec", "log", "portforward"];

/// Those whose connection becomes another.
pub const UPGRADED: [&str; 3] = ["attach", "exec", "portforward"];

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
pub type Response = hyper::Response<UnsyncBoxBody<Bytes, Lost>>;

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
        let kubelet = match runner(streams, &pod, "containerLogs").await? {
            Runner::Nobody => return Ok(no_content()),
            Runner::Here(kubelet) => kubelet,
            Runner::There(address) => {
                let path = format!("containerLogs/{}/{}/{}", pod.namespace(), pod.name(), options.container);
                return relay::pass(streams, address, request, &path, options::log_pairs(query)).await;
            }
        };
        let reader = kubelet.logs(&pod, &options)?;
        return Ok(log_response(reader, streams.stop.clone()));
    }
    let mut remote = options::remote(query);
    let port_forward = target.subresource == "portforward";
    if !port_forward {
        remote.container = kubelet::container_name(&pod, &remote.container)?;
    }
    let path = if port_forward { "portForward" } else { target.subresource.as_str() };
    let kubelet = match runner(streams, &pod, path).await? {
        Runner::Nobody => {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name())));
        }
        Runner::Here(kubelet) => kubelet,
        Runner::There(address) => {
            let (path, pairs) = match port_forward {
                true => (format!("{path}/{}/{}", pod.namespace(), pod.name()), options::port_pairs(query)),
                false => (format!("{path}/{}/{}/{}", pod.namespace(), pod.name(), remote.container), remote.pairs()),
            };
            return relay::pass(streams, address, request, &path, pairs).await;
        }
    };
    let asked = Asked::read(request.headers())?;
    let stream = Stream {
        kubelet: kubelet.clone(),
        pod,
        clock: streams.registry.clock().clone(),
        stop: streams.stop.clone(),
        tasks: streams.tasks.clone(),
    };
    if port_forward {
        return stream.forward(request, asked, query);
    }
    let Wanted { stdin, stdout, stderr, tty: _ } = remote.wanted;
    if !(stdin || stdout || stderr) {
        return Err(Status::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    stream.remote(request, asked, remote, &target.subresource)
}

/// A request whose connection becomes streams into a pod.
struct Stream {
    kubelet: Kubelet,
    pod: Arc<Stored>,
    clock: Clock,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Stream {
    /// Exec and attach.
    fn remote<B: Send + 'static>(
        self,
        request: hyper::Request<B>,
        asked: Asked,
        remote: Remote,
        what: &str,
    ) -> Result<Response, Status> {
        let Remote { container, command, wanted } = remote;
        let clock = self.clock.clone();
        let kind = if what == "exec" { Kind::Exec(command) } else { Kind::Attach };
        let (kubelet, pod, of_process) = (self.kubelet.clone(), self.pod.clone(), kind.clone());
        // Called when the client is there, so that nothing runs for one that never came.
        let start = move || match of_process {
            Kind::Exec(command) => kubelet.exec(pod.namespace(), pod.name(), &container, command, wanted),
            Kind::Attach => kubelet.attach(pod.namespace(), pod.name(), &container, wanted),
        };
        match &asked {
            Asked::WebSocket { offered, .. } => {
                let Some(protocol) = Protocol::choose(offered) else {
                    return Err(Status::bad_request(format!(
                        "{what} needs the subprotocol v5.channel.k8s.io or v4.channel.k8s.io; the client offers [{}]",
                        offered.join(" ")
                    )));
                };
                let session = Session { protocol, clock, kind };
                self.upgrade(request, |upgraded| async move {
                    session.run(socket(upgraded).await, start()).await;
                });
                Ok(asked.response(protocol.name()))
            }
            Asked::Spdy { offered } => {
                let protocol = match upgrade::choose(offered, &remote::PROTOCOLS) {
                    Ok(protocol) => protocol,
                    Err(refusal) => return Ok(refusal),
                };
                let session = remote::Remote { protocol, clock, kind, wanted };
                self.upgrade(request, |upgraded| async move { session.run(upgraded, start).await });
                Ok(asked.response(protocol))
            }
        }
    }

    fn forward<B: Send + 'static>(
        self,
        request: hyper::Request<B>,
        asked: Asked,
        query: &Pairs,
    ) -> Result<Response, Status> {
        let forward = Forward {
            kubelet: self.kubelet.clone(),
            clock: self.clock.clone(),
            namespace: self.pod.namespace().into(),
            pod: self.pod.name().into(),
            uid: self.pod.uid().into(),
        };
        match &asked {
            Asked::WebSocket { offered, .. } if offered.iter().any(|name| name == forward::TUNNEL) => {
                self.upgrade(request, |upgraded| async move { forward.tunnel(socket(upgraded).await).await });
                Ok(asked.response(forward::TUNNEL))
            }
            Asked::WebSocket { offered, .. } => {
                let protocol = match offered.iter().any(|name| name == forward::CHANNELS) {
                    true => forward::CHANNELS,
                    false if offered.is_empty() => "",
                    false => {
                        return Err(Status::bad_request(format!(
                            "portforward needs the subprotocol {} or {}; the client offers [{}]",
                            forward::TUNNEL,
                            forward::CHANNELS,
                            offered.join(" ")
                        )));
                    }
                };
                let ports = forward::ports(query)?;
                self.upgrade(request, |upgraded| async move { forward.channels(socket(upgraded).await, &ports).await });
                Ok(asked.response(protocol))
            }
            Asked::Spdy { offered } => {
                let protocol = match upgrade::choose(offered, &[forward::PROTOCOL]) {
                    Ok(protocol) => protocol,
                    Err(refusal) => return Ok(refusal),
                };
                self.upgrade(request, |upgraded| async move { forward.spdy(upgraded).await });
                Ok(asked.response(protocol))
            }
        }
    }

    /// Lets a session have the connection as soon as the client has the answer, until the server stops.
    fn upgrade<B, F>(&self, request: hyper::Request<B>, session: impl FnOnce(Upgraded) -> F + Send + 'static)
    where
        B: Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (upgrading, stop) = (hyper::upgrade::on(request), self.stop.clone());
        self.tasks.spawn(async move {
            let upgraded = match upgrading.await {
                Ok(upgraded) => TokioIo::new(upgraded),
                Err(error) => return tracing::debug!(%error, "the client left before the upgrade"),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = session(upgraded) => {}
            }
        });
    }
}

/// A connection that has become another.
type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

async fn socket(upgraded: Upgraded) -> WebSocketStream<Upgraded> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(limits::BODY_BYTES))
        .max_frame_size(Some(limits::BODY_BYTES))
        .write_buffer_size(0)
        .max_write_buffer_size(limits::STREAM_BYTES * 4);
    WebSocketStream::from_raw_socket(upgraded, Role::Server, Some(config)).await
}

/// Who runs a pod.
enum Runner<'a> {
    /// Nobody yet.
    Nobody,
    /// This process.
    Here(&'a Kubelet),
    /// A kubelet of another process, at this address.
    There(SocketAddr),
}

/// Who runs a pod; `path` is the kubelet's for what is asked.
async fn runner<'a>(streams: &'a Streams, pod: &Object, path: &str) -> Result<Runner<'a>, Status> {
    let node = pod.str_at(&["spec", "nodeName"]);
    if node.is_empty() {
        return Ok(Runner::Nobody);
    }
    if let Some(kubelet) = streams.kubelet.as_ref().filter(|kubelet| kubelet.has_node(node)) {
        kubelet.reach(node)?;
        return Ok(Runner::Here(kubelet));
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
    let port = found.at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).unwrap_or(10250);
    // A kubelet of this machine can be reached; the networks of simulated nodes have nobody on them.
    if let Some(ip) = address.parse::<IpAddr>().ok().filter(IpAddr::is_loopback) {
        return Ok(Runner::There(SocketAddr::new(ip, port)));
    }
    let url = format!("https://{address}:{port}/{path}/{}/{}", pod.namespace(), pod.name());
    Err(Status::unexpected(format!("Get {url:?}: dial tcp {address}:{port}: connect: connection refused")))
}

/// No body.
pub(super) fn empty() -> UnsyncBoxBody<Bytes, Lost> {
    UnsyncBoxBody::default()
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

#[cfg(test)]
mod tests;
