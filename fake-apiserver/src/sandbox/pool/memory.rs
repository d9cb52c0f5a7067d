//! What the controller remembers of a pool between passes: writes not seen yet, pacing of refills. Pure; time comes in.
//!
//! Upstream: `extensions/controllers/warmpool_expectations.go`, and the pacing in `sandboxwarmpool_controller.go`.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::decide::since;

/// How long a write is waited for that is not seen (`expectationsTimeout`).
const PATIENCE: Duration = Duration::from_secs(300);

/// What is remembered of one pool.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pub(super) expectations: Expectations,
    pub(super) replenish: Replenish,
    pub(super) refill: Refill,
    /// Whether the pool holds members that cannot run, and has said so.
    pub(super) stuck: bool,
    /// When the last pass went well.
    pub(super) last_pass: Option<Timestamp>,
}

/// Creates and deletes that were made and have not come back through the watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Expectations {
    creations: usize,
    /// UIDs.
    deletions: BTreeSet<String>,
    /// When the last of them was put down; `None` if there are none.
    raised: Option<Timestamp>,
}

impl Expectations {
    fn is_late(&self, now: Timestamp) -> bool {
        self.raised.is_some_and(|raised| since(raised, now) > PATIENCE)
    }

    fn clear_if_done(&mut self) {
        if self.creations == 0 && self.deletions.is_empty() {
            self.raised = None;
        }
    }

    /// Whether everything has been seen, or has been waited for long enough.
    pub(super) fn are_met(&mut self, now: Timestamp) -> bool {
        if self.is_late(now) {
            *self = Self::default();
        }
        self.creations == 0 && self.deletions.is_empty()
    }

    /// Puts down creates about to be made, unless something is still to be seen.
    pub(super) fn try_creations(&mut self, count: usize, now: Timestamp) -> bool {
        if count == 0 || !self.are_met(now) {
            return false;
        }
        *self = Self { creations: count, deletions: BTreeSet::new(), raised: Some(now) };
        true
    }

    /// So many creates have been seen, or never happened.
    pub(super) fn lower_creations(&mut self, count: usize) {
        self.creations = self.creations.saturating_sub(count);
        self.clear_if_done();
    }

    /// Puts down a delete about to be made.
    pub(super) fn expect_deletion(&mut self, uid: &str, now: Timestamp) {
        self.deletions.insert(uid.to_owned());
        self.raised = Some(now);
    }

    /// A delete has been seen, or never happened.
    pub(super) fn deletion_seen(&mut self, uid: &str) {
        self.deletions.remove(uid);
        self.clear_if_done();
    }

    /// Whether a member was deleted and has not been seen to go.
    pub(super) fn is_pending(&self, uid: &str, now: Timestamp) -> bool {
        self.deletions.contains(uid) && !self.is_late(now)
    }
}

/// When members that were taken away are replaced (`--sandbox-warm-pool-replenish-delay`).
#[derive(Clone, Debug, Default)]
pub(super) struct Replenish {
    /// How many members there were last, with those created since; `None` before the first pass.
    members: Option<usize>,
    /// Nothing is created before.
    until: Option<Timestamp>,
}

impl Replenish {
    /// Takes in how many members there are; how long creation is to wait, if it is. Each drop begins the wait anew; a first
    /// fill and a scale-up do not wait.
    pub(super) fn observe(
        &mut self,
        active: usize,
        desired: usize,
        delay: Duration,
        now: Timestamp,
    ) -> Option<Duration> {
        if delay.is_zero() {
            return None;
        }
        let before = self.members.replace(active)?;
        if active >= desired {
            self.until = None;
        } else if active < before {
            self.until = now.checked_add(delay).ok();
        }
        self.until.map(|until| since(now, until)).filter(|left| !left.is_zero())
    }

    /// Members were created: they count before they are seen.
    pub(super) fn created(&mut self, count: usize) {
        self.members = self.members.map(|members| members + count);
    }
}

/// How many members may be created now: a token each, so many per second, never more than one second's
/// (`--sandbox-warm-pool-max-refill-rate`).
#[derive(Clone, Debug, Default)]
pub(super) struct Refill {
    /// Tokens and when they were counted; `None` before the first take.
    bucket: Option<(f64, Timestamp)>,
}

impl Refill {
    /// Takes tokens, fewer than asked for if there are no more; then also how long the next one takes. A rate of 0 gives
    /// any number.
    pub(super) fn take(&mut self, want: usize, rate: f64, now: Timestamp) -> (usize, Option<Duration>) {
        if rate <= 0.0 {
            return (want, None);
        }
        let capacity = rate.max(1.0);
        let (mut tokens, counted) = self.bucket.unwrap_or((capacity, now));
        tokens = (tokens + since(counted, now).as_secs_f64() * rate).min(capacity);
        let granted = (1..=want).take_while(|&count| count as f64 <= tokens).last().unwrap_or_default();
        tokens -= granted as f64;
        self.bucket = Some((tokens, now));
        // Rounded up: not a hair before the token is there.
        let wait = Duration::from_nanos(((1.0 - tokens) / rate * 1e9).ceil() as u64);
        (granted, (granted < want).then_some(wait))
    }

    /// Gives back what was taken and not used.
    pub(super) fn give_back(&mut self, count: usize, rate: f64) {
        if let Some((tokens, _)) = &mut self.bucket {
            *tokens = (*tokens + count as f64).min(rate.max(1.0));
        }
    }
}

#[cfg(test)]
mod tests;
