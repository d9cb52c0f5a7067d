use rstest::rstest;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(mode, value)| (format!("pod-security.kubernetes.io/{mode}"), (*value).to_owned())).collect()
}

fn pod(spec: Value) -> String {
    judged(Level::Restricted, None, &json!({}), &spec)
}

fn judged(level: Level, minor: Option<u64>, metadata: &Value, spec: &Value) -> String {
    told(Policy { level, minor }, metadata, spec).unwrap_or_default()
}

/// A pod that the restricted profile takes, with its one container changed.
fn tight(container: Value) -> Value {
    let mut whole = json!({
        "name": "c", "image": "i",
        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    });
    crate::base::patch::merge(&mut whole, &container).unwrap();
    json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}}, "containers": [whole],
    })
}

#[test]
fn a_pod_that_says_nothing_is_told_what_the_restricted_profile_wants() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(
        pod(two),
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")"
    );
    assert_eq!(pod(tight(json!({}))), "");
}

#[rstest]
#[case::capability(json!({"securityContext": {"capabilities": {"add": ["NET_RAW", "CHOWN"]}}}),
    "unrestricted capabilities (container \"c\" must not include \"CHOWN\", \"NET_RAW\" in securityContext.capabilities.add)")]
#[case::port(json!({"ports": [{"hostPort": 80}, {"hostPort": 443}]}), "hostPort (container \"c\" uses hostPorts 443, 80)")]
#[case::probe(json!({"livenessProbe": {"httpGet": {"host": "h"}}}),
    "probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\")")]
#[case::mount(json!({"securityContext": {"procMount": "Unmasked"}}),
    "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")")]
#[case::root(json!({"securityContext": {"runAsUser": 0}}), "runAsUser=0 (container \"c\" must not set runAsUser=0)")]
#[case::se_linux(json!({"securityContext": {"seLinuxOptions": {"type": "t", "user": "u"}}}),
    "seLinuxOptions (container \"c\" set forbidden securityContext.seLinuxOptions: type \"t\"; user may not be set)")]
#[case::windows(json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
    "hostProcess (container \"c\" must not set securityContext.windowsOptions.hostProcess=true)")]
#[case::armor(json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
    "forbidden AppArmor profile (container \"c\" must not set AppArmor profile type to \"Unconfined\")")]
fn each_check_says_who_violates_it_and_how(#[case] container: Value, #[case] text: &str) {
    assert_eq!(pod(tight(container)), text);
}

#[rstest]
#[case::sysctl_then(26, json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}}), false)]
#[case::sysctl_now(27, json!({"securityContext": {"sysctls": [{"name": "net.ipv4.ip_local_reserved_ports"}]}}), true)]
#[case::probe_then(33, json!({"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"host": "h"}}}]}), true)]
#[case::probe_now(34, json!({"containers": [{"name": "c", "livenessProbe": {"tcpSocket": {"host": "h"}}}]}), false)]
#[case::users_then(34, json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}), false)]
#[case::users_now(35, json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}), true)]
#[case::newer_than_all(99, json!({"hostUsers": false, "containers": [{"securityContext": {"procMount": "Unmasked"}}]}), true)]
fn a_version_has_the_checks_of_its_time(#[case] minor: u64, #[case] spec: Value, #[case] fine: bool) {
    assert_eq!(judged(Level::Baseline, Some(minor), &json!({}), &spec).is_empty(), fine);
}

#[test]
fn warnings_follow_what_is_enforced_unless_told_otherwise() {
    let (policies, errors) = policies(&labels(&[("enforce", "baseline"), ("enforce-version", "v1.30")]));
    assert!(errors.is_empty());
    assert_eq!(policies.warn.to_string(), "baseline:v1.30");
    assert_eq!(policies.audit.to_string(), "privileged:latest");
    let (policies, _) = super::policies(&labels(&[("enforce", "baseline"), ("warn", "privileged")]));
    assert_eq!(policies.warn.to_string(), "privileged:latest");
}

#[rstest]
#[case("enforce", "silly", "must be one of privileged, baseline, restricted")]
#[case("enforce-version", "v1.01", "must be \"latest\" or \"v1.x\"")]
#[case("warn-version", "1.2", "must be \"latest\" or \"v1.x\"")]
fn wrong_labels_are_told_of(#[case] mode: &str, #[case] value: &str, #[case] why: &str) {
    let (_, errors) = policies(&labels(&[(mode, value)]));
    let field = format!("metadata.labels[pod-security.kubernetes.io/{mode}]");
    assert_eq!(errors[0].to_string(), format!("{field}: Invalid value: \"{value}\": {why}"));
}

#[test]
fn only_images_and_new_containers_make_a_pod_be_looked_at_again() {
    let old = json!({"spec": {"containers": [{"name": "c", "image": "a"}]}});
    assert!(!changed(&json!({"spec": {"containers": [{"name": "c", "image": "a"}], "x": 1}}), &old));
    assert!(changed(&json!({"spec": {"containers": [{"name": "c", "image": "b"}]}}), &old));
    let added = json!({"spec": {"containers": [{"name": "c", "image": "a"}], "ephemeralContainers": [{"name": "e"}]}});
    assert!(changed(&added, &old));
}
