//! Makes the jobs of cron jobs when their time has come.
//!
//! Upstream: `pkg/controller/cronjob/cronjob_controllerv2.go`, `utils.go`.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Key, StatusMap, api_of, batch, controller_reference, sources, text, write_status};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome, Server},
    base::{Gvr, Object, Status, Stored},
    clock::time_text,
    kinds::Schedule,
};

const EVENTS: EventKind<'static> = EventKind::Core { component: "cronjob-controller" };

/// Times that are looked through for the last one that was missed; beyond it the newest is taken anyway.
const MISSED: usize = 100;

fn cron_jobs() -> Gvr {
    batch("cronjobs")
}

fn jobs() -> Gvr {
    batch("jobs")
}

/// Runs until the token is cancelled.
pub(super) async fn run(server: Server, token: CancellationToken) {
    let api = api_of(server, "cronjob-controller");
    actor::run(api.clone(), sources(cron_jobs(), "CronJob", jobs()), token, move |key| reconcile(api.clone(), key))
        .await;
}

/// How a job has ended: the type of its condition; `""` while it goes on.
fn ended(job: &Object) -> &'static str {
    let status = StatusMap::of(job);
    let holds = |kind| status.condition(kind).is_some_and(|condition| text(condition, "status") == "True");
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else {
        ""
    }
}

async fn reconcile(api: Api, (namespace, name): Key) -> Result<Outcome, Status> {
    let Some(cron) = api.get(&cron_jobs(), &namespace, &name).await? else { return Ok(Outcome::Done) };
    let (all, _) = api.list(&jobs(), &namespace, "").await?;
    let own = |job: &Arc<Stored>| job.controller().is_some_and(|owner| owner.uid == cron.uid());
    let children: Vec<_> = all.into_iter().filter(own).collect();
    let mut status = StatusMap::of(&cron);
    settle(&api, &cron, &children, &mut status).await;
    let next = if cron.is_deleting() { Ok(Outcome::Done) } else { start(&api, &cron, &children, &mut status).await };
    write_status(&api, &cron_jobs(), &cron, status.into_value()).await?;
    forget(&api, &cron, &children).await?;
    next
}

/// Takes jobs that have ended off the list of active ones.
async fn settle(api: &Api, cron: &Stored, children: &[Arc<Stored>], status: &mut StatusMap) {
    let active = status.0.get("active").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut kept = Vec::new();
    for reference in active {
        match children.iter().find(|job| job.uid() == text(&reference, "uid")) {
            None => {
                let note = format!("Active job went missing: {}", text(&reference, "name"));
                api.event(EVENTS, cron, false, "MissingJob", &note).await;
            }
            Some(job) if ended(job).is_empty() => kept.push(reference),
            Some(job) => {
                let note = format!("Saw completed job: {}, condition: {}", job.name(), ended(job));
                api.event(EVENTS, cron, false, "SawCompletedJob", &note).await;
            }
        }
    }
    // What a job that ended well did last.
    let done = children.iter().filter(|job| ended(job) == "Complete");
    let last = done.map(|job| job.str_at(&["status", "completionTime"])).filter(|time| !time.is_empty()).max();
    let known = status.0.get("lastSuccessfulTime").and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(last) = last.filter(|last| *last > known.as_str()) {
        status.set("lastSuccessfulTime", last);
    }
    list(status, kept);
}

fn list(status: &mut StatusMap, active: Vec<Value>) {
    if active.is_empty() {
        status.0.remove("active");
    } else {
        status.set("active", active);
    }
}

/// Starts the job whose time has come; when to look again.
async fn start(api: &Api, cron: &Stored, children: &[Arc<Stored>], status: &mut StatusMap) -> Result<Outcome, Status> {
    let now = api.clock().now();
    let text_at = |field: &str| cron.str_at(&["spec", field]);
    if cron.at(&["spec", "suspend"]) == Some(&Value::Bool(true)) {
        return Ok(Outcome::Done);
    }
    let schedule = match Schedule::parse(text_at("schedule"), text_at("timeZone")) {
        Ok(schedule) => schedule,
        Err(error) => {
            let note = format!("unparseable schedule: {:?} : {error}", text_at("schedule"));
            api.event(EVENTS, cron, true, "UnparseableSchedule", &note).await;
            return Ok(Outcome::Done);
        }
    };
    let wait = match schedule.next(now) {
        Some(next) => Outcome::After(Duration::try_from(next.duration_since(now)).unwrap_or_default()),
        None => Outcome::Done,
    };
    let deadline = cron.at(&["spec", "startingDeadlineSeconds"]).and_then(Value::as_i64);
    let Some(due) = last_due(cron, &schedule, deadline, now) else { return Ok(wait) };
    let late = deadline.and_then(|seconds| due.saturating_add(SignedDuration::from_secs(seconds)).ok());
    if late.is_some_and(|late| late < now) {
        let note = format!("Missed scheduled time to start a job: {}", due.strftime("%a, %d %b %Y %H:%M:%S +0000"));
        api.event(EVENTS, cron, true, "MissSchedule", &note).await;
        return Ok(wait);
    }
    let name = format!("{}-{}", cron.name(), due.as_second() / 60);
    let mut active = status.0.get("active").and_then(Value::as_array).cloned().unwrap_or_default();
    if active.iter().any(|reference| text(reference, "name") == name) {
        return Ok(wait);
    }
    match text_at("concurrencyPolicy") {
        "Forbid" if !active.is_empty() => {
            let note = "Not starting job because prior execution is running and concurrency policy is Forbid";
            api.event(EVENTS, cron, false, "JobAlreadyActive", note).await;
            return Ok(wait);
        }
        "Replace" => {
            for reference in std::mem::take(&mut active) {
                if let Some(job) = children.iter().find(|job| job.uid() == text(&reference, "uid")) {
                    delete(api, cron, job).await?;
                }
            }
        }
        _ => {}
    }
    match api.create(&jobs(), job(cron, &name, due)).await {
        Ok(made) => {
            let note = format!("Created job {name}");
            api.event(EVENTS, cron, false, "SuccessfulCreate", &note).await;
            active.push(json!({
                "apiVersion": "batch/v1", "kind": "Job", "namespace": made.namespace(), "name": name, "uid": made.uid(),
                "resourceVersion": made.resource_version(),
            }));
        }
        Err(error) if error.is_already_exists() => {}
        Err(error) => {
            let note = format!("Error creating job: {}", error.message);
            api.event(EVENTS, cron, true, "FailedCreate", &note).await;
            return Err(error);
        }
    }
    list(status, active);
    status.set("lastScheduleTime", time_text(due));
    Ok(wait)
}

/// The last time for which a job is due and none was started (`mostRecentScheduleTime`).
fn last_due(cron: &Object, schedule: &Schedule, deadline: Option<i64>, now: Timestamp) -> Option<Timestamp> {
    let mut since = cron.time_at(&["status", "lastScheduleTime"]).or_else(|| cron.creation_timestamp())?;
    if let Some(seconds) = deadline {
        since = since.max(now.saturating_sub(SignedDuration::from_secs(seconds)).ok()?);
    }
    let mut due = None;
    let mut missed = 0;
    let mut at = since;
    while let Some(next) = schedule.next(at).filter(|next| *next <= now) {
        due = Some(next);
        missed += 1;
        at = next;
        if missed > MISSED {
            // So many were missed that only those of the last day are looked at.
            let day = now.saturating_sub(SignedDuration::from_hours(24)).ok()?;
            if at < day {
                at = day;
                missed = 0;
            }
        }
    }
    due
}

/// The job of a time (`getJobFromTemplate2`).
fn job(cron: &Object, name: &str, due: Timestamp) -> Object {
    let mut job = Object::new("batch/v1", "Job", cron.namespace(), name);
    for field in ["labels", "annotations"] {
        if let Some(given) = cron.at(&["spec", "jobTemplate", "metadata", field]) {
            job.set_at(&["metadata", field], given.clone());
        }
    }
    let zone = cron.str_at(&["spec", "timeZone"]);
    let zone = jiff::tz::TimeZone::get(zone).unwrap_or(jiff::tz::TimeZone::UTC);
    let text = match zone == jiff::tz::TimeZone::UTC {
        true => time_text(due),
        false => due.to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    job.set_at(&["metadata", "annotations", "batch.kubernetes.io/cronjob-scheduled-timestamp"], text);
    job.set_at(&["metadata", "ownerReferences"], json!([controller_reference(cron)]));
    job.set("spec", cron.at(&["spec", "jobTemplate", "spec"]).cloned().unwrap_or_else(|| json!({})));
    job
}

async fn delete(api: &Api, cron: &Stored, job: &Stored) -> Result<(), Status> {
    let policy = DeletePolicy { propagation: Some("Background"), ..DeletePolicy::default() };
    match api.delete(&jobs(), job.namespace(), job.name(), &policy).await {
        Err(error) if !error.is_not_found() => return Err(error),
        Ok(()) | Err(_) => {}
    }
    api.event(EVENTS, cron, false, "SuccessfulDelete", &format!("Deleted job {}", job.name())).await;
    Ok(())
}

/// Deletes the oldest jobs that have ended, beyond the history that is kept.
async fn forget(api: &Api, cron: &Stored, children: &[Arc<Stored>]) -> Result<(), Status> {
    for (kind, field) in [("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit")] {
        let Some(limit) = cron.at(&["spec", field]).and_then(Value::as_u64) else { continue };
        let mut done: Vec<_> = children.iter().filter(|job| ended(job) == kind && !job.is_deleting()).collect();
        done.sort_by_key(|job| (job.str_at(&["status", "startTime"]).to_owned(), job.name().to_owned()));
        let surplus = done.len().saturating_sub(usize::try_from(limit).unwrap_or(usize::MAX));
        for job in done.into_iter().take(surplus) {
            delete(api, cron, job).await?;
        }
    }
    Ok(())
}
