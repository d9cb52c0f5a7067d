//! The Kubernetes provider on a simulated cluster.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_sandbox_provider::{
    AgentSandboxProvider, CleanupFilter, Clock, Code, ExecOptions, KubernetesOptions, NetworkAccess, SandboxConfig,
    SandboxEvent, SandboxProvider, SandboxStatus, StopReason, VolumeMount, WarmPool,
};
use agent_sandbox_sdk::{
    kubeconfig::{ConnectOptions, Environment},
    v1beta1::{Sandbox as SandboxObject, SandboxClaim, SandboxClaimSpec, SandboxWarmPool, SandboxWarmPoolRef},
};
use anyhow::{Context, Result};
use fake_apiserver::{
    cluster::{Cluster, ClusterBuilder},
    kubelet::{RealRuntime, Script},
};
use k8s_openapi::api::{
    admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
    core::v1::{Namespace, PersistentVolumeClaim, Pod, ResourceQuota},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use crate::contract::{SOON, World, behaviours, reaches};

/// A registry that has nothing.
const NOWHERE: &str = "registry.invalid/";

/// A cluster that knows of an image that is nowhere.
pub(crate) fn cluster() -> ClusterBuilder {
    let error = "rpc error: code = NotFound desc = failed to pull and unpack image: not found";
    let absent = Script { pull_error: Some(error.into()), ..Script::default() };
    Cluster::builder().seed(1).image(&format!("{NOWHERE}*"), absent)
}

/// Options for the cluster: its own time.
pub(crate) fn options(cluster: &Cluster) -> KubernetesOptions {
    let clock = cluster.clock().clone();
    KubernetesOptions { clock: Clock::of(move || clock.now()), ..KubernetesOptions::default() }
}

pub(crate) fn world_of(
    client: impl Fn() -> Client + Send + Sync + 'static,
    options: KubernetesOptions,
) -> Result<World> {
    let application = move || {
        let provider = AgentSandboxProvider::new(client(), options.clone()).expect("good options");
        Arc::new(provider) as Arc<dyn SandboxProvider>
    };
    Ok(World {
        application: Box::new(application),
        projects: tempfile::tempdir()?,
        image: "busybox:1.36".into(),
        absent_image: format!("{NOWHERE}nothing:1"),
        has_signals: false,
    })
}

async fn memory() -> Result<(World, Cluster)> {
    let cluster = cluster().start().await?;
    let client = cluster.client();
    Ok((world_of(move || client.clone(), options(&cluster))?, cluster))
}

behaviours!(memory);

#[tokio::test(start_paused = true)]
async fn the_suite_passes_in_memory() -> Result<()> {
    let (world, _cluster) = memory().await?;
    all(&world).await
}

/// Over TLS, with a client certificate, as a kubeconfig gives it; in real time, and in real processes where the machine can
/// have them: signals reach those, and what is told to end ends at once.
#[tokio::test]
async fn the_suite_passes_over_https() -> Result<()> {
    let are_real = RealRuntime::default().check().inspect_err(|why| eprintln!("simulated processes: {why}")).is_ok();
    let cluster = cluster().system_time().real_processes(are_real).start().await?;
    let access = cluster.serve_https("127.0.0.1:0".parse()?).await?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config"), access.render())?;
    let connect = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..ConnectOptions::default() };
    let client = connect.find(&Environment::default())?.connect().await?;
    let mut world = world_of(move || client.clone(), KubernetesOptions { connect, ..options(&cluster) })?;
    world.has_signals = are_real;
    all(&world).await
}

/// With a cluster and an image for it, `K8S_E2E_IMAGE=…` runs the suite on the current context.
#[tokio::test]
async fn the_suite_passes_on_a_real_cluster() -> Result<()> {
    let Ok(image) = std::env::var("K8S_E2E_IMAGE") else {
        eprintln!("skipped: set K8S_E2E_IMAGE to an image with a shell to run on the kubeconfig's cluster");
        return Ok(());
    };
    let client = ConnectOptions::default().find(&Environment::of_process())?.connect().await?;
    let mut world = world_of(move || client.clone(), KubernetesOptions::default())?;
    (world.image, world.has_signals) = (image, true);
    all(&world).await
}

/// A provider, the cluster under it, and a project's sandbox.
async fn one(change: impl FnOnce(&mut KubernetesOptions)) -> Result<(Cluster, AgentSandboxProvider, SandboxConfig)> {
    let cluster = cluster().start().await?;
    let mut options = options(&cluster);
    change(&mut options);
    let provider = AgentSandboxProvider::new(cluster.client(), options)?;
    let config = SandboxConfig { image: "busybox:1.36".into(), ..SandboxConfig::new("proj-1", "/home/me/proj") };
    Ok((cluster, provider, config))
}

const NAMESPACE: &str = "agentpane-sandboxes";

fn api<K>(cluster: &Cluster) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cluster.client(), NAMESPACE)
}

async fn eventually<T, F: Future<Output = Result<Option<T>>>>(what: &str, look: impl Fn() -> F) -> Result<T> {
    let found = tokio::time::timeout(SOON, async {
        loop {
            if let Some(found) = look().await? {
                return Ok::<_, anyhow::Error>(found);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    found.await.with_context(|| what.to_owned())?
}

/// P2-8, P2-9, P2-10, P2-11 and P2-17: the predecessor's pods ended at once, were refused by its own namespace, had no
/// workspace and no environment, and no policy selected them; the namespace it never made.
#[tokio::test(start_paused = true)]
async fn a_pod_keeps_running_is_restricted_has_its_workspace_and_is_selected_by_the_policy() -> Result<()> {
    let (cluster, provider, mut config) = one(|options| options.runtime_class = Some("gvisor".into())).await?;
    config.env.insert("LANG".into(), "C.UTF-8".into());
    config.cpu_cores = 1.5;
    config.volume_mounts.push(VolumeMount {
        host_path: "/home/me/cache".into(),
        container_path: "/cache".into(),
        readonly: false,
    });
    let sandbox = provider.create(&config).await?;
    let namespace = Api::<Namespace>::all(cluster.client()).get(NAMESPACE).await?;
    assert_eq!(namespace.labels()["pod-security.kubernetes.io/enforce"], "restricted");
    let object = api::<SandboxObject>(&cluster).get(&sandbox.container_id()).await?;
    let pod = api::<Pod>(&cluster).get(object.pod_name().context("its pod")?).await?;
    for labels in [object.labels(), pod.labels()] {
        assert_eq!(labels["agentpane.io/sandbox-id"], sandbox.id());
        assert_eq!(labels["agentpane.io/project-id"], "proj-1");
        assert_eq!(
            (labels["agentpane.io/managed"].as_str(), labels["agentpane.io/sandbox"].as_str()),
            ("true", "true")
        );
    }
    let spec = serde_json::to_value(pod.spec.context("a spec")?)?;
    let container = &spec["containers"][0];
    assert_eq!(container["command"], json!(["tail", "-f", "/dev/null"]));
    assert_eq!((&container["name"], &container["workingDir"]), (&json!("sandbox"), &json!("/workspace")));
    assert_eq!(container["env"], json!([{"name": "LANG", "value": "C.UTF-8"}]));
    let limits = json!({"memory": "4Gi", "cpu": "1500m"});
    let requests = json!({"memory": "2Gi", "cpu": "750m"});
    let size = |found: &Value| (found["cpu"].clone(), found["memory"] == "4096Mi" || found["memory"] == "4Gi");
    assert_eq!(size(&container["resources"]["limits"]), size(&limits));
    assert_eq!(container["resources"]["requests"]["cpu"], requests["cpu"]);
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["runtimeClassName"], "gvisor");
    let claim = format!("workspace-{}", sandbox.container_id());
    let volumes = spec["volumes"].as_array().context("volumes")?;
    assert!(volumes.iter().any(|volume| volume["persistentVolumeClaim"]["claimName"] == *claim), "{volumes:?}");
    assert!(api::<PersistentVolumeClaim>(&cluster).get_opt(&claim).await?.is_some());

    let policy = api::<NetworkPolicy>(&cluster).get("agentpane-sandboxes").await?;
    let policy = serde_json::to_value(policy.spec)?;
    assert_eq!(policy["podSelector"]["matchLabels"], json!({"agentpane.io/sandbox": "true"}));
    let ports: Vec<_> =
        policy["egress"].as_array().context("rules")?.iter().map(|rule| &rule["ports"][0]["port"]).collect();
    assert_eq!(ports, [53, 443, 22]);
    assert!(policy["egress"].to_string().contains("169.254.0.0/16"), "the metadata service of clouds is closed");
    Ok(())
}

/// A.7: the predecessor's policies outlived the option that had made them.
#[tokio::test(start_paused = true)]
async fn a_policy_goes_with_its_option_and_changes_with_it() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    provider.create(&config).await?.stop(StopReason::Manual).await?;
    let mut options = options(&cluster);
    options.network = Some(NetworkAccess { allowed_hosts: vec!["fd00::1".into()], ssh: false, ..Default::default() });
    let changed = AgentSandboxProvider::new(cluster.client(), options.clone())?;
    changed.create(&config).await?.stop(StopReason::Manual).await?;
    let policy = serde_json::to_string(&api::<NetworkPolicy>(&cluster).get("agentpane-sandboxes").await?.spec)?;
    assert!(policy.contains("fd00::1/128") && !policy.contains("22"), "{policy}");
    options.network = None;
    AgentSandboxProvider::new(cluster.client(), options.clone())?.create(&config).await?;
    assert!(api::<NetworkPolicy>(&cluster).get_opt("agentpane-sandboxes").await?.is_none());
    options.network = Some(NetworkAccess { allowed_hosts: vec!["github.com".into()], ..Default::default() });
    let error = AgentSandboxProvider::new(cluster.client(), options).err().context("a host name")?;
    assert_eq!(error.code(), Code::NetworkPolicyCreationFailed);
    Ok(())
}

/// P2-12: the predecessor's pool was never claimed from.
#[tokio::test(start_paused = true)]
async fn a_sandbox_comes_from_the_pool_and_the_pool_is_filled_again() -> Result<()> {
    let pool = WarmPool { size: 1, image: "busybox:1.36".into(), ..WarmPool::default() };
    let (cluster, provider, config) = one(|options| options.warm_pool = Some(pool.clone())).await?;
    let filled = || async {
        let pool = api::<SandboxWarmPool>(&cluster).get_opt("agentpane-warm-pool").await?;
        let ready = pool.and_then(|pool| pool.status?.ready_replicas).unwrap_or(0);
        Ok((ready == 1).then_some(()))
    };
    eventually("the pool is filled", filled).await?;
    let started = tokio::time::Instant::now();
    let sandbox = provider.create(&config).await?;
    assert!(started.elapsed() < Duration::from_secs(1), "a warm one is there at once: {:?}", started.elapsed());
    assert!(sandbox.container_id().starts_with("agentpane-warm-pool-"), "{}", sandbox.container_id());
    assert_eq!(sandbox.exec(ExecOptions::new("pwd", [""; 0])).await?.stdout, "/workspace");
    let pod = api::<Pod>(&cluster).get(&sandbox.container_id()).await?;
    assert_eq!(pod.labels()["agentpane.io/sandbox-id"], sandbox.id());
    eventually("the pool is filled again", filled).await?;

    // Another application finds it, stops it, and makes it again on its workspace.
    let other = AgentSandboxProvider::new(cluster.client(), options(&cluster))?;
    let found = other.get("proj-1").await?.context("by project")?;
    found.exec(ExecOptions::new("sh", ["-c", "echo kept > /workspace/file"])).await?;
    found.stop(StopReason::Manual).await?;
    let again = provider.create(&config).await?;
    assert_eq!(again.container_id(), sandbox.container_id());
    assert_eq!(again.exec(ExecOptions::new("cat", ["/workspace/file"])).await?.stdout, "kept");
    again.stop(StopReason::Manual).await?;
    assert_eq!(provider.cleanup(&CleanupFilter::default()).await?, 1);
    assert!(api::<SandboxClaim>(&cluster).list(&ListParams::default()).await?.items.is_empty());

    // Who wants something of his own gets a sandbox of his own.
    let own = provider.create(&SandboxConfig { memory_mb: 512, ..config }).await?;
    assert!(own.container_id().starts_with("sandbox-proj-1-"));
    Ok(())
}

/// A claim that an application left when it died in the middle is in nobody's way for ever.
#[tokio::test(start_paused = true)]
async fn a_claim_that_was_left_half_made_is_cleared_away_after_a_while() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: "gone".into() }, ..Default::default() };
    let sandbox = provider.create(&config).await?;
    let mut claim = SandboxClaim::new(&sandbox.container_id(), spec);
    sandbox.stop(StopReason::Manual).await?;
    provider.cleanup(&CleanupFilter::default()).await?;
    let made = cluster.clock().now().to_string();
    claim.metadata.annotations = Some([("agentpane.io/made-at".to_owned(), made)].into());
    api::<SandboxClaim>(&cluster).create(&PostParams::default(), &claim).await?;
    let error = provider.create(&config).await.err().context("somebody may wait with it")?;
    assert_eq!(error.code(), Code::PodAlreadyExists, "{error}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(provider.create(&config).await?.status(), SandboxStatus::Running);
    Ok(())
}

/// P2-4 and P2-5: a lost connection is an error of its own, and ends both outputs.
#[tokio::test]
async fn a_connection_that_is_lost_ends_the_outputs_and_the_wait() -> Result<()> {
    let cluster = cluster().system_time().start().await?;
    let mut access = cluster.serve_https("127.0.0.1:0".parse()?).await?;
    let door: std::net::SocketAddr = access.server.trim_start_matches("https://").parse()?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    access.server = format!("https://{}", listener.local_addr()?);
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("config"), access.render())?;
    let wire = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut ours, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut theirs = tokio::net::TcpStream::connect(door).await?;
                tokio::io::copy_bidirectional(&mut ours, &mut theirs).await
            });
        }
    });
    let connect = ConnectOptions { kubeconfig: Some(folder.path().join("config")), ..ConnectOptions::default() };
    let provider = AgentSandboxProvider::connect(KubernetesOptions { connect, ..options(&cluster) }).await?;
    let config = SandboxConfig { image: "busybox:1.36".into(), ..SandboxConfig::new("proj-1", "/home/me/proj") };
    let sandbox = provider.create(&config).await?;
    let mut stream = sandbox.exec_stream(ExecOptions::new("sh", ["-c", "echo begun; sleep 1000"])).await?;
    let mut begun = [0; 6];
    stream.stdout.read_exact(&mut begun).await?;
    wire.abort();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let ends = async { tokio::try_join!(stream.stdout.read_to_end(&mut out), stream.stderr.read_to_end(&mut err)) };
    tokio::time::timeout(SOON, ends).await.context("the outputs have not ended")??;
    let error = tokio::time::timeout(SOON, stream.handle.wait()).await?.err().context("its end is not known")?;
    assert_eq!((error.code(), error.status()), (Code::ExecConnectionFailed, 503), "{error}");
    let error = sandbox.exec(ExecOptions::new("true", [""; 0])).await.err().context("nobody answers")?;
    assert!(matches!(error.code(), Code::ExecConnectionFailed | Code::ClusterUnreachable), "{:?}", error.code());
    let health = provider.health_check().await;
    assert!(!health.healthy && health.rows[0].name == "cluster" && health.rows[0].advice.is_some(), "{health:?}");
    Ok(())
}

/// P2-14: what happens on the cluster is seen above.
#[tokio::test(start_paused = true)]
async fn a_sandbox_that_somebody_deletes_or_suspends_is_noticed() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    let sandbox = provider.create(&config).await?;
    let mut events = provider.events();
    let objects = api::<SandboxObject>(&cluster);
    let suspend = Patch::Merge(json!({"spec": {"operatingMode": "Suspended"}}));
    objects.patch(&sandbox.container_id(), &PatchParams::default(), &suspend).await?;
    reaches(&*sandbox, SandboxStatus::Stopped).await?;
    let resume = Patch::Merge(json!({"spec": {"operatingMode": "Running"}}));
    objects.patch(&sandbox.container_id(), &PatchParams::default(), &resume).await?;
    reaches(&*sandbox, SandboxStatus::Running).await?;
    objects.delete(&sandbox.container_id(), &DeleteParams::default()).await?;
    reaches(&*sandbox, SandboxStatus::Stopped).await?;
    assert!(provider.get("proj-1").await?.is_none());
    let mut told = Vec::new();
    while told.last().map(String::as_str) != Some("sandbox:stopped") || told.len() < 4 {
        let event = tokio::time::timeout(SOON, events.recv()).await??;
        told.push(serde_json::to_value(event)?["type"].as_str().unwrap_or_default().to_owned());
    }
    told.retain(|event| event != "sandbox:starting");
    assert_eq!(told, ["sandbox:stopping", "sandbox:stopped", "sandbox:started", "sandbox:stopped"]);
    Ok(())
}

/// P2-14 and A.10: a pod that fails is a sandbox that failed, and can be made again on its workspace.
#[tokio::test(start_paused = true)]
async fn a_pod_that_the_kubelet_ends_is_a_failed_sandbox_that_can_be_made_again() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    let sandbox = provider.create(&config).await?;
    sandbox.exec(ExecOptions::new("sh", ["-c", "echo kept > /workspace/file"])).await?;
    let mut events = provider.events();
    // The kubelet ends it, as it does when it evicts: for good.
    let deadline = Patch::Merge(json!({"spec": {"activeDeadlineSeconds": 1}}));
    api::<Pod>(&cluster).patch(&sandbox.container_id(), &PatchParams::default(), &deadline).await?;
    reaches(&*sandbox, SandboxStatus::Error).await?;
    let event = tokio::time::timeout(SOON, events.recv()).await??;
    assert!(matches!(&event, SandboxEvent::Error { code, .. } if code == "K8S_POD_NOT_RUNNING"), "{event:?}");
    let again = provider.create(&config).await?;
    assert_eq!(again.exec(ExecOptions::new("cat", ["/workspace/file"])).await?.stdout, "kept");
    Ok(())
}

/// P2-16: the predecessor's time to live counted from the end, not from the last use, and nobody minded idle sandboxes.
#[tokio::test(start_paused = true)]
async fn an_idle_sandbox_is_shut_down_keeps_its_workspace_and_a_used_one_goes_on() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    let config = SandboxConfig { idle_timeout_minutes: 5, ..config };
    let (idle, busy) = (provider.create(&config).await?, {
        let config = SandboxConfig { project_id: "proj-2".into(), ..config.clone() };
        provider.create(&config).await?
    });
    idle.exec(ExecOptions::new("sh", ["-c", "echo kept > /workspace/file"])).await?;
    let running = busy.exec_stream(ExecOptions::new("sleep", ["3000"])).await?;
    let mut events = provider.events();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        idle.touch();
    }
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(idle.status(), SandboxStatus::Running, "it was used less than five minutes ago");
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(idle.status(), SandboxStatus::Idle);
    let event = tokio::time::timeout(SOON, events.recv()).await??;
    assert!(matches!(&event, SandboxEvent::Idle { sandbox_id, .. } if sandbox_id == idle.id()), "{event:?}");
    assert_eq!(busy.status(), SandboxStatus::Running, "a command runs in it");
    // The cluster itself remembers when it was used.
    let other = AgentSandboxProvider::new(cluster.client(), options(&cluster))?;
    let seen = other.get_by_id(idle.id()).await?.context("by id")?;
    let late = idle.last_activity().duration_since(seen.last_activity()).as_secs().abs();
    assert!(seen.status() == SandboxStatus::Idle && late < 30, "{late}");
    let again = provider.create(&config).await?;
    assert_eq!(again.exec(ExecOptions::new("cat", ["/workspace/file"])).await?.stdout, "kept");
    running.handle.kill().await?;
    Ok(())
}

/// P2-15: what did not become ready was left; and an error that says why.
#[tokio::test(start_paused = true)]
async fn what_a_cluster_has_no_room_for_is_refused_and_taken_back() -> Result<()> {
    let (cluster, provider, config) = one(|_| {}).await?;
    let huge = SandboxConfig { cpu_cores: 900.0, ..config.clone() };
    let started = tokio::time::Instant::now();
    let error = provider.create(&huge).await.err().context("no node has 900 cores")?;
    assert_eq!(error.code(), Code::InsufficientResources, "{error}");
    assert!(started.elapsed() < Duration::from_secs(60), "not after all of the time: {:?}", started.elapsed());
    let objects = api::<SandboxObject>(&cluster);
    eventually("nothing is left", || async {
        Ok(objects.list(&ListParams::default()).await?.items.is_empty().then_some(()))
    })
    .await?;

    // A namespace that forbids what is asked for says so at once.
    let namespaces = Api::<Namespace>::all(cluster.client());
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}});
    api::<ResourceQuota>(&cluster).create(&PostParams::default(), &serde_json::from_value(quota)?).await?;
    let counted = || async {
        let quota = api::<ResourceQuota>(&cluster).get("q").await?;
        Ok(quota.status.and_then(|status| status.hard).map(|_| ()))
    };
    eventually("the quota is known", counted).await?;
    let error = provider.create(&config).await.err().context("no pod is allowed")?;
    assert_eq!(error.code(), Code::InsufficientResources, "{error}");
    assert!(error.message().contains("exceeded quota"), "{error}");
    namespaces.delete(NAMESPACE, &DeleteParams::default()).await?;
    Ok(())
}

/// P2-9, and A.15: a violation has a code of its own, and comes at once.
#[tokio::test(start_paused = true)]
async fn a_pod_that_its_namespace_forbids_is_a_security_violation() -> Result<()> {
    let (cluster, provider, config) = one(|options| options.create_namespace = false).await?;
    let error = provider.create(&config).await.err().context("no namespace")?;
    assert_eq!((error.code(), error.status()), (Code::NamespaceNotFound, 404), "{error}");
    let rule = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "none"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
            }]},
            "validations": [{"expression": "false", "message": "violates PodSecurity \"restricted:latest\": test"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "none"},
        "spec": {"policyName": "none", "validationActions": ["Deny"]},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    Api::<Namespace>::all(cluster.client()).create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let policies = Api::<ValidatingAdmissionPolicy>::all(cluster.client());
    policies.create(&PostParams::default(), &serde_json::from_value(rule)?).await?;
    let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(cluster.client());
    bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
    let error = provider.create(&config).await.err().context("it is forbidden")?;
    assert_eq!((error.code(), error.status()), (Code::PodSecurityViolation, 400), "{error}");
    Ok(())
}

/// P2-18 and P2-17: what is missing is said, with what to do.
#[tokio::test(start_paused = true)]
async fn a_cluster_without_agent_sandbox_is_not_healthy_and_says_what_to_do() -> Result<()> {
    let cluster = Cluster::builder().seed(1).sandbox_controllers(false).start().await?;
    let provider = AgentSandboxProvider::new(cluster.client(), options(&cluster))?;
    let health = provider.health_check().await;
    assert!(!health.healthy);
    let row = |name: &str| health.rows.iter().find(|row| row.name == name && !row.ok);
    let crds = row("crds").context("no definitions")?;
    assert!(crds.advice.as_ref().is_some_and(|advice| advice.contains("apply")), "{crds:?}");
    assert!(row("controller").is_some() && row("namespace").is_none(), "{health:#?}");
    let config = SandboxConfig::new("proj-1", "/home/me/proj");
    let error = provider.create(&config).await.err().context("nothing to make it of")?;
    assert_eq!((error.code(), error.status()), (Code::ProviderNotAvailable, 503), "{error}");
    Ok(())
}

/// P2-22: the predecessor stopped checking certificates when its settings were saved.
#[test]
fn certificates_are_checked_unless_somebody_says_otherwise() {
    assert!(!KubernetesOptions::default().connect.skip_tls_verify);
}

/// A kubeconfig that is not there, and one without the context.
#[tokio::test]
async fn where_a_cluster_is_looked_for_in_vain_is_said() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config");
    let connect = |context: Option<&str>| {
        let connect = ConnectOptions {
            kubeconfig: Some(path.clone()),
            context: context.map(str::to_owned),
            ..ConnectOptions::default()
        };
        AgentSandboxProvider::connect(KubernetesOptions { connect, ..KubernetesOptions::default() })
    };
    let error = connect(None).await.err().context("no file")?;
    assert_eq!((error.code(), error.details()["path"].as_str()), (Code::KubeconfigNotFound, path.to_str()));
    std::fs::write(&path, "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts: []\n")?;
    assert_eq!(connect(Some("b")).await.err().context("no context")?.code(), Code::ContextNotFound);
    std::fs::write(&path, "{ token: s3cr3t")?;
    let error = connect(None).await.err().context("no YAML")?;
    assert!(error.code() == Code::KubeconfigInvalid && !format!("{error:?}").contains("s3cr3t"), "{error:?}");
    Ok(())
}

/// Nothing of the environment or the input of a command is in an address, where servers and proxies log it.
#[tokio::test(start_paused = true)]
async fn no_secret_is_in_an_address() -> Result<()> {
    let cluster = cluster().start().await?;
    let (inner, seen) = (cluster.client(), Arc::new(Mutex::new(Vec::new())));
    let noted = seen.clone();
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        noted.lock().expect("no panic under this lock").push(request.uri().to_string());
        let inner = inner.clone();
        async move { inner.send(request).await }
    });
    let provider = AgentSandboxProvider::new(Client::new(service, "default"), options(&cluster))?;
    let sandbox = provider.create(&SandboxConfig::new("proj-1", "/home/me/proj")).await?;
    let mut options = ExecOptions::new("sh", ["-c", "cat; echo $TOKEN"]);
    options.env.insert("TOKEN".into(), "s3cr3t".into());
    options.stdin = Some("pr0mpt ".into());
    assert_eq!(sandbox.exec(options).await?.stdout, "pr0mpt s3cr3t");
    let seen = seen.lock().expect("no panic under this lock").join("\n");
    assert!(seen.contains("/exec?") && !seen.contains("s3cr3t") && !seen.contains("pr0mpt"), "{seen}");
    Ok(())
}

/// How long a sandbox takes until it is usable, in the cluster's time and in ours: with `--nocapture`.
#[tokio::test(start_paused = true)]
async fn a_warm_sandbox_is_usable_sooner_than_a_cold_one() -> Result<()> {
    let pool = WarmPool { size: 1, image: "busybox:1.36".into(), ..WarmPool::default() };
    let (cluster, provider, config) = one(|options| options.warm_pool = Some(pool)).await?;
    let filled = || async {
        let pool = api::<SandboxWarmPool>(&cluster).get_opt("agentpane-warm-pool").await?;
        Ok((pool.and_then(|pool| pool.status?.ready_replicas) == Some(1)).then_some(()))
    };
    eventually("the pool is filled", filled).await?;
    let mut took = Vec::new();
    for config in [config.clone(), SandboxConfig { project_id: "cold".into(), memory_mb: 512, ..config }] {
        let (virtually, really) = (tokio::time::Instant::now(), std::time::Instant::now());
        provider.create(&config).await?.exec(ExecOptions::new("true", [""; 0])).await?;
        eprintln!(
            "{}: {:?} of the cluster's time, {:?} of ours",
            config.project_id,
            virtually.elapsed(),
            really.elapsed()
        );
        took.push(virtually.elapsed());
    }
    assert!(took[0] < took[1], "{took:?}");
    Ok(())
}
