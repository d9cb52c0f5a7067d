//! kube-rs, used as its users use it: one body, through each door.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use fake_apiserver::cluster::Cluster;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ConfigMap, Pod},
        events::v1::Event as ClusterEvent,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt,
    api::{
        DeleteParams, DynamicObject, ListParams, LogParams, Patch, PatchParams, PostParams, PropagationPolicy,
        WatchEvent, WatchParams,
    },
    core::GroupVersionKind,
    discovery::{self, Discovery, Scope, verbs},
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{self, Event as Finalizer},
        predicates, reflector,
        wait::{Condition, await_condition, conditions},
        watcher,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::raw::Door;

/// How many of something there are to be.
#[derive(CustomResource, Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "kube.example.com",
    version = "v1",
    kind = "Gauge",
    namespaced,
    status = "GaugeStatus",
    shortname = "gg"
)]
#[kube(scale(spec_replicas_path = ".spec.level", status_replicas_path = ".status.level"))]
struct GaugeSpec {
    level: i32,
    #[serde(default)]
    note: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
struct GaugeStatus {
    level: i32,
}

const FINALIZER: &str = "kube.example.com/held";

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(60);

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("no refusal: {other:?}"),
    }
}

fn gauges(client: &Client) -> Api<Gauge> {
    Api::default_namespaced(client.clone())
}

fn gauge(name: &str, level: i32) -> Gauge {
    Gauge::new(name, GaugeSpec { level, note: String::new() })
}

async fn until<K>(api: &Api<K>, name: &str, condition: impl Condition<K>) -> Option<K>
where
    K: Clone + std::fmt::Debug + Send + for<'de> Deserialize<'de> + Resource + 'static,
{
    let found = tokio::time::timeout(LIMIT, await_condition(api.clone(), name, condition)).await;
    found.unwrap_or_else(|_| panic!("{name} does not come to meet the condition")).unwrap()
}

/// Everything that a program built on kube does, one after the other.
async fn a_program(client: Client) {
    defines_its_kind(&client).await;
    finds_it(&client).await;
    reads_and_writes(&client).await;
    applies(&client).await;
    watches(&client).await;
    reflects(&client).await;
    controls(&client).await;
    waits(&client).await;
    tells(&client).await;
}

async fn defines_its_kind(client: &Client) {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let params = PatchParams::apply("program").force();
    let name = Gauge::crd_name();
    definitions.patch(name, &params, &Patch::Apply(Gauge::crd())).await.unwrap();
    until(&definitions, name, conditions::is_crd_established()).await;
}

async fn finds_it(client: &Client) {
    for found in [
        Discovery::new(client.clone()).run().await.unwrap(),
        Discovery::new(client.clone()).run_aggregated().await.unwrap(),
        Discovery::new(client.clone()).filter(&["kube.example.com"]).run().await.unwrap(),
    ] {
        let (kind, capabilities) =
            found.resolve_gvk(&GroupVersionKind::gvk("kube.example.com", "v1", "Gauge")).unwrap();
        assert_eq!((kind.plural.as_str(), &capabilities.scope), ("gauges", &Scope::Namespaced));
        assert!(capabilities.supports_operation(verbs::WATCH));
        let subresources: BTreeSet<_> = capabilities.subresources.iter().map(|(sub, _)| sub.plural.as_str()).collect();
        assert_eq!(subresources, BTreeSet::from(["scale", "status"]));
    }
    let kind = GroupVersionKind::gvk("kube.example.com", "v1", "Gauge");
    let (resource, _) = discovery::pinned_kind(client, &kind).await.unwrap();
    let dynamic: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    assert!(dynamic.list(&ListParams::default()).await.unwrap().items.is_empty());
    let apps = discovery::group(client, "apps").await.unwrap();
    assert!(apps.recommended_kind("Deployment").is_some());
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
}

async fn reads_and_writes(client: &Client) {
    let (api, post) = (gauges(client), PostParams::default());
    let made = api.create(&post, &gauge("one", 1)).await.unwrap();
    assert_eq!(code(api.create(&post, &gauge("one", 1)).await), 409);
    assert_eq!(api.get("one").await.unwrap().uid(), made.uid());
    assert!(api.get_opt("nobody").await.unwrap().is_none());
    assert_eq!(api.get_metadata("one").await.unwrap().metadata.uid, made.uid());
    let patched =
        api.patch("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"level": 2}}))).await.unwrap();
    assert_eq!(patched.spec.level, 2);
    let operations = json!([
        {"op": "test", "path": "/spec/level", "value": 2}, {"op": "replace", "path": "/spec/note", "value": "two"},
    ]);
    let operations = Patch::Json::<()>(serde_json::from_value(operations).unwrap());
    let patched = api.patch("one", &PatchParams::default(), &operations).await.unwrap();
    assert_eq!(patched.spec.note, "two");
    assert_eq!(code(api.replace("one", &post, &made).await), 409, "an older version replaces nothing");

    let status = Patch::Merge(json!({"status": {"level": 2}}));
    api.patch_status("one", &PatchParams::default(), &status).await.unwrap();
    let mut shown = api.get_status("one").await.unwrap();
    shown.status = Some(GaugeStatus { level: 3 });
    assert_eq!(api.replace_status("one", &post, &shown).await.unwrap().status.unwrap().level, 3);
    let scale = Patch::Merge(json!({"spec": {"replicas": 5}}));
    api.patch_scale("one", &PatchParams::default(), &scale).await.unwrap();
    let scale = api.get_scale("one").await.unwrap();
    assert_eq!((scale.spec.unwrap().replicas, scale.status.unwrap().replicas), (Some(5), 3));

    let mut entry = api.entry("two").await.unwrap().or_insert(|| gauge("two", 1));
    entry.commit(&post).await.unwrap();
    entry.get_mut().spec.level = 7;
    entry.commit(&post).await.unwrap();
    assert_eq!(api.get("two").await.unwrap().spec.level, 7);

    for name in ["p-1", "p-2", "p-3"] {
        let mut one = gauge(name, 0);
        one.labels_mut().insert("set".into(), "p".into());
        api.create(&post, &one).await.unwrap();
    }
    let of_set = ListParams::default().labels("set=p");
    let page = api.list(&of_set.clone().limit(2)).await.unwrap();
    assert_eq!(page.items.len(), 2);
    let rest = api.list(&of_set.clone().limit(2).continue_token(&page.metadata.continue_.unwrap())).await.unwrap();
    assert_eq!(rest.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["p-3"]);
    assert_eq!(api.list_metadata(&of_set).await.unwrap().items.len(), 3);
    api.delete_collection(&DeleteParams::default(), &of_set).await.unwrap();
    assert!(api.list(&of_set).await.unwrap().items.is_empty());
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    api.delete("two", &dry).await.unwrap();
    let gone = api.delete("two", &DeleteParams::default()).await.unwrap();
    assert_eq!(gone.right().unwrap().status.unwrap(), kube::core::response::StatusSummary::Success);
}

async fn applies(client: &Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let config = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": value}});
    let apply = |manager: &'static str, value: &'static str| {
        let (api, config) = (api.clone(), config(value));
        async move { api.patch("applied", &PatchParams::apply(manager), &Patch::Apply(config)).await }
    };
    apply("one", "1").await.unwrap();
    let Err(kube::Error::Api(conflict)) = apply("two", "2").await else { panic!("no conflict") };
    assert_eq!((conflict.code, conflict.reason.as_str()), (409, "Conflict"));
    let forced = PatchParams::apply("two").force();
    let taken = api.patch("applied", &forced, &Patch::Apply(config("2"))).await.unwrap();
    let managers: Vec<_> = taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    assert_eq!(managers, ["two"]);
    let strategic = Patch::Strategic(json!({"data": {"b": "1"}}));
    let patched = api.patch("applied", &PatchParams::default(), &strategic).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    let strict =
        PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::default() };
    assert_eq!(code(api.patch("applied", &strict, &Patch::Merge(json!({"datum": {}}))).await), 422);
}

async fn watches(client: &Client) {
    let (api, post) = (gauges(client), PostParams::default());
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let config = config.labels("of=watches");
        let mut events = watcher(api.clone(), config).default_backoff().boxed();
        let mut next = async || tokio::time::timeout(LIMIT, events.try_next()).await.unwrap().unwrap().unwrap();
        assert!(matches!(next().await, watcher::Event::Init));
        assert!(matches!(next().await, watcher::Event::InitDone));
        let mut one = gauge("watched", 1);
        one.labels_mut().insert("of".into(), "watches".into());
        api.create(&post, &one).await.unwrap();
        assert!(matches!(next().await, watcher::Event::Apply(gauge) if gauge.spec.level == 1));
        // what ceases to match is gone for who watches
        let other = Patch::Merge(json!({"metadata": {"labels": {"of": null}}}));
        api.patch("watched", &PatchParams::default(), &other).await.unwrap();
        assert!(matches!(next().await, watcher::Event::Delete(gauge) if gauge.name_any() == "watched"));
        api.delete("watched", &DeleteParams::default()).await.unwrap();
    }
    let params = WatchParams::default().fields("metadata.name=one").timeout(30);
    let mut raw = api.watch(&params, "0").await.unwrap().boxed();
    assert!(matches!(raw.try_next().await.unwrap().unwrap(), WatchEvent::Added(gauge) if gauge.name_any() == "one"));
}

async fn reflects(client: &Client) {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let (reader, writer) = reflector::store();
    let stream = watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::labels, Default::default());
    let task = tokio::spawn(stream.for_each(|_| async {}));
    tokio::time::timeout(LIMIT, reader.wait_until_ready()).await.unwrap().unwrap();
    let key = |name: &str| reflector::ObjectRef::<ConfigMap>::new(name).within("default");
    assert_eq!(reader.get(&key("applied")).unwrap().data.as_ref().unwrap()["a"], "2");
    let names: Vec<_> = (0..20).map(|number| format!("reflected-{number}")).collect();
    for name in &names {
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
        api.create(&PostParams::default(), &map).await.unwrap();
    }
    let all = |_: Option<&ConfigMap>| names.iter().all(|name| reader.get(&key(name)).is_some());
    until(&api, "applied", NudgedUntil(all)).await;
    api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    task.abort();
}

/// A condition of something else than the object; it is looked at with each event.
struct NudgedUntil<F>(F);

impl<F: Fn(Option<&ConfigMap>) -> bool> Condition<ConfigMap> for NudgedUntil<F> {
    fn matches_object(&self, object: Option<&ConfigMap>) -> bool {
        (self.0)(object)
    }
}

/// A controller keeps a map for each gauge, and takes it away by a finalizer.
async fn controls(client: &Client) {
    async fn reconcile(gauge: Arc<Gauge>, client: Arc<Client>) -> Result<Action, finalizer::Error<kube::Error>> {
        let gauges: Api<Gauge> = Api::default_namespaced(Client::clone(&client));
        let maps: Api<ConfigMap> = Api::default_namespaced(Client::clone(&client));
        finalizer::finalizer(&gauges, FINALIZER, gauge, |event| async {
            match event {
                Finalizer::Apply(gauge) => {
                    let map = json!({
                        "apiVersion": "v1", "kind": "ConfigMap",
                        "metadata": {"name": gauge.name_any(), "ownerReferences": [gauge.controller_owner_ref(&())]},
                        "data": {"level": gauge.spec.level.to_string()},
                    });
                    let params = PatchParams::apply("gauges").force();
                    maps.patch(&gauge.name_any(), &params, &Patch::Apply(map)).await?;
                    let status = json!({"status": {"level": gauge.spec.level}});
                    gauges.patch_status(&gauge.name_any(), &PatchParams::default(), &Patch::Merge(status)).await?;
                    Ok(Action::await_change())
                }
                Finalizer::Cleanup(gauge) => {
                    maps.delete(&gauge.name_any(), &DeleteParams::default()).await?;
                    Ok(Action::await_change())
                }
            }
        })
        .await
    }
    let (api, maps): (Api<Gauge>, Api<ConfigMap>) = (gauges(client), Api::default_namespaced(client.clone()));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let controller = Controller::new(api.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .graceful_shutdown_on(async move { drop(stopped.await) })
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_secs(1)), Arc::new(client.clone()));
    let task = tokio::spawn(controller.for_each(|_| async {}));

    api.create(&PostParams::default(), &gauge("kept", 4)).await.unwrap();
    let level = |wanted: &'static str| {
        move |map: Option<&ConfigMap>| map.and_then(|map| map.data.as_ref()).is_some_and(|data| data["level"] == wanted)
    };
    until(&maps, "kept", level("4")).await;
    maps.delete("kept", &DeleteParams::default()).await.unwrap();
    until(&maps, "kept", level("4")).await.expect("it is made again");
    api.patch("kept", &PatchParams::default(), &Patch::Merge(json!({"spec": {"level": 5}}))).await.unwrap();
    until(&maps, "kept", level("5")).await;
    until(&api, "kept", |gauge: Option<&Gauge>| {
        gauge.and_then(|gauge| gauge.status.as_ref()).is_some_and(|s| s.level == 5)
    })
    .await;
    let kept = api.get("kept").await.unwrap();
    assert_eq!(kept.finalizers(), [FINALIZER]);
    api.delete("kept", &DeleteParams::default()).await.unwrap();
    until(&api, "kept", conditions::is_deleted(&kept.uid().unwrap())).await;
    assert!(maps.get_opt("kept").await.unwrap().is_none());
    stop.send(()).unwrap();
    tokio::time::timeout(LIMIT, task).await.expect("the controller ends when it is asked to").unwrap();
}

async fn waits(client: &Client) {
    let (pods, jobs): (Api<Pod>, Api<Job>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let container = json!([{"name": "main", "image": "busybox", "command": ["echo", "hello"]}]);
    let pod = json!({"metadata": {"name": "runs"}, "spec": {"containers": [{"name": "main", "image": "nginx"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    let running = until(&pods, "runs", conditions::is_pod_running()).await.unwrap();
    let template = json!({"spec": {"restartPolicy": "Never", "containers": container}});
    let job = json!({"metadata": {"name": "once"}, "spec": {"template": template}});
    jobs.create(&PostParams::default(), &serde_json::from_value(job).unwrap()).await.unwrap();
    until(&jobs, "once", conditions::is_job_completed()).await;
    let of_job = pods.list(&ListParams::default().labels("job-name=once")).await.unwrap();
    assert_eq!(pods.logs(&of_job.items[0].name_any(), &LogParams::default()).await.unwrap(), "hello\n");
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    jobs.delete("once", &foreground).await.unwrap();
    until(&pods, &of_job.items[0].name_any(), conditions::is_deleted(&of_job.items[0].uid().unwrap())).await;
    pods.delete("runs", &DeleteParams::default().grace_period(0)).await.unwrap();
    until(&pods, "runs", conditions::is_deleted(&running.uid().unwrap())).await;
}

async fn tells(client: &Client) {
    let one = gauges(client).get("one").await.unwrap();
    let recorder = Recorder::new(client.clone(), Reporter { controller: "program".into(), instance: None });
    let event = Event {
        type_: EventType::Normal,
        reason: "Raised".into(),
        note: Some("to five".into()),
        action: "Raising".into(),
        secondary: None,
    };
    for _ in 0..2 {
        recorder.publish(&event, &one.object_ref(&())).await.unwrap(); // the second is a series
    }
    let events: Api<ClusterEvent> = Api::default_namespaced(client.clone());
    let told = events.list(&ListParams::default().fields("reason=Raised")).await.unwrap();
    assert_eq!(told.items.len(), 1);
    assert_eq!(told.items[0].regarding.as_ref().unwrap().name.as_deref(), Some("one"));
    assert_eq!(told.items[0].series.as_ref().unwrap().count, 2);
}

#[tokio::test(start_paused = true)]
async fn a_program_built_on_kube_works_over_memory() {
    let cluster = Cluster::builder().sandbox_controllers(false).start().await.unwrap();
    a_program(cluster.client()).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_program_built_on_kube_works_over_https() {
    let cluster = Cluster::builder().sandbox_controllers(false).start().await.unwrap();
    let kubeconfig = cluster.serve_https("127.0.0.1:0".parse().unwrap()).await.unwrap();
    a_program(Door::client_of(&kubeconfig).await).await;
    cluster.shutdown().await;
}
