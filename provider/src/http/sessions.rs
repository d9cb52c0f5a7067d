//! Sessions: what happens in them, live and afterwards. An event has one offset, wherever it is read.

use std::{convert::Infallible, fmt::Write, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use prometheus_client::metrics::gauge::Gauge;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, Params, bad, causes},
    limits::{MAX_PAGE, PAGE, PING, STREAM_TIME},
};
use crate::{
    Code, Error,
    records::{Session, StreamEvent},
    shape::{Field, Kind, optional},
};

/// Events of an export at most; it says so if there are more.
const MAX_EXPORT: usize = 10_000;

/// Events that are read at once to sum them up.
const CHUNK: usize = 500;

/// How long a client is to wait before it comes again when a stream has ended.
const COME_AGAIN: Duration = Duration::from_secs(1);

pub(super) const STREAM: &[(&str, &str)] =
    &[("offset", "the first event that is wanted, from 1; default 1. The header Last-Event-ID goes before it")];

pub(super) const EXPORT: &[Field] = &[optional("format", Kind::OneOf(&["json", "markdown"]), "default json")];

#[derive(Deserialize)]
struct Export {
    format: Option<String>,
}

fn session(app: &App, id: &str) -> Result<Session, Error> {
    let found = app.store.read(|tx| tx.get::<Session>(id))?;
    found.ok_or_else(|| Error::new(Code::NotFound, format!("there is no session {id}")).with("sessionId", id))
}

fn shown(offset: u64, event: &StreamEvent) -> Value {
    json!({"type": event.kind, "data": event.data, "timestamp": event.timestamp_ms, "offset": offset})
}

/// Holds a stream's place among those that are open.
struct Place {
    gauge: Gauge,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// `GET /api/sessions/{id}/stream`. It reads the store as fast as the client reads it: a slow one holds up nothing.
pub(super) async fn stream(
    State(app): State<App>,
    Id(id): Id,
    params: Params,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Error> {
    let asked = params.number("offset", 1, 0, u64::MAX - 1)?;
    let from = match headers.get("last-event-id").filter(|id| !id.is_empty()) {
        None => asked,
        Some(last) => {
            let last = last.to_str().ok().and_then(|text| text.parse::<u64>().ok()).filter(|last| *last < u64::MAX - 1);
            last.ok_or_else(|| bad("Last-Event-ID", "must be the offset of an event"))? + 1
        }
    };
    session(&app, &id)?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        Error::new(Code::TooMany, "too many streams are open: close some, or come again").with("retryAfterSeconds", 5)
    })?;
    let place = Place { gauge: app.metrics.streams.clone(), _permit: permit };
    place.gauge.inc();

    let hello = json!({
        "type": "connected", "sessionId": id, "offset": from.max(1), "timestamp": Timestamp::now().as_millisecond(),
    });
    let hello = Event::default().retry(COME_AGAIN).data(hello.to_string());
    let events = app.agents.streams().subscribe(&id, from).map(move |event| {
        let _ = &place; // goes with the stream
        match event {
            Ok((offset, event)) => {
                Some(Event::default().id(offset.to_string()).data(shown(offset, &event).to_string()))
            }
            Err(error) => {
                tracing::warn!(session = id, cause = %causes(&error), "a stream ended: {error}");
                None
            }
        }
    });
    // What cannot be read ends the stream, and the client comes again.
    let events = events.take_while(|event| std::future::ready(event.is_some())).filter_map(std::future::ready);
    let stop = app.stop.clone();
    let over = async move { tokio::time::timeout(STREAM_TIME, stop.cancelled()).await };
    let events = stream::iter([hello]).chain(events).map(Ok).take_until(over);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(PING).text("ping")))
}

/// `GET /api/sessions/{id}/events`.
pub(super) async fn events(State(app): State<App>, Id(id): Id, params: Params) -> Answered {
    let limit = usize::try_from(params.number("limit", PAGE, 1, MAX_PAGE)?).unwrap_or(usize::MAX);
    let offset = params.number("offset", 1, 0, u64::MAX - 1)?;
    session(&app, &id)?;
    let streams = app.agents.streams();
    let found = streams.read(&id, offset, limit)?;
    let next = found.last().map_or(offset.max(1), |(last, _)| last + 1);
    let events: Vec<Value> = found.iter().map(|(offset, event)| shown(*offset, event)).collect();
    Answer::ok(json!({"events": events, "nextOffset": next, "totalCount": streams.last_offset(&id)?}))
}

/// Reads a stream from its beginning, a part at a time, until `each` has enough.
fn walk(app: &App, id: &str, mut each: impl FnMut(u64, &StreamEvent) -> bool) -> Result<(), Error> {
    let mut next = 1;
    loop {
        let part = app.agents.streams().read(id, next, CHUNK)?;
        for (offset, event) in &part {
            if !each(*offset, event) {
                return Ok(());
            }
            next = offset + 1;
        }
        if part.len() < CHUNK {
            return Ok(());
        }
    }
}

/// `GET /api/sessions/{id}/summary`.
pub(super) async fn summary(State(app): State<App>, Id(id): Id) -> Answered {
    let session = session(&app, &id)?;
    let (mut count, mut turns, mut tools) = (0_u64, 0_u64, 0_u64);
    let (mut files, mut last, mut result) = (std::collections::BTreeSet::new(), None, Value::Null);
    walk(&app, &id, |_, event| {
        count += 1;
        last = Some(event.timestamp_ms);
        match event.kind.as_str() {
            "container-agent:turn" => turns += 1,
            "container-agent:tool:start" => tools += 1,
            "container-agent:file_changed" => {
                files.extend(event.data.get("path").and_then(Value::as_str).map(str::to_owned));
            }
            "container-agent:complete" => result = event.data.get("status").cloned().unwrap_or_default(),
            "container-agent:cancelled" => result = "cancelled".into(),
            "container-agent:error" => result = "error".into(),
            _ => {}
        }
        true
    })?;
    let ended = session.closed_at.map(Timestamp::as_millisecond).or(last);
    let duration = ended.map(|ended| (ended - session.created_at.as_millisecond()).max(0));
    let mut out = serde_json::to_value(&session)
        .map_err(|error| Error::new(Code::Internal, "the session could not be written").because(error))?;
    out["sessionId"] = id.into();
    out["eventCount"] = count.into();
    out["turnCount"] = turns.into();
    out["toolCalls"] = tools.into();
    out["filesChanged"] = json!(files);
    out["result"] = result;
    out["durationMs"] = json!(duration);
    Answer::ok(out)
}

/// `POST /api/sessions/{id}/export`.
pub(super) async fn export(State(app): State<App>, Id(id): Id, body: Body) -> Answered {
    let Export { format } = body.read(EXPORT)?;
    let session = session(&app, &id)?;
    let mut all = Vec::new();
    let mut more = false;
    walk(&app, &id, |offset, event| {
        more = all.len() >= MAX_EXPORT;
        if !more {
            all.push((offset, event.clone()));
        }
        !more
    })?;
    let (kind, ending, content) = match format.as_deref() {
        Some("markdown") => ("text/markdown", "md", markdown(&session, &all)),
        _ => {
            let events: Vec<Value> = all.iter().map(|(offset, event)| shown(*offset, event)).collect();
            ("application/json", "json", json!({"session": session, "events": events}).to_string())
        }
    };
    Answer::ok(json!({
        "filename": format!("session-{id}.{ending}"), "contentType": kind, "content": content, "truncated": more,
    }))
}

fn markdown(session: &Session, events: &[(u64, StreamEvent)]) -> String {
    let mut out = format!("# {}\n\n", session.title.as_deref().unwrap_or(&session.id));
    for (offset, event) in events {
        let time = Timestamp::from_millisecond(event.timestamp_ms).unwrap_or_default();
        let text = ["content", "plan", "error", "message"].iter().find_map(|key| event.data.get(*key)?.as_str());
        // A String takes everything.
        let _ = match text {
            Some(text) => writeln!(out, "## {offset}. {} ({time})\n\n{text}\n", event.kind),
            None => writeln!(out, "## {offset}. {} ({time})\n\n```json\n{}\n```\n", event.kind, json!(event.data)),
        };
    }
    out
}
