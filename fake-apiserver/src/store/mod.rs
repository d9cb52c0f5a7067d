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

pub use self::{log::Event, watch::Watch};
use self::{log::Log, watch::Subscriber};
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
    /// How many watches there have been.
    watches: u64,
    buckets: BTreeMap<Arc<str>, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    entries: Entries,
    log: Log,
    /// Who watches, in the order in which they came.
    watches: BTreeMap<u64, Subscriber>,
}

/// Values by namespace and name.
type Entries = BTreeMap<String, BTreeMap<String, Entry>>;

/// Which values of a bucket to read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range<'a> {
    /// Those of one namespace.
    pub namespace: Option<&'a str>,
    /// As they were after that revision; as they are by default.
    pub at: Option<u64>,
    /// Those behind this namespace and name.
    pub after: Option<(&'a str, &'a str)>,
    /// At most that many; 0 for all.
    pub limit: usize,
}

/// Values of a bucket, in key order.
#[derive(Debug, Default)]
pub struct Page {
    /// The newest revision.
    pub revision: u64,
    /// The values.
    pub entries: Vec<Entry>,
    /// If the limit left any out: the first of those and what stands behind it, whether it was asked for or not.
    pub rest: usize,
}

impl Store {
    /// An empty store that keeps that many events of each bucket.
    pub fn new(capacity: usize) -> Self {
        // Revision 0 means "any" and 1 is never written, as with etcd.
        Self { state: Mutex::new(State { revision: 1, watches: 0, buckets: BTreeMap::new() }), capacity }
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
        (state.revision, bucket.and_then(|bucket| bucket.get(key)).cloned())
    }

    /// The newest revision, and all values of a bucket (or of one namespace of it) at it, in key order.
    pub fn list(&self, bucket: &str, namespace: Option<&str>) -> (u64, Vec<Entry>) {
        let range = Range { namespace, ..Range::default() };
        let page = self.page(bucket, &range, &|_| true).expect("the present is never too old");
        (page.revision, page.entries)
    }

    /// How many values a bucket has, in all or in one namespace.
    pub fn count(&self, bucket: &str, namespace: Option<&str>) -> usize {
        let state = self.lock();
        let Some(bucket) = state.buckets.get(bucket) else { return 0 };
        match namespace {
            None => bucket.entries.values().map(BTreeMap::len).sum(),
            Some(namespace) => bucket.entries.get(namespace).map_or(0, BTreeMap::len),
        }
    }

    /// The values of a range that are asked for. The store waits meanwhile, so asking should be cheap.
    ///
    /// # Errors
    /// If the log no longer reaches back to [`Range::at`].
    ///
    /// # Panics
    /// If that revision lies in the future.
    pub fn page(&self, bucket: &str, range: &Range<'_>, wanted: &dyn Fn(&Stored) -> bool) -> Result<Page, TooOld> {
        let state = self.lock();
        let revision = state.revision;
        assert!(range.at.is_none_or(|at| at <= revision), "revision {:?} is not written yet", range.at);
        let Some(bucket) = state.buckets.get(bucket) else { return Ok(Page { revision, ..Page::default() }) };
        let past = range.at.map(|at| bucket.at(range.namespace, at)).transpose()?.flatten();
        let mut values = walk(past.as_ref().unwrap_or(&bucket.entries), range);
        let mut page = Page { revision, ..Page::default() };
        for entry in values.by_ref().filter(|entry| wanted(&entry.value)) {
            if range.limit > 0 && page.entries.len() == range.limit {
                page.rest = 1;
                break;
            }
            page.entries.push(entry.clone());
        }
        if page.rest > 0 {
            page.rest += values.count();
        }
        Ok(page)
    }

    /// Changes one key, if its revision still is the expected one (`None`: it must not exist). The only way to change
    /// anything; watchers are woken when it is done.
    ///
    /// # Errors
    /// If the key has another revision by now; nothing is changed then.
    pub fn commit(&self, key: &Key, expected: Option<u64>, change: Change<'_>) -> Result<Entry, Stale> {
        let (entry, woken) = {
            let mut state = self.lock();
            let old = state.buckets.get(&key.bucket).and_then(|bucket| bucket.get(key)).cloned();
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
                bucket.remove(key);
            } else {
                bucket.insert(key, entry.clone());
            }
            bucket.log.push(Event { revision, old, value: entry.value.clone(), deleted });
            let woken: Vec<_> = bucket.watches.values_mut().filter_map(|watch| watch.hears(&entry)).collect();
            (entry, woken)
        };
        woken.iter().for_each(|watch| watch.notify_one());
        Ok(entry)
    }

    /// A watch on a bucket (or one namespace of it, or one name) that first hands out the event after that revision.
    ///
    /// # Errors
    /// If the log no longer reaches back that far.
    pub fn watch(
        self: &Arc<Self>,
        bucket: &Arc<str>,
        namespace: Option<&str>,
        name: Option<&str>,
        after: u64,
    ) -> Result<Watch, TooOld> {
        let mut state = self.lock();
        state.watches += 1;
        let id = state.watches;
        let Bucket { log, watches, .. } = bucket_mut(&mut state.buckets, bucket, self.capacity);
        log.check(after)?;
        let subscriber = Subscriber::new(namespace, name, log.after(after).next().map(|event| event.revision));
        let wake = subscriber.wake();
        watches.insert(id, subscriber);
        Ok(Watch::new(self.clone(), bucket.clone(), id, wake))
    }

    /// Forgets all history up to now: watches and lists from earlier revisions are too old afterwards.
    pub fn compact(&self) {
        let mut state = self.lock();
        let revision = state.revision;
        for bucket in state.buckets.values_mut() {
            bucket.log.compact(revision);
        }
    }

    /// The next events of a watch.
    fn events(&self, bucket: &str, id: u64, limit: usize) -> Result<Vec<Event>, TooOld> {
        let mut state = self.lock();
        let Bucket { log, watches, .. } = state.buckets.get_mut(bucket).expect("a watch makes its bucket");
        let watch = watches.get_mut(&id).expect("a watch is known until it is dropped");
        let Some(next) = watch.next else { return Ok(Vec::new()) };
        log.check(next - 1)?;
        let events: Vec<_> =
            log.after(next - 1).filter(|event| watch.sees(&event.value)).take(limit).cloned().collect();
        watch.next = (events.len() == limit).then(|| events[limit - 1].revision + 1);
        Ok(events)
    }

    /// The revision up to which a watch has handed out everything.
    fn seen(&self, bucket: &str, id: u64) -> u64 {
        let state = self.lock();
        let watch = state.buckets.get(bucket).and_then(|bucket| bucket.watches.get(&id));
        watch.and_then(|watch| watch.next).map_or(state.revision, |next| next - 1)
    }

    fn forget_watch(&self, bucket: &str, id: u64) {
        // A watch may be dropped while its task panics: there is no second panic here.
        if let Ok(mut state) = self.state.lock()
            && let Some(bucket) = state.buckets.get_mut(bucket)
        {
            bucket.watches.remove(&id);
        }
    }
}

fn bucket_mut<'a>(buckets: &'a mut BTreeMap<Arc<str>, Bucket>, name: &Arc<str>, capacity: usize) -> &'a mut Bucket {
    buckets.entry(name.clone()).or_insert_with(|| Bucket {
        entries: BTreeMap::new(),
        log: Log::new(capacity),
        watches: BTreeMap::new(),
    })
}

impl Bucket {
    fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(&key.namespace)?.get(&key.name)
    }

    fn insert(&mut self, key: &Key, entry: Entry) {
        put(&mut self.entries, &key.namespace, &key.name, entry);
    }

    fn remove(&mut self, key: &Key) {
        take(&mut self.entries, &key.namespace, &key.name);
    }

    /// The values after a revision; `None` where that is the present.
    fn at(&self, namespace: Option<&str>, revision: u64) -> Result<Option<Entries>, TooOld> {
        self.log.check(revision)?;
        if self.log.after(revision).next().is_none() {
            return Ok(None);
        }
        let mut entries: Entries = match namespace {
            None => self.entries.clone(),
            Some(namespace) => {
                self.entries.get_key_value(namespace).map(|(n, e)| (n.clone(), e.clone())).into_iter().collect()
            }
        };
        for event in self.log.after(revision).rev() {
            let (space, name) = (event.value.namespace(), event.value.name());
            if namespace.is_some_and(|namespace| namespace != space) {
                continue;
            }
            match &event.old {
                Some(old) => put(&mut entries, space, name, old.clone()),
                None => take(&mut entries, space, name),
            }
        }
        Ok(Some(entries))
    }
}

fn put(entries: &mut Entries, namespace: &str, name: &str, entry: Entry) {
    match entries.get_mut(namespace) {
        Some(names) => names.insert(name.into(), entry),
        None => entries.entry(namespace.into()).or_default().insert(name.into(), entry),
    };
}

fn take(entries: &mut Entries, namespace: &str, name: &str) {
    if let Some(names) = entries.get_mut(namespace) {
        names.remove(name);
        if names.is_empty() {
            entries.remove(namespace);
        }
    }
}

/// The values of a range, without its limit.
fn walk<'a>(entries: &'a Entries, range: &Range<'a>) -> impl Iterator<Item = &'a Entry> + use<'a> {
    let Range { namespace, after, .. } = *range;
    let first = namespace.max(after.map(|(namespace, _)| namespace));
    let spaces = entries.range::<str, _>((first.map_or(Bound::Unbounded, Bound::Included), Bound::Unbounded));
    let spaces = spaces.take_while(move |(space, _)| namespace.is_none_or(|namespace| namespace == *space));
    spaces.flat_map(move |(space, names)| {
        let after = after.filter(|(namespace, _)| namespace == space).map(|(_, name)| name);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        names.range::<str, _>((start, Bound::Unbounded)).map(|(_, entry)| entry)
    })
}

#[cfg(test)]
mod tests;
