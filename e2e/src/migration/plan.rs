//! What each pod of Phase 1 would become, and what would not be as it was.

use std::collections::{BTreeMap, BTreeSet};

use agent_sandbox_sdk::v1beta1::{
    PodMetadata, PodTemplate, Sandbox, SandboxSpec, ShutdownPolicy, VolumeClaimMetadata, VolumeClaimTemplate,
};
use anyhow::Result;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodSpec, Toleration, Volume};
use kube::{
    Api, Client, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use serde_json::Value;

use super::{
    differences::{Difference, differences},
    inventory::{Class, Inventory, PROJECT_ID, SANDBOX, SANDBOX_ID},
};

/// The pod that a Sandbox has taken over from, on the Sandbox.
pub(super) const FROM_POD: &str = "agentpane.io/phase1-pod";
/// Lets a Sandbox adopt a claim that is nobody's; the controller asks for it.
pub const ADOPTABLE: &str = "agents.x-k8s.io/adoptable";

const MANAGED: &str = "agentpane.io/managed";
/// The volume that is the workspace, in both phases.
const VOLUME: &str = "workspace";
/// The default of Phase 2's provider: who works on may not be cut off for idleness by the move.
const NEVER_IDLE: &str = "0";

/// A pod that becomes a Sandbox.
#[derive(Clone, Debug)]
pub struct Move {
    /// The pod.
    pub pod: String,
    /// The Sandbox that takes over, under the name of the sandbox's id: so its claim for the volume `workspace` is the very
    /// one that the pod has.
    pub sandbox: Sandbox,
    /// The claim that holds the workspace.
    pub claim: Option<String>,
    /// What would not be as it was.
    pub differences: Vec<Difference>,
    /// What somebody has to decide before.
    pub decisions: Vec<String>,
}

/// What would become of everything.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The namespace.
    pub namespace: String,
    /// Pods that become Sandboxes.
    pub moves: Vec<Move>,
    /// Pods of the warm pool, which a SandboxWarmPool takes the place of.
    pub warm: Vec<String>,
    /// Sandboxes that have taken over already, and what is wrong with them.
    pub moved: Vec<(String, Vec<String>)>,
    /// Other things that somebody has to decide: what, and why.
    pub loose: Vec<(String, String)>,
    /// Pods that are none of the move's business.
    pub foreign: Vec<String>,
}

impl Plan {
    /// Makes it. The server is asked what it would make of the new objects; nothing is changed.
    ///
    /// # Errors
    /// If something cannot be read.
    pub async fn make(client: &Client, namespace: &str) -> Result<Self> {
        let there = Inventory::read(client, namespace).await?;
        let mut plan = Self::of(&there);
        plan.namespace = namespace.to_owned();
        for one in &mut plan.moves {
            let before = there.of(Class::Sandbox).find(|pod| pod.name_any() == one.pod);
            one.ask(client, namespace, before.unwrap_or(&Pod::default())).await;
        }
        Ok(plan)
    }

    /// What can be told from what is there.
    pub fn of(there: &Inventory) -> Self {
        let names = |class| there.of(class).map(ResourceExt::name_any).collect::<Vec<_>>();
        let mut plan = Self { warm: names(Class::WarmIdle), foreign: names(Class::Foreign), ..Self::default() };
        let mut projects: BTreeMap<&str, usize> = BTreeMap::new();
        for pod in there.of(Class::Sandbox) {
            *projects.entry(label(pod, PROJECT_ID)).or_default() += 1;
        }
        for pod in there.of(Class::Sandbox) {
            let mut one = Move::of(pod, there);
            if projects.get(label(pod, PROJECT_ID)).is_some_and(|count| *count > 1) {
                one.decisions.push("its project has another pod; a project has one sandbox, so choose".into());
            }
            plan.moves.push(one);
        }
        for name in names(Class::WarmAllocated) {
            let why = "a project has taken it from the warm pool: its files are in the pod alone, so copy them or let them go";
            plan.loose.push((format!("pod {name}"), why.into()));
        }
        for name in names(Class::Anomalous) {
            let why = format!("it lacks the label {SANDBOX_ID} or {PROJECT_ID}, so it is nobody's; label or delete it");
            plan.loose.push((format!("pod {name}"), why));
        }
        let used: BTreeSet<&str> = there.pods.iter().flat_map(|(_, pod)| claims_of(pod)).collect();
        for (name, claim) in &there.claims {
            let is_ours = claim.labels().contains_key(SANDBOX_ID) && claim.owner_references().is_empty();
            if is_ours && !used.contains(name.as_str()) {
                let why = "no pod has it, and it may hold the only copy of somebody's work; keep or delete it";
                plan.loose.push((format!("claim {name}"), why.into()));
            }
        }
        for policy in &there.policies {
            if let Some(id) = policy.labels().get(SANDBOX_ID)
                && !there.pods.iter().any(|(_, pod)| label(pod, SANDBOX_ID) == id)
            {
                plan.loose.push((format!("policy {}", policy.name_any()), "its sandbox is gone; delete it".into()));
            }
        }
        for sandbox in there.sandboxes.values().filter(|sandbox| sandbox.annotations().contains_key(FROM_POD)) {
            plan.moved.push((sandbox.name_any(), wrong(sandbox, there)));
        }
        plan
    }

    /// Whether nothing stands in the way of moving all of it.
    pub fn is_clear(&self) -> bool {
        self.loose.is_empty()
            && self.moves.iter().all(|one| one.decisions.is_empty())
            && self.moved.iter().all(|(_, wrong)| wrong.is_empty())
    }
}

fn label<'a>(pod: &'a Pod, name: &str) -> &'a str {
    pod.labels().get(name).map(String::as_str).unwrap_or_default()
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

/// What is wrong with a Sandbox that has taken over.
fn wrong(sandbox: &Sandbox, there: &Inventory) -> Vec<String> {
    let mut wrong = Vec::new();
    let ready = sandbox.condition("Ready");
    if ready.is_none_or(|ready| ready.status != "True") {
        wrong.push(format!("it is not Ready: {}", ready.map_or("no controller has seen it", |ready| &ready.message)));
    }
    let from = sandbox.annotations().get(FROM_POD).map(String::as_str).unwrap_or_default();
    if there.pods.iter().any(|(class, pod)| *class != Class::Moved && pod.name_any() == from) {
        wrong.push(format!("the pod {from} still runs beside it"));
    }
    for template in sandbox.spec.volume_claim_templates.iter().flatten() {
        let volume = template.metadata.as_ref().and_then(|metadata| metadata.name.as_deref()).unwrap_or_default();
        let name = format!("{volume}-{}", sandbox.name_any());
        let claim = there.claims.get(&name);
        if claim.is_none_or(|claim| {
            !claim.owner_references().iter().any(|owner| owner.uid == *sandbox.uid().unwrap_or_default())
        }) {
            wrong.push(format!("the claim {name} is not its own"));
        }
    }
    let labels =
        sandbox.spec.pod_template.metadata.as_ref().map(|metadata| metadata.labels.clone()).unwrap_or_default();
    if !there.policies.is_empty() && there.selecting(&labels).is_empty() {
        wrong.push("no network policy selects its pod".into());
    }
    wrong
}

impl Move {
    fn of(pod: &Pod, there: &Inventory) -> Self {
        let id = label(pod, SANDBOX_ID);
        let mut decisions = Vec::new();
        let claim = workspace_claim(pod);
        let held = claim.as_ref().and_then(|name| there.claims.get(name));
        let workspace = workspace(pod);
        match (&claim, held) {
            (Some(name), Some(_)) if *name == format!("{VOLUME}-{id}") => {}
            (Some(name), Some(_)) => decisions.push(format!(
                "its claim {name} is not called {VOLUME}-{id}, so a Sandbox would get a new one: copy its files"
            )),
            (Some(name), None) => decisions.push(format!("its claim {name} is gone")),
            (None, _) if workspace.is_some_and(|volume| volume.host_path.is_some()) => decisions.push(
                "its workspace is a folder of the node, which restricted pods may not have: copy its files".into(),
            ),
            (None, _) => {
                decisions
                    .push("its workspace is in the pod alone and goes with it: copy its files, or let them go".into());
            }
        }
        let claim = claim.filter(|name| held.is_some() && *name == format!("{VOLUME}-{id}"));
        if let Some(phase) = pod.status.as_ref().and_then(|status| status.phase.as_deref())
            && !matches!(phase, "Running" | "Pending")
        {
            decisions.push(format!("it is {phase}: what remains of it is its workspace; move that, or delete both"));
        }
        if let Some(found) = there.sandboxes.get(id)
            && found.annotations().get(FROM_POD) != Some(&pod.name_any())
        {
            decisions.push(format!("there is a Sandbox {id} that has not come from it"));
        }
        let sandbox = sandbox(pod, held.filter(|_| claim.is_some()));
        let mut all = Vec::new();
        let labels = sandbox.spec.pod_template.metadata.as_ref().map(|metadata| metadata.labels.clone());
        let (before, after) = (there.selecting(pod.labels()), there.selecting(&labels.unwrap_or_default()));
        if before != after {
            all.push(Difference::new("network policies", before.join(", "), after.join(", "), ""));
        }
        if after.is_empty() {
            all.push(Difference::new("network policies", "", "", "none selects it: it may talk to everybody"));
        }
        all.push(Difference::new("name", pod.name_any(), id, "the name of the pod, and so its host name"));
        if let Some(claim) = &claim {
            let why = "who deletes the Sandbox deletes its files; before they stayed";
            all.push(Difference::new(&format!("owner of claim {claim}"), "nobody", format!("Sandbox {id}"), why));
        }
        Self { pod: pod.name_any(), sandbox, claim, differences: all, decisions }
    }

    /// Asks the server what it would make of the Sandbox and of its pod.
    async fn ask(&mut self, client: &Client, namespace: &str, before: &Pod) {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let sandboxes = Api::<Sandbox>::namespaced(client.clone(), namespace);
        match sandboxes.create(&dry, &self.sandbox).await {
            Err(kube::Error::Api(status)) if !status.is_already_exists() => {
                self.decisions.push(format!("the Sandbox would be refused: {}", status.message));
            }
            Err(kube::Error::Api(_)) | Ok(_) => {}
            Err(error) => self.decisions.push(format!("the Sandbox could not be tried: {error}")),
        }
        let template = &self.sandbox.spec.pod_template;
        let metadata = template.metadata.clone().unwrap_or_default();
        let mut spec = template.spec.clone();
        if let Some(claim) = &self.claim {
            spec.volumes.get_or_insert_default().push(claimed(claim));
        }
        let pod = Pod {
            metadata: ObjectMeta {
                name: self.sandbox.metadata.name.clone(),
                labels: Some(metadata.labels),
                annotations: Some(metadata.annotations),
                ..ObjectMeta::default()
            },
            spec: Some(spec),
            status: None,
        };
        match Api::<Pod>::namespaced(client.clone(), namespace).create(&dry, &pod).await {
            Ok(after) => self.differences.extend(differences(before, &after)),
            Err(kube::Error::Api(status)) => {
                self.decisions.push(format!("its pod would be refused: {}", status.message));
            }
            Err(error) => self.decisions.push(format!("its pod could not be tried: {error}")),
        }
    }
}

fn workspace(pod: &Pod) -> Option<&Volume> {
    pod.spec.as_ref()?.volumes.as_ref()?.iter().find(|volume| volume.name == VOLUME)
}

fn workspace_claim(pod: &Pod) -> Option<String> {
    Some(workspace(pod)?.persistent_volume_claim.as_ref()?.claim_name.clone())
}

fn claimed(claim: &str) -> Volume {
    let source =
        k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource { claim_name: claim.into(), read_only: None };
    Volume { name: VOLUME.into(), persistent_volume_claim: Some(source), ..Volume::default() }
}

/// The Sandbox that takes a pod's place: what the pod was made from, what Phase 2 asks for, and where it has come from.
fn sandbox(pod: &Pod, claim: Option<&PersistentVolumeClaim>) -> Sandbox {
    let id = label(pod, SANDBOX_ID);
    let mut labels: BTreeMap<String, String> = pod.labels().clone();
    labels.extend([(MANAGED, "true"), (SANDBOX, "true")].map(|(name, value)| (name.to_owned(), value.to_owned())));
    let metadata = PodMetadata { labels: labels.clone(), ..PodMetadata::default() };
    let spec = SandboxSpec {
        pod_template: PodTemplate { metadata: Some(metadata), spec: wished(pod, claim.is_some()) },
        volume_claim_templates: claim.map(|claim| {
            let mut spec = claim.spec.clone().unwrap_or_default();
            spec.volume_name = None; // the server's, as the mode of the volume
            spec.volume_mode = None;
            let metadata = VolumeClaimMetadata { name: Some(VOLUME.into()), ..VolumeClaimMetadata::default() };
            vec![VolumeClaimTemplate { metadata: Some(metadata), spec }]
        }),
        shutdown_policy: Some(ShutdownPolicy::Retain),
        ..SandboxSpec::default()
    };
    let mut sandbox = Sandbox::new(id, spec);
    sandbox.metadata.labels = Some(labels);
    let made = pod.metadata.creation_timestamp.as_ref().map(|time| time.0.to_string()).unwrap_or_default();
    let noted = [
        (PROJECT_ID, label(pod, PROJECT_ID)),
        ("agentpane.io/idle-timeout-minutes", NEVER_IDLE),
        ("agentpane.io/made-at", &made),
        (FROM_POD, &pod.name_any()),
        ("agentpane.io/phase1-uid", &pod.uid().unwrap_or_default()),
    ];
    sandbox.metadata.annotations = Some(
        noted
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect(),
    );
    sandbox
}

/// A pod's specification without what the server and the scheduler have put in, and with what Phase 2 asks for.
fn wished(pod: &Pod, claimed: bool) -> PodSpec {
    let mut spec = pod.spec.clone().unwrap_or_default();
    let token = |volume: &Volume| volume.name.starts_with("kube-api-access-");
    let is_added = |volume: &Volume| token(volume) || (claimed && volume.name == VOLUME);
    if let Some(volumes) = &mut spec.volumes {
        volumes.retain(|volume| !is_added(volume));
    }
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        if let Some(mounts) = &mut container.volume_mounts {
            mounts.retain(|mount| !mount.name.starts_with("kube-api-access-"));
        }
    }
    let is_servers = |toleration: &Toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        matches!(key, "node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable")
    };
    if let Some(tolerations) = &mut spec.tolerations {
        tolerations.retain(|toleration| !is_servers(toleration));
    }
    if spec.service_account_name.as_deref() == Some("default") {
        spec.service_account_name = None;
    }
    PodSpec {
        automount_service_account_token: Some(false), // nobody asked for the token that it had
        node_name: None,
        priority: None,
        preemption_policy: None,
        service_account: None,
        restart_policy: None, // `Never` was for pods that nobody makes again
        tolerations: spec.tolerations.filter(|list| !list.is_empty()),
        volumes: spec.volumes.filter(|list| !list.is_empty()),
        ..spec
    }
}

/// What the report shows of a value.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
