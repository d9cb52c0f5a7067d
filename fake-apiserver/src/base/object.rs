//! [`Object`]: a Kubernetes object as a JSON map with typed access to its metadata.

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::{BufMut, Bytes, BytesMut};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// A Kubernetes object: any kind, any version.
///
/// Reading never fails: what is absent or of another type reads as empty. The schema, not this type, says what is allowed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Object(Value); // always a map

impl Default for Object {
    fn default() -> Self {
        Self(Value::Object(Map::new()))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Map::deserialize(deserializer).map(|map| Self(Value::Object(map)))
    }
}

/// Converts objects of one kind to an `apiVersion`, or says why not: what a ConversionReview asks. The answer has as many
/// objects, in the same order. Of their metadata only labels and annotations may differ.
pub type Converter = fn(Vec<Object>, &str) -> Result<Vec<Object>, String>;

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// Group and version of the owner, `v1` for the core group.
    pub api_version: String,
    /// Kind of the owner.
    pub kind: String,
    /// Name of the owner, in the same namespace unless the owner is cluster-scoped.
    pub name: String,
    /// UID of the owner; this decides, not the name.
    pub uid: String,
    /// Whether the owner manages the object; at most one does.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub controller: bool,
    /// Whether a foreground deletion of the owner waits for this object.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub block_owner_deletion: bool,
}

impl Object {
    /// An object with type and name, and nothing else. An empty namespace makes it cluster-scoped.
    pub fn new(api_version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let mut object = Self::default();
        object.set("apiVersion", api_version);
        object.set("kind", kind);
        object.metadata_mut().insert("name".into(), name.into());
        if !namespace.is_empty() {
            object.metadata_mut().insert("namespace".into(), namespace.into());
        }
        object
    }

    /// The object in a JSON value; `None` where the value is no map.
    pub fn from_value(value: Value) -> Option<Self> {
        value.is_object().then_some(Self(value))
    }

    /// The object as a JSON value.
    pub fn into_value(self) -> Value {
        self.0
    }

    /// The object as a JSON value.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// A copy as a JSON value.
    pub fn to_value(&self) -> Value {
        self.0.clone()
    }

    /// The members.
    pub fn as_map(&self) -> &Map<String, Value> {
        match &self.0 {
            Value::Object(map) => map,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                unreachable!("an object is a map")
            }
        }
    }

    /// The members, to change.
    pub fn as_map_mut(&mut self) -> &mut Map<String, Value> {
        match &mut self.0 {
            Value::Object(map) => map,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                unreachable!("an object is a map")
            }
        }
    }

    /// A top-level member.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_map().get(key)
    }

    /// Sets a top-level member.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.as_map_mut().insert(key.into(), value.into());
    }

    /// Removes a top-level member.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.as_map_mut().remove(key)
    }

    /// What stands at a path of member names, or `None`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.get(first)?, |value, key| value.get(key))
    }

    /// The text at a path, or `""`.
    pub fn str_at(&self, path: &[&str]) -> &str {
        self.at(path).and_then(Value::as_str).unwrap_or_default()
    }

    /// Sets what stands at a path, making the maps on the way.
    ///
    /// # Panics
    /// If the path is empty.
    pub fn set_at(&mut self, path: &[&str], value: impl Into<Value>) {
        let (last, parents) = path.split_last().expect("set_at needs a path");
        let mut map = self.as_map_mut();
        for key in parents {
            map = child_map(map, key);
        }
        map.insert((*last).into(), value.into());
    }

    /// Removes what stands at a path.
    pub fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut map = self.as_map_mut();
        for key in parents {
            map = map.get_mut(*key)?.as_object_mut()?;
        }
        map.remove(*last)
    }

    /// `apiVersion`.
    pub fn api_version(&self) -> &str {
        self.str_at(&["apiVersion"])
    }

    /// `kind`.
    pub fn kind(&self) -> &str {
        self.str_at(&["kind"])
    }

    /// `metadata`, if it is a map.
    pub fn metadata(&self) -> Option<&Map<String, Value>> {
        self.get("metadata").and_then(Value::as_object)
    }

    /// `metadata`, made if it is not there.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        child_map(self.as_map_mut(), "metadata")
    }

    fn meta(&self, key: &str) -> &str {
        self.str_at(&["metadata", key])
    }

    /// `metadata.name`.
    pub fn name(&self) -> &str {
        self.meta("name")
    }

    /// `metadata.generateName`.
    pub fn generate_name(&self) -> &str {
        self.meta("generateName")
    }

    /// `metadata.namespace`, `""` for a cluster-scoped object.
    pub fn namespace(&self) -> &str {
        self.meta("namespace")
    }

    /// `metadata.uid`.
    pub fn uid(&self) -> &str {
        self.meta("uid")
    }

    /// `metadata.resourceVersion` as written, `""` if absent.
    pub fn resource_version(&self) -> &str {
        self.meta("resourceVersion")
    }

    /// `metadata.generation`, 0 if absent.
    pub fn generation(&self) -> i64 {
        self.at(&["metadata", "generation"]).and_then(Value::as_i64).unwrap_or_default()
    }

    /// `metadata.deletionTimestamp`, if it is set.
    pub fn deletion_timestamp(&self) -> Option<Timestamp> {
        self.time_at(&["metadata", "deletionTimestamp"])
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_deleting(&self) -> bool {
        !self.meta("deletionTimestamp").is_empty()
    }

    /// `metadata.creationTimestamp`, if it is set.
    pub fn creation_timestamp(&self) -> Option<Timestamp> {
        self.time_at(&["metadata", "creationTimestamp"])
    }

    /// The RFC 3339 time at a path.
    pub fn time_at(&self, path: &[&str]) -> Option<Timestamp> {
        self.str_at(path).parse().ok()
    }

    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "labels", key]).and_then(Value::as_str)
    }

    /// All labels.
    pub fn labels(&self) -> BTreeMap<String, String> {
        strings(self.at(&["metadata", "labels"]))
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.at(&["metadata", "annotations", key]).and_then(Value::as_str)
    }

    /// All annotations.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        strings(self.at(&["metadata", "annotations"]))
    }

    /// `metadata.finalizers`.
    pub fn finalizers(&self) -> Vec<&str> {
        let list = self.at(&["metadata", "finalizers"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// Sets `metadata.finalizers`; an empty list removes the member.
    pub fn set_finalizers(&mut self, finalizers: Vec<String>) {
        if finalizers.is_empty() {
            self.metadata_mut().remove("finalizers");
        } else {
            self.metadata_mut().insert("finalizers".into(), finalizers.into());
        }
    }

    /// Writes `metadata.managedFields` as the text of its JSON. As a tree it is the greater part of most objects, and only
    /// who works on ownership looks into it.
    pub fn pack(&mut self) {
        each_at(&mut self.0, &OWNERSHIP, &mut to_text);
    }

    /// As [`Object::pack`], with the schemas of a CustomResourceDefinition: an object at rest.
    fn fold(&mut self) {
        self.pack();
        if self.is_definition() {
            each_at(&mut self.0, &SCHEMAS, &mut to_text);
        }
    }

    /// Undoes [`Object::pack`] and all that [`Stored`] keeps as text: the object as clients know it.
    pub fn unpack(&mut self) {
        each_at(&mut self.0, &OWNERSHIP, &mut to_tree);
        if self.is_definition() {
            each_at(&mut self.0, &SCHEMAS, &mut to_tree);
        }
    }

    fn is_definition(&self) -> bool {
        self.kind() == "CustomResourceDefinition" && self.api_version().starts_with("apiextensions.k8s.io/")
    }

    /// `metadata.ownerReferences`.
    pub fn owner_references(&self) -> Vec<OwnerReference> {
        let list = self.at(&["metadata", "ownerReferences"]).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|v| OwnerReference::deserialize(v).ok()).collect()
    }

    /// The owner reference with `controller: true`.
    pub fn controller(&self) -> Option<OwnerReference> {
        self.owner_references().into_iter().find(|owner| owner.controller)
    }
}

fn child_map<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made a map just above")
        }
    }
}

fn strings(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object);
    map.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect()
}

/// Stands for each item of a list in a path.
const EACH: &str = "*";

/// Where any object says who owns its fields.
const OWNERSHIP: [&str; 2] = ["metadata", "managedFields"];

/// Where the schemas stand in a CustomResourceDefinition. As a tree, a schema takes some twenty times its text, and it is
/// looked into when the definition is written.
const SCHEMAS: [&str; 5] = ["spec", "versions", EACH, "schema", "openAPIV3Schema"];

/// Changes whatever stands at a path.
fn each_at(value: &mut Value, path: &[&str], change: &mut impl FnMut(&mut Value)) {
    match (path, value) {
        ([], value) => change(value),
        ([EACH, rest @ ..], Value::Array(items)) => items.iter_mut().for_each(|item| each_at(item, rest, change)),
        ([key, rest @ ..], Value::Object(map)) => {
            if let Some(value) = map.get_mut(*key) {
                each_at(value, rest, change);
            }
        }
        (_, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {}
    }
}

fn to_text(value: &mut Value) {
    if value.is_object() || value.is_array() {
        *value = Value::String(value.to_string().into_boxed_str().into_string());
    }
}

fn to_tree(value: &mut Value) {
    if let Value::String(text) = value
        && let Ok(tree) = serde_json::from_str(text)
    {
        *value = tree;
    }
}

/// An object as the store keeps it: never changed again, so that its JSON text can be made once and shared, and with its
/// bulky parts as text: [packed](Object::pack), and the schemas of a definition as well.
#[derive(Debug)]
pub struct Stored {
    object: Object,
    text: OnceLock<Text>,
}

/// The JSON text of an object.
#[derive(Debug)]
struct Text {
    whole: Bytes,
    /// Where the members after `kind` and `apiVersion` begin: the items of a built-in kind's list have those alone.
    item: usize,
}

impl Stored {
    /// Freezes an object.
    pub fn new(mut object: Object) -> Self {
        object.fold();
        Self { object, text: OnceLock::new() }
    }

    /// The object for the way of a write, which compares and judges it: packed, and with a definition's schemas as trees.
    pub fn unfolded(self: &Arc<Self>) -> Arc<Self> {
        if !self.object.is_definition() {
            return self.clone();
        }
        let mut object = self.object.clone();
        each_at(&mut object.0, &SCHEMAS, &mut to_tree);
        Arc::new(Self { object, text: OnceLock::new() })
    }

    fn text(&self) -> &Text {
        self.text.get_or_init(|| Text::of(&self.object))
    }

    /// The object's JSON text, encoded on first use.
    pub fn json(&self) -> Bytes {
        self.text().whole.clone()
    }

    /// Writes the object's JSON text without `kind` and `apiVersion`, as the items of a built-in kind's list stand.
    pub fn put_item(&self, out: &mut BytesMut) {
        let Text { whole, item } = self.text();
        out.put_u8(b'{');
        out.put_slice(&whole[*item..]);
    }

    /// A copy of the object as clients know it.
    pub fn unpacked(&self) -> Object {
        let mut object = self.object.clone();
        object.unpack();
        object
    }

    /// The object itself, with its bulky parts as text.
    pub fn object(&self) -> &Object {
        &self.object
    }
}

impl Text {
    fn of(object: &Object) -> Self {
        let mut text = Vec::with_capacity(1024);
        text.push(b'{');
        for key in ["kind", "apiVersion"] {
            if let Some(value) = object.get(key) {
                write_member(&mut text, key, value);
            }
        }
        let start = text.len();
        let builtin = is_builtin(object.api_version());
        let folded: &[&str] = if object.is_definition() { &SCHEMAS } else { &[] };
        for (key, value) in object.as_map() {
            match value {
                _ if key == "kind" || key == "apiVersion" => {}
                Value::Object(metadata) if key == "metadata" => write_metadata(&mut text, metadata, builtin),
                value => write_folded_member(&mut text, key, value, folded),
            }
        }
        close(&mut text);
        // Where nothing followed, the closing brace stands in place of the comma.
        let item = start.min(text.len() - 1);
        Self { whole: text.into_boxed_slice().into(), item }
    }
}

/// Writes a member with a comma behind it.
fn write_member(text: &mut Vec<u8>, key: &str, value: &Value) {
    serde_json::to_writer(&mut *text, key).expect("a text encodes");
    text.push(b':');
    serde_json::to_writer(&mut *text, value).expect("a JSON value encodes");
    text.push(b',');
}

/// Ends a map, whose last member has a comma behind it.
fn close(text: &mut Vec<u8>) {
    if text.last() == Some(&b',') {
        text.pop();
    }
    text.push(b'}');
}

/// The members of `metadata` in the order in which the real server writes those of built-in kinds; custom objects have
/// theirs by alphabet.
pub(super) const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Whether an `apiVersion` is of a group whose kinds are built in. It decides nothing but the order of members.
fn is_builtin(api_version: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    !group.contains('.') || group.ends_with(".k8s.io")
}

/// Writes `metadata` as a member.
fn write_metadata(text: &mut Vec<u8>, metadata: &Map<String, Value>, builtin: bool) {
    text.extend_from_slice(b"\"metadata\":{");
    let ordered: &[&str] = if builtin { &METADATA } else { &[] };
    let known = ordered.iter().filter_map(|key| Some((*key, metadata.get(*key)?)));
    let others = metadata.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !ordered.contains(key));
    for (key, value) in known.chain(others) {
        write_folded_member(text, key, value, &OWNERSHIP[1..]);
    }
    close(text);
    text.push(b',');
}

/// As [`write_member`], where a text at the path is JSON already.
fn write_folded_member(text: &mut Vec<u8>, key: &str, value: &Value, path: &[&str]) {
    match path {
        [first, rest @ ..] if *first == key => {
            serde_json::to_writer(&mut *text, key).expect("a text encodes");
            text.push(b':');
            write_folded(text, value, rest);
            text.push(b',');
        }
        _ => write_member(text, key, value),
    }
}

/// Writes a value, of which a text at the path is JSON already.
fn write_folded(text: &mut Vec<u8>, value: &Value, path: &[&str]) {
    match (path, value) {
        ([], Value::String(json)) => text.extend_from_slice(json.as_bytes()),
        ([EACH, rest @ ..], Value::Array(items)) => {
            text.push(b'[');
            for item in items {
                write_folded(text, item, rest);
                text.push(b',');
            }
            if text.last() == Some(&b',') {
                text.pop();
            }
            text.push(b']');
        }
        ([_, ..], Value::Object(map)) => {
            text.push(b'{');
            for (key, value) in map {
                write_folded_member(text, key, value, path);
            }
            close(text);
        }
        (_, value) => serde_json::to_writer(&mut *text, value).expect("a JSON value encodes"),
    }
}

impl Deref for Stored {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.object
    }
}

#[cfg(test)]
mod tests;
