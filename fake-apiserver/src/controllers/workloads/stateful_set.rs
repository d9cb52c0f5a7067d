//! Keeps the numbered pods of stateful sets and their volume claims.
//!
//! Upstream: `pkg/controller/statefulset/stateful_set_control.go`, `stateful_set_utils.go`, `stateful_pod_control.go`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Key, StatusMap, api_of, apps, claim, controller_reference, core, int, pods, references, revisions, scaled,
    selector_of, set_references, sources, write_status,
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Server},
    base::{Gvr, Object, Status, Stored},
};

const EVENTS: EventKind<'static> = EventKind::Core { component: "statefulset-controller" };

/// The label that names the revision of a kept template.
const REVISION_HASH: &str = "controller.kubernetes.io/hash";

fn sets() -> Gvr {
    apps("statefulsets")
}

fn claims() -> Gvr {
    core("persistentvolumeclaims")
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server, "statefulset-controller");
    actor::run(api.clone(), sources(sets(), "StatefulSet", core("pods")), token, move |key| {
        reconcile(api.clone(), key)
    })
    .await;
}

async fn reconcile(api: Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(set) = api.get(&sets(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    if selector_of(&set).is_empty() {
        return Ok(Outcome::Done);
    }
    let mut pods = BTreeMap::new();
    for pod in claim(&api, &set, &core("pods")).await? {
        if let Some(ordinal) = ordinal(&set, pod.name()) {
            pods.insert(ordinal, pod);
        }
    }
    let revisions = revisions::keep(&api, &set, REVISION_HASH).await?;
    let Some(update) = revisions.last().cloned() else { return Ok(Outcome::Retry) };
    let named = set.str_at(&["status", "currentRevision"]);
    let current = revisions.iter().find(|revision| revision.name() == named).unwrap_or(&update).clone();
    let mut work = Work { api, set, current, update, pods, now: Timestamp::MIN };
    work.now = work.api.clock().now();
    let done = if work.set.is_deleting() { Ok(()) } else { work.step().await };
    let (status, wait) = work.status();
    write_status(&work.api, &sets(), &work.set, status).await?;
    done?;
    let used = |revision: &Stored| {
        let names = work.pods.values().filter_map(|pod| pod.label(revisions::HASH));
        names.chain([work.current.name(), work.update.name()]).any(|name| name == revision.name())
    };
    revisions::clean_up(&work.api, &work.set, &revisions, used).await?;
    Ok(wait.map_or(Outcome::Done, Outcome::After))
}

/// The number in the name of a set's pod.
fn ordinal(set: &Object, pod: &str) -> Option<i64> {
    pod.strip_prefix(set.name())?.strip_prefix('-')?.parse().ok()
}

/// One reconciliation of a stateful set.
struct Work {
    api: Api,
    set: Arc<Stored>,
    current: Arc<Stored>,
    update: Arc<Stored>,
    /// The pods by their numbers.
    pods: BTreeMap<i64, Arc<Stored>>,
    now: Timestamp,
}

impl Work {
    fn start(&self) -> i64 {
        int(&self.set, &["spec", "ordinals", "start"])
    }

    fn end(&self) -> i64 {
        self.start() + int(&self.set, &["spec", "replicas"])
    }

    /// Whether the pods come and go one after the other.
    fn ordered(&self) -> bool {
        self.set.str_at(&["spec", "podManagementPolicy"]) != "Parallel"
    }

    fn partition(&self) -> i64 {
        int(&self.set, &["spec", "updateStrategy", "rollingUpdate", "partition"])
    }

    fn healthy(&self, pod: &Object) -> bool {
        let available = pods::is_available(pod, int(&self.set, &["spec", "minReadySeconds"]), self.now);
        pods::phase(pod) == "Running" && available == Ok(true) && !pod.is_deleting()
    }

    /// Goes as far as can be gone now.
    async fn step(&mut self) -> Result<(), Status> {
        let ordered = self.ordered();
        for ordinal in self.start()..self.end() {
            let Some(pod) = self.pods.get(&ordinal).cloned() else {
                self.create(ordinal).await?;
                if ordered {
                    return Ok(());
                }
                continue;
            };
            if matches!(pods::phase(&pod), "Succeeded" | "Failed") {
                if !pod.is_deleting() {
                    self.delete(&pod).await?;
                }
                if ordered {
                    return Ok(());
                }
                continue;
            }
            if pods::phase(&pod) == "Pending" {
                self.create_claims(&pod).await?;
            }
            self.own_claims(&pod, ordinal).await?;
            if ordered && !self.healthy(&pod) {
                return Ok(());
            }
        }
        let (start, end) = (self.start(), self.end());
        let condemned: Vec<_> = self.pods.iter().filter(|(n, _)| **n < start || **n >= end).collect();
        let condemned: Vec<_> = condemned.into_iter().rev().map(|(ordinal, pod)| (*ordinal, pod.clone())).collect();
        let sick = self.pods.values().find(|pod| !self.healthy(pod)).map(|pod| pod.uid().to_owned());
        for (ordinal, pod) in condemned {
            self.own_claims(&pod, ordinal).await?;
            if pod.is_deleting() {
                if ordered {
                    return Ok(());
                }
                continue;
            }
            if ordered && !self.healthy(&pod) && sick.as_deref() != Some(pod.uid()) {
                return Ok(());
            }
            self.delete(&pod).await?;
            if ordered {
                return Ok(());
            }
        }
        self.roll().await
    }

    /// Ends pods of older templates, from the last on, as many at a time as may be missing.
    async fn roll(&self) -> Result<(), Status> {
        if self.set.str_at(&["spec", "updateStrategy", "type"]) == "OnDelete" {
            return Ok(());
        }
        let wanted = int(&self.set, &["spec", "replicas"]);
        let most = self.set.at(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"]);
        let most = scaled(most, wanted, true).unwrap_or(1).max(1);
        let (start, end) = (self.start(), self.end());
        let missing = (start..end).filter(|n| !self.pods.get(n).is_some_and(|pod| self.healthy(pod))).count();
        let mut spare = most - i64::try_from(missing).unwrap_or(i64::MAX);
        for (ordinal, pod) in self.pods.range(start..end).rev() {
            let old = pod.label(revisions::HASH) != Some(self.update.name());
            if spare > 0 && old && !pod.is_deleting() && *ordinal >= start + self.partition() {
                spare -= 1;
                self.delete(pod).await?;
            }
        }
        Ok(())
    }

    async fn delete(&self, pod: &Stored) -> Result<(), Status> {
        let policy = DeletePolicy { uid: Some(pod.uid().into()), ..DeletePolicy::default() };
        match self.api.delete(&core("pods"), pod.namespace(), pod.name(), &policy).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let note = format!("Delete Pod {} in StatefulSet {} successful", pod.name(), self.set.name());
                self.api.event(EVENTS, &self.set, false, "SuccessfulDelete", &note).await;
                Ok(())
            }
        }
    }

    async fn create(&mut self, ordinal: i64) -> Result<(), Status> {
        let rolling = self.set.str_at(&["spec", "updateStrategy", "type"]) != "OnDelete";
        let old = rolling && ordinal < self.start() + self.partition();
        let revision = if old { &self.current } else { &self.update };
        let pod = pod(&self.set, ordinal, revision);
        let (name, set) = (pod.name().to_owned(), self.set.name().to_owned());
        self.create_claims(&pod).await?;
        self.own_claims(&pod, ordinal).await?;
        match self.api.create(&core("pods"), pod).await {
            Ok(made) => {
                self.pods.insert(ordinal, made);
                let note = format!("Create Pod {name} in StatefulSet {set} successful");
                self.api.event(EVENTS, &self.set, false, "SuccessfulCreate", &note).await;
                Ok(())
            }
            Err(error) => {
                let note = format!("Create Pod {name} in StatefulSet {set} failed error: {}", error.message);
                self.api.event(EVENTS, &self.set, true, "FailedCreate", &note).await;
                Err(error)
            }
        }
    }

    /// Makes the claims that a pod needs and that are not there.
    async fn create_claims(&self, pod: &Object) -> Result<(), Status> {
        let templates = self.set.at(&["spec", "volumeClaimTemplates"]).and_then(Value::as_array);
        for template in templates.into_iter().flatten() {
            let claim = volume_claim(&self.set, template, pod.name());
            if let Some(there) = self.api.get(&claims(), claim.namespace(), claim.name()).await? {
                let owners = there.owner_references();
                let of_before =
                    owners.iter().any(|it| it.kind == "Pod" && it.name == pod.name() && it.uid != pod.uid());
                if of_before {
                    // It goes with the pod that had the number before (`PodClaimIsStale`).
                    let (claim, pod) = (claim.name(), pod.name());
                    return Err(Status::unexpected(format!(
                        "claim {claim} is of an earlier pod {pod} and has to go first"
                    )));
                }
                continue;
            }
            let name = claim.name().to_owned();
            let of = format!("Pod {} in StatefulSet {}", pod.name(), self.set.name());
            match self.api.create(&claims(), claim).await {
                Ok(_) => {
                    let note = format!("Create Claim {name} {of} success");
                    self.api.event(EVENTS, &self.set, false, "SuccessfulCreate", &note).await;
                }
                Err(error) => {
                    let note = format!("Create Claim {name} for {of} failed error: {}", error.message);
                    self.api.event(EVENTS, &self.set, true, "FailedCreate", &note).await;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Gives the claims of a pod the owner with whom they are to go, if with any: the set, or the pod that has no place in it
    /// any more (`updateClaimOwnerRefForSetAndPod`).
    async fn own_claims(&self, pod: &Object, ordinal: i64) -> Result<(), Status> {
        let goes = |when| self.set.str_at(&["spec", "persistentVolumeClaimRetentionPolicy", when]) == "Delete";
        let (when_scaled, when_deleted) = (goes("whenScaled"), goes("whenDeleted"));
        let condemned = !(self.start()..self.end()).contains(&ordinal);
        let templates = self.set.at(&["spec", "volumeClaimTemplates"]).and_then(Value::as_array);
        for template in templates.into_iter().flatten() {
            let claim = volume_claim(&self.set, template, pod.name());
            let Some(claim) = self.api.get(&claims(), claim.namespace(), claim.name()).await? else { continue };
            let ours = |uid: &str| uid == self.set.uid() || uid == pod.uid();
            let owner = match claim.controller() {
                Some(owner) if !ours(&owner.uid) => None,
                _ if when_scaled && condemned => Some(pod),
                _ if when_deleted => Some(self.set.object()),
                _ => None,
            };
            let before = references(&claim);
            let others = before.iter().filter(|reference| !reference["uid"].as_str().is_some_and(ours));
            let after: Vec<Value> = others.cloned().chain(owner.map(controller_reference)).collect();
            if after != before {
                set_references(&self.api, &claims(), &claim, after).await?;
            }
        }
        Ok(())
    }

    /// The status, and when it changes by time alone (`updateStatus`, `completeRollingUpdate`).
    fn status(&self) -> (Value, Option<Duration>) {
        let min_ready = int(&self.set, &["spec", "minReadySeconds"]);
        let running = self.pods.values().filter(|pod| pods::phase(pod) == "Running").map(|pod| pod.object());
        let (ready, available, wait) = pods::availability(running, min_ready, self.now);
        let total = i64::try_from(self.pods.len()).unwrap_or(i64::MAX);
        let of = |revision: &Object| {
            let made = self.pods.values().filter(|pod| pod.label(revisions::HASH) == Some(revision.name()));
            i64::try_from(made.filter(|pod| !pod.is_deleting()).count()).unwrap_or(i64::MAX)
        };
        let (mut current, updated) = (of(&self.current), of(&self.update));
        let mut current_name = self.current.name();
        let rolling = self.set.str_at(&["spec", "updateStrategy", "type"]) != "OnDelete";
        if rolling && updated == total && ready == total {
            (current, current_name) = (updated, self.update.name());
        }
        let mut status = StatusMap::of(&self.set);
        status.count("observedGeneration", self.set.generation());
        status.set("replicas", total);
        status.count("readyReplicas", ready);
        status.set("availableReplicas", available);
        status.count("currentReplicas", current);
        status.count("updatedReplicas", updated);
        status.set("currentRevision", current_name);
        status.set("updateRevision", self.update.name());
        status.set("collisionCount", status.get("collisionCount"));
        (status.into_value(), wait)
    }
}

/// A set's pod (`newStatefulSetPod`).
fn pod(set: &Object, ordinal: i64, revision: &Object) -> Object {
    let name = format!("{}-{ordinal}", set.name());
    let mut pod = pods::from_template(Some(&revisions::template(revision)), set);
    let metadata = pod.metadata_mut();
    metadata.remove("generateName");
    metadata.insert("name".into(), name.clone().into());
    pod.set_at(&["metadata", "labels", "statefulset.kubernetes.io/pod-name"], name.clone());
    pod.set_at(&["metadata", "labels", "apps.kubernetes.io/pod-index"], ordinal.to_string());
    pod.set_at(&["metadata", "labels", revisions::HASH], revision.name());
    pod.set_at(&["spec", "hostname"], name.clone());
    let service = set.str_at(&["spec", "serviceName"]);
    if !service.is_empty() {
        pod.set_at(&["spec", "subdomain"], service);
    }
    let templates = set.at(&["spec", "volumeClaimTemplates"]).and_then(Value::as_array);
    let templates: Vec<&str> =
        templates.into_iter().flatten().filter_map(|template| template.pointer("/metadata/name")?.as_str()).collect();
    let mut volumes: Vec<Value> = templates
        .iter()
        .map(|template| {
            json!({ "name": template, "persistentVolumeClaim": { "claimName": format!("{template}-{name}") } })
        })
        .collect();
    let own = pod.at(&["spec", "volumes"]).and_then(Value::as_array).cloned().unwrap_or_default();
    let is_claim = |volume: &Value| templates.iter().any(|name| volume.get("name") == Some(&Value::from(*name)));
    volumes.extend(own.into_iter().filter(|volume| !is_claim(volume)));
    if !volumes.is_empty() {
        pod.set_at(&["spec", "volumes"], volumes);
    }
    pod
}

/// The claim of a set's pod (`getPersistentVolumeClaims`).
fn volume_claim(set: &Object, template: &Value, pod: &str) -> Object {
    let name = template.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
    let mut claim = Object::new("v1", "PersistentVolumeClaim", set.namespace(), &format!("{name}-{pod}"));
    let given = template.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    claim.set_at(&["metadata", "labels"], given);
    for (key, value) in super::labels_in(set.at(&["spec", "selector", "matchLabels"])) {
        claim.set_at(&["metadata", "labels", &key], value);
    }
    if let Some(annotations) = template.pointer("/metadata/annotations") {
        claim.set_at(&["metadata", "annotations"], annotations.clone());
    }
    claim.set("spec", template.get("spec").cloned().unwrap_or_else(|| json!({})));
    claim
}
