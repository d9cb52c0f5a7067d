//! Deletion: preconditions, grace, finalizers, propagation (`k8s.io/apiserver/pkg/registry/generic/registry/store.go`).

use std::sync::Arc;

use serde_json::Value;

use super::{
    Caller, DeleteOptions, Deleted, List, ListOptions, Registry, Resource, Target, crd, hooks::Question, identity,
};
use crate::{
    admission::{self, Attributes, Operation},
    base::{FieldError, Object, Status, Stored},
    clock::time_text,
    store::Entry,
};

/// How often a deletion is tried again when another write came first.
const RETRIES: usize = 10;

/// Finalizer of an owner that waits for its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an owner that lets its dependents go free.
const ORPHAN: &str = "orphan";

/// Kinds whose deletion answers with the object and not with a Status (upstream's `ReturnDeletedObject`).
const SHOWN: &[&str] = &[
    "pods",
    "podtemplates",
    "persistentvolumes",
    "persistentvolumeclaims",
    "resourcequotas",
    "serviceaccounts",
    "services",
    "csidrivers.storage.k8s.io",
    "csinodes.storage.k8s.io",
    "csistoragecapacities.storage.k8s.io",
    "storageclasses.storage.k8s.io",
    "volumeattachments.storage.k8s.io",
];

impl Registry {
    /// Deletes an object, or marks it as going where it has finalizers or a grace period.
    ///
    /// # Errors
    /// 404; 409 where a precondition does not hold; 422 for wrong options; 403 for what may not go.
    pub async fn delete(&self, target: &Target, caller: &Caller, options: &DeleteOptions) -> Result<Deleted, Status> {
        check_options(options)?;
        self.admit_deletion(target)?;
        self.delete_admitted(target, caller, options, Some(&target.name)).await
    }

    /// Deletes what may go as far as admission without a look at the object is concerned; policies are asked where the
    /// name in the request is given.
    pub(super) async fn delete_admitted(
        &self,
        target: &Target,
        caller: &Caller,
        options: &DeleteOptions,
        asked: Option<&str>,
    ) -> Result<Deleted, Status> {
        for _ in 0..RETRIES {
            let live = self.0.store.get(&target.key()).1.ok_or_else(|| target.not_found())?;
            let old = self.view(&target.resource, &live.value).await?; // what cannot be read cannot be deleted
            check_preconditions(target, &live, options)?;
            if let Some(name) = asked {
                let question = Question { target, caller, operation: Operation::Delete, name, old: Some(old.object()) };
                self.mutate_deletion(question).await?;
                self.guard(question, None).await?;
            }
            if let Some(deleted) = self.try_delete(target, caller, options, &live) {
                let resource = &target.resource;
                return Ok(match deleted {
                    Deleted::Gone { last } => Deleted::Gone { last: self.view_of_deleted(resource, last).await },
                    Deleted::Waiting(kept) => Deleted::Waiting(self.view_of_deleted(resource, kept).await),
                });
            }
        }
        Err(identity::modified(target))
    }

    fn admit_deletion(&self, target: &Target) -> Result<(), Status> {
        admission::admit_deletion(&Attributes {
            operation: Operation::Delete,
            group: &target.resource.gvr.group,
            resource: &target.resource.gvr.resource,
            subresource: "",
            namespace: &target.namespace,
            name: &target.name,
            old: None,
        })
    }

    /// One try, whose answer shows the object as it is stored; `None` where another write came first.
    pub(super) fn try_delete(
        &self,
        target: &Target,
        caller: &Caller,
        options: &DeleteOptions,
        live: &Entry,
    ) -> Option<Deleted> {
        let resource = &target.resource;
        let mut object = live.value.object().clone();
        if &*resource.bucket == crd::BUCKET && !object.is_deleting() {
            // Upstream does this by hand (`customresourcedefinition/etcd.go`): no grace, no other finalizers.
            let now = self.clock().now_text();
            object.set_at(&["metadata", "deletionTimestamp"], now.clone());
            crd::mark_deleting(&mut object, &now);
            return self.keep(target, caller, live, &object).map(Deleted::Waiting);
        }
        let grace = match self.grace(resource, &mut object, options) {
            Grace::Pending => return Some(Deleted::Waiting(live.value.clone())),
            Grace::None => None,
            Grace::Marked(seconds) => Some(seconds),
        };
        let finalizers = wanted_finalizers(resource, &object, options);
        let changed = finalizers.iter().map(String::as_str).ne(object.finalizers());
        if changed {
            object.set_finalizers(finalizers);
        }
        let held = !object.finalizers().is_empty();
        if grace.is_none() && (held || &*resource.bucket == "namespaces" || &*resource.bucket == crd::BUCKET) {
            self.mark(resource, &mut object);
        }
        if let Some(held) = self.special_hold(resource, &mut object) {
            return self
                .keep(target, caller, live, &object)
                .map(|kept| if held { Deleted::Waiting(kept) } else { Deleted::Gone { last: kept } });
        }
        if held || grace.is_some_and(|seconds| seconds > 0) {
            return self.keep(target, caller, live, &object).map(Deleted::Waiting);
        }
        let mut live = live.clone();
        if grace.is_some() && !caller.dry_run {
            // With a grace of 0 upstream writes the mark and deletes then: watchers see both.
            live = self.put(target, Some(live.revision), object).ok()?;
            object = live.value.object().clone();
        }
        if !caller.dry_run && !self.remove(target, &live, object.clone()) {
            return None;
        }
        let last = Arc::new(Stored::new(object));
        let shown = SHOWN.contains(&&*resource.bucket);
        Some(if shown { Deleted::Waiting(last) } else { Deleted::Gone { last } })
    }

    fn keep(&self, target: &Target, caller: &Caller, live: &Entry, object: &Object) -> Option<Arc<Stored>> {
        if caller.dry_run || object == live.value.object() {
            return Some(Arc::new(Stored::new(object.clone())));
        }
        let entry = self.put(target, Some(live.revision), object.clone()).ok()?;
        Some(entry.value)
    }

    /// Upstream's `BeforeDelete`.
    fn grace(&self, resource: &Resource, object: &mut Object, options: &DeleteOptions) -> Grace {
        let current = object.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64).unwrap_or(0);
        if object.is_deleting() {
            if current == 0 {
                return Grace::None;
            }
            let Some(asked) = options.grace_period_seconds.filter(|asked| *asked < current) else {
                return Grace::Pending;
            };
            let asked = asked.max(0);
            if let Some(time) = object.deletion_timestamp() {
                let sooner = time - jiff::SignedDuration::from_secs(current - asked);
                object.set_at(&["metadata", "deletionTimestamp"], time_text(sooner));
            }
            object.set_at(&["metadata", "deletionGracePeriodSeconds"], asked);
            return Grace::Marked(asked);
        }
        if &*resource.bucket != "pods" {
            return Grace::None;
        }
        let own = object.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let mut seconds = options.grace_period_seconds.or(own).unwrap_or(0);
        let over = ["Succeeded", "Failed"].contains(&object.str_at(&["status", "phase"]));
        if over || object.str_at(&["spec", "nodeName"]).is_empty() {
            seconds = 0;
        }
        if seconds < 0 {
            seconds = 1;
        }
        let time = self.clock().now() + jiff::SignedDuration::from_secs(seconds);
        object.set_at(&["metadata", "deletionTimestamp"], time_text(time));
        object.set_at(&["metadata", "deletionGracePeriodSeconds"], seconds);
        bump_generation(object);
        Grace::Marked(seconds)
    }

    /// Marks an object that stays for its finalizers.
    fn mark(&self, resource: &Resource, object: &mut Object) {
        if !object.is_deleting() {
            bump_generation(object);
            object.set_at(&["metadata", "deletionTimestamp"], self.clock().now_text());
        }
        if &*resource.bucket != "namespaces" {
            object.set_at(&["metadata", "deletionGracePeriodSeconds"], 0);
        }
    }

    /// Namespaces go only when what they hold is gone. `Some(true)` where that is still to come.
    fn special_hold(&self, resource: &Resource, object: &mut Object) -> Option<bool> {
        if &*resource.bucket == "namespaces" {
            let holds =
                object.at(&["spec", "finalizers"]).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
            object.set_at(&["status", "phase"], "Terminating");
            return holds.then_some(true);
        }
        None
    }

    /// Deletes all objects that the options select; the answer lists them as they were.
    ///
    /// # Errors
    /// As [`Registry::list`] and [`Registry::delete`]; objects that are gone already are no error.
    pub async fn delete_collection(
        &self,
        target: &Target,
        caller: &Caller,
        list: &ListOptions,
        options: &DeleteOptions,
    ) -> Result<List, Status> {
        let found = self.list(target, list).await?;
        for item in &found.items {
            let target = Target { namespace: item.namespace().into(), name: item.name().into(), ..target.clone() };
            check_options(options)?;
            self.admit_deletion(&target)?;
            match self.delete_admitted(&target, caller, options, Some("")).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(found)
    }
}

/// What grace a deletion gives.
enum Grace {
    /// None: the kind has no grace period, or it is over.
    None,
    /// The object is marked, and goes after so many seconds.
    Marked(i64),
    /// It is marked already, and this deletion changes nothing.
    Pending,
}

fn bump_generation(object: &mut Object) {
    if object.generation() > 0 {
        let next = object.generation() + 1;
        object.set_at(&["metadata", "generation"], next);
    }
}

/// The finalizers that an object is to have, given how its dependents are to be treated.
fn wanted_finalizers(resource: &Resource, object: &Object, options: &DeleteOptions) -> Vec<String> {
    let existing = object.finalizers();
    let has = |name: &str| existing.contains(&name);
    let orphans_by_default = ["replicationcontrollers", "jobs.batch"].contains(&&*resource.bucket);
    let (orphan, foreground) = match (options.orphan_dependents, options.propagation.as_deref()) {
        (Some(orphan), _) => (orphan, false),
        (None, Some("Orphan")) => (true, false),
        (None, Some("Foreground")) => (false, true),
        (None, Some(_)) => (false, false),
        (None, None) if has(ORPHAN) => (true, false),
        (None, None) if has(FOREGROUND) => (false, true),
        (None, None) => (orphans_by_default, false),
    };
    let others = existing.iter().filter(|name| **name != ORPHAN && **name != FOREGROUND);
    let mut wanted: Vec<String> = others.map(|name| (*name).to_owned()).collect();
    if orphan {
        wanted.push(ORPHAN.into());
    }
    if foreground {
        wanted.push(FOREGROUND.into());
    }
    // Upstream compares how many there are: a mere change of order is no reason to write.
    if wanted.len() == existing.len() && wanted.iter().all(|name| has(name)) {
        return existing.iter().map(|name| (*name).to_owned()).collect();
    }
    wanted
}

fn check_options(options: &DeleteOptions) -> Result<(), Status> {
    const FIELD: &str = "propagationPolicy";
    let Some(policy) = &options.propagation else { return Ok(()) };
    let value = Value::from(policy.as_str());
    let mut errors = Vec::new();
    if options.orphan_dependents.is_some() {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(FieldError::invalid(FIELD, &value, why));
    }
    let policies = ["Foreground", "Background", "Orphan", "nil"];
    if !policies[..3].contains(&policy.as_str()) {
        errors.push(FieldError::not_supported(FIELD, &value, &policies));
    }
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "DeleteOptions", "", &errors)) }
}

fn check_preconditions(target: &Target, live: &Entry, options: &DeleteOptions) -> Result<(), Status> {
    let Target { resource, name, .. } = target;
    let conflict = |why: &str| Status::conflict(&resource.gvr.group, &resource.kind, name, why);
    let uid = live.value.uid();
    if let Some(asked) = options.uid.as_deref().filter(|asked| *asked != uid) {
        return Err(conflict(&format!(
            "the UID in the precondition ({asked}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        )));
    }
    let version = live.revision.to_string();
    if let Some(asked) = options.resource_version.as_deref().filter(|asked| *asked != version) {
        return Err(conflict(&format!(
            "the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion in record ({version}). \
             The object might have been modified"
        )));
    }
    Ok(())
}
