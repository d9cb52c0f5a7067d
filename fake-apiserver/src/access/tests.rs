//! Questions to a policy, in upstream's words.

use rstest::rstest;
use serde_json::{Value, json};

use super::{Attributes, Place, Policy, Rule, What, bootstrap, missing};
use crate::base::{Object, User};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn role(policy: &mut Policy, namespace: &str, name: &str, rules: Value) {
    let resource = if namespace.is_empty() { "clusterroles" } else { "roles" };
    policy.put(resource, namespace, name, Some(&object(json!({"metadata": {"name": name}, "rules": rules}))));
}

fn binding(policy: &mut Policy, namespace: &str, name: &str, role: (&str, &str), subjects: Value) {
    let resource = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
    let value = json!({
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": super::GROUP, "kind": role.0, "name": role.1}, "subjects": subjects,
    });
    policy.put(resource, namespace, name, Some(&object(value)));
}

fn first() -> Policy {
    let (mut policy, mut objects) = (Policy::default(), bootstrap::objects());
    let gathered = bootstrap::gathered(&objects);
    for (plural, object) in &mut objects {
        if let Some(rules) = gathered.get(object.name()).filter(|_| *plural == "clusterroles") {
            object.set("rules", json!(rules));
        }
        policy.put(plural, object.namespace(), object.name(), Some(object));
    }
    policy
}

fn ask(policy: &Policy, user: &User, verb: &str, what: What<'_>) -> Result<String, String> {
    let attributes = Attributes { user, verb, what };
    let found = policy.authorize(&attributes);
    found.map(|grant| grant.to_string()).map_err(|reason| attributes.refusal(&reason).message)
}

fn pods<'a>(namespace: &'a str, name: &'a str) -> What<'a> {
    What::Resource(Place { resource: "pods", namespace, name, ..Place::default() })
}

#[test]
fn somebody_who_may_edit_a_namespace_edits_that_one_and_no_other_and_gives_no_roles() {
    let mut policy = first();
    let alice = User::new("alice", ["system:authenticated"]);
    binding(&mut policy, "team", "editors", ("ClusterRole", "edit"), json!([{"kind": "User", "name": "alice"}]));
    assert_eq!(
        ask(&policy, &alice, "create", pods("team", "")).unwrap(),
        r#"RBAC: allowed by RoleBinding "editors/team" of ClusterRole "edit" to User "alice""#
    );
    assert_eq!(
        ask(&policy, &alice, "create", pods("other", "")).unwrap_err(),
        r#"pods is forbidden: User "alice" cannot create resource "pods" in API group "" in the namespace "other""#
    );
    let roles = Place { group: super::GROUP, resource: "roles", namespace: "team", ..Place::default() };
    assert!(ask(&policy, &alice, "create", What::Resource(roles)).is_err());
    // What she may not see at all is still discovered.
    assert!(ask(&policy, &alice, "get", What::Path("/apis/apps")).is_ok());

    policy.put("rolebindings", "team", "editors", None);
    assert!(ask(&policy, &alice, "create", pods("team", "")).is_err());
}

#[test]
fn a_binding_to_a_role_that_is_not_there_is_told_of() {
    let mut policy = Policy::default();
    let bob = User::new("bob", ["devs"]);
    binding(&mut policy, "", "b", ("ClusterRole", "gone"), json!([{"kind": "Group", "name": "devs"}]));
    binding(&mut policy, "a", "b", ("Role", "lost"), json!([{"kind": "User", "name": "bob"}]));
    let start = r#"pods "p" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "a""#;
    assert_eq!(
        ask(&policy, &bob, "get", pods("a", "p")).unwrap_err(),
        format!(
            r#"{start}: RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "lost" not found]"#
        )
    );
    assert_eq!(
        ask(&policy, &bob, "get", What::Path("/x")).unwrap_err(),
        r#"forbidden: User "bob" cannot get path "/x": RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#
    );
}

#[test]
fn a_service_account_of_a_binding_without_a_namespace_is_of_the_bindings_own() {
    let mut policy = first();
    let subjects = json!([{"kind": "ServiceAccount", "name": "robot"}]);
    binding(&mut policy, "a", "b", ("ClusterRole", "view"), subjects);
    let robot = |namespace: &str| User::new(format!("system:serviceaccount:{namespace}:robot"), [""; 0]);
    assert_eq!(
        ask(&policy, &robot("a"), "list", pods("a", "")).unwrap(),
        r#"RBAC: allowed by RoleBinding "b/a" of ClusterRole "view" to ServiceAccount "robot/a""#
    );
    assert!(ask(&policy, &robot("b"), "list", pods("a", "")).is_err());
}

fn rule(value: Value) -> Rule {
    Rule::of_role(&object(json!({"rules": [value]}))).remove(0)
}

#[rstest]
#[case(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}), "get", "", "pods", "log", "p", true)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), "get", "", "pods", "", "p", true)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), "get", "", "pods", "log", "p", false)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}), "get", "", "pods", "log", "p", true)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"]}), "get", "", "pods", "", "p", false)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods/*"]}), "get", "", "pods", "log", "p", false)]
#[case(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}), "get", "apps", "deployments", "scale", "d", true)]
#[case(json!({"verbs": ["get"], "apiGroups": ["*"], "resources": ["*/scale"]}), "get", "apps", "deployments", "", "d", false)]
#[case(json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["pods"]}), "get", "", "pods", "", "p", false)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}), "get", "", "pods", "", "p", true)]
#[case(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}), "get", "", "pods", "", "q", false)]
#[case(json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"]}), "list", "", "pods", "", "", false)]
fn a_rule_allows_what_it_says(
    #[case] value: Value,
    #[case] verb: &str,
    #[case] group: &str,
    #[case] resource: &str,
    #[case] subresource: &str,
    #[case] name: &str,
    #[case] expected: bool,
) {
    let place = Place { group, resource, subresource, namespace: "a", name };
    assert_eq!(rule(value).allows(verb, &What::Resource(place)), expected);
}

#[rstest]
#[case("/healthz", "/healthz", true)]
#[case("/healthz", "/healthz/ping", false)]
#[case("/healthz/*", "/healthz/ping", true)]
#[case("/healthz/*", "/healthz", false)]
#[case("*", "/anything", true)]
fn a_path_with_an_asterisk_takes_all_that_begin_so(#[case] url: &str, #[case] path: &str, #[case] expected: bool) {
    let rule = rule(json!({"verbs": ["get"], "nonResourceURLs": [url]}));
    assert_eq!(rule.allows("get", &What::Path(path)), expected);
    assert!(!rule.allows("post", &What::Path(path)));
}

#[test]
fn what_is_lacking_is_shown_once_for_each_resource() {
    let owned = [rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"]}))];
    let wanted = [
        rule(json!({"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "secrets"]})),
        rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["x/scale"]})),
        rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]})),
        rule(json!({"verbs": ["get"], "nonResourceURLs": ["/metrics"]})),
    ];
    assert_eq!(
        missing(&owned, &wanted),
        [
            r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#,
            r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}"#,
            r#"{NonResourceURLs:["/metrics"], Verbs:["get"]}"#,
        ]
    );
}

#[test]
fn nobody_gives_more_than_they_have() {
    let mut policy = first();
    let alice = User::new("alice", ["devs", "system:authenticated"]);
    role(&mut policy, "", "reader", json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
    binding(&mut policy, "a", "b", ("ClusterRole", "reader"), json!([{"kind": "Group", "name": "devs"}]));
    let read = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}));
    let write = rule(json!({"verbs": ["create"], "apiGroups": [""], "resources": ["pods"]}));
    assert_eq!(policy.confirm(&alice, "a", std::slice::from_ref(&read)), Ok(()));
    assert_eq!(
        policy.confirm(&alice, "a", &[read.clone(), write]).unwrap_err(),
        "user \"alice\" (groups=[\"devs\" \"system:authenticated\"]) is attempting to grant RBAC permissions not currently \
         held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"create\"]}"
    );
    assert!(policy.confirm(&alice, "b", &[read]).is_err());
}

#[test]
fn the_first_roles_gather_as_upstreams_do() {
    let objects = bootstrap::objects();
    let gathered = bootstrap::gathered(&objects);
    assert_eq!(gathered.keys().collect::<Vec<_>>(), ["admin", "edit", "view"]);
    assert!(gathered["admin"].len() > gathered["edit"].len());
    assert!(gathered["view"].iter().all(|rule| rule.verbs == ["get", "list", "watch"]));
    let all = |of: &str| gathered["admin"].iter().filter(|rule| gathered[of].contains(rule)).count();
    assert_eq!((all("edit"), all("view")), (gathered["edit"].len(), gathered["view"].len()));
}

#[test]
fn every_first_binding_finds_its_role() {
    let policy = first();
    for (_, object) in bootstrap::objects() {
        if object.get("roleRef").is_some() {
            let text = |key: &str| object.str_at(&["roleRef", key]).to_owned();
            assert!(policy.role(&text("kind"), &text("name"), object.namespace()).is_ok(), "{}", object.name());
        }
    }
}
