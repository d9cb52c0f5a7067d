//! Condition lists as `meta.SetStatusCondition` keeps them.

use serde_json::{Value, json};

/// A condition to set; its time is added when it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Type.
    pub(super) kind: &'static str,
    /// `True`, `False` or `Unknown`.
    pub(super) status: String,
    /// Reason.
    pub(super) reason: String,
    /// Message.
    pub(super) message: String,
}

impl Condition {
    pub(super) fn new(kind: &'static str, status: &str, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status: status.into(), reason: reason.into(), message: message.into() }
    }
}

/// The condition of a type.
pub(super) fn find<'a>(list: &'a [Value], kind: &str) -> Option<&'a Value> {
    list.iter().find(|condition| condition["type"] == kind)
}

/// A member of the condition of a type, or `""`.
pub(super) fn text<'a>(list: &'a [Value], kind: &str, member: &str) -> &'a str {
    find(list, kind).and_then(|condition| condition[member].as_str()).unwrap_or_default()
}

/// Sets a condition: a new one goes to the end, and only a new status has a new time.
pub(super) fn set(list: &mut Vec<Value>, condition: &Condition, generation: i64, now: &str) {
    let Condition { kind, status, reason, message } = condition;
    let mut new = json!({
        "type": kind, "status": status, "reason": reason, "message": message,
        "observedGeneration": generation, "lastTransitionTime": now,
    });
    match list.iter_mut().find(|old| old["type"] == *kind) {
        None => list.push(new),
        Some(old) => {
            if old["status"] == new["status"] && old["lastTransitionTime"].is_string() {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
    }
}

/// Removes a condition.
pub(super) fn remove(list: &mut Vec<Value>, kind: &str) {
    list.retain(|condition| condition["type"] != kind);
}
