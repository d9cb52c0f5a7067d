//! The SandboxClaim controller: a claim finds its Sandbox, takes a member of its pool, or gets a Sandbox of its own; it
//! tells how that Sandbox is, and ends with it (`extensions/controllers/sandboxclaim_controller.go`).
//!
//! The rooms beside decide: [`queue`] which member is next, [`adopt`] what is rewritten on it, [`cold`] what a Sandbox of
//! its own looks like, [`metadata`] what a claim may add, [`status`] what it shows, [`error`] what follows from failures.
//! [`find`] carries the finding out, [`seen`] keeps what the watches have told, this file a pass.

mod adopt;
mod cold;
mod error;
mod find;
mod metadata;
mod queue;
mod seen;
mod status;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    error::{Again, ClaimError, quoted},
    metadata::PodMetadata,
    seen::Seen,
    status::ClaimStatus,
};
use super::{
    ClaimCreation, Latency, Metrics, Settings, conditions,
    keys::{
        CREATED_BY, FIRST_OBSERVED, FIRST_READY, LAUNCH_TYPE, REQUESTED, TEMPLATE_REF, TEMPLATE_REF_HASH,
        WEBHOOK_OBSERVED, claims, name_hash, network_policies, sandboxes, templates, warm_pools,
    },
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Source},
    base::{Object, Status},
};

/// How soon a claim is looked at again that was just marked as expired.
const IMMEDIATELY: Duration = Duration::from_millis(1);
/// Who tells of claims.
const REPORTER: &str = "sandboxclaim-controller";
/// What stands for the time at which a claim was first ready when that is not known any more.
const UNKNOWN: &str = "unknown";

/// Namespace and name of a claim.
type Key = (String, String);

/// Runs the controller until the token is cancelled.
pub(super) async fn run(api: Api, settings: Settings, metrics: Metrics, token: CancellationToken) {
    let seen = Arc::new(Seen::default());
    let clock = api.clock().clone();
    let notes = [(); 4].map(|()| seen.clone());
    let [of_claims, of_sandboxes, of_pools, of_templates] = notes;
    let sources = vec![
        Source::all(claims(), move |change| of_claims.claim(change, clock.now())),
        Source::all(sandboxes(), move |change| of_sandboxes.sandbox(change)),
        Source::all(warm_pools(), move |change| of_pools.pool(change)),
        Source::all(templates(), move |change| of_templates.template(change)),
    ];
    let workers = settings.workers.claims;
    let controller = Controller { api: api.clone(), seen, settings: Arc::new(settings), metrics };
    actor::run_workers(api, sources, token, workers, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    })
    .await;
}

/// Whether the claim controls an object.
fn is_controlled(object: &Object, claim: &Object) -> bool {
    object.controller().is_some_and(|owner| owner.uid == claim.uid())
}

/// The template that a Sandbox says it is of.
fn template_of(sandbox: Option<&Object>) -> &str {
    let named = sandbox.and_then(|sandbox| sandbox.annotation(TEMPLATE_REF));
    named.filter(|name| !name.is_empty()).unwrap_or("__unknown__")
}

/// The pool that a claim names.
fn pool_name(claim: &Object) -> &str {
    claim.str_at(&["spec", "warmPoolRef", "name"])
}

#[derive(Clone, Debug)]
struct Controller {
    api: Api,
    seen: Arc<Seen>,
    settings: Arc<Settings>,
    metrics: Metrics,
}

/// How a pass went: the Sandbox, as far as there is one, and what failed.
#[derive(Debug, Default)]
struct Pass {
    sandbox: Option<Object>,
    error: Option<ClaimError>,
}

impl From<Result<Option<Object>, ClaimError>> for Pass {
    fn from(result: Result<Option<Object>, ClaimError>) -> Self {
        match result {
            Ok(sandbox) => Self { sandbox, error: None },
            Err(error) => Self { sandbox: None, error: Some(error) },
        }
    }
}

impl Controller {
    async fn reconcile(&self, key: Key) -> Result<Outcome, Status> {
        let (namespace, name) = &key;
        let Some(live) = self.api.get(&claims(), namespace, name).await? else {
            self.seen.forget(&key);
            return Ok(Outcome::Done);
        };
        let mut claim = live.object().clone();
        self.drop_old_policy(&claim).await;
        if claim.is_deleting() {
            return Ok(Outcome::Done); // what it owns is the garbage collector's
        }
        self.note_first_sight(&mut claim).await?;

        let old = ClaimStatus::of(&claim);
        let now = self.api.clock().now();
        let expired = old.time_left(&claim, now) == Some(Duration::ZERO);
        if expired && !old.is_marked_expired() {
            let mut new = old.clone();
            new.mark_expired(&claim, None, now);
            return self.tell_of_expiry(&mut claim, &old, &new).await;
        }
        let policy = claim.str_at(&["spec", "lifecycle", "shutdownPolicy"]);
        if expired && matches!(policy, "Delete" | "DeleteForeground") {
            return self.delete(&claim, policy).await;
        }

        let pass = if expired { self.take_away(&claim).await } else { self.serve(&mut claim).await };
        if let Some(ClaimError::Pending(time)) = pass.error {
            return Ok(Outcome::After(time)); // nothing is said of what is about to pass
        }
        let now = self.api.clock().now();
        let mut new = old.clone();
        new.conclude(&claim, pass.sandbox.as_ref(), pass.error.as_ref(), expired, now);
        let left = new.time_left(&claim, now);
        if left == Some(Duration::ZERO) && !new.is_marked_expired() {
            new.mark_expired(&claim, pass.error.as_ref(), now);
            return self.tell_of_expiry(&mut claim, &old, &new).await;
        }
        if !self.write_status(&mut claim, &old, &new).await? {
            return Ok(Outcome::Retry);
        }
        let stamped = self.note_first_ready(&mut claim, &old, &new, pass.sandbox.as_ref()).await;

        let left = left.filter(|_| !expired).map(|left| left.max(IMMEDIATELY));
        let outcome = left.map_or(Outcome::Done, Outcome::After);
        match pass.error.as_ref().map(ClaimError::again) {
            None | Some(Again::Never) => stamped.map(|()| outcome),
            Some(Again::After(time)) => Ok(Outcome::After(left.map_or(time, |left| left.min(time)))),
            Some(Again::Failure) => {
                let (_, text) = pass.error.as_ref().map(|error| error.condition(pool_name(&claim))).unwrap_or_default();
                Err(Status::unexpected(text))
            }
        }
    }

    /// Finds or makes the claim's Sandbox and keeps its metadata in step.
    async fn serve(&self, claim: &mut Object) -> Pass {
        let added = PodMetadata::added_by(claim);
        if let Err(text) = metadata::validate(&added, &self.settings.allowed_label_domains) {
            return Err(ClaimError::InvalidMetadata(text)).into();
        }
        match self.find(claim).await {
            Err(error) => Err(error).into(),
            Ok(Some(sandbox)) => self.keep_in_step(claim, sandbox, &added).await,
            Ok(None) => self.create(claim).await.map(Some).into(),
        }
    }

    async fn keep_in_step(&self, claim: &Object, sandbox: Object, added: &PodMetadata) -> Pass {
        let template = match self.template(claim).await {
            Ok(template) => template,
            Err(_) if added.is_empty() => return Ok(Some(sandbox)).into(),
            Err(error) => {
                let prefix = "failed to get template for metadata propagation: ";
                return Err(match error {
                    ClaimError::NoTemplate(text) => ClaimError::NoTemplate(format!("{prefix}{text}")),
                    ClaimError::Other(text) => ClaimError::Other(format!("{prefix}{text}")),
                    error => error,
                })
                .into();
            }
        };
        let hash = name_hash(template.name());
        let wanted = match metadata::for_claim(PodMetadata::of_pods(&template), claim, &hash) {
            Ok(wanted) => wanted,
            Err(text) => return Err(ClaimError::Other(text)).into(),
        };
        let old_labels = sandbox.labels();
        let mut labels = old_labels.clone();
        labels.insert(TEMPLATE_REF_HASH.into(), hash);
        // A label without a value says as much as none, and stays.
        if claim.label(CREATED_BY).is_some_and(|by| !by.is_empty()) || labels.contains_key(CREATED_BY) {
            metadata::mark_created_by(&mut labels, claim);
        }
        let mut patch = json!({});
        if let Some(changes) = metadata::patch(&old_labels, &labels) {
            patch["metadata"] = json!({"labels": changes});
        }
        let pods = PodMetadata::of_pods(&sandbox).patch_to(&wanted);
        if !pods.is_empty() {
            patch["spec"] = json!({"podTemplate": {"metadata": pods}});
        }
        if patch == json!({}) {
            return Ok(Some(sandbox)).into();
        }
        match self.api.patch(&sandboxes(), sandbox.namespace(), sandbox.name(), "", patch).await {
            Ok(patched) => Ok(Some(patched.object().clone())).into(),
            Err(error) => {
                let what = format!("failed to patch sandbox metadata for claim {}", quoted(claim.name()));
                Pass { sandbox: Some(sandbox), error: Some(ClaimError::api(&what, &error)) }
            }
        }
    }

    async fn create(&self, claim: &Object) -> Result<Object, ClaimError> {
        let template = self.template(claim).await?;
        let sandbox = cold::sandbox(claim, &template)?;
        match self.api.create(&sandboxes(), sandbox).await {
            Ok(created) => {
                self.count(claim, template.name(), "cold", false);
                let note = format!("Created Sandbox {}", quoted(created.name()));
                self.tell(claim, "SandboxProvisioned", "Provisioning", &note).await;
                Ok(created.object().clone())
            }
            Err(error) if error.is_already_exists() => Err(ClaimError::AlreadyExists),
            Err(error) => Err(ClaimError::api("sandbox create error", &error)),
        }
    }

    /// The pool of a claim.
    async fn pool(&self, claim: &Object) -> Result<Object, ClaimError> {
        let name = pool_name(claim);
        match self.api.get(&warm_pools(), claim.namespace(), name).await {
            Ok(Some(pool)) => Ok(pool.object().clone()),
            Ok(None) => Err(ClaimError::NoWarmPool),
            Err(error) => Err(ClaimError::api(&format!("failed to get sandbox warm pool {}", quoted(name)), &error)),
        }
    }

    /// The template of a claim's pool.
    async fn template(&self, claim: &Object) -> Result<Object, ClaimError> {
        let pool = self.pool(claim).await?;
        self.template_of(&pool).await
    }

    async fn template_of(&self, pool: &Object) -> Result<Object, ClaimError> {
        let name = pool.str_at(&["spec", "sandboxTemplateRef", "name"]);
        match self.api.get(&templates(), pool.namespace(), name).await {
            Ok(Some(template)) => Ok(template.object().clone()),
            Ok(None) => Err(ClaimError::NoTemplate(format!("SandboxTemplate {} not found", quoted(name)))),
            Err(error) => Err(ClaimError::api(&format!("failed to get sandbox template {}", quoted(name)), &error)),
        }
    }

    /// Takes away the Sandbox of an expired claim that stays.
    async fn take_away(&self, claim: &Object) -> Pass {
        let bound = claim.str_at(&["status", "sandbox", "name"]);
        let name = if bound.is_empty() { claim.name() } else { bound };
        let sandbox = match self.api.get(&sandboxes(), claim.namespace(), name).await {
            Ok(Some(sandbox)) => sandbox.object().clone(),
            Ok(None) => return Pass::default(),
            Err(error) => return Err(ClaimError::Other(error.message)).into(),
        };
        if !is_controlled(&sandbox, claim) {
            let (sandbox, claim) = (quoted(name), quoted(claim.name()));
            return Err(ClaimError::NotOwned(format!("sandbox {sandbox} is not owned by claim {claim}"))).into();
        }
        let mut error = None;
        if !sandbox.is_deleting()
            && let Err(refused) = self.api.delete(&sandboxes(), claim.namespace(), name, &DeletePolicy::default()).await
        {
            error = Some(ClaimError::api("failed to delete expired sandbox", &refused));
        }
        Pass { sandbox: Some(sandbox), error }
    }

    /// Deletes an expired claim, and with it what it has.
    async fn delete(&self, claim: &Object, policy: &str) -> Result<Outcome, Status> {
        self.tell(claim, "ClaimExpired", "Deleting", &format!("Deleting Claim (ShutdownPolicy={policy})")).await;
        let propagation = (policy == "DeleteForeground").then_some("Foreground");
        let policy = DeletePolicy { propagation, ..DeletePolicy::default() };
        match self.api.delete(&claims(), claim.namespace(), claim.name(), &policy).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(Outcome::Done),
        }
    }

    /// Takes away the network policy that older releases made for each claim; that it fails is no reason not to serve.
    async fn drop_old_policy(&self, claim: &Object) {
        let name = format!("{}-network-policy", claim.name());
        let found = self.api.get(&network_policies(), claim.namespace(), &name).await.ok().flatten();
        let own = found
            .and_then(|policy| policy.controller())
            .is_some_and(|owner| adopt::refers_to(&owner, "SandboxClaim") && owner.uid == claim.uid());
        if own {
            let policy = DeletePolicy::default();
            if let Err(error) = self.api.delete(&network_policies(), claim.namespace(), &name, &policy).await {
                tracing::debug!(%error, name, "network policy of an older release not deleted");
            }
        }
    }

    // Writes to the claim

    async fn annotate(&self, claim: &mut Object, key: &str, value: &str) -> Result<(), Status> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        let patched = self.api.patch(&claims(), claim.namespace(), claim.name(), "", patch).await?;
        *claim = patched.object().clone();
        Ok(())
    }

    async fn note_first_sight(&self, claim: &mut Object) -> Result<(), Status> {
        let noted = claim.annotation(FIRST_OBSERVED).is_some_and(|time| !time.is_empty());
        if noted || self.settings.disable_claim_observability_annotations {
            return Ok(());
        }
        let time = self.seen.first_sight(claim).unwrap_or_else(|| self.api.clock().now());
        self.annotate(claim, FIRST_OBSERVED, &time.to_string()).await
    }

    /// Notes when the claim was first ready; that it was, where the note is missing afterwards.
    async fn note_first_ready(
        &self,
        claim: &mut Object,
        old: &ClaimStatus,
        new: &ClaimStatus,
        sandbox: Option<&Object>,
    ) -> Result<(), Status> {
        if claim.annotation(FIRST_READY).is_some_and(|time| !time.is_empty()) {
            return Ok(());
        }
        match (old.is_ready(), new.is_ready()) {
            (false, false) => Ok(()),
            (true, _) => self.annotate(claim, FIRST_READY, UNKNOWN).await,
            (false, true) => {
                self.time_first_ready(claim, sandbox);
                let now = self.api.clock().now().to_string();
                self.annotate(claim, FIRST_READY, &now).await
            }
        }
    }

    /// Times how long a claim took that has just become ready.
    fn time_first_ready(&self, claim: &Object, sandbox: Option<&Object>) {
        let launch = match sandbox {
            None => "unknown",
            Some(sandbox) if sandbox.label(LAUNCH_TYPE) == Some("warm") => "warm",
            Some(_) => "cold",
        };
        let template = template_of(sandbox);
        let now = self.api.clock().now();
        let starts =
            [(Latency::Claim, WEBHOOK_OBSERVED), (Latency::Controller, FIRST_OBSERVED), (Latency::Client, REQUESTED)];
        for (latency, annotation) in starts {
            let start = claim.annotation(annotation).and_then(|time| time.parse::<Timestamp>().ok());
            if let Some(took) = start.and_then(|start| Duration::try_from(now.duration_since(start)).ok()) {
                self.metrics.took(latency, &[launch, template], took);
            }
        }
        let Some(sandbox) = sandbox else { return };
        let ready = sandbox.at(&["status", "conditions"]).and_then(Value::as_array);
        let ready = ready.and_then(|all| conditions::find(all, "Ready")).filter(|ready| ready["status"] == "True");
        let since = ready.and_then(|ready| ready["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
        if let (Some(since), Some(created)) = (since, sandbox.creation_timestamp())
            && let Ok(took) = Duration::try_from(since.duration_since(created))
        {
            self.metrics.took(Latency::Creation, &[sandbox.namespace(), launch, template], took);
        }
    }

    /// Counts a claim that has got its Sandbox.
    fn count(&self, claim: &Object, template: &str, launch: &str, ready: bool) {
        self.metrics.claim_created(ClaimCreation {
            namespace: claim.namespace().into(),
            sandbox_template: template.into(),
            launch_type: launch.into(),
            warmpool_name: pool_name(claim).into(),
            pod_condition: if ready { "ready" } else { "not_ready" }.into(),
            created_by: claim.label(CREATED_BY).unwrap_or_default().into(),
        });
    }

    async fn tell_of_expiry(
        &self,
        claim: &mut Object,
        old: &ClaimStatus,
        new: &ClaimStatus,
    ) -> Result<Outcome, Status> {
        self.write_status(claim, old, new).await?;
        self.tell(claim, "ClaimExpired", "Claim Expired", "Claim expired").await;
        Ok(Outcome::After(IMMEDIATELY))
    }

    /// Writes the status, unless the claim has been written by somebody else since it was read: then the answer is false,
    /// and another pass is needed. Upstream leaves that pass to the event of the other write; a conflict that a rule made
    /// up has none. A claim that is gone needs no status.
    async fn write_status(&self, claim: &mut Object, old: &ClaimStatus, new: &ClaimStatus) -> Result<bool, Status> {
        let Some(patch) = old.patch_to(new, claim.resource_version()) else { return Ok(true) };
        match self.api.patch(&claims(), claim.namespace(), claim.name(), "status", patch).await {
            Ok(patched) => *claim = patched.object().clone(),
            Err(error) if error.is_not_found() => {}
            Err(error) if error.is_conflict() => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    async fn tell(&self, claim: &Object, reason: &str, action: &str, note: &str) {
        if !self.settings.disable_claim_events {
            let kind = EventKind::Events { controller: REPORTER, action };
            self.api.event(kind, claim, false, reason, note).await;
        }
    }
}

#[cfg(test)]
mod tests;
