//! What there is in a namespace, for the report of a scenario that failed.

use std::fmt::Write;

use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Service};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};

use agent_sandbox_sdk::v1beta1::{Sandbox, SandboxClaim, SandboxWarmPool};

/// How many lines of each container's log are shown.
const LOG_LINES: i64 = 20;

/// Claims, pools, sandboxes, pods with their logs, Services, volume claims and events: a line or two each. Never fails; what cannot be listed says why.
pub(crate) async fn dump(client: &Client, namespace: &str) -> String {
    let all = ListParams::default();
    let mut text = format!("namespace {namespace}\n");
    if let Ok(claims) = Api::<SandboxClaim>::namespaced(client.clone(), namespace).list(&all).await {
        for claim in claims {
            let status = serde_json::to_string(&claim.status).unwrap_or_default();
            line(&mut text, format_args!("sandbox claim {} {status}{}", claim.name_any(), ending(&claim)));
        }
    }
    if let Ok(pools) = Api::<SandboxWarmPool>::namespaced(client.clone(), namespace).list(&all).await {
        for pool in pools {
            let status = serde_json::to_string(&pool.status).unwrap_or_default();
            line(&mut text, format_args!("warm pool {} {status}{}", pool.name_any(), ending(&pool)));
        }
    }
    match Api::<Sandbox>::namespaced(client.clone(), namespace).list(&all).await {
        Ok(sandboxes) => {
            for sandbox in sandboxes {
                let mode = sandbox.operating_mode();
                line(&mut text, format_args!("sandbox {} {mode}{}", sandbox.name_any(), ending(&sandbox)));
                for condition in sandbox.status.iter().flat_map(|status| &status.conditions) {
                    let (type_, status) = (&condition.type_, &condition.status);
                    line(&mut text, format_args!("  {type_}={status} {}: {}", condition.reason, condition.message));
                }
            }
        }
        Err(error) => line(&mut text, format_args!("no sandboxes: {error}")),
    }
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    match pods.list(&all).await {
        Ok(list) => {
            for pod in list {
                let status = pod.status.clone().unwrap_or_default();
                let phase = status.phase.unwrap_or_default();
                line(&mut text, format_args!("pod {} {phase}{}", pod.name_any(), ending(&pod)));
                for container in status.container_statuses.into_iter().flatten() {
                    let state = serde_json::to_string(&container.state).unwrap_or_default();
                    line(&mut text, format_args!("  {} ready={} {state}", container.name, container.ready));
                    let wanted = LogParams {
                        container: Some(container.name.clone()),
                        tail_lines: Some(LOG_LINES),
                        ..LogParams::default()
                    };
                    match pods.logs(&pod.name_any(), &wanted).await {
                        Ok(log) => log.lines().for_each(|said| line(&mut text, format_args!("    | {said}"))),
                        Err(error) => line(&mut text, format_args!("    no log: {error}")),
                    }
                }
            }
        }
        Err(error) => line(&mut text, format_args!("no pods: {error}")),
    }
    match Api::<Service>::namespaced(client.clone(), namespace).list(&all).await {
        Ok(services) => {
            services.iter().for_each(|s| line(&mut text, format_args!("service {}{}", s.name_any(), ending(s))));
        }
        Err(error) => line(&mut text, format_args!("no services: {error}")),
    }
    match Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).list(&all).await {
        Ok(claims) => {
            for claim in claims {
                let phase = claim.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
                line(&mut text, format_args!("claim {} {phase}{}", claim.name_any(), ending(&claim)));
            }
        }
        Err(error) => line(&mut text, format_args!("no volume claims: {error}")),
    }
    match Api::<Event>::namespaced(client.clone(), namespace).list(&all).await {
        Ok(events) => {
            for event in events {
                let about = event.involved_object.name.unwrap_or_default();
                let (reason, message) = (event.reason.unwrap_or_default(), event.message.unwrap_or_default());
                line(&mut text, format_args!("event {about} {reason}: {message}"));
            }
        }
        Err(error) => line(&mut text, format_args!("no events: {error}")),
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "  {line}").expect("a text can be written to");
}

/// Whether the object is on its way out, and what holds it.
fn ending(object: &impl ResourceExt) -> String {
    match object.meta().deletion_timestamp {
        Some(_) => format!(" (being deleted; finalizers {:?})", object.finalizers()),
        None => String::new(),
    }
}
