//! A watch as a stream of JSON lines. The body is pulled: events wait in the store's log until the client reads, and a
//! client that never reads costs one batch.
//!
//! Upstream: `k8s.io/apiserver/pkg/endpoints/handlers/watch.go`.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use jiff::SignedDuration;
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{
    Lost,
    negotiate::Shape,
    respond::{self, Response, ResponseBody},
    table::{self, Include, Table},
};
use crate::{
    base::{Object, Stored},
    clock::{Alarm, Clock},
    registry::{Resource, WatchEvent, Watcher},
};

/// How long a watch lasts that names no time. Upstream draws between 30 and 60 minutes; the middle is as good and the same
/// in each run.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(45 * 60);

/// Annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// A watch that is being written.
pub(super) struct Stream {
    watcher: Watcher,
    resource: Arc<Resource>,
    shape: Shape,
    include: Include,
    clock: Clock,
    /// When the watch ends by itself.
    end: Alarm,
    /// Ends the watch when the server stops.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether a table's columns have been sent: they come with the first event alone.
    headers_sent: bool,
    /// Whether a rule ends the connection.
    lost: bool,
}

impl Stream {
    /// A watch that lasts `timeout_seconds`; 0 stands for upstream's default.
    pub(super) fn new(
        watcher: Watcher,
        resource: Arc<Resource>,
        shape: Shape,
        include: Include,
        clock: Clock,
        timeout_seconds: i64,
        stop: CancellationToken,
    ) -> Self {
        let timeout = match timeout_seconds {
            0 => SignedDuration::try_from(DEFAULT_TIMEOUT).expect("three quarters of an hour"),
            seconds => SignedDuration::from_secs(seconds),
        };
        let end = clock.now().saturating_add(timeout).expect("a duration is no calendar unit");
        let (end, stop) = (clock.alarm(end), Box::pin(stop.cancelled_owned()));
        Self { watcher, resource, shape, include, clock, end, stop, headers_sent: false, lost: false }
    }

    /// The answer that carries the watch.
    pub(super) fn into_response(self) -> Response {
        let frames = stream::unfold(self, |mut this| async move {
            let bytes = this.next().await?;
            Some((bytes.map(Frame::data), this))
        });
        let mut response = respond::bytes(200, "application/json", Bytes::new());
        let body: ResponseBody = StreamBody::new(frames).boxed_unsync();
        *response.body_mut() = body;
        response
    }

    /// The lines of the next events; `None` when the watch is over.
    ///
    /// # Errors
    /// If a rule ends the connection.
    async fn next(&mut self) -> Option<Result<Bytes, Lost>> {
        if self.lost {
            // What was said before leaves first.
            tokio::task::yield_now().await;
            return Some(Err(Lost));
        }
        let events = tokio::select! {
            biased;
            () = &mut self.stop => None,
            events = self.watcher.next() => events,
            () = &mut self.end => None,
        };
        if let Some(events) = events {
            return Some(Ok(self.lines(events)));
        }
        let torn = self.watcher.broken()?;
        self.lost = true;
        let mut line = self.lines(torn.into_iter().collect());
        line.truncate(line.len() / 2);
        Some(Ok(line))
    }

    fn lines(&mut self, events: Vec<WatchEvent>) -> Bytes {
        let mut out = BytesMut::with_capacity(events.len() * 1024);
        for event in events {
            match event {
                WatchEvent::Added(object) => self.put(&mut out, "ADDED", &object),
                WatchEvent::Modified(object) => self.put(&mut out, "MODIFIED", &object),
                WatchEvent::Deleted(object) => self.put(&mut out, "DELETED", &object),
                WatchEvent::Bookmark(revision, initial_end) => {
                    self.put(&mut out, "BOOKMARK", &Arc::new(Stored::new(self.bookmark(revision, initial_end))));
                }
                WatchEvent::Error(status) => {
                    let line = json!({"type": "ERROR", "object": status.to_object().into_value()});
                    out.put_slice(line.to_string().as_bytes());
                    out.put_u8(b'\n');
                }
            }
        }
        out.freeze()
    }

    fn bookmark(&self, revision: u64, initial_end: bool) -> Object {
        let mut object = Object::default();
        object.set("kind", self.resource.kind.as_str());
        object.set("apiVersion", self.resource.api_version());
        object.set_at(&["metadata", "resourceVersion"], revision.to_string());
        if initial_end {
            object.set_at(&["metadata", "annotations", INITIAL_EVENTS_END], "true");
        }
        object
    }

    fn put(&mut self, out: &mut BytesMut, kind: &str, object: &Arc<Stored>) {
        for part in ["{\"type\":\"", kind, "\",\"object\":"] {
            out.put_slice(part.as_bytes());
        }
        match &self.shape {
            Shape::Whole | Shape::PartialList(_) => out.put_slice(&object.json()),
            Shape::Partial(version) => put_value(out, &table::partial(object, version)),
            Shape::Table(version) => {
                let metadata = json!({"resourceVersion": object.resource_version()});
                let rows = std::iter::once(object.object());
                let table = Table::new(&self.resource, version, self.include);
                put_value(out, &table.render(metadata, rows, self.clock.now(), !self.headers_sent));
                self.headers_sent = true;
            }
        }
        out.put_slice(b"}\n");
    }
}

fn put_value(out: &mut BytesMut, value: &Value) {
    serde_json::to_writer(out.writer(), value).expect("a JSON value encodes to memory");
}
