use rstest::rstest;

use super::*;

fn template(spec: Value) -> Object {
    let mut template = Object::new("extensions.agents.x-k8s.io/v1beta1", "SandboxTemplate", "ns", "tpl");
    template.set_at(&["metadata", "uid"], "t1");
    template.set("spec", spec);
    template
}

fn created(template: &Object) -> Object {
    match decide(template, None) {
        Step::Create(policy) => policy,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_template_gets_a_policy_that_it_controls_and_that_selects_its_pods() {
    let policy = created(&template(json!({})));
    assert_eq!(policy.name(), "tpl-network-policy");
    assert!(is_own(&policy, &template(json!({}))));
    let selected = policy.at(&["spec", "podSelector", "matchLabels", TEMPLATE_REF_HASH]);
    assert_eq!(selected, Some(&json!("9d22159f")));
    assert_eq!(policy.at(&["spec", "policyTypes"]), Some(&json!(["Ingress", "Egress"])));
}

#[rstest]
#[case::nothing_changed(json!({}), json!({}), true)]
#[case::rules_taken_out(json!({}), json!({"egress": []}), false)]
#[case::an_empty_list_is_no_list(json!({"networkPolicy": {"egress": []}}), json!({"ingress": []}), true)]
#[case::a_custom_policy_closes_what_it_does_not_name(
    json!({"networkPolicy": {"egress": [{}]}}), json!({"ingress": [{}]}), false
)]
fn an_edited_policy_is_repaired(#[case] spec: Value, #[case] edit: Value, #[case] unchanged: bool) {
    let template = template(spec);
    let whole = created(&template);
    let mut edited = whole.clone();
    for (key, value) in edit.as_object().unwrap() {
        edited.set_at(&["spec", key], value.clone());
    }
    let expected = if unchanged { Step::Nothing } else { Step::Replace(whole) };
    assert_eq!(decide(&template, Some(&edited)), expected);
}

#[test]
fn a_template_that_manages_nothing_removes_only_its_own_policy() {
    let whole = created(&template(json!({})));
    let unmanaged = template(json!({"networkPolicyManagement": "Unmanaged"}));
    assert_eq!(decide(&unmanaged, Some(&whole)), Step::Delete);
    assert_eq!(decide(&unmanaged, None), Step::Nothing);
    let mut foreign = whole;
    foreign.remove_at(&["metadata", "ownerReferences"]);
    assert_eq!(decide(&unmanaged, Some(&foreign)), Step::Nothing);
    let refused = decide(&template(json!({})), Some(&foreign));
    let text =
        "refusing to update NetworkPolicy \"tpl-network-policy\" as it is not controlled by SandboxTemplate \"tpl\"";
    assert_eq!(refused, Step::Fail(text.into()));
}
