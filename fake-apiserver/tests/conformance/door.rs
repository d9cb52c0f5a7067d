//! The two doors of a cluster as a plain HTTP client sees them: bytes, statuses, media types, headers.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use bytes::{Bytes, BytesMut};
use fake_apiserver::{clock::Clock, cluster::Cluster, kubeconfig::Kubeconfig};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
};
use tokio_rustls::TlsConnector;

use crate::json::Json;

/// Which door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Memory pipes on virtual time.
    Memory,
    /// TLS over a socket, with a token as the recorded requests had.
    Https,
}

/// The bearer token of the HTTPS door.
pub(crate) const TOKEN: &str = "conformance";

/// Virtual time on a runtime that is not paused passes in steps of this length, so that who waits for something else sees
/// in between that it came.
const STRIDE: Duration = Duration::from_secs(1);

/// A way into a cluster. Requests share a connection as long as the server keeps it; each watch has its own.
pub(crate) struct Door<'a> {
    cluster: &'a Cluster,
    tls: Option<Tls>,
    idle: Option<SendRequest<Full<Bytes>>>,
}

struct Tls {
    connector: TlsConnector,
    address: SocketAddr,
}

/// An answer with its body in full.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: http::response::Parts,
    pub(crate) body: Bytes,
}

impl<'a> Door<'a> {
    /// Opens a door.
    pub(crate) async fn open(cluster: &'a Cluster, kind: Kind) -> anyhow::Result<Self> {
        let tls = match kind {
            Kind::Memory => None,
            Kind::Https => Some(Tls::new(&cluster.serve_https(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?)?),
        };
        Ok(Self { cluster, tls, idle: None })
    }

    /// The cluster's clock.
    pub(crate) fn clock(&self) -> &Clock {
        self.cluster.clock()
    }

    /// Lets time pass. In memory the runtime is paused and time leaps once everything waits; at the HTTPS door the cluster's
    /// clock is moved, since time must not leap over what is on its way in a socket.
    pub(crate) async fn pass(&self, duration: Duration) {
        if self.tls.is_none() {
            return self.clock().sleep(duration).await;
        }
        let mut left = duration;
        while !left.is_zero() {
            let step = left.min(STRIDE);
            self.clock().advance(step).await;
            left -= step;
        }
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn send(&mut self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response> {
        let mut idle = self.idle.take();
        if let Some(sender) = &mut idle
            && sender.ready().await.is_err()
        {
            idle = None;
        }
        let mut sender = match idle {
            Some(sender) => sender,
            None => self.connect().await?.0,
        };
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.idle = Some(sender);
        Ok(Response { head, body })
    }

    /// Sends a watch request on a connection of its own.
    pub(crate) async fn watch(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Watch> {
        let (mut sender, connection) = self.connect().await?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let feed = Arc::new(Mutex::new(Feed::default()));
        let reader = tokio::spawn(read(response.into_body(), feed.clone())).abort_handle();
        Ok(Watch { status, feed, tasks: [reader, connection], _sender: sender })
    }

    async fn connect(&self) -> anyhow::Result<(SendRequest<Full<Bytes>>, AbortHandle)> {
        match &self.tls {
            None => handshake(self.cluster.connect()).await,
            Some(Tls { connector, address }) => {
                let socket = TcpStream::connect(address).await?;
                socket.set_nodelay(true)?;
                handshake(connector.connect(ServerName::IpAddress(address.ip().into()), socket).await?).await
            }
        }
    }
}

impl Tls {
    fn new(kubeconfig: &Kubeconfig) -> anyhow::Result<Self> {
        let address = kubeconfig.server.strip_prefix("https://").context("an https address")?.parse()?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(kubeconfig.ca_pem.as_bytes())?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), address })
    }
}

async fn handshake<S>(stream: S) -> anyhow::Result<(SendRequest<Full<Bytes>>, AbortHandle)>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with its sender, and with an error where the server cuts it: the request says so.
    let task = tokio::spawn(async move { drop(connection.await) });
    Ok((sender, task.abort_handle()))
}

/// An open watch; a task reads its lines until the stream ends.
pub(crate) struct Watch {
    pub(crate) status: http::StatusCode,
    feed: Arc<Mutex<Feed>>,
    tasks: [AbortHandle; 2],
    _sender: SendRequest<Full<Bytes>>,
}

#[derive(Debug, Default)]
struct Feed {
    events: Vec<Json>,
    ended: bool,
}

impl Watch {
    /// The events from `start` on.
    pub(crate) fn events(&self, start: usize) -> Vec<Json> {
        self.feed.lock().expect("no panic under this lock").events[start..].to_vec()
    }

    /// Whether nothing more comes.
    pub(crate) fn has_ended(&self) -> bool {
        self.feed.lock().expect("no panic under this lock").ended
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

async fn read(body: Incoming, feed: Arc<Mutex<Feed>>) {
    let ended = lines(body, &feed).await;
    let mut feed = feed.lock().expect("no panic under this lock");
    feed.ended = true;
    if let Err(error) = ended {
        // Shows as an event that nobody recorded.
        feed.events.push(Json::Text(format!("the watch broke: {error:#}")));
    }
}

async fn lines(mut body: Incoming, feed: &Mutex<Feed>) -> anyhow::Result<()> {
    let mut buffer = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            buffer.extend_from_slice(&data);
        }
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            if !line.trim_ascii().is_empty() {
                let event = serde_json::from_slice(&line)?;
                feed.lock().expect("no panic under this lock").events.push(event);
            }
        }
    }
    if buffer.trim_ascii().is_empty() { Ok(()) } else { Err(anyhow!("half a line at the end: {buffer:?}")) }
}
