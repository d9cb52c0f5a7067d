//! [`Informer`]: a view of objects that keeps itself up to date, and tells of each change once.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Debug,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, StreamExt};
use kube::{ResourceExt, runtime::watcher};

use crate::{
    conditions,
    error::Error,
    objects::{Kind, Objects},
};

/// What has happened to an object.
#[derive(Debug)]
#[non_exhaustive]
pub enum Change<K> {
    /// It has come, or was there when the informer began.
    Added(Arc<K>),
    /// It is another than it was.
    Changed {
        /// What it was.
        old: Arc<K>,
        /// What it is.
        new: Arc<K>,
    },
    /// It is gone; this is the last that was seen of it.
    Deleted(Arc<K>),
    /// All that was there when the informer began, or came back after an interruption, has been told.
    Synced,
    /// The connection broke, or was refused. The informer tries again by itself; the view is as it was.
    Interrupted(Error),
}

impl<K: Kind> Change<K> {
    /// The object, if it is Ready by this change and was not before.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    ///
    /// use agent_sandbox_sdk::{informer::Change, v1beta1::{Sandbox, SandboxSpec}};
    ///
    /// assert!(Change::Added(Arc::new(Sandbox::new("a", SandboxSpec::default()))).became_ready().is_none());
    /// ```
    pub fn became_ready(&self) -> Option<&Arc<K>> {
        match self {
            Self::Added(new) if is_ready(&**new) => Some(new),
            Self::Changed { old, new } if is_ready(&**new) && !is_ready(&**old) => Some(new),
            Self::Added(_) | Self::Changed { .. } | Self::Deleted(_) | Self::Synced | Self::Interrupted(_) => None,
        }
    }
}

/// Claims bear their sandbox's generation: only the status counts.
fn is_ready<K: Kind>(object: &K) -> bool {
    object.conditions().iter().any(|condition| condition.type_ == conditions::READY && condition.status == "True")
}

type Handler<K> = Box<dyn FnMut(&Arc<K>) + Send>;

/// A view of the objects that `config` selects, and the changes of it.
///
/// It works while [`next`](Self::next) or [`run`](Self::run) is waited for; nothing goes on in the background, and
/// dropping it ends it at once, connected or not. When the connection breaks, or it falls behind so far that the server
/// has forgotten where it was, it reads everything anew and tells only the differences: each object that was deleted
/// meanwhile is told, and none that stayed as it was. It keeps objects without their `managedFields`.
///
/// # Examples
/// ```no_run
/// use kube::{ResourceExt, runtime::watcher::Config};
///
/// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
/// let informer = client.sandboxes().informer(Config::default().labels("team=red"));
/// let view = informer.view();
/// let informer = informer
///     .on_ready(|sandbox| println!("{} is ready", sandbox.name_any()))
///     .on_deleted(|sandbox| println!("{} is gone", sandbox.name_any()));
/// tokio::spawn(informer.run());
/// println!("{} sandboxes", view.list().len());
/// # }
/// ```
pub struct Informer<K: Kind> {
    events: Pin<Box<dyn Stream<Item = Result<watcher::Event<K>, Error>> + Send>>,
    view: View<K>,
    /// What a list that is being read holds so far.
    fresh: BTreeMap<String, Arc<K>>,
    /// Changes that were found at once and are told one by one.
    pending: VecDeque<Change<K>>,
    on_ready: Vec<Handler<K>>,
    on_deleted: Vec<Handler<K>>,
}

impl<K: Kind> Debug for Informer<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Informer").field("kind", &K::kind(&())).finish_non_exhaustive()
    }
}

impl<K: Kind> Objects<K> {
    /// A view of the objects that `config` selects, which keeps itself up to date. Nothing is sent yet.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{informer::Informer, v1beta1::SandboxWarmPool};
    /// use kube::runtime::watcher::Config;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let pools: Informer<SandboxWarmPool> = client.warm_pools().informer(Config::default());
    /// tokio::spawn(pools.run());
    /// # }
    /// ```
    pub fn informer(&self, config: watcher::Config) -> Informer<K> {
        Informer {
            events: Box::pin(self.watch(config)),
            view: View { shared: Arc::default() },
            fresh: BTreeMap::new(),
            pending: VecDeque::new(),
            on_ready: Vec::new(),
            on_deleted: Vec::new(),
        }
    }
}

impl<K: Kind> Informer<K> {
    /// The view, to be read at any time from anywhere.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{informer::View, v1beta1::Sandbox};
    /// use kube::runtime::watcher::Config;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let informer = client.sandboxes().informer(Config::default());
    /// let view: View<Sandbox> = informer.view();
    /// tokio::spawn(informer.run());
    /// println!("{}", view.list().len());
    /// # }
    /// ```
    pub fn view(&self) -> View<K> {
        self.view.clone()
    }

    /// Calls `handler` with each object when it becomes Ready, also with those that are when the informer begins. It is
    /// called in [`next`](Self::next), and keeps it waiting.
    ///
    /// # Examples
    /// ```no_run
    /// use kube::runtime::watcher::Config;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let informer = client.claims().informer(Config::default());
    /// informer.on_ready(|claim| println!("{:?} serves it", claim.sandbox_name())).run().await;
    /// # }
    /// ```
    #[must_use]
    pub fn on_ready(mut self, handler: impl FnMut(&Arc<K>) + Send + 'static) -> Self {
        self.on_ready.push(Box::new(handler));
        self
    }

    /// Calls `handler` with each object that is deleted, as it was last seen.
    ///
    /// # Examples
    /// ```no_run
    /// use kube::{ResourceExt, runtime::watcher::Config};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let informer = client.sandboxes().informer(Config::default());
    /// informer.on_deleted(|sandbox| println!("{} is gone", sandbox.name_any())).run().await;
    /// # }
    /// ```
    #[must_use]
    pub fn on_deleted(mut self, handler: impl FnMut(&Arc<K>) + Send + 'static) -> Self {
        self.on_deleted.push(Box::new(handler));
        self
    }

    /// Keeps the view up to date and calls the handlers, until the future is dropped or the cluster turns out not to
    /// serve the kind.
    ///
    /// # Examples
    /// ```no_run
    /// use kube::runtime::watcher::Config;
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let informer = client.sandboxes().informer(Config::default());
    /// let running = tokio::spawn(informer.run());
    /// running.abort();
    /// # }
    /// ```
    pub async fn run(mut self) {
        while self.next().await.is_some() {}
    }

    /// The next change; the view has it already. `None` after an error was told that no waiting changes, so that nothing
    /// was ever watched: an [`Error::NotServed`], an [`Error::WatchFailed`] that is not retryable. May be dropped and
    /// called again without a loss.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::informer::Change;
    /// use kube::{ResourceExt, runtime::watcher::Config};
    ///
    /// # async fn example(client: agent_sandbox_sdk::AgentSandboxClient) {
    /// let mut informer = client.sandboxes().informer(Config::default());
    /// while let Some(change) = informer.next().await {
    ///     match change {
    ///         Change::Added(sandbox) => println!("{} is there", sandbox.name_any()),
    ///         Change::Interrupted(error) => eprintln!("{error}"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn next(&mut self) -> Option<Change<K>> {
        loop {
            if let Some(change) = self.pending.pop_front() {
                self.call(&change);
                return Some(change);
            }
            match self.events.next().await? {
                Err(error) => self.pending.push_back(Change::Interrupted(error)),
                Ok(watcher::Event::Init) => self.fresh.clear(),
                Ok(watcher::Event::InitApply(object)) => {
                    self.fresh.insert(object.name_any(), lighter(object));
                }
                Ok(watcher::Event::InitDone) => {
                    let fresh = std::mem::take(&mut self.fresh);
                    let old = std::mem::replace(&mut *self.view.lock(), (fresh.clone(), true)).0;
                    for (name, new) in &fresh {
                        self.pending.extend(difference(old.get(name), new));
                    }
                    let gone = old.into_iter().filter(|(name, _)| !fresh.contains_key(name));
                    self.pending.extend(gone.map(|(_, old)| Change::Deleted(old)));
                    self.pending.push_back(Change::Synced);
                }
                Ok(watcher::Event::Apply(object)) => {
                    let new = lighter(object);
                    let old = self.view.lock().0.insert(new.name_any(), new.clone());
                    self.pending.extend(difference(old.as_ref(), &new));
                }
                Ok(watcher::Event::Delete(object)) => {
                    self.view.lock().0.remove(&object.name_any());
                    self.pending.push_back(Change::Deleted(lighter(object)));
                }
            }
        }
    }

    fn call(&mut self, change: &Change<K>) {
        if let Some(object) = change.became_ready() {
            self.on_ready.iter_mut().for_each(|handler| handler(object));
        }
        if let Change::Deleted(object) = change {
            self.on_deleted.iter_mut().for_each(|handler| handler(object));
        }
    }
}

/// An object as it is kept: who has written which field takes more room than some objects, and nobody looks at it here.
fn lighter<K: Kind>(mut object: K) -> Arc<K> {
    object.meta_mut().managed_fields = None;
    Arc::new(object)
}

/// What lies between two sights of an object of one name; one that was deleted and made again unseen is two changes.
fn difference<K: Kind>(old: Option<&Arc<K>>, new: &Arc<K>) -> Vec<Change<K>> {
    match old {
        None => vec![Change::Added(new.clone())],
        Some(old) if old.uid() != new.uid() => vec![Change::Deleted(old.clone()), Change::Added(new.clone())],
        Some(old) if old.resource_version() == new.resource_version() => Vec::new(),
        Some(old) => vec![Change::Changed { old: old.clone(), new: new.clone() }],
    }
}

/// Objects by name, and whether they have been read whole at least once.
type Known<K> = (BTreeMap<String, Arc<K>>, bool);

/// What an [`Informer`] knows. Cheap to clone; clones see the same.
#[derive(Debug)]
pub struct View<K> {
    shared: Arc<Mutex<Known<K>>>,
}

impl<K> Clone for View<K> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<K> View<K> {
    /// Nothing is done under this lock that could leave the map half changed.
    fn lock(&self) -> std::sync::MutexGuard<'_, Known<K>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of that name.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{informer::View, v1beta1::Sandbox};
    ///
    /// # async fn example(view: View<Sandbox>) {
    /// if let Some(sandbox) = view.get("hello") {
    ///     println!("{}", sandbox.operating_mode());
    /// }
    /// # }
    /// ```
    pub fn get(&self, name: &str) -> Option<Arc<K>> {
        self.lock().0.get(name).cloned()
    }

    /// All objects, in the order of their names.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{informer::View, v1beta1::Sandbox};
    ///
    /// # async fn example(view: View<Sandbox>) {
    /// for sandbox in view.list() {
    ///     println!("{}", sandbox.operating_mode());
    /// }
    /// # }
    /// ```
    pub fn list(&self) -> Vec<Arc<K>> {
        self.lock().0.values().cloned().collect()
    }

    /// Whether all objects have been read once; an empty view says nothing before.
    ///
    /// # Examples
    /// ```no_run
    /// use agent_sandbox_sdk::{informer::View, v1beta1::Sandbox};
    ///
    /// # async fn example(view: View<Sandbox>) {
    /// let nothing_there = view.is_synced() && view.list().is_empty();
    /// println!("{nothing_there}");
    /// # }
    /// ```
    pub fn is_synced(&self) -> bool {
        self.lock().1
    }
}
