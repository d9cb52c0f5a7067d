//! [`Object`]: a Kubernetes object as a JSON map with typed access to its metadata.

use std::{collections::BTreeMap, ops::Deref, sync::OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A Kubernetes object: any kind, any version.
///
/// Reading never fails: what is absent or of another type reads as empty. The schema, not this type, says what is allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Object(Map<String, Value>);

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
        match value {
            Value::Object(map) => Some(Self(map)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
        }
    }

    /// The object as a JSON value.
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }

    /// A copy as a JSON value.
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// The members.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The members, to change.
    pub fn as_map_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.0
    }

    /// A top-level member.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// Sets a top-level member.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.into(), value.into());
    }

    /// Removes a top-level member.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// What stands at a path of member names, or `None`.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter().try_fold(self.0.get(*first)?, |value, key| value.get(key))
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
        let mut map = &mut self.0;
        for key in parents {
            map = child_map(map, key);
        }
        map.insert((*last).into(), value.into());
    }

    /// Removes what stands at a path.
    pub fn remove_at(&mut self, path: &[&str]) -> Option<Value> {
        let (last, parents) = path.split_last()?;
        let mut map = &mut self.0;
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
        self.0.get("metadata").and_then(Value::as_object)
    }

    /// `metadata`, made if it is not there.
    pub fn metadata_mut(&mut self) -> &mut Map<String, Value> {
        child_map(&mut self.0, "metadata")
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

/// An object as the store keeps it: never changed again, so that its JSON text can be made once and shared.
#[derive(Debug)]
pub struct Stored {
    object: Object,
    /// The JSON text without `kind` and `apiVersion`: the items of a built-in kind's list stand like this.
    item: OnceLock<Bytes>,
}

impl Stored {
    /// Freezes an object.
    pub fn new(object: Object) -> Self {
        Self { object, item: OnceLock::new() }
    }

    /// The object's JSON text without `kind` and `apiVersion`, encoded on first use.
    pub fn item_json(&self) -> Bytes {
        let encode = || {
            let mut text = Vec::with_capacity(512);
            text.push(b'{');
            for (key, value) in &self.object.0 {
                if key == "kind" || key == "apiVersion" {
                    continue;
                }
                if text.len() > 1 {
                    text.push(b',');
                }
                serde_json::to_writer(&mut text, key).expect("a text encodes");
                text.push(b':');
                match value {
                    Value::Object(metadata) if key == "metadata" && is_builtin(self.object.api_version()) => {
                        write_metadata(&mut text, metadata);
                    }
                    value => serde_json::to_writer(&mut text, value).expect("a JSON value encodes"),
                }
            }
            text.push(b'}');
            text.into()
        };
        self.item.get_or_init(encode).clone()
    }

    /// The object's JSON text.
    pub fn json(&self) -> Bytes {
        let item = self.item_json();
        let mut text = Vec::with_capacity(item.len() + 64);
        text.push(b'{');
        for key in ["kind", "apiVersion"] {
            if let Some(value) = self.object.get(key) {
                if text.len() > 1 {
                    text.push(b',');
                }
                serde_json::to_writer(&mut text, key).expect("a text encodes");
                text.push(b':');
                serde_json::to_writer(&mut text, value).expect("a JSON value encodes");
            }
        }
        if text.len() > 1 && item.len() > 2 {
            text.push(b',');
        }
        text.extend_from_slice(&item[1..]);
        text.into()
    }

    /// The object itself.
    pub fn object(&self) -> &Object {
        &self.object
    }
}

/// The members of `metadata` in the order in which the real server writes those of built-in kinds; custom objects have
/// theirs by alphabet.
const METADATA: [&str; 15] = [
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

fn write_metadata(text: &mut Vec<u8>, metadata: &Map<String, Value>) {
    text.push(b'{');
    let known = METADATA.iter().filter_map(|key| Some((*key, metadata.get(*key)?)));
    let others = metadata.iter().map(|(key, value)| (key.as_str(), value)).filter(|(key, _)| !METADATA.contains(key));
    for (index, (key, value)) in known.chain(others).enumerate() {
        if index > 0 {
            text.push(b',');
        }
        serde_json::to_writer(&mut *text, key).expect("a text encodes");
        text.push(b':');
        serde_json::to_writer(&mut *text, value).expect("a JSON value encodes");
    }
    text.push(b'}');
}

impl Deref for Stored {
    type Target = Object;

    fn deref(&self) -> &Object {
        &self.object
    }
}
