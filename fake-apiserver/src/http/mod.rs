//! Bytes become requests, and answers become bytes: paths, bodies, forms, connections. No opinion about objects.
//!
//! The order for each request: who asks (`auth`), in whose name (`impersonate`), what (`path`) and whether they may, then the registry or a document (`handlers`,
//! `documents`), then the form of the answer (`negotiate`, `respond`).

mod auth;
mod body;
mod columns;
mod documents;
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
mod query;
mod respond;
pub mod streams;
mod table;
mod timer;
pub(crate) mod tls;
mod watch;
mod yaml;

use std::{
    convert::Infallible,
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
    base::Status,
    discovery::OpenApi,
    registry::{Registry, User},
};

/// What a `Date` header says of second 0.
const EPOCH: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// One server, whatever doors lead to it.
#[derive(Debug)]
pub(crate) struct Api {
    registry: Registry,
    modes: impersonate::Modes,
    openapi: OpenApi,
    metrics: metrics::Metrics,
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
    pub(crate) fn new(streams: Streams) -> Arc<Self> {
        let address = Mutex::new("kubernetes.default.svc:443".into());
        let (registry, stop) = (streams.registry.clone(), streams.stop.clone());
        Arc::new(Self {
            registry,
            modes: impersonate::Modes::default(),
            openapi: OpenApi::default(),
            metrics: Default::default(),
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
    ) -> Result<Response, Infallible> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let head = method == http::Method::HEAD;
        let handled = AssertUnwindSafe(handlers::handle(self, connection, request)).catch_unwind().await;
        let mut response = handled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            tracing::error!(%method, path, panic = text, "a handler panicked: a bug in fake-apiserver");
            let status = Status::internal(format!("apiserver panic'd on {method} {path}"));
            respond::status(&status, false)
        });
        tracing::debug!(%method, path, status = response.status().as_u16());
        if head {
            *response.body_mut() = ResponseBody::default();
        }
        response.headers_mut().insert(DATE, self.date());
        Ok(response)
    }
}
