//! Managed fields: who owns which field, server-side apply and its conflicts; and strategic merge patch, which needs the
//! same knowledge of lists. Knows one object (or old and new) and one schema.
//!
//! In reading order: [`set`] (sets of fields), `typed` (values seen through a schema), `managers` (who owns what),
//! [`track`], `apply`, `strategic`, `scale`.
//!
//! Upstream: `sigs.k8s.io/structured-merge-diff` and `k8s.io/apimachinery/pkg/util/managedfields`.

mod apply;
mod managers;
mod merge;
mod scale;
pub mod set;
mod strategic;
mod typed;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
};

use jiff::Timestamp;
use serde_json::{Map, Value};

pub use self::{
    apply::{apply, overlay},
    scale::{owners_after_scale, scale_owners},
    strategic::strategic,
};
use self::{
    managers::{Id, Managers, Operation, Owned},
    set::Set,
    typed::{Diff, Ty},
};
use crate::{base::Object, schema::Schema};

/// Who writes, and through which door.
#[derive(Clone, Debug)]
pub struct Writer<'a> {
    /// Name of the field manager.
    pub manager: &'a str,
    /// `apiVersion` of the object in the request.
    pub api_version: &'a str,
    /// Subresource written through, `""` for the object itself.
    pub subresource: &'a str,
    /// Paths that this door does not write (`["status"]` for the object itself where status is a subresource).
    pub reset: &'a [&'a [&'a str]],
    /// The time of the write.
    pub now: Timestamp,
    /// The kind's other versions, whose managers are asked in their own terms; `None` where the fields of all versions
    /// have the same names.
    pub versions: Option<&'a Versions>,
}

/// Converts an object to an `apiVersion`.
pub type Convert = Arc<dyn Fn(&Object, &str) -> Result<Object, String> + Send + Sync>;

/// The versions of a kind, and what converts between them.
#[derive(Clone)]
pub struct Versions {
    /// What converts.
    pub convert: Convert,
    /// The schema of each served version, by `apiVersion`.
    pub schemas: BTreeMap<String, Arc<Schema>>,
}

impl fmt::Debug for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.schemas.keys()).finish()
    }
}

impl Versions {
    /// An object in another version, with the schema of that; `None` for a version that is not served.
    fn convert(&self, object: &Object, api_version: &str) -> Result<Option<(Object, &Schema)>, String> {
        let Some(schema) = self.schemas.get(api_version) else { return Ok(None) };
        Ok(Some(((self.convert)(object, api_version)?, schema)))
    }
}

/// The manager of what an object had before it was first applied, if nobody owned it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Records in `new` what the writer of a create, update or patch now owns, given what was there before.
///
/// Upstream does this before admission and before the kind's own rules (`PrepareForUpdate`), so that what those change
/// is nobody's; `new` is decoded and defaulted by then.
pub fn track(live: Option<&Object>, new: &mut Object, schema: &Schema, writer: &Writer<'_>) {
    let sent = new.metadata_mut().remove("managedFields");
    let mut managers = if writer.subresource.is_empty() {
        match sent {
            Some(sent) if is_reset(&sent) => Managers::default(),
            sent => match Managers::read(sent.as_ref()) {
                Ok(managers) if !managers.0.is_empty() => managers,
                Ok(_) | Err(_) => Managers::of(live),
            },
        }
    } else {
        Managers::of(live) // a subresource cannot set managedFields
    };
    // Nobody owns anything of an object whose ownership was reset, until it is applied.
    let is_tracked = live.is_none() || !managers.0.is_empty();
    if is_tracked && let Err(_problem) = update(live, new, schema, writer, &mut managers) {
        managers = Managers::of(live); // what upstream does where a list cannot be understood
    }
    managers.write(new);
}

/// Gives the managers of `new` their old times back where nothing else differs from `live`, so that a write which changes
/// nothing stays one. To be called once `new` is ready to be stored.
///
/// Upstream: `IgnoreManagedFieldsTimestampsTransformer`.
pub fn keep_times(live: &Object, new: &mut Object) {
    let path = ["metadata", "managedFields"];
    let (Some(before), Some(after)) = (live.at(&path), new.at(&path)) else { return };
    if before == after || !same_but_times(before, after) {
        return;
    }
    let is_same = |key: &String, value: &Value| match (key.as_str(), value, new.get(key)) {
        ("metadata", Value::Object(before), Some(Value::Object(after))) => {
            before.len() == after.len()
                && before.iter().all(|(key, value)| key == "managedFields" || after.get(key) == Some(value))
        }
        (_, before, after) => after == Some(before),
    };
    if live.as_map().len() == new.as_map().len() && live.as_map().iter().all(|(key, value)| is_same(key, value)) {
        let before = before.clone();
        new.metadata_mut().insert("managedFields".into(), before);
    }
}

fn same_but_times(before: &Value, after: &Value) -> bool {
    let (Ok(mut before), Ok(mut after)) = (Managers::read(Some(before)), Managers::read(Some(after))) else {
        return false;
    };
    for owned in before.0.values_mut().chain(after.0.values_mut()) {
        owned.time = None;
    }
    before == after
}

/// Whether a client that sends this wants ownership forgotten: an empty list, or one empty entry.
fn is_reset(managed_fields: &Value) -> bool {
    match managed_fields.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        Some(_) | None => false,
    }
}

/// The fields that no manager owns: they belong to the server.
fn server_fields() -> &'static Set {
    static FIELDS: OnceLock<Set> = OnceLock::new();
    FIELDS.get_or_init(|| {
        Set::of_fields(&[
            &["apiVersion"],
            &["kind"],
            &["metadata"],
            &["metadata", "name"],
            &["metadata", "namespace"],
            &["metadata", "creationTimestamp"],
            &["metadata", "selfLink"],
            &["metadata", "uid"],
            &["metadata", "clusterName"],
            &["metadata", "generation"],
            &["metadata", "managedFields"],
            &["metadata", "resourceVersion"],
        ])
    })
}

/// How `new` differs from `live` in what the writer's door writes.
fn difference(live: Option<&Object>, new: &Object, schema: &Schema, writer: &Writer<'_>) -> Result<Diff, String> {
    let empty = Map::new();
    let live = live.map_or(&empty, Object::as_map);
    Ok(typed::compare_objects(Ty::Root(schema), live, new.as_map())?.without(&Set::of_fields(writer.reset)))
}

/// As [`difference`], in another version; `None` for one that is not served.
fn difference_in(
    versions: &Versions,
    api_version: &str,
    live: Option<&Object>,
    new: &Object,
    writer: &Writer<'_>,
) -> Result<Option<Diff>, String> {
    let converted = |object, which: &str| {
        versions.convert(object, api_version).map_err(|why| format!("failed to convert {which} object: {why}"))
    };
    let Some((new, schema)) = converted(new, "new")? else { return Ok(None) };
    let live = live.map(|live| converted(live, "old")).transpose()?.flatten().map(|(live, _)| live);
    Ok(difference(live.as_ref(), &new, schema, writer).ok())
}

/// Moves ownership of what an update changed.
fn update(
    live: Option<&Object>,
    new: &Object,
    schema: &Schema,
    writer: &Writer<'_>,
    managers: &mut Managers,
) -> Result<(), String> {
    if !schema.builtin {
        // A custom object cannot be converted to versions of other groups: who owns something in one is forgotten.
        let group = |version: &str| version.rsplit_once('/').map(|(group, _)| group.to_owned());
        managers.0.retain(|_, owned| group(&owned.api_version) == group(writer.api_version));
    }
    let diff = difference(live, new, schema, writer)?;
    if !diff.is_empty() {
        let mut elsewhere: BTreeMap<String, Option<Diff>> = BTreeMap::new();
        for owned in managers.0.values_mut() {
            let diff = match writer.versions.filter(|_| owned.api_version != writer.api_version) {
                None => Some(&diff),
                Some(versions) => {
                    if !elsewhere.contains_key(&owned.api_version) {
                        let diff = difference_in(versions, &owned.api_version, live, new, writer)?;
                        elsewhere.insert(owned.api_version.clone(), diff);
                    }
                    elsewhere.get(&owned.api_version).and_then(Option::as_ref)
                }
            };
            match diff {
                // Nobody can say what fields of a version mean that is no longer served.
                None => owned.fields = Set::default(),
                Some(diff) => {
                    for lost in [&diff.modified, &diff.added, &diff.removed] {
                        owned.fields.subtract(lost);
                    }
                }
            }
        }
        managers.drop_empty();
        let mut fields = diff.modified.union(&diff.added);
        fields.subtract(server_fields());
        if !fields.is_empty() {
            let id = Id::new(writer.manager, Operation::Update, writer.api_version, writer.subresource);
            let fields = match managers.0.get(&id) {
                Some(owned) => owned.fields.union(&fields),
                None => fields,
            };
            let api_version = writer.api_version.into();
            managers.0.insert(id, Owned { fields, api_version, time: Some(writer.now) });
        }
    }
    managers.drop_empty();
    managers.cap();
    Ok(())
}

#[cfg(test)]
mod tests;
