//! Leader election by a Lease, as client-go does it (`client-go/tools/leaderelection/leaderelection.go`): of several
//! processes that run the same controllers, one writes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::{
    base::{Gvr, Object, Status},
    clock::micro_time_text,
};

/// How long others leave a lease alone that is not renewed.
const LEASE: Duration = Duration::from_secs(15);
/// How long the leader goes on trying to renew before it gives up.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// The pause between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// One candidate for one lease.
#[derive(Clone, Debug)]
pub struct Candidate {
    api: Api,
    namespace: String,
    name: String,
    /// Who the candidate says it is; no two may say the same.
    identity: String,
}

/// What a candidate knows of the lease: as it was read last, and when it was first seen like this.
#[derive(Debug, Default)]
struct Observed {
    spec: Option<serde_json::Value>,
    since: Option<Timestamp>,
}

impl Observed {
    fn look(&mut self, lease: &Object, now: Timestamp) {
        let spec = lease.get("spec").cloned();
        if self.since.is_none() || self.spec != spec {
            *self = Self { spec, since: Some(now) };
        }
    }

    /// Whether somebody else holds the lease. The times that stand in it are by the holder's clock: only how long it has
    /// not changed counts.
    fn held_by_other(&self, lease: &Object, identity: &str, now: Timestamp) -> bool {
        let holder = lease.str_at(&["spec", "holderIdentity"]);
        let seconds = lease.at(&["spec", "leaseDurationSeconds"]).and_then(serde_json::Value::as_i64).unwrap_or(0);
        let until = self.since.map(|since| since.saturating_add(SignedDuration::from_secs(seconds)));
        let lasts = matches!(until, Some(Ok(until)) if until > now);
        !holder.is_empty() && holder != identity && lasts
    }
}

impl Candidate {
    /// A candidate.
    pub fn new(api: Api, namespace: &str, name: &str, identity: &str) -> Self {
        Self { api, namespace: namespace.into(), name: name.into(), identity: identity.into() }
    }

    /// Waits until this candidate leads; `false` if the token was cancelled before.
    pub async fn acquire(&self, token: &CancellationToken) -> bool {
        let mut observed = Observed::default();
        let acquired = async {
            loop {
                match self.try_once(&mut observed).await {
                    Ok(true) => return,
                    Ok(false) => {}
                    Err(error) => tracing::warn!(lease = self.name, %error, "cannot take the lease; trying again"),
                }
                self.api.clock().sleep(RETRY).await;
            }
        };
        token.run_until_cancelled(acquired).await.is_some()
    }

    /// Renews the lease until the token is cancelled, and then gives it up, so that the next need not wait; or until it is
    /// lost: then the answer is an error, and what was led must stop at once.
    ///
    /// # Errors
    /// If the lease was taken by another, or could not be renewed in time.
    pub async fn hold(&self, token: &CancellationToken) -> Result<(), Status> {
        let clock = self.api.clock();
        let mut observed = Observed::default();
        let mut renewed = clock.now();
        loop {
            if token.run_until_cancelled(clock.sleep(RETRY)).await.is_none() {
                self.release().await;
                return Ok(());
            }
            let failure = match self.try_once(&mut observed).await {
                Ok(true) => {
                    renewed = clock.now();
                    continue;
                }
                Ok(false) => return Err(Status::unexpected(format!("the lease {} was taken by another", self.name))),
                Err(error) => error,
            };
            tracing::warn!(lease = self.name, error = %failure, "cannot renew the lease; trying again");
            if clock.now().duration_since(renewed).unsigned_abs() >= RENEW_DEADLINE {
                return Err(failure);
            }
        }
    }

    /// Takes or renews the lease; `false` if another has it.
    async fn try_once(&self, observed: &mut Observed) -> Result<bool, Status> {
        let now = self.api.clock().now();
        let Some(found) = self.api.get(&leases(), &self.namespace, &self.name).await? else {
            let mut lease = Object::new("coordination.k8s.io/v1", "Lease", &self.namespace, &self.name);
            lease.set("spec", self.record(now, &micro_time_text(now), 0));
            return match self.api.create(&leases(), lease).await {
                Ok(_) => Ok(true),
                Err(error) if error.is_already_exists() => Ok(false),
                Err(error) => Err(error),
            };
        };
        observed.look(&found, now);
        if observed.held_by_other(&found, &self.identity, now) {
            return Ok(false);
        }
        let transitions = found.at(&["spec", "leaseTransitions"]).and_then(serde_json::Value::as_i64).unwrap_or(0);
        let mine = found.str_at(&["spec", "holderIdentity"]) == self.identity;
        let record = if mine {
            self.record(now, found.str_at(&["spec", "acquireTime"]), transitions)
        } else {
            self.record(now, &micro_time_text(now), transitions + 1)
        };
        let mut lease = found.object().clone();
        lease.set("spec", record);
        match self.api.update(&leases(), lease, "").await {
            Ok(_) => Ok(true),
            Err(error) if error.is_conflict() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn record(&self, now: Timestamp, acquired: &str, transitions: i64) -> serde_json::Value {
        json!({
            "holderIdentity": self.identity, "leaseDurationSeconds": LEASE.as_secs(), "acquireTime": acquired,
            "renewTime": micro_time_text(now), "leaseTransitions": transitions,
        })
    }

    /// Gives the lease up. Best effort: it runs out by itself.
    async fn release(&self) {
        let released = async {
            let Some(found) = self.api.get(&leases(), &self.namespace, &self.name).await? else { return Ok(()) };
            if found.str_at(&["spec", "holderIdentity"]) != self.identity {
                return Ok(());
            }
            let mut lease = found.object().clone();
            let now = micro_time_text(self.api.clock().now());
            let transitions = found.at(&["spec", "leaseTransitions"]).cloned().unwrap_or_default();
            lease.set(
                "spec",
                json!({
                    "holderIdentity": "", "leaseDurationSeconds": 1, "acquireTime": now, "renewTime": now,
                    "leaseTransitions": transitions,
                }),
            );
            self.api.update(&leases(), lease, "").await.map(drop)
        };
        if let Err(error) = released.await {
            tracing::debug!(lease = self.name, %error, "lease not given up; it runs out");
        }
    }
}

fn leases() -> Gvr {
    Gvr::new("coordination.k8s.io", "v1", "leases")
}
