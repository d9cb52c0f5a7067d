use rstest::rstest;
use serde_json::json;

use super::*;

fn broken(limit: Value, resources: Value) -> Vec<String> {
    let mut texts = Vec::new();
    let of = |key: &str| amounts(get(&resources, key));
    in_range(&mut texts, &limit, &of("requests"), &of("limits"));
    texts
}

#[rstest]
#[case::no_request(json!({"min": {"cpu": "1"}}), json!({}), "minimum cpu usage per Container is 1.  No request is specified")]
#[case::small(json!({"min": {"cpu": "1"}}), json!({"requests": {"cpu": "500m"}}),
    "minimum cpu usage per Container is 1, but request is 500m")]
#[case::no_limit(json!({"max": {"memory": "1Gi"}}), json!({}),
    "maximum memory usage per Container is 1Gi.  No limit is specified")]
#[case::large(json!({"max": {"cpu": "2"}}), json!({"limits": {"cpu": "4"}}),
    "maximum cpu usage per Container is 2, but limit is 4")]
#[case::ratio(json!({"maxLimitRequestRatio": {"cpu": "2"}}), json!({"requests": {"cpu": "1"}, "limits": {"cpu": "5"}}),
    "cpu max limit to request ratio per Container is 2, but provided ratio is 5.000000")]
fn a_broken_bound_is_told_of_in_words(#[case] limit: Value, #[case] resources: Value, #[case] text: &str) {
    let mut limit = limit;
    limit["type"] = "Container".into();
    assert_eq!(broken(limit, resources), [text]);
}

#[test]
fn several_broken_bounds_stand_in_brackets_each_once() {
    assert_eq!(aggregate(vec![]), None);
    assert_eq!(aggregate(vec!["a".into(), "a".into()]), Some("a".into()));
    assert_eq!(aggregate(vec!["a".into(), "b".into()]), Some("[a, b]".into()));
}

#[test]
fn what_is_given_is_kept_and_what_is_filled_in_is_told_of() {
    let mut container = json!({"resources": {"limits": {"cpu": "1"}}}).as_object().cloned().unwrap();
    let defaults = json!({"cpu": "2", "memory": "1Gi"}).as_object().cloned().unwrap();
    assert_eq!(merge(&mut container, "limits", &defaults), ["memory"]);
    assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "1Gi"}));
}
