//! What users of workloads see: rollouts, jobs and services with pods behind them, on virtual time.

use std::time::Duration;

use fake_apiserver::cluster::Cluster;
use futures::TryStreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        core::v1::{Endpoints, Event, Node, PersistentVolumeClaim, Pod, Service},
        node::v1::RuntimeClass,
    },
};
use kube::{
    Api, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

#[tokio::test(start_paused = true)]
async fn the_claims_of_a_set_go_as_its_retention_policy_says() {
    let world = World::start().await;
    let claim = json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    }});
    let template = json!({"metadata": {"labels": {"app": "db"}}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": "busybox:1.36"}],
    }});
    for (name, when_scaled, when_deleted) in [("all", "Delete", "Delete"), ("some", "Retain", "Delete")] {
        world
            .create::<StatefulSet>(json!({"metadata": {"name": name}, "spec": {
                "replicas": 2, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}}, "template": template,
                "volumeClaimTemplates": [claim],
                "persistentVolumeClaimRetentionPolicy": {"whenScaled": when_scaled, "whenDeleted": when_deleted},
            }}))
            .await;
        let sets = world.api::<StatefulSet>();
        world.until(&sets, name, |set| set["status"]["readyReplicas"] == 2).await;
        world.patch::<StatefulSet>(name, json!({"spec": {"replicas": 1}})).await;
        world.until(&sets, name, |set| set["status"]["replicas"] == 1).await;
        let claims = world.api::<PersistentVolumeClaim>();
        let second = format!("data-{name}-1");
        world.until(&claims, &second, |claim| claim.is_null() == (when_scaled == "Delete")).await;
        // Scaled up again the pod finds its claim, or gets a new one.
        world.patch::<StatefulSet>(name, json!({"spec": {"replicas": 2}})).await;
        world.until(&sets, name, |set| set["status"]["readyReplicas"] == 2).await;
        let owner = |claim: &Value| claim["metadata"]["ownerReferences"][0]["kind"] == "StatefulSet";
        world.until(&claims, &second, owner).await;
        sets.delete(name, &DeleteParams::default()).await.unwrap();
        for number in 0..2 {
            world.until(&claims, &format!("data-{name}-{number}"), Value::is_null).await;
        }
    }
    world.0.shutdown().await;
}

/// A cluster and its administrator.
struct World(Cluster);

trait Known: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Send + 'static {}
impl<K: Clone + std::fmt::Debug + DeserializeOwned + Serialize + Send + 'static> Known for K {}

impl World {
    async fn start() -> Self {
        let world = Self(Cluster::builder().sandbox_controllers(false).start().await.unwrap());
        let nodes: Api<Node> = Api::all(world.0.client());
        world.until(&nodes, "fake-node-1", |node| !node.is_null()).await;
        world
    }

    fn api<K: Known + Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self) -> Api<K> {
        Api::default_namespaced(self.0.client())
    }

    async fn create<K: Known + Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, value: Value) {
        let object: K = serde_json::from_value(value).unwrap();
        self.api::<K>().create(&PostParams::default(), &object).await.unwrap();
    }

    async fn patch<K: Known + Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
        name: &str,
        patch: Value,
    ) {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// Waits until an object (`null` if it is not there) is as asked.
    async fn until<K: Known>(&self, api: &Api<K>, name: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let look = async || match api.get_opt(name).await.unwrap() {
            Some(object) => serde_json::to_value(object).unwrap(),
            None => Value::Null,
        };
        let wait = async {
            loop {
                let list = api.list(&ListParams::default()).await.unwrap();
                let now = look().await;
                if holds(&now) {
                    return now;
                }
                let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(200);
                let version = list.metadata.resource_version.unwrap_or_default();
                let mut watch = std::pin::pin!(api.watch(&params, &version).await.unwrap());
                let _ = watch.try_next().await; // whatever it is: look again
            }
        };
        match self.0.clock().timeout(Duration::from_secs(3600), wait).await {
            Some(object) => object,
            None => panic!("{name} is {:#}\n{}", look().await, self.0.dump().await),
        }
    }

    async fn names<K>(&self, selector: &str) -> Vec<String>
    where
        K: Known + Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let list = self.api::<K>().list(&ListParams::default().labels(selector)).await.unwrap();
        list.items.iter().filter_map(|object| object.meta().name.clone()).collect()
    }

    async fn rolled_out(&self, name: &str) -> Value {
        self.until(&self.api::<Deployment>(), name, |deployment| {
            let wanted = &deployment["spec"]["replicas"];
            let status = &deployment["status"];
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"].iter().all(|field| status[field] == *wanted)
                && reason(deployment, "Progressing") == "NewReplicaSetAvailable"
        })
        .await
    }

    async fn pass(&self, seconds: u64) {
        self.0.clock().sleep(Duration::from_secs(seconds)).await;
    }

    async fn events(&self, name: &str) -> Vec<String> {
        let all = self.api::<Event>().list(&ListParams::default()).await.unwrap();
        let about = all.items.into_iter().filter(|event| event.involved_object.name.as_deref() == Some(name));
        about.map(|event| event.message.unwrap_or_default()).collect()
    }
}

fn reason(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).map_or(Value::Null, |c| c["reason"].clone())
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

fn deployment(replicas: u32, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": template("nginx:1")},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        object["spec"][key] = value.clone();
    }
    object
}

#[tokio::test(start_paused = true)]
async fn a_deployment_rolls_out_and_back_and_is_scaled_and_goes_with_its_pods() {
    let world = World::start().await;
    world.create::<Deployment>(deployment(3, json!({}))).await;
    let first = world.rolled_out("web").await;
    assert_eq!(first["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    assert_eq!(reason(&first, "Available"), "MinimumReplicasAvailable");
    assert_eq!(world.names::<Pod>("app=web").await.len(), 3);

    world.patch::<Deployment>("web", json!({"spec": {"template": template("nginx:2")}})).await;
    let second = world.rolled_out("web").await;
    assert_eq!(second["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "2");
    let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await.unwrap();
    let mut sizes: Vec<_> = sets.items.iter().map(|set| set.spec.as_ref().unwrap().replicas.unwrap()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [0, 3]);

    world.patch::<Deployment>("web", json!({"spec": {"template": template("nginx:1")}})).await;
    let third = world.rolled_out("web").await;
    assert_eq!(third["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "3");
    assert_eq!(world.names::<ReplicaSet>("app=web").await.len(), 2, "an old template's replica set is used again");

    world.patch::<Deployment>("web", json!({"spec": {"replicas": 1}})).await;
    world.rolled_out("web").await;
    world.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    world.pass(60).await;
    assert!(world.names::<Pod>("app=web").await.is_empty());
    assert!(world.names::<ReplicaSet>("app=web").await.is_empty());
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_rolling_update_never_has_fewer_or_more_pods_than_allowed() {
    let world = World::start().await;
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    world.create::<Deployment>(deployment(4, json!({"strategy": strategy}))).await;
    world.rolled_out("web").await;
    let (api, sets) = (world.api::<Deployment>(), world.api::<ReplicaSet>());
    let version = api.get("web").await.unwrap().metadata.resource_version.unwrap();
    let params = WatchParams::default().timeout(120);
    let (watch, of_sets) = (api.watch(&params, &version).await.unwrap(), sets.watch(&params, &version).await.unwrap());
    world.patch::<Deployment>("web", json!({"spec": {"template": template("nginx:2")}})).await;
    let (events, of_sets) = tokio::join!(watch.try_collect::<Vec<_>>(), of_sets.try_collect::<Vec<_>>());
    let mut seen = 0;
    for event in events.unwrap() {
        if let kube::api::WatchEvent::Modified(deployment) = event {
            let status = deployment.status.unwrap();
            assert!(status.available_replicas.unwrap_or(0) >= 4, "{status:?}");
            seen += 1;
        }
    }
    let mut asked = std::collections::BTreeMap::from([(String::new(), 0)]);
    for event in of_sets.unwrap() {
        if let kube::api::WatchEvent::Modified(set) | kube::api::WatchEvent::Added(set) = event {
            asked.insert(set.metadata.name.unwrap(), set.spec.unwrap().replicas.unwrap());
            assert!(asked.values().sum::<i32>() <= 5, "{asked:?}");
        }
    }
    assert!(seen > 4, "only {seen} steps were seen");
    world.rolled_out("web").await;
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_deployment_waits_and_one_that_gets_nowhere_says_so_after_its_deadline() {
    let world = World::start().await;
    world.create::<Deployment>(deployment(1, json!({"progressDeadlineSeconds": 60}))).await;
    world.rolled_out("web").await;
    world.patch::<Deployment>("web", json!({"spec": {"paused": true, "template": template("nginx:2")}})).await;
    world.pass(30).await;
    let paused =
        world.until(&world.api::<Deployment>(), "web", |d| reason(d, "Progressing") == "DeploymentPaused").await;
    assert_eq!(paused["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "1");
    let mut stuck = template("nginx:2");
    stuck["spec"]["nodeSelector"] = json!({"no": "where"});
    world.patch::<Deployment>("web", json!({"spec": {"paused": false, "template": stuck}})).await;
    let api = world.api::<Deployment>();
    world.until(&api, "web", |d| reason(d, "Progressing") == "ProgressDeadlineExceeded").await;
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn recreating_ends_the_old_pods_first() {
    let world = World::start().await;
    world.create::<Deployment>(deployment(2, json!({"strategy": {"type": "Recreate"}}))).await;
    world.rolled_out("web").await;
    world.patch::<Deployment>("web", json!({"spec": {"template": template("nginx:2")}})).await;
    world.rolled_out("web").await;
    let scaling: Vec<_> = world.events("web").await;
    let down = scaling.iter().position(|note| note.ends_with("from 2 to 0")).unwrap();
    let up = scaling.iter().rposition(|note| note.ends_with("from 0 to 2")).unwrap();
    assert!(down < up, "{scaling:?}");
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_set_adopts_orphans_lets_others_go_and_replaces_what_is_deleted() {
    let world = World::start().await;
    world.create::<Pod>(json!({
        "metadata": {"name": "orphan", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]},
    }))
    .await;
    world
        .create::<ReplicaSet>(json!({
            "metadata": {"name": "rs"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template("nginx")},
        }))
        .await;
    let api = world.api::<ReplicaSet>();
    let ready = |set: &Value| set["status"]["availableReplicas"] == 2;
    world.until(&api, "rs", ready).await;
    let orphan = world.api::<Pod>().get("orphan").await.unwrap();
    assert_eq!(orphan.metadata.owner_references.unwrap()[0].name, "rs");
    world.patch::<Pod>("orphan", json!({"metadata": {"labels": {"app": "other"}}})).await;
    world.pass(30).await;
    assert_eq!(world.names::<Pod>("app=web").await.len(), 2);
    let orphan = world.api::<Pod>().get("orphan").await.unwrap();
    assert!(orphan.metadata.owner_references.unwrap_or_default().is_empty());
    let one = world.names::<Pod>("app=web").await.remove(0);
    world.api::<Pod>().delete(&one, &DeleteParams::default()).await.unwrap();
    world.pass(60).await;
    let now = world.names::<Pod>("app=web").await;
    assert!(now.len() == 2 && !now.contains(&one), "{now:?}");
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_stateful_set_numbers_its_pods_keeps_their_claims_and_updates_from_the_last() {
    let world = World::start().await;
    world.create::<StatefulSet>(json!({
        "metadata": {"name": "db"},
        "spec": {
            "serviceName": "db", "replicas": 3, "selector": {"matchLabels": {"app": "web"}}, "template": template("db:1"),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            }}],
        },
    }))
    .await;
    let api = world.api::<StatefulSet>();
    world.until(&api, "db", |set| set["status"]["readyReplicas"] == 3).await;
    assert_eq!(world.names::<Pod>("app=web").await, ["db-0", "db-1", "db-2"]);
    let created: Vec<_> = world.events("db").await.into_iter().filter(|note| note.starts_with("Create Pod")).collect();
    assert!(created[0].contains("db-0") && created[2].contains("db-2"), "{created:?}");
    let update = json!({"spec": {
        "template": template("db:2"),
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 2}},
    }});
    world.patch::<StatefulSet>("db", update).await;
    world.until(&api, "db", |set| set["status"]["updatedReplicas"] == 1 && set["status"]["readyReplicas"] == 3).await;
    let image =
        async |name: &str| world.api::<Pod>().get(name).await.unwrap().spec.unwrap().containers[0].image.clone();
    assert_eq!((image("db-1").await.unwrap(), image("db-2").await.unwrap()), ("db:1".into(), "db:2".into()));
    world.patch::<StatefulSet>("db", json!({"spec": {"replicas": 1}})).await;
    world.until(&api, "db", |set| set["status"]["replicas"] == 1).await;
    assert_eq!(world.names::<Pod>("app=web").await, ["db-0"]);
    assert_eq!(world.names::<PersistentVolumeClaim>("").await.len(), 3, "claims outlive their pods");
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_job_completes_fails_or_waits_and_goes_after_its_time() {
    let world = World::start().await;
    let job = |name: &str, command: &str, more: Value| {
        let container = json!({"name": "c", "image": "busybox", "command": ["sh", "-c", command]});
        let pod = json!({"spec": {"restartPolicy": "Never", "containers": [container]}});
        let mut job = json!({"metadata": {"name": name}, "spec": {"template": pod}});
        for (key, value) in more.as_object().into_iter().flatten() {
            job["spec"][key] = value.clone();
        }
        job
    };
    let api = world.api::<Job>();
    world.create::<Job>(job("good", "echo done", json!({"completions": 3, "parallelism": 2}))).await;
    let good = world.until(&api, "good", |job| reason(job, "Complete") == "CompletionsReached").await;
    assert_eq!(good["status"]["succeeded"], 3);
    let pods = world.api::<Pod>().list(&ListParams::default().labels("job-name=good")).await.unwrap();
    assert_eq!(pods.items.len(), 3);
    assert!(pods.items.iter().all(|pod| pod.metadata.finalizers.is_none()), "counted pods may go");

    world.create::<Job>(job("bad", "exit 1", json!({"backoffLimit": 1}))).await;
    let bad = world.until(&api, "bad", |job| !reason(job, "Failed").is_null()).await;
    assert_eq!(reason(&bad, "Failed"), "BackoffLimitExceeded");
    assert_eq!(bad["status"]["failed"], 2);

    world.create::<Job>(job("later", "echo now", json!({"suspend": true, "ttlSecondsAfterFinished": 30}))).await;
    let later = world.until(&api, "later", |job| reason(job, "Suspended") == "JobSuspended").await;
    assert!(later["status"].get("startTime").is_none());
    world.patch::<Job>("later", json!({"spec": {"suspend": false}})).await;
    world.until(&api, "later", |job| !reason(job, "Complete").is_null()).await;
    world.until(&api, "later", Value::is_null).await;

    let indexed = json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed"});
    world.create::<Job>(job("numbered", "echo $JOB_COMPLETION_INDEX", indexed)).await;
    let numbered = world.until(&api, "numbered", |job| !reason(job, "Complete").is_null()).await;
    assert_eq!(numbered["status"]["completedIndexes"], "0,1");
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_cron_job_starts_a_job_each_time_and_keeps_a_few() {
    let world = World::start().await;
    let container = json!({"name": "c", "image": "busybox", "command": ["true"]});
    let job = json!({"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}});
    world
        .create::<CronJob>(json!({
            "metadata": {"name": "tick"},
            "spec": {"schedule": "*/10 * * * *", "successfulJobsHistoryLimit": 2, "jobTemplate": job},
        }))
        .await;
    world.pass(605).await;
    assert_eq!(world.names::<Job>("").await.len(), 1);
    world.pass(3600).await;
    assert_eq!(world.names::<Job>("").await.len(), 2);
    let tick = world.api::<CronJob>().get("tick").await.unwrap().status.unwrap();
    let text = |time: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>| serde_json::to_value(time).unwrap();
    assert_eq!(text(tick.last_schedule_time), "2026-01-01T01:10:00Z");
    assert!(tick.last_successful_time.is_some() && tick.active.unwrap_or_default().is_empty());
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_has_a_pod_on_each_node_that_it_is_for() {
    let world = World::start().await;
    world
        .create::<DaemonSet>(json!({
            "metadata": {"name": "ds"},
            "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template("agent")},
        }))
        .await;
    let api = world.api::<DaemonSet>();
    world.until(&api, "ds", |set| set["status"]["numberAvailable"] == 1).await;
    let nodes: Api<Node> = Api::all(world.0.client());
    let allocatable = json!({"pods": "10", "cpu": "1", "memory": "1Gi"});
    let node = json!({"metadata": {"name": "other"}, "status": {"allocatable": allocatable, "capacity": allocatable}});
    nodes.create(&PostParams::default(), &serde_json::from_value(node).unwrap()).await.unwrap();
    world.until(&api, "ds", |set| set["status"]["desiredNumberScheduled"] == 2).await;
    world.pass(5).await;
    let pods = world.api::<Pod>().list(&ListParams::default()).await.unwrap();
    let mut places: Vec<_> = pods.items.into_iter().filter_map(|pod| pod.spec?.node_name).collect();
    places.sort();
    assert_eq!(places, ["fake-node-1", "other"]);
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}});
    world
        .patch::<DaemonSet>("ds", json!({"spec": {"template": template("agent:2"), "updateStrategy": strategy}}))
        .await;
    world.until(&api, "ds", |set| set["status"]["updatedNumberScheduled"].as_i64() >= Some(1)).await;
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_has_the_addresses_of_its_ready_pods() {
    let world = World::start().await;
    world.create::<Service>(json!({
        "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }))
    .await;
    world.create::<Deployment>(deployment(2, json!({}))).await;
    let api = world.api::<Endpoints>();
    let full = |endpoints: &Value| endpoints["subsets"][0]["addresses"].as_array().is_some_and(|all| all.len() == 2);
    let endpoints = world.until(&api, "web", full).await;
    assert_eq!(endpoints["subsets"][0]["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
    let slices = world.names::<k8s_openapi::api::discovery::v1::EndpointSlice>("kubernetes.io/service-name=web").await;
    assert_eq!(slices.len(), 1);
    world.patch::<Deployment>("web", json!({"spec": {"replicas": 0}})).await;
    world.until(&api, "web", |endpoints| endpoints.get("subsets").is_none()).await;
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_goes_where_room_is_made() {
    let world = World::start().await;
    let container = json!({"name": "c", "image": "nginx", "resources": {"requests": {"cpu": "60"}}});
    for name in ["first", "second"] {
        world.create::<Pod>(json!({"metadata": {"name": name}, "spec": {"containers": [container]}})).await;
        world.pass(5).await;
    }
    let api = world.api::<Pod>();
    let second = world.until(&api, "second", |pod| reason(pod, "PodScheduled") == "Unschedulable").await;
    assert_eq!(
        second["status"]["conditions"][0]["message"],
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    api.delete("first", &DeleteParams::default()).await.unwrap();
    world.until(&api, "second", |pod| pod["status"]["phase"] == "Running").await;
    world.0.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn runtime_classes_for_sandboxes_are_there_until_somebody_removes_them() {
    let world = World::start().await;
    let classes: Api<RuntimeClass> = Api::all(world.0.client());
    world.until(&classes, "kata", |class| class["handler"] == "kata").await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {
        "runtimeClassName": "gvisor", "containers": [{"name": "c", "image": "nginx"}],
    }});
    let made: Pod = serde_json::from_value(pod).unwrap();
    world.api::<Pod>().create(&PostParams::default(), &made).await.unwrap();
    classes.delete("gvisor", &DeleteParams::default()).await.unwrap();
    world.pass(600).await;
    assert!(classes.get_opt("gvisor").await.unwrap().is_none());
    world.0.shutdown().await;
}
