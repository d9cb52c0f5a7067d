//! The status of a claim (`computeReadyCondition`, `computeAndSetStatus`), and when it expires (`internal/lifecycle`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    super::conditions::{self, Condition},
    error::ClaimError,
};
use crate::{base::Object, clock::time_text};

/// The status of a claim.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ClaimStatus {
    conditions: Vec<Value>,
    /// Name of the Sandbox, `""` without one.
    pub(super) sandbox: String,
    pod_ips: Vec<Value>,
}

/// The conditions of a Sandbox or claim.
fn conditions_of(object: &Object) -> &[Value] {
    object.at(&["status", "conditions"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a Sandbox is ready.
pub(super) fn is_sandbox_ready(sandbox: &Object) -> bool {
    conditions::text(conditions_of(sandbox), "Ready", "status") == "True"
}

/// The addresses of a Sandbox's pod.
pub(super) fn pod_ips(sandbox: &Object) -> &[Value] {
    sandbox.at(&["status", "podIPs"]).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a change of a Sandbox concerns its claim.
pub(super) fn is_relevant(old: &Object, new: &Object) -> bool {
    let differs = |kind: &str| conditions::find(conditions_of(old), kind) != conditions::find(conditions_of(new), kind);
    old.is_deleting() != new.is_deleting() || pod_ips(old) != pod_ips(new) || differs("Ready") || differs("Finished")
}

impl ClaimStatus {
    /// The status that a claim has. Conditions are kept by type.
    pub(super) fn of(claim: &Object) -> Self {
        let mut status = Self {
            conditions: conditions_of(claim).to_vec(),
            sandbox: claim.str_at(&["status", "sandbox", "name"]).into(),
            pod_ips: claim.at(&["status", "sandbox", "podIPs"]).and_then(Value::as_array).cloned().unwrap_or_default(),
        };
        status.sort();
        status
    }

    fn sort(&mut self) {
        self.conditions.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
    }

    /// Whether it says that the claim is ready.
    pub(super) fn is_ready(&self) -> bool {
        conditions::text(&self.conditions, "Ready", "status") == "True"
    }

    /// Whether it says that the claim has expired.
    pub(super) fn is_marked_expired(&self) -> bool {
        conditions::text(&self.conditions, "Ready", "reason") == "ClaimExpired"
    }

    /// Marks the claim as expired, before anything is taken away; an error of the pass goes before.
    pub(super) fn mark_expired(&mut self, claim: &Object, error: Option<&ClaimError>, now: Timestamp) {
        let (ready, time) = ready(claim, None, error, true);
        self.set(claim.generation(), &ready, time.as_deref(), now);
    }

    fn set(&mut self, generation: i64, condition: &Condition, time: Option<&str>, now: Timestamp) {
        let now = time_text(now);
        conditions::set(&mut self.conditions, condition, generation, time.unwrap_or(&now));
        self.sort();
    }

    /// Takes in how a pass ended.
    pub(super) fn conclude(
        &mut self,
        claim: &Object,
        sandbox: Option<&Object>,
        error: Option<&ClaimError>,
        expired: bool,
        now: Timestamp,
    ) {
        if sandbox.is_none() && error == Some(&ClaimError::AlreadyExists) && !self.sandbox.is_empty() {
            return; // the next pass finds it; until then nothing is known better
        }
        let (ready, time) = ready(claim, sandbox, error, expired);
        self.set(claim.generation(), &ready, time.as_deref(), now);
        let finished = sandbox.and_then(|sandbox| conditions::find(conditions_of(sandbox), "Finished"));
        match finished.and_then(forwarded("Finished")) {
            Some((condition, generation, time)) => self.set(generation, &condition, time.as_deref(), now),
            // An expired claim is remembered as finished when its Sandbox is gone.
            None if sandbox.is_none() && expired => {}
            None => conditions::remove(&mut self.conditions, "Finished"),
        }
        match sandbox {
            Some(sandbox) => {
                self.sandbox = sandbox.name().into();
                self.pod_ips = pod_ips(sandbox).to_vec();
            }
            None if matches!(error, None | Some(ClaimError::NotOwned(_))) => {
                self.sandbox.clear();
                self.pod_ips.clear();
            }
            // What failed may yet go well: the claim keeps its Sandbox.
            None => {}
        }
    }

    /// The status as JSON; `None` while it is empty, which Go does not write.
    fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        if *self == Self::default() {
            return map;
        }
        if !self.conditions.is_empty() {
            map.insert("conditions".into(), self.conditions.clone().into());
        }
        let mut sandbox = Map::new();
        if !self.sandbox.is_empty() {
            sandbox.insert("name".into(), self.sandbox.clone().into());
        }
        if !self.pod_ips.is_empty() {
            sandbox.insert("podIPs".into(), self.pod_ips.clone().into());
        }
        map.insert("sandbox".into(), sandbox.into());
        map
    }

    /// The merge patch to another status, for that version of the claim only; `None` if nothing changes.
    pub(super) fn patch_to(&self, new: &Self, resource_version: &str) -> Option<Value> {
        if self == new {
            return None;
        }
        let status = difference(&self.to_map(), &new.to_map());
        Some(json!({"metadata": {"resourceVersion": resource_version}, "status": status}))
    }

    /// When the claim expires: at its time, or some time after it has finished, whichever is earlier.
    fn expires_at(&self, claim: &Object) -> Option<Timestamp> {
        let at = claim.time_at(&["spec", "lifecycle", "shutdownTime"]);
        let ttl = claim.at(&["spec", "lifecycle", "ttlSecondsAfterFinished"]).and_then(Value::as_i64);
        let finished = conditions::find(&self.conditions, "Finished").filter(|condition| condition["status"] == "True");
        let finished =
            finished.and_then(|condition| condition["lastTransitionTime"].as_str()?.parse::<Timestamp>().ok());
        let after = ttl.zip(finished).and_then(|(ttl, time)| time.checked_add(SignedDuration::from_secs(ttl)).ok());
        at.into_iter().chain(after).min()
    }

    /// How long the claim has left; zero when it has expired, `None` if it does not expire.
    pub(super) fn time_left(&self, claim: &Object, now: Timestamp) -> Option<Duration> {
        let at = self.expires_at(claim)?;
        Some(Duration::try_from(at.duration_since(now)).unwrap_or_default())
    }
}

/// The merge patch from one JSON map to another.
fn difference(old: &Map<String, Value>, new: &Map<String, Value>) -> Value {
    let removed = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let set = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let set = set.map(|(key, value)| match (old.get(key), value) {
        (Some(Value::Object(old)), Value::Object(new)) => (key.clone(), difference(old, new)),
        _ => (key.clone(), value.clone()),
    });
    removed.chain(set).collect::<Map<_, _>>().into()
}

/// A condition of a Sandbox as a claim shows it, with its generation and its own time.
type Forwarded = (Condition, i64, Option<String>);

fn forwarded(kind: &'static str) -> impl Fn(&Value) -> Option<Forwarded> {
    move |condition| {
        let text = |member: &str| condition[member].as_str();
        let generation = condition["observedGeneration"].as_i64().unwrap_or_default();
        let condition = Condition::new(kind, text("status")?, text("reason")?, text("message").unwrap_or_default());
        Some((condition, generation, text("lastTransitionTime").map(str::to_owned)))
    }
}

/// Condition Ready, and the time of the Sandbox's condition where it is forwarded: a claim that takes a member which has
/// been ready for long has been ready, it says, since before it was made.
fn ready(
    claim: &Object,
    sandbox: Option<&Object>,
    error: Option<&ClaimError>,
    expired: bool,
) -> (Condition, Option<String>) {
    let not = |reason: &str, message: &str| (Condition::new("Ready", "False", reason, message), None);
    if let Some(error) = error {
        let (reason, message) = error.condition(claim.str_at(&["spec", "warmPoolRef", "name"]));
        return not(reason, &message);
    }
    if expired {
        return not("ClaimExpired", "Claim expired. Sandbox cleanup initiated.");
    }
    let Some(sandbox) = sandbox else { return not("SandboxMissing", "Sandbox does not exist") };
    let list = conditions_of(sandbox);
    if conditions::text(list, "Ready", "reason") == "SandboxExpired" {
        return not("SandboxExpired", "Underlying Sandbox resource has expired independently of the Claim.");
    }
    match conditions::find(list, "Ready").and_then(forwarded("Ready")) {
        Some((condition, _, time)) => (condition, time),
        None => not("SandboxNotReady", "Sandbox is not ready"),
    }
}
