//! Everything goes wrong for everybody but the user, for a while; then it is calm, and all must come to its right end:
//! conflicts, errors with and without effect, lost connections, delays, cut watches, a forgotten history, and controllers
//! that start again in the midst of what they do.

use std::{sync::atomic::AtomicU64, time::Duration};

use fake_apiserver::{Cluster, Rule};
use kube::Client;
use serde_json::{Value, json};

/// Storms in each run; `STORM_SEEDS` says otherwise, and `STORM_SEED` names one.
const SEEDS: u64 = 2;

/// How long a storm lasts, in the cluster's time; half-way the user changes their mind about most of what they made.
const STORM: Duration = Duration::from_secs(60);

/// In how much of the cluster's time all must be well afterwards: the longest that a controller waits after failures, as
/// upstream's do, and some for what it does then.
const CALM: Duration = Duration::from_secs(1200);

const AGENTS: &str = "/apis/agents.x-k8s.io/v1beta1/namespaces";
const EXTENSIONS: &str = "/apis/extensions.agents.x-k8s.io/v1beta1/namespaces";

fn sandbox_kind(kind: &str, spec: Value) -> Value {
    let group = if kind == "Sandbox" { "agents.x-k8s.io" } else { "extensions.agents.x-k8s.io" };
    json!({"apiVersion": format!("{group}/v1beta1"), "kind": kind, "spec": spec})
}

struct User(Client);

impl User {
    /// An answer; a Status where there is none such.
    async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let response = self.0.send(request.body(kube::client::Body::from(body)).unwrap()).await.unwrap();
        let bytes = response.into_body().collect_bytes().await.unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn make(&self, path: &str, name: &str, rest: Value) -> Value {
        let mut object = rest;
        object["metadata"]["name"] = name.into();
        let made = self.ask("POST", path, object).await;
        assert_ne!(made["kind"], "Status", "{path} {name}: {made}");
        made
    }

    async fn change(&self, path: &str, patch: Value) {
        let changed = self.ask("PATCH", path, patch).await;
        assert_ne!(changed["kind"], "Status", "{path}: {changed}");
    }

    async fn delete(&self, path: &str, propagation: &str) {
        let gone = self.ask("DELETE", path, json!({"propagationPolicy": propagation})).await;
        assert!(gone["kind"] != "Status" || gone["status"] == "Success", "{path}: {gone}");
    }

    async fn get(&self, path: &str) -> Value {
        self.ask("GET", path, Value::Null).await
    }

    async fn items(&self, path: &str) -> Vec<Value> {
        self.get(path).await["items"].as_array().cloned().unwrap_or_default()
    }

    async fn is_gone(&self, path: &str) -> bool {
        self.get(path).await["code"] == 404
    }
}

fn pod_spec(command: &[&str]) -> Value {
    json!({"containers": [{"name": "main", "image": "busybox:1.36", "command": command}]})
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "main", "image": "busybox:1.36"}]}})
}

fn selected(app: &str, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template(app)});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "spec": spec })
}

fn volume_claim() -> Value {
    json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
}

fn claim_of_pool() -> Value {
    sandbox_kind("SandboxClaim", json!({"warmPoolRef": {"name": "pool"}}))
}

/// What the user makes in the storm's first half.
async fn begin(user: &User, cluster: &Cluster) {
    for namespace in ["work", "doomed"] {
        user.make("/api/v1/namespaces", namespace, json!({})).await;
        let account = format!("/api/v1/namespaces/{namespace}/serviceaccounts/default");
        let there = async || !user.is_gone(&account).await;
        cluster.wait_for("the namespace has its account", STORM / 4, there).await.unwrap();
        let (core, apps) = (format!("/api/v1/namespaces/{namespace}"), format!("/apis/apps/v1/namespaces/{namespace}"));
        user.make(&format!("{apps}/deployments"), "web", selected("web", json!({"replicas": 3}))).await;
        user.make(&format!("{core}/persistentvolumeclaims"), "data", volume_claim()).await;
        let volumes = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        let mut spec = pod_spec(&["sleep", "infinity"]);
        spec["volumes"] = volumes;
        user.make(&format!("{core}/pods"), "user", json!({ "spec": spec })).await;
        let pod_template = json!({"spec": pod_spec(&["sleep", "infinity"])});
        user.make(
            &format!("{AGENTS}/{namespace}/sandboxes"),
            "box",
            sandbox_kind("Sandbox", json!({"podTemplate": pod_template})),
        )
        .await;
        let of = sandbox_kind("SandboxTemplate", json!({"podTemplate": pod_template}));
        user.make(&format!("{EXTENSIONS}/{namespace}/sandboxtemplates"), "tpl", of).await;
        let pool = sandbox_kind("SandboxWarmPool", json!({"replicas": 2, "sandboxTemplateRef": {"name": "tpl"}}));
        user.make(&format!("{EXTENSIONS}/{namespace}/sandboxwarmpools"), "pool", pool).await;
    }
    let (core, apps) = ("/api/v1/namespaces/work", "/apis/apps/v1/namespaces/work");
    let service = json!({"spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    user.make(&format!("{core}/services"), "web", service).await;
    user.make(&format!("{core}/resourcequotas"), "count", json!({"spec": {"hard": {"pods": "100"}}})).await;
    let job = json!({"completions": 3, "parallelism": 2});
    let mut spec = job;
    spec["template"] = json!({"spec": pod_spec(&["sleep", "5"])});
    spec["template"]["spec"]["restartPolicy"] = "Never".into();
    user.make("/apis/batch/v1/namespaces/work/jobs", "sum", json!({ "spec": spec })).await;
    let mut claim = volume_claim();
    claim["metadata"]["name"] = "files".into();
    let set = json!({"replicas": 2, "serviceName": "db", "volumeClaimTemplates": [claim]});
    user.make(&format!("{apps}/statefulsets"), "db", selected("db", set)).await;
    user.make(&format!("{apps}/daemonsets"), "agent", selected("agent", json!({}))).await;
    for owner in ["keeper", "giver"] {
        let made = user.make(&format!("{core}/configmaps"), owner, json!({})).await;
        let reference = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": made["metadata"]["uid"],
            "blockOwnerDeletion": true,
        });
        for number in 0..2 {
            let owned = json!({"metadata": {"ownerReferences": [reference]}});
            user.make(&format!("{core}/configmaps"), &format!("of-{owner}-{number}"), owned).await;
        }
    }
    for claim in ["one", "two"] {
        user.make(&format!("{EXTENSIONS}/work/sandboxclaims"), claim, claim_of_pool()).await;
    }
}

/// What they do in its second half.
async fn go_on(user: &User) {
    user.delete("/api/v1/namespaces/doomed", "Background").await;
    let core = "/api/v1/namespaces/work";
    user.delete(&format!("{core}/configmaps/keeper"), "Foreground").await;
    user.delete(&format!("{core}/configmaps/giver"), "Orphan").await;
    user.delete(&format!("{core}/persistentvolumeclaims/data"), "Background").await;
    user.delete(&format!("{core}/pods/user"), "Background").await;
    let containers = json!([{"name": "main", "image": "busybox:1.37"}]);
    let newer = json!({"spec": {"replicas": 4, "template": {"spec": {"containers": containers}}}});
    user.change("/apis/apps/v1/namespaces/work/deployments/web", newer).await;
    user.change("/apis/apps/v1/namespaces/work/statefulsets/db", json!({"spec": {"replicas": 3}})).await;
    user.change(&format!("{AGENTS}/work/sandboxes/box"), json!({"spec": {"operatingMode": "Suspended"}})).await;
    user.make(&format!("{EXTENSIONS}/work/sandboxclaims"), "three", claim_of_pool()).await;
    user.delete(&format!("{EXTENSIONS}/work/sandboxclaims/one"), "Background").await;
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions.into_iter().flatten().find(|it| it["type"] == kind).unwrap_or(&Value::Null)
}

/// What is not as it should be in the end.
async fn complaints(user: &User) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut expect = |what: &str, holds: bool, shown: &Value| {
        if !holds {
            wrong.push(format!("{what}: {shown}"));
        }
    };
    expect("the namespace is gone", user.is_gone("/api/v1/namespaces/doomed").await, &Value::Null);
    let core = "/api/v1/namespaces/work";
    let pods = user.items(&format!("{core}/pods")).await;
    let of = |app: &str| pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app).count();
    for (app, count) in [("web", 4), ("db", 3), ("agent", 1)] {
        expect(app, of(app) == count, &of(app).into());
    }
    let web = user.get("/apis/apps/v1/namespaces/work/deployments/web").await;
    let status = &web["status"];
    let rolled = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"].iter().all(|it| status[it] == 4)
        && condition(&web, "Progressing")["reason"] == "NewReplicaSetAvailable"
        && status["observedGeneration"] == web["metadata"]["generation"];
    expect("the deployment is rolled out", rolled, status);
    let db = user.get("/apis/apps/v1/namespaces/work/statefulsets/db").await;
    expect("the set is whole", ["replicas", "readyReplicas"].iter().all(|it| db["status"][it] == 3), &db["status"]);
    let agent = user.get("/apis/apps/v1/namespaces/work/daemonsets/agent").await;
    let status = &agent["status"];
    expect("the daemon runs", status["numberReady"] == 1 && status["desiredNumberScheduled"] == 1, status);
    let job = user.get("/apis/batch/v1/namespaces/work/jobs/sum").await;
    let done = condition(&job, "Complete")["status"] == "True" && job["status"]["succeeded"] == 3;
    expect("the job is complete", done, &job["status"]);

    let slices = user.items("/apis/discovery.k8s.io/v1/namespaces/work/endpointslices").await;
    let ready = |endpoint: &&Value| endpoint["conditions"]["ready"] == true;
    let ends = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten().filter(ready).count();
    expect("the service has its ends", ends == 4, &json!(slices));
    let live = pods.iter().filter(|pod| pod["status"]["phase"] != "Succeeded").count();
    let quota = user.get(&format!("{core}/resourcequotas/count")).await;
    let counted = quota["status"]["used"]["pods"].as_str().and_then(|count| count.parse().ok());
    expect("the quota counts", counted == Some(live), &quota["status"]);

    let bound = |claim: &Value| claim["status"]["phase"] == "Bound";
    let claims = user.items(&format!("{core}/persistentvolumeclaims")).await;
    let names: Vec<_> = claims.iter().map(|claim| claim["metadata"]["name"].as_str().unwrap()).collect();
    expect("the set's claims", names == ["files-db-0", "files-db-1", "files-db-2"], &json!(names));
    expect("bound", claims.iter().all(bound), &json!(claims));
    let volumes = user.items("/api/v1/persistentvolumes").await;
    expect("volumes", volumes.len() == 3 && volumes.iter().all(bound), &json!(volumes));

    let maps = user.items(&format!("{core}/configmaps")).await;
    let names: Vec<_> = maps.iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
    expect("kept maps", names == ["kube-root-ca.crt", "of-giver-0", "of-giver-1"], &json!(names));
    let owned = maps.iter().any(|map| map["metadata"].get("ownerReferences").is_some());
    expect("without an owner", !owned, &json!(maps));
    expect("its account", !user.is_gone(&format!("{core}/serviceaccounts/default")).await, &Value::Null);

    let ready = |object: &Value| condition(object, "Ready")["status"] == "True";
    let suspended = user.get(&format!("{AGENTS}/work/sandboxes/box")).await;
    let is = condition(&suspended, "Suspended")["status"] == "True" && user.is_gone(&format!("{core}/pods/box")).await;
    expect("the Sandbox rests", is, &suspended["status"]);
    let claims = user.items(&format!("{EXTENSIONS}/work/sandboxclaims")).await;
    expect("two claims", claims.len() == 2, &json!(claims));
    for claim in &claims {
        expect("the claim is ready", ready(claim), &claim["status"]);
    }
    let pool = user.get(&format!("{EXTENSIONS}/work/sandboxwarmpools/pool")).await;
    expect("the pool is full", pool["status"]["readyReplicas"] == 2, &pool["status"]);
    let sandboxes = user.items(&format!("{AGENTS}/work/sandboxes")).await;
    expect("no more Sandboxes", sandboxes.len() == 1 + 2 + 2, &sandboxes.len().into());
    for pod in &pods {
        let ended = pod["status"]["phase"] == "Succeeded";
        expect("the pod runs", ended || ready(pod) && pod["metadata"].get("deletionTimestamp").is_none(), pod);
    }
    let node = user.get("/api/v1/nodes/fake-node-1").await;
    expect("the node is well", ready(&node) && node["spec"].get("taints").is_none_or(|it| it == &json!([])), &node);
    let classes = user.items("/apis/node.k8s.io/v1/runtimeclasses").await;
    expect("runtimes", classes.len() == 2, &json!(classes));
    wrong
}

async fn ride_out(seed: u64) {
    let cluster = Cluster::builder().seed(seed).start().await.unwrap();
    let mut storm = Rule::storm(seed);
    for (at, name) in cluster.rules().controllers().iter().enumerate() {
        if (at as u64 + seed).is_multiple_of(4) {
            storm.push(Rule::restart(name).times(3).probability(0.01));
        }
    }
    // The user's own requests are left alone: the names of all others begin so.
    let of_others = |rule: Rule| match rule.action().point() {
        fake_apiserver::rule::Point::Controller => rule,
        _ => rule.user("system:*"),
    };
    let guards: Vec<_> = storm.iter().cloned().map(|rule| cluster.rules().install(of_others(rule))).collect();
    let user = User(cluster.client());
    begin(&user, &cluster).await;
    cluster.clock().sleep(STORM / 2).await;
    go_on(&user).await;
    cluster.clock().sleep(STORM / 2).await;
    drop(guards);
    let mut wrong = Vec::new();
    let end = cluster.clock().now() + CALM;
    while cluster.clock().now() < end {
        cluster.clock().sleep(Duration::from_secs(10)).await;
        wrong = complaints(&user).await;
        if wrong.is_empty() {
            return cluster.shutdown().await;
        }
    }
    let rules: Vec<_> = storm.iter().map(Rule::to_string).collect();
    panic!("after the storm:\n{}\n{}\nrules:\n{}", wrong.join("\n"), cluster.dump().await, rules.join("\n"));
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn after_a_storm_everything_comes_to_its_right_end() {
    let seeds: Vec<u64> = match number("STORM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("STORM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let run = |seed: u64, now: &AtomicU64| {
        now.store(seed, std::sync::atomic::Ordering::Relaxed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(ride_out(seed));
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for part in seeds.chunks(seeds.len().div_ceil(threads)) {
            scope.spawn(move || {
                let now = AtomicU64::new(0);
                let all = std::panic::AssertUnwindSafe(|| part.iter().for_each(|seed| run(*seed, &now)));
                if let Err(cause) = std::panic::catch_unwind(all) {
                    let seed = now.load(std::sync::atomic::Ordering::Relaxed);
                    eprintln!("replay with: STORM_SEED={seed} cargo test -p fake-apiserver --test it storms");
                    std::panic::resume_unwind(cause);
                }
            });
        }
    });
}
