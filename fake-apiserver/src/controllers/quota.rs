//! Counts what is used of resource quotas: when one is made or changed, when something it counts goes, and every five
//! minutes. What is created is charged by admission at once.
//!
//! Upstream: `pkg/controller/resourcequota/resource_quota_controller.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream, stream::BoxStream, stream::SelectAll};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    actor::{Api, Change, Informer, Outcome, Queue, Served, Server},
    admission::quota::{self, Amounts, Counted},
    base::{Gvr, Object, Status, Stored},
};

/// How often each quota is counted anew (`--resource-quota-sync-period`).
const RESYNC: Duration = Duration::from_secs(300);

fn quotas() -> Gvr {
    Gvr::new("", "v1", "resourcequotas")
}

/// Counts until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let user = "system:serviceaccount:kube-system:resourcequota-controller";
    let api = Api::new(server, user, super::KUBE_CONTROLLER_MANAGER);
    let clock = api.clock().clone();
    let mut counter = Counter { api, queue: Queue::default(), quotas: BTreeMap::new(), watched: BTreeMap::new() };
    let mut feeds = SelectAll::new();
    counter.watch(&mut feeds, quotas());
    loop {
        while let Some(Some((gvr, changes))) = feeds.next().now_or_never() {
            counter.take_in(&gvr, changes);
        }
        if counter.follow(&mut feeds) {
            continue; // what is new in the feeds is taken in before anything is counted
        }
        if let Some(key) = counter.queue.take(clock.now()) {
            let result = tokio::select! {
                biased;
                () = token.cancelled() => return,
                result = counter.count(&key) => result,
            };
            if let Err(error) = &result {
                tracing::debug!(?key, %error, "counting a quota failed");
            }
            counter.queue.done(key, result.ok(), clock.now());
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            Some((gvr, changes)) = feeds.next() => counter.take_in(&gvr, changes),
            () = counter.queue.wait(&clock) => {}
        }
    }
}

type Feed = BoxStream<'static, (Gvr, Vec<Change>)>;

struct Counter {
    api: Api,
    /// Quotas to count, by namespace and name.
    queue: Queue<(String, String)>,
    /// The quotas that there are.
    quotas: BTreeMap<(String, String), Arc<Stored>>,
    /// What is watched, and what stops watching it.
    watched: BTreeMap<Gvr, CancellationToken>,
}

impl Counter {
    fn watch(&mut self, feeds: &mut SelectAll<Feed>, gvr: Gvr) {
        let stop = CancellationToken::new();
        let informer = Informer::new(self.api.clone(), gvr.clone(), "", "");
        let feed = stream::unfold((informer, gvr.clone()), async |(mut informer, gvr)| {
            let changes = informer.next().await;
            Some(((gvr.clone(), changes), (informer, gvr)))
        });
        feeds.push(feed.take_until(stop.clone().cancelled_owned()).boxed());
        self.watched.insert(gvr, stop);
    }

    /// The resources that the quotas count, of those served.
    fn counted(&self) -> BTreeMap<Gvr, Counted> {
        let names: BTreeSet<String> = self.quotas.values().flat_map(|quota| quota::hard(quota).into_keys()).collect();
        if names.is_empty() {
            return BTreeMap::new();
        }
        let of = |served: Served| {
            let counted = Counted::new(&served.gvr.group, &served.gvr.resource);
            let counts = served.namespaced && !counted.matching(names.iter()).is_empty();
            counts.then_some((served.gvr, counted))
        };
        self.api.resources().into_iter().filter_map(of).collect()
    }

    /// Watches what the quotas count, and nothing else; whether that is more than before.
    fn follow(&mut self, feeds: &mut SelectAll<Feed>) -> bool {
        let counted = self.counted();
        let stale: Vec<_> =
            self.watched.keys().filter(|gvr| **gvr != quotas() && !counted.contains_key(gvr)).cloned().collect();
        for gvr in stale {
            if let Some(stop) = self.watched.remove(&gvr) {
                stop.cancel();
            }
        }
        let new: Vec<_> = counted.into_keys().filter(|gvr| !self.watched.contains_key(gvr)).collect();
        let more = !new.is_empty();
        new.into_iter().for_each(|gvr| self.watch(feeds, gvr));
        more
    }

    fn take_in(&mut self, gvr: &Gvr, changes: Vec<Change>) {
        let now = self.api.clock().now();
        for change in changes {
            let object = change.object();
            let namespace = object.namespace().to_owned();
            if *gvr == quotas() {
                let key = (namespace.clone(), object.name().to_owned());
                match &change {
                    Change::Gone(_) => {
                        self.quotas.remove(&key);
                    }
                    Change::Applied { new, old } => {
                        let same = old.as_ref().is_some_and(|old| quota::hard(old) == quota::hard(new));
                        self.quotas.insert(key.clone(), new.clone());
                        if !same {
                            self.queue.add(key);
                        }
                        continue;
                    }
                }
            }
            let less = match &change {
                Change::Gone(_) => true,
                Change::Applied { new, old } => {
                    let changed = |old: &Arc<Stored>| quota::replenishes(&gvr.group, &gvr.resource, old, new, now);
                    old.as_ref().is_some_and(changed)
                }
            };
            if less {
                let of_namespace = self.quotas.keys().filter(|(place, _)| *place == namespace).cloned();
                self.queue.extend(of_namespace.collect::<Vec<_>>());
            }
        }
    }

    async fn count(&self, (namespace, name): &(String, String)) -> Result<Outcome, Status> {
        let Some(quota) = self.api.get(&quotas(), namespace, name).await? else { return Ok(Outcome::Done) };
        let hard = quota::hard(&quota);
        let mut objects = BTreeMap::new();
        for (gvr, counted) in self.counted() {
            if !counted.matching(hard.keys()).is_empty() {
                let (items, _) = self.api.list(&gvr, namespace, "").await?;
                objects.insert(counted, items);
            }
        }
        let status = status(&quota, hard, quota::usage(&quota, &objects, self.api.clock().now()));
        if quota.get("status") != Some(&status) {
            let mut new = quota.object().clone();
            new.set("status", status);
            match self.api.update(&quotas(), new, "status").await {
                Err(error) if !error.is_not_found() => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Outcome::After(RESYNC))
    }
}

/// A quota's status: its limits, and of each of them what is used; what cannot be counted stays as it was.
fn status(quota: &Object, hard: Amounts, mut used: Amounts) -> Value {
    for name in hard.keys() {
        let before = quota.at(&["status", "used", name]).and_then(crate::base::value::as_quantity);
        if let Some(before) = before
            && !used.contains_key(name)
        {
            used.insert(name.clone(), before);
        }
    }
    let map = |amounts: Amounts| -> Map<String, Value> {
        amounts.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect()
    };
    let (hard, used) = (map(hard), map(used));
    let mut status = Map::new();
    for (key, amounts) in [("hard", hard), ("used", used)] {
        if !amounts.is_empty() {
            status.insert(key.into(), json!(amounts));
        }
    }
    status.into()
}
