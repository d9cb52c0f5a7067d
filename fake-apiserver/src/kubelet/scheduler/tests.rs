use rstest::rstest;

use super::*;

fn node(name: &str, spec: Value) -> Arc<Stored> {
    let mut node = Object::new("v1", "Node", "", name);
    node.metadata_mut().insert("labels".into(), json!({ "disk": "ssd", "zone": "z", "host": name }));
    node.set("spec", spec);
    node.set("status", json!({ "allocatable": { "pods": "2", "cpu": "2", "memory": "1Gi", "example.com/gpu": "1" } }));
    Arc::new(Stored::new(node))
}

fn nodes(all: impl IntoIterator<Item = Arc<Stored>>) -> BTreeMap<String, Arc<Stored>> {
    all.into_iter().map(|node| (node.name().to_owned(), node)).collect()
}

fn pod(name: &str, spec: Value) -> Arc<Stored> {
    let mut pod = Object::new("v1", "Pod", "default", name);
    pod.set_at(&["metadata", "labels"], json!({ "app": "web" }));
    pod.set_at(&["metadata", "uid"], name);
    pod.set("spec", spec);
    Arc::new(Stored::new(pod))
}

fn asking(requests: Value) -> Value {
    json!({ "containers": [{ "name": "c", "resources": { "requests": requests } }] })
}

fn placed(pods: &[(&str, Arc<Stored>)]) -> Placements {
    let mut placements = Placements::default();
    for (node, pod) in pods {
        placements.put(("default".into(), pod.name().into()), node, pod);
    }
    placements
}

fn port(number: u64) -> Value {
    json!({ "containers": [{ "name": "c", "ports": [{ "hostPort": number, "protocol": "TCP" }] }] })
}

fn away() -> Value {
    let term = json!({ "topologyKey": "host", "labelSelector": { "matchLabels": { "app": "web" } } });
    json!({ "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

fn near(app: &str) -> Value {
    let term = json!({ "topologyKey": "host", "labelSelector": { "matchLabels": { "app": app } } });
    json!({ "affinity": { "podAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [term] } } })
}

fn unbound() -> Value {
    json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "unbound" } }] })
}

const NEVER: &str = "1 Preemption is not helpful for scheduling";
const FOR_NOW: &str = "1 No preemption victims found for incoming pod";

#[rstest]
#[case::cordoned(json!({ "unschedulable": true }), json!({}), json!({}), "1 node(s) were unschedulable", NEVER)]
#[case::selector(
    json!({}), json!({}), json!({ "nodeSelector": { "disk": "hdd" } }),
    "1 node(s) didn't match Pod's node affinity/selector", NEVER
)]
#[case::taint(
    json!({ "taints": [{ "key": "k", "value": "v", "effect": "NoSchedule" }] }), json!({}), json!({}),
    "1 node(s) had untolerated taint(s)", NEVER
)]
#[case::cpu_now(json!({}), asking(json!({ "cpu": "1500m" })), asking(json!({ "cpu": "1" })), "1 Insufficient cpu", FOR_NOW)]
#[case::cpu_ever(json!({}), json!({}), asking(json!({ "cpu": "3" })), "1 Insufficient cpu", NEVER)]
#[case::more_than_one(
    json!({}), json!({}), asking(json!({ "cpu": "3", "memory": "2Gi" })), "1 Insufficient cpu, 1 Insufficient memory", NEVER
)]
#[case::device(
    json!({}), asking(json!({ "example.com/gpu": "1" })), asking(json!({ "example.com/gpu": "1" })),
    "1 Insufficient example.com/gpu", FOR_NOW
)]
#[case::unknown_device(
    json!({}), json!({}), asking(json!({ "example.com/tpu": "1" })), "1 Insufficient example.com/tpu", NEVER
)]
#[case::port(
    json!({}), port(80), port(80), "1 node(s) didn't have free ports for the requested pod ports", FOR_NOW
)]
#[case::shunning(json!({}), json!({}), away(), "1 node(s) didn't match pod anti-affinity rules", FOR_NOW)]
#[case::shunned(json!({}), away(), json!({}), "1 node(s) didn't satisfy existing pods anti-affinity rules", FOR_NOW)]
#[case::alone(json!({}), json!({}), near("db"), "1 node(s) didn't match pod affinity rules", NEVER)]
#[case::no_claim(
    json!({}), json!({}), json!({ "volumes": [{ "name": "d", "persistentVolumeClaim": { "claimName": "none" } }] }),
    "persistentvolumeclaim \"none\" not found", NEVER
)]
#[case::unbound(json!({}), json!({}), unbound(), "pod has unbound immediate PersistentVolumeClaims", NEVER)]
fn a_pod_waits(
    #[case] on_node: Value,
    #[case] there: Value,
    #[case] spec: Value,
    #[case] reason: &str,
    #[case] preemption: &str,
) {
    let placements = placed(&[("a", pod("other", there))]);
    let claim = |name: &str| (name == "unbound").then_some(false);
    let verdict = schedule(&pod("p", spec), &nodes([node("a", on_node)]), &placements, claim);
    let text = format!("0/1 nodes are available: {reason}. preemption: 0/1 nodes are available: {preemption}.");
    assert_eq!(verdict, Verdict::Unschedulable(text));
}

#[test]
fn reasons_of_several_nodes_are_counted() {
    let all = nodes([node("a", json!({ "unschedulable": true })), node("b", json!({}))]);
    let placements = placed(&[("b", pod("one", json!({}))), ("b", pod("two", json!({})))]);
    let Verdict::Unschedulable(text) = schedule(&pod("p", json!({})), &all, &placements, |_| None) else {
        panic!("it was bound")
    };
    assert_eq!(
        text,
        "0/2 nodes are available: 1 Too many pods, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: \
         1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[test]
fn a_pod_goes_to_the_emptiest_node_that_takes_it() {
    let tainted = node("a", json!({ "taints": [{ "key": "k", "effect": "NoSchedule" }] }));
    let all = nodes([tainted, node("b", json!({})), node("c", json!({}))]);
    let placements = placed(&[("b", pod("one", json!({})))]);
    let bound = |spec: Value| schedule(&pod("p", spec), &all, &placements, |_| None);
    assert_eq!(bound(json!({})), Verdict::Bind("c".into()));
    let tolerant = json!({ "tolerations": [{ "key": "k", "operator": "Exists" }] });
    assert_eq!(bound(tolerant), Verdict::Bind("a".into()));
    assert_eq!(bound(near("web")), Verdict::Bind("b".into()));
    let preferred = json!([{ "weight": 5, "preference": {
        "matchExpressions": [{ "key": "host", "operator": "In", "values": ["b"] }],
    } }]);
    let would_like =
        json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": preferred } } });
    assert_eq!(bound(would_like), Verdict::Bind("b".into()));
}

#[test]
fn what_a_pod_took_is_free_again_once_it_has_gone() {
    let all = nodes([node("a", json!({}))]);
    let mut placements = placed(&[("a", pod("one", asking(json!({ "cpu": "2", "memory": "1Gi" }))))]);
    let second = pod("two", asking(json!({ "cpu": "2" })));
    assert!(matches!(schedule(&second, &all, &placements, |_| None), Verdict::Unschedulable(_)));
    assert!(placements.remove(&("default".into(), "one".into())));
    assert_eq!(schedule(&second, &all, &placements, |_| None), Verdict::Bind("a".into()));
}
