//! The `proxy` subresource of pods and services: requests passed on to what listens in a pod, and its answers back.
//!
//! Upstream: `pkg/registry/core/pod/strategy.go` and `service/storage/storage.go` (`ResourceLocation`: where to), and
//! `k8s.io/apimachinery/pkg/util/proxy` (how: `upgradeaware.go`, `transport.go`). Links in pages of HTML are left alone here.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{
        ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONNECTION, HOST, LOCATION, PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use http_body::Body;
use http_body_util::{BodyExt, StreamBody};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::copy_bidirectional;

use super::{
    Response, Streams,
    streams::{Leash, empty, upgrade::is_upgrade},
};
use crate::{
    base::{Gvr, Object, Status, status::go_quote},
    kubelet::Process,
    registry::Target,
};

/// Headers that are between two neighbours only (`hopHeaders` of Go's `httputil`).
const HOP: [HeaderName; 6] = [PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

const CORS: [HeaderName; 4] = [
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    namespace: String,
    pod: String,
    node: String,
    ip: String,
    /// As it was asked for or found; a name that is no number reaches nobody.
    port: String,
}

/// `[scheme:]name[:port]` (`SplitSchemeNamePort`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Asked<'a> {
    scheme: &'a str,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn read(id: &'a str) -> Option<Self> {
        let parts: Vec<&str> = id.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return None,
        };
        (!name.is_empty() && matches!(scheme, "" | "http" | "https")).then_some(Self { scheme, name, port })
    }
}

/// Passes a request on.
///
/// # Errors
/// What upstream says where there is nobody to pass it on to, and 501 for nodes and for HTTPS.
pub(super) async fn handle<B>(
    streams: &Streams,
    request: hyper::Request<B>,
    target: &Target,
) -> Result<Response, Status>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    let place = match &*target.resource.bucket {
        "pods" => pod(streams, target).await?,
        "services" => service(streams, target).await?,
        _ => return Err(missing()),
    };
    let full = request.uri().path().to_owned();
    let (before, path) = split(&full, target);
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let upgrading = is_upgrade(request.headers());
    if path.is_empty() && !upgrading && matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(moved(&format!("{before}/{query}")));
    }
    let process = connect(streams, &place).await?;
    let Process { control, pipes } = process;
    let (Some(stdin), Some(stdout)) = (pipes.stdin, pipes.stdout) else {
        return Err(unreachable(&place, "connect: no connection"));
    };
    let leash = Arc::new(Leash(control));
    let held = leash.clone();
    let connected = http1::handshake(TokioIo::new(tokio::io::join(stdout, stdin))).await;
    let (mut sender, connection) = connected.map_err(|error| broken(&error))?;
    let stop = streams.stop.clone();
    streams.tasks.spawn(async move {
        let _leash = held;
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = connection.with_upgrades() => if let Err(error) = ended {
                tracing::debug!(%error, "a connection to a pod has ended");
            }
        }
    });
    let (request, ours) = outgoing(request, before, &path, &query, upgrading)?;
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    let mut answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
    let code = answer.status();
    if let Some(ours) = ours {
        if code == StatusCode::SWITCHING_PROTOCOLS {
            let theirs = hyper::upgrade::on(&mut answer);
            let stop = streams.stop.clone();
            streams.tasks.spawn(async move {
                let carried = async {
                    let _leash = leash;
                    let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) else { return };
                    // One of the two has left.
                    let _ = copy_bidirectional(&mut TokioIo::new(ours), &mut TokioIo::new(theirs)).await;
                };
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = carried => {}
                }
            });
            let (parts, _) = answer.into_parts();
            return Ok(Response::from_parts(parts, empty()));
        }
        if code.as_u16() < 400 {
            return Err(Status::unexpected(format!("invalid upgrade response: status code {}", code.as_u16())));
        }
    }
    let (mut parts, body) = answer.into_parts();
    remove_hops(&mut parts.headers);
    for name in CORS {
        parts.headers.remove(name);
    }
    parts.version = Version::default();
    if let Some(location) = parts.headers.get(LOCATION).and_then(|value| value.to_str().ok()) {
        let location = rewritten(location, before, &place.ip, &place.port, &host);
        if let Ok(location) = HeaderValue::try_from(location) {
            parts.headers.insert(LOCATION, location);
        }
    }
    let own: Vec<HeaderValue> = parts.headers.get_all(CACHE_CONTROL).into_iter().cloned().collect();
    parts.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    for value in own {
        parts.headers.append(CACHE_CONTROL, value);
    }
    // A pod that breaks off ends the answer: where its length was told, the client sees that it is short.
    let frames = futures::stream::unfold(Some((body, sender)), |state| async move {
        let (mut body, sender) = state?;
        let frame = body.frame().await?.ok()?;
        Some((Ok(frame), Some((body, sender))))
    });
    Ok(Response::from_parts(parts, StreamBody::new(frames).boxed_unsync()))
}

fn missing() -> Status {
    Status::not_implemented("the proxy of nodes, and HTTPS from the proxy of pods and services")
}

async fn pod(streams: &Streams, target: &Target) -> Result<Place, Status> {
    let id = &target.name;
    let asked = Asked::read(id).ok_or_else(|| Status::bad_request(format!("invalid pod request {}", go_quote(id))))?;
    let pods = streams.registry.target(&Gvr::new("", "v1", "pods"), &target.namespace, asked.name, "")?;
    let pod = streams.registry.get(&pods, "").await?;
    let port = match asked.port {
        "" => first_port(&pod).unwrap_or_else(|| "80".into()),
        port => port.to_owned(),
    };
    let ip = pod.str_at(&["status", "podIP"]).to_owned();
    if ip.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    plain(asked)?;
    Ok(Place { namespace: pod.namespace().into(), pod: pod.name().into(), node: node(&pod), ip, port })
}

fn node(pod: &Object) -> String {
    pod.str_at(&["spec", "nodeName"]).to_owned()
}

fn plain(asked: Asked<'_>) -> Result<(), Status> {
    match asked.scheme {
        "https" => Err(missing()),
        _ => Ok(()),
    }
}

fn first_port(pod: &Object) -> Option<String> {
    let containers = pod.at(&["spec", "containers"])?.as_array()?;
    let ports = containers.iter().find_map(|container| container.get("ports")?.as_array()?.first());
    Some(ports?.get("containerPort")?.to_string())
}

async fn service(streams: &Streams, target: &Target) -> Result<Place, Status> {
    let (id, registry) = (&target.name, &streams.registry);
    let asked =
        Asked::read(id).ok_or_else(|| Status::bad_request(format!("invalid service request {}", go_quote(id))))?;
    let find = async |resource: &str, name: &str| {
        registry.get(&registry.target(&Gvr::new("", "v1", resource), &target.namespace, name, "")?, "").await
    };
    let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    let mut port = asked.port.to_owned();
    if let Ok(number) = port.parse::<i64>() {
        let service = find("services", asked.name).await?;
        let ports = list(service.at(&["spec", "ports"]));
        let Some(found) = ports.iter().find(|port| port.get("port").and_then(Value::as_i64) == Some(number)) else {
            return Err(Status::service_unavailable(format!(
                "no service port {number} found for service {}",
                go_quote(asked.name)
            )));
        };
        port = text(found, "name");
    }
    let endpoints = find("endpoints", asked.name).await?;
    let subsets = list(endpoints.at(&["subsets"]));
    let nobody = |id: &str| Status::service_unavailable(format!("no endpoints available for service {}", go_quote(id)));
    if subsets.is_empty() {
        return Err(nobody(asked.name));
    }
    // Any subset that has the port, and any address in it that is a pod's.
    let turned = |list: Vec<Value>| {
        let start = match list.len() {
            0 | 1 => 0,
            length => registry.ids().below(length as u64) as usize,
        };
        [&list[start..], &list[..start]].concat()
    };
    for subset in turned(subsets) {
        let ports = list(subset.get("ports"));
        let Some(number) = ports.iter().find(|one| text(one, "name") == port).and_then(|one| one.get("port")) else {
            continue;
        };
        for address in turned(list(subset.get("addresses"))) {
            let name = address.get("targetRef").map(|target| text(target, "name")).unwrap_or_default();
            let Ok(pod) = find("pods", &name).await else { continue };
            let ip = text(&address, "ip");
            if list(pod.at(&["status", "podIPs"])).iter().any(|one| text(one, "ip") == ip) {
                plain(asked)?;
                let namespace = target.namespace.clone();
                return Ok(Place { namespace, pod: name, node: node(&pod), ip, port: number.to_string() });
            }
        }
    }
    Err(nobody(id))
}

async fn connect(streams: &Streams, place: &Place) -> Result<Process, Status> {
    let Ok(port) = place.port.parse::<u16>() else {
        let port = &place.port;
        return Err(Status::service_unavailable(format!(
            "error trying to reach service: dial tcp: lookup tcp/{port}: unknown port"
        )));
    };
    let Some(kubelet) = streams.kubelet.as_ref().filter(|kubelet| kubelet.has_node(&place.node)) else {
        return Err(unreachable(place, "connect: no route to host"));
    };
    kubelet.connect(&place.namespace, &place.pod, port).await.map_err(|reason| unreachable(place, &reason))
}

fn unreachable(place: &Place, reason: &str) -> Status {
    let Place { ip, port, .. } = place;
    Status::service_unavailable(format!("error trying to reach service: dial tcp {ip}:{port}: {reason}"))
}

fn broken(error: &hyper::Error) -> Status {
    // A pod that closes without a word is Go's EOF.
    let silent = error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    let reason = if silent { "EOF".to_owned() } else { error.to_string() };
    Status::service_unavailable(format!("error trying to reach service: {reason}"))
}

/// The path up to the subresource, and what follows it, cleaned as Go's `path.Join` does it.
fn split<'a>(path: &'a str, target: &Target) -> (&'a str, String) {
    // `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy` or, without a namespace, two segments less.
    let segments = if target.namespace.is_empty() { 5 } else { 7 };
    let at = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    let (before, rest) = path.split_at(at);
    let mut clean: Vec<&str> = Vec::new();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    let mut path = clean.iter().map(|part| format!("/{part}")).collect::<String>();
    if rest.ends_with('/') {
        path.push('/');
    }
    (before, path)
}

fn moved(location: &str) -> Response {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

fn remove_hops(headers: &mut HeaderMap) {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for name in named {
        headers.remove(name);
    }
    headers.remove(CONNECTION);
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
    for name in HOP {
        headers.remove(name);
    }
}

/// The request as the pod gets it, and the client's side of the upgrade that it may become.
fn outgoing<B>(
    mut request: hyper::Request<B>,
    before: &str,
    path: &str,
    query: &str,
    upgrading: bool,
) -> Result<(hyper::Request<B>, Option<hyper::upgrade::OnUpgrade>), Status> {
    let ours = upgrading.then(|| hyper::upgrade::on(&mut request));
    let host = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let forwarded = format!("{before}{path}");
    let path = if path.is_empty() { "/" } else { path };
    let uri = format!("{path}{query}").parse();
    *request.uri_mut() = uri.map_err(|error| Status::bad_request(format!("the path cannot be passed on: {error}")))?;
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    if !upgrading {
        remove_hops(headers);
        if let Ok(forwarded) = HeaderValue::try_from(forwarded) {
            headers.insert("x-forwarded-uri", forwarded);
        }
    }
    // What says who asks is between the client and this server.
    headers.remove(AUTHORIZATION);
    let impersonation = |name: &HeaderName| name.as_str().starts_with("impersonate-");
    let named: Vec<HeaderName> = headers.keys().filter(|name| impersonation(name)).cloned().collect();
    for name in named {
        headers.remove(name);
    }
    if let (Some(host), false) = (host, headers.contains_key(HOST))
        && let Ok(host) = HeaderValue::try_from(host)
    {
        headers.insert(HOST, host);
    }
    Ok((request, ours))
}

/// Where a redirect of a pod leads as the client sees it (`rewriteURL`).
fn rewritten(location: &str, before: &str, ip: &str, port: &str, host: &str) -> String {
    let (origin, path) = match location.split_once("://") {
        Some((_, rest)) => match rest.find('/') {
            Some(at) => (Some(&rest[..at]), &rest[at..]),
            None => (Some(rest), ""),
        },
        None => (None, location),
    };
    let backend = format!("{ip}:{port}");
    let elsewhere = origin.is_some_and(|origin| origin != backend && origin != host && !(port == "80" && origin == ip));
    if elsewhere || !path.starts_with('/') {
        return location.to_owned();
    }
    let start = match origin {
        Some(origin) if origin == host => &location[..location.len() - path.len()],
        _ => "",
    };
    match path.starts_with(before) {
        true => format!("{start}{path}"),
        false => format!("{start}{before}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("web", Some(("", "web", "")))]
    #[case("web:80", Some(("", "web", "80")))]
    #[case("https:web:", Some(("https", "web", "")))]
    #[case("ftp:web:80", None)]
    #[case(":80", None)]
    #[case("a:b:c:d", None)]
    fn names_with_ports(#[case] id: &str, #[case] expected: Option<(&str, &str, &str)>) {
        let asked = Asked::read(id);
        assert_eq!(asked.map(|Asked { scheme, name, port }| (scheme, name, port)), expected);
    }

    #[rstest]
    #[case::path("/login?a=b", "/p/login?a=b")]
    #[case::already("/p/login", "/p/login")]
    #[case::relative("login", "login")]
    #[case::the_pod_itself("http://10.244.0.2:8080/login", "/p/login")]
    #[case::the_server("https://server:6443/login", "https://server:6443/p/login")]
    #[case::elsewhere("https://example.com/login", "https://example.com/login")]
    fn redirects_stay_in_the_proxy(#[case] location: &str, #[case] expected: &str) {
        assert_eq!(rewritten(location, "/p", "10.244.0.2", "8080", "server:6443"), expected);
    }
}
