use serde_json::json;
use tokio_util::task::TaskTracker;

use super::*;
use crate::{
    base::Gvr,
    clock::Clock,
    controllers,
    ids::Ids,
    kubelet::{self, Kubelet},
    registry::{Registry, WatchEvent},
    sandbox::{self, keys::*},
};

fn nodes() -> Gvr {
    Gvr::new("", "v1", "nodes")
}

/// A cluster where the sandbox controllers run, and perhaps a kubelet.
struct World {
    api: Api,
    tasks: TaskTracker,
    token: CancellationToken,
}

impl World {
    async fn start(settings: Settings, kubelet: bool) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let registry = Registry::new(clock, Ids::seeded(1));
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        sandbox::install(&registry.clone().into(), sandbox::definitions()).await.unwrap();
        controllers::start(&registry.clone().into(), &controllers::Settings::default(), &tasks, &token);
        if kubelet {
            Kubelet::start(&registry.clone().into(), kubelet::Settings::default(), token.clone(), tasks.clone());
        }
        let settings = sandbox::Settings { warm_pools: settings, ..sandbox::Settings::default() };
        sandbox::start(&registry.clone().into(), &settings, &sandbox::Metrics::default(), &tasks, &token);
        let world = Self { api: Api::new(registry, "system:admin", "test"), tasks, token };
        world.create(&Gvr::new("", "v1", "namespaces"), Object::new("v1", "Namespace", "", "ns")).await;
        world.pass(1).await;
        world
    }

    /// One with a kubelet, a template and a pool of it that has had time to fill.
    async fn filled(settings: Settings, spec: Value) -> Self {
        let world = Self::start(settings, true).await;
        world.template("x").await;
        world.pool(spec).await;
        world.pass(30).await;
        world
    }

    async fn create(&self, gvr: &Gvr, object: Object) -> Object {
        self.api.create(gvr, object).await.unwrap().object().clone()
    }

    async fn template(&self, image: &str) {
        let mut template = Object::new(EXTENSIONS_API_VERSION, "SandboxTemplate", "ns", "tpl");
        template.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}}}));
        self.create(&templates(), template).await;
    }

    async fn pool(&self, spec: Value) {
        let mut pool = Object::new(EXTENSIONS_API_VERSION, "SandboxWarmPool", "ns", "pool");
        pool.set("spec", spec);
        pool.set_at(&["spec", "sandboxTemplateRef"], json!({"name": "tpl"}));
        self.create(&warm_pools(), pool).await;
    }

    async fn pass(&self, seconds: u64) {
        self.api.clock().sleep(Duration::from_secs(seconds)).await;
    }

    async fn patch(&self, gvr: &Gvr, name: &str, patch: Value) {
        self.api.patch(gvr, "ns", name, "", patch).await.unwrap();
    }

    async fn scale(&self, replicas: u64) {
        let patch = json!({"spec": {"replicas": replicas}});
        self.api.patch(&warm_pools(), "ns", "pool", "scale", patch).await.unwrap();
    }

    /// Gives the template's container another image, and time for what follows.
    async fn change_template(&self, image: &str) {
        let spec = json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": image}]}}});
        self.patch(&templates(), "tpl", json!({"spec": spec})).await;
        self.pass(60).await;
    }

    async fn sandboxes(&self) -> Vec<Object> {
        let (list, _) = self.api.list(&sandboxes(), "ns", "").await.unwrap();
        list.iter().map(|sandbox| sandbox.object().clone()).collect()
    }

    async fn names(&self) -> Vec<String> {
        self.sandboxes().await.iter().map(|sandbox| sandbox.name().to_owned()).collect()
    }

    /// Images of the members, by name of member.
    async fn images(&self) -> Vec<String> {
        let image = |sandbox: &Object| {
            let containers = sandbox.at(&["spec", "podTemplate", "spec", "containers"]).unwrap();
            containers[0]["image"].as_str().unwrap().to_owned()
        };
        self.sandboxes().await.iter().map(image).collect()
    }

    async fn delete(&self, name: &str) {
        self.api.delete(&sandboxes(), "ns", name, &DeletePolicy::default()).await.unwrap();
    }

    async fn hold(&self, name: &str, finalizers: Value) {
        self.patch(&sandboxes(), name, json!({"metadata": {"finalizers": finalizers}})).await;
    }

    async fn status(&self) -> Value {
        let pool = self.api.get(&warm_pools(), "ns", "pool").await.unwrap().unwrap();
        pool.get("status").cloned().unwrap_or_default()
    }

    /// `type reason: note` of the pool's events.
    async fn events(&self) -> Vec<String> {
        let (events, _) = self.api.list(&Gvr::new("events.k8s.io", "v1", "events"), "ns", "").await.unwrap();
        let of_pool = events.iter().filter(|event| event.str_at(&["regarding", "kind"]) == "SandboxWarmPool");
        let mut of_pool: Vec<_> = of_pool.collect();
        of_pool.sort_by_key(|event| event.str_at(&["eventTime"]).to_owned());
        let text = |event: &Object| {
            assert_eq!(event.str_at(&["reportingController"]), "sandboxwarmpool-controller");
            assert_eq!(event.str_at(&["action"]), "Reconciling");
            let at = |member: &str| event.str_at(&[member]).to_owned();
            format!("{} {}: {}", at("type"), at("reason"), at("note"))
        };
        of_pool.into_iter().map(|event| text(event)).collect()
    }

    async fn stop(self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn full(count: u64, generation: u64) -> Value {
    json!({
        "replicas": count, "readyReplicas": count, "observedGeneration": generation,
        "selector": "agents.x-k8s.io/warm-pool-sandbox=91dd7983",
    })
}

#[tokio::test(start_paused = true)]
async fn a_pool_fills_says_how_many_are_ready_and_then_leaves_everything_alone() {
    let world = World::filled(Settings::default(), json!({"replicas": 3})).await;
    assert_eq!(world.status().await, full(3, 1));
    let members = world.sandboxes().await;
    assert!(members.iter().all(|member| member.name().starts_with("pool-") && member.name().len() == 10));
    assert!(members.iter().all(|member| member.label(LAUNCH_TYPE) == Some("warm") && member.generation() == 1));
    let (pods, _) = world.api.list(&pods(), "ns", "agents.x-k8s.io/warm-pool-sandbox=91dd7983").await.unwrap();
    assert_eq!(pods.len(), 3, "the scale subresource's selector finds the pods");

    let pool = world.api.get(&warm_pools(), "ns", "pool").await.unwrap().unwrap();
    world.pass(3600).await;
    assert_eq!(world.sandboxes().await, members);
    let later = world.api.get(&warm_pools(), "ns", "pool").await.unwrap().unwrap();
    assert_eq!(later.resource_version(), pool.resource_version());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn scaling_up_adds_members_and_scaling_down_takes_the_newest() {
    let world = World::filled(Settings::default(), json!({})).await;
    let first = world.names().await;
    assert_eq!(first.len(), 1, "one is wanted if nothing is said");
    world.scale(4).await;
    world.pass(30).await;
    assert_eq!(world.status().await, full(4, 2));
    world.scale(1).await;
    world.pass(30).await;
    assert_eq!(world.names().await, first);
    assert_eq!(world.status().await, full(1, 3));
    world.scale(0).await;
    world.pass(30).await;
    let status = json!({"observedGeneration": 4, "selector": "agents.x-k8s.io/warm-pool-sandbox=91dd7983"});
    assert_eq!(world.status().await, status);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_template_is_for_new_members_only() {
    let world = World::filled(Settings::default(), json!({"replicas": 2})).await;
    world.change_template("y").await;
    assert_eq!(world.images().await, ["x", "x"]);
    let gone = world.names().await.remove(0);
    world.delete(&gone).await;
    world.pass(30).await;
    let mut images = world.images().await;
    images.sort();
    assert_eq!(images, ["x", "y"]);
    assert!(!world.names().await.contains(&gone));
    assert_eq!(world.status().await, full(2, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn under_recreate_a_changed_template_replaces_the_members() {
    let spec = json!({"replicas": 2, "updateStrategy": {"type": "Recreate"}});
    let world = World::filled(Settings::default(), spec).await;
    let before = world.names().await;
    let labels = json!({"spec": {"podTemplate": {"metadata": {"labels": {"new": "label"}}}}});
    world.patch(&templates(), "tpl", labels).await;
    world.pass(60).await;
    assert_eq!(world.names().await, before, "metadata makes nobody stale");
    world.change_template("y").await;
    assert_eq!(world.images().await, ["y", "y"]);
    assert_eq!(world.status().await, full(2, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_cannot_go_yet_holds_its_place() {
    let world = World::filled(Settings::default(), json!({"replicas": 2})).await;
    let names = world.names().await;
    world.hold(&names[0], json!(["example.com/hold"])).await;
    world.delete(&names[0]).await;
    world.pass(400).await;
    assert_eq!(world.names().await, names);
    assert_eq!(world.status().await, full(1, 1));
    world.hold(&names[0], Value::Null).await;
    world.pass(30).await;
    assert_eq!(world.names().await.len(), 2);
    assert_eq!(world.status().await, full(2, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_waits_for_a_member_to_go_does_nothing_else_for_five_minutes() {
    let world = World::filled(Settings::default(), json!({"replicas": 3})).await;
    let names = world.names().await;
    for name in &names {
        world.hold(name, json!(["example.com/hold"])).await;
    }
    world.scale(2).await;
    world.pass(30).await;
    let deleting = |list: Vec<Object>| list.iter().filter(|sandbox| sandbox.is_deleting()).count();
    assert_eq!(deleting(world.sandboxes().await), 1);
    world.scale(0).await;
    world.pass(240).await;
    assert_eq!(deleting(world.sandboxes().await), 1, "the first delete is not seen to its end");
    world.pass(90).await;
    assert_eq!(deleting(world.sandboxes().await), 3, "and then it is believed to be");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_a_claim_takes_is_replaced_and_left_alone() {
    let world = World::filled(Settings::default(), json!({"replicas": 2})).await;
    let taken = world.names().await.remove(0);
    let owner = json!([{
        "apiVersion": EXTENSIONS_API_VERSION, "kind": "SandboxClaim", "name": "c", "uid": "c1",
        "controller": true, "blockOwnerDeletion": true,
    }]);
    // Its owner is not there, so it is kept from the garbage collector.
    let metadata = json!({
        "labels": {WARM_POOL: null}, "ownerReferences": owner, "finalizers": ["example.com/hold"],
    });
    world.patch(&sandboxes(), &taken, json!({"metadata": metadata})).await;
    world.pass(30).await;
    let names = world.names().await;
    assert!(names.len() == 3 && names.contains(&taken), "{names:?}");
    assert_eq!(world.status().await, full(2, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_bears_the_pools_label_and_is_nobodys_is_taken_over_if_it_is_of_the_template() {
    let world = World::filled(Settings::default(), json!({"replicas": 2})).await;
    let member = world.sandboxes().await.remove(0);
    for (name, image) in [("same", "x"), ("other", "y")] {
        let mut orphan = Object::new(API_VERSION, "Sandbox", "ns", name);
        orphan.set("spec", member.get("spec").unwrap().clone());
        let container = json!({"name": "main", "image": image, "resources": {}});
        orphan.set_at(&["spec", "podTemplate", "spec", "containers"], vec![container]);
        for label in [WARM_POOL, TEMPLATE_REF_HASH, TEMPLATE_HASH] {
            orphan.set_at(&["metadata", "labels", label], member.label(label).unwrap());
        }
        world.create(&sandboxes(), orphan).await;
    }
    world.pass(30).await;
    assert_eq!(world.names().await.len(), 4, "nobody tells the pool of a stranger");
    world.patch(&warm_pools(), "pool", json!({"spec": {"replicas": 3}})).await;
    world.pass(30).await;
    let names = world.names().await;
    assert!(names.len() == 3 && names.contains(&"same".to_owned()), "{names:?}");
    let same = world.api.get(&sandboxes(), "ns", "same").await.unwrap().unwrap();
    assert_eq!(same.controller().unwrap().kind, "SandboxWarmPool");
    assert_eq!((same.label(LAUNCH_TYPE), same.generation()), (Some("warm"), 1));
    assert_eq!(world.status().await, full(3, 2));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_finds_no_node_holds_its_members_and_says_so_until_it_does() {
    let world = World::start(Settings::default(), true).await;
    world.template("x").await;
    let selector = json!({"spec": {"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}}});
    world.patch(&templates(), "tpl", selector).await;
    world.pool(json!({"replicas": 2})).await;
    world.pass(300).await;
    let names = world.names().await;
    assert!(world.events().await.is_empty());
    world.pass(3600).await;
    assert_eq!(world.names().await, names, "others would find no node either");
    let warning = "Warning WarmPoolNotProgressing: 2/2 sandboxes are unschedulable past the 5m0s readiness grace period; \
                   holding them instead of replacing (replacements would be equally unschedulable)";
    assert_eq!(world.events().await, [warning]);

    let label = json!({"metadata": {"labels": {"disk": "ssd"}}});
    world.api.patch(&nodes(), "", "fake-node-1", "", label).await.unwrap();
    world.pass(600).await;
    assert_eq!(world.events().await, [warning, "Normal WarmPoolProgressing: Warm pool is progressing again"]);
    // Placed at last, and not ready on the spot: their time was up long ago.
    assert!(world.names().await.iter().all(|name| !names.contains(name)));
    assert_eq!(world.status().await, full(2, 1));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_does_not_become_ready_in_time_is_replaced() {
    let world = World::start(Settings::default(), false).await; // nobody starts pods
    world.template("x").await;
    world.pool(json!({"replicas": 1})).await;
    world.pass(299).await;
    let first = world.names().await;
    assert_eq!(first.len(), 1);
    // Half the grace period is how far a wake-up is put off.
    world.pass(160).await;
    let second = world.names().await;
    assert_eq!(second.len(), 1);
    assert_ne!(first, second);
    assert!(world.events().await.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_waits_for_its_template_and_goes_with_all_its_members() {
    let world = World::start(Settings::default(), true).await;
    world.pool(json!({"replicas": 2})).await;
    world.pass(60).await;
    let status = json!({"observedGeneration": 1, "selector": "agents.x-k8s.io/warm-pool-sandbox=91dd7983"});
    assert_eq!((world.status().await, world.names().await.len()), (status, 0));
    world.template("x").await;
    world.pass(30).await;
    assert_eq!(world.status().await, full(2, 1));

    world.api.delete(&templates(), "ns", "tpl", &DeletePolicy::default()).await.unwrap();
    let gone = world.names().await.remove(0);
    world.delete(&gone).await;
    world.pass(60).await;
    assert_eq!(world.names().await.len(), 1, "without a template nothing is made");
    assert_eq!(world.status().await, full(1, 1));

    world.api.delete(&warm_pools(), "ns", "pool", &DeletePolicy::default()).await.unwrap();
    world.pass(60).await;
    assert!(world.names().await.is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_points_to_another_template() {
    let spec = json!({"replicas": 1, "updateStrategy": {"type": "Recreate"}});
    let world = World::filled(Settings::default(), spec).await;
    let mut other = Object::new(EXTENSIONS_API_VERSION, "SandboxTemplate", "ns", "other");
    other.set("spec", json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}));
    world.create(&templates(), other).await;
    let before = world.names().await;
    world.patch(&warm_pools(), "pool", json!({"spec": {"sandboxTemplateRef": {"name": "other"}}})).await;
    world.pass(60).await;
    let after = world.sandboxes().await;
    assert_eq!(after.len(), 1);
    assert_ne!(after[0].name(), before[0], "the same blueprint of another name is another template");
    assert_eq!(after[0].annotation(TEMPLATE_REF), Some("other"));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refill_is_held_back_and_paced_as_the_settings_say() {
    let settings = Settings { replenish_delay: Duration::from_secs(20), max_refill_rate: 0.5, ..Settings::default() };
    let world = World::filled(settings, json!({"replicas": 3})).await;
    let names = world.names().await;
    assert_eq!(names.len(), 3, "one at once, one after two seconds, one after four");
    for name in &names {
        world.delete(name).await;
    }
    world.pass(19).await;
    assert_eq!(world.names().await.len(), 0);
    for expected in [1, 2, 3] {
        world.pass(2).await;
        assert_eq!(world.names().await.len(), expected);
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_members_cost_few_passes() {
    let world = World::start(Settings::default(), true).await;
    world.template("x").await;
    world.pool(json!({"replicas": 200})).await;
    let pool = world.api.get(&warm_pools(), "ns", "pool").await.unwrap().unwrap();
    world.pass(30).await;
    assert_eq!(world.status().await, full(200, 1));
    let after = pool.resource_version().parse().unwrap();
    let mut watcher = world.api.watch(&warm_pools(), "ns", "", after).await.unwrap();
    let writes = watcher.next().await.unwrap();
    let writes = writes.iter().filter(|event| matches!(event, WatchEvent::Modified(_))).count();
    assert!(writes <= 30, "{writes} changes of the status");
    world.stop().await;
}
