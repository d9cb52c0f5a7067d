//! The cluster as a text, for messages of failed tests: the seed, the rules, what there is as `kubectl get` shows it, and
//! the last events.

use std::fmt::Write;

use serde_json::Value;

use super::table::{Include, Table};
use crate::{
    access::bootstrap,
    base::{Gvr, Object},
    kubelet,
    registry::{ListOptions, Registry},
};

/// How many events are shown, the newest.
const EVENTS: usize = 20;

/// The text.
pub(crate) async fn dump(registry: &Registry) -> String {
    let (clock, seed) = (registry.clock(), registry.ids().seed());
    let mut out = format!("cluster at {}, revision {}, seed {seed}\n", clock.now_text(), registry.revision());
    for installed in registry.rules().list() {
        let _ = writeln!(out, "rule {}, {} times: {}", installed.id, installed.hits, installed.rule);
    }
    let events = Gvr::new("", "v1", "events");
    for resource in registry.stored_resources().into_iter().filter(|resource| resource.gvr != events) {
        let Some(items) = list(registry, &resource.gvr).await else { continue };
        let table = Table::new(&resource, "v1", Include::None);
        let shown = table.render(Value::Null, items.iter(), clock.now(), true);
        let columns: Vec<&Value> = shown["columnDefinitions"].as_array().into_iter().flatten().collect();
        let shows = |at: usize| columns.get(at).is_some_and(|column| column["priority"] == 0);
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut head: Vec<String> = columns.iter().map(|it| text(&it["name"]).to_uppercase()).collect();
        head = head.into_iter().enumerate().filter(|(at, _)| shows(*at)).map(|(_, name)| name).collect();
        if resource.namespaced {
            head.insert(0, "NAMESPACE".into());
        }
        rows.push(head);
        for (object, row) in items.iter().zip(shown["rows"].as_array().into_iter().flatten()) {
            let cells = row["cells"].as_array().into_iter().flatten().enumerate();
            let mut cells: Vec<String> = cells.filter(|(at, _)| shows(*at)).map(|(_, cell)| text(cell)).collect();
            if resource.namespaced {
                cells.insert(0, object.namespace().into());
            }
            cells.push(notes(object));
            rows.push(cells);
        }
        let _ = writeln!(out, "\n{}", resource.gvr);
        aligned(&mut out, &rows);
    }
    let talk = network(registry).await;
    if !talk.is_empty() {
        let _ = writeln!(out, "\nnetwork policies (told, not enforced)\n  {}", talk.join("\n  "));
    }
    if let Some(mut all) = list(registry, &events).await {
        let revision = |event: &Object| event.resource_version().parse::<u64>().unwrap_or_default();
        all.sort_by_key(revision);
        let _ = writeln!(out, "\nthe last events");
        let rows: Vec<_> = all[all.len().saturating_sub(EVENTS)..].iter().map(told).collect();
        aligned(&mut out, &rows);
    }
    let talk = network(registry).await;
    if !talk.is_empty() {
        let _ = writeln!(out, "\nnetwork policies (told, not enforced)\n  {}", talk.join("\n  "));
    }
    out
}

/// Who may talk to whom, as the network policies say it.
pub(crate) async fn network(registry: &Registry) -> Vec<String> {
    let Some(policies) = list(registry, &Gvr::new("networking.k8s.io", "v1", "networkpolicies")).await else {
        return Vec::new();
    };
    let all = async |resource| list(registry, &Gvr::new("", "v1", resource)).await.unwrap_or_default();
    kubelet::report_policies(&policies, &all("pods").await, &all("namespaces").await)
}

/// The objects of a resource, but for the roles that every cluster has; `None` if there are none.
async fn list(registry: &Registry, gvr: &Gvr) -> Option<Vec<Object>> {
    let target = registry.target(gvr, "", "", "").ok()?;
    let list = registry.list(&target, &ListOptions::default()).await.ok()?;
    let (key, value) = bootstrap::LABEL;
    let items: Vec<_> =
        list.items.iter().filter(|item| item.label(key) != Some(value)).map(|item| item.unpacked()).collect();
    (!items.is_empty()).then_some(items)
}

/// A cell as kubectl prints it.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "<none>".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What no column says: that it is being deleted, and why it is not what it should be.
fn notes(object: &Object) -> String {
    let mut notes = Vec::new();
    if object.is_deleting() {
        notes.push(format!("deleting since {}", object.str_at(&["metadata", "deletionTimestamp"])));
        if !object.finalizers().is_empty() {
            notes.push(format!("finalizers {}", object.finalizers().join(",")));
        }
    }
    let conditions = object.at(&["status", "conditions"]).and_then(Value::as_array);
    for condition in conditions.into_iter().flatten() {
        let of = |key: &str| condition.get(key).and_then(Value::as_str).unwrap_or_default();
        let reason = Some(of("reason")).filter(|reason| !reason.is_empty());
        let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        notes.push(format!("{}={}{reason}", of("type"), of("status")));
    }
    notes.join("  ")
}

fn told(event: &Object) -> Vec<String> {
    let either = |paths: [&[&str]; 2]| {
        let found = paths.into_iter().map(|path| event.str_at(path)).find(|text| !text.is_empty());
        found.unwrap_or_default().to_owned()
    };
    let about = format!(
        "{}/{}",
        either([&["involvedObject", "kind"], &["regarding", "kind"]]).to_lowercase(),
        either([&["involvedObject", "name"], &["regarding", "name"]])
    );
    vec![
        either([&["lastTimestamp"], &["eventTime"]]),
        event.namespace().into(),
        event.str_at(&["type"]).into(),
        event.str_at(&["reason"]).into(),
        about,
        either([&["message"], &["note"]]),
    ]
}

/// Columns side by side, as wide as their widest cell.
fn aligned(out: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|at| width(at).unwrap_or_default()).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("   ").trim_end());
    }
}
