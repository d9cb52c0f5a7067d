//! A cursor over a bucket's log: no queue of its own, so a watcher that never reads costs nothing.

use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, Store, TooOld};

/// How many events one call to [`Watch::next`] hands out at most.
const BATCH: usize = 512;

/// The changes of a bucket, or of one namespace of it, in order and without gaps.
#[derive(Debug)]
pub struct Watch {
    store: Arc<Store>,
    bucket: Arc<str>,
    namespace: Option<String>,
    /// Everything up to this revision has been handed out.
    seen: u64,
    wake: watch::Receiver<u64>,
}

impl Watch {
    pub(super) fn new(
        store: Arc<Store>,
        bucket: Arc<str>,
        namespace: Option<String>,
        seen: u64,
        wake: watch::Receiver<u64>,
    ) -> Self {
        Self { store, bucket, namespace, seen, wake }
    }

    /// The revision up to which everything has been handed out.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// What has happened and is not handed out yet; empty if nothing has.
    ///
    /// # Errors
    /// If the log was cut beyond the cursor: the watcher was too slow and must list again.
    pub fn poll(&mut self) -> Result<Vec<Event>, TooOld> {
        self.wake.borrow_and_update(); // before reading, so that a later commit wakes us
        let (mut events, seen) = self.store.events_after(&self.bucket, self.seen, BATCH)?;
        if let Some(namespace) = &self.namespace {
            events.retain(|event| event.value.namespace() == namespace);
        }
        self.seen = seen;
        Ok(events)
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
            if !self.wake.has_changed().unwrap_or(false) && self.wake.changed().await.is_err() {
                std::future::pending::<()>().await; // the store keeps the sender: cannot happen while we hold it
            }
        }
    }
}
