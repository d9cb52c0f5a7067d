//! The objects that a sandbox is on a cluster.

use std::{collections::BTreeMap, time::Duration};

use agent_sandbox_sdk::v1beta1::{
    NetworkPolicyManagement, PodMetadata, PodTemplate, Sandbox, SandboxClaim, SandboxClaimSpec, SandboxSpec,
    SandboxTemplate, SandboxTemplateRef, SandboxTemplateSpec, SandboxWarmPool, SandboxWarmPoolRef, SandboxWarmPoolSpec,
    ShutdownPolicy, VolumeClaimMetadata, VolumeClaimTemplate,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, PersistentVolumeClaimSpec, PodSpec},
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};
use serde_json::{Value, json};

use super::options::{KubernetesOptions, NetworkAccess, WarmPool, Workspace};
use crate::{Error, SandboxConfig, labels};

/// The one pool and its template.
pub(super) const POOL: &str = "agentpane-warm-pool";
pub(super) const TEMPLATE: &str = "agentpane-default";
/// The one network policy.
pub(super) const POLICY: &str = "agentpane-sandboxes";
/// The container, and so the one that commands are run in.
pub(super) const CONTAINER: &str = "sandbox";
/// The volume that is the workspace.
const VOLUME: &str = "workspace";

/// Ranges that are no public addresses: RFC 1918, link-local with the metadata service of clouds, and loopback.
const PRIVATE: [&str; 5] = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"];

type Pairs = BTreeMap<String, String>;

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Pairs {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The labels of the sandbox's objects and of its pod.
pub(super) fn labels(id: &str, project_id: &str) -> Pairs {
    let project = labels::label_value(project_id);
    let mut all = shared_labels();
    all.extend(pairs([(labels::SANDBOX_ID, id), (labels::PROJECT_ID, &project)]));
    all
}

fn shared_labels() -> Pairs {
    pairs([(labels::MANAGED, "true"), (labels::SANDBOX, "true")])
}

/// What the sandbox's object remembers for the application.
pub(super) fn annotations(config: &SandboxConfig, now: Timestamp) -> Pairs {
    pairs([
        (labels::PROJECT_ID, &config.project_id),
        (labels::IDLE_MINUTES, &config.idle_timeout_minutes.to_string()),
        (labels::MADE_AT, &now.to_string()),
        (labels::LAST_ACTIVITY, &now.to_string()),
    ])
}

/// When a sandbox without activity from `last` on expires.
pub(super) fn shutdown_time(idle_timeout: Duration, last: Timestamp) -> Option<Time> {
    let end = (!idle_timeout.is_zero()).then(|| last.checked_add(idle_timeout).unwrap_or(Timestamp::MAX));
    end.map(Time)
}

fn cores(cores: f64) -> String {
    // Thousandths are as fine as Kubernetes counts.
    format!("{}m", (cores * 1000.0).round().max(1.0))
}

/// What decides the shape of a pod.
struct Shape<'a> {
    image: &'a str,
    memory_mb: u32,
    cpu_cores: f64,
    config: Option<&'a SandboxConfig>,
    claimed: bool,
}

fn pod(shape: &Shape<'_>, options: &KubernetesOptions) -> PodSpec {
    let Shape { image, memory_mb, cpu_cores, config, claimed } = shape;
    let mut mounts = vec![json!({"name": VOLUME, "mountPath": labels::WORKSPACE})];
    // A claim's volume is added by the controller.
    let mut volumes: Vec<Value> = if *claimed { vec![] } else { vec![json!({"name": VOLUME, "emptyDir": {}})] };
    for (index, mount) in config.iter().flat_map(|config| &config.volume_mounts).enumerate() {
        let name = format!("volume-{index}");
        mounts.push(json!({"name": name, "mountPath": mount.container_path, "readOnly": mount.readonly}));
        volumes.push(json!({"name": name, "emptyDir": {}}));
    }
    let variables = config.iter().flat_map(|config| &config.env);
    let env: Vec<Value> = variables.map(|(name, value)| json!({"name": name, "value": value})).collect();
    let spec = json!({
        "automountServiceAccountToken": false,
        "runtimeClassName": options.runtime_class,
        "terminationGracePeriodSeconds": labels::STOP_GRACE.as_secs(),
        "securityContext": {
            "runAsNonRoot": true,
            "runAsUser": labels::USER,
            "runAsGroup": labels::USER,
            "fsGroup": labels::USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [{
            "name": CONTAINER,
            "image": image,
            "command": labels::KEEP_ALIVE,
            "workingDir": labels::WORKSPACE,
            "env": env,
            "resources": {
                "limits": {"memory": format!("{memory_mb}Mi"), "cpu": cores(*cpu_cores)},
                "requests": {"memory": format!("{}Mi", (memory_mb / 2).max(1)), "cpu": cores(cpu_cores / 2.0)},
            },
            "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": mounts,
        }],
        "volumes": volumes,
    });
    serde_json::from_value(spec).expect("a pod by construction")
}

fn claims(options: &KubernetesOptions) -> Option<Vec<VolumeClaimTemplate>> {
    let Workspace::Claim { size, storage_class } = &options.workspace else { return None };
    let spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": storage_class,
        "resources": {"requests": {"storage": size}},
    });
    let spec: PersistentVolumeClaimSpec = serde_json::from_value(spec).expect("a claim by construction");
    let metadata = VolumeClaimMetadata { name: Some(VOLUME.into()), labels: shared_labels(), ..Default::default() };
    Some(vec![VolumeClaimTemplate { metadata: Some(metadata), spec }])
}

/// The pod of a sandbox, with or without a claim for its workspace.
fn template(config: &SandboxConfig, options: &KubernetesOptions, id: &str, claimed: bool) -> PodTemplate {
    let SandboxConfig { image, memory_mb, cpu_cores, .. } = config;
    let shape = Shape { image, memory_mb: *memory_mb, cpu_cores: *cpu_cores, config: Some(config), claimed };
    let annotations = pairs([(labels::PROJECT_ID, &config.project_id)]);
    let metadata = PodMetadata { labels: labels(id, &config.project_id), annotations };
    PodTemplate { metadata: Some(metadata), spec: pod(&shape, options) }
}

/// A sandbox of its own.
pub(super) fn sandbox(config: &SandboxConfig, options: &KubernetesOptions, id: &str) -> Sandbox {
    let claims = claims(options);
    let spec = SandboxSpec {
        pod_template: template(config, options, id, claims.is_some()),
        volume_claim_templates: claims,
        ..Default::default()
    };
    let mut sandbox = Sandbox::new(&labels::name_of(&config.project_id), spec);
    describe(&mut sandbox, config, options, id);
    sandbox
}

/// Makes of a sandbox that is there what is asked for now; its volume claims cannot be changed.
pub(super) fn remake(sandbox: &mut Sandbox, config: &SandboxConfig, options: &KubernetesOptions, id: &str) {
    let claimed = sandbox.spec.volume_claim_templates.as_ref().is_some_and(|claims| !claims.is_empty());
    sandbox.spec.pod_template = template(config, options, id, claimed);
    sandbox.spec.operating_mode = None;
    sandbox.status = None;
    describe(sandbox, config, options, id);
}

fn describe(sandbox: &mut Sandbox, config: &SandboxConfig, options: &KubernetesOptions, id: &str) {
    let now = options.clock.now();
    sandbox.spec.shutdown_policy = Some(ShutdownPolicy::Retain);
    sandbox.spec.shutdown_time = first_shutdown(config, options, now);
    let metadata = &mut sandbox.metadata;
    metadata.labels.get_or_insert_default().extend(labels(id, &config.project_id));
    let noted = metadata.annotations.get_or_insert_default();
    noted.extend(annotations(config, now));
    noted.remove(labels::STOP_REASON);
}

/// The time until it is ready is no idleness.
pub(super) fn first_shutdown(config: &SandboxConfig, options: &KubernetesOptions, now: Timestamp) -> Option<Time> {
    let idle = Duration::from_secs(u64::from(config.idle_timeout_minutes) * 60);
    shutdown_time(idle, now.checked_add(options.ready_timeout).unwrap_or(Timestamp::MAX))
}

/// A wish for a sandbox of the pool.
pub(super) fn claim(config: &SandboxConfig, options: &KubernetesOptions, id: &str) -> SandboxClaim {
    let spec = SandboxClaimSpec { warm_pool_ref: SandboxWarmPoolRef { name: POOL.into() }, ..Default::default() };
    let mut claim = SandboxClaim::new(&labels::name_of(&config.project_id), spec);
    claim.metadata.labels = Some(labels(id, &config.project_id));
    claim.metadata.annotations = Some(annotations(config, options.clock.now()));
    claim
}

/// What the pool's sandboxes are made from. The policy is ours, for all sandboxes alike.
pub(super) fn pool_template(pool: &WarmPool, options: &KubernetesOptions) -> SandboxTemplate {
    let WarmPool { size: _, image, memory_mb, cpu_cores } = pool;
    let claims = claims(options);
    let claimed = claims.is_some();
    let shape = Shape { image, memory_mb: *memory_mb, cpu_cores: *cpu_cores, config: None, claimed };
    let metadata = PodMetadata { labels: shared_labels(), ..Default::default() };
    let spec = SandboxTemplateSpec {
        pod_template: PodTemplate { metadata: Some(metadata), spec: pod(&shape, options) },
        volume_claim_templates: claims,
        network_policy_management: Some(NetworkPolicyManagement::Unmanaged),
        ..Default::default()
    };
    let mut template = SandboxTemplate::new(TEMPLATE, spec);
    template.metadata.labels = Some(pairs([(labels::MANAGED, "true")]));
    template
}

pub(super) fn pool(pool: &WarmPool) -> SandboxWarmPool {
    let spec = SandboxWarmPoolSpec {
        replicas: Some(i32::try_from(pool.size).unwrap_or(i32::MAX)),
        sandbox_template_ref: SandboxTemplateRef { name: TEMPLATE.into() },
        ..Default::default()
    };
    let mut pool = SandboxWarmPool::new(POOL, spec);
    pool.metadata.labels = Some(pairs([(labels::MANAGED, "true")]));
    pool
}

/// The namespace, which takes none but restricted pods.
pub(super) fn namespace(name: &str) -> Namespace {
    let mut labels = pairs([(labels::MANAGED, "true")]);
    for mode in ["enforce", "warn", "audit"] {
        labels.insert(format!("pod-security.kubernetes.io/{mode}"), "restricted".into());
    }
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.into());
    namespace.metadata.labels = Some(labels);
    namespace
}

/// The policy of all sandboxes, warm ones too: nobody gets in, and out goes what is allowed.
pub(super) fn network_policy(access: &NetworkAccess) -> Result<NetworkPolicy, Error> {
    let tcp = |port: u16| json!({"protocol": "TCP", "port": port});
    let public =
        |port: u16| json!({"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": PRIVATE}}], "ports": [tcp(port)]});
    let mut egress = Vec::new();
    if access.dns {
        let dns = json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}});
        egress.push(json!({"to": [dns], "ports": [{"protocol": "UDP", "port": 53}, tcp(53)]}));
    }
    let open = [(access.https, 443), (access.http, 80), (access.ssh, 22)];
    egress.extend(open.into_iter().filter(|(open, _)| *open).map(|(_, port)| public(port)));
    for block in access.blocks()? {
        egress.push(json!({"to": [{"ipBlock": {"cidr": block}}], "ports": [tcp(443), tcp(80)]}));
    }
    let policy = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": POLICY, "labels": {labels::MANAGED: "true", "agentpane.io/policy-type": "default"}},
        "spec": {
            "podSelector": {"matchLabels": {labels::SANDBOX: "true"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [],
            "egress": egress,
        },
    });
    Ok(serde_json::from_value(policy).expect("a policy by construction"))
}
