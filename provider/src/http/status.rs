//! Who makes sandboxes, and the sandbox that a project uses. Looking changes nothing.

use std::time::Duration;

use axum::extract::State;
use serde_json::json;

use super::{
    App,
    envelope::{Answer, Answered, Id, causes},
    sandboxes,
};
use crate::{Code, Error, SandboxStatus, StopReason, selection::Standing, settings::Settings};

/// How long a provider may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// `GET /api/sandbox/provider`.
pub(super) async fn provider(State(app): State<App>) -> Answered {
    let choosing = app.selection.is_choosing();
    match app.selection.standing() {
        Standing::Choosing => Answer::ok(json!({"state": "choosing", "choosing": true, "provider": null})),
        Standing::Unavailable { code, message } => {
            let error = json!({"code": code, "message": &*message});
            Answer::ok(json!({"state": "unavailable", "choosing": choosing, "provider": null, "error": error}))
        }
        Standing::Ready(provider) => {
            let health = tokio::time::timeout(PATIENCE, provider.health_check()).await.ok();
            Answer::ok(json!({
                "state": "ready", "choosing": choosing, "provider": provider.name(), "health": health,
            }))
        }
    }
}

/// `GET /api/sandbox/status/{projectId}`.
pub(super) async fn status(State(app): State<App>, Id(project): Id) -> Answered {
    let mode = app.store.read(Settings::read)?.mode;
    let config = app.agents.config();
    let Ok(provider) = app.selection.current() else {
        return Answer::ok(json!({
            "mode": mode, "containerStatus": "unavailable", "containerId": null,
            "provider": null, "dockerAvailable": false,
        }));
    };
    let found = provider.get(config.sandbox_project(&project)).await?;
    let status = match found.as_ref().map(|sandbox| sandbox.status()) {
        // Older clients do not know of a sandbox that is on its way out.
        None | Some(SandboxStatus::Stopping) => SandboxStatus::Stopped,
        Some(status) => status,
    };
    Answer::ok(json!({
        "mode": mode,
        "containerStatus": status,
        "containerId": found.as_ref().map(|sandbox| sandbox.container_id()),
        "sandboxId": found.as_ref().map(|sandbox| sandbox.id()),
        "provider": provider.name(),
        // By its old name: whether sandboxes can be had at all.
        "dockerAvailable": true,
    }))
}

/// `POST /api/sandbox/status/{projectId}/restart`.
pub(super) async fn restart(State(app): State<App>, Id(project): Id) -> Answered {
    let provider = app.selection.current().map_err(|error| {
        let unavailable = Error::new(Code::DockerUnavailable, error.message());
        unavailable.because(error)
    })?;
    let config = sandboxes::config_of(&app, &project)?;
    let again = async {
        if let Some(sandbox) = provider.get(&config.project_id).await? {
            sandbox.stop(StopReason::Manual).await?;
        }
        provider.create(&config).await
    };
    let sandbox = again.await.map_err(|error| {
        tracing::warn!(code = %error.code(), cause = %causes(&error), "{error}");
        let message = format!("the sandbox of project {} was not started again: {error}", config.project_id);
        Error::new(Code::RestartFailed, message).with("reason", error.code().as_str())
    })?;
    Answer::ok(json!({"message": "the sandbox was started again", "containerId": sandbox.container_id()}))
}
