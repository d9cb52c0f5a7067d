//! [`Informer`]: list, then watch, then list again when the watch has ended; no change is missed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};

use super::{Api, Changes};
use crate::{
    base::{Gvr, Stored},
    registry::WatchEvent,
};

/// The first wait after a list or watch that failed, doubling (`client-go/tools/cache/reflector.go`).
const FIRST_WAIT: Duration = Duration::from_millis(800);
/// The longest wait after a list or watch that failed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A watch that ends within this time, and without an event, is a failure.
const SHORT: SignedDuration = SignedDuration::from_secs(1);

/// What happened to one object.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is there, new or changed; with what it was before, as far as this informer knew it.
    Applied {
        /// The object now.
        new: Arc<Stored>,
        /// The object before.
        old: Option<Arc<Stored>>,
    },
    /// It is gone (or no longer selected).
    Gone(Arc<Stored>),
}

impl Change {
    /// The object as it is, or was last.
    pub fn object(&self) -> &Arc<Stored> {
        match self {
            Self::Applied { new, .. } => new,
            Self::Gone(last) => last,
        }
    }

    /// The object as it was before, if it was.
    pub fn before(&self) -> Option<&Arc<Stored>> {
        match self {
            Self::Applied { old, .. } => old.as_ref(),
            Self::Gone(last) => Some(last),
        }
    }
}

/// Where an informer stands.
#[derive(Debug)]
enum State {
    /// It must list; after so many failures in a row.
    List(u32),
    /// It has listed at this revision and must start to watch.
    Listed(u64),
    /// It watches since that time; with `true` once something was heard.
    Watching(Changes, Timestamp, bool),
}

/// Follows the objects of a resource.
#[derive(Debug)]
pub struct Informer {
    api: Api,
    gvr: Gvr,
    namespace: String,
    name: String,
    selector: String,
    state: State,
    /// The newest revision seen.
    revision: u64,
    /// Every object handed out and not gone, by namespace and name; the store's own copies.
    known: BTreeMap<String, BTreeMap<String, Arc<Stored>>>,
}

impl Informer {
    /// Follows a resource, in one namespace or (`""`) in all.
    pub fn new(api: Api, gvr: Gvr, namespace: &str, selector: &str) -> Self {
        Self {
            api,
            gvr,
            namespace: namespace.into(),
            name: String::new(),
            selector: selector.into(),
            state: State::List(0),
            revision: 0,
            known: BTreeMap::new(),
        }
    }

    /// Follows the objects of one name alone, unless that is `""`.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The next changes; perhaps none, when a list found nothing new. Cancel-safe.
    ///
    /// Fails never: what cannot be listed is tried again, later each time.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            match &mut self.state {
                State::List(failures) => {
                    if *failures > 0 {
                        let wait = FIRST_WAIT.saturating_mul(2_u32.saturating_pow(*failures - 1)).min(LONGEST_WAIT);
                        self.api.clock().sleep(wait).await;
                    }
                    match self.api.list_named(&self.gvr, &self.namespace, &self.name, &self.selector).await {
                        Ok((items, revision)) => {
                            self.state = State::Listed(revision);
                            self.revision = revision;
                            return self.replace(items);
                        }
                        Err(error) => {
                            tracing::debug!(resource = %self.gvr, %error, "list failed");
                            let failures = match &self.state {
                                State::List(failures) => failures.saturating_add(1),
                                State::Listed(_) | State::Watching(..) => 1,
                            };
                            self.state = State::List(failures);
                        }
                    }
                }
                State::Listed(revision) => {
                    let revision = *revision;
                    let Self { api, gvr, namespace, name, selector, .. } = &*self;
                    match api.watch_named(gvr, namespace, name, selector, revision).await {
                        Ok(watcher) => self.state = State::Watching(watcher, api.clock().now(), false),
                        // Too old already: list anew at once. Anything else: later.
                        Err(error) => self.state = State::List(u32::from(error.code != 410)),
                    }
                }
                State::Watching(watcher, since, heard) => match watcher.next().await {
                    Some(events) => {
                        *heard = true;
                        let changes = self.take_in(events);
                        if !changes.is_empty() {
                            return changes;
                        }
                    }
                    // A server ends a watch after some minutes; what was seen last is where it goes on. One that ends its
                    // watches at once is not asked again at once.
                    None => {
                        let short = self.api.clock().now().duration_since(*since) < SHORT && !*heard;
                        self.state = if short { State::List(1) } else { State::Listed(self.revision) };
                    }
                },
            }
        }
    }

    fn replace(&mut self, items: Vec<Arc<Stored>>) -> Vec<Change> {
        let listed: BTreeSet<_> = items.iter().map(|item| (item.namespace(), item.name())).collect();
        let known = self.known.values().flat_map(BTreeMap::values);
        let gone: Vec<_> =
            known.filter(|known| !listed.contains(&(known.namespace(), known.name()))).cloned().collect();
        gone.iter().for_each(|object| self.forget(object));
        let mut changes: Vec<_> = gone.into_iter().map(Change::Gone).collect();
        changes.extend(items.into_iter().filter_map(|item| self.applied(item)));
        changes
    }

    fn saw(&mut self, object: &Stored) {
        if let Ok(revision) = object.resource_version().parse() {
            self.revision = revision;
        }
    }

    fn applied(&mut self, new: Arc<Stored>) -> Option<Change> {
        let names = match self.known.get_mut(new.namespace()) {
            Some(names) => names,
            None => self.known.entry(new.namespace().into()).or_default(),
        };
        match names.insert(new.name().into(), new.clone()) {
            Some(old) if old.resource_version() == new.resource_version() && old.uid() == new.uid() => None,
            old => Some(Change::Applied { new, old }),
        }
    }

    fn forget(&mut self, object: &Stored) {
        if let Some(names) = self.known.get_mut(object.namespace()) {
            names.remove(object.name());
            if names.is_empty() {
                self.known.remove(object.namespace());
            }
        }
    }

    fn take_in(&mut self, events: Vec<WatchEvent>) -> Vec<Change> {
        let mut changes = Vec::with_capacity(events.len());
        for event in events {
            match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.saw(&object);
                    changes.extend(self.applied(object));
                }
                WatchEvent::Deleted(object) => {
                    self.saw(&object);
                    self.forget(&object);
                    changes.push(Change::Gone(object));
                }
                WatchEvent::Bookmark(revision, _) => self.revision = revision,
                WatchEvent::Error(error) => {
                    tracing::debug!(resource = %self.gvr, %error, "watch ended");
                    self.state = State::List(u32::from(error.code != 410));
                    break;
                }
            }
        }
        changes
    }
}
