//! OpenAPI: the schemas of the kinds as documents, one for each group and version. As much as kubectl reads: the
//! schemas, and for each path the kind and the parameters of its operations.
//!
//! Upstream: `k8s.io/kube-openapi/pkg/handler3` and `builder3`.

mod v2;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{hash, prefix};
use crate::{
    registry::{Catalog, Resource},
    schema::{Checks, ListType, Node, Type},
};

/// Name of the schema of every object's metadata.
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The documents of one catalog, made when asked for and kept until the catalog changes.
#[derive(Debug, Default)]
pub struct OpenApi(Mutex<Option<Made>>);

#[derive(Debug)]
struct Made {
    catalog: Arc<Catalog>,
    /// By group and version; that of v2 has neither.
    documents: BTreeMap<Option<(String, String)>, (String, Bytes)>,
}

impl OpenApi {
    /// `/openapi/v3`: where each document is.
    pub fn index(&self, catalog: &Arc<Catalog>) -> Value {
        let mut paths = Map::new();
        for group in catalog.groups() {
            for version in &group.versions {
                let path = prefix(&group.name, version);
                // A built-in document never changes; a custom one does with its definition.
                let custom = catalog.of(&group.name, version).any(|resource| resource.custom.is_some());
                let made = custom.then(|| self.document(catalog, &group.name, version)).flatten();
                let hash = made.map_or_else(|| hash(path.as_bytes()), |(hash, _)| hash);
                let key = path.trim_start_matches('/').to_owned();
                paths.insert(key, json!({"serverRelativeURL": format!("/openapi/v3{path}?hash={hash}")}));
            }
        }
        json!({"paths": paths})
    }

    /// The document of a group and version, with its hash; `None` if nothing is served there.
    pub fn document(&self, catalog: &Arc<Catalog>, group: &str, version: &str) -> Option<(String, Bytes)> {
        let key = Some((group.to_owned(), version.to_owned()));
        self.kept(catalog, key, || document(catalog, group, version))
    }

    /// The OpenAPI v2 document, with its hash.
    pub fn v2(&self, catalog: &Arc<Catalog>) -> Option<(String, Bytes)> {
        self.kept(catalog, None, || Some(v2::document(catalog)))
    }

    /// A document that was made before of the same catalog, or is made now.
    fn kept(
        &self,
        catalog: &Arc<Catalog>,
        key: Option<(String, String)>,
        make: impl FnOnce() -> Option<Value>,
    ) -> Option<(String, Bytes)> {
        {
            let made = self.0.lock().expect("no panic under this lock");
            let same = made.as_ref().filter(|made| Arc::ptr_eq(&made.catalog, catalog));
            if let Some(found) = same.and_then(|made| made.documents.get(&key)) {
                return Some(found.clone());
            }
        }
        let json = Bytes::from(make()?.to_string());
        let found = (hash(&json), json);
        let mut made = self.0.lock().expect("no panic under this lock");
        match made.as_mut().filter(|made| Arc::ptr_eq(&made.catalog, catalog)) {
            Some(made) => drop(made.documents.insert(key, found.clone())),
            None => {
                let documents = BTreeMap::from([(key, found.clone())]);
                *made = Some(Made { catalog: catalog.clone(), documents });
            }
        }
        Some(found)
    }
}

fn document(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for resource in catalog.of(group, version) {
        let schema = resource.schema();
        if schema.root.definition.is_empty() {
            schemas.custom(resource, &schema.root);
        } else {
            schemas.define(&schema.root);
            if let Some(Value::Object(made)) = schemas.done.get_mut(&schema.root.definition) {
                made.insert(GVK.into(), json!([gvk(resource)]));
            }
        }
        operations(&mut paths, resource);
    }
    if paths.is_empty() {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": super::GIT_VERSION},
        "paths": paths,
        "components": {"schemas": schemas.done},
    }))
}

const GVK: &str = "x-kubernetes-group-version-kind";

fn gvk(resource: &Resource) -> Value {
    json!({"group": resource.gvr.group, "version": resource.gvr.version, "kind": resource.kind})
}

/// The paths of a resource.
fn operations(paths: &mut Map<String, Value>, resource: &Resource) {
    let prefix = prefix(&resource.gvr.group, &resource.gvr.version);
    let plural = &resource.gvr.resource;
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = [("get", "list"), ("post", "create"), ("delete", "deletecollection")];
    let object = [("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")];
    put(paths, format!("{prefix}{place}/{plural}"), resource, &collection);
    put(paths, format!("{prefix}{place}/{plural}/{{name}}"), resource, &object);
    if resource.namespaced {
        put(paths, format!("{prefix}/{plural}"), resource, &[("get", "list")]);
    }
}

fn put(paths: &mut Map<String, Value>, path: String, resource: &Resource, verbs: &[(&str, &str)]) {
    let mut item = Map::new();
    for (method, verb) in verbs {
        if !resource.serves("", verb) {
            continue;
        }
        let mut operation = json!({GVK: gvk(resource), "x-kubernetes-action": action(verb), "responses": {}});
        let parameters: &[&str] = match *verb {
            "create" | "update" => &["dryRun", "fieldManager", "fieldValidation"],
            "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
            "delete" => &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"],
            "list" => &[
                "allowWatchBookmarks",
                "continue",
                "fieldSelector",
                "labelSelector",
                "limit",
                "resourceVersion",
                "resourceVersionMatch",
                "sendInitialEvents",
                "timeoutSeconds",
                "watch",
            ],
            _ => &[],
        };
        operation["parameters"] = parameters.iter().map(|name| parameter(name)).collect();
        if *verb == "patch" {
            let mut types =
                vec!["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];
            if resource.custom.is_none() {
                types.push("application/strategic-merge-patch+json");
            }
            let content: Map<String, Value> = types.into_iter().map(|name| (name.into(), json!({}))).collect();
            operation["requestBody"] = json!({"content": content});
        }
        item.insert((*method).into(), operation);
    }
    if !item.is_empty() {
        paths.insert(path, item.into());
    }
}

fn parameter(name: &str) -> Value {
    let kind = match name {
        "force" | "watch" | "allowWatchBookmarks" | "sendInitialEvents" | "orphanDependents" => "boolean",
        "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        verb => verb,
    }
}

/// The schemas of one document.
#[derive(Default)]
struct Schemas {
    done: Map<String, Value>,
}

impl Schemas {
    /// Adds a built-in definition and all that it names.
    fn define(&mut self, node: &Node) {
        if self.done.contains_key(&node.definition) {
            return;
        }
        self.done.insert(node.definition.clone(), Value::Null); // a definition may name itself
        // What was found is a member that refers to it, with a text of its own.
        let schema = crate::schema::Schema::builtin(&node.definition);
        let body = self.body(&schema.root);
        self.done.insert(node.definition.clone(), body);
    }

    /// Adds a custom kind, which names nothing but the common metadata.
    fn custom(&mut self, resource: &Resource, root: &Node) {
        let mut body = self.body(root);
        let meta = crate::schema::Schema::builtin(OBJECT_META);
        self.define(&meta.root);
        body["properties"]["apiVersion"] = json!({"type": "string", "description": API_VERSION});
        body["properties"]["kind"] = json!({"type": "string", "description": KIND});
        body["properties"]["metadata"] = reference(OBJECT_META, "Standard object's metadata.");
        body[GVK] = json!([gvk(resource)]);
        let mut name: Vec<&str> = resource.gvr.group.split('.').rev().collect();
        name.extend([resource.gvr.version.as_str(), resource.kind.as_str()]);
        self.done.insert(name.join("."), body);
    }

    /// A value: a reference where it has a name of its own.
    fn value(&mut self, node: &Node) -> Value {
        if node.definition.is_empty() {
            return self.body(node);
        }
        self.define(node);
        reference(&node.definition, &node.description)
    }

    fn body(&mut self, node: &Node) -> Value {
        let mut body = Map::new();
        if !node.description.is_empty() {
            body.insert("description".into(), node.description.clone().into());
        }
        if node.int_or_string {
            if node.definition.is_empty() {
                body.insert("x-kubernetes-int-or-string".into(), true.into());
            } else {
                body.insert("format".into(), "int-or-string".into());
                body.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
            }
        } else if let Some(kind) = node.kind {
            body.insert("type".into(), type_name(kind).into());
        }
        if !node.format.is_empty() && !node.int_or_string {
            body.insert("format".into(), node.format.clone().into());
        }
        if let Some(default) = &node.default {
            body.insert("default".into(), default.clone());
        }
        if node.nullable {
            body.insert("nullable".into(), true.into());
        }
        if !node.properties.is_empty() {
            let properties: Map<String, Value> =
                node.properties.iter().map(|(name, node)| (name.clone(), self.value(node))).collect();
            body.insert("properties".into(), properties.into());
        }
        // The crate that the schemas come from requires every kind's metadata; upstream does so of events alone.
        let required =
            |name: &&String| *name != "metadata" || node.definition.is_empty() || node.definition.ends_with(".Event");
        let required: Vec<&String> = node.required.iter().filter(required).collect();
        if !required.is_empty() {
            body.insert("required".into(), json!(required));
        }
        for (key, child) in [("items", &node.items), ("additionalProperties", &node.additional)] {
            let Some(child) = child else { continue };
            let mut child = self.value(child);
            if child.get("allOf").is_some() {
                child.as_object_mut().map(|child| child.remove("description")); // what it refers to says it
            }
            body.insert(key.into(), child);
        }
        if let Some(checks) = &node.checks {
            bounds(&mut body, checks);
        }
        extensions(&mut body, node);
        body.into()
    }
}

/// What values are allowed: clients show it, and check by it before they send.
fn bounds(body: &mut Map<String, Value>, checks: &Checks) {
    if !checks.allowed.is_empty() {
        body.insert("enum".into(), checks.allowed.clone().into());
    }
    if let Some((pattern, _)) = &checks.pattern {
        body.insert("pattern".into(), pattern.clone().into());
    }
    for (key, bound) in [("minimum", checks.minimum), ("maximum", checks.maximum), ("multipleOf", checks.multiple_of)] {
        if let Some(bound) = bound {
            // Whole numbers stay whole: kubectl shows them as they are written.
            let whole = bound.fract() == 0.0 && bound.abs() < 9e15;
            body.insert(key.into(), if whole { (bound as i64).into() } else { bound.into() });
        }
    }
    let counts = [
        ("minLength", checks.min_length),
        ("maxLength", checks.max_length),
        ("minItems", checks.min_items),
        ("maxItems", checks.max_items),
        ("minProperties", checks.min_properties),
        ("maxProperties", checks.max_properties),
    ];
    for (key, count) in counts {
        if let Some(count) = count {
            body.insert(key.into(), count.into());
        }
    }
    let flags = [
        ("exclusiveMinimum", checks.exclusive_minimum),
        ("exclusiveMaximum", checks.exclusive_maximum),
        ("uniqueItems", checks.unique_items),
    ];
    for (key, _) in flags.into_iter().filter(|(_, set)| *set) {
        body.insert(key.into(), true.into());
    }
}

fn extensions(body: &mut Map<String, Value>, node: &Node) {
    if node.preserve_unknown {
        body.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
    }
    if node.embedded {
        body.insert("x-kubernetes-embedded-resource".into(), true.into());
    }
    if node.kind == Some(Type::Array) {
        match &node.list_type {
            ListType::Atomic => drop(body.insert("x-kubernetes-list-type".into(), "atomic".into())),
            ListType::Set => drop(body.insert("x-kubernetes-list-type".into(), "set".into())),
            ListType::Map(keys) => {
                body.insert("x-kubernetes-list-type".into(), "map".into());
                body.insert("x-kubernetes-list-map-keys".into(), keys.clone().into());
            }
        }
    }
    if node.map_atomic {
        body.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some(key) = &node.merge_key {
        body.insert("x-kubernetes-patch-merge-key".into(), key.clone().into());
    }
    let strategy = match (node.patch_merge, node.retain_keys) {
        (true, true) => "merge,retainKeys",
        (true, false) => "merge",
        (false, true) => "retainKeys",
        (false, false) => return,
    };
    body.insert("x-kubernetes-patch-strategy".into(), strategy.into());
}

/// A reference with a text of its own: beside a plain `$ref` no other member counts.
fn reference(definition: &str, description: &str) -> Value {
    json!({
        "allOf": [{"$ref": format!("#/components/schemas/{definition}")}],
        "default": {},
        "description": description,
    })
}

fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Object => "object",
        Type::Array => "array",
        Type::String => "string",
        Type::Integer => "integer",
        Type::Number => "number",
        Type::Boolean => "boolean",
    }
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";

const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
