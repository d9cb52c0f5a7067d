//! [`Cluster`]: everything wired together, with its two doors; and [`outside::Outside`], the same actors as clients of
//! another server.

pub mod outside;

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::json;
use tokio::{io::DuplexStream, net::TcpListener};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    actor::{self, Server},
    base::{
        Gvr, Object, Status,
        user::{AUTHENTICATED, account_groups, as_account},
    },
    clock::{Clock, Held},
    controllers,
    http::{
        Api, Streams, admin, dump,
        tls::{self, Authority},
    },
    ids::Ids,
    kubeconfig::Kubeconfig,
    kubelet::{self, Kubelet, RealRuntime, RuntimeKind},
    registry::{Caller, FieldValidation, Registry, User},
    rule::{Rule, Rules},
    sandbox, webhook,
};

/// The time at which a cluster starts if nothing else is said.
const EPOCH: &str = "2026-01-01T00:00:00Z";

/// How long a pod takes to start where time is real.
pub(crate) const STARTUP: Duration = Duration::from_millis(300);

/// How long a shutdown waits for what is still running.
pub(crate) const SHUTDOWN: Duration = Duration::from_secs(5);

/// How soon a wait looks again, doubling up to the second.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LONGEST_LOOK: Duration = Duration::from_millis(250);

/// Bytes that one direction of an in-memory connection holds; the writer waits beyond.
const PIPE_BYTES: usize = 64 * 1024;

/// The certificate authority of a cluster without an HTTPS door. It has signed nothing and its key is gone: what signs
/// is made when a door opens, and from chance that no seed gives.
const NO_DOOR_CA: &str = include_str!("http/no-door-ca.pem");

/// Namespaces that every cluster has.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

/// How a cluster starts.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use k8s_openapi::api::core::v1::Namespace;
///
/// let cluster = fake_apiserver::cluster::Cluster::builder().seed(7).kubelet(false).start().await.unwrap();
/// let namespaces: kube::Api<Namespace> = kube::Api::all(cluster.client());
/// assert!(namespaces.get("default").await.is_ok());
/// cluster.shutdown().await;
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    seed: u64,
    clock: Start,
    kubelet: bool,
    sandbox_controllers: bool,
    sandbox_settings: sandbox::Settings,
    real_processes: bool,
    images: Vec<(String, kubelet::Script)>,
    tokens: Vec<String>,
    rules: Vec<Rule>,
    held: bool,
}

#[derive(Clone, Debug)]
enum Start {
    At(Timestamp),
    System,
}

/// What did not come true in time. Its text says so, and shows the cluster: the seed, the rules, what there is, and the
/// last events.
#[derive(Debug)]
pub struct Unmet {
    waited_for: String,
    limit: Duration,
    dump: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not within {:?}: {}\n{}", self.limit, self.waited_for, self.dump)
    }
}

impl std::error::Error for Unmet {}

impl ClusterBuilder {
    /// Where UIDs, name suffixes and all other chance come from; 0 by default. One seed gives one run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The time at which the cluster starts; 2026-01-01T00:00:00Z by default.
    pub fn epoch(mut self, epoch: Timestamp) -> Self {
        self.clock = Start::At(epoch);
        self
    }

    /// Starts at the machine's time: for clients in other processes, which compare times with their own.
    pub fn system_time(mut self) -> Self {
        self.clock = Start::System;
        self
    }

    /// Lets time stand still but for [`Clock::advance`]: for clients in other processes, which cannot wait on a paused tokio
    /// runtime. Off by default. Nothing that takes time happens by itself then, not even the start of a pod.
    pub fn virtual_time(mut self) -> Self {
        self.held = true;
        self
    }

    /// Puts a rule in force before anything happens, for as long as the cluster lives.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use fake_apiserver::rule::{Failure, Rule};
    /// use k8s_openapi::api::core::v1::Node;
    ///
    /// let busy = Rule::fail(Failure::of(429).retry_after(2)).verbs(["list"]).resources(["nodes"]).user("alice");
    /// let cluster = fake_apiserver::Cluster::builder().rule(busy).start().await.unwrap();
    /// let nodes: kube::Api<Node> = kube::Api::all(cluster.client_as("alice", &["system:masters"]));
    /// let Err(kube::Error::Api(status)) = nodes.list(&Default::default()).await else { panic!("the rule is in force") };
    /// assert_eq!((status.code, status.details.unwrap().retry_after_seconds), (429, 2));
    /// # cluster.shutdown().await;
    /// # }
    /// ```
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Whether there is a node on which pods seem to run; on by default.
    pub fn kubelet(mut self, on: bool) -> Self {
        self.kubelet = on;
        self
    }

    /// Whether the Agent Sandbox kinds and their controllers are there; on by default.
    pub fn sandbox_controllers(mut self, on: bool) -> Self {
        self.sandbox_controllers = on;
        self
    }

    /// How the Agent Sandbox controllers behave; as upstream's do without flags by default.
    pub fn sandbox_settings(mut self, settings: sandbox::Settings) -> Self {
        self.sandbox_settings = settings;
        self
    }

    /// Whether containers run as real, isolated processes of this machine; off by default. It needs bubblewrap.
    pub fn real_processes(mut self, on: bool) -> Self {
        self.real_processes = on;
        self
    }

    /// What an image of that name does; a name that ends in `*` means all that begin so, and the first that fits counts. A
    /// pod's annotation goes before.
    pub fn image(mut self, name: &str, script: kubelet::Script) -> Self {
        self.images.push((name.into(), script));
        self
    }

    /// Accepts a bearer token for a user of `system:masters` at the HTTPS door.
    pub fn token(mut self, token: &str) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Starts the cluster on the running tokio runtime.
    ///
    /// # Errors
    /// What the registry says if its first objects cannot be made, which is a bug.
    pub async fn start(self) -> Result<Cluster, Status> {
        let mut machine = kubelet::Settings { images: self.images, ..kubelet::Settings::default() };
        let (clock, held) = match self.clock {
            Start::At(epoch) if self.held => {
                let (clock, held) = Clock::held_at(epoch);
                (clock, Some(held))
            }
            Start::At(epoch) => (Clock::starting_at(epoch), None),
            Start::System => {
                machine.startup = STARTUP; // somebody waits for it
                let clock = Clock::system();
                let held = self.held.then(|| clock.hold());
                (clock, held)
            }
        };
        if self.real_processes {
            let real = RealRuntime::default();
            real.check().map_err(Status::unexpected)?;
            machine.runtime = RuntimeKind::Real(real);
        }
        let registry = Registry::new(clock, Ids::seeded(self.seed));
        for rule in self.rules {
            registry.rules().try_install(rule).map_err(Status::bad_request)?.keep();
        }
        registry.call_webhooks_by(webhook::client());
        first_objects(&registry).await?;
        for token in &self.tokens {
            registry.add_token(token, admin());
        }
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let kubelet =
            self.kubelet.then(|| Kubelet::start(&registry.clone().into(), machine, stop.clone(), tasks.clone()));
        let streams = Streams { registry: registry.clone(), kubelet, stop: stop.clone(), tasks: tasks.clone() };
        let sandboxes = self.sandbox_controllers.then(|| {
            let user = "system:serviceaccount:agent-sandbox-system:agent-sandbox-controller";
            (sandbox::Metrics::default(), actor::Api::new(registry.clone(), user, "agent-sandbox-controller"))
        });
        let cluster = Cluster {
            registry,
            api: Api::new(streams, sandboxes.clone()),
            stop,
            tasks,
            held,
            authority: Mutex::default(),
            published: Mutex::default(),
        };
        let Cluster { registry, tasks, stop, .. } = &cluster;
        let server = Server::from(registry.clone());
        let housekeeping = controllers::Settings { workloads: self.kubelet, ..controllers::Settings::default() };
        controllers::start(&server, &housekeeping, tasks, stop);
        cluster.publish_ca(NO_DOOR_CA);
        if let Some((metrics, _)) = &sandboxes {
            sandbox::install(&server, sandbox::definitions())
                .await
                .map_err(|error| Status::unexpected(error.to_string()))?;
            sandbox::start(&server, &self.sandbox_settings, metrics, tasks, stop);
        }
        Ok(cluster)
    }
}

/// A running cluster. Dropping it cancels its tasks; [`shutdown`](Self::shutdown) also waits for them.
#[derive(Debug)]
pub struct Cluster {
    registry: Registry,
    api: Arc<Api>,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Holds the clock, where time is virtual.
    held: Option<Held>,
    /// Signs the certificates of the HTTPS doors; made with the first of them.
    authority: Mutex<Option<Arc<Authority>>>,
    /// Ends the publishing of the certificate authority that is published now.
    published: Mutex<CancellationToken>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Cluster {
    /// A cluster with everything on, to be changed before it starts.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder {
            seed: 0,
            clock: Start::At(EPOCH.parse().expect("a constant time")),
            kubelet: true,
            sandbox_controllers: true,
            sandbox_settings: sandbox::Settings::default(),
            real_processes: false,
            images: Vec::new(),
            tokens: Vec::new(),
            rules: Vec::new(),
            held: false,
        }
    }

    /// The cluster's clock.
    pub fn clock(&self) -> &Clock {
        self.registry.clock()
    }

    /// The cluster's API without HTTP.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A client over memory, in the namespace `default`. It is the administrator, who may do everything.
    pub fn client(&self) -> kube::Client {
        self.client_of(admin())
    }

    /// A client over memory that is somebody else, and may do what roles and bindings allow. The groups are added to
    /// `system:authenticated`, and to a service account's own (`system:serviceaccount:NAMESPACE:NAME`); nobody looks
    /// whether that account exists.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use k8s_openapi::api::core::v1::Secret;
    ///
    /// let cluster = fake_apiserver::Cluster::builder().start().await.unwrap();
    /// let secrets: kube::Api<Secret> = kube::Api::all(cluster.client_as("alice", &["devs"]));
    /// let Err(kube::Error::Api(status)) = secrets.list(&Default::default()).await else { panic!("alice is no admin") };
    /// assert_eq!(status.code, 403);
    /// # cluster.shutdown().await;
    /// # }
    /// ```
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        let mut all = as_account(user).map(|(namespace, _)| account_groups(namespace)).unwrap_or_default();
        all.extend(groups.iter().map(|group| (*group).to_owned()));
        all.push(AUTHENTICATED.into());
        self.client_of(User::new(user, all))
    }

    fn client_of(&self, user: User) -> kube::Client {
        let (api, tasks) = (self.api.clone(), self.tasks.clone());
        let service = tower::service_fn(move |request: http::Request<Body>| {
            send(api.clone(), user.clone(), tasks.clone(), request)
        });
        kube::Client::new(service, "default")
    }

    /// A connection over memory, for clients that speak HTTP/1.1 themselves. Who holds it is the administrator.
    pub fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        self.tasks.spawn(self.api.clone().serve_memory(theirs, admin()));
        ours
    }

    /// Opens an HTTPS door. Port 0 takes a free one. The answer is what a client needs to come in.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn serve_https(&self, address: SocketAddr) -> io::Result<Kubeconfig> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let mut addresses: Vec<IpAddr> = vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([10, 96, 0, 1])];
        if !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
        let authority = self.authority().map_err(io::Error::other)?;
        let server = authority.server(&addresses).map_err(io::Error::other)?;
        let (client_cert_pem, client_key_pem) = authority.client().map_err(io::Error::other)?;
        self.tasks.spawn(self.api.clone().serve_tls(listener, address, server, self.tasks.clone()));
        Ok(Kubeconfig {
            server: format!("https://{address}"),
            ca_pem: authority.pem().to_owned(),
            client_cert_pem,
            client_key_pem,
        })
    }

    /// The authority of the doors; it is published when it is made.
    fn authority(&self) -> Result<Arc<Authority>, tls::Error> {
        let mut authority = self.authority.lock().expect("no panic under this lock");
        if let Some(authority) = &*authority {
            return Ok(authority.clone());
        }
        let made = Arc::new(Authority::generate()?);
        self.publish_ca(made.pem());
        *authority = Some(made.clone());
        Ok(made)
    }

    /// The rules by which things go wrong.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// use fake_apiserver::rule::{Failure, Rule};
    /// use k8s_openapi::api::core::v1::Secret;
    ///
    /// let cluster = fake_apiserver::Cluster::builder().start().await.unwrap();
    /// let secrets: kube::Api<Secret> = kube::Api::all(cluster.client());
    /// let failing = Rule::fail(Failure::of(500)).resources(["secrets"]).user("kubernetes-admin").times(2);
    /// let outage = cluster.rules().install(failing);
    /// assert!(secrets.list(&Default::default()).await.is_err());
    /// assert_eq!(outage.hits(), 1);
    /// drop(outage); // and with it the rule
    /// assert!(secrets.list(&Default::default()).await.is_ok());
    /// # cluster.shutdown().await;
    /// # }
    /// ```
    pub fn rules(&self) -> &Rules {
        self.registry.rules()
    }

    /// Waits, while no time of the cluster passes, until nothing more happens without time or input.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let cluster = fake_apiserver::Cluster::builder().start().await?;
    /// let before = cluster.clock().now();
    /// cluster.settle(Duration::from_secs(10)).await?;
    /// assert_eq!(cluster.clock().now(), before);
    /// cluster.clock().advance(Duration::from_secs(3600)).await; // timers fire in their order
    /// # cluster.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If something still happens after that much of the machine's time.
    pub async fn settle(&self, limit: Duration) -> Result<(), Unmet> {
        match self.clock().settle(limit).await {
            true => Ok(()),
            false => Err(self.unmet("that nothing more happens", limit).await),
        }
    }

    /// Looks again and again whether something has come true, while time passes as it does.
    ///
    /// # Errors
    /// If it has not after that much time: the cluster's, or where that stands still, the machine's.
    pub async fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        mut is_true: impl AsyncFnMut() -> bool,
    ) -> Result<(), Unmet> {
        let clock = self.clock();
        let end = clock.now() + limit;
        let (mut waited, mut pause) = (Duration::ZERO, FIRST_LOOK);
        while !is_true().await {
            if clock.now() >= end || waited >= limit {
                return Err(self.unmet(what, limit).await);
            }
            clock.pause(pause).await;
            waited += pause;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
        Ok(())
    }

    async fn unmet(&self, what: &str, limit: Duration) -> Unmet {
        Unmet { waited_for: what.into(), limit, dump: self.dump().await }
    }

    /// The cluster as a text, for messages of failed tests: the seed, the rules, the objects as `kubectl get` shows them,
    /// and the last events.
    pub async fn dump(&self) -> String {
        dump::dump(&self.registry).await
    }

    /// Who may talk to whom, as the network policies say it: a line for each pod that one selects and each direction. Nothing
    /// is enforced.
    pub async fn network(&self) -> Vec<String> {
        dump::network(&self.registry).await
    }

    /// Ends everything: watches, streams, controllers, doors; waits some seconds for the last of them.
    pub async fn shutdown(mut self) {
        self.held = None; // what takes time must end in time
        self.stop.cancel();
        self.tasks.close();
        if self.clock().timeout(SHUTDOWN, self.tasks.wait()).await.is_none() {
            tracing::warn!(tasks = self.tasks.len(), "tasks did not end in time");
        }
    }

    /// Publishes a certificate authority to the namespaces, in place of the one before.
    fn publish_ca(&self, pem: &str) {
        let token = self.stop.child_token();
        let before = std::mem::replace(&mut *self.published.lock().expect("no panic under this lock"), token.clone());
        before.cancel();
        controllers::start_root_ca(&self.registry.clone().into(), pem, &self.tasks, &token);
    }
}

/// What a cluster has before anybody comes.
async fn first_objects(registry: &Registry) -> Result<(), Status> {
    for name in NAMESPACES {
        create(registry, "v1", "namespaces", "", &Object::new("v1", "Namespace", "", name)).await?;
    }
    registry.make_first_roles();
    let mut service = Object::new("v1", "Service", "default", "kubernetes");
    service.set_at(&["metadata", "labels"], json!({"component": "apiserver", "provider": "kubernetes"}));
    service.set(
        "spec",
        json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "sessionAffinity": "None",
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        }),
    );
    create(registry, "v1", "services", "default", &service).await
}

async fn create(
    registry: &Registry,
    version: &str,
    plural: &str,
    namespace: &str,
    object: &Object,
) -> Result<(), Status> {
    let target = registry.target(&Gvr::new("", version, plural), namespace, "", "")?;
    let caller = Caller {
        user: User::new("system:apiserver", ["system:masters"]),
        manager: "kube-apiserver".into(),
        validation: FieldValidation::Strict,
        ..Caller::default()
    };
    registry.create(&target, &caller, object.clone().into()).await.map(|_| ())
}

/// Sends a request over a memory pipe of its own.
async fn send(
    api: Arc<Api>,
    user: User,
    tasks: TaskTracker,
    mut request: http::Request<Body>,
) -> Result<http::Response<hyper::body::Incoming>, hyper::Error> {
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    tasks.spawn(api.serve_memory(theirs, user));
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await?;
    tasks.spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "in-memory connection ended");
        }
    });
    let host = http::HeaderValue::from_static("kubernetes.default.svc");
    request.headers_mut().entry(http::header::HOST).or_insert(host);
    sender.send_request(request).await
}
