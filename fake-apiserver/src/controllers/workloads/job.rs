//! Runs the pods of jobs until enough have succeeded or too many have failed.
//!
//! Upstream: `pkg/controller/job/job_controller.go`, `indexed_job_utils.go`, `backoff_utils.go`,
//! `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{
    Key, StatusMap, api_of, batch, claim, core, found,
    pods::{self, is_active, is_terminating},
    sources, text, write_status,
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Server},
    base::{Gvr, Object, Status, Stored},
    clock::time_text,
};

const EVENTS: EventKind<'static> = EventKind::Core { component: "job-controller" };

/// Keeps a job's pod until it is counted.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of a pod of an indexed job.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// The first wait after a pod that failed, doubling (`DefaultJobPodFailureBackOff`), and the longest.
const BACK_OFF: Duration = Duration::from_secs(10);
const BACK_OFF_MAX: Duration = Duration::from_secs(600);

/// Pods made in one go (`MaxPodCreateDeletePerSync`).
const BURST: i64 = 500;

fn jobs() -> Gvr {
    batch("jobs")
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server, "job-controller");
    let sources = sources(jobs(), "Job", core("pods"));
    actor::run(api.clone(), sources, token, move |key| reconcile(api.clone(), key)).await;
}

async fn reconcile(api: Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(job) = api.get(&jobs(), &namespace, &name).await? else {
        return let_go(&api, &namespace).await;
    };
    if !matches!(job.str_at(&["spec", "managedBy"]), "" | "kubernetes.io/job-controller") {
        return Ok(Outcome::Done);
    }
    let pods = claim(&api, &job, &core("pods")).await?;
    let status = StatusMap::of(&job);
    if finished(&status).is_some() {
        for pod in &pods {
            untrack(&api, pod).await?;
        }
        return expire(&api, &job).await;
    }
    let now = api.clock().now();
    Work { api, job, pods, status, now }.sync().await
}

/// Lets pods go whose job is gone.
async fn let_go(api: &Api, namespace: &str) -> Result<Outcome, Status> {
    let (pods, _) = api.list(&core("pods"), namespace, "").await?;
    for pod in pods.iter().filter(|pod| pod.finalizers().contains(&TRACKING)) {
        let owner = pod.controller();
        let alive = match &owner {
            Some(owner) if owner.kind == "Job" => {
                api.get(&jobs(), namespace, &owner.name).await?.is_some_and(|job| job.uid() == owner.uid)
            }
            Some(_) | None => false,
        };
        if !alive {
            untrack(api, pod).await?;
        }
    }
    Ok(Outcome::Done)
}

async fn untrack(api: &Api, pod: &Stored) -> Result<(), Status> {
    let finalizers = pod.finalizers();
    if !finalizers.contains(&TRACKING) {
        return Ok(());
    }
    let kept: Vec<_> = finalizers.into_iter().filter(|finalizer| *finalizer != TRACKING).map(str::to_owned).collect();
    let mut changed = pod.object().clone();
    changed.set_finalizers(kept);
    found(api.update(&core("pods"), changed, "").await).map(drop)
}

/// How a job ended: its condition.
fn finished(status: &StatusMap) -> Option<&Value> {
    let holds = |kind| status.condition(kind).filter(|condition| text(condition, "status") == "True");
    holds("Complete").or_else(|| holds("Failed"))
}

/// Deletes a job that has been finished for `ttlSecondsAfterFinished`.
async fn expire(api: &Api, job: &Stored) -> Result<Outcome, Status> {
    let ttl = job.at(&["spec", "ttlSecondsAfterFinished"]).and_then(Value::as_i64);
    let status = StatusMap::of(job);
    let since = finished(&status).and_then(|condition| text(condition, "lastTransitionTime").parse::<Timestamp>().ok());
    let (Some(ttl), Some(since), false) = (ttl, since, job.is_deleting()) else { return Ok(Outcome::Done) };
    let now = api.clock().now();
    let due = since.saturating_add(SignedDuration::from_secs(ttl)).unwrap_or(Timestamp::MAX);
    if now < due {
        return Ok(Outcome::After(Duration::try_from(due.duration_since(now)).unwrap_or_default()));
    }
    let policy =
        DeletePolicy { uid: Some(job.uid().into()), propagation: Some("Foreground"), ..DeletePolicy::default() };
    match api.delete(&jobs(), job.namespace(), job.name(), &policy).await {
        Err(error) if !error.is_not_found() => Err(error),
        Ok(()) | Err(_) => Ok(Outcome::Done),
    }
}

/// The numbers of an indexed job in the form of its status: `0-2,5`.
fn index_text(indexes: &BTreeSet<i64>) -> String {
    let mut spans: Vec<(i64, i64)> = Vec::new();
    for index in indexes {
        match spans.last_mut() {
            Some((_, end)) if *end + 1 == *index => *end = *index,
            _ => spans.push((*index, *index)),
        }
    }
    let text = |(start, end): (i64, i64)| match end - start {
        0 => start.to_string(),
        1 => format!("{start},{end}"),
        _ => format!("{start}-{end}"),
    };
    spans.into_iter().map(text).collect::<Vec<_>>().join(",")
}

fn index_set(text: &str, bound: i64) -> BTreeSet<i64> {
    let mut indexes = BTreeSet::new();
    for span in text.split(',') {
        let (start, end) = span.split_once('-').unwrap_or((span, span));
        if let (Ok(start), Ok(end)) = (start.parse::<i64>(), end.parse::<i64>()) {
            indexes.extend(start.max(0)..=end.min(bound - 1));
        }
    }
    indexes
}

fn index_of(pod: &Object) -> Option<i64> {
    pod.annotation(INDEX)?.parse().ok()
}

/// One reconciliation of a job.
struct Work {
    api: Api,
    job: Arc<Stored>,
    pods: Vec<Arc<Stored>>,
    status: StatusMap,
    now: Timestamp,
}

impl Work {
    fn spec(&self, field: &str) -> Option<i64> {
        self.job.at(&["spec", field]).and_then(Value::as_i64)
    }

    fn suspended(&self) -> bool {
        self.job.at(&["spec", "suspend"]) == Some(&Value::Bool(true))
    }

    fn indexed(&self) -> bool {
        self.job.str_at(&["spec", "completionMode"]) == "Indexed"
    }

    /// Whether a pod counts as failed: also one that is being deleted, unless only pods that have failed are replaced.
    fn has_failed(&self, pod: &Object) -> bool {
        let only_failed = self.job.str_at(&["spec", "podReplacementPolicy"]) == "Failed";
        pods::phase(pod) == "Failed" || !only_failed && pod.is_deleting() && pods::phase(pod) != "Succeeded"
    }

    async fn sync(mut self) -> Result<Outcome, Status> {
        let mut next = None;
        if !self.suspended() && !self.status.0.contains_key("startTime") {
            self.status.set("startTime", time_text(self.now));
        }
        self.count().await?;
        let before = self.status.condition("FailureTarget").or_else(|| self.status.condition("SuccessCriteriaMet"));
        let mut end =
            before.map(|condition| (text(condition, "type"), text(condition, "reason"), text(condition, "message")));
        let (succeeded, failed) = (self.succeeded(), self.status.get("failed"));
        if end.is_none() {
            let fails =
                |reason: &str, message: &str| Some(("FailureTarget".to_owned(), reason.to_owned(), message.to_owned()));
            if failed > self.spec("backoffLimit").unwrap_or(6) || self.restarts_too_often() {
                end = fails("BackoffLimitExceeded", "Job has reached the specified backoff limit");
            } else if let Some(deadline) = self.deadline() {
                if deadline <= self.now {
                    end = fails("DeadlineExceeded", "Job was active longer than specified deadline");
                } else {
                    next = Some(deadline);
                }
            }
        }
        let mut active: Vec<_> = self.pods.iter().filter(|pod| is_active(pod)).cloned().collect();
        if end.is_some() {
            for pod in &active {
                self.delete(pod, false).await?;
            }
            active.clear();
        } else if !self.job.is_deleting() {
            next = self.manage(&mut active, succeeded, failed).await?.into_iter().chain(next).min();
            let complete = match self.spec("completions") {
                None => succeeded > 0 && active.is_empty(),
                Some(completions) => succeeded >= completions && active.is_empty(),
            };
            if complete {
                let message = "Reached expected number of succeeded pods";
                end = Some(("SuccessCriteriaMet".into(), "CompletionsReached".into(), message.into()));
            } else {
                self.say_suspended().await;
            }
        }
        let ready = active.iter().filter(|pod| pods::is_ready(pod)).count();
        self.status.count("active", i64::try_from(active.len()).unwrap_or(i64::MAX));
        self.status.set("ready", ready);
        let (now_there, _) = self.api.list(&core("pods"), self.job.namespace(), "").await?;
        let own = now_there.iter().filter(|pod| pod.controller().is_some_and(|owner| owner.uid == self.job.uid()));
        let terminating = own.filter(|pod| is_terminating(pod)).count();
        self.status.set("terminating", terminating);
        self.status.set("uncountedTerminatedPods", json!({}));
        if let Some((kind, reason, message)) = end {
            self.finish(&kind, &reason, &message, terminating).await;
        }
        let status = std::mem::take(&mut self.status);
        write_status(&self.api, &jobs(), &self.job, status.into_value()).await?;
        let wait = next.map(|at| Duration::try_from(at.duration_since(self.now)).unwrap_or_default());
        Ok(wait.map_or(Outcome::Done, Outcome::After))
    }

    /// Counts pods that have ended, and lets them go: first they are noted, so that none is counted twice.
    async fn count(&mut self) -> Result<(), Status> {
        let mut noted: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
        for kind in ["succeeded", "failed"] {
            let uids = self.status.0.get("uncountedTerminatedPods").and_then(|noted| noted.get(kind)?.as_array());
            let uids = uids.into_iter().flatten().filter_map(|uid| uid.as_str().map(str::to_owned));
            noted.insert(kind, uids.collect());
        }
        let mut done = self.completed();
        let mut ended = Vec::new();
        let mut fresh = false;
        for pod in self.pods.iter().filter(|pod| pod.finalizers().contains(&TRACKING)) {
            let kind = match pods::phase(pod) {
                "Succeeded" => "succeeded",
                _ if self.has_failed(pod) => "failed",
                _ => continue,
            };
            ended.push(pod.clone());
            if noted.values().any(|uids| uids.contains(pod.uid())) {
                continue;
            }
            fresh = true;
            noted.entry(kind).or_default().insert(pod.uid().to_owned());
            match (kind, self.indexed()) {
                ("succeeded", true) => done.extend(index_of(pod)),
                _ => {
                    let count = self.status.get(kind) + 1;
                    self.status.count(kind, count);
                }
            }
        }
        if self.indexed() {
            self.status.count("succeeded", i64::try_from(done.len()).unwrap_or(i64::MAX));
            match index_text(&done) {
                text if text.is_empty() => self.status.0.remove("completedIndexes"),
                text => self.status.0.insert("completedIndexes".into(), text.into()),
            };
        }
        if fresh {
            let lists = noted.into_iter().filter(|(_, uids)| !uids.is_empty());
            let lists: BTreeMap<_, _> = lists.map(|(kind, uids)| (kind, json!(uids))).collect();
            self.status.set("uncountedTerminatedPods", json!(lists));
            self.job = write_status(&self.api, &jobs(), &self.job, self.status.clone().into_value()).await?;
        }
        for pod in ended {
            untrack(&self.api, &pod).await?;
        }
        Ok(())
    }

    fn succeeded(&self) -> i64 {
        self.status.get("succeeded")
    }

    fn completed(&self) -> BTreeSet<i64> {
        let text = self.status.0.get("completedIndexes").and_then(Value::as_str).unwrap_or_default();
        index_set(text, self.spec("completions").unwrap_or_default())
    }

    fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec("activeDeadlineSeconds").filter(|_| !self.suspended())?;
        let start: Timestamp = self.status.0.get("startTime")?.as_str()?.parse().ok()?;
        start.saturating_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// Whether containers that are started again have failed too often (`pastBackoffLimitOnFailure`).
    fn restarts_too_often(&self) -> bool {
        if self.job.str_at(&["spec", "template", "spec", "restartPolicy"]) != "OnFailure" {
            return false;
        }
        let statuses = |pod: &Object| {
            let all = ["initContainerStatuses", "containerStatuses"].map(|field| pod.at(&["status", field]).cloned());
            let all = all.into_iter().flatten().filter_map(|list| list.as_array().cloned()).flatten();
            all.filter_map(|status| status.get("restartCount")?.as_i64()).sum::<i64>()
        };
        let live = self.pods.iter().filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
        let restarts: i64 = live.map(|pod| statuses(pod)).sum();
        match self.spec("backoffLimit").unwrap_or(6) {
            0 => restarts > 0,
            limit => restarts >= limit,
        }
    }

    /// Makes and deletes pods; when there is more to make.
    async fn manage(
        &self,
        active: &mut Vec<Arc<Stored>>,
        succeeded: i64,
        failed: i64,
    ) -> Result<Option<Timestamp>, Status> {
        let parallelism = self.spec("parallelism").unwrap_or(1);
        let count = i64::try_from(active.len()).unwrap_or(i64::MAX);
        let wanted = match (self.suspended(), self.spec("completions")) {
            (true, _) => 0,
            (false, None) if succeeded > 0 => count,
            (false, None) => parallelism,
            (false, Some(completions)) => (completions - succeeded).clamp(0, parallelism),
        };
        if count > wanted {
            pods::sort_for_deletion(active);
            let surplus = usize::try_from(count - wanted).unwrap_or_default();
            for pod in active.drain(..surplus).collect::<Vec<_>>() {
                self.delete(&pod, true).await?;
            }
            return Ok(None);
        }
        let mut missing = wanted - count;
        if self.job.str_at(&["spec", "podReplacementPolicy"]) == "Failed" {
            let ending = self.pods.iter().filter(|pod| is_terminating(pod)).count();
            missing -= i64::try_from(ending).unwrap_or(i64::MAX);
        }
        if missing <= 0 {
            return Ok(None);
        }
        if let Some(until) = self.back_off(failed)
            && self.now < until
        {
            return Ok(Some(until));
        }
        let mut taken = self.completed();
        taken.extend(active.iter().filter_map(|pod| index_of(pod)));
        let mut free = (0..self.spec("completions").unwrap_or_default()).filter(|index| !taken.contains(index));
        for _ in 0..missing.min(BURST) {
            let index = if self.indexed() { free.next() } else { None };
            if self.indexed() && index.is_none() {
                break;
            }
            match self.api.create(&core("pods"), pod(&self.job, index)).await {
                Ok(made) => {
                    let note = format!("Created pod: {}", made.name());
                    self.api.event(EVENTS, &self.job, false, "SuccessfulCreate", &note).await;
                    active.push(made);
                }
                Err(error) => {
                    let note = format!("Error creating: {}", error.message);
                    self.api.event(EVENTS, &self.job, true, "FailedCreate", &note).await;
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// Until when no pod is made because pods failed.
    fn back_off(&self, failed: i64) -> Option<Timestamp> {
        let ended = |pod: &Arc<Stored>| {
            let statuses = pod.at(&["status", "containerStatuses"])?.as_array()?;
            let times = statuses.iter().filter_map(|status| status.pointer("/state/terminated/finishedAt")?.as_str());
            times.filter_map(|time| time.parse::<Timestamp>().ok()).max().or_else(|| pod.deletion_timestamp())
        };
        let last = self.pods.iter().filter(|pod| self.has_failed(pod)).filter_map(ended).max()?;
        let times = u32::try_from(failed.max(1) - 1).unwrap_or(u32::MAX).min(10);
        let wait = BACK_OFF.saturating_mul(1 << times).min(BACK_OFF_MAX);
        last.saturating_add(SignedDuration::try_from(wait).ok()?).ok()
    }

    /// Deletes a pod that is not to count (it is let go) or is to count as it ends.
    async fn delete(&self, pod: &Stored, let_go: bool) -> Result<(), Status> {
        if let_go {
            untrack(&self.api, pod).await?;
        }
        let policy = DeletePolicy { uid: Some(pod.uid().into()), ..DeletePolicy::default() };
        match self.api.delete(&core("pods"), pod.namespace(), pod.name(), &policy).await {
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let note = format!("Deleted pod: {}", pod.name());
                self.api.event(EVENTS, &self.job, false, "SuccessfulDelete", &note).await;
                Ok(())
            }
        }
    }

    fn set_condition(&mut self, kind: &str, holds: &str, reason: &str, message: &str) -> bool {
        let current = self.status.condition(kind);
        let same = current.is_some_and(|now| {
            text(now, "status") == holds && text(now, "reason") == reason && text(now, "message") == message
        });
        // A condition that never held is not said not to hold.
        if same || current.is_none() && holds == "False" {
            return false;
        }
        let now = time_text(self.now);
        self.status.push_condition(json!({
            "type": kind, "status": holds, "lastProbeTime": now, "lastTransitionTime": now, "reason": reason,
            "message": message,
        }));
        true
    }

    async fn say_suspended(&mut self) {
        let (holds, reason, message, event) = match self.suspended() {
            true => ("True", "JobSuspended", "Job suspended", "Suspended"),
            false => ("False", "JobResumed", "Job resumed", "Resumed"),
        };
        if self.set_condition("Suspended", holds, reason, message) {
            self.api.event(EVENTS, &self.job, false, event, message).await;
            match self.suspended() {
                true => self.status.0.remove("startTime"),
                false => self.status.0.insert("startTime".into(), time_text(self.now).into()),
            };
        }
    }

    /// Says how the job ends, and once nothing of it runs that it has.
    async fn finish(&mut self, kind: &str, reason: &str, message: &str, terminating: usize) {
        self.set_condition(kind, "True", reason, message);
        if terminating > 0 {
            return;
        }
        let complete = kind == "SuccessCriteriaMet";
        self.set_condition(if complete { "Complete" } else { "Failed" }, "True", reason, message);
        if complete {
            self.status.set("completionTime", time_text(self.now));
            self.api.event(EVENTS, &self.job, false, "Completed", "Job completed").await;
        } else {
            self.api.event(EVENTS, &self.job, true, reason, message).await;
        }
    }
}

/// A job's pod, of an index if the job has those.
fn pod(job: &Object, index: Option<i64>) -> Object {
    let mut pod = pods::from_template(job.at(&["spec", "template"]), job);
    let mut finalizers: Vec<String> = pod.finalizers().into_iter().map(str::to_owned).collect();
    finalizers.push(TRACKING.into());
    pod.set_finalizers(finalizers);
    let Some(index) = index else { return pod };
    pod.set_at(&["metadata", "annotations", INDEX], index.to_string());
    pod.set_at(&["metadata", "labels", INDEX], index.to_string());
    pod.set_at(&["metadata", "generateName"], format!("{}-{index}-", job.name()));
    pod.set_at(&["spec", "hostname"], format!("{}-{index}", job.name()));
    let variable = json!({
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": { "fieldRef": { "fieldPath": format!("metadata.labels['{INDEX}']") } },
    });
    for field in ["initContainers", "containers"] {
        let Some(list) = pod.at(&["spec", field]).and_then(Value::as_array).cloned() else { continue };
        let with = |mut container: Value| {
            let mut env = container.get("env").and_then(Value::as_array).cloned().unwrap_or_default();
            if !env.iter().any(|known| known.get("name") == variable.get("name")) {
                env.push(variable.clone());
            }
            container["env"] = env.into();
            container
        };
        pod.set_at(&["spec", field], list.into_iter().map(with).collect::<Vec<_>>());
    }
    pod
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("", &[])]
    #[case("3", &[3])]
    #[case("0,1", &[0, 1])]
    #[case("0-2,5", &[0, 1, 2, 5])]
    fn completed_indexes_are_written_as_spans(#[case] text: &str, #[case] indexes: &[i64]) {
        let set: BTreeSet<i64> = indexes.iter().copied().collect();
        assert_eq!(index_text(&set), text);
        assert_eq!(index_set(text, 10), set);
    }
}
