//! The controllers that make pods out of other objects: replica sets, deployments, stateful sets, daemon sets, jobs, cron
//! jobs, and the endpoints of services. They run where pods run.
//!
//! Each file is one controller: what has to be done is decided by functions over objects, and carried out by its
//! `reconcile`. Every reconciliation reads what is there now, so that none has to remember what it has asked for.

mod cron_job;
mod daemon_set;
mod deployment;
mod endpoints;
mod job;
mod pods;
mod replica_set;
mod revisions;
mod stateful_set;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::{Map, Value, json};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Change, Server, Source},
    base::{Gvr, Object, Status, Stored, selector::LabelSelector},
    clock::time_text,
};

/// Namespace and name.
type Key = (String, String);

/// Starts them all on the tracker; they end with the token.
pub(super) fn start(server: &Server, tasks: &TaskTracker, token: &CancellationToken) {
    actor::start(server, tasks, token, "replicaset-controller", |server, token| {
        replica_set::run(server, replica_set::REPLICA_SETS, token)
    });
    actor::start(server, tasks, token, "replicationcontroller-controller", |server, token| {
        replica_set::run(server, replica_set::REPLICATION_CONTROLLERS, token)
    });
    actor::start(server, tasks, token, "deployment-controller", deployment::run);
    actor::start(server, tasks, token, "statefulset-controller", stateful_set::run);
    actor::start(server, tasks, token, "daemonset-controller", daemon_set::run);
    actor::start(server, tasks, token, "job-controller", job::run);
    actor::start(server, tasks, token, "cronjob-controller", cron_job::run);
    actor::start(server, tasks, token, "endpointslice-controller", endpoints::run);
}

fn core(resource: &str) -> Gvr {
    Gvr::new("", "v1", resource)
}

fn apps(resource: &str) -> Gvr {
    Gvr::new("apps", "v1", resource)
}

fn batch(resource: &str) -> Gvr {
    Gvr::new("batch", "v1", resource)
}

/// The road of one of kube-controller-manager's controllers.
fn api_of(server: Server, controller: &str) -> Api {
    Api::new(server, &format!("system:serviceaccount:kube-system:{controller}"), KUBE_CONTROLLER_MANAGER)
}

fn key_of(object: &Object) -> Key {
    (object.namespace().to_owned(), object.name().to_owned())
}

/// The selector of an owner: a `LabelSelector`, or the map that replication controllers have.
fn selector_of(owner: &Object) -> LabelSelector {
    let selector = owner.at(&["spec", "selector"]);
    if owner.kind() == "ReplicationController" {
        return LabelSelector::from_labels(&labels_in(selector));
    }
    LabelSelector::from_value(selector).unwrap_or_default()
}

fn labels_in(value: Option<&Value>) -> BTreeMap<String, String> {
    let map = value.and_then(Value::as_object).into_iter().flatten();
    map.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// The changes that concern the owners of a kind: their own, and those of dependents that they control or could adopt.
fn sources(owners: Gvr, kind: &'static str, dependents: Gvr) -> Vec<Source<Key>> {
    let selectors: Arc<Mutex<BTreeMap<Key, LabelSelector>>> = Arc::default();
    let known = selectors.clone();
    let own = Source::all(owners, move |change| {
        let key = key_of(change.object());
        let mut known = known.lock().expect("no panic under this lock");
        match change {
            Change::Applied { new, .. } => known.insert(key.clone(), selector_of(new)),
            Change::Gone(_) => known.remove(&key),
        };
        vec![key]
    });
    let dependents = Source::all(dependents, move |change| {
        let versions = [Some(change.object()), change.before()];
        let mut keys = Vec::new();
        for object in versions.into_iter().flatten() {
            match object.controller() {
                Some(owner) if owner.kind == kind => keys.push((object.namespace().to_owned(), owner.name)),
                Some(_) => {}
                None => {
                    let selectors = selectors.lock().expect("no panic under this lock");
                    let adopters = selectors.iter().filter(|((namespace, _), selector)| {
                        namespace == object.namespace() && !selector.is_empty() && selector.matches_object(object)
                    });
                    keys.extend(adopters.map(|(key, _)| key.clone()));
                }
            }
        }
        keys
    });
    vec![own, dependents]
}

/// The reference of a controller to what it makes.
fn controller_reference(owner: &Object) -> Value {
    json!({
        "apiVersion": owner.api_version(), "kind": owner.kind(), "name": owner.name(), "uid": owner.uid(),
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The dependents of an owner in its namespace: those it controls and selects, orphans that it selects and now adopts;
/// those that it controls and no longer selects are let go.
///
/// Upstream: `pkg/controller/controller_ref_manager.go`.
async fn claim(api: &Api, owner: &Object, gvr: &Gvr) -> Result<Vec<Arc<Stored>>, Status> {
    let selector = selector_of(owner);
    let (all, _) = api.list(gvr, owner.namespace(), "").await?;
    let mut claimed = Vec::new();
    for object in all {
        let selected = !selector.is_empty() && selector.matches_object(&object);
        match object.controller() {
            Some(controller) if controller.uid == owner.uid() => {
                if selected {
                    claimed.push(object);
                } else if !owner.is_deleting() && !object.is_deleting() {
                    let kept: Vec<Value> = references(&object)
                        .into_iter()
                        .filter(|reference| reference.get("uid").and_then(Value::as_str) != Some(owner.uid()))
                        .collect();
                    set_references(api, gvr, &object, kept).await?;
                }
            }
            None if selected && !owner.is_deleting() && !object.is_deleting() && is_active(&object) => {
                let mut references = references(&object);
                references.push(controller_reference(owner));
                if let Some(adopted) = set_references(api, gvr, &object, references).await? {
                    claimed.push(adopted);
                }
            }
            Some(_) | None => {}
        }
    }
    Ok(claimed)
}

/// Whether an object may still do something; only pods may not.
fn is_active(object: &Object) -> bool {
    object.kind() != "Pod" || pods::is_active(object)
}

fn references(object: &Object) -> Vec<Value> {
    object.at(&["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default()
}

async fn set_references(
    api: &Api,
    gvr: &Gvr,
    object: &Stored,
    references: Vec<Value>,
) -> Result<Option<Arc<Stored>>, Status> {
    let mut changed = object.object().clone();
    changed.set_at(&["metadata", "ownerReferences"], references);
    found(api.update(gvr, changed, "").await)
}

/// What a write made; `None` if the object is gone.
fn found(written: Result<Arc<Stored>, Status>) -> Result<Option<Arc<Stored>>, Status> {
    match written {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a status where it differs from what stands there; the object as it is then.
async fn write_status(api: &Api, gvr: &Gvr, object: &Arc<Stored>, status: Value) -> Result<Arc<Stored>, Status> {
    if object.get("status") == Some(&status) {
        return Ok(object.clone());
    }
    let mut changed = object.object().clone();
    changed.set("status", status);
    Ok(found(api.update(gvr, changed, "status").await)?.unwrap_or_else(|| object.clone()))
}

fn int(object: &Object, path: &[&str]) -> i64 {
    object.at(path).and_then(Value::as_i64).unwrap_or_default()
}

/// A status' members, where zero and empty ones are left out as upstream's types do.
#[derive(Clone, Debug, Default)]
struct StatusMap(Map<String, Value>);

impl StatusMap {
    /// The status as it stands.
    fn of(object: &Object) -> Self {
        Self(object.get("status").and_then(Value::as_object).cloned().unwrap_or_default())
    }

    fn count(&mut self, field: &str, count: i64) {
        match count {
            0 => self.0.remove(field),
            count => self.0.insert(field.into(), count.into()),
        };
    }

    fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0.insert(field.into(), value.into());
    }

    fn get(&self, field: &str) -> i64 {
        self.0.get(field).and_then(Value::as_i64).unwrap_or_default()
    }

    fn condition(&self, kind: &str) -> Option<&Value> {
        let conditions = self.0.get("conditions")?.as_array()?;
        conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))
    }

    fn remove_condition(&mut self, kind: &str) {
        let Some(conditions) = self.0.get_mut("conditions").and_then(Value::as_array_mut) else { return };
        conditions.retain(|condition| condition.get("type").and_then(Value::as_str) != Some(kind));
        if conditions.is_empty() {
            self.0.remove("conditions");
        }
    }

    /// Adds a condition after the others of its list, in place of the one of its type.
    fn push_condition(&mut self, condition: Value) {
        self.remove_condition(&text(&condition, "type"));
        let conditions = self.0.entry("conditions").or_insert_with(|| json!([]));
        if let Some(conditions) = conditions.as_array_mut() {
            conditions.push(condition);
        }
    }

    fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// A condition with the time of its last change.
fn condition(kind: &str, status: &str, reason: &str, message: &str, now: jiff::Timestamp) -> Value {
    json!({
        "type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": time_text(now),
    })
}

/// `IntOrString` of a total, rounded up or down; `None` if it is neither (`GetScaledValueFromIntOrPercent`).
fn scaled(value: Option<&Value>, total: i64, up: bool) -> Option<i64> {
    match value? {
        Value::Number(number) => number.as_i64(),
        Value::String(percent) => {
            let percent: i64 = percent.strip_suffix('%')?.parse().ok()?;
            let product = percent.saturating_mul(total);
            Some(if up { product.saturating_add(99).div_euclid(100) } else { product.div_euclid(100) })
        }
        _ => None,
    }
}

/// A hash of a value in the letters of generated names (`ComputeHash` in `controller_utils.go`; upstream hashes Go's own
/// print of the type, which nobody else can make, so that only length and letters agree).
fn hash_text(value: &Value, salt: i64) -> String {
    const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut hash: u32 = 0x811c_9dc5; // FNV-1a
    for byte in value.to_string().bytes().chain(salt.to_string().bytes().filter(|_| salt != 0)) {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    hash.to_string().bytes().map(|digit| LETTERS[usize::from(digit) % LETTERS.len()] as char).collect()
}
