//! The templates that stateful and daemon sets had, as ControllerRevisions.
//!
//! Upstream: `pkg/controller/history/controller_history.go`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{apps, claim, controller_reference, found, hash_text, int};
use crate::{
    actor::{Api, DeletePolicy},
    base::{Gvr, Object, Status, Stored},
};

/// The label of pods that says which revision they were made from.
pub(super) const HASH: &str = "controller-revision-hash";

fn gvr() -> Gvr {
    apps("controllerrevisions")
}

/// The revisions of a set, oldest first; the last one has the template of now.
pub(super) async fn keep(api: &Api, set: &Stored, hash_label: &str) -> Result<Vec<Arc<Stored>>, Status> {
    let mut all = claim(api, set, &gvr()).await?;
    all.sort_by_key(|revision| (int(revision, &["revision"]), revision.name().to_owned()));
    let mut template = set.at(&["spec", "template"]).cloned().unwrap_or_default();
    template["$patch"] = "replace".into();
    let data = json!({ "spec": { "template": template } });
    let next = all.last().map(|last| int(last, &["revision"])).unwrap_or_default() + 1;
    match all.iter().rposition(|revision| revision.get("data") == Some(&data)) {
        Some(at) if at + 1 == all.len() => {}
        Some(at) => {
            let again = all.remove(at);
            let mut changed = again.object().clone();
            changed.set("revision", next);
            all.extend(found(api.update(&gvr(), changed, "").await)?);
        }
        None => {
            let hash = hash_text(&data, int(set, &["status", "collisionCount"]));
            let name = format!("{}-{hash}", set.name());
            let mut revision = Object::new("apps/v1", "ControllerRevision", set.namespace(), &name);
            let labels = set.at(&["spec", "template", "metadata", "labels"]).cloned().unwrap_or_else(|| json!({}));
            revision.set_at(&["metadata", "labels"], labels);
            revision.set_at(&["metadata", "labels", hash_label], hash);
            let mut annotations = set.annotations();
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
            if !annotations.is_empty() {
                revision.set_at(&["metadata", "annotations"], json!(annotations));
            }
            revision.set_at(&["metadata", "ownerReferences"], json!([controller_reference(set)]));
            revision.set("data", data);
            revision.set("revision", next);
            all.push(api.create(&gvr(), revision).await?);
        }
    }
    Ok(all)
}

/// The template that a revision keeps.
pub(super) fn template(revision: &Object) -> Value {
    let mut template = revision.at(&["data", "spec", "template"]).cloned().unwrap_or_default();
    if let Some(map) = template.as_object_mut() {
        map.remove("$patch");
    }
    template
}

/// Removes the oldest revisions beyond the set's limit that no pod was made from.
pub(super) async fn clean_up(
    api: &Api,
    set: &Object,
    all: &[Arc<Stored>],
    used: impl Fn(&Stored) -> bool,
) -> Result<(), Status> {
    let limit = set.at(&["spec", "revisionHistoryLimit"]).and_then(Value::as_u64).unwrap_or(10);
    let free: Vec<_> = all.iter().filter(|revision| !used(revision)).collect();
    let surplus = free.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
    for revision in free.into_iter().take(surplus) {
        match api.delete(&gvr(), revision.namespace(), revision.name(), &DeletePolicy::default()).await {
            Err(error) if !error.is_not_found() => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
