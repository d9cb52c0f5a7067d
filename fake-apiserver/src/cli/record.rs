//! `record`: a proxy on loopback that passes requests on to a real cluster, and writes down what was asked and answered.
//!
//! A transcript is a file of JSON lines, in the order in which things happened: an exchange (`request` and `answer`), the
//! begin of a watch (the same with `watch`, its number), an event of one (`event`, and its `object`), and its end (`end`).
//! Nothing of who asked is written, and nothing that is secret: see `redact`.

mod redact;
mod transcript;

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use clap::Args;
use futures::stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::Frame;
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::transcript::{Asked, Transcript};
use super::{KubeconfigFile, Signals};
use crate::{
    base::limits,
    clock::Clock,
    cluster::{SHUTDOWN, outside::describe},
    http::tls::Authority,
    kubeconfig,
};

#[derive(Args, Clone, Debug)]
pub(super) struct Options {
    /// The kubeconfig of the cluster to pass requests on to.
    #[arg(long, value_name = "FILE")]
    upstream: PathBuf,
    /// A context of that kubeconfig; its current one by default.
    #[arg(long)]
    context: Option<String>,
    /// File for the transcript; one that exists is written anew. stdout by default.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File to write the proxy's own kubeconfig to; a temporary one by default, removed at the end.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Runs until a signal comes.
pub(super) async fn run(options: Options) -> Result<ExitCode, String> {
    let mut signals = Signals::new().map_err(|error| format!("cannot listen for signals: {error}"))?;
    let path = options.upstream.display();
    let upstream = Kubeconfig::read_from(&options.upstream);
    let upstream = upstream.map_err(|error| format!("cannot read the kubeconfig {path}: {}", describe(&error)))?;
    let choice = KubeConfigOptions { context: options.context.clone(), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(upstream, &choice).await;
    let mut config = config.map_err(|error| format!("cannot use the kubeconfig {path}: {}", describe(&error)))?;
    config.read_timeout = None; // a watch may be silent for long
    let url = config.cluster_url.clone();
    let client = Client::try_from(config).map_err(|error| format!("cannot talk to {url}: {}", describe(&error)))?;
    client.apiserver_version().await.map_err(|error| format!("{url} does not answer: {}", describe(&error)))?;
    let to_stdout = options.out.is_none();
    let proxy = Arc::new(Proxy { client, transcript: Transcript::create(options.out.as_deref())? });

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|error| format!("cannot listen on loopback: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("cannot listen on loopback: {error}"))?;
    // Who comes in is whoever the upstream's kubeconfig says: so only the holder of the one written here may.
    let authority = Authority::generate().map_err(|error| format!("cannot make certificates: {error}"))?;
    let tls = authority.node(IpAddr::V4(Ipv4Addr::LOCALHOST), Some(authority.pem()));
    let tls = tls.map_err(|error| format!("cannot make certificates: {error}"))?;
    let (client_cert_pem, client_key_pem) =
        authority.client().map_err(|error| format!("cannot make certificates: {error}"))?;
    let door = kubeconfig::Kubeconfig {
        server: format!("https://{address}"),
        ca_pem: authority.pem().to_owned(),
        client_cert_pem,
        client_key_pem,
    };
    let file = KubeconfigFile::write(options.kubeconfig, &door.render())?;
    let ready = format!("ready {} kubeconfig {}", door.server, file.path().display());
    if to_stdout {
        eprintln!("{ready}")
    } else {
        println!("{ready}")
    }

    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    tasks.spawn(serve(proxy.clone(), listener, TlsAcceptor::from(tls), stop.clone(), tasks.clone()));
    signals.next().await;
    stop.cancel();
    tasks.close();
    let _ = Clock::system().timeout(SHUTDOWN, tasks.wait()).await; // a client that stays is left
    proxy.transcript.finish()?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    acceptor: TlsAcceptor,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else { continue };
        let (proxy, acceptor) = (proxy.clone(), acceptor.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(proxy.connection(acceptor, stream)));
    }
}

type Answer = hyper::Response<UnsyncBoxBody<Bytes, Infallible>>;

struct Proxy {
    client: Client,
    transcript: Transcript,
}

impl Proxy {
    async fn connection(self: Arc<Self>, acceptor: TlsAcceptor, stream: TcpStream) {
        let Ok(tls) = acceptor.accept(stream).await else {
            return tracing::debug!("no TLS handshake at the proxy");
        };
        let known = tls.get_ref().1.peer_certificates().is_some();
        let service = service_fn(|request| {
            let proxy = self.clone();
            async move {
                Ok::<_, Infallible>(match known {
                    true => proxy.answer(request).await,
                    false => refusal(StatusCode::UNAUTHORIZED, "use the kubeconfig that it has written"),
                })
            }
        });
        if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(tls), service).await {
            tracing::debug!(%error, "connection ended");
        }
    }

    async fn answer(self: Arc<Self>, request: hyper::Request<Incoming>) -> Answer {
        if request.headers().contains_key(header::UPGRADE) {
            return refusal(StatusCode::NOT_IMPLEMENTED, "exec, attach and port-forward are not recorded");
        }
        match self.pass(request).await {
            Ok(answer) => answer,
            Err(why) => refusal(StatusCode::BAD_GATEWAY, &why),
        }
    }

    async fn pass(self: Arc<Self>, request: hyper::Request<Incoming>) -> Result<Answer, String> {
        let (head, body) = request.into_parts();
        let body =
            Limited::new(body, limits::BODY_BYTES).collect().await.map_err(|error| error.to_string())?.to_bytes();
        let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let is_watch =
            head.uri.query().is_some_and(|query| query.split('&').any(|word| matches!(word, "watch=1" | "watch=true")));

        let mut passed = http::Request::builder().method(head.method.clone()).uri(&target);
        let headers = passed_on(&head.headers);
        let text = |headers: &HeaderMap, name| {
            headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let asked = Asked {
            method: head.method.to_string(),
            path: target.clone(),
            accept: text(&headers, header::ACCEPT),
            content_type: text(&headers, header::CONTENT_TYPE),
            agent: text(&headers, header::USER_AGENT).split('/').next().unwrap_or_default().to_owned(),
            acts_as: acts_as(&headers),
            body: body.clone(),
        };
        if let Some(own) = passed.headers_mut() {
            *own = headers;
        }
        let passed = passed.body(kube::client::Body::from(body.to_vec())).map_err(|error| error.to_string())?;
        let answer = self.client.send(passed).await.map_err(|error| describe(&error))?;
        let (head, body) = answer.into_parts();
        let content_type = text(&head.headers, header::CONTENT_TYPE);
        let mut response = if is_watch && head.status.is_success() {
            let number = self.transcript.watch(&asked, head.status, &content_type);
            let state = (body, BytesMut::new(), Some(Ending { proxy: self.clone(), number }));
            let pieces = stream::unfold(state, |(mut body, mut line, ending)| async move {
                let proxy = ending.as_ref()?;
                let data = body.frame().await?.ok()?.into_data().unwrap_or_default();
                line.extend_from_slice(&data);
                while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                    let whole = line.split_to(end + 1);
                    proxy.proxy.transcript.event(proxy.number, &whole);
                }
                Some((Ok(Frame::data(data)), (body, line, ending)))
            });
            Answer::new(StreamBody::new(pieces).boxed_unsync())
        } else {
            let body = Limited::new(body, limits::CONVERSION_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            self.transcript.exchange(&asked, head.status, &content_type, &body);
            Answer::new(Full::new(body).boxed_unsync())
        };
        *response.status_mut() = head.status;
        for (name, value) in &head.headers {
            if ![header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(name) {
                response.headers_mut().append(name, value.clone());
            }
        }
        Ok(response)
    }
}

/// Writes the end of a watch, however it comes.
struct Ending {
    proxy: Arc<Proxy>,
    number: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.proxy.transcript.end(self.number);
    }
}

fn refusal(code: StatusCode, why: &str) -> Answer {
    let mut response = Answer::new(Full::new(Bytes::from(format!("fake-apiserver record: {why}\n"))).boxed_unsync());
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The headers that mean something to the cluster; what cannot be written down as JSON is not asked for.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [header::ACCEPT, header::CONTENT_TYPE, header::USER_AGENT, header::IF_NONE_MATCH] {
        if let Some(value) = headers.get(&name) {
            kept.insert(name, value.clone());
        }
    }
    for (name, value) in headers.iter().filter(|(name, _)| is_impersonation(name)) {
        kept.append(name, value.clone());
    }
    if let Some(accept) = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()) {
        let ranges: Vec<&str> = accept.split(',').map(str::trim).filter(|range| !range.contains("protobuf")).collect();
        let json = if ranges.is_empty() { "application/json".to_owned() } else { ranges.join(",") };
        if let Ok(value) = HeaderValue::from_str(&json) {
            kept.insert(header::ACCEPT, value);
        }
    }
    kept
}

/// Whether a header says whom the client acts as (`kubectl --as`).
fn is_impersonation(name: &HeaderName) -> bool {
    name.as_str().starts_with("impersonate-")
}

fn acts_as(headers: &HeaderMap) -> Vec<(String, String)> {
    let said = headers.iter().filter(|(name, _)| is_impersonation(name));
    said.filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credentials_and_no_protobuf_are_passed_on() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"));
        headers
            .insert(header::ACCEPT, HeaderValue::from_static("application/vnd.kubernetes.protobuf,application/json"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for group in ["one", "two"] {
            headers.append("impersonate-group", HeaderValue::from_static(group));
        }
        let kept = passed_on(&headers);
        assert_eq!(kept.len(), 3);
        let named = |group: &str| ("impersonate-group".to_owned(), group.to_owned());
        assert_eq!(acts_as(&kept), [named("one"), named("two")], "whom the client acts as is asked and told");
        assert_eq!(kept[header::ACCEPT], "application/json");
    }
}
