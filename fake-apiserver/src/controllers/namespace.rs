//! Empties namespaces that are being deleted, tells in their conditions what is left, and lets them go.
//!
//! Upstream: `pkg/controller/namespace/deletion/namespaced_resources_deleter.go` and `status_condition_utils.go`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Change, DeletePolicy, Outcome, Served, Server, Source},
    base::{Gvr, Object, Status},
};

/// The finalizer in a namespace's spec that is ours.
const FINALIZER: &str = "kubernetes";
/// The first and the longest delay after a failure (`nsControllerRateLimiter` in `namespace_controller.go`).
const FIRST_RETRY: Duration = Duration::from_millis(5);
const LAST_RETRY: Duration = Duration::from_secs(60);
/// How long what has finalizers is thought to need.
const FINALIZER_ESTIMATE: Duration = Duration::from_secs(15);

fn namespaces() -> Gvr {
    Gvr::new("", "v1", "namespaces")
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

/// Runs the namespace controller until the token is cancelled; a namespace is left alone for `grace` after each change.
pub async fn run(server: Server, grace: Duration, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:namespace-controller";
    let api = Api::new(server, user, KUBE_CONTROLLER_MANAGER);
    let sources = vec![Source::all(namespaces(), |change| match change {
        Change::Applied { new, .. } if new.is_deleting() => vec![new.name().to_owned()],
        Change::Applied { .. } | Change::Gone(_) => Vec::new(),
    })];
    let due = Due::default();
    actor::run(api.clone(), sources, token, move |name| attend(api.clone(), due.clone(), grace, name)).await;
}

/// When each namespace is to be looked at next, and how often in a row that failed: a change does not bring it up at once,
/// it only sets a time.
type Due = Arc<Mutex<BTreeMap<String, (Timestamp, u32)>>>;

async fn attend(api: Api, due: Due, grace: Duration, name: String) -> Result<Outcome, Status> {
    let now = api.clock().now();
    let set = |time, failures| due.lock().expect("no panic under this lock").insert(name.clone(), (time, failures));
    let known = due.lock().expect("no panic under this lock").get(&name).copied();
    let (time, failures) = known.unwrap_or((Timestamp::MAX, 0));
    let time = time.min(after(now, grace));
    if let Ok(left) = Duration::try_from(time.duration_since(now))
        && !left.is_zero()
    {
        set(time, failures);
        return Ok(Outcome::After(left));
    }
    let pause = match empty(&api, &name).await {
        Ok(None) => {
            due.lock().expect("no panic under this lock").remove(&name);
            return Ok(Outcome::Done);
        }
        // Upstream looks again after half of what it thinks is needed.
        Ok(Some(left)) => {
            let pause = Duration::from_secs(left.as_secs() / 2 + 1);
            set(after(now, pause), 0);
            pause
        }
        Err(error) => {
            tracing::debug!(namespace = name, %error, "namespace not emptied");
            let pause = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(failures)).min(LAST_RETRY);
            set(after(now, pause), failures.saturating_add(1));
            pause
        }
    };
    Ok(Outcome::After(pause))
}

fn after(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}

/// Deletes what is in a namespace, and lets the namespace go if nothing is left; else how long the rest may need.
async fn empty(api: &Api, name: &str) -> Result<Option<Duration>, Status> {
    let Some(live) = api.get(&namespaces(), "", name).await? else { return Ok(None) };
    let Some(deleted_at) = live.deletion_timestamp() else { return Ok(None) };
    let mut namespace = live.object().clone();
    if namespace.str_at(&["status", "phase"]) != "Terminating" {
        namespace.set_at(&["status", "phase"], "Terminating");
        namespace = api.update(&namespaces(), namespace, "status").await?.object().clone();
    }
    if !finalizers(&namespace).contains(&FINALIZER) {
        return Ok(None);
    }
    let rest = delete_content(api, name, deleted_at).await;
    let now = api.clock().now_text();
    let conditions = conditions(&namespace, &rest.conditions(), &now);
    if namespace.at(&["status", "conditions"]) != Some(&conditions) {
        namespace.set_at(&["status", "conditions"], conditions);
        match api.update(&namespaces(), namespace.clone(), "status").await {
            Ok(updated) => namespace = updated.object().clone(),
            // As upstream: a status that cannot be written does not stop the deletion.
            Err(error) => tracing::debug!(%error, namespace = name, "status not written"),
        }
    }
    if let Some(error) = rest.errors.into_iter().next() {
        return Err(error);
    }
    if !rest.remaining.is_empty() || !rest.estimate.is_zero() {
        return Ok(Some(rest.estimate));
    }
    let kept: Vec<_> = finalizers(&namespace).into_iter().filter(|finalizer| *finalizer != FINALIZER).collect();
    let kept = Value::from(kept);
    namespace.set_at(&["spec", "finalizers"], kept);
    match api.update(&namespaces(), namespace, "finalize").await {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(None),
    }
}

fn finalizers(namespace: &Object) -> Vec<&str> {
    let list = namespace.at(&["spec", "finalizers"]).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// What is left in a namespace.
#[derive(Debug, Default)]
struct Rest {
    /// How long it may need.
    estimate: Duration,
    /// How many objects, by `plural.group`.
    remaining: BTreeMap<String, usize>,
    /// How many objects, by finalizer.
    finalizers: BTreeMap<String, usize>,
    /// Whether only pods were looked at, because pods go first.
    pods_only: bool,
    errors: Vec<Status>,
}

/// One condition, but for its time.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    kind: &'static str,
    failing: bool,
    reason: &'static str,
    message: String,
}

impl Told {
    fn new(kind: &'static str, failing: bool, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, failing, reason, message: message.into() }
    }
}

async fn delete_content(api: &Api, namespace: &str, deleted_at: Timestamp) -> Rest {
    let mut rest = Rest::default();
    // Pods first, and nothing else while there are any: what they use must outlive them.
    delete_resource(api, &pods(), namespace, deleted_at, &mut rest).await;
    if !rest.remaining.is_empty() {
        rest.pods_only = true;
        return rest;
    }
    let resources = api.resources();
    for Served { gvr, .. } in resources.iter().filter(|served| served.namespaced && served.serves(&["delete"])) {
        if *gvr != pods() {
            delete_resource(api, gvr, namespace, deleted_at, &mut rest).await;
        }
    }
    rest
}

async fn delete_resource(api: &Api, gvr: &Gvr, namespace: &str, deleted_at: Timestamp, rest: &mut Rest) {
    if let Err(error) = try_delete_resource(api, gvr, namespace, deleted_at, rest).await {
        rest.errors.push(error);
    }
}

async fn try_delete_resource(
    api: &Api,
    gvr: &Gvr,
    namespace: &str,
    deleted_at: Timestamp,
    rest: &mut Rest,
) -> Result<(), Status> {
    let (before, _) = api.list(gvr, namespace, "").await?;
    if before.is_empty() {
        return Ok(());
    }
    let mut estimate = Duration::ZERO;
    if *gvr == pods() {
        let passed = Duration::try_from(api.clock().now().duration_since(deleted_at)).unwrap_or_default();
        let grace = before.iter().map(|pod| grace(pod)).max().unwrap_or_default();
        estimate = grace.saturating_sub(passed);
    }
    let policy = DeletePolicy { propagation: Some("Background"), ..DeletePolicy::default() };
    match api.delete_all(gvr, namespace, &policy).await {
        Err(error) if error.code == 404 || error.code == 405 => {
            for object in &before {
                let gone = |error: &Status| error.code == 404 || error.code == 405;
                match api.delete(gvr, namespace, object.name(), &policy).await {
                    Err(error) if !gone(&error) => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
        }
        done => done?,
    }
    let (left, _) = api.list(gvr, namespace, "").await?;
    if left.is_empty() {
        return Ok(());
    }
    let mut finalized = false;
    for object in &left {
        for finalizer in object.finalizers() {
            finalized = true;
            *rest.finalizers.entry(finalizer.to_owned()).or_default() += 1;
        }
    }
    rest.remaining.insert(format!("{}.{}", gvr.resource, gvr.group), left.len());
    if estimate.is_zero() && finalized {
        estimate = FINALIZER_ESTIMATE;
    }
    if estimate.is_zero() {
        // Upstream prints a GroupVersionResource so.
        let shown = format!("{}/{}, Resource={}", gvr.group, gvr.version, gvr.resource);
        let message = format!("unexpected items still remain in namespace: {namespace} for gvr: {shown}");
        return Err(Status::unexpected(message));
    }
    rest.estimate = rest.estimate.max(estimate);
    Ok(())
}

/// How long a pod may take to end.
fn grace(pod: &Object) -> Duration {
    if matches!(pod.str_at(&["status", "phase"]), "Succeeded" | "Failed") {
        return Duration::ZERO;
    }
    let seconds = pod.at(&["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_u64);
    Duration::from_secs(seconds.unwrap_or_default())
}

impl Rest {
    /// The five conditions, in upstream's order.
    fn conditions(&self) -> Vec<Told> {
        let mut told = vec![
            Told::new(
                "NamespaceDeletionDiscoveryFailure",
                false,
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
            Told::new(
                "NamespaceDeletionGroupVersionParsingFailure",
                false,
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
        ];
        told.push(if self.errors.is_empty() {
            let message = "All content successfully deleted, may be waiting on finalization";
            Told::new("NamespaceDeletionContentFailure", false, "ContentDeleted", message)
        } else {
            let mut texts: Vec<_> = self.errors.iter().map(|error| error.message.as_str()).collect();
            texts.sort_unstable();
            let message =
                format!("Failed to delete all resource types, {} remaining: {}", texts.len(), texts.join(", "));
            Told::new("NamespaceDeletionContentFailure", true, "ContentDeletionFailed", message)
        });
        // While pods are left, upstream does not count what else is.
        told.push(if self.remaining.is_empty() || self.pods_only {
            Told::new("NamespaceContentRemaining", false, "ContentRemoved", "All content successfully removed")
        } else {
            let count = |(resource, count): (&String, &usize)| format!("{resource} has {count} resource instances");
            let list: Vec<_> = self.remaining.iter().map(count).collect();
            let message = format!("Some resources are remaining: {}", list.join(", "));
            Told::new("NamespaceContentRemaining", true, "SomeResourcesRemain", message)
        });
        told.push(if self.finalizers.is_empty() || self.pods_only {
            let message = "All content-preserving finalizers finished";
            Told::new("NamespaceFinalizersRemaining", false, "ContentHasNoFinalizers", message)
        } else {
            let count = |(finalizer, count): (&String, &usize)| format!("{finalizer} in {count} resource instances");
            let list: Vec<_> = self.finalizers.iter().map(count).collect();
            let message = format!("Some content in the namespace has finalizers remaining: {}", list.join(", "));
            Told::new("NamespaceFinalizersRemaining", true, "SomeFinalizersRemain", message)
        });
        told
    }
}

/// The namespace's conditions with what is told now; times change with statuses only.
fn conditions(namespace: &Object, told: &[Told], now: &str) -> Value {
    let mut list = namespace.at(&["status", "conditions"]).and_then(Value::as_array).cloned().unwrap_or_default();
    for Told { kind, failing, reason, message } in told {
        let status = if *failing { "True" } else { "False" };
        let mut new = json!({
            "type": kind, "status": status, "lastTransitionTime": now, "reason": reason, "message": message,
        });
        match list.iter_mut().find(|old| old["type"] == *kind) {
            None => list.push(new),
            Some(old) => {
                if old["status"] == new["status"] {
                    new["lastTransitionTime"] = old["lastTransitionTime"].clone();
                }
                *old = new;
            }
        }
    }
    list.into()
}

#[cfg(test)]
mod tests;
