//! Finding a claim's Sandbox: the one it has, the one it has been promised, one of its name, or a member of its pool
//! (`getOrCreateSandbox`, `adoptSandboxFromCandidates`, `resolveAdoptionCompletion`).
//!
//! A member is promised first, on the claim, and then taken: a controller that ends between the two finds the promise
//! again. Both writes are for one version of what they write only. Whoever else has written it makes them a conflict,
//! which is settled on what is there now, never by another member in the same pass.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{
    super::{
        blueprint,
        keys::{ASSIGNED, LAUNCH_TYPE, TEMPLATE_HASH, claims, sandboxes},
    },
    Controller, adopt, cold,
    error::{ClaimError, quoted},
    is_controlled, metadata, pool_name,
    queue::{Candidate, Pool},
    status::{is_sandbox_ready, pod_ips},
    template_of,
};
use crate::{
    base::{Object, Status},
    clock::time_text,
};

/// How long after its creation a claim waits for members that are about to have addresses.
const GRACE: SignedDuration = SignedDuration::from_secs(2);
/// How soon a waiting claim looks again.
const RETRY: Duration = Duration::from_millis(500);
/// How often a write that met another's is tried (`retry.DefaultRetry`).
const ATTEMPTS: usize = 5;

/// Why a write of an adoption failed.
#[derive(Debug)]
enum Failure {
    /// The API refused it.
    Api(Status),
    /// It was not tried.
    Claim(ClaimError),
}

impl From<Status> for Failure {
    fn from(error: Status) -> Self {
        Self::Api(error)
    }
}

impl From<ClaimError> for Failure {
    fn from(error: ClaimError) -> Self {
        Self::Claim(error)
    }
}

impl Failure {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_conflict())
    }

    fn is_not_found(&self) -> bool {
        matches!(self, Self::Api(error) if error.is_not_found())
    }

    /// As the claim's error, behind a text where there is one.
    fn into_error(self, what: &str) -> ClaimError {
        let prefixed = |text: String| if what.is_empty() { text } else { format!("{what}: {text}") };
        match self {
            Self::Api(error) => ClaimError::Other(prefixed(error.message)),
            Self::Claim(ClaimError::Other(text)) => ClaimError::Other(prefixed(text)),
            Self::Claim(error) => error,
        }
    }
}

/// What a pool's queue had for a claim.
enum Offer {
    /// This member.
    Take(Object, Candidate),
    /// Nothing yet: so many members are about to have addresses.
    Pending,
    /// Nothing.
    Nothing,
}

/// A claim as its Go type writes it, which is what an update sends.
fn typed(claim: &Object) -> Object {
    let mut typed = claim.clone();
    typed.set_at(&["spec", "additionalPodMetadata"], metadata::PodMetadata::added_by(claim).to_value());
    if let Some(time) = claim.time_at(&["spec", "lifecycle", "shutdownTime"]) {
        typed.set_at(&["spec", "lifecycle", "shutdownTime"], time_text(time));
    }
    typed
}

impl Controller {
    /// The claim's Sandbox; `None` if it is to get one of its own.
    pub(super) async fn find(&self, claim: &mut Object) -> Result<Option<Object>, ClaimError> {
        if let Some(bound) = self.bound(claim).await? {
            return Ok(Some(bound));
        }
        if let Some(promised) = self.promised(claim).await? {
            return Ok(Some(promised));
        }
        let name = claim.name().to_owned();
        let what = || format!("failed to get sandbox {}", quoted(&name));
        if let Some(sandbox) = self.sandbox(claim, &name, what).await? {
            if is_controlled(&sandbox, claim) {
                return self.launched(sandbox, "cold").await.map(Some);
            }
            let name = quoted(&name);
            return Err(ClaimError::Other(format!(
                "sandbox {name} is not controlled by claim {name}. Please use a different claim name or delete the \
                 sandbox manually"
            )));
        }
        if cold::is_needed(claim) {
            return Ok(None);
        }
        match self.offer(claim).await? {
            Offer::Take(sandbox, candidate) => self.adopt(claim, sandbox, candidate).await.map(Some),
            Offer::Pending => self.wait_or_give_up(claim),
            Offer::Nothing => Ok(None),
        }
    }

    async fn sandbox(
        &self,
        claim: &Object,
        name: &str,
        what: impl FnOnce() -> String,
    ) -> Result<Option<Object>, ClaimError> {
        match self.api.get(&sandboxes(), claim.namespace(), name).await {
            Ok(found) => Ok(found.map(|sandbox| sandbox.object().clone())),
            Err(error) => Err(ClaimError::api(&what(), &error)),
        }
    }

    /// The Sandbox in the claim's status, if it is the claim's.
    async fn bound(&self, claim: &Object) -> Result<Option<Object>, ClaimError> {
        let name = claim.str_at(&["status", "sandbox", "name"]);
        if name.is_empty() {
            return Ok(None);
        }
        let what = || format!("failed to get sandbox {} from status", quoted(name));
        let Some(sandbox) = self.sandbox(claim, name, what).await? else { return Ok(None) };
        if !is_controlled(&sandbox, claim) {
            return Ok(None);
        }
        let promised = [claim.annotation(ASSIGNED), claim.label(ASSIGNED)].contains(&Some(name));
        let launch = if promised || name != claim.name() { "warm" } else { "cold" };
        self.launched(sandbox, launch).await.map(Some)
    }

    /// The member that was promised to the claim, taken now if it is not yet. A promise that cannot be kept is dropped.
    async fn promised(&self, claim: &mut Object) -> Result<Option<Object>, ClaimError> {
        let text = |value: Option<&str>| value.filter(|name| !name.is_empty()).map(str::to_owned);
        let annotated = text(claim.annotation(ASSIGNED));
        let old_style = annotated.is_none(); // older releases promised by label
        let Some(name) = annotated.or_else(|| text(claim.label(ASSIGNED))) else { return Ok(None) };
        let what = || format!("failed to get sandbox {} for sandbox name lookup", quoted(&name));
        let Some(sandbox) = self.sandbox(claim, &name, what).await? else {
            let what = "failed to remove stale sandbox reference from claim metadata";
            self.drop_promise(claim, old_style, what).await?;
            return Ok(None);
        };
        if is_controlled(&sandbox, claim) {
            self.renew_promise(claim, old_style, &name).await;
            return self.launched(sandbox, "warm").await.map(Some);
        }
        if adopt::is_pooled(&sandbox) {
            if adopt::check_candidate(&sandbox, pool_name(claim)).is_err() {
                self.drop_promise(claim, old_style, "failed to remove invalid sandbox reference").await?;
                return Ok(None);
            }
            let taken = match self.complete(claim, &sandbox).await {
                Ok(taken) => taken,
                Err(failure) if failure.is_conflict() || failure.is_not_found() => self.settle(claim, &name).await?,
                Err(failure) => {
                    return Err(failure.into_error(&format!("failed to complete adoption of {}", quoted(&name))));
                }
            };
            self.renew_promise(claim, old_style, &name).await;
            return Ok(Some(taken));
        }
        if sandbox.controller().is_some_and(|owner| adopt::refers_to(&owner, "SandboxClaim")) {
            let what = "failed to remove sandbox reference owned by another claim";
            self.drop_promise(claim, old_style, what).await?;
        }
        Ok(None)
    }

    /// Says on a Sandbox how it came to its claim, where nothing says so yet.
    async fn launched(&self, sandbox: Object, launch: &str) -> Result<Object, ClaimError> {
        if sandbox.label(LAUNCH_TYPE).is_some() {
            return Ok(sandbox);
        }
        let patch = json!({"metadata": {"labels": {LAUNCH_TYPE: launch}}});
        match self.api.patch(&sandboxes(), sandbox.namespace(), sandbox.name(), "", patch).await {
            Ok(patched) => Ok(patched.object().clone()),
            Err(error) => {
                let what = format!("failed to initialize launch type label on sandbox {}", quoted(sandbox.name()));
                Err(ClaimError::api(&what, &error))
            }
        }
    }

    async fn drop_promise(&self, claim: &mut Object, old_style: bool, what: &str) -> Result<(), ClaimError> {
        let (member, old) = if old_style { ("labels", claim.labels()) } else { ("annotations", claim.annotations()) };
        let mut new = old.clone();
        new.remove(ASSIGNED);
        let patch = json!({"metadata": {member: metadata::patch(&old, &new)}});
        let patched = self.api.patch(&claims(), claim.namespace(), claim.name(), "", patch).await;
        *claim = patched.map_err(|error| ClaimError::api(what, &error))?.object().clone();
        Ok(())
    }

    /// Turns a promise by label into one by annotation; best effort.
    async fn renew_promise(&self, claim: &mut Object, old_style: bool, name: &str) {
        if !old_style {
            return;
        }
        let old = claim.labels();
        let mut new = old.clone();
        new.remove(ASSIGNED);
        let labels = metadata::patch(&old, &new).unwrap_or(Value::Null);
        let patch = json!({"metadata": {"annotations": {ASSIGNED: name}, "labels": labels}});
        match self.api.patch(&claims(), claim.namespace(), claim.name(), "", patch).await {
            Ok(patched) => *claim = patched.object().clone(),
            Err(error) => tracing::debug!(%error, name, "label of an older release not renewed"),
        }
    }

    /// The pool's members have no addresses yet: a young claim waits for them, an older one is served cold.
    fn wait_or_give_up(&self, claim: &Object) -> Result<Option<Object>, ClaimError> {
        let deadline = claim.creation_timestamp().and_then(|created| created.checked_add(GRACE).ok());
        let left = deadline.map(|deadline| deadline.duration_since(self.api.clock().now()));
        match left.and_then(|left| Duration::try_from(left).ok()).filter(|left| !left.is_zero()) {
            Some(left) => Err(ClaimError::Pending(left.min(RETRY))),
            None => Ok(None),
        }
    }

    /// The member that the claim is to take: the first that is ready, else the first with addresses. What was looked at
    /// and not taken goes back to the end.
    async fn offer(&self, claim: &Object) -> Result<Offer, ClaimError> {
        let pool: Pool = (claim.namespace().into(), pool_name(claim).into());
        let (mut skipped, mut fallback, mut pending) = (Vec::new(), None, false);
        // What members of a pool that replaces the stale must be like; looked up with the first.
        let mut wanted: Option<Result<Option<(Object, String)>, ClaimError>> = None;
        let offer = loop {
            let Some(mut candidate) = self.seen.pop(&pool) else {
                break match fallback.take() {
                    Some((sandbox, candidate)) => Ok(Offer::Take(sandbox, candidate)),
                    None if pending => Ok(Offer::Pending),
                    None => Ok(Offer::Nothing),
                };
            };
            let sandbox = match self.api.get(&sandboxes(), &pool.0, &candidate.name).await {
                Ok(Some(sandbox)) => sandbox,
                Ok(None) => continue, // gone, and soon off the queue
                Err(error) => {
                    skipped.push(candidate);
                    break Err(ClaimError::Other(error.message));
                }
            };
            if adopt::check_candidate(&sandbox, &pool.1).is_err() {
                continue;
            }
            if wanted.is_none() {
                wanted = Some(self.wanted(claim).await);
            }
            match wanted.as_ref() {
                Some(Err(_)) => {
                    pending |= pod_ips(&sandbox).is_empty();
                    skipped.push(candidate);
                    continue;
                }
                Some(Ok(Some((template, hash))))
                    if sandbox.label(TEMPLATE_HASH) != Some(hash) && !blueprint::is_current(template, &sandbox) =>
                {
                    continue; // stale; its pool is about to replace it
                }
                Some(Ok(_)) | None => {}
            }
            if pod_ips(&sandbox).is_empty() {
                let node = sandbox.str_at(&["status", "nodeName"]);
                if !node.is_empty() {
                    candidate.node = node.into();
                }
                pending = true;
                skipped.push(candidate);
            } else if is_sandbox_ready(&sandbox) {
                break Ok(Offer::Take(sandbox.object().clone(), candidate));
            } else if fallback.is_none() {
                fallback = Some((sandbox.object().clone(), candidate));
            } else {
                skipped.push(candidate);
            }
        };
        skipped.extend(fallback.map(|(_, candidate)| candidate));
        self.seen.put_back(&pool, skipped);
        offer
    }

    /// The template and hash that members must have, where the pool replaces the stale.
    async fn wanted(&self, claim: &Object) -> Result<Option<(Object, String)>, ClaimError> {
        let pool = self.pool(claim).await?;
        if pool.str_at(&["spec", "updateStrategy", "type"]) != "Recreate" {
            return Ok(None);
        }
        let template = self.template_of(&pool).await?;
        let hash = blueprint::hash(&template);
        Ok(Some((template, hash)))
    }

    /// Takes a member: promises it to the claim, and makes it the claim's.
    async fn adopt(&self, claim: &mut Object, sandbox: Object, candidate: Candidate) -> Result<Object, ClaimError> {
        let pool: Pool = (claim.namespace().into(), pool_name(claim).into());
        let name = sandbox.name().to_owned();
        if let Err(failure) = self.promise(claim, &name).await {
            self.seen.put_back(&pool, [candidate]);
            return Err(match failure {
                Failure::Api(error) if error.is_conflict() => {
                    ClaimError::conflict(&format!("claim {} (conflicting concurrent write)", claim.name()))
                }
                failure => failure.into_error(""),
            });
        }
        let taken = match self.complete(claim, &sandbox).await {
            Ok(taken) => taken,
            Err(failure) if failure.is_conflict() || failure.is_not_found() => self.settle(claim, &name).await?,
            Err(failure) => {
                self.seen.put_back(&pool, [candidate]);
                return Err(failure.into_error(""));
            }
        };
        let note = format!("Adopted warm pool Sandbox {}", quoted(&name));
        self.tell(claim, "SandboxAdopted", "Adoption", &note).await;
        self.count(claim, template_of(Some(&taken)), "warm", is_sandbox_ready(&taken));
        Ok(taken)
    }

    /// Notes on the claim which member it takes.
    async fn promise(&self, claim: &mut Object, name: &str) -> Result<(), Failure> {
        let mut promised = typed(claim);
        promised.set_at(&["metadata", "annotations", ASSIGNED], name);
        match self.api.update(&claims(), promised, "").await {
            Ok(written) => {
                *claim = written.object().clone();
                return Ok(());
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
        let (uid, claim_name) = (claim.uid().to_owned(), claim.name().to_owned());
        self.update_fresh(claim, |fresh| {
            if fresh.uid() != uid {
                let text = format!("claim {claim_name} was deleted and recreated during adoption");
                return Err(ClaimError::conflict(&text));
            }
            match fresh.annotation(ASSIGNED).filter(|other| !other.is_empty() && *other != name) {
                Some(other) => {
                    Err(ClaimError::conflict(&format!("claim {claim_name} already assigned sandbox {other}")))
                }
                None => {
                    fresh.set_at(&["metadata", "annotations", ASSIGNED], name);
                    Ok(true)
                }
            }
        })
        .await
    }

    /// Changes the claim as it is now; again where somebody else was faster. `false` leaves it as it is.
    async fn update_fresh(
        &self,
        claim: &mut Object,
        change: impl Fn(&mut Object) -> Result<bool, ClaimError>,
    ) -> Result<(), Failure> {
        let mut attempt = 1;
        loop {
            let Some(live) = self.api.get(&claims(), claim.namespace(), claim.name()).await? else {
                let (gvr, name) = (claims(), claim.name());
                return Err(Status::not_found(&gvr.group, &gvr.resource, name).into());
            };
            let mut fresh = typed(live.object());
            if !change(&mut fresh)? {
                *claim = live.object().clone();
                return Ok(());
            }
            match self.api.update(&claims(), fresh, "").await {
                Ok(written) => {
                    *claim = written.object().clone();
                    return Ok(());
                }
                Err(error) if error.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Makes a member the claim's, in the version that was looked at.
    async fn complete(&self, claim: &Object, sandbox: &Object) -> Result<Object, Failure> {
        let template = self.template(claim).await.ok();
        let patch = adopt::patch_of(sandbox, claim, template.as_ref()).map_err(ClaimError::Other)?;
        let taken = self.api.patch(&sandboxes(), sandbox.namespace(), sandbox.name(), "", patch).await?;
        Ok(taken.object().clone())
    }

    /// Settles a promise that could not be kept on the version that was known: the member is the claim's already, or is
    /// taken as it is now, or is lost, and the promise with it.
    async fn settle(&self, claim: &mut Object, name: &str) -> Result<Object, ClaimError> {
        let mut attempt = 1;
        let failure = loop {
            match self.settle_once(claim, name).await {
                Ok(taken) => return Ok(taken),
                Err(failure) if failure.is_conflict() && attempt < ATTEMPTS => attempt += 1,
                Err(failure) => break failure,
            }
        };
        let gone = failure.is_not_found();
        let lost = matches!(&failure, Failure::Claim(ClaimError::AdoptionConflict(_)));
        if failure.is_conflict() {
            // The promise stands: the member may still be had in the next pass.
            let text = format!("completing adoption of {name} for claim {}", claim.name());
            return Err(ClaimError::conflict(&format!("{text} (conflicting concurrent write)")));
        }
        if gone || lost {
            let what = if gone { "deleted" } else { "lost to another owner" };
            if self.withdraw(claim, name).await.is_err() {
                return Err(ClaimError::conflict(&format!("sandbox {name} {what} and reference cleanup failed")));
            }
        }
        Err(match failure {
            _ if gone => ClaimError::conflict(&format!("sandbox {name} deleted before adoption completed")),
            failure => failure.into_error(""),
        })
    }

    async fn settle_once(&self, claim: &Object, name: &str) -> Result<Object, Failure> {
        let Some(fresh) = self.api.get(&sandboxes(), claim.namespace(), name).await? else {
            let gvr = sandboxes();
            return Err(Status::not_found(&gvr.group, &gvr.resource, name).into());
        };
        if is_controlled(&fresh, claim) {
            return Ok(fresh.object().clone());
        }
        if !adopt::is_pooled(&fresh) {
            let text = format!("sandbox {name} is no longer pool-owned and not controlled by claim {}", claim.name());
            return Err(ClaimError::conflict(&text).into());
        }
        if let Err(why) = adopt::check_candidate(&fresh, pool_name(claim)) {
            let text = format!("sandbox {name} is no longer adoptable by claim {}: {why}", claim.name());
            return Err(ClaimError::conflict(&text).into());
        }
        self.complete(claim, &fresh).await
    }

    /// Takes a promise back, if it is still that one. A claim that is gone has none.
    async fn withdraw(&self, claim: &mut Object, name: &str) -> Result<(), Failure> {
        let uid = claim.uid().to_owned();
        let mut here = claim.clone();
        let result = self
            .update_fresh(&mut here, |fresh| {
                let promised = |value: Option<&str>| value == Some(name);
                let (annotated, labelled) = (promised(fresh.annotation(ASSIGNED)), promised(fresh.label(ASSIGNED)));
                if fresh.uid() != uid || !annotated && !labelled {
                    return Ok(false);
                }
                for (member, there) in [("annotations", annotated), ("labels", labelled)] {
                    if there {
                        fresh.remove_at(&["metadata", member, ASSIGNED]);
                    }
                }
                Ok(true)
            })
            .await;
        match result {
            Err(failure) if !failure.is_not_found() => Err(failure),
            Ok(()) if here.uid() == uid => {
                *claim = here;
                Ok(())
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
