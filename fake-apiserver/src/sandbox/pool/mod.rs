//! The warm pool controller: keeps so many Sandboxes of a template ready, for claims to take.
//!
//! [`decide`] says what is to be done, [`memory`] what was done and is not seen yet; [`world`] keeps the members as the
//! watches show them. This file reads, asks them, and writes in upstream's order: stale members and orphans, members that
//! never became ready, new members or surplus ones, event, status.

mod decide;
mod memory;
mod world;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use self::{
    decide::{Class, Counts, Health, Member, Plan, Staleness, Wanted},
    memory::Memory,
    world::{Key, Shared},
};
use super::{
    blueprint,
    keys::{LAUNCH_TYPE, POD_NAME, pods, sandboxes, templates, warm_pools},
    ownership::with_controller,
};
use crate::{
    actor::{self, Api, DeletePolicy, EventKind, Outcome},
    base::{Object, Status},
};

/// How far apart the passes over one pool are. A thousand members that change together so cost a few passes and not a
/// thousand; upstream's are as far apart as its answers from the API take.
const BETWEEN_PASSES: Duration = Duration::from_millis(1);
/// By how much at most a wake-up at the end of a grace period is put off, as a part of it (`graceRequeueJitterFactor`).
const JITTER: f64 = 0.5;
/// Who reports events.
const REPORTER: &str = "sandboxwarmpool-controller";

/// What the controller wants to be told; upstream's flags `--sandbox-warm-pool-…`.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// `--enable-warm-pool-eviction`: whether a cluster autoscaler may evict members; on by default.
    pub enable_warm_pool_eviction: bool,
    /// `--sandbox-warm-pool-max-batch-size`: how many members one pass creates or deletes at most; 300 by default.
    pub max_batch_size: usize,
    /// `--sandbox-warm-pool-replenish-delay`: how long after members were taken new ones are made; 0, at once, by default.
    pub replenish_delay: Duration,
    /// `--sandbox-warm-pool-max-refill-rate`: how many members a pool makes per second at most; 0, any number, by default.
    pub max_refill_rate: f64,
    /// `--sandbox-warm-pool-readiness-grace-period`: how long a member may take to become ready before it is replaced; five
    /// minutes by default.
    pub readiness_grace_period: Duration,
    /// `--sandbox-warm-pool-unschedulable-recheck-interval`: how often a pool is looked at that holds members which cannot be
    /// scheduled; one minute by default.
    pub unschedulable_recheck_interval: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enable_warm_pool_eviction: true,
            max_batch_size: 300,
            replenish_delay: Duration::ZERO,
            max_refill_rate: 0.0,
            readiness_grace_period: Duration::from_secs(300),
            unschedulable_recheck_interval: Duration::from_secs(60),
        }
    }
}

/// Runs the controller until the token is cancelled.
pub(super) async fn run(api: Api, settings: super::Settings, token: CancellationToken) {
    let world = Shared::default();
    let sources = world.sources();
    let workers = settings.workers.warm_pools;
    let controller = Controller { api: api.clone(), world, settings: Arc::new(settings.warm_pools) };
    actor::run_workers(api, sources, token, workers, move |key| {
        let controller = controller.clone();
        async move { controller.reconcile(key).await }
    })
    .await;
}

#[derive(Clone, Debug)]
struct Controller {
    api: Api,
    world: Shared,
    settings: Arc<Settings>,
}

/// A pass over one pool.
struct Pass<'a> {
    controller: &'a Controller,
    key: &'a Key,
    pool: &'a Object,
    /// What failed; the pass goes on, and the pool comes back.
    failures: Vec<String>,
    active: Vec<Arc<Member>>,
    terminating: usize,
}

impl Controller {
    async fn reconcile(&self, key: Key) -> Result<Outcome, Status> {
        let pool = self.api.get(&warm_pools(), &key.0, &key.1).await?.filter(|pool| !pool.is_deleting());
        let Some(pool) = pool else {
            self.world.forget(&key); // its members are the garbage collector's
            return Ok(Outcome::Done);
        };
        let now = self.api.clock().now();
        let last = self.world.remember(&key, |memory| memory.last_pass.take());
        if let Some(last) = last
            && let Some(left) = BETWEEN_PASSES.checked_sub(decide::since(last, now))
            && !left.is_zero()
        {
            self.world.remember(&key, |memory| memory.last_pass = Some(last));
            return Ok(Outcome::After(left));
        }
        let pass = Pass {
            controller: self,
            key: &key,
            pool: pool.object(),
            failures: Vec::new(),
            active: Vec::new(),
            terminating: 0,
        };
        let outcome = pass.run().await?;
        self.world.remember(&key, |memory| memory.last_pass = Some(now));
        Ok(outcome)
    }
}

impl Pass<'_> {
    fn api(&self) -> &Api {
        &self.controller.api
    }

    fn now(&self) -> Timestamp {
        self.api().clock().now()
    }

    fn remember<T>(&self, act: impl FnOnce(&mut Memory) -> T) -> T {
        self.controller.world.remember(self.key, act)
    }

    async fn run(mut self) -> Result<Outcome, Status> {
        let settings = self.controller.settings.clone();
        let (namespace, name) = (self.pool.namespace(), self.pool.str_at(&["spec", "sandboxTemplateRef", "name"]));
        let template = self.api().get(&templates(), namespace, name).await;
        let wanted = match &template {
            Ok(template) => template.as_ref().map(|template| Wanted::new(template.object().clone())),
            Err(_) => None,
        };
        self.sort_out(wanted.as_ref()).await;
        let now = self.now();
        let (held, grace) = self.replace_overdue(now).await;

        let counts = Counts {
            desired: decide::desired(self.pool),
            active: self.active.len(),
            ready: self.active.iter().filter(|member| member.ready).count(),
            terminating: self.terminating,
        };
        let plan = self.remember(|memory| decide::plan(&counts, wanted.is_some(), &settings, memory, now));
        let Plan { create, delete, mut wake } = plan;
        if let Some(wanted) = &wanted {
            self.create(create, wanted).await;
        }
        self.delete_surplus(delete).await;
        if held > 0 {
            wake = decide::sooner(wake, Some(settings.unschedulable_recheck_interval));
        }
        self.tell(held, &counts).await;
        wake = decide::sooner(wake, grace.map(|left| self.jittered(left)));

        if let Err(error) = template {
            self.failures.push(format!("failed to get sandbox template {name:?}: {error}"));
        }
        if !self.failures.is_empty() {
            return Err(Status::unexpected(self.failures.join("\n")));
        }
        if let Some(patch) = decide::status_patch(self.pool, &decide::status(self.pool, &counts)) {
            self.api().patch(&warm_pools(), namespace, self.pool.name(), "status", patch).await?;
        }
        Ok(wake.map_or(Outcome::Done, Outcome::After))
    }

    /// Later by chance, so that pools filled together are not looked at together.
    fn jittered(&self, left: Duration) -> Duration {
        const STEPS: u64 = 1 << 20;
        let chance = self.api().ids().below(STEPS) as f64 / STEPS as f64;
        left.mul_f64(1.0 + JITTER * chance)
    }

    /// Finds the members that count; deletes what is stale, takes over what is nobody's.
    async fn sort_out(&mut self, wanted: Option<&Wanted>) {
        let mut staleness = wanted.map(Staleness::new);
        let now = self.now();
        for member in self.controller.world.members(self.pool) {
            let pending = self.remember(|memory| memory.expectations.is_pending(&member.uid, now));
            match decide::classify(&member, self.pool, pending, staleness.as_mut()) {
                Class::Foreign => {}
                Class::Terminating => self.terminating += 1,
                Class::Stale { owned: true } => {
                    if self.delete(&member).await.is_ok() {
                        self.terminating += 1;
                    }
                }
                Class::Stale { owned: false } => {
                    // Nobody would tell the pool that it is gone: nothing is expected.
                    if let Err(error) = self.delete_call(&member).await {
                        self.failures.push(error.to_string());
                    }
                }
                Class::Orphan => {
                    let references = with_controller(&member.object, self.pool);
                    self.update(member, Some(references)).await;
                }
                Class::Unlabelled => self.update(member, None).await,
                Class::Active => self.active.push(member),
            }
        }
    }

    /// Writes a member with the label that says how it came about, and perhaps other owners.
    async fn update(&mut self, member: Arc<Member>, references: Option<Value>) {
        let mut object = member.object.object().clone();
        if let Some(references) = references {
            object.set_at(&["metadata", "ownerReferences"], references);
        }
        object.set_at(&["metadata", "labels", LAUNCH_TYPE], "warm");
        for (key, value) in blueprint::of(&member.object) {
            object.set_at(&["spec", &key], value); // the whole goes through upstream's types
        }
        match self.api().update(&sandboxes(), object, "").await {
            Ok(updated) => self.active.push(Arc::new(Member::of(&updated))),
            Err(error) => self.failures.push(error.to_string()),
        }
    }

    async fn delete_call(&self, member: &Member) -> Result<(), Status> {
        let (namespace, name) = (member.object.namespace(), member.object.name());
        self.api().delete(&sandboxes(), namespace, name, &DeletePolicy::default()).await.map(drop)
    }

    /// Deletes a member of the pool and expects to see it go. A failure is put down.
    async fn delete(&mut self, member: &Member) -> Result<(), ()> {
        let now = self.now();
        self.remember(|memory| memory.expectations.expect_deletion(&member.uid, now));
        self.delete_call(member).await.map_err(|error| {
            self.remember(|memory| memory.expectations.deletion_seen(&member.uid));
            self.failures.push(error.to_string());
        })
    }

    /// Deletes members that have not become ready in time, but for those that nothing could replace: how many these are,
    /// and when the next member's time is up.
    async fn replace_overdue(&mut self, now: Timestamp) -> (usize, Option<Duration>) {
        let (mut held, mut next) = (0, None);
        let members = std::mem::take(&mut self.active);
        for member in members {
            match decide::health(&member, now, self.controller.settings.readiness_grace_period) {
                Health::Ready => self.active.push(member),
                Health::Waiting(left) => {
                    next = decide::sooner(next, Some(left));
                    self.active.push(member);
                }
                Health::Overdue if self.is_unschedulable(&member).await => {
                    held += 1;
                    self.active.push(member);
                }
                Health::Overdue => match self.delete(&member).await {
                    Ok(()) => self.terminating += 1,
                    Err(()) => self.active.push(member), // it is still there, and counts
                },
            }
        }
        (held, next)
    }

    async fn is_unschedulable(&self, member: &Member) -> bool {
        let object = &member.object;
        let name = object.annotation(POD_NAME).filter(|name| !name.is_empty()).unwrap_or_else(|| object.name());
        let pod = self.api().get(&pods(), object.namespace(), name).await;
        pod.is_ok_and(|pod| pod.is_some_and(|pod| decide::is_unschedulable(&pod)))
    }

    async fn create(&mut self, count: usize, wanted: &Wanted) {
        if count == 0 {
            return;
        }
        let member = wanted.member(self.pool, self.controller.settings.enable_warm_pool_eviction);
        let mut created = 0;
        for batch in decide::batches(count) {
            let mut failure = None;
            for _ in 0..batch {
                match self.api().create(&sandboxes(), member.clone()).await {
                    Ok(_) => created += 1,
                    Err(error) => {
                        failure.get_or_insert(error);
                    }
                }
            }
            if let Some(error) = failure {
                self.failures.push(error.to_string());
                break;
            }
        }
        self.remember(|memory| {
            memory.expectations.lower_creations(count - created);
            memory.replenish.created(created);
        });
    }

    async fn delete_surplus(&mut self, count: usize) {
        let mut members = std::mem::take(&mut self.active);
        decide::scale_down_order(&mut members);
        let mut at = 0;
        for batch in decide::batches(count) {
            let failures = self.failures.len();
            for member in members.iter().skip(at).take(batch) {
                let now = self.now();
                self.remember(|memory| memory.expectations.expect_deletion(&member.uid, now));
                if let Err(error) = self.delete_call(member).await {
                    self.remember(|memory| memory.expectations.deletion_seen(&member.uid));
                    if !error.is_not_found() {
                        self.failures.push(error.to_string()); // what is gone already is as wanted
                    }
                }
            }
            at += batch;
            if self.failures.len() > failures {
                break;
            }
        }
    }

    /// Says once that the pool cannot get on, and once that it does again.
    async fn tell(&self, held: usize, counts: &Counts) {
        let stuck = held > 0;
        if self.remember(|memory| std::mem::replace(&mut memory.stuck, stuck)) == stuck {
            return;
        }
        let (reason, note) = if stuck {
            let grace = self.controller.settings.readiness_grace_period;
            ("WarmPoolNotProgressing", decide::held_text(held, counts.desired, grace))
        } else {
            ("WarmPoolProgressing", "Warm pool is progressing again".to_owned())
        };
        let kind = EventKind::Events { controller: REPORTER, action: "Reconciling" };
        self.api().event(kind, self.pool, stuck, reason, &note).await;
    }
}

#[cfg(test)]
mod tests;
