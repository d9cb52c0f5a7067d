use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

use super::*;

fn set(wire: Value) -> Set {
    Set::from_wire(&wire).expect("a set")
}

#[rstest]
#[case::field(Element::field("a.b/c"), "f:a.b/c", ".a.b/c")]
#[case::key(Element::Key(vec![("name".into(), Scalar(json!("x")))]), r#"k:{"name":"x"}"#, r#"[name="x"]"#)]
#[case::two_keys(
    Element::Key(vec![("containerPort".into(), Scalar(json!(80))), ("protocol".into(), Scalar(json!("TCP")))]),
    r#"k:{"containerPort":80,"protocol":"TCP"}"#,
    r#"[containerPort=80,protocol="TCP"]"#
)]
#[case::value(Element::Value(Scalar(json!("a<b"))), r#"v:"a\u003cb""#, r#"[="a<b"]"#)]
#[case::number(Element::Value(Scalar(json!(1))), "v:1", "[=1]")]
#[case::index(Element::Index(3), "i:3", "[3]")]
fn elements_have_a_name_and_a_path(#[case] element: Element, #[case] wire: &str, #[case] path: &str) {
    assert_eq!(element.to_wire(), wire);
    assert_eq!(element.to_string(), path);
    assert_eq!(Element::from_wire(wire), Ok(Some(element)));
}

#[test]
fn keys_are_sorted_whatever_the_text_says() {
    let read = Element::from_wire(r#"k:{"protocol":"TCP","containerPort":80}"#).unwrap().unwrap();
    assert_eq!(read.to_wire(), r#"k:{"containerPort":80,"protocol":"TCP"}"#);
}

#[rstest]
#[case("x")]
#[case("name")]
#[case("v:{")]
#[case("i:x")]
fn broken_names_are_errors(#[case] wire: &str) {
    assert!(Element::from_wire(wire).is_err());
}

#[test]
fn unknown_elements_are_skipped() {
    assert_eq!(set(json!({"z:new": {}, "f:a": {}})), set(json!({"f:a": {}})));
}

#[test]
fn a_dot_says_that_the_parent_is_in_the_set_too() {
    let data = set(json!({"f:data": {".": {}, "f:x": {}}}));
    assert!(data.has(&Element::field("data")));
    assert!(data.has_path(&[Element::field("data"), Element::field("x")]));
    let data = data.difference(&set(json!({"f:data": {}})));
    assert_eq!(data.to_wire(), json!({"f:data": {"f:x": {}}}));
}

#[test]
fn a_recursive_difference_takes_children_along() {
    let all = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
    assert_eq!(all.recursive_difference(&set(json!({"f:a": {}}))).to_wire(), json!({"f:c": {}}));
}

#[test]
fn leaves_have_nothing_below_them() {
    let all = set(json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}}));
    assert_eq!(all.leaves().to_wire(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
}

#[test]
fn paths_show_members_before_what_is_below() {
    let all = set(json!({"f:a": {"f:b": {}}, "f:c": {}, "f:d": {".": {}, "v:1": {}}}));
    let paths: Vec<_> = all.paths().into_iter().map(|(_, path)| path).collect();
    assert_eq!(paths, [".c", ".d", ".a.b", ".d[=1]"]);
}

fn element() -> impl Strategy<Value = Element> {
    prop_oneof![
        "[abc]".prop_map(Element::Field),
        "[ab]".prop_map(|name| Element::Key(vec![("name".into(), Scalar(name.into()))])),
        (0..2).prop_map(|n: i32| Element::Value(Scalar(n.into()))),
        (0i64..2).prop_map(Element::Index),
    ]
}

fn sets() -> impl Strategy<Value = Set> {
    prop::collection::vec(prop::collection::vec(element(), 1..4), 0..8).prop_map(|paths| {
        let mut set = Set::default();
        paths.iter().for_each(|path| set.insert(path));
        set
    })
}

fn members(set: &Set) -> std::collections::BTreeSet<Vec<Element>> {
    set.paths().into_iter().map(|(path, _)| path).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read_again(a in sets()) {
        prop_assert_eq!(Set::from_wire(&a.to_wire()).unwrap(), a);
    }

    #[test]
    fn a_set_is_its_paths(a in sets()) {
        let paths = members(&a);
        prop_assert!(paths.iter().all(|path| a.has_path(path)));
        let paths: Vec<_> = paths.iter().map(Vec::as_slice).collect();
        prop_assert_eq!(Set::of(&paths), a);
    }

    #[test]
    fn the_algebra_is_that_of_sets_of_paths(a in sets(), b in sets()) {
        let (pa, pb) = (members(&a), members(&b));
        prop_assert_eq!(members(&a.union(&b)), &pa | &pb);
        prop_assert_eq!(members(&a.intersection(&b)), &pa & &pb);
        prop_assert_eq!(members(&a.difference(&b)), &pa - &pb);
        prop_assert_eq!(a.union(&b), b.union(&a));
        prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
        let left: std::collections::BTreeSet<_> =
            pa.iter().filter(|path| (1..=path.len()).all(|n| !b.has_path(&path[..n]))).cloned().collect();
        prop_assert_eq!(members(&a.recursive_difference(&b)), left);
    }
}
