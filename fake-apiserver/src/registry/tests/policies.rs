//! Stories of admission policies.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Caller, DeleteOptions, ListOptions, MAPS, SPACES, Status, World};

const POLICIES: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
const BINDINGS: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings");

pub(super) fn rules(resources: &[&str]) -> Value {
    json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": resources}])
}

/// A policy on config maps, bound under its own name.
pub(super) async fn guard(world: &World, name: &str, spec: Value, binding: Value) {
    let mut whole = json!({"matchConstraints": {"resourceRules": rules(&["configmaps"])}});
    merge(&mut whole, spec);
    world.create(POLICIES, "", json!({"metadata": {"name": name}, "spec": whole})).await.expect("the policy is sound");
    let mut bound = json!({"policyName": name, "validationActions": ["Deny"]});
    merge(&mut bound, binding);
    world.create(BINDINGS, "", json!({"metadata": {"name": name}, "spec": bound})).await.expect("so is the binding");
}

pub(super) fn merge(target: &mut Value, source: Value) {
    crate::base::patch::merge(target, &source).expect("maps merge");
}

async fn put(world: &World, name: &str, data: Value) -> Result<(), Status> {
    world.create(MAPS, "demo", json!({"metadata": {"name": name}, "data": data})).await.map(|_| ())
}

#[tokio::test]
async fn a_bound_policy_refuses_what_it_does_not_like_and_an_unbound_one_nothing() {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": {"resourceRules": rules(&["configmaps"])},
        "validations": [{"expression": "object.data.size == 'small'", "message": "small ones only", "reason": "Forbidden"}],
    });
    world.create(POLICIES, "", json!({"metadata": {"name": "small"}, "spec": spec})).await.unwrap();
    put(&world, "before", json!({"size": "large"})).await.unwrap();

    let binding = json!({"policyName": "small", "validationActions": ["Deny"]});
    world.create(BINDINGS, "", json!({"metadata": {"name": "bound"}, "spec": binding})).await.unwrap();
    let error = put(&world, "after", json!({"size": "large"})).await.unwrap_err();
    let said = "ValidatingAdmissionPolicy 'small' with binding 'bound' denied request: small ones only";
    assert_eq!((error.code, error.reason), (403, "Forbidden"));
    assert_eq!(error.message, format!("configmaps \"after\" is forbidden: {said}"));
    assert_eq!(error.details.unwrap().causes[0].message, said);
    put(&world, "after", json!({"size": "small"})).await.unwrap();

    world.delete(BINDINGS, "", "bound").await.unwrap();
    put(&world, "freed", json!({"size": "large"})).await.unwrap();
}

#[tokio::test]
async fn a_policy_that_only_warns_lets_pass() {
    let world = World::new().await;
    let spec = json!({"validations": [{"expression": "false", "messageExpression": "'not ' + object.metadata.name"}]});
    guard(&world, "p", spec, json!({"validationActions": ["Warn", "Audit"]})).await;
    put(&world, "a", json!({})).await.unwrap();
    let warning = "Validation failed for ValidatingAdmissionPolicy 'p' with binding 'p': not a";
    assert_eq!(world.caller.warnings.take(), [warning]);
}

#[rstest]
#[case::a_missing_member(json!({"validations": [{"expression": "object.data.b == ''"}]}),
    Some("expression 'object.data.b == ''' resulted in error: no such key: b"))]
#[case::failures_ignored(json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.b == ''"}]}), None)]
#[case::a_refusal_is_no_failure(json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.data.a == ''"}]}),
    Some("failed expression: object.data.a == ''"))]
#[case::variables(json!({"variables": [{"name": "x", "expression": "object.data.a"},
        {"name": "y", "expression": "variables.x + 'b'"}],
    "validations": [{"expression": "variables.y == ''", "messageExpression": "variables.y"}]}), Some("1b"))]
#[case::an_unused_variable_may_fail(json!({"variables": [{"name": "x", "expression": "object.nope"}],
    "validations": [{"expression": "true || variables.x == 1"}]}), None)]
#[case::a_condition_that_does_not_hold(json!({"matchConditions": [{"name": "c", "expression": "request.name != 'm'"}],
    "validations": [{"expression": "false"}]}), None)]
#[case::a_condition_that_fails(json!({"matchConditions": [{"name": "c", "expression": "object.data.z == ''"}],
    "validations": [{"expression": "true"}]}), Some("expression 'object.data.z == ''' resulted in error: no such key: z"))]
#[case::who_asks(json!({"validations": [{"expression": "request.userInfo.username != 'tester'",
    "messageExpression": "request.operation + ' ' + request.kind.kind + ' in ' + namespaceObject.metadata.name"}]}),
    Some("CREATE ConfigMap in demo"))]
#[case::excluded(json!({"matchConstraints": {"excludeResourceRules": rules(&["*"])},
    "validations": [{"expression": "false"}]}), None)]
#[case::other_objects(json!({"matchConstraints": {"objectSelector": {"matchLabels": {"a": "b"}}},
    "validations": [{"expression": "false"}]}), None)]
#[case::other_namespaces(json!({"matchConstraints": {"namespaceSelector": {"matchLabels": {"a": "b"}}},
    "validations": [{"expression": "false"}]}), None)]
#[case::its_namespace(json!({"matchConstraints": {"namespaceSelector": {"matchLabels":
    {"kubernetes.io/metadata.name": "demo"}}}, "validations": [{"expression": "false"}]}), Some("failed expression: false"))]
#[tokio::test]
async fn policies_decide(#[case] spec: Value, #[case] refusal: Option<&str>) {
    let world = World::new().await;
    guard(&world, "p", spec, json!({})).await;
    let said = put(&world, "m", json!({"a": "1"})).await.err().map(|error| error.message);
    let head = "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: ";
    assert_eq!(said, refusal.map(|refusal| format!("{head}{refusal}")));
}

#[rstest]
#[case::by_name(json!({"name": "limits", "parameterNotFoundAction": "Deny"}), Some("at most 5"))]
#[case::by_labels(json!({"selector": {"matchLabels": {"kind": "limits"}}, "parameterNotFoundAction": "Deny"}),
    Some("at most 5"))]
#[case::not_found(json!({"name": "nope", "parameterNotFoundAction": "Deny"}),
    Some("failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"))]
#[case::not_found_and_allowed(json!({"name": "nope", "parameterNotFoundAction": "Allow"}), None)]
#[tokio::test]
async fn parameters_are_found_by_the_binding(#[case] reference: Value, #[case] refusal: Option<&str>) {
    let world = World::new().await;
    let limits = json!({"metadata": {"name": "limits", "labels": {"kind": "limits"}}, "data": {"max": "5"}});
    world.create(MAPS, "demo", limits).await.unwrap();
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "int(object.data.n) <= int(params.data.max)",
            "messageExpression": "'at most ' + params.data.max"}],
    });
    guard(&world, "p", spec, json!({"paramRef": reference})).await;
    let said = put(&world, "m", json!({"n": "6"})).await.err().map(|error| error.message);
    let head = "configmaps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: ";
    assert_eq!(said, refusal.map(|refusal| format!("{head}{refusal}")));
}

#[tokio::test]
async fn updates_and_deletions_see_what_was() {
    let world = World::new().await;
    put(&world, "m", json!({"a": "1"})).await.unwrap();
    let spec = json!({"validations": [{
        "expression": "object != null && object.data.a == oldObject.data.a",
        "messageExpression": "request.operation + ' of ' + oldObject.data.a",
    }]});
    guard(&world, "p", spec, json!({})).await;
    world.merge(MAPS, "demo", "m", json!({"data": {"b": "2"}})).await.unwrap();
    let error = world.merge(MAPS, "demo", "m", json!({"data": {"a": "2"}})).await.unwrap_err();
    assert!(error.message.ends_with("denied request: UPDATE of 1"), "{}", error.message);
    let error = world.delete(MAPS, "demo", "m").await.unwrap_err();
    assert!(error.message.ends_with("denied request: DELETE of 1"), "{}", error.message);
    let all = world.target(MAPS, "demo", "", "");
    let (list, options) = (ListOptions::default(), DeleteOptions::default());
    let error = world.registry.delete_collection(&all, &world.caller, &list, &options).await.unwrap_err();
    assert!(error.message.starts_with("configmaps \"Unknown\" is forbidden"), "{}", error.message);
}

#[tokio::test]
async fn a_dry_run_is_judged_too_and_policies_do_not_guard_policies() {
    let world = World::new().await;
    let spec = json!({"matchConstraints": {"resourceRules": rules(&["*"])}, "validations": [{"expression": "false"}]});
    guard(&world, "p", spec, json!({})).await;
    let dry = World { caller: Caller { dry_run: true, ..world.caller.clone() }, ..world };
    put(&dry, "m", json!({})).await.unwrap_err();
    assert_eq!(dry.create(SPACES, "", json!({"metadata": {"name": "other"}})).await.unwrap_err().code, 422);
    dry.delete(POLICIES, "", "p").await.expect("who locked himself in gets out");
}

#[rstest]
#[case("object.data.x", "must evaluate to bool but got dyn")]
#[case("null", "must evaluate to bool but got null_type")]
#[case(
    "request.nope == 1",
    "compilation failed: ERROR: <input>:1:8: undefined field 'nope'\n | request.nope == 1\n | .......^"
)]
#[case(
    "params == null",
    "compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params == null\n | ^"
)]
#[tokio::test]
async fn an_expression_that_cannot_work_is_refused(#[case] expression: &str, #[case] why: &str) {
    let world = World::new().await;
    let spec = json!({
        "matchConstraints": {"resourceRules": rules(&["configmaps"])},
        "validations": [{"expression": expression}],
    });
    let error = world.create(POLICIES, "", json!({"metadata": {"name": "p"}, "spec": spec})).await.unwrap_err();
    let causes = error.details.unwrap().causes;
    let message = format!("Invalid value: \"{expression}\": {why}");
    assert_eq!((causes.len(), causes[0].message.as_str()), (1, message.as_str()));
    assert_eq!(causes[0].field, "spec.validations[0].expression");
}
