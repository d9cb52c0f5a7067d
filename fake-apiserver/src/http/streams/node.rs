//! The kubelet's own HTTPS door, which an API server of another process dials for logs and streams; and, on the same
//! address, the sandbox controllers' conversion webhook, which it calls.
//!
//! Upstream: `pkg/kubelet/server/server.go` (paths, and who may come in), `k8s.io/kubelet/pkg/cri/streaming/remotecommand`
//! (the names in the queries), and `pkg/webhook` of controller-runtime.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Response, Stream, log_response,
    options::{self, Remote},
    upgrade::Asked,
};
use crate::{
    base::{Converter, Object, Status, Stored, limits},
    clock::Clock,
    http::{listener::serve_connections, query, respond::whole, timer::ClockTimer},
    kubelet::Kubelet,
};

/// What the door leads to.
#[derive(Clone, Debug)]
pub(crate) struct NodeDoor {
    /// What runs the pods; `None` where only the webhook is asked.
    pub(crate) kubelet: Option<Kubelet>,
    /// Converts objects between versions.
    pub(crate) converter: Converter,
    /// Whether whoever asks about pods must have shown a certificate; the TLS settings say whose.
    pub(crate) certificates: bool,
    /// Time.
    pub(crate) clock: Clock,
    /// Ends the door and all that came through it.
    pub(crate) stop: CancellationToken,
    /// Owns the tasks of connections.
    pub(crate) tasks: TaskTracker,
}

/// Serves a listener until the door is closed.
pub(crate) async fn serve(door: NodeDoor, listener: TcpListener, config: Arc<ServerConfig>) {
    let acceptor = TlsAcceptor::from(config);
    let NodeDoor { clock, stop, tasks, .. } = &door;
    let serve = |stream| {
        let (door, acceptor, stop) = (door.clone(), acceptor.clone(), stop.clone());
        async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = door.serve_connection(acceptor, stream) => {}
            }
        }
    };
    serve_connections(listener, clock, stop, tasks, serve).await;
}

impl NodeDoor {
    async fn serve_connection(self, acceptor: TlsAcceptor, stream: TcpStream) {
        let _ = stream.set_nodelay(true); // slower without it, and no worse
        let Some(Ok(tls)) = self.clock.timeout(limits::REQUEST_HEAD, acceptor.accept(stream)).await else {
            return tracing::debug!("no TLS handshake at the kubelet's door");
        };
        let known = tls.get_ref().1.peer_certificates().is_some();
        let service = service_fn(|request| self.answer(known, request));
        let connection = http1::Builder::new()
            .timer(ClockTimer::new(&self.clock))
            .header_read_timeout(limits::REQUEST_HEAD)
            .serve_connection(TokioIo::new(tls), service)
            .with_upgrades();
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection at the kubelet's door ended");
        }
    }

    async fn answer(&self, known: bool, request: hyper::Request<Incoming>) -> Result<Response, Infallible> {
        let path = request.uri().path().to_owned();
        let answer = match (request.method(), path.as_str()) {
            (&Method::GET, "/healthz") => Ok(text(StatusCode::OK, "ok")),
            (&Method::POST, "/convert") => self.convert(request).await,
            _ if self.certificates && !known => Ok(text(StatusCode::UNAUTHORIZED, "Unauthorized")),
            _ => self.stream(request).await,
        };
        // As the kubelet does: an error is a text, and whoever asked makes a Status of it.
        Ok(answer.unwrap_or_else(|status| {
            text(StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &status.message)
        }))
    }

    async fn stream(&self, request: hyper::Request<Incoming>) -> Result<Response, Status> {
        let query = query::Query::parse(request.uri().query().unwrap_or_default());
        let path = request.uri().path().to_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        let (what, namespace, pod, container) = match parts[..] {
            [what @ ("containerLogs" | "exec" | "attach"), namespace, pod, container] => {
                (what, namespace, pod, container)
            }
            ["portForward", namespace, pod] => ("portForward", namespace, pod, ""),
            _ => return Ok(text(StatusCode::NOT_FOUND, "404 page not found")),
        };
        let running = self.kubelet.as_ref().and_then(|kubelet| Some((kubelet, kubelet.pod(namespace, pod)?)));
        let Some((kubelet, object)) = running else {
            return Ok(text(StatusCode::NOT_FOUND, "pod does not exist"));
        };
        if what == "containerLogs" {
            let mut wanted = options::log(query.pairs(), pod)?;
            wanted.container = container.to_owned();
            return Ok(log_response(kubelet.logs(&object, &wanted)?, self.stop.clone()));
        }
        let asked = Asked::read(request.headers())?;
        if what == "portForward" {
            let ports: Vec<(String, String)> = query
                .pairs()
                .iter()
                .filter(|(key, _)| key == "port")
                .map(|(_, value)| ("ports".into(), value.clone()))
                .collect();
            return self.stream_to(kubelet, object).forward(request, asked, &ports);
        }
        let stream = self.stream_to(kubelet, object);
        let remote = Remote { container: container.into(), ..options::at_node(query.pairs()) };
        stream.remote(request, asked, remote, what)
    }

    fn stream_to(&self, kubelet: &Kubelet, pod: Arc<Stored>) -> Stream {
        Stream {
            kubelet: kubelet.clone(),
            pod,
            clock: self.clock.clone(),
            stop: self.stop.clone(),
            tasks: self.tasks.clone(),
        }
    }

    /// Answers a ConversionReview.
    async fn convert(&self, request: hyper::Request<Incoming>) -> Result<Response, Status> {
        let body = Limited::new(request.into_body(), limits::CONVERSION_BYTES).collect().await;
        let body = body.map_err(|error| Status::bad_request(error.to_string()))?.to_bytes();
        let review: Value = serde_json::from_slice(&body).map_err(|error| Status::bad_request(error.to_string()))?;
        let asked = &review["request"];
        let to = asked["desiredAPIVersion"].as_str().unwrap_or_default();
        let objects: Option<Vec<Object>> =
            asked["objects"].as_array().and_then(|all| all.iter().cloned().map(Object::from_value).collect());
        let Some(objects) = objects else {
            return Err(Status::bad_request("a ConversionReview without a request's objects"));
        };
        let mut response = json!({ "uid": asked["uid"], "result": { "status": "Success" } });
        match (self.converter)(objects, to) {
            Ok(converted) => {
                let converted: Vec<Value> = converted.iter().map(Object::to_value).collect();
                response["convertedObjects"] = converted.into();
            }
            Err(why) => response["result"] = json!({ "status": "Failure", "message": why }),
        }
        let answer =
            json!({ "apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response }).to_string();
        let mut response = Response::new(whole(Full::new(Bytes::from(answer))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

fn text(code: StatusCode, text: &str) -> Response {
    let mut response = Response::new(whole(Full::new(Bytes::from(text.to_owned()))));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
