//! Time and faults in the hand of a test.

use std::{process::Stdio, time::Duration};

use fake_apiserver::{
    Cluster, Rule,
    rule::{Action, Failure},
};
use futures::{StreamExt, TryStreamExt};
use http_body_util::BodyExt;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Event, Namespace, Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, PostParams, WatchEvent, WatchParams,
    },
};
use serde_json::json;

use crate::raw::{Door, TOKEN};

const SOON: Duration = Duration::from_secs(600);

fn config_map(name: &str) -> ConfigMap {
    ConfigMap { metadata: ObjectMeta { name: Some(name.into()), ..Default::default() }, ..Default::default() }
}

fn pod(name: &str, image: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": name}, "spec": {"containers": [{"name": "main", "image": image}]},
    }))
    .unwrap()
}

async fn create(client: &Client, kind: &str, version: &str, object: serde_json::Value) {
    let (group, version) = version.split_once('/').unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &resource);
    let mut object: DynamicObject = serde_json::from_value(object).unwrap();
    object.types = Some(kube::core::TypeMeta { api_version: format!("{group}/{version}"), kind: kind.into() });
    api.create(&PostParams::default(), &object).await.unwrap();
}

const EXTENSIONS: &str = "extensions.agents.x-k8s.io/v1beta1";

async fn pool_of(client: &Client, replicas: u32) {
    let containers = json!([{"name": "main", "image": "busybox:1.36"}]);
    let template = json!({"metadata": {"name": "tpl"}, "spec": {"podTemplate": {"spec": {"containers": containers}}}});
    create(client, "SandboxTemplate", EXTENSIONS, template).await;
    let spec = json!({"replicas": replicas, "sandboxTemplateRef": {"name": "tpl"}});
    create(client, "SandboxWarmPool", EXTENSIONS, json!({"metadata": {"name": "pool"}, "spec": spec})).await;
}

async fn claim(client: &Client, name: &str) {
    let spec = json!({"warmPoolRef": {"name": "pool"}});
    create(client, "SandboxClaim", EXTENSIONS, json!({"metadata": {"name": name}, "spec": spec})).await;
}

async fn served(client: &Client, name: &str) -> bool {
    let resource =
        ApiResource::from_gvk(&GroupVersionKind::gvk("extensions.agents.x-k8s.io", "v1beta1", "SandboxClaim"));
    let claim = Api::<DynamicObject>::default_namespaced_with(client.clone(), &resource).get(name).await.unwrap();
    let conditions = claim.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn status(pod: &Pod, kind: &str) -> String {
    let all = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    all.into_iter().flatten().find(|it| it.type_ == kind).map(|it| it.status.clone()).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_late_has_had_its_effect_and_a_dropped_one_may_have() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let make = |name: &'static str| {
        let maps = maps.clone();
        async move { maps.create(&PostParams::default(), &config_map(name)).await }
    };
    let only = |rule: Rule| rule.verbs(["create"]).user("kubernetes-admin").resources(["configmaps"]).times(1);
    let _guards = [
        cluster.rules().install(only(Rule::fail(Failure::of(504).late()))),
        cluster.rules().install(only(Rule::fail(Failure::of(503)))),
        cluster.rules().install(only(Rule::drop_connection(true))),
        cluster.rules().install(only(Rule::drop_connection(false))),
    ];
    let Err(kube::Error::Api(late)) = make("a").await else { panic!("the answer is an error") };
    assert_eq!((late.code, late.reason.as_str()), (504, "Timeout"));
    let Err(kube::Error::Api(early)) = make("b").await else { panic!("the answer is an error") };
    assert_eq!(early.code, 503);
    for name in ["c", "d"] {
        assert!(!matches!(make(name).await, Ok(_) | Err(kube::Error::Api(_))), "there is no answer");
    }
    let names: Vec<_> = maps.list(&ListParams::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["a", "c", "kube-root-ca.crt"]);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_is_cut_after_two_events_or_ends_with_410() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    for (rule, endings) in [(Rule::cut_watch(2), 0), (Rule::expire_watch(2), 1)] {
        let now = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
        let watch = maps.watch(&WatchParams::default(), &now).await.unwrap();
        let guard = cluster.rules().install(rule.resources(["configmaps"]).user("kubernetes-admin").times(1));
        for name in ["a", "b", "c"] {
            maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
        }
        let events: Vec<_> = watch.try_collect().await.unwrap();
        assert!(matches!(events[..2], [WatchEvent::Added(_), WatchEvent::Added(_)]));
        let expired = |event: &WatchEvent<ConfigMap>| matches!(event, WatchEvent::Error(status) if status.code == 410);
        assert_eq!(events[2..].iter().filter(|event| expired(event)).count(), endings);
        assert_eq!((events.len(), guard.hits()), (2 + endings, 1));
        for name in ["a", "b", "c"] {
            maps.delete(name, &DeleteParams::default()).await.unwrap();
        }
    }
    // One that says nothing is cut at once, when the rule comes.
    let watch = maps.watch(&WatchParams::default(), "").await.unwrap();
    tokio::pin!(watch);
    assert!(watch.try_next().await.unwrap().is_some()); // the certificate
    let _guard = cluster.rules().install(Rule::cut_watch(0));
    assert!(watch.try_next().await.unwrap().is_none());
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_breaks_off_ends_in_the_midst_of_an_event() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let now = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let path = format!("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion={now}");
    let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
    let mut body = std::pin::pin!(cluster.client().send(request).await.unwrap().into_body().into_data_stream());
    let broken = Rule::break_watch(1).resources(["configmaps"]).user("kubernetes-admin").times(1);
    let guard = cluster.rules().install(broken);
    for name in ["a", "b"] {
        maps.create(&PostParams::default(), &config_map(name)).await.unwrap();
    }
    let mut text = Vec::new();
    let end = loop {
        match body.try_next().await {
            Ok(Some(data)) => text.extend(data),
            end => break end,
        }
    };
    assert!(end.is_err(), "the connection is lost: there is no end");
    let text = String::from_utf8(text).unwrap();
    let (whole, torn) = text.split_once('\n').unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(whole).unwrap()["object"]["metadata"]["name"], "a");
    assert!(torn.starts_with(r#"{"type":"ADDED","object":{"#) && !torn.ends_with('\n'), "{torn}");
    assert_eq!(guard.hits(), 1);

    // Who follows it lists or watches again, and misses nothing.
    let again = maps.watch(&WatchParams::default(), &now).await.unwrap();
    let names: Vec<_> = again
        .try_filter_map(async |event| Ok(if let WatchEvent::Added(map) = event { Some(map.name_any()) } else { None }))
        .take(2)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(names, ["a", "b"]);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_does_not_pull_is_pulled_when_the_rule_is_gone() {
    let cluster = Cluster::builder().sandbox_controllers(false).start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    let guard = cluster.rules().install(Rule::fail_pull("broken*", "manifest unknown"));
    pods.create(&PostParams::default(), &pod("p", "broken:1")).await.unwrap();
    let waiting = |pod: &Pod| {
        let container = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.clone();
        container.state?.waiting?.reason
    };
    let backs_off = async || waiting(&pods.get("p").await.unwrap()).as_deref() == Some("ImagePullBackOff");
    cluster.wait_for("the kubelet backs off", SOON, backs_off).await.unwrap();
    assert!(guard.hits() > 0);
    drop(guard);
    let ready = async || status(&pods.get("p").await.unwrap(), "Ready") == "True";
    cluster.wait_for("the pod is ready", SOON, ready).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_pods_of_a_node_that_dies_are_deleted_in_time_and_the_node_comes_back_clean() {
    let cluster = Cluster::builder().sandbox_controllers(false).start().await.unwrap();
    let (nodes, pods) = (Api::<Node>::all(cluster.client()), Api::<Pod>::default_namespaced(cluster.client()));
    pods.create(&PostParams::default(), &pod("p", "busybox:1.36")).await.unwrap();
    let ready = async || status(&pods.get("p").await.unwrap(), "Ready") == "True";
    cluster.wait_for("the pod is ready", SOON, ready).await.unwrap();

    let dead = cluster.rules().install(Rule::stop_node("fake-node-1"));
    let before = cluster.clock().now();
    let lost = async || status(&pods.get("p").await.unwrap(), "Ready") == "False";
    cluster.wait_for("the pod is known to be lost", SOON, lost).await.unwrap();
    let seconds = cluster.clock().now().duration_since(before).as_secs();
    assert!((40..=60).contains(&seconds), "{seconds} s");
    let node = nodes.get("fake-node-1").await.unwrap();
    let taints: Vec<_> =
        node.spec.unwrap().taints.into_iter().flatten().map(|taint| (taint.key, taint.effect)).collect();
    let key = || "node.kubernetes.io/unreachable".to_owned();
    assert_eq!(taints, [(key(), "NoSchedule".into()), (key(), "NoExecute".into())]);
    assert!(pods.exec("p", ["true"], &Default::default()).await.is_err());
    let Err(kube::Error::Api(error)) = pods.logs("p", &Default::default()).await else { panic!("nobody is there") };
    assert_eq!(error.message, "error dialing backend: dial tcp 172.18.0.2:10250: connect: no route to host");
    // A pod tolerates that for five minutes, and then waits for a kubelet to let it go.
    let asked = async || pods.get("p").await.unwrap().metadata.deletion_timestamp.is_some();
    cluster.wait_for("the pod is to be deleted", SOON, asked).await.unwrap();
    let seconds = cluster.clock().now().duration_since(before).as_secs();
    assert!((340..=360).contains(&seconds), "{seconds} s");
    cluster.clock().advance(SOON).await;
    assert!(pods.get_opt("p").await.unwrap().is_some());

    drop(dead);
    let gone = async || pods.get_opt("p").await.unwrap().is_none();
    cluster.wait_for("the pod is gone", SOON, gone).await.unwrap();
    let clean = async || {
        let node = nodes.get("fake-node-1").await.unwrap();
        let conditions = node.status.unwrap().conditions.unwrap_or_default();
        let ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
        ready && node.spec.unwrap().taints.unwrap_or_default().is_empty()
    };
    cluster.wait_for("the node is well", SOON, clean).await.unwrap();
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_controller_goes_on_where_it_was_and_one_that_starts_again_serves_too() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client();
    assert!(cluster.rules().controllers().contains(&"sandboxclaim-controller".to_owned()));
    pool_of(&client, 2).await;
    cluster.clock().advance(Duration::from_secs(30)).await;
    let paused = cluster.rules().install(Rule::pause("sandboxclaim-controller"));
    claim(&client, "c").await;
    cluster.clock().advance(Duration::from_secs(60)).await;
    assert!(!served(&client, "c").await);
    drop(paused);
    cluster.settle(SOON).await.unwrap();
    assert!(served(&client, "c").await, "{}", cluster.dump().await);

    let restarted = cluster.rules().install(Rule::restart("sandboxclaim-controller"));
    claim(&client, "d").await;
    cluster.clock().advance(Duration::from_secs(5)).await;
    assert!(served(&client, "d").await && restarted.hits() == 1);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_whose_pod_is_slow_to_make_holds_up_no_other() {
    let cluster = Cluster::builder().kubelet(false).start().await.unwrap();
    let client = cluster.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let wait = Rule::delay(Duration::from_secs(60)).verbs(["create"]).resources(["pods"]).name("slow").times(1);
    let _guard = cluster.rules().install(wait);
    for name in ["slow", "quick"] {
        let containers = json!([{"name": "main", "image": "busybox:1.36"}]);
        let spec = json!({"podTemplate": {"spec": {"containers": containers}}});
        let sandbox = json!({"metadata": {"name": name}, "spec": spec});
        create(&client, "Sandbox", "agents.x-k8s.io/v1beta1", sandbox).await;
    }
    cluster.clock().advance(Duration::from_secs(1)).await;
    assert!(pods.get_opt("quick").await.unwrap().is_some() && pods.get_opt("slow").await.unwrap().is_none());
    cluster.clock().advance(Duration::from_secs(60)).await;
    assert!(pods.get_opt("slow").await.unwrap().is_some());
    cluster.shutdown().await;
}

/// A pod waits for its service account only where there will be one.
#[tokio::test(start_paused = true)]
async fn a_pod_is_refused_at_once_where_the_namespace_goes() {
    let cluster = Cluster::builder().kubelet(false).sandbox_controllers(false).start().await.unwrap();
    let namespaces: Api<Namespace> = Api::all(cluster.client());
    let going: Namespace = serde_json::from_value(json!({"metadata": {"name": "going"}})).unwrap();
    namespaces.create(&PostParams::default(), &going).await.unwrap();
    let held: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "held", "finalizers": ["example.com/held"]}})).unwrap();
    Api::<ConfigMap>::namespaced(cluster.client(), "going").create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("going", &DeleteParams::default()).await.unwrap();
    cluster.clock().advance(Duration::from_secs(20)).await; // its account is gone, it is not
    let (before, pods) = (cluster.clock().now(), Api::<Pod>::namespaced(cluster.client(), "going"));
    let Err(kube::Error::Api(refused)) = pods.create(&PostParams::default(), &pod("p", "busybox:1.36")).await else {
        panic!("nothing is made there any more")
    };
    assert!(refused.message.ends_with("because it is being terminated"), "{}", refused.message);
    let waited = cluster.clock().now().duration_since(before);
    assert!(waited.as_millis() < 100, "{waited:?}");
    cluster.shutdown().await;
}

/// A conflict of a rule's making has no other write behind it, whose event would bring a controller back.
#[tokio::test(start_paused = true)]
async fn a_claim_is_served_though_its_status_meets_conflicts_that_nobody_wrote() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client();
    pool_of(&client, 1).await;
    cluster.clock().advance(Duration::from_secs(30)).await;
    let conflict = Rule::fail(Failure::of(409)).verbs(["patch"]).resources(["sandboxclaims/status"]).times(3);
    let conflicts = cluster.rules().install(conflict);
    claim(&client, "c").await;
    cluster.settle(SOON).await.unwrap();
    cluster.clock().advance(Duration::from_secs(1)).await;
    assert_eq!(conflicts.hits(), 3);
    assert!(served(&client, "c").await, "{}", cluster.dump().await);
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_controllers_measurements_stand_beside_the_servers() {
    let cluster = Cluster::builder().start().await.unwrap();
    let client = cluster.client();
    pool_of(&client, 1).await;
    cluster.clock().advance(Duration::from_secs(30)).await;
    claim(&client, "c").await;
    cluster.clock().advance(Duration::from_secs(30)).await;
    let text = client.request_text(http::Request::get("/metrics").body(Vec::new()).unwrap()).await.unwrap();
    for line in [
        r#"agent_sandbox_claim_creation_total{created_by="unknown",launch_type="warm",namespace="default",pod_condition="ready",sandbox_template="tpl",warmpool_name="pool"} 1"#,
        r#"agent_sandbox_claim_controller_startup_latency_ms_bucket{launch_type="warm",sandbox_template="tpl",le="100"} 1"#,
        r#"agent_sandbox_creation_latency_ms_count{launch_type="warm",namespace="default",sandbox_template="tpl"} 1"#,
        r#"agent_sandboxes{created_by="controller",expired="false",launch_type="warm",namespace="default",owned_by="SandboxWarmPool",ready_condition="true",sandbox_template="tpl"} 1"#,
        "# TYPE agent_sandbox_claim_controller_startup_latency_ms histogram",
        r#"agent_sandbox_build_info{build_date="unknown",compiler="gc",git_commit="unknown",git_version="v0.5.6",go_version="unknown",platform="linux/amd64"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("agent_sandbox_claim_startup_latency_ms"), "no webhook saw the claim");
    cluster.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_come_true_shows_the_seed_the_rules_the_objects_and_the_last_events() {
    let paused = Rule::pause("kubelet");
    let cluster = Cluster::builder().seed(77).rule(paused.clone()).sandbox_controllers(false).start().await.unwrap();
    let pods: Api<Pod> = Api::default_namespaced(cluster.client());
    pods.create(&PostParams::default(), &pod("p", "busybox:1.36")).await.unwrap();
    let events: Api<Event> = Api::default_namespaced(cluster.client());
    let event: Event = serde_json::from_value(json!({
        "metadata": {"name": "p.1"}, "type": "Warning", "reason": "Nothing", "message": "nobody schedules",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
    }))
    .unwrap();
    events.create(&PostParams::default(), &event).await.unwrap();
    let never = cluster.wait_for("the pod runs", Duration::from_millis(50), async || false).await.unwrap_err();
    let text = never.to_string();
    for part in
        ["the pod runs", "seed 77", &paused.to_string(), "NAMESPACE", "0/1", "Pending", "pod/p", "nobody schedules"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(matches!(cluster.rules().list()[0].rule.action(), Action::Pause {}));
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_control_paths_are_for_administrators_and_say_what_is_wrong() {
    let door = Door::open().await;
    let rules = "/fake.agent-sandbox/v1/rules";
    let anonymous = door.anonymous("GET", rules, "", b"").await;
    assert_eq!((anonymous.code, anonymous.json()["reason"].as_str()), (403, Some("Forbidden")));
    let ask = async |method: &str, path: &str, body: &str| {
        door.request(method, &format!("/fake.agent-sandbox/v1/{path}"), "", body.as_bytes()).await
    };
    let wrong = ask("POST", "rules", r#"{"when":{"verbs":["get"]},"then":{"explode":{}}}"#).await;
    assert_eq!(wrong.code, 400);
    assert!(wrong.message().starts_with("this is no rule: unknown variant `explode`"), "{}", wrong.message());
    assert_eq!(ask("POST", "clock/advance", r#"{"seconds": -1}"#).await.code, 400);
    assert_eq!(ask("POST", "clock/advance", "{}").await.code, 400);
    assert_eq!(ask("DELETE", "rules/7", "").await.code, 404);
    assert_eq!(ask("PUT", "rules", "").await.code, 405);
    assert_eq!(ask("GET", "nothing", "").await.code, 404);
    door.cluster.shutdown().await;
}

/// The examples of FAULTS.md, as they stand there, against a cluster whose time stands still.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_page_on_faults_run() {
    if std::process::Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no curl");
        return;
    }
    let cluster = Cluster::builder().virtual_time().token(TOKEN).start().await.unwrap();
    let door = cluster.serve_https("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &door.ca_pem).unwrap();
    let blocks = include_str!("../../FAULTS.md").split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let script = format!("set -eu\n{}", blocks.collect::<String>());
    let output = tokio::process::Command::new("bash")
        .args(["-c", &script])
        .envs([("SERVER", door.server.as_str()), ("TOKEN", TOKEN)])
        .env("CA", &ca)
        .output()
        .await
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}\n{stderr}");
    assert!(stdout.contains(r#""now":"2026-01-01T00:01:30Z""#) && stdout.contains("fake-node-1"), "{stdout}");
    assert_eq!(cluster.rules().list().len(), 13);
    cluster.shutdown().await;
}
