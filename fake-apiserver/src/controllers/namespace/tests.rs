use rstest::rstest;

use super::*;

fn rest() -> Rest {
    Rest::default()
}

fn of<'a>(told: &'a [Told], kind: &str) -> (&'a str, &'a str) {
    let told = told.iter().find(|told| told.kind == kind).unwrap();
    (told.reason, &told.message)
}

#[test]
fn an_empty_namespace_has_five_conditions_and_no_failure() {
    let told = rest().conditions();
    let kinds: Vec<_> = told.iter().map(|told| told.kind).collect();
    assert_eq!(
        kinds,
        [
            "NamespaceDeletionDiscoveryFailure",
            "NamespaceDeletionGroupVersionParsingFailure",
            "NamespaceDeletionContentFailure",
            "NamespaceContentRemaining",
            "NamespaceFinalizersRemaining",
        ]
    );
    assert!(told.iter().all(|told| !told.failing));
}

#[test]
fn what_is_left_is_counted_by_resource_and_by_finalizer() {
    let rest = Rest {
        remaining: BTreeMap::from([
            ("pods.".into(), 1),
            ("configmaps.".into(), 2),
            ("sandboxes.agents.x-k8s.io".into(), 3),
        ]),
        finalizers: BTreeMap::from([("example.com/b".into(), 1), ("example.com/a".into(), 4)]),
        ..rest()
    };
    let told = rest.conditions();
    let remaining = "Some resources are remaining: configmaps. has 2 resource instances, pods. has 1 resource \
                     instances, sandboxes.agents.x-k8s.io has 3 resource instances";
    assert_eq!(of(&told, "NamespaceContentRemaining"), ("SomeResourcesRemain", remaining));
    let finalizers = "Some content in the namespace has finalizers remaining: example.com/a in 4 resource instances, \
                      example.com/b in 1 resource instances";
    assert_eq!(of(&told, "NamespaceFinalizersRemaining"), ("SomeFinalizersRemain", finalizers));
}

#[test]
fn what_cannot_be_deleted_is_told_in_order() {
    let errors = vec![Status::bad_request("z"), Status::bad_request("a")];
    let told = Rest { errors, ..rest() }.conditions();
    let message = "Failed to delete all resource types, 2 remaining: a, z";
    assert_eq!(of(&told, "NamespaceDeletionContentFailure"), ("ContentDeletionFailed", message));
}

#[test]
fn a_conditions_time_changes_with_its_status_only() {
    let mut namespace = Object::new("v1", "Namespace", "", "ns");
    let write = |namespace: &mut Object, failing, message: &str, now: &str| {
        let told = [Told::new("NamespaceContentRemaining", failing, "R", message)];
        let list = conditions(namespace, &told, now);
        namespace.set_at(&["status", "conditions"], list);
        let condition = &namespace.at(&["status", "conditions"]).unwrap()[0];
        (
            condition["lastTransitionTime"].as_str().unwrap().to_owned(),
            condition["message"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(write(&mut namespace, true, "2 left", "t1"), ("t1".into(), "2 left".into()));
    assert_eq!(write(&mut namespace, true, "1 left", "t2"), ("t1".into(), "1 left".into()));
    assert_eq!(write(&mut namespace, false, "none", "t3"), ("t3".into(), "none".into()));
}

#[rstest]
#[case::running(json!({"spec": {"terminationGracePeriodSeconds": 30}, "status": {"phase": "Running"}}), 30)]
#[case::over(json!({"spec": {"terminationGracePeriodSeconds": 30}, "status": {"phase": "Failed"}}), 0)]
#[case::none(json!({"spec": {}}), 0)]
fn a_pod_needs_its_grace_period_unless_it_is_over(#[case] pod: Value, #[case] seconds: u64) {
    assert_eq!(grace(&Object::from_value(pod).unwrap()), Duration::from_secs(seconds));
}
