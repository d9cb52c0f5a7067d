//! What clusters and pods say when something goes wrong, as the errors that clients know.

use agent_sandbox_sdk::{
    Error as SdkError, ExecError, WaitError,
    conditions::{self, reasons},
    kubeconfig::KubeconfigError,
    v1beta1::{OperatingMode, Sandbox},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod};
use kube::{
    Api, ResourceExt,
    core::Status,
    runtime::{WatchStreamExt, wait::Condition as _, watcher::watch_object},
};

use std::{pin::pin, time::Duration};

use crate::{Code, Error};

/// An error of the SDK: what failed, in the server's words.
pub(super) fn of_sdk(error: SdkError, code: Code) -> Error {
    if let SdkError::NotServed { .. } = error {
        return Error::new(Code::ProviderNotAvailable, error.to_string()).because(error);
    }
    let (status, what) = (error.status().cloned(), error.to_string());
    judge(status.as_ref(), &what, code).because(error)
}

/// An error of kube-rs.
pub(super) fn of_kube(error: kube::Error, what: &str, code: Code) -> Error {
    let status = match &error {
        kube::Error::Api(status) => Some(status.clone()),
        _ => None,
    };
    judge(status.as_deref(), what, code).because(error)
}

fn judge(status: Option<&Status>, what: &str, code: Code) -> Error {
    let Some(status) = status else {
        let message = format!("{what}: the cluster does not answer; check the network and the kubeconfig");
        return Error::new(Code::ClusterUnreachable, message);
    };
    let message = format!("{what}: {}", status.message);
    let code = match status.code {
        401 => Code::ApiError,
        403 if is_security(&status.message) => Code::PodSecurityViolation,
        403 if is_quota(&status.message) => Code::InsufficientResources,
        403 if status.message.contains("is being terminated") => Code::NamespaceNotFound,
        403 => Code::NamespaceAccessDenied,
        404 if status.message.starts_with("namespaces ") => Code::NamespaceNotFound,
        429 | 500..=599 => Code::ApiError,
        _ => code,
    };
    Error::new(code, message)
}

fn is_security(message: &str) -> bool {
    message.contains("violates PodSecurity")
}

fn is_quota(message: &str) -> bool {
    message.contains("exceeded quota") || message.contains("per Container is") || message.contains("per Pod is")
}

/// An error of finding a kubeconfig and making a client of it.
pub(super) fn of_kubeconfig(error: KubeconfigError) -> Error {
    let code = match &error {
        KubeconfigError::NotFound { .. } | KubeconfigError::NoneFound { .. } => Code::KubeconfigNotFound,
        KubeconfigError::UnknownContext { .. } => Code::ContextNotFound,
        _ => Code::KubeconfigInvalid,
    };
    let mut out = Error::new(code, error.to_string());
    match &error {
        KubeconfigError::NotFound { path } => out = out.with("path", path.display().to_string()),
        KubeconfigError::UnknownContext { context, .. } => out = out.with("context", context.as_str()),
        _ => {}
    }
    out.because(error)
}

/// An error of a command.
pub(super) fn of_exec(error: ExecError, sandbox: &str) -> Error {
    let (code, why) = match &error {
        ExecError::PodLookupFailed { source, .. } if source.is_not_found() => {
            (Code::PodNotFound, "there is no such sandbox".to_owned())
        }
        ExecError::PodLookupFailed { source, .. } => match source.status() {
            Some(status) => (Code::ExecFailed, status.message.clone()),
            None => (Code::ExecConnectionFailed, "the cluster does not answer".to_owned()),
        },
        ExecError::NoPod { pod, .. } => (Code::PodNotRunning, format!("its pod {pod} is not there")),
        ExecError::StartFailed { source, .. } => match source.status() {
            Some(status) => (Code::ExecFailed, status.message.clone()),
            None => (Code::ExecConnectionFailed, source.to_string()),
        },
        ExecError::CommandRefused { message, .. } => (Code::ExecFailed, message.clone()),
        ExecError::StreamFailed { .. } | ExecError::ConnectionFailed { .. } | ExecError::NoExitStatus { .. } => {
            (Code::ExecConnectionFailed, error.to_string())
        }
        _ => (Code::ExecFailed, error.to_string()),
    };
    let message = format!("no command was run to its end in sandbox {sandbox}: {why}");
    Error::new(code, message).with("podName", sandbox).because(error)
}

/// Whether a wait for Ready is over, one way or the other.
pub(super) fn is_settled(sandbox: &Sandbox) -> bool {
    conditions::is_ready().matches_object(Some(sandbox)) || verdict(sandbox).is_some()
}

/// Why a sandbox will not become Ready, as far as its own conditions tell.
pub(super) fn verdict(sandbox: &Sandbox) -> Option<Error> {
    let name = sandbox.name_any();
    let not_running = |why: &str| {
        let message = format!("sandbox {name} will not run: {why}");
        Some(Error::new(Code::PodNotRunning, message).with("podName", name.as_str()))
    };
    if sandbox.metadata.deletion_timestamp.is_some() {
        return not_running("it is being deleted");
    }
    if *sandbox.operating_mode() == OperatingMode::Suspended {
        return not_running("somebody has suspended it");
    }
    // Conditions about an earlier generation say nothing of this one.
    let ready = sandbox.condition(conditions::READY)?;
    if ready.observed_generation.is_some_and(|seen| Some(seen) < sandbox.metadata.generation) {
        return None;
    }
    match ready.reason.as_str() {
        reasons::SANDBOX_EXPIRED | reasons::POD_SUCCEEDED | reasons::POD_FAILED => not_running(&ready.message),
        reasons::MULTIPLE_PODS => not_running(&ready.message),
        reasons::RECONCILER_ERROR => refusal(&name, &ready.message),
        _ => None,
    }
}

/// What the API server said to the controller, where saying it again would not change a thing.
fn refusal(name: &str, message: &str) -> Option<Error> {
    // The account of a new namespace is made a moment after it.
    if message.contains("error looking up service account") {
        return None;
    }
    let code = match () {
        () if is_security(message) => Code::PodSecurityViolation,
        () if is_quota(message) => Code::InsufficientResources,
        () if message.contains("is forbidden") || message.contains("is invalid") => Code::PodCreationFailed,
        () => return None,
    };
    let message = format!("the pod of sandbox {name} was refused: {message}");
    Some(Error::new(code, message).with("podName", name))
}

/// A wait that was in vain.
pub(super) fn of_wait(error: WaitError, name: &str, timeout: Duration) -> Error {
    let code = match &error {
        WaitError::TimedOut { .. } => Code::PodStartupTimeout,
        WaitError::Ended { reason, .. } => match reason.as_str() {
            reasons::TEMPLATE_NOT_FOUND | reasons::WARM_POOL_NOT_FOUND => Code::WarmPoolAllocationFailed,
            _ => Code::PodNotRunning,
        },
        WaitError::Gone { .. } => Code::PodNotFound,
        WaitError::WatchRefused { .. } => Code::NamespaceAccessDenied,
        WaitError::NotWatched { .. } => Code::ApiError,
        _ => Code::PodCreationFailed,
    };
    Error::new(code, error.to_string()).with("podName", name).with("timeoutSeconds", timeout.as_secs()).because(error)
}

/// Watches a pod and answers when it is clear that it will not run; a pod that runs is watched for ever.
pub(super) async fn pod_failure(pods: Api<Pod>, name: &str, unschedulable_grace: Duration) -> Error {
    let mut changes = pin!(watch_object(pods, name).default_backoff());
    // When the scheduler will have been waited for long enough, and what it said.
    let mut unscheduled: Option<(tokio::time::Instant, Error)> = None;
    loop {
        let late = async {
            match &unscheduled {
                Some((end, _)) => tokio::time::sleep_until(*end).await,
                None => std::future::pending().await,
            }
        };
        let change = tokio::select! {
            change = changes.next() => change,
            () = late => match unscheduled.take() {
                Some((_, error)) => return error,
                None => continue,
            },
        };
        match change {
            Some(Ok(Some(pod))) => {
                if let Some(error) = hopeless(&pod) {
                    return error;
                }
                unscheduled = match (unplaced(&pod), unscheduled.take()) {
                    (None, _) => None,
                    (Some(error), Some((end, _))) => Some((end, error)),
                    (Some(error), None) => Some((tokio::time::Instant::now() + unschedulable_grace, error)),
                };
            }
            // Not there (yet), or not to be seen just now: the sandbox itself tells the rest.
            Some(Ok(None) | Err(_)) => {}
            None => std::future::pending().await,
        }
    }
}

/// A pod for which no node has room.
fn unplaced(pod: &Pod) -> Option<Error> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let condition = conditions.into_iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable")).then(|| {
        let said = condition.message.as_deref().unwrap_or("no node fits");
        let message = format!("no node has room for sandbox {}: {said}", pod.name_any());
        Error::new(Code::InsufficientResources, message).with("podName", pod.name_any())
    })
}

/// A pod whose container will not run, whatever happens.
pub(super) fn hopeless(pod: &Pod) -> Option<Error> {
    let status = pod.status.as_ref()?;
    let containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    for container in containers {
        let state = container.state.as_ref();
        if let Some(waiting) = state.and_then(|state| state.waiting.as_ref()) {
            let ended = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            let code = ended.map(|ended| ended.exit_code);
            if let Some(error) = waits_in_vain(&pod.name_any(), &container.image, waiting, code) {
                return Some(error);
            }
        }
    }
    None
}

fn waits_in_vain(pod: &str, image: &str, waiting: &ContainerStateWaiting, ended: Option<i32>) -> Option<Error> {
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let said = waiting.message.as_deref().unwrap_or(reason);
    let is_absent =
        ["not found", "manifest unknown", "does not exist", "repository name not known", "pull access denied"]
            .iter()
            .any(|text| said.to_lowercase().contains(text));
    let of_image = |code: Code, what: &str| {
        let message = format!("image {image} {what}: {reason}: {said}");
        Some(Error::new(code, message).with("image", image).with("reason", reason))
    };
    match reason {
        "InvalidImageName" => of_image(Code::ImageNotFound, "has no valid name"),
        "ErrImageNeverPull" => of_image(Code::ImageNotFound, "is not on the node, and may not be pulled"),
        "ErrImagePull" | "ImagePullBackOff" if is_absent => of_image(Code::ImageNotFound, "does not exist"),
        // One failure may pass; the kubelet says BackOff when it has failed and will wait.
        "ImagePullBackOff" => of_image(Code::ImagePullBackoff, "cannot be pulled"),
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            let message = format!("the container of sandbox {pod} cannot be started: {reason}: {said}");
            Some(Error::new(Code::PodCreationFailed, message).with("podName", pod).with("image", image))
        }
        "CrashLoopBackOff" => {
            let code = ended.map(|code| format!(" with exit code {code}")).unwrap_or_default();
            let message = format!("the container of sandbox {pod} ends as soon as it is started{code}: {said}");
            Some(Error::new(Code::PodNotRunning, message).with("podName", pod).with("image", image))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("ContainerCreating", "", None)]
    #[case("ErrImagePull", "rpc error: dial tcp: i/o timeout", None)]
    #[case("ErrImagePull", "failed to resolve: docker.io/x/y:1: not found", Some(Code::ImageNotFound))]
    #[case("ImagePullBackOff", "Back-off pulling image \"x\"", Some(Code::ImagePullBackoff))]
    #[case(
        "ImagePullBackOff",
        "Back-off pulling image \"x\": ErrImagePull: manifest unknown",
        Some(Code::ImageNotFound)
    )]
    #[case("InvalidImageName", "couldn't parse image name", Some(Code::ImageNotFound))]
    #[case("CreateContainerConfigError", "container has runAsNonRoot", Some(Code::PodCreationFailed))]
    #[case("CrashLoopBackOff", "back-off 10s restarting failed container", Some(Code::PodNotRunning))]
    fn what_a_kubelet_says_of_a_container_decides(
        #[case] reason: &str,
        #[case] message: &str,
        #[case] wanted: Option<Code>,
    ) {
        let waiting = ContainerStateWaiting { reason: Some(reason.into()), message: Some(message.into()) };
        let error = waits_in_vain("a", "x:1", &waiting, Some(3));
        assert_eq!(error.as_ref().map(Error::code), wanted);
        assert!(error.is_none_or(|error| error.message().contains(message)), "in the kubelet's words");
    }

    #[rstest]
    #[case(
        "Error seen: pods \"a\" is forbidden: violates PodSecurity \"restricted:latest\"",
        Some(Code::PodSecurityViolation)
    )]
    #[case("Error seen: pods \"a\" is forbidden: exceeded quota: q", Some(Code::InsufficientResources))]
    #[case(
        "Error seen: pods \"a\" is forbidden: maximum memory usage per Container is 1Gi",
        Some(Code::InsufficientResources)
    )]
    #[case("Error seen: pods \"a\" is forbidden: error looking up service account n/default", None)]
    #[case("Error seen: Pod \"a\" is invalid: spec", Some(Code::PodCreationFailed))]
    #[case("Error seen: pod \"a\" is owned by Sandbox/a (UID: 1), not by sandbox \"a\"", None)]
    fn what_the_controller_was_refused_ends_the_wait_or_not(#[case] message: &str, #[case] wanted: Option<Code>) {
        assert_eq!(refusal("a", message).map(|error| error.code()), wanted);
    }
}
