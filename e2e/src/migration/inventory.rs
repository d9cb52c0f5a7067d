//! What there is of an installation of Phase 1 in a namespace, and of what has come after it.

use std::collections::BTreeMap;

use agent_sandbox_sdk::v1beta1::Sandbox;
use anyhow::{Context, Result};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolumeClaim, Pod},
        networking::v1::NetworkPolicy,
    },
};
use kube::{Api, Client, Resource, ResourceExt, api::ListParams, core::SelectorExt};
use serde::de::DeserializeOwned;

/// Labels that Phase 1 set; the provider of Phase 2 goes on with the first three.
pub(super) const SANDBOX: &str = "agentpane.io/sandbox";
pub(super) const SANDBOX_ID: &str = "agentpane.io/sandbox-id";
pub(super) const PROJECT_ID: &str = "agentpane.io/project-id";
const WARM: &str = "agentpane.io/warm-pool";
const WARM_STATE: &str = "agentpane.io/warm-pool-state";

/// What the controller of Phase 2 labels its pods with.
const NAME_HASH: &str = "agents.x-k8s.io/sandbox-name-hash";

/// Objects that one answer holds.
const PAGE: u32 = 500;

/// What a pod is to the move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A Sandbox's, so it is of Phase 2.
    Moved,
    /// Somebody else's.
    Foreign,
    /// Of the warm pool, and nobody's yet.
    WarmIdle,
    /// Of the warm pool, and a project's.
    WarmAllocated,
    /// A project's sandbox.
    Sandbox,
    /// It says that it is a sandbox, and not which.
    Anomalous,
}

/// What a pod is, by its labels and owners. The rules are asked in this order: a pod of the pool that a project has got keeps
/// the labels of the pool.
pub fn classify(pod: &Pod) -> Class {
    let labels = pod.labels();
    let is = |name: &str, value: &str| labels.get(name).is_some_and(|found| found == value);
    let owners = pod.owner_references();
    if labels.contains_key(NAME_HASH) || owners.iter().any(|owner| owner.kind == "Sandbox") {
        Class::Moved
    } else if owners.iter().any(|owner| owner.controller == Some(true)) || !is(SANDBOX, "true") {
        Class::Foreign
    } else if is(WARM, "true") {
        match is(WARM_STATE, "allocated") && labels.contains_key(PROJECT_ID) {
            true => Class::WarmAllocated,
            false => Class::WarmIdle,
        }
    } else if labels.contains_key(SANDBOX_ID) && labels.contains_key(PROJECT_ID) {
        Class::Sandbox
    } else {
        Class::Anomalous
    }
}

/// All of a namespace that the move is about.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Pods with what they are.
    pub pods: Vec<(Class, Pod)>,
    /// Volume claims by name.
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    /// Network policies.
    pub policies: Vec<NetworkPolicy>,
    /// Sandboxes of Phase 2 by name.
    pub sandboxes: BTreeMap<String, Sandbox>,
}

impl Inventory {
    /// Reads it. Nothing is changed.
    ///
    /// # Errors
    /// If something cannot be listed.
    pub async fn read(client: &Client, namespace: &str) -> Result<Self> {
        let pods: Vec<Pod> = all(client, namespace).await?;
        let named = |claim: PersistentVolumeClaim| (claim.name_any(), claim);
        Ok(Self {
            pods: pods.into_iter().map(|pod| (classify(&pod), pod)).collect(),
            claims: all(client, namespace).await?.into_iter().map(named).collect(),
            policies: all(client, namespace).await?,
            sandboxes: all(client, namespace).await?.into_iter().map(|one: Sandbox| (one.name_any(), one)).collect(),
        })
    }

    /// The pods of a class.
    pub fn of(&self, class: Class) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(move |(found, _)| *found == class).map(|(_, pod)| pod)
    }

    /// The policies that select a pod with these labels.
    pub(super) fn selecting(&self, labels: &BTreeMap<String, String>) -> Vec<String> {
        let selects = |policy: &&NetworkPolicy| {
            let selector = policy.spec.as_ref().and_then(|spec| spec.pod_selector.clone()).unwrap_or_default();
            // One that cannot be read was not taken by the server either.
            kube::core::Selector::try_from(selector).is_ok_and(|selector| selector.matches(labels))
        };
        self.policies.iter().filter(selects).map(ResourceExt::name_any).collect()
    }
}

async fn all<K>(client: &Client, namespace: &str) -> Result<Vec<K>>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let (mut found, mut page) = (Vec::new(), ListParams::default().limit(PAGE));
    loop {
        let list =
            api.list(&page).await.with_context(|| format!("{} in {namespace} are not listed", K::plural(&())))?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}
