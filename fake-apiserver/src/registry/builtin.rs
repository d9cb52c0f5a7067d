//! The catalog's rows for built-in kinds, read from a table of facts: verbs, names, categories, subresources, columns.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, OnceLock},
};

use serde::Deserialize;

use super::catalog::{Catalog, Column, Group, Resource, SchemaSource, Subresource};
use crate::{
    base::{Gvr, names::split_api_version},
    schema::Schema,
};

/// Every resource of kube-apiserver 1.36, keyed `group/version/plural`.
const FACTS: &str = include_str!("builtin-resources.json");

/// Groups in the order in which upstream's discovery shows them; custom groups come after.
const GROUPS: &[&str] = &[
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Resources that two groups or versions share: they are stored in the bucket of the first.
const SHARED: &[(&str, &str)] = &[("events.events.k8s.io", "events")];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: String,
    scope: String,
    singular: String,
    verbs: Vec<String>,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    subresources: BTreeMap<String, Subresource>,
    #[serde(default)]
    columns: Vec<(String, String, String, i64)>,
}

/// The catalog of built-in resources; rows are shared by all clusters of a process.
pub(super) fn catalog() -> Catalog {
    static SHARED: LazyLock<Catalog> = LazyLock::new(read);
    SHARED.clone()
}

fn read() -> Catalog {
    let rows: BTreeMap<String, Row> = serde_json::from_str(FACTS).expect("the embedded table is well-formed");
    let mut catalog = Catalog::default();
    for (path, row) in rows {
        let (api_version, plural) = path.rsplit_once('/').expect("a table key has a plural");
        let (group, version) = split_api_version(api_version);
        let gvr = Gvr::new(group, version, plural);
        let name = gvr.to_string();
        let bucket = SHARED.iter().find(|(from, _)| *from == name).map_or(name.as_str(), |(_, to)| to);
        let mut subresources = row.subresources;
        for (name, subresource) in &mut subresources {
            let (group, version) = subresource_type(&subresource.kind, name);
            (subresource.group, subresource.version) = (group.into(), version.into());
        }
        let resource = Resource {
            kind: row.kind.clone(),
            list_kind: format!("{}List", row.kind),
            singular: row.singular,
            short_names: row.short_names,
            categories: row.categories,
            namespaced: row.scope == "Namespaced",
            verbs: row.verbs,
            subresources,
            columns: row.columns.into_iter().map(column).collect(),
            bucket: bucket.into(),
            custom: None,
            schema: SchemaSource::Builtin {
                definition: Schema::definition_of(&gvr.api_version(), &row.kind).unwrap_or_default().to_owned(),
                compiled: OnceLock::new(),
            },
            gvr: gvr.clone(),
        };
        catalog.resources.insert(gvr, Arc::new(resource));
    }
    catalog.groups = GROUPS.iter().map(|group| group_of(&catalog, group)).collect();
    catalog
}

/// What is sent to and answered by `serviceaccounts/NAME/token`: a kind that is no resource.
pub(super) fn token_request() -> &'static Resource {
    static KIND: LazyLock<Resource> = LazyLock::new(|| {
        let (gvr, kind) = (Gvr::new("authentication.k8s.io", "v1", "tokenrequests"), "TokenRequest");
        Resource {
            kind: kind.into(),
            list_kind: String::new(),
            singular: String::new(),
            short_names: Vec::new(),
            categories: Vec::new(),
            namespaced: true,
            verbs: Vec::new(),
            subresources: BTreeMap::new(),
            columns: Vec::new(),
            bucket: "".into(),
            custom: None,
            schema: SchemaSource::Builtin {
                definition: Schema::definition_of(&gvr.api_version(), kind).unwrap_or_default().to_owned(),
                compiled: OnceLock::new(),
            },
            gvr,
        }
    });
    &KIND
}

fn column((name, kind, format, priority): (String, String, String, i64)) -> Column {
    Column { name, kind, format, description: String::new(), priority, json_path: String::new() }
}

fn group_of(catalog: &Catalog, name: &str) -> Group {
    let of_group = catalog.resources.keys().filter(|gvr| gvr.group == name);
    let mut versions: Vec<String> = of_group.map(|gvr| gvr.version.clone()).collect();
    versions.dedup();
    versions.sort_by(|a, b| b.cmp(a)); // v2 before v1: the table has no alpha or beta versions
    Group { name: name.into(), versions }
}

/// Group and version of what a subresource takes, where these are not its resource's.
fn subresource_type(kind: &str, name: &str) -> (&'static str, &'static str) {
    match (kind, name) {
        ("Scale", _) => ("autoscaling", "v1"),
        ("Eviction", _) => ("policy", "v1"),
        ("TokenRequest", _) => ("authentication.k8s.io", "v1"),
        _ => ("", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_group_is_in_the_order_of_discovery_and_has_a_version() {
        let catalog = catalog();
        for resource in catalog.all() {
            assert!(GROUPS.contains(&resource.gvr.group.as_str()), "{resource:?} is of no known group");
        }
        assert!(catalog.groups().iter().all(|group| !group.versions.is_empty()));
        let autoscaling = catalog.groups().iter().find(|group| group.name == "autoscaling").unwrap();
        assert_eq!(autoscaling.versions, ["v2", "v1"]);
    }

    #[test]
    fn both_event_groups_show_the_same_objects() {
        let catalog = catalog();
        let bucket = |group| catalog.find(group, "v1", "events").unwrap().bucket.clone();
        assert_eq!(bucket(""), bucket("events.k8s.io"));
    }
}
