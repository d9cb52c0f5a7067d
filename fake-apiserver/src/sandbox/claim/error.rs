//! Why a claim is not served, in upstream's words, and what follows from it.

use std::time::Duration;

use crate::base::Status;

/// Why a pass over a claim ended without a Sandbox, or without one in step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimError {
    /// The pool does not exist.
    NoWarmPool,
    /// The pool's template does not exist; with the text.
    NoTemplate(String),
    /// Somebody else wrote the claim or the member; the next pass sees what came of it.
    AdoptionConflict(String),
    /// A Sandbox of the claim's name appeared meanwhile.
    AlreadyExists,
    /// `spec.additionalPodMetadata` asks for what may not be.
    InvalidMetadata(String),
    /// The template does not let claims set the environment so.
    EnvironmentRejected(String),
    /// The template does not let claims have volumes so.
    VolumeClaims(String),
    /// The claim has expired, and the Sandbox that bears its name is another's.
    NotOwned(String),
    /// Members are about to have addresses: nothing is said, and the claim looked at again after that time.
    Pending(Duration),
    /// Anything else.
    Other(String),
}

/// How to look again after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// When something changes.
    Never,
    /// After that time.
    After(Duration),
    /// As after a failure.
    Failure,
}

/// How soon a claim is looked at again whose pool or template is missing.
const MISSING: Duration = Duration::from_secs(60);
/// How soon a claim is looked at again whose Sandbox appeared meanwhile.
const APPEARED: Duration = Duration::from_millis(200);

impl ClaimError {
    /// An answer of the API behind a text that says what was tried.
    pub(super) fn api(what: &str, error: &Status) -> Self {
        Self::Other(format!("{what}: {error}"))
    }

    /// Contention that the condition shows as such; an API's conflict is not shown in its own words.
    pub(super) fn conflict(detail: &str) -> Self {
        Self::AdoptionConflict(format!("adoption write conflict: {detail}"))
    }

    /// Reason and message of the Ready condition.
    pub(super) fn condition(&self, pool: &str) -> (&'static str, String) {
        match self {
            Self::NoTemplate(text) => ("TemplateNotFound", text.clone()),
            Self::NoWarmPool => ("WarmPoolNotFound", format!("SandboxWarmPool {} not found", quoted(pool))),
            Self::AdoptionConflict(text) => {
                ("AdoptionConflict", format!("{text}; the next pass retries from a converged view"))
            }
            Self::AlreadyExists => {
                ("SandboxCreatePending", "Sandbox already created; waiting for cache to converge".into())
            }
            Self::InvalidMetadata(text) => ("InvalidMetadata", format!("invalid additionalPodMetadata: {text}")),
            Self::EnvironmentRejected(text) => {
                ("EnvVarsInjectionRejected", format!("environment variable injection rejected: {text}"))
            }
            Self::NotOwned(text) => {
                ("ClaimExpired", format!("Claim expired. sandbox not owned by this claim: {text}; deletion skipped."))
            }
            Self::VolumeClaims(text) => ("VolumeClaimTemplatesError", text.clone()),
            Self::Pending(_) => ("ReconcilerError", "Error seen: warm pool candidates are awaiting Pod IPs".into()),
            Self::Other(text) => ("ReconcilerError", format!("Error seen: {text}")),
        }
    }

    /// When to look again, if the claim does not expire earlier.
    pub(super) fn again(&self) -> Again {
        match self {
            Self::NoWarmPool | Self::NoTemplate(_) => Again::After(MISSING),
            Self::AlreadyExists => Again::After(APPEARED),
            Self::Pending(time) => Again::After(*time),
            Self::InvalidMetadata(_) | Self::EnvironmentRejected(_) | Self::VolumeClaims(_) | Self::NotOwned(_) => {
                Again::Never
            }
            Self::AdoptionConflict(_) | Self::Other(_) => Again::Failure,
        }
    }
}

/// A text as Go's `%q` shows it.
pub(super) fn quoted(text: &str) -> String {
    crate::base::status::go_quote(text)
}
