//! The kubelet against a registry, on virtual time.

mod handlers;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    base::Gvr,
    ids::Ids,
    registry::{Caller, DeleteOptions, ListOptions, Registry, Target},
};

struct Cluster {
    registry: Registry,
    kubelet: Kubelet,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Cluster {
    async fn start(settings: Settings) -> Self {
        let registry = Registry::new(Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap()), Ids::seeded(7));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        for name in ["default", "kube-node-lease"] {
            let namespace = Object::new("v1", "Namespace", "", name);
            let target = registry.target(&core("namespaces"), "", "", "").unwrap();
            registry.create(&target, &Caller::default(), namespace.into()).await.unwrap();
        }
        let mut account = Object::new("v1", "ServiceAccount", "default", "default");
        account.set_at(&["metadata", "labels"], json!({}));
        let target = registry.target(&core("serviceaccounts"), "default", "", "").unwrap();
        registry.create(&target, &Caller::default(), account.into()).await.unwrap();
        let kubelet = Kubelet::start(&registry.clone().into(), settings, stop.clone(), tasks.clone());
        Self { registry, kubelet, stop, tasks }
    }

    fn target(&self, resource: &str, name: &str) -> Target {
        let namespace = if matches!(resource, "nodes" | "persistentvolumes") { "" } else { "default" };
        self.registry.target(&core(resource), namespace, name, "").unwrap()
    }

    async fn create(&self, resource: &str, value: Value) -> Arc<Stored> {
        let object = Object::from_value(value).unwrap();
        self.registry.create(&self.target(resource, ""), &Caller::default(), object.into()).await.unwrap()
    }

    async fn pod(&self, name: &str, annotations: Value, spec: Value) -> Arc<Stored> {
        let metadata = json!({ "name": name, "namespace": "default", "annotations": annotations });
        self.create("pods", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await
    }

    async fn get(&self, resource: &str, name: &str) -> Option<Arc<Stored>> {
        self.registry.get(&self.target(resource, name), "").await.ok()
    }

    /// Waits until an object is as asked; its history is what the failure shows.
    async fn until(&self, resource: &str, name: &str, holds: impl Fn(Option<&Object>) -> bool) -> Option<Arc<Stored>> {
        let waited = async {
            let options = ListOptions { field_selector: format!("metadata.name={name}"), ..ListOptions::default() };
            let mut watcher = self.registry.watch(&self.target(resource, ""), &options).await.unwrap();
            loop {
                let object = self.get(resource, name).await;
                if holds(object.as_deref().map(Stored::object)) {
                    return object;
                }
                watcher.next().await;
            }
        };
        match self.registry.clock().timeout(Duration::from_secs(3600), waited).await {
            Some(object) => object,
            None => panic!("{resource}/{name} is {:#?}", self.get(resource, name).await.map(|o| o.object().to_value())),
        }
    }

    async fn running(&self, name: &str) -> Arc<Stored> {
        self.until("pods", name, |pod| pod.is_some_and(|pod| pod.str_at(&["status", "phase"]) == "Running"))
            .await
            .unwrap()
    }

    async fn delete(&self, resource: &str, name: &str) {
        let target = self.target(resource, name);
        self.registry.delete(&target, &Caller::default(), &DeleteOptions::default()).await.unwrap();
    }

    async fn events(&self, name: &str) -> Vec<String> {
        let list = self.registry.list(&self.target("events", ""), &ListOptions::default()).await.unwrap();
        let mut about: Vec<_> = list
            .items
            .iter()
            .filter(|event| event.str_at(&["involvedObject", "name"]) == name)
            .map(|event| {
                let count = event.get("count").and_then(Value::as_u64).unwrap_or(1);
                (
                    event.name().to_owned(),
                    format!("{} x{count}: {}", event.str_at(&["reason"]), event.str_at(&["message"])),
                )
            })
            .collect();
        about.sort();
        about.into_iter().map(|(_, text)| text).collect()
    }

    async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn condition<'a>(pod: &'a Object, kind: &str) -> &'a Value {
    let all = pod.at(&["status", "conditions"]).and_then(Value::as_array).unwrap();
    all.iter().find(|condition| condition["type"] == kind).unwrap()
}

async fn read(pipe: Option<tokio::io::DuplexStream>) -> String {
    let mut text = String::new();
    pipe.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

const OUT: Wanted = Wanted { stdin: false, stdout: true, stderr: true, tty: false };

#[tokio::test(start_paused = true)]
async fn a_pod_is_bound_runs_and_has_a_log_and_commands() {
    let cluster = Cluster::start(Settings::default()).await;
    let command = json!(["sh", "-c", "echo hello; echo kept > /data/f; sleep 1000"]);
    let spec = json!({
        "containers": [{ "name": "main", "image": "busybox", "command": command, "env": [{ "name": "A", "value": "b" }],
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }] }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    });
    cluster.pod("p", json!({}), spec).await;
    let pod = cluster.running("p").await;
    assert_eq!(pod.str_at(&["spec", "nodeName"]), "fake-node-1");
    assert_eq!(pod.str_at(&["status", "podIP"]), "10.244.0.2");
    let kinds: Vec<&str> = pod
        .at(&["status", "conditions"])
        .and_then(Value::as_array)
        .unwrap()
        .iter()
        .map(|condition| condition["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]);
    assert_eq!(condition(&pod, "Ready")["lastTransitionTime"], "2026-01-01T00:00:01Z");
    assert_eq!(condition(&pod, "PodScheduled")["lastTransitionTime"], "2026-01-01T00:00:00Z");

    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut log = cluster.kubelet.logs(&pod, &options).unwrap();
    assert_eq!(log.next().await.unwrap(), "hello\n");

    let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let exec = |command: &[&str]| cluster.kubelet.exec("default", "p", "main", words(command), OUT).unwrap();
    let process = exec(&["sh", "-c", "cat /data/f; echo $A; exit 3"]);
    assert_eq!((read(process.pipes.stdout).await.as_str(), process.control.wait().await.code), ("kept\nb\n", 3));
    let process = exec(&["git", "status"]);
    assert_eq!(
        read(process.pipes.stderr).await,
        "OCI runtime exec failed: exec failed: unable to start container process: exec: \"git\": executable file not \
         found in $PATH: unknown\r\n"
    );
    assert_eq!(process.control.wait().await.code, 127);
    let missing = cluster.kubelet.exec("default", "p", "other", words(&["ls"]), OUT).unwrap_err();
    assert_eq!(
        missing.message,
        "Internal error occurred: unable to upgrade connection: container not found (\"other\")"
    );

    let events = cluster.events("p").await;
    let reasons: Vec<&str> = events.iter().map(|event| event.split(' ').next().unwrap()).collect();
    assert_eq!(reasons, ["Scheduled", "Pulled", "Created", "Started"], "{events:#?}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_ends_its_commands_frees_its_address_and_goes() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "containers": [{ "name": "main", "image": "nginx" }] });
    cluster.pod("p", json!({}), spec.clone()).await;
    cluster.running("p").await;
    let wanted = Wanted { stdin: true, ..OUT };
    let process = cluster.kubelet.exec("default", "p", "", vec!["cat".into()], wanted).unwrap();
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    assert_eq!(process.control.wait().await, Exit::signal(Signal::Kill));
    assert_eq!(cluster.registry.clock().now_text(), "2026-01-01T00:00:01Z", "a scripted container stops at once");
    cluster.pod("p", json!({}), spec).await;
    let pod = cluster.running("p").await;
    assert_eq!(pod.str_at(&["status", "podIP"]), "10.244.0.3");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_does_not_stop_is_killed_when_its_time_is_up() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "terminationGracePeriodSeconds": 20, "containers": [{ "name": "main", "image": "nginx" }] });
    cluster.pod("p", json!({ ANNOTATION: "stopDelay: 60s" }), spec).await;
    cluster.running("p").await;
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    assert_eq!(cluster.registry.clock().now_text(), "2026-01-01T00:00:21Z");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_done_its_work_succeeds_and_keeps_its_log() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox",
        "command": ["sh", "-c", "echo working; sleep 90; echo done"] }] });
    cluster.pod("p", json!({}), spec).await;
    let pod = cluster
        .until("pods", "p", |pod| pod.is_some_and(|pod| pod.str_at(&["status", "phase"]) == "Succeeded"))
        .await
        .unwrap();
    assert_eq!(condition(&pod, "Ready")["reason"], "PodCompleted");
    assert_eq!(condition(&pod, "Ready")["lastTransitionTime"], "2026-01-01T00:01:31Z");
    let mut log = cluster.kubelet.logs(&pod, &LogOptions { follow: true, ..LogOptions::default() }).unwrap();
    let mut text = Vec::new();
    while let Some(piece) = log.next().await {
        text.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8(text).unwrap(), "working\ndone\n");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_crashing_container_backs_off_and_shows_the_log_of_the_run_before() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "containers": [{ "name": "main", "image": "app" }] });
    cluster.pod("p", json!({ ANNOTATION: "{run: 2s, exitCode: 1, log: [failing]}" }), spec).await;
    let pod = cluster
        .until("pods", "p", |pod| {
            let statuses = pod.and_then(|pod| pod.at(&["status", "containerStatuses"])).and_then(Value::as_array);
            statuses.is_some_and(|statuses| statuses[0]["state"]["waiting"]["reason"] == "CrashLoopBackOff")
        })
        .await
        .unwrap();
    let status = &pod.at(&["status", "containerStatuses"]).and_then(Value::as_array).unwrap()[0];
    assert_eq!((&status["restartCount"], &status["lastState"]["terminated"]["reason"]), (&1.into(), &"Error".into()));
    let message = status["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("back-off 10s restarting failed container=main pod=p_default("), "{message}");
    let options = LogOptions { previous: true, ..LogOptions::default() };
    let mut log = cluster.kubelet.logs(&pod, &options).unwrap();
    assert_eq!(log.next().await.unwrap(), "failing\n");
    let events = cluster.events("p").await;
    assert!(events.iter().any(|event| event.starts_with("Started x2")), "{events:#?}");
    assert!(
        events
            .iter()
            .any(|event| event.starts_with("BackOff x1: Back-off restarting failed container main in pod p_default("))
    );
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim_whose_files_outlive_it() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({
        "containers": [{ "name": "main", "image": "nginx",
            "volumeMounts": [{ "name": "work", "mountPath": "/workspace" }] }],
        "volumes": [{ "name": "work", "persistentVolumeClaim": { "claimName": "work" } }],
    });
    cluster.pod("p", json!({}), spec.clone()).await;
    let unschedulable = |pod: Option<&Object>| {
        let conditions = pod.and_then(|pod| pod.at(&["status", "conditions"])).and_then(Value::as_array);
        conditions.is_some_and(|all| all.iter().any(|condition| condition["reason"] == "Unschedulable"))
    };
    let pod = cluster.until("pods", "p", unschedulable).await.unwrap();
    let message = condition(&pod, "PodScheduled")["message"].as_str().unwrap();
    assert!(message.starts_with("0/1 nodes are available: persistentvolumeclaim \"work\" not found."), "{message}");
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "work", "namespace": "default" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    cluster.create("persistentvolumeclaims", claim).await;
    cluster.running("p").await;
    let claim = cluster.get("persistentvolumeclaims", "work").await.unwrap();
    assert_eq!(
        (claim.str_at(&["status", "phase"]), claim.str_at(&["status", "capacity", "storage"])),
        ("Bound", "1Gi")
    );
    let volume = claim.str_at(&["spec", "volumeName"]).to_owned();
    assert!(cluster.get("persistentvolumes", &volume).await.is_some(), "{volume}");

    let words = |text: &[&str]| text.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let write = words(&["sh", "-c", "echo kept > /workspace/f"]);
    cluster.kubelet.exec("default", "p", "", write, OUT).unwrap().control.wait().await;
    cluster.delete("pods", "p").await;
    cluster.until("pods", "p", |pod| pod.is_none()).await;
    cluster.pod("p", json!({}), spec).await;
    cluster.running("p").await;
    let process = cluster.kubelet.exec("default", "p", "", words(&["cat", "/workspace/f"]), OUT).unwrap();
    assert_eq!(read(process.pipes.stdout).await, "kept\n");

    cluster.delete("persistentvolumeclaims", "work").await;
    let claim = cluster.get("persistentvolumeclaims", "work").await.expect("protected while a pod uses it");
    assert!(claim.is_deleting());
    cluster.delete("pods", "p").await;
    cluster.until("persistentvolumeclaims", "work", |claim| claim.is_none()).await;
    cluster.until("persistentvolumes", &volume, |volume| volume.is_none()).await;
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_attached_client_types_to_the_program_and_sees_what_it_prints() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "busybox", "stdin": true, "stdinOnce": true,
        "command": ["cat"] }] });
    cluster.pod("p", json!({}), spec).await;
    cluster.running("p").await;
    let mut process = cluster.kubelet.attach("default", "p", "main", Wanted { stdin: true, ..OUT }).unwrap();
    let mut stdin = process.pipes.stdin.take().unwrap();
    stdin.write_all(b"typed\n").await.unwrap();
    let mut buffer = [0; 6];
    let stdout = process.pipes.stdout.as_mut().unwrap();
    stdout.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"typed\n");
    drop(stdin);
    assert_eq!(process.control.wait().await, Exit::code(0));
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_attached_client_that_has_typed_all_leaves_a_program_whose_input_goes_on() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "containers": [{ "name": "main", "image": "busybox", "stdin": true, "command": ["cat"] }] });
    cluster.pod("p", json!({}), spec).await;
    cluster.running("p").await;
    for typed in ["one\n", "two\n"] {
        let mut process = cluster.kubelet.attach("default", "p", "main", Wanted { stdin: true, ..OUT }).unwrap();
        let mut stdin = process.pipes.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).await.unwrap();
        let (mut heard, mut stdout) = ([0; 4], process.pipes.stdout.take().unwrap());
        stdout.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, typed.as_bytes());
        drop(stdin);
        assert_eq!(stdout.read(&mut heard).await.unwrap(), 0, "nothing more is heard");
        assert!(process.control.ended().is_none());
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_terminal_prompts_echoes_and_ends_with_ctrl_d() {
    let cluster = Cluster::start(Settings::default()).await;
    cluster.pod("p", json!({}), json!({ "containers": [{ "name": "main", "image": "nginx" }] })).await;
    cluster.running("p").await;
    let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
    let mut process = cluster.kubelet.exec("default", "p", "", vec!["sh".into()], wanted).unwrap();
    let mut stdin = process.pipes.stdin.take().unwrap();
    stdin.write_all(b"echo $HOSTNAME\r").await.unwrap();
    let screen = process.pipes.stdout.as_mut().unwrap();
    let mut seen = String::new();
    while !seen.ends_with("p\r\n# ") {
        let mut buffer = [0; 64];
        let count = screen.read(&mut buffer).await.unwrap();
        assert!(count > 0, "{seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(seen.contains("echo $HOSTNAME\r\n"), "{seen:?}");
    stdin.write_all(b"sleep 1000\r").await.unwrap();
    cluster.registry.clock().sleep(Duration::from_secs(1)).await;
    stdin.write_all(b"\x03").await.unwrap();
    cluster.registry.clock().sleep(Duration::from_secs(1)).await;
    stdin.write_all(b"exit $?\r").await.unwrap();
    assert_eq!(process.control.wait().await.code, 130);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_node_is_ready_and_its_lease_is_renewed() {
    let cluster = Cluster::start(Settings::default()).await;
    cluster.registry.clock().sleep(Duration::from_secs(25)).await;
    let node = cluster.registry.get(&cluster.target("nodes", "fake-node-1"), "").await.unwrap();
    assert_eq!(condition(&node, "Ready")["status"], "True");
    let leases = Gvr::new("coordination.k8s.io", "v1", "leases");
    let target = cluster.registry.target(&leases, "kube-node-lease", "fake-node-1", "").unwrap();
    let lease = cluster.registry.get(&target, "").await.unwrap();
    assert_eq!(lease.str_at(&["spec", "renewTime"]), "2026-01-01T00:00:20.000000Z");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_script_that_cannot_be_read_is_told_in_the_pods_status() {
    let cluster = Cluster::start(Settings::default()).await;
    let spec = json!({ "containers": [{ "name": "main", "image": "nginx" }] });
    cluster.pod("p", json!({ ANNOTATION: "runs: 3s" }), spec).await;
    let pod = cluster
        .until("pods", "p", |pod| {
            let statuses = pod.and_then(|pod| pod.at(&["status", "containerStatuses"])).and_then(Value::as_array);
            statuses.is_some_and(|all| all[0]["state"]["waiting"]["reason"] == "CreateContainerConfigError")
        })
        .await
        .unwrap();
    let options = LogOptions::default();
    let message = cluster.kubelet.logs(&pod, &options).unwrap_err().message;
    assert_eq!(message, "container \"main\" in pod \"p\" is waiting to start: CreateContainerConfigError");
    cluster.shutdown().await;
}

/// A pod of one container with these members, and what its script says.
fn probed(members: Value) -> Value {
    let mut container = json!({ "name": "c", "image": "nginx" });
    for (field, value) in members.as_object().into_iter().flatten() {
        container[field] = value.clone();
    }
    json!({ "containers": [container], "terminationGracePeriodSeconds": 5 })
}

#[tokio::test(start_paused = true)]
async fn a_container_is_ready_while_its_readiness_probe_passes() {
    let cluster = Cluster::start(Settings::default()).await;
    let probe = json!({ "httpGet": { "port": 80 }, "periodSeconds": 5, "failureThreshold": 2 });
    let script = json!({ ANNOTATION: "{probes: {readiness: {after: 20s, lasting: 20s}}}" });
    cluster.pod("p", script, probed(json!({ "readinessProbe": probe }))).await;
    let ready = |holds: &'static str| {
        move |pod: Option<&Object>| {
            let all = pod.and_then(|pod| pod.at(&["status", "conditions"])?.as_array());
            all.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == holds)
        }
    };
    cluster.until("pods", "p", ready("True")).await;
    let pod = cluster.until("pods", "p", ready("False")).await.unwrap();
    assert_eq!(condition(&pod, "Ready")["message"], "containers with unready status: [c]");
    assert_eq!(pod.at(&["status", "containerStatuses"]).unwrap()[0]["started"], true);
    cluster.until("pods", "p", ready("True")).await;
    let events = cluster.events("p").await;
    let told = "Readiness probe failed: HTTP probe failed with statuscode: 503";
    assert!(events.iter().any(|event| event.starts_with("Unhealthy") && event.ends_with(told)), "{events:?}");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_whose_liveness_probe_fails_is_started_again_and_a_startup_probe_holds_it_back() {
    let cluster = Cluster::start(Settings::default()).await;
    let members = json!({
        "startupProbe": { "tcpSocket": { "port": 80 }, "periodSeconds": 1, "failureThreshold": 30 },
        "livenessProbe": { "exec": { "command": ["check"] }, "periodSeconds": 1, "failureThreshold": 2 },
    });
    let script = "{probes: {startup: {lasting: 10s}}, exec: [{command: check, exitCode: 1, stdout: ill}]}";
    cluster.pod("p", json!({ ANNOTATION: script }), probed(members)).await;
    let restarts = |pod: &Object| pod.at(&["status", "containerStatuses"]).map(|all| all[0]["restartCount"].clone());
    let first = cluster.running("p").await;
    assert_eq!(first.at(&["status", "containerStatuses"]).unwrap()[0]["started"], false);
    let start = cluster.registry.clock().now();
    cluster.until("pods", "p", |pod| pod.and_then(restarts) == Some(json!(1))).await;
    assert!(cluster.registry.clock().now().duration_since(start).as_secs() >= 10, "it was alive while it started");
    let events = cluster.events("p").await;
    for told in ["Liveness probe failed: ill", "Container c failed liveness probe, will be restarted"] {
        assert!(events.iter().any(|event| event.contains(told)), "{told}: {events:?}");
    }
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_container_added_to_look_at_a_pod_runs_and_the_pod_stays_as_it_is() {
    let cluster = Cluster::start(Settings::default()).await;
    cluster.pod("p", json!({}), probed(json!({}))).await;
    let mut pod = cluster.running("p").await.object().clone();
    let debugger = json!({ "name": "debugger", "image": "busybox", "command": ["echo", "looking"] });
    pod.set_at(&["spec", "ephemeralContainers"], json!([debugger]));
    let target = cluster.registry.target(&core("pods"), "default", "p", "ephemeralcontainers").unwrap();
    cluster.registry.update(&target, &Caller::default(), pod.into()).await.unwrap();
    let ended = |pod: Option<&Object>| {
        let state = pod.and_then(|pod| pod.at(&["status", "ephemeralContainerStatuses"]));
        state.is_some_and(|all| all[0]["state"]["terminated"]["exitCode"] == 0)
    };
    let pod = cluster.until("pods", "p", ended).await.unwrap();
    assert_eq!(condition(&pod, "Ready")["status"], "True");
    assert_eq!(pod.str_at(&["status", "phase"]), "Running");
    cluster.shutdown().await;
}
