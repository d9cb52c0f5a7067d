//! [`Queue`]: what an actor has to look at, now and later. Pure, but for the one wait.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;

/// The first delay after a failure; it doubles with each further one (`workqueue.DefaultTypedControllerRateLimiter`).
const FIRST_DELAY: Duration = Duration::from_millis(5);
/// The longest delay after a failure.
const LONGEST_DELAY: Duration = Duration::from_secs(1000);

/// How a reconciliation ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// Look again after that time, or earlier if something changes.
    After(Duration),
    /// Look again soon, as after a failure: something is not there yet.
    Retry,
}

/// Keys in the order in which they came, each at most once; and keys that wait for their time.
#[derive(Debug)]
pub struct Queue<K> {
    ready: VecDeque<K>,
    queued: BTreeSet<K>,
    /// Where a key stands in `by_time`; a key waits for its earliest time only.
    waiting: BTreeMap<K, Timestamp>,
    by_time: BTreeSet<(Timestamp, K)>,
    failures: BTreeMap<K, u32>,
    /// Keys that are being looked at, and whether they came again meanwhile: nobody looks at one twice at a time.
    taken: BTreeMap<K, bool>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            ready: VecDeque::new(),
            queued: BTreeSet::new(),
            waiting: BTreeMap::new(),
            by_time: BTreeSet::new(),
            failures: BTreeMap::new(),
            taken: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Queue<K> {
    /// Adds a key, unless it is there already.
    pub fn add(&mut self, key: K) {
        if let Some(again) = self.taken.get_mut(&key) {
            *again = true;
        } else if self.queued.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    /// Adds keys in order.
    pub fn extend(&mut self, keys: impl IntoIterator<Item = K>) {
        for key in keys {
            self.add(key);
        }
    }

    /// Adds a key when the time has come; of several times the earliest counts.
    pub fn add_at(&mut self, key: K, time: Timestamp) {
        if let Some(&earlier) = self.waiting.get(&key) {
            if earlier <= time {
                return;
            }
            self.by_time.remove(&(earlier, key.clone()));
        }
        self.waiting.insert(key.clone(), time);
        self.by_time.insert((time, key));
    }

    /// The next key to look at, if there is one at that time; until [`Queue::done`] it is not given again.
    pub fn take(&mut self, now: Timestamp) -> Option<K> {
        while let Some((time, key)) = self.by_time.first().cloned()
            && time <= now
        {
            self.by_time.pop_first();
            self.waiting.remove(&key);
            self.add(key);
        }
        let key = self.ready.pop_front()?;
        self.queued.remove(&key);
        self.taken.insert(key.clone(), false);
        Some(key)
    }

    /// Puts down how looking at a key ended; `None` stands for a failure.
    pub fn done(&mut self, key: K, outcome: Option<Outcome>, now: Timestamp) {
        if self.taken.remove(&key) == Some(true) {
            self.add(key.clone());
        }
        match outcome {
            Some(Outcome::Done) => {
                self.failures.remove(&key);
            }
            Some(Outcome::After(delay)) => {
                self.failures.remove(&key);
                self.add_at(key, later(now, delay));
            }
            Some(Outcome::Retry) | None => {
                let failures = self.failures.entry(key.clone()).or_default();
                let delay = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(*failures)).min(LONGEST_DELAY);
                *failures = failures.saturating_add(1);
                self.add_at(key, later(now, delay));
            }
        }
    }

    /// Whether nothing is to be done now (later there may be).
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty()
    }

    /// When the first waiting key comes.
    pub fn next_time(&self) -> Option<Timestamp> {
        self.by_time.first().map(|(time, _)| *time)
    }

    /// Waits until the first waiting key comes; for ever if none waits. Cancel-safe.
    pub async fn wait(&self, clock: &Clock) {
        match self.next_time() {
            Some(time) => clock.sleep_until(time).await,
            None => std::future::pending().await,
        }
    }
}

fn later(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn a_key_that_is_added_twice_is_looked_at_once_and_in_order() {
        let mut queue = Queue::default();
        queue.extend(["b", "a", "b"]);
        assert_eq!(queue.take(at(0)), Some("b"));
        queue.add("b"); // while it is being looked at: once more, afterwards
        assert_eq!([queue.take(at(0)), queue.take(at(0))], [Some("a"), None]);
        queue.done("b", Some(Outcome::Done), at(0));
        assert_eq!([queue.take(at(0)), queue.take(at(0))], [Some("b"), None]);
    }

    #[test]
    fn a_failing_key_comes_back_after_delays_that_double_up_to_1000_seconds() {
        let mut queue = Queue::default();
        let mut delays = Vec::new();
        for _ in 0..20 {
            queue.done("a", None, at(0));
            let time = queue.next_time().unwrap();
            delays.push(time.duration_since(at(0)).as_millis());
            assert_eq!(queue.take(time), Some("a"));
        }
        assert_eq!(delays[..4], [5, 10, 20, 40]);
        assert_eq!(delays[17..], [655_360, 1_000_000, 1_000_000]);
        queue.done("a", Some(Outcome::Done), at(0));
        queue.done("a", None, at(0));
        assert_eq!(queue.next_time().unwrap().duration_since(at(0)).as_millis(), 5);
    }

    #[test]
    fn of_two_times_the_earlier_counts() {
        let mut queue = Queue::default();
        queue.add_at("a", at(10));
        queue.add_at("a", at(5));
        queue.add_at("a", at(7));
        assert_eq!((queue.take(at(4)), queue.next_time()), (None, Some(at(5))));
        assert_eq!((queue.take(at(20)), queue.take(at(20))), (Some("a"), None));
    }
}
