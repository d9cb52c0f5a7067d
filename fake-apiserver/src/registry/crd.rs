//! From a CustomResourceDefinition to a served resource: names accepted, Established, and the cleaning up when it goes.
//!
//! What upstream's naming, establishing and finalizing controllers do happens here right after the write that asks for
//! it, each as a write of its own, so that watchers see the same steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Map, Value, json};

use super::{
    Caller, DeleteOptions, Registry, Resource, Target,
    catalog::{Column, Custom, Group, Scale, SchemaSource, Subresource},
    convert::{Conversion, Readable},
};
use crate::{
    base::{Gvr, Object, Stored},
    fields::{self, Writer},
    kinds,
    schema::Schema,
};

/// Bucket of the definitions.
pub(super) const BUCKET: &str = "customresourcedefinitions.apiextensions.k8s.io";

/// Finalizer that keeps a definition until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Who writes a definition's status.
const MANAGER: &str = "kube-apiserver";

/// Verbs of a custom resource, in the order in which upstream's discovery has them.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// What the served definitions were made into.
#[derive(Debug, Default)]
pub(super) struct Customs {
    by_name: BTreeMap<String, Served>,
}

#[derive(Debug)]
struct Served {
    spec: Value,
    resources: Vec<Arc<Resource>>,
}

/// Brings status and catalog in line with a definition that was written.
pub(super) fn settle(registry: &Registry, stored: &Arc<Stored>, deleted: bool) {
    let definition = stored.object();
    if deleted {
        registry.0.customs.lock().expect("no panic under this lock").by_name.remove(definition.name());
        rebuild(registry);
        return;
    }
    if definition.is_deleting() {
        if is_pending(definition) {
            let mut new = definition.clone();
            let message = "CustomResource deletion is in progress";
            terminating(&mut new, "True", "InstanceDeletionInProgress", message, &registry.clock().now_text());
            if write_status(registry, stored, new) {
                return; // that write came through here again
            }
        }
        delete_instances(registry, definition);
        instance_gone(registry, definition.name());
        return;
    }
    let status = wanted_status(registry, definition);
    if definition.get("status") != Some(&status) {
        let mut new = definition.clone();
        new.set("status", status);
        if write_status(registry, stored, new) {
            return; // that write came through here again
        }
    }
    serve(registry, definition);
}

fn target(registry: &Registry, name: &str) -> Target {
    let gvr = Gvr::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    registry.target(&gvr, "", name, "").expect("definitions are a built-in kind")
}

/// Upstream's controllers of definitions, which are a part of the server.
fn status_writer(registry: &Registry) -> Writer<'static> {
    Writer {
        manager: MANAGER,
        api_version: "apiextensions.k8s.io/v1",
        subresource: "status",
        reset: &[&["spec"], &["metadata"]],
        now: registry.clock().now(),
        versions: None,
    }
}

fn write_status(registry: &Registry, old: &Stored, mut new: Object) -> bool {
    let target = target(registry, old.name());
    fields::track(Some(old.object()), &mut new, target.resource.schema(), &status_writer(registry));
    let revision = old.resource_version().parse().expect("a stored object has its revision");
    registry.put(&target, Some(revision), new).is_ok()
}

/// The status that the naming and establishing controllers would write.
fn wanted_status(registry: &Registry, definition: &Object) -> Value {
    let mut status = definition.get("status").and_then(Value::as_object).cloned().unwrap_or_default();
    let now = registry.clock().now_text();
    let conflict = name_conflict(registry, definition);
    let old: Vec<Value> = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let find = |kind: &str| old.iter().find(|condition| condition["type"] == kind);
    let condition = |kind: &str, value: &str, reason: &str, message: &str| {
        let since = find(kind).filter(|condition| condition["status"] == value);
        let since = since.map_or(now.as_str(), |condition| condition["lastTransitionTime"].as_str().unwrap_or(&now));
        json!({"type": kind, "status": value, "lastTransitionTime": since, "reason": reason, "message": message})
    };
    let established = find("Established").is_some_and(|condition| condition["status"] == "True");
    let mut conditions = Vec::new();
    match &conflict {
        None => {
            conditions.push(condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"));
            let message = "the initial names have been accepted";
            conditions.push(condition("Established", "True", "InitialNamesAccepted", message));
            status.insert("acceptedNames".into(), definition.at(&["spec", "names"]).cloned().unwrap_or_default());
        }
        Some((reason, message)) => {
            conditions.push(condition("NamesAccepted", "False", reason, message));
            if !established {
                let message = "not all names are accepted";
                conditions.push(condition("Established", "False", "NotAccepted", message));
            }
        }
    }
    let others =
        old.iter().filter(|condition| condition["type"] != "NamesAccepted" && condition["type"] != "Established");
    conditions.extend(others.cloned());
    if let Some((value, reason, message)) = kinds::approval(definition) {
        let kind = "KubernetesAPIApprovalPolicyConformant";
        let wanted = condition(kind, value, reason, &message);
        match conditions.iter().position(|condition| condition["type"] == kind) {
            Some(at) => conditions[at] = wanted,
            None => conditions.push(wanted),
        }
    }
    status.insert("conditions".into(), conditions.into());
    let mut versions: Vec<Value> = status.get("storedVersions").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(storage) = storage_version(definition).map(Value::from).filter(|storage| !versions.contains(storage)) {
        versions.push(storage);
    }
    status.insert("storedVersions".into(), versions.into());
    Value::Object(status)
}

/// A name that another resource of the group has already: reason and message.
fn name_conflict(registry: &Registry, definition: &Object) -> Option<(String, String)> {
    let group = definition.str_at(&["spec", "group"]);
    let catalog = registry.catalog();
    let others = catalog.all().filter(|resource| {
        resource.gvr.group == group
            && resource.custom.as_ref().is_some_and(|custom| custom.definition != definition.name())
    });
    let (mut taken, mut kinds) = (BTreeSet::new(), BTreeSet::new());
    for resource in others {
        taken.extend([resource.gvr.resource.clone(), resource.singular.clone()]);
        taken.extend(resource.short_names.iter().cloned());
        kinds.extend([resource.kind.clone(), resource.list_kind.clone()]);
    }
    let name = |key: &str| definition.str_at(&["spec", "names", key]);
    let in_use = |name: &str| format!("\"{name}\" is already in use");
    for (key, reason) in [("plural", "PluralConflict"), ("singular", "SingularConflict")] {
        if taken.contains(name(key)) {
            return Some((reason.into(), in_use(name(key))));
        }
    }
    for short in strings(definition.at(&["spec", "names", "shortNames"])) {
        if taken.contains(&short) {
            return Some(("ShortNamesConflict".into(), in_use(&short)));
        }
    }
    for (key, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        if kinds.contains(name(key)) {
            return Some((reason.into(), in_use(name(key))));
        }
    }
    None
}

fn storage_version(definition: &Object) -> Option<&str> {
    let versions = definition.at(&["spec", "versions"])?.as_array()?;
    versions.iter().find(|version| version["storage"] == true)?["name"].as_str()
}

/// Serves the versions of an established definition.
fn serve(registry: &Registry, definition: &Object) {
    let conditions = definition.at(&["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    if !conditions.any(|condition| condition["type"] == "Established" && condition["status"] == "True") {
        return;
    }
    let mut spec = definition.get("spec").cloned().unwrap_or_default();
    // Served names are the accepted ones.
    spec["names"] = definition.at(&["status", "acceptedNames"]).cloned().unwrap_or_default();
    {
        let mut customs = registry.0.customs.lock().expect("no panic under this lock");
        if customs.by_name.get(definition.name()).is_some_and(|served| served.spec == spec) {
            return;
        }
        let redefined = definition.generation() > 1;
        let conversion = registry.conversion(&spec);
        let resources = resources(definition.name(), &spec, redefined, conversion.as_ref());
        customs.by_name.insert(definition.name().into(), Served { spec, resources });
    }
    rebuild(registry);
}

fn rebuild(registry: &Registry) {
    let customs = registry.0.customs.lock().expect("no panic under this lock");
    let mut catalog = super::builtin::catalog();
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for resource in customs.by_name.values().flat_map(|served| &served.resources) {
        let versions = groups.entry(resource.gvr.group.clone()).or_default();
        if !versions.contains(&resource.gvr.version) {
            versions.push(resource.gvr.version.clone());
        }
        catalog.resources.insert(resource.gvr.clone(), resource.clone());
    }
    for (name, mut versions) in groups {
        versions.sort_by_key(|version| version_priority(version));
        catalog.groups.push(Group { name, versions });
    }
    let mut current = registry.0.catalog.lock().expect("no panic under this lock");
    catalog.generation = current.generation + 1;
    *current = Arc::new(catalog);
}

/// Sorts versions as `k8s.io/apimachinery/pkg/version` does: stable ones first, then beta, then alpha, newer before
/// older, and names of another form last by alphabet.
fn version_priority(version: &str) -> (u8, i64, i64, String) {
    let parse = || -> Option<(u8, i64, i64)> {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major: i64 = rest[..digits].parse().ok()?;
        let (rank, minor) = match &rest[digits..] {
            "" => (0, 0),
            tail => {
                let (rank, number) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                    (Some(number), _) => (1, number),
                    (None, Some(number)) => (2, number),
                    (None, None) => return None,
                };
                (rank, number.parse().ok()?)
            }
        };
        Some((rank, -major, -minor))
    };
    match parse() {
        Some((rank, major, minor)) => (rank, major, minor, String::new()),
        None => (3, 0, 0, version.into()),
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn resources(definition: &str, spec: &Value, redefined: bool, conversion: Option<&Conversion>) -> Vec<Arc<Resource>> {
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let storage = versions.iter().find(|version| version["storage"] == true);
    let storage = storage.and_then(|version| version["name"].as_str()).unwrap_or_default();
    let served = versions.iter().filter(|version| version["served"] == true);
    let of = |version| {
        let mut resource = resource(definition, spec, version, storage, redefined);
        if let Some(custom) = &mut resource.custom {
            custom.conversion = conversion.cloned();
        }
        Arc::new(resource)
    };
    served.map(of).collect()
}

fn resource(definition: &str, spec: &Value, version: &Value, storage: &str, redefined: bool) -> Resource {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = &spec["names"];
    let group = text(&spec["group"]);
    let gvr = Gvr { group: group.clone(), version: text(&version["name"]), resource: text(&names["plural"]) };
    let mut subresources = BTreeMap::new();
    let verbs = || ["get", "patch", "update"].map(str::to_owned).to_vec();
    if version["subresources"]["status"].is_object() {
        let status =
            Subresource { group: String::new(), version: String::new(), kind: text(&names["kind"]), verbs: verbs() };
        subresources.insert("status".to_owned(), status);
    }
    let scale = version["subresources"]["scale"].as_object().map(|scale| Scale {
        spec_replicas: text(&scale["specReplicasPath"]),
        status_replicas: text(&scale["statusReplicasPath"]),
        selector: scale.get("labelSelectorPath").map(text).unwrap_or_default(),
    });
    if scale.is_some() {
        let scale =
            Subresource { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into(), verbs: verbs() };
        subresources.insert("scale".to_owned(), scale);
    }
    let schema = match &version["schema"]["openAPIV3Schema"] {
        Value::String(text) => Schema::structural_text(text),
        Value::Object(_) | Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {
            Schema::structural(&json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true}), "")
        }
    };
    // Validated when the definition was written.
    let schema = schema.expect("an established definition has structural schemas");
    let warning = match (version["deprecated"].as_bool(), version["deprecationWarning"].as_str()) {
        (Some(true), Some(warning)) => warning.to_owned(),
        (Some(true), None) => format!("{}/{} {} is deprecated", group, gvr.version, text(&names["kind"])),
        (Some(false) | None, _) => String::new(),
    };
    let selectable = version["selectableFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let custom = Custom {
        definition: definition.into(),
        storage_version: storage.into(),
        conversion: None,
        readable: Readable::default(),
        warning,
        scale,
        redefined,
        selectable: selectable
            .iter()
            .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
    };
    Resource {
        kind: text(&names["kind"]),
        list_kind: text(&names["listKind"]),
        singular: text(&names["singular"]),
        short_names: strings(names.get("shortNames")),
        categories: strings(names.get("categories")),
        namespaced: spec["scope"] == "Namespaced",
        verbs: VERBS.map(str::to_owned).to_vec(),
        subresources,
        columns: columns(version),
        bucket: gvr.to_string().into(),
        custom: Some(custom),
        schema: SchemaSource::Ready(schema),
        gvr,
    }
}

fn columns(version: &Value) -> Vec<Column> {
    let text =
        |map: &Map<String, Value>, key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let columns = version["additionalPrinterColumns"].as_array().into_iter().flatten().filter_map(Value::as_object);
    let columns = columns.map(|column| Column {
        name: text(column, "name"),
        kind: text(column, "type"),
        format: text(column, "format"),
        description: match text(column, "description") {
            none if none.is_empty() => {
                format!("Custom resource definition column (in JSONPath format): {}", text(column, "jsonPath"))
            }
            description => description,
        },
        priority: column.get("priority").and_then(Value::as_i64).unwrap_or_default(),
        json_path: text(column, "jsonPath"),
    });
    let columns: Vec<_> = columns.collect();
    if !columns.is_empty() {
        return columns;
    }
    let description = "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
                       not guaranteed to be set in happens-before order across separate operations. Clients may not set \
                       this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. \
                       Read-only. Null for lists. More info: \
                       https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
    vec![Column {
        name: "Age".into(),
        kind: "date".into(),
        format: String::new(),
        description: description.into(),
        priority: 0,
        json_path: ".metadata.creationTimestamp".into(),
    }]
}

/// Marks a definition as going: it stays until its objects are gone.
pub(super) fn mark_deleting(definition: &mut Object, now: &str) {
    let mut finalizers: Vec<String> = definition.finalizers().into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|finalizer| finalizer == CLEANUP) {
        finalizers.push(CLEANUP.into());
        definition.set_finalizers(finalizers);
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    terminating(definition, "True", "InstanceDeletionPending", message, now);
}

/// Sets the condition `Terminating`.
fn terminating(definition: &mut Object, status: &str, reason: &str, message: &str, now: &str) {
    let conditions = definition.at(&["status", "conditions"]).and_then(Value::as_array);
    let mut conditions = conditions.cloned().unwrap_or_default();
    let place = conditions.iter().position(|condition| condition["type"] == "Terminating");
    let since = place.map(|at| &conditions[at]).filter(|condition| condition["status"] == status);
    let since = since.and_then(|condition| condition["lastTransitionTime"].as_str()).unwrap_or(now);
    let condition = json!({
        "type": "Terminating", "status": status, "lastTransitionTime": since, "reason": reason, "message": message,
    });
    match place {
        Some(at) => conditions[at] = condition,
        None => conditions.push(condition),
    }
    definition.set_at(&["status", "conditions"], conditions);
}

/// Whether the deletion of a definition's objects is still to begin.
fn is_pending(definition: &Object) -> bool {
    let conditions = definition.at(&["status", "conditions"]).and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| condition["reason"] == "InstanceDeletionPending")
}

fn delete_instances(registry: &Registry, definition: &Object) {
    let catalog = registry.catalog();
    let of_definition = |resource: &&Arc<Resource>| {
        resource.custom.as_ref().is_some_and(|custom| {
            custom.definition == definition.name() && custom.storage_version == resource.gvr.version
        })
    };
    let Some(resource) = catalog.all().find(of_definition) else { return };
    let (caller, options) = (Caller::default(), DeleteOptions::default());
    for entry in registry.0.store.list(&resource.bucket, None).1 {
        let target = Target {
            resource: resource.clone(),
            namespace: entry.value.namespace().into(),
            name: entry.value.name().into(),
            subresource: String::new(),
        };
        if !entry.value.is_deleting() {
            registry.try_delete(&target, &caller, &options, &entry);
        }
    }
}

/// Lets a definition go that waits for its last object.
pub(super) fn instance_gone(registry: &Registry, definition: &str) {
    let target = target(registry, definition);
    let Some(live) = registry.0.store.get(&target.key()).1 else { return };
    if !live.value.is_deleting() || registry.0.store.count(definition, None) > 0 {
        return;
    }
    let mut new = live.value.object().clone();
    let left: Vec<String> =
        new.finalizers().into_iter().filter(|finalizer| *finalizer != CLEANUP).map(str::to_owned).collect();
    let last = left.is_empty();
    new.set_finalizers(left);
    let now = registry.clock().now_text();
    terminating(&mut new, "False", "InstanceDeletionCompleted", "removed all instances", &now);
    fields::track(Some(live.value.object()), &mut new, target.resource.schema(), &status_writer(registry));
    if last {
        registry.remove(&target, &live, new);
    } else if new != *live.value.object() {
        // Other finalizers hold it; if somebody else writes first, that write leads here again.
        let _ = registry.put(&target, Some(live.revision), new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_versions_come_before_beta_and_alpha_and_newer_before_older() {
        let mut versions = ["v1alpha1", "foo", "v2", "v1beta1", "v10", "v1beta2", "v1"];
        versions.sort_by_key(|version| version_priority(version));
        assert_eq!(versions, ["v10", "v2", "v1", "v1beta2", "v1beta1", "v1alpha1", "foo"]);
    }
}
