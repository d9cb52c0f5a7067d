//! What operators want to read later: one line for each change that was made, under the names that their tools know.

use crate::Error;

/// An entry of the audit log. The rest of the arguments are fields.
macro_rules! audit {
    ($level:ident, $event:literal $(, $($fields:tt)*)?) => {
        tracing::$level!(target: "agentpane::audit", event = $event $(, $($fields)*)?)
    };
}
pub(crate) use audit;

/// A sandbox that was not made.
pub(crate) fn failed(sandbox_id: &str, project_id: &str, error: &Error) {
    audit!(error, "pod.failed", sandbox_id, project_id, code = %error.code(), error = error.message());
    if error.code() == crate::Code::PodSecurityViolation {
        audit!(error, "security.pss_validation_failed", sandbox_id, violations = error.message());
    }
}
