//! Ownership of a scale: the one field of an object that its `scale` subresource shows under another name.
//!
//! Upstream: `apimachinery/pkg/util/managedfields/scalehandler.go`.

use serde_json::Value;

use super::{
    managers::{Id, Managers, Owned, entry},
    set::{Element, Set},
};
use crate::base::Object;

const SCALE: &str = "autoscaling/v1";
const REPLICAS: [&str; 2] = ["spec", "replicas"];

fn elements(path: &[&str]) -> Vec<Element> {
    path.iter().map(|name| Element::field(name)).collect()
}

/// The `managedFields` of the scale of an object whose replicas stand at `path`.
pub fn scale_owners(object: &Object, path: &[&str]) -> Value {
    let (managers, path) = (Managers::of(Some(object)), elements(path));
    let owners = managers.0.iter().filter(|(_, owned)| owned.fields.has_path(&path));
    let owners = owners.map(|(id, owned)| {
        let fields = Set::of_fields(&[&REPLICAS]);
        entry(id, &Owned { fields, api_version: SCALE.into(), time: owned.time })
    });
    owners.collect()
}

/// The `managedFields` of an object after its scale was written, in the object's version.
///
/// A manager that came by the scale has no time, as upstream looks for it among those that the object had.
pub fn owners_after_scale(object: &Object, scale: &Object, path: &[&str], api_version: &str) -> Value {
    let (before, mut scale) = (Managers::of(Some(object)), Managers::of(Some(scale)));
    let (replicas, path) = (Set::of_fields(&[path]), elements(path));
    let mut entries = Vec::new();
    for (id, owned) in &before.0 {
        if !owned.fields.has_path(&path) || scale.0.remove(id).is_some() {
            entries.push(entry(id, owned));
            continue;
        }
        let fields = owned.fields.difference(&replicas);
        if !fields.is_empty() {
            entries.push(entry(id, &Owned { fields, ..owned.clone() }));
        }
    }
    for (id, owned) in scale.0 {
        if owned.fields.has_path(&elements(&REPLICAS)) {
            let time = before.0.get(&id).and_then(|owned| owned.time);
            let id = Id::new(&id.manager, id.operation, api_version, &id.subresource);
            entries.push(entry(&id, &Owned { fields: replicas.clone(), api_version: api_version.into(), time }));
        }
    }
    entries.into()
}
