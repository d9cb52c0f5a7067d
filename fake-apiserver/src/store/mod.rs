//! The store: keys, opaque values, revisions and order. It knows nothing of kinds, verbs, HTTP or time.
//!
//! One mutex, one revision counter, one way to change anything: [`Store::commit`]. Every change is kept in a bounded log
//! (`log`), from which a [`Watch`] is served and older states are read back; so a watch and a list cannot disagree.

mod log;
mod watch;

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard},
};

use self::log::Log;
pub use self::{log::Event, watch::Watch};
use crate::base::{Key, Stored};

/// A value with the revision that wrote it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Revision of the commit that wrote the value.
    pub revision: u64,
    /// The value.
    pub value: Arc<Stored>,
}

/// What a commit does to its key.
pub enum Change<'a> {
    /// Writes the value made for the new revision.
    Put(Box<dyn FnOnce(u64) -> Stored + 'a>),
    /// Removes the key; the last value, made for the new revision, goes to the watchers.
    Delete(Box<dyn FnOnce(u64) -> Stored + 'a>),
}

/// Why a commit was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// The revision that the key has now; `None` where it does not exist.
    pub actual: Option<u64>,
}

/// The revision asked for is before the oldest one that can be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision that can be asked for.
    pub oldest: u64,
}

/// All objects of a cluster, with their recent history.
#[derive(Debug)]
pub struct Store {
    state: Mutex<State>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    revision: u64,
    buckets: BTreeMap<Arc<str>, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    entries: BTreeMap<(String, String), Entry>,
    log: Log,
}

impl Store {
    /// An empty store that keeps that many events of each bucket.
    pub fn new(capacity: usize) -> Self {
        // Revision 0 means "any" and 1 is never written, as with etcd.
        Self { state: Mutex::new(State { revision: 1, buckets: BTreeMap::new() }), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under this lock")
    }

    /// The newest revision.
    pub fn revision(&self) -> u64 {
        self.lock().revision
    }

    /// The newest revision, and the key's value at it.
    pub fn get(&self, key: &Key) -> (u64, Option<Entry>) {
        let state = self.lock();
        let bucket = state.buckets.get(&key.bucket);
        // A tuple key cannot be looked up by borrowed parts, so the two strings are cloned.
        let entry = bucket.and_then(|bucket| bucket.entries.get(&(key.namespace.clone(), key.name.clone())));
        (state.revision, entry.cloned())
    }

    /// The newest revision, and all values of a bucket (or of one namespace of it) at it, in key order.
    pub fn list(&self, bucket: &str, namespace: Option<&str>) -> (u64, Vec<Entry>) {
        let state = self.lock();
        let entries = state.buckets.get(bucket).map(|bucket| bucket.list(namespace)).unwrap_or_default();
        (state.revision, entries)
    }

    /// How many values a bucket has, in all or in one namespace.
    pub fn count(&self, bucket: &str, namespace: Option<&str>) -> usize {
        let state = self.lock();
        let Some(bucket) = state.buckets.get(bucket) else { return 0 };
        match namespace {
            None => bucket.entries.len(),
            Some(namespace) => bucket.range(namespace).count(),
        }
    }

    /// As [`Store::list`], but of an earlier revision.
    ///
    /// # Errors
    /// If the log no longer reaches back that far.
    ///
    /// # Panics
    /// If the revision lies in the future.
    pub fn list_at(&self, bucket: &str, namespace: Option<&str>, revision: u64) -> Result<Vec<Entry>, TooOld> {
        let state = self.lock();
        assert!(revision <= state.revision, "revision {revision} is not written yet");
        match state.buckets.get(bucket) {
            Some(bucket) => bucket.list_at(namespace, revision),
            None => Ok(Vec::new()),
        }
    }

    /// Changes one key, if its revision still is the expected one (`None`: it must not exist). The only way to change
    /// anything; watchers are woken when it is done.
    ///
    /// # Errors
    /// If the key has another revision by now; nothing is changed then.
    pub fn commit(&self, key: &Key, expected: Option<u64>, change: Change<'_>) -> Result<Entry, Stale> {
        let (entry, wake) = {
            let mut state = self.lock();
            let place = (key.namespace.clone(), key.name.clone());
            let old = state.buckets.get(&key.bucket).and_then(|bucket| bucket.entries.get(&place)).cloned();
            let actual = old.as_ref().map(|entry| entry.revision);
            if actual != expected {
                return Err(Stale { actual });
            }
            state.revision += 1;
            let revision = state.revision;
            let bucket = bucket_mut(&mut state.buckets, &key.bucket, self.capacity);
            let (value, deleted) = match change {
                Change::Put(make) => (Arc::new(make(revision)), false),
                Change::Delete(make) => (Arc::new(make(revision)), true),
            };
            let entry = Entry { revision, value };
            if deleted {
                bucket.entries.remove(&place);
            } else {
                bucket.entries.insert(place, entry.clone());
            }
            bucket.log.push(Event { revision, old, value: entry.value.clone(), deleted });
            (entry, bucket.log.wake())
        };
        wake.send_replace(entry.revision);
        Ok(entry)
    }

    /// A watch on a bucket (or one namespace of it) that first hands out the event after that revision.
    ///
    /// # Errors
    /// If the log no longer reaches back that far.
    pub fn watch(self: &Arc<Self>, bucket: &Arc<str>, namespace: Option<&str>, after: u64) -> Result<Watch, TooOld> {
        let mut state = self.lock();
        let log = &bucket_mut(&mut state.buckets, bucket, self.capacity).log;
        log.check(after)?;
        Ok(Watch::new(self.clone(), bucket.clone(), namespace.map(str::to_owned), after, log.wake().subscribe()))
    }

    /// Forgets all history up to now: watches and lists from earlier revisions are too old afterwards.
    pub fn compact(&self) {
        let mut state = self.lock();
        let revision = state.revision;
        for bucket in state.buckets.values_mut() {
            bucket.log.compact(revision);
        }
    }

    fn events_after(&self, bucket: &str, after: u64, limit: usize) -> Result<(Vec<Event>, u64), TooOld> {
        let state = self.lock();
        let bucket = state.buckets.get(bucket).expect("a watch makes its bucket");
        bucket.log.check(after)?;
        let events: Vec<_> = bucket.log.after(after).take(limit).cloned().collect();
        let seen = if events.len() == limit { events[limit - 1].revision } else { state.revision };
        Ok((events, seen))
    }
}

fn bucket_mut<'a>(buckets: &'a mut BTreeMap<Arc<str>, Bucket>, name: &Arc<str>, capacity: usize) -> &'a mut Bucket {
    buckets.entry(name.clone()).or_insert_with(|| Bucket { entries: BTreeMap::new(), log: Log::new(capacity) })
}

impl Bucket {
    fn range(&self, namespace: &str) -> impl Iterator<Item = (&(String, String), &Entry)> {
        let start = Bound::Included((namespace.to_owned(), String::new()));
        self.entries.range((start, Bound::Unbounded)).take_while(move |((ns, _), _)| ns == namespace)
    }

    fn list(&self, namespace: Option<&str>) -> Vec<Entry> {
        match namespace {
            None => self.entries.values().cloned().collect(),
            Some(namespace) => self.range(namespace).map(|(_, entry)| entry.clone()).collect(),
        }
    }

    fn list_at(&self, namespace: Option<&str>, revision: u64) -> Result<Vec<Entry>, TooOld> {
        self.log.check(revision)?;
        let mut entries: BTreeMap<(String, String), Entry> = match namespace {
            None => self.entries.clone(),
            Some(namespace) => self.range(namespace).map(|(place, entry)| (place.clone(), entry.clone())).collect(),
        };
        for event in self.log.after(revision).rev() {
            if namespace.is_some_and(|namespace| namespace != event.value.namespace()) {
                continue;
            }
            let place = (event.value.namespace().to_owned(), event.value.name().to_owned());
            match &event.old {
                Some(old) => entries.insert(place, old.clone()),
                None => entries.remove(&place),
            };
        }
        Ok(entries.into_values().collect())
    }
}

#[cfg(test)]
mod tests;
