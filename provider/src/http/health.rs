//! Whether the application is well. Open to all, and therefore short on detail.

use std::time::Duration;

use axum::{extract::State, http::StatusCode};
use serde_json::{Value, json};

use super::{
    App,
    envelope::{Answer, Answered},
};
use crate::{Code, Error, records::Project, selection::Standing};

/// How long the provider may take to say which sandboxes there are.
const PATIENCE: Duration = Duration::from_secs(5);

/// `GET /api/health`. Only the store decides whether the whole is well: without sandboxes there is still work to do.
pub(super) async fn health(State(app): State<App>) -> Answered {
    let store = app.store.read(|tx| tx.get::<Project>("any"));
    let (status, word) = match &store {
        Ok(_) => (StatusCode::OK, "ok"),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "error"),
    };
    let checks = json!({"database": {"status": word}, "sandbox": sandbox(&app).await});
    Answer::of(status, json!({"status": word, "version": env!("CARGO_PKG_VERSION"), "checks": checks}))
}

async fn sandbox(app: &App) -> Value {
    let provider = match app.selection.standing() {
        Standing::Ready(provider) => provider,
        Standing::Choosing => return json!({"status": "not_configured"}),
        Standing::Unavailable { code, .. } => return json!({"status": "error", "error": code.as_str()}),
    };
    match tokio::time::timeout(PATIENCE, provider.list()).await {
        Ok(Ok(list)) => json!({"status": "ok", "provider": provider.name(), "containerCount": list.len()}),
        Ok(Err(error)) => json!({"status": "error", "provider": provider.name(), "error": error.code().as_str()}),
        Err(_) => json!({"status": "error", "provider": provider.name(), "error": "TIMEOUT"}),
    }
}

/// `GET /healthz`.
pub(super) async fn alive() -> Answered {
    Answer::ok(json!({"status": "ok"}))
}

/// `GET /readyz`: not before a provider was looked for, and not while going down.
pub(super) async fn ready(State(app): State<App>) -> Answered {
    if app.stop.is_cancelled() {
        return Err(Error::new(Code::ShuttingDown, "the application is going down"));
    }
    if matches!(app.selection.standing(), Standing::Choosing) {
        return Err(Error::new(Code::ProviderNotAvailable, "the sandbox provider is still being set up"));
    }
    Answer::ok(json!({"status": "ok"}))
}
