use rstest::rstest;
use serde_json::json;

use super::*;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn quota(hard: Value, used: Value, spec: Value) -> Arc<Stored> {
    let mut quota = object(json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "ns"},
        "spec": spec, "status": {"hard": hard, "used": used},
    }));
    quota.set_at(&["spec", "hard"], quota.at(&["status", "hard"]).cloned().unwrap());
    Arc::new(Stored::new(quota))
}

fn pod(container: Value) -> Object {
    object(json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}}))
}

fn create(resource: &str, object: &Object, quota: &Arc<Stored>) -> Result<Vec<Charge>, Status> {
    let attributes = Attributes {
        operation: Operation::Create,
        group: "",
        resource,
        subresource: "",
        namespace: "ns",
        name: object.name(),
        old: None,
    };
    let list = |bucket: &str, _: &str| if bucket == "resourcequotas" { vec![quota.clone()] } else { Vec::new() };
    let view = View { get: &|_, _, _| None, list: &list };
    charges(&attributes, object, view, Timestamp::UNIX_EPOCH)
}

#[test]
fn a_pod_is_charged_what_it_asks_for_until_the_quota_is_full() {
    let pod = pod(json!({"name": "c", "resources": {"requests": {"cpu": "300m"}}}));
    let half =
        quota(json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "1", "requests.cpu": "500m"}), json!({}));
    let charges = create("pods", &pod, &half).unwrap();
    assert_eq!(shown(&charges[0].used), "pods=2,requests.cpu=800m");
    let full =
        quota(json!({"pods": "2", "requests.cpu": "1"}), json!({"pods": "2", "requests.cpu": "900m"}), json!({}));
    assert_eq!(
        create("pods", &pod, &full).unwrap_err().message,
        "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=300m, used: pods=2,requests.cpu=900m, \
         limited: pods=2,requests.cpu=1"
    );
}

#[test]
fn what_a_quota_counts_must_be_given_and_the_quota_counted() {
    let silent = pod(json!({"name": "c"}));
    let limits = quota(json!({"limits.cpu": "1", "limits.memory": "1Gi"}), json!({}), json!({}));
    assert_eq!(
        create("pods", &silent, &limits).unwrap_err().message,
        "pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: c; limits.memory for: c"
    );
    let unknown = quota(json!({"pods": "1"}), json!({}), json!({}));
    assert_eq!(
        create("pods", &silent, &unknown).unwrap_err().message,
        "pods \"p\" is forbidden: status unknown for quota: q, resources: pods"
    );
}

#[rstest]
#[case::of_scope(json!({"scopes": ["BestEffort"]}), true)]
#[case::of_another(json!({"scopes": ["Terminating"]}), false)]
#[case::priority(json!({"scopeSelector": {"matchExpressions": [
    {"scopeName": "PriorityClass", "operator": "NotIn", "values": ["high"]}]}}), true)]
#[case::affinity(json!({"scopes": ["CrossNamespacePodAffinity"]}), false)]
fn scopes_say_which_pods_a_quota_counts(#[case] spec: Value, #[case] counted: bool) {
    let quota = quota(json!({"pods": "5"}), json!({"pods": "0"}), spec);
    assert_eq!(!create("pods", &pod(json!({"name": "c"})), &quota).unwrap().is_empty(), counted);
}

#[rstest]
#[case::service("services", json!({"spec": {"type": "LoadBalancer", "ports": [{}, {}]}}),
    json!({"services": "9", "services.nodeports": "9", "services.loadbalancers": "9"}),
    "services=1,services.loadbalancers=1,services.nodeports=2")]
#[case::claim("persistentvolumeclaims",
    json!({"spec": {"storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}}),
    json!({"requests.storage": "9Gi", "fast.storageclass.storage.k8s.io/requests.storage": "9Gi"}),
    "fast.storageclass.storage.k8s.io/requests.storage=1Gi,requests.storage=1Gi")]
#[case::by_count("configmaps", json!({}), json!({"configmaps": "9", "count/configmaps": "9"}),
    "configmaps=1,count/configmaps=1")]
fn each_resource_is_counted_its_own_way(
    #[case] resource: &str,
    #[case] made: Value,
    #[case] hard: Value,
    #[case] charged: &str,
) {
    let none: serde_json::Map<_, _> = hard.as_object().unwrap().keys().map(|key| (key.clone(), "0".into())).collect();
    let charges = create(resource, &object(made), &quota(hard, none.into(), json!({}))).unwrap();
    assert_eq!(shown(&charges[0].used), charged);
}

#[test]
fn what_has_ended_is_counted_by_number_alone() {
    let hard = quota(json!({"pods": "9", "count/pods": "9"}), json!({}), json!({}));
    let ended = json!({"metadata": {"name": "p"}, "spec": {}, "status": {"phase": "Succeeded"}});
    let objects = BTreeMap::from([(Counted::new("", "pods"), vec![Arc::new(Stored::new(object(ended)))])]);
    assert_eq!(shown(&usage(&hard, &objects, Timestamp::UNIX_EPOCH)), "count/pods=1,pods=0");
}
