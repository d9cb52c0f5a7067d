//! [`Managers`]: who owns which fields of an object, and `metadata.managedFields`, which says so.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/internal/{managedfields,capmanagers}.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::set::Set;
use crate::{
    base::{Object, status::go_quote},
    clock::time_text,
};

/// How many managers of updates an object keeps; the oldest are merged beyond. Upstream's `DefaultMaxUpdateManagers`.
const MAX_UPDATE_MANAGERS: usize = 10;

/// The manager that the oldest updates are merged into.
const ANCIENT: &str = "ancient-changes";

/// What tells one manager from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) manager: String,
    pub(super) operation: Operation,
    /// `""` for those who apply: they are the same whatever version they use.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn text(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

impl Id {
    pub(super) fn new(manager: &str, operation: Operation, api_version: &str, subresource: &str) -> Self {
        let api_version = if operation == Operation::Apply { "" } else { api_version };
        Self {
            manager: if manager.is_empty() { "unknown" } else { manager }.into(),
            operation,
            api_version: api_version.into(),
            subresource: subresource.into(),
        }
    }

    /// How a conflict names the manager.
    pub(super) fn in_conflict(&self) -> String {
        let mut text = go_quote(&self.manager);
        if !self.subresource.is_empty() {
            text += &format!(" with subresource {}", go_quote(&self.subresource));
        }
        if self.operation == Operation::Update {
            text += &format!(" using {}", self.api_version);
        }
        text
    }
}

/// What a manager owns.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Owned {
    pub(super) fields: Set,
    /// The version that the fields are named in.
    pub(super) api_version: String,
    /// When the manager last changed something; `None` for one that only came to share what was there.
    pub(super) time: Option<Timestamp>,
}

impl Owned {
    fn seconds(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_second)
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Managers(pub(super) BTreeMap<Id, Owned>);

impl Managers {
    /// What `metadata.managedFields` says, [packed](Object::pack) or not.
    ///
    /// # Errors
    /// Upstream's text where it cannot be read.
    pub(super) fn read(managed_fields: Option<&Value>) -> Result<Self, String> {
        if let Some(Value::String(packed)) = managed_fields {
            let entries: Value = serde_json::from_str(packed).map_err(|error| error.to_string())?;
            return Self::read(Some(&entries).filter(|entries| entries.is_array()));
        }
        let mut managers = Self::default();
        for (index, entry) in managed_fields.and_then(Value::as_array).into_iter().flatten().enumerate() {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default();
            let operation = match text("operation") {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err("operation must be `Apply` or `Update`".into()),
            };
            let api_version = text("apiVersion");
            if api_version.is_empty() {
                return Err("apiVersion must not be empty".into());
            }
            match text("fieldsType") {
                "FieldsV1" => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {index}")),
                other => {
                    return Err(format!("invalid fieldsType {} in managed fields entry {index}", go_quote(other)));
                }
            }
            let fields = match entry.get("fieldsV1") {
                Some(fields) => Set::from_wire(fields).map_err(|problem| format!("error decoding set: {problem}"))?,
                None => Set::default(),
            };
            let id = Id {
                manager: text("manager").into(), // an empty name stays empty here
                ..Id::new("x", operation, api_version, text("subresource"))
            };
            let owned = Owned { fields, api_version: api_version.into(), time: text("time").parse().ok() };
            managers.0.insert(id, owned);
        }
        Ok(managers)
    }

    /// What the object says, or nobody where it cannot be read.
    pub(super) fn of(object: Option<&Object>) -> Self {
        Self::read(object.and_then(|object| object.at(&["metadata", "managedFields"]))).unwrap_or_default()
    }

    /// Writes `metadata.managedFields`, or removes it where nobody owns anything.
    pub(super) fn write(&self, object: &mut Object) {
        if self.0.is_empty() {
            object.metadata_mut().remove("managedFields");
        } else {
            object.metadata_mut().insert("managedFields".into(), self.to_wire());
        }
    }

    /// The entries, appliers first, then by time and name.
    pub(super) fn to_wire(&self) -> Value {
        let mut managers: Vec<_> = self.0.iter().collect();
        managers.sort_by(|(a, a_owned), (b, b_owned)| {
            (a.operation, a_owned.seconds(), &a.manager, &a_owned.api_version, &a.subresource).cmp(&(
                b.operation,
                b_owned.seconds(),
                &b.manager,
                &b_owned.api_version,
                &b.subresource,
            ))
        });
        managers.into_iter().map(|(id, owned)| entry(id, owned)).collect()
    }

    /// Takes fields from a manager; one who owns nothing more is gone.
    pub(super) fn take(&mut self, id: &Id, fields: &Set) {
        if let Some(owned) = self.0.get_mut(id) {
            owned.fields.subtract(fields);
        }
    }

    /// Forgets managers who own nothing.
    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|_, owned| !owned.fields.is_empty());
    }

    /// Merges the oldest managers of updates, version by version, until there are few enough.
    pub(super) fn cap(&mut self) {
        let updaters = || self.0.iter().filter(|(id, _)| id.operation == Operation::Update);
        if updaters().count() <= MAX_UPDATE_MANAGERS {
            return;
        }
        let mut updaters: Vec<_> = updaters().map(|(id, o)| (o.seconds(), id.clone())).collect();
        updaters.sort();
        let mut left = updaters.len();
        let mut firsts: BTreeMap<String, Id> = BTreeMap::new();
        for (_, id) in updaters {
            if left <= MAX_UPDATE_MANAGERS {
                return;
            }
            let Some(owned) = self.0.get(&id).cloned() else { continue };
            let bucket = Id::new(ANCIENT, Operation::Update, &owned.api_version, "");
            let Some(first) = firsts.get(&owned.api_version) else {
                firsts.insert(owned.api_version, id);
                continue;
            };
            if !self.0.contains_key(&bucket)
                && let Some(oldest) = self.0.remove(first)
            {
                self.0.insert(bucket.clone(), oldest);
            }
            if bucket != id {
                self.0.remove(&id);
            }
            left -= 1;
            if let Some(merged) = self.0.get_mut(&bucket) {
                merged.fields = merged.fields.union(&owned.fields);
                merged.time = owned.time; // the newer of both, since the oldest comes first
            }
        }
    }
}

/// One entry of `managedFields`.
pub(super) fn entry(id: &Id, owned: &Owned) -> Value {
    let mut entry = Map::new();
    let mut put = |key: &str, text: &str| {
        if !text.is_empty() {
            entry.insert(key.into(), text.into());
        }
    };
    put("manager", &id.manager);
    put("operation", id.operation.text());
    put("apiVersion", &owned.api_version);
    put("time", &owned.time.map(time_text).unwrap_or_default());
    put("fieldsType", "FieldsV1");
    put("subresource", &id.subresource);
    entry.insert("fieldsV1".into(), owned.fields.to_wire());
    Value::Object(entry)
}
