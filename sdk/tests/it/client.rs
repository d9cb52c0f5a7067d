//! The client against an API server that has the definitions and no controller: the tests play the controller.

use std::{pin::pin, time::Duration};

use agent_sandbox_sdk::{
    AgentSandboxClient, WaitError, conditions,
    v1beta1::{
        OperatingMode, PodTemplate, Sandbox, SandboxClaim, SandboxClaimSpec, SandboxSpec, SandboxTemplate,
        SandboxTemplateRef, SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef, SandboxWarmPoolSpec,
        ShutdownPolicy,
    },
};
use anyhow::{Context, Result};
use fake_apiserver::cluster::Cluster;
use futures::TryStreamExt;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    runtime::{
        wait::{await_condition, conditions::is_crd_established},
        watcher::{Config, Event},
    },
};
use serde_json::{Value, json};

use crate::our_definitions;

const SOON: Duration = Duration::from_secs(10);
const LATER: Duration = Duration::from_secs(300);

/// A cluster with our definitions, and the client under test.
async fn cluster() -> Result<(Cluster, AgentSandboxClient)> {
    let cluster = Cluster::builder().seed(1).kubelet(false).sandbox_controllers(false).start().await?;
    let definitions = Api::<CustomResourceDefinition>::all(cluster.client());
    for crd in our_definitions() {
        definitions.create(&PostParams::default(), &crd).await.context("our definition is taken")?;
        let name = crd.name_any();
        let established = await_condition(definitions.clone(), &name, is_crd_established());
        tokio::time::timeout(SOON, established).await.context("our definition is served")??;
    }
    let sandboxes = AgentSandboxClient::new(cluster.client());
    Ok((cluster, sandboxes))
}

fn sandbox(name: &str) -> Sandbox {
    let main = Container { name: "main".into(), image: Some("busybox:1.36".into()), ..Default::default() };
    let pod = PodSpec { containers: vec![main], ..Default::default() };
    Sandbox::new(name, SandboxSpec { pod_template: PodTemplate::of(pod), ..Default::default() })
}

/// What the controller would write.
async fn report(client: Client, name: &str, type_: &str, status: &str, reason: &str, generation: i64) -> Result<()> {
    let condition = json!({"type": type_, "status": status, "reason": reason, "message": "as it says",
        "observedGeneration": generation, "lastTransitionTime": "2026-01-02T03:04:05Z"});
    let patch = Patch::Merge(json!({"status": {"conditions": [condition]}}));
    Api::<Sandbox>::default_namespaced(client).patch_status(name, &PatchParams::default(), &patch).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_is_created_comes_back_with_its_defaults() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let created = sandboxes.create(&sandbox("a")).await?;
    assert_eq!(created.spec.operating_mode, Some(OperatingMode::Running));
    assert_eq!(created.spec.shutdown_policy, Some(ShutdownPolicy::Retain));
    assert_eq!(sandboxes.get("a").await?, created);
    assert!(sandboxes.create(&sandbox("a")).await.unwrap_err().is_already_exists());
    assert!(sandboxes.get("b").await.unwrap_err().is_not_found());
    sandboxes.delete("a").await?;
    sandboxes.wait_gone("a", SOON).await?;
    assert!(sandboxes.delete("a").await.unwrap_err().is_not_found());
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_published_schema_refuses_what_the_types_cannot_say() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let mut asleep = sandbox("a");
    asleep.spec.operating_mode = Some(OperatingMode::Other("Asleep".into()));
    let error = sandboxes.create(&asleep).await.unwrap_err();
    let status = error.status().context("the server answered")?;
    assert!(status.is_invalid() && !error.is_retryable(), "{status:?}");
    assert!(status.message.contains("spec.operatingMode: Unsupported value: \"Asleep\""), "{}", status.message);

    let mut twins = sandbox("a");
    twins.spec.pod_template.spec.containers.push(twins.spec.pod_template.spec.containers[0].clone());
    let error = sandboxes.create(&twins).await.unwrap_err();
    let message = &error.status().context("the server answered")?.message;
    assert!(message.contains("containers[1]: Duplicate value"), "containers are a map by name: {message}");

    let mut claims = sandbox("a");
    claims.spec.volume_claim_templates = Some(Vec::new());
    sandboxes.create(&claims).await?;
    let patch = Patch::Merge(json!({"spec": {"volumeClaimTemplates": null}}));
    let error = sandboxes.api().patch("a", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(error.to_string().contains("volumeClaimTemplates is immutable"), "{error}");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_list_reads_all_pages() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    for at in 0..5 {
        let mut sandbox = sandbox(&format!("s{at}"));
        sandbox.labels_mut().insert("odd".into(), (at % 2 == 1).to_string());
        sandboxes.create(&sandbox).await?;
    }
    let names = |list: Vec<Sandbox>| list.iter().map(Sandbox::name_any).collect::<Vec<_>>();
    let all = sandboxes.list(&ListParams::default().limit(2)).await?;
    assert_eq!(names(all), ["s0", "s1", "s2", "s3", "s4"]);
    let odd = sandboxes.list(&ListParams::default().labels("odd=true")).await?;
    assert_eq!(names(odd), ["s1", "s3"]);
    assert!(sandboxes.in_namespace("elsewhere").list(&ListParams::default()).await?.is_empty());
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_is_there_and_then_what_changes() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    sandboxes.create(&sandbox("first")).await?;
    let mut events = pin!(sandboxes.watch(Config::default()));
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let event = tokio::time::timeout(SOON, events.try_next()).await??.context("a watch does not end")?;
        match event {
            Event::Init => {}
            Event::InitApply(sandbox) => seen.push(format!("there: {}", sandbox.name_any())),
            Event::InitDone => {
                sandboxes.create(&sandbox("second")).await?;
                sandboxes.suspend("second").await?;
                sandboxes.delete("first").await?;
            }
            Event::Apply(sandbox) => seen.push(format!("{}: {}", sandbox.name_any(), sandbox.operating_mode())),
            Event::Delete(sandbox) => seen.push(format!("gone: {}", sandbox.name_any())),
        }
    }
    assert_eq!(seen, ["there: first", "second: Running", "second: Suspended", "gone: first"]);
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn suspend_resume_and_expiry_change_just_their_fields() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let created = sandboxes.create(&sandbox("a")).await?;
    assert_eq!(*sandboxes.suspend("a").await?.operating_mode(), OperatingMode::Suspended);
    assert_eq!(*sandboxes.resume("a").await?.operating_mode(), OperatingMode::Running);
    let time: jiff::Timestamp = "2026-05-06T07:08:09.999Z".parse()?;
    let expiring = sandboxes.set_shutdown_time("a", Some(time)).await?;
    let written = serde_json::to_value(&expiring)?["spec"]["shutdownTime"].clone();
    assert_eq!(written, "2026-05-06T07:08:09Z", "times are cut to seconds");
    let cleared = sandboxes.set_shutdown_time("a", None).await?;
    assert_eq!(cleared.spec, created.spec);
    assert!(sandboxes.suspend("b").await.unwrap_err().is_not_found());
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_the_controller_reports_the_present_generation() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    sandboxes.create(&sandbox("a")).await?;
    let waiting = sandboxes.wait_ready("a", SOON);
    let reporting = async {
        report(cluster.client(), "a", conditions::READY, "True", "DependenciesReady", 0).await?;
        let waited = sandboxes.wait_ready("a", Duration::from_secs(1)).await;
        assert!(matches!(waited, Err(WaitError::TimedOut { .. })), "an old report does not count: {waited:?}");
        report(cluster.client(), "a", conditions::READY, "True", "DependenciesReady", 1).await
    };
    let (ready, reported) = tokio::join!(waiting, reporting);
    reported?;
    assert_eq!(ready?.condition(conditions::READY).map(|ready| ready.status.as_str()), Some("True"));
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn waiting_for_what_cannot_come_ends_at_once() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let waited = sandboxes.wait_ready("nobody", SOON).await;
    assert!(matches!(waited, Err(WaitError::Gone { .. })), "{waited:?}");
    for reason in ["PodFailed", "PodSucceeded", "SandboxExpired", "SandboxSuspended"] {
        let name = reason.to_lowercase();
        sandboxes.create(&sandbox(&name)).await?;
        report(cluster.client(), &name, conditions::READY, "False", reason, 1).await?;
        let waited = sandboxes.wait_ready(&name, SOON).await.unwrap_err();
        assert!(!waited.is_retryable());
        let text = format!("sandbox default/{name} will not become Ready: {reason}: as it says");
        assert_eq!(waited.to_string(), text);
    }
    let started = tokio::time::Instant::now();
    sandboxes.create(&sandbox("deleted")).await?;
    let (waited, deleted) = tokio::join!(sandboxes.wait_ready("deleted", SOON), sandboxes.delete("deleted"));
    deleted?;
    assert!(matches!(waited, Err(WaitError::Gone { .. })), "{waited:?}");
    assert!(started.elapsed() < SOON, "no deadline was waited for");
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_times_out_tells_what_keeps_the_sandbox() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    sandboxes.create(&sandbox("a")).await?;
    let silent = sandboxes.wait_ready("a", SOON).await.unwrap_err().to_string();
    assert_eq!(silent, "sandbox default/a was not Ready after 10s: the controller has said nothing about it");

    report(cluster.client(), "a", conditions::READY, "False", "DependenciesNotReady", 1).await?;
    let pods = Api::<Pod>::default_namespaced(cluster.client());
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "main", "image": "no/such:image"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let state = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
    let container = json!({"name": "main", "image": "no/such:image", "imageID": "", "ready": false, "restartCount": 0,
        "state": state});
    let status = Patch::Merge(json!({"status": {"phase": "Pending", "containerStatuses": [container]}}));
    pods.patch_status("a", &PatchParams::default(), &status).await?;
    let told = sandboxes.wait_ready("a", SOON).await.unwrap_err();
    assert!(told.is_retryable());
    assert_eq!(
        told.to_string(),
        "sandbox default/a was not Ready after 10s: DependenciesNotReady: as it says; \
         main: ImagePullBackOff: Back-off pulling image"
    );
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_command_needs_a_sandbox_and_a_pod() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let error = sandboxes.exec("nobody", ["true"]).await.unwrap_err();
    assert_eq!(error.to_string(), "the pod of sandbox default/nobody is not known");
    sandboxes.create(&sandbox("a")).await?;
    let error = sandboxes.exec("a", ["true"]).await.unwrap_err();
    assert_eq!(error.to_string(), "sandbox default/a has no pod a: is it suspended, expired, or not started yet?");
    let mut moved = sandbox("b");
    moved.annotations_mut().insert(agent_sandbox_sdk::keys::POD_NAME.into(), "pool-x7k2p".into());
    sandboxes.create(&moved).await?;
    let moved = sandboxes.exec("b", ["true"]).await.unwrap_err();
    assert_eq!(
        moved.to_string(),
        "sandbox default/b has no pod pool-x7k2p: is it suspended, expired, or not started yet?"
    );
    assert!(!error.is_retryable());
    cluster.shutdown().await;
    Ok(())
}

/// Another client may have written what we do not know: a read-modify-write must not lose it.
#[tokio::test(start_paused = true)]
async fn what_the_types_do_not_name_is_not_lost_by_a_suspend() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    let raw: Value = json!({"apiVersion": "agents.x-k8s.io/v1beta1", "kind": "Sandbox", "metadata": {"name": "a"},
        "spec": {"podTemplate": {"metadata": {}, "spec": {"hostnameOverride": "other",
            "containers": [{"name": "main", "image": "x", "resources": {"limits": {"cpu": 1}}}]}}}});
    let resource = kube::api::ApiResource::erase::<Sandbox>(&());
    let dynamic = Api::<kube::api::DynamicObject>::default_namespaced_with(cluster.client(), &resource);
    let created = dynamic.create(&PostParams::default(), &serde_json::from_value(raw)?).await?;
    sandboxes.suspend("a").await?;
    sandboxes.resume("a").await?;
    assert_eq!(dynamic.get("a").await?.data["spec"], created.data["spec"]);
    cluster.shutdown().await;
    Ok(())
}

/// The whole road with the controllers and a kubelet: a pool is filled, a claim is served from it, the pool refills.
#[tokio::test(start_paused = true)]
async fn a_claim_is_served_from_a_pool_that_is_scaled() -> Result<()> {
    let cluster = Cluster::builder().seed(1).start().await?;
    let client = AgentSandboxClient::new(cluster.client());
    let pod = sandbox("x").spec.pod_template;
    let template = SandboxTemplateSpec { pod_template: pod, ..Default::default() };
    client.templates().create(&SandboxTemplate::new("python", template)).await?;
    let sandbox_template_ref = SandboxTemplateRef { name: "python".into() };
    let pool = SandboxWarmPoolSpec { sandbox_template_ref, replicas: Some(1), ..Default::default() };
    client.warm_pools().create(&SandboxWarmPool::new("python", pool)).await?;
    client.warm_pools().wait_filled("python", LATER).await?;
    client.warm_pools().scale("python", 2).await?;
    let filled = client.warm_pools().wait_filled("python", LATER).await?;
    assert_eq!(filled.status.and_then(|status| status.ready_replicas), Some(2));

    let wish =
        |pool: &str| SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: pool.into() }, ..Default::default() };
    client.claims().create(&SandboxClaim::new("mine", wish("python"))).await?;
    let claim = client.claims().wait_ready("mine", LATER).await?;
    let name = claim.sandbox_name().context("a sandbox serves it")?;
    assert!(name.starts_with("python-"), "{name} is one of the pool");
    let output = client.exec(name, ["echo", "hello"]).await?;
    assert_eq!(output.stdout_text(), "hello\n");

    client.claims().create(&SandboxClaim::new("lost", wish("none"))).await?;
    let started = tokio::time::Instant::now();
    let error = client.claims().wait_ready("lost", LATER).await.unwrap_err();
    assert!(matches!(&error, WaitError::Ended { reason, .. } if reason == "WarmPoolNotFound"), "{error}");
    assert!(started.elapsed() < LATER);

    client.claims().delete("mine").await?;
    client.claims().wait_gone("mine", LATER).await?;
    client.wait_gone(name, LATER).await?;
    cluster.shutdown().await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_expiry_can_be_put_off_and_one_that_never_comes_stays_away() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    sandboxes.create(&sandbox("a")).await?;
    let hour = Duration::from_secs(3600);
    assert_eq!(sandboxes.extend_shutdown_time("a", hour).await?.spec.shutdown_time, None);
    let end: jiff::Timestamp = "2100-01-01T00:00:00Z".parse()?;
    sandboxes.set_shutdown_time("a", Some(end)).await?;
    let later = sandboxes.extend_shutdown_time("a", hour).await?.spec.shutdown_time;
    assert_eq!(later.map(|time| time.0.to_string()).as_deref(), Some("2100-01-01T01:00:00Z"));
    cluster.shutdown().await;
    Ok(())
}

/// P2-6, P2-7 of the predecessor: 404 and 409 went unnoticed, and pause, resume and patch were refused by the server.
#[tokio::test(start_paused = true)]
async fn missing_and_taken_are_told_apart_and_suspend_resume_and_patch_are_taken() -> Result<()> {
    let (cluster, sandboxes) = cluster().await?;
    assert!(!sandboxes.sandboxes().exists("a").await?);
    sandboxes.create(&sandbox("a")).await?;
    assert!(sandboxes.sandboxes().exists("a").await?);
    let taken = sandboxes.create(&sandbox("a")).await.unwrap_err();
    assert!(taken.is_already_exists() && !taken.is_not_found());
    let missing = sandboxes.suspend("b").await.unwrap_err();
    assert!(missing.is_not_found() && !missing.is_already_exists());
    assert_eq!(*sandboxes.suspend("a").await?.operating_mode(), OperatingMode::Suspended);
    assert_eq!(*sandboxes.resume("a").await?.operating_mode(), OperatingMode::Running);
    let annotated = sandboxes.sandboxes().patch("a", &json!({"metadata": {"annotations": {"why": "lunch"}}})).await?;
    assert_eq!(annotated.annotations().get("why").map(String::as_str), Some("lunch"));
    cluster.shutdown().await;
    Ok(())
}
