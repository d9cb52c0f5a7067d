//! The HTTP API, asked without a port.

mod access;
mod clusters;
mod page;
mod program;
mod settings;
mod streams;
mod work;

use std::{sync::Arc, time::Duration};

use agent_sandbox_provider::{
    Application, Auth, Clock, Clusters, SandboxProvider, Setup,
    agent::AgentConfig,
    connect,
    selection::{Connect, Target},
    store::Store,
};
use axum::{
    Router,
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use fake_apiserver::Cluster;
use http_body_util::BodyExt;
use secrecy::SecretString;
use serde_json::Value;
use tower::ServiceExt;

use crate::local::LocalProvider;

/// What lets one in, in all these tests.
const TOKEN: &str = "the-token-of-these-tests-0123456789";

/// An application, all of it in memory.
struct World {
    application: Application,
    store: Store,
    /// Sandboxes are folders of this machine, or on this cluster.
    cluster: Option<Cluster>,
    folders: Arc<LocalProvider>,
}

impl World {
    /// Sandboxes are folders: nothing is slow.
    async fn new() -> Self {
        Self::with(None, |_| ()).await
    }

    /// Sandboxes are on a simulated cluster.
    async fn on_cluster() -> Self {
        let cluster = Cluster::builder().seed(1).start().await.unwrap();
        Self::with(Some(cluster), |_| ()).await
    }

    async fn with(cluster: Option<Cluster>, change: impl FnOnce(&mut Setup)) -> Self {
        let (store, folders) = (Store::in_memory().unwrap(), LocalProvider::new());
        let connect: Connect = match &cluster {
            Some(cluster) => {
                let time = cluster.clock().clone();
                connect(Some(cluster.client()), Clock::of(move || time.now()))
            }
            None => {
                let folders = folders.clone();
                Box::new(move |_| {
                    let folders: Arc<dyn SandboxProvider> = folders.clone();
                    Box::pin(async { Ok(folders) })
                })
            }
        };
        let agents = AgentConfig {
            runner: vec![env!("CARGO_BIN_EXE_agent-runner").into()],
            grace: Duration::from_secs(1),
            ..AgentConfig::default()
        };
        let embedded = cluster.as_ref().map(|cluster| (cluster.client(), None));
        let mut setup = Setup {
            auth: Auth::with_token(&store, &SecretString::from(TOKEN)).unwrap(),
            clusters: Clusters { base: Target::Embedded, embedded },
            connect,
            agents,
            rate: 0,
            store: store.clone(),
        };
        change(&mut setup);
        let application = Application::start(setup).unwrap();
        // A cluster's controllers take a moment to start.
        let ready = application.selection.ready();
        tokio::time::timeout(Duration::from_secs(60), ready).await.expect("sandboxes can be had");
        Self { application, store, cluster, folders }
    }

    async fn end(self) {
        self.application.shutdown(Duration::from_secs(30)).await;
        if let Some(cluster) = self.cluster {
            cluster.shutdown().await;
        }
    }

    fn router(&self) -> Router {
        self.application.router.clone()
    }

    /// The raw answer to a request.
    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router().oneshot(request).await.unwrap()
    }

    /// Asks with the token. The answer is checked to have the API's envelope.
    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.read(request(method, path, body)).await
    }

    async fn read(&self, request: Request<Body>) -> (StatusCode, Value) {
        let what = format!("{} {}", request.method(), request.uri());
        let response = self.send(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body)
            .unwrap_or_else(|error| panic!("{what}: {status}, {error}: {}", String::from_utf8_lossy(&body)));
        assert_eq!(body["ok"], status.is_success(), "{what}: {status} {body}");
        if !status.is_success() {
            assert_eq!(body["error"]["status"], status.as_u16(), "{what}: {body}");
            assert!(body["error"]["code"].is_string() && body["error"]["message"].is_string(), "{what}: {body}");
        }
        (status, body)
    }

    /// The data of an answer that must be good.
    async fn good(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, mut answer) = self.call(method, path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer["data"].take()
    }

    /// The code of an answer that must be an error.
    async fn bad(&self, method: &str, path: &str, body: Option<Value>) -> String {
        let (status, answer) = self.call(method, path, body).await;
        assert!(!status.is_success(), "{method} {path}: {status} {answer}");
        format!("{} {}", status.as_u16(), answer["error"]["code"].as_str().unwrap())
    }

    async fn project(&self, name: &str) -> String {
        let made = self.good("POST", "/api/projects", Some(serde_json::json!({"name": name}))).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// Method and path of every route, with something in the place of each parameter.
    async fn routes(&self) -> Vec<(String, String)> {
        let response = self.send(request("GET", "/api/openapi.json", None)).await;
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let document: Value = serde_json::from_slice(&body).unwrap();
        let mut routes = Vec::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
            let path = parts.collect::<Vec<_>>().join("/");
            routes.extend(methods.as_object().unwrap().keys().map(|method| (method.to_uppercase(), path.clone())));
        }
        assert!(routes.len() > 40, "{routes:?}");
        routes
    }
}

fn bare(method: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
    Request::builder().method(method).uri(path).body(body).unwrap()
}

fn request(method: &str, path: &str, body: Option<Value>) -> Request<Body> {
    let mut request = bare(method, path, body);
    let bearer = format!("Bearer {TOKEN}").parse().unwrap();
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
