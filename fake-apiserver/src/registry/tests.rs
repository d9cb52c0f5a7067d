//! Stories of objects, told to the registry without HTTP.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Body, Caller, DeleteOptions, Deleted, ListOptions, Patch, Registry, Target, User, WatchEvent, Watcher};
use crate::{
    base::{Gvr, Status, Stored},
    clock::Clock,
    ids::Ids,
};

mod autoscalers;
mod certificates;
mod kinds;
mod mutating;
mod policies;

const CRDS: (&str, &str, &str) = ("apiextensions.k8s.io", "v1", "customresourcedefinitions");
const MAPS: (&str, &str, &str) = ("", "v1", "configmaps");
const SPACES: (&str, &str, &str) = ("", "v1", "namespaces");
const WIDGETS: (&str, &str, &str) = ("example.com", "v1", "widgets");

struct World {
    registry: Registry,
    caller: Caller,
}

impl World {
    async fn new() -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let user = User { name: "tester".into(), groups: vec!["system:masters".into()], ..User::default() };
        let caller = Caller { user, manager: "tester".into(), ..Caller::default() };
        let world = Self { registry: Registry::new(clock, Ids::seeded(1)), caller };
        world.create(SPACES, "", json!({"metadata": {"name": "demo"}})).await.unwrap();
        world
    }

    fn target(&self, resource: (&str, &str, &str), namespace: &str, name: &str, subresource: &str) -> Target {
        let gvr = Gvr::new(resource.0, resource.1, resource.2);
        self.registry.target(&gvr, namespace, name, subresource).unwrap()
    }

    async fn create(&self, resource: (&str, &str, &str), namespace: &str, value: Value) -> Result<Arc<Stored>, Status> {
        let target = self.target(resource, namespace, "", "");
        self.registry.create(&target, &self.caller, Body { value, duplicates: vec![] }).await
    }

    async fn map(&self, name: &str) -> Arc<Stored> {
        self.create(MAPS, "demo", json!({"metadata": {"name": name}})).await.unwrap()
    }

    async fn get(&self, resource: (&str, &str, &str), namespace: &str, name: &str) -> Result<Arc<Stored>, Status> {
        self.registry.get(&self.target(resource, namespace, name, ""), "").await
    }

    async fn merge(
        &self,
        resource: (&str, &str, &str),
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Arc<Stored>, Status> {
        let target = self.target(resource, namespace, name, "");
        Ok(self.registry.patch(&target, &self.caller, Patch::Merge(patch)).await?.0)
    }

    async fn delete(&self, resource: (&str, &str, &str), namespace: &str, name: &str) -> Result<Deleted, Status> {
        let target = self.target(resource, namespace, name, "");
        self.registry.delete(&target, &self.caller, &DeleteOptions::default()).await
    }

    async fn watch(&self, options: ListOptions) -> Watcher {
        self.registry.watch(&self.target(MAPS, "demo", "", ""), &options).await.unwrap()
    }
}

fn names(items: &[Arc<Stored>]) -> Vec<&str> {
    items.iter().map(|item| item.name()).collect()
}

fn widget_definition() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "color": {"type": "string", "default": "red"},
                        "size": {"type": "integer", "minimum": 1},
                    }},
                    "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
                }}},
            }],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_write_that_changes_nothing_keeps_the_version() {
    let world = World::new().await;
    let first = world.create(MAPS, "demo", json!({"metadata": {"name": "a"}, "data": {"k": "1"}})).await.unwrap();
    let same = world.merge(MAPS, "demo", "a", json!({"data": {"k": "1"}})).await.unwrap();
    assert_eq!(same.resource_version(), first.resource_version());
    let other = world.merge(MAPS, "demo", "a", json!({"data": {"k": "2"}})).await.unwrap();
    assert_ne!(other.resource_version(), first.resource_version());
}

#[tokio::test]
async fn an_update_on_an_old_version_is_a_conflict_and_changes_nothing() {
    let world = World::new().await;
    let old = world.map("a").await;
    world.merge(MAPS, "demo", "a", json!({"data": {"k": "theirs"}})).await.unwrap();
    let mut mine = old.object().clone();
    mine.set("data", json!({"k": "mine"}));
    let target = world.target(MAPS, "demo", "a", "");
    let error = world.registry.update(&target, &world.caller, mine.into()).await.unwrap_err();
    assert!(error.is_conflict(), "{error}");
    assert_eq!(world.get(MAPS, "demo", "a").await.unwrap().str_at(&["data", "k"]), "theirs");
}

#[tokio::test]
async fn a_dry_run_shows_the_object_and_stores_nothing() {
    let world = World::new().await;
    let before = world.registry.revision();
    let caller = Caller { dry_run: true, ..world.caller.clone() };
    let target = world.target(MAPS, "demo", "", "");
    let body = Body { value: json!({"metadata": {"generateName": "ghost-"}}), duplicates: vec![] };
    let ghost = world.registry.create(&target, &caller, body).await.unwrap();
    assert!(ghost.name().starts_with("ghost-") && !ghost.uid().is_empty());
    assert_eq!(ghost.resource_version(), "");
    assert_eq!(world.registry.revision(), before);
}

#[tokio::test]
async fn an_object_with_finalizers_goes_when_the_last_one_is_taken_away() {
    let world = World::new().await;
    world.create(MAPS, "demo", json!({"metadata": {"name": "a", "finalizers": ["x.io/one"]}})).await.unwrap();
    let Deleted::Waiting(waiting) = world.delete(MAPS, "demo", "a").await.unwrap() else { panic!("it must wait") };
    assert!(waiting.is_deleting());
    let refused = world.create(MAPS, "demo", json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!(refused.message, r#"object is being deleted: configmaps "a" already exists"#);
    world.merge(MAPS, "demo", "a", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(world.get(MAPS, "demo", "a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn pages_show_the_state_of_the_first_page_and_end_with_410_after_compaction() {
    let world = World::new().await;
    for name in ["a", "b", "c"] {
        world.map(name).await;
    }
    let target = world.target(MAPS, "demo", "", "");
    let page = |token: String| ListOptions { limit: 2, continue_token: token, ..ListOptions::default() };
    let first = world.registry.list(&target, &page(String::new())).await.unwrap();
    assert_eq!((names(&first.items), first.remaining), (vec!["a", "b"], Some(1)));
    world.map("late").await;
    world.delete(MAPS, "demo", "c").await.unwrap();
    let second = world.registry.list(&target, &page(first.continue_token.clone())).await.unwrap();
    assert_eq!((names(&second.items), second.continue_token.as_str()), (vec!["c"], ""));
    assert_eq!(second.revision, first.revision);

    world.registry.compact();
    let error = world.registry.list(&target, &page(first.continue_token)).await.unwrap_err();
    assert_eq!((error.code, error.reason), (410, "Expired"));
    assert!(!error.continue_token.is_empty(), "upstream offers a token for an inconsistent rest");
}

#[tokio::test]
async fn a_watch_from_before_the_compaction_ends_with_410_in_the_stream() {
    let world = World::new().await;
    let old = world.map("a").await;
    world.map("b").await;
    world.registry.compact();
    let version = old.resource_version().to_owned();
    let mut watch = world.watch(ListOptions { resource_version: version, ..ListOptions::default() }).await;
    let events = watch.next().await.unwrap();
    assert!(matches!(&events[..], [WatchEvent::Error(status)] if status.code == 410), "{events:?}");
    assert!(watch.next().await.is_none(), "and nothing comes after");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_asks_for_bookmarks_gets_one_a_minute() {
    let world = World::new().await;
    let revision = world.registry.revision();
    let options =
        ListOptions { allow_bookmarks: true, resource_version: revision.to_string(), ..ListOptions::default() };
    let mut watch = world.watch(options).await;
    let start = world.registry.clock().now();
    let events = watch.next().await.unwrap();
    assert!(matches!(events[..], [WatchEvent::Bookmark(seen, false)] if seen == revision), "{events:?}");
    assert_eq!(world.registry.clock().now().duration_since(start).as_secs(), 60);
}

#[tokio::test]
async fn a_definition_is_served_at_once_and_takes_its_objects_with_it() {
    let world = World::new().await;
    world.create(CRDS, "", widget_definition()).await.unwrap();
    let definition = world.get(CRDS, "", "widgets.example.com").await.unwrap();
    assert_eq!(definition.at(&["status", "conditions"]).unwrap()[1]["type"], "Established");

    let made = world.create(WIDGETS, "demo", widget("w", json!({"size": 2, "bogus": 1}))).await.unwrap();
    assert_eq!(made.get("spec"), Some(&json!({"color": "red", "size": 2})), "defaulted and pruned");
    let error = world.create(WIDGETS, "demo", widget("v", json!({"size": 0}))).await.unwrap_err();
    assert_eq!(error.code, 422, "{error}");

    world.merge(WIDGETS, "demo", "w", json!({"metadata": {"finalizers": ["x.io/hold"]}})).await.unwrap();
    world.delete(CRDS, "", "widgets.example.com").await.unwrap();
    assert!(world.get(WIDGETS, "demo", "w").await.unwrap().is_deleting());
    let held = world.get(CRDS, "", "widgets.example.com").await.unwrap();
    assert!(held.is_deleting(), "a definition waits for its last object");
    world.merge(WIDGETS, "demo", "w", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert!(world.get(CRDS, "", "widgets.example.com").await.unwrap_err().is_not_found());
    assert!(world.registry.target(&Gvr::new("example.com", "v1", "widgets"), "demo", "w", "").is_err());
}

#[tokio::test]
async fn generation_counts_changes_of_the_spec_and_status_is_written_by_its_own_door() {
    let world = World::new().await;
    world.create(CRDS, "", widget_definition()).await.unwrap();
    world.create(WIDGETS, "demo", widget("w", json!({"size": 1}))).await.unwrap();
    let patched =
        world.merge(WIDGETS, "demo", "w", json!({"spec": {"size": 2}, "status": {"ready": true}})).await.unwrap();
    assert_eq!((patched.generation(), patched.get("status")), (2, None));
    let status = world.target(WIDGETS, "demo", "w", "status");
    let patch = Patch::Merge(json!({"spec": {"size": 9}, "status": {"ready": true}}));
    let (patched, _) = world.registry.patch(&status, &world.caller, patch).await.unwrap();
    assert_eq!((patched.generation(), &patched.get("spec").unwrap()["size"]), (2, &json!(2)));
    assert_eq!(patched.get("status"), Some(&json!({"ready": true})));
}

/// What upstream leaves of a map that an apply has emptied is null, and judged as such.
#[tokio::test]
async fn an_apply_that_empties_a_map_which_another_filled_is_refused_as_upstream_refuses_it() {
    let world = World::new().await;
    let mut definition = widget_definition();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["open"] =
        json!({"type": "object", "additionalProperties": {"type": "string"}});
    world.create(CRDS, "", definition).await.unwrap();
    let target = world.target(WIDGETS, "demo", "w", "");
    let apply = async |spec: Value| {
        let body = Body { value: widget("w", spec), duplicates: vec![] };
        world.registry.patch(&target, &world.caller, Patch::Apply { body, force: false }).await
    };
    let error = apply(json!({"size": 1, "open": null})).await.unwrap_err();
    let message = r#"spec.open: Invalid value: "null": spec.open in body must be of type object: "null""#;
    assert_eq!(error.message, format!(r#"Widget.example.com "w" is invalid: {message}"#));
    apply(json!({"size": 1, "open": {"a": "b"}})).await.unwrap();
    let (emptied, _) = apply(json!({"size": 1})).await.unwrap();
    assert_eq!(emptied.get("spec"), Some(&json!({"color": "red", "size": 1})), "what nobody else has goes as a whole");
}

#[tokio::test]
async fn an_owner_that_stands_there_twice_is_kept_once_with_a_warning() {
    let world = World::new().await;
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u"});
    let metadata = json!({"name": "a", "ownerReferences": [owner, owner]});
    let made = world.create(MAPS, "demo", json!({"metadata": metadata})).await.unwrap();
    assert_eq!(made.owner_references().len(), 1);
    let said = world.caller.warnings.take().join("\n");
    assert!(said.ends_with("please fix your requests; duplicate UID(s) observed: u"), "{said}");
}

#[tokio::test]
async fn nobody_marks_an_object_as_going_by_writing_it() {
    let world = World::new().await;
    world.map("a").await;
    let patch = json!({"metadata": {"deletionTimestamp": "2020-01-01T00:00:00Z"}});
    let error = world.merge(MAPS, "demo", "a", patch).await.unwrap_err();
    let why = r#"metadata.deletionTimestamp: Invalid value: "2020-01-01T00:00:00Z": field is immutable"#;
    assert_eq!(error.message, format!(r#"ConfigMap "a" is invalid: {why}"#));
}

#[derive(Clone, Debug)]
enum Step {
    Create(u8, bool),
    Label(u8, bool),
    Delete(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = 0_u8..4;
    let step = prop_oneof![
        (name.clone(), any::<bool>()).prop_map(|(name, red)| Step::Create(name, red)),
        (name.clone(), any::<bool>()).prop_map(|(name, red)| Step::Label(name, red)),
        name.prop_map(Step::Delete),
    ];
    prop::collection::vec(step, 1..24)
}

async fn carry_out(world: &World, step: &Step) {
    let color = |red: &bool| if *red { "red" } else { "blue" };
    // What is there already, or not there at all, is refused; that is part of the history.
    let _ = match step {
        Step::Create(name, red) => {
            let labels = json!({"color": color(red)});
            let metadata = json!({"name": format!("map-{name}"), "labels": labels});
            world.create(MAPS, "demo", json!({"metadata": metadata})).await.map(|_| ())
        }
        Step::Label(name, red) => {
            let patch = json!({"metadata": {"labels": {"color": color(red)}}});
            world.merge(MAPS, "demo", &format!("map-{name}"), patch).await.map(|_| ())
        }
        Step::Delete(name) => world.delete(MAPS, "demo", &format!("map-{name}")).await.map(|_| ()),
    };
}

fn replay(world: &mut BTreeMap<String, String>, events: Vec<WatchEvent>) {
    for event in events {
        match event {
            WatchEvent::Added(object) => {
                let known = world.insert(object.name().into(), object.resource_version().into());
                assert_eq!(known, None, "what is added was not there");
            }
            WatchEvent::Modified(object) => {
                let known = world.insert(object.name().into(), object.resource_version().into());
                assert!(known.is_some(), "what is modified was there");
            }
            WatchEvent::Deleted(object) => {
                assert!(world.remove(object.name()).is_some(), "what is deleted was there");
            }
            WatchEvent::Bookmark(..) => {}
            WatchEvent::Error(status) => panic!("{status}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_list_and_the_watch_from_its_version_never_disagree(steps in steps(), cut in 0_usize..24, selected: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let world = World::new().await;
            let cut = cut.min(steps.len());
            for step in &steps[..cut] {
                carry_out(&world, step).await;
            }
            let label_selector = if selected { "color=red" } else { "" }.to_owned();
            let options = ListOptions { label_selector, ..ListOptions::default() };
            let target = world.target(MAPS, "demo", "", "");
            let list = world.registry.list(&target, &options).await.unwrap();
            let versions = |items: &[Arc<Stored>]| -> BTreeMap<String, String> {
                items.iter().map(|item| (item.name().into(), item.resource_version().into())).collect()
            };
            let mut known = versions(&list.items);
            let from = ListOptions { resource_version: list.revision.to_string(), ..options.clone() };
            let mut watch = world.registry.watch(&target, &from).await.unwrap();
            for step in &steps[cut..] {
                carry_out(&world, step).await;
                let now = world.registry.list(&target, &options).await.unwrap();
                let waiting = tokio::time::timeout(std::time::Duration::ZERO, watch.next()).await;
                replay(&mut known, waiting.ok().flatten().unwrap_or_default());
                assert_eq!(known, versions(&now.items));
            }
        });
    }
}

#[tokio::test]
async fn an_event_of_one_group_is_read_and_selected_as_one_of_the_other() {
    const CORE: (&str, &str, &str) = ("", "v1", "events");
    const NEW: (&str, &str, &str) = ("events.k8s.io", "v1", "events");
    let world = World::new().await;
    let event = json!({
        "metadata": {"name": "e", "namespace": "demo"}, "regarding": {"kind": "Pod", "name": "p", "namespace": "demo"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "c-1",
        "action": "Doing", "reason": "Done", "note": "It is done.", "type": "Normal",
    });
    world.create(NEW, "demo", event).await.unwrap();
    for (resource, selector, message) in [(CORE, "involvedObject.name=p", "message"), (NEW, "regarding.name=p", "note")]
    {
        let target = world.target(resource, "demo", "", "");
        let options = ListOptions { field_selector: selector.into(), ..ListOptions::default() };
        let list = world.registry.list(&target, &options).await.unwrap();
        assert_eq!(list.items.len(), 1, "{selector}");
        assert_eq!(list.items[0].str_at(&[message]), "It is done.");
    }
    let core = world.registry.get(&world.target(CORE, "demo", "e", ""), "").await.unwrap();
    assert_eq!(core.str_at(&["reportingComponent"]), "example.com/c");
    assert_eq!(core.get("regarding"), None);
}

const SERVICES: (&str, &str, &str) = ("", "v1", "services");

#[tokio::test(start_paused = true)]
async fn services_get_addresses_and_ports_that_nobody_else_has() {
    let world = World::new().await;
    let service = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    let ports = json!([{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}]);
    let first =
        world.create(SERVICES, "demo", service("one", json!({"type": "NodePort", "ports": ports}))).await.unwrap();
    let given = first.at(&["spec", "ports"]).unwrap();
    assert_eq!(given[0]["nodePort"], given[1]["nodePort"]); // one number for a port of two protocols
    let node_port = given[0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&node_port));
    let ip = first.str_at(&["spec", "clusterIP"]);
    let taken = json!({"clusterIP": ip, "ports": [{"port": 80}]});
    let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
    let error = world.create(SERVICES, "demo", service("two", taken)).await.unwrap_err();
    assert!(error.message.ends_with(&why), "{}", error.message);
    let taken = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": node_port}]});
    let error = world.create(SERVICES, "demo", service("two", taken)).await.unwrap_err();
    assert!(error.message.ends_with("provided port is already allocated"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_says_what_its_pods_may_be() {
    let world = World::new().await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}],
    }});
    world.create(("", "v1", "serviceaccounts"), "demo", json!({"metadata": {"name": "default"}})).await.unwrap();
    world.create(("", "v1", "pods"), "demo", pod.clone()).await.unwrap();
    let restricted = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    world.merge(SPACES, "", "demo", restricted).await.unwrap();
    let warnings = world.caller.warnings.take();
    assert_eq!(
        warnings[0],
        "existing pods in namespace \"demo\" violate the new PodSecurity enforce level \"restricted:latest\""
    );
    assert_eq!(
        warnings[1],
        "p: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile"
    );
    let mut pod = pod;
    pod["metadata"]["name"] = "q".into();
    let error = world.create(("", "v1", "pods"), "demo", pod).await.unwrap_err();
    assert!(error.message.starts_with("pods \"q\" is forbidden: violates PodSecurity \"restricted:latest\": "));
}
