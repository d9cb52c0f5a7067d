//! Type, manifest and upstream's definition say the same.
//!
//! `UPDATE=1 cargo test -p agent-sandbox-sdk --test it manifest` rewrites the manifests from the types.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use agent_sandbox_sdk::{crds, v1alpha1, v1beta1};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::our_definitions;

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// `shared/upstream` beside the workspace or further up.
fn upstream() -> Option<PathBuf> {
    workspace().ancestors().skip(1).map(|dir| dir.join("shared/upstream")).find(|dir| dir.is_dir())
}

/// `sandboxes.agents.x-k8s.io` lives in `agents.x-k8s.io_sandboxes.yaml`.
fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// The definition as JSON: keys sorted, whole numbers without a fraction (k8s-openapi has bounds as floats).
fn json(crd: &CustomResourceDefinition) -> Value {
    fn whole(value: &mut Value) {
        match value {
            Value::Number(number) => {
                if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && number.is_f64()) {
                    *value = json!(float as i64);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(whole),
            Value::Object(fields) => fields.values_mut().for_each(whole),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::to_value(crd).expect("a definition is JSON");
    value.as_object_mut().expect("an object").remove("status");
    whole(&mut value);
    value
}

fn yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let body = serde_saphyr::to_string_with_options(value, options).expect("JSON is YAML");
    format!("# Made from the types in sdk/src by sdk/tests/it/crd_parity.rs, which says how to make it anew.\n{body}")
}

#[test]
fn every_manifest_is_what_the_types_say() {
    let dir = workspace().join("manifests/crds");
    for crd in our_definitions() {
        let path = dir.join(file_name(&crd));
        let value = json(&crd);
        let wanted = yaml(&value);
        if std::env::var_os("UPDATE").is_some_and(|update| update == "1") {
            fs::create_dir_all(&dir).expect("a folder for the manifests");
            fs::write(&path, &wanted).expect("the manifest can be written");
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        if let Some((at, (found, wanted))) =
            found.lines().zip(wanted.lines()).enumerate().find(|(_, (found, wanted))| found != wanted)
        {
            panic!("{}:{}: is `{found}`, should be `{wanted}`; run with UPDATE=1", path.display(), at + 1);
        }
        assert_eq!(found.len(), wanted.len(), "{} ends too early or too late; run with UPDATE=1", path.display());
        let read: Value = serde_saphyr::from_str(&found).expect("the manifest is YAML");
        assert_eq!(read, value, "reading the manifest gives the value that was written");
    }
}

#[test]
fn the_derived_definitions_differ_only_in_how_they_spell_int_or_string() {
    for (crd, derived) in [
        (crds::sandbox(), [v1beta1::Sandbox::crd(), v1alpha1::Sandbox::crd()]),
        (crds::sandbox_template(), [v1beta1::SandboxTemplate::crd(), v1alpha1::SandboxTemplate::crd()]),
        (crds::sandbox_warm_pool(), [v1beta1::SandboxWarmPool::crd(), v1alpha1::SandboxWarmPool::crd()]),
        (crds::sandbox_claim(), [v1beta1::SandboxClaim::crd(), v1alpha1::SandboxClaim::crd()]),
    ] {
        for derived in derived {
            let name = &derived.spec.versions[0].name;
            let mut ours = flat(&version(&json(&crd), name));
            let mut derived = flat(&version(&json(&derived), name));
            derived.remove("/schema/openAPIV3Schema/title").expect("schemars titles the root");
            derived.retain(|path, _| !path.ends_with("/nullable"));
            ours.retain(|path, _| !path.ends_with("/anyOf"));
            assert_eq!(differences(&derived, &ours), Vec::<String>::new());
        }
    }
}

#[test]
fn the_schema_is_structural() {
    fn check(schema: &Value, path: &str) {
        let node = schema.as_object().unwrap_or_else(|| panic!("{path}: a schema is an object"));
        for banned in ["$ref", "$defs", "definitions", "oneOf", "allOf", "not", "title", "nullable", "examples"] {
            assert!(!node.contains_key(banned), "{path}: {banned}");
        }
        if node.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
            assert!(!node.contains_key("type"), "{path}: int-or-string has no type");
            assert_eq!(node["anyOf"], json!([{"type": "integer"}, {"type": "string"}]), "{path}");
        } else {
            assert!(node.get("type").is_some_and(Value::is_string), "{path}: one type");
            assert!(!node.contains_key("anyOf"), "{path}: anyOf");
        }
        if let Some(format) = node.get("format") {
            let known = ["int32", "int64", "double", "date-time"];
            assert!(known.iter().any(|known| format == known), "{path}: format {format}");
        }
        if node.get("x-kubernetes-list-type") == Some(&json!("map")) {
            let items = &node["items"];
            for key in node["x-kubernetes-list-map-keys"].as_array().expect("a map list has keys") {
                let key = key.as_str().expect("a key is a text");
                let required = items["required"].as_array().is_some_and(|required| required.iter().any(|r| r == key));
                let defaulted = items["properties"][key].get("default").is_some();
                assert!(required || defaulted, "{path}: key {key} is neither required nor defaulted");
            }
        }
        for (name, property) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
            check(property, &format!("{path}.{name}"));
        }
        for child in ["items", "additionalProperties"] {
            if let Some(child_schema) = node.get(child) {
                check(child_schema, &format!("{path}.{child}"));
            }
        }
    }
    for crd in our_definitions() {
        let crd = json(&crd);
        for version in crd["spec"]["versions"].as_array().expect("versions") {
            check(&version["schema"]["openAPIV3Schema"], "");
        }
    }
}

/// Kubernetes' texts would make up nine tenths of the file.
#[test]
fn only_our_own_fields_have_descriptions() {
    fn described(schema: &Value, path: &str, into: &mut Vec<String>) {
        if schema.get("description").is_some() {
            into.push(path.to_owned());
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            described(property, &format!("{path}.{name}"), into);
        }
        for child in ["items", "additionalProperties"] {
            if let Some(schema) = schema.get(child) {
                described(schema, path, into);
            }
        }
    }
    let crd = json(&crds::sandbox());
    let mut paths = Vec::new();
    described(&version(&crd, "v1beta1")["schema"]["openAPIV3Schema"], "", &mut paths);
    let foreign = [".spec.podTemplate.spec.", ".spec.volumeClaimTemplates.spec.", ".status.conditions."];
    for path in &paths {
        assert!(!foreign.iter().any(|foreign| path.starts_with(foreign)), "{path} has a text that is not ours");
    }
    for ours in
        [".spec.podTemplate", ".spec.shutdownTime", ".spec.volumeClaimTemplates.metadata.name", ".status.podIPs"]
    {
        assert!(paths.iter().any(|path| path == ours), "{ours} has no text");
    }
}

#[test]
fn our_definition_says_what_upstreams_does() {
    let Some(upstream) = upstream() else {
        eprintln!("not checked: no folder shared/upstream beside or above the workspace");
        return;
    };
    let mut found = Vec::new();
    for crd in our_definitions() {
        let path = upstream.join("crds").join(file_name(&crd));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let theirs: Value = serde_saphyr::from_str(&text).expect("upstream's definition is YAML");
        let ours = json(&crd);
        for part in ["group", "scope", "names", "conversion"] {
            found.extend(differences(&flat(&theirs["spec"][part]), &flat(&ours["spec"][part])));
        }
        for name in crd.spec.versions.iter().map(|version| &version.name) {
            let theirs = flat(&version(&theirs, name));
            let ours = flat(&version(&ours, name));
            assert!(theirs.len() > 20, "only {} facts in {}", theirs.len(), path.display());
            found.extend(differences(&theirs, &ours));
        }
    }
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

fn version(crd: &Value, name: &str) -> Value {
    let versions = crd["spec"]["versions"].as_array().expect("versions");
    versions.iter().find(|version| version["name"] == name).unwrap_or_else(|| panic!("no version {name}")).clone()
}

/// Every leaf of the tree, and every empty object, by its path; but the texts for people, and with sets in order.
fn flat(value: &Value) -> BTreeMap<String, Value> {
    fn walk(value: &Value, path: String, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, field) in fields {
                    // A property may be called `description`; a keyword of that name holds a text.
                    if name != "description" || !field.is_string() {
                        walk(field, format!("{path}/{name}"), into);
                    }
                }
            }
            Value::Array(items) if path.ends_with("/required") => {
                let mut items = items.clone();
                items.sort_by_key(Value::to_string);
                into.insert(path, Value::Array(items));
            }
            other => {
                into.insert(path, other.clone());
            }
        }
    }
    let mut leaves = BTreeMap::new();
    walk(value, String::new(), &mut leaves);
    leaves
}

fn differences(theirs: &BTreeMap<String, Value>, ours: &BTreeMap<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (path, wanted) in theirs {
        match ours.get(path) {
            None => found.push(format!("missing: {path} = {wanted}")),
            Some(got) if got != wanted => found.push(format!("differs: {path} is {got}, upstream has {wanted}")),
            Some(_) => {}
        }
    }
    found.extend(ours.iter().filter(|(path, _)| !theirs.contains_key(*path)).map(|(p, v)| format!("extra: {p} = {v}")));
    found
}
