//! What the controller says about a Sandbox, and predicates over it.
//!
//! Types and reasons are constants, not enumerations: the scheduler's own reasons pass through `PodScheduled`, and a
//! newer controller may add some. The predicates fit [`kube::runtime::wait::await_condition`] and can be combined with
//! its `not`, `and` and `or`.
//!
//! A condition counts only if it is about the object as it is now: the controller writes the generation that it looked
//! at, and a condition about an earlier one is stale. (Controllers that write none are taken at their word.)
//!
//! # Examples
//! ```no_run
//! use agent_sandbox_sdk::{conditions, v1beta1::Sandbox};
//! use kube::{Api, runtime::wait::await_condition};
//!
//! # async fn example(client: kube::Client) -> Result<(), kube::runtime::wait::Error> {
//! let sandboxes: Api<Sandbox> = Api::namespaced(client, "demo");
//! await_condition(sandboxes, "hello", conditions::is_suspended()).await?;
//! # Ok(())
//! # }
//! ```

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::wait;

use crate::v1beta1::{OperatingMode, Sandbox};

/// The pod runs and is ready, and so is the Service if there is to be one.
pub const READY: &str = "Ready";
/// The pod was stopped because the operating mode says so.
pub const SUSPENDED: &str = "Suspended";
/// The pod ended by itself. Present only then.
pub const FINISHED: &str = "Finished";
/// The pod has a node. Absent while there is no pod.
pub const POD_SCHEDULED: &str = "PodScheduled";

/// Why a condition is as it is.
pub mod reasons {
    /// Ready: all is there.
    pub const DEPENDENCIES_READY: &str = "DependenciesReady";
    /// Not Ready: pod or Service is missing or not ready yet; the message says which.
    pub const DEPENDENCIES_NOT_READY: &str = "DependenciesNotReady";
    /// Not Ready: suspended, or on the way there.
    pub const SANDBOX_SUSPENDED: &str = "SandboxSuspended";
    /// Not Ready: the shutdown time has passed.
    pub const SANDBOX_EXPIRED: &str = "SandboxExpired";
    /// Not Ready, or Finished: the pod ended well.
    pub const POD_SUCCEEDED: &str = "PodSucceeded";
    /// Not Ready, or Finished: the pod ended badly.
    pub const POD_FAILED: &str = "PodFailed";
    /// Not Ready: several pods belong to the sandbox, and the controller refuses to choose.
    pub const MULTIPLE_PODS: &str = "MultiplePods";
    /// Not Ready: the controller failed and tries again; the message is its error.
    pub const RECONCILER_ERROR: &str = "ReconcilerError";
    /// A claim is not Ready: its pool's template does not exist.
    pub const TEMPLATE_NOT_FOUND: &str = "TemplateNotFound";
    /// A claim is not Ready: its pool does not exist.
    pub const WARM_POOL_NOT_FOUND: &str = "WarmPoolNotFound";
    /// A claim is not Ready: its labels or annotations for the pod are not allowed.
    pub const INVALID_METADATA: &str = "InvalidMetadata";
    /// A claim is not Ready: its template does not allow its environment variables.
    pub const ENV_VARS_INJECTION_REJECTED: &str = "EnvVarsInjectionRejected";
    /// A claim is not Ready: its template does not allow its volume claims.
    pub const VOLUME_CLAIM_TEMPLATES_ERROR: &str = "VolumeClaimTemplatesError";
    /// A claim is not Ready: its time is over.
    pub const CLAIM_EXPIRED: &str = "ClaimExpired";
    /// Suspended: the pod is gone.
    pub const POD_TERMINATED: &str = "PodTerminated";
    /// Not Suspended: it is not asked for.
    pub const NOT_SUSPENDED: &str = "NotSuspended";
    /// Not Suspended yet: the pod is ending.
    pub const POD_TERMINATING: &str = "PodTerminating";
    /// Never Suspended: the pod belongs to someone else.
    pub const POD_NOT_OWNED: &str = "PodNotOwned";
    /// Suspended is unknown: the controller could not look at the pod.
    pub const POD_STATE_UNKNOWN: &str = "PodStateUnknown";
    /// The pod has a node.
    pub const POD_SCHEDULED: &str = "PodScheduled";
    /// Nobody has said yet whether the pod has a node.
    pub const POD_SCHEDULING_UNKNOWN: &str = "PodSchedulingUnknown";
}

/// Holds when the sandbox is Ready, and not suspended: controllers before v0.5.0 call a suspended one Ready.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{conditions::is_ready, v1beta1::{Sandbox, SandboxSpec}};
/// use kube::runtime::wait::Condition;
///
/// assert!(!is_ready().matches_object(Some(&Sandbox::new("a", SandboxSpec::default()))));
/// assert!(!is_ready().matches_object(None));
/// ```
pub fn is_ready() -> impl wait::Condition<Sandbox> {
    |sandbox: Option<&Sandbox>| {
        sandbox.is_some_and(|sandbox| is_true(sandbox, READY) && *sandbox.operating_mode() != OperatingMode::Suspended)
    }
}

/// Holds when the sandbox is suspended and its pod is gone.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{conditions::is_suspended, v1beta1::{Sandbox, SandboxSpec}};
/// use kube::runtime::wait::Condition;
///
/// assert!(!is_suspended().matches_object(Some(&Sandbox::new("a", SandboxSpec::default()))));
/// ```
pub fn is_suspended() -> impl wait::Condition<Sandbox> {
    |sandbox: Option<&Sandbox>| sandbox.is_some_and(|sandbox| is_true(sandbox, SUSPENDED))
}

/// Holds when the sandbox's pod has ended by itself.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{conditions::is_finished, v1beta1::{Sandbox, SandboxSpec}};
/// use kube::runtime::wait::Condition;
///
/// assert!(!is_finished().matches_object(Some(&Sandbox::new("a", SandboxSpec::default()))));
/// ```
pub fn is_finished() -> impl wait::Condition<Sandbox> {
    |sandbox: Option<&Sandbox>| sandbox.is_some_and(|sandbox| is_true(sandbox, FINISHED))
}

/// Holds when the shutdown time has passed and the controller has said so. Pod and Service may still be on their way
/// out; with shutdown policy Delete the sandbox itself is, too.
///
/// # Examples
/// ```
/// use agent_sandbox_sdk::{conditions::is_expired, v1beta1::{Sandbox, SandboxSpec}};
/// use kube::runtime::wait::Condition;
///
/// assert!(!is_expired().matches_object(Some(&Sandbox::new("a", SandboxSpec::default()))));
/// ```
pub fn is_expired() -> impl wait::Condition<Sandbox> {
    |sandbox: Option<&Sandbox>| {
        let ready = sandbox.and_then(|sandbox| current(sandbox, READY));
        ready.is_some_and(|ready| ready.reason == reasons::SANDBOX_EXPIRED)
    }
}

/// The condition of that type, unless it is about an earlier generation of the object.
pub(crate) fn current<'a>(sandbox: &'a Sandbox, type_: &str) -> Option<&'a Condition> {
    sandbox.condition(type_).filter(|condition| match (condition.observed_generation, sandbox.metadata.generation) {
        (Some(observed), Some(generation)) => observed >= generation,
        _ => true,
    })
}

fn is_true(sandbox: &Sandbox, type_: &str) -> bool {
    current(sandbox, type_).is_some_and(|condition| condition.status == "True")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use wait::Condition as _;

    use super::*;

    fn sandbox(generation: i64, condition: Value) -> Sandbox {
        let object = json!({
            "apiVersion": "agents.x-k8s.io/v1beta1",
            "kind": "Sandbox",
            "metadata": {"name": "a", "generation": generation},
            "spec": {"podTemplate": {"spec": {"containers": []}}},
            "status": {"conditions": [condition]},
        });
        serde_json::from_value(object).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str, observed: Option<i64>) -> Value {
        json!({"type": type_, "status": status, "reason": reason, "message": "",
            "observedGeneration": observed, "lastTransitionTime": "2026-01-02T03:04:05Z"})
    }

    #[test]
    fn a_ready_condition_about_an_earlier_generation_does_not_count() {
        let ready = |observed| condition(READY, "True", reasons::DEPENDENCIES_READY, observed);
        assert!(is_ready().matches_object(Some(&sandbox(2, ready(Some(2))))));
        assert!(!is_ready().matches_object(Some(&sandbox(2, ready(Some(1))))));
        assert!(is_ready().matches_object(Some(&sandbox(2, ready(None)))), "old controllers write no generation");
    }

    #[test]
    fn only_true_is_true() {
        for status in ["False", "Unknown"] {
            let sandbox = sandbox(1, condition(SUSPENDED, status, reasons::POD_STATE_UNKNOWN, Some(1)));
            assert!(!is_suspended().matches_object(Some(&sandbox)), "{status}");
        }
        let suspended = sandbox(1, condition(SUSPENDED, "True", reasons::POD_TERMINATED, Some(1)));
        assert!(is_suspended().matches_object(Some(&suspended)));
        assert!(!is_finished().matches_object(Some(&suspended)), "each predicate looks at its own condition");
    }

    #[test]
    fn an_expired_sandbox_is_known_by_the_reason_it_is_not_ready() {
        let expired = sandbox(1, condition(READY, "False", reasons::SANDBOX_EXPIRED, Some(1)));
        assert!(is_expired().matches_object(Some(&expired)));
        let starting = sandbox(1, condition(READY, "False", reasons::DEPENDENCIES_NOT_READY, Some(1)));
        assert!(!is_expired().matches_object(Some(&starting)));
    }
}
