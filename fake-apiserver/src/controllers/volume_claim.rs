//! Lets a volume claim go once no pod uses it: takes the finalizer `kubernetes.io/pvc-protection` away.
//!
//! Upstream: `pkg/controller/volume/pvcprotection/pvc_protection_controller.go`.

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::KUBE_CONTROLLER_MANAGER;
use crate::{
    actor::{self, Api, Outcome, Server, Source},
    base::{Gvr, Object, Status},
};

/// The finalizer that admission puts on each claim.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

fn claims() -> Gvr {
    Gvr::new("", "v1", "persistentvolumeclaims")
}

fn pods() -> Gvr {
    Gvr::new("", "v1", "pods")
}

/// Keeps and drops the protection of volume claims until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:pvc-protection-controller";
    let api = Api::new(server, user, KUBE_CONTROLLER_MANAGER);
    let sources = vec![
        Source::all(claims(), |change| {
            let claim = change.object();
            vec![(claim.namespace().to_owned(), claim.name().to_owned())]
        }),
        Source::all(pods(), |change| {
            let pods = [Some(change.object()), change.before()];
            let claims = pods.into_iter().flatten().flat_map(|pod| {
                claims_of(pod).map(|(claim, _)| (pod.namespace().to_owned(), claim)).collect::<Vec<_>>()
            });
            claims.collect()
        }),
    ];
    actor::run(api.clone(), sources, token, move |key| reconcile(api.clone(), key)).await;
}

async fn reconcile(api: Api, (namespace, name): (String, String)) -> Result<Outcome, Status> {
    let Some(claim) = api.get(&claims(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    let protected = claim.finalizers().contains(&PROTECTION);
    let mut finalizers: Vec<_> = claim.finalizers().into_iter().map(str::to_owned).collect();
    match (claim.is_deleting(), protected) {
        (true, true) => {
            let (pods, _) = api.list(&pods(), &namespace, "").await?;
            if pods.iter().any(|pod| uses(pod, &claim)) {
                return Ok(Outcome::Done); // the pod's changes bring the claim back here
            }
            finalizers.retain(|finalizer| finalizer != PROTECTION);
        }
        (false, false) => finalizers.push(PROTECTION.into()),
        (true, false) | (false, true) => return Ok(Outcome::Done),
    }
    let mut claim = claim.object().clone();
    claim.set_finalizers(finalizers);
    match api.update(&claims(), claim, "").await {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(_) | Err(_) => Ok(Outcome::Done),
    }
}

/// The claims that a pod names, and whether each is a claim of its own (an ephemeral volume).
fn claims_of(pod: &Object) -> impl Iterator<Item = (String, bool)> {
    let volumes = pod.at(&["spec", "volumes"]).and_then(Value::as_array);
    volumes.into_iter().flatten().filter_map(|volume| {
        if let Some(name) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
            return Some((name.to_owned(), false));
        }
        volume.get("ephemeral").filter(|ephemeral| !ephemeral.is_null())?;
        Some((format!("{}-{}", pod.name(), volume["name"].as_str().unwrap_or_default()), true))
    })
}

/// Whether a pod keeps a claim from going. A pod that has no node does not: no kubelet would start it any more.
fn uses(pod: &Object, claim: &Object) -> bool {
    if pod.str_at(&["spec", "nodeName"]).is_empty() {
        return false;
    }
    let grace = pod.at(&["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    let shut_down = pod.is_deleting() && grace == Some(0);
    let own = claim.controller().is_some_and(|owner| owner.uid == pod.uid());
    claims_of(pod).any(|(name, ephemeral)| name == claim.name() && (!ephemeral || own && !shut_down))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::by_name(json!({"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}), true)]
    #[case::without_a_node(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}), false)]
    #[case::another(json!({"nodeName": "n", "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "x"}}]}), false)]
    #[case::not_its_own(json!({"nodeName": "n", "volumes": [{"name": "ta", "ephemeral": {}}]}), false)]
    #[case::none(json!({"nodeName": "n"}), false)]
    fn a_claim_is_used_by_a_pod_on_a_node_that_names_it(#[case] spec: Value, #[case] used: bool) {
        let mut pod = Object::new("v1", "Pod", "ns", "da");
        pod.set("spec", spec);
        let claim = Object::new("v1", "PersistentVolumeClaim", "ns", "data");
        assert_eq!(uses(&pod, &claim), used);
    }

    #[test]
    fn an_ephemeral_claim_is_used_by_the_pod_that_controls_it_until_it_is_shut_down() {
        let mut pod = Object::new("v1", "Pod", "ns", "da");
        pod.set_at(&["metadata", "uid"], "u1");
        pod.set("spec", json!({"nodeName": "n", "volumes": [{"name": "ta", "ephemeral": {}}]}));
        let mut claim = Object::new("v1", "PersistentVolumeClaim", "ns", "da-ta");
        claim.set_at(&["metadata", "ownerReferences"], json!([{"kind": "Pod", "uid": "u1", "controller": true}]));
        assert!(uses(&pod, &claim));
        pod.set_at(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        pod.set_at(&["metadata", "deletionGracePeriodSeconds"], 0);
        assert!(!uses(&pod, &claim));
    }
}
