//! The SandboxTemplate controller: a label with the hash of the template's name, and a NetworkPolicy for the sandboxes that
//! are made from the template.
//!
//! Upstream: `extensions/controllers/sandboxtemplate_controller.go`.

use std::num::NonZeroUsize;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    keys::{EXTENSIONS_GROUP, TEMPLATE_REF_HASH, name_hash, network_policies, templates},
    ownership::{controller_reference, is_own},
};
use crate::{
    actor::{self, Api, Change, DeletePolicy, Outcome, Source},
    base::{Object, Status, Stored, names::split_api_version},
    schema::Schema,
};

/// Namespace and name of a template.
type Key = (String, String);

/// Runs the controller until the token is cancelled.
pub(super) async fn run(api: Api, workers: NonZeroUsize, token: CancellationToken) {
    let sources = vec![
        Source::all(templates(), |change| {
            let template = change.object();
            vec![(template.namespace().to_owned(), template.name().to_owned())]
        }),
        Source::all(network_policies(), owners),
    ];
    let controller = api.clone();
    actor::run_workers(api, sources, token, workers, move |key| {
        let api = controller.clone();
        async move { reconcile(&api, key).await }
    })
    .await;
}

/// The templates that control a policy, before or after a change.
fn owners(change: &Change) -> Vec<Key> {
    let objects = [Some(change.object()), change.before()].into_iter().flatten();
    let owner = |object: &Stored| {
        let owner = object.controller()?;
        let ours = owner.kind == "SandboxTemplate" && split_api_version(&owner.api_version).0 == EXTENSIONS_GROUP;
        ours.then(|| (object.namespace().to_owned(), owner.name))
    };
    objects.filter_map(|object| owner(object)).collect()
}

/// What is to be done about a template's policy.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    Nothing,
    Create(Object),
    Replace(Object),
    Delete,
    Fail(String),
}

async fn reconcile(api: &Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(template) = api.get(&templates(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    if template.is_deleting() {
        return Ok(Outcome::Done); // the policy is the garbage collector's
    }
    let hash = name_hash(&name);
    if template.label(TEMPLATE_REF_HASH) != Some(&hash) {
        let patch = json!({"metadata": {"labels": {TEMPLATE_REF_HASH: hash}}});
        api.patch(&templates(), &namespace, &name, "", patch).await?;
    }
    let policy = policy_name(&template);
    let found = api.get(&network_policies(), &namespace, &policy).await?;
    match decide(&template, found.as_deref().map(Stored::object)) {
        Step::Nothing => {}
        Step::Create(object) => drop(api.create(&network_policies(), object).await?),
        Step::Replace(object) => drop(api.update(&network_policies(), object, "").await?),
        Step::Delete => {
            api.delete(&network_policies(), &namespace, &policy, &DeletePolicy::default()).await?;
        }
        Step::Fail(text) => return Err(Status::unexpected(text)),
    }
    Ok(Outcome::Done)
}

fn policy_name(template: &Object) -> String {
    format!("{}-network-policy", template.name())
}

fn decide(template: &Object, policy: Option<&Object>) -> Step {
    let owned = policy.is_some_and(|policy| is_own(policy, template));
    if template.str_at(&["spec", "networkPolicyManagement"]) == "Unmanaged" {
        return if owned { Step::Delete } else { Step::Nothing };
    }
    let name = policy_name(template);
    let spec = wanted(template);
    match policy {
        None => {
            let mut new = Object::new("networking.k8s.io/v1", "NetworkPolicy", template.namespace(), &name);
            new.set_at(&["metadata", "ownerReferences"], json!([controller_reference(template)]));
            new.set("spec", spec);
            Step::Create(new)
        }
        Some(_) if !owned => Step::Fail(format!(
            "refusing to update NetworkPolicy {name:?} as it is not controlled by SandboxTemplate {:?}",
            template.name()
        )),
        Some(policy) if policy.get("spec").map(as_encoded) == Some(as_encoded(&spec)) => Step::Nothing,
        Some(policy) => {
            let mut new = policy.clone();
            new.set("spec", spec);
            Step::Replace(new)
        }
    }
}

/// A policy's spec as Go encodes it: lists without items are no different from none.
fn as_encoded(spec: &Value) -> Value {
    let decoded = Schema::builtin("io.k8s.api.networking.v1.NetworkPolicy").decode(json!({"spec": spec}));
    decoded.map_or_else(|_| spec.clone(), |mut decoded| decoded.value["spec"].take())
}

/// What a template's policy should say.
fn wanted(template: &Object) -> Value {
    let mut spec = json!({
        "podSelector": {"matchLabels": {TEMPLATE_REF_HASH: name_hash(template.name())}},
        "policyTypes": ["Ingress", "Egress"],
    });
    match template.at(&["spec", "networkPolicy"]) {
        Some(custom) => {
            for direction in ["ingress", "egress"] {
                // A direction without rules is closed, which is what leaving the list out means.
                if let Some(rules) =
                    custom.get(direction).filter(|rules| rules.as_array().is_some_and(|r| !r.is_empty()))
                {
                    spec[direction] = rules.clone();
                }
            }
        }
        None => {
            spec["ingress"] = json!([{"from": [{
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agent-sandbox-system"}},
                "podSelector": {"matchLabels": {"app": "sandbox-router"}},
            }]}]);
            // Out to public addresses alone; the cluster's own DNS is shut out on purpose.
            spec["egress"] = json!([{"to": [
                {"ipBlock": {
                    "cidr": "0.0.0.0/0",
                    "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"],
                }},
                {"ipBlock": {"cidr": "::/0", "except": ["fc00::/7", "fe80::/10"]}},
            ]}]);
        }
    }
    spec
}

#[cfg(test)]
mod tests;
