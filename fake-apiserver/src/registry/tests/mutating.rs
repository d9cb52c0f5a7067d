//! Stories of mutating admission policies, and of expressions that ask the authorizer.

use rstest::rstest;
use serde_json::{Value, json};

use super::{
    MAPS, Status, User, World, policies,
    policies::{merge, rules},
    widget, widget_definition,
};

const POLICIES: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies");
const BINDINGS: (&str, &str, &str) = ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings");
const PODS: (&str, &str, &str) = ("", "v1", "pods");

fn mutation(expression: &str) -> Value {
    let member = json!({"expression": expression});
    match expression.starts_with('[') {
        true => json!({"patchType": "JSONPatch", "jsonPatch": member}),
        false => json!({"patchType": "ApplyConfiguration", "applyConfiguration": member}),
    }
}

/// A policy on new config maps, pods and widgets, bound under its own name.
async fn change(world: &World, name: &str, expressions: &[&str], more: Value) -> Result<(), Status> {
    let rule = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"],
        "resources": ["configmaps", "pods", "widgets"]}]);
    let mutations: Vec<Value> = expressions.iter().map(|expression| mutation(expression)).collect();
    let mut spec =
        json!({"reinvocationPolicy": "Never", "matchConstraints": {"resourceRules": rule}, "mutations": mutations});
    merge(&mut spec, more);
    world.create(POLICIES, "", json!({"metadata": {"name": name}, "spec": spec})).await?;
    let bound = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    world.create(BINDINGS, "", bound).await.map(|_| ())
}

/// What a new config map has as data; or what is said of it, without the words that all refusals begin with.
async fn made(world: &World) -> Result<Value, String> {
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "1"}});
    let map = world.create(MAPS, "demo", map).await.map_err(|error| {
        let head = "policy 'p' with binding 'p' denied request: ";
        error.message.strip_prefix(head).map_or(error.message.clone(), str::to_owned)
    })?;
    let labels = map.at(&["metadata", "labels"]).cloned().unwrap_or_default();
    let mut data = map.get("data").cloned().unwrap_or_default();
    if labels.is_object() {
        data["labels"] = labels;
    }
    Ok(data)
}

#[tokio::test]
async fn a_policy_gives_each_new_pod_a_sidecar_and_no_pod_once_it_is_unbound() {
    let world = World::new().await;
    world.create(("", "v1", "serviceaccounts"), "demo", json!({"metadata": {"name": "default"}})).await.unwrap();
    let sidecar = "Object{spec: Object.spec{initContainers: [Object.spec.initContainers{name: 'mesh', image: 'mesh:1', \
                   restartPolicy: 'Always'}], containers: object.spec.containers.map(c, \
                   Object.spec.containers{name: c.name, env: [Object.spec.containers.env{name: 'MESH', value: 'on'}]})}}";
    let condition = json!({"matchConditions": [{"name": "no-mesh-yet",
        "expression": "!has(object.spec.initContainers) || !object.spec.initContainers.exists(c, c.name == 'mesh')"}]});
    change(&world, "mesh", &[sidecar], condition).await.unwrap();
    let pod = |name: &str| {
        let container = json!({"name": "main", "image": "app", "env": [{"name": "OWN", "value": "1"}]});
        json!({"metadata": {"name": name}, "spec": {"containers": [container]}})
    };
    let with = world.create(PODS, "demo", pod("with")).await.unwrap();
    let init = with.at(&["spec", "initContainers"]).unwrap();
    assert_eq!((&init[0]["name"], &init[0]["imagePullPolicy"]), (&json!("mesh"), &json!("IfNotPresent")));
    let main = &with.at(&["spec", "containers"]).unwrap()[0];
    assert_eq!(main["env"], json!([{"name": "OWN", "value": "1"}, {"name": "MESH", "value": "on"}]));
    assert_eq!(main["image"], "app");

    world.delete(BINDINGS, "", "mesh").await.unwrap();
    let without = world.create(PODS, "demo", pod("without")).await.unwrap();
    assert_eq!(without.at(&["spec", "initContainers"]), None);
}

#[rstest]
#[case::merged(&["Object{metadata: Object.metadata{labels: {'a': 'b'}}, data: {'b': '2'}}"],
    Ok(json!({"a": "1", "b": "2", "labels": {"a": "b"}})))]
#[case::patched(&["[JSONPatch{op: 'add', path: '/metadata/labels', value: {'t/u': '1'}}, \
    JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('x/y'), value: '2'}, \
    JSONPatch{op: 'copy', from: '/data/a', path: '/data/b'}, JSONPatch{op: 'move', from: '/data/a', path: '/data/c'}]"],
    Ok(json!({"b": "1", "c": "1", "labels": {"t/u": "1", "x/y": "2"}})))]
#[case::nothing(&["Object{}"], Ok(json!({"a": "1"})))]
#[case::one_sees_what_the_other_made(&["Object{data: {'a': object.data.a + 'x'}}", "Object{data: {'b': object.data.a}}"],
    Ok(json!({"a": "1x", "b": "1x"})))]
#[case::a_test_that_does_not_hold(&["[JSONPatch{op: 'test', path: '/data/a', value: '2'}, \
    JSONPatch{op: 'add', path: '/data/x', value: '1'}]"], Ok(json!({"a": "1"})))]
#[case::over_keys_and_values(&["Object{data: object.data.transformMap(k, v, k + v)}"], Ok(json!({"a": "a1"})))]
#[case::a_wrong_type_name(&["Object{metadata: Object.spec{labels: {'a': 'b'}}}"],
    Err("type mismatch: unexpected type name \"Object.spec\", expected \"Object.metadata\", which matches field name path \
         from root Object type"))]
#[case::a_wrong_type_name_in_a_patch(
    &["[JSONPatch{op: 'add', path: '/metadata/labels', value: Object.metadata.labels{a: Object.foo{}}}]"],
    Err("type mismatch: unexpected type name \"Object.foo\", expected \"Object.metadata.labels.a\", which matches field name \
         path from root Object type"))]
#[case::an_unknown_member(&["Object{spec: Object.spec{a: 1}}"],
    Err("error applying patch: failed to convert patch object to typed object: .spec: field not declared in schema"))]
#[case::a_wrong_type(&["Object{data: {'x': 1}}"],
    Err("error applying patch: failed to convert patch object to typed object: .data.x: expected string, got \
         &value.valueUnstructured{Value:1}"))]
#[case::nothing_to_remove(&["[JSONPatch{op: 'remove', path: '/data/z'}]"],
    Err("JSON Patch: error in remove for path: '/data/z': Unable to remove nonexistent key: z: missing value"))]
#[case::nowhere_to_add(&["[JSONPatch{op: 'add', path: '/nope/x/y', value: 1}]"],
    Err("JSON Patch: add operation does not apply: doc is missing path: \"/nope/x/y\": missing value"))]
#[case::no_such_operation(&["[JSONPatch{op: 'frob', path: '/data/z', value: '1'}]"],
    Err("JSON Patch: Unexpected kind: frob"))]
#[case::a_patched_in_unknown_member(&["[JSONPatch{op: 'add', path: '/nope', value: '1'}]"],
    Err("Internal error occurred: strict decoding error: unknown field \"nope\""))]
#[case::a_patched_in_wrong_type(&["[JSONPatch{op: 'add', path: '/data/x', value: 1}]"],
    Err("Internal error occurred: json: cannot unmarshal number into Go struct field ConfigMap.data of type string"))]
#[case::a_failure_at_run_time(&["Object{data: {'x': object.data.nope}}"],
    Err("expression 'Object{data: {'x': object.data.nope}}' resulted in error: no such key: nope"))]
#[tokio::test]
async fn mutations_come_to(#[case] expressions: &[&str], #[case] expected: Result<Value, &str>) {
    let world = World::new().await;
    change(&world, "p", expressions, json!({})).await.expect("the policy is sound");
    assert_eq!(made(&world).await, expected.map_err(str::to_owned));
}

#[tokio::test]
async fn every_policy_that_fails_is_told_and_one_that_may_fail_lets_pass() {
    let world = World::new().await;
    let (nope, none) = ("Object{data: {'x': object.data.nope}}", "Object{data: {'x': object.data.none}}");
    change(&world, "a", &[nope], json!({})).await.unwrap();
    change(&world, "b", &[none], json!({})).await.unwrap();
    change(&world, "c", &[none], json!({"failurePolicy": "Ignore"})).await.unwrap();
    let map = json!({"metadata": {"name": "m"}});
    let error = world.create(MAPS, "demo", map.clone()).await.unwrap_err();
    assert_eq!((error.code, error.reason), (403, "Invalid"));
    let causes = error.details.unwrap().causes;
    let said: Vec<&str> = causes.iter().map(|cause| cause.message.split(" denied").next().unwrap()).collect();
    assert_eq!(said, ["policy 'a' with binding 'a'", "policy 'b' with binding 'b'"]);
    assert_eq!(causes[0].message, error.message);
    for name in ["a", "b"] {
        world.delete(POLICIES, "", name).await.unwrap();
    }
    world.create(MAPS, "demo", map).await.unwrap();
}

#[rstest]
#[case::each_once(["Never", "Never"], "1ab")]
#[case::the_first_sees_what_the_second_made(["IfNeeded", "Never"], "1aba")]
#[case::both_again(["IfNeeded", "IfNeeded"], "1abab")]
#[tokio::test]
async fn policies_are_asked_again_as_they_wish(#[case] wishes: [&str; 2], #[case] expected: &str) {
    let world = World::new().await;
    for (name, wish) in ["a", "b"].into_iter().zip(wishes) {
        let expression = format!("Object{{data: {{'a': object.data.a + '{name}'}}}}");
        change(&world, name, &[&expression], json!({"reinvocationPolicy": wish})).await.unwrap();
    }
    assert_eq!(made(&world).await, Ok(json!({"a": expected})));
}

#[tokio::test]
async fn variables_are_made_anew_for_each_mutation() {
    let world = World::new().await;
    let variables = json!({"variables": [{"name": "v", "expression": "object.data.?x.orValue('none')"}]});
    let expressions = ["Object{data: {'x': variables.v + 'x'}}", "Object{data: {'y': variables.v + 'y'}}"];
    change(&world, "p", &expressions, variables).await.unwrap();
    assert_eq!(made(&world).await, Ok(json!({"a": "1", "x": "nonex", "y": "nonexy"})));
}

#[tokio::test]
async fn lists_and_maps_that_are_owned_as_a_whole_are_not_merged() {
    let world = World::new().await;
    world.create(("", "v1", "serviceaccounts"), "demo", json!({"metadata": {"name": "default"}})).await.unwrap();
    let expression = "Object{spec: Object.spec{nodeSelector: Object.spec.nodeSelector{a: '1'}, containers: \
                      [Object.spec.containers{name: 'c', args: ['x']}]}}";
    change(&world, "p", &[expression], json!({})).await.unwrap();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let error = world.create(PODS, "demo", pod).await.unwrap_err();
    for part in ["may not mutate atomic arrays, maps or structs: ", ".spec.nodeSelector", ".spec.containers[0].args"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[tokio::test]
async fn custom_objects_are_changed_too_and_checked_afterwards() {
    let world = World::new().await;
    world.create(super::CRDS, "", widget_definition()).await.unwrap();
    change(&world, "p", &["Object{spec: Object.spec{size: object.spec.size - 5}}"], json!({})).await.unwrap();
    let made = world.create(super::WIDGETS, "demo", widget("w", json!({"size": 7}))).await.unwrap();
    assert_eq!(made.at(&["spec"]), Some(&json!({"color": "red", "size": 2})));
    let error = world.create(super::WIDGETS, "demo", widget("v", json!({"size": 5}))).await.unwrap_err();
    assert!(error.message.contains("spec.size in body should be greater than or equal to 1"), "{}", error.message);
}

#[rstest]
#[case("Object.spec{}", "must evaluate to Object but got Object.spec")]
#[case("{'a': 1}", "must evaluate to Object but got map(string, int)")]
#[case("[]", "must evaluate to list(JSONPatch) but got list(dyn)")]
#[case("[Object{}]", "must evaluate to list(JSONPatch) but got list(Object)")]
#[case(
    "Foo{a: 1}",
    "compilation failed: ERROR: <input>:1:4: undeclared reference to 'Foo' (in container '')\n | Foo{a: 1}\n | ...^"
)]
#[case(
    "[JSONPatch{op: 1}]",
    "compilation failed: ERROR: <input>:1:14: expected type of field 'op' is 'string' but provided type is 'int'\n | \
     [JSONPatch{op: 1}]\n | .............^"
)]
#[case("authorizer.requestResource", "must evaluate to Object but got kubernetes.authorization.ResourceCheck")]
#[case("[1, 2].exists(i, v, v > i) ? 1 : 2", "must evaluate to list(JSONPatch) but got int")]
#[case("{'a': 1}.transformMapEntry(k, v, {v: k})", "must evaluate to Object but got map(int, string)")]
#[case(
    "{'a': 1}.transformList(k, k, k)",
    "compilation failed: ERROR: <input>:1:27: duplicate variable name: k\n | {'a': 1}.transformList(k, k, k)\n | ..........................^"
)]
#[tokio::test]
async fn a_mutation_that_cannot_work_is_refused(#[case] expression: &str, #[case] why: &str) {
    let world = World::new().await;
    let error = change(&world, "p", &[expression], json!({})).await.unwrap_err();
    let causes = error.details.unwrap().causes;
    assert_eq!(causes.len(), 1);
    let (_, detail) = causes[0].message.split_once("\": ").unwrap();
    assert_eq!(detail, why);
}

#[tokio::test]
async fn the_members_of_a_mutating_policy_are_checked() {
    let world = World::new().await;
    let rules =
        json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["configmaps"]}]);
    let spec = json!({"matchConstraints": {"resourceRules": rules}, "mutations": [
        {"patchType": "JSONPatch"}, {"patchType": "X"}, {}, {"patchType": "ApplyConfiguration",
        "jsonPatch": {"expression": "[]"}, "applyConfiguration": {"expression": " "}}]});
    let error = world.create(POLICIES, "", json!({"metadata": {"name": "p"}, "spec": spec})).await.unwrap_err();
    let said: Vec<String> =
        error.details.unwrap().causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    let supported = "supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"";
    assert_eq!(said, [
        format!("spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": {supported}"),
        "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch".into(),
        "spec.mutations[1].patchType: Unsupported value: \"X\": supported values: \"ApplyConfiguration\", \"JSONPatch\"".into(),
        "spec.mutations[2].patchType: Required value".into(),
        "spec.mutations[3].applyConfiguration.expression: Required value".into(),
        "spec.mutations[3].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is \
         ApplyConfiguration".into(),
        "spec.reinvocationPolicy: Required value".into(),
    ]);
}

async fn asks(expression: &str) -> Result<(), String> {
    let mut world = World::new().await;
    world.registry.make_first_roles();
    let spec = json!({"validations": [{"expression": expression}]});
    policies::guard(&world, "p", spec, json!({})).await;
    let subject = json!({"kind": "User", "name": "ann", "apiGroup": "rbac.authorization.k8s.io"});
    let role = json!({"kind": "ClusterRole", "name": "view", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "ann"}, "subjects": [subject], "roleRef": role});
    let bindings = ("rbac.authorization.k8s.io", "v1", "rolebindings");
    world.create(bindings, "demo", binding).await.unwrap();
    world.caller.user = User::new("ann", ["system:authenticated"]);
    let map = json!({"metadata": {"name": "m"}});
    world.create(MAPS, "demo", map).await.map(|_| ()).map_err(|error| {
        error.message.split_once("denied request: ").map_or(error.message.clone(), |(_, why)| why.to_owned())
    })
}

#[rstest]
#[case::a_resource("authorizer.group('').resource('pods').namespace('demo').check('list').allowed()", true)]
#[case::elsewhere("authorizer.group('').resource('pods').namespace('other').check('list').allowed()", false)]
#[case::a_subresource(
    "authorizer.group('').resource('pods').subresource('log').namespace('demo').name('p').check('get').allowed()",
    true
)]
#[case::the_request_itself("authorizer.requestResource.check('create').allowed()", false)]
#[case::a_path("authorizer.path('/version').check('get').allowed()", true)]
#[case::a_service_account(
    "authorizer.serviceAccount('demo', 'sa').group('').resource('pods').namespace('demo').check('list').allowed()",
    false
)]
#[case::selectors(
    "authorizer.group('').resource('pods').namespace('demo').labelSelector('a=b').fieldSelector('x=y').check('list').allowed()",
    true
)]
#[case::why(
    "authorizer.group('').resource('pods').namespace('demo').check('list').reason() == 'RBAC: allowed by RoleBinding \"ann/demo\" of ClusterRole \"view\" to User \"ann\"'",
    true
)]
#[case::no_errors(
    "!authorizer.path('/x').check('get').errored() && authorizer.path('/x').check('get').error() == ''",
    true
)]
#[tokio::test]
async fn expressions_ask_what_the_sender_may_do(#[case] expression: &str, #[case] holds: bool) {
    let refusal = format!("failed expression: {expression}");
    assert_eq!(asks(expression).await, if holds { Ok(()) } else { Err(refusal) });
}

#[rstest]
#[case("authorizer.path(' ').check('get').allowed()", "path must not be empty")]
#[case("authorizer.group('').resource('').check('get').allowed()", "resource must not be empty")]
#[case("authorizer.serviceAccount('A', 'b').path('/x').check('get').allowed()", "Invalid service account namespace")]
#[case("authorizer.serviceAccount('a', 'B').path('/x').check('get').allowed()", "Invalid service account name")]
#[case(
    "['a', 'b', 'c'].exists(p, authorizer.path(p).check('get').allowed())",
    "operation cancelled: actual cost limit exceeded"
)]
#[tokio::test]
async fn a_question_that_cannot_be_asked_is_an_error(#[case] expression: &str, #[case] why: &str) {
    assert_eq!(asks(expression).await, Err(format!("expression '{expression}' resulted in error: {why}")));
}

#[tokio::test]
async fn a_message_may_not_ask_the_authorizer() {
    let world = World::new().await;
    let message = "authorizer.path('/x').check('get').reason()";
    let spec = json!({"matchConstraints": {"resourceRules": rules(&["configmaps"])},
        "validations": [{"expression": "true", "messageExpression": message}]});
    let policy = ("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies");
    let error = world.create(policy, "", json!({"metadata": {"name": "p"}, "spec": spec})).await.unwrap_err();
    assert!(error.message.contains("undeclared reference to 'authorizer' (in container '')"), "{}", error.message);
}
