//! From Phase 1, whose sandboxes are bare pods, to Phase 2, whose sandboxes are Sandbox objects.

use std::sync::Arc;

use agent_sandbox_provider::{AgentSandboxProvider, ExecOptions, KubernetesOptions, SandboxProvider, SandboxStatus};
use agent_sandbox_sdk::v1beta1::Sandbox;
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, ServiceAccount},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{AttachParams, DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::{
    World,
    migration::{ADOPTABLE, Plan, report},
};

/// What Phase 1 leaves in a namespace.
const INSTALLATION: &str = include_str!("../../../fixtures/phase1/installation.yaml");

const POD: &str = "agentpane-shop-tz4a98xx";
const ID: &str = "tz4a98xxat96iws9zmbrgj3a";

/// Makes the installation, and waits until its pods run.
async fn phase_one(world: &World) -> Result<()> {
    let is_there = |found: Option<&ServiceAccount>| found.is_some();
    world.eventually::<ServiceAccount>("default", "there", is_there).await?;
    let documents: Vec<Value> = serde_saphyr::from_multiple(INSTALLATION).context("the installation is YAML")?;
    let params = PostParams::default();
    for mut document in documents {
        match document["kind"].as_str() {
            Some("Pod") => {
                document["spec"]["containers"][0]["image"] = world.image().into();
                world.api::<Pod>().create(&params, &serde_json::from_value(document)?).await?;
            }
            Some("PersistentVolumeClaim") => {
                let claims = world.api::<PersistentVolumeClaim>();
                claims.create(&params, &serde_json::from_value(document)?).await?;
            }
            _ => drop(world.api::<NetworkPolicy>().create(&params, &serde_json::from_value(document)?).await?),
        }
    }
    for name in [POD, "agentpane-blog-pfh0haxf"] {
        let runs = |pod: Option<&Pod>| {
            let phase = pod.and_then(|pod| pod.status.as_ref()?.phase.as_deref());
            phase == Some("Running")
        };
        world.eventually::<Pod>(name, "Running", runs).await?;
    }
    Ok(())
}

/// A command in a pod that is no Sandbox's, as Phase 1 ran them.
async fn exec(client: Client, namespace: &str, pod: &str, script: &str) -> Result<String> {
    let params = AttachParams::default().stdin(false).stderr(false);
    let mut running = Api::<Pod>::namespaced(client, namespace).exec(pod, ["sh", "-c", script], &params).await?;
    let mut text = String::new();
    running.stdout().context("its output")?.read_to_string(&mut text).await?;
    running.join().await?;
    Ok(text)
}

/// The report says what each pod would become and what has to be decided; who follows it has the files, labels and policies
/// as before, Phase 2's provider finds the sandbox under its id and project, and the report then says that all is well.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn pods_of_phase_one_become_sandboxes_with_their_files(world: &World) -> Result<()> {
    world.step("an installation of Phase 1, with work in it");
    phase_one(world).await?;
    exec(world.client(), world.namespace(), POD, "echo work > /workspace/note").await?;
    let claims = world.api::<PersistentVolumeClaim>();
    let claim = claims.get(&format!("workspace-{ID}")).await?;

    world.step("what would become of it");
    let plan = Plan::make(&world.client(), world.namespace()).await?;
    let text = report(&plan);
    let one = plan.moves.iter().find(|one| one.pod == POD).with_context(|| format!("{POD} is not told of:\n{text}"))?;
    ensure!(one.decisions.is_empty() && one.claim == claim.metadata.name, "{text}");
    for part in [
        "- 1 can be moved as they are\n- 1 wait for a decision\n- 1 are of the warm pool\n- 0 have been moved",
        "its workspace is in the pod alone",
        "claim workspace-hd0m3vxq7n2w8e5r1t6y9u4i: no pod has it",
        "delete pod agentpane-warm-k3x9a1b2-c4d5e6f7",
        "| spec.restartPolicy | Never | Always |",
    ] {
        ensure!(text.contains(part), "{part:?} is missing in\n{text}");
    }
    let surprises: Vec<_> = one.differences.iter().filter(|one| one.meaning.is_empty()).collect();
    ensure!(surprises.is_empty(), "what is different without being told why: {surprises:?}");
    ensure!(world.api::<Sandbox>().list(&Default::default()).await?.items.is_empty(), "the report changes nothing");

    world.step("the move, as the report says it");
    let adoptable = Patch::Merge(json!({"metadata": {"labels": {ADOPTABLE: "true"}}}));
    claims.patch(&claim.name_any(), &PatchParams::default(), &adoptable).await?;
    let pods = world.api::<Pod>();
    let pod = pods.get(POD).await?;
    pods.delete(POD, &DeleteParams::default()).await?;
    world.eventually_gone(&pod).await?;
    world.sandboxes().create(&one.sandbox).await?;
    world.sandboxes().wait_ready(ID, world.deadline()).await?;

    world.step("the files are there, on the same claim");
    let read = world.sandboxes().exec(ID, ["sh", "-c", "cat /workspace/note; echo $COLOUR"]).await?;
    ensure!(read.stdout_text() == "work\nblue\n", "{read:?}");
    ensure!(claims.get(&claim.name_any()).await?.uid() == claim.uid(), "it is another claim");

    world.step("Phase 2's provider goes on with it");
    let options = KubernetesOptions { namespace: world.namespace().into(), ..KubernetesOptions::default() };
    let provider: Arc<dyn SandboxProvider> = Arc::new(AgentSandboxProvider::new(world.client(), options)?);
    let found = provider.get("shop").await?.context("the provider does not find the project's sandbox")?;
    ensure!(found.id() == ID && found.status() == SandboxStatus::Running, "{} {:?}", found.id(), found.status());
    let read = found.exec(ExecOptions::new("cat", ["/workspace/note"])).await?;
    ensure!(read.stdout.trim() == "work", "{read:?}");
    provider.shutdown().await;

    world.step("and the report says that all is well");
    let plan = Plan::make(&world.client(), world.namespace()).await?;
    ensure!(plan.moved == [(ID.to_owned(), Vec::new())], "{}", report(&plan));
    ensure!(plan.moves.len() == 1, "{}", report(&plan));
    Ok(())
}
