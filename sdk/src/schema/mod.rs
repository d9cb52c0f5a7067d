//! From Rust types to a structural schema that an API server takes.
//!
//! schemars describes what serde reads; a CustomResourceDefinition needs a structural schema: no references, no null
//! types, one type per node, and the `x-kubernetes-*` facts. This room does that rewriting and knows nothing of any
//! kind. The texts of Kubernetes' own types are dropped (they would make up nine tenths of the file); ours stay.

pub(crate) mod facts;
mod lists;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use self::{
    facts::{CONDITION_BOUNDS, DEFAULTS, QUANTITY_PATTERN},
    lists::{MERGES, Merge},
};

/// Declares the schema that a kind's CustomResourceDefinition publishes, so that its `crd()` carries it.
macro_rules! publish {
    ($kind:ty, $spec:ty, $text:expr) => {
        $crate::schema::publish!(@ $kind, $crate::schema::of_kind::<$spec>($text));
    };
    ($kind:ty, $spec:ty, $status:ty, $text:expr) => {
        $crate::schema::publish!(@ $kind, $crate::schema::with_status::<$status>($crate::schema::of_kind::<$spec>($text)));
    };
    (@ $kind:ty, $schema:expr) => {
        impl schemars::JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::Schema::try_from($schema).expect("an object is a schema")
            }
        }
    };
}
pub(crate) use publish;

/// The schema of a kind with this spec.
///
/// Its int-or-string nodes lack the `anyOf` that [`exact`] adds.
pub(crate) fn of_kind<Spec: JsonSchema>(description: &str) -> Value {
    json!({
        "description": description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": structural::<Spec>(),
        },
    })
}

/// The schema of a kind, with this status.
pub(crate) fn with_status<Status: JsonSchema>(mut kind: Value) -> Value {
    kind["properties"]["status"] = structural::<Status>();
    kind
}

/// Undoes what kube-rs' own rewriting leaves behind, and adds to each int-or-string node the `anyOf` of both types that
/// Kubernetes' own generator writes.
pub(crate) fn exact(schema: &mut Value) {
    if let Some(node) = schema.as_object_mut() {
        node.remove("title");
        node.remove("nullable");
        if node.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
            node.insert("anyOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
    }
    for child in subschemas(schema) {
        exact(child);
    }
}

/// The schemas one level below this one.
fn subschemas(schema: &mut Value) -> Vec<&mut Value> {
    let Some(node) = schema.as_object_mut() else { return Vec::new() };
    let mut children = Vec::new();
    for (key, value) in node {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => children.extend(properties.values_mut()),
            ("items" | "additionalProperties", value @ Value::Object(_)) => children.push(value),
            _ => {}
        }
    }
    children
}

fn structural<T: JsonSchema>() -> Value {
    let generator = SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None).into_generator();
    let mut root = generator.into_root_schema_for::<T>().to_value();
    let definitions = match root.as_object_mut().and_then(|root| root.remove("$defs")) {
        Some(Value::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    Inliner { definitions }.resolve(root, Origin::Ours)
}

/// Where a schema comes from: our types, whose texts stay, or one of Kubernetes' definitions (`core.v1.PodSpec`).
#[derive(Clone, Copy)]
enum Origin<'a> {
    Ours,
    Kubernetes(&'a str),
}

struct Inliner {
    definitions: Map<String, Value>,
}

impl Inliner {
    /// `schema` without references and null types, with the facts of its definition added.
    fn resolve(&self, schema: Value, origin: Origin<'_>) -> Value {
        let Value::Object(mut node) = schema else { return schema };
        if let Some(Value::String(text)) = node.get_mut("description") {
            // Examples in Rust are for who reads this crate.
            let words = text.split("# Examples").next().unwrap_or_default().split_whitespace();
            *text = words.collect::<Vec<_>>().join(" ");
        }
        // An optional field of a referenced type is written as "that type or null".
        if let Some(Value::Array(choices)) = node.remove("anyOf") {
            let mut choices: Vec<_> = choices.into_iter().filter(|c| c["type"] != "null").collect();
            assert_eq!(choices.len(), 1, "a choice of types is not structural: {choices:?}");
            return self.resolve(overlay(choices.remove(0), node), origin);
        }
        if let Some(Value::String(reference)) = node.remove("$ref") {
            if let Origin::Kubernetes(_) = origin {
                node.remove("description");
            }
            let name = reference.trim_start_matches("#/$defs/");
            let target = self.definitions.get(name).expect("schemars defines what it refers to").clone();
            return match definition_name(name) {
                None => self.resolve(overlay(target, node), Origin::Ours),
                Some(definition) => overlay(self.definition(target, &definition), node),
            };
        }
        node.remove("title");
        node.remove("nullable");
        if let Some(Value::Array(values)) = node.get_mut("enum") {
            values.retain(|value| !value.is_null());
        }
        if let Some(Value::Array(types)) = node.get_mut("type") {
            types.retain(|t| t != "null");
            assert_eq!(types.len(), 1, "one type per node: {types:?}");
            let only = types.remove(0);
            node.insert("type".into(), only);
        }
        // What serde fills in for an absent field is the type's business, not the API's.
        if node.get("default").is_some_and(is_empty) {
            node.remove("default");
        }
        let mut defaulted = Vec::new();
        if let Some(Value::Object(properties)) = node.get_mut("properties") {
            for (name, property) in properties {
                *property = self.resolve(property.take(), origin);
                if let Origin::Kubernetes(definition) = origin {
                    add_facts(property, definition, name);
                    if property.get("default").is_some() {
                        defaulted.push(name.clone());
                    }
                }
            }
        }
        // k8s-openapi has no null for a field with a default and calls it required; a client may leave it out.
        if let Some(Value::Array(required)) = node.get_mut("required") {
            required.retain(|name| !defaulted.iter().any(|defaulted| name == defaulted));
            if required.is_empty() {
                node.remove("required");
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(child) = node.get_mut(key) {
                *child = self.resolve(child.take(), origin);
            }
        }
        if let Origin::Kubernetes(_) = origin {
            node.remove("description");
        }
        Value::Object(node)
    }

    fn definition(&self, target: Value, definition: &str) -> Value {
        match definition {
            // A template's metadata is free-form for the schema; the API server validates it where it is used.
            "meta.v1.ObjectMeta" => json!({"type": "object"}),
            "api.resource.Quantity" => json!({"pattern": QUANTITY_PATTERN, "x-kubernetes-int-or-string": true}),
            _ => {
                let mut schema = self.resolve(target, Origin::Kubernetes(definition));
                add_facts(&mut schema, definition, "");
                schema
            }
        }
    }
}

/// `io.k8s.api.core.v1.PodSpec` → `core.v1.PodSpec`; `None` for a type of ours.
fn definition_name(name: &str) -> Option<String> {
    let name = name.strip_prefix("io.k8s.")?;
    for (long, short) in [("api.core.", "core."), ("apimachinery.pkg.apis.", ""), ("apimachinery.pkg.", "")] {
        if let Some(rest) = name.strip_prefix(long) {
            return Some(format!("{short}{rest}"));
        }
    }
    Some(name.to_owned())
}

/// Adds what the tables know of a field, or, with an empty field, of the definition itself.
fn add_facts(schema: &mut Value, definition: &str, field: &str) {
    let Some(node) = schema.as_object_mut() else { return };
    if let Ok(at) = MERGES.binary_search_by_key(&(definition, field), |(definition, field, _)| (definition, field)) {
        let (list_type, keys) = match MERGES[at].2 {
            Merge::AtomicMap => {
                node.insert("x-kubernetes-map-type".into(), "atomic".into());
                return;
            }
            Merge::Atomic => ("atomic", None),
            Merge::Set => ("set", None),
            Merge::Map(keys) => ("map", Some(keys)),
        };
        node.insert("x-kubernetes-list-type".into(), list_type.into());
        if let Some(keys) = keys {
            node.insert("x-kubernetes-list-map-keys".into(), json!(keys));
        }
    }
    for (.., default) in DEFAULTS.iter().filter(|(d, f, _)| (*d, *f) == (definition, field)) {
        node.insert("default".into(), default.value());
    }
    if definition == "meta.v1.Condition" {
        for (.., keyword, bound) in CONDITION_BOUNDS.iter().filter(|(f, ..)| *f == field) {
            node.insert((*keyword).into(), bound.value());
        }
    }
}

/// `schema` with the keywords of `over` on top.
fn overlay(schema: Value, over: Map<String, Value>) -> Value {
    let Value::Object(mut node) = schema else { return schema };
    node.extend(over);
    Value::Object(node)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_merge_table_is_sorted_and_names_each_field_once() {
        assert!(MERGES.is_sorted_by_key(|(definition, field, _)| (*definition, *field)));
        for pair in MERGES.windows(2) {
            assert_ne!((pair[0].0, pair[0].1), (pair[1].0, pair[1].1));
        }
    }

    /// A row for a field that the types no longer have would be dead weight, or a typing error.
    #[test]
    fn every_fact_lands_somewhere() {
        use k8s_openapi::{
            api::{core::v1 as core, networking::v1 as networking},
            apimachinery::pkg::apis::meta::v1::Condition,
        };

        #[derive(JsonSchema)]
        #[expect(dead_code, reason = "only its schema is of interest")]
        struct Everything {
            pod: core::PodSpec,
            claim: core::PersistentVolumeClaimSpec,
            condition: Condition,
            ingress: networking::NetworkPolicyIngressRule,
            egress: networking::NetworkPolicyEgressRule,
        }
        let root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Everything>().to_value();
        let definitions: std::collections::BTreeMap<String, &Value> = root["$defs"]
            .as_object()
            .expect("definitions")
            .iter()
            .filter_map(|(name, schema)| Some((definition_name(name)?, schema)))
            .collect();
        let lists = MERGES.iter().map(|(definition, field, _)| (*definition, *field));
        let defaults = DEFAULTS.iter().map(|(definition, field, _)| (*definition, *field));
        let bounds = CONDITION_BOUNDS.iter().map(|(field, ..)| ("meta.v1.Condition", *field));
        for (definition, field) in lists.chain(defaults).chain(bounds) {
            let schema = definitions.get(definition).unwrap_or_else(|| panic!("no definition {definition}"));
            assert!(field.is_empty() || schema["properties"].get(field).is_some(), "{definition} has no {field}");
        }
    }
}
