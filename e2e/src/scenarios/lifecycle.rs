//! The life of a Sandbox, from creation to the end of all that it owned.

use agent_sandbox_sdk::{
    WaitError,
    conditions::{self, is_expired, reasons},
    keys,
    v1beta1::{PodTemplate, Sandbox, SandboxSpec, ShutdownPolicy, VolumeClaimMetadata, VolumeClaimTemplate},
};
use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerPort, PersistentVolumeClaim, PersistentVolumeClaimSpec, Pod, PodSpec, Service, VolumeMount,
        VolumeResourceRequirements,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::{
    ResourceExt,
    api::{ListParams, LogParams},
    runtime::wait::conditions::is_deleted,
};

use crate::World;

const NAME: &str = "box";

/// A Sandbox with a volume and a Service, that prints a line when it starts.
fn sandbox(world: &World) -> Sandbox {
    let main = Container {
        name: "main".into(),
        image: Some(world.image().into()),
        command: Some(["sh", "-c", "echo box is up; sleep infinity"].map(Into::into).into()),
        ports: Some(vec![ContainerPort { container_port: 8080, ..Default::default() }]),
        volume_mounts: Some(vec![VolumeMount {
            name: "data".into(),
            mount_path: "/data".into(),
            ..Default::default()
        }]),
        ..Default::default()
    };
    // A shell as first process ignores SIGTERM; nobody wants to wait 30 s for that.
    let pod = PodSpec { containers: vec![main], termination_grace_period_seconds: Some(1), ..Default::default() };
    let storage = [("storage".to_owned(), Quantity("1Gi".into()))].into();
    let claim = PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".into()]),
        resources: Some(VolumeResourceRequirements { requests: Some(storage), ..Default::default() }),
        ..Default::default()
    };
    let metadata = VolumeClaimMetadata { name: Some("data".into()), ..Default::default() };
    let spec = SandboxSpec {
        pod_template: PodTemplate::of(pod),
        service: Some(true),
        volume_claim_templates: Some(vec![VolumeClaimTemplate { metadata: Some(metadata), spec: claim }]),
        ..Default::default()
    };
    Sandbox::new(NAME, spec)
}

/// A Sandbox of one container that waits.
pub(super) fn small(world: &World, name: &str) -> Sandbox {
    let main = Container {
        name: "main".into(),
        image: Some(world.image().into()),
        command: Some(["sh", "-c", "sleep infinity"].map(Into::into).into()),
        ..Default::default()
    };
    let pod = PodSpec { containers: vec![main], termination_grace_period_seconds: Some(1), ..Default::default() };
    Sandbox::new(name, SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() })
}

/// Made with a label, listed by it, got by name, deleted, and then neither listed nor got.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_is_listed_by_its_label_and_found_by_its_name(world: &World) -> Result<()> {
    let sandboxes = world.sandboxes();
    let mut sandbox = small(world, NAME);
    sandbox.labels_mut().insert("team".into(), "red".into());
    world.step("two sandboxes, one with the label");
    sandboxes.create(&sandbox).await?;
    sandboxes.create(&small(world, "other")).await?;
    sandboxes.wait_ready(NAME, world.deadline()).await?;
    let pod = world.api::<Pod>().get(NAME).await?;
    let phase = pod.status.and_then(|status| status.phase);
    ensure!(phase.as_deref() == Some("Running"), "{phase:?}");
    let red = ListParams::default().labels("team=red");
    let names = |list: &[Sandbox]| list.iter().map(ResourceExt::name_any).collect::<Vec<_>>();
    let listed = sandboxes.list(&red).await?;
    ensure!(names(&listed) == [NAME], "{:?}", names(&listed));
    let got = sandboxes.get(NAME).await?;
    ensure!(got.uid() == listed[0].uid(), "list and get agree");
    world.step("it is deleted");
    sandboxes.delete(NAME).await?;
    sandboxes.wait_gone(NAME, world.deadline()).await?;
    ensure!(sandboxes.list(&red).await?.is_empty(), "it is listed no more");
    let missing = sandboxes.get(NAME).await.err().context("it is there no more")?;
    ensure!(missing.is_not_found(), "{missing:?}");
    sandboxes.get("other").await?;
    Ok(())
}

/// Created, Ready, used, suspended, resumed, expired, revived, deleted: and at each step what belongs to it is there,
/// and nothing else.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_lives_and_takes_its_belongings_with_it(world: &World) -> Result<()> {
    let sandboxes = world.sandboxes();
    let pods = world.api::<Pod>();
    let services = world.api::<Service>();
    let claims = world.api::<PersistentVolumeClaim>();

    // Created: defaults are filled in, and it is not Ready on the spot.
    world.step("created");
    let created = sandboxes.create(&sandbox(world)).await?;
    ensure!(created.spec.shutdown_policy == Some(ShutdownPolicy::Retain), "the shutdown policy has a default");
    ensure!(created.condition(conditions::READY).is_none_or(|ready| ready.status != "True"), "Ready takes a while");
    let again = sandboxes.create(&sandbox(world)).await.err().context("a name is taken once")?;
    ensure!(again.is_already_exists(), "{again:?}");

    // Ready: pod, Service and volume claim are there and belong to it.
    world.step("ready");
    let ready = sandboxes.wait_ready(NAME, world.deadline()).await?;
    let status = ready.status.clone().context("a Ready sandbox has a status")?;
    ensure!(!status.pod_ips.is_empty() && status.node_name.is_some(), "{status:?}");
    ensure!(status.service.as_deref() == Some(NAME), "{status:?}");
    let domain = format!("{NAME}.{}.svc.", world.namespace());
    ensure!(status.service_fqdn.as_ref().is_some_and(|fqdn| fqdn.starts_with(&domain)), "{status:?}");
    let pod = pods.get(ready.pod_name().context("a pod")?).await?;
    let service = services.get(NAME).await?;
    let claim = claims.get(&format!("data-{NAME}")).await?;
    for (what, owners, labels) in [
        ("pod", pod.owner_references(), pod.labels()),
        ("service", service.owner_references(), service.labels()),
        ("claim", claim.owner_references(), claim.labels()),
    ] {
        let owned =
            owners.iter().any(|owner| Some(&owner.uid) == ready.uid().as_ref() && owner.controller == Some(true));
        ensure!(owned, "the {what} belongs to the sandbox: {owners:?}");
        ensure!(labels.contains_key(keys::SANDBOX_NAME_HASH), "the {what} is labelled: {labels:?}");
    }

    // Used: streams and exit code come back apart, and the volume takes a file.
    world.step("used");
    let output = sandboxes.exec(NAME, ["sh", "-c", "echo out; echo err >&2; exit 3"]).await?;
    ensure!((output.stdout_text(), output.stderr_text()) == ("out\n".into(), "err\n".into()), "{output:?}");
    ensure!(output.exit_code == 3, "{output:?}");
    let written = sandboxes.exec(NAME, ["sh", "-c", "echo kept > /data/note"]).await?;
    ensure!(written.success(), "{written:?}");
    let log = sandboxes.logs(NAME, &LogParams::default()).await?;
    ensure!(log == "box is up\n", "the log is {log:?}");

    // Suspended: the pod is gone, all else stays.
    world.step("suspended");
    sandboxes.suspend(NAME).await?;
    let suspended = sandboxes.wait_suspended(NAME, world.deadline()).await?;
    let not_ready = suspended.condition(conditions::READY).context("a Ready condition")?;
    ensure!(not_ready.reason == reasons::SANDBOX_SUSPENDED, "{not_ready:?}");
    ensure!(pods.get_opt(&pod.name_any()).await?.is_none(), "a suspended sandbox has no pod");
    ensure!(services.get(NAME).await?.uid() == service.uid(), "the Service stays");
    ensure!(claims.get(&claim.name_any()).await?.uid() == claim.uid(), "the volume claim stays");
    let waited = sandboxes.wait_ready(NAME, world.deadline()).await;
    ensure!(matches!(waited, Err(WaitError::Ended { .. })), "to wait for a suspended sandbox is a mistake: {waited:?}");

    // Resumed: another pod, the same volume.
    world.step("resumed");
    sandboxes.resume(NAME).await?;
    let resumed = sandboxes.wait_ready(NAME, world.deadline()).await?;
    let second_pod = pods.get(resumed.pod_name().context("a pod")?).await?;
    ensure!(second_pod.uid() != pod.uid(), "a resumed sandbox has a new pod");
    let note = sandboxes.exec(NAME, ["cat", "/data/note"]).await?;
    ensure!(note.stdout_text() == "kept\n", "the volume keeps its files: {note:?}");

    // Expired: pod and Service go, the sandbox and its volume stay.
    world.step("expired");
    sandboxes.set_shutdown_time(NAME, Some(world.soon())).await?;
    world.eventually::<Sandbox>(NAME, "expired", is_expired()).await?;
    world.eventually_gone(&second_pod).await?;
    world.eventually_gone(&service).await?;
    ensure!(claims.get(&claim.name_any()).await?.uid() == claim.uid(), "the volume claim stays");

    // Revived: without a shutdown time it lives again.
    world.step("revived");
    sandboxes.set_shutdown_time(NAME, None).await?;
    let revived = sandboxes.wait_ready(NAME, world.deadline()).await?;
    ensure!(revived.spec.shutdown_time.is_none(), "{revived:?}");
    let third_pod = pods.get(revived.pod_name().context("a pod")?).await?;
    let second_service = services.get(NAME).await?;

    // Deleted: all that it owned goes with it.
    world.step("deleted");
    sandboxes.delete(NAME).await?;
    sandboxes.wait_gone(NAME, world.deadline()).await?;
    world.eventually_gone(&third_pod).await?;
    world.eventually_gone(&second_service).await?;
    world.eventually_gone(&claim).await?;
    let missing = sandboxes.delete(NAME).await.err().context("it is deleted once")?;
    ensure!(missing.is_not_found(), "{missing:?}");
    Ok(())
}

/// With shutdown policy Delete, expiry leaves nothing.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_that_is_to_be_deleted_at_its_end_leaves_nothing(world: &World) -> Result<()> {
    let sandboxes = world.sandboxes();
    let mut sandbox = sandbox(world);
    sandbox.spec.shutdown_policy = Some(ShutdownPolicy::Delete);
    let uid = sandboxes.create(&sandbox).await?.uid().context("a uid")?;
    sandboxes.wait_ready(NAME, world.deadline()).await?;
    let pod = world.api::<Pod>().get(NAME).await?;
    let service = world.api::<Service>().get(NAME).await?;
    let claim = world.api::<PersistentVolumeClaim>().get(&format!("data-{NAME}")).await?;

    let end = world.soon();
    let expiring = sandboxes.set_shutdown_time(NAME, Some(end)).await?;
    let Time(stored) = expiring.spec.shutdown_time.context("a shutdown time")?;
    ensure!(stored.as_second() == end.as_second(), "a time is kept to the second: {stored} for {end}");

    world.eventually::<Sandbox>(NAME, "deleted at its end", is_deleted(&uid)).await?;
    ensure!(world.now() >= stored, "it does not go before its time");
    world.eventually_gone(&pod).await?;
    world.eventually_gone(&service).await?;
    world.eventually_gone(&claim).await?;
    Ok(())
}

/// A Sandbox that cannot start says why to those who wait for it.
///
/// # Errors
/// At the first step that goes another way.
pub(super) async fn a_sandbox_that_cannot_start_says_why(world: &World) -> Result<()> {
    let sandboxes = world.sandboxes();
    let mut sandbox = sandbox(world);
    let container = &mut sandbox.spec.pod_template.spec.containers[0];
    container.env_from = serde_json::from_value(serde_json::json!([{"configMapRef": {"name": "missing"}}]))?;
    sandboxes.create(&sandbox).await?;
    let waits = |pod: Option<&Pod>| {
        let statuses = pod.and_then(|pod| pod.status.as_ref()).and_then(|status| status.container_statuses.as_ref());
        let mut states = statuses.into_iter().flatten().filter_map(|one| one.state.as_ref()?.waiting.as_ref());
        states.any(|waiting| waiting.reason.as_deref() == Some("CreateContainerConfigError"))
    };
    world.eventually::<Pod>(NAME, "waiting for its configuration", waits).await?;
    let waited = sandboxes.wait_ready(NAME, std::time::Duration::from_secs(2)).await;
    let error = waited.err().context("a container without its configuration does not start")?;
    let text = error.to_string();
    ensure!(text.contains(reasons::DEPENDENCIES_NOT_READY), "the controller's reason is told: {text}");
    ensure!(text.contains("CreateContainerConfigError"), "the pod's waiting reason is told: {text}");
    Ok(())
}
