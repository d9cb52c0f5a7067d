//! What a Sandbox object says about a sandbox: everything that a restarted application has to know.

use agent_sandbox_sdk::{
    conditions::{self, reasons},
    v1beta1::{OperatingMode, Sandbox},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{ResourceExt, runtime::wait::Condition as _};

use crate::{Code, SandboxInfo, SandboxStatus, StopReason, labels, tracker::Record};

/// The sandbox that the object is; `None` if it is somebody else's.
pub(super) fn record(sandbox: &Sandbox) -> Option<Record> {
    let (noted, labelled) = (sandbox.annotations(), sandbox.labels());
    let id = labelled.get(labels::SANDBOX_ID)?.clone();
    let project_id = noted.get(labels::PROJECT_ID).or(labelled.get(labels::PROJECT_ID))?.clone();
    let container = sandbox.spec.pod_template.spec.containers.first();
    let limits = container.and_then(|container| container.resources.as_ref()?.limits.as_ref());
    let limit = |name: &str| limits.and_then(|limits| quantity(&limits.get(name)?.0)).unwrap_or(0.0);
    let made = sandbox.metadata.creation_timestamp.as_ref().map(|time| time.0).unwrap_or_default();
    let created_at = labels::timestamp(noted.get(labels::MADE_AT)).unwrap_or(made);
    let reason = match noted.get(labels::STOP_REASON).map(String::as_str) {
        Some("idle_timeout") => StopReason::IdleTimeout,
        Some("error") => StopReason::Error,
        _ => StopReason::Manual,
    };
    let (status, trouble) = status(sandbox, reason);
    let info = SandboxInfo {
        id,
        project_id,
        container_id: sandbox.name_any(),
        status,
        image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
        created_at,
        last_activity_at: labels::timestamp(noted.get(labels::LAST_ACTIVITY)).unwrap_or(created_at),
        memory_mb: (limit("memory") / f64::from(1 << 20)) as u32,
        cpu_cores: limit("cpu"),
    };
    let revision = sandbox.resource_version().and_then(|revision| revision.parse().ok()).unwrap_or(0);
    let idle_timeout = labels::idle_timeout(noted.get(labels::IDLE_MINUTES));
    Some(Record { info, idle_timeout, reason, trouble, revision })
}

fn ready(sandbox: &Sandbox) -> Option<&Condition> {
    sandbox.condition(conditions::READY)
}

fn status(sandbox: &Sandbox, reason: StopReason) -> (SandboxStatus, Option<(Code, String)>) {
    let is = |condition: &dyn Fn(&Sandbox) -> bool| condition(sandbox);
    let said = |code: Code| {
        let ready = ready(sandbox).map(|ready| ready.message.clone()).unwrap_or_default();
        Some((code, format!("sandbox {} failed: {ready}", sandbox.name_any())))
    };
    if sandbox.metadata.deletion_timestamp.is_some() {
        return (SandboxStatus::Stopping, None);
    }
    if *sandbox.operating_mode() == OperatingMode::Suspended {
        let is_suspended = is(&|sandbox| conditions::is_suspended().matches_object(Some(sandbox)));
        return match (is_suspended, reason) {
            (false, _) => (SandboxStatus::Stopping, None),
            (true, StopReason::IdleTimeout) => (SandboxStatus::Idle, None),
            (true, StopReason::Manual | StopReason::Error) => (SandboxStatus::Stopped, None),
        };
    }
    if is(&|sandbox| conditions::is_expired().matches_object(Some(sandbox))) {
        return (SandboxStatus::Idle, None);
    }
    if is(&|sandbox| conditions::is_finished().matches_object(Some(sandbox))) {
        let reason = sandbox.condition(conditions::FINISHED).map(|finished| finished.reason.as_str());
        return match reason {
            Some(reasons::POD_SUCCEEDED) => (SandboxStatus::Stopped, None),
            _ => (SandboxStatus::Error, said(Code::PodNotRunning)),
        };
    }
    // Each time its end is put off it has a new generation, and runs on.
    if ready(sandbox).is_some_and(|ready| ready.status == "True") {
        return (SandboxStatus::Running, None);
    }
    match ready(sandbox).map(|ready| ready.reason.as_str()) {
        Some(reasons::RECONCILER_ERROR | reasons::MULTIPLE_PODS) => {
            (SandboxStatus::Error, said(Code::PodCreationFailed))
        }
        _ => (SandboxStatus::Creating, None),
    }
}

/// A Kubernetes quantity as a number.
pub(super) fn quantity(text: &str) -> Option<f64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "" => 1.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        "Ei" => 1024f64.powi(6),
        exponent => 10f64.powi(exponent.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// P2's list took `500m` for 500 cores, and knew memory in `Mi` alone.
    #[rstest]
    #[case("500m", Some(0.5))]
    #[case("2", Some(2.0))]
    #[case("1.5", Some(1.5))]
    #[case("4096Mi", Some(4_294_967_296.0))]
    #[case("1Gi", Some(1_073_741_824.0))]
    #[case("128974848", Some(128_974_848.0))]
    #[case("1e3", Some(1000.0))]
    #[case("2E", Some(2e18))]
    #[case("x", None)]
    #[case("1Zi", None)]
    fn quantities_are_read_as_kubernetes_writes_them(#[case] text: &str, #[case] wanted: Option<f64>) {
        assert_eq!(quantity(text), wanted);
    }
}
