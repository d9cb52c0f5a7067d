//! Cells of server-side printing: what `kubectl get` shows of each kind.
//!
//! Upstream: `pkg/printers/internalversion/printers.go` and `k8s.io/apimachinery/pkg/util/duration`.

pub(super) mod cluster;
pub(super) mod network;
pub(super) mod pods;
pub(super) mod storage;
pub(super) mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::util::{get, items, members, text};
use crate::base::{Object, selector::LabelSelector};

/// How long ago something was, as `kubectl get` shows it: `5s`, `2m10s`, `3h`, `4d`.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    human_duration(now.duration_since(then).as_secs())
}

/// `duration.HumanDuration` of whole seconds.
pub(super) fn human_duration(seconds: i64) -> String {
    let pair = |big: i64, unit: &str, small: i64, sub: &str| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{sub}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, "m", seconds % 60, "s"),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, "h", minutes % 60, "m"),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 24 * 8 => pair(hours / 24, "d", hours % 24, "h"),
        _ if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        _ if hours < 24 * 365 * 8 => pair(hours / 24 / 365, "y", hours / 24 % 365, "d"),
        _ => format!("{}y", hours / 24 / 365),
    }
}

/// The age of a time in text, `<unknown>` where there is none.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| "<unknown>".into(), |then| age(then, now))
}

fn object_age(object: &Object, now: Timestamp) -> Value {
    since(object.str_at(&["metadata", "creationTimestamp"]), now).into()
}

/// A text, or what stands for none.
fn or<'a>(text: &'a str, none: &'a str) -> &'a str {
    if text.is_empty() { none } else { text }
}

fn root(object: &Object) -> Value {
    object.to_value()
}

/// Name and age.
pub(super) fn name_and_age(object: &Object, now: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object_age(object, now)]
}

/// Name and creation time: kinds that the table printer has no handler for.
pub(super) fn name_and_creation(object: &Object, _: Timestamp) -> Vec<Value> {
    vec![object.name().into(), object.str_at(&["metadata", "creationTimestamp"]).into()]
}

/// Whether a condition is there and true.
pub(super) fn condition_is_true(status: &Value, kind: &str) -> bool {
    items(status, "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

/// Labels as `a=b,c=d`, `<none>` where there are none.
fn label_text(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let list: Vec<_> = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default())).collect();
    or(&list.join(","), "<none>").into()
}

/// A `LabelSelector` object as text.
fn selector_text(selector: &Value) -> String {
    if selector.is_null() {
        return "<none>".into();
    }
    // matchLabels print as `a=b`, unlike the `a in (b)` that they mean
    let expressions = json!({"matchExpressions": get(selector, "matchExpressions")});
    let expressions = LabelSelector::from_value(Some(&expressions)).map(|s| s.to_string()).unwrap_or_default();
    let pairs = members(selector, "matchLabels").map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()));
    let list: Vec<_> = pairs.chain((!expressions.is_empty()).then_some(expressions)).collect();
    or(&list.join(","), "<none>").into()
}

/// Names and images of a pod template's containers, comma-separated.
fn containers(template: &Value) -> [Value; 2] {
    let join = |key: &str| {
        let list: Vec<_> = items(get(template, "spec"), "containers").iter().map(|c| text(c, key)).collect();
        list.join(",").into()
    };
    [join("name"), join("image")]
}
