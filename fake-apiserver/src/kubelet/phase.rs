//! Pure: what a pod's kubelet does next, and what the pod's status says.
//!
//! [`decide`] moves [`Facts`] on to a time and says what has to be done; [`status`] writes `pod.status` from the same facts.
//! Rules and texts follow `pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go` and
//! `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use crate::{base::Object, clock::time_text};

/// The first wait before a container that ended is started again; it doubles with each end.
const BACK_OFF: Duration = Duration::from_secs(10);
/// The longest wait (`MaxContainerBackOff`).
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
/// A container that ran that long starts with the first wait again.
const BACK_OFF_RESET: Duration = Duration::from_secs(600);

/// What the kubelet knows of a pod, besides the pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    /// When the kubelet took the pod.
    pub(super) accepted: Timestamp,
    /// The node's address.
    pub(super) host_ip: String,
    /// The pod's address; known once its network is up.
    pub(super) ip: Option<String>,
    /// Whether the network has been taken down again.
    pub(super) down: bool,
    /// Containers by name, init containers too.
    pub(super) containers: BTreeMap<String, Container>,
    /// Why the whole pod was ended: reason and message.
    pub(super) failure: Option<(String, String)>,
    /// Why no container may start yet, for volumes that are not there.
    pub(super) blocked: bool,
}

/// What the kubelet knows of a container.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Container {
    pub(super) state: State,
    /// How the run before ended.
    pub(super) last: Option<Ended>,
    /// How often it was started again.
    pub(super) restarts: u32,
    /// Ends in a row, for the wait before the next start.
    pub(super) crashes: u32,
    /// Failed pulls in a row.
    pub(super) failed_pulls: u32,
    /// Whether the run has started as its startup probe wants it.
    pub(super) started: bool,
    /// Whether the run is ready as its readiness probe wants it.
    pub(super) ready: bool,
}

/// What a container does.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum State {
    /// Nothing yet; its turn has not come.
    #[default]
    Fresh,
    /// It waits until a time.
    Waiting { reason: &'static str, message: String, until: Timestamp },
    /// It cannot be made as its spec asks.
    Refused { reason: &'static str, message: String },
    /// It runs.
    Running { id: String, since: Timestamp },
    /// It has ended.
    Ended(Ended),
}

/// How a run of a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) code: i32,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

/// What a container's script says about starting it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) pull: Duration,
    pub(super) pull_error: Option<String>,
    pub(super) start: Duration,
    /// The container cannot be made: why.
    pub(super) refused: Option<String>,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Bring up the pod's network: give it an address.
    Network,
    /// Say that the image is being pulled.
    Pulling(String),
    /// Say that the image could not be pulled.
    PullFailed(String),
    /// Say that pulling it again has to wait.
    PullBackOff(String),
    /// Say that the container cannot be made.
    Refused(String),
    /// Start the container.
    Start(String),
    /// Say that starting it again has to wait.
    BackOff(String),
    /// Stop every container that runs.
    Stop,
    /// Nothing runs and nothing will: take down the network; a pod that is being deleted may go.
    Finish,
}

impl Container {
    /// The container has been started.
    pub(super) fn begin(&mut self, id: String, now: Timestamp) {
        if let State::Ended(ended) = &self.state {
            self.last = Some(ended.clone());
        }
        if self.last.is_some() {
            self.restarts += 1;
        }
        self.failed_pulls = 0;
        (self.started, self.ready) = (true, true); // what has probes is told by them
        self.state = State::Running { id, since: now };
    }

    /// The container has ended.
    pub(super) fn end(&mut self, code: i32, now: Timestamp) {
        if let State::Running { id, since } = &self.state {
            let ended = Ended { id: id.clone(), code, started: *since, finished: now };
            let ran = Duration::try_from(now.duration_since(*since)).unwrap_or_default();
            self.crashes = if ran >= BACK_OFF_RESET { 1 } else { self.crashes + 1 };
            self.state = State::Ended(ended);
        }
    }

    fn running(&self) -> bool {
        matches!(self.state, State::Running { .. })
    }

    /// Whether it runs, and its probes say that it is up.
    fn serves(&self) -> bool {
        self.running() && self.started && self.ready
    }

    /// How long the next start waits, counted from the last end.
    fn back_off(&self) -> Duration {
        match self.crashes {
            0 | 1 => Duration::ZERO, // the first restart comes at once
            crashes => doubled(crashes - 2),
        }
    }
}

fn doubled(times: u32) -> Duration {
    BACK_OFF.saturating_mul(1 << times.min(10)).min(BACK_OFF_MAX)
}

/// When a container is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Always,
    OnFailure,
    Never,
}

/// The part a container plays in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Init,
    /// An init container with `restartPolicy: Always`.
    Sidecar,
    Main,
    /// Added to look at the others; nothing depends on it.
    Ephemeral,
}

impl Role {
    /// Whether the main containers wait for it.
    fn comes_first(self) -> bool {
        matches!(self, Self::Init | Self::Sidecar)
    }
}

/// A container as the pod's spec has it.
struct Spec<'a> {
    name: &'a str,
    value: &'a Value,
    role: Role,
    policy: Policy,
}

fn policy(text: Option<&Value>) -> Option<Policy> {
    match text.and_then(Value::as_str)? {
        "Always" => Some(Policy::Always),
        "OnFailure" => Some(Policy::OnFailure),
        "Never" => Some(Policy::Never),
        _ => None,
    }
}

fn specs(pod: &Object) -> Vec<Spec<'_>> {
    let pod_policy = policy(pod.at(&["spec", "restartPolicy"])).unwrap_or(Policy::Always);
    let list = |field: &str| pod.at(&["spec", field]).and_then(Value::as_array).into_iter().flatten();
    let mut specs = Vec::new();
    for (field, init) in [("initContainers", true), ("containers", false)] {
        for value in list(field) {
            let own = policy(value.get("restartPolicy"));
            let (role, policy) = match (init, own) {
                (true, Some(Policy::Always)) => (Role::Sidecar, Policy::Always),
                // An init container that succeeded is done, whatever the pod's policy.
                (true, own) => match own.unwrap_or(pod_policy) {
                    Policy::Never => (Role::Init, Policy::Never),
                    Policy::Always | Policy::OnFailure => (Role::Init, Policy::OnFailure),
                },
                (false, own) => (Role::Main, own.unwrap_or(pod_policy)),
            };
            let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
            specs.push(Spec { name, value, role, policy });
        }
    }
    for value in list("ephemeralContainers") {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
        specs.push(Spec { name, value, role: Role::Ephemeral, policy: Policy::Never });
    }
    specs
}

fn restarts(policy: Policy, ended: &Ended) -> bool {
    match policy {
        Policy::Always => true,
        Policy::OnFailure => ended.code != 0,
        Policy::Never => false,
    }
}

fn later(time: Timestamp, by: Duration) -> Timestamp {
    let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
    time.saturating_add(by).unwrap_or(Timestamp::MAX)
}

/// What is to be done for a pod at a time, and when to ask again. Call it again after doing what it says, until it says
/// nothing more.
pub(super) fn decide(
    pod: &Object,
    facts: &mut Facts,
    plans: &BTreeMap<String, Plan>,
    startup: Duration,
    now: Timestamp,
) -> (Vec<Action>, Option<Timestamp>) {
    let specs = specs(pod);
    for spec in &specs {
        facts.containers.entry(spec.name.to_owned()).or_default();
    }
    let mut next = Next { actions: Vec::new(), wake: None };
    if let Some(seconds) = pod.at(&["spec", "activeDeadlineSeconds"]).and_then(Value::as_u64)
        && facts.failure.is_none()
        && !facts.down
    {
        let deadline = later(facts.accepted, Duration::from_secs(seconds));
        if now >= deadline {
            let message = "Pod was active on the node longer than the specified deadline";
            facts.failure = Some(("DeadlineExceeded".into(), message.into()));
        } else {
            next.wake_at(deadline);
        }
    }
    if pod.is_deleting() || facts.failure.is_some() || done(&specs, facts) {
        if facts.containers.values().any(Container::running) {
            next.actions.push(Action::Stop);
        } else if !facts.down || pod.is_deleting() {
            next.actions.push(Action::Finish);
        }
        return (next.actions, next.wake);
    }
    if facts.blocked {
        return (next.actions, next.wake);
    }
    if facts.ip.is_none() {
        let ready = later(facts.accepted, startup);
        if now < ready {
            next.wake_at(ready);
        } else {
            next.actions.push(Action::Network);
        }
        return (next.actions, next.wake);
    }
    let none = Plan::default();
    for spec in &specs {
        let container = facts.containers.get_mut(spec.name).expect("made above");
        step(spec, container, plans.get(spec.name).unwrap_or(&none), startup, now, &mut next);
        let passed = match (spec.role, &container.state) {
            (Role::Main | Role::Ephemeral, _) => true,
            (Role::Sidecar, State::Running { .. }) => container.started,
            (Role::Sidecar, _) => container.restarts > 0 || container.last.is_some(), // it has been up once
            (Role::Init, State::Ended(ended)) => ended.code == 0,
            (Role::Init, _) => false,
        };
        if !passed {
            break;
        }
    }
    (next.actions, next.wake)
}

struct Next {
    actions: Vec<Action>,
    wake: Option<Timestamp>,
}

impl Next {
    fn wake_at(&mut self, time: Timestamp) {
        self.wake = Some(self.wake.map_or(time, |wake| wake.min(time)));
    }
}

fn step(spec: &Spec<'_>, container: &mut Container, plan: &Plan, startup: Duration, now: Timestamp, next: &mut Next) {
    let name = || spec.name.to_owned();
    if matches!(container.state, State::Fresh) {
        if let Some(message) = &plan.refused {
            container.state = State::Refused { reason: "CreateContainerConfigError", message: message.clone() };
            next.actions.push(Action::Refused(name()));
            return;
        }
        let until = later(now, plan.pull + plan.start);
        container.state = State::Waiting { reason: CREATING, message: String::new(), until };
        next.actions.push(Action::Pulling(name()));
    }
    if let State::Ended(ended) = &container.state {
        if !restarts(spec.policy, ended) {
            return;
        }
        let noticed = later(ended.finished, startup);
        let until = later(ended.finished, container.back_off());
        if now < noticed {
            next.wake_at(noticed);
        } else if now >= until {
            next.actions.push(Action::Start(name()));
        } else {
            container.last = Some(ended.clone());
            container.state = State::Waiting { reason: CRASHING, message: String::new(), until };
            next.actions.push(Action::BackOff(name()));
        }
    }
    if let State::Waiting { reason, until, .. } = &container.state {
        let (reason, until) = (*reason, *until);
        if now < until {
            next.wake_at(until);
            return;
        }
        match (&plan.pull_error, reason) {
            (None, _) | (Some(_), CRASHING) => next.actions.push(Action::Start(name())),
            (Some(_), PULL_FAILED) => {
                let until = later(now, doubled(container.failed_pulls.saturating_sub(1)));
                let image = spec.value.get("image").and_then(Value::as_str).unwrap_or_default();
                let message = format!("Back-off pulling image {image:?}");
                container.state = State::Waiting { reason: PULL_WAITS, message, until };
                next.actions.push(Action::PullBackOff(name()));
                next.wake_at(until);
            }
            (Some(error), _) => {
                container.failed_pulls += 1;
                let until = later(now, startup.max(Duration::from_millis(1)));
                container.state = State::Waiting { reason: PULL_FAILED, message: error.clone(), until };
                next.actions.push(Action::PullFailed(name()));
                next.wake_at(until);
            }
        }
    }
}

/// Whether a container that waits for this is to be pulled when its time has come.
pub(super) fn is_pull(reason: &str) -> bool {
    matches!(reason, CREATING | PULL_WAITS)
}

const CREATING: &str = "ContainerCreating";
const CRASHING: &str = "CrashLoopBackOff";
const PULL_FAILED: &str = "ErrImagePull";
const PULL_WAITS: &str = "ImagePullBackOff";

/// Whether nothing of the pod will ever run again.
fn done(specs: &[Spec<'_>], facts: &Facts) -> bool {
    let final_end = |spec: &Spec<'_>| match &facts.containers.get(spec.name).map(|c| &c.state) {
        Some(State::Ended(ended)) => !restarts(spec.policy, ended),
        _ => false,
    };
    let failed_init = specs.iter().filter(|spec| spec.role == Role::Init).any(|spec| {
        let state = facts.containers.get(spec.name).map(|container| &container.state);
        matches!(state, Some(State::Ended(ended)) if ended.code != 0 && spec.policy == Policy::Never)
    });
    failed_init || specs.iter().filter(|spec| spec.role == Role::Main).all(final_end)
}

/// How a pod stands as a whole; upstream's `getPhase`.
fn phase(pod: &Object, specs: &[Spec<'_>], facts: &Facts) -> &'static str {
    let terminal = facts.failure.is_some() || facts.down;
    if facts.failure.is_some() {
        return "Failed";
    }
    let of = |spec: &Spec<'_>| facts.containers.get(spec.name);
    let mut pending_init = false;
    for spec in specs.iter().filter(|spec| spec.role.comes_first()) {
        let Some(container) = of(spec) else { continue };
        match (spec.role, &container.state) {
            (Role::Sidecar, State::Running { .. } | State::Ended(_)) => {}
            (Role::Sidecar, _) => pending_init |= container.last.is_none(),
            (_, State::Ended(ended)) if ended.code == 0 => {}
            (_, State::Ended(_)) if spec.policy == Policy::Never => return "Failed",
            _ => pending_init = true,
        }
    }
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in specs.iter().filter(|spec| spec.role == Role::Main).filter_map(of) {
        match (&container.state, &container.last) {
            (State::Running { .. }, _) => running += 1,
            (State::Ended(ended), _) => {
                stopped += 1;
                succeeded += i32::from(ended.code == 0);
            }
            (State::Fresh | State::Waiting { .. } | State::Refused { .. }, Some(_)) => stopped += 1,
            (State::Fresh | State::Waiting { .. } | State::Refused { .. }, None) => waiting += 1,
        }
    }
    let pod_policy = policy(pod.at(&["spec", "restartPolicy"])).unwrap_or(Policy::Always);
    if terminal && running == 0 {
        return if stopped > 0 && stopped == succeeded && waiting == 0 { "Succeeded" } else { "Failed" };
    }
    match pod_policy {
        _ if pending_init || waiting > 0 => "Pending",
        _ if running > 0 => "Running",
        Policy::Always if !done(specs, facts) => "Running",
        _ if stopped == succeeded => "Succeeded",
        _ if done(specs, facts) => "Failed",
        Policy::Always | Policy::OnFailure | Policy::Never => "Running",
    }
}

/// `pod.status`, without what others own (`qosClass`, conditions of others), and with `null` where something has to go.
pub(super) fn status(pod: &Object, facts: &Facts, now: Timestamp) -> Value {
    let specs = specs(pod);
    let phase = phase(pod, &specs, facts);
    let mut init_statuses = Vec::new();
    let mut statuses = Vec::new();
    let mut ephemeral_statuses = Vec::new();
    let initialized = specs.iter().filter(|spec| spec.role.comes_first()).all(|spec| passed(spec, facts));
    for spec in &specs {
        let container = facts.containers.get(spec.name).cloned().unwrap_or_default();
        let value = container_status(spec, &container, !initialized);
        match spec.role {
            Role::Main => statuses.push(value),
            Role::Init | Role::Sidecar => init_statuses.push(value),
            Role::Ephemeral => ephemeral_statuses.push(value),
        }
    }
    let mut status = Map::new();
    status.insert("phase".into(), phase.into());
    status.insert("observedGeneration".into(), pod.generation().into());
    status.insert("conditions".into(), conditions(pod, &specs, facts, phase, initialized, now));
    status.insert("hostIP".into(), facts.host_ip.clone().into());
    status.insert("hostIPs".into(), json!([{ "ip": facts.host_ip }]));
    status.insert("startTime".into(), time_text(facts.accepted).into());
    if let Some(ip) = &facts.ip {
        status.insert("podIP".into(), ip.clone().into());
        status.insert("podIPs".into(), json!([{ "ip": ip }]));
    }
    if !init_statuses.is_empty() {
        status.insert("initContainerStatuses".into(), init_statuses.into());
    }
    status.insert("containerStatuses".into(), statuses.into());
    if !ephemeral_statuses.is_empty() {
        status.insert("ephemeralContainerStatuses".into(), ephemeral_statuses.into());
    }
    if let Some((reason, message)) = &facts.failure {
        status.insert("reason".into(), reason.clone().into());
        status.insert("message".into(), message.clone().into());
    }
    Value::Object(status)
}

fn passed(spec: &Spec<'_>, facts: &Facts) -> bool {
    let Some(container) = facts.containers.get(spec.name) else { return false };
    match (spec.role, &container.state) {
        (Role::Sidecar, State::Running { .. }) => container.started,
        (Role::Sidecar, State::Ended(_)) => true,
        (Role::Sidecar, _) => container.last.is_some(),
        (_, State::Ended(ended)) => ended.code == 0,
        _ => false,
    }
}

/// A reference as containerd reports it: with registry and tag.
fn full_image(image: &str) -> String {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (first, rest) = name.split_once('/').map_or(("", name), |(first, rest)| (first, rest));
    let registry = first.contains(['.', ':']) || first == "localhost";
    let full = match (registry, first) {
        (true, _) => name.to_owned(),
        (false, "") => format!("docker.io/library/{rest}"),
        (false, _) => format!("docker.io/{name}"),
    };
    match digest {
        Some(digest) => format!("{full}@{digest}"),
        None if full.rsplit('/').next().is_some_and(|last| last.contains(':')) => full,
        None => format!("{full}:latest"),
    }
}

/// The digest of an image: made up from its name, always the same.
fn image_id(full: &str) -> String {
    let name = full.split('@').next().unwrap_or(full);
    let slash = name.rfind('/').unwrap_or(0);
    let repository = name[slash..].find(':').map_or(name, |at| &name[..slash + at]);
    if let Some((_, digest)) = full.split_once('@') {
        return format!("{repository}@{digest}");
    }
    let mut digest = String::new();
    for round in 0..4_u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ round.wrapping_mul(0x9e37_79b9_7f4a_7c15); // FNV-1a
        for byte in full.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        digest.push_str(&format!("{hash:016x}"));
    }
    format!("{repository}@sha256:{digest}")
}

fn container_status(spec: &Spec<'_>, container: &Container, initializing: bool) -> Value {
    let image = spec.value.get("image").and_then(Value::as_str).unwrap_or_default();
    let mut status = json!({
        "name": spec.name,
        "image": image,
        "imageID": "",
        "restartCount": container.restarts,
        "ready": false,
        "started": false,
        "state": {},
        "lastState": {},
    });
    let ran = container.last.is_some() || matches!(container.state, State::Running { .. } | State::Ended(_));
    if ran {
        let full = full_image(image);
        status["imageID"] = image_id(&full).into();
        status["image"] = full.into();
    }
    if let Some(last) = &container.last {
        status["lastState"] = json!({ "terminated": terminated(last) });
        status["containerID"] = last.id.clone().into();
    }
    let mut waiting = |reason: &str, message: &str| {
        let mut value = json!({ "reason": reason });
        if !message.is_empty() {
            value["message"] = message.into();
        }
        status["state"] = json!({ "waiting": value });
    };
    // While others initialize, a container that has not had its turn says so.
    let first = if initializing { "PodInitializing" } else { CREATING };
    match &container.state {
        State::Fresh => waiting(first, ""),
        State::Waiting { reason: CREATING, .. } => waiting(first, ""),
        State::Waiting { reason, message, .. } => waiting(reason, message),
        State::Refused { reason, message } => waiting(reason, message),
        State::Running { id, since } => {
            status["containerID"] = id.clone().into();
            status["state"] = json!({ "running": { "startedAt": time_text(*since) } });
            status["started"] = container.started.into();
            let shows = matches!(spec.role, Role::Main | Role::Sidecar);
            status["ready"] = (shows && container.serves()).into();
        }
        State::Ended(ended) => {
            status["containerID"] = ended.id.clone().into();
            status["state"] = json!({ "terminated": terminated(ended) });
            // An init container that did its work counts as ready.
            status["ready"] = (spec.role == Role::Init && ended.code == 0).into();
        }
    }
    // A container that never had its turn is reported without these.
    if ran {
        status["resources"] = spec.value.get("resources").cloned().unwrap_or_else(|| json!({}));
        if let Some(requests) = spec.value.get("resources").and_then(|resources| resources.get("requests")) {
            status["allocatedResources"] = requests.clone();
        }
        let user = |field: &str| {
            let context = spec.value.get("securityContext");
            context.and_then(|context| context.get(field)).and_then(Value::as_i64).unwrap_or(0)
        };
        let (uid, gid) = (user("runAsUser"), user("runAsGroup"));
        status["user"] = json!({ "linux": { "uid": uid, "gid": gid, "supplementalGroups": [gid] } });
    }
    if let Some(mounts) = spec.value.get("volumeMounts").and_then(Value::as_array) {
        let mounts = mounts.iter().map(|mount| {
            let mut value = json!({ "name": mount.get("name"), "mountPath": mount.get("mountPath") });
            if mount.get("readOnly").and_then(Value::as_bool) == Some(true) {
                value["readOnly"] = true.into();
                value["recursiveReadOnly"] = "Disabled".into();
            }
            value
        });
        status["volumeMounts"] = mounts.collect();
    }
    status
}

fn terminated(ended: &Ended) -> Value {
    let mut value = json!({
        "exitCode": ended.code,
        "reason": if ended.code == 0 { "Completed" } else { "Error" },
        "startedAt": time_text(ended.started),
        "finishedAt": time_text(ended.finished),
        "containerID": ended.id,
    });
    if ended.code == 128 {
        value["reason"] = "StartError".into();
    }
    value
}

fn conditions(
    pod: &Object,
    specs: &[Spec<'_>],
    facts: &Facts,
    phase: &str,
    initialized: bool,
    now: Timestamp,
) -> Value {
    let old = pod.at(&["status", "conditions"]).and_then(Value::as_array);
    let old = |kind: &str| old?.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind));
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let same = old(kind).filter(|old| old.get("status").and_then(Value::as_str) == Some(status));
        let since = same.and_then(|old| old.get("lastTransitionTime")).filter(|time| time.is_string()).cloned();
        let mut value = json!({
            "type": kind,
            "status": status,
            "observedGeneration": pod.generation(),
            "lastProbeTime": null,
            "lastTransitionTime": since.unwrap_or_else(|| time_text(now).into()),
        });
        // What stood there before is taken away by name: the patch is merged by type.
        for (field, text) in [("reason", reason), ("message", message)] {
            if !text.is_empty() {
                value[field] = text.into();
            } else if old(kind).is_some_and(|old| old.get(field).is_some()) {
                value[field] = Value::Null;
            }
        }
        value
    };
    let completed = phase == "Succeeded";
    let incomplete: Vec<&str> =
        specs.iter().filter(|s| s.role.comes_first() && !passed(s, facts)).map(|spec| spec.name).collect();
    let unready: Vec<&str> = specs
        .iter()
        .filter(|spec| match spec.role {
            Role::Init | Role::Ephemeral => false,
            Role::Main | Role::Sidecar => !facts.containers.get(spec.name).is_some_and(Container::serves),
        })
        .map(|spec| spec.name)
        .collect();
    let (ready, reason, message) = if completed {
        (false, "PodCompleted", String::new())
    } else if phase == "Failed" {
        (false, "PodFailed", String::new())
    } else if unready.is_empty() {
        (true, "", String::new())
    } else {
        (false, "ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
    };
    let gates = gates(pod);
    let (gated, gate_reason, gate_message) = match (ready, gates.is_empty()) {
        (true, false) => (false, "ReadinessGatesNotReady", gates.join(", ")),
        _ => (ready, reason, message.clone()),
    };
    let initialization = match (completed, initialized || completed) {
        (true, _) => (true, "PodCompleted", String::new()),
        (false, true) => (true, "", String::new()),
        (false, false) => {
            let names = incomplete.join(" ");
            (false, "ContainersNotInitialized", format!("containers with incomplete status: [{names}]"))
        }
    };
    Value::Array(vec![
        condition("PodReadyToStartContainers", facts.ip.is_some() && !facts.down, "", ""),
        condition("Initialized", initialization.0, initialization.1, &initialization.2),
        condition("Ready", gated, gate_reason, &gate_message),
        condition("ContainersReady", ready, reason, &message),
        condition("PodScheduled", true, "", ""),
    ])
}

/// What keeps the pod's readiness gates shut, in words.
fn gates(pod: &Object) -> Vec<String> {
    let gates = pod.at(&["spec", "readinessGates"]).and_then(Value::as_array).into_iter().flatten();
    let conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array);
    let mut shut = Vec::new();
    for kind in gates.filter_map(|gate| gate.get("conditionType")?.as_str()) {
        let found = conditions.and_then(|all| all.iter().find(|c| c.get("type").and_then(Value::as_str) == Some(kind)));
        match found.map(|condition| condition.get("status").and_then(Value::as_str).unwrap_or_default()) {
            None => shut.push(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
            Some("True") => {}
            Some(status) => {
                shut.push(format!("the status of pod readiness gate {kind:?} is not \"True\", but {status}"));
            }
        }
    }
    shut
}

#[cfg(test)]
mod tests;
