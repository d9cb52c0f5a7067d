use rstest::rstest;

use super::*;
use crate::sandbox::keys::ADOPTABLE;

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn merged(mut base: Value, more: &Value) -> Value {
    match (base.as_object_mut(), more.as_object()) {
        (Some(base), Some(more)) => {
            for (key, value) in more {
                let old = base.remove(key).unwrap_or(Value::Null);
                base.insert(key.clone(), merged(old, value));
            }
        }
        _ => return more.clone(),
    }
    base
}

/// A Sandbox `sb`, with something more.
fn sandbox(more: Value) -> Object {
    let base = json!({
        "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
        "metadata": {"name": "sb", "namespace": "ns", "uid": "s1", "generation": 1},
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}, "operatingMode": "Running"},
    });
    object(merged(base, &more))
}

fn suspended() -> Object {
    sandbox(json!({"spec": {"operatingMode": "Suspended"}}))
}

fn annotated(name: &str) -> Value {
    json!({"metadata": {"annotations": {POD_NAME: name}}})
}

/// Whose something is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Whose {
    Own,
    Nobodys,
    /// Nobody's, but an operator lets it be taken.
    Adoptable,
    /// Nobody's, but with the Sandbox's label.
    Marked,
    Foreign,
}
use Whose::{Adoptable, Foreign, Marked, Nobodys, Own};

fn thing(kind: &str, name: &str, whose: Whose, more: Value) -> Object {
    let reference = |kind: &str, name: &str, uid: &str| {
        json!([{
            "apiVersion": "agents.x-k8s.io/v1beta1", "kind": kind, "name": name, "uid": uid,
            "controller": true, "blockOwnerDeletion": true,
        }])
    };
    let metadata = match whose {
        Own => json!({"ownerReferences": reference("Sandbox", "sb", "s1"), "labels": {NAME_HASH: "3551ffa0"}}),
        Nobodys => json!({}),
        Adoptable => json!({"labels": {ADOPTABLE: "true"}}),
        Marked => json!({"labels": {NAME_HASH: "3551ffa0"}}),
        Foreign => json!({"ownerReferences": reference("Other", "it", "x9"), "labels": {NAME_HASH: "3551ffa0"}}),
    };
    let base = json!({
        "apiVersion": "v1", "kind": kind,
        "metadata": {"name": name, "namespace": "ns", "uid": format!("{name}-uid"), "resourceVersion": "7"},
    });
    object(merged(merged(base, &json!({"metadata": metadata})), &more))
}

fn a_pod(name: &str, whose: Whose) -> Object {
    thing("Pod", name, whose, json!({}))
}

fn stored(object: Object) -> Arc<Stored> {
    Arc::new(Stored::new(object))
}

fn own_reference() -> Value {
    json!({
        "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "name": "sb", "uid": "s1", "controller": true,
        "blockOwnerDeletion": true,
    })
}

// Volume claims

#[rstest]
#[case::own(Own, ClaimStep::Keep)]
#[case::adoptable(Adoptable, ClaimStep::Adopt(json!({"metadata": {"ownerReferences": [own_reference()]}})))]
#[case::marked(Marked, ClaimStep::Adopt(json!({"metadata": {"ownerReferences": [own_reference()]}})))]
#[case::foreign(Foreign, ClaimStep::Fail(r#"PVC "data-sb" is owned by Other/it (UID: x9), not by sandbox "sb""#.into()))]
#[case::nobodys(Nobodys, ClaimStep::Fail(concat!(
    r#"cannot adopt unowned PVC "data-sb": missing required pool authorization label ("agents.x-k8s.io/adoptable") "#,
    r#"or sandbox tracking label ("agents.x-k8s.io/sandbox-name-hash")"#,
).into()))]
fn a_claim_that_exists(#[case] whose: Whose, #[case] step: ClaimStep) {
    let template = json!({"metadata": {"name": "data"}, "spec": {}});
    let claim = thing("PersistentVolumeClaim", "data-sb", whose, json!({}));
    assert_eq!(volumes::decide(&sandbox(json!({})), &template, Some(&claim)), step);
}

#[test]
fn a_claim_is_created_as_its_template_says() {
    let template = json!({
        "metadata": {"name": "data", "labels": {"a": "b"}, "annotations": {"c": "d"}},
        "spec": {"accessModes": ["ReadWriteOnce"]},
    });
    let ClaimStep::Create(claim) = volumes::decide(&sandbox(json!({})), &template, None) else { panic!("not created") };
    assert_eq!(
        claim.into_value(),
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data-sb", "namespace": "ns", "labels": {"a": "b", NAME_HASH: "3551ffa0"},
                "annotations": {"c": "d"}, "ownerReferences": [own_reference()],
            },
            "spec": {"accessModes": ["ReadWriteOnce"]},
        })
    );
}

// Which pod

#[derive(Debug, PartialEq)]
enum Pod {
    None,
    Named(&'static str),
    Several(usize),
}

#[rstest]
#[case::none(None, vec![], None, false, Pod::None)]
#[case::annotation_names_nothing(Some("old"), vec![], None, true, Pod::None)]
#[case::empty_annotation_and_nothing(Some(""), vec![], None, true, Pod::None)]
#[case::found_by_name(None, vec![], Some(("sb", Own)), false, Pod::Named("sb"))]
#[case::found_twice(Some("sb"), vec![("sb", Own)], Some(("sb", Own)), false, Pod::Named("sb"))]
#[case::foreign_by_name(Some("sb"), vec![], Some(("sb", Foreign)), false, Pod::Named("sb"))]
#[case::own_elsewhere(None, vec![("warm", Own)], None, false, Pod::Named("warm"))]
#[case::own_elsewhere_and_annotation_wrong(Some("sb"), vec![("warm", Own)], Some(("sb", Nobodys)), true, Pod::Named("warm"))]
#[case::labelled_but_foreign(None, vec![("warm", Foreign)], None, false, Pod::None)]
#[case::two_labelled(Some("sb"), vec![("sb", Own), ("warm", Own)], Some(("sb", Own)), false, Pod::Several(2))]
#[case::one_labelled_and_one_named(None, vec![("warm", Own)], Some(("sb", Own)), false, Pod::Several(2))]
fn the_controller_reference_says_which_pod_it_is(
    #[case] annotation: Option<&str>,
    #[case] labelled: Vec<(&str, Whose)>,
    #[case] named: Option<(&str, Whose)>,
    #[case] clears: bool,
    #[case] expected: Pod,
) {
    let sandbox = sandbox(annotation.map_or(json!({}), annotated));
    let make = |(name, whose): (&str, Whose)| stored(a_pod(name, whose));
    let resolved = pod::resolve(&sandbox, labelled.into_iter().map(make).collect(), named.map(make));
    let found = match &resolved.pod {
        Ok(None) => Pod::None,
        Ok(Some(pod)) => Pod::Named(if pod.name() == "sb" { "sb" } else { "warm" }),
        Err(count) => Pod::Several(*count),
    };
    assert_eq!((resolved.clear_annotation, found), (clears, expected));
}

// What to do about it

fn names(plan: &pod::PodPlan) -> Vec<&'static str> {
    let name = |action: &PodAction| match action {
        PodAction::ClearAnnotation => "clear",
        PodAction::Annotate => "annotate",
        PodAction::Delete => "delete",
        PodAction::Patch(_) => "patch",
        PodAction::Create(_) => "create",
    };
    plan.actions.iter().map(name).collect()
}

#[rstest]
#[case::no_pod(None, json!({}), vec!["clear"])]
#[case::own(Some(Own), json!({}), vec!["delete"])]
#[case::own_and_going(Some(Own), json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), vec![])]
#[case::nobodys(Some(Nobodys), json!({}), vec!["clear"])]
#[case::foreign(Some(Foreign), json!({}), vec!["clear"])]
fn a_suspended_sandbox_deletes_its_own_pod_only(
    #[case] whose: Option<Whose>,
    #[case] more: Value,
    #[case] actions: Vec<&str>,
) {
    let sandbox = sandbox(merged(annotated("sb"), &json!({"spec": {"operatingMode": "Suspended"}})));
    let pod = whose.map(|whose| thing("Pod", "sb", whose, more));
    let plan = pod::decide(&sandbox, pod.as_ref());
    assert_eq!((names(&plan), plan.refusal), (actions, None));
}

#[rstest]
#[case::no_pod(None, None, vec!["create", "annotate"], None)]
#[case::own(Some(Own), Some("sb"), vec![], None)]
#[case::own_without_annotation(Some(Own), None, vec!["annotate"], None)]
#[case::own_with_an_empty_annotation(Some(Own), Some(""), vec!["annotate"], None)]
#[case::own_with_another_annotation(Some(Own), Some("other"), vec![], None)]
#[case::adoptable(Some(Adoptable), None, vec!["patch", "annotate"], None)]
#[case::marked(Some(Marked), Some("sb"), vec!["patch"], None)]
#[case::nobodys(Some(Nobodys), Some("sb"), vec![], Some("cannot adopt unowned pod \"sb\": missing required"))]
#[case::foreign(
    Some(Foreign), Some("sb"), vec!["clear"], Some("pod \"sb\" is owned by Other/it (UID: x9), not by sandbox \"sb\"")
)]
#[case::foreign_without_annotation(Some(Foreign), None, vec![], Some("pod \"sb\" is owned by"))]
fn a_running_sandbox_makes_keeps_or_takes_its_pod(
    #[case] whose: Option<Whose>,
    #[case] annotation: Option<&str>,
    #[case] actions: Vec<&str>,
    #[case] refusal: Option<&str>,
) {
    let sandbox = sandbox(annotation.map_or(json!({}), annotated));
    let plan = pod::decide(&sandbox, whose.map(|whose| a_pod("sb", whose)).as_ref());
    assert_eq!(names(&plan), actions);
    match (refusal, plan.refusal) {
        (None, None) => {}
        (Some(start), Some(text)) => assert!(text.starts_with(start), "{text}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_pod_is_taken_with_reference_and_metadata_in_one_patch() {
    let sandbox = sandbox(json!({"spec": {"podTemplate": {"metadata": {"labels": {"app": "x"}}}}}));
    let plan = pod::decide(&sandbox, Some(&a_pod("sb", Adoptable)));
    let patch = json!({"metadata": {
        "ownerReferences": [own_reference()], "labels": {NAME_HASH: "3551ffa0", "app": "x"},
        "annotations": {"agents.x-k8s.io/propagated-labels": "app"},
    }});
    assert_eq!(plan.actions[0], PodAction::Patch(patch));
}

#[test]
fn a_new_pods_claims_replace_volumes_of_their_name_and_stand_last() {
    let sandbox = sandbox(json!({"spec": {
        "podTemplate": {"spec": {"volumes": [{"name": "work", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "work"}, "spec": {}}, {"metadata": {"name": "more"}, "spec": {}}],
    }}));
    let plan = pod::decide(&sandbox, None);
    let PodAction::Create(pod) = &plan.actions[0] else { panic!("not created") };
    assert_eq!(
        pod.at(&["spec", "volumes"]).unwrap(),
        &json!([
            {"name": "tmp", "emptyDir": {}},
            {"name": "work", "persistentVolumeClaim": {"claimName": "work-sb"}},
            {"name": "more", "persistentVolumeClaim": {"claimName": "more-sb"}},
        ])
    );
    assert_eq!(pod.at(&["metadata", "ownerReferences"]).unwrap(), &json!([own_reference()]));
    assert_eq!(pod.at(&["spec", "hostname"]), None);
}

// Service

fn service_step(step: &ServiceStep) -> &'static str {
    match step {
        ServiceStep::None => "none",
        ServiceStep::Keep => "keep",
        ServiceStep::Create(_) => "create",
        ServiceStep::Patch(_) => "patch",
        ServiceStep::Adopt(_) => "adopt",
        ServiceStep::Delete => "delete",
        ServiceStep::Fail(_) => "fail",
    }
}

#[rstest]
#[case::none(None, "none", "create", "none")]
#[case::own(Some(Own), "keep", "keep", "delete")]
#[case::nobodys(Some(Nobodys), "none", "fail", "none")]
#[case::adoptable(Some(Adoptable), "none", "adopt", "none")]
#[case::marked(Some(Marked), "none", "adopt", "none")]
#[case::foreign(Some(Foreign), "fail", "fail", "none")]
fn a_service_is_made_kept_or_deleted_as_the_sandbox_says(
    #[case] whose: Option<Whose>,
    #[case] absent: &str,
    #[case] yes: &str,
    #[case] no: &str,
) {
    let spec = json!({"spec": {"clusterIP": "None", "selector": {NAME_HASH: "3551ffa0"}}});
    let found = whose.map(|whose| thing("Service", "sb", whose, spec));
    let step = |more: Value| service_step(&service::decide(&sandbox(more), found.as_ref()));
    assert_eq!(step(json!({})), absent);
    assert_eq!(step(json!({"spec": {"service": true}})), yes);
    assert_eq!(step(json!({"spec": {"service": false}})), no);
}

#[test]
fn an_own_service_that_was_changed_is_repaired_and_its_ports_only_where_it_is_wanted() {
    let template = json!({"spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 80}]}]}}}});
    let spec = json!({
        "metadata": {"labels": {NAME_HASH: "wrong"}},
        "spec": {"clusterIP": "None", "selector": {"app": "x"}, "ports": [{"port": 1, "targetPort": 1}]},
    });
    let service = thing("Service", "sb", Own, spec);
    let repaired = json!({
        "metadata": {"labels": {NAME_HASH: "3551ffa0"}}, "spec": {"selector": {"app": null, NAME_HASH: "3551ffa0"}},
    });
    let absent = sandbox(template.clone());
    assert_eq!(service::decide(&absent, Some(&service)), ServiceStep::Patch(repaired.clone()));
    let wanted = sandbox(merged(template, &json!({"spec": {"service": true}})));
    let ports = json!({"spec": {"ports": [{"name": "p-80-tcp", "protocol": "TCP", "port": 80, "targetPort": 80}]}});
    assert_eq!(service::decide(&wanted, Some(&service)), ServiceStep::Patch(merged(repaired, &ports)));
}

#[test]
fn a_service_with_an_address_is_not_taken() {
    let service = thing("Service", "sb", Adoptable, json!({"spec": {"clusterIP": "10.0.0.1"}}));
    let text = "cannot adopt service \"sb\": ClusterIP is \"10.0.0.1\" (expected \"None\", field is immutable)";
    let wanted = sandbox(json!({"spec": {"service": true}}));
    assert_eq!(service::decide(&wanted, Some(&service)), ServiceStep::Fail(text.into()));
}

fn shown_ports(spec: Value) -> Vec<String> {
    let ports = service::ports(&sandbox(json!({"spec": {"podTemplate": {"spec": spec}}})));
    ports
        .iter()
        .map(|port| format!("{} {}/{}", port["name"].as_str().unwrap(), port["port"], port["protocol"]))
        .collect()
}

#[rstest]
#[case::none(json!({}), vec![])]
#[case::sorted_and_named(
    json!({"containers": [
        {"ports": [{"containerPort": 8080, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9000}]},
        {"ports": [{"containerPort": 8080, "name": "again"}, {"containerPort": 7, "name": "echo"}, {"containerPort": 0}]},
    ]}),
    vec!["echo 7/\"TCP\"", "p-53-udp 53/\"UDP\"", "http 8080/\"TCP\"", "p-9000-tcp 9000/\"TCP\""]
)]
#[case::name_taken_by_another(
    json!({"containers": [{"ports": [{"containerPort": 1, "name": "a"}, {"containerPort": 2, "name": "a"}]}]}),
    vec!["a 1/\"TCP\"", "p-2-tcp 2/\"TCP\""]
)]
#[case::generated_name_taken(
    json!({"containers": [{"ports": [
        {"containerPort": 1}, {"containerPort": 2, "name": "p-1-tcp"}, {"containerPort": 3, "name": "p-1-tcp-2"},
    ]}]}),
    vec!["p-1-tcp-3 1/\"TCP\"", "p-1-tcp 2/\"TCP\"", "p-1-tcp-2 3/\"TCP\""]
)]
#[case::init_containers_that_stay(
    json!({"initContainers": [
        {"restartPolicy": "Always", "ports": [{"containerPort": 5}]}, {"ports": [{"containerPort": 6}]},
    ]}),
    vec!["p-5-tcp 5/\"TCP\""]
)]
fn ports_come_from_the_containers_each_once(#[case] spec: Value, #[case] ports: Vec<&str>) {
    assert_eq!(shown_ports(spec), ports);
}

// Conditions

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn nothing() -> Findings<'static> {
    Findings { pod: None, volume_error: None, pod_error: None, service: ServiceFound::None, service_error: None }
}

fn error(text: &str) -> Option<StepError> {
    Some(StepError::Other(text.into()))
}

/// `status/reason: message` of a condition, or `""`.
fn told(sandbox: &Object, findings: &Findings<'_>, kind: &str) -> String {
    let status = status::after(sandbox, findings, "cluster.local", now());
    match conditions::find(status::conditions_of(&status), kind) {
        None => String::new(),
        Some(condition) => {
            let text = |member: &str| condition[member].as_str().unwrap();
            format!("{}/{}: {}", text("status"), text("reason"), text("message"))
        }
    }
}

fn pod_with(whose: Whose, phase: &str, more: Value) -> Object {
    thing("Pod", "sb", whose, merged(json!({"status": {"phase": phase}}), &json!({"status": more})))
}

fn ready_pod() -> Object {
    let more = json!({"conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "10.0.0.7"}]});
    pod_with(Own, "Running", more)
}

#[rstest]
#[case::running(sandbox(json!({})), None, None, "False/NotSuspended: Sandbox is not suspended")]
#[case::unknown(
    suspended(),
    None,
    error("x"),
    "Unknown/PodStateUnknown: Pod state is unknown. Sandbox suspension cannot be confirmed"
)]
#[case::several(
    suspended(),
    None,
    Some(StepError::MultiplePods(2)),
    "Unknown/PodStateUnknown: Pod state is unknown. Sandbox suspension cannot be confirmed"
)]
#[case::done(suspended(), None, None, "True/PodTerminated: Pod has been terminated. Sandbox is suspended")]
#[case::not_its_own(
    suspended(),
    Some(Nobodys),
    None,
    "False/PodNotOwned: Refused to delete pod because it is not owned by this sandbox"
)]
#[case::under_way(suspended(), Some(Own), None, "False/PodTerminating: Pod is terminating. Sandbox is suspending")]
fn condition_suspended(
    #[case] sandbox: Object,
    #[case] whose: Option<Whose>,
    #[case] pod_error: Option<StepError>,
    #[case] expected: &str,
) {
    let pod = whose.map(|whose| a_pod("sb", whose));
    let findings = Findings { pod: pod.as_ref(), pod_error, ..nothing() };
    assert_eq!(told(&sandbox, &findings, "Suspended"), expected);
}

#[rstest]
#[case::succeeded(Own, "Succeeded", "True/PodSucceeded: Pod completed successfully")]
#[case::failed(Own, "Failed", "True/PodFailed: Pod failed")]
#[case::running(Own, "Running", "")]
#[case::not_its_own(Foreign, "Failed", "")]
fn condition_finished(#[case] whose: Whose, #[case] phase: &str, #[case] expected: &str) {
    let pod = pod_with(whose, phase, json!({}));
    assert_eq!(told(&suspended(), &Findings { pod: Some(&pod), ..nothing() }, "Finished"), expected);
}

#[rstest]
#[case::no_pod(None, json!({}), None, "")]
#[case::no_pod_for_an_error(
    None, json!({}), error("x"),
    "Unknown/PodSchedulingUnknown: Pod state is unknown. Pod scheduling cannot be determined"
)]
#[case::not_its_own(Some(Foreign), json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}), None, "")]
#[case::silent(
    Some(Own), json!({}), None, "Unknown/PodSchedulingUnknown: Pod has not reported a PodScheduled condition yet"
)]
#[case::scheduled(
    Some(Own), json!({"conditions": [{"type": "PodScheduled", "status": "True"}]}), None, "True/PodScheduled: "
)]
#[case::without_a_reason(
    Some(Own), json!({"conditions": [{"type": "PodScheduled", "status": "False"}]}), None, "False/PodSchedulingUnknown: "
)]
#[case::unschedulable(
    Some(Own),
    json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}]}),
    None, "False/Unschedulable: 0/3 nodes"
)]
fn condition_pod_scheduled(
    #[case] whose: Option<Whose>,
    #[case] status: Value,
    #[case] pod_error: Option<StepError>,
    #[case] expected: &str,
) {
    let pod = whose.map(|whose| pod_with(whose, "Pending", status));
    let findings = Findings { pod: pod.as_ref(), pod_error, ..nothing() };
    assert_eq!(told(&sandbox(json!({})), &findings, "PodScheduled"), expected);
}

#[rstest]
#[case::several(Findings { pod_error: Some(StepError::MultiplePods(2)), volume_error: error("a"), ..nothing() },
    "False/MultiplePods: multiple Pods (2) are controlled by this Sandbox; refusing to choose or create a Pod")]
#[case::errors(Findings { volume_error: error("a"), pod_error: error("b"), service_error: error("c"), ..nothing() },
    "False/ReconcilerError: Error seen: a\nb\nc")]
#[case::no_pod(nothing(), "False/DependenciesNotReady: Pod does not exist")]
fn condition_ready_without_a_pod(#[case] findings: Findings<'static>, #[case] expected: &str) {
    assert_eq!(told(&sandbox(json!({})), &findings, "Ready"), expected);
}

#[rstest]
#[case::suspending(Some("Running"), "False/SandboxSuspended: Sandbox is suspending")]
#[case::suspending_a_finished_one(Some("Failed"), "False/SandboxSuspended: Sandbox is suspending")]
#[case::suspended(None, "False/SandboxSuspended: Sandbox is suspended")]
fn condition_ready_of_a_suspended_sandbox(#[case] phase: Option<&str>, #[case] expected: &str) {
    let pod = phase.map(|phase| pod_with(Own, phase, json!({})));
    assert_eq!(told(&suspended(), &Findings { pod: pod.as_ref(), ..nothing() }, "Ready"), expected);
}

#[rstest]
#[case::succeeded("Succeeded", json!({}), "False/PodSucceeded: Pod completed successfully")]
#[case::failed("Failed", json!({}), "False/PodFailed: Pod failed")]
#[case::pending("Pending", json!({}), "False/DependenciesNotReady: Pod exists with phase: Pending")]
#[case::no_phase("", json!({}), "False/DependenciesNotReady: Pod exists with phase: ")]
#[case::not_ready("Running", json!({"conditions": [{"type": "Ready", "status": "False"}]}),
    "False/DependenciesNotReady: Pod is Running but not Ready")]
#[case::no_address("Running", json!({"conditions": [{"type": "Ready", "status": "True"}]}),
    "False/DependenciesNotReady: Pod is Ready but has no podIPs yet")]
#[case::ready("Running", json!({"conditions": [{"type": "Ready", "status": "True"}], "podIPs": [{"ip": "10.0.0.7"}]}),
    "True/DependenciesReady: Pod is Ready")]
fn condition_ready_follows_the_pod(#[case] phase: &str, #[case] status: Value, #[case] expected: &str) {
    let pod = pod_with(Own, phase, status);
    assert_eq!(told(&sandbox(json!({})), &Findings { pod: Some(&pod), ..nothing() }, "Ready"), expected);
}

#[rstest]
#[case::absent_without(None, ServiceFound::None, "True/DependenciesReady: Pod is Ready")]
#[case::absent_with(None, ServiceFound::Ours, "True/DependenciesReady: Pod is Ready; Service Exists")]
#[case::wanted_with(Some(true), ServiceFound::Ours, "True/DependenciesReady: Pod is Ready; Service Exists")]
#[case::wanted_without(
    Some(true),
    ServiceFound::None,
    "False/DependenciesNotReady: Pod is Ready; Service does not exist"
)]
#[case::unwanted(Some(false), ServiceFound::None, "True/DependenciesReady: Pod is Ready")]
fn condition_ready_needs_the_service_that_is_wanted_or_there(
    #[case] wanted: Option<bool>,
    #[case] service: ServiceFound,
    #[case] expected: &str,
) {
    let pod = ready_pod();
    let sandbox = sandbox(wanted.map_or(json!({}), |wanted| json!({"spec": {"service": wanted}})));
    assert_eq!(told(&sandbox, &Findings { pod: Some(&pod), service, ..nothing() }, "Ready"), expected);
}

// Status

#[test]
fn conditions_keep_their_places_and_their_times_until_their_status_changes() {
    let mut sandbox = sandbox(json!({}));
    let order = |sandbox: &Object| {
        let status = status::current(sandbox);
        let shown = |condition: &Value| {
            let text = |member: &str| condition[member].as_str().unwrap().to_owned();
            (text("type"), text("lastTransitionTime").replace("2026-01-01T00:00:", ""))
        };
        status::conditions_of(&status).iter().map(shown).collect::<Vec<_>>()
    };
    let pass = |sandbox: &mut Object, pod: Option<&Object>, second: i64| {
        let findings = Findings { pod, ..nothing() };
        let time = now().saturating_add(jiff::SignedDuration::from_secs(second)).unwrap();
        let status = status::after(sandbox, &findings, "cluster.local", time);
        sandbox.set("status", status);
        order(sandbox)
    };
    let expected = |list: &[(&str, &str)]| {
        list.iter().map(|(kind, time)| ((*kind).to_owned(), format!("{time}Z"))).collect::<Vec<_>>()
    };
    let pending = pod_with(Own, "Pending", json!({}));
    let first = [("Suspended", "00"), ("PodScheduled", "00"), ("Ready", "00")];
    assert_eq!(pass(&mut sandbox, Some(&pending), 0), expected(&first));
    let ready = [("Suspended", "00"), ("PodScheduled", "00"), ("Ready", "05")];
    assert_eq!(pass(&mut sandbox, Some(&ready_pod()), 5), expected(&ready));
    assert_eq!(pass(&mut sandbox, None, 9), expected(&[("Suspended", "00"), ("Ready", "09")]));
    let back = [("Suspended", "00"), ("Ready", "11"), ("PodScheduled", "11")];
    assert_eq!(pass(&mut sandbox, Some(&ready_pod()), 11), expected(&back), "what comes back goes to the end");
}

#[test]
fn the_status_shows_the_own_pods_place_and_forgets_it_with_the_pod_but_not_the_selector() {
    let mut pod = ready_pod();
    pod.set_at(&["spec", "nodeName"], "n1");
    let wanted = sandbox(json!({"spec": {"service": true}}));
    let findings = Findings { pod: Some(&pod), service: ServiceFound::Ours, ..nothing() };
    let mut status = status::after(&wanted, &findings, "cluster.local", now());
    status.remove("conditions");
    assert_eq!(
        Value::from(status.clone()),
        json!({
            "selector": "agents.x-k8s.io/sandbox-name-hash=3551ffa0", "podIPs": ["10.0.0.7"], "nodeName": "n1",
            "service": "sb", "serviceFQDN": "sb.ns.svc.cluster.local",
        })
    );
    let before = sandbox(json!({"status": status}));
    let mut status = status::after(&before, &nothing(), "cluster.local", now());
    status.remove("conditions");
    assert_eq!(Value::from(status), json!({"selector": "agents.x-k8s.io/sandbox-name-hash=3551ffa0"}));
    let unclear = Findings { service: ServiceFound::Unknown, ..nothing() };
    assert!(status::after(&before, &unclear, "cluster.local", now()).contains_key("serviceFQDN"));
}

#[test]
fn an_expired_status_keeps_its_conditions_only() {
    let old = json!({
        "conditions": [
            {"type": "Suspended", "status": "False"}, {"type": "Finished", "status": "True"},
            {"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"},
        ],
        "selector": "x", "podIPs": ["y"], "service": "z",
    });
    let mut marked = old.as_object().unwrap().clone();
    status::mark_expired(&mut marked, 3, now());
    assert!(status::is_marked_expired(&marked));
    assert!(marked.contains_key("selector"), "the first pass takes nothing away");
    let only = status::expired_only(&marked, 3, now());
    let kinds: Vec<_> = status::conditions_of(&only).iter().map(|condition| condition["type"].clone()).collect();
    assert_eq!(kinds, ["Suspended", "Finished", "Ready"]);
    assert_eq!(only.keys().collect::<Vec<_>>(), ["conditions"]);
}

#[rstest]
#[case::same(json!({"podIPs": ["a"]}), json!({"podIPs": ["a"]}), None)]
#[case::gone(json!({"podIPs": ["a"], "selector": "s"}), json!({"selector": "s"}), Some(json!({"podIPs": null})))]
#[case::node_alone(json!({}), json!({"nodeName": "n"}), None)]
#[case::node_with_more(json!({}), json!({"nodeName": "n", "podIPs": ["a"]}), Some(json!({"nodeName": "n", "podIPs": ["a"]})))]
#[case::node_of_a_ready_one(
    json!({"conditions": [{"type": "Ready", "status": "True"}]}),
    json!({"conditions": [{"type": "Ready", "status": "True"}], "nodeName": "n"}),
    Some(json!({"nodeName": "n"}))
)]
fn a_status_is_written_where_it_changed(#[case] old: Value, #[case] new: Value, #[case] patch: Option<Value>) {
    let patch = patch.map(|status| json!({"status": status}));
    assert_eq!(status::patch(old.as_object().unwrap(), new.as_object().unwrap()), patch);
}
