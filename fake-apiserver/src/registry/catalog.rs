//! Which resources are served now: built-ins and custom ones, one table.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use serde::Deserialize;

use super::convert::{Conversion, Readable};
use crate::{base::Gvr, schema::Schema};

/// One resource in one version: what a path's `group/version/plural` leads to.
pub struct Resource {
    /// Group, version and plural.
    pub gvr: Gvr,
    /// Kind of one object.
    pub kind: String,
    /// Kind of a list.
    pub list_kind: String,
    /// Singular, lower-case.
    pub singular: String,
    /// Short names for kubectl.
    pub short_names: Vec<String>,
    /// Categories for kubectl (`all`).
    pub categories: Vec<String>,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// Verbs served on the resource itself.
    pub verbs: Vec<String>,
    /// Subresources by name.
    pub subresources: BTreeMap<String, Subresource>,
    /// Columns of server-side printing, without those that every custom kind has.
    pub columns: Vec<Column>,
    /// The store's bucket: `plural.group`, one for all versions.
    pub bucket: Arc<str>,
    /// What only custom kinds have.
    pub custom: Option<Custom>,
    pub(super) schema: SchemaSource,
}

/// Where a resource's schema comes from.
pub(super) enum SchemaSource {
    /// A built-in definition, compiled on first use.
    Builtin { definition: String, compiled: OnceLock<Arc<Schema>> },
    /// Compiled already.
    Ready(Arc<Schema>),
}

/// A subresource of a [`Resource`].
#[derive(Clone, Debug, Deserialize)]
pub struct Subresource {
    /// Group of what is sent and answered, if not the resource's own.
    #[serde(default)]
    pub group: String,
    /// Its version, `""` if the resource's own.
    #[serde(default)]
    pub version: String,
    /// Its kind.
    pub kind: String,
    /// Verbs served.
    pub verbs: Vec<String>,
}

/// A column of server-side printing.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Header.
    pub name: String,
    /// OpenAPI type.
    pub kind: String,
    /// OpenAPI format.
    pub format: String,
    /// Help text.
    pub description: String,
    /// 0 for columns that are always shown, more for `-o wide`.
    pub priority: i64,
    /// JSONPath of a custom column, `""` for a built-in one.
    pub json_path: String,
}

/// What only custom kinds have.
#[derive(Clone, Debug, Default)]
pub struct Custom {
    /// Name of the definition.
    pub definition: String,
    /// Version that objects are stored in.
    pub storage_version: String,
    /// Who converts between versions; `None` where only `apiVersion` changes.
    pub(super) conversion: Option<Conversion>,
    /// Whether the objects of this version could be read once.
    pub(super) readable: Readable,
    /// Text of the Warning header, `""` if the version is not deprecated.
    pub warning: String,
    /// `specReplicasPath`, `statusReplicasPath` and `labelSelectorPath` of the scale subresource.
    pub scale: Option<Scale>,
    /// Whether the definition changed since it was made: what is stored may lack newer defaults.
    pub redefined: bool,
    /// JSON paths that field selectors may name besides name and namespace.
    pub selectable: Vec<String>,
}

/// Paths of a custom scale subresource.
#[derive(Clone, Debug, Default)]
pub struct Scale {
    /// `.spec.replicas`.
    pub spec_replicas: String,
    /// `.status.replicas`.
    pub status_replicas: String,
    /// `.status.selector`, `""` if none.
    pub selector: String,
}

impl Resource {
    /// The schema.
    pub fn schema(&self) -> &Arc<Schema> {
        match &self.schema {
            SchemaSource::Ready(schema) => schema,
            SchemaSource::Builtin { definition, compiled } => compiled.get_or_init(|| Schema::builtin(definition)),
        }
    }

    /// `apiVersion` of the objects.
    pub fn api_version(&self) -> String {
        self.gvr.api_version()
    }

    /// Whether a verb is served on the resource, or on one of its subresources.
    pub fn serves(&self, subresource: &str, verb: &str) -> bool {
        let verbs = match subresource {
            "" => Some(&self.verbs),
            name => self.subresources.get(name).map(|sub| &sub.verbs),
        };
        verbs.is_some_and(|verbs| verbs.iter().any(|v| v == verb))
    }

    /// What every request for a deprecated kind is warned of (`k8s.io/apiserver/pkg/endpoints/deprecation`).
    pub fn deprecation(&self) -> Option<String> {
        match (&self.custom, self.gvr.group.as_str(), self.kind.as_str()) {
            (Some(custom), ..) => Some(custom.warning.clone()).filter(|warning| !warning.is_empty()),
            (None, "", "ComponentStatus") => Some("v1 ComponentStatus is deprecated in v1.19+".into()),
            (None, "", "Endpoints") => {
                Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice".into())
            }
            (None, ..) => None,
        }
    }

    /// Whether this is the version that objects are stored in.
    pub fn is_stored_version(&self) -> bool {
        self.custom.as_ref().is_none_or(|custom| custom.storage_version == self.gvr.version)
    }

    /// Whether status is written through its own subresource.
    pub fn has_status(&self) -> bool {
        self.subresources.contains_key("status")
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}/{})", self.gvr.api_version(), self.gvr.resource)
    }
}

/// All resources served at one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// By group, version and plural.
    pub(super) resources: BTreeMap<Gvr, Arc<Resource>>,
    /// Groups in the order of discovery, each with its versions in order of preference.
    pub(super) groups: Vec<Group>,
    pub(super) generation: u64,
}

/// A group as discovery shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name, `""` for the core group.
    pub name: String,
    /// Versions, the preferred one first.
    pub versions: Vec<String>,
}

impl Catalog {
    /// Counts the changes of what is served: two catalogs of one cluster with the same generation are the same.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The resource behind a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.get(&Gvr::new(group, version, plural))
    }

    /// The resource of a kind.
    pub fn find_kind(&self, group: &str, version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.of(group, version).find(|resource| resource.kind == kind)
    }

    /// The groups in the order of discovery.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The resources of one group and version, by name.
    pub fn of(&self, group: &str, version: &str) -> impl Iterator<Item = &Arc<Resource>> {
        let start = Gvr::new(group, version, "");
        self.resources
            .range(start..)
            .map(|(_, resource)| resource)
            .take_while(move |resource| resource.gvr.group == group && resource.gvr.version == version)
    }

    /// All resources.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.resources.values()
    }
}
