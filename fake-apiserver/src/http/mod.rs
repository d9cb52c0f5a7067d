//! Bytes become requests, and answers become bytes: paths, bodies, forms, connections. No opinion about objects.
//!
//! The order for each request: who asks (`auth`), in whose name (`impersonate`), what (`path`) and whether they may, then the registry or a document (`handlers`,
//! `documents`), then the form of the answer (`negotiate`, `respond`).

mod auth;
mod body;
mod columns;
mod control;
mod documents;
pub(crate) mod dump;
mod handlers;
mod health;
mod impersonate;
mod json;
mod jsonpath;
mod listener;
mod metrics;
mod multiplex;
mod negotiate;
mod path;
mod protobuf;
mod proxy;
mod query;
mod respond;
pub mod streams;
mod table;
mod timer;
pub(crate) mod tls;
mod watch;
mod yaml;

use std::{
    fmt,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use http::{HeaderValue, header::DATE};
pub use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

pub(crate) use self::auth::admin;
pub use self::respond::{Response, ResponseBody};
pub(crate) use self::streams::Streams;
use crate::{
    actor,
    base::Status,
    discovery::OpenApi,
    registry::{Registry, User},
    sandbox,
};

/// What a `Date` header says of second 0.
const EPOCH: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// What the sandbox controllers have counted, and a road to what they count when asked.
pub(crate) type Counted = (sandbox::Metrics, actor::Api);

/// A rule ends the connection instead of answering.
#[derive(Clone, Copy, Debug)]
pub struct Lost;

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rule ends the connection")
    }
}

impl std::error::Error for Lost {}

/// One server, whatever doors lead to it.
#[derive(Debug)]
pub(crate) struct Api {
    registry: Registry,
    modes: impersonate::Modes,
    openapi: OpenApi,
    metrics: metrics::Metrics,
    /// What the sandbox controllers count, where they run.
    sandboxes: Option<Counted>,
    streams: Streams,
    /// Ends watches and connections.
    stop: CancellationToken,
    /// `host:port` of the HTTPS door, for who asks where the server is.
    address: Mutex<String>,
    /// The `Date` header of a second since 1970: the answers of one second share it.
    date: Mutex<(i64, HeaderValue)>,
}

impl Api {
    /// A server for a registry, with streams into the pods; the streams' token ends it.
    pub(crate) fn new(streams: Streams, sandboxes: Option<Counted>) -> Arc<Self> {
        let address = Mutex::new("kubernetes.default.svc:443".into());
        let (registry, stop) = (streams.registry.clone(), streams.stop.clone());
        Arc::new(Self {
            registry,
            modes: impersonate::Modes::default(),
            openapi: OpenApi::default(),
            metrics: Default::default(),
            sandboxes,
            streams,
            stop,
            address,
            date: Mutex::new((0, HeaderValue::from_static(EPOCH))),
        })
    }

    fn date(&self) -> HeaderValue {
        let now = self.registry.clock().now();
        let mut date = self.date.lock().expect("no panic under this lock");
        if date.0 != now.as_second() {
            let text = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            *date = (now.as_second(), HeaderValue::try_from(text).expect("letters and digits"));
        }
        date.1.clone()
    }

    fn address(&self) -> String {
        self.address.lock().expect("no panic under this lock").clone()
    }

    /// Answers one request. A handler that panics is a bug: it is logged and answered with 500, and the server goes on.
    async fn answer(
        self: &Arc<Self>,
        connection: Option<&User>,
        request: hyper::Request<Incoming>,
    ) -> Result<Response, Lost> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let head = method == http::Method::HEAD;
        let handled = AssertUnwindSafe(handlers::handle(self, connection, request)).catch_unwind().await;
        let answered = handled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            tracing::error!(%method, path, panic = text, "a handler panicked: a bug in fake-apiserver");
            let status = Status::internal(format!("apiserver panic'd on {method} {path}"));
            Ok(respond::status(&status, false))
        });
        let mut response = answered.inspect_err(|Lost| tracing::debug!(%method, path, "not answered, by a rule"))?;
        tracing::debug!(%method, path, status = response.status().as_u16());
        if head {
            *response.body_mut() = ResponseBody::default();
        }
        response.headers_mut().insert(DATE, self.date());
        Ok(response)
    }
}
