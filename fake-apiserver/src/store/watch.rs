//! A cursor over a bucket's log: no queue of its own, so a watcher that never reads costs nothing.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Entry, Event, Store, TooOld};
use crate::base::Stored;

/// How many events one call to [`Watch::next`] hands out at most.
const BATCH: usize = 512;

/// The store's side of a [`Watch`]: what it is about, and where it stands.
#[derive(Debug)]
pub(super) struct Subscriber {
    namespace: Option<String>,
    name: Option<String>,
    /// The first revision that is not handed out; `None` if nothing waits. So who is up to date misses nothing when the
    /// log is cut, however long ago the last event for it was.
    pub(super) next: Option<u64>,
    wake: Arc<Notify>,
}

impl Subscriber {
    pub(super) fn new(namespace: Option<&str>, name: Option<&str>, next: Option<u64>) -> Self {
        Self { namespace: namespace.map(str::to_owned), name: name.map(str::to_owned), next, wake: Arc::default() }
    }

    pub(super) fn wake(&self) -> Arc<Notify> {
        self.wake.clone()
    }

    pub(super) fn sees(&self, value: &Stored) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == value.namespace())
            && self.name.as_deref().is_none_or(|name| name == value.name())
    }

    /// Takes note of a change; whom to wake if that is the first that waits.
    pub(super) fn hears(&mut self, entry: &Entry) -> Option<Arc<Notify>> {
        if self.next.is_some() || !self.sees(&entry.value) {
            return None;
        }
        self.next = Some(entry.revision);
        Some(self.wake())
    }
}

/// The changes of a bucket, or of a part of it, in order and without gaps.
#[derive(Debug)]
pub struct Watch {
    store: Arc<Store>,
    bucket: Arc<str>,
    id: u64,
    wake: Arc<Notify>,
}

impl Watch {
    pub(super) fn new(store: Arc<Store>, bucket: Arc<str>, id: u64, wake: Arc<Notify>) -> Self {
        Self { store, bucket, id, wake }
    }

    /// The revision up to which everything has been handed out.
    pub fn seen(&self) -> u64 {
        self.store.seen(&self.bucket, self.id)
    }

    /// What has happened and is not handed out yet; empty if nothing has.
    ///
    /// # Errors
    /// If the log was cut beyond the cursor: the watcher was too slow and must list again.
    pub fn poll(&mut self) -> Result<Vec<Event>, TooOld> {
        self.store.events(&self.bucket, self.id, BATCH)
    }

    /// Waits for the next events. Cancel-safe: events not returned are returned by the next call.
    ///
    /// # Errors
    /// As [`Watch::poll`].
    pub async fn next(&mut self) -> Result<Vec<Event>, TooOld> {
        loop {
            let events = self.poll()?;
            if !events.is_empty() {
                return Ok(events);
            }
            self.wake.notified().await; // at once, if something came since the poll
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.store.forget_watch(&self.bucket, self.id);
    }
}
