//! Figures: what Prometheus is told, and how each request is counted.

use std::{panic::AssertUnwindSafe, sync::Mutex, time::Duration};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderValue, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tokio::time::Instant;

use super::App;
use crate::{Code, Error, SandboxStatus};

/// What a route is called that there is none of: paths are anyone's, and labels must not be.
const NO_ROUTE: &str = "none";

/// How long the provider may take to say which sandboxes there are.
const PATIENCE: Duration = Duration::from_secs(5);

/// Seconds up to which requests are counted together.
const BUCKETS: [f64; 10] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    method: String,
    route: String,
    status: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Routed {
    route: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InStatus {
    status: String,
}

/// Everything that is counted.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Mutex<Registry>,
    requests: Family<Answered, Counter>,
    durations: Family<Routed, Histogram>,
    /// Streams that are open.
    pub(super) streams: Gauge,
    agents: Gauge,
    sandboxes: Family<InStatus, Gauge>,
    provider: Gauge,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("agent_sandbox");
        let requests = Family::default();
        let durations = Family::new_with_constructor((|| Histogram::new(BUCKETS)) as fn() -> Histogram);
        let (streams, agents, provider) = (Gauge::default(), Gauge::default(), Gauge::default());
        let sandboxes = Family::default();
        registry.register("http_requests", "Requests that were answered", Family::clone(&requests));
        registry.register("http_request_duration_seconds", "Time until the head of the answer", durations.clone());
        registry.register("sse_clients", "Streams that are open", streams.clone());
        registry.register("agents_running", "Agents that work or are being started", agents.clone());
        registry.register("sandboxes", "Sandboxes by what they do", Family::clone(&sandboxes));
        registry.register("provider_available", "1 if sandboxes can be made", provider.clone());
        Self { registry: Mutex::new(registry), requests, durations, streams, agents, sandboxes, provider }
    }
}

/// Counts a request, and turns a panic into an answer.
pub(super) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method = request.method().to_string();
    let matched = request.extensions().get::<MatchedPath>();
    let route = matched.map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let response = match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            Error::new(Code::Internal, "the request could not be answered: a bug; the log has more").into_response()
        }
    };
    let took = began.elapsed();
    let status = response.status().as_u16();
    tracing::info!(%method, route, status, ms = took.as_millis(), "request");
    let answered = Answered { method, route: route.clone(), status: status.to_string() };
    app.metrics.requests.get_or_create(&answered).inc();
    app.metrics.durations.get_or_create(&Routed { route }).observe(took.as_secs_f64());
    response
}

/// `GET /metrics`.
pub(super) async fn metrics(State(app): State<App>) -> Result<Response, Error> {
    let metrics = &app.metrics;
    metrics.agents.set(i64::try_from(app.agents.running_agents().len()).unwrap_or(i64::MAX));
    metrics.sandboxes.clear();
    let provider = app.selection.current();
    metrics.provider.set(i64::from(provider.is_ok()));
    if let Ok(provider) = provider
        && let Ok(Ok(sandboxes)) = tokio::time::timeout(PATIENCE, provider.list()).await
    {
        use SandboxStatus::{Creating, Error, Idle, Running, Stopped, Stopping};
        for status in [Stopped, Creating, Running, Idle, Stopping, Error] {
            let number = sandboxes.iter().filter(|sandbox| sandbox.status == status).count();
            let label = InStatus { status: format!("{status:?}").to_lowercase() };
            metrics.sandboxes.get_or_create(&label).set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }
    let mut text = String::new();
    let registry = metrics.registry.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    encode(&mut text, &registry)
        .map_err(|error| Error::new(Code::Internal, "the figures could not be written").because(error))?;
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}
