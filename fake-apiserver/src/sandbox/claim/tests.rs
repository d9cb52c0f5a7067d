//! Tables for the decisions; the stories and the histories drawn by chance stand beside.

mod drawn;
mod stories;

use jiff::Timestamp;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::{
    adopt::{check_adoptable, check_candidate, patch_of, pool_of},
    queue::{Candidate, Pool, WarmQueue},
    status::is_relevant,
    *,
};
use crate::{
    base::{Gvr, Stored},
    clock::Clock,
    controllers,
    ids::Ids,
    kubelet::{self, Kubelet},
    registry::{Registry, WatchEvent},
    sandbox::{
        definitions, install,
        keys::{
            ASSIGNED, CLAIM_UID, LAUNCH_TYPE, POD_NAME, SAFE_TO_EVICT, TEMPLATE_HASH, TEMPLATE_REF, WARM_POOL, pods,
            volume_claims,
        },
    },
};

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn merged(mut base: Value, more: Value) -> Value {
    match (base.as_object_mut(), more) {
        (Some(base), Value::Object(more)) => {
            for (key, value) in more {
                let old = base.remove(&key).unwrap_or(Value::Null);
                let new = merged(old, value);
                if !new.is_null() {
                    base.insert(key, new);
                }
            }
        }
        (_, more) => return more,
    }
    base
}

/// A claim `c` on `pool`, with something more.
fn claim(more: Value) -> Object {
    let base = json!({
        "apiVersion": EXTENSIONS, "kind": "SandboxClaim",
        "metadata": {"name": "c", "namespace": "ns", "uid": "c1", "generation": 2, "resourceVersion": "9"},
        "spec": {"warmPoolRef": {"name": "pool"}},
    });
    object(merged(base, more))
}

const EXTENSIONS: &str = "extensions.agents.x-k8s.io/v1beta1";

fn template(more: Value) -> Object {
    let base = json!({
        "apiVersion": EXTENSIONS, "kind": "SandboxTemplate", "metadata": {"name": "tpl", "namespace": "ns"},
        "spec": {"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}},
    });
    object(merged(base, json!({"spec": more})))
}

fn owner(kind: &str, name: &str, uid: &str, controller: bool) -> Value {
    json!({"apiVersion": EXTENSIONS, "kind": kind, "name": name, "uid": uid, "controller": controller})
}

/// A member of `pool` that is ready.
fn member(more: Value) -> Object {
    let base = json!({
        "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
        "metadata": {
            "name": "pool-abcde", "namespace": "ns", "uid": "s1", "resourceVersion": "41",
            "labels": {
                WARM_POOL: "h", TEMPLATE_REF_HASH: "9d22159f", TEMPLATE_HASH: "b", LAUNCH_TYPE: "warm",
                CREATED_BY: "controller",
            },
            "annotations": {TEMPLATE_REF: "tpl"},
            "ownerReferences": [owner("SandboxWarmPool", "pool", "p1", true)],
        },
        "spec": {"podTemplate": {
            "metadata": {
                "labels": {WARM_POOL: "h", TEMPLATE_REF_HASH: "9d22159f", "app": "x"},
                "annotations": {SAFE_TO_EVICT: "true"},
            },
            "spec": {"containers": [{"name": "main", "image": "x"}]},
        }},
    });
    object(merged(base, more))
}

// The queue

fn pool() -> Pool {
    ("ns".into(), "pool".into())
}

fn candidate(name: &str, node: &str) -> Candidate {
    Candidate { name: name.into(), node: node.into() }
}

#[rstest]
#[case::oldest_first(&[("a", ""), ("b", ""), ("c", "")], "a b c")]
#[case::with_a_node_before_without(&[("a", ""), ("b", "n1")], "b a")]
#[case::from_the_fullest_node(&[("a", "n1"), ("b", "n2"), ("c", "n2")], "b a c")]
#[case::of_equal_nodes_the_oldest(&[("a", "n2"), ("b", "n1"), ("c", "n1"), ("d", "n2")], "a b c d")]
#[case::told_its_node_later(&[("a", ""), ("b", "n1"), ("a", "n2")], "a b")]
fn members_are_taken_in_turn_from_the_nodes_that_have_most(#[case] pushed: &[(&str, &str)], #[case] taken: &str) {
    let mut queue = WarmQueue::default();
    for (name, node) in pushed {
        queue.push(pool(), candidate(name, node));
    }
    let names: Vec<_> = std::iter::from_fn(|| queue.pop(&pool())).map(|candidate| candidate.name).collect();
    assert_eq!(names.join(" "), taken);
}

/// The queue as upstream keeps it: a list that each pick scans.
#[derive(Default)]
struct Naive(Vec<Candidate>);

impl Naive {
    fn push(&mut self, new: Candidate) {
        match self.0.iter_mut().find(|old| old.name == new.name) {
            Some(old) => old.node = new.node,
            None => self.0.push(new),
        }
    }

    fn pop(&mut self) -> Option<Candidate> {
        let count = |node: &str| self.0.iter().filter(|candidate| candidate.node == node).count();
        let most = self.0.iter().filter(|candidate| !candidate.node.is_empty()).map(|c| count(&c.node)).max();
        let best = |c: &Candidate| !c.node.is_empty() && Some(count(&c.node)) == most;
        let at = match self.0.as_slice() {
            [] => return None,
            [_] => 0,
            list => list.iter().position(|candidate| most.is_none() || best(candidate))?,
        };
        Some(self.0.remove(at))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(u8, u8),
    Remove(u8),
    Pop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, 0..4_u8).prop_map(|(name, node)| Step::Push(name, node)),
        1 => (0..12_u8).prop_map(Step::Remove),
        2 => Just(Step::Pop),
    ]
}

proptest! {
    #[test]
    fn the_queue_picks_as_a_scan_would(steps in proptest::collection::vec(step(), 0..200)) {
        let (mut queue, mut naive) = (WarmQueue::default(), Naive::default());
        for step in steps {
            match step {
                Step::Push(name, node) => {
                    let node = if node == 0 { String::new() } else { format!("n{node}") };
                    let new = candidate(&format!("m{name}"), &node);
                    queue.push(pool(), new.clone());
                    naive.push(new);
                }
                Step::Remove(name) => {
                    queue.remove(&pool(), &format!("m{name}"));
                    naive.0.retain(|candidate| candidate.name != format!("m{name}"));
                }
                Step::Pop => prop_assert_eq!(queue.pop(&pool()), naive.pop()),
            }
        }
    }
}

// Adoption

#[rstest]
#[case::member(json!({}), "")]
#[case::of_an_older_version(json!({"ownerReferences": [merged(owner("SandboxWarmPool", "pool", "p1", true), json!({"apiVersion": "extensions.agents.x-k8s.io/v1alpha1"}))]}), "")]
#[case::deleting(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}), "sandbox is deleted")]
#[case::unlabelled(json!({"labels": {WARM_POOL: null}}), "sandbox is missing the warm pool sandbox label")]
#[case::without_template(json!({"labels": {TEMPLATE_REF_HASH: null}}), "sandbox is missing the sandbox template ref hash label")]
#[case::nobodys(json!({"ownerReferences": null}), "sandbox ns/pool-abcde is unowned and cannot be safely adopted")]
#[case::a_claims(json!({"ownerReferences": [owner("SandboxClaim", "d", "c9", true)]}), "sandbox ns/pool-abcde is not managed by warm pool. Controller: SandboxClaim/d")]
#[case::another_pools(json!({"ownerReferences": [owner("SandboxWarmPool", "other", "p2", true)]}), "incorrect warm pool, expected pool")]
fn a_claim_takes_only_living_members_of_its_pool(#[case] metadata: Value, #[case] refusal: &str) {
    let member = member(json!({"metadata": metadata}));
    assert_eq!(check_candidate(&member, "pool").err().unwrap_or_default(), refusal);
}

#[test]
fn readiness_and_addresses_do_not_make_a_member() {
    assert_eq!(check_adoptable(&member(json!({"status": {"podIPs": []}}))), Ok(()));
    let second = [owner("Other", "x", "1", false), owner("SandboxWarmPool", "pool", "2", false)];
    assert_eq!(pool_of(&member(json!({"metadata": {"ownerReferences": second}}))).as_deref(), Some("pool"));
}

#[test]
fn a_member_that_is_taken_is_the_claims_and_nothing_of_the_pool_is_left_on_it() {
    let claim = claim(json!({
        "metadata": {"labels": {CREATED_BY: "go-client"}},
        "spec": {"additionalPodMetadata": {"labels": {"sandbox.users.io/who": "me"}}},
    }));
    let template = template(json!({"podTemplate": {"metadata": {"labels": {"app": "y"}}}}));
    assert_eq!(
        patch_of(&member(json!({})), &claim, Some(&template)).unwrap(),
        json!({
            "metadata": {
                "resourceVersion": "41",
                "labels": {WARM_POOL: null, TEMPLATE_HASH: null, CREATED_BY: "go-client", CLAIM_UID: "c1"},
                "annotations": {POD_NAME: "pool-abcde"},
                "ownerReferences": [merged(owner("SandboxClaim", "c", "c1", true), json!({"blockOwnerDeletion": true}))],
            },
            "spec": {"podTemplate": {"metadata": {
                "labels": {
                    WARM_POOL: null, "app": "y", CLAIM_UID: "c1", CREATED_BY: "go-client", "sandbox.users.io/who": "me",
                },
                "annotations": null,
            }}},
        })
    );
}

#[test]
fn without_its_template_a_member_keeps_what_it_had_but_for_the_leave_to_evict() {
    let patch = patch_of(&member(json!({})), &claim(json!({})), None).unwrap();
    assert_eq!(patch["metadata"]["labels"][CREATED_BY], Value::Null);
    assert_eq!(patch["spec"]["podTemplate"]["metadata"], json!({"labels": {CLAIM_UID: "c1"}, "annotations": null}),);
    let kept = json!({"spec": {"podTemplate": {"metadata": {"annotations": {SAFE_TO_EVICT: "false"}}}}});
    let patch = patch_of(&member(kept), &claim(json!({})), None).unwrap();
    assert_eq!(patch["spec"]["podTemplate"]["metadata"], json!({"labels": {CLAIM_UID: "c1"}}));
}

// What a claim may add

#[rstest]
#[case::plain("labels", "team", "x", r#"label "team": label "team" must have a domain prefix (e.g. 'sandbox.users.io/my-label') to prevent opting into unintended policy domains"#)]
#[case::allowed("labels", "sandbox.users.io/a", "x", "")]
#[case::below("labels", "deep.sandbox.users.io/a", "x", "")]
#[case::upper_case("labels", "Sandbox.users.io/a", "x", r#"label "Sandbox.users.io/a": invalid label key: "Sandbox.users.io/a": prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"#)]
#[case::beside(
    "labels",
    "notsandbox.users.io/a",
    "x",
    r#"label "notsandbox.users.io/a": label domain "notsandbox.users.io" is not in the allowlist"#
)]
#[case::router(
    "labels",
    "APP",
    "Sandbox-Router",
    r#"label "APP": restricted system label value: "APP"="Sandbox-Router" is not allowed in AdditionalPodMetadata"#
)]
#[case::bad_annotation("annotations", "a b", "x", r#"annotation "a b": invalid annotation key: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#)]
#[case::any_annotation("annotations", "note", "with spaces", "")]
#[case::restricted(
    "annotations",
    "x.k8s.io/a",
    "x",
    r#"annotation "x.k8s.io/a": restricted system domain: "x.k8s.io/a" is not allowed in AdditionalPodMetadata"#
)]
#[case::own("annotations", "agents.x-k8s.io/a", "x", r#"annotation "agents.x-k8s.io/a": restricted system domain: "agents.x-k8s.io/a" is not allowed in AdditionalPodMetadata"#)]
#[case::exempted("annotations", SAFE_TO_EVICT, "false", "")]
fn what_a_claim_may_add(#[case] member: &str, #[case] key: &str, #[case] value: &str, #[case] refusal: &str) {
    let claim = claim(json!({"spec": {"additionalPodMetadata": {member: {key: value}}}}));
    let result = metadata::validate(&PodMetadata::added_by(&claim), &["sandbox.users.io".into()]);
    let expected = if refusal.is_empty() { String::new() } else { format!("failed to validate {refusal}") };
    assert_eq!(result.err().unwrap_or_default(), expected);
}

// Cold Sandboxes

#[test]
fn a_cold_sandbox_is_the_template_with_the_claims_mark_and_secure_defaults() {
    let claim = claim(json!({
        "metadata": {"annotations": {"opentelemetry.io/trace-context": "{}"}},
        "spec": {"env": [{"name": "A", "value": ""}]},
    }));
    let template = template(json!({
        "podTemplate": {"spec": {"containers": [{"name": "main", "image": "x", "resources": {"limits": {"cpu": "1000m"}}}]}},
        "service": true, "envVarsInjectionPolicy": "Allowed",
    }));
    let sandbox = cold::sandbox(&claim, &template).unwrap();
    assert_eq!(
        sandbox.into_value(),
        json!({
            "apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox",
            "metadata": {
                "name": "c", "namespace": "ns",
                "labels": {CLAIM_UID: "c1", LAUNCH_TYPE: "cold", TEMPLATE_REF_HASH: "9d22159f"},
                "annotations": {TEMPLATE_REF: "tpl", "opentelemetry.io/trace-context": "{}"},
                "ownerReferences": [merged(owner("SandboxClaim", "c", "c1", true), json!({"blockOwnerDeletion": true}))],
            },
            "spec": {
                "podTemplate": {
                    "metadata": {"labels": {CLAIM_UID: "c1", TEMPLATE_REF_HASH: "9d22159f"}},
                    "spec": {
                        "automountServiceAccountToken": false,
                        "containers": [{
                            "name": "main", "image": "x", "env": [{"name": "A"}], "resources": {"limits": {"cpu": "1"}},
                        }],
                        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["8.8.8.8", "1.1.1.1"]},
                    },
                },
                "service": true,
            },
        })
    );
}

#[rstest]
#[case::default_policy(json!({}), true, "None")]
#[case::unmanaged(json!({"networkPolicyManagement": "Unmanaged"}), true, "")]
#[case::own_policy(json!({"networkPolicy": {}}), true, "")]
#[case::own_dns(json!({"podTemplate": {"spec": {"dnsPolicy": "Default"}}}), true, "Default")]
#[case::own_token(json!({"podTemplate": {"spec": {"automountServiceAccountToken": true}}}), false, "None")]
fn secure_defaults_give_way_to_what_the_template_says(#[case] more: Value, #[case] no_token: bool, #[case] dns: &str) {
    let sandbox = cold::sandbox(&claim(json!({})), &template(more)).unwrap();
    let spec = |member: &str| sandbox.at(&["spec", "podTemplate", "spec", member]).cloned().unwrap_or_default();
    assert_eq!(spec("automountServiceAccountToken"), json!(!no_token));
    assert_eq!(spec("dnsPolicy").as_str().unwrap_or_default(), dns);
}

#[rstest]
#[case::disallowed("Disallowed", json!([{"name": "A", "value": "1"}]), Err(ClaimError::EnvironmentRejected("environment variable injection is not allowed by the template policy".into())))]
#[case::new("Allowed", json!([{"name": "A", "value": "1"}]), Ok("main: Z=0 A=1; side:; setup:"))]
#[case::named_before_unnamed("Allowed", json!([{"name": "A", "value": "1"}, {"name": "B", "value": "2", "containerName": "main"}]), Ok("main: Z=0 B=2 A=1; side:; setup:"))]
#[case::elsewhere("Allowed", json!([{"name": "A", "value": "1", "containerName": "setup"}]), Ok("main: Z=0; side:; setup: A=1"))]
#[case::twice("Allowed", json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), Err(ClaimError::Other(r#"environment variable override is not allowed by the template policy for variable "A""#.into())))]
#[case::override_refused("Allowed", json!([{"name": "Z", "value": "1"}]), Err(ClaimError::Other(r#"environment variable override is not allowed by the template policy for variable "Z""#.into())))]
#[case::overrides("Overrides", json!([{"name": "Z", "value": "1"}]), Ok("main: Z=1; side:; setup:"))]
#[case::unknown_container("Overrides", json!([{"name": "Z", "value": "1", "containerName": "no"}]), Err(ClaimError::Other(r#"target container "no" not found in template for environment variable "Z""#.into())))]
#[case::behind_sources("Allowed", json!([{"name": "A", "value": "1", "containerName": "side"}]), Ok("main: Z=0; side: A=1; setup:"))]
fn the_environment_goes_as_far_as_the_policy(
    #[case] policy: &str,
    #[case] env: Value,
    #[case] expected: Result<&str, ClaimError>,
) {
    let template = template(json!({
        "podTemplate": {"spec": {
            "containers": [
                {"name": "main", "image": "x", "env": [{"name": "Z", "value": "0"}]}, {"name": "side", "image": "x"},
            ],
            "initContainers": [{"name": "setup", "image": "x"}],
        }},
        "envVarsInjectionPolicy": policy,
    }));
    let result = cold::sandbox(&claim(json!({"spec": {"env": env}})), &template).map(|sandbox| {
        let lists =
            ["containers", "initContainers"].map(|list| sandbox.at(&["spec", "podTemplate", "spec", list]).cloned());
        let containers = lists.into_iter().flatten().flat_map(|list| list.as_array().cloned().unwrap_or_default());
        let shown = containers.map(|container| {
            let env = container["env"].as_array().cloned().unwrap_or_default();
            let text = |entry: &Value, member: &str| entry[member].as_str().unwrap_or_default().to_owned();
            let env: String = env.iter().map(|e| format!(" {}={}", text(e, "name"), text(e, "value"))).collect();
            format!("{}:{env}", text(&container, "name"))
        });
        shown.collect::<Vec<_>>().join("; ")
    });
    assert_eq!(result, expected.map(str::to_owned));
}

#[test]
fn variables_from_sources_may_not_be_hidden_unless_overrides_are_allowed() {
    let env = json!({"spec": {"env": [{"name": "A", "value": "1"}]}});
    let containers = json!([{"name": "main", "image": "x", "envFrom": [{"configMapRef": {"name": "m"}}]}]);
    let of = |policy: &str| {
        template(json!({"podTemplate": {"spec": {"containers": containers}}, "envVarsInjectionPolicy": policy}))
    };
    let refused = cold::sandbox(&claim(env.clone()), &of("Allowed")).unwrap_err();
    assert_eq!(
        refused.condition("pool"),
        (
            "EnvVarsInjectionRejected",
            "environment variable injection rejected: container \"main\" uses EnvFrom sources; Allowed policy cannot \
             safely prevent overriding EnvFrom-provided variables"
                .into()
        )
    );
    assert!(cold::sandbox(&claim(env), &of("Overrides")).is_ok());
}

#[rstest]
#[case::none("Disallowed", &["a", "b"], &[], Ok("a b"))]
#[case::disallowed("Disallowed", &[], &["a"], Err("failed to merge volume claim templates: volume claim templates are disallowed by the template"))]
#[case::added("Allowed", &["a"], &["b"], Ok("a b*"))]
#[case::taken("Allowed", &["a"], &["b", "a"], Err(r#"failed to merge volume claim templates: overriding volume claim templates is forbidden by the template: cannot override template volume "a""#))]
#[case::overridden("Overrides", &["a", "b"], &["c", "a"], Ok("a* b c*"))]
#[case::twice("Overrides", &[], &["a", "a"], Err(r#"failed to merge volume claim templates: claim: invalid volume claim templates: duplicate name "a""#))]
#[case::nameless("Allowed", &["a", ""], &["b"], Err("failed to merge volume claim templates: template: invalid volume claim templates: name at index 1 is empty"))]
#[case::nameless_template("Disallowed", &[""], &[], Err("invalid volume claim templates in template: invalid volume claim templates: name at index 0 is empty"))]
fn volumes_go_as_far_as_the_policy(
    #[case] policy: &str,
    #[case] base: &[&str],
    #[case] own: &[&str],
    #[case] expected: Result<&str, &str>,
) {
    let list = |names: &[&str], mode: &str| -> Value {
        let entry = |name: &&str| json!({"metadata": {"name": name}, "spec": {"accessModes": [mode]}});
        names.iter().map(entry).collect::<Vec<_>>().into()
    };
    let template =
        template(json!({"volumeClaimTemplates": list(base, "ReadWriteOnce"), "volumeClaimTemplatesPolicy": policy}));
    let claim = claim(json!({"spec": {"volumeClaimTemplates": list(own, "ReadOnlyMany")}}));
    let result = cold::sandbox(&claim, &template).map(|sandbox| {
        let list = sandbox.at(&["spec", "volumeClaimTemplates"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let shown = list.iter().map(|entry| {
            let star = if entry["spec"]["accessModes"][0] == "ReadOnlyMany" { "*" } else { "" };
            format!("{}{star}", entry["metadata"]["name"].as_str().unwrap())
        });
        shown.collect::<Vec<_>>().join(" ")
    });
    let expected = expected.map(str::to_owned).map_err(|text| ClaimError::VolumeClaims(text.into()));
    assert_eq!(result, expected);
}

// Status

fn now() -> Timestamp {
    "2026-01-01T01:00:00Z".parse().unwrap()
}

fn with_conditions(conditions: Value) -> Object {
    member(json!({"status": {"conditions": conditions, "podIPs": ["10.0.0.7"]}}))
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": "m", "observedGeneration": 7,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// `status/reason/time` of a condition in a patch.
fn shown(patch: &Value, kind: &str) -> String {
    let list = patch["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let Some(found) = list.iter().find(|condition| condition["type"] == kind) else { return String::new() };
    let text = |member: &str| found[member].as_str().unwrap_or_default();
    let time = text("lastTransitionTime").trim_start_matches("2026-01-01T").trim_end_matches(":00Z");
    format!("{}/{} {} {time}", text("status"), text("reason"), found["observedGeneration"])
}

#[rstest]
#[case::ready(json!([condition("Ready", "True", "DependenciesReady")]), None, "True/DependenciesReady 2 00:00")]
#[case::not_yet(json!([]), None, "False/SandboxNotReady 2 01:00")]
#[case::expired_by_itself(json!([condition("Ready", "False", "SandboxExpired")]), None, "False/SandboxExpired 2 01:00")]
#[case::error_first(json!([condition("Ready", "True", "DependenciesReady")]), Some(ClaimError::Other("x".into())), "False/ReconcilerError 2 01:00")]
fn the_claim_shows_its_sandbox_with_that_ones_time_and_its_own_generation(
    #[case] conditions: Value,
    #[case] error: Option<ClaimError>,
    #[case] expected: &str,
) {
    let old = ClaimStatus::default();
    let mut new = old.clone();
    new.conclude(&claim(json!({})), Some(&with_conditions(conditions)), error.as_ref(), false, now());
    let patch = old.patch_to(&new, "9").unwrap();
    assert_eq!(shown(&patch, "Ready"), expected);
    assert_eq!(patch["status"]["sandbox"], json!({"name": "pool-abcde", "podIPs": ["10.0.0.7"]}));
    assert_eq!(patch["metadata"], json!({"resourceVersion": "9"}));
}

#[rstest]
#[case::nothing_wrong(None, false, Some(""))]
#[case::not_ours(Some(ClaimError::NotOwned("x".into())), true, Some(""))]
#[case::failed(Some(ClaimError::Other("x".into())), false, None)]
#[case::pool_missing(Some(ClaimError::NoWarmPool), false, None)]
#[case::appeared(Some(ClaimError::AlreadyExists), false, None)]
fn a_claim_forgets_its_sandbox_only_where_it_is_known_to_be_gone(
    #[case] error: Option<ClaimError>,
    #[case] expired: bool,
    #[case] left: Option<&str>,
) {
    let bound = claim(json!({"status": {
        "conditions": [condition("Ready", "True", "DependenciesReady"), condition("Finished", "True", "PodFailed")],
        "sandbox": {"name": "s", "podIPs": ["10.0.0.7"]},
    }}));
    let mut new = ClaimStatus::of(&bound);
    new.conclude(&bound, None, error.as_ref(), expired, now());
    assert_eq!(new.sandbox, left.unwrap_or("s"));
    let keeps_finished = expired || error == Some(ClaimError::AlreadyExists);
    let patch = ClaimStatus::default().patch_to(&new, "").unwrap();
    assert_eq!(shown(&patch, "Finished"), if keeps_finished { "True/PodFailed 7 00:00" } else { "" });
}

#[test]
fn the_first_status_has_a_sandbox_member_even_without_a_sandbox() {
    let old = ClaimStatus::default();
    let mut new = old.clone();
    new.conclude(&claim(json!({})), None, Some(&ClaimError::NoWarmPool), false, now());
    let patch = old.patch_to(&new, "9").unwrap();
    assert_eq!(patch["status"]["sandbox"], json!({}));
    assert_eq!(patch["status"]["conditions"][0]["message"], r#"SandboxWarmPool "pool" not found"#);
    assert_eq!(new.patch_to(&new.clone(), "9"), None, "at rest nothing is written");
}

#[rstest]
#[case::no_lifecycle(json!({}), None)]
#[case::at_its_time(json!({"shutdownTime": "2026-01-01T01:00:10Z"}), Some(10))]
#[case::past(json!({"shutdownTime": "2026-01-01T00:59:00Z"}), Some(0))]
#[case::after_it_has_finished(json!({"ttlSecondsAfterFinished": 3605}), Some(5))]
#[case::whichever_is_earlier(json!({"ttlSecondsAfterFinished": 3605, "shutdownTime": "2026-01-01T01:00:03Z"}), Some(3))]
#[case::at_once(json!({"ttlSecondsAfterFinished": 0}), Some(0))]
fn when_a_finished_claim_expires(#[case] lifecycle: Value, #[case] left: Option<u64>) {
    let claim = claim(json!({
        "spec": {"lifecycle": lifecycle}, "status": {"conditions": [condition("Finished", "True", "PodSucceeded")]},
    }));
    assert_eq!(ClaimStatus::of(&claim).time_left(&claim, now()), left.map(Duration::from_secs));
}

#[rstest]
#[case::metadata(json!({"metadata": {"labels": {"a": "b"}}}), false)]
#[case::suspended(json!({"status": {"conditions": [condition("Suspended", "True", "x")]}}), false)]
#[case::ready(json!({"status": {"conditions": [condition("Ready", "True", "x")]}}), true)]
#[case::finished(json!({"status": {"conditions": [condition("Finished", "True", "x")]}}), true)]
#[case::addresses(json!({"status": {"podIPs": ["10.0.0.7"]}}), true)]
#[case::deletion(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true)]
fn which_changes_of_a_sandbox_concern_its_claim(#[case] change: Value, #[case] relevant: bool) {
    assert_eq!(is_relevant(&member(json!({})), &member(change)), relevant);
}

// A cluster

/// A cluster with a kubelet, where the controllers can be stopped and started again.
struct World {
    registry: Registry,
    api: Api,
    /// The namespace that everything is in.
    namespace: String,
    tasks: TaskTracker,
    token: CancellationToken,
    /// Ends the sandbox controllers.
    controllers: CancellationToken,
}

impl World {
    async fn start(seed: u64) -> Self {
        Self::with_nodes(seed, &["fake-node-1"]).await
    }

    async fn with_nodes(seed: u64, nodes: &[&str]) -> Self {
        let clock = Clock::starting_at("2026-01-01T00:00:00Z".parse().unwrap());
        let registry = Registry::new(clock, Ids::seeded(seed));
        let (tasks, token) = (TaskTracker::new(), CancellationToken::new());
        let machine = kubelet::Settings {
            nodes: nodes.iter().map(|node| (*node).to_owned()).collect(),
            ..kubelet::Settings::default()
        };
        install(&registry.clone().into(), definitions()).await.unwrap();
        controllers::start(&registry.clone().into(), &controllers::Settings::default(), &tasks, &token);
        let _ = Kubelet::start(&registry.clone().into(), machine, token.clone(), tasks.clone());
        let api = Api::new(registry.clone(), "system:admin", "test");
        let controllers = CancellationToken::new();
        let mut world = Self { registry, api, namespace: String::new(), tasks, token, controllers };
        world.enter("ns").await;
        world.restart(Settings::default());
        world.pass(1).await;
        world
    }

    /// Makes a namespace; all that follows is in it.
    async fn enter(&mut self, namespace: &str) {
        self.namespace = namespace.into();
        self.create(Gvr::new("", "v1", "namespaces"), Object::new("v1", "Namespace", "", namespace)).await;
    }

    /// Stops the sandbox controllers where they are, and starts new ones.
    fn restart(&mut self, settings: Settings) {
        self.controllers.cancel();
        self.controllers = self.token.child_token();
        let metrics = Metrics::default();
        crate::sandbox::start(&self.registry.clone().into(), &settings, &metrics, &self.tasks, &self.controllers);
    }

    async fn create(&self, gvr: Gvr, object: Object) -> Object {
        self.api.create(&gvr, object).await.unwrap().object().clone()
    }

    async fn extension(&self, gvr: Gvr, kind: &str, name: &str, spec: Value) -> Object {
        let mut object = Object::new(EXTENSIONS, kind, &self.namespace, name);
        object.set("spec", spec);
        self.create(gvr, object).await
    }

    /// A template `tpl` and a pool `pool` of so many, ready.
    async fn pool(&self, replicas: u64) {
        self.template(json!({})).await;
        self.extension(
            warm_pools(),
            "SandboxWarmPool",
            "pool",
            json!({"replicas": replicas, "sandboxTemplateRef": {"name": "tpl"}}),
        )
        .await;
        self.pass(10).await;
    }

    async fn template(&self, more: Value) {
        let spec = template(more).get("spec").unwrap().clone();
        self.extension(templates(), "SandboxTemplate", "tpl", spec).await;
    }

    /// A claim on `pool`.
    async fn claim(&self, name: &str, more: Value) -> Object {
        let spec = merged(json!({"warmPoolRef": {"name": "pool"}}), more);
        self.extension(claims(), "SandboxClaim", name, spec).await
    }

    async fn pass(&self, seconds: u64) {
        self.api.clock().sleep(Duration::from_secs(seconds)).await;
    }

    async fn get(&self, gvr: Gvr, name: &str) -> Option<Object> {
        self.api.get(&gvr, &self.namespace, name).await.unwrap().map(|object| object.object().clone())
    }

    async fn list(&self, gvr: Gvr) -> Vec<Arc<Stored>> {
        self.api.list(&gvr, &self.namespace, "").await.unwrap().0
    }

    async fn patch(&self, gvr: Gvr, name: &str, patch: Value) {
        self.api.patch(&gvr, &self.namespace, name, "", patch).await.unwrap();
    }

    async fn delete(&self, gvr: Gvr, name: &str) {
        self.api.delete(&gvr, &self.namespace, name, &DeletePolicy::default()).await.unwrap();
    }

    /// `status/reason` of the claim's Ready, and its Sandbox.
    async fn shown(&self, name: &str) -> String {
        let claim = self.get(claims(), name).await.unwrap();
        let list = claim.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |member: &str| crate::sandbox::conditions::text(&list, "Ready", member).to_owned();
        format!("{}/{} {}", text("status"), text("reason"), claim.str_at(&["status", "sandbox", "name"]))
            .trim_end()
            .to_owned()
    }

    /// Every object of every kind, as text.
    async fn everything(&self) -> Vec<String> {
        let mut all = Vec::new();
        for served in self.api.resources() {
            for object in self.api.list(&served.gvr, "", "").await.unwrap().0 {
                all.push(String::from_utf8(object.json().to_vec()).unwrap());
            }
        }
        all
    }

    async fn stop(self) {
        self.token.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
