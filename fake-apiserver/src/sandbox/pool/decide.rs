//! What is to be done about a pool and its members. Pure: members and memory in, verdicts and a plan out.
//!
//! Upstream: `extensions/controllers/sandboxwarmpool_controller.go`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::{
    super::{
        blueprint, conditions,
        keys::{
            API_VERSION, CREATED_BY, LAUNCH_TYPE, POD_TEMPLATE_HASH, SAFE_TO_EVICT, TEMPLATE_HASH, TEMPLATE_REF,
            TEMPLATE_REF_HASH, WARM_POOL, name_hash,
        },
        ownership::controller_reference,
    },
    Settings,
    memory::Memory,
};
use crate::base::{Object, Stored};

/// What a wake-up at the end of the grace period is late, so that it does not come before (`graceRequeueSlack`).
const GRACE_SLACK: Duration = Duration::from_secs(2);
/// When a pool is looked at again that waits to see its own writes, if nothing wakes it
/// (`expectationsPendingRequeueDelay`).
const UNSEEN_RECHECK: Duration = Duration::from_secs(30);

/// A Sandbox with a pool's label, and what decisions ask of it.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) object: Arc<Stored>,
    pub(super) uid: String,
    /// UID of what controls it; `None` for an orphan.
    pub(super) owner: Option<String>,
    pub(super) deleting: bool,
    pub(super) created: Option<Timestamp>,
    pub(super) ready: bool,
}

impl Member {
    pub(super) fn of(object: &Arc<Stored>) -> Self {
        let conditions = object.at(&["status", "conditions"]).and_then(Value::as_array);
        let conditions = conditions.map(Vec::as_slice).unwrap_or_default();
        Self {
            uid: object.uid().into(),
            owner: object.controller().map(|owner| owner.uid),
            deleting: object.is_deleting(),
            created: object.creation_timestamp(),
            ready: conditions::text(conditions, "Ready", "status") == "True",
            object: object.clone(),
        }
    }
}

/// The template that a pool's members are to be made from.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    template: Object,
    /// The hash of its name.
    ref_hash: String,
    /// The hash of its blueprint.
    hash: String,
}

impl Wanted {
    pub(super) fn new(template: Object) -> Self {
        Self { ref_hash: name_hash(template.name()), hash: blueprint::hash(&template), template }
    }

    /// A new member of the pool, without a name.
    pub(super) fn member(&self, pool: &Object, evictable: bool) -> Object {
        let mut blueprint = blueprint::of(&self.template);
        let pod_template_hash = name_hash(&blueprint["podTemplate"].to_string());
        let marks = [
            (WARM_POOL, name_hash(pool.name())),
            (TEMPLATE_REF_HASH, self.ref_hash.clone()),
            (POD_TEMPLATE_HASH, pod_template_hash),
            (TEMPLATE_HASH, self.hash.clone()),
        ];
        if let Some(pod_template) = blueprint.get_mut("podTemplate") {
            blueprint::secure(&self.template, &mut pod_template["spec"]);
            let metadata = &mut pod_template["metadata"];
            for (key, value) in &marks {
                metadata["labels"][key] = json!(value);
            }
            if evictable && metadata["annotations"].get(SAFE_TO_EVICT).is_none() {
                metadata["annotations"][SAFE_TO_EVICT] = "true".into();
            }
        }
        let mut labels: Map<String, Value> = marks.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
        labels.insert(LAUNCH_TYPE.into(), "warm".into());
        labels.insert(CREATED_BY.into(), "controller".into());

        let mut member = Object::new(API_VERSION, "Sandbox", pool.namespace(), "");
        let metadata = member.metadata_mut();
        metadata.remove("name");
        metadata.insert("generateName".into(), format!("{}-", pool.name()).into());
        metadata.insert("labels".into(), labels.into());
        metadata.insert("annotations".into(), json!({TEMPLATE_REF: self.template.name()}));
        metadata.insert("ownerReferences".into(), vec![controller_reference(pool)].into());
        member.set("spec", blueprint);
        member
    }
}

/// Which members are as the template would have them today. Of members with one hash one is compared.
#[derive(Debug)]
pub(super) struct Staleness<'a> {
    wanted: &'a Wanted,
    vetted: BTreeMap<String, bool>,
}

impl<'a> Staleness<'a> {
    pub(super) fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, vetted: BTreeMap::new() }
    }

    /// Whether a member is of another template, or of another blueprint; metadata of pods and claims does not count.
    pub(super) fn is_stale(&mut self, member: &Member) -> bool {
        let Wanted { template, ref_hash, hash } = self.wanted;
        if member.object.label(TEMPLATE_REF_HASH) != Some(ref_hash) {
            return true;
        }
        let differs = || !blueprint::is_current(template, &member.object);
        let old_hash = member.object.label(TEMPLATE_HASH).unwrap_or_default();
        if member.owner.is_none() || old_hash.is_empty() {
            return differs(); // an orphan's label is anybody's word
        }
        if old_hash == hash {
            return false;
        }
        if let Some(&stale) = self.vetted.get(old_hash) {
            return stale;
        }
        let stale = differs();
        self.vetted.insert(old_hash.to_owned(), stale);
        stale
    }
}

/// What a Sandbox with the pool's label is to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// On its way out, and still taking a place.
    Terminating,
    /// Nothing: somebody else's, or on its way out and nobody's.
    Foreign,
    /// To be deleted, as the template has changed.
    Stale {
        /// Whether it is the pool's, and so takes a place until it is gone.
        owned: bool,
    },
    /// To be taken over.
    Orphan,
    /// The pool's, without the label that says how it came about.
    Unlabelled,
    /// The pool's.
    Active,
}

/// What a Sandbox is to the pool. `pending` says whether the pool has deleted it already; `staleness` is there if the
/// template is.
pub(super) fn classify(member: &Member, pool: &Object, pending: bool, staleness: Option<&mut Staleness<'_>>) -> Class {
    let owned = member.owner.as_deref() == Some(pool.uid());
    let orphan = member.owner.is_none();
    if member.deleting || (owned && pending) {
        return if owned { Class::Terminating } else { Class::Foreign };
    }
    if !owned && !orphan {
        return Class::Foreign;
    }
    if let Some(staleness) = staleness
        && (orphan || recreates(pool))
        && staleness.is_stale(member)
    {
        return Class::Stale { owned };
    }
    if orphan {
        Class::Orphan
    } else if member.object.label(LAUNCH_TYPE) == Some("warm") {
        Class::Active
    } else {
        Class::Unlabelled
    }
}

/// Whether the pool replaces members that are stale; any other strategy waits until they are used up.
fn recreates(pool: &Object) -> bool {
    pool.str_at(&["spec", "updateStrategy", "type"]) == "Recreate"
}

/// How a member fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    /// Ready.
    Ready,
    /// Not ready, and it has that long yet.
    Waiting(Duration),
    /// Not ready for too long.
    Overdue,
}

/// How a member fares.
pub(super) fn health(member: &Member, now: Timestamp, grace: Duration) -> Health {
    match member.created {
        _ if member.ready => Health::Ready,
        None => Health::Ready,
        Some(created) => match grace.checked_sub(since(created, now)) {
            Some(left) => Health::Waiting(left + GRACE_SLACK),
            None => Health::Overdue,
        },
    }
}

/// The time from one moment to a later one; nothing if it is not later.
pub(super) fn since(earlier: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(earlier)).unwrap_or_default()
}

/// Whether the scheduler has found no place for a pod.
pub(super) fn is_unschedulable(pod: &Object) -> bool {
    let conditions = pod.at(&["status", "conditions"]).and_then(Value::as_array);
    let scheduled = conditions.and_then(|list| conditions::find(list, "PodScheduled"));
    !pod.is_deleting() && scheduled.is_some_and(|now| now["status"] == "False" && now["reason"] == "Unschedulable")
}

/// How many members there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// How many are wanted.
    pub(super) desired: usize,
    /// Those that count.
    pub(super) active: usize,
    /// Those of them that are ready.
    pub(super) ready: usize,
    /// Those that are on their way out.
    pub(super) terminating: usize,
}

/// How many members a pool wants.
pub(super) fn desired(pool: &Object) -> usize {
    let replicas = pool.at(&["spec", "replicas"]).and_then(Value::as_i64).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

/// What to do about the number of members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// How many to create.
    pub(super) create: usize,
    /// How many to delete.
    pub(super) delete: usize,
    /// When to look again at the latest.
    pub(super) wake: Option<Duration>,
}

/// What to do. Members on their way out hold their places: nothing is created before they are gone. Nothing is created or
/// deleted either while an earlier write of this pool has not been seen.
pub(super) fn plan(counts: &Counts, template: bool, settings: &Settings, memory: &mut Memory, now: Timestamp) -> Plan {
    let &Counts { desired, active, ready: _, terminating } = counts;
    let hold = memory.replenish.observe(active, desired, settings.replenish_delay, now);
    let mut plan = Plan::default();
    if let Some(hold) = hold
        && active < desired
        && template
    {
        plan.wake = Some(hold);
    } else if active + terminating < desired && template {
        let missing = (desired - active - terminating).min(settings.max_batch_size);
        let (granted, wait) = memory.refill.take(missing, settings.max_refill_rate, now);
        if granted == 0 {
            plan.wake = wait; // of a part that is granted the watch tells
        } else if memory.expectations.try_creations(granted, now) {
            plan.create = granted;
        } else {
            memory.refill.give_back(granted, settings.max_refill_rate);
            plan.wake = Some(UNSEEN_RECHECK);
        }
    }
    if active > desired {
        if memory.expectations.are_met(now) {
            plan.delete = (active - desired).min(settings.max_batch_size);
        } else {
            plan.wake = sooner(plan.wake, Some(UNSEEN_RECHECK));
        }
    }
    plan
}

/// The members in the order in which they go when there are too many: what is not ready first, then the newest.
pub(super) fn scale_down_order(active: &mut [Arc<Member>]) {
    active.sort_by(|a, b| (a.ready, b.created).cmp(&(b.ready, a.created)));
}

/// The sizes in which so many calls are made: 1, 2, 4 and so on, so that what fails at all fails cheaply
/// (`slowStartBatch`).
pub(super) fn batches(count: usize) -> impl Iterator<Item = usize> {
    let mut left = count;
    let sizes = std::iter::successors(Some(1_usize), |size| size.checked_mul(2));
    sizes.map_while(move |size| {
        let size = size.min(left);
        left -= size;
        (size > 0).then_some(size)
    })
}

/// The earlier of two times to wake up at.
pub(super) fn sooner(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}

/// The status of a pool with so many members; upstream's type leaves zeros out.
pub(super) fn status(pool: &Object, counts: &Counts) -> Map<String, Value> {
    let numbers = [
        ("replicas", i64::try_from(counts.active).unwrap_or(i64::MAX)),
        ("readyReplicas", i64::try_from(counts.ready).unwrap_or(i64::MAX)),
        ("observedGeneration", pool.generation()),
    ];
    let numbers = numbers.into_iter().filter(|(_, number)| *number != 0);
    let mut status: Map<_, _> = numbers.map(|(member, number)| (member.to_owned(), number.into())).collect();
    status.insert("selector".into(), format!("{WARM_POOL}={}", name_hash(pool.name())).into());
    status
}

/// The merge patch from the status that a pool has to a new one; `None` if nothing changes.
pub(super) fn status_patch(pool: &Object, new: &Map<String, Value>) -> Option<Value> {
    let old = pool.get("status").and_then(Value::as_object);
    let known = ["replicas", "readyReplicas", "observedGeneration", "selector"];
    let old =
        |member: &str| old.and_then(|old| old.get(member)).filter(|value| **value != json!(0) && **value != json!(""));
    let changed = known.into_iter().filter(|member| old(member) != new.get(*member));
    let patch: Map<_, _> =
        changed.map(|member| (member.to_owned(), new.get(member).cloned().unwrap_or(Value::Null))).collect();
    (!patch.is_empty()).then(|| json!({"status": patch}))
}

/// Why a pool holds members that cannot run.
pub(super) fn held_text(held: usize, desired: usize, grace: Duration) -> String {
    format!(
        "{held}/{desired} sandboxes are unschedulable past the {} readiness grace period; holding them instead of \
         replacing (replacements would be equally unschedulable)",
        go_duration(grace)
    )
}

/// A duration as Go prints it: `5m0s`, `1.5s`, `300ms`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let decimal = |unit: u128| {
        let (whole, rest) = (nanos / unit, nanos % unit);
        let width = unit.ilog10() as usize;
        let fraction = format!("{rest:0width$}");
        match fraction.trim_end_matches('0') {
            "" => whole.to_string(),
            fraction => format!("{whole}.{fraction}"),
        }
    };
    match nanos {
        0 => "0s".into(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(1_000_000)),
        _ => {
            let (hours, minutes) = (duration.as_secs() / 3600, duration.as_secs() / 60 % 60);
            let seconds = Duration::new(duration.as_secs() % 60, duration.subsec_nanos());
            let mut text = match (hours, minutes) {
                (0, 0) => String::new(),
                (0, minutes) => format!("{minutes}m"),
                (hours, minutes) => format!("{hours}h{minutes}m"),
            };
            text.push_str(&seconds.as_secs().to_string());
            let fraction = format!("{:09}", seconds.subsec_nanos());
            let fraction = fraction.trim_end_matches('0');
            if !fraction.is_empty() {
                text.push('.');
                text.push_str(fraction);
            }
            text.push('s');
            text
        }
    }
}

#[cfg(test)]
mod tests;
