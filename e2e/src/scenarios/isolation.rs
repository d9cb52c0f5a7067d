//! What keeps sandboxes apart: network policies and runtime classes.

use std::time::Duration;

use agent_sandbox_sdk::v1beta1::{
    NetworkPolicyManagement, PodTemplate, Sandbox, SandboxClaim, SandboxClaimSpec, SandboxTemplate, SandboxTemplateRef,
    SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef, SandboxWarmPoolSpec,
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{core::v1::Pod, networking::v1::NetworkPolicy, node::v1::RuntimeClass};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;

use super::{Skip, lifecycle::small};
use crate::World;

/// A template that is managed has a policy that selects its pods; one that is edited is mended, and it goes with its
/// template.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_template_brings_its_network_policy(world: &World) -> Result<()> {
    let pod_template = PodTemplate::of(small(world, "any").spec.pod_template.spec);
    let managed = SandboxTemplateSpec { pod_template: pod_template.clone(), ..Default::default() };
    let management = Some(NetworkPolicyManagement::Unmanaged);
    let unmanaged = SandboxTemplateSpec { pod_template, network_policy_management: management, ..Default::default() };
    let templates = world.api::<SandboxTemplate>();
    world.step("two templates, one of them unmanaged");
    templates.create(&PostParams::default(), &SandboxTemplate::new("free", unmanaged)).await?;
    let template = templates.create(&PostParams::default(), &SandboxTemplate::new("shut", managed)).await?;

    let is_default = |policy: Option<&NetworkPolicy>| {
        let spec = policy.and_then(|policy| policy.spec.as_ref());
        spec.is_some_and(|spec| {
            let blocks = spec.egress.iter().flatten().flat_map(|rule| rule.to.iter().flatten());
            let private = blocks
                .filter_map(|peer| peer.ip_block.as_ref())
                .any(|block| block.except.iter().flatten().any(|range| range == "10.0.0.0/8"));
            private && spec.policy_types.iter().flatten().count() == 2
        })
    };
    let name = "shut-network-policy";
    let policy = world.eventually::<NetworkPolicy>(name, "there, with private networks shut", is_default).await?;
    let policy = policy.context("a policy")?;
    let owner = policy.owner_references().first().context("an owner")?;
    ensure!(Some(&owner.uid) == template.uid().as_ref(), "{owner:?}");

    world.step("a claim's pod is selected by it");
    let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.as_ref()).context("a selector")?;
    let labels = selector.match_labels.clone().context("labels to select by")?;
    let spec = SandboxWarmPoolSpec {
        replicas: Some(1),
        sandbox_template_ref: SandboxTemplateRef { name: "shut".into() },
        ..Default::default()
    };
    world.api().create(&PostParams::default(), &SandboxWarmPool::new("pool", spec)).await?;
    let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "pool".into() }, ..Default::default() };
    world.api().create(&PostParams::default(), &SandboxClaim::new("mine", spec)).await?;
    let selected: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let selected = ListParams::default().labels(&selected.join(","));
    world.eventually_all::<Pod>("some", |pods| !pods.is_empty()).await?;
    ensure!(!world.api::<Pod>().list(&selected).await?.items.is_empty(), "{labels:?} selects no pod");

    world.step("an edited policy is mended");
    let edit = Patch::Merge(json!({"spec": {"egress": [{}]}}));
    world.api::<NetworkPolicy>().patch(name, &PatchParams::default(), &edit).await?;
    world.eventually::<NetworkPolicy>(name, "as it was", is_default).await?;
    let others = world.api::<NetworkPolicy>().get_opt("free-network-policy").await?;
    ensure!(others.is_none(), "an unmanaged template has none");

    world.step("it goes with its template");
    templates.delete("shut", &DeleteParams::background()).await?;
    world.eventually_gone(&policy).await
}

/// Where policies are enforced, a sandbox under one that lets nothing in cannot be reached.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_policy_cuts_a_sandbox_off(world: &World) -> Result<()> {
    let mut server = small(world, "server");
    let command = ["sh", "-c", "mkdir -p /tmp/www; echo there > /tmp/www/index.html; httpd -f -p 8080 -h /tmp/www"];
    server.spec.pod_template.spec.containers[0].command = Some(command.map(Into::into).into());
    world.sandboxes().create(&server).await?;
    world.sandboxes().create(&small(world, "client")).await?;
    let ready = world.sandboxes().wait_ready("server", world.deadline()).await?;
    world.sandboxes().wait_ready("client", world.deadline()).await?;
    let ip = ready.status.as_ref().and_then(|status| status.pod_ips.first()).context("an address")?.clone();
    let asks = ["wget", "-q", "-T", "3", "-O", "-", &format!("http://{ip}:8080/")].map(str::to_owned);
    let reached = async || -> Result<bool> { Ok(world.sandboxes().exec("client", asks.clone()).await?.success()) };
    let turns = async |wanted: bool| -> Result<bool> {
        for _ in 0..30 {
            if reached().await? == wanted {
                return Ok(true);
            }
            tokio::time::sleep(Duration::from_secs(1)).await; // networks tell nobody when they have changed
        }
        Ok(false)
    };
    world.step("without a policy it is reached");
    ensure!(turns(true).await?, "the server is not reached");
    world.step("with one that lets nothing in it is not");
    let policy: NetworkPolicy = serde_json::from_value(json!({
        "metadata": {"name": "shut"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
    }))?;
    world.api::<NetworkPolicy>().create(&PostParams::default(), &policy).await?;
    ensure!(turns(false).await?, "the server is still reached: the cluster enforces no network policies");
    Ok(())
}

/// A sandbox that names a runtime class has a pod of that class.
async fn under_gvisor(world: &World) -> Result<Sandbox> {
    let classes = Api::<RuntimeClass>::all(world.client());
    if classes.get_opt("gvisor").await?.is_none() {
        return Err(Skip("the cluster has no runtime class gvisor".into()).into());
    }
    let mut sandbox = small(world, "apart");
    sandbox.spec.pod_template.spec.runtime_class_name = Some("gvisor".into());
    world.sandboxes().create(&sandbox).await?;
    world.step("a sandbox of the class gvisor is made");
    Ok(world.sandboxes().wait_ready("apart", world.deadline()).await?)
}

/// The pod has the class that the sandbox names; one that there is not makes no pod, and the sandbox says so.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_runs_under_the_runtime_class_that_it_names(world: &World) -> Result<()> {
    let ready = under_gvisor(world).await?;
    let pod = world.api::<Pod>().get(ready.pod_name().context("a pod")?).await?;
    let class = pod.spec.and_then(|spec| spec.runtime_class_name);
    ensure!(class.as_deref() == Some("gvisor"), "{class:?}");

    world.step("a class that there is not");
    let mut sandbox = small(world, "lost");
    sandbox.metadata = ObjectMeta { name: Some("lost".into()), ..Default::default() };
    sandbox.spec.pod_template.spec.runtime_class_name = Some("no-such-class".into());
    world.sandboxes().create(&sandbox).await?;
    let waited = world.sandboxes().wait_ready("lost", Duration::from_secs(3)).await;
    let text = waited.err().context("it does not get Ready")?.to_string();
    ensure!(world.api::<Pod>().get_opt("lost").await?.is_none(), "there is a pod: {text}");
    Ok(())
}

/// What a process sees of its kernel is gVisor's.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn the_kernel_of_a_sandbox_is_gvisors(world: &World) -> Result<()> {
    under_gvisor(world).await?;
    let output = world.sandboxes().exec("apart", ["dmesg"]).await?;
    ensure!(output.stdout_text().contains("gVisor"), "{output:?}");
    Ok(())
}
