//! Events as the kubelet and the scheduler write them: repeated ones are counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::api::{Api, core, micro};
use crate::{base::Object, clock::time_text};

/// Writes events; clones count together.
#[derive(Clone, Debug)]
pub(super) struct Events {
    api: Api,
    /// `kubelet` or `default-scheduler`.
    component: &'static str,
    host: String,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Events written, by what they say: name and count.
    seen: BTreeMap<(String, String, String, String), (String, u64)>,
    /// Makes names unique at one time.
    serial: u64,
}

/// How many different events are counted; beyond it counting starts anew.
const SEEN: usize = 4096;

/// One thing that happened to an object.
pub(super) struct Happened<'a> {
    pub(super) warning: bool,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
    /// The container concerned: its field path, `""` for the whole object.
    pub(super) field: String,
    /// What the scheduler calls an action.
    pub(super) action: &'a str,
}

impl Events {
    pub(super) fn new(api: &Api, component: &'static str, host: &str) -> Self {
        Self { api: api.clone(), component, host: host.into(), inner: Arc::default() }
    }

    /// Writes an event about an object; a failure is logged and forgotten, as upstream's broadcaster does.
    pub(super) async fn write(&self, about: &Object, happened: Happened<'_>) {
        let Happened { warning, reason, message, field, action } = happened;
        let now = self.api.clock().now();
        let key = (about.uid().to_owned(), reason.to_owned(), message.to_owned(), field.clone());
        let (name, count, fresh) = {
            let mut inner = self.inner.lock().expect("no panic under this lock");
            if let Some((name, count)) = inner.seen.get_mut(&key) {
                *count += 1;
                (name.clone(), *count, false)
            } else {
                if inner.seen.len() >= SEEN {
                    inner.seen.clear();
                }
                inner.serial += 1;
                let stamp = u64::try_from(now.as_nanosecond()).unwrap_or_default().wrapping_add(inner.serial);
                let name = format!("{}.{stamp:016x}", about.name());
                inner.seen.insert(key, (name.clone(), 1));
                (name, 1, true)
            }
        };
        let namespace = if about.namespace().is_empty() { "default" } else { about.namespace() };
        if !fresh {
            let patch = json!({ "count": count, "lastTimestamp": time_text(now) });
            match self.api.patch(&core("events"), (namespace, &name, ""), patch).await {
                Ok(_) => return,
                Err(error) if error.is_not_found() => {} // it was deleted: written anew
                Err(error) => return tracing::debug!(%error, reason, "event not counted"),
            }
        }
        let mut involved = json!({
            "kind": about.kind(), "apiVersion": about.api_version(), "name": about.name(), "uid": about.uid(),
            "resourceVersion": about.resource_version(),
        });
        if !about.namespace().is_empty() {
            involved["namespace"] = about.namespace().into();
        }
        if !field.is_empty() {
            involved["fieldPath"] = field.into();
        }
        let mut event = Object::new("v1", "Event", namespace, &name);
        event.set("involvedObject", involved);
        event.set("reason", reason);
        event.set("message", message);
        event.set("type", if warning { "Warning" } else { "Normal" });
        event.set("reportingComponent", self.component);
        if self.component == "kubelet" {
            event.set("reportingInstance", self.host.clone());
            event.set("source", json!({ "component": self.component, "host": self.host }));
            event.set("firstTimestamp", time_text(now));
            event.set("lastTimestamp", time_text(now));
            event.set("count", count);
        } else {
            // The scheduler writes through events.k8s.io: its fields, seen from the core group.
            event.set("reportingInstance", format!("{}-{}", self.component, self.host));
            event.set("source", json!({}));
            event.set("eventTime", micro(now));
            event.set("action", action);
        }
        if let Err(error) = self.api.create(&core("events"), event).await {
            tracing::debug!(%error, reason, "event not written");
        }
    }
}
