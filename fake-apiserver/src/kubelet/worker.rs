//! One pod's worker: does what [`phase::decide`] says, writes the status, and sees the pod to its end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    Inner, RuntimeKind,
    api::{core, retry_delay},
    container::{Instance, REFUSED, Runtime, Streams},
    environment,
    events::Happened,
    handler::{Handler, Patient},
    logs::LogBuffer,
    phase::{self, Action, Facts, Plan, State},
    probes::{Finding, Probe, Probed, Purpose},
    process::{Exit, Process, Signal},
    script::Script,
    scripted::{Scripted, Setup},
    shell::Unknown,
};
use crate::{
    base::{Object, Status, Stored},
    clock::Clock,
};

/// How long a container waits for configuration that is not there before it is looked for again (the kubelet's
/// `backOffPeriod`).
const CONFIG_RETRY: Duration = Duration::from_secs(10);

/// What a container has at least between the request to end and its end (`minimumGracePeriodInSeconds`).
const LAST_GRACE: Duration = Duration::from_secs(2);

/// What others may ask about a pod while its worker runs it.
#[derive(Default)]
pub(super) struct Running {
    pub(super) containers: Mutex<BTreeMap<String, Slot>>,
}

impl Running {
    /// Whether something in the pod may listen on ports; what would be asked over its network answers well otherwise.
    pub(super) fn listens(&self) -> bool {
        let containers = self.containers.lock().expect("no panic under this lock");
        containers.values().any(|slot| slot.instance.as_ref().is_some_and(|instance| instance.listens))
    }

    /// Connects to what listens on a port of the pod.
    ///
    /// # Errors
    /// Why there is no connection, as the system call would say it.
    pub(super) async fn connect(&self, port: u16) -> Result<Process, String> {
        let live: Vec<Instance> = {
            let containers = self.containers.lock().expect("no panic under this lock");
            let live = containers.values().filter_map(|slot| slot.instance.clone());
            live.filter(|instance| instance.control.ended().is_none()).collect()
        };
        let mut refused = REFUSED.to_owned();
        for instance in live {
            match instance.connect(port).await {
                Ok(process) => return Ok(process),
                Err(reason) => refused = reason,
            }
        }
        Err(refused)
    }
}

/// A container's runs: the last one and the log of the one before.
#[derive(Default)]
pub(super) struct Slot {
    pub(super) instance: Option<Instance>,
    pub(super) previous: Option<LogBuffer>,
}

/// A pod's worker.
pub(super) struct Worker {
    kubelet: Arc<Inner>,
    /// The newest pod seen; `None` once it is gone.
    news: watch::Receiver<Option<Arc<Stored>>>,
    pod: Arc<Stored>,
    facts: Facts,
    plans: BTreeMap<String, Plan>,
    scripts: BTreeMap<String, Script>,
    running: Arc<Running>,
    ends: (mpsc::UnboundedSender<End>, mpsc::UnboundedReceiver<End>),
    findings: (mpsc::UnboundedSender<Probed>, mpsc::UnboundedReceiver<Probed>),
    /// When what still runs is killed, once stopping has begun.
    kill_at: Option<Timestamp>,
    killed: bool,
    /// Containers that end in their own time: first their hook, then the request.
    hooked: BTreeSet<String>,
    volumes: environment::Volumes,
    failures: u32,
}

/// The end of a container's run.
struct End {
    name: String,
    id: String,
    exit: Exit,
}

/// What to do after a round.
enum Round {
    Wait(Option<Timestamp>),
    Gone,
}

impl Worker {
    pub(super) fn new(
        kubelet: Arc<Inner>,
        pod: Arc<Stored>,
        news: watch::Receiver<Option<Arc<Stored>>>,
        running: Arc<Running>,
        host_ip: String,
    ) -> Self {
        let facts = Facts {
            accepted: kubelet.clock().now(),
            host_ip,
            ip: None,
            down: false,
            containers: BTreeMap::new(),
            failure: None,
            blocked: false,
        };
        let mut worker = Self {
            kubelet,
            news,
            pod,
            facts,
            plans: BTreeMap::new(),
            scripts: BTreeMap::new(),
            running,
            ends: mpsc::unbounded_channel(),
            findings: mpsc::unbounded_channel(),
            kill_at: None,
            killed: false,
            hooked: BTreeSet::new(),
            volumes: environment::Volumes::default(),
            failures: 0,
        };
        worker.read_scripts();
        worker
    }

    fn clock(&self) -> &Clock {
        self.kubelet.clock()
    }

    fn read_scripts(&mut self) {
        for field in ["initContainers", "containers", "ephemeralContainers"] {
            let containers = self.pod.at(&["spec", field]).and_then(Value::as_array);
            for container in containers.into_iter().flatten() {
                let text = |field: &str| container.get(field).and_then(Value::as_str).unwrap_or_default();
                let (name, image) = (text("name").to_owned(), text("image"));
                if self.plans.contains_key(&name) {
                    continue; // read when it came
                }
                let (script, refused) = match Script::choose(&self.pod, &name, image, &self.kubelet.settings.images) {
                    Ok(script) => (script, None),
                    Err(error) => (Script::default(), Some(error)),
                };
                let plan = Plan {
                    pull: script.pull_delay.unwrap_or_default(),
                    pull_error: script.pull_error.clone(),
                    start: script.start_delay.unwrap_or_default(),
                    refused,
                };
                self.plans.insert(name.clone(), plan);
                self.scripts.insert(name, script);
            }
        }
    }

    /// Runs the pod until it is gone or the kubelet stops. Whatever ends it, nothing of the pod is left running.
    pub(super) async fn run(mut self) {
        let stop = self.kubelet.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.drive() => {}
        }
        self.hooked.clear();
        self.signal_all(Signal::Kill);
        let instances: Vec<Instance> = {
            let containers = self.running.containers.lock().expect("no panic under this lock");
            containers.values().filter_map(|slot| slot.instance.clone()).collect()
        };
        for instance in instances {
            instance.control.wait().await;
        }
        if let Some(ip) = &self.facts.ip {
            self.kubelet.addresses.give_back(ip);
        }
        if let RuntimeKind::Real(real) = &self.kubelet.settings.runtime {
            real.remove_pod(self.pod.uid());
        }
    }

    async fn drive(&mut self) {
        loop {
            let round = match self.round().await {
                Ok(Round::Gone) => return,
                Ok(Round::Wait(wake)) => {
                    self.failures = 0;
                    wake
                }
                // Also where the pod is gone: the watch will say so.
                Err(error) => {
                    tracing::warn!(pod = self.pod.name(), %error, "kubelet could not write; trying again");
                    self.failures += 1;
                    self.clock().now().checked_add(retry_delay(self.failures)).ok()
                }
            };
            let clock = self.clock().clone();
            let wait = async {
                match round {
                    Some(time) => clock.sleep_until(time).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.news.changed() => {
                    let news = self.news.borrow_and_update().clone();
                    match (changed, news) {
                        (Ok(()), Some(pod)) => self.take_news(pod),
                        _ => return,
                    }
                }
                Some(end) = self.ends.1.recv() => self.take_end(&end),
                Some(probed) = self.findings.1.recv() => self.take_finding(probed).await,
                () = wait => {}
            }
        }
    }

    /// Takes a pod if it is newer than the one known.
    fn take_news(&mut self, pod: Arc<Stored>) {
        let revision = |pod: &Stored| pod.resource_version().parse::<u64>().unwrap_or_default();
        if revision(&pod) >= revision(&self.pod) {
            self.pod = pod;
            self.read_scripts(); // there may be more containers
        }
    }

    fn take_end(&mut self, end: &End) {
        let now = self.clock().now();
        if let Some(container) = self.facts.containers.get_mut(&end.name)
            && matches!(&container.state, State::Running { id, .. } if *id == end.id)
        {
            container.end(end.exit.code, now);
        }
    }

    /// Takes what a probe has found: a container becomes started or ready, or is stopped.
    async fn take_finding(&mut self, probed: Probed) {
        let Probed { name, id, purpose, finding, grace } = probed;
        let Some(container) = self.facts.containers.get_mut(&name) else { return };
        if !matches!(&container.state, State::Running { id: now, .. } if *now == id) || self.kill_at.is_some() {
            return;
        }
        match &finding {
            Finding::Passed => match purpose {
                Purpose::Startup => container.started = true,
                Purpose::Readiness => container.ready = true,
                Purpose::Liveness => {}
            },
            Finding::Failed { enough, .. } => {
                if purpose == Purpose::Readiness && *enough {
                    container.ready = false;
                }
            }
        }
        match finding {
            Finding::Passed if purpose == Purpose::Startup => {
                self.probe(&name, &id, &[Purpose::Readiness, Purpose::Liveness]);
            }
            Finding::Passed => {}
            Finding::Failed { output, enough } => {
                let word = purpose.word();
                self.event(true, "Unhealthy", &format!("{word} probe failed: {output}"), &name).await;
                if enough && purpose != Purpose::Readiness {
                    let kind = word.to_lowercase();
                    let again = self.pod.str_at(&["spec", "restartPolicy"]) != "Never";
                    let tail = if again { ", will be restarted" } else { "" };
                    self.event(false, "Killing", &format!("Container {name} failed {kind} probe{tail}"), &name).await;
                    let own = self.pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
                    self.end_container(&name, Duration::from_secs(grace.or(own).unwrap_or(30)));
                }
            }
        }
    }

    /// Asks one container to end, and kills it when its time is over: `killContainer` in
    /// `pkg/kubelet/kuberuntime/kuberuntime_container.go`.
    fn end_container(&self, name: &str, grace: Duration) {
        let Some(patient) = self.patient(name) else { return };
        let hook = self.hook(name, "preStop");
        let (kubelet, pod, name) = (self.kubelet.clone(), self.pod.clone(), name.to_owned());
        self.kubelet.tasks.spawn(async move {
            let (clock, control) = (&patient.clock, &patient.instance.control);
            let begun = clock.now();
            if let Some(hook) = hook.filter(|_| !grace.is_zero()) {
                let mut failed = false;
                let run = async { failed = hook.run(&patient, None, false).await.is_err() };
                let run = async {
                    tokio::select! {
                        biased;
                        _ = control.wait() => {}
                        () = run => {}
                    }
                };
                let in_time = clock.timeout(grace, run).await.is_some();
                // What it said may hold secrets, and is not told.
                if in_time && failed {
                    record(&kubelet, &pod, true, "FailedPreStopHook", "PreStopHook failed", &name).await;
                }
            }
            let passed = Duration::try_from(clock.now().duration_since(begun)).unwrap_or_default();
            let left = match grace.is_zero() {
                true => grace,
                false => grace.saturating_sub(passed).max(LAST_GRACE),
            };
            control.signal(Signal::Terminate);
            if clock.timeout(left, control.wait()).await.is_none() {
                control.signal(Signal::Kill);
            }
        });
    }

    /// A container's lifecycle hook.
    fn hook(&self, name: &str, which: &str) -> Option<Handler> {
        let spec = self.spec(name)?;
        Handler::of(spec.get("lifecycle")?.get(which)?, spec)
    }

    /// Runs the hook that follows a container's start; `false` if the container has to go. A deletion of the pod and the
    /// container's own end are not waited for.
    async fn post_start(&self, name: &str) -> bool {
        let (Some(hook), Some(patient)) = (self.hook(name, "postStart"), self.patient(name)) else { return true };
        let mut news = self.news.clone();
        let deleted = async {
            while news.changed().await.is_ok() {
                if news.borrow_and_update().as_ref().is_none_or(|pod| pod.is_deleting()) {
                    return;
                }
            }
        };
        let well = tokio::select! {
            biased;
            _ = patient.instance.control.wait() => return true,
            () = deleted => return true,
            done = hook.run(&patient, None, false) => done.is_ok(),
        };
        if !well {
            // What it said may hold secrets, and is not told.
            self.event(true, "FailedPostStartHook", "PostStartHook failed", name).await;
            self.event(false, "Killing", "FailedPostStartHook", name).await;
            let own = self.pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
            self.end_container(name, Duration::from_secs(own.unwrap_or(30)));
        }
        well
    }

    fn instance(&self, name: &str) -> Option<Instance> {
        let containers = self.running.containers.lock().expect("no panic under this lock");
        containers.get(name)?.instance.clone()
    }

    /// A container as probes and hooks see it.
    fn patient(&self, name: &str) -> Option<Patient> {
        Some(Patient {
            instance: self.instance(name)?,
            pod: self.running.clone(),
            ip: self.facts.ip.clone().unwrap_or_default(),
            clock: self.clock().clone(),
            tasks: self.kubelet.tasks.clone(),
        })
    }

    /// Starts a container's probes for these purposes.
    fn probe(&self, name: &str, id: &str, purposes: &[Purpose]) {
        let (Some(spec), Some(patient)) = (self.spec(name), self.patient(name)) else { return };
        let script = self.scripts.get(name).cloned().unwrap_or_default();
        for purpose in purposes {
            if let Some(probe) = Probe::of(spec, *purpose, &script) {
                let (name, id) = (name.to_owned(), id.to_owned());
                self.kubelet.tasks.spawn(probe.run(name, id, patient.clone(), self.findings.0.clone()));
            }
        }
    }

    /// Does all that is to be done now.
    async fn round(&mut self) -> Result<Round, Status> {
        // Ends that happened together are told together.
        while let Ok(end) = self.ends.1.try_recv() {
            self.take_end(&end);
        }
        self.facts.blocked = !self.kubelet.has_claims(&self.pod);
        self.ask_for_images();
        loop {
            let now = self.clock().now();
            let startup = self.kubelet.settings.startup;
            let (actions, mut wake) = phase::decide(&self.pod, &mut self.facts, &self.plans, startup, now);
            let mut again = false;
            let mut finished = false;
            for action in actions {
                match action {
                    Action::Stop => {
                        let at = self.stop().await;
                        wake = Some(wake.map_or(at, |wake| wake.min(at)));
                    }
                    Action::Finish => finished = true,
                    action => again |= self.act(action).await?,
                }
            }
            if finished {
                self.facts.down = true;
                self.write_status().await?;
                if self.pod.is_deleting() {
                    // A pod with finalizers stays until somebody else takes them away.
                    self.kubelet.node_api.delete(&core("pods"), &self.pod).await?;
                }
                return Ok(Round::Wait(None));
            }
            if !again {
                self.write_status().await?;
                return Ok(if self.gone() { Round::Gone } else { Round::Wait(wake) });
            }
        }
    }

    /// Asks the rules about the images that are to be pulled now.
    fn ask_for_images(&mut self) {
        let Some(rules) = self.kubelet.node_api.rules() else { return };
        let now = self.kubelet.clock().now();
        for (name, plan) in &mut self.plans {
            let pulls = self.facts.containers.get(name).is_some_and(|container| match &container.state {
                State::Fresh => plan.pull.is_zero() && plan.start.is_zero(),
                State::Waiting { reason, until, .. } => *until <= now && phase::is_pull(reason),
                _ => false,
            });
            if pulls {
                let image = spec_of(&self.pod, name).and_then(|spec| spec.get("image")?.as_str()).unwrap_or_default();
                let scripted = self.scripts.get(name).and_then(|script| script.pull_error.clone());
                plan.pull_error = rules.pull(self.pod.namespace(), self.pod.name(), image).or(scripted);
            }
        }
    }

    fn gone(&self) -> bool {
        self.news.borrow().is_none()
    }

    /// Stops what runs; when to kill what has not stopped.
    async fn stop(&mut self) -> Timestamp {
        let now = self.clock().now();
        let grace = self.pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_u64);
        let own = self.pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
        let grace = Duration::from_secs(grace.or(own).unwrap_or(30));
        let deadline = now.checked_add(grace).unwrap_or(Timestamp::MAX);
        match self.kill_at {
            None => {
                self.kill_at = Some(deadline);
                for name in self.live() {
                    let message = format!("Stopping container {name}");
                    self.event(false, "Killing", &message, &name).await;
                    if !grace.is_zero() && self.hook(&name, "preStop").is_some() {
                        self.end_container(&name, grace);
                        self.hooked.insert(name);
                    }
                }
                self.signal_all(Signal::Terminate);
            }
            // A second deletion may shorten the time, never lengthen it.
            Some(at) => {
                if deadline < at {
                    self.hooked.clear();
                }
                self.kill_at = Some(at.min(deadline));
            }
        }
        let at = self.kill_at.unwrap_or(deadline);
        if now >= at && !self.killed {
            self.killed = true;
            self.signal_all(Signal::Kill);
        }
        if self.killed { Timestamp::MAX } else { at }
    }

    fn live(&self) -> Vec<String> {
        let running = self.facts.containers.iter().filter(|(_, c)| matches!(c.state, State::Running { .. }));
        running.map(|(name, _)| name.clone()).collect()
    }

    fn signal_all(&self, signal: Signal) {
        for (name, slot) in self.running.containers.lock().expect("no panic under this lock").iter() {
            if let Some(instance) = slot.instance.as_ref().filter(|_| !self.hooked.contains(name)) {
                instance.control.signal(signal);
            }
        }
    }

    /// Does one thing; whether there may be more to do now.
    async fn act(&mut self, action: Action) -> Result<bool, Status> {
        match action {
            Action::Network => {
                let Some(ip) = self.kubelet.addresses.take() else {
                    return Err(Status::unexpected("no pod address is left in 10.244.0.0/16"));
                };
                self.facts.ip = Some(ip);
                return Ok(true);
            }
            Action::Pulling(name) => {
                let slow = self.plans.get(&name).is_some_and(|plan| !plan.pull.is_zero() || plan.pull_error.is_some());
                if slow {
                    let message = format!("Pulling image {:?}", self.image(&name));
                    self.event(false, "Pulling", &message, &name).await;
                }
                return Ok(true);
            }
            Action::PullFailed(name) => {
                let image = self.image(&name);
                let error = self.plans.get(&name).and_then(|plan| plan.pull_error.clone()).unwrap_or_default();
                self.event(true, "Failed", &format!("Failed to pull image {image:?}: {error}"), &name).await;
                self.event(true, "Failed", "Error: ErrImagePull", &name).await;
            }
            Action::PullBackOff(name) => {
                let message = format!("Back-off pulling image {:?}", self.image(&name));
                self.event(false, "BackOff", &message, &name).await;
                self.event(true, "Failed", "Error: ImagePullBackOff", &name).await;
            }
            Action::Refused(name) => {
                let reason = self.plans.get(&name).and_then(|plan| plan.refused.clone()).unwrap_or_default();
                self.event(true, "Failed", &format!("Error: {reason}"), &name).await;
            }
            Action::Start(name) => {
                self.start(&name).await?;
                return Ok(true);
            }
            Action::BackOff(name) => {
                let pod = format!("{}_{}({})", self.pod.name(), self.pod.namespace(), self.pod.uid());
                let container = self.facts.containers.get_mut(&name);
                if let Some(State::Waiting { message, until, .. }) = container.map(|container| &mut container.state) {
                    let left = until.duration_since(self.kubelet.clock().now()).as_secs();
                    let wait = match left.saturating_add(9) / 10 * 10 {
                        300.. => "5m0s".to_owned(),
                        seconds @ 60.. => format!("{}m{}s", seconds / 60, seconds % 60),
                        seconds => format!("{seconds}s"),
                    };
                    *message = format!("back-off {wait} restarting failed container={name} pod={pod}");
                }
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                self.event(true, "BackOff", &message, &name).await;
                return Ok(true);
            }
            Action::Stop | Action::Finish => {}
        }
        Ok(true)
    }

    fn spec(&self, name: &str) -> Option<&Value> {
        spec_of(&self.pod, name)
    }

    /// Whether a container is there to do something and end: an init container that is no sidecar.
    fn finishes(&self, name: &str) -> bool {
        let list = self.pod.at(&["spec", "initContainers"]).and_then(Value::as_array);
        let mut list = list.into_iter().flatten();
        let field = |spec: &Value, field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        list.any(|spec| field(spec, "name") == name && field(spec, "restartPolicy") != "Always")
    }

    fn image(&self, name: &str) -> String {
        let image = self.spec(name).and_then(|spec| spec.get("image")).and_then(Value::as_str);
        image.unwrap_or_default().to_owned()
    }

    async fn event(&self, warning: bool, reason: &str, message: &str, container: &str) {
        record(&self.kubelet, &self.pod, warning, reason, message, container).await;
    }

    /// Starts a container.
    async fn start(&mut self, name: &str) -> Result<(), Status> {
        let Some(spec) = self.spec(name).cloned() else { return Ok(()) };
        let image = self.image(name);
        let pulled = self.plans.get(name).map(|plan| plan.pull).filter(|pull| !pull.is_zero());
        let again = self.facts.containers.get(name).is_some_and(|container| container.last.is_some())
            || self.facts.containers.get(name).is_some_and(|container| matches!(container.state, State::Ended(_)));
        let message = match pulled {
            Some(pull) if !again => {
                let seconds = pull.as_secs_f64();
                format!(
                    "Successfully pulled image {image:?} in {seconds}s ({seconds}s including waiting). Image size: 4261574 bytes."
                )
            }
            _ => format!("Container image {image:?} already present on machine and can be accessed by the pod"),
        };
        self.event(false, "Pulled", &message, name).await;
        let ids = self.kubelet.node_api.ids();
        let id = format!("containerd://{}{}", ids.uid().replace('-', ""), ids.uid().replace('-', ""));
        let context =
            environment::Context { pod: &self.pod, host_ip: &self.facts.host_ip, ip: self.facts.ip.as_deref() };
        let env = match environment::variables(&self.kubelet.node_api, &context, &spec).await? {
            Ok(env) => env,
            Err(message) => {
                self.event(true, "Failed", &format!("Error: {message}"), name).await;
                let until = self.clock().now() + CONFIG_RETRY;
                if let Some(container) = self.facts.containers.get_mut(name) {
                    container.state = State::Waiting { reason: "CreateContainerConfigError", message, until };
                }
                return Ok(());
            }
        };
        let words = |field: &str| environment::words(spec.get(field), &env);
        // Without a command, the image's own program runs, whatever the arguments are.
        let command = match words("command") {
            command if command.is_empty() => Vec::new(),
            command => [command, words("args")].concat(),
        };
        let text = |field: &str| spec.get(field).and_then(Value::as_str).unwrap_or_default();
        let flag = |field: &str| spec.get(field).and_then(Value::as_bool).unwrap_or_default();
        let streams = Streams { stdin: flag("stdin"), stdin_once: flag("stdinOnce"), tty: flag("tty") };
        let runtime = match &self.kubelet.settings.runtime {
            RuntimeKind::Scripted => {
                let fs = self.volumes.mount(&self.kubelet, &context, &spec).await?;
                let script = self.scripts.get(name).cloned().unwrap_or_default();
                let cwd = match text("workingDir") {
                    "" => "/".to_owned(),
                    cwd => cwd.to_owned(),
                };
                let unknown = if self.finishes(name) { Unknown::Succeeds } else { Unknown::RunsForever };
                let setup = Setup { hostname: environment::hostname(&self.pod), env, cwd, fs, unknown };
                Runtime::Scripted(Box::new(Scripted::new(script, setup, self.clock(), &self.kubelet.tasks)))
            }
            RuntimeKind::Real(real) => match real.container(&self.pod, &spec, env, &self.kubelet.tasks).await {
                Ok(container) => Runtime::Real(container),
                Err(message) => {
                    self.event(true, "Failed", &format!("Error: {message}"), name).await;
                    if let Some(container) = self.facts.containers.get_mut(name) {
                        container.state = State::Refused { reason: "CreateContainerError", message };
                    }
                    return Ok(());
                }
            },
        };
        self.event(false, "Created", "Container created", name).await;
        let now = self.clock().now();
        let instance = Instance::start(runtime, command, streams, self.clock(), &self.kubelet.tasks);
        let control = instance.control.clone();
        {
            let mut containers = self.running.containers.lock().expect("no panic under this lock");
            let slot = containers.entry(name.to_owned()).or_default();
            if let Some(old) = slot.instance.replace(instance) {
                slot.previous = Some(old.log);
            }
        }
        if let Some(container) = self.facts.containers.get_mut(name) {
            container.begin(id.clone(), now);
            let has = |purpose| Probe::of(&spec, purpose, &Script::default()).is_some();
            container.started = !has(Purpose::Startup);
            container.ready = !has(Purpose::Readiness);
        }
        let (sender, name_sent, id_sent) = (self.ends.0.clone(), name.to_owned(), id.clone());
        self.kubelet.tasks.spawn(async move {
            let exit = control.wait().await;
            let _ = sender.send(End { name: name_sent, id: id_sent, exit }); // the worker is gone: nobody asks
        });
        self.event(false, "Started", "Container started", name).await;
        // Until its hook is through, the container does not count as running, and those after it wait.
        if self.post_start(name).await {
            match Probe::of(&spec, Purpose::Startup, &Script::default()) {
                Some(_) => self.probe(name, &id, &[Purpose::Startup]),
                None => self.probe(name, &id, &Purpose::ALL),
            }
        }
        Ok(())
    }

    /// Writes the status where it differs from what stands there.
    async fn write_status(&mut self) -> Result<(), Status> {
        let status = phase::status(&self.pod, &self.facts, self.clock().now());
        if !differs(&self.pod, &status) {
            return Ok(());
        }
        let patch = json!({ "metadata": { "uid": self.pod.uid() }, "status": ordered(&self.pod, status) });
        let place = (self.pod.namespace(), self.pod.name(), "status");
        let written = self.kubelet.node_api.patch(&core("pods"), place, patch).await?;
        self.take_news(written);
        Ok(())
    }
}

/// A container as its pod's spec has it.
fn spec_of<'a>(pod: &'a Object, name: &str) -> Option<&'a Value> {
    ["containers", "initContainers", "ephemeralContainers"].into_iter().find_map(|field| {
        let containers = pod.at(&["spec", field])?.as_array()?;
        containers.iter().find(|container| container.get("name").and_then(Value::as_str) == Some(name))
    })
}

/// Writes an event about a pod, or about one of its containers.
async fn record(kubelet: &Inner, pod: &Stored, warning: bool, reason: &str, message: &str, container: &str) {
    if !kubelet.settings.events {
        return;
    }
    let of = |field: &&str| {
        pod.at(&["spec", field]).and_then(Value::as_array).is_some_and(|containers| {
            containers.iter().any(|spec| spec.get("name").and_then(Value::as_str) == Some(container))
        })
    };
    let list = ["initContainers", "ephemeralContainers"].into_iter().find(of).unwrap_or("containers");
    let field = if container.is_empty() { String::new() } else { format!("spec.{list}{{{container}}}") };
    let happened = Happened { warning, reason, message, field, action: "" };
    kubelet.node_events.write(pod, happened).await;
}

/// Whether a status says anything that the pod's does not.
fn differs(pod: &Object, status: &Value) -> bool {
    let same = |old: Option<&Value>, new: &Value| match (old, new) {
        (None, Value::Null) => true,
        (old, new) => old == Some(new),
    };
    let Some(status) = status.as_object() else { return false };
    status.iter().any(|(field, new)| {
        let old = pod.at(&["status", field]);
        if field != "conditions" {
            return !same(old, new);
        }
        let old = old.and_then(Value::as_array);
        new.as_array().into_iter().flatten().any(|condition| {
            let kind = condition.get("type");
            let old = old.and_then(|all| all.iter().find(|old| old.get("type") == kind));
            let fields: Option<&Map<String, Value>> = condition.as_object();
            fields.into_iter().flatten().any(|(field, new)| !same(old.and_then(|old| old.get(field)), new))
        })
    })
}

/// The patch of a status: with the order that the conditions are to have, those of others included.
fn ordered(pod: &Object, mut status: Value) -> Value {
    let kinds = |list: Option<&Value>| -> Vec<Value> {
        let list = list.and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|condition| condition.get("type").cloned()).collect()
    };
    let mut order = kinds(status.get("conditions"));
    let own: BTreeSet<String> = order.iter().map(Value::to_string).collect();
    order.extend(kinds(pod.at(&["status", "conditions"])).into_iter().filter(|kind| !own.contains(&kind.to_string())));
    let order = order.into_iter().map(|kind| json!({ "type": kind })).collect();
    if let Some(status) = status.as_object_mut() {
        status.insert("$setElementOrder/conditions".into(), order);
    }
    status
}
