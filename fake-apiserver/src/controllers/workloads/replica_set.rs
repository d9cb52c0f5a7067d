//! Keeps as many pods as replica sets and replication controllers ask for.
//!
//! Upstream: `pkg/controller/replicaset/replica_set.go`, `replica_set_utils.go`.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::{
    Key, StatusMap, api_of, apps, claim, condition, core, int, labels_in,
    pods::{availability, from_template, is_active, is_terminating, sort_for_deletion},
    sources, write_status,
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Server},
    base::{Gvr, Object, Status, Stored, selector::LabelSelector},
};

/// Pods that are made or deleted in one go (`BurstReplicas`).
const BURST: usize = 500;

/// The two kinds that work alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    kind: &'static str,
    controller: &'static str,
    component: &'static str,
}

pub(super) const REPLICA_SETS: Kind =
    Kind { kind: "ReplicaSet", controller: "replicaset-controller", component: "replicaset-controller" };

pub(super) const REPLICATION_CONTROLLERS: Kind =
    Kind { kind: "ReplicationController", controller: "replication-controller", component: "replication-controller" };

impl Kind {
    fn gvr(self) -> Gvr {
        if self.kind == "ReplicaSet" { apps("replicasets") } else { core("replicationcontrollers") }
    }

    /// Whether pods that are ending are counted.
    fn counts_terminating(self) -> bool {
        self.kind == "ReplicaSet"
    }
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, kind: Kind, token: CancellationToken) {
    let api = api_of(server, kind.controller);
    actor::run(api.clone(), sources(kind.gvr(), kind.kind, core("pods")), token, move |key| {
        reconcile(api.clone(), kind, key)
    })
    .await;
}

async fn reconcile(api: Api, kind: Kind, (namespace, name): Key) -> Result<Outcome, Status> {
    let gvr = kind.gvr();
    let Some(owner) = api.get(&gvr, &namespace, &name).await? else { return Ok(Outcome::Done) };
    let claimed = claim(&api, &owner, &core("pods")).await?;
    let terminating = claimed.iter().filter(|pod| is_terminating(pod)).count();
    let mut active: Vec<Arc<Stored>> = claimed.into_iter().filter(|pod| is_active(pod)).collect();
    let managed = if owner.is_deleting() { Ok(()) } else { manage(&api, kind, &owner, &mut active).await };
    let (status, next) = status(kind, &owner, &active, terminating, managed.as_ref().err(), api.clock().now());
    write_status(&api, &gvr, &owner, status).await?;
    managed?;
    Ok(next)
}

/// Makes or deletes pods; `active` is afterwards what there is, as far as it is known.
async fn manage(api: &Api, kind: Kind, owner: &Stored, active: &mut Vec<Arc<Stored>>) -> Result<(), Status> {
    let wanted = usize::try_from(int(owner, &["spec", "replicas"])).unwrap_or_default();
    let event = EventKind::Core { component: kind.component };
    if active.len() < wanted {
        for _ in 0..(wanted - active.len()).min(BURST) {
            match api.create(&core("pods"), from_template(owner.at(&["spec", "template"]), owner)).await {
                Ok(pod) => {
                    api.event(event, owner, false, "SuccessfulCreate", &format!("Created pod: {}", pod.name())).await;
                    active.push(pod);
                }
                Err(error) => {
                    // In a namespace that goes nothing is made any more, and nothing is said of it.
                    if !error.message.contains("because it is being terminated") {
                        let note = format!("Error creating: {}", error.message);
                        api.event(event, owner, true, "FailedCreate", &note).await;
                        return Err(error);
                    }
                    return Ok(());
                }
            }
        }
    } else if active.len() > wanted {
        sort_for_deletion(active);
        let surplus: Vec<_> = active.iter().take((active.len() - wanted).min(BURST)).cloned().collect();
        for pod in surplus {
            let policy = DeletePolicy { uid: Some(pod.uid().into()), ..DeletePolicy::default() };
            match api.delete(&core("pods"), pod.namespace(), pod.name(), &policy).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(()) | Err(_) => {}
            }
            api.event(event, owner, false, "SuccessfulDelete", &format!("Deleted pod: {}", pod.name())).await;
        }
        // Their changes bring the owner back here; until then they count, as upstream's do.
    }
    Ok(())
}

/// The status, and when it changes by time alone.
fn status(
    kind: Kind,
    owner: &Object,
    active: &[Arc<Stored>],
    terminating: usize,
    failure: Option<&Status>,
    now: Timestamp,
) -> (Value, Outcome) {
    let min_ready = int(owner, &["spec", "minReadySeconds"]);
    let template = LabelSelector::from_labels(&labels_in(owner.at(&["spec", "template", "metadata", "labels"])));
    let labeled = active.iter().filter(|pod| template.matches_object(pod)).count();
    let (ready, available, wait) = availability(active.iter().map(|pod| pod.object()), min_ready, now);
    let mut status = StatusMap::of(owner);
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    status.set("replicas", active.len());
    status.count("fullyLabeledReplicas", number(labeled));
    status.count("readyReplicas", ready);
    status.count("availableReplicas", available);
    status.count("observedGeneration", owner.generation());
    if kind.counts_terminating() {
        status.set("terminatingReplicas", terminating);
    }
    match (failure, status.condition("ReplicaFailure").is_some()) {
        (Some(error), false) => {
            let few = number(active.len()) < int(owner, &["spec", "replicas"]);
            let reason = if few { "FailedCreate" } else { "FailedDelete" };
            status.push_condition(condition("ReplicaFailure", "True", reason, &error.message, now));
        }
        (None, true) => status.remove_condition("ReplicaFailure"),
        (Some(_), true) | (None, false) => {}
    }
    (status.into_value(), wait.map_or(Outcome::Done, Outcome::After))
}
