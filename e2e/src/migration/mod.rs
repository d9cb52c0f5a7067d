//! Validation of the move from Phase 1, whose sandboxes are bare pods, to Phase 2, whose sandboxes are Sandbox objects: what
//! there is, what each would become, what would not be as it was, and after the move, whether all is well. Nothing is changed.

mod differences;
mod inventory;
mod plan;

use std::{fmt::Write, fs, path::PathBuf, process::ExitCode};

use agent_sandbox_sdk::kubeconfig::{ConnectOptions, Environment};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use kube::ResourceExt;

pub use self::{
    differences::Difference,
    inventory::{Class, Inventory, classify},
    plan::{ADOPTABLE, Move, Plan},
};
use crate::{cli, runner::Stop};

/// What to look at.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// The namespace with the pods.
    #[arg(long, default_value = "agentpane-sandboxes")]
    namespace: String,
    /// The kubeconfig's context; its current one by default.
    #[arg(long, env = "K8S_E2E_CONTEXT")]
    context: Option<String>,
    /// File for the report, in Markdown; stdout by default.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Folder for the Sandboxes that would take over, for `kubectl apply`.
    #[arg(long, value_name = "FOLDER")]
    sandboxes: Option<PathBuf>,
}

/// Looks, and reports. The exit status is 0 if nothing has to be decided, 1 if something has.
///
/// # Errors
/// If the cluster does not answer, or something cannot be written.
pub fn run(options: &Options, stop: &Stop) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let connect = ConnectOptions { context: options.context.clone(), ..ConnectOptions::default() };
    let looking = async {
        let client =
            connect.find(&Environment::of_process())?.connect().await.context("no client for the kubeconfig")?;
        Plan::make(&client, &options.namespace).await
    };
    let plan = runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop.stopped() => Err(anyhow!("broken off")),
            plan = looking => plan,
        }
    })?;
    if let Some(folder) = &options.sandboxes {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for one in &plan.moves {
            let path = folder.join(format!("{}.json", one.sandbox.name_any()));
            let text = serde_json::to_string_pretty(&one.sandbox).context("a Sandbox is JSON")?;
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    match &options.report {
        Some(path) => cli::write(Some(path), || report(&plan))?,
        None => print!("{}", report(&plan)),
    }
    Ok(if plan.is_clear() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The plan as Markdown.
pub fn report(plan: &Plan) -> String {
    let mut text = format!("# The move of `{}` from pods to Sandboxes\n\n", plan.namespace);
    let waiting = plan.moves.iter().filter(|one| !one.decisions.is_empty()).count();
    let counts = [
        (plan.moves.len() - waiting, "can be moved as they are"),
        (waiting, "wait for a decision"),
        (plan.warm.len(), "are of the warm pool"),
        (plan.moved.len(), "have been moved"),
        (plan.foreign.len(), "are not the move's business"),
    ];
    for (count, what) in counts {
        let _ = writeln!(text, "- {count} {what}");
    }
    for one in &plan.moves {
        one_move(&mut text, &plan.namespace, one);
    }
    if !plan.loose.is_empty() {
        text.push_str("\n## To be decided\n\n");
        for (what, why) in &plan.loose {
            let _ = writeln!(text, "- {what}: {why}");
        }
    }
    if !plan.warm.is_empty() {
        let (count, names) = (plan.warm.len(), plan.warm.join(" "));
        let _ = writeln!(
            text,
            "\n## The warm pool\n\nA SandboxWarmPool takes its place; Phase 2's provider makes one when it is told to. When the \
             application of Phase 1 has ended (it would make new ones), {count} can go:\n\n```sh\nkubectl -n {} delete pod \
             {names}\n```",
            plan.namespace
        );
    }
    if !plan.moved.is_empty() {
        text.push_str("\n## Moved\n\n");
        for (name, wrong) in &plan.moved {
            let how = if wrong.is_empty() { "all is well".to_owned() } else { wrong.join("; ") };
            let _ = writeln!(text, "- {name}: {how}");
        }
    }
    text
}

fn one_move(text: &mut String, namespace: &str, one: &Move) {
    let name = one.sandbox.name_any();
    let _ = writeln!(text, "\n## {} becomes Sandbox {name}\n", one.pod);
    for why in &one.decisions {
        let _ = writeln!(text, "**To be decided:** {why}\n");
    }
    text.push_str("| what | before | after | |\n|---|---|---|---|\n");
    for Difference { path, before, after, meaning } in &one.differences {
        let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
        let _ = writeln!(text, "| {} | {} | {} | {} |", cell(path), cell(before), cell(after), cell(meaning));
    }
    text.push_str("\n```sh\n");
    if let Some(claim) = &one.claim {
        let _ = writeln!(text, "kubectl -n {namespace} label pvc {claim} {ADOPTABLE}=true");
    }
    let _ = writeln!(text, "kubectl -n {namespace} delete pod {}", one.pod);
    let _ = writeln!(text, "kubectl -n {namespace} apply -f {name}.json # of --sandboxes\n```");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, labels: &[(&str, &str)]) -> Pod {
        let labels: BTreeMap<_, _> =
            labels.iter().map(|(key, value)| (format!("agentpane.io/{key}"), *value)).collect();
        let spec = json!({"containers": [{"name": "sandbox", "image": "i"}]});
        serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}, "spec": spec})).unwrap()
    }

    fn sandbox(id: &str, project: &str, volume: Value) -> Pod {
        let mut pod =
            pod(&format!("agentpane-{id}"), &[("sandbox", "true"), ("sandbox-id", id), ("project-id", project)]);
        pod.spec.as_mut().unwrap().volumes = serde_json::from_value(json!([volume])).unwrap();
        pod
    }

    #[rstest]
    #[case(&[("sandbox", "true"), ("sandbox-id", "a"), ("project-id", "p")], Class::Sandbox)]
    #[case(&[("sandbox", "true"), ("warm-pool", "true"), ("warm-pool-state", "warm")], Class::WarmIdle)]
    #[case(&[("sandbox", "true"), ("warm-pool", "true"), ("warm-pool-state", "allocated")], Class::WarmIdle)]
    #[case(&[("sandbox", "true"), ("warm-pool", "true"), ("warm-pool-state", "allocated"), ("project-id", "p")],
        Class::WarmAllocated)]
    #[case(&[("sandbox", "true"), ("sandbox-id", "a")], Class::Anomalous)]
    #[case(&[("sandbox", "yes"), ("sandbox-id", "a"), ("project-id", "p")], Class::Foreign)]
    #[case(&[], Class::Foreign)]
    fn a_pod_is_what_its_labels_say(#[case] labels: &[(&str, &str)], #[case] class: Class) {
        assert_eq!(classify(&pod("p", labels)), class);
    }

    #[rstest]
    #[case("Sandbox", Class::Moved)]
    #[case("ReplicaSet", Class::Foreign)]
    fn a_pod_of_a_controller_is_its_controllers(#[case] kind: &str, #[case] class: Class) {
        let mut owned = sandbox("a", "p", json!({"name": "workspace", "emptyDir": {}}));
        let owner = json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "u", "controller": true}]);
        owned.metadata.owner_references = serde_json::from_value(owner).unwrap();
        assert_eq!(classify(&owned), class);
    }

    #[test]
    fn what_cannot_be_moved_without_loss_waits_for_a_decision() {
        let claim = |name: &str| {
            let claim: PersistentVolumeClaim = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            (name.to_owned(), claim)
        };
        let on = |name: &str| json!({"name": "workspace", "persistentVolumeClaim": {"claimName": name}});
        let mut ended = sandbox("ended", "p-6", on("workspace-ended"));
        ended.status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
        let pods = [
            sandbox("good", "p-1", on("workspace-good")),
            sandbox("named", "p-2", on("other")),
            sandbox("lost", "p-3", on("workspace-lost")),
            sandbox("node", "p-4", json!({"name": "workspace", "hostPath": {"path": "/home"}})),
            sandbox("one", "p-5", on("workspace-one")),
            sandbox("two", "p-5", on("workspace-two")),
            ended,
        ];
        let there = Inventory {
            pods: pods.into_iter().map(|pod| (classify(&pod), pod)).collect(),
            claims: ["workspace-good", "other", "workspace-one", "workspace-two", "workspace-ended"].map(claim).into(),
            ..Inventory::default()
        };
        let plan = Plan::of(&there);
        let decided: Vec<_> = plan.moves.iter().map(|one| (one.pod.as_str(), one.decisions.join(" "))).collect();
        let wanted = [
            ("agentpane-good", ""),
            ("agentpane-named", "not called workspace-named"),
            ("agentpane-lost", "workspace-lost is gone"),
            ("agentpane-node", "a folder of the node"),
            ("agentpane-one", "its project has another pod"),
            ("agentpane-two", "its project has another pod"),
            ("agentpane-ended", "it is Failed"),
        ];
        for ((pod, why), (name, part)) in decided.iter().zip(wanted) {
            assert_eq!(*pod, name);
            assert!(if part.is_empty() { why.is_empty() } else { why.contains(part) }, "{pod}: {why}");
        }
        assert!(!plan.is_clear());
        let good = &plan.moves[0].sandbox;
        assert_eq!(good.name_any(), "good");
        assert_eq!(good.spec.volume_claim_templates.as_ref().map(Vec::len), Some(1), "it takes the claim over");
    }

    #[test]
    fn values_of_variables_are_not_shown_wherever_they_are() {
        let with = |env: Value| -> Pod {
            let spec = json!({"containers": [{"name": "sandbox", "image": "i", "env": env}]});
            serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        };
        let secret = with(json!([{"name": "TOKEN", "value": "s3cret"}]));
        for other in [with(json!([{"name": "TOKEN", "value": "0ther"}])), with(json!(null)), Pod::default()] {
            for (before, after) in [(&secret, &other), (&other, &secret)] {
                let found = differences::differences(before, after);
                assert!(!found.is_empty());
                let text = format!("{found:?}");
                assert!(!text.contains("s3cret") && !text.contains("0ther"), "{text}");
            }
        }
    }
}
