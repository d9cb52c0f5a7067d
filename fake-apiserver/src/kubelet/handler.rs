//! What probes and lifecycle hooks do: call a command in a container, or ask over the pod's network, and what they say when it
//! goes wrong.
//!
//! Upstream: `pkg/probe/{http,tcp,grpc}`, `pkg/kubelet/lifecycle/handlers.go`.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    client::conn::{http1, http2},
    header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, TE, USER_AGENT},
    rt::Executor,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, DuplexStream, Join, join};
use tokio_util::task::TaskTracker;

use super::{
    container::Instance,
    process::{Control, Process, Signal, Wanted},
    worker::Running,
};
use crate::{base::status::go_quote, clock::Clock};

/// Bytes of a command's output that are told (`maxReadLength`).
const OUTPUT: u64 = 10 * 1024;

/// How often a redirect is followed; upstream's `RedirectChecker`.
const REDIRECTS: usize = 10;

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Handler {
    /// Calls a command in the container.
    Exec(Vec<String>),
    /// Asks by HTTP.
    Http { port: Result<u16, String>, path: String, headers: Vec<(String, String)>, host: String, tls: bool },
    /// Connects.
    Tcp { port: Result<u16, String>, host: String },
    /// Asks a gRPC server how it is.
    Grpc { port: u16, service: String },
    /// Waits.
    Sleep(Duration),
}

/// Who is asked.
#[derive(Clone)]
pub(super) struct Patient {
    pub(super) instance: Instance,
    pub(super) pod: Arc<Running>,
    pub(super) ip: String,
    pub(super) clock: Clock,
    pub(super) tasks: TaskTracker,
}

impl Handler {
    /// The handler of a probe or a hook; `None` if there is none.
    pub(super) fn of(action: &Value, container: &Value) -> Option<Self> {
        let text = |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(words) = action.pointer("/exec/command").and_then(Value::as_array) {
            return Some(Self::Exec(words.iter().filter_map(Value::as_str).map(str::to_owned).collect()));
        }
        if let Some(get) = action.get("httpGet") {
            let headers = get.get("httpHeaders").and_then(Value::as_array).into_iter().flatten();
            return Some(Self::Http {
                port: port(get.get("port"), container),
                path: text(get, "path"),
                headers: headers.map(|header| (text(header, "name"), text(header, "value"))).collect(),
                host: text(get, "host"),
                tls: text(get, "scheme") == "HTTPS",
            });
        }
        if let Some(socket) = action.get("tcpSocket") {
            return Some(Self::Tcp { port: port(socket.get("port"), container), host: text(socket, "host") });
        }
        if let Some(grpc) = action.get("grpc") {
            let port = grpc.get("port").and_then(Value::as_u64).and_then(|port| port.try_into().ok());
            return Some(Self::Grpc { port: port.unwrap_or_default(), service: text(grpc, "service") });
        }
        let seconds = action.pointer("/sleep/seconds").and_then(Value::as_u64)?;
        Some(Self::Sleep(Duration::from_secs(seconds)))
    }

    /// What is said by default where a script says that it fails.
    pub(super) fn refusal(&self) -> &'static str {
        match self {
            Self::Exec(_) | Self::Sleep(_) => "",
            Self::Http { .. } => "HTTP probe failed with statuscode: 503",
            Self::Tcp { .. } => "connect: connection refused",
            Self::Grpc { .. } => "service unhealthy (responded with \"NOT_SERVING\")",
        }
    }

    /// Whether the answer is always a good one: nothing in the pod could listen, as far as this cluster runs its programs, or
    /// somebody outside is to be asked.
    pub(super) fn passes(&self, patient: &Patient) -> bool {
        let elsewhere = |host: &str| !host.is_empty() && host != patient.ip;
        match self {
            Self::Exec(_) | Self::Sleep(_) => false,
            Self::Http { host, .. } | Self::Tcp { host, .. } => elsewhere(host) || !patient.pod.listens(),
            Self::Grpc { .. } => !patient.pod.listens(),
        }
    }

    /// Does it, within a time. `probe` tells a probe from a hook: to a hook, any answer over HTTP is a good one.
    ///
    /// # Errors
    /// What is said of it.
    pub(super) async fn run(&self, patient: &Patient, timeout: Option<Duration>, probe: bool) -> Result<(), String> {
        if self.passes(patient) {
            return Ok(());
        }
        let mut leash = Leash::default();
        let done = async {
            match self {
                Self::Exec(command) => exec(command, patient, &mut leash).await,
                Self::Sleep(time) => {
                    patient.clock.sleep(*time).await;
                    Ok(())
                }
                Self::Tcp { port, .. } => {
                    let port = port.clone()?;
                    connect(patient, port, &mut leash).await.map(drop)
                }
                Self::Http { port, path, headers, host: _, tls } => {
                    let url = Url { tls: *tls, ip: &patient.ip, port: port.clone()?, path: &rooted(path) };
                    get(url, headers, patient, probe, &mut leash).await
                }
                Self::Grpc { port, service } => check(*port, service, patient, &mut leash).await,
            }
        };
        match timeout {
            None => done.await,
            Some(timeout) => match patient.clock.timeout(timeout, done).await {
                Some(done) => done,
                None => Err(self.late(patient, timeout)),
            },
        }
    }

    fn late(&self, patient: &Patient, timeout: Duration) -> String {
        let seconds = timeout.as_secs();
        match self {
            Self::Exec(command) => format!("command timed out: {command:?} timed out after {seconds}s"),
            Self::Http { port, path, tls, .. } => {
                let port = port.clone().unwrap_or_default();
                let url = Url { tls: *tls, ip: &patient.ip, port, path: &rooted(path) }.text();
                let url = go_quote(&url);
                format!("Get {url}: context deadline exceeded (Client.Timeout exceeded while awaiting headers)")
            }
            Self::Tcp { port, .. } => {
                format!("dial tcp {}:{}: i/o timeout", patient.ip, port.clone().unwrap_or_default())
            }
            Self::Grpc { .. } => format!("timeout: health rpc did not complete within {seconds}s"),
            Self::Sleep(_) => "container terminated before sleep hook finished".into(),
        }
    }
}

/// A port by number or by the name that the container gives it (`ResolveContainerPort`).
fn port(port: Option<&Value>, container: &Value) -> Result<u16, String> {
    let valid = |number: u64| match u16::try_from(number) {
        Ok(number @ 1..) => Ok(number),
        _ => Err(format!("invalid port number: {number}")),
    };
    match port {
        Some(Value::Number(number)) => valid(number.as_u64().unwrap_or_default()),
        Some(Value::String(name)) => {
            let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
            let mut named = ports.filter(|port| port.get("name").and_then(Value::as_str) == Some(name));
            match named.next().and_then(|port| port.get("containerPort")?.as_u64()).or_else(|| name.parse().ok()) {
                Some(number) => valid(number),
                None => Err(format!("couldn't find port: {name} in container: {container}")),
            }
        }
        _ => Err("invalid port number: 0".into()),
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') { path.into() } else { format!("/{path}") }
}

/// Ends what was started when it is dropped, however that comes.
#[derive(Default)]
struct Leash(Vec<Control>);

impl Leash {
    fn hold(&mut self, process: Process) -> super::process::Pipes {
        self.0.push(process.control);
        process.pipes
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        for control in &self.0 {
            control.signal(Signal::Kill);
        }
    }
}

async fn exec(command: &[String], patient: &Patient, leash: &mut Leash) -> Result<(), String> {
    let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
    let process = patient.instance.exec(command.to_vec(), wanted);
    let control = process.control.clone();
    let pipes = leash.hold(process);
    let read = async |pipe: Option<DuplexStream>| {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = (&mut pipe).take(OUTPUT).read_to_end(&mut bytes).await; // what came until then is told
            let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (exit, out, err) = tokio::join!(control.wait(), read(pipes.stdout), read(pipes.stderr));
    if exit.code == 0 { Ok(()) } else { Err(out + &err) }
}

type Connection = TokioIo<Join<DuplexStream, DuplexStream>>;

async fn connect(patient: &Patient, port: u16, leash: &mut Leash) -> Result<Connection, String> {
    let refused = |reason: &str| format!("dial tcp {}:{port}: {reason}", patient.ip);
    let process = patient.pod.connect(port).await.map_err(|reason| refused(&reason))?;
    let pipes = leash.hold(process);
    match (pipes.stdout, pipes.stdin) {
        (Some(stdout), Some(stdin)) => Ok(TokioIo::new(join(stdout, stdin))),
        _ => Err(refused("connect: no connection")),
    }
}

/// What is asked by HTTP.
#[derive(Clone, Copy)]
struct Url<'a> {
    tls: bool,
    ip: &'a str,
    port: u16,
    path: &'a str,
}

impl Url<'_> {
    fn text(self) -> String {
        let Self { tls, ip, port, path } = self;
        format!("{}://{ip}:{port}{path}", if tls { "https" } else { "http" })
    }
}

async fn get(
    url: Url<'_>,
    headers: &[(String, String)],
    patient: &Patient,
    probe: bool,
    leash: &mut Leash,
) -> Result<(), String> {
    let failed = |url: &str, reason: &str| format!("Get {}: {reason}", go_quote(url));
    let origin = Url { path: "", ..url }.text();
    let mut path = url.path.to_owned();
    for _ in 0..REDIRECTS {
        let address = format!("{origin}{path}");
        let connection = connect(patient, url.port, leash).await.map_err(|reason| failed(&address, &reason))?;
        if url.tls {
            return Ok(()); // that somebody listens is all that is found out
        }
        let answer = ask(connection, &path, url, headers, probe).await;
        let answer = answer.map_err(|reason| failed(&address, &reason))?;
        if !probe {
            return Ok(());
        }
        let location = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match answer.status() {
            // Only to the same host; another is no longer this pod's affair, and no failure.
            StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT => match location.strip_prefix(&origin).unwrap_or(location) {
                next if next.starts_with('/') => path = next.to_owned(),
                _ => return Ok(()),
            },
            code if (200..400).contains(&code.as_u16()) => return Ok(()),
            code => return Err(format!("HTTP probe failed with statuscode: {}", code.as_u16())),
        }
    }
    Err(failed(&format!("{origin}{path}"), "stopped after 10 redirects"))
}

async fn ask(
    connection: Connection,
    path: &str,
    url: Url<'_>,
    headers: &[(String, String)],
    probe: bool,
) -> Result<Response<Incoming>, String> {
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        let pair = HeaderName::try_from(name).ok().zip(HeaderValue::try_from(value).ok());
        let (name, value) = pair.ok_or_else(|| format!("net/http: invalid header field name {}", go_quote(name)))?;
        all.append(name, value);
    }
    let agent = if probe { "kube-probe/1.36" } else { "kube-lifecycle/1.36" };
    all.entry(USER_AGENT).or_insert(HeaderValue::from_static(agent));
    match all.get(ACCEPT) {
        None => drop(all.insert(ACCEPT, HeaderValue::from_static("*/*"))),
        Some(value) if value.is_empty() => drop(all.remove(ACCEPT)),
        Some(_) => {}
    }
    if !all.contains_key(HOST)
        && let Ok(host) = HeaderValue::try_from(format!("{}:{}", url.ip, url.port))
    {
        all.insert(HOST, host);
    }
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    *request.headers_mut() = all;
    let (mut sender, carried) = http1::handshake(connection).await.map_err(|_| "EOF".to_owned())?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    let answered = tokio::select! {
        biased;
        answer = &mut answer => answer,
        _ = carried => answer.await,
    };
    answered.map_err(|error| match error.is_parse() {
        true => "net/http: HTTP/1.x transport connection broken: malformed HTTP response".into(),
        false => "EOF".into(),
    })
}

/// Runs what hyper's HTTP/2 has to do beside a request.
#[derive(Clone)]
struct Beside(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Beside {
    fn execute(&self, work: F) {
        self.0.spawn(work);
    }
}

/// Asks `grpc.health.v1.Health/Check`.
async fn check(port: u16, service: &str, patient: &Patient, leash: &mut Leash) -> Result<(), String> {
    let address = format!("{}:{port}", patient.ip);
    let connection = connect(patient, port, leash).await.map_err(|reason| {
        format!("error: failed to connect service at {address:?}: connection error: desc = \"transport: {reason}\"")
    })?;
    let broken = |reason: &dyn std::fmt::Display| {
        format!("error: health rpc probe failed: rpc error: code = Unavailable desc = {reason}")
    };
    // HealthCheckRequest, whose field 1 is the service, behind the five bytes that precede each message.
    let mut message = BytesMut::new();
    if !service.is_empty() {
        let length = u8::try_from(service.len().min(100)).unwrap_or_default();
        message.put_slice(&[0x0a, length]);
        message.put_slice(&service.as_bytes()[..usize::from(length)]);
    }
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or_default());
    body.put_slice(&message);
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, "kube-probe/1.36")
        .body(Full::new(body.freeze()))
        .map_err(|error| broken(&error))?;
    let shaken = http2::handshake(Beside(patient.tasks.clone()), connection).await;
    let (mut sender, carried) = shaken.map_err(|error| broken(&error))?;
    let asked = async {
        let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let mut headers = answer.headers().clone();
        let body = answer.into_body().collect().await.map_err(|error| broken(&error))?;
        headers.extend(body.trailers().cloned().unwrap_or_default());
        Ok::<_, String>((headers, body.to_bytes()))
    };
    let mut asked = std::pin::pin!(asked);
    let (headers, body) = tokio::select! {
        biased;
        asked = &mut asked => asked,
        _ = carried => asked.await,
    }?;
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message = text("grpc-message");
    match text("grpc-status") {
        "0" => {}
        "12" => {
            return Err(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"
            ));
        }
        "5" => {
            return Err(format!("error: health rpc probe failed: rpc error: code = NotFound desc = {message}"));
        }
        code => return Err(format!("error: health rpc probe failed: rpc error: code = Code({code}) desc = {message}")),
    }
    // HealthCheckResponse, whose field 1 is the status; left out, it is unknown.
    match body.get(5..) {
        Some([0x08, 1, ..]) => Ok(()),
        Some([0x08, status, ..]) => {
            let word = match status {
                2 => "NOT_SERVING",
                3 => "SERVICE_UNKNOWN",
                _ => "UNKNOWN",
            };
            Err(format!("service unhealthy (responded with {word:?})"))
        }
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::number(json!(80), Ok(80))]
    #[case::name(json!("web"), Ok(8080))]
    #[case::digits(json!("81"), Ok(81))]
    #[case::none(json!(0), Err("invalid port number: 0"))]
    fn a_port_has_a_number_or_a_name(#[case] value: Value, #[case] expected: Result<u16, &str>) {
        let container = json!({ "ports": [{ "name": "web", "containerPort": 8080 }] });
        assert_eq!(port(Some(&value), &container), expected.map_err(str::to_owned));
    }

    #[test]
    fn a_probe_and_a_hook_say_what_they_do() {
        let of = |action: Value| Handler::of(&action, &json!({})).unwrap();
        assert_eq!(of(json!({ "exec": { "command": ["ls"] } })), Handler::Exec(vec!["ls".into()]));
        assert_eq!(of(json!({ "sleep": { "seconds": 3 } })), Handler::Sleep(Duration::from_secs(3)));
        assert_eq!(of(json!({ "grpc": { "port": 5 } })), Handler::Grpc { port: 5, service: String::new() });
        assert_eq!(Handler::of(&json!({}), &json!({})), None);
    }
}
