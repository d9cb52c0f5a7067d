//! Pods that seem to run: a node, its kubelet, a scheduler and a volume binder, which all go through the API like any client.
//!
//! `phase` decides (pure), `worker` does what it says for one pod, `script` says what an image does, `process` is one
//! program with its streams. The room knows nothing of HTTP: [`Kubelet::exec`], [`Kubelet::attach`], [`Kubelet::connect`] and
//! [`Kubelet::logs`] hand out streams to whoever asks.

mod api;
mod container;
mod environment;
mod events;
mod handler;
mod logs;
mod network;
mod node;
mod phase;
mod policies;
mod probes;
mod process;
mod real;
mod scheduler;
mod script;
mod scripted;
mod shell;
#[cfg(test)]
mod tests;
mod tty;
mod volumes;
mod worker;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream},
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    api::{Api, core},
    container::Instance,
    events::{Events, Happened},
    network::Addresses,
    scheduler::{Placements, Verdict},
    shell::fs::Tree,
    worker::{Running, Worker},
};
pub use self::{
    logs::{LogOptions, LogReader, Source},
    policies::report as report_policies,
    process::{Control, Exit, Pipes, Process, Signal, Size, Wanted},
    real::RealRuntime,
    script::{ANNOTATION, ExecRule, Failing, LogLine, Script},
};
use crate::{
    actor::{Change, Outcome, Queue, Server, supervised, while_up},
    base::{Object, Status, Stored},
    clock::{Clock, time_text},
};

/// What runs the programs of containers.
#[derive(Clone, Debug, Default)]
pub enum RuntimeKind {
    /// Scripts and the small shell; nothing of the machine is touched.
    #[default]
    Scripted,
    /// Real processes, each pod in a directory and namespaces of its own.
    Real(RealRuntime),
}

/// How the kubelet behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a pod takes from being bound until its first containers run. Default: 1 s.
    pub startup: Duration,
    /// What images do, by name; a name that ends in `*` means all that begin so. First match wins.
    pub images: Vec<(String, Script)>,
    /// What runs programs. Default: scripts.
    pub runtime: RuntimeKind,
    /// The nodes to register. Default: `fake-node-1`.
    pub nodes: Vec<String>,
    /// Whether events are written. Default: yes.
    pub events: bool,
    /// Where another API server reaches this kubelet for logs and streams; the nodes say so. Default: nowhere, since the
    /// API server is in this process.
    pub door: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            startup: Duration::from_secs(1),
            images: Vec::new(),
            runtime: RuntimeKind::Scripted,
            nodes: vec!["fake-node-1".into()],
            events: true,
            door: None,
        }
    }
}

/// A running kubelet; clones are handles to the same one.
#[derive(Clone)]
pub struct Kubelet(Arc<Inner>);

impl fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kubelet({:?})", self.0.settings.nodes)
    }
}

struct Inner {
    settings: Settings,
    node_api: Api,
    node_events: Events,
    scheduler_api: Api,
    scheduler_events: Events,
    volume_api: Api,
    addresses: Addresses,
    stop: CancellationToken,
    tasks: TaskTracker,
    state: Mutex<World>,
}

/// What the kubelet has seen of the cluster.
#[derive(Default)]
struct World {
    /// Pods that have a worker, by namespace and name.
    workers: BTreeMap<(String, String), Entry>,
    /// Pods that wait for a node.
    waiting: BTreeMap<(String, String), Arc<Stored>>,
    /// Pods of each node that may still run; what the scheduler counts.
    placements: Placements,
    claims: BTreeMap<(String, String), Arc<Stored>>,
    /// Claims that are gone and whose volumes are not yet, by UID.
    released: BTreeMap<String, Arc<Stored>>,
    nodes: BTreeMap<String, Arc<Stored>>,
    /// Files of claims, by the claims' UIDs.
    trees: BTreeMap<String, Tree>,
}

/// What the kubelet follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Followed {
    Nodes,
    Volumes,
    Claims,
    Pods,
}

impl Followed {
    const ALL: [Self; 4] = [Self::Nodes, Self::Volumes, Self::Claims, Self::Pods];

    /// Its changes; with `true` the first ones, which are a list.
    fn feed(self, kubelet: &Inner) -> BoxStream<'static, (Self, bool, Vec<Change>)> {
        let (api, resource) = match self {
            Self::Nodes => (&kubelet.scheduler_api, "nodes"),
            Self::Volumes => (&kubelet.volume_api, "persistentvolumes"),
            Self::Claims => (&kubelet.volume_api, "persistentvolumeclaims"),
            Self::Pods => (&kubelet.node_api, "pods"),
        };
        stream::unfold((api.follow(core(resource)), true), move |(mut informer, first)| async move {
            let changes = informer.next().await;
            Some(((self, first, changes), (informer, false)))
        })
        .boxed()
    }
}

/// What is to be done, and tried again until it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Work {
    /// Find a node for a pod that waits.
    Schedule((String, String)),
    /// Bring a claim on.
    Tend((String, String)),
    /// Remove the volume of the claim that had this UID.
    Release(String),
}

struct Entry {
    uid: String,
    news: watch::Sender<Option<Arc<Stored>>>,
    running: Arc<Running>,
}

fn place(object: &Object) -> (String, String) {
    (object.namespace().to_owned(), object.name().to_owned())
}

impl Kubelet {
    /// Starts the kubelet, with nodes and the runtime classes `gvisor` and `kata`; it stops, and with it all that runs in its pods, when the token is cancelled. All its tasks are in
    /// `tasks`.
    pub fn start(server: &Server, settings: Settings, stop: CancellationToken, tasks: TaskTracker) -> Self {
        let first = settings.nodes.first().cloned().unwrap_or_default();
        let user = format!("system:node:{first}");
        let node_api = Api::new(server, &user, "kubelet");
        let scheduler_api = Api::new(server, "system:kube-scheduler", "kube-scheduler");
        let volume_api =
            Api::new(server, "system:serviceaccount:kube-system:persistent-volume-binder", "kube-controller-manager");
        let inner = Arc::new(Inner {
            node_events: Events::new(&node_api, "kubelet", &first),
            scheduler_events: Events::new(&scheduler_api, "default-scheduler", "fake-apiserver"),
            node_api,
            scheduler_api,
            volume_api,
            settings,
            addresses: Addresses::default(),
            stop,
            tasks,
            state: Mutex::default(),
        });
        for (at, name) in inner.settings.nodes.iter().enumerate() {
            let keep = node::keep(
                inner.node_api.clone(),
                inner.clock().clone(),
                name.clone(),
                inner.settings.door.map_or_else(|| node::Place::Simulated(host_ip(at)), node::Place::Door),
                network::POD_CIDR.to_owned(),
                inner.stop.clone(),
            );
            let (rules, name, stop) = (inner.node_api.rules().cloned(), name.clone(), inner.stop.clone());
            inner.tasks.spawn(async move { while_up(rules.as_ref(), &name, &stop, keep).await });
        }
        inner.tasks.spawn(node::offer_runtimes(inner.node_api.clone(), inner.stop.clone()));
        let (rules, managed) = (inner.node_api.rules().cloned(), inner.clone());
        let manage = supervised(rules, "kubelet", inner.stop.clone(), move |_| managed.clone().manage());
        inner.tasks.spawn(manage);
        Self(inner)
    }

    /// Calls a command in a container (`""`: the pod's only one).
    ///
    /// # Errors
    /// If there is no such pod or container, or it does not run.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Process, Status> {
        Ok(self.instance(namespace, pod, container)?.exec(command, wanted))
    }

    /// Joins a container's own program: its output from now on, and its input if it has one. Signals sent through the
    /// control reach the program itself: to leave, drop the pipes.
    ///
    /// # Errors
    /// If there is no such pod or container, or it does not run.
    pub fn attach(&self, namespace: &str, pod: &str, container: &str, wanted: Wanted) -> Result<Process, Status> {
        Ok(self.instance(namespace, pod, container)?.attach(wanted))
    }

    /// Connects to what listens on a port of a pod: a process whose input and output are the connection. Its end is that of
    /// the connection, and the other way round.
    ///
    /// # Errors
    /// Why there is no connection, as the system call would say it.
    pub async fn connect(&self, namespace: &str, pod: &str, port: u16) -> Result<Process, String> {
        let running = {
            let state = self.0.lock();
            state.workers.get(&(namespace.to_owned(), pod.to_owned())).map(|entry| entry.running.clone())
        };
        match running {
            Some(running) => running.connect(port).await,
            None => Err("connect: no route to host".into()),
        }
    }

    /// A container's log.
    ///
    /// # Errors
    /// If there is no such pod, or the container has no log (yet).
    pub fn logs(&self, pod: &Object, options: &LogOptions) -> Result<LogReader, Status> {
        let name = container_name(pod, &options.container)?;
        let state = self.0.lock();
        let Some(entry) = state.workers.get(&place(pod)) else {
            return Err(Status::bad_request(no_log(pod, &name)));
        };
        let containers = entry.running.containers.lock().expect("no panic under this lock");
        let slot = containers.get(&name);
        let log = match (options.previous, slot) {
            (true, slot) => match slot.and_then(|slot| {
                // While it waits to be started again, the run before is the last one.
                let ended = slot.instance.as_ref().filter(|run| waits(pod, &name) && run.control.ended().is_some());
                ended.map(|run| run.log.clone()).or_else(|| slot.previous.clone())
            }) {
                Some(log) => log,
                None => {
                    let message = format!("previous terminated container {name:?} in pod {:?} not found", pod.name());
                    return Err(Status::bad_request(message));
                }
            },
            (false, Some(Slot { instance: Some(instance), .. })) => instance.log.clone(),
            (false, _) => return Err(Status::bad_request(no_log(pod, &name))),
        };
        Ok(log.read(options, self.0.clock().now()))
    }

    /// Checks that a node answers: that no rule has it dead.
    ///
    /// # Errors
    /// 500 as from an API server that cannot reach the node.
    pub fn reach(&self, node: &str) -> Result<(), Status> {
        if self.0.node_api.rules().is_none_or(|rules| !rules.is_down(node)) {
            return Ok(());
        }
        let at = self.0.settings.nodes.iter().position(|name| *name == node).unwrap_or_default();
        let why = format!("error dialing backend: dial tcp {}:10250: connect: no route to host", host_ip(at));
        Err(Status { message: why.clone(), ..Status::internal(why) })
    }

    /// A pod that this kubelet runs, as it was seen last.
    pub fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let state = self.0.lock();
        let entry = state.workers.get(&(namespace.to_owned(), name.to_owned()))?;
        entry.news.borrow().clone()
    }

    /// Whether a node is one of this kubelet's.
    pub fn has_node(&self, name: &str) -> bool {
        self.0.settings.nodes.iter().any(|node| node == name)
    }

    fn instance(&self, namespace: &str, pod: &str, container: &str) -> Result<Instance, Status> {
        let state = self.0.lock();
        let entry = state.workers.get(&(namespace.to_owned(), pod.to_owned()));
        let Some(entry) = entry else { return Err(Status::not_found("", "pods", pod)) };
        let containers = entry.running.containers.lock().expect("no panic under this lock");
        let found = match container {
            "" if containers.len() == 1 => containers.values().next(),
            name => containers.get(name),
        };
        let instance = found.and_then(|slot| slot.instance.clone()).filter(|run| run.control.ended().is_none());
        instance.ok_or_else(|| {
            Status::internal(format!("unable to upgrade connection: container not found ({container:?})"))
        })
    }
}

use self::worker::Slot;

/// The name of a container of a pod, where `""` means the only one (`pkg/registry/core/pod/strategy.go`,
/// `validateContainer`).
///
/// # Errors
/// 400 if there is none of that name, or if one must be named.
pub fn container_name(pod: &Object, name: &str) -> Result<String, Status> {
    let names = |field: &str| -> Vec<&str> {
        let list = pod.at(&["spec", field]).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|container| container.get("name")?.as_str()).collect()
    };
    let all = [names("initContainers"), names("containers"), names("ephemeralContainers")].concat();
    let pod_name = pod.name();
    if !name.is_empty() {
        return match all.contains(&name) {
            true => Ok(name.into()),
            false => Err(Status::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        };
    }
    match names("containers").as_slice() {
        [only] => Ok((*only).into()),
        [] => Err(Status::bad_request(format!("a container name must be specified for pod {pod_name}"))),
        _ => {
            let all = all.join(" ");
            let message = format!("a container name must be specified for pod {pod_name}, choose one of: [{all}]");
            Err(Status::bad_request(message))
        }
    }
}

fn container_state<'a>(pod: &'a Object, name: &str) -> Option<&'a Value> {
    ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"].into_iter().find_map(|field| {
        let statuses = pod.at(&["status", field])?.as_array()?;
        let found = statuses.iter().find(|status| status.get("name").and_then(Value::as_str) == Some(name))?;
        found.get("state")
    })
}

fn waits(pod: &Object, name: &str) -> bool {
    container_state(pod, name).is_some_and(|state| state.get("waiting").is_some())
}

/// Why a container has no log: `validateContainerLogStatus` in `pkg/kubelet/kubelet_pods.go`.
fn no_log(pod: &Object, name: &str) -> String {
    let pod_name = pod.name();
    let waiting = container_state(pod, name).and_then(|state| state.get("waiting")?.get("reason")?.as_str());
    match waiting {
        Some("ErrImagePull") => {
            format!("container {name:?} in pod {pod_name:?} is waiting to start: image can't be pulled")
        }
        Some("ImagePullBackOff") => {
            format!("container {name:?} in pod {pod_name:?} is waiting to start: trying and failing to pull image")
        }
        Some(reason) => format!("container {name:?} in pod {pod_name:?} is waiting to start: {reason}"),
        None if container_state(pod, name).is_none() => {
            format!("container {name:?} in pod {pod_name:?} is not available")
        }
        None => format!("container {name:?} in pod {pod_name:?} is waiting to start - no logs yet"),
    }
}

/// The address of a node, by its place in the list.
fn host_ip(at: usize) -> String {
    let [high, low] = u16::try_from(at + 2).unwrap_or(u16::MAX).to_be_bytes();
    format!("172.18.{high}.{low}")
}

impl Inner {
    fn clock(&self) -> &Clock {
        self.node_api.clock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, World> {
        self.state.lock().expect("no panic under this lock")
    }

    /// The files of a claim.
    fn claim_tree(&self, namespace: &str, name: &str) -> Tree {
        let mut state = self.lock();
        let claim = state.claims.get(&(namespace.to_owned(), name.to_owned()));
        let key = claim.map_or_else(|| format!("{namespace}/{name}"), |claim| claim.uid().to_owned());
        state.trees.entry(key).or_default().clone()
    }

    /// Whether the claims of a pod are there.
    fn has_claims(&self, pod: &Object) -> bool {
        let names = scheduler::claims(pod);
        let state = self.lock();
        let namespace = pod.namespace().to_owned();
        names.into_iter().all(|name| state.claims.contains_key(&(namespace.clone(), name)))
    }

    /// Follows pods, claims, volumes and nodes, and does what they ask for, until the kubelet stops. What fails is tried
    /// again, later each time.
    async fn manage(self: Arc<Self>) {
        let clock = self.clock().clone();
        let mut feeds = stream::select_all(Followed::ALL.map(|what| what.feed(&self)));
        let mut queue = Queue::default();
        queue.extend(self.lock().released.keys().cloned().map(Work::Release));
        // Nothing is decided before all is known: a pod whose claim is not known yet must not be called unschedulable.
        let mut unheard = BTreeSet::from(Followed::ALL);
        loop {
            while let Some(Some((what, first, changes))) = feeds.next().now_or_never() {
                unheard.remove(&what);
                self.take_in(what, first, changes, &mut queue);
            }
            let work = if unheard.is_empty() { queue.take(clock.now()) } else { None };
            if let Some(work) = work {
                let result = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    result = self.attend(&work) => result,
                };
                if let Err(error) = &result {
                    tracing::debug!(?work, %error, "not done; trying again");
                }
                queue.done(work, result.ok().map(|()| Outcome::Done), clock.now());
                tokio::task::yield_now().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                Some((what, first, changes)) = feeds.next() => {
                    unheard.remove(&what);
                    self.take_in(what, first, changes, &mut queue);
                }
                () = queue.wait(&clock), if unheard.is_empty() => {}
            }
        }
    }

    /// Takes changes in, and puts down what is to be done. The `first` ones are all there is: what was known from before
    /// a restart and is not among them is gone.
    fn take_in(self: &Arc<Self>, what: Followed, first: bool, changes: Vec<Change>, queue: &mut Queue<Work>) {
        let stale = if first { self.stale(what, &changes) } else { Vec::new() };
        match what {
            Followed::Pods => {
                stale.iter().for_each(|key| self.forget(key, queue));
                for change in changes {
                    match change {
                        Change::Applied { new, .. } => self.see_pod(new, queue),
                        Change::Gone(last) => self.forget(&place(&last), queue),
                    }
                }
            }
            Followed::Claims => {
                stale.iter().for_each(|key| self.lose_claim(key, queue));
                for change in changes {
                    match change {
                        Change::Applied { new, .. } => self.see_claim(&new, queue),
                        Change::Gone(last) => self.lose_claim(&place(&last), queue),
                    }
                }
                self.schedule_all(queue);
                self.wake_workers();
            }
            Followed::Volumes => {
                let state = self.lock();
                for change in changes {
                    // A claim may have named the volume before it was there.
                    let name = change.object().name();
                    let waits =
                        |claim: &Stored| claim.str_at(&["spec", "volumeName"]) == name && !volumes::bound(claim);
                    let claims = state.claims.iter().filter(|(_, claim)| waits(claim));
                    queue.extend(claims.map(|(key, _)| Work::Tend(key.clone())));
                }
            }
            Followed::Nodes => {
                {
                    let mut state = self.lock();
                    for (_, name) in &stale {
                        state.nodes.remove(name);
                    }
                    for change in changes {
                        match change {
                            Change::Applied { new, .. } => state.nodes.insert(new.name().to_owned(), new),
                            Change::Gone(last) => state.nodes.remove(last.name()),
                        };
                    }
                }
                self.schedule_all(queue);
            }
        }
    }

    /// What is known of a resource and is not in a list of it.
    fn stale(&self, what: Followed, listed: &[Change]) -> Vec<(String, String)> {
        let listed: BTreeSet<_> = listed.iter().map(|change| place(change.object())).collect();
        let state = self.lock();
        let known: BTreeSet<_> = match what {
            Followed::Pods => state.workers.keys().chain(state.waiting.keys()).cloned().collect(),
            Followed::Claims => state.claims.keys().cloned().collect(),
            Followed::Volumes => BTreeSet::new(),
            Followed::Nodes => state.nodes.keys().map(|name| (String::new(), name.clone())).collect(),
        };
        known.difference(&listed).cloned().collect()
    }

    /// Does one thing.
    async fn attend(&self, work: &Work) -> Result<(), Status> {
        match work {
            Work::Schedule(key) => {
                let pod = self.lock().waiting.get(key).cloned();
                match pod {
                    Some(pod) => self.schedule(&pod).await,
                    None => Ok(()),
                }
            }
            Work::Tend(key) => {
                let claim = self.lock().claims.get(key).cloned();
                match claim {
                    Some(claim) => volumes::tend(&self.volume_api, &claim, self.is_used(&claim)).await,
                    None => Ok(()),
                }
            }
            Work::Release(uid) => {
                let claim = self.lock().released.get(uid).cloned();
                if let Some(claim) = claim {
                    volumes::release(&self.volume_api, &claim).await?;
                    self.lock().released.remove(uid);
                }
                Ok(())
            }
        }
    }

    fn see_claim(&self, claim: &Arc<Stored>, queue: &mut Queue<Work>) {
        let key = place(claim);
        let before = self.lock().claims.get(&key).cloned();
        if before.is_some_and(|before| before.uid() != claim.uid()) {
            self.lose_claim(&key, queue); // another one had the name
        }
        self.lock().claims.insert(key.clone(), claim.clone());
        queue.add(Work::Tend(key));
    }

    fn lose_claim(&self, key: &(String, String), queue: &mut Queue<Work>) {
        let mut state = self.lock();
        let Some(claim) = state.claims.remove(key) else { return };
        let uid = claim.uid().to_owned();
        state.trees.remove(&uid);
        state.released.insert(uid.clone(), claim.clone());
        drop(state);
        if let RuntimeKind::Real(real) = &self.settings.runtime {
            real.remove_claim(&claim);
        }
        queue.add(Work::Release(uid));
    }

    /// Whether a pod that may still run names a claim.
    fn is_used(&self, claim: &Stored) -> bool {
        let uses = |pod: &Object| {
            pod.namespace() == claim.namespace()
                && !matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed")
                && scheduler::claims(pod).iter().any(|name| name == claim.name())
        };
        let state = self.lock();
        state.workers.values().any(|entry| entry.news.borrow().as_ref().is_some_and(|pod| uses(pod)))
    }

    /// Lets workers look again at what they wait for.
    fn wake_workers(&self) {
        for entry in self.lock().workers.values() {
            entry.news.send_modify(|_| {});
        }
    }

    fn forget(&self, key: &(String, String), queue: &mut Queue<Work>) {
        let mut state = self.lock();
        state.waiting.remove(key);
        state.placements.remove(key);
        let mut last = None;
        if let Some(entry) = state.workers.remove(key) {
            last = entry.news.send_replace(None);
        }
        drop(state);
        let claims = last.map(|pod| scheduler::claims(&pod)).unwrap_or_default();
        queue.extend(claims.into_iter().map(|name| Work::Tend((key.0.clone(), name))));
        self.schedule_all(queue); // there is more room now
    }

    fn see_pod(self: &Arc<Self>, pod: Arc<Stored>, queue: &mut Queue<Work>) {
        let key = place(&pod);
        let node = pod.str_at(&["spec", "nodeName"]).to_owned();
        let finished = matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed");
        if node.is_empty() {
            if pod.is_deleting() || finished {
                self.lock().waiting.remove(&key);
                return;
            }
            let scheduler = pod.str_at(&["spec", "schedulerName"]);
            if matches!(scheduler, "" | "default-scheduler") {
                let gated = pod.at(&["spec", "schedulingGates"]).and_then(Value::as_array);
                if gated.is_none_or(Vec::is_empty) {
                    self.lock().waiting.insert(key.clone(), pod);
                    queue.add(Work::Schedule(key));
                }
            }
            return;
        }
        let freed = finished && self.lock().placements.remove(&key);
        if freed {
            self.schedule_all(queue);
        }
        let worker = {
            let mut state = self.lock();
            state.waiting.remove(&key);
            if !finished {
                state.placements.put(key.clone(), &node, &pod);
            }
            let Some(at) = self.settings.nodes.iter().position(|name| *name == node) else { return };
            match state.workers.get(&key) {
                Some(entry) if entry.uid == pod.uid() => {
                    entry.news.send_replace(Some(pod));
                    return;
                }
                Some(entry) => {
                    entry.news.send_replace(None); // another pod had the name
                }
                None => {}
            }
            // What ended before this kubelet began stays as it is, but for its deletion.
            let (news, receiver) = watch::channel(Some(pod.clone()));
            let running = Arc::new(Running::default());
            let entry = Entry { uid: pod.uid().to_owned(), news, running: running.clone() };
            state.workers.insert(key, entry);
            drop(state);
            Worker::new(self.clone(), pod, receiver, running, host_ip(at))
        };
        let (rules, stop) = (self.node_api.rules().cloned(), self.stop.clone());
        self.tasks.spawn(async move { while_up(rules.as_ref(), &node, &stop, worker.run()).await });
    }

    /// Puts down all pods that wait for a node.
    fn schedule_all(&self, queue: &mut Queue<Work>) {
        queue.extend(self.lock().waiting.keys().cloned().map(Work::Schedule));
    }

    async fn schedule(&self, pod: &Arc<Stored>) -> Result<(), Status> {
        let verdict = {
            let state = self.lock();
            let claim = |name: &str| {
                let claim = state.claims.get(&(pod.namespace().to_owned(), name.to_owned()))?;
                (!claim.is_deleting()).then(|| volumes::bound(claim))
            };
            if state.nodes.is_empty() {
                return Ok(()); // the nodes are on their way
            }
            scheduler::schedule(pod, &state.nodes, &state.placements, claim)
        };
        match verdict {
            Verdict::Bind(node) => self.bind(pod, &node).await,
            Verdict::Unschedulable(message) => self.unschedulable(pod, &message).await,
        }
    }

    async fn bind(&self, pod: &Arc<Stored>, node: &str) -> Result<(), Status> {
        self.scheduler_api.bind(pod, node).await?;
        {
            let mut state = self.lock();
            state.waiting.remove(&place(pod));
            state.placements.put(place(pod), node, pod);
        }
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace(), pod.name());
        self.scheduler_event(pod, false, "Scheduled", &message, "Binding").await;
        Ok(())
    }

    async fn unschedulable(&self, pod: &Stored, message: &str) -> Result<(), Status> {
        let conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array);
        let said = conditions.into_iter().flatten().any(|condition| {
            let text = |field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default();
            text("type") == "PodScheduled" && text("reason") == "Unschedulable" && text("message") == message
        });
        if said {
            return Ok(());
        }
        let patch = json!({
            "metadata": { "uid": pod.uid() },
            "status": { "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "observedGeneration": pod.generation(), "lastProbeTime": null,
                "lastTransitionTime": time_text(self.clock().now()),
            }] },
        });
        let place = (pod.namespace(), pod.name(), "status");
        self.scheduler_api.patch(&core("pods"), place, patch).await?;
        self.scheduler_event(pod, true, "FailedScheduling", message, "Scheduling").await;
        Ok(())
    }

    async fn scheduler_event(&self, pod: &Stored, warning: bool, reason: &str, message: &str, action: &str) {
        if self.settings.events {
            let happened = Happened { warning, reason, message, field: String::new(), action };
            self.scheduler_events.write(pod, happened).await;
        }
    }
}
