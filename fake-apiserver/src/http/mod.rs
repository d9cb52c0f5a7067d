//! Bytes become requests, and answers become bytes: paths, bodies, forms, connections. No opinion about objects.
//!
//! The order for each request: who asks (`auth`), what (`path`), then the registry or a document (`handlers`,
//! `documents`), then the form of the answer (`negotiate`, `respond`).

mod auth;
mod body;
mod columns;
mod documents;
mod handlers;
mod json;
mod jsonpath;
mod listener;
mod negotiate;
mod path;
mod query;
mod respond;
pub mod streams;
mod table;
mod timer;
pub(crate) mod tls;
mod watch;

use std::{
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
};

use futures::FutureExt;
use http::{HeaderValue, header::DATE};
pub use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;

pub(crate) use self::auth::Tokens;
pub use self::respond::{Response, ResponseBody};
pub(crate) use self::streams::Streams;
use crate::{
    base::Status,
    discovery::OpenApi,
    registry::{Registry, User},
};

/// One server, whatever doors lead to it.
#[derive(Debug)]
pub(crate) struct Api {
    registry: Registry,
    tokens: Tokens,
    openapi: OpenApi,
    streams: Streams,
    /// Ends watches and connections.
    stop: CancellationToken,
    /// `host:port` of the HTTPS door, for who asks where the server is.
    address: Mutex<String>,
}

impl Api {
    /// A server for a registry, with streams into the pods; the streams' token ends it.
    pub(crate) fn new(tokens: Tokens, streams: Streams) -> Arc<Self> {
        let address = Mutex::new("kubernetes.default.svc:443".into());
        let (registry, stop) = (streams.registry.clone(), streams.stop.clone());
        Arc::new(Self { registry, tokens, openapi: OpenApi::default(), streams, stop, address })
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
        let date = self.registry.clock().now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        if let Ok(date) = HeaderValue::from_str(&date) {
            response.headers_mut().insert(DATE, date);
        }
        Ok(response)
    }
}
