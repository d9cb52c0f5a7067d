//! Whatever watches and writes: controllers, the scheduler, the kubelet.
//!
//! An actor reaches the API only through [`Api`], hears of changes through an [`Informer`], and keeps what is to be done
//! in a [`Queue`]; [`run`] puts the three together. It has no private road: what it writes goes through admission,
//! validation and conflicts like everybody's writes.

mod api;
mod informer;
mod leader;
mod queue;
mod remote;
mod supervised;

use std::{fmt::Debug, num::NonZeroUsize};

use futures::{
    FutureExt, StreamExt,
    stream::{self, BoxStream, FuturesUnordered},
};
use tokio_util::sync::CancellationToken;

pub use self::{
    api::{Api, Changes, DeletePolicy, EventKind, Served, Server},
    informer::{Change, Informer},
    leader::Candidate,
    queue::{Outcome, Queue},
    remote::Remote,
    supervised::{start, supervised, while_up},
};
use crate::base::{Gvr, Status};

/// What one resource's changes mean to an actor: which keys to look at.
pub type ToKeys<K> = Box<dyn FnMut(&Change) -> Vec<K> + Send>;

/// A resource that an actor watches.
pub struct Source<K> {
    /// The resource.
    pub gvr: Gvr,
    /// Namespace, `""` for all.
    pub namespace: String,
    /// Name, `""` for all.
    pub name: String,
    /// Label selector, `""` for everything.
    pub selector: String,
    /// The keys that a change concerns.
    pub to_keys: ToKeys<K>,
}

impl<K> Source<K> {
    /// All objects of a resource.
    pub fn all(gvr: Gvr, to_keys: impl FnMut(&Change) -> Vec<K> + Send + 'static) -> Self {
        let (namespace, name, selector) = Default::default();
        Self { gvr, namespace, name, selector, to_keys: Box::new(to_keys) }
    }

    /// Narrows to the objects of a name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Narrows to a label selector.
    #[must_use]
    pub fn selecting(self, selector: &str) -> Self {
        Self { selector: selector.into(), ..self }
    }

    fn into_stream(self, api: &Api) -> BoxStream<'static, Vec<K>>
    where
        K: Send + 'static,
    {
        let informer = Informer::new(api.clone(), self.gvr, &self.namespace, &self.selector).named(&self.name);
        stream::unfold((informer, self.to_keys), async |(mut informer, mut to_keys)| {
            let changes = informer.next().await;
            let keys = changes.iter().flat_map(&mut to_keys).collect();
            Some((keys, (informer, to_keys)))
        })
        .boxed()
    }
}

/// Runs an actor until its token is cancelled: keys that changes concern are queued, each once, and reconciled one after
/// the other. A failed key comes back after a growing delay, one with a later need at its time.
///
/// Every change that the API has handed out is taken in before the next key is picked, so that indexes built in
/// [`Source::to_keys`] are as new as the watches.
///
/// Cancelling drops the reconciliation at its next wait; each single write is whole or not at all.
pub async fn run<K, F>(api: Api, sources: Vec<Source<K>>, token: CancellationToken, reconcile: impl FnMut(K) -> F)
where
    K: Clone + Ord + Debug + Send + 'static,
    F: Future<Output = Result<Outcome, Status>>,
{
    run_workers(api, sources, token, NonZeroUsize::MIN, reconcile).await;
}

/// As [`run`], with so many keys at a time; never one key twice at a time.
pub async fn run_workers<K, F>(
    api: Api,
    sources: Vec<Source<K>>,
    token: CancellationToken,
    workers: NonZeroUsize,
    mut reconcile: impl FnMut(K) -> F,
) where
    K: Clone + Ord + Debug + Send + 'static,
    F: Future<Output = Result<Outcome, Status>>,
{
    let clock = api.clock().clone();
    let mut feeds = stream::select_all(sources.into_iter().map(|source| source.into_stream(&api)));
    let mut queue = Queue::default();
    let mut working = FuturesUnordered::new();
    loop {
        while let Some(Some(keys)) = feeds.next().now_or_never() {
            queue.extend(keys);
        }
        while working.len() < workers.get()
            && let Some(key) = queue.take(clock.now())
        {
            let result = reconcile(key.clone());
            working.push(result.map(|result| (key, result)));
        }
        let full = working.len() == workers.get();
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            Some((key, result)) = working.next() => {
                if let Err(error) = &result {
                    tracing::debug!(?key, %error, "reconciliation failed");
                }
                queue.done(key, result.ok(), clock.now());
                // A long queue must not keep others from running.
                tokio::task::yield_now().await;
            }
            Some(keys) = feeds.next(), if !full => queue.extend(keys),
            () = queue.wait(&clock), if !full => {}
        }
    }
}

#[cfg(test)]
mod tests;
