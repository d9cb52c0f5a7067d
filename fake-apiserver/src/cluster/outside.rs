//! [`Outside`]: the sandbox controllers and the kubelet as clients of an API server somewhere else.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{NO_DOOR_CA, SHUTDOWN, STARTUP};
use crate::{
    actor::{Api, Candidate, Remote, Server},
    base::{Gvr, Status},
    clock::Clock,
    controllers,
    http::{
        streams::{NodeDoor, serve_node},
        tls::Authority,
    },
    ids::Ids,
    kubelet::{self, Kubelet, RealRuntime, RuntimeKind},
    sandbox,
};

/// The lock that upstream's controller takes (`cmd/agent-sandbox-controller/manageroptions.go`): the two exclude each
/// other.
pub const LEASE: &str = "a3317529.agent-sandbox.x-k8s.io";

/// What is to run against the other server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A node, its kubelet, and an HTTPS door on loopback that the API server dials for logs and streams. Default: yes.
    pub kubelet: bool,
    /// The kinds of Agent Sandbox, their controllers, and the webhook that converts between their versions. Default: yes.
    pub sandbox_controllers: bool,
    /// How those behave. Default: as upstream's without flags.
    pub sandbox: sandbox::Settings,
    /// What kube-controller-manager does for everybody, for servers that run without it. Default: no.
    pub cluster_controllers: bool,
    /// Whose certificates (PEM) may ask the kubelet about pods. Default: nobody is asked for one.
    pub kubelet_client_ca: Option<String>,
    /// Whether containers are real, isolated processes of this machine. Default: no. It needs bubblewrap.
    pub real_processes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kubelet: true,
            sandbox_controllers: true,
            sandbox: sandbox::Settings::default(),
            cluster_controllers: false,
            kubelet_client_ca: None,
            real_processes: false,
        }
    }
}

/// A road to another API server, and all that runs over it. Dropping it cancels its tasks; [`shutdown`](Self::shutdown)
/// also waits for them.
pub struct Outside {
    url: String,
    root_ca: String,
    remote: Remote,
    server: Server,
    metrics: sandbox::Metrics,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl fmt::Debug for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outside({})", self.url) // the client holds credentials
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Outside {
    /// Asks a server what it serves. `seed` is where UIDs and all other chance come from.
    ///
    /// # Errors
    /// If it cannot be reached; the text says why.
    pub async fn connect(config: Config, seed: u64) -> Result<Self, String> {
        let url = config.cluster_url.to_string();
        let root_ca = config.root_cert.as_ref().map_or_else(|| NO_DOOR_CA.to_owned(), |certificates| pem(certificates));
        let client = Client::try_from(config).map_err(|error| format!("cannot talk to {url}: {}", describe(&error)))?;
        let remote = Remote::connect(client, Clock::system(), Ids::seeded(seed)).await;
        let remote = remote.map_err(|error| format!("cannot discover what {url} serves: {error}"))?;
        let server = Server::from(remote.clone());
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        Ok(Self { url, root_ca, remote, server, metrics: sandbox::Metrics::default(), stop, tasks })
    }

    /// The server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// One who wants to be the only one of its kind, by a lease in a namespace.
    pub(crate) fn candidate(&self, namespace: &str, identity: &str) -> Candidate {
        Candidate::new(Api::new(self.server.clone(), "", "fake-apiserver"), namespace, LEASE, identity)
    }

    /// Starts what the settings say. Cancelling it leaves what has begun running; [`shutdown`](Self::shutdown) ends it.
    ///
    /// # Errors
    /// If the definitions are refused, a certificate cannot be read, or no port can be had.
    pub async fn start(&self, settings: &Settings) -> Result<(), String> {
        let (server, tasks, stop) = (&self.server, &self.tasks, &self.stop);
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let door = door.map_err(|error| format!("cannot listen on loopback: {error}"))?;
        let address = door.local_addr().map_err(|error| format!("cannot listen on loopback: {error}"))?;
        let authority = Authority::generate().map_err(|error| format!("cannot make certificates: {error}"))?;
        let tls = authority.node(address.ip(), settings.kubelet_client_ca.as_deref());
        let tls = tls.map_err(|error| format!("cannot use the certificates of the kubelet's clients: {error}"))?;

        let mut machine = kubelet::Settings { startup: STARTUP, door: Some(address), ..kubelet::Settings::default() };
        if settings.real_processes {
            let real = RealRuntime::default();
            real.check()?;
            machine.runtime = RuntimeKind::Real(real);
        }
        if settings.cluster_controllers {
            let housekeeping =
                controllers::Settings { workloads: settings.kubelet, ..controllers::Settings::default() };
            controllers::start(server, &housekeeping, tasks, stop);
            controllers::start_root_ca(server, &self.root_ca, tasks, stop);
        }
        let kubelet = settings.kubelet.then(|| Kubelet::start(server, machine, stop.clone(), tasks.clone()));
        let opened = NodeDoor {
            kubelet,
            converter: sandbox::convert,
            certificates: settings.kubelet_client_ca.is_some(),
            clock: server.clock().clone(),
            stop: stop.clone(),
            tasks: tasks.clone(),
        };
        tasks.spawn(serve_node(opened, door, tls));
        if settings.sandbox_controllers {
            sandbox::install(server, sandbox::definitions()).await.map_err(|error| describe(&error))?;
            self.answer_conversions(address, authority.pem()).await.map_err(|error| describe(&error))?;
            let discovered = self.remote.discover().await;
            discovered.map_err(|error| format!("cannot discover what {} serves: {error}", self.url))?;
            sandbox::start(server, &settings.sandbox, &self.metrics, tasks, stop);
        }
        tasks.spawn(self.remote.clone().keep_discovering(stop.clone()));
        Ok(())
    }

    /// Makes the definitions' conversion webhook this process, as upstream's controller makes it its own when it starts
    /// (`internal/webhook`): a definition that is not converted by a webhook is passed over.
    async fn answer_conversions(&self, address: SocketAddr, ca: &str) -> Result<(), Status> {
        let api = Api::new(self.server.clone(), "", "agent-sandbox-controller");
        let definitions = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
        for definition in sandbox::definitions() {
            let Some(found) = api.get(&definitions, "", definition.name()).await? else { continue };
            if found.at(&["spec", "conversion", "strategy"]).and_then(Value::as_str) != Some("Webhook") {
                continue;
            }
            let client = json!({
                "url": format!("https://{address}/convert"), "caBundle": BASE64_STANDARD.encode(ca), "service": null,
            });
            let webhook = json!({ "clientConfig": client, "conversionReviewVersions": ["v1"] });
            let patch = json!({ "spec": { "conversion": { "strategy": "Webhook", "webhook": webhook } } });
            api.patch(&definitions, "", definition.name(), "", patch).await?;
        }
        Ok(())
    }

    /// Ends everything and waits some seconds for it; what it made on the server stays.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.close();
        if self.server.clock().timeout(SHUTDOWN, self.tasks.wait()).await.is_none() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time");
        }
    }

    /// A name that no other process has.
    pub(crate) fn identity(&self) -> String {
        format!("fake-apiserver_{}", Api::new(self.server.clone(), "", "").ids().uid())
    }

    /// What the sandbox controllers measure.
    pub(crate) fn metrics(&self) -> &sandbox::Metrics {
        &self.metrics
    }

    /// The sandbox controllers' road to the server.
    pub(crate) fn controllers_api(&self) -> Api {
        Api::new(self.server.clone(), "", "agent-sandbox-controller")
    }

    /// Owns all that runs.
    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    /// Ends with [`shutdown`](Self::shutdown).
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }
}

/// Certificates as a text.
fn pem(certificates: &[Vec<u8>]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64_STANDARD.encode(certificate);
        for line in encoded.as_bytes().chunks(64) {
            text.push_str(&String::from_utf8_lossy(line));
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// An error with its causes.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(&format!(": {cause_text}"));
        }
        source = cause.source();
    }
    text
}
