//! What the server serves, as documents: pure views of the catalog. Knows no requests.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/discovery` and its `aggregated` package.

mod openapi;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

pub use self::openapi::OpenApi;
use crate::registry::{Catalog, Group, Resource, Subresource};

/// The version of Kubernetes that is faked.
const GIT_VERSION: &str = "v1.36.3";

/// `/version`.
pub fn server_version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": GIT_VERSION, "gitCommit": "fake-apiserver", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub fn core_versions(address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub fn groups(catalog: &Catalog) -> Value {
    let groups: Vec<Value> = catalog
        .groups()
        .iter()
        .filter(|group| !group.name.is_empty())
        .map(|group| group_members(group).into())
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/GROUP`; `None` if there is no such group.
pub fn group(catalog: &Catalog, name: &str) -> Option<Value> {
    let group = catalog.groups().iter().find(|group| group.name == name && !name.is_empty())?;
    let mut members = group_members(group);
    members.insert("kind".into(), "APIGroup".into());
    members.insert("apiVersion".into(), "v1".into());
    Some(members.into())
}

/// Whether a group has built-in resources.
pub fn is_builtin(catalog: &Catalog, group: &str) -> bool {
    catalog.all().any(|resource| resource.gvr.group == group && resource.custom.is_none())
}

fn group_members(group: &Group) -> Map<String, Value> {
    let version = |version: &String| json!({"groupVersion": format!("{}/{version}", group.name), "version": version});
    let mut members = Map::new();
    members.insert("name".into(), group.name.clone().into());
    members.insert("versions".into(), group.versions.iter().map(version).collect());
    members.insert("preferredVersion".into(), group.versions.first().map(version).into());
    members
}

/// `/api/v1` and `/apis/GROUP/VERSION`; `None` if nothing is served there.
pub fn version(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let mut rows = Vec::new();
    for resource in catalog.of(group, version) {
        rows.push(row(resource));
        let mut subresources: Vec<_> = resource.subresources.iter().collect();
        if resource.custom.is_some() {
            subresources.reverse(); // status, then scale
        }
        rows.extend(subresources.into_iter().map(|(name, subresource)| sub_row(resource, name, subresource)));
    }
    if rows.is_empty() {
        return None;
    }
    let mut list = json!({"kind": "APIResourceList", "groupVersion": crate::base::names::api_version(group, version)});
    if !group.is_empty() {
        list["apiVersion"] = "v1".into(); // the core group's list has none
    }
    list["resources"] = rows.into();
    Some(list)
}

fn row(resource: &Resource) -> Value {
    let mut row = json!({
        "name": resource.gvr.resource, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": resource.verbs,
    });
    names(&mut row, resource);
    if resource.verbs.iter().any(|verb| verb == "list") {
        row["storageVersionHash"] = storage_version_hash(resource).into();
    }
    row
}

fn names(row: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        row["shortNames"] = resource.short_names.clone().into();
    }
    if !resource.categories.is_empty() {
        row["categories"] = resource.categories.clone().into();
    }
}

fn sub_row(resource: &Resource, name: &str, subresource: &Subresource) -> Value {
    let mut row = json!({
        "name": format!("{}/{name}", resource.gvr.resource), "singularName": "", "namespaced": resource.namespaced,
        "kind": subresource.kind, "verbs": subresource.verbs,
    });
    if !subresource.version.is_empty() {
        row["group"] = subresource.group.clone().into();
        row["version"] = subresource.version.clone().into();
    }
    row
}

/// Says whether two servers store a resource alike: upstream's `StorageVersionHash`.
fn storage_version_hash(resource: &Resource) -> String {
    let version = resource.custom.as_ref().map_or(&resource.gvr.version, |custom| &custom.storage_version);
    let text = format!("{}/{version}/{}", resource.gvr.group, resource.kind);
    STANDARD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

/// An aggregated discovery document.
#[derive(Clone, Debug)]
pub struct Aggregated {
    /// Its media type.
    pub content_type: &'static str,
    /// Changes when the document does.
    pub etag: String,
    /// The document.
    pub json: Bytes,
}

/// The aggregated document of `/api` (`core`) or `/apis`, in version `v2` or `v2beta1`.
pub fn aggregated(catalog: &Catalog, version: &str, core: bool) -> Aggregated {
    let groups = catalog.groups().iter().filter(|group| group.name.is_empty() == core);
    let items: Vec<Value> = groups.map(|group| aggregated_group(catalog, group)).collect();
    let document = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": items,
    });
    let content_type = match version {
        "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
    };
    let json = document.to_string();
    Aggregated { content_type, etag: hash(json.as_bytes()), json: json.into() }
}

fn aggregated_group(catalog: &Catalog, group: &Group) -> Value {
    let versions: Vec<Value> = group
        .versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = catalog.of(&group.name, version).map(|it| aggregated_resource(it)).collect();
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    // A built-in kind of the group and version itself stands without them, a custom one with them.
    let (group, version) = match resource.custom {
        Some(_) => (resource.gvr.group.as_str(), resource.gvr.version.as_str()),
        None => ("", ""),
    };
    let mut row = json!({
        "resource": resource.gvr.resource,
        "responseKind": {"group": group, "version": version, "kind": resource.kind},
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": resource.verbs,
    });
    names(&mut row, resource);
    if !resource.subresources.is_empty() {
        let subresources = resource.subresources.iter().map(|(name, subresource)| {
            let (group, version) = match subresource.version.as_str() {
                "" => (group, version),
                own => (subresource.group.as_str(), own),
            };
            json!({
                "subresource": name, "responseKind": {"group": group, "version": version, "kind": subresource.kind},
                "verbs": subresource.verbs,
            })
        });
        row["subresources"] = subresources.collect();
    }
    row
}

/// The paths that `/` lists.
pub fn paths(catalog: &Catalog) -> Vec<String> {
    let mut paths: Vec<String> =
        ["/api", "/apis", "/healthz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/readyz", "/version"]
            .map(str::to_owned)
            .into();
    for group in catalog.groups() {
        if !group.name.is_empty() {
            paths.push(format!("/apis/{}", group.name));
        }
        for version in &group.versions {
            paths.push(prefix(&group.name, version));
        }
    }
    paths.sort();
    paths
}

/// The path of a group and version.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// A text's hash as upstream writes them in ETags and OpenAPI addresses: upper-case hexadecimal digits.
fn hash(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}
