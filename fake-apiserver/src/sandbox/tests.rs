use std::time::Duration;

use serde_json::{Value, json};

use super::{keys::*, *};
use crate::{
    actor::{Api, DeletePolicy},
    base::{Gvr, Object},
    clock::Clock,
    controllers,
    ids::Ids,
    registry::Registry,
};

mod kinds;

/// A cluster without a kubelet, where the sandbox controllers run.
struct World {
    api: Api,
    tasks: TaskTracker,
    token: CancellationToken,
}

impl World {
    async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    async fn with(settings: Settings) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let registry = Registry::new(clock, Ids::seeded(1));
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        install(&registry.clone().into(), definitions()).await.unwrap();
        controllers::start(&registry.clone().into(), &controllers::Settings::default(), &tasks, &token);
        super::start(&registry.clone().into(), &settings, &Metrics::default(), &tasks, &token);
        let world = Self { api: Api::new(registry, "system:admin", "test"), tasks, token };
        world.create(&Gvr::new("", "v1", "namespaces"), Object::new("v1", "Namespace", "", "ns")).await;
        world.settle().await;
        world
    }

    async fn create(&self, gvr: &Gvr, object: Object) -> Object {
        self.api.create(gvr, object).await.unwrap().object().clone()
    }

    /// A Sandbox `sb` with one container and something more in its spec, and what follows from it.
    async fn sandbox(&self, more: Value) -> Object {
        let mut sandbox = Object::new(API_VERSION, "Sandbox", "ns", "sb");
        sandbox.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}));
        for (key, value) in more.as_object().unwrap() {
            sandbox.set_at(&["spec", key], value.clone());
        }
        let created = self.create(&sandboxes(), sandbox).await;
        self.settle().await;
        created
    }

    /// Lets everybody work until nobody has anything to do: only then does a paused clock move on.
    async fn settle(&self) {
        self.pass(Duration::from_millis(100)).await;
    }

    async fn pass(&self, time: Duration) {
        self.api.clock().sleep(time).await;
    }

    async fn get(&self, gvr: &Gvr, name: &str) -> Option<Object> {
        self.api.get(gvr, "ns", name).await.unwrap().map(|object| object.unpacked())
    }

    async fn exists(&self, gvr: &Gvr, name: &str) -> bool {
        self.get(gvr, name).await.is_some()
    }

    async fn patch(&self, gvr: &Gvr, name: &str, patch: Value) {
        self.api.patch(gvr, "ns", name, "", patch).await.unwrap();
        self.settle().await;
    }

    async fn spec(&self, spec: Value) {
        self.patch(&sandboxes(), "sb", json!({"spec": spec})).await;
    }

    /// The pod runs, as a kubelet would say.
    async fn pod_runs(&self) {
        let status = json!({
            "phase": "Running", "podIP": "10.9.0.7", "podIPs": [{"ip": "10.9.0.7"}],
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}],
        });
        self.pod_status(status).await;
    }

    async fn pod_status(&self, status: Value) {
        self.api.patch(&pods(), "ns", "sb", "status", json!({"status": status})).await.unwrap();
        self.settle().await;
    }

    /// `status/reason: message` of a condition of the Sandbox.
    async fn condition(&self, kind: &str) -> String {
        let sandbox = self.get(&sandboxes(), "sb").await.unwrap();
        let list = sandbox.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let Some(condition) = conditions::find(&list, kind) else { return String::new() };
        let text = |member: &str| condition[member].as_str().unwrap();
        format!("{}/{}: {}", text("status"), text("reason"), text("message"))
    }

    async fn stop(self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_becomes_ready_with_its_pod_and_says_so_in_few_writes() {
    let world = World::start().await;
    world.sandbox(json!({"service": true})).await;
    assert_eq!(
        world.condition("Ready").await,
        "False/DependenciesNotReady: Pod exists with phase: Pending; Service Exists"
    );
    let pod = world.get(&pods(), "sb").await.unwrap();
    assert_eq!(pod.label(NAME_HASH), Some("3551ffa0"));
    world.pod_runs().await;
    assert_eq!(world.condition("Ready").await, "True/DependenciesReady: Pod is Ready; Service Exists");
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    assert_eq!(sandbox.annotation(POD_NAME), Some("sb"));
    assert_eq!(sandbox.str_at(&["status", "serviceFQDN"]), "sb.ns.svc.cluster.local");
    assert_eq!(sandbox.generation(), 1);
    let managers = sandbox.at(&["metadata", "managedFields"]).and_then(Value::as_array).unwrap();
    let shown: Vec<_> =
        managers.iter().map(|entry| (entry["manager"].as_str().unwrap(), entry["subresource"].as_str())).collect();
    assert!(shown.contains(&("agent-sandbox-controller", Some("status"))), "{shown:?}");
    assert!(shown.contains(&("agent-sandbox-controller", None)), "{shown:?}");

    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.get(&sandboxes(), "sb").await, Some(sandbox), "at rest nothing is written");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn suspending_a_sandbox_keeps_its_volumes_and_service_and_resuming_brings_a_new_pod() {
    let world = World::start().await;
    let template = json!({
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    world.sandbox(json!({"service": true, "volumeClaimTemplates": [template]})).await;
    world.pod_runs().await;
    let first = world.get(&pods(), "sb").await.unwrap();
    world.patch(&pods(), "sb", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    world.spec(json!({"operatingMode": "Suspended"})).await;
    assert_eq!(world.condition("Suspended").await, "False/PodTerminating: Pod is terminating. Sandbox is suspending");
    assert_eq!(world.condition("Ready").await, "False/SandboxSuspended: Sandbox is suspending");
    world.patch(&pods(), "sb", json!({"metadata": {"finalizers": null}})).await;
    world.api.delete(&pods(), "ns", "sb", &now()).await.ok();
    world.settle().await;
    assert_eq!(world.condition("Suspended").await, "True/PodTerminated: Pod has been terminated. Sandbox is suspended");
    assert_eq!(world.condition("PodScheduled").await, "");
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    assert_eq!(sandbox.annotation(POD_NAME), None);
    assert_eq!(sandbox.str_at(&["status", "selector"]), "agents.x-k8s.io/sandbox-name-hash=3551ffa0");
    assert!(world.exists(&services(), "sb").await && world.exists(&volume_claims(), "data-sb").await);

    world.spec(json!({"operatingMode": "Running"})).await;
    let second = world.get(&pods(), "sb").await.unwrap();
    assert_ne!(first.uid(), second.uid());
    assert_eq!(world.condition("Suspended").await, "False/NotSuspended: Sandbox is not suspended");
    world.stop().await;
}

/// At once, whatever the grace period.
fn now() -> DeletePolicy {
    DeletePolicy { grace: Some(Duration::ZERO), ..DeletePolicy::default() }
}

#[tokio::test(start_paused = true)]
async fn an_expired_sandbox_is_marked_first_then_loses_its_pod_and_lives_again_when_its_time_is_moved() {
    let world = World::start().await;
    world.sandbox(json!({"service": true, "shutdownTime": "2026-01-01T00:10:00Z"})).await;
    world.pod_runs().await;
    world.pass(Duration::from_secs(599)).await;
    assert!(world.exists(&pods(), "sb").await);
    world.pass(Duration::from_secs(1)).await;
    assert_eq!(world.condition("Ready").await, "False/SandboxExpired: Sandbox has expired");
    assert!(!world.exists(&pods(), "sb").await && !world.exists(&services(), "sb").await);
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    let status = sandbox.get("status").and_then(Value::as_object).unwrap();
    assert_eq!(status.keys().collect::<Vec<_>>(), ["conditions"]);
    assert_eq!(sandbox.annotation(POD_NAME), Some("sb"));

    world.spec(json!({"shutdownTime": null})).await;
    assert!(world.exists(&pods(), "sb").await && world.exists(&services(), "sb").await);
    assert_eq!(
        world.condition("Ready").await,
        "False/DependenciesNotReady: Pod exists with phase: Pending; Service Exists"
    );
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_mark_of_expiry_is_seen_before_anything_goes() {
    let world = World::start().await;
    world.sandbox(json!({})).await;
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    let after: u64 = sandbox.resource_version().parse().unwrap();
    world.spec(json!({"shutdownTime": "2025-12-31T00:00:00Z", "shutdownPolicy": "Delete"})).await;
    let mut history = Vec::new();
    for (gvr, what) in [(sandboxes(), "sandbox"), (pods(), "pod")] {
        let mut watcher = world.api.watch(&gvr, "ns", "", after).await.unwrap();
        for event in watcher.next().await.unwrap() {
            use crate::registry::WatchEvent::{Added, Bookmark, Deleted, Error, Modified};
            let (Added(object) | Modified(object) | Deleted(object)) = &event else {
                let (Bookmark(..) | Error(_) | Added(_) | Modified(_) | Deleted(_)) = event;
                continue;
            };
            let conditions =
                object.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
            let marked = conditions::text(&conditions, "Ready", "reason") == "SandboxExpired";
            let gone = matches!(event, Deleted(_));
            history.push((object.resource_version().parse::<u64>().unwrap(), what, marked, gone));
        }
    }
    history.sort_unstable();
    let marked = history.iter().position(|(_, what, marked, _)| *what == "sandbox" && *marked).unwrap();
    let pod_gone = history.iter().position(|(_, what, _, gone)| *what == "pod" && *gone).unwrap();
    let sandbox_gone = history.iter().position(|(_, what, _, gone)| *what == "sandbox" && *gone).unwrap();
    assert!(marked < pod_gone && pod_gone < sandbox_gone, "{history:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_expiry_that_is_near_may_come_two_seconds_late_and_no_later() {
    let world = World::start().await;
    let time = world.api.clock().now().saturating_add(jiff::SignedDuration::from_millis(900)).unwrap();
    world.sandbox(json!({"shutdownTime": crate::clock::time_text(time)})).await;
    world.pass(Duration::from_millis(2100)).await;
    assert_eq!(world.condition("Ready").await, "False/SandboxExpired: Sandbox has expired");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_is_made_anew_and_one_that_failed_is_not() {
    let world = World::start().await;
    world.sandbox(json!({})).await;
    world.pod_runs().await;
    let first = world.get(&pods(), "sb").await.unwrap();
    world.api.delete(&pods(), "ns", "sb", &now()).await.unwrap();
    world.settle().await;
    let second = world.get(&pods(), "sb").await.unwrap();
    assert_ne!(first.uid(), second.uid());
    world.pod_status(json!({"phase": "Failed"})).await;
    world.pass(Duration::from_secs(3600)).await;
    assert_eq!(world.get(&pods(), "sb").await.unwrap().uid(), second.uid());
    assert_eq!(world.condition("Finished").await, "True/PodFailed: Pod failed");
    assert_eq!(world.condition("Ready").await, "False/PodFailed: Pod failed");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn two_pods_are_told_of_once_and_neither_is_touched_until_one_is_gone() {
    let world = World::start().await;
    world.sandbox(json!({"service": true})).await;
    let first = world.get(&pods(), "sb").await.unwrap();
    let mut second = Object::new("v1", "Pod", "ns", "twin");
    for member in ["labels", "ownerReferences"] {
        second.set_at(&["metadata", member], first.at(&["metadata", member]).unwrap().clone());
    }
    second.set("spec", json!({"containers": [{"name": "main", "image": "x"}]}));
    world.create(&pods(), second).await;
    world.settle().await;
    let text = "multiple Pods (2) are controlled by this Sandbox; refusing to choose or create a Pod";
    assert_eq!(world.condition("Ready").await, format!("False/MultiplePods: {text}"));
    world.patch(&pods(), "twin", json!({"metadata": {"annotations": {"touched": "1"}}})).await;
    let events = Gvr::new("events.k8s.io", "v1", "events");
    let (events, _) = world.api.list(&events, "ns", "").await.unwrap();
    let told: Vec<_> = events.iter().filter(|event| event.str_at(&["reason"]) == "MultiplePods").collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].str_at(&["note"]), text);
    assert_eq!(told[0].str_at(&["reportingController"]), "sandbox-controller");

    world.api.delete(&pods(), "ns", "sb", &now()).await.unwrap();
    world.settle().await;
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    assert_eq!(sandbox.annotation(POD_NAME), Some("twin"), "the pod that is left is the Sandbox's");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_somebody_else_is_an_error_until_it_is_gone() {
    let world = World::start().await;
    let mut pod = Object::new("v1", "Pod", "ns", "sb");
    pod.set("spec", json!({"containers": [{"name": "main", "image": "x"}]}));
    world.create(&pods(), pod).await;
    world.sandbox(json!({})).await;
    let text = world.condition("Ready").await;
    assert!(text.starts_with("False/ReconcilerError: Error seen: cannot adopt unowned pod \"sb\": missing"), "{text}");
    let sandbox = world.get(&sandboxes(), "sb").await.unwrap();
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.get(&sandboxes(), "sb").await, Some(sandbox), "trying again writes nothing");
    world.patch(&pods(), "sb", json!({"metadata": {"labels": {ADOPTABLE: "true"}}})).await;
    world.pass(Duration::from_secs(1000)).await;
    assert!(world.condition("Ready").await.starts_with("False/DependenciesNotReady: Pod exists with phase: Pending"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_sandbox_has_goes_with_it() {
    let world = World::start().await;
    world.sandbox(json!({"service": true})).await;
    world.api.delete(&sandboxes(), "ns", "sb", &DeletePolicy::default()).await.unwrap();
    world.settle().await;
    assert!(!world.exists(&pods(), "sb").await && !world.exists(&services(), "sb").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_seed_gives_one_history() {
    let mut histories = Vec::new();
    for _ in 0..2 {
        let world = World::start().await;
        world.sandbox(json!({"service": true, "shutdownTime": "2026-01-01T00:01:00Z"})).await;
        world.pod_runs().await;
        world.pass(Duration::from_secs(120)).await;
        let mut all = Vec::new();
        for served in world.api.resources() {
            for object in world.api.list(&served.gvr, "", "").await.unwrap().0 {
                all.push(String::from_utf8(object.json().to_vec()).unwrap());
            }
        }
        histories.push(all);
        world.stop().await;
    }
    assert_eq!(histories[0], histories[1]);
}
