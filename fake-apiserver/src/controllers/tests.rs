use serde_json::{Value, json};

use super::*;
use crate::{
    actor::{Api, DeletePolicy},
    base::{Gvr, Object},
    clock::Clock,
    ids::Ids,
    registry::Registry,
};

/// A cluster with its housekeeping and nothing else.
struct World {
    api: Api,
    tasks: TaskTracker,
    token: CancellationToken,
}

impl World {
    /// Started, with the namespace `ns`, at rest.
    async fn start() -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let registry = Registry::new(clock, Ids::seeded(1));
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        super::start(&registry.clone().into(), &Settings::default(), &tasks, &token);
        start_root_ca(&registry.clone().into(), "PEM", &tasks, &token);
        let world = Self { api: Api::new(registry, "system:admin", "test"), tasks, token };
        world.create("namespaces", Object::new("v1", "Namespace", "", "ns")).await;
        world.settle().await;
        world
    }

    /// Lets everybody work until nobody has anything to do: only then does a paused clock move on.
    async fn settle(&self) {
        self.pass(Duration::from_millis(100)).await;
    }

    async fn pass(&self, time: Duration) {
        self.api.clock().sleep(time).await;
    }

    async fn create(&self, resource: &str, object: Object) -> String {
        self.api.create(&core(resource), object).await.unwrap().uid().to_owned()
    }

    async fn get(&self, resource: &str, name: &str) -> Option<Object> {
        let namespace = if resource == "namespaces" { "" } else { "ns" };
        self.api.get(&core(resource), namespace, name).await.unwrap().map(|object| object.object().clone())
    }

    async fn exists(&self, name: &str) -> bool {
        self.get("configmaps", name).await.is_some()
    }

    /// A config map with these owners, by name and UID.
    async fn child(&self, name: &str, owners: &[(&str, &str)]) -> String {
        let references = owners.iter().map(|(name, uid)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": true})
        });
        let mut object = Object::new("v1", "ConfigMap", "ns", name);
        object.set_at(&["metadata", "ownerReferences"], references.collect::<Vec<Value>>());
        self.create("configmaps", object).await
    }

    async fn owner(&self, name: &str) -> String {
        self.create("configmaps", Object::new("v1", "ConfigMap", "ns", name)).await
    }

    async fn patch(&self, resource: &str, name: &str, patch: Value) {
        let namespace = if resource == "namespaces" { "" } else { "ns" };
        self.api.patch(&core(resource), namespace, name, "", patch).await.unwrap();
    }

    async fn hold(&self, name: &str, finalizers: Value) {
        self.patch("configmaps", name, json!({"metadata": {"finalizers": finalizers}})).await;
    }

    async fn delete(&self, resource: &str, name: &str, propagation: Option<&'static str>) {
        let namespace = if resource == "namespaces" { "" } else { "ns" };
        let policy = DeletePolicy { propagation, ..DeletePolicy::default() };
        self.api.delete(&core(resource), namespace, name, &policy).await.unwrap();
    }

    async fn stop(self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

#[tokio::test(start_paused = true)]
async fn in_the_background_dependents_follow_their_owner() {
    let world = World::start().await;
    let owner = world.owner("owner").await;
    let child = world.child("child", &[("owner", &owner)]).await;
    world.child("grandchild", &[("child", &child)]).await;
    world.settle().await;
    world.delete("configmaps", "owner", Some("Background")).await;
    assert!(world.exists("child").await, "the answer does not wait for dependents");
    world.settle().await;
    assert!(!world.exists("child").await && !world.exists("grandchild").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn in_the_foreground_an_owner_waits_for_its_dependents_and_theirs() {
    let world = World::start().await;
    let owner = world.owner("owner").await;
    let child = world.child("child", &[("owner", &owner)]).await;
    world.child("grandchild", &[("child", &child)]).await;
    world.hold("grandchild", json!(["example.com/hold"])).await;
    world.settle().await;
    world.delete("configmaps", "owner", Some("Foreground")).await;
    world.settle().await;
    for name in ["owner", "child"] {
        let waiting = world.get("configmaps", name).await.unwrap();
        assert_eq!((waiting.is_deleting(), waiting.finalizers()), (true, vec!["foregroundDeletion"]), "{name}");
    }
    world.hold("grandchild", Value::Null).await;
    world.settle().await;
    for name in ["owner", "child", "grandchild"] {
        assert!(!world.exists(name).await, "{name}");
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn orphans_stay_and_forget_their_owner() {
    let world = World::start().await;
    let (owner, other) = (world.owner("owner").await, world.owner("other").await);
    world.child("child", &[("owner", &owner), ("other", &other)]).await;
    world.delete("configmaps", "owner", Some("Orphan")).await;
    world.settle().await;
    assert!(!world.exists("owner").await);
    let child = world.get("configmaps", "child").await.unwrap();
    assert_eq!(child.owner_references().iter().map(|owner| &owner.name).collect::<Vec<_>>(), ["other"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_dependent_of_nobody_is_collected_whether_the_owner_never_was_has_gone_or_is_another() {
    let world = World::start().await;
    let gone = world.owner("gone").await;
    world.delete("configmaps", "gone", None).await;
    let living = world.owner("living").await;
    world.settle().await;
    world.child("of-nobody", &[("never", "11111111-1111-1111-1111-111111111111")]).await;
    world.child("of-the-dead", &[("gone", &gone)]).await;
    world.child("of-another", &[("living", "22222222-2222-2222-2222-222222222222")]).await;
    world.child("of-the-living", &[("living", &living)]).await;
    world.child("of-both", &[("living", &living), ("gone", &gone)]).await;
    world.settle().await;
    for name in ["of-nobody", "of-the-dead", "of-another"] {
        assert!(!world.exists(name).await, "{name}");
    }
    assert!(world.exists("of-the-living").await);
    let both = world.get("configmaps", "of-both").await.unwrap();
    assert_eq!(both.owner_references().iter().map(|owner| &owner.name).collect::<Vec<_>>(), ["living"]);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_in_another_namespace_is_none_and_an_event_says_so() {
    let world = World::start().await;
    world.create("namespaces", Object::new("v1", "Namespace", "", "other")).await;
    let owner = world.create("configmaps", Object::new("v1", "ConfigMap", "other", "owner")).await;
    world.settle().await;
    world.child("child", &[("owner", &owner)]).await;
    world.settle().await;
    assert!(!world.exists("child").await);
    let (events, _) = world.api.list(&core("events"), "ns", "").await.unwrap();
    let event = events.iter().find(|event| event.str_at(&["reason"]) == "OwnerRefInvalidNamespace").unwrap();
    let message =
        format!("ownerRef [v1/ConfigMap, namespace: ns, name: owner, uid: {owner}] does not exist in namespace \"ns\"");
    assert_eq!(event.str_at(&["message"]), message);
    assert_eq!(event.str_at(&["involvedObject", "name"]), "child");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_takes_its_objects_and_their_dependents_along() {
    let world = World::start().await;
    let definitions = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "boxes.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    world.api.create(&definitions, Object::from_value(definition).unwrap()).await.unwrap();
    world.settle().await;
    let boxes = Gvr::new("example.com", "v1", "boxes");
    let make = |name: &str| Object::new("example.com/v1", "Box", "ns", name);
    let mut uids = Vec::new();
    for name in ["a", "b"] {
        uids.push(world.api.create(&boxes, make(name)).await.unwrap().uid().to_owned());
        let mut child = Object::new("v1", "ConfigMap", "ns", &format!("child-{name}"));
        let owner = json!([{"apiVersion": "example.com/v1", "kind": "Box", "name": name, "uid": uids.last()}]);
        child.set_at(&["metadata", "ownerReferences"], owner);
        world.create("configmaps", child).await;
    }
    world.settle().await;
    assert!(world.exists("child-a").await && world.exists("child-b").await);
    world.api.delete(&boxes, "ns", "a", &DeletePolicy::default()).await.unwrap();
    world.settle().await;
    assert!(!world.exists("child-a").await && world.exists("child-b").await);
    world.api.delete(&definitions, "", "boxes.example.com", &DeletePolicy::default()).await.unwrap();
    world.settle().await;
    assert!(!world.exists("child-b").await);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_namespace_gets_its_account_and_its_certificate_and_gets_them_back() {
    let world = World::start().await;
    assert!(world.get("serviceaccounts", "default").await.is_some());
    world.delete("serviceaccounts", "default", None).await;
    world.patch("configmaps", "kube-root-ca.crt", json!({"data": {"ca.crt": "forged"}})).await;
    world.settle().await;
    assert!(world.get("serviceaccounts", "default").await.is_some());
    let certificate = world.get("configmaps", "kube-root-ca.crt").await.unwrap();
    assert_eq!(certificate.at(&["data"]).unwrap(), &json!({"ca.crt": "PEM"}));
    world.delete("configmaps", "kube-root-ca.crt", None).await;
    world.settle().await;
    assert!(world.exists("kube-root-ca.crt").await);
    world.stop().await;
}

fn condition<'a>(namespace: &'a Object, kind: &str) -> &'a Value {
    let list = namespace.at(&["status", "conditions"]).and_then(Value::as_array).unwrap();
    list.iter().find(|condition| condition["type"] == kind).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_goes_is_emptied_says_what_is_left_and_is_gone_when_nothing_is() {
    let world = World::start().await;
    world.owner("gone").await;
    world.owner("kept").await;
    world.hold("kept", json!(["example.com/hold"])).await;
    world.delete("namespaces", "ns", None).await;
    world.settle().await;
    assert!(world.exists("gone").await, "nothing happens at first");
    world.pass(Duration::from_secs(6)).await;
    assert!(!world.exists("gone").await && !world.exists("kube-root-ca.crt").await);
    assert_eq!(world.get("serviceaccounts", "default").await, None);
    let namespace = world.get("namespaces", "ns").await.unwrap();
    let content = condition(&namespace, "NamespaceContentRemaining");
    assert_eq!(content["message"], "Some resources are remaining: configmaps. has 1 resource instances");
    let finalizers = condition(&namespace, "NamespaceFinalizersRemaining");
    let message = "Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances";
    assert_eq!((&finalizers["status"], &finalizers["message"]), (&json!("True"), &json!(message)));
    world.hold("kept", Value::Null).await;
    world.pass(Duration::from_secs(10)).await;
    assert_eq!(world.get("namespaces", "ns").await, None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_namespace_that_goes_pods_go_first() {
    let world = World::start().await;
    let mut pod = Object::new("v1", "Pod", "ns", "p");
    pod.set("spec", json!({"containers": [{"name": "main", "image": "x"}]}));
    world.create("pods", pod).await;
    world.patch("pods", "p", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    world.owner("used").await;
    world.delete("namespaces", "ns", None).await;
    world.pass(Duration::from_secs(60)).await;
    assert!(world.exists("used").await);
    assert!(world.get("pods", "p").await.unwrap().is_deleting());
    world.patch("pods", "p", json!({"metadata": {"finalizers": null}})).await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.get("namespaces", "ns").await, None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_claim_in_use_stays_until_its_pod_is_gone() {
    let world = World::start().await;
    let mut claim = Object::new("v1", "PersistentVolumeClaim", "ns", "data");
    claim.set("spec", json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}));
    world.create("persistentvolumeclaims", claim).await;
    let mut pod = Object::new("v1", "Pod", "ns", "p");
    pod.set(
        "spec",
        json!({
            "nodeName": "n1", "containers": [{"name": "main", "image": "x"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}],
        }),
    );
    world.create("pods", pod).await;
    world.settle().await;
    world.delete("persistentvolumeclaims", "data", None).await;
    world.settle().await;
    assert!(world.get("persistentvolumeclaims", "data").await.unwrap().is_deleting());
    let policy = DeletePolicy { grace: Some(Duration::ZERO), ..DeletePolicy::default() };
    world.api.delete(&core("pods"), "ns", "p", &policy).await.unwrap();
    world.settle().await;
    assert_eq!(world.get("persistentvolumeclaims", "data").await, None);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_counts_what_there_is_is_charged_for_what_comes_and_gets_back_what_goes() {
    let world = World::start().await;
    let used = async || {
        let quota = world.get("resourcequotas", "q").await.unwrap();
        quota.at(&["status", "used"]).cloned().unwrap_or_default()
    };
    world.owner("first").await;
    let mut quota = Object::new("v1", "ResourceQuota", "ns", "q");
    quota.set("spec", json!({"hard": {"count/configmaps": "3", "services": "1"}}));
    world.create("resourcequotas", quota).await;
    world.settle().await;
    assert_eq!(used().await, json!({"count/configmaps": "2", "services": "0"})); // with the cluster's certificate
    world.owner("second").await;
    assert_eq!(used().await["count/configmaps"], "3");
    let third = world.api.create(&core("configmaps"), Object::new("v1", "ConfigMap", "ns", "third")).await;
    let why = "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=3, limited: count/configmaps=3";
    assert_eq!(third.unwrap_err().message, format!("configmaps \"third\" is forbidden: {why}"));
    world.delete("configmaps", "first", None).await;
    world.settle().await;
    assert_eq!(used().await["count/configmaps"], "2");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_goes_when_no_claim_has_it() {
    let world = World::start().await;
    let mut volume = Object::new("v1", "PersistentVolume", "", "v");
    let spec = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}});
    volume.set("spec", spec);
    world.create("persistentvolumes", volume).await;
    let volumes = core("persistentvolumes");
    let bound = json!({"status": {"phase": "Bound"}});
    world.api.patch(&volumes, "", "v", "status", bound).await.unwrap();
    world.api.delete(&volumes, "", "v", &DeletePolicy::default()).await.unwrap();
    world.settle().await;
    assert!(world.api.get(&volumes, "", "v").await.unwrap().unwrap().is_deleting());
    world.api.patch(&volumes, "", "v", "status", json!({"status": {"phase": "Released"}})).await.unwrap();
    world.settle().await;
    assert!(world.api.get(&volumes, "", "v").await.unwrap().is_none());
    world.stop().await;
}
