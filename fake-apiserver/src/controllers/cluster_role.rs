//! Cluster roles that gather others: their rules are those of the roles that their selectors take.
//!
//! Upstream: `pkg/controller/clusterroleaggregation/clusterroleaggregation_controller.go`.

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    access::{GROUP, Rule, gather, selectors},
    actor::{self, Api, Outcome, Server, Source},
    base::{Gvr, Object, Status},
};

const MANAGER: &str = "clusterrole-aggregation-controller";

fn cluster_roles() -> Gvr {
    Gvr::new(GROUP, "v1", "clusterroles")
}

/// Keeps the rules of gathering roles in step, until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let api = Api::new(server, "system:serviceaccount:kube-system:clusterrole-aggregation-controller", MANAGER);
    // Any role may be taken by any other: there is one key, and all are looked at.
    let sources = vec![Source::all(cluster_roles(), |_| vec![()])];
    actor::run(api.clone(), sources, token, move |()| gather_all(api.clone())).await;
}

async fn gather_all(api: Api) -> Result<Outcome, Status> {
    let (roles, _) = api.list(&cluster_roles(), "", "").await?;
    for role in &roles {
        let Some(Ok(own)) = selectors(role) else { continue };
        let rules = gather(role.name(), &own, roles.iter().map(|role| role.object()));
        if rules != Rule::of_role(role) {
            let mut applied = Object::new(&format!("{GROUP}/v1"), "ClusterRole", "", role.name());
            applied.set("rules", json!(rules));
            api.apply(&cluster_roles(), applied).await?;
        }
    }
    Ok(Outcome::Done)
}
