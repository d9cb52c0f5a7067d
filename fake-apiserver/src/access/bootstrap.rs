//! The roles and bindings that every cluster starts with.
//!
//! Upstream: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`; `bootstrap.txt` has what it makes at the default feature
//! gates.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{GROUP, Rule, gather, selectors};
use crate::base::Object;

/// One line opens an object: resource, namespace if it has one, and name; the lines below it, indented, say what it
/// holds. A list is separated by commas; `""` is the empty text.
const TABLE: &str = include_str!("bootstrap.txt");

/// The label of objects that are kept as upstream's server makes them.
pub const LABEL: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// The objects in the order in which they are made, each with the plural of its kind. Roles that gather others have no
/// rules yet; [`gathered`] says which they are to get.
pub fn objects() -> Vec<(&'static str, Object)> {
    let mut objects: Vec<(&'static str, Object)> = Vec::new();
    for line in TABLE.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with(' ') {
            let (_, object) = objects.last_mut().expect("an object is opened first");
            fill(object, &words);
        } else {
            objects.push(open(&words));
        }
    }
    objects
}

/// The rules of those roles among these that gather others, by name. What is gathered may gather itself.
pub fn gathered(objects: &[(&'static str, Object)]) -> BTreeMap<String, Vec<Rule>> {
    let roles = objects.iter().filter(|(plural, _)| *plural == "clusterroles");
    let mut roles: Vec<Object> = roles.map(|(_, role)| role.clone()).collect();
    let mut found = BTreeMap::new();
    loop {
        let before = found.clone();
        for index in 0..roles.len() {
            let Some(own) = selectors(&roles[index]) else { continue };
            let own = own.expect("the table's selectors are well-formed");
            let rules = gather(roles[index].name(), &own, roles.iter());
            roles[index].set("rules", json!(rules));
            found.insert(roles[index].name().to_owned(), rules);
        }
        if found == before {
            return found;
        }
    }
}

fn open(words: &[&str]) -> (&'static str, Object) {
    let (plural, kind) = match words[0] {
        "clusterrole" => ("clusterroles", "ClusterRole"),
        "clusterrolebinding" => ("clusterrolebindings", "ClusterRoleBinding"),
        "role" => ("roles", "Role"),
        "rolebinding" => ("rolebindings", "RoleBinding"),
        other => panic!("no such kind in the table: {other}"),
    };
    let (namespace, name) = match words {
        [_, name] => ("", *name),
        [_, namespace, name] => (*namespace, *name),
        _ => panic!("no such line in the table: {words:?}"),
    };
    let mut object = Object::new(&format!("{GROUP}/v1"), kind, namespace, name);
    object.set_at(&["metadata", "labels", LABEL.0], LABEL.1);
    object.set_at(&["metadata", "annotations", AUTOUPDATE], "true");
    if kind.ends_with("Role") {
        object.set("rules", Value::Null);
    }
    (plural, object)
}

fn fill(object: &mut Object, words: &[&str]) {
    let push = |object: &mut Object, path: &[&str], item: Value| {
        let mut list = object.at(path).and_then(Value::as_array).cloned().unwrap_or_default();
        list.push(item);
        object.set_at(path, list);
    };
    let list = |text: &str| -> Vec<String> { text.split(',').map(|word| word.replace("\"\"", "")).collect() };
    match words {
        ["label", key] => object.set_at(&["metadata", "labels", key], "true"),
        ["gather", key] => {
            push(object, &["aggregationRule", "clusterRoleSelectors"], json!({"matchLabels": {*key: "true"}}));
        }
        ["allow", verbs, groups, resources, names @ ..] => {
            let rule = Rule {
                verbs: list(verbs),
                api_groups: list(groups),
                resources: list(resources),
                resource_names: names.first().map(|names| list(names)).unwrap_or_default(),
                ..Rule::default()
            };
            push(object, &["rules"], json!(rule));
        }
        ["urls", verbs, urls] => {
            let rule = Rule { verbs: list(verbs), non_resource_urls: list(urls), ..Rule::default() };
            push(object, &["rules"], json!(rule));
        }
        ["to", kind, name] => object.set("roleRef", json!({"apiGroup": GROUP, "kind": kind, "name": name})),
        ["group", name] => push(object, &["subjects"], json!({"kind": "Group", "apiGroup": GROUP, "name": name})),
        ["user", name] => push(object, &["subjects"], json!({"kind": "User", "apiGroup": GROUP, "name": name})),
        ["serviceaccount", name, home] => {
            push(object, &["subjects"], json!({"kind": "ServiceAccount", "name": name, "namespace": home}));
        }
        _ => panic!("no such line in the table: {words:?}"),
    }
}
