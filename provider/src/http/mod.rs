//! The HTTP API and the settings page.
//!
//! [`routes`] is the whole of it on one screen; the API's document is made of the same table. Handlers extract, call and
//! answer; what they share is in [`App`].

mod auth;
mod envelope;
mod health;
mod k8s;
mod keys;
mod limits;
mod metrics;
mod openapi;
mod page;
mod profiles;
mod projects;
mod sandboxes;
mod sessions;
mod settings;
mod status;
mod tasks;

use std::{path::PathBuf, sync::Arc};

use axum::{
    Router,
    handler::Handler,
    http::Method,
    middleware::{from_fn, from_fn_with_state},
    routing::{MethodFilter, MethodRouter, on},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub(crate) use self::envelope::causes;
pub use self::{auth::Auth, limits::DEFAULT_RATE};
use self::{limits::Rate, metrics::Metrics};
use crate::{
    Code, Error,
    agent::{AgentConfig, AgentService},
    selection::{Selection, Target},
    shape::Field,
    store::Store,
};

/// All that handlers share.
pub(crate) type App = Arc<Parts>;

/// What [`app`] needs.
#[derive(Debug)]
pub(crate) struct Parts {
    store: Store,
    selection: Arc<Selection>,
    agents: AgentService,
    /// How agents are run, where the settings say nothing about it.
    base: AgentConfig,
    auth: Auth,
    rate: Rate,
    metrics: Metrics,
    clusters: Clusters,
    /// Streams that may still be opened.
    streams: Arc<Semaphore>,
    /// Ends the streams.
    stop: CancellationToken,
}

/// The clusters that there are without any setting.
#[derive(Clone)]
pub struct Clusters {
    /// The one that is used unless the settings name one.
    pub base: Target,
    /// The one in this process, and where its kubeconfig is, if it was written.
    pub embedded: Option<(kube::Client, Option<PathBuf>)>,
}

impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clusters").field("base", &self.base).finish_non_exhaustive()
    }
}

impl Parts {
    /// `rate` is requests per minute and address, 0 for any number; `stop` ends streams, so that a shutdown is not held up.
    #[expect(clippy::too_many_arguments, reason = "all of them are parts, and each is there once")]
    pub(crate) fn new(
        store: Store,
        selection: Arc<Selection>,
        agents: AgentService,
        base: AgentConfig,
        auth: Auth,
        clusters: Clusters,
        rate: u32,
        stop: CancellationToken,
    ) -> Self {
        let (rate, metrics) = (Rate::new(rate), Metrics::new());
        let streams = Arc::new(Semaphore::new(limits::MAX_STREAMS));
        Self { store, selection, agents, base, auth, rate, metrics, clusters, streams, stop }
    }
}

/// A route and what the API's document says about it.
struct Route {
    method: Method,
    path: &'static str,
    summary: &'static str,
    handler: MethodRouter<App>,
    body: Option<&'static [Field]>,
    query: &'static [(&'static str, &'static str)],
}

impl Route {
    fn body(mut self, fields: &'static [Field]) -> Self {
        self.body = Some(fields);
        self
    }

    fn query(mut self, parameters: &'static [(&'static str, &'static str)]) -> Self {
        self.query = parameters;
        self
    }
}

/// `METHOD /path`, what it does, and who does it.
fn route<H: Handler<T, App>, T: 'static>(on_what: &'static str, summary: &'static str, handler: H) -> Route {
    let (method, path) = on_what.split_once(' ').expect("METHOD /path");
    let method: Method = method.parse().expect("a method");
    let filter = MethodFilter::try_from(method.clone()).expect("a usual method");
    Route { method, path, summary, handler: on(filter, handler), body: None, query: &[] }
}

/// Paths that need no credentials. `/login` is where they are brought.
const OPEN: &[&str] = &["/api/health", "/api/healthz", "/api/readyz", "/healthz", "/readyz", "/login"];

fn is_open(path: &str) -> bool {
    OPEN.contains(&path)
}

/// Every route there is.
fn routes() -> Vec<Route> {
    const CLUSTER: &[(&str, &str)] = &[
        ("kubeconfigPath", "a kubeconfig below the home folder or /etc/kubernetes; default is the settings' cluster"),
        ("context", "a context of the kubeconfig; default is its current one"),
        ("skipTLSVerify", "true to take any certificate; default false"),
    ];
    const PAGE: &[(&str, &str)] = &[("limit", "entries at most; default 50"), ("offset", "entries to pass over")];
    vec![
        route("GET /api/health", "Whether the application and its sandboxes are well", health::health),
        route("GET /api/healthz", "Whether the process answers", health::alive),
        route("GET /api/readyz", "Whether requests should be sent here", health::ready),
        route("GET /healthz", "As /api/healthz", health::alive),
        route("GET /readyz", "As /api/readyz", health::ready),
        route("GET /metrics", "Figures for Prometheus", metrics::metrics),
        route("GET /api/openapi.json", "This document", openapi::document),
        route("GET /api/settings", "Settings that are stored", settings::read).query(settings::QUERY),
        route("PUT /api/settings", "Writes settings, all or none; null forgets one", settings::write)
            .body(settings::BODY),
        route("GET /api/sandbox-configs", "Profiles, by name", profiles::list).query(PAGE),
        route("POST /api/sandbox-configs", "Makes a profile", profiles::create).body(profiles::NEW),
        route("GET /api/sandbox-configs/{id}", "A profile", profiles::get),
        route("PATCH /api/sandbox-configs/{id}", "Changes a profile", profiles::change).body(profiles::CHANGE),
        route("DELETE /api/sandbox-configs/{id}", "Deletes a profile that no project uses", profiles::delete),
        route("GET /api/api-keys", "Services of which a key is stored; never the keys", keys::list),
        route("PUT /api/api-keys/{service}", "Stores a key", keys::write).body(keys::BODY),
        route("DELETE /api/api-keys/{service}", "Forgets a key", keys::delete),
        route("GET /api/sandbox/provider", "Who makes sandboxes, and how it is", status::provider),
        route("GET /api/sandbox/status/{projectId}", "The sandbox that a project uses", status::status),
        route("POST /api/sandbox/status/{projectId}/restart", "Stops and makes it anew", status::restart),
        route("GET /api/sandboxes", "All sandboxes", sandboxes::list),
        route("POST /api/sandboxes", "Makes the sandbox of a project", sandboxes::create).body(sandboxes::NEW),
        route("POST /api/sandboxes/cleanup", "Deletes stopped sandboxes", sandboxes::cleanup).body(sandboxes::CLEANUP),
        route("GET /api/sandboxes/{id}", "A sandbox and what it uses", sandboxes::get),
        route("POST /api/sandboxes/{id}/stop", "Stops it; its workspace stays", sandboxes::stop),
        route("GET /api/sandbox/k8s/status", "A cluster, and the namespace of sandboxes", k8s::status).query(CLUSTER),
        route("GET /api/sandbox/k8s/controller", "Whether Agent Sandbox is installed", k8s::controller).query(CLUSTER),
        route("GET /api/sandbox/k8s/contexts", "The contexts of a kubeconfig", k8s::contexts).query(&CLUSTER[..1]),
        route("GET /api/sandbox/k8s/namespaces", "The namespaces of a cluster", k8s::namespaces).query(k8s::NAMESPACES),
        route("GET /api/projects", "Projects, by name", projects::list).query(PAGE),
        route("POST /api/projects", "Makes a project", projects::create).body(projects::NEW),
        route("GET /api/projects/{id}", "A project", projects::get),
        route("GET /api/tasks", "Tasks, by column and position", tasks::list).query(tasks::QUERY),
        route("POST /api/tasks", "Makes a task, in the backlog", tasks::create).body(tasks::NEW),
        route("GET /api/tasks/{id}", "A task", tasks::get),
        route("PATCH /api/tasks/{id}/move", "Moves a task; to In Progress starts an agent", tasks::move_to)
            .body(tasks::MOVE),
        route("POST /api/tasks/{id}/approve-plan", "Lets the agent do what it planned", tasks::approve_plan),
        route("POST /api/tasks/{id}/reject-plan", "Turns the plan down", tasks::reject_plan).body(tasks::REJECT),
        route("POST /api/tasks/{id}/stop-agent", "Stops the agent", tasks::stop_agent),
        route("GET /api/sessions/{id}/stream", "What happens, as server-sent events", sessions::stream)
            .query(sessions::STREAM),
        route("GET /api/sessions/{id}/events", "What happened, a page at a time", sessions::events).query(PAGE),
        route("GET /api/sessions/{id}/summary", "What came of it", sessions::summary),
        route("POST /api/sessions/{id}/export", "All of it, as JSON or Markdown", sessions::export)
            .body(sessions::EXPORT),
        route("POST /login", "A cookie for the token", auth::log_in),
        route("POST /logout", "Ends the cookie", auth::log_out),
        route("GET /", "Leads to the settings page", page::home),
        route("GET /settings/sandbox", "The settings page", page::settings),
        route("GET /assets/{file}", "What the page is made of", page::asset),
    ]
}

/// The application as a service.
pub(crate) fn app(parts: Parts) -> Router {
    let app: App = Arc::new(parts);
    let mut router = Router::new();
    for route in routes() {
        router = router.route(route.path, route.handler);
    }
    router
        .fallback(async || Error::new(Code::NotFound, "there is no such route; /api/openapi.json lists them"))
        .method_not_allowed_fallback(async || {
            Error::new(Code::MethodNotAllowed, "the route is there for other methods")
        })
        // From the last to the first is how a request passes them.
        .layer(from_fn_with_state(app.clone(), auth::guard))
        .layer(from_fn_with_state(app.clone(), limits::guard))
        .layer(from_fn_with_state(app.clone(), metrics::observe))
        .layer(from_fn(page::harden))
        .with_state(app)
}
