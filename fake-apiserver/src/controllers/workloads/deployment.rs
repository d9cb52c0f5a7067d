//! Rolls out the pod templates of deployments by way of replica sets.
//!
//! Upstream: `pkg/controller/deployment/` (`deployment_controller.go`, `sync.go`, `rolling.go`, `recreate.go`, `progress.go`,
//! `util/deployment_util.go`).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Key, StatusMap, api_of, apps, claim, controller_reference, core, found, hash_text, int, pods, scaled, selector_of,
    sources, text,
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Server},
    base::{Gvr, Object, Status, Stored},
    clock::time_text,
};

const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";

/// Characters of a replica set's revision history (`maxRevHistoryLengthInChars`).
const HISTORY_CHARS: usize = 2000;

/// Annotations of a deployment that are not handed to its replica sets (`annotationsToSkip`).
const KEPT: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

const EVENTS: EventKind<'static> = EventKind::Core { component: "deployment-controller" };

fn deployments() -> Gvr {
    apps("deployments")
}

fn replica_sets() -> Gvr {
    apps("replicasets")
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server, "deployment-controller");
    actor::run(api.clone(), sources(deployments(), "Deployment", replica_sets()), token, move |key| {
        reconcile(api.clone(), key)
    })
    .await;
}

async fn reconcile(api: Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(deployment) = api.get(&deployments(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    if selector_of(&deployment).is_empty() {
        let note = "This deployment is selecting all pods. A non-empty selector is required.";
        api.event(EVENTS, &deployment, true, "SelectingAll", note).await;
        return Ok(Outcome::Done);
    }
    let sets = claim(&api, &deployment, &replica_sets()).await?;
    let mut rollout = Rollout { api, deployment, new: None, old: Vec::new() };
    rollout.sort(sets);
    rollout.sync().await
}

/// One reconciliation of a deployment.
struct Rollout {
    api: Api,
    deployment: Arc<Stored>,
    /// The replica set with the deployment's template.
    new: Option<Arc<Stored>>,
    /// The others, oldest first.
    old: Vec<Arc<Stored>>,
}

/// What a deployment's replica set is to have, and has.
fn replicas(set: &Object) -> i64 {
    int(set, &["spec", "replicas"])
}

fn available(set: &Object) -> i64 {
    int(set, &["status", "availableReplicas"])
}

fn revision(set: &Object) -> i64 {
    set.annotation(REVISION).and_then(|revision| revision.parse().ok()).unwrap_or_default()
}

/// A template without the label that tells replica sets apart.
fn plain_template(object: &Object) -> Value {
    let mut template = object.at(&["spec", "template"]).cloned().unwrap_or_default();
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(HASH);
    }
    template
}

impl Rollout {
    fn now(&self) -> Timestamp {
        self.api.clock().now()
    }

    /// Tells the replica set of the deployment's template from the others.
    fn sort(&mut self, mut sets: Vec<Arc<Stored>>) {
        sets.sort_by_key(|set| (set.creation_timestamp(), set.name().to_owned()));
        let template = plain_template(&self.deployment);
        let at = sets.iter().position(|set| plain_template(set) == template);
        self.new = at.map(|at| sets.remove(at));
        self.old = sets;
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.old.iter().chain(&self.new)
    }

    fn wanted(&self) -> i64 {
        replicas(&self.deployment)
    }

    fn rolling(&self) -> bool {
        self.deployment.str_at(&["spec", "strategy", "type"]) != "Recreate"
    }

    /// `maxSurge` and `maxUnavailable` as numbers (`ResolveFenceposts`).
    fn fence_posts(&self) -> (i64, i64) {
        if !self.rolling() {
            return (0, 0);
        }
        let at = |field| self.deployment.at(&["spec", "strategy", "rollingUpdate", field]);
        let surge = scaled(at("maxSurge"), self.wanted(), true).unwrap_or_default();
        let unavailable = scaled(at("maxUnavailable"), self.wanted(), false).unwrap_or_default();
        (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
    }

    fn max_unavailable(&self) -> i64 {
        self.fence_posts().1.min(self.wanted())
    }

    fn max_replicas(&self) -> i64 {
        self.wanted() + self.fence_posts().0
    }

    fn deadline(&self) -> Option<i64> {
        let seconds = self.deployment.at(&["spec", "progressDeadlineSeconds"]).and_then(Value::as_i64)?;
        (seconds != i64::from(i32::MAX)).then_some(seconds)
    }

    fn paused(&self) -> bool {
        self.deployment.at(&["spec", "paused"]) == Some(&Value::Bool(true))
    }

    async fn sync(&mut self) -> Result<Outcome, Status> {
        if self.deployment.is_deleting() {
            return self.write(self.status()).await;
        }
        self.note_pause().await?;
        if self.paused() || self.is_scaling() {
            self.keep_new(false).await?;
            self.scale().await?;
            if self.paused() {
                self.clean_up().await?;
            }
            return self.write(self.status()).await;
        }
        let changed = if self.rolling() { self.roll().await? } else { self.recreate().await? };
        if !changed && complete(&self.deployment, &StatusMap::of(&self.deployment)) {
            self.clean_up().await?;
        }
        self.progress().await
    }

    /// Says that a rollout stands still, or goes on, because somebody paused or resumed it; it may then take as long as it
    /// has not stood.
    async fn note_pause(&mut self) -> Result<(), Status> {
        let mut status = StatusMap::of(&self.deployment);
        let reason = status.condition("Progressing").map(|condition| text(condition, "reason")).unwrap_or_default();
        let said = reason == "DeploymentPaused";
        if self.deadline().is_none() || reason == "ProgressDeadlineExceeded" || said == self.paused() {
            return Ok(());
        }
        let (reason, message) = match self.paused() {
            true => ("DeploymentPaused", "Deployment is paused"),
            false => ("DeploymentResumed", "Deployment is resumed"),
        };
        self.set_condition(&mut status, "Progressing", "Unknown", reason, message);
        self.write(status).await.map(drop)
    }

    /// Whether somebody has scaled the deployment: its replica sets still know another number.
    fn is_scaling(&self) -> bool {
        let active = self.all().filter(|set| replicas(set) > 0);
        active.filter_map(|set| set.annotation(DESIRED)?.parse::<i64>().ok()).any(|desired| desired != self.wanted())
    }

    /// Sees to it that the replica set of the deployment's template is there (or, without `create`, is looked after if it
    /// is), with the newest revision.
    async fn keep_new(&mut self, create: bool) -> Result<(), Status> {
        let next = self.old.iter().map(|set| revision(set)).max().unwrap_or_default() + 1;
        let min_ready = int(&self.deployment, &["spec", "minReadySeconds"]);
        if let Some(new) = self.new.clone() {
            let mut changed = new.object().clone();
            self.annotate(&mut changed, next, true);
            if int(&changed, &["spec", "minReadySeconds"]) != min_ready {
                changed.set_at(&["spec", "minReadySeconds"], min_ready);
            }
            if changed != *new.object() {
                self.new = found(self.api.update(&replica_sets(), changed, "").await)?;
            }
            let number = self.new.as_ref().map(|new| revision(new)).unwrap_or_default();
            let status = StatusMap::of(&self.deployment);
            let message = format!("Found new replica set {:?}", new.name());
            let say = self.deadline().is_some() && status.condition("Progressing").is_none();
            return self.note_revision(number, say.then_some(("FoundNewReplicaSet", message))).await;
        }
        if !create {
            return Ok(());
        }
        let mut set = self.replica_set(min_ready);
        self.annotate(&mut set, next, false);
        set.set_at(&["metadata", "annotations", DESIRED], self.wanted().to_string());
        set.set_at(&["metadata", "annotations", MAX], self.max_replicas().to_string());
        let count = self.new_replicas(0);
        set.set_at(&["spec", "replicas"], count);
        let name = set.name().to_owned();
        match self.api.create(&replica_sets(), set).await {
            Ok(made) => {
                if count > 0 {
                    let note = format!("Scaled up replica set {name} from 0 to {count}");
                    self.api.event(EVENTS, &self.deployment, false, "ScalingReplicaSet", &note).await;
                }
                self.new = Some(made);
                let message = format!("Created new replica set {name:?}");
                let said = self.deadline().is_some().then_some(("NewReplicaSetCreated", message));
                self.note_revision(next, said).await
            }
            Err(error) if error.is_already_exists() => {
                // Another template has the same hash: the next try is salted.
                let mut status = StatusMap::of(&self.deployment);
                status.set("collisionCount", status.get("collisionCount") + 1);
                self.write(status).await?;
                Err(error)
            }
            Err(error) => {
                let message = format!("Failed to create new replica set {name:?}: {}", error.message);
                if self.deadline().is_some() {
                    let mut status = StatusMap::of(&self.deployment);
                    self.set_condition(&mut status, "Progressing", "False", "ReplicaSetCreateError", &message);
                    self.write(status).await?;
                }
                self.api.event(EVENTS, &self.deployment, true, "ReplicaSetCreateError", &message).await;
                Err(error)
            }
        }
    }

    /// A replica set for the deployment's template.
    fn replica_set(&self, min_ready: i64) -> Object {
        let deployment = &self.deployment;
        let mut template = deployment.at(&["spec", "template"]).cloned().unwrap_or_default();
        let hash = hash_text(&template, int(deployment, &["status", "collisionCount"]));
        template["metadata"]["labels"][HASH] = hash.clone().into();
        let mut selector = deployment.at(&["spec", "selector"]).cloned().unwrap_or_default();
        selector["matchLabels"][HASH] = hash.clone().into();
        let mut name = deployment.name().to_owned();
        name.truncate(253 - 1 - hash.len());
        let mut set = Object::new("apps/v1", "ReplicaSet", deployment.namespace(), &format!("{name}-{hash}"));
        set.set_at(&["metadata", "ownerReferences"], json!([controller_reference(deployment)]));
        set.set_at(&["metadata", "labels"], template["metadata"]["labels"].clone());
        let mut spec = json!({ "selector": selector, "template": template });
        if min_ready > 0 {
            spec["minReadySeconds"] = min_ready.into();
        }
        set.set("spec", spec);
        set
    }

    /// Hands the deployment's annotations to its newest replica set, with the revision (`SetNewReplicaSetAnnotations`).
    fn annotate(&self, set: &mut Object, next: i64, exists: bool) {
        let mut annotations: BTreeMap<String, String> = set.annotations();
        for (key, value) in self.deployment.annotations() {
            if !KEPT.contains(&key.as_str()) {
                annotations.insert(key, value);
            }
        }
        let before = revision(set);
        if before < next {
            if exists && before > 0 {
                // What kubectl shows as an older revision of the same template.
                let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
                let mut numbers: Vec<&str> = history.split(',').filter(|number| !number.is_empty()).collect();
                let number = before.to_string();
                numbers.push(&number);
                let mut text = numbers.join(",");
                while text.len() > HISTORY_CHARS {
                    text = text.split_once(',').map_or(String::new(), |(_, rest)| rest.to_owned());
                }
                annotations.insert(REVISION_HISTORY.into(), text);
            }
            annotations.insert(REVISION.into(), next.to_string());
        }
        if !exists {
            annotations.remove(REVISION_HISTORY);
        }
        set.set_at(&["metadata", "annotations"], json!(annotations));
    }

    /// Writes the revision on the deployment, and a condition in its status.
    async fn note_revision(&mut self, number: i64, said: Option<(&str, String)>) -> Result<(), Status> {
        if self.deployment.annotation(REVISION) != Some(&number.to_string()) {
            let mut changed = self.deployment.object().clone();
            changed.set_at(&["metadata", "annotations", REVISION], number.to_string());
            // Through the status, which takes annotations too: else it would count as a change of the deployment.
            if let Some(written) = found(self.api.update(&deployments(), changed, "status").await)? {
                self.deployment = written;
            }
        }
        if let Some((reason, message)) = said {
            let mut status = StatusMap::of(&self.deployment);
            self.set_condition(&mut status, "Progressing", "True", reason, &message);
            self.write(status).await?;
        }
        Ok(())
    }

    /// How many pods the new replica set may have now (`NewRSNewReplicas`).
    fn new_replicas(&self, current: i64) -> i64 {
        if !self.rolling() {
            return self.wanted();
        }
        let total: i64 = self.all().map(|set| replicas(set)).sum();
        let room = self.max_replicas() - total;
        if room <= 0 { current } else { current + room.min(self.wanted() - current) }
    }

    /// One step of a rolling update; whether a replica set was scaled.
    async fn roll(&mut self) -> Result<bool, Status> {
        self.keep_new(true).await?;
        let Some(new) = self.new.clone() else { return Ok(false) };
        let (current, wanted) = (replicas(&new), self.wanted());
        let target = if current > wanted { wanted } else { self.new_replicas(current) };
        if current != wanted && self.scale_set(&new, target, false).await? {
            return Ok(true);
        }
        let new = self.new.clone().unwrap_or(new);
        let total: i64 = self.all().map(|set| replicas(set)).sum();
        let least = wanted - self.max_unavailable();
        let starting = replicas(&new) - available(&new);
        let mut spare = total - least - starting;
        if spare <= 0 || self.old.iter().all(|set| replicas(set) == 0) {
            return Ok(false);
        }
        let mut scaled = false;
        // First those that do not work: letting them go makes nothing worse.
        for set in self.old.clone() {
            let broken = (replicas(&set) - available(&set)).min(spare);
            if broken > 0 {
                spare -= broken;
                scaled |= self.scale_set(&set, replicas(&set) - broken, false).await?;
            }
        }
        let mut spare = self.all().map(|set| available(set)).sum::<i64>() - least;
        for set in self.old.clone() {
            let count = replicas(&set).min(spare);
            if count > 0 {
                spare -= count;
                scaled |= self.scale_set(&set, replicas(&set) - count, false).await?;
            }
        }
        Ok(scaled)
    }

    /// One step of a rollout that ends all old pods before it makes new ones; whether a replica set was scaled.
    async fn recreate(&mut self) -> Result<bool, Status> {
        self.keep_new(false).await?;
        let mut scaled = false;
        for set in self.old.clone() {
            scaled |= replicas(&set) > 0 && self.scale_set(&set, 0, false).await?;
        }
        if scaled || self.old_pods_run().await? {
            return Ok(true);
        }
        self.keep_new(true).await?;
        let Some(new) = self.new.clone() else { return Ok(false) };
        self.scale_set(&new, self.wanted(), false).await
    }

    async fn old_pods_run(&self) -> Result<bool, Status> {
        if self.old.is_empty() {
            return Ok(false);
        }
        let (all, _) = self.api.list(&core("pods"), self.deployment.namespace(), "").await?;
        let runs = |pod: &Arc<Stored>| !matches!(pods::phase(pod), "Succeeded" | "Failed");
        let old = |uid: &str| self.old.iter().any(|set| set.uid() == uid);
        Ok(all.iter().any(|pod| runs(pod) && pod.controller().is_some_and(|owner| old(&owner.uid))))
    }

    /// Scales what there is to the deployment's number, in proportion while several replica sets have pods.
    async fn scale(&mut self) -> Result<(), Status> {
        let mut active: Vec<_> = self.all().filter(|set| replicas(set) > 0).cloned().collect();
        if active.len() <= 1 {
            let newest = || self.new.clone().or_else(|| self.old.iter().max_by_key(|set| revision(set)).cloned());
            if let Some(only) = active.pop().or_else(newest)
                && replicas(&only) != self.wanted()
            {
                self.scale_set(&only, self.wanted(), false).await?;
            }
            return Ok(());
        }
        if self.new.as_ref().is_some_and(|new| self.saturated(new)) {
            for set in self.old.clone() {
                self.scale_set(&set, 0, false).await?;
            }
            return Ok(());
        }
        if !self.rolling() {
            return Ok(());
        }
        let allowed = if self.wanted() > 0 { self.max_replicas() } else { 0 };
        let add = allowed - active.iter().map(|set| replicas(set)).sum::<i64>();
        active.sort_by_key(|set| (-replicas(set), set.creation_timestamp(), set.name().to_owned()));
        if add > 0 {
            // Of the same size, the newer grow first and the older shrink first.
            active.sort_by(|a, b| {
                let time = b.creation_timestamp().cmp(&a.creation_timestamp());
                replicas(b).cmp(&replicas(a)).then(time).then_with(|| b.name().cmp(a.name()))
            });
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for set in &active {
            let part = if add == 0 { 0 } else { self.proportion(set, add, added) };
            added += part;
            sizes.push(replicas(set) + part);
        }
        sizes[0] = (sizes[0] + add - added).max(0);
        for (set, size) in active.iter().zip(sizes) {
            self.scale_set(set, size, true).await?;
        }
        Ok(())
    }

    /// Whether a replica set is all that the deployment asks for (`IsSaturated`).
    fn saturated(&self, set: &Object) -> bool {
        let knows = set.annotation(DESIRED).and_then(|desired| desired.parse().ok()) == Some(self.wanted());
        knows && replicas(set) == self.wanted() && available(set) == self.wanted()
    }

    /// A replica set's part of what is added (`GetReplicaSetProportion`).
    fn proportion(&self, set: &Object, add: i64, added: i64) -> i64 {
        let size = replicas(set);
        let left = add - added;
        if size == 0 || left == 0 {
            return 0;
        }
        let part = if self.wanted() == 0 {
            -size
        } else {
            let whole = set.annotation(MAX).and_then(|max| max.parse::<i64>().ok()).filter(|max| *max > 0);
            let whole = whole.unwrap_or_else(|| int(&self.deployment, &["status", "replicas"])).max(1);
            // rounded to the nearest
            (size * self.max_replicas() * 2 + whole).div_euclid(whole * 2) - size
        };
        if add > 0 { part.min(left) } else { part.max(left) }
    }

    /// Scales a replica set; whether its number changed. With `force` what it knows of the deployment is brought up to date
    /// even where the number stays.
    async fn scale_set(&mut self, set: &Arc<Stored>, size: i64, force: bool) -> Result<bool, Status> {
        let before = replicas(set);
        if before == size && !force {
            return Ok(false);
        }
        let mut changed = set.object().clone();
        changed.set_at(&["spec", "replicas"], size);
        changed.set_at(&["metadata", "annotations", DESIRED], self.wanted().to_string());
        changed.set_at(&["metadata", "annotations", MAX], self.max_replicas().to_string());
        if changed == *set.object() {
            return Ok(false);
        }
        let Some(written) = found(self.api.update(&replica_sets(), changed, "").await)? else { return Ok(false) };
        for known in self.old.iter_mut().chain(&mut self.new) {
            if known.uid() == written.uid() {
                *known = written.clone();
            }
        }
        if before == size {
            return Ok(false);
        }
        let way = if before < size { "up" } else { "down" };
        let note = format!("Scaled {way} replica set {} from {before} to {size}", set.name());
        self.api.event(EVENTS, &self.deployment, false, "ScalingReplicaSet", &note).await;
        Ok(true)
    }

    /// Removes the oldest replica sets beyond `revisionHistoryLimit`.
    async fn clean_up(&self) -> Result<(), Status> {
        let limit = self.deployment.at(&["spec", "revisionHistoryLimit"]).and_then(Value::as_u64);
        let Some(limit) = limit.filter(|limit| *limit != u64::from(i32::MAX.unsigned_abs())) else { return Ok(()) };
        let mut sets: Vec<_> = self.old.iter().filter(|set| !set.is_deleting()).cloned().collect();
        let surplus = sets.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        sets.sort_by_key(|set| (revision(set), set.creation_timestamp()));
        for set in sets.into_iter().take(surplus) {
            let behind = set.generation() > int(&set, &["status", "observedGeneration"]);
            if int(&set, &["status", "replicas"]) != 0 || replicas(&set) != 0 || behind {
                continue;
            }
            match self.api.delete(&replica_sets(), set.namespace(), set.name(), &DeletePolicy::default()).await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// The status without what it says of progress (`calculateStatus`).
    fn status(&self) -> StatusMap {
        let sum = |field: &str| self.all().map(|set| int(set, &["status", field])).sum::<i64>();
        let of_new = self.new.as_ref().map(|new| int(new, &["status", "replicas"])).unwrap_or_default();
        let total: i64 = self.all().map(|set| replicas(set)).sum();
        let available = sum("availableReplicas");
        let mut status = StatusMap::of(&self.deployment);
        status.count("observedGeneration", self.deployment.generation());
        status.count("replicas", sum("replicas"));
        status.count("updatedReplicas", of_new);
        status.count("readyReplicas", sum("readyReplicas"));
        status.count("availableReplicas", available);
        status.count("unavailableReplicas", (total - available).max(0));
        status.set("terminatingReplicas", sum("terminatingReplicas"));
        let (holds, reason, message) = match available >= self.wanted() - self.max_unavailable() {
            true => ("True", "MinimumReplicasAvailable", "Deployment has minimum availability."),
            false => ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability."),
        };
        self.set_condition(&mut status, "Available", holds, reason, message);
        status
    }

    /// Writes the status with what it says of progress (`syncRolloutStatus`).
    async fn progress(&mut self) -> Result<Outcome, Status> {
        let mut status = self.status();
        let before = StatusMap::of(&self.deployment);
        let current = before.condition("Progressing").cloned();
        let reason = current.as_ref().map(|condition| text(condition, "reason")).unwrap_or_default();
        let mut next = Outcome::Done;
        let settled = status.get("replicas") == status.get("updatedReplicas") && reason == "NewReplicaSetAvailable";
        match self.deadline() {
            None => status.remove_condition("Progressing"),
            Some(_) if settled => {}
            Some(deadline) => {
                let who = match &self.new {
                    Some(new) => format!("ReplicaSet {:?}", new.name()),
                    None => format!("Deployment {:?}", self.deployment.name()),
                };
                let due =
                    current.as_ref().and_then(|current| text(current, "lastUpdateTime").parse::<Timestamp>().ok());
                let due = due.map(|since| since.saturating_add(SignedDuration::from_secs(deadline)).unwrap_or(since));
                if complete(&self.deployment, &status) {
                    let message = format!("{who} has successfully progressed.");
                    self.set_condition(&mut status, "Progressing", "True", "NewReplicaSetAvailable", &message);
                } else if progressed(&before, &status) {
                    let message = format!("{who} is progressing.");
                    self.renew_condition(&mut status, current.as_ref(), "ReplicaSetUpdated", &message);
                } else if reason == "ProgressDeadlineExceeded" || due.is_some_and(|due| due < self.now()) {
                    let message = format!("{who} has timed out progressing.");
                    self.set_condition(&mut status, "Progressing", "False", "ProgressDeadlineExceeded", &message);
                } else if let Some(due) = due {
                    let left = Duration::try_from(due.duration_since(self.now())).unwrap_or_default();
                    next = Outcome::After(left + Duration::from_secs(1));
                }
            }
        }
        let failure = self.new.iter().chain(&self.old).find_map(|set| {
            StatusMap::of(set).condition("ReplicaFailure").map(|condition| {
                let of = |field| text(condition, field);
                (of("status"), of("reason"), of("message"))
            })
        });
        match failure {
            Some((holds, reason, message)) => {
                self.set_condition(&mut status, "ReplicaFailure", &holds, &reason, &message);
            }
            None => status.remove_condition("ReplicaFailure"),
        }
        match self.write(status).await? {
            Outcome::Done => Ok(next),
            written => Ok(written),
        }
    }

    /// Writes a status; what is written comes back as a change.
    async fn write(&mut self, status: StatusMap) -> Result<Outcome, Status> {
        self.deployment = super::write_status(&self.api, &deployments(), &self.deployment, status.into_value()).await?;
        Ok(Outcome::Done)
    }

    /// Sets a condition unless it says the same already (`SetDeploymentCondition`).
    fn set_condition(&self, status: &mut StatusMap, kind: &str, holds: &str, reason: &str, message: &str) {
        let now = Value::from(time_text(self.now()));
        let mut since = now.clone();
        if let Some(current) = status.condition(kind).filter(|current| text(current, "status") == holds) {
            if text(current, "reason") == reason {
                return;
            }
            since = current.get("lastTransitionTime").cloned().unwrap_or(since);
        }
        status.push_condition(json!({
            "type": kind, "status": holds, "lastUpdateTime": now, "lastTransitionTime": since, "reason": reason,
            "message": message,
        }));
    }

    /// Says that there was progress, now, even if that was said before.
    fn renew_condition(&self, status: &mut StatusMap, current: Option<&Value>, reason: &str, message: &str) {
        let now = Value::from(time_text(self.now()));
        let held = current.filter(|current| text(current, "status") == "True");
        let since = held.and_then(|current| current.get("lastTransitionTime")).cloned();
        status.push_condition(json!({
            "type": "Progressing", "status": "True", "lastUpdateTime": now,
            "lastTransitionTime": since.unwrap_or_else(|| now.clone()), "reason": reason, "message": message,
        }));
    }
}

/// Whether a rollout is done (`DeploymentComplete`).
fn complete(deployment: &Object, status: &StatusMap) -> bool {
    let all = ["updatedReplicas", "replicas", "availableReplicas"];
    all.iter().all(|field| status.get(field) == replicas(deployment))
        && status.get("observedGeneration") >= deployment.generation()
}

/// Whether there are more new pods than before, or fewer old ones (`DeploymentProgressing`).
fn progressed(before: &StatusMap, status: &StatusMap) -> bool {
    let old = |status: &StatusMap| status.get("replicas") - status.get("updatedReplicas");
    let more = ["updatedReplicas", "readyReplicas", "availableReplicas"];
    old(status) < old(before) || more.iter().any(|field| status.get(field) > before.get(field))
}
