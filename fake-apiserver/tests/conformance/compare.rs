//! Pointers into answers, and where two answers differ.

use std::collections::BTreeSet;

use crate::json::Json;

/// One place at which an answer is not the recorded one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) pointer: String,
    pub(crate) want: String,
    pub(crate) got: String,
}

/// Longest value that a difference shows in full, in characters.
const SHOWN: usize = 600;

impl Difference {
    pub(crate) fn new(pointer: &str, want: &Json, got: &Json) -> Self {
        let pointer = if pointer.is_empty() { "/" } else { pointer };
        Self { pointer: pointer.into(), want: short(want), got: short(got) }
    }

    fn absent(pointer: &str, want: Option<&Json>, got: Option<&Json>) -> Self {
        let show = |value: Option<&Json>| value.map_or_else(|| "<absent>".into(), short);
        Self { pointer: pointer.into(), want: show(want), got: show(got) }
    }
}

fn short(value: &Json) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The places at which two normalised values differ; keys of `ignore` are passed over wherever they stand.
pub(crate) fn differences(want: &Json, got: &Json, ignore: &BTreeSet<&str>) -> Vec<Difference> {
    let mut found = Vec::new();
    descend(want, got, ignore, "", &mut found);
    found
}

fn descend(want: &Json, got: &Json, ignore: &BTreeSet<&str>, path: &str, found: &mut Vec<Difference>) {
    match (want, got) {
        (Json::Map(ours), Json::Map(theirs)) => {
            let keys: BTreeSet<&str> = ours.iter().chain(theirs).map(|(key, _)| key.as_str()).collect();
            for key in keys.difference(ignore) {
                let pointer = format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"));
                match (want.get(key), got.get(key)) {
                    (Some(want), Some(got)) => descend(want, got, ignore, &pointer, found),
                    (want, got) => found.push(Difference::absent(&pointer, want, got)),
                }
            }
        }
        (Json::List(ours), Json::List(theirs)) if ours.len() == theirs.len() => {
            for (index, (want, got)) in ours.iter().zip(theirs).enumerate() {
                descend(want, got, ignore, &format!("{path}/{index}"), found);
            }
        }
        (want, got) if want.same(got) => {}
        (want, got) => found.push(Difference::new(path, want, got)),
    }
}

/// The value at a JSON pointer. A part `[name=x]` picks the item of a list whose field has that value; dots in the field's
/// name lead deeper.
pub(crate) fn pointer<'a>(document: &'a Json, path: &str) -> Option<&'a Json> {
    let mut here = document;
    for part in path.split('/').skip(1) {
        here = match here {
            Json::List(items) => &items[index(items, &unescape(part))?],
            Json::Map(_) => here.get(&unescape(part))?,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => return None,
        };
    }
    Some(here)
}

/// The same, to change the value.
pub(crate) fn pointer_mut<'a>(document: &'a mut Json, path: &str) -> Option<&'a mut Json> {
    let mut here = document;
    for part in path.split('/').skip(1) {
        here = match here {
            Json::List(items) => {
                let at = index(items, &unescape(part))?;
                &mut items[at]
            }
            Json::Map(_) => here.get_mut(&unescape(part))?,
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::Text(_) => return None,
        };
    }
    Some(here)
}

/// Which item of a list a pointer's part means.
fn index(items: &[Json], part: &str) -> Option<usize> {
    match part.strip_prefix('[').and_then(|part| part.strip_suffix(']')).and_then(|part| part.split_once('=')) {
        Some((field, value)) => {
            let field = format!("/{}", field.replace('.', "/"));
            items.iter().position(|item| pointer(item, &field).and_then(Json::as_str) == Some(value))
        }
        None => part.parse().ok().filter(|at| *at < items.len()),
    }
}

/// A pointer's part without its escapes.
pub(crate) fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// Whether the value at a pointer is as asked: `null` for absent, `"*"` for present, `{"count": n}` for a list's length.
pub(crate) fn reached(body: &Json, path: &str, wanted: &Json) -> bool {
    let found = pointer(body, path).unwrap_or(&Json::Null);
    if let Some(count) = wanted.get("count") {
        let length = match found {
            Json::List(items) => items.len(),
            Json::Map(entries) => entries.len(),
            Json::Text(text) => text.chars().count(),
            Json::Null | Json::Bool(_) | Json::Number(_) => 0,
        };
        return Json::Number(length.into()).same(count);
    }
    match wanted.as_str() {
        Some("*") => *found != Json::Null,
        Some(_) | None => found.same(wanted),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn json(text: &str) -> Json {
        serde_json::from_str(text).unwrap()
    }

    #[rstest]
    #[case("", r#"{"a":[{"name":"x","metadata":{"name":"m"}},{"name":"y"}],"b/c":1,"d~e":2}"#)]
    #[case("/a/1/name", r#""y""#)]
    #[case("/a/[name=y]", r#"{"name":"y"}"#)]
    #[case("/a/[metadata.name=m]/name", r#""x""#)]
    #[case("/b~1c", "1")]
    #[case("/d~0e", "2")]
    #[case("/a/2", "null")]
    #[case("/a/[name=z]/name", "null")]
    #[case("/b~1c/deeper", "null")]
    fn a_pointer_finds(#[case] path: &str, #[case] want: &str) {
        let mut document = json(r#"{"a":[{"name":"x","metadata":{"name":"m"}},{"name":"y"}],"b/c":1,"d~e":2}"#);
        assert_eq!(pointer(&document, path).unwrap_or(&Json::Null), &json(want));
        assert_eq!(pointer_mut(&mut document, path).unwrap_or(&mut Json::Null), &json(want));
    }

    #[rstest]
    #[case("/gone", "null", true)]
    #[case("/a", "null", false)]
    #[case("/a", r#""*""#, true)]
    #[case("/gone", r#""*""#, false)]
    #[case("/list", r#"{"count":2}"#, true)]
    #[case("/list", r#"{"count":1}"#, false)]
    #[case("/gone", r#"{"count":0}"#, true)]
    #[case("/a", "1", true)]
    #[case("/a", "2", false)]
    fn a_wait_is_over_when(#[case] path: &str, #[case] wanted: &str, #[case] over: bool) {
        assert_eq!(reached(&json(r#"{"a":1,"list":[1,2]}"#), path, &json(wanted)), over);
    }

    #[test]
    fn differences_name_the_place_and_both_sides() {
        let (want, got) =
            (json(r#"{"a":[1,{"x/y":"p"}],"b":[1],"c":1}"#), json(r#"{"a":[1,{"x/y":"q"}],"b":[],"d":2}"#));
        let found = differences(&want, &got, &BTreeSet::new());
        let found: Vec<_> = found.iter().map(|d| (d.pointer.as_str(), d.want.as_str(), d.got.as_str())).collect();
        assert_eq!(
            found,
            [("/a/1/x~1y", "p", "q"), ("/b", "[1]", "[]"), ("/c", "1", "<absent>"), ("/d", "<absent>", "2")]
        );
    }

    #[test]
    fn an_ignored_key_is_passed_over_at_any_depth() {
        let (want, got) = (json(r#"{"a":[{"m":1}],"m":1,"k":1}"#), json(r#"{"a":[{"m":2}],"k":2}"#));
        let found = differences(&want, &got, &BTreeSet::from(["m"]));
        assert_eq!(found.iter().map(|d| d.pointer.as_str()).collect::<Vec<_>>(), ["/k"]);
    }
}
