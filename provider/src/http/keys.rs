//! Keys of services that agents use. They go in and never come out.

use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    App,
    envelope::{Answer, Answered, Body, Id, bad},
};
use crate::{
    Code, Error,
    records::ApiKey,
    shape::{Field, Kind, Rule, required},
};

/// The services there are keys for.
const SERVICES: &[&str] = &["anthropic"];

pub(super) const BODY: &[Field] = &[required("value", Kind::Text(1000, Rule::Word), "the key")];

#[derive(Deserialize)]
struct Key {
    value: String,
}

/// `GET /api/api-keys`.
pub(super) async fn list(State(app): State<App>) -> Answered {
    let stored = app.store.read(|tx| tx.list::<ApiKey>())?;
    let items: Vec<Value> = stored.iter().map(|key| json!({"service": key.id, "updatedAt": key.updated_at})).collect();
    Answer::ok(json!({"items": items, "totalCount": stored.len()}))
}

/// `PUT /api/api-keys/{service}`.
pub(super) async fn write(State(app): State<App>, Id(service): Id, body: Body) -> Answered {
    if !SERVICES.contains(&service.as_str()) {
        return Err(bad("service", format!("must be one of {}", SERVICES.join(", "))));
    }
    let Key { value } = body.read(BODY)?;
    app.store
        .write(|tx| tx.put(&ApiKey { id: service.clone(), value: value.clone(), updated_at: Timestamp::now() }))?;
    Answer::done()
}

/// `DELETE /api/api-keys/{service}`.
pub(super) async fn delete(State(app): State<App>, Id(service): Id) -> Answered {
    if !app.store.write(|tx| tx.delete::<ApiKey>(&service))? {
        return Err(Error::new(Code::NotFound, format!("no key of {service} is stored")));
    }
    Answer::done()
}
