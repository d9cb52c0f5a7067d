//! Server-side apply: a manager says what it wants, owns that, and loses what it no longer says.
//!
//! Upstream: `structured-merge-diff/merge/update.go`, `apimachinery/pkg/util/managedfields/internal`
//! (`structuredmerge.go`, `lastappliedmanager.go`, `lastappliedupdater.go`, `skipnonapplied.go`, `conflict.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    BEFORE_FIRST_APPLY, Writer,
    managers::{Id, Managers, Operation, Owned},
    merge::{check, merge, reconcile, remove, with_named_parents},
    server_fields,
    set::{Element, Set},
    typed::{Atom, Diff, Ty, compare_objects, equal, fields_of},
};
use crate::{
    base::{Object, Status, limits, status::Cause},
    schema::{ListType, Schema},
};

/// Where `kubectl apply` keeps what it applied last, unless it applies on the server.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The manager whose client-side applies server-side apply takes over.
const KUBECTL: &str = "kubectl";

/// Why an apply failed.
enum Failure {
    /// Others own these fields.
    Conflicts(Vec<Conflict>),
    Other(Status),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Other(status)
    }
}

struct Conflict {
    owner: Id,
    path: Vec<Element>,
    text: String,
}

/// One apply: what does not change between its attempts.
struct Apply<'a> {
    live: Option<&'a Object>,
    applied: &'a Object,
    schema: &'a Schema,
    writer: &'a Writer<'a>,
}

/// Server-side apply: merges `applied` into `live` (`None` where the object does not exist) as the writer.
///
/// The result is not defaulted; of a built-in kind it is decoded. Where nothing but ownership changes, it is `live` with other
/// `managedFields`.
///
/// # Errors
/// 409 with a cause per field that another manager owns, unless `force`; 400 for a configuration of another type or with
/// `managedFields`; 500, as upstream, for one that does not fit the schema.
pub fn apply(
    live: Option<&Object>,
    applied: &Object,
    schema: &Schema,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Object, Status> {
    let managed_fields = live.and_then(|live| live.at(&["metadata", "managedFields"]));
    let managers = Managers::read(managed_fields)
        .map_err(|problem| Status::unexpected(format!("failed to decode managed fields: {problem}")))?;
    let apply = Apply { live, applied, schema, writer };
    apply.check_type()?;
    let (object, managers) = match apply.attempt(managers.clone(), force) {
        Err(Failure::Conflicts(conflicts)) if writer.manager == KUBECTL => match apply.last_applied_fields() {
            None => return Err(conflict_status(&conflicts)),
            Some(allowed) => {
                let conflicts: Vec<_> =
                    conflicts.into_iter().filter(|conflict| !allowed.has_path(&conflict.path)).collect();
                if !conflicts.is_empty() {
                    return Err(conflict_status(&conflicts));
                }
                apply.attempt(managers, true)
            }
        },
        result => result,
    }
    .map_err(|failure| match failure {
        Failure::Conflicts(conflicts) => conflict_status(&conflicts),
        Failure::Other(status) => status,
    })?;
    let mut object = object;
    if writer.manager == KUBECTL && object.annotation(LAST_APPLIED).is_some_and(|text| !text.is_empty()) {
        apply.sync_last_applied(&mut object);
    }
    managers.write(&mut object);
    Ok(object)
}

/// Merges a configuration into an object without asking who owns what, as mutating admission policies do. Lists and maps that
/// are owned as a whole may not be in it.
///
/// # Errors
/// Upstream's words for a configuration that does not fit (`plugin/policy/mutating/patch/smd.go`).
pub fn overlay(live: &Object, mut config: Value, schema: &Schema) -> Result<Object, String> {
    let root = Ty::Root(schema);
    for key in ["apiVersion", "kind"] {
        config[key] = live.str_at(&[key]).into();
    }
    if let Some(problems) = check(root, &config).text() {
        return Err(format!("failed to convert patch object to typed object: {problems}"));
    }
    let mut whole = Vec::new();
    find_atomic(root, &config, &mut String::new(), &mut whole);
    if !whole.is_empty() {
        let whole = whole.join(", ");
        return Err(format!("invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {whole}"));
    }
    let merged = merge(root, Some(&live.to_value()), Some(&config));
    let merged = merged.map_err(|problem| format!("failed to merge patch: {problem}"))?;
    Ok(merged.and_then(Object::from_value).unwrap_or_default())
}

fn find_atomic(ty: Ty<'_>, value: &Value, path: &mut String, found: &mut Vec<String>) {
    let length = path.len();
    match (ty.atom(Some(value)), value) {
        (Atom::Map { atomic, ty }, Value::Object(map)) => {
            if atomic {
                found.push(path.clone());
            }
            for (key, value) in map {
                if let (child, true) = ty.member(key) {
                    path.push('.');
                    path.push_str(key);
                    find_atomic(child, value, path, found);
                    path.truncate(length);
                }
            }
        }
        (Atom::List { list_type, items }, Value::Array(list)) => {
            if *list_type == ListType::Atomic {
                found.push(path.clone());
            }
            for (index, item) in list.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                find_atomic(items, item, path, found);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

impl Apply<'_> {
    /// The type of an object as messages show it: `apps/v1, Kind=Deployment`.
    fn type_text(object: &Object) -> String {
        let version = object.api_version();
        let slash = if version.contains('/') { "" } else { "/" };
        format!("{slash}{version}, Kind={}", object.kind())
    }

    fn check_type(&self) -> Result<(), Status> {
        let definition = if self.schema.builtin { self.schema.root.definition.as_str() } else { "" };
        let kind = match definition.rsplit_once('.') {
            Some((_, kind)) => kind,
            None => self.live.map_or(self.applied.kind(), Object::kind),
        };
        if self.applied.api_version() == self.writer.api_version && self.applied.kind() == kind {
            return Ok(());
        }
        Err(Status::bad_request(format!("invalid object type: {}", Self::type_text(self.applied))))
    }

    fn attempt(&self, mut managers: Managers, force: bool) -> Result<(Object, Managers), Failure> {
        let root = Ty::Root(self.schema);
        if managers.0.is_empty()
            && let Some(live) = self.live
        {
            let writer = Writer { manager: BEFORE_FIRST_APPLY, ..self.writer.clone() };
            super::update(None, live, self.schema, &writer, &mut managers)
                .map_err(|problem| unexpected(format!("failed to create manager for existing fields: {problem}")))?;
        }
        if self.applied.at(&["metadata", "managedFields"]).is_some_and(Value::is_array) {
            return Err(Status::bad_request("metadata.managedFields must be nil").into());
        }
        let config = self.applied.to_value();
        if let Some(problems) = check(root, &config).text() {
            let (namespace, name, kind) =
                (self.applied.namespace(), self.applied.name(), Self::type_text(self.applied));
            return Err(unexpected(format!(
                "failed to create typed patch object ({namespace}/{name}; {kind}): {problems}"
            )));
        }
        let here = |owned: &Owned| self.writer.versions.is_none() || owned.api_version == self.writer.api_version;
        for owned in managers.0.values_mut().filter(|owned| here(owned)) {
            if let Some(fields) = reconcile(root, &owned.fields) {
                owned.fields = fields;
            }
        }

        let live = self.bare_live();
        let failed = |problem| unexpected(format!("failed to merge config: {problem}"));
        let merged = merge(root, Some(&live), Some(&config)).map_err(failed)?.unwrap_or_default();
        let reset = Set::of_fields(self.writer.reset);
        let no_set = |problem| unexpected(format!("failed to get field set: {problem}"));
        let fields = fields_of(root, &config).map_err(no_set)?.recursive_difference(&reset);
        let id = Id::new(self.writer.manager, Operation::Apply, "", self.writer.subresource);
        let api_version = self.writer.api_version.to_owned();
        let last = managers.0.remove(&id);
        let time = last.as_ref().and_then(|owned| owned.time);
        managers.0.insert(id.clone(), Owned { fields, api_version, time });
        let new = match last {
            Some(last) if !last.fields.is_empty() => self
                .prune(merged, &last, &managers)
                .map_err(|problem| unexpected(format!("failed to prune fields: {problem}")))?,
            Some(_) | None => merged,
        };

        self.take_over(&live, &new, &id, &mut managers, &reset, force)?;
        let changed = !equal(&live, &new);
        if let Some(owned) = managers.0.get_mut(&id) {
            owned.fields = owned.fields.difference(server_fields());
            if changed {
                owned.time = Some(self.writer.now);
            }
        }
        managers.drop_empty();
        let object = match self.live {
            Some(live) if !changed => live.clone(),
            Some(_) | None => self.decode(new)?,
        };
        Ok((object, managers))
    }

    /// A value in another version, with the schema of that; `None` for a version that is not served.
    fn in_version<'b>(&'b self, value: &Value, api_version: &str) -> Result<Option<(Value, &'b Schema)>, String> {
        let Some(versions) = self.writer.versions.filter(|_| value["apiVersion"] != *api_version) else {
            let schema = match self.writer.versions.and_then(|versions| versions.schemas.get(api_version)) {
                Some(schema) => schema,
                None => self.schema,
            };
            return Ok(Some((value.clone(), schema)));
        };
        let object = Object::from_value(value.clone()).unwrap_or_default();
        let converted = versions.convert(&object, api_version)?;
        Ok(converted.map(|(object, schema)| (object.into_value(), schema)))
    }

    /// Removes what the manager applied last and does not apply now, where nobody else owns it. What each manager owns is
    /// looked up in the version in which it does, so that the object may go through several on its way.
    fn prune(&self, merged: Value, last: &Owned, managers: &Managers) -> Result<Value, String> {
        let failed = |why| format!("failed to convert merged object to last applied version: {why}");
        let Some((merged, schema)) = self.in_version(&merged, &last.api_version).map_err(failed)? else {
            return Ok(merged);
        };
        let root = Ty::Root(schema);
        let named = |root, set: &Set| with_named_parents(root, set);
        let last_fields = named(root, &last.fields);
        let mut pruned = remove(root, &merged, &last_fields);

        let mut owned: BTreeMap<&str, Set> = BTreeMap::new();
        for owner in managers.0.values() {
            let set = owned.entry(&owner.api_version).or_default();
            *set = set.union(&owner.fields);
        }
        if self.writer.versions.is_none() {
            let all = owned.values().fold(Set::default(), |all, set| all.union(set));
            owned = [(last.api_version.as_str(), all)].into();
        }
        // First in the version that was pruned: what is taken away for good could be what a conversion needs.
        let mut order: Vec<&str> = owned.keys().copied().collect();
        order.sort_by_key(|version| *version != last.api_version);
        let mut whole = merged.clone();
        for version in order {
            let failed = |what: &'static str| {
                move |why| {
                    format!("failed add back owned items: failed to convert {what} object at version {version}: {why}")
                }
            };
            let Some((there, schema)) = self.in_version(&whole, version).map_err(failed("merged"))? else { continue };
            let root = Ty::Root(schema);
            let Some((left, _)) = self.in_version(&pruned, version).map_err(failed("pruned"))? else { continue };
            let (had, has) = (named(root, &fields_of(root, &there)?), named(root, &fields_of(root, &left)?));
            let kept = has.union(&named(root, owned.get(version).unwrap_or(&Set::default())));
            pruned = remove(root, &there, &had.difference(&kept));
            whole = there;
        }

        // What went without having been the manager's comes back: it is nobody's.
        let failed = |why| {
            format!("failed add back dangling items: failed to convert pruned object at last applied version: {why}")
        };
        let Some((pruned, _)) = self.in_version(&pruned, &last.api_version).map_err(failed)? else { return Ok(merged) };
        let (had, has) = (named(root, &fields_of(root, &merged)?), named(root, &fields_of(root, &pruned)?));
        let pruned = remove(root, &merged, &had.difference(&has).intersection(&last_fields));
        Ok(self.in_version(&pruned, self.writer.api_version)?.map_or(pruned, |(pruned, _)| pruned))
    }

    /// The object as its Go type has it, where the kind is built in.
    fn decode(&self, value: Value) -> Result<Object, Failure> {
        let value = if self.schema.builtin {
            let failed = |problem: String| {
                let (namespace, name) = (self.applied.namespace(), self.applied.name());
                let kind = Self::type_text(self.applied);
                let json = if problem.starts_with("illegal base64") { "error decoding from json: " } else { "" };
                unexpected(format!(
                    "failed to convert new object ({namespace}/{name}; {kind}) to proper version: unable to convert \
                     unstructured object to {kind}: {json}{problem}"
                ))
            };
            self.schema.decode(value).map_err(failed)?.value
        } else {
            value
        };
        Object::from_value(value).ok_or_else(|| unexpected("nothing is left of the object"))
    }

    /// The object as it is, without `managedFields`.
    fn bare_live(&self) -> Value {
        let mut live = self.live.cloned().unwrap_or_default();
        if self.live.is_some() {
            live.metadata_mut().remove("managedFields");
        }
        live.into_value()
    }

    /// Moves ownership of what changes from others to the writer, if they may lose it.
    fn take_over(
        &self,
        live: &Value,
        new: &Value,
        id: &Id,
        managers: &mut Managers,
        reset: &Set,
        force: bool,
    ) -> Result<(), Failure> {
        let empty = Map::new();
        let (before, after) = (live.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty));
        let diff = compare_objects(Ty::Root(self.schema), before, after)
            .map_err(|problem| unexpected(format!("failed to compare objects: {problem}")))?
            .without(reset);
        let others: Vec<_> = managers.0.keys().filter(|other| *other != id).cloned().collect();
        let elsewhere = self.diffs_elsewhere(live, new, managers).map_err(unexpected)?;
        // Nobody can say what fields of a version mean that is no longer served.
        managers.0.retain(|_, owned| !matches!(elsewhere.get(&owned.api_version), Some(None)));
        let diff_for = |owned: &Owned| match elsewhere.get(&owned.api_version) {
            Some(Some(diff)) => diff,
            Some(None) | None => &diff,
        };
        let mut lost: BTreeMap<Id, Set> = BTreeMap::new();
        let mut removed: BTreeMap<Id, Set> = BTreeMap::new();
        for (other, owned) in managers.0.iter().filter(|(other, _)| *other != id) {
            let diff = diff_for(owned);
            let conflict = owned.fields.intersection(&diff.modified.union(&diff.added));
            if !conflict.is_empty() {
                lost.insert(other.clone(), conflict);
            }
            removed.insert(other.clone(), diff.removed.clone());
        }
        if !force && !lost.is_empty() {
            let conflicts = lost.iter().flat_map(|(owner, fields)| {
                let conflict = |(path, text)| Conflict { owner: owner.clone(), path, text };
                fields.paths().into_iter().map(conflict).collect::<Vec<_>>()
            });
            return Err(Failure::Conflicts(conflicts.collect()));
        }
        for other in others {
            for fields in [lost.get(&other), removed.get(&other)].into_iter().flatten() {
                managers.take(&other, fields);
            }
        }
        managers.drop_empty();
        Ok(())
    }

    /// How the object changes in the terms of other versions that managers know it in; `None` for one that is not served.
    fn diffs_elsewhere(
        &self,
        live: &Value,
        new: &Value,
        managers: &Managers,
    ) -> Result<BTreeMap<String, Option<Diff>>, String> {
        let Some(versions) = self.writer.versions else { return Ok(BTreeMap::new()) };
        let (live, new) = (Object::from_value(live.clone()), Object::from_value(new.clone()).unwrap_or_default());
        let live = live.filter(|_| self.live.is_some());
        let others = managers.0.values().map(|owned| &owned.api_version);
        let others = others.filter(|version| *version != self.writer.api_version);
        let diff = |version: &String| {
            let diff = super::difference_in(versions, version, live.as_ref(), &new, self.writer)?;
            Ok((version.clone(), diff))
        };
        others.map(diff).collect()
    }

    /// The fields that kubectl applied from its side and that are still as it left them: it may take these over.
    fn last_applied_fields(&self) -> Option<Set> {
        let live = self.live?;
        let last: Value = serde_json::from_str(live.annotation(LAST_APPLIED)?).ok()?;
        let root = Ty::Root(self.schema);
        if last.get("apiVersion")?.as_str()? != self.writer.api_version || check(root, &last).text().is_some() {
            return None;
        }
        let fields = fields_of(root, &last).ok()?;
        let bare = self.bare_live();
        let diff = compare_objects(root, last.as_object()?, bare.as_object()?).ok()?;
        Some(fields.difference(&diff.modified).difference(&diff.added).difference(&diff.removed))
    }

    /// Writes the configuration into the annotation that client-side apply reads, unless that would be too large.
    fn sync_last_applied(&self, object: &mut Object) {
        let mut config = self.applied.clone();
        config.remove_at(&["metadata", "annotations", LAST_APPLIED]);
        let text = format!("{}\n", config.into_value());
        let others: usize =
            object.annotations().iter().filter(|(key, _)| *key != LAST_APPLIED).map(|(k, v)| k.len() + v.len()).sum();
        if others + LAST_APPLIED.len() + text.len() > limits::ANNOTATIONS_BYTES {
            object.remove_at(&["metadata", "annotations", LAST_APPLIED]);
        } else {
            object.set_at(&["metadata", "annotations", LAST_APPLIED], text);
        }
    }
}

fn unexpected(message: impl Into<String>) -> Failure {
    Failure::Other(Status::unexpected(message))
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {}", conflict.owner.in_conflict()),
            field: conflict.text.clone(),
        })
        .collect();
    let message = match conflicts {
        [only] => {
            format!("Apply failed with 1 conflict: conflict with {}: {}", only.owner.in_conflict(), only.text)
        }
        all => {
            let mut lines = Vec::new();
            let mut owner = None;
            for conflict in all {
                if owner.replace(&conflict.owner) != Some(&conflict.owner) {
                    lines.push(format!("conflicts with {}:", conflict.owner.in_conflict()));
                }
                lines.push(format!("- {}", conflict.text));
            }
            format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
        }
    };
    Status::apply_conflict(message, causes)
}
