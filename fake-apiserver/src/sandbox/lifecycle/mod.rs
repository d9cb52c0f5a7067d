//! The Sandbox controller: a pod, perhaps a service, volume claims; suspension, resumption, expiry.
//!
//! The rooms beside decide ([`volumes`], [`pod`], [`service`], [`status`]); this file reads, asks them, and writes in
//! upstream's order: claims, pod, the Sandbox's annotation, service, status.

mod pod;
mod service;
mod status;
mod volumes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    pod::PodAction,
    service::ServiceStep,
    status::{Findings, ServiceFound, StepError},
    volumes::ClaimStep,
};
use super::{
    Settings, conditions,
    keys::{GROUP, NAME_HASH, POD_NAME, name_hash, pods, sandboxes, services, volume_claims},
    ownership::is_own,
};
use crate::{
    actor::{self, Api, Change, DeletePolicy, EventKind, Outcome, Source},
    base::{Object, Status, Stored, names::split_api_version},
};

/// How soon a Sandbox is looked at again that was just marked as expired.
const IMMEDIATELY: Duration = Duration::from_millis(1);
/// How soon at the earliest a Sandbox is looked at again that will expire.
const EXPIRY_FLOOR: Duration = Duration::from_secs(2);
/// How long at most a write to a pod's metadata is put off: an adopted pod must not stay marked as evictable.
const LONGEST_DEFERRAL: Duration = Duration::from_secs(1);
/// Field manager of what the controller creates.
const CREATOR: &str = "sandbox-controller";

/// Namespace and name of a Sandbox.
type Key = (String, String);
/// Names of the pods with a Sandbox's label, by namespace and label value.
type PodIndex = Arc<Mutex<BTreeMap<(String, String), BTreeSet<String>>>>;

/// Runs the controller until the token is cancelled.
pub(super) async fn run(api: Api, settings: Settings, token: CancellationToken) {
    let index = PodIndex::default();
    let pod_index = index.clone();
    let sources = vec![
        Source::all(sandboxes(), |change| {
            let sandbox = change.object();
            vec![(sandbox.namespace().to_owned(), sandbox.name().to_owned())]
        }),
        Source::all(pods(), move |change| {
            note_pod(&pod_index, change);
            owners(change)
        }),
        Source::all(services(), owners),
    ];
    let put_off = Arc::default();
    let workers = settings.workers.sandboxes;
    let controller = Controller { creator: api.with_manager(CREATOR), api: api.clone(), index, settings, put_off };
    actor::run_workers(api, sources, token, workers, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    })
    .await;
}

/// The Sandboxes that control an object, before or after a change; only objects with the label count.
fn owners(change: &Change) -> Vec<Key> {
    if change.object().label(NAME_HASH).is_none() {
        return Vec::new();
    }
    let mut keys: Vec<Key> = Vec::new();
    for object in [Some(change.object()), change.before()].into_iter().flatten() {
        let owner = object.controller();
        let owner = owner.filter(|owner| owner.kind == "Sandbox" && split_api_version(&owner.api_version).0 == GROUP);
        keys.extend(owner.map(|owner| (object.namespace().to_owned(), owner.name)));
    }
    keys
}

fn note_pod(index: &PodIndex, change: &Change) {
    let place = |pod: &Stored| pod.label(NAME_HASH).map(|hash| (pod.namespace().to_owned(), hash.to_owned()));
    let mut index = index.lock().expect("no panic under this lock");
    if let Some(old) = change.before()
        && let Some(place) = place(old)
        && let Some(names) = index.get_mut(&place)
    {
        names.remove(old.name());
        if names.is_empty() {
            index.remove(&place);
        }
    }
    if let Change::Applied { new, .. } = change
        && let Some(place) = place(new)
    {
        index.entry(place).or_default().insert(new.name().to_owned());
    }
}

#[derive(Clone, Debug)]
struct Controller {
    api: Api,
    /// The same user under the manager of creations.
    creator: Api,
    index: PodIndex,
    settings: Settings,
    /// Since when a write to the metadata of a Sandbox's pod is put off.
    put_off: Arc<Mutex<BTreeMap<Key, Timestamp>>>,
}

/// How the pod step ended.
#[derive(Default)]
struct PodEnd {
    pod: Option<Arc<Stored>>,
    error: Option<StepError>,
    /// How long the write of its metadata still waits.
    put_off: Option<Duration>,
}

impl PodEnd {
    fn failed(text: String) -> Self {
        Self { error: Some(StepError::Other(text)), ..Self::default() }
    }
}

fn other(error: &Status) -> StepError {
    StepError::Other(error.message.clone())
}

impl Controller {
    async fn reconcile(&self, key: Key) -> Result<Outcome, Status> {
        let (namespace, name) = &key;
        let Some(live) = self.api.get(&sandboxes(), namespace, name).await? else {
            self.nothing_waits(&key);
            return Ok(Outcome::Done);
        };
        if live.is_deleting() {
            return Ok(Outcome::Done); // what it owns is the garbage collector's
        }
        let mut sandbox = live.object().clone();
        let old = status::current(&sandbox);
        let generation = sandbox.generation();
        let now = self.api.clock().now();

        if is_expired(&sandbox, now) && !status::is_marked_expired(&old) {
            let mut new = old.clone();
            status::mark_expired(&mut new, generation, now);
            self.write_status(&sandbox, &old, &new).await?;
            return Ok(Outcome::After(IMMEDIATELY));
        }
        if is_expired(&sandbox, now) {
            return self.clean_up(&sandbox, &old, now).await;
        }

        let (mut new, failure, put_off) = self.reconcile_children(&mut sandbox).await;
        let now = self.api.clock().now();
        let mut outcome = match shutdown_time(&sandbox) {
            None => Outcome::Done,
            Some(time) => {
                let left = Duration::try_from(time.duration_since(now)).unwrap_or_default();
                Outcome::After(left.max(EXPIRY_FLOOR))
            }
        };
        if is_expired(&sandbox, now) {
            status::mark_expired(&mut new, generation, now);
            outcome = Outcome::After(IMMEDIATELY);
        }
        if failure.is_none() {
            match put_off {
                None => self.nothing_waits(&key),
                Some(wait) => {
                    outcome = match outcome {
                        Outcome::After(sooner) if sooner <= wait => Outcome::After(sooner),
                        _ => Outcome::After(wait),
                    };
                }
            }
        }
        let written = self.write_status(&sandbox, &old, &new).await;
        match failure {
            Some(failure) => Err(Status::unexpected(failure)),
            None => written.map(|()| outcome),
        }
    }

    /// Takes away what an expired Sandbox has, but for its volume claims; or the Sandbox itself.
    async fn clean_up(&self, sandbox: &Object, old: &status::StatusMap, now: Timestamp) -> Result<Outcome, Status> {
        let mut failures = Vec::new();
        for (what, gvr, name) in [("pod", pods(), pod::tracked_name(sandbox)), ("service", services(), sandbox.name())]
        {
            match self.api.get(&gvr, sandbox.namespace(), name).await {
                Err(error) => failures.push(format!("failed to get {what}: {error}")),
                Ok(Some(object)) if is_own(&object, sandbox) => {
                    let deleted = self.api.delete(&gvr, sandbox.namespace(), name, &DeletePolicy::default()).await;
                    if let Err(error) = deleted
                        && !error.is_not_found()
                    {
                        failures.push(format!("failed to delete {what}: {error}"));
                    }
                }
                Ok(_) => {}
            }
        }
        if sandbox.str_at(&["spec", "shutdownPolicy"]) == "Delete" {
            let policy = DeletePolicy::default();
            match self.api.delete(&sandboxes(), sandbox.namespace(), sandbox.name(), &policy).await {
                Err(error) if !error.is_not_found() => failures.push(format!("failed to delete sandbox: {error}")),
                // Gone is gone: what could not be deleted above is the garbage collector's.
                Ok(_) | Err(_) => return Ok(Outcome::Done),
            }
        }
        if !failures.is_empty() {
            return Err(Status::unexpected(failures.join("\n")));
        }
        let new = status::expired_only(old, sandbox.generation(), now);
        self.write_status(sandbox, old, &new).await?;
        Ok(Outcome::Done)
    }

    /// Brings claims, pod and service about; the status that follows, what failed, and how long a write still waits.
    async fn reconcile_children(&self, sandbox: &mut Object) -> (status::StatusMap, Option<String>, Option<Duration>) {
        let volume_error = self.reconcile_volumes(sandbox).await.err();
        let PodEnd { pod, error: pod_error, put_off } = self.reconcile_pod(sandbox).await;
        let (mut service, mut service_error) = (ServiceFound::Unknown, None);
        if let Some(conflict @ StepError::MultiplePods(_)) = &pod_error {
            // Which pod a service would lead to is not clear, so services stay as they are.
            self.tell_of_conflict(sandbox, &conflict.text()).await;
        } else {
            match self.reconcile_service(sandbox).await {
                Ok(found) => service = found,
                Err(error) => service_error = Some(error),
            }
        }
        let pod = pod.as_deref().map(Stored::object);
        let findings = Findings { pod, volume_error, pod_error, service, service_error };
        let now = self.api.clock().now();
        (status::after(sandbox, &findings, &self.settings.cluster_domain, now), findings.failure(), put_off)
    }

    async fn tell_of_conflict(&self, sandbox: &Object, text: &str) {
        let status = status::current(sandbox);
        if conditions::text(status::conditions_of(&status), "Ready", "reason") == "MultiplePods" {
            return;
        }
        let kind = EventKind::Events { controller: CREATOR, action: "Reconciling" };
        self.api.event(kind, sandbox, true, "MultiplePods", text).await;
    }

    async fn reconcile_volumes(&self, sandbox: &Object) -> Result<(), StepError> {
        let namespace = sandbox.namespace();
        for template in volumes::templates(sandbox) {
            let name = volumes::claim_name(template, sandbox);
            let found = self.api.get(&volume_claims(), namespace, &name).await;
            let found = found.map_err(|error| StepError::Other(format!("failed to get PVC: {error}")))?;
            match volumes::decide(sandbox, template, found.as_deref().map(Stored::object)) {
                ClaimStep::Keep => {}
                ClaimStep::Create(claim) => {
                    self.creator.create(&volume_claims(), claim).await.map_err(|error| other(&error))?;
                }
                ClaimStep::Adopt(patch) => {
                    let patched = self.api.patch(&volume_claims(), namespace, &name, "", patch).await;
                    let wrap = |error| StepError::Other(format!("failed to patch PVC with owner reference: {error}"));
                    patched.map_err(wrap)?;
                }
                ClaimStep::Fail(text) => return Err(StepError::Other(text)),
            }
        }
        Ok(())
    }

    /// The pods with the Sandbox's label.
    async fn labelled_pods(&self, sandbox: &Object) -> Result<Vec<Arc<Stored>>, Status> {
        let place = (sandbox.namespace().to_owned(), name_hash(sandbox.name()));
        let names = self.index.lock().expect("no panic under this lock").get(&place).cloned().unwrap_or_default();
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let pod = self.api.get(&pods(), sandbox.namespace(), &name).await?;
            found.extend(pod.filter(|pod| pod.label(NAME_HASH) == Some(&place.1)));
        }
        Ok(found)
    }

    async fn reconcile_pod(&self, sandbox: &mut Object) -> PodEnd {
        let labelled = match self.labelled_pods(sandbox).await {
            Ok(labelled) => labelled,
            Err(error) => return PodEnd::failed(format!("pod list failed: {error}")),
        };
        let named = match self.api.get(&pods(), sandbox.namespace(), pod::tracked_name(sandbox)).await {
            Ok(named) => named,
            Err(error) => return PodEnd::failed(format!("pod get failed: {error}")),
        };
        let resolved = pod::resolve(sandbox, labelled, named);
        if resolved.clear_annotation
            && let Err(text) = self.clear_annotation(sandbox).await
        {
            return PodEnd::failed(text);
        }
        match resolved.pod {
            Ok(pod) => self.carry_out(sandbox, pod).await,
            Err(count) => PodEnd { error: Some(StepError::MultiplePods(count)), ..PodEnd::default() },
        }
    }

    async fn carry_out(&self, sandbox: &mut Object, mut pod: Option<Arc<Stored>>) -> PodEnd {
        let mut plan = pod::decide(sandbox, pod.as_deref().map(Stored::object));
        let mut created = false;
        let mut put_off = None;
        let mut at = 0;
        while let Some(action) = plan.actions.get(at).cloned() {
            at += 1;
            let name = pod.as_ref().map_or(sandbox.name(), |pod| pod.name()).to_owned();
            let namespace = sandbox.namespace().to_owned();
            match action {
                PodAction::ClearAnnotation => {
                    if let Err(text) = self.clear_annotation(sandbox).await {
                        let pod = pod.filter(|_| pod::is_suspended(sandbox));
                        return PodEnd { pod, error: Some(StepError::Other(text)), put_off: None };
                    }
                }
                PodAction::Annotate => {
                    let patch = json!({"metadata": {"annotations": {POD_NAME: name}}});
                    if let Err(error) = self.patch_sandbox(sandbox, patch).await {
                        return PodEnd::failed(format!("failed to set pod name annotation: {error}"));
                    }
                    sandbox.set_at(&["metadata", "annotations", POD_NAME], name);
                }
                PodAction::Delete => {
                    let deleted = self.api.delete(&pods(), &namespace, &name, &DeletePolicy::default()).await;
                    if let Err(error) = deleted {
                        let error = StepError::Other(format!("failed to delete pod: {error}"));
                        return PodEnd { pod, error: Some(error), put_off: None };
                    }
                }
                PodAction::Patch(_)
                    if pod.as_ref().is_some_and(|pod| is_own(pod, sandbox))
                        && let Some(wait) = self.still_waits(sandbox) =>
                {
                    put_off = Some(wait);
                }
                PodAction::Patch(patch) => match self.api.patch(&pods(), &namespace, &name, "", patch).await {
                    Ok(patched) => pod = Some(patched),
                    Err(error) => return PodEnd::failed(format!("failed to patch pod: {error}")),
                },
                PodAction::Create(object) => match self.creator.create(&pods(), object).await {
                    Ok(new) => pod = Some(new),
                    Err(error) if error.is_already_exists() && !created => {
                        // Somebody was faster: go on with what is there, once.
                        created = true;
                        match self.api.get(&pods(), &namespace, &name).await {
                            Ok(Some(existing)) => {
                                plan = pod::decide(sandbox, Some(existing.object()));
                                pod = Some(existing);
                                at = 0;
                            }
                            Ok(None) | Err(_) => {
                                let text = format!("pod already exists but failed to fetch: {error}");
                                return PodEnd::failed(text);
                            }
                        }
                    }
                    Err(error) => return PodEnd { error: Some(other(&error)), ..PodEnd::default() },
                },
            }
        }
        match plan.refusal {
            Some(text) => PodEnd::failed(text),
            None => PodEnd { pod, error: None, put_off },
        }
    }

    /// How long a write to the metadata of the Sandbox's own pod may still wait, so that several become one; `None` where
    /// it is due. Nothing is lost with the waiting: the next pass finds again what is to be written.
    fn still_waits(&self, sandbox: &Object) -> Option<Duration> {
        let window = self.settings.sandbox_write_behind_window.min(LONGEST_DEFERRAL);
        if window.is_zero() {
            return None;
        }
        let now = self.api.clock().now();
        let mut put_off = self.put_off.lock().expect("no panic under this lock");
        let since = *put_off.entry((sandbox.namespace().to_owned(), sandbox.name().to_owned())).or_insert(now);
        let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
        window.checked_sub(waited).filter(|left| !left.is_zero())
    }

    fn nothing_waits(&self, key: &Key) {
        self.put_off.lock().expect("no panic under this lock").remove(key);
    }

    async fn clear_annotation(&self, sandbox: &mut Object) -> Result<(), String> {
        let patch = json!({"metadata": {"annotations": {POD_NAME: Value::Null}}});
        let patched = self.patch_sandbox(sandbox, patch).await;
        patched.map_err(|error| format!("failed to clear pod name annotation: {error}"))?;
        sandbox.remove_at(&["metadata", "annotations", POD_NAME]);
        Ok(())
    }

    async fn patch_sandbox(&self, sandbox: &Object, patch: Value) -> Result<(), Status> {
        self.api.patch(&sandboxes(), sandbox.namespace(), sandbox.name(), "", patch).await.map(drop)
    }

    async fn reconcile_service(&self, sandbox: &Object) -> Result<ServiceFound, StepError> {
        let (namespace, name) = (sandbox.namespace(), sandbox.name());
        let found = self.api.get(&services(), namespace, name).await;
        let found = found.map_err(|error| StepError::Other(format!("service get failed: {error}")))?;
        let wrap = |what: &'static str| move |error: Status| StepError::Other(format!("{what}: {error}"));
        match service::decide(sandbox, found.as_deref().map(Stored::object)) {
            ServiceStep::None => return Ok(ServiceFound::None),
            ServiceStep::Keep => {}
            ServiceStep::Create(object) => {
                self.creator.create(&services(), object).await.map_err(|error| other(&error))?;
            }
            ServiceStep::Patch(patch) => {
                let patched = self.api.patch(&services(), namespace, name, "", patch).await;
                patched.map_err(wrap("failed to patch owned service"))?;
            }
            ServiceStep::Adopt(object) => {
                let updated = self.api.update(&services(), object, "").await;
                updated.map_err(wrap("failed to update service with owner reference"))?;
            }
            ServiceStep::Delete => {
                match self.api.delete(&services(), namespace, name, &DeletePolicy::default()).await {
                    Err(error) if !error.is_not_found() => return Err(wrap("failed to delete service")(error)),
                    Ok(_) | Err(_) => return Ok(ServiceFound::None),
                }
            }
            ServiceStep::Fail(text) => return Err(StepError::Other(text)),
        }
        Ok(ServiceFound::Ours)
    }

    async fn write_status(
        &self,
        sandbox: &Object,
        old: &status::StatusMap,
        new: &status::StatusMap,
    ) -> Result<(), Status> {
        let Some(patch) = status::patch(old, new) else { return Ok(()) };
        match self.api.patch(&sandboxes(), sandbox.namespace(), sandbox.name(), "status", patch).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

fn shutdown_time(sandbox: &Object) -> Option<Timestamp> {
    sandbox.time_at(&["spec", "shutdownTime"])
}

fn is_expired(sandbox: &Object, now: Timestamp) -> bool {
    shutdown_time(sandbox).is_some_and(|time| now >= time)
}

#[cfg(test)]
mod tests;
