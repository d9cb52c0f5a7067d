//! [`Streams`]: what happens, as numbered events that anyone can read from any point on.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::Stream;
use jiff::Timestamp;
use serde_json::{Map, Value};
use tokio::sync::watch;

use crate::{
    Error,
    records::{Channel, StreamEvent},
    store::{Store, Writer},
};

/// How many events a subscriber reads from the store at once; bounds the memory of a slow one.
const PAGE_EVENTS: usize = 256;

/// Streams of events, kept in the store. Clones share them.
///
/// An event's offset is its place in its stream, from 1 without holes. Replay and what happens now are one sequence: a
/// subscriber reads the store, and is woken when there is more to read.
#[derive(Clone, Debug)]
pub struct Streams {
    store: Store,
    wakers: Arc<Mutex<BTreeMap<String, watch::Sender<u64>>>>,
}

impl StreamEvent {
    /// An event that happens now. What is not an object has no data.
    pub fn now(channel: Channel, kind: impl Into<String>, data: Value) -> Self {
        let data = match data {
            Value::Object(data) => data,
            _ => Map::new(),
        };
        Self { kind: kind.into(), channel, timestamp_ms: Timestamp::now().as_millisecond(), data }
    }
}

impl Streams {
    /// The streams of that store.
    pub fn new(store: Store) -> Self {
        Self { store, wakers: Arc::default() }
    }

    /// Adds an event to the end of a stream and says its offset.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub async fn publish(&self, stream: &str, event: StreamEvent) -> Result<u64, Error> {
        let (store, name) = (self.store.clone(), stream.to_owned());
        let offset = blocking(move || store.write(|tx| tx.append(&name, &event))).await?;
        self.wake(stream);
        Ok(offset)
    }

    /// Adds an event as part of a change. Call [`wake`](Self::wake) when the change is made.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub fn append(&self, tx: &Writer, stream: &str, event: &StreamEvent) -> Result<u64, Error> {
        tx.append(stream, event)
    }

    /// Tells the stream's subscribers to look.
    pub fn wake(&self, stream: &str) {
        let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(waker) = wakers.get(stream) {
            if waker.receiver_count() == 0 {
                wakers.remove(stream);
            } else {
                waker.send_modify(|count| *count += 1);
            }
        }
    }

    /// At most `limit` events from `offset` on.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub fn read(&self, stream: &str, offset: u64, limit: usize) -> Result<Vec<(u64, StreamEvent)>, Error> {
        self.store.read(|tx| tx.events(stream, offset, limit))
    }

    /// The offset of the last event; 0 if there is none.
    ///
    /// # Errors
    /// [`Code::StoreFailed`](crate::Code::StoreFailed).
    pub fn last_offset(&self, stream: &str) -> Result<u64, Error> {
        self.store.read(|tx| tx.last_offset(stream))
    }

    /// All events from `offset` on, those that are there and those that come, each once and in order. 0 and 1 are both the
    /// first. It ends only with an error; dropping it ends the subscription.
    pub fn subscribe(
        &self,
        stream: &str,
        offset: u64,
    ) -> impl Stream<Item = Result<(u64, StreamEvent), Error>> + Send + use<> {
        let changed = {
            let mut wakers = self.wakers.lock().unwrap_or_else(PoisonError::into_inner);
            // Before the first look, so that nothing comes between the look and the wait.
            wakers.entry(stream.to_owned()).or_insert_with(|| watch::channel(0).0).subscribe()
        };
        let state =
            Reading { streams: self.clone(), stream: stream.into(), next: offset, page: VecDeque::new(), changed };
        futures::stream::try_unfold(state, |mut state| async move {
            loop {
                if let Some((offset, event)) = state.page.pop_front() {
                    state.next = offset + 1;
                    return Ok(Some(((offset, event), state)));
                }
                state.changed.mark_unchanged();
                state.page = state.streams.read(&state.stream, state.next, PAGE_EVENTS)?.into();
                if state.page.is_empty() && state.changed.changed().await.is_err() {
                    return Ok(None);
                }
            }
        })
    }
}

struct Reading {
    streams: Streams,
    stream: String,
    next: u64,
    page: VecDeque<(u64, StreamEvent)>,
    changed: watch::Receiver<u64>,
}

/// Does what blocks where it does not hold up others. It is done to its end even if nobody waits any more.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and the caller with it.
        Err(_) => std::future::pending().await,
    }
}
