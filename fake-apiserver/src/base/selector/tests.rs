use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
}

#[rstest]
#[case("app=x", true)]
#[case("app==x", true)]
#[case("app!=x", false)]
#[case("app in (x,z)", true)]
#[case("app  in  ( y , z )", false)]
#[case("app notin ()", true)]
#[case("app in (,x)", true)]
#[case("none notin (a)", true)]
#[case("app,!none", true)]
#[case("app,none", false)]
#[case("n>3", true)]
#[case("n<3", false)]
#[case("app>3", false)]
#[case("in in (in)", true)]
#[case("empty=", true)]
#[case("empty==,app", true)]
#[case("", true)]
fn a_selector_matches_as_upstreams_does(#[case] text: &str, #[case] matches: bool) {
    let labels = labels(&[("app", "x"), ("n", "7"), ("empty", ""), ("in", "in")]);
    assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), matches);
}

#[rstest]
#[case("=x", "found '=', expected: !, identifier, or 'end of string'")]
#[case("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt")]
#[case("app in x", "unable to parse requirement: found 'x' expected: '('")]
#[case("app in", "unable to parse requirement: found '' expected: '('")]
#[case("app in (a", "unable to parse requirement: found '', expected: ',' or ')'")]
#[case("app in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier")]
#[case("app in (a)(b)", "found '(', expected: ',' or 'end of string'")]
#[case("app=a=b", "found '=', expected: ',' or 'end of string'")]
#[case("app!", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt")]
#[case("in (a)", "unable to parse requirement: found '(', expected: in, notin, =, ==, !=, gt, lt")]
#[case("app,,tier", "found ',', expected: identifier after ','")]
#[case("app=a,", "found '', expected: identifier after ','")]
#[case("!", "unable to parse requirement: found '', expected: identifier")]
#[case(
    "a>x",
    "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer"
)]
fn a_bad_selector_gets_upstreams_words(#[case] text: &str, #[case] message: &str) {
    assert_eq!(LabelSelector::parse(text).unwrap_err(), message);
}

#[test]
fn bad_keys_and_values_are_told_with_their_rule() {
    let message = LabelSelector::parse("-x=a").unwrap_err();
    assert!(
        message.starts_with(r#"unable to parse requirement: <nil>: Invalid value: "-x": name part must"#),
        "{message}"
    );
    let long = "x".repeat(64);
    let message = LabelSelector::parse(&format!("app={long}")).unwrap_err();
    let wanted = format!(
        r#"unable to parse requirement: values[0][app]: Invalid value: "{long}": must be no more than 63 bytes"#
    );
    assert_eq!(message, wanted);
}

#[test]
fn an_absent_selector_object_selects_nothing_and_an_empty_one_all() {
    let none = BTreeMap::new();
    assert!(!LabelSelector::from_value(None).unwrap().matches(&none));
    assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().matches(&none));
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["d"]}]});
    let selector = LabelSelector::from_value(Some(&selector)).unwrap();
    assert!(selector.matches(&labels(&[("a", "b")])));
    assert!(!selector.matches(&labels(&[("a", "b"), ("c", "d")])));
    assert_eq!(selector.to_string(), "a in (b),c notin (d)");
    assert!(LabelSelector::from_value(Some(&json!({"matchExpressions": [{"key": "c", "operator": "Like"}]}))).is_err());
}

#[rstest]
#[case("metadata.name=b", "b", true)]
#[case("metadata.name==b", "b", true)]
#[case("metadata.name!=b", "b", false)]
#[case(r"metadata.name=a\,b", "a,b", true)]
#[case(",,", "b", true)]
#[case("=", "b", true)]
#[case("!=,metadata.name=b", "b", true)]
fn a_field_selector_matches(#[case] text: &str, #[case] name: &str, #[case] matches: bool) {
    assert_eq!(FieldSelector::parse(text).unwrap().matches(|_| name.into()), matches);
}

#[rstest]
#[case("nonsense", "invalid selector: 'nonsense'; can't understand 'nonsense'")]
#[case("metadata.name>3", "invalid selector: 'metadata.name>3'; can't understand 'metadata.name>3'")]
#[case("a=b,c!d", "invalid selector: 'a=b,c!d'; can't understand 'c!d'")]
#[case("a=b=c", "invalid field selector: unescaped character in value: 61")]
#[case(r"a=\x", r"invalid field selector: invalid escape sequence: \x")]
#[case("a=\\", "invalid field selector: invalid escape sequence: \\")]
fn a_bad_field_selector_gets_upstreams_words(#[case] text: &str, #[case] message: &str) {
    assert_eq!(FieldSelector::parse(text).unwrap_err(), message);
}

proptest! {
    #[test]
    fn no_text_breaks_the_parsers(text in "[a-z!=<>(), \\\\\u{0}é/-]{0,20}") {
        if let Ok(selector) = LabelSelector::parse(&text) {
            // what is printed reads back as the same selector
            prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
        }
        let _ = FieldSelector::parse(&text);
    }
}
