//! What an engine says when something goes wrong, as the errors that clients know.

use bollard::errors::Error as Docker;

use crate::{Code, Error};

/// The HTTP status of the engine's answer, if it gave one.
pub(super) fn status(error: &Docker) -> Option<u16> {
    match error {
        Docker::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What failed, in the engine's words.
pub(super) fn of(error: Docker, what: &str, code: Code) -> Error {
    let (code, message) = match &error {
        Docker::DockerResponseServerError { message, .. } => (code, format!("{what}: {message}")),
        Docker::DockerStreamError { error } => (code, format!("{what}: {error}")),
        Docker::JsonDataError { .. } | Docker::JsonSerdeError { .. } | Docker::APIVersionParseError {} => {
            (code, format!("{what}: the answer is none of a Docker Engine"))
        }
        _ => (Code::DockerNotRunning, format!("{what}: the Docker Engine does not answer; is it running?")),
    };
    Error::new(code, message).because(error)
}

/// Whether an image is not to be had anywhere.
pub(super) fn is_absent_image(error: &Docker) -> bool {
    let message = match error {
        Docker::DockerResponseServerError { status_code: 404, .. } => return true,
        Docker::DockerResponseServerError { message, .. } => message,
        Docker::DockerStreamError { error } => error,
        _ => return false,
    };
    ["not found", "manifest unknown", "pull access denied", "does not exist", "invalid reference"]
        .iter()
        .any(|text| message.to_lowercase().contains(text))
}
