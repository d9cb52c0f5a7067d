//! Deletes what no longer has an owner, and carries out foreground and orphan deletions.
//!
//! The collector watches every stored resource, keeps the [`graph`], and looks at one object at a time, with the live
//! object and its live owners. Upstream: `pkg/controller/garbagecollector/garbagecollector.go`.

pub mod graph;

use std::collections::{BTreeMap, VecDeque};

use futures::{FutureExt, StreamExt, stream, stream::BoxStream, stream::SelectAll};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::graph::{FOREGROUND, Graph, Node, ORPHAN, OwnerState, Type, Verdict, Work, judge};
use crate::{
    actor::{Api, Change, DeletePolicy, EventKind, Informer, Outcome, Queue, Served, Server},
    base::{Gvr, OwnerReference, Status, Stored},
};

/// How many UIDs of objects seen to go are remembered (as upstream's `absentOwnerCache`): their kind may be gone too, and
/// then nobody could be asked.
const ABSENT_OWNERS: usize = 500;

/// Runs the garbage collector until the token is cancelled.
pub async fn run(server: Server, token: CancellationToken) {
    let api =
        Api::new(server, "system:serviceaccount:kube-system:generic-garbage-collector", super::KUBE_CONTROLLER_MANAGER);
    let clock = api.clock().clone();
    let mut collector = Collector { api, graph: Graph::default(), queue: Queue::default(), absent: VecDeque::new() };
    let mut feeds = Feeds::default();
    loop {
        feeds.follow(&mut collector);
        while let Some(Some((of, changes))) = feeds.changes.next().now_or_never() {
            collector.take_in(&of, changes);
        }
        if let Some(work) = collector.queue.take(clock.now()) {
            let result = tokio::select! {
                biased;
                () = token.cancelled() => return,
                result = collector.attend(&work) => result,
            };
            if let Err(error) = &result {
                tracing::debug!(?work, %error, "garbage collection failed");
            }
            collector.queue.done(work, result.ok(), clock.now());
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            Some((of, changes)) = feeds.changes.next() => collector.take_in(&of, changes),
            () = collector.queue.wait(&clock) => {}
        }
    }
}

/// The changes of all stored resources.
#[derive(Default)]
struct Feeds {
    changes: SelectAll<BoxStream<'static, (Type, Vec<Change>)>>,
    /// What is watched, and what stops watching it.
    watched: BTreeMap<Gvr, CancellationToken>,
    /// The generation of what is served at the last look.
    seen: Option<u64>,
}

impl Feeds {
    /// Watches the resources that are stored now, and no others.
    fn follow(&mut self, collector: &mut Collector) {
        let generation = collector.api.generation(); // before the look, so that a change during it is looked at again
        if self.seen.replace(generation) == Some(generation) {
            return;
        }
        let served: Vec<_> = collector.api.resources().into_iter().filter(is_collected).collect();
        if served.len() == self.watched.len() && served.iter().all(|served| self.watched.contains_key(&served.gvr)) {
            return;
        }
        let gone: Vec<_> =
            self.watched.keys().filter(|gvr| !served.iter().any(|served| served.gvr == **gvr)).cloned().collect();
        for gvr in gone {
            if let Some(stop) = self.watched.remove(&gvr) {
                stop.cancel();
            }
            let same = |served: &Served| (&served.gvr.group, &served.gvr.resource) == (&gvr.group, &gvr.resource);
            if !served.iter().any(same) {
                for uid in collector.graph.of(&gvr.group, &gvr.resource) {
                    collector.gone(uid);
                }
            }
        }
        for Served { gvr, kind, .. } in served {
            if self.watched.contains_key(&gvr) {
                continue;
            }
            let stop = CancellationToken::new();
            let informer = Informer::new(collector.api.clone(), gvr.clone(), "", "");
            let api_version = gvr.api_version().into();
            let of = Type { gvr: gvr.clone().into(), api_version, kind: kind.into() };
            let feed = stream::unfold((informer, of), async |(mut informer, of)| {
                let changes = informer.next().await;
                Some(((of.clone(), changes), (informer, of)))
            });
            self.changes.push(feed.take_until(stop.clone().cancelled_owned()).boxed());
            self.watched.insert(gvr, stop);
        }
    }
}

struct Collector {
    api: Api,
    graph: Graph,
    queue: Queue<Work>,
    absent: VecDeque<String>,
}

impl Collector {
    fn take_in(&mut self, of: &Type, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Applied { new, old } => {
                    if let Some(old) = old
                        && old.uid() != new.uid()
                    {
                        self.gone(old.uid().to_owned());
                    }
                    let work = self.graph.observe(new.uid(), Node::new(of, &new));
                    self.queue.extend(work);
                }
                Change::Gone(last) => self.gone(last.uid().to_owned()),
            }
        }
    }

    fn gone(&mut self, uid: String) {
        let work = self.graph.forget(&uid);
        if !work.is_empty() {
            self.absent.push_back(uid);
            if self.absent.len() > ABSENT_OWNERS {
                self.absent.pop_front();
            }
        }
        self.queue.extend(work);
    }

    async fn attend(&mut self, work: &Work) -> Result<Outcome, Status> {
        match work {
            Work::Attempt(uid) => self.attempt(uid).await?,
            Work::Orphan(uid) => self.orphan(uid).await?,
            Work::Report(uid, owner) => self.report(uid, owner).await,
        }
        Ok(Outcome::Done)
    }

    async fn attempt(&mut self, uid: &str) -> Result<(), Status> {
        let Some(node) = self.graph.node(uid).cloned() else { return Ok(()) };
        if node.deleting && !node.deleting_dependents {
            return Ok(()); // the rest follows when it is gone
        }
        let Some(live) = self.live(uid, &node).await? else { return Ok(()) };
        if node.deleting_dependents {
            return self.wait_for_dependents(uid, &node).await;
        }
        let owners = live.owner_references();
        let mut states = Vec::with_capacity(owners.len());
        for owner in &owners {
            match self.owner_state(&node, owner).await? {
                Some(state) => states.push((owner.uid.as_str(), state)),
                // A cluster-scoped object cannot have an owner in a namespace; upstream leaves such an object alone.
                None => return Ok(()),
            }
        }
        let dependents: Vec<_> = self.graph.dependents(uid).map(|(_, dependent)| dependent).collect();
        match judge(&states, &dependents, &live.finalizers()) {
            Verdict::Keep => Ok(()),
            Verdict::Strip(stale) => self.strip(&node, &live, &stale).await,
            Verdict::Delete { propagation, unblock } => {
                let live = if unblock { self.unblock(&node, &live).await? } else { live };
                self.delete(&node, &live, propagation).await
            }
        }
    }

    /// The object itself, if it still is that one.
    async fn live(&self, uid: &str, node: &Node) -> Result<Option<std::sync::Arc<Stored>>, Status> {
        let live = self.api.get(&node.gvr, &node.namespace, &node.name).await?;
        Ok(live.filter(|live| live.uid() == uid))
    }

    /// What an owner reference is; `None` where a cluster-scoped object names an owner of a namespaced kind.
    async fn owner_state(&self, node: &Node, owner: &OwnerReference) -> Result<Option<OwnerState>, Status> {
        if self.absent.contains(&owner.uid) {
            return Ok(Some(OwnerState::Dangling));
        }
        let Some(served) = self.api.find_kind(&owner.api_version, &owner.kind) else {
            let kind = format!("{} in version {}", owner.kind, owner.api_version);
            return Err(Status::internal(format!("no matches for kind {kind}")));
        };
        if served.namespaced && node.namespace.is_empty() {
            return Ok(None);
        }
        let namespace = if served.namespaced { node.namespace.as_str() } else { "" };
        let live = self.api.get(&served.gvr, namespace, &owner.name).await?.filter(|live| live.uid() == owner.uid);
        Ok(Some(match live {
            None => OwnerState::Dangling,
            Some(live) if live.is_deleting() && live.finalizers().contains(&FOREGROUND) => OwnerState::Waiting,
            Some(_) => OwnerState::Solid,
        }))
    }

    async fn wait_for_dependents(&mut self, uid: &str, node: &Node) -> Result<(), Status> {
        let blocking: Vec<_> = self
            .graph
            .blocking_dependents(uid)
            .map(|(dependent, node)| (dependent.to_owned(), node.deleting_dependents))
            .collect();
        if blocking.is_empty() {
            return self.remove_finalizer(uid, node, FOREGROUND).await;
        }
        let idle = blocking.into_iter().filter(|(_, deleting_dependents)| !deleting_dependents);
        self.queue.extend(idle.map(|(dependent, _)| Work::Attempt(dependent)));
        Ok(())
    }

    async fn orphan(&self, uid: &str) -> Result<(), Status> {
        let Some(node) = self.graph.node(uid).cloned() else { return Ok(()) };
        let dependents: Vec<_> = self.graph.dependents(uid).map(|(uid, node)| (uid.to_owned(), node.clone())).collect();
        for (dependent_uid, dependent) in dependents {
            if let Some(live) = self.live(&dependent_uid, &dependent).await? {
                self.strip(&dependent, &live, &[uid.to_owned()]).await?;
            }
        }
        self.remove_finalizer(uid, &node, ORPHAN).await
    }

    /// Takes owner references from an object.
    async fn strip(&self, node: &Node, live: &Stored, stale: &[String]) -> Result<(), Status> {
        let references = raw_references(live);
        let kept: Vec<_> =
            references.iter().filter(|reference| !stale.iter().any(|uid| reference["uid"] == **uid)).cloned().collect();
        if kept.len() == references.len() {
            return Ok(());
        }
        self.patch_metadata(node, live, "ownerReferences", kept).await.map(drop)
    }

    /// Takes `blockOwnerDeletion` from an object's references.
    async fn unblock(&self, node: &Node, live: &Stored) -> Result<std::sync::Arc<Stored>, Status> {
        let mut references = raw_references(live);
        for reference in &mut references {
            if reference["blockOwnerDeletion"] == true {
                reference["blockOwnerDeletion"] = false.into();
            }
        }
        self.patch_metadata(node, live, "ownerReferences", references).await
    }

    async fn patch_metadata(
        &self,
        node: &Node,
        live: &Stored,
        member: &str,
        list: Vec<Value>,
    ) -> Result<std::sync::Arc<Stored>, Status> {
        let list = if list.is_empty() { Value::Null } else { list.into() };
        // The version makes the patch fail when the list has changed meanwhile; the UID, when it is another object.
        let patch = json!({"metadata": {
            "uid": live.uid(), "resourceVersion": live.resource_version(), member: list,
        }});
        self.api.patch(&node.gvr, &node.namespace, &node.name, "", patch).await
    }

    async fn remove_finalizer(&self, uid: &str, node: &Node, finalizer: &str) -> Result<(), Status> {
        let Some(live) = self.live(uid, node).await? else { return Ok(()) };
        let finalizers = live.finalizers();
        let kept: Vec<_> = finalizers.iter().filter(|other| **other != finalizer).map(|f| Value::from(*f)).collect();
        if kept.len() == finalizers.len() {
            return Ok(());
        }
        match self.patch_metadata(node, &live, "finalizers", kept).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    async fn delete(&self, node: &Node, live: &Stored, propagation: &'static str) -> Result<(), Status> {
        let policy = DeletePolicy {
            propagation: Some(propagation),
            uid: Some(live.uid().into()),
            resource_version: Some(live.resource_version().into()),
            grace: None,
        };
        match self.api.delete(&node.gvr, &node.namespace, &node.name, &policy).await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Tells of an owner in another namespace (`reportInvalidNamespaceOwnerRef` in `graph_builder.go`).
    async fn report(&self, uid: &str, owner: &str) {
        let Some(node) = self.graph.node(uid) else { return };
        let Some(reference) = node.owners.iter().find(|reference| reference.uid == owner) else { return };
        let Ok(Some(live)) = self.live(uid, node).await else { return };
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let namespace = &node.namespace;
        let note = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
             namespace {namespace:?}"
        );
        let kind = EventKind::Core { component: "garbage-collector-controller" };
        self.api.event(kind, &live, true, "OwnerRefInvalidNamespace", &note).await;
    }
}

/// Whether upstream collects a resource: it can be watched and deleted, and is not events, which are many and own nothing.
fn is_collected(served: &Served) -> bool {
    served.gvr.resource != "events" && served.serves(&["delete", "list", "watch"])
}

fn raw_references(object: &Stored) -> Vec<Value> {
    object.at(&["metadata", "ownerReferences"]).and_then(Value::as_array).cloned().unwrap_or_default()
}
