//! What differs from run to run becomes a mark; equal values get equal marks within a case.

use std::{collections::BTreeMap, sync::LazyLock};

use regex::{Captures, Regex};

use crate::json::Json;

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("a constant pattern")
}

static TIME: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]+)?(Z|[-+][0-9]{2}:[0-9]{2})$"));
static UID: LazyLock<Regex> = LazyLock::new(|| regex("[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"));
static ADDRESS: LazyLock<Regex> = LazyLock::new(|| regex(r"^10(\.[0-9]+){3}$"));
static AGE: LazyLock<Regex> = LazyLock::new(|| regex("^[0-9]+s$"));

/// What differs inside a longer text, and what it becomes, in this order.
static INSIDE: LazyLock<[(Regex, &str); 7]> = LazyLock::new(|| {
    [
        (regex(r"[0-9]{4}(-[0-9]{2}){2}T[0-9]{2}(:[0-9]{2}){2}(\.[0-9]+)?Z"), "<time>"),
        // Volumes of service account tokens.
        (regex(r"kube-api-access-[a-z0-9]{5}\b"), "kube-api-access-<rand>"),
        // Names generated from a prefix that is refused.
        (regex(r"\bBad_[a-z0-9]{5}\b"), "Bad_<rand>"),
        // A version in an object that a message quotes.
        (regex(r#"(?<key>\\?"resourceVersion\\?":\\?")[0-9]+"#), "${key}<rv>"),
        // Versions in messages about preconditions and about versions to come.
        (regex(r"in record \([0-9]+\)"), "in record (<rv>)"),
        (regex(", current: [0-9]+"), ", current: <rv>"),
        // The diff that ends a message about an immutable field.
        (regex(r"(?s)\n@@.*"), "\n<diff>"),
    ]
});

/// Keys of addresses.
const ADDRESSES: [&str; 6] = ["clusterIP", "ip", "podIP", "hostIP", "clusterIPs", "podIPs"];

/// What the entries of managedFields are sorted by: their own order depends on the second in which a write happened.
const MANAGER_ORDER: [&str; 4] = ["manager", "operation", "subresource", "apiVersion"];

/// Gives out marks, for one case.
#[derive(Debug)]
pub(crate) struct Normaliser {
    /// Texts and the words that stand for them, first come first replaced.
    words: Vec<(String, String)>,
    seen: BTreeMap<&'static str, BTreeMap<String, usize>>,
}

impl Normaliser {
    pub(crate) fn new(words: Vec<(String, String)>) -> Self {
        Self { words, seen: BTreeMap::new() }
    }

    /// From now on `{word}` stands for the text, and `{word-hash}` for its hash.
    pub(crate) fn name(&mut self, word: &str, text: &str) {
        let named = [(text.into(), word.into()), (fnv1a(text), format!("{word}-hash"))];
        self.words.splice(0..0, named);
    }

    /// A value with marks. `key` is where it stands and `holder` the map that holds it.
    pub(crate) fn walk(&mut self, value: &Json, key: &str, holder: Option<&Json>) -> Json {
        match value {
            Json::Map(entries) => {
                let mut out = Json::Map(Vec::with_capacity(entries.len()));
                for (key, child) in entries {
                    let (name, child) = (self.text(key), self.walk(child, key, Some(value)));
                    out.set(&name, child);
                }
                out
            }
            Json::List(items) => {
                let mut items: Vec<&Json> = items.iter().collect();
                if key == "managedFields" {
                    items.sort_by_key(|entry| MANAGER_ORDER.map(|key| text_of(entry.get(key).unwrap_or(&"".into()))));
                }
                Json::List(items.into_iter().map(|item| self.walk(item, key, holder)).collect())
            }
            Json::Text(text) => self.string(text, key, holder),
            Json::Null | Json::Bool(_) | Json::Number(_) => value.clone(),
        }
    }

    fn string(&mut self, value: &str, key: &str, holder: Option<&Json>) -> Json {
        // An object kept as a text, whose key order is its writer's own.
        if key.ends_with("-state")
            && value.starts_with('{')
            && let Ok(object) = serde_json::from_str::<Json>(value)
        {
            return self.walk(&object, "", None);
        }
        let field = |name: &str| holder.and_then(|holder| holder.get(name)).filter(|found| found.is_truthy());
        let text = match key {
            "storageVersionHash" => "<hash>".into(),
            "serverAddress" => "<address>".into(),
            _ if value.starts_with("-----BEGIN") => "<pem>".into(),
            // A list's or a bookmark's version moves with everybody's writes; an object's is its own.
            "resourceVersion" if holder.is_none_or(|holder| holder.get("name").is_none()) => {
                if value.is_empty() {
                    String::new()
                } else {
                    "<rv>".into()
                }
            }
            "resourceVersion" => self.mark("rv", value),
            "continue" => {
                if value.is_empty() {
                    String::new()
                } else {
                    "<continue>".into()
                }
            }
            _ if TIME.is_match(value) => "<time>".into(),
            _ if ADDRESSES.contains(&key) => {
                if value.is_empty() || value == "None" {
                    value.into()
                } else {
                    "<ip>".into()
                }
            }
            "cells" if AGE.is_match(value) => "<age>".into(),
            _ if ADDRESS.is_match(value) => "<ip>".into(),
            "name" => match field("generateName").and_then(Json::as_str) {
                Some(prefix) if value.starts_with(prefix) => format!("{}<rand>", self.text(prefix)),
                Some(_) | None => self.text(value),
            },
            _ => self.text(value),
        };
        Json::Text(text)
    }

    /// A text with marks inside.
    fn text(&mut self, value: &str) -> String {
        let mut value = value.to_owned();
        for (text, word) in &self.words {
            if !text.is_empty() && value.contains(text.as_str()) {
                value = value.replace(text.as_str(), &format!("{{{word}}}"));
            }
        }
        for (pattern, mark) in INSIDE.iter() {
            value = pattern.replace_all(&value, *mark).into_owned();
        }
        UID.replace_all(&value, |uid: &Captures<'_>| self.mark("uid", &uid[0])).into_owned()
    }

    fn mark(&mut self, kind: &'static str, value: &str) -> String {
        let known = self.seen.entry(kind).or_default();
        let next = known.len() + 1;
        format!("<{kind}{}>", known.entry(value.into()).or_insert(next))
    }
}

/// A value as a text: what `save` keeps and what managedFields are sorted by.
pub(crate) fn text_of(value: &Json) -> String {
    match value {
        Json::Null => "None".into(),
        Json::Bool(true) => "True".into(),
        Json::Bool(false) => "False".into(),
        Json::Text(text) => text.clone(),
        Json::Number(_) | Json::List(_) | Json::Map(_) => value.to_string(),
    }
}

/// 32 bits of FNV-1a in eight hexadecimal digits: the hash in the labels of Agent Sandbox.
pub(crate) fn fnv1a(text: &str) -> String {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:08x}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn normaliser() -> Normaliser {
        Normaliser::new(vec![("case-bcdfghjk".into(), "ns".into()), ("bcdfghjk".into(), "id".into())])
    }

    fn walked(text: &str) -> String {
        normaliser().walk(&serde_json::from_str(text).unwrap(), "", None).to_string()
    }

    const ONE: &str = "11111111-1111-4111-8111-111111111111";
    const TWO: &str = "22222222-2222-4222-8222-222222222222";

    #[test]
    fn equal_uids_get_equal_marks_also_inside_of_texts() {
        let text = format!(r#"{{"uid":"{ONE}","other":"{TWO}","message":"UID in {TWO} and {ONE}"}}"#);
        assert_eq!(walked(&text), r#"{"uid":"<uid1>","other":"<uid2>","message":"UID in <uid2> and <uid1>"}"#);
    }

    #[test]
    fn an_object_has_a_version_of_its_own_and_a_list_has_none() {
        let text = r#"{"items":[{"metadata":{"name":"a","resourceVersion":"7"}},{"metadata":{"name":"b","resourceVersion":"8"}},
            {"metadata":{"name":"c","resourceVersion":"7"}}],"metadata":{"resourceVersion":"9"}}"#;
        let want = r#"{"items":[{"metadata":{"name":"a","resourceVersion":"<rv1>"}},{"metadata":{"name":"b","resourceVersion":"<rv2>"}},{"metadata":{"name":"c","resourceVersion":"<rv1>"}}],"metadata":{"resourceVersion":"<rv>"}}"#;
        assert_eq!(walked(text), want);
    }

    #[test]
    fn managers_are_sorted_by_name_operation_and_subresource() {
        let text = r#"{"managedFields":[{"manager":"b","operation":"Update"},{"manager":"a","operation":"Update","subresource":"status"},{"manager":"a","operation":"Update"}]}"#;
        let want = r#"{"managedFields":[{"manager":"a","operation":"Update"},{"manager":"a","operation":"Update","subresource":"status"},{"manager":"b","operation":"Update"}]}"#;
        assert_eq!(walked(text), want);
    }

    #[rstest]
    #[case(r#"{"a":"2026-01-02T03:04:05Z"}"#, r#"{"a":"<time>"}"#)]
    #[case(r#"{"a":"2026-01-02T03:04:05.000001+02:00"}"#, r#"{"a":"<time>"}"#)]
    #[case(r#"{"a":"at 2026-01-02T03:04:05Z"}"#, r#"{"a":"at <time>"}"#)]
    #[case(r#"{"a":"in case-bcdfghjk, gbcdfghjk.example.com"}"#, r#"{"a":"in {ns}, g{id}.example.com"}"#)]
    #[case(r#"{"gbcdfghjk":1}"#, r#"{"g{id}":1}"#)]
    #[case(r#"{"generateName":"pod-","name":"pod-x7k2p"}"#, r#"{"generateName":"pod-","name":"pod-<rand>"}"#)]
    #[case(r#"{"name":"kube-api-access-abcde"}"#, r#"{"name":"kube-api-access-<rand>"}"#)]
    #[case(r#"{"clusterIP":"None","clusterIPs":["10.96.0.7"]}"#, r#"{"clusterIP":"None","clusterIPs":["<ip>"]}"#)]
    #[case(r#"{"a":"10.1.2.3","b":"11.1.2.3"}"#, r#"{"a":"<ip>","b":"11.1.2.3"}"#)]
    #[case(r#"{"cells":["5s","5m"]}"#, r#"{"cells":["<age>","5m"]}"#)]
    #[case(
        r#"{"continue":"xyz","storageVersionHash":"h="}"#,
        r#"{"continue":"<continue>","storageVersionHash":"<hash>"}"#
    )]
    #[case(r#"{"continue":"","resourceVersion":""}"#, r#"{"continue":"","resourceVersion":""}"#)]
    #[case(r#"{"a":"immutable\n@@ 1\n-x\n"}"#, r#"{"a":"immutable\n<diff>"}"#)]
    #[case(r#"{"a":"Precondition failed: RV in record (12)"}"#, r#"{"a":"Precondition failed: RV in record (<rv>)"}"#)]
    #[case(r#"{"a":"large: 9, current: 12"}"#, r#"{"a":"large: 9, current: <rv>"}"#)]
    #[case(r#"{"a":"\\\"resourceVersion\\\":\\\"12\\\""}"#, r#"{"a":"\\\"resourceVersion\\\":\\\"<rv>\\\""}"#)]
    #[case(r#"{"x-state":"{\"b\":1,\"a\":\"10.1.2.3\"}"}"#, r#"{"x-state":{"b":1,"a":"<ip>"}}"#)]
    fn run_to_run_values_become_marks(#[case] text: &str, #[case] want: &str) {
        assert_eq!(walked(text), want);
    }

    #[test]
    fn a_named_text_and_its_hash_show_as_words() {
        let mut normaliser = normaliser();
        normaliser.name("member", "pool-abcde");
        let label = Json::Text(format!("{} of pool-abcde", fnv1a("pool-abcde")));
        assert_eq!(normaliser.walk(&label, "", None), "{member-hash} of {member}".into());
    }

    #[rstest]
    #[case("", "811c9dc5")]
    #[case("a", "e40c292c")]
    #[case("foobar", "bf9cf968")]
    fn the_hash_is_fnv1a(#[case] text: &str, #[case] want: &str) {
        assert_eq!(fnv1a(text), want);
    }
}
